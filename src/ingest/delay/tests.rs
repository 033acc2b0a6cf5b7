use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::files::{Spool, SpoolError, SpoolSettings};
use super::source::DelayedSource;
use super::spool::SpoolWriter;
use crate::ingest::source::{Batch, Next, Source, SourceError, Times};
use crate::ring::{self, ring};
use crate::sequencer::Sequencer;
use tickcast_protocol::record::{self, Quote, RecordHeader, Trade, flags};
use tickcast_protocol::{FeedState, Instrument, RecordKind, Side};

const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;
const START: u64 = 1_800_000_000 * SECOND;
const DELAY: u64 = 2 * SECOND;
const EPOCH: u32 = 7;

/// A live market with one source, and its spool.
struct Live {
    sequencer: Sequencer,
    writer: SpoolWriter<Box<dyn Fn() -> bool>>,
    spool: Arc<Spool>,
    resyncs: Arc<AtomicUsize>,
    next_trade: u64,
}

fn settings(directory: &Path, bytes_max: u64) -> SpoolSettings {
    let delay = Duration::from_nanos(DELAY);
    let conflate = Duration::ZERO;
    SpoolSettings { directory: directory.to_owned(), bytes_max, conflate, shortest_delay: delay, longest_delay: delay }
}

impl Live {
    fn begin(directory: &Path, epoch: u32, ring_bytes: usize, bytes_max: u64, now_ns: u64) -> Self {
        Self::of(settings(directory, bytes_max), epoch, ring_bytes, now_ns)
    }

    fn of(settings: SpoolSettings, epoch: u32, ring_bytes: usize, now_ns: u64) -> Self {
        let spool = Arc::new(Spool::open(settings).unwrap());
        let (writer, reader): (ring::Writer, _) = ring(ring_bytes);
        let resyncs = Arc::new(AtomicUsize::new(0));
        let requested = resyncs.clone();
        let request: Box<dyn Fn() -> bool> = Box::new(move || {
            requested.fetch_add(1, Ordering::Relaxed);
            true
        });
        let writer_of_spool = SpoolWriter::new(spool.clone(), reader, epoch, request);
        let mut live = Self {
            sequencer: Sequencer::new(vec![writer], 100),
            writer: writer_of_spool,
            spool,
            resyncs,
            next_trade: 1,
        };
        let mut batch = Vec::new();
        record::encode_definition(&Instrument::new(1, "BTC-USD", "v", -2, -2), &mut batch);
        live.sequencer.accept(1, &mut batch, now_ns);
        live
    }

    /// A quote and a trade with the next id.
    fn trade(&mut self, now_ns: u64) {
        let id = self.next_trade;
        self.next_trade += 1;
        let mut batch = Vec::new();
        let quote = RecordHeader::of_feed(RecordKind::Quote, 1, now_ns).with_flags(flags::LAST);
        Quote { bid_px: id as i64, bid_sz: 1, ask_px: id as i64 + 1, ask_sz: 1 }.encode(&quote, &mut batch);
        let trade = RecordHeader::of_feed(RecordKind::Trade, 1, now_ns).with_flags(flags::LAST);
        Trade { px: id as i64, sz: 1, trade_id: id, side: Side::Buy }.encode(&trade, &mut batch);
        self.sequencer.accept(1, &mut batch, now_ns);
    }

    /// Carries out the resynchronisations that the spool has asked for.
    fn resync(&mut self) {
        for _ in 0..self.resyncs.swap(0, Ordering::Relaxed) {
            self.sequencer.request_resync(0);
        }
        while self.sequencer.advance_resyncs() {}
    }
}

/// What came out of a delayed market's feed.
#[derive(Default)]
struct Seen {
    trades: Vec<u64>,
    quotes: Vec<i64>,
    definitions: usize,
    gaps: usize,
    stale: usize,
}

impl Seen {
    /// Reads what is due, and checks that it is.
    fn read(&mut self, source: &mut DelayedSource, times: Times) {
        loop {
            let mut batch = Batch::default();
            let next = source.receive(times, &mut batch);
            for (header, bytes) in record::records(&batch.records) {
                self.take(&header, bytes, times);
            }
            match next {
                Ok(Next::At(at_ns)) => {
                    assert!(at_ns > times.now_ns, "it is not asked in a loop");
                    return;
                }
                Ok(_) => {}
                Err(SourceError::Gap(_)) => self.gaps += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn take(&mut self, header: &RecordHeader, bytes: &[u8], times: Times) {
        match header.known_kind() {
            Some(RecordKind::Trade) => {
                assert!(header.ts_recv + DELAY <= times.now_ns, "{header:?} at {}", times.now_ns);
                let wall_ns = times.now_ns.saturating_add_signed(times.wall_offset_ns);
                assert!(header.ts_recv + DELAY <= wall_ns, "{header:?} at {wall_ns}");
                assert_ne!(header.flags & flags::DELAYED, 0);
                self.trades.push(Trade::read(bytes).unwrap().trade_id);
            }
            Some(RecordKind::Quote) => self.quotes.push(Quote::read(bytes).unwrap().bid_px),
            Some(RecordKind::Definition) => self.definitions += 1,
            Some(RecordKind::Status) => {
                self.stale += usize::from(record::read_status(bytes) == Some(FeedState::Stale));
            }
            _ => {}
        }
    }
}

#[test]
fn every_record_comes_once_in_order_and_never_before_it_is_due() {
    for seed in 1..20u64 {
        let folder = tempfile::tempdir().unwrap();
        let mut live = Live::begin(folder.path(), EPOCH, 1 << 16, u64::MAX, START);
        let mut source = DelayedSource::new(live.spool.clone(), DELAY, EPOCH);
        let (mut seen, mut now_ns, mut dice) = (Seen::default(), START, seed);
        let mut next = |most: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % most
        };
        for _ in 0..400 {
            now_ns += next(60) * MS + next(1000);
            match next(3) {
                0 => (0..next(4)).for_each(|_| live.trade(now_ns)),
                1 => live.writer.advance(now_ns),
                _ => seen.read(&mut source, Times::at(now_ns)),
            }
        }
        // What is left, step by step: a segment is written for a quarter of the delay.
        for _ in 0..80 {
            now_ns += 50 * MS;
            live.writer.advance(now_ns);
            seen.read(&mut source, Times::at(now_ns));
        }
        let all: Vec<_> = (1..live.next_trade).collect();
        assert_eq!((seen.trades, seen.gaps, seen.definitions), (all, 0, 1), "seed {seed}");
        assert!(fs::read_dir(folder.path()).unwrap().count() < 12, "segments that were played are removed");
        assert_eq!(live.spool.records_lost(), 0);
    }
}

#[test]
fn another_process_plays_what_a_crash_has_left_and_says_that_something_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let mut live = Live::begin(folder.path(), EPOCH, 1 << 16, u64::MAX, START);
    for step in 0..100 {
        let now_ns = START + step * 20 * MS;
        live.trade(now_ns);
        live.writer.advance(now_ns);
    }
    // Without the end that a server gives it. The last block is torn.
    drop(live);
    let paths = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let unfinished = paths.filter(|path| path.extension().is_some_and(|extension| extension == "part"));
    for path in unfinished {
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len().saturating_sub(3)).unwrap();
    }

    // The clock of the wall is behind that of deadlines: nothing is early by either.
    let wall_offset_ns = -300 * MS as i64;
    let times = |now_ns| Times { now_ns, wall_offset_ns, deadline_ns: now_ns };
    let mut live = Live::begin(folder.path(), EPOCH + 1, 1 << 16, u64::MAX, START + 2 * SECOND);
    let mut source = DelayedSource::new(live.spool.clone(), DELAY, EPOCH + 1);
    let mut seen = Seen::default();
    for step in 0..300 {
        let now_ns = START + 2 * SECOND + step * 20 * MS;
        if step < 50 {
            // A server stamps with the wall clock.
            live.trade(now_ns.saturating_add_signed(wall_offset_ns));
        }
        live.writer.advance(now_ns);
        seen.read(&mut source, times(now_ns));
    }
    let restart = seen.trades.iter().rposition(|trade| *trade == 1).expect("both runs begin with 1");
    let (before, after) = seen.trades.split_at(restart);
    assert!(before.len() > 40 && before.is_sorted() && before[0] == 1, "what was written before: {before:?}");
    assert_eq!(after, (1..=50).collect::<Vec<_>>(), "and all of the new run");
    assert_eq!(seen.gaps, 1, "what the crash has taken");
    assert_eq!(seen.stale, 1, "until the new run");
}

#[test]
fn market_that_begins_within_the_spool_has_the_state_from_before() {
    let folder = tempfile::tempdir().unwrap();
    let mut live = Live::begin(folder.path(), EPOCH, 1 << 16, u64::MAX, START);
    live.trade(START);
    for step in 0..200 {
        live.writer.advance(START + step * 20 * MS);
        if step == 150 {
            live.trade(START + step * 20 * MS);
        }
    }
    live.writer.close(START + 4 * SECOND);
    let mut source = DelayedSource::new(live.spool.clone(), DELAY, EPOCH);
    let mut seen = Seen::default();
    seen.read(&mut source, Times::at(START + 4 * SECOND));
    assert_eq!((seen.definitions, seen.quotes.last(), seen.gaps), (1, Some(&1), 0));
    seen.read(&mut source, Times::at(START + 6 * SECOND));
    assert_eq!((seen.quotes.last(), seen.trades.last()), (Some(&2), Some(&2)));
}

#[test]
fn records_that_the_ring_has_lost_are_a_gap_and_the_state_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut live = Live::begin(folder.path(), EPOCH, 1 << 12, u64::MAX, START);
    let mut source = DelayedSource::new(live.spool.clone(), DELAY, EPOCH);
    let mut seen = Seen::default();
    let mut now_ns = START;
    let mut step = |live: &mut Live, trades: usize| {
        now_ns += 50 * MS;
        (0..trades).for_each(|_| live.trade(now_ns));
        live.writer.advance(now_ns);
        live.resync();
        live.writer.advance(now_ns);
        seen.read(&mut source, Times::at(now_ns));
    };
    (0..10).for_each(|_| step(&mut live, 2));
    // More than the ring holds.
    step(&mut live, 200);
    (0..10).for_each(|_| step(&mut live, 2));
    let last = live.next_trade - 1;
    (0..80).for_each(|_| step(&mut live, 0));
    assert_eq!(seen.gaps, 1);
    assert_eq!((seen.trades.last(), seen.quotes.last()), (Some(&last), Some(&(last as i64))));
    assert!(seen.trades.is_sorted() && seen.trades.len() < 100, "{:?}", seen.trades);
    assert!(seen.quotes.contains(&220), "the state behind what was lost");
}

#[test]
fn quotes_are_the_newest_of_an_interval_and_trades_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    let conflate = Duration::from_millis(500);
    let mut live = Live::of(SpoolSettings { conflate, ..settings(folder.path(), u64::MAX) }, EPOCH, 1 << 16, START);
    let mut source = DelayedSource::new(live.spool.clone(), DELAY, EPOCH);
    let mut seen = Seen::default();
    for step in 0..400 {
        let now_ns = START + step * 20 * MS;
        if step < 200 {
            live.trade(now_ns);
        }
        live.writer.advance(now_ns);
        seen.read(&mut source, Times::at(now_ns));
    }
    assert_eq!((seen.trades, seen.gaps), ((1..=200).collect(), 0));
    assert!((8..=30).contains(&seen.quotes.len()), "{:?}", seen.quotes);
    assert!(seen.quotes.is_sorted() && seen.quotes.last() == Some(&200), "{:?}", seen.quotes);
}

#[test]
fn full_spool_loses_records_and_goes_on_when_old_ones_were_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mut live = Live::begin(folder.path(), EPOCH, 1 << 18, 12_000, START);
    let mut source = DelayedSource::new(live.spool.clone(), DELAY, EPOCH);
    let mut seen = Seen::default();
    let mut now_ns = START;
    let mut step = |live: &mut Live, trades: usize| {
        now_ns += 50 * MS;
        (0..trades).for_each(|_| live.trade(now_ns));
        live.writer.advance(now_ns);
        seen.read(&mut source, Times::at(now_ns));
    };
    (0..100).for_each(|_| step(&mut live, 20));
    let lost = live.spool.records_lost();
    assert!(lost > 0 && live.spool.bytes() < 24_000, "{lost} lost, {} bytes", live.spool.bytes());
    (0..200).for_each(|_| step(&mut live, 0));
    step(&mut live, 1);
    let last = live.next_trade - 1;
    (0..100).for_each(|_| step(&mut live, 0));
    assert!(seen.gaps > 0);
    assert_eq!(seen.trades.last(), Some(&last));
}

#[test]
fn damaged_segment_is_a_gap_and_the_others_are_played() {
    let folder = tempfile::tempdir().unwrap();
    let mut live = Live::begin(folder.path(), EPOCH, 1 << 16, u64::MAX, START);
    for step in 0..50 {
        let now_ns = START + step * 40 * MS;
        live.trade(now_ns);
        live.writer.advance(now_ns);
    }
    live.writer.close(START + 2 * SECOND);
    let mut paths: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "tcrec"));
    paths.sort();
    assert!(paths.len() > 2, "{paths:?}");
    fs::write(&paths[1], b"this is no packet log").unwrap();
    let mut source = DelayedSource::new(live.spool.clone(), DELAY, EPOCH);
    let mut seen = Seen::default();
    seen.read(&mut source, Times::at(START + SECOND));
    seen.read(&mut source, Times::at(START + 5 * SECOND));
    assert!(seen.gaps >= 1);
    assert_eq!((seen.trades.first(), seen.trades.last()), (Some(&1), Some(&50)));
    assert!(seen.trades.len() < 50);
}

#[test]
fn directory_belongs_to_one_server_and_foreign_files_stay() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let _spool = Spool::open(settings(folder.path(), u64::MAX)).unwrap();
    let second = Spool::open(settings(folder.path(), u64::MAX));
    assert!(matches!(second, Err(SpoolError::InUse { .. })), "{second:?}");
    assert!(folder.path().join("notes.txt").exists());
    let error = Spool::open(settings(&folder.path().join("notes.txt/below"), u64::MAX)).unwrap_err().to_string();
    assert!(error.contains("expected a directory that this process may write to"), "{error}");
}
