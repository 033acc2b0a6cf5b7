//! Runs a source with a clock that the test sets, and reads its records as a client does.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rust_decimal::Decimal;
use tickcast::ingest::feed::replay::{self, Params, Replay};
use tickcast::ingest::source::{Batch, Next, Report, SOURCE_BATCH_BYTES_MAX, Source, Times};
use tickcast_protocol::record::{self, Level, Quote, RecordHeader, Ticker, Trade, flags};
use tickcast_protocol::{Book, BookAction, Instrument, RecordKind, decimal};

/// A record, and the time at which the feed delivered it.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedRecord {
    pub at_ns: u64,
    pub header: RecordHeader,
    /// The whole record, header included.
    pub bytes: Vec<u8>,
}

impl FeedRecord {
    pub fn kind(&self) -> RecordKind {
        RecordKind::from_wire(self.header.kind).expect("a known kind")
    }

    pub fn trade(&self) -> Trade {
        Trade::read(&self.bytes).expect("a complete trade")
    }

    pub fn quote(&self) -> Quote {
        Quote::read(&self.bytes).expect("a complete quote")
    }

    pub fn ticker(&self) -> Ticker {
        Ticker::read(&self.bytes).expect("a complete ticker")
    }

    pub fn definition(&self) -> Instrument {
        record::read_definition(&self.bytes).expect("a complete definition")
    }

    /// Action and levels.
    pub fn book(&self) -> (BookAction, Vec<Level>) {
        let (action, levels) = record::read_book(&self.bytes).expect("a complete book");
        (action, levels.collect())
    }

    /// Action, flags and levels (side, size, price) as a short text.
    pub fn book_text(&self) -> String {
        let (action, levels) = self.book();
        let bad = if self.header.flags & flags::MAYBE_BAD_BOOK != 0 { "?" } else { "" };
        let levels: Vec<_> = levels.iter().map(|l| format!("{}{}@{}", l.side, l.sz, l.px)).collect();
        format!("{action}{bad} {}", levels.join(" ")).trim_end().to_owned()
    }
}

/// Opens a replay of `files` with the parameters of `query`.
pub fn open(files: &[PathBuf], query: &str) -> Replay {
    let names: Vec<_> = files.iter().map(|file| file.to_str().expect("a path in UTF-8")).collect();
    let params = Params::parse(&format!("{}?{query}", names.join(","))).expect("valid parameters");
    Replay::open(&params).expect("a recording")
}

/// Opens a replay of files of any kind with the parameters of `query`.
pub fn try_open(files: &[PathBuf], query: &str) -> Result<Box<dyn Source>, String> {
    let names: Vec<_> = files.iter().map(|file| file.to_str().expect("a path in UTF-8")).collect();
    let params = Params::parse(&format!("{}?{query}", names.join(",")))?;
    replay::open(&params).map_err(|error| error.to_string())
}

/// All records of a replay of files of any kind, and its counters.
pub fn play_to_end(files: &[PathBuf], query: &str) -> (Vec<FeedRecord>, Report) {
    let mut source = try_open(files, query).unwrap_or_else(|error| panic!("{error}"));
    let all = run(source.as_mut(), 1, u64::MAX);
    assert_eq!(source.report().records, all.len() as u64);
    (all, source.report())
}

/// Calls the source until it ends or is due after `until_ns`. The clock starts at `start_ns` and jumps to the next
/// deadline.
pub fn run(source: &mut dyn Source, start_ns: u64, until_ns: u64) -> Vec<FeedRecord> {
    let mut now_ns = start_ns;
    let mut all = Vec::new();
    let mut batch = Batch::default();
    loop {
        batch.clear();
        let next = source.receive(Times::at(now_ns), &mut batch).expect("no error");
        all.extend(record::records(&batch.records).map(|(header, record)| FeedRecord {
            at_ns: now_ns,
            header,
            bytes: record.to_vec(),
        }));
        match next {
            Next::Now | Next::Paced => {}
            Next::At(at_ns) if at_ns > until_ns => return all,
            Next::At(at_ns) => {
                assert!(at_ns > now_ns, "due at {at_ns}, called at {now_ns}");
                now_ns = at_ns;
            }
            Next::Ended => {
                assert!(batch.records.is_empty(), "no records come with the end");
                return all;
            }
        }
    }
}

/// All records of a replay at full speed, and its counters.
pub fn run_to_end(files: &[PathBuf], query: &str) -> (Vec<FeedRecord>, Report) {
    let mut replay = open(files, query);
    let all = run(&mut replay, 1, u64::MAX);
    assert_eq!(replay.report().records, all.len() as u64);
    (all, replay.report())
}

/// The state of an instrument for a client that has received every record.
#[derive(Debug)]
pub struct InstrumentState {
    pub instrument: Instrument,
    pub book: Book,
    pub book_is_bad: bool,
    pub quotes: usize,
    pub last_quote: Option<Quote>,
    pub trades: Vec<Trade>,
    pub tickers: Vec<Ticker>,
    /// Book records of either kind.
    pub snapshots: usize,
    pub deltas: usize,
}

impl InstrumentState {
    /// A price as a decimal.
    pub fn px(&self, mantissa: i64) -> Decimal {
        Decimal::from_i128_with_scale(mantissa.into(), self.instrument.px_exp.unsigned_abs().into()).normalize()
    }

    /// A size as a decimal.
    pub fn sz(&self, mantissa: i64) -> Decimal {
        Decimal::from_i128_with_scale(mantissa.into(), self.instrument.sz_exp.unsigned_abs().into()).normalize()
    }

    /// One side of the book as decimals.
    pub fn side(&self, levels: impl Iterator<Item = (i64, i64)>) -> BTreeMap<Decimal, Decimal> {
        levels.map(|(px, sz)| (self.px(px), self.sz(sz))).collect()
    }

    /// Another definition: what is kept is carried over to its exponents, exactly.
    fn define_again(&mut self, to: Instrument) {
        let from = std::mem::replace(&mut self.instrument, to);
        let to = &self.instrument;
        assert_eq!(from.symbol, to.symbol, "an instrument keeps its name");
        let px = |px: i64| decimal::rescale(px, from.px_exp, to.px_exp).expect("a price that fits");
        let sz = |sz: i64| decimal::rescale(sz, from.sz_exp, to.sz_exp).expect("a size that fits");
        let levels = self.book.levels(self.book.len()).into_iter();
        let levels: Vec<_> = levels.map(|level| Level { px: px(level.px), sz: sz(level.sz), ..level }).collect();
        self.book.apply(BookAction::Snapshot, levels.into_iter());
        for trade in &mut self.trades {
            (trade.px, trade.sz) = (px(trade.px), sz(trade.sz));
        }
        // The next ones come at the new exponents.
        self.last_quote = None;
        self.tickers.clear();
    }

    fn accept(&mut self, record: &FeedRecord) {
        match record.kind() {
            RecordKind::Quote => {
                self.quotes += 1;
                self.last_quote = Some(record.quote());
            }
            RecordKind::Trade => self.trades.push(record.trade()),
            RecordKind::Ticker => self.tickers.push(record.ticker()),
            RecordKind::Book => {
                let (action, levels) = record.book();
                if action == BookAction::Snapshot {
                    self.snapshots += 1;
                    self.book_is_bad = record.header.flags & flags::MAYBE_BAD_BOOK != 0;
                } else {
                    assert!(!self.book_is_bad && self.snapshots > 0, "a change without a valid snapshot before it");
                    self.deltas += 1;
                }
                self.book.apply(action, levels.into_iter());
            }
            other => panic!("a feed sends no {other:?}"),
        }
    }
}

/// Reads a stream as a client does: the state of each instrument by symbol. Asserts that every record is well-formed and
/// comes after its definition.
pub fn instrument_states(stream: &[FeedRecord]) -> BTreeMap<String, InstrumentState> {
    let mut states: Vec<InstrumentState> = Vec::new();
    for record in stream {
        let FeedRecord { header, bytes, .. } = record;
        assert!(bytes.len() < SOURCE_BATCH_BYTES_MAX * 32 && header.sequence.is_none() && header.ts_recv == 0);
        let index = header.instrument as usize;
        if record.kind() == RecordKind::Definition {
            if let Some(known) = states.get_mut(index - 1) {
                known.define_again(record.definition());
                continue;
            }
            assert_eq!(index, states.len() + 1, "ids are dense and in the order of the definitions");
            states.push(InstrumentState {
                instrument: record.definition(),
                book: Book::default(),
                book_is_bad: false,
                quotes: 0,
                last_quote: None,
                trades: Vec::new(),
                tickers: Vec::new(),
                snapshots: 0,
                deltas: 0,
            });
        } else {
            record::check(bytes).expect("a record that a publisher may send");
            states.get_mut(index - 1).expect("a definition before the first record").accept(record);
        }
    }
    states.into_iter().map(|state| (state.instrument.symbol.clone(), state)).collect()
}
