//! Subscribe, resume and unsubscribe: a parsed request is resolved to items, authorized, applied to the subscription
//! index and the client's backlog, and answered.

use super::super::authorize::authorize;
use super::super::backlog::{InitialValue, Replay};
use super::super::client_context::ClientContext;
use super::super::conflation::QuoteOrder;
use super::super::fan_out::{FanOut, quote_order};
use super::super::resolve::{SymbolSet, count_covered, release, resolve};
use super::super::state_walk::{StateCursor, StateWalk};
use super::super::subscription_index::{AudienceId, Change, Key, Target};
use crate::io::{Io, SlotId};
use crate::last_value::LastValues;
use crate::ring::RingOffset;
use crate::stats::Counter;
use tickcast_protocol::control::{ChannelSet, Pattern, RequestError, reply};
use tickcast_protocol::record::Channel;
use tickcast_protocol::{ConflationInterval, Position, Token};

/// How a subscription begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// With the newest values.
    Snapshot,
    /// With the next records.
    Live,
    /// With the records after a token's position, which the ring has from this offset on.
    Replay { position: Position, offset: RingOffset },
}

/// What a subscribe or resume request asks for.
#[derive(Clone, Copy)]
pub(super) struct Wish<'a> {
    pub(super) id: u64,
    pub(super) channels: ChannelSet,
    pub(super) symbols: &'a [Pattern],
    pub(super) interval: ConflationInterval,
}

/// What a subscription has come to, for its answer.
#[derive(Default)]
struct Granted {
    /// Instruments that it covers now.
    count: usize,
    unknown: Vec<String>,
    denied: Vec<String>,
}

impl<I: Io> ClientContext<'_, I> {
    pub(super) fn subscribe(&mut self, slot_id: SlotId, wish: Wish<'_>, snapshot: bool) -> Result<(), RequestError> {
        let start = if snapshot { Start::Snapshot } else { Start::Live };
        let Granted { count, unknown, denied } = self.add_items(slot_id, wish, start)?;
        let (unknown, denied) = (as_strs(&unknown), as_strs(&denied));
        let Wish { id, interval, .. } = wish;
        self.answer(slot_id, |out| reply::subscribed(out, id, interval.interval_ms(), count, &unknown, &denied));
        Ok(())
    }

    /// Continues after a token if the ring still has the records since then, and else begins with a snapshot.
    pub(super) fn resume(&mut self, slot_id: SlotId, wish: Wish<'_>, token: Token) -> Result<(), RequestError> {
        let Wish { id, interval, .. } = wish;
        let (start, how, from, counter) = match self.find_token(token, interval) {
            Some(offset) => {
                let start = Start::Replay { position: token.position, offset };
                (start, "replay", token.position.next(), Counter::ResumesReplayed)
            }
            None => (Start::Snapshot, "snapshot", self.market.position.next(), Counter::ResumesSnapshot),
        };
        let Granted { count, unknown, .. } = self.add_items(slot_id, wish, start)?;
        self.counters.add(counter, 1);
        if start == Start::Snapshot {
            // Also where it is empty: the client waits for its end.
            self.leave_live_path(slot_id).snapshot = true;
        }
        let (unknown, conflate_ms) = (as_strs(&unknown), interval.interval_ms());
        let answer = reply::Resumed { id, how, from, conflate_ms, count, unknown: &unknown };
        self.answer(slot_id, |out| reply::resumed(out, &answer));
        Ok(())
    }

    /// Where in the ring the records after a token begin, or somewhat before; `None` if they are not there any more or
    /// never were.
    fn find_token(&self, token: Token, interval: ConflationInterval) -> Option<RingOffset> {
        let market = &self.market;
        let is_of_this_run = token.epoch == self.settings.epoch && token.position <= market.newest;
        // While lost values are sent again, no position is known up to which nothing would be missing after a replay.
        let is_whole = is_of_this_run && !market.resync.is_running;
        let offset = self.backlog.history.find(token.position, interval).filter(|_| is_whole)?;
        (offset >= self.ring.oldest()).then_some(offset)
    }

    /// Resolves, authorizes and applies a subscription.
    fn add_items(
        &mut self,
        slot_id: SlotId,
        Wish { id, channels, symbols, interval }: Wish<'_>,
        start: Start,
    ) -> Result<Granted, RequestError> {
        let Some(client) = self.connections.get_mut(slot_id) else { return Ok(Granted::default()) };
        let (index, audience) = (&mut self.fan_out.index, client.audience);
        let authorized = authorize(resolve(index, &self.market.directory, channels, symbols));
        let is_new = |key: &Key| index.interval_of(audience, *key).is_none();
        let new: Vec<Key> = authorized.items().iter().copied().filter(is_new).collect();
        let (had, max) = (index.items(audience), self.settings.subscriptions_max);
        if had + new.len() > max {
            release(index, authorized.targets());
            return Err(too_many(id, had + new.len(), max));
        }
        client.unsubscribed_since_ns = 0;
        let changes: Vec<Change> = authorized.items().iter().map(|key| Change::Want(*key, interval)).collect();
        self.change_subscriptions(slot_id, &changes);
        let count = count_covered(&self.fan_out.index, authorized.targets());
        match start {
            Start::Replay { position, offset } => {
                self.begin_replay(slot_id, id, interval, (count, new, had == 0), (position, offset));
            }
            Start::Snapshot => self.begin_items(slot_id, new, InitialValue::Snapshot),
            Start::Live => self.begin_items(slot_id, new, InitialValue::Definition),
        }
        let (unknown, denied) = authorized.into_refused();
        Ok(Granted { count, unknown, denied })
    }

    fn begin_items(&mut self, slot_id: SlotId, new: Vec<Key>, initial: InitialValue) {
        let Some(backlog) = self.backlog.own_mut(slot_id) else { return };
        backlog.snapshot |= initial == InitialValue::Snapshot && !new.is_empty();
        backlog.request(new.into_iter().map(|key| (key, initial)));
    }

    fn begin_replay(
        &mut self,
        slot_id: SlotId,
        id: u64,
        interval: ConflationInterval,
        (count, keys, has_only_these_items): (usize, Vec<Key>, bool),
        (after, from): (Position, RingOffset),
    ) {
        let Some(backlog) = self.backlog.own_mut(slot_id) else { return };
        backlog.replay = Some(Replay {
            id,
            conflate_ms: interval.interval_ms(),
            count,
            keys,
            has_only_these_items,
            after,
            range: from..self.market.offset,
            end_position: self.market.position,
            announce: Some(1),
        });
    }

    /// Removes the items that are named or covered, and answers with the number of instruments concerned.
    pub(super) fn unsubscribe(&mut self, slot_id: SlotId, id: u64, channels: ChannelSet, symbols: &[Pattern]) {
        let Some(audience) = self.connections.get(slot_id).map(|client| client.audience) else { return };
        let index = &self.fan_out.index;
        let named: SymbolSet<'_> = symbols.iter().collect();
        let is_named = |key: &Key| channels.contains(key.channel()) && named.covers(index, key.target());
        let dropped: Vec<Key> = index.keys(audience).filter(is_named).collect();
        let mut targets: Vec<Target> = dropped.iter().map(|key| key.target()).collect();
        targets.dedup();
        let count = count_covered(index, &targets);
        let changes: Vec<Change> = dropped.into_iter().map(Change::Drop).collect();
        self.change_subscriptions(slot_id, &changes);
        self.answer(slot_id, |out| reply::unsubscribed(out, id, count));
    }

    /// Moves a client to the audience with the changed set of items.
    fn change_subscriptions(&mut self, slot_id: SlotId, changes: &[Change]) {
        self.leave_live_path(slot_id);
        let (Some(client), Some(backlog)) = (self.connections.get_mut(slot_id), self.backlog.own_mut(slot_id)) else {
            return;
        };
        if !backlog.state.is_explicit() {
            // Interval boundaries of the old items are not those of the new ones. Values that are pending at the old
            // ones are sent now; the client has had all others.
            let floor = backlog.state.last_cursor().floor;
            backlog.request(pending_values(self.fan_out, &self.market.values, client.audience, floor));
            backlog.state = StateWalk::at(StateCursor::explicit(self.now, self.market.cursor()));
        }
        client.audience = self.fan_out.index.change(client.audience, changes);
        self.fan_out.audiences.grow(self.fan_out.index.audience_ids());
        self.backlog.enqueue(slot_id);
    }
}

/// Values from after the ring offset `floor` that wait for an interval boundary at which the audience would get them.
fn pending_values(
    fan_out: &FanOut,
    values: &LastValues<RingOffset>,
    audience: AudienceId,
    floor: RingOffset,
) -> Vec<(Key, InitialValue)> {
    let FanOut { index, conflator, .. } = fan_out;
    let mut pending = Vec::new();
    if index.items(audience) == 0 {
        return pending;
    }
    for interval in (1..ConflationInterval::COUNT).map(ConflationInterval::from_index) {
        for &(instrument, channel) in conflator.queue(interval) {
            let order = match channel {
                Channel::Quote => quote_order(index, audience, instrument),
                _ => QuoteOrder::Free,
            };
            let offset = values.row(instrument).map_or(RingOffset::START, |values| values.origin(channel));
            if offset > floor
                && conflator.is_pending(interval, instrument, channel, order)
                && index.wants(audience, instrument, channel) == Some(interval)
            {
                pending.push((Key::new(Target::Instrument(instrument), channel), InitialValue::Conflated));
            }
        }
    }
    pending
}

fn as_strs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn too_many(id: u64, total: usize, max: usize) -> RequestError {
    let message =
        format!("symbols: {total} subscriptions (symbols times channels): expected at most {max} per connection");
    RequestError { id: Some(id), code: "limit", message }
}
