//! What is in effect, in words: printed at the start, with what the limits cost.

use super::Config;

impl Config {
    /// The effective settings, one a line, with what the limits cost.
    pub fn describe(&self) -> String {
        let mib = |bytes: usize| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        let shards = self.cores.len();
        let seats = self.connections_max as usize;
        let compression = match self.shard.compression {
            None => "off".to_owned(),
            Some(level) => format!(
                "level {level}, some 400 KiB a shard that uses it; inflate_ratio_max {}",
                self.shard.inflate_ratio_max
            ),
        };
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
            (
                "history_ms",
                format!("{}, as far as ring_bytes reach: some 350,000 quotes in 32 MiB", self.shard.history_ms),
            ),
            (
                "backlog_bytes_max",
                format!(
                    "{} of the ring, backlog_ms_max {}",
                    mib(self.shard.backlog_bytes_max as usize),
                    self.shard.backlog_ms_max
                ),
            ),
            ("stale_ms", if self.stale_ms == 0 { "never".to_owned() } else { self.stale_ms.to_string() }),
            ("subscriptions_max", format!("{} a connection, 20 B each", self.shard.subscriptions_max)),
            ("request_bytes_max", format!("{}, held while a request is incomplete", self.shard.request_bytes_max)),
            ("requests_per_s", self.shard.requests_per_s.to_string()),
            ("packet_bytes_max", format!("{} of a publisher", self.packet_bytes_max)),
            ("compression", compression),
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
