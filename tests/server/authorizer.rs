//! The authorizer: tokens that are opaque to the server, on every way in; what it makes of each fault of the one that is
//! asked; and what stays of an answer.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use tickcast_test_support::DEADLINE;
use tickcast_test_support::http::{connect, read_response, upgrade_request};
use tickcast_test_support::sse::SseClient;
use tickcast_test_support::tls::Authority;

use crate::access::{API_KEY, Quotes, btc, operator, reply_of, subscribe, token, until_trade};
use crate::access_changes::renewed;

const OPAQUE: &str = "opaque-token-of-u1";

/// What the authorizer does with a question.
#[derive(Clone)]
enum Reaction {
    /// An answer: a status, more lines of the head, and a body.
    Answer(u16, &'static str, String),
    /// An answer of the status 200, once the test permits it.
    Held(String),
    /// Nothing: the connection stays open.
    Silence,
    /// The end of the connection.
    Close,
}

fn answer(body: &Value) -> Reaction {
    Reaction::Answer(200, "Content-Type: application/json\r\n", body.to_string())
}

fn user(name: &str, rights: Value) -> Value {
    json!({"user": name, "expires_in_s": 600, "rights": rights})
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

struct Shared {
    reactions: Mutex<HashMap<String, Reaction>>,
    questions: Mutex<Vec<Value>>,
    /// Permits for held answers.
    permits: Mutex<Receiver<()>>,
}

/// An authorizer that has a reaction for each token, and refuses others.
struct Authorizer {
    address: SocketAddr,
    shared: Arc<Shared>,
    permits: Sender<()>,
}

impl Authorizer {
    fn start() -> Self {
        Self::start_with(None)
    }

    fn start_with(tls: Option<&Authority>) -> Self {
        let config = tls.map(|authority| {
            let chain = CertificateDer::pem_file_iter(authority.path("cert.pem")).expect("a certificate");
            let chain = chain.collect::<Result<Vec<_>, _>>().expect("a certificate");
            let key = PrivateKeyDer::from_pem_file(authority.path("key.pem")).expect("a key");
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            Arc::new(config.expect("versions").with_no_client_auth().with_single_cert(chain, key).expect("a pair"))
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (permits, permitted) = channel();
        let (reactions, questions) = Default::default();
        let shared = Arc::new(Shared { reactions, questions, permits: Mutex::new(permitted) });
        let of_thread = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, config) = (of_thread.clone(), config.clone());
                std::thread::spawn(move || {
                    let stream: Box<dyn Stream> = match config {
                        None => Box::new(stream),
                        Some(config) => {
                            Box::new(StreamOwned::new(ServerConnection::new(config).expect("a session"), stream))
                        }
                    };
                    // An error is the end of the connection.
                    let _ = shared.serve(stream);
                });
            }
        });
        Self { address, shared, permits }
    }

    fn url(&self) -> String {
        format!("http://{}/authorize", self.address)
    }

    fn set(&self, token: &str, reaction: Reaction) {
        self.shared.reactions.lock().expect("no panic").insert(token.to_owned(), reaction);
    }

    fn questions(&self) -> Vec<Value> {
        self.shared.questions.lock().expect("no panic").clone()
    }

    fn permit(&self) {
        self.permits.send(()).expect("it serves");
    }

    fn quotes(&self, more: &str, args: &[&str]) -> Quotes {
        Quotes::start(more, &[&["--authorizer-url", &self.url()][..], args].concat())
    }
}

impl Shared {
    fn serve(&self, stream: Box<dyn Stream>) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let (mut line, mut length) = (String::new(), 0);
            while line != "\r\n" {
                line.clear();
                if reader.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a number");
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let question: Value = serde_json::from_slice(&body).expect("JSON");
            let token = question["token"].as_str().expect("a token").to_owned();
            self.questions.lock().expect("no panic").push(question);
            let reaction = self.reactions.lock().expect("no panic").get(&token).cloned();
            let (status, head, body) = match reaction.unwrap_or(Reaction::Answer(401, "", String::new())) {
                Reaction::Answer(status, head, body) => (status, head, body),
                Reaction::Held(body) => {
                    // The test may be over.
                    let _ = self.permits.lock().expect("no panic").recv();
                    (200, "Content-Type: application/json\r\n", body)
                }
                Reaction::Silence => return reader.read_to_end(&mut Vec::new()).map(drop),
                Reaction::Close => return Ok(()),
            };
            let head = format!("HTTP/1.1 {status} X\r\n{head}Content-Length: {}\r\n\r\n", body.len());
            reader.get_mut().write_all((head + &body).as_bytes())?;
            reader.get_mut().flush()?;
        }
    }
}

/// Waits for something that another thread or process does.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn token_that_the_authorizer_knows_is_accepted_on_every_way_in() {
    let authorizer = Authorizer::start();
    let rights = json!({"products": ["BTC"], "deny": [{"symbols": ["BTC-EUR"]}], "professional": true});
    authorizer.set(OPAQUE, answer(&user("u1", rights)));
    let mut quotes = authorizer.quotes("", &[]);
    let (mut client, welcome) = quotes.stream(OPAQUE);
    assert_eq!(welcome["user"], "u1", "{welcome}");
    assert!(welcome["expires_in_s"].as_u64().is_some_and(|seconds| (500..=600).contains(&seconds)), "{welcome}");
    let reply = subscribe(&mut client, &["BTC-USD", "BTC-EUR", "XAU-USD", "user/u1/orders", "user/u2/orders"]);
    assert_eq!(reply["denied"], json!(["BTC-EUR", "XAU-USD", "user/u2/orders"]), "{reply}");
    quotes.publish_all(7);
    until_trade(&mut client, quotes.ids[0], 7);
    assert_eq!(quotes.get(Some(OPAQUE), "/v1/snapshot/BTC-USD").status, 200);
    quotes.get(Some(OPAQUE), "/v1/snapshot/XAU-USD").assert_refusal(403, "forbidden", &["not among your rights"]);
    let header = format!("Authorization: Bearer {OPAQUE}\r\n");
    let mut events = SseClient::connect(quotes.server.address, "/v1/sse?symbols=*,XAU-USD&channels=quote", &header);
    assert_eq!(events.until_message("subscribed")["denied"], json!(["XAU-USD"]));
    let mut later = quotes.try_stream(&[]).expect("a token may follow");
    assert_eq!(later.reply()["auth"], "required");
    later.send_text(&json!({"op": "auth", "id": 2, "token": OPAQUE}).to_string());
    later.send_text(r#"{"op":"subscribe","id":3,"channels":["quote"],"symbols":["BTC-USD"]}"#);
    assert_eq!(reply_of(&mut later, "authenticated")["user"], "u1");
    assert_eq!(reply_of(&mut later, "subscribed")["count"], 1);
    let expected = json!({"token": OPAQUE, "purpose": "subscribe", "address": "127.0.0.1"});
    assert_eq!(authorizer.questions(), [expected], "it is asked once");
    // Tokens of the issuer and API keys are not its matter.
    for known in [token("u2", btc()), API_KEY.to_owned()] {
        assert_eq!(quotes.get(Some(&known), "/v1/instruments").status, 200);
    }
    assert_eq!(authorizer.questions().len(), 1);
}

#[test]
fn token_is_refreshed_on_the_connection_with_what_is_said_then() {
    let authorizer = Authorizer::start();
    authorizer.set(OPAQUE, answer(&user("u1", json!({"allow": [{"symbols": ["*"]}]}))));
    let quotes = authorizer.quotes("", &["--heartbeat-ms", "60000"]);
    let (mut client, _) = quotes.stream(OPAQUE);
    subscribe(&mut client, &["BTC-USD", "XAU-USD"]);
    authorizer.set(OPAQUE, answer(&user("u1", btc())));
    let auth = |id: u64, token: &str| json!({"op": "auth", "id": id, "token": token}).to_string();
    client.send_text(&auth(2, OPAQUE));
    let reply = reply_of(&mut client, "authenticated");
    let mut dropped: Vec<_> = reply["dropped"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    dropped.sort_unstable();
    assert_eq!(
        (&dropped[..], &reply["id"]),
        (&["BTC-USD", "XAU-USD"][..], &json!(2)),
        "of one, some channels: {reply}"
    );
    authorizer.set(OPAQUE, Reaction::Close);
    client.send_and_expect_error(&auth(3, OPAQUE), Some(3), "unavailable", &["cannot be checked now"]);
    authorizer.set(OPAQUE, Reaction::Answer(403, "", String::new()));
    client.send_and_expect_error(&auth(4, OPAQUE), Some(4), "unauthorized", &["its user may not connect"]);
    client.ping();
    authorizer.set(OPAQUE, answer(&user("u2", btc())));
    client.send_text(&auth(5, OPAQUE));
    client.expect_close(4003, &["of another user"]);
}

#[test]
fn end_of_an_answer_is_announced_and_ends_the_connection_after_the_grace() {
    let authorizer = Authorizer::start();
    let mut short = user("u1", btc());
    short["expires_in_s"] = json!(3);
    authorizer.set(OPAQUE, answer(&short));
    let quotes = authorizer.quotes("", &["--token-grace-s", "1"]);
    let (mut client, _) = quotes.stream(OPAQUE);
    assert!(reply_of(&mut client, "expiring")["in_s"].as_u64().is_some_and(|seconds| seconds <= 1));
    assert_eq!(reply_of(&mut client, "closing")["reason"], "credentials_expired");
    client.expect_close(4001, &["the token has expired"]);
}

#[test]
fn nobody_is_let_in_by_a_fault_and_the_client_and_the_log_say_why() {
    let authorizer = Authorizer::start();
    let quotes = authorizer.quotes("", &["--authorizer-timeout-ms", "300", "--log", "debug"]);
    let json_head = "Content-Type: application/json\r\n";
    let good = user("u1", btc()).to_string();
    let of = |status, head, body: &str| Reaction::Answer(status, head, body.to_owned());
    let (cannot, late) = ("token: it cannot be checked now", "token: it was not checked in time: try again later");
    let wrong_right = json!({"user": "u1", "expires_in_s": 60, "rights": {"allow": [{"symbols": ["*"], "hours": 9}]}});
    let faults = [
        (Reaction::Silence, 503, "unavailable", late, "no answer within 300 ms (authorizer_timeout_ms)"),
        (Reaction::Close, 503, "unavailable", cannot, "the request failed"),
        (of(500, json_head, &good), 503, "unavailable", cannot, "status 500: expected 200, 401 or 403"),
        (
            of(302, "Location: /in\r\n", ""),
            503,
            "unavailable",
            cannot,
            "status 302: expected 200, 401 or 403; redirects",
        ),
        (of(200, json_head, &" ".repeat(65_537)), 503, "unavailable", cannot, "the answer has more than 65536 bytes"),
        (of(200, json_head, "<html>"), 503, "unavailable", cannot, "invalid answer: expected value"),
        (of(200, "Content-Type: text/html\r\n", &good), 503, "unavailable", cannot, "Content-Type \\\"text/html\\\""),
        (of(200, json_head, "{\"user\":\"u1\"}"), 503, "unavailable", cannot, "missing field `expires_in_s`"),
        (
            of(200, json_head, &wrong_right.to_string()),
            401,
            "unauthorized",
            "its rights are not understood",
            "unknown field `hours`",
        ),
        (of(401, "", ""), 401, "unauthorized", "token: not valid", "the authorizer has answered 401"),
        (of(403, "", ""), 403, "forbidden", "token: its user may not connect", "the authorizer has answered 403"),
    ];
    for (nth, (reaction, status, code, message, _)) in faults.iter().enumerate() {
        let token = format!("opaque-secret-number-{nth}");
        authorizer.set(&token, reaction.clone());
        let bearer = format!("Bearer {token}");
        let refused = quotes.try_stream(&[("Authorization", &bearer)]).err().expect("it is refused");
        refused.assert_refusal(*status, code, &[message]);
        assert_eq!(refused.header("retry-after").is_some(), *status == 503, "{nth}");
    }
    let metric = |name: &str| quotes.server.metric_values(&format!("tickcast_{name}"))[0];
    let of_authorizer =
        ["requests", "late", "unreachable", "invalid"].map(|name| metric(&format!("authorizer_{name}_total")));
    assert_eq!(of_authorizer, [11, 1, 1, 7]);
    let of_clients = ["late", "unchecked", "rights", "invalid", "forbidden", "accepted"]
        .map(|name| metric(&format!("credentials_{name}_total")));
    assert_eq!(of_clients, [1, 7, 1, 1, 1, 0]);
    assert_eq!((metric("authorizer_under_way"), metric("pending_connections")), (0, 1), "that of the metrics");
    authorizer.set(OPAQUE, Reaction::Close);
    quotes.get(Some(OPAQUE), "/v1/instruments").assert_refusal(503, "unavailable", &[cannot]);
    assert!(quotes.server.get("/readyz").text().contains("the authorizer does not answer"));
    let stderr = quotes.server.stop(Signal::TERM).stderr;
    for (nth, (.., logged)) in faults.iter().enumerate() {
        assert!(stderr.contains(logged) || stderr.contains(&logged.replace('\\', "")), "{nth}: {logged}: {stderr}");
    }
    assert!(!stderr.contains("opaque-secret") && !stderr.contains(OPAQUE), "{stderr}");
}

#[test]
fn wrong_tokens_are_counted_against_their_address() {
    let authorizer = Authorizer::start();
    let quotes = authorizer.quotes("", &[]);
    authorizer.set(OPAQUE, answer(&user("u1", btc())));
    for nth in 0..10 {
        let guess = format!("guess-of-a-stranger-{nth}");
        quotes.get(Some(&guess), "/v1/instruments").assert_refusal(401, "unauthorized", &["token: not valid"]);
    }
    quotes.get(Some(OPAQUE), "/v1/instruments").assert_refusal(429, "limit", &["too many wrong tokens"]);
    assert_eq!(authorizer.questions().len(), 10);
}

#[test]
fn many_clients_with_one_token_are_one_question_and_those_that_leave_leave_nothing() {
    let authorizer = Authorizer::start();
    authorizer.set(OPAQUE, Reaction::Held(user("u1", btc()).to_string()));
    let quotes = authorizer.quotes("", &["--authorizer-timeout-ms", "5000", "--cores", "0,1"]);
    let head = format!("\r\nAuthorization: Bearer {OPAQUE}\r\n\r\n");
    let request = upgrade_request("/v1/stream").replacen("\r\n\r\n", &head, 1);
    let mut streams: Vec<_> = (0..8).map(|_| connect(quotes.server.address)).collect();
    for stream in &mut streams {
        stream.write_all(request.as_bytes()).expect("it reads");
    }
    let mut by_message = quotes.try_stream(&[]).expect("a token may follow");
    by_message.send_text(&json!({"op": "auth", "id": 2, "token": OPAQUE}).to_string());
    quotes.server.wait_for_metric("tickcast_authorizer_joined_total", |joined| joined == 8);
    assert_eq!(quotes.server.metric_values("tickcast_authorizer_under_way"), [1]);
    // Requests and clients that leave while they wait, and others that stay.
    streams.truncate(4);
    let mut leaving = quotes.try_stream(&[]).expect("a token may follow");
    leaving.send_text(&json!({"op": "auth", "id": 2, "token": OPAQUE}).to_string());
    quotes.server.wait_for_metric("tickcast_authorizer_joined_total", |joined| joined == 9);
    drop(leaving);
    authorizer.permit();
    for stream in &mut streams {
        let head = tickcast_test_support::http::read_head(stream);
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    }
    assert_eq!(reply_of(&mut by_message, "authenticated")["user"], "u1");
    assert_eq!(authorizer.questions().len(), 1);
    drop(streams);
    // None but the client that is left, and the connection of each request for metrics.
    quotes.server.wait_for_metric("tickcast_sessions", |sessions| sessions == 1);
    let is_one = |values: Vec<u64>| values.iter().sum::<u64>() == 1;
    until("no request waits", || is_one(quotes.server.metric_values("tickcast_pending_connections")));
    assert_eq!(quotes.server.metric_values("tickcast_authorizer_under_way"), [0]);
}

#[test]
fn questions_under_way_are_bounded() {
    let authorizer = Authorizer::start();
    let args = ["--authorizer-requests-max", "4", "--authorizer-timeout-ms", "5000"];
    let quotes = authorizer.quotes("", &args);
    authorizer.set(OPAQUE, Reaction::Held(user("u1", btc()).to_string()));
    authorizer.set("another-opaque-token", answer(&user("u2", btc())));
    let mut waiting = connect(quotes.server.address);
    let head = format!("GET /v1/instruments HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {OPAQUE}\r\n\r\n");
    let head = head.replace("Host: a", &format!("Host: {}", quotes.server.address));
    waiting.write_all(head.as_bytes()).expect("it reads");
    quotes.server.wait_for_metric("tickcast_authorizer_under_way", |under_way| under_way == 1);
    let other = || quotes.get(Some("another-opaque-token"), "/v1/instruments");
    other().assert_refusal(503, "unavailable", &["too many are being checked now: try again later"]);
    assert_eq!(quotes.server.metric_values("tickcast_credentials_busy_total"), [1]);
    authorizer.permit();
    assert_eq!(read_response(&mut waiting).status, 200);
    assert_eq!(other().status, 200);
}

#[test]
fn answer_is_used_again_for_a_while_and_then_asked_for_anew() {
    let authorizer = Authorizer::start();
    authorizer.set(OPAQUE, answer(&user("u1", btc())));
    let quotes = authorizer.quotes("", &["--authorizer-cache-s", "2"]);
    let get = || quotes.get(Some(OPAQUE), "/v1/snapshot/BTC-USD").status;
    assert_eq!((get(), get(), authorizer.questions().len()), (200, 200, 1));
    assert!(quotes.server.metric_values("tickcast_authorizer_cached_total")[0] >= 1);
    authorizer.set(OPAQUE, Reaction::Answer(401, "", String::new()));
    until("it is asked about again", || get() == 401);
    assert_eq!(authorizer.questions().len(), 2);
    let uncached = authorizer.quotes("", &["--authorizer-cache-s", "0"]);
    authorizer.set(OPAQUE, answer(&user("u1", btc())));
    for _ in 0..3 {
        assert_eq!(uncached.get(Some(OPAQUE), "/v1/snapshot/BTC-USD").status, 200);
    }
    assert_eq!(authorizer.questions().len(), 5);
}

#[test]
fn revocation_ends_connections_and_holds_for_answers_from_before_and_after() {
    let authorizer = Authorizer::start();
    let mut with_id = user("u2", btc());
    with_id["jti"] = json!("t-2");
    authorizer.set(OPAQUE, answer(&user("u1", btc())));
    authorizer.set("opaque-token-of-u2", answer(&with_id));
    let quotes = authorizer.quotes("", &["--authorizer-cache-s", "0"]);
    for (token, query) in [(OPAQUE, "user=u1"), ("opaque-token-of-u2", "jti=t-2")] {
        let (client, _) = quotes.stream(token);
        assert_eq!(quotes.revoke(query, &operator()).status, 200);
        client.expect_close(4001, &["the credential was revoked"]);
        quotes.get(Some(token), "/v1/instruments").assert_refusal(401, "unauthorized", &["token: revoked"]);
    }
}

#[test]
fn settings_that_change_reach_clients_of_the_authorizer() {
    let (authorizer, other) = (Authorizer::start(), Authorizer::start());
    authorizer.set(OPAQUE, answer(&user("u1", btc())));
    other.set(OPAQUE, answer(&user("u1", btc())));
    let quotes = Quotes::start("", &["--authorizer-cache-s", "3600"]);
    let status = || quotes.get(Some(OPAQUE), "/v1/instruments").status;
    assert_eq!(status(), 401, "there is none to ask");
    let line = |authorizer: &Authorizer| format!("authorizer_url = '{}'\n", authorizer.url());
    quotes.reload("[[issuer]]", &(line(&authorizer) + "[[issuer]]"));
    until("the authorizer is asked", || status() == 200);
    let (mut client, _) = quotes.stream(OPAQUE);
    subscribe(&mut client, &["BTC-USD", "BTC-EUR"]);
    quotes.reload("rights.allow = [{ symbols = ['BTC-*']", "rights.allow = [{ symbols = ['BTC-U*']");
    assert_eq!(renewed(&mut client)["dropped"], json!(["BTC-EUR"]));
    assert_eq!(quotes.get(Some(OPAQUE), "/v1/snapshot/BTC-EUR").status, 403, "the answer was forgotten");
    assert_eq!(authorizer.questions().len(), 2);
    // What another one knows, it says itself.
    quotes.reload(&line(&authorizer), &line(&other));
    client.expect_close(4001, &["the settings have changed"]);
    let (client, _) = quotes.stream(OPAQUE);
    assert_eq!((authorizer.questions().len(), other.questions().len()), (2, 1));
    quotes.reload("[[product]]\nname = 'BTC'", "[[product]]\nname = 'EQ'");
    client.expect_close(4001, &["the settings have changed"]);
    quotes.get(Some(OPAQUE), "/v1/instruments").assert_refusal(401, "unauthorized", &["its rights are not understood"]);
}

#[test]
fn authorizer_over_tls_is_trusted_by_its_authority_only() {
    let authority = Authority::new();
    let authorizer = Authorizer::start_with(Some(&authority));
    authorizer.set(OPAQUE, answer(&user("u1", btc())));
    let url = format!("https://localhost:{}/authorize", authorizer.address.port());
    let ca = authority.path("ca.pem");
    let args = ["--authorizer-url", &url, "--authorizer-ca-file", ca.to_str().expect("UTF-8")];
    let trusting = Quotes::start("", &args);
    let (mut client, welcome) = trusting.stream(OPAQUE);
    assert_eq!(welcome["user"], "u1");
    client.ping();
    let wary = Quotes::start("", &args[..2]);
    wary.get(Some(OPAQUE), "/v1/instruments").assert_refusal(503, "unavailable", &["cannot be checked now"]);
    assert_eq!(authorizer.questions().len(), 1, "no token goes to a server that is not trusted");
    assert!(wary.server.stop(Signal::TERM).stderr.contains("it is from no authority that the system trusts"));
}
