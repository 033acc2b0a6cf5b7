//! `tickcast record`: what a server broadcasts, in a packet log (`tickcast_recording`).
//!
//! What always holds:
//! * What was received is in the file a second later, and after SIGINT, SIGTERM, or an error of the server.
//! * Nothing is missing silently. A lost connection is replaced and the stream resumes; a recording that exists is
//!   continued with its own token. Records of log channels that the server no longer had become a Gap in the file.
//! * A file is a log at any time. After an error of the file, what was written of the last block is cut off.
//!
//! Heartbeats are left out: they say nothing of the market.

mod assembly;
mod file;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::assembly::Assembly;
use self::file::{Found, Opened};
use crate::load::args::parse_channel;
use crate::load::error::LoadError;
use crate::load::printable::printable;
use crate::load::signals::stop_flag;
use tickcast_client::{Client, DEFAULT_URL, Error, Event, Options, Packet, Reply, Subscription, Token};
use tickcast_protocol::sse::split_list;
use tickcast_protocol::{Channel, Position};
use tickcast_recording::{WriteError, Writer};

/// Records a stream.
#[derive(Clone, Debug, clap::Args)]
pub struct RecordArgs {
    /// The file to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// URL of the server: ws://HOST, wss://HOST, ws://HOST:PORT/PATH, or HOST:PORT
    #[arg(long, default_value = DEFAULT_URL)]
    pub url: String,
    /// File with the authorities that are trusted for wss://, PEM, in place of the system's
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Channels: quote, trade, ticker, book, raw
    #[arg(long, value_delimiter = ',', default_value = "quote,trade,ticker,book,raw", value_parser = parse_channel)]
    pub channels: Vec<Channel>,
    /// Symbols, or patterns with one * at the end; a comma of a name is written \,
    #[arg(long, default_value = "*")]
    pub symbols: Vec<String>,
    /// Continue the file if it exists: what a crash has left of its last block is cut off, and the stream resumes where
    /// it ends
    #[arg(long)]
    pub append: bool,
    /// Begin with what the server's history still has, instead of a snapshot
    #[arg(long)]
    pub history: bool,
    /// Record what a live venue sends, as it came: a --feed argument of a venue, such as binance:BTCUSDT. The file has
    /// lines `<receive time, ns> <message>`, packed with zstd if its name ends with .zst. No server is needed
    #[arg(long, value_name = "FEED", conflicts_with_all = ["url", "channels", "symbols", "history"])]
    pub raw: Option<String>,
    /// Stop after this many seconds
    #[arg(long, value_name = "N")]
    pub seconds: Option<u64>,
}

/// How often what was received is written, and the stop flag is checked.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Runs `tickcast record` until its time is over, it is interrupted, or the server closes the connection.
pub fn record(args: &RecordArgs) -> Result<(), LoadError> {
    record_until(args, &mut std::io::stderr(), &*stop_flag()?)
}

fn record_until(args: &RecordArgs, notices: &mut impl Write, stop: &AtomicBool) -> Result<(), LoadError> {
    // A server that is not there leaves no file behind.
    let options = Options { ca: args.ca.clone(), ..Options::default() };
    let mut client = Client::connect(&args.url, options)?;
    let Opened { writer, found } = file::open(&args.out, args.append).map_err(LoadError::Arguments)?;
    let mut recorder = Recorder::new(&args.out, writer, notices);
    recorder.tell_found(found.as_ref());
    let recorded = recorder.follow(args, found.and_then(|found| found.token), &mut client, stop);
    // What came before an error is kept.
    let finished = recorder.finish();
    match recorded {
        Err(LoadError::Client(Error::Closed(close))) if close.code == 1000 => return finished,
        Err(error) => return Err(error),
        Ok(()) => {}
    }
    client.close();
    finished
}

/// The state of one recording.
struct Recorder<'a, N: Write> {
    path: &'a Path,
    notices: N,
    /// `None` after an error of the file.
    writer: Option<Writer<File>>,
    assembly: Assembly,
    flushed: Instant,
    packets: u64,
    records: u64,
    lost: u64,
}

impl<'a, N: Write> Recorder<'a, N> {
    fn new(path: &'a Path, writer: Writer<File>, notices: N) -> Self {
        let (writer, assembly, flushed) = (Some(writer), Assembly::default(), Instant::now());
        Self { path, notices, writer, assembly, flushed, packets: 0, records: 0, lost: 0 }
    }

    fn tell_found(&mut self, found: Option<&Found>) {
        let Some(Found { torn_bytes, .. }) = found.filter(|found| found.torn_bytes > 0) else { return };
        let path = self.path.display();
        self.notice(&format!(
            "{path}: its last {torn_bytes} bytes are no whole block, as after a crash: they are cut off"
        ));
    }

    fn follow(
        &mut self,
        args: &RecordArgs,
        token: Option<Token>,
        client: &mut Client,
        stop: &AtomicBool,
    ) -> Result<(), LoadError> {
        let symbols = args.symbols.iter().flat_map(|list| split_list(list));
        let mut subscription = Some(Subscription::new(&args.channels, symbols));
        let deadline = args.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        // Relaxed: the flag carries no other data.
        while !stop.load(Ordering::Relaxed) && deadline.is_none_or(|deadline| Instant::now() < deadline) {
            match client.next_within(CHECK_INTERVAL)? {
                Some(Event::Packet(packet)) => self.packet(&packet)?,
                Some(Event::Reply(Reply::Welcome { epoch, .. })) => {
                    if let Some(subscription) = subscription.take() {
                        let begin = args.history.then_some(Token { epoch, position: Position::ZERO });
                        match token.or(begin) {
                            Some(token) => client.resume(token, subscription),
                            None => client.subscribe(subscription),
                        };
                    }
                }
                Some(Event::Reply(reply)) => self.reply(&reply),
                Some(Event::Disconnected { error, retry_in }) => {
                    self.notice(&format!("{error}; reconnecting in {} ms", retry_in.as_millis()));
                }
                Some(Event::Reconnected) => self.notice("reconnected"),
                Some(Event::TokenFailed { error, .. }) => self.notice(&error.to_string()),
                None => {}
            }
            if self.flushed.elapsed() >= FLUSH_INTERVAL {
                self.write(|writer| Ok(writer.flush()?))?;
                self.flushed = Instant::now();
            }
        }
        Ok(())
    }

    fn packet(&mut self, packet: &Packet<'_>) -> Result<(), LoadError> {
        let Some(writer) = &self.writer else { return Ok(()) };
        self.assembly.begin(packet.header.epoch);
        for record in packet.records() {
            self.assembly.push(&record.header, record.bytes, writer.state());
        }
        for gap in self.assembly.gaps() {
            let symbol = packet.instrument(gap.instrument).map_or("", |instrument| &instrument.symbol);
            let (channel, missing) = (gap.channel.name(), gap.missing());
            let text =
                format!("{missing} {channel} records of {symbol} are missing: the server did not have them any more");
            // Nothing can be done about a stderr that is closed.
            let _ = writeln!(self.notices, "{}", printable(&text));
            self.lost += missing;
        }
        let is_over = packet.header.flags & tickcast_protocol::packet::flags::CAUGHT_UP != 0;
        if self.assembly.count() == 0 && !is_over {
            return Ok(());
        }
        self.records += self.assembly.count() as u64;
        for bytes in self.assembly.packets(&packet.header) {
            self.packets += 1;
            self.write(|writer| writer.packet(&bytes))?;
        }
        Ok(())
    }

    fn reply(&mut self, reply: &Reply) {
        match reply {
            Reply::Subscribed { unknown, .. } | Reply::Resumed { unknown, .. } if !unknown.is_empty() => {
                self.notice(&format!("unknown symbols, which begin once they are defined: {}", unknown.join(", ")));
            }
            Reply::Closing { reason, .. } => self.notice(&format!("the server is closing this connection: {reason}")),
            _ => {}
        }
        if let Reply::Resumed { how, .. } = reply
            && how == "snapshot"
        {
            self.notice("the server's history does not reach back to the end of the recording: a snapshot follows");
        }
    }

    /// Writes to the file. After an error nothing more is written, and the file is cut where it is whole.
    fn write(&mut self, write: impl FnOnce(&mut Writer<File>) -> Result<(), WriteError>) -> Result<(), LoadError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let Err(error) = write(writer) else { return Ok(()) };
        let whole_bytes = writer.written_bytes();
        // A file that cannot be cut has a torn tail, which readers cut.
        let _ = writer.output().set_len(whole_bytes);
        self.writer = None;
        Err(self.failed(&error))
    }

    /// Writes what waits and the index, and says what was recorded.
    fn finish(mut self) -> Result<(), LoadError> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let written = writer.finish().and_then(|file| file.sync_all());
        written.map_err(|error| self.failed(&WriteError::Io(error)))?;
        let Self { path, records, packets, lost, .. } = &self;
        let path = path.display();
        self.notice(&format!("{path}: {records} records in {packets} packets were recorded, and {lost} are missing"));
        Ok(())
    }

    fn failed(&self, error: &WriteError) -> LoadError {
        LoadError::Recording { path: self.path.display().to_string(), error: error.to_string() }
    }

    fn notice(&mut self, text: &str) {
        // Nothing can be done about a stderr that is closed.
        let _ = writeln!(self.notices, "{}", printable(text));
    }
}

#[cfg(test)]
mod tests;
