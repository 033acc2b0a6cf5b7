//! The run's own publisher: defines instruments, then publishes on a fixed [`PublishSchedule`] from a thread of its
//! own.
//!
//! Record `n` is of instrument `n % M`, has the sequence `n / M + 1`, and carries in `ts_event` the time at which it
//! was due. A tickcast server sets the sequence anew; for a server that passes messages on, it is the sequence that
//! clients check. What always holds: the thread never blocks in a write, so that it knows how long the server's
//! backpressure blocked it.

use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use thread_priority::{RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};

use super::schedule::{Lateness, Pacer, PublishSchedule};
use crate::load::cores;
use crate::load::error::LoadError;
use crate::load::latency::now_ns;
use crate::load::worker::messages::PublishedCount;
use crate::load::worker::send::would_block;
use tickcast_client::{CONNECT_TIMEOUT, CloseReason, DefineInstrument, Error, PublishPacket, Publisher, Stream};
use tickcast_protocol::record::{self, Quote, RecordHeader, Ticker, Trade};
use tickcast_protocol::ws::{
    CloseCode, Opcode, Session, SessionEvent, SessionLimits, push_masked_close, push_masked_frame,
};
use tickcast_protocol::{Channel, Side};

/// Records of one write: about 100 KB, a fraction of a socket buffer.
const WRITE_RECORDS_MAX: u64 = 1024;
/// How soon the thread notices that it is to stop.
const WAIT_MAX_NS: u64 = 20_000_000;
/// Between the start of the thread and the first record.
const HEAD_START_NS: u64 = 5_000_000;
/// One read of the socket: what a connection over TLS needs.
const READ_BYTES: usize = 64 * 1024;
/// More than a server ever sends a publisher.
const LIMITS: SessionLimits = SessionLimits { message_bytes_max: 1 << 20 };

/// What is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    pub channel: Channel,
    /// Records a second in all.
    pub rate: u64,
    /// Records that are due at once.
    pub burst: u64,
    /// Payload bytes of a raw record.
    pub size: usize,
    pub records_per_packet: u64,
    pub instruments: u32,
    /// The server is of another kind: nothing is defined.
    pub is_plain: bool,
}

impl Publication {
    /// The names of the instruments, in their order.
    pub fn symbols(&self) -> Vec<String> {
        (0..self.instruments).map(Self::symbol).collect()
    }

    /// The name of the `nth` instrument of every publication.
    pub fn symbol(nth: u32) -> String {
        format!("LOAD-{nth:05}")
    }
}

/// A publisher that is connected and has defined its instruments.
#[derive(Debug)]
pub struct LoadPublisher {
    publication: Publication,
    stream: Stream,
    session: Session,
    /// Bytes of the server that are not parsed yet.
    unread: Vec<u8>,
    ids: Vec<u32>,
}

/// A publisher whose thread runs.
#[derive(Debug)]
pub struct RunningPublisher {
    control: Arc<PublisherControl>,
    thread: JoinHandle<Result<PublisherResult, String>>,
    instruments: u32,
}

/// Relaxed throughout: flags that carry no other data.
#[derive(Debug, Default)]
struct PublisherControl {
    is_measuring: AtomicBool,
    stop: AtomicBool,
}

/// What a publisher has done: in the measured time, unless a field says otherwise.
#[derive(Clone, Debug)]
pub struct PublisherResult {
    /// In the whole run.
    pub published: PublishedCount,
    pub schedule: PublishSchedule,
    pub records: u64,
    pub seconds: f64,
    /// How late the records were sent.
    pub lateness: Lateness,
    /// How long the server's backpressure blocked it.
    pub blocked: Duration,
    /// In the whole run.
    pub cpu_seconds: f64,
}

impl LoadPublisher {
    /// Connects, and defines the instruments unless the publication is a plain one.
    pub fn connect(
        url: &str,
        token: Option<&str>,
        ca: Option<&Path>,
        publication: Publication,
    ) -> Result<Self, LoadError> {
        let mut publisher = Publisher::connect_with(url, token, ca).map_err(publish_error)?;
        let ids = if publication.is_plain {
            (1..=publication.instruments).collect()
        } else {
            let symbols = publication.symbols();
            let instruments: Vec<_> =
                symbols.iter().map(|symbol| DefineInstrument::new(symbol, "load", -2, -3)).collect();
            publisher.define(&instruments).map_err(publish_error)?
        };
        let (stream, session, unread) = publisher.into_parts();
        stream.socket().set_nonblocking(true).map_err(|error| LoadError::System { what: "O_NONBLOCK", error })?;
        Ok(Self { publication, stream, session, unread, ids })
    }

    /// Begins to publish, on a thread of its own, on these cores where some are given.
    pub fn start(self, cores: Option<Vec<usize>>) -> Result<RunningPublisher, LoadError> {
        let control = Arc::new(PublisherControl::default());
        let (instruments, observed) = (self.publication.instruments, Arc::clone(&control));
        let thread = std::thread::Builder::new().name("publisher".to_owned()).spawn(move || {
            prefer_this_thread();
            if let Some(cores) = cores {
                cores::stay_on(None, &cores).map_err(|error| error.to_string())?;
            }
            PublishLoop::new(self, observed).run()
        });
        let thread = thread.map_err(|error| LoadError::System { what: "publisher's thread", error })?;
        Ok(RunningPublisher { control, thread, instruments })
    }
}

impl RunningPublisher {
    /// Begins the measured time.
    pub fn measure(&self) {
        self.control.is_measuring.store(true, Ordering::Relaxed);
    }

    /// True where it has ended by itself: [`Self::stop`] then returns its error.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends it.
    pub fn stop(self) -> Result<PublisherResult, LoadError> {
        self.control.stop.store(true, Ordering::Relaxed);
        let result = self.thread.join().expect("a publisher that panicked is a bug").map_err(LoadError::Publish)?;
        let published = PublishedCount { instruments: self.instruments.into(), ..result.published };
        Ok(PublisherResult { published, ..result })
    }
}

/// A late publisher spoils a measurement before anything else does. Its thread runs before the readers: by the
/// real-time scheduler where that is permitted (it sleeps nearly always), otherwise by a better nice value.
fn prefer_this_thread() {
    const NICE: i32 = -10;
    const SLACK_NS: u64 = 1;
    let realtime = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let own = thread_priority::thread_native_id();
    if thread_priority::set_thread_priority_and_policy(own, ThreadPriority::Min, realtime).is_err() {
        let _ = rustix::process::setpriority_process(None, NICE);
    }
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(SLACK_NS));
}

/// The server's own words, where there are some.
fn publish_error(error: Error) -> LoadError {
    match error {
        Error::Refused(refusal) => LoadError::Publish(refusal.to_string()),
        Error::Closed(_) | Error::Rejected { .. } | Error::Unanswered(_) => LoadError::Publish(error.to_string()),
        error => LoadError::Client(error),
    }
}

/// The publisher's thread.
struct PublishLoop {
    publication: Publication,
    ids: Vec<u32>,
    stream: Stream,
    session: Session,
    unread: Vec<u8>,
    control: Arc<PublisherControl>,
    pacer: Pacer,
    masking_keys: Pcg64Mcg,
    payload: Vec<u8>,
    packet: PublishPacket,
    /// Frames, and how many of their bytes are sent.
    out: Vec<u8>,
    sent: usize,
    blocked: Duration,
    measured_from: Option<MeasureStart>,
}

/// The state when the measured time began.
#[derive(Clone, Copy)]
struct MeasureStart {
    at: Instant,
    next_record: u64,
    blocked: Duration,
}

impl PublishLoop {
    fn new(publisher: LoadPublisher, control: Arc<PublisherControl>) -> Self {
        let LoadPublisher { publication, stream, session, unread, ids } = publisher;
        // All records of a packet are due at once.
        let burst = publication.burst.next_multiple_of(publication.records_per_packet);
        let schedule = PublishSchedule::new(now_ns() + HEAD_START_NS, publication.rate, burst);
        Self {
            payload: (0..publication.size).map(|at| at as u8).collect(),
            ids,
            stream,
            session,
            unread,
            control,
            pacer: Pacer::new(schedule),
            masking_keys: Pcg64Mcg::seed_from_u64(1),
            packet: PublishPacket::new(),
            out: Vec::new(),
            sent: 0,
            blocked: Duration::ZERO,
            measured_from: None,
            publication,
        }
    }

    fn run(mut self) -> Result<PublisherResult, String> {
        let mut unread = std::mem::take(&mut self.unread);
        self.on_bytes(&mut unread)?;
        while !self.control.stop.load(Ordering::Relaxed) {
            if self.measured_from.is_none() && self.control.is_measuring.load(Ordering::Relaxed) {
                self.measured_from = Some(self.measure_start());
                self.pacer.take_lateness();
            }
            if self.sent == self.out.len() {
                self.encode_due();
            }
            self.write()?;
            self.wait()?;
        }
        self.finish()
    }

    fn measure_start(&self) -> MeasureStart {
        MeasureStart { at: Instant::now(), next_record: self.pacer.taken(), blocked: self.blocked }
    }

    /// Encodes the records that are due now.
    fn encode_due(&mut self) {
        self.out.clear();
        self.sent = 0;
        let each = self.publication.records_per_packet;
        let max = WRITE_RECORDS_MAX.next_multiple_of(each);
        let mut due = self.pacer.take_due(now_ns(), max);
        while !due.is_empty() {
            let end = (due.start + each).min(due.end);
            self.encode_packet(due.start..end);
            due.start = end;
        }
    }

    fn encode_packet(&mut self, records: std::ops::Range<u64>) {
        self.packet.clear();
        for n in records {
            self.encode_record(n);
        }
        let key = self.masking_keys.next_u32().to_le_bytes();
        push_masked_frame(Opcode::Binary, self.packet.bytes(), key, &mut self.out);
    }

    fn encode_record(&mut self, n: u64) {
        let instruments = self.ids.len() as u64;
        let channel = self.publication.channel;
        let due_ns = self.pacer.schedule().due_ns(n);
        let mut header = RecordHeader::of_feed(channel.kind(), self.ids[(n % instruments) as usize], due_ns);
        header.sequence = (n / instruments + 1).into();
        let (px, payload) = (100_000 + (n % 1000) as i64, &self.payload);
        self.packet.push(|out| match channel {
            Channel::Quote => Quote { bid_px: px, bid_sz: 5, ask_px: px + 1, ask_sz: 7 }.encode(&header, out),
            Channel::Trade => Trade { px, sz: 3, trade_id: n + 1, side: Side::Buy }.encode(&header, out),
            Channel::Ticker => ticker(px).encode(&header, out),
            Channel::Raw => record::encode_raw(&header, payload, out),
            Channel::Book => unreachable!("the arguments refuse books"),
        });
    }

    /// Sends as much as the socket takes.
    fn write(&mut self) -> Result<(), String> {
        while self.has_unsent() {
            let rest = &self.out[self.sent..];
            let written = if rest.is_empty() { self.stream.flush().map(|()| 0) } else { self.stream.write(rest) };
            match written {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if would_block(&error) => break,
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    fn has_unsent(&self) -> bool {
        self.sent < self.out.len() || self.stream.has_unsent()
    }

    /// Waits until the next record is due, or for the socket where it is full; reads what the server sends.
    fn wait(&mut self) -> Result<(), String> {
        let is_blocked = self.has_unsent();
        let until_due = self.pacer.next_due_ns().saturating_sub(now_ns());
        let wait_ns = if is_blocked { WAIT_MAX_NS } else { until_due.min(WAIT_MAX_NS) };
        let interest = if is_blocked { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let begun = Instant::now();
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait_ns as i64 };
        let mut polled = [PollFd::new(self.stream.socket(), interest)];
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.to_string()),
        }
        let is_readable = polled[0].revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
        if is_blocked {
            self.blocked += begun.elapsed();
            self.pacer.set_blocked_until(now_ns());
        }
        if is_readable { self.read() } else { Ok(()) }
    }

    fn read(&mut self) -> Result<(), String> {
        let mut buffer = vec![0; READ_BYTES];
        let read = match self.stream.read(&mut buffer) {
            Ok(0) => return Err(Error::Dropped.to_string()),
            Ok(read) => read,
            Err(error) if would_block(&error) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        self.on_bytes(&mut buffer[..read])
    }

    /// Answers pings, and ends where the server closes.
    fn on_bytes(&mut self, input: &mut [u8]) -> Result<(), String> {
        let mut consumed = 0;
        loop {
            match self.session.next(&LIMITS, input, &mut consumed) {
                Ok(None) => return Ok(()),
                Ok(Some(SessionEvent::Ping(payload))) => {
                    // Behind the encoded frames, none of which may be torn.
                    let key = self.masking_keys.next_u32().to_le_bytes();
                    push_masked_frame(Opcode::Pong, payload, key, &mut self.out);
                }
                Ok(Some(SessionEvent::Close(frame))) => {
                    return Err(Error::Closed(CloseReason::from(frame)).to_string());
                }
                Ok(Some(_)) => {}
                Err(violation) => return Err(violation.to_string()),
            }
        }
    }

    /// Sends the rest of the encoded frames, so that no record is cut, and closes.
    fn finish(mut self) -> Result<PublisherResult, String> {
        let start = self.measured_from.unwrap_or_else(|| self.measure_start());
        let seconds = start.at.elapsed().as_secs_f64();
        let records = self.pacer.taken() - start.next_record;
        let blocked = self.blocked.saturating_sub(start.blocked);
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        while self.has_unsent() && Instant::now() < deadline {
            self.write()?;
            self.wait()?;
        }
        let mut frame = Vec::new();
        push_masked_close(CloseCode::NORMAL, "", self.masking_keys.next_u32().to_le_bytes(), &mut frame);
        // Where it fails, the server sees the end of the stream.
        let _ = self.stream.write_all(&frame);
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Ok(PublisherResult {
            published: PublishedCount { records: self.pacer.taken(), instruments: 0 },
            schedule: *self.pacer.schedule(),
            records,
            seconds,
            lateness: self.pacer.take_lateness(),
            blocked,
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
        })
    }
}

fn ticker(px: i64) -> Ticker {
    Ticker { last_px: px, open_px: px, high_px: px, low_px: px, volume: 9, turnover: 9, bid_px: px, ask_px: px + 1 }
}
