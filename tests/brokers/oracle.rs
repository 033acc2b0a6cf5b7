//! What a subscriber has to receive of trades that are numbered from 1 by their `trade_id`, and the payloads of all
//! forms.

use serde_json::json;
use tickcast_protocol::record::Trade;
use tickcast_test_support::publisher::{numbers, packet, record};
use tickcast_test_support::server::Server;

use crate::broker::wait_until_open;
use tickcast_test_support::client::Subscriber;

/// A trade as JSON.
pub fn trade(symbol: &str, id: u64) -> String {
    json!({"type": "trade", "symbol": symbol, "ts_event": id, "px": "1.50", "sz": 2, "trade_id": id, "side": "B"})
        .to_string()
}

/// A packet with the definition of `symbol` as the sender's instrument 7, and a trade of it at 1.50.
pub fn trade_packet(symbol: &str, id: u64) -> Vec<u8> {
    let mut body = vec![(-2i8) as u8, 0, b'T', symbol.len() as u8, 4, 0, 0, 0];
    body.extend(numbers(&[i64::MIN, i64::MIN, 0]));
    body.extend(symbol.bytes().chain(*b"acme"));
    body.resize(body.len().next_multiple_of(8), 0);
    let trade = record(2, 7, id, &[&numbers(&[150, 2, id as i64])[..], b"B\0\0\0\0\0\0\0"].concat());
    packet(2, &[record(16, 7, 0, &body), trade])
}

/// The numbers of trades that came, and whether each hole among them is behind a Gap.
pub struct Oracle {
    subscriber: Subscriber,
    last: u64,
    sequence: u64,
    /// Messages that never came.
    pub missing: u64,
}

impl Oracle {
    /// Subscribes to the trades of a symbol, of which some have come or will.
    pub fn new(server: &Server, symbol: &str) -> Self {
        let subscriber = server.subscriber(&["trade"], &[symbol]);
        Self { subscriber, last: 0, sequence: 0, missing: 0 }
    }

    /// The number of the next trade. It is above the last one, and next to it unless a Gap came between.
    #[track_caller]
    pub fn next(&mut self) -> u64 {
        self.subscriber.restart_deadline();
        let record = self.subscriber.record();
        let trade = Trade::read(&record.bytes).expect("a whole trade");
        assert_eq!((trade.px, trade.sz, record.header.ts_event), (150, 2, trade.trade_id), "{trade:?}");
        let (id, sequence) = (trade.trade_id, record.header.sequence.get());
        assert!(id > self.last, "{id} after {}", self.last);
        let hole = id - self.last - 1;
        if self.last > 0 && hole > 0 {
            // The subscriber has checked that a Gap stands for each sequence that is missing.
            assert!(sequence > self.sequence + 1, "{id} after {}, and no Gap", self.last);
            assert!(self.subscriber.gaps.iter().all(|gap| gap.reason == tickcast_protocol::GapReason::Feed));
            self.missing += hole;
        }
        (self.last, self.sequence) = (id, sequence);
        id
    }

    /// The next trades are these, without a hole.
    #[track_caller]
    pub fn expect(&mut self, ids: std::ops::RangeInclusive<u64>) {
        for id in ids {
            assert_eq!(self.next(), id);
        }
    }

    /// Trades up to this one come.
    #[track_caller]
    pub fn until(&mut self, id: u64) {
        while self.next() < id {}
    }

    /// The Gaps that came.
    pub fn gaps(&self) -> usize {
        self.subscriber.gaps.len()
    }
}

/// Publishes trades of `symbol` with `send` until one comes, as it is not known when a subscription is in force. Returns
/// the oracle and the next number.
pub fn first_trade(server: &Server, nth: usize, symbol: &str, mut send: impl FnMut(u64)) -> (Oracle, u64) {
    wait_until_open(server, nth);
    let mut oracle = Oracle::new(server, symbol);
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let (first, next) = std::thread::scope(|scope| {
        let received = scope.spawn(|| {
            let first = oracle.next();
            drop(stop);
            first
        });
        let mut id = 0;
        while stopped.recv_timeout(std::time::Duration::from_millis(2))
            == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            id += 1;
            send(id);
        }
        (received.join().expect("no panic"), id + 1)
    });
    if next - 1 > first {
        oracle.expect(first + 1..=next - 1);
    }
    (oracle, next)
}
