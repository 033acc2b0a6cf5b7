//! Tickers that the server computes for instruments of its sources.
//!
//! What always holds:
//! * A computed ticker is flagged COMPUTED and numbered like one of the source. It changes neither the state of its
//!   instrument nor what is known of its source.
//! * Once a source has sent a ticker of an instrument, none is computed for that any more, until it is released.
//! * None is written for an instrument that is stale or has ended, nor with exponents that are not the instrument's.

use super::Sequencer;
use crate::day_tickers::{ComputedTicker, TickerOutcome};
use tickcast_protocol::FeedState;
use tickcast_protocol::record::{Channel, Quote, RecordHeader, RecordKind, Ticker, flags};

/// By instrument id: its source has sent a ticker.
#[derive(Debug, Default)]
pub(super) struct OwnTickers(Vec<bool>);

impl OwnTickers {
    pub(super) fn note(&mut self, id: u32) {
        let at = id as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, false);
        }
        self.0[at] = true;
    }

    fn contains(&self, id: u32) -> bool {
        self.0.get(id as usize).is_some_and(|is_own| *is_own)
    }
}

impl Sequencer {
    /// Numbers computed tickers and writes them to all rings. Appends what became of each.
    pub fn accept_computed(&mut self, tickers: &[ComputedTicker], now_ns: u64, outcomes: &mut Vec<TickerOutcome>) {
        outcomes.extend(tickers.iter().map(|computed| self.sequence_computed(computed, now_ns)));
        self.publish();
    }

    fn sequence_computed(&mut self, computed: &ComputedTicker, now_ns: u64) -> TickerOutcome {
        let id = computed.instrument;
        let Some(instrument) = self.directory.get(id) else { return TickerOutcome::Unknown };
        let (px_exp, sz_exp) = (instrument.px_exp, instrument.sz_exp);
        if self.own_tickers.contains(id) {
            return TickerOutcome::Own;
        }
        if !matches!(self.values.status(id).state, FeedState::Live | FeedState::Halted) {
            return TickerOutcome::NotLive;
        }
        if computed.exponents != Some((px_exp, sz_exp)) {
            return TickerOutcome::Exponents(px_exp, sz_exp);
        }
        let sequence = self.values.sequence(id, Channel::Ticker).next();
        let header = RecordHeader { sequence, ts_recv: now_ns, ..RecordHeader::of_feed(RecordKind::Ticker, id, 0) };
        let header = header.with_flags(flags::LAST | flags::COMPUTED);
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        let is_quoted = self.values.row(id).is_some_and(|row| row.push(id, Channel::Quote, 0, &mut bytes));
        let quote = is_quoted.then(|| Quote::read(&bytes)).flatten();
        let ticker = match quote {
            Some(Quote { bid_px, ask_px, .. }) => Ticker { bid_px, ask_px, ..computed.ticker },
            None => computed.ticker,
        };
        bytes.clear();
        ticker.encode(&header, &mut bytes);
        self.values.apply(&header, Channel::Ticker, &bytes, ());
        self.write(&bytes);
        self.scratch = bytes;
        TickerOutcome::Sequenced
    }
}
