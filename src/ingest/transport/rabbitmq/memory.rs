//! What is remembered of queues and streams while connections come and go.
//!
//! A queue delivers a message again that was taken and whose acknowledgement the broker has not noted. AMQP gives messages
//! no number, so such a message is known by the `message_id` that its publisher has given it: the ids of the last
//! [`IDS_MAX`] messages are kept, as hashes: 2 MiB. A message that the broker does not mark as redelivered is never
//! taken for a known one: publishers may give the same id to all messages.
//!
//! Of a stream, the last message is remembered by its offset and a hash: if the stream was made anew meanwhile, another
//! message has that offset.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Ids that are kept.
const IDS_MAX: usize = 65_536;

/// A handle for the feed and its links. It is used on one thread at a time.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Messages of queues that came, whatever became of them.
    number: u64,
    ids: HashSet<u64>,
    order: VecDeque<u64>,
    hasher: RandomState,
    /// The last message of each stream that every ring has.
    last: HashMap<Arc<str>, Last>,
    /// Streams that were opened at their new messages.
    opened: HashSet<String>,
}

/// The last message of a stream that every ring has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Last {
    pub offset: u64,
    /// What the message is known by if the stream was deleted and made anew.
    pub hash: u64,
}

impl Memory {
    /// The id of a message, which is its own in its queue.
    pub fn id(&self, queue: &str, message_id: &str) -> u64 {
        self.lock().hasher.hash_one((queue, message_id))
    }

    /// Every ring has the message with this id.
    pub fn note(&self, id: u64) {
        let mut known = self.lock();
        if known.ids.insert(id) {
            known.order.push_back(id);
        }
        if known.order.len() > IDS_MAX
            && let Some(oldest) = known.order.pop_front()
        {
            known.ids.remove(&oldest);
        }
    }

    /// The place of a message that came from a queue: growing, or 0 if it is one that every ring has.
    pub fn place(&self, id: Option<u64>, is_redelivered: bool) -> u64 {
        let mut known = self.lock();
        if is_redelivered && id.is_some_and(|id| known.ids.contains(&id)) {
            return 0;
        }
        known.number += 1;
        known.number
    }

    /// The hash of a message of a stream.
    pub fn hash(&self, routing_key: &str, payload: &[u8]) -> u64 {
        self.lock().hasher.hash_one((routing_key, payload))
    }

    /// Every ring has the messages of a stream up to this one.
    pub fn note_last(&self, stream: &Arc<str>, offset: u64, hash: u64) {
        self.lock().last.insert(Arc::clone(stream), Last { offset, hash });
    }

    /// The last message of a stream.
    pub fn last(&self, stream: &str) -> Option<Last> {
        self.lock().last.get(stream).copied()
    }

    /// A stream is opened at its new messages. False if it was before: then those in between are lost.
    pub fn open_at_new(&self, stream: &str) -> bool {
        self.lock().opened.insert(stream.to_owned())
    }

    /// A stream is read from its beginning.
    pub fn forget(&self, stream: &str) {
        self.lock().last.remove(stream);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_known_by_its_id_in_its_queue_if_it_is_redelivered() {
        let memory = Memory::default();
        let id = memory.id("a", "1");
        assert_eq!(memory.place(Some(id), false), 1);
        assert_eq!(memory.place(Some(id), true), 2, "it was delivered, and no ring has it");
        memory.note(id);
        assert_eq!(memory.place(Some(id), true), 0);
        assert_eq!(memory.place(Some(id), false), 3, "an id of all messages");
        assert_eq!(memory.place(Some(memory.id("b", "1")), true), 4);
        assert_eq!(memory.place(None, true), 5);
    }

    #[test]
    fn ids_are_forgotten_in_the_order_of_their_messages() {
        let memory = Memory::default();
        let id = |number: usize| memory.id("a", &number.to_string());
        (0..IDS_MAX + 10).for_each(|number| memory.note(id(number)));
        memory.note(id(10));
        assert_eq!(memory.lock().ids.len(), IDS_MAX);
        assert_ne!(memory.place(Some(id(9)), true), 0);
        assert_eq!(memory.place(Some(id(10)), true), 0);
    }
}
