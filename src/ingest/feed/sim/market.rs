//! The market: every instrument's book, trades and statistics, one event at a time.
//!
//! An event belongs to one instrument and is a cluster of records with one time: its trades, the book delta with the
//! changes by trades and makers, the quote if the top of the book changed, the ticker if one is due. The final record has
//! the flag LAST. Invariants: a spread of 1 to 3 ticks, sizes above 0, trades at the touch and no larger than the size
//! there, every quote equal to the top of the book after the preceding deltas.
//!
//! The busiest instruments are the first of the list (Zipf's law). Order flow leans one way for a while, with a pull
//! towards the starting price that grows with the distance: a mean-reverting walk. Cost: 16 bytes a level and some 200
//! bytes an instrument; some 180 ns an event of 2.4 records.

use rand_distr::weighted::WeightedAliasIndex;

use super::day::Day;
use super::dice::Dice;
use super::ladder::{Delta, Ladder, Rung};
use super::names::{self, Listing};
use tickcast_protocol::record::{self, Level, Quote, RecordHeader, Ticker, Trade, flags};
use tickcast_protocol::{BookAction, BookSide, Instrument, RecordKind, Side};

/// Greatest spread.
const SPREAD_TICKS_MAX: i64 = 3;
/// Greatest change of the chance of an upward step, in 1024ths, by the pull towards home. Together with the lean the chance
/// stays inside 0 to 1024: neither direction is ever certain before half of the price is lost.
const PULL_MAX: i64 = 380;
/// Greatest change of the same chance by the lean of the order flow.
const LEAN_MAX: u32 = 96;

/// All instruments and the random generator that moves them.
pub(super) struct Market {
    dice: Dice,
    weights: WeightedAliasIndex<u64>,
    stocks: Vec<Stock>,
}

impl Market {
    /// A market of `instruments`, with books of `depth` levels a side.
    pub(super) fn new(instruments: u32, depth: u32, seed: u64) -> Self {
        let mut dice = Dice::new(seed, 1);
        // Zipf's law, with the first few ranks levelled: the busiest of 200 has 6 % of all events, the last 0.12 %.
        let weights = (0..u64::from(instruments)).map(|rank| 1_000_000_000_000 / (rank + 4)).collect();
        let weights = WeightedAliasIndex::new(weights).expect("weights are above 0 and few");
        let listings = names::listings(instruments, &mut dice);
        let stocks = listings.into_iter().map(|listing| Stock::new(listing, depth, &mut dice)).collect();
        Self { dice, weights, stocks }
    }

    /// The number of instruments.
    pub(super) fn len(&self) -> usize {
        self.stocks.len()
    }

    /// Appends the Definition of an instrument.
    pub(super) fn define(&self, index: usize, out: &mut Vec<u8>) {
        record::encode_definition(&self.stocks[index].instrument, out);
    }

    /// Appends the state of an instrument, whole book, quote and ticker, and returns the number of records.
    pub(super) fn state(&self, index: usize, ts_event: u64, out: &mut Vec<u8>) -> u32 {
        let stock = &self.stocks[index];
        let mut event = Event::new(stock.instrument.id, ts_event, out);
        let levels = |side| stock.ladder.side(side).iter().map(move |&rung| (side, rung));
        let all: Vec<_> = levels(BookSide::Bid).chain(levels(BookSide::Ask)).collect();
        stock.write_book(BookAction::Snapshot, all.into_iter(), &mut event);
        stock.write_quote(&mut event);
        stock.write_ticker(&mut event);
        event.close()
    }

    /// Makes one event at `at_ns` since the start, appends its records, and returns their number.
    pub(super) fn event(&mut self, at_ns: u64, ts_event: u64, out: &mut Vec<u8>) -> u32 {
        let index = self.dice.pick(&self.weights);
        let stock = &mut self.stocks[index];
        let mut event = Event::new(stock.instrument.id, ts_event, out);
        stock.step(at_ns, &mut self.dice, &mut event);
        event.close()
    }
}

/// The records of one event, being written.
struct Event<'a> {
    instrument: u32,
    ts_event: u64,
    out: &'a mut Vec<u8>,
    newest_at: usize,
    records: u32,
}

impl<'a> Event<'a> {
    fn new(instrument: u32, ts_event: u64, out: &'a mut Vec<u8>) -> Self {
        let newest_at = out.len();
        Self { instrument, ts_event, out, newest_at, records: 0 }
    }

    /// Opens the next record; only [`Event::close`] knows the last.
    fn next(&mut self, kind: RecordKind) -> RecordHeader {
        self.newest_at = self.out.len();
        self.records += 1;
        RecordHeader::of_feed(kind, self.instrument, self.ts_event).with_flags(0)
    }

    fn close(self) -> u32 {
        record::patch_flags(&mut self.out[self.newest_at..], flags::LAST);
        self.records
    }
}

/// The simulation of one instrument.
struct Stock {
    instrument: Instrument,
    ladder: Ladder,
    day: Day,
    home_ticks: i64,
    typical_lots: i64,
    /// Chances in 1024 that order flow adds to the upward side, and the events for which it still does.
    lean: i64,
    lean_events: u32,
}

impl Stock {
    fn new(listing: Listing, depth: u32, dice: &mut Dice) -> Self {
        let Listing { instrument, home_ticks, typical_lots } = listing;
        let bid = home_ticks - i64::from(dice.below(2));
        let ask = bid + i64::from(dice.between(1, 2));
        let mut rungs = |best: i64, away: i64| {
            let mut ticks = best;
            let mut rung = |_| {
                let rung = Rung { ticks, lots: resting_lots(typical_lots, dice) };
                ticks += away * gap_ticks(dice);
                rung
            };
            (0..depth).map(&mut rung).collect()
        };
        let ladder = Ladder::new(rungs(bid, -1), rungs(ask, 1));
        let trades = 4_000_000 / (u64::from(instrument.id) + 7);
        let day = Day::new(&instrument, home_ticks * instrument.tick_size, typical_lots, trades, dice);
        Self { instrument, ladder, day, home_ticks, typical_lots, lean: 0, lean_events: 0 }
    }

    fn step(&mut self, at_ns: u64, dice: &mut Dice, event: &mut Event) {
        let mut delta = Delta::default();
        let touch = self.touch();
        let up = self.pushes_up(dice);
        match dice.below(100) {
            0..26 => self.trade(up, at_ns, dice, &mut delta, event),
            26..64 => self.resize(if up { BookSide::Bid } else { BookSide::Ask }, 0, dice, &mut delta),
            64..96 => self.requote(up, dice, &mut delta),
            _ => {
                let at = dice.below(self.ladder.side(BookSide::Bid).len() as u32) as usize;
                self.resize(if up { BookSide::Ask } else { BookSide::Bid }, at, dice, &mut delta);
            }
        }
        self.write_book(BookAction::Delta, delta.iter(), event);
        if self.touch() != touch {
            self.write_quote(event);
        }
        if self.day.take_ticker(at_ns) {
            self.write_ticker(event);
        }
    }

    /// The direction of this event.
    fn pushes_up(&mut self, dice: &mut Dice) -> bool {
        if self.lean_events == 0 {
            self.lean_events = dice.between(32, 256);
            self.lean = i64::from(dice.between(0, 2 * LEAN_MAX)) - i64::from(LEAN_MAX);
        }
        self.lean_events -= 1;
        let away = self.home_ticks - self.ladder.best(BookSide::Bid).ticks;
        if away > self.home_ticks / 2 {
            // No downward event lowers the bid from here on, so prices stay above 0 by far more than a book's depth.
            return true;
        }
        let span = (self.home_ticks / 40).max(64);
        let pull = (away * PULL_MAX / span).clamp(-PULL_MAX, PULL_MAX);
        dice.chance(512 + self.lean + pull)
    }

    /// An order that takes from the touch: one to three fills, no more than the size there.
    fn trade(&mut self, up: bool, at_ns: u64, dice: &mut Dice, delta: &mut Delta, event: &mut Event) {
        let (resting, aggressor) = if up { (BookSide::Ask, Side::Buy) } else { (BookSide::Bid, Side::Sell) };
        let best = self.ladder.best(resting);
        let px = best.ticks * self.instrument.tick_size;
        let mut left = best.lots;
        let fills = [1, 1, 1, 2, 2, 3][dice.below(6) as usize];
        for _ in 0..fills {
            let lots = dice.size(self.typical_lots).min(left);
            left -= lots;
            self.day.trade(at_ns, px, lots);
            let sz = lots * self.instrument.lot_size;
            let trade = Trade { px, sz, trade_id: self.day.trade_id, side: aggressor };
            trade.encode(&event.next(RecordKind::Trade), event.out);
            if left == 0 {
                return self.give_way(resting, dice, delta);
            }
        }
        self.ladder.resize(resting, 0, left, delta);
    }

    /// A maker improves a price, or removes the best one.
    fn requote(&mut self, up: bool, dice: &mut Dice, delta: &mut Delta) {
        let (better, worse) = if up { (BookSide::Bid, BookSide::Ask) } else { (BookSide::Ask, BookSide::Bid) };
        let spread = self.ladder.spread();
        if spread > 1 && dice.chance(512) {
            let lots = resting_lots(self.typical_lots, dice);
            self.ladder.improve(better, i64::from(dice.between(1, spread as u32 - 1)), lots, delta);
        } else {
            self.give_way(worse, dice, delta);
        }
    }

    /// Removes the best level of a side; if that opens the spread too far, the other side follows.
    fn give_way(&mut self, side: BookSide, dice: &mut Dice, delta: &mut Delta) {
        let far_lots = resting_lots(self.typical_lots, dice);
        self.ladder.retreat(side, gap_ticks(dice), far_lots, delta);
        if self.ladder.spread() > SPREAD_TICKS_MAX {
            let follower = if side == BookSide::Bid { BookSide::Ask } else { BookSide::Bid };
            let lots = resting_lots(self.typical_lots, dice);
            self.ladder.improve(follower, i64::from(dice.between(1, 2)), lots, delta);
        }
    }

    fn resize(&mut self, side: BookSide, at: usize, dice: &mut Dice, delta: &mut Delta) {
        let before = self.ladder.side(side)[at].lots;
        let drawn = resting_lots(self.typical_lots, dice);
        // An update has to change the size.
        let lots = if drawn == before { drawn + 1 } else { drawn };
        self.ladder.resize(side, at, lots, delta);
    }

    fn touch(&self) -> (Rung, Rung) {
        (self.ladder.best(BookSide::Bid), self.ladder.best(BookSide::Ask))
    }

    fn write_book(
        &self,
        action: BookAction,
        changes: impl ExactSizeIterator<Item = (BookSide, Rung)>,
        event: &mut Event,
    ) {
        let (tick, lot) = (self.instrument.tick_size, self.instrument.lot_size);
        let levels = changes.map(|(side, rung)| Level { px: rung.ticks * tick, sz: rung.lots * lot, side });
        record::encode_book(&event.next(RecordKind::Book), action, levels, event.out);
    }

    fn write_quote(&self, event: &mut Event) {
        let (tick, lot) = (self.instrument.tick_size, self.instrument.lot_size);
        let (bid, ask) = self.touch();
        let quote = Quote {
            bid_px: bid.ticks * tick,
            bid_sz: bid.lots * lot,
            ask_px: ask.ticks * tick,
            ask_sz: ask.lots * lot,
        };
        quote.encode(&event.next(RecordKind::Quote), event.out);
    }

    fn write_ticker(&self, event: &mut Event) {
        let (bid, ask) = self.touch();
        let day = &self.day;
        let ticker = Ticker {
            last_px: day.last_px,
            open_px: day.open_px,
            high_px: day.high_px,
            low_px: day.low_px,
            volume: day.volume,
            turnover: day.turnover,
            bid_px: bid.ticks * self.instrument.tick_size,
            ask_px: ask.ticks * self.instrument.tick_size,
        };
        ticker.encode(&event.next(RecordKind::Ticker), event.out);
    }
}

/// The size of a level: a few typical trades.
fn resting_lots(typical_lots: i64, dice: &mut Dice) -> i64 {
    dice.size(typical_lots * 4)
}

/// Ticks from one level to the next: mostly one.
fn gap_ticks(dice: &mut Dice) -> i64 {
    if dice.below(4) == 0 { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn price_wanders_and_comes_back() {
        let mut instrument = Instrument::new(1, "LOW", "SIM", -2, 0);
        (instrument.tick_size, instrument.lot_size) = (1, 1);
        let mut dice = Dice::new(3, 0);
        let mut stock = Stock::new(Listing { instrument, home_ticks: 1_000, typical_lots: 50 }, 10, &mut dice);
        let (mut out, mut low, mut high) = (Vec::new(), i64::MAX, i64::MIN);
        for at_ns in 0..500_000 {
            out.clear();
            stock.step(at_ns, &mut dice, &mut Event::new(1, at_ns, &mut out));
            let bid = stock.ladder.best(BookSide::Bid).ticks;
            (low, high) = (low.min(bid), high.max(bid));
        }
        assert!((850..980).contains(&low) && (1_020..1_150).contains(&high), "from {low} to {high}");
    }
}
