//! One record as a JSON object.

use crate::record::{self, Gap, Level, PRICE_NONE, Quote, RecordHeader, RecordKind, Ticker, Trade, flags};
use crate::{BookSide, Instrument, InstrumentStatus, decimal};

/// For [`push_record`] of records without an instrument: heartbeats, and the state of the feed.
pub static NO_INSTRUMENT: Instrument = Instrument {
    id: 0,
    symbol: String::new(),
    venue: String::new(),
    px_exp: 0,
    sz_exp: 0,
    status: InstrumentStatus::Trading,
    tick_size: PRICE_NONE,
    lot_size: PRICE_NONE,
};

/// Appends one record as a JSON object. `instrument` is that of the record, and not used if the record has none. A record
/// of an unknown kind has the fields of the header and the type `unknown`.
///
/// # Panics
/// When `record` is not one whole record.
pub fn push_record(record: &[u8], instrument: &Instrument, out: &mut String) {
    let header = RecordHeader::read(record).expect("a whole record");
    assert!(header.bytes() == record.len(), "record of {} bytes in {}", header.bytes(), record.len());
    let kind = header.known_kind();
    push_header(&header, kind, instrument, out);
    let body = match kind {
        Some(RecordKind::Quote) => push_quote(record, instrument, out),
        Some(RecordKind::Trade) => push_trade(record, instrument, out),
        Some(RecordKind::Ticker) => push_ticker(record, instrument, out),
        Some(RecordKind::Book) => push_book(record, instrument, out),
        Some(RecordKind::Raw) => push_raw(record, out),
        Some(RecordKind::Definition) => push_definition(record, out),
        Some(RecordKind::Gap) => push_gap(record, out),
        Some(RecordKind::Status) => record::read_status(record).map(|state| push_letter("state", state, out)),
        Some(RecordKind::Heartbeat) | None => Some(()),
    };
    assert!(body.is_some(), "body of a {kind:?} is cut short");
    out.push('}');
}

/// Appends an entry of the directory as a JSON object.
pub fn push_instrument(instrument: &Instrument, out: &mut String) {
    out.push_str("{\"instrument\":");
    push_integer(instrument.id, out);
    push_name("symbol", out);
    push_text(&instrument.symbol, out);
    push_instrument_fields(instrument, out);
    out.push('}');
}

fn push_header(header: &RecordHeader, kind: Option<RecordKind>, instrument: &Instrument, out: &mut String) {
    out.push_str("{\"type\":\"");
    out.push_str(kind.map_or("unknown", type_name));
    out.push('"');
    if header.instrument != 0 {
        push_name("symbol", out);
        push_text(&instrument.symbol, out);
    }
    push_number("sequence", header.sequence.get(), out);
    push_number("ts_event", header.ts_event, out);
    push_number("ts_recv", header.ts_recv, out);
    push_flags(header.flags, out);
}

fn type_name(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Definition => "definition",
        RecordKind::Heartbeat => "heartbeat",
        RecordKind::Gap => "gap",
        RecordKind::Status => "status",
        RecordKind::Quote => "quote",
        RecordKind::Trade => "trade",
        RecordKind::Ticker => "ticker",
        RecordKind::Book => "book",
        RecordKind::Raw => "raw",
    }
}

fn push_flags(set: u8, out: &mut String) {
    const WORDS: [(u8, &str); 5] = [
        (flags::SNAPSHOT, "snapshot"),
        (flags::CONFLATED, "conflated"),
        (flags::DELAYED, "delayed"),
        (flags::MAYBE_BAD_BOOK, "maybe_bad_book"),
        (flags::COMPUTED, "computed"),
    ];
    let more = (set & flags::LAST == 0).then_some("more");
    push_flag_words(
        more.into_iter().chain(WORDS.into_iter().filter(|(flag, _)| set & flag != 0).map(|(_, word)| word)),
        out,
    );
}

/// A list of words; nothing if there are none.
pub(super) fn push_flag_words(words: impl Iterator<Item = &'static str>, out: &mut String) {
    let mut open = ",\"flags\":[\"";
    for word in words {
        out.push_str(open);
        out.push_str(word);
        open = "\",\"";
    }
    if open.starts_with('"') {
        out.push_str("\"]");
    }
}

fn push_quote(record: &[u8], instrument: &Instrument, out: &mut String) -> Option<()> {
    let quote = Quote::read(record)?;
    push_decimal("bid_px", quote.bid_px, instrument.px_exp, out);
    push_decimal("bid_sz", quote.bid_sz, instrument.sz_exp, out);
    push_decimal("ask_px", quote.ask_px, instrument.px_exp, out);
    push_decimal("ask_sz", quote.ask_sz, instrument.sz_exp, out);
    Some(())
}

fn push_trade(record: &[u8], instrument: &Instrument, out: &mut String) -> Option<()> {
    let trade = Trade::read(record)?;
    push_decimal("px", trade.px, instrument.px_exp, out);
    push_decimal("sz", trade.sz, instrument.sz_exp, out);
    push_number("trade_id", trade.trade_id, out);
    push_letter("side", trade.side, out);
    Some(())
}

fn push_ticker(record: &[u8], instrument: &Instrument, out: &mut String) -> Option<()> {
    let ticker = Ticker::read(record)?;
    let (px_exp, sz_exp) = (instrument.px_exp, instrument.sz_exp);
    push_decimal("last_px", ticker.last_px, px_exp, out);
    push_decimal("open_px", ticker.open_px, px_exp, out);
    push_decimal("high_px", ticker.high_px, px_exp, out);
    push_decimal("low_px", ticker.low_px, px_exp, out);
    push_decimal("volume", ticker.volume, sz_exp, out);
    push_decimal("turnover", ticker.turnover, px_exp, out);
    push_decimal("bid_px", ticker.bid_px, px_exp, out);
    push_decimal("ask_px", ticker.ask_px, px_exp, out);
    Some(())
}

fn push_book(record: &[u8], instrument: &Instrument, out: &mut String) -> Option<()> {
    for (key, side) in [("bids", BookSide::Bid), ("asks", BookSide::Ask)] {
        let (action, levels) = record::read_book(record)?;
        if side == BookSide::Bid {
            push_letter("kind", action, out);
        }
        push_name(key, out);
        push_levels(levels.filter(|level| level.side == side), instrument, out);
    }
    Some(())
}

fn push_levels(levels: impl Iterator<Item = Level>, instrument: &Instrument, out: &mut String) {
    out.push('[');
    let mut between = "[";
    for level in levels {
        out.push_str(between);
        push_mantissa(level.px, instrument.px_exp, out);
        out.push(',');
        push_mantissa(level.sz, instrument.sz_exp, out);
        out.push(']');
        between = ",[";
    }
    out.push(']');
}

fn push_raw(record: &[u8], out: &mut String) -> Option<()> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let payload = record::read_raw(record)?;
    push_name("payload_hex", out);
    out.push('"');
    let digits = payload.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    out.extend(digits.map(|digit| char::from(DIGITS[usize::from(digit)])));
    out.push('"');
    Some(())
}

fn push_definition(record: &[u8], out: &mut String) -> Option<()> {
    let defined = record::read_definition(record)?;
    push_instrument_fields(&defined, out);
    Some(())
}

fn push_gap(record: &[u8], out: &mut String) -> Option<()> {
    let gap = Gap::read(record)?;
    push_number("from_sequence", gap.from_sequence.get(), out);
    push_number("to_sequence", gap.to_sequence.get(), out);
    push_name("channel", out);
    push_text(gap.channel.name(), out);
    push_letter("reason", gap.reason, out);
    Some(())
}

/// The fields of an instrument except its symbol.
fn push_instrument_fields(instrument: &Instrument, out: &mut String) {
    push_name("venue", out);
    push_text(&instrument.venue, out);
    push_name("px_exp", out);
    push_integer(instrument.px_exp, out);
    push_name("sz_exp", out);
    push_integer(instrument.sz_exp, out);
    push_letter("status", instrument.status, out);
    push_decimal("tick_size", instrument.tick_size, instrument.px_exp, out);
    push_decimal("lot_size", instrument.lot_size, instrument.sz_exp, out);
}

pub(super) fn push_name(key: &str, out: &mut String) {
    out.push_str(",\"");
    out.push_str(key);
    out.push_str("\":");
}

pub(super) fn push_number(key: &str, number: u64, out: &mut String) {
    push_name(key, out);
    push_integer(number, out);
}

fn push_decimal(key: &str, mantissa: i64, exponent: i8, out: &mut String) {
    push_name(key, out);
    push_mantissa(mantissa, exponent, out);
}

fn push_mantissa(mantissa: i64, exponent: i8, out: &mut String) {
    if mantissa == PRICE_NONE {
        out.push_str("null");
        return;
    }
    out.push('"');
    decimal::format(mantissa, exponent, out);
    out.push('"');
}

fn push_letter(key: &str, letter: impl Into<u8>, out: &mut String) {
    push_name(key, out);
    push_text(char::from(letter.into()).encode_utf8(&mut [0; 4]), out);
}

pub(super) fn push_integer(value: impl itoa::Integer, out: &mut String) {
    out.push_str(itoa::Buffer::new().format(value));
}

/// Symbols hardly ever need escapes: those that do cost an allocation.
fn push_text(text: &str, out: &mut String) {
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        out.push_str(&serde_json::to_string(text).expect("a string is always JSON"));
        return;
    }
    out.push('"');
    out.push_str(text);
    out.push('"');
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
