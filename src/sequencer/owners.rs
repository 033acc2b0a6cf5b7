//! Owners of instruments: which feed or publisher identity an instrument belongs to, and how many each has.
//!
//! What always holds:
//! * An instrument belongs to the owner that defined it, until it has ended. Sources of other owners cannot define it, and
//!   so cannot send records, Status or Gap of it.
//! * An owner has at most [`OwnerLimits::instruments_max`] instruments that are not released, and takes at most
//!   [`OwnerLimits::ids_max`] new ids in an epoch.
//!
//! What it does not do: know names or tokens. An identity of publishers is a number here.
//!
//! Cost: 4 bytes an instrument id, and some 40 an owner.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::SourceId;

/// A feed, or an identity of publishers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerId(u32);

impl OwnerId {
    /// Set in the number of an identity of publishers.
    const PUBLISHER: u32 = 1 << 31;

    /// A feed, which owns what it defines alone.
    pub const fn feed(source: SourceId) -> Self {
        Self(source & !Self::PUBLISHER)
    }

    /// The nth identity of publishers. Its connections share what they define.
    pub const fn publisher(nth: u32) -> Self {
        Self(nth | Self::PUBLISHER)
    }

    /// True for a feed.
    pub const fn is_feed(self) -> bool {
        self.0 & Self::PUBLISHER == 0
    }
}

/// What an owner may take of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerLimits {
    /// Instruments that are not released, at a time.
    pub instruments_max: usize,
    /// New instrument ids in an epoch, those of released instruments included.
    pub ids_max: u64,
}

impl OwnerLimits {
    /// No limit but that of the directory.
    pub const NONE: Self = Self { instruments_max: usize::MAX, ids_max: u64::MAX };
}

/// On behalf of whom a source sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceIdentity {
    pub owner: OwnerId,
    /// 0 for the primary. A source with a higher number is standby while one with a lower number is live.
    pub priority: u8,
    pub limits: OwnerLimits,
}

impl SourceIdentity {
    /// A source that is an owner by itself.
    pub const fn alone(source: SourceId) -> Self {
        Self { owner: OwnerId::feed(source), priority: 0, limits: OwnerLimits::NONE }
    }
}

/// What an owner has.
#[derive(Clone, Copy, Debug, Default)]
struct Holding {
    instruments: usize,
    ids: u64,
}

/// The owner of each instrument.
#[derive(Debug, Default)]
pub(super) struct OwnerTable {
    /// By instrument id.
    owners: Vec<OwnerId>,
    holdings: HashMap<OwnerId, Holding, RandomState>,
}

impl OwnerTable {
    /// The owner of an instrument that is not released.
    pub(super) fn of(&self, id: u32) -> OwnerId {
        self.owners.get(id as usize).copied().unwrap_or_default()
    }

    /// Instruments of an owner.
    pub(super) fn instruments(&self, owner: OwnerId) -> usize {
        self.holdings.get(&owner).map_or(0, |holding| holding.instruments)
    }

    /// Ids that an owner has taken in this epoch.
    pub(super) fn ids(&self, owner: OwnerId) -> u64 {
        self.holdings.get(&owner).map_or(0, |holding| holding.ids)
    }

    /// Notes a new instrument.
    pub(super) fn add(&mut self, id: u32, owner: OwnerId) {
        if self.owners.len() <= id as usize {
            self.owners.resize(id as usize + 1, OwnerId::default());
        }
        self.owners[id as usize] = owner;
        let holding = self.holdings.entry(owner).or_default();
        holding.instruments += 1;
        holding.ids += 1;
    }

    /// Notes that an instrument is released.
    pub(super) fn remove(&mut self, id: u32) {
        if let Some(holding) = self.holdings.get_mut(&self.of(id)) {
            holding.instruments -= 1;
        }
    }
}
