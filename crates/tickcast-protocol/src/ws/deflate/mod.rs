//! permessage-deflate (RFC 7692): messages that are compressed one by one.
//!
//! * [`offer`]: what a client offers, and what is agreed on.
//! * [`inflate`]: a peer's compressed message, whole, bounded in size and in ratio.
//! * [`compress`]: whole compressed frames, made once for all who read the same bytes.
//!
//! What always holds: neither side takes its window over from one message to the next (this endpoint answers every
//! offer with both `no_context_takeover` parameters), so a connection keeps no state of it: one [`Inflater`] and one
//! [`Compressor`] serve all connections of a thread, and a compressed frame is good for every connection that has
//! agreed on a window at least as large. What that costs in ratio, `benches/deflate.rs` shows.

mod compressor;
mod inflater;
mod negotiation;

pub use compressor::{Compressor, LastFrame};
pub use inflater::{Inflater, UNRATED_BYTES};
pub use negotiation::{Agreed, ExtensionsError, is_token, negotiate};

/// How far back in a message its compressed form may refer: two to the power of this many bytes, 8 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WindowBits(std::num::NonZeroU8);

// What an audience keeps of its encoding is one byte.
const _: () = assert!(size_of::<Option<WindowBits>>() == 1);

impl WindowBits {
    /// The least that RFC 7692 knows.
    pub const LEAST: u8 = 8;
    /// The most, and what holds where nothing was agreed.
    pub const MOST: Self = Self(std::num::NonZeroU8::new(15).expect("it is not 0"));

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
