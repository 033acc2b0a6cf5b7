//! The sessions of users on one shard: each is counted from its hand-over, or from the token on its open connection, to
//! the end that the shard reports.
//!
//! What always holds: a session in the table here is an open client of the shard, or its end is about to be read.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use crate::access::{Orders, SessionPlace};
use crate::identity::Principal;
use crate::io::SlotId;
use crate::shard::paged_vec::PagedVec;
use crate::usage::{Security, SessionFacts};

/// The code of a session that is refused.
pub(super) const SESSION_LIMIT: &str = "session_limit";

/// The sessions of a shard by slot, and what other shards want ended. Cost: 8 bytes a slot, and 150 a session.
#[derive(Default)]
pub(super) struct LocalSessions {
    pub(super) orders: Arc<Orders>,
    pub(super) by_slot: RefCell<PagedVec<Option<Box<LocalSession>>>>,
}

pub(super) struct LocalSession {
    pub(super) slot_id: SlotId,
    pub(super) place: SessionPlace,
    pub(super) principal: Arc<Principal>,
    pub(super) address: Option<IpAddr>,
    pub(super) transport: &'static str,
    /// Age of the data of its market, s.
    pub(super) delay_s: u32,
    /// Since when it has these rights, ms since 1970.
    pub(super) from_ms: u64,
    /// Since when it does not count any more, if another one has its place.
    pub(super) ended_ms: Option<u64>,
    /// Names that were denied and are not logged yet.
    pub(super) denied: u64,
    /// When the next ones may be.
    pub(super) denied_ns: u64,
}

impl LocalSession {
    pub(super) fn facts(&self) -> SessionFacts {
        SessionFacts {
            number: self.place.number(),
            principal: self.principal.clone(),
            address: self.address,
            transport: self.transport,
            delay_s: self.delay_s,
            from_ms: self.from_ms,
        }
    }

    pub(super) fn security(&self, event: &'static str) -> Security {
        Security {
            event,
            session: Some(self.place.number()),
            user: Some(self.principal.user.to_string()),
            address: self.address,
            ..Security::default()
        }
    }
}

/// Who opens a connection, for its session.
pub(super) struct Caller {
    /// `None`: its token follows.
    pub(super) principal: Option<Arc<Principal>>,
    pub(super) transport: &'static str,
}
