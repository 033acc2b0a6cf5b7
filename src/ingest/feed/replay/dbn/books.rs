//! The books of DBN: made of orders (mbo), or of the best levels after each event (mbp-10). Prices are those of DBN, in
//! units of 10⁻⁹.
//!
//! Memory: some 100 bytes an order, and 50 a level. A book with more than [`ORDERS_MAX`] orders is dropped until its next
//! reset.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use dbn::{Action, BidAskPair, MboMsg, UNDEF_PRICE};
use foldhash::fast::RandomState;

use tickcast_protocol::BookSide;

/// Orders of one book.
const ORDERS_MAX: usize = 2_000_000;

/// A change of a level, or a level of a whole book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawLevel {
    pub side: BookSide,
    pub px: i64,
    /// 0 removes it.
    pub sz: i64,
}

/// What an event changes.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    Nothing,
    /// These levels.
    Levels(Vec<RawLevel>),
    /// All of it.
    Whole(Vec<RawLevel>),
}

/// Levels by price.
#[derive(Debug, Default)]
pub struct Levels {
    bids: BTreeMap<i64, i64>,
    asks: BTreeMap<i64, i64>,
}

impl Levels {
    fn side_mut(&mut self, side: BookSide) -> &mut BTreeMap<i64, i64> {
        if side == BookSide::Bid { &mut self.bids } else { &mut self.asks }
    }

    fn size(&self, side: BookSide, px: i64) -> i64 {
        let levels = if side == BookSide::Bid { &self.bids } else { &self.asks };
        levels.get(&px).copied().unwrap_or(0)
    }

    /// Adds to a level.
    fn add(&mut self, side: BookSide, px: i64, sz: i64) {
        let levels = self.side_mut(side);
        let size = levels.entry(px).or_insert(0);
        *size += sz;
        if *size <= 0 {
            levels.remove(&px);
        }
    }

    /// Best bid and best offer, as price and size.
    pub fn best(&self) -> [Option<(i64, i64)>; 2] {
        let pair = |(px, sz): (&i64, &i64)| (*px, *sz);
        [self.bids.iter().next_back().map(pair), self.asks.iter().next().map(pair)]
    }

    fn all(&self) -> Vec<RawLevel> {
        let of = |side| move |(px, sz): (&i64, &i64)| RawLevel { side, px: *px, sz: *sz };
        let bids = self.bids.iter().rev().map(of(BookSide::Bid));
        bids.chain(self.asks.iter().map(of(BookSide::Ask))).collect()
    }
}

#[derive(Clone, Copy, Debug)]
struct Order {
    side: BookSide,
    px: i64,
    sz: i64,
}

/// A book made of orders.
#[derive(Debug, Default)]
pub struct OrderBook {
    orders: HashMap<u64, Order, RandomState>,
    levels: Levels,
    /// Levels that the present event has changed.
    changed: BTreeSet<(bool, i64)>,
    /// The present event has begun the book anew.
    is_reset: bool,
    /// The book began with a reset: before one, what came before the file is not known.
    is_known: bool,
    /// A whole book was published.
    is_published: bool,
}

impl OrderBook {
    /// Best bid and best offer, as price and size.
    pub fn best(&self) -> [Option<(i64, i64)>; 2] {
        self.levels.best()
    }

    /// False while orders are missing that were there before the file begins.
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    /// Applies a message.
    pub fn apply(&mut self, message: &MboMsg) {
        let side = match message.side as u8 {
            b'B' => Some(BookSide::Bid),
            b'A' => Some(BookSide::Ask),
            _ => None,
        };
        match (Action::try_from(message.action as u8), side) {
            (Ok(Action::Clear), _) => self.reset(),
            (Ok(Action::Add), Some(side)) if message.flags.is_tob() => self.replace_side(side, message),
            (Ok(Action::Add), Some(side)) => self.add(side, message),
            (Ok(Action::Modify), Some(side)) => {
                self.remove(message.order_id, i64::MAX);
                self.add(side, message);
            }
            (Ok(Action::Cancel), _) => self.remove(message.order_id, message.size.into()),
            // Trades and fills are followed by the cancellations that they cause.
            _ => {}
        }
    }

    /// What the event has changed, at its end.
    pub fn take_change(&mut self) -> Change {
        let changed = std::mem::take(&mut self.changed);
        if std::mem::take(&mut self.is_reset) || (!self.is_published && !changed.is_empty()) {
            self.is_published = true;
            return Change::Whole(self.levels.all());
        }
        if changed.is_empty() {
            return Change::Nothing;
        }
        let level = |(is_bid, px): (bool, i64)| {
            let side = if is_bid { BookSide::Bid } else { BookSide::Ask };
            RawLevel { side, px, sz: self.levels.size(side, px) }
        };
        Change::Levels(changed.into_iter().map(level).collect())
    }

    fn reset(&mut self) {
        self.orders.clear();
        self.levels = Levels::default();
        self.changed.clear();
        (self.is_reset, self.is_known) = (true, true);
    }

    /// A message of the top of the book alone: it replaces the side.
    fn replace_side(&mut self, side: BookSide, message: &MboMsg) {
        for px in self.levels.side_mut(side).keys().copied().collect::<Vec<_>>() {
            self.changed.insert((side == BookSide::Bid, px));
        }
        self.levels.side_mut(side).clear();
        self.orders.retain(|_, order| order.side != side);
        if message.price != UNDEF_PRICE {
            self.add(side, message);
        }
    }

    fn add(&mut self, side: BookSide, message: &MboMsg) {
        let order = Order { side, px: message.price, sz: message.size.into() };
        if message.price == UNDEF_PRICE {
            return;
        }
        if self.orders.len() >= ORDERS_MAX {
            self.reset();
            self.is_known = false;
        }
        // An id that is there already is that order anew.
        self.remove(message.order_id, i64::MAX);
        self.orders.insert(message.order_id, order);
        self.change(order, order.sz);
    }

    /// Takes so much from an order; one that is not known was there before the file begins.
    fn remove(&mut self, id: u64, sz: i64) {
        let Some(order) = self.orders.get_mut(&id) else { return };
        let taken = sz.min(order.sz);
        order.sz -= taken;
        let order = *order;
        if order.sz == 0 {
            self.orders.remove(&id);
        }
        self.change(order, -taken);
    }

    fn change(&mut self, order: Order, by: i64) {
        self.levels.add(order.side, order.px, by);
        self.changed.insert((order.side == BookSide::Bid, order.px));
    }
}

/// A book of the best levels.
#[derive(Debug, Default)]
pub struct BestLevels {
    levels: Levels,
    is_published: bool,
}

impl BestLevels {
    /// Best bid and best offer, as price and size.
    pub fn best(&self) -> [Option<(i64, i64)>; 2] {
        self.levels.best()
    }

    /// Takes the levels after an event. With `is_reset` the book has begun anew.
    pub fn take(&mut self, after: &[BidAskPair], is_reset: bool) -> Change {
        let mut next = Levels::default();
        for pair in after {
            for (side, px, sz) in [(BookSide::Bid, pair.bid_px, pair.bid_sz), (BookSide::Ask, pair.ask_px, pair.ask_sz)]
            {
                if px != UNDEF_PRICE && sz > 0 {
                    next.side_mut(side).insert(px, sz.into());
                }
            }
        }
        let before = std::mem::replace(&mut self.levels, next);
        if is_reset || !self.is_published {
            self.is_published = true;
            return Change::Whole(self.levels.all());
        }
        let gone = before.all().into_iter().filter(|level| self.levels.size(level.side, level.px) == 0);
        let gone = gone.map(|level| RawLevel { sz: 0, ..level });
        let other = self.levels.all().into_iter().filter(|level| before.size(level.side, level.px) != level.sz);
        let changed: Vec<_> = gone.chain(other).collect();
        if changed.is_empty() { Change::Nothing } else { Change::Levels(changed) }
    }
}
