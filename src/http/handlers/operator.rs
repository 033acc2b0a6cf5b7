//! `/v1/operator`: the server as those see it who run it. The numbers are those of `/metrics`, by the same names; beside
//! them stand who is slow, and how full the rings are.
//!
//! It tells the addresses of clients, so that not everybody may look: who has the operator's token, or, where there is
//! none, who connects from this very machine, without a proxy between.

use std::net::SocketAddr;

use http::header::HOST;
use serde_json::{Map, Value, json};

use super::metrics;
use crate::config::Config;
use crate::http::handshake::Refusal;
use crate::http::response::{Response, bearer, forbidden, unauthorized};
use crate::http::server::HttpServer;
use crate::sequencer::SourceId;
use crate::shard::{Encoding, Format};
use crate::state::{ServerState, Slow, SlowList};
use crate::stats::{Counter, CounterKind};

/// What proxies add to a request that they pass on. Who came through one is not on this machine, whatever its socket says.
const PROXY_HEADERS: [&str; 6] =
    ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];

/// The answer, if this peer may have it.
pub(crate) fn answer(
    server: &HttpServer,
    request: &http::Request<()>,
    from: Option<SocketAddr>,
) -> Result<Response, Refusal> {
    authorize(&server.config(), request, from)?;
    server.show();
    Ok(Response::json(view(&server.state, crate::clock::now_ns()).to_string()).unstored())
}

fn authorize(config: &Config, request: &http::Request<()>, from: Option<SocketAddr>) -> Result<(), Refusal> {
    if let Some(token) = &config.operator_token {
        return match bearer(request) {
            None => Err(unauthorized("the operator's token is wanted: Authorization: Bearer TOKEN")),
            Some(given) if constant_time_eq::constant_time_eq(given, token.as_bytes()) => Ok(()),
            Some(_) => Err(unauthorized("this is not the operator's token")),
        };
    }
    let is_direct = !PROXY_HEADERS.iter().any(|name| request.headers().contains_key(*name));
    let is_near = from.is_some_and(|from| from.ip().to_canonical().is_loopback());
    if is_near && is_direct && names_this_machine(request) {
        return Ok(());
    }
    Err(forbidden(
        "without --operator-token TOKEN the operator's view is for this machine alone: connect to a loopback address, \
         by its number or as localhost, and not through a proxy",
    ))
}

/// A page of somebody else's whose name was made to lead here is no operator, though its browser is on this machine.
fn names_this_machine(request: &http::Request<()>) -> bool {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |address: std::net::IpAddr| address.to_canonical().is_loopback();
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(is_loopback)
}

fn view(public: &ServerState, now_ns: u64) -> Value {
    let numbers = metrics::numbers(public);
    // Relaxed: the number stands for itself.
    let position = public.sequencer_stats.position.load(std::sync::atomic::Ordering::Relaxed);
    let of = |kind: CounterKind| -> Map<_, _> {
        numbers.iter().filter(|number| number.kind == kind).map(|n| (n.name.to_owned(), n.value.into())).collect()
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "epoch": public.config.shard.epoch,
        "time_ns": now_ns,
        "uptime_ms": now_ns.saturating_sub(public.started_ns) / 1_000_000,
        "not_ready": public.lifecycle.not_ready(),
        "sequencer": {
            "position": position,
            "levels": of(CounterKind::Level),
            "counters": of(CounterKind::Count),
        },
        "sources": sources(public, now_ns),
        "shards": shards(public),
        "slow": slow(public, now_ns),
    })
}

/// The feeds as they were asked for, and the publishers that are connected.
fn sources(public: &ServerState, now_ns: u64) -> Vec<Value> {
    let there = public.sequencer.sources();
    let row = |id: SourceId, kind: &str, name: Option<String>| {
        let now = there.binary_search_by_key(&id, |now| now.row.id).ok().map(|at| &there[at]);
        // A feed that is not there has ended or died; a publisher has just come, and has said nothing yet.
        let absent = if kind == "feed" { "gone" } else { "new" };
        let state = now.map_or(absent, |now| if now.row.is_silent { "stale" } else { "live" });
        json!({
            "source": id,
            "kind": kind,
            "name": name,
            "state": state,
            "instruments": now.map_or(0, |now| now.row.instruments),
            "records": now.map_or(0, |now| now.row.records),
            "records_per_s": now.map_or(0, |now| now.records_per_s),
            "silent_ms": now.map(|now| now_ns.saturating_sub(now.row.last_batch_ns) / 1_000_000),
        })
    };
    let feeds = public.config.feed_texts.iter().enumerate().filter(|(_, text)| *text != "none");
    let feeds = feeds.map(|(nth, text)| row(nth as SourceId, "feed", Some(text.clone())));
    let connected = public.publishers.addresses().into_iter();
    feeds.chain(connected.map(|(id, from)| row(id, "publisher", from.map(|from| from.to_string())))).collect()
}

fn shards(public: &ServerState) -> Vec<Value> {
    let of = |shard: &crate::stats::PublishedCounters, kind: CounterKind| -> Map<_, _> {
        let all = Counter::ALL.iter().filter(|(_, _, is, _)| *is == kind);
        all.map(|(counter, name, ..)| (metrics::snake_case(name), shard.get(*counter).into())).collect()
    };
    let rows = public.shards.iter().zip(&public.config.cores).zip(public.sequencer.backlogs()).enumerate();
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

/// The slowest of all shards, the longest behind first.
fn slow(public: &ServerState, now_ns: u64) -> Vec<Value> {
    /// As many as one shard lists.
    const SLOW_MAX: usize = 20;
    let lists: Vec<_> = public.slow.iter().map(SlowList::get).collect();
    let mut all: Vec<_> =
        lists.iter().enumerate().flat_map(|(shard, list)| list.iter().map(move |slow| (shard, slow))).collect();
    all.sort_by_key(|(_, slow)| slow.client.since_ns);
    all.truncate(SLOW_MAX);
    let ms_since = |ns: u64| now_ns.saturating_sub(ns) / 1_000_000;
    let row = |(shard, Slow { client, who }): (usize, &Slow)| {
        json!({
            "shard": shard,
            "slot": client.slot,
            "address": who.map(|who| who.client.map_or_else(|| who.socket.to_string(), |client| client.to_string())),
            "proxy": who.and_then(|who| who.client.map(|_| who.socket.to_string())),
            "behind_ms": ms_since(client.since_ns),
            "nothing_taken_ms": ms_since(client.progress_ns),
            "pending_bytes": client.pending_bytes,
            "ring_bytes": client.ring_bytes,
            "blocked": client.is_blocked,
            "closing": client.is_closing,
            "items": client.items,
            "conflate_ms": client.conflate_ms,
            "encoding": encoding_words(client.encoding),
        })
    };
    all.into_iter().map(row).collect()
}

/// How a client's packets are written, in words.
fn encoding_words(encoding: Encoding) -> &'static str {
    match (encoding.format, encoding.deflate.is_some()) {
        (Format::Binary, false) => "binary",
        (Format::Binary, true) => "binary, deflate",
        (Format::Json, false) => "json",
        (Format::Json, true) => "json, deflate",
        (Format::Events, _) => "events",
    }
}
