use proptest::prelude::*;
use tickcast_protocol::Instrument;
use tickcast_protocol::json::push_record;

use super::*;
use crate::sink::Report;

/// A reader with its output.
struct Bench {
    records: JsonRecords,
    report: Report,
    next_id: u32,
}

impl Bench {
    fn new() -> Self {
        Self { records: JsonRecords::new("acme"), report: Report::default(), next_id: 1 }
    }

    fn with<R>(&mut self, call: impl FnOnce(&mut JsonRecords, &mut Sink<'_>) -> R) -> (R, Vec<u8>) {
        let (mut batch, mut events) = (Vec::new(), Vec::new());
        let Self { records, report, next_id } = self;
        let result = call(records, &mut Sink { batch: &mut batch, report, next_id, events: &mut events });
        (result, batch)
    }

    fn take(&mut self, json: &str) -> (Result<(), Malformed>, Vec<u8>) {
        self.with(|records, sink| records.on_message(json.as_bytes(), SymbolAt::Field("symbol"), sink))
    }

    fn records(&mut self, json: &str) -> Vec<u8> {
        let (result, batch) = self.take(json);
        assert_eq!(result, Ok(()), "{json}");
        batch
    }

    fn error(&mut self, json: &str) -> String {
        self.take(json).0.expect_err(json).to_string()
    }
}

fn kinds(batch: &[u8]) -> Vec<RecordKind> {
    record::records(batch).filter_map(|(header, _)| header.known_kind()).collect()
}

fn instrument_of(batch: &[u8]) -> Instrument {
    let mut all = record::records(batch);
    all.find_map(|(_, bytes)| record::read_definition(bytes).filter(|_| bytes[2] == 16)).expect("a definition")
}

/// One record of each type, with every field set to something.
fn every_type(id: u32) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut put = |encode: &dyn Fn(&mut Vec<u8>)| {
        let mut record = Vec::new();
        encode(&mut record);
        all.push(record);
    };
    let of = |kind| RecordHeader::of_feed(kind, id, 1_763_700_000_123_456_789);
    let quote = record::Quote { bid_px: -6_183_762, bid_sz: 378, ask_px: PRICE_NONE, ask_sz: PRICE_NONE };
    put(&|out| quote.encode(&of(RecordKind::Quote), out));
    let trade = record::Trade { px: 6_183_763, sz: 25, trade_id: u64::MAX, side: Side::Sell };
    put(&|out| trade.encode(&of(RecordKind::Trade).with_flags(flags::LAST | flags::DELAYED), out));
    let ticker = record::Ticker {
        last_px: 1,
        open_px: -2,
        high_px: PRICE_NONE,
        low_px: 4,
        volume: 5,
        turnover: 6,
        bid_px: 7,
        ask_px: 8,
    };
    put(&|out| ticker.encode(&of(RecordKind::Ticker), out));
    let levels = [(100, 1, b'B'), (99, 0, b'B'), (101, 5, b'A')];
    let level = |(px, sz, side): (i64, i64, u8)| Level { px, sz, side: side.into() };
    let book = of(RecordKind::Book).with_flags(flags::MAYBE_BAD_BOOK);
    put(&|out| encode_book(&book, BookAction::Delta, levels.into_iter().map(level), out));
    put(&|out| encode_book(&of(RecordKind::Book), BookAction::Snapshot, [].into_iter(), out));
    put(&|out| encode_raw(&of(RecordKind::Raw), b"\x00\xffopaque", out));
    for state in [FeedState::Live, FeedState::Stale, FeedState::Halted, FeedState::Ended] {
        put(&|out| encode_status(&of(RecordKind::Status), state, out));
    }
    all
}

#[test]
fn json_of_the_server_becomes_the_same_records() {
    let mut bench = Bench::new();
    let mut instrument = Instrument::new(1, "BTC/USD \"q\" 币", "venue", -2, -5);
    (instrument.tick_size, instrument.lot_size) = (5, 10);
    let (mut definition, mut json) = (Vec::new(), String::new());
    record::encode_definition(&instrument, &mut definition);
    push_record(&definition, &instrument, &mut json);
    assert_eq!(instrument_of(&bench.records(&json)), instrument);
    for expected in every_type(1) {
        let mut json = String::new();
        push_record(&expected, &instrument, &mut json);
        assert_eq!(bench.records(&json), expected, "{json}");
        assert_eq!(bench.records(&format!("[{json},{json}]")), [&expected[..], &expected].concat());
    }
    assert_eq!(bench.report.malformed, 0);
}

#[test]
fn values_without_a_definition_choose_exponents_and_change_them() {
    let mut bench = Bench::new();
    let first = bench.records(r#"{"type":"trade","symbol":"A","px":1.50,"sz":"2","side":"B"}"#);
    assert_eq!(kinds(&first), [RecordKind::Definition, RecordKind::Trade]);
    let instrument = instrument_of(&first);
    assert_eq!((instrument.px_exp, instrument.sz_exp, instrument.venue.as_str()), (-2, 0, "acme"));
    let finer = bench.records(r#"{"type":"trade","symbol":"A","px":"1.505","sz":1}"#);
    assert_eq!(kinds(&finer), [RecordKind::Definition, RecordKind::Trade]);
    assert_eq!(instrument_of(&finer).px_exp, -3);
    let trade = record::records(&finer).find_map(|(_, bytes)| record::Trade::read(bytes).filter(|_| bytes[2] == 2));
    assert_eq!(trade.map(|trade| (trade.px, trade.sz, trade.side)), Some((1505, 1, Side::Unknown)));
    // No exponents hold this one beside the others.
    let lost = bench.records(r#"{"type":"trade","symbol":"A","px":"1000000000000000000","sz":1}"#);
    assert_eq!(kinds(&lost), [RecordKind::Gap]);
    assert_eq!((bench.report.trades_lost, bench.report.rescaled), (1, 1));
}

#[test]
fn symbol_is_of_a_field_or_given() {
    let mut bench = Bench::new();
    let json = br#"{"type":"raw","code":"X-1","symbol":"other","payload_hex":"00ff"}"#;
    let (result, batch) = bench.with(|records, sink| records.on_message(json, SymbolAt::Field("code"), sink));
    assert_eq!((result, instrument_of(&batch).symbol), (Ok(()), "X-1".to_owned()));
    let (result, batch) = bench.with(|records, sink| records.on_message(json, SymbolAt::Given("Y"), sink));
    assert_eq!((result, instrument_of(&batch).symbol), (Ok(()), "Y".to_owned()));
    let ((), again) = bench.with(|records, sink| records.announce_again(sink));
    assert_eq!(kinds(&again), [RecordKind::Definition; 2]);
}

#[test]
fn what_is_wrong_is_said_and_the_rest_of_a_list_is_taken() {
    let mut bench = Bench::new();
    for (json, expected) in [
        ("", "not JSON"),
        ("7", "expected a JSON object or a list"),
        (r#"{"symbol":"A"}"#, "key \"type\" is missing"),
        (r#"{"type":"candle","symbol":"A"}"#, "type \"candle\": expected quote, trade"),
        (r#"{"type":"trade","px":"1","sz":"1"}"#, "the record has no symbol"),
        (r#"{"type":"trade","symbol":"A*","px":"1","sz":"1"}"#, "symbol \"A*\" has '*'"),
        (r#"{"type":"trade","symbol":"A","px":"x","sz":"1"}"#, "key \"px\": \"x\": not a decimal number"),
        (r#"{"type":"trade","symbol":"A","px":"1","sz":"-1"}"#, "key \"sz\": \"-1\" is below zero"),
        (r#"{"type":"trade","symbol":"A","px":"1","sz":"1","side":"buy"}"#, "key \"side\": expected \"B\""),
        (r#"{"type":"quote","symbol":"A","bid_px":true}"#, "key \"bid_px\": expected a string"),
        (r#"{"type":"book","symbol":"A","kind":"X","bids":[],"asks":[]}"#, "key \"kind\": expected"),
        (r#"{"type":"book","symbol":"A","kind":"S","bids":[["1"]],"asks":[]}"#, "key \"bids\": expected a list of"),
        (r#"{"type":"raw","symbol":"A","payload_hex":"0g"}"#, "key \"payload_hex\": expected pairs"),
        (r#"{"type":"definition","symbol":"A","px_exp":-19,"sz_exp":0}"#, "key \"px_exp\": expected -18 to 18"),
        (r#"{"type":"status","symbol":"A","state":"X"}"#, "key \"state\": expected"),
    ] {
        let error = bench.error(json);
        assert!(error.starts_with(expected), "{json}: {error}");
    }
    let long = format!(r#"{{"type":"status","state":"L","symbol":"{}"}}"#, "A".repeat(65));
    assert_eq!(bench.error(&long), "name of 65 bytes: expected 1 to 64");
    let (result, batch) = bench.take(r#"[{"type":"x"},{"type":"trade","symbol":"B","px":"1","sz":"1"}]"#);
    assert!(result.is_err());
    assert_eq!(kinds(&batch), [RecordKind::Definition, RecordKind::Trade]);
}

proptest! {
    /// Texts that are nearly records: no panic, and only whole records come out.
    #[test]
    fn hostile_text_never_panics(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ":", ",", "\"", "\\", "\"type\":\"trade\"", "\"symbol\":\"A\"", "\"px\":\"1.5\"", "\"sz\":1e400",
            "\"kind\":\"S\"", "\"bids\":[[\"1\",\"2\"]]", "\"asks\":[]", "\"type\":\"book\"", "\"px_exp\":-300", "-", "1", "é", "\0",
            "\"payload_hex\":\"ff\"", "\"flags\":[\"more\"]", "\"ts_event\":18446744073709551616", "\"type\":\"definition\"", "null",
        ]), 0..24)
    ) {
        let mut bench = Bench::new();
        let (_, batch) = bench.take(&pieces.concat());
        let whole: usize = record::records(&batch).map(|(_, bytes)| bytes.len()).sum();
        prop_assert_eq!(whole, batch.len());
    }
}
