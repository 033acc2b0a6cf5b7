//! How many sessions each user has, over all shards, and which of them is the oldest.
//!
//! A session is a connection of a user: of a client that is not anonymous. Where a user has as many as it may, either the
//! oldest ends, or the new one is refused. The first is the default: half-open connections that are left over must not
//! lock a user out. The shard of a session that ends is told by its [`Orders`].
//!
//! What always holds: a user has no more sessions in the table than the limit of the one that was opened last. A session
//! that ends is out of the table before the one in whose favour it ends is in it.
//!
//! Cost: a lock of the users with the same hash, for 0.2 µs, where a session begins and ends. Some 250 bytes a session.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

use crate::identity::UserShare;
use crate::io::SlotId;

/// Locks, so that shards seldom wait for each other.
const PARTS: usize = 64;

/// What happens where a user has as many sessions as it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionPolicy {
    /// The oldest ends.
    #[default]
    EndOldest,
    /// The new one is refused.
    RefuseNew,
}

impl SessionPolicy {
    const WORDS: [(&str, Self); 2] = [("end_oldest", Self::EndOldest), ("refuse_new", Self::RefuseNew)];

    /// The policy of this name.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let found = Self::WORDS.into_iter().find(|(word, _)| *word == text);
        found
            .map(|(_, policy)| policy)
            .ok_or_else(|| format!("unknown policy {text:?}: expected end_oldest or refuse_new"))
    }

    pub fn word(self) -> &'static str {
        if self == Self::EndOldest { "end_oldest" } else { "refuse_new" }
    }
}

/// The limit of sessions as configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionSettings {
    /// Of a user whose credential does not say it; 0 for no limit.
    pub per_user_max: u32,
    pub policy: SessionPolicy,
}

/// A session that its shard is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    pub slot_id: SlotId,
    /// Since when it does not count any more, ms since 1970.
    pub at_ms: u64,
    /// Sessions that the user may have.
    pub max: u32,
}

/// What a shard is told by others.
#[derive(Debug, Default)]
pub struct Orders {
    are_there: AtomicBool,
    list: Mutex<Vec<Order>>,
}

impl Orders {
    /// Sessions that are to be ended.
    pub fn take(&self) -> Vec<Order> {
        // Acquire, with the release in `push`. One that comes later is found the next time.
        if !self.are_there.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut list = lock(&self.list);
        self.are_there.store(false, Ordering::Release);
        std::mem::take(&mut *list)
    }

    fn push(&self, order: Order) {
        let mut list = lock(&self.list);
        list.push(order);
        self.are_there.store(true, Ordering::Release);
    }
}

#[derive(Debug, Default)]
struct User {
    /// By number: the oldest first.
    sessions: BTreeMap<u64, Entry>,
    /// Subscriptions of all of them.
    subscriptions: Arc<AtomicI64>,
}

#[derive(Debug)]
struct Entry {
    /// `None`: its connection has no slot yet.
    slot_id: Option<SlotId>,
    orders: Arc<Orders>,
    share: UserShare,
}

type Part = HashMap<Arc<str>, User, RandomState>;

/// See the module.
#[derive(Debug)]
pub struct Sessions {
    parts: [Mutex<Part>; PARTS],
    hasher: RandomState,
    /// The number of the last session.
    last: AtomicU64,
    open: AtomicI64,
    users: AtomicI64,
    ended: AtomicU64,
    refused: AtomicU64,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            parts: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::default(),
            last: AtomicU64::new(0),
            open: AtomicI64::new(0),
            users: AtomicI64::new(0),
            ended: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }
}

/// A user has as many sessions as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManySessions {
    pub max: u32,
}

/// For the client.
impl std::fmt::Display for TooManySessions {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { max } = self;
        write!(
            out,
            "sessions: this user has {max} already: expected at most {max} at a time (max_connections of the token or product, \
             sessions_per_user_max)"
        )
    }
}

/// The place of a session in the table, which it leaves when this is dropped.
#[derive(Debug)]
pub struct SessionPlace {
    sessions: Arc<Sessions>,
    user: Arc<str>,
    number: u64,
    share: UserShare,
}

impl Sessions {
    /// Begins a session of a user who may have `max`; `None`: any number.
    ///
    /// # Errors
    /// The user has so many, and none of them ends for it.
    pub fn enter(
        self: &Arc<Self>,
        user: &str,
        max: Option<u32>,
        policy: SessionPolicy,
        orders: &Arc<Orders>,
        now_ms: u64,
    ) -> Result<SessionPlace, TooManySessions> {
        let user: Arc<str> = user.into();
        let mut part = self.part(&user);
        let is_new = !part.contains_key(&user);
        let entry = part.entry(user.clone()).or_default();
        // At least one: the one that begins.
        let max = max.map(|max| max.max(1));
        while let Some(max) = max.filter(|max| entry.sessions.len() >= *max as usize) {
            if policy == SessionPolicy::RefuseNew {
                // Relaxed, here and below: the numbers order nothing.
                self.refused.fetch_add(1, Ordering::Relaxed);
                return Err(TooManySessions { max });
            }
            let Some((_, oldest)) = entry.sessions.pop_first() else { break };
            oldest.share.end();
            if let Some(slot_id) = oldest.slot_id {
                oldest.orders.push(Order { slot_id, at_ms: now_ms, max });
            }
            self.ended.fetch_add(1, Ordering::Relaxed);
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let share = UserShare::of(&entry.subscriptions);
        entry.sessions.insert(number, Entry { slot_id: None, orders: orders.clone(), share: share.clone() });
        self.open.fetch_add(1, Ordering::Relaxed);
        self.users.fetch_add(is_new.into(), Ordering::Relaxed);
        drop(part);
        Ok(SessionPlace { sessions: self.clone(), user, number, share })
    }

    /// Sessions and users that there are.
    pub fn open(&self) -> (u64, u64) {
        let level = |number: &AtomicI64| number.load(Ordering::Relaxed).max(0) as u64;
        (level(&self.open), level(&self.users))
    }

    /// Sessions that were ended by a newer one, and those that were refused.
    pub fn limited(&self) -> (u64, u64) {
        (self.ended.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }

    fn leave(&self, place: &SessionPlace) {
        let mut part = self.part(&place.user);
        let Some(user) = part.get_mut(&place.user) else { return };
        if let Some(entry) = user.sessions.remove(&place.number) {
            entry.share.end();
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        if user.sessions.is_empty() {
            part.remove(&place.user);
            self.users.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn part(&self, user: &str) -> MutexGuard<'_, Part> {
        lock(&self.parts[self.hasher.hash_one(user) as usize % PARTS])
    }
}

impl SessionPlace {
    /// Counts the sessions of a run of the server.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its share of the subscriptions of the user.
    pub fn share(&self) -> UserShare {
        self.share.clone()
    }

    /// Says where the connection is. False if the session has been ended meanwhile: it is to be closed.
    pub fn set_slot(&self, slot_id: SlotId) -> bool {
        let mut part = self.sessions.part(&self.user);
        let entry = part.get_mut(&self.user).and_then(|user| user.sessions.get_mut(&self.number));
        entry.map(|entry| entry.slot_id = Some(slot_id)).is_some()
    }
}

impl Drop for SessionPlace {
    fn drop(&mut self) {
        self.sessions.leave(self);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic leaves what is in it consistent: it is after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use SessionPolicy::{EndOldest, RefuseNew};

    fn slot(index: u32) -> SlotId {
        SlotId { index, generation: 1 }
    }

    /// A session of `user` in a slot.
    fn open(
        sessions: &Arc<Sessions>,
        orders: &Arc<Orders>,
        user: &str,
        max: Option<u32>,
        policy: SessionPolicy,
        index: u32,
    ) -> Result<SessionPlace, TooManySessions> {
        let place = sessions.enter(user, max, policy, orders, u64::from(index))?;
        assert!(place.set_slot(slot(index)));
        Ok(place)
    }

    #[test]
    fn oldest_ends_and_others_stay() {
        let (sessions, orders) = (Arc::new(Sessions::default()), Arc::new(Orders::default()));
        let other = open(&sessions, &orders, "b", Some(1), EndOldest, 9).unwrap();
        let places: Vec<_> =
            (0..4).map(|nth| open(&sessions, &orders, "a", Some(2), EndOldest, nth).unwrap()).collect();
        let ended: Vec<_> = orders.take().iter().map(|order| (order.slot_id, order.at_ms, order.max)).collect();
        assert_eq!(ended, [(slot(0), 2, 2), (slot(1), 3, 2)]);
        assert!(orders.take().is_empty());
        assert_eq!((sessions.open(), sessions.limited()), ((3, 2), (2, 0)));
        // The place of one that was ended is left by its shard some time later.
        drop(places);
        assert_eq!(sessions.open(), (1, 1));
        drop(other);
        assert_eq!(sessions.open(), (0, 0));
    }

    #[test]
    fn lower_limit_of_the_next_session_ends_several() {
        let (sessions, orders) = (Arc::new(Sessions::default()), Arc::new(Orders::default()));
        let _held: Vec<_> = (0..5).map(|nth| open(&sessions, &orders, "a", None, EndOldest, nth).unwrap()).collect();
        let _last = open(&sessions, &orders, "a", Some(2), EndOldest, 5).unwrap();
        assert_eq!(orders.take().iter().map(|order| order.slot_id.index).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(sessions.open(), (2, 1));
    }

    #[test]
    fn new_one_is_refused_until_another_has_left() {
        let (sessions, orders) = (Arc::new(Sessions::default()), Arc::new(Orders::default()));
        let held = open(&sessions, &orders, "a", Some(1), RefuseNew, 0).unwrap();
        let refused = open(&sessions, &orders, "a", Some(1), RefuseNew, 1).unwrap_err();
        assert!(refused.to_string().contains("has 1 already: expected at most 1"), "{refused}");
        assert!(orders.take().is_empty());
        drop(held);
        let _next = open(&sessions, &orders, "a", Some(1), RefuseNew, 1).unwrap();
        assert_eq!((sessions.open(), sessions.limited()), ((1, 1), (0, 1)));
    }

    #[test]
    fn session_that_ends_before_it_has_a_slot_is_told() {
        let (sessions, orders) = (Arc::new(Sessions::default()), Arc::new(Orders::default()));
        let first = sessions.enter("a", Some(1), EndOldest, &orders, 0).unwrap();
        let second = sessions.enter("a", Some(1), EndOldest, &orders, 0).unwrap();
        assert!(!first.set_slot(slot(0)) && second.set_slot(slot(1)));
        assert!(orders.take().is_empty());
    }

    #[test]
    fn subscriptions_of_a_session_that_ends_are_free_at_once() {
        let (sessions, orders) = (Arc::new(Sessions::default()), Arc::new(Orders::default()));
        let first = open(&sessions, &orders, "a", Some(1), EndOldest, 0).unwrap();
        assert_eq!(first.share().reserve(10, 10), Ok(()));
        let second = open(&sessions, &orders, "a", Some(1), EndOldest, 1).unwrap();
        assert_eq!(second.share().reserve(10, 10), Ok(()));
        drop(first);
        assert_eq!(second.share().reserve(1, 10), Err(11));
    }

    #[test]
    fn limit_holds_for_threads_that_open_at_once() {
        for policy in [EndOldest, RefuseNew] {
            let sessions = Arc::new(Sessions::default());
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let sessions = &sessions;
                    scope.spawn(move || {
                        let orders = Arc::new(Orders::default());
                        let mut places = Vec::new();
                        for nth in 0..2000u32 {
                            let entered = sessions.enter("a", Some(3), policy, &orders, 0);
                            if let Ok(place) = entered {
                                place.set_slot(slot(thread * 10_000 + nth));
                                places.push(place);
                            }
                            if nth % 5 == 0 {
                                places.pop();
                            }
                            assert!(
                                sessions
                                    .parts
                                    .iter()
                                    .all(|part| lock(part).values().all(|user| user.sessions.len() <= 3))
                            );
                        }
                    });
                }
            });
            assert_eq!(sessions.open(), (0, 0), "{policy:?}");
        }
    }

    #[test]
    fn policies_have_names() {
        for (word, policy) in SessionPolicy::WORDS {
            assert_eq!((SessionPolicy::parse(word), policy.word()), (Ok(policy), word));
        }
        assert!(SessionPolicy::parse("kick").unwrap_err().contains("expected end_oldest or refuse_new"));
    }
}
