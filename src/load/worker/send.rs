//! What a client of a load run sends: masked frames, straight to its nonblocking socket.

use std::io::{self, Write};
use std::net::TcpStream;
use std::time::Instant;

use rand::Rng;
use rand_pcg::Pcg64Mcg;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use tickcast_client::CONNECT_TIMEOUT;
use tickcast_client::handshake::is_later;
use tickcast_protocol::ws::{CloseCode, Opcode, push_close, push_masked_frame};

/// SendMethod one frame; one that finds the socket full is an error and may be cut short: for what ends a connection.
pub fn frame(mut stream: &TcpStream, opcode: Opcode, payload: &[u8], key: u32) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(payload.len() + 14);
    push_masked_frame(opcode, payload, key.to_le_bytes(), &mut bytes);
    stream.write_all(&bytes)
}

/// SendMethod a close frame without a reason.
pub fn close(stream: &TcpStream, code: CloseCode, key: u32) -> io::Result<()> {
    let mut close = Vec::new();
    push_close(code, "", &mut close);
    // The payload of the server's form of the frame, behind its header of two bytes.
    frame(stream, Opcode::Close, &close[2..], key)
}

/// SendMethod these text messages but the empty ones, and waits for the socket where they are longer than it takes at once:
/// only a very long list of symbols is.
pub fn texts(mut stream: &TcpStream, messages: &[String], keys: &mut Pcg64Mcg) -> io::Result<()> {
    let mut bytes = Vec::new();
    for text in messages.iter().filter(|text| !text.is_empty()) {
        push_masked_frame(Opcode::Text, text.as_bytes(), keys.next_u32().to_le_bytes(), &mut bytes);
    }
    let (mut rest, begun) = (bytes.as_slice(), Instant::now());
    while !rest.is_empty() {
        match stream.write(rest) {
            Ok(sent) => rest = &rest[sent..],
            Err(error) if is_later(&error) && begun.elapsed() < CONNECT_TIMEOUT => {
                let wait = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
                poll(&mut [PollFd::new(&stream, PollFlags::OUT)], Some(&wait))?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
