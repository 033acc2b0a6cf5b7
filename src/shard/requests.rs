//! What clients say: frames into events, requests into changes of interest and answers.
//!
//! A request is handled between two sweeps; its answer and what it makes the client be owed go out in the catch-up phase
//! of the same turn. Requests that follow one whose snapshot is still under way wait, in order.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use super::conflation::Lane;
use super::connections::{Ending, Owed, StateMark, StatePass};
use super::drain::push_last_words;
use super::replay::Replay;
use super::subscription_index::{Change, Key, Target};
use super::{Settings, Shard};
use crate::io::{Io, SlotId};
use crate::stats::Counter;
use tickcast_protocol::Token;
use tickcast_protocol::conflation::ConflationInterval;
use tickcast_protocol::control::{ChannelSet, Pattern, Request, RequestError, RequestLimits, parse_request, reply};
use tickcast_protocol::record::Channel;
use tickcast_protocol::sse;
use tickcast_protocol::ws::close::{CloseCode, push_close};
use tickcast_protocol::ws::deflate::Inflater;
use tickcast_protocol::ws::frame::{Opcode, push_frame};
use tickcast_protocol::ws::session::{Role, Session, SessionEvent, SessionLimits, Violation};

/// How a subscription begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// With the newest values.
    Snapshot,
    /// With what comes next.
    Live,
    /// With what came after a token's position, which the ring has from this place on.
    Replay { position: u64, place: u64 },
}

impl Begin {
    /// What is owed of each item, if not its history.
    fn owed(self) -> Option<Owed> {
        match self {
            Self::Snapshot => Some(Owed::Snapshot),
            Self::Live => Some(Owed::Definition),
            Self::Replay { .. } => None,
        }
    }
}

/// What a request names, so that an item is held against all of it at once: a request of 10,000 names from a client with
/// 10,000 items must not cost their product.
#[derive(Default)]
struct Named<'a> {
    exact: HashSet<&'a str, RandomState>,
    prefixes: HashSet<&'a str, RandomState>,
}

impl<'a> FromIterator<&'a Pattern> for Named<'a> {
    fn from_iter<T: IntoIterator<Item = &'a Pattern>>(patterns: T) -> Self {
        let mut named = Self::default();
        for pattern in patterns {
            match pattern {
                Pattern::Exact(name) => named.exact.insert(name),
                Pattern::Prefix(prefix) => named.prefixes.insert(prefix),
            };
        }
        named
    }
}

impl Named<'_> {
    fn covers(&self, symbol: &str) -> bool {
        self.exact.contains(symbol) || self.covers_pattern(symbol)
    }

    /// True if one of the patterns covers all that begins with `prefix`.
    fn covers_pattern(&self, prefix: &str) -> bool {
        let ends = prefix.char_indices().map(|(end, _)| end).chain([prefix.len()]);
        !self.prefixes.is_empty() && ends.into_iter().any(|end| self.prefixes.contains(&prefix[..end]))
    }
}

impl<I: Io> Shard<I> {
    pub(super) fn on_received(&mut self, slot_id: SlotId, input: &mut [u8], more: bool) {
        let now_ns = self.tick.now_ns;
        let Some(client) = self.holder(slot_id) else { return };
        client.receiving = false;
        client.pinged_ns = 0;
        client.received_ns = now_ns;
        client.readable |= more;
        if self.format(slot_id.index).is_websocket() {
            self.take_input(slot_id.index, input);
        } else {
            self.pass_over_input(slot_id.index);
        }
        self.receive_if_ready(slot_id.index);
    }

    /// A reader of events has said all in its request. What it sends after that means nothing, and costs as a request.
    fn pass_over_input(&mut self, slot: u32) {
        let client = self.clients[slot as usize].as_mut().expect("its input is being handled");
        if !client.request_bucket.take(self.settings.requests_per_s, self.tick.now_ns) && client.ending == Ending::No {
            self.counters.add(Counter::Floods, 1);
            self.say_farewell(slot, CloseCode::POLICY, "");
        }
    }

    /// Takes up what a reader of events has asked as it came. Up to now it wanted nothing, and so has missed nothing.
    pub(super) fn take_up_arrival(&mut self, slot_id: SlotId, request: Request) {
        let Some(client) = self.holder(slot_id).filter(|client| client.ending == Ending::No) else { return };
        let answers = client.catch_up.take().map(|catch_up| catch_up.control);
        self.catching_up -= usize::from(answers.is_some());
        let now_ns = self.tick.now_ns;
        self.begin_catch_up(slot_id.index, now_ns).control = answers.unwrap_or_default();
        self.queue(slot_id.index);
        self.counters.add(Counter::Requests, 1);
        if let Err(error) = self.handle(slot_id.index, request) {
            self.answer_error(slot_id.index, &error);
            self.say_farewell(slot_id.index, CloseCode::POLICY, "");
        }
    }

    /// Keeps input until the client is owed nothing.
    pub(super) fn hold_input(&mut self, slot: u32, input: Vec<u8>) {
        let Some(client) = self.client(slot) else { return };
        let slot_id = client.slot_id;
        self.held.push((slot_id, input));
    }

    /// Goes on with input that was kept.
    pub(super) fn take_up_held_input(&mut self, slot_id: SlotId, mut input: Vec<u8>) {
        if self.holder(slot_id).is_some() {
            self.take_input(slot_id.index, &mut input);
            self.receive_if_ready(slot_id.index);
        }
    }

    /// Handles the frames in `input`, one after another, until the client has to wait or is on its way out.
    fn take_input(&mut self, slot: u32, input: &mut [u8]) {
        // What it inflates is lent to events, and handling them needs the whole shard: it stands aside.
        let mut inflater = std::mem::replace(&mut self.inflater, Inflater::new(0));
        self.take_frames(slot, input, &mut inflater);
        self.inflater = inflater;
    }

    fn take_frames(&mut self, slot: u32, input: &mut [u8], inflater: &mut Inflater) {
        let limits = SessionLimits { message_bytes_max: self.settings.request_bytes_max };
        let mut at = 0;
        loop {
            let tick = self.tick.number;
            let Some(client) = self.client_mut(slot) else { return };
            if at < input.len() && client.ending == Ending::No && client.must_wait(tick) {
                let catch_up = client.catch_up.as_mut().expect("only who catches up has to wait");
                catch_up.held_input.extend_from_slice(&input[at..]);
                return;
            }
            // The event borrows the session, and handling it needs the whole shard: the session stands aside.
            let mut session = std::mem::replace(&mut client.session, Session::new(Role::Server));
            let mut consumed = 0;
            let outcome = session.next_inflating(&limits, inflater, &mut input[at..], &mut consumed);
            let goes_on = match outcome {
                Ok(Some(event)) => self.on_event(slot, event),
                Ok(None) => false,
                Err(violation) => {
                    self.count_violation(&violation);
                    let (code, reason) = (violation.close_code(), violation.to_string());
                    self.say_farewell(slot, code, &reason);
                    false
                }
            };
            at += consumed;
            match self.client_mut(slot) {
                Some(client) => client.session = session,
                None => return,
            }
            if !goes_on {
                return;
            }
        }
    }

    fn count_violation(&mut self, violation: &Violation) {
        self.counters.add(Counter::Violations, 1);
        if matches!(violation, Violation::InflatesTooBig { .. } | Violation::InflatesTooFar { .. }) {
            self.counters.add(Counter::InflatedTooFar, 1);
        }
    }

    /// True if the next frame may be handled.
    fn on_event(&mut self, slot: u32, event: SessionEvent<'_>) -> bool {
        let client = self.clients[slot as usize].as_mut().expect("its input is being handled");
        if client.ending != Ending::No {
            // Only the answer to our close frame is awaited; a peer that was quicker has not had ours yet.
            if matches!(event, SessionEvent::Close(_)) {
                match client.ending {
                    Ending::Closing { .. } => client.ending = Ending::Closing { echo: true },
                    _ => self.drop_client(slot),
                }
                return false;
            }
            // What it still sends is read past, and that is work, too.
            let goes_on = client.request_bucket.take(self.settings.requests_per_s, self.tick.now_ns);
            if !goes_on && matches!(client.ending, Ending::Lingering { .. }) {
                self.drop_client(slot);
            }
            return goes_on;
        }
        match event {
            SessionEvent::Pong(_) => return true,
            SessionEvent::Close(frame) => {
                //= RFC 6455 section 5.5.1
                //# "When sending a Close frame in response, the endpoint typically echos the status code it received."
                let code = frame.map_or(CloseCode::NORMAL, |frame| frame.code);
                self.end(slot, code, "", true);
                return false;
            }
            SessionEvent::Text(_) | SessionEvent::Binary(_) | SessionEvent::Ping(_) => {}
        }
        if !client.request_bucket.take(self.settings.requests_per_s, self.tick.now_ns) {
            self.counters.add(Counter::Floods, 1);
            let reason = format!("more than {} requests a second", self.settings.requests_per_s);
            self.say_farewell(slot, CloseCode::POLICY, &reason);
            return false;
        }
        self.counters.add(Counter::Requests, 1);
        match event {
            SessionEvent::Text(text) => self.on_request(slot, text),
            //= RFC 6455 section 5.5.3
            //# "A Pong frame sent in response to a Ping frame must have identical \"Application data\" as found in
            //# the message body of the Ping frame being replied to."
            SessionEvent::Ping(payload) => self.answer_frame(slot, Opcode::Pong, payload),
            _ => {
                let message = "binary frames are for publishers, at /v1/publish; requests are JSON in text frames";
                self.answer_error(slot, &RequestError { id: None, code: "bad_request", message: message.to_owned() });
            }
        }
        true
    }

    fn on_request(&mut self, slot: u32, text: &mut [u8]) {
        let Settings { subscriptions_max, symbol_bytes_max, .. } = self.settings;
        let limits = RequestLimits { symbols_max: subscriptions_max, symbol_bytes_max };
        let handled = parse_request(text, &limits).and_then(|request| self.handle(slot, request));
        if let Err(error) = handled {
            self.answer_error(slot, &error);
        }
    }

    fn handle(&mut self, slot: u32, request: Request) -> Result<(), RequestError> {
        match request {
            Request::Ping { id } => {
                let now_ns = self.tick.now_ns;
                self.answer(slot, |out| reply::pong(out, id, now_ns));
                Ok(())
            }
            Request::Subscribe { id, channels, symbols, conflate, snapshot } => {
                let begin = if snapshot { Begin::Snapshot } else { Begin::Live };
                let (count, unknown) = self.subscribe(slot, id, channels, &symbols, conflate, begin)?;
                let unknown: Vec<&str> = unknown.iter().map(String::as_str).collect();
                self.answer(slot, |out| reply::subscribed(out, id, conflate.interval_ms(), count, &unknown, &[]));
                Ok(())
            }
            Request::Resume { id, token, channels, symbols, conflate } => {
                self.resume(slot, id, token, channels, &symbols, conflate)
            }
            Request::Unsubscribe { id, channels, symbols } => {
                let count = self.unsubscribe(slot, channels, &symbols);
                self.answer(slot, |out| reply::unsubscribed(out, id, count));
                Ok(())
            }
        }
    }

    /// Goes on from a token where the ring still has what came after it, and else begins with a snapshot.
    fn resume(
        &mut self,
        slot: u32,
        id: u64,
        token: Token,
        channels: ChannelSet,
        symbols: &[Pattern],
        interval: ConflationInterval,
    ) -> Result<(), RequestError> {
        let (begin, how, from, counter) = match self.find_token(token, interval) {
            Some(place) => {
                let begin = Begin::Replay { position: token.position.get(), place };
                (begin, "replay", token.position.next(), Counter::ResumesReplayed)
            }
            None => (Begin::Snapshot, "snapshot", (self.tick.position + 1).into(), Counter::ResumesSnapshot),
        };
        let (count, unknown) = self.subscribe(slot, id, channels, symbols, interval, begin)?;
        self.counters.add(counter, 1);
        if begin == Begin::Snapshot {
            // Also where nothing is in it: the client waits for its end.
            self.begin_catch_up(slot, self.tick.now_ns).snapshot = true;
        }
        let unknown: Vec<&str> = unknown.iter().map(String::as_str).collect();
        let conflate_ms = interval.interval_ms();
        let answer = reply::Resumed { id, how, from, conflate_ms, count, unknown: &unknown };
        self.answer(slot, |out| reply::resumed(out, &answer));
        Ok(())
    }

    /// What an exact name points at. A reader of events cannot ask again for what there was not: it has the name itself,
    /// so that a token from before the definition is good as well. All of them do, whenever they came, so that those who
    /// want the same are one audience.
    fn name_target(&mut self, audience: u32, name: &str, known: Option<u32>) -> Option<Target> {
        if self.interest.encoding(audience).format.is_websocket() {
            known.map(Target::Instrument)
        } else {
            Some(Target::Pattern(self.interest.intern_name(name)))
        }
    }

    /// Returns how many instruments the request covers now, and the names that it does not know.
    fn subscribe(
        &mut self,
        slot: u32,
        id: u64,
        channels: ChannelSet,
        symbols: &[Pattern],
        interval: ConflationInterval,
        begin: Begin,
    ) -> Result<(usize, Vec<String>), RequestError> {
        let audience = self.client(slot).expect("its request is being handled").audience;
        let mut targets = Vec::with_capacity(symbols.len());
        let mut unknown = Vec::new();
        for symbol in symbols {
            match symbol {
                Pattern::Prefix(prefix) => targets.push(Target::Pattern(self.interest.intern(prefix))),
                Pattern::Exact(name) => {
                    let known = self.directory.find(name).map(|instrument| instrument.id);
                    unknown.extend(known.is_none().then(|| name.clone()));
                    targets.extend(self.name_target(audience, name, known));
                }
            }
        }
        targets.sort_unstable();
        targets.dedup();
        let keys: Vec<Key> =
            targets.iter().flat_map(|target| channels.iter().map(|channel| Key::new(*target, channel))).collect();
        let new: Vec<Key> =
            keys.iter().copied().filter(|key| self.interest.interval_of(audience, *key).is_none()).collect();
        let total = self.interest.items(audience) + new.len();
        if total > self.settings.subscriptions_max {
            self.release(&targets);
            let max = self.settings.subscriptions_max;
            let message = format!(
                "symbols: {total} subscriptions (symbols times channels) would be held; at most {max} a connection"
            );
            return Err(RequestError { id: Some(id), code: "limit", message });
        }
        let changes: Vec<Change> = keys.into_iter().map(|key| Change::Want(key, interval)).collect();
        let job = begin.owed().map_or(Vec::new(), |owed| new.iter().map(|key| (*key, owed)).collect());
        let alone = self.interest.items(audience) == 0;
        self.change_interest(slot, &changes, job, begin == Begin::Snapshot && !new.is_empty());
        self.clients[slot as usize].as_mut().expect("its request is being handled").unsubscribed_since_ns = 0;
        let count = self.count_covered(&targets);
        if let Begin::Replay { position, place } = begin {
            let conflate_ms = interval.interval_ms();
            let (end, end_position) = (self.tick.ring_position, self.tick.position);
            let keys = new;
            let replay = Replay {
                id,
                conflate_ms,
                count,
                keys,
                alone,
                after: position,
                announce: 1,
                next: place,
                end,
                end_position,
            };
            self.begin_catch_up(slot, self.tick.now_ns).replay = Some(replay);
        }
        Ok((count, unknown))
    }

    /// Returns how many instruments are concerned. A name takes its own item away; a pattern all that it covers, names and
    /// narrower patterns included.
    fn unsubscribe(&mut self, slot: u32, channels: ChannelSet, symbols: &[Pattern]) -> usize {
        let audience = self.client(slot).expect("its request is being handled").audience;
        let named: Named<'_> = symbols.iter().collect();
        let covered = |key: &Key| {
            channels.contains(key.channel())
                && match key.target() {
                    Target::Instrument(id) => named.covers(self.interest.symbol(id)),
                    Target::Pattern(name) if self.interest.is_name(name) => named.covers(self.interest.prefix(name)),
                    Target::Pattern(pattern) => named.covers_pattern(self.interest.prefix(pattern)),
                }
        };
        let dropped: Vec<Key> = self.interest.keys(audience).filter(covered).collect();
        let mut targets: Vec<Target> = dropped.iter().map(|key| key.target()).collect();
        targets.dedup();
        let count = self.count_covered(&targets);
        let changes: Vec<Change> = dropped.into_iter().map(Change::Drop).collect();
        self.change_interest(slot, &changes, Vec::new(), false);
        count
    }

    /// Values newer than `floor` that wait for a tick which the audience's members would get them at.
    fn waiting_for_ticks(&self, audience: u32, floor: u64) -> Vec<(Key, Owed)> {
        let mut waiting = Vec::new();
        if self.interest.items(audience) == 0 {
            return waiting;
        }
        for interval in (1..ConflationInterval::COUNT).map(ConflationInterval::from_index) {
            for &(instrument, channel) in self.conflator.queue(interval) {
                let lane = if channel == Channel::Quote { self.lane(audience, instrument) } else { Lane::Plain };
                let place = self.values.row(instrument).map_or(0, |row| row.position(channel));
                if place > floor
                    && self.conflator.is_pending(interval, instrument, channel, lane)
                    && self.interest.wants(audience, instrument, channel) == Some(interval)
                {
                    waiting.push((Key::new(Target::Instrument(instrument), channel), Owed::Merged));
                }
            }
        }
        waiting
    }

    fn count_covered(&self, targets: &[Target]) -> usize {
        let mut covered: Vec<u32> =
            targets.iter().flat_map(|target| self.interest.covered(target).iter().copied()).collect();
        covered.sort_unstable();
        covered.dedup();
        covered.len()
    }

    fn change_interest(&mut self, slot: u32, changes: &[Change], job: Vec<(Key, Owed)>, snapshot: bool) {
        let now_ns = self.tick.now_ns;
        let place = self.tick.ring_position;
        let tick = self.tick.number;
        let state = &self.begin_catch_up(slot, now_ns).state;
        if !state.is_explicit() {
            // The old intervals' ticks are not the new ones': what waits for them is sent now, and the rest it has had.
            let floor = state.mark_of(u32::MAX).floor;
            let waiting =
                self.waiting_for_ticks(self.client(slot).expect("its request is being handled").audience, floor);
            let catch_up = self.begin_catch_up(slot, now_ns);
            catch_up.job.extend(waiting);
            catch_up.state = StatePass::at(StateMark { tick, place, explicit: true, floor: place });
        }
        let catch_up = self.begin_catch_up(slot, now_ns);
        catch_up.owe(job);
        catch_up.snapshot |= snapshot;
        let client = self.clients[slot as usize].as_mut().expect("its request is being handled");
        client.audience = self.interest.change(client.audience, changes);
        self.audiences.grow(self.interest.audience_ids());
        self.queue(slot);
    }

    fn release(&mut self, targets: &[Target]) {
        for target in targets {
            if let Target::Pattern(pattern) = target {
                self.interest.release_unused(*pattern);
            }
        }
    }

    /// Greets a client that has just come.
    pub(super) fn welcome(&mut self, slot: u32) {
        let Settings { epoch, heartbeat_ms, subscriptions_max, requests_per_s, .. } = self.settings;
        let limits = reply::WelcomeLimits { symbols: subscriptions_max as u64, requests_per_s: requests_per_s.into() };
        if !self.format(slot).is_websocket() {
            // A stream that breaks without a word is resumed as one that was ended: not by all at the same moment.
            self.owe_bytes(slot, |out| sse::push_retry(super::connections::reconnect_ms(slot), out));
        }
        self.answer(slot, |out| {
            reply::welcome(out, epoch, env!("CARGO_PKG_VERSION"), heartbeat_ms.into(), limits);
        });
    }

    fn answer_error(&mut self, slot: u32, error: &RequestError) {
        self.counters.add(Counter::RequestErrors, 1);
        self.answer(slot, |out| reply::error(out, error.id, error.code, &error.message));
    }

    fn answer(&mut self, slot: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let mut text = Vec::new();
        write(&mut text);
        let format = self.format(slot);
        self.owe_bytes(slot, |out| format.push_answer(&text, out));
    }

    /// Owes the client a frame.
    pub(super) fn answer_frame(&mut self, slot: u32, opcode: Opcode, payload: &[u8]) {
        self.owe_bytes(slot, |out| push_frame(opcode, payload, out));
    }

    /// Owes the client what is appended. One that sends requests and never reads is closed at the limit; a reader of
    /// events has sent one.
    fn owe_bytes(&mut self, slot: u32, push: impl FnOnce(&mut Vec<u8>)) {
        let now_ns = self.tick.now_ns;
        let limit = if self.format(slot).is_websocket() { self.settings.answers_bytes_max } else { usize::MAX };
        let catch_up = self.begin_catch_up(slot, now_ns);
        let owed = catch_up.control.len();
        push(&mut catch_up.control);
        self.queue(slot);
        if owed > limit {
            self.counters.add(Counter::Floods, 1);
            let reason = format!("more than {limit} bytes of answers are not read");
            self.say_farewell(slot, CloseCode::POLICY, &reason);
        }
    }

    /// Ends a connection from our side: the close frame goes behind what is owed already.
    pub(super) fn say_farewell(&mut self, slot: u32, code: CloseCode, reason: &str) {
        self.end(slot, code, reason, false);
    }

    fn end(&mut self, slot: u32, code: CloseCode, reason: &str, echo: bool) {
        let now_ns = self.tick.now_ns;
        if self.client(slot).is_none_or(|client| client.ending != Ending::No) {
            return;
        }
        let format = self.format(slot);
        let catch_up = self.begin_catch_up(slot, now_ns);
        if echo {
            push_close(code, reason, &mut catch_up.control);
        } else {
            push_last_words(format, code, reason, slot, &mut catch_up.control);
        }
        let echo = echo || !format.is_websocket();
        self.clients[slot as usize].as_mut().expect("looked up above").ending = Ending::Closing { echo };
        self.queue(slot);
    }

    /// The close frame is out.
    pub(super) fn conclude_ending(&mut self, slot: u32) {
        let until_ns = self.tick.now_ns + u64::from(self.settings.close_timeout_ms) * 1_000_000;
        let client = self.clients[slot as usize].as_mut().expect("only those who are there end");
        if client.ending == (Ending::Closing { echo: true }) {
            // Both close frames are exchanged; the server is the one to end the connection.
            self.drop_client(slot);
            return;
        }
        self.catching_up -= usize::from(client.catch_up.take().is_some());
        client.ending = Ending::Lingering { until_ns };
        // A parser that met a violation must not go on; what comes is only looked through for a close frame.
        client.session = super::session(self.interest.encoding(client.audience));
        self.receive_if_ready(slot);
    }

    pub(super) fn wants_channel(&self, audience: u32, instrument: u32, channel: Channel) -> bool {
        self.interest.wants(audience, instrument, channel).is_some()
    }
}
