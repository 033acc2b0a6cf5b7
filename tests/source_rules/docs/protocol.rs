//! docs/protocol.md against the crate that implements it: control messages, record types, flags, close codes.

use std::collections::{BTreeMap, BTreeSet};

use tickcast_protocol::control::{Reply, RequestLimits, parse_define, parse_request};
use tickcast_protocol::packet;
use tickcast_protocol::record::{self, Gap, Quote, Ticker, Trade, flags};
use tickcast_protocol::{Channel, RecordKind};

use super::{fenced, files, read, rows, section, unquoted};

const REPLIES: [&str; 10] = [
    "welcome",
    "authenticated",
    "expiring",
    "subscribed",
    "unsubscribed",
    "resumed",
    "pong",
    "error",
    "closing",
    "defined",
];

/// The word in `type`. A reply that is not listed here does not compile.
fn reply_name(reply: &Reply) -> Option<&'static str> {
    Some(match reply {
        Reply::Welcome { .. } => "welcome",
        Reply::Authenticated { .. } => "authenticated",
        Reply::Expiring { .. } => "expiring",
        Reply::Subscribed { .. } => "subscribed",
        Reply::Unsubscribed { .. } => "unsubscribed",
        Reply::Resumed { .. } => "resumed",
        Reply::Pong { .. } => "pong",
        Reply::Error { .. } => "error",
        Reply::Closing { .. } => "closing",
        Reply::Defined { .. } => "defined",
        Reply::Other => return None,
    })
}

/// The examples of a section that begin so.
fn examples<'a>(page: &'a str, heading: &str, begin: &str) -> Vec<&'a str> {
    fenced(section(page, heading)).into_iter().filter(|line| line.starts_with(begin)).collect()
}

/// Close code to the name of its constant.
fn close_codes() -> BTreeMap<u16, String> {
    let source = read("crates/tickcast-protocol/src/ws/close_code.rs");
    let constants =
        source.lines().filter_map(|line| line.trim().strip_prefix("pub const ")?.split_once(": Self = Self("));
    let codes = constants.filter_map(|(name, rest)| Some((rest.split(')').next()?.parse().ok()?, name.to_owned())));
    codes.collect()
}

/// True where code that is not a test names the constant outside of its own file.
fn is_used(constant: &str, sources: &[String]) -> bool {
    let named = format!("CloseCode::{constant}");
    let ends = |rest: &str| !rest.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '_');
    sources.iter().any(|text| text.split(&named).skip(1).any(ends))
}

fn sources() -> Vec<String> {
    let is_source = |path: &&std::path::PathBuf| {
        let text = path.to_string_lossy();
        let in_scope = text.starts_with("src/") || text.starts_with("crates/tickcast-protocol/src/");
        in_scope && text.ends_with(".rs") && !text.ends_with("ws/close_code.rs") && !text.contains("tests")
    };
    let code = |text: String| text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
    files().iter().filter(is_source).map(|path| code(read(path))).collect()
}

/// Code and whether the page calls it reserved.
fn documented_codes(page: &str) -> BTreeMap<u16, bool> {
    let rows = rows(section(page, "## Close codes")).into_iter();
    rows.map(|row| (row[0].parse().expect("a number"), row[2].contains("**reserved**"))).collect()
}

#[test]
fn close_codes_are_those_of_the_code_and_reserved_are_those_that_nothing_sends() {
    let sources = sources();
    let real: BTreeMap<u16, bool> =
        close_codes().into_iter().map(|(code, name)| (code, !is_used(&name, &sources))).collect();
    assert!(real.len() >= 10 && real.values().any(|reserved| *reserved) && !real[&4002], "{real:?}");
    assert_eq!(documented_codes(&read("docs/protocol.md")), real);
    let planted = ["match x { CloseCode::NOT_ENTITLED => 1, CloseCode::NORMALLY => 2 }".to_owned()];
    assert!(is_used("NOT_ENTITLED", &planted) && !is_used("NORMAL", &planted));
}

#[test]
fn the_requests_of_the_page_are_read_by_the_server() {
    let page = read("docs/protocol.md");
    let limits = RequestLimits { symbols_max: 100, symbol_bytes_max: 64 };
    let heading = "## Control messages of subscribers";
    let mut ops = BTreeSet::new();
    for example in examples(&page, heading, "{\"op\"") {
        parse_request(&mut example.as_bytes().to_vec(), &limits).unwrap_or_else(|error| panic!("{example}: {error}"));
        ops.insert(example.split('"').nth(3).expect("the value of op"));
    }
    let table: BTreeSet<_> =
        rows(section(&page, heading)).into_iter().map(|row| unquoted(&row[0]).to_owned()).collect();
    assert_eq!(ops, ["subscribe", "unsubscribe", "resume", "ping", "auth"].into());
    assert!(ops.iter().all(|op| table.contains(*op)), "{table:?}");
    for example in examples(&page, "## Publishing", "{\"op\"") {
        parse_define(&mut example.as_bytes().to_vec(), 64).unwrap_or_else(|error| panic!("{example}: {error}"));
    }
}

#[test]
fn the_replies_of_the_page_are_read_by_the_client_and_are_all_there_are() {
    let page = read("docs/protocol.md");
    let mut names = BTreeSet::new();
    for heading in ["## Control messages of subscribers", "## Publishing"] {
        for example in examples(&page, heading, "{\"type\"") {
            let reply = Reply::parse(example).unwrap_or_else(|error| panic!("{example}: {error}"));
            names.insert(reply_name(&reply).unwrap_or_else(|| panic!("unknown: {example}")));
        }
    }
    assert_eq!(names, REPLIES.into());
    let heading = "## Control messages of subscribers";
    let table: BTreeSet<_> =
        rows(section(&page, heading)).into_iter().map(|row| unquoted(&row[0]).to_owned()).collect();
    assert!(REPLIES.iter().filter(|name| **name != "defined").all(|name| table.contains(*name)), "{table:?}");
}

#[test]
fn the_table_of_record_types_is_that_of_the_code() {
    let page = read("docs/protocol.md");
    let listed: Vec<_> = rows(section(&page, "### Types")).into_iter().map(|row| row[..4].to_vec()).collect();
    let real = (0..=u8::MAX).filter_map(|byte| Some((byte, RecordKind::from_wire(byte)?))).map(|(byte, kind)| {
        let bytes = match kind {
            RecordKind::Quote => Quote::BYTES.to_string(),
            RecordKind::Trade => Trade::BYTES.to_string(),
            RecordKind::Ticker => Ticker::BYTES.to_string(),
            RecordKind::Gap => Gap::BYTES.to_string(),
            RecordKind::Heartbeat => record::HEADER_BYTES.to_string(),
            RecordKind::Status => "40".to_owned(),
            RecordKind::Book => format!("40 + {} n", record::LEVEL_BYTES),
            RecordKind::Raw => "40 + payload, padded".to_owned(),
            RecordKind::Definition => "64 + names, padded".to_owned(),
        };
        let channel = kind.channel().map_or(String::new(), |channel| format!("`{}`", Channel::name(channel)));
        vec![byte.to_string(), format!("{kind:?}"), channel, bytes]
    });
    assert_eq!(listed, real.collect::<Vec<_>>());
}

#[test]
fn the_flags_of_the_page_are_those_of_the_code() {
    let page = read("docs/protocol.md");
    let (packets, records) = (section(&page, "## Packet"), section(&page, "## Record"));
    for (flag, name) in [
        (packet::flags::SNAPSHOT, "SNAPSHOT"),
        (packet::flags::REPLAY, "REPLAY"),
        (packet::flags::CAUGHT_UP, "CAUGHT_UP"),
    ] {
        assert!(packets.contains(&format!("`{flag:#04x}` {name}")), "{name}");
    }
    for (flag, name) in [
        (flags::LAST, "LAST"),
        (flags::SNAPSHOT, "SNAPSHOT"),
        (flags::CONFLATED, "CONFLATED"),
        (flags::DELAYED, "DELAYED"),
        (flags::MAYBE_BAD_BOOK, "MAYBE_BAD_BOOK"),
        (flags::COMPUTED, "COMPUTED"),
    ] {
        assert!(records.contains(&format!("`{flag:#04x}` {name}")), "{name}");
    }
}
