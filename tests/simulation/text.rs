//! Reads the JSON encoding back into packets, with serde_json and exact decimals and none of the program's own parsers.
//! The oracle's checks of packets then hold for JSON as well.

use std::collections::HashMap;

use rust_decimal::Decimal;
use serde_json::Value;
use tickcast_protocol::packet::{self, PacketHeader};
use tickcast_protocol::record::{self, Gap, Level, PRICE_NONE, Quote, RecordHeader, Ticker, Trade, flags};
use tickcast_protocol::{BookSide, Channel, Instrument, RecordKind};

/// Reads the messages of one connection.
#[derive(Default)]
pub struct TextReader {
    /// Instruments announced on it: ids and exponents by symbol.
    announced: HashMap<String, Instrument>,
}

/// True for a message of the data stream; the others are answers.
pub fn is_data(message: &Value) -> bool {
    message.is_array() || message.get("packet").is_some()
}

/// The header of the packet, from the last object of a message.
pub fn header_of(message: &Value) -> PacketHeader {
    let records = message.as_array().map_or(std::slice::from_ref(message), Vec::as_slice);
    assert!(!message.is_array() || records.len() > 1, "a single record is not a list: {message}");
    let (last, others) = records.split_last().expect("a list has several records");
    assert!(others.iter().all(|record| record.get("packet").is_none()), "one token, at the end: {message}");
    let said = &last["packet"];
    let flags = words(said).map(|word| match word {
        "snapshot" => packet::flags::SNAPSHOT,
        "replay" => packet::flags::REPLAY,
        "caught_up" => packet::flags::CAUGHT_UP,
        other => panic!("flag {other:?} of a packet"),
    });
    PacketHeader {
        flags: flags.sum(),
        count: if last["type"] == "packet" { 0 } else { records.len() as u16 },
        epoch: u32::try_from(number(said, "epoch")).expect("32 bits"),
        position: number(said, "position").into(),
        ts_send: number(said, "ts_send"),
    }
}

impl TextReader {
    /// The packet that a message stands for. The ids, which JSON does not have, are those of `instruments`.
    pub fn packet(&mut self, message: &Value, instruments: &[Instrument]) -> Vec<u8> {
        let header = header_of(message);
        let mut out = header.encode().to_vec();
        let records = message.as_array().map_or(std::slice::from_ref(message), Vec::as_slice);
        for record in records.iter().take(header.count.into()) {
            self.push_record(record, instruments, &mut out);
        }
        out
    }

    fn push_record(&mut self, record: &Value, instruments: &[Instrument], out: &mut Vec<u8>) {
        let kind = text(record, "type");
        let mut header = RecordHeader::of_feed(RecordKind::Heartbeat, 0, number(record, "ts_event"));
        (header.sequence, header.ts_recv) = (number(record, "sequence").into(), number(record, "ts_recv"));
        header.flags = record_flags(record);
        if kind == "definition" {
            return self.define(record, instruments, out);
        }
        let symbol = record.get("symbol").map(|symbol| symbol.as_str().expect("a text"));
        let instrument = symbol.map(|symbol| {
            self.announced.get(symbol).unwrap_or_else(|| panic!("{symbol} before its definition: {record}"))
        });
        header.instrument = instrument.map_or(0, |instrument| instrument.id);
        let instrument = || instrument.unwrap_or_else(|| panic!("no symbol: {record}"));
        let px = |key: &str| mantissa(&record[key], instrument().px_exp);
        let sz = |key: &str| mantissa(&record[key], instrument().sz_exp);
        let mut of_kind = |kind: RecordKind| {
            header.kind = kind as u8;
            header
        };
        match kind {
            "quote" => {
                let (bid_px, bid_sz, ask_px, ask_sz) = (px("bid_px"), sz("bid_sz"), px("ask_px"), sz("ask_sz"));
                Quote { bid_px, bid_sz, ask_px, ask_sz }.encode(&of_kind(RecordKind::Quote), out);
            }
            "trade" => {
                let (trade_id, side) = (number(record, "trade_id"), letter(record, "side").into());
                Trade { px: px("px"), sz: sz("sz"), trade_id, side }.encode(&of_kind(RecordKind::Trade), out);
            }
            "ticker" => {
                let [last_px, open_px, high_px, low_px] = ["last_px", "open_px", "high_px", "low_px"].map(px);
                let (volume, [turnover, bid_px, ask_px]) = (sz("volume"), ["turnover", "bid_px", "ask_px"].map(px));
                Ticker { last_px, open_px, high_px, low_px, volume, turnover, bid_px, ask_px }
                    .encode(&of_kind(RecordKind::Ticker), out);
            }
            "book" => {
                let levels = [("bids", BookSide::Bid), ("asks", BookSide::Ask)]
                    .map(|(key, side)| levels(record, key, side, instrument()));
                let levels = levels.concat().into_iter();
                record::encode_book(&of_kind(RecordKind::Book), letter(record, "kind").into(), levels, out);
            }
            "raw" => record::encode_raw(&of_kind(RecordKind::Raw), &unhex(text(record, "payload_hex")), out),
            "gap" => gap(record, instrument().id).encode(header.ts_recv, out),
            "status" => record::encode_status(&of_kind(RecordKind::Status), letter(record, "state").into(), out),
            "heartbeat" => record::encode_heartbeat(header.ts_recv, out),
            other => panic!("type {other:?}: {record}"),
        }
    }

    fn define(&mut self, record: &Value, instruments: &[Instrument], out: &mut Vec<u8>) {
        let symbol = text(record, "symbol");
        let number = |key: &str| record[key].as_i64().and_then(|exponent| i8::try_from(exponent).ok());
        let px_exp = number("px_exp").unwrap_or_else(|| panic!("px_exp of {record}"));
        let sz_exp = number("sz_exp").unwrap_or_else(|| panic!("sz_exp of {record}"));
        let known = instruments.iter().find(|instrument| instrument.symbol == symbol);
        let instrument = Instrument {
            id: known.unwrap_or_else(|| panic!("an undefined instrument: {record}")).id,
            symbol: symbol.to_owned(),
            venue: text(record, "venue").to_owned(),
            px_exp,
            sz_exp,
            status: letter(record, "status").into(),
            tick_size: mantissa(&record["tick_size"], px_exp),
            lot_size: mantissa(&record["lot_size"], sz_exp),
        };
        record::encode_definition(&instrument, out);
        self.announced.insert(symbol.to_owned(), instrument);
    }
}

/// A decimal text at the instrument's precision, or null if not present.
fn mantissa(value: &Value, exponent: i8) -> i64 {
    if value.is_null() {
        return PRICE_NONE;
    }
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is not a decimal text"));
    let decimal = Decimal::from_str_exact(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    assert_eq!(decimal.scale(), u32::from(exponent.min(0).unsigned_abs()), "decimals of {text:?}");
    let unit = 10i128.pow(u32::from(exponent.max(0).unsigned_abs()));
    assert_eq!(decimal.mantissa() % unit, 0, "{text:?} is finer than 10^{exponent}");
    i64::try_from(decimal.mantissa() / unit).expect("64 bits")
}

fn record_flags(record: &Value) -> u8 {
    let bits = words(record).map(|word| match word {
        "more" => 0,
        "snapshot" => flags::SNAPSHOT,
        "conflated" => flags::CONFLATED,
        "delayed" => flags::DELAYED,
        "maybe_bad_book" => flags::MAYBE_BAD_BOOK,
        "computed" => flags::COMPUTED,
        other => panic!("flag {other:?}: {record}"),
    });
    let last = if words(record).any(|word| word == "more") { 0 } else { flags::LAST };
    bits.sum::<u8>() | last
}

fn words(object: &Value) -> impl Iterator<Item = &str> {
    let list = object.get("flags").map_or(&[][..], |flags| flags.as_array().expect("a list"));
    list.iter().map(|word| word.as_str().expect("a word"))
}

fn levels(record: &Value, key: &str, side: BookSide, instrument: &Instrument) -> Vec<Level> {
    let list = record[key].as_array().unwrap_or_else(|| panic!("no {key}: {record}"));
    let level = |level: &Value| {
        assert_eq!(level.as_array().map(Vec::len), Some(2), "a price and a size: {level}");
        Level { px: mantissa(&level[0], instrument.px_exp), sz: mantissa(&level[1], instrument.sz_exp), side }
    };
    list.iter().map(level).collect()
}

fn gap(record: &Value, instrument: u32) -> Gap {
    let channel = Channel::from_name(text(record, "channel")).expect("a channel");
    let (from_sequence, to_sequence) = (number(record, "from_sequence").into(), number(record, "to_sequence").into());
    Gap { instrument, channel, from_sequence, to_sequence, reason: letter(record, "reason").into() }
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("two hex digits");
    (0..text.len()).step_by(2).map(byte).collect()
}

fn number(object: &Value, key: &str) -> u64 {
    object[key].as_u64().unwrap_or_else(|| panic!("no whole number {key}: {object}"))
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object[key].as_str().unwrap_or_else(|| panic!("no text {key}: {object}"))
}

fn letter(object: &Value, key: &str) -> u8 {
    let text = text(object, key);
    assert_eq!(text.len(), 1, "{key} of {object}");
    text.as_bytes()[0]
}
