//! Binance: its JSON messages, and the procedure for local books (developers.binance.com, "How to manage a local order
//! book correctly").
//!
//! * [`message`]: text → [`Message`], borrowed from the text, keys in any order.
//! * [`book`]: decides whether a depth update is applied, held, old, or reveals a gap.
//! * [`translate`]: messages → records, for recordings of any market.
//! * [`live`]: the codec of a connection.

mod book;
pub(crate) mod live;
mod message;
mod state;
mod translate;

pub use message::{Body, Message, Parser};
pub use state::InstrumentState;
pub use translate::{Origin, Translator};

use crate::instruments::{Instruments, Naming};

/// One of Binance's markets. Their messages differ in keys, and their books in the rule of succession of updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Market {
    /// Coins for coins.
    Spot,
    /// Futures margined in a stable coin.
    UsdM,
    /// Futures margined in the coin itself: sizes are contracts of a fixed dollar value.
    CoinM,
}

impl Market {
    /// The number of markets.
    pub const COUNT: usize = 3;
    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [Self::Spot, Self::UsdM, Self::CoinM];

    /// The futures market that trades `symbol`. COIN-M names are `<coin>USD_PERP` and `<coin>USD_<date>`; USD-M has
    /// dated contracts as well (`BTCUSDT_240927`), so the underscore alone does not decide.
    pub fn of_futures_symbol(symbol: &str) -> Self {
        match symbol.split_once('_') {
            Some((pair, _)) if pair.ends_with("USD") => Self::CoinM,
            _ => Self::UsdM,
        }
    }

    /// The venue's name in the directory.
    pub fn venue(self) -> &'static str {
        match self {
            Self::Spot => "binance",
            Self::UsdM => "binance-usdm",
            Self::CoinM => "binance-coinm",
        }
    }

    /// The directory's name for a venue symbol. Spot and USD-M perpetuals are both `BTCUSDT`; the directory's names
    /// are unique, so the perpetual gets `-PERP`.
    pub fn name(self, symbol: &str) -> String {
        if self == Self::UsdM && !symbol.contains('_') { format!("{symbol}-PERP") } else { symbol.to_owned() }
    }

    /// True where depth updates follow each other by `pu`, not by `U`.
    pub fn is_futures(self) -> bool {
        self != Self::Spot
    }

    /// No instruments yet, with the names of this market.
    fn instruments(self, naming: Naming) -> Instruments<InstrumentState> {
        Instruments::new(self.venue(), naming, self.name_of(), self.fresh())
    }

    fn name_of(self) -> fn(&str) -> String {
        match self {
            Self::UsdM => |symbol| Self::UsdM.name(symbol),
            Self::Spot | Self::CoinM => str::to_owned,
        }
    }

    fn fresh(self) -> fn() -> InstrumentState {
        if self.is_futures() { InstrumentState::futures } else { InstrumentState::spot }
    }
}
