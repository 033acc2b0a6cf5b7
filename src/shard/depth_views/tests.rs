use proptest::prelude::*;

use super::*;
use tickcast_protocol::record::{RecordHeader, RecordKind};

const INTERVAL: u64 = 100;

fn interval() -> ConflationInterval {
    ConflationInterval::round_up(INTERVAL).unwrap()
}

/// A book, its views, and clients that keep what they are sent.
struct Market {
    state: BookState,
    sequence: Sequence,
    views: DepthViews,
}

impl Market {
    fn new() -> Self {
        Self { state: BookState::default(), sequence: Sequence::NONE, views: DepthViews::default() }
    }

    fn change(&mut self, action: BookAction, levels: &[Level]) {
        let before = self.sequence;
        self.sequence = before.next();
        let header = RecordHeader::of_feed(RecordKind::Book, 1, 0);
        let mut record = Vec::new();
        record::encode_book(&header, action, levels.iter().copied(), &mut record);
        self.state.levels.apply(action, levels.iter().copied());
        let (sequence, state) = (self.sequence, &self.state);
        self.views.follow(1, &BookChange { before, sequence, action, record: &record, state });
    }

    fn newest(&mut self, depth: usize) -> Option<Immediate> {
        self.views.take_newest(1, depth, (self.sequence, &self.state), flags::LAST)
    }

    fn gathered(&mut self, depth: usize) -> Option<Outcome> {
        self.views.take_gathered(1, depth, (self.sequence, &self.state), interval())
    }

    fn best(&self, depth: usize) -> Book {
        let mut book = Book::default();
        book.apply(BookAction::Snapshot, self.state.levels.best(depth).into_iter());
        book
    }
}

fn bid(px: i64, sz: i64) -> Level {
    Level { px, sz, side: BookSide::Bid }
}

fn apply(book: &mut Book, outcome: &Outcome) {
    book.apply(outcome.action, outcome.levels.iter().copied());
}

#[test]
fn levels_come_and_leave_as_others_leave_and_come() {
    let mut market = Market::new();
    market.change(BookAction::Snapshot, &[bid(10, 1), bid(9, 2), bid(8, 3)]);
    let whole = market.newest(2).unwrap();
    assert_eq!((whole.outcome.action, whole.outcome.levels), (BookAction::Snapshot, vec![bid(10, 1), bid(9, 2)]));
    for (change, seen) in [
        (bid(10, 0), Some(vec![bid(10, 0), bid(8, 3)])),
        (bid(7, 5), None),
        (bid(8, 0), Some(vec![bid(8, 0), bid(7, 5)])),
        (bid(11, 4), Some(vec![bid(11, 4), bid(7, 0)])),
        (bid(7, 6), None),
        (bid(9, 9), Some(vec![bid(9, 9)])),
    ] {
        market.change(BookAction::Delta, &[change]);
        let newest = market.newest(2);
        assert_eq!(newest.map(|newest| newest.outcome.levels), seen, "{change:?}");
    }
}

#[test]
fn change_that_stands_for_others_says_so_and_ends_of_events_are_told() {
    let mut market = Market::new();
    market.change(BookAction::Snapshot, &[bid(10, 1)]);
    assert!(market.newest(1).is_some());
    market.change(BookAction::Delta, &[bid(10, 2)]);
    assert!(!market.newest(1).unwrap().is_merged);
    market.change(BookAction::Delta, &[bid(9, 2)]);
    assert_eq!(market.newest(1), None);
    market.change(BookAction::Delta, &[bid(10, 3)]);
    let more = market.views.take_newest(1, 1, (market.sequence, &market.state), 0);
    assert!(more.unwrap().is_merged);
    market.change(BookAction::Delta, &[bid(9, 3)]);
    let end = market.newest(1).unwrap();
    assert!(end.outcome.levels.is_empty(), "the event that began before it ends");
    market.change(BookAction::Delta, &[bid(9, 4)]);
    assert_eq!(market.newest(1), None);
    market.state.flags = flags::MAYBE_BAD_BOOK;
    market.change(BookAction::Delta, &[bid(9, 5)]);
    assert!(market.newest(1).unwrap().outcome.levels.is_empty(), "the book is in doubt");
}

#[test]
fn views_that_nothing_is_sent_of_are_forgotten() {
    let mut market = Market::new();
    market.change(BookAction::Snapshot, &[bid(10, 1)]);
    market.newest(1);
    market.newest(2);
    for nth in 0..i64::from(IDLE_MAX) {
        assert_eq!(market.views.by_instrument[&1].len(), 2);
        market.change(BookAction::Delta, &[bid(10, nth + 2)]);
        market.newest(1);
    }
    assert_eq!(market.views.by_instrument[&1].len(), 1);
    assert_eq!(market.newest(2).unwrap().outcome.action, BookAction::Snapshot, "read anew");
    market.views.forget(1);
    assert!(market.views.by_instrument.is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Change(bool, Vec<(i64, i64, bool)>),
    /// A client with this depth comes, and is sent the view as it is.
    Join(usize, bool),
    /// Nothing is sent at once, and no view follows.
    Blind(Vec<(i64, i64, bool)>),
    Boundary,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let levels = || prop::collection::vec((0i64..12, 0i64..3, any::<bool>()), 0..4);
    let step = prop_oneof![
        8 => levels().prop_map(|levels| Step::Change(false, levels)),
        1 => levels().prop_map(|levels| Step::Change(true, levels)),
        2 => (1usize..5, any::<bool>()).prop_map(|(depth, is_conflated)| Step::Join(depth, is_conflated)),
        1 => levels().prop_map(Step::Blind),
        2 => Just(Step::Boundary),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Clients of each depth have the best levels of the book after each change, or after each boundary; and never any
    /// other level.
    #[test]
    fn clients_have_the_best_levels_and_no_other(steps in steps()) {
        let mut market = Market::new();
        market.change(BookAction::Snapshot, &[]);
        let mut clients: Vec<(usize, bool, Book)> = Vec::new();
        let to_levels = |levels: &[(i64, i64, bool)]| -> Vec<Level> {
            let side = |is_bid| if is_bid { BookSide::Bid } else { BookSide::Ask };
            levels.iter().map(|&(px, sz, is_bid)| Level { px, sz, side: side(is_bid) }).collect()
        };
        for step in &steps {
            match step {
                Step::Change(is_whole, levels) => {
                    let action = if *is_whole { BookAction::Snapshot } else { BookAction::Delta };
                    market.change(action, &to_levels(levels));
                    for depth in 1..5 {
                        let newest = market.newest(depth);
                        let best = market.best(depth);
                        let of = |client: &&mut (usize, bool, Book)| client.0 == depth && !client.1;
                        for (_, _, book) in clients.iter_mut().filter(of) {
                            if let Some(newest) = &newest {
                                apply(book, &newest.outcome);
                            }
                            prop_assert_eq!(&*book, &best);
                        }
                        for level in newest.iter().flat_map(|newest| &newest.outcome.levels) {
                            prop_assert!(level.sz == 0 || best.size(level.side, level.px) == level.sz);
                        }
                    }
                }
                Step::Blind(levels) => {
                    market.sequence = market.sequence.next();
                    market.state.levels.apply(BookAction::Delta, to_levels(levels).into_iter());
                    // Who is sent nothing meanwhile has nothing to compare.
                    clients.retain(|(_, is_conflated, _)| *is_conflated);
                }
                Step::Join(depth, is_conflated) => clients.push((*depth, *is_conflated, market.best(*depth))),
                Step::Boundary => for depth in 1..5 {
                    let gathered = market.gathered(depth);
                    let best = market.best(depth);
                    let of = |client: &&mut (usize, bool, Book)| client.0 == depth && client.1;
                    for (_, _, book) in clients.iter_mut().filter(of) {
                        if let Some(gathered) = &gathered {
                            apply(book, gathered);
                        }
                        prop_assert_eq!(&*book, &best);
                    }
                    for level in gathered.iter().flat_map(|gathered| &gathered.levels) {
                        prop_assert!(level.sz == 0 || best.size(level.side, level.px) == level.sz);
                    }
                }
            }
        }
    }
}
