//! Records as JSON text, for clients that asked for it, for pages and for people.
//!
//! The fields have their wire names. Prices and sizes are decimal texts at the instrument's precision, what is not
//! present is null, and counts and times are numbers. The instrument id gives way to the symbol. `flags` is a list of
//! words, left out where there is none to say: a record that is the last of its event, as nearly all are, says nothing,
//! and one that is not says `more`. Nothing is ever rounded, and no value is a float.
//!
//! Cost: some ten times that of writing the bytes (`benches/encode.rs`), which is why JSON is the second encoding.

mod packet;
mod record;

pub use self::packet::{SUBPROTOCOL, push_packet};
pub use self::record::{NO_INSTRUMENT, push_instrument, push_record};
