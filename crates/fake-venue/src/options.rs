//! How a venue is set up.

use std::path::PathBuf;

use crate::hub::ScriptedChange;
use crate::hub::faults::FaultPlan;
use crate::hub::limits::Limits;
use crate::venue::VenueKind;

/// How fast a session plays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// So many times as fast as it was.
    Times(f64),
    /// As fast as the clients read.
    Max,
}

/// Where a session comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// From a seed.
    Generate(u64),
    /// From a recording, up to this many milliseconds of it.
    Recording {
        /// The file.
        path: PathBuf,
        /// How much of it.
        limit_ms: Option<u64>,
    },
}

/// How a venue is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The venue.
    pub venue: VenueKind,
    /// The session.
    pub source: Source,
    /// Its speed.
    pub speed: Speed,
    /// The limits of the venue.
    pub limits: Limits,
    /// Faults.
    pub faults: FaultPlan,
    /// Books of OKX state their checksum, as they did until June 2026.
    pub with_checksums: bool,
    /// How late a late snapshot is.
    pub late_ms: u64,
    /// How long requests are refused by the rate limit.
    pub limited_ms: u64,
    /// Between the announcement of a restart and the close.
    pub notice_ms: u64,
    /// How long maintenance takes.
    pub down_ms: u64,
    /// Every connection is closed at this age.
    pub day_ms: Option<u64>,
    /// Changes of instruments, by the time of the session in ns.
    pub script: Vec<(u64, ScriptedChange)>,
    /// Without TLS.
    pub is_plain: bool,
    /// The port; 0 for a free one.
    pub port: u16,
}

impl Options {
    /// A generated session at its own speed, with the published limits and no faults.
    pub fn new(venue: VenueKind) -> Self {
        Self {
            venue,
            source: Source::Generate(1),
            speed: Speed::Times(1.0),
            limits: Limits::of(venue),
            faults: FaultPlan::default(),
            with_checksums: false,
            late_ms: 1_500,
            limited_ms: 2_000,
            notice_ms: 500,
            down_ms: 1_000,
            day_ms: None,
            script: Vec::new(),
            is_plain: false,
            port: 0,
        }
    }
}
