//! The payload of a close frame.
//!
//! ```text
//! 0 u16 code, big-endian   2 reason, UTF-8, at most 123 bytes
//! ```

use super::close_code::CloseCode;
use super::frame::{CONTROL_PAYLOAD_BYTES_MAX, Opcode, push_frame, push_masked_frame};
use super::violation::Violation;

/// Bytes of the code in front of the reason.
const CODE_BYTES: usize = 2;
/// Bytes that the reason of a close frame can have.
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_PAYLOAD_BYTES_MAX - CODE_BYTES;

/// The content of a peer's close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseFrame<'a> {
    /// A code for which [`CloseCode::peer_may_send`] is true.
    pub code: CloseCode,
    /// Empty if none was given.
    pub reason: &'a str,
}

/// Appends a server's close frame. A reason over [`CLOSE_REASON_BYTES_MAX`] is cut between characters.
///
/// # Panics
/// When the code must not be sent.
pub fn push_close(code: CloseCode, reason: &str, out: &mut Vec<u8>) {
    let (payload, bytes) = close_payload(code, reason);
    push_frame(Opcode::Close, &payload[..bytes], out);
}

/// The same for a client: masked with `key`.
///
/// # Panics
/// When the code must not be sent.
pub fn push_masked_close(code: CloseCode, reason: &str, key: [u8; 4], out: &mut Vec<u8>) {
    let (payload, bytes) = close_payload(code, reason);
    push_masked_frame(Opcode::Close, &payload[..bytes], key, out);
}

/// The payload of a close frame, and its length.
fn close_payload(code: CloseCode, reason: &str) -> ([u8; CONTROL_PAYLOAD_BYTES_MAX], usize) {
    assert!(code.peer_may_send(), "close code {code} must not be sent");
    //= RFC 6455 section 5.5
    //# "All control frames MUST have a payload length of 125 bytes or less and MUST NOT be fragmented."
    let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
    let mut payload = [0; CONTROL_PAYLOAD_BYTES_MAX];
    //= RFC 6455 section 5.5.1
    //# "If there is a body, the first two bytes of the body MUST be a 2-byte unsigned integer (in network byte order)
    //# representing a status code with value /code/ defined in Section 7.4."
    payload[..CODE_BYTES].copy_from_slice(&code.0.to_be_bytes());
    payload[CODE_BYTES..CODE_BYTES + reason.len()].copy_from_slice(reason.as_bytes());
    (payload, CODE_BYTES + reason.len())
}

/// Reads the unmasked payload of a close frame; `None` if it is empty.
///
/// # Errors
/// When the payload breaks a rule of RFC 6455.
pub fn read_close(payload: &[u8]) -> Result<Option<CloseFrame<'_>>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk::<CODE_BYTES>() else {
        return if payload.is_empty() { Ok(None) } else { Err(Violation::CloseBodyOfOneByte) };
    };
    let code = CloseCode(u16::from_be_bytes(*code));
    if !code.peer_may_send() {
        return Err(Violation::CloseCodeNotSendable(code.0));
    }
    //= RFC 6455 section 5.5.1
    //# "Following the 2-byte integer, the body MAY contain UTF-8-encoded data with value /reason/, the interpretation
    //# of which is not defined by this specification."
    let reason = std::str::from_utf8(reason).map_err(|_| Violation::CloseReasonNotUtf8)?;
    Ok(Some(CloseFrame { code, reason }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sendable_codes_may_be_sent() {
        let sendable = [(1000, 1003), (1007, 1014), (3000, 4999)];
        for code in 0..=u16::MAX {
            let expected = sendable.iter().any(|(first, last)| (*first..=*last).contains(&code));
            assert_eq!(CloseCode(code).peer_may_send(), expected, "{code}");
        }
    }

    #[test]
    fn long_reason_is_cut_between_characters() {
        for (reason, kept) in
            [("slow", 4), (&"x".repeat(300) as &str, 123), (&"€".repeat(60), 123), (&"𝄞".repeat(31), 120)]
        {
            let mut frame = Vec::new();
            push_close(CloseCode::SLOW_CONSUMER, reason, &mut frame);
            assert_eq!(frame[..2], [0x88, kept as u8 + 2]);
            let read = read_close(&frame[2..]).expect("our own frame is legal").expect("it has a code");
            assert_eq!(read, CloseFrame { code: CloseCode::SLOW_CONSUMER, reason: &reason[..kept] });
        }
    }

    #[test]
    fn close_payload_is_empty_or_a_sendable_code_and_utf8() {
        assert_eq!(read_close(b""), Ok(None));
        assert_eq!(read_close(b"\x03"), Err(Violation::CloseBodyOfOneByte));
        assert_eq!(read_close(b"\x03\xed"), Err(Violation::CloseCodeNotSendable(1005)));
        assert_eq!(read_close(b"\x03\xe8\xff"), Err(Violation::CloseReasonNotUtf8));
        let bye = CloseFrame { code: CloseCode::NORMAL, reason: "bye" };
        assert_eq!(read_close(b"\x03\xe8bye"), Ok(Some(bye)));
    }
}
