//! The sessions of a shard as its server counts them: each ends once, however its connection ends, and what the clients
//! have subscribed to together is the sum of what each has.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tickcast::identity::UserShare;
use tickcast::io::SlotId;
use tickcast::shard::SessionNews;

#[derive(Default)]
pub struct Sessions {
    /// Subscriptions of all of them.
    sum: Arc<AtomicI64>,
    open: HashMap<SlotId, UserShare>,
    pub ended: u64,
}

impl Sessions {
    /// The share of a client that the shard has taken over.
    pub fn begin(&mut self, slot_id: SlotId) -> UserShare {
        let share = UserShare::of(&self.sum);
        assert!(self.open.insert(slot_id, share.clone()).is_none(), "{slot_id:?} has a session already");
        share
    }

    pub fn learn(&mut self, news: Vec<(SlotId, SessionNews)>) {
        for (slot_id, news) in news {
            match news {
                SessionNews::Denied { names, count } => {
                    assert!(self.open.contains_key(&slot_id), "{names:?} are denied to no session");
                    assert!((1..=count).contains(&names.len()));
                }
                SessionNews::Ended { reason, .. } => {
                    let share = self.open.remove(&slot_id);
                    share.unwrap_or_else(|| panic!("{slot_id:?} ends once more: {reason}")).end();
                    self.ended += 1;
                }
            }
        }
    }

    /// True if those of these clients are open, and no other.
    pub fn are_of(&self, mut clients: impl Iterator<Item = SlotId>) -> bool {
        let mut count = 0;
        clients.all(|slot_id| {
            count += 1;
            self.open.contains_key(&slot_id)
        }) && count == self.open.len()
    }

    /// Sessions that are open, and their subscriptions.
    pub fn open(&self) -> (usize, i64) {
        (self.open.len(), self.sum.load(Ordering::Relaxed))
    }
}
