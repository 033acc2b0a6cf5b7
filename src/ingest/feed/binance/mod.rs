//! Binance: its JSON messages, and the procedure for local books.
//!
//! * [`message`]: text → [`Message`], borrowed from the line, keys in any order.
//! * [`book`]: decides whether a depth update is applied, held, old, or reveals a gap.
//! * [`scale`]: text → mantissas at the instrument's exponents.
//! * [`ticker`]: statistics from trades, where the venue's own are not recorded.
//! * `trade_ids`: that no trade comes twice where trades are recorded one by one and aggregated.
//! * [`translate`]: messages → records, with the state of each instrument.
//!
//! Nothing here reads a file or a socket, so recordings and live connections can both use it.

pub mod book;
pub mod message;
pub mod scale;
pub mod ticker;
mod trade_ids;
pub mod translate;

pub use message::{Malformed, Message, Parser};
pub use translate::{Origin, Out, Translator};

/// One of Binance's markets. Their messages differ in keys, and their books in the rule of succession of updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Market {
    Spot,
    /// Futures margined in a stable coin.
    UsdM,
    /// Futures margined in the coin itself: sizes are contracts of a fixed dollar value.
    CoinM,
}

impl Market {
    /// The number of markets.
    pub const COUNT: usize = 3;

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
}
