//! Instruments that share connections: their line, and the next one while it takes over.
//!
//! A line is replaced without a break, by a [`Handover`]: before the venue's limit for the life of a connection, when the
//! venue announces that it closes it, and when a stream is silent that was acknowledged. If the next line cannot be had,
//! the present one goes on, and another attempt is made later.

use std::collections::HashMap;

use tickcast_protocol::control::ChannelSet;
use tickcast_protocol::{Channel, FeedState};
use tickcast_venues::{Codec, Event, Handover, Notice, Report, Sink, StreamName, SubscribeError};

use super::context::{Command, Context};
use super::line::{Line, LineId};
use crate::ingest::source::{Stream, StreamState};
use crate::ingest::transport::address::Failure;
use crate::ingest::transport::websocket::LinkId;

const S: u64 = 1_000_000_000;
/// The list of instruments is to come by its channel within this time.
const LIST_NS_MAX: u64 = 20 * S;
/// The next line is to be subscribed within this time.
const NEXT_NS_MAX: u64 = 60 * S;
/// Both lines are open for at least this time, and until books and trades are handed over.
pub(super) const OVERLAP_NS_MIN: u64 = 5 * S;
/// Both lines are open for at most this time.
pub(super) const OVERLAP_NS_MAX: u64 = 60 * S;
/// After the next line failed, another attempt is made after this.
const NEXT_RETRY_NS: u64 = 60 * S;
/// After a line was replaced for a silent stream, the next one for that reason waits this long, then twice as long.
const SILENT_WAIT_NS_FIRST: u64 = 120 * S;
const SILENT_WAIT_NS_MAX: u64 = 3600 * S;

/// A part of the wanted instruments, with all of their channels.
pub(super) struct Lane {
    nth: u64,
    symbols: Vec<String>,
    pub(super) line: Line,
    next: Option<Next>,
    /// When the line is to be replaced.
    replace_at_ns: Option<u64>,
    silent: Silence,
    /// Streams that the venue has refused, and why.
    refused: HashMap<StreamName, String>,
    /// Symbols that the venue does not list any more.
    unlisted: Vec<String>,
    is_halted: bool,
    /// Scratch for the records of a codec during a change.
    scratch: Vec<u8>,
}

/// The line that takes over.
struct Next {
    line: Line,
    handover: Handover,
    began_ns: u64,
    /// When all of its channels were subscribed.
    ready_ns: Option<u64>,
}

/// What is known of silent streams.
#[derive(Debug, Default)]
struct Silence {
    since_ns: HashMap<StreamName, u64>,
    /// When the line is to be replaced for one of them.
    due_ns: Option<u64>,
    /// When a line was last replaced for one, and the least time until the next.
    replaced_ns: u64,
    wait_ns: u64,
}

/// One of the two lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Present,
    Next,
}

impl Lane {
    pub(super) fn new(nth: u64, symbols: Vec<String>, line: Line) -> Self {
        Self {
            nth,
            symbols,
            line,
            next: None,
            replace_at_ns: None,
            silent: Silence::default(),
            refused: HashMap::new(),
            unlisted: Vec::new(),
            is_halted: false,
            scratch: Vec::new(),
        }
    }

    /// The lines, the present one first.
    pub(super) fn lines_mut(&mut self) -> impl Iterator<Item = &mut Line> {
        std::iter::once(&mut self.line).chain(self.next.as_mut().map(|next| &mut next.line))
    }

    pub(super) fn has_link(&self, link: LinkId) -> bool {
        self.side_of(link).is_some()
    }

    /// True while a connection is open.
    pub(super) fn is_open(&self) -> bool {
        self.line.is_open() || self.next.as_ref().is_some_and(|next| next.line.is_open())
    }

    /// True while a connection is being opened.
    pub(super) fn is_opening(&self) -> bool {
        self.line.links.iter().any(|link| link.id.is_some() && link.opened_ns.is_none())
    }

    /// Opens what is due, replaces the line when it is due, and calls the codecs.
    pub(super) fn on_tick(&mut self, context: &mut Context<'_>) {
        let now_ns = context.now_ns;
        if self.line.may_open() {
            open_due(&mut self.line, context);
        }
        let is_silent = self.silent.due_ns.is_some_and(|due_ns| due_ns <= now_ns) && self.is_silent();
        let is_due = is_silent || self.replace_at_ns.is_some_and(|at_ns| at_ns <= now_ns);
        if self.next.is_none() && self.line.is_subscribed() && is_due {
            self.begin_next(context);
        }
        self.finish_next(context);
        self.lose_unlisted(context);
        self.call(Side::Present, None, context, |codec, now_ns, sink| codec.on_tick(now_ns, sink));
        if self.next.as_ref().is_some_and(|next| next.ready_ns.is_some()) {
            self.call(Side::Next, None, context, |codec, now_ns, sink| codec.on_tick(now_ns, sink));
        }
    }

    /// A connection is open.
    pub(super) fn on_opened(&mut self, link: LinkId, context: &mut Context<'_>) -> Result<(), SubscribeError> {
        let Some(side) = self.side_of(link) else { return Ok(()) };
        let line = self.line_of(side);
        let Some(at) = line.find(link) else { return Ok(()) };
        line.links[at].opened_ns = Some(context.now_ns);
        if at == 0 {
            self.call(side, Some(link), context, |codec, _, sink| codec.open(sink));
        }
        self.subscribe(context)
    }

    /// Subscribes on the connections that are open, once the venue's list is there and was checked.
    pub(super) fn subscribe(&mut self, context: &mut Context<'_>) -> Result<(), SubscribeError> {
        if !context.is_checked {
            return Ok(());
        }
        self.subscribe_on(Side::Present, context)?;
        self.subscribe_on(Side::Next, context)
    }

    fn subscribe_on(&mut self, side: Side, context: &mut Context<'_>) -> Result<(), SubscribeError> {
        if side == Side::Next && self.next.is_none() {
            return Ok(());
        }
        let line = self.line_of(side);
        let is_due = |link: &super::line::Link| link.opened_ns.is_some() && link.subscribed_ns.is_none();
        if !line.codec.is_listed() || !line.links.iter().any(is_due) {
            return Ok(());
        }
        let due: Vec<_> = line
            .links
            .iter_mut()
            .filter(|link| is_due(link))
            .map(|link| {
                link.subscribed_ns = Some(context.now_ns);
                (link.id, link.channels)
            })
            .collect();
        let symbols = self.symbols.clone();
        let codec = &self.line_of(side).codec;
        let (listed, unlisted): (Vec<_>, Vec<_>) = symbols.iter().partition(|symbol| codec.check(symbol).is_ok());
        let listed: Vec<_> = listed.into_iter().map(String::as_str).collect();
        self.unlisted = unlisted.into_iter().cloned().collect();
        for (link, channels) in due {
            self.call(side, link, context, |codec, now_ns, sink| codec.subscribe(&listed, channels, now_ns, sink))?;
        }
        self.note_subscribed(side, context);
        Ok(())
    }

    fn note_subscribed(&mut self, side: Side, context: &Context<'_>) {
        if !self.line_of(side).is_subscribed() {
            return;
        }
        match (side, &mut self.next) {
            (Side::Next, Some(next)) => next.ready_ns = Some(context.now_ns),
            _ => self.replace_at_ns = self.life_ends_ns(context),
        }
    }

    /// When the line is to be replaced before the venue ends it. Lanes are replaced one after another.
    fn life_ends_ns(&self, context: &Context<'_>) -> Option<u64> {
        let life_ns = context.plan.access.limits.connection_life_ns?;
        let margin_ns = life_ns / 100 + life_ns / 1600 * (self.nth % 16);
        let oldest_ns = self.line.links.iter().filter_map(|link| link.opened_ns).min()?;
        Some(oldest_ns.saturating_add(life_ns - margin_ns))
    }

    /// A message has come.
    pub(super) fn on_message(
        &mut self,
        link: LinkId,
        text: &mut [u8],
        context: &mut Context<'_>,
    ) -> Result<(), SubscribeError> {
        let Some(side) = self.side_of(link) else { return Ok(()) };
        let (line, now_ns) = (self.line_of(side).id, context.now_ns);
        context.observe(|observer| observer.message(line, now_ns, text));
        let taken = self.call(side, Some(link), context, |codec, now_ns, sink| codec.on_message(text, now_ns, sink));
        if let Err(error) = taken {
            context.outlet.report.malformed += 1;
            context.warn(format_args!("a message cannot be read: {error}"));
        }
        if self.line_of_link(link).is_some_and(|line| !line.is_subscribed()) {
            self.subscribe(context)?;
        }
        Ok(())
    }

    /// A connection has ended, or could not be opened.
    pub(super) fn on_closed(&mut self, link: LinkId, failure: &Failure, context: &mut Context<'_>) {
        let side = self.side_of(link);
        let is_ready = self.next.as_ref().is_some_and(|next| next.ready_ns.is_some());
        if side == Some(Side::Next) || is_ready {
            // It is not to be closed with the others of its line.
            let links = self.lines_mut().flat_map(|line| &mut line.links);
            links.filter(|kept| kept.id == Some(link)).for_each(|kept| kept.id = None);
        }
        match side {
            Some(Side::Next) => {
                context.warn(format_args!("the next connection failed: {}", failure.reason));
                self.abandon_next(context);
            }
            Some(Side::Present) if is_ready => self.promote(context),
            Some(Side::Present) => {
                self.abandon_next(context);
                self.lose(link, failure, context);
            }
            None => {}
        }
    }

    fn lose(&mut self, link: LinkId, failure: &Failure, context: &mut Context<'_>) {
        let Some(at) = self.line.find(link) else { return };
        let kept = &mut self.line.links[at];
        let (channels, was_open) = (kept.channels, kept.opened_ns.is_some());
        kept.lose(failure, context.now_ns);
        self.replace_at_ns = None;
        context.warn(format_args!("{}", failure.reason));
        if was_open {
            self.call(Side::Present, None, context, |codec, _, sink| codec.on_disconnect(channels, sink));
            if !self.line.is_open() {
                self.call(Side::Present, None, context, |codec, _, sink| codec.put_states(FeedState::Stale, sink));
            }
        }
    }

    /// Closes connections on which the list of instruments does not come.
    fn lose_unlisted(&mut self, context: &mut Context<'_>) {
        if self.line.codec.is_listed() {
            return;
        }
        let is_late = |opened_ns: u64| context.now_ns.saturating_sub(opened_ns) >= LIST_NS_MAX;
        let late = self.line.links.iter().find(|link| link.opened_ns.is_some_and(is_late)).and_then(|link| link.id);
        if let Some(link) = late {
            context.commands.push(Command::Close(link));
            let reason = format!("no list of instruments came within {} s", LIST_NS_MAX / S);
            let failure = Failure { reason, after: std::time::Duration::ZERO };
            self.lose(link, &failure, context);
        }
    }

    fn begin_next(&mut self, context: &mut Context<'_>) {
        if self.silent.due_ns.take().is_some() {
            self.silent.replaced_ns = context.now_ns;
            self.silent.wait_ns = (self.silent.wait_ns * 2).clamp(SILENT_WAIT_NS_FIRST, SILENT_WAIT_NS_MAX);
        }
        let mut line = context.new_line(self.line.codec.successor());
        open_due(&mut line, context);
        let (handover, began_ns, id) = (Handover::new(), context.now_ns, line.id);
        context.observe(|observer| observer.standby(id));
        self.next = Some(Next { line, handover, began_ns, ready_ns: None });
    }

    /// Has the next line take over, once everything is handed over or must be.
    fn finish_next(&mut self, context: &mut Context<'_>) {
        let Some(next) = &self.next else { return };
        let Some(ready_ns) = next.ready_ns else {
            if context.now_ns.saturating_sub(next.began_ns) >= NEXT_NS_MAX {
                context.warn(format_args!("the next connection was not there in {} s", NEXT_NS_MAX / S));
                self.abandon_next(context);
            }
            return;
        };
        let overlap_ns = context.now_ns.saturating_sub(ready_ns);
        let has_books = |symbol: &String| !self.line.codec.has_book(symbol) || next.line.codec.has_book(symbol);
        let is_whole = !next.handover.holds_trades() && self.symbols.iter().all(has_books);
        if overlap_ns >= OVERLAP_NS_MAX || (overlap_ns >= OVERLAP_NS_MIN && is_whole) {
            self.promote(context);
        }
    }

    /// The next line takes over, and the present one is closed.
    fn promote(&mut self, context: &mut Context<'_>) {
        let Some(Next { line, mut handover, .. }) = self.next.take() else { return };
        let mut old = std::mem::replace(&mut self.line, line);
        let id = self.line.id;
        context.observe(|observer| observer.take_over(id));
        self.scratch.clear();
        let (mut events, mut report) = (Vec::new(), Report::default());
        let next_id = &mut context.outlet.next_id;
        let mut sink = Sink { batch: &mut self.scratch, report: &mut report, next_id, events: &mut events };
        // Of its books only those are voided that were not handed over.
        old.codec.on_disconnect(ChannelSet::ALL, &mut sink);
        handover.take_old(&self.scratch, context.batch);
        handover.finish(context.batch);
        let (records, trades_lost) = handover.take_counts();
        context.outlet.report.add(&Report { records, trades_lost, ..Report::default() });
        context.close(&old);
        self.replace_at_ns = self.life_ends_ns(context);
    }

    /// Gives the next line up; another attempt is made later.
    fn abandon_next(&mut self, context: &mut Context<'_>) {
        if let Some(next) = self.next.take() {
            context.close(&next.line);
            context.observe(|observer| observer.abandon(next.line.id));
            self.replace_at_ns = Some(context.now_ns + NEXT_RETRY_NS);
        }
    }

    /// Takes the answer to a request of one of the lines, or its failure.
    pub(super) fn on_line(
        &mut self,
        line: LineId,
        context: &mut Context<'_>,
        take: impl FnOnce(&mut dyn Codec, u64, &mut Sink<'_>),
    ) {
        if self.line.id == line {
            self.call(Side::Present, None, context, take);
        } else if self.next.as_ref().is_some_and(|next| next.line.id == line) {
            self.call(Side::Next, None, context, take);
        }
    }

    /// Calls the codec of a line. Its records go to the batch; by way of the handover, while there are two lines.
    fn call<T>(
        &mut self,
        side: Side,
        link: Option<LinkId>,
        context: &mut Context<'_>,
        call: impl FnOnce(&mut dyn Codec, u64, &mut Sink<'_>) -> T,
    ) -> T {
        let now_ns = context.now_ns;
        let (report, next_id) = (&mut context.outlet.report, &mut context.outlet.next_id);
        let mut events = Vec::new();
        let Some(next) = &mut self.next else {
            let mut sink = Sink { batch: context.batch, report, next_id, events: &mut events };
            let result = call(&mut *self.line.codec, now_ns, &mut sink);
            self.on_events(side, link, events, context);
            return result;
        };
        let codec = if side == Side::Present { &mut self.line.codec } else { &mut next.line.codec };
        self.scratch.clear();
        let (mut counted, id_before) = (Report::default(), *next_id);
        let mut sink = Sink { batch: &mut self.scratch, report: &mut counted, next_id, events: &mut events };
        let result = call(&mut **codec, now_ns, &mut sink);
        // Records in exponents of which the other line does not know must not mix with its own.
        let is_other_scale = counted.rescaled > 0 || *next_id != id_before;
        match (is_other_scale, side) {
            (false, Side::Present) => next.handover.take_old(&self.scratch, context.batch),
            (false, Side::Next) => next.handover.take_next(&self.scratch, context.batch),
            (true, Side::Present) => context.batch.extend_from_slice(&self.scratch),
            (true, Side::Next) => {}
        }
        if !is_other_scale || side == Side::Next {
            (counted.records, counted.trades_lost) = next.handover.take_counts();
        }
        context.outlet.report.add(&counted);
        if is_other_scale {
            self.abandon_next(context);
        }
        self.on_events(side, link, events, context);
        result
    }

    fn on_events(&mut self, side: Side, link: Option<LinkId>, events: Vec<Event>, context: &mut Context<'_>) {
        for event in events {
            match event {
                Event::Send(text) => {
                    let line = match (side, &self.next) {
                        (Side::Next, Some(next)) => &next.line,
                        _ => &self.line,
                    };
                    let link = link.or_else(|| line.first_open());
                    context.commands.extend(link.map(|link| Command::Send { link, text }));
                }
                Event::Refused { stream: Some(stream), reason } => {
                    context.warn(format_args!("{}.{}: refused: {reason}", stream.symbol, stream.channel.name()));
                    self.refused.insert(stream, reason);
                }
                Event::Refused { stream: None, reason } => {
                    context.warn(format_args!("the venue refuses a request: {reason}"));
                }
                Event::Silent { stream, silent_ns } if side == Side::Present => {
                    self.on_silent(stream, silent_ns, context.now_ns);
                }
                Event::Notice(notice) if side == Side::Present => self.on_notice(notice, context),
                // Subscriptions are seen by their state; books and times that were lost are counted.
                _ => {}
            }
        }
    }

    /// A stream was acknowledged and is silent: it is subscribed on another connection, as the present one may be of no
    /// use. An instrument that does not change is silent as well, so this is done less and less often.
    fn on_silent(&mut self, stream: StreamName, silent_ns: u64, now_ns: u64) {
        let silent = &mut self.silent;
        silent.since_ns.insert(stream, now_ns.saturating_sub(silent_ns));
        if silent.due_ns.is_none() {
            if now_ns.saturating_sub(silent.replaced_ns) >= 2 * SILENT_WAIT_NS_MAX {
                silent.wait_ns = 0;
            }
            silent.due_ns = Some(now_ns.max(silent.replaced_ns + silent.wait_ns));
        }
    }

    /// True if a stream is still silent.
    fn is_silent(&self) -> bool {
        let is_silent = |stream| self.line.codec.stream_state(stream) == tickcast_venues::StreamState::Silent;
        self.silent.since_ns.keys().any(is_silent)
    }

    fn on_notice(&mut self, notice: Notice, context: &mut Context<'_>) {
        match notice {
            Notice::Closing { reason } => {
                context.warn(format_args!("the venue will close the connection: {reason}"));
                self.replace_at_ns = Some(context.now_ns);
            }
            Notice::Error { reason } => context.warn(format_args!("the venue reports an error: {reason}")),
            Notice::State { state, is_trading } if is_trading == self.is_halted => {
                context.warn(format_args!("the venue's state is {state}"));
                self.is_halted = !is_trading;
                let state = if is_trading { FeedState::Live } else { FeedState::Halted };
                self.call(Side::Present, None, context, |codec, _, sink| codec.put_states(state, sink));
            }
            Notice::State { .. } => {}
        }
    }

    /// Appends the states of its streams.
    pub(super) fn streams(&self, out: &mut Vec<Stream>) {
        for link in &self.line.links {
            for symbol in &self.symbols {
                out.extend(link.channels.iter().map(|channel| {
                    let name = format!("{symbol}.{}", channel.name());
                    Stream { name, state: self.stream_state(symbol, channel, link.failure.as_deref()) }
                }));
            }
        }
    }

    fn stream_state(&self, symbol: &str, channel: Channel, failure: Option<&str>) -> StreamState {
        use tickcast_venues::StreamState as Known;
        let failed = |reason: &str| StreamState::Failed { reason: reason.to_owned() };
        if self.unlisted.iter().any(|unlisted| unlisted == symbol) {
            return failed("the venue does not list it any more");
        }
        let stream = StreamName { symbol: symbol.to_owned(), channel };
        match self.line.codec.stream_state(&stream) {
            Known::Unwanted => failure.map_or(StreamState::Waiting, failed),
            Known::Requested => StreamState::Waiting,
            // Trades may come at any time, or not at all.
            Known::Acknowledged if channel.is_log() => StreamState::Live,
            Known::Acknowledged => StreamState::Waiting,
            Known::Live => StreamState::Live,
            Known::Silent => {
                let since_ns = self.silent.since_ns.get(&stream).copied().unwrap_or(0);
                StreamState::Stale { since_ns }
            }
            Known::Refused => failed(self.refused.get(&stream).map_or("refused", String::as_str)),
        }
    }

    fn side_of(&self, link: LinkId) -> Option<Side> {
        if self.line.find(link).is_some() {
            return Some(Side::Present);
        }
        self.next.as_ref().is_some_and(|next| next.line.find(link).is_some()).then_some(Side::Next)
    }

    fn line_of_link(&self, link: LinkId) -> Option<&Line> {
        let next = self.next.as_ref().map(|next| &next.line);
        std::iter::once(&self.line).chain(next).find(|line| line.find(link).is_some())
    }

    fn line_of(&mut self, side: Side) -> &mut Line {
        match (side, &mut self.next) {
            (Side::Next, Some(next)) => &mut next.line,
            _ => &mut self.line,
        }
    }
}

/// Opens the connections of a line whose pause is over.
fn open_due(line: &mut Line, context: &mut Context<'_>) {
    let now_ns = context.now_ns;
    for link in line.links.iter_mut().filter(|link| link.id.is_none() && link.retry_at_ns <= now_ns) {
        let id = context.new_link();
        link.id = Some(id);
        context.commands.push(Command::Open { link: id, endpoint: link.endpoint });
    }
}
