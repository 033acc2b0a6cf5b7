//! A publisher, and records for it, written byte by byte from the protocol's tables: with none of the program's
//! encoders.

use serde_json::{Value, json};
use tungstenite::Message;

use crate::client::Client;
use crate::server::Server;

pub const QUOTE: u8 = 1;
pub const TRADE: u8 = 2;
pub const TICKER: u8 = 3;
pub const BOOK: u8 = 4;
pub const RAW: u8 = 5;

/// A record. The fields that the server sets, sequence and `ts_recv`, are nonsense.
pub fn record(kind: u8, instrument: u32, ts_event: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = (((32 + body.len()) / 8) as u16).to_le_bytes().to_vec();
    bytes.extend([kind, 0x80]);
    bytes.extend(instrument.to_le_bytes());
    bytes.extend(0xdead_u64.to_le_bytes());
    bytes.extend(ts_event.to_le_bytes());
    bytes.extend(0xbeef_u64.to_le_bytes());
    bytes.extend(body);
    bytes
}

/// Numbers of 64 bits, little-endian.
pub fn numbers(numbers: &[i64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// A quote of 1 at `bid_px` and 2 at the next price. Its `ts_event` is `bid_px`.
pub fn quote(instrument: u32, bid_px: i64) -> Vec<u8> {
    record(QUOTE, instrument, bid_px as u64, &numbers(&[bid_px, 1, bid_px + 1, 2]))
}

/// A trade of 5 by a buyer. Its `trade_id` and its `ts_event` are `px`.
pub fn trade(instrument: u32, px: i64) -> Vec<u8> {
    record(TRADE, instrument, px as u64, &[&numbers(&[px, 5, px])[..], b"B\0\0\0\0\0\0\0"].concat())
}

/// A snapshot (`b'S'`) or a delta (`b'D'`) of a book: price, size and side of each level.
pub fn book(instrument: u32, action: u8, levels: &[(i64, i64, u8)]) -> Vec<u8> {
    let mut body = (levels.len() as u16).to_le_bytes().to_vec();
    body.extend([action, 0, 0, 0, 0, 0]);
    for (px, sz, side) in levels {
        body.extend(numbers(&[*px, *sz]));
        body.extend([*side, 0, 0, 0, 0, 0, 0, 0]);
    }
    record(BOOK, instrument, 0, &body)
}

/// A packet whose header announces `count` records. The fields that the server ignores are nonsense.
pub fn packet(count: usize, records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![1, 0];
    bytes.extend((count as u16).to_le_bytes());
    bytes.extend([0xee; 20]);
    bytes.extend(records.concat());
    bytes
}

/// A publisher's connection.
pub struct Publisher(pub Client);

impl Publisher {
    /// Connects with this token.
    pub fn connect(server: &Server, token: &str) -> Self {
        let bearer = format!("Bearer {token}");
        Self(Client::connect(server.address, "/v1/publish", &[("Authorization", &bearer)]))
    }

    /// The request to define symbols with prices in hundredths and whole sizes.
    pub fn define_request<S: AsRef<str>>(symbols: &[S]) -> String {
        let instrument = |symbol: &S| json!({"symbol": symbol.as_ref(), "venue": "test", "px_exp": -2, "sz_exp": 0});
        let instruments: Vec<Value> = symbols.iter().map(instrument).collect();
        json!({"op": "define", "id": 9, "instruments": instruments}).to_string()
    }

    /// Defines symbols with prices in hundredths and whole sizes, and returns their ids.
    #[track_caller]
    pub fn define<S: AsRef<str>>(&mut self, symbols: &[S]) -> Vec<u32> {
        self.0.send_text(&Self::define_request(symbols));
        let reply = self.0.reply();
        assert_eq!((&reply["type"], &reply["id"]), (&json!("defined"), &json!(9)), "{reply}");
        let defined = reply["instruments"].as_array().expect("a list");
        let names: Vec<_> = defined.iter().map(|instrument| instrument["symbol"].as_str().expect("a symbol")).collect();
        assert!(names.iter().copied().eq(symbols.iter().map(AsRef::as_ref)), "{reply}");
        defined.iter().map(|instrument| instrument["instrument"].as_u64().expect("an id") as u32).collect()
    }

    /// Publishes a packet.
    pub fn publish(&mut self, records: &[Vec<u8>]) {
        self.0.send(Message::binary(packet(records.len(), records)));
    }
}
