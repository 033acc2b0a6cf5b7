//! Channels of Pub/Sub: a subscription with a task that fills the queue. Redis is asked for an answer every few seconds:
//! a connection without one is lost, although its socket may be open.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_lite::StreamExt;
use redis::aio::PubSubSink;
use redis::{Client, Value};
use tokio::select;
use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::{CHECK_INTERVAL, answer};
use crate::clock::now_ns;
use crate::ingest::broker::link::{Entry, Link, Message};
use crate::ingest::source::{SourceError, Stream, StreamState};
use crate::ingest::transport::executor::Executor;
use crate::ingest::transport::push::PushQueue;

struct Channels {
    executor: Executor,
    queue: PushQueue,
    sink: PubSubSink,
    /// Completes when the connection has ended.
    ended: oneshot::Receiver<()>,
    /// The connection has ended, and what came before is not taken yet.
    is_lost: bool,
    checked_ns: u64,
    names: Vec<String>,
}

/// Subscribes.
pub fn open(
    executor: Executor,
    client: &Client,
    names: &[String],
    patterns: &[String],
    queue: usize,
) -> Result<Box<dyn Link>, SourceError> {
    let queue = PushQueue::new(queue);
    let mut subscription = answer(&executor, "no connection", client.get_async_pubsub())?;
    answer(&executor, "subscription", async {
        for name in names {
            subscription.subscribe(name).await?;
        }
        for pattern in patterns {
            subscription.psubscribe(pattern).await?;
        }
        Ok(())
    })?;
    let (sink, mut messages) = subscription.split();
    let (end, ended) = oneshot::channel();
    let filled = queue.clone();
    let task = async move {
        while let Some(message) = messages.next().await {
            let address = message.get_channel_name().to_owned();
            let payload = Bytes::copy_from_slice(message.get_payload_bytes());
            filled.push(Message { address, key: None, payload, position: None });
        }
        // The link may be gone by now.
        let _ = end.send(());
    };
    executor.run(async { drop(tokio::spawn(task)) });
    let names = names.iter().chain(patterns).cloned().collect();
    Ok(Box::new(Channels { executor, queue, sink, ended, is_lost: false, checked_ns: now_ns(), names }))
}

impl Link for Channels {
    fn receive(&mut self, deadline_ns: u64, inbox: &mut VecDeque<Entry>) -> Result<(), SourceError> {
        let lost = || SourceError::retry("the connection was lost");
        if self.is_lost {
            return Err(lost());
        }
        let Self { executor, queue, ended, .. } = self;
        let has_ended = executor.run_until(deadline_ns, async {
            // The tasks of the client run meanwhile.
            yield_now().await;
            select! {
                biased;
                _ = ended => true,
                () = queue.filled() => false,
            }
        });
        queue.take(inbox);
        self.is_lost = has_ended == Some(true);
        if self.is_lost && inbox.is_empty() {
            return Err(lost());
        }
        let now_ns = now_ns();
        if now_ns >= self.checked_ns + CHECK_INTERVAL.as_nanos() as u64 && !self.is_lost {
            self.checked_ns = now_ns;
            // What is in the inbox is taken before the error, with the next call.
            self.is_lost = answer(&self.executor, "ping", self.sink.ping::<Value>()).is_err();
        }
        Ok(())
    }

    fn is_durable(&self) -> bool {
        false
    }

    fn streams(&self) -> Vec<Stream> {
        let stream = |name: &String| Stream { name: name.clone(), state: StreamState::Live };
        if self.names.len() > 1 { self.names.iter().map(stream).collect() } else { Vec::new() }
    }
}
