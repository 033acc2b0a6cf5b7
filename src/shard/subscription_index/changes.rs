//! Clients that enter, leave, and change their sets; in portions where that is much work.
//!
//! A client whose set changes belongs to its old audience until the new one is complete. An audience without clients is
//! dissolved in portions as well: until then its watch lists name it, and it has no members.

use std::collections::VecDeque;
use std::sync::Arc;

use super::instruments::NO_NAME;
use super::interest::{Effect, Interest, Item, Profile, Wanted};
use super::{AudienceId, AudienceRow, Change, Key, SubscriptionIndex, Target};
use crate::identity::Rights;
use crate::shard::encoding::Encoding;
use tickcast_protocol::ConflationInterval;

/// Items that are changed at once. More are changed in portions, see [`Started::Building`].
const AT_ONCE: usize = 256;

/// A change under way.
#[derive(Debug)]
pub enum Started {
    /// It is done: the client belongs to this audience.
    Done(AudienceId),
    /// The new audience is being built.
    Building(Building),
}

/// An audience that is being built for one client.
#[derive(Debug)]
pub struct Building {
    /// That of the client until then.
    from: AudienceId,
    audience: AudienceId,
    fingerprint: u128,
    /// Its whole set, in order.
    wanted: Vec<Wanted>,
}

/// What is removed in portions.
#[derive(Debug)]
enum Unused {
    Audience(AudienceId),
    Targets(Vec<Target>),
}

/// See [`SubscriptionIndex::maintain`].
#[derive(Debug, Default)]
pub(super) struct UnusedQueue(VecDeque<Unused>);

impl SubscriptionIndex {
    /// Adds a client without items that may see everything: it belongs to the audience of the empty set with its encoding.
    pub fn enter(&mut self, encoding: Encoding) -> AudienceId {
        self.enter_as(Profile { encoding, ..Profile::default() })
    }

    /// Adds a client without items, with these rights.
    pub fn enter_with(&mut self, encoding: Encoding, rights: &Arc<Rights>) -> AudienceId {
        let rights = self.rights.intern(rights);
        self.enter_as(Profile { encoding, rights })
    }

    fn enter_as(&mut self, profile: Profile) -> AudienceId {
        let fingerprint = self.fingerprints.of_empty(profile);
        let audience = self.find_equal(fingerprint, profile, std::iter::empty).unwrap_or_else(|| {
            let audience = self.allocate(profile);
            self.insert_fingerprint(audience, fingerprint);
            audience
        });
        self.audiences[audience as usize].clients += 1;
        audience
    }

    /// Removes a client from its audience. An audience without clients is dissolved by [`Self::maintain`].
    pub fn leave(&mut self, audience: AudienceId) {
        let row = &mut self.audiences[audience as usize];
        row.clients -= 1;
        if row.clients == 0 {
            self.remove_fingerprint(audience);
            self.unused.0.push_back(Unused::Audience(audience));
        }
    }

    /// Changes the set of a client of `audience`. Returns the audience that the client belongs to afterwards: the one
    /// that has that set already, its own if it is alone in it, or a new one.
    pub fn change(&mut self, audience: AudienceId, changes: &[Change]) -> AudienceId {
        let mut building = match self.begin_change(audience, changes) {
            Started::Done(audience) => return audience,
            Started::Building(building) => building,
        };
        let mut units = usize::MAX;
        while !self.continue_change(&mut building, &mut units) {}
        self.finish_change(building)
    }

    /// Begins to change the set of a client of `audience`. The client has no other change under way.
    pub fn begin_change(&mut self, audience: AudienceId, changes: &[Change]) -> Started {
        let profile = self.audiences[audience as usize].interest.profile;
        self.begin_change_to(audience, profile, changes)
    }

    /// The same for a client whose rights change as well. The items that are left are within the new rights.
    pub fn begin_change_of_rights(
        &mut self,
        audience: AudienceId,
        rights: &Arc<Rights>,
        changes: &[Change],
    ) -> Started {
        let encoding = self.encoding(audience);
        let rights = self.rights.intern(rights);
        let started = self.begin_change_to(audience, Profile { encoding, rights }, changes);
        self.rights.remove_unused(rights);
        started
    }

    fn begin_change_to(&mut self, audience: AudienceId, profile: Profile, changes: &[Change]) -> Started {
        let row = &self.audiences[audience as usize];
        let effects = row.interest.effects(changes);
        let before = row.interest.profile;
        if effects.is_empty() && profile == before {
            return Started::Done(audience);
        }
        let fingerprint = self.fingerprints.with_profile(row.interest.fingerprint, before, profile);
        let fingerprint = self.fingerprints.after(fingerprint, &effects);
        if let Some(existing) = self.find_equal(fingerprint, profile, || row.interest.after(&effects)) {
            self.audiences[existing as usize].clients += 1;
            self.leave(audience);
            return Started::Done(existing);
        }
        if row.clients == 1 && effects.len() <= AT_ONCE {
            self.remove_fingerprint(audience);
            self.change_in_place(audience, &effects);
            self.set_profile(audience, profile);
            self.insert_fingerprint(audience, fingerprint);
            return Started::Done(audience);
        }
        let wanted: Vec<Wanted> = row.interest.after(&effects).collect();
        let is_small = wanted.len() <= AT_ONCE;
        let own = self.allocate(profile);
        self.audiences[own as usize].interest.items.reserve_exact(wanted.len());
        let mut building = Building { from: audience, audience: own, fingerprint, wanted };
        let mut units = AT_ONCE;
        if is_small && self.continue_change(&mut building, &mut units) {
            return Started::Done(self.finish_change(building));
        }
        Started::Building(building)
    }

    /// Adds items to an audience that is being built, at most as many as the budget has. True once it is complete.
    pub fn continue_change(&mut self, building: &mut Building, budget: &mut usize) -> bool {
        let at = self.audiences[building.audience as usize].interest.items.len();
        let portion = &building.wanted[at..];
        let portion = &portion[..portion.len().min(*budget)];
        for (key, interval) in portion {
            let item = self.watch(building.audience, *key, *interval);
            self.audiences[building.audience as usize].interest.items.push(item);
        }
        *budget -= portion.len();
        at + portion.len() == building.wanted.len()
    }

    /// Moves the client to the audience that was built, or to an equal one that others have built meanwhile.
    pub fn finish_change(&mut self, building: Building) -> AudienceId {
        let Building { from, audience, fingerprint, wanted } = building;
        let profile = self.audiences[audience as usize].interest.profile;
        let own = match self.find_equal(fingerprint, profile, || wanted.iter().copied()) {
            Some(existing) => {
                self.unused.0.push_back(Unused::Audience(audience));
                existing
            }
            None => {
                self.insert_fingerprint(audience, fingerprint);
                audience
            }
        };
        self.audiences[own as usize].clients += 1;
        self.leave(from);
        own
    }

    /// The client is gone, or its request is refused.
    pub fn abandon_change(&mut self, building: Building) {
        self.unused.0.push_back(Unused::Audience(building.audience));
    }

    /// Releases targets that were interned. Those that no item uses are removed by [`Self::maintain`].
    pub fn release_all(&mut self, targets: Vec<Target>) {
        self.unused.0.push_back(Unused::Targets(targets));
    }

    /// Removes what is not used any more, at most as many items as the budget has. False if there is nothing.
    pub fn maintain(&mut self, budget: &mut usize) -> bool {
        let has_decided = self.rights.advance(&self.instruments, budget);
        let has_work = self.has_unused() || has_decided;
        while *budget > 0
            && let Some(unused) = self.unused.0.pop_front()
        {
            match unused {
                Unused::Audience(audience) => self.dissolve(audience, budget),
                Unused::Targets(mut targets) => {
                    let left = targets.len().saturating_sub(*budget);
                    *budget -= targets.len() - left;
                    targets.drain(left..).for_each(|target| self.release(target));
                    if !targets.is_empty() {
                        self.unused.0.push_front(Unused::Targets(targets));
                    }
                }
            }
        }
        has_work
    }

    /// True if [`Self::maintain`] has something to do.
    pub fn has_unused(&self) -> bool {
        !self.unused.0.is_empty()
    }

    fn dissolve(&mut self, audience: AudienceId, budget: &mut usize) {
        let items = &mut self.audiences[audience as usize].interest.items;
        let removed = items.split_off(items.len().saturating_sub(*budget));
        let is_empty = items.is_empty();
        *budget -= removed.len();
        removed.iter().for_each(|item| self.unwatch(item));
        if is_empty {
            self.rights.release(self.audiences[audience as usize].interest.profile.rights);
            self.audiences[audience as usize] = AudienceRow::default();
            self.free_audiences.push(audience);
        } else {
            self.unused.0.push_front(Unused::Audience(audience));
        }
    }

    fn change_in_place(&mut self, audience: AudienceId, effects: &[Effect]) {
        // New items come first: a target must not be removed between the end of its old item and its new one.
        let added: Vec<Item> =
            effects.iter().filter_map(|effect| Some(self.watch(audience, effect.key, effect.wants?))).collect();
        let items = &self.audiences[audience as usize].interest.items;
        let room = items.len() + added.len();
        let (mut kept, mut removed) = (Vec::with_capacity(room), Vec::new());
        let (mut added, mut effects) = (added.into_iter().peekable(), effects.iter().peekable());
        for item in items {
            while let Some(new) = added.next_if(|new| new.key < item.key) {
                kept.push(new);
            }
            while effects.next_if(|effect| effect.key < item.key).is_some() {}
            if effects.peek().is_some_and(|effect| effect.key == item.key) {
                removed.push(*item);
                kept.extend(added.next_if(|new| new.key == item.key));
            } else {
                kept.push(*item);
            }
        }
        kept.extend(added);
        kept.shrink_to_fit();
        self.audiences[audience as usize].interest.items = kept;
        removed.iter().for_each(|item| self.unwatch(item));
    }

    /// An audience without items and clients, which is not found yet.
    fn allocate(&mut self, profile: Profile) -> AudienceId {
        let audience = self.free_audiences.pop().unwrap_or_else(|| {
            self.audiences.push(AudienceRow::default());
            self.audiences.len() as u32 - 1
        });
        self.audiences[audience as usize].interest = Interest { profile, ..Interest::default() };
        self.rights.retain(profile.rights);
        audience
    }

    fn set_profile(&mut self, audience: AudienceId, profile: Profile) {
        self.rights.retain(profile.rights);
        let before = std::mem::replace(&mut self.audiences[audience as usize].interest.profile, profile);
        self.rights.release(before.rights);
    }

    /// The audience with exactly this set, encoding and rights. Fingerprints lead to it and do not decide: a collision must
    /// not give a client the data of another one.
    fn find_equal<I: Iterator<Item = Wanted>>(
        &self,
        fingerprint: u128,
        profile: Profile,
        wanted: impl Fn() -> I,
    ) -> Option<AudienceId> {
        let is_equal = |audience: &AudienceId| {
            let interest = &self.audiences[*audience as usize].interest;
            interest.fingerprint == fingerprint && interest.profile == profile && interest.is(wanted())
        };
        self.by_fingerprint.find(fingerprint as u64, is_equal).copied()
    }

    fn insert_fingerprint(&mut self, audience: AudienceId, fingerprint: u128) {
        self.audiences[audience as usize].interest.fingerprint = fingerprint;
        let audiences = &self.audiences;
        let hash = |audience: &AudienceId| audiences[*audience as usize].interest.fingerprint as u64;
        self.by_fingerprint.insert_unique(fingerprint as u64, audience, hash);
    }

    fn remove_fingerprint(&mut self, audience: AudienceId) {
        let hash = self.audiences[audience as usize].interest.fingerprint as u64;
        if let Ok(entry) = self.by_fingerprint.find_entry(hash, |other| *other == audience) {
            entry.remove();
        }
    }

    /// Adds an audience to the watch list of an item.
    fn watch(&mut self, audience: AudienceId, key: Key, interval: ConflationInterval) -> Item {
        self.items_by_interval[interval.index()] += 1;
        let row = self.patterns.row_mut(key.pattern());
        row.uses += 1;
        Item { key, interval, watch_list_index: row.watches.push(key.channel(), interval, audience) }
    }

    /// Removes an item from its watch list; the audience that fills the gap gets its new index.
    fn unwatch(&mut self, item: &Item) {
        self.items_by_interval[item.interval.index()] -= 1;
        let row = self.patterns.row_mut(item.key.pattern());
        let moved = row.watches.swap_remove(item.key.channel(), item.interval, item.watch_list_index);
        if let Some(moved) = moved {
            let items = &mut self.audiences[moved as usize].interest.items;
            let at = items.partition_point(|other| other.key < item.key);
            items[at].watch_list_index = item.watch_list_index;
        }
        self.release(item.key.target());
    }

    fn release(&mut self, target: Target) {
        let (Target::Name(id) | Target::Prefix(id)) = target else { return };
        let row = self.patterns.row_mut(id);
        row.uses -= 1;
        if row.uses > 0 {
            return;
        }
        if row.is_name() {
            for instrument in self.patterns.instruments_of_name(id) {
                self.instruments.row_mut(instrument).name = NO_NAME;
            }
        }
        self.patterns.remove(id);
    }
}

impl Building {
    /// Bytes of memory, beside the audience.
    pub(in crate::shard) fn bytes(&self) -> usize {
        self.wanted.capacity() * size_of::<Wanted>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickcast_protocol::Channel;

    fn want(index: &mut SubscriptionIndex, name: &str) -> Change {
        Change::Want(Key::new(index.intern_name(name), Channel::Quote), ConflationInterval::IMMEDIATE)
    }

    #[test]
    fn sets_with_the_same_fingerprint_are_different_audiences() {
        let mut index = SubscriptionIndex::default();
        let wants = ["A", "B", "C"].map(|name| want(&mut index, name));
        let audiences = wants.map(|want| {
            let audience = index.enter(Encoding::PLAIN);
            index.change(audience, &[want])
        });
        for audience in &audiences[..2] {
            index.remove_fingerprint(*audience);
            index.insert_fingerprint(*audience, 7);
        }
        let item = |want: Change| vec![(want.key(), ConflationInterval::IMMEDIATE)];
        let plain = Profile::default();
        let found = wants.map(|want| index.find_equal(7, plain, || item(want).into_iter()));
        assert_eq!(found, [Some(audiences[0]), Some(audiences[1]), None]);
        let events = Profile { encoding: Encoding::EVENTS, ..plain };
        assert_eq!(index.find_equal(7, events, || item(wants[0]).into_iter()), None, "nor another encoding");
        let restricted = Profile { rights: index.rights.intern(&Arc::new(Rights::none())), ..plain };
        assert_eq!(index.find_equal(7, restricted, || item(wants[0]).into_iter()), None, "nor other rights");
    }

    #[test]
    fn client_that_leaves_while_its_set_is_built_leaves_nothing_behind() {
        let mut index = SubscriptionIndex::default();
        let names: Vec<String> = (0..2000).map(|nth| format!("N{nth}")).collect();
        let wants: Vec<Change> = names.iter().map(|name| want(&mut index, name)).collect();
        let targets = wants.iter().map(|want| want.key().target()).collect();
        let audience = index.enter(Encoding::PLAIN);
        let Started::Building(mut building) = index.begin_change(audience, &wants) else { panic!("it is long") };
        assert!(!index.continue_change(&mut building, &mut { 700 }));
        assert_eq!((index.all_items(), index.audiences()), (700, 1));
        index.abandon_change(building);
        index.release_all(targets);
        index.leave(audience);
        let mut calls = 0;
        while index.maintain(&mut { 100 }) {
            calls += 1;
        }
        assert!(calls >= 27, "{calls}");
        assert_eq!((index.all_items(), index.all_names(), index.audiences()), (0, 0, 0));
    }

    #[test]
    fn equal_set_that_others_have_built_meanwhile_is_shared() {
        let mut index = SubscriptionIndex::default();
        let wants: Vec<Change> = (0..1000).map(|nth| want(&mut index, &format!("N{nth}"))).collect();
        let clients = [0; 2].map(|_| index.enter(Encoding::PLAIN));
        let building = clients.map(|audience| match index.begin_change(audience, &wants) {
            Started::Building(building) => building,
            Started::Done(_) => panic!("it is long"),
        });
        let built = building.map(|mut building| {
            assert!(index.continue_change(&mut building, &mut { 1000 }));
            building
        });
        let [first, second] = built.map(|building| index.finish_change(building));
        index.maintain(&mut { usize::MAX });
        assert_eq!((first, index.all_items(), index.audiences()), (second, 1000, 1));
    }
}
