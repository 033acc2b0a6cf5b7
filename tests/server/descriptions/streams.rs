//! `/v1/asyncapi.json` against what clients are sent, and against the requests that the server takes and refuses.

use std::collections::{BTreeMap, BTreeSet};

use jsonschema::Validator;
use rustix::process::Signal;
use serde_json::{Value, json};
use tickcast_protocol::json::{NO_INSTRUMENT, push_record};
use tickcast_test_support::client::{Client, Received};
use tickcast_test_support::publisher::{RAW, TICKER, book, numbers, record};
use tickcast_test_support::sse::SseClient;

use super::schemas::{Documents, assert_valid, resolved};
use crate::access::{Quotes, btc, claims, everything, now_s, signed, token};

const JSON: (&str, &str) = ("sec-websocket-protocol", "tickcast.v1+json");
const HEARTBEAT: u8 = 17;
/// The messages that are not JSON.
const BINARY: &str = "binaryPacket";

/// The messages of the document, and those that were seen.
struct Compared {
    /// The validators of the messages of each channel by name.
    channels: BTreeMap<String, BTreeMap<String, Validator>>,
    /// The words in `type` of records.
    records: BTreeSet<String>,
    seen: BTreeSet<String>,
}

impl Compared {
    fn new(documents: &Documents) -> Self {
        let document = &documents.asyncapi;
        let message = |(name, message): (&String, &Value)| {
            let payload = &resolved(document, message)["payload"];
            (name.clone(), documents.validator(payload))
        };
        let channel = |(name, channel): (&String, &Value)| {
            let messages = channel["messages"].as_object().expect("messages").iter();
            (name.clone(), messages.filter(|(name, _)| *name != BINARY).map(message).collect())
        };
        let channels = document["channels"].as_object().expect("channels").iter().map(channel).collect();
        let schemas = |kind: &Value| {
            let name = kind["$ref"].as_str().and_then(|text| text.rsplit('/').next()).expect("a reference").to_owned();
            let of = [&documents.openapi, document].map(|document| document["components"]["schemas"][&name].clone());
            let schema = of.into_iter().find(|schema| !schema.is_null()).expect("a schema");
            schema["properties"]["type"]["const"].as_str().expect("a word").to_owned()
        };
        let records = document["components"]["schemas"]["Record"]["oneOf"].as_array().expect("records");
        Self { channels, records: records.iter().map(schemas).collect(), seen: BTreeSet::new() }
    }

    /// Compares a message of the server.
    #[track_caller]
    fn accept(&mut self, channel: &str, message: &Value) {
        let messages = &self.channels[channel];
        let list = message.as_array().map_or_else(|| vec![message.clone()], Clone::clone);
        let kinds: Vec<_> = list.iter().map(|one| one["type"].as_str().expect("a type").to_owned()).collect();
        let name = if messages.contains_key(&kinds[0]) { &kinds[0] } else { "jsonPacket" };
        let validator = messages.get(name).unwrap_or_else(|| panic!("{channel} has no message for {message}"));
        assert_valid(validator, message, name);
        self.seen.insert(name.to_owned());
        self.seen.extend(kinds);
    }

    /// Sends a request that is as described.
    #[track_caller]
    fn send(&mut self, channel: &str, client: &mut Client, request: &Value) {
        let op = request["op"].as_str().expect("an op").to_owned();
        assert_valid(&self.channels[channel][&op], request, &op);
        client.send_text(&request.to_string());
        self.seen.insert(op);
    }

    /// Reads messages up to one of this type.
    #[track_caller]
    fn until(&mut self, channel: &str, client: &mut Client, kind: &str) -> Value {
        loop {
            let message = match client.receive() {
                Received::Reply(message) => message,
                Received::Text(text) => serde_json::from_str(&text).expect("JSON"),
                Received::Ping | Received::Pong(_) => continue,
                other => panic!("received {other:?}, expected {kind}"),
            };
            self.accept(channel, &message);
            let list = message.as_array().map_or_else(|| vec![message.clone()], Clone::clone);
            if let Some(found) = list.into_iter().find(|one| one["type"] == kind) {
                return found;
            }
        }
    }

    /// Reads events up to a message of this type.
    #[track_caller]
    fn until_event(&mut self, events: &mut SseClient, kind: &str) {
        loop {
            let event = events.next_event().unwrap_or_else(|| panic!("the stream ends without a {kind}"));
            let message: Value = serde_json::from_str(&event.data).expect("JSON");
            self.accept("sse", &message);
            if message["type"] == kind {
                return;
            }
        }
    }
}

fn json_client(quotes: &Quotes, token: &str) -> Client {
    let bearer = format!("Bearer {token}");
    quotes.try_stream(&[("Authorization", &bearer), JSON]).expect("it is accepted")
}

/// Publishes what [`Quotes`] does not: a ticker, a book and a raw record.
fn publish_the_rest(quotes: &mut Quotes) {
    let id = quotes.ids[0];
    let ticker = record(TICKER, id, 0, &numbers(&[1, 2, 3, 4, 5, 6, i64::MIN, 8]));
    let raw = record(RAW, id, 0, &[&4_u32.to_le_bytes()[..], b"\0\0\0\0", b"\x01\x02\xfe\xff\0\0\0\0"].concat());
    let levels = [(9, 1, b'B'), (11, 2, b'A')];
    quotes.publisher.publish(&[ticker, book(id, b'S', &levels), raw]);
}

/// A client over its life: every control message, and a record of each type.
fn compare_stream(compared: &mut Compared, quotes: &mut Quotes) {
    let client = &mut json_client(quotes, &token("u1", everything()));
    let epoch = compared.until("stream", client, "welcome")["epoch"].clone();
    let channels = json!(["quote", "trade", "ticker", "book", "raw"]);
    let subscribe =
        json!({"op": "subscribe", "id": 1, "channels": channels, "symbols": ["*", "NONE"], "conflate_ms": 0});
    compared.send("stream", client, &subscribe);
    compared.until("stream", client, "subscribed");
    publish_the_rest(quotes);
    quotes.publish_all(2);
    for kind in ["definition", "ticker", "book", "raw", "quote", "trade", "status", "gap", "heartbeat"] {
        if !compared.seen.contains(kind) {
            compared.until("stream", client, kind);
        }
    }
    compared.send("stream", client, &json!({"op": "ping", "id": 2}));
    compared.until("stream", client, "pong");
    client.send_text("{}");
    compared.until("stream", client, "error");
    let unsubscribe = json!({"op": "unsubscribe", "channels": ["quote"], "symbols": ["BTC-USD"]});
    compared.send("stream", client, &unsubscribe);
    compared.until("stream", client, "unsubscribed");
    let resume =
        json!({"op": "resume", "id": 3, "epoch": epoch, "position": 1, "channels": ["trade"], "symbols": ["XAU-USD"]});
    compared.send("stream", client, &resume);
    compared.until("stream", client, "resumed");
    compared.send("stream", client, &json!({"op": "auth", "id": 4, "token": token("u1", btc())}));
    compared.until("stream", client, "authenticated");
}

#[test]
fn every_message_is_as_described_and_every_description_has_a_message() {
    let mut quotes = Quotes::start("", &["--heartbeat-ms", "50"]);
    let documents = Documents::of(&quotes.server);
    let mut compared = Compared::new(&documents);
    compare_stream(&mut compared, &mut quotes);
    let mut short = claims("u2", btc());
    short["exp"] = json!(now_s() + 30);
    compared.until("stream", &mut json_client(&quotes, &signed(&short)), "expiring");
    // Of an instrument that does not exist there is nothing but an empty packet.
    let mut other = json_client(&quotes, &token("u3", everything()));
    let nothing = json!({"op": "subscribe", "channels": ["quote"], "symbols": ["NONE"]});
    compared.send("stream", &mut other, &nothing);
    compared.until("stream", &mut other, "packet");
    let define = json!({"op": "define", "id": 1, "instruments": [
        {"symbol": "NEW", "venue": "here", "px_exp": -2, "sz_exp": 0, "tick_size": 1, "lot_size": null}
    ]});
    compared.send("publish", &mut quotes.publisher.0, &define);
    compared.until("publish", &mut quotes.publisher.0, "defined");
    quotes.publisher.0.send_text("{}");
    compared.until("publish", &mut quotes.publisher.0, "error");
    let bearer = format!("Authorization: Bearer {}\r\n", token("u4", everything()));
    let connect = |path: &str| SseClient::connect(quotes.server.address, path, &bearer);
    compared.until_event(&mut connect("/v1/sse?symbols=*&last_event_id=1-1"), "resumed");
    let mut events = connect("/v1/sse?symbols=*");
    compared.until_event(&mut events, "subscribed");
    quotes.server.program.signal(Signal::TERM);
    compared.until_event(&mut events, "closing");
    compared.until("stream", &mut other, "closing");
    // The server sends no record of a type that it does not know, and takes none.
    let mut unknown = record(HEARTBEAT, 0, 0, b"");
    unknown[2] = 77;
    let mut text = String::new();
    push_record(&unknown, &NO_INSTRUMENT, &mut text);
    compared.accept("stream", &serde_json::from_str(&text).expect("JSON"));
    let described = compared.channels.values().flat_map(|messages| messages.keys()).chain(&compared.records);
    let missing: Vec<_> = described.filter(|name| !compared.seen.contains(*name)).collect();
    assert_eq!(missing, [""; 0], "described, and never seen");
}

/// Requests that are wrong.
fn wrong_requests() -> Vec<(&'static str, Value)> {
    let instrument = |with: Value| {
        let mut instrument = json!({"symbol": "A", "px_exp": 0, "sz_exp": 0});
        for (key, value) in with.as_object().expect("fields") {
            instrument[key] = value.clone();
        }
        json!({"op": "define", "instruments": [instrument]})
    };
    vec![
        ("stream", json!({"op": "ping", "id": -1})),
        ("stream", json!({"op": "ping", "id": null})),
        ("stream", json!({"op": "ping", "more": 1})),
        ("stream", json!({"op": "subscribe", "channels": ["quote"]})),
        ("stream", json!({"op": "subscribe", "channels": [], "symbols": ["A"]})),
        ("stream", json!({"op": "subscribe", "channels": ["quotes"], "symbols": ["A"]})),
        ("stream", json!({"op": "subscribe", "channels": ["quote"], "symbols": ["A*B"]})),
        ("stream", json!({"op": "subscribe", "channels": ["quote"], "symbols": [""]})),
        ("stream", json!({"op": "subscribe", "channels": ["quote"], "symbols": ["A"], "conflate_ms": 1001})),
        ("stream", json!({"op": "subscribe", "channels": ["quote"], "symbols": ["A"], "snapshot": "yes"})),
        ("stream", json!({"op": "unsubscribe", "channels": ["quote"], "symbols": ["A"], "conflate_ms": 0})),
        ("stream", json!({"op": "resume", "channels": ["quote"], "symbols": ["A"], "epoch": 1})),
        (
            "stream",
            json!({"op": "resume", "channels": ["quote"], "symbols": ["A"], "epoch": 4294967296_u64, "position": 1}),
        ),
        ("stream", json!({"op": "auth"})),
        ("stream", json!({"op": "auth", "token": ""})),
        ("publish", json!({"op": "define", "instruments": []})),
        ("publish", instrument(json!({"more": 1}))),
        ("publish", instrument(json!({"px_exp": 19}))),
        ("publish", instrument(json!({"tick_size": 0}))),
        ("publish", instrument(json!({"symbol": "A*"}))),
    ]
}

#[test]
fn a_request_that_the_server_refuses_is_not_valid() {
    let mut quotes = Quotes::start("", &["--requests-per-s", "1000"]);
    let compared = Compared::new(&Documents::of(&quotes.server));
    let (mut client, _) = quotes.stream(&token("u1", everything()));
    for (channel, request) in wrong_requests() {
        let op = request["op"].as_str().expect("an op");
        assert!(!compared.channels[channel][op].is_valid(&request), "{request}");
        let client = if channel == "stream" { &mut client } else { &mut quotes.publisher.0 };
        client.send_text(&request.to_string());
        assert_eq!(client.reply()["type"], "error", "{request}");
    }
}
