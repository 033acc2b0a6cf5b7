//! Where a venue is, and what it asks of its clients: addresses and limits, as its own pages state them.
//!
//! A limit that a page states as so many in a time is kept with a margin here: as a burst, and a time after which another
//! one is permitted, so that burst and refill together stay below it. What a page does not limit has a bound of good
//! manners.
//!
//! Sources:
//! * Binance spot: developers.binance.com/docs/binance-spot-api-docs, "WebSocket Streams" (1,024 streams a connection, 5
//!   incoming messages a second with pings and pongs, 300 connection attempts in 5 minutes, 24 hours, a ping every 20 s
//!   that is to be answered within a minute) and "Limits" (6,000 weight a minute).
//! * Binance USD-M: developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams, and its
//!   "Important WebSocket Change Notice": since 2026-04-23 books and quotes are at `/public`, trades and statistics at
//!   `/market`, and another path acknowledges a subscription and stays silent. 10 incoming messages a second, 200 streams,
//!   2,400 weight a minute. COIN-M (`dstream`) is unchanged.
//! * Coinbase: docs.cdp.coinbase.com/exchange/websocket-feed/rate-limits (8 connections a second, 20 at once, 100 messages
//!   a second) and /exchange/rest-api/rate-limits (10 requests a second).
//! * Kraken: support.kraken.com, "WebSocket API FAQ" (about 150 connection attempts in 10 minutes).
//! * Bybit: bybit-exchange.github.io/docs/v5/ws/connect (500 connections in 5 minutes, 21,000 characters of topics a
//!   connection) and /docs/v5/rate-limit (600 requests in 5 seconds).
//! * OKX: www.okx.com/docs-v5, "Connect" (3 connections a second, 480 requests an hour and connection, 30 s without a
//!   message end it) and "Get instruments" (20 requests in 2 seconds).

use tickcast_protocol::Channel;

use crate::streams::RequestLimit;
use crate::venue::Venue;

const MS: u64 = 1_000_000;
const MINUTE: u64 = 60_000 * MS;

/// The addresses and the limits of a venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Where its messages come from. The channels of an instrument may need several connections.
    pub endpoints: &'static [Endpoint],
    /// Where its HTTP requests go: scheme and host, without a path.
    pub rest: &'static str,
    /// What it asks of its clients.
    pub limits: Limits,
}

/// An address for WebSocket connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Scheme, host and path.
    pub url: &'static str,
    /// The channels that come from there.
    pub channels: &'static [Channel],
}

/// What a venue asks of the clients of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams of one connection: channels of instruments.
    pub streams_per_connection: usize,
    /// Attempts to connect.
    pub connects: RequestLimit,
    /// Messages to the venue on one connection.
    pub messages: RequestLimit,
    /// HTTP requests, in units of weight.
    pub rest: RequestLimit,
    /// The longest life of a connection, ns.
    pub connection_life_ns: Option<u64>,
}

const ALL: &[Channel] = &[Channel::Quote, Channel::Trade, Channel::Ticker, Channel::Book];

const BINANCE: Limits = Limits {
    streams_per_connection: 1024,
    connects: RequestLimit { burst: 20, interval_ns: 1_100 * MS },
    messages: RequestLimit { burst: 2, interval_ns: 350 * MS },
    rest: RequestLimit { burst: 1_000, interval_ns: MINUTE / 4_500 },
    connection_life_ns: Some(24 * 60 * MINUTE),
};

const BINANCE_FUTURES: Limits = Limits {
    streams_per_connection: 200,
    messages: RequestLimit { burst: 4, interval_ns: 200 * MS },
    rest: RequestLimit { burst: 300, interval_ns: MINUTE / 1_800 },
    ..BINANCE
};

const COINBASE: Limits = Limits {
    streams_per_connection: 400,
    connects: RequestLimit { burst: 4, interval_ns: 250 * MS },
    messages: RequestLimit { burst: 20, interval_ns: 20 * MS },
    rest: RequestLimit { burst: 5, interval_ns: 200 * MS },
    connection_life_ns: None,
};

const KRAKEN: Limits = Limits {
    streams_per_connection: 400,
    connects: RequestLimit { burst: 10, interval_ns: 4_500 * MS },
    messages: RequestLimit { burst: 10, interval_ns: 50 * MS },
    rest: RequestLimit { burst: 1, interval_ns: 1_000 * MS },
    connection_life_ns: None,
};

const BYBIT: Limits = Limits {
    // Topics have at most 40 characters.
    streams_per_connection: 500,
    connects: RequestLimit { burst: 20, interval_ns: 650 * MS },
    messages: RequestLimit { burst: 10, interval_ns: 50 * MS },
    rest: RequestLimit { burst: 20, interval_ns: 50 * MS },
    connection_life_ns: None,
};

const OKX: Limits = Limits {
    // "It is recommended to have fewer than 30 channels of books a connection."
    streams_per_connection: 116,
    connects: RequestLimit { burst: 1, interval_ns: 350 * MS },
    messages: RequestLimit { burst: 3, interval_ns: 350 * MS },
    rest: RequestLimit { burst: 5, interval_ns: 150 * MS },
    connection_life_ns: None,
};

impl Venue {
    /// Where it is, and its limits.
    pub fn access(self) -> Access {
        let (endpoints, rest, limits): (&[Endpoint], _, _) = match self {
            Self::Binance => (
                &[Endpoint { url: "wss://stream.binance.com:9443/stream", channels: ALL }],
                "https://api.binance.com",
                BINANCE,
            ),
            Self::BinanceUsdM => (
                &[
                    Endpoint {
                        url: "wss://fstream.binance.com/public/stream",
                        channels: &[Channel::Quote, Channel::Book],
                    },
                    Endpoint {
                        url: "wss://fstream.binance.com/market/stream",
                        channels: &[Channel::Trade, Channel::Ticker],
                    },
                ],
                "https://fapi.binance.com",
                BINANCE_FUTURES,
            ),
            Self::BinanceCoinM => (
                &[Endpoint { url: "wss://dstream.binance.com/stream", channels: ALL }],
                "https://dapi.binance.com",
                BINANCE_FUTURES,
            ),
            Self::Coinbase => (
                &[Endpoint { url: "wss://ws-feed.exchange.coinbase.com/", channels: ALL }],
                "https://api.exchange.coinbase.com",
                COINBASE,
            ),
            Self::Kraken => {
                (&[Endpoint { url: "wss://ws.kraken.com/v2", channels: ALL }], "https://api.kraken.com", KRAKEN)
            }
            Self::Bybit => (
                &[Endpoint { url: "wss://stream.bybit.com/v5/public/spot", channels: ALL }],
                "https://api.bybit.com",
                BYBIT,
            ),
            Self::BybitLinear => (
                &[Endpoint { url: "wss://stream.bybit.com/v5/public/linear", channels: ALL }],
                "https://api.bybit.com",
                BYBIT,
            ),
            Self::BybitInverse => (
                &[Endpoint { url: "wss://stream.bybit.com/v5/public/inverse", channels: ALL }],
                "https://api.bybit.com",
                BYBIT,
            ),
            Self::Okx => {
                (&[Endpoint { url: "wss://ws.okx.com:8443/ws/v5/public", channels: ALL }], "https://www.okx.com", OKX)
            }
        };
        Access { endpoints, rest, limits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_of_a_venue_has_exactly_one_endpoint() {
        for venue in Venue::ALL {
            let access = venue.access();
            for channel in ALL {
                let endpoints = access.endpoints.iter().filter(|endpoint| endpoint.channels.contains(channel));
                assert_eq!(endpoints.count(), 1, "{venue:?} {channel:?}");
            }
            assert!(access.endpoints.iter().all(|endpoint| endpoint.url.starts_with("wss://")), "{venue:?}");
            assert!(access.rest.starts_with("https://") && !access.rest["https://".len()..].contains('/'));
        }
    }

    /// Most of a limit within a time that begins at any moment.
    fn within(limit: RequestLimit, time_ns: u64) -> u64 {
        u64::from(limit.burst) + time_ns / limit.interval_ns
    }

    #[test]
    fn limits_stay_below_those_that_the_venues_state() {
        let five_minutes = 5 * MINUTE;
        for (venue, connects, weight) in
            [(Venue::Binance, 300, 6_000), (Venue::BinanceUsdM, 300, 2_400), (Venue::BinanceCoinM, 300, 2_400)]
        {
            let limits = venue.access().limits;
            assert!(within(limits.connects, five_minutes) < connects, "{venue:?}");
            // One request may exceed it by its own weight.
            assert!(within(limits.rest, MINUTE) + 250 <= weight, "{venue:?}");
        }
        // Of these, one a second is left for a ping and a pong.
        assert!(within(Venue::Binance.access().limits.messages, 1_000 * MS) < 5);
        assert!(within(Venue::BinanceUsdM.access().limits.messages, 1_000 * MS) < 10);
        assert!(within(Venue::Coinbase.access().limits.connects, 1_000 * MS) <= 8);
        assert!(within(Venue::Kraken.access().limits.connects, 10 * MINUTE) < 150);
        assert!(within(Venue::Bybit.access().limits.connects, five_minutes) < 500);
        assert!(within(Venue::Okx.access().limits.connects, 1_000 * MS) <= 3);
    }
}
