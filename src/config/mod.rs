//! The settings of the server: flags, variables, file, defaults, ranges.
//!
//! A [`Layer`] holds settings that may be given or not. One is read from flags and `TICKCAST_*` variables (by clap), one
//! from a TOML file (by serde). [`Layer::over`] merges them, and [`Config::resolve`] checks the result: all other modules
//! read values that are valid.
//!
//! To add a setting:
//! 1. `layer.rs`: a line in `layer!` with its help, variable, value name and type. The flag and the TOML key follow from
//!    its name.
//! 2. `mod.rs`: a field of [`Config`], or of [`shard::Settings`] for a setting of a shard.
//! 3. `resolve.rs`: its default and range.
//! 4. `reload.rs`: its name in `reload!`, under `changed` if a reload applies it, under `fixed` if it needs a restart. It
//!    does not compile without.
//! 5. `describe.rs`: a limit is printed at the start with its cost.
//! 6. `docs/configuration.md`: a row of the table, which a test compares with the code.

mod access;
mod admin;
mod agreement;
mod bars;
mod delayed;
mod describe;
mod frames;
mod hosts;
mod layer;
mod origins;
mod publishers;
mod range;
mod reload;
mod resolve;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

pub use self::admin::AdminListen;
pub use self::delayed::DelayedMarket;
pub use self::frames::Framers;
pub use self::hosts::AllowedHosts;
pub use self::layer::{DelayedEntry, IssuerEntry, Layer, ProductEntry, PublisherEntry, TlsEntry, check_variables};
pub use self::origins::{Origin, Origins};
pub use self::reload::Reloaded;
pub use self::resolve::{SLOTS_MAX, descriptors_needed};
pub use self::tls::TlsLimits;

use ipnet::IpNet;

use crate::access::AccessSettings;
use crate::allowance::AllowanceRate;
use crate::archive::ArchiveSettings;
use crate::auth::Token;
use crate::bars::Session;
use crate::ingest::registry::Spec;
use crate::ingest::{IdentitySettings, PaceSettings, PublisherSettings};
use crate::sequencer::OwnerLimits;
use crate::shard;
use crate::tls::{CertificateFiles, TlsVersion};
use crate::usage::UsageSettings;

/// Why settings are invalid: the setting, its value and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{setting}: {problem}")]
    Value { setting: &'static str, problem: String },
    #[error("cannot read the configuration file {path}: {error}")]
    File { path: PathBuf, error: std::io::Error },
    #[error("configuration file {path}: {error}")]
    Toml { path: PathBuf, error: toml::de::Error },
    #[error("unknown variable {0}: expected one of {1}")]
    Variable(String, String),
}

fn invalid(setting: &'static str, problem: &str) -> ConfigError {
    ConfigError::Value { setting, problem: problem.to_owned() }
}

/// The ring of trades and quotes for bars and newest trades: a fifth of a second at a million records a second. It is read
/// every tenth of a second, and more often while many records come.
pub const BARS_RING_BYTES: usize = 16 << 20;
/// The part of `bars_bytes` that computed tickers may take besides: one in so many.
pub const TICKERS_PART: usize = 8;

/// The checked settings of a server.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: SocketAddr,
    /// Health, metrics, the operator's view and publishing. `None`: they are on `listen`.
    pub admin_listen: Option<AdminListen>,
    /// `None`: connections are not encrypted.
    pub tls_listen: Option<SocketAddr>,
    pub tls_min_version: TlsVersion,
    /// Authorities of client certificates.
    pub tls_client_ca: Option<PathBuf>,
    /// Certificates and their keys, read when they change.
    pub tls_pairs: Vec<CertificateFiles>,
    pub tls_limits: TlsLimits,
    /// Cores that run a shard each.
    pub cores: Vec<usize>,
    /// Cores for feeds and publishers: those without a shard, or all.
    pub other_cores: Vec<usize>,
    pub feeds: Vec<Spec>,
    /// Empty: publishing is off.
    pub publishers: Vec<IdentitySettings>,
    /// Empty: the operator view is served to this machine only.
    pub operator_tokens: Vec<Token>,
    /// Names of client certificates that are the operator's.
    pub operator_certificates: Vec<String>,
    /// Who may subscribe, and to what.
    pub access: AccessSettings,
    pub delayed: Vec<DelayedMarket>,
    /// Where their records wait; `None` without such a market.
    pub spool_dir: Option<PathBuf>,
    pub spool_bytes_max: u64,
    /// Of quotes and tickers; 0 for none.
    pub spool_conflate_ms: u32,
    /// Revoked tokens and users.
    pub revocations_file: Option<PathBuf>,
    /// The log of who has access.
    pub usage: UsageSettings,
    pub enable_echo: bool,
    /// Origins, beside the server's own, whose pages may use it.
    pub allow_origin: Origins,
    /// Origins whose pages may frame the page of this server.
    pub allow_frame: Framers,
    /// Names that requests may give for the server.
    pub allow_host: AllowedHosts,
    pub log: String,
    /// Lines a second of one place of the code; 0 for no limit.
    pub log_lines_per_s: u32,
    /// Of all shards together.
    pub connections_max: u32,
    /// Of one address; 0 for no limit.
    pub connections_per_address_max: u32,
    /// Addresses without limits of connections and handshakes. What they cost is limited all the same.
    pub addresses_exempt: Vec<IpNet>,
    /// Proxies whose `X-Forwarded-For` names the client.
    pub trusted_proxies: Vec<IpNet>,
    /// On one core; 0 for no limit.
    pub handshakes_per_s: u32,
    /// Of one address; 0 for no limit.
    pub handshakes_per_address_per_s: u32,
    /// Of all shards together: connections that are neither clients nor publishers.
    pub pending_connections_max: u32,
    /// Of one address; 0 for no limit.
    pub pending_per_address_max: u32,
    /// Of one address; 0 for no limit.
    pub get_units_per_address_per_s: u32,
    /// Of all responses together.
    pub answer_bytes_max: usize,
    pub answer_bytes_per_address_max: usize,
    pub answer_bytes_per_connection_max: usize,
    pub echoes_max: u32,
    pub publishers_max: u32,
    /// Of one publisher, unless its own table has another.
    pub publish_pace: PaceSettings,
    /// The same.
    pub publisher_limits: OwnerLimits,
    pub define_bytes_max: usize,
    /// Of one book.
    pub book_levels_max: usize,
    pub instruments_max: usize,
    pub ring_bytes: usize,
    /// Of all instruments together; 0 for no bars.
    pub bars_bytes: usize,
    /// Of venues, for bars.
    pub sessions: Vec<Arc<Session>>,
    /// Where bars are kept over restarts.
    pub archive: Option<ArchiveSettings>,
    /// Of all instruments together; 0 for no trades.
    pub trades_bytes: usize,
    pub send_buffer_bytes: usize,
    pub receive_buffer_bytes: usize,
    /// 0 for the machine's value.
    pub notsent_lowat_bytes: u32,
    /// Silence after which a source is stale; 0 for never.
    pub stale_ms: u32,
    /// Time after its loss at which an instrument ends; 0 for never.
    pub instrument_expire_ms: u32,
    pub upgrade_timeout_ms: u32,
    pub write_timeout_ms: u32,
    /// For a whole response.
    pub answer_timeout_ms: u32,
    pub drain_ms: u32,
    pub drain_timeout_ms: u32,
    pub packet_bytes_max: usize,
    pub head_bytes_max: usize,
    pub shard: shard::Settings,
}

/// What the machine has, for defaults and limits.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: Vec<usize>,
    /// Descriptors that this process may open.
    pub descriptors_max: u64,
}

/// Who may subscribe by these settings, for a check without a server.
///
/// # Errors
/// The setting, its value and what was expected.
pub fn access_of(layer: &Layer) -> Result<AccessSettings, ConfigError> {
    access::resolve_access(layer)
}

impl Config {
    /// Connections that one shard takes.
    pub fn slots_per_shard(&self) -> u32 {
        self.connections_max.div_ceil(self.cores.len() as u32)
    }

    /// The limits of a publisher that connects now, beside those of its identity.
    pub fn publisher_settings(&self) -> PublisherSettings {
        PublisherSettings {
            packet_bytes_max: self.packet_bytes_max,
            symbol_bytes_max: self.shard.symbol_bytes_max,
            define_bytes_max: self.define_bytes_max,
            book_levels_max: self.book_levels_max,
            inflate_ratio_max: self.shard.inflate_ratio_max,
        }
    }

    /// True for an address whose connections and handshakes are not limited by address.
    pub fn is_exempt(&self, address: IpAddr) -> bool {
        self.addresses_exempt.iter().any(|network| network.contains(&address))
    }

    /// What the plain requests of one address may cost.
    pub fn get_rate(&self) -> AllowanceRate {
        /// How many seconds' worth may be taken at once.
        const BURST_S: u64 = 4;
        let units_per_s = u64::from(self.get_units_per_address_per_s);
        AllowanceRate { units_per_s, burst: units_per_s * BURST_S }
    }

    /// Pending connections of one shard.
    pub fn pending_per_shard(&self) -> u32 {
        self.pending_connections_max.div_ceil(self.cores.len() as u32)
    }
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
    fn missing_settings_have_defaults() {
        let config = resolve("").unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:9001");
        assert_eq!(config.cores, [1, 2, 3, 4, 5]);
        assert_eq!(config.other_cores, [0]);
        assert_eq!(config.connections_max, 97_500);
    }

    #[test]
    fn core_lists_are_parsed_and_their_errors_named() {
        assert_eq!(resolve("cores = '0,2-4'").unwrap().cores, [0, 2, 3, 4]);
        assert_eq!(resolve("cores = 1").unwrap().cores, [1]);
        assert_eq!(resolve("compression = 3").unwrap().shard.compression, Some(3));
        for (list, message) in [
            ("7", "core 7 is not available"),
            ("3-1", "expected 1-3"),
            ("a", "invalid core or range \"a\""),
            ("1,1", "once"),
        ] {
            let error = resolve(&format!("cores = '{list}'")).unwrap_err();
            assert!(error.starts_with("cores: ") && error.contains(message), "{error}");
        }
    }

    #[test]
    fn errors_name_the_setting_and_what_was_expected() {
        for (toml, message) in [
            ("lisen = ''", "unknown field `lisen`"),
            ("listen = 'here'", "listen: invalid address \"here\": expected ADDRESS:PORT"),
            ("heartbeat_ms = 1", "heartbeat_ms: 1 is out of range: expected 10 to 60000"),
            ("ring_bytes = 3000000", "ring_bytes: 3000000 is not a power of two: expected one such as 4194304"),
            ("connections_max = 1000000", "ulimit -n 200500"),
            ("connections_max = 6000000", "holds at most 1048576 connections, which is 5242880 on 5 shards"),
            ("publishers_max = 4096\npending_connections_max = 20000", "a descriptor limit of 24596"),
            ("addresses_exempt = '10.0.0.0/33'", "addresses_exempt: invalid address or network \"10.0.0.0/33\""),
            ("trusted_proxies = '10.0.0.1,lb'", "trusted_proxies: invalid address or network \"lb\""),
            ("allow_origin = 'example.com'", "allow_origin: invalid origin \"example.com\""),
            ("allow_frame = 'null'", "allow_frame: invalid origin \"null\""),
            ("feed = ['simm']", "unknown feed \"simm\": expected sim"),
            ("publish_token = 'a b'", "publish_token: invalid token"),
            ("operator_token = ''", "operator_token: invalid token of 0 bytes: expected 16 to 256"),
            ("publish_token = 'fifteen-letters'", "publish_token: invalid token of 15 bytes"),
            ("bars_bytes = 1000", "bars_bytes: 1000 is out of range: expected 0, or 1048576 to"),
            ("trades_bytes = 1000", "trades_bytes: 1000 is out of range: expected 0, or 1048576 to"),
            ("compression = '10'", "compression: invalid level \"10\": expected `off` or 1"),
            ("inflate_ratio_max = 1", "inflate_ratio_max: 1 is out of range: expected 2 to 1100"),
        ] {
            let error = resolve(toml).unwrap_err();
            assert!(error.contains(message), "{toml}: {error}");
        }
    }

    #[test]
    fn exempt_addresses_are_networks_or_addresses_or_none() {
        let texts =
            |toml: &str| resolve(toml).unwrap().addresses_exempt.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(""), ["127.0.0.0/8", "::1/128"]);
        assert_eq!(
            texts("addresses_exempt = '10.1.0.0/16, 192.0.2.7,2001:db8::/32'"),
            ["10.1.0.0/16", "192.0.2.7/32", "2001:db8::/32"]
        );
        assert!(texts("addresses_exempt = 'none'").is_empty());
        assert!(resolve("").unwrap().trusted_proxies.is_empty(), "no proxy is trusted by default");
    }

    #[test]
    fn pending_connections_get_half_of_few_descriptors() {
        let few = Machine { descriptors_max: 1024, ..machine() };
        let config = Config::resolve(Layer::default(), &few, 1).unwrap();
        assert_eq!((config.pending_connections_max, config.connections_max), (512, 2620));
    }

    #[test]
    fn an_upper_layer_overrides_single_settings() {
        let upper: Layer = toml::from_str("listen = '127.0.0.1:1'\nfeed = ['none']").unwrap();
        let lower: Layer = toml::from_str("listen = '127.0.0.1:2'\nheartbeat_ms = 50\nfeed = ['sim']").unwrap();
        let config = Config::resolve(upper.over(lower), &machine(), 1).unwrap();
        assert_eq!((config.listen.port(), config.shard.heartbeat_ms), (1, 50));
        assert_eq!(config.feeds, [Spec::parse("none").unwrap()]);
    }

    #[test]
    fn a_misspelled_variable_is_refused() {
        let names = |name: &str| std::iter::once(name.to_owned());
        assert!(check_variables(names("TICKCAST_LISTEN")).is_ok());
        assert!(
            check_variables(names("TICKCAST_LISTN"))
                .unwrap_err()
                .to_string()
                .contains("unknown variable TICKCAST_LISTN")
        );
    }
}
