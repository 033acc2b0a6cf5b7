//! Who a client is and what it may see, on every way out of the program: tokens in each of their places, rights by symbol
//! and channel, private symbols, refresh, expiry, revocation.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rustix::process::Signal;
use serde_json::{Value, json};
use tickcast_test_support::client::{Client, Received, Record, records_of};
use tickcast_test_support::http::{Response, connect, send_request};
use tickcast_test_support::publisher::{Publisher, numbers, quote, record, trade};
use tickcast_test_support::server::{Program, Server};
use tickcast_test_support::sse::SseClient;

const SECRET: &str = "a-secret-of-the-tests-with-32-bytes-or-more";
const PUBLISHER: &str = "token-of-the-publisher";
pub(crate) const OPERATOR: &str = "token-of-the-operator";
pub(crate) const API_KEY: &str = "tk_0123456789abcdefghijkl";
/// From `printf %s tk_0123456789abcdefghijkl | sha256sum`.
const API_KEY_HASH: &str = "c86c87391a7fcc737daeb776aae8afd2aa885ac48c6ed585ec5709686666eb47";
const SYMBOLS: [&str; 5] = ["BTC-USD", "BTC-EUR", "XAU-USD", "user/u1/orders", "user/u2/orders"];
const STATUS: u8 = 19;
const GAP: u8 = 18;
const DEFINITION: u8 = 16;

pub(crate) struct Quotes {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) server: Server,
    pub(crate) publisher: Publisher,
    pub(crate) ids: Vec<u32>,
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

impl Quotes {
    pub(crate) fn start(more: &str, args: &[&str]) -> Self {
        Self::in_folder(tempfile::tempdir().expect("a folder"), more, args)
    }

    pub(crate) fn in_folder(folder: tempfile::TempDir, more: &str, args: &[&str]) -> Self {
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("the folder is writable");
            path.to_str().expect("a path in UTF-8").to_owned()
        };
        let secret = file("secret", SECRET);
        let keys = file(
            "keys.toml",
            &format!("[[key]]\nuser = 'robot'\nsha256 = '{API_KEY_HASH}'\nrights.allow = [{{ symbols = ['XAU-*'] }}]"),
        );
        let settings = format!(
            "[[issuer]]\nname = 'test'\niss = 'https://id.example.com'\naudience = ['tickcast']\nalgorithms = ['HS256']\n\
             secret_file = '{secret}'\nleeway_s = 0\n\
             [[product]]\nname = 'BTC'\nrights.allow = [{{ symbols = ['BTC-*'], channels = ['quote', 'trade'] }}]\n{more}"
        );
        let config = file("tickcast.toml", &settings);
        let of_server =
            ["--listen", "127.0.0.1:0", "--feed", "none", "--publish-token", PUBLISHER, "--operator-token", OPERATOR];
        let of_test = ["--config", &config, "--api-keys-file", &keys];
        let server = Server::spawn(Program::command(&[&of_server[..], &of_test, args].concat()));
        let mut publisher = Publisher::connect(&server, PUBLISHER);
        let ids = publisher.define(&SYMBOLS);
        let mut quotes = Self { folder, server, publisher, ids };
        quotes.publish_all(1);
        quotes
    }

    /// A quote and a trade at `px`, and another event, of each instrument; those of BTC-USD come last.
    pub(crate) fn publish_all(&mut self, px: i64) {
        let of = |id: &u32| {
            let halt = record(STATUS, *id, 0, b"H\0\0\0\0\0\0\0");
            let gap = record(GAP, *id, 0, &[numbers(&[px * 3, px * 3]), vec![2, b'F', 0, 0, 0, 0, 0, 0]].concat());
            [quote(*id, px), trade(*id, px), halt, gap]
        };
        let records: Vec<_> = self.ids.iter().rev().flat_map(of).collect();
        self.publisher.publish(&records);
    }

    pub(crate) fn try_stream(&self, headers: &[(&str, &str)]) -> Result<Client, Response> {
        Client::try_connect(self.server.address, "/v1/stream", headers)
    }

    /// A client with this token, and its welcome.
    pub(crate) fn stream(&self, token: &str) -> (Client, Value) {
        let bearer = format!("Bearer {token}");
        let mut client = self.try_stream(&[("Authorization", &bearer)]).expect("it is accepted");
        let welcome = client.reply();
        (client, welcome)
    }

    pub(crate) fn get(&self, token: Option<&str>, path: &str) -> Response {
        let authorization = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
        let address = self.server.address;
        send_request(address, format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{authorization}\r\n").as_bytes())
    }

    pub(crate) fn revoke(&self, query: &str, headers: &str) -> Response {
        let address = self.server.address;
        let head = format!(
            "POST /v1/operator/revoke?{query} HTTP/1.1\r\nHost: {address}\r\n{headers}Content-Length: 0\r\n\r\n"
        );
        send_request(address, head.as_bytes())
    }
}

pub(crate) fn operator() -> String {
    format!("Authorization: Bearer {OPERATOR}\r\n")
}

pub(crate) fn claims(user: &str, rights: Value) -> Value {
    let now_s = now_s();
    json!({
        "iss": "https://id.example.com", "aud": "tickcast", "sub": user, "iat": now_s, "exp": now_s + 600,
        "jti": format!("{user}-{now_s}"), "tickcast": rights
    })
}

pub(crate) fn signed(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes()).expect("a secret");
    encode(&Header::new(Algorithm::HS256), claims, &key).expect("claims")
}

pub(crate) fn token(user: &str, rights: Value) -> String {
    signed(&claims(user, rights))
}

pub(crate) fn btc() -> Value {
    json!({"products": ["BTC"]})
}

pub(crate) fn everything() -> Value {
    json!({"allow": [{"symbols": ["*"]}]})
}

pub(crate) fn subscribe(client: &mut Client, symbols: &[&str]) -> Value {
    let channels = ["quote", "trade", "ticker", "book", "raw"];
    client.send_text(&json!({"op": "subscribe", "id": 1, "channels": channels, "symbols": symbols}).to_string());
    reply_of(client, "subscribed")
}

/// The next reply of a kind. Records that come before are dropped.
pub(crate) fn reply_of(client: &mut Client, kind: &str) -> Value {
    loop {
        if let Received::Reply(reply) = client.receive() {
            if reply["type"] == kind {
                return reply;
            }
            assert_ne!(reply["type"], "error", "{reply}");
        }
    }
}

/// Records up to the trade of BTC-USD at `px`.
pub(crate) fn until_trade(client: &mut Client, id: u32, px: i64) -> Vec<Record> {
    let mut records = Vec::new();
    loop {
        let Received::Packet(packet) = client.receive() else { continue };
        records.extend(records_of(&packet));
        let is_last = |record: &Record| {
            record.header.instrument == id && record.header.kind == 2 && record.header.ts_event == px as u64
        };
        if records.iter().any(is_last) {
            return records;
        }
    }
}

#[test]
fn client_is_sent_what_its_token_allows_and_no_sign_of_the_rest() {
    let mut quotes = Quotes::start("", &[]);
    let (mut client, welcome) = quotes.stream(&token("u1", btc()));
    assert_eq!((welcome["user"].as_str(), welcome.get("auth")), (Some("u1"), None), "{welcome}");
    let reply = subscribe(&mut client, &["*", "BTC-*", "BTC-EUR", "XAU-USD", "NONE", "XAU-*", "user/u2/*", "user/*"]);
    assert_eq!(reply["denied"], json!(["XAU-USD", "NONE", "XAU-*", "user/u2/*", "user/*"]), "{reply}");
    assert_eq!(reply["limited"], json!(["*", "BTC-*", "BTC-EUR"]), "{reply}");
    assert_eq!((&reply["count"], &reply["unknown"]), (&json!(2), &json!([])), "{reply}");
    quotes.publish_all(7);
    // Defined later, and not to be seen.
    let later = quotes.publisher.define(&["XAG-USD", "BTC-NEW", "user/u1/x", "user/u2/x"]);
    quotes.publisher.publish(&later.iter().map(|id| quote(*id, 8)).collect::<Vec<_>>());
    quotes.publish_all(9);
    let records = until_trade(&mut client, quotes.ids[0], 9);
    let allowed = [0, quotes.ids[0], quotes.ids[1], later[1]];
    for record in &records {
        assert!(allowed.contains(&record.header.instrument), "{:?}", record.header);
    }
    let kinds = |kind: u8| records.iter().filter(|record| record.header.kind == kind).count();
    assert!(kinds(DEFINITION) == 3 && kinds(STATUS) > 0 && kinds(GAP) > 0, "and all of that: {records:?}");
}

#[test]
fn private_symbols_are_sent_to_their_user_alone() {
    let mut quotes = Quotes::start("", &[]);
    let (mut one, _) = quotes.stream(&token("u1", everything()));
    let reply = subscribe(&mut one, &["*", "user/u1/*", "user/u2/orders", "user/u*"]);
    assert_eq!(reply["denied"], json!(["user/u2/orders", "user/u*"]), "{reply}");
    assert_eq!(reply["count"], 4, "{reply}");
    let (mut all, _) = quotes.stream(&token("u3", everything()));
    assert_eq!(subscribe(&mut all, &["*"])["count"], 3);
    quotes.publish_all(7);
    let seen = |client: &mut Client, quotes: &Quotes| {
        let records = until_trade(client, quotes.ids[0], 7);
        let mut ids: Vec<u32> = records.iter().map(|record| record.header.instrument).filter(|id| *id > 0).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    assert_eq!(seen(&mut one, &quotes), quotes.ids[..4]);
    assert_eq!(seen(&mut all, &quotes), quotes.ids[..3]);
}

#[test]
fn queries_events_json_and_resume_hold_what_the_token_allows() {
    let mut quotes = Quotes::start("", &[]);
    let (btc, robot) = (token("u1", btc()), API_KEY);
    let symbols = |token: &str| -> Vec<String> {
        let listed = quotes.get(Some(token), "/v1/instruments");
        assert_eq!(listed.header("cache-control"), Some("private, no-cache"));
        let list = listed.json()["instruments"].as_array().expect("a list").clone();
        list.iter().map(|instrument| instrument["symbol"].as_str().expect("a symbol").to_owned()).collect()
    };
    assert_eq!(symbols(&btc), ["BTC-USD", "BTC-EUR", "user/u1/orders"]);
    assert_eq!(symbols(robot), ["XAU-USD"]);
    // The same answer, whether the symbol exists or not.
    for symbol in ["XAU-USD", "NONE", "user/u2/orders", "user%2Fu2%2Forders"] {
        for path in
            ["/v1/snapshot/", "/v1/bars/", "/v1/trades/", "/v1/snapshot?symbols=", "/v1/snapshot?symbols=BTC-USD,"]
        {
            quotes.get(Some(&btc), &format!("{path}{symbol}")).assert_refusal(
                403,
                "forbidden",
                &["not among your rights"],
            );
        }
    }
    let snapshot = quotes.get(Some(&btc), "/v1/snapshot/BTC-USD").json();
    assert!(snapshot["quote"].is_object() && snapshot.get("ticker").is_none(), "{snapshot}");
    let all = quotes.get(Some(&btc), "/v1/snapshot?symbols=*").json();
    assert_eq!(all["snapshots"].as_array().map(Vec::len), Some(2), "{all}");
    assert_eq!(quotes.get(Some(&btc), "/v1/bars/BTC-USD?interval_s=1").status, 200);
    let only_trades = token("u1", json!({"allow": [{"symbols": ["BTC-*"], "channels": ["trade"]}]}));
    let bars = quotes.get(Some(&only_trades), "/v1/bars/BTC-USD?interval_s=1").json();
    assert!(bars["bid_px"].as_array().is_some_and(|column| column.iter().all(Value::is_null)), "{bars}");
    let of_data = ["/v1/instruments", "/v1/snapshot/BTC-USD", "/v1/snapshot?symbols=*", "/v1/sse?symbols=*"];
    for path in [&of_data[..], &["/v1/bars/BTC-USD", "/v1/trades/BTC-USD"]].concat() {
        quotes.get(None, path).assert_refusal(401, "unauthorized", &["token: missing", "Bearer TOKEN"]);
    }
    let header = format!("Authorization: Bearer {btc}\r\n");
    let mut events =
        SseClient::connect(quotes.server.address, "/v1/sse?symbols=*,XAU-USD&channels=quote,trade", &header);
    assert_eq!(events.until_message("subscribed")["denied"], json!(["XAU-USD"]));
    quotes.publish_all(5);
    loop {
        let event = events.next_event().expect("an event");
        let messages = event.messages();
        for message in &messages {
            assert!(!message.to_string().contains("XAU") && !message.to_string().contains("user/"), "{message}");
        }
        if messages
            .iter()
            .any(|message| message["type"] == "trade" && message["symbol"] == "BTC-USD" && message["px"] == "0.05")
        {
            break;
        }
    }
    resume_is_filtered(&mut quotes, &btc);
}

/// A token of the stream from before everything.
fn resume_is_filtered(quotes: &mut Quotes, token: &str) {
    let (mut client, welcome) = quotes.stream(token);
    let resume = json!({
        "op": "resume", "id": 3, "epoch": welcome["epoch"], "position": 0, "channels": ["quote", "trade"],
        "symbols": ["*", "XAU-USD"]
    });
    client.send_text(&resume.to_string());
    let reply = reply_of(&mut client, "resumed");
    assert_eq!((&reply["how"], &reply["denied"]), (&json!("replay"), &json!(["XAU-USD"])), "{reply}");
    let records = until_trade(&mut client, quotes.ids[0], 5);
    assert!(
        records.len() > 4 && records.iter().all(|record| [0, 1, 2].contains(&record.header.instrument)),
        "{records:?}"
    );
}

#[test]
fn token_comes_in_each_place_and_never_in_two() {
    let quotes = Quotes::start("", &["--token-cookie", "session", "--token-in-query", "true"]);
    let token = token("u1", btc());
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, &token);
    let protocols = format!("tickcast.v1, base64url.bearer.tickcast.{encoded}");
    let (bearer, cookie) = (format!("Bearer {token}"), format!("session={token}"));
    let origin = format!("http://{}", quotes.server.address);
    let by_protocol = [("Sec-WebSocket-Protocol", protocols.as_str())];
    for headers in
        [&[("Authorization", bearer.as_str())][..], &by_protocol, &[("Cookie", &cookie), ("Origin", &origin)]]
    {
        let mut client = quotes.try_stream(headers).unwrap_or_else(|refused| panic!("{headers:?}: {refused:?}"));
        assert_eq!(client.reply()["user"], "u1", "{headers:?}");
    }
    // tungstenite has checked that the answer is one of the offers; it is never the token.
    let mut stream = connect(quotes.server.address);
    let request = tickcast_test_support::http::upgrade_request("/v1/stream").replacen(
        "\r\n\r\n",
        &format!("\r\nSec-WebSocket-Protocol: {protocols}\r\n\r\n"),
        1,
    );
    std::io::Write::write_all(&mut stream, request.as_bytes()).expect("the server reads");
    let head = Response::parse(&tickcast_test_support::http::read_head(&mut stream));
    assert_eq!(head.header("sec-websocket-protocol"), Some("tickcast.v1"));
    let path = format!("/v1/snapshot/BTC-USD?token={token}");
    assert_eq!(quotes.get(None, &path).status, 200);
    quotes.get(Some(&token), &path).assert_refusal(400, "bad_request", &["several places"]);
    let path = format!("/v1/sse?symbols=BTC-USD&token={token}");
    SseClient::connect(quotes.server.address, &path, "").until_message("subscribed");
    let both = [("Authorization", bearer.as_str()), by_protocol[0]];
    quotes.try_stream(&both).err().expect("refused").assert_refusal(400, "bad_request", &["several places"]);
    // A page of another site has the visitor's cookies, and not its rights.
    let cross_site = [("Cookie", cookie.as_str()), ("Origin", "https://evil.example.com")];
    quotes.try_stream(&cross_site).err().expect("refused").assert_refusal(403, "forbidden_origin", &[]);
    let mut without = quotes.try_stream(&[("Cookie", &cookie)]).expect("nothing is needed yet");
    assert_eq!(without.reply()["auth"], "required");
}

#[test]
fn first_message_authenticates_and_nothing_else_is_accepted_before() {
    let quotes = Quotes::start("", &["--auth-timeout-ms", "1000"]);
    let mut client = quotes.try_stream(&[]).expect("a token may follow");
    let welcome = client.reply();
    assert_eq!((&welcome["auth"], welcome.get("user")), (&json!("required"), None), "{welcome}");
    let request = r#"{"op":"subscribe","id":1,"channels":["quote"],"symbols":["BTC-USD"]}"#;
    client.send_and_expect_error(request, Some(1), "unauthorized", &["not authenticated"]);
    client.ping();
    client.send_and_expect_error(
        r#"{"op":"auth","id":2,"token":"a.b.c"}"#,
        Some(2),
        "unauthorized",
        &["token: not valid"],
    );
    let long = json!({"op": "auth", "id": 3, "token": "x".repeat(8193)}).to_string();
    client.send_and_expect_error(&long, Some(3), "limit", &["token: 8193 bytes"]);
    // What follows an auth waits for it.
    let auth = json!({"op": "auth", "id": 4, "token": token("u1", btc())}).to_string();
    client.send_text(&auth);
    client.send_text(request);
    let reply = client.reply();
    assert_eq!(
        (&reply["type"], &reply["user"], &reply["dropped"]),
        (&json!("authenticated"), &json!("u1"), &json!([]))
    );
    assert_eq!(reply_of(&mut client, "subscribed")["count"], 1);
    let mut idle = quotes.try_stream(&[]).expect("a token may follow");
    idle.reply();
    assert_eq!(idle.reply()["reason"], "credentials_expired");
    idle.expect_close(4001, &["no token within 1000 ms"]);
}

#[test]
fn anonymous_clients_have_rights_of_their_own() {
    let more = "[anonymous]\nallow = [{ symbols = ['BTC-USD'], channels = ['quote'], conflate_ms = 900 }]";
    let quotes = Quotes::start(more, &[]);
    let mut client = quotes.try_stream(&[]).expect("no token is needed");
    let welcome = client.reply();
    assert_eq!((&welcome["auth"], welcome.get("user")), (&json!("optional"), None), "{welcome}");
    client.send_text(r#"{"op":"subscribe","id":1,"channels":["quote"],"symbols":["*","XAU-USD"],"conflate_ms":50}"#);
    let reply = reply_of(&mut client, "subscribed");
    assert_eq!(
        (&reply["conflate_ms"], &reply["count"], &reply["denied"]),
        (&json!(1000), &json!(1), &json!(["XAU-USD"]))
    );
    assert_eq!(quotes.get(None, "/v1/snapshot/BTC-USD?channels=quote").status, 200);
    assert_eq!(quotes.get(None, "/v1/bars/BTC-USD").status, 403);
    // It becomes a user without a new connection, and its patterns cover more from then on.
    client.send_text(&json!({"op": "auth", "id": 2, "token": token("u1", everything())}).to_string());
    reply_of(&mut client, "authenticated");
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 3 {
        let Received::Packet(packet) = client.receive() else { continue };
        seen.extend(records_of(&packet).iter().map(|record| record.header.instrument).filter(|id| *id > 0));
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), quotes.ids[..3]);
}

#[test]
fn delayed_rights_give_nothing_and_the_client_is_told() {
    let quotes = Quotes::start("", &[]);
    let rights = json!({"allow": [
        {"symbols": ["*"], "delay_s": 900}, {"symbols": ["BTC-USD"], "channels": ["quote"]}
    ]});
    let (mut client, _) = quotes.stream(&token("u1", rights));
    let reply = subscribe(&mut client, &["XAU-*", "BTC-USD", "BTC-EUR"]);
    assert_eq!(reply["denied"], json!(["XAU-*", "BTC-EUR"]), "{reply}");
    assert_eq!((&reply["limited"], &reply["count"]), (&json!(["BTC-USD"]), &json!(1)), "{reply}");
    assert_eq!(reply["delayed"], json!(["XAU-*", "BTC-USD", "BTC-EUR"]), "{reply}");
}

#[test]
fn token_is_refreshed_on_the_connection_by_the_same_user_only() {
    let mut quotes = Quotes::start("", &["--token-notice-s", "0"]);
    let (mut client, _) = quotes.stream(&token("u1", everything()));
    subscribe(&mut client, &["BTC-*", "XAU-USD"]);
    client.send_text(&json!({"op": "auth", "id": 2, "token": token("u1", btc())}).to_string());
    let reply = reply_of(&mut client, "authenticated");
    assert_eq!(reply["dropped"], json!(["XAU-USD", "BTC-*"]), "of the pattern, some channels: {reply}");
    quotes.publish_all(7);
    let records = until_trade(&mut client, quotes.ids[0], 7);
    let of_gold = records.iter().filter(|record| record.header.instrument == quotes.ids[2]);
    assert!(of_gold.clone().all(|record| record.header.ts_event != 7), "{records:?}");
    client.send_text(&json!({"op": "auth", "id": 3, "token": token("u2", everything())}).to_string());
    client.expect_close(4003, &["of another user"]);
    let (mut other, _) = quotes.stream(&token("u1", everything()));
    subscribe(&mut other, &["XAU-USD"]);
    other.send_text(&json!({"op": "auth", "id": 2, "token": token("u1", btc())}).to_string());
    assert_eq!(reply_of(&mut other, "authenticated")["dropped"], json!(["XAU-USD"]));
    other.expect_close(4003, &["allows nothing"]);
}

#[test]
fn expiry_is_announced_and_ends_the_connection_after_the_grace() {
    let quotes = Quotes::start("", &["--token-grace-s", "1"]);
    let mut short = claims("u1", btc());
    short["exp"] = json!(now_s() + 3);
    let (mut client, welcome) = quotes.stream(&signed(&short));
    assert!(welcome["expires_in_s"].as_u64().is_some_and(|seconds| seconds <= 3), "{welcome}");
    assert!(reply_of(&mut client, "expiring")["in_s"].as_u64().is_some_and(|seconds| seconds <= 3));
    let (mut refreshed, _) = quotes.stream(&signed(&short));
    refreshed.send_text(&json!({"op": "auth", "id": 2, "token": token("u1", btc())}).to_string());
    assert!(reply_of(&mut refreshed, "authenticated")["expires_in_s"].as_u64().is_some_and(|seconds| seconds > 500));
    assert_eq!(reply_of(&mut client, "closing")["reason"], "credentials_expired");
    client.expect_close(4001, &["the token has expired"]);
    refreshed.ping();
    quotes.get(Some(&signed(&short)), "/v1/instruments").assert_refusal(401, "unauthorized", &["token: expired"]);
}

#[test]
fn revocation_ends_connections_on_all_shards_and_is_kept_over_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("revoked.jsonl");
    let args = ["--revocations-file", file.to_str().expect("a path in UTF-8"), "--cores", "0,1"];
    let quotes = Quotes::in_folder(folder, "", &args);
    let (one, other) = (token("u1", btc()), token("u2", btc()));
    let mut ended: Vec<_> = (0..8).map(|_| quotes.stream(&one).0).collect();
    let (mut kept, _) = quotes.stream(&other);
    quotes.revoke("user=u1", "").assert_refusal(401, "unauthorized", &["operator token: missing"]);
    let of_page = operator() + "Origin: https://evil.example.com\r\n";
    quotes.revoke("user=u1", &of_page).assert_refusal(403, "forbidden", &["a page may not revoke"]);
    quotes.revoke("users=u1", &operator()).assert_refusal(400, "bad_request", &["unknown \"users\""]);
    assert_eq!(quotes.revoke("user=u1", &operator()).json()["revoked"]["user"], "u1");
    while let Some(mut client) = ended.pop() {
        assert_eq!(reply_of(&mut client, "closing")["reason"], "credentials_expired");
        client.expect_close(4001, &["the credential was revoked"]);
    }
    kept.ping();
    quotes.get(Some(&one), "/v1/instruments").assert_refusal(401, "unauthorized", &["token: revoked"]);
    assert_eq!(quotes.get(Some(&other), "/v1/instruments").status, 200);
    // Another program appends a line.
    let mut text = std::fs::read_to_string(&file).expect("the file is there");
    assert!(text.contains("\"user\":\"u1\""), "{text}");
    let line = json!({"user": "u2", "issued_before": now_s() + 60, "until": now_s() + 3600});
    text += &format!("{line}\n");
    std::fs::write(&file, text).expect("the folder is writable");
    assert_eq!(reply_of(&mut kept, "closing")["reason"], "credentials_expired");
    kept.expect_close(4001, &["the credential was revoked"]);
    let Quotes { folder, server, .. } = quotes;
    assert_eq!(server.stop(Signal::TERM).code, Some(0));
    let again = Quotes::in_folder(folder, "", &args);
    for token in [&one, &other] {
        again.get(Some(token), "/v1/instruments").assert_refusal(401, "unauthorized", &["token: revoked"]);
    }
}

#[test]
fn api_key_that_is_removed_ends_its_connections() {
    let quotes = Quotes::start("", &[]);
    let (mut client, welcome) = quotes.stream(API_KEY);
    assert_eq!((&welcome["user"], welcome.get("expires_in_s")), (&json!("robot"), None));
    assert_eq!(subscribe(&mut client, &["XAU-*", "BTC-USD"])["denied"], json!(["BTC-USD"]));
    let keys = quotes.folder.path().join("keys.toml");
    let other = API_KEY_HASH.replace('a', "b");
    std::fs::write(&keys, format!("[[key]]\nuser = 'robot'\nsha256 = '{other}'\n")).expect("written");
    quotes.server.program.signal(Signal::HUP);
    assert_eq!(reply_of(&mut client, "closing")["reason"], "credentials_expired");
    client.expect_close(4001, &["the settings have changed"]);
    quotes.get(Some(API_KEY), "/v1/instruments").assert_refusal(401, "unauthorized", &["token: not valid"]);
}

#[test]
fn wrong_tokens_are_counted_against_their_address_and_are_in_no_log() {
    let quotes = Quotes::start("", &["--log", "debug"]);
    let forged = |nth: u32| {
        let key = EncodingKey::from_secret(b"another-secret-of-thirty-two-bytes-or-so").expect("a secret");
        let mut claims = claims("u1", everything());
        claims["jti"] = json!(format!("forged-{nth}"));
        encode(&Header::new(Algorithm::HS256), &claims, &key).expect("claims")
    };
    for nth in 0..10 {
        quotes.get(Some(&forged(nth)), "/v1/instruments").assert_refusal(401, "unauthorized", &["token: not valid"]);
    }
    let valid = token("u1", btc());
    quotes.get(Some(&valid), "/v1/instruments").assert_refusal(429, "limit", &["too many wrong tokens"]);
    assert_eq!(quotes.server.metric_values("tickcast_credentials_invalid_total"), [10]);
    let stderr = quotes.server.stop(Signal::TERM).stderr;
    assert!(stderr.contains("InvalidSignature"), "the log says why: {stderr}");
    for secret in [forged(3), valid] {
        let parts: Vec<_> = secret.split('.').skip(1).collect();
        assert!(parts.iter().all(|part| !stderr.contains(part)), "{stderr}");
    }
}

#[test]
fn server_without_access_control_says_so_and_shows_everything() {
    let args = ["--listen", "127.0.0.1:0", "--feed", "none", "--publish-token", PUBLISHER];
    let server = Server::spawn(Program::command(&args));
    let mut publisher = Publisher::connect(&server, PUBLISHER);
    let ids = publisher.define(&SYMBOLS);
    let mut client = Client::connect(server.address, "/v1/stream", &[("Authorization", "Bearer whatever")]);
    let welcome = client.reply();
    assert!(welcome.get("user").is_none() && welcome.get("auth").is_none(), "{welcome}");
    let reply = subscribe(&mut client, &["*"]);
    assert_eq!((&reply["count"], &reply["denied"], reply.get("limited")), (&json!(5), &json!([]), None));
    publisher.publish(&ids.iter().rev().map(|id| trade(*id, 3)).collect::<Vec<_>>());
    let records = until_trade(&mut client, ids[0], 3);
    assert!(ids.iter().all(|id| records.iter().any(|record| record.header.instrument == *id)));
    let exit = server.stop(Signal::TERM);
    assert!(exit.stdout.contains("all clients see everything"), "{}", exit.stdout);
    let checked = Program::run(&["check"]).stdout;
    assert!(checked.contains("access: all clients see everything: there is no [[issuer]]"), "{checked}");
}
