//! The venues, and how a message shows of which it is.

use simd_json::prelude::ValueIntoString;

use crate::binance::Market;
use crate::binance::live::{Binance, FUTURES_DEPTHS, SPOT_DEPTHS};
use crate::bybit::{self, Bybit, Category};
use crate::codec::{Codec, CodecOptions, VenueCodec};
use crate::coinbase::Coinbase;
use crate::json::{self, JsonReader, Object, Value};
use crate::kraken::{self, Kraken};
use crate::okx::Okx;

/// A venue, or one of its markets that has connections of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Venue {
    /// Binance spot.
    Binance,
    /// Binance futures margined in a stable coin.
    BinanceUsdM,
    /// Binance futures margined in the coin.
    BinanceCoinM,
    /// Coinbase Exchange.
    Coinbase,
    /// Kraken spot.
    Kraken,
    /// Bybit spot.
    Bybit,
    /// Bybit perpetuals and futures that are settled in a stable coin.
    BybitLinear,
    /// Bybit perpetuals and futures that are settled in the coin.
    BybitInverse,
    /// OKX: spot, perpetuals and futures on one connection.
    Okx,
}

impl Venue {
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

    /// Its name, in the directory and in settings.
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

    /// The venue of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|venue| venue.name() == name)
    }

    /// The market of Binance, if it is one.
    pub fn binance_market(self) -> Option<Market> {
        match self {
            Self::Binance => Some(Market::Spot),
            Self::BinanceUsdM => Some(Market::UsdM),
            Self::BinanceCoinM => Some(Market::CoinM),
            _ => None,
        }
    }

    /// The depths of books that it offers, in levels of a side; none where every book is whole, or of one depth.
    pub fn depths(self) -> &'static [u32] {
        match self {
            Self::Binance => &SPOT_DEPTHS,
            Self::BinanceUsdM | Self::BinanceCoinM => &FUTURES_DEPTHS,
            Self::Kraken => &kraken::DEPTHS,
            Self::Bybit | Self::BybitLinear | Self::BybitInverse => &bybit::DEPTHS,
            Self::Coinbase | Self::Okx => &[],
        }
    }

    /// A codec for one connection.
    pub fn codec(self, options: CodecOptions) -> Box<dyn Codec> {
        let CodecOptions { naming, depth } = options;
        let bybit = |category| Bybit::new(category, depth);
        match self {
            Self::Binance => Box::new(VenueCodec::new(Binance::new(Market::Spot, depth), naming)),
            Self::BinanceUsdM => Box::new(VenueCodec::new(Binance::new(Market::UsdM, depth), naming)),
            Self::BinanceCoinM => Box::new(VenueCodec::new(Binance::new(Market::CoinM, depth), naming)),
            Self::Coinbase => Box::new(VenueCodec::new(Coinbase, naming)),
            Self::Kraken => Box::new(VenueCodec::new(Kraken::new(depth), naming)),
            Self::Bybit => Box::new(VenueCodec::new(bybit(Category::Spot), naming)),
            Self::BybitLinear => Box::new(VenueCodec::new(bybit(Category::Linear), naming)),
            Self::BybitInverse => Box::new(VenueCodec::new(bybit(Category::Inverse), naming)),
            Self::Okx => Box::new(VenueCodec::new(Okx, naming)),
        }
    }

    /// The venue whose message this is, as far as its form shows it. The text is changed in place.
    ///
    /// Messages of Binance do not name the venue: they are those with a `stream` or an event type `e`, and its market is
    /// not told here. Of Bybit, trades and statistics show whether it is spot.
    pub fn detect(text: &mut [u8]) -> Option<Self> {
        JsonReader::default().read(text, |value| Ok(detect(value))).ok().flatten()
    }
}

fn detect(value: Value<'_, '_>) -> Option<Venue> {
    let Some(object) = value.as_object() else {
        let items = value.as_array()?;
        let texts = items.iter().skip(1).filter_map(ValueIntoString::into_string).count();
        // Kraken v1: `[992,{…},"book-1000","XMR/USD"]`
        return (items.len() >= 4 && texts == 2).then_some(Venue::Kraken);
    };
    let has = |key| json::has(&object, key);
    let text = |key| json::maybe_text(&object, key);
    if has("topic") {
        return Some(bybit_category(&object));
    }
    if has("ret_msg") && has("success") {
        return Some(Venue::Bybit);
    }
    if has("arg") || (has("event") && has("connId")) {
        return Some(Venue::Okx);
    }
    let is_kraken_event = matches!(text("event"), Some("systemStatus" | "subscriptionStatus" | "heartbeat" | "pong"));
    if is_kraken_event || (has("method") && has("time_in")) {
        return Some(Venue::Kraken);
    }
    if matches!(text("channel"), Some("heartbeat")) || (has("channel") && has("data")) {
        return Some(Venue::Kraken);
    }
    if has("type") && ["product_id", "channels", "products"].into_iter().any(has) {
        return Some(Venue::Coinbase);
    }
    let is_binance = has("stream") || has("e") || has("lastUpdateId") || ["s", "b", "B", "a", "A"].into_iter().all(has);
    is_binance.then_some(Venue::Binance)
}

/// Trades and statistics of derivatives have keys that those of spot lack.
fn bybit_category(message: &Object<'_, '_>) -> Venue {
    let data = message.get("data");
    let first = data.and_then(|data| data.as_array()).and_then(|list| list.iter().next());
    let Some(object) = first.or(data).and_then(|value| value.as_object()) else { return Venue::Bybit };
    let is_derivative = ["L", "openInterest", "fundingRate", "markPrice"].iter().any(|key| json::has(&object, key));
    let symbol = json::maybe_text(&object, "s").or_else(|| json::maybe_text(&object, "symbol")).unwrap_or("");
    match is_derivative {
        false => Venue::Bybit,
        true if symbol.contains("USD") && !symbol.contains("USDT") && !symbol.contains("USDC") => Venue::BybitInverse,
        true => Venue::BybitLinear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_directory() {
        for venue in Venue::ALL {
            assert_eq!(Venue::from_name(venue.name()), Some(venue));
            assert_eq!(venue.codec(CodecOptions::default()).venue(), venue.name());
        }
        assert_eq!(Venue::from_name("mtgox"), None);
    }

    #[test]
    fn form_of_a_message_shows_its_venue() {
        for (text, venue) in [
            (r#"{"stream":"a@trade","data":{"e":"trade"}}"#, Some(Venue::Binance)),
            (r#"{"lastUpdateId":1,"bids":[],"asks":[]}"#, Some(Venue::Binance)),
            (r#"{"u":1,"s":"A","b":"1","B":"1","a":"2","A":"1"}"#, Some(Venue::Binance)),
            (r#"{"type":"ticker","product_id":"A-B"}"#, Some(Venue::Coinbase)),
            (r#"{"channel":"book","type":"update","data":[]}"#, Some(Venue::Kraken)),
            (r#"[992,{"b":[]},"book-1000","XMR/USD"]"#, Some(Venue::Kraken)),
            (r#"{"event":"heartbeat"}"#, Some(Venue::Kraken)),
            (r#"{"arg":{"channel":"books"},"data":[]}"#, Some(Venue::Okx)),
            (r#"{"topic":"orderbook.1.A","data":{"s":"A"}}"#, Some(Venue::Bybit)),
            (r#"{"topic":"publicTrade.BTCUSDT","data":[{"s":"BTCUSDT","L":"PlusTick"}]}"#, Some(Venue::BybitLinear)),
            (r#"{"topic":"tickers.BTCUSD","data":{"symbol":"BTCUSD","fundingRate":"0"}}"#, Some(Venue::BybitInverse)),
            (r#"{"result":null,"id":1}"#, None),
            ("[1,2]", None),
            ("pong", None),
        ] {
            assert_eq!(Venue::detect(&mut text.as_bytes().to_vec()), venue, "{text}");
        }
    }
}
