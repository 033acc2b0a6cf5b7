//! Identities of publishers: who a token stands for, what it may define, and how fast it may be.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::auth::Token;
use crate::rate_limit::RateLimiter;
use crate::sequencer::{OwnerLimits, SourceIdentity};

/// The name of the identity of the single `publish_token`.
pub const DEFAULT_IDENTITY: &str = "default";

/// An identity as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentitySettings {
    pub name: String,
    /// The identity whose instruments it publishes as a backup; its own name for a primary.
    pub owner: String,
    /// 0 for the primary; a backup with a higher number is standby for those with lower ones.
    pub priority: u8,
    /// Any of them is accepted.
    pub tokens: Vec<Token>,
    /// Names of client certificates that are accepted without a token.
    pub certificates: Vec<String>,
    /// Symbols that it may define; empty for all.
    pub symbols: Vec<NamePattern>,
    /// Venues that it may name; empty for all.
    pub venues: Vec<NamePattern>,
    pub limits: OwnerLimits,
    pub pace: PaceSettings,
}

impl IdentitySettings {
    /// Whether it may define an instrument.
    ///
    /// # Errors
    /// The field and what is expected.
    pub fn check_names(&self, symbol: &str, venue: &str) -> Result<(), String> {
        check_name("symbol", symbol, &self.symbols, &self.name)?;
        check_name("venue", venue, &self.venues, &self.name)
    }
}

fn check_name(field: &str, name: &str, allowed: &[NamePattern], identity: &str) -> Result<(), String> {
    if allowed.is_empty() || allowed.iter().any(|pattern| pattern.matches(name)) {
        return Ok(());
    }
    let expected: Vec<String> = allowed.iter().map(NamePattern::to_string).collect();
    Err(format!("{field}: {name:?} is not of publisher {identity:?}: expected {}", expected.join(", ")))
}

/// A name, or a beginning of names with a `*` behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePattern {
    Exact(String),
    Prefix(String),
}

impl NamePattern {
    /// Reads `BTC-USD` or `BTC-*`; `None` if a `*` is elsewhere than at the end.
    pub fn parse(text: &str) -> Option<Self> {
        let pattern = match text.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.to_owned()),
            None => Self::Exact(text.to_owned()),
        };
        let (Self::Exact(stem) | Self::Prefix(stem)) = &pattern;
        (!text.is_empty() && !stem.contains('*')).then_some(pattern)
    }

    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => name == exact,
            Self::Prefix(prefix) => name.starts_with(prefix),
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(exact) => out.write_str(exact),
            Self::Prefix(prefix) => write!(out, "{prefix}*"),
        }
    }
}

/// What an identity may send in a second, over all of its connections; 0 for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaceSettings {
    pub records_per_s: u32,
    pub bytes_per_s: u32,
    pub levels_per_s: u32,
    pub definitions_per_s: u32,
}

/// What a batch or a request takes of the pace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    pub records: u64,
    pub bytes: u64,
    /// Levels of books.
    pub levels: u64,
    pub definitions: u64,
}

/// The pace of an identity, shared by its connections.
#[derive(Debug, Default)]
struct Pace {
    records: RateLimiter,
    bytes: RateLimiter,
    levels: RateLimiter,
    definitions: RateLimiter,
}

/// An identity in use.
#[derive(Debug)]
pub struct Identity {
    pub settings: IdentitySettings,
    /// For the sequencer.
    pub source: SourceIdentity,
    pace: std::sync::Arc<Mutex<Pace>>,
}

impl Identity {
    /// `before` is the identity of this name until now, whose pace it goes on with.
    pub(super) fn new(settings: IdentitySettings, source: SourceIdentity, before: Option<&Self>) -> Self {
        Self { settings, source, pace: before.map(|before| before.pace.clone()).unwrap_or_default() }
    }

    /// Takes what a batch or a request needs. Returns the time to wait before it is carried out.
    pub(super) fn take(&self, work: Work, now_ns: u64) -> Duration {
        let PaceSettings { records_per_s, bytes_per_s, levels_per_s, definitions_per_s } = self.settings.pace;
        // A panic leaves the limiters consistent: each is one number.
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let Pace { records, bytes, levels, definitions } = &mut *pace;
        let limits = [
            (records, work.records, records_per_s),
            (bytes, work.bytes, bytes_per_s),
            (levels, work.levels, levels_per_s),
            (definitions, work.definitions, definitions_per_s),
        ];
        let taken = limits.into_iter().filter(|(_, amount, _)| *amount > 0).map(|(limiter, amount, per_second)| {
            limiter.take_many(amount, per_second, now_ns, Duration::MAX).unwrap_or_default()
        });
        taken.max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequencer::OwnerId;

    fn identity(pace: PaceSettings) -> Identity {
        let limits = OwnerLimits::NONE;
        let settings = IdentitySettings {
            name: "a".to_owned(),
            owner: "a".to_owned(),
            priority: 0,
            tokens: Vec::new(),
            certificates: Vec::new(),
            symbols: ["BTC-*", "ETH-USD"].map(|text| NamePattern::parse(text).unwrap()).to_vec(),
            venues: Vec::new(),
            limits,
            pace,
        };
        Identity::new(settings, SourceIdentity { owner: OwnerId::publisher(0), priority: 0, limits }, None)
    }

    const UNLIMITED: PaceSettings =
        PaceSettings { records_per_s: 0, bytes_per_s: 0, levels_per_s: 0, definitions_per_s: 0 };

    #[test]
    fn each_kind_of_work_has_its_pace_and_connections_share_it() {
        let ms = Duration::from_millis;
        let pace = PaceSettings { records_per_s: 1000, bytes_per_s: 1000, levels_per_s: 1000, definitions_per_s: 1000 };
        let of = |records, bytes, levels, definitions| Work { records, bytes, levels, definitions };
        for work in [of(1100, 0, 0, 0), of(0, 1100, 0, 0), of(0, 0, 1100, 0), of(0, 0, 0, 1100)] {
            let first = identity(pace);
            assert_eq!(first.take(work, 10_000_000_000), Duration::ZERO);
            let wait = first.take(work, 10_000_000_000);
            assert!((ms(1000)..=ms(1001)).contains(&wait), "{work:?} {wait:?}");
            let reloaded = Identity::new(first.settings.clone(), first.source, Some(&first));
            assert!(reloaded.take(work, 10_000_000_000) > wait, "a reload does not begin the pace anew");
            assert_eq!(identity(UNLIMITED).take(work, 10_000_000_000), Duration::ZERO);
        }
    }

    #[test]
    fn names_are_held_to_the_patterns() {
        let settings = identity(UNLIMITED).settings;
        for symbol in ["BTC-", "BTC-USD", "ETH-USD"] {
            assert_eq!(settings.check_names(symbol, "any"), Ok(()));
        }
        let error = settings.check_names("ETH-USDT", "").unwrap_err();
        assert_eq!(error, r#"symbol: "ETH-USDT" is not of publisher "a": expected BTC-*, ETH-USD"#);
        for text in ["", "A*B", "**"] {
            assert_eq!(NamePattern::parse(text), None, "{text:?}");
        }
    }
}
