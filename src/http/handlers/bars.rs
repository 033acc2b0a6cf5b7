//! `/v1/bars/{symbol}`: what was traded and quoted since the start, as columns.

use std::fmt::Write;
use std::time::Duration;

use super::snapshot::unknown;
use crate::bars::BarStore;
use crate::bars::{Bar, BarQuery, FoundBars, INTERVALS_S};
use crate::http::handshake::Refusal;
use crate::http::response::{Response, bad_request, not_found, shown, unavailable};
use crate::http::server::HttpServer;
use tickcast_protocol::decimal;
use tickcast_protocol::record::PRICE_NONE;

/// Bars of an answer: a chart has a thousand or two, and to write one costs some 0.3 us of the core that the fan-out has.
const LIMIT_MAX: u32 = 5000;
const LIMIT: u32 = 1000;
/// A day.
const INTERVAL_S_MAX: u32 = 86_400;
const INTERVAL_S: u32 = 60;
/// How often, and how many times, the store is asked while it takes records in.
const RETRY: Duration = Duration::from_millis(1);
const TRIES: usize = 1000;

/// The answer to `GET /v1/bars/{symbol}?query`.
pub(crate) async fn answer(server: &HttpServer, symbol: &str, query: &str) -> Result<Response, Refusal> {
    let Some(store) = &server.state.bars else {
        return Err(not_found("bars are off: the server was started with --bars-bytes 0".to_owned()));
    };
    let query = parse(query)?;
    let symbol = percent_encoding::percent_decode_str(symbol).decode_utf8_lossy();
    let instrument = server.shard.borrow().directory().find(&symbol).ok_or_else(|| unknown(&symbol))?.clone();
    let found = find(store, instrument.id, &query).await?;
    let columns = Columns { px_exp: instrument.px_exp, sz_exp: instrument.sz_exp, found: &found };
    let symbol = serde_json::to_string(&instrument.symbol).expect("a text is always JSON");
    let mut text = format!(r#"{{"symbol":{symbol},"interval_s":{},"since":{}"#, query.interval_s, found.since_s);
    columns.push(&mut text);
    Ok(Response::json(text))
}

async fn find(store: &BarStore, instrument: u32, query: &BarQuery) -> Result<FoundBars, Refusal> {
    for _ in 0..TRIES {
        if let Some(found) = store.try_find(instrument, query) {
            return Ok(found);
        }
        glommio::timer::sleep(RETRY).await;
    }
    Err(unavailable("the bars are busy taking in what was traded"))
}

/// Reads the parameters. Others than those that there are stand for nothing, and the last of several counts.
fn parse(text: &str) -> Result<BarQuery, Refusal> {
    let mut query = BarQuery { interval_s: INTERVAL_S, limit: LIMIT as usize, to_s: u32::MAX };
    for (name, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
        match name {
            "interval_s" => query.interval_s = number(name, value, 1, INTERVAL_S_MAX)?,
            "limit" => query.limit = number(name, value, 1, LIMIT_MAX)? as usize,
            "to" => query.to_s = number(name, value, 0, u32::MAX)?,
            _ => {}
        }
    }
    if query.is_served() {
        return Ok(query);
    }
    let message = format!("interval_s: no bars of {} s can be made of those of {INTERVALS_S:?} s", query.interval_s);
    Err(bad_request(message))
}

fn number(name: &str, value: &str, least: u32, most: u32) -> Result<u32, Refusal> {
    let number = value.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| {
        let message = format!("{name}: {:?} is not a whole number from {least} to {most}", shown(value));
        bad_request(message)
    })
}

/// What was found, with the instrument's exponents.
struct Columns<'a> {
    px_exp: i8,
    sz_exp: i8,
    found: &'a FoundBars,
}

impl Columns<'_> {
    fn push(&self, out: &mut String) {
        self.column("time", out, |bar, out| write!(out, "{}", bar.time_s).expect("a String takes all"));
        self.column("open", out, |bar, out| push_decimal(bar.open, self.px_exp, out));
        self.column("high", out, |bar, out| push_decimal(bar.high, self.px_exp, out));
        self.column("low", out, |bar, out| push_decimal(bar.low, self.px_exp, out));
        self.column("close", out, |bar, out| push_decimal(bar.close, self.px_exp, out));
        // A sum that does not fit is not told as one that does.
        let volume = |bar: &Bar| if bar.volume == i64::MAX { PRICE_NONE } else { bar.volume };
        self.column("volume", out, |bar, out| push_decimal(volume(bar), self.sz_exp, out));
        self.column("trades", out, |bar, out| write!(out, "{}", bar.trades).expect("a String takes all"));
        self.column("bid_px", out, |bar, out| push_decimal(bar.bid_px, self.px_exp, out));
        self.column("ask_px", out, |bar, out| push_decimal(bar.ask_px, self.px_exp, out));
        let holes: Vec<_> = self.found.holes.iter().map(|(from, to)| format!("[{from},{to}]")).collect();
        write!(out, r#","holes":[{}]}}"#, holes.join(",")).expect("a String takes all");
    }

    fn column(&self, name: &str, out: &mut String, push: impl Fn(&Bar, &mut String)) {
        write!(out, r#","{name}":["#).expect("a String takes all");
        for (nth, bar) in self.found.bars.iter().enumerate() {
            if nth > 0 {
                out.push(',');
            }
            push(bar, out);
        }
        out.push(']');
    }
}

fn push_decimal(mantissa: i64, exponent: i8, out: &mut String) {
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
    fn what_is_not_asked_for_has_its_default() {
        assert_eq!(parse("").unwrap(), BarQuery { interval_s: 60, limit: 1000, to_s: u32::MAX });
        assert_eq!(
            parse("interval_s=5&limit=7&to=1700000000&_=1&x").unwrap(),
            BarQuery { interval_s: 5, limit: 7, to_s: 1_700_000_000 }
        );
    }

    #[test]
    fn a_parameter_that_cannot_be_names_itself_and_what_would_be_right() {
        for (text, said) in [
            ("interval_s=0", "interval_s: \"0\" is not a whole number from 1 to 86400"),
            ("interval_s=1.5", "interval_s: \"1.5\""),
            ("interval_s=86401", "from 1 to 86400"),
            ("limit=0", "limit: \"0\" is not a whole number from 1 to 5000"),
            ("limit=5001", "limit: \"5001\""),
            ("limit=", "limit: \"\""),
            ("to=-1", "to: \"-1\" is not a whole number from 0 to 4294967295"),
            ("to=now", "to: \"now\""),
        ] {
            assert!(refusal(text).contains(said), "{text}: {}", refusal(text));
        }
    }

    #[test]
    fn a_volume_that_has_no_room_is_not_told_as_one_that_has() {
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
        let found = FoundBars { since_s: 7, bars: vec![bar], holes: vec![(1, 2)] };
        let mut text = String::from(r#"{"since":7"#);
        Columns { px_exp: -2, sz_exp: 0, found: &found }.push(&mut text);
        assert_eq!(
            text,
            r#"{"since":7,"time":[60],"open":["0.01"],"high":["0.02"],"low":["-0.01"],"close":["0.02"],"volume":[null],"#
                .to_owned()
                + r#""trades":[2],"bid_px":[null],"ask_px":["1.50"],"holes":[[1,2]]}"#
        );
    }
}
