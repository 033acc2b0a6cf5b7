//! Slow clients: what they share with their audience, what is kept for them, and how they are closed.

use tickcast::io::SlotId;
use tickcast::shard::Settings;
use tickcast::stats::Counter;
use tickcast_protocol::record::{Gap, Quote, RecordKind, flags};
use tickcast_test_support::node::{Message, Node};

/// A piece of some 16 KiB, its frame header, and the record that exceeds it.
const KEPT_BYTES_MAX: usize = 17 * 1024;
/// The records of one flush, in packets.
const FLUSH_BYTES_MAX: usize = 65 * 1024;
const SECOND_MS: u64 = 1000;

fn subscribe(channels: &str, symbols: &str) -> String {
    format!(r#"{{"op":"subscribe","id":1,"channels":{channels},"symbols":["{symbols}"]}}"#)
}

/// Clients with one subscription that have received its snapshot.
fn clients(node: &mut Node, count: usize, channels: &str, symbols: &str) -> Vec<u32> {
    let slots = (0..count).map(|_| node.client(&subscribe(channels, symbols))).collect();
    node.run_until_idle();
    slots
}

fn kept_bytes(node: &Node, slot: u32) -> usize {
    node.shard.kept_bytes(SlotId { index: slot, generation: 0 })
}

fn count(node: &Node, counter: Counter) -> u64 {
    node.shard.counters().get(counter)
}

/// The sequences of the trades that a client was sent, in order.
fn trades(messages: &[Message]) -> Vec<u64> {
    let records = messages.iter().filter_map(|message| match message {
        Message::Packet { records, .. } => Some(records),
        _ => None,
    });
    let trades = records.flatten().filter(|(header, _)| header.kind == RecordKind::Trade as u8);
    trades.map(|(header, _)| header.sequence.get()).collect()
}

/// The sequences and flags of the quotes that a client was sent, in order.
fn quotes(messages: &[Message]) -> Vec<(u64, u8)> {
    let records = messages.iter().filter_map(|message| match message {
        Message::Packet { records, .. } => Some(records),
        _ => None,
    });
    let quotes = records.flatten().filter(|(header, _)| header.kind == RecordKind::Quote as u8);
    quotes.map(|(header, _)| (header.sequence.get(), header.flags & flags::CONFLATED)).collect()
}

#[test]
fn members_that_fall_behind_together_share_the_bytes_and_miss_nothing() {
    let mut node = Node::new(1);
    let slots = clients(&mut node, 50, r#"["trade"]"#, "S1");
    slots.iter().for_each(|slot| node.limit_socket(*slot, 30 + 7 * *slot as usize));
    for _ in 0..500 {
        node.trade(1);
        node.advance_ms(4);
    }
    assert_eq!(count(&node, Counter::Lagging), 50);
    assert_eq!(count(&node, Counter::SentHistoryLeft), 0);
    let sends = count(&node, Counter::LaggingSends);
    let bytes = node.shard.sent_history_bytes();
    // 500 packets of 64 B, their headers of 26, and the marks' part of the memory is not counted.
    assert!((45_000..60_000).contains(&bytes), "{bytes} bytes for all 50");
    assert!(slots.iter().all(|slot| kept_bytes(&node, *slot) == 0), "nothing for one alone");
    slots.iter().for_each(|slot| node.limit_socket(*slot, usize::MAX));
    node.advance_ms(200);
    assert_eq!(count(&node, Counter::Lagging), 0);
    assert_eq!(node.shard.sent_history_bytes(), 0, "freed with the last lagging member");
    assert_eq!(count(&node, Counter::LaggingSends) - sends, 50, "one send took all");
    for slot in slots {
        assert_eq!(trades(&node.received(slot)), (1..=500).collect::<Vec<_>>(), "slot {slot}");
    }
}

#[test]
fn member_beyond_the_kept_bytes_goes_on_alone_and_misses_nothing() {
    let settings = Settings { sent_history_bytes: 16 * 1024, ..Settings::default() };
    let mut node = Node::with_settings(1, 1 << 22, settings);
    let slots = clients(&mut node, 5, r#"["trade"]"#, "S1");
    node.limit_socket(slots[0], 100);
    for _ in 0..500 {
        node.trade(1);
        node.advance_ms(1);
        assert!(node.shard.sent_history_bytes() <= 16 * 1024, "{}", node.shard.sent_history_bytes());
        assert!(kept_bytes(&node, slots[0]) <= KEPT_BYTES_MAX);
    }
    assert_eq!(count(&node, Counter::SentHistoryLeft), 1);
    node.limit_socket(slots[0], usize::MAX);
    node.advance_ms(200);
    for slot in slots {
        assert_eq!(trades(&node.received(slot)), (1..=500).collect::<Vec<_>>(), "slot {slot}");
    }
}

#[test]
fn all_audiences_together_stay_within_the_kept_bytes() {
    const MAX: usize = 100 * 1024;
    let settings = Settings { sent_history_bytes: MAX, ..Settings::default() };
    let mut node = Node::with_settings(40, 1 << 24, settings);
    let slots: Vec<u32> =
        (1..=40).flat_map(|instrument| clients(&mut node, 2, r#"["trade"]"#, &format!("S{instrument}"))).collect();
    slots.iter().for_each(|slot| node.limit_socket(*slot, 10));
    // Each flush of an audience is one span between two marks, of up to 20 KB.
    for round in 1..=20 {
        (1..=40).for_each(|instrument| (0..instrument * round / 2).for_each(|_| node.trade(instrument)));
        node.advance_ms(20);
        let bytes = node.shard.sent_history_bytes();
        assert!(bytes <= MAX, "{bytes} bytes in round {round}");
    }
    assert!(count(&node, Counter::SentHistoryLeft) > 0);
    slots.iter().for_each(|slot| node.limit_socket(*slot, usize::MAX));
    node.advance_ms(200);
    for (slot, instrument) in slots.iter().zip((1..=40).flat_map(|instrument| [instrument; 2])) {
        let sent: u64 = (1..=20).map(|round| instrument * round / 2).sum();
        assert_eq!(trades(&node.received(*slot)), (1..=sent).collect::<Vec<_>>(), "slot {slot}");
    }
}

#[test]
fn without_kept_bytes_each_slow_client_goes_on_alone() {
    let settings = Settings { sent_history_bytes: 0, ..Settings::default() };
    let mut node = Node::with_settings(1, 1 << 22, settings);
    let slots = clients(&mut node, 5, r#"["trade"]"#, "S1");
    slots.iter().for_each(|slot| node.limit_socket(*slot, 100));
    for _ in 0..100 {
        node.trade(1);
        node.advance_ms(1);
    }
    assert_eq!((node.shard.sent_history_bytes(), count(&node, Counter::LaggingSends)), (0, 0));
    slots.iter().for_each(|slot| node.limit_socket(*slot, usize::MAX));
    node.advance_ms(200);
    for slot in slots {
        assert_eq!(trades(&node.received(slot)), (1..=100).collect::<Vec<_>>(), "slot {slot}");
    }
}

#[test]
fn slow_client_of_values_gets_the_newest_not_those_that_it_was_too_slow_for() {
    let mut node = Node::new(20);
    let slots = clients(&mut node, 2, r#"["quote"]"#, "S*");
    node.limit_socket(slots[0], 10);
    for _ in 0..200 {
        (1..=20).for_each(|instrument| node.quote(instrument));
        node.advance_ms(5);
    }
    assert!(kept_bytes(&node, slots[0]) <= KEPT_BYTES_MAX);
    node.limit_socket(slots[0], usize::MAX);
    node.advance_ms(200);
    let slow = quotes(&node.received(slots[0]));
    let (rest, newest) = slow.split_at(slow.len() - 20);
    assert_eq!(newest, [(200, flags::CONFLATED); 20]);
    assert!(rest.iter().all(|(sequence, _)| *sequence <= 4), "what was cut, up to the next mark: {rest:?}");
    assert_eq!(quotes(&node.received(slots[1])).len(), 20 * 200);
}

#[test]
fn nothing_is_made_for_a_client_that_has_an_unsent_rest() {
    // 2,000 quotes are 128 KB: eight pieces. All trades are waited for.
    let settings = Settings { log_lag_ms: 0, ..Settings::default() };
    let mut node = Node::with_settings(2000, 1 << 26, settings);
    (1..=2000).for_each(|instrument| node.quote(instrument));
    node.run_until_idle();
    let slot = clients(&mut node, 1, r#"["quote","trade"]"#, "S*")[0];
    for _ in 0..300 {
        (1..=2000).for_each(|instrument| node.quote(instrument));
        node.trade(1);
        node.limit_socket(slot, 500);
        node.advance_ms(10);
        assert!(kept_bytes(&node, slot) <= FLUSH_BYTES_MAX, "{} bytes are kept", kept_bytes(&node, slot));
    }
    let received = quotes(&node.received(slot));
    let newest = received.last().expect("some").0;
    assert!(newest > 150, "a flush of 64 KiB takes 131 rounds, so {newest} of 301 is too old");
    node.limit_socket(slot, usize::MAX);
    node.advance_ms(200);
    assert_eq!(trades(&node.received(slot)), (1..=300).collect::<Vec<_>>());
}

#[test]
fn client_whose_socket_was_full_gets_one_piece_whenever_it_has_room() {
    let mut node = Node::with_settings(2000, 1 << 24, Settings::default());
    let slot = clients(&mut node, 1, r#"["quote"]"#, "S*")[0];
    node.limit_socket(slot, 0);
    (1..=2000).for_each(|instrument| node.quote(instrument));
    node.advance_ms(500);
    let mut before = quotes(&node.received(slot)).len();
    // The rest of the flush that was cut goes first.
    for bytes_max in [FLUSH_BYTES_MAX, KEPT_BYTES_MAX, KEPT_BYTES_MAX, KEPT_BYTES_MAX] {
        (1..=2000).for_each(|instrument| node.quote(instrument));
        node.congest_socket(slot);
        node.advance_ms(50);
        let after = quotes(&node.received(slot)).len();
        let bytes = (after - before) * Quote::BYTES;
        assert!(after > before && bytes <= bytes_max, "{bytes} bytes while the socket had room once");
        before = after;
    }
}

/// From each packet the client could resume, without a value that it was not sent.
#[test]
fn packets_of_a_walk_over_values_state_no_position_beyond_a_value_that_is_missing() {
    let mut node = Node::with_settings(2000, 1 << 24, Settings::default());
    let slot = clients(&mut node, 1, r#"["quote"]"#, "S*")[0];
    node.limit_socket(slot, 0);
    let mut published = Vec::new();
    for round in 0..40 {
        (1..=2000).for_each(|instrument| node.quote(instrument));
        published.push(node.sequencer.position());
        if round > 0 {
            node.congest_socket(slot);
        }
        node.advance_ms(150);
    }
    let mut newest = vec![0; 2001];
    let mut checked = 0;
    for message in node.received(slot) {
        let Message::Packet { header, records } = message else { continue };
        let quotes = records.iter().filter(|(header, _)| header.kind == RecordKind::Quote as u8);
        quotes.for_each(|(header, _)| newest[header.instrument as usize] = header.sequence.get());
        let rounds = published.partition_point(|position| *position <= header.position) as u64;
        assert!(newest[1..].iter().all(|sequence| *sequence >= rounds), "{header:?}: round {rounds} is not whole");
        checked += usize::from(rounds > 0 && rounds < 40);
    }
    assert!(checked > 5, "{checked} packets of incomplete walks");
}

#[test]
fn client_that_is_slow_for_ever_gets_its_log_records_beside_the_values() {
    let mut node = Node::with_settings(2000, 1 << 24, Settings::default());
    let slot = clients(&mut node, 1, r#"["quote","trade"]"#, "S*")[0];
    for _ in 0..300 {
        (1..=2000).for_each(|instrument| node.quote(instrument));
        node.trade(7);
        // A tenth of the rate: a walk over all values takes some ten rounds and never ends in one tick.
        node.limit_socket(slot, 12_800);
        node.advance_ms(10);
    }
    let received = trades(&node.received(slot));
    assert!(received.len() > 200, "{} of 300 trades", received.len());
}

#[test]
fn too_slow_client_gets_the_rest_of_the_cut_frame_and_the_reason() {
    let settings = Settings { slow_timeout_ms: 2000, idle_timeout_ms: 600_000, ..Settings::default() };
    let mut node = Node::with_settings(2, 1 << 22, settings);
    let slots = clients(&mut node, 3, r#"["trade","quote"]"#, "S*");
    for slot in &slots {
        node.limit_socket(*slot, 40 * *slot as usize);
    }
    for _ in 0..40 {
        (1..=2).for_each(|instrument| node.quote(instrument));
        (1..=50).for_each(|_| node.trade(1));
        node.advance_ms(100);
    }
    assert_eq!(count(&node, Counter::SlowClosed), 3);
    let before: Vec<usize> = slots.iter().map(|slot| kept_bytes(&node, *slot)).collect();
    assert!(before.iter().all(|bytes| (1..KEPT_BYTES_MAX).contains(bytes)), "{before:?}");
    slots.iter().for_each(|slot| node.limit_socket(*slot, usize::MAX));
    node.run_until_idle();
    for slot in slots {
        let received = node.received(slot);
        let [.., Message::Text(reason), Message::Close(4002)] = &received[..] else { panic!("{received:?}") };
        assert!(reason.contains(r#""reason":"slow_consumer""#), "{reason}");
    }
}

#[test]
fn client_that_does_not_take_the_reason_is_dropped() {
    let settings = Settings { slow_timeout_ms: 2000, idle_timeout_ms: 600_000, ..Settings::default() };
    let mut node = Node::with_settings(1, 1 << 22, settings);
    let slot = clients(&mut node, 1, r#"["trade"]"#, "S1")[0];
    node.limit_socket(slot, 0);
    node.trade(1);
    node.advance_ms(4 * SECOND_MS);
    assert_eq!((count(&node, Counter::SlowClosed), node.shard.clients()), (1, 1));
    node.advance_ms(12 * SECOND_MS);
    assert_eq!((count(&node, Counter::SlowClosed), node.shard.clients()), (1, 0));
}

#[test]
fn gaps_of_many_channels_come_in_pieces_and_are_exact() {
    let settings = Settings { sent_history_bytes: 0, backlog_bytes_max: 64 << 10, ..Settings::default() };
    let mut node = Node::with_settings(1000, 1 << 22, settings);
    (1..=1000).for_each(|instrument| node.trade(instrument));
    let slot = clients(&mut node, 1, r#"["trade"]"#, "S*")[0];
    node.limit_socket(slot, 0);
    for _ in 0..3 {
        (1..=1000).for_each(|instrument| node.trade(instrument));
        node.advance_ms(1);
    }
    for _ in 0..200 {
        node.limit_socket(slot, 1000);
        node.advance_ms(1);
        assert!(kept_bytes(&node, slot) <= 64 * 1024 + KEPT_BYTES_MAX, "the rest of one flush, or a piece");
        node.trade(5);
    }
    node.limit_socket(slot, usize::MAX);
    node.advance_ms(100);
    let received = node.received(slot);
    let mut last = vec![0; 1001];
    for message in &received {
        let Message::Packet { records, .. } = message else { continue };
        for (header, bytes) in records {
            let held = &mut last[header.instrument as usize];
            if header.kind == RecordKind::Trade as u8 {
                let sequence = header.sequence.get();
                assert!(*held == 0 || sequence == *held + 1, "trade {sequence} after {held}");
                *held = sequence;
            } else if let Some(gap) = Gap::read(bytes).filter(|_| header.kind == RecordKind::Gap as u8) {
                assert_eq!(gap.from_sequence.get(), *held + 1, "a Gap of instrument {}", gap.instrument);
                *held = gap.to_sequence.get();
            }
        }
    }
    assert_eq!(last[5], 204);
    assert!(last[1..].iter().all(|last| *last >= 4), "{last:?}");
}

#[test]
fn trades_of_a_client_that_is_too_slow_for_them_become_a_gap_before_they_are_old() {
    let mut node = Node::with_settings(200, 1 << 24, Settings::default());
    let slot = clients(&mut node, 1, r#"["quote","trade"]"#, "S*")[0];
    let mut newest_ns = 0;
    for round in 0..1000 {
        (1..=200).for_each(|instrument| node.quote(instrument));
        (1..=100).for_each(|instrument| node.trade(instrument));
        // Some 20 KB are new.
        node.limit_socket(slot, 2000);
        node.advance_ms(10);
        if round % 100 == 99 {
            newest_ns = node.now_ns;
        }
    }
    let received = node.received(slot);
    let record = |kind: RecordKind| {
        let records = received.iter().filter_map(|message| match message {
            Message::Packet { records, .. } => Some(records),
            _ => None,
        });
        records.flatten().filter(move |(header, _)| header.kind == kind as u8).map(|(header, _)| header.ts_recv)
    };
    let newest_trade_ns = record(RecordKind::Trade).max().expect("some");
    assert!(record(RecordKind::Gap).count() > 0);
    let lag_ms = (newest_ns - newest_trade_ns) / 1_000_000;
    assert!(lag_ms < 3000, "{lag_ms} ms, of 10,000 in which it was slow");
}

#[test]
fn trades_of_a_client_that_catches_up_after_a_stall_are_complete() {
    let mut node = Node::with_settings(200, 1 << 24, Settings::default());
    let slot = clients(&mut node, 1, r#"["quote","trade"]"#, "S*")[0];
    node.limit_socket(slot, 0);
    for _ in 0..1000 {
        (1..=200).for_each(|instrument| node.quote(instrument));
        node.trade(1);
        node.advance_ms(10);
    }
    for _ in 0..2000 {
        (1..=200).for_each(|instrument| node.quote(instrument));
        node.trade(1);
        node.limit_socket(slot, 16_000);
        node.advance_ms(10);
    }
    assert_eq!(trades(&node.received(slot)), (1..=3000).collect::<Vec<_>>());
}
