//! The subscription index: which audiences want a record.
//!
//! An *item* is what a client subscribes to: a target (a name or a prefix), a channel, and the interval at which it is
//! conflated. An *audience* is the clients of a core that get identical bytes: they have the same set of items and the
//! same encoding. A client has no items of its own; it belongs to the audience that has its set. A client that changes
//! its set moves to another audience: one that has the changed set already, or a new one. If it is alone in its
//! audience, the audience's set is changed in place.
//!
//! Each target has *watch lists*: by channel and interval, the audiences that have it as an item. A record is
//! dispatched by reading the watch lists of its instrument's name and of the prefixes that cover it.
//!
//! What always holds:
//! * Two audiences differ in their encoding, in the rights of their clients or in their set. Sets are found by a
//!   fingerprint, a 128-bit sum of keyed hashes, and then compared.
//! * What an audience may not see is nowhere among what it wants. Names are decided when they are subscribed to, and
//!   what patterns cover for each instrument once for equal rights.
//! * Every item is in the watch list of its target, at the index that the item has; so joining, leaving and changing
//!   are constant work an item, regardless of how many other audiences watch.
//! * If several items of an audience cover a record, the most specific one decides the interval: the exact name, then
//!   the longest prefix.
//! * A name that is subscribed to before its instrument exists covers the instrument as soon as that is defined.
//! * No call does more work than its portion: long changes are cut ([`Started::Building`]), and what is not used any
//!   more is removed by [`SubscriptionIndex::maintain`].
//!
//! What it does not do: it knows no client, no socket, and no byte of a packet.
//!
//! Memory: 16 bytes an item, 4 in the watch list; 64 an audience; some 60 and the text for each name and prefix, once
//! for all clients.

mod changes;
mod covering;
mod instruments;
mod interest;
mod patterns;
mod rights;
mod split_table;
mod watch_lists;

use std::ops::ControlFlow;

use hashbrown::HashTable;

use self::changes::UnusedQueue;
pub use self::changes::{Building, Started};
pub use self::covering::Covering;
use self::instruments::{Instruments, NO_NAME};
use self::interest::{Fingerprints, Interest, Item};
use self::patterns::PatternTable;
pub(super) use self::rights::HiddenFields;
use self::rights::RightsTable;
use super::encoding::Encoding;
use tickcast_protocol::ConflationInterval;
use tickcast_protocol::control::ChannelSet;
use tickcast_protocol::record::{Channel, Gap, RecordKind};

/// Index of an audience.
pub type AudienceId = u32;

/// What an item, or a request for values, is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// An instrument by id. No item has it.
    Instrument(u32),
    /// One interned name, whose instrument need not exist yet.
    Name(u32),
    /// An interned prefix: all symbols that begin with it.
    Prefix(u32),
}

/// Target and channel of an item. Ordered: instruments, names, prefixes; by id; by channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(u64);

impl Key {
    const NAME: u64 = 1 << 62;
    const PREFIX: u64 = 1 << 63;

    /// The key of a target and channel.
    pub fn new(target: Target, channel: Channel) -> Self {
        let (kind, id) = match target {
            Target::Instrument(id) => (0, id),
            Target::Name(id) => (Self::NAME, id),
            Target::Prefix(id) => (Self::PREFIX, id),
        };
        Self(kind | u64::from(id) << 8 | channel as u64)
    }

    /// Its target.
    pub fn target(self) -> Target {
        let id = (self.0 >> 8) as u32;
        match self.0 & (Self::NAME | Self::PREFIX) {
            0 => Target::Instrument(id),
            Self::NAME => Target::Name(id),
            _ => Target::Prefix(id),
        }
    }

    /// Its channel.
    pub fn channel(self) -> Channel {
        Channel::ALL[(self.0 & 0xff) as usize]
    }

    fn bits(self) -> u64 {
        self.0
    }

    fn is_prefix(self) -> bool {
        self.0 & Self::PREFIX != 0
    }

    /// The row of an item's target.
    fn pattern(self) -> u32 {
        assert!(self.0 & (Self::NAME | Self::PREFIX) != 0, "items are for names and prefixes");
        (self.0 >> 8) as u32
    }
}

#[derive(Debug, Default)]
struct AudienceRow {
    interest: Interest,
    /// Clients that belong to it.
    clients: u32,
}

impl AudienceRow {
    /// A prefix is among its targets, so any instrument may be covered. Prefixes are the last of the sorted items.
    fn has_prefixes(&self) -> bool {
        self.interest.items.last().is_some_and(|item| item.key.is_prefix())
    }

    /// Several items may cover one record.
    fn overlaps(&self) -> bool {
        self.interest.items.len() > 1 && self.has_prefixes()
    }
}

/// A part of the instruments that a prefix covers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted<'a> {
    pub allowed: usize,
    pub visited: usize,
    /// The last symbol that was visited.
    pub last: Option<&'a str>,
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
    instruments: Instruments,
    patterns: PatternTable,
    /// Items by interval: which intervals are in use at all.
    items_by_interval: [u64; ConflationInterval::COUNT],
    fingerprints: Fingerprints,
    rights: RightsTable,
    unused: UnusedQueue,
}

impl SubscriptionIndex {
    /// Has symbols below `user/` be private: only patterns below the folder of a user cover them. Called before the first
    /// instrument.
    pub fn set_private(&mut self) {
        self.instruments.set_private();
    }

    /// Sets the age of the data, by which rights are evaluated. Called before the first client.
    pub fn set_delay(&mut self, delay_s: u32) {
        self.rights.delay_s = delay_s;
    }

    /// The age of the data, s.
    pub fn delay_s(&self) -> u32 {
        self.rights.delay_s
    }

    /// Adds an instrument; ids come in order.
    pub fn add_instrument(&mut self, id: u32, symbol: &str) {
        assert_eq!(id as usize, self.instruments.len() + 1, "instrument ids are dense");
        let name = self.patterns.find_name(symbol);
        if let Some(name) = name {
            self.patterns.set_instrument(name, id);
        }
        self.instruments.add(symbol, name.unwrap_or(NO_NAME));
    }

    /// Has the prefixes that cover an instrument at hand. Without this they are found for each question: it is for
    /// instruments of which a record is dispatched.
    pub fn refresh(&mut self, instrument: u32) {
        self.instruments.row_mut(instrument).refresh(&self.patterns);
    }

    /// Takes the symbol from an instrument: it may be defined again under another id.
    pub fn release_instrument(&mut self, id: u32) {
        self.instruments.release(id);
    }

    /// Adds the next id, of an instrument that was released already.
    pub fn add_released(&mut self) {
        self.instruments.add_released();
    }

    /// True if an instrument was released.
    pub fn is_released(&self, id: u32) -> bool {
        self.instruments.get(id).is_some_and(|row| row.is_released)
    }

    /// The target of one name, interned: it is kept until [`Self::release_all`], and as long as an item has it.
    pub fn intern_name(&mut self, name: &str) -> Target {
        let known = self.patterns.find_name(name);
        let id = known.unwrap_or_else(|| {
            let instrument = self.instruments.find(name);
            let id = self.patterns.add_name(name, instrument.unwrap_or(0));
            if let Some(instrument) = instrument {
                self.instruments.row_mut(instrument).name = id;
            }
            id
        });
        self.patterns.row_mut(id).uses += 1;
        Target::Name(id)
    }

    /// The target of a prefix, interned likewise.
    pub fn intern_prefix(&mut self, prefix: &str) -> Target {
        let known = self.patterns.find_prefix(prefix);
        let id = known.unwrap_or_else(|| self.patterns.add_prefix(prefix));
        self.patterns.row_mut(id).uses += 1;
        Target::Prefix(id)
    }

    /// The target of this name or prefix, if it is interned.
    pub fn find(&self, text: &str, is_prefix: bool) -> Option<Target> {
        match is_prefix {
            true => self.patterns.find_prefix(text).map(Target::Prefix),
            false => self.patterns.find_name(text).map(Target::Name),
        }
    }

    /// The name, or the prefix, of an item's target.
    pub fn text(&self, target: Target) -> &str {
        match target {
            Target::Instrument(id) => &self.instruments.row(id).symbol,
            Target::Name(id) | Target::Prefix(id) => &self.patterns.row(id).text,
        }
    }

    /// True if an instrument has the name of this target now.
    pub fn is_known(&self, target: Target) -> bool {
        let Target::Name(id) = target else { return false };
        self.patterns.row(id).instrument().is_some_and(|id| !self.instruments.row(id).is_released)
    }

    /// How many instruments a prefix covers now.
    pub fn count(&self, prefix: &str) -> usize {
        self.instruments.count(prefix)
    }

    /// True if a symbol or prefix is one of a user alone.
    pub fn is_private(&self, text: &str) -> bool {
        self.instruments.is_private(text)
    }

    /// Of the instruments that a prefix covers now, those of which clients of an audience may see any of these channels.
    /// They are visited in the order of symbols, behind `after`, and so many at the most.
    pub fn count_allowed(
        &self,
        audience: AudienceId,
        prefix: &str,
        channels: ChannelSet,
        after: Option<&str>,
        visits: usize,
    ) -> Counted<'_> {
        let rights = self.audiences[audience as usize].interest.profile.rights;
        let mut counted = Counted::default();
        for (id, is_covered) in self.instruments.below(prefix, after).take(visits) {
            let allowed = self.rights.channels(rights, &self.instruments, id);
            counted.allowed += usize::from(is_covered && channels.iter().any(|channel| allowed.contains(channel)));
            counted.visited += 1;
            counted.last = Some(&self.instruments.row(id).symbol);
        }
        counted
    }

    /// How an audience's packets are encoded.
    pub fn encoding(&self, audience: AudienceId) -> Encoding {
        self.audiences[audience as usize].interest.profile.encoding
    }

    /// The interval at which an audience wants a channel of an instrument; `None` if it does not.
    pub fn wants(&self, audience: AudienceId, instrument: u32, channel: Channel) -> Option<ConflationInterval> {
        self.resolve(&self.audiences[audience as usize], instrument, channel).map(|item| item.interval)
    }

    /// True if there is an instrument with this id.
    pub fn is_defined(&self, instrument: u32) -> bool {
        self.instruments.get(instrument).is_some()
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

    /// Of these keys, in order, those that are no items of the audience.
    pub fn missing(&self, audience: AudienceId, keys: impl Iterator<Item = Key>) -> Vec<Key> {
        self.audiences[audience as usize].interest.missing(keys)
    }

    /// The items of an audience from an index on, in order: at most `count`.
    pub fn keys_from(&self, audience: AudienceId, from: usize, count: usize) -> impl Iterator<Item = Key> {
        self.audiences[audience as usize].interest.items.iter().skip(from).take(count).map(|item| item.key)
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

    /// True if the audience has a prefix: any instrument may be covered.
    pub fn has_prefixes(&self, audience: AudienceId) -> bool {
        self.audiences[audience as usize].has_prefixes()
    }

    /// The prefixes among an audience's items, each once.
    pub fn prefixes(&self, audience: AudienceId) -> Vec<Target> {
        let items = &self.audiences[audience as usize].interest.items;
        let from = items.partition_point(|item| !item.key.is_prefix());
        let mut prefixes: Vec<Target> = items[from..].iter().map(|item| item.key.target()).collect();
        prefixes.dedup();
        prefixes
    }

    /// Calls `each` for the instruments from an id on that an audience's items may cover, by id, until it breaks. Returns
    /// the one at which it did.
    pub fn try_each_candidate(
        &self,
        audience: AudienceId,
        from: u32,
        mut each: impl FnMut(u32) -> ControlFlow<()>,
    ) -> Option<u32> {
        if self.has_prefixes(audience) {
            return (from..=self.instruments.len() as u32).find(|id| each(*id).is_break());
        }
        let mut next = from;
        loop {
            let (ids, is_all) = self.next_candidates(audience, next);
            if let Some(stopped) = ids.iter().find(|id| each(**id).is_break()) {
                return Some(*stopped);
            }
            next = *ids.last().filter(|_| !is_all)? + 1;
        }
    }

    /// The next instruments of the names of an audience without prefixes, by id; true if these are all. They are
    /// gathered in portions: a piece of values has some hundred of them.
    fn next_candidates(&self, audience: AudienceId, from: u32) -> (Vec<u32>, bool) {
        const COUNT: usize = 1024;
        let mut ids: Vec<u32> = Vec::new();
        let mut last = None;
        for item in &self.audiences[audience as usize].interest.items {
            let name = item.key.pattern();
            if last.replace(name) != Some(name) {
                ids.extend(self.patterns.instruments_of_name(name).filter(|id| *id >= from));
            }
        }
        let is_all = ids.len() <= COUNT;
        if !is_all {
            ids.select_nth_unstable(COUNT);
            ids.truncate(COUNT);
        }
        ids.sort_unstable();
        (ids, is_all)
    }

    /// True if any key of a covering item, for this channel of an instrument, passes: that of its name first, then those
    /// of the prefixes, the longest first.
    pub fn any_covering(&self, instrument: u32, channel: Channel, test: impl FnMut(Key) -> bool) -> bool {
        self.covering(instrument).any(channel, test)
    }

    /// The targets that cover an instrument, for several questions about it.
    pub fn covering(&self, instrument: u32) -> Covering<'_> {
        let row = self.instruments.row(instrument);
        let name = (row.name != NO_NAME).then_some(Target::Name(row.name));
        Covering { instrument, name, prefixes: row.prefixes(&self.patterns) }
    }

    /// The same as [`Self::wants`], where the targets are known already.
    pub fn wants_of(
        &self,
        audience: AudienceId,
        covering: &Covering<'_>,
        channel: Channel,
    ) -> Option<ConflationInterval> {
        let row = &self.audiences[audience as usize];
        let find = |key: Key| row.interest.find(key);
        let item = match covering.name.and_then(|name| find(Key::new(name, channel))) {
            Some(item) => Some(item),
            None if !row.has_prefixes() || !self.allows(row, covering.instrument, channel) => None,
            None => covering.find(channel, find),
        };
        item.map(|item| item.interval)
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
        let row = self.instruments.row(instrument);
        if row.name != NO_NAME {
            // The name is the most specific item of every audience that has it.
            self.patterns.row(row.name).watches.list(channel, interval).iter().for_each(|audience| each(*audience));
        }
        for prefix in row.prefixes(&self.patterns).iter() {
            for audience in self.patterns.row(*prefix).watches.list(channel, interval) {
                if self.decides(*audience, instrument, Key::new(Target::Prefix(*prefix), channel)) {
                    each(*audience);
                }
            }
        }
    }

    /// True if the audience may see that channel of the instrument, and no more specific item of it covers that.
    fn decides(&self, audience: AudienceId, instrument: u32, key: Key) -> bool {
        let audience = &self.audiences[audience as usize];
        match audience.overlaps() {
            false => self.allows(audience, instrument, key.channel()),
            true => self.resolve(audience, instrument, key.channel()).is_some_and(|item| item.key == key),
        }
    }

    /// True if clients of an audience may see a channel of an instrument that their patterns cover. Names need not be
    /// checked: an audience has none that its clients may not see.
    fn allows(&self, audience: &AudienceRow, instrument: u32, channel: Channel) -> bool {
        self.rights.channels(audience.interest.profile.rights, &self.instruments, instrument).contains(channel)
    }

    /// True if any audience watches this channel of this instrument at this interval.
    pub fn is_watched(&self, instrument: u32, channel: Channel, interval: ConflationInterval) -> bool {
        let row = self.instruments.row(instrument);
        let watched = |id: u32| !self.patterns.row(id).watches.list(channel, interval).is_empty();
        (row.name != NO_NAME && watched(row.name)) || row.prefixes(&self.patterns).iter().any(|prefix| watched(*prefix))
    }

    /// True if any item has this interval.
    pub fn uses(&self, interval: ConflationInterval) -> bool {
        self.items_by_interval[interval.index()] > 0
    }

    /// Calls `each` for every audience that wants any channel of a new instrument, possibly several times in a row.
    pub fn each_pattern_watcher(&self, instrument: u32, mut each: impl FnMut(AudienceId)) {
        let row = self.instruments.row(instrument);
        if row.name != NO_NAME {
            self.patterns.row(row.name).watches.each(&mut |_, audience| each(audience));
        }
        for prefix in row.prefixes(&self.patterns).iter() {
            self.patterns.row(*prefix).watches.each(&mut |channel, audience| {
                if self.allows(&self.audiences[audience as usize], instrument, channel) {
                    each(audience);
                }
            });
        }
    }

    /// Items of all audiences.
    pub fn all_items(&self) -> u64 {
        self.items_by_interval.iter().sum()
    }

    /// Names and prefixes that items have, those of instruments included.
    pub fn all_names(&self) -> usize {
        self.patterns.len()
    }

    /// How many audiences have clients.
    pub fn audiences(&self) -> usize {
        self.by_fingerprint.len()
    }

    /// One above the highest audience id.
    pub fn audience_ids(&self) -> usize {
        self.audiences.len()
    }

    /// Items in an audience's set.
    pub fn items(&self, audience: AudienceId) -> usize {
        self.audiences[audience as usize].interest.items.len()
    }

    fn resolve<'a>(&'a self, audience: &'a AudienceRow, instrument: u32, channel: Channel) -> Option<&'a Item> {
        let row = self.instruments.row(instrument);
        let name = (row.name != NO_NAME).then_some(Target::Name(row.name));
        let of_name = name.and_then(|name| audience.interest.find(Key::new(name, channel)));
        of_name.or_else(|| {
            if !audience.has_prefixes() || !self.allows(audience, instrument, channel) {
                return None;
            }
            let covering = Covering { instrument, name: None, prefixes: row.prefixes(&self.patterns) };
            covering.find(channel, |key| audience.interest.find(key))
        })
    }
}
