//! What symbols look like: their skeletons of Unicode's UTS 39, which are equal for names that a reader confuses, such as
//! `BTC-USD1` and `BTC-USDl`.
//!
//! A symbol that looks like one of another owner is not defined. An owner may have such symbols of its own: codes of
//! instruments differ in 0 and O, or 1 and I.
//!
//! Cost: some 100 bytes an instrument, and about a microsecond a definition.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use unicode_security::confusable_detection::skeleton;

/// The instruments by skeleton.
#[derive(Debug, Default)]
pub(super) struct Skeletons(HashMap<String, Vec<u32>, RandomState>);

impl Skeletons {
    pub(super) fn add(&mut self, symbol: &str, id: u32) {
        self.0.entry(of(symbol)).or_default().push(id);
    }

    pub(super) fn remove(&mut self, symbol: &str, id: u32) {
        let skeleton = of(symbol);
        let Some(ids) = self.0.get_mut(&skeleton) else { return };
        ids.retain(|other| *other != id);
        if ids.is_empty() {
            self.0.remove(&skeleton);
        }
    }

    /// The instruments whose symbols look like this one, itself included.
    pub(super) fn alike(&self, symbol: &str) -> &[u32] {
        self.0.get(&of(symbol)).map_or(&[], Vec::as_slice)
    }
}

fn of(symbol: &str) -> String {
    skeleton(symbol).collect()
}
