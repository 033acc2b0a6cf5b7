//! Limits that depend on each other: defaults that are shares of a larger limit, errors for settings that cannot hold
//! together, and warnings for those of which one has no effect.

use super::{Config, ConfigError};

/// The default of `connections_per_address_max`: half of all connections.
pub(super) fn connections_per_address_max(connections_max: u32) -> u32 {
    /// More clients behind one address are rare, and a reason to set the limit.
    const MOST: u32 = 20_000;
    connections_max.div_ceil(2).min(MOST)
}

/// The default of `pending_per_address_max`: a quarter of all pending connections.
pub(super) fn pending_per_address_max(pending_connections_max: u32) -> u32 {
    pending_connections_max.div_ceil(4)
}

/// The default of `handshakes_per_address_per_s`: at most half of what all shards take.
pub(super) fn handshakes_per_address_per_s(handshakes_per_s: u32, shards: usize) -> u32 {
    const MOST: u32 = 1000;
    match u64::from(handshakes_per_s) * shards as u64 {
        0 => MOST,
        all => all.div_ceil(2).min(MOST.into()) as u32,
    }
}

/// Refuses limits of unread responses under which a response that is allowed could never be sent.
pub(super) fn check_answers(all: usize, of_address: usize, of_connection: usize) -> Result<(), ConfigError> {
    let (setting, problem) = if of_address > all {
        ("answer_bytes_per_address_max", format!("{of_address} is above answer_bytes_max: expected at most {all}"))
    } else if of_connection > of_address {
        let problem = format!("{of_connection} is above answer_bytes_per_address_max: expected at most {of_address}");
        ("answer_bytes_per_connection_max", problem)
    } else {
        return Ok(());
    };
    Err(ConfigError::Value { setting, problem })
}

impl Config {
    /// Limits that have no effect because of another one, a sentence each. A limit that is switched off is none of them.
    pub fn warnings(&self) -> Vec<String> {
        let share = |name: &str, given: u32, of: &str, whole: u32, what: &str, expected: u32| {
            // A whole of one cannot be shared.
            (whole > 1 && given >= whole).then(|| {
                format!("{name}: {given} is not below {of}, which is {whole}: one address may take all {what}: expected {expected} or less")
            })
        };
        let handshakes = self.handshakes_per_s.saturating_mul(self.cores.len() as u32);
        let echoes = (self.enable_echo && self.echoes_max >= self.pending_connections_max).then(|| {
            format!(
                "echoes_max: {} is not below pending_connections_max, which is {}: echoes may take all pending connections",
                self.echoes_max, self.pending_connections_max
            )
        });
        let timeout = (self.answer_timeout_ms < self.write_timeout_ms).then(|| {
            format!(
                "write_timeout_ms: {} is above answer_timeout_ms, which is {}: a response has no more than that",
                self.write_timeout_ms, self.answer_timeout_ms
            )
        });
        let authorizer = self.access.authorizer.as_ref().map(|authorizer| authorizer.server.deadline().as_millis());
        let checked = authorizer.filter(|deadline_ms| *deadline_ms > self.upgrade_timeout_ms.into()).map(|deadline_ms| {
            format!(
                "authorizer_timeout_ms: {deadline_ms} is above upgrade_timeout_ms, which is {}: a request waits no longer \
                 than that",
                self.upgrade_timeout_ms
            )
        });
        let shares = [
            share(
                "connections_per_address_max",
                self.connections_per_address_max,
                "connections_max",
                self.connections_max,
                "connections",
                connections_per_address_max(self.connections_max),
            ),
            share(
                "pending_per_address_max",
                self.pending_per_address_max,
                "pending_connections_max",
                self.pending_connections_max,
                "pending connections",
                pending_per_address_max(self.pending_connections_max),
            ),
            share(
                "handshakes_per_address_per_s",
                self.handshakes_per_address_per_s,
                "handshakes_per_s of all cores",
                handshakes,
                "handshakes",
                handshakes_per_address_per_s(self.handshakes_per_s, self.cores.len()),
            ),
        ];
        shares.into_iter().chain([echoes, timeout, checked]).flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layer, Machine};

    fn resolve(toml: &str) -> Result<Config, String> {
        let machine = Machine { cores: vec![0, 1], descriptors_max: 20_000 };
        let layer = toml::from_str::<Layer>(toml).map_err(|error| error.to_string())?;
        Config::resolve(layer, &machine, 1).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_shares_of_the_limits_that_they_depend_on() {
        for (toml, connections, pending, handshakes) in [
            ("", 9750, 2500, 1000),
            ("connections_max = 7\npending_connections_max = 16", 4, 4, 1000),
            ("handshakes_per_s = 100", 9750, 2500, 50),
            ("handshakes_per_s = 0", 9750, 2500, 1000),
            ("handshakes_per_s = 1\nconnections_max = 1", 1, 2500, 1),
        ] {
            let config = resolve(toml).unwrap();
            let found = (
                config.connections_per_address_max,
                config.pending_per_address_max,
                config.handshakes_per_address_per_s,
            );
            assert_eq!(found, (connections, pending, handshakes), "{toml}");
            assert_eq!(config.warnings(), Vec::<String>::new(), "{toml}");
        }
        let answers = resolve("answer_bytes_max = 2097152").unwrap();
        assert_eq!((answers.answer_bytes_per_address_max, answers.answer_bytes_per_connection_max), (524_288, 524_288));
    }

    #[test]
    fn limits_that_contradict_each_other_name_both() {
        for (toml, first, second) in [
            (
                "connections_per_address_max = 20000",
                "connections_per_address_max: 20000",
                "connections_max, which is 19500",
            ),
            (
                "pending_per_address_max = 10000",
                "pending_per_address_max: 10000",
                "pending_connections_max, which is 10000",
            ),
            (
                "handshakes_per_address_per_s = 5000",
                "handshakes_per_address_per_s: 5000",
                "handshakes_per_s of all cores, which is 2000",
            ),
            ("echoes_max = 20000\nenable_echo = true", "echoes_max: 20000", "pending_connections_max, which is 10000"),
            (
                "authorizer_url = 'http://127.0.0.1:9'\nauthorizer_timeout_ms = 9000\nupgrade_timeout_ms = 5000",
                "authorizer_timeout_ms: 9000",
                "upgrade_timeout_ms, which is 5000",
            ),
            ("answer_timeout_ms = 1000", "write_timeout_ms: 5000", "answer_timeout_ms, which is 1000"),
        ] {
            let warnings = resolve(toml).unwrap().warnings();
            assert!(warnings.len() == 1 && warnings[0].contains(first) && warnings[0].contains(second), "{warnings:?}");
        }
        for off in
            ["connections_per_address_max = 0", "pending_per_address_max = 0", "handshakes_per_address_per_s = 0"]
        {
            assert_eq!(resolve(off).unwrap().warnings(), Vec::<String>::new(), "{off}");
        }
        for (toml, message) in [
            (
                "answer_bytes_per_address_max = 134217728",
                "answer_bytes_per_address_max: 134217728 is above answer_bytes_max: expected at most 67108864",
            ),
            (
                "answer_bytes_per_connection_max = 33554432",
                "answer_bytes_per_connection_max: 33554432 is above answer_bytes_per_address_max: expected at most 16777216",
            ),
        ] {
            assert_eq!(resolve(toml).unwrap_err(), message);
        }
    }
}
