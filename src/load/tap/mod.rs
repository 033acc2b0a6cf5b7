//! `tickcast tap`: a stream on the terminal, as lines, as JSON, or as statistics.
//!
//! Records go to stdout; notices (unknown symbols, gaps, the state of the feed) go to stderr. What always holds: the
//! lines of a packet are flushed before the next packet is read; text of the server is [`printable`]; a closed stdout
//! (`| head`) ends the tap without an error. A lost connection is replaced, and the stream resumes. For measurements
//! there is `tickcast load`.

mod lines;

use std::io::{BufWriter, ErrorKind, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::lines::{gap_text, push_line, push_time, status_text};
use crate::load::args::parse_channel;
use crate::load::error::LoadError;
use crate::load::format::{count_text, duration_text};
use crate::load::latency::{LatencyMeter, LatencySummary, channel_of, now_ns};
use crate::load::printable::{printable, printable_json};
use crate::load::signals::stop_flag;
use tickcast_client::decode::DecodeCounters;
use tickcast_client::{Client, DEFAULT_URL, Error, Event, Options, Packet, Reply, Subscription};
use tickcast_protocol::json;
use tickcast_protocol::record::{Gap, RecordHeader};
use tickcast_protocol::sse::split_list;
use tickcast_protocol::{Channel, Instrument, RecordKind};

/// Shows a stream on the terminal.
#[derive(Clone, Debug, clap::Args)]
pub struct TapArgs {
    /// URL of the server: ws://HOST, wss://HOST, ws://HOST:PORT/PATH, or HOST:PORT
    #[arg(default_value = DEFAULT_URL)]
    pub url: String,
    /// Channels: quote, trade, ticker, book, raw
    #[arg(long, value_delimiter = ',', default_value = "quote,trade,ticker", value_parser = parse_channel)]
    pub channels: Vec<Channel>,
    /// Symbols, or patterns with one * at the end; a comma of a name is written \,
    #[arg(long, default_value = "*")]
    pub symbols: Vec<String>,
    /// At most one value per instrument and state channel in this many milliseconds; 0 = every update
    #[arg(long, default_value_t = 0, value_name = "MS")]
    pub conflate_ms: u32,
    /// Do not request a snapshot before the live stream
    #[arg(long)]
    pub no_snapshot: bool,
    /// Offer permessage-deflate; the server agrees with `--compression 1` and above
    #[arg(long)]
    pub compression: bool,
    /// File with the authorities that are trusted for wss://, PEM, in place of the system's
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Exit when the connection is lost, instead of reconnecting
    #[arg(long)]
    pub no_reconnect: bool,
    /// Print one JSON object per line instead of text
    #[arg(long, conflicts_with = "stats")]
    pub json: bool,
    /// Print rates and latencies once a second instead of records
    #[arg(long)]
    pub stats: bool,
    /// Stop after this many records
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Stop after this many seconds
    #[arg(long, value_name = "N")]
    pub seconds: Option<u64>,
}

/// Runs `tickcast tap` until its limits are reached, it is interrupted, or the server closes the connection.
pub fn tap(args: &TapArgs, out: &mut impl Write) -> Result<(), LoadError> {
    tap_until(args, out, &mut std::io::stderr(), &*stop_flag()?)
}

fn tap_until(
    args: &TapArgs,
    out: &mut impl Write,
    notices: &mut impl Write,
    stop: &AtomicBool,
) -> Result<(), LoadError> {
    let mut options = Options { compression: args.compression, ca: args.ca.clone(), ..Options::default() };
    options.reconnect = options.reconnect.filter(|_| !args.no_reconnect);
    let mut client = Client::connect(&args.url, options)?;
    client.subscribe(Subscription {
        channels: args.channels.clone(),
        symbols: args.symbols.iter().flat_map(|list| split_list(list)).collect(),
        conflate_ms: args.conflate_ms,
        snapshot: !args.no_snapshot,
    });
    let mut tap = Tap::new(args, BufWriter::new(out), notices);
    let ended = tap.follow(&mut client, stop);
    match ended {
        // The reader of the pipe has exited, which is not an error.
        Err(LoadError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => {
            // Taken apart, because a drop would write the buffer to the broken pipe.
            let _ = tap.out.into_parts();
            client.close();
            Ok(())
        }
        Err(LoadError::Client(Error::Closed(close))) if close.code == 1000 => Ok(()),
        Ok(()) => {
            client.close();
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// How often the clock and the stop flag are checked while nothing comes.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The state of one tap.
struct Tap<'a, W: Write, N: Write> {
    args: &'a TapArgs,
    out: BufWriter<W>,
    notices: N,
    shown: u64,
    stats: Stats,
    line: String,
}

impl<'a, W: Write, N: Write> Tap<'a, W, N> {
    fn new(args: &'a TapArgs, out: BufWriter<W>, notices: N) -> Self {
        let stats = Stats::new(Instant::now());
        Self { args, out, notices, shown: 0, stats, line: String::new() }
    }

    fn follow(&mut self, client: &mut Client, stop: &AtomicBool) -> Result<(), LoadError> {
        let deadline = self.args.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        // Relaxed: the flag carries no other data.
        while !stop.load(Ordering::Relaxed) && deadline.is_none_or(|deadline| Instant::now() < deadline) {
            match client.next_within(CHECK_INTERVAL)? {
                Some(Event::Packet(packet)) => self.packet(&packet)?,
                Some(Event::Reply(reply)) => self.reply(reply)?,
                Some(Event::Disconnected { error, retry_in }) => {
                    let wait = duration_text(u64::try_from(retry_in.as_nanos()).unwrap_or(u64::MAX));
                    self.notice(&format!("{error}; reconnecting in {wait}"));
                }
                Some(Event::Reconnected) => self.notice("reconnected"),
                Some(Event::TokenFailed { error, .. }) => self.notice(&error.to_string()),
                None => {}
            }
            if self.args.stats {
                self.stats_line(client.decoder().counters())?;
            }
            if self.args.count.is_some_and(|count| self.shown >= count) {
                break;
            }
        }
        Ok(())
    }

    fn packet(&mut self, packet: &Packet<'_>) -> Result<(), LoadError> {
        let now_ns = now_ns();
        for gap in packet.missed() {
            self.notice(&gap_text(gap, packet.instrument(gap.instrument)));
        }
        for record in packet.records() {
            self.stats.meter.record(now_ns, &record.header);
            let is_enough = self.args.count.is_some_and(|count| self.shown >= count);
            match (channel_of(&record.header), record.instrument) {
                (Some(_), _) if is_enough => {}
                (Some(_), _) if self.args.stats => self.shown += 1,
                (Some(channel), Some(instrument)) => {
                    self.shown += 1;
                    self.line.clear();
                    push_record(self.args.json, channel, &record.header, record.bytes, instrument, &mut self.line);
                    let line = if self.args.json { printable_json(&self.line) } else { printable(&self.line) };
                    self.out.write_all(line.as_bytes()).map_err(LoadError::Output)?;
                }
                _ => notice(&record.header, record.bytes, record.instrument, &mut self.notices),
            }
        }
        self.stats.packet(now_ns, packet.bytes, &packet.header);
        self.out.flush().map_err(LoadError::Output)
    }

    /// A failed write to stderr does not end the tap.
    fn notice(&mut self, text: &str) {
        let _ = writeln!(self.notices, "{}", printable(text));
    }

    fn reply(&mut self, reply: Reply) -> Result<(), LoadError> {
        let mut notice = |text: String| self.notice(&text);
        match reply {
            Reply::Subscribed { unknown, denied, count, .. } => {
                if !unknown.is_empty() {
                    notice(format!("unknown symbols, which begin once they are defined: {}", unknown.join(", ")));
                }
                if !denied.is_empty() {
                    notice(format!("not entitled to: {}", denied.join(", ")));
                }
                if count == 0 {
                    notice("the subscription matches no instrument yet".to_owned());
                }
                Ok(())
            }
            Reply::Resumed { how, .. } if how == "snapshot" => {
                notice("the server's history does not reach back to the token: a snapshot follows".to_owned());
                Ok(())
            }
            Reply::Error { code, message, .. } => Err(Error::Rejected { code, message }.into()),
            Reply::Closing { reason, .. } => {
                notice(format!("the server is closing this connection: {reason}"));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn stats_line(&mut self, counters: &DecodeCounters) -> Result<(), LoadError> {
        let now = Instant::now();
        if now.duration_since(self.stats.since) < Duration::from_secs(1) {
            return Ok(());
        }
        self.line.clear();
        push_time(now_ns(), &mut self.line);
        self.stats.push_line(now, counters, &self.args.channels, &mut self.line);
        self.out.write_all(self.line.as_bytes()).and_then(|()| self.out.flush()).map_err(LoadError::Output)
    }
}

fn push_record(
    as_json: bool,
    channel: Channel,
    header: &RecordHeader,
    record: &[u8],
    instrument: &Instrument,
    out: &mut String,
) {
    if as_json {
        json::push_record(record, instrument, out);
        out.push('\n');
    } else {
        push_line(channel, header, record, instrument, out);
    }
}

/// Writes a notice for a record that belongs to no channel, except for definitions and heartbeats.
fn notice(header: &RecordHeader, record: &[u8], instrument: Option<&Instrument>, notices: &mut impl Write) {
    let text = match RecordKind::from_wire(header.kind) {
        Some(RecordKind::Gap) => Gap::read(record).map(|gap| gap_text(&gap, instrument)),
        Some(RecordKind::Status) => Some(status_text(record, instrument)),
        Some(RecordKind::Definition | RecordKind::Heartbeat) | None => None,
        Some(_) => Some(format!("a record of instrument {} came before its Definition", header.instrument)),
    };
    if let Some(text) = text {
        let _ = writeln!(notices, "{}", printable(&text));
    }
}

/// The figures of `--stats`: differences from the line before.
struct Stats {
    since: Instant,
    before: DecodeCounters,
    bytes: u64,
    meter: LatencyMeter,
}

impl Stats {
    fn new(now: Instant) -> Self {
        Self { since: now, before: DecodeCounters::default(), bytes: 0, meter: LatencyMeter::default() }
    }

    fn packet(&mut self, now_ns: u64, bytes: usize, header: &tickcast_protocol::packet::PacketHeader) {
        self.bytes += bytes as u64;
        self.meter.packet(now_ns, header);
    }

    /// Appends the line for the time since the last one, and resets the figures.
    fn push_line(&mut self, now: Instant, counters: &DecodeCounters, channels: &[Channel], out: &mut String) {
        let seconds = now.duration_since(self.since).as_secs_f64().max(1e-9);
        let before = &self.before;
        let rate = |now: u64, before: u64| count_text((now - before) as f64 / seconds);
        for channel in channels {
            let at = *channel as usize;
            *out += &format!("  {} {}/s", channel.name(), rate(counters.by_channel[at], before.by_channel[at]));
        }
        let packets = rate(counters.packets, before.packets);
        *out += &format!("  packets {packets}/s  {:.1} KB/s", self.bytes as f64 / seconds / 1e3);
        *out += &format!("  send {}  recv {}", latency_text(&self.meter.send()), latency_text(&self.meter.recv()));
        let (gaps, conflated) = (counters.gaps - before.gaps, counters.conflated - before.conflated);
        *out += &format!("  gaps {gaps}  conflated {conflated}");
        if counters.violations > 0 {
            *out += &format!("  VIOLATIONS {}", counters.violations);
        }
        out.push('\n');
        self.meter.clear();
        (self.since, self.before, self.bytes) = (now, *counters, 0);
    }
}

fn latency_text(latency: &LatencySummary) -> String {
    if latency.count == 0 {
        return "-".to_owned();
    }
    let [p50, p99, max] = [latency.p50_ns, latency.p99_ns, latency.max_ns].map(duration_text);
    format!("p50 {p50} p99 {p99} max {max}")
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use clap::Parser;
    use tungstenite::protocol::Message;

    use super::*;
    use tickcast_client::decode::Decoder;
    use tickcast_protocol::FeedState;
    use tickcast_test_support::packets::PacketBuilder;
    use tickcast_test_support::scripted_server;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        tap: TapArgs,
    }

    fn args(address: SocketAddr, flags: &[&str]) -> TapArgs {
        let address = address.to_string();
        let line = ["tap", &address].into_iter().chain(flags.iter().copied());
        Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{error}")).tap
    }

    /// What a tap with these flags writes to stdout and stderr, and its result.
    fn run(address: SocketAddr, flags: &[&str]) -> (String, String, Result<(), LoadError>) {
        let (mut out, mut notices) = (Vec::new(), Vec::new());
        let ended = tap_until(&args(address, flags), &mut out, &mut notices, &AtomicBool::new(false));
        let text = |bytes| String::from_utf8(bytes).expect("lines are UTF-8");
        (text(out), text(notices), ended)
    }

    /// A server that accepts the subscription, sends these packets and waits for the client to close.
    fn server(packets: Vec<PacketBuilder>) -> SocketAddr {
        scripted_server::serve("", move |mut peer| {
            scripted_server::accept_subscription(&mut peer, &["FOO-BAR"]);
            for packet in &packets {
                // A tap that has reached its count closes before all is sent.
                if peer.send(packet.message()).is_err() {
                    return;
                }
            }
            scripted_server::wait_for_end(&mut peer);
        })
    }

    fn stream() -> Vec<PacketBuilder> {
        let gap = PacketBuilder::new().gap(Channel::Trade, 2, 4).trade(5, 0).status(FeedState::Stale);
        vec![PacketBuilder::new().definition(1, "BTC-USD").quote(1, 0).trade(1, 0), gap]
    }

    #[test]
    fn records_go_to_stdout_and_notices_to_stderr() {
        let (out, notices, ended) = run(server(stream()), &["--count", "3"]);
        assert!(ended.is_ok(), "{ended:?}");
        let want = "\
02:13:20.123456 quote  BTC-USD          61837.63 x 3.788            61837.64 x 1.200        #1
02:13:20.123456 trade  BTC-USD          61837.64 x 0.010        B id 77                     #1
02:13:20.123456 trade  BTC-USD          61837.64 x 0.010        B id 77                     #5
";
        assert_eq!(out, want);
        let want = "unknown symbols, which begin once they are defined: FOO-BAR\n\
                    gap: trade BTC-USD #2 to #4 are missing: this client was too slow\n\
                    status: the feed is stale\n";
        assert_eq!(notices, want);
    }

    #[test]
    fn count_stops_within_a_packet() {
        let (out, _, ended) = run(server(stream()), &["--count", "1"]);
        assert!(ended.is_ok(), "{ended:?}");
        assert_eq!(out.lines().count(), 1);
    }

    #[test]
    fn json_is_one_object_per_line() {
        let (out, _, ended) = run(server(stream()), &["--count", "2", "--json"]);
        assert!(ended.is_ok(), "{ended:?}");
        let records: Vec<serde_json::Value> =
            out.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect();
        assert_eq!(records.len(), 2);
        assert_eq!((&records[0]["type"], &records[0]["symbol"]), (&"quote".into(), &"BTC-USD".into()));
        assert_eq!((&records[0]["bid_px"], &records[0]["sequence"]), (&"61837.63".into(), &1.into()));
        assert_eq!(records[1]["type"], "trade");
    }

    #[test]
    fn the_flags_make_the_request() {
        let address = scripted_server::serve("", |mut peer| {
            let request = scripted_server::subscribe_request(&mut peer);
            let message = format!("{}", request);
            let error = serde_json::json!({"type": "error", "id": 1, "code": "bad_request", "message": message});
            peer.send(Message::text(error.to_string())).expect("the client reads");
            scripted_server::wait_for_end(&mut peer);
        });
        let flags = ["--channels", "book,raw", "--symbols", "BTC-*,AAPL", "--conflate-ms", "100", "--no-snapshot"];
        let error = run(address, &flags).2.expect_err("rejected").to_string();
        let request = error.strip_prefix("the server refused the request: bad_request: ").expect("a sentence");
        let request: serde_json::Value = serde_json::from_str(request).expect("the request came back");
        let want = serde_json::json!({"op": "subscribe", "id": 1, "channels": ["book", "raw"],
            "symbols": ["BTC-*", "AAPL"], "conflate_ms": 100, "snapshot": false});
        assert_eq!(request, want);
    }

    #[test]
    fn a_closed_stdout_ends_the_tap_without_error() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let ended = tap_until(&args(server(stream()), &[]), &mut Gone, &mut Vec::new(), &AtomicBool::new(false));
        assert!(ended.is_ok(), "{ended:?}");
    }

    #[test]
    fn a_lost_connection_resumes_or_ends_the_tap() {
        let address = scripted_server::serve("", |mut peer| {
            let first = scripted_server::subscribe_request(&mut peer)["op"] == "subscribe";
            let how = if first { "subscribed" } else { "resumed" };
            let reply = format!(r#"{{"type":"{how}","id":1,"how":"replay","from":2,"conflate_ms":0,"count":1}}"#);
            peer.send(Message::text(reply)).expect("the client reads");
            let trades = if first { 1..=2 } else { 2..=3 };
            let start = PacketBuilder::new().definition(1, "BTC-USD").caught_up();
            let packet = trades.fold(start, |packet, sequence| packet.trade(sequence, 0));
            peer.send(packet.message()).expect("the client reads");
            if !first {
                scripted_server::wait_for_end(&mut peer);
            }
        });
        let (out, notices, ended) = run(address, &["--count", "3", "--channels", "trade"]);
        assert!(ended.is_ok(), "{ended:?}");
        let sequences: Vec<_> = out.lines().map(|line| line.rsplit_once('#').expect("a number").1.trim()).collect();
        assert_eq!(sequences, ["1", "2", "3"], "{notices}");
        assert!(notices.contains("without a close frame; reconnecting in "), "{notices}");
        assert!(notices.contains("reconnected\n"), "{notices}");
        let (_, _, ended) = run(address, &["--count", "3", "--channels", "trade", "--no-reconnect"]);
        assert!(matches!(ended, Err(LoadError::Client(Error::Dropped))), "{ended:?}");
    }

    #[test]
    fn escape_sequences_of_names_and_texts_do_not_reach_the_terminal() {
        const NAME: &str = "A\x1b]0;title\x07\u{202e}B";
        let packets = || {
            let packet = PacketBuilder::new().definition(1, NAME).quote(1, 0);
            vec![
                packet.raw(1, "x\u{202e}\u{9b}2J".as_bytes()).gap(Channel::Trade, 1, 2).status_of(1, FeedState::Halted),
            ]
        };
        for json in [false, true] {
            let flags: &[&str] =
                if json { &["--count", "2", "--json"] } else { &["--count", "2", "--channels", "quote,raw"] };
            let (out, notices, _) = run(server(packets()), flags);
            assert!(
                out.contains(if json { "\\u001b]0;title\\u0007\\u202eB" } else { "\\u{1b}]0;title\\u{7}\\u{202e}B" }),
                "{out:?}"
            );
            for letter in (out + &notices).chars() {
                assert!(letter == '\n' || !letter.is_control() && letter != '\u{202e}', "{letter:?}");
            }
        }
    }

    #[test]
    fn an_interrupt_closes_with_1000() {
        let (sender, codes) = std::sync::mpsc::channel();
        let address = scripted_server::serve("", move |mut peer| {
            while let Ok(message) = peer.read() {
                if let Message::Close(frame) = message {
                    sender.send(frame.map(|frame| u16::from(frame.code))).expect("the test waits");
                }
            }
        });
        tap_until(&args(address, &[]), &mut Vec::new(), &mut Vec::new(), &AtomicBool::new(true)).expect("clean");
        assert_eq!(codes.recv(), Ok(Some(1000)));
    }

    #[test]
    fn a_stats_line_shows_rates_latencies_and_gaps() {
        let start = Instant::now();
        let mut stats = Stats::new(start);
        let now_ns = tickcast_test_support::packets::TS_RECV + 30_000;
        let packet = PacketBuilder::new().definition(1, "A").quote(1, 0).quote(4, 0x10).gap(Channel::Trade, 1, 2);
        let mut decoder = Decoder::new();
        let bytes = packet.bytes();
        let header = decoder.packet(&bytes, |_, header, _| stats.meter.record(now_ns, header)).expect("well-formed");
        stats.packet(now_ns, bytes.len(), &header);
        let mut line = String::new();
        let channels = [Channel::Quote, Channel::Trade];
        stats.push_line(start + Duration::from_secs(2), decoder.counters(), &channels, &mut line);
        assert_eq!(
            line,
            "  quote 1 /s  trade 0 /s  packets 0 /s  0.1 KB/s  send p50 20.0us p99 20.0us max 20.0us  \
             recv p50 30.0us p99 30.0us max 30.0us  gaps 1  conflated 1\n"
        );
        line.clear();
        stats.push_line(start + Duration::from_secs(3), decoder.counters(), &channels, &mut line);
        assert!(
            line.starts_with("  quote 0 /s")
                && line.contains("  send -  recv -  ")
                && line.ends_with("gaps 0  conflated 0\n"),
            "{line}"
        );
    }

    #[test]
    fn invalid_arguments_are_refused() {
        let parse = |flags: &[&str]| {
            let line = ["tap"].into_iter().chain(flags.iter().copied());
            Cli::try_parse_from(line).map(|_| ()).expect_err("refused").to_string()
        };
        let error = parse(&["--channels", "quotes"]);
        assert!(error.contains("unknown channel \"quotes\": expected quote, trade, ticker, book, raw"), "{error}");
        assert!(parse(&["--json", "--stats"]).contains("cannot be used with"));
        assert!(parse(&["--count", "many"]).contains("invalid value"));
    }
}
