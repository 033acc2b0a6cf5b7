//! What the client library tells beside messages: errors, its log, the state of the group, and statistics.
//!
//! The library has threads of its own and hides lost connections. It tells the [`Events`] what happens, in calls from the
//! thread that polls the consumer; [`Events::take`] hands it over to the link. Its log goes into ours, which bounds how
//! often one place of the code is logged.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::util::Timeout;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use serde::Deserialize;

/// A consumer with its events.
pub type EventedConsumer = BaseConsumer<Events>;

/// A partition by its topic and number.
pub type PartitionId = (String, i32);

/// Problems that wait; what is more is left out.
const PROBLEMS_MAX: usize = 64;

/// The context of a consumer.
#[derive(Debug)]
pub struct Events {
    /// The argument, for the log.
    name: String,
    told: Mutex<Told>,
}

/// What was told since the last [`Events::take`].
#[derive(Debug, Default)]
pub struct Told {
    pub problems: Vec<(RDKafkaErrorCode, String)>,
    pub assignment: Option<Assignment>,
    pub statistics: Option<Statistics>,
    /// Places that every ring has the messages before, and that are not committed.
    uncommitted: BTreeMap<PartitionId, i64>,
    /// No assignment is taken any more.
    is_closing: bool,
}

/// What the group has decided.
#[derive(Debug, PartialEq, Eq)]
pub enum Assignment {
    /// These partitions are those of this member; none, if others have all.
    Given(Vec<PartitionId>),
    /// It has none until the group has decided again.
    Revoked,
}

/// What the library counts, of which it says much more.
#[derive(Debug, Deserialize)]
pub struct Statistics {
    #[serde(default)]
    brokers: HashMap<String, BrokerStatistics>,
    #[serde(default)]
    topics: HashMap<String, TopicStatistics>,
}

#[derive(Debug, Deserialize)]
struct BrokerStatistics {
    state: String,
    /// `logical` for the connection to the coordinator of the group, whichever broker that is.
    #[serde(default)]
    source: String,
}

#[derive(Debug, Deserialize)]
struct TopicStatistics {
    partitions: HashMap<i32, PartitionStatistics>,
}

#[derive(Debug, Deserialize)]
struct PartitionStatistics {
    leader: i32,
    hi_offset: i64,
    ls_offset: i64,
}

impl Statistics {
    /// Whether there is a connection to a broker, beside that to the coordinator of the group.
    pub fn is_connected(&self) -> bool {
        self.brokers.values().any(|broker| broker.state == "UP" && broker.source != "logical")
    }

    /// Whether there is a connection at all.
    pub fn is_coordinated(&self) -> bool {
        self.brokers.values().any(|broker| broker.state == "UP")
    }

    /// The end of a partition, if it is known: the place after the last message that can be read.
    pub fn end(&self, topic: &str, partition: i32) -> Option<i64> {
        let found = self.topics.get(topic)?.partitions.get(&partition)?;
        let end = if found.ls_offset >= 0 { found.ls_offset } else { found.hi_offset };
        (end >= 0).then_some(end)
    }

    /// Whether no broker serves a partition at present.
    pub fn is_without_leader(&self, topic: &str, partition: i32) -> bool {
        let found = self.topics.get(topic).and_then(|topic| topic.partitions.get(&partition));
        found.is_some_and(|partition| partition.leader < 0)
    }

    /// How many partitions a topic has.
    pub fn partitions(&self, topic: &str) -> usize {
        self.topics.get(topic).map_or(0, |topic| topic.partitions.keys().filter(|number| **number >= 0).count())
    }
}

impl Events {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), told: Mutex::default() }
    }

    /// What was told since the last call.
    pub fn take(&self) -> Told {
        let mut told = self.lock();
        let uncommitted = std::mem::take(&mut told.uncommitted);
        let is_closing = told.is_closing;
        std::mem::replace(&mut *told, Told { uncommitted, is_closing, ..Told::default() })
    }

    /// Notes a place to commit.
    pub fn settle(&self, topic: &str, partition: i32, place: i64) {
        self.lock().uncommitted.insert((topic.to_owned(), partition), place);
    }

    /// Commits what was noted, without waiting.
    pub fn commit(&self, consumer: &EventedConsumer) {
        let places = std::mem::take(&mut self.lock().uncommitted);
        if places.is_empty() {
            return;
        }
        if let Err(error) = list_of(&places).and_then(|list| consumer.commit(&list, CommitMode::Async)) {
            tracing::debug!("feed {}: commit: {error}", self.name);
            self.note_again(places);
        }
    }

    /// From now on, no partition is taken.
    pub fn close(&self, consumer: &EventedConsumer) {
        self.commit(consumer);
        let mut told = self.lock();
        told.is_closing = true;
        if told.assignment.take().is_some() {
            // The library waits for an answer.
            drop(told);
            let _ = consumer.unassign();
        }
    }

    fn note_again(&self, places: BTreeMap<PartitionId, i64>) {
        let mut told = self.lock();
        for (partition, place) in places {
            told.uncommitted.entry(partition).or_insert(place);
        }
    }

    fn add_problem(&self, code: RDKafkaErrorCode, reason: &str) {
        let mut told = self.lock();
        if told.problems.len() < PROBLEMS_MAX {
            told.problems.push((code, reason.to_owned()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Places in the form of the library.
pub fn list_of<'a>(places: impl IntoIterator<Item = (&'a PartitionId, &'a i64)>) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), place) in places {
        list.add_partition_offset(topic, *partition, Offset::Offset(*place))?;
    }
    Ok(list)
}

/// The partitions of a list, with the offsets that are known.
pub fn places_of(list: &TopicPartitionList) -> Vec<(PartitionId, Option<i64>)> {
    let place = |offset| match offset {
        Offset::Offset(place) => Some(place),
        _ => None,
    };
    let elements = list.elements();
    elements.iter().map(|one| ((one.topic().to_owned(), one.partition()), place(one.offset()))).collect()
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let name = &self.name;
        // Why a connection has failed. Not each such line is an error as well.
        if facility == "FAIL" {
            self.add_problem(RDKafkaErrorCode::BrokerTransportFailure, message);
        }
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::warn!("feed {name}: librdkafka: {facility}: {message}");
            }
            RDKafkaLogLevel::Warning => tracing::info!("feed {name}: librdkafka: {facility}: {message}"),
            _ => tracing::debug!("feed {name}: librdkafka: {facility}: {message}"),
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        match serde_json::from_slice(statistics) {
            Ok(statistics) => self.lock().statistics = Some(statistics),
            Err(error) => tracing::debug!("feed {}: statistics of librdkafka: {error}", self.name),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        tracing::debug!("feed {}: librdkafka: {code:?}: {reason}", self.name);
        self.add_problem(code, reason);
    }
}

impl ConsumerContext for Events {
    /// An assignment is left to the link, which first asks where reading begins. What was settled is committed before
    /// partitions go.
    fn rebalance(&self, consumer: &EventedConsumer, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS && !self.lock().is_closing {
            let partitions = places_of(list).into_iter().map(|(partition, _)| partition).collect();
            self.lock().assignment = Some(Assignment::Given(partitions));
            return;
        }
        self.commit(consumer);
        let mut told = self.lock();
        told.uncommitted.clear();
        told.assignment = Some(Assignment::Revoked);
        drop(told);
        if let Err(error) = consumer.unassign() {
            tracing::debug!("feed {}: {error}", self.name);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let Err(error) = result else { return };
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        tracing::debug!("feed {}: commit: {error}", self.name);
        match code {
            // Nothing was to be committed, or the partitions are those of another member by now.
            RDKafkaErrorCode::NoOffset
            | RDKafkaErrorCode::IllegalGeneration
            | RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::RebalanceInProgress => {}
            RDKafkaErrorCode::GroupAuthorizationFailed => self.error(error, "commit"),
            _ => {
                let places = places_of(offsets).into_iter().filter_map(|(partition, place)| Some((partition, place?)));
                self.note_again(places.collect());
            }
        }
    }

    /// The events of the library are looked at as often as messages.
    fn main_queue_min_poll_interval(&self) -> Timeout {
        Timeout::After(Duration::from_millis(50))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_tell_ends_leaders_and_connections() {
        let text = r#"{"name":"x","brokers":{"a/1":{"state":"UP","nodeid":1},"b/2":{"state":"INIT"}},
            "topics":{"prices":{"age":1,"partitions":{
                "0":{"leader":1,"hi_offset":12,"ls_offset":10,"extra":{}},
                "1":{"leader":-1,"hi_offset":-1001,"ls_offset":-1001},
                "-1":{"leader":-1,"hi_offset":-1001,"ls_offset":-1001}}}}}"#;
        let statistics: Statistics = serde_json::from_str(text).expect("as the library writes it");
        assert!(statistics.is_connected());
        assert_eq!([0, 1, 2].map(|number| statistics.end("prices", number)), [Some(10), None, None]);
        assert_eq!([0, 1].map(|number| statistics.is_without_leader("prices", number)), [false, true]);
        assert_eq!((statistics.partitions("prices"), statistics.partitions("other")), (2, 0));
        let none: Statistics = serde_json::from_str(r#"{"brokers":{"a/1":{"state":"DOWN"}}}"#).expect("no topics");
        assert!(!none.is_connected() && !none.is_coordinated());
        let text = r#"{"brokers":{"GroupCoordinator":{"state":"UP","source":"logical"}}}"#;
        let coordinator: Statistics = serde_json::from_str(text).expect("no topics");
        assert!(!coordinator.is_connected() && coordinator.is_coordinated());
    }
}
