//! Recorded sessions as steps: the lines of Binance (`<receive ns> <message>`), and those of cryptofeed
//! (`<seconds>: <message>`).
//!
//! A session begins when the first book is complete. What an instrument did before its snapshot is left out, so that
//! every book is known from the start. Messages that the venue still sends in the recorded form are kept as text and sent
//! unchanged; the others are written anew: Kraken v1 as v2, and books of OKX with the sequence ids that it has today.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use rust_decimal::Decimal;
use serde_json::Value;

use super::book::{Book, Change, Side, number};
use super::instrument::{Instrument, Status};
use super::step::{Ids, Step, Trade, What};
use crate::venue::VenueKind;

/// A session that was recorded.
#[derive(Debug, Default)]
pub struct Recording {
    /// The instruments and their books at the start, with the update id.
    pub start: Vec<(Instrument, Book, Option<u64>)>,
    /// What follows, in the order of time.
    pub steps: Vec<Step>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// It cannot be read.
    #[error("{path}: {error}")]
    Unreadable { path: String, error: std::io::Error },
    /// A line has another form.
    #[error("{path}: line {line}: {problem}")]
    Line { path: String, line: usize, problem: String },
    /// There is no book in it.
    #[error("{path}: no snapshot of a book: expected a session of {venue}")]
    NoBook { path: String, venue: VenueKind },
}

/// The state of reading.
struct Reader {
    venue: VenueKind,
    by_symbol: BTreeMap<String, usize>,
    start: Vec<Started>,
    steps: Vec<Step>,
}

struct Started {
    symbol: String,
    book: Option<Book>,
    id: Option<u64>,
    /// Changes that came before the snapshot: some may be later ones.
    early: Vec<(Vec<Change>, Ids)>,
    decimals: [u32; 2],
}

impl Recording {
    /// Reads a session, up to `limit_ns` of it.
    pub fn read(venue: VenueKind, path: &Path, limit_ns: Option<u64>) -> Result<Self, RecordingError> {
        let name = || path.display().to_string();
        let unreadable = |error| RecordingError::Unreadable { path: name(), error };
        let file = BufReader::new(MultiGzDecoder::new(File::open(path).map_err(unreadable)?));
        let (by_symbol, start, steps) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut reader = Reader { venue, by_symbol, start, steps };
        let mut begin = None;
        for (nth, line) in file.lines().enumerate() {
            let line = line.map_err(unreadable)?;
            let bad = |problem: String| RecordingError::Line { path: name(), line: nth + 1, problem };
            let Some((stamp_ns, text)) = split(venue, &line) else { continue };
            let begun = *begin.get_or_insert(stamp_ns);
            if limit_ns.is_some_and(|limit_ns| stamp_ns.saturating_sub(begun) > limit_ns) {
                break;
            }
            let message: Value = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
            reader
                .take(stamp_ns, text, &message)
                .ok_or_else(|| bad("a message without a key that it has".to_owned()))?;
        }
        reader.finish().ok_or_else(|| RecordingError::NoBook { path: name(), venue })
    }
}

/// Receive time in ns, and the message; `None` for lines that were sent or say that a connection was made.
fn split(venue: VenueKind, line: &str) -> Option<(u64, &str)> {
    if venue.is_binance() {
        let (stamp, text) = line.split_once(' ')?;
        return Some((stamp.parse().ok()?, text));
    }
    let (stamp, text) = line.split_once(": ")?;
    let seconds = stamp.parse::<Decimal>().ok()?;
    let stamp_ns = seconds.checked_mul(Decimal::from(1_000_000_000_u64))?;
    Some((u64::try_from(stamp_ns.trunc()).ok()?, text))
}

impl Reader {
    fn take(&mut self, at_ns: u64, text: &str, message: &Value) -> Option<()> {
        match self.venue {
            venue if venue.is_binance() => self.binance(at_ns, text, message),
            VenueKind::Coinbase => self.coinbase(at_ns, text, message),
            VenueKind::Kraken => self.kraken(at_ns, message),
            VenueKind::Okx => self.okx(at_ns, message),
            // No session of it was recorded.
            _ => None,
        }
    }

    fn binance(&mut self, at_ns: u64, line: &str, message: &Value) -> Option<()> {
        if let Some(id) = message.get("lastUpdateId") {
            // The files have one instrument each, and the snapshot does not name it.
            let symbol = message.get("symbol").and_then(Value::as_str).map(str::to_owned);
            let symbol = symbol.or_else(|| self.start.first().map(|first| first.symbol.clone()))?;
            let changes = both(message, "bids", "asks")?;
            self.snapshot(&symbol, changes, Some(id.as_u64()?));
            return Some(());
        }
        let data = message.get("data")?;
        let symbol = data.get("s")?.as_str()?.to_owned();
        let text = |key: &str| Some(data.get(key)?.as_str()?.to_owned());
        let id = |key: &str| data.get(key).and_then(Value::as_u64);
        let what = match message.get("stream")?.as_str()?.split('@').nth(1)? {
            "depth" => {
                let ids = Ids { first: id("U")?, last: id("u")?, previous: id("pu") };
                What::Changes { changes: both(data, "b", "a")?, ids: Some(ids) }
            }
            "trade" => {
                let side = if data.get("m")?.as_bool()? { Side::Ask } else { Side::Bid };
                // Liquidations are no trades of the market.
                if data.get("X").and_then(Value::as_str).is_some_and(|kind| kind != "MARKET") {
                    return Some(());
                }
                What::Trade(Trade { id: id("t")?, px: text("p")?, sz: text("q")?, side, ts_ns: id("T")? * 1_000_000 })
            }
            "bookTicker" => What::Quote,
            _ => return Some(()),
        };
        // `{"stream":"…","data":{…}}`: the text of `data`, unchanged.
        let raw = line.split_once("\"data\":")?.1.strip_suffix('}')?;
        self.step(&symbol, at_ns, what, Some(raw.to_owned()));
        Some(())
    }

    fn coinbase(&mut self, at_ns: u64, text: &str, message: &Value) -> Option<()> {
        let word = |key: &str| message.get(key).and_then(Value::as_str);
        let kind = word("type")?;
        let raw = Some(text.to_owned());
        let Some(symbol) = word("product_id") else { return Some(()) };
        match kind {
            "snapshot" => self.snapshot(symbol, both(message, "bids", "asks")?, None),
            "l2update" => {
                let change = |change: &Value| {
                    let side = if change[0].as_str()? == "buy" { Side::Bid } else { Side::Ask };
                    Some(Change { side, px: change[1].as_str()?.to_owned(), sz: change[2].as_str()?.to_owned() })
                };
                let changes = message.get("changes")?.as_array()?.iter().map(change).collect::<Option<_>>()?;
                self.step(symbol, at_ns, What::Changes { changes, ids: None }, raw);
            }
            "match" => {
                // The side is that of the maker.
                let side = if word("side")? == "buy" { Side::Ask } else { Side::Bid };
                let id = message.get("trade_id")?.as_u64()?;
                let (px, sz) = (word("price")?.to_owned(), word("size")?.to_owned());
                self.step(symbol, at_ns, What::Trade(Trade { id, px, sz, side, ts_ns: at_ns }), raw);
            }
            "ticker" => self.step(symbol, at_ns, What::Ticker, raw),
            _ => {}
        }
        Some(())
    }

    /// `[992,{"b":[["354.15000000","5.00000000","1618678133.365913"]],"c":"2583817756"},"book-1000","XMR/USD"]`
    fn kraken(&mut self, at_ns: u64, message: &Value) -> Option<()> {
        let Some(list) = message.as_array() else { return Some(()) };
        if !list.get(list.len().checked_sub(2)?)?.as_str()?.starts_with("book-") {
            return Some(());
        }
        let symbol = list.last()?.as_str()?.replace("XBT", "BTC").replace("XDG", "DOGE");
        let (mut changes, mut is_snapshot) = (Vec::new(), false);
        for part in list.iter().filter_map(Value::as_object) {
            for (key, side) in [("bs", Side::Bid), ("b", Side::Bid), ("as", Side::Ask), ("a", Side::Ask)] {
                is_snapshot |= part.contains_key(key) && key.len() == 2;
                changes.extend(levels(part.get(key), side)?);
            }
        }
        if is_snapshot {
            self.snapshot(&symbol, changes, None);
        } else {
            self.step(&symbol, at_ns, What::Changes { changes, ids: None }, None);
        }
        Some(())
    }

    fn okx(&mut self, at_ns: u64, message: &Value) -> Option<()> {
        let (Some(arg), Some(data)) = (message.get("arg"), message.get("data")) else { return Some(()) };
        let symbol = arg.get("instId")?.as_str()?.to_owned();
        let is_snapshot = message.get("action").and_then(Value::as_str) == Some("snapshot");
        for item in data.as_array()? {
            let text = |key: &str| Some(item.get(key)?.as_str()?.to_owned());
            match arg.get("channel")?.as_str()? {
                "books" if is_snapshot => self.snapshot(&symbol, both(item, "bids", "asks")?, None),
                "books" => {
                    let changes = both(item, "bids", "asks")?;
                    self.step(&symbol, at_ns, What::Changes { changes, ids: None }, None);
                }
                "trades" => {
                    let side = if text("side")? == "buy" { Side::Bid } else { Side::Ask };
                    let id = text("tradeId")?.parse().ok()?;
                    let ts_ns = text("ts")?.parse::<u64>().ok()? * 1_000_000;
                    let trade = Trade { id, px: text("px")?, sz: text("sz")?, side, ts_ns };
                    self.step(&symbol, at_ns, What::Trade(trade), None);
                }
                _ => {}
            }
        }
        Some(())
    }

    /// Takes the first snapshot of a book; a later one is what the venue makes itself.
    fn snapshot(&mut self, symbol: &str, changes: Vec<Change>, id: Option<u64>) {
        let index = self.index(symbol);
        changes.iter().for_each(|change| self.note_decimals(index, change));
        let started = &mut self.start[index];
        if started.book.is_none() {
            let mut book = Book::default();
            changes.iter().for_each(|change| book.apply(change));
            let mut id = id;
            for (changes, ids) in started.early.drain(..) {
                if id.is_some_and(|id| ids.last > id) {
                    changes.iter().for_each(|change| book.apply(change));
                    id = Some(ids.last);
                }
            }
            (started.book, started.id) = (Some(book), id);
        }
    }

    fn step(&mut self, symbol: &str, at_ns: u64, what: What, raw: Option<String>) {
        let index = self.index(symbol);
        if let What::Changes { changes, ids } = &what {
            changes.iter().for_each(|change| self.note_decimals(index, change));
            let covered = ids.zip(self.start[index].id).is_some_and(|(ids, id)| ids.last <= id);
            if covered {
                return;
            }
        }
        if self.start[index].book.is_some() {
            self.steps.push(Step { at_ns, instrument: index, what, raw });
        } else if let What::Changes { changes, ids: Some(ids) } = what {
            self.start[index].early.push((changes, ids));
        }
    }

    fn index(&mut self, symbol: &str) -> usize {
        *self.by_symbol.entry(symbol.to_owned()).or_insert_with(|| {
            self.start.push(Started {
                symbol: symbol.to_owned(),
                book: None,
                id: None,
                early: Vec::new(),
                decimals: [0, 0],
            });
            self.start.len() - 1
        })
    }

    fn note_decimals(&mut self, index: usize, change: &Change) {
        for (most, text) in self.start[index].decimals.iter_mut().zip([&change.px, &change.sz]) {
            let decimals = text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
            *most = (*most).max(u32::try_from(decimals).unwrap_or(0));
        }
    }

    /// The session from its first step, with the instruments that have a book.
    fn finish(self) -> Option<Recording> {
        let Self { venue, start, mut steps, .. } = self;
        let first_ns = steps.first()?.at_ns;
        let mut numbers = Vec::new();
        let mut kept = Vec::new();
        for started in start {
            numbers.push(kept.len());
            let instrument = instrument(venue, &started);
            kept.extend(started.book.map(|book| (instrument, book, started.id)));
        }
        for step in &mut steps {
            step.at_ns = step.at_ns.saturating_sub(first_ns);
            step.instrument = numbers[step.instrument];
        }
        (!kept.is_empty()).then_some(Recording { start: kept, steps })
    }
}

/// The instrument of a recorded book: tick and lot are one unit of the last decimal that was seen.
fn instrument(venue: VenueKind, started: &Started) -> Instrument {
    let symbol = started.symbol.clone();
    let [px_decimals, sz_decimals] = started.decimals;
    let (base, quote) = match symbol.split_once(['-', '/']) {
        Some((base, rest)) => (base.to_owned(), rest.split('-').next().unwrap_or(rest).to_owned()),
        None => {
            let quote = if symbol.contains("USDT") { "USDT" } else { "USD" };
            (symbol.split(quote).next().unwrap_or("").to_owned(), quote.to_owned())
        }
    };
    Instrument {
        is_perpetual: venue.is_futures() || symbol.ends_with("-SWAP"),
        symbol,
        base,
        quote,
        tick: Decimal::new(1, px_decimals),
        lot: Decimal::new(1, sz_decimals),
        px_decimals,
        sz_decimals,
        is_trimmed: venue == VenueKind::Okx,
        status: Status::Trading,
    }
}

fn both(object: &Value, bids: &str, asks: &str) -> Option<Vec<Change>> {
    let mut changes = levels(object.get(bids), Side::Bid)?;
    changes.extend(levels(object.get(asks), Side::Ask)?);
    Some(changes)
}

/// `[["price","size",…],…]`; nothing if the key is absent. Sizes that are no number are left out.
fn levels(list: Option<&Value>, side: Side) -> Option<Vec<Change>> {
    let Some(list) = list else { return Some(Vec::new()) };
    let mut changes = Vec::new();
    for level in list.as_array()? {
        let (px, sz) = (level.get(0)?.as_str()?.to_owned(), level.get(1)?.as_str()?.to_owned());
        if !number(&px).is_zero() {
            changes.push(Change { side, px, sz });
        }
    }
    Some(changes)
}
