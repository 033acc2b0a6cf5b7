//! What one client can make a shard do and keep is bounded, and the others go on.

use tickcast::shard::Settings;
use tickcast::stats::Counter;
use tickcast_protocol::RecordKind;
use tickcast_protocol::ws::{Opcode, push_masked_frame};
use tickcast_test_support::node::{MS, Message, Node};

const QUOTES: &str = r#"{"op":"subscribe","id":1,"channels":["quote"],"symbols":["S1"]}"#;

fn node(settings: Settings) -> Node {
    Node::with_settings(4, 1 << 22, Settings { request_bytes_max: 1 << 20, ..settings })
}

/// A request for so many names of its own.
fn names(op: &str, prefix: &str, count: usize) -> String {
    let names: Vec<String> = (0..count).map(|nth| format!("\"{prefix}{nth:05}\"")).collect();
    format!(r#"{{"op":"{op}","id":7,"channels":["quote"],"symbols":[{}],"snapshot":true}}"#, names.join(","))
}

fn unsubscribe(symbol: &str) -> String {
    format!(r#"{{"op":"unsubscribe","id":8,"channels":["quote"],"symbols":["{symbol}"]}}"#)
}

fn closed_with(node: &Node, slot: u32) -> Option<u16> {
    node.received(slot).iter().find_map(|message| match message {
        Message::Close(code) => Some(*code),
        _ => None,
    })
}

fn quotes(node: &Node, slot: u32) -> usize {
    let packets = node.received(slot);
    packets.iter().filter(|message| matches!(message, Message::Packet { header, .. } if header.count > 0)).count()
}

fn work(node: &Node) -> u64 {
    node.shard.counters().get(Counter::RequestWork)
}

#[test]
fn long_request_is_carried_out_over_ticks_in_which_others_get_their_records() {
    let mut node = node(Settings::default());
    let other = node.client(QUOTES);
    node.run_until_idle();
    let asking = node.client(&names("subscribe", "N", 10_000));
    let mut ticks = 0;
    while !node.received_text(asking).contains(r#""type":"subscribed""#) {
        let (had, spent) = (quotes(&node, other), work(&node));
        node.quote(1);
        node.tick();
        ticks += 1;
        assert!(quotes(&node, other) > had, "tick {ticks}");
        // The text is read in the first tick.
        assert!(ticks == 1 || work(&node) - spent < 8_000, "{} units in tick {ticks}", work(&node) - spent);
        assert!(ticks < 100);
    }
    assert!(ticks > 10, "{ticks}");
    assert_eq!(node.shard.counters().get(Counter::RequestsCut), 1);
}

#[test]
fn requests_behind_a_long_one_are_answered_in_order() {
    let mut node = node(Settings::default());
    let slot = node.client(&names("subscribe", "N", 5_000));
    node.send_text(slot, &unsubscribe("N00007"));
    node.send_text(slot, r#"{"op":"ping","id":9}"#);
    node.run_until_idle();
    let text = node.received_text(slot);
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} in {} bytes", text.len()));
    assert!(
        at(r#""type":"subscribed""#) < at(r#""type":"unsubscribed""#) && at(r#""type":"unsubscribed""#) < at("pong")
    );
}

#[test]
fn unsubscribing_costs_what_is_asked_and_a_pattern_one_visit_of_each_item() {
    let mut node = node(Settings { request_work_per_s: 0, ..Settings::default() });
    let slot = node.client(&names("subscribe", "N", 10_000));
    node.run_until_idle();
    let mut cost = |symbol: &str| {
        let before = work(&node);
        node.send_text(slot, &unsubscribe(symbol));
        node.run_until_idle();
        work(&node) - before
    };
    assert!(cost("X00001") < 100 && cost("N00001") < 100, "names are looked up");
    let visit = cost("X*");
    assert!((9_000..12_000).contains(&visit), "{visit}");
    assert!(cost("N0*") < 30_000);
    assert!(cost("X*") < 1_000 + 10_000, "what is gone is not visited");
}

#[test]
fn client_that_has_spent_its_allowance_waits_and_reconnecting_gains_nothing() {
    let mut node = node(Settings { request_work_per_s: 1_000, requests_per_s: 1_000, ..Settings::default() });
    let ping = r#"{"op":"ping","id":9}"#;
    let pongs = |node: &Node, slot| node.received_text(slot).matches("pong").count();
    let open = |node: &mut Node, key: Option<u64>| {
        let slot = node.connect();
        if let Some(key) = key {
            node.set_account(slot, key);
        }
        node.run_until_idle();
        slot
    };
    let (hostile, innocent, exempt) = (open(&mut node, Some(1)), open(&mut node, Some(2)), open(&mut node, None));
    // Two seconds' worth of an address is 8,000.
    node.send_text(hostile, &names("subscribe", "N", 9_000));
    node.run_until_idle();
    let again = open(&mut node, Some(1));
    for slot in [hostile, innocent, exempt, again] {
        node.send_text(slot, ping);
    }
    node.run_until_idle();
    let answered = [hostile, innocent, exempt, again].map(|slot| pongs(&node, slot));
    assert_eq!(answered, [0, 1, 1, 0]);
    assert!(node.shard.counters().get(Counter::Throttled) >= 2);
    assert_eq!(closed_with(&node, hostile), None);
    node.disconnect(hostile);
    node.advance_ms(20_000);
    assert_eq!(pongs(&node, again), 1, "the allowance has refilled");
    assert_eq!(node.shard.counters().get(Counter::RequestsPending), 0);
}

#[test]
fn requests_of_all_clients_together_have_a_share_of_the_shard() {
    const PER_S: u32 = 100_000;
    let settings = Settings { request_work_per_s: 0, shard_work_per_s: PER_S, ..Settings::default() };
    let mut node = node(settings);
    let other = node.client(QUOTES);
    node.run_until_idle();
    let before = work(&node);
    let asking: Vec<u32> = (0..20).map(|nth| node.client(&names("subscribe", &format!("C{nth:02}-"), 5_000))).collect();
    let answered = |node: &Node| {
        let is_answered = |slot: &&u32| node.received_text(**slot).contains(r#""type":"subscribed""#);
        asking.iter().filter(is_answered).count()
    };
    node.run_until_idle();
    // A quarter of a second's worth, and the last tick's.
    let burst = u64::from(PER_S) / 4 + 8_000;
    assert!(work(&node) - before <= burst, "{} units at once", work(&node) - before);
    assert!(answered(&node) < 10 && node.shard.counters().get(Counter::RequestPauses) == 1);
    let had = quotes(&node, other);
    node.quote(1);
    node.run_until_idle();
    assert!(quotes(&node, other) > had, "records are sent while requests wait");
    node.advance_ms(500);
    let spent = work(&node) - before;
    assert!(spent <= burst + u64::from(PER_S) / 2, "{spent} units in half a second");
    assert!(spent >= u64::from(PER_S) / 2, "{spent} units: the time is used");
    node.advance_ms(10_000);
    assert_eq!(answered(&node), 20, "all are answered in the end");
    assert_eq!(node.shard.counters().get(Counter::RequestsPending), 0);
}

/// The beginning of a text frame of so many bytes.
fn frame_begin(payload_bytes: u32, sent: usize) -> Vec<u8> {
    let mut bytes = vec![0x81, 0x80 | 127];
    bytes.extend(u64::from(payload_bytes).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(vec![b'a'; sent]);
    bytes
}

#[test]
fn message_that_is_not_complete_in_time_closes_the_connection() {
    let mut node = node(Settings { message_timeout_ms: 3_000, ..Settings::default() });
    let (slow, good) = (node.connect(), node.connect());
    node.run_until_idle();
    node.send_bytes(slow, &frame_begin(1 << 20, 600_000));
    for _ in 0..2 {
        node.send_bytes(slow, b"a");
        let ping = r#"{"op":"ping","id":9}"#;
        let mut frame = Vec::new();
        push_masked_frame(Opcode::Text, ping.as_bytes(), [1, 2, 3, 4], &mut frame);
        let (head, tail) = frame.split_at(9);
        node.send_bytes(good, head);
        node.advance_ms(1_400);
        node.send_bytes(good, tail);
        node.run_until_idle();
        assert_eq!(closed_with(&node, slow), None);
    }
    assert!(node.shard.input_bytes() > 600_000);
    node.send_bytes(slow, b"a");
    node.advance_ms(1_300);
    assert_eq!(closed_with(&node, slow), Some(1008), "a byte now and then is no progress");
    assert_eq!(node.shard.counters().get(Counter::MessageTimeouts), 1);
    assert_eq!(node.received_text(good).matches("pong").count(), 2, "a message in parts is answered");
    node.advance_ms(2_000);
    node.disconnect(slow);
    assert_eq!(node.shard.input_bytes(), 0);
}

#[test]
fn held_input_has_a_limit_and_the_client_that_holds_most_is_closed() {
    let mut node = node(Settings { input_bytes_max: 1 << 20, ..Settings::default() });
    let small = node.connect();
    node.run_until_idle();
    node.send_bytes(small, &frame_begin(70_000, 500));
    let mut clients = Vec::new();
    for nth in 0..20 {
        let slot = node.connect();
        node.run_until_idle();
        node.send_bytes(slot, &frame_begin(1 << 20, 100_000 + nth));
        node.run_until_idle();
        clients.push(slot);
        assert!(node.shard.input_bytes() <= 1 << 20, "{}", node.shard.input_bytes());
    }
    let closed = clients.iter().filter(|slot| closed_with(&node, **slot) == Some(1008)).count();
    assert!((8..=12).contains(&closed), "{closed}");
    assert_eq!(node.shard.counters().get(Counter::InputShed), closed as u64);
    assert_eq!(closed_with(&node, small), None, "a client that holds little is not closed for others");
}

#[test]
fn held_input_is_shed_while_memory_is_short() {
    let mut node = node(Settings::default());
    let clients: Vec<u32> = (0..4).map(|_| node.connect()).collect();
    node.run_until_idle();
    for (slot, bytes) in clients.iter().zip([100, 3_000, 50_000, 500_000]) {
        node.send_bytes(*slot, &frame_begin(1 << 20, bytes));
    }
    node.run_until_idle();
    node.shard.set_memory_short(true);
    node.run_until_idle();
    let closed: Vec<bool> = clients.iter().map(|slot| closed_with(&node, *slot) == Some(1008)).collect();
    assert_eq!(closed, [false, false, true, true]);
    assert!(node.shard.input_bytes() < 10_000, "{}", node.shard.input_bytes());
}

#[test]
fn more_subscriptions_are_refused_while_memory_is_short() {
    let mut node = node(Settings::default());
    let client = node.connect();
    node.run_until_idle();
    for (is_short, refused) in [(false, 0), (true, 1), (true, 2), (false, 2)] {
        node.shard.set_memory_short(is_short);
        node.send_text(client, r#"{"op":"subscribe","id":1,"channels":["quote"],"symbols":["NEW*"]}"#);
        node.run_until_idle();
        assert_eq!(node.shard.counters().get(Counter::RequestsRefusedMemory), refused, "short: {is_short}");
        assert_eq!(node.shard.counters().get(Counter::RequestErrors), refused);
        node.send_text(client, r#"{"op":"unsubscribe","id":2,"channels":["quote"],"symbols":["NEW*"]}"#);
        node.run_until_idle();
    }
    assert_eq!(closed_with(&node, client), None, "it keeps what it has");
}

#[test]
fn held_input_of_one_address_is_a_quarter() {
    let mut node = node(Settings { input_bytes_max: 1 << 20, ..Settings::default() });
    let open = |node: &mut Node, key: u64| {
        let slot = node.connect();
        node.set_account(slot, key);
        node.run_until_idle();
        node.send_bytes(slot, &frame_begin(1 << 20, 100_000));
        node.run_until_idle();
        slot
    };
    let hostile: Vec<u32> = (0..4).map(|_| open(&mut node, 1)).collect();
    let other = open(&mut node, 2);
    let closed: Vec<bool> = hostile.iter().map(|slot| closed_with(&node, *slot).is_some()).collect();
    assert_eq!(closed, [false, false, true, true]);
    assert_eq!(closed_with(&node, other), None);
}

#[test]
fn patterns_are_few_and_few_of_them_nest() {
    let mut node = node(Settings { patterns_max: 100, ..Settings::default() });
    let slot = node.connect();
    node.run_until_idle();
    let ask = |node: &mut Node, patterns: Vec<String>| {
        let list = patterns.iter().map(|pattern| format!("\"{pattern}*\"")).collect::<Vec<_>>().join(",");
        let before = node.received_text(slot).len();
        node.send_text(slot, &format!(r#"{{"op":"subscribe","id":3,"channels":["quote"],"symbols":[{list}]}}"#));
        node.run_until_idle();
        node.received_text(slot)[before..].to_owned()
    };
    let answer = ask(&mut node, (0..101).map(|nth| format!("P{nth:03}")).collect());
    assert!(answer.contains(r#""code":"limit""#) && answer.contains("101 patterns: expected at most 100"), "{answer}");
    let nested = |from: usize, to: usize| (from..to).map(|length| "A".repeat(length)).collect::<Vec<_>>();
    assert!(ask(&mut node, nested(1, 9)).contains(r#""type":"subscribed""#));
    let answer = ask(&mut node, nested(0, 1));
    assert!(answer.contains("9 patterns that cover the same symbols: expected at most 8"), "{answer}");
    assert!(ask(&mut node, vec!["B".to_owned()]).contains(r#""type":"subscribed""#), "beside them");
    assert!(ask(&mut node, nested(0, 35)).contains(r#""code":"limit""#));
}

#[test]
fn subscriptions_of_an_address_and_of_all_have_a_limit() {
    let mut node = node(Settings { subscription_bytes_max: 1 << 20, request_work_per_s: 0, ..Settings::default() });
    let ask = |node: &mut Node, key: u64, prefix: &str, count: usize| {
        let slot = node.connect();
        node.set_account(slot, key);
        node.run_until_idle();
        node.send_text(slot, &names("subscribe", prefix, count));
        node.run_until_idle();
        (slot, node.received_text(slot))
    };
    let (first, answer) = ask(&mut node, 1, "A", 2_000);
    assert!(answer.contains(r#""type":"subscribed""#));
    let (_, answer) = ask(&mut node, 1, "B", 2_000);
    assert!(answer.contains("the subscriptions of this address would be over its part"), "{answer}");
    let (_, answer) = ask(&mut node, 2, "B", 2_000);
    assert!(answer.contains(r#""type":"subscribed""#));
    node.disconnect(first);
    let (_, answer) = ask(&mut node, 1, "B", 2_000);
    assert!(answer.contains(r#""type":"subscribed""#), "what is gone does not count");
    for key in 3..10 {
        let (_, answer) = ask(&mut node, key, &format!("C{key}"), 2_000);
        if answer.contains("the server has no memory for more subscriptions") {
            let (_, answer) = ask(&mut node, 99, "S", 0);
            assert!(answer.contains(r#""type":"error""#), "an empty list is an error: {answer}");
            return;
        }
    }
    panic!("no limit of all subscriptions");
}

#[test]
fn frames_that_ask_for_nothing_are_work() {
    let mut node = node(Settings { requests_per_s: 10, ..Settings::default() });
    let (ponging, empty, good) = (node.connect(), node.connect(), node.connect());
    node.run_until_idle();
    let mut pong = Vec::new();
    push_masked_frame(Opcode::Pong, b"", [0; 4], &mut pong);
    node.send_bytes(ponging, &pong.repeat(100));
    let before = work(&node);
    let mut fragments = Vec::new();
    push_masked_frame(Opcode::Text, b"", [0; 4], &mut fragments);
    fragments[0] = 0x01;
    let mut continuation = fragments.clone();
    continuation[0] = 0x00;
    fragments.extend(continuation.repeat(10_000));
    node.send_bytes(empty, &fragments);
    node.send_text(good, QUOTES);
    node.run_until_idle();
    assert_eq!(closed_with(&node, ponging), Some(1008), "pongs that nothing asked for are requests");
    assert!(work(&node) - before >= 40_000, "{}", work(&node) - before);
    assert!(node.received_text(good).contains("subscribed"));
}

#[test]
fn clients_that_leave_together_are_removed_in_portions() {
    let mut node = node(Settings { request_work_per_s: 0, ..Settings::default() });
    let other = node.client(QUOTES);
    let leaving: Vec<u32> = (0..8).map(|nth| node.client(&names("subscribe", &format!("L{nth}"), 5_000))).collect();
    node.run_until_idle();
    for slot in &leaving {
        node.end(*slot);
    }
    let mut ticks = 0;
    loop {
        let had = quotes(&node, other);
        node.quote(1);
        node.now_ns += MS;
        assert!(node.tick());
        ticks += 1;
        assert!(quotes(&node, other) > had, "tick {ticks}");
        if !node.tick() {
            break;
        }
    }
    assert!(ticks > 10, "{ticks}");
}

#[test]
fn long_request_of_a_client_that_falls_behind_waits_and_nothing_is_lost() {
    let mut node = node(Settings::default());
    (1..=4).for_each(|id| node.quote(id));
    let slot = node.client(r#"{"op":"subscribe","id":1,"channels":["quote","trade"],"symbols":["S1"]}"#);
    node.run_until_idle();
    let long = names("subscribe", "N", 9_000).replace(r#"["N00000""#, r#"["S1","S2","S3","S4","N00000""#);
    node.send_text(slot, &long);
    (0..3).for_each(|_| {
        node.tick();
    });
    node.limit_socket(slot, 10);
    for _ in 0..50 {
        (1..=4).for_each(|id| node.quote(id));
        node.trade(1);
        node.tick();
    }
    let waits = node.received_text(slot);
    assert!(!waits.contains(r#""id":7"#), "{}", &waits[..waits.len().min(600)]);
    node.limit_socket(slot, usize::MAX);
    node.run_until_idle();
    assert!(node.received_text(slot).contains(r#""type":"subscribed","id":7"#));
    let (mut newest, mut trades) = ([0; 5], Vec::new());
    for message in node.received(slot) {
        let Message::Packet { records, .. } = message else { continue };
        for (header, _) in records {
            match header.known_kind() {
                Some(RecordKind::Quote) => newest[header.instrument as usize] = header.sequence.get(),
                Some(RecordKind::Trade) => trades.push(header.sequence.get()),
                _ => {}
            }
        }
    }
    assert_eq!(newest, [0, 51, 51, 51, 51], "the newest quote of each");
    assert_eq!(trades, (1..=50).collect::<Vec<_>>());
}
