//! The reader of a connection: one of two for binary packets, independent of each other, or the one for JSON.

use super::checker::{FastChecker, SequenceTable};
use super::json_checker::JsonChecker;
use super::messages::{ClientPlan, ClientRole, ReadOptions};
use crate::load::latency::channel_of;
use crate::load::slow_clients::LimitedFormat;
use tickcast_client::decode::{DecodeCounters, DecodeError, Decoder, SequenceViolation};
use tickcast_protocol::packet::PacketHeader;
use tickcast_protocol::record::RecordHeader;

/// Checks a connection's packets: binary ones by one of two independent readers.
#[derive(Debug)]
pub enum StreamChecker {
    Fast(FastChecker),
    Independent(Box<Decoder>),
    /// Of a connection whose packets are JSON.
    Json(Box<JsonChecker>),
}

impl StreamChecker {
    /// The reader of a connection's packets. Limited clients do not go through tungstenite, which reads as much as it can.
    pub fn for_client(plan: &ClientPlan, options: &ReadOptions) -> Self {
        let is_limited = plan.role == ClientRole::Limited;
        let table = if options.dense { SequenceTable::Dense } else { SequenceTable::Sparse };
        match options {
            // Servers of another kind define nothing, which a Decoder would count as a violation.
            ReadOptions { opaque: true, .. } => Self::Fast(FastChecker::new(table, false)),
            ReadOptions { limited_format: LimitedFormat::Json, .. } if is_limited => {
                Self::Json(Box::new(JsonChecker::new()))
            }
            _ if plan.independent && !is_limited => Self::Independent(Box::new(Decoder::without_names())),
            _ => Self::Fast(FastChecker::new(table, true)),
        }
    }

    /// Reads one binary packet, see [`FastChecker::packet`].
    #[inline]
    pub fn packet(&mut self, bytes: &[u8], mut on: impl FnMut(&RecordHeader)) -> Result<PacketHeader, DecodeError> {
        match self {
            Self::Fast(checker) => checker.packet(bytes, on),
            Self::Independent(decoder) => decoder.packet(bytes, |_, header, _| {
                if channel_of(header).is_some() {
                    on(header);
                }
            }),
            Self::Json(_) => unreachable!("a connection with JSON refuses binary messages"),
        }
    }

    /// What has been counted since the start.
    pub fn counters(&self) -> &DecodeCounters {
        match self {
            Self::Fast(checker) => checker.counters(),
            Self::Independent(decoder) => decoder.counters(),
            Self::Json(checker) => checker.counters(),
        }
    }

    /// The first break of the rule.
    pub fn first_violation(&self) -> Option<SequenceViolation> {
        match self {
            Self::Fast(checker) => checker.first_violation(),
            Self::Independent(decoder) => decoder.first_violation(),
            Self::Json(checker) => checker.first_violation(),
        }
    }
}
