//! Tokens of the Rust client, against the real server: lives of a few seconds, renewal, revocation, another user.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tickcast_client::{
    Backoff, Body, Client, Error, Event, Options, Reply, Subscription, TokenReason, TokenRequest, TokenSource,
};
use tickcast_protocol::Channel;
use tickcast_test_support::http::send_request;
use tickcast_test_support::server::{Program, Server};

const SECRET: &str = "a-secret-of-the-tests-with-32-bytes-or-more";
const OTHER_SECRET: &str = "another-secret-of-the-tests-with-32-bytes";
const OPERATOR: &str = "token-of-the-operator";
const QUICK: Backoff = Backoff { initial: Duration::from_millis(20), max: Duration::from_millis(100) };
/// Longer than anything that a test waits for.
const DEADLINE: Duration = Duration::from_secs(60);

fn start(more: &str, args: &[&str]) -> (tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().expect("a folder");
    let (secret, config) = (folder.path().join("secret"), folder.path().join("tickcast.toml"));
    std::fs::write(&secret, SECRET).expect("the folder is writable");
    let issuer = format!(
        "[[issuer]]\nname = 'test'\niss = 'https://id.example.com'\naudience = ['tickcast']\nalgorithms = ['HS256']\n\
         secret_file = {secret:?}\nleeway_s = 0\n{more}"
    );
    std::fs::write(&config, issuer).expect("the folder is writable");
    let config = config.to_str().expect("a path in UTF-8");
    let market = ["--listen", "127.0.0.1:0", "--feed", "sim:instruments=20,rate=2000,seed=1"];
    let own = ["--operator-token", OPERATOR, "--config", config];
    let server = Server::spawn(Program::command(&[&market[..], &own, args].concat()));
    (folder, server)
}

fn token_with(secret: &str, user: &str, seconds: i64, rights: &Value) -> String {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64;
    let claims = json!({
        "iss": "https://id.example.com", "aud": "tickcast", "sub": user, "iat": now_s, "exp": now_s + seconds,
        "tickcast": rights
    });
    let key = EncodingKey::from_secret(secret.as_bytes()).expect("a secret");
    encode(&Header::new(Algorithm::HS256), &claims, &key).expect("claims")
}

fn token(user: &str, seconds: i64, rights: &Value) -> String {
    token_with(SECRET, user, seconds, rights)
}

fn btc() -> Value {
    json!({"allow": [{"symbols": ["BTC-*"], "channels": ["quote", "trade"]}]})
}

fn everything() -> Value {
    json!({"allow": [{"symbols": ["*"]}]})
}

type Asked = Arc<Mutex<Vec<TokenRequest>>>;

/// A function that makes tokens by the number of its call, and notes why it is called.
fn function(
    make: impl Fn(usize, &TokenRequest) -> Result<String, String> + Send + Sync + 'static,
) -> (TokenSource, Asked) {
    let asked = Asked::default();
    let noted = Arc::clone(&asked);
    let source = TokenSource::function(move |why| {
        let call = {
            let mut noted = noted.lock().expect("no panic");
            noted.push(why.clone());
            noted.len()
        };
        Ok(make(call, why)?)
    });
    (source, asked)
}

fn reasons(asked: &Asked) -> Vec<TokenReason> {
    asked.lock().expect("no panic").iter().map(|why| why.reason).collect()
}

fn connect(server: &Server, token: TokenSource) -> Result<Client, Error> {
    let options = Options { reconnect: Some(QUICK), token: Some(token), ..Options::default() };
    Client::connect(&server.address.to_string(), options)
}

/// Reads until there is something to see in an event.
#[track_caller]
fn read_until<T>(client: &mut Client, mut see: impl FnMut(Event<'_>) -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    while Instant::now() < until {
        if let Some(seen) = see(client.next().expect("the stream continues")) {
            return seen;
        }
    }
    panic!("nothing within {DEADLINE:?}");
}

/// Reads until the client ends.
#[track_caller]
fn end_of(client: &mut Client) -> Error {
    let until = Instant::now() + DEADLINE;
    while Instant::now() < until {
        if let Err(error) = client.next() {
            return error;
        }
    }
    panic!("no end within {DEADLINE:?}");
}

fn authenticated(event: Event<'_>) -> Option<Vec<String>> {
    match event {
        Event::Reply(Reply::Authenticated { dropped, .. }) => Some(dropped),
        Event::Disconnected { error, .. } => panic!("{error}"),
        _ => None,
    }
}

#[test]
fn token_of_some_seconds_is_renewed_without_a_break() {
    let (_folder, server) = start("", &[]);
    let (source, asked) = function(|_, _| Ok(token("u1", 5, &btc())));
    let mut client = connect(&server, source).expect("a server is there");
    client.subscribe(Subscription::new(&[Channel::Trade], ["BTC-*"]));
    for _ in 0..3 {
        assert!(read_until(&mut client, authenticated).is_empty());
    }
    let reasons = reasons(&asked);
    assert_eq!(reasons[0], TokenReason::Connect);
    assert!(reasons[1..].iter().all(|reason| *reason == TokenReason::Expiring), "{reasons:?}");
    assert_eq!((client.reconnects(), client.decoder().counters().violations), (0, 0));
}

#[test]
fn function_that_fails_is_told_and_called_again_until_the_token_has_expired() {
    let (_folder, server) = start("", &["--token-grace-s", "1"]);
    let (source, asked) = function(|call, why| match why.reason {
        TokenReason::Expiring => Err("the issuer is down".to_owned()),
        _ => Ok(token("u1", if call == 1 { 4 } else { 600 }, &btc())),
    });
    let mut client = connect(&server, source).expect("a server is there");
    client.subscribe(Subscription::new(&[Channel::Trade], ["BTC-*"]));
    let mut failures = 0;
    let error = read_until(&mut client, |event| match event {
        Event::TokenFailed { error, .. } => {
            assert_eq!(error.to_string(), "no token: the issuer is down");
            failures += 1;
            None
        }
        Event::Disconnected { error, .. } => Some(error.to_string()),
        _ => None,
    });
    assert!(failures >= 2 && error.contains("4001 (credentials expired): the token has expired"), "{failures} {error}");
    let how = read_until(&mut client, |event| match event {
        Event::Reply(Reply::Resumed { how, .. }) => Some(how),
        _ => None,
    });
    assert_eq!((how.as_str(), client.decoder().counters().violations), ("replay", 0));
    let asked = asked.lock().expect("no panic");
    let last = asked.last().expect("it was called");
    assert_eq!((last.reason, last.message.as_str()), (TokenReason::Refused, "the token has expired"));
}

#[test]
fn refused_tokens_end_the_client_after_three_and_are_in_no_error() {
    let (_folder, server) = start("", &[]);
    for (secret, seconds, message) in [(SECRET, -10, "token: expired"), (OTHER_SECRET, 60, "token: not valid")] {
        let (source, asked) = function(move |_, _| Ok(token_with(secret, "u1", seconds, &btc())));
        let error = connect(&server, source).expect_err("refused");
        assert!(matches!(&error, Error::Refused(refusal) if refusal.status == 401), "{error}");
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(reasons(&asked), [TokenReason::Connect, TokenReason::Refused, TokenReason::Refused]);
        let last = token_with(secret, "u1", seconds, &btc());
        let shown = format!("{error} {error:?} {:?}", asked.lock());
        assert!(last.split('.').all(|part| !shown.contains(part)), "{shown}");
    }
    let fixed = token("u1", -10, &btc());
    let error = connect(&server, fixed.as_str().into()).expect_err("refused").to_string();
    assert!(error.contains("401 Unauthorized: token: expired") && !error.contains(&fixed), "{error}");
}

#[test]
fn another_user_and_a_revoked_token_end_the_client() {
    let (_folder, server) = start("", &[]);
    let (source, _) = function(|call, _| Ok(token(&format!("u{call}"), if call == 1 { 5 } else { 600 }, &btc())));
    let error = end_of(&mut connect(&server, source).expect("a server is there"));
    assert!(error.to_string().contains("4003 (no longer entitled): the token is of another user"), "{error}");
    let (source, asked) = function(|_, _| Ok(token("u3", 600, &btc())));
    let mut client = connect(&server, source.clone()).expect("a server is there");
    client.subscribe(Subscription::new(&[Channel::Trade], ["BTC-*"]));
    read_until(&mut client, |event| matches!(event, Event::Reply(Reply::Subscribed { .. })).then_some(()));
    let address = server.address;
    let revoke = format!(
        "POST /v1/operator/revoke?user=u3 HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {OPERATOR}\r\n\
         Content-Length: 0\r\n\r\n"
    );
    assert_eq!(send_request(address, revoke.as_bytes()).status, 200);
    let error = end_of(&mut client);
    assert!(error.to_string().contains("4001 (credentials expired): the credential was revoked"), "{error}");
    assert_eq!(reasons(&asked).len(), 1);
    let error = connect(&server, source).expect_err("refused");
    assert!(error.to_string().contains("token: revoked"), "{error}");
    assert_eq!(reasons(&asked).len(), 2);
}

#[test]
fn rights_shrink_and_grow_with_the_next_token() {
    let (_folder, server) = start("", &[]);
    let (source, _) = function(|call, _| {
        let rights = if call == 2 { btc() } else { everything() };
        Ok(token("u1", if call == 3 { 600 } else { 15 }, &rights))
    });
    let mut client = connect(&server, source).expect("a server is there");
    client.subscribe(Subscription::new(&[Channel::Trade, Channel::Book], ["BTC-USD", "ETH-USD"]));
    read_until(&mut client, |event| matches!(event, Event::Reply(Reply::Subscribed { .. })).then_some(()));
    let mut dropped = read_until(&mut client, authenticated);
    dropped.sort();
    assert_eq!(dropped, ["BTC-USD", "ETH-USD"]);
    let restricted = |event: Event<'_>| match event {
        Event::Reply(Reply::Subscribed { denied, limited, .. }) => Some((denied, limited)),
        _ => None,
    };
    assert_eq!(read_until(&mut client, restricted), (vec!["ETH-USD".to_owned()], vec!["BTC-USD".to_owned()]));
    assert!(read_until(&mut client, authenticated).is_empty());
    assert_eq!(read_until(&mut client, restricted), (vec![], vec![]));
    let mut seen = std::collections::BTreeSet::new();
    read_until(&mut client, |event| {
        let Event::Packet(packet) = event else { return None };
        for record in packet.records().filter(|record| matches!(record.body, Body::Trade(_))) {
            seen.insert(record.instrument.map(|of| of.symbol.clone()));
        }
        (seen.len() == 2).then_some(())
    });
    assert_eq!((client.reconnects(), client.decoder().counters().violations), (0, 0));
}

#[test]
fn server_without_access_control_takes_any_token() {
    let server = Server::start(&["--feed", "sim:instruments=2,rate=100,seed=1"]);
    let mut client = connect(&server, "whatever".into()).expect("a server is there");
    let welcome = read_until(&mut client, |event| match event {
        Event::Reply(Reply::Welcome { user, auth, .. }) => Some((user, auth)),
        _ => None,
    });
    assert_eq!(welcome, (None, None));
}
