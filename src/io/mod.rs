//! Socket input and output of a shard: operations in, completions out, with [`SlotId`]s instead of descriptors and
//! pointers.
//!
//! What always holds:
//! * [`Io::send_batch`] is synchronous: when it returns, the kernel has copied or refused every byte. So packets need
//!   no reference count, and a socket never has more than one send in flight.
//! * Input is pulled: [`Completion::Readable`] reports input, and the shard asks for the bytes when it wants them
//!   ([`Io::receive`]). A client with output pending is not read, so TCP slows it down.
//! * Nothing completes for a connection after [`Io::close`], although its slot is used again.
//!
//! [`uring`] implements it with io_uring, and is the only module of the server that calls the kernel for it. [`sealed`]
//! is a layer above another implementation that secures some of its connections by TLS. Tests run the shard on simulated
//! ones; one contract test covers them all.

pub mod descriptor;
mod errno;
mod input_buffers;
mod restrictions;
pub mod sealed;
mod setup_error;
pub mod uring;

/// A client's connection in the shard: a slot, and which of its successive holders is meant.
///
/// Slots are used again, and completions may come late. A completion, or an operation of the shard, whose generation is
/// not the slot's present one belongs to a former connection and has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId {
    /// The slot: its index in the table of connections, dense from 0, so that a plain vector maps slots to clients.
    pub index: u32,
    /// Differs for each connection that has held the slot.
    pub generation: u32,
}

/// One send of a batch: `bytes[start..start + len]` to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendOp {
    pub slot_id: SlotId,
    pub start: u32,
    pub len: u32,
}

/// A send that the socket did not take whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortSend {
    /// Its index in the batch.
    pub index: u32,
    /// What happened to it.
    pub outcome: SendOutcome,
}

/// What happened to a short send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// The socket took this many bytes, and is full; 0 if it was full before, or the kernel short of memory. They are fewer
    /// than asked, unless a layer below keeps the rest: then the socket counts as full until it has taken that.
    Took(u32),
    /// The connection is gone.
    Failed,
}

/// An event of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// There is input for [`Io::receive`], or its end.
    Readable { slot_id: SlotId },
    /// The answer to [`Io::receive`]: `input[start..start + len]` of the same [`Completions`]. With `more`, the socket
    /// is known to hold further input, and no new `Readable` may come for it.
    Received { slot_id: SlotId, start: u32, len: u32, more: bool },
    /// The answer to [`Io::receive`] if there is no input after all.
    Nothing { slot_id: SlotId },
    /// The socket has room again; the answer to [`Io::want_writable`].
    Writable { slot_id: SlotId },
    /// The socket took some of what a layer below keeps for it.
    Progress { slot_id: SlotId },
    /// End of input, reset, or error. Comes once; the connection still has to be closed.
    Ended { slot_id: SlotId },
}

impl Completion {
    /// The connection.
    pub fn slot_id(&self) -> SlotId {
        let (Self::Readable { slot_id }
        | Self::Received { slot_id, .. }
        | Self::Nothing { slot_id }
        | Self::Writable { slot_id }
        | Self::Progress { slot_id }
        | Self::Ended { slot_id }) = self;
        *slot_id
    }
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

/// The operations of a shard on its connections.
pub trait Io {
    /// Sends each range of `bytes` to its connection, in order, and appends to `short` the sends that were not taken
    /// whole. Never waits for a socket. When it returns, the kernel has copied or refused every byte.
    fn send_batch(&mut self, bytes: &[u8], sends: &[SendOp], short: &mut Vec<ShortSend>);

    /// Asks for input; answered by `Received`, `Nothing` or `Ended`. At most one at a time for a connection.
    fn receive(&mut self, slot_id: SlotId);

    /// Asks for one notification when the socket has room; answered by `Writable` or `Ended`.
    fn want_writable(&mut self, slot_id: SlotId);

    /// Closes the connection and frees its slot. Nothing completes for it afterwards.
    fn close(&mut self, slot_id: SlotId);

    /// Bytes of input that a layer below holds for a connection because they are not whole.
    fn held_input(&self, _slot_id: SlotId) -> usize {
        0
    }

    /// Submits the operations asked for, and appends at most `completions_max` completions to `out`. Never waits.
    fn reap(&mut self, completions_max: usize, out: &mut Completions);
}
