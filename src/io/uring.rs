//! io_uring is called here: [`Uring`] implements [`Io`]. The only module of the server with submission entries,
//! descriptors, pointers and `unsafe`.
//!
//! One ring a shard, beside glommio's, owned by the shard's thread. Connections are registered files: a slot of the
//! ring's file table instead of a descriptor.
//!
//! What always holds:
//! * A send never outlives the call that makes it: with `MSG_DONTWAIT` the kernel does not queue it, so once the batch
//!   is submitted the kernel has copied or refused every byte.
//! * A short send completes visibly, although success completions are suppressed (`IOSQE_CQE_SKIP_SUCCESS`), because of
//!   `MSG_WAITALL`. Without it a short send counts as a success, and the rest of the frame would be missing unnoticed.
//! * The kernel checks a socket's limits for each send, because of `MSG_EOR`, and not only for each segment of 64 KiB.
//! * Input arrives in buffers that this module owns, and is copied out before the buffer goes back to the kernel.
//! * `user_data` is operation, generation and slot; completions for a former holder of a slot are dropped.
//! * Whatever ends a sleep of the shard is a completion of this ring: of a connection, of the poll of the eventfd that
//!   other threads write, of the poll of the listening socket. So the shard sleeps in the call that waits for the ring
//!   ([`Uring::wait`]), or on a second eventfd that the ring signals while it is armed ([`Uring::arm`]).
//!
//! What it does not do: accept, TLS, parse, or retry a send.
//!
//! Cost: 4 to 7 µs of kernel time a send on loopback, and 0 to 0.2 µs of our own; 256 B of kernel memory for the
//! multishot poll of an idle connection.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::event::EventfdFlags;

use super::errno;
use super::input_buffers::{INPUT_BUFFERS, INPUT_BYTES, INPUT_GROUP, InputBuffers};
use super::restrictions::restrict_and_enable;
pub use super::setup_error::SetupError;
use super::{Completion, Completions, Io, SendOp, SendOutcome, ShortSend, SlotId};

/// Entries of the submission queue: batches of 256 to 1,024 sends cost the least a send.
const SUBMISSIONS: u32 = 1024;
/// Entries of the completion queue: a short send each for 16 batches. The kernel keeps what overflows, at a higher
/// cost.
const COMPLETIONS: u32 = 16 * 1024;

const SEND: u8 = 1;
const POLL_IN: u8 = 2;
const POLL_OUT: u8 = 3;
const RECEIVE: u8 = 4;
const CLOSE: u8 = 5;
const CANCEL: u8 = 6;
/// The polls of the descriptors that are no connections.
const WAKE: u8 = 7;
const LISTENER: u8 = 8;
/// They have no slot.
const NO_SLOT: SlotId = SlotId { index: 0, generation: 0 };

/// `MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL | MSG_EOR`, from `<sys/socket.h>`.
const SEND_FLAGS: i32 = 0x40 | 0x100 | 0x4000 | 0x80;
/// `MSG_DONTWAIT`.
const RECEIVE_FLAGS: i32 = 0x40;
/// `POLLIN | POLLRDHUP`, from `<poll.h>`; errors and hang-ups are always reported.
const POLL_INPUT: u32 = 0x1 | 0x2000;
/// `POLLOUT`.
const POLL_OUTPUT: u32 = 0x4;

/// A ring with the features that a shard needs: one submitting thread, and completions only when it asks for them. It is
/// not enabled yet.
fn build(submissions: u32, completions: u32) -> Result<IoUring, SetupError> {
    IoUring::builder()
        .setup_r_disabled()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(completions)
        .build(submissions)
        .map_err(SetupError::of_ring)
}

/// Checks that this process may have a ring: sets up the smallest one and drops it. A shard's own is larger, and can
/// still meet a limit.
pub fn probe() -> Result<(), SetupError> {
    let ring = build(1, 2)?;
    restrict_and_enable(&ring).map_err(SetupError::of_ring)
}

/// [`Io`] on io_uring.
pub struct Uring {
    ring: IoUring,
    input: InputBuffers,
    /// Generation of each slot; odd while a connection holds it.
    generations: Vec<u32>,
    free: Vec<u32>,
    slots_max: u32,
    /// Completions that came during a batch of sends, for the next reap.
    stash: VecDeque<cqueue::Entry>,
    /// Receives that wait for an input buffer.
    deferred: VecDeque<SlotId>,
    receiving: usize,
    /// Written by [`ShardWaker`](crate::wake::ShardWaker). Its poll is edge-triggered, so it is never read.
    wake: OwnedFd,
    /// Signalled by the kernel when an operation completes while the ring is armed, and by
    /// [`ShardWaker`](crate::wake::ShardWaker) as well.
    completed: OwnedFd,
    /// The listening sockets, and whether connections have come since [`Self::take_acceptable`].
    listeners: Vec<OwnedFd>,
    acceptable: bool,
}

impl Uring {
    /// A ring with room for `slots_max` connections.
    pub fn new(slots_max: u32) -> Result<Self, SetupError> {
        let ring = build(SUBMISSIONS, COMPLETIONS)?;
        let submitter = ring.submitter();
        submitter
            .register_files_sparse(slots_max)
            .map_err(|error| SetupError::Descriptors { slots: slots_max, error })?;
        let eventfd =
            || rustix::event::eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| SetupError::Other(error.into()));
        let (wake, completed) = (eventfd()?, eventfd()?);
        submitter.register_eventfd(completed.as_raw_fd()).map_err(SetupError::Other)?;
        let input = InputBuffers::register(&ring).map_err(SetupError::of_ring)?;
        restrict_and_enable(&ring).map_err(SetupError::of_ring)?;
        let mut uring = Self {
            ring,
            input,
            generations: Vec::new(),
            free: Vec::new(),
            slots_max,
            stash: VecDeque::new(),
            deferred: VecDeque::new(),
            receiving: 0,
            wake,
            completed,
            listeners: Vec::new(),
            acceptable: false,
        };
        uring.disarm();
        uring.watch(WAKE, 0);
        Ok(uring)
    }

    /// A descriptor of the eventfd that wakes the shard: a write to it is a completion of this ring.
    pub fn wake_fd(&self) -> io::Result<OwnedFd> {
        self.wake.try_clone()
    }

    /// A descriptor of the eventfd that is signalled by completions while the ring is armed.
    pub fn completed_fd(&self) -> io::Result<OwnedFd> {
        self.completed.try_clone()
    }

    /// Reports connections that wait at this listening socket by [`Self::take_acceptable`].
    pub fn watch_listener(&mut self, socket: &impl AsFd) -> io::Result<()> {
        self.listeners.push(socket.as_fd().try_clone_to_owned()?);
        self.watch(LISTENER, self.listeners.len() as u32 - 1);
        Ok(())
    }

    /// True if connections have come to a listening socket since the last call. A new one is reported even if older
    /// ones wait still.
    pub fn take_acceptable(&mut self) -> bool {
        std::mem::take(&mut self.acceptable)
    }

    /// Polls the eventfd or the listening socket with this index.
    fn watch(&mut self, operation: u8, index: u32) {
        let descriptor = if operation == WAKE { Some(&self.wake) } else { self.listeners.get(index as usize) };
        let Some(descriptor) = descriptor else { return };
        let poll = opcode::PollAdd::new(types::Fd(descriptor.as_raw_fd()), POLL_INPUT).multi(true).build();
        self.push(poll.user_data(tag(operation, SlotId { index, ..NO_SLOT })));
    }

    /// Takes over a connected socket: the file table keeps it, and the caller can close its descriptor. `None` if all
    /// slots are taken.
    pub fn adopt(&mut self, socket: &impl AsFd) -> io::Result<Option<SlotId>> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if (self.generations.len() as u32) < self.slots_max => {
                self.generations.push(0);
                self.generations.len() as u32 - 1
            }
            None => return Ok(None),
        };
        if let Err(error) = self.ring.submitter().register_files_update(slot, &[socket.as_fd().as_raw_fd()]) {
            self.free.push(slot);
            return Err(error);
        }
        let generation = &mut self.generations[slot as usize];
        *generation = generation.wrapping_add(1);
        let slot_id = SlotId { index: slot, generation: *generation };
        let poll = opcode::PollAdd::new(types::Fixed(slot), POLL_INPUT).multi(true).build();
        self.push(poll.user_data(tag(POLL_IN, slot_id)));
        Ok(Some(slot_id))
    }

    /// Submits what is queued, and waits for a completion, for `timeout` at most. Returns at once if there is a
    /// completion that was not reaped.
    pub fn wait(&mut self, timeout: Option<Duration>) {
        self.queue_receives();
        if !self.stash.is_empty() || !self.ring.completion().is_empty() {
            return;
        }
        let waited = match timeout {
            None => self.ring.submit_and_wait(1),
            Some(timeout) => {
                let timeout = types::Timespec::from(timeout);
                self.ring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&timeout))
            }
        };
        if let Err(error) = waited {
            assert!(is_transient(&error) || error.raw_os_error() == Some(errno::ETIME), "io_uring_enter: {error}");
        }
    }

    /// Lets completions signal the eventfd [`Self::completed_fd`], for a sleep outside of [`Self::wait`]. False if the
    /// ring has work: then a completion may have come before, and the shard must not sleep.
    pub fn arm(&mut self) -> bool {
        self.queue_receives();
        self.ring.completion().enable_eventfd();
        // SeqCst fence, whose partner is the full barrier in the kernel: it posts work and then reads the flag; we set
        // the flag and then look for work. At least one of the two sees the other's write.
        fence(Ordering::SeqCst);
        let queue = self.ring.submission();
        let has_entries = !queue.is_empty() || queue.taskrun() || queue.cq_overflow();
        drop(queue);
        !has_entries && self.stash.is_empty() && self.ring.completion().is_empty()
    }

    /// Closes all connections.
    pub fn close_all(&mut self) {
        for index in 0..self.generations.len() as u32 {
            if self.generations[index as usize] % 2 == 1 {
                self.close(self.current(index));
            }
        }
        self.submit();
        // The cancelled polls hold the files until their completions are made.
        self.run_deferred_work();
    }

    /// Keeps completions from signalling the eventfd: an awake shard reaps in every tick anyway.
    pub fn disarm(&mut self) {
        self.ring.completion().disable_eventfd();
    }

    /// Whether the connection still holds its slot.
    fn holds(&self, slot_id: SlotId) -> bool {
        self.generations.get(slot_id.index as usize) == Some(&slot_id.generation)
    }

    /// Queues an entry without a pointer to our memory.
    fn push(&mut self, entry: squeue::Entry) {
        if self.ring.submission().is_full() {
            self.submit();
        }
        // SAFETY: the entry must stay valid until the kernel has taken it. The callers keep that by passing only polls,
        // closes, cancels and buffer-select receives, which carry no pointer.
        unsafe { self.ring.submission().push(&entry) }.expect("the submission queue was just emptied");
    }

    /// Submits all queued entries; returns when the kernel has taken each of them.
    fn submit(&mut self) {
        while !self.ring.submission().is_empty() {
            match self.ring.submit() {
                Ok(_) => {}
                // Make room, and try again.
                Err(error) if is_transient(&error) => self.stash_all(),
                Err(error) => panic!("io_uring_enter: {error}"),
            }
        }
    }

    /// Empties the completion queue into the stash, and lets the kernel fill it again with what it held back.
    fn stash_all(&mut self) {
        self.stash.extend(self.ring.completion());
        self.run_deferred_work();
    }

    /// Runs the completion work that the kernel defers until we ask (DEFER_TASKRUN), and submits what is queued.
    fn run_deferred_work(&mut self) {
        /// `IORING_ENTER_GETEVENTS`.
        const GETEVENTS: u32 = 1;
        let queued = self.ring.submission().len() as u32;
        // SAFETY: `enter` must not be passed a dangling argument. None is passed, so the kernel reads only the
        // submission queue, whose entries `push` and `send_batch` keep valid.
        let entered = unsafe { self.ring.submitter().enter::<()>(queued, 0, GETEVENTS, None) };
        if let Err(error) = entered {
            assert!(is_transient(&error), "io_uring_enter: {error}");
        }
    }

    /// Queues the deferred receives, as many as there are input buffers.
    fn queue_receives(&mut self) {
        while self.receiving < usize::from(INPUT_BUFFERS) {
            let Some(slot_id) = self.deferred.pop_front() else { return };
            if !self.holds(slot_id) {
                continue;
            }
            self.receiving += 1;
            let receive = opcode::Recv::new(types::Fixed(slot_id.index), std::ptr::null_mut(), INPUT_BYTES as u32)
                .buf_group(INPUT_GROUP)
                .flags(RECEIVE_FLAGS)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT);
            self.push(receive.user_data(tag(RECEIVE, slot_id)));
        }
    }

    /// Translates a completion of the kernel into a [`Completion`].
    fn translate(&mut self, entry: &cqueue::Entry, out: &mut Completions) {
        let (operation, slot_id) = untag(entry.user_data());
        if operation == RECEIVE {
            self.receiving -= 1;
            self.take_input(entry, slot_id, out);
            return;
        }
        match operation {
            CLOSE => return self.free.push(slot_id.index),
            WAKE | LISTENER => {
                self.acceptable |= operation == LISTENER;
                if !cqueue::more(entry.flags()) {
                    self.watch(operation, slot_id.index);
                }
                return;
            }
            _ => {}
        }
        if !self.holds_low(slot_id) {
            return;
        }
        let slot_id = self.current(slot_id.index);
        match operation {
            POLL_IN => {
                if !cqueue::more(entry.flags()) {
                    let poll = opcode::PollAdd::new(types::Fixed(slot_id.index), POLL_INPUT).multi(true).build();
                    self.push(poll.user_data(tag(POLL_IN, slot_id)));
                }
                out.list.push(Completion::Readable { slot_id });
            }
            POLL_OUT => out.list.push(Completion::Writable { slot_id }),
            SEND | CANCEL => {}
            other => unreachable!("no operation {other} is ever submitted"),
        }
    }

    /// Copies the bytes of a receive out of their buffer, and gives the buffer back.
    fn take_input(&mut self, entry: &cqueue::Entry, slot_id: SlotId, out: &mut Completions) {
        let start = out.input.len();
        let received = entry.result();
        if let Some(buffer) = cqueue::buffer_select(entry.flags()) {
            let length = usize::try_from(received).unwrap_or(0);
            out.input.extend_from_slice(self.input.bytes(buffer, length));
            self.input.give_back(buffer);
        }
        if !self.holds_low(slot_id) {
            out.input.truncate(start);
            return;
        }
        let slot_id = self.current(slot_id.index);
        let more = cqueue::sock_nonempty(entry.flags()) || received as usize == INPUT_BYTES;
        out.list.push(match received {
            1.. => Completion::Received { slot_id, start: start as u32, len: received as u32, more },
            0 => Completion::Ended { slot_id },
            _ if received == -errno::EAGAIN || received == -errno::EINTR => Completion::Nothing { slot_id },
            // No buffer is free, or the kernel is short of memory.
            _ if received == -errno::ENOBUFS || received == -errno::ENOMEM => {
                self.deferred.push_back(slot_id);
                return;
            }
            _ => Completion::Ended { slot_id },
        });
    }

    /// [`Self::holds`] for an id from `user_data`, which has 24 bits of the generation: a confusion would take 16
    /// million connections in one slot while one completion is under way.
    fn holds_low(&self, slot_id: SlotId) -> bool {
        self.generations.get(slot_id.index as usize).is_some_and(|held| held & GENERATION_MASK == slot_id.generation)
    }

    /// The id of the slot's present holder.
    fn current(&self, slot: u32) -> SlotId {
        SlotId { index: slot, generation: self.generations[slot as usize] }
    }

    /// Collects the failed and short sends, and keeps all other completions for the next reap.
    fn sort_send_completions(&mut self, base: u32, short: &mut Vec<ShortSend>) {
        loop {
            for entry in self.ring.completion() {
                if is_send(&entry) {
                    short.push(short_of(&entry, base));
                } else {
                    self.stash.push_back(entry);
                }
            }
            // If the queue was full, the kernel held completions back, perhaps of this batch. Left there, a short send
            // would count as sent now, and be attributed to another batch later.
            if !self.ring.submission().cq_overflow() {
                break;
            }
            self.run_deferred_work();
        }
        self.stash.retain(|entry| {
            if is_send(entry) {
                short.push(short_of(entry, base));
            }
            !is_send(entry)
        });
    }
}

impl Io for Uring {
    fn send_batch(&mut self, bytes: &[u8], sends: &[SendOp], short: &mut Vec<ShortSend>) {
        // Queued entries are submitted first, so that a batch has the whole queue.
        self.submit();
        for (chunk_index, chunk) in sends.chunks(SUBMISSIONS as usize).enumerate() {
            {
                let mut queue = self.ring.submission();
                for (index, send) in chunk.iter().enumerate() {
                    let payload = &bytes[send.start as usize..][..send.len as usize];
                    // A connection that is gone left an empty slot, or one with another holder: its send has to fail.
                    let slot = if self.generations.get(send.slot_id.index as usize) == Some(&send.slot_id.generation) {
                        send.slot_id.index
                    } else {
                        u32::MAX >> 1
                    };
                    let entry = opcode::Send::new(types::Fixed(slot), payload.as_ptr(), send.len)
                        .flags(SEND_FLAGS)
                        .build()
                        .flags(squeue::Flags::SKIP_SUCCESS)
                        .user_data(u64::from(SEND) << 56 | index as u64);
                    // SAFETY: the pointer in the entry must stay valid until the kernel is done with it. It points into
                    // `bytes`, borrowed until this function returns. This function keeps the invariant: it returns only
                    // after `submit` below, and with MSG_DONTWAIT the kernel keeps no reference beyond the submission.
                    unsafe { queue.push(&entry) }.expect("a chunk is no larger than the queue");
                }
            }
            self.submit();
            self.sort_send_completions((chunk_index * SUBMISSIONS as usize) as u32, short);
        }
    }

    fn receive(&mut self, slot_id: SlotId) {
        self.deferred.push_back(slot_id);
    }

    fn want_writable(&mut self, slot_id: SlotId) {
        if self.holds(slot_id) {
            let poll = opcode::PollAdd::new(types::Fixed(slot_id.index), POLL_OUTPUT).build();
            self.push(poll.user_data(tag(POLL_OUT, slot_id)));
        }
    }

    fn close(&mut self, slot_id: SlotId) {
        if !self.holds(slot_id) {
            return;
        }
        let generation = &mut self.generations[slot_id.index as usize];
        *generation = generation.wrapping_add(1);
        // The polls hold the file, so they are cancelled before the close. They are named by their tags: to find them
        // by their file, the kernel would walk the polls of all connections.
        for operation in [POLL_IN, POLL_OUT] {
            let polls = types::CancelBuilder::user_data(tag(operation, slot_id)).all();
            self.push(opcode::AsyncCancel2::new(polls).build().user_data(tag(CANCEL, slot_id)));
        }
        self.push(opcode::Close::new(types::Fixed(slot_id.index)).build().user_data(tag(CLOSE, slot_id)));
    }

    fn reap(&mut self, completions_max: usize, out: &mut Completions) {
        self.queue_receives();
        let (work, overflow) = {
            let queue = self.ring.submission();
            (!queue.is_empty() || queue.taskrun(), queue.cq_overflow())
        };
        if work || overflow {
            self.run_deferred_work();
        }
        for _ in 0..completions_max {
            let next = self.stash.pop_front().or_else(|| self.ring.completion().next());
            let Some(entry) = next else { return };
            self.translate(&entry, out);
        }
    }
}

/// The call was interrupted, the completion queue is full, or memory is short.
fn is_transient(error: &io::Error) -> bool {
    let transient = [errno::EBUSY, errno::EAGAIN, errno::EINTR, errno::ENOMEM];
    error.raw_os_error().is_some_and(|errno| transient.contains(&errno))
}

fn is_send(entry: &cqueue::Entry) -> bool {
    untag(entry.user_data()).0 == SEND
}

fn short_of(entry: &cqueue::Entry, base: u32) -> ShortSend {
    let index = base + entry.user_data() as u32;
    ShortSend { index, outcome: outcome_of(entry.result()) }
}

/// What the kernel says of a send. A lack of memory is the kernel's, and no end of the connection.
fn outcome_of(result: i32) -> SendOutcome {
    match result {
        took @ 0.. => SendOutcome::Took(took as u32),
        error if [errno::EAGAIN, errno::ENOMEM, errno::ENOBUFS].contains(&-error) => SendOutcome::Took(0),
        _ => SendOutcome::Failed,
    }
}

const GENERATION_MASK: u32 = 0x00ff_ffff;

fn tag(operation: u8, slot_id: SlotId) -> u64 {
    u64::from(operation) << 56 | u64::from(slot_id.generation & GENERATION_MASK) << 32 | u64::from(slot_id.index)
}

/// The operation, and the connection with the low 24 bits of its generation.
fn untag(user_data: u64) -> (u8, SlotId) {
    let generation = (user_data >> 32) as u32 & GENERATION_MASK;
    ((user_data >> 56) as u8, SlotId { index: user_data as u32, generation })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EACCES: i32 = -13;

    #[test]
    fn the_kernel_refuses_what_the_server_does_not_use() {
        let mut uring = Uring::new(4).expect("a ring");
        let result_of = |uring: &mut Uring, entry: squeue::Entry| {
            uring.push(entry.user_data(tag(CANCEL, NO_SLOT)));
            uring.submit();
            let mut results = (0..100).filter_map(|_| {
                uring.run_deferred_work();
                uring.ring.completion().next().map(|completion| completion.result())
            });
            results.next()
        };
        let nowhere = types::Fd(-1);
        // First: an entry that asks for a drain holds up those behind it, although it is refused.
        let permitted = result_of(&mut uring, opcode::PollAdd::new(nowhere, POLL_INPUT).build());
        assert!(permitted.is_some_and(|result| result != EACCES), "polls are in use: {permitted:?}");
        for entry in [
            opcode::Nop::new().build(),
            opcode::Socket::new(2, 1, 0).build(),
            opcode::OpenAt::new(nowhere, c"/".as_ptr()).build(),
            opcode::Read::new(nowhere, std::ptr::null_mut(), 0).build(),
            // A flag that is not in use.
            opcode::PollAdd::new(nowhere, POLL_INPUT).build().flags(squeue::Flags::IO_DRAIN),
        ] {
            let shown = format!("{entry:?}");
            assert_eq!(result_of(&mut uring, entry), Some(EACCES), "{shown}");
        }
        let lifted = uring.ring.submitter().unregister_files().expect_err("refused");
        assert_eq!(lifted.raw_os_error(), Some(-EACCES));
    }

    #[test]
    fn a_lack_of_memory_is_pressure_and_no_end_of_the_connection() {
        for (result, outcome) in [
            (7, SendOutcome::Took(7)),
            (-errno::EAGAIN, SendOutcome::Took(0)),
            (-errno::ENOMEM, SendOutcome::Took(0)),
            (-errno::ENOBUFS, SendOutcome::Took(0)),
            (-errno::EINVAL, SendOutcome::Failed),
        ] {
            assert_eq!(outcome_of(result), outcome, "{result}");
        }
    }
}
