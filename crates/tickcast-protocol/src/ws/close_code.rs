//! Close codes: what each says, and which of them a frame may carry.

use std::fmt;

/// Why a connection is closed: RFC 6455 section 7.4, and tickcast's own codes from 4000 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// The server drains, or the page was left.
    pub const GOING_AWAY: Self = Self(1001);
    /// A rule of RFC 6455 was broken.
    pub const PROTOCOL: Self = Self(1002);
    /// A kind of message that this endpoint does not accept.
    pub const UNSUPPORTED: Self = Self(1003);
    /// Text that is not UTF-8, or a compressed message that is not DEFLATE.
    pub const BAD_UTF8: Self = Self(1007);
    /// Too many requests, a bad packet, or over a limit.
    pub const POLICY: Self = Self(1008);
    /// A message over the size limit.
    pub const TOO_BIG: Self = Self(1009);
    /// An error of the server.
    pub const INTERNAL: Self = Self(1011);
    /// The credentials of this connection are no longer valid.
    pub const CREDENTIALS_EXPIRED: Self = Self(4001);
    /// A slow client: behind for too long.
    pub const SLOW_CONSUMER: Self = Self(4002);
    /// A subscription is no longer allowed.
    pub const NOT_ENTITLED: Self = Self(4003);
    /// The user has as many sessions as it may, and another one has this one's place.
    pub const SESSION_LIMIT: Self = Self(4005);

    /// True for the codes that a close frame may carry: those defined for the wire (1012 to 1014 were registered with
    /// IANA after the RFC), and the ranges of libraries and applications.
    pub fn peer_may_send(self) -> bool {
        //= RFC 6455 section 7.4.1
        //# "1005 is a reserved value and MUST NOT be set as a status code in a Close control frame by an endpoint."
        //= RFC 6455 section 7.4.1
        //# "1006 is a reserved value and MUST NOT be set as a status code in a Close control frame by an endpoint."
        //= RFC 6455 section 7.4.1
        //# "1015 is a reserved value and MUST NOT be set as a status code in a Close control frame by an endpoint."
        //= RFC 6455 section 7.4.2
        //# "Status codes in the range 0-999 are not used."
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }

    /// The code as one word, for JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::NORMAL => "normal",
            Self::GOING_AWAY => "going_away",
            Self::PROTOCOL => "protocol_error",
            Self::POLICY => "policy",
            Self::TOO_BIG => "too_big",
            Self::CREDENTIALS_EXPIRED => "credentials_expired",
            Self::SLOW_CONSUMER => "slow_consumer",
            Self::NOT_ENTITLED => "not_entitled",
            Self::SESSION_LIMIT => "session_limit",
            _ => "internal",
        }
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
