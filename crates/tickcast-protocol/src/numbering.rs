//! The two numbers that order records, and the token that names a point of the stream.
//!
//! A [`Position`] orders all records of a node; a [`Sequence`] orders the records of one instrument and channel. Both
//! start at 1 in each epoch, 0 stands for "none yet". They are types of their own because both are `u64` on the wire,
//! and one in the place of the other is a bug that no test of a single instrument shows.
//!
//! Cost: none. Both are a `u64` in a register.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The number of a record in the total order of its node, contiguous from 1 within an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(u64);

impl Position {
    /// Before the first record of an epoch.
    pub const ZERO: Self = Self(0);
    /// Newer than any record.
    pub const MAX: Self = Self(u64::MAX);
}

/// The number of a record within its instrument and channel, contiguous from 1 within an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequence(u64);

impl Sequence {
    /// Of records that have no sequence (heartbeats, definitions, gaps), and of channels before their first record.
    pub const NONE: Self = Self(0);

    /// Sequences stay below this: a million records a second take nine years to get there. A client that followed a higher
    /// one would take all later records for old ones.
    pub const LIMIT: u64 = 1 << 48;

    /// True for a sequence that a server can have assigned.
    pub const fn is_plausible(self) -> bool {
        self.0 < Self::LIMIT
    }

    /// The number before this one. The number before [`Sequence::NONE`] is itself.
    #[inline]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// True for [`Sequence::NONE`].
    #[inline]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// What both numbers have in common.
macro_rules! number {
    ($name:ident) => {
        impl $name {
            /// The number as it is on the wire.
            #[inline]
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// The number as it is on the wire.
            #[inline]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The number that follows.
            #[inline]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl From<u64> for $name {
            #[inline]
            fn from(number: u64) -> Self {
                Self(number)
            }
        }

        impl From<$name> for u64 {
            #[inline]
            fn from(number: $name) -> Self {
                number.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(Position);
number!(Sequence);

/// A point of the stream to resume from: everything up to this position has been received. Text form `EPOCH-POSITION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Names the run of numbers that the position belongs to.
    pub epoch: u32,
    /// The position of the last packet that was received.
    pub position: Position,
}

impl Token {
    /// A token of no stream: a resume with it is answered with a snapshot.
    pub const NOWHERE: Self = Self { epoch: 0, position: Position::MAX };
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.position)
    }
}

/// The text is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected EPOCH-POSITION, two whole numbers such as 7-91823 (the id of the last event)")]
pub struct TokenError;

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (epoch, position) = text.split_once('-').ok_or(TokenError)?;
        let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(epoch) || !is_number(position) {
            return Err(TokenError);
        }
        let position: u64 = position.parse().map_err(|_| TokenError)?;
        Ok(Self { epoch: epoch.parse().map_err(|_| TokenError)?, position: position.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_two_whole_numbers() {
        for token in [
            Token { epoch: 7, position: Position::new(91_823) },
            Token { epoch: u32::MAX, position: Position::new(u64::MAX) },
        ] {
            assert_eq!(token.to_string().parse(), Ok(token));
        }
        for text in ["", "-", "7", "7-", "-7", "7-8-9", "+7-8", "7--8", " 7-8", "7-8 ", "4294967296-1", "x-1", "1-٣"] {
            assert_eq!(text.parse::<Token>(), Err(TokenError), "{text:?}");
        }
    }
}
