//! The exponents of an instrument, and the mantissas of the venue's texts at these exponents. No value is ever a float.
//!
//! A venue may write more decimals than its values have, and values of any size: spot always writes eight decimals. So
//! exponents are chosen from what a value needs ([`Needs`]): the decimals that are written, unless mantissas would exceed
//! 2^53 and the value has fewer. A later value that does not fit adds its needs, and the exponents are chosen anew. Needs
//! only grow, so that exponents do not change back and forth.

use crate::error::Malformed;
use tickcast_protocol::decimal::{self, DecimalError};
use tickcast_protocol::record::PRICE_NONE;

/// The most decimals, and the most digits of a mantissa: a 64-bit mantissa holds any of them.
const DIGITS_MAX: i8 = 18;
/// Digits of a mantissa that any client holds exactly, with room for a value ten times as large.
const DIGITS_ROOMY: i8 = 15;
/// From here on not every client holds a mantissa exactly.
const INEXACT_FROM: u64 = 1 << 53;

/// What the prices or the sizes of an instrument need, as far as they were considered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Most decimals written.
    written: i8,
    /// Most decimals without zeros at the end.
    significant: i8,
    /// Most digits before the point.
    whole: i8,
}

impl Needs {
    /// Adds what a text needs. One that no exponent represents adds nothing, nor does one that is so large that the
    /// decimals of the former ones would have no room: it is left out, not they. Of more decimals than there is room for,
    /// those count that there is room for.
    pub fn add(&mut self, text: &str) {
        let significant = decimal::significant_decimals(text);
        let whole = decimal::whole_digits(text).min(i8::MAX as u8) as i8;
        let has_room = |decimals: i8| decimals.saturating_add(whole) <= DIGITS_MAX;
        if !has_room(significant) || !has_room(self.significant) {
            return;
        }
        // Zeros without end, as in `0E-99`, are no choice of the venue.
        let written = Some(decimal::decimals(text)).filter(|written| *written <= DIGITS_MAX);
        self.written = self.written.max(written.unwrap_or(significant));
        self.whole = self.whole.max(whole);
        self.significant = self.significant.max(significant).min(DIGITS_MAX - self.whole);
    }

    /// The exponent that is best for them.
    fn exponent(self) -> i8 {
        let roomy = self.significant.max(DIGITS_ROOMY - self.whole);
        -self.written.min(roomy).min(DIGITS_MAX - self.whole).clamp(0, DIGITS_MAX)
    }
}

/// The needs of an instrument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScaleNeeds {
    /// Of its prices.
    pub px: Needs,
    /// Of its sizes.
    pub sz: Needs,
}

impl ScaleNeeds {
    /// What was needed for these exponents.
    pub fn of(scale: Scale) -> Self {
        let needs = |exponent: i8| {
            let decimals = exponent.saturating_neg().clamp(0, DIGITS_MAX);
            Needs { written: decimals, significant: decimals, whole: 0 }
        };
        Self { px: needs(scale.px_exp), sz: needs(scale.sz_exp) }
    }

    /// The exponents that are best for them.
    pub fn scale(self) -> Scale {
        Scale { px_exp: self.px.exponent(), sz_exp: self.sz.exponent() }
    }
}

/// The exponents of an instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// A price is `px × 10^px_exp`.
    pub px_exp: i8,
    /// A size is `sz × 10^sz_exp`.
    pub sz_exp: i8,
}

/// True if a text is a number that does not fit these exponents, or fits with a mantissa that not every client holds
/// exactly.
pub fn is_tight(text: &str, exponent: i8) -> bool {
    match decimal::parse(text, exponent) {
        Ok(mantissa) => mantissa.unsigned_abs() >= INEXACT_FROM,
        Err(DecimalError::Precision | DecimalError::Overflow) => true,
        Err(DecimalError::Malformed) => false,
    }
}

impl Scale {
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

    /// Best price and size of a side; a size of 0 says that the side is empty. A side that does not fit is absent: the
    /// former one is no longer true.
    pub fn best(self, px_key: &'static str, px: &str, sz_key: &'static str, sz: &str) -> Result<(i64, i64), Malformed> {
        match (absent_if_unfit(self.px(px_key, px))?, absent_if_unfit(self.sz(sz_key, sz))?) {
            (_, 0) | (PRICE_NONE, _) | (_, PRICE_NONE) => Ok((PRICE_NONE, PRICE_NONE)),
            best => Ok(best),
        }
    }
}

/// An absent value in place of one that does not fit.
pub fn absent_if_unfit(value: Result<i64, Malformed>) -> Result<i64, Malformed> {
    match value {
        Err(Malformed::Decimal { error: DecimalError::Precision | DecimalError::Overflow, .. }) => Ok(PRICE_NONE),
        value => value,
    }
}

fn mantissa(key: &'static str, text: &str, exponent: i8) -> Result<i64, Malformed> {
    decimal::parse(text, exponent).map_err(|error| Malformed::Decimal { key, text: text.to_owned(), error })
}

/// A day's sum: digits beyond the exponent are cut off, and a sum that is too large for the record is absent. In scientific
/// notation nothing is cut off, and a sum that does not fit is absent.
pub fn sum(key: &'static str, text: &str, exponent: i8) -> Result<i64, Malformed> {
    if text.contains(['e', 'E']) {
        return absent_if_unfit(mantissa(key, text, exponent));
    }
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

    fn scale(prices: &[&str], sizes: &[&str]) -> Scale {
        let mut needs = ScaleNeeds::default();
        prices.iter().for_each(|text| needs.px.add(text));
        sizes.iter().for_each(|text| needs.sz.add(text));
        needs.scale()
    }

    #[test]
    fn exponents_are_the_written_decimals_unless_mantissas_would_be_too_large() {
        for (prices, sizes, px_exp, sz_exp) in [
            (&["1.50", "1.5"][..], &["3", "0.001"][..], -2, -3),
            (&["61804"], &["35"], 0, 0),
            (&["91234.50000000"], &["0.00012000"], -8, -8),
            // A coin that is cheap, and a size of twelve digits.
            (&["0.00000048"], &["120000000000.00000000"], -8, -3),
            (&["0.00000048"], &["120000000000.00000000", "5.12345000"], -8, -5),
            (&["0.00000048"], &["120000000000.00000000", "5.12345678"], -8, -6),
            (&["4.3E-7"], &["0E-8"], -8, -8),
            // One that is far too large, before and after such as are usual.
            (&["0.0125", "100000000000000000"], &["0.5", "999999999999999999"], -4, -1),
            (&["10000000000000", "0.0125000"], &["12", "0E-400", "1e-400", "00.50", "1e17"], -4, -2),
            (&["0.0000000000000000001", "1.5"], &["9999999999999999999", "2"], -1, 0),
        ] {
            assert_eq!(scale(prices, sizes), Scale { px_exp, sz_exp }, "{prices:?} {sizes:?}");
        }
    }

    #[test]
    fn texts_that_do_not_fit_are_told_from_those_that_are_no_numbers() {
        let tight = [("0.50011", -4, true), ("0.5001", -4, false), ("90071992.54740992", -8, true), ("x", -4, false)];
        tight.into_iter().for_each(|(text, exponent, tight)| assert_eq!(is_tight(text, exponent), tight, "{text}"));
        let scale = Scale { px_exp: -2, sz_exp: -2 };
        assert_eq!(scale.best("b", "1.255", "B", "1"), Ok((PRICE_NONE, PRICE_NONE)));
        assert!(scale.best("b", "x", "B", "1").is_err());
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
            ("4.3E-7", -7, PRICE_NONE),
            ("4.3E-7", -8, 43),
            ("4.3E-17", -17, PRICE_NONE),
            ("0E-8", -2, 0),
        ] {
            assert_eq!(sum("q", text, exponent), Ok(expected), "{text} at {exponent}");
        }
        for text in ["", "x", "1.2x999", "1.299x", "1.", ".5", "1.٣٣٣"] {
            assert!(sum("q", text, -2).is_err(), "{text:?}");
        }
    }
}
