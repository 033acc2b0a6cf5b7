//! Sessions of users: how many a user has at a time over all shards, which of them ends, and what they subscribe to
//! together.

use std::io::Write;

use rustix::process::Signal;
use serde_json::{Value, json};
use tickcast_test_support::client::Client;
use tickcast_test_support::http::{connect, read_head, upgrade_request};
use tickcast_test_support::sse::SseClient;

use crate::access::{Quotes, btc, everything, operator, reply_of, subscribe, token};

const SHARDS: [&str; 2] = ["--cores", "0,1"];

fn with_sessions(mut rights: Value, max: u32) -> Value {
    rights["max_connections"] = json!(max);
    rights
}

/// A connection that answers nothing any more, as one whose peer is gone without a word.
fn half_open(quotes: &Quotes, token: &str) -> std::net::TcpStream {
    let mut stream = connect(quotes.server.address);
    let authorization = format!("\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream
        .write_all(upgrade_request("/v1/stream").replacen("\r\n\r\n", &authorization, 1).as_bytes())
        .expect("it reads");
    assert!(read_head(&mut stream).starts_with(b"HTTP/1.1 101"));
    stream
}

fn wait_for_sessions(quotes: &Quotes, count: u64) {
    quotes.server.wait_for_metric("tickcast_sessions", |sessions| sessions == count);
}

#[test]
fn oldest_sessions_end_over_all_shards() {
    let quotes = Quotes::start("", &SHARDS);
    let limited = token("u1", with_sessions(btc(), 2));
    let (mut other, _) = quotes.stream(&token("u2", btc()));
    let (mut clients, mut ended) = (std::collections::VecDeque::new(), 0);
    // Until sessions of both shards have ended in favour of others.
    loop {
        clients.push_back(quotes.stream(&limited).0);
        if clients.len() <= 2 {
            continue;
        }
        let oldest: Client = clients.pop_front().expect("there are three");
        oldest.expect_close(4005, &["a newer session of this user has begun: at most 2 at a time"]);
        clients.iter_mut().for_each(Client::ping);
        ended += 1;
        quotes.server.wait_for_metric("tickcast_session_limit_closed_total", |closed| closed == ended);
        let of_shards = quotes.server.metric_values("tickcast_session_limit_closed_total");
        assert_eq!(of_shards.len(), 2);
        if ended >= 6 && of_shards.iter().all(|closed| *closed > 0) {
            break;
        }
        assert!(ended < 60, "{of_shards:?}");
    }
    wait_for_sessions(&quotes, 3);
    assert_eq!(quotes.server.metric_values("tickcast_session_users"), [2]);
    assert_eq!(quotes.server.metric_values("tickcast_sessions_ended_total"), [ended]);
    other.ping();
    // A stream of events is a session, and is told to come back late: at once, it would end the other one again.
    let header = format!("Authorization: Bearer {limited}\r\n");
    let mut events = SseClient::connect(quotes.server.address, "/v1/sse?symbols=BTC-USD", &header);
    events.until_message("subscribed");
    clients.pop_front().expect("there are two").expect_close(4005, &["at most 2"]);
    let _newer: Vec<_> = (0..2).map(|_| quotes.stream(&limited).0).collect();
    let closing = events.until_message("closing");
    assert_eq!(
        (&closing["reason"], &closing["reconnect_ms"]),
        (&json!("session_limit"), &json!(3_600_000)),
        "{closing}"
    );
    // So is a connection whose token comes as its first message.
    let mut late = quotes.try_stream(&[]).expect("a token may follow");
    late.reply();
    late.send_text(&json!({"op": "auth", "id": 1, "token": limited}).to_string());
    reply_of(&mut late, "authenticated");
    wait_for_sessions(&quotes, 3);
}

#[test]
fn one_session_too_many_is_refused_where_the_policy_says_so() {
    let args = [&SHARDS[..], &["--session-policy", "refuse_new", "--sessions-per-user-max", "2"]].concat();
    let more = "[anonymous]\nallow = [{ symbols = ['BTC-USD'], channels = ['quote'] }]";
    let quotes = Quotes::start(more, &args);
    let token_of_user = token("u1", btc());
    let bearer = format!("Bearer {token_of_user}");
    let (mut first, _) = quotes.stream(&token_of_user);
    let (mut second, _) = quotes.stream(&token_of_user);
    for _ in 0..4 {
        let refused = quotes.try_stream(&[("Authorization", &bearer)]).err().expect("it is refused");
        refused.assert_refusal(429, "session_limit", &["has 2 already: expected at most 2 at a time"]);
        assert_eq!(refused.header("retry-after"), Some("5"));
    }
    quotes.get(Some(&token_of_user), "/v1/sse?symbols=BTC-USD").assert_refusal(
        429,
        "session_limit",
        &["has 2 already"],
    );
    // Neither a query nor an anonymous client is a session.
    assert_eq!(quotes.get(Some(&token_of_user), "/v1/instruments").status, 200);
    let mut late = quotes.try_stream(&[]).expect("anonymous clients are not counted by user");
    late.reply();
    let auth = json!({"op": "auth", "id": 4, "token": token_of_user}).to_string();
    late.send_and_expect_error(&auth, Some(4), "session_limit", &["has 2 already"]);
    late.expect_close(4005, &["has 2 already"]);
    // A token of its own limit, and another user, are served; a refresh is no new session.
    let (_own, _) = quotes.stream(&token("u1", with_sessions(btc(), 3)));
    let (_other, _) = quotes.stream(&token("u2", btc()));
    first.send_text(&auth);
    reply_of(&mut first, "authenticated");
    second.ping();
    wait_for_sessions(&quotes, 4);
    assert_eq!(quotes.server.metric_values("tickcast_sessions_refused_total"), [6]);
    drop(_own);
    second.send(tungstenite::Message::Close(None));
    wait_for_sessions(&quotes, 2);
    quotes.stream(&token_of_user).0.ping();
}

#[test]
fn half_open_connections_do_not_lock_their_user_out() {
    let quotes = Quotes::start("", &SHARDS);
    let one = token("u1", with_sessions(btc(), 1));
    let _left: Vec<_> = (0..4).map(|_| half_open(&quotes, &one)).collect();
    let (mut client, _) = quotes.stream(&one);
    client.ping();
    wait_for_sessions(&quotes, 1);
    // Where the new one is refused instead, it is until a ping was not answered.
    let args = ["--session-policy", "refuse_new", "--ping-interval-ms", "100", "--ping-timeout-ms", "100"];
    let quotes = Quotes::start("", &[&SHARDS[..], &args].concat());
    let _left = half_open(&quotes, &one);
    wait_for_sessions(&quotes, 0);
    quotes.stream(&one).0.ping();
}

#[test]
fn subscriptions_of_a_user_have_a_limit_over_its_connections() {
    let quotes = Quotes::start("", &[&SHARDS[..], &["--subscriptions-per-user-max", "10"]].concat());
    let user = token("u1", everything());
    let (mut one, _) = quotes.stream(&user);
    let (mut other, _) = quotes.stream(&user);
    // Five channels each.
    subscribe(&mut one, &["BTC-USD"]);
    subscribe(&mut other, &["BTC-EUR"]);
    let third = r#"{"op":"subscribe","id":3,"channels":["quote"],"symbols":["XAU-USD"]}"#;
    for client in [&mut one, &mut other] {
        client.send_text(third);
        let error = loop {
            let reply = client.reply();
            if reply["type"] == "error" {
                break reply;
            }
        };
        let message = error["message"].as_str().expect("a message");
        assert_eq!(error["code"], "limit");
        assert!(
            message.contains("11 subscriptions of this user") && message.contains("expected at most 10"),
            "{message}"
        );
    }
    // Again the same costs nothing, what is given back is free, and another user has its own.
    subscribe(&mut one, &["BTC-USD"]);
    let (mut of_other_user, _) = quotes.stream(&token("u2", everything()));
    subscribe(&mut of_other_user, &["BTC-USD", "BTC-EUR"]);
    other.send_text(r#"{"op":"unsubscribe","id":4,"channels":["quote"],"symbols":["BTC-EUR"]}"#);
    reply_of(&mut other, "unsubscribed");
    one.send_text(third);
    assert_eq!(reply_of(&mut one, "subscribed")["count"], 1);
    drop(one);
    wait_for_sessions(&quotes, 2);
    subscribe(&mut other, &["BTC-EUR", "XAU-USD"]);
    // A session that is ended gives its own back at once, although it does not read.
    let newest = token("u1", with_sessions(everything(), 1));
    let (mut newest, _) = quotes.stream(&newest);
    subscribe(&mut newest, &["BTC-USD", "BTC-EUR"]);
    other.expect_close(4005, &["at most 1"]);
}

#[test]
fn limit_holds_while_many_connect_at_once() {
    let quotes = Quotes::start("", &SHARDS);
    let limited = token("u1", with_sessions(btc(), 3));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..15 {
                    let (mut client, _) = quotes.stream(&limited);
                    // It may have been ended already.
                    client.send_text(r#"{"op":"ping","id":1}"#);
                }
            });
        }
    });
    wait_for_sessions(&quotes, 0);
    let mut clients: Vec<_> = (0..3).map(|_| quotes.stream(&limited).0).collect();
    clients.iter_mut().for_each(Client::ping);
    let revoked = quotes.revoke("user=u1", &operator());
    assert_eq!(revoked.status, 200, "{}", revoked.text());
    for mut client in clients {
        assert_eq!(reply_of(&mut client, "closing")["reason"], "credentials_expired");
    }
    wait_for_sessions(&quotes, 0);
    assert_eq!(quotes.server.stop(Signal::TERM).code, Some(0));
}

#[test]
fn reload_changes_the_limit_of_sessions_that_begin() {
    let quotes = Quotes::start("", &SHARDS);
    let user = token("u1", btc());
    let mut held: Vec<_> = (0..3).map(|_| quotes.stream(&user).0).collect();
    let file = quotes.folder.path().join("tickcast.toml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    let limit = "sessions_per_user_max = 2\nsession_policy = 'refuse_new'\n";
    std::fs::write(&file, limit.to_owned() + &text).expect("written");
    quotes.server.program.signal(Signal::HUP);
    quotes.server.program.wait_for_stderr("settings were read again");
    let bearer = format!("Bearer {user}");
    let refused = quotes.try_stream(&[("Authorization", &bearer)]).err().expect("it is refused");
    refused.assert_refusal(429, "session_limit", &["expected at most 2"]);
    held.iter_mut().for_each(Client::ping);
}
