//! Computed tickers on their way from the store to the sequencer.

use super::SequencerHandle;
use crate::bars::BarStore;
use crate::clock;

/// Tickers for which the lock is held: some 100 ns each.
const PORTION_TICKERS: usize = 256;

impl SequencerHandle {
    /// Has the tickers sequenced that are due, while the rings have room. The lock of their store is released before the
    /// sequencer is locked, and batches of sources come between two portions.
    pub(super) fn sequence_tickers(&self) {
        let Some(store) = self.bars.as_deref().and_then(BarStore::tickers).filter(|_| self.has_room()) else { return };
        let due = store.take(clock::now_ns());
        let mut outcomes = Vec::with_capacity(due.len());
        for portion in due.chunks(PORTION_TICKERS) {
            let _guard = self.lifecycle.fail_on_panic("the sequencer");
            let mut locked = self.lock();
            let wall_ns = locked.wall_ns(self.bars.as_deref());
            locked.sequencer.accept_computed(portion, wall_ns, &mut outcomes);
            self.publish_and_wake(locked);
        }
        if !due.is_empty() {
            store.settle(&due, &outcomes);
        }
    }
}
