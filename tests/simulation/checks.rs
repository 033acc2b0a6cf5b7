//! Checks of the whole world: between clients, at rest, and after the end.

use std::collections::HashMap;

use tickcast::stats::Counter;

use crate::Seen;
use crate::client::Client;
use crate::io::SendRange;
use crate::node::Node;
use crate::plan::Faults;
use crate::slow_clients::served_ticks;
use crate::world::{MS, World};

impl World {
    /// Clients with the same interest that have been members for a while are sent the same bytes, not copies of them.
    pub fn same_interest_same_bytes(&mut self, index: usize) {
        /// Longer than the longest interval, in which a new member may have had values that are pending for the others.
        const JOINED_NS: u64 = 1200 * MS;
        let node = &self.nodes[index];
        let io = node.shard.io().io();
        let mut sends: HashMap<usize, Vec<SendRange>> = HashMap::new();
        for flushed in &io.flushed {
            sends.entry(flushed.conn).or_default().push(flushed.range);
        }
        let mut first: HashMap<_, (usize, Vec<SendRange>)> = HashMap::new();
        let of_node = || self.clients.iter().filter(|client| client.node == index);
        let served_ticks = served_ticks(of_node().count() as u64);
        for client in of_node().filter(|client| is_quiet(client) && client.peer.is_none()) {
            self.about = Some((index, client.conn));
            let conn = &io.conns[client.conn];
            // One that reads slowly may not know yet that it is closed.
            let is_open = conn.slot_id.is_some() && !conn.socket.has_closed;
            let member = is_open && !conn.socket.cut && !conn.wants_room && conn.to_server.is_empty();
            let joined_ns = if client.oracle.conflates() { JOINED_NS } else { 0 };
            let settled = conn.out_ns + joined_ns < node.ticked_ns[0] && conn.out_tick + served_ticks < node.ticks;
            if !member || !settled {
                continue;
            }
            let sent = sends.remove(&client.conn).unwrap_or_default();
            assert!(sent.len() <= 1, "two sends of one flush to conn {}: {sent:?}", client.conn);
            if let Some((other, expected)) = first.get(&(client.oracle.interest, client.encoding)) {
                assert_eq!(sent, *expected, "conns {} and {other} want the same", client.conn);
                self.seen.same_bytes += u64::from(!sent.is_empty());
            } else {
                first.insert((client.oracle.interest, client.encoding), (client.conn, sent));
            }
        }
        self.about = None;
    }

    /// The feed stops; every client that reads must get everything.
    pub fn rest(&mut self) {
        self.plan.sleeps = 0;
        for node in &mut self.nodes {
            node.asleep = 0;
            node.link = None;
            let io = node.shard.io_mut().io_mut();
            io.faults = Faults { shuffled: io.faults.shuffled, ..Faults::default() };
        }
        self.clients.iter_mut().for_each(|client| client.rate = None);
        while self.resyncing || self.nodes.iter().any(|node| node.shard.has_new_records()) {
            self.now_ns += MS / 10;
            self.tick();
            self.deliver();
        }
        // A socket of a kilobyte takes a large backlog in many ticks; then every pending value and heartbeat has to
        // come.
        let mut quiet = 0;
        for _ in 0..50_000 {
            self.now_ns += 13 * MS;
            self.tick();
            self.deliver();
            let settled = self.nodes.iter().all(|node| node.shard.counters().get(Counter::CatchingUp) == 0);
            let answered = |client: &Client| client.oracle.is_answered() && !client.leaving;
            quiet = if settled && self.readers().all(answered) { quiet + 1 } else { 0 };
            // A client may have read a part of a heartbeat.
            let mut unread =
                self.readers().map(|client| &self.nodes[client.node].shard.io().io().conns[client.conn].to_client);
            if quiet >= 300 && unread.all(|bytes| bytes.is_empty()) {
                break;
            }
        }
        self.is_at_rest();
    }

    fn readers(&self) -> impl Iterator<Item = &Client> {
        self.clients.iter().filter(|client| client.is_there())
    }

    fn is_at_rest(&mut self) {
        let now_ns = self.now_ns;
        for (index, node) in self.nodes.iter_mut().enumerate() {
            assert_eq!(node.shard.counters().get(Counter::CatchingUp), 0, "all clients are members at rest");
            assert!(node.is_idle(now_ns), "shard {index} has something to do at rest");
            node.shard.io_mut().io_mut().events.clear();
        }
        let mut whole = 0;
        for client in self.clients.iter().filter(|client| client.is_there()) {
            self.about = Some((client.node, client.conn));
            let conn = client.conn;
            assert!(!client.leaving, "a client that leaves is dropped");
            assert!(client.oracle.welcomed && client.oracle.is_answered(), "a request of conn {conn} is not answered");
            let silent_ns = now_ns - client.oracle.packets_at_ns;
            assert!(silent_ns < 3000 * MS, "silence without a heartbeat for conn {conn}: {silent_ns} ns");
            client.oracle.is_whole(&self.history);
            whole += client.oracle.items() as u64;
        }
        self.about = None;
        for (index, node) in self.nodes.iter().enumerate() {
            let here = || self.readers().filter(|client| client.node == index);
            let items = here().map(|client| client.oracle.items() as i64).sum();
            // Others may be connected still: clients that have left, and are not gone for the shard.
            if node.sessions.are_of(here().map(|client| client.slot_id)) {
                assert_eq!(node.sessions.open(), (here().count(), items), "sessions of shard {index}");
            }
        }
        self.seen.whole += whole;
        self.counters_add_up();
    }

    /// If no client left or stopped reading, the clients have read exactly what the shard has counted.
    fn counters_add_up(&mut self) {
        for (index, node) in self.nodes.iter().enumerate() {
            let (io, counters) = (node.shard.io().io(), node.shard.counters());
            let tally = io.tally;
            assert_eq!(counters.get(Counter::ClientsAccepted), tally.opened);
            assert_eq!(counters.get(Counter::ClientsClosed), tally.closed);
            assert_eq!(node.shard.clients() as u64, tally.opened - tally.closed);
            let short = counters.get(Counter::ShortSends);
            let slow = counters.get(Counter::SlowClosed);
            // A tail is sent without the shard, and a full socket not tried.
            assert!(
                tally.secured > 0 || (short..=short + slow).contains(&tally.short_sends),
                "{short} short sends and {slow} slow: {tally:?}"
            );
            let mut read = Seen::default();
            let here = || self.clients.iter().filter(|client| client.node == index);
            here().for_each(|client| read.add(&client.oracle.seen));
            let (records, heartbeats) = (counters.get(Counter::Records), counters.get(Counter::Heartbeats));
            let gaps = counters.get(Counter::GapsSent);
            let bounded = read.records <= records + heartbeats && read.heartbeats <= heartbeats && read.gaps <= gaps;
            assert!(bounded, "{records} records, {heartbeats} heartbeats, {gaps} gaps sent, but read: {read:?}");
            if here().all(Client::is_there) {
                assert_eq!((records + heartbeats, heartbeats, gaps), (read.records, read.heartbeats, read.gaps));
                self.seen.counted += 1;
            }
        }
    }

    /// All clients are closed, and nothing is left.
    pub fn end(&mut self) {
        for client in &mut self.clients {
            client.deserves.push(1001);
        }
        for node in &mut self.nodes {
            node.served.see(self.now_ns);
            node.shard.begin_drain(0, self.now_ns);
            node.poke();
        }
        for _ in 0..300 {
            self.now_ns += 21 * MS;
            self.tick();
            self.deliver();
        }
        for node in &self.nodes {
            nothing_is_left(node);
            let (counters, tally) = (node.shard.counters(), node.shard.io().io().tally);
            self.seen.slow_closed += counters.get(Counter::SlowClosed);
            self.seen.unsubscribed_closed += counters.get(Counter::SubscribeTimeouts);
            self.seen.violations += counters.get(Counter::Violations);
            self.seen.overruns += counters.get(Counter::Overruns);
            self.seen.cut_sends += tally.short_sends;
            self.seen.stale += tally.stale;
            self.seen.kept_back += tally.kept_back;
            self.seen.refused += tally.refused;
            self.seen.slept += node.slept;
        }
        for client in &self.clients {
            self.seen.add(&client.oracle.seen);
            self.seen.compressed += client.compressed();
            self.seen.closed_by_notice += client.peer.as_ref().map_or(0, |peer| peer.was_closed.into());
        }
    }
}

/// No request that would change a client's interest is under way.
fn is_quiet(client: &Client) -> bool {
    client.is_there() && !client.leaving && client.oracle.is_answered() && client.oracle.items() > 0
}

fn nothing_is_left(node: &Node) {
    let (shard, io) = (&node.shard, node.shard.io().io());
    assert_eq!(shard.clients(), 0, "all clients are gone");
    assert_eq!(node.sessions.open(), (0, 0), "sessions, and their subscriptions");
    assert_eq!(node.sessions.ended, shard.counters().get(Counter::ClientsAccepted), "each session has ended");
    assert_eq!(io.held(), (0, 0, 0), "slots and pending operations");
    assert_eq!(shard.io().counts().connections, 0, "secured connections");
    assert_eq!(io.tally.opened, io.tally.closed, "every slot is closed once");
    assert_eq!(shard.deadline_ns(), None, "nothing is due");
    let counters = shard.counters();
    for level in [Counter::Clients, Counter::CatchingUp, Counter::Audiences] {
        assert_eq!(counters.get(level), 0, "{level:?}");
    }
    assert_eq!(counters.get(Counter::ClientsAccepted), io.tally.opened);
    assert_eq!(counters.get(Counter::ClientsClosed), io.tally.closed);
}
