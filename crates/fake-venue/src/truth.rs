//! What a venue truly was: the books and trades that its clients were to have.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::dialect::sent_id;
use crate::market::book::Side;
use crate::market::instrument::Status;
use crate::market::{Listed, Market};
use crate::venue::VenueKind;

/// Everything that a venue had and did.
#[derive(Clone, Debug, Serialize)]
pub struct Truth {
    /// The venue.
    pub venue: &'static str,
    /// By symbol.
    pub instruments: BTreeMap<String, InstrumentTruth>,
    /// Faults that have happened, in order.
    pub faults: Vec<FaultRecord>,
    /// Connections that were opened.
    pub connections: u64,
    /// REST requests that were answered.
    pub rest_requests: u64,
    /// Events of the session.
    pub steps: u64,
}

/// An instrument at the end.
#[derive(Clone, Debug, Serialize)]
pub struct InstrumentTruth {
    /// Prices and sizes, best first.
    pub bids: Vec<(String, String)>,
    /// Prices and sizes, best first.
    pub asks: Vec<(String, String)>,
    /// All trades since the start, whether a client received them or not.
    pub trades: Vec<TradeTruth>,
    /// The least difference of prices.
    pub tick: String,
    /// The least difference of sizes.
    pub lot: String,
    /// Whether it trades.
    pub is_trading: bool,
    /// The id of the last change of the book.
    pub update_id: u64,
}

/// A trade.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TradeTruth {
    /// The venue's number of it.
    pub id: u64,
    /// The id as it was sent: the number, or a UUID that is made from it.
    pub sent_id: String,
    /// The price.
    pub px: String,
    /// The size.
    pub sz: String,
    /// `B` if the taker bought, `S` if it sold.
    pub side: char,
}

/// A fault that has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FaultRecord {
    /// Its name.
    pub fault: &'static str,
    /// When, ns since the Unix epoch.
    pub at_ns: u64,
    /// The connection, unless it is of none.
    pub connection: Option<u64>,
    /// The stream or path.
    pub place: String,
}

impl Truth {
    /// The instruments of a market.
    pub fn of(market: &Market) -> BTreeMap<String, InstrumentTruth> {
        market.listed.iter().map(|of| (of.symbol().to_owned(), instrument(market.venue, of))).collect()
    }
}

fn instrument(venue: VenueKind, of: &Listed) -> InstrumentTruth {
    let levels = |side| of.book.best(side, usize::MAX).into_iter().cloned().collect();
    let trade = |trade: &crate::market::step::Trade| TradeTruth {
        id: trade.id,
        sent_id: sent_id(venue, trade.id),
        px: trade.px.clone(),
        sz: trade.sz.clone(),
        side: if trade.side == Side::Bid { 'B' } else { 'S' },
    };
    InstrumentTruth {
        bids: levels(Side::Bid),
        asks: levels(Side::Ask),
        trades: of.trades.iter().map(trade).collect(),
        tick: of.instrument.tick.to_string(),
        lot: of.instrument.lot.to_string(),
        is_trading: of.instrument.status == Status::Trading,
        update_id: of.update_id,
    }
}
