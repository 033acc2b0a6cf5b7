//! The paths that are answered at once: pages, the directory, last values, health, metrics.

use http::Method;

use super::http::{Response, not_found, unavailable};
use super::{Door, metrics};
use crate::market::Channel;
use crate::wire::json;
use crate::ws::handshake::Refusal;

const JSON: &str = "application/json";
const PATHS: &str = "/, /v1/stream, /v1/publish, /v1/instruments, /v1/snapshot/{symbol}, /metrics, /healthz, /readyz";

/// The answer to a request that is no upgrade.
pub(super) fn answer(door: &Door, request: &http::Request<()>) -> Result<Response, Refusal> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let message = format!("method {} is not served; have GET, HEAD", request.method());
        let headers = vec![("Allow", "GET, HEAD".to_owned())];
        return Err(Refusal { status: 405, code: "method_not_allowed", message, headers });
    }
    let path = request.uri().path();
    let mut response = match door.public.pages.find(path, request.headers()) {
        Some(page) => page,
        None => answer_get(door, path)?,
    };
    response.headers_only = request.method() == Method::HEAD;
    Ok(response)
}

fn answer_get(door: &Door, path: &str) -> Result<Response, Refusal> {
    match path {
        "/v1/instruments" => Ok(Response::new(JSON, instruments(door))),
        "/metrics" => {
            door.show();
            Ok(Response::new(metrics::CONTENT_TYPE, metrics::render(&door.public)).unstored())
        }
        "/healthz" => Ok(Response::new(JSON, r#"{"status":"ok"}"#).unstored()),
        "/readyz" => match door.public.life.not_ready() {
            Some(why) => Err(unavailable(&why)),
            None => Ok(Response::new(JSON, r#"{"status":"ready"}"#).unstored()),
        },
        _ => match path.strip_prefix("/v1/snapshot/") {
            Some(symbol) => snapshot(door, symbol),
            None => Err(not_found(format!("nothing is at {}; have {PATHS}", shown(path)))),
        },
    }
}

fn instruments(door: &Door) -> String {
    let shard = door.shard.borrow();
    let mut text = String::from(r#"{"instruments":["#);
    for (nth, instrument) in shard.directory().iter().enumerate() {
        if nth > 0 {
            text.push(',');
        }
        json::push_instrument(instrument, &mut text);
    }
    text.push_str("]}");
    text
}

fn snapshot(door: &Door, symbol: &str) -> Result<Response, Refusal> {
    let symbol = percent_encoding::percent_decode_str(symbol).decode_utf8_lossy();
    let shard = door.shard.borrow();
    let Some(instrument) = shard.directory().find(&symbol) else {
        let message = format!("no instrument has the symbol {:?}; /v1/instruments lists them", shown(&symbol));
        return Err(not_found(message));
    };
    let mut text = String::from(r#"{"instrument":"#);
    json::push_instrument(instrument, &mut text);
    text.push_str(&format!(r#","state":"{}""#, state_word(shard.values().status(instrument.id).state)));
    let mut record = Vec::new();
    for channel in [Channel::Quote, Channel::Trade, Channel::Ticker, Channel::Book] {
        text.push_str(&format!(r#","{}":"#, channel.name()));
        record.clear();
        let row = shard.values().row(instrument.id);
        if row.is_some_and(|row| row.push(instrument.id, channel, 0, &mut record)) {
            json::push_record(&record, instrument, &mut text);
        } else {
            text.push_str("null");
        }
    }
    text.push('}');
    Ok(Response::new(JSON, text))
}

/// The word for the state of a feed or an instrument.
fn state_word(state: u8) -> &'static str {
    match state {
        b'S' => "stale",
        b'H' => "halted",
        b'E' => "ended",
        _ => "live",
    }
}

/// A peer's text, short enough to be repeated.
fn shown(text: &str) -> &str {
    /// Enough to recognise what was asked.
    const BYTES_MAX: usize = 80;
    &text[..text.floor_char_boundary(BYTES_MAX)]
}
