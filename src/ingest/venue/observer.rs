//! The interface of what sees the messages of a venue before a codec reads them.

use std::fmt::Debug;

pub use super::line::LineId;

/// Sees all messages, by line. A line whose instruments have another one already stands by until it takes over; what
/// it receives until then is of use only if it does.
pub trait Observer: Debug + Send {
    /// A message has come.
    fn message(&mut self, line: LineId, now_ns: u64, text: &[u8]);

    /// The answer to an HTTP request for a book has come, which belongs to this stream of the venue.
    fn snapshot(&mut self, line: LineId, now_ns: u64, stream: &str, text: &[u8]);

    /// A line begins that stands by.
    fn standby(&mut self, line: LineId);

    /// A line that stood by is the only one now.
    fn take_over(&mut self, line: LineId);

    /// A line that stood by has ended.
    fn abandon(&mut self, line: LineId);
}
