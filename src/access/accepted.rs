//! Tokens that were accepted lately, so that a client which comes back is not verified again.
//!
//! What always holds:
//! * A token is known by its keyed hash (HMAC-SHA-256 with a key of this process): nobody who does not have a valid token
//!   can make one with its hash, and no token is kept.
//! * An entry counts only while the settings and the keys of issuers are those of its verification. It ends when its token
//!   does. Whether a token was revoked is asked every time, here as there.
//! * Tokens that were refused are not kept: they would push out those that were accepted.
//!
//! Cost: 1 to 2 µs for a token of 600 bytes. Memory: some 400 bytes an entry, at most `accepted_tokens_max`; the oldest one
//! makes room. Equal rights are kept once.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::{hmac, rand};

use super::verify::{Issuer, Now};
use crate::identity::Principal;

type Tag = [u8; 32];

/// A token whose verification may go on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    tag: Tag,
    /// Of the settings and keys when it began.
    epoch: u64,
}

#[derive(Debug)]
struct Entry {
    principal: Arc<Principal>,
    issuer: Arc<Issuer>,
    until_s: u64,
    epoch: u64,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<Tag, Entry>,
    /// The oldest first; also of entries that are gone.
    order: VecDeque<Tag>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct AcceptedTokens {
    key: hmac::Key,
    /// The lock is held for a look-up or an insertion.
    table: Mutex<Table>,
    /// Changes with the settings and the keys of issuers.
    epoch: AtomicU64,
    reused: AtomicU64,
}

impl AcceptedTokens {
    pub(super) fn new() -> Result<Self, String> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new());
        let key = key.map_err(|_| "the system has no random numbers".to_owned())?;
        let (epoch, reused) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { key, table: Mutex::new(Table::default()), epoch, reused })
    }

    /// The client of a token that was accepted before; or a ticket to keep it with.
    pub(super) fn find(&self, token: &[u8], now: Now) -> Result<Arc<Principal>, Ticket> {
        // Acquire, with the release in `forget`: who sees the number sees the settings and keys that it is of.
        let epoch = self.epoch.load(Ordering::Acquire);
        let tag: Tag = hmac::sign(&self.key, token).as_ref().try_into().expect("SHA-256 has 32 bytes");
        let ticket = Ticket { tag, epoch };
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = table.entries.get(&tag).filter(|entry| entry.epoch == epoch && now.wall_s < entry.until_s);
        let entry = entry.filter(|entry| entry.issuer.has_keys(now.ns)).ok_or(ticket)?;
        // Relaxed: the number orders nothing.
        self.reused.fetch_add(1, Ordering::Relaxed);
        Ok(entry.principal.clone())
    }

    /// Keeps a token that was verified, at most so many.
    pub(super) fn keep(&self, ticket: Ticket, principal: &Arc<Principal>, issuer: &Arc<Issuer>, entries_max: usize) {
        let Some(expires_s) = principal.expires_s.filter(|_| entries_max > 0) else { return };
        let until_s = expires_s.saturating_add(issuer.settings.leeway_s);
        let (principal, issuer) = (principal.clone(), issuer.clone());
        let entry = Entry { principal, issuer, until_s, epoch: ticket.epoch };
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.entries.insert(ticket.tag, entry).is_some() {
            return;
        }
        table.order.push_back(ticket.tag);
        while table.order.len() > entries_max {
            let oldest = table.order.pop_front();
            oldest.and_then(|oldest| table.entries.remove(&oldest));
        }
    }

    /// Forgets all: the settings or the keys of an issuer have changed.
    pub(super) fn forget(&self) {
        // Release, see `find`. A verification that has begun before keeps an entry that counts no more.
        self.epoch.fetch_add(1, Ordering::Release);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        *table = Table::default();
    }

    /// Forgets tokens that have expired.
    pub(super) fn expire(&self, now_s: u64) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let Table { entries, order } = &mut *table;
        entries.retain(|_, entry| now_s < entry.until_s);
        order.retain(|tag| entries.contains_key(tag));
    }

    /// How many tokens are kept, and how often one was found.
    pub(super) fn counts(&self) -> (usize, u64) {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        (table.entries.len(), self.reused.load(Ordering::Relaxed))
    }
}
