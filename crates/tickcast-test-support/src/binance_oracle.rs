//! A second reader of Binance recordings. It is simple rather than fast, and shares no code with the program: serde_json
//! for text, exact decimals for numbers, whole files in memory.
//!
//! It assumes what was checked on these recordings: no line is malformed, no update is missing, each file has one
//! instrument and one snapshot. Names are those of the directory (`BTCUSDT-PERP` for the USD-M perpetual).

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use rust_decimal::Decimal;
use serde_json::Value;

/// The content of some recordings.
#[derive(Debug, Default)]
pub struct Oracle {
    pub instruments: BTreeMap<String, OracleInstrument>,
}

/// The content of one instrument's messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OracleInstrument {
    /// The final book: price → size.
    pub bids: BTreeMap<Decimal, Decimal>,
    pub asks: BTreeMap<Decimal, Decimal>,
    /// `(bid_px, bid_sz, ask_px, ask_sz)`
    pub last_quote: (Decimal, Decimal, Decimal, Decimal),
    /// `(trade_id, px, sz, side of the aggressor)`
    pub trades: Vec<(u64, Decimal, Decimal, char)>,
    /// `bookTicker` messages.
    pub quote_count: usize,
    /// `depthUpdate` messages.
    pub depth_count: usize,
    /// `depthUpdate` messages after the snapshot.
    pub applied_count: usize,
}

/// Reads recordings of one instrument each.
pub fn read(files: &[PathBuf]) -> Oracle {
    let mut oracle = Oracle::default();
    for file in files {
        let (name, instrument) = read_file(file);
        assert!(oracle.instruments.insert(name, instrument).is_none(), "two recordings of one instrument");
    }
    oracle
}

/// The text of a recording, compressed or not.
pub fn text(file: &Path) -> String {
    let bytes = std::fs::read(file).expect("a readable recording");
    let mut text = String::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        MultiGzDecoder::new(bytes.as_slice()).read_to_string(&mut text).expect("gzip of UTF-8");
    } else {
        text = String::from_utf8(bytes).expect("UTF-8");
    }
    text
}

fn read_file(file: &Path) -> (String, OracleInstrument) {
    let mut instrument = OracleInstrument::default();
    let mut symbol = String::new();
    let mut depths = Vec::new();
    let mut snapshot = None;
    for line in text(file).lines() {
        let (_, json) = line.split_once(' ').expect("a receive stamp");
        let mut message: Value = serde_json::from_str(json).expect("JSON");
        let Some(stream) = message["stream"].as_str() else {
            snapshot = Some(message);
            continue;
        };
        let kind = stream.split('@').nth(1).expect("a stream's name").to_owned();
        let data = message["data"].take();
        symbol = data["s"].as_str().expect("a symbol").to_owned();
        match kind.as_str() {
            "bookTicker" => instrument.quote(&data),
            "trade" => instrument.trade(&data),
            "depth" => depths.push(data),
            other => panic!("stream {other}"),
        }
    }
    let futures = depths.first().is_some_and(|depth| depth.get("pu").is_some());
    instrument.depth_count = depths.len();
    instrument.book(&snapshot.expect("a snapshot"), &depths, futures);
    (if futures { symbol + "-PERP" } else { symbol }, instrument)
}

impl OracleInstrument {
    fn quote(&mut self, data: &Value) {
        self.quote_count += 1;
        self.last_quote = (decimal(&data["b"]), decimal(&data["B"]), decimal(&data["a"]), decimal(&data["A"]));
    }

    fn trade(&mut self, data: &Value) {
        let side = if data["m"].as_bool().expect("true or false") { 'S' } else { 'B' };
        let id = data["t"].as_u64().expect("an id");
        self.trades.push((id, decimal(&data["p"]), decimal(&data["q"]), side));
    }

    fn book(&mut self, snapshot: &Value, depths: &[Value], futures: bool) {
        set_levels(&mut self.bids, &snapshot["bids"]);
        set_levels(&mut self.asks, &snapshot["asks"]);
        let id = snapshot["lastUpdateId"].as_u64().expect("an id");
        for depth in depths {
            let last = depth["u"].as_u64().expect("an id");
            if last < id || last == id && !futures {
                continue;
            }
            self.applied_count += 1;
            set_levels(&mut self.bids, &depth["b"]);
            set_levels(&mut self.asks, &depth["a"]);
        }
    }
}

fn set_levels(side: &mut BTreeMap<Decimal, Decimal>, levels: &Value) {
    for level in levels.as_array().expect("a list of levels") {
        let (px, sz) = (decimal(&level[0]), decimal(&level[1]));
        if sz.is_zero() {
            side.remove(&px);
        } else {
            side.insert(px, sz);
        }
    }
}

fn decimal(value: &Value) -> Decimal {
    value.as_str().expect("a string").parse().expect("a decimal")
}
