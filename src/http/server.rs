//! The state of HTTP on one shard, and what several handlers need of it: settings, counters, handshake permits, and the
//! hand-over of a socket to the shard.
//!
//! What always holds: the shard is borrowed between awaits only.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future;
use glommio::sync::Semaphore;
use socket2::SockRef;

use super::accept_signal::AcceptSignal;
use super::admission::addresses::AddressTable;
use super::admission::refused_origins::RefusedOrigins;
use super::admission::{Admission, Rejection};
use super::answers::{AnswerMemory, AnswersFull, HeldAnswer};
use super::assets::Assets;
use super::connection::Connection;
use super::credential::{self, Identified};
use super::handshake::{Supported, Upgrade, accept_upgrade};
use super::listing::ListingCache;
use super::questions::{AskingClient, Questions};
use super::refusal::{RETRY_AFTER, Refusal};
use super::sessions::{Caller, LocalSessions, SESSION_LIMIT};
use super::slots::SlotTable;
use super::timer;
use crate::allowance::{AddressKey, Allowance, Allowances};
use crate::clock::now_ns;
use crate::config::Config;
use crate::identity::Principal;
use crate::io::SlotId;
use crate::io::descriptor;
use crate::io::sealed::Sealed;
use crate::io::uring::Uring;
use crate::memory;
use crate::shard::{AuthRefusal, Shard, SlowClient};
use crate::state::{ServerState, SlowClientRow};
use crate::stats::Counter;
use crate::wake::ShardWaker;

/// When a request that found too many unread responses may be tried again.
const ANSWERS_RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a shard sends and receives through.
pub type ShardIo = Sealed<Uring>;

/// What the HTTP servers of all shards share.
pub struct HttpShared {
    pub state: Arc<ServerState>,
    pub(super) addresses: Arc<AddressTable>,
    pub(super) assets: Assets,
    pub(super) listings: ListingCache,
    /// What plain requests cost, of each address.
    pub(super) gets: Arc<Allowances>,
    pub(super) answers: Arc<AnswerMemory>,
    pub(super) refused_origins: RefusedOrigins,
}

impl HttpShared {
    pub fn new(state: Arc<ServerState>) -> Self {
        let gets = Arc::new(Allowances::new(state.config.get_rate()));
        Self {
            state,
            addresses: Arc::default(),
            assets: Assets::default(),
            listings: ListingCache::default(),
            gets,
            answers: Arc::default(),
            refused_origins: RefusedOrigins::default(),
        }
    }
}

/// The HTTP server of one shard.
pub struct HttpServer {
    index: usize,
    pub(super) shard: Rc<RefCell<Shard<ShardIo>>>,
    pub(super) shared: Arc<HttpShared>,
    waker: Arc<ShardWaker>,
    /// The settings in effect.
    config: RefCell<Arc<Config>>,
    pub(super) admission: Admission,
    /// Held while a listing of the instruments is built.
    pub(super) listing: Semaphore,
    /// Held for one step of a TLS handshake: between two of them the shard ticks, however many come at once.
    pub(super) handshaking: Semaphore,
    /// Held while a piece of a long response is made.
    pub(super) building: Semaphore,
    /// Requests for which a piece is being made, or that wait for that.
    builds: Rc<Cell<usize>>,
    /// Bytes of this shard's responses that are not read yet.
    answer_bytes: Rc<Cell<usize>>,
    slots: RefCell<SlotTable>,
    pub(super) sessions: LocalSessions,
    pub(super) accept_signal: AcceptSignal,
    questions: Questions,
    /// The generation of credentials that the clients of the shard are, or were, asked about.
    reviewed: Cell<u64>,
    /// The slot that is next, while they are.
    review: Cell<Option<usize>>,
    /// How often the settings had changed, and whether clients are asked about because of that.
    policies: Cell<u64>,
    renews: Cell<bool>,
    /// Tasks of the executor that serve a connection or accept some.
    tasks: Cell<usize>,
}

/// Held by a request while a piece of its response is being made, or waits for that.
pub(super) struct BuildGuard(Rc<Cell<usize>>);

impl Drop for BuildGuard {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Held by a task while it has something to do.
pub(super) struct TaskGuard(Rc<HttpServer>);

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.0.tasks.set(self.0.tasks.get() - 1);
    }
}

impl HttpServer {
    pub fn new(
        index: usize,
        shard: Rc<RefCell<Shard<ShardIo>>>,
        shared: Arc<HttpShared>,
        waker: Arc<ShardWaker>,
    ) -> Self {
        Self {
            index,
            shard,
            questions: Questions::new(waker.clone()),
            waker,
            config: RefCell::new(Arc::new(shared.state.config.clone())),
            admission: Admission::new(shared.addresses.clone()),
            listing: Semaphore::new(1),
            handshaking: Semaphore::new(1),
            building: Semaphore::new(1),
            builds: Rc::default(),
            answer_bytes: Rc::default(),
            slots: RefCell::default(),
            sessions: LocalSessions::default(),
            accept_signal: AcceptSignal::default(),
            reviewed: Cell::new(shared.state.access.generation()),
            policies: Cell::new(shared.state.access.policies()),
            renews: Cell::new(false),
            review: Cell::new(None),
            tasks: Cell::new(0),
            shared,
        }
    }

    /// Has the listener accept the connections that wait.
    pub fn notify_listener(&self) {
        self.accept_signal.raise();
    }

    /// True while no connection is accepted or served: the executor has nothing to do for HTTP until
    /// [`Self::notify_listener`] is called.
    pub fn is_quiet(&self) -> bool {
        self.tasks.get() == 0 && !self.accept_signal.is_raised()
    }

    pub(super) fn enter_task(self: &Rc<Self>) -> TaskGuard {
        self.tasks.set(self.tasks.get() + 1);
        TaskGuard(self.clone())
    }

    /// Applies settings to new connections.
    pub fn change_settings(&self, config: Arc<Config>) {
        self.shared.gets.set_rate(config.get_rate());
        *self.config.borrow_mut() = config;
    }

    /// Verifies tokens that clients have sent, a few at a time, passes on what the authorizer has answered, ends sessions
    /// that other shards want ended, and asks about the credentials of clients where some were revoked. True if there was
    /// anything to do.
    pub fn serve_credentials(&self) -> bool {
        /// Some 0.1 ms each.
        const TOKENS: usize = 4;
        /// Some 10 us each.
        const ANSWERS: usize = 32;
        let mut has_worked = false;
        for _ in 0..TOKENS {
            let Some(request) = self.shard.borrow_mut().take_auth_request() else { break };
            let slot_id = request.slot_id;
            let address = self.slots.borrow().address(slot_id.index).map(|address| address.client());
            let (token, is_fresh) = (request.token.reveal(), self.has_session(slot_id));
            match credential::of_message(self.state(), address, token, is_fresh, &self.questions) {
                Identified::Known(outcome) => self.conclude_auth(AskingClient { slot_id, address }, outcome),
                Identified::Asked(number) => self.questions.expect(number, AskingClient { slot_id, address }),
            }
            has_worked = true;
        }
        for _ in 0..ANSWERS {
            has_worked |= self.questions.has_answers();
            let Some((client, answer)) = self.questions.next() else { break };
            let outcome = self.state().access.conclude(answer);
            self.conclude_auth(client, credential::judge_message(self.state(), client.address, outcome));
        }
        has_worked |= self.end_ordered_sessions();
        let access = &self.state().access;
        let generation = access.generation();
        if self.reviewed.replace(generation) != generation {
            let policies = access.policies();
            // Until it comes to its end, also where it begins once more.
            self.renews.set(self.renews.get() || self.policies.replace(policies) != policies);
            self.review.set(Some(0));
        }
        has_worked | self.review_clients()
    }

    /// True if there are answers of the authorizer: the shard must not sleep.
    pub fn has_answers(&self) -> bool {
        self.questions.has_answers()
    }

    /// Goes on with a client whose token was verified.
    fn conclude_auth(&self, client: AskingClient, outcome: Result<Arc<Principal>, AuthRefusal>) {
        let AskingClient { slot_id, address } = client;
        let outcome = outcome.and_then(|principal| self.admit(slot_id, address, principal));
        let refused = outcome.as_ref().err().filter(|refusal| refusal.code == SESSION_LIMIT).cloned();
        let mut shard = self.shard.borrow_mut();
        shard.authenticated(slot_id, outcome, now_ns());
        if let Some(refusal) = refused {
            shard.end_session(slot_id, &refusal.message, now_ns());
        }
    }

    /// Asks about the credentials of some clients. True if there were any.
    fn review_clients(&self) -> bool {
        /// Some 0.1 ms: for each the revocations, or its rights by other settings.
        const SLOTS: usize = 1024;
        const RENEWED_SLOTS: usize = 32;
        let (access, renews) = (&self.state().access, self.renews.get());
        let verdict = |principal: &Principal| access.review(principal, renews);
        // Those whose requests were under way are asked about once these are done, whatever has changed meanwhile.
        let mut has_worked =
            self.shard.borrow_mut().review_postponed(now_ns(), |principal| access.review(principal, true));
        if let Some(from) = self.review.get() {
            let slots = if renews { RENEWED_SLOTS } else { SLOTS };
            let next = self.shard.borrow_mut().review(from, slots, now_ns(), verdict);
            self.review.set(next);
            if next.is_none() {
                self.renews.set(false);
                access.note_reviewed(now_ns());
            }
            has_worked = true;
        }
        has_worked
    }

    /// Refuses an address that has presented too many wrong tokens, before it is given a permit.
    pub(super) fn check_failures(&self, connection: &Connection) -> Result<(), Refusal> {
        let client = connection.address().map(|address| address.client());
        if self.state().access.is_on() { credential::check_failures(self.state(), client) } else { Ok(()) }
    }

    /// Who sends a request; `None` for one without a credential that needs one. Where the authorizer has to be asked, the
    /// connection waits for its answer, and may be evicted meanwhile.
    pub(super) async fn identify(
        &self,
        connection: &Connection,
        request: &http::Request<()>,
    ) -> Result<Option<Arc<Principal>>, Refusal> {
        let client = connection.address().map(|address| address.client());
        let config = self.config();
        let number = match credential::identify(self.state(), &config, client, request, &self.questions)? {
            Identified::Known(principal) => return Ok(principal),
            Identified::Asked(number) => number,
        };
        let late = async {
            timer::sleep(Duration::from_millis(config.upgrade_timeout_ms.into())).await;
            Err(Refusal::unavailable("token: not checked in time (upgrade_timeout_ms)", RETRY_AFTER))
        };
        let evicted = async {
            connection.pending().must_end().await;
            let message = "evicted for a newer connection before its token was checked (pending_connections_max)";
            Err(Refusal::unavailable(message, Duration::ZERO))
        };
        connection.pending().set_waiting();
        let answered = async { Ok(self.questions.answer(number).await) };
        let answer = future::or(answered, future::or(evicted, late)).await?;
        connection.pending().set_serving();
        credential::judge(self.state(), client, self.state().access.conclude(answer)).map(Some)
    }

    /// The same for a request that is answered at once: one without a credential that needs one is refused.
    pub(super) async fn identified(
        &self,
        connection: &Connection,
        request: &http::Request<()>,
    ) -> Result<Arc<Principal>, Refusal> {
        self.identify(connection, request).await?.ok_or_else(|| {
            Refusal::unauthorized("token: missing: expected Authorization: Bearer TOKEN, with a token or an API key")
        })
    }

    /// Refuses a client whose credential was revoked since it was verified. Called right before the connection becomes a
    /// client of the shard: later revocations find it there.
    pub(super) fn check_still(&self, principal: Option<&Principal>) -> Result<(), Refusal> {
        let objection = principal.and_then(|principal| self.state().access.objection(principal, now_ns()));
        objection.map_or(Ok(()), |objection| Err(Refusal::unauthorized(objection)))
    }

    /// Asks all echoes to end: the server drains.
    pub fn end_echoes(&self) {
        self.admission.pending().end_echoes();
    }

    /// Number of echoes.
    pub fn echoes(&self) -> usize {
        self.admission.pending().echoes()
    }

    /// Sets the counters of the shard that are levels of HTTP.
    pub fn set_levels(&self, shard: &mut Shard<ShardIo>) {
        let sealed = shard.io().counts();
        let counters = shard.counters_mut();
        counters.set(Counter::TlsClients, sealed.connections);
        counters.set(Counter::TlsSends, sealed.sends);
        counters.set(Counter::TlsBytes, sealed.bytes);
        counters.set(Counter::TlsFaults, sealed.faults);
        counters.set(Counter::PendingConnections, self.admission.pending().len() as u64);
        counters.set(Counter::AnswerBytes, self.answer_bytes.get() as u64);
    }

    /// Releases the address guards of these slots.
    pub fn release_slots(&self, slots: impl Iterator<Item = u32>) {
        self.slots.borrow_mut().release(slots);
    }

    /// Publishes the slowest clients, with their addresses, for `/v1/operator`.
    pub fn publish_slow_clients(&self, slowest: Vec<SlowClient>) {
        let slots = self.slots.borrow();
        let rows = slowest.into_iter().map(|client| SlowClientRow { address: slots.address(client.slot), client });
        self.state().slow_clients[self.index].publish(rows);
    }

    pub(super) fn index(&self) -> usize {
        self.index
    }

    pub(super) fn state(&self) -> &ServerState {
        &self.shared.state
    }

    /// The settings in effect.
    pub(super) fn config(&self) -> Arc<Config> {
        self.config.borrow().clone()
    }

    pub(super) fn count(&self, counter: Counter) {
        self.shard.borrow_mut().counters_mut().add(counter, 1);
        self.publish_counters();
    }

    /// Publishes the counters of the shard, which publishes none itself while it sleeps.
    pub(super) fn publish_counters(&self) {
        let mut shard = self.shard.borrow_mut();
        self.set_levels(&mut shard);
        self.state().shards[self.index].publish(shard.counters());
    }

    /// Counts a peer that did not take its response in time.
    pub(super) fn count_write(&self, written: &std::io::Result<()>) {
        if written.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut) {
            self.count(Counter::WriteTimeouts);
        }
    }

    /// Counts a rejection; returns its refusal.
    pub(super) fn reject(&self, rejection: Rejection) -> Refusal {
        self.count(rejection.counter());
        rejection.refusal()
    }

    /// Takes the cost of a plain request from the allowance of its address.
    pub(super) fn take_get_units(&self, connection: &mut Connection, units: u64) -> Result<(), Refusal> {
        let Some(allowance) = self.allowance(connection) else { return Ok(()) };
        allowance.take(units, now_ns()).map_err(|wait| {
            self.count(Counter::RefusedGets);
            let message = "too many requests from this address (get_units_per_address_per_s)";
            Refusal::too_many_requests(message, wait)
        })
    }

    /// Takes the cost of bytes that were made from the allowance of the connection's address.
    pub(super) fn charge_get_bytes(&self, connection: &mut Connection, bytes: usize) {
        /// Bytes of JSON that cost a unit: some 10 us.
        const BYTES_PER_UNIT: usize = 4096;
        if let Some(allowance) = self.allowance(connection) {
            allowance.charge((bytes / BYTES_PER_UNIT) as u64, now_ns());
        }
    }

    fn allowance<'a>(&self, connection: &'a mut Connection) -> Option<&'a Allowance> {
        let of = |client| self.shared.gets.of(client, now_ns());
        connection.allowance_or_insert(of)
    }

    /// An account for the unread bytes of a response; `None` for a peer that has closed.
    pub(super) fn open_answer(&self, connection: &Connection) -> Option<HeldAnswer> {
        let address = AddressKey::of(connection.address()?.client());
        Some(self.shared.answers.open(address, &self.answer_bytes))
    }

    /// Holds bytes of a response that is not read yet. Where there is no room in all, a response to the address with most
    /// of them is evicted, so that a later request has room.
    pub(super) fn hold_answer(&self, answer: Option<&mut HeldAnswer>, bytes: usize) -> Result<(), Refusal> {
        let config = self.config();
        let Some(answer) = answer else { return Ok(()) };
        answer.set(bytes, &config).map_err(|full| match full {
            AnswersFull::Connection => {
                self.count(Counter::RefusedAnswers);
                let max = config.answer_bytes_per_connection_max;
                Refusal::new(400, "limit", format!("{bytes} bytes: answer_bytes_per_connection_max is {max}"))
            }
            AnswersFull::Address => {
                self.count(Counter::RefusedAddressAnswers);
                let message = "too many responses to this address are unread (answer_bytes_per_address_max)";
                Refusal::too_many_requests(message, ANSWERS_RETRY_AFTER)
            }
            AnswersFull::All => {
                self.count(Counter::RefusedAnswers);
                if self.shared.answers.greatest().is_some_and(|address| self.admission.pending().evict_of(address)) {
                    self.count(Counter::PendingEvicted);
                }
                Refusal::unavailable("too many responses are unread (answer_bytes_max)", ANSWERS_RETRY_AFTER)
            }
        })
    }

    /// Lets a request make a piece of a long response, if fewer than `max` do.
    pub(super) fn enter_building(&self, max: usize) -> Result<BuildGuard, Refusal> {
        if self.builds.get() >= max {
            self.count(Counter::RefusedBuilds);
            return Err(Refusal::unavailable("too many snapshots are being made", ANSWERS_RETRY_AFTER));
        }
        self.builds.set(self.builds.get() + 1);
        Ok(BuildGuard(self.builds.clone()))
    }

    /// Checks an upgrade; a valid one waits for its handshake permit.
    pub(super) async fn upgrade(
        &self,
        connection: &Connection,
        request: &http::Request<()>,
        supported: &Supported<'_>,
    ) -> Result<Upgrade, Refusal> {
        let upgrade = accept_upgrade(request, supported)?;
        self.await_handshake_permit(connection).await?;
        Ok(upgrade)
    }

    /// Waits until a valid request may become a stream.
    pub(super) async fn await_handshake_permit(&self, connection: &Connection) -> Result<(), Refusal> {
        self.refuse_new()?;
        let taken = self.admission.take_handshake(connection.address_guard(), &self.config(), now_ns());
        let wait = taken.map_err(|rejection| self.reject(rejection))?;
        if !wait.is_zero() {
            self.count(Counter::HandshakesDelayed);
            glommio::timer::sleep(wait).await;
            self.refuse_new()?;
        }
        Ok(())
    }

    /// Refuses streams while the server drains, or has no memory for them.
    pub(super) fn refuse_new(&self) -> Result<(), Refusal> {
        if self.state().lifecycle.is_draining() {
            return Err(self.reject(Rejection::Draining));
        }
        if memory::pressure() {
            return Err(self.reject(Rejection::Memory));
        }
        Ok(())
    }

    /// Hands the socket to the shard, if a slot is free. `open` gets the shard, the slot and the unread bytes. The caller
    /// drops the connection.
    pub(super) fn hand_over(
        &self,
        connection: &mut Connection,
        caller: &Caller,
        open: impl FnOnce(&mut Shard<ShardIo>, SlotId, &[u8]),
    ) -> Result<(), Refusal> {
        if self.shard.borrow().clients() >= self.state().config.slots_per_shard() as usize {
            return Err(self.refuse_full());
        }
        let client = connection.address().map(|address| address.client());
        let place = self.enter_session(caller, client)?;
        let mut shard = self.shard.borrow_mut();
        // Before the slot gets a new client: its guard must not be released as that of the previous one.
        self.release_slots(shard.take_departed());
        self.settle_sessions(&mut shard);
        let socket = descriptor::borrow(connection.socket());
        // What a subscriber sends is short. A failure leaves the kernel's own limit.
        let _ = SockRef::from(&socket).set_recv_buffer_size(self.state().config.receive_buffer_bytes);
        match shard.io_mut().io_mut().adopt(&socket) {
            Ok(Some(slot_id)) => {
                if let Some(session) = connection.take_session() {
                    shard.io_mut().secure(slot_id, session);
                }
                open(&mut shard, slot_id, connection.unread());
                if let Some(place) = place {
                    self.begin_session(&mut shard, slot_id, place, caller, client);
                }
                let mut slots = self.slots.borrow_mut();
                slots.set_address(slot_id.index, connection.address());
                if let Some(guard) = connection.take_address_guard() {
                    shard.report_departure(slot_id);
                    shard.set_account(slot_id, guard.account_key());
                    slots.set_guard(slot_id.index, guard);
                }
                drop(shard);
                // The shard's task may be asleep on this very executor.
                self.waker.wake();
                Ok(())
            }
            Ok(None) => {
                drop(shard);
                Err(self.refuse_full())
            }
            Err(error) => {
                tracing::warn!("shard {}: a socket could not be registered: {error}", self.index);
                Err(Refusal::unavailable("the connection could not be registered", RETRY_AFTER))
            }
        }
    }

    fn refuse_full(&self) -> Refusal {
        self.count(Counter::RefusedFull);
        Refusal::unavailable("all slots are taken (connections_max)", RETRY_AFTER)
    }
}
