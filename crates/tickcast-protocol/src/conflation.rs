//! The conflation profiles: the few intervals that the server offers, as a dense index.
//!
//! Few on purpose: clients that want the same interval share a packet. A profile is one byte, and any table by profile
//! is an array of [`Profile::COUNT`].

/// The offered intervals, the shortest first.
const INTERVALS_MS: [u32; Profile::COUNT] = [0, 10, 50, 100, 250, 500, 1000];

/// One of the offered intervals: at most one value per instrument and state channel in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Profile(u8);

impl Profile {
    /// How many there are.
    pub const COUNT: usize = 7;
    /// Every update as fast as the client can take it: interval 0.
    pub const IMMEDIATE: Self = Self(0);

    /// The shortest offered interval that is not below `ms`; `None` above the longest, 1000 ms.
    pub fn round_up(ms: u64) -> Option<Self> {
        let index = INTERVALS_MS.iter().position(|interval| u64::from(*interval) >= ms)?;
        Some(Self::from_index(index))
    }

    /// The profile with this index.
    ///
    /// # Panics
    /// When the index is not below [`Profile::COUNT`]: indices come from [`Profile::index`] or a loop over the count.
    pub fn from_index(index: usize) -> Self {
        assert!(index < Self::COUNT, "profile {index} of {}", Self::COUNT);
        Self(index as u8)
    }

    /// From 0, below [`Profile::COUNT`], in the order of the intervals.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The interval in milliseconds.
    pub fn interval_ms(self) -> u32 {
        INTERVALS_MS[self.index()]
    }

    /// The interval in nanoseconds.
    pub fn interval_ns(self) -> u64 {
        u64::from(self.interval_ms()) * 1_000_000
    }

    /// All of them, the shortest interval first.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        (0..Self::COUNT).map(Self::from_index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_rounded_up_to_the_next_that_is_offered() {
        for (asked, offered) in [(0, 0), (1, 10), (10, 10), (11, 50), (100, 100), (101, 250), (501, 1000), (1000, 1000)]
        {
            assert_eq!(Profile::round_up(asked).map(Profile::interval_ms), Some(offered), "{asked} ms");
        }
        assert_eq!(Profile::round_up(1001), None);
        assert_eq!(Profile::round_up(u64::MAX), None);
    }

    #[test]
    fn indices_are_dense_and_lead_back_to_the_profile() {
        assert_eq!(Profile::IMMEDIATE, Profile::from_index(0));
        assert_eq!(Profile::IMMEDIATE, Profile::default());
        for (index, profile) in Profile::all().enumerate() {
            assert_eq!(profile.index(), index);
            assert_eq!(Profile::round_up(u64::from(profile.interval_ms())), Some(profile));
            assert_eq!(profile.interval_ns(), u64::from(profile.interval_ms()) * 1_000_000);
        }
        assert_eq!(Profile::all().len(), Profile::COUNT);
    }
}
