//! The directory as JSON, the content of `/v1/instruments`: built and compressed once for all shards and clients, and again
//! only when the directory has grown.
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

/// The first `instruments` entries of the directory.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) instruments: usize,
    pub(super) content: Content,
}

impl ListingCache {
    pub(super) fn newest(&self) -> Option<Arc<Listing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stores a listing, unless another shard has stored a longer one meanwhile.
    pub(super) fn store(&self, listing: Arc<Listing>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().is_none_or(|held| held.instruments < listing.instruments) {
            *held = Some(listing);
        }
    }
}

impl Listing {
    pub(super) fn new(epoch: u32, instruments: &[Arc<Instrument>]) -> Self {
        let mut text = String::from(r#"{"instruments":["#);
        for (nth, instrument) in instruments.iter().enumerate() {
            if nth > 0 {
                text.push(',');
            }
            json::push_instrument(instrument, &mut text);
        }
        text.push_str("]}");
        // Within an epoch no instrument is changed or removed, so their number identifies the list.
        let tag = format!("{epoch:x}-{:x}", instruments.len());
        Self { instruments: instruments.len(), content: Content::new(JSON, tag, text, Compression::fast()) }
    }
}
