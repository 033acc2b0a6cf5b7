//! What the archive on disk takes of the trades, and gives them.
//!
//! What always holds:
//! * Each trade is given out once, in order, unless [`STORED_MAX`] newer ones are given out instead of it.
//! * Trades are given out under the symbol of their instrument and with their own exponents. So those of one whose
//!   Definition was lost are not.
//! * An instrument takes over what the archive has once after its Definition. Before, nothing of it is given out, unless
//!   it is released or the server ends: it would take over its own trades.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{RecentTrade, RecentTrades, Row};

/// The most trades of an instrument that the archive has.
pub const STORED_MAX: usize = 100;
/// Trades of released instruments that wait to be written. Those beyond are lost.
const SAVED_MAX: usize = 100_000;

/// Trades of an instrument, oldest first, each with its exponents, for the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTrades {
    pub symbol: Arc<str>,
    pub trades: Vec<RecentTrade>,
    /// There is none between these and what was given out before.
    pub follows: bool,
}

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Trades of instruments that were released before they were taken.
    saved: Vec<StoredTrades>,
    saved_trades: usize,
    lost: u64,
    /// Instruments that were defined and are not seeded.
    unseeded: Vec<u32>,
}

impl Kept {
    fn save(&mut self, stored: StoredTrades) {
        if self.saved_trades + stored.trades.len() > SAVED_MAX {
            self.lost += stored.trades.len() as u64;
            return;
        }
        self.saved_trades += stored.trades.len();
        self.saved.push(stored);
    }
}

impl RecentTrades {
    /// With an archive on disk that takes the trades.
    pub fn with_archive(self) -> Self {
        Self { kept: Some(Kept::default()), ..self }
    }

    /// Instruments to be seeded, at most so many.
    pub fn take_unseeded(&mut self, count_max: usize) -> Vec<(u32, Arc<str>)> {
        let Some(kept) = &mut self.kept else { return Vec::new() };
        let unseeded: Vec<u32> = kept.unseeded.drain(..count_max.min(kept.unseeded.len())).collect();
        let named = |id: u32| {
            let row = self.rows.get(id as usize - 1).filter(|row| !row.is_seeded)?;
            Some((id, row.symbol.clone()?))
        };
        unseeded.into_iter().filter_map(named).collect()
    }

    /// Names an instrument again that could not be seeded.
    pub fn seed_later(&mut self, instrument: u32) {
        self.kept.iter_mut().for_each(|kept| kept.unseeded.push(instrument));
    }

    /// Puts what the archive has of instruments, the oldest first, in front of their trades. Nothing happens to one that
    /// is not what it was meanwhile, or that is seeded.
    pub fn seed(&mut self, known: Vec<(u32, Arc<str>, Vec<RecentTrade>)>) {
        let mut fresh = Vec::new();
        for (id, symbol, trades) in known {
            let at = id as usize - 1;
            let is_saved = self.kept.as_ref().is_some_and(|kept| kept.saved.iter().any(|saved| saved.symbol == symbol));
            let Some(row) = self.rows.get_mut(at).filter(|row| !row.is_seeded && row.symbol.as_ref() == Some(&symbol))
            else {
                continue;
            };
            if is_saved {
                // It was released and defined again: the archive has these trades first.
                self.seed_later(id);
                continue;
            }
            row.is_seeded = true;
            if !trades.is_empty() {
                self.active += usize::from(!std::mem::replace(&mut row.is_active, true));
                fresh.push((at, trades));
            }
        }
        // Before they are put there, so that they take their shares and no more.
        self.share();
        for (at, trades) in fresh {
            let row = &mut self.rows[at];
            let before = row.bytes();
            row.put_in_front(trades, self.capacity);
            self.bytes += row.bytes() - before;
        }
    }

    /// Takes the trades of instruments that were released.
    pub fn take_saved(&mut self, out: &mut Vec<StoredTrades>) {
        let Some(kept) = &mut self.kept else { return };
        kept.saved_trades = 0;
        out.append(&mut kept.saved);
    }

    /// Takes the newest trades that were not taken before, of so many rows from one on. Returns the row from which on
    /// there may be more. At the end of the server those that are not seeded are taken as well.
    pub fn take_unwritten(
        &mut self,
        from_row: usize,
        rows_max: usize,
        is_end: bool,
        out: &mut Vec<StoredTrades>,
    ) -> Option<usize> {
        let end = (from_row + rows_max).min(self.rows.len());
        let rows = &mut self.rows[from_row.min(end)..end];
        out.extend(rows.iter_mut().filter(|row| row.is_seeded || is_end).filter_map(Row::take_unwritten));
        (end < self.rows.len()).then_some(end)
    }

    /// How many trades were lost before they could be written.
    pub fn unwritten_lost(&self) -> u64 {
        self.kept.as_ref().map_or(0, |kept| kept.lost)
    }

    /// Notes the symbol of an instrument that is defined.
    pub(super) fn name(&mut self, instrument: u32, symbol: &str) {
        if self.kept.is_none() || self.row_mut(instrument).symbol.as_deref() == Some(symbol) {
            return;
        }
        if self.row_mut(instrument).symbol.is_some() {
            // Its release was lost.
            self.release(instrument);
        }
        self.row_mut(instrument).symbol = Some(symbol.into());
        self.seed_later(instrument);
    }

    /// Saves what is not written of an instrument that is released.
    pub(super) fn save_all_of(&mut self, instrument: u32) {
        let stored = self.row_mut(instrument).take_unwritten();
        if let (Some(kept), Some(stored)) = (&mut self.kept, stored) {
            kept.save(stored);
        }
    }
}

impl Row {
    fn take_unwritten(&mut self) -> Option<StoredTrades> {
        let symbol = self.symbol.clone()?;
        // They are the newest: the next Definition drops them.
        let unpriced = self.trades.iter().rev().take_while(|trade| trade.exponents.is_none()).count();
        let waiting = self.unwritten.saturating_sub(unpriced);
        let newest = self.trades.iter().rev().skip(unpriced).take(waiting.min(STORED_MAX));
        let own = newest.take_while(|trade| !trade.sequence.is_none());
        let mut trades: Vec<RecentTrade> = own.copied().collect();
        if trades.is_empty() {
            return None;
        }
        trades.reverse();
        self.unwritten -= waiting;
        Some(StoredTrades { symbol, follows: trades.len() == waiting, trades })
    }

    /// Puts as many of the newest of older trades in front as there is room for.
    fn put_in_front(&mut self, older: Vec<RecentTrade>, capacity: usize) {
        let room = capacity.saturating_sub(self.trades.len()).min(older.len());
        let mut trades = VecDeque::new();
        // The room that the row has already is left for what is added.
        trades.reserve_exact((self.trades.len() + room).max(self.trades.capacity().min(capacity)));
        trades.extend(&older[older.len() - room..]);
        trades.extend(&self.trades);
        self.trades = trades;
    }
}
