//! A nonblocking socket for tungstenite whose reads come from a buffer that the worker thread fills.
//!
//! tungstenite reads a socket in portions of its own buffer: a small buffer costs many system calls, a large one costs
//! memory for every connection. A buffered socket is filled with one `read(2)` into the thread's buffer, and
//! tungstenite takes its portions from there. Writes go straight to the socket. What always holds: between two wakes it
//! holds no buffer and no unread bytes.

use std::io::{self, ErrorKind, Read, Write};
use tickcast_client::Stream;

/// A nonblocking socket, and the bytes that were read from it last.
#[derive(Debug)]
pub struct BufferedSocket {
    stream: Stream,
    input: Vec<u8>,
    filled: usize,
    taken: usize,
    has_ended: bool,
}

impl BufferedSocket {
    /// Wraps a socket that is nonblocking.
    pub fn new(stream: Stream) -> Self {
        Self { stream, input: Vec::new(), filled: 0, taken: 0, has_ended: false }
    }

    /// The socket.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The same, to send.
    pub fn stream_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// Reads once into `buffer`, which it holds until [`Self::release`]. Returns how many bytes came, 0 at the end of
    /// the stream.
    pub fn fill(&mut self, buffer: Vec<u8>) -> io::Result<usize> {
        assert!(self.taken == self.filled, "the bytes of the last fill were not all taken");
        self.input = buffer;
        (self.filled, self.taken) = (0, 0);
        self.filled = self.stream.read_once(&mut self.input, usize::MAX)?;
        self.has_ended = self.filled == 0;
        Ok(self.filled)
    }

    /// Makes these bytes the next to be read, as if they had come from the socket just now.
    pub fn push(&mut self, bytes: Vec<u8>) {
        assert!(self.taken == self.filled, "the bytes of the last fill were not all taken");
        (self.filled, self.taken) = (bytes.len(), 0);
        self.input = bytes;
    }

    /// Gives the buffer back.
    pub fn release(&mut self) -> Vec<u8> {
        (self.filled, self.taken) = (0, 0);
        std::mem::take(&mut self.input)
    }
}

impl Read for BufferedSocket {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let unread = &self.input[self.taken..self.filled];
        if unread.is_empty() && !self.has_ended {
            return Err(ErrorKind::WouldBlock.into());
        }
        let length = unread.len().min(out.len());
        out[..length].copy_from_slice(&unread[..length]);
        self.taken += length;
        Ok(length)
    }
}

impl Write for BufferedSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn reads_return_the_filled_bytes_then_block_until_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let mut peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("a listener is there");
        let mut socket = BufferedSocket::new(listener.accept().expect("a peer has connected").0.into());
        peer.write_all(b"hello").expect("the socket is open");
        let mut out = [0; 3];
        assert_eq!(socket.fill(vec![0; 64]).expect("bytes are there"), 5);
        assert_eq!((socket.read(&mut out).expect("filled"), &out), (3, b"hel"));
        assert_eq!((socket.read(&mut out).expect("filled"), &out[..2]), (2, &b"lo"[..]));
        assert_eq!(socket.read(&mut out).expect_err("nothing left").kind(), ErrorKind::WouldBlock);
        let buffer = socket.release();
        assert_eq!(buffer.len(), 64);
        drop(peer);
        assert_eq!(socket.fill(buffer).expect("the end"), 0);
        assert_eq!(socket.read(&mut out).expect("the end"), 0);
    }
}
