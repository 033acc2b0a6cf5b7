//! Questions to brokers that block: each runs on a thread of its own, while the thread of the source polls the consumer and
//! notices when the server stops. A question that is not answered in time is left behind, and ends by its own timeout.

use std::collections::{BTreeMap, HashSet};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::events::{EventedConsumer, PartitionId, places_of};
use super::places::{Begin, From, Known};

/// How long the library waits for one answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long closing may keep the thread of the source.
const CLOSE_MAX: Duration = Duration::from_millis(500);

/// A consumer that commits and leaves its group when it is dropped, on a thread of its own: brokers that are away would
/// keep the thread of the source.
pub struct Closing(Option<Arc<EventedConsumer>>);

impl Closing {
    pub fn new(consumer: EventedConsumer) -> Self {
        Self(Some(Arc::new(consumer)))
    }
}

impl Deref for Closing {
    type Target = Arc<EventedConsumer>;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("it is taken by the destructor only")
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let Some(consumer) = self.0.take() else { return };
        let (sender, receiver) = mpsc::sync_channel::<()>(0);
        // The thread gets the consumer itself: with a copy here, this one might be the last.
        let closing = std::thread::Builder::new().name("kafka-close".to_owned()).spawn(move || {
            consumer.context().close(&consumer);
            drop(consumer);
            drop(sender);
        });
        if closing.is_ok() {
            let _ = receiver.recv_timeout(CLOSE_MAX);
        }
    }
}

/// A question on its way.
pub struct Question<T>(Receiver<T>);

impl<T: Send + 'static> Question<T> {
    /// Asks. The thread keeps the consumer until it has the answer.
    ///
    /// # Errors
    /// There is no thread left.
    pub fn ask(
        consumer: &Arc<EventedConsumer>,
        work: impl FnOnce(&EventedConsumer) -> T + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let consumer = Arc::clone(consumer);
        std::thread::Builder::new().name("kafka-ask".to_owned()).spawn(move || {
            let answer = work(&consumer);
            drop(consumer);
            // The link may be gone by now.
            let _ = sender.send(answer);
        })?;
        Ok(Self(receiver))
    }

    /// The answer, if it is there. A thread that has panicked has none, ever.
    pub fn answer(&self) -> Option<Result<T, &'static str>> {
        match self.0.try_recv() {
            Ok(answer) => Some(Ok(answer)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err("the question has ended without an answer")),
        }
    }
}

/// A topic, and the numbers of its partitions or why it has none.
pub type TopicFound = (String, Result<Vec<i32>, RDKafkaErrorCode>);

/// The partitions of topics.
pub fn topics(consumer: &EventedConsumer, topics: &[String]) -> KafkaResult<Vec<TopicFound>> {
    let found = |topic: &String| {
        let metadata = consumer.fetch_metadata(Some(topic), ANSWER_TIMEOUT)?;
        let Some(entry) = metadata.topics().iter().find(|entry| entry.name() == topic) else {
            return Ok((topic.clone(), Err(RDKafkaErrorCode::UnknownTopicOrPartition)));
        };
        let partitions = match entry.error() {
            Some(error) => Err(error.into()),
            None => Ok(entry.partitions().iter().map(|partition| partition.id()).collect()),
        };
        Ok((topic.clone(), partitions))
    };
    topics.iter().map(found).collect()
}

/// A partition whose beginning is sought.
#[derive(Clone, Debug)]
pub struct Sought {
    pub id: PartitionId,
    /// The place of this run of the server.
    pub taken: Option<i64>,
    /// Where to begin whatever is known: the partition was made anew.
    pub forced: Option<Begin>,
}

/// Where reading of a partition begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub id: PartitionId,
    pub place: i64,
    /// The group has no place in it yet, or one that is of no more use.
    pub is_new: bool,
}

/// Finds where reading of each partition begins.
pub fn starts(consumer: &EventedConsumer, sought: &[Sought], is_group: bool, from: From) -> KafkaResult<Vec<Start>> {
    let mut committed = BTreeMap::new();
    if is_group && !sought.is_empty() {
        let mut list = TopicPartitionList::new();
        for Sought { id: (topic, partition), .. } in sought {
            list.add_partition(topic, *partition);
        }
        let list = consumer.committed_offsets(list, ANSWER_TIMEOUT)?;
        list.elements().iter().try_for_each(|element| element.error())?;
        committed.extend(places_of(&list).into_iter().filter_map(|(id, place)| Some((id, place?))));
    }
    let has_place = |one: &&Sought| one.taken.is_some() || committed.contains_key(&one.id);
    let known_topics: HashSet<&str> = sought.iter().filter(has_place).map(|one| one.id.0.as_str()).collect();
    let start = |one: &Sought| {
        let committed = committed.get(&one.id).copied();
        let known = Known { taken: one.taken, committed, is_added: known_topics.contains(one.id.0.as_str()) };
        let begin = one.forced.unwrap_or_else(|| known.begin(from));
        let place = place(consumer, &one.id, begin)?;
        Ok(Start { id: one.id.clone(), place, is_new: committed.is_none() || one.forced.is_some() })
    };
    sought.iter().map(start).collect()
}

fn place(consumer: &EventedConsumer, (topic, partition): &PartitionId, begin: Begin) -> KafkaResult<i64> {
    let ends = || consumer.fetch_watermarks(topic, *partition, ANSWER_TIMEOUT);
    match begin {
        Begin::At(place) => Ok(place),
        Begin::Within(place) => ends().map(|(low, high)| place.clamp(low, high.max(low))),
        Begin::Low => Ok(ends()?.0),
        Begin::High => Ok(ends()?.1),
        Begin::TimeMs(ms) => {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, *partition, Offset::Offset(ms))?;
            let found = consumer.offsets_for_times(list, ANSWER_TIMEOUT)?;
            match places_of(&found).first() {
                Some((_, Some(place))) => Ok(*place),
                _ => Ok(ends()?.1),
            }
        }
    }
}

/// The first offset and the one after the last of each partition.
pub fn ends(consumer: &EventedConsumer, partitions: &[PartitionId]) -> KafkaResult<Vec<(PartitionId, i64, i64)>> {
    let of = |id: &PartitionId| {
        let (low, high) = consumer.fetch_watermarks(&id.0, id.1, ANSWER_TIMEOUT)?;
        Ok::<_, KafkaError>((id.clone(), low, high))
    };
    partitions.iter().map(of).collect()
}
