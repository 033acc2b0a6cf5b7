//! `/metrics`: the counters of all shards and of the sequencer, in the OpenMetrics text format.

use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::Public;
use crate::stats::{Counter, Kind};

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The numbers as they were last published.
pub(super) fn render(public: &Public) -> String {
    let mut registry = Registry::with_prefix("tickcast");
    let shards = public.shards.clone();
    let sequencer = public.sequencer.clone();
    let publishers = public.publishers.clone();
    registry.register_collector(Box::new(Numbers { shards, sequencer, publishers }));
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => text,
        Err(error) => unreachable!("a String takes all text: {error}"),
    }
}

#[derive(Debug)]
struct Numbers {
    shards: Vec<crate::stats::Published>,
    sequencer: std::sync::Arc<crate::stats::SequencerStats>,
    publishers: std::sync::Arc<super::publish::Publishers>,
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        encode_shards(&self.shards, &mut encoder)?;
        let of_sequencer = [
            ("sequencer_records", "Records sequenced", &self.sequencer.records),
            (
                "sequencer_undefined",
                "Records of instruments that their source had not defined",
                &self.sequencer.undefined,
            ),
            ("sequencer_refused", "Definitions refused", &self.sequencer.refused),
            (
                "sequencer_books_refused",
                "Book records refused because the book would have had too many levels: book_levels_max",
                &self.sequencer.books_refused,
            ),
            ("sequencer_resyncs", "Times the whole state was sent again to an overrun shard", &self.sequencer.resyncs),
            ("sequencer_lost", "Records of log channels that sources have said to have lost", &self.sequencer.lost),
            ("source_silences", "Times a source fell silent for longer than stale_ms", &self.sequencer.silences),
            ("source_losses", "Feeds that died and publishers that went without a close", &self.sequencer.losses),
            ("feed_restarts", "Feeds that died and were opened again, or are to be", &self.sequencer.restarts),
        ];
        for (name, help, number) in of_sequencer {
            // Relaxed: the number stands for itself.
            let number = ConstCounter::new(number.load(Ordering::Relaxed));
            number.encode(encoder.encode_descriptor(name, help, None, number.metric_type())?)?;
        }
        let levels = [
            ("sources", "Feeds and publishers that have instruments and are not silent", &self.sequencer.sources),
            ("stale_instruments", "Instruments whose values are stale or ended", &self.sequencer.stale),
        ];
        for (name, help, number) in levels {
            // Relaxed: the number stands for itself.
            let number = ConstGauge::new(number.load(Ordering::Relaxed));
            number.encode(encoder.encode_descriptor(name, help, None, number.metric_type())?)?;
        }
        let connected = ConstGauge::new(u64::from(self.publishers.connected()));
        let kind = connected.metric_type();
        connected.encode(encoder.encode_descriptor("publishers", "Connected publishers", None, kind)?)?;
        let of_publishers = [
            (
                "publishers_refused",
                "Publishers refused with 503 because as many were connected: publishers_max",
                self.publishers.refused().into(),
            ),
            (
                "publishers_crowded",
                "Requests to define refused because the connection would have had too many: publisher_instruments_max",
                self.publishers.crowded().into(),
            ),
            (
                "publishers_slowed_ms",
                "Time that publishers had to wait because they were faster than they may be: publish_records_per_s",
                self.publishers.slowed().as_millis() as u64,
            ),
        ];
        for (name, help, number) in of_publishers {
            let number = ConstCounter::new(number);
            number.encode(encoder.encode_descriptor(name, help, None, number.metric_type())?)?;
        }
        Ok(())
    }
}

fn encode_shards(
    shards: &[crate::stats::Published],
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), std::fmt::Error> {
    for (counter, name, kind, help) in Counter::ALL {
        let name = snake_case(name);
        let family = match kind {
            Kind::Count => ConstCounter::new(0u64).metric_type(),
            Kind::Level => ConstGauge::new(0u64).metric_type(),
        };
        let mut family = encoder.encode_descriptor(&name, help, None, family)?;
        for (index, shard) in shards.iter().enumerate() {
            let labels = [("shard", index.to_string())];
            let one = family.encode_family(&labels)?;
            match kind {
                Kind::Count => ConstCounter::new(shard.get(*counter)).encode(one)?,
                Kind::Level => ConstGauge::new(shard.get(*counter)).encode(one)?,
            }
        }
    }
    Ok(())
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
