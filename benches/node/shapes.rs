//! Nodes with clients of one kind, and the flushes that they are measured with.

use rand::SeedableRng;
use rand::seq::index::sample;
use rand_pcg::Pcg64Mcg;
use tickcast::shard::Encoding;
use tickcast::stats::Counter;

use super::{Node, subscribe, symbol};

/// A node, and the number of quotes in each of its flushes. A stride from quote to quote visits all instruments.
pub struct Shape {
    node: Node,
    instruments: u32,
    quotes: u32,
    next: u32,
}

/// What flushes sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub sends: u64,
    /// Records in all sends together.
    pub records: u64,
}

impl Shape {
    /// All clients subscribe to all of 100 symbols: the same bytes for all.
    pub fn one_audience(clients: u32, quotes: u32) -> Self {
        Self::one_audience_as(Encoding::PLAIN, clients, quotes)
    }

    /// The same in another encoding.
    pub fn one_audience_as(encoding: Encoding, clients: u32, quotes: u32) -> Self {
        Self::new(Node::with_audience(100, clients, encoding), 100, quotes)
    }

    /// Each client is an audience of its own, with a symbol that no other client subscribes to.
    pub fn one_symbol_each(clients: u32, instruments: u32, quotes: u32) -> Self {
        assert!(clients <= instruments, "{clients} clients with a symbol each: expected at most {instruments}");
        Self::new(
            Node::with_clients(instruments, clients, |slot| subscribe(&[symbol(slot + 1)], 0)),
            instruments,
            quotes,
        )
    }

    /// Interests that overlap: each client subscribes to a random choice of symbols. With many more choices than
    /// clients, as in all of the benches, no two are equal.
    pub fn watchlists(clients: u32, watched: usize, instruments: u32, quotes: u32) -> Self {
        let mut random = Pcg64Mcg::seed_from_u64(1);
        let node = Node::with_clients(instruments, clients, |_| {
            let watched = sample(&mut random, instruments as usize, watched);
            subscribe(&watched.iter().map(|index| symbol(index as u32 + 1)).collect::<Vec<_>>(), 0)
        });
        Self::new(node, instruments, quotes)
    }

    /// Flushes of so many quotes on a node with so many instruments.
    pub fn new(node: Node, instruments: u32, quotes: u32) -> Self {
        Self { node, instruments, quotes, next: 0 }
    }

    pub fn flush(&mut self) {
        for _ in 0..self.quotes {
            self.next = (self.next + 7) % self.instruments;
            self.node.quote(self.next + 1);
        }
        self.node.flush();
    }

    /// What these flushes send.
    pub fn sent_by(&mut self, flushes: impl FnOnce(&mut Self)) -> Sent {
        let before = self.sent();
        flushes(self);
        let after = self.sent();
        Sent { sends: after.sends - before.sends, records: after.records - before.records }
    }

    fn sent(&self) -> Sent {
        let shard = &self.node.shard;
        Sent { sends: shard.io().sends, records: shard.counters().get(Counter::Records) }
    }
}
