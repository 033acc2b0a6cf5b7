//! `/v1/instruments`: the directory as JSON.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::FixedState;
use http::header::HeaderMap;

use crate::affinity::pin_current_thread;
use crate::bars::BarStore;
use crate::http::listing::Listing;
use crate::http::refusal::Refusal;
use crate::http::response::Response;
use crate::http::server::HttpServer;
use crate::identity::Principal;
use tickcast_protocol::{Channel, Instrument};

/// How often a listing is built because there are oldest bars of other times.
const BUILT_EVERY: Duration = Duration::from_secs(5);
/// Requests of a shard that wait for a listing of their own.
const BUILDING_MAX: usize = 64;

/// A listing of the instruments that this shard knows, and that the client may see any channel of.
pub(crate) async fn get(server: &HttpServer, principal: &Principal, headers: &HeaderMap) -> Result<Response, Refusal> {
    if !principal.rights.is_open() {
        let _building = server.enter_building(BUILDING_MAX)?;
        return Ok(restricted(server, principal).await.content.response(headers));
    }
    Ok(listing(server).await.content.response(headers))
}

/// The part of the directory that a client may see. It is made for each request, on another core.
async fn restricted(server: &HttpServer, principal: &Principal) -> Listing {
    // Acquiring fails only on a closed semaphore, which this one never is.
    let _building = server.listing.acquire_permit(1).await;
    let instruments: Vec<_> = server.shard.borrow().directory().iter().cloned().collect();
    let (epoch, core) = (server.state().config.shard.epoch, server.state().config.other_cores[0]);
    let (principal, delay_s) = (principal.clone(), server.state().delay_s());
    let bars = server.state().bars.clone();
    let building = glommio::executor().spawn_blocking(move || {
        pin_current_thread(core);
        let may_see = |instrument: &Arc<Instrument>| {
            Channel::ALL.iter().any(|channel| principal.may_see(&instrument.symbol, *channel, delay_s))
        };
        let visible: Vec<_> = instruments.into_iter().filter(may_see).collect();
        // The oldest bars are those of trades.
        let of_trades = |instrument: &Arc<Instrument>| principal.may_see(&instrument.symbol, Channel::Trade, delay_s);
        let since = first_times(bars.as_deref(), &visible).into_iter().zip(&visible);
        let since: Vec<_> = since.map(|(since, instrument)| since.filter(|_| of_trades(instrument))).collect();
        // The tag tells apart what differs for this client, and nothing that it may not see.
        let mut hash = FixedState::with_seed(0).build_hasher();
        visible.iter().for_each(|instrument| format!("{instrument:?}").hash(&mut hash));
        since.hash(&mut hash);
        Listing::new(epoch, &visible, &since, hash.finish(), 0)
    });
    building.await
}

/// The times of the oldest bars of instruments.
fn first_times(bars: Option<&BarStore>, instruments: &[Arc<Instrument>]) -> Vec<Option<u32>> {
    bars.map_or_else(Vec::new, |bars| bars.first_s(instruments.iter().map(|instrument| instrument.id)))
}

async fn listing(server: &HttpServer) -> Arc<Listing> {
    let cache = &server.shared.listings;
    let known = server.shard.borrow().directory().digest();
    let bars = server.state().bars.clone();
    let first_changes = || bars.as_deref().and_then(BarStore::try_first_changes);
    let is_current = |newest: &Arc<Listing>| {
        let has_oldest_bars = || first_changes().is_none_or(|changes| changes == newest.first_changes);
        newest.digest == known && (newest.built.elapsed() < BUILT_EVERY || has_oldest_bars())
    };
    let current = || cache.newest().filter(is_current);
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
        // Before the times, which may change meanwhile.
        let changes = bars.as_deref().and_then(BarStore::try_first_changes).unwrap_or(0);
        let since = first_times(bars.as_deref(), &instruments);
        Arc::new(Listing::new(epoch, &instruments, &since, digest, changes))
    });
    let listing = building.await;
    cache.store(listing.clone());
    listing
}
