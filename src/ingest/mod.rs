//! How market data comes in: feeds and publishers, their supervision, and the sequencer that they share.
//!
//! * [`feed`]: sources that run inside the process: the simulated market, recordings.
//! * [`SequencerHandle`]: the sequencer and how sources share it.
//! * [`supervisor`]: the thread of each feed, its restarts, and the thread that resynchronises overrun shards.
//! * [`Publisher`]: a publisher's connection, on a thread of its own; [`Publishers`] is the registry of them.

pub mod feed;
mod publisher;
mod publishers;
mod sequencer_handle;
pub mod supervisor;

pub use self::publisher::{Publisher, PublisherSettings};
pub use self::publishers::Publishers;
pub use self::sequencer_handle::{Accepted, BATCH_BYTES_MAX, ResyncRequests, SequencerHandle, SourceNow};
