//! The states of all sources, in words: what the metrics, `/readyz` and the operator's view say about them.
//!
//! Supervisors publish the states of feeds here; those of publishers follow from the sequencer. Cost: a lock for each
//! state that is published, some four times a second and feed.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::registry::Spec;
use super::source::{Report, Stream, StreamState};
use super::stop::Stop;
use super::{Publishers, SequencerHandle, SourceActivity};
use crate::sequencer::SourceId;

/// Streams of one source that are kept by name, those that are not live first. Others are only counted by state.
pub const STREAMS_MAX: usize = 256;
/// Streams that `/readyz` names of one source.
const STREAMS_NAMED: usize = 3;

/// What a supervisor does with its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It is being opened since this time, ns since the Unix epoch, of deadlines.
    Opening { since_ns: u64 },
    /// It is open.
    Running,
    /// It has failed, and is opened again at this time.
    Retrying { at_ns: u64 },
    /// It has failed, and is not opened again.
    Failed,
    /// It has no more records.
    Ended,
}

/// What is known of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedStatus {
    pub condition: Condition,
    /// Why it failed the last time.
    pub last_failure: Option<String>,
    /// How often it failed and was opened again, or is to be.
    pub restarts: u64,
    /// Gaps that it has reported.
    pub gaps: u64,
    /// Counters since the start of the server.
    pub report: Report,
    /// Messages that wait at the other side, where that is known.
    pub lag: Option<u64>,
    /// At most [`STREAMS_MAX`].
    pub streams: Vec<Stream>,
    /// All streams by state, in the order of [`StreamState::WORDS`].
    pub stream_counts: [u64; 5],
}

impl FeedStatus {
    fn new() -> Self {
        Self {
            condition: Condition::Opening { since_ns: crate::clock::now_ns() },
            last_failure: None,
            restarts: 0,
            gaps: 0,
            report: Report::default(),
            lag: None,
            streams: Vec::new(),
            stream_counts: [0; 5],
        }
    }

    /// Replaces the streams.
    pub(super) fn set_streams(&mut self, mut streams: Vec<Stream>) {
        self.stream_counts = [0; 5];
        for stream in &streams {
            self.stream_counts[stream.state.index()] += 1;
        }
        if streams.len() > STREAMS_MAX {
            streams.sort_by_key(|stream| stream.state == StreamState::Live);
            streams.truncate(STREAMS_MAX);
        }
        self.streams = streams;
    }
}

/// The feeds of a server, and the signal that ends them.
#[derive(Debug)]
pub struct Sources {
    names: BTreeMap<SourceId, String>,
    feeds: Mutex<BTreeMap<SourceId, FeedStatus>>,
    changed: Condvar,
    stop: Stop,
}

/// A feed or a publisher, as the metrics and the operator's view show it.
#[derive(Clone, Debug)]
pub struct SourceRow {
    pub id: SourceId,
    pub kind: SourceKind,
    /// The name of a feed, the address of a publisher.
    pub name: Option<String>,
    /// That of a publisher.
    pub identity: Option<String>,
    /// One word, see `docs/http-api.md`.
    pub state: &'static str,
    /// What is wrong.
    pub problem: Option<String>,
    /// What the sequencer knows of it.
    pub activity: Option<SourceActivity>,
    /// Of a feed.
    pub feed: Option<FeedStatus>,
}

/// Where a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// Inside the process.
    Feed,
    /// At the other end of a WebSocket.
    Publisher,
}

impl SourceKind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Feed => "feed",
            Self::Publisher => "publisher",
        }
    }
}

/// How much is said about a source. Names and reasons contain files and hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Its name, and what is wrong.
    Reason,
    /// Its number and its state.
    State,
}

/// What is wrong with the sources of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceProblems {
    /// Feeds that bring nothing: the server is not ready.
    pub failures: Vec<String>,
    /// Sources and streams that have fallen silent, and streams that have failed beside others that are live.
    pub warnings: Vec<String>,
}

impl Sources {
    /// The feeds of these arguments. The id of each is its place among them.
    pub fn new(specs: &[Spec]) -> Self {
        let feeds = specs.iter().zip(0..).filter(|(spec, _)| spec.opener().is_some());
        let names: BTreeMap<_, _> = feeds.map(|(spec, id)| (id, spec.to_string())).collect();
        let feeds = names.keys().map(|id| (*id, FeedStatus::new())).collect();
        Self { names, feeds: Mutex::new(feeds), changed: Condvar::new(), stop: Stop::default() }
    }

    /// Ends the feeds.
    pub fn stop(&self) {
        self.stop.stop();
    }

    pub(super) fn stop_handle(&self) -> &Stop {
        &self.stop
    }

    /// The name of a feed.
    pub(super) fn name(&self, id: SourceId) -> &str {
        self.names.get(&id).map_or("", String::as_str)
    }

    /// Changes the status of a feed.
    pub(super) fn update(&self, id: SourceId, change: impl FnOnce(&mut FeedStatus)) {
        if let Some(status) = self.lock().get_mut(&id) {
            change(status);
        }
        self.changed.notify_all();
    }

    /// Waits until each feed was opened, or has failed for the first time, but not longer than `at_most`.
    pub fn wait_until_opened(&self, at_most: Duration) {
        let until = Instant::now() + at_most;
        let is_opening = |status: &FeedStatus| matches!(status.condition, Condition::Opening { .. });
        let mut feeds = self.lock();
        while feeds.values().any(is_opening) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            feeds = self.changed.wait_timeout(feeds, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The status of each feed, also of those that have ended.
    pub fn feeds(&self) -> BTreeMap<SourceId, FeedStatus> {
        self.lock().clone()
    }

    /// All feeds, and the connected publishers. `now_ns` is the time of deadlines, `wall_ns` that of stamps.
    pub fn rows(
        &self,
        publishers: &Publishers,
        sequencer: &SequencerHandle,
        now_ns: u64,
        wall_ns: u64,
    ) -> Vec<SourceRow> {
        let present = sequencer.sources();
        let activity =
            |id| present.binary_search_by_key(&id, |now: &SourceActivity| now.status.id).ok().map(|at| present[at]);
        let feed = |(id, feed): (SourceId, FeedStatus)| {
            let activity = activity(id);
            let problem = feed_problem(&feed, now_ns).or_else(|| silence(activity, wall_ns));
            let state = feed_state(&feed, activity);
            let name = Some(self.name(id).to_owned());
            SourceRow { id, kind: SourceKind::Feed, name, identity: None, state, problem, activity, feed: Some(feed) }
        };
        let publisher = |(id, identity, address): (SourceId, String, Option<std::net::SocketAddr>)| {
            let activity = activity(id);
            let name = address.map(|address| address.to_string());
            let (state, problem) = (activity_state(activity), silence(activity, wall_ns));
            let kind = SourceKind::Publisher;
            SourceRow { id, kind, name, identity: Some(identity), state, problem, activity, feed: None }
        };
        self.feeds().into_iter().map(feed).chain(publishers.list().into_iter().map(publisher)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SourceId, FeedStatus>> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SourceProblems {
    /// What is wrong with these sources.
    pub fn of(rows: &[SourceRow], detail: Detail) -> Self {
        let mut problems = Self::default();
        for row in rows {
            let Some(problem) = &row.problem else { continue };
            let name = row.identity.as_deref().or(row.name.as_deref()).unwrap_or_default();
            let (kind, id, state) = (row.kind.word(), row.id, row.state);
            let text = match detail {
                Detail::Reason => format!("{kind} {id} ({name}) {problem}"),
                Detail::State if state == "live" => format!("{kind} {id} has streams that are not live"),
                Detail::State => format!("{kind} {id}: {state}"),
            };
            if row.feed.as_ref().is_some_and(brings_nothing) {
                problems.failures.push(text);
            } else {
                problems.warnings.push(text);
            }
        }
        problems
    }
}

/// The word for the state of a feed.
fn feed_state(feed: &FeedStatus, activity: Option<SourceActivity>) -> &'static str {
    match feed.condition {
        Condition::Opening { .. } => "opening",
        Condition::Running if has_no_live_stream(feed) => "stale",
        Condition::Running => activity_state(activity),
        Condition::Retrying { .. } => "retrying",
        Condition::Failed => "failed",
        Condition::Ended => "ended",
    }
}

/// The word for the state of a source that is open.
fn activity_state(activity: Option<SourceActivity>) -> &'static str {
    match activity {
        None => "new",
        Some(activity) if activity.status.is_silent => "stale",
        Some(_) => "live",
    }
}

/// What is wrong with a feed, as the rest of a sentence.
fn feed_problem(feed: &FeedStatus, now_ns: u64) -> Option<String> {
    let seconds = |ns: u64| ns.div_ceil(1_000_000_000);
    let reason = feed.last_failure.as_deref();
    match feed.condition {
        Condition::Opening { since_ns } => {
            let (since, after) =
                (now_ns.saturating_sub(since_ns) / 1_000_000_000, reason.map(|of| format!(", after {of}")));
            Some(format!("has been opening for {since} s{}", after.unwrap_or_default()))
        }
        Condition::Retrying { at_ns } => {
            let (restart, wait) = (feed.restarts, seconds(at_ns.saturating_sub(now_ns)));
            let reason = reason.unwrap_or_default();
            Some(format!("has failed: {reason}; it is opened again in {wait} s (restart {restart})"))
        }
        Condition::Failed => Some(format!("has failed and is not opened again: {}", reason.unwrap_or_default())),
        Condition::Ended => None,
        Condition::Running => stream_problem(feed, now_ns),
    }
}

/// Names some of the streams that are not live.
fn stream_problem(feed: &FeedStatus, now_ns: u64) -> Option<String> {
    let problem = |stream: &Stream| Some(format!("{} {}", stream.name, stream.state.problem(now_ns)?));
    let problems: Vec<_> = feed.streams.iter().filter_map(problem).take(STREAMS_NAMED).collect();
    let all: u64 = feed.stream_counts.iter().sum();
    let bad = all - feed.stream_counts[StreamState::Live.index()] - feed.stream_counts[StreamState::Ended.index()];
    let more = if bad > problems.len() as u64 { ", and others" } else { "" };
    (!problems.is_empty())
        .then(|| format!("has {bad} of {all} streams that are not live: {}{more}", problems.join(", ")))
}

fn silence(activity: Option<SourceActivity>, wall_ns: u64) -> Option<String> {
    let activity = activity.filter(|activity| activity.status.is_silent)?;
    let silent_ns = wall_ns.saturating_sub(activity.status.last_batch_ns);
    Some(format!("has sent nothing for {} s", silent_ns / 1_000_000_000))
}

/// True for a feed that has failed, is not open, or has no stream that is live.
fn brings_nothing(feed: &FeedStatus) -> bool {
    match feed.condition {
        Condition::Opening { .. } | Condition::Retrying { .. } | Condition::Failed => true,
        Condition::Running => has_no_live_stream(feed),
        Condition::Ended => false,
    }
}

/// True if there are streams, and all of those that have not ended are of no use.
fn has_no_live_stream(feed: &FeedStatus) -> bool {
    let [waiting, live, stale, failed, _ended] = feed.stream_counts;
    live == 0 && waiting + stale + failed > 0
}
