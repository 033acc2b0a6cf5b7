//! A shard: one core and its clients. It is synchronous and the only owner of its state: no async, no lock, no clock.
//!
//! The event loop calls [`Shard::tick`], which does a bounded amount of work in fixed phases:
//!
//! 1. [`read_ring`]: last values, and for every record the audiences that want it; conflated values that are due
//! 2. [`flush`]: the packets of each audience once, and one send for each member
//! 3. [`completions`]: what the kernel has completed; requests of clients, in portions ([`operations`])
//! 4. [`timers`]: ten times a second, counters, deadlines, pings, heartbeats
//! 5. [`drain`]: when the server stops, closes the clients
//! 6. [`catch_up`]: clients for which something is pending: answers, snapshots, replays, records that they were too
//!    slow for
//!
//! The state is composed of parts that borrow separately, so that the signature of a phase says what it may touch:
//!
//! | part | holds | changed by |
//! |---|---|---|
//! | [`MarketView`] | instruments, last values, how far the ring has been read | 1; a cache of log sequences: 6 |
//! | [`FanOut`] | subscription index, audiences, conflation, encoder, records of the tick | 1, 2, clients |
//! | [`ConnectionTable`] | clients by slot | clients |
//! | [`Backlog`] | what is pending for clients that are behind; what of the ring can be replayed | 6, clients |
//! | [`Outbox`] | bytes and sends on their way to the kernel | 2, 4, 6 |
//! | [`Operations`] | requests that are carried out in portions | 3 |
//! | [`Accounts`] | work and held input of clients and addresses | clients |
//! | [`Credentials`] | tokens that are being verified | clients |
//!
//! In the table, *clients* are operations on one client (open, answer, take off the live path, join, close):
//! the methods of [`ClientContext`].
//!
//! What always holds:
//! * An open client is either a member of its audience and has had all that was dispatched up to now, or it has a
//!   backlog. It moves from the backlog to the audience at the end of a tick only, so a snapshot and the live stream
//!   join without a gap.
//! * A send takes all its bytes, or the rest is kept and goes first. So the tick tells what a client was sent.
//! * The bytes of a packet are made once for all members of an audience.
//!
//! Cost: some 20 ns a record, 10 ns a record and audience, a memcpy for the packet, 10 ns a member; the kernel's send
//! is a hundred times that.

mod accounts;
mod audiences;
mod authorize;
mod backlog;
mod boundary;
mod catch_up;
mod client_context;
mod close;
mod completions;
mod conflation;
mod connections;
mod counting;
mod credentials;
mod depth_views;
mod drain;
mod encoder;
mod encoding;
mod fan_out;
mod flush;
mod held_input;
mod history;
mod lagging;
mod log_trail;
mod market_view;
mod operations;
mod outbox;
mod packets;
pub(crate) mod paged_vec;
mod projection;
mod read_ring;
mod requests;
mod reselect;
mod resolve;
mod select;
mod sent_history;
mod served_time;
mod session_news;
mod settings;
mod slow_clients;
mod state_walk;
pub mod subscription_index;
mod tick_records;
mod timers;
mod user_sessions;

use std::sync::Arc;

use self::accounts::Accounts;
use self::backlog::Backlog;
use self::client_context::ClientContext;
pub use self::client_context::Opening;
use self::completions::Inbox;
use self::connections::ConnectionTable;
use self::credentials::Credentials;
pub use self::credentials::{AuthRefusal, AuthRequest};
use self::drain::Drain;
pub use self::encoding::{Encoding, Format};
use self::fan_out::FanOut;
use self::history::History;
use self::market_view::MarketView;
use self::operations::Operations;
use self::outbox::Outbox;
use self::served_time::ServedTime;
pub use self::session_news::SessionNews;
pub use self::settings::Settings;
pub use self::slow_clients::SlowClient;
use self::slow_clients::SlowClients;
use self::tick_records::Now;
use self::timers::Timers;
use crate::identity::{Principal, UserShare, Verdict};
use crate::io::{Io, SlotId};
use crate::last_value::LastValues;
use crate::ring::{self, RingOffset};
use crate::stats::{Counter, ShardCounters};
use tickcast_protocol::Directory;
use tickcast_protocol::control::Request;

/// One core and its clients.
pub struct Shard<I: Io> {
    settings: Settings,
    now: Now,
    served: ServedTime,
    /// The time of stamps minus the clock of deadlines.
    wall_offset_ns: i64,
    ring: ring::Reader,
    market: MarketView,
    fan_out: FanOut,
    connections: ConnectionTable,
    backlog: Backlog,
    inbox: Inbox,
    outbox: Outbox<I>,
    operations: Operations,
    accounts: Accounts,
    credentials: Credentials,
    /// The identity of clients of a server that identifies none.
    open: Arc<Principal>,
    timers: Timers,
    drain: Option<Drain>,
    slow_clients: SlowClients,
    counters: ShardCounters,
}

/// Borrows the parts of a shard that an operation on a client may touch. A method would borrow the other parts as well.
macro_rules! client_context {
    ($shard:expr) => {
        client_context!($shard, $shard.now)
    };
    ($shard:expr, $now:expr) => {
        ClientContext {
            now: $now,
            settings: &$shard.settings,
            ring: &$shard.ring,
            market: &mut $shard.market,
            fan_out: &mut $shard.fan_out,
            connections: &mut $shard.connections,
            backlog: &mut $shard.backlog,
            outbox: &mut $shard.outbox,
            operations: &mut $shard.operations,
            accounts: &mut $shard.accounts,
            credentials: &mut $shard.credentials,
            counters: &mut $shard.counters,
        }
    };
}

impl<I: Io> Shard<I> {
    /// A shard without clients that reads this ring from its start.
    pub fn new(settings: Settings, io: I, ring: ring::Reader) -> Self {
        Self {
            now: Now::default(),
            served: ServedTime::default(),
            wall_offset_ns: 0,
            market: MarketView::new(ring.offset()),
            fan_out: FanOut::new(&settings),
            connections: ConnectionTable::default(),
            backlog: Backlog::new(History::new(&ring, settings.history_ms)),
            inbox: Inbox::new(settings.inflate_ratio_max),
            outbox: Outbox::new(io),
            operations: Operations::default(),
            accounts: Accounts::default(),
            credentials: Credentials::default(),
            open: Arc::new(Principal::open()),
            timers: Timers::default(),
            drain: None,
            slow_clients: SlowClients::default(),
            counters: ShardCounters::default(),
            settings,
            ring,
        }
    }

    /// Sets the difference between the time of stamps and that of deadlines, which is what all other calls are given. It
    /// changes when the wall clock is set.
    pub fn set_wall_offset(&mut self, offset_ns: i64) {
        self.wall_offset_ns = offset_ns;
        self.now.wall_offset_ns = offset_ns.saturating_add_unsigned(self.served.lost_ns());
    }

    /// The present time in the time served.
    fn look(&mut self, now_ns: u64) -> Now {
        let ns = self.served.look(now_ns);
        Now { ns, wall_offset_ns: self.wall_offset_ns.saturating_add_unsigned(self.served.lost_ns()), ..self.now }
    }

    /// Runs all phases once. Returns whether there was anything to do. If not, the shard may sleep until
    /// [`Self::deadline_ns`], a completion, or new records in the ring.
    pub fn tick(&mut self, now_ns: u64) -> bool {
        self.now = Now { tick: self.now.tick + 1, ..self.look(now_ns) };
        self.fan_out.begin_tick();
        let has_read = self.read_ring();
        let has_flushed = self.flush();
        let pauses = self.operations.begin_tick(self.now.ns);
        self.counters.add(Counter::RequestPauses, pauses.into());
        let has_completed = completions::handle_completions(&mut self.inbox, &mut client_context!(self));
        let has_operated = client_context!(self).advance_operations();
        let has_timed = self.timers.run(&mut client_context!(self), &mut self.slow_clients);
        let has_drained = self.drain.as_mut().is_some_and(|drain| drain.run(&mut client_context!(self)));
        let has_caught_up = catch_up::catch_up(&mut client_context!(self));
        let has_worked =
            has_read || has_flushed || has_completed || has_operated || has_timed || has_drained || has_caught_up;
        self.counters.add(Counter::Ticks, has_worked.into());
        has_worked
    }

    fn read_ring(&mut self) -> bool {
        read_ring::read_ring(
            self.now,
            self.settings.tick_bytes_max,
            &mut self.ring,
            &mut self.market,
            &mut self.fan_out,
            &mut self.backlog.history,
            &mut self.counters,
        )
    }

    fn flush(&mut self) -> bool {
        let Self { now, settings, market, fan_out, outbox, counters, .. } = self;
        let has_flushed = flush::flush(*now, settings, market, fan_out, outbox, counters);
        let mut clients = client_context!(self);
        clients.handle_stopped();
        clients.limit_histories();
        has_flushed
    }

    /// Takes over a connection. `upgrade` is the response to its handshake, which has not been sent yet; `input` is
    /// what the client has sent after its handshake.
    pub fn open(&mut self, slot_id: SlotId, upgrade: &[u8], input: &[u8], now_ns: u64) {
        self.open_as(slot_id, Encoding::PLAIN, upgrade, input, now_ns);
    }

    /// The same for a client with another encoding.
    pub fn open_as(&mut self, slot_id: SlotId, encoding: Encoding, upgrade: &[u8], input: &[u8], now_ns: u64) {
        let principal = Some(self.open.clone());
        self.open_with(slot_id, Opening { encoding, principal, upgrade, input }, now_ns);
    }

    /// The same for a client with an identity of its own, or none yet.
    pub fn open_with(&mut self, slot_id: SlotId, opening: Opening<'_>, now_ns: u64) {
        let now = self.look(now_ns);
        client_context!(self, now).open(slot_id, opening);
    }

    /// Takes over the connection of an SSE client, which sends this request and no other. `head` is the head of its
    /// response, which has not been sent yet.
    pub fn open_events(&mut self, slot_id: SlotId, head: &[u8], request: Request, now_ns: u64) {
        self.open_events_with(slot_id, self.open.clone(), head, request, now_ns);
    }

    /// The same for a client with an identity of its own.
    pub fn open_events_with(
        &mut self,
        slot_id: SlotId,
        principal: Arc<Principal>,
        head: &[u8],
        request: Request,
        now_ns: u64,
    ) {
        let opening = Opening { encoding: Encoding::EVENTS, principal: Some(principal), upgrade: head, input: &[] };
        self.open_with(slot_id, opening, now_ns);
        self.inbox.sse_requests.push_back((slot_id, request));
    }

    /// The next token that a client has sent and that is to be verified. Each is answered by [`Self::authenticated`].
    pub fn take_auth_request(&mut self) -> Option<AuthRequest> {
        self.credentials.take()
    }

    /// Goes on with a client whose token was verified. A client that is gone is ignored.
    pub fn authenticated(&mut self, slot_id: SlotId, outcome: Result<Arc<Principal>, AuthRefusal>, now_ns: u64) {
        let now = self.look(now_ns);
        client_context!(self, now).authenticated(slot_id, outcome);
    }

    /// Asks about the credential of each client in so many slots, from `from` on, and does what the verdict says. Returns
    /// the slot to go on with; `None` after the last.
    pub fn review(
        &mut self,
        from: usize,
        slots: usize,
        now_ns: u64,
        verdict: impl FnMut(&Principal) -> Verdict,
    ) -> Option<usize> {
        let now = self.look(now_ns);
        let end = self.connections.slots().min(from + slots);
        client_context!(self, now).review(from..end, verdict);
        (end < self.connections.slots()).then_some(end)
    }

    /// Makes a client a session of a user, with this share of what the user may have. Its news are reported.
    pub fn begin_session(&mut self, slot_id: SlotId, share: UserShare) {
        client_context!(self).begin_session(slot_id, share);
    }

    /// Ends a session in favour of another one of its user.
    pub fn end_session(&mut self, slot_id: SlotId, reason: &str, now_ns: u64) {
        let now = self.look(now_ns);
        client_context!(self, now).end_session(slot_id, reason);
    }

    /// News of sessions, the oldest first. Each is returned once.
    pub fn take_session_news(&mut self) -> Vec<(SlotId, SessionNews)> {
        std::mem::take(&mut self.connections.news)
    }

    /// True for a client that is connected and not being closed.
    pub fn is_open(&self, slot_id: SlotId) -> bool {
        self.connections.get(slot_id).is_some_and(|client| client.is_open())
    }

    /// Asks again about some clients whose rights could not be changed because a request of theirs was under way. True if
    /// any of these is done.
    pub fn review_postponed(&mut self, now_ns: u64, verdict: impl FnMut(&Principal) -> Verdict) -> bool {
        let now = self.look(now_ns);
        client_context!(self, now).review_postponed(verdict)
    }

    /// Counts this client for the account of its address. Clients with the same key share an allowance of work and a part
    /// of the held input.
    pub fn set_account(&mut self, slot_id: SlotId, key: u64) {
        if let Some(client) = self.connections.get_mut(slot_id) {
            client.account = Some(self.accounts.enter(key));
        }
    }

    /// Has the departure of this client reported by [`Self::take_departed`].
    pub fn report_departure(&mut self, slot_id: SlotId) {
        if let Some(client) = self.connections.get_mut(slot_id) {
            client.reports_departure = true;
        }
    }

    /// Slots of clients that are gone, of those whose departure is to be reported. Each is returned once.
    pub fn take_departed(&mut self) -> impl Iterator<Item = u32> {
        self.connections.take_departed()
    }

    /// The clients that are furthest behind, the longest first, at most twenty; `None` if the list has not changed. Their
    /// times are those of the clock.
    pub fn take_slowest(&mut self) -> Option<Vec<SlowClient>> {
        let lost_ns = self.served.lost_ns();
        let mut slowest = self.slow_clients.take()?;
        for client in &mut slowest {
            client.since_ns += lost_ns;
            client.progress_ns += lost_ns;
        }
        Some(slowest)
    }

    /// Changes the settings, all but the epoch.
    pub fn change_settings(&mut self, settings: Settings) {
        self.settings = Settings { epoch: self.settings.epoch, delay_s: self.settings.delay_s, ..settings };
    }

    /// Begins to close all clients, spread over this time. No client may be opened afterwards.
    pub fn begin_drain(&mut self, over_ms: u32, now_ns: u64) {
        let now = self.look(now_ns);
        self.drain.get_or_insert_with(|| Drain::new(over_ms, now.ns));
    }

    /// When the next tick is due even if no completion and no record comes; `None` if none is.
    pub fn deadline_ns(&self) -> Option<u64> {
        let has_clients = self.connections.len() > 0;
        // Once more after the last client is gone, so that the gauges do not show it for ever.
        let has_old_gauges = self.counters.get(Counter::Clients) != self.connections.len() as u64;
        let timers = (has_clients || has_old_gauges).then(|| self.timers.next_ns());
        let drain = self.drain.as_ref().filter(|_| has_clients).map(Drain::next_ns);
        let throttled = self.connections.throttled_until_ns();
        let requests = self.operations.due_ns().filter(|_| has_clients);
        let deadlines = [timers, throttled, requests, self.fan_out.conflator.next_boundary_ns(), drain];
        Some(deadlines.into_iter().flatten().min()?.saturating_add(self.served.lost_ns()))
    }

    /// True if the ring has records that were not read. Has to be checked once more before sleeping.
    pub fn has_new_records(&self) -> bool {
        !self.ring.is_empty()
    }

    /// True after an overrun, until [`Self::resync_requested`]: the sequencer has to send the whole state again.
    pub fn wants_resync(&self) -> bool {
        self.market.resync.is_wanted
    }

    /// Notes that the sequencer was asked to send the whole state again.
    pub fn resync_requested(&mut self) {
        self.market.resync.note_requested();
    }

    /// Bytes that are kept for one client alone: the rest of a piece that its socket did not take, and its answers.
    pub fn kept_bytes(&self, slot_id: SlotId) -> usize {
        self.backlog.get(slot_id).map_or(0, backlog::ClientBacklog::pending_bytes)
    }

    /// Memory of the packets that are kept for lagging members.
    pub fn sent_history_bytes(&self) -> usize {
        self.fan_out.histories.bytes()
    }

    /// Whether the process is short of memory. While it is, requests for more subscriptions are refused, and clients that
    /// hold much input are closed.
    pub fn set_memory_short(&mut self, is_short: bool) {
        self.accounts.is_short = is_short;
        if is_short {
            client_context!(self).shed_all_input();
        }
    }

    /// What the shard keeps of what its clients have sent: incomplete messages, requests that wait.
    pub fn input_bytes(&self) -> usize {
        self.accounts.input_bytes()
    }

    /// How many clients are connected.
    pub fn clients(&self) -> usize {
        self.connections.len()
    }

    /// The instruments known to this shard.
    pub fn directory(&self) -> &Directory {
        &self.market.directory
    }

    /// The newest values, each with the end of its record in the ring.
    pub fn values(&self) -> &LastValues<RingOffset> {
        &self.market.values
    }

    pub fn counters(&self) -> &ShardCounters {
        &self.counters
    }

    /// For counts that are made outside of the shard.
    pub fn counters_mut(&mut self) -> &mut ShardCounters {
        &mut self.counters
    }

    pub fn io(&self) -> &I {
        &self.outbox.io
    }

    pub fn io_mut(&mut self) -> &mut I {
        &mut self.outbox.io
    }
}
