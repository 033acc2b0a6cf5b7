//! The door: ordinary async code on glommio, one task a connection until it is upgraded.
//!
//! accept → HTTP head → a page, an answer, or an upgrade. A subscriber becomes a seat of the shard: its socket moves into
//! the registered-file table, its descriptor closes, its task ends. A publisher gets a thread; an echo keeps its task.
//!
//! What always holds: the shard is borrowed between awaits only; whatever a peer sends is answered or closed, with a
//! reason, and never waited for longer than a limit says.

mod answer;
mod conversation;
mod echo;
mod http;
pub mod listen;
mod metrics;
mod pages;
pub mod publish;
mod publisher;
mod stream;

use std::cell::RefCell;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use glommio::net::TcpStream;
use glommio::task::JoinHandle;

use self::stream::Peer;
use crate::config::Config;
use crate::io::uring::{Uring, adopt_fd};
use crate::runtime::{Desk, Parking};
use crate::shard::{Encoding, Shard};
use crate::stats::{Counter, Published, SequencerStats};
use crate::wire::packet;
use crate::ws::handshake::{Refusal, Spoken};

/// What all doors share.
pub struct Public {
    pub config: Config,
    pub desk: Desk,
    pub shards: Vec<Published>,
    pub sequencer: Arc<SequencerStats>,
    pub stopping: Arc<AtomicBool>,
    pub publishers: publish::Publishers,
}

/// The door of one shard.
#[derive(Clone)]
pub struct Door {
    index: usize,
    shard: Rc<RefCell<Shard<Uring>>>,
    public: Arc<Public>,
    parking: Arc<Parking>,
}

impl Door {
    /// A door to this shard.
    pub fn new(index: usize, shard: Rc<RefCell<Shard<Uring>>>, public: Arc<Public>, parking: Arc<Parking>) -> Self {
        Self { index, shard, public, parking }
    }

    /// Accepts connections until cancelled.
    pub fn open(self, socket: TcpListener) -> JoinHandle<()> {
        glommio::spawn_local(async move {
            let listener = adopt_fd::<glommio::net::TcpListener>(socket.into());
            loop {
                match listener.accept().await {
                    Ok(stream) => {
                        let door = self.clone();
                        glommio::spawn_local(async move { door.receive(stream).await }).detach();
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
            }
        })
        .detach()
    }

    /// One connection, from its first byte to its last, or until it is a seat.
    async fn receive(self, stream: TcpStream) {
        let timeout = Duration::from_millis(self.public.config.upgrade_timeout_ms.into());
        let mut peer = Peer::new(stream);
        let head = match peer.read_head(self.public.config.head_bytes_max, timeout).await {
            Ok(Some(head)) => head,
            // Nothing was asked.
            Ok(None) => return,
            Err(refusal) => return peer.refuse(&refusal, false).await,
        };
        if let Err(refusal) = self.route(&mut Some(peer), &head).await {
            let (mut peer, refusal) = refusal;
            peer.refuse(&refusal, head.method() == ::http::Method::HEAD).await;
        }
    }

    async fn route(&self, peer: &mut Option<Peer>, request: &::http::Request<()>) -> Result<(), (Peer, Refusal)> {
        let path = request.uri().path();
        let outcome = match path {
            "/v1/stream" => self.seat(peer, request),
            "/v1/publish" => publish::serve(self, peer, request).await,
            "/v1/echo" if self.public.config.enable_echo => echo::serve(self, peer, request).await,
            _ => match answer::answer(self, request) {
                Ok(response) => {
                    if let Some(mut peer) = peer.take() {
                        peer.respond(&response).await;
                    }
                    Ok(())
                }
                Err(refusal) => Err(refusal),
            },
        };
        match (outcome, peer.take()) {
            (Err(refusal), Some(peer)) => Err((peer, refusal)),
            _ => Ok(()),
        }
    }

    /// Upgrades a subscriber, and hands its socket over to the shard.
    fn seat(&self, peer: &mut Option<Peer>, request: &::http::Request<()>) -> Result<(), Refusal> {
        let deflate = self.public.config.shard.compression.is_some();
        let accepted = crate::ws::handshake::upgrade(request, &Spoken { protocols: &[packet::SUBPROTOCOL], deflate })?;
        let encoding = Encoding { deflate: accepted.deflate.map(|agreed| agreed.window()) };
        // Relaxed: the flag stands for itself.
        if self.public.stopping.load(Ordering::Relaxed) {
            return Err(http::unavailable("the server is stopping"));
        }
        if self.shard.borrow().clients() >= self.public.config.seats_per_shard() as usize {
            self.shard.borrow_mut().counters_mut().add(Counter::RefusedFull, 1);
            return Err(http::unavailable("all seats are taken"));
        }
        let Some(socket) = peer.as_ref() else { return Ok(()) };
        let mut shard = self.shard.borrow_mut();
        match shard.io_mut().adopt(socket.socket()) {
            Ok(Some(seat)) => {
                // The answer leaves with the shard's welcome, in one send.
                shard.open_as(seat, encoding, &accepted.response, socket.unread(), crate::runtime::now_ns());
                drop(shard);
                // The shard's task may be asleep on this very executor.
                self.parking.wake();
                *peer = None;
                Ok(())
            }
            Ok(None) => {
                shard.counters_mut().add(Counter::RefusedFull, 1);
                Err(http::unavailable("all seats are taken"))
            }
            Err(error) => {
                tracing::warn!("a socket could not be registered: {error}");
                Err(http::unavailable("the connection could not be taken over"))
            }
        }
    }
}
