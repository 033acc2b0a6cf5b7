//! One thread of a load run: connects its share of the clients, reads them all, and counts.
//!
//! A plain readiness loop (epoll, level-triggered): wait, wake each connection that has something, look at the stage
//! that the run is in. What always holds: at most [`PENDING_MAX`] connections are on their way at a time, so that the
//! server's listen queue is not what is measured; counters are taken at the edges of the measured time.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Uri;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::client::ClientError;
use super::decode::{Counters, Violation};
use super::meter::Meter;
use super::peer::{Desk, End, Peer, Plan, Woken};
use super::report::Window;
use super::target::CONNECT_TIMEOUT;

/// Connections of a thread that are not upgraded yet.
const PENDING_MAX: usize = 64;
/// One read of a socket: above what a loopback socket buffer mostly holds.
const BUFFER_BYTES: usize = 256 * 1024;
/// Events of one wait.
const EVENTS_MAX: usize = 1024;
/// How often a worker looks at the stage when nothing happens.
const WAIT_MAX: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// How often connections on their way are held against their deadline.
const EXPIRY_EVERY: Duration = Duration::from_millis(250);

/// Where the run is; the worker follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
pub enum Stage {
    /// Connecting, then warming up.
    Before = 0,
    Measuring = 1,
    Done = 2,
}

/// What the run and its workers tell each other. All of it is Relaxed: numbers for people and a stage that is
/// looked at again and again; what is counted travels with the thread's end.
#[derive(Debug, Default)]
pub struct Shared {
    stage: AtomicU8,
    /// Upgraded so far.
    pub connected: AtomicU64,
    /// Upgraded or refused so far.
    pub settled: AtomicU64,
    /// Records received so far.
    pub records: AtomicU64,
}

impl Shared {
    /// Tells all workers.
    pub fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Before,
            1 => Stage::Measuring,
            _ => Stage::Done,
        }
    }
}

/// What a worker has found by its end.
#[derive(Debug, Default)]
pub struct Tally {
    pub connected: u64,
    pub connect_seconds: f64,
    pub refused: BTreeMap<String, u64>,
    pub rejected: BTreeMap<String, u64>,
    pub closes: BTreeMap<String, u64>,
    pub malformed: BTreeMap<String, u64>,
    pub violations: u64,
    pub first_violation: Option<Violation>,
    pub window: Window,
}

/// One thread's clients.
#[derive(Debug)]
pub struct Worker {
    address: SocketAddr,
    uri: Uri,
    plans: std::vec::IntoIter<Plan>,
    peers: Vec<Peer>,
    pending: usize,
    epoll: OwnedFd,
    shared: Arc<Shared>,
    desk: Desk,
    tally: Tally,
    /// Counters of connections that have ended.
    ended: Counters,
    begun: Instant,
    expiry_checked: Instant,
    window_start: Option<Edge>,
}

/// Everything that is counted, at one moment.
#[derive(Debug)]
struct Edge {
    at: Instant,
    bytes: u64,
    counters: Counters,
    cpu_seconds: f64,
    starved_seconds: f64,
}

impl Worker {
    /// A worker for these clients; it begins with [`Self::run`], on its own thread.
    pub fn new(address: SocketAddr, uri: Uri, plans: Vec<Plan>, shared: Arc<Shared>) -> io::Result<Self> {
        let desk = Desk {
            buffer: vec![0; BUFFER_BYTES],
            bytes: 0,
            records: 0,
            meter: Meter::default(),
            measuring: false,
            rejected: Vec::new(),
        };
        Ok(Self {
            address,
            uri,
            peers: Vec::with_capacity(plans.len()),
            plans: plans.into_iter(),
            pending: 0,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            shared,
            desk,
            tally: Tally::default(),
            ended: Counters::default(),
            begun: Instant::now(),
            expiry_checked: Instant::now(),
            window_start: None,
        })
    }

    /// Runs until the stage is [`Stage::Done`].
    pub fn run(mut self) -> io::Result<Tally> {
        self.begun = Instant::now();
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            match self.shared.stage() {
                Stage::Before => {}
                Stage::Measuring if self.window_start.is_none() => self.open_window(),
                Stage::Measuring => {}
                Stage::Done => break,
            }
            self.connect_more()?;
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&WAIT_MAX)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                self.wake(event.data.u64() as usize)?;
            }
            self.expire();
            self.shared.records.fetch_add(std::mem::take(&mut self.desk.records), Ordering::Relaxed);
        }
        self.close_window();
        Ok(self.finish())
    }

    fn connect_more(&mut self) -> io::Result<()> {
        while self.pending < PENDING_MAX {
            let Some(plan) = self.plans.next() else { return Ok(()) };
            match Peer::begin(plan, self.address) {
                Ok(peer) => {
                    let stream = peer.stream().expect("a new peer has a socket");
                    let key = epoll::EventData::new_u64(self.peers.len() as u64);
                    epoll::add(&self.epoll, stream, key, epoll::EventFlags::OUT)?;
                    self.peers.push(peer);
                    self.pending += 1;
                }
                Err(error) => self.refuse(error.to_string()),
            }
        }
        Ok(())
    }

    fn wake(&mut self, index: usize) -> io::Result<()> {
        let was_pending = self.peers[index].is_pending();
        let woken = self.peers[index].wake(&self.uri, &mut self.desk);
        let key = epoll::EventData::new_u64(index as u64);
        match woken {
            Woken::Same => {}
            Woken::Asked => self.listen_for(index, key, epoll::EventFlags::IN)?,
            Woken::Connected(end) => {
                self.connected();
                if let Some(end) = end {
                    self.note_end(index, end, false);
                } else if self.peers[index].plan.stalled {
                    // Errors and the end of both directions are told without being asked for.
                    self.listen_for(index, key, epoll::EventFlags::empty())?;
                }
            }
            Woken::Ended(end) => self.note_end(index, end, was_pending),
        }
        for message in self.desk.rejected.drain(..) {
            *self.tally.rejected.entry(message).or_default() += 1;
        }
        Ok(())
    }

    fn listen_for(&self, index: usize, key: epoll::EventData, flags: epoll::EventFlags) -> io::Result<()> {
        match self.peers[index].stream() {
            Some(stream) => Ok(epoll::modify(&self.epoll, stream, key, flags)?),
            None => Ok(()),
        }
    }

    fn connected(&mut self) {
        self.pending -= 1;
        self.tally.connected += 1;
        self.tally.connect_seconds = self.begun.elapsed().as_secs_f64();
        self.shared.connected.fetch_add(1, Ordering::Relaxed);
        self.shared.settled.fetch_add(1, Ordering::Relaxed);
    }

    fn refuse(&mut self, why: String) {
        *self.tally.refused.entry(why).or_default() += 1;
        self.shared.settled.fetch_add(1, Ordering::Relaxed);
    }

    fn note_end(&mut self, index: usize, end: End, was_pending: bool) {
        self.pending -= usize::from(was_pending);
        match end {
            End::Refused(why) => self.refuse(why),
            End::Closed(how) => *self.tally.closes.entry(how).or_default() += 1,
            End::Malformed(what) => *self.tally.malformed.entry(what).or_default() += 1,
        }
        self.retire(index);
    }

    /// Keeps what a connection has counted, and frees what it knew.
    fn retire(&mut self, index: usize) {
        let decoder = std::mem::replace(&mut self.peers[index].decoder, super::Decoder::without_names());
        self.ended.add(decoder.counters());
        self.tally.violations += decoder.counters().violations;
        self.tally.first_violation = self.tally.first_violation.or(decoder.first_violation());
    }

    fn expire(&mut self) {
        if self.pending == 0 || self.expiry_checked.elapsed() < EXPIRY_EVERY {
            return;
        }
        self.expiry_checked = Instant::now();
        for index in 0..self.peers.len() {
            if self.peers[index].is_pending() && self.peers[index].begun.elapsed() > CONNECT_TIMEOUT {
                let end = self.peers[index].give_up(&ClientError::Silent("upgrade request"));
                self.note_end(index, end, true);
            }
        }
    }

    fn open_window(&mut self) {
        self.desk.meter.clear();
        self.desk.measuring = true;
        self.window_start = Some(self.edge());
    }

    fn close_window(&mut self) {
        self.desk.measuring = false;
        if let Some(start) = self.window_start.take() {
            let end = self.edge();
            self.tally.window = Window {
                seconds: end.at.duration_since(start.at).as_secs_f64(),
                bytes: end.bytes - start.bytes,
                counters: end.counters.since(&start.counters),
                meter: std::mem::take(&mut self.desk.meter),
                cpu_seconds: end.cpu_seconds - start.cpu_seconds,
                starved_seconds: end.starved_seconds - start.starved_seconds,
            };
        }
    }

    fn edge(&self) -> Edge {
        let mut counters = self.ended;
        for peer in &self.peers {
            counters.add(peer.decoder.counters());
        }
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        Edge {
            at: Instant::now(),
            bytes: self.desk.bytes,
            counters,
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            starved_seconds: starved_seconds(),
        }
    }

    /// Looks for close frames that stalled clients have not read, and says goodbye to everybody.
    fn finish(mut self) -> Tally {
        for index in 0..self.peers.len() {
            let stalled = self.peers[index].plan.stalled;
            match stalled.then(|| self.peers[index].look_through(&mut self.desk)).flatten() {
                Some(end) => self.note_end(index, end, false),
                None => {
                    self.retire(index);
                    self.peers[index].leave();
                }
            }
        }
        self.tally
    }
}

/// How long this thread was ready to run and had no core, since its start: the second number of `schedstat`, ns.
fn starved_seconds() -> f64 {
    let line = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let waited_ns: u64 = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    waited_ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use tungstenite::protocol::Message;

    use super::*;
    use crate::load::fake::{self, PacketBuilder};
    use crate::load::target::Target;
    use crate::market::Channel;

    /// Runs a worker with `count` clients until `until` has heard from the server's end of each.
    fn run(address: SocketAddr, count: usize, stalled: bool, until: &Receiver<()>) -> (Tally, Arc<Shared>) {
        let shared = Arc::new(Shared::default());
        shared.set_stage(Stage::Measuring);
        let target = Target::parse(&address.to_string()).expect("an address is a good URL");
        let plans = vec![Plan { request: r#"{"op":"subscribe","id":1}"#.into(), stalled, source: None }; count];
        let worker = Worker::new(address, target.uri, plans, Arc::clone(&shared)).expect("epoll is there");
        let thread = std::thread::spawn(move || worker.run());
        for _ in 0..count {
            until.recv().expect("the server tells when it is done");
        }
        shared.set_stage(Stage::Done);
        (thread.join().expect("the worker ends").expect("no system error"), shared)
    }

    /// A server that sends these packets to each client, closes with 4002, and tells when the client has gone.
    fn server(packets: Vec<PacketBuilder>) -> (SocketAddr, Receiver<()>) {
        let (told, heard) = channel();
        let address = fake::serve("", move |mut peer| {
            fake::accept_subscription(&mut peer, &[]);
            for packet in &packets {
                peer.send(packet.message()).expect("the client reads");
            }
            let frame = tungstenite::protocol::CloseFrame { code: 4002.into(), reason: "enough".into() };
            // A client that found something malformed has gone by now.
            let _ = peer.close(Some(frame));
            fake::wait_for_end(&mut peer);
            told.send(()).expect("the test waits");
        });
        (address, heard)
    }

    fn start() -> PacketBuilder {
        PacketBuilder::new().definition(1, "BTC-USD")
    }

    #[test]
    fn every_client_reads_all_records_and_closes_are_counted_by_code() {
        let gap = PacketBuilder::new().gap(Channel::Trade, 4, 9).trade(10, 0);
        let (address, heard) = server(vec![start().quote(1, 0).trade(3, 0), gap]);
        // More than may be on their way at once.
        let (tally, shared) = run(address, PENDING_MAX + 6, false, &heard);
        let clients = PENDING_MAX as u64 + 6;
        assert_eq!((tally.connected, tally.refused.len()), (clients, 0));
        assert_eq!(shared.settled.load(Ordering::Relaxed), clients);
        assert_eq!((tally.violations, tally.first_violation), (0, None));
        assert_eq!(tally.closes, BTreeMap::from([("4002 (slow consumer)".to_owned(), clients)]));
        let counters = tally.window.counters;
        assert_eq!((counters.records, counters.packets, counters.gaps), (3 * clients, 2 * clients, clients));
        assert!(tally.window.bytes > clients * 300, "{}", tally.window.bytes);
        assert!(tally.window.meter.recv().max_ns > 0);
    }

    #[test]
    fn a_planted_jump_is_found_on_every_connection() {
        let (address, heard) = server(vec![start().trade(3, 0), PacketBuilder::new().trade(5, 0)]);
        let (tally, _) = run(address, 3, false, &heard);
        assert_eq!(tally.violations, 3);
        let jump = Violation::Jump { instrument: 1, channel: Channel::Trade, last: 3, got: 5 };
        assert_eq!(tally.first_violation, Some(jump));
    }

    #[test]
    fn a_malformed_packet_ends_the_connection_and_is_told() {
        let (told, heard) = channel();
        let address = fake::serve("", move |mut peer| {
            fake::accept_subscription(&mut peer, &[]);
            peer.send(Message::binary(vec![9; 24])).expect("the client reads");
            fake::wait_for_end(&mut peer);
            told.send(()).expect("the test waits");
        });
        let (tally, _) = run(address, 1, false, &heard);
        assert_eq!(tally.malformed.len(), 1);
        assert!(tally.malformed.keys().all(|what| what.contains("version 9")), "{:?}", tally.malformed);
    }

    #[test]
    fn subscriptions_that_the_server_rejects_are_counted_by_message() {
        let (told, heard) = channel();
        let address = fake::serve("", move |mut peer| {
            fake::subscribe_request(&mut peer);
            let error = r#"{"type":"error","id":1,"code":"bad_request","message":"symbols: too many"}"#;
            peer.send(Message::text(error)).expect("the client reads");
            peer.close(None).expect("the client reads");
            fake::wait_for_end(&mut peer);
            told.send(()).expect("the test waits");
        });
        let (tally, _) = run(address, 2, false, &heard);
        assert_eq!(tally.rejected, BTreeMap::from([("bad_request: symbols: too many".to_owned(), 2)]));
        assert_eq!(tally.closes, BTreeMap::from([("1005 (no code given)".to_owned(), 2)]));
    }

    #[test]
    fn a_stalled_client_reads_nothing_until_the_run_is_over() {
        let (told, heard) = channel();
        let address = fake::serve("", move |mut peer| {
            fake::subscribe_request(&mut peer);
            peer.send(start().quote(1, 0).message()).expect("the socket has room");
            let frame = tungstenite::protocol::CloseFrame { code: 4002.into(), reason: "enough".into() };
            peer.close(Some(frame)).expect("the socket has room");
            told.send(()).expect("the test waits");
            fake::wait_for_end(&mut peer);
        });
        let (tally, shared) = run(address, 2, true, &heard);
        assert_eq!((tally.connected, shared.records.load(Ordering::Relaxed)), (2, 0));
        assert_eq!(tally.closes, BTreeMap::from([("4002 (slow consumer)".to_owned(), 2)]));
    }

    #[test]
    fn refusals_are_counted_by_what_the_server_said() {
        let answer = concat!(
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 42\r\n\r\n",
            r#"{"error":{"code":"full","message":"full"}}"#
        );
        let address = fake::refuse(answer);
        let target = Target::parse(&address.to_string()).expect("an address is a good URL");
        let shared = Arc::new(Shared::default());
        let plans = vec![Plan { request: "".into(), stalled: false, source: None }; 3];
        let worker = Worker::new(address, target.uri, plans, Arc::clone(&shared)).expect("epoll is there");
        let thread = std::thread::spawn(move || worker.run());
        while shared.settled.load(Ordering::Relaxed) < 3 {
            std::thread::yield_now();
        }
        shared.set_stage(Stage::Done);
        let tally = thread.join().expect("the worker ends").expect("no system error");
        assert_eq!(tally.connected, 0);
        assert_eq!(tally.refused, BTreeMap::from([("503 Service Unavailable: full".to_owned(), 3)]));
    }
}
