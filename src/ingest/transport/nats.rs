//! NATS: subjects, and streams of JetStream.
//!
//! * Without `stream=`: what is published to the subjects while this server is connected, as NATS delivers it: at most
//!   once. What is lost while it is not, and what exceeds the queue, is a Gap.
//! * With `stream=`: messages that JetStream keeps, in the order of the stream. With `durable=`, a consumer of this name
//!   keeps the place between two runs of the server, and messages are acknowledged once every ring has them. Without it,
//!   the place is kept while the server runs.
//!
//! A durable consumer delivers what was not acknowledged once more only after its `ack_wait`, and newer messages at once:
//! that would change the order. So on each connection the consumer is reset to what is acknowledged (NATS 2.14), or, at
//! an older server, nothing is asked for until `ack_wait` has passed.
//!
//! A connection is lost when two pings in a row have no answer, and a pull when its heartbeat stays away.

use std::collections::VecDeque;
use std::error::Error;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy};
use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::stream::{RetentionPolicy, Stream as JetStream};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerError, Subject};
use futures_lite::StreamExt;
use futures_lite::future::poll_once;
use tokio::select;
use tokio::sync::mpsc;
use tokio::task::yield_now;

use super::executor::Executor;
use super::push::PushQueue;
use crate::clock::now_ns;
use crate::ingest::broker::link::{Connect, Entry, Link, Message, Position, Positions};
use crate::ingest::broker::parameters::{Parameters, Terms, secret};
use crate::ingest::broker::source::BrokerOpener;
use crate::ingest::source::{Opener, SourceError, Stream, StreamState};
use crate::ingest::stop::Stop;

const TERMS: Terms = Terms {
    scheme: "nats",
    port: 4222,
    address: "subject",
    has_keys: false,
    own_keys: "subject, group, stream, durable, from, token_file, creds_file, nkey_file",
};

/// Time to connect, and to get an answer of JetStream.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is lost when two pings at this distance have no answer.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Silence after which JetStream says that a pull is alive; without it for twice as long, it is lost.
const PULL_HEARTBEAT: Duration = Duration::from_secs(5);
/// Time after which JetStream delivers a message of a consumer that was made here once more.
const ACK_WAIT: Duration = Duration::from_secs(10);
/// Messages that JetStream sends in advance.
const PULL_MESSAGES: usize = 1000;
/// Messages that are taken at once.
const TAKE_MAX: usize = 1000;
/// Messages of a consumer that was made here, which may wait for their acknowledgement.
const ACK_PENDING_MAX: i64 = 50_000;
/// Messages between the client's task and the queue; the task is never far behind.
const CLIENT_QUEUE: usize = 65_536;
/// Events of the client that wait.
const EVENTS_MAX: usize = 64;

/// Where a consumer begins that was not there before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum From {
    #[default]
    New,
    All,
}

/// What the client proves to be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Proof {
    Token(PathBuf),
    Credentials(PathBuf),
    Nkey(PathBuf),
}

#[derive(Debug)]
struct Nats {
    parameters: Parameters,
    subjects: Vec<String>,
    group: Option<String>,
    stream: Option<String>,
    durable: Option<String>,
    from: From,
    proof: Option<Proof>,
}

/// Parses what follows the colon.
pub fn parse(text: &str) -> Result<Arc<dyn Opener>, String> {
    let nats = Nats::parse(text)?;
    let codec = nats.parameters.codec.clone();
    Ok(Arc::new(BrokerOpener::new(format!("nats:{text}"), codec, nats)))
}

impl Nats {
    fn parse(text: &str) -> Result<Self, String> {
        let (mut subjects, mut group, mut stream, mut durable) = (Vec::new(), None, None, None);
        let (mut from, mut proof) = (From::default(), None);
        let parameters = Parameters::parse(text, &TERMS, |key, value| {
            match (key, value) {
                ("subject", _) => subjects.extend(value.split(',').map(str::to_owned)),
                ("group", _) => group = Some(name("group", value)?),
                ("stream", _) => stream = Some(name("stream", value)?),
                ("durable", _) => durable = Some(name("durable", value)?),
                ("from", "new") => from = From::New,
                ("from", "all") => from = From::All,
                ("from", _) => return Err(format!("from: invalid value {value:?}: expected new or all")),
                ("token_file", _) => proof = Some(Proof::Token(value.into())),
                ("creds_file", _) => proof = Some(Proof::Credentials(value.into())),
                ("nkey_file", _) => proof = Some(Proof::Nkey(value.into())),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        if let Some(bad) = subjects.iter().find(|subject| !is_subject(subject)) {
            return Err(format!(
                "subject: invalid value {bad:?}: expected parts between dots, such as prices.BTC or prices.>"
            ));
        }
        match (&stream, &durable, &group) {
            (None, _, _) if subjects.is_empty() => {
                return Err("subject is missing: expected subject=prices.> or stream=NAME".to_owned());
            }
            (None, Some(_), _) => return Err("durable: expected stream=NAME with it".to_owned()),
            (Some(_), _, Some(_)) => {
                return Err("group: expected no stream= with it: a consumer is shared by its durable name".to_owned());
            }
            _ => {}
        }
        Ok(Self { parameters, subjects, group, stream, durable, from, proof })
    }

    fn options(&self, events: mpsc::Sender<Event>) -> Result<ConnectOptions, String> {
        let tls = self.parameters.tls().map_err(|error| error.to_string())?;
        let mut options = ConnectOptions::new()
            .name("tickcast")
            .require_tls(self.parameters.is_tls)
            .tls_client_config((*tls).clone())
            .ignore_discovered_servers()
            .connection_timeout(ANSWER_TIMEOUT)
            .request_timeout(Some(ANSWER_TIMEOUT))
            .ping_interval(PING_INTERVAL)
            .subscription_capacity(CLIENT_QUEUE)
            .event_callback(move |event| {
                let events = events.clone();
                async move {
                    // A full queue has an event that ends the link.
                    let _ = events.try_send(event);
                }
            });
        if let Some(user) = &self.parameters.user {
            let password = self.parameters.password()?.unwrap_or_default();
            options = options.user_and_password(user.clone(), password);
        }
        Ok(match &self.proof {
            None => options,
            Some(Proof::Token(path)) => options.token(secret(path)?),
            Some(Proof::Nkey(path)) => options.nkey(secret(path)?),
            Some(Proof::Credentials(path)) => {
                let text = secret(path)?;
                options
                    .credentials(&text)
                    .map_err(|_| format!("{}: expected a file of credentials of NATS", path.display()))?
            }
        })
    }

    /// Connects to one of the servers.
    fn client(&self, executor: &Executor, events: mpsc::Sender<Event>) -> Result<Client, SourceError> {
        let options = self.options(events).map_err(unreadable)?;
        let server = |of: &crate::ingest::broker::parameters::Server| format!("nats://{}:{}", of.host, of.port);
        let servers: Vec<String> = self.parameters.servers.iter().map(server).collect();
        let within = ANSWER_TIMEOUT * (servers.len() as u32 + 1);
        let deadline_ns = now_ns() + within.as_nanos() as u64;
        match executor.run_until(deadline_ns, options.connect(servers)) {
            Some(Ok(client)) => Ok(client),
            Some(Err(error)) => Err(connect_error(&error)),
            None => Err(SourceError::retry(format!("no connection within {} s", within.as_secs()))),
        }
    }
}

impl Connect for Nats {
    fn check(&self) -> Result<(), String> {
        self.parameters.check()?;
        let (events, _) = mpsc::channel(1);
        self.options(events).map(drop)
    }

    fn connect(&self, positions: &mut Positions, stop: &Stop) -> Result<Box<dyn Link>, SourceError> {
        let executor = Executor::new(stop).map_err(|error| SourceError::retry(format!("no executor: {error}")))?;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let client = self.client(&executor, sender)?;
        let deadline_ns = now_ns() + 2 * ANSWER_TIMEOUT.as_nanos() as u64;
        let lost = || SourceError::retry("JetStream has not answered");
        let connection = Connection { executor, client, events, failure: None };
        match &self.stream {
            None => {
                let queue = PushQueue::new(self.parameters.buffer);
                let subscribed = subscribe(self, &connection.client, &queue);
                connection.executor.run_until(deadline_ns, subscribed).unwrap_or_else(|| Err(lost()))?;
                Ok(Box::new(Subjects { connection, queue, names: self.subjects.clone() }))
            }
            Some(name) => {
                let consumer = consume(self, &connection.client, name, positions);
                let (messages, state) =
                    connection.executor.run_until(deadline_ns, consumer).unwrap_or_else(|| Err(lost()))?;
                Ok(Box::new(Pulled {
                    connection,
                    messages,
                    stream: name.as_str().into(),
                    pending: VecDeque::new(),
                    state,
                }))
            }
        }
    }
}

/// What both kinds of links have.
struct Connection {
    executor: Executor,
    client: Client,
    events: mpsc::Receiver<Event>,
    /// It has ended, and what came before is not taken yet.
    failure: Option<SourceError>,
}

impl Connection {
    /// Notes what ends the link, and returns it at once if nothing has come before it.
    fn fail(&mut self, error: SourceError, inbox: &VecDeque<Entry>) -> Result<(), SourceError> {
        if inbox.is_empty() {
            return Err(error);
        }
        self.failure = Some(error);
        Ok(())
    }
}

/// Subscriptions to subjects.
struct Subjects {
    connection: Connection,
    queue: PushQueue,
    names: Vec<String>,
}

impl Link for Subjects {
    fn receive(&mut self, deadline_ns: u64, inbox: &mut VecDeque<Entry>) -> Result<(), SourceError> {
        let Self { connection: Connection { executor, events, failure, .. }, queue, .. } = self;
        if let Some(error) = failure.take() {
            return Err(error);
        }
        let event = executor.run_until(deadline_ns, async {
            // The tasks of the client run meanwhile.
            yield_now().await;
            select! {
                biased;
                error = end_of(events) => Some(error),
                () = queue.filled() => None,
            }
        });
        queue.take(inbox);
        event.flatten().map_or(Ok(()), |error| self.connection.fail(error, inbox))
    }

    fn is_durable(&self) -> bool {
        false
    }

    fn streams(&self) -> Vec<Stream> {
        let stream = |name: &String| Stream { name: name.clone(), state: StreamState::Live };
        if self.names.len() > 1 { self.names.iter().map(stream).collect() } else { Vec::new() }
    }
}

/// Subscribes to all subjects, each with a task that fills the queue.
async fn subscribe(nats: &Nats, client: &Client, queue: &PushQueue) -> Result<(), SourceError> {
    let failed = |error: &dyn Error| SourceError::retry(format!("subscription: {}", with_causes(error)));
    for subject in &nats.subjects {
        let subscribed = match &nats.group {
            None => client.subscribe(subject.clone()).await,
            Some(group) => client.queue_subscribe(subject.clone(), group.clone()).await,
        };
        let mut messages = subscribed.map_err(|error| failed(&error))?;
        let queue = queue.clone();
        tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let address = message.subject.to_string();
                queue.push(Message { address, key: None, payload: message.payload, position: None });
            }
        });
    }
    client.flush().await.map_err(|error| failed(&error))
}

/// A consumer of JetStream.
struct Pulled {
    connection: Connection,
    messages: Pin<Box<pull::Stream>>,
    stream: Arc<str>,
    /// Messages in order, with the subjects that acknowledge them.
    pending: VecDeque<Option<Subject>>,
    state: PullState,
}

/// How far a consumer is.
struct PullState {
    ack: AckPolicy,
    /// Nothing is asked for before this time.
    begins_ns: u64,
    /// Messages that came, and that were acknowledged.
    come: u64,
    settled: u64,
    lag: u64,
}

impl Link for Pulled {
    fn receive(&mut self, deadline_ns: u64, inbox: &mut VecDeque<Entry>) -> Result<(), SourceError> {
        let Self { connection: Connection { executor, events, failure, .. }, messages, .. } = self;
        if let Some(error) = failure.take() {
            return Err(error);
        }
        let begins_ns = self.state.begins_ns;
        let mut taken = Vec::new();
        let error = executor.run_until(deadline_ns, async {
            yield_now().await;
            let first = select! {
                biased;
                error = end_of(events) => return Some(error),
                first = messages.next(), if now_ns() >= begins_ns => first,
            };
            let mut next = Some(first);
            while let Some(message) = next.take() {
                match message {
                    Some(Ok(message)) => taken.push(message),
                    Some(Err(error)) => return Some(SourceError::retry(format!("JetStream: {}", with_causes(&error)))),
                    None => return Some(SourceError::retry("JetStream has ended the consumer")),
                }
                if taken.len() < TAKE_MAX {
                    next = poll_once(messages.next()).await;
                }
            }
            None
        });
        taken.into_iter().for_each(|message| self.take(message, inbox));
        error.flatten().map_or(Ok(()), |error| self.connection.fail(error, inbox))
    }

    fn settle(&mut self, number: u64) -> Result<(), SourceError> {
        let count = number.saturating_sub(self.state.settled).min(self.pending.len() as u64);
        self.state.settled += count;
        let mut done: Vec<Subject> = self.pending.drain(..count as usize).flatten().collect();
        match self.state.ack {
            AckPolicy::None => return Ok(()),
            AckPolicy::All => drop(done.drain(..done.len().saturating_sub(1))),
            _ => {}
        }
        let client = &self.connection.client;
        let sent = self.connection.executor.run(async {
            for subject in done {
                client.publish(subject, "+ACK".into()).await?;
            }
            Ok::<_, async_nats::PublishError>(())
        });
        match sent {
            Some(Err(error)) => Err(SourceError::retry(format!("acknowledgement: {}", with_causes(&error)))),
            Some(Ok(())) | None => Ok(()),
        }
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn lag(&self) -> Option<u64> {
        Some(self.state.lag)
    }
}

impl Pulled {
    fn take(&mut self, message: jetstream::Message, inbox: &mut VecDeque<Entry>) {
        let position = message.info().ok().map(|info| {
            self.state.lag = info.pending;
            let time_ns = u64::try_from(info.published.unix_timestamp_nanos()).unwrap_or(0);
            (Arc::clone(&self.stream), Position { offset: info.stream_sequence.into(), time_ns })
        });
        let async_nats::Message { subject, reply, payload, .. } = message.message;
        self.state.come += 1;
        self.pending.push_back(reply);
        inbox.push_back(Entry::Message(Message { address: subject.to_string(), key: None, payload, position }));
    }
}

/// Opens the stream and its consumer.
async fn consume(
    nats: &Nats,
    client: &Client,
    name: &str,
    positions: &mut Positions,
) -> Result<(Pin<Box<pull::Stream>>, PullState), SourceError> {
    let mut context = jetstream::new(client.clone());
    context.set_timeout(ANSWER_TIMEOUT);
    let stream = context.get_stream(name).await.map_err(|error| stream_error(name, &error))?;
    if nats.durable.is_none() && nats.from == From::New && positions.of(name).is_none() {
        // A link that is lost before its first message has a place as well.
        let last = stream.cached_info().state.last_sequence;
        positions.advance(&name.into(), Position { offset: last.into(), time_ns: 0 });
    }
    let config = config(nats, &stream, positions);
    let failed = |error: &dyn Error| SourceError::retry(format!("consumer of stream {name}: {}", with_causes(error)));
    let mut consumer: Consumer<pull::Config> = match &nats.durable {
        Some(durable) => stream.get_or_create_consumer(durable, config).await,
        None => stream.create_consumer(config).await,
    }
    .map_err(|error| failed(&error))?;
    let ack = consumer.cached_info().config.ack_policy;
    let ack_wait = consumer.cached_info().config.ack_wait;
    let mut begins_ns = 0;
    if consumer.cached_info().num_ack_pending > 0 && consumer.reset(None).await.is_err() {
        begins_ns = now_ns() + (ack_wait + Duration::from_secs(1)).as_nanos() as u64;
    }
    let pull = consumer.stream().max_messages_per_batch(PULL_MESSAGES).heartbeat(PULL_HEARTBEAT);
    let messages = pull.messages().await.map_err(|error| failed(&error))?;
    Ok((Box::pin(messages), PullState { ack, begins_ns, come: 0, settled: 0, lag: 0 }))
}

/// The consumer that is made where there is none.
fn config(nats: &Nats, stream: &JetStream, positions: &Positions) -> pull::Config {
    let info = stream.cached_info();
    let last = positions.of(&info.config.name).and_then(|last| u64::try_from(last.offset).ok());
    let deliver_policy = match last {
        Some(last) if nats.durable.is_none() && last <= info.state.last_sequence => {
            DeliverPolicy::ByStartSequence { start_sequence: last + 1 }
        }
        // The consumer, or the stream with it, was made anew: what was taken before is known.
        Some(_) => DeliverPolicy::All,
        None if nats.from == From::All => DeliverPolicy::All,
        None => DeliverPolicy::New,
    };
    let ack_policy = match (&nats.durable, info.config.retention) {
        (None, _) => AckPolicy::None,
        (Some(_), RetentionPolicy::WorkQueue) => AckPolicy::Explicit,
        (Some(_), _) => AckPolicy::All,
    };
    let mut config = pull::Config {
        durable_name: nats.durable.clone(),
        deliver_policy,
        ack_policy,
        ack_wait: ACK_WAIT,
        max_ack_pending: if nats.durable.is_some() { ACK_PENDING_MAX } else { 0 },
        ..pull::Config::default()
    };
    match nats.subjects.as_slice() {
        // Several need NATS 2.10.
        [subject] => config.filter_subject.clone_from(subject),
        several => config.filter_subjects = several.to_vec(),
    }
    config
}

/// Completes with what ends the link.
async fn end_of(events: &mut mpsc::Receiver<Event>) -> SourceError {
    loop {
        match events.recv().await.map(|event| failure_of(&event)) {
            None => return SourceError::retry("the client has ended"),
            Some(Some(error)) => return error,
            Some(None) => {}
        }
    }
}

/// What ends a link, of what the client reports.
fn failure_of(event: &Event) -> Option<SourceError> {
    match event {
        Event::Disconnected | Event::Closed => Some(SourceError::retry("the connection was lost")),
        Event::SlowConsumer(_) => Some(SourceError::retry("the client's own queue was full")),
        Event::ServerError(ServerError::AuthorizationViolation) => Some(refused("authorization violation")),
        Event::ServerError(error) if error.to_string().to_lowercase().contains("permissions violation") => {
            let cure = "give the user the permission to subscribe".to_owned();
            Some(SourceError::Fatal { reason: format!("the server says: {error}"), cure })
        }
        Event::ServerError(error) => Some(SourceError::retry(format!("the server says: {error}"))),
        Event::Connected | Event::LameDuckMode | Event::Draining | Event::ClientError(_) => None,
    }
}

fn connect_error(error: &ConnectError) -> SourceError {
    let reason = with_causes(error);
    match error.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => refused(&reason),
        _ => certificate_error(&reason).unwrap_or_else(|| SourceError::retry(format!("no connection: {reason}"))),
    }
}

fn refused(reason: &str) -> SourceError {
    let cure = "correct user= and password_file=, token_file=, creds_file= or nkey_file=, and restart the server";
    SourceError::Fatal { reason: format!("the server refuses the credentials: {reason}"), cure: cure.to_owned() }
}

/// The error of a peer whose certificate is not verified.
fn certificate_error(reason: &str) -> Option<SourceError> {
    let cure =
        "name the authority of its certificate with ca_file=FILE, and the server as the certificate does".to_owned();
    let is_of_certificate = reason.contains("certificate") || reason.contains("UnknownIssuer");
    is_of_certificate.then(|| SourceError::Fatal { reason: format!("TLS: {reason}"), cure })
}

fn stream_error(name: &str, error: &GetStreamError) -> SourceError {
    match error.kind() {
        GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
            SourceError::retry(format!("stream {name} does not exist: create it with `nats stream add {name}`"))
        }
        _ => SourceError::retry(format!("stream {name}: {}: expected a server with JetStream", with_causes(error))),
    }
}

/// A file that was there at the start.
fn unreadable(problem: String) -> SourceError {
    SourceError::Fatal { reason: problem, cure: "put the file there and restart the server".to_owned() }
}

/// An error with what caused it; a cause that is in the text already is left out.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

fn name(key: &str, value: &str) -> Result<String, String> {
    let is_letter = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'.' | b'*' | b'>' | b'/' | b'\\');
    if value.is_empty() || !value.bytes().all(is_letter) {
        return Err(format!(
            "{key}: invalid value {value:?}: expected visible ASCII characters without . * > / and \\"
        ));
    }
    Ok(value.to_owned())
}

fn is_subject(subject: &str) -> bool {
    let mut parts = subject.split('.').peekable();
    let is_part =
        |part: &str| !part.is_empty() && !part.contains(|letter: char| letter.is_whitespace() || letter.is_control());
    while let Some(part) = parts.next() {
        if !is_part(part) || (part == ">" && parts.peek().is_some()) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argument_is_checked_with_what_is_expected() {
        for (text, message) in [
            ("//a", "subject is missing: expected subject=prices.> or stream=NAME"),
            ("//a?subject=a..b", "subject: invalid value \"a..b\": expected parts between dots"),
            ("//a?subject=>.b", "subject: invalid value \">.b\""),
            ("//a?subject=a&durable=x", "durable: expected stream=NAME with it"),
            ("//a?stream=S&group=x", "group: expected no stream= with it"),
            ("//a?stream=a.b", "stream: invalid value \"a.b\": expected visible ASCII characters without . *"),
            ("//a?stream=S&from=here", "from: invalid value \"here\": expected new or all"),
        ] {
            let error = Nats::parse(text).expect_err(text);
            assert!(error.starts_with(message), "{text}: {error}");
        }
        let nats = Nats::parse("//a,b:1?subject=x.>,y&stream=S&durable=D&from=all&creds_file=/c").expect("all keys");
        assert_eq!((nats.subjects.as_slice(), nats.from), (&["x.>".to_owned(), "y".to_owned()][..], From::All));
        assert_eq!(nats.proof, Some(Proof::Credentials("/c".into())));
        assert!(nats.check().is_err_and(|error| error.starts_with("/c: ")), "a file is missing");
    }

    #[test]
    fn untrusted_certificate_is_fatal_with_a_cure() {
        let error = certificate_error("IO error: invalid peer certificate: UnknownIssuer").expect("of a certificate");
        assert!(matches!(error, SourceError::Fatal { cure, .. } if cure.contains("ca_file=")));
        assert_eq!(certificate_error("IO error: connection refused"), None);
    }
}
