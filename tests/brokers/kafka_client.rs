//! The other end of Kafka: producers, and a look at groups, with the library of the program; and the library's own cluster,
//! whose brokers the test takes down.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tickcast_test_support::DEADLINE;

use crate::oracle::trade;

/// A cluster in this process, which other processes connect to.
pub type Cluster = MockCluster<'static, DefaultProducerContext>;

/// A cluster with a topic of so many partitions.
pub fn cluster(brokers: i32, topic: &str, partitions: i32) -> Cluster {
    let cluster = MockCluster::new(brokers).expect("a cluster");
    cluster.create_topic(topic, partitions, 1).expect("a topic");
    cluster
}

/// The settings of a client.
pub fn config(servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers);
    config
}

/// Publishes each message once, and waits until the broker has it, whatever happens to the broker meanwhile.
pub struct Publisher(BaseProducer);

impl Publisher {
    pub fn new(servers: &str) -> Self {
        Self::with(config(servers).set("enable.idempotence", "true"))
    }

    pub fn with(config: &ClientConfig) -> Self {
        let mut config = config.clone();
        config.set("linger.ms", "0").set("reconnect.backoff.max.ms", "100");
        Self(config.create().expect("a producer"))
    }

    pub fn send(&self, topic: &str, partition: i32, key: &[u8], payload: &[u8]) {
        let mut record = BaseRecord::to(topic).partition(partition).key(key).payload(payload);
        while let Err((error, back)) = self.0.send(record) {
            assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            self.0.poll(Duration::from_millis(10));
            record = back;
        }
    }

    pub fn flush(&self) {
        self.0.flush(DEADLINE).expect("the broker has it");
    }

    pub fn publish(&self, topic: &str, partition: i32, payload: &[u8]) {
        self.send(topic, partition, b"", payload);
        self.flush();
    }

    /// Trades of a symbol, each in a request of its own or several together.
    pub fn trades(&self, topic: &str, partition: i32, symbol: &str, ids: RangeInclusive<u64>) {
        for id in ids {
            self.send(topic, partition, b"", trade(symbol, id).as_bytes());
            self.0.poll(Duration::ZERO);
        }
        self.flush();
    }

    /// Whether the broker has all that was sent, as far as it has said so.
    fn has_flushed(&self) -> bool {
        self.0.flush(Duration::from_secs(5)).is_ok() && self.0.in_flight_count() == 0
    }

    pub fn producer(&self) -> &BaseProducer {
        &self.0
    }
}

/// Publishes trades into a partition that has nothing else, each once and in order, whatever happens to the brokers: after
/// each try, the end of the partition says how many it has.
pub fn publish_all(servers: &str, topic: &str, symbol: &str, last: u64) {
    let mut config = config(servers);
    config.set("retries", "0").set("message.timeout.ms", "3000").set("socket.timeout.ms", "2000");
    let mut has = 0;
    while has < last {
        let publisher = Publisher::with(&config);
        loop {
            let wanted = last.min(has + 20);
            for id in has + 1..=wanted {
                publisher.send(topic, 0, b"", trade(symbol, id).as_bytes());
            }
            publisher.has_flushed();
            has = end(servers, topic);
            if has != wanted || has == last {
                break;
            }
        }
    }
}

/// How many messages partition 0 of a topic has got. Asks until a broker answers.
fn end(servers: &str, topic: &str) -> u64 {
    let until = Instant::now() + DEADLINE;
    loop {
        let consumer: BaseConsumer = config(servers).create().expect("a consumer");
        if let Ok((_, end)) = consumer.fetch_watermarks(topic, 0, Duration::from_secs(2)) {
            return end as u64;
        }
        assert!(Instant::now() < until, "no broker answers");
    }
}

/// The place that a group has committed in each of the partitions of a topic, 0 and up.
pub fn committed(servers: &str, group: &str, topic: &str, partitions: i32) -> Vec<Offset> {
    let consumer: BaseConsumer = config(servers).set("group.id", group).create().expect("a consumer");
    let mut list = TopicPartitionList::new();
    list.add_partition_range(topic, 0, partitions - 1);
    let list = consumer.committed_offsets(list, DEADLINE).expect("an answer");
    list.elements().iter().map(rdkafka::topic_partition_list::TopicPartitionListElem::offset).collect()
}

/// Asks until a group has committed these places.
#[track_caller]
pub fn wait_until_committed(servers: &str, group: &str, topic: &str, places: &[i64]) {
    let expected: Vec<_> = places.iter().map(|place| Offset::Offset(*place)).collect();
    let until = Instant::now() + DEADLINE;
    loop {
        let found = committed(servers, group, topic, places.len() as i32);
        if found == expected {
            return;
        }
        assert!(Instant::now() < until, "committed: {found:?}, expected {expected:?}");
    }
}
