//! The set of items of an audience, and changes to it.

use std::cmp::Ordering;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use super::rights::RightsId;
use super::{Change, Key};
use crate::shard::encoding::Encoding;
use tickcast_protocol::ConflationInterval;

/// One item of an audience's set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) key: Key,
    /// Index of the audience in the watch list of this item.
    pub(super) watch_list_index: u32,
    pub(super) interval: ConflationInterval,
}

const _: () = assert!(size_of::<Item>() == 16);

/// What all members of an audience have in common besides their items: what they are sent, and what they may see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Profile {
    pub(super) encoding: Encoding,
    pub(super) rights: RightsId,
}

/// What identifies an audience.
#[derive(Debug, Default)]
pub(super) struct Interest {
    /// Sorted by key.
    pub(super) items: Vec<Item>,
    /// Of the items and the profile.
    pub(super) fingerprint: u128,
    pub(super) profile: Profile,
}

/// An item of a set that no audience may have yet.
pub(super) type Wanted = (Key, ConflationInterval);

/// A change that has an effect, and the interval that the item had.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effect {
    pub(super) key: Key,
    pub(super) had: Option<ConflationInterval>,
    pub(super) wants: Option<ConflationInterval>,
}

impl Interest {
    pub(super) fn find(&self, key: Key) -> Option<&Item> {
        self.items.binary_search_by_key(&key, |item| item.key).ok().map(|at| &self.items[at])
    }

    /// The changes that have an effect, by key; if several have the same key, the last one counts.
    pub(super) fn effects(&self, changes: &[Change]) -> Vec<Effect> {
        let mut sorted: Vec<Change> = changes.to_vec();
        // Stable, and linear for changes that are sorted already, as those of a request are.
        sorted.sort_by_key(Change::key);
        let mut effects: Vec<Effect> = Vec::with_capacity(sorted.len());
        let mut rest = &self.items[..];
        for change in sorted {
            let key = change.key();
            rest = &rest[count_below(rest, key)..];
            let had = rest.first().filter(|item| item.key == key).map(|item| item.interval);
            let wants = match change {
                Change::Want(_, interval) => Some(interval),
                Change::Drop(_) => None,
            };
            effects.pop_if(|last| last.key == key);
            effects.push(Effect { key, had, wants });
        }
        effects.retain(|effect| effect.had != effect.wants);
        effects
    }

    /// Of these keys, in order, those that are no items.
    pub(super) fn missing(&self, keys: impl Iterator<Item = Key>) -> Vec<Key> {
        let mut rest = &self.items[..];
        keys.filter(|key| {
            rest = &rest[count_below(rest, *key)..];
            rest.first().is_none_or(|item| item.key != *key)
        })
        .collect()
    }

    /// The set after these effects, in order.
    pub(super) fn after<'a>(&'a self, effects: &'a [Effect]) -> impl Iterator<Item = Wanted> + 'a {
        let (mut items, mut effects) = (self.items.iter().peekable(), effects.iter().peekable());
        std::iter::from_fn(move || {
            loop {
                let order = match (items.peek(), effects.peek()) {
                    (None, None) => return None,
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (Some(item), Some(effect)) => item.key.cmp(&effect.key),
                };
                if order == Ordering::Less {
                    return items.next().map(|item| (item.key, item.interval));
                }
                if order == Ordering::Equal {
                    items.next();
                }
                let Effect { key, wants, .. } = *effects.next()?;
                if let Some(interval) = wants {
                    return Some((key, interval));
                }
            }
        })
    }

    /// True if this is exactly that set.
    pub(super) fn is(&self, wanted: impl Iterator<Item = Wanted>) -> bool {
        self.items.iter().map(|item| (item.key, item.interval)).eq(wanted)
    }
}

/// How many of these sorted items have a lower key: quick where it is few.
fn count_below(items: &[Item], key: Key) -> usize {
    let mut bound = 1;
    while bound < items.len() && items[bound - 1].key < key {
        bound *= 2;
    }
    let from = bound / 2;
    let to = bound.min(items.len());
    from + items[from..to].partition_point(|item| item.key < key)
}

/// Keyed hashes of items. A fingerprint is their sum, so that a change costs nothing for the items that stay.
#[derive(Debug, Default)]
pub(super) struct Fingerprints {
    low: RandomState,
    high: RandomState,
}

impl Fingerprints {
    /// Of the empty set with a profile.
    pub(super) fn of_empty(&self, profile: Profile) -> u128 {
        // No item has this key.
        let base = (u64::MAX, profile);
        u128::from(self.high.hash_one(base)) << 64 | u128::from(self.low.hash_one(base))
    }

    fn of_item(&self, key: Key, interval: ConflationInterval) -> u128 {
        let item = (key.bits(), interval.index());
        u128::from(self.high.hash_one(item)) << 64 | u128::from(self.low.hash_one(item))
    }

    /// That of the same set with another profile.
    pub(super) fn with_profile(&self, fingerprint: u128, before: Profile, after: Profile) -> u128 {
        fingerprint.wrapping_sub(self.of_empty(before)).wrapping_add(self.of_empty(after))
    }

    /// That of a set after some effects.
    pub(super) fn after(&self, fingerprint: u128, effects: &[Effect]) -> u128 {
        effects.iter().fold(fingerprint, |sum, Effect { key, had, wants }| {
            let sum = had.map_or(sum, |interval| sum.wrapping_sub(self.of_item(*key, interval)));
            wants.map_or(sum, |interval| sum.wrapping_add(self.of_item(*key, interval)))
        })
    }
}
