//! `/metrics`: the counters of all shards and of the sequencer, in the OpenMetrics text format.

use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::state::ServerState;
use crate::stats::{Counter, CounterKind};

pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One number of the whole server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) kind: CounterKind,
    pub(crate) value: u64,
}

/// The numbers as they were last published.
pub(crate) fn render(public: &ServerState) -> String {
    let mut registry = Registry::with_prefix("tickcast");
    registry.register_collector(Box::new(Numbers { shards: public.shards.clone(), whole: numbers(public) }));
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => text,
        Err(error) => unreachable!("a String takes all text: {error}"),
    }
}

/// What is counted for the whole server: by the sequencer, of publishers, of bars.
pub(crate) fn numbers(public: &ServerState) -> Vec<Number> {
    let (sequencer, publishers, bars) = (&public.sequencer_stats, &public.publishers, public.bars.as_deref());
    // Relaxed: each number stands for itself.
    let get = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
    let count = |name, value, help| Number { name, help, kind: CounterKind::Count, value };
    let level = |name, value, help| Number { name, help, kind: CounterKind::Level, value };
    vec![
        count("sequencer_records", get(&sequencer.records), "Records sequenced"),
        count(
            "sequencer_undefined",
            get(&sequencer.undefined),
            "Records of instruments that their source had not defined",
        ),
        count("sequencer_refused", get(&sequencer.refused), "Definitions refused"),
        count(
            "sequencer_books_refused",
            get(&sequencer.books_refused),
            "Book records refused because the book would have had too many levels: book_levels_max",
        ),
        count("sequencer_resyncs", get(&sequencer.resyncs), "Times the whole state was sent again to an overrun shard"),
        count("sequencer_lost", get(&sequencer.lost), "Records of log channels that sources have said to have lost"),
        count("source_silences", get(&sequencer.silences), "Times a source fell silent for longer than stale_ms"),
        count("source_losses", get(&sequencer.losses), "Feeds that died and publishers that went without a close"),
        count("feed_restarts", get(&sequencer.restarts), "Feeds that died and were opened again, or are to be"),
        level("sources", get(&sequencer.sources), "Feeds and publishers that have instruments and are not silent"),
        level("stale_instruments", get(&sequencer.stale), "Instruments whose values are stale or ended"),
        level("publishers", publishers.connected().into(), "Connected publishers"),
        count(
            "publishers_refused",
            publishers.refused().into(),
            "Publishers refused with 503 because as many were connected: publishers_max",
        ),
        count(
            "publishers_crowded",
            publishers.crowded().into(),
            "Requests to define refused because the connection would have had too many: publisher_instruments_max",
        ),
        count(
            "publishers_slowed_ms",
            publishers.slowed().as_millis() as u64,
            "Time that publishers had to wait because they were faster than they may be: publish_records_per_s",
        ),
        level("bars_bytes", bars.map_or(0, |bars| bars.bytes()), "Memory of the bars: bars_bytes"),
        count(
            "bars_records_lost",
            bars.map_or(0, |bars| bars.records_lost()),
            "Trades and quotes that came faster than they became bars, and are missing from them",
        ),
    ]
}

#[derive(Debug)]
struct Numbers {
    shards: Vec<crate::stats::PublishedCounters>,
    whole: Vec<Number>,
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        encode_shards(&self.shards, &mut encoder)?;
        for Number { name, help, kind, value } in &self.whole {
            match kind {
                CounterKind::Count => {
                    let number = ConstCounter::new(*value);
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

fn encode_shards(
    shards: &[crate::stats::PublishedCounters],
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), std::fmt::Error> {
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

/// The name in `/metrics` of a counter.
pub(crate) fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
