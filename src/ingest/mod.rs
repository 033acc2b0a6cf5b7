//! How market data comes in: feeds and publishers, their supervision, and the sequencer that they share.
//!
//! * [`feed`]: sources inside the process: the simulated market, recordings.
//! * [`supervisor`]: the thread of each feed and its restarts, and the thread that resynchronises overrun shards.
//! * [`Publisher`]: a publisher's connection, on a thread of its own. [`Publishers`]: all that are connected.
//! * [`SequencerHandle`]: the sequencer behind its lock.

pub mod feed;
mod publisher;
mod publishers;
mod sequencer_handle;
pub mod supervisor;

pub use self::publisher::{Publisher, PublisherSettings};
pub use self::publishers::Publishers;
pub use self::sequencer_handle::{BATCH_BYTES_MAX, BatchOutcome, ResyncRequests, SequencerHandle, SourceActivity};
