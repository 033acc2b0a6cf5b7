//! Where reading of a partition begins, and what a place that the partition does not have says about it.
//!
//! A place is the offset of the next message. Offsets of one partition grow, and have holes: the control records of
//! transactions, messages of aborted transactions, and what compaction has removed. So a hole is no loss. What is lost is
//! known by the ends of the partition: what retention has deleted lies before its first offset, and a place behind its
//! last one is of a topic that was deleted and made anew.

use tickcast_venues::stamp;

/// Where a partition begins of which nothing is known: the value of `from=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    New,
    All,
    Offset(i64),
    /// At the first message of this time or later, ms since the Unix epoch.
    TimeMs(i64),
}

impl From {
    /// Parses the value of `from=`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(value: &str) -> Result<Self, String> {
        match value {
            "new" => Ok(Self::New),
            "all" => Ok(Self::All),
            _ => {
                let offset = value.parse().ok().filter(|offset: &i64| *offset >= 0).map(Self::Offset);
                let time = || stamp::of_rfc3339(value).ok().map(|ns| Self::TimeMs((ns / 1_000_000) as i64));
                offset.or_else(time).ok_or_else(|| {
                    format!(
                        "from: invalid value {value:?}: expected new, all, an offset, or a time such as \
                         2026-01-30T09:00:00Z"
                    )
                })
            }
        }
    }
}

/// Where reading of a partition begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At a place that is known.
    At(i64),
    /// At this offset, or at the end of the partition that is nearest to it.
    Within(i64),
    /// With the first message that there is.
    Low,
    /// With the next message that comes.
    High,
    /// See [`From::TimeMs`].
    TimeMs(i64),
}

/// What is known of the place in a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The place of this run of the server.
    pub taken: Option<i64>,
    /// The place that the group has committed.
    pub committed: Option<i64>,
    /// The place of another partition of the topic is known: this one was added since.
    pub is_added: bool,
}

impl Known {
    /// Where reading begins.
    pub fn begin(self, from: From) -> Begin {
        match (self.taken.max(self.committed), from) {
            (Some(place), _) => Begin::At(place),
            (None, From::All) => Begin::Low,
            (None, _) if self.is_added => Begin::Low,
            (None, From::New) => Begin::High,
            (None, From::Offset(offset)) => Begin::Within(offset),
            (None, From::TimeMs(ms)) => Begin::TimeMs(ms),
        }
    }
}

/// What a place is, of which the broker says that the partition does not have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The partition has it now.
    Within,
    /// So many messages before the first one were deleted.
    Trimmed { lost: u64 },
    /// The partition was made anew, or its end was lost.
    Anew,
}

impl Reach {
    /// `low` is the first offset that the partition has, `high` the one after the last.
    pub fn of(place: i64, low: i64, high: i64) -> Self {
        match place {
            _ if place < low => Self::Trimmed { lost: low.abs_diff(place) },
            _ if place > high => Self::Anew,
            _ => Self::Within,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_of_this_run_or_of_the_group_comes_before_the_argument() {
        let known = |taken, committed, is_added| Known { taken, committed, is_added };
        for (known, from, begin) in [
            (known(Some(7), Some(5), true), From::All, Begin::At(7)),
            (known(Some(5), Some(7), true), From::New, Begin::At(7)),
            (known(None, Some(0), false), From::New, Begin::At(0)),
            (known(None, None, false), From::New, Begin::High),
            (known(None, None, true), From::New, Begin::Low),
            (known(None, None, true), From::Offset(9), Begin::Low),
            (known(None, None, false), From::Offset(9), Begin::Within(9)),
            (known(None, None, false), From::TimeMs(3), Begin::TimeMs(3)),
            (known(None, None, false), From::All, Begin::Low),
        ] {
            assert_eq!(known.begin(from), begin, "{known:?} {from:?}");
        }
    }

    #[test]
    fn place_outside_of_the_partition_is_trimmed_or_of_another_one() {
        assert_eq!(Reach::of(3, 10, 20), Reach::Trimmed { lost: 7 });
        assert_eq!([10, 15, 20].map(|place| Reach::of(place, 10, 20)), [Reach::Within; 3]);
        assert_eq!(Reach::of(21, 10, 20), Reach::Anew);
        assert_eq!(Reach::of(0, 0, 0), Reach::Within);
    }

    #[test]
    fn beginning_is_a_word_an_offset_or_a_time() {
        let time = From::TimeMs(1_769_763_600_000);
        for (value, from) in [("new", From::New), ("all", From::All), ("0", From::Offset(0)), ("12", From::Offset(12))]
        {
            assert_eq!(From::parse(value), Ok(from));
        }
        assert_eq!(From::parse("2026-01-30T09:00:00Z"), Ok(time));
        for value in ["", "-1", "old", "1e3", "2026-01-30"] {
            let error = From::parse(value).expect_err(value);
            assert!(error.starts_with(&format!("from: invalid value {value:?}: expected new, all, an offset")));
        }
    }
}
