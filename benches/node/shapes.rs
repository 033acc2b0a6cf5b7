//! Nodes with clients of one kind, and the sweeps that they are measured with.

use rand::SeedableRng;
use rand::seq::index::sample;
use rand_pcg::Pcg64Mcg;
use tickcast::shard::Encoding;
use tickcast::stats::Counter;

use super::{Node, subscribe, symbol};

/// A node, and how many quotes one of its sweeps carries. From quote to quote goes a stride that visits all instruments.
pub struct Shape {
    node: Node,
    instruments: u32,
    quotes: u32,
    next: u32,
}

/// What sweeps have sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub sends: u64,
    /// Records in all sends together.
    pub records: u64,
}

impl Shape {
    /// Everybody wants all of 100 symbols: the same bytes for all.
    pub fn one_audience(clients: u32, quotes: u32) -> Self {
        Self::one_audience_as(Encoding::PLAIN, clients, quotes)
    }

    /// The same in another encoding.
    pub fn one_audience_as(encoding: Encoding, clients: u32, quotes: u32) -> Self {
        Self::new(Node::with_audience(100, clients, encoding), 100, quotes)
    }

    /// Everybody an audience of one, with a symbol that nobody else wants.
    pub fn one_symbol_each(clients: u32, instruments: u32, quotes: u32) -> Self {
        assert!(clients <= instruments, "{clients} clients cannot have a symbol each of {instruments}");
        Self::new(
            Node::with_clients(instruments, clients, |slot| subscribe(&[symbol(slot + 1)], 0)),
            instruments,
            quotes,
        )
    }

    /// Interests that overlap: each client watches symbols drawn from all. Where the draws are many more than the
    /// clients, as in all of the benches, no two are alike.
    pub fn watchlists(clients: u32, watched: usize, instruments: u32, quotes: u32) -> Self {
        let mut random = Pcg64Mcg::seed_from_u64(1);
        let node = Node::with_clients(instruments, clients, |_| {
            let watched = sample(&mut random, instruments as usize, watched);
            subscribe(&watched.iter().map(|index| symbol(index as u32 + 1)).collect::<Vec<_>>(), 0)
        });
        Self::new(node, instruments, quotes)
    }

    fn new(node: Node, instruments: u32, quotes: u32) -> Self {
        Self { node, instruments, quotes, next: 0 }
    }

    pub fn flush(&mut self) {
        for _ in 0..self.quotes {
            self.next = (self.next + 7) % self.instruments;
            self.node.quote(self.next + 1);
        }
        self.node.flush();
    }

    /// What these sweeps send.
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
