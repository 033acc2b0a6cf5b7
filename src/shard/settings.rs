//! The settings of a shard.

/// Limits and timeouts of one shard. All of them but the epoch may be changed while the shard runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Identifies this run: it changes whenever sequences and positions start again from 1.
    pub epoch: u32,
    /// The age of the data that the shard serves, s; 0: live. It decides, with the rights of a client, what the client may
    /// see, and clients are told.
    pub delay_s: u32,
    /// An audience that was sent nothing for this long is sent a heartbeat, ms.
    pub heartbeat_ms: u32,
    /// A client that sent nothing for this long is pinged, ms.
    pub ping_interval_ms: u32,
    /// Time a client has to answer a ping, ms.
    pub ping_timeout_ms: u32,
    /// A client that sent nothing for this long is closed, ms.
    pub idle_timeout_ms: u32,
    /// Time a client has to send its first subscription, ms; 0 for no limit.
    pub subscribe_timeout_ms: u32,
    /// A client whose socket took nothing for this long is closed with 4002, ms.
    pub slow_timeout_ms: u32,
    /// A client that was behind without a break for this long is closed with 4002, ms.
    pub backlog_ms_max: u32,
    /// Memory of the packets that are kept for lagging members, of all audiences together; one audience may take a
    /// quarter.
    pub sent_history_bytes: usize,
    /// Bytes of the ring that a client may be behind. Log records that are further back are replaced by a Gap.
    pub backlog_bytes_max: u64,
    /// Lateness of log records at which a client that also gets state channels, and does not catch up, gets a Gap in
    /// their place, ms; 0: only where the ring no longer has them.
    pub log_lag_ms: u32,
    /// Symbols below `user/` are those of a user alone.
    pub has_private_symbols: bool,
    /// Time a client without a credential has to send its first one, where it needs one, ms.
    pub auth_timeout_ms: u32,
    /// How long before its token expires a client is told, s; 0: it is not.
    pub token_notice_s: u32,
    /// How long a client may go on with an expired token, s.
    pub token_grace_s: u32,
    /// Age of the oldest token that is resumed by replay, ms.
    pub history_ms: u32,
    /// Time a peer has to answer a close frame, ms.
    pub close_timeout_ms: u32,
    /// Requests that a client may send in a second.
    pub requests_per_s: u32,
    /// Subscriptions (a symbol or pattern and a channel) that a client may have.
    pub subscriptions_max: usize,
    /// The same of all clients of a user; 0 for no limit.
    pub subscriptions_per_user_max: usize,
    /// Of those, patterns that a client may have.
    pub patterns_max: usize,
    /// Names without an instrument, and patterns, that all clients may have together; an address may have a quarter.
    pub names_max: usize,
    /// Memory of the subscriptions of all clients, bytes; an address may have a quarter.
    pub subscription_bytes_max: usize,
    /// Units of work, see [`super::accounts`], that the requests of a client may take in a second; 0 for no limit.
    pub request_work_per_s: u32,
    /// The same for the requests of all clients of a shard together; 0 for no limit.
    pub shard_work_per_s: u32,
    /// What is kept of the input of all clients: incomplete messages and requests that wait, bytes.
    pub input_bytes_max: usize,
    /// Time to send a whole message, from its first byte, ms.
    pub message_timeout_ms: u32,
    /// Longest name or pattern, bytes.
    pub symbol_bytes_max: usize,
    /// Longest request, bytes.
    pub request_bytes_max: usize,
    /// Compression level, 1 to 9, for clients that negotiated compression; `None`: it is not offered.
    pub compression: Option<u8>,
    /// How many times its own size a compressed message of a client may inflate to.
    pub inflate_ratio_max: u32,
    /// Unsent answers of a client at which it is closed, bytes.
    pub answers_bytes_max: usize,
    /// Bytes of the ring that are read in one tick. A member that is cut in the middle of a flush has these and 64 KiB of
    /// conflated values left at the most, in its encoding.
    pub tick_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            epoch: 1,
            delay_s: 0,
            heartbeat_ms: 5000,
            ping_interval_ms: 20_000,
            ping_timeout_ms: 20_000,
            idle_timeout_ms: 60_000,
            subscribe_timeout_ms: 30_000,
            slow_timeout_ms: 30_000,
            backlog_ms_max: 120_000,
            sent_history_bytes: 64 << 20,
            // As large as the largest ring: no limit of its own.
            backlog_bytes_max: 2 << 30,
            log_lag_ms: 500,
            has_private_symbols: false,
            auth_timeout_ms: 5000,
            token_notice_s: 60,
            token_grace_s: 25,
            history_ms: 300_000,
            close_timeout_ms: 1000,
            requests_per_s: 50,
            subscriptions_max: 10_000,
            subscriptions_per_user_max: 0,
            patterns_max: 4000,
            names_max: 1_000_000,
            subscription_bytes_max: 256 << 20,
            request_work_per_s: 100_000,
            shard_work_per_s: 5_000_000,
            input_bytes_max: 64 << 20,
            message_timeout_ms: 10_000,
            symbol_bytes_max: 64,
            request_bytes_max: 256 * 1024,
            compression: None,
            inflate_ratio_max: 100,
            answers_bytes_max: 64 * 1024,
            tick_bytes_max: 64 * 1024,
        }
    }
}
