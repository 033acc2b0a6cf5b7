//! Subscribe, resume and unsubscribe: a parsed request is resolved to items, authorized, applied to the subscription
//! index and the client's backlog, and answered.

use std::sync::Arc;

use super::super::accounts::{ADDRESS_PART, Subscriptions, cost};
use super::super::backlog::{InitialValue, Replay};
use super::super::client_context::ClientContext;
use super::super::conflation::QuoteOrder;
use super::super::counting::Counting;
use super::super::fan_out::{FanOut, quote_order};
use super::super::operations::{Counted, Kind, NewIdentity, Operation, Outcome, PORTION_UNITS, Stage};
use super::super::resolve::{self, NESTED_MAX, Report, Resolved};
use super::super::state_walk::{StateCursor, StateWalk};
use super::super::subscription_index::{AudienceId, Change, Key, Started, Target};
use crate::identity::Rights;
use crate::io::{Io, SlotId};
use crate::last_value::LastValues;
use crate::ring::RingOffset;
use crate::stats::Counter;
use tickcast_protocol::control::{RequestError, reply};
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

impl<I: Io> ClientContext<'_, I> {
    /// Carries a request on, as far as a portion of the tick's units goes. False if it has to go on in another tick.
    pub(in crate::shard) fn advance(&mut self, slot_id: SlotId, operation: &mut Operation) -> bool {
        let portion = self.operations.units.min(PORTION_UNITS);
        let mut units = portion;
        let is_done = loop {
            if matches!(operation.stage, Stage::Done) {
                break true;
            }
            if units == 0 {
                break false;
            }
            if let Err(error) = self.advance_stage(slot_id, operation, &mut units) {
                self.refuse(slot_id, &error);
                break true;
            }
        };
        let used = portion - units;
        self.operations.units -= used;
        self.spend(slot_id, used as u64);
        is_done
    }

    /// Answers a request with an error. An SSE client has no other request, and is closed.
    fn refuse(&mut self, slot_id: SlotId, error: &RequestError) {
        self.answer_error(slot_id, error);
        if self.connections.get(slot_id).is_some_and(|client| !client.is_websocket()) {
            self.close(slot_id, tickcast_protocol::ws::CloseCode::POLICY, "");
        }
    }

    fn advance_stage(
        &mut self,
        slot_id: SlotId,
        operation: &mut Operation,
        units: &mut usize,
    ) -> Result<(), RequestError> {
        match std::mem::replace(&mut operation.stage, Stage::Done) {
            Stage::Resolve(mut resolving) => {
                let index = &mut self.fan_out.index;
                operation.stage = match resolving.advance(index, units) {
                    true => {
                        let resolved = resolving.finish(index);
                        let targets: Vec<Target> = resolved.targets().collect();
                        let counting = Counting::new(index, &targets, operation.channels);
                        Stage::Count(counting, Counted::Subscribe(resolved))
                    }
                    false => Stage::Resolve(resolving),
                };
            }
            Stage::Select(mut selecting) => {
                let Some(audience) = self.connections.get(slot_id).map(|client| client.audience) else { return Ok(()) };
                operation.stage = match selecting.advance(&self.fan_out.index, audience, operation.channels, units) {
                    true => {
                        let dropped = selecting.finish();
                        let mut targets: Vec<Target> = dropped.iter().map(|key| key.target()).collect();
                        targets.dedup();
                        let counting = Counting::new(&self.fan_out.index, &targets, operation.channels);
                        Stage::Count(counting, Counted::Unsubscribe(dropped))
                    }
                    false => Stage::Select(selecting),
                };
            }
            Stage::Count(mut counting, counted) => {
                let audience = self.connections.get(slot_id).map(|client| client.audience);
                let is_done = audience.is_none_or(|of| counting.advance(&self.fan_out.index, of, units));
                operation.stage = match counted {
                    counted if !is_done => Stage::Count(counting, counted),
                    Counted::Subscribe(resolved) => {
                        self.begin_subscribe(slot_id, operation, resolved, counting.count())?
                    }
                    Counted::Unsubscribe(dropped) => {
                        self.begin_unsubscribe(slot_id, operation, dropped, counting.count())
                    }
                };
            }
            Stage::Reselect(mut reselecting) => {
                let Some(audience) = self.connections.get(slot_id).map(|client| client.audience) else { return Ok(()) };
                operation.stage = match reselecting.advance(&self.fan_out.index, audience, units) {
                    true => self.begin_reselected(slot_id, operation, reselecting),
                    false => Stage::Reselect(reselecting),
                };
            }
            Stage::Build(mut building, outcome) => {
                if !self.fan_out.index.continue_change(&mut building, units) {
                    operation.stage = Stage::Build(building, outcome);
                    return Ok(());
                }
                self.prepare_change(slot_id);
                let audience = self.fan_out.index.finish_change(building);
                self.complete(slot_id, operation, audience, outcome);
            }
            // What is verified is not in the queue.
            Stage::Verify | Stage::Done => {}
        }
        Ok(())
    }

    /// Authorizes a subscription, checks its limits, and begins to apply it.
    fn begin_subscribe(
        &mut self,
        slot_id: SlotId,
        operation: &Operation,
        resolved: Resolved,
        count: usize,
    ) -> Result<Stage, RequestError> {
        let index = &mut self.fan_out.index;
        let Some(audience) = self.connections.get(slot_id).map(|client| client.audience) else {
            index.release_all(resolved.into_parts().0);
            return Ok(Stage::Done);
        };
        let new = index.missing(audience, resolved.items().map(|(key, _)| key));
        let had = index.items(audience);
        if resolved.has_prefixes() {
            // They are sorted with those of the request.
            let prefixes = index.prefixes(audience).len();
            self.spend(slot_id, prefixes as u64);
        }
        let checked = self.check_memory(operation.id, new.len());
        let checked = checked.and_then(|()| self.check_limits(slot_id, operation.id, new.len(), &resolved));
        // Last: what it reserves is set to what the client has once the request is complete.
        let checked = checked.and_then(|()| self.reserve_for_user(slot_id, operation.id, new.len()));
        if let Err(error) = checked {
            self.fan_out.index.release_all(resolved.into_parts().0);
            return Err(error);
        }
        if let Some(client) = self.connections.get_mut(slot_id) {
            client.unsubscribed_since_ns = 0;
        }
        let changes: Vec<Change> = resolved.items().map(|(key, interval)| Change::Want(key, interval)).collect();
        let (names, interval) = (resolved.names(), resolved.interval().unwrap_or(operation.interval));
        let book_depth = resolved.book_depth();
        let (targets, report) = resolved.into_parts();
        let identity = None;
        let outcome =
            Outcome { new, had_none: had == 0, count, names, targets, report, interval, book_depth, identity };
        // The last lookups and the comparison with other sets.
        self.spend(slot_id, changes.len() as u64 / 2);
        Ok(self.begin_change(slot_id, operation, &changes, outcome))
    }

    fn check_memory(&mut self, id: u64, new: usize) -> Result<(), RequestError> {
        if !self.accounts.is_short || new == 0 {
            return Ok(());
        }
        self.counters.add(Counter::RequestsRefusedMemory, 1);
        let message = "symbols: the server is short of memory: expected no more subscriptions until it has some";
        Err(over_limit(id, message.to_owned()))
    }

    fn check_limits(&self, slot_id: SlotId, id: u64, new: usize, resolved: &Resolved) -> Result<(), RequestError> {
        let Some(client) = self.connections.get(slot_id) else { return Ok(()) };
        let (index, settings) = (&self.fan_out.index, self.settings);
        let total = index.items(client.audience) + new;
        if total > settings.subscriptions_max {
            let max = settings.subscriptions_max;
            let message = format!(
                "symbols: {total} subscriptions (symbols times channels): expected at most {max} per connection"
            );
            return Err(over_limit(id, message));
        }
        self.check_prefixes(id, client.audience, resolved.targets())?;
        let asked = Subscriptions { items: new as u32, names: resolved.names() };
        let instruments = self.market.directory.len();
        let of_all = Subscriptions {
            items: u32::try_from(index.all_items()).unwrap_or(u32::MAX).saturating_add(asked.items),
            // Those of this request are interned already.
            names: index.all_names().saturating_sub(instruments) as u32,
        };
        let of_address = client.account.map(|account| {
            let had = self.accounts.subscriptions(account);
            Subscriptions { items: had.items + asked.items, names: had.names + asked.names }
        });
        let (bytes_max, names_max) = (settings.subscription_bytes_max, settings.names_max);
        let is_over = |held: Subscriptions, part: usize| {
            held.bytes() > bytes_max / part || (asked.names > 0 && held.names as usize > names_max / part)
        };
        if of_address.is_some_and(|held| is_over(held, ADDRESS_PART)) {
            let message = "symbols: the subscriptions of this address would be over its part of the server's memory \
                           (subscription_bytes_max, names_max)";
            return Err(over_limit(id, message.to_owned()));
        }
        if is_over(of_all, 1) {
            let message =
                "symbols: the server has no memory for more subscriptions (subscription_bytes_max, names_max)";
            return Err(over_limit(id, message.to_owned()));
        }
        Ok(())
    }

    /// Prefixes are looked up for each record that they cover: few of them, and few that cover the same.
    fn check_prefixes(
        &self,
        id: u64,
        audience: AudienceId,
        targets: impl Iterator<Item = Target>,
    ) -> Result<(), RequestError> {
        let index = &self.fan_out.index;
        let new = targets.filter(|target| matches!(target, Target::Prefix(_)));
        let mut prefixes: Vec<&str> = new.map(|target| index.text(target)).collect();
        if prefixes.is_empty() {
            return Ok(());
        }
        let held = index.prefixes(audience);
        prefixes.extend(held.iter().map(|target| index.text(*target)));
        let nested = resolve::nesting(&mut prefixes);
        let (total, max) = (prefixes.len(), self.settings.patterns_max);
        let message = if total > max {
            format!("symbols: {total} patterns: expected at most {max} per connection")
        } else if nested > NESTED_MAX {
            format!("symbols: {nested} patterns that cover the same symbols: expected at most {NESTED_MAX}")
        } else {
            return Ok(());
        };
        Err(over_limit(id, message))
    }

    /// Begins to remove the items that were selected.
    fn begin_unsubscribe(&mut self, slot_id: SlotId, operation: &Operation, dropped: Vec<Key>, count: usize) -> Stage {
        let changes: Vec<Change> = dropped.into_iter().map(Change::Drop).collect();
        self.begin_change(slot_id, operation, &changes, Outcome { count, ..Outcome::default() })
    }

    fn begin_change(&mut self, slot_id: SlotId, operation: &Operation, changes: &[Change], outcome: Outcome) -> Stage {
        self.prepare_change(slot_id);
        let Some(audience) = self.connections.get(slot_id).map(|client| client.audience) else { return Stage::Done };
        let started = self.fan_out.index.begin_change(audience, changes);
        self.go_on(slot_id, operation, started, outcome)
    }

    /// The same for a client whose rights change with its set.
    pub(in crate::shard) fn begin_change_of_rights(
        &mut self,
        slot_id: SlotId,
        operation: &Operation,
        rights: &Arc<Rights>,
        changes: &[Change],
        identity: NewIdentity,
    ) -> Stage {
        self.prepare_change(slot_id);
        let Some(audience) = self.connections.get(slot_id).map(|client| client.audience) else { return Stage::Done };
        let started = self.fan_out.index.begin_change_of_rights(audience, rights, changes);
        let outcome = Outcome { identity: Some(identity), ..Outcome::default() };
        self.go_on(slot_id, operation, started, outcome)
    }

    fn go_on(&mut self, slot_id: SlotId, operation: &Operation, started: Started, outcome: Outcome) -> Stage {
        match started {
            Started::Done(audience) => {
                self.complete(slot_id, operation, audience, outcome);
                Stage::Done
            }
            Started::Building(building) => {
                // It gets its records meanwhile.
                self.backlog.enqueue(slot_id);
                Stage::Build(building, outcome)
            }
        }
    }

    /// Takes a client off the live path before its set of items changes.
    fn prepare_change(&mut self, slot_id: SlotId) {
        self.leave_live_path(slot_id);
        let (Some(client), Some(backlog)) = (self.connections.get(slot_id), self.backlog.own_mut(slot_id)) else {
            return;
        };
        if backlog.state.is_explicit() {
            return;
        }
        // Interval boundaries of the old items are not those of the new ones. Values that are pending at the old ones
        // are sent now; the client has had all others.
        let floor = backlog.state.last_cursor().floor;
        backlog.request(pending_values(self.fan_out, &self.market.values, client.audience, floor));
        backlog.state = StateWalk::at(StateCursor::explicit(self.now, self.market.cursor()));
    }

    /// The client has the changed set: it is answered, and what it begins with becomes pending.
    fn complete(&mut self, slot_id: SlotId, operation: &Operation, audience: AudienceId, mut outcome: Outcome) {
        self.fan_out.index.release_all(std::mem::take(&mut outcome.targets));
        if let Some(client) = self.connections.get_mut(slot_id) {
            client.audience = audience;
            let before = client.subscriptions;
            client.subscriptions.items = self.fan_out.index.items(audience) as u32;
            client.subscriptions.names = match client.subscriptions.items {
                0 => 0,
                _ => before.names.saturating_add(outcome.names),
            };
            if let Some(share) = &client.share {
                share.set(client.subscriptions.items.into());
            }
            if let Some(account) = client.account {
                self.accounts.subscribe(account, before, client.subscriptions);
            }
        }
        self.fan_out.audiences.grow(self.fan_out.index.audience_ids());
        self.backlog.enqueue(slot_id);
        match operation.kind {
            Kind::Subscribe { snapshot } => self.complete_subscribe(slot_id, operation, outcome, snapshot),
            Kind::Resume { token } => self.complete_resume(slot_id, operation, outcome, token),
            Kind::Auth => {
                if let Some(identity) = outcome.identity {
                    self.complete_auth(slot_id, operation.id, identity);
                }
            }
            Kind::Unsubscribe => {
                self.answer(slot_id, |out| reply::unsubscribed(out, operation.id, outcome.count));
            }
        }
    }

    fn complete_subscribe(&mut self, slot_id: SlotId, operation: &Operation, outcome: Outcome, snapshot: bool) {
        let start = if snapshot { Start::Snapshot } else { Start::Live };
        let Outcome { count, report, interval, book_depth, .. } = self.begin_items(slot_id, operation, outcome, start);
        let Report { unknown, denied, limited, delayed } = &report;
        let answer = reply::Subscribed {
            id: operation.id,
            conflate_ms: interval.interval_ms(),
            book_depth,
            count,
            unknown: &as_strs(unknown),
            denied: &as_strs(denied),
            limited: &as_strs(limited),
            delayed: &as_strs(delayed),
            delay_s: self.settings.delay_s,
        };
        self.answer(slot_id, |out| reply::subscribed(out, &answer));
        self.note_denied(slot_id, denied);
    }

    /// Continues after a token if the ring still has the records since then, and else begins with a snapshot.
    fn complete_resume(&mut self, slot_id: SlotId, operation: &Operation, outcome: Outcome, token: Token) {
        let (start, how, from, counter) = match self.find_token(token, outcome.interval) {
            Some(offset) => {
                let start = Start::Replay { position: token.position, offset };
                (start, "replay", token.position.next(), Counter::ResumesReplayed)
            }
            None => (Start::Snapshot, "snapshot", self.market.position.next(), Counter::ResumesSnapshot),
        };
        let Outcome { count, report, interval, book_depth, .. } = self.begin_items(slot_id, operation, outcome, start);
        self.counters.add(counter, 1);
        if start == Start::Snapshot {
            // Also where it is empty: the client waits for its end.
            self.leave_live_path(slot_id).snapshot = true;
        }
        let Report { unknown, denied, limited, delayed } = &report;
        let answer = reply::Resumed {
            id: operation.id,
            how,
            from,
            conflate_ms: interval.interval_ms(),
            book_depth,
            count,
            unknown: &as_strs(unknown),
            denied: &as_strs(denied),
            limited: &as_strs(limited),
            delayed: &as_strs(delayed),
            delay_s: self.settings.delay_s,
        };
        self.answer(slot_id, |out| reply::resumed(out, &answer));
        self.note_denied(slot_id, denied);
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

    /// Has the new items begin. Returns the outcome without them.
    fn begin_items(&mut self, slot_id: SlotId, operation: &Operation, mut outcome: Outcome, start: Start) -> Outcome {
        let new = std::mem::take(&mut outcome.new);
        if start == Start::Snapshot {
            self.spend(slot_id, outcome.count as u64 * cost::COVERED);
        }
        let market = (self.market.offset, self.market.position);
        let limits_depth =
            self.connections.get(slot_id).is_some_and(|client| self.fan_out.index.limits_depth(client.audience));
        let Some(backlog) = self.backlog.own_mut(slot_id) else { return outcome };
        let initial = match start {
            Start::Replay { position, offset } => {
                // Books of a limited depth are not replayed: their present state follows.
                let books = new.iter().filter(|key| limits_depth && key.channel() == Channel::Book);
                backlog.request(books.map(|key| (*key, InitialValue::Conflated)));
                backlog.replay = Some(Replay {
                    id: operation.id,
                    conflate_ms: outcome.interval.interval_ms(),
                    count: outcome.count,
                    keys: new,
                    has_only_these_items: outcome.had_none,
                    after: position,
                    range: offset..market.0,
                    end_position: market.1,
                    announce: Some(1),
                });
                return outcome;
            }
            Start::Snapshot => InitialValue::Snapshot,
            Start::Live => InitialValue::Definition,
        };
        backlog.snapshot |= initial == InitialValue::Snapshot && !new.is_empty();
        backlog.request(new.into_iter().map(|key| (key, initial)));
        outcome
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
    if !index.conflates(audience) {
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

fn over_limit(id: u64, message: String) -> RequestError {
    RequestError { id: Some(id), code: "limit", message }
}
