//! OKX v5, public channels (www.okx.com/docs-v5).
//!
//! * Quotes are `bbo-tbt`; until one came, those of `tickers`.
//! * A book (`books`, 400 levels, or `books5`) begins with a snapshot of `prevSeqId` −1. Each update names the `seqId`
//!   that it follows. An update may repeat it, which keeps the stream alive, and may go back, which is a reset by the
//!   venue and no gap. Where `checksum` is not 0, as before June 2026, it is compared.
//! * `tradeId` is that of the last of `count` trades of one order at one price.

use serde_json::json;
use tickcast_protocol::{Channel, InstrumentStatus};

use crate::codec::{Arrival, Dialect, Operation, Ping};
use crate::error::Malformed;
use crate::json::{self, Field, Object, Sides, Value};
use crate::listing::{self, Kind, Listing};
use crate::local_book::LocalBook;
use crate::scale::Scale;
use crate::sink::{BookFault, Event, Notice, Sink};
use crate::stream_book::{BookMessage, StreamKept};
use crate::streams::RequestLimit;
use crate::tracked::{QuoteText, TickerText, TradeText};
use crate::trade_ids::TradeRange;

/// The kinds of instruments that are listed. Options are too many, and are asked for by family.
const KINDS: [&str; 3] = ["SPOT", "SWAP", "FUTURES"];
/// Streams of one request: the texts of all are to stay below 64 KB.
const STREAMS_PER_REQUEST: usize = 100;
/// "The connection will soon be closed for a service upgrade."
const NOTICE_UPGRADE: &str = "64008";

/// What only this venue keeps of an instrument: whether a quote of `bbo-tbt` came.
#[derive(Debug, Default)]
pub(crate) struct HasBbo(bool);

type Kept = StreamKept<HasBbo>;

/// The codec's own state.
pub(crate) struct Okx;

impl Dialect for Okx {
    type Kept = Kept;

    // 480 subscriptions and their ends an hour; one book takes two.
    const REQUESTS: RequestLimit = RequestLimit { burst: 20, interval_ns: 20_000_000_000 };

    fn venue(&self) -> &'static str {
        "okx"
    }

    fn fresh(&self) -> fn() -> Kept {
        Kept::default
    }

    fn successor(&self) -> Self {
        Self
    }

    fn opening(&self) -> Vec<String> {
        let status = [json!({"channel": "status"})];
        let args: Vec<_> =
            KINDS.iter().map(|kind| json!({"channel": "instruments", "instType": kind})).chain(status).collect();
        vec![json!({"op": "subscribe", "args": args}).to_string()]
    }

    fn requests(&mut self, operation: Operation, streams: &[(&str, Channel)]) -> Vec<String> {
        let op = if operation == Operation::Subscribe { "subscribe" } else { "unsubscribe" };
        let args: Vec<_> = streams
            .iter()
            .filter_map(|(symbol, channel)| Some(json!({"channel": name_of(*channel)?, "instId": symbol})))
            .collect();
        args.chunks(STREAMS_PER_REQUEST).map(|args| json!({"op": op, "args": args}).to_string()).collect()
    }

    /// "If there's a network problem, the system will automatically disable the connection [...] in 30 seconds", also where
    /// nothing is sent: the text `ping` is answered with the text `pong`.
    fn ping(&self) -> Option<Ping> {
        Some(Ping { text: "ping", interval_ns: 20_000_000_000 })
    }

    fn is_plain_answer(&self, text: &[u8]) -> bool {
        text.trim_ascii() == b"pong"
    }

    fn take(&mut self, arrival: &mut Arrival<'_, '_, Kept>, message: Value<'_, '_>) -> Result<(), Malformed> {
        let object = message.as_object().ok_or(Malformed::NotAMessage)?;
        if let Some(event) = json::maybe_text(&object, "event") {
            take_event(arrival, event, &object);
            return Ok(());
        }
        let arg = json::object(&object, "arg")?;
        let data = json::list(&object, "data")?;
        let symbol = || json::text(&arg, "instId");
        match json::text(&arg, "channel")? {
            "instruments" => {
                listing::read_all(&data, listing, &mut |listing| arrival.state.instruments.list(listing, arrival.sink));
                Ok(())
            }
            "status" => json::each(&data, |status| take_status(status, arrival.sink)),
            "trades" => json::each(&data, |trade| take_trade(arrival, trade)),
            "tickers" => json::each(&data, |ticker| take_ticker(arrival, ticker)),
            "bbo-tbt" => json::each(&data, |quote| take_bbo(arrival, symbol()?, quote)),
            "books" | "books5" | "books-l2-tbt" | "books50-l2-tbt" => {
                // `books5` has no action: each message is the whole of the five best levels.
                let is_snapshot = json::maybe_text(&object, "action") != Some("update");
                json::each(&data, |book| take_book(arrival, symbol()?, book, is_snapshot))
            }
            _ => {
                arrival.sink.report.ignored += 1;
                Ok(())
            }
        }
    }

    fn listing_path(&self) -> Option<String> {
        Some(listing_path(KINDS[0]))
    }

    /// `{"code":"0","data":[{"instType":"SPOT","instId":"BTC-USDT","tickSz":"0.1",…}]}`; the next kind follows.
    fn take_listing(
        &self,
        asked: &str,
        answer: Value<'_, '_>,
        each: &mut dyn FnMut(Listing),
    ) -> Result<Option<String>, Malformed> {
        let object = answer.as_object().ok_or(Malformed::NotAMessage)?;
        listing::read_all(&json::list(&object, "data")?, listing, each);
        let at = KINDS.iter().position(|kind| listing_path(kind) == asked);
        Ok(at.and_then(|at| KINDS.get(at + 1)).map(|next| listing_path(next)))
    }
}

fn listing_path(kind: &str) -> String {
    format!("/api/v5/public/instruments?instType={kind}")
}

fn name_of(channel: Channel) -> Option<&'static str> {
    match channel {
        Channel::Quote => Some("bbo-tbt"),
        Channel::Trade => Some("trades"),
        Channel::Ticker => Some("tickers"),
        Channel::Book => Some("books"),
        Channel::Raw => None,
    }
}

fn channel_of(name: &str) -> Option<Channel> {
    Channel::ALL.into_iter().find(|channel| name_of(*channel) == Some(name))
}

/// `{"event":"subscribe","arg":{…}}`, `{"event":"error","code":"60012","msg":"…"}`, `{"event":"notice",…}`.
fn take_event(arrival: &mut Arrival<'_, '_, Kept>, event: &str, object: &Object<'_, '_>) {
    arrival.sink.report.ignored += 1;
    let text = |key| json::maybe_text(object, key);
    let reason = || format!("{} ({})", text("msg").unwrap_or(event), text("code").unwrap_or("no code"));
    let arg = json::object(object, "arg").ok();
    let of_arg = |key| arg.as_ref().and_then(|arg| json::maybe_text(arg, key));
    let stream = of_arg("instId").zip(of_arg("channel").and_then(channel_of));
    match (event, stream) {
        ("subscribe", Some((symbol, channel))) => arrival.state.answered(symbol, channel, None, arrival.sink),
        ("error", Some((symbol, channel))) => arrival.state.answered(symbol, channel, Some(&reason()), arrival.sink),
        ("error", None) => arrival.sink.events.push(Event::Refused { stream: None, reason: reason() }),
        ("notice", _) if text("code") == Some(NOTICE_UPGRADE) => {
            arrival.sink.events.push(Event::Notice(Notice::Closing { reason: reason() }));
        }
        ("notice" | "channel-conn-count-error", _) => {
            arrival.sink.events.push(Event::Notice(Notice::Error { reason: reason() }));
        }
        _ => {}
    }
}

/// `{"title":"Spot trading system upgrade","state":"ongoing",…}`
fn take_status(status: &Object<'_, '_>, sink: &mut Sink<'_>) -> Result<(), Malformed> {
    let phase = json::text(status, "state")?;
    let state = format!("{}: {phase}", json::maybe_text(status, "title").unwrap_or("maintenance"));
    sink.events.push(Event::Notice(Notice::State { state, is_trading: phase != "ongoing" }));
    Ok(())
}

fn listing(object: &Object<'_, '_>) -> Option<Listing> {
    let text = |key| json::maybe_text(object, key).filter(|text| !text.is_empty());
    let family = text("uly").or_else(|| text("instFamily")).and_then(|family| family.split_once('-'));
    let (base, quote) = text("baseCcy").zip(text("quoteCcy")).or(family).unwrap_or_default();
    Some(Listing {
        symbol: text("instId")?.to_owned(),
        base: base.to_owned(),
        quote: quote.to_owned(),
        kind: match text("instType")? {
            "SPOT" => Kind::Spot,
            "SWAP" => Kind::Perpetual,
            _ => Kind::Dated,
        },
        tick_size: text("tickSz").map(str::to_owned),
        lot_size: text("lotSz").map(str::to_owned),
        precisions: None,
        status: match text("state").unwrap_or("live") {
            "live" => InstrumentStatus::Trading,
            "expired" => InstrumentStatus::Closed,
            // suspend, preopen, test
            _ => InstrumentStatus::Halted,
        },
    })
}

fn take_trade(arrival: &mut Arrival<'_, '_, Kept>, trade: &Object<'_, '_>) -> Result<(), Malformed> {
    let index = arrival.stream(json::text(trade, "instId")?, &[Channel::Trade])?;
    let trade_id = json::whole_u64(trade, "tradeId")?;
    let count = json::maybe_whole(trade, "count")?.and_then(|count| u64::try_from(count).ok()).unwrap_or(1);
    let (ts_event, fault) = json::time(trade, &["ts"]);
    let text = TradeText {
        px: Field::of(trade, "px")?,
        sz: Field::of(trade, "sz")?,
        trade_id,
        side: json::side(trade, "side", "buy", "sell")?,
        ts_event,
    };
    arrival.sink.note_time(fault);
    let aggregated_from = (count > 1).then(|| trade_id.saturating_sub(count - 1));
    arrival.take_numbered_trade(index, &text, TradeRange { last: trade_id, aggregated_from, aggregate: None })
}

fn take_ticker(arrival: &mut Arrival<'_, '_, Kept>, ticker: &Object<'_, '_>) -> Result<(), Malformed> {
    let index = arrival.stream(json::text(ticker, "instId")?, &[Channel::Ticker])?;
    let ts_event = arrival.time(ticker, &["ts"]);
    let tracked = arrival.state.instruments.at(index);
    let field = |key| Field::maybe(ticker, key);
    let side = |px, sz| field(px).zip(field(sz));
    if !tracked.kept.more.0
        && let Some((bid, ask)) = side("bidPx", "bidSz").zip(side("askPx", "askSz"))
    {
        tracked.quote(&QuoteText { bid, ask, ts_event }, arrival.sink)?;
    }
    // `volCcy24h` is in the quote currency for spot, in the base or in coins for derivatives; `vol24h` is what trades are
    // counted in.
    let is_spot = json::maybe_text(ticker, "instType") == Some("SPOT");
    let text = TickerText {
        last: field("last"),
        open: field("open24h"),
        high: field("high24h"),
        low: field("low24h"),
        volume: field("vol24h"),
        turnover: field("volCcy24h").filter(|_| is_spot),
        bid: field("bidPx"),
        ask: field("askPx"),
        ts_event,
        ..TickerText::default()
    };
    tracked.ticker(&text, arrival.sink)
}

/// `{"asks":[["8476.98","415","0","13"]],"bids":[["8476.97","256","0","12"]],"ts":"1597026383085","seqId":123456}`
fn take_bbo(arrival: &mut Arrival<'_, '_, Kept>, symbol: &str, quote: &Object<'_, '_>) -> Result<(), Malformed> {
    let index = arrival.stream(symbol, &[Channel::Quote])?;
    let ts_event = arrival.time(quote, &["ts"]);
    let [bid, ask] = Sides::of(quote, "bids", "asks")?.best()?;
    let tracked = arrival.state.instruments.at(index);
    tracked.kept.more.0 = true;
    tracked.quote(&QuoteText { bid, ask, ts_event }, arrival.sink)
}

fn take_book(
    arrival: &mut Arrival<'_, '_, Kept>,
    symbol: &str,
    book: &Object<'_, '_>,
    is_snapshot: bool,
) -> Result<(), Malformed> {
    let index = arrival.stream(symbol, &[Channel::Book])?;
    let ts_event = arrival.time(book, &["ts"]);
    let sides = Sides::of(book, "bids", "asks")?;
    let (previous, id) = (json::maybe_whole(book, "prevSeqId")?, json::maybe_whole(book, "seqId")?);
    let kept = &arrival.state.instruments.at(index).kept.book;
    if let (false, true, Some(previous)) = (is_snapshot, kept.is_live, previous)
        && previous != kept.last_id
    {
        let cause = BookFault::Gap { after: kept.last_id.unsigned_abs(), got: previous.unsigned_abs() };
        arrival.state.drop_book(index, cause, ts_event, arrival.sink);
        return Ok(());
    }
    let check = json::maybe_whole(book, "checksum")?.filter(|stated| *stated != 0).map(checksum);
    let message = BookMessage { is_snapshot, ts_event, id: id.unwrap_or(0), check };
    arrival.take_book(index, message, || sides.iter())
}

/// The check against a stated checksum, which is a signed number.
fn checksum(stated: i64) -> impl FnOnce(&LocalBook, Scale, &mut String) -> (u32, u32) {
    move |book, scale, text| (book.okx_checksum(scale, text), stated as u32)
}

#[cfg(test)]
mod tests;
