//! One list of counters, one line of meaning each.
//!
//! A shard counts in plain integers ([`ShardCounters`]) and publishes them now and then ([`PublishedCounters`]), so that counting
//! costs an addition and no shared cache line.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($name:ident $kind:ident $text:literal;)*) => {
        /// What a shard counts.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Counter { $(#[doc = $text] $name,)* }

        impl Counter {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [(Counter, &'static str, CounterKind, &'static str)] =
                &[$((Counter::$name, stringify!($name), CounterKind::$kind, $text),)*];
        }
    };
}

/// How a number is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterKind {
    /// Grows only.
    Count,
    /// Goes up and down.
    Level,
}

counters! {
    Ticks Count "Ticks of the shard that did something";
    TickNsMax Level "Longest tick since the start, in ns";
    RecordsRead Count "Records read from the ring";
    Overruns Count "Times the shard was lapped by the sequencer";
    OverrunBytes Count "Bytes of the ring that were lost to overruns";
    Clients Level "Connected subscribers";
    JsonClients Level "Of those, subscribers that are sent JSON in WebSocket frames";
    EventClients Level "Of those, subscribers that are sent Server-Sent Events";
    ClientsAccepted Count "Subscribers that came";
    ClientsClosed Count "Subscribers that went, for whatever reason";
    Audiences Level "Different interests among the subscribers";
    Packets Count "Sends of data packets, one a subscriber and flush";
    PacketBytes Count "Bytes of those sends";
    Records Count "Records delivered, one a subscriber";
    ShortSends Count "Sends that a full socket cut short or refused";
    CatchingUp Level "Subscribers that are owed something: a snapshot, an answer, or what they were too slow for";
    SlowClosed Count "Subscribers closed with 4002 for taking nothing too long";
    ResumesReplayed Count "Resumes that were answered with the history after the token";
    ResumesSnapshot Count "Resumes that were answered with a snapshot: another epoch, or no longer in the history";
    ReplaysLost Count "Replays that the sequencer overtook, and that ended in a snapshot";
    RecordsReplayed Count "Records of the history that were sent, one a subscriber";
    HistoryBytes Level "How far back a subscriber can resume, in bytes of the ring";
    HistoryMs Level "How far back a subscriber can resume, in ms";
    BehindClosed Count "Subscribers closed with 4002 for having been behind too long";
    GapsSent Count "Gap records sent, one a subscriber";
    Conflated Count "Records sent that stand for several, one an audience";
    Requests Count "Requests of subscribers";
    RequestErrors Count "Requests that were answered with an error";
    Compressed Count "Packets that were compressed, one an audience";
    CompressedBytesBefore Count "Bytes of those packets before";
    CompressedBytesAfter Count "Bytes of those packets after, with their frames' headers";
    Violations Count "Subscribers closed for breaking the protocol";
    InflatedTooFar Count "Of those, subscribers whose compressed message inflated beyond a limit";
    Floods Count "Subscribers closed for sending requests faster than the limit";
    IdleClosed Count "Subscribers closed because nothing came from them, not even a pong";
    PingTimeouts Count "Subscribers closed because a ping was not answered: ping_timeout_ms";
    SubscribeTimeouts Count "Subscribers closed because they came and subscribed to nothing: subscribe_timeout_ms";
    Heartbeats Count "Heartbeats sent, one a subscriber";
    RefusedFull Count "Upgrades refused with 503 because all slots were taken: connections_max";
    RefusedAddress Count "Connections refused with 429 because their address had as many: connections_per_address_max";
    Forwarded Count "Requests of trusted proxies that said whose they are: trusted_proxies";
    ForwardedUnread Count "Requests of trusted proxies without an X-Forwarded-For that can be read: they count for the proxy";
    RefusedRate Count "Upgrades refused with 503 because too many came at once: handshakes_per_s";
    RefusedAddressRate Count "Upgrades refused with 429 because too many came of their address: handshakes_per_address_per_s";
    RefusedOrigin Count "Streams refused with 403 because a page of another origin asked for them: allow_origin";
    RefusedDraining Count "Upgrades refused with 503 because the server stops";
    Drained Count "Subscribers sent away with 1001 because the server stops";
    HandshakesDelayed Count "Upgrades that had to wait: handshakes_per_s, handshakes_per_address_per_s";
    DoorConnections Level "Connections that are no subscribers and no publishers: requests under way, answers, echoes";
    RefusedDoor Count "Connections refused with 503 because too many connections were pending: door_connections_max";
    DoorEvicted Count "Connections sent away because newer ones wanted their place and they had sent no whole request";
    HeadTimeouts Count "Connections answered with 408 because no whole request had come: upgrade_timeout_ms";
    HeadsTooLarge Count "Requests refused with 431: head_bytes_max";
    WriteTimeouts Count "Connections ended because an answer or an echo was not taken: write_timeout_ms";
    RefusedEchoes Count "Echoes refused with 503 because as many were connected: echoes_max";
    EchoesIdle Count "Echoes closed because nothing came from them: idle_timeout_ms";
}

/// Numbers a shard counts in. Plain integers: one owner.
#[derive(Clone, Debug)]
pub struct ShardCounters([u64; Counter::ALL.len()]);

impl Default for ShardCounters {
    fn default() -> Self {
        Self([0; Counter::ALL.len()])
    }
}

impl ShardCounters {
    /// Counts `amount` more.
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

/// Where other threads read a shard's numbers, some tens of milliseconds late.
#[derive(Clone, Debug)]
pub struct PublishedCounters(Arc<[AtomicU64]>);

impl Default for PublishedCounters {
    fn default() -> Self {
        Self((0..Counter::ALL.len()).map(|_| AtomicU64::new(0)).collect())
    }
}

impl PublishedCounters {
    /// Shows the present numbers.
    pub fn publish(&self, counters: &ShardCounters) {
        for (shown, value) in self.0.iter().zip(counters.0) {
            // Relaxed: each number stands for itself, nothing is ordered by them.
            shown.store(value, Ordering::Relaxed);
        }
    }

    /// One number as last shown.
    pub fn get(&self, counter: Counter) -> u64 {
        // Relaxed: see `publish`.
        self.0[counter as usize].load(Ordering::Relaxed)
    }
}
