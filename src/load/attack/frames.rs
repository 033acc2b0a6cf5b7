//! The frames of an attack: whole ones, parts of messages, compressed ones. Pure.

use flate2::{Compress, Compression, FlushCompress};

use tickcast_protocol::ws::{Opcode, push_masked_frame};

/// A mask of zeros: the payload can be read in a capture, and the server unmasks it all the same.
const KEY: [u8; 4] = [0; 4];
/// The bit of a last or only fragment (RFC 6455 section 5.2).
const FIN: u8 = 0x80;
/// The bit of a compressed message (RFC 7692 section 6).
const COMPRESSED: u8 = 0x40;
/// What a message that is flushed ends with, and a compressed frame leaves out (RFC 7692 section 7.2.1).
const FLUSHED: [u8; 4] = [0, 0, 0xff, 0xff];
/// Bytes of a masked header before the payload, for a payload from 64 KiB on.
const LONG_HEADER_BYTES: usize = 14;

/// A whole frame.
pub fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    push_masked_frame(opcode, payload, KEY, &mut out);
    out
}

/// A text of `bytes` bytes of which only the header and so much of the payload are sent.
pub fn partial_text(bytes: usize, sent: usize) -> Vec<u8> {
    let mut out = frame(Opcode::Text, &vec![b' '; bytes]);
    out.truncate(LONG_HEADER_BYTES + sent);
    out
}

/// The first fragment of a text that has more.
pub fn first_fragment(payload: &[u8]) -> Vec<u8> {
    let mut out = frame(Opcode::Text, payload);
    out[0] &= !FIN;
    out
}

/// A fragment without payload that is not the last one.
pub fn empty_continuation() -> Vec<u8> {
    let mut out = frame(Opcode::Continuation, &[]);
    out[0] &= !FIN;
    out
}

/// A compressed text.
pub fn compressed_text(text: &[u8]) -> Vec<u8> {
    let mut out = frame(Opcode::Text, &deflate(text));
    out[0] |= COMPRESSED;
    out
}

/// The payload of a compressed message.
pub fn deflate(text: &[u8]) -> Vec<u8> {
    /// More than DEFLATE ever adds to so short a text.
    const SPARE_BYTES: usize = 1024;
    let mut deflater = Compress::new(Compression::best(), false);
    let mut out = Vec::with_capacity(text.len() + SPARE_BYTES);
    deflater.compress_vec(text, &mut out, FlushCompress::Sync).expect("a Vec with room takes all");
    assert!(out.ends_with(&FLUSHED), "a flushed text ends with an empty block");
    out.truncate(out.len() - FLUSHED.len());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickcast_protocol::ws::deflate::Inflater;
    use tickcast_protocol::ws::{Role, Session, SessionEvent, SessionLimits};

    const LIMITS: SessionLimits = SessionLimits { message_bytes_max: 1 << 20 };

    #[test]
    fn a_server_reads_whole_frames_and_waits_for_the_rest_of_others() {
        let text = [first_fragment(b"he"), empty_continuation(), frame(Opcode::Pong, b"p"), empty_continuation()];
        let (mut session, mut consumed) = (Session::new(Role::Server), 0);
        let mut input = text.concat();
        let pong = session.next(&LIMITS, &mut input, &mut consumed).expect("no violation");
        assert!(matches!(pong, Some(SessionEvent::Pong(_))), "{pong:?}");
        assert!(session.next(&LIMITS, &mut input, &mut consumed).expect("no violation").is_none());
        assert_eq!(consumed, input.len());
        let partial = partial_text(1 << 20, 600_000);
        assert_eq!(partial.len(), 600_014);
        let (mut session, mut consumed) = (Session::new(Role::Server), 0);
        assert!(session.next(&LIMITS, &mut partial.clone(), &mut consumed).expect("no violation").is_none());
    }

    #[test]
    fn a_server_inflates_a_compressed_text() {
        let mut input = compressed_text(&[b' '; 5000]);
        assert!(input.len() < 60, "{} bytes", input.len());
        let (mut session, mut inflater, mut consumed) = (Session::with_deflate(Role::Server), Inflater::new(100), 0);
        let event = session.next_inflating(&LIMITS, &mut inflater, &mut input, &mut consumed).expect("no violation");
        assert!(matches!(event, Some(SessionEvent::Text(text)) if *text == [b' '; 5000]));
    }
}
