//! What a client of a load run sends: masked frames, straight to its nonblocking socket.

use std::io::{self, ErrorKind, Write};
use std::time::Instant;

use rand::Rng;
use rand_pcg::Pcg64Mcg;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use tickcast_client::{CONNECT_TIMEOUT, Stream};
use tickcast_protocol::ws::{CloseCode, Opcode, push_masked_close, push_masked_frame};

/// Sends one frame. An error may leave it cut short, so this is for frames after which the connection may end.
pub fn frame(stream: &mut Stream, opcode: Opcode, payload: &[u8], key: u32) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(payload.len() + 14);
    push_masked_frame(opcode, payload, key.to_le_bytes(), &mut bytes);
    stream.write_all(&bytes)
}

/// Sends a close frame without a reason.
pub fn close(stream: &mut Stream, code: CloseCode, key: u32) -> io::Result<()> {
    let mut bytes = Vec::new();
    push_masked_close(code, "", key.to_le_bytes(), &mut bytes);
    stream.write_all(&bytes)
}

/// Sends these text messages except the empty ones. Waits for the socket where they are longer than it takes at once:
/// only a very long list of symbols is.
pub fn texts(stream: &mut Stream, messages: &[String], keys: &mut Pcg64Mcg) -> io::Result<()> {
    let mut bytes = Vec::new();
    for text in messages.iter().filter(|text| !text.is_empty()) {
        push_masked_frame(Opcode::Text, text.as_bytes(), keys.next_u32().to_le_bytes(), &mut bytes);
    }
    let (mut rest, begun) = (bytes.as_slice(), Instant::now());
    loop {
        match if rest.is_empty() { stream.flush().map(|()| 0) } else { stream.write(rest) } {
            Ok(_) if rest.is_empty() => return Ok(()),
            Ok(sent) => rest = &rest[sent..],
            Err(error) if would_block(&error) && begun.elapsed() < CONNECT_TIMEOUT => {
                let wait = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
                poll(&mut [PollFd::new(stream.socket(), PollFlags::OUT)], Some(&wait))?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether a read or a write has to be tried again later.
pub fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
