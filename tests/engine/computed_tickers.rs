//! Computed tickers in the sequencer: numbered like those of a source, and never beside them.

use tickcast::day_tickers::{ComputedTicker, TickerOutcome};
use tickcast::sequencer::SourceEnd;
use tickcast_protocol::record::{self, PRICE_NONE, Quote, RecordHeader, RecordKind, Ticker, flags};
use tickcast_protocol::{FeedState, Instrument};
use tickcast_test_support::node::{Message, Node};

const SOURCE: u32 = 1;

fn node() -> Node {
    let mut node = Node::new(0);
    define(&mut node, -2);
    node
}

fn define(node: &mut Node, px_exp: i8) {
    let mut batch = Vec::new();
    record::encode_definition(&Instrument::new(1, "A", "test", px_exp, -2), &mut batch);
    accept(node, batch);
}

fn accept(node: &mut Node, mut batch: Vec<u8>) {
    node.sequencer.accept(SOURCE, &mut batch, node.now_ns);
    node.run_until_idle();
}

fn ticker(last_px: i64) -> Ticker {
    Ticker {
        last_px,
        open_px: 1,
        high_px: 2,
        low_px: 1,
        volume: 3,
        turnover: 4,
        bid_px: PRICE_NONE,
        ask_px: PRICE_NONE,
    }
}

fn of_source(last_px: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    ticker(last_px).encode(&RecordHeader::of_feed(RecordKind::Ticker, 1, 7), &mut bytes);
    bytes
}

fn status(state: FeedState) -> Vec<u8> {
    let mut bytes = Vec::new();
    record::encode_status(&RecordHeader::of_feed(RecordKind::Status, 1, 0), state, &mut bytes);
    bytes
}

fn compute(node: &mut Node, last_px: i64) -> TickerOutcome {
    let mut outcomes = Vec::new();
    let computed = ComputedTicker { instrument: 1, exponents: Some((-2, -2)), ticker: ticker(last_px) };
    node.sequencer.accept_computed(&[computed], node.now_ns, &mut outcomes);
    node.run_until_idle();
    let [outcome] = outcomes[..] else { panic!("one for each: {outcomes:?}") };
    outcome
}

fn subscribe(node: &mut Node) -> u32 {
    node.client(r#"{"op":"subscribe","id":1,"channels":["ticker"],"symbols":["*"]}"#)
}

/// Sequence, flags without SNAPSHOT and last price of each ticker that a client was sent.
fn tickers(node: &mut Node, client: u32) -> Vec<(u64, u8, Ticker)> {
    let mut found = Vec::new();
    for message in node.received(client) {
        let Message::Packet { records, .. } = message else { continue };
        for (header, bytes) in records {
            if header.known_kind() == Some(RecordKind::Ticker) {
                let ticker = Ticker::read(&bytes).expect("a ticker");
                found.push((header.sequence.get(), header.flags & !flags::SNAPSHOT, ticker));
            }
        }
    }
    found
}

const COMPUTED: u8 = flags::LAST | flags::COMPUTED;

#[test]
fn a_computed_ticker_is_numbered_flagged_and_has_the_newest_quote() {
    let mut node = node();
    let client = subscribe(&mut node);
    assert_eq!(compute(&mut node, 10), TickerOutcome::Sequenced);
    let mut quote = Vec::new();
    Quote { bid_px: 8, bid_sz: 1, ask_px: PRICE_NONE, ask_sz: PRICE_NONE }
        .encode(&RecordHeader::of_feed(RecordKind::Quote, 1, 7), &mut quote);
    accept(&mut node, quote);
    assert_eq!(compute(&mut node, 11), TickerOutcome::Sequenced);
    let quoted = Ticker { bid_px: 8, ..ticker(11) };
    assert_eq!(tickers(&mut node, client), [(1, COMPUTED, ticker(10)), (2, COMPUTED, quoted)]);
    let late = subscribe(&mut node);
    node.run_until_idle();
    assert_eq!(tickers(&mut node, late), [(2, COMPUTED, quoted)], "it is the state of its channel");
}

#[test]
fn from_the_sources_first_ticker_on_none_is_computed() {
    let mut node = node();
    let client = subscribe(&mut node);
    assert_eq!(compute(&mut node, 10), TickerOutcome::Sequenced);
    accept(&mut node, of_source(20));
    assert_eq!(compute(&mut node, 11), TickerOutcome::Own);
    let sent = tickers(&mut node, client);
    assert_eq!(sent, [(1, COMPUTED, ticker(10)), (2, flags::LAST, ticker(20))]);
    // A source that sends computed ones, as that of a delayed market does: they are its own.
    let mut node = self::node();
    let client = subscribe(&mut node);
    let mut replayed = Vec::new();
    let header = RecordHeader::of_feed(RecordKind::Ticker, 1, 7).with_flags(COMPUTED);
    ticker(30).encode(&header, &mut replayed);
    accept(&mut node, replayed);
    assert_eq!(compute(&mut node, 11), TickerOutcome::Own);
    assert_eq!(tickers(&mut node, client), [(1, COMPUTED, ticker(30))]);
}

#[test]
fn none_is_written_for_an_instrument_that_is_stale_ended_released_or_changed() {
    let mut node = node();
    let client = subscribe(&mut node);
    for state in [FeedState::Stale, FeedState::Ended] {
        accept(&mut node, status(state));
        assert_eq!(compute(&mut node, 10), TickerOutcome::NotLive);
    }
    define(&mut node, -3);
    accept(&mut node, status(FeedState::Live));
    assert_eq!(compute(&mut node, 10), TickerOutcome::Exponents(-3, -2));
    let mut outcomes = Vec::new();
    let unknown = ComputedTicker { instrument: 2, exponents: Some((-2, -2)), ticker: ticker(1) };
    let not_known = ComputedTicker { instrument: 1, exponents: None, ticker: ticker(1) };
    node.sequencer.accept_computed(&[unknown, not_known], node.now_ns, &mut outcomes);
    assert_eq!(outcomes, [TickerOutcome::Unknown, TickerOutcome::Exponents(-3, -2)]);
    node.run_until_idle();
    assert_eq!(tickers(&mut node, client), []);
}

#[test]
fn a_computed_ticker_does_not_end_a_halt() {
    let mut node = node();
    accept(&mut node, status(FeedState::Halted));
    let client = subscribe(&mut node);
    assert_eq!(compute(&mut node, 10), TickerOutcome::Sequenced);
    node.sequencer.close_source(SOURCE, SourceEnd::Lost, node.now_ns);
    node.run_until_idle();
    assert_eq!(compute(&mut node, 11), TickerOutcome::NotLive, "nor the silence of a source");
    assert_eq!(tickers(&mut node, client).len(), 1);
}

#[test]
fn a_change_of_exponents_carries_a_computed_ticker_over() {
    let mut node = node();
    compute(&mut node, 10);
    let client = subscribe(&mut node);
    node.run_until_idle();
    assert_eq!(tickers(&mut node, client).len(), 1);
    define(&mut node, -3);
    let carried = tickers(&mut node, client);
    let carried: Vec<_> = carried.iter().map(|sent| (sent.0, sent.1, sent.2.last_px)).collect();
    assert_eq!(carried, [(1, COMPUTED, 10), (2, COMPUTED, 100)]);
    assert_eq!(compute(&mut node, 10), TickerOutcome::Exponents(-3, -2));
}
