//! The sequencer's counters: one list, one line of meaning each. The sequencer counts in plain integers
//! ([`SequencerCounters`]) and publishes them after each batch for other threads ([`SequencerStats`]).

use std::sync::atomic::{AtomicU64, Ordering};

use tickcast_protocol::Position;

macro_rules! counters {
    ($($name:ident $text:literal;)*) => {
        /// What the sequencer counts.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct SequencerCounters { $(#[doc = $text] pub $name: u64,)* }

        /// The sequencer's numbers where other threads read them.
        #[derive(Debug, Default)]
        pub struct SequencerStats {
            /// Position of the newest record.
            pub position: AtomicU64,
            $(#[doc = $text] pub $name: AtomicU64,)*
        }

        impl SequencerStats {
            /// Publishes the present numbers.
            pub fn publish(&self, counters: &SequencerCounters, position: Position) {
                // Relaxed: each number is read by itself; they order nothing.
                self.position.store(position.get(), Ordering::Relaxed);
                $(self.$name.store(counters.$name, Ordering::Relaxed);)*
            }
        }
    };
}

counters! {
    records "Records written to the rings.";
    undefined "Records of instruments that their source had not defined, or whose definition was refused.";
    refused "Definitions refused.";
    redefined "Definitions that changed an instrument.";
    released "Ended instruments released, so that others could be defined.";
    resyncs "Resynchronisations requested by overrun shards.";
    lost "Records of log channels that sources reported lost.";
    silences "Times a source was silent for too long.";
    losses "Sources that went without having ended.";
    sources "Sources that have instruments and are not silent now.";
    stale "Instruments whose values are stale or ended now.";
    standby "Records of standby publishers, left out while a publisher of a better priority is live.";
    gaps_refused "Gap records that would have skipped more sequences than they may.";
    expired "Instruments that ended because their source was lost for too long.";
    books_refused "Book records refused because the book would have had too many levels.";
}
