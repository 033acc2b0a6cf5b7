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

/// The mantissa of `text` at `exponent`. Zeros beyond the exponent are allowed.
///
/// ```
/// use tickcast_protocol::decimal::{DecimalError, parse};
///
/// assert_eq!(parse("61837.63", -2), Ok(6_183_763));
/// assert_eq!(parse("61837.635", -2), Err(DecimalError::Precision));
/// ```
///
/// # Errors
/// When the text is not a number, or its mantissa is not exact or not 64 bits.
pub fn parse(text: &str, exponent: i8) -> Result<i64, DecimalError> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let well_formed = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty()
        || !well_formed(whole)
        || !well_formed(fraction)
        || (fraction.is_empty() && digits.contains('.'))
    {
        return Err(DecimalError::Malformed);
    }
    let all = whole.len() + fraction.len();
    // The mantissa keeps the digits down to 10^exponent: `kept` of them, the rest must be zeros.
    let kept = usize::try_from(whole.len() as i64 - i64::from(exponent)).unwrap_or(0);
    let mut mantissa = 0i64;
    for (index, byte) in whole.bytes().chain(fraction.bytes()).enumerate() {
        let digit = i64::from(byte - b'0');
        if index < kept {
            mantissa = push(mantissa, digit)?;
        } else if digit != 0 {
            return Err(DecimalError::Precision);
        }
    }
    for _ in all..kept {
        mantissa = push(mantissa, 0)?;
    }
    // The digits were summed below zero, where one more value fits.
    if negative { Ok(mantissa) } else { mantissa.checked_neg().ok_or(DecimalError::Overflow) }
}

/// How many decimals `text` is written with: the negative of the exponent that a venue's fixed notation implies.
pub fn decimals(text: &str) -> i8 {
    text.split_once('.').map_or(0, |(_, fraction)| i8::try_from(fraction.len()).unwrap_or(i8::MAX))
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
        for text in ["", "-", ".", "1.", ".5", "0.-10000", "1e5", "+1", " 1", "1.2.3", "NaN", "٣"] {
            assert_eq!(parse(text, -8), Err(DecimalError::Malformed), "{text:?}");
        }
        assert_eq!(parse("0.001", -2), Err(DecimalError::Precision));
        assert_eq!(parse("9223372036854775808", 0), Err(DecimalError::Overflow));
        assert_eq!(parse("1000000000000", -8), Err(DecimalError::Overflow));
    }
}
