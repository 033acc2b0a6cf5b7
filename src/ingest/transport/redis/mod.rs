//! Redis and Valkey: channels of Pub/Sub, and streams.
//!
//! * [`channels`]: what is published while this server is connected. What is lost while it is not, and what exceeds the
//!   queue, is a Gap.
//! * [`streams`]: entries in the order of their ids. With `group=`, Redis keeps the place between two runs of the server.
//!
//! Blocking reads have a connection of their own: on a shared one, every other command would wait for them.

mod channels;
mod reach;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisConnectionInfo,
    RedisError, ServerErrorKind, TlsCertificates,
};

use super::executor::Executor;
use crate::clock::now_ns;
use crate::ingest::broker::link::{Connect, Link, Positions};
use crate::ingest::broker::parameters::{Parameters, Server, Terms, checked_name};
use crate::ingest::broker::source::BrokerOpener;
use crate::ingest::parameters::number_within;
use crate::ingest::source::{Opener, SourceError};
use crate::ingest::stop::Stop;
use crate::tls::Roots;

const OWN_KEYS: &str = "channel, pattern, stream, group, consumer, from, payload, db";
const CHANNEL_TERMS: Terms =
    Terms { scheme: "redis", port: 6379, address: "channel", has_keys: false, own_keys: OWN_KEYS };
const STREAM_TERMS: Terms = Terms { address: "stream", has_keys: true, ..CHANNEL_TERMS };

/// Time to connect, and to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a connection is asked whether it is alive.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// What is read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    Channels { names: Vec<String>, patterns: Vec<String> },
    Streams(StreamsOf),
}

/// The streams, and how they are read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct StreamsOf {
    keys: Vec<String>,
    /// The consumer group, and the consumer in it.
    group: Option<(String, String)>,
    /// Begin with the oldest entry, where nothing is known of a place.
    is_from_all: bool,
    /// The field of an entry that is the payload.
    payload: String,
}

#[derive(Debug)]
struct Redis {
    parameters: Parameters,
    subject: Subject,
    db: i64,
}

/// Parses what follows the colon.
pub fn parse(text: &str) -> Result<Arc<dyn Opener>, String> {
    let redis = Redis::parse(text)?;
    let codec = redis.parameters.codec.clone();
    Ok(Arc::new(BrokerOpener::new(format!("redis:{text}"), codec, redis)))
}

impl Redis {
    fn parse(text: &str) -> Result<Self, String> {
        let (mut names, mut patterns, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        let (mut group, mut consumer, mut is_from_all) = (None, None, None);
        let (mut payload, mut db) = (None, 0);
        let is_streams = text.split(['?', '&']).any(|pair| pair.starts_with("stream="));
        let terms = if is_streams { &STREAM_TERMS } else { &CHANNEL_TERMS };
        let parameters = Parameters::parse(text, terms, |key, value| {
            let list = || value.split(',').map(|name| checked_name(key, name)).collect::<Result<Vec<_>, _>>();
            match (key, value) {
                ("channel", _) => names.extend(list()?),
                ("pattern", _) => patterns.extend(list()?),
                ("stream", _) => keys.extend(list()?),
                ("group", _) => group = Some(checked_name(key, value)?),
                ("consumer", _) => consumer = Some(checked_name(key, value)?),
                ("payload", _) => payload = Some(checked_name(key, value)?),
                ("from", "new" | "all") => is_from_all = Some(value == "all"),
                ("from", _) => return Err(format!("from: invalid value {value:?}: expected new or all")),
                ("db", _) => db = number_within(key, value, 0, 1_000_000)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let is_of_streams = group.is_some() || consumer.is_some() || payload.is_some() || is_from_all.is_some();
        let subject = if is_streams {
            if !(names.is_empty() && patterns.is_empty()) {
                return Err("stream: expected no channel= and pattern= with it: give each its own --feed".to_owned());
            }
            let consumer = consumer.unwrap_or_else(|| "tickcast".to_owned());
            Subject::Streams(StreamsOf {
                keys,
                group: group.map(|group| (group, consumer)),
                is_from_all: is_from_all.unwrap_or(false),
                payload: payload.unwrap_or_else(|| "payload".to_owned()),
            })
        } else if names.is_empty() && patterns.is_empty() {
            return Err("channel is missing: expected channel=NAME, pattern=PATTERN or stream=KEY".to_owned());
        } else if is_of_streams {
            return Err("group, consumer, payload and from: expected stream=KEY with them".to_owned());
        } else {
            Subject::Channels { names, patterns }
        };
        Ok(Self { parameters, subject, db })
    }

    fn client(&self, server: &Server) -> Result<Client, String> {
        let Parameters { is_tls, roots, identity, user, .. } = &self.parameters;
        let host = server.host.trim_matches(['[', ']']).to_owned();
        let port = server.port;
        let address = match is_tls {
            false => ConnectionAddr::Tcp(host, port),
            true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        };
        let mut settings = RedisConnectionInfo::default().set_db(self.db);
        if let Some(user) = user {
            settings = settings.set_username(user);
        }
        if let Some(password) = self.parameters.password()? {
            settings = settings.set_password(password);
        }
        let info = address.into_connection_info().map_err(|error| error.to_string())?.set_redis_settings(settings);
        let client = if *is_tls {
            let read =
                |path: &std::path::Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
            let root_cert = match roots {
                Roots::System => None,
                Roots::File(path) => Some(read(path)?),
            };
            let client_tls = match identity {
                None => None,
                Some(identity) => Some(ClientTlsConfig {
                    client_cert: read(&identity.certificate)?,
                    client_key: read(&identity.key)?,
                }),
            };
            Client::build_with_tls(info, TlsCertificates { client_tls, root_cert })
        } else {
            Client::open(info)
        };
        client.map_err(|error| error.to_string())
    }

    fn link(&self, client: &Client, positions: &mut Positions, stop: &Stop) -> Result<Box<dyn Link>, SourceError> {
        let executor = Executor::new(stop).map_err(|error| SourceError::retry(format!("no executor: {error}")))?;
        match &self.subject {
            Subject::Channels { names, patterns } => {
                channels::open(executor, client, names, patterns, self.parameters.buffer)
            }
            Subject::Streams(streams) => streams::open(executor, client, streams, positions),
        }
    }
}

impl Connect for Redis {
    fn check(&self) -> Result<(), String> {
        self.parameters.check()?;
        self.parameters.servers.iter().try_for_each(|server| self.client(server).map(drop))
    }

    /// The first of the servers that answers.
    fn connect(&self, positions: &mut Positions, stop: &Stop) -> Result<Box<dyn Link>, SourceError> {
        let mut last = SourceError::retry("no server");
        for server in &self.parameters.servers {
            let client = self.client(server).map_err(|reason| SourceError::Fatal {
                reason,
                cure: "put the file there and restart the server".to_owned(),
            })?;
            match self.link(&client, positions, stop) {
                Ok(link) => return Ok(link),
                Err(error @ SourceError::Fatal { .. }) => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// A connection's settings: answers come within a time that is longer than the longest read.
fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ANSWER_TIMEOUT))
        .set_response_timeout(Some(ANSWER_TIMEOUT + CHECK_INTERVAL))
}

/// The answer of Redis, or what is wrong.
fn answer<T>(
    executor: &Executor,
    what: &str,
    ask: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, SourceError> {
    let deadline_ns = now_ns() + ANSWER_TIMEOUT.as_nanos() as u64;
    match executor.run_until(deadline_ns, ask) {
        Some(Ok(answer)) => Ok(answer),
        Some(Err(error)) => Err(failure(what, &error)),
        None => Err(SourceError::retry(format!("{what}: no answer within {} s", ANSWER_TIMEOUT.as_secs()))),
    }
}

fn failure(what: &str, error: &RedisError) -> SourceError {
    let reason = error.to_string();
    let fatal = |reason: String, cure: &str| SourceError::Fatal { reason, cure: cure.to_owned() };
    match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
            let cure = "correct user= and password_file=, and restart the server";
            fatal(format!("Redis refuses the credentials: {reason}"), cure)
        }
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) => {
            fatal(format!("{what}: {reason}"), "give the user the permission, with ACL SETUSER")
        }
        _ if reason.contains("certificate") || reason.contains("UnknownIssuer") => {
            let cure =
                "name the authority of its certificate with ca_file=FILE, and the server as the certificate does";
            fatal(format!("TLS: {reason}"), cure)
        }
        _ => SourceError::retry(format!("{what}: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::codec::SymbolFrom;

    #[test]
    fn argument_is_checked_with_what_is_expected() {
        for (text, message) in [
            ("//a", "channel is missing: expected channel=NAME, pattern=PATTERN or stream=KEY"),
            ("//a?channel=x&stream=y", "stream: expected no channel= and pattern= with it"),
            ("//a?channel=x&group=y", "group, consumer, payload and from: expected stream=KEY with them"),
            ("//a?stream=x&from=1", "from: invalid value \"1\": expected new or all"),
            ("//a?stream=", "stream: invalid value \"\": expected visible characters"),
            ("//a?channel=x&symbol=key", "symbol: invalid value \"key\": expected channel or"),
            ("//a?channel=x&db=-1", "db: invalid value \"-1\": expected 0 to 1000000"),
        ] {
            let error = Redis::parse(text).expect_err(text);
            assert!(error.starts_with(message), "{text}: {error}");
        }
        let redis = Redis::parse("//a?stream=x,y&group=g&codec=raw&symbol=key&from=all").expect("all keys are known");
        assert_eq!(redis.parameters.codec.symbol, SymbolFrom::Key);
        let Subject::Streams(streams) = redis.subject else { panic!("{redis:?}") };
        assert_eq!((streams.keys.len(), streams.group), (2, Some(("g".to_owned(), "tickcast".to_owned()))));
    }
}
