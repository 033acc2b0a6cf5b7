//! How market data comes in: feeds and publishers, their supervision, and the sequencer that they share.
//!
//! * [`source`]: the interface of sources. [`registry`]: the sources that there are.
//! * [`broker`]: what brokers have in common, with the clients in [`transport`]. [`codec`]: their payloads.
//! * [`feed`]: sources inside the process: the simulated market, recordings. [`venue`]: venues, live. [`transport`]: how
//!   their messages come in. [`capture`]: what a venue sends, in a file.
//! * [`supervisor`]: the thread of each feed and its restarts, and the thread that resynchronises overrun shards.
//! * [`states`]: the states of feeds and publishers in words. [`stop`]: the signal that ends feeds.
//! * [`Publisher`]: a publisher's connection, on a thread of its own. [`Publishers`]: all that are connected, and the
//!   identities that they publish for.
//! * [`SequencerHandle`]: the sequencer behind its lock.

mod backoff;
pub mod broker;
pub mod capture;
pub mod codec;
pub mod delay;
pub mod feed;
mod identity;
mod parameters;
mod publisher;
mod publisher_source;
mod publisher_stream;
mod publishers;
pub mod registry;
mod room;
mod sequencer_handle;
pub mod source;
pub mod states;
pub mod stop;
pub mod supervisor;
pub mod transport;
pub mod venue;

pub use self::identity::{DEFAULT_IDENTITY, Identity, IdentitySettings, NamePattern, PaceSettings};
pub use self::publisher::Publisher;
pub use self::publisher_source::PublisherSettings;
pub use self::publisher_stream::PublisherStream;
pub use self::publishers::{Credential, EnterError, Entered, Publishers};
pub use self::room::{UNREAD_BYTES_MAX, Unread, WAITS_MAX};
pub use self::sequencer_handle::{
    BATCH_BYTES_MAX, BatchOutcome, ResyncRequests, SequencerHandle, SourceActivity, SourceTimeouts,
};
