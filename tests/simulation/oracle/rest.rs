//! What holds once the feed and the shards are at rest.

use tickcast_protocol::{Channel, FeedState};

use super::Oracle;
use crate::feed::{History, Value, best};

impl Oracle {
    /// At rest, everything that was subscribed to is there.
    pub fn is_whole(&self, history: &History) {
        assert!(!self.awaits_caught_up, "a snapshot that never ended");
        assert!(self.replaying.is_none(), "a replay that never ended");
        let state_of = |id: u32| self.states.get(&id).copied().unwrap_or(FeedState::Live);
        if !self.items.is_empty() {
            assert_eq!(state_of(0), history.state(0), "the state of the feed at rest");
        }
        for ((id, channel), track) in &self.tracks {
            assert_eq!(state_of(*id), history.state(*id), "the state of {id} at rest, {channel:?} {track:?}");
            let newest = history.newest(*id, *channel);
            let resumed = track.resumed.is_some_and(|had| newest > had);
            let is_kept = *channel != Channel::Raw && !history.of(*id, *channel).iter().all(Value::is_lost);
            let expected = newest > track.upper || resumed || (track.snapshot && is_kept);
            let depth = self.depth(&history.instruments[*id as usize - 1].symbol, *channel);
            let has_had = track.last.unwrap_or(if track.snapshot { 0 } else { track.upper });
            // Changes beyond its depth are not sent.
            let has_seen = depth.is_some() && self.next_seen(*id, *channel, has_had, history).is_none();
            if !has_seen && (expected || (track.last.is_some() && *channel != Channel::Raw)) {
                assert_eq!(track.last, Some(newest), "{channel:?} of {id} at rest: {track:?}");
            }
            if *channel == Channel::Book && expected && track.snapshot {
                let book = history.of(*id, *channel).last().and_then(|value| value.book.as_deref());
                assert_eq!(track.book, book.map(|book| best(book, depth)), "the book of {id} at rest");
            }
        }
    }
}
