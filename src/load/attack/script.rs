//! What a connection of each kind sends. Pure.
//!
//! A connection sends its head. One that requests an upgrade waits until that is granted, and then sends its greeting
//! and its actions, again and again from the first. What is large is made once a kind and shared.

use std::borrow::Cow;

use tickcast_protocol::ws::Opcode;

use super::frames::{compressed_text, deflate, empty_continuation, first_fragment, frame, partial_text};
use super::kind::AttackKind;

/// Frames of one action.
const FRAMES: usize = 16;
/// Bytes of a message that is never finished, and how many of them are sent at once.
const PARTIAL_BYTES: usize = REQUEST_BYTES_MAX;
const PARTIAL_SENT: usize = 150_000;
/// Patterns, names or nested patterns of one request.
const PATTERNS: usize = 10_000;
const NESTED: usize = 35;
/// Names of one event stream: with five channels, the subscriptions that a connection may have by default.
const STREAM_NAMES: usize = 2_000;
/// What a subscriber may request a second by default, with a margin, and at once.
const REQUESTS_PER_S: u32 = 40;
const REQUESTS_AT_ONCE: usize = 200;
/// To what multiple of its bytes a compressed message inflates: the server allows 100 by default.
const INFLATE_RATIO: usize = 99;
/// Below these bytes the server allows any ratio.
const SMALL_INFLATED_BYTES: usize = 64 * 1024;
/// The longest request that a server takes by default.
const REQUEST_BYTES_MAX: usize = 256 * 1024;
/// The id of the last request of a connection that leaves once it is answered.
const LAST_ID: u64 = 987_654_321;
/// Channels that a pattern of an attack asks for.
const CHANNELS: &str = r#"["quote","trade","ticker","book"]"#;

/// What a script depends on beside the kind.
#[derive(Clone, Copy, Debug)]
pub struct ScriptInput<'a> {
    /// The `Host` of requests.
    pub authority: &'a str,
    /// The path of the stream.
    pub path: &'a str,
    /// An instrument that the innocent clients receive.
    pub symbol: &'a str,
    /// Connections of the kind, and its actions a second.
    pub connections: u32,
    pub rate: u32,
}

/// What the connections of a kind send.
#[derive(Clone, Debug)]
pub struct Script {
    /// Sent at once, taken round robin by the connections.
    pub heads: Vec<Vec<u8>>,
    /// The head requests an upgrade.
    pub upgrades: bool,
    /// Sent once the upgrade is granted.
    pub greeting: Greeting,
    /// Sent one after another from then on.
    pub actions: Vec<Vec<u8>>,
    /// What the server sends is read.
    pub reads: bool,
    /// When a connection leaves by itself.
    pub leaves: Leaves,
}

/// What a connection sends first.
#[derive(Clone, Debug)]
pub enum Greeting {
    /// The same on all connections.
    Shared(Vec<u8>),
    /// A subscription of its own: patterns or names, in turn.
    OwnSubscription,
}

/// When a connection leaves by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    Never,
    /// At the next visit, whatever the server has answered.
    AtOnce,
    /// After this many visits since the request with the last id was answered.
    Answered {
        visits: u32,
    },
    /// Once its one request is answered.
    Ended,
    /// Once its handshake of TLS is complete.
    Secured,
}

impl Script {
    /// The script of a kind.
    pub fn new(kind: AttackKind, input: &ScriptInput<'_>) -> Self {
        let head = match kind {
            AttackKind::SlowHeaders | AttackKind::HalfOpen | AttackKind::Gets | AttackKind::UnreadAnswers => {
                return Self::of_requests(kind, input);
            }
            AttackKind::Compressed => upgrade(input, "Sec-WebSocket-Extensions: permessage-deflate\r\n"),
            _ => upgrade(input, ""),
        };
        let (greeting, actions, leaves) = match kind {
            AttackKind::Connects => (Vec::new(), Vec::new(), Leaves::AtOnce),
            AttackKind::Handshakes => (Vec::new(), Vec::new(), Leaves::Secured),
            AttackKind::Pings => {
                (Vec::new(), vec![frame(Opcode::Ping, b"are you there?").repeat(FRAMES)], Leaves::Never)
            }
            AttackKind::Pongs => {
                let both = [frame(Opcode::Pong, b""), empty_continuation()].concat();
                (first_fragment(b"{"), vec![both.repeat(FRAMES / 2)], Leaves::Never)
            }
            AttackKind::PartialMessages => {
                (partial_text(PARTIAL_BYTES, PARTIAL_SENT), vec![b" ".to_vec()], Leaves::Never)
            }
            AttackKind::Compressed => (Vec::new(), compressed(input), Leaves::Never),
            AttackKind::Subscribes => (Vec::new(), vec![on_and_off(&["*"]).repeat(FRAMES / 2)], Leaves::Never),
            AttackKind::Reconnects => (Vec::new(), burst(), Leaves::Answered { visits: 0 }),
            AttackKind::NestedPatterns => {
                let [on, off] = both_requests(&nested(input.symbol));
                let count = input.requests_per_action().div_ceil(2);
                (Vec::new(), vec![[on, off].concat().repeat(count)], Leaves::Never)
            }
            AttackKind::Unsubscribes => {
                let names: Vec<_> = (0..PATTERNS).map(|nth| format!("A{nth:05}")).collect();
                let off = text(&request("unsubscribe", 1, CHANNELS, &["ZZ*".to_owned()]));
                let on = text(&request("subscribe", 1, r#"["quote"]"#, &names));
                (on, vec![off.repeat(input.requests_per_action())], Leaves::Never)
            }
            // Its connections send an own greeting; the visits are about a second.
            AttackKind::Patterns => {
                (Vec::new(), vec![Vec::new()], Leaves::Answered { visits: input.rate.div_ceil(input.connections) })
            }
            _ => (Vec::new(), Vec::new(), Leaves::Never),
        };
        let greeting =
            if kind == AttackKind::Patterns { Greeting::OwnSubscription } else { Greeting::Shared(greeting) };
        let head = if kind == AttackKind::Handshakes { Vec::new() } else { head };
        Self { heads: vec![head], upgrades: true, greeting, actions, reads: true, leaves }
    }

    /// Those without an upgrade.
    fn of_requests(kind: AttackKind, input: &ScriptInput<'_>) -> Self {
        let (path, authority) = (input.path, input.authority);
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\n\r\n").into_bytes();
        let (heads, actions, leaves) = match kind {
            AttackKind::SlowHeaders => {
                let head = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nX-Slow: ").into_bytes();
                (vec![head], vec![b"a".to_vec()], Leaves::Never)
            }
            AttackKind::Gets => {
                let heads = ["/v1/snapshot?symbols=*", "/readyz", "/metrics"].map(get).to_vec();
                (heads, Vec::new(), Leaves::Ended)
            }
            AttackKind::UnreadAnswers => {
                let names: Vec<_> = (0..STREAM_NAMES).map(|nth| format!("A{nth:04}")).collect();
                let names = names.join(",");
                let stream = format!("/v1/sse?channels=quote,trade,ticker,book,raw&symbols={names}");
                (vec![get("/v1/snapshot?symbols=*"), get(&stream)], Vec::new(), Leaves::Never)
            }
            _ => (vec![Vec::new()], Vec::new(), Leaves::Never),
        };
        let reads = kind != AttackKind::UnreadAnswers;
        Self { heads, upgrades: false, greeting: Greeting::Shared(Vec::new()), actions, reads, leaves }
    }

    /// The first frames of the connection that was opened as the `nth`.
    pub fn greeting(&self, nth: u64) -> Cow<'_, [u8]> {
        match &self.greeting {
            Greeting::Shared(bytes) => Cow::Borrowed(bytes),
            Greeting::OwnSubscription => {
                let star = if nth.is_multiple_of(2) { "*" } else { "" };
                let names: Vec<_> = (0..PATTERNS).map(|name| format!("A{nth:06}{name:04}{star}")).collect();
                Cow::Owned(text(&request("subscribe", LAST_ID, r#"["quote"]"#, &names)))
            }
        }
    }
}

impl ScriptInput<'_> {
    /// How many requests of one action keep a connection within the requests that a server allows a second by default.
    fn requests_per_action(&self) -> usize {
        (REQUESTS_PER_S * self.connections / self.rate.max(1)).clamp(1, FRAMES as u32) as usize
    }
}

/// What the reply to the last request contains.
pub fn last_answer() -> Vec<u8> {
    format!("\"id\":{LAST_ID}").into_bytes()
}

/// A request to upgrade, with these header lines beside the usual ones.
fn upgrade(input: &ScriptInput<'_>, lines: &str) -> Vec<u8> {
    let ScriptInput { authority, path, .. } = input;
    format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{lines}\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

fn text(request: &str) -> Vec<u8> {
    frame(Opcode::Text, request.as_bytes())
}

/// A request; `channels` is a JSON list.
fn request(op: &str, id: u64, channels: &str, symbols: &[String]) -> String {
    let symbols = serde_json::to_string(symbols).expect("text is JSON");
    format!(r#"{{"op":"{op}","id":{id},"channels":{channels},"symbols":{symbols}}}"#)
}

/// A subscription, and its end.
fn both_requests(symbols: &[String]) -> [Vec<u8>; 2] {
    ["subscribe", "unsubscribe"].map(|op| text(&request(op, 1, CHANNELS, symbols)))
}

fn on_and_off(symbols: &[&str]) -> Vec<u8> {
    let symbols: Vec<_> = symbols.iter().map(|symbol| (*symbol).to_owned()).collect();
    both_requests(&symbols).concat()
}

/// As many requests as the server allows at once, the last of them with the last id.
fn burst() -> Vec<Vec<u8>> {
    let mut burst = on_and_off(&["*"]).repeat(REQUESTS_AT_ONCE / 2 - 1);
    burst.extend(text(&request("subscribe", 1, CHANNELS, &["*".to_owned()])));
    burst.extend(text(&request("unsubscribe", LAST_ID, CHANNELS, &["*".to_owned()])));
    vec![burst]
}

/// Patterns, each of which covers all that the next one covers; the first ones cover the symbol.
fn nested(symbol: &str) -> Vec<String> {
    let name: String = symbol.chars().chain(std::iter::repeat('A')).take(NESTED - 1).collect();
    (0..NESTED).map(|length| format!("{}*", &name[..length])).collect()
}

/// Small messages that inflate as far as the server allows regardless of their size, and one that inflates to 99 times
/// its size and nearly the longest request.
fn compressed(input: &ScriptInput<'_>) -> Vec<Vec<u8>> {
    let padded = |noise: &str, bytes: usize| {
        let start = format!(r#"{{"op":"ping","id":1,"noise":"{noise}""#);
        format!("{start}{}}}", " ".repeat(bytes - start.len() - 1))
    };
    let small = compressed_text(padded("", SMALL_INFLATED_BYTES).as_bytes());
    let mut noise = String::new();
    let mut large = padded(&noise, REQUEST_BYTES_MAX);
    // DEFLATE stores two hexadecimal digits of a hash in a byte.
    while deflate(large.as_bytes()).len() * INFLATE_RATIO < large.len() {
        for _ in 0..8 {
            let word = (noise.len() as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            noise.push_str(&format!("{:016x}", word ^ word >> 29));
        }
        large = padded(&noise, REQUEST_BYTES_MAX);
    }
    vec![small.repeat(input.requests_per_action()), compressed_text(large.as_bytes())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickcast_protocol::ws::deflate::Inflater;
    use tickcast_protocol::ws::{Role, Session, SessionEvent, SessionLimits};

    const INPUT: ScriptInput<'_> = ScriptInput {
        authority: "127.0.0.1:9001",
        path: "/v1/stream",
        symbol: "LOAD-00000",
        connections: 256,
        rate: 2000,
    };

    fn script(kind: AttackKind) -> Script {
        Script::new(kind, &INPUT)
    }

    /// What a server reads of these frames.
    fn texts(session: &mut Session, mut bytes: Vec<u8>) -> Vec<serde_json::Value> {
        let limits = SessionLimits { message_bytes_max: REQUEST_BYTES_MAX };
        // The ratio that a server allows by default.
        let (mut inflater, mut consumed, mut texts) = (Inflater::new(100), 0, Vec::new());
        while let Some(event) =
            session.next_inflating(&limits, &mut inflater, &mut bytes, &mut consumed).expect("no violation")
        {
            let SessionEvent::Text(text) = event else { panic!("not a text: {event:?}") };
            texts.push(serde_json::from_slice(text).expect("JSON"));
        }
        texts
    }

    fn requests_of(bytes: Vec<u8>) -> Vec<serde_json::Value> {
        texts(&mut Session::new(Role::Server), bytes)
    }

    #[test]
    fn subscribers_send_what_their_kind_says() {
        let on = requests_of(script(AttackKind::Unsubscribes).greeting(0).into_owned());
        assert_eq!((on.len(), on[0]["symbols"].as_array().map(Vec::len)), (1, Some(10_000)));
        let off = requests_of(script(AttackKind::Unsubscribes).actions[0].clone());
        assert_eq!(
            (off.len(), &off[0]["op"], &off[0]["symbols"]),
            (5, &"unsubscribe".into(), &["ZZ*"].as_slice().into())
        );
        let nested = requests_of(script(AttackKind::NestedPatterns).actions[0].clone());
        let patterns: Vec<_> = nested[0]["symbols"].as_array().expect("a list").iter().collect();
        assert_eq!(
            (nested.len(), patterns.len(), patterns[0], patterns[10]),
            (6, 35, &"*".into(), &"LOAD-00000*".into())
        );
        let burst = requests_of(script(AttackKind::Reconnects).actions.concat());
        assert_eq!((burst.len(), &burst[199]["id"]), (200, &LAST_ID.into()));
        let all = requests_of(script(AttackKind::Subscribes).actions.concat());
        assert_eq!((all.len(), &all[0]["op"], &all[1]["op"]), (16, &"subscribe".into(), &"unsubscribe".into()));
    }

    #[test]
    fn patterns_and_names_are_of_one_connection_each() {
        let script = script(AttackKind::Patterns);
        let symbols =
            |nth| requests_of(script.greeting(nth).into_owned())[0]["symbols"].as_array().expect("a list").clone();
        let (patterns, names) = (symbols(0), symbols(1));
        assert!(patterns.iter().all(|pattern| pattern.as_str().is_some_and(|text| text.ends_with('*'))));
        assert!(names.iter().all(|name| name.as_str().is_some_and(|text| !text.ends_with('*'))));
        assert_eq!((patterns.len(), names.len()), (10_000, 10_000));
        assert_ne!(symbols(2), patterns);
    }

    #[test]
    fn compressed_messages_inflate_as_far_as_a_server_allows() {
        let actions = script(AttackKind::Compressed).actions;
        let mut session = Session::with_deflate(Role::Server);
        assert_eq!(texts(&mut session, actions[0].clone()).len(), 5);
        assert!(actions[0].len() < 5 * 300, "{} bytes", actions[0].len());
        assert_eq!(texts(&mut session, actions[1].clone())[0]["op"], "ping");
        let ratio = REQUEST_BYTES_MAX as f64 / actions[1].len() as f64;
        assert!((90.0..=99.0).contains(&ratio), "{ratio}");
    }

    #[test]
    fn requests_fit_into_the_head_that_a_server_takes() {
        const HEAD_BYTES_MAX: usize = 16_384;
        for kind in AttackKind::all() {
            let script = script(*kind);
            assert!(script.heads.iter().all(|head| head.len() < HEAD_BYTES_MAX), "{kind:?}");
        }
        let heads = script(AttackKind::UnreadAnswers).heads;
        assert!(heads[1].len() > 12_000 && !script(AttackKind::UnreadAnswers).reads);
    }
}
