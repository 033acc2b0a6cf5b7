//! How market data comes in: feeds and publishers, their supervision, and the sequencer that they share.
//!
//! * [`feed`]: sources inside the process: the simulated market, recordings.
//! * [`supervisor`]: the thread of each feed and its restarts, and the thread that resynchronises overrun shards.
//! * [`Publisher`]: a publisher's connection, on a thread of its own. [`Publishers`]: all that are connected, and the
//!   identities that they publish for.
//! * [`SequencerHandle`]: the sequencer behind its lock.

pub mod feed;
mod identity;
mod publisher;
mod publisher_source;
mod publishers;
mod room;
mod sequencer_handle;
pub mod supervisor;

pub use self::identity::{DEFAULT_IDENTITY, Identity, IdentitySettings, NamePattern, PaceSettings};
pub use self::publisher::Publisher;
pub use self::publisher_source::PublisherSettings;
pub use self::publishers::{Credential, EnterError, Entered, Publishers};
pub use self::room::WAITS_MAX;
pub use self::sequencer_handle::{
    BATCH_BYTES_MAX, BatchOutcome, ResyncRequests, SequencerHandle, SourceActivity, SourceTimeouts,
};
