//! The exponents of an instrument, and the mantissas of the venue's texts at these exponents. No value is ever a float.

use super::message::{Levels, Malformed};
use tickcast_protocol::decimal::{self, DecimalError};
use tickcast_protocol::record::PRICE_NONE;

/// The most decimals that a 64-bit mantissa can hold.
const DECIMALS_MAX: i8 = 18;

/// The exponents of an instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// A price is `px × 10^px_exp`.
    pub px_exp: i8,
    /// A size is `sz × 10^sz_exp`.
    pub sz_exp: i8,
}

impl Scale {
    /// The exponents that represent these texts exactly.
    pub fn of(prices: &[&str], sizes: &[&str]) -> Result<Self, Malformed> {
        let widest = |texts: &[&str]| texts.iter().map(|text| decimal::decimals(text)).max().unwrap_or(0);
        Self::of_decimals(widest(prices), widest(sizes))
    }

    /// The exponents that represent these levels exactly; `None` where there are no levels.
    pub fn of_levels(bids: &Levels<'_, '_>, asks: &Levels<'_, '_>) -> Result<Option<Self>, Malformed> {
        let mut widest = None;
        for level in bids.iter().chain(asks.iter()) {
            let (px, sz) = level?;
            let (px_widest, sz_widest) = widest.unwrap_or((0, 0));
            widest = Some((decimal::decimals(px).max(px_widest), decimal::decimals(sz).max(sz_widest)));
        }
        widest.map(|(px, sz)| Self::of_decimals(px, sz)).transpose()
    }

    fn of_decimals(px: i8, sz: i8) -> Result<Self, Malformed> {
        match px.max(sz) {
            0..=DECIMALS_MAX => Ok(Self { px_exp: -px, sz_exp: -sz }),
            beyond => Err(Malformed::Decimals(beyond)),
        }
    }

    /// The mantissa of a price.
    pub fn px(self, key: &'static str, text: &str) -> Result<i64, Malformed> {
        mantissa(key, text, self.px_exp)
    }

    /// The mantissa of a size, which is never below zero.
    pub fn sz(self, key: &'static str, text: &str) -> Result<i64, Malformed> {
        match mantissa(key, text, self.sz_exp)? {
            sz if sz < 0 => Err(Malformed::Negative { key, text: text.to_owned() }),
            sz => Ok(sz),
        }
    }

    /// Best price and size of a side; a size of 0 says that the side is empty.
    pub fn best(self, px_key: &'static str, px: &str, sz_key: &'static str, sz: &str) -> Result<(i64, i64), Malformed> {
        match (self.px(px_key, px)?, self.sz(sz_key, sz)?) {
            (_, 0) => Ok((PRICE_NONE, PRICE_NONE)),
            best => Ok(best),
        }
    }
}

fn mantissa(key: &'static str, text: &str, exponent: i8) -> Result<i64, Malformed> {
    decimal::parse(text, exponent).map_err(|error| Malformed::Decimal { key, text: text.to_owned(), error })
}

/// A day's sum: digits beyond the exponent are cut off, and a sum that is too large for the record is absent.
pub fn sum(key: &'static str, text: &str, exponent: i8) -> Result<i64, Malformed> {
    let beyond = usize::from(decimal::decimals(text).saturating_add(exponent).max(0).unsigned_abs());
    let (kept, cut) = text.split_at_checked(text.len() - beyond.min(text.len())).unwrap_or((text, ""));
    if !cut.bytes().all(|byte| byte.is_ascii_digit()) {
        return mantissa(key, text, exponent);
    }
    let whole = if cut.is_empty() { kept } else { kept.strip_suffix('.').unwrap_or(kept) };
    match decimal::parse(whole, exponent) {
        Err(DecimalError::Overflow) => Ok(PRICE_NONE),
        Err(error) => Err(Malformed::Decimal { key, text: text.to_owned(), error }),
        Ok(mantissa) => Ok(mantissa),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_fit_the_most_decimals_of_the_first_message() {
        assert_eq!(Scale::of(&["1.50", "1.5"], &["3", "0.001"]), Ok(Scale { px_exp: -2, sz_exp: -3 }));
        assert_eq!(Scale::of(&["61804"], &["35"]), Ok(Scale { px_exp: 0, sz_exp: 0 }));
        assert_eq!(Scale::of(&["0.0000000000000000001"], &["1"]), Err(Malformed::Decimals(19)));
    }

    #[test]
    fn empty_side_is_absent_and_negative_size_is_malformed() {
        let scale = Scale { px_exp: -2, sz_exp: -3 };
        assert_eq!(scale.best("b", "0.00", "B", "0.000"), Ok((PRICE_NONE, PRICE_NONE)));
        assert_eq!(scale.best("b", "1.25", "B", "0"), Ok((PRICE_NONE, PRICE_NONE)));
        assert_eq!(scale.best("b", "1.25", "B", "0.500"), Ok((125, 500)));
        assert_eq!(scale.sz("B", "-1"), Err(Malformed::Negative { key: "B", text: "-1".to_owned() }));
        assert!(matches!(
            scale.px("b", "1.255"),
            Err(Malformed::Decimal { key: "b", error: DecimalError::Precision, .. })
        ));
    }

    #[test]
    fn sums_are_cut_at_the_exponent_and_absent_if_too_large() {
        for (text, exponent, expected) in [
            ("18", -2, 1800),
            ("18.12999", -2, 1812),
            ("18.9", 0, 18),
            ("18.1", -2, 1810),
            ("99999999999999.00000000", -8, PRICE_NONE),
        ] {
            assert_eq!(sum("q", text, exponent), Ok(expected), "{text} at {exponent}");
        }
        for text in ["", "x", "1.2x999", "1.299x", "1.", ".5", "1.٣٣٣"] {
            assert!(sum("q", text, -2).is_err(), "{text:?}");
        }
    }
}
