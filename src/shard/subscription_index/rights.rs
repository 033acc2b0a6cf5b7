//! The rights of clients, interned: one entry for all audiences whose clients have equal rules, and for each instrument
//! what they come to.
//!
//! A client that sees everything has [`RightsId::OPEN`], and nothing is looked up for it. For others, what the rules come
//! to for an instrument is decided once: a few instruments a tick for each entry ([`RightsTable::advance`]), and until then
//! whenever it is asked.
//!
//! Memory: a byte an instrument and entry, two more where the rights limit the depth of books, and two where they hide
//! fields.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::instruments::Instruments;
use super::{AudienceId, SubscriptionIndex};
use crate::identity::{Depth, Rights, owner_folder};
use tickcast_protocol::Channel;
use tickcast_protocol::control::ChannelSet;
use tickcast_protocol::record::FieldSet;

/// The rights of an audience.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RightsId(u32);

impl RightsId {
    /// Everything.
    pub const OPEN: Self = Self(0);
}

#[derive(Debug)]
struct Entry {
    rights: Arc<Rights>,
    /// Audiences that have it.
    audiences: u32,
    /// By instrument, from the first on.
    channels: Vec<ChannelSet>,
    /// Likewise, levels of each side of its book, 0 for all; empty where no book is limited.
    depths: Vec<u16>,
    /// Likewise, the fields that are hidden; empty where none are.
    hidden: Vec<FieldSet>,
}

impl Entry {
    fn decide(&mut self, symbol: &str, delay_s: u32) {
        self.channels.push(evaluate(&self.rights, symbol, delay_s));
        if self.rights.limits_depth() {
            self.depths.push(depth_of(&self.rights, symbol, delay_s));
        }
        if self.rights.hides_fields() {
            self.hidden.push(self.rights.hidden_fields(symbol, delay_s));
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct RightsTable {
    /// The age of the data, s.
    pub(super) delay_s: u32,
    /// Of an id, less one.
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    by_rights: HashMap<Arc<Rights>, RightsId, RandomState>,
    /// Entries that limit the depth of books.
    limiting: usize,
    /// Entries that hide fields.
    hiding: usize,
}

impl RightsTable {
    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.by_rights.len()
    }

    /// The id of these rights. It is kept once an audience has it, see [`Self::retain`].
    pub(super) fn intern(&mut self, rights: &Arc<Rights>) -> RightsId {
        if rights.is_open() {
            return RightsId::OPEN;
        }
        if let Some(id) = self.by_rights.get(rights) {
            return *id;
        }
        self.limiting += usize::from(rights.limits_depth());
        self.hiding += usize::from(rights.hides_fields());
        let (channels, depths, hidden) = (Vec::new(), Vec::new(), Vec::new());
        let entry = Some(Entry { rights: rights.clone(), audiences: 0, channels, depths, hidden });
        let index = match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        let id = RightsId(index + 1);
        self.by_rights.insert(rights.clone(), id);
        id
    }

    /// Notes that an audience has these rights.
    pub(super) fn retain(&mut self, id: RightsId) {
        if let Some(entry) = self.entry_mut(id) {
            entry.audiences += 1;
        }
    }

    /// Notes that an audience has them no more.
    pub(super) fn release(&mut self, id: RightsId) {
        if let Some(entry) = self.entry_mut(id) {
            entry.audiences -= 1;
        }
        self.remove_unused(id);
    }

    /// Removes an entry that no audience has.
    pub(super) fn remove_unused(&mut self, id: RightsId) {
        if self.entry(id).is_some_and(|entry| entry.audiences == 0)
            && let Some(index) = id.0.checked_sub(1)
            && let Some(entry) = self.entries[index as usize].take()
        {
            self.limiting -= usize::from(entry.rights.limits_depth());
            self.hiding -= usize::from(entry.rights.hides_fields());
            self.by_rights.remove(&entry.rights);
            self.free.push(index);
        }
    }

    /// The channels of an instrument that are allowed to those who name a pattern that covers it.
    pub(super) fn channels(&self, id: RightsId, instruments: &Instruments, instrument: u32) -> ChannelSet {
        let Some(entry) = self.entry(id) else { return ChannelSet::ALL };
        match entry.channels.get(instrument as usize - 1) {
            Some(channels) => *channels,
            None => evaluate(&entry.rights, &instruments.row(instrument).symbol, self.delay_s),
        }
    }

    /// True if any entry limits the depth of books.
    pub(super) fn limit_depth(&self) -> bool {
        self.limiting > 0
    }

    /// True if this entry does.
    pub(super) fn limits_depth(&self, id: RightsId) -> bool {
        self.entry(id).is_some_and(|entry| entry.rights.limits_depth())
    }

    /// Levels of each side of an instrument's book that are allowed; `None` for all.
    pub(super) fn book_levels(&self, id: RightsId, instruments: &Instruments, instrument: u32) -> Option<usize> {
        let entry = self.entry(id).filter(|entry| entry.rights.limits_depth())?;
        let levels = match entry.depths.get(instrument as usize - 1) {
            Some(levels) => *levels,
            None => depth_of(&entry.rights, &instruments.row(instrument).symbol, self.delay_s),
        };
        (levels > 0).then_some(levels.into())
    }

    /// True if this entry hides fields.
    fn hides_fields(&self, id: RightsId) -> bool {
        self.entry(id).is_some_and(|entry| entry.rights.hides_fields())
    }

    /// The fields of an instrument that are hidden.
    fn hidden_fields(&self, id: RightsId, instruments: &Instruments, instrument: u32) -> FieldSet {
        let Some(entry) = self.entry(id).filter(|entry| entry.rights.hides_fields()) else { return FieldSet::NONE };
        // Instrument 0 is the feed as a whole.
        match (instrument as usize).checked_sub(1).map(|at| entry.hidden.get(at)) {
            None => FieldSet::NONE,
            Some(Some(hidden)) => *hidden,
            Some(None) => entry.rights.hidden_fields(&instruments.row(instrument).symbol, self.delay_s),
        }
    }

    /// Decides about some instruments for each entry, at most as many as the budget has. False if all is decided.
    pub(super) fn advance(&mut self, instruments: &Instruments, budget: &mut usize) -> bool {
        let mut has_worked = false;
        for entry in self.entries.iter_mut().flatten() {
            while *budget > 0 && entry.channels.len() < instruments.len() {
                let symbol = &instruments.row(entry.channels.len() as u32 + 1).symbol;
                entry.decide(symbol, self.delay_s);
                *budget = budget.saturating_sub(UNITS);
                has_worked = true;
            }
        }
        has_worked
    }

    fn entry(&self, id: RightsId) -> Option<&Entry> {
        self.entries.get((id.0 as usize).checked_sub(1)?)?.as_ref()
    }

    fn entry_mut(&mut self, id: RightsId) -> Option<&mut Entry> {
        self.entries.get_mut((id.0 as usize).checked_sub(1)?)?.as_mut()
    }
}

/// What the rights of audiences come to.
impl SubscriptionIndex {
    /// How many different rights audiences have, beside those to everything.
    pub fn rights(&self) -> usize {
        self.rights.len()
    }

    /// True if clients of an audience may see everything.
    pub fn is_open(&self, audience: AudienceId) -> bool {
        self.rights_of(audience) == RightsId::OPEN
    }

    /// True if the rights of any audience limit the depth of books.
    pub fn limit_depth(&self) -> bool {
        self.rights.limit_depth()
    }

    /// True if the rights of an audience do.
    pub fn limits_depth(&self, audience: AudienceId) -> bool {
        self.rights.limits_depth(self.rights_of(audience))
    }

    /// Levels of each side of an instrument's book that an audience is sent; `None` for all.
    pub fn book_levels(&self, audience: AudienceId, instrument: u32) -> Option<usize> {
        let rights = self.rights_of(audience);
        self.rights.book_levels(rights, &self.instruments, instrument)
    }

    /// The fields that are hidden from the clients of an audience; `None` if none are.
    #[inline]
    pub(in crate::shard) fn hidden_fields(&self, audience: AudienceId) -> Option<HiddenFields<'_>> {
        if self.rights.hiding == 0 {
            return None;
        }
        let rights = self.rights_of(audience);
        let (table, instruments) = (&self.rights, &self.instruments);
        table.hides_fields(rights).then_some(HiddenFields { table, instruments, rights })
    }

    fn rights_of(&self, audience: AudienceId) -> RightsId {
        self.audiences[audience as usize].interest.profile.rights
    }
}

/// The fields that are hidden from an audience.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) struct HiddenFields<'a> {
    table: &'a RightsTable,
    instruments: &'a Instruments,
    rights: RightsId,
}

impl HiddenFields<'_> {
    /// Those of an instrument.
    pub(in crate::shard) fn of(&self, instrument: u32) -> FieldSet {
        self.table.hidden_fields(self.rights, self.instruments, instrument)
    }
}

/// Units of work to decide about an instrument.
const UNITS: usize = 4;

/// Private symbols are their user's, whose patterns alone cover them: only rules that deny count.
fn evaluate(rights: &Rights, symbol: &str, delay_s: u32) -> ChannelSet {
    match owner_folder(symbol) {
        None => rights.served_channels(symbol, delay_s),
        Some(_) => Channel::ALL.into_iter().filter(|channel| !rights.denies(symbol, false, *channel)).collect(),
    }
}

/// Levels of each side of the book of a symbol; 0 for all.
fn depth_of(rights: &Rights, symbol: &str, delay_s: u32) -> u16 {
    // Fewer than a right may have are no leak.
    rights.book_depth(symbol, delay_s).levels().map_or(0, |levels| levels.min(Depth::LEVELS_MAX) as u16)
}
