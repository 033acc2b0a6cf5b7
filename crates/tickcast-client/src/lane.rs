//! A socket for very many connections on one thread: reads come from a buffer that the thread fills.
//!
//! Tungstenite reads a socket in pieces of its own buffer, so that a small one costs many system calls and a large
//! one memory for every connection. A lane is filled with one `read(2)` into the thread's buffer, and tungstenite then
//! takes its pieces from there. Writes go straight to the socket. What always holds: outside of a wake the lane holds
//! no buffer and no unread bytes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

/// A nonblocking socket, and the bytes that were read from it last.
#[derive(Debug)]
pub struct Lane {
    stream: TcpStream,
    input: Vec<u8>,
    filled: usize,
    taken: usize,
    ended: bool,
}

impl Lane {
    /// Wraps a socket that is nonblocking.
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, input: Vec::new(), filled: 0, taken: 0, ended: false }
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads once into `buffer`, which the lane holds until [`Self::release`]. Returns how many bytes came, 0 at the
    /// end of the stream; an error is given to whoever reads next as well.
    pub fn fill(&mut self, buffer: Vec<u8>) -> io::Result<usize> {
        assert!(self.taken == self.filled, "the bytes of the last fill were not all taken");
        self.input = buffer;
        (self.filled, self.taken) = (0, 0);
        self.filled = self.stream.read(&mut self.input)?;
        self.ended = self.filled == 0;
        Ok(self.filled)
    }

    /// Lets these bytes be read next, as if they had come from the socket just now.
    pub fn give(&mut self, bytes: Vec<u8>) {
        assert!(self.taken == self.filled, "the bytes of the last fill were not all taken");
        (self.filled, self.taken) = (bytes.len(), 0);
        self.input = bytes;
    }

    /// The socket alone.
    pub fn into_stream(self) -> TcpStream {
        assert!(self.taken == self.filled, "the bytes of the last fill were not all taken");
        self.stream
    }

    /// Gives the buffer back.
    pub fn release(&mut self) -> Vec<u8> {
        (self.filled, self.taken) = (0, 0);
        std::mem::take(&mut self.input)
    }
}

impl Read for Lane {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let unread = &self.input[self.taken..self.filled];
        if unread.is_empty() && !self.ended {
            return Err(ErrorKind::WouldBlock.into());
        }
        let length = unread.len().min(out.len());
        out[..length].copy_from_slice(&unread[..length]);
        self.taken += length;
        Ok(length)
    }
}

impl Write for Lane {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_lane_yields_what_it_was_filled_with_and_then_would_block_until_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let mut peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("a listener is there");
        let mut lane = Lane::new(listener.accept().expect("a peer has connected").0);
        peer.write_all(b"hello").expect("the lane is open");
        let mut out = [0; 3];
        assert_eq!(lane.fill(vec![0; 64]).expect("bytes are there"), 5);
        assert_eq!((lane.read(&mut out).expect("filled"), &out), (3, b"hel"));
        assert_eq!((lane.read(&mut out).expect("filled"), &out[..2]), (2, &b"lo"[..]));
        assert_eq!(lane.read(&mut out).expect_err("nothing left").kind(), ErrorKind::WouldBlock);
        let buffer = lane.release();
        assert_eq!(buffer.len(), 64);
        drop(peer);
        assert_eq!(lane.fill(buffer).expect("the end"), 0);
        assert_eq!(lane.read(&mut out).expect("the end"), 0);
    }
}
