use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::record::{encode_book, encode_definition, encode_heartbeat, encode_raw, encode_status};
use crate::{BookAction, Channel, FeedState, GapReason, Sequence, Side};

const TS: u64 = 1_763_700_000_000_000_000;

fn btc() -> Instrument {
    Instrument::new(7, "BTC-USD", "sim", -2, -5)
}

fn header(kind: RecordKind, flags: u8) -> RecordHeader {
    let mut header = RecordHeader::of_feed(kind, 7, TS).with_flags(flags);
    (header.sequence, header.ts_recv) = (Sequence::new(5), TS + 9);
    header
}

/// The record that `encode` writes, as JSON; another parser checks that it is JSON.
fn json(instrument: &Instrument, encode: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut record = Vec::new();
    encode(&mut record);
    let mut out = String::new();
    push_record(&record, instrument, &mut out);
    serde_json::from_str::<Value>(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
    out
}

/// The beginning of every record of [`header`].
fn opening(kind: &str) -> String {
    format!(r#"{{"type":"{kind}","symbol":"BTC-USD","sequence":5,"ts_event":{TS},"ts_recv":{}"#, TS + 9)
}

#[test]
fn quotes_and_trades_match_the_protocol() {
    let quote = Quote { bid_px: 6_183_763, bid_sz: 378_826, ask_px: PRICE_NONE, ask_sz: -5 };
    assert_eq!(
        json(&btc(), |out| quote.encode(&header(RecordKind::Quote, flags::LAST), out)),
        opening("quote") + r#","bid_px":"61837.63","bid_sz":"3.78826","ask_px":null,"ask_sz":"-0.00005"}"#
    );
    let trade = Trade { px: 1, sz: i64::MAX, trade_id: u64::MAX, side: Side::Unknown };
    assert_eq!(
        json(&btc(), |out| trade.encode(&header(RecordKind::Trade, flags::LAST), out)),
        opening("trade") + r#","px":"0.01","sz":"92233720368547.75807","trade_id":18446744073709551615,"side":"N"}"#
    );
}

#[test]
fn ticker_turnover_is_at_the_price_exponent() {
    let [last_px, open_px, high_px, low_px, volume, turnover, bid_px, ask_px] = [1, 2, 3, 4, 5, 600, PRICE_NONE, 8];
    let ticker = Ticker { last_px, open_px, high_px, low_px, volume, turnover, bid_px, ask_px };
    assert_eq!(
        json(&btc(), |out| ticker.encode(&header(RecordKind::Ticker, flags::LAST), out)),
        opening("ticker")
            + r#","last_px":"0.01","open_px":"0.02","high_px":"0.03","low_px":"0.04","volume":"0.00005","turnover":"6.00""#
            + r#","bid_px":null,"ask_px":"0.08"}"#
    );
}

#[test]
fn book_lists_each_side_in_the_order_of_the_record() {
    let level = |px, sz, side| Level { px, sz, side };
    let levels = [
        level(101, 7, BookSide::Ask),
        level(99, 5, BookSide::Bid),
        level(102, 0, BookSide::Ask),
        level(98, 6, BookSide::Bid),
    ];
    assert_eq!(
        json(&btc(), |out| encode_book(
            &header(RecordKind::Book, flags::LAST),
            BookAction::Delta,
            levels.into_iter(),
            out
        )),
        opening("book")
            + r#","kind":"D","bids":[["0.99","0.00005"],["0.98","0.00006"]],"asks":[["1.01","0.00007"],["1.02","0.00000"]]}"#
    );
    assert_eq!(
        json(&btc(), |out| encode_book(
            &header(RecordKind::Book, flags::LAST),
            BookAction::Snapshot,
            [].into_iter(),
            out
        )),
        opening("book") + r#","kind":"S","bids":[],"asks":[]}"#
    );
}

#[test]
fn raw_payload_is_hex_without_padding() {
    assert_eq!(
        json(&btc(), |out| encode_raw(&header(RecordKind::Raw, flags::LAST), &[0, 0x0f, 0xa0, 0xff], out)),
        opening("raw") + r#","payload_hex":"000fa0ff"}"#
    );
    let empty = json(&btc(), |out| encode_raw(&header(RecordKind::Raw, flags::LAST), &[], out));
    assert_eq!(empty, opening("raw") + r#","payload_hex":""}"#);
}

#[test]
fn definition_has_the_fields_of_the_record() {
    let mut defined = btc();
    defined.tick_size = 1;
    assert_eq!(
        json(&defined, |out| encode_definition(&defined, out)),
        r#"{"type":"definition","symbol":"BTC-USD","sequence":0,"ts_event":0,"ts_recv":0,"venue":"sim","px_exp":-2,"sz_exp":-5,"status":"T","tick_size":"0.01","lot_size":null}"#
    );
    let mut out = String::new();
    push_instrument(&defined, &mut out);
    assert_eq!(
        out,
        r#"{"instrument":7,"symbol":"BTC-USD","venue":"sim","px_exp":-2,"sz_exp":-5,"status":"T","tick_size":"0.01","lot_size":null}"#
    );
}

#[test]
fn gaps_states_and_heartbeats_match_the_protocol() {
    let gap = Gap {
        instrument: 7,
        channel: Channel::Trade,
        from_sequence: Sequence::new(3),
        to_sequence: Sequence::new(u64::MAX),
        reason: GapReason::Overrun,
    };
    assert_eq!(
        json(&btc(), |out| gap.encode(TS, out)),
        format!(
            r#"{{"type":"gap","symbol":"BTC-USD","sequence":0,"ts_event":0,"ts_recv":{TS},"from_sequence":3,"to_sequence":18446744073709551615,"channel":"trade","reason":"O"}}"#
        )
    );
    let status = header(RecordKind::Status, flags::LAST);
    assert_eq!(
        json(&btc(), |out| encode_status(&status, FeedState::Halted, out)),
        opening("status") + r#","state":"H"}"#
    );
    let of_feed = RecordHeader { instrument: 0, ..status };
    assert!(!json(&NO_INSTRUMENT, |out| encode_status(&of_feed, FeedState::Live, out)).contains("symbol"));
    assert_eq!(
        json(&NO_INSTRUMENT, |out| encode_heartbeat(TS, out)),
        format!(r#"{{"type":"heartbeat","sequence":0,"ts_event":0,"ts_recv":{TS}}}"#)
    );
}

#[test]
fn flags_are_words_and_left_out_if_empty() {
    let quote = Quote { bid_px: 0, bid_sz: 0, ask_px: 0, ask_sz: 0 };
    for (set, words) in [
        (flags::LAST, ""),
        (flags::LAST | flags::SNAPSHOT | flags::CONFLATED, r#","flags":["snapshot","conflated"]"#),
        (flags::LAST | flags::DELAYED, r#","flags":["delayed"]"#),
        (flags::LAST | flags::MAYBE_BAD_BOOK, r#","flags":["maybe_bad_book"]"#),
        (flags::LAST | flags::COMPUTED, r#","flags":["computed"]"#),
        (0, r#","flags":["more"]"#),
        (0x7f, r#","flags":["more","snapshot","conflated","delayed","maybe_bad_book","computed"]"#),
    ] {
        let text = json(&btc(), |out| quote.encode(&header(RecordKind::Quote, set), out));
        assert!(text.starts_with(&(opening("quote") + words + ",\"bid_px\"")), "{set:#04x}: {text}");
    }
}

#[test]
fn unknown_kind_keeps_the_fields_of_the_header() {
    let mut record = Vec::new();
    encode_heartbeat(TS, &mut record);
    record[2] = 77;
    let mut out = String::new();
    push_record(&record, &NO_INSTRUMENT, &mut out);
    assert_eq!(out, format!(r#"{{"type":"unknown","sequence":0,"ts_event":0,"ts_recv":{TS}}}"#));
}

#[test]
#[should_panic(expected = "record of 32 bytes in 40")]
fn more_than_one_record_panics() {
    let mut record = Vec::new();
    encode_heartbeat(TS, &mut record);
    record.extend([0; 8]);
    push_record(&record, &NO_INSTRUMENT, &mut String::new());
}

proptest! {
    #[test]
    fn another_parser_reads_any_text_and_number(
        symbol: String, venue: String, status: u8, mantissas: [i64; 4], px_exp: i8, sz_exp: i8,
    ) {
        let instrument = Instrument { symbol, venue, status: status.into(), ..Instrument::new(1, "", "", px_exp, sz_exp) };
        let [bid_px, bid_sz, ask_px, ask_sz] = mantissas;
        let quote = Quote { bid_px, bid_sz, ask_px, ask_sz };
        let text = json(&instrument, |out| quote.encode(&header(RecordKind::Quote, flags::LAST), out));
        let read: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(read["symbol"].as_str(), Some(instrument.symbol.as_str()));
        prop_assert_eq!(decimal::parse(read["bid_px"].as_str().unwrap(), px_exp), Ok(bid_px));
        prop_assert_eq!(decimal::parse(read["ask_sz"].as_str().unwrap(), sz_exp), Ok(ask_sz));

        let mut listed = String::new();
        push_instrument(&instrument, &mut listed);
        let read: Value = serde_json::from_str(&listed).unwrap();
        prop_assert_eq!(read["venue"].as_str(), Some(instrument.venue.as_str()));
        prop_assert_eq!(&read["status"], &Value::from(char::from(status).to_string()));
    }
}
