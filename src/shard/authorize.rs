//! Which records a client may be sent. The question is asked where a client names what it wants (subscribe and resume)
//! and where a new instrument comes under patterns that clients have, never for a record.
//!
//! Today every client may have everything, since the server does not identify clients. Only this module makes an
//! [`Authorized`], and a subscription is applied from nothing else, so every request passes here.

use super::resolve::Resolved;
use super::subscription_index::{AudienceId, Target};

/// What of a request the client may have.
#[derive(Debug)]
pub(super) struct Authorized {
    granted: Resolved,
    denied: Vec<String>,
}

impl Authorized {
    /// Sorted, each once.
    pub(super) fn targets(&self) -> &[Target] {
        &self.granted.targets
    }

    /// How many names without an instrument, and patterns, there are.
    pub(super) fn names(&self) -> u32 {
        let prefixes = self.granted.targets.iter().rev().take_while(|target| matches!(target, Target::Prefix(_)));
        (self.granted.unknown.len() + prefixes.count()) as u32
    }

    /// All targets that were resolved, to be released; names that no instrument has; and names that the client may not
    /// have.
    pub(super) fn into_parts(self) -> (Vec<Target>, Vec<String>, Vec<String>) {
        (self.granted.targets, self.granted.unknown, self.denied)
    }
}

/// Decides on a subscribe or resume request.
pub(super) fn authorize(resolved: Resolved) -> Authorized {
    Authorized { granted: resolved, denied: Vec::new() }
}

/// Decides whether an audience gets an instrument that was defined after the audience's pattern.
pub(super) fn covers_new_instrument(_audience: AudienceId, _instrument: u32) -> bool {
    true
}
