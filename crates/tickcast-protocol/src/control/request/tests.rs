//! Accepted and refused requests.

use proptest::prelude::*;

use super::*;
use crate::Position;
use crate::control::LIMIT;

const LIMITS: RequestLimits = RequestLimits { symbols_max: 1000, symbol_bytes_max: 64 };

fn parse(text: &str) -> Result<Request, RequestError> {
    parse_request(&mut text.as_bytes().to_vec(), &LIMITS)
}

fn refused(text: &str) -> RequestError {
    parse(text).expect_err(text)
}

fn set(channels: &[Channel]) -> ChannelSet {
    channels.iter().copied().collect()
}

#[test]
fn documented_requests_are_accepted() {
    let text = r#"{"op":"subscribe","id":1,"channels":["quote","trade"],"symbols":["BTC-USD","ETH-*"],"conflate_ms":0,"snapshot":true}"#;
    let symbols = vec![Pattern::Exact("BTC-USD".to_owned()), Pattern::Prefix("ETH-".to_owned())];
    let channels = set(&[Channel::Quote, Channel::Trade]);
    let conflate = ConflationInterval::IMMEDIATE;
    assert_eq!(parse(text), Ok(Request::Subscribe { id: 1, channels, symbols, conflate, snapshot: true }));

    let text = r#"{"op":"unsubscribe","id":2,"channels":["quote"],"symbols":["BTC-USD"]}"#;
    let symbols = vec![Pattern::Exact("BTC-USD".to_owned())];
    assert_eq!(parse(text), Ok(Request::Unsubscribe { id: 2, channels: set(&[Channel::Quote]), symbols }));

    let text = r#"{"op":"resume","id":3,"epoch":7,"position":91823,"channels":["trade"],"symbols":["*"]}"#;
    let symbols = vec![Pattern::Prefix(String::new())];
    let channels = set(&[Channel::Trade]);
    assert_eq!(
        parse(text),
        Ok(Request::Resume {
            id: 3,
            token: Token { epoch: 7, position: Position::new(91823) },
            channels,
            symbols,
            conflate
        })
    );

    assert_eq!(parse(r#"{"op":"ping","id":4}"#), Ok(Request::Ping { id: 4 }));
}

#[test]
fn missing_fields_have_defaults() {
    let accepted = parse(r#"{"op":"subscribe","id":0,"channels":["book"],"symbols":["*"]}"#);
    assert!(
        matches!(accepted, Ok(Request::Subscribe { conflate: ConflationInterval::IMMEDIATE, snapshot: true, .. })),
        "{accepted:?}"
    );
}

#[test]
fn interval_is_rounded_up() {
    let text = r#"{"op":"subscribe","id":0,"channels":["book"],"symbols":["*"],"conflate_ms":101,"snapshot":false}"#;
    let Ok(Request::Subscribe { conflate, snapshot, .. }) = parse(text) else { panic!("refused") };
    assert_eq!((conflate.interval_ms(), snapshot), (250, false));
}

#[test]
fn key_order_is_free_and_the_last_repetition_counts() {
    let text = r#"{"id" : 9,"id":18446744073709551615,
                   "op":"ping" }"#;
    assert_eq!(parse(text), Ok(Request::Ping { id: u64::MAX }));
}

#[test]
fn keys_that_an_op_does_not_have_are_refused() {
    for (text, expected) in [
        (
            r#"{"op":"subscribe","id":3,"channels":["quote"],"symbols":["A"],"conflate":1000}"#,
            "\"conflate\": unknown field: expected op, id, channels, symbols, conflate_ms, snapshot",
        ),
        (
            r#"{"op":"unsubscribe","id":3,"channels":["quote"],"symbols":["A"],"conflate_ms":0}"#,
            "\"conflate_ms\": unknown field: expected op, id, channels, symbols",
        ),
        (r#"{"op":"ping","x":{"id":1},"id":3}"#, "\"x\": unknown field: expected op, id"),
        (r#"{"op":"auth","id":3,"token":"t","user":"u"}"#, "\"user\": unknown field: expected op, id, token"),
    ] {
        let error = refused(text);
        assert_eq!((error.id, error.code, &*error.message), (Some(3), "bad_request", expected), "{text}");
    }
}

#[test]
fn request_without_an_id_has_the_id_0() {
    assert_eq!(parse(r#"{"op":"ping"}"#), Ok(Request::Ping { id: 0 }));
    assert_eq!(refused(r#"{"op":"ping","x":1}"#).id, None);
    assert_eq!(
        refused(r#"{"op":"ping","id":null}"#).message,
        "id: invalid value null: expected a whole number from 0 to 18446744073709551615"
    );
}

#[test]
fn escapes_are_decoded() {
    let text = r#"{"op":"pi\u006eg","i\u0064":1}"#;
    assert_eq!(parse(text), Ok(Request::Ping { id: 1 }));
    let text = r#"{"op":"unsubscribe","id":1,"channels":["quote"],"symbols":["A\"\u20ac\ud83d\ude00"]}"#;
    let Ok(Request::Unsubscribe { symbols, .. }) = parse(text) else { panic!("refused") };
    assert_eq!(symbols, [Pattern::Exact("A\"€😀".to_owned())]);
}

#[test]
fn repeated_symbols_and_channels_are_accepted() {
    let text = r#"{"op":"unsubscribe","id":1,"channels":["quote","quote"],"symbols":["A","A"]}"#;
    let Ok(Request::Unsubscribe { symbols, channels, .. }) = parse(text) else { panic!("refused") };
    assert_eq!((symbols.len(), channels), (2, set(&[Channel::Quote])));
}

/// A valid subscription, with one field replaced.
fn subscription(replaced: &str, with: &str) -> String {
    let fields = [("op", r#""subscribe""#), ("id", "7"), ("channels", r#"["quote"]"#), ("symbols", r#"["A"]"#)];
    let mut text: Vec<String> =
        fields.iter().filter(|(key, _)| *key != replaced).map(|(key, value)| format!("\"{key}\":{value}")).collect();
    if !with.is_empty() {
        text.push(format!("\"{replaced}\":{with}"));
    }
    format!("{{{}}}", text.join(","))
}

#[test]
fn refusal_names_field_value_and_expectation() {
    let whole = "expected a whole number from 0 to 18446744073709551615";
    let ops = "expected subscribe, unsubscribe, resume, ping or auth";
    let channels = "expected quote, trade, ticker, book or raw";
    let symbols = "expected a list of names and patterns such as \"ETH-*\"";
    for (key, given, message) in [
        ("op", "", format!("op: missing: {ops}")),
        ("op", "3", format!("op: invalid value 3: {ops}")),
        ("op", r#""subscribes""#, format!("op: unknown op \"subscribes\": {ops}")),
        ("id", "-1", format!("id: invalid value -1: {whole}")),
        ("id", "1.5", format!("id: invalid value 1.5: {whole}")),
        ("id", "\"1\"", format!("id: invalid value \"1\": {whole}")),
        ("id", "null", format!("id: invalid value null: {whole}")),
        ("channels", "", "channels: missing: expected a list of channels".to_owned()),
        ("channels", "\"quote\"", "channels: invalid value \"quote\": expected a list of channels".to_owned()),
        ("channels", "[]", "channels: empty list: expected a list of channels".to_owned()),
        ("channels", r#"["trade","quotes"]"#, format!("channels: unknown channel \"quotes\": {channels}")),
        ("channels", r#"["trade",[1,2]]"#, format!("channels[1]: invalid value (a list of 2): {channels}")),
        ("symbols", "", format!("symbols: missing: {symbols}")),
        ("symbols", "{}", format!("symbols: invalid value (an object): {symbols}")),
        ("symbols", "[]", format!("symbols: empty list: {symbols}")),
        ("symbols", r#"["A",true]"#, "symbols[1]: invalid value true: expected a name or a pattern".to_owned()),
        (
            "symbols",
            r#"["A","B","C","D*E"]"#,
            "symbols[3]: \"D*E\" has a * before its end: expected at most one *, at the end".to_owned(),
        ),
        ("conflate_ms", "5000", "conflate_ms: 5000 is out of range: expected 0 to 1000".to_owned()),
        ("conflate_ms", "-5", format!("conflate_ms: invalid value -5: {whole}")),
        ("snapshot", "1", "snapshot: invalid value 1: expected true or false".to_owned()),
    ] {
        let error = refused(&subscription(key, given));
        assert_eq!(error.message, message);
        assert_eq!(error.code, "bad_request", "{message}");
        assert_eq!(error.id, (key != "id").then_some(7), "{message}");
    }
}

#[test]
fn resume_needs_its_token() {
    let token = |epoch: &str, position: &str| {
        format!(r#"{{"op":"resume","id":1,{epoch}{position}"channels":["trade"],"symbols":["*"]}}"#)
    };
    let epoch = "expected a whole number from 0 to 4294967295";
    assert_eq!(refused(&token("", "\"position\":1,")).message, format!("epoch: missing: {epoch}"));
    let given = token("\"epoch\":4294967296,", "\"position\":1,");
    assert_eq!(refused(&given).message, format!("epoch: invalid value 4294967296: {epoch}"));
    assert!(refused(&token("\"epoch\":1,", "")).message.starts_with("position: missing: "));
}

#[test]
fn malformed_json_is_refused_with_its_position() {
    for (text, message) in [
        ("", "not JSON: EOF while parsing a value at line 1 column 0"),
        ("{\"op\":\"ping\",\"id\"", "not JSON: EOF while parsing an object at line 1 column 17"),
        ("{\"op\":ping}", "not JSON: expected value at line 1 column 7"),
        (
            "{\"op\":\"ping\nx\"}",
            "not JSON: control character (\\u0000-\\u001F) found while parsing a string at line 1 column 11",
        ),
        ("{\"op\":\"\\n\",}", "not JSON: key must be a string at line 1 column 12"),
        ("{\"op\":\"\\x\"}", "not JSON: invalid escape at line 1 column 9"),
        (
            "{\"id\":18446744073709551616}",
            "request: number out of range at character 25: expected one that fits into 64 bits",
        ),
    ] {
        let error = refused(text);
        assert_eq!((error.message.as_str(), error.id), (message, None), "{text}");
    }
    let bytes = parse_request(&mut b"{\"op\":\"\xff\"}".to_vec(), &LIMITS).expect_err("not UTF-8");
    assert_eq!(bytes.message, "not JSON: not UTF-8 at character 7");
}

#[test]
fn values_other_than_objects_are_refused() {
    for (text, given) in [("[1,2]", "(a list of 2)"), ("7", "7"), ("\"ping\"", "\"ping\""), ("null", "null")] {
        let message =
            format!("request: invalid value {given}: expected an object such as {{\"op\":\"ping\",\"id\":1}}");
        assert_eq!(refused(text).message, message);
    }
}

#[test]
fn too_many_symbols_are_refused() {
    let symbols = vec!["\"A\""; 100_000].join(",");
    let error = refused(&subscription("symbols", &format!("[{symbols}]")));
    assert_eq!(error.code, LIMIT);
    assert_eq!((error.message.as_str(), error.id), ("symbols: 100000 in one request: expected at most 1000", Some(7)));
    let symbols = vec!["\"A\""; 1000].join(",");
    assert!(parse(&subscription("symbols", &format!("[{symbols}]"))).is_ok());
}

#[test]
fn long_symbol_is_refused_and_cut_at_a_character() {
    let fits = "a".repeat(64);
    assert!(parse(&subscription("symbols", &format!("[\"{fits}\"]"))).is_ok());
    let error = refused(&subscription("symbols", &format!("[\"a{}\"]", "é".repeat(32))));
    assert_eq!(error.code, LIMIT);
    let shown = "é".repeat(29);
    assert_eq!(error.message, format!("symbols[0]: \"a{shown}\"… has 65 bytes: expected at most 64"));
}

#[test]
fn control_characters_are_escaped_in_errors() {
    let error = refused(&subscription("op", r#""\u001b[2J\u0000\n""#));
    assert_eq!(
        error.message,
        "op: unknown op \"\\u{1b}[2J\\0\\n\": expected subscribe, unsubscribe, resume, ping or auth"
    );
}

#[test]
fn nesting_is_bounded_without_using_the_stack() {
    let nested =
        |depth: usize| format!("{{\"op\":\"ping\",\"id\":1,\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    let too_deep = "request: nested too deep at character 55: expected at most 32 levels";
    assert_eq!(refused(&nested(31)).message, "\"x\": unknown field: expected op, id");
    assert_eq!(refused(&nested(32)).message, too_deep);
    assert_eq!(refused(&nested(100_000)).message, too_deep);
    assert_eq!(refused(&"[".repeat(100_000)).code, "bad_request");
    assert_eq!(refused(&"{\"a\":".repeat(100_000)).code, "bad_request");
}

#[test]
fn first_of_very_many_unknown_keys_is_named() {
    let many: Vec<String> = (0..100_000).map(|key| format!("\"{key}\":[{{}}]")).collect();
    let error = refused(&format!("{{{},\"op\":\"ping\",\"id\":1}}", many.join(",")));
    assert_eq!((error.id, &*error.message), (Some(1), "\"0\": unknown field: expected op, id"));
}

/// JSON that looks like a request: known keys with values of every kind.
fn nearly_a_request() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|flag| flag.to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<u64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_filter("JSON has no such number", |n| n.is_finite()).prop_map(|number| format!("{number:e}")),
        prop::sample::select(vec!["subscribe", "unsubscribe", "resume", "ping", "quote", "raw", "*", "A*B", "A-*"])
            .prop_map(|word| format!("\"{word}\"")),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    let value = leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(|list| format!("[{}]", list.join(","))),
            prop::collection::vec(inner, 0..4).prop_map(|list| {
                let fields: Vec<String> =
                    list.iter().enumerate().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    });
    let key = prop::sample::select(vec![
        "op",
        "id",
        "channels",
        "symbols",
        "conflate_ms",
        "snapshot",
        "epoch",
        "position",
        "other",
    ]);
    prop::collection::vec((key, value), 0..12).prop_map(|fields| {
        let fields: Vec<String> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", fields.join(","))
    })
}

proptest! {
    #[test]
    fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(parse_request(&mut bytes, &LIMITS).is_err());
    }

    #[test]
    fn random_json_is_accepted_or_refused_with_a_short_message(text in nearly_a_request()) {
        if let Err(error) = parse(&text) {
            prop_assert!(error.message.len() < 700, "{}", error.message);
            prop_assert!(!error.message.chars().any(char::is_control), "{:?}", error.message);
            prop_assert!(!error.message.starts_with("not JSON"), "{}", error.message);
        }
    }

    #[test]
    fn damaged_request_never_panics(
        text in nearly_a_request(), at in any::<prop::sample::Index>(), byte: u8,
    ) {
        let mut broken = text.into_bytes();
        let at = at.index(broken.len());
        broken[at] = byte;
        let _ = parse_request(&mut broken.clone(), &LIMITS);
        broken.truncate(at);
        prop_assert!(parse_request(&mut broken, &LIMITS).is_err());
    }
}
