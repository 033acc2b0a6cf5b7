//! The events of a fast connection.

use tickcast_protocol::ws::{Session, SessionEvent, SessionLimits, Violation};

/// tungstenite's default, for both readers.
const LIMITS: SessionLimits = SessionLimits { message_bytes_max: 64 << 20 };

/// The session's next event. A binary message in one whole frame, as almost all are, is recognized here in a few
/// nanoseconds; the session handles everything else, and finds every violation.
#[inline]
pub(super) fn next_event<'a>(
    session: &'a mut Session,
    input: &'a mut [u8],
    consumed: &mut usize,
) -> Result<Option<SessionEvent<'a>>, Violation> {
    if session.held_bytes() == 0
        && let Some((start, end)) = whole_binary(input, *consumed)
    {
        *consumed = end;
        return Ok(Some(SessionEvent::Binary(&mut input[start..end])));
    }
    session.next(&LIMITS, input, consumed)
}

/// Where the payload of the frame at `at` lies, if that is an unmasked, unfragmented, binary one of less than 64 KiB,
/// and whole.
#[inline]
fn whole_binary(input: &[u8], at: usize) -> Option<(usize, usize)> {
    const BINARY_ALONE: u8 = 0x82;
    let (start, length) = match *input.get(at..)? {
        [BINARY_ALONE, length @ 0..126, ..] => (at + 2, usize::from(length)),
        [BINARY_ALONE, 126, high, low, ..] => (at + 4, usize::from(u16::from_be_bytes([high, low]))),
        _ => return None,
    };
    // The session refuses a length that is not in its shortest form.
    let is_minimal = start == at + 2 || length >= 126;
    (is_minimal && start + length <= input.len()).then_some((start, start + length))
}
