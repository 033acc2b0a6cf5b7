//! What a client may see, and what it is told of that.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use tickcast_protocol::Channel;
use tickcast_protocol::control::{ChannelSet, Pattern};

use super::{Oracle, Track, Truth};
use crate::Seen;
use crate::rights::Entitled;

impl Oracle {
    pub fn new(entitled: Rc<Entitled>) -> Self {
        Self {
            asked: HashMap::new(),
            entitled,
            had_items: HashSet::new(),
            nonsense: 0,
            items: BTreeMap::new(),
            interest: 0,
            tracks: BTreeMap::new(),
            defined: HashSet::new(),
            states: HashMap::new(),
            position: 0,
            reached: 0,
            replayed: 0,
            welcomed: false,
            has_subscribed: false,
            awaits_caught_up: false,
            replaying: None,
            disturbed_ns: Vec::new(),
            was_cut: false,
            packets_at_ns: 0,
            sides_apart: false,
            seen: Seen::default(),
        }
    }

    /// The names and patterns of which the rights give nothing are named.
    pub(super) fn check_denied(&self, channels: ChannelSet, symbols: &[Pattern], denied: &[String]) {
        let gives = |symbol: &&Pattern| channels.iter().any(|channel| self.entitled.gives(symbol, channel));
        let expected: Vec<String> = symbols.iter().filter(|symbol| !gives(symbol)).map(Pattern::to_string).collect();
        assert_eq!(denied, expected, "{:?}", self.entitled);
    }

    /// The client has other rights: items that they do not give are gone, and those that patterns cover begin again.
    pub(super) fn authenticated(&mut self, entitled: Rc<Entitled>, dropped: &[String], truth: &Truth) {
        let has_changed = self.entitled.number != entitled.number;
        self.entitled = entitled;
        self.seen.authenticated += 1;
        let mut expected = BTreeSet::new();
        let entitled = self.entitled.clone();
        self.items.retain(|(pattern, channel), _| {
            let is_kept = entitled.gives(pattern, *channel);
            if !is_kept {
                expected.insert(pattern.to_string());
            }
            is_kept
        });
        self.seen.dropped += expected.len() as u64;
        assert_eq!(dropped.iter().cloned().collect::<BTreeSet<_>>(), expected, "{:?}", self.entitled);
        if !has_changed {
            return;
        }
        let mut tracks = std::mem::take(&mut self.tracks);
        let instruments = &truth.history.instruments;
        tracks.retain(|(id, channel), _| self.interval(&instruments[*id as usize - 1].symbol, *channel).is_some());
        self.tracks = tracks;
        let patterns = |(pattern, _): &&(Pattern, Channel)| matches!(pattern, Pattern::Prefix(_));
        let patterns: Vec<_> = self.items.keys().filter(patterns).cloned().collect();
        self.awaits_caught_up |= !patterns.is_empty();
        for (pattern, channel) in patterns {
            for instrument in instruments.iter().filter(|i| pattern.matches(&i.symbol)) {
                if self.interval(&instrument.symbol, channel).is_some() {
                    let upper = truth.shard.sequence(instrument.id, channel).get();
                    let track = || Track { upper, snapshot: true, ..Track::default() };
                    self.tracks.entry((instrument.id, channel)).or_insert_with(track);
                }
            }
        }
        self.note_interest();
    }

    /// True if a client with no other rights than these may know that there is this instrument.
    pub(super) fn may_know(&self, id: u32, truth: &Truth) -> bool {
        let symbol = &truth.history.instruments[id as usize - 1].symbol;
        let covers =
            |(pattern, channel): &(Pattern, Channel)| pattern.matches(symbol) && self.entitled.may(symbol, *channel);
        self.had_items.iter().any(covers)
    }
}
