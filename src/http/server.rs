//! The door: ordinary async code on glommio, one task a connection until it is upgraded.
//!
//! accept → HTTP head → a page, an answer, or an upgrade. A subscriber becomes a seat of the shard: its socket moves into
//! the registered-file table, its descriptor closes, its task ends. A publisher gets a thread; an echo keeps its task.
//!
//! What always holds: the shard is borrowed between awaits only; whatever a peer sends is answered or closed, with a
//! reason, and never waited for longer than a limit says. What comes at once is taken in portions, so that a storm of
//! connections has no more of the core than its share between two turns of the shard.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use glommio::net::TcpStream;
use glommio::sync::Semaphore;
use glommio::task::JoinHandle;

use super::admission::addresses::{Addresses, Crowded, Place};
use super::admission::forwarded::{self, Said};
use super::admission::origin;
use super::admission::pending::{Entered, Lobby};
use super::connection::Peer;
use super::handlers::assets::Pages;
use super::handlers::instruments::Listings;
use super::handlers::{echo, publish, sse};
use super::response::{self, Response};
use super::router as answer;
use crate::config::Config;
use crate::http::handshake::{Accepted, Refusal, Spoken};
use crate::io::SlotId;
use crate::io::uring::{Uring, adopt_fd, duplicate};
use crate::rate_limit::RateLimiter;
use crate::shard::paged_vec::PagedVec;
use crate::shard::{Encoding, Format, Shard, SlowClient};
use crate::state::{ServerState, Slow, Who};
use crate::stats::{Counter, ShardCounters};
use crate::wake::ShardWaker;
use tickcast_protocol::{json, packet};

/// Connections that are accepted before everybody else on the core has a turn: some 0.2 ms.
const ACCEPTS_MAX: usize = 8;

/// What the HTTP servers of all shards share.
pub struct HttpShared {
    pub server: Arc<ServerState>,
    pub addresses: Arc<Addresses>,
    pub pages: Pages,
    pub listings: Listings,
}

impl HttpShared {
    /// Around the state of the server.
    pub fn new(server: Arc<ServerState>) -> Self {
        Self { server, addresses: Arc::default(), pages: Pages::default(), listings: Listings::default() }
    }
}

/// The door of one shard.
#[derive(Clone)]
pub struct HttpServer {
    pub(super) index: usize,
    pub(super) shard: Rc<RefCell<Shard<Uring>>>,
    pub(super) state: Arc<ServerState>,
    pub(super) shared: Arc<HttpShared>,
    pub(super) waker: Arc<ShardWaker>,
    pub(super) own: Rc<Own>,
}

/// What a door has for itself.
pub(super) struct Own {
    /// The settings in effect.
    config: RefCell<Arc<Config>>,
    pub(super) lobby: Rc<Lobby>,
    accepts: Cell<RateLimiter>,
    handshakes: Cell<RateLimiter>,
    /// Held by the visitor that has the directory listed.
    pub(super) listing: Semaphore,
    /// What the holder of each seat counts for at its address.
    places: RefCell<PagedVec<Option<Place>>>,
    /// Who holds each seat, or was the last to hold it.
    holders: RefCell<PagedVec<Option<Who>>>,
}

impl HttpServer {
    /// A door to this shard.
    pub fn new(
        index: usize,
        shard: Rc<RefCell<Shard<Uring>>>,
        shared: Arc<HttpShared>,
        waker: Arc<ShardWaker>,
    ) -> Self {
        let own = Own {
            config: RefCell::new(Arc::new(shared.server.config.clone())),
            lobby: Rc::default(),
            accepts: Cell::default(),
            handshakes: Cell::default(),
            listing: Semaphore::new(1),
            places: RefCell::default(),
            holders: RefCell::default(),
        };
        Self { index, shard, state: shared.server.clone(), shared, waker, own: Rc::new(own) }
    }

    /// Accepts connections until cancelled.
    pub fn open(self, socket: TcpListener) -> JoinHandle<()> {
        glommio::spawn_local(async move {
            let listener = adopt_fd::<glommio::net::TcpListener>(socket.into());
            let mut accepted = 0;
            loop {
                match listener.accept().await {
                    Ok(stream) => {
                        let server = self.clone();
                        glommio::spawn_local(async move { server.receive(stream).await }).detach();
                    }
                    Err(error) => {
                        // Out of descriptors, most often: those who are here keep being served.
                        tracing::warn!(
                            "shard {}: a connection was not accepted: {error}; is 'ulimit -n' too low?",
                            self.index
                        );
                        glommio::timer::sleep(Duration::from_millis(50)).await;
                    }
                }
                accepted += 1;
                if accepted % ACCEPTS_MAX == 0 {
                    self.rest().await;
                }
            }
        })
        .detach()
    }

    /// Lets everybody else on the core have a turn, and waits where connections come faster than they may.
    pub(super) async fn rest(&self) {
        /// Connections for each handshake: some are answered with a page, some are refused.
        const ACCEPTS_PER_HANDSHAKE: u32 = 2;
        let portions =
            self.config().handshakes_per_s.saturating_mul(ACCEPTS_PER_HANDSHAKE).div_ceil(ACCEPTS_MAX as u32);
        let mut pace = self.own.accepts.get();
        let wait = pace.take(portions, crate::clock::now_ns(), Duration::MAX).unwrap_or_default();
        self.own.accepts.set(pace);
        // Who has to wait does so in the kernel's queue, where it costs us nothing.
        if wait.is_zero() {
            glommio::executor().yield_task_queue_now().await;
        } else {
            glommio::timer::sleep(wait).await;
        }
    }

    /// The settings in effect.
    pub(super) fn config(&self) -> Arc<Config> {
        self.own.config.borrow().clone()
    }

    pub(super) fn count(&self, counter: Counter) {
        self.shard.borrow_mut().counters_mut().add(counter, 1);
        self.show();
    }

    /// Shows the numbers: a shard that sleeps does not.
    pub(super) fn show(&self) {
        let mut shard = self.shard.borrow_mut();
        self.set_levels(shard.counters_mut());
        self.state.shards[self.index].publish(shard.counters());
    }

    /// Counts who is at the door.
    pub fn set_levels(&self, counters: &mut ShardCounters) {
        counters.set(Counter::PendingConnections, self.own.lobby.len() as u64);
    }

    /// Other settings from now on, for those who come.
    pub fn change_settings(&self, config: Arc<Config>) {
        *self.own.config.borrow_mut() = config;
    }

    /// Tells those who talk with the door itself that the server stops.
    pub fn send_away(&self) {
        self.own.lobby.send_away();
    }

    /// How many talk with the door itself: echoes.
    pub fn talking(&self) -> usize {
        self.own.lobby.talking()
    }

    /// Forgets what these seats counted for at their addresses.
    pub fn left(&self, slots: impl Iterator<Item = u32>) {
        let mut places = self.own.places.borrow_mut();
        for slot in slots {
            if let Some(place) = places.get_mut(slot as usize) {
                *place = None;
            }
        }
    }

    /// Shows who is most behind to those who run the server.
    pub fn show_slowest(&self, slowest: Vec<SlowClient>) {
        let holders = self.own.holders.borrow();
        let slow = slowest.into_iter().map(|client| {
            let who = holders.get(client.slot as usize).copied().flatten();
            Slow { client, who }
        });
        self.state.slow[self.index].show(slow);
    }

    /// One connection, from its first byte to its last, or until it is a seat.
    pub(super) async fn receive(self, stream: TcpStream) {
        let config = self.config();
        let Some(mut peer) = self.admit(stream, &config) else { return };
        // Whose connection one of a proxy is, its head will tell.
        let is_proxy = peer.who().is_some_and(|who| forwarded::is_trusted(who.address(), &config.trusted_proxies));
        if !is_proxy && let Err(crowded) = self.count_in(&mut peer, &config) {
            return self.refuse(&mut peer, &crowded, false).await;
        }
        let timeout = Duration::from_millis(config.upgrade_timeout_ms.into());
        let head = match peer.read_head(config.head_bytes_max, timeout).await {
            Ok(Some(head)) => head,
            // Nothing was asked.
            Ok(None) => return,
            Err(refusal) => {
                match refusal.status {
                    408 => self.count(Counter::HeadTimeouts),
                    431 => self.count(Counter::HeadsTooLarge),
                    _ => {}
                }
                return self.refuse(&mut peer, &refusal, false).await;
            }
        };
        let counted = if is_proxy { self.count_client_in(&mut peer, &head, &config) } else { Ok(()) };
        if counted.is_ok() {
            peer.visit().served();
        }
        if let Err(refusal) = self.route(&mut Some(peer), &head, counted).await {
            let (mut peer, refusal) = refusal;
            self.refuse(&mut peer, &refusal, head.method() == http::Method::HEAD).await;
        }
    }

    /// Gives the connection a place at the door, if need be that of one who has long sent nothing whole.
    pub(super) fn admit(&self, stream: TcpStream, config: &Config) -> Option<Peer> {
        let visit = match self.own.lobby.enter(config.visitors_per_shard() as usize) {
            Entered::Freely(visit) => visit,
            Entered::InPlaceOfAnother(visit) => {
                self.count(Counter::PendingEvicted);
                visit
            }
            Entered::Full => {
                self.count(Counter::RefusedPending);
                // What its buffer takes at once it gets; nobody waits for it to be read.
                let refusal = response::later(
                    503,
                    "too many connections are pending (door_connections_max)".to_owned(),
                    Duration::from_secs(1),
                );
                answer_and_drop(&stream, &refusal.response());
                return None;
            }
        };
        Some(Peer::new(stream, visit, Duration::from_millis(config.write_timeout_ms.into())))
    }

    /// Counts the connection for its address.
    pub(super) fn count_in(&self, peer: &mut Peer, config: &Config) -> Result<(), Refusal> {
        // Who has gone already has no address any more, and asks nothing.
        let Some(who) = peer.who() else { return Ok(()) };
        match self.shared.addresses.enter(who.address(), config, crate::clock::now_ns()) {
            Ok(place) => {
                peer.count(place);
                Ok(())
            }
            Err(Crowded) => {
                self.count(Counter::RefusedAddress);
                let max = config.connections_per_address_max;
                let message = format!("this address has {max} connections, which is connections_per_address_max");
                Err(response::later(429, message, Duration::from_secs(5)))
            }
        }
    }

    /// Counts the connection of a trusted proxy for the proxy's client.
    pub(super) fn count_client_in(
        &self,
        peer: &mut Peer,
        head: &http::Request<()>,
        config: &Config,
    ) -> Result<(), Refusal> {
        let Some(proxy) = peer.who() else { return Ok(()) };
        let said = forwarded::client(proxy.address(), head.headers(), &config.trusted_proxies);
        self.count(match said {
            Said::Client(_) => Counter::Forwarded,
            Said::NoMoreThan(_) => Counter::ForwardedUnread,
        });
        peer.is_of(said.address());
        self.count_in(peer, config)
    }

    pub(super) async fn refuse(&self, peer: &mut Peer, refusal: &Refusal, headers_only: bool) {
        if let Some(who) = peer.who() {
            tracing::debug!("shard {}: {who} is refused: {refusal}", self.index);
        }
        let refused = peer.refuse(refusal, headers_only).await;
        self.note(refused);
    }

    /// Counts a peer that did not take what it was sent.
    pub(super) fn note(&self, written: std::io::Result<()>) {
        if written.is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut) {
            self.count(Counter::WriteTimeouts);
        }
    }

    /// Answers a request, where its client has been counted in.
    pub(super) async fn route(
        &self,
        peer: &mut Option<Peer>,
        request: &http::Request<()>,
        counted: Result<(), Refusal>,
    ) -> Result<(), (Peer, Refusal)> {
        let config = self.config();
        let outcome = match (origin::refusal(request, &config), counted) {
            (Some(refusal), _) => {
                self.count(Counter::RefusedOrigin);
                Err(refusal)
            }
            (None, Err(crowded)) => sse::refuse(self, peer, request, crowded).await,
            (None, Ok(())) => match origin::preflight(request, &config) {
                Some(answer) => self.respond(peer, request, answer).await,
                None => self.serve(peer, request).await,
            },
        };
        match (outcome, peer.take()) {
            (Err(refusal), Some(peer)) => Err((peer, answer::share_refusal(&config, request, refusal))),
            _ => Ok(()),
        }
    }

    pub(super) async fn serve(&self, peer: &mut Option<Peer>, request: &http::Request<()>) -> Result<(), Refusal> {
        match request.uri().path() {
            "/v1/stream" => self.slot_id(peer, request).await,
            // What else a page asks with OPTIONS is the same for all paths.
            sse::PATH if request.method() != http::Method::OPTIONS => sse::serve(self, peer, request).await,
            "/v1/publish" => publish::serve(self, peer, request).await,
            "/v1/echo" if self.config().enable_echo => echo::serve(self, peer, request).await,
            _ => {
                let answer = answer::answer(self, request, address_of(peer.as_ref())).await;
                self.respond(peer, request, answer).await
            }
        }
    }

    pub(super) async fn respond(
        &self,
        peer: &mut Option<Peer>,
        request: &http::Request<()>,
        answer: Result<Response, Refusal>,
    ) -> Result<(), Refusal> {
        let response = answer::share(&self.config(), request, answer?);
        if let Some(mut peer) = peer.take() {
            let written = peer.respond(&response).await;
            self.note(written);
        }
        Ok(())
    }

    /// Judges an upgrade; a good one waits for its turn.
    pub(super) async fn upgrade(
        &self,
        peer: &Peer,
        request: &http::Request<()>,
        spoken: &Spoken<'_>,
    ) -> Result<Accepted, Refusal> {
        let accepted = crate::http::handshake::upgrade(request, spoken)?;
        self.await_turn(peer).await?;
        Ok(accepted)
    }

    /// Waits until a good request has its turn.
    pub(super) async fn await_turn(&self, peer: &Peer) -> Result<(), Refusal> {
        self.refuse_draining()?;
        let wait = self.turn_of(peer)?;
        if !wait.is_zero() {
            self.count(Counter::HandshakesDelayed);
            glommio::timer::sleep(wait).await;
            self.refuse_draining()?;
        }
        Ok(())
    }

    pub(super) fn refuse_draining(&self) -> Result<(), Refusal> {
        if self.state.lifecycle.is_draining() {
            self.count(Counter::RefusedDraining);
            return Err(response::unavailable("the server is stopping"));
        }
        Ok(())
    }

    /// How long a handshake has to wait for its turn: first among those of its address, then among all of this core.
    pub(super) fn turn_of(&self, peer: &Peer) -> Result<Duration, Refusal> {
        let (config, now_ns) = (self.config(), crate::clock::now_ns());
        let wait_max = self.wait_max(&config);
        let own = match peer.place() {
            Some(place) => place.handshake(config.handshakes_per_address_per_s, now_ns, wait_max).map_err(|wait| {
                self.count(Counter::RefusedAddressRate);
                let message = "too many handshakes come from this address (handshakes_per_address_per_s)".to_owned();
                response::later(429, message, wait)
            })?,
            None => Duration::ZERO,
        };
        let mut pace = self.own.handshakes.get();
        let turn = pace.take(config.handshakes_per_s, now_ns, wait_max);
        self.own.handshakes.set(pace);
        let all = turn.map_err(|wait| {
            self.count(Counter::RefusedRate);
            response::later(503, "too many handshakes come at once (handshakes_per_s)".to_owned(), wait)
        })?;
        Ok(own.max(all))
    }

    /// How long a handshake may wait: half of the time that it has, as the head has had some of it. Nobody waits where
    /// those who do would fill the door: the rest of it is for requests that are answered at once, and tell how the server
    /// is.
    pub(super) fn wait_max(&self, config: &Config) -> Duration {
        let waiting_max = config.visitors_per_shard() as usize * 7 / 8;
        if self.own.lobby.served() > waiting_max {
            return Duration::ZERO;
        }
        Duration::from_millis(u64::from(config.upgrade_timeout_ms) / 2)
    }

    /// Upgrades a subscriber, and hands its socket over to the shard.
    pub(super) async fn slot_id(&self, peer: &mut Option<Peer>, request: &http::Request<()>) -> Result<(), Refusal> {
        let Some(waiting) = peer.as_ref() else { return Ok(()) };
        let deflate = self.state.config.shard.compression.is_some();
        let spoken = Spoken { protocols: &[packet::SUBPROTOCOL, json::SUBPROTOCOL], deflate };
        let accepted = self.upgrade(waiting, request, &spoken).await?;
        let format = match accepted.protocol.as_deref() {
            Some(json::SUBPROTOCOL) => Format::Json,
            _ => Format::Binary,
        };
        let encoding = Encoding { format, deflate: accepted.deflate.map(|agreed| agreed.window()) };
        self.hand_over(peer, |shard, slot_id, unread| {
            // The answer leaves with the shard's welcome, in one send.
            shard.open_as(slot_id, encoding, &accepted.response, unread, crate::clock::now_ns());
        })
    }

    /// Hands a socket over to the shard, where there is a seat for it. `open` tells the shard who it is, and gets what
    /// was read beyond the request.
    pub(super) fn hand_over(
        &self,
        peer: &mut Option<Peer>,
        open: impl FnOnce(&mut Shard<Uring>, SlotId, &[u8]),
    ) -> Result<(), Refusal> {
        let all_taken = || response::unavailable("all slots are taken (connections_max)");
        if self.shard.borrow().clients() >= self.state.config.seats_per_shard() as usize {
            self.count(Counter::RefusedFull);
            return Err(all_taken());
        }
        let Some(socket) = peer.as_mut() else { return Ok(()) };
        let mut shard = self.shard.borrow_mut();
        // The new holder of a seat must not be taken for the one that has left it.
        self.left(shard.take_departed());
        match shard.io_mut().adopt(socket.socket()) {
            Ok(Some(slot_id)) => {
                open(&mut shard, slot_id, socket.unread());
                put(&mut self.own.holders.borrow_mut(), slot_id.index, socket.who());
                if let Some(place) = socket.take_place() {
                    shard.report_departure(slot_id);
                    put(&mut self.own.places.borrow_mut(), slot_id.index, Some(place));
                }
                drop(shard);
                // The shard's task may be asleep on this very executor.
                self.waker.wake();
                *peer = None;
                Ok(())
            }
            Ok(None) => {
                drop(shard);
                self.count(Counter::RefusedFull);
                Err(all_taken())
            }
            Err(error) => {
                tracing::warn!("a socket could not be registered: {error}");
                Err(response::unavailable("the connection could not be taken over"))
            }
        }
    }
}

/// Sets what is known of a seat.
fn put<T>(slot_ids: &mut PagedVec<Option<T>>, slot: u32, value: Option<T>) {
    slot_ids.grow(slot as usize + 1);
    slot_ids[slot as usize] = value;
}

/// Who is asking; `None` for one that has gone.
fn address_of(peer: Option<&Peer>) -> Option<SocketAddr> {
    peer.and_then(|peer| Some(peer.who()?.socket))
}

/// Writes what the socket takes at once, and closes it. What has come is read first: unread, it would make the close a
/// reset, which could overtake the answer.
fn answer_and_drop(stream: &TcpStream, answer: &[u8]) {
    let Ok(socket) = duplicate(stream) else { return };
    let socket = std::net::TcpStream::from(socket);
    // Whatever fails here, the peer is on its way out.
    let _ = socket.set_nonblocking(true);
    let _ = (&socket).read(&mut [0; 1024]);
    let _ = (&socket).write(answer);
    let _ = socket.shutdown(std::net::Shutdown::Write);
}
