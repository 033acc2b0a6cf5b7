//! A market with known values: a publisher for a server without a feed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tickcast_protocol::packet::PacketHeader;
use tickcast_protocol::record::{Level, Quote, RecordHeader, RecordKind, Ticker, Trade, encode_book, encode_status};
use tickcast_protocol::{BookAction, BookSide, FeedState, Side};
use tungstenite::Message;

use tickcast_test_support::client::Client;
use tickcast_test_support::server::Server;

/// Arguments of a server that only has a publisher.
pub const PUBLISHED: &[&str] = &["--feed", "none", "--publish-token", "test-publish-token", "--stale-ms", "0"];

/// A publisher of instruments, numbered from 0, with prices in cents and sizes in thousandths.
pub struct Publisher {
    client: Client,
    ids: Vec<u32>,
    /// The pending records, for [`Publisher::send`].
    records: Vec<u8>,
    count: u16,
}

impl Publisher {
    pub fn open(server: &Server, symbols: &[&str]) -> Self {
        let instruments: Vec<_> = symbols.iter().map(|symbol| (*symbol, -2, -3)).collect();
        Self::open_scaled(server, &instruments)
    }

    /// Instruments with exponents of prices and sizes of their own.
    pub fn open_scaled(server: &Server, instruments: &[(&str, i8, i8)]) -> Self {
        let mut client =
            Client::connect(server.address, "/v1/publish", &[("authorization", "Bearer test-publish-token")]);
        let define = |&(symbol, px_exp, sz_exp): &(&str, i8, i8)| json!({"symbol": symbol, "venue": "TEST", "px_exp": px_exp, "sz_exp": sz_exp});
        let instruments: Vec<Value> = instruments.iter().map(define).collect();
        client.send_text(&json!({"op": "define", "id": 1, "instruments": instruments}).to_string());
        let reply = client.reply();
        let id = |defined: &Value| defined["instrument"].as_u64().expect("an id") as u32;
        let ids = reply["instruments"].as_array().expect("a list").iter().map(id).collect();
        Self { client, ids, records: Vec::new(), count: 0 }
    }

    /// A bid in cents, and an ask one cent above, with sizes derived from the bid.
    pub fn quote(&mut self, nth: usize, bid_px: i64) -> &mut Self {
        let header = self.header(nth, RecordKind::Quote);
        let quote = Quote { bid_px, bid_sz: 1000 + bid_px % 1000, ask_px: bid_px + 1, ask_sz: 2000 + bid_px % 1000 };
        quote.encode(&header, &mut self.records);
        self
    }

    /// A trade with a size derived from its id; a buy if the id is even.
    pub fn trade(&mut self, nth: usize, px: i64, id: u64) -> &mut Self {
        let header = self.header(nth, RecordKind::Trade);
        let side = if id.is_multiple_of(2) { Side::Buy } else { Side::Sell };
        Trade { px, sz: 1000 + id as i64, trade_id: id, side }.encode(&header, &mut self.records);
        self
    }

    /// A quote, a trade and a book with one level on each side, all of this size and around this price.
    pub fn sized(&mut self, nth: usize, px: i64, sz: i64) -> &mut Self {
        self.best(nth, [px, px + 1], sz)
    }

    /// A quote, a book with one level on each side, and a trade at the bid, all of this size.
    pub fn best(&mut self, nth: usize, [px, ask_px]: [i64; 2], sz: i64) -> &mut Self {
        let quote = Quote { bid_px: px, bid_sz: sz, ask_px, ask_sz: sz };
        let header = self.header(nth, RecordKind::Quote);
        quote.encode(&header, &mut self.records);
        let header = self.header(nth, RecordKind::Trade);
        Trade { px, sz, trade_id: 1, side: Side::Buy }.encode(&header, &mut self.records);
        let bid = Level { px, sz, side: BookSide::Bid };
        let ask = Level { px: ask_px, sz, side: BookSide::Ask };
        self.levels(nth, BookAction::Snapshot, &[bid, ask])
    }

    /// The state of an instrument's data.
    pub fn status(&mut self, nth: usize, state: FeedState) -> &mut Self {
        let header = self.header(nth, RecordKind::Status);
        encode_status(&header, state, &mut self.records);
        self
    }

    /// 24 h statistics with an open of 100.00.
    pub fn ticker(&mut self, nth: usize, last_px: i64) -> &mut Self {
        let header = self.header(nth, RecordKind::Ticker);
        let (high_px, low_px) = (last_px.max(10_000) + 77, last_px.min(10_000) - 33);
        let (bid_px, ask_px) = (last_px, last_px + 1);
        let day = Ticker { last_px, open_px: 10_000, high_px, low_px, volume: 4_200_000, turnover: 1, bid_px, ask_px };
        day.encode(&header, &mut self.records);
        self
    }

    /// A book snapshot with `levels` levels on each side of a price, with rising sizes.
    pub fn book(&mut self, nth: usize, middle: i64, levels: i64) -> &mut Self {
        let bid = |at| Level { px: middle - at, sz: 1000 * at + 5, side: BookSide::Bid };
        let ask = |at| Level { px: middle + at, sz: 1500 * at + 7, side: BookSide::Ask };
        let levels: Vec<_> = (1..=levels).map(bid).chain((1..=levels).map(ask)).collect();
        self.levels(nth, BookAction::Snapshot, &levels)
    }

    /// One level of the book with its size; 0 removes it.
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

    /// Sends the pending records as one packet.
    pub fn send(&mut self) {
        let head = PacketHeader { flags: 0, count: self.count, epoch: 0, position: 0.into(), ts_send: 0 };
        let packet = [&head.encode()[..], &self.records].concat();
        self.client.send(Message::binary(packet));
        self.records.clear();
        self.count = 0;
    }
}

/// Publishes quotes until it is dropped.
pub struct MovingMarket(Arc<AtomicBool>);

impl MovingMarket {
    /// Moves each instrument's bid, some two hundred times a second.
    pub fn start(mut publisher: Publisher) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let is_ended = ended.clone();
        std::thread::spawn(move || {
            for round in 0.. {
                if is_ended.load(Ordering::Relaxed) {
                    return;
                }
                (0..publisher.ids.len()).for_each(|nth| _ = publisher.quote(nth, 10_000 + round % 100));
                publisher.send();
                // The rate of the market; no test waits for it.
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self(ended)
    }
}

impl Drop for MovingMarket {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
