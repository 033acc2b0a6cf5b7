//! Flags of a record, a bit each.

/// Last record of its event.
pub const LAST: u8 = 0x80;
/// State from before the subscription, not a live update.
pub const SNAPSHOT: u8 = 0x20;
/// Values were skipped: this one stands for them too.
pub const CONFLATED: u8 = 0x10;
/// Held back on purpose.
pub const DELAYED: u8 = 0x08;
/// The book missed an update and is being rebuilt.
pub const MAYBE_BAD_BOOK: u8 = 0x04;
/// Made by the server from other records of the instrument: a ticker whose source sends none.
pub const COMPUTED: u8 = 0x02;
