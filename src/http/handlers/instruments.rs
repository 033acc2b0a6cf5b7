//! `/v1/instruments`: the directory as JSON, made and compressed once for all shards and visitors, and again only when it
//! has grown. Neither is done on a shard's core: 20,000 instruments are 3 MB.

use std::sync::{Arc, Mutex, PoisonError};

use flate2::Compression;
use http::header::HeaderMap;

use crate::http::content::Content;
use crate::http::response::{JSON, Response};
use crate::http::server::HttpServer;
use tickcast_protocol::Instrument;
use tickcast_protocol::json;

/// The newest listing that any shard has had made.
#[derive(Debug, Default)]
pub struct Listings(Mutex<Option<Arc<Listing>>>);

/// The first so many instruments of the directory.
#[derive(Debug)]
struct Listing {
    instruments: usize,
    content: Content,
}

impl Listings {
    fn newest(&self) -> Option<Arc<Listing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes in one that was made; another shard may have been faster, and known more.
    fn offer(&self, made: Arc<Listing>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().is_none_or(|held| held.instruments < made.instruments) {
            *held = Some(made);
        }
    }
}

impl Listing {
    fn of(epoch: u32, instruments: &[Arc<Instrument>]) -> Self {
        let mut text = String::from(r#"{"instruments":["#);
        for (nth, instrument) in instruments.iter().enumerate() {
            if nth > 0 {
                text.push(',');
            }
            json::push_instrument(instrument, &mut text);
        }
        text.push_str("]}");
        // An instrument is never changed or removed within an epoch: their number says which they are.
        let tag = format!("{epoch:x}-{:x}", instruments.len());
        Self { instruments: instruments.len(), content: Content::new(JSON, tag, text, Compression::fast()) }
    }
}

/// The answer to `/v1/instruments`: all that this shard knows of, at the least.
pub(crate) async fn answer(server: &HttpServer, headers: &HeaderMap) -> Response {
    let known = server.shard.borrow().directory().len();
    newest(server, known).await.content.response(headers)
}

/// A listing of at least `known` instruments.
async fn newest(server: &HttpServer, known: usize) -> Arc<Listing> {
    let listings = &server.shared.listings;
    let good = || listings.newest().filter(|newest| newest.instruments >= known);
    if let Some(newest) = good() {
        return newest;
    }
    // One visitor has it made, and those who come meanwhile wait for it. An error is a semaphore that was closed: none is.
    let _turn = server.own.listing.acquire_permit(1).await;
    if let Some(newest) = good() {
        return newest;
    }
    let instruments: Vec<_> = server.shard.borrow().directory().iter().cloned().collect();
    let (epoch, core) = (server.state.config.shard.epoch, server.state.config.other_cores[0]);
    let made = glommio::executor().spawn_blocking(move || {
        crate::ingest::supervisor::pin(core);
        Arc::new(Listing::of(epoch, &instruments))
    });
    let made = made.await;
    listings.offer(made.clone());
    made
}
