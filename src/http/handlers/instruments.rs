//! `/v1/instruments`: the directory as JSON.

use std::sync::Arc;

use http::header::HeaderMap;

use crate::affinity::pin_current_thread;
use crate::http::listing::Listing;
use crate::http::response::Response;
use crate::http::server::HttpServer;

/// A listing of the instruments that this shard knows.
pub(crate) async fn get(server: &HttpServer, headers: &HeaderMap) -> Response {
    let known = server.shard.borrow().directory().digest();
    listing(server, known).await.content.response(headers)
}

async fn listing(server: &HttpServer, known: u64) -> Arc<Listing> {
    let cache = &server.shared.listings;
    let current = || cache.newest().filter(|newest| newest.digest == known);
    if let Some(listing) = current() {
        return listing;
    }
    // One request of the shard builds it; others wait for that. Acquiring fails only on a closed semaphore, which this
    // one never is.
    let _building = server.listing.acquire_permit(1).await;
    if let Some(listing) = current() {
        return listing;
    }
    let (instruments, digest) = {
        let shard = server.shard.borrow();
        (shard.directory().iter().cloned().collect::<Vec<_>>(), shard.directory().digest())
    };
    let (epoch, core) = (server.state().config.shard.epoch, server.state().config.other_cores[0]);
    let building = glommio::executor().spawn_blocking(move || {
        pin_current_thread(core);
        Arc::new(Listing::new(epoch, &instruments, digest))
    });
    let listing = building.await;
    cache.store(listing.clone());
    listing
}
