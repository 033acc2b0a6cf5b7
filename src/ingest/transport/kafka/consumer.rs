//! The link: partitions that a consumer reads, assigned to it here or by its group.
//!
//! The library keeps connections and finds the leaders of partitions, so a broker of several may come and go. The link is
//! given up when no broker has answered for some seconds, and when a broker says that something is not as it has to be.
//!
//! Reading begins at a known place always: the library is not left to choose one. A place that a partition does not have
//! is an error of its broker; then the ends of all partitions are asked for, and what retention has deleted is a Gap. A
//! partition whose end is below its place was made anew: the link is given up, and the next one reads the partition from
//! its beginning, behind a Gap.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::Message as _;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;

use super::ask::{self, ANSWER_TIMEOUT, Closing, Question, Sought, Start};
use super::events::{Assignment, EventedConsumer, PartitionId, Statistics, list_of};
use super::places::{Begin, Reach};
use super::verdict::{Verdict, failure, topic_problem};
use super::{Memory, Subject, partition_name};
use crate::clock::now_ns;
use crate::ingest::broker::link::{Entry, Link, Message, Position, Positions};
use crate::ingest::source::{SourceError, Stream, StreamState};
use crate::ingest::stop::Stop;

/// Messages of one call.
const TAKE_MAX: usize = 1_000;
/// The longest wait for a message: how soon a stop is noticed.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The least time between two commits.
const COMMIT_INTERVAL: Duration = Duration::from_millis(200);
/// How long no broker may answer.
const DOWN_MAX: Duration = Duration::from_secs(3);

/// How long a group may take to decide: a member that is slow, or a coordinator that does not answer.
const UNDECIDED_MAX: Duration = Duration::from_secs(60);
/// Statistics in a row, one a second, by which the end of a partition has gone back: a new leader may need some.
const GONE_BACK_MAX: u32 = 4;

/// A partition that is read, or was.
struct Partition {
    id: PartitionId,
    name: Arc<str>,
    is_assigned: bool,
    /// The place: the offset of the next message. `None` before the start.
    next: Option<i64>,
    /// The place up to which every ring has the messages.
    settled: Option<i64>,
    end: Option<i64>,
    /// How often in a row its end was below one that it had before, and below the place.
    gone_back: u32,
    is_without_leader: bool,
}

/// What is asked while messages are read.
enum Asked {
    Starts(Question<KafkaResult<Vec<Start>>>),
    Ends(Question<KafkaResult<Vec<(PartitionId, i64, i64)>>>),
}

pub struct Topics {
    consumer: Closing,
    subject: Subject,
    memory: Arc<Memory>,
    stop: Stop,
    partitions: Vec<Partition>,
    /// Where a partition is among those, by topic and number.
    index: HashMap<String, Vec<Option<usize>>>,
    /// How many partitions a topic had when the link was opened.
    counts: HashMap<String, usize>,
    asked: Option<Asked>,
    /// A place was refused by its broker; whether an end was lost.
    refused_place: Option<bool>,
    ready: VecDeque<Entry>,
    /// Messages with a group that are not accepted, in order: their partitions and the places behind them.
    pending: VecDeque<(usize, i64)>,
    settled: u64,
    /// A message has come, or came on a link before: a refusal is temporary.
    has_worked: bool,
    is_open: bool,
    down_ns: Option<u64>,
    /// Since when the group has not said which partitions this member has.
    undecided_ns: Option<u64>,
    /// What the library said last about its connections.
    hint: String,
    commit_ns: u64,
    failure: Option<SourceError>,
}

/// Opens the link: finds the partitions, and assigns them or joins the group.
pub fn open(
    consumer: EventedConsumer,
    subject: &Subject,
    memory: &Arc<Memory>,
    positions: &mut Positions,
    stop: &Stop,
) -> Result<Box<dyn Link>, SourceError> {
    let mut link = Topics {
        consumer: Closing::new(consumer),
        subject: subject.clone(),
        memory: Arc::clone(memory),
        stop: stop.clone(),
        partitions: Vec::new(),
        index: HashMap::new(),
        counts: HashMap::new(),
        asked: None,
        refused_place: None,
        ready: VecDeque::new(),
        pending: VecDeque::new(),
        settled: 0,
        has_worked: false,
        is_open: false,
        down_ns: None,
        undecided_ns: subject.group.is_some().then(now_ns),
        hint: "no broker has answered".to_owned(),
        commit_ns: 0,
        failure: None,
    };
    link.find_partitions(positions)?;
    let failed = |error: KafkaError| failure("subscription", &error);
    if subject.group.is_some() {
        let topics: Vec<_> = subject.topics.iter().map(String::as_str).collect();
        link.consumer.subscribe(&topics).map_err(failed)?;
    } else {
        let all: Vec<_> = (0..link.partitions.len()).collect();
        let question = link.ask_starts(&all)?;
        let starts = link.wait("partitions", &question)?.map_err(|error| failure("partitions", &error))?;
        link.start(starts)?;
        for Partition { name, next, .. } in &link.partitions {
            // A link without a message has a place as well.
            let offset = next.and_then(|next| u128::try_from(next).ok()).unwrap_or(0);
            positions.advance(name, Position { offset, time_ns: 0 });
        }
    }
    link.is_open = true;
    Ok(Box::new(link))
}

impl Topics {
    /// Finds the partitions of the topics, and takes the places of this run.
    fn find_partitions(&mut self, positions: &mut Positions) -> Result<(), SourceError> {
        let topics = self.subject.topics.clone();
        let question = Question::ask(&self.consumer, move |consumer| ask::topics(consumer, &topics));
        let question = question.map_err(|error| SourceError::retry(format!("no thread: {error}")))?;
        let found = self.wait("topics", &question)?.map_err(|error| failure("topics", &error))?;
        for (topic, numbers) in found {
            let numbers = numbers.map_err(|code| topic_problem(&topic, code))?;
            if numbers.is_empty() {
                return Err(SourceError::retry(format!("topic {topic} has no partitions yet")));
            }
            self.counts.insert(topic.clone(), numbers.len());
            let chosen = self.subject.partitions.clone().unwrap_or_else(|| numbers.clone());
            for number in chosen {
                if !numbers.contains(&number) {
                    let last = numbers.len() - 1;
                    return Err(SourceError::retry(format!(
                        "partition {number} of topic {topic} does not exist: it has 0 to {last}: correct partitions=, or \
                         add partitions with kafka-topics.sh --alter"
                    )));
                }
                let nth = self.partition(&(topic.clone(), number));
                let partition = &mut self.partitions[nth];
                if self.memory.anew(&partition.name).is_some() {
                    positions.forget(&partition.name);
                }
                partition.next = positions.of(&partition.name).and_then(|place| i64::try_from(place.offset).ok());
                self.has_worked |= partition.next.is_some();
            }
        }
        Ok(())
    }

    /// The place of a partition in the table, where it is added.
    fn partition(&mut self, id: &PartitionId) -> usize {
        let number = usize::try_from(id.1).unwrap_or(0);
        let numbers = self.index.entry(id.0.clone()).or_default();
        if numbers.len() <= number {
            numbers.resize(number + 1, None);
        }
        *numbers[number].get_or_insert_with(|| {
            self.partitions.push(Partition {
                id: id.clone(),
                name: partition_name(&id.0, id.1).into(),
                is_assigned: false,
                next: None,
                settled: None,
                end: None,
                gone_back: 0,
                is_without_leader: false,
            });
            self.partitions.len() - 1
        })
    }

    fn ask_starts(&self, partitions: &[usize]) -> Result<Question<KafkaResult<Vec<Start>>>, SourceError> {
        let sought = |nth: &usize| {
            let Partition { id, name, next, .. } = &self.partitions[*nth];
            Sought { id: id.clone(), taken: *next, forced: self.memory.anew(name) }
        };
        let sought: Vec<_> = partitions.iter().map(sought).collect();
        let (is_group, from) = (self.subject.group.is_some(), self.subject.from);
        let question = Question::ask(&self.consumer, move |consumer| ask::starts(consumer, &sought, is_group, from));
        question.map_err(|error| SourceError::retry(format!("no thread: {error}")))
    }

    /// Reads these partitions from these places on, and no others.
    fn start(&mut self, starts: Vec<Start>) -> Result<(), SourceError> {
        self.partitions.iter_mut().for_each(|partition| partition.is_assigned = false);
        for Start { id, place, is_new } in starts {
            let nth = self.partition(&id);
            let partition = &mut self.partitions[nth];
            if self.memory.begin(&partition.name) {
                self.ready.push_back(Entry::Lost { count: 1 });
            }
            // A new place of a group is kept before a message comes: what comes while this server is away is not lost.
            let settled = partition.settled.or(is_new.then_some(place));
            if let (Some(settled), true) = (settled, self.subject.group.is_some()) {
                self.consumer.context().settle(&id.0, id.1, settled);
            }
            (partition.is_assigned, partition.next) = (true, Some(place));
        }
        self.assign()
    }

    fn assign(&self) -> Result<(), SourceError> {
        let place = |partition: &'_ Partition| partition.next.filter(|_| partition.is_assigned);
        let places: Vec<_> = self.partitions.iter().filter_map(|one| Some((one.id.clone(), place(one)?))).collect();
        let list = list_of(places.iter().map(|(id, place)| (id, place)));
        let assigned = list.and_then(|list| self.consumer.assign(&list));
        assigned.map_err(|error| failure("assignment", &error))
    }

    /// Waits for an answer, and fails early where the library says that none will come.
    fn wait<T: Send + 'static>(&mut self, what: &str, question: &Question<T>) -> Result<T, SourceError> {
        let deadline_ns = now_ns() + ANSWER_TIMEOUT.as_nanos() as u64;
        loop {
            if let Some(answer) = question.answer() {
                // What the library said meanwhile says more than an answer that failed for it.
                self.take_messages(Duration::ZERO);
                self.follow()?;
                return answer.map_err(|problem| SourceError::retry(format!("{what}: {problem}")));
            }
            self.take_messages(POLL_INTERVAL);
            self.follow()?;
            if self.stop.is_stopped() {
                return Err(SourceError::retry("the server stops"));
            }
            if now_ns() > deadline_ns {
                let seconds = ANSWER_TIMEOUT.as_secs();
                return Err(SourceError::retry(format!("{what}: no answer within {seconds} s: {}", self.hint)));
            }
        }
    }

    /// Takes messages; waits for the first one, which also serves the events of the library.
    fn take_messages(&mut self, wait: Duration) {
        let consumer = Arc::clone(&self.consumer);
        let mut wait = wait;
        for _ in 0..TAKE_MAX {
            match consumer.poll(wait) {
                Some(Ok(message)) => self.take(&message),
                // It was told to the events as well.
                Some(Err(_)) => {}
                None => break,
            }
            wait = Duration::ZERO;
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let (topic, number, offset) = (message.topic(), message.partition(), message.offset());
        let numbers = self.index.get(topic);
        let nth = numbers.and_then(|numbers| *numbers.get(usize::try_from(number).ok()?)?);
        let Some(nth) = nth else { return };
        let partition = &mut self.partitions[nth];
        partition.next = Some(offset + 1);
        (self.has_worked, self.down_ns) = (true, None);
        // A message without a payload deletes its key in a compacted topic.
        let Some(payload) = message.payload() else { return };
        if self.subject.group.is_some() {
            self.pending.push_back((nth, offset + 1));
        }
        let position = Position { offset: u128::try_from(offset + 1).unwrap_or(0), time_ns: 0 };
        self.ready.push_back(Entry::Message(Message {
            address: topic.to_owned(),
            key: message.key().map(Bytes::copy_from_slice),
            payload: Bytes::copy_from_slice(payload),
            position: Some((Arc::clone(&partition.name), position)),
        }));
    }

    /// Follows what the library has told.
    fn follow(&mut self) -> Result<(), SourceError> {
        let told = self.consumer.context().take();
        for (code, reason) in told.problems {
            self.follow_problem(code, &reason)?;
        }
        if let Some(assignment) = told.assignment {
            self.follow_assignment(&assignment)?;
        }
        if let Some(statistics) = told.statistics {
            self.follow_statistics(&statistics)?;
        }
        self.follow_answer()?;
        let now_ns = now_ns();
        if self.down_ns.is_some_and(|since_ns| now_ns > since_ns + DOWN_MAX.as_nanos() as u64) {
            return Err(SourceError::retry(format!("no broker answers: {}", self.hint)));
        }
        if self.undecided_ns.is_some_and(|since_ns| now_ns > since_ns + UNDECIDED_MAX.as_nanos() as u64) {
            let seconds = UNDECIDED_MAX.as_secs();
            return Err(SourceError::retry(format!("the group has decided nothing for {seconds} s: {}", self.hint)));
        }
        if now_ns >= self.commit_ns {
            self.commit_ns = now_ns + COMMIT_INTERVAL.as_nanos() as u64;
            self.consumer.context().commit(&self.consumer);
        }
        Ok(())
    }

    fn follow_assignment(&mut self, assignment: &Assignment) -> Result<(), SourceError> {
        self.partitions.iter_mut().for_each(|partition| partition.is_assigned = false);
        self.asked = None;
        match assignment {
            Assignment::Revoked => self.undecided_ns = Some(now_ns()),
            Assignment::Given(partitions) => {
                self.undecided_ns = None;
                let partitions: Vec<_> = partitions.iter().map(|id| self.partition(id)).collect();
                self.asked = Some(Asked::Starts(self.ask_starts(&partitions)?));
            }
        }
        Ok(())
    }

    fn follow_problem(&mut self, code: RDKafkaErrorCode, reason: &str) -> Result<(), SourceError> {
        match Verdict::of(code, reason, self.subject.group.is_some()) {
            Verdict::Hint => reason.clone_into(&mut self.hint),
            Verdict::AllDown if self.is_open => drop(self.down_ns.get_or_insert_with(now_ns)),
            Verdict::AllDown => return Err(SourceError::retry(format!("no broker answers: {}", self.hint))),
            Verdict::PlaceRefused { is_end_lost } => {
                self.refused_place = Some(self.refused_place.unwrap_or(false) || is_end_lost);
            }
            Verdict::Ends(SourceError::Fatal { reason, cure }) if self.has_worked => {
                // It worked with the same configuration before: permissions are changed elsewhere.
                return Err(SourceError::retry(format!("{reason}: {cure}")));
            }
            Verdict::Ends(error) => return Err(error),
        }
        Ok(())
    }

    fn follow_statistics(&mut self, statistics: &Statistics) -> Result<(), SourceError> {
        if statistics.is_connected() {
            self.down_ns = None;
        } else if self.is_open && !statistics.is_coordinated() {
            self.down_ns.get_or_insert_with(now_ns);
        }
        for partition in &mut self.partitions {
            let (topic, number) = &partition.id;
            partition.end = statistics.end(topic, *number);
            // Not each make of broker refuses a place behind the end.
            let is_back = |end| self.memory.has_gone_back(&partition.name, end) && partition.next > Some(end);
            partition.gone_back = if partition.end.is_some_and(is_back) { partition.gone_back + 1 } else { 0 };
            if partition.gone_back == GONE_BACK_MAX {
                self.refused_place = self.refused_place.or(Some(false));
            }
            partition.is_without_leader = statistics.is_without_leader(topic, *number);
        }
        let is_all = self.subject.group.is_none() && self.subject.partitions.is_none();
        for (topic, before) in self.counts.iter().filter(|_| is_all) {
            let now = statistics.partitions(topic);
            if now > *before {
                return Err(SourceError::retry(format!("topic {topic} has {now} partitions, and had {before}")));
            }
        }
        Ok(())
    }

    /// Takes the answer to a question, and asks the next one.
    fn follow_answer(&mut self) -> Result<(), SourceError> {
        let ended = |problem: &str| SourceError::retry(problem);
        match &self.asked {
            Some(Asked::Starts(question)) => {
                let Some(answer) = question.answer() else { return Ok(()) };
                self.asked = None;
                let starts = answer.map_err(ended)?.map_err(|error| failure("places of the group", &error))?;
                self.start(starts)
            }
            Some(Asked::Ends(question)) => {
                let Some(answer) = question.answer() else { return Ok(()) };
                self.asked = None;
                let ends = answer.map_err(ended)?.map_err(|error| failure("ends of partitions", &error))?;
                let is_end_lost = self.refused_place.take().unwrap_or(false);
                self.follow_ends(ends, is_end_lost)
            }
            None if self.refused_place.is_some() => {
                let assigned = self.partitions.iter().filter(|partition| partition.is_assigned);
                let assigned: Vec<_> = assigned.map(|partition| partition.id.clone()).collect();
                let question = Question::ask(&self.consumer, move |consumer| ask::ends(consumer, &assigned));
                let question = question.map_err(|error| SourceError::retry(format!("no thread: {error}")))?;
                self.asked = Some(Asked::Ends(question));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Moves the places that partitions do not have.
    fn follow_ends(&mut self, ends: Vec<(PartitionId, i64, i64)>, is_end_lost: bool) -> Result<(), SourceError> {
        let mut anew = Vec::new();
        let mut is_moved = false;
        for (id, low, high) in ends {
            let nth = self.partition(&id);
            let partition = &mut self.partitions[nth];
            let Some(place) = partition.next.filter(|_| partition.is_assigned) else { continue };
            match Reach::of(place, low, high) {
                Reach::Within => {}
                Reach::Trimmed { lost } => {
                    self.ready.push_back(Entry::Lost { count: lost });
                    (partition.next, is_moved) = (Some(low), true);
                }
                Reach::Anew => {
                    self.memory.add_anew(&partition.name, if is_end_lost { Begin::High } else { Begin::Low });
                    anew.push(partition.name.to_string());
                }
            }
        }
        if !anew.is_empty() {
            let what = if is_end_lost { "lost its newest messages" } else { "was made anew" };
            return Err(SourceError::retry(format!("partition {} {what}", anew.join(", "))));
        }
        if !is_moved {
            return Err(SourceError::retry("a broker does not have an offset that it should have"));
        }
        self.assign()
    }
}

impl Link for Topics {
    fn receive(&mut self, deadline_ns: u64, inbox: &mut VecDeque<Entry>) -> Result<(), SourceError> {
        loop {
            if let Some(error) = self.failure.take() {
                return Err(error);
            }
            let left = Duration::from_nanos(deadline_ns.saturating_sub(now_ns()));
            // What was there when the link was opened comes at once.
            let wait = if self.ready.is_empty() { left.min(POLL_INTERVAL) } else { Duration::ZERO };
            self.take_messages(wait);
            // What has come before a failure is taken before it.
            self.failure = self.follow().err();
            inbox.append(&mut self.ready);
            if !inbox.is_empty() || (self.failure.is_none() && (left.is_zero() || self.stop.is_stopped())) {
                return Ok(());
            }
        }
    }

    /// Notes the places, which are committed a few times a second.
    fn settle(&mut self, number: u64) -> Result<(), SourceError> {
        let count = number.saturating_sub(self.settled).min(self.pending.len() as u64);
        self.settled = self.settled.max(number);
        let mut moved = Vec::new();
        for (nth, place) in self.pending.drain(..count as usize) {
            self.partitions[nth].settled = Some(place);
            if moved.last() != Some(&nth) {
                moved.push(nth);
            }
        }
        moved.sort_unstable();
        moved.dedup();
        for partition in moved.into_iter().map(|nth| &self.partitions[nth]).filter(|partition| partition.is_assigned) {
            if let Some(place) = partition.settled {
                self.consumer.context().settle(&partition.id.0, partition.id.1, place);
            }
        }
        Ok(())
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn streams(&self) -> Vec<Stream> {
        let assigned = || self.partitions.iter().filter(|partition| partition.is_assigned);
        if assigned().count() < 2 && !assigned().any(|partition| partition.is_without_leader) {
            return Vec::new();
        }
        let stream = |partition: &Partition| Stream {
            name: partition.name.to_string(),
            state: if partition.is_without_leader {
                StreamState::Failed { reason: "no broker serves it: see its leader in kafka-topics.sh".to_owned() }
            } else {
                StreamState::Live
            },
        };
        assigned().map(stream).collect()
    }

    fn lag(&self) -> Option<u64> {
        let assigned = self.partitions.iter().filter(|partition| partition.is_assigned);
        let lag = |partition: &Partition| Some(partition.end?.saturating_sub(partition.next?).max(0) as u64);
        assigned.filter_map(lag).reduce(|one, other| one + other)
    }
}
