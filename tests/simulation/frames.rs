//! Where frames and events begin and end in what the shard sends.

use tickcast::shard::Format;
use tickcast_protocol::RecordKind;

/// First bytes of whole messages.
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
/// RSV1.
const COMPRESSED: u8 = 0x40;

/// The first frame of some bytes that begin with one: its first byte, payload and all its bytes; `None` if it is not
/// whole.
fn first_frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (start, length) = match bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        length => (2, usize::from(*length)),
    };
    let payload = bytes.get(start..)?.get(..length)?;
    Some((bytes[0], payload, start + length))
}

/// Length of the first frame or event of some bytes that begin with one; all of them if it is not whole.
pub fn first_len(format: Format, bytes: &[u8]) -> usize {
    let len = match format {
        Format::Events => bytes.windows(2).position(|two| two == b"\n\n").map(|at| at + 2),
        Format::Binary | Format::Json => first_frame(bytes).map(|(_, _, len)| len),
    };
    len.unwrap_or(bytes.len())
}

/// True if bytes begin with a packet.
pub fn is_packet(format: Format, bytes: &[u8]) -> bool {
    match format {
        Format::Binary => bytes[0] & !COMPRESSED == BINARY,
        Format::Json => bytes[0] & !COMPRESSED == TEXT,
        Format::Events => bytes.starts_with(b"id: "),
    }
}

/// True for the frame or event that is sent last.
pub fn is_close(format: Format, frame: &[u8]) -> bool {
    const CLOSE: u8 = 0x88;
    const CLOSING: &[u8] = b"{\"type\":\"closing\"";
    match format {
        Format::Events => frame.windows(CLOSING.len()).any(|part| part == CLOSING),
        Format::Binary | Format::Json => frame.first() == Some(&CLOSE),
    }
}

/// True for whole frames that a member of an audience can be sent besides packets: pings, pongs, a heartbeat.
pub fn is_for_members(format: Format, mut bytes: &[u8]) -> bool {
    const HEARTBEAT_BYTES: usize = 24 + 32;
    const HEARTBEAT: &[u8] = b"{\"type\":\"heartbeat\"";
    if format == Format::Events {
        let data = bytes.split(|byte| *byte == b'\n').nth(1).unwrap_or_default();
        return bytes.starts_with(b"id: ")
            && data.strip_prefix(b"data: ").is_some_and(|data| data.starts_with(HEARTBEAT));
    }
    while let Some((first, payload, len)) = first_frame(bytes) {
        let heartbeat = match first {
            BINARY => payload.len() == HEARTBEAT_BYTES && payload[26] == RecordKind::Heartbeat as u8,
            TEXT => payload.starts_with(HEARTBEAT),
            _ => false,
        };
        if !heartbeat && !matches!(first, 0x89 | 0x8a) {
            return false;
        }
        bytes = &bytes[len..];
    }
    bytes.is_empty()
}
