//! Reads the fields of a request: JSON text to a tape, values to numbers, lists and flags, and errors in one form:
//! `field: what is wrong: expected what would be right`.
//!
//! The tape is a flat list in the order of the text. Walking it needs neither recursion nor a hash table, so the cost of
//! a request with very many keys is in proportion to its length: the parser's own maps hash with fixed keys and could be
//! flooded.

use std::cell::Cell;
use std::fmt::Display;

use serde::de::IgnoredAny;
use simd_json::prelude::*;
use simd_json::tape::{Array, Object, Value};
use simd_json::{Buffers, ErrorType, Tape};

use super::{BAD_REQUEST, LIMIT, RequestError};

/// Levels of nesting that a request may have. What has a meaning needs three.
const DEPTH_MAX: usize = 32;
/// Bytes of a peer's text that an error repeats.
const QUOTED_BYTES_MAX: usize = 60;

/// A value of the request; `None` if the key is missing.
pub(super) type Field<'tape, 'text> = Option<Value<'tape, 'text>>;

/// An error with the message `field: problem`.
pub(crate) fn bad(field: impl Display, problem: impl Display) -> RequestError {
    RequestError { id: None, code: BAD_REQUEST, message: format!("{field}: {problem}") }
}

/// The same for a request over a limit.
pub(super) fn over_limit(field: impl Display, problem: impl Display) -> RequestError {
    RequestError { code: LIMIT, ..bad(field, problem) }
}

fn missing(field: impl Display, expected: impl Display) -> RequestError {
    bad(field, format_args!("missing: expected {expected}"))
}

/// An error for a value that is not what the field takes.
pub(super) fn invalid(field: impl Display, value: &Value, expected: impl Display) -> RequestError {
    bad(field, format_args!("invalid value {}: expected {expected}", describe(value)))
}

/// What parsing a longer text took is freed.
const KEPT_TEXT_BYTES_MAX: usize = 256 * 1024;

/// What parsing needs beside the text.
struct Workspace {
    buffers: Buffers,
    tape: Tape<'static>,
}

thread_local! {
    /// Kept from one text to the next, as fresh memory costs more than parsing. At most fourteen times the longest text
    /// so far that was no longer than [`KEPT_TEXT_BYTES_MAX`].
    static WORKSPACE: Cell<Option<Box<Workspace>>> = const { Cell::new(None) };
}

/// Parses the text in place, which rewrites its escapes, and passes the object that it holds to `read`.
pub(super) fn with_object<R>(
    text: &mut [u8],
    read: impl FnOnce(&Object<'_, '_>) -> Result<R, RequestError>,
) -> Result<R, RequestError> {
    // Parsing rewrites escapes in place, and an error must count characters of the text as it came. Escapes are rare.
    let original = text.contains(&b'\\').then(|| text.to_vec());
    let text_bytes = text.len();
    let new =
        || Box::new(Workspace { buffers: Buffers::with_max_depth(text_bytes, DEPTH_MAX), tape: Tape(Vec::new()) });
    let mut workspace = WORKSPACE.take().unwrap_or_else(new);
    let mut tape = std::mem::replace(&mut workspace.tape, Tape(Vec::new())).reset();
    let outcome = match simd_json::fill_tape(text, &mut workspace.buffers, &mut tape) {
        Ok(()) => {
            let value = tape.as_value();
            let expected = "an object such as {\"op\":\"ping\",\"id\":1}";
            Ok(value.as_object().ok_or_else(|| invalid("request", &value, expected)).and_then(|object| read(&object)))
        }
        Err(error) => Err(error),
    };
    workspace.tape = tape.reset();
    if text_bytes <= KEPT_TEXT_BYTES_MAX {
        WORKSPACE.set(Some(workspace));
    }
    let error = match outcome {
        Ok(read) => return read,
        Err(error) => error,
    };
    Err(RequestError { id: None, code: BAD_REQUEST, message: not_json(original.as_deref().unwrap_or(text), &error) })
}

/// Where the text stops being JSON, or goes beyond what is accepted of it.
///
/// The second parser has the better messages and the exact places; it accepts more depth, numbers and encodings.
fn not_json(text: &[u8], error: &simd_json::Error) -> String {
    let at = error.index();
    if let ErrorType::DepthLimitExceeded = error.error() {
        return format!("request: nested too deep at character {at}: expected at most {DEPTH_MAX} levels");
    }
    if let Err(better) = serde_json::from_slice::<IgnoredAny>(text) {
        return format!("not JSON: {better}");
    }
    match (error.error(), std::str::from_utf8(text)) {
        (_, Err(broken)) => format!("not JSON: not UTF-8 at character {}", broken.valid_up_to()),
        (ErrorType::InvalidNumber, _) => {
            format!("request: number out of range at character {at}: expected one that fits into 64 bits")
        }
        _ => format!("not JSON: unexpected text near character {at}"),
    }
}

/// The values of `keys`, in that order; of a repeated key the last. Other keys are left to [`refuse_unknown`].
pub(super) fn collect<'tape, 'text, const N: usize>(
    object: &Object<'tape, 'text>,
    keys: [&str; N],
) -> [Field<'tape, 'text>; N] {
    let mut fields = [None; N];
    for (name, value) in object.iter() {
        if let Some(index) = keys.iter().position(|key| *key == name) {
            fields[index] = Some(value);
        }
    }
    fields
}

/// An error for the first key that is not one of these: what was meant by it would be left out without a word.
pub(super) fn refuse_unknown(object: &Object<'_, '_>, keys: &[&str]) -> Result<(), RequestError> {
    match object.iter().find(|(name, _)| !keys.contains(name)) {
        None => Ok(()),
        Some((name, _)) => Err(bad(quote(name), format_args!("unknown field: expected {}", keys.join(", ")))),
    }
}

/// The id of a request; 0 if it has none.
pub(super) fn id(field: Field) -> Result<u64, RequestError> {
    field.map_or(Ok(0), |value| unsigned("id", Some(value), u64::MAX))
}

/// A whole number from `least` to `most`.
pub(super) fn whole_number(name: impl Display, field: Field, least: i64, most: u64) -> Result<i128, RequestError> {
    let expected = format_args!("a whole number from {least} to {most}");
    let value = field.ok_or_else(|| missing(&name, expected))?;
    let number = value.as_u64().map(i128::from).or_else(|| value.as_i64().map(i128::from));
    number
        .filter(|number| (i128::from(least)..=i128::from(most)).contains(number))
        .ok_or_else(|| invalid(&name, &value, expected))
}

/// A whole number from 0 to `most`.
pub(super) fn unsigned(name: impl Display, field: Field, most: u64) -> Result<u64, RequestError> {
    whole_number(name, field, 0, most).map(|number| number as u64)
}

/// A list that is not empty.
pub(super) fn list<'tape, 'text>(
    name: impl Display,
    field: Field<'tape, 'text>,
    expected: impl Display,
) -> Result<Array<'tape, 'text>, RequestError> {
    let value = field.ok_or_else(|| missing(&name, &expected))?;
    let list = value.as_array().ok_or_else(|| invalid(&name, &value, &expected))?;
    if list.is_empty() {
        return Err(bad(&name, format_args!("empty list: expected {expected}")));
    }
    Ok(list)
}

/// A text.
pub(super) fn text<'tape>(
    name: impl Display,
    field: &'tape Field<'_, '_>,
    expected: impl Display,
) -> Result<&'tape str, RequestError> {
    let value = field.as_ref().ok_or_else(|| missing(&name, &expected))?;
    value.as_str().ok_or_else(|| invalid(&name, value, &expected))
}

/// A value, short enough for an error message.
fn describe(value: &Value) -> String {
    if let Some(text) = value.as_str() {
        return quote(text);
    }
    if let Some(list) = value.as_array() {
        return format!("(a list of {})", list.len());
    }
    if value.as_object().is_some() {
        return "(an object)".to_owned();
    }
    let whole = value.as_u64().map(|number| number.to_string()).or_else(|| value.as_i64().map(|n| n.to_string()));
    let number = whole.or_else(|| value.as_f64().map(|number| format!("{number:?}")));
    number.unwrap_or_else(|| value.as_bool().map_or("null".to_owned(), |flag| flag.to_string()))
}

/// A peer's text in quotation marks, its control characters escaped, cut if it is long.
pub(crate) fn quote(text: &str) -> String {
    let head = &text[..text.floor_char_boundary(QUOTED_BYTES_MAX)];
    let more = if head.len() < text.len() { "…" } else { "" };
    format!("{head:?}{more}")
}
