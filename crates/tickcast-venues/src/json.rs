//! JSON of venues: a document is parsed in place, and values are looked up in it by key, in any order.
//!
//! Prices and sizes stay text, since their exponent belongs to the instrument. simd-json gives no text of a number, so
//! for a venue that writes them as numbers, [`JsonReader::read_numbers_as_text`] puts every number in quotes before.
//! Cost: no allocation once the buffers have grown; quoting adds one pass over the message.

use simd_json::prelude::{TypedScalarValue, ValueAsScalar, ValueIntoString};
pub use simd_json::value::tape::{Array, Object, Value};
use simd_json::{Buffers, Tape};
use tickcast_protocol::{BookSide, Side};

use crate::error::{Malformed, TimeFault};
use crate::stamp::{self, NotATime};

/// Buffers of a message larger than this are freed after use.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Parses messages; keeps its buffers between them.
pub struct JsonReader {
    buffers: Buffers,
    tape: Tape<'static>,
    quoted: Vec<u8>,
}

impl Default for JsonReader {
    fn default() -> Self {
        Self { buffers: Buffers::default(), tape: Tape(Vec::new()), quoted: Vec::new() }
    }
}

impl JsonReader {
    /// Calls `take` with the document. The text is changed in place and useless afterwards.
    pub fn read<R>(
        &mut self,
        json: &mut [u8],
        take: impl FnOnce(Value<'_, '_>) -> Result<R, Malformed>,
    ) -> Result<R, Malformed> {
        let is_long = json.len() > KEPT_BYTES_MAX;
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let outcome = match simd_json::fill_tape(json, &mut self.buffers, &mut tape) {
            Ok(()) => take(tape.as_value()),
            Err(error) => Err(Malformed::NotJson(error.to_string())),
        };
        if is_long {
            *self = Self::default();
        } else {
            self.tape = tape.reset();
        }
        outcome
    }

    /// The same, with every number of the document as the text that it was written as.
    pub fn read_numbers_as_text<R>(
        &mut self,
        json: &[u8],
        take: impl FnOnce(Value<'_, '_>) -> Result<R, Malformed>,
    ) -> Result<R, Malformed> {
        let mut quoted = std::mem::take(&mut self.quoted);
        quote_numbers(json, &mut quoted);
        let outcome = self.read(&mut quoted, take);
        if quoted.capacity() <= KEPT_BYTES_MAX {
            self.quoted = quoted;
        }
        outcome
    }
}

/// Copies JSON and puts every number outside of strings in quotes.
fn quote_numbers(json: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut rest = json;
    while let Some((&first, after)) = rest.split_first() {
        let length = match first {
            b'"' => string_length(after) + 1,
            b'-' | b'0'..=b'9' => {
                let is_of_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let length = rest.iter().take_while(|byte| is_of_number(byte)).count();
                out.push(b'"');
                out.extend_from_slice(&rest[..length]);
                out.push(b'"');
                rest = &rest[length..];
                continue;
            }
            _ => after.iter().take_while(|byte| !matches!(byte, b'"' | b'-' | b'0'..=b'9')).count() + 1,
        };
        out.extend_from_slice(&rest[..length]);
        rest = &rest[length..];
    }
}

/// Bytes up to and with the quote that ends a string.
fn string_length(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

/// One side's `[["price","size"],…]`.
#[derive(Clone, Copy)]
pub struct Levels<'t, 'i> {
    key: &'static str,
    list: Array<'t, 'i>,
}

/// A level as the venue wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextLevel<'i> {
    /// The key of its list, for errors.
    pub key: &'static str,
    /// Bid or ask.
    pub side: BookSide,
    /// The price.
    pub px: &'i str,
    /// The size; 0 removes the level.
    pub sz: &'i str,
}

/// A level, or what is wrong with it.
pub type ReadLevel<'i> = Result<TextLevel<'i>, Malformed>;

impl<'t, 'i> Levels<'t, 'i> {
    /// The list under a key.
    pub fn of(object: &Object<'t, 'i>, key: &'static str) -> Result<Self, Malformed> {
        let value = object.get(key).ok_or(Malformed::Missing(key))?;
        let list = value.as_array().ok_or(Malformed::Type { key, expected: EXPECTED_LEVELS })?;
        Ok(Self { key, list })
    }

    /// Each level; values behind price and size are skipped.
    pub fn iter(&self, side: BookSide) -> impl Iterator<Item = ReadLevel<'i>> + use<'_, 't, 'i> {
        let key = self.key;
        self.list.iter().map(move |level| {
            let pair = level.as_array();
            let mut texts = pair.iter().flat_map(Array::iter).map(ValueIntoString::into_string);
            match (texts.next().flatten(), texts.next().flatten()) {
                (Some(px), Some(sz)) => Ok(TextLevel { key, side, px, sz }),
                _ => Err(Malformed::Type { key, expected: EXPECTED_LEVELS }),
            }
        })
    }
}

impl<'i> Levels<'_, 'i> {
    fn best(&self, side: BookSide) -> Result<(Field<'i>, Field<'i>), Malformed> {
        let field = |text| Field::new(self.key, text);
        let level = self.iter(side).next().transpose()?;
        Ok(level.map_or((field("0"), field("0")), |level| (field(level.px), field(level.sz))))
    }
}

const EXPECTED_LEVELS: &str = "a list of [\"price\",\"size\"]";

/// The levels of both sides of a book.
pub struct Sides<'t, 'i> {
    bids: Levels<'t, 'i>,
    asks: Levels<'t, 'i>,
}

impl<'t, 'i> Sides<'t, 'i> {
    /// The lists under these keys.
    pub fn of(object: &Object<'t, 'i>, bids: &'static str, asks: &'static str) -> Result<Self, Malformed> {
        Ok(Self { bids: Levels::of(object, bids)?, asks: Levels::of(object, asks)? })
    }

    /// Each level, bids first.
    pub fn iter(&self) -> impl Iterator<Item = ReadLevel<'i>> + use<'_, 't, 'i> {
        self.bids.iter(BookSide::Bid).chain(self.asks.iter(BookSide::Ask))
    }

    /// Price and size of the first level of each side; of an empty side, a size of 0.
    pub fn best(&self) -> Result<[(Field<'i>, Field<'i>); 2], Malformed> {
        Ok([self.bids.best(BookSide::Bid)?, self.asks.best(BookSide::Ask)?])
    }
}

/// A text with its key, for errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'i> {
    /// The key.
    pub key: &'static str,
    /// Its value.
    pub text: &'i str,
}

impl<'i> Field<'i> {
    /// A value that was read already.
    pub fn new(key: &'static str, text: &'i str) -> Self {
        Self { key, text }
    }

    /// The text under a key.
    pub fn of(object: &Object<'_, 'i>, key: &'static str) -> Result<Self, Malformed> {
        Ok(Self { key, text: text(object, key)? })
    }

    /// The text under a key that may be absent or empty.
    pub fn maybe(object: &Object<'_, 'i>, key: &'static str) -> Option<Self> {
        maybe_text(object, key).filter(|text| !text.is_empty()).map(|text| Self { key, text })
    }
}

/// A value that is a text.
pub fn as_text<'i>(value: Value<'_, 'i>) -> Option<&'i str> {
    value.into_string()
}

/// True for `null`.
pub fn is_null(value: Value<'_, '_>) -> bool {
    value.is_null()
}

/// True if the object has the key.
pub fn has(object: &Object<'_, '_>, key: &str) -> bool {
    object.get(key).is_some()
}

/// True if the key holds `true`.
pub fn is_true(object: &Object<'_, '_>, key: &str) -> bool {
    object.get(key).and_then(|value| value.as_bool()) == Some(true)
}

/// The text under a key.
pub fn text<'i>(object: &Object<'_, 'i>, key: &'static str) -> Result<&'i str, Malformed> {
    let value = object.get(key).ok_or(Malformed::Missing(key))?;
    value.into_string().ok_or(Malformed::Type { key, expected: "a string" })
}

/// The text under a key, if it is there and a text.
pub fn maybe_text<'i>(object: &Object<'_, 'i>, key: &str) -> Option<&'i str> {
    object.get(key).and_then(ValueIntoString::into_string)
}

/// The object under a key.
pub fn object<'t, 'i>(object: &Object<'t, 'i>, key: &'static str) -> Result<Object<'t, 'i>, Malformed> {
    let value = object.get(key).ok_or(Malformed::Missing(key))?;
    value.as_object().ok_or(Malformed::Type { key, expected: "an object" })
}

/// The list under a key.
pub fn list<'t, 'i>(object: &Object<'t, 'i>, key: &'static str) -> Result<Array<'t, 'i>, Malformed> {
    let value = object.get(key).ok_or(Malformed::Missing(key))?;
    value.as_array().ok_or(Malformed::Type { key, expected: "a list" })
}

/// The whole number under a key, which is written as a number.
pub fn number(object: &Object<'_, '_>, key: &'static str) -> Result<u64, Malformed> {
    let value = object.get(key).ok_or(Malformed::Missing(key))?;
    value.as_u64().ok_or(Malformed::Type { key, expected: "a whole number from 0" })
}

/// The whole number under a key, which is written as a number or as a text.
pub fn whole(object: &Object<'_, '_>, key: &'static str) -> Result<i64, Malformed> {
    let value = object.get(key).ok_or(Malformed::Missing(key))?;
    let text = || value.into_string().and_then(|text| text.parse().ok());
    value.as_i64().or_else(text).ok_or(Malformed::Type { key, expected: "a whole number" })
}

/// The whole number from 0 under a key, which is written as a number or as a text.
pub fn whole_u64(object: &Object<'_, '_>, key: &'static str) -> Result<u64, Malformed> {
    let value = object.get(key).ok_or(Malformed::Missing(key))?;
    let text = || value.into_string().and_then(|text| text.parse().ok());
    value.as_u64().or_else(text).ok_or(Malformed::Type { key, expected: "a whole number from 0" })
}

/// The side of the aggressor under a key, by the venue's words for it.
pub fn side(object: &Object<'_, '_>, key: &'static str, buy: &str, sell: &str) -> Result<Side, Malformed> {
    match text(object, key)? {
        side if side == buy => Ok(Side::Buy),
        side if side == sell => Ok(Side::Sell),
        _ => Err(Malformed::Type { key, expected: "the side of a trade" }),
    }
}

/// Calls `take` with each object of a list. An error in one does not affect the others; the first is returned.
pub fn each<'t, 'i>(
    list: &Array<'t, 'i>,
    mut take: impl FnMut(&Object<'t, 'i>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut outcome = Ok(());
    for item in list {
        let object = item.as_object().ok_or(Malformed::NotAMessage);
        outcome = outcome.and(object.and_then(|object| take(&object)));
    }
    outcome
}

/// The same where the key may be absent.
pub fn maybe_whole(object: &Object<'_, '_>, key: &'static str) -> Result<Option<i64>, Malformed> {
    if has(object, key) { whole(object, key).map(Some) } else { Ok(None) }
}

/// The first of these keys that holds a time, in ns since the Unix epoch; 0 where none does. Numbers and texts of any
/// unit are read, and RFC 3339.
pub fn time(object: &Object<'_, '_>, keys: &[&'static str]) -> (u64, Option<TimeFault>) {
    let mut fault = None;
    for key in keys {
        match object.get(*key).map(stamp_of) {
            // 0 is how some write that there is no time.
            None | Some(Ok(0)) => {}
            Some(Ok(time_ns)) => return (time_ns, fault),
            Some(Err(error)) => fault = fault.or(Some(TimeFault { key, error })),
        }
    }
    (0, fault)
}

fn stamp_of(value: Value<'_, '_>) -> Result<u64, NotATime> {
    if let Some(number) = value.as_u64() {
        return if number == 0 { Ok(0) } else { stamp::of_number(number) };
    }
    if let Some(text) = value.into_string() {
        return if text.contains('T') { stamp::of_rfc3339(text) } else { stamp::parse(text) };
    }
    // The shortest text of a double has the digits that were written, up to 17 of them.
    let below_zero = value.as_i64().map(|number| number.to_string());
    let number = below_zero.or_else(|| value.as_f64().map(|number| number.to_string()));
    stamp::parse(number.as_deref().unwrap_or("a value of another type"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(json: &str) -> String {
        let mut out = Vec::new();
        quote_numbers(json.as_bytes(), &mut out);
        String::from_utf8(out).expect("UTF-8 stays UTF-8")
    }

    #[test]
    fn numbers_are_quoted_and_nothing_else() {
        for (json, expected) in [
            (r#"{"a":1,"b":[-2.50,1e-8],"c":null}"#, r#"{"a":"1","b":["-2.50","1e-8"],"c":null}"#),
            (r#"{"a1":"x 12 \" 3 \\","b":true}"#, r#"{"a1":"x 12 \" 3 \\","b":true}"#),
            (r#"["Ä9",9]"#, r#"["Ä9","9"]"#),
            (r#"["open\"#, r#"["open\"#),
            ("", ""),
        ] {
            assert_eq!(quoted(json), expected);
        }
    }

    #[test]
    fn digits_of_a_number_are_kept_as_written() {
        let mut reader = JsonReader::default();
        let json = br#"{"qty":123456789.1234567800,"id":17843232920108168701}"#;
        let read = reader.read_numbers_as_text(json, |value| {
            let object = value.as_object().ok_or(Malformed::NotAMessage)?;
            Ok((text(&object, "qty")?.to_owned(), text(&object, "id")?.to_owned()))
        });
        assert_eq!(read, Ok(("123456789.1234567800".to_owned(), "17843232920108168701".to_owned())));
    }
}
