//! `/v1/operator`: the state of the server for its operators. It has the metrics of `/metrics` under the same names, the
//! sources, the fill of the rings, and the slowest clients.
//!
//! It shows addresses of clients, so it needs the operator's token. Without a configured token it is served by an admin
//! listener that only this machine reaches. A connection from this machine to the public listener proves nothing: a
//! forwarder of TCP connections may run here.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::metrics;
use crate::auth::Purpose;
use crate::clock::{now_ns, wall_ns};
use crate::config::{AdminListen, Config};
use crate::http::credential::check_failures;
use crate::http::handlers::market::market_of;
use crate::http::refusal::Refusal;
use crate::http::request::bearer_token;
use crate::http::response::Response;
use crate::http::server::HttpServer;
use crate::ingest::source::{Report, Stream, StreamState};
use crate::ingest::states::{Detail, FeedStatus, SourceRow};
use crate::log;
use crate::shard::{Encoding, Format};
use crate::state::{ClientAddress, ServerState, SlowClientList, SlowClientRow};
use crate::stats::{Counter, CounterKind};
use crate::tls::ClientCertificate;

/// The view at the public listener.
pub(crate) fn get(
    server: &HttpServer,
    address: Option<ClientAddress>,
    certificate: Option<&ClientCertificate>,
    request: &http::Request<()>,
) -> Result<Response, Refusal> {
    authorize(server.state(), &server.config(), address.map(|address| address.client()), certificate, request)?;
    server.publish_counters();
    Ok(response(market_of(server.state(), request)?))
}

/// The view at the admin listener, as the shards have published it. One that only this machine reaches, because the
/// operator has chosen it so, needs no token.
pub(crate) fn get_admin(
    state: &ServerState,
    config: &Config,
    listen: &AdminListen,
    peer: Option<IpAddr>,
    request: &http::Request<()>,
) -> Result<Response, Refusal> {
    authorize_admin(state, config, listen, peer, request)?;
    Ok(response(market_of(state, request)?))
}

/// Whether a request to the admin listener is the operator's.
pub(super) fn authorize_admin(
    state: &ServerState,
    config: &Config,
    listen: &AdminListen,
    peer: Option<IpAddr>,
    request: &http::Request<()>,
) -> Result<(), Refusal> {
    let is_needed = !config.operator_tokens.is_empty() || !listen.is_local();
    if is_needed { authorize(state, config, peer, None, request) } else { Ok(()) }
}

fn response(state: &ServerState) -> Response {
    Response::json(view(state, wall_ns(), now_ns()).to_string()).no_store()
}

/// Whether a request is the operator's.
pub(super) fn authorize(
    state: &ServerState,
    config: &Config,
    client: Option<IpAddr>,
    certificate: Option<&ClientCertificate>,
    request: &http::Request<()>,
) -> Result<(), Refusal> {
    // A token that is given decides.
    if bearer_token(request).is_none() && certificate.is_some_and(|found| found.is_named(&config.operator_certificates))
    {
        return Ok(());
    }
    if config.operator_tokens.is_empty() {
        return Err(Refusal::forbidden(
            "the operator view needs --operator-token-file FILE, or --admin-listen with a loopback address or unix:PATH",
        ));
    }
    let Some(given) = bearer_token(request) else {
        return Err(Refusal::unauthorized("operator token: missing: expected Authorization: Bearer TOKEN"));
    };
    check_failures(state, client)?;
    // All are compared, whichever matches.
    if config.operator_tokens.iter().fold(false, |found, token| found | token.matches(given)) {
        return Ok(());
    }
    state.auth_failures.count(Purpose::Operator, client, now_ns());
    state.access.log_refused("operator", client, "invalid", "");
    Err(Refusal::unauthorized("operator token: wrong value"))
}

/// `wall_ns` is the time of stamps, `now_ns` that of deadlines.
fn view(state: &ServerState, wall_ns: u64, now_ns: u64) -> Value {
    let metrics = metrics::of_server(state);
    // Relaxed: the number is independent of others.
    let position = state.sequencer_stats.position.load(std::sync::atomic::Ordering::Relaxed);
    let of = |kind: CounterKind| -> Map<_, _> {
        metrics.iter().filter(|metric| metric.kind == kind).map(|m| (m.name.to_owned(), m.value.into())).collect()
    };
    let rows = state.source_rows(now_ns, wall_ns);
    let (not_ready, warnings) = state.readiness(&rows, Detail::Reason, now_ns, wall_ns);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "epoch": state.config.shard.epoch,
        "delay_s": state.delay_s(),
        "time_ns": wall_ns,
        "uptime_ms": now_ns.saturating_sub(state.started_ns) / 1_000_000,
        "not_ready": not_ready,
        "warnings": warnings,
        "sequencer": {
            "position": position,
            "levels": of(CounterKind::Level),
            "counters": of(CounterKind::Count),
        },
        "log_lines_dropped": Map::from_iter(log::dropped().map(|(cause, lines)| (cause.to_owned(), lines.into()))),
        "sources": rows.iter().map(|row| source(row, now_ns, state.market_ns(wall_ns))).collect::<Vec<_>>(),
        "shards": shards(state),
        "slow": slow(state, now_ns),
    })
}

/// A configured feed or a connected publisher.
fn source(row: &SourceRow, now_ns: u64, market_ns: u64) -> Value {
    let activity = row.activity.as_ref();
    json!({
        "source": row.id,
        "kind": row.kind.word(),
        "name": row.name,
        "identity": row.identity,
        "state": row.state,
        "problem": row.problem,
        "instruments": activity.map_or(0, |now| now.status.instruments),
        "records": activity.map_or(0, |now| now.status.records),
        "records_per_s": activity.map_or(0, |now| now.records_per_s),
        "lost": lost(row.feed.as_ref().map(|feed| &feed.report)),
        "silent_ms": activity.map(|now| market_ns.saturating_sub(now.status.last_batch_ns) / 1_000_000),
        "restarts": row.feed.as_ref().map_or(0, |feed| feed.restarts),
        "gaps": row.feed.as_ref().map_or(0, |feed| feed.gaps),
        "duplicates": row.feed.as_ref().map_or(0, |feed| feed.report.duplicates),
        "lag": row.feed.as_ref().and_then(|feed| feed.lag),
        "streams": row.feed.as_ref().map(|feed| streams(feed, now_ns)),
    })
}

/// The streams of a feed: how many there are by state, and those that are kept by name.
fn streams(feed: &FeedStatus, now_ns: u64) -> Value {
    let counts = StreamState::WORDS.into_iter().zip(feed.stream_counts);
    let counts: Map<_, _> = counts.map(|(word, count)| (word.to_owned(), count.into())).collect();
    let stream = |Stream { name, state }: &Stream| json!({ "name": name, "state": state.word(), "problem": state.problem(now_ns) });
    json!({ "counts": counts, "list": feed.streams.iter().map(stream).collect::<Vec<_>>() })
}

/// What a feed could not take, by cause; empty if it has taken all, and for publishers, which are closed instead.
fn lost(report: Option<&Report>) -> Map<String, Value> {
    let losses = report.map(Report::losses).into_iter().flatten().filter(|(_, count)| *count > 0);
    losses.map(|(cause, count)| (cause.to_owned(), count.into())).collect()
}

fn shards(state: &ServerState) -> Vec<Value> {
    let of = |shard: &crate::stats::PublishedCounters, kind: CounterKind| -> Map<_, _> {
        let all = Counter::ALL.iter().filter(|(_, _, is, _)| *is == kind);
        all.map(|(counter, name, ..)| (metrics::snake_case(name), shard.get(*counter).into())).collect()
    };
    let rows = state.shards.iter().zip(&state.config.cores).zip(state.sequencer.backlogs()).enumerate();
    rows.map(|(index, ((shard, core), (backlog_bytes, capacity_bytes)))| {
        json!({
            "shard": index,
            "core": core,
            "ring": { "backlog_bytes": backlog_bytes, "capacity_bytes": capacity_bytes },
            "levels": of(shard, CounterKind::Level),
            "counters": of(shard, CounterKind::Count),
        })
    })
    .collect()
}

/// The slowest clients of all shards, the longest behind first.
fn slow(state: &ServerState, now_ns: u64) -> Vec<Value> {
    /// The number that one shard lists.
    const SLOW_MAX: usize = 20;
    let lists: Vec<_> = state.slow_clients.iter().map(SlowClientList::get).collect();
    let mut all: Vec<_> =
        lists.iter().enumerate().flat_map(|(shard, list)| list.iter().map(move |row| (shard, row))).collect();
    all.sort_by_key(|(_, row)| row.client.since_ns);
    all.truncate(SLOW_MAX);
    let ms_since = |ns: u64| now_ns.saturating_sub(ns) / 1_000_000;
    let row = |(shard, SlowClientRow { client, address }): (usize, &SlowClientRow)| {
        json!({
            "shard": shard,
            "slot": client.slot,
            "address": address.map(|from| from.forwarded.map_or_else(|| from.socket.to_string(), |client| client.to_string())),
            "proxy": address.and_then(|from| from.forwarded.map(|_| from.socket.to_string())),
            "behind_ms": ms_since(client.since_ns),
            "nothing_taken_ms": ms_since(client.progress_ns),
            "pending_bytes": client.pending_bytes,
            "ring_bytes": client.ring_bytes,
            "blocked": client.is_blocked,
            "closing": client.is_closing,
            "items": client.items,
            "conflate_ms": client.conflate_ms,
            "encoding": encoding_text(client.encoding),
        })
    };
    all.into_iter().map(row).collect()
}

/// The encoding of a client's packets as text.
fn encoding_text(encoding: Encoding) -> &'static str {
    match (encoding.format, encoding.deflate.is_some()) {
        (Format::Binary, false) => "binary",
        (Format::Binary, true) => "binary, deflate",
        (Format::Json, false) => "json",
        (Format::Json, true) => "json, deflate",
        (Format::Events, _) => "events",
    }
}
