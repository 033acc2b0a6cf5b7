//! Decimal text to mantissa and back, exactly: no value passes through a float.
//!
//! A value is `mantissa × 10^exponent`; the exponent belongs to the instrument, so records carry mantissas alone.

/// Why text is not a price or size at this exponent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// Not `[-]digits[.digits]`.
    #[error("not a decimal number")]
    Malformed,
    /// Digits beyond the exponent that are not zero.
    #[error("more decimals than the exponent holds")]
    Precision,
    /// Does not fit into an `i64` mantissa.
    #[error("too large for a 64-bit mantissa")]
    Overflow,
}

/// Longest text of a number, bytes.
const TEXT_BYTES_MAX: usize = 200;

/// The parts of the text of a number: `[-]digits[.digits][(e|E)[+|-]digits]`.
struct Parts<'a> {
    is_negative: bool,
    whole: &'a str,
    fraction: &'a str,
    /// The power of ten that is written behind an `e`.
    power: i32,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Result<Self, DecimalError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(DecimalError::Malformed);
        }
        let (is_negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (digits, power) = match rest.split_once(['e', 'E']) {
            Some((digits, power)) => (digits, parse_power(power)?),
            None => (rest, 0),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let has_digits_only = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let is_cut = whole.is_empty() || (fraction.is_empty() && digits.contains('.'));
        if is_cut || !has_digits_only(whole) || !has_digits_only(fraction) {
            return Err(DecimalError::Malformed);
        }
        Ok(Self { is_negative, whole, fraction, power })
    }

    /// The digits, from the first that is not zero to the last, and the power of ten of the last.
    fn significant(&self) -> (impl Iterator<Item = u8> + use<'a>, i32) {
        let digits = self.whole.bytes().chain(self.fraction.bytes());
        let trailing = digits.clone().rev().take_while(|digit| *digit == b'0').count();
        let count = self.whole.len() + self.fraction.len() - trailing;
        let lowest = self.power - self.fraction.len() as i32 + trailing as i32;
        (digits.take(count).skip_while(|digit| *digit == b'0'), lowest)
    }
}

/// A power of ten, bounded: 10^1000 does not fit in any case, and no loop runs so often.
fn parse_power(text: &str) -> Result<i32, DecimalError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DecimalError::Malformed);
    }
    let power = digits.parse::<i32>().unwrap_or(i32::MAX).min(1000);
    Ok(if text.starts_with('-') { -power } else { power })
}

/// The mantissa of `text` at `exponent`. Zeros beyond the exponent are allowed, as is scientific notation.
///
/// ```
/// use tickcast_protocol::decimal::{DecimalError, parse};
///
/// assert_eq!(parse("61837.63", -2), Ok(6_183_763));
/// assert_eq!(parse("4.3E-7", -8), Ok(43));
/// assert_eq!(parse("61837.635", -2), Err(DecimalError::Precision));
/// ```
///
/// # Errors
/// When the text is not a number, or its mantissa is not exact or not 64 bits.
pub fn parse(text: &str, exponent: i8) -> Result<i64, DecimalError> {
    let parts = Parts::of(text)?;
    let (digits, lowest) = parts.significant();
    let mut mantissa = 0i64;
    for digit in digits {
        mantissa = push(mantissa, i64::from(digit - b'0'))?;
    }
    if mantissa == 0 {
        return Ok(0);
    }
    let zeros = lowest - i32::from(exponent);
    if zeros < 0 {
        return Err(DecimalError::Precision);
    }
    for _ in 0..zeros {
        mantissa = push(mantissa, 0)?;
    }
    // The digits were summed below zero, where one more value fits.
    if parts.is_negative { Ok(mantissa) } else { mantissa.checked_neg().ok_or(DecimalError::Overflow) }
}

/// How many decimals `text` is written with: the negative of the exponent that a venue's fixed notation implies.
pub fn decimals(text: &str) -> i8 {
    let written = Parts::of(text).map_or(0, |parts| parts.fraction.len() as i32 - parts.power);
    written.clamp(0, i32::from(i8::MAX)) as i8
}

/// How many decimals the value of `text` has: those that are written, without the zeros at their end.
pub fn significant_decimals(text: &str) -> i8 {
    let lowest = Parts::of(text).map_or(0, |parts| {
        let (mut digits, lowest) = parts.significant();
        if digits.next().is_some() { lowest } else { 0 }
    });
    (-lowest).clamp(0, i32::from(i8::MAX)) as i8
}

/// How many digits the value of `text` has before the decimal point; 0 for a value below 1.
pub fn whole_digits(text: &str) -> u8 {
    let digits = Parts::of(text).map_or(0, |parts| {
        let (digits, lowest) = parts.significant();
        match digits.count() {
            0 => 0,
            count => count as i32 + lowest,
        }
    });
    digits.clamp(0, i32::from(u8::MAX)) as u8
}

/// The mantissa at the exponent `to` of a value whose mantissa at the exponent `from` is `mantissa`; `None` if it is not
/// exact or not 64 bits.
pub fn rescale(mantissa: i64, from: i8, to: i8) -> Option<i64> {
    if mantissa == 0 {
        return Some(0);
    }
    let factor = 10i64.checked_pow(u32::from(from.abs_diff(to)))?;
    match from >= to {
        true => mantissa.checked_mul(factor),
        false => (mantissa % factor == 0).then(|| mantissa / factor),
    }
}

/// Appends `mantissa × 10^exponent` with all its decimals: `(6183763, -2)` gives `61837.63`.
pub fn format(mantissa: i64, exponent: i8, out: &mut String) {
    if mantissa < 0 {
        out.push('-');
    }
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(mantissa.unsigned_abs());
    let zeros = |count: usize| std::iter::repeat_n('0', count);
    let places = usize::from(exponent.unsigned_abs());
    if exponent >= 0 {
        out.push_str(digits);
        out.extend(zeros(if mantissa == 0 { 0 } else { places }));
    } else if digits.len() > places {
        let (whole, fraction) = digits.split_at(digits.len() - places);
        out.push_str(whole);
        out.push('.');
        out.push_str(fraction);
    } else {
        out.push_str("0.");
        out.extend(zeros(places - digits.len()));
        out.push_str(digits);
    }
}

/// [`format()`] into a new string.
pub fn to_string(mantissa: i64, exponent: i8) -> String {
    let mut text = String::new();
    format(mantissa, exponent, &mut text);
    text
}

fn push(mantissa: i64, digit: i64) -> Result<i64, DecimalError> {
    mantissa.checked_mul(10).and_then(|wide| wide.checked_sub(digit)).ok_or(DecimalError::Overflow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extreme_values_parse_and_format() {
        for (text, exponent, mantissa) in [
            ("61837.63000000", -8, 6_183_763_000_000),
            ("61837.63000000", -2, 6_183_763),
            ("0", -8, 0),
            ("-0.5", -1, -5),
            ("1200", 2, 12),
            ("-9223372036854775808", 0, i64::MIN),
            ("9223372036854775807", 0, i64::MAX),
            ("7", -3, 7_000),
            ("4.3E-7", -8, 43),
            ("4.3e-7", -7 - 1, 43),
            ("0E-8", -2, 0),
            ("0.000", 3, 0),
            ("1.5E+3", -1, 15_000),
            ("-1200e-2", 0, -12),
            ("000000000000000000000000.5", -1, 5),
        ] {
            assert_eq!(parse(text, exponent), Ok(mantissa), "{text} at {exponent}");
        }
        assert_eq!(to_string(-5, -1), "-0.5");
        assert_eq!(to_string(6_183_763, -2), "61837.63");
        assert_eq!(to_string(12, 2), "1200");
        assert_eq!(to_string(1, -20), "0.00000000000000000001");
        assert_eq!(to_string(i64::MIN, 0), "-9223372036854775808");
    }

    #[test]
    fn malformed_text_is_an_error() {
        for text in
            ["", "-", ".", "1.", ".5", "0.-10000", "1e", "1e+", "e5", "1e5.0", "1e--5", "+1", " 1", "1.2.3", "NaN", "٣"]
        {
            assert_eq!(parse(text, -8), Err(DecimalError::Malformed), "{text:?}");
        }
        assert_eq!(parse("0.001", -2), Err(DecimalError::Precision));
        assert_eq!(parse("9223372036854775808", 0), Err(DecimalError::Overflow));
        assert_eq!(parse("1000000000000", -8), Err(DecimalError::Overflow));
        assert_eq!(parse("1E20000000", 0), Err(DecimalError::Overflow));
        assert_eq!(parse("1E-20000000", 0), Err(DecimalError::Precision));
        assert_eq!(parse("1E99999999999999999999", 0), Err(DecimalError::Overflow));
        assert_eq!(parse(&"1".repeat(201), 0), Err(DecimalError::Malformed));
    }

    #[test]
    fn decimals_are_counted_as_written_and_as_significant() {
        for (text, written, significant) in [
            ("61837.63000000", 8, 2),
            ("0.00000048", 8, 8),
            ("120000000000.00000000", 8, 0),
            ("0.00000000", 8, 0),
            ("1200", 0, 0),
            ("4.3E-7", 8, 8),
            ("4.30E-7", 9, 8),
            ("1.5E+3", 0, 0),
            ("0E-8", 8, 0),
        ] {
            assert_eq!((decimals(text), significant_decimals(text)), (written, significant), "{text}");
        }
        let whole = [("61837.63", 5), ("0.00000048", 0), ("1200", 4), ("4.3E-7", 0), ("1.5E+3", 4), ("0", 0), ("x", 0)];
        whole.into_iter().for_each(|(text, digits)| assert_eq!(whole_digits(text), digits, "{text}"));
    }

    #[test]
    fn mantissas_are_rescaled_exactly_or_not_at_all() {
        assert_eq!(rescale(5_001, -4, -5), Some(50_010));
        assert_eq!(rescale(50_010, -5, -4), Some(5_001));
        assert_eq!(rescale(50_011, -5, -4), None);
        assert_eq!(rescale(i64::MAX / 5, 0, -1), None);
        assert_eq!(rescale(0, 100, -100), Some(0));
        assert_eq!(rescale(1, 100, -100), None);
        assert_eq!(rescale(-7, 0, -2), Some(-700));
    }
}
