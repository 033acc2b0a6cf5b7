//! Control messages: what clients and publishers request in JSON text, and what the server replies.
//!
//! ```json
//! {"op":"subscribe","id":1,"channels":["quote","trade"],"symbols":["BTC-USD","ETH-*"],"conflate_ms":100,"snapshot":true}
//! {"op":"unsubscribe","id":2,"channels":["quote"],"symbols":["BTC-USD"]}
//! {"op":"resume","id":3,"epoch":7,"position":91823,"channels":["trade"],"symbols":["*"]}
//! {"op":"ping","id":4}
//! {"op":"auth","id":6,"token":"eyJhbGciOi…"}
//! {"op":"define","id":5,"instruments":[{"symbol":"BTC-USD","venue":"sim","px_exp":-2,"sz_exp":-8}]}
//! ```
//!
//! A request is accepted whole or refused whole, and a refusal names the field, the value, and what is expected. Keys
//! come in any order, keys that a request does not have are refused, of a repeated key the last counts. Nothing that a
//! peer sends can panic, recurse, or cost more time and memory than in proportion to its length. Rate limits and
//! permissions are not decided here.
//!
//! * Servers: [`parse_request`] for subscribers, [`parse_define`] for publishers, and [`reply`] for the replies.
//! * Clients: [`subscribe_text`] and the other request texts, and [`Reply::parse`].
//!
//! Cost: in proportion to the text. Parsing allocates its working memory, at worst some 30 times the length of the text.

mod client;
mod define;
mod field;
mod pattern;
pub mod reply;
mod request;

use crate::Channel;

pub use self::client::{
    Defined, Reply, auth_text, define_text, ping_text, resume_text, subscribe_text, unsubscribe_text,
};
pub use self::define::{Define, DefineInstrument, INSTRUMENTS_MAX, parse_define};
pub(crate) use self::field::{bad, quote};
pub use self::pattern::{Pattern, PatternError};
pub use self::request::{Request, RequestLimits, Secret, parse_request, parse_symbol};

/// A set of channels, a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ChannelSet(u8);

impl ChannelSet {
    /// Every channel.
    pub const ALL: Self = Self((1 << Channel::COUNT) - 1);

    /// True if the channel is in the set.
    pub fn contains(self, channel: Channel) -> bool {
        self.0 & Self::bit(channel) != 0
    }

    /// Adds the channel to the set.
    pub fn insert(&mut self, channel: Channel) {
        self.0 |= Self::bit(channel);
    }

    /// The channels of the set, in wire order.
    pub fn iter(self) -> impl Iterator<Item = Channel> {
        Channel::ALL.into_iter().filter(move |channel| self.contains(*channel))
    }

    /// True if no channel is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn bit(channel: Channel) -> u8 {
        1 << channel as u8
    }
}

impl FromIterator<Channel> for ChannelSet {
    fn from_iter<I: IntoIterator<Item = Channel>>(channels: I) -> Self {
        let mut set = Self::default();
        channels.into_iter().for_each(|channel| set.insert(channel));
        set
    }
}

/// Why a request was refused: the content of the `error` reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct RequestError {
    /// The request's id, if it could be read.
    pub id: Option<u64>,
    /// [`BAD_REQUEST`] or [`LIMIT`].
    pub code: &'static str,
    /// The field, its value, and what is expected.
    pub message: String,
}

/// The code of a request that is not well formed.
pub const BAD_REQUEST: &str = "bad_request";
/// The code of a request that asks for more than one request may.
pub const LIMIT: &str = "limit";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_set_holds_what_was_inserted() {
        let mut set = ChannelSet::default();
        assert!(set.is_empty());
        set.insert(Channel::Raw);
        set.insert(Channel::Quote);
        set.insert(Channel::Raw);
        assert_eq!(set.iter().collect::<Vec<_>>(), [Channel::Quote, Channel::Raw]);
        for channel in Channel::ALL {
            assert_eq!(set.contains(channel), matches!(channel, Channel::Quote | Channel::Raw), "{channel:?}");
        }
        assert_eq!(ChannelSet::from_iter(Channel::ALL), ChannelSet::ALL);
    }
}
