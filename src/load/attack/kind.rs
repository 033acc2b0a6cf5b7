//! The kinds of attack, by name.

use std::fmt::Write;
use std::str::FromStr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The word that stands for all kinds.
const ALL: &str = "all";
/// Connections of [`AttackKind::Reconnects`].
const RECONNECTS: u32 = 3;

/// A kind of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttackKind {
    /// Requests that arrive a byte at a time and never end
    SlowHeaders,
    /// Connections that send nothing
    HalfOpen,
    /// Connections that request an upgrade and are reset
    Connects,
    /// Connections over TLS that are reset once their handshake is complete
    Handshakes,
    /// Requests of the snapshot, of readiness and of the metrics, each on a connection of its own
    Gets,
    /// Requests of snapshots and event streams whose answers are never read
    UnreadAnswers,
    /// Subscribers that send pings, 16 at a time
    Pings,
    /// Subscribers that send pongs without a ping, and empty continuation frames, 16 at a time
    Pongs,
    /// Subscribers that send 150 KB of a message of 256 KiB, and then a byte at a time
    PartialMessages,
    /// Subscribers whose compressed messages inflate to 100 times their size and more
    Compressed,
    /// Subscribers that subscribe to everything and unsubscribe, 16 requests at a time
    Subscribes,
    /// Three subscribers that send as many requests as the server allows at once, and connect again
    Reconnects,
    /// Subscribers with 10,000 patterns or unknown names of their own, that leave and come again
    Patterns,
    /// Subscribers that subscribe to 35 nested patterns and unsubscribe
    NestedPatterns,
    /// Subscribers with 10,000 names, that unsubscribe from patterns which they do not have
    Unsubscribes,
    /// A publisher that sends definitions, large books and records as fast as it can
    PublisherFlood,
    /// The server's process is stopped, and continues
    Pauses,
}

impl AttackKind {
    /// All of them, in the order of the report.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// Its name among the arguments.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// How many of so many connections it uses.
    pub fn connections(self, given: u32) -> u32 {
        match self {
            Self::Pauses => 0,
            Self::PublisherFlood => 1,
            Self::Reconnects => given.min(RECONNECTS),
            _ => given,
        }
    }
}

/// The kinds that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttackKinds {
    /// Each kind that the other arguments permit.
    All,
    These(Vec<AttackKind>),
}

impl FromStr for AttackKinds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == ALL {
            return Ok(Self::All);
        }
        let parse = |word: &str| AttackKind::from_str(word, true).map_err(|_| unknown(word));
        text.split(',').map(parse).collect::<Result<_, _>>().map(Self::These)
    }
}

fn unknown(word: &str) -> String {
    let mut text = format!("unknown kind {word:?}: expected {ALL}");
    for kind in AttackKind::all() {
        write!(text, ", {}", kind.name()).expect("a String takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_a_list_or_all() {
        assert_eq!("all".parse(), Ok(AttackKinds::All));
        let these = AttackKinds::These(vec![AttackKind::Pings, AttackKind::SlowHeaders]);
        assert_eq!("pings,slow-headers".parse(), Ok(these));
        for (bad, word) in [("", "\"\""), ("pings,all", "\"all\""), ("ping", "\"ping\"")] {
            let error = bad.parse::<AttackKinds>().expect_err("no such kind");
            assert!(error.starts_with(&format!("unknown kind {word}: expected all, slow-headers, ")), "{error}");
            assert!(error.ends_with("publisher-flood, pauses"), "{error}");
        }
    }
}
