//! What is to be known outside of the shard of sessions of users: how each has ended, and what was denied to it.
//!
//! Memory: a note for each session that has ended, and each request with names that were denied, until the end of the tick.

/// Names of a request that are passed on.
const NAMES_MAX: usize = 8;

/// News of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionNews {
    /// It has ended: a word and a text that say why. The connection may still be closing.
    Ended { reason: &'static str, detail: String },
    /// Names and patterns were denied: the first of them, and how many.
    Denied { names: Vec<String>, count: usize },
}

impl SessionNews {
    pub(super) fn ended(reason: &'static str, detail: &str) -> Self {
        Self::Ended { reason, detail: detail.to_owned() }
    }

    pub(super) fn denied(names: &[String]) -> Self {
        Self::Denied { names: names.iter().take(NAMES_MAX).cloned().collect(), count: names.len() }
    }
}
