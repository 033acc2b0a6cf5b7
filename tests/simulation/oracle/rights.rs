//! What a client may see, and what it is told of that.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use tickcast_protocol::Channel;
use tickcast_protocol::control::{ChannelSet, Pattern};
use tickcast_protocol::record::flags;

use super::{Oracle, Track, Truth};
use crate::Seen;
use crate::feed::{History, best};
use crate::rights::Entitled;

impl Oracle {
    pub fn new(entitled: Rc<Entitled>) -> Self {
        Self {
            asked: HashMap::new(),
            renewed: None,
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
        let before = std::mem::replace(&mut self.entitled, entitled);
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
        if before.limits_depth() || self.entitled.limits_depth() {
            self.books_begin_again(&before, truth);
        }
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

    /// Its books may have another depth: they come whole.
    fn books_begin_again(&mut self, before: &Entitled, truth: &Truth) {
        self.awaits_caught_up |= self.items.keys().any(|(_, channel)| *channel == Channel::Book);
        for ((id, _), track) in self.tracks.iter_mut().filter(|((_, channel), _)| *channel == Channel::Book) {
            let symbol = &truth.history.instruments[*id as usize - 1].symbol;
            if before.depth(symbol) != self.entitled.depth(symbol) {
                (track.snapshot, track.book) = (true, None);
                self.seen.depths += 1;
            }
        }
    }

    /// The depth in an answer is that of the shallowest book.
    pub(super) fn check_depth(&self, symbols: &[Pattern], channels: ChannelSet, depth: Option<u32>, truth: &Truth) {
        let gives = |symbol: &&Pattern| channels.contains(Channel::Book) && self.entitled.gives(symbol, Channel::Book);
        let given: Vec<&Pattern> = symbols.iter().filter(gives).collect();
        let name = |pattern: &&Pattern| match pattern {
            Pattern::Exact(name) => self.entitled.depth(name),
            Pattern::Prefix(_) => None,
        };
        let of_names = given.iter().filter_map(name).min();
        if given.iter().all(|pattern| matches!(pattern, Pattern::Exact(_))) {
            assert_eq!(depth.map(|levels| levels as usize), of_names, "{symbols:?} {:?}", self.entitled);
            return;
        }
        let is_seen = |symbol: &str| {
            given.iter().any(|pattern| pattern.matches(symbol)) && self.entitled.may(symbol, Channel::Book)
        };
        let instruments = truth.history.instruments.iter().map(|instrument| instrument.symbol.as_str());
        let shallowest = instruments.filter(|symbol| is_seen(symbol)).filter_map(|symbol| self.entitled.depth(symbol));
        let shallowest = shallowest.min().unwrap_or(usize::MAX);
        assert!(depth.map_or(usize::MAX, |levels| levels as usize) <= shallowest, "{symbols:?} {:?}", self.entitled);
    }

    /// The depth at which the client has a channel of a symbol; `None` for all of it.
    pub(super) fn depth(&self, symbol: &str, channel: Channel) -> Option<usize> {
        if channel == Channel::Book { self.entitled.depth(symbol) } else { None }
    }

    /// The sequence of the first value behind `last` that is not the same to this client as the one before it.
    pub(super) fn next_seen(&self, id: u32, channel: Channel, last: u64, truth: &History) -> Option<u64> {
        let symbol = &truth.instruments[id as usize - 1].symbol;
        let (values, Some(depth)) = (truth.of(id, channel), self.depth(symbol, channel)) else {
            return Some(last + 1).filter(|next| *next <= truth.newest(id, channel));
        };
        let view = |nth: u64| {
            let value = nth.checked_sub(1).and_then(|at| values.get(at as usize))?;
            let flags = value.record.get(3).map(|flags| flags & (flags::MAYBE_BAD_BOOK | flags::DELAYED));
            Some((value.book.as_deref().map(|book| best(book, Some(depth))), flags))
        };
        (last + 1..=truth.newest(id, channel)).find(|nth| view(*nth) != view(nth - 1))
    }

    /// True if a client with no other rights than these may know that there is this instrument.
    pub(super) fn may_know(&self, id: u32, truth: &Truth) -> bool {
        let symbol = &truth.history.instruments[id as usize - 1].symbol;
        let covers =
            |(pattern, channel): &(Pattern, Channel)| pattern.matches(symbol) && self.entitled.may(symbol, *channel);
        self.had_items.iter().any(covers)
    }
}
