//! Owners of instruments: what other publishers cannot do, backups, halts, quotas, losses and expiry.

use tickcast::sequencer::{OwnerId, OwnerLimits, SKIPPED_FREE, Sequencer, SourceEnd, SourceIdentity};
use tickcast::shard::Settings;
use tickcast_protocol::record::{self, Channel, Gap, Quote, RecordHeader, RecordKind, flags};
use tickcast_protocol::{BookAction, DefineError, FeedState, GapReason, Instrument};
use tickcast_test_support::node::{MS, Message, Node, shared_identity};

const OWNER: u32 = 1;
const OTHER: u32 = 2;
const SILENCE_NS: u64 = 10_000 * MS;

fn identity(owner: u32, priority: u8) -> SourceIdentity {
    SourceIdentity { owner: OwnerId::publisher(owner), priority, limits: OwnerLimits::NONE }
}

/// A node whose sources `OWNER` and `OTHER` have these identities.
fn node(owner: SourceIdentity, other: SourceIdentity) -> Node {
    Node::with_sequencer(0, 1 << 20, Settings::default(), |writer| {
        let mut sequencer = Sequencer::new(vec![writer], 100);
        sequencer.open_source(OWNER, owner);
        sequencer.open_source(OTHER, other);
        sequencer
    })
}

fn definitions(symbols: &[&str]) -> Vec<u8> {
    let mut batch = Vec::new();
    for (id, symbol) in (1..).zip(symbols) {
        record::encode_definition(&Instrument::new(id, symbol, "test", -2, -2), &mut batch);
    }
    batch
}

fn define(node: &mut Node, source: u32, symbols: &[&str]) -> Result<Vec<u32>, DefineError> {
    let defined = node.sequencer.define_all(source, &definitions(symbols), node.now_ns);
    node.run_until_idle();
    defined.map_err(|(_, error)| error)
}

fn accept(node: &mut Node, source: u32, mut batch: Vec<u8>) {
    node.sequencer.accept(source, &mut batch, node.now_ns);
    node.run_until_idle();
}

fn quote(bid_px: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let quote = Quote { bid_px, bid_sz: 1, ask_px: bid_px + 1, ask_sz: 1 };
    quote.encode(&RecordHeader::of_feed(RecordKind::Quote, 1, 7), &mut bytes);
    bytes
}

fn book(action: BookAction) -> Vec<u8> {
    let mut bytes = Vec::new();
    record::encode_book(&RecordHeader::of_feed(RecordKind::Book, 1, 7), action, std::iter::empty(), &mut bytes);
    bytes
}

fn status(instrument: u32, state: FeedState) -> Vec<u8> {
    let mut bytes = Vec::new();
    record::encode_status(&RecordHeader::of_feed(RecordKind::Status, instrument, 0), state, &mut bytes);
    bytes
}

fn gap(missing: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (instrument, channel, reason) = (1, Channel::Trade, GapReason::Feed);
    Gap { instrument, channel, from_sequence: 1.into(), to_sequence: missing.into(), reason }.encode(0, &mut bytes);
    bytes
}

fn trade() -> Vec<u8> {
    let mut bytes = Vec::new();
    let trade = record::Trade { px: 1, sz: 1, trade_id: 1, side: tickcast_protocol::Side::Buy };
    trade.encode(&RecordHeader::of_feed(RecordKind::Trade, 1, 7), &mut bytes);
    bytes
}

fn subscribe(node: &mut Node, channel: &str) -> u32 {
    let client = node.client(&format!(r#"{{"op":"subscribe","id":1,"channels":["{channel}"],"symbols":["*"]}}"#));
    node.run_until_idle();
    client
}

fn records(node: &Node, client: u32, wanted: RecordKind) -> Vec<Vec<u8>> {
    let all = node.received(client).into_iter().filter_map(|message| match message {
        Message::Packet { records, .. } => Some(records),
        _ => None,
    });
    all.flatten().filter(|(header, _)| header.kind == wanted as u8).map(|(_, bytes)| bytes).collect()
}

fn bids(node: &Node, client: u32) -> Vec<i64> {
    records(node, client, RecordKind::Quote).iter().filter_map(|bytes| Some(Quote::read(bytes)?.bid_px)).collect()
}

fn states(node: &Node, client: u32) -> Vec<(u32, FeedState)> {
    let of = |bytes: &Vec<u8>| Some((RecordHeader::read(bytes)?.instrument, record::read_status(bytes)?));
    records(node, client, RecordKind::Status).iter().filter_map(of).collect()
}

#[test]
fn another_publisher_cannot_define_quote_halt_or_skip() {
    let mut node = node(identity(1, 0), identity(2, 0));
    define(&mut node, OWNER, &["A"]).expect("a new one");
    let client = subscribe(&mut node, "quote");
    let foreign = DefineError::Foreign { symbol: "A".to_owned() };
    assert_eq!(define(&mut node, OTHER, &["A"]), Err(foreign.clone()), "also in the same way");
    for batch in [quote(666), status(1, FeedState::Halted), status(0, FeedState::Halted), gap(5), trade()] {
        accept(&mut node, OTHER, batch);
    }
    accept(&mut node, OWNER, quote(5));
    assert_eq!((bids(&node, client), states(&node, client)), (vec![5], vec![]));
    // Neither while the owner is silent, nor while it is lost.
    node.now_ns += SILENCE_NS;
    node.sequencer.check_sources(SILENCE_NS, node.now_ns);
    assert_eq!(define(&mut node, OTHER, &["A"]), Err(foreign.clone()));
    node.sequencer.close_source(OWNER, SourceEnd::Lost, node.now_ns);
    assert_eq!(define(&mut node, OTHER, &["A"]), Err(foreign));
}

#[test]
fn instrument_of_a_feed_is_not_shared_with_publishers() {
    let mut node = node(SourceIdentity::alone(OWNER), identity(2, 0));
    define(&mut node, OWNER, &["A"]).expect("a new one");
    assert_eq!(define(&mut node, OTHER, &["A"]), Err(DefineError::Foreign { symbol: "A".to_owned() }));
    assert_eq!(define(&mut node, 3, &["A"]), Err(DefineError::Foreign { symbol: "A".to_owned() }), "another feed");
}

#[test]
fn ended_instrument_of_another_owner_is_defined_under_a_new_id() {
    let mut node = node(identity(1, 0), identity(2, 0));
    define(&mut node, OWNER, &["A"]).expect("a new one");
    let client = subscribe(&mut node, "quote");
    accept(&mut node, OWNER, quote(5));
    node.sequencer.close_source(OWNER, SourceEnd::Ended, node.now_ns);
    assert_eq!(define(&mut node, OTHER, &["A"]), Ok(vec![2]));
    accept(&mut node, OTHER, quote(6));
    let of_clients = records(&node, client, RecordKind::Quote);
    let ids: Vec<u32> = of_clients.iter().filter_map(|bytes| Some(RecordHeader::read(bytes)?.instrument)).collect();
    assert_eq!(ids, [1, 2], "no value of one owner is shown as the other's");
    assert!(states(&node, client).contains(&(1, FeedState::Released)));
}

#[test]
fn standby_is_left_out_until_the_primary_is_lost_or_silent() {
    let mut node = node(identity(1, 0), identity(1, 1));
    define(&mut node, OWNER, &["A"]).expect("a new one");
    define(&mut node, OTHER, &["A"]).expect("the same identity");
    let client = subscribe(&mut node, "quote");
    accept(&mut node, OTHER, [quote(100), status(1, FeedState::Halted), gap(3)].concat());
    accept(&mut node, OWNER, quote(1));
    assert_eq!((bids(&node, client), node.sequencer.counters().standby), (vec![1], 3));
    // The primary is silent: the standby feeds the instrument, which does not become stale.
    node.now_ns += SILENCE_NS;
    accept(&mut node, OTHER, quote(100));
    node.sequencer.check_sources(SILENCE_NS, node.now_ns);
    accept(&mut node, OTHER, quote(101));
    assert_eq!((bids(&node, client), states(&node, client)), (vec![1, 101], vec![]));
    accept(&mut node, OWNER, quote(2));
    accept(&mut node, OTHER, quote(102));
    assert_eq!(bids(&node, client), [1, 101, 2], "the primary is back");
    node.sequencer.close_source(OWNER, SourceEnd::Lost, node.now_ns);
    accept(&mut node, OTHER, quote(103));
    assert_eq!((bids(&node, client), states(&node, client)), (vec![1, 101, 2, 103], vec![]));
}

#[test]
fn primary_redefines_what_its_standby_has_defined_otherwise() {
    let mut node = node(identity(1, 0), identity(1, 1));
    let otherwise = |px_exp| {
        let mut batch = Vec::new();
        record::encode_definition(&Instrument::new(1, "A", "test", px_exp, -2), &mut batch);
        batch
    };
    node.sequencer.define_all(OTHER, &otherwise(-4), node.now_ns).expect("a new one");
    node.sequencer.define_all(OWNER, &otherwise(-2), node.now_ns).expect("it is the primary");
    let refused = node.sequencer.define_all(OTHER, &otherwise(-4), node.now_ns);
    assert!(matches!(refused, Err((0, DefineError::Taken { .. }))), "{refused:?}");
    accept(&mut node, OTHER, quote(1));
    assert_eq!(node.sequencer.take_faults().withdrawn, Some(1), "it has to be defined again");
}

#[test]
fn book_may_be_wrong_when_the_feeding_priority_changes() {
    let mut node = node(identity(1, 0), identity(1, 1));
    define(&mut node, OWNER, &["A"]).expect("a new one");
    define(&mut node, OTHER, &["A"]).expect("the same identity");
    accept(&mut node, OWNER, book(BookAction::Snapshot));
    let client = subscribe(&mut node, "book");
    let flagged = |node: &Node| {
        let all = records(node, client, RecordKind::Book);
        let of = |bytes: &Vec<u8>| Some(RecordHeader::read(bytes)?.flags & flags::MAYBE_BAD_BOOK != 0);
        all.iter().filter_map(of).collect::<Vec<_>>()
    };
    node.sequencer.close_source(OWNER, SourceEnd::Lost, node.now_ns);
    node.run_until_idle();
    assert_eq!(flagged(&node), [false, true]);
    accept(&mut node, OTHER, book(BookAction::Snapshot));
    node.sequencer.open_source(OWNER, identity(1, 0));
    define(&mut node, OWNER, &["A"]).expect("it is back");
    accept(&mut node, OWNER, book(BookAction::Delta));
    assert_eq!(flagged(&node), [false, true, false, true, true]);
}

#[test]
fn halt_stays_until_a_status_or_until_its_source_is_gone() {
    let mut node = node(shared_identity(0), shared_identity(0));
    define(&mut node, OWNER, &["A"]).expect("a new one");
    define(&mut node, OTHER, &["A"]).expect("the same identity");
    let client = subscribe(&mut node, "quote");
    accept(&mut node, OTHER, status(1, FeedState::Halted));
    accept(&mut node, OWNER, quote(1));
    assert_eq!(states(&node, client), [(1, FeedState::Halted)], "quotes come in a halt, too");
    accept(&mut node, OWNER, status(1, FeedState::Live));
    accept(&mut node, OTHER, status(1, FeedState::Halted));
    node.sequencer.close_source(OTHER, SourceEnd::Lost, node.now_ns);
    accept(&mut node, OWNER, quote(2));
    let (halted, live) = ((1, FeedState::Halted), (1, FeedState::Live));
    assert_eq!(states(&node, client), [halted, live, halted, live]);
}

#[test]
fn gap_skips_no_more_than_was_seen_allows() {
    let mut node = node(identity(1, 0), identity(2, 0));
    define(&mut node, OWNER, &["A"]).expect("a new one");
    let client = subscribe(&mut node, "trade");
    accept(&mut node, OWNER, gap(1 << 53));
    let refused = node.sequencer.take_faults().gap.expect("it is refused");
    assert_eq!((refused.missing, refused.allowed), (1 << 53, SKIPPED_FREE));
    accept(&mut node, OWNER, [trade(), gap(SKIPPED_FREE)].concat());
    assert_eq!(node.sequencer.take_faults().gap, None);
    // What was skipped allows no more to be skipped.
    accept(&mut node, OWNER, gap(11));
    assert_eq!(node.sequencer.take_faults().gap.map(|gap| gap.allowed), Some(10));
    accept(&mut node, OWNER, [gap(10), trade()].concat());
    let newest = records(&node, client, RecordKind::Trade).pop().expect("a trade");
    assert_eq!(RecordHeader::read(&newest).map(|header| header.sequence.get()), Some(SKIPPED_FREE + 12));
    assert_eq!((node.sequencer.counters().gaps_refused, node.sequencer.counters().lost), (2, SKIPPED_FREE + 10));
}

#[test]
fn gap_of_a_feed_is_cut_to_what_was_seen() {
    let mut node = node(SourceIdentity::alone(OWNER), identity(2, 0));
    define(&mut node, OWNER, &["A"]).expect("a new one");
    accept(&mut node, OWNER, [gap(u64::MAX), gap(5), trade()].concat());
    assert_eq!((node.sequencer.counters().lost, node.sequencer.counters().gaps_refused), (SKIPPED_FREE, 2));
}

#[test]
fn owner_has_a_quota_of_instruments_and_of_ids() {
    let limits = OwnerLimits { instruments_max: 2, ids_max: 4 };
    let mut node = node(SourceIdentity { limits, ..identity(1, 0) }, identity(2, 0));
    assert_eq!(define(&mut node, OWNER, &["A", "B", "C"]), Err(DefineError::Quota { max: 2 }));
    assert_eq!(define(&mut node, OWNER, &["A", "B"]), Ok(vec![1, 2]));
    assert_eq!(define(&mut node, OWNER, &["A", "B", "C"]), Err(DefineError::Quota { max: 2 }));
    assert_eq!(define(&mut node, OTHER, &["D", "E", "F"]), Ok(vec![3, 4, 5]), "another owner has its own");
    // An ended one of its own makes room, but ids are not used again.
    accept(&mut node, OWNER, status(1, FeedState::Ended));
    assert_eq!(define(&mut node, OWNER, &["C"]), Ok(vec![6]));
    accept(&mut node, OWNER, status(1, FeedState::Ended));
    assert_eq!(define(&mut node, OWNER, &["G"]), Ok(vec![7]));
    accept(&mut node, OWNER, status(1, FeedState::Ended));
    assert_eq!(define(&mut node, OWNER, &["H"]), Err(DefineError::Ids { max: 4 }));
    assert_eq!(node.sequencer.counters().released, 2);
}

#[test]
fn instruments_of_a_lost_source_end_after_a_while_and_make_room() {
    let mut node = node(identity(1, 0), identity(2, 0));
    define(&mut node, OWNER, &["A", "B"]).expect("new ones");
    node.sequencer.close_source(OWNER, SourceEnd::Lost, node.now_ns);
    let expire_ns = 1000 * MS;
    node.now_ns += expire_ns - 1;
    assert!(!node.sequencer.expire_instruments(expire_ns, node.now_ns));
    // One connection is back, and has one of them.
    node.sequencer.open_source(OWNER, identity(1, 0));
    define(&mut node, OWNER, &["B"]).expect("its own");
    node.now_ns += 1;
    assert!(node.sequencer.expire_instruments(expire_ns, node.now_ns));
    assert_eq!(node.sequencer.counters().expired, 1);
    assert_eq!(define(&mut node, OTHER, &["A"]), Ok(vec![3]), "it has ended");
    assert_eq!(define(&mut node, OTHER, &["B"]), Err(DefineError::Foreign { symbol: "B".to_owned() }));
}

#[test]
fn symbol_that_looks_like_one_of_another_owner_is_refused() {
    let mut node = node(identity(1, 0), identity(2, 0));
    define(&mut node, OWNER, &["BTC-USD1", "二"]).expect("new ones");
    for (symbol, known) in [("BTC-USDl", "BTC-USD1"), ("BTC-USDI", "BTC-USD1"), ("ニ", "二")] {
        let refused = DefineError::Confusable { symbol: symbol.to_owned(), known: known.to_owned() };
        assert_eq!(define(&mut node, OTHER, &[symbol]), Err(refused));
    }
    assert_eq!(define(&mut node, OWNER, &["BTC-USD1", "二", "BTC-USDl"]), Ok(vec![1, 2, 3]), "an owner may have both");
    assert_eq!(define(&mut node, OTHER, &["BTC-USD2"]), Ok(vec![4]));
    // What is released is no longer looked like.
    accept(&mut node, OWNER, status(0, FeedState::Ended));
    for symbol in ["BTC-USD1", "BTC-USDl"] {
        define(&mut node, OTHER, &[symbol]).expect("it has ended");
    }
}
