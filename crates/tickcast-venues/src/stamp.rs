//! Times that other systems have written: seconds, milliseconds, microseconds or nanoseconds since the Unix epoch, told
//! apart by the size of the number.
//!
//! A time from [`EARLIEST_S`] to [`LATEST_S`] has 10, 13, 16 or 19 digits before a point, and no number is in that range
//! in two units. A number that is in it in no unit is refused: a time of another unit would play a recording at another
//! speed. Cost: some 10 ns.

/// The earliest time, the year 2009: before it no venue of a recording existed. Seconds since the Unix epoch.
pub const EARLIEST_S: u64 = 1_230_768_000;
/// The first time after the latest, the year 2100. Seconds since the Unix epoch.
pub const LATEST_S: u64 = 4_102_444_800;
/// Nanoseconds of each unit.
const UNITS_NS: [u64; 4] = [1_000_000_000, 1_000_000, 1_000, 1];

/// A number that is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no time: expected seconds, milliseconds, microseconds or nanoseconds since 1970, from the year 2009 to \
     the year 2099"
)]
pub struct NotATime {
    text: String,
}

/// The time that `text` gives, in ns since the Unix epoch: digits, with or without a fraction. Digits below a nanosecond
/// are cut off.
pub fn parse(text: &str) -> Result<u64, NotATime> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let whole = Some(whole).filter(|whole| is_number(whole) && is_number(fraction));
    let time_ns = whole.and_then(|whole| whole.parse().ok()).and_then(|whole| in_range(whole, fraction));
    time_ns.ok_or_else(|| NotATime { text: text.chars().take(40).collect() })
}

/// The time that a whole number gives, in ns since the Unix epoch.
pub fn of_number(number: u64) -> Result<u64, NotATime> {
    in_range(number, "0").ok_or_else(|| NotATime { text: number.to_string() })
}

/// The time that a text of RFC 3339 in UTC gives, in ns since the Unix epoch: `2022-10-19T23:28:22.061769Z`, with any
/// number of decimals. Digits below a nanosecond are cut off.
pub fn of_rfc3339(text: &str) -> Result<u64, NotATime> {
    let time_ns = rfc3339_seconds(text).and_then(|(seconds, fraction)| {
        let is_known = (EARLIEST_S..LATEST_S).contains(&seconds);
        is_known.then(|| seconds * 1_000_000_000 + fraction_ns(fraction, 1_000_000_000))
    });
    time_ns.ok_or_else(|| NotATime { text: text.chars().take(40).collect() })
}

/// Whole seconds since the Unix epoch, and the decimals of the second.
fn rfc3339_seconds(text: &str) -> Option<(u64, &str)> {
    let (date, time) = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00"))?.split_once('T')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let is_time = hour < 24 && minute < 60 && second < 61 && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_time || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((days_since_1970(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second, fraction))
}

/// Three numbers of at most four digits between separators.
fn numbers(text: &str, separator: char) -> Option<[u64; 3]> {
    let mut parts = text.split(separator).map(|part| {
        let is_number = (1..=4).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { part.parse().ok() } else { None }
    });
    let all = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(all)
}

/// Days from 1 January 1970 to a date of the Gregorian calendar; `None` before. The year is taken to begin in March, so
/// that a leap day is its last.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    // From 1 March of the year 0.
    days.checked_sub(719_468)
}

fn in_range(whole: u64, fraction: &str) -> Option<u64> {
    let unit_ns = UNITS_NS.into_iter().find(|unit_ns| {
        let a_second = 1_000_000_000 / unit_ns;
        // A time in nanoseconds fits into 64 bits until the year 2554.
        (EARLIEST_S * a_second..LATEST_S * a_second).contains(&whole)
    })?;
    Some(whole * unit_ns + fraction_ns(fraction, unit_ns))
}

/// The digits behind the point, of a unit of this many ns.
fn fraction_ns(digits: &str, unit_ns: u64) -> u64 {
    let mut place_ns = unit_ns;
    let digit = |byte: u8| u64::from(byte - b'0');
    digits.bytes().fold(0, |sum_ns, byte| {
        place_ns /= 10;
        sum_ns + digit(byte) * place_ns
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NS: u64 = 1_723_161_254_087_891_268;

    #[test]
    fn the_size_of_the_number_tells_the_unit() {
        for (text, time_ns) in [
            ("1723161254", NS / 1_000_000_000 * 1_000_000_000),
            ("1723161254087", NS / 1_000_000 * 1_000_000),
            ("1723161254087891", NS / 1_000 * 1_000),
            ("1723161254087891268", NS),
            ("1723161254.087891268", NS),
            ("1723161254.0878912689999", NS),
            ("1723161254087.891268", NS),
            ("1723161254087891.268", NS),
            ("1723161254087891268.9", NS),
            ("1723161254.5", 1_723_161_254_500_000_000),
            ("0001723161254.5", 1_723_161_254_500_000_000),
        ] {
            assert_eq!(parse(text), Ok(time_ns), "{text}");
        }
        assert_eq!(of_number(1_723_161_254_087), parse("1723161254087"));
    }

    #[test]
    fn each_unit_has_the_same_range_and_nothing_else_is_a_time() {
        for a_second in [1, 1_000, 1_000_000, 1_000_000_000] {
            assert_eq!(of_number(EARLIEST_S * a_second), Ok(EARLIEST_S * 1_000_000_000));
            assert!(of_number(EARLIEST_S * a_second - 1).is_err());
            assert!(of_number(LATEST_S * a_second).is_err());
            let latest_ns = of_number(LATEST_S * a_second - 1).expect("the last of the range");
            assert!(((LATEST_S - 1) * 1_000_000_000..LATEST_S * 1_000_000_000).contains(&latest_ns));
        }
        for number in [0, 1, 7, 20_240_808, 172_316_125, 17_231_612_540, 172_316_125_408_789, u64::MAX] {
            assert!(of_number(number).is_err(), "{number}");
        }
    }

    #[test]
    fn texts_of_rfc_3339_are_read_with_any_number_of_decimals() {
        for (text, time_ns) in [
            ("2022-10-19T23:28:22.061769Z", 1_666_222_102_061_769_000),
            ("2023-10-06T17:35:55Z", 1_696_613_755_000_000_000),
            ("2024-02-29T00:00:00.1Z", 1_709_164_800_100_000_000),
            ("2024-03-01T00:00:00.123456789987Z", 1_709_251_200_123_456_789),
            ("2099-12-31T23:59:59.9+00:00", 4_102_444_799_900_000_000),
        ] {
            assert_eq!(of_rfc3339(text), Ok(time_ns), "{text}");
        }
        for text in [
            "",
            "T",
            "0001-01-01T00:00:00.000000Z",
            "1970-01-01T00:00:00.000000Z",
            "2022-13-19T23:28:22Z",
            "2022-10-19T24:28:22Z",
            "2022-10-19 23:28:22Z",
            "2022-10-19T23:28:22.x1Z",
            "2022-10-19T23:28:22",
            "9999999-10-19T23:28:22Z",
            "2022-10-19-01T23:28:22Z",
        ] {
            assert!(of_rfc3339(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_value_and_what_is_expected() {
        for text in ["", ".", "1723161254.", ".5", "-1723161254", "+1723161254", "1.7e9", "17231612540 ", "x", "99e99"]
        {
            assert!(parse(text).is_err(), "{text:?}");
        }
        let message = parse("1231006").expect_err("no unit has it").to_string();
        assert!(message.starts_with("\"1231006\" is no time: expected seconds, milliseconds,"), "{message}");
        assert!(parse(&"9".repeat(100)).expect_err("too long").to_string().len() < 250);
    }
}
