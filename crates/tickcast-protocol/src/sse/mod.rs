//! Server-Sent Events: the messages of the JSON encoding as events of the default type, tokens as their ids.
//!
//! An event is a few lines and an empty one. JSON as it is written here has no line break, so that one `data` line holds
//! a message. What is cut off amid an event is thrown away by its reader, together with its id.
//!
//! * [`push_event`], [`push_packet_event`], [`push_retry`]: what is sent.
//! * [`Token`]: what an id says, and `Last-Event-ID` gives back.
//! * [`query`]: what a client asks, as the query of its URL.

mod query;

use std::io::Write;

pub use self::query::parse_query;
use crate::Token;
use crate::packet::{PacketHeader, flags};

/// The media type of a stream of events.
pub const CONTENT_TYPE: &str = "text/event-stream";

/// Appends an event without an id: a reader keeps the id that it has.
pub fn push_event(message: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(message);
    out.extend_from_slice(b"\n\n");
}

/// Appends a packet's message. Its token is the id, but amid a snapshot: who came back with that would miss the values
/// that the snapshot had not come to.
pub fn push_packet_event(header: &PacketHeader, message: &[u8], out: &mut Vec<u8>) {
    let amid_snapshot = header.flags & (flags::SNAPSHOT | flags::CAUGHT_UP) == flags::SNAPSHOT;
    if !amid_snapshot {
        let token = Token { epoch: header.epoch, position: header.position };
        writeln!(out, "id: {token}").expect("a Vec takes all");
    }
    push_event(message, out);
}

/// Appends a line that says after how long a reader should come back when the stream has ended. It belongs to the event
/// that has to follow.
pub fn push_retry(ms: u64, out: &mut Vec<u8>) {
    writeln!(out, "retry: {ms}").expect("a Vec takes all");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Position;

    const HEADER: PacketHeader =
        PacketHeader { flags: 0, count: 1, epoch: 7, position: Position::new(91_823), ts_send: 12 };

    fn packet_event(flags: u8) -> String {
        let mut out = Vec::new();
        push_packet_event(&PacketHeader { flags, ..HEADER }, b"{}", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_event_has_its_token_as_id_but_amid_a_snapshot() {
        for whole in [0, flags::SNAPSHOT | flags::CAUGHT_UP, flags::REPLAY, flags::REPLAY | flags::CAUGHT_UP] {
            assert_eq!(packet_event(whole), "id: 7-91823\ndata: {}\n\n", "{whole}");
        }
        assert_eq!(packet_event(flags::SNAPSHOT), "data: {}\n\n");
        let mut out = Vec::new();
        push_retry(1500, &mut out);
        push_event(b"{}", &mut out);
        assert_eq!(out, b"retry: 1500\ndata: {}\n\n");
    }
}
