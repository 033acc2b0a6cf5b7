//! A feed's stream, driven by a clock of the test's own and read back as a client would.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rust_decimal::Decimal;
use tickcast::ingest::feed::replay::{Params, Replay};
use tickcast::ingest::feed::{BATCH_BYTES_MAX, Feed, Next, Report};
use tickcast_protocol::record::{self, Level, Quote, RecordHeader, Ticker, Trade, flags};
use tickcast_protocol::{Book, Instrument, RecordKind};

/// A record with the time at which it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Came {
    pub at_ns: u64,
    pub header: RecordHeader,
    pub record: Vec<u8>,
}

impl Came {
    pub fn kind(&self) -> RecordKind {
        RecordKind::from_wire(self.header.kind).expect("a known kind")
    }

    pub fn trade(&self) -> Trade {
        Trade::read(&self.record).expect("a whole trade")
    }

    pub fn quote(&self) -> Quote {
        Quote::read(&self.record).expect("a whole quote")
    }

    pub fn ticker(&self) -> Ticker {
        Ticker::read(&self.record).expect("a whole ticker")
    }

    pub fn definition(&self) -> Instrument {
        record::read_definition(&self.record).expect("a whole definition")
    }

    /// RecordKind and levels.
    pub fn book(&self) -> (char, Vec<Level>) {
        let (kind, levels) = record::read_book(&self.record).expect("a whole book");
        (char::from(kind), levels.collect())
    }

    /// RecordKind, flags and `px sz side` of each level, for short comparisons.
    pub fn book_text(&self) -> String {
        let (kind, levels) = self.book();
        let bad = if self.header.flags & flags::MAYBE_BAD_BOOK != 0 { "?" } else { "" };
        let levels: Vec<_> = levels.iter().map(|l| format!("{}{}@{}", char::from(l.side), l.sz, l.px)).collect();
        format!("{kind}{bad} {}", levels.join(" ")).trim_end().to_owned()
    }
}

/// Opens a replay of `files` with the pairs of `query`.
pub fn open(files: &[PathBuf], query: &str) -> Replay {
    let names: Vec<_> = files.iter().map(|file| file.to_str().expect("a path in UTF-8")).collect();
    let params = Params::parse(&format!("{}?{query}", names.join(","))).expect("parameters that are allowed");
    Replay::open(&params).expect("a recording")
}

/// Polls to the end, but at most until `until_ns`; the clock starts at `start_ns` and jumps to what is due.
pub fn drive(feed: &mut dyn Feed, start_ns: u64, until_ns: u64) -> Vec<Came> {
    let mut now_ns = start_ns;
    let mut all = Vec::new();
    let mut batch = Vec::new();
    loop {
        batch.clear();
        let next = feed.poll(now_ns, &mut batch);
        all.extend(record::records(&batch).map(|(header, record)| Came {
            at_ns: now_ns,
            header,
            record: record.to_vec(),
        }));
        match next {
            Next::Now | Next::Paced => {}
            Next::At(at_ns) if at_ns > until_ns => return all,
            Next::At(at_ns) => {
                assert!(at_ns > now_ns, "{at_ns} is due already at {now_ns}");
                now_ns = at_ns;
            }
            Next::Ended => {
                assert!(batch.is_empty(), "the end comes alone");
                return all;
            }
        }
    }
}

/// All records of a replay at full speed, and what it counted. Every batch is checked to be bounded.
pub fn all(files: &[PathBuf], query: &str) -> (Vec<Came>, Report) {
    let mut replay = open(files, query);
    let all = drive(&mut replay, 1, u64::MAX);
    assert_eq!(replay.report().records, all.len() as u64);
    (all, replay.report())
}

/// What a client that takes every record knows of an instrument.
#[derive(Debug)]
pub struct Known {
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

impl Known {
    /// A price as the decimal it stands for.
    pub fn px(&self, mantissa: i64) -> Decimal {
        Decimal::from_i128_with_scale(mantissa.into(), self.instrument.px_exp.unsigned_abs().into()).normalize()
    }

    /// A size as the decimal it stands for.
    pub fn sz(&self, mantissa: i64) -> Decimal {
        Decimal::from_i128_with_scale(mantissa.into(), self.instrument.sz_exp.unsigned_abs().into()).normalize()
    }

    /// One side of the book as decimals.
    pub fn side(&self, levels: impl Iterator<Item = (i64, i64)>) -> BTreeMap<Decimal, Decimal> {
        levels.map(|(px, sz)| (self.px(px), self.sz(sz))).collect()
    }

    fn take(&mut self, came: &Came) {
        match came.kind() {
            RecordKind::Quote => {
                self.quotes += 1;
                self.last_quote = Some(came.quote());
            }
            RecordKind::Trade => self.trades.push(came.trade()),
            RecordKind::Ticker => self.tickers.push(came.ticker()),
            RecordKind::Book => {
                let (kind, levels) = came.book();
                if kind == 'S' {
                    self.snapshots += 1;
                    self.book_is_bad = came.header.flags & flags::MAYBE_BAD_BOOK != 0;
                } else {
                    assert!(!self.book_is_bad && self.snapshots > 0, "a change of a book that is not there");
                    self.deltas += 1;
                }
                self.book.apply(kind as u8, levels.into_iter());
            }
            other => panic!("a feed sends no {other:?}"),
        }
    }
}

/// Reads a stream as a client would, checking on the way that every record is announced and well-formed.
pub fn know(stream: &[Came]) -> BTreeMap<String, Known> {
    let mut known: Vec<Known> = Vec::new();
    for came in stream {
        assert!(came.record.len() < BATCH_BYTES_MAX * 32 && came.header.sequence.is_none() && came.header.ts_recv == 0);
        let index = came.header.instrument as usize;
        if came.kind() == RecordKind::Definition {
            assert_eq!(index, known.len() + 1, "ids are dense and in order of appearance");
            known.push(Known {
                instrument: came.definition(),
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
            record::check(&came.record).expect("what a publisher may send");
            known.get_mut(index - 1).expect("announced before its first use").take(came);
        }
    }
    known.into_iter().map(|known| (known.instrument.symbol.clone(), known)).collect()
}
