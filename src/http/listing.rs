//! The directory as JSON, the content of `/v1/instruments`: built and compressed once for all shards and clients, and again
//! only when the directory has changed.
//!
//! Cost: 3 MB for 20,000 instruments, so it is not built on a shard's core, see `handlers/instruments.rs`.

use std::sync::{Arc, Mutex, PoisonError};

use flate2::Compression;

use super::content::Content;
use super::response::JSON;
use tickcast_protocol::Instrument;
use tickcast_protocol::json;

/// The newest listing of all shards.
#[derive(Debug, Default)]
pub(super) struct ListingCache(Mutex<Option<Arc<Listing>>>);

/// The directory as it was with this digest.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) digest: u64,
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
    pub(super) fn new(epoch: u32, instruments: &[Arc<Instrument>], digest: u64) -> Self {
        let mut text = String::from(r#"{"instruments":["#);
        for (nth, instrument) in instruments.iter().enumerate() {
            if nth > 0 {
                text.push(',');
            }
            json::push_instrument(instrument, &mut text);
        }
        text.push_str("]}");
        let tag = format!("{epoch:x}-{digest:x}");
        Self { digest, content: Content::new(JSON, tag, text, Compression::fast()) }
    }
}
