//! JSON requests of subscribers and publishers, compared with a plain decoder on serde_json: both accept the same
//! requests, with the same meaning.
//!
//! Input: a byte for the kind of client, then the text. An SSE client's text is the query of a URL, which is parsed to
//! a request.
//!
//! Where serde_json may differ: it accepts numbers beyond 64 bits and more than 32 levels, which are refused here with
//! a message that begins with "request: "; and it reads `-0` as a fraction, so texts with it are not compared.

use serde_json::{Map, Value};
use tickcast_protocol::control::{
    BAD_REQUEST, ChannelSet, Define, DefineInstrument, INSTRUMENTS_MAX, LIMIT, Pattern, Request, RequestError,
    RequestLimits, Secret, auth_text, define_text, parse_define, parse_request, ping_text, resume_text, subscribe_text,
    unsubscribe_text,
};
use tickcast_protocol::{Channel, ConflationInterval, Token, sse};

use super::Script;

const LIMITS: RequestLimits = RequestLimits { symbols_max: 8, symbol_bytes_max: 16 };
/// Bytes of a symbol or a venue.
const NAME_BYTES_MAX: usize = 64;
/// An error repeats some 60 bytes of a peer's text, escaped.
const MESSAGE_BYTES_MAX: usize = 1024;

/// One input.
pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let who = script.byte();
    let publishes = who & 1 == 1;
    let text = script.rest;
    if who & 2 == 2 {
        return read_query(&String::from_utf8_lossy(text));
    }
    let second = serde_json::from_slice::<Value>(text).ok();
    let object = second.as_ref().and_then(Value::as_object);
    if publishes {
        let taken = parse_define(&mut text.to_vec(), NAME_BYTES_MAX);
        check(text, &taken, object.and_then(define));
        if let Ok(define) = taken {
            let again = define_text(define.id, &define.instruments);
            assert_eq!(parse_define(&mut again.into_bytes(), NAME_BYTES_MAX), Ok(define));
        }
    } else {
        let taken = parse_request(&mut text.to_vec(), &LIMITS);
        check(text, &taken, object.and_then(request));
        if let Ok(request) = taken {
            let again = written(&request);
            assert_eq!(parse_request(&mut again.into_bytes(), &LIMITS), Ok(request));
        }
    }
}

/// Checks that an accepted query has subscriptions within the limits, and resumes if there is a token.
fn read_query(query: &str) {
    let token = Token { epoch: 7, position: 91_823.into() };
    for token in [None, Some(token)] {
        match sse::parse_query(query, token, &LIMITS) {
            Ok(request) => {
                let resumes = matches!(request, Request::Resume { .. });
                assert!(resumes || token.is_none(), "{query:?}: {request:?}");
                let (Request::Subscribe { channels, symbols, .. } | Request::Resume { channels, symbols, .. }) =
                    &request
                else {
                    panic!("{query:?}: expected a subscription: {request:?}")
                };
                let subscriptions = symbols.len() * channels.iter().count();
                assert!((1..=LIMITS.symbols_max).contains(&subscriptions), "{query:?}: {request:?}");
                assert_eq!(parse_request(&mut written(&request).into_bytes(), &LIMITS), Ok(request));
            }
            Err(error) => {
                assert!([BAD_REQUEST, LIMIT].contains(&error.code), "{error}");
                assert!(!error.message.is_empty() && error.message.len() <= MESSAGE_BYTES_MAX, "{error}");
            }
        }
    }
}

fn check<T: PartialEq + std::fmt::Debug>(text: &[u8], taken: &Result<T, RequestError>, second: Option<T>) {
    let shown = String::from_utf8_lossy(text);
    match taken {
        _ if shown.contains("-0") => {}
        Ok(taken) => assert_eq!(Some(taken), second.as_ref(), "serde_json on the right: {shown}"),
        Err(error) => {
            assert!([BAD_REQUEST, LIMIT].contains(&error.code), "{error}");
            assert!(!error.message.is_empty() && error.message.len() <= MESSAGE_BYTES_MAX, "{error}");
            assert!(second.is_none() || error.message.starts_with("request: "), "{error}, and {second:?}: {shown}");
        }
    }
}

/// The JSON text of a request.
fn written(request: &Request) -> String {
    match request {
        Request::Subscribe { id, channels, symbols, conflate, snapshot } => {
            with_names(symbols, |names| subscribe_text(*id, *channels, names, conflate.interval_ms(), *snapshot))
        }
        Request::Unsubscribe { id, channels, symbols } => {
            with_names(symbols, |names| unsubscribe_text(*id, *channels, names))
        }
        Request::Resume { id, token, channels, symbols, conflate } => {
            with_names(symbols, |names| resume_text(*id, *token, *channels, names, conflate.interval_ms()))
        }
        Request::Ping { id } => ping_text(*id),
        Request::Auth { id, token } => auth_text(*id, token.reveal()),
    }
}

fn with_names(symbols: &[Pattern], write: impl Fn(&[&str]) -> String) -> String {
    let names: Vec<String> = symbols.iter().map(Pattern::to_string).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    write(&names)
}

/// serde_json's reading of a request; `None` if it is invalid.
fn request(object: &Map<String, Value>) -> Option<Request> {
    let id = id(object)?;
    let op = object.get("op")?.as_str()?;
    let keys: &[&str] = match op {
        "subscribe" => &["channels", "symbols", "conflate_ms", "snapshot"],
        "unsubscribe" => &["channels", "symbols"],
        "resume" => &["epoch", "position", "channels", "symbols", "conflate_ms"],
        "auth" => &["token"],
        _ => &[],
    };
    if !has_only(object, &["op", "id"], keys) {
        return None;
    }
    match op {
        "ping" => Some(Request::Ping { id }),
        "auth" => {
            let token = object.get("token")?.as_str()?;
            let is_token = (1..=Secret::BYTES_MAX).contains(&token.len());
            is_token.then(|| Request::Auth { id, token: Secret::new(token) })
        }
        "subscribe" => Some(Request::Subscribe {
            id,
            channels: channels(object)?,
            symbols: symbols(object)?,
            conflate: conflate(object)?,
            snapshot: object.get("snapshot").map_or(Some(true), Value::as_bool)?,
        }),
        "unsubscribe" => Some(Request::Unsubscribe { id, channels: channels(object)?, symbols: symbols(object)? }),
        "resume" => Some(Request::Resume {
            id,
            token: Token {
                epoch: whole(object.get("epoch")?, 0, u32::MAX.into())? as u32,
                position: (whole(object.get("position")?, 0, u64::MAX)? as u64).into(),
            },
            channels: channels(object)?,
            symbols: symbols(object)?,
            conflate: conflate(object)?,
        }),
        _ => None,
    }
}

/// 0 if there is none.
fn id(object: &Map<String, Value>) -> Option<u64> {
    object.get("id").map_or(Some(0), |id| Some(whole(id, 0, u64::MAX)? as u64))
}

fn has_only(object: &Map<String, Value>, keys: &[&str], more: &[&str]) -> bool {
    object.keys().all(|key| keys.iter().chain(more).any(|known| known == key))
}

fn channels(object: &Map<String, Value>) -> Option<ChannelSet> {
    let list = object.get("channels")?.as_array().filter(|list| !list.is_empty())?;
    list.iter().map(|name| Channel::from_name(name.as_str()?)).collect()
}

fn symbols(object: &Map<String, Value>) -> Option<Vec<Pattern>> {
    let list = object.get("symbols")?.as_array()?;
    if list.is_empty() || list.len() > LIMITS.symbols_max {
        return None;
    }
    let pattern = |value: &Value| {
        let text = value.as_str().filter(|text| (1..=LIMITS.symbol_bytes_max).contains(&text.len()))?;
        match text.split_once('*') {
            None => is_name(text).then(|| Pattern::Exact(text.to_owned())),
            // With a letter behind it, a stem may end with a space.
            Some((stem, "")) => is_name(&format!("{stem}A")).then(|| Pattern::Prefix(stem.to_owned())),
            Some(_) => None,
        }
    };
    list.iter().map(pattern).collect()
}

fn conflate(object: &Map<String, Value>) -> Option<ConflationInterval> {
    let Some(value) = object.get("conflate_ms") else { return Some(ConflationInterval::IMMEDIATE) };
    let ms = whole(value, 0, 1000)?;
    ConflationInterval::all().find(|interval| i128::from(interval.interval_ms()) >= ms)
}

/// serde_json's reading of a `define`.
fn define(object: &Map<String, Value>) -> Option<Define> {
    let (id, list) = (id(object)?, object.get("instruments")?.as_array()?);
    if !has_only(object, &["op", "id", "instruments"], &[]) {
        return None;
    }
    if object.get("op")?.as_str()? != "define" || list.is_empty() || list.len() > INSTRUMENTS_MAX {
        return None;
    }
    let instruments = list.iter().map(|value| instrument(value.as_object()?)).collect::<Option<_>>()?;
    Some(Define { id, instruments })
}

fn instrument(object: &Map<String, Value>) -> Option<DefineInstrument> {
    if !has_only(object, &["symbol", "venue", "px_exp", "sz_exp", "tick_size", "lot_size"], &[]) {
        return None;
    }
    let exponent = |key| whole(object.get(key)?, -18, 18).map(|number| number as i8);
    let step = |key| match object.get(key) {
        None | Some(Value::Null) => Some(None),
        Some(value) => whole(value, 1, i64::MAX as u64).map(|number| Some(number as i64)),
    };
    Some(DefineInstrument {
        symbol: name(object.get("symbol")?, 1)?,
        venue: object.get("venue").map_or(Some(String::new()), |value| name(value, 0))?,
        px_exp: exponent("px_exp")?,
        sz_exp: exponent("sz_exp")?,
        tick_size: step("tick_size")?,
        lot_size: step("lot_size")?,
    })
}

fn name(value: &Value, bytes_min: usize) -> Option<String> {
    let text = value.as_str().filter(|text| (bytes_min..=NAME_BYTES_MAX).contains(&text.len()))?;
    (is_name(text) && is_definable(text)).then(|| text.to_owned())
}

/// The alphabet of names that are defined.
fn is_definable(text: &str) -> bool {
    let is_currency = |letter: char| match u32::from(letter) {
        0xa2 | 0xa3 | 0xa5 => true,
        code => (0x20a0..0x20c1).contains(&code) && code != 0x20a8,
    };
    let is_han = |letter: char| match u32::from(letter) {
        0x3005 | 0x3007 => true,
        code => (0x3400..0x4dc0).contains(&code) || (0x4e00..0xa000).contains(&code),
    };
    let is_kana = |letter: char| match u32::from(letter) {
        0x30fc => true,
        code => (0x3041..0x3097).contains(&code) || (0x30a1..0x30fb).contains(&code),
    };
    let is_hangul = |letter: char| (0xac00..0xd7a4).contains(&u32::from(letter));
    let is_known = |letter: char| {
        let is_ascii = (' '..='~').contains(&letter);
        is_ascii || is_currency(letter) || is_han(letter) || is_kana(letter) || is_hangul(letter)
    };
    let mixes = text.contains(is_kana) && text.contains(is_hangul);
    !mixes && text.chars().all(is_known)
}

/// The grammar of symbols, for an empty text as well.
fn is_name(text: &str) -> bool {
    /// The first and the last of each range of Default_Ignorable_Code_Point.
    const IGNORABLE: [(u32, u32); 17] = [
        (0xad, 0xad),
        (0x34f, 0x34f),
        (0x61c, 0x61c),
        (0x115f, 0x1160),
        (0x17b4, 0x17b5),
        (0x180b, 0x180f),
        (0x200b, 0x200f),
        (0x202a, 0x202e),
        (0x2060, 0x206f),
        (0x3164, 0x3164),
        (0xfe00, 0xfe0f),
        (0xfeff, 0xfeff),
        (0xffa0, 0xffa0),
        (0xfff0, 0xfff8),
        (0x1bca0, 0x1bca3),
        (0x1d173, 0x1d17a),
        (0xe0000, 0xe0fff),
    ];
    let is_refused = |letter: char| {
        let is_ignorable = IGNORABLE.iter().any(|(first, last)| (*first..=*last).contains(&(letter as u32)));
        letter == '*' || letter.is_control() || is_ignorable || letter.is_whitespace() && letter != ' '
    };
    text.trim_matches(' ') == text && !text.contains(is_refused)
}

/// A whole number from `least` to `most`.
fn whole(value: &Value, least: i64, most: u64) -> Option<i128> {
    let number = value.as_u64().map(i128::from).or_else(|| value.as_i64().map(i128::from))?;
    (i128::from(least)..=i128::from(most)).contains(&number).then_some(number)
}
