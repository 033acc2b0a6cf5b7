//! Reloading settings while the server runs: which can change, and which need a restart.

use super::Config;
use crate::shard;

/// The outcome of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// Settings that have changed.
    pub changed: Vec<&'static str>,
    /// Settings that were changed in the file but need a restart.
    pub fixed: Vec<&'static str>,
}

macro_rules! reload {
    (fixed: $($fixed:ident)*; changed: $($changed:ident)*; shard_fixed: $($kept:ident)*; shard: $($shard:ident)*;) => {
        impl Config {
            /// Resets the settings that need a restart to those of `old`, the settings in effect.
            pub fn reload(&mut self, old: &Config) -> Reloaded {
                // A setting in none of the lists is a compile error.
                let Config { $($fixed: _,)* $($changed: _,)* shard: _, other_cores: _ } = old;
                let shard::Settings {
                    $($kept: _,)* $($shard: _,)* epoch: _, delay_s: _, close_timeout_ms: _, answers_bytes_max: _,
                    tick_bytes_max: _
                } = &old.shard;
                let mut fixed = Vec::new();
                // Clients that are connected would keep the rights of a server that identifies none.
                if self.access.is_on() != old.access.is_on() {
                    fixed.push("issuer");
                    self.access = old.access.clone();
                    self.shard.has_private_symbols = old.shard.has_private_symbols;
                }
                $(if self.$fixed != old.$fixed {
                    fixed.push(setting(stringify!($fixed)));
                    self.$fixed = old.$fixed.clone();
                })*
                $(if self.shard.$kept != old.shard.$kept {
                    fixed.push(stringify!($kept));
                    self.shard.$kept = old.shard.$kept;
                })*
                self.other_cores = old.other_cores.clone();
                let mut changed = Vec::new();
                $(if self.$changed != old.$changed {
                    changed.push(setting(stringify!($changed)));
                })*
                $(if self.shard.$shard != old.shard.$shard {
                    changed.push(stringify!($shard));
                })*
                Reloaded { changed, fixed }
            }
        }
    };
}

/// The name of a field's setting.
fn setting(field: &'static str) -> &'static str {
    match field {
        "feeds" => "feed",
        "operator_tokens" => "operator_token",
        "tls_pairs" => "tls",
        "access" => "issuer",
        "sessions" => "session",
        "archive" => "archive_dir or archive_bytes_max",
        "usage" => "usage_dir, usage_bytes_max or usage_files_max",
        "tls_limits" => {
            "tls_handshakes_per_s, tls_handshakes_per_address_per_s, tls_handshakes_pending_max or \
             tls_handshake_timeout_ms"
        }
        _ => field,
    }
}

reload! {
    // They determine sockets, threads and memory that exist already.
    fixed: listen admin_listen tls_listen tls_min_version tls_client_ca cores feeds connections_max instruments_max
        book_levels_max ring_bytes bars_bytes trades_bytes archive send_buffer_bytes receive_buffer_bytes
        notsent_lowat_bytes stale_ms instrument_expire_ms delayed spool_dir spool_bytes_max spool_conflate_ms
        revocations_file usage;
    changed: tls_pairs tls_limits publishers operator_tokens operator_certificates access enable_echo
        allow_origin allow_frame allow_host sessions log log_lines_per_s
        connections_per_address_max addresses_exempt trusted_proxies handshakes_per_s handshakes_per_address_per_s
        pending_connections_max pending_per_address_max get_units_per_address_per_s answer_bytes_max
        answer_bytes_per_address_max answer_bytes_per_connection_max echoes_max publishers_max publish_pace
        publisher_limits define_bytes_max upgrade_timeout_ms write_timeout_ms answer_timeout_ms drain_ms
        drain_timeout_ms packet_bytes_max head_bytes_max;
    shard_fixed: has_private_symbols history_ms compression inflate_ratio_max;
    shard: heartbeat_ms ping_interval_ms ping_timeout_ms idle_timeout_ms subscribe_timeout_ms slow_timeout_ms
        backlog_ms_max sent_history_bytes log_lag_ms backlog_bytes_max requests_per_s subscriptions_max
        subscriptions_per_user_max symbol_bytes_max request_bytes_max patterns_max names_max subscription_bytes_max
        request_work_per_s shard_work_per_s input_bytes_max message_timeout_ms auth_timeout_ms token_notice_s token_grace_s;
}

#[cfg(test)]
mod tests {
    use crate::config::{Layer, Machine};

    use super::*;

    fn config(toml: &str) -> Config {
        let machine = Machine { cores: vec![0, 1], descriptors_max: 20_000 };
        Config::resolve(toml::from_str::<Layer>(toml).unwrap(), &machine, 1).unwrap()
    }

    #[test]
    fn fixed_settings_keep_their_values_and_are_reported() {
        let old = config("publish_token = 'the-first-token-a'");
        let mut new = config(
            "ring_bytes = 4194304\npublish_token = 'the-second-token-b'\nidle_timeout_ms = 5000\nfeed = ['none']",
        );
        let Reloaded { changed, fixed } = new.reload(&old);
        assert_eq!((changed, fixed), (vec!["publishers", "idle_timeout_ms"], vec!["feed", "ring_bytes"]));
        assert_eq!((new.ring_bytes, new.feeds), (old.ring_bytes, old.feeds));
        assert!(new.publishers[0].tokens[0].matches(b"the-second-token-b"));
        assert_eq!(new.shard.idle_timeout_ms, 5000);
    }

    #[test]
    fn reloading_the_same_settings_changes_nothing() {
        let mut again = config("");
        assert_eq!(again.reload(&config("")), Reloaded { changed: vec![], fixed: vec![] });
    }
}
