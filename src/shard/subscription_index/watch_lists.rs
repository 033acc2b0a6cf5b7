//! Watch lists: the audiences that watch a target, by channel and interval.

use super::AudienceId;
use tickcast_protocol::ConflationInterval;
use tickcast_protocol::record::Channel;

/// Appends without spare capacity for the first entry: most lists have one, and a vector begins with four.
pub(super) fn push_exact<T>(list: &mut Vec<T>, entry: T) {
    list.reserve_exact(usize::from(list.is_empty()));
    list.push(entry);
}

/// The audiences that watch one target on one channel, by interval.
#[derive(Debug, Default)]
pub(super) struct WatchList {
    by_interval: Vec<(ConflationInterval, Vec<AudienceId>)>,
}

impl WatchList {
    pub(super) fn list(&self, interval: ConflationInterval) -> &[AudienceId] {
        self.by_interval.iter().find(|(of, _)| *of == interval).map_or(&[], |(_, list)| list)
    }

    pub(super) fn list_mut(&mut self, interval: ConflationInterval) -> &mut Vec<AudienceId> {
        let at = self.by_interval.iter().position(|(of, _)| *of == interval).unwrap_or_else(|| {
            push_exact(&mut self.by_interval, (interval, Vec::new()));
            self.by_interval.len() - 1
        });
        &mut self.by_interval[at].1
    }

    pub(super) fn remove_empty(&mut self) {
        self.by_interval.retain(|(_, list)| !list.is_empty());
    }
}

/// The watch lists of one target, by channel.
#[derive(Debug, Default)]
pub(super) struct WatchLists([WatchList; Channel::COUNT]);

impl WatchLists {
    pub(super) fn of(&self, channel: Channel) -> &WatchList {
        &self.0[channel as usize]
    }

    pub(super) fn of_mut(&mut self, channel: Channel) -> &mut WatchList {
        &mut self.0[channel as usize]
    }

    /// Calls `each` for every audience, once for each of its items.
    pub(super) fn each(&self, each: &mut impl FnMut(AudienceId)) {
        for (_, list) in self.0.iter().flat_map(|list| &list.by_interval) {
            list.iter().for_each(|audience| each(*audience));
        }
    }
}
