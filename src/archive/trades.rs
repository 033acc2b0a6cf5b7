//! What the thread of an archive does with the newest trades: see [`super`].
//!
//! What always holds: trades are written in their order, also after a failure. An instrument takes over those of the
//! file once all of an earlier instrument of its symbol are written.

use std::sync::atomic::Ordering;

use super::thread::{SEEDED_AT_ONCE, Worker};
use crate::recent_trades::{RecentTrades, StoredTrades};

/// Instruments whose trades are taken under one lock: some 50 us.
const ROWS_AT_ONCE: usize = 64;
/// Trades that are written in one transaction.
const WRITTEN_AT_ONCE: usize = 20_000;

impl Worker {
    /// Puts the trades of the file in front of those of instruments that were defined. True if there are more.
    pub(super) fn seed_trades(&mut self) -> bool {
        // After a failure what was released waits for the next write.
        let takes_saved = self.unwritten_trades.is_empty();
        let unseeded = self.with_trades(|trades, unwritten| {
            if takes_saved {
                trades.take_saved(unwritten);
            }
            trades.take_unseeded(SEEDED_AT_ONCE)
        });
        let Some(unseeded) = unseeded else { return false };
        if takes_saved {
            self.commit_trades();
        }
        let (mut known, mut later, mut failure) = (Vec::new(), Vec::new(), None);
        for (id, symbol) in unseeded {
            if self.unwritten_trades.iter().any(|stored| stored.symbol == symbol) {
                later.push(id);
                continue;
            }
            match self.parts.database.trades(&symbol) {
                Ok(trades) => known.push((id, symbol, trades)),
                Err(problem) => {
                    later.push(id);
                    failure = Some(problem);
                }
            }
        }
        self.count_failure("read", failure.as_ref());
        let has_more = known.len() == SEEDED_AT_ONCE;
        if !known.is_empty() || !later.is_empty() {
            self.with_trades(|trades, _| {
                trades.seed(known);
                later.into_iter().for_each(|id| trades.seed_later(id));
            });
        }
        has_more
    }

    /// Writes the trades that are new. False if the file cannot be written: they are kept.
    pub(super) fn write_trades(&mut self, is_end: bool) -> bool {
        if !self.commit_trades() {
            return false;
        }
        let mut next_row = Some(0);
        while let Some(row) = next_row {
            next_row = self
                .with_trades(|trades, unwritten| {
                    trades.take_saved(unwritten);
                    trades.take_unwritten(row, ROWS_AT_ONCE, is_end, unwritten)
                })
                .flatten();
            let count: usize = self.unwritten_trades.iter().map(|stored| stored.trades.len()).sum();
            if (count >= WRITTEN_AT_ONCE || next_row.is_none()) && !self.commit_trades() {
                return false;
            }
        }
        true
    }

    fn commit_trades(&mut self) -> bool {
        if self.unwritten_trades.is_empty() {
            return true;
        }
        let written = self.parts.database.record_trades(&self.unwritten_trades);
        self.count_failure("written", written.as_ref().err());
        if written.is_ok() {
            self.unwritten_trades.clear();
        }
        written.is_ok()
    }

    /// Uses the trades of memory, if they are kept, and those that wait to be written.
    fn with_trades<T>(&mut self, used: impl FnOnce(&mut RecentTrades, &mut Vec<StoredTrades>) -> T) -> Option<T> {
        let trades = self.parts.store.trades()?;
        let (result, lost) =
            trades.for_archive(|trades| (used(trades, &mut self.unwritten_trades), trades.unwritten_lost()));
        // Relaxed: see `Archive::counts`.
        self.archive.trades_lost.store(lost, Ordering::Relaxed);
        Some(result)
    }
}

#[cfg(test)]
#[path = "trades_tests.rs"]
mod tests;
