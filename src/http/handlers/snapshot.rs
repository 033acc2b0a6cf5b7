//! `/v1/snapshot/{symbol}` and `/v1/snapshot?symbols=A,B-*`: the last values as JSON, for clients that poll. The `ETag` is
//! a hash of the records, so an unchanged snapshot is answered without writing JSON.
//!
//! Cost: proportional to the instruments and the levels of their books. What always holds: the work is done in portions
//! of some 100 us of the core, one at a time on a shard, and a response of several instruments is written in pieces of
//! some 64 KiB: what is held for a client that does not read is one piece and the list of ids. A large book is written
//! on another core.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use foldhash::quality::FixedState;
use http::header::HeaderMap;
use http::{Request, Version};
use percent_encoding::percent_decode_str;

use crate::affinity::pin_current_thread;
use crate::http::content::matches_tag;
use crate::http::portions::Portions;
use crate::http::refusal::Refusal;
use crate::http::request::quote;
use crate::http::response::{Framing, Response};
use crate::http::server::{HttpServer, ShardIo};
use crate::identity::{Principal, owner_folder};
use crate::shard::Shard;
use tickcast_protocol::control::{Pattern, parse_symbol};
use tickcast_protocol::json;
use tickcast_protocol::record::FieldSet;
use tickcast_protocol::sse;
use tickcast_protocol::{Channel, FeedState, Instrument};

/// Instruments in one response: some 350 KB of JSON and 2 ms of the core. A stream serves more.
const INSTRUMENTS_MAX: usize = 500;
/// Patterns in one request: each is matched against the whole directory, some 0.1 ms for 20,000 instruments.
const PREFIXES_MAX: usize = 10;
/// Levels of all books in one response, some 4 MiB of JSON: six books of 20,000 levels.
const LEVELS_MAX: usize = 120_000;
/// JSON that is held for a client until it has read it.
const PIECE_BYTES: usize = 64 << 10;
/// Records that are written as JSON on another core: a book of some thousand levels.
const LARGE_BYTES: usize = 32 << 10;
/// Requests of a shard whose piece is being made, or waits for that. A piece takes some 0.5 ms.
const BUILDING_MAX: usize = 64;
/// Instruments whose values cost one unit of an address's allowance.
const INSTRUMENTS_PER_UNIT: usize = 5;
/// Entries of the directory that are matched between two looks at the time.
const MATCHED_AT_ONCE: u32 = 64;
/// Channels with a last value.
const CHANNELS: [Channel; 4] = [Channel::Quote, Channel::Trade, Channel::Ticker, Channel::Book];
const CHANNELS_EXPECTED: &str = "expected quote, trade, ticker or book";

/// `/v1/snapshot/{symbol}`
pub(crate) async fn get(
    server: &HttpServer,
    principal: &Principal,
    symbol: &str,
    query: &str,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let symbol = percent_decode_str(symbol).decode_utf8_lossy();
    let seen = visible(principal, &symbol, &channels_of(query)?, server.state().delay_s());
    if seen.is_empty() {
        // Before it is looked up: a refusal does not tell whether it exists.
        return Err(denied(&symbol, "it"));
    }
    let (tag, values) = {
        let shard = server.shard.borrow();
        let instrument = shard.directory().find(&symbol).ok_or_else(|| unknown_instrument(&symbol))?;
        let mut hash = new_hash();
        hash_values(&shard, instrument.id, &seen, &mut hash);
        let tag = tag(server, &hash);
        if matches_tag(headers, &tag) {
            return Ok(tagged(Response::not_modified(), &tag));
        }
        (tag, Values::of(&shard, instrument, &seen))
    };
    let mut text = String::new();
    push_values(server, values, &mut text).await;
    Ok(tagged(Response::json(text), &tag))
}

/// The start of a response to `/v1/snapshot?symbols=…`, and the rest of its text unless that is all.
pub(crate) async fn begin(
    server: &HttpServer,
    principal: &Arc<Principal>,
    request: &Request<()>,
) -> Result<(Response, Option<SnapshotText>), Refusal> {
    let query = request.uri().query().unwrap_or_default();
    let channels = channels_of(query)?;
    let patterns = patterns_of(query, server.config().shard.symbol_bytes_max)?;
    for pattern in &patterns {
        if let Pattern::Exact(symbol) = pattern
            && visible(principal, symbol, &channels, server.state().delay_s()).is_empty()
        {
            return Err(denied(symbol, "it"));
        }
    }
    let _building = server.enter_building(BUILDING_MAX)?;
    let wanted = matching(server, principal, &patterns, &channels).await?;
    let view = View { principal: principal.clone(), channels, delay_s: server.state().delay_s() };
    let tag_before = hashed(server, &wanted, &view).await?;
    if matches_tag(request.headers(), &tag_before) {
        return Ok((tagged(Response::not_modified(), &tag_before), None));
    }
    let mut rest = SnapshotText::new(wanted, view);
    let piece = rest.next_piece(server).await;
    if let Some(hash) = rest.whole_hash() {
        // The tag is of the values as written: they may have changed since the first hash.
        return Ok((tagged(Response::json(piece), &tag(server, &hash)), None));
    }
    let framing = if request.version() < Version::HTTP_11 { Framing::Close } else { Framing::Chunked };
    // The values of later pieces may be newer than the tag. It is weak, and no later response has it: sequences only grow.
    let response = Response::json(piece).with("ETag", format!("W/\"{tag_before}\""));
    Ok((response.framed(framing), Some(rest)))
}

/// The units that the values of so many instruments cost.
pub(crate) fn units_of(instruments: usize) -> u64 {
    (instruments / INSTRUMENTS_PER_UNIT) as u64
}

/// The text of several snapshots, made in pieces.
pub(crate) struct SnapshotText {
    ids: std::iter::Peekable<std::vec::IntoIter<u32>>,
    view: View,
    hash: foldhash::quality::FoldHasher<'static>,
    instruments: usize,
    is_begun: bool,
}

impl SnapshotText {
    fn new(wanted: Vec<u32>, view: View) -> Self {
        let instruments = wanted.len();
        Self { ids: wanted.into_iter().peekable(), view, hash: new_hash(), instruments, is_begun: false }
    }

    /// Number of instruments in all.
    pub(crate) fn instruments(&self) -> usize {
        self.instruments
    }

    /// The next piece; `None` after the last.
    pub(crate) async fn next(&mut self, server: &HttpServer) -> Result<Option<String>, Refusal> {
        if self.ids.peek().is_none() {
            return Ok(None);
        }
        let _building = server.enter_building(BUILDING_MAX)?;
        Ok(Some(self.next_piece(server).await))
    }

    /// The hash of the written values, once all are written.
    fn whole_hash(&mut self) -> Option<foldhash::quality::FoldHasher<'static>> {
        self.ids.peek().is_none().then(|| self.hash.clone())
    }

    async fn next_piece(&mut self, server: &HttpServer) -> String {
        // Acquiring fails only on a closed semaphore, which this one never is.
        let _portion = server.building.acquire_permit(1).await;
        let (mut text, mut portions) = (String::new(), Portions::begin());
        if !self.is_begun {
            text.push_str(r#"{"snapshots":["#);
        }
        for id in self.ids.by_ref() {
            let values = {
                let shard = server.shard.borrow();
                // It may have been released meanwhile.
                let Some(instrument) = shard.directory().get(id) else { continue };
                let seen = self.view.of(&instrument.symbol);
                hash_values(&shard, id, &seen, &mut self.hash);
                Values::of(&shard, instrument, &seen)
            };
            if std::mem::replace(&mut self.is_begun, true) {
                text.push(',');
            }
            push_values(server, values, &mut text).await;
            if text.len() >= PIECE_BYTES {
                break;
            }
            portions.pause_if_over().await;
        }
        if self.ids.peek().is_none() {
            text.push_str("]}");
        }
        text
    }
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
async fn matching(
    server: &HttpServer,
    principal: &Principal,
    patterns: &[Pattern],
    channels: &[Channel],
) -> Result<Vec<u32>, Refusal> {
    let mut wanted = BTreeSet::new();
    let prefixes: Vec<_> = patterns.iter().filter(|pattern| matches!(pattern, Pattern::Prefix(_))).collect();
    if !prefixes.is_empty() {
        let _portion = server.building.acquire_permit(1).await;
        let mut portions = Portions::begin();
        let last = server.shard.borrow().directory().len() as u32;
        for from in (1..=last).step_by(MATCHED_AT_ONCE as usize) {
            {
                let shard = server.shard.borrow();
                let entries = (from..=last.min(from + MATCHED_AT_ONCE - 1)).filter_map(|id| shard.directory().get(id));
                let covered = entries.filter(|entry| {
                    prefixes.iter().any(|pattern| covers(principal, pattern, &entry.symbol))
                        && !visible(principal, &entry.symbol, channels, server.state().delay_s()).is_empty()
                });
                wanted.extend(covered.map(|entry| entry.id));
            }
            portions.pause_if_over().await;
        }
    }
    let shard = server.shard.borrow();
    for pattern in patterns {
        if let Pattern::Exact(symbol) = pattern {
            wanted.insert(shard.directory().find(symbol).ok_or_else(|| unknown_instrument(symbol))?.id);
        }
    }
    if wanted.len() > INSTRUMENTS_MAX { Err(too_many(wanted.len())) } else { Ok(wanted.into_iter().collect()) }
}

/// The tag of the present values. Refuses books that are too large together.
async fn hashed(server: &HttpServer, wanted: &[u32], view: &View) -> Result<String, Refusal> {
    let (mut hash, mut levels, mut portions) = (new_hash(), 0, Portions::begin());
    for id in wanted {
        {
            let shard = server.shard.borrow();
            let Some(instrument) = shard.directory().get(*id) else { continue };
            let seen = view.of(&instrument.symbol);
            hash_values(&shard, *id, &seen, &mut hash);
            let has_book = seen.channels.contains(&Channel::Book);
            let book = shard.values().row(*id).and_then(|row| row.book()).filter(|_| has_book);
            let of_each_side = seen.book_levels.map_or(usize::MAX, |levels| 2 * levels);
            levels += book.map_or(0, |book| book.levels.len().min(of_each_side));
        }
        portions.pause_if_over().await;
    }
    if levels > LEVELS_MAX { Err(too_long(levels)) } else { Ok(tag(server, &hash)) }
}

/// What a client asks for and may see.
struct View {
    principal: Arc<Principal>,
    channels: Vec<Channel>,
    delay_s: u32,
}

impl View {
    fn of(&self, symbol: &str) -> Seen {
        visible(&self.principal, symbol, &self.channels, self.delay_s)
    }
}

/// What a client may see of an instrument.
struct Seen {
    channels: Vec<Channel>,
    /// Of each side of its book; `None`: all.
    book_levels: Option<usize>,
    /// Fields that are not written.
    hidden: FieldSet,
}

impl Seen {
    fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }
}

/// What a client may see of these channels, in a market of this delay.
fn visible(principal: &Principal, symbol: &str, channels: &[Channel], delay_s: u32) -> Seen {
    let channels = channels.iter().copied().filter(|channel| principal.may_see(symbol, *channel, delay_s)).collect();
    let (book_levels, hidden) = (principal.book_levels(symbol, delay_s), principal.hidden_fields(symbol, delay_s));
    Seen { channels, book_levels, hidden }
}

/// True if a pattern covers a symbol. Only one below the folder of its user covers a private symbol.
fn covers(principal: &Principal, pattern: &Pattern, symbol: &str) -> bool {
    let is_covered = pattern.matches(symbol);
    match (owner_folder(symbol), pattern) {
        (Some(folder), Pattern::Prefix(prefix)) if !principal.rights.is_open() => {
            is_covered && prefix.starts_with(folder)
        }
        _ => is_covered,
    }
}

/// 403 for an instrument that the client has no right to, whether it exists or not.
pub(super) fn denied(symbol: &str, what: &str) -> Refusal {
    Refusal::forbidden(format!(
        "symbol: {} is not among your rights: expected a token with a right to {what}",
        quote(symbol)
    ))
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

fn too_long(levels: usize) -> Refusal {
    Refusal::bad_request(format!(
        "symbols: {levels} levels of books: expected at most {LEVELS_MAX}, fewer instruments, channels without book, or \
         /v1/stream"
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

/// Hashes the values that [`Values::push`] writes. The sequence and flags of a book, and its depth, stand for its levels.
fn hash_values(shard: &Shard<ShardIo>, id: u32, seen: &Seen, hash: &mut impl Hasher) {
    let Seen { channels, book_levels, hidden } = seen;
    (id, shard.values().status(id).state, book_levels, hidden).hash(hash);
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

/// The last values of an instrument, as records.
struct Values {
    instrument: Arc<Instrument>,
    state: FeedState,
    records: Vec<u8>,
    /// Where in `records` that of each channel is; empty if it has none.
    channels: Vec<(Channel, Range<usize>)>,
}

impl Values {
    fn of(shard: &Shard<ShardIo>, instrument: &Arc<Instrument>, seen: &Seen) -> Self {
        let (row, mut records) = (shard.values().row(instrument.id), Vec::new());
        let mut take = |channel: &Channel| {
            let start = records.len();
            row.map(|row| row.push_within(instrument.id, *channel, seen.book_levels, 0, &mut records));
            seen.hidden.hide(&mut records[start..]);
            (*channel, start..records.len())
        };
        let channels = seen.channels.iter().map(&mut take).collect();
        let state = shard.values().status(instrument.id).state;
        Self { instrument: instrument.clone(), state, records, channels }
    }

    fn push(&self, text: &mut String) {
        text.push_str(r#"{"instrument":"#);
        json::push_instrument(&self.instrument, text);
        text.push_str(&format!(r#","state":"{}""#, state_word(self.state)));
        for (channel, range) in &self.channels {
            text.push_str(&format!(r#","{}":"#, channel.name()));
            match &self.records[range.clone()] {
                [] => text.push_str("null"),
                record => json::push_record(record, &self.instrument, text),
            }
        }
        text.push('}');
    }
}

/// Appends the values as JSON; large ones are written on another core.
async fn push_values(server: &HttpServer, values: Values, text: &mut String) {
    if values.records.len() < LARGE_BYTES {
        return values.push(text);
    }
    let core = server.state().config.other_cores[0];
    let writing = glommio::executor().spawn_blocking(move || {
        pin_current_thread(core);
        let mut text = String::new();
        values.push(&mut text);
        text
    });
    text.push_str(&writing.await);
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
