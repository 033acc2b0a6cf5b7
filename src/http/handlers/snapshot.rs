//! `/v1/snapshot/{symbol}` and `/v1/snapshot?symbols=A,B-*`: the last values as JSON, for clients that poll. The `ETag` is
//! a hash of the records, so an unchanged snapshot is answered without writing JSON.
//!
//! Cost: proportional to the instruments and the levels of their books. Between two instruments of one request other tasks
//! of the core may run.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::quality::FixedState;
use http::header::HeaderMap;
use percent_encoding::percent_decode_str;

use crate::http::content::matches_tag;
use crate::http::refusal::Refusal;
use crate::http::request::quote;
use crate::http::response::Response;
use crate::http::server::HttpServer;
use crate::io::uring::Uring;
use crate::shard::Shard;
use tickcast_protocol::control::{Pattern, parse_symbol};
use tickcast_protocol::json;
use tickcast_protocol::sse;
use tickcast_protocol::{Channel, FeedState, Instrument};

/// Instruments in one response: some 350 KB of JSON and 2 ms of the core. A stream serves more.
const INSTRUMENTS_MAX: usize = 500;
/// Patterns in one request: each is matched against the whole directory, some 0.1 ms for 20,000 instruments.
const PREFIXES_MAX: usize = 10;
/// JSON in one response, which is held until the client has read it: ten books of 20,000 levels.
const TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Channels with a last value.
const CHANNELS: [Channel; 4] = [Channel::Quote, Channel::Trade, Channel::Ticker, Channel::Book];
const CHANNELS_EXPECTED: &str = "expected quote, trade, ticker or book";

/// `/v1/snapshot/{symbol}`
pub(crate) fn get(server: &HttpServer, symbol: &str, query: &str, headers: &HeaderMap) -> Result<Response, Refusal> {
    let symbol = percent_decode_str(symbol).decode_utf8_lossy();
    let channels = channels_of(query)?;
    let shard = server.shard.borrow();
    let instrument = shard.directory().find(&symbol).ok_or_else(|| unknown_instrument(&symbol))?;
    let mut hash = new_hash();
    hash_values(&shard, instrument.id, &channels, &mut hash);
    let tag = tag(server, &hash);
    if matches_tag(headers, &tag) {
        return Ok(tagged(Response::not_modified(), &tag));
    }
    let mut text = String::new();
    push_values(&shard, instrument, &channels, &mut text);
    Ok(tagged(Response::json(text), &tag))
}

/// `/v1/snapshot?symbols=…`
pub(crate) async fn get_many(server: &HttpServer, query: &str, headers: &HeaderMap) -> Result<Response, Refusal> {
    let channels = channels_of(query)?;
    let wanted = matching(&server.shard.borrow(), &patterns_of(query, server.config().shard.symbol_bytes_max)?)?;
    let mut before = new_hash();
    wanted.iter().for_each(|id| hash_values(&server.shard.borrow(), *id, &channels, &mut before));
    let tag_before = tag(server, &before);
    if matches_tag(headers, &tag_before) {
        return Ok(tagged(Response::not_modified(), &tag_before));
    }
    // The tag is of the values as written: they may change while the response is being built.
    let (mut written, mut text) = (new_hash(), String::from(r#"{"snapshots":["#));
    for (nth, id) in wanted.into_iter().enumerate() {
        if nth > 0 {
            text.push(',');
            glommio::yield_if_needed().await;
        }
        let shard = server.shard.borrow();
        // It may have been released meanwhile.
        let Some(instrument) = shard.directory().get(id) else { continue };
        hash_values(&shard, id, &channels, &mut written);
        push_values(&shard, instrument, &channels, &mut text);
        if text.len() > TEXT_BYTES_MAX {
            return Err(too_long());
        }
    }
    text.push_str("]}");
    Ok(tagged(Response::json(text), &tag(server, &written)))
}

/// The elements of all lists with this name in the query; `None` if there is none.
fn list(query: &str, name: &str) -> Option<Vec<String>> {
    let mut given = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name).peekable();
    given.peek()?;
    Some(given.flat_map(|(_, list)| sse::split_list(&list)).collect())
}

fn channels_of(query: &str) -> Result<Vec<Channel>, Refusal> {
    let Some(list) = list(query, "channels") else { return Ok(CHANNELS.to_vec()) };
    let wanted = list.iter().map(|name| {
        let channel = Channel::from_name(name).filter(|channel| CHANNELS.contains(channel));
        channel.ok_or_else(|| {
            let message = format!("channels: invalid channel {}: {CHANNELS_EXPECTED}", quote(name));
            Refusal::bad_request(message)
        })
    });
    let wanted: Vec<_> = wanted.collect::<Result<_, _>>()?;
    Ok(CHANNELS.into_iter().filter(|channel| wanted.contains(channel)).collect())
}

fn patterns_of(query: &str, symbol_bytes_max: usize) -> Result<Vec<Pattern>, Refusal> {
    let Some(symbols) = list(query, "symbols") else {
        let message = "symbols: missing: expected /v1/snapshot/{symbol} or /v1/snapshot?symbols=BTC-USD,ETH-*";
        return Err(Refusal::bad_request(message));
    };
    if symbols.len() > INSTRUMENTS_MAX {
        return Err(too_many(symbols.len()));
    }
    let parse = |symbol: &str| {
        parse_symbol("symbols", symbol, symbol_bytes_max).map_err(|error| Refusal::new(400, error.code, error.message))
    };
    let patterns: Vec<_> = symbols.iter().map(|symbol| parse(symbol)).collect::<Result<_, _>>()?;
    let prefixes = patterns.iter().filter(|pattern| matches!(pattern, Pattern::Prefix(_))).count();
    if prefixes > PREFIXES_MAX {
        let message = format!("symbols: {prefixes} patterns: expected at most {PREFIXES_MAX}");
        return Err(Refusal::bad_request(message));
    }
    Ok(patterns)
}

/// The ids of the instruments that the patterns match.
fn matching(shard: &Shard<Uring>, patterns: &[Pattern]) -> Result<BTreeSet<u32>, Refusal> {
    let mut wanted = BTreeSet::new();
    let prefixes: Vec<_> = patterns.iter().filter(|pattern| matches!(pattern, Pattern::Prefix(_))).collect();
    if !prefixes.is_empty() {
        let covered =
            shard.directory().iter().filter(|entry| prefixes.iter().any(|pattern| pattern.matches(&entry.symbol)));
        wanted.extend(covered.map(|entry| entry.id));
    }
    for pattern in patterns {
        if let Pattern::Exact(symbol) = pattern {
            wanted.insert(shard.directory().find(symbol).ok_or_else(|| unknown_instrument(symbol))?.id);
        }
    }
    if wanted.len() > INSTRUMENTS_MAX { Err(too_many(wanted.len())) } else { Ok(wanted) }
}

/// 404 for an unknown instrument.
pub(super) fn unknown_instrument(symbol: &str) -> Refusal {
    Refusal::not_found(format!("symbol: unknown instrument {}: expected one of /v1/instruments", quote(symbol)))
}

fn too_many(instruments: usize) -> Refusal {
    Refusal::bad_request(format!(
        "symbols: {instruments} instruments: expected at most {INSTRUMENTS_MAX}, or /v1/stream, which has no such limit"
    ))
}

fn too_long() -> Refusal {
    let bytes = TEXT_BYTES_MAX / (1024 * 1024);
    Refusal::bad_request(format!(
        "symbols: more than {bytes} MiB of JSON: expected fewer instruments, channels without book, or /v1/stream"
    ))
}

fn new_hash() -> foldhash::quality::FoldHasher<'static> {
    FixedState::with_seed(0).build_hasher()
}

/// The tag of the hashed values. It differs also where values changed without a new sequence: a trade that was completed,
/// a book that waits for its snapshot.
fn tag(server: &HttpServer, hash: &impl Hasher) -> String {
    format!("{:x}-{:016x}", server.state().config.shard.epoch, hash.finish())
}

fn tagged(response: Response, tag: &str) -> Response {
    response.with("ETag", format!("\"{tag}\""))
}

/// Hashes the values that [`push_values`] writes. The sequence and flags of a book stand for its levels.
fn hash_values(shard: &Shard<Uring>, id: u32, channels: &[Channel], hash: &mut impl Hasher) {
    (id, shard.values().status(id).state).hash(hash);
    let row = shard.values().row(id);
    let mut record = Vec::new();
    for channel in channels {
        if *channel == Channel::Book {
            let head = row.and_then(|row| Some((row.sequence(Channel::Book), row.book()?)));
            head.map(|(sequence, book)| (sequence, book.flags, book.ts_event, book.ts_recv)).hash(hash);
            continue;
        }
        record.clear();
        row.map(|row| row.push(id, *channel, 0, &mut record)).hash(hash);
        (channel.name(), &record).hash(hash);
    }
}

fn push_values(shard: &Shard<Uring>, instrument: &Instrument, channels: &[Channel], text: &mut String) {
    text.push_str(r#"{"instrument":"#);
    json::push_instrument(instrument, text);
    text.push_str(&format!(r#","state":"{}""#, state_word(shard.values().status(instrument.id).state)));
    let mut record = Vec::new();
    for channel in channels {
        text.push_str(&format!(r#","{}":"#, channel.name()));
        record.clear();
        let row = shard.values().row(instrument.id);
        if row.is_some_and(|row| row.push(instrument.id, *channel, 0, &mut record)) {
            json::push_record(&record, instrument, text);
        } else {
            text.push_str("null");
        }
    }
    text.push('}');
}

/// The JSON word of an instrument's state.
fn state_word(state: FeedState) -> &'static str {
    match state {
        FeedState::Stale => "stale",
        FeedState::Halted => "halted",
        FeedState::Ended => "ended",
        FeedState::Released => "released",
        FeedState::Live | FeedState::Other(_) => "live",
    }
}
