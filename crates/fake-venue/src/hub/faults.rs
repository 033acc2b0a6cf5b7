//! Faults: which there are, which a venue can have, and when they happen.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use crate::truth::FaultRecord;
use crate::venue::VenueKind;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A connection ends within a message, without a close frame.
    Cut,
    /// A message is not sent.
    Skip,
    /// A message is sent again.
    Repeat,
    /// A snapshot takes long.
    LateSnapshot,
    /// A snapshot is older than the first change after it.
    StaleSnapshot,
    /// The checksum of a message is wrong.
    BadChecksum,
    /// REST requests and new connections are refused with 429, then 418, for some time.
    RateLimit,
    /// Nothing comes on a subscription that was acknowledged.
    Silent,
    /// A message is cut off, and so no JSON.
    BadJson,
    /// The venue announces or makes a restart.
    Maintenance,
    /// A connection is closed as it is 24 hours old.
    Close24h,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Cut,
        Self::Skip,
        Self::Repeat,
        Self::LateSnapshot,
        Self::StaleSnapshot,
        Self::BadChecksum,
        Self::RateLimit,
        Self::Silent,
        Self::BadJson,
        Self::Maintenance,
        Self::Close24h,
    ];

    /// Its name, as in `--faults`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Skip => "skip",
            Self::Repeat => "repeat",
            Self::LateSnapshot => "late-snapshot",
            Self::StaleSnapshot => "stale-snapshot",
            Self::BadChecksum => "bad-checksum",
            Self::RateLimit => "rate-limit",
            Self::Silent => "silent",
            Self::BadJson => "bad-json",
            Self::Maintenance => "maintenance",
            Self::Close24h => "close-24h",
        }
    }

    /// True if the venue can have this fault in a message of this class, and a client can notice it.
    ///
    /// Changes of Coinbase's books have no number and no checksum ("guarantees delivery"), trades of Bybit no order: what
    /// is missing there cannot be noticed. Snapshots of Coinbase and Kraken are made when they are sent.
    pub fn can_happen(self, venue: VenueKind, class: Class) -> bool {
        match self {
            Self::Skip if class == Class::Trade => !venue.is_bybit(),
            Self::Skip => class == Class::Book && venue != VenueKind::Coinbase,
            Self::Repeat => matches!(class, Class::Book | Class::Trade),
            Self::BadJson => class == Class::Book || (class == Class::Trade && !venue.is_bybit()),
            Self::StaleSnapshot => {
                class == Class::Book && (venue.is_binance() || venue.is_bybit() || venue == VenueKind::Okx)
            }
            Self::BadChecksum => class == Class::Book && matches!(venue, VenueKind::Kraken | VenueKind::Okx),
            Self::Close24h => class == Class::Book && venue.is_binance(),
            Self::Silent => class != Class::Trade,
            Self::Cut | Self::LateSnapshot | Self::RateLimit | Self::Maintenance => class == Class::Book,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|fault| fault.name() == text);
        found.ok_or_else(|| format!("fault {text:?}: expected one of {}", names()))
    }
}

/// What kind of a message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Of a book.
    Book,
    /// A trade.
    Trade,
    /// Best prices.
    Quote,
    /// Statistics.
    Ticker,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Book, Self::Trade, Self::Quote, Self::Ticker];
}

/// When faults happen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// Which.
    pub kinds: Vec<Fault>,
    /// One in each interval; without it only those that are asked for.
    pub interval_ms: Option<u64>,
    /// Decides which comes next.
    pub seed: u64,
}

/// A fault that waits for its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Armed {
    /// Which.
    pub fault: Fault,
    /// In which messages.
    pub class: Class,
}

/// The faults of a venue.
#[derive(Debug)]
pub struct Faults {
    venue: VenueKind,
    plan: FaultPlan,
    rng: Pcg64,
    next_ns: Option<u64>,
    armed: VecDeque<Armed>,
    /// Those that have happened.
    pub log: Vec<FaultRecord>,
}

impl Faults {
    /// The faults of a plan.
    pub fn new(venue: VenueKind, plan: FaultPlan) -> Self {
        let rng = Pcg64::seed_from_u64(plan.seed);
        Self { venue, plan, rng, next_ns: None, armed: VecDeque::new(), log: Vec::new() }
    }

    /// Waits for the next message or request in which the fault can happen.
    pub fn arm(&mut self, fault: Fault, class: Class) {
        self.armed.push_back(Armed { fault, class });
    }

    /// Forgets what waits, and makes no others.
    pub fn end(&mut self) {
        self.armed.clear();
        self.plan.interval_ms = None;
    }

    /// True while a fault waits for its place.
    pub fn is_armed(&self) -> bool {
        !self.armed.is_empty()
    }

    /// Arms the next fault of the plan, if its time has come.
    pub fn tick(&mut self, now_ns: u64) {
        let Some(interval_ns) = self.plan.interval_ms.map(|ms| ms * 1_000_000) else { return };
        let next_ns = *self.next_ns.get_or_insert(now_ns + interval_ns);
        if now_ns < next_ns {
            return;
        }
        self.next_ns = Some(now_ns + interval_ns);
        let venue = self.venue;
        let classes = |fault: &Fault| Class::ALL.map(|class| (*fault, class));
        let possible: Vec<_> = self.plan.kinds.iter().flat_map(classes).collect();
        let possible: Vec<_> = possible.into_iter().filter(|(fault, class)| fault.can_happen(venue, *class)).collect();
        if !possible.is_empty() && self.armed.len() < 4 {
            let (fault, class) = possible[self.rng.random_range(0..possible.len())];
            self.arm(fault, class);
        }
    }

    /// The first fault that waits and is one of these; it happens now, at this place.
    pub fn take(&mut self, kinds: &[Fault], class: Class, at: FaultPlace<'_>) -> Option<Fault> {
        let wanted = |armed: &Armed| kinds.contains(&armed.fault) && armed.class == class;
        let nth = self.armed.iter().position(wanted)?;
        let Armed { fault, .. } = self.armed.remove(nth)?;
        let FaultPlace { now_ns, connection, place } = at;
        self.log.push(FaultRecord { fault: fault.name(), at_ns: now_ns, connection, place: place.to_owned() });
        Some(fault)
    }
}

/// Where a fault happens.
#[derive(Clone, Copy, Debug)]
pub struct FaultPlace<'a> {
    /// When.
    pub now_ns: u64,
    /// On which connection.
    pub connection: Option<u64>,
    /// The stream or path.
    pub place: &'a str,
}
