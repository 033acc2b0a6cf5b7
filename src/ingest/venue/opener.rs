//! The schemes of venues.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tickcast_venues::Venue;

use super::params::Params;
use super::source::VenueSource;
use crate::ingest::source::{Opener, Scheme, Source, SourceError};
use crate::ingest::stop::Stop;
use crate::tls::Connector;

/// `binance:BTCUSDT`
pub const BINANCE: Scheme = Scheme {
    name: "binance",
    form: "binance:BTCUSDT,ETHUSDT?depth=1000",
    help: "Binance spot, live; each venue takes channels=, names=common, url= and ca_file=",
    parse: |text| parse(Venue::Binance, "binance", text),
};

/// `binance-usdm:BTCUSDT`
pub const BINANCE_USDM: Scheme = Scheme {
    name: "binance-usdm",
    form: "binance-usdm:BTCUSDT",
    help: "Binance futures margined in a stable coin, live",
    parse: |text| parse(Venue::BinanceUsdM, "binance-usdm", text),
};

/// `binance-coinm:BTCUSD_PERP`
pub const BINANCE_COINM: Scheme = Scheme {
    name: "binance-coinm",
    form: "binance-coinm:BTCUSD_PERP",
    help: "Binance futures margined in the coin, live",
    parse: |text| parse(Venue::BinanceCoinM, "binance-coinm", text),
};

/// `coinbase:BTC-USD`
pub const COINBASE: Scheme = Scheme {
    name: "coinbase",
    form: "coinbase:BTC-USD",
    help: "Coinbase Exchange, live",
    parse: |text| parse(Venue::Coinbase, "coinbase", text),
};

/// `kraken:BTC/USD`
pub const KRAKEN: Scheme = Scheme {
    name: "kraken",
    form: "kraken:BTC/USD?depth=100",
    help: "Kraken spot, live",
    parse: |text| parse(Venue::Kraken, "kraken", text),
};

/// `bybit:BTCUSDT`
pub const BYBIT: Scheme = Scheme {
    name: "bybit",
    form: "bybit:BTCUSDT?category=spot|linear|inverse&depth=200",
    help: "Bybit, live",
    parse: |text| parse(Venue::Bybit, "bybit", text),
};

/// `okx:BTC-USDT`
pub const OKX: Scheme = Scheme {
    name: "okx",
    form: "okx:BTC-USDT,BTC-USDT-SWAP",
    help: "OKX spot, perpetuals and futures, live",
    parse: |text| parse(Venue::Okx, "okx", text),
};

/// The live venues.
const SCHEMES: [&Scheme; 7] = [&BINANCE, &BINANCE_USDM, &BINANCE_COINM, &COINBASE, &KRAKEN, &BYBIT, &OKX];

/// The parameters of a `--feed` argument of a venue.
///
/// # Errors
/// What is wrong with it, and what was expected.
pub fn params_of(feed: &str) -> Result<Params, String> {
    let (name, rest) = feed.split_once(':').unwrap_or((feed, ""));
    let is_live = SCHEMES.iter().any(|scheme| scheme.name == name);
    let Some(venue) = Venue::from_name(name).filter(|_| is_live) else {
        let forms: Vec<_> = SCHEMES.iter().map(|scheme| scheme.form).collect();
        return Err(format!("{name:?} is no live venue: expected {}", forms.join(" or ")));
    };
    Params::parse(venue, rest)
}

fn parse(venue: Venue, scheme: &str, text: &str) -> Result<Arc<dyn Opener>, String> {
    let name = format!("{scheme}:{text}");
    Ok(Arc::new(VenueOpener { name, params: Params::parse(venue, text)?, has_run: Arc::default() }))
}

#[derive(Debug)]
struct VenueOpener {
    name: String,
    params: Params,
    /// All symbols were in the venue's list once. One that is delisted later does not end the feed.
    has_run: Arc<AtomicBool>,
}

impl Opener for VenueOpener {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn check(&self) -> Result<(), String> {
        Connector::new(&self.params.roots).map(drop).map_err(|error| format!("ca_file: {error}"))
    }

    fn open(&self, stop: &Stop) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(VenueSource::open(&self.params, &self.has_run, None, stop)?))
    }
}
