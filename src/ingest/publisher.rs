//! A publisher's connection, on a thread that blocks on it: text frames define instruments, binary packets carry records.
//!
//! * The records of one read are sequenced as one batch, on this thread.
//! * Backpressure: the socket is not read while the publisher exceeds its pace, or waits for room in the rings, which is
//!   bounded ([`room`](super::room)). So TCP slows the publisher down.
//! * An invalid packet closes the connection with 1008 and the place of the error. The records before it are kept.
//! * When the server stops, the connection is closed with 1001; when its token is withdrawn, with 1008.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::TcpKeepalive;

use super::publisher_source::{CHECK_INTERVAL, Interruption, PublisherSource};
use super::publisher_stream::PublisherStream;
use super::{Credential, Entered, PublisherSettings, Publishers, SequencerHandle};
use tickcast_protocol::ws::deflate::Inflater;
use tickcast_protocol::ws::{CloseCode, NextStep, Role, Session, SessionLimits, answer_violation, close_frame};

/// Time for a publisher to read a reply.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Detects a publisher that has vanished after 35 s. It would keep its thread, and its instruments live, for ever.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(20)).with_interval(Duration::from_secs(5)).with_retries(3);
/// Time for a publisher to close after a close frame.
const LINGER: Duration = Duration::from_secs(1);
/// Least time between two reads while messages keep coming: what gathers meanwhile is sequenced as one batch, and the
/// shards are woken once. A message after a longer silence is sequenced at once.
const SPACING: Duration = Duration::from_micros(500);
/// What may have been sent when a drain begins, and is neither in the socket nor read: the peer's kernel keeps it until the
/// socket has room. One that goes on publishing is not waited for beyond this.
const DRAIN_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of one read at most: some thousand records.
const READ_BYTES: usize = 256 * 1024;

/// One publisher's connection.
pub struct Publisher {
    stream: PublisherStream,
    session: Session,
    limits: SessionLimits,
    inflater: Inflater,
    source: PublisherSource,
    /// Bytes in the socket that are to be read before this publisher is counted; `None` before the drain.
    drain_bytes: Option<u64>,
    /// Bytes that may still be waited for, see [`DRAIN_BYTES_MAX`].
    drain_bytes_max: u64,
    /// All of them are sequenced.
    handed_in: bool,
}

impl Publisher {
    /// `stream` is a blocking socket after its upgrade. With `deflate` the publisher may compress its messages. Replies are
    /// short and not compressed.
    pub fn new(
        sequencer: Arc<SequencerHandle>,
        publishers: Arc<Publishers>,
        settings: PublisherSettings,
        credential: Credential,
        entered: Entered,
        stream: PublisherStream,
        deflate: bool,
    ) -> io::Result<Self> {
        stream.set_up(CHECK_INTERVAL, WRITE_TIMEOUT, &KEEPALIVE)?;
        let limits = SessionLimits { message_bytes_max: settings.packet_bytes_max };
        let inflater = Inflater::new(settings.inflate_ratio_max);
        let session = if deflate { Session::with_deflate(Role::Server) } else { Session::new(Role::Server) };
        let source = PublisherSource::new(sequencer, publishers, settings, credential.identity, entered);
        Ok(Self {
            stream,
            session,
            limits,
            inflater,
            source,
            drain_bytes: None,
            drain_bytes_max: DRAIN_BYTES_MAX,
            handed_in: false,
        })
    }

    /// Serves the connection to its end. `unread` are bytes that came with the upgrade. Returns whether the publisher was
    /// counted by [`Publishers::count_handed_in`].
    pub fn run(mut self, unread: &[u8]) -> bool {
        // An error is one of the socket: the publisher has closed, and needs no report.
        let _ = self.serve(unread);
        self.source.close();
        self.handed_in
    }

    fn serve(&mut self, unread: &[u8]) -> io::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        buffer[..unread.len()].copy_from_slice(unread);
        let (mut filled, mut taken) = (unread.len(), unread.len());
        let mut read_at = Instant::now();
        loop {
            if !self.take(&mut buffer[..filled])? {
                return Ok(());
            }
            self.note_handed_in(taken)?;
            if read_at.elapsed() < SPACING && (1..READ_BYTES).contains(&filled) {
                std::thread::sleep(SPACING);
            } else {
                // One that sends without a pause would keep its core for a whole slice of the scheduler, 3 ms.
                std::thread::yield_now();
            }
            read_at = Instant::now();
            (filled, taken) = match self.stream.read(&mut buffer) {
                Ok((0, _)) => return Ok(()),
                Ok(read) => read,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => (0, 0),
                Err(error) if error.kind() == ErrorKind::Interrupted => (0, 0),
                Err(error) => return Err(error),
            };
            match self.source.interruption() {
                Some(Interruption::Stopping) => {
                    return self.close(&close_frame(CloseCode::GOING_AWAY, "the server is stopping"));
                }
                Some(Interruption::Withdrawn) => {
                    return self.close(&close_frame(CloseCode::POLICY, "the publish token was withdrawn"));
                }
                None => {}
            }
        }
    }

    /// During a drain, counts this publisher once what it had sent when the drain began is sequenced: its socket is empty.
    fn note_handed_in(&mut self, read: usize) -> io::Result<()> {
        if self.handed_in || !self.source.is_draining() {
            return Ok(());
        }
        let mut left = self.drain_bytes.unwrap_or(0).saturating_sub(read as u64);
        if left == 0 {
            // What the peer's kernel had kept comes as soon as there is room.
            left = self.stream.waiting_bytes()?.min(self.drain_bytes_max);
            self.drain_bytes_max -= left;
        }
        self.drain_bytes = Some(left);
        if left == 0 {
            self.handed_in = true;
            self.source.count_handed_in();
        }
        Ok(())
    }

    /// Handles the input of one read. False after the connection is closed.
    fn take(&mut self, input: &mut [u8]) -> io::Result<bool> {
        let mut at = 0;
        loop {
            let step = match self.session.next_inflating(&self.limits, &mut self.inflater, input, &mut at) {
                Ok(None) => break,
                Ok(Some(event)) => self.source.on_event(event),
                Err(violation) => answer_violation(&violation),
            };
            match step {
                NextStep::Continue => {}
                NextStep::Send(frame) => self.stream.write_all(&frame)?,
                NextStep::Close(frame) => {
                    self.source.flush();
                    return self.close(&frame).map(|()| false);
                }
            }
        }
        self.source.flush();
        match self.source.batch_error() {
            Some(error) => self.close(&close_frame(CloseCode::POLICY, &error.to_string())).map(|()| false),
            None => Ok(true),
        }
    }

    /// Sends a close frame, shuts the sending side down, and waits a moment for the publisher to close: closing with unread
    /// input would send a reset, which could overtake the frame.
    fn close(&mut self, frame: &[u8]) -> io::Result<()> {
        self.stream.write_all(frame)?;
        self.stream.end()?;
        let until = Instant::now() + LINGER;
        let mut rest = vec![0; READ_BYTES];
        while Instant::now() < until && !matches!(self.stream.read(&mut rest), Ok((0, _))) {}
        Ok(())
    }
}
