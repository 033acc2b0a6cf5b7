//! The only room that knows the kernel: operations in, completions out, with ids instead of descriptors and pointers.
//!
//! * A [`SlotId`] is a connection after its upgrade: a slot of the ring's registered-file table and a generation, so that
//!   what completes late for a former holder of the slot is told apart.
//! * [`Io::send_batch`] is synchronous: when it returns, the kernel has copied or refused every byte. So a packet needs
//!   no reference count, and one send at the most is in flight per socket by construction.
//! * Input is pulled: the kernel says that a seat is readable, the shard asks for the bytes when it wants them. A client
//!   that is owed something is not read, and TCP slows it down.
//!
//! [`uring`] is what the server runs on. [`floor`] is the least that the kernel asks for the same sends, to be measured
//! against: nothing of the server uses it.

pub mod uring;

/// A connection that the fan-out owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId {
    /// Slot in the table, dense from 0, so that a plain vector maps seats to clients.
    pub index: u32,
    /// Counts the holders of this slot.
    pub generation: u32,
}

/// One send of a batch: `bytes[start..start + len]` to a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendOp {
    pub slot_id: SlotId,
    pub start: u32,
    pub len: u32,
}

/// A send that did not take all its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortSend {
    /// Which of the batch.
    pub index: u32,
    /// How far it came.
    pub outcome: SendOutcome,
}

/// How far a send came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// The socket took this many bytes, fewer than asked; 0 where it was full.
    Took(u32),
    /// The connection is gone.
    Failed,
}

/// What the kernel has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// There is input to [`Io::receive`], or the end of it.
    Readable { slot_id: SlotId },
    /// The answer to [`Io::receive`]: `input[start..start + len]` of the same [`Completions`]. `more` when the socket
    /// is known to hold further input, so that no new `Readable` need come for it.
    Received { slot_id: SlotId, start: u32, len: u32, more: bool },
    /// The answer to [`Io::receive`] where nothing is there after all.
    Nothing { slot_id: SlotId },
    /// The socket has room again; the answer to [`Io::want_writable`].
    Writable { slot_id: SlotId },
    /// The peer has gone: end of input, reset, or error. Comes once; the seat still has to be closed.
    Ended { slot_id: SlotId },
}

/// Completions of one reap, and the bytes that came with them.
#[derive(Debug, Default)]
pub struct Completions {
    pub list: Vec<Completion>,
    pub input: Vec<u8>,
}

impl Completions {
    /// Empties both, keeping the memory.
    pub fn clear(&mut self) {
        self.list.clear();
        self.input.clear();
    }
}

/// What the shard asks of the kernel.
pub trait Io {
    /// Sends each range of `bytes` to its seat, in order, and appends to `short` those that did not take all.
    fn send_batch(&mut self, bytes: &[u8], sends: &[SendOp], short: &mut Vec<ShortSend>);

    /// Asks for the input of a seat; answered by `Received`, `Nothing` or `Ended`. At most one at a time for a seat.
    fn receive(&mut self, slot_id: SlotId);

    /// Asks to be told once when the socket has room; answered by `Writable` or `Ended`.
    fn want_writable(&mut self, slot_id: SlotId);

    /// Closes the connection and frees its slot. Nothing completes for this seat afterwards.
    fn close(&mut self, slot_id: SlotId);

    /// Submits what has been asked and moves what has completed, at most `completions_max`, into `out`.
    /// Never waits.
    fn reap(&mut self, completions_max: usize, out: &mut Completions);
}
