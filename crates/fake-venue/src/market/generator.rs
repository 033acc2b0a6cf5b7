//! A market from a seed: books of some hundred levels whose best prices move, and trades that take from them.
//!
//! The same seed makes the same session. Every 10 ms some instruments change: a level gets another size, comes or goes, a
//! trade takes from the best one. Books never cross and keep [`LEVELS_LEAST`] to [`LEVELS_MOST`] levels on each side, so
//! that a subscription of 10, 25, 50 or 100 levels loses levels to the edge and gets them back.

use std::collections::{BTreeMap, VecDeque};

use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64;
use rust_decimal::Decimal;

use super::book::{Book, Change, Side};
use super::instrument::{Instrument, Seed};
use super::step::{Step, Trade, What};

const LEVELS_LEAST: usize = 110;
const LEVELS_MOST: usize = 150;
const TICK_NS: u64 = 10_000_000;
/// How many of a hundred ticks an instrument changes in.
const ACTIVE_PERCENT: u32 = 40;
const TRADE_PERCENT: u32 = 15;

/// The generator.
pub struct Generator {
    rng: Pcg64,
    markets: Vec<Market>,
    now_ns: u64,
    ready: VecDeque<Step>,
}

struct Market {
    instrument: Instrument,
    usual_lots: i64,
    /// Size in lots by price in ticks.
    bids: BTreeMap<i64, i64>,
    asks: BTreeMap<i64, i64>,
    next_trade: u64,
}

impl Generator {
    /// A session of these instruments.
    pub fn new(seed: u64, seeds: Vec<Seed>) -> Self {
        let mut rng = Pcg64::seed_from_u64(seed);
        let markets = seeds.into_iter().map(|seed| Market::new(seed, &mut rng)).collect();
        Self { rng, markets, now_ns: 0, ready: VecDeque::new() }
    }

    /// The instruments and their books at the start.
    pub fn start(&self) -> Vec<(Instrument, Book)> {
        self.markets.iter().map(|market| (market.instrument.clone(), market.book())).collect()
    }

    /// The next event. There is always one.
    pub fn next_step(&mut self) -> Step {
        loop {
            if let Some(step) = self.ready.pop_front() {
                return step;
            }
            self.now_ns += TICK_NS;
            for (instrument, market) in self.markets.iter_mut().enumerate() {
                if self.rng.random_range(0..100) < ACTIVE_PERCENT {
                    let at_ns = self.now_ns;
                    let events = market.events(&mut self.rng);
                    self.ready.extend(events.into_iter().map(|what| Step { at_ns, instrument, what, raw: None }));
                }
            }
        }
    }

    /// The events that were made and not taken.
    pub fn drain(&mut self) -> Vec<Step> {
        self.ready.drain(..).collect()
    }

    /// Gives an instrument a tick that is `factor` times as large. Prices that are multiples of it stay; the others are
    /// removed.
    pub fn widen_tick(&mut self, index: usize, factor: i64) -> Vec<Change> {
        let market = &mut self.markets[index];
        let mut changes = Vec::new();
        for side in [Side::Bid, Side::Ask] {
            let best = market.best(side);
            let old = std::mem::take(market.side(side));
            for (ticks, lots) in old {
                if ticks % factor == 0 {
                    market.side(side).insert(ticks / factor, lots);
                } else {
                    changes.push(market.change(side, ticks, 0));
                }
            }
            let rounded = best.div_euclid(factor) + i64::from(side == Side::Ask && best % factor != 0);
            let lots = market.usual_lots;
            market.side(side).entry(rounded).or_insert(lots);
        }
        market.instrument.tick *= Decimal::from(factor);
        for side in [Side::Bid, Side::Ask] {
            let best = market.best(side);
            let lots = market.side(side)[&best];
            changes.push(market.change(side, best, lots));
        }
        market.refill(&mut self.rng, &mut changes);
        changes
    }
}

impl Market {
    fn new(seed: Seed, rng: &mut Pcg64) -> Self {
        let Seed { instrument, start_ticks, usual_lots } = seed;
        let next_trade = 1_000_000 + u64::from(rng.next_u32() % 1_000_000);
        let (bids, asks) =
            (BTreeMap::from([(start_ticks, usual_lots)]), BTreeMap::from([(start_ticks + 1, usual_lots)]));
        let mut market = Self { instrument, usual_lots, bids, asks, next_trade };
        market.refill(rng, &mut Vec::new());
        market
    }

    fn book(&self) -> Book {
        let mut book = Book::default();
        for (side, levels) in [(Side::Bid, &self.bids), (Side::Ask, &self.asks)] {
            for (ticks, lots) in levels {
                book.apply(&self.change(side, *ticks, *lots));
            }
        }
        book
    }

    fn events(&mut self, rng: &mut Pcg64) -> Vec<What> {
        let mut changes = Vec::new();
        let mut events = Vec::new();
        if rng.random_range(0..100) < TRADE_PERCENT {
            events.push(What::Trade(self.trade(rng, &mut changes)));
        }
        for _ in 0..rng.random_range(1..4) {
            let side = if rng.random() { Side::Bid } else { Side::Ask };
            match rng.random_range(0..100) {
                0..50 => self.resize(rng, side, &mut changes),
                50..70 => self.add(rng, side, &mut changes),
                70..90 => self.remove(rng, side, &mut changes),
                _ => self.improve(rng, side, &mut changes),
            }
        }
        self.refill(rng, &mut changes);
        self.trim(&mut changes);
        // A message may name one price twice: the last one counts.
        if rng.random_range(0..20) == 0
            && let Some(last) = changes.last().filter(|change| !change.is_removal()).cloned()
        {
            let before = Change { sz: self.instrument.sz(self.lots(rng)), ..last.clone() };
            changes.insert(changes.len() - 1, before);
        }
        if !changes.is_empty() {
            events.push(What::Changes { changes, ids: None });
        }
        events
    }

    /// An order takes from the best level, sometimes all of it.
    fn trade(&mut self, rng: &mut Pcg64, changes: &mut Vec<Change>) -> Trade {
        let side = if rng.random() { Side::Bid } else { Side::Ask };
        let taken_from = side.other();
        let ticks = self.best(taken_from);
        let there = self.side(taken_from)[&ticks];
        let takes_all = rng.random_range(0..3) == 0;
        let lots = if takes_all { there } else { rng.random_range(1..=there) };
        self.set(taken_from, ticks, there - lots, changes);
        self.next_trade += 1;
        Trade { id: self.next_trade, px: self.instrument.px(ticks), sz: self.instrument.sz(lots), side, ts_ns: 0 }
    }

    fn resize(&mut self, rng: &mut Pcg64, side: Side, changes: &mut Vec<Change>) {
        let ticks = self.some_level(rng, side);
        let lots = self.lots(rng);
        self.set(side, ticks, lots, changes);
    }

    fn remove(&mut self, rng: &mut Pcg64, side: Side, changes: &mut Vec<Change>) {
        let ticks = self.some_level(rng, side);
        if self.side(side).len() > 1 {
            self.set(side, ticks, 0, changes);
        }
    }

    fn add(&mut self, rng: &mut Pcg64, side: Side, changes: &mut Vec<Change>) {
        let away = rng.random_range(1..100);
        let ticks = match side {
            Side::Bid => self.best(Side::Bid) - away,
            Side::Ask => self.best(Side::Ask) + away,
        };
        let lots = self.lots(rng);
        if ticks > 0 {
            self.set(side, ticks, lots, changes);
        }
    }

    /// A better best price, where there is one between the sides.
    fn improve(&mut self, rng: &mut Pcg64, side: Side, changes: &mut Vec<Change>) {
        let (bid, ask) = (self.best(Side::Bid), self.best(Side::Ask));
        if ask - bid > 1 {
            let lots = self.lots(rng);
            self.set(side, if side == Side::Bid { bid + 1 } else { ask - 1 }, lots, changes);
        }
    }

    /// Adds levels at the far end, until there are enough.
    fn refill(&mut self, rng: &mut Pcg64, changes: &mut Vec<Change>) {
        for side in [Side::Bid, Side::Ask] {
            while self.side(side).len() < LEVELS_LEAST {
                let away = rng.random_range(1..4);
                let (bid, ask) = (self.bids.first_key_value(), self.asks.last_key_value());
                let ticks = match side {
                    Side::Bid => bid.map_or(1, |(px, _)| px - away),
                    Side::Ask => ask.map_or(1, |(px, _)| px + away),
                };
                if ticks <= 0 {
                    break;
                }
                let lots = self.lots(rng);
                self.set(side, ticks, lots, changes);
            }
        }
    }

    fn trim(&mut self, changes: &mut Vec<Change>) {
        for side in [Side::Bid, Side::Ask] {
            while self.side(side).len() > LEVELS_MOST {
                let worst = if side == Side::Bid { self.bids.first_key_value() } else { self.asks.last_key_value() };
                let Some(ticks) = worst.map(|(px, _)| *px) else { break };
                self.set(side, ticks, 0, changes);
            }
        }
    }

    fn set(&mut self, side: Side, ticks: i64, lots: i64, changes: &mut Vec<Change>) {
        if lots == 0 {
            self.side(side).remove(&ticks);
        } else {
            self.side(side).insert(ticks, lots);
        }
        changes.push(self.change(side, ticks, lots));
    }

    fn change(&self, side: Side, ticks: i64, lots: i64) -> Change {
        Change { side, px: self.instrument.px(ticks), sz: self.instrument.sz(lots) }
    }

    fn side(&mut self, side: Side) -> &mut BTreeMap<i64, i64> {
        if side == Side::Bid { &mut self.bids } else { &mut self.asks }
    }

    fn best(&self, side: Side) -> i64 {
        let best = if side == Side::Bid { self.bids.last_key_value() } else { self.asks.first_key_value() };
        *best.expect("a side has levels").0
    }

    /// A level, rather one of the best.
    fn some_level(&mut self, rng: &mut Pcg64, side: Side) -> i64 {
        let count = self.side(side).len();
        let nth = rng.random_range(0..count).min(rng.random_range(0..count)).min(rng.random_range(0..count));
        let nth = if side == Side::Bid { count - 1 - nth } else { nth };
        *self.side(side).keys().nth(nth).expect("it is below the count")
    }

    fn lots(&self, rng: &mut Pcg64) -> i64 {
        rng.random_range(1..=self.usual_lots * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::instrument::seeds;
    use crate::venue::VenueKind;

    #[test]
    fn same_seed_makes_the_same_session_and_books_never_cross() {
        for venue in VenueKind::ALL {
            let (mut one, mut other) = (Generator::new(7, seeds(venue)), Generator::new(7, seeds(venue)));
            let mut books: Vec<Book> = one.start().into_iter().map(|(_, book)| book).collect();
            let mut trades = 0;
            for _ in 0..20_000 {
                let (step, again) = (one.next_step(), other.next_step());
                assert_eq!(format!("{step:?}"), format!("{again:?}"), "{venue}");
                let What::Changes { changes, .. } = step.what else {
                    trades += 1;
                    continue;
                };
                let book = &mut books[step.instrument];
                changes.iter().for_each(|change| book.apply(change));
                let best = [Side::Bid, Side::Ask].map(|side| crate::market::book::number(&book.best(side, 1)[0].0));
                assert!(best[0] < best[1], "{venue}: {best:?}");
                assert!(book.len(Side::Ask) >= LEVELS_LEAST && book.len(Side::Ask) <= LEVELS_MOST);
            }
            assert!(trades > 500, "{venue}: {trades} trades");
            for step in one.drain() {
                if let What::Changes { changes, .. } = step.what {
                    changes.iter().for_each(|change| books[step.instrument].apply(change));
                }
            }
            assert!(books[0] == one.markets[0].book(), "{venue}");
        }
    }
}
