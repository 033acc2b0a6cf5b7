//! Days and times of the UTC calendar, as names of files and lines of the log have them.

/// Ms of a day.
const DAY_MS: u64 = 86_400_000;

/// A day of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Day {
    pub(super) year: u64,
    pub(super) month: u64,
    pub(super) day: u64,
}

impl Day {
    /// The day of a time, ms since 1970.
    pub(super) fn of(ms: u64) -> Self {
        // By Hinnant: days of a year that begins in March, in eras of 400 years.
        let days = ms / DAY_MS + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        Self { year, month, day: of_year - (153 * from_march + 2) / 5 + 1 }
    }

    /// When it begins, ms since 1970; `None` for what is no day, or one before 1970.
    pub(super) fn start_ms(self) -> Option<u64> {
        let Self { year, month, day } = self;
        if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let year = if month <= 2 { year - 1 } else { year };
        let from_march = if month > 2 { month - 3 } else { month + 9 };
        let (era, of_era) = (year / 400, year % 400);
        let of_year = (153 * from_march + 2) / 5 + day - 1;
        let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
        let start_ms = days * DAY_MS;
        // A day that the month does not have is one of the next month.
        (Self::of(start_ms) == self).then_some(start_ms)
    }
}

impl std::fmt::Display for Day {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// A time as RFC 3339 writes it: `2026-12-01T02:38:11.123Z`.
pub(super) fn utc(ms: u64) -> String {
    let of_day = ms % DAY_MS;
    let (hours, minutes, seconds) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60);
    format!("{}T{hours:02}:{minutes:02}:{seconds:02}.{:03}Z", Day::of(ms), of_day % 1000)
}

/// The time that [`utc`] wrote; `None` for another text.
pub(super) fn parse_utc(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| digits(text.get(range)?);
    let day = Day { year: number(0..4)?, month: number(5..7)?, day: number(8..10)? };
    let (hours, minutes, seconds, ms) = (number(11..13)?, number(14..16)?, number(17..19)?, number(20..23)?);
    let ms = day.start_ms()? + ((hours * 60 + minutes) * 60 + seconds) * 1000 + ms;
    (utc(ms) == text).then_some(ms)
}

/// The number that some ASCII digits are.
pub(super) fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_again() {
        // From `date -u -d @S`.
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_796_092_691_042, "2026-12-01T02:38:11.042Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!((utc(ms).as_str(), parse_utc(text)), (text, Some(ms)), "{text}");
        }
        for text in
            ["", "2026-02-29T00:00:00.000Z", "2026-01-01T24:00:00.000Z", "2026-01-01 00:00:00.000Z", "+026-01-01"]
        {
            assert_eq!(parse_utc(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_of_130_years_has_its_start() {
        for days in 0..130 * 365 {
            let start_ms = days * DAY_MS;
            assert_eq!(Day::of(start_ms + 7).start_ms(), Some(start_ms));
        }
        assert_eq!(Day { year: 2026, month: 11, day: 31 }.start_ms(), None);
        assert_eq!(Day { year: 1969, month: 12, day: 31 }.start_ms(), None);
    }
}
