//! Watch lists: the audiences that watch a target, by channel and interval.
//!
//! Most targets are watched by one audience with one item: that takes 24 bytes and no allocation.

use super::AudienceId;
use tickcast_protocol::ConflationInterval;
use tickcast_protocol::record::Channel;

/// The audiences that watch one target on one channel at one interval.
#[derive(Debug)]
pub(super) struct WatchList {
    channel: Channel,
    interval: ConflationInterval,
    audiences: Vec<AudienceId>,
}

/// The watch lists of one target.
#[derive(Debug, Default)]
pub(super) enum WatchLists {
    #[default]
    Empty,
    One {
        channel: Channel,
        interval: ConflationInterval,
        audience: AudienceId,
    },
    Many(Vec<WatchList>),
}

// One per name and pattern that clients have, of which there may be millions.
const _: () = assert!(size_of::<WatchLists>() == 24);

impl WatchLists {
    pub(super) fn list(&self, channel: Channel, interval: ConflationInterval) -> &[AudienceId] {
        match self {
            Self::One { channel: of, interval: at, audience } if *of == channel && *at == interval => {
                std::slice::from_ref(audience)
            }
            Self::Empty | Self::One { .. } => &[],
            Self::Many(lists) => {
                let list = lists.iter().find(|list| list.channel == channel && list.interval == interval);
                list.map_or(&[], |list| &list.audiences)
            }
        }
    }

    /// Adds an audience; returns its index in the list.
    pub(super) fn push(&mut self, channel: Channel, interval: ConflationInterval, audience: AudienceId) -> u32 {
        if let Self::Empty = self {
            *self = Self::One { channel, interval, audience };
            return 0;
        }
        if let Self::One { channel, interval, audience } = *self {
            *self = Self::Many(vec![WatchList { channel, interval, audiences: vec![audience] }]);
        }
        let Self::Many(lists) = self else { unreachable!("it has two entries") };
        let found = lists.iter().position(|list| list.channel == channel && list.interval == interval);
        let at = found.unwrap_or_else(|| {
            // Few targets have more than one or two lists, and a vector would make room for four.
            lists.reserve_exact(1);
            lists.push(WatchList { channel, interval, audiences: Vec::new() });
            lists.len() - 1
        });
        let list = &mut lists[at].audiences;
        list.reserve_exact(usize::from(list.is_empty()));
        list.push(audience);
        list.len() as u32 - 1
    }

    /// Removes the audience at this index; returns the one that has the index now.
    pub(super) fn swap_remove(
        &mut self,
        channel: Channel,
        interval: ConflationInterval,
        index: u32,
    ) -> Option<AudienceId> {
        let Self::Many(lists) = self else {
            *self = Self::Empty;
            return None;
        };
        let at = lists.iter().position(|list| list.channel == channel && list.interval == interval)?;
        let list = &mut lists[at].audiences;
        list.swap_remove(index as usize);
        let moved = list.get(index as usize).copied();
        if list.is_empty() {
            lists.swap_remove(at);
        } else if list.capacity() > 4 * list.len() {
            list.shrink_to(2 * list.len());
        }
        if lists.is_empty() {
            *self = Self::Empty;
        }
        moved
    }

    /// Calls `each` for every audience, once for each of its items, with the channel.
    pub(super) fn each(&self, each: &mut impl FnMut(Channel, AudienceId)) {
        match self {
            Self::Empty => {}
            Self::One { channel, audience, .. } => each(*channel, *audience),
            Self::Many(lists) => {
                for list in lists {
                    list.audiences.iter().for_each(|audience| each(list.channel, *audience));
                }
            }
        }
    }
}
