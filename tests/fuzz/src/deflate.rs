//! permessage-deflate: inflated messages stay within the limits and equal flate2's; compressed messages inflate to the
//! original, here and with flate2.
//!
//! Input: a byte for the direction and the limits, then the bytes.
//!
//! Where flate2 may differ: it stops at the first final block, where here the message continues; and it returns output
//! of an incomplete block.

use flate2::{Decompress, FlushDecompress, Status};
use tickcast_protocol::ws::deflate::{Compressor, Inflater, UNRATED_BYTES, WindowBits};
use tickcast_protocol::ws::{Opcode, Role, Session, SessionEvent, SessionLimits};

use super::Script;

const RATIOS: [u32; 4] = [1, 4, 20, 1000];
const MESSAGE_BYTES_MAX: [usize; 2] = [100, 1 << 20];
const INPUT_BYTES_MAX: usize = 1 << 14;
/// RSV1 of a frame's first byte.
const COMPRESSED: u8 = 0x40;
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// Enough for any message here.
const OUTPUT_BYTES_MAX: usize = 1 << 21;

/// One input.
pub fn run(data: &[u8]) {
    let mut script = Script::new(&data[..data.len().min(INPUT_BYTES_MAX)]);
    let shape = script.byte();
    if shape & 1 == 0 {
        inflate(script.rest, RATIOS[usize::from(shape >> 1) % 4], MESSAGE_BYTES_MAX[usize::from(shape >> 3) % 2]);
    } else {
        let window = WindowBits::new(WindowBits::LEAST + (shape >> 1) % 8).expect("8 to 15");
        compress(script.rest, window, 1 + (shape >> 4) % 9);
    }
}

fn inflate(bytes: &[u8], ratio_max: u32, bytes_max: usize) {
    let mut inflater = Inflater::new(ratio_max);
    let first = inflater.inflate(bytes, bytes_max).map(|message| message.to_vec());
    let second = inflater.inflate(bytes, bytes_max).map(|message| message.to_vec());
    assert_eq!(first, second, "a message does not depend on the one before");
    let Ok(message) = first else { return };
    assert!(message.len() <= bytes_max, "{} bytes", message.len());
    assert!(message.len() <= UNRATED_BYTES.max(bytes.len() * ratio_max as usize), "{} bytes", message.len());
    if bytes.is_empty() {
        return;
    }
    let (theirs, ended) = flate2_inflates(bytes).expect("flate2 accepts it too");
    assert!(message.starts_with(&theirs), "flate2 differs");
    assert!(ended || message == theirs, "flate2 ends earlier");
}

fn compress(message: &[u8], window: WindowBits, level: u8) {
    let mut compressor = Compressor::new(level);
    let (mut frame, mut again) = (Vec::new(), Vec::new());
    compressor.push_frame(window, Opcode::Binary, message, &mut frame);
    compressor.push_frame(window, Opcode::Binary, message, &mut again);
    assert_eq!(frame, again, "the same message has the same bytes");
    let payload_start = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    if frame[0] & COMPRESSED != 0 {
        assert!(frame.len() - payload_start < message.len(), "a compressed frame is shorter");
        let theirs = flate2_inflates(&frame[payload_start..]).expect("flate2 reads it").0;
        assert!(theirs == message, "flate2 differs");
    }
    let limits = SessionLimits { message_bytes_max: message.len() };
    let (mut session, mut inflater) = (Session::with_deflate(Role::Client), Inflater::new(u32::MAX));
    let event = session.next_inflating(&limits, &mut inflater, &mut frame, &mut 0).expect("our own frame is legal");
    assert!(matches!(event, Some(SessionEvent::Binary(read)) if read == message), "it inflates to the original");
}

/// flate2's output, and whether it reached a final block; `None` for invalid input.
fn flate2_inflates(bytes: &[u8]) -> Option<(Vec<u8>, bool)> {
    let input = [bytes, &TAIL].concat();
    let mut state = Decompress::new(false);
    let mut output = Vec::with_capacity(OUTPUT_BYTES_MAX);
    let status = state.decompress_vec(&input, &mut output, FlushDecompress::None).ok()?;
    Some((output, status == Status::StreamEnd))
}
