//! What the archive on disk takes of the bars, and gives them.
//!
//! What always holds: a bar is given out once it is complete, or when it is dropped before, and again if it changes
//! later. Bars of an instrument are given out under its symbol, so those of one whose Definition was lost wait for the
//! next Definition. Before an instrument is seeded, nothing of it is given out: its newest bars lack what the archive has.

use std::sync::Arc;

use super::series::{Known, Series};
use super::{Bar, BarQuery, Bars, INTERVALS_S, Row, seconds};

/// Bars that wait to be written beyond this are lost.
const SAVED_MAX: usize = 500_000;

/// A bar as the archive has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBar {
    pub symbol: Arc<str>,
    /// The length.
    pub interval_s: u32,
    /// Of the prices and sizes.
    pub exponents: (i8, i8),
    pub bar: Bar,
}

/// Whether an instrument has what the archive has of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seeded {
    /// Not since it is defined.
    Never,
    /// It had, but the archive was changed from outside.
    Before,
    Yes,
}

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Bars that were dropped before they were taken.
    saved: Vec<StoredBar>,
    lost: u64,
    /// Instruments that were defined and are not seeded.
    unseeded: Vec<u32>,
    /// The clock was set back: bars after this second do not hold.
    truncated_s: Option<u32>,
    /// Row at which the next portion of changed bars begins.
    next_row: usize,
}

impl Kept {
    /// Saves bars of an instrument that are dropped.
    pub(super) fn save(&mut self, row: &Row, level: usize, dropped: impl IntoIterator<Item = Bar>) {
        for bar in dropped {
            match (&row.symbol, row.exponents) {
                (Some(symbol), Some(exponents)) if self.saved.len() < SAVED_MAX => {
                    let (symbol, interval_s) = (symbol.clone(), INTERVALS_S[level]);
                    self.saved.push(StoredBar { symbol, interval_s, exponents, bar });
                }
                _ => self.lost += 1,
            }
        }
    }

    pub(super) fn truncate_after(&mut self, last_s: u32) {
        self.truncated_s = Some(self.truncated_s.map_or(last_s, |earlier| earlier.min(last_s)));
        self.saved.retain(|saved| saved.bar.time_s <= last_s);
    }
}

impl Bars {
    /// With an archive on disk that takes the bars, and knows of these times without records.
    pub fn with_archive(mut self, holes: &[(u32, u32)]) -> Self {
        self.kept = Some(Kept::default());
        self.holes = holes.to_vec();
        self.shared_by = usize::MAX;
        self.share();
        self
    }

    /// Instruments to be seeded, at most so many, with their exponents; each is named once.
    pub fn take_unseeded(&mut self, count_max: usize) -> Vec<(u32, Arc<str>, (i8, i8))> {
        let Some(kept) = &mut self.kept else { return Vec::new() };
        let unseeded: Vec<u32> = kept.unseeded.drain(..count_max.min(kept.unseeded.len())).collect();
        let named = |id: u32| {
            let row = self.row(id).filter(|row| row.seeded != Seeded::Yes)?;
            Some((id, row.symbol.clone()?, row.exponents?))
        };
        unseeded.into_iter().filter_map(named).collect()
    }

    /// Names an instrument again that could not be seeded.
    pub fn seed_later(&mut self, instrument: u32) {
        self.kept.iter_mut().for_each(|kept| kept.unseeded.push(instrument));
    }

    /// Has all instruments seeded again: the archive was changed from outside.
    pub fn seed_again(&mut self) {
        let Some(kept) = &mut self.kept else { return };
        for (at, row) in self.rows.iter_mut().enumerate().filter(|(_, row)| row.seeded == Seeded::Yes) {
            row.seeded = Seeded::Before;
            kept.unseeded.push(at as u32 + 1);
        }
    }

    /// Takes over what the archive has of an instrument, by length, at these exponents, and for which times bars were
    /// loaded. Nothing happens if the instrument is not what it was meanwhile. True if it is the first time since it is
    /// defined.
    pub fn seed(
        &mut self,
        (id, symbol, exponents): (u32, &str, (i8, i8)),
        known: [Known; INTERVALS_S.len()],
        loads: Vec<(u32, u32)>,
    ) -> bool {
        let (capacities, began_s) = (self.capacities, self.began_s);
        let Some(row) = (id as usize).checked_sub(1).and_then(|at| self.rows.get_mut(at)) else { return false };
        if row.symbol.as_deref() != Some(symbol) {
            return false;
        }
        if row.exponents != Some(exponents) {
            // At the next time, with the others.
            self.seed_later(id);
            return false;
        }
        let was_new = row.series.iter().all(Series::is_new);
        let is_first = row.seeded == Seeded::Never;
        row.seeded = Seeded::Yes;
        row.loads = loads;
        let first_s = known.iter().filter_map(|known| known.since_s).chain(row.first_s).min();
        self.first_changes += u64::from(row.first_s != first_s);
        row.first_s = first_s;
        for (level, known) in known.into_iter().enumerate() {
            let since_s = known.since_s.unwrap_or(began_s);
            let dropped = row.series[level].seed(known, since_s, capacities[level], is_first);
            if let Some(kept) = &mut self.kept {
                kept.save(row, level, dropped);
            }
        }
        let is_new = row.series.iter().all(Series::is_new);
        self.active += usize::from(was_new && !is_new);
        is_first
    }

    /// Takes a portion of what is to be written: what was dropped, and changed bars that are complete at `now_s`, of so
    /// many instruments. True if there is more.
    pub fn take_changed(&mut self, now_s: u32, rows_max: usize, out: &mut Vec<StoredBar>) -> bool {
        let Some(kept) = &mut self.kept else { return false };
        out.append(&mut kept.saved);
        let end = (kept.next_row + rows_max).min(self.rows.len());
        let mut changed = Vec::new();
        for row in &mut self.rows[kept.next_row.min(end)..end] {
            let (Some(symbol), Some(exponents), true) = (&row.symbol, row.exponents, row.seeded == Seeded::Yes) else {
                continue;
            };
            for (series, interval_s) in row.series.iter_mut().zip(INTERVALS_S) {
                series.take_changed(interval_s, now_s, &mut changed);
                let stored = |bar| StoredBar { symbol: symbol.clone(), interval_s, exponents, bar };
                out.extend(changed.drain(..).map(stored));
            }
        }
        let has_more = end < self.rows.len();
        kept.next_row = if has_more { end } else { 0 };
        has_more
    }

    /// The second after which bars do not hold any more, if the clock was set back, and the holes.
    pub fn take_truncation(&mut self) -> (Option<u32>, Vec<(u32, u32)>) {
        (self.kept.as_mut().and_then(|kept| kept.truncated_s.take()), self.holes.clone())
    }

    /// Takes a truncation back that could not be written.
    pub fn step_back_again(&mut self, last_s: u32) {
        self.kept.iter_mut().for_each(|kept| kept.truncate_after(last_s));
    }

    /// The times from a second on, and before the end of a query, in which records of an instrument may be missing.
    pub fn holes_of(&self, instrument: u32, from_s: u32, query: &BarQuery) -> Vec<(u32, u32)> {
        let holes = query.touched(&self.holes, from_s);
        let loads = self.row(instrument).map_or(&[][..], |row| &row.loads);
        loads.iter().fold(holes, |holes, load| without(&holes, *load))
    }

    /// Bars that were dropped before they could be written.
    pub fn unwritten(&self) -> u64 {
        self.kept.as_ref().map_or(0, |kept| kept.lost)
    }

    /// The time of the oldest bar of an instrument, in memory or in the archive.
    pub fn first_s(&self, instrument: u32) -> Option<u32> {
        self.row(instrument)?.first_s
    }

    /// How many times an answer of [`first_s`](Self::first_s) has changed.
    pub fn first_changes(&self) -> u64 {
        self.first_changes
    }

    /// The bars of a length between two times, oldest first.
    pub fn between(&self, instrument: u32, level: usize, from_s: u32, before_s: u32) -> Vec<Bar> {
        let Some(row) = self.row(instrument) else { return Vec::new() };
        let bars = row.series[level].bars();
        bars.iter().filter(|bar| (from_s..before_s).contains(&bar.time_s)).copied().collect()
    }

    pub(super) fn name(&mut self, instrument: u32, symbol: &str) {
        let row = self.row_mut(instrument);
        if row.symbol.as_deref() == Some(symbol) {
            return;
        }
        row.symbol = Some(symbol.into());
        row.seeded = Seeded::Never;
        self.kept.iter_mut().for_each(|kept| kept.unseeded.push(instrument));
    }

    /// Saves what is not written of an instrument that is released.
    pub(super) fn save_all_of(&mut self, instrument: u32) {
        self.row_mut(instrument);
        let (Some(kept), row) = (&mut self.kept, &mut self.rows[instrument as usize - 1]) else { return };
        let mut changed = Vec::new();
        for (level, interval_s) in INTERVALS_S.into_iter().enumerate() {
            row.series[level].take_changed(interval_s, u32::MAX, &mut changed);
            kept.save(row, level, changed.drain(..));
        }
    }
}

/// These times without that one.
pub(super) fn without(times: &[(u32, u32)], (from_s, to_s): (u32, u32)) -> Vec<(u32, u32)> {
    let mut rest = Vec::new();
    for &(first_s, last_s) in times {
        if to_s < first_s || last_s < from_s {
            rest.push((first_s, last_s));
            continue;
        }
        rest.extend((first_s < from_s).then(|| (first_s, from_s - 1)));
        rest.extend((to_s < last_s).then(|| (to_s + 1, last_s)));
    }
    rest
}

/// The newest complete second at a time of the stamps.
pub fn complete_s(stamp_ns: u64) -> u32 {
    seconds(stamp_ns.saturating_sub(1_000_000_000))
}
