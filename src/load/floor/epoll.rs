//! Sockets on epoll: each send is a `send(2)`.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use super::sockets::{ReadBuffer, SocketEvent, Sockets};

/// The listener, among the slots in epoll's data.
const LISTENER: u64 = u64::MAX;
/// The stop descriptor, likewise.
const STOP: u64 = u64::MAX - 1;
/// Events of one `epoll_wait`.
const READY_MAX: usize = 1024;

/// Connections by slot, each with a descriptor.
pub(super) struct EpollSockets {
    epoll: OwnedFd,
    listener: TcpListener,
    sockets: Vec<Option<OwnedFd>>,
    inputs: Vec<Option<ReadBuffer>>,
    free: Vec<u32>,
    connections_max: u32,
    ready: Vec<epoll::Event>,
    events: Vec<SocketEvent>,
    failure: Option<io::Error>,
}

impl EpollSockets {
    /// Room for `connections_max` connections. `stop` becoming readable is reported once; it must stay open.
    pub(super) fn new(connections_max: u32, listener: TcpListener, stop: &impl AsFd) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        listener.set_nonblocking(true)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        epoll::add(&epoll, stop, EventData::new_u64(STOP), EventFlags::IN | EventFlags::ONESHOT)?;
        let (sockets, inputs, free, events) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let ready = Vec::with_capacity(READY_MAX);
        Ok(Self { epoll, listener, sockets, inputs, free, connections_max, ready, events, failure: None })
    }

    fn accept_all(&mut self) {
        loop {
            match rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC) {
                Ok(socket) => self.add(socket),
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(error) => {
                    self.failure = Some(error.into());
                    return;
                }
            }
        }
    }

    /// Gives a connection a slot; one above the limit is closed.
    fn add(&mut self, socket: OwnedFd) {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.sockets.len() < self.connections_max as usize => {
                self.sockets.push(None);
                self.inputs.push(None);
                self.sockets.len() as u32 - 1
            }
            None => return,
        };
        let added = epoll::add(&self.epoll, &socket, EventData::new_u64(slot.into()), EventFlags::IN);
        self.note(added);
        self.sockets[slot as usize] = Some(socket);
        self.events.push(SocketEvent::Accepted { slot });
    }

    fn ready(&mut self, slot: u32, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) {
            self.events.push(SocketEvent::Writable { slot });
        }
        let at = slot as usize;
        let (Some(socket), Some(mut buffer)) = (&self.sockets[at], self.inputs[at].take()) else { return };
        let result = rustix::net::recv(socket, buffer.room(), RecvFlags::DONTWAIT).map(|(_, bytes)| bytes);
        if result == Err(Errno::AGAIN) {
            self.inputs[at] = Some(buffer);
            return;
        }
        buffer.fill(result.unwrap_or(0));
        self.events.push(SocketEvent::Read { slot, buffer, result });
    }

    fn listen_for(&mut self, slot: u32, flags: EventFlags) {
        let Some(socket) = &self.sockets[slot as usize] else { return };
        let changed = epoll::modify(&self.epoll, socket, EventData::new_u64(slot.into()), flags);
        self.note(changed);
    }

    fn note(&mut self, outcome: Result<(), Errno>) {
        if let Err(error) = outcome {
            self.failure = Some(error.into());
        }
    }
}

impl Sockets for EpollSockets {
    #[inline]
    fn send<'a>(&mut self, sends: impl Iterator<Item = (u32, &'a [u8])>) {
        for (slot, bytes) in sends {
            let Some(socket) = &self.sockets[slot as usize] else { continue };
            let result = rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            if result != Ok(bytes.len()) {
                self.events.push(SocketEvent::ShortSend { slot, result });
            }
        }
    }

    #[inline]
    fn send_and_wait<'a>(&mut self, sends: impl Iterator<Item = (u32, &'a [u8])>) {
        self.send(sends);
        while self.events.is_empty() && self.failure.is_none() {
            let mut ready = std::mem::take(&mut self.ready);
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => self.failure = Some(error.into()),
            }
            for event in ready.drain(..) {
                // The event is a packed struct: its fields are copied out.
                let (data, flags) = (event.data, event.flags);
                match data.u64() {
                    LISTENER => self.accept_all(),
                    STOP => self.events.push(SocketEvent::Stop),
                    slot => self.ready(slot as u32, flags),
                }
            }
            self.ready = ready;
        }
    }

    fn take_events(&mut self, out: &mut Vec<SocketEvent>) -> io::Result<()> {
        out.append(&mut self.events);
        self.failure.take().map_or(Ok(()), Err)
    }

    fn events(&mut self) -> &mut Vec<SocketEvent> {
        &mut self.events
    }

    fn read(&mut self, slot: u32, input: ReadBuffer) {
        self.inputs[slot as usize] = Some(input);
    }

    fn stop_reading(&mut self, slot: u32) {
        self.listen_for(slot, EventFlags::ONESHOT);
    }

    fn notify_writable(&mut self, slot: u32) {
        self.listen_for(slot, EventFlags::OUT | EventFlags::ONESHOT);
    }

    fn close(&mut self, slot: u32) {
        self.sockets[slot as usize] = None;
        self.inputs[slot as usize] = None;
        self.free.push(slot);
    }
}
