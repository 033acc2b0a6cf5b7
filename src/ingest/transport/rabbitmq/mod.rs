//! RabbitMQ, by AMQP 0.9.1: queues, streams and exchanges.
//!
//! * [`readers`]: queues and streams, which keep what is not acknowledged: `queue=` and `stream=`.
//! * [`exchange`]: what is published while this server is connected: `exchange=`. What is lost while it is not, and what
//!   exceeds the queue, is a Gap.
//! * [`connection`]: connections, with the TLS of all sources.
//! * [`memory`]: what outlives a connection.
//!
//! The client library has a thread of its own for each connection, which reads and writes the socket. A connection is lost
//! when the broker sends nothing, not even heartbeats, for two of their intervals.

mod connection;
mod exchange;
mod memory;
mod readers;

use std::sync::Arc;
use std::time::Duration;

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::{Error, ErrorKind};

use self::memory::Memory;
use super::executor::Executor;
use crate::clock::now_ns;
use crate::ingest::broker::link::{Connect, Link, Positions};
use crate::ingest::broker::parameters::{Parameters, Server, Terms, checked_name};
use crate::ingest::broker::source::BrokerOpener;
use crate::ingest::source::{Opener, SourceError};
use crate::ingest::stop::Stop;

const TERMS: Terms = Terms {
    scheme: "rabbitmq",
    port: 5672,
    address: "routing_key",
    has_keys: false,
    own_keys: "queue, stream, from, exchange, bind, vhost",
};

/// Time to connect, and to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest name of AMQP, in bytes.
const NAME_MAX: usize = 255;

/// What is read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    Queues(Vec<String>),
    Streams {
        names: Vec<String>,
        from: From,
    },
    /// A queue of this server's own, with these bindings.
    Exchange {
        name: String,
        keys: Vec<String>,
    },
}

/// Where a stream begins of which nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum From {
    #[default]
    New,
    All,
    Offset(u64),
}

#[derive(Debug)]
struct RabbitMq {
    parameters: Parameters,
    subject: Subject,
    vhost: String,
    memory: Arc<Memory>,
}

/// Parses what follows the colon.
pub fn parse(text: &str) -> Result<Arc<dyn Opener>, String> {
    let rabbit = RabbitMq::parse(text)?;
    let codec = rabbit.parameters.codec.clone();
    Ok(Arc::new(BrokerOpener::new(format!("rabbitmq:{text}"), codec, rabbit)))
}

impl RabbitMq {
    fn parse(text: &str) -> Result<Self, String> {
        let (mut queues, mut streams, mut exchange, mut keys) = (Vec::new(), Vec::new(), None, Vec::new());
        let (mut from, mut vhost) = (None, "/".to_owned());
        let parameters = Parameters::parse(text, &TERMS, |key, value| {
            let names = || value.split(',').map(|name| name_of(key, name)).collect::<Result<Vec<_>, _>>();
            match key {
                "queue" => queues.extend(names()?),
                "stream" => streams.extend(names()?),
                "exchange" => exchange = Some(name_of(key, value)?),
                "bind" => keys.extend(names()?),
                "from" => from = Some(from_of(value)?),
                "vhost" => vhost = name_of(key, value)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        if parameters.user.is_some() != parameters.password_file.is_some() {
            return Err("user and password_file: expected both, or none for guest".to_owned());
        }
        if exchange.is_none() && !keys.is_empty() {
            return Err("bind: expected exchange=NAME with it".to_owned());
        }
        if streams.is_empty() && from.is_some() {
            return Err("from: expected stream=NAME with it: a queue begins with its oldest message".to_owned());
        }
        let subject = match (queues.is_empty(), streams.is_empty(), exchange) {
            (false, true, None) => Subject::Queues(queues),
            (true, false, None) => Subject::Streams { names: streams, from: from.unwrap_or_default() },
            (true, true, Some(name)) => {
                let keys = if keys.is_empty() { vec!["#".to_owned()] } else { keys };
                Subject::Exchange { name, keys }
            }
            (true, true, None) => {
                return Err("queue is missing: expected queue=NAME, stream=NAME or exchange=NAME".to_owned());
            }
            _ => return Err("queue, stream and exchange: expected one of them: give each its own --feed".to_owned()),
        };
        Ok(Self { parameters, subject, vhost, memory: Arc::default() })
    }

    fn link(&self, server: &Server, positions: &mut Positions, stop: &Stop) -> Result<Box<dyn Link>, SourceError> {
        let executor = Executor::new(stop).map_err(|error| SourceError::retry(format!("no executor: {error}")))?;
        let connection = connection::open(self, server, &executor)?;
        match &self.subject {
            Subject::Queues(names) => readers::open_queues(executor, connection, names, &self.memory),
            Subject::Streams { names, from } => {
                readers::open_streams(executor, connection, names, *from, &self.memory, positions)
            }
            Subject::Exchange { name, keys } => {
                exchange::open(executor, connection, name, keys, self.parameters.buffer)
            }
        }
    }
}

impl Connect for RabbitMq {
    fn check(&self) -> Result<(), String> {
        self.parameters.check()
    }

    /// The first of the servers that answers.
    fn connect(&self, positions: &mut Positions, stop: &Stop) -> Result<Box<dyn Link>, SourceError> {
        let mut last = SourceError::retry("no server");
        for server in &self.parameters.servers {
            match self.link(server, positions, stop) {
                Ok(link) => return Ok(link),
                Err(error @ SourceError::Fatal { .. }) => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// The answer of the broker, or what is wrong.
fn answer<T>(executor: &Executor, what: &str, ask: impl Future<Output = Result<T, Error>>) -> Result<T, SourceError> {
    let deadline_ns = now_ns() + ANSWER_TIMEOUT.as_nanos() as u64;
    match executor.run_until(deadline_ns, ask) {
        Some(Ok(answer)) => Ok(answer),
        Some(Err(error)) => Err(failure(what, &error)),
        None => Err(SourceError::retry(format!("{what}: no answer within {} s", ANSWER_TIMEOUT.as_secs()))),
    }
}

/// What an error of the client means for the source. `what` is what was asked for, such as a queue.
fn failure(what: &str, error: &Error) -> SourceError {
    let ErrorKind::ProtocolError(said) = error.kind() else {
        return SourceError::retry(format!("{what}: {}", unsaid(error)));
    };
    let message = said.get_message().as_str();
    match said.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => SourceError::Fatal {
            reason: format!("{what}: {message}"),
            cure: "give the user the permission, with `rabbitmqctl set_permissions`".to_owned(),
        },
        // The same code says that the node of a queue is down.
        AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) if message.contains(" no ") => {
            let command = if what.starts_with("exchange") { "exchange" } else { "queue" };
            SourceError::retry(format!(
                "{what} does not exist: create it, such as with `rabbitmqadmin declare {command} name=…` ({message})"
            ))
        }
        AMQPErrorKind::Hard(AMQPHardError::CONNECTIONFORCED) => {
            SourceError::retry(format!("the broker has closed the connection: {message}"))
        }
        _ => SourceError::retry(format!("{what}: the broker says: {message}")),
    }
}

/// An error that does not come from the broker, in words.
fn unsaid(error: &Error) -> String {
    match error.kind() {
        ErrorKind::IOError(error) => format!("the connection was lost: {error}"),
        ErrorKind::MissingHeartbeatError => "the connection was lost: no heartbeat came for too long".to_owned(),
        ErrorKind::InvalidConnectionState(_) | ErrorKind::InvalidChannelState(..) => {
            format!("the connection was lost: {error}")
        }
        _ => error.to_string(),
    }
}

fn name_of(key: &str, value: &str) -> Result<String, String> {
    if value.len() > NAME_MAX {
        return Err(format!("{key}: {} bytes: expected at most {NAME_MAX}", value.len()));
    }
    checked_name(key, value)
}

fn from_of(value: &str) -> Result<From, String> {
    match value {
        "new" => Ok(From::New),
        "all" => Ok(From::All),
        _ => match value.parse::<i64>() {
            Ok(offset) if offset >= 0 => Ok(From::Offset(offset.unsigned_abs())),
            _ => Err(format!("from: invalid value {value:?}: expected new, all or an offset")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argument_is_checked_with_what_is_expected() {
        let long = format!("//a?queue={}", "q".repeat(256));
        for (text, message) in [
            ("//a", "queue is missing: expected queue=NAME, stream=NAME or exchange=NAME"),
            ("//a?queue=x&stream=y", "queue, stream and exchange: expected one of them"),
            ("//a?queue=x&exchange=y", "queue, stream and exchange: expected one of them"),
            ("//a?queue=x,", "queue: invalid value \"\": expected visible characters"),
            (long.as_str(), "queue: 256 bytes: expected at most 255"),
            ("//a?queue=x&bind=y", "bind: expected exchange=NAME with it"),
            ("//a?queue=x&from=all", "from: expected stream=NAME with it"),
            ("//a?stream=x&from=-1", "from: invalid value \"-1\": expected new, all or an offset"),
            ("//a?queue=x&user=u", "user and password_file: expected both, or none for guest"),
            ("//a?queue=x&symbol=key", "symbol: invalid value \"key\": expected routing_key or"),
        ] {
            let error = RabbitMq::parse(text).expect_err(text);
            assert!(error.starts_with(message), "{text}: {error}");
        }
        let rabbit = RabbitMq::parse("//a,b:1?stream=x,y&from=7&vhost=acme&symbol=routing_key").expect("all keys");
        let names = vec!["x".to_owned(), "y".to_owned()];
        assert_eq!(rabbit.subject, Subject::Streams { names, from: From::Offset(7) });
        assert_eq!((rabbit.vhost.as_str(), rabbit.parameters.servers[0].port), ("acme", 5672));
        let rabbit = RabbitMq::parse("//a?exchange=prices").expect("an exchange is enough");
        assert_eq!(rabbit.subject, Subject::Exchange { name: "prices".to_owned(), keys: vec!["#".to_owned()] });
    }
}
