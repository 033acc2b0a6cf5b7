//! The run's own publisher: defines instruments, then publishes on a fixed [`PublishSchedule`] from a thread of its own.
//!
//! Record `n` is of instrument `n % M` and carries sequence `n / M + 1` and, in `ts_event`, when it was due. A server of
//! tickcast's own sets the sequence anew; one that passes messages on as they are is checked by ours. What always holds:
//! the thread never blocks in a write, so that it knows how long the server had no room for more.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use thread_priority::{RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};

use crate::load::error::LoadError;
use crate::load::latency::now_ns;
use crate::load::run::schedule::{Lateness, Pacer, PublishSchedule};
use crate::load::worker::messages::PublishedCount;
use crate::load::worker::send;
use tickcast_client::error::close_text;
use tickcast_client::handshake::{Upgrade, Upgraded, is_later};
use tickcast_client::{CONNECT_TIMEOUT, Error, Target};
use tickcast_protocol::packet::PacketHeader;
use tickcast_protocol::record::{self, Quote, RecordHeader, Ticker, Trade};
use tickcast_protocol::ws::{
    CloseCode, CloseFrame, Opcode, Role, Session, SessionEvent, SessionLimits, push_close, push_masked_frame,
};
use tickcast_protocol::{Channel, Side};

/// Instruments of one define request: the server's limit.
const DEFINE_MAX: usize = 10_000;
/// One read of the server's answers.
const ANSWER_BYTES: usize = 64 * 1024;
/// Records of one write: some 100 KB, a fraction of a socket buffer.
const WRITE_RECORDS_MAX: u64 = 1024;
/// How soon the thread looks whether it shall stop.
const WAIT_MAX_NS: u64 = 20_000_000;
/// Between the word to begin and the first record.
const HEAD_START_NS: u64 = 5_000_000;
/// The server may say something to a publisher; never this much at once.
const LIMITS: SessionLimits = SessionLimits { message_bytes_max: 1 << 20 };

/// What shall be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    pub channel: Channel,
    /// Records a second in all.
    pub rate: u64,
    /// Records at once.
    pub burst: u64,
    /// Payload bytes of a raw record.
    pub size: usize,
    pub records_per_packet: u64,
    pub instruments: u32,
    /// The server is of another kind: nothing is defined.
    pub plain: bool,
}

impl Publication {
    /// The names of the instruments, in their order.
    pub fn symbols(&self) -> Vec<String> {
        (0..self.instruments).map(|nth| format!("LOAD-{nth:05}")).collect()
    }
}

/// A publisher that is connected and has defined its instruments.
#[derive(Debug)]
pub struct LoadPublisher {
    publication: Publication,
    stream: TcpStream,
    session: Session,
    /// What the server has said and was not looked at yet.
    early: Vec<u8>,
    ids: Vec<u32>,
}

/// A publisher at work.
#[derive(Debug)]
pub struct RunningPublisher {
    told: Arc<PublisherControl>,
    thread: JoinHandle<Result<PublisherResult, String>>,
    instruments: u32,
}

#[derive(Debug, Default)]
struct PublisherControl {
    measuring: AtomicBool,
    stop: AtomicBool,
}

/// What a publisher has to tell of the measured time, and of all.
#[derive(Clone, Debug, Default)]
pub struct PublisherResult {
    pub published: PublishedCount,
    /// Records and seconds of the measured time.
    pub records: u64,
    pub seconds: f64,
    /// How late they were.
    pub lateness: Lateness,
    /// How long the server had no room for more.
    pub held: Duration,
    pub cpu_seconds: f64,
}

impl LoadPublisher {
    /// Connects, and defines the instruments where the server is one that wants it.
    pub fn connect(target: &Target, publication: Publication) -> Result<Self, LoadError> {
        let system = |what| move |error| LoadError::System { what, error };
        let stream = target.connect()?;
        stream.set_nodelay(true).map_err(system("TCP_NODELAY"))?;
        stream.set_read_timeout(Some(CONNECT_TIMEOUT)).map_err(system("read timeout"))?;
        let mut upgrade = Box::new(Upgrade::ask(stream, &target.uri, None)?);
        let (mut buffer, begun) = (vec![0; 4096], Instant::now());
        let (socket, early) = loop {
            match upgrade.advance(&mut buffer, &mut 0) {
                Upgraded::Open(opened) => break (opened.socket, opened.rest),
                Upgraded::Refused(error) => return Err(LoadError::Publish(error.answer())),
                Upgraded::NotYet(again) if begun.elapsed() < CONNECT_TIMEOUT => upgrade = again,
                Upgraded::NotYet(_) => return Err(Error::Silent("publisher's upgrade request").into()),
            }
        };
        let stream = (*socket).into_inner().into_stream();
        let mut publisher = Self { publication, stream, session: Session::new(Role::Client), early, ids: Vec::new() };
        publisher.define()?;
        publisher.stream.set_nonblocking(true).map_err(system("O_NONBLOCK"))?;
        Ok(publisher)
    }

    /// Learns the ids of the instruments.
    fn define(&mut self) -> Result<(), LoadError> {
        #[derive(serde::Deserialize)]
        struct Defined {
            instruments: Vec<Entry>,
        }
        #[derive(serde::Deserialize)]
        struct Entry {
            instrument: u32,
        }
        if self.publication.plain {
            self.ids = (1..=self.publication.instruments).collect();
            return Ok(());
        }
        for symbols in self.publication.symbols().chunks(DEFINE_MAX) {
            let list: Vec<_> = symbols
                .iter()
                .map(|symbol| serde_json::json!({"symbol": symbol, "venue": "load", "px_exp": -2, "sz_exp": -3}))
                .collect();
            let request = serde_json::json!({"op": "define", "id": 1, "instruments": list}).to_string();
            let failed = |error: std::io::Error| LoadError::Publish(error.to_string());
            send::frame(&self.stream, Opcode::Text, request.as_bytes(), 0x5eed).map_err(failed)?;
            let answer = self.answer()?;
            let defined: Defined = serde_json::from_str(&answer).map_err(|_| LoadError::Publish(answer))?;
            self.ids.extend(defined.instruments.iter().map(|entry| entry.instrument));
        }
        Ok(())
    }

    /// The server's next text; what comes behind it is kept.
    fn answer(&mut self) -> Result<String, LoadError> {
        loop {
            let mut consumed = 0;
            while let Some(event) = self
                .session
                .next(&LIMITS, &mut self.early, &mut consumed)
                .map_err(|violation| LoadError::Publish(violation.to_string()))?
            {
                match event {
                    SessionEvent::Text(text) => {
                        let text = String::from_utf8_lossy(text).into_owned();
                        self.early.drain(..consumed);
                        return Ok(text);
                    }
                    SessionEvent::Close(frame) => return Err(LoadError::Publish(close_reason(frame))),
                    _ => {}
                }
            }
            self.early.resize(ANSWER_BYTES, 0);
            let read = match self.stream.read(&mut self.early) {
                Ok(0) => return Err(Error::Dropped.into()),
                Ok(read) => read,
                Err(error) if is_later(&error) => return Err(Error::Silent("publisher's define request").into()),
                Err(error) => return Err(LoadError::Publish(error.to_string())),
            };
            self.early.truncate(read);
        }
    }

    /// Begins to publish, on a thread of its own; on these cores, where some are given.
    pub fn start(self, cores: Option<Vec<usize>>) -> Result<RunningPublisher, LoadError> {
        let told = Arc::new(PublisherControl::default());
        let (instruments, heard) = (self.publication.instruments, Arc::clone(&told));
        let thread = std::thread::Builder::new().name("publisher".to_owned()).spawn(move || {
            prefer_this_thread();
            if let Some(cores) = cores {
                crate::load::cores::stay_on(None, &cores).map_err(|error| error.to_string())?;
            }
            PublishLoop::new(self, heard).run()
        });
        let thread = thread.map_err(|error| LoadError::System { what: "publisher's thread", error })?;
        Ok(RunningPublisher { told, thread, instruments })
    }
}

impl RunningPublisher {
    /// The measured time begins.
    pub fn measure(&self) {
        self.told.measuring.store(true, Ordering::Relaxed);
    }

    /// True where it has ended by itself, which is an error that [`Self::stop`] tells.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends it.
    pub fn stop(self) -> Result<PublisherResult, LoadError> {
        self.told.stop.store(true, Ordering::Relaxed);
        let done = self.thread.join().expect("a publisher that panicked is a bug").map_err(LoadError::Publish)?;
        let published = PublishedCount { instruments: self.instruments.into(), ..done.published };
        Ok(PublisherResult { published, ..done })
    }
}

/// A late publisher is the first thing that spoils a measurement: it goes before the readers, by the real-time scheduler
/// where that is permitted (it sleeps nearly always), else by a better nice value.
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

fn close_reason(frame: Option<CloseFrame<'_>>) -> String {
    let (code, reason) = frame.map_or((1005, ""), |frame| (frame.code.0, frame.reason));
    format!("the server closed it: {}", close_text(code, reason))
}

/// The publisher's thread.
struct PublishLoop {
    publication: Publication,
    ids: Vec<u32>,
    stream: TcpStream,
    session: Session,
    early: Vec<u8>,
    told: Arc<PublisherControl>,
    pacer: Pacer,
    keys: Pcg64Mcg,
    payload: Vec<u8>,
    packet: Vec<u8>,
    /// Frames that are made, and how much of them is sent.
    out: Vec<u8>,
    sent: usize,
    held: Duration,
    /// When the measured time began, and the record that was next.
    measured: Option<(Instant, u64, Duration)>,
}

impl PublishLoop {
    fn new(publisher: LoadPublisher, told: Arc<PublisherControl>) -> Self {
        let LoadPublisher { publication, stream, session, early, ids } = publisher;
        // A packet is of one burst.
        let burst = publication.burst.next_multiple_of(publication.records_per_packet);
        let schedule = PublishSchedule::new(now_ns() + HEAD_START_NS, publication.rate, burst);
        Self {
            payload: (0..publication.size).map(|at| at as u8).collect(),
            ids,
            stream,
            session,
            early,
            told,
            pacer: Pacer::new(schedule),
            keys: Pcg64Mcg::seed_from_u64(1),
            packet: Vec::new(),
            out: Vec::new(),
            sent: 0,
            held: Duration::ZERO,
            measured: None,
            publication,
        }
    }

    fn run(mut self) -> Result<PublisherResult, String> {
        let mut early = std::mem::take(&mut self.early);
        self.heed(&mut early)?;
        // Relaxed: flags that are looked at again and again.
        while !self.told.stop.load(Ordering::Relaxed) {
            if self.measured.is_none() && self.told.measuring.load(Ordering::Relaxed) {
                self.measured = Some((Instant::now(), self.pacer.taken(), self.held));
                self.pacer.lateness();
            }
            if self.sent == self.out.len() {
                self.make_due();
            }
            self.write()?;
            self.wait()?;
        }
        self.finish()
    }

    /// Makes frames of what is due now.
    fn make_due(&mut self) {
        self.out.clear();
        self.sent = 0;
        let each = self.publication.records_per_packet;
        let max = WRITE_RECORDS_MAX.next_multiple_of(each);
        let mut due = self.pacer.take_due(now_ns(), max);
        while !due.is_empty() {
            let end = (due.start + each).min(due.end);
            self.push_packet(due.start..end);
            due.start = end;
        }
    }

    fn push_packet(&mut self, records: std::ops::Range<u64>) {
        let count = (records.end - records.start) as u16;
        let head = PacketHeader { flags: 0, count, epoch: 0, position: records.end.into(), ts_send: 0 };
        self.packet.clear();
        self.packet.extend_from_slice(&head.encode());
        for n in records {
            self.push_record(n);
        }
        push_masked_frame(Opcode::Binary, &self.packet, self.keys.next_u32().to_le_bytes(), &mut self.out);
    }

    fn push_record(&mut self, n: u64) {
        let instruments = self.ids.len() as u64;
        let channel = self.publication.channel;
        let due_ns = self.pacer.schedule().due_ns(n);
        let mut header = RecordHeader::of_feed(channel.kind(), self.ids[(n % instruments) as usize], due_ns);
        header.sequence = (n / instruments + 1).into();
        let (px, out) = (100_000 + (n % 1000) as i64, &mut self.packet);
        match channel {
            Channel::Quote => Quote { bid_px: px, bid_sz: 5, ask_px: px + 1, ask_sz: 7 }.encode(&header, out),
            Channel::Trade => Trade { px, sz: 3, trade_id: n + 1, side: Side::Buy }.encode(&header, out),
            Channel::Ticker => {
                let (bid_px, ask_px) = (px, px + 1);
                let prices = Ticker {
                    last_px: px,
                    open_px: px,
                    high_px: px,
                    low_px: px,
                    volume: 9,
                    turnover: 9,
                    bid_px,
                    ask_px,
                };
                prices.encode(&header, out);
            }
            Channel::Raw => record::encode_raw(&header, &self.payload, out),
            Channel::Book => unreachable!("the arguments offer no books"),
        }
    }

    /// SendMethod what the socket takes.
    fn write(&mut self) -> Result<(), String> {
        while self.sent < self.out.len() {
            match (&self.stream).write(&self.out[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_later(&error) => break,
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    /// Waits for the next record's time, or for room where there was none; hears what the server says.
    fn wait(&mut self) -> Result<(), String> {
        let is_held = self.sent < self.out.len();
        let until_due = self.pacer.next_due_ns().saturating_sub(now_ns());
        let wait_ns = if is_held { WAIT_MAX_NS } else { until_due.min(WAIT_MAX_NS) };
        let interest = if is_held { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let begun = Instant::now();
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait_ns as i64 };
        let mut polled = [PollFd::new(&self.stream, interest)];
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.to_string()),
        }
        let has_said = polled[0].revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
        if is_held {
            self.held += begun.elapsed();
            self.pacer.was_held_until(now_ns());
        }
        if has_said { self.listen() } else { Ok(()) }
    }

    fn listen(&mut self) -> Result<(), String> {
        let mut buffer = [0; 4096];
        let read = match (&self.stream).read(&mut buffer) {
            Ok(0) => return Err(Error::Dropped.to_string()),
            Ok(read) => read,
            Err(error) if is_later(&error) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        self.heed(&mut buffer[..read])
    }

    /// Answers pings, and ends where the server does.
    fn heed(&mut self, input: &mut [u8]) -> Result<(), String> {
        let mut consumed = 0;
        loop {
            match self.session.next(&LIMITS, input, &mut consumed) {
                Ok(None) => return Ok(()),
                Ok(Some(SessionEvent::Ping(payload))) => {
                    // Behind what is made already: a frame must not be torn.
                    push_masked_frame(Opcode::Pong, payload, self.keys.next_u32().to_le_bytes(), &mut self.out);
                }
                Ok(Some(SessionEvent::Close(frame))) => return Err(close_reason(frame)),
                Ok(Some(_)) => {}
                Err(violation) => return Err(violation.to_string()),
            }
        }
    }

    /// SendMethod the rest of what is made, so that no record is cut, and says goodbye.
    fn finish(mut self) -> Result<PublisherResult, String> {
        let (since, first, held_before) = self.measured.unwrap_or((Instant::now(), self.pacer.taken(), self.held));
        let seconds = since.elapsed().as_secs_f64();
        let (records, held) = (self.pacer.taken() - first, self.held.saturating_sub(held_before));
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        while self.sent < self.out.len() && Instant::now() < deadline {
            self.write()?;
            self.wait()?;
        }
        let mut close = Vec::new();
        push_close(CloseCode::NORMAL, "", &mut close);
        let mut frame = Vec::new();
        push_masked_frame(Opcode::Close, &close[2..], self.keys.next_u32().to_le_bytes(), &mut frame);
        // The server learns it from the end of the stream otherwise.
        let _ = (&self.stream).write_all(&frame);
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Ok(PublisherResult {
            published: PublishedCount { records: self.pacer.taken(), instruments: 0 },
            records,
            seconds,
            lateness: self.pacer.lateness(),
            held,
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
        })
    }
}
