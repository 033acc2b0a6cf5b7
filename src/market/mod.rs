//! The market's own words: instruments, records, books, decimals.
//!
//! Pure data. No clock, no socket, no allocation on the record path.

pub mod book;
pub mod decimal;
pub mod directory;
pub mod instrument;
pub mod last_value;
pub mod record;

pub use book::{Book, Side};
pub use directory::{DefineError, Directory};
pub use instrument::Instrument;
pub use last_value::{Applied, LastValues};
pub use record::{Channel, Kind};
