//! Accepted and refused definitions.

use proptest::prelude::*;

use super::*;
use crate::control::LIMIT;

fn parse(text: &str) -> Result<Define, RequestError> {
    parse_define(&mut text.as_bytes().to_vec(), 64)
}

/// A definition of one valid instrument, with one field replaced.
fn definition(replaced: &str, with: &str) -> String {
    let fields = [("symbol", "\"BTC-USD\""), ("venue", "\"sim\""), ("px_exp", "-2"), ("sz_exp", "-8")];
    let mut text: Vec<String> =
        fields.iter().filter(|(key, _)| *key != replaced).map(|(key, value)| format!("\"{key}\":{value}")).collect();
    if !with.is_empty() {
        text.push(format!("\"{replaced}\":{with}"));
    }
    format!(r#"{{"op":"define","id":5,"instruments":[{{{}}}]}}"#, text.join(","))
}

#[test]
fn documented_definition_is_accepted() {
    let text = r#"{"op":"define","id":1,"instruments":[{"symbol":"BTC-USD","venue":"sim","px_exp":-2,"sz_exp":-8}]}"#;
    let instrument = DefineInstrument {
        symbol: "BTC-USD".to_owned(),
        venue: "sim".to_owned(),
        px_exp: -2,
        sz_exp: -8,
        tick_size: None,
        lot_size: None,
    };
    assert_eq!(parse(text), Ok(Define { id: 1, instruments: vec![instrument] }));
}

#[test]
fn values_at_the_bounds_are_accepted() {
    let symbol = "₿".repeat(21) + "A";
    for (key, value) in [
        ("symbol", format!("\"{symbol}\"")),
        ("venue", format!("\"{symbol}\"")),
        ("symbol", "\"AAPL  240119C00150000\"".to_owned()),
        ("symbol", "\"A,B\"".to_owned()),
        ("venue", "\"New York\"".to_owned()),
        ("venue", "\"\"".to_owned()),
        ("venue", String::new()),
        ("px_exp", "18".to_owned()),
        ("sz_exp", "-18".to_owned()),
        ("tick_size", "1".to_owned()),
        ("lot_size", "9223372036854775807".to_owned()),
        ("lot_size", "null".to_owned()),
    ] {
        let accepted = parse(&definition(key, &value));
        assert!(accepted.is_ok(), "{key} {value}: {accepted:?}");
    }
    let define = parse(&definition("tick_size", "25")).unwrap();
    assert_eq!((define.instruments[0].tick_size, define.instruments[0].lot_size), (Some(25), None));
}

#[test]
fn refusal_names_instrument_field_and_expectation() {
    let names = "expected a text of 1 to 64 bytes";
    let exponents = "expected a whole number from -18 to 18";
    let steps = "expected a whole number from 1 to 9223372036854775807";
    let visible = "expected no *, only visible characters, and spaces only between them";
    let outer = "begins or ends with a space: expected spaces only between visible characters";
    let long = "a".repeat(65);
    let shown = "a".repeat(60);
    for (key, given, message) in [
        ("symbol", "", format!("missing: {names}")),
        ("symbol", "7", format!("invalid value 7: {names}")),
        ("symbol", "\"\"", format!("\"\" has 0 bytes: {names}")),
        ("symbol", &format!("\"{long}\""), format!("\"{shown}\"… has 65 bytes: {names}")),
        ("symbol", "\"ETH-*\"", format!("\"ETH-*\" has '*': {visible}")),
        ("symbol", "\" A\"", format!("\" A\" {outer}")),
        ("symbol", "\"A  \"", format!("\"A  \" {outer}")),
        ("venue", "\" \"", format!("\" \" {outer}")),
        ("symbol", r#""A\u0000""#, format!("\"A\\0\" has '\\0': {visible}")),
        ("symbol", r#""A\u200bB""#, format!("\"A\\u{{200b}}B\" has '\\u{{200b}}': {visible}")),
        ("symbol", r#""A\u3000B""#, format!("\"A\\u{{3000}}B\" has '\\u{{3000}}': {visible}")),
        ("venue", "null", "invalid value null: expected a text of 0 to 64 bytes".to_owned()),
        ("px_exp", "", format!("missing: {exponents}")),
        ("px_exp", "-19", format!("invalid value -19: {exponents}")),
        ("sz_exp", "19", format!("invalid value 19: {exponents}")),
        ("sz_exp", "1.5", format!("invalid value 1.5: {exponents}")),
        ("tick_size", "0", format!("invalid value 0: {steps}")),
        ("tick_size", "\"0.01\"", format!("invalid value \"0.01\": {steps}")),
        ("lot_size", "9223372036854775808", format!("invalid value 9223372036854775808: {steps}")),
    ] {
        let error = parse(&definition(key, given)).expect_err(&message);
        assert_eq!(error.message, format!("instruments[0].{key}: {message}"));
        assert_eq!((error.code, error.id), ("bad_request", Some(5)));
    }
}

#[test]
fn the_enclosing_request_is_checked() {
    for (text, message) in [
        (r#"{"op":"subscribe","id":1}"#, "op: unknown op \"subscribe\": expected define"),
        (r#"{"op":"define","instruments":[]}"#, "instruments: empty list: expected a list of instruments"),
        (
            r#"{"op":"define","instruments":[],"id":1,"source":"x"}"#,
            "\"source\": unknown field: expected op, id, instruments",
        ),
        (r#"{"op":"define","id":1}"#, "instruments: missing: expected a list of instruments"),
        (r#"{"op":"define","id":1,"instruments":[]}"#, "instruments: empty list: expected a list of instruments"),
        (r#"{"op":"define","id":1,"instruments":["A"]}"#, "instruments[0]: invalid value \"A\": expected an object"),
    ] {
        assert_eq!(parse(text).unwrap_err().message, message);
    }
}

#[test]
fn too_many_instruments_are_refused() {
    let text = |count| {
        let list = vec![r#"{"symbol":"A","px_exp":0,"sz_exp":0}"#; count].join(",");
        format!(r#"{{"op":"define","id":1,"instruments":[{list}]}}"#)
    };
    assert_eq!(parse(&text(INSTRUMENTS_MAX)).unwrap().instruments.len(), INSTRUMENTS_MAX);
    let error = parse(&text(INSTRUMENTS_MAX + 1)).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (LIMIT, "instruments: 10001 in one request: expected at most 10000")
    );
}

proptest! {
    #[test]
    fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(parse_define(&mut bytes, 64).is_err());
    }

    #[test]
    fn damaged_definition_never_panics(at in any::<prop::sample::Index>(), byte: u8) {
        let mut broken = definition("tick_size", "5").into_bytes();
        let at = at.index(broken.len());
        broken[at] = byte;
        let _ = parse_define(&mut broken.clone(), 64);
        broken.truncate(at);
        prop_assert!(parse_define(&mut broken, 64).is_err());
    }
}
