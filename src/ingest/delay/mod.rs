//! Delayed markets: what the live market broadcasts, a fixed time later.
//!
//! ```text
//! sequencer ══ ring ══► spool thread ─► segments on disk ─► DelayedSource, when they are due ─► sequencer of the delayed
//!                                                                                               market ══► its shards
//! ```
//!
//! A delayed market has a sequencer, rings, shards, bars and a listener of its own. So nothing that it numbers, counts or
//! answers tells of the present: its sequences, positions, epoch, heartbeats, listings and entity tags are made from
//! records that were due. Its feed is the [`source`] that [`DelayedOpener`] opens, which reads the [`Spool`].
//!
//! What always holds:
//! * A record is released once its packet in the spool is older than the delay, and never earlier. The packet is stamped
//!   after its records were received. While the process runs, age is measured by the clock of deadlines, which is not set;
//!   for what an earlier process has spooled it is measured by that clock and by the wall clock, and the later of the two
//!   decides.
//! * What could not be spooled is reported as a Gap of all log channels, and books are flagged until their next snapshot.
//! * The spool has a limit in bytes and in age. It never delays the live market: a ring that is not read is overrun.
//!
//! Cost: of the live market, one more ring; of the spool, zstd at some 80 MB/s of records on the cores beside the shards.

mod files;
mod source;
mod spool;

pub use self::files::{Spool, SpoolError, SpoolSettings};
pub use self::source::DelayedOpener;
pub use self::spool::{RING_BYTES, spawn};

#[cfg(test)]
mod tests;
