//! The simulated market, read like any other feed: its wire records, with the test's own books and a virtual clock.

use std::collections::{HashMap, HashSet};

use tickcast::ingest::feed::sim::{Params, Shape, Sim};
use tickcast::ingest::source::{Batch, Next, SOURCE_BATCH_BYTES_MAX, Source, Times};
use tickcast_protocol::record::{self, PRICE_NONE, Quote, RecordHeader, Ticker, Trade, flags};
use tickcast_protocol::{Book, BookAction, RecordKind, Side};

const START_NS: u64 = 1_763_700_000_000_000_000;
const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// Polls until the feed has nothing more at `now_ns`; passes each batch to `each`.
fn drain(sim: &mut Sim, now_ns: u64, batch: &mut Batch, mut each: impl FnMut(&[u8])) -> u64 {
    loop {
        batch.clear();
        let next = sim.receive(Times::at(now_ns), batch).expect("no error");
        let bytes = batch.records.len();
        assert!(bytes <= SOURCE_BATCH_BYTES_MAX + 16 * 1024, "a batch of {bytes} bytes");
        each(&batch.records);
        match next {
            Next::Now => {}
            Next::At(at_ns) => return at_ns,
            other => panic!("a market never ends or waits for room: {other:?}"),
        }
    }
}

/// The whole stream up to `until_ns`, polled at the times that the feed asks for.
fn run(params: &Params, until_ns: u64, mut each: impl FnMut(&[u8])) -> Sim {
    let (mut sim, mut batch) = (Sim::new(params), Batch::default());
    let mut now_ns = START_NS;
    while now_ns <= until_ns {
        let at_ns = drain(&mut sim, now_ns, &mut batch, &mut each);
        assert!(at_ns > now_ns && (at_ns - START_NS).is_multiple_of(MS), "asks for {at_ns} at {now_ns}");
        now_ns = at_ns;
    }
    sim
}

fn stream(params: &Params, elapsed_ns: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    run(params, START_NS + elapsed_ns, |batch| bytes.extend_from_slice(batch));
    bytes
}

fn params(text: &str) -> Params {
    Params::parse(text).expect(text)
}

/// The state of one instrument, and the rules for its next record.
#[derive(Default)]
struct SimulatedInstrument {
    tick: i64,
    lot: i64,
    depth: usize,
    book: Book,
    quote: Option<Quote>,
    /// Size that trades of this event have taken at the best price.
    taken: i64,
    trade_id: Option<u64>,
    last_px: i64,
    volume: i64,
    ticker: Option<Ticker>,
    ticker_ns: u64,
    newest_ns: u64,
}

impl SimulatedInstrument {
    fn top(&self) -> Quote {
        let (bid_px, bid_sz) = self.book.bids().next().expect("a bid");
        let (ask_px, ask_sz) = self.book.asks().next().expect("an ask");
        Quote { bid_px, bid_sz, ask_px, ask_sz }
    }

    fn book(&mut self, record: &[u8]) {
        let (action, levels) = record::read_book(record).expect("a book");
        let levels: Vec<_> = levels.collect();
        assert!(!levels.is_empty() && levels.iter().all(|level| level.px > 0 && level.px % self.tick == 0));
        assert!(levels.iter().all(|level| level.sz >= 0 && level.sz % self.lot == 0), "sizes are lots");
        assert_eq!(action == BookAction::Snapshot, self.quote.is_none(), "the snapshot comes first and once");
        for level in levels.iter().filter(|level| action == BookAction::Delta && level.sz == 0) {
            assert!(self.book.size(level.side, level.px) > 0, "only existing levels are removed");
        }
        self.book.apply(action, levels.into_iter());
        assert_eq!((self.book.bids().count(), self.book.asks().count()), (self.depth, self.depth));
        let top = self.top();
        let spread = (top.ask_px - top.bid_px) / self.tick;
        assert!((1..=3).contains(&spread), "a spread of {spread} ticks");
    }

    fn trade(&mut self, record: &[u8]) {
        let trade = Trade::read(record).expect("a trade");
        let top = self.top();
        let (px, rests) = match trade.side {
            Side::Buy => (top.ask_px, top.ask_sz),
            Side::Sell => (top.bid_px, top.bid_sz),
            other => panic!("side {other:?}"),
        };
        assert_eq!(trade.px, px, "a trade is at the best price");
        self.taken += trade.sz;
        assert!(
            trade.sz > 0 && trade.sz % self.lot == 0 && self.taken <= rests,
            "no more than the size at the best price"
        );
        if let Some(before) = self.trade_id.replace(trade.trade_id) {
            assert_eq!(trade.trade_id, before + 1);
        }
        self.last_px = trade.px;
        self.volume += trade.sz;
    }

    fn ticker(&mut self, record: &[u8], ts_event: u64) {
        let ticker = Ticker::read(record).expect("a ticker");
        let top = self.top();
        assert_eq!((ticker.bid_px, ticker.ask_px), (top.bid_px, top.ask_px));
        assert!(ticker.low_px <= ticker.open_px.min(ticker.last_px) && ticker.low_px > 0);
        assert!(ticker.high_px >= ticker.open_px.max(ticker.last_px));
        for mantissa in [ticker.high_px, ticker.volume, ticker.turnover] {
            assert!((1..1 << 53).contains(&mantissa), "{ticker:?}");
        }
        if let Some(before) = self.ticker.replace(ticker) {
            assert_eq!(ticker.last_px, self.last_px);
            assert_eq!(ticker.volume - before.volume, self.volume, "volume is the sum of the trades in between");
            assert!(ticker.turnover > before.turnover && ticker.open_px == before.open_px);
            assert!(self.ticker_ns == START_NS || ts_event >= self.ticker_ns + SECOND, "at most one a second");
        }
        (self.ticker_ns, self.volume) = (ts_event, 0);
    }
}

/// Checks a stream record by record.
#[derive(Default)]
struct Checker {
    depth: usize,
    instruments: HashMap<u32, SimulatedInstrument>,
    symbols: HashSet<String>,
    /// Instrument and time of the event without its LAST record yet.
    open: Option<(u32, u64)>,
    /// The kinds of the open event's records, a digit each.
    kinds_of_event: String,
    newest_ns: u64,
    counts: HashMap<u8, u64>,
}

impl Checker {
    fn batch(&mut self, batch: &[u8]) {
        let mut bytes = 0;
        for (header, record) in record::records(batch) {
            bytes += record.len();
            assert_eq!((header.sequence.get(), header.ts_recv), (0, 0), "these are set by the sequencer");
            if header.kind == RecordKind::Definition as u8 {
                self.define(record);
            } else {
                record::check(record).expect("a well-formed record");
                self.record(header, record);
            }
        }
        assert_eq!(bytes, batch.len(), "whole records");
        assert_eq!(self.open, None, "a batch does not split an event");
    }

    fn define(&mut self, record: &[u8]) {
        let defined = record::read_definition(record).expect("a definition");
        assert_eq!(defined.id as usize, self.instruments.len() + 1, "local ids are dense");
        assert!(defined.tick_size > 0 && defined.lot_size > 0 && defined.tick_size != PRICE_NONE);
        let (tick, lot, depth) = (defined.tick_size, defined.lot_size, self.depth);
        self.instruments.insert(defined.id, SimulatedInstrument { tick, lot, depth, ..SimulatedInstrument::default() });
        assert!(self.symbols.insert(defined.symbol));
    }

    fn record(&mut self, header: RecordHeader, record: &[u8]) {
        let event = (header.instrument, header.ts_event);
        assert_eq!(*self.open.get_or_insert(event), event, "an event has one instrument and one time");
        assert!(header.ts_event >= self.newest_ns, "time does not decrease");
        self.newest_ns = header.ts_event;
        *self.counts.entry(header.kind).or_default() += 1;
        let instrument = self.instruments.get_mut(&header.instrument).expect("defined before its use");
        instrument.newest_ns = header.ts_event;
        match RecordKind::from_wire(header.kind).expect("a kind") {
            RecordKind::Book => instrument.book(record),
            RecordKind::Trade => instrument.trade(record),
            RecordKind::Ticker => instrument.ticker(record, header.ts_event),
            RecordKind::Quote => {
                let quote = Quote::read(record);
                assert_eq!(quote, Some(instrument.top()), "a quote is the top of the book");
                assert_ne!(quote, instrument.quote, "every quote is a change");
                instrument.quote = quote;
            }
            other => panic!("{other:?} from this feed"),
        }
        self.kinds_of_event.push(char::from(b'0' + header.kind));
        if header.flags == flags::LAST {
            self.end_event(header.instrument);
        } else {
            assert_eq!(header.flags, 0);
        }
    }

    /// An event is trades, one book record, and perhaps a quote and a ticker, with LAST on the last one only.
    fn end_event(&mut self, id: u32) {
        let rest = self.kinds_of_event.trim_start_matches('2');
        assert!(matches!(rest, "4" | "41" | "43" | "413"), "an event of {:?}", self.kinds_of_event);
        let instrument = self.instruments.get_mut(&id).expect("it was just used");
        assert_eq!(instrument.quote, Some(instrument.top()), "every change of the best prices has a quote");
        instrument.taken = 0;
        self.open = None;
        self.kinds_of_event.clear();
    }
}

fn check(text: &str, elapsed_ns: u64) -> Checker {
    let params = params(text);
    let mut checker = Checker { depth: params.depth as usize, ..Checker::default() };
    let sim = run(&params, START_NS + elapsed_ns, |batch| checker.batch(batch));
    let definitions = checker.instruments.len() as u64;
    assert_eq!(definitions, u64::from(params.instruments));
    assert_eq!(sim.report().records, checker.counts.values().sum::<u64>() + definitions);
    checker
}

#[test]
fn records_of_a_minute_are_consistent() {
    let checker = check("", 60 * SECOND);
    let quiet = checker.instruments.values().map(|instrument| instrument.newest_ns).min().expect("instruments");
    assert!(checker.newest_ns - quiet < 3 * SECOND, "every instrument had an event in the last seconds");
    let all = checker.counts.values().sum::<u64>() as f64;
    let share = |kind: RecordKind| (checker.counts[&(kind as u8)] as f64 / all * 100.0).round() as u64;
    println!(
        "{:?}",
        [RecordKind::Quote, RecordKind::Book, RecordKind::Trade, RecordKind::Ticker].map(|kind| (kind, share(kind)))
    );
    assert!((38..=48).contains(&share(RecordKind::Quote)) && (38..=48).contains(&share(RecordKind::Book)));
    assert!((12..=20).contains(&share(RecordKind::Trade)), "{} % trades", share(RecordKind::Trade));
    assert!(checker.counts[&(RecordKind::Ticker as u8)] > 50 * 200, "about one a second and instrument");
}

#[test]
fn records_of_other_parameters_are_consistent() {
    check("instruments=3,depth=1,rate=20000,seed=2", 10 * SECOND);
    check("instruments=40,depth=100,rate=20000,seed=3,shape=even", 5 * SECOND);
    check("instruments=1,rate=50000,seed=4", 5 * SECOND);
    check("instruments=20000,rate=20000,seed=5", SECOND);
}

#[test]
fn stream_begins_with_definitions_then_states() {
    let bytes = stream(&params("instruments=50"), 0);
    let kinds: Vec<u8> = record::records(&bytes).map(|(header, _)| header.kind).collect();
    assert!(kinds[..50].iter().all(|&kind| kind == RecordKind::Definition as u8));
    assert!(kinds[50..].chunks(3).all(|state| state == [4, 1, 3]), "book, quote, ticker");
    assert_eq!(kinds.len(), 200);
}

#[test]
fn seed_determines_the_bytes() {
    let once = stream(&params("seed=9"), 3 * SECOND);
    assert!(once == stream(&params("seed=9"), 3 * SECOND));
    let other = stream(&params("seed=10"), 3 * SECOND);
    let both = |kind: RecordKind| {
        let of_kind = |bytes: &[u8]| -> Vec<Vec<u8>> {
            let records = record::records(bytes).filter(|(header, _)| header.kind == kind as u8);
            records.take(200).map(|(_, record)| record.to_vec()).collect()
        };
        (of_kind(&once), of_kind(&other))
    };
    let (definitions, others) = both(RecordKind::Definition);
    assert!(definitions == others, "the names are the same");
    // The first 200 quotes are the initial states, with equal times: only prices and sizes differ.
    let (quotes, others) = both(RecordKind::Quote);
    assert!(quotes != others);
    let times = |bytes: &[u8]| record::records(bytes).skip(800).map(|(header, _)| header.ts_event).collect::<Vec<_>>();
    assert!(times(&once) != times(&other), "the times of the events differ");
}

#[test]
fn times_of_polls_do_not_change_the_bytes() {
    let text = "seed=11,rate=40000";
    let (mut sim, mut batch) = (Sim::new(&params(text)), Batch::default());
    let (mut ragged, mut now_ns) = (Vec::new(), START_NS);
    // From 1 ns to 0.95 s late, across a storm.
    for step in [0, 1, 999_999, 17, 3 * MS, 950 * MS, 1, 333_333_333, 900 * MS, 5 * MS].into_iter().cycle().take(60) {
        now_ns += step;
        drain(&mut sim, now_ns, &mut batch, |bytes| ragged.extend_from_slice(bytes));
    }
    assert_eq!(sim.shifted_ns(), 0);
    let mut steady = stream(&params(text), now_ns - START_NS);
    // The steady run stops at the last millisecond that it asked for; the rest is not compared.
    assert!(ragged.len() >= steady.len());
    steady.extend_from_slice(&ragged[steady.len()..]);
    assert!(ragged == steady);
    let surplus = record::records(&ragged).filter(|(header, _)| header.ts_event > now_ns).count();
    assert_eq!(surplus, 0);
}

#[test]
fn late_poll_catches_up_and_very_late_poll_drops_the_backlog() {
    let (mut sim, mut batch) = (Sim::new(&params("rate=100000,shape=even")), Batch::default());
    let mut now_ns = drain(&mut sim, START_NS, &mut batch, |_| {});
    let mut batches = 0;
    now_ns += 900 * MS;
    drain(&mut sim, now_ns, &mut batch, |_| batches += 1);
    assert!(batches > 100, "900 ms are 90,000 records, in {batches} batches");
    assert_eq!(sim.shifted_ns(), 0);

    let before = sim.report().records;
    now_ns += 3600 * SECOND;
    let mut times = Vec::new();
    drain(&mut sim, now_ns, &mut batch, |bytes| {
        times.extend(record::records(bytes).map(|(header, _)| header.ts_event));
    });
    assert!(sim.report().records - before < 10, "the hour is dropped");
    assert!(sim.shifted_ns() > 3599 * SECOND && times.iter().all(|&ts_event| ts_event == now_ns));
}

#[test]
fn nothing_is_due_if_the_clock_stops_or_goes_back() {
    let (mut sim, mut batch) = (Sim::new(&params("rate=1,shape=even")), Batch::default());
    let at_ns = drain(&mut sim, START_NS, &mut batch, |_| {});
    for now_ns in [START_NS, START_NS - SECOND] {
        batch.clear();
        assert_eq!(sim.receive(Times::at(now_ns), &mut batch), Ok(Next::At(at_ns)));
        assert!(batch.records.is_empty());
    }
}

#[test]
fn rate_and_bursts_match_a_real_feed() {
    let rate = 20_000;
    let mut bins = vec![0u64; 12_000];
    run(&params("seed=1"), START_NS + 120 * SECOND, |batch| {
        for (header, _) in record::records(batch).filter(|(header, _)| header.ts_event > START_NS) {
            if let Some(bin) = bins.get_mut(((header.ts_event - START_NS) / (10 * MS)) as usize) {
                *bin += 1;
            }
        }
    });
    let total: u64 = bins.iter().sum();
    let mean = total as f64 / 120.0;
    assert!((mean / f64::from(rate) - 1.0).abs() < 0.04, "{mean} records a second");
    let busiest = *bins.iter().max().expect("bins") as f64 / (mean / 100.0);
    let second = bins.chunks(100).map(|second| second.iter().sum::<u64>()).max().expect("bins") as f64 / mean;
    println!("mean {mean}, busiest 10 ms {busiest:.1} times, busiest second {second:.2} times");
    assert!((40.0..=100.0).contains(&busiest), "busiest 10 ms: {busiest}");
    assert!((2.0..=8.0).contains(&second), "busiest second: {second}");
}

#[test]
fn activity_is_skewed_towards_the_first_instruments() {
    let mut counts = vec![0u64; 201];
    run(&params("shape=even"), START_NS + 5 * SECOND, |batch| {
        record::records(batch).for_each(|(header, _)| counts[header.instrument as usize] += 1);
    });
    let total: u64 = counts.iter().sum();
    assert!(counts[1] > 15 * counts[200], "{} against {}", counts[1], counts[200]);
    assert!(counts[1..=20].iter().sum::<u64>() * 10 > total * 4, "the first tenth has nearly half of all records");
}

#[test]
fn parameters_have_defaults_and_limits() {
    let all = params("instruments=7,rate=9,seed=18446744073709551615,depth=3,shape=even");
    assert_eq!(all, Params { instruments: 7, rate: 9, seed: u64::MAX, depth: 3, shape: Shape::Even });
    assert_eq!(params(""), Params::default());
    for (text, message) in [
        ("instruments=0", "instruments: invalid value \"0\": expected 1 to 20000"),
        ("instruments=20001", "instruments: invalid value \"20001\": expected 1 to 20000"),
        ("rate=5000001", "rate: invalid value \"5000001\": expected 1 to 5000000"),
        ("depth=101", "depth: invalid value \"101\": expected 1 to 100"),
        ("seed=-1", "seed: invalid value \"-1\": expected 0 to 18446744073709551615"),
        ("shape=spiky", "shape: invalid value \"spiky\": expected bursty or even"),
        ("speed=2", "unknown key \"speed\": expected instruments, rate, seed, depth or shape"),
        ("rate", "invalid parameter \"rate\": expected key=value"),
    ] {
        assert_eq!(Params::parse(text), Err(message.to_owned()), "{text}");
    }
}
