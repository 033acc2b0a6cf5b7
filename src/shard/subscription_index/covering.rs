//! The targets that cover one instrument.

use std::borrow::Cow;

use super::{Key, Target};
use tickcast_protocol::Channel;

/// See the module. Finding the prefixes takes a look-up for each length of a prefix, so several questions share them.
#[derive(Debug)]
pub struct Covering<'a> {
    pub(super) instrument: u32,
    pub(super) name: Option<Target>,
    /// The longest first.
    pub(super) prefixes: Cow<'a, [u32]>,
}

impl Covering<'_> {
    /// What `find` finds first of the keys for a channel: that of the name, then those of the prefixes, the longest
    /// first.
    pub(super) fn find<T>(&self, channel: Channel, find: impl FnMut(Key) -> Option<T>) -> Option<T> {
        let prefixes = self.prefixes.iter().map(|prefix| Target::Prefix(*prefix));
        self.name.into_iter().chain(prefixes).map(|target| Key::new(target, channel)).find_map(find)
    }

    /// True if any of those keys passes.
    pub fn any(&self, channel: Channel, mut test: impl FnMut(Key) -> bool) -> bool {
        self.find(channel, |key| test(key).then_some(())).is_some()
    }
}
