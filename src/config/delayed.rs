//! Delayed markets: their listeners and delays, and the spool that they read.

use std::net::SocketAddr;
use std::time::Duration;

use super::range::within;
use super::{Config, ConfigError, DelayedEntry, Layer, invalid};
use crate::ingest::delay::SpoolSettings;

/// Markets at the most: each has a shard on every core, with a ring.
const MARKETS_MAX: usize = 8;
/// A week.
const DELAY_S_MAX: u32 = 7 * 86_400;
const SETTING: &str = "delayed";

/// A delayed market.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelayedMarket {
    pub delay_s: u32,
    pub listen: SocketAddr,
    pub tls_listen: Option<SocketAddr>,
    pub connections_max: u32,
}

/// The size of the spool.
pub(super) fn resolve_spool_bytes(layer: &Layer) -> Result<u64, ConfigError> {
    within("spool_bytes_max", layer.spool_bytes_max, 8 << 30, 1 << 20, 1 << 50)
}

/// The delayed markets. `taken` are the addresses of the live one. Its `connections_max` holds for each of the others by
/// default.
pub(super) fn resolve_delayed(
    layer: &Layer,
    taken: [Option<SocketAddr>; 2],
    connections_max: u32,
) -> Result<Vec<DelayedMarket>, ConfigError> {
    if layer.delayed.is_empty() {
        let orphan = [
            ("spool_dir", layer.spool_dir.is_some()),
            ("spool_bytes_max", layer.spool_bytes_max.is_some()),
            ("spool_conflate_ms", layer.spool_conflate_ms.is_some()),
        ];
        let problem = "given without a delayed market: expected a table [[delayed]] with listen";
        return match orphan.into_iter().find(|(_, is_given)| *is_given) {
            Some((setting, _)) => Err(invalid(setting, problem)),
            None => Ok(Vec::new()),
        };
    }
    if layer.delayed.len() > MARKETS_MAX {
        let problem = format!("{} markets: expected at most {MARKETS_MAX}", layer.delayed.len());
        return Err(invalid(SETTING, &problem));
    }
    if layer.spool_dir.is_none() {
        let problem =
            "missing: expected the directory where records of delayed markets wait, on a disk of its own if possible";
        return Err(invalid("spool_dir", problem));
    }
    let mut markets: Vec<DelayedMarket> = Vec::new();
    for entry in &layer.delayed {
        let market = resolve_market(entry, layer, connections_max)?;
        let addresses = markets.iter().flat_map(|market| [Some(market.listen), market.tls_listen]).flatten();
        let mut others = addresses.chain(taken.into_iter().flatten());
        let own = [Some(market.listen), market.tls_listen];
        if let Some(twice) = others.find(|other| other.port() != 0 && own.contains(&Some(*other))) {
            return Err(invalid(SETTING, &format!("{twice} is listened on already: expected another port")));
        }
        if markets.iter().any(|other| other.delay_s == market.delay_s) {
            let problem = format!("delay_s {} is given twice: expected one market for each delay", market.delay_s);
            return Err(invalid(SETTING, &problem));
        }
        markets.push(market);
    }
    Ok(markets)
}

fn resolve_market(entry: &DelayedEntry, layer: &Layer, connections_max: u32) -> Result<DelayedMarket, ConfigError> {
    let delay_s = entry.delay_s.unwrap_or(900);
    if !(1..=DELAY_S_MAX).contains(&delay_s) {
        return Err(invalid(SETTING, &format!("delay_s {delay_s} is out of range: expected 1 to {DELAY_S_MAX}")));
    }
    let address = |name: &str, text: &str| {
        text.parse::<SocketAddr>().map_err(|_| {
            invalid(SETTING, &format!("{name}: invalid address {text:?}: expected ADDRESS:PORT, such as 0.0.0.0:9002"))
        })
    };
    let tls_listen = entry.tls_listen.as_deref().map(|text| address("tls_listen", text)).transpose()?;
    if tls_listen.is_some() && layer.tls_listen.is_none() {
        let problem = "tls_listen: given without tls_listen of the live market: expected both, as they have the same certificates";
        return Err(invalid(SETTING, problem));
    }
    let given = entry.connections_max.unwrap_or(connections_max);
    if !(1..=connections_max).contains(&given) {
        let problem =
            format!("connections_max {given} is out of range: expected 1 to {connections_max}, as the server has");
        return Err(invalid(SETTING, &problem));
    }
    Ok(DelayedMarket { delay_s, listen: address("listen", &entry.listen)?, tls_listen, connections_max: given })
}

impl Config {
    /// The spool of the delayed markets, if there are any.
    pub fn spool(&self) -> Option<SpoolSettings> {
        let delays = || self.delayed.iter().map(|market| Duration::from_secs(market.delay_s.into()));
        Some(SpoolSettings {
            directory: self.spool_dir.clone()?,
            bytes_max: self.spool_bytes_max,
            conflate: Duration::from_millis(self.spool_conflate_ms.into()),
            shortest_delay: delays().min()?,
            longest_delay: delays().max()?,
        })
    }

    /// The settings of a delayed market: those of the live one, with listeners and numbers of its own. It has no
    /// publishers. Its feed and epoch are set where it is started.
    pub fn of_delayed(&self, market: &DelayedMarket) -> Self {
        // All of them have descriptors of one process.
        let servers = self.delayed.len() as u32 + 1;
        let pending_connections_max = (self.pending_connections_max / servers).max(16);
        let mut config = Self {
            listen: market.listen,
            tls_listen: market.tls_listen,
            admin_listen: None,
            feeds: Vec::new(),
            publishers: Vec::new(),
            enable_echo: false,
            connections_max: market.connections_max,
            pending_connections_max,
            pending_per_address_max: self.pending_per_address_max.min(pending_connections_max),
            delayed: Vec::new(),
            spool_dir: None,
            ..self.clone()
        };
        config.shard.delay_s = market.delay_s;
        config
    }

    /// The delayed markets, for the start of the server.
    pub(super) fn describe_delayed(&self) -> String {
        let Some(spool) = self.spool() else { return "none".to_owned() };
        let market = |market: &DelayedMarket| {
            let tls = market.tls_listen.map_or_else(String::new, |tls| format!(" and {tls} with TLS"));
            format!("{} s on {}{tls}, connections_max {}", market.delay_s, market.listen, market.connections_max)
        };
        let markets: Vec<_> = self.delayed.iter().map(market).collect();
        format!(
            "{}; each has the memory and the limits of a server of its own; spool_dir {}, spool_bytes_max {} MiB, spool_conflate_ms {}",
            markets.join("; "),
            spool.directory.display(),
            spool.bytes_max >> 20,
            self.spool_conflate_ms,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::Machine;
    use super::*;

    fn resolve(toml: &str) -> Result<Config, String> {
        let machine = Machine { cores: vec![0, 1], descriptors_max: 20_000 };
        let layer = toml::from_str::<Layer>(toml).map_err(|error| error.to_string())?;
        Config::resolve(layer, &machine, 1).map_err(|error| error.to_string())
    }

    const SPOOL: &str = "spool_dir = '/var/lib/tickcast/spool'\n";

    #[test]
    fn markets_have_a_delay_and_a_listener_of_their_own() {
        let config = resolve(&format!(
            "{SPOOL}[[delayed]]\nlisten = '0.0.0.0:9002'\n[[delayed]]\nlisten = '0.0.0.0:9003'\ndelay_s = 60\nconnections_max = 10"
        ))
        .unwrap();
        let delays: Vec<_> = config.delayed.iter().map(|market| (market.delay_s, market.listen.port())).collect();
        assert_eq!(delays, [(900, 9002), (60, 9003)]);
        let spool = config.spool().unwrap();
        assert_eq!((spool.shortest_delay.as_secs(), spool.longest_delay.as_secs()), (60, 900));
        let of_market = config.of_delayed(&config.delayed[1]);
        assert_eq!((of_market.shard.delay_s, of_market.connections_max, of_market.listen.port()), (60, 10, 9003));
        assert!(of_market.publishers.is_empty() && of_market.admin_listen.is_none() && of_market.spool().is_none());
        assert_eq!(resolve("").unwrap().delayed, []);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (toml, message) in [
            (SPOOL.to_owned(), "spool_dir: given without a delayed market: expected a table [[delayed]]"),
            ("[[delayed]]\nlisten = '0.0.0.0:9002'".to_owned(), "spool_dir: missing: expected the directory"),
            (format!("{SPOOL}[[delayed]]\ndelay_s = 5"), "missing field `listen`"),
            (format!("{SPOOL}[[delayed]]\nlisten = 'x'"), "delayed: listen: invalid address \"x\""),
            (
                format!("{SPOOL}[[delayed]]\nlisten = '127.0.0.1:9001'"),
                "delayed: 127.0.0.1:9001 is listened on already",
            ),
            (
                format!("{SPOOL}[[delayed]]\nlisten = '0.0.0.0:2'\ndelay_s = 0"),
                "delay_s 0 is out of range: expected 1 to",
            ),
            (
                format!("{SPOOL}[[delayed]]\nlisten = '0.0.0.0:2'\n[[delayed]]\nlisten = '0.0.0.0:3'"),
                "delay_s 900 is given twice",
            ),
            (
                format!("{SPOOL}[[delayed]]\nlisten = '0.0.0.0:2'\ntls_listen = '0.0.0.0:3'"),
                "delayed: tls_listen: given without tls_listen of the live market",
            ),
            (
                format!("{SPOOL}[[delayed]]\nlisten = '0.0.0.0:2'\nconnections_max = 0"),
                "connections_max 0 is out of range",
            ),
            (
                format!("spool_bytes_max = 5\n{SPOOL}[[delayed]]\nlisten = '0.0.0.0:2'"),
                "spool_bytes_max: 5 is out of range",
            ),
        ] {
            let error = resolve(&toml).unwrap_err();
            assert!(error.contains(message), "{toml}: {error}");
        }
    }
}
