//! The counters of a shard: one list, one line of meaning each. The names in `/metrics` are made from those here.
//!
//! A shard counts in plain integers ([`ShardCounters`]) and publishes them periodically ([`PublishedCounters`]), so
//! that counting costs an addition and no shared cache line.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($name:ident $kind:ident $text:literal;)*) => {
        /// What a shard counts.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Counter { $(#[doc = $text] $name,)* }

        impl Counter {
            /// All of them with name, kind and meaning, in the order of the list.
            pub const ALL: &'static [(Counter, &'static str, CounterKind, &'static str)] =
                &[$((Counter::$name, stringify!($name), CounterKind::$kind, $text),)*];
        }
    };
}

/// How a counter changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterKind {
    /// It only grows.
    Count,
    /// It rises and falls.
    Level,
}

counters! {
    Ticks Count "Ticks of the shard that did something";
    TickNsMax Level "Longest tick since the start, in ns";
    RecordsRead Count "Records read from the ring";
    Overruns Count "Times the sequencer overran the shard";
    OverrunBytes Count "Bytes of the ring lost to overruns";
    Clients Level "Connected subscribers";
    JsonClients Level "Of those, subscribers that receive JSON in WebSocket frames";
    EventClients Level "Of those, subscribers that receive Server-Sent Events";
    ClientsAccepted Count "Subscribers accepted";
    ClientsClosed Count "Subscribers disconnected, for any reason";
    Audiences Level "Audiences: groups of subscribers that receive identical bytes";
    Rights Level "Different sets of rights that subscribers have, beside the right to everything";
    Authenticated Count "Tokens accepted on connections that were open";
    CredentialsClosed Count "Subscribers closed with 4001: expired, revoked, or not authenticated in time: token_grace_s, auth_timeout_ms";
    NotEntitledClosed Count "Subscribers closed with 4003: a token of another user, or one that allows nothing of what they had";
    SessionLimitClosed Count "Subscribers closed with 4005: a newer session of their user, or one too many: sessions_per_user_max";
    Packets Count "Sends of data packets, one a subscriber and flush";
    PacketBytes Count "Bytes of those sends";
    Records Count "Records delivered, one a subscriber";
    ShortSends Count "Sends that a full socket took in part or not at all";
    CatchingUp Level "Subscribers with output pending: a snapshot, an answer, or records that they were too slow for";
    Lagging Level "Of those, subscribers that are served from what their audience was sent";
    SentHistoryBytes Level "Memory of the packets that are kept for lagging subscribers: sent_history_bytes";
    SentHistoryLeft Count "Lagging subscribers that were too far behind for those packets, and were served on their own";
    LaggingSends Count "Sends to lagging subscribers";
    LaggingBytes Count "Bytes of those sends";
    SlowClosed Count "Subscribers closed with 4002 because they took nothing for too long: slow_timeout_ms";
    ResumesReplayed Count "Resumes answered with the history after the token";
    ResumesSnapshot Count "Resumes answered with a snapshot: a token of another epoch, or no longer in the history";
    ReplaysLost Count "Replays that the sequencer overtook, so that they ended with a snapshot";
    RecordsReplayed Count "Records of the history sent, one a subscriber";
    HistoryBytes Level "How far back a subscriber can resume, in bytes of the ring";
    HistoryMs Level "How far back a subscriber can resume, in ms";
    BehindClosed Count "Subscribers closed with 4002 because they were behind for too long";
    GapsSent Count "Gap records sent, one a subscriber";
    Conflated Count "Records sent in place of several (conflated), one an audience";
    Requests Count "Requests of subscribers";
    RequestErrors Count "Requests answered with an error";
    RequestWork Count "Work of requests, in units of some 0.1 µs";
    RequestsCut Count "Requests carried out over several ticks";
    RequestsPending Level "Subscribers whose request is under way or waits for their allowance of work";
    Throttled Count "Times a request waited for an allowance of work: request_work_per_s";
    RequestPauses Count "Times all requests of a shard waited for its allowance of work: shard_work_per_s";
    InputBytes Level "Memory of incomplete messages and of requests that wait: input_bytes_max";
    InputShed Count "Subscribers closed because of what was kept of their input: input_bytes_max";
    RequestsRefusedMemory Count "Requests for subscriptions refused while memory was short";
    MessageTimeouts Count "Subscribers closed because a message was not complete in time: message_timeout_ms";
    Compressed Count "Packets compressed, one an audience";
    CompressedBytesBefore Count "Bytes of those packets before compression";
    CompressedBytesAfter Count "Bytes of those packets after compression, with their frame headers";
    Violations Count "Subscribers closed for breaking the protocol";
    InflatedTooFar Count "Of those, subscribers whose message inflated beyond a limit";
    Floods Count "Subscribers closed for sending requests faster than the limit";
    IdleClosed Count "Subscribers closed because nothing was received from them, not even a pong: idle_timeout_ms";
    PingTimeouts Count "Subscribers closed because they did not answer a ping: ping_timeout_ms";
    SubscribeTimeouts Count "Subscribers closed because they subscribed to nothing: subscribe_timeout_ms";
    Heartbeats Count "Heartbeats sent, one a subscriber";
    RefusedFull Count "Upgrades refused with 503 because all slots were taken: connections_max";
    RefusedAddress Count "Connections refused with 429: their address had its maximum, connections_per_address_max";
    Forwarded Count "Requests of trusted proxies with a readable X-Forwarded-For: trusted_proxies";
    ForwardedUnread Count "Requests of trusted proxies without a readable X-Forwarded-For: counted for the proxy";
    RefusedRate Count "Upgrades refused with 503 by the rate limit of the shard: handshakes_per_s";
    RefusedAddressRate Count "Upgrades refused with 429 by the limit of their address: handshakes_per_address_per_s";
    RefusedOrigin Count "Streams refused with 403 because of the page's origin: allow_origin";
    RefusedHost Count "Requests refused with 403 because their Host is not a name of this server: allow_host";
    RefusedDraining Count "Upgrades refused with 503 because the server drains";
    Drained Count "Subscribers closed with 1001 because the server drains";
    RefusedMemory Count "Upgrades refused with 503 because an allocation had failed, until there is room again";
    HandshakesDelayed Count "Upgrades that waited for a rate limit: handshakes_per_s, handshakes_per_address_per_s";
    PendingConnections Level "Connections that are not subscribers or publishers: requests, responses, echoes";
    RefusedPending Count "Connections refused with 503: too many were pending, pending_connections_max";
    RefusedAddressPending Count "Connections refused with 429: so many of their address were pending, pending_per_address_max";
    PendingEvicted Count "Pending connections that waited for a request or did not read their response, closed in favour of others";
    HeadTimeouts Count "Connections answered with 408 because no whole request was received: upgrade_timeout_ms";
    HeadsTooLarge Count "Requests refused with 414 or 431: head_bytes_max";
    WriteTimeouts Count "Connections closed because the peer did not take a response or an echo: write_timeout_ms, answer_timeout_ms";
    AnswerBytes Level "Memory of responses that are not read yet: answer_bytes_max";
    RefusedGets Count "Requests refused with 429 because of their cost: get_units_per_address_per_s";
    RefusedBuilds Count "Requests refused with 503 because too many snapshots of several instruments were being made";
    RefusedAnswers Count "Requests refused because so many bytes of responses were unread: answer_bytes_max, answer_bytes_per_connection_max";
    RefusedAddressAnswers Count "Requests refused with 429 because so many bytes of responses to their address were unread: answer_bytes_per_address_max";
    RefusedEchoes Count "Echoes refused with 503 because the maximum was connected: echoes_max";
    TlsClients Level "Of the subscribers, those over TLS";
    TlsSends Count "Sends that were sealed, one a subscriber over TLS and flush";
    TlsBytes Count "Bytes of those sends before they were sealed";
    TlsFaults Count "Subscribers over TLS disconnected because what they sent could not be opened";
    TlsHandshakes Count "Full TLS handshakes";
    TlsResumed Count "TLS handshakes that resumed a session";
    TlsRefusedRate Count "TLS handshakes refused by the rate limit of the shard: tls_handshakes_per_s";
    TlsRefusedAddressRate Count "TLS handshakes refused by the limit of their address: tls_handshakes_per_address_per_s";
    TlsRefusedPending Count "TLS handshakes refused because so many were under way: tls_handshakes_pending_max";
    TlsTimeouts Count "TLS handshakes that were not complete in time: tls_handshake_timeout_ms";
    TlsClosed Count "TLS handshakes that the peer has ended without an alert, or that were evicted";
    TlsAlerts Count "TLS handshakes that the peer has refused with an alert: it does not trust the certificate, as a rule";
    TlsVersion Count "TLS handshakes without a version in common: tls_min_version";
    TlsProtocol Count "TLS handshakes of clients that offer other protocols than http/1.1";
    TlsName Count "TLS handshakes for a server name without a certificate";
    TlsCertificate Count "TLS handshakes with a client certificate that was refused: tls_client_ca";
    TlsPlainHttp Count "Requests of plain HTTP to tls_listen, refused with 400";
    TlsNotTls Count "Connections to tls_listen that sent something else than TLS";
    TlsBroken Count "TLS handshakes that failed for another reason";
    EchoesIdle Count "Echoes closed because nothing was received from them: idle_timeout_ms";
}

/// The counters where the shard counts: plain integers, one owner.
#[derive(Clone, Debug)]
pub struct ShardCounters([u64; Counter::ALL.len()]);

impl Default for ShardCounters {
    fn default() -> Self {
        Self([0; Counter::ALL.len()])
    }
}

impl ShardCounters {
    /// Adds to a count.
    pub fn add(&mut self, counter: Counter, amount: u64) {
        self.0[counter as usize] += amount;
    }

    /// Sets a level.
    pub fn set(&mut self, counter: Counter, value: u64) {
        self.0[counter as usize] = value;
    }

    /// Raises a level to at least `value`.
    pub fn raise(&mut self, counter: Counter, value: u64) {
        let held = &mut self.0[counter as usize];
        *held = value.max(*held);
    }

    /// The present number.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }
}

/// The counters where other threads read them, some tens of milliseconds late.
#[derive(Clone, Debug)]
pub struct PublishedCounters(Arc<[AtomicU64]>);

impl Default for PublishedCounters {
    fn default() -> Self {
        Self((0..Counter::ALL.len()).map(|_| AtomicU64::new(0)).collect())
    }
}

impl PublishedCounters {
    /// Publishes the present numbers.
    pub fn publish(&self, counters: &ShardCounters) {
        for (published, value) in self.0.iter().zip(counters.0) {
            // Relaxed: each number is read by itself; they order nothing.
            published.store(value, Ordering::Relaxed);
        }
    }

    /// One number as last published.
    pub fn get(&self, counter: Counter) -> u64 {
        // Relaxed: see `publish`.
        self.0[counter as usize].load(Ordering::Relaxed)
    }
}
