//! Queues and streams: consumers with acknowledgements, each on a channel of its own, where one acknowledgement stands for
//! all messages before it.
//!
//! The place in a stream is the offset of the last message that every ring has. On a new connection the stream is read
//! from that message, not behind it: if it comes, the stream is the one that it was. If a later one comes, those between
//! were deleted. If another one comes with its offset, or none, the stream was made anew: RabbitMQ waits for an offset
//! that is not there yet, whatever comes before. Then it is read from its beginning, behind a Gap.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_lite::{Stream as _, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, Consumer, Error, ErrorKind};
use tokio::task::yield_now;

use super::memory::{Last, Memory};
use super::{From, answer, failure};
use crate::clock::now_ns;
use crate::ingest::broker::link::{Entry, Link, Message, Position, Positions};
use crate::ingest::source::{SourceError, Stream, StreamState};
use crate::ingest::transport::executor::Executor;

/// Messages of a queue or stream that the broker sends before they are acknowledged.
const PREFETCH: u16 = 1000;
/// Messages that are taken at once.
const TAKE_MAX: usize = 1000;
/// How often a queue is asked for the number of its messages.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// How long the last message of a stream is waited for on a new connection.
const LAST_TIMEOUT: Duration = Duration::from_secs(5);
/// The header with the offset of a message in its stream.
const OFFSET: &str = "x-stream-offset";

/// The consumer of a queue or stream.
struct Reader {
    name: Arc<str>,
    channel: Channel,
    consumer: Consumer,
    is_stream: bool,
    /// Messages that were lost before the first one.
    lost: u64,
    /// The first one, if it was waited for.
    first: Option<Delivery>,
}

/// A message that is not acknowledged.
struct Unsettled {
    /// Its queue, by its place among the readers.
    reader: usize,
    tag: u64,
    mark: Mark,
}

/// What a message is known by when it comes again.
enum Mark {
    None,
    Id(u64),
    Place { offset: u64, hash: u64 },
}

// The connection is dropped before its executor.
struct Readers {
    readers: Vec<Reader>,
    /// For questions about queues.
    questions: Channel,
    _connection: Connection,
    executor: Executor,
    memory: Arc<Memory>,
    /// The reader that is asked first.
    next: usize,
    /// In order.
    unsettled: VecDeque<Unsettled>,
    settled: u64,
    lag: Option<u64>,
    checked_ns: u64,
    /// The link has ended, and what came before is not taken yet.
    failure: Option<SourceError>,
}

/// Opens queues.
pub fn open_queues(
    executor: Executor,
    connection: Connection,
    names: &[String],
    memory: &Arc<Memory>,
) -> Result<Box<dyn Link>, SourceError> {
    let mut readers = Vec::new();
    for name in names {
        let (channel, consumer) =
            answer(&executor, &format!("queue {name}"), consume(&connection, name, FieldTable::default()))?;
        let (name, is_stream, lost, first) = (name.as_str().into(), false, 0, None);
        readers.push(Reader { name, channel, consumer, is_stream, lost, first });
    }
    link(executor, connection, readers, memory)
}

/// Opens streams.
pub fn open_streams(
    executor: Executor,
    connection: Connection,
    names: &[String],
    from: From,
    memory: &Arc<Memory>,
    positions: &mut Positions,
) -> Result<Box<dyn Link>, SourceError> {
    let mut readers = Vec::new();
    for name in names {
        readers.push(open_stream(&executor, &connection, name, from, memory, positions)?);
    }
    link(executor, connection, readers, memory)
}

fn link(
    executor: Executor,
    connection: Connection,
    readers: Vec<Reader>,
    memory: &Arc<Memory>,
) -> Result<Box<dyn Link>, SourceError> {
    let questions = answer(&executor, "channel", connection.create_channel())?;
    let (next, unsettled, settled, lag) = (0, VecDeque::new(), 0, None);
    let (checked_ns, failure, memory) = (0, None, Arc::clone(memory));
    Ok(Box::new(Readers {
        readers,
        questions,
        _connection: connection,
        executor,
        memory,
        next,
        unsettled,
        settled,
        lag,
        checked_ns,
        failure,
    }))
}

async fn consume(connection: &Connection, name: &str, arguments: FieldTable) -> Result<(Channel, Consumer), Error> {
    let channel = connection.create_channel().await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(name.into(), "".into(), options, arguments).await?;
    Ok((channel, consumer))
}

fn open_stream(
    executor: &Executor,
    connection: &Connection,
    name: &str,
    from: From,
    memory: &Memory,
    positions: &mut Positions,
) -> Result<Reader, SourceError> {
    let what = format!("stream {name}");
    let open = |offset: AMQPValue, lost: u64| {
        let mut arguments = FieldTable::default();
        arguments.insert(OFFSET.into(), offset);
        let opened = answer(executor, &what, consume(connection, name, arguments));
        let reader = |(channel, consumer)| {
            let (name, is_stream, first) = (name.into(), true, None);
            Reader { name, channel, consumer, is_stream, lost, first }
        };
        opened.map(reader).map_err(|error| stream_error(name, error))
    };
    let Some(last) = memory.last(name) else {
        let offset = match from {
            From::New => AMQPValue::LongString("next".into()),
            From::All => AMQPValue::LongString("first".into()),
            From::Offset(offset) => AMQPValue::LongLongInt(offset.cast_signed()),
        };
        let mut reader = open(offset, 0)?;
        // AMQP does not tell the place of a stream before its first message.
        reader.lost = u64::from(from == From::New && !memory.open_at_new(name));
        return Ok(reader);
    };
    let mut reader = open(AMQPValue::LongLongInt(last.offset.cast_signed()), 0)?;
    if await_last(executor, &mut reader, last, memory)? {
        return Ok(reader);
    }
    let reader = open(AMQPValue::LongString("first".into()), 1)?;
    positions.forget(name);
    memory.forget(name);
    Ok(reader)
}

/// Waits for the last message that every ring has; false if it is not there, and nothing behind it.
fn await_last(executor: &Executor, reader: &mut Reader, last: Last, memory: &Memory) -> Result<bool, SourceError> {
    let deadline_ns = now_ns() + LAST_TIMEOUT.as_nanos() as u64;
    let first = match executor.run_until(deadline_ns, reader.consumer.next()) {
        None => return Ok(false),
        Some(None) => return Err(end_of(reader, None)),
        Some(Some(Err(error))) => return Err(end_of(reader, Some(&error))),
        Some(Some(Ok(first))) => first,
    };
    let Some(offset) = offset_of(&first) else { return Err(other_kind(&reader.name, false)) };
    if offset == last.offset {
        answer(executor, "acknowledgement", first.acker.ack(BasicAckOptions::default()))?;
        return Ok(memory.hash(first.routing_key.as_str(), &first.data) == last.hash);
    }
    reader.lost = offset.saturating_sub(last.offset + 1);
    reader.first = Some(first);
    Ok(true)
}

/// The error of a stream says how to make one, or that it is none.
fn stream_error(name: &str, error: SourceError) -> SourceError {
    match error {
        SourceError::Retry { reason, .. } if reason.contains("does not exist") => SourceError::retry(format!(
            "stream {name} does not exist: create it, such as with `rabbitmqadmin declare queue name={name} durable=true \
             arguments='{{\"x-queue-type\":\"stream\"}}'`"
        )),
        // Older versions ignore the argument: then the first message tells.
        SourceError::Retry { reason, .. } if reason.contains("invalid arg 'x-stream-offset'") => {
            other_kind(name, false)
        }
        error => error,
    }
}

fn offset_of(delivery: &Delivery) -> Option<u64> {
    match delivery.properties.headers().as_ref()?.inner().get(OFFSET)? {
        AMQPValue::LongLongInt(offset) => u64::try_from(*offset).ok(),
        _ => None,
    }
}

impl Link for Readers {
    fn receive(&mut self, deadline_ns: u64, inbox: &mut VecDeque<Entry>) -> Result<(), SourceError> {
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        self.check()?;
        let (mut taken, from) = (Vec::new(), self.next);
        self.next = (from + 1) % self.readers.len();
        let Self { executor, readers, .. } = self;
        let ended = executor.run_until(deadline_ns, async {
            // The tasks of the client run meanwhile.
            yield_now().await;
            poll_fn(|context| poll_readers(readers, from, context, &mut taken)).await
        });
        let mut failure = ended.flatten().map(|(nth, error)| end_of(&readers[nth], error.as_ref()));
        for (nth, delivery) in taken {
            if let Err(error) = self.take(nth, delivery, inbox) {
                failure = Some(error);
                break;
            }
        }
        match failure {
            Some(error) if inbox.is_empty() => Err(error),
            failure => {
                self.failure = failure;
                Ok(())
            }
        }
    }

    fn settle(&mut self, number: u64) -> Result<(), SourceError> {
        let count = number.saturating_sub(self.settled).min(self.unsettled.len() as u64);
        self.settled += count;
        let mut last = vec![None; self.readers.len()];
        for Unsettled { reader, tag, mark } in self.unsettled.drain(..count as usize) {
            last[reader] = Some(tag);
            match mark {
                Mark::None => {}
                Mark::Id(id) => self.memory.note(id),
                Mark::Place { offset, hash } => self.memory.note_last(&self.readers[reader].name, offset, hash),
            }
        }
        for (reader, tag) in self.readers.iter().zip(last) {
            if let Some(tag) = tag {
                let acknowledged = reader.channel.basic_ack(tag, BasicAckOptions { multiple: true });
                answer(&self.executor, "acknowledgement", acknowledged)?;
            }
        }
        Ok(())
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn streams(&self) -> Vec<Stream> {
        let stream = |reader: &Reader| Stream { name: reader.name.to_string(), state: StreamState::Live };
        if self.readers.len() > 1 { self.readers.iter().map(stream).collect() } else { Vec::new() }
    }

    fn lag(&self) -> Option<u64> {
        self.lag
    }
}

impl Readers {
    fn take(&mut self, nth: usize, delivery: Delivery, inbox: &mut VecDeque<Entry>) -> Result<(), SourceError> {
        let Self { readers, memory, .. } = self;
        let Reader { name, is_stream, .. } = &readers[nth];
        let (offset, mark) = match (offset_of(&delivery), is_stream) {
            (Some(offset), true) => {
                let hash = memory.hash(delivery.routing_key.as_str(), &delivery.data);
                (offset, Mark::Place { offset, hash })
            }
            (None, false) => {
                let id = delivery.properties.message_id().as_ref().map(|id| memory.id(name, id.as_str()));
                (memory.place(id, delivery.redelivered), id.map_or(Mark::None, Mark::Id))
            }
            (offset, _) => return Err(other_kind(name, offset.is_some())),
        };
        self.unsettled.push_back(Unsettled { reader: nth, tag: delivery.delivery_tag, mark });
        let lost = std::mem::take(&mut self.readers[nth].lost);
        if lost > 0 {
            inbox.push_back(Entry::Lost { count: lost });
        }
        inbox.push_back(Entry::Message(Message {
            address: delivery.routing_key.into(),
            key: None,
            payload: Bytes::from(delivery.data),
            position: Some((Arc::clone(&self.readers[nth].name), Position { offset: offset.into(), time_ns: 0 })),
        }));
        Ok(())
    }

    /// Asks for the number of messages in each queue. RabbitMQ does not say how many a stream has.
    fn check(&mut self) -> Result<(), SourceError> {
        let now_ns = now_ns();
        if now_ns < self.checked_ns + CHECK_INTERVAL.as_nanos() as u64 {
            return Ok(());
        }
        self.checked_ns = now_ns;
        let mut lag = None;
        for Reader { name, .. } in self.readers.iter().filter(|reader| !reader.is_stream) {
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let declared = self.questions.queue_declare((&**name).into(), options, FieldTable::default());
            let queue = answer(&self.executor, &format!("queue {name}"), declared)?;
            lag = Some(lag.unwrap_or(0) + u64::from(queue.message_count()));
        }
        self.lag = lag;
        Ok(())
    }
}

/// Takes what has come, from the reader `from` on; ready as well with the first reader that has ended, and its error.
fn poll_readers(
    readers: &mut [Reader],
    from: usize,
    context: &mut Context<'_>,
    taken: &mut Vec<(usize, Delivery)>,
) -> Poll<Option<(usize, Option<Error>)>> {
    let count = readers.len();
    for nth in (from..from + count).map(|nth| nth % count) {
        let reader = &mut readers[nth];
        taken.extend(reader.first.take().map(|delivery| (nth, delivery)));
        while taken.len() < TAKE_MAX {
            match Pin::new(&mut reader.consumer).poll_next(context) {
                Poll::Ready(Some(Ok(delivery))) => taken.push((nth, delivery)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some((nth, Some(error)))),
                Poll::Ready(None) => return Poll::Ready(Some((nth, None))),
                Poll::Pending => break,
            }
        }
    }
    if taken.is_empty() { Poll::Pending } else { Poll::Ready(None) }
}

/// Why a consumer has ended. The broker gives no reason when it is because the queue was deleted.
fn end_of(reader: &Reader, error: Option<&Error>) -> SourceError {
    let Reader { name, is_stream, .. } = reader;
    let kind = if *is_stream { "stream" } else { "queue" };
    match error {
        Some(error) if !matches!(error.kind(), ErrorKind::InvalidChannelState(..)) => {
            failure(&format!("{kind} {name}"), error)
        }
        _ => SourceError::retry(format!("the broker has ended the consumer: {kind} {name} was deleted")),
    }
}

fn other_kind(name: &str, is_stream: bool) -> SourceError {
    let (reason, cure) = match is_stream {
        true => (format!("queue {name} is a stream"), format!("give it as stream={name}, and restart the server")),
        false => (format!("stream {name} is no stream"), format!("give it as queue={name}, and restart the server")),
    };
    SourceError::Fatal { reason, cure }
}
