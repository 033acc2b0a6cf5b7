//! The argument of a venue: `SYMBOL[,SYMBOL…][?key=value&…]`.

use std::path::PathBuf;

use tickcast_protocol::Channel;
use tickcast_protocol::control::ChannelSet;
use tickcast_venues::{INSTRUMENTS_MAX, NameStyle, Venue};

use crate::ingest::parameters::each_pair;
use crate::ingest::transport::address::Address;
use crate::ingest::transport::websocket::SCHEMES;
use crate::tls::Roots;

/// The channels that venues have.
pub const CHANNELS: [Channel; 4] = [Channel::Quote, Channel::Trade, Channel::Ticker, Channel::Book];

/// What is wanted of a venue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    pub venue: Venue,
    /// The venue's own symbols.
    pub symbols: Vec<String>,
    /// `depth=`: levels of a side of a book.
    pub depth: Option<u32>,
    /// `channels=`: all of them without it.
    pub channels: ChannelSet,
    /// `names=`: the names of instruments in the directory.
    pub names: NameStyle,
    /// `url=`: another server in place of all of the venue's.
    pub server: Option<Address>,
    /// `ca_file=`: the authorities of its certificate.
    pub roots: Roots,
}

impl Params {
    /// Parses what follows the name of the scheme. The venue is that of the scheme, or that of its `category`.
    ///
    /// # Errors
    /// What is wrong: the key, the value, and what is allowed.
    pub fn parse(scheme: Venue, text: &str) -> Result<Self, String> {
        let (symbols, pairs) = text.split_once('?').unwrap_or((text, ""));
        let mut params = Self {
            venue: scheme,
            symbols: symbols_of(symbols)?,
            depth: None,
            channels: CHANNELS.into_iter().collect(),
            names: NameStyle::Venue,
            server: None,
            roots: Roots::System,
        };
        let mut depth = None;
        each_pair(pairs, '&', |key, value| match key {
            // Its values are those of the category, which may follow.
            "depth" => {
                depth = Some(value.to_owned());
                Ok(())
            }
            _ => params.set(key, value),
        })?;
        params.depth = depth.map(|value| depth_of(params.venue, &value)).transpose()?;
        if params.server.as_ref().is_some_and(|server| !server.is_secure) && params.roots != Roots::System {
            return Err("ca_file: expected no file, as url= is without TLS".to_owned());
        }
        Ok(params)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match (key, value) {
            ("channels", _) => self.channels = channels_of(value)?,
            ("names", "venue") => self.names = NameStyle::Venue,
            ("names", "common") => self.names = NameStyle::Common,
            ("names", _) => return Err(format!("names: invalid value {value:?}: expected venue or common")),
            ("url", _) => self.server = Some(server_of(value)?),
            ("ca_file", "") => return Err("ca_file: expected a PEM file".to_owned()),
            ("ca_file", _) => self.roots = Roots::File(PathBuf::from(value)),
            ("category", _) if self.has_categories() => {
                self.venue = match value {
                    "spot" => Venue::Bybit,
                    "linear" => Venue::BybitLinear,
                    "inverse" => Venue::BybitInverse,
                    _ => return Err(format!("category: invalid value {value:?}: expected spot, linear or inverse")),
                }
            }
            _ => {
                let category = if self.has_categories() { "category, " } else { "" };
                return Err(format!("unknown key {key:?}: expected {category}channels, depth, names, url or ca_file"));
            }
        }
        Ok(())
    }

    fn has_categories(&self) -> bool {
        matches!(self.venue, Venue::Bybit | Venue::BybitLinear | Venue::BybitInverse)
    }
}

fn symbols_of(text: &str) -> Result<Vec<String>, String> {
    let mut symbols: Vec<String> = Vec::new();
    for symbol in text.split(',') {
        if symbol.is_empty() {
            return Err("empty symbol: expected SYMBOL[,SYMBOL…] in the venue's own form".to_owned());
        }
        if symbols.iter().any(|other| other == symbol) {
            return Err(format!("duplicate symbol {symbol:?}: expected each once"));
        }
        symbols.push(symbol.to_owned());
    }
    if symbols.len() > INSTRUMENTS_MAX {
        return Err(format!("{} symbols: expected at most {INSTRUMENTS_MAX}", symbols.len()));
    }
    Ok(symbols)
}

fn channels_of(text: &str) -> Result<ChannelSet, String> {
    text.split(',')
        .map(|name| {
            let channel = CHANNELS.into_iter().find(|channel| channel.name() == name);
            channel.ok_or_else(|| {
                let names = CHANNELS.map(Channel::name).join(", ");
                format!("channels: invalid value {name:?}: expected some of {names}")
            })
        })
        .collect()
}

fn depth_of(venue: Venue, value: &str) -> Result<u32, String> {
    let depths = venue.depths();
    if depths.is_empty() {
        return Err(format!("depth: expected none, as {} has books of one depth", venue.name()));
    }
    let depth = value.parse().ok().filter(|depth| depths.contains(depth));
    depth.ok_or_else(|| {
        let depths: Vec<_> = depths.iter().map(u32::to_string).collect();
        format!("depth: invalid value {value:?}: expected one of {}", depths.join(", "))
    })
}

fn server_of(value: &str) -> Result<Address, String> {
    let address = Address::parse(value, SCHEMES).map_err(|error| format!("url: {error}"))?;
    if address.path != "/" {
        return Err(format!("url: invalid value {value:?}: expected no path, as paths are the venue's"));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_alone_are_enough_and_every_key_is_known() {
        let plain = Params::parse(Venue::Binance, "BTCUSDT,币安人生USDT").expect("symbols alone");
        assert_eq!(plain.symbols, ["BTCUSDT", "币安人生USDT"]);
        assert_eq!(plain.channels.iter().collect::<Vec<_>>(), CHANNELS);
        assert_eq!(
            (plain.depth, plain.names, plain.server, plain.roots),
            (None, NameStyle::Venue, None, Roots::System)
        );
        let full = "BTCUSD?depth=1000&channels=book,trade&names=common&url=wss://127.0.0.1:8443&ca_file=ca.pem&category=inverse";
        let full = Params::parse(Venue::Bybit, full).expect("all keys");
        assert_eq!((full.venue, full.depth, full.names), (Venue::BybitInverse, Some(1000), NameStyle::Common));
        assert_eq!(full.channels.iter().collect::<Vec<_>>(), [Channel::Trade, Channel::Book]);
        assert_eq!(full.server.map(|server| server.authority()).as_deref(), Some("127.0.0.1:8443"));
        assert_eq!(full.roots, Roots::File("ca.pem".into()));
    }

    #[test]
    fn error_names_key_value_and_what_is_allowed() {
        for (venue, text, message) in [
            (Venue::Kraken, "", "empty symbol: expected SYMBOL[,SYMBOL…] in the venue's own form"),
            (Venue::Kraken, "BTC/USD,,ETH/USD", "empty symbol: expected SYMBOL[,SYMBOL…] in the venue's own form"),
            (Venue::Kraken, "A,B,A", "duplicate symbol \"A\": expected each once"),
            (Venue::Kraken, "A?depth=7", "depth: invalid value \"7\": expected one of 10, 25, 100, 500, 1000"),
            (Venue::Coinbase, "A?depth=10", "depth: expected none, as coinbase has books of one depth"),
            (Venue::Bybit, "A?depth=10", "depth: invalid value \"10\": expected one of 50, 200, 1000"),
            (Venue::Bybit, "A?category=option", "category: invalid value \"option\": expected spot, linear or inverse"),
            (
                Venue::Okx,
                "A?category=spot",
                "unknown key \"category\": expected channels, depth, names, url or ca_file",
            ),
            (
                Venue::Okx,
                "A?channels=quote,bars",
                "channels: invalid value \"bars\": expected some of quote, trade, ticker, book",
            ),
            (Venue::Okx, "A?names=x", "names: invalid value \"x\": expected venue or common"),
            (
                Venue::Okx,
                "A?url=wss://h/ws",
                "url: invalid value \"wss://h/ws\": expected no path, as paths are the venue's",
            ),
            (Venue::Okx, "A?url=ws://h:1&ca_file=x", "ca_file: expected no file, as url= is without TLS"),
            (Venue::Okx, "A?ca_file=", "ca_file: expected a PEM file"),
            (Venue::Okx, "A?depth", "invalid parameter \"depth\": expected key=value"),
        ] {
            assert_eq!(Params::parse(venue, text), Err(message.to_owned()), "{text}");
        }
        let error = Params::parse(Venue::Okx, "A?url=http://h").expect_err("not a WebSocket");
        assert!(error.starts_with("url: invalid URL \"http://h\": the scheme is neither wss nor ws"), "{error}");
    }
}
