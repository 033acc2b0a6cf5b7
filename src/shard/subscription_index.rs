//! Who wants what: audiences, their items, and for every record the audiences it goes to.
//!
//! An audience is the clients of a core that want exactly the same bytes: the same encoding, and the same set of items,
//! an item being a target (an instrument or a pattern), a channel, and the interval it is conflated at. A client has no
//! interest of its own: it belongs to the audience whose set it wants.
//!
//! What always holds:
//! * Two audiences never have the same encoding and set: they have a fingerprint (a keyed 128-bit sum over both).
//! * Every item stands in the watch list of its target, at the index it remembers; so joining, leaving and changing are
//!   constant work an item, however many others watch.
//! * Where several items of one audience cover a record, the most specific decides: the exact name, then the longest
//!   pattern. A name that must hold before there is such an instrument is a pattern that covers nothing else.
//!
//! Memory: 16 bytes an item, 4 in the watch list; some 150 an audience. No client, socket or byte of a packet here.

mod patterns;
mod watch_lists;

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use self::patterns::PatternRow;
use self::watch_lists::{Watch, Watches, push_frugally};
use super::encoding::Encoding;
use tickcast_protocol::conflation::ConflationInterval;
use tickcast_protocol::control::ChannelSet;
use tickcast_protocol::record::Channel;

/// Index of an audience.
pub type AudienceId = u32;

/// What an item points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// An instrument by id.
    Instrument(u32),
    /// An interned pattern: of all symbols that begin alike, or of one name, whose instrument need not be there yet.
    Pattern(u32),
}

/// Sort key of an item: exact items before patterns, by target, then channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(u64);

impl Key {
    const PATTERN: u64 = 1 << 63;

    /// The key of a target and channel.
    pub fn new(target: Target, channel: Channel) -> Self {
        let target = match target {
            Target::Instrument(id) => u64::from(id) << 8,
            Target::Pattern(id) => Self::PATTERN | u64::from(id) << 8,
        };
        Self(target | channel as u64)
    }

    /// What it points at.
    pub fn target(self) -> Target {
        let id = (self.0 >> 8) as u32;
        if self.0 & Self::PATTERN == 0 { Target::Instrument(id) } else { Target::Pattern(id) }
    }

    /// Its channel.
    pub fn channel(self) -> Channel {
        Channel::ALL[(self.0 & 0xff) as usize]
    }
}

/// One item of an audience's set.
#[derive(Clone, Copy, Debug)]
struct Item {
    key: Key,
    /// Where the audience stands in the watch list.
    index: u32,
    interval: ConflationInterval,
}

/// A set of items and their encoding, whose fingerprint tells whether two are the same.
#[derive(Debug, Default)]
struct Set {
    items: Vec<Item>,
    fingerprint: u128,
    encoding: Encoding,
}

impl Set {
    fn find(&self, key: Key) -> Option<&Item> {
        self.items.binary_search_by_key(&key, |item| item.key).ok().map(|at| &self.items[at])
    }
}

#[derive(Debug, Default)]
struct InstrumentRow {
    symbol: String,
    /// Patterns that cover it, that of its name and then the longest first.
    patterns: Vec<u32>,
    watches: Watches,
}

#[derive(Debug, Default)]
struct AudienceRow {
    set: Set,
    /// Clients that belong here.
    clients: u32,
    /// Any instrument may be covered.
    has_prefixes: bool,
    /// Several items may cover one record.
    overlaps: bool,
}

/// One change to a client's set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Wants it, at this interval.
    Want(Key, ConflationInterval),
    /// Wants it no longer.
    Drop(Key),
}

impl Change {
    /// The item that is changed.
    pub fn key(&self) -> Key {
        match self {
            Self::Want(key, _) | Self::Drop(key) => *key,
        }
    }
}

/// All interest of one core.
#[derive(Debug, Default)]
pub struct SubscriptionIndex {
    audiences: Vec<AudienceRow>,
    free_audiences: Vec<AudienceId>,
    /// By the fingerprint of its set, which stands in its row and is its own hash.
    by_fingerprint: HashTable<AudienceId>,
    instruments: Vec<InstrumentRow>,
    /// Ids by symbol, in order: what a prefix covers is a piece of it.
    by_symbol: BTreeMap<Box<str>, u32>,
    patterns: Vec<PatternRow>,
    free_patterns: Vec<u32>,
    by_prefix: HashMap<String, u32, RandomState>,
    by_name: HashMap<String, u32, RandomState>,
    /// Items at each profile: says which profiles are in use at all.
    items_at: [u64; ConflationInterval::COUNT],
    hash_low: RandomState,
    hash_high: RandomState,
}

impl SubscriptionIndex {
    /// Takes an instrument in; ids come in order. Returns the patterns that cover it.
    pub fn add_instrument(&mut self, id: u32, symbol: &str) -> &[u32] {
        assert_eq!(id as usize, self.instruments.len() + 1, "instrument ids are dense");
        let mut row = InstrumentRow { symbol: symbol.to_owned(), ..Default::default() };
        let ends = symbol.char_indices().map(|(end, _)| end).chain([symbol.len()]);
        let prefixes = ends.filter_map(|end| self.by_prefix.get(&symbol[..end]));
        for pattern in prefixes.chain(self.by_name.get(symbol)) {
            self.patterns[*pattern as usize].instruments.push(id);
            row.patterns.push(*pattern);
        }
        // The most specific first.
        row.patterns.reverse();
        self.by_symbol.insert(symbol.into(), id);
        self.instruments.push(row);
        &self.instruments[id as usize - 1].patterns
    }

    /// The instruments that a target covers now.
    pub fn covered<'a>(&'a self, target: &'a Target) -> &'a [u32] {
        match target {
            Target::Instrument(id) => std::slice::from_ref(id),
            Target::Pattern(pattern) => &self.patterns[*pattern as usize].instruments,
        }
    }

    /// The patterns that cover an instrument, that of its name and then the longest first.
    pub fn patterns_of(&self, id: u32) -> &[u32] {
        &self.instruments[id as usize - 1].patterns
    }

    /// The symbol of an instrument.
    pub fn symbol(&self, id: u32) -> &str {
        &self.instruments[id as usize - 1].symbol
    }

    /// A client without any interest comes in; it belongs to the audience of the empty set in its encoding.
    pub fn enter(&mut self, encoding: Encoding) -> AudienceId {
        let audience = match self.with_fingerprint(self.fingerprint_of(encoding)) {
            Some(audience) => audience,
            None => {
                let audience = self.allocate(encoding);
                self.enter_fingerprint(audience);
                audience
            }
        };
        self.audiences[audience as usize].clients += 1;
        audience
    }

    /// A client leaves its audience for good; an audience without clients is dissolved.
    pub fn leave(&mut self, audience: AudienceId) {
        let row = &mut self.audiences[audience as usize];
        row.clients -= 1;
        if row.clients == 0 {
            self.dissolve(audience);
        }
    }

    /// A client of `audience` changes its set. Returns the audience it belongs to afterwards: the one that has that set
    /// already, its own changed in place where it is alone, or a new one.
    pub fn change(&mut self, audience: AudienceId, changes: &[Change]) -> AudienceId {
        let changes = self.effective(audience, changes);
        if changes.is_empty() {
            return audience;
        }
        let wanted = self.fingerprint_after(audience, &changes);
        if let Some(existing) = self.with_fingerprint(wanted) {
            self.audiences[existing as usize].clients += 1;
            self.leave(audience);
            return existing;
        }
        let own = if self.audiences[audience as usize].clients == 1 {
            self.remove_fingerprint(audience);
            audience
        } else {
            let copy = self.copy(audience);
            self.leave(audience);
            copy
        };
        // A pattern must not be forgotten between its old item's end and its new one's start.
        changes.iter().for_each(|change| self.hold(change.key()));
        for change in &changes {
            self.remove(own, change.key());
            if let Change::Want(key, interval) = change {
                self.insert(own, *key, *interval);
            }
        }
        changes.iter().for_each(|change| self.let_go(change.key()));
        debug_assert_eq!(
            self.audiences[own as usize].set.fingerprint, wanted,
            "the fingerprint is a sum over the items"
        );
        self.note_overlaps(own);
        self.enter_fingerprint(own);
        own
    }

    /// How an audience's packets are encoded.
    pub fn encoding(&self, audience: AudienceId) -> Encoding {
        self.audiences[audience as usize].set.encoding
    }

    /// The interval at which an audience wants a channel of an instrument; `None` if it does not.
    pub fn wants(&self, audience: AudienceId, instrument: u32, channel: Channel) -> Option<ConflationInterval> {
        self.resolve(audience, instrument, channel).map(|item| item.interval)
    }

    /// The profile of exactly this item, if the audience has it.
    pub fn interval_of(&self, audience: AudienceId, key: Key) -> Option<ConflationInterval> {
        self.audiences[audience as usize].set.find(key).map(|item| item.interval)
    }

    /// True if the audience has an item that is conflated at an interval.
    pub fn merges(&self, audience: AudienceId) -> bool {
        let merged = |item: &Item| item.interval != ConflationInterval::IMMEDIATE && !item.key.channel().is_log();
        self.audiences[audience as usize].set.items.iter().any(merged)
    }

    /// The keys of an audience's set, exact ones first, by id.
    pub fn keys(&self, audience: AudienceId) -> impl ExactSizeIterator<Item = Key> {
        self.audiences[audience as usize].set.items.iter().map(|item| item.key)
    }

    /// The instruments from an id on that an audience's items may cover, in ascending order.
    pub fn candidates(&self, audience: AudienceId, from: u32) -> Vec<u32> {
        if self.audiences[audience as usize].has_prefixes {
            return (from..=self.instruments.len() as u32).collect();
        }
        let mut ids: Vec<u32> = Vec::new();
        for key in self.keys(audience) {
            ids.extend(self.covered(&key.target()).iter().filter(|id| **id >= from));
        }
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Channels of an instrument that an audience wants.
    pub fn channels(&self, audience: AudienceId, instrument: u32) -> ChannelSet {
        let mut channels = ChannelSet::default();
        for channel in Channel::ALL {
            if self.wants(audience, instrument, channel).is_some() {
                channels.insert(channel);
            }
        }
        channels
    }

    /// Hands over every audience that wants this channel of this instrument at this profile. One that has several items
    /// for it comes once, by the most specific.
    pub fn each_watcher(
        &self,
        instrument: u32,
        channel: Channel,
        interval: ConflationInterval,
        mut each: impl FnMut(AudienceId),
    ) {
        let row = &self.instruments[instrument as usize - 1];
        for audience in row.watches.0[channel as usize].list(interval) {
            each(*audience);
        }
        for pattern in &row.patterns {
            for audience in self.patterns[*pattern as usize].watches.0[channel as usize].list(interval) {
                let decides = Key::new(Target::Pattern(*pattern), channel);
                let overlaps = self.audiences[*audience as usize].overlaps;
                if !overlaps || self.resolve(*audience, instrument, channel).is_some_and(|item| item.key == decides) {
                    each(*audience);
                }
            }
        }
    }

    /// True if anybody watches this channel of this instrument at this profile.
    pub fn is_watched(&self, instrument: u32, channel: Channel, interval: ConflationInterval) -> bool {
        if self.items_at[interval.index()] == 0 {
            return false;
        }
        let row = &self.instruments[instrument as usize - 1];
        let watched = |watches: &Watches| !watches.0[channel as usize].list(interval).is_empty();
        watched(&row.watches) || row.patterns.iter().any(|pattern| watched(&self.patterns[*pattern as usize].watches))
    }

    /// True if any item is at this profile.
    pub fn uses(&self, interval: ConflationInterval) -> bool {
        self.items_at[interval.index()] > 0
    }

    /// Hands over every audience that a new instrument concerns: those with a pattern that covers it.
    pub fn each_pattern_watcher(&self, instrument: u32, mut each: impl FnMut(AudienceId)) {
        for pattern in &self.instruments[instrument as usize - 1].patterns {
            for watch in &self.patterns[*pattern as usize].watches.0 {
                watch.lists.iter().flat_map(|(_, list)| list).for_each(|audience| each(*audience));
            }
        }
    }

    /// How many audiences have clients.
    pub fn audiences(&self) -> usize {
        self.audiences.len() - self.free_audiences.len()
    }

    /// One above the highest audience id.
    pub fn audience_ids(&self) -> usize {
        self.audiences.len()
    }

    /// Items in an audience's set.
    pub fn items(&self, audience: AudienceId) -> usize {
        self.audiences[audience as usize].set.items.len()
    }

    fn note_overlaps(&mut self, audience: AudienceId) {
        let (row, patterns) = (&mut self.audiences[audience as usize], &self.patterns);
        let pattern = |item: &Item| match item.key.target() {
            Target::Pattern(pattern) => Some(pattern),
            Target::Instrument(_) => None,
        };
        // Patterns stand behind all exact items.
        let mut from_behind = row.set.items.iter().rev().map_while(pattern);
        row.has_prefixes = from_behind.any(|pattern| !patterns[pattern as usize].is_name);
        let is_mixed = row.set.items.last().and_then(pattern).is_some() && pattern(&row.set.items[0]).is_none();
        row.overlaps = row.set.items.len() > 1 && (row.has_prefixes || is_mixed);
    }

    fn resolve(&self, audience: AudienceId, instrument: u32, channel: Channel) -> Option<&Item> {
        let set = &self.audiences[audience as usize].set;
        set.find(Key::new(Target::Instrument(instrument), channel)).or_else(|| {
            let patterns = &self.instruments[instrument as usize - 1].patterns;
            patterns.iter().find_map(|pattern| set.find(Key::new(Target::Pattern(*pattern), channel)))
        })
    }

    /// Without what would change nothing, in the order of keys, the last word on a key wins.
    fn effective(&self, audience: AudienceId, changes: &[Change]) -> Vec<Change> {
        let mut sorted: Vec<Change> = changes.to_vec();
        sorted.sort_by_key(Change::key);
        let mut kept: Vec<Change> = Vec::with_capacity(sorted.len());
        for change in sorted {
            if kept.last().is_some_and(|last| last.key() == change.key()) {
                kept.pop();
            }
            kept.push(change);
        }
        kept.retain(|change| match change {
            Change::Want(key, interval) => self.interval_of(audience, *key) != Some(*interval),
            Change::Drop(key) => self.interval_of(audience, *key).is_some(),
        });
        kept
    }

    fn fingerprint_after(&self, audience: AudienceId, changes: &[Change]) -> u128 {
        let mut sum = self.audiences[audience as usize].set.fingerprint;
        for change in changes {
            let (key, wanted) = match change {
                Change::Want(key, interval) => (key, Some(*interval)),
                Change::Drop(key) => (key, None),
            };
            if let Some(had) = self.interval_of(audience, *key) {
                sum = sum.wrapping_sub(self.fingerprint(*key, had));
            }
            if let Some(interval) = wanted {
                sum = sum.wrapping_add(self.fingerprint(*key, interval));
            }
        }
        sum
    }

    fn fingerprint(&self, key: Key, interval: ConflationInterval) -> u128 {
        let item = (key.0, interval.index());
        u128::from(self.hash_high.hash_one(item)) << 64 | u128::from(self.hash_low.hash_one(item))
    }

    /// What the sum of an encoding's audiences starts from.
    fn fingerprint_of(&self, encoding: Encoding) -> u128 {
        // No item has this key.
        let base = (u64::MAX, encoding);
        u128::from(self.hash_high.hash_one(base)) << 64 | u128::from(self.hash_low.hash_one(base))
    }

    fn with_fingerprint(&self, fingerprint: u128) -> Option<AudienceId> {
        let same = |audience: &AudienceId| self.audiences[*audience as usize].set.fingerprint == fingerprint;
        self.by_fingerprint.find(fingerprint as u64, same).copied()
    }

    fn enter_fingerprint(&mut self, audience: AudienceId) {
        let audiences = &self.audiences;
        let hash = |audience: &AudienceId| audiences[*audience as usize].set.fingerprint as u64;
        self.by_fingerprint.insert_unique(hash(&audience), audience, hash);
    }

    fn remove_fingerprint(&mut self, audience: AudienceId) {
        let hash = self.audiences[audience as usize].set.fingerprint as u64;
        if let Ok(entry) = self.by_fingerprint.find_entry(hash, |other| *other == audience) {
            entry.remove();
        }
    }

    /// An audience without items and clients. Its fingerprint is entered by the caller, once it has its set.
    fn allocate(&mut self, encoding: Encoding) -> AudienceId {
        let audience = self.free_audiences.pop().unwrap_or_else(|| {
            self.audiences.push(AudienceRow::default());
            self.audiences.len() as u32 - 1
        });
        let fingerprint = self.fingerprint_of(encoding);
        self.audiences[audience as usize].set = Set { items: Vec::new(), fingerprint, encoding };
        audience
    }

    /// A new audience with the same set and one client. Its fingerprint is entered by the caller, once it differs.
    fn copy(&mut self, audience: AudienceId) -> AudienceId {
        let items: Vec<(Key, ConflationInterval)> =
            self.audiences[audience as usize].set.items.iter().map(|item| (item.key, item.interval)).collect();
        let copy = self.allocate(self.encoding(audience));
        self.audiences[copy as usize].clients = 1;
        for (key, interval) in items {
            self.insert(copy, key, interval);
        }
        copy
    }

    fn dissolve(&mut self, audience: AudienceId) {
        self.remove_fingerprint(audience);
        let row = std::mem::take(&mut self.audiences[audience as usize]);
        for item in &row.set.items {
            self.unwatch(item);
        }
        self.free_audiences.push(audience);
    }

    fn hold(&mut self, key: Key) {
        if let Target::Pattern(pattern) = key.target() {
            self.patterns[pattern as usize].uses += 1;
        }
    }

    fn let_go(&mut self, key: Key) {
        if let Target::Pattern(pattern) = key.target() {
            self.patterns[pattern as usize].uses -= 1;
            self.release_unused(pattern);
        }
    }

    fn insert(&mut self, audience: AudienceId, key: Key, interval: ConflationInterval) {
        let fingerprint = self.fingerprint(key, interval);
        self.hold(key);
        let list = self.watch_mut(key).list_mut(interval);
        let item = Item { key, index: list.len() as u32, interval };
        push_frugally(list, audience);
        self.items_at[interval.index()] += 1;
        let set = &mut self.audiences[audience as usize].set;
        let at = set.items.partition_point(|other| other.key < key);
        set.items.reserve_exact(usize::from(set.items.is_empty()));
        set.items.insert(at, item);
        set.fingerprint = set.fingerprint.wrapping_add(fingerprint);
    }

    fn remove(&mut self, audience: AudienceId, key: Key) {
        let set = &mut self.audiences[audience as usize].set;
        let Ok(at) = set.items.binary_search_by_key(&key, |item| item.key) else { return };
        let item = set.items.remove(at);
        let fingerprint = self.fingerprint(key, item.interval);
        let set = &mut self.audiences[audience as usize].set;
        set.fingerprint = set.fingerprint.wrapping_sub(fingerprint);
        self.unwatch(&item);
    }

    /// Takes an item out of its watch list; the one that fills its place learns its new index.
    fn unwatch(&mut self, item: &Item) {
        self.items_at[item.interval.index()] -= 1;
        let watch = self.watch_mut(item.key);
        let list = watch.list_mut(item.interval);
        list.swap_remove(item.index as usize);
        let moved = list.get(item.index as usize).copied();
        if list.is_empty() {
            watch.lists.retain(|(_, list)| !list.is_empty());
        }
        if let Some(moved) = moved {
            let set = &mut self.audiences[moved as usize].set;
            let at = set.items.binary_search_by_key(&item.key, |other| other.key).expect("who watches has the item");
            set.items[at].index = item.index;
        }
        self.let_go(item.key);
    }

    fn watch_mut(&mut self, key: Key) -> &mut Watch {
        let watches = match key.target() {
            Target::Instrument(id) => &mut self.instruments[id as usize - 1].watches,
            Target::Pattern(id) => &mut self.patterns[id as usize].watches,
        };
        &mut watches.0[key.channel() as usize]
    }
}
