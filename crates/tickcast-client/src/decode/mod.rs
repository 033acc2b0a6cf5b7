//! Packets without a connection: decoding, and the check that no record is missing silently.

mod decoder;

pub use decoder::{Counters, DecodeError, Decoder, Violation, body_is_whole, broken, covered, split_record};
