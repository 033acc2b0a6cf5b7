//! The JSON records of the tickcast protocol, as the server sends them and as programs of its users write them.
//!
//! ```json
//! {"type":"trade","symbol":"BTC-USD","ts_event":1763700000000000000,"px":"61837.63","sz":"0.25","trade_id":9,"side":"B"}
//! ```
//!
//! A message is a record or a list of records. Prices and sizes are texts or numbers; a number keeps the digits that it is
//! written with. Exponents come from a record of the type `definition`, else from the values, as those of venues do
//! ([`scale`](crate::scale)). The fields `sequence`, `ts_recv` and `packet` are ignored, and so are the replies of a
//! server.
//!
//! Cost: one pass to keep the digits of numbers, one to parse; nothing is allocated but for levels.

use std::collections::HashMap;

use tickcast_protocol::record::{
    self, BOOK_LEVELS_MAX, Channel, Gap, Level, PRICE_NONE, RECORD_BYTES_MAX, RecordHeader, encode_book,
    encode_heartbeat, encode_raw, encode_status, flags,
};
use tickcast_protocol::{
    BookAction, FeedState, GapReason, InstrumentStatus, RecordKind, Sequence, Side, check_defined_name,
};

use crate::error::Malformed;
use crate::instruments::INSTRUMENTS_MAX;
use crate::json::{self, JsonReader, Object, Sides};
use crate::scale::{Scale, absent_if_unfit, sum};
use crate::sink::Sink;
use crate::tracked::{Kept, Tracked};

/// Bytes of the longest symbol and of the longest venue.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes of a Raw record before its payload, and of its padding.
const RAW_OVERHEAD: usize = 48;

/// Where the symbol of a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolAt<'a> {
    /// In the message itself, under this key.
    Field(&'a str),
    /// Outside of the message: all of its records are of this symbol.
    Given(&'a str),
}

/// Nothing is kept of an instrument but its exponents.
#[derive(Debug, Default)]
struct Nothing;

impl Kept for Nothing {
    fn successor(&self) -> Self {
        Self
    }

    fn rescale(&mut self, _from: Scale, _to: Scale) -> bool {
        false
    }

    fn has_book(&self) -> bool {
        false
    }

    fn clear_book(&mut self) {}

    fn restart(&mut self) {}
}

/// Reads messages, and keeps the instruments that they name.
pub struct JsonRecords {
    venue: String,
    reader: JsonReader,
    instruments: Instruments,
}

/// The instruments by their symbols.
#[derive(Default)]
struct Instruments {
    tracked: Vec<Tracked<Nothing>>,
    by_symbol: HashMap<String, usize>,
}

impl Instruments {
    fn find(&mut self, symbol: &str, venue: &str) -> Result<&mut Tracked<Nothing>, Malformed> {
        let index = match self.by_symbol.get(symbol) {
            Some(index) => *index,
            None => {
                check_name(symbol)?;
                if self.tracked.len() >= INSTRUMENTS_MAX {
                    return Err(Malformed::TooManyInstruments(INSTRUMENTS_MAX));
                }
                self.tracked.push(Tracked::new(venue.to_owned(), symbol.to_owned(), Nothing));
                self.by_symbol.insert(symbol.to_owned(), self.tracked.len() - 1);
                self.tracked.len() - 1
            }
        };
        Ok(&mut self.tracked[index])
    }
}

impl JsonRecords {
    /// `venue` is that of instruments which no message defines.
    pub fn new(venue: &str) -> Self {
        Self { venue: venue.to_owned(), reader: JsonReader::default(), instruments: Instruments::default() }
    }

    /// Takes a message. An error in one record does not affect the others; the first is returned.
    pub fn on_message(&mut self, json: &[u8], symbol: SymbolAt<'_>, sink: &mut Sink<'_>) -> Result<(), Malformed> {
        let Self { venue, reader, instruments } = self;
        reader.read_numbers_as_text(json, |document| {
            let mut take = |object: &Object<'_, '_>| take_record(object, symbol, venue, instruments, sink);
            match document.as_object() {
                Some(object) => take(&object),
                None => json::each(&document.as_array().ok_or(Malformed::NotAMessage)?, take),
            }
        })
    }

    /// Publishes the Definitions of all instruments again, for a reader that has none any more.
    pub fn announce_again(&self, sink: &mut Sink<'_>) {
        self.instruments.tracked.iter().for_each(|tracked| tracked.announce_again(sink));
    }
}

fn check_name(name: &str) -> Result<(), Malformed> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Malformed::Name { bytes: name.len(), most: NAME_BYTES_MAX });
    }
    check_defined_name(name).map_err(|error| Malformed::SymbolText { text: name.to_owned(), error })
}

fn take_record(
    object: &Object<'_, '_>,
    symbol: SymbolAt<'_>,
    venue: &str,
    instruments: &mut Instruments,
    sink: &mut Sink<'_>,
) -> Result<(), Malformed> {
    let kind = json::text(object, "type")?;
    match kind {
        "heartbeat" => {
            sink.put(|batch| encode_heartbeat(0, batch));
            return Ok(());
        }
        // Of a server's stream, to a reader of its own.
        "packet" | "welcome" | "subscribed" | "unsubscribed" | "resumed" | "pong" | "error" | "closing" => {
            sink.report.ignored += 1;
            return Ok(());
        }
        "quote" | "trade" | "ticker" | "book" | "raw" | "status" | "definition" | "gap" => {}
        _ => return Err(Malformed::Kind(kind.chars().take(40).collect())),
    }
    let symbol = match symbol {
        SymbolAt::Given(symbol) => Some(symbol),
        SymbolAt::Field(key) => json::maybe_text(object, key),
    };
    let Some(symbol) = symbol else {
        return if kind == "status" { put_status(object, 0, sink) } else { Err(Malformed::NoSymbol) };
    };
    let tracked = instruments.find(symbol, venue)?;
    match kind {
        "quote" => quote(object, tracked, sink),
        "trade" => trade(object, tracked, sink),
        "ticker" => ticker(object, tracked, sink),
        "book" => book(object, tracked, sink),
        "raw" => raw(object, tracked, sink),
        "definition" => definition(object, tracked, sink),
        "gap" => gap(object, tracked, sink),
        _ => {
            let id = tracked.define(tracked.scale_or_whole(), sink);
            put_status(object, id, sink)
        }
    }
}

fn header(object: &Object<'_, '_>, kind: RecordKind, id: u32) -> Result<RecordHeader, Malformed> {
    let ts_event = if json::has(object, "ts_event") { json::whole_u64(object, "ts_event")? } else { 0 };
    Ok(RecordHeader::of_feed(kind, id, ts_event).with_flags(flags_of(object)?))
}

fn flags_of(object: &Object<'_, '_>) -> Result<u8, Malformed> {
    let mut set = flags::LAST;
    if !json::has(object, "flags") {
        return Ok(set);
    }
    const EXPECTED: Malformed = Malformed::Type {
        key: "flags",
        expected: "a list of more, snapshot, conflated, delayed, maybe_bad_book and computed",
    };
    for word in &json::list(object, "flags")? {
        match json::as_text(word).ok_or(EXPECTED)? {
            "more" => set &= !flags::LAST,
            // The server's own business with its reader: here the record is the newest.
            "snapshot" | "conflated" => {}
            "delayed" => set |= flags::DELAYED,
            "maybe_bad_book" => set |= flags::MAYBE_BAD_BOOK,
            "computed" => set |= flags::COMPUTED,
            _ => return Err(EXPECTED),
        }
    }
    Ok(set)
}

/// The text under a key; `None` where it is missing or null.
fn value<'i>(object: &Object<'_, 'i>, key: &'static str) -> Result<Option<&'i str>, Malformed> {
    match object.get(key) {
        None => Ok(None),
        Some(value) if json::is_null(value) => Ok(None),
        Some(_) => json::text(object, key).map(Some),
    }
}

/// An absent value for a text that is absent or fits no exponents.
fn px(scale: Scale, key: &'static str, text: Option<&str>) -> Result<i64, Malformed> {
    text.map_or(Ok(PRICE_NONE), |text| absent_if_unfit(scale.px(key, text)))
}

fn sz(scale: Scale, key: &'static str, text: Option<&str>) -> Result<i64, Malformed> {
    text.map_or(Ok(PRICE_NONE), |text| absent_if_unfit(scale.sz(key, text)))
}

fn quote(object: &Object<'_, '_>, tracked: &mut Tracked<Nothing>, sink: &mut Sink<'_>) -> Result<(), Malformed> {
    let [bid_px, ask_px] = [value(object, "bid_px")?, value(object, "ask_px")?];
    let [bid_sz, ask_sz] = [value(object, "bid_sz")?, value(object, "ask_sz")?];
    let header = header(object, RecordKind::Quote, 0)?;
    let prices = [bid_px, ask_px].into_iter().flatten();
    let scale = tracked.fit(prices, [bid_sz, ask_sz].into_iter().flatten(), sink);
    let body = record::Quote {
        bid_px: px(scale, "bid_px", bid_px)?,
        bid_sz: sz(scale, "bid_sz", bid_sz)?,
        ask_px: px(scale, "ask_px", ask_px)?,
        ask_sz: sz(scale, "ask_sz", ask_sz)?,
    };
    let instrument = tracked.define(scale, sink);
    sink.put(|batch| body.encode(&RecordHeader { instrument, ..header }, batch));
    Ok(())
}

fn trade(object: &Object<'_, '_>, tracked: &mut Tracked<Nothing>, sink: &mut Sink<'_>) -> Result<(), Malformed> {
    let side = match value(object, "side")? {
        None | Some("N") => Side::Unknown,
        Some("B") => Side::Buy,
        Some("S") => Side::Sell,
        Some(_) => return Err(Malformed::Type { key: "side", expected: "\"B\", \"S\" or \"N\"" }),
    };
    let trade_id = if json::has(object, "trade_id") { json::whole_u64(object, "trade_id")? } else { 0 };
    let [price, size] = [json::text(object, "px")?, json::text(object, "sz")?];
    let header = header(object, RecordKind::Trade, 0)?;
    let scale = tracked.fit([price].into_iter(), [size].into_iter(), sink);
    let values = [px(scale, "px", Some(price))?, sz(scale, "sz", Some(size))?];
    let instrument = tracked.define(scale, sink);
    if values.contains(&PRICE_NONE) {
        // No exponents hold it beside those before it: it becomes a Gap.
        tracked.report_lost(1, sink);
        return Ok(());
    }
    let body = record::Trade { px: values[0], sz: values[1], trade_id, side };
    sink.put(|batch| body.encode(&RecordHeader { instrument, ..header }, batch));
    Ok(())
}

fn ticker(object: &Object<'_, '_>, tracked: &mut Tracked<Nothing>, sink: &mut Sink<'_>) -> Result<(), Malformed> {
    const PRICES: [&str; 6] = ["last_px", "open_px", "high_px", "low_px", "bid_px", "ask_px"];
    let mut texts = [None; PRICES.len()];
    for (text, key) in texts.iter_mut().zip(PRICES) {
        *text = value(object, key)?;
    }
    let [volume, turnover] = [value(object, "volume")?, value(object, "turnover")?];
    let header = header(object, RecordKind::Ticker, 0)?;
    // A sum has decimals that no size has.
    let sizes = volume.filter(|_| tracked.scale().is_none());
    let scale = tracked.fit(texts.iter().copied().flatten(), sizes.into_iter(), sink);
    let total = |key, text: Option<&str>, exponent| text.map_or(Ok(PRICE_NONE), |text| sum(key, text, exponent));
    let price = |nth: usize| px(scale, PRICES[nth], texts[nth]);
    let body = record::Ticker {
        last_px: price(0)?,
        open_px: price(1)?,
        high_px: price(2)?,
        low_px: price(3)?,
        volume: total("volume", volume, scale.sz_exp)?,
        turnover: total("turnover", turnover, scale.px_exp)?,
        bid_px: price(4)?,
        ask_px: price(5)?,
    };
    let instrument = tracked.define(scale, sink);
    sink.put(|batch| body.encode(&RecordHeader { instrument, ..header }, batch));
    Ok(())
}

fn book(object: &Object<'_, '_>, tracked: &mut Tracked<Nothing>, sink: &mut Sink<'_>) -> Result<(), Malformed> {
    let action = match json::text(object, "kind")? {
        "S" => BookAction::Snapshot,
        "D" => BookAction::Delta,
        _ => return Err(Malformed::Type { key: "kind", expected: "\"S\" or \"D\"" }),
    };
    let header = header(object, RecordKind::Book, 0)?;
    let sides = Sides::of(object, "bids", "asks")?;
    let mut levels: Vec<Level> = Vec::new();
    let was_suspect = action == BookAction::Delta && tracked.is_book_suspect();
    tracked.set_book_suspect(was_suspect);
    tracked.read_levels(|| sides.iter(), sink, |level, _| levels.push(level))?;
    let instrument = tracked.define(tracked.scale_or_whole(), sink);
    let suspect = if tracked.is_book_suspect() { flags::MAYBE_BAD_BOOK } else { 0 };
    let mut parts = levels.chunks(BOOK_LEVELS_MAX).peekable();
    let mut action = action;
    loop {
        let part = parts.next().unwrap_or_default();
        let last = if parts.peek().is_some() { 0 } else { header.flags & flags::LAST };
        let header = RecordHeader { instrument, flags: header.flags & !flags::LAST | last | suspect, ..header };
        sink.put(|batch| encode_book(&header, action, part.iter().copied(), batch));
        action = BookAction::Delta;
        if parts.peek().is_none() {
            return Ok(());
        }
    }
}

fn raw(object: &Object<'_, '_>, tracked: &mut Tracked<Nothing>, sink: &mut Sink<'_>) -> Result<(), Malformed> {
    const EXPECTED: Malformed = Malformed::Type {
        key: "payload_hex",
        expected: "pairs of hexadecimal digits, of a payload of at most 524232 bytes",
    };
    let text = json::text(object, "payload_hex")?.as_bytes();
    if text.len() / 2 > RECORD_BYTES_MAX - RAW_OVERHEAD || text.len() % 2 != 0 {
        return Err(EXPECTED);
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let byte = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    let payload: Option<Vec<u8>> = text.chunks_exact(2).map(byte).collect();
    let payload = payload.ok_or(EXPECTED)?;
    let header = header(object, RecordKind::Raw, 0)?;
    let instrument = tracked.define(tracked.scale_or_whole(), sink);
    sink.put(|batch| encode_raw(&RecordHeader { instrument, ..header }, &payload, batch));
    Ok(())
}

fn definition(object: &Object<'_, '_>, tracked: &mut Tracked<Nothing>, sink: &mut Sink<'_>) -> Result<(), Malformed> {
    let exponent = |key| match json::whole(object, key)? {
        exponent @ -18..=18 => Ok(exponent as i8),
        _ => Err(Malformed::Type { key, expected: "-18 to 18" }),
    };
    let scale = Scale { px_exp: exponent("px_exp")?, sz_exp: exponent("sz_exp")? };
    let status = match value(object, "status")? {
        None | Some("T") => InstrumentStatus::Trading,
        Some("H") => InstrumentStatus::Halted,
        Some("C") => InstrumentStatus::Closed,
        Some(_) => return Err(Malformed::Type { key: "status", expected: "\"T\", \"H\" or \"C\"" }),
    };
    let venue = value(object, "venue")?.unwrap_or_default();
    if !venue.is_empty() {
        check_name(venue)?;
    }
    tracked.state(venue, scale, [value(object, "tick_size")?, value(object, "lot_size")?], status, sink);
    Ok(())
}

fn gap(object: &Object<'_, '_>, tracked: &mut Tracked<Nothing>, sink: &mut Sink<'_>) -> Result<(), Malformed> {
    let channel = Channel::from_name(json::text(object, "channel")?).filter(|channel| channel.is_log());
    let channel = channel.ok_or(Malformed::Type { key: "channel", expected: "\"trade\" or \"raw\"" })?;
    let [first, last] = [json::whole_u64(object, "from_sequence")?, json::whole_u64(object, "to_sequence")?];
    if last < first {
        return Err(Malformed::Backwards { first, last });
    }
    let instrument = tracked.define(tracked.scale_or_whole(), sink);
    let (from_sequence, to_sequence) = (Sequence::new(first), Sequence::new(last));
    let gap = Gap { instrument, channel, from_sequence, to_sequence, reason: GapReason::Feed };
    sink.put(|batch| gap.encode(0, batch));
    Ok(())
}

fn put_status(object: &Object<'_, '_>, instrument: u32, sink: &mut Sink<'_>) -> Result<(), Malformed> {
    let state = match json::text(object, "state")? {
        "L" => FeedState::Live,
        "S" => FeedState::Stale,
        "H" => FeedState::Halted,
        "E" => FeedState::Ended,
        // The server's own: it decides on that.
        "R" => {
            sink.report.ignored += 1;
            return Ok(());
        }
        _ => return Err(Malformed::Type { key: "state", expected: "\"L\", \"S\", \"H\" or \"E\"" }),
    };
    let header = header(object, RecordKind::Status, instrument)?;
    sink.put(|batch| encode_status(&header, state, batch));
    Ok(())
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
