//! The venues that are spoken.

use std::fmt;
use std::str::FromStr;

/// A venue, or one of its markets that has an address of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VenueKind {
    /// Binance spot.
    Binance,
    /// Binance USD-M futures.
    BinanceUsdM,
    /// Binance COIN-M futures.
    BinanceCoinM,
    /// Coinbase Exchange.
    Coinbase,
    /// Kraken, WebSocket API v2.
    Kraken,
    /// Bybit v5 spot.
    Bybit,
    /// Bybit v5 linear.
    BybitLinear,
    /// Bybit v5 inverse.
    BybitInverse,
    /// OKX v5.
    Okx,
}

impl VenueKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Binance,
        Self::BinanceUsdM,
        Self::BinanceCoinM,
        Self::Coinbase,
        Self::Kraken,
        Self::Bybit,
        Self::BybitLinear,
        Self::BybitInverse,
        Self::Okx,
    ];

    /// The name, as in `--venue`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Binance => "binance",
            Self::BinanceUsdM => "binance-usdm",
            Self::BinanceCoinM => "binance-coinm",
            Self::Coinbase => "coinbase",
            Self::Kraken => "kraken",
            Self::Bybit => "bybit",
            Self::BybitLinear => "bybit-linear",
            Self::BybitInverse => "bybit-inverse",
            Self::Okx => "okx",
        }
    }

    /// True for a market of futures alone.
    pub fn is_futures(self) -> bool {
        matches!(self, Self::BinanceUsdM | Self::BinanceCoinM | Self::BybitLinear | Self::BybitInverse)
    }

    /// True for the markets of Binance.
    pub fn is_binance(self) -> bool {
        matches!(self, Self::Binance | Self::BinanceUsdM | Self::BinanceCoinM)
    }

    /// True for the categories of Bybit.
    pub fn is_bybit(self) -> bool {
        matches!(self, Self::Bybit | Self::BybitLinear | Self::BybitInverse)
    }
}

impl fmt::Display for VenueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for VenueKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|venue| venue.name() == text);
        found.ok_or_else(|| format!("venue {text:?}: expected one of {}", names()))
    }
}
