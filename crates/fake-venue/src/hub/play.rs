//! The session: events are taken when they are due, and written to those that have subscribed them.

use std::collections::BTreeMap;

use super::connection::Flow;
use super::faults::{Class, Fault, FaultPlace};
use super::{Hub, QUEUE_MAX, class_of};
use crate::dialect::{Channel, Event, Stream};
use crate::market::Session;
use crate::market::book::{Change, Side};
use crate::market::step::{Ids, What};
use crate::venue::VenueKind;

/// Statistics are sent so often, at most.
const TICKER_NS: u64 = 200_000_000;
/// Events of one call, so that clients are served between.
const STEPS_AT_ONCE: usize = 256;
/// A message that is sent again comes after so many others, where messages are numbered.
const REPEATED_AFTER: u32 = 3;
/// The levels that a checksum of Kraken covers.
const CHECKED_LEVELS: usize = 10;
/// To settle, at most so many events are played.
const SETTLING_STEPS_MAX: usize = 20_000;

impl Hub {
    /// Plays what is due, and returns when to call again.
    pub fn advance(&mut self, now_ns: u64) -> u64 {
        self.tick(now_ns);
        for _ in 0..STEPS_AT_ONCE {
            let Some(position_ns) = self.clock.position_ns(now_ns, self.options.speed) else { break };
            if self.is_held_up() {
                return now_ns + 1_000_000;
            }
            let Some(due_ns) = self.next_due_ns() else { break };
            if due_ns > position_ns {
                return self.clock.wall_ns(due_ns, self.options.speed).min(now_ns + 50_000_000);
            }
            self.play(due_ns, now_ns);
        }
        let is_playing = self.clock.position_ns(now_ns, self.options.speed) == Some(u64::MAX);
        if is_playing && self.next_due_ns().is_some() { now_ns } else { now_ns + 5_000_000 }
    }

    /// True if a recording is over, and everything of it was sent.
    pub fn is_over(&self) -> bool {
        matches!(&self.session, Session::Recorded(steps) if steps.is_empty())
            && self.ahead.is_none()
            && self.views.values().all(|view| view.due_ns().is_none())
    }

    /// Ends the faults, plays on until every instrument has had a trade and a change of its book, publishes everything, and
    /// lets the session stand still: from now on the books of clients can be compared with [`Hub::truth`].
    pub fn stop_session(&mut self, now_ns: u64) {
        self.faults.end();
        let count = self.market.listed.len();
        let (mut changed, mut traded) = (vec![0; count], vec![0; count]);
        for _ in 0..SETTLING_STEPS_MAX {
            // The second change shows by its number that one before it is missing.
            if changed.iter().all(|times| *times > 1) && traded.iter().all(|times| *times > 1) {
                break;
            }
            let Some(step) = self.ahead.take().or_else(|| self.session.next_step()) else { break };
            match &step.what {
                What::Changes { .. } => changed[step.instrument] += 1,
                What::Trade(_) => traded[step.instrument] += 1,
                What::Quote | What::Ticker => {}
            }
            let instrument = step.instrument;
            self.ahead = Some(step);
            self.play_step(now_ns);
            self.publish_all(Some(instrument), now_ns);
        }
        self.publish_all(None, now_ns);
        self.clock.stand(now_ns);
    }

    /// Lets the session go on.
    pub fn resume_session(&mut self, now_ns: u64) {
        self.clock.go_on(now_ns);
    }

    fn publish_all(&mut self, instrument: Option<usize>, now_ns: u64) {
        let is_due = |stream: &&Stream| instrument.is_none_or(|instrument| stream.instrument == instrument);
        let streams: Vec<_> = self.views.keys().filter(is_due).copied().collect();
        streams.into_iter().for_each(|stream| self.publish_view(stream, now_ns));
        let tickers: Vec<_> = self.tickers.keys().copied().collect();
        for of in tickers.into_iter().filter(|of| instrument.is_none_or(|instrument| instrument == *of)) {
            self.tickers.remove(&of);
            self.emit(of, Event::Ticker, now_ns);
        }
    }

    /// The time of the session at which the next thing is due.
    fn next_due_ns(&mut self) -> Option<u64> {
        if self.ahead.is_none() {
            self.ahead = self.session.next_step();
        }
        let views = self.views.values().filter_map(|view| view.due_ns());
        let tickers = self.tickers.values().copied();
        self.ahead.iter().map(|step| step.at_ns).chain(views).chain(tickers).min()
    }

    fn play(&mut self, due_ns: u64, now_ns: u64) {
        let view = self.views.iter().find(|(_, view)| view.due_ns().is_some_and(|at_ns| at_ns <= due_ns));
        if let Some(stream) = view.map(|(stream, _)| *stream) {
            return self.publish_view(stream, now_ns);
        }
        let ticker = self.tickers.iter().find(|(_, at_ns)| **at_ns <= due_ns);
        if let Some(instrument) = ticker.map(|(instrument, _)| *instrument) {
            self.tickers.remove(&instrument);
            return self.emit(instrument, Event::Ticker, now_ns);
        }
        self.play_step(now_ns);
    }

    pub(super) fn play_step(&mut self, now_ns: u64) {
        let Some(mut step) = self.ahead.take() else { return };
        let instrument = step.instrument;
        if self.market.listed[instrument].instrument.status == crate::market::instrument::Status::Delisted {
            return;
        }
        self.steps += 1;
        let ids = self.market.take(&mut step, now_ns);
        match (&step.what, ids) {
            (What::Changes { changes, .. }, Some(ids)) => {
                self.note_changes(instrument, changes, ids, step.at_ns, step.raw.as_deref());
                let is_own = self.session.has_quotes(self.options.venue);
                if self.market.is_quote_new(instrument) && !is_own {
                    self.emit_and_ticker(instrument, Event::Quote, step.at_ns, now_ns);
                }
                self.publish_due(instrument, step.at_ns, now_ns);
            }
            (What::Trade(trade), _) => {
                let event = Event::Trade { trade, raw: step.raw.as_deref() };
                self.emit_and_ticker(instrument, event, step.at_ns, now_ns);
            }
            (What::Quote, _) => self.emit(instrument, Event::Quote, now_ns),
            (What::Ticker, _) => self.emit(instrument, Event::Ticker, now_ns),
            _ => {}
        }
    }

    /// Notes changes in all views of an instrument.
    pub(super) fn note_changes(
        &mut self,
        instrument: usize,
        changes: &[Change],
        ids: Ids,
        at_ns: u64,
        raw: Option<&str>,
    ) {
        for (stream, view) in &mut self.views {
            if stream.instrument == instrument {
                view.note(changes, ids, at_ns, raw);
            }
        }
    }

    fn publish_due(&mut self, instrument: usize, at_ns: u64, now_ns: u64) {
        let is_due = |stream: &Stream, due_ns: Option<u64>| {
            stream.instrument == instrument && due_ns.is_some_and(|due_ns| due_ns <= at_ns)
        };
        let due: Vec<_> =
            self.views.iter().filter(|(stream, view)| is_due(stream, view.due_ns())).map(|(s, _)| *s).collect();
        due.into_iter().for_each(|stream| self.publish_view(stream, now_ns));
    }

    /// Publishes the changes of a view.
    pub(super) fn publish_view(&mut self, stream: Stream, now_ns: u64) {
        let of = &self.market.listed[stream.instrument];
        let update = self.views.get_mut(&stream).and_then(|view| view.publish(of));
        if let Some(update) = update {
            self.emit_to(&[stream], Event::Book(&update), now_ns);
        }
    }

    fn emit_and_ticker(&mut self, instrument: usize, event: Event<'_>, at_ns: u64, now_ns: u64) {
        self.emit(instrument, event, now_ns);
        if self.dialect.ticker_follows(event) {
            if !self.session.has_tickers(self.options.venue) {
                self.emit(instrument, Event::Ticker, now_ns);
            }
        } else if self.dialect.has_periodic_ticker() {
            self.tickers.entry(instrument).or_insert(at_ns + TICKER_NS);
        }
    }

    /// Writes an event to all streams of its instrument that show it.
    pub(super) fn emit(&mut self, instrument: usize, event: Event<'_>, now_ns: u64) {
        let channels: &[Channel] = match event {
            Event::Quote => {
                self.quoted_ns.insert(instrument, now_ns);
                &[Channel::Quote]
            }
            Event::Trade { .. } => &[Channel::Trade, Channel::AggTrade],
            Event::Ticker => &[Channel::Ticker],
            Event::Book(_) => &[],
        };
        let streams: Vec<_> = channels.iter().map(|channel| Stream { channel: *channel, instrument }).collect();
        self.emit_to(&streams, event, now_ns);
    }

    fn emit_to(&mut self, streams: &[Stream], event: Event<'_>, now_ns: u64) {
        let mut texts: BTreeMap<Stream, String> = BTreeMap::new();
        for stream in streams {
            let connections: Vec<_> = self.connections.keys().copied().collect();
            for id in connections {
                let Some(subscription) = self.connections[&id].subscriptions.get(stream) else { continue };
                let name = subscription.name.clone();
                if !texts.contains_key(stream) {
                    let of = &self.market.listed[stream.instrument];
                    let Some(text) = self.dialect.message(of, *stream, &name, event, now_ns) else { break };
                    texts.insert(*stream, text);
                }
                let text = &texts[stream];
                let text =
                    if self.connections[&id].is_combined { self.dialect.wrapped(&name, text) } else { text.clone() };
                self.deliver(id, *stream, text, event, now_ns);
            }
        }
    }

    /// Sends a message on a connection, unless its subscription or a fault says otherwise.
    fn deliver(&mut self, id: u64, stream: Stream, text: String, event: Event<'_>, now_ns: u64) {
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| !connection.is_closed) else { return };
        let Some(subscription) = connection.subscriptions.get_mut(&stream) else { return };
        let name = subscription.name.clone();
        match std::mem::replace(&mut subscription.flow, Flow::Open) {
            Flow::Open => {}
            Flow::Stale(first) => {
                first.into_iter().for_each(|text| connection.send(text, now_ns));
                return;
            }
            waiting => {
                subscription.flow = waiting;
                return;
            }
        }
        if connection.out.len() > QUEUE_MAX {
            connection.close(1008, "slow consumer");
            return;
        }
        let at = FaultPlace { now_ns, connection: Some(id), place: &name };
        let fault = class_of(stream.channel).and_then(|class| {
            let kinds = self.possible(class, event);
            self.faults.take(&kinds, class, at)
        });
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match fault {
            None => connection.send(text, now_ns),
            Some(Fault::Cut) => connection.cut(text),
            Some(Fault::BadJson) => connection.send(cut_off(&text), now_ns),
            Some(Fault::BadChecksum) => connection.send(with_wrong_checksum(&text), now_ns),
            Some(Fault::Repeat) => {
                let venue = self.options.venue;
                let is_numbered = venue != VenueKind::Kraken && venue != VenueKind::Coinbase;
                let after = if is_numbered { REPEATED_AFTER } else { 1 };
                connection.repeats.push((after, text.clone()));
                connection.send(text, now_ns);
            }
            // Skip: nothing is sent.
            Some(_) => {}
        }
    }

    /// The faults that a message of this event can have.
    fn possible(&self, class: Class, event: Event<'_>) -> Vec<Fault> {
        let venue = self.options.venue;
        let mut kinds = vec![Fault::Cut, Fault::BadJson, Fault::Repeat];
        if Fault::BadChecksum.can_happen(venue, class) {
            kinds.push(Fault::BadChecksum);
        }
        if is_missed(venue, event) {
            kinds.push(Fault::Skip);
        }
        kinds
    }
}

/// True if a client can notice that the message is missing. A checksum of Kraken shows it if all changes are among the
/// levels that it covers.
fn is_missed(venue: VenueKind, event: Event<'_>) -> bool {
    let Event::Book(update) = event else { return true };
    if venue != VenueKind::Kraken {
        return venue != VenueKind::Coinbase;
    }
    let covers = |change: &Change| {
        let best = update.book.best(change.side, CHECKED_LEVELS);
        !change.is_removal() && best.iter().any(|(px, _)| *px == change.px)
    };
    [Side::Bid, Side::Ask].iter().all(|side| update.book.len(*side) > CHECKED_LEVELS)
        && update.changes.iter().all(covers)
}

/// The first two thirds of a message.
fn cut_off(text: &str) -> String {
    let end = (0..=text.len() * 2 / 3).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}

/// The message with another checksum.
fn with_wrong_checksum(text: &str) -> String {
    let Some((before, after)) = text.split_once("\"checksum\":") else { return text.to_owned() };
    let end = after.find([',', '}']).unwrap_or(after.len());
    let stated: i64 = after[..end].parse().unwrap_or(0);
    let wrong = if stated == 1 { 2 } else { 1 };
    format!("{before}\"checksum\":{wrong}{}", &after[end..])
}
