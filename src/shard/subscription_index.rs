//! The subscription index: which audiences want a record.
//!
//! An *item* is what a client subscribes to: a target (an instrument or a pattern), a channel, and the interval at
//! which it is conflated. An *audience* is the clients of a core that get identical bytes: they have the same set of
//! items and the same encoding. A client has no items of its own; it belongs to the audience that has its set. A client
//! that changes its set moves to another audience: one that has the changed set already, or a new one. If it is alone
//! in its audience, the audience's set is changed in place.
//!
//! Each target has *watch lists*: by channel and interval, the audiences that have it as an item. A record is
//! dispatched by reading the watch lists of its instrument and of the patterns that cover it.
//!
//! What always holds:
//! * Two audiences differ in their encoding or in their set. Sets are compared by a fingerprint, a 128-bit sum of keyed
//!   hashes. Different sets have the same fingerprint with a probability of some 2^-128 a pair; the keys are random and
//!   not shown, so that a client cannot search for such a pair.
//! * Every item is in the watch list of its target, at the index that the item has; so joining, leaving and changing
//!   are constant work an item, regardless of how many other audiences watch.
//! * If several items of an audience cover a record, the most specific one decides the interval: the exact name, then
//!   the longest pattern.
//! * A name that is subscribed to before its instrument exists is a pattern that covers nothing else.
//!
//! What it does not do: it knows no client, no socket, and no byte of a packet.
//!
//! Memory: 16 bytes an item, 4 in the watch list; some 150 an audience.

mod patterns;
mod watch_lists;

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use self::patterns::PatternRow;
use self::watch_lists::{WatchList, WatchLists, push_exact};
use super::encoding::Encoding;
use tickcast_protocol::ConflationInterval;
use tickcast_protocol::control::ChannelSet;
use tickcast_protocol::record::{Channel, Gap, RecordKind};

/// Index of an audience.
pub type AudienceId = u32;

/// What an item is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// An instrument by id.
    Instrument(u32),
    /// An interned pattern: all symbols with a prefix, or one name, whose instrument need not exist yet.
    Pattern(u32),
}

/// Target and channel of an item. Ordered: instruments before patterns, by id, then by channel.
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

    /// Its target.
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
    /// Index of the audience in the watch list of this item.
    watch_list_index: u32,
    interval: ConflationInterval,
}

/// What identifies an audience.
#[derive(Debug, Default)]
struct Interest {
    /// Sorted by key.
    items: Vec<Item>,
    /// Of the items and the encoding.
    fingerprint: u128,
    encoding: Encoding,
}

impl Interest {
    fn find(&self, key: Key) -> Option<&Item> {
        self.items.binary_search_by_key(&key, |item| item.key).ok().map(|at| &self.items[at])
    }
}

#[derive(Debug, Default)]
struct InstrumentRow {
    symbol: String,
    /// Its id carries nothing more. Items still cover it, so that clients that are behind learn that.
    is_released: bool,
    /// Patterns that cover it: that of its name, then the longest first.
    patterns: Vec<u32>,
    watches: WatchLists,
}

#[derive(Debug, Default)]
struct AudienceRow {
    interest: Interest,
    /// Clients that belong to it.
    clients: u32,
    /// A prefix is among its targets, so any instrument may be covered.
    has_prefixes: bool,
    /// Several items may cover one record.
    overlaps: bool,
}

/// One change to a client's set of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds an item, or changes its interval.
    Want(Key, ConflationInterval),
    /// Removes an item.
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

/// See the module.
#[derive(Debug, Default)]
pub struct SubscriptionIndex {
    audiences: Vec<AudienceRow>,
    free_audiences: Vec<AudienceId>,
    /// By fingerprint, of which the low half is the hash.
    by_fingerprint: HashTable<AudienceId>,
    instruments: Vec<InstrumentRow>,
    /// Ids by symbol, sorted: what a prefix covers is a range of it.
    by_symbol: BTreeMap<Box<str>, u32>,
    patterns: Vec<PatternRow>,
    free_patterns: Vec<u32>,
    by_prefix: HashMap<String, u32, RandomState>,
    by_name: HashMap<String, u32, RandomState>,
    /// Items by interval: which intervals are in use at all.
    items_by_interval: [u64; ConflationInterval::COUNT],
    hash_low: RandomState,
    hash_high: RandomState,
}

impl SubscriptionIndex {
    /// Adds an instrument; ids come in order. Returns the patterns that cover it.
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

    /// Takes the symbol from an instrument: it may be defined again under another id.
    pub fn release_instrument(&mut self, id: u32) {
        let row = &mut self.instruments[id as usize - 1];
        row.is_released = true;
        if self.by_symbol.get(row.symbol.as_str()) == Some(&id) {
            self.by_symbol.remove(row.symbol.as_str());
        }
    }

    /// Adds the next id, of an instrument that was released already.
    pub fn add_released(&mut self) {
        self.instruments.push(InstrumentRow { is_released: true, ..Default::default() });
    }

    /// True if an instrument was released.
    pub fn is_released(&self, id: u32) -> bool {
        self.instruments.get(id as usize - 1).is_some_and(|row| row.is_released)
    }

    /// The instruments that a target covers, with those that are released.
    pub fn covered<'a>(&'a self, target: &'a Target) -> &'a [u32] {
        match target {
            Target::Instrument(id) => std::slice::from_ref(id),
            Target::Pattern(pattern) => &self.patterns[*pattern as usize].instruments,
        }
    }

    /// The patterns that cover an instrument: that of its name, then the longest first.
    pub fn patterns_of(&self, id: u32) -> &[u32] {
        &self.instruments[id as usize - 1].patterns
    }

    /// The symbol of an instrument.
    pub fn symbol(&self, id: u32) -> &str {
        &self.instruments[id as usize - 1].symbol
    }

    /// Adds a client without items: it belongs to the audience of the empty set with its encoding.
    pub fn enter(&mut self, encoding: Encoding) -> AudienceId {
        let audience = match self.find_by_fingerprint(self.fingerprint_of(encoding)) {
            Some(audience) => audience,
            None => {
                let audience = self.allocate(encoding);
                self.insert_fingerprint(audience);
                audience
            }
        };
        self.audiences[audience as usize].clients += 1;
        audience
    }

    /// Removes a client from its audience; an audience without clients is dissolved.
    pub fn leave(&mut self, audience: AudienceId) {
        let row = &mut self.audiences[audience as usize];
        row.clients -= 1;
        if row.clients == 0 {
            self.dissolve(audience);
        }
    }

    /// Changes the set of a client of `audience`. Returns the audience that the client belongs to afterwards: the one
    /// that has that set already, its own if it is alone in it, or a new one.
    pub fn change(&mut self, audience: AudienceId, changes: &[Change]) -> AudienceId {
        let changes = self.effective(audience, changes);
        if changes.is_empty() {
            return audience;
        }
        let wanted = self.fingerprint_after(audience, &changes);
        if let Some(existing) = self.find_by_fingerprint(wanted) {
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
        // A pattern must not be freed between the removal of its old item and the insertion of its new one.
        changes.iter().for_each(|change| self.retain_pattern(change.key()));
        for change in &changes {
            self.remove(own, change.key());
            if let Change::Want(key, interval) = change {
                self.insert(own, *key, *interval);
            }
        }
        changes.iter().for_each(|change| self.release_pattern(change.key()));
        debug_assert_eq!(
            self.audiences[own as usize].interest.fingerprint, wanted,
            "the fingerprint is a sum over the items"
        );
        self.note_overlaps(own);
        self.insert_fingerprint(own);
        own
    }

    /// How an audience's packets are encoded.
    pub fn encoding(&self, audience: AudienceId) -> Encoding {
        self.audiences[audience as usize].interest.encoding
    }

    /// The interval at which an audience wants a channel of an instrument; `None` if it does not.
    pub fn wants(&self, audience: AudienceId, instrument: u32, channel: Channel) -> Option<ConflationInterval> {
        self.resolve(audience, instrument, channel).map(|item| item.interval)
    }

    /// True if there is an instrument with this id.
    pub fn is_defined(&self, instrument: u32) -> bool {
        (1..=self.instruments.len()).contains(&(instrument as usize))
    }

    /// True if a Status or a Gap of an instrument (0: of the feed) concerns an audience. What was lost of a released
    /// instrument does not.
    pub fn wants_event(&self, audience: AudienceId, kind: RecordKind, instrument: u32, bytes: &[u8]) -> bool {
        let wants = |channel| self.is_defined(instrument) && self.wants(audience, instrument, channel).is_some();
        let is_released = self.is_defined(instrument) && self.is_released(instrument);
        match kind {
            RecordKind::Status => instrument == 0 || Channel::ALL.into_iter().any(wants),
            RecordKind::Gap => !is_released && Gap::read(bytes).is_some_and(|gap| wants(gap.channel)),
            _ => false,
        }
    }

    /// The interval of exactly this item, if the audience has it.
    pub fn interval_of(&self, audience: AudienceId, key: Key) -> Option<ConflationInterval> {
        self.audiences[audience as usize].interest.find(key).map(|item| item.interval)
    }

    /// True if the audience has an item that is conflated.
    pub fn conflates(&self, audience: AudienceId) -> bool {
        let is_conflated = |item: &Item| item.interval != ConflationInterval::IMMEDIATE && !item.key.channel().is_log();
        self.audiences[audience as usize].interest.items.iter().any(is_conflated)
    }

    /// True if the audience has an item of a state channel.
    pub fn has_state(&self, audience: AudienceId) -> bool {
        self.audiences[audience as usize].interest.items.iter().any(|item| !item.key.channel().is_log())
    }

    /// The keys of an audience's items, in order.
    pub fn keys(&self, audience: AudienceId) -> impl ExactSizeIterator<Item = Key> {
        self.audiences[audience as usize].interest.items.iter().map(|item| item.key)
    }

    /// The instruments from an id on that an audience's items may cover, by id.
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

    /// The channels of an instrument that an audience wants.
    pub fn channels(&self, audience: AudienceId, instrument: u32) -> ChannelSet {
        let mut channels = ChannelSet::default();
        for channel in Channel::ALL {
            if self.wants(audience, instrument, channel).is_some() {
                channels.insert(channel);
            }
        }
        channels
    }

    /// Calls `each` for every audience that wants this channel of this instrument at this interval. An audience with
    /// several items for it is called once, for the most specific one.
    pub fn each_watcher(
        &self,
        instrument: u32,
        channel: Channel,
        interval: ConflationInterval,
        mut each: impl FnMut(AudienceId),
    ) {
        let row = &self.instruments[instrument as usize - 1];
        for audience in row.watches.of(channel).list(interval) {
            each(*audience);
        }
        for pattern in &row.patterns {
            for audience in self.patterns[*pattern as usize].watches.of(channel).list(interval) {
                let decides = Key::new(Target::Pattern(*pattern), channel);
                let overlaps = self.audiences[*audience as usize].overlaps;
                if !overlaps || self.resolve(*audience, instrument, channel).is_some_and(|item| item.key == decides) {
                    each(*audience);
                }
            }
        }
    }

    /// True if any audience watches this channel of this instrument at this interval.
    pub fn is_watched(&self, instrument: u32, channel: Channel, interval: ConflationInterval) -> bool {
        let row = &self.instruments[instrument as usize - 1];
        let watched = |watches: &WatchLists| !watches.of(channel).list(interval).is_empty();
        watched(&row.watches) || row.patterns.iter().any(|pattern| watched(&self.patterns[*pattern as usize].watches))
    }

    /// True if any item has this interval.
    pub fn uses(&self, interval: ConflationInterval) -> bool {
        self.items_by_interval[interval.index()] > 0
    }

    /// Calls `each` for every audience with a pattern that covers a new instrument, possibly several times in a row.
    pub fn each_pattern_watcher(&self, instrument: u32, mut each: impl FnMut(AudienceId)) {
        for pattern in &self.instruments[instrument as usize - 1].patterns {
            self.patterns[*pattern as usize].watches.each(&mut each);
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
        self.audiences[audience as usize].interest.items.len()
    }

    fn note_overlaps(&mut self, audience: AudienceId) {
        let (row, patterns) = (&mut self.audiences[audience as usize], &self.patterns);
        let pattern = |item: &Item| match item.key.target() {
            Target::Pattern(pattern) => Some(pattern),
            Target::Instrument(_) => None,
        };
        // Items are sorted, instruments before patterns: if the last is a pattern and the first is not, there are both.
        let mut patterns_reversed = row.interest.items.iter().rev().map_while(pattern);
        row.has_prefixes = patterns_reversed.any(|pattern| !patterns[pattern as usize].is_name);
        let is_mixed =
            row.interest.items.last().and_then(pattern).is_some() && pattern(&row.interest.items[0]).is_none();
        row.overlaps = row.interest.items.len() > 1 && (row.has_prefixes || is_mixed);
    }

    fn resolve(&self, audience: AudienceId, instrument: u32, channel: Channel) -> Option<&Item> {
        let interest = &self.audiences[audience as usize].interest;
        interest.find(Key::new(Target::Instrument(instrument), channel)).or_else(|| {
            let patterns = &self.instruments[instrument as usize - 1].patterns;
            patterns.iter().find_map(|pattern| interest.find(Key::new(Target::Pattern(*pattern), channel)))
        })
    }

    /// The changes that have an effect, by key; if several have the same key, the last one counts.
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
        let mut sum = self.audiences[audience as usize].interest.fingerprint;
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

    /// The fingerprint of the empty set with this encoding.
    fn fingerprint_of(&self, encoding: Encoding) -> u128 {
        // No item has this key.
        let base = (u64::MAX, encoding);
        u128::from(self.hash_high.hash_one(base)) << 64 | u128::from(self.hash_low.hash_one(base))
    }

    fn find_by_fingerprint(&self, fingerprint: u128) -> Option<AudienceId> {
        let same = |audience: &AudienceId| self.audiences[*audience as usize].interest.fingerprint == fingerprint;
        self.by_fingerprint.find(fingerprint as u64, same).copied()
    }

    fn insert_fingerprint(&mut self, audience: AudienceId) {
        let audiences = &self.audiences;
        let hash = |audience: &AudienceId| audiences[*audience as usize].interest.fingerprint as u64;
        self.by_fingerprint.insert_unique(hash(&audience), audience, hash);
    }

    fn remove_fingerprint(&mut self, audience: AudienceId) {
        let hash = self.audiences[audience as usize].interest.fingerprint as u64;
        if let Ok(entry) = self.by_fingerprint.find_entry(hash, |other| *other == audience) {
            entry.remove();
        }
    }

    /// An audience without items and clients. The caller inserts its fingerprint once it has its items.
    fn allocate(&mut self, encoding: Encoding) -> AudienceId {
        let audience = self.free_audiences.pop().unwrap_or_else(|| {
            self.audiences.push(AudienceRow::default());
            self.audiences.len() as u32 - 1
        });
        let fingerprint = self.fingerprint_of(encoding);
        self.audiences[audience as usize].interest = Interest { items: Vec::new(), fingerprint, encoding };
        audience
    }

    /// A new audience with the same items and one client. The caller inserts its fingerprint once it differs.
    fn copy(&mut self, audience: AudienceId) -> AudienceId {
        let items: Vec<(Key, ConflationInterval)> =
            self.audiences[audience as usize].interest.items.iter().map(|item| (item.key, item.interval)).collect();
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
        for item in &row.interest.items {
            self.unwatch(item);
        }
        self.free_audiences.push(audience);
    }

    fn retain_pattern(&mut self, key: Key) {
        if let Target::Pattern(pattern) = key.target() {
            self.patterns[pattern as usize].uses += 1;
        }
    }

    fn release_pattern(&mut self, key: Key) {
        if let Target::Pattern(pattern) = key.target() {
            self.patterns[pattern as usize].uses -= 1;
            self.release_unused(pattern);
        }
    }

    fn insert(&mut self, audience: AudienceId, key: Key, interval: ConflationInterval) {
        let fingerprint = self.fingerprint(key, interval);
        self.retain_pattern(key);
        let list = self.watch_list_mut(key).list_mut(interval);
        let item = Item { key, watch_list_index: list.len() as u32, interval };
        push_exact(list, audience);
        self.items_by_interval[interval.index()] += 1;
        let interest = &mut self.audiences[audience as usize].interest;
        let at = interest.items.partition_point(|other| other.key < key);
        interest.items.reserve_exact(usize::from(interest.items.is_empty()));
        interest.items.insert(at, item);
        interest.fingerprint = interest.fingerprint.wrapping_add(fingerprint);
    }

    fn remove(&mut self, audience: AudienceId, key: Key) {
        let interest = &mut self.audiences[audience as usize].interest;
        let Ok(at) = interest.items.binary_search_by_key(&key, |item| item.key) else { return };
        let item = interest.items.remove(at);
        let fingerprint = self.fingerprint(key, item.interval);
        let interest = &mut self.audiences[audience as usize].interest;
        interest.fingerprint = interest.fingerprint.wrapping_sub(fingerprint);
        self.unwatch(&item);
    }

    /// Removes an item from its watch list; the item that fills the gap gets its new index.
    fn unwatch(&mut self, item: &Item) {
        self.items_by_interval[item.interval.index()] -= 1;
        let watch_list = self.watch_list_mut(item.key);
        let list = watch_list.list_mut(item.interval);
        list.swap_remove(item.watch_list_index as usize);
        let moved = list.get(item.watch_list_index as usize).copied();
        if list.is_empty() {
            watch_list.remove_empty();
        }
        if let Some(moved) = moved {
            let interest = &mut self.audiences[moved as usize].interest;
            let at = interest
                .items
                .binary_search_by_key(&item.key, |other| other.key)
                .expect("a watching audience has the item");
            interest.items[at].watch_list_index = item.watch_list_index;
        }
        self.release_pattern(item.key);
    }

    fn watch_list_mut(&mut self, key: Key) -> &mut WatchList {
        let watches = match key.target() {
            Target::Instrument(id) => &mut self.instruments[id as usize - 1].watches,
            Target::Pattern(id) => &mut self.patterns[id as usize].watches,
        };
        watches.of_mut(key.channel())
    }
}
