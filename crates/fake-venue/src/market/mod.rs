//! The market that a venue shows: instruments, books, trades, and the session that moves them.

pub mod book;
pub mod generator;
pub mod instrument;
pub mod recording;
mod stats;
pub mod step;
pub mod view;

use std::collections::{BTreeMap, VecDeque};

use book::{Book, Side};
use generator::Generator;
use instrument::Instrument;
use recording::Recording;
use stats::Stats;
use step::{Ids, Step, Trade, What};

use crate::venue::VenueKind;

/// Trades that a snapshot of them has.
const RECENT_TRADES: usize = 50;
/// The depth of the recorded subscription.
const RECORDED_DEPTH_OF_KRAKEN: usize = 1_000;

/// An instrument with its state.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What the venue's list says.
    pub instrument: Instrument,
    /// The book as it is now.
    pub book: Book,
    /// The id of its last change.
    pub update_id: u64,
    /// Statistics.
    pub stats: Stats,
    /// The last trades, oldest first.
    pub recent: VecDeque<Trade>,
    /// All trades of the session.
    pub trades: Vec<Trade>,
    /// The newest recorded quote.
    pub raw_quote: Option<String>,
    /// The newest recorded statistics.
    pub raw_ticker: Option<String>,
    /// The best prices and sizes of the last quote.
    quoted: Option<[book::Level; 2]>,
}

impl Listed {
    fn new(instrument: Instrument, book: Book, update_id: u64) -> Self {
        let px = book.best(Side::Bid, 1).first().map_or("0", |(px, _)| px.as_str()).to_owned();
        let stats = Stats::at(&px);
        let (recent, trades) = (VecDeque::new(), Vec::new());
        Self { instrument, book, update_id, stats, recent, trades, raw_quote: None, raw_ticker: None, quoted: None }
    }

    /// The best level of a side; zeros if there is none.
    pub fn best(&self, side: Side) -> (String, String) {
        self.book.best(side, 1).first().map_or_else(|| ("0".to_owned(), "0".to_owned()), |level| (*level).clone())
    }

    /// The symbol.
    pub fn symbol(&self) -> &str {
        &self.instrument.symbol
    }

    fn add_trade(&mut self, trade: &Trade) {
        self.stats.add(trade);
        self.recent.push_back(trade.clone());
        if self.recent.len() > RECENT_TRADES {
            self.recent.pop_front();
        }
        self.trades.push(trade.clone());
    }
}

/// Where the events come from.
pub enum Session {
    /// From a seed, without an end.
    Generated(Box<Generator>),
    /// From a file.
    Recorded(VecDeque<Step>),
}

impl Session {
    /// The next event, unless a recording is over.
    pub fn next_step(&mut self) -> Option<Step> {
        match self {
            Self::Generated(generator) => Some(generator.next_step()),
            Self::Recorded(steps) => steps.pop_front(),
        }
    }

    /// True if quotes are events of their own, and do not follow from changes of the book.
    pub fn has_quotes(&self, venue: VenueKind) -> bool {
        matches!(self, Self::Recorded(_)) && venue.is_binance()
    }

    /// True if statistics are events of their own.
    pub fn has_tickers(&self, venue: VenueKind) -> bool {
        matches!(self, Self::Recorded(_)) && venue == VenueKind::Coinbase
    }
}

/// All instruments of a venue.
pub struct Market {
    /// The venue.
    pub venue: VenueKind,
    /// The instruments, in the order of the venue's list.
    pub listed: Vec<Listed>,
    by_symbol: BTreeMap<String, usize>,
    /// Levels of a side that a recording has: those that leave them are not removed by a message.
    depth: usize,
}

impl Market {
    /// A market from a seed, and its session.
    pub fn generated(venue: VenueKind, seed: u64) -> (Self, Session) {
        let generator = Generator::new(seed, instrument::seeds(venue));
        let first_id = 50_093_239_000;
        let listed = generator.start().into_iter().map(|(instrument, book)| Listed::new(instrument, book, first_id));
        (Self::new(venue, listed.collect()), Session::Generated(Box::new(generator)))
    }

    /// The market of a recording, and its session.
    pub fn recorded(venue: VenueKind, recording: Recording) -> (Self, Session) {
        let start = recording.start.into_iter();
        let listed = start.map(|(instrument, book, id)| Listed::new(instrument, book, id.unwrap_or(1_000)));
        let mut market = Self::new(venue, listed.collect());
        if venue == VenueKind::Kraken {
            market.depth = RECORDED_DEPTH_OF_KRAKEN;
        }
        (market, Session::Recorded(recording.steps.into()))
    }

    fn new(venue: VenueKind, listed: Vec<Listed>) -> Self {
        let by_symbol = listed.iter().enumerate().map(|(index, of)| (of.symbol().to_owned(), index)).collect();
        Self { venue, listed, by_symbol, depth: usize::MAX }
    }

    /// The number of a symbol.
    pub fn find(&self, symbol: &str) -> Option<usize> {
        self.by_symbol.get(symbol).copied()
    }

    /// Takes a step, and returns the update ids of a change of the book.
    pub fn take(&mut self, step: &mut Step, now_ns: u64) -> Option<Ids> {
        let is_spot = self.venue == VenueKind::Binance;
        let listed = &mut self.listed[step.instrument];
        match &mut step.what {
            What::Changes { changes, ids } => {
                changes.iter().for_each(|change| listed.book.apply(change));
                listed.book.cut(self.depth);
                let ids = ids.unwrap_or_else(|| next_ids(listed.update_id, changes.len() as u64, is_spot));
                listed.update_id = ids.last;
                Some(ids)
            }
            What::Trade(trade) => {
                if trade.ts_ns == 0 {
                    trade.ts_ns = now_ns;
                }
                listed.add_trade(trade);
                None
            }
            What::Quote => {
                listed.raw_quote.clone_from(&step.raw);
                None
            }
            What::Ticker => {
                listed.raw_ticker.clone_from(&step.raw);
                None
            }
        }
    }

    /// True if the best prices or sizes of an instrument are others than at the last call.
    pub fn is_quote_new(&mut self, index: usize) -> bool {
        let listed = &mut self.listed[index];
        let best = [listed.best(Side::Bid), listed.best(Side::Ask)];
        let is_new = listed.quoted.as_ref() != Some(&best);
        listed.quoted = Some(best);
        is_new
    }
}

/// Ids of `count` changes after `last`. Those of futures and of other venues have holes, as their ids count the changes of
/// all instruments.
fn next_ids(last: u64, count: u64, is_contiguous: bool) -> Ids {
    let hole = if is_contiguous { 0 } else { last % 7 };
    let first = last + 1 + hole;
    Ids { first, last: first + count.max(1) - 1, previous: Some(last) }
}
