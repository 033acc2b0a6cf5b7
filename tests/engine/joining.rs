//! Between the snapshot and the live stream a client gets every record once and in order.

use tickcast_protocol::record::{Channel, RecordKind};
use tickcast_test_support::node::{Message, Node};

/// Channel, instrument and sequence of all records that a client was sent.
fn received(node: &Node, client: u32) -> Vec<(Channel, u32, u64)> {
    let mut all = Vec::new();
    for message in node.received(client) {
        let Message::Packet { records, .. } = message else { continue };
        all.extend(records.iter().filter_map(|(header, _)| {
            Some((RecordKind::from_wire(header.kind)?.channel()?, header.instrument, header.sequence.get()))
        }));
    }
    all
}

fn assert_each_once_and_in_order(received: &[(Channel, u32, u64)]) {
    for (at, (channel, instrument, sequence)) in received.iter().enumerate() {
        let later = received[at + 1..].iter().find(|(c, i, s)| (c, i) == (channel, instrument) && s <= sequence);
        assert_eq!(later, None, "{channel:?} {sequence} of instrument {instrument} is followed by it");
    }
}

#[test]
fn trade_during_a_snapshot_in_chunks_comes_once() {
    const INSTRUMENTS: u32 = 3_000;
    let mut node = Node::new(INSTRUMENTS);
    (1..=INSTRUMENTS).for_each(|id| node.trade(id));
    node.run_until_idle();
    let slot = node.client(r#"{"op":"subscribe","id":1,"channels":["trade"],"symbols":["*"]}"#);
    node.tick();
    let first_chunk = received(&node, slot).len();
    assert!((1..INSTRUMENTS as usize).contains(&first_chunk), "the snapshot takes several ticks, not {first_chunk}");
    node.trade(INSTRUMENTS);
    node.trade(INSTRUMENTS);
    node.run_until_idle();
    node.trade(INSTRUMENTS);
    node.run_until_idle();
    let received = received(&node, slot);
    assert_each_once_and_in_order(&received);
    let of_last: Vec<u64> = received.iter().filter(|(_, id, _)| *id == INSTRUMENTS).map(|(_, _, s)| *s).collect();
    assert_eq!(of_last, [2, 3, 4], "the trades after the request, each once");
    assert_eq!(received.len(), INSTRUMENTS as usize - 1 + 3);
}

#[test]
fn pending_quote_in_the_snapshot_is_not_repeated_before_a_trade() {
    let mut node = Node::new(1);
    let request = r#"{"op":"subscribe","id":1,"channels":["quote","trade"],"symbols":["S1"],"conflate_ms":100}"#;
    let early = node.client(request);
    node.run_until_idle();
    node.quote(1);
    node.run_until_idle();
    let late = node.client(request);
    node.run_until_idle();
    node.trade(1);
    node.run_until_idle();
    assert_eq!(received(&node, early), [(Channel::Quote, 1, 1), (Channel::Trade, 1, 1)]);
    assert_eq!(received(&node, late), [(Channel::Quote, 1, 1), (Channel::Trade, 1, 1)]);
}
