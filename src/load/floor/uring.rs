//! Sockets on io_uring, with the fewest operations for the same sends as the server: what the server's own ring is
//! measured against.
//!
//! What always holds: it shares no code with `crate::io::uring`, so that a regression there does not slow its yardstick
//! as well. Connections live in the ring's file table from their accept on, and cost no descriptor. One
//! `io_uring_enter` submits up to 1,024 sends; the last one of a flush also submits the reads, and waits.
//! * With `MSG_DONTWAIT` the kernel does not keep a send: once it is submitted, its bytes are copied or refused.
//! * With `MSG_WAITALL` a send that was cut short has a visible completion; sends that took all bytes have none.
//!
//! It does not close idle connections, read subscribers, or distinguish successive connections of a slot. Cost: the
//! kernel's, and about 5 ns a send to fill in its entry.
#![allow(unsafe_code)]

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::io::Errno;

use super::sockets::{ReadBuffer, SocketEvent, Sockets};

/// Entries of the submission queue, and so the most sends of one `io_uring_enter`.
const SUBMISSIONS: u32 = 1024;
/// Entries of the completion queue: sixteen batches of which every send was cut short.
const COMPLETIONS: u32 = 16 * 1024;
/// `MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL`, from `<sys/socket.h>`.
const SEND_FLAGS: i32 = 0x40 | 0x100 | 0x4000;
/// `POLLIN` and `POLLOUT`, from `<poll.h>`.
const POLL_INPUT: u32 = 0x1;
const POLL_OUTPUT: u32 = 0x4;

/// The operation of an entry: the upper half of its `user_data`. The lower half is the slot.
const SEND: u32 = 0;
const ACCEPT: u32 = 1;
const READ: u32 = 2;
const WRITABLE: u32 = 3;
const CLOSE: u32 = 4;
const STOP: u32 = 5;

/// A ring for the thread that made it.
pub(super) struct UringSockets {
    ring: IoUring,
    /// By slot: the memory that the kernel may write to, from the request of a read to its event.
    inputs: Vec<Option<ReadBuffer>>,
    /// Slots whose reads are submitted behind the next sends.
    due: Vec<u32>,
    events: Vec<SocketEvent>,
    listener: TcpListener,
    /// The first error, which ends the loop.
    failure: Option<io::Error>,
}

impl UringSockets {
    /// A ring with room for `connections_max` connections, which accepts from now on.
    ///
    /// Errors are the kernel's: io_uring is not permitted, or there are more connections than descriptors are allowed.
    pub(super) fn new(connections_max: u32, listener: TcpListener) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        ring.submitter().register_files_sparse(connections_max)?;
        let inputs = std::iter::repeat_with(|| None).take(connections_max as usize).collect();
        let mut ring = Self { ring, inputs, due: Vec::new(), events: Vec::new(), listener, failure: None };
        ring.accept();
        Ok(ring)
    }

    /// Reports [`SocketEvent::Stop`] once when this descriptor becomes readable. It must stay open.
    pub(super) fn stop_on(&mut self, descriptor: &impl AsRawFd) {
        let poll = opcode::PollAdd::new(types::Fd(descriptor.as_raw_fd()), POLL_INPUT).build();
        self.push_without_pointer(poll.user_data(tag(STOP, 0)));
    }

    fn accept(&mut self) {
        let accept = opcode::AcceptMulti::new(types::Fd(self.listener.as_raw_fd())).allocate_file_index(true).build();
        self.push_without_pointer(accept.user_data(tag(ACCEPT, 0)));
    }

    #[inline]
    fn push_sends<'a>(&mut self, sends: impl Iterator<Item = (u32, &'a [u8])>) {
        let mut sends = sends;
        loop {
            let mut queue = self.ring.submission();
            let room = queue.capacity() - queue.len();
            let mut pushed = 0;
            for (slot, bytes) in sends.by_ref().take(room) {
                let send = opcode::Send::new(types::Fixed(slot), bytes.as_ptr(), bytes.len() as u32)
                    .flags(SEND_FLAGS)
                    .build()
                    .flags(squeue::Flags::SKIP_SUCCESS)
                    .user_data(tag(SEND, slot));
                // SAFETY: the bytes are borrowed until the caller, `send` or `send_and_wait`, returns, and both submit
                // all entries before; after that the kernel does not read them (MSG_DONTWAIT).
                unsafe { queue.push(&send) }.expect("no more are taken than there is room for");
                pushed += 1;
            }
            drop(queue);
            if pushed < room {
                return;
            }
            self.submit(0);
            self.on_completions();
        }
    }

    fn push_read(&mut self, slot: u32) {
        let Some(input) = self.inputs[slot as usize].as_mut() else { return };
        let room = input.room();
        let read = opcode::Recv::new(types::Fixed(slot), room.as_mut_ptr(), room.len() as u32).build();
        self.make_room();
        // SAFETY: the memory belongs to `inputs`. `read` and `on_completions` leave it alone until this read has
        // completed, and `drop` does not free it.
        unsafe { self.ring.submission().push(&read.user_data(tag(READ, slot))) }.expect("room was made");
    }

    /// Queues an entry that has no pointer.
    fn push_without_pointer(&mut self, entry: squeue::Entry) {
        self.make_room();
        // SAFETY: accepts, polls and closes carry no pointer.
        unsafe { self.ring.submission().push(&entry) }.expect("room was made");
    }

    fn make_room(&mut self) {
        if self.ring.submission().is_full() {
            self.submit(0);
        }
    }

    /// Submits all queued entries, and waits for `want` completions with the last of them.
    fn submit(&mut self, want: usize) {
        if want == 0 && self.ring.submission().is_empty() {
            return;
        }
        loop {
            match self.ring.submit_and_wait(want) {
                Ok(_) => {}
                // An interrupted wait; or no room for completions or memory, which reading completions may free.
                Err(error) if is_transient(&error) => self.on_completions(),
                Err(error) => panic!("io_uring_enter: {error}"),
            }
            if self.ring.submission().is_empty() && (want == 0 || self.has_events()) {
                return;
            }
        }
    }

    fn has_events(&mut self) -> bool {
        !self.events.is_empty() || self.failure.is_some() || !self.ring.completion().is_empty()
    }

    fn on_completions(&mut self) {
        let mut accepting = true;
        for entry in self.ring.completion() {
            let (operation, slot) = ((entry.user_data() >> 32) as u32, entry.user_data() as u32);
            let result = usize::try_from(entry.result()).map_err(|_| Errno::from_raw_os_error(-entry.result()));
            match operation {
                SEND => self.events.push(SocketEvent::ShortSend { slot, result }),
                READ => {
                    let mut buffer = self.inputs[slot as usize].take().expect("a read has its memory");
                    buffer.fill(result.unwrap_or(0));
                    self.events.push(SocketEvent::Read { slot, buffer, result });
                }
                ACCEPT => {
                    accepting &= cqueue::more(entry.flags());
                    match result {
                        Ok(slot) => self.events.push(SocketEvent::Accepted { slot: slot as u32 }),
                        // Refused: the table is full, or the client has gone.
                        Err(Errno::NFILE | Errno::CONNABORTED | Errno::AGAIN | Errno::INTR) => {}
                        Err(error) => self.failure = Some(error.into()),
                    }
                }
                WRITABLE => self.events.push(SocketEvent::Writable { slot }),
                STOP => self.events.push(SocketEvent::Stop),
                CLOSE => {}
                other => unreachable!("operation {other} is never submitted"),
            }
        }
        if !accepting && self.failure.is_none() {
            self.accept();
        }
    }
}

impl Sockets for UringSockets {
    #[inline]
    fn send<'a>(&mut self, sends: impl Iterator<Item = (u32, &'a [u8])>) {
        self.push_sends(sends);
        self.submit(0);
        self.on_completions();
    }

    #[inline]
    fn send_and_wait<'a>(&mut self, sends: impl Iterator<Item = (u32, &'a [u8])>) {
        self.push_sends(sends);
        for slot in std::mem::take(&mut self.due) {
            self.push_read(slot);
        }
        let want = usize::from(self.events.is_empty() && self.failure.is_none());
        self.submit(want);
        self.on_completions();
    }

    fn take_events(&mut self, out: &mut Vec<SocketEvent>) -> io::Result<()> {
        out.append(&mut self.events);
        self.failure.take().map_or(Ok(()), Err)
    }

    fn events(&mut self) -> &mut Vec<SocketEvent> {
        &mut self.events
    }

    fn read(&mut self, slot: u32, input: ReadBuffer) {
        let before = self.inputs[slot as usize].replace(input);
        // The kernel may be writing to it, so it must not be freed, not even by the panic.
        let before = std::mem::ManuallyDrop::new(before);
        assert!(before.is_none(), "a read of slot {slot} is under way");
        self.due.push(slot);
    }

    fn notify_writable(&mut self, slot: u32) {
        let poll = opcode::PollAdd::new(types::Fixed(slot), POLL_OUTPUT).build();
        self.push_without_pointer(poll.user_data(tag(WRITABLE, slot)));
    }

    fn close(&mut self, slot: u32) {
        let close = opcode::Close::new(types::Fixed(slot)).build().flags(squeue::Flags::SKIP_SUCCESS);
        self.push_without_pointer(close.user_data(tag(CLOSE, slot)));
    }

    /// A read happens only where it is requested.
    fn stop_reading(&mut self, _slot: u32) {}
}

impl Drop for UringSockets {
    /// The kernel may write to the buffers of reads until it has taken the ring apart, some time after this.
    fn drop(&mut self) {
        std::mem::forget(std::mem::take(&mut self.inputs));
    }
}

fn is_transient(error: &io::Error) -> bool {
    let transient = [Errno::INTR, Errno::BUSY, Errno::AGAIN, Errno::NOMEM];
    error.raw_os_error().is_some_and(|number| transient.contains(&Errno::from_raw_os_error(number)))
}

fn tag(operation: u32, slot: u32) -> u64 {
    u64::from(operation) << 32 | u64::from(slot)
}
