//! Records: the unit of everything that is published and delivered. Little-endian, 8-byte aligned, sizes multiples of 8.
//!
//! The sequencer numbers a record once; from there on the same bytes travel to every subscriber. The structs here are
//! views for code that writes or reads a record: nothing is transmuted, fields go through `to_le_bytes`.
//!
//! ```text
//! every record: the header, 32 bytes, then the body of its kind
//!  0 u16 length   whole record in units of 8 bytes        8 u64 sequence   of the instrument and channel
//!  2 u8  kind     see RecordKind                         16 u64 ts_event   time of the venue, ns
//!  3 u8  flags    see flags                              24 u64 ts_recv    time of the first server, ns
//!  4 u32 instrument
//! ```
//!
//! What always holds: readers never panic and never read beyond the record. They take one whole record, as [`records`]
//! yields them, return `None` if the body is cut short, and ignore what a later version appended to it.
//! [`check`](check()) is strict: it is for the records of publishers.
//!
//! Cost: writing a quote is eight stores; reading a header is one bounds check and six loads.

mod book;
mod bytes;
mod check;
mod definition;
mod fields;
pub mod flags;
mod gap;
mod header;
mod heartbeat;
mod instrument;
mod kind;
mod letters;
mod quote;
mod raw;
mod status;
mod ticker;
mod trade;

pub use self::book::{BOOK_LEVELS_MAX, LEVEL_BYTES, Level, encode_book, read_book};
pub use self::check::{RecordError, check};
pub use self::definition::{encode_definition, read_definition};
pub use self::fields::FieldSet;
pub use self::gap::Gap;
pub use self::header::{
    HEADER_BYTES, RECORD_BYTES_MAX, RecordHeader, RecordPrefix, kind_of, patch_flags, patch_sequenced, records,
};
pub use self::heartbeat::encode_heartbeat;
pub use self::instrument::Instrument;
pub use self::kind::{Channel, RecordKind};
pub use self::letters::{BookAction, BookSide, FeedState, GapReason, InstrumentStatus, Side};
pub use self::quote::Quote;
pub use self::raw::{encode_raw, read_raw};
pub use self::status::{encode_status, read_status};
pub use self::ticker::Ticker;
pub use self::trade::Trade;

/// "Not present" for prices and sizes.
pub const PRICE_NONE: i64 = i64::MIN;

#[cfg(test)]
mod tests;
