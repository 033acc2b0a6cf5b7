//! Server-Sent Events: messages of the JSON encoding as events of the default type, with tokens as event ids.
//!
//! ```text
//! id: 7-91823                       the packet's token, which the client returns in Last-Event-ID
//! data: {"type":"quote",...}        one line: the JSON encoding has no line breaks
//!
//! ```
//!
//! An event ends with an empty line; clients discard an event that is cut off, together with its id.

mod query;

use std::io::Write;

pub use self::query::{parse_query, split_list};
use crate::Token;
use crate::packet::{PacketHeader, flags};

/// The media type of an event stream.
pub const CONTENT_TYPE: &str = "text/event-stream";

/// Appends an event without an id: the client keeps its last id.
pub fn push_event(message: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(message);
    out.extend_from_slice(b"\n\n");
}

/// Appends a packet's message, with its token as the id. A packet before the end of a snapshot has no id: resuming from
/// it would skip the rest of the snapshot.
pub fn push_packet_event(header: &PacketHeader, message: &[u8], out: &mut Vec<u8>) {
    let is_within_snapshot = header.flags & (flags::SNAPSHOT | flags::CAUGHT_UP) == flags::SNAPSHOT;
    if !is_within_snapshot {
        let token = Token { epoch: header.epoch, position: header.position };
        writeln!(out, "id: {token}").expect("a Vec accepts all bytes");
    }
    push_event(message, out);
}

/// Appends the line that tells the client after how long to reconnect. It belongs to the event that must follow.
pub fn push_retry(ms: u64, out: &mut Vec<u8>) {
    writeln!(out, "retry: {ms}").expect("a Vec accepts all bytes");
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
    fn event_id_is_the_token_except_within_a_snapshot() {
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
