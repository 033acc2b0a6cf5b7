//! `/v1/snapshot/{symbol}` and `/v1/snapshot?symbols=A,B-*`: the last values as JSON, for who polls. Their tag is made
//! from the records before a word of JSON is written.
//!
//! Cost: it grows with the instruments and with the levels of their books. Where several are asked for, everybody else on
//! the core has a turn between two of them.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::quality::FixedState;
use http::header::HeaderMap;
use percent_encoding::percent_decode_str;

use crate::http::content::has;
use crate::http::handshake::Refusal;
use crate::http::response::{Response, bad_request, not_found, shown};
use crate::http::server::HttpServer;
use crate::io::uring::Uring;
use crate::shard::Shard;
use tickcast_protocol::control::Pattern;
use tickcast_protocol::json;
use tickcast_protocol::{Channel, FeedState, Instrument};

/// Instruments in one answer: some 350 KB of JSON, and 2 ms of the core in all. More are better off with a stream.
const INSTRUMENTS_MAX: usize = 500;
/// Patterns in one request: each is held against the whole directory, some 0.1 ms where that has 20,000 instruments.
const PREFIXES_MAX: usize = 10;
/// JSON in one answer: it is made for one reader, and held until that one has read it. Ten books of 20,000 levels.
const TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What has a last value.
const CHANNELS: [Channel; 4] = [Channel::Quote, Channel::Trade, Channel::Ticker, Channel::Book];
const CHANNELS_WANTED: &str = "have quote, trade, ticker, book";

/// The answer to `/v1/snapshot/{symbol}`.
pub(crate) fn one(server: &HttpServer, symbol: &str, query: &str, headers: &HeaderMap) -> Result<Response, Refusal> {
    let symbol = percent_decode_str(symbol).decode_utf8_lossy();
    let channels = channels_of(query)?;
    let shard = server.shard.borrow();
    let instrument = shard.directory().find(&symbol).ok_or_else(|| unknown(&symbol))?;
    let mut seen = seen();
    hash_values(&shard, instrument.id, &channels, &mut seen);
    let tag = tag(server, &seen);
    if has(headers, &tag) {
        return Ok(tagged(Response::not_modified(), &tag));
    }
    let mut text = String::new();
    push_values(&shard, instrument, &channels, &mut text);
    Ok(tagged(Response::json(text), &tag))
}

/// The answer to `/v1/snapshot?symbols=…`.
pub(crate) async fn several(server: &HttpServer, query: &str, headers: &HeaderMap) -> Result<Response, Refusal> {
    let channels = channels_of(query)?;
    let wanted = wanted(&server.shard.borrow(), &patterns_of(query)?)?;
    let mut before = seen();
    wanted.iter().for_each(|id| hash_values(&server.shard.borrow(), *id, &channels, &mut before));
    let tag_before = tag(server, &before);
    if has(headers, &tag_before) {
        return Ok(tagged(Response::not_modified(), &tag_before));
    }
    // The tag that is sent is that of the values as they are written: others may come in between.
    let (mut written, mut text) = (seen(), String::from(r#"{"snapshots":["#));
    for (nth, id) in wanted.into_iter().enumerate() {
        if nth > 0 {
            text.push(',');
            glommio::yield_if_needed().await;
        }
        let shard = server.shard.borrow();
        // An instrument is never removed.
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

/// The entries of a list in the query; where it is given more than once, those of all. `None` where it is not there. As
/// with `/v1/sse`, it is cut after it is decoded: what makes URLs writes a comma as `%2C`.
fn list(query: &str, name: &str) -> Option<Vec<String>> {
    let mut given = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name).peekable();
    given.peek()?;
    Some(given.flat_map(|(_, list)| list.split(',').map(str::to_owned).collect::<Vec<_>>()).collect())
}

fn channels_of(query: &str) -> Result<Vec<Channel>, Refusal> {
    let Some(list) = list(query, "channels") else { return Ok(CHANNELS.to_vec()) };
    let wanted = list.iter().map(|name| {
        let channel = Channel::from_name(name).filter(|channel| CHANNELS.contains(channel));
        channel.ok_or_else(|| bad_request(format!("channels: no last value of {:?}; {CHANNELS_WANTED}", shown(name))))
    });
    let wanted: Vec<_> = wanted.collect::<Result<_, _>>()?;
    Ok(CHANNELS.into_iter().filter(|channel| wanted.contains(channel)).collect())
}

fn patterns_of(query: &str) -> Result<Vec<Pattern>, Refusal> {
    let Some(symbols) = list(query, "symbols") else {
        let message = "symbols: missing; want /v1/snapshot/{symbol}, or /v1/snapshot?symbols=BTC-USD,ETH-*";
        return Err(bad_request(message.to_owned()));
    };
    if symbols.len() > INSTRUMENTS_MAX {
        return Err(too_many(symbols.len()));
    }
    let parse = |symbol: &str| {
        Pattern::parse(symbol).map_err(|problem| bad_request(format!("symbols: {:?} {problem}", shown(symbol))))
    };
    let patterns: Vec<_> = symbols.iter().map(|symbol| parse(symbol)).collect::<Result<_, _>>()?;
    let prefixes = patterns.iter().filter(|pattern| matches!(pattern, Pattern::Prefix(_))).count();
    if prefixes > PREFIXES_MAX {
        let message = format!("symbols: these are {prefixes} patterns; {PREFIXES_MAX} at the most in one request");
        return Err(bad_request(message));
    }
    Ok(patterns)
}

/// Who is meant, each once, in the order of their ids.
fn wanted(shard: &Shard<Uring>, patterns: &[Pattern]) -> Result<BTreeSet<u32>, Refusal> {
    let mut wanted = BTreeSet::new();
    let prefixes: Vec<_> = patterns.iter().filter(|pattern| matches!(pattern, Pattern::Prefix(_))).collect();
    if !prefixes.is_empty() {
        let covered =
            shard.directory().iter().filter(|entry| prefixes.iter().any(|pattern| pattern.matches(&entry.symbol)));
        wanted.extend(covered.map(|entry| entry.id));
    }
    for pattern in patterns {
        if let Pattern::Exact(symbol) = pattern {
            wanted.insert(shard.directory().find(symbol).ok_or_else(|| unknown(symbol))?.id);
        }
    }
    if wanted.len() > INSTRUMENTS_MAX { Err(too_many(wanted.len())) } else { Ok(wanted) }
}

/// 404: no such instrument.
pub(crate) fn unknown(symbol: &str) -> Refusal {
    not_found(format!("no instrument has the symbol {:?}; /v1/instruments lists them", shown(symbol)))
}

fn too_many(instruments: usize) -> Refusal {
    let most = format!("{INSTRUMENTS_MAX} at the most in one answer; /v1/stream has no such limit");
    bad_request(format!("symbols: these are {instruments} instruments; {most}"))
}

fn too_long() -> Refusal {
    let bytes = TEXT_BYTES_MAX / (1024 * 1024);
    bad_request(format!(
        "symbols: more than {bytes} MiB of JSON; ask for fewer, or without channels=book, or for the stream"
    ))
}

fn seen() -> foldhash::quality::FoldHasher<'static> {
    FixedState::with_seed(0).build_hasher()
}

/// Another one for other values, also where the same sequence has others: a trade that was filled in, a book that waits to
/// be whole.
fn tag(server: &HttpServer, seen: &impl Hasher) -> String {
    format!("{:x}-{:016x}", server.state.config.shard.epoch, seen.finish())
}

fn tagged(response: Response, tag: &str) -> Response {
    response.with("ETag", format!("\"{tag}\""))
}

/// Takes in what [`push_values`] would write, without the levels of the book: its sequence and its flags stand for them.
fn hash_values(shard: &Shard<Uring>, id: u32, channels: &[Channel], seen: &mut impl Hasher) {
    (id, shard.values().status(id).state).hash(seen);
    let row = shard.values().row(id);
    let mut record = Vec::new();
    for channel in channels {
        if *channel == Channel::Book {
            let head = row.and_then(|row| Some((row.sequence(Channel::Book), row.book()?)));
            head.map(|(sequence, book)| (sequence, book.flags, book.ts_event, book.ts_recv)).hash(seen);
            continue;
        }
        record.clear();
        row.map(|row| row.push(id, *channel, 0, &mut record)).hash(seen);
        (channel.name(), &record).hash(seen);
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

/// The word for the state of a feed or an instrument.
fn state_word(state: FeedState) -> &'static str {
    match state {
        FeedState::Stale => "stale",
        FeedState::Halted => "halted",
        FeedState::Ended => "ended",
        FeedState::Live | FeedState::Other(_) => "live",
    }
}
