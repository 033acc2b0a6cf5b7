//! The interface of a connection to a broker, and the messages that come on it.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;

use crate::ingest::source::{SourceError, Stream};
use crate::ingest::stop::Stop;

/// A connection to a broker. It lives on one thread, and ends with its first error.
pub trait Link {
    /// Appends what has come to `inbox`; waits until something has, at most until `deadline_ns`. It is called while the
    /// inbox is empty.
    ///
    /// # Errors
    /// The connection is of no more use. What came before is in the inbox by then.
    fn receive(&mut self, deadline_ns: u64, inbox: &mut VecDeque<Entry>) -> Result<(), SourceError>;

    /// Every ring has the messages up to this one, counted from 1 since the link was opened: they are acknowledged.
    ///
    /// # Errors
    /// The connection is of no more use.
    fn settle(&mut self, _number: u64) -> Result<(), SourceError> {
        Ok(())
    }

    /// Whether the broker keeps what is not acknowledged.
    fn is_durable(&self) -> bool;

    /// The subscriptions, topics or queues of the link, if there are several.
    fn streams(&self) -> Vec<Stream> {
        Vec::new()
    }

    /// Messages that wait in the broker, as far as it says so.
    fn lag(&self) -> Option<u64> {
        None
    }
}

/// Opens links: the checked part of an argument that one broker alone has.
pub trait Connect: Debug + Send + Sync {
    /// Checks what this machine alone can tell.
    ///
    /// # Errors
    /// What is wrong, and what was expected.
    fn check(&self) -> Result<(), String>;

    /// Opens a link. `positions` are those of the last messages that were taken; that of a stream which the broker has made
    /// anew is forgotten.
    ///
    /// # Errors
    /// As of a source.
    fn connect(&self, positions: &mut Positions, stop: &Stop) -> Result<Box<dyn Link>, SourceError>;
}

/// What comes on a link.
#[derive(Debug)]
pub enum Entry {
    Message(Message),
    /// Messages were lost here.
    Lost {
        count: u64,
    },
}

/// A message.
#[derive(Debug)]
pub struct Message {
    /// Subject, channel, topic or routing key.
    pub address: String,
    /// The key that the broker keeps beside the payload.
    pub key: Option<Bytes>,
    pub payload: Bytes,
    /// Its place in a stream of the broker, which is known by its name.
    pub position: Option<(Arc<str>, Position)>,
}

/// A place in a stream of a broker. Places of one stream grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub offset: u128,
    /// When the broker got the message, ns since the Unix epoch; 0 if it does not say. A broker that has lost its newest
    /// messages gives their offsets to others: later ones.
    pub time_ns: u64,
}

/// The positions of the last messages, by the name of the stream.
#[derive(Debug, Default)]
pub struct Positions(HashMap<Arc<str>, Position>);

impl Positions {
    /// That of a stream, if a message of it was taken.
    pub fn of(&self, stream: &str) -> Option<Position> {
        self.0.get(stream).copied()
    }

    /// Notes a message; false if it was taken before.
    pub fn advance(&mut self, stream: &Arc<str>, position: Position) -> bool {
        match self.0.get_mut(stream) {
            Some(last) if position.offset <= last.offset && position.time_ns <= last.time_ns => false,
            Some(last) => {
                *last = position;
                true
            }
            None => {
                self.0.insert(Arc::clone(stream), position);
                true
            }
        }
    }

    /// Forgets a stream, which the broker has made anew.
    pub fn forget(&mut self, stream: &str) {
        self.0.remove(stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redelivered_message_is_known_and_a_later_one_with_its_offset_is_not() {
        let mut positions = Positions::default();
        let stream: Arc<str> = "PRICES".into();
        let mut advance = |offset, time_ns| positions.advance(&stream, Position { offset, time_ns });
        assert!(advance(5, 100) && advance(6, 100));
        assert!(!advance(6, 100) && !advance(5, 100));
        assert!(advance(6, 101), "the broker has lost the former 6");
        assert!(advance(1, 200), "the stream was made anew");
        assert!(!advance(1, 200));
    }
}
