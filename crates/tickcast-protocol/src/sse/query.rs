//! The request of an SSE client, as the query of its URL:
//! `symbols=BTC-USD,ETH-*&channels=quote,trade&conflate_ms=100&snapshot=true`.
//!
//! The query is translated to the JSON request of a WebSocket client and parsed as that: both have the same limits and
//! the same error messages.

use serde_json::{Map, Value, json};

use crate::control::{LIMIT, Request, RequestError, RequestLimits, bad, parse_request, quote};
use crate::{Token, TokenError};

/// Channels if the query has none: what a price display on a page needs.
const CHANNELS: [&str; 2] = ["quote", "trade"];
const PARAMETERS: &str = "symbols, channels, conflate_ms, snapshot, last_event_id or token";
/// The id of the request and its reply.
const ID: u64 = 1;

/// Reads the query of a URL; `symbols_max` of the limits bounds the subscriptions of the connection. With a `token`, from
/// the Last-Event-ID header, the request is a resume. That token is newer than one in the query, which browsers repeat
/// each time they reconnect.
///
/// # Errors
/// The first thing that is wrong, with the name of the parameter.
pub fn parse_query(query: &str, token: Option<Token>, limits: &RequestLimits) -> Result<Request, RequestError> {
    let mut fields = Map::new();
    let mut query_token = None;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "symbols" | "channels" => {
                let list = fields.entry(&*name).or_insert_with(|| json!([]));
                let list = list.as_array_mut().expect("inserted as a list");
                list.extend(split_list(&value).into_iter().map(Value::from));
            }
            "last_event_id" if query_token.is_some() => return Err(bad(name, "repeated: expected once")),
            _ if fields.contains_key(&*name) => return Err(bad(name, "repeated: expected once")),
            "conflate_ms" => drop(fields.insert(name.into_owned(), number_or_text(&value))),
            "snapshot" => drop(fields.insert(name.into_owned(), flag_or_text(&value))),
            "last_event_id" => {
                let wrong =
                    |error: TokenError| bad("last_event_id", format_args!("invalid value {}: {error}", quote(&value)));
                query_token = Some(value.parse::<Token>().map_err(wrong)?);
            }
            // The credential, which the server has read: a browser's `EventSource` sends no header with it.
            "token" => {}
            _ => return Err(bad(quote(&name), format_args!("unknown parameter: expected {PARAMETERS}"))),
        }
    }
    fields.entry("channels").or_insert_with(|| json!(CHANNELS));
    fields.insert("id".to_owned(), ID.into());
    fields.insert("op".to_owned(), "subscribe".into());
    if let Some(Token { epoch, position }) = token.or(query_token) {
        // A resume has none: it is for a client that has no token.
        let snapshot = fields.remove("snapshot").filter(|value| !value.is_boolean());
        if let Some(value) = snapshot {
            let given = value.as_str().map_or_else(|| value.to_string(), quote);
            return Err(bad("snapshot", format_args!("invalid value {given}: expected true or false")));
        }
        fields.extend([
            ("op".to_owned(), "resume".into()),
            ("epoch".to_owned(), epoch.into()),
            ("position".to_owned(), position.get().into()),
        ]);
    }
    let request = parse_request(&mut Value::from(fields).to_string().into_bytes(), limits)?;
    check_subscriptions(&request, limits.symbols_max)?;
    Ok(request)
}

/// The elements of a list parameter, given decoded. A comma separates them, however it was encoded: URL libraries write
/// `%2C`. A comma of a name is written `\,`, and a backslash before a comma or a backslash `\\`; before anything else a
/// backslash is itself.
pub fn split_list(text: &str) -> Vec<String> {
    let (mut elements, mut element) = (Vec::new(), String::new());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => element.push(letters.next_if(|next| matches!(next, ',' | '\\')).unwrap_or(letter)),
            ',' => elements.push(std::mem::take(&mut element)),
            _ => element.push(letter),
        }
    }
    elements.push(element);
    elements
}

/// An SSE client requests everything at once, so the limit of the connection is checked while HTTP can still refuse.
fn check_subscriptions(request: &Request, subscriptions_max: usize) -> Result<(), RequestError> {
    let (Request::Subscribe { channels, symbols, .. } | Request::Resume { channels, symbols, .. }) = request else {
        unreachable!("a query subscribes or resumes");
    };
    let total = symbols.len() * channels.iter().count();
    if total <= subscriptions_max {
        return Ok(());
    }
    let problem = format_args!(
        "{total} subscriptions (symbols times channels): expected at most {subscriptions_max} per connection"
    );
    Err(RequestError { code: LIMIT, ..bad("symbols", problem) })
}

/// A number if it is one; any other text is refused as a text.
fn number_or_text(text: &str) -> Value {
    text.parse::<u64>().map_or_else(|_| text.into(), Value::from)
}

fn flag_or_text(text: &str) -> Value {
    text.parse::<bool>().map_or_else(|_| text.into(), Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConflationInterval;
    use crate::control::{BAD_REQUEST, ChannelSet, Pattern};
    use crate::{Channel, Position};

    const LIMITS: RequestLimits = RequestLimits { symbols_max: 4, symbol_bytes_max: 8 };
    const TOKEN: Token = Token { epoch: 7, position: Position::new(91_823) };

    fn patterns(names: &[&str]) -> Vec<Pattern> {
        names.iter().map(|name| Pattern::parse(name).unwrap()).collect()
    }

    #[test]
    fn query_is_a_subscription_with_defaults() {
        let channels: ChannelSet = [Channel::Quote, Channel::Trade].into_iter().collect();
        let symbols = patterns(&["BTC-USD", "ETH-*"]);
        let conflate = ConflationInterval::IMMEDIATE;
        let wanted = Request::Subscribe { id: 1, channels, symbols, conflate, snapshot: true };
        assert_eq!(parse_query("symbols=BTC-USD,ETH-*", None, &LIMITS), Ok(wanted.clone()));
        assert_eq!(parse_query("symbols=BTC-USD&symbols=ETH-%2A&", None, &LIMITS), Ok(wanted.clone()));
        assert_eq!(parse_query("symbols=BTC-USD,ETH-*&token=secret", None, &LIMITS), Ok(wanted));
        let all = "channels=book%2Craw&symbols=*&snapshot=false&conflate_ms=70";
        let wanted = Request::Subscribe {
            id: 1,
            channels: [Channel::Book, Channel::Raw].into_iter().collect(),
            symbols: patterns(&["*"]),
            conflate: ConflationInterval::round_up(100).unwrap(),
            snapshot: false,
        };
        assert_eq!(parse_query(all, None, &LIMITS), Ok(wanted));
    }

    #[test]
    fn token_makes_it_a_resume_whatever_the_query_says_of_a_snapshot() {
        let plain = parse_query("symbols=A", Some(TOKEN), &LIMITS);
        assert!(matches!(plain, Ok(Request::Resume { token: TOKEN, .. })), "{plain:?}");
        for value in ["true", "false"] {
            assert_eq!(parse_query(&format!("symbols=A&snapshot={value}"), Some(TOKEN), &LIMITS), plain);
        }
        let error = parse_query("symbols=A&snapshot=no", Some(TOKEN), &LIMITS).unwrap_err();
        assert_eq!(error.message, "snapshot: invalid value \"no\": expected true or false");
    }

    #[test]
    fn commas_separate_and_escaped_commas_belong_to_the_name() {
        for (text, elements) in [
            ("A,B-*", &["A", "B-*"][..]),
            (r"A\,B", &["A,B"]),
            (r"A\,B,C", &["A,B", "C"]),
            (r"A\\,B", &[r"A\", "B"]),
            (r"A\\\,B", &[r"A\,B"]),
            (r"A\B\", &[r"A\B\"]),
            ("", &[""]),
            (",", &["", ""]),
        ] {
            assert_eq!(split_list(text), elements, "{text}");
        }
        for query in [r"symbols=A\,B,AB++C", "symbols=A%5C%2CB%2CAB%20%20C", r"symbols=A\,B&symbols=AB++C"] {
            let channels: ChannelSet = [Channel::Quote, Channel::Trade].into_iter().collect();
            let symbols = patterns(&["A,B", "AB  C"]);
            let conflate = ConflationInterval::IMMEDIATE;
            let wanted = Request::Subscribe { id: 1, channels, symbols, conflate, snapshot: true };
            assert_eq!(parse_query(query, None, &LIMITS), Ok(wanted), "{query}");
        }
    }

    #[test]
    fn token_makes_a_resume_and_the_header_precedes_the_query() {
        let position_of = |query: &str, token: Option<Token>| match parse_query(query, token, &LIMITS) {
            Ok(Request::Resume { token: Token { epoch: 7, position }, .. }) => position.get(),
            other => panic!("{other:?}"),
        };
        assert_eq!(position_of("symbols=*", Some(TOKEN)), 91_823);
        assert_eq!(position_of("symbols=*&last_event_id=7-5", None), 5);
        assert_eq!(position_of("symbols=*&last_event_id=7-5", Some(TOKEN)), 91_823);
    }

    #[test]
    fn refusal_names_parameter_value_and_expectation() {
        for (query, code, message) in [
            ("", BAD_REQUEST, "symbols: missing: expected a list of names and patterns"),
            ("symbols=", BAD_REQUEST, "symbols[0]: \"\" is empty: expected a name"),
            ("symbols=A*B", BAD_REQUEST, "symbols[0]: \"A*B\" has a * before its end"),
            ("symbols=A,B,C,D,E", LIMIT, "symbols: 5 in one request: expected at most 4"),
            (
                "symbols=A,B,C",
                LIMIT,
                "symbols: 6 subscriptions (symbols times channels): expected at most 4 per connection",
            ),
            ("symbols=123456789", LIMIT, "symbols[0]: \"123456789\" has 9 bytes: expected at most 8"),
            ("symbols=*&channels=quotes", BAD_REQUEST, "channels: unknown channel \"quotes\": expected quote, trade"),
            ("symbols=*&conflate_ms=fast", BAD_REQUEST, "conflate_ms: invalid value \"fast\": expected a whole number"),
            ("symbols=*&conflate_ms=-1", BAD_REQUEST, "conflate_ms: invalid value \"-1\": expected a whole number"),
            ("symbols=*&conflate_ms=1001", BAD_REQUEST, "conflate_ms: 1001 is out of range: expected 0 to 1000"),
            ("symbols=*&snapshot=no", BAD_REQUEST, "snapshot: invalid value \"no\": expected true or false"),
            ("symbols=*&snapshot=true&snapshot=true", BAD_REQUEST, "snapshot: repeated: expected once"),
            ("symbols=*&last_event_id=9", BAD_REQUEST, "last_event_id: invalid value \"9\": expected EPOCH-POSITION"),
            ("symbols=*&last_event_id=7-1&last_event_id=7-1", BAD_REQUEST, "last_event_id: repeated: expected once"),
            ("symbol=*", BAD_REQUEST, "\"symbol\": unknown parameter: expected symbols, channels, conflate_ms"),
            ("symbols=*&op=ping", BAD_REQUEST, "\"op\": unknown parameter"),
        ] {
            let error = parse_query(query, None, &LIMITS).expect_err(query);
            assert_eq!(error.code, code, "{query}: {error}");
            assert!(error.message.starts_with(message), "{query}: {error}");
        }
    }
}
