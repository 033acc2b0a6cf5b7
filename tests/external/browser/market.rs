//! A market whose every value is known: a publisher for a server without a feed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tickcast_protocol::packet::PacketHeader;
use tickcast_protocol::record::{Level, Quote, RecordHeader, RecordKind, Ticker, Trade, encode_book};
use tickcast_protocol::{BookAction, BookSide, Side};
use tungstenite::Message;

use tickcast_test_support::client::Client;
use tickcast_test_support::server::Server;

/// A server that is fed by a publisher alone.
pub const PUBLISHED: &[&str] = &["--feed", "none", "--publish-token", "t", "--stale-ms", "0"];

/// A publisher of instruments with prices in cents and sizes in thousandths; they are numbered from 0, in order.
pub struct Publisher {
    client: Client,
    ids: Vec<u32>,
    /// Records that [`Publisher::send`] has still to send.
    records: Vec<u8>,
    count: u16,
}

impl Publisher {
    pub fn open(server: &Server, symbols: &[&str]) -> Self {
        let mut client = Client::connect(server.address, "/v1/publish", &[("authorization", "Bearer t")]);
        let define = |symbol| json!({"symbol": symbol, "venue": "TEST", "px_exp": -2, "sz_exp": -3});
        let instruments: Vec<Value> = symbols.iter().map(define).collect();
        client.send_text(&json!({"op": "define", "id": 1, "instruments": instruments}).to_string());
        let reply = client.reply();
        let id = |defined: &Value| defined["instrument"].as_u64().expect("an id") as u32;
        let ids = reply["instruments"].as_array().expect("a list").iter().map(id).collect();
        Self { client, ids, records: Vec::new(), count: 0 }
    }

    /// Best prices in cents, a cent apart, with a size that follows from them.
    pub fn quote(&mut self, nth: usize, bid_px: i64) -> &mut Self {
        let header = self.header(nth, RecordKind::Quote);
        let quote = Quote { bid_px, bid_sz: 1000 + bid_px % 1000, ask_px: bid_px + 1, ask_sz: 2000 + bid_px % 1000 };
        quote.encode(&header, &mut self.records);
        self
    }

    /// A trade of the `id`-th whole unit, by a buyer where the id is even.
    pub fn trade(&mut self, nth: usize, px: i64, id: u64) -> &mut Self {
        let header = self.header(nth, RecordKind::Trade);
        let side = if id.is_multiple_of(2) { Side::Buy } else { Side::Sell };
        Trade { px, sz: 1000 + id as i64, trade_id: id, side }.encode(&header, &mut self.records);
        self
    }

    /// Statistics of a day that opened at 100.00.
    pub fn ticker(&mut self, nth: usize, last_px: i64) -> &mut Self {
        let header = self.header(nth, RecordKind::Ticker);
        let (high_px, low_px) = (last_px.max(10_000) + 77, last_px.min(10_000) - 33);
        let (bid_px, ask_px) = (last_px, last_px + 1);
        let day = Ticker { last_px, open_px: 10_000, high_px, low_px, volume: 4_200_000, turnover: 1, bid_px, ask_px };
        day.encode(&header, &mut self.records);
        self
    }

    /// A whole book: so many levels at each side of a price, each thicker than the one before.
    pub fn book(&mut self, nth: usize, middle: i64, levels: i64) -> &mut Self {
        let bid = |at| Level { px: middle - at, sz: 1000 * at + 5, side: BookSide::Bid };
        let ask = |at| Level { px: middle + at, sz: 1500 * at + 7, side: BookSide::Ask };
        let levels: Vec<_> = (1..=levels).map(bid).chain((1..=levels).map(ask)).collect();
        self.levels(nth, BookAction::Snapshot, &levels)
    }

    /// One level of the book by its absolute size; 0 takes it away.
    pub fn level(&mut self, nth: usize, side: BookSide, px: i64, sz: i64) -> &mut Self {
        self.levels(nth, BookAction::Delta, &[Level { px, sz, side }])
    }

    fn levels(&mut self, nth: usize, action: BookAction, levels: &[Level]) -> &mut Self {
        let header = self.header(nth, RecordKind::Book);
        encode_book(&header, action, levels.iter().copied(), &mut self.records);
        self
    }

    fn header(&mut self, nth: usize, kind: RecordKind) -> RecordHeader {
        self.count += 1;
        RecordHeader::of_feed(kind, self.ids[nth], 0)
    }

    /// Sends what has gathered as one packet.
    pub fn send(&mut self) {
        let head = PacketHeader { flags: 0, count: self.count, epoch: 0, position: 0.into(), ts_send: 0 };
        let packet = [&head.encode()[..], &self.records].concat();
        self.client.send(Message::binary(packet));
        self.records.clear();
        self.count = 0;
    }
}

/// Quotes of one publisher, without an end until this is dropped.
pub struct Beat(Arc<AtomicBool>);

impl Beat {
    /// Each instrument's bid moves, some two hundred times a second.
    pub fn start(mut publisher: Publisher) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let asked = over.clone();
        std::thread::spawn(move || {
            for round in 0.. {
                if asked.load(Ordering::Relaxed) {
                    return;
                }
                (0..publisher.ids.len()).for_each(|nth| _ = publisher.quote(nth, 10_000 + round % 100));
                publisher.send();
                // The pace of the market, and nothing that a test waits for.
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self(over)
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
