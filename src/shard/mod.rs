//! A shard: one core and its clients. Synchronous, the only owner of its state; no async, no lock, no clock.
//!
//! Its life is [`Shard::tick`], which does bounded work in fixed phases:
//!
//! 1. **drain** the ring: last values, and for every record the audiences that want it
//! 2. **sweep**: one packet for each audience for which something has gathered, one send per member
//! 3. **reap** completions into a list, then handle it: requests, room in a socket, ends
//! 4. **housekeeping** now and then: heartbeats, pings, deadlines, counters
//!    and, as the server is to stop, who is to be told of it
//! 5. **catch up** those who are owed something: answers, pings, snapshots, what they were too slow for
//!
//! What always holds:
//! * A client is either a member of its audience, and has had all that was dispatched up to now, or it has a
//!   [`connections::CatchUp`] that says what it is owed. It moves between the two at the end of a turn only, so a snapshot and
//!   the live stream join without a seam.
//! * A send takes all its bytes, or its rest is kept and goes first. So what a client was sent is known by the turn.
//! * The bytes of a packet are made once for all members.
//!
//! Cost: some 20 ns a record, 10 ns a record and audience, a memcpy for the packet, 10 ns a member; the kernel's send is
//! a hundred times that.

mod audiences;
mod catch_up;
mod conflation;
mod connections;
mod drain;
mod encoding;
mod flush;
mod history;
mod packets;
pub(crate) mod paged_vec;
mod read_ring;
mod replay;
mod requests;
mod slow_clients;
pub mod subscription_index;
mod timers;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;

use self::audiences::Audiences;
use self::conflation::Conflator;
use self::connections::{ABSENT, CatchUp, Client, Ending, LogMark, StateMark, StatePass, TokenBucket};
use self::drain::Drain;
use self::encoding::Encoder;
pub use self::encoding::{Encoding, Format};
use self::history::History;
use self::paged_vec::PagedVec;
pub use self::slow_clients::SlowClient;
use self::slow_clients::Slowest;
use self::subscription_index::SubscriptionIndex;
use crate::io::{Completion, Completions, Io, ShortSend, SlotId};
use crate::last_value::LastValues;
use crate::ring;
use crate::stats::{Counter, ShardCounters};
use tickcast_protocol::control::Request;
use tickcast_protocol::ws::deflate::Inflater;
use tickcast_protocol::ws::session::{Role, Session};
use tickcast_protocol::{Directory, Sequence};

/// What a shard is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Names this run: changes whenever sequences and positions start anew.
    pub epoch: u32,
    /// Silence after which an audience gets a heartbeat, ms.
    pub heartbeat_ms: u32,
    /// Silence of a client after which it is pinged, ms.
    pub ping_interval_ms: u32,
    /// Time a client has to answer a ping, ms.
    pub ping_timeout_ms: u32,
    /// Silence of a client after which it is closed, ms.
    pub idle_timeout_ms: u32,
    /// Time a client has to send its first subscription, ms; 0 for no limit.
    pub subscribe_timeout_ms: u32,
    /// Time a client may take nothing at all before it is closed with 4002, ms.
    pub slow_timeout_ms: u32,
    /// Time a client may be behind without a break before it is closed with 4002, ms.
    pub backlog_ms_max: u32,
    /// Bytes of the ring that a client may be behind: what is older of its log channels is told as a Gap.
    pub backlog_bytes_max: u64,
    /// Age of a token that is resumed by replay, ms.
    pub history_ms: u32,
    /// Time a peer has to answer a close frame, ms.
    pub close_timeout_ms: u32,
    /// Requests a second that a client may send.
    pub requests_per_s: u32,
    /// Subscriptions (a symbol or pattern and a channel) that a client may have.
    pub subscriptions_max: usize,
    /// Longest name or pattern, bytes.
    pub symbol_bytes_max: usize,
    /// Longest request, bytes.
    pub request_bytes_max: usize,
    /// Level at which packets are compressed for those who have agreed on it, 1 to 9; `None`: nobody can.
    pub compression: Option<u8>,
    /// How many times its bytes a client's compressed message may inflate to.
    pub inflate_ratio_max: u32,
    /// Answers that a client may be owed before it is closed, bytes.
    pub answers_bytes_max: usize,
    /// Bytes of the ring that one turn takes at the most.
    pub tick_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            epoch: 1,
            heartbeat_ms: 5000,
            ping_interval_ms: 20_000,
            ping_timeout_ms: 20_000,
            idle_timeout_ms: 60_000,
            subscribe_timeout_ms: 30_000,
            slow_timeout_ms: 30_000,
            backlog_ms_max: 120_000,
            // As large as the largest ring: all that the ring has.
            backlog_bytes_max: 2 << 30,
            history_ms: 300_000,
            close_timeout_ms: 1000,
            requests_per_s: 50,
            subscriptions_max: 10_000,
            symbol_bytes_max: 64,
            request_bytes_max: 1024 * 1024,
            compression: None,
            inflate_ratio_max: 100,
            answers_bytes_max: 64 * 1024,
            tick_bytes_max: 256 * 1024,
        }
    }
}

/// A record of this turn: read from the ring, or made here (merged values, gaps).
#[derive(Clone, Copy, Debug)]
struct TickRecord {
    start: u32,
    len: u32,
    /// Place in the node's order, for the packet that it goes into.
    position: u64,
    /// Place in the ring of the newest record that it stands for. Unlike positions, places are never the same for two:
    /// what the sequencer sends again has the position of the moment, however many records that are.
    place: u64,
}

/// Where a record stands.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// In the node's order.
    position: u64,
    /// Its end in the ring.
    ring: u64,
}

/// The records of one turn, and the bytes they are in.
#[derive(Debug, Default)]
struct Tick {
    /// Counts turns from 1.
    number: u64,
    now_ns: u64,
    /// Place of the newest record before this turn.
    from_position: u64,
    /// Place of the newest record drained.
    position: u64,
    /// Where the ring goes on.
    ring_position: u64,
    batch: ring::Batch,
    records: Vec<TickRecord>,
}

impl Tick {
    fn record(&self, index: u32) -> (u64, &[u8]) {
        let record = self.records[index as usize];
        (record.position, &self.batch.bytes[record.start as usize..][..record.len as usize])
    }

    /// Notes the bytes from `start` as a record; returns its number.
    fn add(&mut self, start: usize, at: Place) -> u32 {
        let len = (self.batch.bytes.len() - start) as u32;
        self.records.push(TickRecord { start: start as u32, len, position: at.position, place: at.ring });
        self.records.len() as u32 - 1
    }
}

/// What the shard works with from turn to turn, kept for its memory.
#[derive(Debug, Default)]
struct Scratch {
    arena: Vec<u8>,
    sends: Vec<crate::io::SendOp>,
    short: Vec<ShortSend>,
    completions: Completions,
    records: Vec<u8>,
    history: ring::Batch,
    /// History that was looked through in this turn.
    scanned_bytes: u64,
    /// Members of the audience being served that have had some of what gathered: up to which place, and who.
    own: Vec<(u64, SlotId)>,
}

/// Until when a client that joined amid an interval must not be sent merged values that it has had.
#[derive(Clone, Copy, Debug)]
struct Fresh {
    /// Everything up to this place of the ring it has had.
    place: u64,
    until_ns: u64,
}

/// One core and its clients.
pub struct Shard<I: Io> {
    settings: Settings,
    io: I,
    ring: ring::Reader,
    tick: Tick,
    directory: Directory,
    values: LastValues,
    interest: SubscriptionIndex,
    audiences: Audiences,
    conflator: Conflator,
    encoder: Encoder,
    inflater: Inflater,
    clients: PagedVec<Option<Client>>,
    clients_len: usize,
    /// Clients by what they are sent.
    formats: [usize; Format::COUNT],
    /// Clients that have a [`CatchUp`].
    catching_up: usize,
    fresh: HashMap<u32, Fresh, RandomState>,
    /// Clients to be served in the catch-up phase.
    waiting: VecDeque<u32>,
    /// What readers of events have asked that came since the last turn.
    arrived: Vec<(SlotId, Request)>,
    /// Input of clients that had to wait, to be taken up in the next turn.
    held: Vec<(SlotId, Vec<u8>)>,
    /// Sequences of the log channels, with the count of changes at which they were taken: made when somebody needs them.
    log_sequences: (u64, Arc<[[Sequence; 2]]>),
    /// Log history before this place of the ring has holes that a Gap has to tell.
    log_floor: u64,
    history: History,
    leaving: Option<Drain>,
    /// Slots of clients that have gone and were to be reported.
    left: Vec<u32>,
    slowest: Slowest,
    resync_wanted: bool,
    housekeeping_ns: u64,
    housekeeping_round: usize,
    counters: ShardCounters,
    scratch: Scratch,
}

impl<I: Io> Shard<I> {
    /// A shard without clients, that reads this ring from its start.
    pub fn new(settings: Settings, io: I, ring: ring::Reader) -> Self {
        Self {
            encoder: Encoder::new(settings.compression.unwrap_or(1)),
            inflater: Inflater::new(settings.inflate_ratio_max),
            io,
            tick: Tick { ring_position: ring.position(), ..Tick::default() },
            history: History::new(&ring, settings.history_ms),
            settings,
            ring,
            directory: Directory::default(),
            values: LastValues::default(),
            interest: SubscriptionIndex::default(),
            audiences: Audiences::default(),
            conflator: Conflator::default(),
            clients: PagedVec::default(),
            clients_len: 0,
            formats: [0; Format::COUNT],
            catching_up: 0,
            fresh: HashMap::default(),
            waiting: VecDeque::new(),
            arrived: Vec::new(),
            held: Vec::new(),
            log_sequences: (0, Arc::default()),
            log_floor: 0,
            leaving: None,
            left: Vec::new(),
            slowest: Slowest::default(),
            resync_wanted: false,
            housekeeping_ns: 0,
            housekeeping_round: 0,
            counters: ShardCounters::default(),
            scratch: Scratch::default(),
        }
    }

    /// One round of all phases. Returns whether there was anything to do; if not, the shard may sleep until
    /// [`Self::deadline_ns`], a completion, or news in the ring.
    pub fn tick(&mut self, now_ns: u64) -> bool {
        self.begin_tick(now_ns);
        let drained = self.drain();
        let flushed = self.flush();
        let completed = self.reap();
        let kept_house = self.keep_house();
        let sent_away = self.send_away();
        let served = self.catch_up();
        let worked = drained || flushed || completed || served || kept_house || sent_away;
        self.counters.add(Counter::Ticks, worked.into());
        worked
    }

    /// Takes a connection over: `upgrade` is the answer to its handshake, which has not been sent yet, and `input` what the
    /// client has sent beyond its request.
    pub fn open(&mut self, slot_id: SlotId, upgrade: &[u8], input: &[u8], now_ns: u64) {
        self.open_as(slot_id, Encoding::PLAIN, upgrade, input, now_ns);
    }

    /// The same for a client whose packets are to be encoded in this way.
    pub fn open_as(&mut self, slot_id: SlotId, encoding: Encoding, upgrade: &[u8], input: &[u8], now_ns: u64) {
        let slot = slot_id.index as usize;
        self.clients.grow(slot + 1);
        assert!(self.clients[slot].is_none(), "slot {slot} has a client already");
        let audience = self.interest.enter(encoding);
        self.audiences.grow(self.interest.audience_ids());
        self.clients[slot] = Some(Client {
            slot_id,
            audience,
            place: ABSENT,
            session: session(encoding),
            received_ns: now_ns,
            request_bucket: TokenBucket::new(self.settings.requests_per_s, now_ns),
            readable: false,
            receiving: false,
            pinged_ns: 0,
            unsubscribed_since_ns: now_ns.max(1),
            reported: false,
            catch_up: None,
            ending: Ending::No,
        });
        self.clients_len += 1;
        self.formats[encoding.format as usize] += 1;
        self.counters.add(Counter::ClientsAccepted, 1);
        let catch_up = self.begin_catch_up(slot_id.index, now_ns);
        catch_up.control.extend_from_slice(upgrade);
        catch_up.held_input.extend_from_slice(input);
        self.welcome(slot_id.index);
    }

    /// Takes over the connection of a reader of events, who wants what its `request` says, and will ask nothing else.
    /// `head` is the head of its answer, which has not been sent yet.
    pub fn open_events(&mut self, slot_id: SlotId, head: &[u8], request: Request, now_ns: u64) {
        self.open_as(slot_id, Encoding::EVENTS, head, &[], now_ns);
        self.arrived.push((slot_id, request));
    }

    /// Has the end of this client told by [`Self::take_departed`].
    pub fn report_departure(&mut self, slot_id: SlotId) {
        if let Some(client) = self.holder(slot_id) {
            client.reported = true;
        }
    }

    /// Slots of clients that have gone since, of those who were to be reported.
    pub fn take_departed(&mut self) -> impl Iterator<Item = u32> {
        self.left.drain(..)
    }

    /// Other settings from now on; the epoch stays.
    pub fn change_settings(&mut self, settings: Settings) {
        self.settings = Settings { epoch: self.settings.epoch, ..settings };
    }

    /// When the shard has to turn again although nothing comes; `None` if there is no such time.
    pub fn deadline_ns(&self) -> Option<u64> {
        // Once more after the last has gone, so that the levels do not tell of it for ever.
        let levels_are_old = self.counters.get(Counter::Clients) != self.clients_len as u64;
        let house = (self.clients_len > 0 || levels_are_old).then_some(self.housekeeping_ns);
        [house, self.conflator.next_tick_ns(), self.farewell_ns()].into_iter().flatten().min()
    }

    /// True if the ring has news. To be asked once more before sleeping.
    pub fn has_new_records(&self) -> bool {
        !self.ring.is_empty()
    }

    /// True after an overrun, until [`Self::resync_requested`]: the sequencer has to send the whole state again.
    pub fn wants_resync(&self) -> bool {
        self.resync_wanted
    }

    /// The sequencer knows that it has to send the whole state again.
    pub fn resync_requested(&mut self) {
        self.resync_wanted = false;
    }

    /// How many clients are connected.
    pub fn clients(&self) -> usize {
        self.clients_len
    }

    /// The instruments known to this shard.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The newest values.
    pub fn values(&self) -> &LastValues {
        &self.values
    }

    /// What has been counted.
    pub fn counters(&self) -> &ShardCounters {
        &self.counters
    }

    /// What has been counted, for those who count for the shard.
    pub fn counters_mut(&mut self) -> &mut ShardCounters {
        &mut self.counters
    }

    /// The kernel's side.
    pub fn io(&self) -> &I {
        &self.io
    }

    /// The kernel's side, to be asked for something.
    pub fn io_mut(&mut self) -> &mut I {
        &mut self.io
    }

    fn begin_tick(&mut self, now_ns: u64) {
        let tick = &mut self.tick;
        tick.number += 1;
        // The clock may go back by a step where it is brought nearer to the wall's; a shard's time does not.
        tick.now_ns = tick.now_ns.max(now_ns);
        tick.from_position = tick.position;
        tick.batch.clear();
        tick.records.clear();
        self.audiences.begin_tick();
    }

    fn client(&self, slot: u32) -> Option<&Client> {
        self.clients.get(slot as usize)?.as_ref()
    }

    fn client_mut(&mut self, slot: u32) -> Option<&mut Client> {
        self.clients.get_mut(slot as usize)?.as_mut()
    }

    /// What a client is sent. It is there.
    fn format(&self, slot: u32) -> Format {
        let client = self.client(slot).expect("only who is there is sent something");
        self.interest.encoding(client.audience).format
    }

    /// The client that a completion is for; `None` if it has gone.
    fn holder(&mut self, slot_id: SlotId) -> Option<&mut Client> {
        self.client_mut(slot_id.index).filter(|client| client.slot_id == slot_id)
    }

    /// Takes a client out of its audience's members, as it is owed something; all that was dispatched up to now it has
    /// had. Does nothing for one that is out already.
    fn begin_catch_up(&mut self, slot: u32, now_ns: u64) -> &mut CatchUp {
        let floor = self.fresh.get(&slot).map_or(0, |fresh| fresh.place);
        let mark = StateMark { tick: self.tick.number, place: self.tick.ring_position, explicit: false, floor };
        let sequences = self.log_sequences();
        let log = LogMark { position: self.tick.position, ring_position: self.tick.ring_position, sequences };
        let directory_len = self.directory.len() as u32;
        let client = self.clients[slot as usize].as_mut().expect("only clients that are there begin to catch up");
        if client.place != ABSENT {
            let (audience, place) = (client.audience, client.place);
            client.place = ABSENT;
            if let Some(moved) = self.audiences.leave(audience, place) {
                self.clients[moved.index as usize].as_mut().expect("members are clients").place = place;
            }
        }
        let client = self.clients[slot as usize].as_mut().expect("looked up above");
        client.catch_up.get_or_insert_with(|| {
            self.catching_up += 1;
            Box::new(CatchUp {
                tail: bytes::Bytes::new(),
                control: Vec::new(),
                held_input: Vec::new(),
                since_tick: mark.tick,
                since_ns: now_ns,
                progress_ns: now_ns,
                blocked: false,
                queued: false,
                directory_len,
                replay: None,
                state: StatePass::at(mark),
                log,
                job: Vec::new(),
                snapshot: false,
            })
        })
    }

    /// The sequences of all log channels as of now, shared by all who need them before one of them changes.
    fn log_sequences(&mut self) -> Arc<[[Sequence; 2]]> {
        let changes = self.values.log_changes();
        if self.log_sequences.0 != changes {
            self.log_sequences = (changes, self.values.log_sequences().collect());
        }
        self.log_sequences.1.clone()
    }

    /// Has a client that is owed something served in the next catch-up phase, unless it waits for its socket.
    fn queue(&mut self, slot: u32) {
        let Some(catch_up) = self.client_mut(slot).and_then(|client| client.catch_up.as_mut()) else { return };
        if !catch_up.queued && !catch_up.blocked {
            catch_up.queued = true;
            self.waiting.push_back(slot);
        }
    }

    /// Lets a client go: its seat, its place, its interest.
    fn drop_client(&mut self, slot: u32) {
        let Some(client) = self.clients.get_mut(slot as usize).and_then(Option::take) else { return };
        if client.place != ABSENT
            && let Some(moved) = self.audiences.leave(client.audience, client.place)
        {
            self.clients[moved.index as usize].as_mut().expect("members are clients").place = client.place;
        }
        self.catching_up -= usize::from(client.catch_up.is_some());
        self.formats[self.interest.encoding(client.audience).format as usize] -= 1;
        self.interest.leave(client.audience);
        self.fresh.remove(&slot);
        if client.reported {
            self.left.push(slot);
        }
        self.io.close(client.slot_id);
        self.clients_len -= 1;
        self.counters.add(Counter::ClientsClosed, 1);
    }

    /// Phase 3: what the kernel has to tell. Reaped into a list first; handling may ask the kernel for more.
    fn reap(&mut self) -> bool {
        /// Completions a turn: a connect storm must not keep the sweep waiting.
        const COMPLETIONS_MAX: usize = 4096;
        let mut completions = std::mem::take(&mut self.scratch.completions);
        completions.clear();
        self.io.reap(COMPLETIONS_MAX, &mut completions);
        let worked = !completions.list.is_empty() || !self.held.is_empty() || !self.arrived.is_empty();
        for (slot_id, request) in std::mem::take(&mut self.arrived) {
            self.take_up_arrival(slot_id, request);
        }
        // First what was said first: a client that is ready for more input is asked for it below.
        for (slot_id, input) in std::mem::take(&mut self.held) {
            self.take_up_held_input(slot_id, input);
        }
        for completion in &completions.list {
            match *completion {
                Completion::Readable { slot_id } => self.on_readable(slot_id),
                Completion::Received { slot_id, start, len, more } => {
                    let input = &mut completions.input[start as usize..][..len as usize];
                    self.on_received(slot_id, input, more);
                }
                Completion::Nothing { slot_id } => self.on_nothing(slot_id),
                Completion::Writable { slot_id } => self.on_writable(slot_id),
                Completion::Ended { slot_id } => {
                    if self.holder(slot_id).is_some() {
                        self.drop_client(slot_id.index);
                    }
                }
            }
        }
        self.scratch.completions = completions;
        worked
    }

    fn on_readable(&mut self, slot_id: SlotId) {
        let Some(client) = self.holder(slot_id) else { return };
        client.readable = true;
        self.receive_if_ready(slot_id.index);
    }

    /// Asks for input where there is some and the client is owed nothing: what it sends waits in its socket till then.
    fn receive_if_ready(&mut self, slot: u32) {
        let Some(client) = self.clients.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let owed = client.catch_up.is_some() && client.ending == Ending::No;
        if client.readable && !client.receiving && !owed {
            client.readable = false;
            client.receiving = true;
            self.io.receive(client.slot_id);
        }
    }

    fn on_nothing(&mut self, slot_id: SlotId) {
        let Some(client) = self.holder(slot_id) else { return };
        client.receiving = false;
        self.receive_if_ready(slot_id.index);
    }

    fn on_writable(&mut self, slot_id: SlotId) {
        let Some(catch_up) = self.holder(slot_id).and_then(|client| client.catch_up.as_mut()) else { return };
        catch_up.blocked = false;
        self.queue(slot_id.index);
    }
}

/// Reads what a client sends, who may compress it where its packets are compressed.
fn session(encoding: Encoding) -> Session {
    if encoding.deflate.is_some() { Session::with_deflate(Role::Server) } else { Session::new(Role::Server) }
}
