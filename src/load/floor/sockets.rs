//! The operations that the floor loop asks of the kernel. Both ways to send implement them, so that they differ in
//! nothing else.

use std::io;

use rustix::io::Errno;

/// Connections by slot, and sends to them.
pub(super) trait Sockets {
    /// Sends each of these, in order. When it returns, the kernel has copied or refused every byte.
    fn send<'a>(&mut self, sends: impl Iterator<Item = (u32, &'a [u8])>);

    /// The same, then starts the reads that are due, and waits until there is an event.
    fn send_and_wait<'a>(&mut self, sends: impl Iterator<Item = (u32, &'a [u8])>);

    /// Moves the events to `out`. An error ends the loop.
    fn take_events(&mut self, out: &mut Vec<SocketEvent>) -> io::Result<()>;

    /// The events that [`Self::take_events`] will move: another layer may take some of them, or add some.
    fn events(&mut self) -> &mut Vec<SocketEvent>;

    /// Reads once into `input`, behind the bytes that it holds, from the next [`Self::send_and_wait`] on. One read at a
    /// time for a slot.
    fn read(&mut self, slot: u32, input: ReadBuffer);

    /// This connection is not read any more.
    fn stop_reading(&mut self, slot: u32);

    /// Requests one [`SocketEvent::Writable`].
    fn notify_writable(&mut self, slot: u32);

    /// Closes a connection. The next accept may reuse the slot. No read of it may be under way.
    fn close(&mut self, slot: u32);
}

/// An event of a socket.
#[derive(Debug)]
pub(super) enum SocketEvent {
    /// A new connection has this slot.
    Accepted { slot: u32 },
    /// A read is complete, and its buffer has the bytes at its end. 0 bytes are the end of the stream.
    Read { slot: u32, buffer: ReadBuffer, result: Result<usize, Errno> },
    /// A send was refused, or took fewer bytes than requested.
    ShortSend { slot: u32, result: Result<usize, Errno> },
    /// The socket is writable again, or broken.
    Writable { slot: u32 },
    /// The stop descriptor is readable.
    Stop,
}

/// Memory to read into.
#[derive(Debug)]
pub(super) struct ReadBuffer {
    bytes: Box<[u8]>,
    filled: usize,
}

impl ReadBuffer {
    /// Room for so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes: vec![0; bytes].into(), filled: 0 }
    }

    /// The bytes that were read and not consumed.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    /// Removes the first so many bytes. A buffer that is still full doubles its size.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.bytes.copy_within(bytes..self.filled, 0);
        self.filled -= bytes;
        if self.filled == self.bytes.len() {
            let mut larger = vec![0; self.bytes.len() * 2];
            larger[..self.filled].copy_from_slice(&self.bytes);
            self.bytes = larger.into();
        }
    }

    /// Where the next bytes go.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    /// So many bytes of the room have been written.
    pub(super) fn fill(&mut self, bytes: usize) {
        self.filled += bytes;
        assert!(self.filled <= self.bytes.len(), "more bytes were written than there was room for");
    }
}
