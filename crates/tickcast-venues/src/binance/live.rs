//! The codec of a connection to one of Binance's markets, with combined streams.
//!
//! A book is asked for by HTTP once an update of it was held. A snapshot that is too old, or no answer, makes another
//! request. The venue drops a connection after 24 hours, and announces it with `serverShutdown`.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use tickcast_protocol::{Channel, InstrumentStatus};

use super::message::{self, Body};
use super::translate::{Origin, Step};
use super::{InstrumentState, Market};
use crate::awaited::Awaited;
use crate::codec::{Arrival, Dialect, Operation, State};
use crate::error::{Malformed, SubscribeError};
use crate::json::{self, Object, Value};
use crate::listing::{self, Kind, Listing};
use crate::sink::{Event, Notice};
use crate::streams::RequestLimit;

/// Streams of one request.
const STREAMS_PER_REQUEST: usize = 100;

/// Levels of a side in a snapshot of spot.
pub(crate) const SPOT_DEPTHS: [u32; 4] = [100, 500, 1000, 5000];
/// Levels of a side in a snapshot of futures.
pub(crate) const FUTURES_DEPTHS: [u32; 4] = [50, 100, 500, 1000];

/// The codec's own state.
pub(crate) struct Binance {
    market: Market,
    /// Levels of a side in a snapshot. Those beyond it are known once they change.
    depth: u32,
    origin: Origin,
    awaited: Awaited,
}

impl Binance {
    /// The codec of a market, with snapshots of this depth, or of the deepest.
    pub(crate) fn new(market: Market, depth: Option<u32>) -> Self {
        let depth = depth.unwrap_or(if market == Market::Spot { 5000 } else { 1000 });
        Self { market, depth, origin: Origin::new(market, true, None), awaited: Awaited::default() }
    }

    /// `btcusdt@depth@100ms`. Trades of futures are aggregated: the market has no documented stream of single ones.
    fn stream(&self, symbol: &str, channel: Channel) -> Option<String> {
        let symbol = symbol.to_lowercase();
        match channel {
            Channel::Quote => Some(format!("{symbol}@bookTicker")),
            Channel::Trade if self.market.is_futures() => Some(format!("{symbol}@aggTrade")),
            Channel::Trade => Some(format!("{symbol}@trade")),
            Channel::Ticker => Some(format!("{symbol}@ticker")),
            Channel::Book => Some(format!("{symbol}@depth@100ms")),
            Channel::Raw => None,
        }
    }

    /// `{"result":null,"id":1}`, `{"code":2,"msg":"Invalid request: …","id":1}`, `{"error":{"code":2,"msg":"…"},"id":1}`
    fn take_answer(&mut self, arrival: &mut Arrival<'_, '_, InstrumentState>, answer: &Object<'_, '_>) {
        arrival.sink.report.ignored += 1;
        let error = json::object(answer, "error").ok();
        let message = error.as_ref().and_then(|error| json::maybe_text(error, "msg"));
        let refused = message.or_else(|| json::maybe_text(answer, "msg"));
        let request = json::whole_u64(answer, "id").ok();
        match request.and_then(|request| self.awaited.take(request)) {
            Some(streams) => {
                for (symbol, channel) in streams {
                    arrival.state.answered(&symbol, channel, refused, arrival.sink);
                }
            }
            None => {
                let reason = refused.map(str::to_owned);
                arrival.sink.events.extend(reason.map(|reason| Event::Refused { stream: None, reason }));
            }
        }
    }

    fn rest_root(&self) -> &'static str {
        match self.market {
            Market::Spot => "/api/v3",
            Market::UsdM => "/fapi/v1",
            Market::CoinM => "/dapi/v1",
        }
    }
}

impl Dialect for Binance {
    type Kept = InstrumentState;

    const SNAPSHOTS_FOLLOW: bool = false;
    // Snapshots are limited by their weight, for all connections together: see the limits of HTTP requests.
    const REQUESTS: RequestLimit = RequestLimit { burst: 50, interval_ns: 20_000_000 };

    fn venue(&self) -> &'static str {
        self.market.venue()
    }

    fn name_of(&self) -> fn(&str) -> String {
        self.market.name_of()
    }

    fn fresh(&self) -> fn() -> InstrumentState {
        self.market.fresh()
    }

    fn successor(&self) -> Self {
        Self::new(self.market, Some(self.depth))
    }

    fn check_depth(&self) -> Result<(), SubscribeError> {
        let (depths, expected): (&[u32], _) = match self.market {
            Market::Spot => (&SPOT_DEPTHS, "100, 500, 1000 or 5000"),
            Market::UsdM | Market::CoinM => (&FUTURES_DEPTHS, "50, 100, 500 or 1000"),
        };
        let (venue, given) = (self.venue(), self.depth);
        if depths.contains(&given) { Ok(()) } else { Err(SubscribeError::Depth { venue, given, expected }) }
    }

    /// "exchangeInfo: weight 20", of futures 1.
    fn listing_weight(&self) -> u32 {
        if self.market == Market::Spot { 20 } else { 1 }
    }

    /// "Depth: weight 5 up to 100 levels, 25 up to 500, 50 up to 1000, 250 up to 5000"; of futures 2, 5, 10 and 20.
    fn snapshot_weight(&self) -> u32 {
        match (self.market, self.depth) {
            (Market::Spot, 0..=100) => 5,
            (Market::Spot, 101..=500) => 25,
            (Market::Spot, 501..=1000) => 50,
            (Market::Spot, _) => 250,
            (_, 0..=50) => 2,
            (_, 51..=100) => 5,
            (_, 101..=500) => 10,
            _ => 20,
        }
    }

    fn requests(&mut self, operation: Operation, streams: &[(&str, Channel)]) -> Vec<String> {
        let method = if operation == Operation::Subscribe { "SUBSCRIBE" } else { "UNSUBSCRIBE" };
        let mut texts = Vec::new();
        for streams in streams.chunks(STREAMS_PER_REQUEST) {
            let params: Vec<_> = streams.iter().filter_map(|(symbol, channel)| self.stream(symbol, *channel)).collect();
            let id = self.awaited.push(streams);
            texts.push(json!({"method": method, "params": params, "id": id}).to_string());
        }
        texts
    }

    fn take(
        &mut self,
        arrival: &mut Arrival<'_, '_, InstrumentState>,
        message: Value<'_, '_>,
    ) -> Result<(), Malformed> {
        if let Some(object) = message.as_object() {
            if json::has(&object, "id") && ["result", "error", "code"].iter().any(|key| json::has(&object, key)) {
                self.take_answer(arrival, &object);
                return Ok(());
            }
            let data = json::object(&object, "data").unwrap_or(object);
            if json::maybe_text(&data, "e") == Some("serverShutdown") {
                let reason = "serverShutdown".to_owned();
                arrival.sink.events.push(Event::Notice(Notice::Closing { reason }));
                return Ok(());
            }
        }
        let Arrival { state, now_ns, sink } = arrival;
        let State { instruments, streams, levels, .. } = &mut **state;
        let origin = &mut self.origin;
        message::read_whole(message, &mut |message| {
            sink.note_time(message.time_fault);
            let named = channel_of(&message.body);
            let index = named.and_then(|(symbol, channel)| Some((instruments.index(symbol)?, channel)));
            index.into_iter().for_each(|(index, channel)| streams.note(index, channel, *now_ns));
            let mut step = Step { instruments, levels, origin };
            if let Body::Depth(depth) = &message.body {
                let waiting = step.depth(depth, sink)?;
                waiting.into_iter().for_each(|index| streams.resync_unless_pending(index));
                return Ok(());
            }
            step.take(&message.body, sink).map(|_| ())
        })
    }

    fn listing_path(&self) -> Option<String> {
        Some(format!("{}/exchangeInfo", self.rest_root()))
    }

    /// `{"symbols":[{"symbol":"BTCUSDT","status":"TRADING","filters":[{"filterType":"PRICE_FILTER",…}],…}]}`
    fn take_listing(
        &self,
        _asked: &str,
        answer: Value<'_, '_>,
        each: &mut dyn FnMut(Listing),
    ) -> Result<Option<String>, Malformed> {
        let object = answer.as_object().ok_or(Malformed::NotAMessage)?;
        listing::read_all(&json::list(&object, "symbols")?, listing, each);
        Ok(None)
    }

    fn snapshot_path(&self, symbol: &str) -> Option<String> {
        let symbol = utf8_percent_encode(symbol, NON_ALPHANUMERIC);
        Some(format!("{}/depth?symbol={symbol}&limit={}", self.rest_root(), self.depth))
    }

    fn snapshot_stream(&self, symbol: &str) -> Option<String> {
        Some(format!("{}@depth", symbol.to_lowercase()))
    }

    fn take_snapshot(
        &mut self,
        arrival: &mut Arrival<'_, '_, InstrumentState>,
        index: usize,
        answer: Value<'_, '_>,
    ) -> Result<(), Malformed> {
        let Arrival { state, now_ns, sink } = arrival;
        let State { instruments, streams, levels, .. } = &mut **state;
        let origin = &mut self.origin;
        message::read_whole(answer, &mut |message| {
            sink.note_time(message.time_fault);
            let Body::Snapshot(snapshot) = &message.body else { return Err(Malformed::Missing("lastUpdateId")) };
            if (Step { instruments, levels, origin }).snapshot(index, snapshot, sink)? {
                streams.whole(index, *now_ns);
            } else {
                streams.resync(index);
            }
            Ok(())
        })
    }
}

/// The stream of a message.
fn channel_of<'i>(body: &Body<'_, 'i>) -> Option<(&'i str, Channel)> {
    match body {
        Body::Quote(quote) => Some((quote.symbol, Channel::Quote)),
        Body::Trade(trade) => Some((trade.symbol, Channel::Trade)),
        Body::NoTrade { symbol, .. } => Some((symbol, Channel::Trade)),
        Body::Ticker(ticker) => Some((ticker.symbol, Channel::Ticker)),
        Body::Depth(depth) => Some((depth.symbol, Channel::Book)),
        Body::Snapshot(_) | Body::Ignored => None,
    }
}

fn listing(object: &Object<'_, '_>) -> Option<Listing> {
    let text = |key| json::maybe_text(object, key);
    let filters = json::list(object, "filters").ok();
    let of = |kind: &str, key: &str| {
        let all = filters.iter().flat_map(|filters| filters.iter()).filter_map(|filter| filter.as_object());
        let mut found = all.filter(|filter| json::maybe_text(filter, "filterType") == Some(kind));
        found.next().and_then(|filter| json::maybe_text(&filter, key).map(str::to_owned))
    };
    Some(Listing {
        symbol: text("symbol")?.to_owned(),
        base: text("baseAsset").unwrap_or("").to_owned(),
        quote: text("quoteAsset").unwrap_or("").to_owned(),
        kind: match text("contractType") {
            None => Kind::Spot,
            Some("PERPETUAL") => Kind::Perpetual,
            Some(_) => Kind::Dated,
        },
        tick_size: of("PRICE_FILTER", "tickSize"),
        lot_size: of("LOT_SIZE", "stepSize"),
        precisions: None,
        status: match text("status").or_else(|| text("contractStatus")).unwrap_or("TRADING") {
            "TRADING" => InstrumentStatus::Trading,
            "CLOSE" | "DELIVERED" | "SETTLING" => InstrumentStatus::Closed,
            // BREAK, HALT, PENDING_TRADING, PRE_SETTLE and others
            _ => InstrumentStatus::Halted,
        },
    })
}

#[cfg(test)]
mod tests;
