//! The limits that the venues publish.

use std::collections::VecDeque;

use crate::venue::VenueKind;

/// At most `count` within `per_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: usize,
    /// In which time.
    pub per_ms: u64,
}

/// The limits of a venue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams of a connection.
    pub streams: usize,
    /// Messages of a client, control frames included.
    pub messages: Rate,
    /// Subscriptions and their ends on a connection.
    pub requests: Option<Rate>,
    /// Connections that are opened.
    pub connects: Rate,
    /// Weight of REST requests.
    pub rest: Rate,
    /// A client that has asked for nothing after this is disconnected.
    pub first_request_ms: Option<u64>,
    /// A connection on which nothing was sent in either direction for this long is closed.
    pub silence_ms: Option<u64>,
    /// Ping frames of the venue, and how long it waits for their answer.
    pub ping_ms: Option<(u64, u64)>,
}

impl Limits {
    /// Those of a venue. What it does not publish is unlimited.
    pub fn of(venue: VenueKind) -> Self {
        let free = Self {
            streams: 100_000,
            messages: Rate { count: 100_000, per_ms: 1_000 },
            requests: None,
            connects: Rate { count: 100_000, per_ms: 1_000 },
            rest: Rate { count: 100_000, per_ms: 60_000 },
            first_request_ms: None,
            silence_ms: None,
            ping_ms: None,
        };
        let five_minutes = |count| Rate { count, per_ms: 300_000 };
        match venue {
            VenueKind::Binance => Self {
                streams: 1024,
                messages: Rate { count: 5, per_ms: 1_000 },
                connects: five_minutes(300),
                rest: Rate { count: 6_000, per_ms: 60_000 },
                ping_ms: Some((20_000, 60_000)),
                ..free
            },
            VenueKind::BinanceUsdM | VenueKind::BinanceCoinM => Self {
                streams: 200,
                messages: Rate { count: 10, per_ms: 1_000 },
                connects: five_minutes(300),
                rest: Rate { count: 2_400, per_ms: 60_000 },
                ping_ms: Some((180_000, 600_000)),
                ..free
            },
            VenueKind::Coinbase => Self {
                messages: Rate { count: 100, per_ms: 1_000 },
                // 8 in a second, 20 at once.
                connects: Rate { count: 20, per_ms: 2_500 },
                rest: Rate { count: 10, per_ms: 1_000 },
                first_request_ms: Some(5_000),
                ..free
            },
            VenueKind::Kraken => {
                Self { connects: Rate { count: 150, per_ms: 600_000 }, silence_ms: Some(60_000), ..free }
            }
            VenueKind::Bybit | VenueKind::BybitLinear | VenueKind::BybitInverse => Self {
                connects: five_minutes(500),
                rest: Rate { count: 600, per_ms: 5_000 },
                silence_ms: Some(600_000),
                ..free
            },
            VenueKind::Okx => Self {
                requests: Some(Rate { count: 480, per_ms: 3_600_000 }),
                connects: Rate { count: 3, per_ms: 1_000 },
                rest: Rate { count: 20, per_ms: 2_000 },
                silence_ms: Some(30_000),
                ..free
            },
        }
    }
}

/// What happened within the time of a rate.
#[derive(Clone, Debug, Default)]
pub struct Window(VecDeque<(u64, usize)>);

impl Window {
    /// Notes something of a weight; false if it exceeds the rate.
    pub fn admit(&mut self, rate: Rate, weight: usize, now_ns: u64) -> bool {
        let since_ns = now_ns.saturating_sub(rate.per_ms * 1_000_000);
        while self.0.front().is_some_and(|(at_ns, _)| *at_ns < since_ns) {
            self.0.pop_front();
        }
        let used: usize = self.0.iter().map(|(_, weight)| weight).sum();
        if used + weight > rate.count {
            return false;
        }
        self.0.push_back((now_ns, weight));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_admits_what_the_rate_allows() {
        let (rate, mut window) = (Rate { count: 5, per_ms: 1_000 }, Window::default());
        assert!((0..5).all(|nth| window.admit(rate, 1, nth)));
        assert!(!window.admit(rate, 1, 999_999_999));
        assert!(window.admit(rate, 2, 1_000_000_002) && !window.admit(rate, 2, 1_000_000_002));
    }
}
