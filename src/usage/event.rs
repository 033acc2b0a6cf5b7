//! What the log has lines of.

use std::net::IpAddr;
use std::sync::Arc;

use crate::identity::Principal;

/// One line to be.
#[derive(Clone, Debug)]
pub struct Event {
    /// When it was, ms since 1970.
    pub at_ms: u64,
    pub what: What,
}

/// What has happened.
#[derive(Clone, Debug)]
pub enum What {
    /// To a session.
    Session { session: SessionFacts, change: Change },
    /// What concerns security.
    Security(Security),
}

/// A session: a connection of a user.
#[derive(Clone, Debug)]
pub struct SessionFacts {
    /// Counts the sessions of a run of the server.
    pub number: u64,
    pub principal: Arc<Principal>,
    pub address: Option<IpAddr>,
    pub transport: &'static str,
    /// Age of the data that it gets, s; 0: live.
    pub delay_s: u32,
    /// Since when it has these rights, ms since 1970.
    pub from_ms: u64,
}

/// How a session has changed.
#[derive(Clone, Debug)]
pub enum Change {
    Opened,
    /// Its rights are others than these were.
    Changed {
        before: Arc<Principal>,
    },
    Closed {
        reason: &'static str,
        detail: String,
    },
}

/// Something that concerns security. What is not known is empty.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// A word for each kind of event.
    pub event: &'static str,
    /// Whose session it concerns.
    pub session: Option<u64>,
    pub user: Option<String>,
    pub address: Option<IpAddr>,
    /// What for, or why, as one word.
    pub cause: &'static str,
    /// For people. Never a token.
    pub detail: String,
    /// Names that were refused: the first of them.
    pub names: Vec<String>,
    /// How often, where that is more than once.
    pub count: u64,
}
