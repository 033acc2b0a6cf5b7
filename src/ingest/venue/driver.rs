//! Everything that is decided about a venue's connections: which instruments share one, when one is opened, replaced or
//! given up, who gets the answer to a request.
//!
//! It is a state machine: events and times in, records and [`Command`]s out. It waits for nothing and opens nothing.
//!
//! The list of instruments is asked for first, by one codec for all; the symbols are checked with it, and then divided
//! over as many lanes as the venue's limit of streams asks for. Their ids are given out in one place, so that lanes need
//! not know of each other. A request that several codecs make for one path is made once.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tickcast_venues::{Access, Codec, CodecOptions, Naming, Report, RestRequest, SubscribeError};

pub use super::context::Command;
use super::context::{Context, Outlet, Plan};
use super::lane::Lane;
use super::line::{Line, LineId};
use super::observer::Observer;
use super::params::Params;
use crate::ingest::source::{SourceError, Stream};
use crate::ingest::transport::address::Failure;
use crate::ingest::transport::network::NetworkEvent;
use crate::ingest::transport::rest::{Answer, Get};
use crate::ingest::transport::websocket::LinkId;

const S: u64 = 1_000_000_000;
/// How often [`Driver::poll`] is to be called.
pub const POLL_NS: u64 = S / 10;
/// A source without a connection for this long has failed.
const DOWN_NS_MAX: u64 = 30 * S;
/// Requests that are made at once: the next waits while one is answered.
const REQUESTS_MAX: usize = 2;

/// A request that is under way, and the codecs that made it.
#[derive(Debug)]
struct Requested {
    number: u64,
    path: String,
    callers: Vec<(usize, LineId, RestRequest)>,
}

/// The connections of one feed.
pub struct Driver {
    plan: Plan,
    lanes: Vec<Lane>,
    outlet: Outlet,
    commands: Vec<Command>,
    requested: Vec<Requested>,
    is_checked: bool,
    /// See the opener.
    has_run: Arc<AtomicBool>,
    ticked_ns: u64,
    was_open: bool,
    down_since_ns: Option<u64>,
    last_failure: Option<Failure>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Driver").field("plan", &self.plan).field("lanes", &self.lanes.len()).finish_non_exhaustive()
    }
}

impl Driver {
    /// No connections yet. `has_run` says that the symbols were in the venue's list before.
    pub fn new(params: &Params, access: Access, has_run: &Arc<AtomicBool>, now_ns: u64) -> Self {
        let naming = Naming { style: params.names, ..Naming::default() };
        let codec = params.venue.codec(CodecOptions { naming, depth: params.depth });
        let plan = Plan { access, venue: params.venue, channels: params.channels, symbols: params.symbols.clone() };
        let outlet = Outlet::new();
        let mut driver = Self {
            plan,
            lanes: Vec::new(),
            outlet,
            commands: Vec::new(),
            requested: Vec::new(),
            is_checked: false,
            has_run: Arc::clone(has_run),
            ticked_ns: 0,
            was_open: false,
            down_since_ns: None,
            last_failure: None,
        };
        let part = driver.parts().into_iter().next().unwrap_or_default();
        driver.add_lane(part, codec, now_ns);
        driver
    }

    /// Has an observer see all messages.
    pub fn observe(&mut self, observer: Box<dyn Observer>) {
        self.outlet.observer = Some(observer);
    }

    /// What is to be done since the last call.
    pub fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    /// True once instruments are subscribed.
    pub fn is_subscribed(&self) -> bool {
        self.lanes.iter().any(|lane| lane.line.is_subscribed())
    }

    /// Does what is due. `may_request` says that the venue's limit permits an HTTP request.
    ///
    /// # Errors
    /// The source has failed.
    pub fn poll(&mut self, now_ns: u64, may_request: bool, batch: &mut Vec<u8>) -> Result<(), SourceError> {
        self.check_down(now_ns)?;
        self.check_list(now_ns, batch)?;
        if now_ns.saturating_sub(self.ticked_ns) >= POLL_NS {
            self.ticked_ns = now_ns;
            for nth in 0..self.lanes.len() {
                let (lane, mut context) = self.at(nth, now_ns, batch);
                lane.on_tick(&mut context);
            }
        }
        self.request(now_ns, may_request);
        Ok(())
    }

    /// Takes what has happened.
    ///
    /// # Errors
    /// The source has failed.
    pub fn take(&mut self, event: NetworkEvent, now_ns: u64, batch: &mut Vec<u8>) -> Result<(), SourceError> {
        match event {
            NetworkEvent::Opened(link) => {
                (self.was_open, self.down_since_ns) = (true, None);
                let Some(nth) = self.lane_of(link) else { return Ok(()) };
                let (lane, mut context) = self.at(nth, now_ns, batch);
                lane.on_opened(link, &mut context).map_err(|error| fatal(&error))
            }
            NetworkEvent::Message(link, mut text) => {
                let Some(nth) = self.lane_of(link) else { return Ok(()) };
                let (lane, mut context) = self.at(nth, now_ns, batch);
                lane.on_message(link, &mut text, &mut context).map_err(|error| fatal(&error))?;
                self.check_list(now_ns, batch)
            }
            NetworkEvent::Closed(link, failure) => {
                let Some(nth) = self.lane_of(link) else { return Ok(()) };
                let (lane, mut context) = self.at(nth, now_ns, batch);
                lane.on_closed(link, &failure, &mut context);
                self.last_failure = Some(failure);
                self.check_down(now_ns)
            }
            NetworkEvent::Answered(answer) => self.answer(answer, now_ns, batch),
        }
    }

    /// The states of all streams.
    pub fn streams(&self) -> Vec<Stream> {
        let mut streams = Vec::new();
        self.lanes.iter().for_each(|lane| lane.streams(&mut streams));
        streams
    }

    /// The counters.
    pub fn report(&self) -> Report {
        self.outlet.report
    }

    /// The symbols of each lane: as many as the streams of a connection permit.
    fn parts(&self) -> Vec<Vec<String>> {
        let wanted = |channels: &[_]| channels.iter().filter(|channel| self.plan.channels.contains(**channel)).count();
        let streams = self.plan.access.endpoints.iter().map(|endpoint| wanted(endpoint.channels)).max().unwrap_or(1);
        let most = (self.plan.access.limits.streams_per_connection / streams.max(1)).max(1);
        self.plan.symbols.chunks(most).map(<[String]>::to_vec).collect()
    }

    fn add_lane(&mut self, symbols: Vec<String>, codec: Box<dyn Codec>, now_ns: u64) {
        let nth = self.lanes.len() as u64;
        let number = self.outlet.number();
        let seed = now_ns ^ number.rotate_left(32);
        let line = Line::new(LineId(number), codec, &self.plan.access, self.plan.channels, seed);
        self.lanes.push(Lane::new(nth, symbols, line));
    }

    /// Once the list of instruments is there: checks all symbols with it, and makes the other lanes.
    fn check_list(&mut self, now_ns: u64, batch: &mut Vec<u8>) -> Result<(), SourceError> {
        if self.is_checked || !self.lanes[0].line.codec.is_listed() {
            return Ok(());
        }
        let codec = &self.lanes[0].line.codec;
        let unknown = self.plan.symbols.iter().find_map(|symbol| codec.check(symbol).err());
        if let Some(error) = unknown.filter(|_| !self.has_run.load(Ordering::Relaxed)) {
            return Err(fatal(&error));
        }
        // Relaxed: read by the same thread only, when the feed is opened again.
        self.has_run.store(true, Ordering::Relaxed);
        self.is_checked = true;
        for part in self.parts().into_iter().skip(1) {
            let codec = self.lanes[0].line.codec.successor();
            self.add_lane(part, codec, now_ns);
        }
        for nth in 0..self.lanes.len() {
            let (lane, mut context) = self.at(nth, now_ns, batch);
            lane.subscribe(&mut context).map_err(|error| fatal(&error))?;
        }
        self.ticked_ns = 0;
        Ok(())
    }

    /// An error if there is no connection: at once, if there never was one and none is being opened; else after a time.
    fn check_down(&mut self, now_ns: u64) -> Result<(), SourceError> {
        let Some(Failure { reason, after }) = &self.last_failure else { return Ok(()) };
        if self.lanes.iter().any(Lane::is_open) {
            self.down_since_ns = None;
            return Ok(());
        }
        let down_ns = now_ns - *self.down_since_ns.get_or_insert(now_ns);
        if self.was_open && down_ns < DOWN_NS_MAX {
            return Ok(());
        }
        if !self.was_open && self.lanes.iter().any(Lane::is_opening) {
            return Ok(());
        }
        Err(SourceError::Retry { reason: reason.clone(), after: *after })
    }

    /// Makes the requests that codecs need: those of lists for all that need the same, and a few of snapshots.
    fn request(&mut self, now_ns: u64, may_request: bool) {
        let Self { lanes, requested, commands, outlet, .. } = self;
        if !may_request {
            return;
        }
        for (nth, lane) in lanes.iter_mut().enumerate() {
            for line in lane.lines_mut() {
                let listing = line.codec.listing_needed(now_ns);
                listing.into_iter().for_each(|request| make(nth, line.id, request, requested, commands, outlet));
            }
        }
        for (nth, lane) in lanes.iter_mut().enumerate() {
            for line in lane.lines_mut().filter(|line| line.is_subscribed() || line.is_open()) {
                while requested.len() < REQUESTS_MAX
                    && let Some(request) = line.codec.rest_needed(now_ns)
                {
                    make(nth, line.id, request, requested, commands, outlet);
                }
            }
        }
    }

    fn answer(&mut self, answer: Answer, now_ns: u64, batch: &mut Vec<u8>) -> Result<(), SourceError> {
        let Some(at) = self.requested.iter().position(|requested| requested.number == answer.number) else {
            return Ok(());
        };
        let requested = self.requested.remove(at);
        let mut problem = None;
        for (nth, line, request) in &requested.callers {
            let (lane, mut context) = self.at(*nth, now_ns, batch);
            match &answer.body {
                Ok(body) => {
                    if let Some(stream) = &request.stream {
                        context.observe(|observer| observer.snapshot(*line, now_ns, stream, body));
                    }
                    lane.on_line(*line, &mut context, |codec, now_ns, sink| {
                        if let Err(error) = codec.on_rest(request, &mut body.clone(), now_ns, sink) {
                            sink.report.malformed += 1;
                            codec.on_rest_failed(request, now_ns);
                            problem = Some(Failure { reason: error.to_string(), after: Duration::ZERO });
                        }
                    });
                }
                Err(failure) => {
                    problem = Some(failure.clone());
                    lane.on_line(*line, &mut context, |codec, now_ns, _| codec.on_rest_failed(request, now_ns));
                }
            }
        }
        if let Some(Failure { reason, after }) = problem {
            if !self.is_checked {
                let reason = format!("the list of instruments cannot be had: {reason}");
                return Err(SourceError::Retry { reason, after });
            }
            let (_, mut context) = self.at(0, now_ns, batch);
            context.warn(format_args!("{reason}"));
        }
        self.check_list(now_ns, batch)
    }

    fn lane_of(&self, link: LinkId) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.has_link(link))
    }

    fn at<'a>(&'a mut self, nth: usize, now_ns: u64, batch: &'a mut Vec<u8>) -> (&'a mut Lane, Context<'a>) {
        let Self { plan, lanes, outlet, commands, is_checked, .. } = self;
        (&mut lanes[nth], Context { plan, outlet, commands, batch, now_ns, is_checked: *is_checked })
    }
}

/// Makes a request, or adds the caller to one that is under way.
fn make(
    lane: usize,
    line: LineId,
    request: RestRequest,
    requested: &mut Vec<Requested>,
    commands: &mut Vec<Command>,
    outlet: &mut Outlet,
) {
    if let Some(same) = requested.iter_mut().find(|requested| requested.path == request.path) {
        same.callers.push((lane, line, request));
        return;
    }
    let (number, path, weight) = (outlet.number(), request.path.clone(), request.weight);
    commands.push(Command::Get(Get { number, path: path.clone(), weight }));
    requested.push(Requested { number, path, callers: vec![(lane, line, request)] });
}

fn fatal(error: &SubscribeError) -> SourceError {
    SourceError::Fatal {
        reason: error.to_string(),
        cure: "correct the --feed argument, and restart the server".to_owned(),
    }
}

#[cfg(test)]
mod tests;
