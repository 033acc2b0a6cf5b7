//! Watch lists: the audiences that watch a target, by channel and profile.

use super::AudienceId;
use tickcast_protocol::conflation::ConflationInterval;
use tickcast_protocol::record::Channel;

/// Most lists have one entry, and a vector's own first step is to four.
pub(super) fn push_frugally<T>(list: &mut Vec<T>, entry: T) {
    list.reserve_exact(usize::from(list.is_empty()));
    list.push(entry);
}

/// The audiences that watch one target on one channel, by profile.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) lists: Vec<(ConflationInterval, Vec<AudienceId>)>,
}

impl Watch {
    pub(super) fn list(&self, interval: ConflationInterval) -> &[AudienceId] {
        self.lists.iter().find(|(of, _)| *of == interval).map_or(&[], |(_, list)| list)
    }

    pub(super) fn list_mut(&mut self, interval: ConflationInterval) -> &mut Vec<AudienceId> {
        let at = self.lists.iter().position(|(of, _)| *of == interval).unwrap_or_else(|| {
            push_frugally(&mut self.lists, (interval, Vec::new()));
            self.lists.len() - 1
        });
        &mut self.lists[at].1
    }
}

#[derive(Debug, Default)]
pub(super) struct Watches(pub(super) [Watch; Channel::COUNT]);
