//! Parts of messages.

use crate::market::book::{Change, Level, Side};

/// A JSON string.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `[["price","size"],…]`
pub fn pairs<'a>(levels: impl IntoIterator<Item = &'a Level>) -> String {
    let texts: Vec<_> = levels.into_iter().map(|(px, sz)| format!(r#"["{px}","{sz}"]"#)).collect();
    format!("[{}]", texts.join(","))
}

/// `[["price","size"],…]` of the changes of one side.
pub fn changed_pairs(changes: &[Change], side: Side) -> String {
    let of_side = changes.iter().filter(|change| change.side == side);
    let texts: Vec<_> = of_side.map(|change| format!(r#"["{}","{}"]"#, change.px, change.sz)).collect();
    format!("[{}]", texts.join(","))
}

/// Milliseconds of a time in ns.
pub fn ms(ns: u64) -> u64 {
    ns / 1_000_000
}

/// `2026-04-07T14:30:03.000000Z`
pub fn rfc3339(ns: u64) -> String {
    let (seconds, micros) = (ns / 1_000_000_000, ns / 1_000 % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days from 1 March of year 0, so that a leap day is the last of its year.
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(1_709_164_799_123_456_789), "2024-02-28T23:59:59.123456Z");
        assert_eq!(rfc3339(1_709_164_800_000_000_000), "2024-02-29T00:00:00.000000Z");
        assert_eq!(rfc3339(1_767_225_600_000_000_000), "2026-01-01T00:00:00.000000Z");
    }
}
