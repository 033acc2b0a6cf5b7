//! The boundaries of frames and events in bytes that were sent in part.
//!
//! A connection that is closed at a limit is sent the rest of the frame that was cut, and then its close frame. The bytes
//! are the shard's own: WebSocket frames, Server-Sent Events, and the head of a response before them.

use tickcast_protocol::ws::{FrameExpectation, parse_frame_header};

/// Frames of the server: not masked, not fragmented, perhaps compressed.
const OWN_FRAMES: FrameExpectation = FrameExpectation { masked: false, continuation: false, deflate: true };
/// The first byte of a frame has FIN set. Heads and events are ASCII.
const FIN: u8 = 0x80;

/// The first boundary at or behind `taken`. `first` is a boundary in `bytes`.
pub(super) fn boundary_after(bytes: &[u8], first: usize, taken: usize) -> usize {
    let mut at = first;
    while at < taken {
        at += unit_bytes(&bytes[at..]);
    }
    at
}

/// The length of the frame, event or head at the start of `bytes`, which are not empty.
fn unit_bytes(bytes: &[u8]) -> usize {
    let length = match bytes[0] {
        first if first & FIN != 0 => frame_bytes(bytes),
        b'H' => end_of(bytes, b"\r\n\r\n"),
        _ => end_of(bytes, b"\n\n"),
    };
    length.filter(|length| *length <= bytes.len()).unwrap_or(bytes.len())
}

fn frame_bytes(bytes: &[u8]) -> Option<usize> {
    let (header, header_bytes) = parse_frame_header(bytes, OWN_FRAMES).ok()??;
    header_bytes.checked_add(usize::try_from(header.payload_bytes).ok()?)
}

fn end_of(bytes: &[u8], terminator: &[u8]) -> Option<usize> {
    let at = bytes.windows(terminator.len()).position(|window| window == terminator)?;
    Some(at + terminator.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickcast_protocol::sse;
    use tickcast_protocol::ws::{CloseCode, Opcode, push_close, push_frame};

    /// The boundary behind each byte is the end of the unit that the byte belongs to.
    fn check(units: &[Vec<u8>]) {
        let bytes = units.concat();
        let mut start = 0;
        for unit in units {
            for taken in start + 1..=start + unit.len() {
                assert_eq!(boundary_after(&bytes, 0, taken), start + unit.len(), "{taken} taken");
                assert_eq!(boundary_after(&bytes, start, taken), start + unit.len(), "{taken} taken");
            }
            start += unit.len();
        }
        assert_eq!(boundary_after(&bytes, 0, 0), 0);
    }

    fn pushed(push: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        push(&mut out);
        out
    }

    #[test]
    fn frames_of_all_lengths_end_where_the_next_begins() {
        let frame = |opcode, len| pushed(|out| push_frame(opcode, &vec![b'x'; len], out));
        let close = pushed(|out| push_close(CloseCode::SLOW_CONSUMER, "slow", out));
        let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n".to_vec();
        check(&[head, frame(Opcode::Binary, 3), frame(Opcode::Text, 300), frame(Opcode::Ping, 0), close]);
        check(&[frame(Opcode::Binary, 70_000), frame(Opcode::Text, 0)]);
    }

    #[test]
    fn events_end_at_their_blank_line() {
        let event = |text: &[u8]| pushed(|out| sse::push_event(text, out));
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n".to_vec();
        // A retry line is part of the event that follows it.
        let first = [pushed(|out| sse::push_retry(700, out)), event(b"{\"a\":1}")].concat();
        check(&[head, first, event(b"{}")]);
    }
}
