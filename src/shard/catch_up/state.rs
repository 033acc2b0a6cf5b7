//! Changed values for one client: a walk over the instruments in the order of ids, in pieces.
//!
//! A value that was sent early in a walk may change before its end. So the pieces of each tick have the cursor of that
//! tick, and the next walk compares against it. A client may take more pieces in a tick with each walk, until one walk is
//! done in a single tick: then no value is older than the tick, and the client can become a member. A client that is too
//! slow for that goes on walking: it gets the newest values at the rate that it can take.
//!
//! Memory: one cursor a tick of a walk.

use std::ops::ControlFlow;

use super::super::backlog::{InitialValue, OwnBacklog};
use super::super::conflation::QuoteOrder;
use super::super::fan_out::quote_order_of;
use super::super::state_walk::{LAST_INSTRUMENT, StateCursor};
use super::super::subscription_index::{AudienceId, Covering, Key, Target};
use super::{CatchUp, PacketFields, split_records};
use crate::last_value::InstrumentValues;
use crate::ring::RingOffset;
use crate::stats::Counter;
use tickcast_protocol::record::{self, Channel, flags};
use tickcast_protocol::{ConflationInterval, packet};

/// The order in which the values of one instrument are sent.
const CHANNELS: [Channel; Channel::COUNT] =
    [Channel::Book, Channel::Ticker, Channel::Quote, Channel::Trade, Channel::Raw];

/// A channel of an instrument that the client wants.
#[derive(Clone, Copy)]
struct Wanted {
    channel: Channel,
    interval: ConflationInterval,
    initial: Option<InitialValue>,
}

impl CatchUp<'_> {
    /// Continues the walk where the last piece ended, and appends a piece of values that the client has not had: some
    /// `piece_bytes` of records. Returns how many bytes they are.
    pub(super) fn push_state(
        &mut self,
        audience: AudienceId,
        backlog: &mut OwnBacklog,
        records: &mut Vec<u8>,
        piece_bytes: usize,
    ) -> usize {
        if backlog.requested.is_empty() && !backlog.snapshot && backlog.state.is_at(self.now.tick) {
            return 0;
        }
        records.clear();
        self.push_feed_status(audience, backlog, records);
        let index = self.index;
        let stopped = index.try_each_candidate(audience, backlog.state.next, |instrument| {
            self.push_instrument(audience, backlog, instrument, records);
            if records.len() >= piece_bytes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let last = stopped.unwrap_or(LAST_INSTRUMENT);
        let is_last = last == LAST_INSTRUMENT;
        backlog.state.advance(last, StateCursor::explicit(self.now, self.market.cursor()));
        if !records.is_empty() || (is_last && backlog.snapshot) {
            self.push_state_piece(audience, backlog, records, is_last);
        }
        if is_last {
            backlog.requested = Vec::new();
            backlog.snapshot = false;
            backlog.announced = self.market.directory.len() as u32;
        }
        records.len()
    }

    fn push_state_piece(&mut self, audience: AudienceId, backlog: &OwnBacklog, records: &[u8], is_last: bool) {
        let (flags, last_flags) = match (backlog.snapshot, is_last) {
            (false, _) => (0, 0),
            (true, false) => (packet::flags::SNAPSHOT, 0),
            (true, true) => (packet::flags::SNAPSHOT, packet::flags::CAUGHT_UP),
        };
        // Values may be newer than this position. The log is not, and a resume has to continue behind the log.
        let position = backlog.log.position;
        let fields = PacketFields { positions: (position, position), flags, last_flags };
        self.push_packets(audience, fields, split_records(records).map(|record| (position, record)));
    }

    /// The state of the feed as a whole comes first in a walk, for a client that has not had it.
    fn push_feed_status(&self, audience: AudienceId, backlog: &OwnBacklog, out: &mut Vec<u8>) {
        if backlog.state.next != 1 || self.index.items(audience) == 0 {
            return;
        }
        let status = self.market.values.status(0);
        if status.origin > backlog.state.cursor_of(1).read.offset {
            status.push(0, 0, out);
        } else if backlog.requested.iter().any(|(_, initial)| *initial != InitialValue::Conflated) {
            status.push_if_received(0, out);
        }
    }

    fn push_instrument(&mut self, audience: AudienceId, backlog: &OwnBacklog, instrument: u32, out: &mut Vec<u8>) {
        if !self.may_have_missed(backlog, instrument) {
            return;
        }
        let covering = self.index.covering(instrument);
        let wanted = CHANNELS.map(|channel| self.wanted(audience, backlog, instrument, &covering, channel));
        let Some(values) = self.market.values.row(instrument) else { return };
        if self.index.is_released(instrument) {
            return self.push_released(audience, backlog, instrument, out);
        }
        if wanted.iter().all(Option::is_none) {
            return;
        }
        let is_new = |wanted: &Wanted| wanted.initial.is_some_and(|initial| initial != InitialValue::Conflated);
        let had = backlog.state.cursor_of(instrument).read.offset;
        let announces =
            instrument > backlog.announced || values.definition_origin() > had || wanted.iter().flatten().any(is_new);
        if announces && let Some(definition) = self.market.directory.get(instrument) {
            record::encode_definition(definition, out);
        }
        let status = self.market.values.status(instrument);
        if status.origin > had {
            status.push(instrument, 0, out);
        } else if announces {
            status.push_if_received(instrument, out);
        }
        let quote_order = quote_order_of(self.index.wants_of(audience, &covering, Channel::Trade));
        for wanted in wanted.into_iter().flatten() {
            if wanted.channel == Channel::Book && wanted.initial.is_none() {
                self.push_book_gap(backlog, values, instrument, out);
            }
            let Some(flags) = self.value_flags(backlog, values, instrument, wanted, quote_order) else { continue };
            let levels = match wanted.channel {
                Channel::Book => self.index.book_levels(audience, instrument),
                _ => None,
            };
            let is_pushed = values.push_within(instrument, wanted.channel, levels, flags, out);
            if is_pushed
                && wanted.channel == Channel::Trade
                && values.push_trades_lost(instrument, self.now.wall_ns(), out)
            {
                self.counters.add(Counter::GapsSent, 1);
            }
        }
    }

    /// Tells a client that had an instrument that it is released.
    fn push_released(&self, audience: AudienceId, backlog: &OwnBacklog, instrument: u32, out: &mut Vec<u8>) {
        let status = self.market.values.status(instrument);
        let is_news = status.origin > backlog.state.cursor_of(instrument).read.offset;
        let had_it = instrument <= backlog.announced
            && Channel::ALL.into_iter().any(|channel| self.index.wants(audience, instrument, channel).is_some());
        if is_news && had_it {
            status.push(instrument, 0, out);
        }
    }

    /// The client has a book of which changes were lost since. It learns it as a member does.
    fn push_book_gap(
        &self,
        backlog: &OwnBacklog,
        values: &InstrumentValues<RingOffset>,
        instrument: u32,
        out: &mut Vec<u8>,
    ) {
        let had = backlog.state.cursor_of(instrument).read.offset;
        if values.book_gap_origin().is_some_and(|origin| origin > had) {
            values.push_book_gap(instrument, self.now.wall_ns(), out);
        }
    }

    /// False if nothing of an instrument is newer than what the client has had, whatever it wants: most instruments of
    /// a large market, and cheaper to find out than what it wants.
    fn may_have_missed(&self, backlog: &OwnBacklog, instrument: u32) -> bool {
        if !backlog.requested.is_empty() || instrument > backlog.announced {
            return true;
        }
        let cursor = backlog.state.cursor_of(instrument);
        let read = cursor.read.offset;
        let had = if cursor.is_explicit { read } else { cursor.floor.min(read) };
        let newest = self.market.values.row(instrument).map(InstrumentValues::newest_origin);
        newest.is_some_and(|newest| newest > had)
    }

    fn wanted(
        &self,
        audience: AudienceId,
        backlog: &OwnBacklog,
        instrument: u32,
        covering: &Covering<'_>,
        channel: Channel,
    ) -> Option<Wanted> {
        let interval = self.index.wants_of(audience, covering, channel)?;
        Some(Wanted { channel, interval, initial: requested(backlog, instrument, covering, channel) })
    }

    /// The flags with which the newest value of a channel is sent; `None` if it is not.
    fn value_flags(
        &self,
        backlog: &OwnBacklog,
        values: &InstrumentValues<RingOffset>,
        instrument: u32,
        Wanted { channel, interval, initial }: Wanted,
        quote_order: QuoteOrder,
    ) -> Option<u8> {
        match initial {
            // Log records since the request come from the ring, in their order.
            Some(InitialValue::Snapshot) if channel.is_log() => {
                (values.origin(channel) <= backlog.log.offset).then_some(flags::SNAPSHOT)
            }
            Some(InitialValue::Snapshot) => Some(flags::SNAPSHOT),
            Some(InitialValue::Conflated) => Some(flags::CONFLATED),
            None | Some(InitialValue::Definition) if channel.is_log() => None,
            None | Some(InitialValue::Definition) => {
                let cursor = backlog.state.cursor_of(instrument);
                let is_missed = self.is_missed(cursor, values, instrument, channel, interval, quote_order);
                is_missed.then_some(flags::CONFLATED)
            }
        }
    }

    /// True if a state value has changed since the client had it.
    fn is_missed(
        &self,
        cursor: StateCursor,
        values: &InstrumentValues<RingOffset>,
        instrument: u32,
        channel: Channel,
        interval: ConflationInterval,
        quote_order: QuoteOrder,
    ) -> bool {
        let offset = values.origin(channel);
        if cursor.is_explicit || interval == ConflationInterval::IMMEDIATE {
            return offset > cursor.read.offset;
        }
        let order = if channel == Channel::Quote { quote_order } else { QuoteOrder::Free };
        offset > cursor.floor && self.conflator.changed_since(interval, instrument, channel, order, cursor.tick)
    }
}

/// How a channel of an instrument begins by the client's latest requests.
fn requested(backlog: &OwnBacklog, instrument: u32, covering: &Covering<'_>, channel: Channel) -> Option<InitialValue> {
    if backlog.requested.is_empty() {
        return None;
    }
    let find = |key: Key| {
        let at = backlog.requested.binary_search_by_key(&key, |(of, _)| *of).ok()?;
        Some(backlog.requested[at].1)
    };
    let mut greatest = find(Key::new(Target::Instrument(instrument), channel));
    covering.any(channel, |key| {
        greatest = greatest.max(find(key));
        false
    });
    greatest
}
