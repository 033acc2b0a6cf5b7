//! The conflation intervals that servers offer, as a dense index.
//!
//! Few on purpose: clients with the same interval share packets. An interval is one byte, and a table by interval is an
//! array of [`ConflationInterval::COUNT`].

/// The offered intervals, the shortest first.
const INTERVALS_MS: [u32; ConflationInterval::COUNT] = [0, 10, 50, 100, 250, 500, 1000];

/// An offered interval: a client gets at most one value per instrument and state channel in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConflationInterval(u8);

impl ConflationInterval {
    /// How many intervals are offered.
    pub const COUNT: usize = 7;
    /// Interval 0: every update, as fast as the client can take it.
    pub const IMMEDIATE: Self = Self(0);
    /// The longest offered interval.
    pub const LONGEST: Self = Self(Self::COUNT as u8 - 1);

    /// The shortest offered interval that is not below `ms`; `None` above the longest, 1000 ms.
    pub fn round_up(ms: u64) -> Option<Self> {
        let index = INTERVALS_MS.iter().position(|interval| u64::from(*interval) >= ms)?;
        Some(Self::from_index(index))
    }

    /// The interval with this index.
    ///
    /// # Panics
    /// When the index is not below [`ConflationInterval::COUNT`]: indices come from [`ConflationInterval::index`] or a
    /// loop over the count.
    pub fn from_index(index: usize) -> Self {
        assert!(index < Self::COUNT, "interval {index} of {}", Self::COUNT);
        Self(index as u8)
    }

    /// From 0, below [`ConflationInterval::COUNT`], the shortest interval first.
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

    /// Every interval, the shortest first.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        (0..Self::COUNT).map(Self::from_index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_is_rounded_up_to_an_offered_one() {
        for (asked, offered) in [(0, 0), (1, 10), (10, 10), (11, 50), (100, 100), (101, 250), (501, 1000), (1000, 1000)]
        {
            assert_eq!(
                ConflationInterval::round_up(asked).map(ConflationInterval::interval_ms),
                Some(offered),
                "{asked} ms"
            );
        }
        assert_eq!(ConflationInterval::round_up(1001), None);
        assert_eq!(ConflationInterval::round_up(u64::MAX), None);
    }

    #[test]
    fn index_round_trips() {
        assert_eq!(ConflationInterval::IMMEDIATE, ConflationInterval::from_index(0));
        assert_eq!(ConflationInterval::IMMEDIATE, ConflationInterval::default());
        for (index, interval) in ConflationInterval::all().enumerate() {
            assert_eq!(interval.index(), index);
            assert_eq!(ConflationInterval::round_up(u64::from(interval.interval_ms())), Some(interval));
            assert_eq!(interval.interval_ns(), u64::from(interval.interval_ms()) * 1_000_000);
        }
        assert_eq!(ConflationInterval::all().len(), ConflationInterval::COUNT);
        assert_eq!(ConflationInterval::all().last(), Some(ConflationInterval::LONGEST));
    }
}
