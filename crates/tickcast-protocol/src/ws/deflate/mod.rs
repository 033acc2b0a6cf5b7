//! permessage-deflate (RFC 7692): each message is compressed by itself.
//!
//! * [`negotiate`]: picks an offer of the client.
//! * [`Inflater`]: a peer's compressed message, whole, bounded in size and in ratio.
//! * [`Compressor`]: whole compressed frames, made once for all clients that receive the same bytes.
//!
//! What always holds: no context takeover. This endpoint answers every offer with both `no_context_takeover` parameters, so
//! a connection has no compression state: one [`Inflater`] and one [`Compressor`] serve all connections of a thread, and a
//! compressed frame is valid for every connection whose window is at least as large. `benches/deflate.rs` shows what that
//! costs in ratio.

mod compressor;
mod inflater;
mod negotiation;

pub use compressor::{Compressor, LastFrame};
pub use inflater::{Inflater, UNRATED_BYTES};
pub use negotiation::{Agreed, ExtensionsError, is_token, negotiate};

/// The window of a compressed message: its back references reach back by at most two to the power of this many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WindowBits(std::num::NonZeroU8);

// What an audience keeps of its encoding is one byte.
const _: () = assert!(size_of::<Option<WindowBits>>() == 1);

impl WindowBits {
    /// The smallest of RFC 7692.
    pub const LEAST: u8 = 8;
    /// The largest, and the default.
    pub const MOST: Self = Self(std::num::NonZeroU8::new(15).expect("15 is not 0"));

    /// From 8 to 15; `None` for any other number.
    pub fn new(bits: u8) -> Option<Self> {
        let within = (Self::LEAST..=Self::MOST.get()).contains(&bits);
        std::num::NonZeroU8::new(bits).filter(|_| within).map(Self)
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0.get()
    }
}
