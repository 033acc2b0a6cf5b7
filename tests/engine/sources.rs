//! Sources that fall silent, end, are lost and return: the records that subscribers receive, at the time and later.

use tickcast::sequencer::SourceEnd;
use tickcast::shard::Settings;
use tickcast_protocol::record::{self, Channel, Gap, RecordHeader, RecordKind, Trade, flags};
use tickcast_protocol::{BookAction, FeedState, GapReason, Instrument, Side};
use tickcast_test_support::node::{MS, Message, Node};

const SILENCE_NS: u64 = 10_000 * MS;

/// Instrument and state of the Status records among the messages.
fn states(messages: &[Message]) -> Vec<(u32, char)> {
    let status = records(messages, RecordKind::Status);
    status
        .into_iter()
        .map(|(header, bytes)| {
            (header.instrument, char::from(u8::from(record::read_status(&bytes).expect("a whole record"))))
        })
        .collect()
}

fn records(messages: &[Message], kind: RecordKind) -> Vec<(RecordHeader, Vec<u8>)> {
    let packets = messages.iter().filter_map(|message| match message {
        Message::Packet { records, .. } => Some(records),
        _ => None,
    });
    packets.flatten().filter(|(header, _)| header.kind == kind as u8).cloned().collect()
}

fn subscribe(channel: &str, symbol: &str) -> String {
    format!(r#"{{"op":"subscribe","id":1,"channels":["{channel}"],"symbols":["{symbol}"]}}"#)
}

/// Defines an instrument for a source other than the node's own.
fn define(node: &mut Node, source: u32, id: u32) {
    let mut batch = Vec::new();
    record::encode_definition(&Instrument::new(1, &format!("S{id}"), "test", -2, -2), &mut batch);
    node.sequencer.accept(source, &mut batch, node.now_ns);
}

fn trade_of(node: &mut Node, source: u32) {
    let mut batch = Vec::new();
    let trade = Trade { px: 10, sz: 1, trade_id: 1, side: Side::Buy };
    trade.encode(&RecordHeader::of_feed(RecordKind::Trade, 1, node.now_ns), &mut batch);
    node.sequencer.accept(source, &mut batch, node.now_ns);
}

#[test]
fn silent_source_is_stale_until_its_next_batch() {
    let mut node = Node::new(2);
    let client = node.client(&subscribe("trade", "S1"));
    node.run_until_idle();
    node.now_ns += SILENCE_NS - MS;
    assert!(!node.sequencer.check_sources(SILENCE_NS, node.now_ns));
    node.now_ns += MS;
    assert!(node.sequencer.check_sources(SILENCE_NS, node.now_ns));
    node.run_until_idle();
    assert_eq!(states(&node.received(client)), [(1, 'S'), (0, 'S')], "not S2, to which it is not subscribed");
    assert!(!node.sequencer.check_sources(SILENCE_NS, node.now_ns), "reported once");
    let mut heartbeat = Vec::new();
    record::encode_heartbeat(node.now_ns, &mut heartbeat);
    node.accept(heartbeat);
    node.run_until_idle();
    assert_eq!(states(&node.received(client))[2..], [(1, 'L'), (0, 'L')]);
    assert_eq!((node.sequencer.counters().silences, node.sequencer.counters().stale), (1, 0));
}

#[test]
fn silence_does_not_make_a_halted_instrument_stale() {
    let mut node = Node::with_sharing_sources(2, &[7]);
    define(&mut node, 7, 2);
    let client = node.client(&subscribe("trade", "*"));
    let mut halted = Vec::new();
    record::encode_status(&RecordHeader::of_feed(RecordKind::Status, 1, 0), FeedState::Halted, &mut halted);
    node.accept(halted);
    node.run_until_idle();
    node.now_ns += SILENCE_NS;
    assert!(node.sequencer.check_sources(SILENCE_NS, node.now_ns));
    node.run_until_idle();
    assert_eq!(states(&node.received(client)), [(1, 'H'), (2, 'S'), (0, 'S')]);
    // Instrument 2 is live again with a batch of one of its sources; instrument 1 stays halted.
    let mut heartbeat = Vec::new();
    record::encode_heartbeat(node.now_ns, &mut heartbeat);
    node.accept(heartbeat);
    node.run_until_idle();
    assert_eq!(states(&node.received(client))[3..], [(2, 'L'), (0, 'L')]);
}

#[test]
fn instrument_of_a_lost_source_is_stale_until_a_record_of_another() {
    let mut node = Node::with_sharing_sources(2, &[7]);
    let client = node.client(&subscribe("trade", "*"));
    node.run_until_idle();
    node.sequencer.close_source(0, SourceEnd::Lost, node.now_ns);
    node.run_until_idle();
    assert_eq!(states(&node.received(client)), [(1, 'S'), (2, 'S'), (0, 'S')]);
    define(&mut node, 7, 2);
    node.run_until_idle();
    assert_eq!(states(&node.received(client))[3..], [(0, 'L')], "the feed is live, its instruments are not");
    trade_of(&mut node, 7);
    node.run_until_idle();
    assert_eq!(states(&node.received(client))[4..], [(2, 'L')]);
    let messages = node.received(client);
    let sequence = records(&messages, RecordKind::Trade).last().map(|(header, _)| header.sequence.get());
    assert_eq!(sequence, Some(1), "the subscription and the sequence continue");
}

#[test]
fn instrument_of_two_sources_is_live_while_one_is() {
    let mut node = Node::with_sharing_sources(1, &[7]);
    define(&mut node, 7, 1);
    let client = node.client(&subscribe("trade", "S1"));
    node.run_until_idle();
    node.sequencer.close_source(0, SourceEnd::Lost, node.now_ns);
    node.run_until_idle();
    assert!(states(&node.received(client)).is_empty());
    node.sequencer.close_source(7, SourceEnd::Ended, node.now_ns);
    node.run_until_idle();
    assert_eq!(states(&node.received(client)), [(1, 'E'), (0, 'E')]);
}

#[test]
fn late_slow_and_resuming_clients_receive_the_stale_state() {
    let mut node = Node::new(2);
    let slow = node.client(&subscribe("quote", "S1"));
    node.run_until_idle();
    node.limit_socket(slow, 10);
    node.quote(1);
    node.run_until_idle();
    let token = node.sequencer.position();
    node.sequencer.close_source(0, SourceEnd::Lost, node.now_ns);
    node.run_until_idle();
    let late = node.client(&subscribe("quote", "S1"));
    let resumed = node.client(&format!(
        r#"{{"op":"resume","id":1,"epoch":1,"position":{token},"channels":["quote"],"symbols":["S1"]}}"#
    ));
    node.run_until_idle();
    assert_eq!(states(&node.received(late)), [(0, 'S'), (1, 'S')]);
    assert!(states(&node.received(resumed)).contains(&(1, 'S')));
    assert!(states(&node.received(slow)).is_empty());
    node.limit_socket(slow, usize::MAX);
    node.run_until_idle();
    // What its audience was sent, in that order.
    assert_eq!(states(&node.received(slow)), [(1, 'S'), (0, 'S')]);
}

#[test]
fn book_of_a_lost_source_is_flagged_until_a_snapshot() {
    let mut node = Node::new(1);
    node.book(1, true, 5, 1);
    let client = node.client(&subscribe("book", "S1"));
    node.run_until_idle();
    let is_bad = |node: &Node, client: u32| {
        let books = records(&node.received(client), RecordKind::Book);
        books.iter().map(|(header, _)| header.flags & flags::MAYBE_BAD_BOOK != 0).collect::<Vec<_>>()
    };
    node.sequencer.close_source(0, SourceEnd::Lost, node.now_ns);
    node.run_until_idle();
    assert_eq!(is_bad(&node, client), [false, true], "flagged by an empty delta");
    let late = node.client(&subscribe("book", "S1"));
    node.run_until_idle();
    assert_eq!(is_bad(&node, late), [true]);
    node.define(1);
    node.book(1, false, 6, 1);
    node.book(1, true, 7, 1);
    node.book(1, false, 8, 1);
    node.run_until_idle();
    assert_eq!(is_bad(&node, client), [false, true, true, false, false]);
    assert_eq!(is_bad(&node, late), [true, true, false, false]);
}

#[test]
fn records_lost_by_a_source_are_a_gap_for_every_client() {
    let mut node = Node::new(1);
    node.trade(1);
    node.run_until_idle();
    let fast = node.client(&subscribe("trade", "S1"));
    let slow = node.client(&subscribe("trade", "S1"));
    node.run_until_idle();
    let token = node.sequencer.position();
    node.limit_socket(slow, 0);
    node.trade(1);
    let gap = Gap {
        instrument: 1,
        channel: Channel::Trade,
        from_sequence: 100.into(),
        to_sequence: 102.into(),
        reason: GapReason::Slow,
    };
    let mut batch = Vec::new();
    gap.encode(0, &mut batch);
    node.accept(batch);
    node.trade(1);
    node.run_until_idle();
    node.limit_socket(slow, usize::MAX);
    node.run_until_idle();
    let resumed = node.client(&format!(
        r#"{{"op":"resume","id":1,"epoch":1,"position":{token},"channels":["trade"],"symbols":["S1"]}}"#
    ));
    node.run_until_idle();
    for client in [fast, slow, resumed] {
        let messages = node.received(client);
        let gaps: Vec<Gap> =
            records(&messages, RecordKind::Gap).iter().filter_map(|(_, bytes)| Gap::read(bytes)).collect();
        assert_eq!(gaps, [Gap { from_sequence: 3.into(), to_sequence: 5.into(), reason: GapReason::Feed, ..gap }]);
        let trades = records(&messages, RecordKind::Trade);
        let newest: Vec<u64> = trades.iter().rev().take(2).map(|(header, _)| header.sequence.get()).collect();
        assert_eq!(newest, [6, 2]);
    }
    assert_eq!(node.sequencer.counters().lost, 3);
}

#[test]
fn status_of_a_source_applies_to_its_own_instruments_only() {
    let mut node = Node::with_sharing_sources(1, &[7]);
    define(&mut node, 7, 2);
    let client = node.client(&subscribe("trade", "*"));
    node.run_until_idle();
    use FeedState::{Halted, Live};
    for (source, instrument, state) in [(7, 0, Halted), (0, 1, Halted), (0, 9, Halted), (0, 1, Live)] {
        let mut batch = Vec::new();
        record::encode_status(&RecordHeader::of_feed(RecordKind::Status, instrument, 0), state, &mut batch);
        node.sequencer.accept(source, &mut batch, node.now_ns);
    }
    node.run_until_idle();
    assert_eq!(states(&node.received(client)), [(2, 'H'), (1, 'H'), (1, 'L')]);
    assert_eq!(node.sequencer.counters().undefined, 1);
}

#[test]
fn book_is_flagged_after_an_overrun_until_it_is_sent_again() {
    let mut node = Node::with_settings(1, 1 << 16, Settings::default());
    node.book(1, true, 5, 1);
    node.run_until_idle();
    let client = node.client(&subscribe("book", "S1"));
    node.run_until_idle();
    node.book(1, false, 6, 1);
    // More than the ring holds, before the shard's next tick.
    (0..1000).for_each(|_| node.trade(1));
    node.run_until_idle();
    node.book(1, false, 7, 1);
    node.book(1, false, 8, 1);
    node.run_until_idle();
    let books = |node: &Node| records(&node.received(client), RecordKind::Book);
    let is_bad = |header: &RecordHeader| header.flags & flags::MAYBE_BAD_BOOK != 0;
    assert_eq!(
        books(&node).iter().map(|(header, _)| is_bad(header)).collect::<Vec<_>>(),
        [false, true],
        "reported once"
    );
    assert!(node.shard.wants_resync());
    node.sequencer.request_resync(0);
    while node.sequencer.advance_resyncs() {
        node.run_until_idle();
    }
    node.run_until_idle();
    let books = books(&node);
    let (whole, bytes) = books.last().expect("it was sent again");
    let action = record::read_book(bytes).map(|(action, _)| action);
    assert_eq!((is_bad(whole), action), (false, Some(BookAction::Snapshot)));
    let sequences: Vec<u64> = books.iter().map(|(header, _)| header.sequence.get()).collect();
    assert!(sequences.is_sorted_by(|one, next| one < next), "{sequences:?}");
}

#[test]
fn newest_trade_is_restored_after_an_overrun_despite_later_losses() {
    let mut node = Node::with_settings(1, 1 << 16, Settings::default());
    node.trade(1);
    node.run_until_idle();
    (0..1000).for_each(|_| node.trade(1));
    node.run_until_idle();
    let gap = Gap {
        instrument: 1,
        channel: Channel::Trade,
        from_sequence: 1.into(),
        to_sequence: 3.into(),
        reason: GapReason::Feed,
    };
    let mut batch = Vec::new();
    gap.encode(0, &mut batch);
    node.accept(batch);
    node.run_until_idle();
    node.sequencer.request_resync(0);
    while node.sequencer.advance_resyncs() {
        node.run_until_idle();
    }
    node.run_until_idle();
    let late = node.client(&subscribe("trade", "S1"));
    node.run_until_idle();
    let trades = records(&node.received(late), RecordKind::Trade);
    assert_eq!(trades.iter().map(|(header, _)| header.sequence.get()).collect::<Vec<_>>(), [1001]);
}
