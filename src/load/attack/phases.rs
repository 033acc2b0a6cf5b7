//! The phases of a run under attack: before, during and after, of the same length.

use std::ops::Range;
use std::time::Duration;

use serde::Serialize;

/// The second in which the connections of the attack end. It counts as a part of the attack, because many that leave at
/// once are work as well.
const LEAVING_SECONDS: u32 = 1;

/// The phases of a run, in seconds of its measured time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct AttackPhases {
    /// The length of each.
    pub seconds: u32,
}

impl AttackPhases {
    /// When the attack begins.
    pub fn attack_at(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    /// When it ends.
    pub fn end_at(&self) -> Duration {
        self.attack_at() * 2
    }

    /// The measured time.
    pub fn measured(&self) -> Duration {
        Duration::from_secs(self.after().end as u64)
    }

    /// The seconds before it, counted from 0.
    pub fn before(&self) -> Range<usize> {
        0..self.seconds as usize
    }

    /// The seconds of the attack, and that in which its connections end.
    pub fn during(&self) -> Range<usize> {
        self.before().end..(2 * u64::from(self.seconds) + u64::from(LEAVING_SECONDS)) as usize
    }

    /// The seconds after it.
    pub fn after(&self) -> Range<usize> {
        self.during().end..self.during().end + self.seconds as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_one_another() {
        let phases = AttackPhases { seconds: 5 };
        assert_eq!((phases.before(), phases.during(), phases.after()), (0..5, 5..11, 11..16));
        assert_eq!((phases.attack_at().as_secs(), phases.end_at().as_secs(), phases.measured().as_secs()), (5, 10, 16));
    }
}
