//! The clients of the shard by slot: their sessions, timers, and how far each is on its way to the end.
//!
//! What is pending for a client that is behind is in the [`Backlog`](super::backlog::Backlog), who its fellow members
//! are in the [`Audiences`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::accounts::{AccountId, Allowance, Subscriptions};
use super::audiences::Audiences;
use super::encoding::{Encoding, Format};
use super::paged_vec::PagedVec;
use super::session_news::SessionNews;
use super::subscription_index::AudienceId;
use crate::identity::{Principal, UserShare};
use crate::io::SlotId;
use tickcast_protocol::ws::{Role, Session};

/// [`Client::member`] of a client that is not among the members of its audience.
const NOT_A_MEMBER: u32 = u32::MAX;

/// The client of one slot. Some 170 bytes.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) slot_id: SlotId,
    pub(super) audience: AudienceId,
    /// Its index among the members of its audience, or [`NOT_A_MEMBER`].
    member: u32,
    /// Does not change: a client moves only between audiences of its encoding.
    pub(super) encoding: Encoding,
    pub(super) session: Session,
    /// When it last sent something.
    pub(super) received_ns: u64,
    pub(super) request_bucket: TokenBucket,
    /// Its allowance of work.
    pub(super) work: Allowance,
    /// That of its address; `None` for an exempt address.
    pub(super) account: Option<AccountId>,
    /// What it has subscribed to.
    pub(super) subscriptions: Subscriptions,
    /// Held input, as last noted.
    pub(super) input_bytes: u32,
    /// When its input that waits for its allowance goes on; 0: none waits.
    throttled_until_ns: u64,
    /// When the message that is incomplete began; 0: none is.
    pub(super) message_since_ns: u64,
    /// Its input is not read: a request is under way, or its allowance is spent.
    pub(super) waits: bool,
    /// It was pinged, and may send a pong that does not count.
    pub(super) expects_pong: bool,
    /// Its socket has input that has not been asked for.
    pub(super) readable: bool,
    /// A receive is under way.
    pub(super) receiving: bool,
    /// When it was pinged, if nothing has come from it since; else 0.
    pub(super) pinged_ns: u64,
    /// When it connected, until its first subscription; then 0.
    pub(super) unsubscribed_since_ns: u64,
    /// Who it is; `None` until it has authenticated itself.
    pub(super) principal: Option<Arc<Principal>>,
    /// Its share of what its user may have; `None`: it is no session of a user, or not any more.
    pub(super) share: Option<Box<UserShare>>,
    /// Until when it has to do so; 0: it need not.
    pub(super) auth_until_ns: u64,
    /// It was told that its token expires.
    pub(super) is_told_expiring: bool,
    /// Its slot is to be reported once it is gone.
    pub(super) reports_departure: bool,
    pub(super) close_state: CloseState,
}

impl Client {
    pub(super) fn new(slot_id: SlotId, audience: AudienceId, encoding: Encoding, per_second: u32, now_ns: u64) -> Self {
        Self {
            slot_id,
            audience,
            member: NOT_A_MEMBER,
            encoding,
            session: new_session(encoding),
            received_ns: now_ns,
            request_bucket: TokenBucket::new(per_second, now_ns),
            work: Allowance::default(),
            account: None,
            subscriptions: Subscriptions::default(),
            input_bytes: 0,
            throttled_until_ns: 0,
            message_since_ns: 0,
            waits: false,
            expects_pong: false,
            readable: false,
            receiving: false,
            pinged_ns: 0,
            unsubscribed_since_ns: now_ns.max(1),
            principal: None,
            share: None,
            auth_until_ns: 0,
            is_told_expiring: false,
            reports_departure: false,
            close_state: CloseState::Open,
        }
    }

    /// Gives it an identity, or the next one.
    pub(super) fn set_principal(&mut self, principal: Arc<Principal>) {
        self.principal = Some(principal);
        self.auth_until_ns = 0;
        self.is_told_expiring = false;
    }

    pub(super) fn is_open(&self) -> bool {
        self.close_state == CloseState::Open
    }

    pub(super) fn is_websocket(&self) -> bool {
        self.encoding.format.is_websocket()
    }
}

/// A session that reads what a client sends, compressed where that was negotiated.
pub(super) fn new_session(encoding: Encoding) -> Session {
    if encoding.deflate.is_some() { Session::with_deflate(Role::Server) } else { Session::new(Role::Server) }
}

/// When a client that is closed should come back, ms: spread over two seconds, so that not all come at once.
pub(super) fn reconnect_ms(slot_id: SlotId) -> u64 {
    /// A prime stride visits the whole range.
    const STRIDE: u64 = 619;
    500 + u64::from(slot_id.index) * STRIDE % 2000
}

/// How far a connection is on its way to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseState {
    Open,
    /// The close frame, or the last event, is among the pending bytes. `is_answered`: the peer has sent its close
    /// frame, or sends none (an SSE client). The connection ends at `until_ns` in any case.
    Closing {
        is_answered: bool,
        until_ns: u64,
    },
    /// The close frame is out; the peer's answer, or its end, is awaited until then.
    Lingering {
        until_ns: u64,
    },
}

/// A token bucket for requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenBucket {
    /// Thousandths of a request.
    millis: u64,
    refilled_ns: u64,
}

impl TokenBucket {
    /// Seconds of its rate that a client may use at once: a dashboard subscribes to all its rows when it opens.
    const BURST_SECONDS: u64 = 4;

    fn new(per_second: u32, now_ns: u64) -> Self {
        Self { millis: Self::BURST_SECONDS * u64::from(per_second) * 1000, refilled_ns: now_ns }
    }

    /// Takes one request; false if none is left.
    pub(super) fn take(&mut self, per_second: u32, now_ns: u64) -> bool {
        let elapsed_us = now_ns.saturating_sub(self.refilled_ns) / 1000;
        let gained = elapsed_us.saturating_mul(u64::from(per_second)) / 1000;
        if gained > 0 {
            let most = Self::BURST_SECONDS * u64::from(per_second) * 1000;
            self.millis = (self.millis + gained).min(most);
            self.refilled_ns = now_ns;
        }
        let had = self.millis >= 1000;
        self.millis = self.millis.saturating_sub(1000);
        had
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ConnectionTable {
    clients: PagedVec<Option<Client>>,
    len: usize,
    by_format: [usize; Format::COUNT],
    /// Slots of clients that are gone and whose departure is to be reported.
    departed: Vec<u32>,
    /// What is to be known of sessions outside of the shard.
    pub(super) news: Vec<(SlotId, SessionNews)>,
    /// Input of clients that had to wait, for the next tick.
    pub(super) deferred_input: VecDeque<(SlotId, Vec<u8>)>,
    /// Input of clients that have spent their allowance, by the time at which it goes on and by slot.
    throttled: BTreeMap<(u64, u32), (SlotId, Vec<u8>)>,
}

impl ConnectionTable {
    pub(super) fn insert(&mut self, client: Client) {
        let index = client.slot_id.index as usize;
        self.clients.grow(index + 1);
        assert!(self.clients[index].is_none(), "slot {index} has a client already");
        self.len += 1;
        self.by_format[client.encoding.format as usize] += 1;
        self.clients[index] = Some(client);
    }

    pub(super) fn remove(&mut self, slot_id: SlotId) -> Option<Client> {
        let client = self.clients.get_mut(slot_id.index as usize)?.take_if(|client| client.slot_id == slot_id)?;
        if client.share.is_some() {
            self.news.push((slot_id, SessionNews::ended("disconnected", "")));
        }
        self.len -= 1;
        self.throttled.remove(&(client.throttled_until_ns, slot_id.index));
        self.by_format[client.encoding.format as usize] -= 1;
        if client.reports_departure {
            self.departed.push(slot_id.index);
        }
        Some(client)
    }

    /// The client with this id; `None` if it is gone and its slot is free or has another client.
    pub(super) fn get(&self, slot_id: SlotId) -> Option<&Client> {
        self.clients.get(slot_id.index as usize)?.as_ref().filter(|client| client.slot_id == slot_id)
    }

    /// See [`Self::get`].
    pub(super) fn get_mut(&mut self, slot_id: SlotId) -> Option<&mut Client> {
        self.clients.get_mut(slot_id.index as usize)?.as_mut().filter(|client| client.slot_id == slot_id)
    }

    /// The id of the client that has a slot now, for walks over all slots below [`Self::slots`].
    pub(super) fn slot_id(&self, index: usize) -> Option<SlotId> {
        Some(self.clients.get(index)?.as_ref()?.slot_id)
    }

    /// How many clients there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many of them are sent this format.
    pub(super) fn len_of(&self, format: Format) -> usize {
        self.by_format[format as usize]
    }

    /// One above the highest slot that was ever used, or more.
    pub(super) fn slots(&self) -> usize {
        self.clients.len()
    }

    /// Keeps the input of a client until its allowance has refilled.
    pub(super) fn throttle(&mut self, slot_id: SlotId, due_ns: u64, input: &[u8]) {
        let Some(client) = self.get_mut(slot_id) else { return };
        client.waits = true;
        client.throttled_until_ns = due_ns;
        self.throttled.insert((due_ns, slot_id.index), (slot_id, input.to_vec()));
    }

    /// Moves the throttled input that is due to the deferred one.
    pub(super) fn resume_throttled(&mut self, now_ns: u64) {
        while let Some(entry) = self.throttled.first_entry().filter(|entry| entry.key().0 <= now_ns) {
            let (slot_id, input) = entry.remove();
            if let Some(client) = self.get_mut(slot_id) {
                client.waits = false;
                client.throttled_until_ns = 0;
                // Its input was not read until now.
                client.received_ns = client.received_ns.max(now_ns);
                self.deferred_input.push_back((slot_id, input));
            }
        }
    }

    /// Input of a client that waits for its allowance, bytes.
    pub(super) fn throttled_bytes(&self, slot_id: SlotId) -> usize {
        let until_ns = self.get(slot_id).map_or(0, |client| client.throttled_until_ns);
        self.throttled.get(&(until_ns, slot_id.index)).map_or(0, |(_, input)| input.len())
    }

    /// Forgets that input.
    pub(super) fn drop_throttled(&mut self, slot_id: SlotId) {
        let Some(client) = self.get_mut(slot_id) else { return };
        client.waits = false;
        let until_ns = std::mem::take(&mut client.throttled_until_ns);
        self.throttled.remove(&(until_ns, slot_id.index));
    }

    /// When the next throttled input is due.
    pub(super) fn throttled_until_ns(&self) -> Option<u64> {
        self.throttled.first_key_value().map(|((due_ns, _), _)| *due_ns)
    }

    /// How many clients are throttled.
    pub(super) fn throttled_len(&self) -> usize {
        self.throttled.len()
    }

    pub(super) fn take_departed(&mut self) -> impl Iterator<Item = u32> {
        self.departed.drain(..)
    }

    /// Makes a client a member of its audience.
    pub(super) fn join_audience(&mut self, slot_id: SlotId, audiences: &mut Audiences, now_ns: u64) {
        if let Some(client) = self.get_mut(slot_id) {
            client.member = audiences.join(client.audience, client.slot_id, client.encoding, now_ns);
        }
    }

    /// Takes a client out of the members of its audience, if it is one.
    pub(super) fn leave_audience(&mut self, slot_id: SlotId, audiences: &mut Audiences) {
        let Some(client) = self.get_mut(slot_id).filter(|client| client.member != NOT_A_MEMBER) else { return };
        let (audience, member) = (client.audience, client.member);
        client.member = NOT_A_MEMBER;
        let moved = audiences.leave(audience, member);
        if let Some(moved) = moved.and_then(|moved| self.get_mut(moved)) {
            moved.member = member;
        }
    }
}
