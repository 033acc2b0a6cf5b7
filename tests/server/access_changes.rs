//! What becomes of open connections when the settings of access change; and what is kept for clients: accepted tokens and
//! different rights.

use rustix::process::Signal;
use serde_json::{Value, json};
use tickcast_test_support::client::Client;

use crate::access::{Quotes, everything, operator, reply_of, subscribe, token, until_trade};

const ANONYMOUS: &str = "[anonymous]\nallow = [{ symbols = ['BTC-*'] }]";

impl Quotes {
    /// Replaces a part of the configuration and has it read.
    pub(crate) fn reload(&self, from: &str, to: &str) {
        let path = self.folder.path().join("tickcast.toml");
        let text = std::fs::read_to_string(&path).expect("the configuration");
        assert!(text.contains(from), "{text}");
        // The server may be reading it for the signal before.
        let new = path.with_extension("new");
        std::fs::write(&new, text.replace(from, to)).expect("the folder is writable");
        std::fs::rename(&new, &path).expect("the folder is writable");
        self.server.program.signal(Signal::HUP);
    }
}

/// An answer that the client has not asked for.
pub(crate) fn renewed(client: &mut Client) -> Value {
    let reply = reply_of(client, "authenticated");
    assert_eq!(reply["id"], 0, "{reply}");
    reply
}

#[test]
fn rights_of_open_connections_follow_the_settings() {
    let mut quotes = Quotes::start(ANONYMOUS, &[]);
    let (mut of_product, _) = quotes.stream(&token("u1", json!({"products": ["BTC"]})));
    let (mut of_rules, _) = quotes.stream(&token("u2", everything()));
    let mut anonymous = quotes.try_stream(&[]).expect("it is accepted");
    for client in [&mut of_product, &mut of_rules, &mut anonymous] {
        subscribe(client, &["BTC-USD", "BTC-EUR"]);
    }
    quotes.reload("rights.allow = [{ symbols = ['BTC-*']", "rights.allow = [{ symbols = ['BTC-U*', 'XAU-*']");
    assert_eq!(renewed(&mut of_product)["dropped"], json!(["BTC-EUR"]));
    quotes.publish_all(7);
    let records = until_trade(&mut of_product, quotes.ids[0], 7);
    let of_other = records.iter().filter(|record| record.header.instrument == quotes.ids[1]);
    assert!(of_other.clone().all(|record| record.header.ts_event != 7), "{records:?}");
    assert_eq!(subscribe(&mut of_product, &["XAU-USD"])["count"], 1, "and what is new");
    quotes.reload("allow = [{ symbols = ['BTC-*'] }]", "allow = [{ symbols = ['BTC-EUR'] }]");
    assert_eq!(renewed(&mut anonymous)["dropped"], json!(["BTC-USD"]));
    // What rights a token has by itself, no settings change.
    until_trade(&mut of_rules, quotes.ids[0], 7);
    quotes.reload("symbols = ['BTC-U*', 'XAU-*']", "symbols = ['NONE']");
    assert_eq!(reply_of(&mut of_product, "authenticated")["dropped"], json!(["BTC-USD", "XAU-USD"]));
    of_product.expect_close(4003, &["allows nothing"]);
    quotes.reload("[[product]]\nname = 'BTC'", "[[product]]\nname = 'EQ'");
    quotes.reload("[anonymous]\nallow", "[[product]]\nname = 'REST'\nrights.allow");
    assert_eq!(reply_of(&mut anonymous, "closing")["reason"], "credentials_expired");
    anonymous.expect_close(4001, &["the settings have changed"]);
    of_rules.ping();
}

#[test]
fn one_set_of_rights_too_many_is_refused_and_counted() {
    let quotes = Quotes::start("", &["--entitlement-sets-max", "1"]);
    let of = |user: &str, symbol: &str| token(user, json!({"allow": [{"symbols": [symbol]}]}));
    let (first, _) = quotes.stream(&of("u1", "BTC-USD"));
    let full = ["the server keeps no more different rights"];
    quotes.get(Some(&of("u2", "BTC-EUR")), "/v1/instruments").assert_refusal(503, "unavailable", &full);
    let (mut same, _) = quotes.stream(&of("u3", "BTC-USD"));
    same.ping();
    let mut other = json!({"op": "auth", "id": 5, "token": of("u3", "BTC-EUR")}).to_string();
    same.send_text(&other);
    same.expect_error(Some(5), "unavailable", &full);
    assert_eq!(quotes.server.metric_values("tickcast_credentials_full_total"), [2]);
    assert_eq!(quotes.server.metric_values("tickcast_entitlement_sets"), [1]);
    // Rights that no client has any more make room.
    drop(first);
    drop(same);
    quotes.server.wait_for_metric("tickcast_clients", |clients| clients == 0);
    other = of("u2", "BTC-EUR");
    assert_eq!(quotes.get(Some(&other), "/v1/instruments").status, 200);
}

#[test]
fn token_that_comes_again_is_not_verified_again() {
    let quotes = Quotes::start("", &[]);
    let one = token("u1", everything());
    for _ in 0..3 {
        let (mut client, welcome) = quotes.stream(&one);
        assert_eq!(welcome["user"], "u1");
        client.ping();
    }
    assert_eq!(quotes.server.metric_values("tickcast_credentials_reused_total"), [2]);
    assert_eq!(quotes.server.metric_values("tickcast_credentials_kept"), [1]);
    // Another last letter is another token, and its signature is looked at.
    let last = if one.ends_with('A') { 'B' } else { 'A' };
    let forged = format!("{}{last}", &one[..one.len() - 1]);
    quotes.get(Some(&forged), "/v1/instruments").assert_refusal(401, "unauthorized", &["token: not valid"]);
    quotes.revoke("user=u1", &operator());
    quotes.get(Some(&one), "/v1/instruments").assert_refusal(401, "unauthorized", &["token: revoked"]);
    // The issuer has another secret.
    let other = token("u2", everything());
    assert_eq!(quotes.get(Some(&other), "/v1/instruments").status, 200);
    let secret = quotes.folder.path().join("secret");
    std::fs::write(secret, "another-secret-of-the-tests-with-32-bytes").expect("the folder is writable");
    quotes.server.program.signal(Signal::HUP);
    let is_refused = || quotes.get(Some(&other), "/v1/instruments").status == 401;
    let refused = std::iter::repeat_with(is_refused).take(1000).any(|refused| refused);
    assert!(refused, "a token of the former secret is still accepted");
}

#[test]
fn revocation_reaches_all_shards_while_they_are_busy() {
    let mut quotes = Quotes::start("", &["--cores", "0,1"]);
    let (one, other) = (token("u1", everything()), token("u2", everything()));
    let connect = |token: &str| {
        let (mut client, _) = quotes.stream(token);
        subscribe(&mut client, &["*"]);
        client
    };
    let revoked: Vec<Client> = (0..40).map(|_| connect(&one)).collect();
    let mut kept: Vec<Client> = (0..40).map(|_| connect(&other)).collect();
    for px in 1..200 {
        quotes.publish_all(px);
        if px == 100 {
            assert_eq!(quotes.revoke("user=u1", &operator()).status, 200);
        }
    }
    for mut client in revoked {
        assert_eq!(reply_of(&mut client, "closing")["reason"], "credentials_expired");
        client.expect_close(4001, &["the credential was revoked"]);
    }
    for client in &mut kept {
        until_trade(client, quotes.ids[0], 199);
    }
    quotes.server.wait_for_metric("tickcast_credentials_review_ms", |ms| ms > 0);
    println!("reviewed within {:?} ms", quotes.server.metric_values("tickcast_credentials_review_ms"));
}
