//! The directory as JSON, the content of `/v1/instruments`: built and compressed once for all shards and clients, and again
//! only when the directory has changed.
//!
//! Cost: 3 MB for 20,000 instruments, so it is not built on a shard's core, see `handlers/instruments.rs`.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use flate2::Compression;

use super::content::Content;
use super::response::JSON;
use tickcast_protocol::Instrument;
use tickcast_protocol::json;

/// The newest listing of all shards.
#[derive(Debug, Default)]
pub(super) struct ListingCache(Mutex<Option<Arc<Listing>>>);

/// The directory as it was with this digest, and the times of the oldest bars.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) digest: u64,
    /// See `BarStore::try_first_changes`.
    pub(super) first_changes: u64,
    pub(super) built: Instant,
    pub(super) content: Content,
}

impl ListingCache {
    pub(super) fn newest(&self) -> Option<Arc<Listing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stores a listing in place of the one before.
    pub(super) fn store(&self, listing: Arc<Listing>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(listing);
    }
}

impl Listing {
    /// `since` has the times of the oldest bars. `digest` tells the instruments apart, `first_changes` those times.
    pub(super) fn new(
        epoch: u32,
        instruments: &[Arc<Instrument>],
        since: &[Option<u32>],
        digest: u64,
        first_changes: u64,
    ) -> Self {
        let mut text = String::from(r#"{"instruments":["#);
        for (nth, instrument) in instruments.iter().enumerate() {
            if nth > 0 {
                text.push(',');
            }
            json::push_instrument(instrument, &mut text);
            if let Some(since_s) = since.get(nth).copied().flatten() {
                text.truncate(text.len() - 1);
                write!(text, r#","bars_since":{since_s}}}"#).expect("writing to a String cannot fail");
            }
        }
        text.push_str("]}");
        let tag = format!("{epoch:x}-{digest:x}-{first_changes:x}");
        Self {
            digest,
            first_changes,
            built: Instant::now(),
            content: Content::new(JSON, tag, text, Compression::fast()),
        }
    }
}
