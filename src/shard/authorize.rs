//! Which records a client may be sent. The question is asked where a client names what it wants (subscribe and resume):
//! for a name once and for all, since an instrument has the name or not. What comes under a pattern is decided by the
//! subscription index for each instrument, by the rights that an audience has; never for a record.
//!
//! Rights are asked about for the age of the data of the shard.
//!
//! Only this module makes a [`Permit`], and items are made from nothing else, so every request passes here.

use super::subscription_index::{Key, Target};
use crate::identity::{Depth, Extent, Grant, Hidden, Principal, Terms};
use tickcast_protocol::control::{ChannelSet, Pattern};
use tickcast_protocol::{Channel, ConflationInterval};

/// What a client may have of a name or pattern that it has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Permit {
    channels: ChannelSet,
    intervals: [ConflationInterval; Channel::COUNT],
    /// Levels of each side that the shallowest of its books has at least; `None`: all.
    pub(super) book_depth: Option<u32>,
    /// It gets less than it has asked for: fewer channels, levels or fields, or fewer symbols of a pattern.
    pub(super) is_limited: bool,
    /// What it does not get is there for it as data that is older than that of this shard.
    pub(super) is_delayed: bool,
}

impl Permit {
    /// True if it may have nothing.
    pub(super) fn is_empty(self) -> bool {
        self.channels.is_empty()
    }

    /// The items for a target, each with its interval.
    pub(super) fn items(self, target: Target) -> impl Iterator<Item = (Key, ConflationInterval)> {
        self.channels.iter().map(move |channel| (Key::new(target, channel), self.intervals[channel as usize]))
    }

    /// The longest interval of a state channel.
    pub(super) fn interval(self) -> Option<ConflationInterval> {
        let states = self.channels.iter().filter(|channel| !channel.is_log());
        states.map(|channel| self.intervals[channel as usize]).max()
    }
}

/// Decides on a name or pattern of a subscribe or resume request.
pub(super) fn permit(
    principal: &Principal,
    symbol: &Pattern,
    channels: ChannelSet,
    interval: ConflationInterval,
    delay_s: u32,
) -> Permit {
    let mut permit = Permit {
        channels: ChannelSet::default(),
        intervals: [interval; Channel::COUNT],
        book_depth: None,
        is_limited: false,
        is_delayed: false,
    };
    if principal.rights.is_open() {
        permit.channels = channels;
        return permit;
    }
    for channel in channels.iter() {
        match allowed(principal, symbol, channel, delay_s) {
            Allowed::Nothing { is_delayed } => {
                permit.is_limited = true;
                permit.is_delayed |= is_delayed;
            }
            Allowed::Some { shortest, depth, is_whole } => {
                permit.channels.insert(channel);
                permit.intervals[channel as usize] = interval.max(shortest);
                permit.book_depth = depth.levels().filter(|_| channel == Channel::Book).or(permit.book_depth);
                permit.is_limited |= !is_whole || permit.book_depth.is_some();
            }
        }
    }
    permit
}

/// The interval at which a client may keep an item that it has: that of the item, or a longer one; `None` if it may not
/// keep it.
pub(super) fn keeps(
    principal: &Principal,
    symbol: &Pattern,
    channel: Channel,
    interval: ConflationInterval,
    delay_s: u32,
) -> Option<ConflationInterval> {
    match allowed(principal, symbol, channel, delay_s) {
        Allowed::Nothing { .. } => None,
        Allowed::Some { shortest, .. } => Some(interval.max(shortest)),
    }
}

/// What the rights of a client come to for a name or a pattern.
enum Allowed {
    Nothing { is_delayed: bool },
    Some { shortest: ConflationInterval, depth: Depth, is_whole: bool },
}

fn allowed(principal: &Principal, symbol: &Pattern, channel: Channel, delay_s: u32) -> Allowed {
    match symbol {
        Pattern::Exact(name) => {
            let grant = principal.grant(name, channel, delay_s);
            match grant.served() {
                Some(Terms { interval, depth, hidden, .. }) => {
                    Allowed::Some { shortest: interval, depth, is_whole: hidden == Hidden::default() }
                }
                None => Allowed::Nothing { is_delayed: matches!(grant, Grant::Delayed(_)) },
            }
        }
        Pattern::Prefix(prefix) => match principal.extent(prefix, channel, delay_s) {
            Extent::Some { interval, depth, is_whole } => Allowed::Some { shortest: interval, depth, is_whole },
            extent => Allowed::Nothing { is_delayed: extent == Extent::Delayed },
        },
    }
}
