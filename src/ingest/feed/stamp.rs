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
