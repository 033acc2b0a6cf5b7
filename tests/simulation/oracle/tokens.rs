//! What a client resumes, and with which token.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use tickcast_protocol::Channel;
use tickcast_protocol::control::Pattern;

use super::{Had, Oracle, Resume, Track};
use crate::Dice;
use crate::client::{Wish, false_token};

impl Oracle {
    /// A token of this stream, one older than its last, or a wrong one.
    pub fn any_token(&self, dice: &mut Dice) -> Resume {
        let position = match dice.below(4) {
            0 => return false_token(dice, self.position),
            1 => u64::from(dice.below(self.position.min(1 << 30) as u32 + 1)),
            _ => self.position,
        };
        Resume { epoch: 1, position, had: None }
    }

    /// What the client had of all its subscriptions.
    pub fn had(&self) -> Option<Rc<HashMap<(u32, Channel), Had>>> {
        let had = |track: &Track| Had {
            last: track.last,
            book: track.book.clone(),
            interval: track.interval,
            entitled: self.entitled.clone(),
        };
        Some(Rc::new(self.tracks.iter().map(|(key, track)| (*key, had(track))).collect()))
    }

    /// All subscriptions, by interval and channel, with the last token. The more specific ones come first, as the protocol
    /// demands.
    pub fn to_resume(&self) -> Vec<(Wish, Resume)> {
        let length = |pattern: &Pattern| if let Pattern::Prefix(stem) = pattern { stem.len() } else { usize::MAX };
        let resume = Resume { epoch: 1, position: self.position, had: self.had() };
        let mut wishes: BTreeMap<(Reverse<usize>, usize, usize), Wish> = BTreeMap::new();
        for ((pattern, channel), interval) in &self.items {
            let key = (Reverse(length(pattern)), interval.index(), *channel as usize);
            let wish = wishes.entry(key).or_insert_with(|| Wish {
                channels: [*channel].into_iter().collect(),
                symbols: Vec::new(),
                interval: *interval,
            });
            wish.symbols.push(pattern.to_string());
        }
        wishes.into_values().map(|wish| (wish, resume.clone())).collect()
    }
}
