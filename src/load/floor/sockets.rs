//! What both bare loops ask of the kernel, so that they differ in nothing but how they send.

use std::io;

use rustix::io::Errno;

/// Connections by slot, and sends to them.
pub(super) trait Sockets {
    /// Sends each of these, in order. When it returns, the kernel has copied or refused every byte.
    fn send<'a>(&mut self, sends: impl Iterator<Item = (u32, &'a [u8])>);

    /// The same, then waits until there is an event.
    fn send_and_wait<'a>(&mut self, sends: impl Iterator<Item = (u32, &'a [u8])>);

    /// Moves what has happened to `out`. An error is one that there is no going on from.
    fn take_events(&mut self, out: &mut Vec<SocketEvent>) -> io::Result<()>;

    /// Reads into `input`, once.
    fn read(&mut self, slot: u32, input: ReadBuffer);

    /// This connection is not read any more.
    fn stop_reading(&mut self, slot: u32);

    /// Tells once when the socket has room.
    fn notify_writable(&mut self, slot: u32);

    /// Ends a connection.
    fn close(&mut self, slot: u32);
}

/// What the kernel has to tell.
#[derive(Debug)]
pub enum SocketEvent {
    /// A connection came, and has this slot.
    Accepted { slot: u32 },
    /// A read has ended; here is its buffer again, with what came at its end. 0 bytes are the end of the input.
    Read { slot: u32, buffer: ReadBuffer, result: Result<usize, Errno> },
    /// A send took only so many bytes, fewer than were asked for.
    ShortSend { slot: u32, result: Result<usize, Errno> },
    /// The socket has room again, or is broken.
    Writable { slot: u32 },
    /// What is watched has become readable.
    Stop,
}

/// Memory to read into.
#[derive(Debug)]
pub struct ReadBuffer {
    bytes: Box<[u8]>,
    filled: usize,
}

impl ReadBuffer {
    /// Room for so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self { bytes: vec![0; bytes].into(), filled: 0 }
    }

    /// What has been read and not been consumed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    /// Forgets the first so many bytes; where none is forgotten and there is no room left, it grows to twice its size.
    pub fn consume(&mut self, bytes: usize) {
        self.bytes.copy_within(bytes..self.filled, 0);
        self.filled -= bytes;
        if self.filled == self.bytes.len() {
            let mut larger = vec![0; self.bytes.len() * 2];
            larger[..self.filled].copy_from_slice(&self.bytes);
            self.bytes = larger.into();
        }
    }

    /// Where the next bytes go.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    /// So many bytes of the room have been written.
    pub fn fill(&mut self, bytes: usize) {
        self.filled += bytes;
        assert!(self.filled <= self.bytes.len(), "more bytes were written than there was room for");
    }
}
