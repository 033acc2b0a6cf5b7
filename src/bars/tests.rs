use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use tickcast_protocol::Side;
use tickcast_protocol::record::PRICE_NONE;

/// The start of a minute.
const BEGAN_S: u32 = 1_700_000_040;
const SECOND_NS: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug)]
enum TradeOrQuote {
    Trade(Trade),
    Quote(Quote),
}

#[derive(Clone, Copy, Debug)]
struct BarEvent {
    instrument: u32,
    ts_recv: u64,
    payload: TradeOrQuote,
}

impl BarEvent {
    fn at_s(&self) -> u32 {
        (self.ts_recv / SECOND_NS) as u32
    }

    fn record(&self) -> Vec<u8> {
        let kind = if matches!(self.payload, TradeOrQuote::Trade(_)) { RecordKind::Trade } else { RecordKind::Quote };
        // The venue's time is 1 ns, and must not matter.
        let header = RecordHeader { ts_recv: self.ts_recv, ..RecordHeader::of_feed(kind, self.instrument, 1) };
        let mut record = Vec::new();
        match &self.payload {
            TradeOrQuote::Trade(trade) => trade.encode(&header, &mut record),
            TradeOrQuote::Quote(quote) => quote.encode(&header, &mut record),
        }
        record
    }
}

fn trade(at_s: f64, instrument: u32, px: i64, sz: i64) -> BarEvent {
    let payload = TradeOrQuote::Trade(Trade { px, sz, trade_id: 0, side: Side::Buy });
    BarEvent { instrument, ts_recv: (at_s * 1e9) as u64, payload }
}

fn quote(at_s: f64, instrument: u32, bid_px: i64, ask_px: i64) -> BarEvent {
    let payload = TradeOrQuote::Quote(Quote { bid_px, bid_sz: 1, ask_px, ask_sz: 1 });
    BarEvent { instrument, ts_recv: (at_s * 1e9) as u64, payload }
}

fn fold(bars: &mut Bars, events: &[BarEvent]) {
    events.iter().for_each(|event| bars.fold(&event.record()));
    bars.share();
}

fn bars_of(events: &[BarEvent]) -> Bars {
    let mut bars = Bars::new(1 << 20, u64::from(BEGAN_S) * SECOND_NS);
    fold(&mut bars, events);
    bars
}

fn query(interval_s: u32) -> BarQuery {
    BarQuery { interval_s, limit: 5000, to_s: u32::MAX, session: None }
}

/// The expected result of a query, computed from the list of all events.
fn expected(events: &[BarEvent], instrument: u32, bytes_max: usize, query: &BarQuery) -> FoundBars {
    let counts = |event: &&BarEvent| !matches!(event.payload, TradeOrQuote::Trade(trade) if trade.px == PRICE_NONE);
    let events: Vec<&BarEvent> = events.iter().filter(counts).collect();
    let instruments: BTreeSet<u32> = events.iter().map(|event| event.instrument).collect();
    let own = || events.iter().filter(|event| event.instrument == instrument);
    let level = INTERVALS_S.iter().rposition(|kept_s| query.interval_s.is_multiple_of(*kept_s)).unwrap();
    let kept_s = INTERVALS_S[level];
    let begin = |time_s: u32, of: u32| time_s / of * of;
    let times: BTreeSet<u32> = own().map(|event| begin(event.at_s(), kept_s)).collect();
    let gone = times.len().saturating_sub(capacity(bytes_max, instruments.len(), level));
    let last_gone = gone.checked_sub(1).and_then(|at| times.iter().nth(at)).copied();
    let mut alive: Vec<&&BarEvent> =
        own().filter(|event| last_gone.is_none_or(|gone| begin(event.at_s(), kept_s) > gone)).collect();
    // Late events count in their own bar.
    alive.sort_by_key(|event| begin(event.at_s(), kept_s));
    let of_bar = |event: &BarEvent| begin(event.at_s(), query.interval_s);
    let mut starts: Vec<u32> = alive
        .iter()
        .map(|event| of_bar(event))
        .filter(|start| *start < query.to_s)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    starts.drain(..starts.len().saturating_sub(query.limit));
    let bar = |start: &u32| {
        naive_bar(*start, alive.iter().filter(|event| of_bar(event) == *start).map(|event| &event.payload))
    };
    FoundBars {
        since_s: last_gone.map_or(BEGAN_S, |gone| (gone + kept_s).max(BEGAN_S)),
        bars: starts.iter().map(bar).collect(),
        holes: Vec::new(),
        exponents: None,
        is_seeded: true,
        has_older: last_gone.is_some(),
    }
}

fn naive_bar<'a>(time_s: u32, all: impl Iterator<Item = &'a TradeOrQuote>) -> Bar {
    let (mut trades, mut quotes) = (Vec::new(), Vec::new());
    for payload in all {
        match payload {
            TradeOrQuote::Trade(trade) => trades.push(trade),
            TradeOrQuote::Quote(quote) => quotes.push(quote),
        }
    }
    let volume: i128 = trades.iter().map(|trade| i128::from(trade.sz).max(0)).sum();
    let prices = || trades.iter().map(|trade| trade.px);
    Bar {
        time_s,
        trades: trades.len() as u32,
        open: prices().next().unwrap_or(PRICE_NONE),
        high: prices().max().unwrap_or(PRICE_NONE),
        low: prices().min().unwrap_or(PRICE_NONE),
        close: prices().next_back().unwrap_or(PRICE_NONE),
        volume: volume.min(i128::from(i64::MAX)) as i64,
        bid_px: quotes.last().map_or(PRICE_NONE, |quote| quote.bid_px),
        ask_px: quotes.last().map_or(PRICE_NONE, |quote| quote.ask_px),
        is_quoted: !quotes.is_empty(),
    }
}

fn mantissa() -> impl Strategy<Value = i64> {
    prop_oneof![8 => 1i64..1000, 1 => Just(i64::MAX), 1 => Just(PRICE_NONE), 1 => -5i64..=0]
}

fn payload() -> impl Strategy<Value = TradeOrQuote> {
    prop_oneof![
        (mantissa(), mantissa()).prop_map(|(px, sz)| TradeOrQuote::Trade(Trade {
            px,
            sz,
            trade_id: 1,
            side: Side::Unknown
        })),
        (mantissa(), mantissa()).prop_map(|(bid_px, ask_px)| TradeOrQuote::Quote(Quote {
            bid_px,
            bid_sz: 1,
            ask_px,
            ask_sz: 1
        })),
    ]
}

/// Steps of time: mostly none or small, some of exactly a second, some large, some backwards.
fn events() -> impl Strategy<Value = Vec<BarEvent>> {
    let step = prop_oneof![6 => 0i64..800, 2 => Just(1000i64), 1 => 1000i64..200_000, 1 => -90_000i64..0];
    let event = (1u32..5, step, 0u64..2, payload());
    prop::collection::vec(event, 0..250).prop_map(|steps| {
        let mut now_ms = i64::from(BEGAN_S) * 1000 + 100_000;
        let take = |(instrument, step_ms, rest, payload)| {
            now_ms += step_ms;
            // The first or the last nanosecond of a millisecond, and so of a second.
            BarEvent { instrument, ts_recv: now_ms as u64 * 1_000_000 + rest * 999_999, payload }
        };
        steps.into_iter().map(take).collect()
    })
}

proptest! {
    #[test]
    fn bars_equal_those_of_a_list_of_all_events(
        events in events(),
        batch in 1usize..40,
        shares in 0usize..60,
        interval_s in prop::sample::select(vec![1u32, 2, 5, 7, 59, 60, 61, 120, 3600, 86_400]),
        limit in 1usize..30,
        to in prop::option::of(0u32..2000),
    ) {
        let bytes_max = shares * INTERVALS_S.len() * size_of::<Bar>();
        let mut bars = Bars::new(bytes_max, u64::from(BEGAN_S) * SECOND_NS);
        for batch in events.chunks(batch) {
            fold(&mut bars, batch);
            prop_assert!(bars.bytes() <= bytes_max, "{} of {bytes_max}", bars.bytes());
        }
        let query = BarQuery { interval_s, limit, to_s: to.map_or(u32::MAX, |to| BEGAN_S + to), session: None };
        for instrument in 1..6 {
            prop_assert_eq!(bars.find(instrument, &query), expected(&events, instrument, bytes_max, &query));
        }
    }
}

#[test]
fn bar_has_open_high_low_close_and_volume_of_its_trades() {
    let at = f64::from(BEGAN_S);
    let bars = bars_of(&[
        quote(at + 0.1, 1, 99, 101),
        trade(at + 0.2, 1, 100, 5),
        trade(at + 0.3, 1, 90, 1),
        trade(at + 0.4, 1, 110, 2),
        quote(at + 0.5, 1, 104, PRICE_NONE),
        trade(at + 0.9, 1, 105, 2),
        trade(at + 1.0, 1, 7, 3),
        trade(at + 3.0, 2, 1, 1),
    ]);
    let found = bars.find(1, &query(1)).bars;
    let first = Bar {
        time_s: BEGAN_S,
        trades: 4,
        open: 100,
        high: 110,
        low: 90,
        close: 105,
        volume: 10,
        bid_px: 104,
        ask_px: PRICE_NONE,
        is_quoted: true,
    };
    assert_eq!(found[0], first);
    assert_eq!((found.len(), found[1].time_s, found[1].trades, found[1].is_quoted), (2, BEGAN_S + 1, 1, false));
    let minute = &bars.find(1, &query(60)).bars[..];
    assert_eq!(minute, [Bar { trades: 5, low: 7, close: 7, volume: 13, ..first }]);
}

#[test]
fn pages_of_bars_join_without_gap_or_overlap() {
    let events: Vec<_> =
        (0..50).map(|nth| trade(f64::from(BEGAN_S) + f64::from(nth) * 1.5, 1, i64::from(nth) + 1, 1)).collect();
    let bars = bars_of(&events);
    let all = bars.find(1, &query(3)).bars;
    let (mut pages, mut to_s) = (Vec::new(), u32::MAX);
    loop {
        let page = bars.find(1, &BarQuery { interval_s: 3, limit: 7, to_s, session: None }).bars;
        let Some(first) = page.first() else { break };
        to_s = first.time_s;
        pages.splice(0..0, page);
    }
    assert_eq!(pages, all);
}

#[test]
fn new_instrument_gets_its_share_from_the_others() {
    let bytes_max = 100 * size_of::<Bar>();
    let mut bars = Bars::new(bytes_max, u64::from(BEGAN_S) * SECOND_NS);
    let second = |nth: u32, instrument| trade(f64::from(BEGAN_S + nth), instrument, 1, 1);
    fold(&mut bars, &(0..40).map(|nth| second(nth, 1)).collect::<Vec<_>>());
    assert_eq!((bars.find(1, &query(1)).bars.len(), bars.find(1, &query(1)).since_s), (40, BEGAN_S));
    // Instrument 3 had no record, and so has no share.
    fold(&mut bars, &[second(40, 4)]);
    let found = bars.find(1, &query(1));
    assert_eq!((found.bars.len(), found.since_s), (20, BEGAN_S + 20), "since_s is after the dropped bars");
    assert_eq!(found.bars[0].time_s, found.since_s);
    assert_eq!(bars.find(3, &query(1)), FoundBars { since_s: BEGAN_S, is_seeded: true, ..FoundBars::default() });
    assert!(bars.bytes() <= bytes_max);
}

#[test]
fn store_too_small_for_a_bar_returns_none() {
    let mut bars = Bars::new(1, u64::from(BEGAN_S) * SECOND_NS);
    fold(&mut bars, &[trade(f64::from(BEGAN_S) + 30.0, 1, 1, 1)]);
    assert_eq!(
        bars.find(1, &query(1)),
        FoundBars { since_s: BEGAN_S + 31, is_seeded: true, has_older: true, ..FoundBars::default() }
    );
}

#[test]
fn holes_within_the_query_are_returned() {
    let at = f64::from(BEGAN_S);
    let mut bars = bars_of(&[]);
    bars.lose(0, (u64::from(BEGAN_S) + 1) * SECOND_NS);
    assert_eq!(bars.holes, [(BEGAN_S, BEGAN_S + 1)], "a hole does not begin before the start");
    bars = bars_of(&[trade(at + 10.0, 1, 1, 1), trade(at + 20.0, 1, 1, 1)]);
    let ns = |s: u32| u64::from(BEGAN_S + s) * SECOND_NS;
    bars.lose(ns(5), ns(6));
    bars.lose(ns(12), ns(12) + 1);
    bars.lose(ns(12) + 5, ns(14));
    let newest = |limit| BarQuery { limit, ..query(1) };
    assert_eq!(bars.find(1, &newest(2)).holes, [(BEGAN_S + 12, BEGAN_S + 14)], "holes in one second are merged");
    let both = [(BEGAN_S + 5, BEGAN_S + 6), (BEGAN_S + 12, BEGAN_S + 14)];
    assert_eq!(bars.find(1, &newest(3)).holes, both, "all bars are returned, so a hole before the first counts");
    assert_eq!(bars.find(2, &query(1)).holes, both, "all of its records may have been lost");
    assert_eq!(bars.find(1, &query(60)).holes, both);
    assert!(bars.find(1, &BarQuery { to_s: BEGAN_S + 12, ..newest(1) }).holes.is_empty());
    (0..1000).for_each(|nth| bars.lose(ns(100 + 3 * nth), ns(100 + 3 * nth)));
    let holes = bars.find(1, &query(60)).holes;
    assert_eq!((holes.len(), holes[0]), (HOLES_MAX, (BEGAN_S + 5, BEGAN_S + 100 + 3 * 936)), "the oldest are merged");
}

#[test]
fn other_records_change_nothing() {
    let mut bars = bars_of(&[]);
    let mut heartbeat = Vec::new();
    tickcast_protocol::record::encode_heartbeat(u64::from(BEGAN_S) * SECOND_NS, &mut heartbeat);
    let priceless = trade(f64::from(BEGAN_S), 1, PRICE_NONE, 1).record();
    for record in [&heartbeat[..], &priceless, &priceless[..40], &[]] {
        bars.fold(record);
    }
    bars.share();
    assert_eq!((bars.bytes(), bars.find(1, &query(1)).bars.len()), (0, 0));
}

#[test]
fn only_multiples_of_kept_intervals_are_served() {
    assert!([1, 7, 60, 86_400].iter().all(|interval_s| query(*interval_s).is_served()));
    assert!(!query(0).is_served());
    assert_eq!((query(59).level(), query(120).level()), (Some(0), Some(1)));
}

/// The times of the kept bars of one second of instrument 1, from when on they are complete, and the holes.
fn seconds_of(bars: &Bars) -> (Vec<u32>, u32, Vec<(u32, u32)>) {
    let found = bars.find(1, &BarQuery { interval_s: 1, limit: 1000, to_s: u32::MAX, session: None });
    let time = |time_s: u32| time_s - BEGAN_S;
    let holes = found.holes.iter().map(|hole| (time(hole.0), time(hole.1))).collect();
    (found.bars.iter().map(|bar| time(bar.time_s)).collect(), time(found.since_s), holes)
}

fn trade_at(bars: &mut Bars, at_s: u32) {
    fold(bars, &[trade(f64::from(BEGAN_S + at_s), 1, 100, 1)]);
}

fn step(bars: &mut Bars, from_s: u32, to_s: u32) {
    bars.step(u64::from(BEGAN_S + from_s) * SECOND_NS, u64::from(BEGAN_S + to_s) * SECOND_NS);
}

#[test]
fn a_clock_that_is_set_forward_leaves_a_hole() {
    let mut bars = bars_of(&[]);
    trade_at(&mut bars, 10);
    step(&mut bars, 12, 7_212);
    trade_at(&mut bars, 7_213);
    assert_eq!(seconds_of(&bars), (vec![10, 7_213], 0, vec![(12, 7_212)]));
}

#[test]
fn a_clock_that_is_set_back_leaves_no_bars_ahead_of_it() {
    let mut bars = bars_of(&[]);
    for at_s in [10, 100, 1_000, 1_001] {
        trade_at(&mut bars, at_s);
    }
    // It was 901 s ahead for some time.
    step(&mut bars, 1_001, 100);
    trade_at(&mut bars, 101);
    assert_eq!(seconds_of(&bars), (vec![10, 100, 101], 0, vec![(0, 100)]));
}

#[test]
fn bars_go_on_after_a_step_back_where_all_places_are_taken() {
    // Room for eight bars of a second.
    let mut bars = Bars::new(20 * size_of::<Bar>(), u64::from(BEGAN_S) * SECOND_NS);
    for at_s in 5_000..5_020 {
        trade_at(&mut bars, at_s);
    }
    step(&mut bars, 5_019, 1_000);
    for at_s in 1_000..1_020 {
        trade_at(&mut bars, at_s);
    }
    let (times, since_s, _) = seconds_of(&bars);
    assert_eq!((times, since_s), ((1_012..1_020).collect(), 1_012));
}

#[test]
fn a_start_with_a_clock_ahead_is_corrected_with_it() {
    let mut bars = bars_of(&[]);
    trade_at(&mut bars, 5);
    // The server began 60 s ago, with a clock that was 600 s ahead.
    bars.step(u64::from(BEGAN_S + 60) * SECOND_NS, u64::from(BEGAN_S - 540) * SECOND_NS);
    let found = bars.find(1, &BarQuery { interval_s: 1, limit: 10, to_s: u32::MAX, session: None });
    assert_eq!((found.bars.len(), found.holes), (0, vec![(BEGAN_S - 600, BEGAN_S - 540)]));
}

#[test]
fn bars_are_carried_over_to_other_exponents_and_freed_with_the_instrument() {
    let mut bars = bars_of(&[trade(f64::from(BEGAN_S), 1, 5_001, 3), quote(f64::from(BEGAN_S), 1, 5_000, 5_002)]);
    let define = |bars: &mut Bars, px_exp, sz_exp| {
        let mut record = Vec::new();
        record::encode_definition(&Instrument::new(1, "A", "v", px_exp, sz_exp), &mut record);
        record::patch_sequenced(&mut record, 1, 0.into(), u64::from(BEGAN_S + 9) * SECOND_NS);
        bars.fold(&record);
    };
    define(&mut bars, -4, 0);
    define(&mut bars, -5, -1);
    let found = bars.find(1, &query(1));
    let Bar { open, volume, bid_px, .. } = found.bars[0];
    assert_eq!((found.exponents, open, volume, bid_px), (Some((-5, -1)), 50_010, 30, 50_000));
    // 5_001 at -4 is not exact at -3.
    define(&mut bars, -3, -1);
    let found = bars.find(1, &query(1));
    assert_eq!((found.bars.len(), found.since_s), (0, BEGAN_S + 9));
    let mut released = Vec::new();
    let header = RecordHeader::of_feed(RecordKind::Status, 1, 0);
    fold(&mut bars, &[trade(f64::from(BEGAN_S + 10), 1, 5, 3)]);
    assert!(bars.bytes() > 0);
    record::encode_status(&header, FeedState::Released, &mut released);
    bars.fold(&released);
    bars.share();
    assert_eq!((bars.bytes(), bars.active), (0, 0));
}

fn definition(at_s: u32) -> Vec<u8> {
    let mut record = Vec::new();
    record::encode_definition(&Instrument::new(1, "A", "v", 0, 0), &mut record);
    record::patch_sequenced(&mut record, 1, 0.into(), u64::from(at_s) * SECOND_NS);
    record
}

/// What is to be written: length, time and trades.
fn to_write(bars: &mut Bars, now_s: u32) -> Vec<(u32, u32, u32)> {
    let mut out = Vec::new();
    while bars.take_changed(now_s, 1, &mut out) {}
    out.iter().map(|stored| (stored.interval_s, stored.bar.time_s, stored.bar.trades)).collect()
}

fn known(interval_s: u32, times: &[u32], made_s: Option<u32>) -> [Known; INTERVALS_S.len()] {
    INTERVALS_S.map(|length| {
        let bars = if length == interval_s { times } else { &[] };
        let bars: Vec<_> = bars.iter().map(|time_s| Bar { trades: 5, ..Bar::empty(*time_s) }).collect();
        let since_s = bars.first().map(|bar| bar.time_s);
        Known { bars, has_older: false, since_s, made_s: made_s.filter(|_| length == interval_s) }
    })
}

#[test]
fn bars_are_given_to_the_archive_once_they_are_complete_and_after_it_was_read() {
    let mut bars = Bars::new(1 << 20, u64::from(BEGAN_S) * SECOND_NS).with_archive(&[(BEGAN_S - 9, BEGAN_S)]);
    bars.fold(&definition(BEGAN_S));
    fold(&mut bars, &[trade(f64::from(BEGAN_S), 1, 1, 1), trade(f64::from(BEGAN_S + 1), 1, 1, 1)]);
    assert_eq!(to_write(&mut bars, u32::MAX), [], "the archive may have more of them");
    assert!(!bars.find(1, &query(60)).is_seeded);
    let unseeded = bars.take_unseeded(9);
    assert_eq!(unseeded, [(1, Arc::from("A"), (0, 0))]);
    // The minute before was not written, and this one has trades of before.
    assert!(bars.seed((1, "A", (0, 0)), known(60, &[BEGAN_S - 60, BEGAN_S], Some(BEGAN_S - 60)), Vec::new()));
    assert_eq!((bars.take_unseeded(9), bars.first_s(1)), (vec![], Some(BEGAN_S - 60)));
    assert_eq!(to_write(&mut bars, BEGAN_S + 1), [(1, BEGAN_S, 1), (60, BEGAN_S - 60, 5)]);
    assert_eq!(to_write(&mut bars, BEGAN_S + 60), [(1, BEGAN_S + 1, 1), (60, BEGAN_S, 7)]);
    assert_eq!(to_write(&mut bars, BEGAN_S + 60), []);
    fold(&mut bars, &[trade(f64::from(BEGAN_S + 1), 1, 1, 1)]);
    assert_eq!(
        to_write(&mut bars, BEGAN_S + 60),
        [(1, BEGAN_S + 1, 2), (60, BEGAN_S, 8)],
        "again, as they have changed"
    );
    // What was loaded meanwhile replaces what has not changed.
    fold(&mut bars, &[trade(f64::from(BEGAN_S + 70), 1, 1, 1)]);
    bars.seed_again();
    assert_eq!(bars.take_unseeded(9).len(), 1);
    let loads = vec![(BEGAN_S - 9, BEGAN_S - 5)];
    assert!(!bars.seed((1, "A", (0, 0)), known(60, &[BEGAN_S, BEGAN_S + 60], None), loads));
    let found = bars.find(1, &query(60));
    assert_eq!(found.bars.iter().map(|bar| bar.trades).collect::<Vec<_>>(), [5, 1]);
    assert_eq!(found.holes, [(BEGAN_S - 4, BEGAN_S)]);
}

#[test]
fn bars_that_leave_memory_before_they_were_written_are_kept_for_the_archive() {
    // Room for two bars of each length.
    let mut bars = Bars::new(1, u64::from(BEGAN_S) * SECOND_NS).with_archive(&[]);
    bars.fold(&definition(BEGAN_S));
    bars.take_unseeded(9);
    // A server that was killed has not written these minutes.
    let minutes = [5, 4, 3, 2, 1].map(|ago| BEGAN_S - 60 * ago);
    bars.seed((1, "A", (0, 0)), known(60, &minutes, Some(minutes[0])), Vec::new());
    assert_eq!(to_write(&mut bars, BEGAN_S), minutes.map(|minute_s| (60, minute_s, 5)));
    fold(&mut bars, &(0..5).map(|nth| trade(f64::from(BEGAN_S + nth), 1, 1, 1)).collect::<Vec<_>>());
    assert!(bars.find(1, &query(1)).has_older);
    let written = to_write(&mut bars, BEGAN_S + 5);
    assert_eq!(written, [0, 1, 2, 3, 4].map(|nth| (1, BEGAN_S + nth, 1)));
    // Released before the minute, hour and day were complete.
    let mut released = Vec::new();
    record::encode_status(&RecordHeader::of_feed(RecordKind::Status, 1, 0), FeedState::Released, &mut released);
    bars.fold(&released);
    let lengths: Vec<_> =
        to_write(&mut bars, BEGAN_S + 5).iter().map(|(interval_s, _, trades)| (*interval_s, *trades)).collect();
    assert_eq!((lengths, bars.unwritten()), (vec![(60, 5), (3600, 5), (86_400, 5)], 0));
}
