//! The market's own words: instruments, records, books, decimals.
//!
//! Pure data. No clock, no socket, no allocation on the record path.

pub mod book;
pub mod decimal;
pub mod instrument;
pub mod record;

pub use book::{Book, Side};
pub use instrument::Instrument;
pub use record::{Channel, Kind};
