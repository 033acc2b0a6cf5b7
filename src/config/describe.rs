//! The settings as text for the start of the server, with the cost of each limit.

use ipnet::IpNet;

use super::{Config, TlsLimits};
use crate::io::sealed::SEAL_BYTES_MAX;
use crate::tls::{TlsVersion, sealed_bytes_max};

impl Config {
    /// The effective settings, one a line, with the cost of the limits.
    pub fn describe(&self) -> String {
        let lines = [
            self.describe_node(),
            self.describe_bar_settings(),
            self.describe_http(),
            self.describe_access(),
            self.describe_publishers(),
            self.describe_clients(),
        ];
        lines.concat().into_iter().map(|(name, text)| format!("  {name:<21} {text}\n")).collect()
    }

    fn describe_node(&self) -> Vec<(&'static str, String)> {
        let (slots, shards) = (self.connections_max as usize, self.cores.len());
        vec![
            ("listen", self.listen.to_string()),
            ("admin_listen", self.admin_listen.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)),
            ("tls_listen", self.describe_tls()),
            ("delayed", self.describe_delayed()),
            ("cores", format!("{:?}, feeds and publishers on {:?}", self.cores, self.other_cores)),
            ("feed", self.feeds.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ; ")),
            ("ring_bytes", format!("{} a shard, {} in all", mib(self.ring_bytes), mib(self.ring_bytes * shards))),
            (
                "connections_max",
                format!("{slots}, some 4 KiB in the kernel and 200 B each: {} when full", mib(slots * 4300)),
            ),
            (
                "send_buffer_bytes",
                format!(
                    "at most {} a connection: {} if all were stalled",
                    self.send_buffer_bytes,
                    mib(slots * self.send_buffer_bytes)
                ),
            ),
            (
                "receive_buffer_bytes",
                format!(
                    "at most {} a connection whose input is not read: {} if none were read",
                    2 * self.receive_buffer_bytes,
                    mib(slots * 2 * self.receive_buffer_bytes)
                ),
            ),
            (
                "notsent_lowat_bytes",
                match self.notsent_lowat_bytes {
                    0 => "that of the machine, net.ipv4.tcp_notsent_lowat".to_owned(),
                    bytes => format!("{bytes} of unsent data in the kernel, about, for each connection"),
                },
            ),
            (
                "instruments_max",
                format!(
                    "{}, some 400 B and their books each, once for the sequencer and once a shard, and 170 B for /v1/instruments: {} when full",
                    self.instruments_max,
                    mib(self.instruments_max * (400 * (shards + 1) + 170))
                ),
            ),
            ("history_ms", format!("{}, limited by ring_bytes: some 350,000 quotes in 32 MiB", self.shard.history_ms)),
            (
                "sent_history_bytes",
                format!(
                    "{} a shard, {} in all, while subscribers are behind; and at most 24 MiB a shard for their Gaps",
                    mib(self.shard.sent_history_bytes),
                    mib(self.shard.sent_history_bytes * shards)
                ),
            ),
            (
                "backlog_bytes_max",
                format!(
                    "{} of the ring, backlog_ms_max {}",
                    mib(self.ring_bytes.min(self.shard.backlog_bytes_max as usize)),
                    self.shard.backlog_ms_max
                ),
            ),
            ("stale_ms", if self.stale_ms == 0 { "never".to_owned() } else { self.stale_ms.to_string() }),
            (
                "instrument_expire_ms",
                if self.instrument_expire_ms == 0 { "never".to_owned() } else { self.instrument_expire_ms.to_string() },
            ),
        ]
    }

    fn describe_tls(&self) -> String {
        let Some(listen) = self.tls_listen else { return "none".to_owned() };
        let least = if self.tls_min_version == TlsVersion::Tls13 { "1.3" } else { "1.2 and 1.3" };
        let clients = self
            .tls_client_ca
            .as_ref()
            .map_or_else(String::new, |ca| format!(", client certificates of {}", ca.display()));
        let TlsLimits { handshakes_per_s, handshakes_per_address_per_s, .. } = self.tls_limits;
        let TlsLimits { handshakes_pending_max, handshake_timeout_ms, .. } = self.tls_limits;
        format!(
            "{listen}, TLS {least}, {} certificate(s){clients}; some 4 KiB a connection beside a plain one, and at most {} \
             for what its socket does not take; {} handshakes a second and core, 0.1 to 0.3 ms each, {} of one address, {} \
             under way of up to 28 KiB each, tls_handshake_timeout_ms {handshake_timeout_ms}",
            self.tls_pairs.len(),
            sealed_bytes_max(SEAL_BYTES_MAX),
            unless_0(handshakes_per_s),
            unless_0(handshakes_per_address_per_s),
            unless_0(handshakes_pending_max),
        )
    }

    fn describe_http(&self) -> Vec<(&'static str, String)> {
        vec![
            (
                "pending_connections_max",
                format!(
                    "at most {} besides subscribers, a descriptor and some 6 KiB each, {} in all, and answer_bytes_max; echoes_max {}",
                    self.pending_connections_max,
                    mib(self.pending_connections_max as usize * 6144),
                    self.echoes_max
                ),
            ),
            (
                "pending_per_address_max",
                format!(
                    "{}; get_units_per_address_per_s {}",
                    unless_0(self.pending_per_address_max),
                    unless_0(self.get_units_per_address_per_s)
                ),
            ),
            (
                "answer_bytes_max",
                format!(
                    "{} of unread responses, {} of one address, {} of one connection, answer_timeout_ms {}",
                    mib(self.answer_bytes_max),
                    mib(self.answer_bytes_per_address_max),
                    mib(self.answer_bytes_per_connection_max),
                    self.answer_timeout_ms
                ),
            ),
            (
                "handshakes_per_s",
                format!(
                    "{} a core, some 0.1 ms of it each; {} of one address",
                    unless_0(self.handshakes_per_s),
                    unless_0(self.handshakes_per_address_per_s)
                ),
            ),
            (
                "per_address_max",
                format!(
                    "{} connections, some 100 B an address; exempt: {}; trusted_proxies {}",
                    unless_0(self.connections_per_address_max),
                    networks(&self.addresses_exempt),
                    networks(&self.trusted_proxies)
                ),
            ),
            (
                "upgrade_timeout_ms",
                format!(
                    "{}, write_timeout_ms {}, head_bytes_max {}, drain_ms {}, drain_timeout_ms {}",
                    self.upgrade_timeout_ms,
                    self.write_timeout_ms,
                    self.head_bytes_max,
                    self.drain_ms,
                    self.drain_timeout_ms
                ),
            ),
            ("allow_origin", format!("{} besides the server's own", self.allow_origin)),
            ("allow_frame", self.allow_frame.to_string()),
            ("allow_host", self.allow_host.to_string()),
            ("echo", if self.enable_echo { "on" } else { "off" }.to_owned()),
        ]
    }

    fn describe_access(&self) -> Vec<(&'static str, String)> {
        vec![
            (
                "access",
                format!(
                    "{}; auth_timeout_ms {}, token_notice_s {}, token_grace_s {}",
                    self.access, self.shard.auth_timeout_ms, self.shard.token_notice_s, self.shard.token_grace_s
                ),
            ),
            (
                "sessions_per_user_max",
                format!(
                    "{}, session_policy {}, some 400 B a session",
                    unless_0(self.access.sessions.per_user_max),
                    self.access.sessions.policy.word()
                ),
            ),
            ("usage_dir", self.usage.to_string()),
        ]
    }

    fn describe_identities(&self) -> String {
        let names: Vec<&str> = self.publishers.iter().map(|identity| identity.name.as_str()).collect();
        if names.is_empty() { "off".to_owned() } else { format!("on, for the tokens of {}", names.join(", ")) }
    }

    fn describe_publishers(&self) -> Vec<(&'static str, String)> {
        vec![
            ("publish", self.describe_identities()),
            (
                "operator",
                if !self.operator_tokens.is_empty() { "with a token" } else { "for a local admin listener only" }
                    .to_owned(),
            ),
            ("publishers_max", format!("{}, a thread and some 400 KiB each", self.publishers_max)),
            (
                "publish_records_per_s",
                format!(
                    "{} of a publisher, publish_bytes_per_s {}, publish_levels_per_s {}, publish_definitions_per_s {}",
                    unless_0(self.publish_pace.records_per_s),
                    unless_0(self.publish_pace.bytes_per_s),
                    unless_0(self.publish_pace.levels_per_s),
                    unless_0(self.publish_pace.definitions_per_s)
                ),
            ),
            (
                "publisher_instruments_max",
                format!(
                    "{} of a publisher, some 100 B each; publisher_ids_max {}, some 500 B each, also when released: {}",
                    self.publisher_limits.instruments_max,
                    self.publisher_limits.ids_max,
                    mib(self.publisher_limits.ids_max as usize * 500 * (self.cores.len() + 1))
                ),
            ),
            (
                "define_bytes_max",
                format!(
                    "{}, some 30 times as much while one is parsed: {}",
                    self.define_bytes_max,
                    mib(self.define_bytes_max * 30)
                ),
            ),
            (
                "book_levels_max",
                format!(
                    "{}, some 30 B each, once for the sequencer and once a shard: {} a full book",
                    self.book_levels_max,
                    mib(self.book_levels_max * 30 * (self.cores.len() + 1))
                ),
            ),
            ("packet_bytes_max", format!("{} of a publisher", self.packet_bytes_max)),
        ]
    }

    fn describe_clients(&self) -> Vec<(&'static str, String)> {
        vec![
            (
                "subscriptions_max",
                format!(
                    "{} a connection, 20 B each, and 80 B for a name that no other connection has; patterns_max {}; \
                     subscriptions_per_user_max {}",
                    self.shard.subscriptions_max,
                    self.shard.patterns_max,
                    unless_0(self.shard.subscriptions_per_user_max as u32)
                ),
            ),
            (
                "subscription_bytes_max",
                format!(
                    "{} a shard, {} in all; names_max {}, some 100 B each",
                    mib(self.shard.subscription_bytes_max),
                    mib(self.shard.subscription_bytes_max * self.cores.len()),
                    self.shard.names_max
                ),
            ),
            (
                "request_bytes_max",
                format!(
                    "{}, held while a request is incomplete, for message_timeout_ms {}",
                    self.shard.request_bytes_max, self.shard.message_timeout_ms
                ),
            ),
            (
                "input_bytes_max",
                format!(
                    "{} a shard, {} in all",
                    mib(self.shard.input_bytes_max),
                    mib(self.shard.input_bytes_max * self.cores.len())
                ),
            ),
            ("requests_per_s", format!("{}, pings included", self.shard.requests_per_s)),
            ("request_work_per_s", work(self.shard.request_work_per_s, "connection")),
            ("shard_work_per_s", work(self.shard.shard_work_per_s, "shard")),
            ("symbol_bytes_max", self.shard.symbol_bytes_max.to_string()),
            ("heartbeat_ms", self.shard.heartbeat_ms.to_string()),
            (
                "ping_interval_ms",
                format!(
                    "{}, ping_timeout_ms {}, idle_timeout_ms {}, slow_timeout_ms {}",
                    self.shard.ping_interval_ms,
                    self.shard.ping_timeout_ms,
                    self.shard.idle_timeout_ms,
                    self.shard.slow_timeout_ms
                ),
            ),
            ("subscribe_timeout_ms", unless_0(self.shard.subscribe_timeout_ms)),
            (
                "compression",
                match self.shard.compression {
                    None => "off".to_owned(),
                    Some(level) => format!(
                        "level {level}, some 400 KiB a shard that uses it; inflate_ratio_max {}",
                        self.shard.inflate_ratio_max
                    ),
                },
            ),
        ]
    }
}

/// Units of work a second, of one of these.
fn work(units: u32, of: &str) -> String {
    match units {
        0 => "unlimited".to_owned(),
        units => format!("{units} units a {of}, some {:.1} % of a core", f64::from(units) / 1e5),
    }
}

pub(super) fn mib(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn networks(list: &[IpNet]) -> String {
    let texts: Vec<_> = list.iter().map(IpNet::to_string).collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}

/// A limit as text; 0 is unlimited.
fn unless_0(limit: u32) -> String {
    if limit == 0 { "unlimited".to_owned() } else { limit.to_string() }
}
