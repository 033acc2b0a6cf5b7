//! `/v1/publish`: who brings market data in over WebSocket. The upgrade and the token are looked at here; then the
//! connection gets a thread of its own, see [`super::publisher`]: one that shares a core's executor would be read only
//! between two sweeps, and the busier the fan-out, the later.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use constant_time_eq::constant_time_eq;

use super::Door;
use super::http::{bearer, not_found, unauthorized, unavailable};
use super::publisher::Publisher;
use super::stream::Peer;
use crate::io::uring::duplicate;
use crate::sequencer::SourceId;
use crate::wire::packet;
use crate::ws::handshake::{Accepted, Refusal, Spoken};

/// Who publishes: counts them, and gives each a source id of its own.
#[derive(Debug)]
pub struct Publishers {
    next: AtomicU32,
    connected: AtomicU32,
    /// From where, as far as that is known.
    addresses: Mutex<BTreeMap<SourceId, Option<SocketAddr>>>,
    refused: AtomicU32,
    handed_in: AtomicU32,
    crowded: AtomicU32,
    slowed_us: AtomicU64,
}

impl Publishers {
    /// With ids from `first` on; those below are the feeds'.
    pub fn after(first: SourceId) -> Self {
        Self {
            next: AtomicU32::new(first),
            connected: AtomicU32::new(0),
            addresses: Mutex::default(),
            refused: AtomicU32::new(0),
            handed_in: AtomicU32::new(0),
            crowded: AtomicU32::new(0),
            slowed_us: AtomicU64::new(0),
        }
    }

    /// How many are connected.
    pub fn connected(&self) -> u32 {
        // Relaxed, here and below: the numbers stand for themselves.
        self.connected.load(Ordering::Relaxed)
    }

    /// Who is connected, and from where.
    pub fn addresses(&self) -> BTreeMap<SourceId, Option<SocketAddr>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SourceId, Option<SocketAddr>>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many were turned away since the start because too many were connected.
    pub fn refused(&self) -> u32 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many requests to define were refused since the start as the connection would have had too many instruments.
    pub fn crowded(&self) -> u32 {
        self.crowded.load(Ordering::Relaxed)
    }

    /// For how long publishers had to wait since the start, as they were faster than they may be.
    pub fn slowed(&self) -> Duration {
        Duration::from_micros(self.slowed_us.load(Ordering::Relaxed))
    }

    pub(super) fn count_crowded(&self) {
        self.crowded.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_slowed(&self, wait: Duration) {
        self.slowed_us.fetch_add(wait.as_micros() as u64, Ordering::Relaxed);
    }

    fn enter(&self, max: u32, from: Option<SocketAddr>) -> Option<SourceId> {
        let more = |connected: u32| (connected < max).then_some(connected + 1);
        if self.connected.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let source = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(source, from);
        Some(source)
    }

    /// True once all that publishers had handed in when the server began to stop is sequenced.
    pub fn have_handed_in(&self) -> bool {
        self.handed_in.load(Ordering::Relaxed) >= self.connected()
    }

    pub(super) fn count_handed_in(&self) {
        self.handed_in.fetch_add(1, Ordering::Relaxed);
    }

    fn leave(&self, source: SourceId, handed_in: bool) {
        self.lock().remove(&source);
        self.handed_in.fetch_sub(handed_in.into(), Ordering::Relaxed);
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) async fn serve(door: &Door, peer: &mut Option<Peer>, request: &http::Request<()>) -> Result<(), Refusal> {
    authorize(door, request)?;
    let Some(waiting) = peer.as_ref() else { return Ok(()) };
    let deflate = door.public.config.shard.compression.is_some();
    let spoken = Spoken { protocols: &[packet::SUBPROTOCOL], deflate };
    let accepted = door.upgrade(waiting, request, &spoken).await?;
    let from = waiting.socket().peer_addr().ok();
    let max = door.config().publishers_max;
    let Some(source) = door.public.publishers.enter(max, from) else {
        return Err(unavailable(&format!("{max} publishers are connected, which is publishers_max")));
    };
    let entered = match peer.take() {
        Some(peer) => start(door, peer, &accepted, source).await,
        None => Ok(false),
    };
    match entered {
        Ok(true) => {}
        Ok(false) => door.public.publishers.leave(source, false),
        Err(error) => {
            tracing::warn!("a publisher could not be served: {error}");
            door.public.publishers.leave(source, false);
        }
    }
    Ok(())
}

/// Hands the connection over to a thread that blocks on it. False if the peer has gone meanwhile.
async fn start(door: &Door, mut peer: Peer, accepted: &Accepted, source: SourceId) -> std::io::Result<bool> {
    if peer.write(&accepted.response).await.is_err() {
        return Ok(false);
    }
    let stream = TcpStream::from(duplicate(peer.socket())?);
    let (unread, place) = (peer.take_unread(), peer.take_place());
    drop(peer);
    stream.set_nonblocking(false)?;
    let public = Arc::clone(&door.public);
    let publisher = Publisher::new(public.clone(), door.config(), source, stream, accepted.deflate.is_some())?;
    let cores = &public.config.other_cores;
    let core = cores[source as usize % cores.len()];
    std::thread::Builder::new().name(format!("publisher-{source}")).spawn(move || {
        crate::runtime::pin(core);
        // A panic is this publisher's alone, unless it is the sequencer's, which the desk sees.
        let served = catch_unwind(AssertUnwindSafe(|| publisher.run(&unread)));
        drop(place);
        public.publishers.leave(source, served.unwrap_or(false));
    })?;
    Ok(true)
}

fn authorize(door: &Door, request: &http::Request<()>) -> Result<(), Refusal> {
    let config = door.config();
    let Some(token) = &config.publish_token else {
        let message = "publishing is off; start the server with --publish-token TOKEN".to_owned();
        return Err(not_found(message));
    };
    let query = request.uri().query().unwrap_or("").split('&').find_map(|pair| pair.strip_prefix("token="));
    let query = query.map(|text| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>());
    let given = bearer(request).map(<[u8]>::to_vec).or(query);
    match given {
        None => Err(unauthorized("a token is wanted: Authorization: Bearer TOKEN, or ?token=TOKEN")),
        Some(given) if constant_time_eq(&given, token.as_bytes()) => Ok(()),
        Some(_) => Err(unauthorized("this is not the publish token")),
    }
}
