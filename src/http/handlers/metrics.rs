//! `/metrics`: the counters of all shards and of the whole server, in the OpenMetrics text format.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::access::{AuthorizerCounts, Cause};
use crate::auth::Purpose;
use crate::clock::{self, now_ns, wall_ns};
use crate::http::handlers::market::market_of;
use crate::http::refusal::Refusal;
use crate::http::response::Response;
use crate::http::server::HttpServer;
use crate::ingest::delay::Spool;
use crate::ingest::source::{Stream, StreamState};
use crate::ingest::states::{FeedStatus, SourceRow};
use crate::log;
use crate::memory;
use crate::state::ServerState;
use crate::stats::{Counter, CounterKind, PublishedCounters};
use crate::tls::CertificateExpiry;
use crate::usage::UsageCounts;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One metric of the whole server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: CounterKind,
    pub(super) value: i64,
}

/// The metrics as last published.
pub(crate) fn get(server: &HttpServer, request: &http::Request<()>) -> Result<Response, Refusal> {
    server.publish_counters();
    Ok(response(market_of(server.state(), request)?))
}

/// The metrics as the shards have published them.
pub(crate) fn response(state: &ServerState) -> Response {
    let mut registry = Registry::with_prefix("tickcast");
    let of_server = of_server(state);
    registry.register_collector(Box::new(Metrics {
        shards: state.shards.clone(),
        of_server,
        sources: state.source_rows(now_ns(), wall_ns()),
        certificates: state.tls.as_ref().map_or_else(Vec::new, |tls| tls.expiries()),
    }));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("writing to a String cannot fail");
    Response::new(CONTENT_TYPE, text).no_store()
}

/// The metrics of the whole server: sequencer, publishers, bars, clock.
pub(super) fn of_server(state: &ServerState) -> Vec<Metric> {
    let mut metrics = of_sequencer(state);
    metrics.extend(of_publishers(state));
    metrics.extend(of_access(state));
    metrics.extend(of_authorizer(state));
    metrics.extend(of_sessions(state));
    metrics.extend(of_spool(state));
    metrics.extend(of_bars_and_clock(state));
    metrics.push(count(
        "tls_certificate_reload_failures",
        state.tls.as_ref().map_or(0, |tls| tls.reload_failures()),
        "Times that certificates were read again and could not be used, so that the old ones stay",
    ));
    metrics
}

fn count(name: &'static str, value: u64, help: &'static str) -> Metric {
    Metric { name, help, kind: CounterKind::Count, value: value as i64 }
}

fn level(name: &'static str, value: u64, help: &'static str) -> Metric {
    Metric { name, help, kind: CounterKind::Level, value: value as i64 }
}

fn of_spool(state: &ServerState) -> Vec<Metric> {
    let of = |number: fn(&Spool) -> u64| state.spool.as_deref().map_or(0, number);
    vec![
        level("spool_bytes", of(Spool::bytes), "Bytes of the records that wait for the delayed markets"),
        count("spool_records", of(Spool::records), "Records that were written for the delayed markets"),
        count(
            "spool_records_lost",
            of(Spool::records_lost),
            "Records that the delayed markets miss, since the disk failed, was too slow or spool_bytes_max was reached",
        ),
        count("spool_failures", of(Spool::failures), "Times that the disk of the spool has refused something"),
    ]
}

fn of_sequencer(state: &ServerState) -> Vec<Metric> {
    let sequencer = &state.sequencer_stats;
    // Relaxed: each number is independent of the others.
    let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
    vec![
        count("sequencer_records", get(&sequencer.records), "Records sequenced"),
        count(
            "sequencer_undefined",
            get(&sequencer.undefined),
            "Records of instruments that their source had not defined",
        ),
        count("sequencer_refused", get(&sequencer.refused), "Definitions refused"),
        count("sequencer_redefined", get(&sequencer.redefined), "Definitions that changed an instrument"),
        count("sequencer_released", get(&sequencer.released), "Ended instruments released to make room for others"),
        count(
            "sequencer_books_refused",
            get(&sequencer.books_refused),
            "Book records refused because the book would have had too many levels: book_levels_max",
        ),
        count(
            "sequencer_standby",
            get(&sequencer.standby),
            "Records of standby publishers, left out while a publisher of a better priority is live",
        ),
        count(
            "sequencer_gaps_refused",
            get(&sequencer.gaps_refused),
            "Gap records refused because they would have skipped more sequences than they may",
        ),
        count(
            "sequencer_expired",
            get(&sequencer.expired),
            "Instruments that ended because their source was lost for longer than instrument_expire_ms",
        ),
        count("sequencer_resyncs", get(&sequencer.resyncs), "Times the whole state was sent again to an overrun shard"),
        count("sequencer_lost", get(&sequencer.lost), "Records of log channels that sources have said to have lost"),
        count("source_silences", get(&sequencer.silences), "Times a source fell silent for longer than stale_ms"),
        count("source_losses", get(&sequencer.losses), "Feeds that died and publishers that went without a close"),
        level("sources", get(&sequencer.sources), "Feeds and publishers that have instruments and are not silent"),
        level("stale_instruments", get(&sequencer.stale), "Instruments whose values are stale or ended"),
    ]
}

fn of_publishers(state: &ServerState) -> Vec<Metric> {
    let publishers = &state.publishers;
    vec![
        level("publishers", publishers.connected().into(), "Connected publishers"),
        count(
            "publishers_refused",
            publishers.refused(),
            "Publishers refused with 503 because as many were connected: publishers_max",
        ),
        count(
            "publisher_definitions_refused",
            publishers.definitions_refused(),
            "Requests to define instruments refused because of a limit: publisher_instruments_max and others",
        ),
        count(
            "publishers_withdrawn",
            publishers.withdrawn(),
            "Publishers that were closed because a reload withdrew their token",
        ),
        count("publish_auth_failures", state.auth_failures.failures(Purpose::Publish), "Wrong tokens of publishers"),
        count(
            "subscriber_auth_failures",
            state.auth_failures.failures(Purpose::Subscribe),
            "Wrong tokens of subscribers",
        ),
        count("operator_auth_failures", state.auth_failures.failures(Purpose::Operator), "Wrong tokens of operators"),
        count(
            "auth_refused",
            state.auth_failures.refused(),
            "Tokens refused with 429 because their address had presented too many wrong ones",
        ),
        count(
            "rings_left_behind",
            state.sequencer.rings_left_behind(),
            "Times that publishers stopped waiting for a shard whose ring stayed full",
        ),
        count(
            "publishers_slowed_ms",
            publishers.slowed().as_millis() as u64,
            "Time that publishers had to wait because they were faster than they may be: publish_records_per_s and others",
        ),
    ]
}

fn of_access(state: &ServerState) -> Vec<Metric> {
    let access = &state.access;
    let (fetches, failed) = access.fetches();
    let ((kept, reused), (sets, bytes)) = (access.kept_tokens(), access.rights_sets());
    let refused = |cause: Cause| access.denied().find(|(of, _)| *of == cause).map_or(0, |(_, number)| number);
    vec![
        count("credentials_accepted", access.accepted(), "Tokens and API keys of subscribers that were accepted"),
        count("credentials_too_long", refused(Cause::TooLong), "Tokens refused because they were too long"),
        count(
            "credentials_invalid",
            refused(Cause::Invalid),
            "Tokens and API keys refused because they were not valid",
        ),
        count("credentials_expired", refused(Cause::Expired), "Tokens refused because they had expired"),
        count("credentials_revoked", refused(Cause::Revoked), "Tokens and API keys refused because they were revoked"),
        count("credentials_rights", refused(Cause::Rights), "Tokens refused because their rights were not understood"),
        count(
            "credentials_unavailable",
            refused(Cause::Unavailable),
            "Tokens refused because the keys of their issuer were not known: jwks_stale_max_s",
        ),
        count(
            "credentials_full",
            refused(Cause::Full),
            "Tokens refused because their rights were one set too many: entitlement_sets_max",
        ),
        count(
            "credentials_forbidden",
            refused(Cause::Forbidden),
            "Tokens refused because the authorizer has answered 403",
        ),
        count(
            "credentials_late",
            refused(Cause::Late),
            "Tokens refused because the authorizer did not answer in time: authorizer_timeout_ms",
        ),
        count(
            "credentials_unchecked",
            refused(Cause::Unchecked),
            "Tokens refused because the authorizer was not reached, or its answer was none",
        ),
        count(
            "credentials_busy",
            refused(Cause::Busy),
            "Tokens refused because too many requests to the authorizer were under way: authorizer_requests_max",
        ),
        count("credentials_reused", reused, "Tokens accepted without a verification: accepted_tokens_max"),
        level("credentials_kept", kept as u64, "Accepted tokens that are not verified again"),
        level("entitlement_sets", sets as u64, "Different rights of tokens: entitlement_sets_max"),
        level("entitlement_bytes", bytes as u64, "Memory of their rules"),
        level(
            "credentials_review_ms",
            access.reviewed_ns_max().div_ceil(1_000_000),
            "Longest time from a revocation or a reload until a shard had asked about all its clients, in ms",
        ),
        count("jwks_fetches", fetches, "Times the keys of an issuer were fetched"),
        count("jwks_fetches_failed", failed, "Of those, times they could not be read"),
        level(
            "issuers_without_keys",
            access.without_keys(now_ns()).len() as u64,
            "Issuers whose tokens are refused now",
        ),
        level("revocations", access.revoked().entries().len() as u64, "Tokens and users that are revoked"),
    ]
}

fn of_authorizer(state: &ServerState) -> Vec<Metric> {
    let AuthorizerCounts { requests, late, unreachable, invalid, cached, joined, latency_us, kept, under_way } =
        state.access.authorizer_counts();
    vec![
        count("authorizer_requests", requests, "Requests to the authorizer that have ended"),
        count("authorizer_late", late, "Of those, without an answer in time: authorizer_timeout_ms"),
        count("authorizer_unreachable", unreachable, "Of those, ones that did not reach it"),
        count("authorizer_invalid", invalid, "Of those, with an answer that was none or was not understood"),
        count("authorizer_latency_us", latency_us, "Time from all requests to their answers, us"),
        level("authorizer_under_way", under_way, "Requests to the authorizer under way: authorizer_requests_max"),
        count("authorizer_joined", joined, "Tokens that waited for a request which was under way"),
        count("authorizer_cached", cached, "Tokens for which the answer was there: authorizer_cache_s"),
        level("authorizer_kept", kept, "Answers that are used again"),
    ]
}

fn of_sessions(state: &ServerState) -> Vec<Metric> {
    let (sessions, usage) = (state.access.sessions(), state.access.usage());
    let (open, users) = sessions.open();
    let (ended, refused) = sessions.limited();
    let UsageCounts { lines, dropped, lost, suppressed, failed_syncs } = usage.counts();
    vec![
        level("sessions", open, "Sessions: connections of users, without anonymous ones"),
        level("session_users", users, "Users who have a session"),
        count(
            "sessions_ended",
            ended,
            "Sessions that ended in favour of a newer one of their user: sessions_per_user_max, max_connections",
        ),
        count(
            "sessions_refused",
            refused,
            "Sessions refused because their user had as many as it may: session_policy refuse_new",
        ),
        count("usage_lines", lines, "Lines written to the usage log: usage_dir"),
        count("usage_dropped", dropped, "Events that are not in the usage log because its thread was behind"),
        count("usage_lost", lost, "Lines that could not be written to the usage log"),
        count(
            "usage_suppressed",
            suppressed,
            "Security events without a line of their own, because there were too many of their kind in a second",
        ),
        count("usage_syncs_failed", failed_syncs, "Times that the usage log could not be synced to the disk"),
    ]
}

fn of_bars_and_clock(state: &ServerState) -> Vec<Metric> {
    let bars = state.bars.as_deref();
    let archive = state.archive.as_ref().map(|archive| archive.counts()).unwrap_or_default();
    vec![
        level("bars_bytes", bars.map_or(0, |bars| bars.bytes()), "Memory of the bars: bars_bytes"),
        count(
            "bars_records_lost",
            bars.map_or(0, |bars| bars.records_lost()),
            "Trades and quotes that came faster than they became bars, and are missing from them",
        ),
        level("archive_bytes", archive.bytes, "Bytes of the file of the archive: archive_dir"),
        count("archive_bars_written", archive.written, "Bars written to the archive"),
        count("archive_bars_lost", archive.lost, "Bars that could not be kept until they could be written"),
        count(
            "archive_trades_lost",
            archive.trades_lost,
            "Trades of released instruments that could not be kept until they could be written",
        ),
        count("archive_failures", archive.failures, "Times that the file of the archive could not be read or written"),
        level(
            "trades_bytes",
            bars.and_then(|bars| bars.trades()).map_or(0, |trades| trades.bytes()),
            "Memory of the newest trades: trades_bytes",
        ),
        level(
            "tickers_bytes",
            bars.and_then(|bars| bars.tickers()).map_or(0, |tickers| tickers.bytes()),
            "Memory of what tickers are computed from: an eighth of bars_bytes",
        ),
        count(
            "tickers_computed",
            bars.and_then(|bars| bars.tickers()).map_or(0, |tickers| tickers.sequenced()),
            "Tickers that were computed of instruments whose source sends none",
        ),
        count("allocation_failures", memory::failures(), "Allocations that found no memory at first"),
        count("clock_pauses", clock::pauses().0, "Times the process did not run for more than a second"),
        count(
            "clock_paused_ms",
            clock::pauses().1.as_millis() as u64,
            "Time in which the process did not run, which no deadline counts, in ms",
        ),
        count("clock_steps", clock::steps(), "Times the wall clock was set by more than a second"),
        Metric {
            name: "clock_offset_ms",
            help: "How far the wall clock has been set since the start, in ms: stamps minus the time of deadlines",
            kind: CounterKind::Level,
            value: clock::wall_offset_ns() / 1_000_000,
        },
    ]
}

#[derive(Debug)]
struct Metrics {
    shards: Vec<PublishedCounters>,
    of_server: Vec<Metric>,
    sources: Vec<SourceRow>,
    certificates: Vec<CertificateExpiry>,
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        encode_shards(&self.shards, &mut encoder)?;
        encode_sources(&self.sources, &mut encoder)?;
        encode_certificates(&self.certificates, &mut encoder)?;
        encode_log(&mut encoder)?;
        for Metric { name, help, kind, value } in &self.of_server {
            match kind {
                CounterKind::Count => {
                    let number = ConstCounter::new(*value as u64);
                    number.encode(encoder.encode_descriptor(name, help, None, number.metric_type())?)?;
                }
                CounterKind::Level => {
                    let number = ConstGauge::new(*value);
                    number.encode(encoder.encode_descriptor(name, help, None, number.metric_type())?)?;
                }
            }
        }
        Ok(())
    }
}

fn encode_shards(shards: &[PublishedCounters], encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
    for (counter, name, kind, help) in Counter::ALL {
        let name = snake_case(name);
        let family = match kind {
            CounterKind::Count => ConstCounter::new(0u64).metric_type(),
            CounterKind::Level => ConstGauge::new(0u64).metric_type(),
        };
        let mut family = encoder.encode_descriptor(&name, help, None, family)?;
        for (index, shard) in shards.iter().enumerate() {
            let labels = [("shard", index.to_string())];
            let one = family.encode_family(&labels)?;
            match kind {
                CounterKind::Count => ConstCounter::new(shard.get(*counter)).encode(one)?,
                CounterKind::Level => ConstGauge::new(shard.get(*counter)).encode(one)?,
            }
        }
    }
    Ok(())
}

/// One number of a source, with its labels.
type Sample = (Vec<(&'static str, String)>, u64);

/// The state of each source and of its streams, and what feeds have lost. Without a source a family has no rows.
fn encode_sources(rows: &[SourceRow], encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
    let feeds: Vec<_> = rows.iter().filter_map(|row| Some((row, row.feed.as_ref()?))).collect();
    let live = rows.iter().map(|row| (labels_of(row), u64::from(row.state == "live")));
    let help = "1 while a source is live, 0 while it is not: its name is that of a feed, or of a publisher's identity";
    encode_family(encoder, "source_live", help, CounterKind::Level, live.collect())?;
    let streams = feeds.iter().flat_map(|(row, feed)| streams_of(row, feed));
    let help = "1 while a stream of a feed is live, 0 while it is not; of a feed with many streams some";
    encode_family(encoder, "source_stream_live", help, CounterKind::Level, streams.collect())?;
    let counts = feeds.iter().flat_map(|(row, feed)| {
        let count = |(state, count): (&str, u64)| (vec![id_of(row), ("state", state.to_owned())], count);
        StreamState::WORDS.into_iter().zip(feed.stream_counts).map(count)
    });
    encode_family(encoder, "source_streams", "Streams of a feed by state", CounterKind::Level, counts.collect())?;
    let restarts = feeds.iter().map(|(row, feed)| (vec![id_of(row)], feed.restarts));
    let help = "Times that a feed failed and was opened again, or is to be";
    encode_family(encoder, "feed_restarts", help, CounterKind::Count, restarts.collect())?;
    let gaps = feeds.iter().map(|(row, feed)| (vec![id_of(row)], feed.gaps));
    let help = "Gaps in its input that a feed has reported: subscribers got a Gap for each of its instruments";
    encode_family(encoder, "feed_gaps", help, CounterKind::Count, gaps.collect())?;
    let lag = feeds.iter().filter_map(|(row, feed)| Some((vec![id_of(row)], feed.lag?)));
    let help = "Messages of a feed that wait in its broker, where the broker keeps them and says how many";
    encode_family(encoder, "source_lag", help, CounterKind::Level, lag.collect())?;
    let duplicates = feeds.iter().map(|(row, feed)| (vec![id_of(row)], feed.report.duplicates));
    let help = "Messages that a broker delivered once more, and that were left out";
    encode_family(encoder, "feed_duplicates", help, CounterKind::Count, duplicates.collect())?;
    let lost = feeds.iter().flat_map(|(row, feed)| {
        let sample = |(cause, count): (&str, u64)| (vec![id_of(row), ("cause", cause.to_owned())], count);
        feed.report.losses().map(sample)
    });
    let help = "What a feed has lost before the sequencer: messages, trades, levels and books, by cause";
    encode_family(encoder, "feed_lost", help, CounterKind::Count, lost.collect())
}

fn id_of(row: &SourceRow) -> (&'static str, String) {
    ("source", row.id.to_string())
}

fn labels_of(row: &SourceRow) -> Vec<(&'static str, String)> {
    let name = row.identity.as_ref().or(row.name.as_ref()).cloned().unwrap_or_default();
    vec![id_of(row), ("kind", row.kind.word().to_owned()), ("name", name)]
}

fn streams_of(row: &SourceRow, feed: &FeedStatus) -> Vec<Sample> {
    let sample = |stream: &Stream| {
        (vec![id_of(row), ("stream", stream.name.clone())], u64::from(stream.state == StreamState::Live))
    };
    feed.streams.iter().map(sample).collect()
}

fn encode_family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    kind: CounterKind,
    samples: Vec<Sample>,
) -> Result<(), std::fmt::Error> {
    let metric_type = match kind {
        CounterKind::Count => ConstCounter::new(0u64).metric_type(),
        CounterKind::Level => ConstGauge::new(0u64).metric_type(),
    };
    let mut family = encoder.encode_descriptor(name, help, None, metric_type)?;
    for (labels, value) in samples {
        let one = family.encode_family(&labels)?;
        match kind {
            CounterKind::Count => ConstCounter::new(value).encode(one)?,
            CounterKind::Level => ConstGauge::new(value).encode(one)?,
        }
    }
    Ok(())
}

fn encode_certificates(
    certificates: &[CertificateExpiry],
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), std::fmt::Error> {
    let sample = |expiry: &CertificateExpiry| {
        (vec![("name", expiry.name.clone())], u64::try_from(expiry.not_after_s).unwrap_or(0))
    };
    let samples = certificates.iter().map(sample).collect();
    let help = "When a certificate expires, in seconds since 1970: its name is the first server name";
    encode_family(encoder, "tls_certificate_expiry_timestamp_seconds", help, CounterKind::Level, samples)
}

fn encode_log(encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
    let help = "Lines of the log dropped, by cause: rate (log_lines_per_s), queue (stderr blocks), write (it failed)";
    let kind = ConstCounter::new(0u64).metric_type();
    let mut family = encoder.encode_descriptor("log_lines_dropped", help, None, kind)?;
    for (cause, count) in log::dropped() {
        ConstCounter::new(count).encode(family.encode_family(&[("cause", cause)])?)?;
    }
    Ok(())
}

/// The metric's name of a counter.
pub(super) fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
