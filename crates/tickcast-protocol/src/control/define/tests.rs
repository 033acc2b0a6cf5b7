use proptest::prelude::*;

use super::*;
use crate::control::LIMIT;

fn parse(text: &str) -> Result<Define, RequestError> {
    parse_define(&mut text.as_bytes().to_vec(), 64)
}

/// A definition of one instrument that is fine but for `replaced`.
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
fn the_definition_of_the_protocol_is_taken() {
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
fn bounds_are_within() {
    let symbol = "é".repeat(32);
    for (key, value) in [
        ("symbol", format!("\"{symbol}\"")),
        ("venue", format!("\"{symbol}\"")),
        ("venue", "\"\"".to_owned()),
        ("venue", String::new()),
        ("px_exp", "18".to_owned()),
        ("sz_exp", "-18".to_owned()),
        ("tick_size", "1".to_owned()),
        ("lot_size", "9223372036854775807".to_owned()),
        ("lot_size", "null".to_owned()),
    ] {
        let taken = parse(&definition(key, &value));
        assert!(taken.is_ok(), "{key} {value}: {taken:?}");
    }
    let define = parse(&definition("tick_size", "25")).unwrap();
    assert_eq!((define.instruments[0].tick_size, define.instruments[0].lot_size), (Some(25), None));
}

#[test]
fn a_refusal_names_the_instrument_the_field_and_what_would_be_right() {
    let names = "want a text of 1 to 64 bytes";
    let exponents = "want a whole number from -18 to 18";
    let steps = "want a whole number from 1 to 9223372036854775807";
    let seen = "want no *, no spaces, and only what can be seen";
    let long = "a".repeat(65);
    let shown = "a".repeat(60);
    for (key, given, message) in [
        ("symbol", "", format!("missing; {names}")),
        ("symbol", "7", format!("given 7; {names}")),
        ("symbol", "\"\"", format!("\"\" has 0 bytes; {names}")),
        ("symbol", &format!("\"{long}\""), format!("\"{shown}\"… has 65 bytes; {names}")),
        ("symbol", "\"ETH-*\"", format!("\"ETH-*\" has '*'; {seen}")),
        ("symbol", "\"A B\"", format!("\"A B\" has ' '; {seen}")),
        ("symbol", r#""A\u0000""#, format!("\"A\\0\" has '\\0'; {seen}")),
        ("symbol", r#""A\u200bB""#, format!("\"A\\u{{200b}}B\" has '\\u{{200b}}'; {seen}")),
        ("symbol", r#""A\u3000B""#, format!("\"A\\u{{3000}}B\" has '\\u{{3000}}'; {seen}")),
        ("venue", "null", "given null; want a text of 0 to 64 bytes".to_owned()),
        ("px_exp", "", format!("missing; {exponents}")),
        ("px_exp", "-19", format!("given -19; {exponents}")),
        ("sz_exp", "19", format!("given 19; {exponents}")),
        ("sz_exp", "1.5", format!("given 1.5; {exponents}")),
        ("tick_size", "0", format!("given 0; {steps}")),
        ("tick_size", "\"0.01\"", format!("given \"0.01\"; {steps}")),
        ("lot_size", "9223372036854775808", format!("given 9223372036854775808; {steps}")),
    ] {
        let error = parse(&definition(key, given)).expect_err(&message);
        assert_eq!(error.message, format!("instruments[0].{key}: {message}"));
        assert_eq!((error.code, error.id), ("bad_request", Some(5)));
    }
}

#[test]
fn the_request_around_the_instruments_is_checked_too() {
    for (text, message) in [
        (r#"{"op":"subscribe","id":1}"#, "op: unknown op \"subscribe\"; have define"),
        (r#"{"op":"define","instruments":[]}"#, "id: missing; want a whole number from 0 to 18446744073709551615"),
        (r#"{"op":"define","id":1}"#, "instruments: missing; want a list of instruments"),
        (r#"{"op":"define","id":1,"instruments":[]}"#, "instruments: empty; want a list of instruments"),
        (r#"{"op":"define","id":1,"instruments":["A"]}"#, "instruments[0]: given \"A\"; want an object"),
    ] {
        assert_eq!(parse(text).unwrap_err().message, message);
    }
}

#[test]
fn more_instruments_than_allowed_are_refused_with_both_numbers() {
    let text = |count| {
        let list = vec![r#"{"symbol":"A","px_exp":0,"sz_exp":0}"#; count].join(",");
        format!(r#"{{"op":"define","id":1,"instruments":[{list}]}}"#)
    };
    assert_eq!(parse(&text(INSTRUMENTS_MAX)).unwrap().instruments.len(), INSTRUMENTS_MAX);
    let error = parse(&text(INSTRUMENTS_MAX + 1)).unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (LIMIT, "instruments: 10001 in one request; at most 10000"));
}

proptest! {
    #[test]
    fn random_bytes_are_refused_and_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(parse_define(&mut bytes, 64).is_err());
    }

    #[test]
    fn a_definition_that_is_broken_anywhere_never_panics(at in any::<prop::sample::Index>(), byte: u8) {
        let mut broken = definition("tick_size", "5").into_bytes();
        let at = at.index(broken.len());
        broken[at] = byte;
        let _ = parse_define(&mut broken.clone(), 64);
        broken.truncate(at);
        prop_assert!(parse_define(&mut broken, 64).is_err());
    }
}
