//! The interface of sources: what brings records into the server.
//!
//! A [`Source`] turns its input into records. It knows no sequence, no ring and no client. Its thread belongs to the
//! [`supervisor`](super::supervisor), which calls, always in this order:
//!
//! 1. [`Opener::open`], which connects. It may block as long as its input needs, and ends early when [`Stop`] says so.
//! 2. [`Source::receive`], again and again: it waits for input until a deadline, and returns records or an error.
//! 3. After each call with records: the sequencer takes them. Once every ring has the whole batch, and not before,
//!    [`Source::accepted`] gets the batch's [`Mark`]. A batch of which something was left out is logged and counted, and
//!    its mark is never passed back. So a source that acknowledges messages does it in `accepted`.
//! 4. After an error that ends the source: its destructor, then a pause, then `open` again.
//!
//! What always holds:
//! * A source is opened, used and dropped on one thread. It need not be `Send`, and may own an executor: a source with
//!   an async client owns a current-thread runtime, and `receive` runs it until records are there, the deadline has
//!   passed, or [`Stop::stopped`] completes. What the client has buffered meanwhile is bounded by the source.
//! * A panic of a source is an error like others: the source is opened again.
//! * Names and reasons are served by `/readyz`, `/metrics` and the operator's view: they contain no secrets.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

pub use tickcast_venues::Report;

use super::stop::Stop;

/// A batch is sequenced once it has grown to this: large enough to amortise the call, small compared with a ring.
pub const SOURCE_BATCH_BYTES_MAX: usize = 32 * 1024;

/// Brings records.
pub trait Source {
    /// Appends records to `batch`: what is due or has come, at most about [`SOURCE_BATCH_BYTES_MAX`]. Returns when to
    /// call again.
    ///
    /// A source that knows when its next records are due returns at once with [`Next::At`], and the supervisor waits. A
    /// source that waits for others blocks until records are there, at most until `times.deadline_ns`.
    ///
    /// # Errors
    /// What ends the source, or a gap. Records that came before it are in `batch` and are sequenced first.
    fn receive(&mut self, times: Times, batch: &mut Batch) -> Result<Next, SourceError>;

    /// Every ring has the batch with this mark, and so those with earlier marks that were not refused.
    fn accepted(&mut self, _mark: Mark) {}

    /// The present state of each stream of the source, such as a topic, a subscription or a file. Empty if the source is
    /// one stream. It is asked a few times a second. Subscribers learn of it by Status records in a batch, where the source
    /// knows which instruments a stream carries.
    fn streams(&self) -> Vec<Stream> {
        Vec::new()
    }

    /// The counters since the source was opened.
    fn report(&self) -> Report;

    /// Messages that wait at the other side, where it keeps them and says how many.
    fn lag(&self) -> Option<u64> {
        None
    }
}

/// Opens a source: the checked parameters of a `--feed` argument.
pub trait Opener: Debug + Send + Sync {
    /// The source's name in logs, metrics and the operator's view, without secrets.
    fn name(&self) -> String;

    /// Checks before the start of the server what this machine alone can tell, such as whether a file is there. An error
    /// keeps the server from starting.
    ///
    /// # Errors
    /// What is wrong, and what was expected.
    fn check(&self) -> Result<(), String>;

    /// Opens the source. Called on the source's thread, at the start and after each error.
    ///
    /// # Errors
    /// [`SourceError::Retry`] if it may succeed later, [`SourceError::Fatal`] if it will not without a change.
    fn open(&self, stop: &Stop) -> Result<Box<dyn Source>, SourceError>;
}

/// A kind of source: what the [`registry`](super::registry) lists.
#[derive(Clone, Copy, Debug)]
pub struct Scheme {
    /// What a `--feed` argument begins with, before the colon.
    pub name: &'static str,
    /// The form of the whole argument.
    pub form: &'static str,
    /// What the source is, in one line.
    pub help: &'static str,
    /// Parses what follows the colon. The error names the key and what is allowed.
    pub parse: fn(&str) -> Result<Arc<dyn Opener>, String>,
}

/// The times of a call: a source has no clock of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// The time for deadlines, ns since the Unix epoch. It does not step when the wall clock is set.
    pub now_ns: u64,
    /// What to add to it for a stamp.
    pub wall_offset_ns: i64,
    /// When to return at the latest, by the clock of `now_ns`.
    pub deadline_ns: u64,
}

impl Times {
    /// A call at this time that is not to wait, while both clocks are the same.
    pub const fn at(now_ns: u64) -> Self {
        Self { now_ns, wall_offset_ns: 0, deadline_ns: now_ns }
    }
}

/// What one call of [`Source::receive`] returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Whole wire records with the source's own instrument ids, each of which is announced by a Definition record before
    /// its first use. Sequences and `ts_recv` are 0: the sequencer sets them.
    pub records: Vec<u8>,
    /// Passed back once all of it is accepted.
    pub mark: Option<Mark>,
}

impl Batch {
    /// Empties it, and keeps its memory.
    pub fn clear(&mut self) {
        self.records.clear();
        self.mark = None;
    }
}

/// A place in the input of a source, such as the number of a message. It means something to its source only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(pub u64);

/// When to call a source again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once: more is due, or the source waits by itself.
    Now,
    /// As soon as the rings have room: a recording or a broker can wait, a live stream cannot.
    Paced,
    /// Nothing is due before this time, ns since the Unix epoch.
    At(u64),
    /// The source has ended, with all of its records accepted.
    Ended,
}

/// Why a source has no records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The source has failed and is to be opened again: a connection was lost, a server is down.
    #[error("{reason}")]
    Retry {
        reason: String,
        /// Not before this time has passed, as the other side has asked for; zero if it has not. The supervisor adds its
        /// own back-off.
        after: Duration,
    },
    /// The source cannot work without a change: wrong credentials, a topic that does not exist.
    #[error("{reason}: {cure}")]
    Fatal {
        reason: String,
        /// What to do about it.
        cure: String,
    },
    /// Messages are missing. The source continues with the next call.
    #[error("{0}")]
    Gap(SourceGap),
}

impl SourceError {
    /// A failure that the other side says nothing more about.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry { reason: reason.into(), after: Duration::ZERO }
    }
}

/// Messages that a source has not got. Subscribers get a Gap for each log channel of the instruments, and their books are
/// flagged until a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("messages {from} to {to} of {stream} are missing")]
pub struct SourceGap {
    /// The stream, by its name.
    pub stream: String,
    /// The first missing one, in the stream's own numbers, such as offsets.
    pub from: u64,
    /// The last missing one.
    pub to: u64,
    /// The source's ids of the instruments that the messages may be of; empty for all that it has defined.
    pub instruments: Vec<u32>,
}

impl SourceGap {
    /// How many messages are missing.
    pub fn messages(&self) -> u64 {
        (self.to - self.from.min(self.to)).saturating_add(1)
    }
}

/// A stream of a source, and its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Unique in its source, the same for as long as the source is configured.
    pub name: String,
    pub state: StreamState,
}

/// What a stream does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// It is open, and nothing has come yet.
    Waiting,
    Live,
    /// Nothing has come since this time (ns since the Unix epoch, of deadlines), which is too long for this stream.
    Stale {
        since_ns: u64,
    },
    /// It is of no use, while the source has others.
    Failed {
        reason: String,
    },
    /// It has no more.
    Ended,
}

impl StreamState {
    /// The words for the states, in the order of [`Self::index`].
    pub const WORDS: [&str; 5] = ["waiting", "live", "stale", "failed", "ended"];

    /// Its place in [`Self::WORDS`].
    pub fn index(&self) -> usize {
        match self {
            Self::Waiting => 0,
            Self::Live => 1,
            Self::Stale { .. } => 2,
            Self::Failed { .. } => 3,
            Self::Ended => 4,
        }
    }

    /// The word for it.
    pub fn word(&self) -> &'static str {
        Self::WORDS[self.index()]
    }

    /// What is wrong, at this time; `None` for a stream that is live or has ended.
    pub fn problem(&self, now_ns: u64) -> Option<String> {
        match self {
            Self::Live | Self::Ended => None,
            Self::Waiting => Some("has sent nothing yet".to_owned()),
            Self::Stale { since_ns } => {
                Some(format!("has sent nothing for {} s", now_ns.saturating_sub(*since_ns) / 1_000_000_000))
            }
            Self::Failed { reason } => Some(format!("has failed: {reason}")),
        }
    }
}
