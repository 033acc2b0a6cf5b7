//! What both bare loops ask of the kernel, so that they differ in nothing but how they send.

use std::io;

use super::ring::{Event, FloorRing, Input};

/// Connections by slot, and sends to them.
pub(super) trait Kernel {
    /// Sends each of these, in order. When it returns, the kernel has copied or refused every byte.
    fn send<'a>(&mut self, sends: impl Iterator<Item = (u32, &'a [u8])>);

    /// The same, then waits until there is an event.
    fn send_and_wait<'a>(&mut self, sends: impl Iterator<Item = (u32, &'a [u8])>);

    /// Moves what has happened to `out`. An error is one that there is no going on from.
    fn take_events(&mut self, out: &mut Vec<Event>) -> io::Result<()>;

    /// Reads into `input`, once.
    fn read(&mut self, slot: u32, input: Input);

    /// This connection is not read any more.
    fn read_no_more(&mut self, slot: u32);

    /// Tells once when the socket has room.
    fn tell_room(&mut self, slot: u32);

    /// Ends a connection.
    fn close(&mut self, slot: u32);
}

impl Kernel for FloorRing {
    #[inline]
    fn send<'a>(&mut self, sends: impl Iterator<Item = (u32, &'a [u8])>) {
        self.send(sends);
    }

    #[inline]
    fn send_and_wait<'a>(&mut self, sends: impl Iterator<Item = (u32, &'a [u8])>) {
        self.send_and_wait(sends);
    }

    fn take_events(&mut self, out: &mut Vec<Event>) -> io::Result<()> {
        self.take_events(out)
    }

    fn read(&mut self, slot: u32, input: Input) {
        self.read(slot, input);
    }

    /// Each read is asked for.
    fn read_no_more(&mut self, _slot: u32) {}

    fn tell_room(&mut self, slot: u32) {
        self.tell_room(slot);
    }

    fn close(&mut self, slot: u32) {
        self.close(slot);
    }
}
