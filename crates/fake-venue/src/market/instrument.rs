//! Instruments of the venues: what their lists say, and how their numbers are written.

use rust_decimal::Decimal;

use super::book::number;
use crate::venue::VenueKind;

/// Whether an instrument trades.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It trades.
    Trading,
    /// It was delisted.
    Delisted,
}

/// An instrument.
#[derive(Clone, Debug)]
pub struct Instrument {
    /// The venue's symbol.
    pub symbol: String,
    /// What is traded.
    pub base: String,
    /// What it is paid with.
    pub quote: String,
    /// True for a perpetual future.
    pub is_perpetual: bool,
    /// The least difference of prices.
    pub tick: Decimal,
    /// The least difference of sizes.
    pub lot: Decimal,
    /// Decimals that prices are written with.
    pub px_decimals: u32,
    /// Decimals that sizes are written with.
    pub sz_decimals: u32,
    /// Numbers have no zeros at their end.
    pub is_trimmed: bool,
    /// Whether it trades.
    pub status: Status,
}

impl Instrument {
    /// The text of a price of so many ticks.
    pub fn px(&self, ticks: i64) -> String {
        self.written(self.tick * Decimal::from(ticks), self.px_decimals)
    }

    /// The text of a size of so many lots.
    pub fn sz(&self, lots: i64) -> String {
        self.written(self.lot * Decimal::from(lots), self.sz_decimals)
    }

    /// The text of a number with the decimals of a size.
    pub fn volume(&self, volume: Decimal) -> String {
        self.written(volume.round_dp(self.sz_decimals), self.sz_decimals)
    }

    fn written(&self, mut value: Decimal, decimals: u32) -> String {
        value.rescale(decimals);
        if self.is_trimmed { value.normalize().to_string() } else { value.to_string() }
    }
}

/// An instrument of the generator: price and size at the start are in ticks and lots.
pub struct Seed {
    /// The instrument.
    pub instrument: Instrument,
    /// The price at the start, in ticks.
    pub start_ticks: i64,
    /// A usual size, in lots.
    pub usual_lots: i64,
}

/// Symbol, base, quote, tick, lot, decimals of prices and sizes, price in ticks, size in lots.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str, u32, u32, i64, i64);

const BINANCE: &[Row] = &[
    ("BTCUSDT", "BTC", "USDT", "0.01", "0.00001", 8, 8, 6_183_763, 30_000),
    ("ETHUSDT", "ETH", "USDT", "0.01", "0.0001", 8, 8, 268_380, 30_000),
    ("PEPEUSDT", "PEPE", "USDT", "0.00000001", "1", 8, 8, 812, 9_000_000),
    ("币安人生USDT", "币安人生", "USDT", "0.0001", "0.1", 8, 8, 1_502, 50_000),
];
const BINANCE_USDM: &[Row] = &[
    ("BTCUSDT", "BTC", "USDT", "0.10", "0.001", 2, 3, 618_002, 3_000),
    ("ETHUSDT", "ETH", "USDT", "0.01", "0.001", 2, 3, 268_380, 9_000),
    ("1000PEPEUSDT", "1000PEPE", "USDT", "0.0000001", "1", 7, 0, 81_200, 90_000),
];
const BINANCE_COINM: &[Row] = &[
    ("BTCUSD_PERP", "BTC", "USD", "0.1", "1", 1, 0, 618_047, 800),
    ("ETHUSD_PERP", "ETH", "USD", "0.01", "1", 2, 0, 268_380, 900),
];
const COINBASE: &[Row] = &[
    ("BTC-USD", "BTC", "USD", "0.01", "0.00000001", 2, 8, 6_183_763, 30_000_000),
    ("ETH-USD", "ETH", "USD", "0.01", "0.00000001", 2, 8, 268_380, 300_000_000),
    ("SHIB-USD", "SHIB", "USD", "0.00000001", "1", 8, 0, 1_302, 9_000_000),
];
const KRAKEN: &[Row] = &[
    ("BTC/USD", "BTC", "USD", "0.1", "0.00000001", 1, 8, 618_376, 30_000_000),
    ("ETH/USD", "ETH", "USD", "0.01", "0.00000001", 2, 8, 268_380, 300_000_000),
    ("MATIC/USD", "MATIC", "USD", "0.0001", "0.00000001", 4, 8, 5_657, 50_000_000_000),
];
const BYBIT: &[Row] = &[
    ("BTCUSDT", "BTC", "USDT", "0.01", "0.000001", 2, 6, 6_183_763, 300_000),
    ("ETHUSDT", "ETH", "USDT", "0.01", "0.00001", 2, 5, 268_380, 300_000),
    ("PEPEUSDT", "PEPE", "USDT", "0.0000000001", "0.01", 10, 2, 81_200, 900_000_000),
];
const BYBIT_LINEAR: &[Row] = &[
    ("BTCUSDT", "BTC", "USDT", "0.10", "0.001", 2, 3, 618_002, 3_000),
    ("ETHUSDT", "ETH", "USDT", "0.01", "0.01", 2, 2, 268_380, 900),
];
const BYBIT_INVERSE: &[Row] = &[
    ("BTCUSD", "BTC", "USD", "0.50", "1", 2, 0, 123_600, 80_000),
    ("ETHUSD", "ETH", "USD", "0.05", "1", 2, 0, 53_676, 90_000),
];
const OKX: &[Row] = &[
    ("BTC-USDT", "BTC", "USDT", "0.1", "0.00000001", 1, 8, 618_376, 30_000_000),
    ("ETH-USDT", "ETH", "USDT", "0.01", "0.000001", 2, 6, 268_380, 3_000_000),
    ("BTC-USDT-SWAP", "BTC", "USDT", "0.1", "0.01", 1, 2, 618_002, 9_000),
];

/// The instruments that the generator has at a venue.
pub fn seeds(venue: VenueKind) -> Vec<Seed> {
    let rows = match venue {
        VenueKind::Binance => BINANCE,
        VenueKind::BinanceUsdM => BINANCE_USDM,
        VenueKind::BinanceCoinM => BINANCE_COINM,
        VenueKind::Coinbase => COINBASE,
        VenueKind::Kraken => KRAKEN,
        VenueKind::Bybit => BYBIT,
        VenueKind::BybitLinear => BYBIT_LINEAR,
        VenueKind::BybitInverse => BYBIT_INVERSE,
        VenueKind::Okx => OKX,
    };
    let seed = |(symbol, base, quote, tick, lot, px_decimals, sz_decimals, start_ticks, usual_lots): &Row| {
        let instrument = Instrument {
            symbol: (*symbol).to_owned(),
            base: (*base).to_owned(),
            quote: (*quote).to_owned(),
            is_perpetual: venue.is_futures() || symbol.ends_with("-SWAP"),
            tick: number(tick),
            lot: number(lot),
            px_decimals: *px_decimals,
            sz_decimals: *sz_decimals,
            is_trimmed: matches!(venue, VenueKind::Okx),
            status: Status::Trading,
        };
        Seed { instrument, start_ticks: *start_ticks, usual_lots: *usual_lots }
    };
    rows.iter().map(seed).collect()
}
