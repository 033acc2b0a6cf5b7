//! What happens by itself: heartbeats, pings, limits of time, maintenance, scripted changes.

use super::Hub;
use super::class_of;
use super::connection::{Connection, Flow};
use super::faults::{Class, Fault, FaultPlace};
use crate::dialect::{Channel, Event, Stream};
use crate::market::Session;
use crate::market::step::Ids;
use crate::venue::VenueKind;

const HEARTBEAT_NS: u64 = 1_000_000_000;
const FORMER_NS: u64 = 500_000_000;
/// Bybit sends best prices again after this without a change.
const QUOTE_AGAIN_NS: u64 = 3_000_000_000;
const MS: u64 = 1_000_000;

impl Hub {
    pub(super) fn tick(&mut self, now_ns: u64) {
        self.faults.tick(now_ns);
        self.take_timed_faults(now_ns);
        self.take_script(now_ns);
        if now_ns.saturating_sub(self.former_ns) >= FORMER_NS {
            self.former_ns = now_ns;
            let newest = self.market.listed.clone();
            self.former[0] = std::mem::replace(&mut self.former[1], newest);
        }
        if self.down_ns.is_some_and(|until_ns| now_ns >= until_ns) {
            self.down_ns = None;
            self.end_maintenance(now_ns);
        }
        self.send_late_snapshots(now_ns);
        if now_ns.saturating_sub(self.heartbeat_ns) >= HEARTBEAT_NS {
            self.heartbeat_ns = now_ns;
            self.send_heartbeats(now_ns);
        }
        let day_ms = self.options.day_ms;
        self.connections.values_mut().for_each(|connection| keep(connection, day_ms, now_ns));
    }

    fn take_timed_faults(&mut self, now_ns: u64) {
        if self.clock.began_ns.is_none() || self.clock.stands_since_ns.is_some() {
            return;
        }
        let at = FaultPlace { now_ns, connection: None, place: "" };
        if self.faults.take(&[Fault::RateLimit], Class::Book, at).is_some() {
            self.limited_ns = Some(now_ns + self.options.limited_ms * MS);
            self.refused = 0;
        }
        if self.connections.is_empty() {
            return;
        }
        if self.faults.take(&[Fault::Maintenance], Class::Book, at).is_some() {
            self.begin_maintenance(now_ns);
        }
        if self.faults.take(&[Fault::Close24h], Class::Book, at).is_some()
            && let Some(oldest) = self.connections.values_mut().find(|connection| !connection.is_closed)
        {
            oldest.close(1001, "24 hours");
        }
        for class in Class::ALL {
            self.mute_a_stream(class, now_ns);
        }
    }

    /// A stream that was acknowledged becomes silent.
    fn mute_a_stream(&mut self, class: Class, now_ns: u64) {
        for connection in self.connections.values_mut() {
            let of_class = |(stream, of): &(&Stream, &mut super::Subscription)| {
                class_of(stream.channel) == Some(class) && of.flow == Flow::Open
            };
            let Some((_, subscription)) = connection.subscriptions.iter_mut().find(of_class) else { continue };
            let name = subscription.name.clone();
            let at = FaultPlace { now_ns, connection: Some(connection.id), place: &name };
            if self.faults.take(&[Fault::Silent], class, at).is_some() {
                subscription.flow = Flow::Muted;
            }
            return;
        }
    }

    fn begin_maintenance(&mut self, now_ns: u64) {
        let notice_ns = self.options.notice_ms * MS;
        let mut is_announced = false;
        for connection in self.connections.values_mut() {
            if let Some(text) = self.dialect.maintenance_status(false, connection, now_ns)
                && hears_status(self.options.venue, connection)
            {
                connection.send(text, now_ns);
            }
            if let Some(text) = self.dialect.closing_notice(connection, now_ns) {
                connection.send(text, now_ns);
                connection.closes_ns = Some(now_ns + notice_ns);
                is_announced = true;
            }
        }
        match self.options.venue {
            venue if venue.is_bybit() => self.restart_books(now_ns),
            VenueKind::Kraken => {
                self.down_ns = Some(now_ns + self.options.down_ms * MS);
                self.clock.stand(now_ns);
            }
            VenueKind::Okx => self.down_ns = Some(now_ns),
            _ if is_announced => {}
            _ => {
                self.down_ns = Some(now_ns + self.options.down_ms * MS);
                self.connections.values_mut().for_each(|connection| connection.close(1012, "service restart"));
            }
        }
    }

    fn end_maintenance(&mut self, now_ns: u64) {
        self.clock.go_on(now_ns);
        for connection in self.connections.values_mut() {
            if let Some(text) = self.dialect.maintenance_status(true, connection, now_ns)
                && hears_status(self.options.venue, connection)
            {
                connection.send(text, now_ns);
            }
        }
    }

    /// Sends all books again, with numbers from 1.
    fn restart_books(&mut self, now_ns: u64) {
        let streams: Vec<_> = self.views.keys().copied().collect();
        for stream in streams {
            self.publish_view(stream, now_ns);
            if let Some(view) = self.views.get_mut(&stream) {
                view.restart();
            }
            self.send_first(stream, |of| *of == Flow::Open, now_ns);
        }
    }

    fn send_late_snapshots(&mut self, now_ns: u64) {
        let is_due = |flow: &Flow| matches!(flow, Flow::Late(at_ns) if *at_ns <= now_ns);
        let streams = self.connections.values().flat_map(|of| &of.subscriptions);
        let due: Vec<_> = streams.filter(|(_, of)| is_due(&of.flow)).map(|(stream, _)| *stream).collect();
        for stream in due {
            self.publish_view(stream, now_ns);
            self.send_first(stream, is_due, now_ns);
        }
    }

    /// Sends the first messages of a stream to the subscriptions that go on like this.
    fn send_first(&mut self, stream: Stream, wanted: impl Fn(&Flow) -> bool, now_ns: u64) {
        let mut names = Vec::new();
        for connection in self.connections.values_mut() {
            if let Some(subscription) = connection.subscriptions.get_mut(&stream).filter(|of| wanted(&of.flow)) {
                subscription.flow = Flow::Open;
                names.push((connection.id, subscription.name.clone()));
            }
        }
        for (id, name) in names {
            let first = self.first(stream, &name, now_ns);
            if let Some(connection) = self.connections.get_mut(&id) {
                first.into_iter().for_each(|text| connection.send(text, now_ns));
            }
        }
    }

    fn send_heartbeats(&mut self, now_ns: u64) {
        for connection in self.connections.values_mut() {
            let is_quiet = now_ns.saturating_sub(connection.sent_ns) >= HEARTBEAT_NS;
            for text in self.dialect.heartbeat(&self.market, connection, is_quiet, now_ns) {
                connection.send(text, now_ns);
            }
        }
        let quiet = |at_ns: &u64| now_ns.saturating_sub(*at_ns) >= QUOTE_AGAIN_NS;
        let again: Vec<_> = self.quoted_ns.iter().filter(|(_, at_ns)| quiet(at_ns)).map(|(of, _)| *of).collect();
        if self.options.venue.is_bybit() {
            again.into_iter().for_each(|instrument| self.emit(instrument, Event::Quote, now_ns));
        }
    }

    fn take_script(&mut self, now_ns: u64) {
        let Some(position_ns) = self.clock.position_ns(now_ns, self.options.speed) else { return };
        while let Some(nth) = self.script.iter().position(|(at_ns, _)| *at_ns <= position_ns) {
            let (_, change) = self.script.remove(nth);
            self.change(&change, now_ns);
        }
    }

    /// Makes the tick of an instrument ten times as large. Only the generator can.
    pub(super) fn widen_tick(&mut self, index: usize, now_ns: u64) {
        const FACTOR: i64 = 10;
        let Session::Generated(generator) = &mut self.session else { return };
        // What the generator has made before is taken first.
        let before: Vec<_> = self.ahead.take().into_iter().chain(generator.drain()).collect();
        for step in before {
            self.ahead = Some(step);
            self.play_step(now_ns);
        }
        let Session::Generated(generator) = &mut self.session else { return };
        let changes = generator.widen_tick(index, FACTOR);
        let listed = &mut self.market.listed[index];
        listed.instrument.tick *= rust_decimal::Decimal::from(FACTOR);
        changes.iter().for_each(|change| listed.book.apply(change));
        let first = listed.update_id + 1;
        listed.update_id += changes.len() as u64;
        let ids = Ids { first, last: listed.update_id, previous: None };
        self.note_changes(index, &changes, ids, 0, None);
    }

    /// Tells those that have subscribed the list that an instrument has changed.
    pub(super) fn announce_listing(&mut self, index: usize, now_ns: u64) {
        for connection in self.connections.values_mut() {
            let streams: Vec<_> = connection.subscriptions.keys().copied().collect();
            for stream in streams.into_iter().filter(|stream| stream.channel == Channel::Listing) {
                let text = self.dialect.listing_changed(&self.market, index, stream, now_ns);
                text.into_iter().for_each(|text| connection.send(text, now_ns));
            }
        }
    }
}

/// True if a connection hears of the state of the venue: at Kraken all do, at OKX those that have subscribed it.
fn hears_status(venue: VenueKind, connection: &Connection) -> bool {
    venue == VenueKind::Kraken || connection.subscriptions.keys().any(|stream| stream.channel == Channel::Status)
}

/// Pings a connection, and closes it where the venue's limits of time say so.
fn keep(connection: &mut Connection, day_ms: Option<u64>, now_ns: u64) {
    let since = |at_ns: u64| now_ns.saturating_sub(at_ns) / MS;
    if let Some((interval_ms, answer_ms)) = connection.limits.ping_ms {
        if connection.pinged_ns.is_some_and(|at_ns| since(at_ns) > answer_ms) {
            connection.close(1008, "pong timeout");
        } else if since(connection.last_ping_ns) >= interval_ms && !connection.is_closed {
            connection.last_ping_ns = now_ns;
            connection.pinged_ns.get_or_insert(now_ns);
            connection.out.push_back(super::Out::Ping);
        }
    }
    if connection
        .limits
        .first_request_ms
        .is_some_and(|limit_ms| !connection.has_asked && since(connection.opened_ns) > limit_ms)
    {
        connection.close(1008, "no subscription within 5 s");
    }
    let is_quiet = |limit_ms| since(connection.heard_ns) > limit_ms && since(connection.sent_ns) > limit_ms;
    if connection.limits.silence_ms.is_some_and(is_quiet) {
        connection.close(4004, "no data");
    }
    if day_ms.is_some_and(|day_ms| since(connection.opened_ns) > day_ms) {
        connection.close(1001, "24 hours");
    }
    if connection.closes_ns.is_some_and(|at_ns| now_ns >= at_ns) {
        connection.close(1001, "service restart");
    }
}
