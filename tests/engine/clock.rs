//! The wall clock is set: stamps follow, and no deadline is disturbed.

use tickcast::ingest::feed::sim::{Params, Sim};
use tickcast::ingest::source::{Batch, Source, Times};
use tickcast::shard::Settings;
use tickcast_protocol::record;
use tickcast_test_support::node::{MS, Message, Node, START_NS};

const HOUR_NS: i64 = 3_600_000_000_000;
const SUBSCRIBE: &str =
    r#"{"op":"subscribe","id":1,"channels":["quote","trade"],"symbols":["*"],"conflate_ms":100,"snapshot":true}"#;

/// Kind, position and size of each message, and the `ts_send` of the packets.
fn run(steps: &[(u64, i64)]) -> (Vec<String>, Vec<u64>) {
    let settings =
        Settings { heartbeat_ms: 1000, ping_interval_ms: 3000, ping_timeout_ms: 2000, ..Settings::default() };
    let mut node = Node::with_settings(3, 1 << 20, settings);
    let client = node.client(SUBSCRIBE);
    let silent = node.connect();
    for ms in 0..12_000 {
        if let Some((_, offset_ns)) = steps.iter().find(|(at_ms, _)| *at_ms == ms) {
            node.shard.set_wall_offset(*offset_ns);
        }
        // Values that wait for the end of an interval, a trade now and then, and a silence with heartbeats.
        if ms % 30 == 0 && ms < 4_000 {
            node.quote(1);
        }
        if ms % 500 == 0 && ms < 4_000 {
            node.trade(2);
        }
        if ms % 2_000 == 0 {
            node.send_text(client, r#"{"op":"ping","id":7}"#);
        }
        node.advance_ms(1);
    }
    let mut sent_ns = Vec::new();
    let mut shape = |message: &Message| match message {
        Message::Text(text) => text.split(",\"ts\"").next().unwrap_or_default().to_owned(),
        Message::Packet { header, records } => {
            sent_ns.push(header.ts_send);
            format!("{} records to {:?}", records.len(), header.position)
        }
        Message::Close(code) => format!("close {code}"),
    };
    let mut shapes: Vec<_> = node.received(client).iter().map(&mut shape).collect();
    shapes.extend(node.received(silent).iter().map(&mut shape));
    (shapes, sent_ns)
}

#[test]
fn stamps_follow_a_step_and_what_is_sent_when_does_not_change() {
    let (expected, before_ns) = run(&[]);
    assert!(expected.iter().any(|shape| shape.starts_with("close")), "the silent client is closed at its time");
    assert!(expected.iter().filter(|shape| shape.starts_with("1 records")).count() > 20, "{expected:?}");
    for steps in [
        &[(2_000, 7 * HOUR_NS)][..],
        &[(2_000, -7 * HOUR_NS)],
        &[(500, HOUR_NS), (2_050, -HOUR_NS), (6_000, 30 * 24 * HOUR_NS), (6_001, 0)],
    ] {
        let (shapes, sent_ns) = run(steps);
        assert_eq!(shapes, expected, "{steps:?}");
        for (plain_ns, stepped_ns) in before_ns.iter().zip(&sent_ns) {
            // The time of the shard is a millisecond further than the loop that sets the offset.
            let ms = (plain_ns - START_NS - MS) / MS;
            let step = steps.iter().rev().find(|(at_ms, _)| ms > *at_ms);
            let offset_ns = step.map_or(0, |(_, offset_ns)| *offset_ns);
            assert_eq!(*stepped_ns, plain_ns.saturating_add_signed(offset_ns), "{steps:?} at {ms} ms");
        }
    }
}

#[test]
fn the_simulated_market_keeps_its_pace_and_its_stamps_follow() {
    let params = Params::parse("instruments=2,rate=1000,seed=5").expect("a market");
    let run = |offset_ns: i64| {
        let mut sim = Sim::new(&params);
        let (mut batch, mut stamps) = (Batch::default(), Vec::new());
        for ms in 0..400 {
            let wall_offset_ns = if ms < 200 { 0 } else { offset_ns };
            batch.clear();
            sim.receive(Times { wall_offset_ns, ..Times::at(START_NS + ms * MS) }, &mut batch).expect("no error");
            stamps.extend(record::records(&batch.records).map(|(header, _)| (ms, header.kind, header.ts_event)));
        }
        stamps
    };
    let (plain, stepped) = (run(0), run(-3 * HOUR_NS));
    assert!(plain.iter().any(|(ms, ..)| *ms > 200) && plain.len() == stepped.len());
    for (before, after) in plain.iter().zip(&stepped) {
        let moved_ns = if before.0 < 200 { 0 } else { -3 * HOUR_NS };
        assert_eq!((after.0, after.1, after.2), (before.0, before.1, before.2.saturating_add_signed(moved_ns)));
    }
}

#[test]
fn a_step_is_no_silence_of_a_source_and_hides_none() {
    const SILENCE_NS: u64 = 10_000 * MS;
    for step_ns in [7 * HOUR_NS, -7 * HOUR_NS] {
        let mut node = Node::new(1);
        let wall_ns = |now_ns: u64| now_ns.saturating_add_signed(step_ns);
        node.sequencer.shift_activity(step_ns);
        assert!(!node.sequencer.check_sources(SILENCE_NS, wall_ns(node.now_ns + SILENCE_NS - MS)), "{step_ns}");
        assert!(node.sequencer.check_sources(SILENCE_NS, wall_ns(node.now_ns + SILENCE_NS)), "{step_ns}");
    }
}

#[test]
fn a_shard_that_was_not_run_closes_no_client_that_answers_and_the_silent_ones_at_their_time() {
    let settings = Settings {
        heartbeat_ms: 1000,
        ping_interval_ms: 3000,
        ping_timeout_ms: 3000,
        idle_timeout_ms: 8000,
        subscribe_timeout_ms: 5000,
        ..Settings::default()
    };
    let mut node = Node::with_settings(1, 1 << 20, settings);
    let (answering, subscribing, silent) = (node.client(SUBSCRIBE), node.connect(), node.client(SUBSCRIBE));
    node.advance_ms(2000);
    let codes = |node: &Node, slot: u32| -> Vec<u16> {
        let code = |message| if let Message::Close(code) = message { Some(code) } else { None };
        node.received(slot).into_iter().filter_map(code).collect()
    };
    let sent_before = node.received(answering).len();
    node.now_ns += 50_000 * MS;
    node.run_until_idle();
    let now_ns = node.now_ns;
    for slot in [answering, subscribing, silent] {
        assert_eq!(codes(&node, slot), [0; 0], "closed right after the pause");
    }
    // Stamps are those of the clock.
    node.quote(1);
    node.advance_ms(100);
    let stamp_ns = node.received(answering)[sent_before..].iter().find_map(|message| match message {
        Message::Packet { header, records } if !records.is_empty() => Some(header.ts_send),
        _ => None,
    });
    assert!(stamp_ns.is_some_and(|stamp_ns| (now_ns..=node.now_ns).contains(&stamp_ns)), "{stamp_ns:?}");
    node.send_text(subscribing, SUBSCRIBE);
    for _ in 0..20 {
        for slot in [answering, subscribing] {
            node.send_text(slot, r#"{"op":"ping","id":7}"#);
        }
        node.advance_ms(1000);
    }
    assert_eq!(
        (codes(&node, answering), codes(&node, subscribing), codes(&node, silent)),
        (vec![], vec![], vec![1008])
    );
}
