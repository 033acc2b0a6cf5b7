//! An exchange: what is published while this server is connected. A queue of this server's own is bound to it, which the
//! broker deletes with the connection. A task moves its messages to the queue of the source.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_lite::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer, Error};
use tokio::select;
use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::{answer, failure};
use crate::ingest::broker::link::{Entry, Link, Message};
use crate::ingest::source::{SourceError, Stream, StreamState};
use crate::ingest::transport::executor::Executor;
use crate::ingest::transport::push::PushQueue;

// The connection is dropped before its executor.
struct Exchange {
    _channel: Channel,
    _connection: Connection,
    executor: Executor,
    queue: PushQueue,
    /// Completes when the consumer has ended.
    ended: oneshot::Receiver<Option<Error>>,
    /// The link has ended, and what came before is not taken yet.
    failure: Option<SourceError>,
    name: String,
    keys: Vec<String>,
}

/// Binds a queue to the exchange.
pub fn open(
    executor: Executor,
    connection: Connection,
    name: &str,
    keys: &[String],
    buffer: usize,
) -> Result<Box<dyn Link>, SourceError> {
    let bound = bind(&connection, name, keys);
    let (channel, mut messages) = answer(&executor, &format!("exchange {name}"), bound)?;
    let queue = PushQueue::new(buffer);
    let (end, ended) = oneshot::channel();
    let filled = queue.clone();
    executor.spawn(async move {
        let mut reason = None;
        while let Some(message) = messages.next().await {
            match message {
                Ok(message) => {
                    let (address, payload) = (message.routing_key.into(), Bytes::from(message.data));
                    filled.push(Message { address, key: None, payload, position: None });
                }
                Err(error) => reason = Some(error),
            }
        }
        // The link may be gone by now.
        let _ = end.send(reason);
    });
    let (name, keys, failure) = (name.to_owned(), keys.to_vec(), None);
    Ok(Box::new(Exchange { _channel: channel, _connection: connection, executor, queue, ended, failure, name, keys }))
}

async fn bind(connection: &Connection, name: &str, keys: &[String]) -> Result<(Channel, Consumer), Error> {
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare("".into(), options, FieldTable::default()).await?.name().clone();
    for key in keys {
        let (name, key) = (name.into(), key.as_str().into());
        channel.queue_bind(queue.clone(), name, key, QueueBindOptions::default(), FieldTable::default()).await?;
    }
    let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
    let consumer = channel.basic_consume(queue, "".into(), options, FieldTable::default()).await?;
    Ok((channel, consumer))
}

impl Link for Exchange {
    fn receive(&mut self, deadline_ns: u64, inbox: &mut VecDeque<Entry>) -> Result<(), SourceError> {
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        let Self { executor, queue, ended, .. } = self;
        let end = executor.run_until(deadline_ns, async {
            // The tasks of the client run meanwhile.
            yield_now().await;
            select! {
                biased;
                end = ended => Some(end.ok().flatten()),
                () = queue.filled() => None,
            }
        });
        queue.take(inbox);
        let Some(Some(reason)) = end else { return Ok(()) };
        let error = match reason {
            Some(error) => failure(&format!("exchange {}", self.name), &error),
            None => SourceError::retry(format!("the broker has deleted this server's queue of exchange {}", self.name)),
        };
        if inbox.is_empty() {
            return Err(error);
        }
        self.failure = Some(error);
        Ok(())
    }

    fn is_durable(&self) -> bool {
        false
    }

    fn streams(&self) -> Vec<Stream> {
        let stream = |key: &String| Stream { name: key.clone(), state: StreamState::Live };
        if self.keys.len() > 1 { self.keys.iter().map(stream).collect() } else { Vec::new() }
    }
}
