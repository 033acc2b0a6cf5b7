//! A layer of settings as given by flags and variables, or by a file: each may be given or not.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::ConfigError;
use crate::identity::RightsText;
use crate::ingest::registry;

/// A text such as `0,2-5` or `off`. In a file a number needs no quotation marks.
#[derive(Clone, Debug)]
pub struct TextOrNumber(String);

impl std::ops::Deref for TextOrNumber {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for TextOrNumber {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for TextOrNumber {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a text, or a whole number")]
        enum Given {
            Number(u32),
            Text(String),
        }
        Ok(Self(match Given::deserialize(deserializer)? {
            Given::Number(number) => number.to_string(),
            Given::Text(text) => text,
        }))
    }
}

/// A list of texts, or one text.
fn one_or_more<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a text or a list of texts")]
    enum Given {
        One(String),
        More(Vec<String>),
    }
    Ok(match Given::deserialize(deserializer)? {
        Given::One(text) => vec![text],
        Given::More(texts) => texts,
    })
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
            // Its help lists what the registry knows.
            #[arg(long, env = "TICKCAST_FEED", value_name = "SPEC", value_delimiter = ';', help = registry::help())]
            #[serde(default, deserialize_with = "one_or_more")]
            pub feed: Vec<String>,
            /// Serve `/v1/echo`, a WebSocket echo through the same codec, for conformance suites
            #[arg(long, env = "TICKCAST_ENABLE_ECHO", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
            pub enable_echo: Option<bool>,
            /// Identities of publishers: tables of the file only.
            #[arg(skip)]
            #[serde(default)]
            pub publisher: Vec<PublisherEntry>,
            /// Certificates by server name: tables of the file only.
            #[arg(skip)]
            #[serde(default)]
            pub tls: Vec<TlsEntry>,
            /// Issuers of tokens, the same.
            #[arg(skip)]
            #[serde(default)]
            pub issuer: Vec<IssuerEntry>,
            /// Names for rights, the same.
            #[arg(skip)]
            #[serde(default)]
            pub product: Vec<ProductEntry>,
            /// Delayed markets, the same.
            #[arg(skip)]
            #[serde(default)]
            pub delayed: Vec<DelayedEntry>,
            /// Sessions of venues, the same.
            #[arg(skip)]
            #[serde(default)]
            pub session: Vec<SessionEntry>,
            /// The rights of clients without a credential.
            #[arg(skip)]
            pub anonymous: Option<RightsText>,
        }

        impl Layer {
            /// This layer, with the settings that it lacks taken from the one below.
            pub fn over(self, below: Self) -> Self {
                Self {
                    $($name: self.$name.or(below.$name),)*
                    feed: if self.feed.is_empty() { below.feed } else { self.feed },
                    enable_echo: self.enable_echo.or(below.enable_echo),
                    publisher: if self.publisher.is_empty() { below.publisher } else { self.publisher },
                    tls: if self.tls.is_empty() { below.tls } else { self.tls },
                    issuer: if self.issuer.is_empty() { below.issuer } else { self.issuer },
                    product: if self.product.is_empty() { below.product } else { self.product },
                    delayed: if self.delayed.is_empty() { below.delayed } else { self.delayed },
                    session: if self.session.is_empty() { below.session } else { self.session },
                    anonymous: self.anonymous.or(below.anonymous),
                }
            }
        }

        const VARIABLES: &[&str] = &[$($env,)* "TICKCAST_FEED", "TICKCAST_ENABLE_ECHO", "TICKCAST_CONFIG"];
    };
}

layer! {
    /// Address and port to listen on [default: 127.0.0.1:9001]
    listen "TICKCAST_LISTEN" "ADDR:PORT" String;
    /// Address and port, or `unix:PATH`, for health, metrics, the operator's view and publishing, which are then not
    /// served at `listen` [default: none]
    admin_listen "TICKCAST_ADMIN_LISTEN" "ADDR:PORT" String;
    /// Address and port for `https://` and `wss://`; needs a certificate [default: none]
    tls_listen "TICKCAST_TLS_LISTEN" "ADDR:PORT" String;
    /// File with the server's certificate and those that lead to its authority, PEM; further ones are tables `[[tls]]` of
    /// the file [default: none]
    tls_cert "TICKCAST_TLS_CERT" "FILE" PathBuf;
    /// File with the key of the certificate, PEM [default: none]
    tls_key "TICKCAST_TLS_KEY" "FILE" PathBuf;
    /// Lowest version of TLS: `1.2` or `1.3` [default: 1.2]
    tls_min_version "TICKCAST_TLS_MIN_VERSION" "VERSION" String;
    /// File with the authorities whose certificates clients may present, PEM [default: none]
    tls_client_ca "TICKCAST_TLS_CLIENT_CA" "FILE" PathBuf;
    /// TLS handshakes a second on one core; 0 for no limit [default: 1000]
    tls_handshakes_per_s "TICKCAST_TLS_HANDSHAKES_PER_S" "N" u32;
    /// TLS handshakes a second of one address; 0 for no limit [default: half of all cores', at most 500]
    tls_handshakes_per_address_per_s "TICKCAST_TLS_HANDSHAKES_PER_ADDRESS_PER_S" "N" u32;
    /// TLS handshakes under way in all, from their first byte; 0 for no limit [default: half of pending_connections_max]
    tls_handshakes_pending_max "TICKCAST_TLS_HANDSHAKES_PENDING_MAX" "N" u32;
    /// Time for a TLS handshake, ms [default: 5000]
    tls_handshake_timeout_ms "TICKCAST_TLS_HANDSHAKE_TIMEOUT_MS" "MS" u32;
    /// Cores for shards, like `0,2-5`; feeds and publishers use the others [default: all but the first]
    cores "TICKCAST_CORES" "LIST" TextOrNumber;
    /// Token that publishers present, 16 to 256 characters; without one `/v1/publish` is off. Other users of this machine
    /// see it in the list of processes: prefer --publish-token-file [default: none]
    publish_token "TICKCAST_PUBLISH_TOKEN" "TOKEN" String;
    /// File with the tokens that publishers present, one a line [default: none]
    publish_token_file "TICKCAST_PUBLISH_TOKEN_FILE" "FILE" PathBuf;
    /// Token for `/v1/operator`; without one, only a local admin listener serves it; prefer --operator-token-file
    /// [default: none]
    operator_token "TICKCAST_OPERATOR_TOKEN" "TOKEN" String;
    /// File with the tokens for `/v1/operator`, one a line [default: none]
    operator_token_file "TICKCAST_OPERATOR_TOKEN_FILE" "FILE" PathBuf;
    /// Names in client certificates of operators, separated by commas; needs tls_client_ca [default: none]
    operator_certificates "TICKCAST_OPERATOR_CERTIFICATES" "NAMES" String;
    /// File with the API keys of subscribers, as hashes with their rights [default: none]
    api_keys_file "TICKCAST_API_KEYS_FILE" "FILE" PathBuf;
    /// File of revoked tokens and users, a line of JSON each: read when it changes, and appended to by the operator's
    /// requests [default: none]
    revocations_file "TICKCAST_REVOCATIONS_FILE" "FILE" PathBuf;
    /// Directory in which records wait for the delayed markets, which are tables `[[delayed]]` of the file [default: none]
    spool_dir "TICKCAST_SPOOL_DIR" "DIR" PathBuf;
    /// Bytes that they may take there [default: 8589934592]
    spool_bytes_max "TICKCAST_SPOOL_BYTES_MAX" "BYTES" u64;
    /// Interval in which only the newest quote and ticker of an instrument are kept there, ms; 0: all are [default: 0]
    spool_conflate_ms "TICKCAST_SPOOL_CONFLATE_MS" "MS" u32;
    /// Name of the cookie in which pages of allowed origins send their token [default: none]
    token_cookie "TICKCAST_TOKEN_COOKIE" "NAME" String;
    /// Whether subscribers may send their token as `?token=`, where proxies log it [default: false]
    token_in_query "TICKCAST_TOKEN_IN_QUERY" "BOOL" bool;
    /// Time a subscriber without a token has to send one as its first message, where it needs one, ms [default: 5000]
    auth_timeout_ms "TICKCAST_AUTH_TIMEOUT_MS" "MS" u32;
    /// Time before the end of its token at which a subscriber is told, s; 0: it is not [default: 60]
    token_notice_s "TICKCAST_TOKEN_NOTICE_S" "S" u32;
    /// Time after the end of its token at which a subscriber is closed with 4001, s [default: 25]
    token_grace_s "TICKCAST_TOKEN_GRACE_S" "S" u32;
    /// How often the keys of issuers are fetched, s [default: 300]
    jwks_refresh_s "TICKCAST_JWKS_REFRESH_S" "S" u64;
    /// Age of an issuer's keys at which its tokens are refused with 503, s [default: 3600]
    jwks_stale_max_s "TICKCAST_JWKS_STALE_MAX_S" "S" u64;
    /// URL that is asked who a token stands for that is of no configured issuer; `https`, or a loopback address
    /// [default: none]
    authorizer_url "TICKCAST_AUTHORIZER_URL" "URL" String;
    /// File with the authorities of that server's certificate, PEM [default: those of the system]
    authorizer_ca_file "TICKCAST_AUTHORIZER_CA_FILE" "FILE" PathBuf;
    /// Time it has to answer; then the token is refused with 503, ms [default: 1000]
    authorizer_timeout_ms "TICKCAST_AUTHORIZER_TIMEOUT_MS" "MS" u32;
    /// Requests to it that are under way, an address a quarter of them; more are refused with 503 [default: 256]
    authorizer_requests_max "TICKCAST_AUTHORIZER_REQUESTS_MAX" "N" u64;
    /// Time for which its answer is used again, s; 0: it is not [default: 60]
    authorizer_cache_s "TICKCAST_AUTHORIZER_CACHE_S" "S" u64;
    /// Sessions at a time of a user whose token or product does not say it: connections to streams, of all shards; 0 for
    /// no limit [default: 0]
    sessions_per_user_max "TICKCAST_SESSIONS_PER_USER_MAX" "N" u32;
    /// What happens where a user has as many sessions as it may: `end_oldest`, or `refuse_new` [default: end_oldest]
    session_policy "TICKCAST_SESSION_POLICY" "POLICY" String;
    /// Folder of the usage log: who had access to what, and what was refused [default: none]
    usage_dir "TICKCAST_USAGE_DIR" "DIR" PathBuf;
    /// Size of a file of the usage log at which the next one begins; one begins each day as well [default: 67108864]
    usage_bytes_max "TICKCAST_USAGE_BYTES_MAX" "BYTES" u64;
    /// Files of the usage log; the oldest is removed for a new one [default: 1200]
    usage_files_max "TICKCAST_USAGE_FILES_MAX" "N" usize;
    /// Accepted tokens that are not verified again when they come again; 0 for none [default: 100000]
    accepted_tokens_max "TICKCAST_ACCEPTED_TOKENS_MAX" "N" u64;
    /// Different rights of tokens; one with others is refused with 503 [default: 1024]
    entitlement_sets_max "TICKCAST_ENTITLEMENT_SETS_MAX" "N" u64;
    /// What to log: `error`, `warn`, `info`, `debug`, or a filter by module [default: info]
    log "TICKCAST_LOG" "FILTER" String;
    /// Lines a second that one place of the code logs; the others are counted; 0 for no limit [default: 20]
    log_lines_per_s "TICKCAST_LOG_LINES_PER_S" "N" u32;
    /// Connections in all [default: as many as the descriptor limit allows, at most 1000000]
    connections_max "TICKCAST_CONNECTIONS_MAX" "N" u32;
    /// Connections of one address: an IPv4 address, or an IPv6 network of 64 bits; 0 for no limit
    /// [default: half of connections_max, at most 20000]
    connections_per_address_max "TICKCAST_CONNECTIONS_PER_ADDRESS_MAX" "N" u32;
    /// Addresses and networks whose connections and handshakes are not limited by address, or `none`
    /// [default: 127.0.0.0/8,::1]
    addresses_exempt "TICKCAST_ADDRESSES_EXEMPT" "LIST" String;
    /// Addresses and networks of proxies whose `X-Forwarded-For` is trusted [default: none]
    trusted_proxies "TICKCAST_TRUSTED_PROXIES" "LIST" String;
    /// Origins whose pages may use the server besides its own, such as `https://example.com`, or `*` [default: none]
    allow_origin "TICKCAST_ALLOW_ORIGIN" "LIST" String;
    /// Origins whose pages may show the page of this server in a frame, such as `https://example.com`, or `*`
    /// [default: none]
    allow_frame "TICKCAST_ALLOW_FRAME" "LIST" String;
    /// Names that requests may give in `Host` besides addresses and localhost, such as `quotes.example.com`, or `*`
    /// [default: none on a loopback address, else *]
    allow_host "TICKCAST_ALLOW_HOST" "LIST" String;
    /// Handshakes a second on one core; more wait for half of upgrade_timeout_ms, the rest is refused with 503; 0 for no
    /// limit [default: 2000]
    handshakes_per_s "TICKCAST_HANDSHAKES_PER_S" "N" u32;
    /// Handshakes a second of one address; more wait as above, the rest is refused with 429; 0 for no limit
    /// [default: 1000, or half of what all cores take]
    handshakes_per_address_per_s "TICKCAST_HANDSHAKES_PER_ADDRESS_PER_S" "N" u32;
    /// Connections that are neither subscribers nor publishers: handshakes, requests, answers, echoes
    /// [default: 10000, or half of the descriptor limit]
    pending_connections_max "TICKCAST_PENDING_CONNECTIONS_MAX" "N" u32;
    /// Of those, connections of one address; 0 for no limit [default: a quarter of pending_connections_max]
    pending_per_address_max "TICKCAST_PENDING_PER_ADDRESS_MAX" "N" u32;
    /// Cost of the plain requests of one address, units a second: 1 for `/healthz`, 5 for others, and 1 for each 5
    /// instruments and 4 KiB; four seconds' worth at once; 0 for no limit [default: 1000]
    get_units_per_address_per_s "TICKCAST_GET_UNITS_PER_ADDRESS_PER_S" "N" u32;
    /// Memory for responses that are not read yet, bytes [default: 67108864]
    answer_bytes_max "TICKCAST_ANSWER_BYTES_MAX" "BYTES" usize;
    /// Of that, responses to one address, bytes [default: a quarter of answer_bytes_max]
    answer_bytes_per_address_max "TICKCAST_ANSWER_BYTES_PER_ADDRESS_MAX" "BYTES" usize;
    /// Of that, one response, bytes [default: 4194304, or what one address has]
    answer_bytes_per_connection_max "TICKCAST_ANSWER_BYTES_PER_CONNECTION_MAX" "BYTES" usize;
    /// Echo connections [default: 256]
    echoes_max "TICKCAST_ECHOES_MAX" "N" u32;
    /// Publishers at a time [default: 64]
    publishers_max "TICKCAST_PUBLISHERS_MAX" "N" u32;
    /// Records a second of one publisher; its sockets are read no faster; 0 for no limit [default: 1000000]
    publish_records_per_s "TICKCAST_PUBLISH_RECORDS_PER_S" "N" u32;
    /// Bytes of records and requests a second of one publisher; 0 for no limit [default: 134217728]
    publish_bytes_per_s "TICKCAST_PUBLISH_BYTES_PER_S" "BYTES" u32;
    /// Levels of books a second of one publisher; 0 for no limit [default: 5000000]
    publish_levels_per_s "TICKCAST_PUBLISH_LEVELS_PER_S" "N" u32;
    /// Definitions a second of one publisher; 0 for no limit [default: 20000]
    publish_definitions_per_s "TICKCAST_PUBLISH_DEFINITIONS_PER_S" "N" u32;
    /// Instruments that one publisher, and each of its connections, may have defined at a time [default: 20000]
    publisher_instruments_max "TICKCAST_PUBLISHER_INSTRUMENTS_MAX" "N" usize;
    /// New instruments that one publisher may define between two starts of the server, released ones included
    /// [default: 100000]
    publisher_ids_max "TICKCAST_PUBLISHER_IDS_MAX" "N" u64;
    /// Longest request of a publisher to define instruments, bytes [default: 1048576]
    define_bytes_max "TICKCAST_DEFINE_BYTES_MAX" "BYTES" usize;
    /// Levels of a book, both sides together; a publisher that exceeds it is closed with 1008 [default: 20000]
    book_levels_max "TICKCAST_BOOK_LEVELS_MAX" "N" usize;
    /// Instruments in all; the one that ended first is released for a new one [default: 20000]
    instruments_max "TICKCAST_INSTRUMENTS_MAX" "N" usize;
    /// Ring between the sequencer and a shard, and the shard's history, bytes, a power of two [default: 33554432]
    ring_bytes "TICKCAST_RING_BYTES" "BYTES" usize;
    /// Memory of the bars of all instruments, served at `/v1/bars/{symbol}`, bytes; 0 for none [default: 134217728]
    bars_bytes "TICKCAST_BARS_BYTES" "BYTES" usize;
    /// Folder in which bars and the newest trades are kept over restarts [default: none]
    archive_dir "TICKCAST_ARCHIVE_DIR" "DIR" PathBuf;
    /// Size of the archive of one market, bytes; beyond it the oldest bars are removed [default: 4294967296]
    archive_bytes_max "TICKCAST_ARCHIVE_BYTES_MAX" "BYTES" u64;
    /// Newest trades of all instruments, served at `/v1/trades/{symbol}`, bytes; 0 for none [default: 33554432]
    trades_bytes "TICKCAST_TRADES_BYTES" "BYTES" usize;
    /// Kernel send buffer of a connection, bytes, sent and unsent data together [default: 65536]
    send_buffer_bytes "TICKCAST_SEND_BUFFER_BYTES" "BYTES" usize;
    /// Kernel receive buffer of a connection: what is kept while its input is not read [default: 65536]
    receive_buffer_bytes "TICKCAST_RECEIVE_BUFFER_BYTES" "BYTES" usize;
    /// Unsent data that the kernel accepts for a connection, bytes (TCP_NOTSENT_LOWAT); 0 for the machine's value
    /// [default: 16384]
    notsent_lowat_bytes "TICKCAST_NOTSENT_LOWAT_BYTES" "BYTES" u32;
    /// Silence after which a subscriber gets a heartbeat, ms [default: 5000]
    heartbeat_ms "TICKCAST_HEARTBEAT_MS" "MS" u32;
    /// Silence of a subscriber after which it is pinged, ms [default: 20000]
    ping_interval_ms "TICKCAST_PING_INTERVAL_MS" "MS" u32;
    /// Time a subscriber has to answer a ping before it is closed with 1008, ms [default: 20000]
    ping_timeout_ms "TICKCAST_PING_TIMEOUT_MS" "MS" u32;
    /// Silence of a subscriber after which it is closed with 1008, ms [default: 60000]
    idle_timeout_ms "TICKCAST_IDLE_TIMEOUT_MS" "MS" u32;
    /// Time a subscriber has to send its first subscription before it is closed with 1008, ms; 0 for no limit
    /// [default: 30000]
    subscribe_timeout_ms "TICKCAST_SUBSCRIBE_TIMEOUT_MS" "MS" u32;
    /// Time a subscriber may accept no data at all before it is closed with 4002, ms [default: 30000]
    slow_timeout_ms "TICKCAST_SLOW_TIMEOUT_MS" "MS" u32;
    /// Time a subscriber may be behind without a break before it is closed with 4002, ms [default: 120000]
    backlog_ms_max "TICKCAST_BACKLOG_MS_MAX" "MS" u32;
    /// Memory for packets that are kept for slow subscribers of the same data, a shard [default: 67108864]
    sent_history_bytes "TICKCAST_SENT_HISTORY_BYTES" "BYTES" usize;
    /// Lateness of trades at which a subscriber that does not catch up gets a Gap, ms; 0: only the ring [default: 500]
    log_lag_ms "TICKCAST_LOG_LAG_MS" "MS" u32;
    /// Bytes of the ring a subscriber may be behind: older trades are reported as a Gap [default: the ring]
    backlog_bytes_max "TICKCAST_BACKLOG_BYTES_MAX" "BYTES" u64;
    /// Age up to which a token is resumed with the history after it, ms [default: 300000]
    history_ms "TICKCAST_HISTORY_MS" "MS" u32;
    /// Silence of a feed or publisher after which its instruments are stale, ms; 0 for never [default: 10000]
    stale_ms "TICKCAST_STALE_MS" "MS" u32;
    /// Time after the loss of its publisher or feed at which an instrument ends, ms; 0 for never [default: 3600000]
    instrument_expire_ms "TICKCAST_INSTRUMENT_EXPIRE_MS" "MS" u32;
    /// Handshake timeout: time to send a whole request head and be upgraded, ms [default: 10000]
    upgrade_timeout_ms "TICKCAST_UPGRADE_TIMEOUT_MS" "MS" u32;
    /// Time a peer has to take 64 KiB of an HTTP answer, or an echo, ms [default: 5000]
    write_timeout_ms "TICKCAST_WRITE_TIMEOUT_MS" "MS" u32;
    /// Time a peer has to take a whole HTTP answer, ms [default: 30000]
    answer_timeout_ms "TICKCAST_ANSWER_TIMEOUT_MS" "MS" u32;
    /// Time over which subscribers are closed when the server stops, ms [default: 1000]
    drain_ms "TICKCAST_DRAIN_MS" "MS" u32;
    /// Time that the last of them then have to close, ms [default: 2000]
    drain_timeout_ms "TICKCAST_DRAIN_TIMEOUT_MS" "MS" u32;
    /// Requests a second that a subscriber may send; four seconds' worth at once [default: 50]
    requests_per_s "TICKCAST_REQUESTS_PER_S" "N" u32;
    /// Subscriptions of a connection: symbols times channels [default: 10000]
    subscriptions_max "TICKCAST_SUBSCRIPTIONS_MAX" "N" usize;
    /// The same of all connections of a user, of a server that identifies clients; 0 for no limit [default: 0]
    subscriptions_per_user_max "TICKCAST_SUBSCRIPTIONS_PER_USER_MAX" "N" usize;
    /// Patterns of a connection, of its subscriptions [default: 4000]
    patterns_max "TICKCAST_PATTERNS_MAX" "N" usize;
    /// Names without an instrument, and patterns, of all subscribers of a shard; an address may have a quarter
    /// [default: 1000000]
    names_max "TICKCAST_NAMES_MAX" "N" usize;
    /// Memory for subscriptions, a shard; an address may have a quarter [default: 268435456]
    subscription_bytes_max "TICKCAST_SUBSCRIPTION_BYTES_MAX" "BYTES" usize;
    /// Work of the requests of a subscriber in a second, in units of some 0.1 µs; two seconds' worth at once, and an
    /// address has four times as much; a request over it waits; 0 for no limit [default: 100000]
    request_work_per_s "TICKCAST_REQUEST_WORK_PER_S" "N" u32;
    /// Work of the requests of all subscribers of a shard in a second, in the same units; while it is spent, requests
    /// wait and deliveries go on; 0 for no limit [default: 5000000]
    shard_work_per_s "TICKCAST_SHARD_WORK_PER_S" "N" u32;
    /// Memory for incomplete messages and requests that wait, a shard; an address may have a quarter [default: 67108864]
    input_bytes_max "TICKCAST_INPUT_BYTES_MAX" "BYTES" usize;
    /// Time to send a whole message, from its first byte, ms [default: 10000]
    message_timeout_ms "TICKCAST_MESSAGE_TIMEOUT_MS" "MS" u32;
    /// Longest symbol or pattern, bytes [default: 64]
    symbol_bytes_max "TICKCAST_SYMBOL_BYTES_MAX" "BYTES" usize;
    /// Longest request of a subscriber, bytes [default: 262144]
    request_bytes_max "TICKCAST_REQUEST_BYTES_MAX" "BYTES" usize;
    /// Longest packet of a publisher, and longest echoed message, bytes [default: 16777216]
    packet_bytes_max "TICKCAST_PACKET_BYTES_MAX" "BYTES" usize;
    /// permessage-deflate for clients that offer it: `off`, or a level from 1 (fastest) to 9 (smallest) [default: off]
    compression "TICKCAST_COMPRESSION" "LEVEL" TextOrNumber;
    /// Greatest ratio by which a compressed message of a client may inflate, beyond 64 KiB [default: 100]
    inflate_ratio_max "TICKCAST_INFLATE_RATIO_MAX" "N" u32;
    /// Longest request head, bytes [default: 16384]
    head_bytes_max "TICKCAST_HEAD_BYTES_MAX" "BYTES" usize;
}

/// One table `[[publisher]]`, as given. What is missing is as for the single token.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublisherEntry {
    pub name: String,
    pub token: Option<String>,
    /// One token a line.
    pub token_file: Option<PathBuf>,
    /// Names of client certificates.
    pub certificate_names: Option<Vec<String>>,
    /// Names, and beginnings of names with a `*` behind them.
    pub symbols: Option<Vec<String>>,
    pub venues: Option<Vec<String>>,
    /// The identity that it is a backup of.
    pub backup_of: Option<String>,
    /// 0 for a primary, 1 or more for backups; the lowest that is live feeds an instrument.
    pub priority: Option<u8>,
    pub instruments_max: Option<usize>,
    pub ids_max: Option<u64>,
    pub records_per_s: Option<u32>,
    pub bytes_per_s: Option<u32>,
    pub levels_per_s: Option<u32>,
    pub definitions_per_s: Option<u32>,
}

/// One table `[[tls]]`, as given.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsEntry {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Server names that get this pair; those of the certificate by default.
    pub names: Option<Vec<String>>,
}

/// One table `[[issuer]]`, as given.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerEntry {
    /// For the log and metrics.
    pub name: String,
    pub iss: String,
    pub audience: Vec<String>,
    pub algorithms: Vec<String>,
    pub jwks_url: Option<String>,
    /// The authorities of that server's certificate, PEM.
    pub ca_file: Option<PathBuf>,
    pub jwks_file: Option<PathBuf>,
    /// Public keys, PEM.
    pub key_file: Option<PathBuf>,
    /// Secrets of an HMAC, one a line.
    pub secret_file: Option<PathBuf>,
    pub user_prefix: Option<String>,
    pub rights_claim: Option<String>,
    /// Of tokens without that claim.
    pub rights: Option<RightsText>,
    pub types: Option<Vec<String>>,
    pub leeway_s: Option<u64>,
    pub lifetime_max_s: Option<u64>,
    /// Sessions at a time of a user whose token does not say it.
    pub max_connections: Option<u32>,
}

/// One table `[[delayed]]`, as given.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DelayedEntry {
    pub listen: String,
    pub tls_listen: Option<String>,
    pub delay_s: Option<u32>,
    pub connections_max: Option<u32>,
}

/// One table `[[session]]`: when a venue trades.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionEntry {
    pub venue: String,
    pub timezone: String,
    pub open: String,
    pub close: String,
    pub days: Option<String>,
}

/// One table `[[product]]`: a name for rights.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProductEntry {
    pub name: String,
    #[serde(default)]
    pub rights: RightsText,
}

impl Layer {
    /// The settings of a TOML file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = read_text(path).map_err(|error| ConfigError::File { path: path.to_owned(), error })?;
        toml::from_str(&text).map_err(|error| ConfigError::Toml { path: path.to_owned(), error })
    }
}

/// The text of a file that has an end.
fn read_text(path: &Path) -> io::Result<String> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("expected a file of {FILE_BYTES_MAX} bytes at the most")));
    }
    std::fs::read_to_string(path)
}

/// Of a file of settings.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Refuses unknown `TICKCAST_*` variables: a misspelled one must not be ignored.
pub fn check_variables(names: impl Iterator<Item = String>) -> Result<(), ConfigError> {
    /// Where the tests find recordings; not a setting of the program.
    const OF_TESTS: &str = "TICKCAST_DATA";
    for name in names.filter(|name| name.starts_with("TICKCAST_") && name != OF_TESTS) {
        if !VARIABLES.contains(&name.as_str()) {
            return Err(ConfigError::Variable(name, VARIABLES.join(", ")));
        }
    }
    Ok(())
}
