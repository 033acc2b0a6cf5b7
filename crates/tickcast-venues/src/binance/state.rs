//! What is kept of an instrument of Binance.

use super::book::BookSync;
use crate::scale::Scale;
use crate::tracked::Kept;
use crate::trade_ids::TradeIds;
use crate::window::TradeWindow;
use tickcast_protocol::decimal;
use tickcast_protocol::record::Level;

/// The state of an instrument's book, its trades and its statistics.
#[derive(Debug)]
pub struct InstrumentState {
    pub(super) sync: BookSync,
    /// A partial book was published.
    pub(super) has_partial_book: bool,
    pub(super) trade_ids: TradeIds,
    pub(super) window: Option<TradeWindow>,
    /// True if it traded since the last derived ticker.
    pub(super) traded: bool,
    /// True if the venue sends its own ticker.
    pub(super) has_ticker: bool,
}

impl InstrumentState {
    /// Of spot: updates follow each other by `U`.
    pub(super) fn spot() -> Self {
        Self::new(BookSync::new(false))
    }

    /// Of a futures market: updates follow each other by `pu`.
    pub(super) fn futures() -> Self {
        Self::new(BookSync::new(true))
    }

    fn new(sync: BookSync) -> Self {
        let trade_ids = TradeIds::default();
        Self { sync, has_partial_book: false, trade_ids, window: None, traded: false, has_ticker: false }
    }
}

impl Kept for InstrumentState {
    fn rescale(&mut self, from: Scale, to: Scale) -> bool {
        self.window = self.window.and_then(|window| window.rescaled(from, to));
        self.sync.rescale(|level| {
            let px = decimal::rescale(level.px, from.px_exp, to.px_exp)?;
            Some(Level { px, sz: decimal::rescale(level.sz, from.sz_exp, to.sz_exp)?, ..*level })
        })
    }

    fn has_book(&self) -> bool {
        !self.sync.is_waiting() || self.has_partial_book
    }

    fn clear_book(&mut self) {
        self.sync.clear();
        self.has_partial_book = false;
    }

    fn successor(&self) -> Self {
        Self { trade_ids: self.trade_ids, ..Self::new(self.sync.successor()) }
    }

    fn restart(&mut self) {
        self.clear_book();
        (self.trade_ids, self.window, self.traded) = (TradeIds::default(), None, false);
    }
}
