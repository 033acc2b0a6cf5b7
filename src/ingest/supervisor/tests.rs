use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard};

use super::*;
use crate::ingest::Publishers;
use crate::ingest::source::{Mark, Stream, StreamState};
use crate::ingest::states::{Detail, SourceProblems};
use crate::ingest::stop::Stop;
use crate::ring::{self, Reader, ring};
use crate::sequencer::{Sequencer, SequencerStats};
use tickcast_protocol::record::{self, Gap, RecordHeader, RecordKind, Trade, flags};
use tickcast_protocol::{BookAction, Instrument, Side};

/// What a scripted source does in one call of `receive`.
#[derive(Clone, Debug)]
enum Step {
    /// Defines instrument 1.
    Define,
    /// Defines an instrument that belongs to another source.
    DefineForeign,
    Trade(u64),
    /// The book of instrument 1, whole.
    Book,
    /// A trade of an instrument that is not defined.
    TradeOfAnother,
    /// Nothing but a mark.
    Idle,
    Error(SourceError),
    /// A trade with an error behind it.
    TradeThenError(u64, SourceError),
    Panic,
    End,
    /// Blocks until the server stops, and looks at nothing else.
    Block,
}

/// Does its steps one after the other, and then ends.
struct Scripted {
    steps: VecDeque<Step>,
    calls: u64,
    streams: Vec<Stream>,
    stop: Stop,
    /// Marks that were accepted, with the bytes that the ring had then.
    accepted: Arc<Mutex<Vec<u64>>>,
    on_accepted: OnAccepted,
}

impl Source for Scripted {
    fn receive(&mut self, _times: Times, batch: &mut Batch) -> Result<Next, SourceError> {
        self.calls += 1;
        batch.mark = Some(Mark(self.calls));
        let out = &mut batch.records;
        match self.steps.pop_front().unwrap_or(Step::End) {
            Step::Define => record::encode_definition(&Instrument::new(1, "A", "v", -2, -2), out),
            Step::DefineForeign => record::encode_definition(&Instrument::new(2, "FOREIGN", "v", -2, -2), out),
            Step::Trade(id) => trade(1, id, out),
            Step::TradeOfAnother => trade(9, 1, out),
            Step::Book => {
                let header = RecordHeader::of_feed(RecordKind::Book, 1, 0);
                record::encode_book(&header, BookAction::Snapshot, std::iter::empty(), out);
            }
            Step::Idle => {}
            Step::Error(error) => return Err(error),
            Step::TradeThenError(id, error) => {
                trade(1, id, out);
                return Err(error);
            }
            Step::Panic => panic!("planted"),
            Step::End => {
                batch.mark = None;
                return Ok(Next::Ended);
            }
            Step::Block => self.stop.wait_until(u64::MAX),
        }
        Ok(Next::Now)
    }

    fn accepted(&mut self, mark: Mark) {
        held(&self.accepted).push(mark.0);
        (self.on_accepted)();
    }

    fn streams(&self) -> Vec<Stream> {
        self.streams.clone()
    }

    fn report(&self) -> Report {
        Report { malformed: self.calls, ..Report::default() }
    }
}

fn held<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().expect("no panic")
}

fn trade(instrument: u32, trade_id: u64, out: &mut Vec<u8>) {
    let header = RecordHeader::of_feed(RecordKind::Trade, instrument, 0);
    Trade { px: 1, sz: 1, trade_id, side: Side::Buy }.encode(&header, out);
}

/// Called when a batch was accepted.
type OnAccepted = Arc<dyn Fn() + Send + Sync>;

/// What a scripted source does each time it is opened.
type Script = Result<Vec<Step>, SourceError>;

struct World {
    sequencer: SequencerHandle,
    sources: Sources,
    reader: Mutex<Reader>,
    accepted: Arc<Mutex<Vec<u64>>>,
    opened: AtomicU32,
}

/// Opens scripted sources, one after the other.
struct Opening<'a> {
    scripts: Mutex<VecDeque<Script>>,
    streams: Vec<Stream>,
    world: &'a World,
    on_accepted: OnAccepted,
}

impl World {
    fn new() -> Self {
        let (writer, reader) = ring(1 << 16);
        let gauge = writer.gauge();
        let (sequencer, _requests) = SequencerHandle::new(
            Sequencer::new(vec![writer], 9),
            vec![gauge],
            Arc::new(SequencerStats::default()),
            Arc::new(crate::lifecycle::Lifecycle::begin().0),
            None,
        );
        let spec = crate::ingest::registry::Spec::parse("sim").expect("a feed");
        let (accepted, opened) = (Arc::default(), AtomicU32::new(0));
        Self { sequencer, sources: Sources::new(&[spec]), reader: Mutex::new(reader), accepted, opened }
    }

    fn opening(&self, scripts: Vec<Script>) -> Opening<'_> {
        let scripts = Mutex::new(scripts.into());
        Opening { scripts, streams: Vec::new(), world: self, on_accepted: Arc::new(|| {}) }
    }

    /// Supervises a source with these scripts to its end.
    fn run(&self, scripts: Vec<Script>) {
        self.supervise(&self.opening(scripts));
    }

    fn supervise(&self, opening: &Opening<'_>) {
        let mut supervisor = Supervisor::new(0, &self.sources, &self.sequencer, Backoff::new(NO_PAUSE, 1));
        supervisor.supervise(&|stop: &Stop| opening.open(stop));
    }

    fn opened(&self) -> u32 {
        self.opened.load(Ordering::Relaxed)
    }

    fn status(&self) -> crate::ingest::states::FeedStatus {
        self.sources.feeds().remove(&0).expect("the feed")
    }

    fn problems(&self) -> SourceProblems {
        let publishers = Publishers::new(1, &[]);
        SourceProblems::of(&self.sources.rows(&publishers, &self.sequencer, now_ns(), clock::wall_ns()), Detail::Reason)
    }

    /// Whole records in the ring.
    fn records(&self) -> Vec<Vec<u8>> {
        let mut batch = ring::Batch::default();
        held(&self.reader).read(1 << 16, &mut batch).expect("nothing was overwritten");
        batch.entries.iter().map(|entry| batch.payload(entry).to_vec()).collect()
    }

    /// Each record in the ring in short: `S0S` is a Status of the feed, stale.
    fn short(&self) -> Vec<String> {
        self.records().iter().map(|bytes| short(bytes)).collect()
    }
}

impl Opening<'_> {
    fn open(&self, stop: &Stop) -> Result<Box<dyn Source>, SourceError> {
        self.world.opened.fetch_add(1, Ordering::Relaxed);
        let Some(script) = held(&self.scripts).pop_front() else {
            // Ends the supervisor, so that the test fails and does not go on for ever.
            self.world.sources.stop();
            panic!("it is opened again");
        };
        Ok(Box::new(Scripted {
            steps: script?.into(),
            calls: 0,
            streams: self.streams.clone(),
            stop: stop.clone(),
            accepted: self.world.accepted.clone(),
            on_accepted: self.on_accepted.clone(),
        }))
    }
}

fn short(bytes: &[u8]) -> String {
    let header = RecordHeader::read(bytes).expect("a whole record");
    let instrument = header.instrument;
    match RecordKind::from_wire(header.kind).expect("a known kind") {
        RecordKind::Definition => format!("D{instrument}"),
        RecordKind::Status => {
            let state = u8::from(record::read_status(bytes).expect("a whole record"));
            format!("S{instrument}{}", char::from(state))
        }
        RecordKind::Trade => format!("T{}#{}", Trade::read(bytes).expect("a trade").trade_id, header.sequence.get()),
        RecordKind::Gap => {
            let gap = Gap::read(bytes).expect("a gap");
            let (from, to) = (gap.from_sequence.get(), gap.to_sequence.get());
            format!("G{instrument}#{from}-{to}{}", char::from(u8::from(gap.reason)))
        }
        RecordKind::Book if header.flags & flags::MAYBE_BAD_BOOK != 0 => format!("B{instrument}?"),
        other => format!("{other:?}{instrument}"),
    }
}

const NO_PAUSE: BackoffSettings =
    BackoffSettings { first: Duration::ZERO, max: Duration::ZERO, reset_after: Duration::MAX };

fn fatal() -> SourceError {
    SourceError::Fatal { reason: "the topic x does not exist".to_owned(), cure: "create it".to_owned() }
}

fn gap(instruments: Vec<u32>) -> SourceError {
    SourceError::Gap(SourceGap { stream: "x".to_owned(), from: 11, to: 15, instruments })
}

#[test]
fn failed_feed_is_stale_until_it_is_open_again() {
    let world = World::new();
    world.run(vec![
        Ok(vec![Step::Define, Step::Trade(1), Step::Error(SourceError::retry("the connection was reset"))]),
        Err(SourceError::retry("nothing listens there")),
        Ok(vec![Step::Define, Step::Trade(2), Step::Panic]),
        Ok(vec![Step::Define, Step::Trade(3), Step::End]),
    ]);
    assert_eq!(world.opened(), 4);
    let expected = [
        &["D1", "T1#1", "S1S", "S0S"][..],
        &["S0L", "S1L", "T2#2", "S1S", "S0S"],
        &["S0L", "S1L", "T3#3", "S1E", "S0E"],
    ];
    assert_eq!(world.short(), expected.concat());
    let status = world.status();
    assert_eq!((status.condition, status.restarts), (Condition::Ended, 3));
    assert_eq!(status.last_failure.as_deref(), Some("it panicked: planted"));
    assert_eq!(world.problems(), SourceProblems::default(), "a feed that has ended is no problem");
}

#[test]
fn fatal_error_is_not_retried_and_says_what_to_do() {
    for scripts in [vec![Err(fatal())], vec![Ok(vec![Step::Define, Step::Error(fatal())])]] {
        let world = World::new();
        world.run(scripts);
        let status = world.status();
        assert_eq!((world.opened(), status.condition, status.restarts), (1, Condition::Failed, 0));
        let expected =
            "feed 0 (sim) has failed and is not opened again: the topic x does not exist: create it".to_owned();
        assert_eq!(world.problems(), SourceProblems { failures: vec![expected], warnings: vec![] });
    }
}

#[test]
fn instruments_of_a_fatal_error_are_stale() {
    let world = World::new();
    world.run(vec![Ok(vec![Step::Define, Step::Trade(1), Step::Error(fatal())])]);
    assert_eq!(world.short()[2..], ["S1S", "S0S"]);
}

#[test]
fn gap_reaches_subscribers_and_the_source_continues() {
    for instruments in [vec![], vec![1]] {
        let world = World::new();
        world.run(vec![Ok(vec![
            Step::Define,
            Step::Book,
            Step::Trade(1),
            Step::TradeThenError(2, gap(instruments)),
            Step::Trade(3),
        ])]);
        let short = world.short();
        assert_eq!(short[1..], ["Book1", "T1#1", "T2#2", "G1#3-3F", "B1?", "T3#4", "S1E", "S0E"]);
        let status = world.status();
        assert_eq!((world.opened(), status.gaps, status.restarts), (1, 1, 0));
        assert_eq!(status.report.messages_lost, 5);
    }
}

#[test]
fn gap_of_another_instrument_leaves_the_others_alone() {
    let world = World::new();
    world.run(vec![Ok(vec![Step::Define, Step::Book, Step::Trade(1), Step::Error(gap(vec![2])), Step::Trade(2)])]);
    assert_eq!(world.short()[1..], ["Book1", "T1#1", "T2#2", "S1E", "S0E"]);
    assert_eq!(world.status().gaps, 1);
}

#[test]
fn marks_are_accepted_once_the_rings_have_the_batch() {
    let world = Arc::new(World::new());
    let seen: Arc<Mutex<Vec<usize>>> = Arc::default();
    let mut opening = world.opening(vec![Ok(vec![Step::Define, Step::Trade(1), Step::Idle, Step::Trade(2)])]);
    // With each mark, what the ring has had since the one before.
    let (read, counts) = (world.clone(), seen.clone());
    opening.on_accepted = Arc::new(move || held(&counts).push(read.records().len()));
    world.supervise(&opening);
    assert_eq!(*held(&world.accepted), [1, 2, 3, 4]);
    assert_eq!(*held(&seen), [1, 1, 0, 1]);
}

#[test]
fn mark_of_a_batch_that_was_refused_in_part_is_not_accepted() {
    let world = World::new();
    let mut foreign = Vec::new();
    record::encode_definition(&Instrument::new(1, "FOREIGN", "v", -2, -2), &mut foreign);
    assert!(world.sequencer.accept(7, &mut foreign).is_whole());
    world.run(vec![Ok(vec![
        Step::Define,
        Step::DefineForeign,
        Step::Trade(1),
        Step::TradeOfAnother,
        Step::TradeThenError(2, gap(vec![])),
    ])]);
    assert_eq!(*held(&world.accepted), [1, 3, 5]);
}

#[test]
fn counters_go_on_after_a_restart() {
    let world = World::new();
    world.run(vec![Ok(vec![Step::Define, Step::Idle, Step::Error(SourceError::retry("x"))]), Ok(vec![Step::Idle])]);
    assert_eq!(world.status().report.malformed, 3 + 2);
}

#[test]
fn streams_that_are_not_live_are_named_and_all_of_them_make_the_server_not_ready() {
    let stream = |name: &str, state| Stream { name: name.to_owned(), state };
    let failed = || StreamState::Failed { reason: "access denied".to_owned() };
    let stale = || StreamState::Stale { since_ns: now_ns().saturating_sub(7_500_000_000) };
    for (states, failures, warnings) in [
        (vec![StreamState::Live, StreamState::Ended], "", ""),
        (
            vec![StreamState::Live, failed(), stale()],
            "",
            "has 2 of 3 streams that are not live: 1 has failed: access denied, 2 has sent nothing for 7 s",
        ),
        (
            vec![failed(), stale(), StreamState::Waiting, StreamState::Ended, failed()],
            "has 4 of 5 streams that are not live: 0 has failed: access denied, 1 has sent nothing for 7 s, 2 has sent \
             nothing yet, and others",
            "",
        ),
    ] {
        let world = World::new();
        let mut opening = world.opening(vec![Ok(vec![Step::Define, Step::Block])]);
        opening.streams = states.into_iter().enumerate().map(|(nth, of)| stream(&nth.to_string(), of)).collect();
        let stop = world.sources.stop_handle().clone();
        let (defined, is_defined) = channel();
        opening.on_accepted = Arc::new(move || {
            let _ = defined.send(());
        });
        std::thread::scope(|scope| {
            scope.spawn(move || {
                is_defined.recv().expect("it is sent");
                stop.stop();
            });
            world.supervise(&opening);
        });
        let text = |problem: &str| match problem {
            "" => vec![],
            _ => vec![format!("feed 0 (sim) {problem}")],
        };
        assert_eq!(world.problems(), SourceProblems { failures: text(failures), warnings: text(warnings) });
    }
}

#[test]
fn blocked_source_and_long_pause_end_when_the_server_stops() {
    for script in [Ok(vec![Step::Define, Step::Block]), Err(pause_of_an_hour())] {
        let world = World::new();
        let stop = world.sources.stop_handle().clone();
        std::thread::scope(|scope| {
            let watched: &Sources = &world.sources;
            scope.spawn(move || {
                let is_opening = |of: Condition| matches!(of, Condition::Opening { .. });
                while watched.feeds().remove(&0).is_some_and(|status| is_opening(status.condition)) {
                    thread::yield_now();
                }
                stop.stop();
            });
            world.run(vec![script]);
        });
        assert_eq!(world.opened(), 1, "a server that stops opens nothing again");
    }
}

fn pause_of_an_hour() -> SourceError {
    SourceError::Retry { reason: "too many requests".to_owned(), after: Duration::from_secs(3600) }
}

#[test]
fn pause_that_was_asked_for_is_shown() {
    let world = World::new();
    let sources = &world.sources;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while !sources.feeds().values().any(|status| matches!(status.condition, Condition::Retrying { .. })) {
                thread::yield_now();
            }
            sources.stop();
        });
        world.run(vec![Err(pause_of_an_hour())]);
    });
    let problems = world.problems();
    assert_eq!(
        problems.failures,
        ["feed 0 (sim) has failed: too many requests; it is opened again in 3600 s (restart 1)"],
        "{problems:?}"
    );
}

/// Two feeds on their own threads, of which one panics for ever.
#[test]
fn failing_feed_does_not_disturb_another_one() {
    #[derive(Debug)]
    struct Counting(Mutex<Sender<u64>>);
    struct Counted(Sender<u64>, u64);
    impl Opener for Counting {
        fn name(&self) -> String {
            "counting".to_owned()
        }
        fn check(&self) -> Result<(), String> {
            Ok(())
        }
        fn open(&self, _stop: &Stop) -> Result<Box<dyn Source>, SourceError> {
            Ok(Box::new(Counted(self.0.lock().expect("no panic").clone(), 0)))
        }
    }
    impl Source for Counted {
        fn receive(&mut self, _times: Times, batch: &mut Batch) -> Result<Next, SourceError> {
            self.1 += 1;
            batch.mark = Some(Mark(self.1));
            if self.1 == 1 {
                record::encode_definition(&Instrument::new(1, "A", "v", -2, -2), &mut batch.records);
            } else {
                trade(1, self.1, &mut batch.records);
            }
            Ok(Next::Now)
        }
        fn accepted(&mut self, mark: Mark) {
            let _ = self.0.send(mark.0);
        }
        fn report(&self) -> Report {
            Report::default()
        }
    }
    #[derive(Debug)]
    struct Panicking;
    impl Opener for Panicking {
        fn name(&self) -> String {
            "panicking".to_owned()
        }
        fn check(&self) -> Result<(), String> {
            Ok(())
        }
        fn open(&self, _stop: &Stop) -> Result<Box<dyn Source>, SourceError> {
            panic!("planted")
        }
    }
    let (sender, marks): (_, Receiver<u64>) = channel();
    let World { sequencer, .. } = World::new();
    let specs = ["sim", "sim:seed=2"].map(|text| crate::ingest::registry::Spec::parse(text).expect("a feed"));
    let (sources, sequencer) = (Arc::new(Sources::new(&specs)), Arc::new(sequencer));
    let openers: [Arc<dyn Opener>; 2] = [Arc::new(Panicking), Arc::new(Counting(Mutex::new(sender)))];
    let spawn = |(opener, id)| spawn_feed(opener, id, sources.clone(), sequencer.clone(), 0, 1).expect("a thread");
    let threads: Vec<_> = openers.into_iter().zip(0..).map(spawn).collect();
    let has_failed = || sources.feeds()[&0].restarts > 0;
    while !has_failed() {
        thread::yield_now();
    }
    let first = marks.recv().expect("the other feed runs");
    assert!(marks.iter().take(100).last() >= Some(first + 100));
    assert_eq!(sources.feeds()[&1].condition, Condition::Running);
    sources.stop();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic leaves a supervisor"));
}
