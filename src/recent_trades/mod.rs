//! The newest trades of each instrument, in memory, as the sequencer numbered them.
//!
//! What always holds:
//! * An instrument has its newest trades, in the order of the stream, at most [`TRADES_MAX`].
//! * They take at most the bytes that they are given, in equal shares for all instruments that have some. An instrument
//!   that is released gives its memory back.
//! * Every trade of an instrument that was received in the second [`FoundTrades::since_s`] or later is kept.
//! * A trade has the exponents that its instrument had when it was traded. Those that are not known, because records
//!   were lost, are the present ones.
//! * With an archive, those of an earlier run of the server are in front of all others, once: see `kept.rs`.
//!
//! What it does not do: read a clock, or lock. Cost: some 15 ns a trade, twice 56 bytes at most.

mod kept;
mod store;

pub use self::kept::{STORED_MAX, StoredTrades};
pub use self::store::TradeStore;

use std::collections::VecDeque;
use std::sync::Arc;

use self::kept::Kept;
use tickcast_protocol::record::{self, RecordHeader, Trade};
use tickcast_protocol::{FeedState, Instrument, RecordKind, Sequence, Side};

/// The most trades that are kept of an instrument, and the most of an answer.
pub const TRADES_MAX: usize = 1000;

/// A trade, 56 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecentTrade {
    /// In the instrument's trade channel; none for one that the archive had.
    pub sequence: Sequence,
    pub ts_event: u64,
    pub ts_recv: u64,
    /// A mantissa, or [`PRICE_NONE`](tickcast_protocol::record::PRICE_NONE); the same for the size.
    pub px: i64,
    pub sz: i64,
    pub trade_id: u64,
    pub side: Side,
    /// Those of price and size; `None` if they are the present ones of the instrument.
    pub exponents: Option<(i8, i8)>,
}

/// The newest trades of an instrument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundTrades {
    /// From this second on every trade is kept. `None` where that is not known: the clock was set back behind it, or
    /// trades are being lost.
    pub since_s: Option<u32>,
    /// The oldest first.
    pub trades: Vec<RecentTrade>,
    /// It has the newest of the archive, or there is none.
    pub is_seeded: bool,
}

/// The newest trades of all instruments. One owner.
#[derive(Debug)]
pub struct RecentTrades {
    bytes_max: usize,
    began_s: u32,
    /// The most trades that an instrument may have now.
    capacity: usize,
    /// By instrument id, from 1 on.
    rows: Vec<Row>,
    /// Instruments with a trade.
    active: usize,
    /// `active` when `capacity` was computed.
    shared_by: usize,
    bytes: usize,
    /// Of the newest record.
    newest_s: u32,
    /// Records were lost; the next one ends the hole.
    is_losing: bool,
    /// How many times records were lost.
    losses: u32,
    /// From this second on nothing was lost.
    lost_until_s: u32,
    /// For the archive, if there is one.
    kept: Option<Kept>,
}

/// The trades of one instrument.
#[derive(Debug, Default)]
struct Row {
    trades: VecDeque<RecentTrade>,
    /// Those of its newest Definition, and the number of losses before that came.
    exponents: Option<((i8, i8), u32)>,
    /// From this second on no trade was dropped.
    since_s: u32,
    is_active: bool,
    /// That of its newest Definition, with an archive.
    symbol: Option<Arc<str>>,
    /// It has what the archive has.
    is_seeded: bool,
    /// How many of the newest the archive has not taken.
    unwritten: usize,
}

impl RecentTrades {
    /// Empty, with a history that begins at `began_ns`. The trades will take at most `bytes_max`.
    pub fn new(bytes_max: usize, began_ns: u64) -> Self {
        let began_s = seconds(began_ns);
        Self {
            bytes_max,
            began_s,
            capacity: capacity(bytes_max, 0),
            rows: Vec::new(),
            active: 0,
            shared_by: 0,
            bytes: 0,
            newest_s: began_s,
            is_losing: false,
            losses: 0,
            lost_until_s: 0,
            kept: None,
        }
    }

    /// Adds a whole record as the sequencer wrote it, if it is a trade. A Definition may have other exponents, and a
    /// Status `'R'` frees the trades of its instrument.
    pub fn fold(&mut self, record: &[u8]) {
        let Some(header) = RecordHeader::read(record).filter(|header| header.instrument > 0) else { return };
        self.newest_s = seconds(header.ts_recv);
        if std::mem::take(&mut self.is_losing) {
            self.lost_until_s = self.newest_s.saturating_add(1);
        }
        match header.known_kind() {
            Some(RecordKind::Trade) => {
                let trade = Trade::read(record);
                trade.inspect(|trade| self.add(&header, trade));
            }
            Some(RecordKind::Definition) => {
                let instrument = record::read_definition(record);
                instrument.inspect(|instrument| self.define(instrument));
            }
            Some(RecordKind::Status) if record::read_status(record) == Some(FeedState::Released) => {
                self.release(header.instrument);
            }
            _ => {}
        }
    }

    /// Divides the bytes among the present instruments. To be called after each batch of records: a comparison if no
    /// instrument is new, a pass over all of them otherwise.
    pub fn share(&mut self) {
        if self.shared_by == self.active {
            return;
        }
        self.shared_by = self.active;
        self.capacity = capacity(self.bytes_max, self.active);
        for row in &mut self.rows {
            let before = row.bytes();
            row.shrink(self.capacity);
            self.bytes -= before - row.bytes();
        }
    }

    /// Notes that records were lost, of any instrument, up to the next one that comes.
    pub fn lose(&mut self) {
        self.losses = self.losses.wrapping_add(1);
        self.is_losing = true;
    }

    /// The newest `limit` trades of an instrument.
    pub fn find(&self, instrument: u32, limit: usize) -> FoundTrades {
        let row = (instrument as usize).checked_sub(1).and_then(|at| self.rows.get(at));
        let since_s = row.map_or(0, |row| row.since_s).max(self.began_s).max(self.lost_until_s);
        let is_known = !self.is_losing && since_s <= self.newest_s.saturating_add(1);
        let newest = |row: &Row| row.trades.range(row.trades.len().saturating_sub(limit)..).copied().collect();
        FoundTrades {
            since_s: is_known.then_some(since_s),
            trades: row.map_or_else(Vec::new, newest),
            is_seeded: self.kept.is_none() || row.is_some_and(|row| row.is_seeded),
        }
    }

    /// Memory of the trades, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn add(&mut self, header: &RecordHeader, trade: &Trade) {
        let (capacity, losses) = (self.capacity, self.losses);
        let row = self.row_mut(header.instrument);
        let (is_new, before) = (!row.is_active, row.bytes());
        row.is_active = true;
        let exponents = row.exponents.filter(|(_, known_at)| *known_at == losses).map(|(exponents, _)| exponents);
        let Trade { px, sz, trade_id, side } = *trade;
        let RecordHeader { sequence, ts_event, ts_recv, .. } = *header;
        row.push(RecentTrade { sequence, ts_event, ts_recv, px, sz, trade_id, side, exponents }, capacity);
        row.unwritten += 1;
        let after = row.bytes();
        self.bytes += after - before;
        self.active += usize::from(is_new);
    }

    fn define(&mut self, instrument: &Instrument) {
        let losses = self.losses;
        self.name(instrument.id, &instrument.symbol);
        let row = self.row_mut(instrument.id);
        row.exponents = Some(((instrument.px_exp, instrument.sz_exp), losses));
        // The exponents of these were the present ones, which are gone and were never known here.
        row.note_dropped(row.trades.iter().filter(|trade| trade.exponents.is_none()).map(|trade| trade.ts_recv).max());
        let before = row.trades.len();
        row.trades.retain(|trade| trade.exponents.is_some());
        row.unwritten = row.unwritten.saturating_sub(before - row.trades.len());
    }

    fn release(&mut self, instrument: u32) {
        self.save_all_of(instrument);
        let row = std::mem::take(self.row_mut(instrument));
        self.bytes -= row.bytes();
        self.active -= usize::from(row.is_active);
    }

    fn row_mut(&mut self, instrument: u32) -> &mut Row {
        let at = instrument as usize - 1;
        if self.rows.len() <= at {
            self.rows.resize_with(at + 1, Row::default);
        }
        &mut self.rows[at]
    }
}

impl Row {
    fn bytes(&self) -> usize {
        self.trades.capacity() * size_of::<RecentTrade>()
    }

    /// Adds the newest trade, and drops the oldest one if there are `capacity` already.
    fn push(&mut self, trade: RecentTrade, capacity: usize) {
        /// Small, for instruments that are traded once and never again.
        const FIRST: usize = 4;
        if capacity == 0 {
            return self.note_dropped(Some(trade.ts_recv));
        }
        let len = self.trades.len();
        if len >= capacity {
            self.drop_oldest(len + 1 - capacity);
        } else if len == self.trades.capacity() {
            // Doubles, but never beyond `capacity`.
            self.trades.reserve_exact(len.max(FIRST).min(capacity - len));
        }
        self.trades.push_back(trade);
    }

    fn shrink(&mut self, capacity: usize) {
        if let Some(more) = self.trades.len().checked_sub(capacity) {
            self.drop_oldest(more);
        }
        if self.trades.capacity() > capacity {
            self.trades.shrink_to(capacity);
        }
    }

    fn drop_oldest(&mut self, count: usize) {
        // Those of the archive are of before the start, whatever the clock was then.
        let own = self.trades.drain(..count).filter(|trade| !trade.sequence.is_none());
        let newest_ns = own.map(|trade| trade.ts_recv).max();
        self.note_dropped(newest_ns);
    }

    /// `newest_ns` is the largest stamp of those that were dropped. Others of the same second may be kept.
    fn note_dropped(&mut self, newest_ns: Option<u64>) {
        let after = newest_ns.map(|newest_ns| seconds(newest_ns).saturating_add(1));
        self.since_s = self.since_s.max(after.unwrap_or_default());
    }
}

/// The most trades of each of `instruments`, so that all of them take at most `bytes_max`.
pub fn capacity(bytes_max: usize, instruments: usize) -> usize {
    (bytes_max / instruments.max(1) / size_of::<RecentTrade>()).min(TRADES_MAX)
}

/// Whole seconds since the Unix epoch; saturates in 2106.
fn seconds(ns: u64) -> u32 {
    u32::try_from(ns / 1_000_000_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
