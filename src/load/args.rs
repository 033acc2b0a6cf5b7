//! The arguments of `tickcast load`.

use std::path::PathBuf;
use std::str::FromStr;

use crate::load::attack::AttackArgs;
use crate::load::cores::{CoreList, parse_core_list};
use crate::load::machine::{Sources, parse_sources};
use crate::load::servers::{Baseline, Rival};
use crate::load::slow_clients::{LimitedFormat, Pause, ReadRate};
use tickcast_client::DEFAULT_URL;
use tickcast_protocol::Channel;

/// Loads a server with very many clients, and checks and measures what they receive.
///
/// Exit codes: 0 success; 2 the run failed; 3 the load generator itself was the bottleneck, and no rates are shown;
/// 4 records were missing from a stream without announcement.
#[derive(Clone, Debug, clap::Args)]
pub struct LoadArgs {
    /// URL of the server: ws://HOST, wss://HOST, ws://HOST:PORT/PATH, or HOST:PORT
    #[arg(default_value = DEFAULT_URL)]
    pub url: String,
    /// File with the authorities that are trusted for wss://, PEM, in place of the system's
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Over wss://, connections of --storm and --churn resume TLS sessions of the others, as browsers that come back do
    /// [default: each has a whole handshake]
    #[arg(long)]
    pub tls_resume: bool,
    /// Connections to open
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub clients: u32,
    /// Worker processes that share the connections; each has its own limit of descriptors
    #[arg(long, default_value_t = 1, value_name = "P", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub processes: u32,
    /// Threads of each process
    #[arg(long, default_value_t = 1, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: u32,
    /// Most pending connections (without an upgrade) at a time, for each thread
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub pending: u32,
    /// Channels: quote, trade, ticker, book, raw [default: quote,trade,ticker, or that of --publish]
    #[arg(long, value_delimiter = ',', value_parser = parse_channel)]
    pub channels: Vec<Channel>,
    /// Symbols, or patterns with one * at the end; a comma of a name is written \, [default: *, or those of --publish]
    #[arg(long)]
    pub symbols: Vec<String>,
    /// Distribution of symbols: all (each client subscribes to all --symbols), one (one symbol each, round robin),
    /// random:K (K random symbols each), pattern:PREFIX* (each client subscribes to this pattern)
    #[arg(long, default_value = "all")]
    pub shape: LoadShape,
    /// Seed of random:K
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// At most one value per instrument and state channel in this many milliseconds; 0 = every update
    #[arg(long, default_value_t = 0, value_name = "MS")]
    pub conflate_ms: u32,
    /// Seconds to measure
    #[arg(long, default_value_t = 10, value_name = "S", value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: u32,
    /// Seconds between the last connect and the measurement
    #[arg(long, default_value_t = 2, value_name = "S")]
    pub warmup: u32,
    /// Source addresses to bind, round robin, such as 127.0.0.1,127.0.0.4-9; each has about 28,000 ports [default: as
    /// many of 127.0.0.0/8 as needed where the server is on this machine]
    #[arg(long, value_name = "IP,IP-N,…", value_parser = parse_sources)]
    pub source: Option<Sources>,
    /// Percentage of clients that subscribe and then do not read
    #[arg(long, default_value_t = 0.0, value_name = "P", value_parser = parse_percent)]
    pub stalled: f64,
    /// Seconds after which the stalled clients begin to read, from the start of the measurement
    #[arg(long, value_name = "S")]
    pub stall_for: Option<f64>,
    /// This percentage of the clients [default: 100] does not read from second AT of the measurement on, for FOR
    /// seconds, then reads on. The run then measures until all records have arrived
    #[arg(long, value_name = "AT,FOR[,PERCENT]")]
    pub pause: Option<Pause>,
    /// This percentage of the clients [default: 100] reads at most so many bytes a second each, for the whole run, with
    /// a small receive buffer. They are reported apart from the others; a gap or a close of theirs is a result
    #[arg(long, value_name = "BYTES[,PERCENT]")]
    pub read_rate: Option<ReadRate>,
    /// The encoding that clients with a read rate ask for
    #[arg(long, value_enum, default_value_t = LimitedFormat::Binary, value_name = "FORMAT", requires = "read_rate")]
    pub limited_format: LimitedFormat,
    /// Additional connections that are opened at once when the measurement begins
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub storm: u32,
    /// Connections per second that are reset and replaced during the measurement
    #[arg(long, default_value_t = 0.0, value_name = "R", value_parser = parse_rate)]
    pub churn: f64,
    #[command(flatten)]
    pub attacked: AttackArgs,
    #[command(flatten)]
    pub publish: PublishArgs,
    /// Send this text after the upgrade in place of a subscription, for servers of another kind; may be repeated, and
    /// an empty text sends nothing. Messages are counted; those that are packets are checked and timed
    #[arg(long, value_name = "TEXT")]
    pub message: Vec<String>,
    /// Cores to run on, such as 1,2-3 [default: those that the server does not use]
    #[arg(long, value_name = "LIST", value_parser = parse_core_list)]
    pub load_cores: Option<CoreList>,
    #[command(flatten)]
    pub server: ServerArgs,
    /// Write a plot of the latencies to this SVG file
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Print the report as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What the run publishes.
#[derive(Clone, Debug, clap::Args)]
pub struct PublishArgs {
    /// Publish this many records a second on a fixed schedule; latencies then count from the due time of each record
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub publish: Option<u64>,
    /// Records that are due at once
    #[arg(long, default_value_t = 1, value_name = "N", requires = "publish",
        value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub burst: u64,
    /// Channel to publish on: quote, trade, ticker, raw
    #[arg(long, default_value = "quote", value_name = "CHANNEL", requires = "publish", value_parser = parse_published)]
    pub publish_channel: Channel,
    /// Payload bytes of a raw record
    #[arg(long, default_value_t = 32, value_name = "BYTES", requires = "publish",
        value_parser = clap::value_parser!(u32).range(0..=500_000))]
    pub size: u32,
    /// Instruments to publish, round robin: LOAD-00000, LOAD-00001, …
    #[arg(long, default_value_t = 100, value_name = "M", requires = "publish",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub instruments: u32,
    /// Records of each packet
    #[arg(long, default_value_t = 1, value_name = "N", requires = "publish",
        value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub records_per_packet: u64,
    /// The server's --publish-token
    #[arg(long, value_name = "TOKEN", requires = "publish")]
    pub publish_token: Option<String>,
    /// URL to publish to [default: the server's /v1/publish]
    #[arg(long, value_name = "URL", requires = "publish")]
    pub publish_url: Option<String>,
    /// Define no instruments: for servers that pass messages on
    #[arg(long, requires = "publish")]
    pub publish_plain: bool,
}

/// The server's process, and the servers that it is compared with.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServerArgs {
    /// Process id of the server, where it cannot be found by its port
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Start the server with these arguments for the run, and stop it afterwards
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true, conflicts_with = "server_pid")]
    pub serve: Option<String>,
    /// Cores for the started server, and for those that it is compared with
    #[arg(long, value_name = "LIST", value_parser = parse_core_list)]
    pub server_cores: Option<CoreList>,
    /// Compare with a bare loop of the same sends: the cost of the kernel alone
    #[arg(long)]
    pub floor: bool,
    /// Compare with the same loop with one send(2) for each subscriber
    #[arg(long)]
    pub floor_send: bool,
    /// Compare with this server
    #[arg(long, value_enum, value_name = "NAME")]
    pub rival: Vec<Rival>,
    /// How many times each server runs
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub pairs: u32,
}

impl ServerArgs {
    /// The servers that the measured one is compared with.
    pub fn baselines(&self) -> Vec<Baseline> {
        let floor = self.floor.then_some(Baseline::Floor);
        let send = self.floor_send.then_some(Baseline::FloorSend);
        floor.into_iter().chain(send).chain(self.rival.iter().map(|rival| Baseline::Rival(*rival))).collect()
    }
}

/// The distribution of symbols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadShape {
    /// All clients subscribe to the same symbols.
    All,
    /// One symbol of the directory for each client, round robin.
    One,
    /// This many random symbols of the directory for each client.
    Random(u32),
    /// All clients subscribe to this pattern.
    Pattern(String),
}

impl FromStr for LoadShape {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let count = |text: &str| text.parse().ok().filter(|count| *count > 0);
        if let Some(pattern) = word.strip_prefix("pattern:").filter(|pattern| !pattern.is_empty()) {
            return Ok(Self::Pattern(pattern.to_owned()));
        }
        match (word, word.strip_prefix("random:").and_then(count)) {
            ("all", _) => Ok(Self::All),
            ("one", _) => Ok(Self::One),
            (_, Some(count)) => Ok(Self::Random(count)),
            _ => Err(format!("invalid value {word:?}: expected all, one, random:K with K from 1, or pattern:PREFIX*")),
        }
    }
}

fn parse_percent(text: &str) -> Result<f64, String> {
    let percent = text.parse().ok().filter(|percent| (0.0..=100.0).contains(percent));
    percent.ok_or_else(|| "expected a number from 0 to 100".to_owned())
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.0..=1e6).contains(rate));
    rate.ok_or_else(|| "expected a number from 0 to 1000000".to_owned())
}

/// Parses a channel of `--channels`.
pub fn parse_channel(word: &str) -> Result<Channel, String> {
    let names = Channel::ALL.map(Channel::name).join(", ");
    Channel::from_name(word).ok_or_else(|| format!("unknown channel {word:?}: expected {names}"))
}

fn parse_published(word: &str) -> Result<Channel, String> {
    let channel = parse_channel(word)?;
    let refused = || "the load generator does not publish books: expected quote, trade, ticker or raw".to_owned();
    (channel != Channel::Book).then_some(channel).ok_or_else(refused)
}
