//! From a layer of settings to a checked configuration: defaults, ranges, and the limits of the machine.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::access::{has_access, resolve_access};
use super::agreement;
use super::bars::{resolve_archive, resolve_bytes, resolve_sessions};
use super::delayed::{resolve_delayed, resolve_spool_bytes};
use super::publishers::{resolve_identities, resolve_operator_certificates, resolve_tokens};
use super::range::within;
use super::tls::{TlsLimits, TlsListener};
use super::{AdminListen, AllowedHosts, Config, ConfigError, Framers, Layer, Machine, Origins};
use crate::auth::Token;
use crate::ingest::PaceSettings;
use crate::ingest::registry::Spec;
use crate::sequencer::OwnerLimits;
use crate::shard;
use crate::usage::UsageSettings;

/// Descriptors that are neither connections nor publishers: listeners, rings, eventfds, files.
const DESCRIPTORS_RESERVED: u64 = 500;
/// The kernel's own limit on the registered files of one ring (`IORING_MAX_FIXED_FILES`).
pub const SLOTS_MAX: u64 = 1 << 20;

/// The default of `addresses_exempt`.
const LOOPBACK: &str = "127.0.0.0/8,::1";

/// A setting of the layer, checked against its range, or its default.
macro_rules! within {
    ($layer:ident.$name:ident, $default:expr, $least:expr, $most:expr) => {
        within(stringify!($name), $layer.$name, $default, $least, $most)?
    };
}

impl Config {
    /// Checks the settings and fills in the defaults.
    ///
    /// # Errors
    /// The setting, its value and what was expected.
    pub fn resolve(layer: Layer, machine: &Machine, epoch: u32) -> Result<Self, ConfigError> {
        let sizes = Sizes::resolve(&layer, machine)?;
        let (answers, listen) = (AnswerLimits::resolve(&layer)?, resolve_listen(layer.listen.as_deref())?);
        let tls = TlsListener::resolve(&layer, listen)?;
        Ok(Self {
            listen,
            tls_listen: tls.listen,
            tls_min_version: tls.min_version,
            tls_client_ca: layer.tls_client_ca.clone(),
            tls_pairs: tls.pairs,
            tls_limits: TlsLimits::resolve(&layer, sizes.cores.len(), sizes.pending_connections_max)?,
            admin_listen: resolve_admin_listen(layer.admin_listen.as_deref(), listen)?,
            feeds: resolve_feeds(&feed_texts(&layer))?,
            publishers: resolve_identities(&layer, resolve_publisher_limits(&layer)?, resolve_pace(&layer)?)?,
            operator_tokens: resolve_operator_tokens(&layer)?,
            operator_certificates: resolve_operator_certificates(&layer)?,
            access: resolve_access(&layer)?,
            delayed: resolve_delayed(&layer, [Some(listen), tls.listen], sizes.connections_max)?,
            spool_dir: layer.spool_dir.clone(),
            spool_bytes_max: resolve_spool_bytes(&layer)?,
            spool_conflate_ms: within!(layer.spool_conflate_ms, 0, 0, 60_000),
            revocations_file: layer.revocations_file.clone(),
            usage: resolve_usage(&layer)?,
            enable_echo: layer.enable_echo.unwrap_or(false),
            allow_origin: resolve_origins(layer.allow_origin.as_deref().unwrap_or("none"))?,
            allow_frame: resolve_framers(layer.allow_frame.as_deref().unwrap_or("none"))?,
            allow_host: resolve_hosts(layer.allow_host.as_deref())?,
            log: layer.log.clone().unwrap_or_else(|| "info".to_owned()),
            log_lines_per_s: within!(layer.log_lines_per_s, 20, 0, 1_000_000),
            connections_max: sizes.connections_max,
            connections_per_address_max: sizes.shares.connections_max,
            addresses_exempt: resolve_exempt(&layer)?,
            trusted_proxies: resolve_networks("trusted_proxies", layer.trusted_proxies.as_deref().unwrap_or("none"))?,
            handshakes_per_s: sizes.shares.of_all_per_s,
            handshakes_per_address_per_s: sizes.shares.handshakes_per_s,
            pending_connections_max: sizes.pending_connections_max,
            pending_per_address_max: sizes.shares.pending_max,
            get_units_per_address_per_s: within!(layer.get_units_per_address_per_s, 1000, 0, 1_000_000_000),
            answer_bytes_max: answers.all,
            answer_bytes_per_address_max: answers.of_address,
            answer_bytes_per_connection_max: answers.of_connection,
            echoes_max: within!(layer.echoes_max, 256, 1, 1_000_000),
            publishers_max: sizes.publishers_max,
            publish_pace: resolve_pace(&layer)?,
            publisher_limits: resolve_publisher_limits(&layer)?,
            define_bytes_max: within!(layer.define_bytes_max, 1 << 20, 1024, 64 << 20),
            book_levels_max: within!(layer.book_levels_max, 20_000, 2, 10_000_000),
            instruments_max: within!(layer.instruments_max, 20_000, 1, 10_000_000),
            ring_bytes: resolve_ring_bytes(layer.ring_bytes)?,
            bars_bytes: resolve_bytes("bars_bytes", layer.bars_bytes, 128 << 20)?,
            trades_bytes: resolve_bytes("trades_bytes", layer.trades_bytes, 32 << 20)?,
            archive: resolve_archive(&layer)?,
            sessions: resolve_sessions(&layer)?,
            send_buffer_bytes: within!(layer.send_buffer_bytes, 64 << 10, 4096, 64 << 20),
            receive_buffer_bytes: within!(layer.receive_buffer_bytes, 64 << 10, 4096, 64 << 20),
            notsent_lowat_bytes: within!(layer.notsent_lowat_bytes, 16 << 10, 0, 64 << 20),
            stale_ms: within!(layer.stale_ms, 10_000, 0, 86_400_000),
            instrument_expire_ms: within!(layer.instrument_expire_ms, 3_600_000, 0, 604_800_000),
            upgrade_timeout_ms: within!(layer.upgrade_timeout_ms, 10_000, 100, 600_000),
            write_timeout_ms: within!(layer.write_timeout_ms, 5000, 100, 600_000),
            answer_timeout_ms: within!(layer.answer_timeout_ms, 30_000, 100, 3_600_000),
            drain_ms: within!(layer.drain_ms, 1000, 0, 600_000),
            drain_timeout_ms: within!(layer.drain_timeout_ms, 2000, 0, 600_000),
            packet_bytes_max: within!(layer.packet_bytes_max, 16 << 20, 1024, 256 << 20),
            head_bytes_max: within!(layer.head_bytes_max, 16 << 10, 512, 1 << 20),
            shard: resolve_shard(&layer, epoch)?,
            other_cores: without(&machine.cores, &sizes.cores),
            cores: sizes.cores,
        })
    }
}

/// The cores of the shards, and how many connections of which kind they take together.
struct Sizes {
    cores: Vec<usize>,
    connections_max: u32,
    publishers_max: u32,
    pending_connections_max: u32,
    shares: AddressShares,
}

impl Sizes {
    fn resolve(layer: &Layer, machine: &Machine) -> Result<Self, ConfigError> {
        let cores = resolve_cores(layer.cores.as_deref(), machine)?;
        let connections_max = resolve_connections(layer.connections_max, machine, cores.len())?;
        let (publishers_max, pending_connections_max) = resolve_pending(layer, machine)?;
        let shares = AddressShares::resolve(layer, connections_max, pending_connections_max, cores.len())?;
        Ok(Self { cores, connections_max, publishers_max, pending_connections_max, shares })
    }
}

/// Limits of one address, and the handshakes of all together.
struct AddressShares {
    of_all_per_s: u32,
    connections_max: u32,
    pending_max: u32,
    handshakes_per_s: u32,
}

impl AddressShares {
    /// The limits as given; where they are not, by those of all addresses together.
    fn resolve(layer: &Layer, connections_max: u32, pending_max: u32, cores: usize) -> Result<Self, ConfigError> {
        let of_all_per_s = within!(layer.handshakes_per_s, 2000, 0, 1_000_000);
        let connections_max = agreement::connections_per_address_max(connections_max);
        let pending_max = agreement::pending_per_address_max(pending_max);
        let handshakes_per_s = agreement::handshakes_per_address_per_s(of_all_per_s, cores);
        Ok(Self {
            of_all_per_s,
            connections_max: layer.connections_per_address_max.unwrap_or(connections_max),
            pending_max: within!(layer.pending_per_address_max, pending_max, 0, 1_000_000),
            handshakes_per_s: within!(layer.handshakes_per_address_per_s, handshakes_per_s, 0, 1_000_000),
        })
    }
}

fn resolve_publisher_limits(layer: &Layer) -> Result<OwnerLimits, ConfigError> {
    Ok(OwnerLimits {
        instruments_max: within!(layer.publisher_instruments_max, 20_000, 1, 10_000_000),
        ids_max: within!(layer.publisher_ids_max, 100_000, 1, 1 << 31),
    })
}

fn resolve_exempt(layer: &Layer) -> Result<Vec<IpNet>, ConfigError> {
    resolve_networks("addresses_exempt", layer.addresses_exempt.as_deref().unwrap_or(LOOPBACK))
}

fn feed_texts(layer: &Layer) -> Vec<String> {
    if layer.feed.is_empty() { vec!["sim".to_owned()] } else { layer.feed.clone() }
}

fn resolve_operator_tokens(layer: &Layer) -> Result<Vec<Token>, ConfigError> {
    resolve_tokens("operator_token", layer.operator_token.as_deref(), layer.operator_token_file.as_deref())
}

/// Memory for unread responses.
struct AnswerLimits {
    all: usize,
    of_address: usize,
    of_connection: usize,
}

impl AnswerLimits {
    fn resolve(layer: &Layer) -> Result<Self, ConfigError> {
        /// A portion of a large response, and some.
        const LEAST: usize = 256 << 10;
        let all = within!(layer.answer_bytes_max, 64 << 20, LEAST, 64 << 30);
        let of_address = within!(layer.answer_bytes_per_address_max, all.div_ceil(4).max(LEAST), LEAST, 64 << 30);
        let default = (4 << 20).min(of_address);
        let of_connection = within!(layer.answer_bytes_per_connection_max, default, LEAST, 64 << 30);
        agreement::check_answers(all, of_address, of_connection)?;
        Ok(Self { all, of_address, of_connection })
    }
}

fn resolve_shard(layer: &Layer, epoch: u32) -> Result<shard::Settings, ConfigError> {
    let defaults = shard::Settings::default();
    Ok(shard::Settings {
        epoch,
        heartbeat_ms: within!(layer.heartbeat_ms, defaults.heartbeat_ms, 10, 60_000),
        ping_interval_ms: within!(layer.ping_interval_ms, defaults.ping_interval_ms, 100, 3_600_000),
        ping_timeout_ms: within!(layer.ping_timeout_ms, defaults.ping_timeout_ms, 100, 3_600_000),
        idle_timeout_ms: within!(layer.idle_timeout_ms, defaults.idle_timeout_ms, 200, 86_400_000),
        subscribe_timeout_ms: within!(layer.subscribe_timeout_ms, defaults.subscribe_timeout_ms, 0, 86_400_000),
        slow_timeout_ms: within!(layer.slow_timeout_ms, defaults.slow_timeout_ms, 100, 3_600_000),
        backlog_ms_max: within!(layer.backlog_ms_max, defaults.backlog_ms_max, 1000, 86_400_000),
        sent_history_bytes: within!(layer.sent_history_bytes, defaults.sent_history_bytes, 0, 4 << 30),
        log_lag_ms: within!(layer.log_lag_ms, defaults.log_lag_ms, 0, 3_600_000),
        backlog_bytes_max: within!(layer.backlog_bytes_max, defaults.backlog_bytes_max, 64 << 10, 2 << 30),
        history_ms: within!(layer.history_ms, defaults.history_ms, 0, 86_400_000),
        has_private_symbols: has_access(layer),
        auth_timeout_ms: within!(layer.auth_timeout_ms, defaults.auth_timeout_ms, 100, 600_000),
        token_notice_s: within!(layer.token_notice_s, defaults.token_notice_s, 0, 86_400),
        token_grace_s: within!(layer.token_grace_s, defaults.token_grace_s, 0, 3600),
        requests_per_s: within!(layer.requests_per_s, defaults.requests_per_s, 1, 1_000_000),
        subscriptions_max: within!(layer.subscriptions_max, defaults.subscriptions_max, 1, 1_000_000),
        subscriptions_per_user_max: within!(
            layer.subscriptions_per_user_max,
            defaults.subscriptions_per_user_max,
            0,
            1_000_000_000
        ),
        patterns_max: within!(layer.patterns_max, defaults.patterns_max, 1, 10_000),
        names_max: within!(layer.names_max, defaults.names_max, 1, 100_000_000),
        subscription_bytes_max: within!(
            layer.subscription_bytes_max,
            defaults.subscription_bytes_max,
            1 << 20,
            1 << 40
        ),
        request_work_per_s: within!(layer.request_work_per_s, defaults.request_work_per_s, 0, 1_000_000_000),
        shard_work_per_s: within!(layer.shard_work_per_s, defaults.shard_work_per_s, 0, 1_000_000_000),
        input_bytes_max: within!(layer.input_bytes_max, defaults.input_bytes_max, 64 << 10, 1 << 40),
        message_timeout_ms: within!(layer.message_timeout_ms, defaults.message_timeout_ms, 100, 3_600_000),
        // The directory's own limit, and the wire's: a Definition has a byte for the length.
        symbol_bytes_max: within!(layer.symbol_bytes_max, defaults.symbol_bytes_max, 1, 255),
        request_bytes_max: within!(layer.request_bytes_max, defaults.request_bytes_max, 256, 64 << 20),
        compression: resolve_compression(layer.compression.as_deref().unwrap_or("off"))?,
        // No DEFLATE stream comes to more than 1032.
        inflate_ratio_max: within!(layer.inflate_ratio_max, defaults.inflate_ratio_max, 2, 1100),
        ..defaults
    })
}

fn value(setting: &'static str, problem: String) -> ConfigError {
    ConfigError::Value { setting, problem }
}

fn resolve_listen(given: Option<&str>) -> Result<SocketAddr, ConfigError> {
    let listen = given.unwrap_or("127.0.0.1:9001");
    listen.parse().map_err(|_| {
        let problem = format!(
            "invalid address {listen:?}: expected ADDRESS:PORT, such as 127.0.0.1:9001, 0.0.0.0:9001 or [::]:9001"
        );
        value("listen", problem)
    })
}

fn resolve_admin_listen(given: Option<&str>, listen: SocketAddr) -> Result<Option<AdminListen>, ConfigError> {
    let Some(given) = given else { return Ok(None) };
    let parsed = AdminListen::parse(given).map_err(|problem| value("admin_listen", problem))?;
    if listen.port() != 0 && parsed == AdminListen::Address(listen) {
        return Err(value("admin_listen", format!("{listen} is also listen: expected another address or port")));
    }
    Ok(Some(parsed))
}

fn resolve_usage(layer: &Layer) -> Result<UsageSettings, ConfigError> {
    let folder = layer.usage_dir.clone();
    if folder.as_ref().is_some_and(|folder| folder.as_os_str().is_empty()) {
        return Err(value("usage_dir", "empty: expected a folder".to_owned()));
    }
    Ok(UsageSettings {
        folder,
        bytes_max: within!(layer.usage_bytes_max, 64 << 20, 4096, 1 << 40),
        files_max: within!(layer.usage_files_max, 1200, 2, 1_000_000),
    })
}

fn resolve_ring_bytes(given: Option<usize>) -> Result<usize, ConfigError> {
    let bytes = within("ring_bytes", given, 32 << 20, 2 << 20, 2 << 30)?;
    if !bytes.is_power_of_two() {
        let near = bytes.next_power_of_two();
        return Err(value("ring_bytes", format!("{bytes} is not a power of two: expected one such as {near}")));
    }
    Ok(bytes)
}

fn resolve_compression(given: &str) -> Result<Option<u8>, ConfigError> {
    match given {
        "off" => Ok(None),
        level => match level.parse() {
            Ok(level @ 1..=9) => Ok(Some(level)),
            _ => {
                let problem = format!("invalid level {level:?}: expected `off` or 1 (fastest) to 9 (smallest)");
                Err(value("compression", problem))
            }
        },
    }
}

fn resolve_feeds(specs: &[String]) -> Result<Vec<Spec>, ConfigError> {
    specs.iter().map(|spec| Spec::parse(spec).map_err(|error| value("feed", error.to_string()))).collect()
}

fn resolve_pace(layer: &Layer) -> Result<PaceSettings, ConfigError> {
    Ok(PaceSettings {
        records_per_s: within!(layer.publish_records_per_s, 1_000_000, 0, 1_000_000_000),
        bytes_per_s: within!(layer.publish_bytes_per_s, 128 << 20, 0, u32::MAX),
        levels_per_s: within!(layer.publish_levels_per_s, 5_000_000, 0, 1_000_000_000),
        definitions_per_s: within!(layer.publish_definitions_per_s, 20_000, 0, 1_000_000_000),
    })
}

/// The descriptor limit that this many connections on this many shards need.
pub fn descriptors_needed(connections: u64, shards: u64) -> u64 {
    connections.div_ceil(shards) + DESCRIPTORS_RESERVED
}

fn resolve_connections(given: Option<u32>, machine: &Machine, shards: usize) -> Result<u32, ConfigError> {
    let (descriptors, shards) = (machine.descriptors_max, shards as u64);
    // A slot needs no descriptor of the process, but the kernel limits each ring's table by the same number.
    let possible = (descriptors.saturating_sub(DESCRIPTORS_RESERVED)).min(SLOTS_MAX) * shards;
    let problem = match given.map(u64::from) {
        None => return Ok(possible.clamp(1, 1_000_000) as u32),
        Some(0) => "0 is out of range: expected at least 1".to_owned(),
        // No descriptor limit helps here.
        Some(given) if given > SLOTS_MAX * shards => format!(
            "{given} connections are too many: a shard's ring holds at most {SLOTS_MAX} connections, which is {} on \
             {shards} shards; ask for as many, or give more cores with --cores",
            SLOTS_MAX * shards
        ),
        Some(given) if given > possible => {
            let needed = descriptors_needed(given, shards);
            format!(
                "{given} connections on {shards} shards need a descriptor limit of {needed}, and it is {descriptors}; raise it with \
                 'ulimit -n {needed}' (LimitNOFILE={needed} in a systemd unit), or ask for at most {possible}"
            )
        }
        Some(given) => return Ok(given as u32),
    };
    Err(value("connections_max", problem))
}

/// Pending connections and publishers have descriptors of the process.
fn resolve_pending(layer: &Layer, machine: &Machine) -> Result<(u32, u32), ConfigError> {
    let publishers_max = within!(layer.publishers_max, 64, 1, 4096);
    let given = layer.pending_connections_max;
    let descriptors = machine.descriptors_max;
    let pending = match given {
        Some(_) => within("pending_connections_max", given, 0, 16, 1_000_000)?,
        None => (descriptors / 2).clamp(16, 10_000) as u32,
    };
    let needed = u64::from(pending) + u64::from(publishers_max) + DESCRIPTORS_RESERVED;
    if (given.is_some() || publishers_max > 64) && needed > descriptors {
        let problem = format!(
            "{publishers_max} publishers and {pending} pending connections (pending_connections_max) need a descriptor limit of \
             {needed}, and it is {descriptors}; raise it with 'ulimit -n {needed}' (LimitNOFILE={needed} in a systemd unit), or \
             lower one of them"
        );
        return Err(value("publishers_max", problem));
    }
    Ok((publishers_max, pending))
}

fn resolve_origins(list: &str) -> Result<Origins, ConfigError> {
    Origins::parse(list).map_err(|problem| value("allow_origin", problem))
}

fn resolve_framers(list: &str) -> Result<Framers, ConfigError> {
    Framers::parse(list).map_err(|problem| value("allow_frame", problem))
}

fn resolve_hosts(list: Option<&str>) -> Result<AllowedHosts, ConfigError> {
    let parsed = list.map_or(Ok(AllowedHosts::ByListener), AllowedHosts::parse);
    parsed.map_err(|problem| value("allow_host", problem))
}

fn resolve_networks(setting: &'static str, list: &str) -> Result<Vec<IpNet>, ConfigError> {
    let parse = |text: &str| {
        let text = text.trim();
        let one = || text.parse::<IpAddr>().ok().map(IpNet::from);
        text.parse().ok().or_else(one).ok_or_else(|| {
            let problem =
                format!("invalid address or network {text:?}: expected a list like 10.0.0.0/8,192.0.2.7,::1, or none");
            value(setting, problem)
        })
    };
    if list.trim() == "none" { Ok(Vec::new()) } else { list.split(',').map(parse).collect() }
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
            return Err(value("cores", format!("invalid core or range {part:?}: expected a list like 0,2-5")));
        };
        if first > last {
            return Err(value("cores", format!("invalid range {part:?}: expected {last}-{first}")));
        }
        for core in first..=last {
            if !machine.cores.contains(&core) {
                return Err(value(
                    "cores",
                    format!("core {core} is not available to this process: expected cores of {:?}", machine.cores),
                ));
            }
            cores.push(core);
        }
    }
    cores.sort_unstable();
    let named = cores.len();
    cores.dedup();
    if cores.len() < named {
        return Err(value("cores", format!("invalid list {list:?}: expected each core once")));
    }
    Ok(cores)
}

/// The cores that are not taken, or all if none is left.
fn without(all: &[usize], taken: &[usize]) -> Vec<usize> {
    let left: Vec<usize> = all.iter().copied().filter(|core| !taken.contains(core)).collect();
    if left.is_empty() { all.to_vec() } else { left }
}
