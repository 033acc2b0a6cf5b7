//! Every rule of RFC 6455 and RFC 7692 that a connected peer can break.

use super::close_code::CloseCode;

/// The rule that a peer has broken. Its text is short enough for the reason of a close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// RSV2 or RSV3 is set, or RSV1 without permessage-deflate.
    #[error("reserved bits {0:#04x} are set and no extension in use defines them (RFC 6455 section 5.2)")]
    ReservedBits(u8),
    /// RSV1 on a frame that does not begin a message.
    #[error("RSV1 is set on a frame that begins no message (RFC 7692 section 6.1)")]
    CompressedBitMisplaced,
    /// Opcode 3 to 7 or 11 to 15.
    #[error("opcode {0:#x} is reserved (RFC 6455 section 5.2)")]
    ReservedOpcode(u8),
    /// A close, ping or pong without FIN.
    #[error("a control frame is fragmented (RFC 6455 section 5.5)")]
    ControlFragmented,
    /// A close, ping or pong whose length does not fit into 7 bits.
    #[error("a control frame announces more than 125 bytes (RFC 6455 section 5.5)")]
    ControlTooLong,
    /// A continuation frame without a message to continue.
    #[error("a continuation frame continues no message (RFC 6455 section 5.4)")]
    ContinuationWithoutStart,
    /// A text or binary frame before the fragmented message has ended.
    #[error("a new message begins inside a fragmented one (RFC 6455 section 5.4)")]
    MessageInsideMessage,
    /// A client's frame is not masked.
    #[error("a frame from the client is not masked (RFC 6455 section 5.1)")]
    NotMasked,
    /// A server's frame is masked.
    #[error("a frame from the server is masked (RFC 6455 section 5.1)")]
    Masked,
    /// The length is encoded in more bytes than it needs.
    #[error("length {0} is not encoded in the minimal number of bytes (RFC 6455 section 5.2)")]
    LengthNotMinimal(u64),
    /// The top bit of a 64-bit length is set.
    #[error("the most significant bit of a 64-bit length is set (RFC 6455 section 5.2)")]
    LengthTopBit,
    /// The message, fragments summed, would be larger than the limit.
    #[error("a message of {announced} bytes is over the limit of {max}")]
    TooBig {
        /// Bytes of the message, as far as announced.
        announced: u64,
        /// The limit, in bytes.
        max: usize,
    },
    /// A compressed message would be larger than the limit.
    #[error("a compressed message inflates to more than the limit of {max} bytes")]
    InflatesTooBig {
        /// The limit, in bytes.
        max: usize,
    },
    /// A compressed message would be larger than its frames by more than the allowed ratio.
    #[error("a compressed message inflates to more than {ratio_max} times its bytes")]
    InflatesTooFar {
        /// The limit: bytes of the message per compressed byte.
        ratio_max: usize,
    },
    /// A compressed message that is not DEFLATE, or ends within a block.
    #[error("a compressed message is not a whole number of DEFLATE blocks (RFC 7692 section 7.2.2)")]
    NotDeflate,
    /// A text message that is not UTF-8, or ends within a character.
    #[error("a text message is not valid UTF-8 (RFC 6455 section 8.1)")]
    TextNotUtf8,
    /// A close frame with one byte: a code takes two.
    #[error("a close frame has a body of 1 byte; a code takes 2 (RFC 6455 section 5.5.1)")]
    CloseBodyOfOneByte,
    /// A code that must not be on the wire.
    #[error("close code {0} must not be sent (RFC 6455 section 7.4)")]
    CloseCodeNotSendable(u16),
    /// The reason of a close frame is not UTF-8.
    #[error("the reason of a close frame is not valid UTF-8 (RFC 6455 section 5.5.1)")]
    CloseReasonNotUtf8,
}

impl Violation {
    /// The code to close with: 1007 for the content of a message, 1009 for its size, 1002 otherwise.
    pub fn close_code(&self) -> CloseCode {
        match self {
            //= RFC 6455 section 7.4.1
            //# "1007 indicates that an endpoint is terminating the connection because it has received data within a
            //# message that was not consistent with the type of the message (e.g., non-UTF-8 [RFC3629] data within a text
            //# message)."
            Self::TextNotUtf8 | Self::CloseReasonNotUtf8 | Self::NotDeflate => CloseCode::BAD_UTF8,
            Self::TooBig { .. } | Self::InflatesTooBig { .. } | Self::InflatesTooFar { .. } => CloseCode::TOO_BIG,
            _ => CloseCode::PROTOCOL,
        }
    }
}
