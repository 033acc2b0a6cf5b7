//! Kafka, and brokers with its protocol: topics with a consumer group that keeps the place, or partitions that are
//! assigned here.
//!
//! The client is librdkafka, which has threads of its own. It is polled by the thread of the source; what blocks is asked
//! on other threads.
//!
//! * [`consumer`]: the link. [`places`]: where reading begins, and what was lost before.
//! * [`ask`]: questions that block. [`events`]: what the library tells. [`verdict`]: what its errors mean.

mod ask;
mod consumer;
mod events;
mod places;
mod verdict;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use self::events::{EventedConsumer, Events};
use self::places::{Begin, From};
use crate::ingest::broker::link::{Connect, Link, Positions};
use crate::ingest::broker::parameters::{Parameters, Terms, checked_name};
use crate::ingest::broker::source::BrokerOpener;
use crate::ingest::source::{Opener, SourceError};
use crate::ingest::stop::Stop;
use crate::tls::Roots;

const TERMS: Terms = Terms {
    scheme: "kafka",
    port: 9092,
    address: "topic",
    has_keys: true,
    own_keys: "topic, group, partitions, from, mechanism",
};

/// The largest number of a partition.
const PARTITION_MAX: i32 = 100_000;
/// The longest name of a topic.
const TOPIC_BYTES_MAX: usize = 249;

/// The group of a consumer without one: the library wants a name, and asks for its coordinator. Nothing joins it.
const NO_GROUP: &str = "tickcast-without-a-group";

/// What is read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    topics: Vec<String>,
    group: Option<String>,
    /// All of each topic if there are none.
    partitions: Option<Vec<i32>>,
    from: From,
}

#[derive(Debug)]
struct Kafka {
    /// The argument.
    name: String,
    parameters: Parameters,
    subject: Subject,
    mechanism: Option<&'static str>,
    memory: Arc<Memory>,
}

/// What outlives a link beside the positions, by the names of partitions.
#[derive(Debug, Default)]
struct Memory(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    /// Partitions that were made anew since they were read, and where reading begins.
    anew: BTreeMap<String, Begin>,
    /// The greatest end of each partition.
    ends: BTreeMap<String, i64>,
}

impl Memory {
    /// Where reading of a partition begins that was made anew.
    fn anew(&self, name: &str) -> Option<Begin> {
        self.lock().anew.get(name).copied()
    }

    fn add_anew(&self, name: &str, begin: Begin) {
        let mut remembered = self.lock();
        remembered.anew.insert(name.to_owned(), begin);
        remembered.ends.remove(name);
    }

    /// Reading has begun. True if the partition was made anew.
    fn begin(&self, name: &str) -> bool {
        self.lock().anew.remove(name).is_some()
    }

    /// Notes an end; true if it was greater before.
    fn has_gone_back(&self, name: &str, end: i64) -> bool {
        let mut remembered = self.lock();
        match remembered.ends.get_mut(name) {
            Some(greatest) => {
                *greatest = end.max(*greatest);
                end < *greatest
            }
            None => remembered.ends.insert(name.to_owned(), end).is_some(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of a partition.
fn partition_name(topic: &str, partition: i32) -> String {
    format!("{topic}/{partition}")
}

/// Parses what follows the colon.
pub fn parse(text: &str) -> Result<Arc<dyn Opener>, String> {
    let kafka = Kafka::parse(text)?;
    let codec = kafka.parameters.codec.clone();
    Ok(Arc::new(BrokerOpener::new(kafka.name.clone(), codec, kafka)))
}

impl Kafka {
    fn parse(text: &str) -> Result<Self, String> {
        let (mut topics, mut group, mut partitions) = (Vec::new(), None, None);
        let (mut from, mut mechanism) = (From::New, None);
        let parameters = Parameters::parse(text, &TERMS, |key, value| {
            match key {
                "topic" => topics.extend(value.split(',').map(topic_of).collect::<Result<Vec<_>, _>>()?),
                "group" => group = Some(checked_name(key, value)?),
                "partitions" => partitions = Some(partitions_of(value)?),
                "from" => from = From::parse(value)?,
                "mechanism" => mechanism = Some(mechanism_of(value)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        if topics.is_empty() {
            return Err("topic is missing: expected topic=NAME[,NAME…]".to_owned());
        }
        if group.is_some() && partitions.is_some() {
            return Err("partitions: expected no group= with it: a group assigns partitions to its members".to_owned());
        }
        match (&parameters.user, &parameters.password_file) {
            (Some(_), Some(_)) => mechanism = mechanism.or(Some("PLAIN")),
            (None, None) if mechanism.is_some() => {
                return Err("mechanism: expected user= and password_file= with it".to_owned());
            }
            (None, None) => {}
            _ => return Err("user and password_file: expected both or none".to_owned()),
        }
        topics.sort();
        topics.dedup();
        let subject = Subject { topics, group, partitions, from };
        Ok(Self { name: format!("kafka:{text}"), parameters, subject, mechanism, memory: Arc::default() })
    }

    fn config(&self) -> Result<ClientConfig, String> {
        let Parameters { servers, is_tls, roots, identity, user, .. } = &self.parameters;
        let servers: Vec<_> = servers.iter().map(|server| format!("{}:{}", server.host, server.port)).collect();
        let protocol = match (self.mechanism, is_tls) {
            (None, false) => "plaintext",
            (None, true) => "ssl",
            (Some(_), false) => "sasl_plaintext",
            (Some(_), true) => "sasl_ssl",
        };
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", servers.join(","))
            .set("security.protocol", protocol)
            .set("client.id", "tickcast")
            .set("group.id", self.subject.group.as_deref().unwrap_or(NO_GROUP))
            // Offsets are committed here, once every ring has the records, and a place is never chosen by the library.
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("allow.auto.create.topics", "false")
            // After a crash, the group gives the partitions to the next member this much later. The least that brokers
            // allow by default.
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "2000")
            // What waits in the library is bounded.
            .set("queued.max.messages.kbytes", "16384")
            .set("topic.metadata.refresh.interval.ms", "30000")
            .set("reconnect.backoff.max.ms", "1000")
            .set("socket.timeout.ms", "10000")
            .set("socket.keepalive.enable", "true")
            .set("statistics.interval.ms", "1000")
            .set_log_level(RDKafkaLogLevel::Info);
        if let Roots::File(path) = roots {
            config.set("ssl.ca.location", path.display().to_string());
        }
        if let Some(identity) = identity {
            config.set("ssl.certificate.location", identity.certificate.display().to_string());
            config.set("ssl.key.location", identity.key.display().to_string());
        }
        if let (Some(mechanism), Some(user), Some(password)) = (self.mechanism, user, self.parameters.password()?) {
            config.set("sasl.mechanism", mechanism).set("sasl.username", user).set("sasl.password", password);
        }
        Ok(config)
    }
}

impl Connect for Kafka {
    fn check(&self) -> Result<(), String> {
        self.parameters.check()?;
        self.config().map(drop)
    }

    fn connect(&self, positions: &mut Positions, stop: &Stop) -> Result<Box<dyn Link>, SourceError> {
        let unusable = |reason| SourceError::Fatal { reason, cure: "correct it and restart the server".to_owned() };
        let config = self.config().map_err(unusable)?;
        let consumer: Result<EventedConsumer, _> = config.create_with_context(Events::new(&self.name));
        let consumer = consumer.map_err(|error| unusable(without_value(&error)))?;
        consumer::open(consumer, &self.subject, &self.memory, positions, stop)
    }
}

/// The error of a client that could not be made, without the value: it may be a password.
fn without_value(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, problem, key, _) => format!("{key}: {problem}"),
        error => error.to_string(),
    }
}

fn topic_of(name: &str) -> Result<String, String> {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > TOPIC_BYTES_MAX || !name.bytes().all(is_letter) {
        return Err(format!("topic: invalid value {name:?}: expected 1 to {TOPIC_BYTES_MAX} of A-Z a-z 0-9 . _ -"));
    }
    Ok(name.to_owned())
}

fn partitions_of(value: &str) -> Result<Vec<i32>, String> {
    let number = |text: &str| text.parse().ok().filter(|number| (0..=PARTITION_MAX).contains(number));
    let numbers: Option<Vec<i32>> = value.split(',').map(number).collect();
    let mut numbers =
        numbers.ok_or_else(|| format!("partitions: invalid value {value:?}: expected numbers such as 0,1,2"))?;
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

fn mechanism_of(value: &str) -> Result<&'static str, String> {
    match value {
        "plain" => Ok("PLAIN"),
        "scram-sha-256" => Ok("SCRAM-SHA-256"),
        "scram-sha-512" => Ok("SCRAM-SHA-512"),
        _ => Err(format!("mechanism: invalid value {value:?}: expected plain, scram-sha-256 or scram-sha-512")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::codec::SymbolFrom;

    #[test]
    fn argument_is_checked_with_what_is_expected() {
        for (text, message) in [
            ("//a", "topic is missing: expected topic=NAME"),
            ("//a?topic=x,", "topic: invalid value \"\": expected 1 to 249 of A-Z a-z 0-9 . _ -"),
            ("//a?topic=^x", "topic: invalid value \"^x\""),
            ("//a?topic=x&partitions=0,a", "partitions: invalid value \"0,a\": expected numbers"),
            ("//a?topic=x&partitions=0&group=g", "partitions: expected no group= with it"),
            ("//a?topic=x&from=old", "from: invalid value \"old\": expected new, all, an offset"),
            ("//a?topic=x&mechanism=md5", "mechanism: invalid value \"md5\": expected plain, scram-sha-256"),
            ("//a?topic=x&mechanism=plain", "mechanism: expected user= and password_file= with it"),
            ("//a?topic=x&user=u", "user and password_file: expected both or none"),
            ("//a?topic=x&symbol=subject", "symbol: invalid value \"subject\": expected topic, key or"),
        ] {
            let error = Kafka::parse(text).expect_err(text);
            assert!(error.starts_with(message), "{text}: {error}");
        }
        let all = "//a,b:1?topic=x,y,x&partitions=2,0,2&from=7&symbol=key&user=u&password_file=/p";
        let kafka = Kafka::parse(all).expect("all keys");
        let subject = Subject {
            topics: vec!["x".to_owned(), "y".to_owned()],
            group: None,
            partitions: Some(vec![0, 2]),
            from: From::Offset(7),
        };
        assert_eq!((&kafka.subject, kafka.mechanism), (&subject, Some("PLAIN")));
        assert_eq!(kafka.parameters.codec.symbol, SymbolFrom::Key);
        assert!(kafka.check().is_err_and(|error| error.starts_with("/p: ")), "a file is missing");
    }

    #[test]
    fn end_that_goes_back_is_noticed_until_the_partition_is_begun_anew() {
        let memory = Memory::default();
        let seen = [3, 5, 5, 2, 4, 5].map(|end| memory.has_gone_back("x/0", end));
        assert_eq!(seen, [false, false, false, true, true, false]);
        memory.add_anew("x/0", Begin::Low);
        assert!(!memory.has_gone_back("x/0", 2) && memory.anew("x/0") == Some(Begin::Low));
        assert!(memory.begin("x/0") && !memory.begin("x/0") && memory.anew("x/0").is_none());
    }

    #[test]
    fn library_takes_the_configuration_and_no_error_shows_a_secret() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "correct-horse\n").expect("written");
        for mechanism in ["plain", "scram-sha-256", "scram-sha-512"] {
            let text = format!(
                "//127.0.0.1:1?topic=x&group=g&tls=1&user=u&mechanism={mechanism}&password_file={}",
                file.path().display()
            );
            let kafka = Kafka::parse(&text).expect("all keys");
            let mut config = kafka.config().expect("a configuration");
            assert_eq!(config.get("sasl.password"), Some("correct-horse"));
            assert_eq!(config.get("isolation.level"), Some("read_committed"));
            config.create_with_context::<_, EventedConsumer>(Events::new("x")).expect("the library takes it");
            config.set("session.timeout.ms", "correct-horse");
            let error =
                config.create_with_context::<_, EventedConsumer>(Events::new("x")).map(drop).expect_err("refused");
            assert!(!without_value(&error).contains("horse"), "{error}");
        }
    }
}
