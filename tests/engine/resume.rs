//! Resume: a token continues exactly after the last delivered record, or the server reports that it cannot.

use std::collections::HashMap;

use proptest::prelude::*;
use tickcast::shard::Settings;
use tickcast::stats::Counter;
use tickcast_protocol::Book;
use tickcast_protocol::packet::flags as packet_flags;
use tickcast_protocol::record::{self, Channel, Gap, RecordHeader, RecordKind, flags};
use tickcast_test_support::node::{Message, Node};

/// The state of a client across connections: it skips records that are not newer.
#[derive(Default)]
struct View {
    newest: HashMap<(Channel, u32), u64>,
    books: HashMap<u32, Book>,
    gaps: Vec<Gap>,
    token: Option<(u32, u64)>,
    /// Records that were not newer.
    repeated: usize,
}

impl View {
    /// Applies messages. Fails at a sequence gap that no Gap reports.
    fn take(&mut self, messages: &[Message]) {
        for message in messages {
            let Message::Packet { header, records } = message else { continue };
            self.token = Some((header.epoch, header.position.get()));
            records.iter().for_each(|(header, bytes)| self.take_record(header, bytes));
        }
    }

    fn take_record(&mut self, header: &RecordHeader, bytes: &[u8]) {
        let kind = RecordKind::from_wire(header.kind).expect("a known kind");
        if kind == RecordKind::Gap {
            let gap = Gap::read(bytes).expect("a gap");
            self.newest.insert((gap.channel, gap.instrument), gap.to_sequence.get());
            self.gaps.push(gap);
        }
        let Some(channel) = kind.channel() else { return };
        let newest = self.newest.entry((channel, header.instrument)).or_default();
        if header.sequence.get() <= *newest {
            self.repeated += 1;
            return;
        }
        let is_told = header.flags & (flags::SNAPSHOT | flags::CONFLATED) != 0 && !channel.is_log();
        let is_first = *newest == 0;
        assert!(
            header.sequence.get() == *newest + 1 || is_told || is_first || header.flags & flags::SNAPSHOT != 0,
            "{channel:?} {} of instrument {} comes after {newest}",
            header.sequence,
            header.instrument
        );
        *newest = header.sequence.get();
        if let Some((kind, levels)) = record::read_book(bytes).filter(|_| channel == Channel::Book) {
            self.books.entry(header.instrument).or_default().apply(kind, levels);
        }
    }

    /// Fails unless it equals the node's state.
    fn assert_is_current(&self, node: &Node, channels: &[Channel]) {
        for instrument in node.shard.directory().iter() {
            for channel in channels {
                let known = self.newest.get(&(*channel, instrument.id)).copied().unwrap_or_default();
                let newest = node.shard.values().sequence(instrument.id, *channel).get();
                assert_eq!(known, newest, "{channel:?} of {}", instrument.symbol);
            }
            if let Some(book) = node.shard.values().row(instrument.id).and_then(|row| row.book()) {
                let held = self.books.get(&instrument.id);
                assert!(held.is_none_or(|held| *held == book.levels), "the book of {}", instrument.symbol);
            }
        }
    }
}

fn resume(token: (u32, u64), channels: &str, conflate_ms: u32) -> String {
    let (epoch, position) = token;
    format!(
        r#"{{"op":"resume","id":7,"epoch":{epoch},"position":{position},"channels":[{channels}],"symbols":["*"],"conflate_ms":{conflate_ms}}}"#
    )
}

fn subscribe(channels: &str, conflate_ms: u32) -> String {
    format!(r#"{{"op":"subscribe","id":1,"channels":[{channels}],"symbols":["*"],"conflate_ms":{conflate_ms}}}"#)
}

/// `how` of the answers to a resume.
fn answers(messages: &[Message]) -> Vec<&str> {
    let answers = messages.iter().filter_map(|message| match message {
        Message::Text(text) if text.contains("\"resumed\"") => Some(text.as_str()),
        _ => None,
    });
    answers.map(|text| if text.contains("\"how\":\"replay\"") { "replay" } else { "snapshot" }).collect()
}

fn sequences(messages: &[Message], channel: Channel) -> Vec<u64> {
    let records = messages.iter().filter_map(|message| match message {
        Message::Packet { records, .. } => Some(records),
        _ => None,
    });
    let of_channel =
        |header: &&RecordHeader| RecordKind::from_wire(header.kind).and_then(RecordKind::channel) == Some(channel);
    records.flatten().map(|(header, _)| header).filter(of_channel).map(|header| header.sequence.get()).collect()
}

fn packet_flags_of(messages: &[Message]) -> Vec<u8> {
    let flags = messages.iter().filter_map(|message| match message {
        Message::Packet { header, .. } => Some(header.flags),
        _ => None,
    });
    flags.collect()
}

#[test]
fn replay_brings_records_after_the_token_once_in_order_then_live() {
    let mut node = Node::new(2);
    let first = node.client(&subscribe(r#""trade","quote""#, 0));
    node.run_until_idle();
    for _ in 0..3 {
        node.trade(1);
        node.quote(1);
    }
    node.run_until_idle();
    let mut view = View::default();
    view.take(&node.received(first));
    node.disconnect(first);
    for _ in 0..3 {
        node.quote(1);
        node.trade(1);
    }
    node.run_until_idle();
    let second = node.client(&resume(view.token.unwrap(), r#""trade","quote""#, 0));
    node.run_until_idle();
    node.trade(1);
    node.run_until_idle();
    let messages = node.received(second);
    assert_eq!(answers(&messages), ["replay"]);
    assert_eq!(sequences(&messages, Channel::Trade), [4, 5, 6, 7]);
    assert_eq!(sequences(&messages, Channel::Quote), [4, 5, 6]);
    let replay = packet_flags::REPLAY;
    assert_eq!(packet_flags_of(&messages), [replay | packet_flags::CAUGHT_UP, 0]);
    view.take(&messages);
    view.assert_is_current(&node, &[Channel::Trade, Channel::Quote]);
    assert_eq!((view.gaps.len(), view.repeated), (0, 0));
}

#[test]
fn token_of_another_epoch_or_the_future_gets_a_snapshot() {
    let mut node = Node::new(1);
    (0..5).for_each(|_| node.trade(1));
    node.run_until_idle();
    let position = node.sequencer.position().get();
    for token in [(2, position), (1, position + 1), (1, u64::MAX)] {
        let client = node.client(&resume(token, r#""trade""#, 0));
        node.run_until_idle();
        let messages = node.received(client);
        assert_eq!(answers(&messages), ["snapshot"], "{token:?}");
        assert_eq!(sequences(&messages, Channel::Trade), [5]);
        assert_eq!(packet_flags_of(&messages), [packet_flags::SNAPSHOT | packet_flags::CAUGHT_UP]);
    }
    assert_eq!(node.shard.counters().get(Counter::ResumesSnapshot), 3);
}

#[test]
fn token_older_than_the_history_gets_a_snapshot() {
    let settings = Settings { history_ms: 60_000, ..Settings::default() };
    let mut node = Node::with_settings(1, 1 << 16, settings);
    node.trade(1);
    node.run_until_idle();
    let token = (1, node.sequencer.position().get());
    let resumed = |node: &mut Node| {
        let client = node.client(&resume(token, r#""trade""#, 0));
        node.run_until_idle();
        answers(&node.received(client)).join(" ")
    };
    (0..100).for_each(|_| node.trade(1));
    node.run_until_idle();
    assert_eq!(resumed(&mut node), "replay");
    node.advance_s(59);
    assert_eq!(resumed(&mut node), "replay");
    node.advance_s(2);
    assert_eq!(resumed(&mut node), "snapshot", "61 s old");
    let newest = (1, node.sequencer.position().get());
    let client = node.client(&resume(newest, r#""trade""#, 0));
    node.run_until_idle();
    assert_eq!(answers(&node.received(client)), ["replay"], "no record came after it, regardless of its age");
    for _ in 0..1000 {
        node.trade(1);
        node.run_until_idle();
    }
    assert_eq!(resumed(&mut node), "snapshot", "overwritten");
}

#[test]
fn value_pending_when_the_token_was_issued_is_replayed() {
    let mut node = Node::new(2);
    let first = node.client(&subscribe(r#""quote","trade""#, 500));
    node.advance_ms(1200);
    node.quote(1);
    node.run_until_idle();
    // The trade of the other instrument goes out at once, and its packet's position is above the quote's.
    node.trade(2);
    node.run_until_idle();
    let mut view = View::default();
    view.take(&node.received(first));
    assert_eq!(view.token, Some((1, node.sequencer.position().get())));
    node.disconnect(first);
    node.advance_ms(2000);
    let client = node.client(&resume(view.token.unwrap(), r#""quote","trade""#, 500));
    node.advance_ms(1200);
    let messages = node.received(client);
    assert_eq!(answers(&messages), ["replay"]);
    assert_eq!(sequences(&messages, Channel::Quote), [1]);
    assert!(sequences(&messages, Channel::Trade).is_empty());
}

#[test]
fn replay_of_many_ticks_joins_the_live_stream_without_a_gap() {
    let mut node = Node::new(3);
    let token = (1, node.sequencer.position().get());
    for _ in 0..10_000 {
        (1..=3).for_each(|id| node.trade(id));
        node.run_until_idle();
    }
    let client = node.client(&resume(token, r#""trade""#, 0));
    let mut ticks = 0;
    while node.tick() {
        ticks += 1;
        if ticks < 50 {
            node.trade(2);
        }
    }
    assert!(ticks > 25, "{ticks} ticks");
    let mut view = View { newest: (1..=3).map(|id| ((Channel::Trade, id), 0)).collect(), ..View::default() };
    let messages = node.received(client);
    view.take(&messages);
    view.assert_is_current(&node, &[Channel::Trade]);
    assert_eq!((view.gaps.len(), view.repeated), (0, 0));
    let caught_up = packet_flags_of(&messages).iter().filter(|flags| **flags & packet_flags::CAUGHT_UP != 0).count();
    assert_eq!(caught_up, 1);
}

#[test]
fn replay_overtaken_by_the_ring_ends_in_a_reported_snapshot() {
    let mut node = Node::with_settings(1, 1 << 18, Settings::default());
    let token = (1, node.sequencer.position().get());
    for _ in 0..3_000 {
        node.trade(1);
        node.run_until_idle();
    }
    let client = node.client(&resume(token, r#""trade","quote""#, 0));
    node.tick();
    node.limit_socket(client, 1000);
    for _ in 0..4_000 {
        node.trade(1);
        node.quote(1);
        node.run_until_idle();
    }
    node.limit_socket(client, usize::MAX);
    node.run_until_idle();
    let messages = node.received(client);
    assert_eq!(answers(&messages), ["replay", "snapshot"]);
    assert_eq!(node.shard.counters().get(Counter::ReplaysLost), 1);
    let mut view = View::default();
    view.take(&messages);
    view.assert_is_current(&node, &[Channel::Trade, Channel::Quote]);
}

#[test]
fn earlier_subscriptions_are_not_replayed() {
    let mut node = Node::new(2);
    let token = (1, node.sequencer.position().get());
    (1..=2).for_each(|id| node.trade(id));
    node.run_until_idle();
    let client = node.client(r#"{"op":"subscribe","id":1,"channels":["trade"],"symbols":["S1"],"snapshot":false}"#);
    node.run_until_idle();
    node.send_text(client, &resume(token, r#""trade""#, 0));
    node.run_until_idle();
    (1..=2).for_each(|id| node.trade(id));
    node.run_until_idle();
    let mut view = View::default();
    let messages = node.received(client);
    view.take(&messages);
    assert_eq!(sequences(&messages, Channel::Trade), [1, 2, 2], "of S2, of S1, of S2");
    assert_eq!(view.repeated, 0);
}

#[test]
fn empty_snapshot_has_an_end() {
    let mut node = Node::new(1);
    let client = node.client(r#"{"op":"resume","id":1,"epoch":9,"position":1,"channels":["trade"],"symbols":["NO"]}"#);
    node.run_until_idle();
    let messages = node.received(client);
    assert_eq!(answers(&messages), ["snapshot"]);
    assert_eq!(packet_flags_of(&messages), [packet_flags::SNAPSHOT | packet_flags::CAUGHT_UP]);
}

#[test]
fn unknown_name_is_reported() {
    let mut node = Node::new(1);
    let client =
        node.client(r#"{"op":"resume","id":1,"epoch":1,"position":1,"channels":["trade"],"symbols":["NO","S1"]}"#);
    node.run_until_idle();
    let text = format!("{:?}", node.received(client));
    assert!(text.contains(r#"\"count\":1,\"unknown\":[\"NO\"]"#), "{text}");
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Trade(u32),
    Quote(u32),
    Book {
        id: u32,
        whole: bool,
        px: i64,
        sz: i64,
    },
    Define,
    Pass(u64),
    /// Room in the client's socket, bytes.
    Room(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..4u32).prop_map(Step::Trade),
        3 => (1..4u32).prop_map(Step::Quote),
        2 => (1..4u32, prop::bool::weighted(0.2), 1..5i64, 0..3i64)
            .prop_map(|(id, whole, px, sz)| Step::Book { id, whole, px, sz }),
        1 => Just(Step::Define),
        3 => (0..40u64).prop_map(Step::Pass),
        1 => prop_oneof![0..400usize, Just(usize::MAX)].prop_map(Step::Room),
    ]
}

impl Step {
    fn run(self, node: &mut Node, client: u32) {
        match self {
            Self::Trade(id) => node.trade(id),
            Self::Quote(id) => node.quote(id),
            Self::Book { id, whole, px, sz } => node.book(id, whole, px, sz),
            Self::Define => node.define(node.shard.directory().len() as u32 + 1),
            Self::Pass(0) => {
                node.tick();
            }
            Self::Pass(ms) => node.advance_ms(ms),
            Self::Room(bytes) => node.limit_socket(client, bytes),
        }
    }
}

proptest! {
    /// Regardless of which packet a client got last, a resume with its token leaves no gap.
    #[test]
    fn every_packet_after_the_snapshot_has_a_good_token(
        before in prop::collection::vec(step(), 1..60),
        between in prop::collection::vec(step(), 0..40),
        after in prop::collection::vec(step(), 0..20),
        conflate_ms in prop::sample::select(vec![0, 10, 100, 1000]),
        keep in any::<prop::sample::Index>(),
    ) {
        const ALL: &str = r#""trade","quote","book""#;
        let mut node = Node::new(3);
        (1..4).for_each(|id| node.book(id, true, 1, 1));
        node.advance_ms(1);
        let first = node.client(&subscribe(ALL, conflate_ms));
        node.run_until_idle();
        let snapshot = node.received(first).len();
        before.iter().for_each(|step| step.run(&mut node, first));
        node.run_until_idle();
        let mut messages = node.received(first);
        messages.truncate(snapshot + keep.index(messages.len() - snapshot + 1));
        let mut view = View::default();
        view.take(&messages);
        node.disconnect(first);
        between.iter().for_each(|step| step.run(&mut node, first));
        let second = node.client(&resume(view.token.unwrap(), ALL, conflate_ms));
        after.iter().for_each(|step| step.run(&mut node, second));
        node.limit_socket(second, usize::MAX);
        node.advance_ms(1100);
        let messages = node.received(second);
        prop_assert_eq!(answers(&messages), ["replay"]);
        view.take(&messages);
        view.assert_is_current(&node, &[Channel::Trade, Channel::Quote, Channel::Book]);
        prop_assert_eq!(view.gaps.len(), 0);
    }
}

#[test]
fn token_stays_before_an_overrun_until_lost_values_are_sent_again() {
    let mut node = Node::with_settings(1, 1 << 16, Settings::default());
    let client = node.client(&subscribe(r#""trade""#, 0));
    node.trade(1);
    node.run_until_idle();
    let token_before = token_of(&node.received(client));
    // More than the ring holds, before the shard's next tick.
    (0..1000).for_each(|_| node.trade(1));
    node.run_until_idle();
    node.trade(1);
    node.run_until_idle();
    assert_eq!(token_of(&node.received(client)), token_before, "values may be missing: another shard has them");
    assert!(node.shard.wants_resync());
    node.sequencer.request_resync(0);
    node.shard.resync_requested();
    while node.sequencer.advance_resyncs() {
        node.run_until_idle();
    }
    node.trade(1);
    node.run_until_idle();
    assert_eq!(token_of(&node.received(client)), node.sequencer.position().get());
}

/// The position that the last packet states.
fn token_of(messages: &[Message]) -> u64 {
    let position = |message: &Message| match message {
        Message::Packet { header, .. } => Some(header.position.get()),
        _ => None,
    };
    messages.iter().rev().find_map(position).expect("a packet")
}
