//! The queue of a push source: what its broker sends, until the source takes it.
//!
//! What always holds: it never has more than its limit. A message that comes while it is full takes the place of all
//! that wait, and a loss of so many is noted where they were: the newest are worth most, and the stream of what is left
//! has its Gap in the right place.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::ingest::broker::link::{Entry, Message};

/// A handle; all clones are one. It is used on one thread.
#[derive(Clone, Debug)]
pub struct PushQueue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    entries: Mutex<VecDeque<Entry>>,
    filled: Notify,
    most: usize,
}

impl PushQueue {
    /// A queue of at most so many messages.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Shared { entries: Mutex::default(), filled: Notify::new(), most }))
    }

    /// Adds a message.
    pub fn push(&self, message: Message) {
        let mut entries = self.lock();
        if entries.len() > self.0.most {
            let lost = |entry: &Entry| match entry {
                Entry::Message(_) => 1,
                Entry::Lost { count } => *count,
            };
            let count = entries.iter().map(lost).sum();
            entries.clear();
            entries.push_back(Entry::Lost { count });
        }
        entries.push_back(Entry::Message(message));
        drop(entries);
        self.0.filled.notify_one();
    }

    /// Moves all entries to `inbox`, which is empty.
    pub fn take(&self, inbox: &mut VecDeque<Entry>) {
        std::mem::swap(&mut *self.lock(), inbox);
    }

    /// Completes when there is an entry.
    pub async fn filled(&self) {
        while self.lock().is_empty() {
            self.0.filled.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn full_queue_is_replaced_by_its_newest_message_behind_a_loss() {
        let queue = PushQueue::new(3);
        let message = |number: u8| Message {
            address: String::new(),
            key: None,
            payload: Bytes::copy_from_slice(&[number]),
            position: None,
        };
        (0..5).for_each(|number| queue.push(message(number)));
        let mut inbox = VecDeque::new();
        queue.take(&mut inbox);
        let shown = inbox.iter().map(|entry| match entry {
            Entry::Message(message) => format!("message {}", message.payload[0]),
            Entry::Lost { count } => format!("{count} lost"),
        });
        assert_eq!(shown.collect::<Vec<_>>(), ["4 lost", "message 4"]);
        (0..40).for_each(|number| queue.push(message(number)));
        assert!(queue.lock().len() <= 4);
        queue.take(&mut VecDeque::new());
        assert!(queue.lock().is_empty());
    }
}
