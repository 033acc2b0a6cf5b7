//! `/v1/bars/{symbol}`: bars of an instrument, of memory and of the archive on disk, as columns.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::TryRecvError;

use super::snapshot::{denied, unknown_instrument};
use crate::archive::Archive;
use crate::bars::{Bar, BarQuery, BarStore, FoundBars, INTERVALS_S, Session};
use crate::http::portions::Portions;
use crate::http::refusal::{RETRY_AFTER, Refusal};
use crate::http::request::quote;
use crate::http::response::Response;
use crate::http::server::HttpServer;
use crate::identity::Principal;
use tickcast_protocol::decimal;
use tickcast_protocol::record::{FieldSet, PRICE_NONE};
use tickcast_protocol::{Channel, Instrument};

/// Bars of a response: a chart shows a thousand or two, and writing one costs some 0.3 us of the core of the fan-out.
const LIMIT_MAX: u32 = 5000;
const LIMIT: u32 = 1000;
/// A day.
const INTERVAL_S_MAX: u32 = 86_400;
const INTERVAL_S: u32 = 60;
/// Bars that are written between two looks at the time: some 10 us.
const BARS_AT_ONCE: usize = 256;
/// How often, and how many times, a locked store is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(1);
pub(super) const TRIES: usize = 1000;
/// How many times of those an instrument is waited for whose part of the archive is not taken over.
pub(super) const SEED_TRIES: usize = 500;
/// How many times the archive is asked for its answer: disks are slower than memory.
const ARCHIVE_TRIES: usize = 5000;

pub(crate) async fn get(
    server: &HttpServer,
    principal: &Principal,
    symbol: &str,
    query: &str,
) -> Result<Response, Refusal> {
    let state = server.state();
    let Some(store) = state.bars.as_ref().filter(|_| state.config.bars_bytes > 0) else {
        return Err(Refusal::not_found("bars are off: the server was started with --bars-bytes 0"));
    };
    let Given { mut query, is_by_session } = parse(query)?;
    let symbol = percent_encoding::percent_decode_str(symbol).decode_utf8_lossy();
    let delay_s = state.delay_s();
    // Before it is looked up: a refusal does not tell whether it exists.
    let seen = Seen::of(principal, &symbol, delay_s).ok_or_else(|| denied(&symbol, "its trades and their prices"))?;
    let instrument =
        server.shard.borrow().directory().find(&symbol).ok_or_else(|| unknown_instrument(&symbol))?.clone();
    if is_by_session {
        query.session = Some(session_of(server, &instrument)?);
    }
    let mut found = find(store, instrument.id, &query).await?;
    if let Some(archive) = server.state().archive.as_ref().filter(|_| found.has_older && found.bars.len() < query.limit)
    {
        found = find_older(archive, &instrument, &query).await?;
    }
    found.bars.iter_mut().for_each(|bar| seen.hide(bar));
    let (px_exp, sz_exp) = found.exponents.unwrap_or((instrument.px_exp, instrument.sz_exp));
    let columns = Columns { px_exp, sz_exp, found: &found };
    let symbol = serde_json::to_string(&instrument.symbol).expect("a string is always valid JSON");
    let mut text = format!(r#"{{"symbol":{symbol},"interval_s":{},"since":{}"#, query.interval_s, found.since_s);
    if let Some(session) = &query.session {
        let session = serde_json::to_string(&session.to_string()).expect("a string is always valid JSON");
        write!(text, r#","session":{session}"#).expect("writing to a String cannot fail");
    }
    // Acquiring fails only on a closed semaphore, which this one never is.
    let _portion = server.building.acquire_permit(1).await;
    columns.push(&mut text).await;
    Ok(Response::json(text))
}

/// What a client may see of bars. Their prices are those of trades.
struct Seen {
    volume: bool,
    bid: bool,
    ask: bool,
}

impl Seen {
    /// `None` if it may see nothing of them.
    fn of(principal: &Principal, symbol: &str, delay_s: u32) -> Option<Self> {
        let hidden = principal.hidden_fields(symbol, delay_s);
        let sees = |channel, field| {
            let is_hidden = FieldSet::named(channel, field).is_some_and(|field| hidden.has_any(field));
            principal.may_see(symbol, channel, delay_s) && !is_hidden
        };
        let of_trades = |field| sees(Channel::Trade, field);
        let of_quotes = |field| sees(Channel::Quote, field);
        of_trades("px").then(|| Self { volume: of_trades("sz"), bid: of_quotes("bid_px"), ask: of_quotes("ask_px") })
    }

    fn hide(&self, bar: &mut Bar) {
        let values = [(self.volume, &mut bar.volume), (self.bid, &mut bar.bid_px), (self.ask, &mut bar.ask_px)];
        for (_, value) in values.into_iter().filter(|(is_seen, _)| !is_seen) {
            *value = PRICE_NONE;
        }
    }
}

/// The session of an instrument's venue.
fn session_of(server: &HttpServer, instrument: &Instrument) -> Result<Arc<Session>, Refusal> {
    let config = server.config();
    let found = config.sessions.iter().find(|session| session.venue == instrument.venue).cloned();
    found.ok_or_else(|| {
        let venue = quote(&instrument.venue);
        Refusal::bad_request(format!("session: the venue {venue} has none: expected a table [[session]] of the server"))
    })
}

async fn find(store: &BarStore, instrument: u32, query: &BarQuery) -> Result<FoundBars, Refusal> {
    for nth in 0..TRIES {
        match store.try_find(instrument, query) {
            // An instrument that was just defined does not have the newest bars of the archive yet.
            Some(found) if found.is_seeded || nth >= SEED_TRIES => return Ok(found),
            _ => glommio::timer::sleep(RETRY).await,
        }
    }
    Err(busy())
}

/// Bars of which the older ones are on disk.
async fn find_older(archive: &Archive, instrument: &Instrument, query: &BarQuery) -> Result<FoundBars, Refusal> {
    let answer = archive.find(&instrument.symbol, instrument.id, query).ok_or_else(busy)?;
    for _ in 0..ARCHIVE_TRIES {
        match answer.try_recv() {
            Ok(Ok(found)) => return Ok(found),
            // The log has the reason, which may name files.
            Ok(Err(_)) => return Err(Refusal::unavailable("the archive cannot be read", RETRY_AFTER)),
            Err(TryRecvError::Disconnected) => return Err(Refusal::unavailable("the server is stopping", RETRY_AFTER)),
            Err(TryRecvError::Empty) => glommio::timer::sleep(RETRY).await,
        }
    }
    Err(busy())
}

fn busy() -> Refusal {
    Refusal::unavailable("the bars are busy", RETRY_AFTER)
}

/// What a request has asked for.
#[derive(Debug, PartialEq, Eq)]
struct Given {
    query: BarQuery,
    /// By the session of the instrument's venue.
    is_by_session: bool,
}

/// Parses the query, whose parameters are known, each once.
fn parse(text: &str) -> Result<Given, Refusal> {
    let mut query = BarQuery { interval_s: INTERVAL_S, limit: LIMIT as usize, to_s: u32::MAX, session: None };
    let mut is_by_session = false;
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        match &*name {
            "interval_s" => query.interval_s = number(&name, &value, 1, INTERVAL_S_MAX)?,
            "limit" => query.limit = number(&name, &value, 1, LIMIT_MAX)? as usize,
            "session" if value == "venue" => is_by_session = true,
            "session" => {
                let message = format!("session: invalid value {}: expected venue", quote(&value));
                return Err(Refusal::bad_request(message));
            }
            "to" => query.to_s = number(&name, &value, 0, u32::MAX)?,
            _ => {}
        }
    }
    if query.is_served() {
        return Ok(Given { query, is_by_session });
    }
    let message =
        format!("interval_s: {} is not served: expected a multiple of one of {INTERVALS_S:?}", query.interval_s);
    Err(Refusal::bad_request(message))
}

pub(super) fn number(name: &str, value: &str, least: u32, most: u32) -> Result<u32, Refusal> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit()).then_some(value);
    let number = digits.and_then(|digits| digits.parse().ok()).filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| {
        let message = format!("{name}: invalid value {}: expected a whole number from {least} to {most}", quote(value));
        Refusal::bad_request(message)
    })
}

/// Writes a bar in a column.
type PushBar<T> = fn(&T, &Bar, &mut String);

/// The bars of an instrument, written with its exponents.
struct Columns<'a> {
    px_exp: i8,
    sz_exp: i8,
    found: &'a FoundBars,
}

impl Columns<'_> {
    async fn push(&self, out: &mut String) {
        let mut portions = Portions::begin();
        for (name, push) in Self::COLUMNS {
            write!(out, r#","{name}":["#).expect("writing to a String cannot fail");
            for bars in self.found.bars.chunks(BARS_AT_ONCE) {
                for bar in bars {
                    push(self, bar, out);
                    out.push(',');
                }
                portions.pause_if_over().await;
            }
            // The comma after the last bar.
            if out.ends_with(',') {
                out.pop();
            }
            out.push(']');
        }
        let holes: Vec<_> = self.found.holes.iter().map(|(from, to)| format!("[{from},{to}]")).collect();
        write!(out, r#","holes":[{}]}}"#, holes.join(",")).expect("writing to a String cannot fail");
    }

    /// The columns in their order, and how a bar is written there.
    const COLUMNS: [(&'static str, PushBar<Self>); 9] = [
        ("time", |_, bar, out| push_number(bar.time_s.into(), out)),
        ("open", |columns, bar, out| push_decimal(bar.open, columns.px_exp, out)),
        ("high", |columns, bar, out| push_decimal(bar.high, columns.px_exp, out)),
        ("low", |columns, bar, out| push_decimal(bar.low, columns.px_exp, out)),
        ("close", |columns, bar, out| push_decimal(bar.close, columns.px_exp, out)),
        // A sum that overflowed has no value.
        ("volume", |columns, bar, out| {
            let volume = if bar.volume == i64::MAX { PRICE_NONE } else { bar.volume };
            push_decimal(volume, columns.sz_exp, out);
        }),
        ("trades", |_, bar, out| push_number(bar.trades.into(), out)),
        ("bid_px", |columns, bar, out| push_decimal(bar.bid_px, columns.px_exp, out)),
        ("ask_px", |columns, bar, out| push_decimal(bar.ask_px, columns.px_exp, out)),
    ];
}

pub(super) fn push_number(number: u64, out: &mut String) {
    write!(out, "{number}").expect("writing to a String cannot fail");
}

pub(super) fn push_decimal(mantissa: i64, exponent: i8, out: &mut String) {
    if mantissa == PRICE_NONE {
        return out.push_str("null");
    }
    out.push('"');
    decimal::format(mantissa, exponent, out);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let refusal = parse(text).expect_err(text);
        assert_eq!((refusal.status, refusal.code), (400, "bad_request"));
        refusal.message
    }

    #[test]
    fn missing_parameters_have_defaults() {
        let query = BarQuery { interval_s: 60, limit: 1000, to_s: u32::MAX, session: None };
        assert_eq!(parse("").unwrap(), Given { query: query.clone(), is_by_session: false });
        assert_eq!(
            parse("interval_s=5&%6cimit=%37&to=1700000000&session=venue").unwrap(),
            Given { query: BarQuery { interval_s: 5, limit: 7, to_s: 1_700_000_000, ..query }, is_by_session: true }
        );
    }

    #[test]
    fn invalid_parameters_are_named_with_what_was_expected() {
        for (text, expected) in [
            ("interval_s=0", "interval_s: invalid value \"0\": expected a whole number from 1 to 86400"),
            ("interval_s=1.5", "interval_s: invalid value \"1.5\""),
            ("interval_s=86401", "from 1 to 86400"),
            ("limit=0", "limit: invalid value \"0\": expected a whole number from 1 to 5000"),
            ("limit=5001", "limit: invalid value \"5001\""),
            ("limit", "limit: invalid value \"\""),
            ("limit=%2B5", "limit: invalid value \"+5\""),
            ("limit=", "limit: invalid value \"\""),
            ("to=-1", "to: invalid value \"-1\": expected a whole number from 0 to 4294967295"),
            ("session=nyse", "session: invalid value \"nyse\": expected venue"),
            ("to=now", "to: invalid value \"now\""),
        ] {
            assert!(refusal(text).contains(expected), "{text}: {}", refusal(text));
        }
    }

    #[test]
    fn an_overflowed_volume_is_null() {
        let bar = Bar {
            time_s: 60,
            trades: 2,
            open: 1,
            high: 2,
            low: -1,
            close: 2,
            volume: i64::MAX,
            bid_px: PRICE_NONE,
            ask_px: 150,
            is_quoted: true,
        };
        let found = FoundBars { since_s: 7, bars: vec![bar], holes: vec![(1, 2)], ..FoundBars::default() };
        let mut text = String::from(r#"{"since":7"#);
        let columns = Columns { px_exp: -2, sz_exp: 0, found: &found };
        // It pauses where a portion is over, as on a busy machine.
        glommio::LocalExecutor::default().run(columns.push(&mut text));
        assert_eq!(
            text,
            r#"{"since":7,"time":[60],"open":["0.01"],"high":["0.02"],"low":["-0.01"],"close":["0.02"],"volume":[null],"#
                .to_owned()
                + r#""trades":[2],"bid_px":[null],"ask_px":["1.50"],"holes":[[1,2]]}"#
        );
    }
}
