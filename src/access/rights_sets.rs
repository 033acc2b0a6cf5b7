//! The different rights of clients, each once for all clients that have them, and at most so many.
//!
//! Each shard keeps a few bytes an instrument for each of the rights that its audiences have, so their number is a matter
//! of memory. What is in no client any more makes room.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;

use crate::identity::Rights;

/// Memory of all rules together.
const BYTES_MAX: usize = 256 << 20;

/// There are as many different rights as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Debug, Default)]
struct Sets {
    known: HashSet<Arc<Rights>, RandomState>,
    bytes: usize,
}

impl Sets {
    fn remove_unused(&mut self) {
        self.known.retain(|rights| Arc::strong_count(rights) > 1);
        self.bytes = self.known.iter().map(|rights| rights.bytes()).sum();
    }

    fn is_full(&self, more_bytes: usize, sets_max: usize) -> bool {
        self.known.len() >= sets_max || self.bytes + more_bytes > BYTES_MAX
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct RightsSets(Mutex<Sets>);

impl RightsSets {
    /// The same rights, shared with all who have them.
    pub(super) fn share(&self, rights: &Rights, sets_max: usize) -> Result<Arc<Rights>, Full> {
        let mut sets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = sets.known.get(rights) {
            return Ok(known.clone());
        }
        let bytes = rights.bytes();
        if sets.is_full(bytes, sets_max) {
            sets.remove_unused();
        }
        if sets.is_full(bytes, sets_max) {
            return Err(Full);
        }
        let rights = Arc::new(rights.clone());
        sets.known.insert(rights.clone());
        sets.bytes += bytes;
        Ok(rights)
    }

    /// How many there are, those without a client included, and their memory.
    pub(super) fn counts(&self) -> (usize, usize) {
        let sets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (sets.known.len(), sets.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{AllowText, Products, RightsText};

    fn rights(symbol: &str) -> Rights {
        let allow = vec![AllowText { symbols: vec![symbol.to_owned()], ..AllowText::default() }];
        RightsText { allow, ..RightsText::default() }.resolve(&Products::new()).unwrap()
    }

    #[test]
    fn equal_rights_are_one_and_those_of_no_client_make_room() {
        let sets = RightsSets::default();
        let one = sets.share(&rights("A"), 2).unwrap();
        assert!(Arc::ptr_eq(&one, &sets.share(&rights("A"), 2).unwrap()));
        let other = sets.share(&rights("B"), 2).unwrap();
        assert_eq!(sets.share(&rights("C"), 2), Err(Full));
        assert!(sets.share(&rights("A"), 2).is_ok(), "known ones are accepted all the same");
        drop(other);
        assert!(sets.share(&rights("C"), 2).is_ok());
        assert_eq!(sets.counts().0, 2);
        assert!(sets.counts().1 > 100);
    }
}
