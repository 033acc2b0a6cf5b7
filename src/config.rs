//! What was typed → what is proven; every limit.
//!
//! One struct ([`Layer`]) is a layer of settings, each of which may be given or not. It is read from flags and `TICKCAST_*`
//! variables (by clap) and from a TOML file (by serde), the layers are laid over each other, and [`Config::resolve`]
//! proves the result: afterwards every part of the program reads plain values that it can trust.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::feed;
use crate::shard;

/// Why settings were not taken. The message names the setting, what was given and what is allowed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{setting}: {problem}")]
    Value { setting: &'static str, problem: String },
    #[error("cannot read the configuration file {path}: {error}")]
    File { path: PathBuf, error: std::io::Error },
    #[error("configuration file {path}: {error}")]
    Toml { path: PathBuf, error: toml::de::Error },
    #[error("environment variable {0} is not a setting; have {1}")]
    Variable(String, String),
}

macro_rules! layer {
    ($($(#[doc = $doc:literal])* $name:ident $env:literal $value:literal $type:ty;)*) => {
        /// One layer of settings.
        #[derive(Clone, Debug, Default, clap::Args, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Layer {
            $($(#[doc = $doc])*
            #[arg(long, env = $env, value_name = $value)]
            pub $name: Option<$type>,)*
            /// Source of market data, may be given several times: `sim:instruments=200,rate=20000,seed=1`,
            /// `replay:FILE[,FILE…]?speed=1|10|max&loop=1&copies=K`, or `none` [default: sim]
            #[arg(long, env = "TICKCAST_FEED", value_name = "SPEC", value_delimiter = ';')]
            #[serde(default)]
            pub feed: Vec<String>,
            /// Serve `/v1/echo`, a WebSocket echo through the same codec, for conformance suites
            #[arg(long, env = "TICKCAST_ENABLE_ECHO", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
            pub enable_echo: Option<bool>,
        }

        impl Layer {
            /// This layer, and what it leaves open from the one below.
            pub fn over(self, below: Self) -> Self {
                Self {
                    $($name: self.$name.or(below.$name),)*
                    feed: if self.feed.is_empty() { below.feed } else { self.feed },
                    enable_echo: self.enable_echo.or(below.enable_echo),
                }
            }
        }

        const VARIABLES: &[&str] = &[$($env,)* "TICKCAST_FEED", "TICKCAST_ENABLE_ECHO", "TICKCAST_CONFIG"];
    };
}

layer! {
    /// Address and port to listen on [default: 127.0.0.1:9001]
    listen "TICKCAST_LISTEN" "ADDR:PORT" String;
    /// Cores for shards, like `0,2-5`; feeds and publishers have the others [default: all but the first]
    cores "TICKCAST_CORES" "LIST" String;
    /// Token that publishers present; without it `/v1/publish` is off
    publish_token "TICKCAST_PUBLISH_TOKEN" "TOKEN" String;
    /// What to log: `error`, `warn`, `info`, `debug`, or a filter by module [default: info]
    log "TICKCAST_LOG" "FILTER" String;
    /// Connections in all [default: as many as the descriptor limit allows, at most 1000000]
    connections_max "TICKCAST_CONNECTIONS_MAX" "N" u32;
    /// Publishers at a time [default: 64]
    publishers_max "TICKCAST_PUBLISHERS_MAX" "N" u32;
    /// Instruments in all [default: 20000]
    instruments_max "TICKCAST_INSTRUMENTS_MAX" "N" usize;
    /// Ring between the sequencer and a shard, and the shard's history, bytes, a power of two [default: 33554432]
    ring_bytes "TICKCAST_RING_BYTES" "BYTES" usize;
    /// Kernel send buffer of a connection, bytes: what a stalled client can hold back [default: 65536]
    send_buffer_bytes "TICKCAST_SEND_BUFFER_BYTES" "BYTES" usize;
    /// Silence after which a subscriber gets a heartbeat, ms [default: 5000]
    heartbeat_ms "TICKCAST_HEARTBEAT_MS" "MS" u32;
    /// Silence of a subscriber after which it is pinged, ms [default: 20000]
    ping_interval_ms "TICKCAST_PING_INTERVAL_MS" "MS" u32;
    /// Silence of a subscriber after which it is closed with 1008, ms [default: 60000]
    idle_timeout_ms "TICKCAST_IDLE_TIMEOUT_MS" "MS" u32;
    /// Time a subscriber may take nothing at all before it is closed with 4002, ms [default: 30000]
    slow_timeout_ms "TICKCAST_SLOW_TIMEOUT_MS" "MS" u32;
    /// Time to send a whole request head and be upgraded, ms [default: 10000]
    upgrade_timeout_ms "TICKCAST_UPGRADE_TIMEOUT_MS" "MS" u32;
    /// Time that clients have to go when the server stops, ms [default: 2000]
    drain_timeout_ms "TICKCAST_DRAIN_TIMEOUT_MS" "MS" u32;
    /// Requests a second that a subscriber may send; four seconds' worth at once [default: 50]
    requests_per_s "TICKCAST_REQUESTS_PER_S" "N" u32;
    /// Subscriptions of a connection: symbols times channels [default: 10000]
    subscriptions_max "TICKCAST_SUBSCRIPTIONS_MAX" "N" usize;
    /// Longest request of a subscriber, bytes [default: 1048576]
    request_bytes_max "TICKCAST_REQUEST_BYTES_MAX" "BYTES" usize;
    /// Longest packet of a publisher, and longest echoed message, bytes [default: 16777216]
    packet_bytes_max "TICKCAST_PACKET_BYTES_MAX" "BYTES" usize;
    /// Longest request head, bytes [default: 16384]
    head_bytes_max "TICKCAST_HEAD_BYTES_MAX" "BYTES" usize;
}

impl Layer {
    /// The settings of a TOML file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::File { path: path.to_owned(), error })?;
        toml::from_str(&text).map_err(|error| ConfigError::Toml { path: path.to_owned(), error })
    }
}

/// Refuses `TICKCAST_*` variables that no setting reads: a misspelt one must not be ignored.
pub fn check_variables(names: impl Iterator<Item = String>) -> Result<(), ConfigError> {
    /// Where the tests look for recordings; not a setting of the program.
    const OF_TESTS: &str = "TICKCAST_DATA";
    for name in names.filter(|name| name.starts_with("TICKCAST_") && name != OF_TESTS) {
        if !VARIABLES.contains(&name.as_str()) {
            return Err(ConfigError::Variable(name, VARIABLES.join(", ")));
        }
    }
    Ok(())
}

/// Settings of a server, proven.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: SocketAddr,
    /// Cores that run a shard each.
    pub cores: Vec<usize>,
    /// Cores for feeds and publishers: those without a shard, or all.
    pub other_cores: Vec<usize>,
    pub feeds: Vec<feed::Spec>,
    /// The feeds as they were given.
    pub feed_texts: Vec<String>,
    pub publish_token: Option<String>,
    pub enable_echo: bool,
    pub log: String,
    /// Of all shards together.
    pub connections_max: u32,
    pub publishers_max: u32,
    pub instruments_max: usize,
    pub ring_bytes: usize,
    pub send_buffer_bytes: usize,
    pub upgrade_timeout_ms: u32,
    pub drain_timeout_ms: u32,
    pub packet_bytes_max: usize,
    pub head_bytes_max: usize,
    pub shard: shard::Settings,
}

/// What the machine has, for defaults and for what cannot be more.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: Vec<usize>,
    /// Descriptors that this process may open.
    pub descriptors_max: u64,
}

/// Descriptors that are not connections: listeners, rings, files, publishers.
const DESCRIPTORS_RESERVED: u64 = 500;
/// The kernel's own limit on the registered files of one ring (`IORING_MAX_FIXED_FILES`).
pub const SEATS_MAX: u64 = 1 << 20;

impl Config {
    /// Proves the settings.
    pub fn resolve(layer: Layer, machine: &Machine, epoch: u32) -> Result<Self, ConfigError> {
        let cores = resolve_cores(layer.cores.as_deref(), machine)?;
        let other_cores = without(&machine.cores, &cores);
        let defaults = shard::Settings::default();
        let shard = shard::Settings {
            epoch,
            heartbeat_ms: within("heartbeat_ms", layer.heartbeat_ms, defaults.heartbeat_ms, 10, 60_000)?,
            ping_interval_ms: within(
                "ping_interval_ms",
                layer.ping_interval_ms,
                defaults.ping_interval_ms,
                100,
                3_600_000,
            )?,
            idle_timeout_ms: within(
                "idle_timeout_ms",
                layer.idle_timeout_ms,
                defaults.idle_timeout_ms,
                200,
                86_400_000,
            )?,
            slow_timeout_ms: within(
                "slow_timeout_ms",
                layer.slow_timeout_ms,
                defaults.slow_timeout_ms,
                100,
                3_600_000,
            )?,
            requests_per_s: within("requests_per_s", layer.requests_per_s, defaults.requests_per_s, 1, 1_000_000)?,
            subscriptions_max: within(
                "subscriptions_max",
                layer.subscriptions_max,
                defaults.subscriptions_max,
                1,
                1_000_000,
            )?,
            request_bytes_max: within(
                "request_bytes_max",
                layer.request_bytes_max,
                defaults.request_bytes_max,
                256,
                64 << 20,
            )?,
            ..defaults
        };
        let feed_texts = if layer.feed.is_empty() { vec!["sim".to_owned()] } else { layer.feed };
        Ok(Self {
            listen: resolve_listen(layer.listen.as_deref().unwrap_or("127.0.0.1:9001"))?,
            feeds: resolve_feeds(&feed_texts)?,
            feed_texts,
            publish_token: resolve_token(layer.publish_token)?,
            enable_echo: layer.enable_echo.unwrap_or(false),
            log: layer.log.unwrap_or_else(|| "info".to_owned()),
            connections_max: resolve_connections(layer.connections_max, machine, cores.len())?,
            publishers_max: within("publishers_max", layer.publishers_max, 64, 1, 4096)?,
            instruments_max: within("instruments_max", layer.instruments_max, 20_000, 1, 10_000_000)?,
            ring_bytes: resolve_ring_bytes(layer.ring_bytes)?,
            send_buffer_bytes: within("send_buffer_bytes", layer.send_buffer_bytes, 64 << 10, 4096, 64 << 20)?,
            upgrade_timeout_ms: within("upgrade_timeout_ms", layer.upgrade_timeout_ms, 10_000, 100, 600_000)?,
            drain_timeout_ms: within("drain_timeout_ms", layer.drain_timeout_ms, 2000, 0, 600_000)?,
            packet_bytes_max: within("packet_bytes_max", layer.packet_bytes_max, 16 << 20, 1024, 256 << 20)?,
            head_bytes_max: within("head_bytes_max", layer.head_bytes_max, 16 << 10, 512, 1 << 20)?,
            cores,
            other_cores,
            shard,
        })
    }

    /// Connections that one shard takes.
    pub fn seats_per_shard(&self) -> u32 {
        self.connections_max.div_ceil(self.cores.len() as u32)
    }

    /// The effective settings, one a line, with what the limits cost.
    pub fn describe(&self) -> String {
        let mib = |bytes: usize| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        let shards = self.cores.len();
        let seats = self.connections_max as usize;
        let lines = [
            ("listen", self.listen.to_string()),
            ("cores", format!("{:?}, feeds and publishers on {:?}", self.cores, self.other_cores)),
            ("feed", self.feed_texts.join(" ; ")),
            ("publish", if self.publish_token.is_some() { "on, with a token" } else { "off" }.to_owned()),
            ("publishers_max", format!("{}, a thread and some 400 KiB each", self.publishers_max)),
            ("echo", if self.enable_echo { "on" } else { "off" }.to_owned()),
            ("ring_bytes", format!("{} a shard, {} in all", mib(self.ring_bytes), mib(self.ring_bytes * shards))),
            (
                "connections_max",
                format!(
                    "{seats}, some 4 KiB of kernel memory and 200 B of our own each: {} when full",
                    mib(seats * 4300)
                ),
            ),
            (
                "send_buffer_bytes",
                format!(
                    "{} a connection at the most: {} if all were stalled",
                    self.send_buffer_bytes,
                    mib(seats * self.send_buffer_bytes)
                ),
            ),
            (
                "instruments_max",
                format!(
                    "{}, some 400 B and their books each, once for the sequencer and once a shard: {} when full",
                    self.instruments_max,
                    mib(self.instruments_max * 400 * (shards + 1))
                ),
            ),
            ("subscriptions_max", format!("{} a connection, 20 B each", self.shard.subscriptions_max)),
            ("request_bytes_max", format!("{}, held while a request is incomplete", self.shard.request_bytes_max)),
            ("requests_per_s", self.shard.requests_per_s.to_string()),
            ("packet_bytes_max", format!("{} of a publisher", self.packet_bytes_max)),
            ("heartbeat_ms", self.shard.heartbeat_ms.to_string()),
            (
                "ping_interval_ms",
                format!(
                    "{}, idle_timeout_ms {}, slow_timeout_ms {}",
                    self.shard.ping_interval_ms, self.shard.idle_timeout_ms, self.shard.slow_timeout_ms
                ),
            ),
            (
                "upgrade_timeout_ms",
                format!(
                    "{}, head_bytes_max {}, drain_timeout_ms {}",
                    self.upgrade_timeout_ms, self.head_bytes_max, self.drain_timeout_ms
                ),
            ),
        ];
        lines.map(|(name, text)| format!("  {name:<19} {text}\n")).concat()
    }
}

fn value(setting: &'static str, problem: String) -> ConfigError {
    ConfigError::Value { setting, problem }
}

fn within<T: PartialOrd + std::fmt::Display>(
    setting: &'static str,
    given: Option<T>,
    default: T,
    least: T,
    most: T,
) -> Result<T, ConfigError> {
    match given {
        None => Ok(default),
        Some(given) if given >= least && given <= most => Ok(given),
        Some(given) => Err(value(setting, format!("{given} is out of bounds; have {least} to {most}"))),
    }
}

fn resolve_listen(listen: &str) -> Result<SocketAddr, ConfigError> {
    listen.parse().map_err(|_| {
        let problem = format!("{listen:?} is not ADDRESS:PORT; for example 127.0.0.1:9001, 0.0.0.0:9001 or [::]:9001");
        value("listen", problem)
    })
}

fn resolve_ring_bytes(given: Option<usize>) -> Result<usize, ConfigError> {
    let bytes = within("ring_bytes", given, 32 << 20, 2 << 20, 2 << 30)?;
    if !bytes.is_power_of_two() {
        let near = bytes.next_power_of_two();
        return Err(value("ring_bytes", format!("{bytes} is not a power of two; {near} is the next")));
    }
    Ok(bytes)
}

fn resolve_feeds(specs: &[String]) -> Result<Vec<feed::Spec>, ConfigError> {
    specs.iter().map(|spec| feed::Spec::parse(spec).map_err(|error| value("feed", error.to_string()))).collect()
}

fn resolve_token(token: Option<String>) -> Result<Option<String>, ConfigError> {
    match token {
        Some(token) if token.is_empty() || token.bytes().any(|byte| !byte.is_ascii_graphic()) => {
            Err(value("publish_token", "wants one or more printable ASCII characters without spaces".to_owned()))
        }
        token => Ok(token),
    }
}

/// The descriptor limit that this many connections on this many shards need.
pub fn descriptors_needed(connections: u64, shards: u64) -> u64 {
    connections.div_ceil(shards) + DESCRIPTORS_RESERVED
}

fn resolve_connections(given: Option<u32>, machine: &Machine, shards: usize) -> Result<u32, ConfigError> {
    let descriptors = machine.descriptors_max;
    // A seat needs no descriptor of the process, but the kernel bounds each ring's table by the same limit.
    let possible = (descriptors.saturating_sub(DESCRIPTORS_RESERVED)).min(SEATS_MAX) * shards as u64;
    match given.map(u64::from) {
        None => Ok(possible.clamp(1, 1_000_000) as u32),
        Some(0) => Err(value("connections_max", "0 is out of bounds; have 1 and more".to_owned())),
        Some(given) if given > possible => {
            let needed = descriptors_needed(given, shards as u64);
            let problem = format!(
                "{given} connections on {shards} shards need a descriptor limit of {needed}, and it is {descriptors}; raise it with \
                 'ulimit -n {needed}' (LimitNOFILE={needed} in a systemd unit), or ask for at most {possible}"
            );
            Err(value("connections_max", problem))
        }
        Some(given) => Ok(given as u32),
    }
}

fn resolve_cores(list: Option<&str>, machine: &Machine) -> Result<Vec<usize>, ConfigError> {
    let Some(list) = list else {
        // The first core takes the sequencer, the feeds, and most interrupts of small machines.
        return Ok(if machine.cores.len() > 1 { machine.cores[1..].to_vec() } else { machine.cores.clone() });
    };
    let mut cores = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().ok();
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return Err(value("cores", format!("{part:?} is not a core or a range; write a list like 0,2-5")));
        };
        if first > last {
            return Err(value("cores", format!("the range {part:?} runs backwards; write {last}-{first}")));
        }
        for core in first..=last {
            if !machine.cores.contains(&core) {
                return Err(value(
                    "cores",
                    format!("core {core} is not one of this process; have {:?}", machine.cores),
                ));
            }
            cores.push(core);
        }
    }
    cores.sort_unstable();
    let named = cores.len();
    cores.dedup();
    if cores.len() < named {
        return Err(value("cores", format!("{list:?} names a core twice")));
    }
    Ok(cores)
}

/// The cores that are left, or all of them where none is.
fn without(all: &[usize], taken: &[usize]) -> Vec<usize> {
    let left: Vec<usize> = all.iter().copied().filter(|core| !taken.contains(core)).collect();
    if left.is_empty() { all.to_vec() } else { left }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine { cores: vec![0, 1, 2, 3, 4, 5], descriptors_max: 20_000 }
    }

    fn resolve(toml: &str) -> Result<Config, String> {
        let layer: Layer = toml::from_str(toml).map_err(|error| error.to_string())?;
        Config::resolve(layer, &machine(), 1).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_given_has_its_default() {
        let config = resolve("").unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:9001");
        assert_eq!(config.cores, [1, 2, 3, 4, 5]);
        assert_eq!(config.other_cores, [0]);
        assert_eq!(config.connections_max, 97_500);
    }

    #[test]
    fn core_lists_are_read_and_their_faults_named() {
        assert_eq!(resolve("cores = '0,2-4'").unwrap().cores, [0, 2, 3, 4]);
        for (list, said) in
            [("7", "core 7 is not one"), ("3-1", "runs backwards"), ("a", "\"a\" is not a core"), ("1,1", "twice")]
        {
            let error = resolve(&format!("cores = '{list}'")).unwrap_err();
            assert!(error.starts_with("cores: ") && error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_wrong_key_or_value_names_itself_and_what_is_allowed() {
        for (toml, said) in [
            ("lisen = ''", "unknown field `lisen`"),
            ("listen = 'here'", "listen: \"here\" is not ADDRESS:PORT"),
            ("heartbeat_ms = 1", "heartbeat_ms: 1 is out of bounds; have 10 to 60000"),
            ("ring_bytes = 3000000", "ring_bytes: 3000000 is not a power of two; 4194304 is the next"),
            ("connections_max = 1000000", "ulimit -n 200500"),
            ("feed = ['simm']", "unknown feed \"simm\"; have sim"),
            ("publish_token = 'a b'", "publish_token: wants"),
        ] {
            let error = resolve(toml).unwrap_err();
            assert!(error.contains(said), "{toml}: {error}");
        }
    }

    #[test]
    fn an_upper_layer_hides_a_lower_one_setting_by_setting() {
        let upper: Layer = toml::from_str("listen = '127.0.0.1:1'\nfeed = ['none']").unwrap();
        let lower: Layer = toml::from_str("listen = '127.0.0.1:2'\nheartbeat_ms = 50\nfeed = ['sim']").unwrap();
        let config = Config::resolve(upper.over(lower), &machine(), 1).unwrap();
        assert_eq!((config.listen.port(), config.shard.heartbeat_ms), (1, 50));
        assert_eq!(config.feeds, [feed::Spec::None]);
    }

    #[test]
    fn a_misspelt_variable_is_refused() {
        let names = |name: &str| std::iter::once(name.to_owned());
        assert!(check_variables(names("TICKCAST_LISTEN")).is_ok());
        assert!(
            check_variables(names("TICKCAST_LISTN"))
                .unwrap_err()
                .to_string()
                .contains("TICKCAST_LISTN is not a setting")
        );
    }
}
