//! The live path: from a record to the audiences that want it and to their members.
//!
//! The parts are separate so that they borrow separately: the index answers which audiences want a record while the
//! audiences are marked and the encoder writes.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::audiences::Audiences;
use super::conflation::{Conflator, QuoteOrder};
use super::depth_views::DepthViews;
use super::encoder::Encoder;
use super::sent_history::SentHistories;
use super::settings::Settings;
use super::subscription_index::{AudienceId, SubscriptionIndex};
use super::tick_records::{Now, TickRecords};
use crate::io::SlotId;
use crate::ring::RingOffset;
use tickcast_protocol::ConflationInterval;
use tickcast_protocol::record::Channel;

/// The longest conflation interval. After it, every pending value has been sent.
const INTERVAL_NS_MAX: u64 = 1_000_000_000;

/// See the module.
#[derive(Debug)]
pub(super) struct FanOut {
    pub(super) index: SubscriptionIndex,
    pub(super) audiences: Audiences,
    pub(super) conflator: Conflator,
    pub(super) depth_views: DepthViews,
    pub(super) encoder: Encoder,
    pub(super) records: TickRecords,
    pub(super) join_marks: JoinMarks,
    /// What the audiences with lagging members were sent lately.
    pub(super) histories: SentHistories,
    /// Members of the audience being flushed that have had some of its records: join mark and client. Empty between
    /// audiences.
    pub(super) marked_members: Vec<(RingOffset, SlotId)>,
}

impl FanOut {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut index = SubscriptionIndex::default();
        index.set_delay(settings.delay_s);
        if settings.has_private_symbols {
            index.set_private();
        }
        Self {
            index,
            audiences: Audiences::default(),
            conflator: Conflator::default(),
            depth_views: DepthViews::default(),
            encoder: Encoder::new(settings.compression.unwrap_or(1)),
            records: TickRecords::default(),
            join_marks: JoinMarks::default(),
            histories: SentHistories::default(),
            marked_members: Vec::new(),
        }
    }

    /// Removes the records of the last tick.
    pub(super) fn begin_tick(&mut self) {
        self.records.clear();
        self.audiences.begin_tick();
    }
}

/// How an audience gets the quotes of an instrument, see [`QuoteOrder`].
pub(super) fn quote_order(index: &SubscriptionIndex, audience: AudienceId, instrument: u32) -> QuoteOrder {
    quote_order_of(index.wants(audience, instrument, Channel::Trade))
}

/// The same by what the audience wants of the trades.
pub(super) fn quote_order_of(trades: Option<ConflationInterval>) -> QuoteOrder {
    match trades {
        Some(_) => QuoteOrder::BeforeTrade,
        None => QuoteOrder::Free,
    }
}

#[derive(Clone, Copy, Debug)]
struct JoinMark {
    offset: RingOffset,
    until_ns: u64,
}

/// Clients that became members in the middle of a conflation interval, having had all present values. At the next
/// interval boundary they must not be sent the values from before they joined once more.
#[derive(Debug, Default)]
pub(super) struct JoinMarks {
    by_slot: HashMap<SlotId, JoinMark, RandomState>,
}

impl JoinMarks {
    pub(super) fn is_empty(&self) -> bool {
        self.by_slot.is_empty()
    }

    /// The client has had everything up to this ring offset.
    pub(super) fn set(&mut self, slot_id: SlotId, offset: RingOffset, now: Now) {
        self.by_slot.insert(slot_id, JoinMark { offset, until_ns: now.ns + INTERVAL_NS_MAX });
    }

    /// The offset up to which a client has had everything, if it joined lately.
    pub(super) fn get(&self, slot_id: SlotId) -> Option<RingOffset> {
        self.by_slot.get(&slot_id).map(|mark| mark.offset)
    }

    pub(super) fn remove(&mut self, slot_id: SlotId) {
        self.by_slot.remove(&slot_id);
    }

    /// Removes marks that are older than the longest interval.
    pub(super) fn expire(&mut self, now: Now) {
        self.by_slot.retain(|_, mark| mark.until_ns > now.ns);
    }
}
