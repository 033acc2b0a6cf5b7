use super::*;
use tickcast_protocol::record::PRICE_NONE;

const SECOND_NS: u64 = 1_000_000_000;
const MANY: usize = 1 << 20;

struct Feed {
    trades: RecentTrades,
    sequences: Vec<u64>,
}

impl Feed {
    fn new(bytes_max: usize) -> Self {
        Self { trades: RecentTrades::new(bytes_max, 5 * SECOND_NS), sequences: vec![0; 64] }
    }

    fn trade(&mut self, instrument: u32, at_s: u64, px: i64) {
        let sequence = &mut self.sequences[instrument as usize];
        *sequence += 1;
        let header = RecordHeader {
            sequence: Sequence::new(*sequence),
            ts_recv: at_s * SECOND_NS,
            ..RecordHeader::of_feed(RecordKind::Trade, instrument, 3)
        };
        let mut record = Vec::new();
        Trade { px, sz: PRICE_NONE, trade_id: 9, side: Side::Buy }.encode(&header, &mut record);
        self.trades.fold(&record);
        self.trades.share();
    }

    fn define(&mut self, instrument: u32, px_exp: i8) {
        let mut record = Vec::new();
        record::encode_definition(
            &Instrument { id: instrument, ..Instrument::new(1, "A", "v", px_exp, -3) },
            &mut record,
        );
        self.trades.fold(&record);
    }

    fn release(&mut self, instrument: u32) {
        let mut record = Vec::new();
        let header =
            RecordHeader { ts_recv: 50 * SECOND_NS, ..RecordHeader::of_feed(RecordKind::Status, instrument, 0) };
        record::encode_status(&header, FeedState::Released, &mut record);
        self.trades.fold(&record);
        self.trades.share();
    }

    fn sequences(&self, instrument: u32, limit: usize) -> Vec<u64> {
        self.trades.find(instrument, limit).trades.iter().map(|trade| trade.sequence.get()).collect()
    }

    fn since(&self, instrument: u32) -> Option<u32> {
        self.trades.find(instrument, 1).since_s
    }
}

#[test]
fn the_newest_trades_are_found_as_they_were_sequenced() {
    let mut feed = Feed::new(MANY);
    (1..=5).for_each(|nth| feed.trade(2, 10 + nth, nth as i64));
    feed.trade(1, 20, 77);
    assert_eq!(feed.sequences(2, 3), [3, 4, 5]);
    assert_eq!(feed.sequences(2, 10), [1, 2, 3, 4, 5]);
    let found = feed.trades.find(1, 1);
    let expected = RecentTrade {
        sequence: Sequence::new(1),
        ts_event: 3,
        ts_recv: 20 * SECOND_NS,
        px: 77,
        sz: PRICE_NONE,
        trade_id: 9,
        side: Side::Buy,
        exponents: None,
    };
    assert_eq!(found, FoundTrades { since_s: Some(5), trades: vec![expected], is_seeded: true });
    let none = FoundTrades { since_s: Some(5), trades: Vec::new(), is_seeded: true };
    for unknown in [0, 3, u32::MAX] {
        assert_eq!(feed.trades.find(unknown, 1), none);
    }
}

#[test]
fn beyond_its_share_an_instrument_loses_its_oldest_and_says_since_when_it_is_whole() {
    // Ten of one instrument, five of two.
    let mut feed = Feed::new(10 * size_of::<RecentTrade>());
    (1..=12).for_each(|nth| feed.trade(1, 10 + nth, 1));
    assert_eq!(feed.sequences(1, 99), (3..=12).collect::<Vec<_>>());
    assert_eq!(feed.since(1), Some(13), "the one of 12 was dropped");
    feed.trade(2, 30, 1);
    assert_eq!(feed.sequences(1, 99), [8, 9, 10, 11, 12]);
    assert_eq!((feed.since(1), feed.since(2)), (Some(18), Some(5)));
    assert!(feed.trades.bytes() <= 10 * size_of::<RecentTrade>(), "{}", feed.trades.bytes());
    (1..40).for_each(|instrument| feed.trade(instrument, 40, 1));
    assert_eq!((feed.sequences(1, 99), feed.trades.bytes()), (vec![], 0), "there is not one for each");
    assert_eq!(feed.since(1), Some(41));
}

#[test]
fn an_instrument_has_no_more_than_the_most_of_an_answer() {
    let mut feed = Feed::new(64 << 20);
    (1..=1200).for_each(|nth| feed.trade(1, 10 + nth, 1));
    assert_eq!(feed.sequences(1, 5000), (201..=1200).collect::<Vec<_>>());
    assert_eq!(feed.trades.bytes(), TRADES_MAX * size_of::<RecentTrade>());
}

#[test]
fn a_released_instrument_gives_its_memory_back_to_the_others() {
    let mut feed = Feed::new(10 * size_of::<RecentTrade>());
    [1, 2].iter().for_each(|instrument| (1..=9).for_each(|nth| feed.trade(*instrument, nth, 1)));
    let before = feed.trades.bytes();
    feed.release(1);
    assert_eq!(feed.sequences(1, 9), [0; 0]);
    assert_eq!(feed.trades.bytes(), before / 2);
    (1..=5).for_each(|nth| feed.trade(2, 10 + nth, 1));
    assert_eq!(feed.sequences(2, 99), (5..=14).collect::<Vec<_>>(), "five were left, and there is room for ten");
}

#[test]
fn each_trade_keeps_the_exponents_that_it_was_traded_with() {
    let mut feed = Feed::new(MANY);
    for px_exp in [-2, -4, -2] {
        feed.define(1, px_exp);
        feed.trade(1, 10, 1);
    }
    let exponents: Vec<_> = feed.trades.find(1, 9).trades.iter().map(|trade| trade.exponents).collect();
    assert_eq!(exponents, [Some((-2, -3)), Some((-4, -3)), Some((-2, -3))]);
}

#[test]
fn after_a_loss_since_is_its_end_and_exponents_are_unknown_until_the_next_definition() {
    let mut feed = Feed::new(MANY);
    [1, 2].iter().for_each(|instrument| feed.define(*instrument, -2));
    feed.trade(1, 10, 1);
    feed.trades.lose();
    assert_eq!((feed.since(1), feed.since(2)), (None, None), "its end is not known yet");
    feed.trade(2, 15, 1);
    feed.trade(1, 20, 2);
    assert_eq!((feed.since(1), feed.since(2)), (Some(16), Some(16)));
    let exponents = |feed: &Feed| feed.trades.find(1, 9).trades.iter().map(|trade| trade.exponents).collect::<Vec<_>>();
    assert_eq!(exponents(&feed), [Some((-2, -3)), None], "a Definition may be among what was lost");
    feed.define(1, -4);
    feed.trade(1, 30, 3);
    assert_eq!(exponents(&feed), [Some((-2, -3)), Some((-4, -3))], "of the one between, they were never known");
    assert_eq!((feed.since(1), feed.since(2)), (Some(21), Some(16)));
}

#[test]
fn a_clock_that_is_set_back_leaves_since_unknown_until_it_is_reached_again() {
    let mut feed = Feed::new(3 * size_of::<RecentTrade>());
    (1..=4).for_each(|nth| feed.trade(1, 100 + nth, 1));
    assert_eq!(feed.since(1), Some(102));
    feed.trade(1, 50, 1);
    assert_eq!((feed.since(1), feed.sequences(1, 9)), (None, vec![3, 4, 5]));
    feed.trade(1, 103, 1);
    assert_eq!(feed.since(1), Some(104));
}

/// Trades as the archive has them, of these ids.
fn stored(ids: std::ops::RangeInclusive<u64>) -> Vec<RecentTrade> {
    let trade = |trade_id| RecentTrade {
        sequence: Sequence::NONE,
        ts_event: 1,
        ts_recv: 900 * SECOND_NS,
        px: 1,
        sz: 1,
        trade_id,
        side: Side::Buy,
        exponents: Some((-2, -3)),
    };
    ids.map(trade).collect()
}

impl Feed {
    fn with_archive(bytes_max: usize) -> Self {
        let feed = Self::new(bytes_max);
        Self { trades: feed.trades.with_archive(), ..feed }
    }

    fn seed(&mut self, instrument: u32, trades: Vec<RecentTrade>) {
        self.trades.seed(vec![(instrument, "A".into(), trades)]);
    }

    /// What the archive takes of each row, with `follows`.
    fn taken(&mut self) -> Vec<(Vec<u64>, bool)> {
        let mut out = Vec::new();
        self.trades.take_saved(&mut out);
        assert_eq!(self.trades.take_unwritten(0, 100, false, &mut out), None);
        let sequences =
            |stored: &StoredTrades| stored.trades.iter().map(|trade| trade.sequence.get()).collect::<Vec<_>>();
        out.iter().map(|stored| (sequences(stored), stored.follows)).collect()
    }
}

#[test]
fn those_of_the_archive_are_in_front_once() {
    let mut feed = Feed::with_archive(MANY);
    feed.define(1, -2);
    feed.trade(1, 10, 1);
    assert!(!feed.trades.find(1, 9).is_seeded);
    assert_eq!(feed.trades.take_unseeded(9), [(1, "A".into())]);
    feed.trades.seed(vec![(1, "B".into(), stored(1..=2)), (9, "A".into(), stored(1..=2))]);
    assert!(!feed.trades.find(1, 9).is_seeded, "that was another instrument");
    assert_eq!(feed.taken(), []);
    feed.seed(1, stored(1..=2));
    feed.seed(1, stored(1..=2));
    feed.define(1, -4);
    assert_eq!(feed.trades.take_unseeded(9), []);
    feed.trade(1, 11, 1);
    assert_eq!(feed.sequences(1, 9), [0, 0, 1, 2]);
    assert_eq!((feed.since(1), feed.trades.find(1, 9).is_seeded), (Some(5), true));
    assert_eq!(feed.taken(), [(vec![1, 2], true)]);
    assert_eq!(feed.taken(), []);
    feed.release(1);
    feed.define(1, -2);
    assert_eq!(feed.trades.take_unseeded(9), [(1, "A".into())]);
    assert_eq!(feed.sequences(1, 9), [0; 0]);
}

#[test]
fn those_of_the_archive_take_no_more_than_their_share() {
    let mut feed = Feed::with_archive(10 * size_of::<RecentTrade>());
    (1..=2).for_each(|instrument| feed.define(instrument, -2));
    feed.trade(1, 10, 1);
    (1..=2).for_each(|instrument| feed.seed(instrument, stored(1..=100)));
    assert_eq!((feed.sequences(1, 99), feed.sequences(2, 99)), (vec![0, 0, 0, 0, 1], vec![0; 5]));
    assert_eq!(feed.trades.find(2, 1).trades[0].trade_id, 100, "the newest");
    assert!(feed.trades.bytes() <= 10 * size_of::<RecentTrade>(), "{}", feed.trades.bytes());
    (11..=13).for_each(|at_s| feed.trade(1, at_s, 1));
    assert_eq!(feed.sequences(1, 99), [0, 1, 2, 3, 4]);
    assert_eq!(feed.since(1), Some(5), "of those since the start none was dropped");
    assert!(feed.trades.bytes() <= 10 * size_of::<RecentTrade>(), "{}", feed.trades.bytes());
    (14..=16).for_each(|at_s| feed.trade(1, at_s, 1));
    assert_eq!(feed.since(1), Some(12));
    assert_eq!(feed.taken(), [(vec![3, 4, 5, 6, 7], false)], "two were dropped before");
    [1, 2].iter().for_each(|instrument| feed.release(*instrument));
    assert_eq!(feed.trades.bytes(), 0);
}

#[test]
fn archive_is_given_the_newest_trades_with_exponents_that_are_known() {
    let mut feed = Feed::with_archive(MANY);
    feed.define(1, -2);
    feed.seed(1, Vec::new());
    (1..=150).for_each(|_| feed.trade(1, 10, 1));
    assert_eq!(feed.taken(), [((51..=150).collect(), false)]);
    feed.trade(1, 11, 1);
    feed.trades.lose();
    (1..=2).for_each(|_| feed.trade(1, 12, 1));
    assert_eq!(feed.taken(), [(vec![151], true)]);
    feed.define(1, -2);
    feed.trade(1, 13, 1);
    assert_eq!(feed.taken(), [(vec![154], true)]);
    feed.trade(1, 14, 1);
    feed.release(1);
    feed.define(1, -2);
    feed.seed(1, stored(1..=2));
    assert_eq!(feed.sequences(1, 9), [0; 0], "the archive does not have what was released");
    assert_eq!(feed.taken(), [(vec![155], true)]);
    feed.seed(1, stored(1..=2));
    assert_eq!(feed.sequences(1, 9), [0, 0]);
}

#[test]
fn symbol_that_takes_the_place_of_another_has_none_of_its_trades() {
    let mut feed = Feed::with_archive(MANY);
    feed.define(1, -2);
    assert_eq!(feed.trades.take_unseeded(9), [(1, "A".into())]);
    feed.seed(1, Vec::new());
    feed.trade(1, 10, 1);
    feed.trades.lose();
    let mut record = Vec::new();
    record::encode_definition(&Instrument { id: 1, ..Instrument::new(1, "B", "v", -2, -3) }, &mut record);
    feed.trades.fold(&record);
    assert_eq!(feed.sequences(1, 9), [0; 0]);
    assert_eq!(feed.taken(), [(vec![1], true)], "it is written under its own symbol");
    assert_eq!(feed.trades.take_unseeded(9), [(1, "B".into())]);
}
