//! Books of a limited depth, on every way out of the program.

use serde_json::{Value, json};
use tickcast_protocol::record::{BookAction, BookSide, Level, read_book};
use tickcast_test_support::client::{Client, Received, Record, records_of};
use tickcast_test_support::publisher::{book, trade};
use tickcast_test_support::sse::SseClient;

use crate::access::{Quotes, everything, reply_of, token};

const BOOK: u8 = 4;
const TRADE: u8 = 2;

/// Rights to so many levels of each side.
fn depth(levels: u32) -> Value {
    json!({"allow": [{"symbols": ["BTC-*"], "book_depth": levels}]})
}

/// Bids and asks of one more level than anyone here with a limit may see.
fn publish_book(quotes: &mut Quotes) {
    let levels = [(10, 1, b'B'), (9, 2, b'B'), (8, 3, b'B'), (11, 4, b'A'), (12, 5, b'A'), (13, 6, b'A')];
    quotes.publisher.publish(&[book(quotes.ids[0], b'S', &levels)]);
}

/// The best bid leaves, a level beyond the depth changes, and a trade follows.
fn publish_changes(quotes: &mut Quotes, px: i64) {
    let id = quotes.ids[0];
    let changes = [book(id, b'D', &[(10, 0, b'B')]), book(id, b'D', &[(7, 7, b'B'), (14, 7, b'A')]), trade(id, px)];
    quotes.publisher.publish(&changes);
}

/// Sequence, action, and price and size of each level.
type BookRecord = (u64, BookAction, Vec<(i64, i64)>);

/// Books up to the trade at `px`: sequence, action and levels.
fn books_until_trade(client: &mut Client, px: i64) -> Vec<BookRecord> {
    let mut books = Vec::new();
    loop {
        let Received::Packet(packet) = client.receive() else { continue };
        for record in records_of(&packet) {
            match record.header.kind {
                BOOK => books.push(read(&record)),
                TRADE if record.header.ts_event == px as u64 => return books,
                _ => {}
            }
        }
    }
}

fn read(record: &Record) -> (u64, BookAction, Vec<(i64, i64)>) {
    let (action, levels) = read_book(&record.bytes).expect("a whole book");
    let signed = |Level { px, sz, side }: Level| (if side == BookSide::Bid { -px } else { px }, sz);
    (record.header.sequence.get(), action, levels.map(signed).collect())
}

fn subscribe(client: &mut Client, more: Value) -> Value {
    let mut request = json!({"op": "subscribe", "id": 1, "channels": ["book", "trade"], "symbols": ["BTC-USD"]});
    let (Value::Object(request_fields), Value::Object(more)) = (&mut request, more) else { panic!("objects") };
    request_fields.extend(more);
    client.send_text(&request.to_string());
    let kind = if request["op"] == "resume" { "resumed" } else { "subscribed" };
    reply_of(client, kind)
}

#[test]
fn book_of_a_limited_depth_is_right_and_never_deeper_on_every_way_out() {
    let mut quotes = Quotes::start("", &[]);
    publish_book(&mut quotes);
    let (limited, whole) = (token("u1", depth(2)), token("u2", everything()));
    let (mut client, welcome) = quotes.stream(&limited);
    let reply = subscribe(&mut client, json!({}));
    assert_eq!((&reply["book_depth"], &reply["limited"]), (&json!(2), &json!(["BTC-USD"])), "{reply}");
    let (mut conflated, _) = quotes.stream(&limited);
    subscribe(&mut conflated, json!({"conflate_ms": 10}));
    let (mut other, _) = quotes.stream(&whole);
    assert_eq!(subscribe(&mut other, json!({})).get("book_depth"), None);
    let best = vec![(-10, 1), (-9, 2), (11, 4), (12, 5)];
    publish_changes(&mut quotes, 41);
    let after = vec![(-9, 2), (-8, 3), (11, 4), (12, 5)];
    let moved = vec![(-10, 0), (-8, 3)];
    assert_eq!(
        books_until_trade(&mut client, 41),
        [(1, BookAction::Snapshot, best.clone()), (2, BookAction::Snapshot, after.clone())],
        "the first change that is seen of a view is the whole of it"
    );
    assert_eq!(books_until_trade(&mut other, 41).len(), 3);
    publish_book(&mut quotes);
    publish_changes(&mut quotes, 42);
    assert_eq!(
        books_until_trade(&mut client, 42),
        [(4, BookAction::Snapshot, best.clone()), (5, BookAction::Delta, moved)]
    );
    // Whatever was merged, no level is deeper, and a last trade comes behind all of it.
    for (_, _, levels) in books_until_trade(&mut conflated, 42) {
        assert!(levels.iter().all(|level| best.contains(level) || after.contains(level) || level.1 == 0), "{levels:?}");
    }
    snapshots_and_events(&quotes, &limited);
    resume_begins_with_the_whole_view(&mut quotes, &limited, &welcome, &after);
    let rights = |levels| json!({"op": "auth", "id": 2, "token": token("u1", depth(levels))}).to_string();
    client.send_text(&rights(1));
    reply_of(&mut client, "authenticated");
    quotes.publisher.publish(&[trade(quotes.ids[0], 43)]);
    assert_eq!(books_until_trade(&mut client, 43), [(6, BookAction::Snapshot, vec![(-9, 2), (11, 4)])]);
}

/// The last values, and the same as JSON in events.
fn snapshots_and_events(quotes: &Quotes, limited: &str) {
    let count = |json: &Value| {
        let side = |name: &str| json[name].as_array().map(Vec::len);
        (side("bids"), side("asks"))
    };
    let one = quotes.get(Some(limited), "/v1/snapshot/BTC-USD").json();
    assert_eq!(count(&one["book"]), (Some(2), Some(2)), "{one}");
    let several = quotes.get(Some(limited), "/v1/snapshot?symbols=BTC-*").json();
    assert_eq!(count(&several["snapshots"][0]["book"]), (Some(2), Some(2)), "{several}");
    let whole = token("u2", everything());
    let all = quotes.get(Some(&whole), "/v1/snapshot/BTC-USD").json();
    assert!(count(&all["book"]).0.is_some_and(|bids| bids > 2), "{all}");
    let header = format!("Authorization: Bearer {limited}\r\n");
    let mut events = SseClient::connect(quotes.server.address, "/v1/sse?symbols=BTC-*&channels=book", &header);
    let reply = events.until_message("subscribed");
    assert_eq!(reply["book_depth"], 2, "{reply}");
    let book = events.until_message("book");
    assert_eq!(count(&book), (Some(2), Some(2)), "{book}");
}

/// A replay has no changes of such a book: it comes whole behind it.
fn resume_begins_with_the_whole_view(quotes: &mut Quotes, token: &str, welcome: &Value, after: &[(i64, i64)]) {
    let (mut client, _) = quotes.stream(token);
    let reply = subscribe(&mut client, json!({"op": "resume", "epoch": welcome["epoch"], "position": 0}));
    assert_eq!((&reply["how"], &reply["book_depth"]), (&json!("replay"), &json!(2)), "{reply}");
    quotes.publisher.publish(&[trade(quotes.ids[0], 44)]);
    let books = books_until_trade(&mut client, 44);
    assert_eq!(books, [(6, BookAction::Snapshot, after.to_vec())]);
}
