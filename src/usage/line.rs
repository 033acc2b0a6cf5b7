//! A line of the log as JSON. Text of tokens and clients is a JSON string, so that no line has a second one in it.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::calendar::utc;
use super::event::{Change, Event, Security, SessionFacts, What};
use crate::identity::{Kind, Principal};

/// Letters of the longest text that is not a name.
const DETAIL_CHARS_MAX: usize = 200;

/// All that a line may have, in the order in which it has it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Line<'a> {
    /// When.
    pub(super) at: Cow<'a, str>,
    /// `usage`, `security` or `server`.
    pub(super) kind: Cow<'a, str>,
    pub(super) event: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_empty")]
    pub(super) session: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_empty")]
    pub(super) user: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) professional: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) products: Option<Vec<Cow<'a, str>>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) gained: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) lost: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "is_empty")]
    pub(super) address: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_empty")]
    pub(super) transport: Cow<'a, str>,
    /// Age of the data; live if it is not there.
    #[serde(skip_serializing_if = "is_0")]
    pub(super) delay_s: u64,
    #[serde(skip_serializing_if = "is_empty")]
    pub(super) credential: Cow<'a, str>,
    /// Since when the session has, or had, these products.
    #[serde(skip_serializing_if = "is_empty")]
    pub(super) from: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_empty")]
    pub(super) to: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_empty")]
    pub(super) reason: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_empty")]
    pub(super) cause: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_empty")]
    pub(super) detail: Cow<'a, str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) names: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "is_0")]
    pub(super) count: u64,
}

fn is_empty(text: &str) -> bool {
    text.is_empty()
}

fn is_0(count: &u64) -> bool {
    *count == 0
}

impl<'a> Line<'a> {
    /// The line of an event of a run of the server.
    pub(super) fn of(event: &'a Event, run: u32) -> Self {
        let at = utc(event.at_ms).into();
        match &event.what {
            What::Session { session, change } => Self { at, ..of_session(session, change, event.at_ms, run) },
            What::Security(security) => Self { at, ..of_security(security, run) },
        }
    }

    /// A line about the server itself.
    pub(super) fn of_server(event: &'static str, at_ms: u64, run: u32, sessions: u64) -> Line<'static> {
        Line {
            at: utc(at_ms).into(),
            kind: "server".into(),
            event: event.into(),
            session: format!("{run:08x}").into(),
            count: sessions,
            ..Line::default()
        }
    }

    /// Appends the line.
    pub(super) fn push(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(&mut *out, self).expect("writing to memory cannot fail");
        out.push(b'\n');
    }
}

/// The name of a session: the run of the server, and its number.
fn session_name(number: u64, run: u32) -> String {
    format!("{run:08x}-{number}")
}

fn texts(list: &[Box<str>]) -> Vec<Cow<'_, str>> {
    list.iter().map(|text| Cow::Borrowed(&**text)).collect()
}

fn credential(kind: Kind) -> &'static str {
    match kind {
        Kind::ApiKey => "api_key",
        Kind::Authorized => "authorizer",
        Kind::Token | Kind::Anonymous => "token",
    }
}

fn of_session<'a>(session: &'a SessionFacts, change: &'a Change, at_ms: u64, run: u32) -> Line<'a> {
    let principal: &Principal = &session.principal;
    let mut line = Line {
        kind: "usage".into(),
        session: session_name(session.number, run).into(),
        user: Cow::Borrowed(&principal.user),
        professional: principal.contract.professional,
        products: Some(texts(&principal.contract.products)),
        address: session.address.map_or_else(String::new, |address| address.to_string()).into(),
        transport: session.transport.into(),
        delay_s: session.delay_s.into(),
        credential: credential(principal.kind).into(),
        from: utc(session.from_ms).into(),
        ..Line::default()
    };
    match change {
        Change::Opened => line.event = "opened".into(),
        Change::Changed { before } => {
            let had: BTreeSet<&str> = before.contract.products.iter().map(|name| &**name).collect();
            let has: BTreeSet<&str> = principal.contract.products.iter().map(|name| &**name).collect();
            line.event = "changed".into();
            line.gained = has.difference(&had).map(|name| Cow::Borrowed(*name)).collect();
            line.lost = had.difference(&has).map(|name| Cow::Owned((*name).to_owned())).collect();
        }
        Change::Closed { reason, detail } => {
            line.event = "closed".into();
            line.to = utc(at_ms).into();
            line.reason = (*reason).into();
            line.detail = cut(detail);
        }
    }
    line
}

fn of_security(security: &Security, run: u32) -> Line<'_> {
    Line {
        kind: "security".into(),
        event: security.event.into(),
        session: security.session.map_or_else(String::new, |number| session_name(number, run)).into(),
        user: security.user.as_deref().unwrap_or_default().into(),
        address: security.address.map_or_else(String::new, |address| address.to_string()).into(),
        cause: security.cause.into(),
        detail: cut(&security.detail),
        names: security.names.iter().map(|name| Cow::Borrowed(name.as_str())).collect(),
        count: security.count,
        ..Line::default()
    }
}

fn cut(text: &str) -> Cow<'_, str> {
    let end = text.char_indices().nth(DETAIL_CHARS_MAX).map_or(text.len(), |(at, _)| at);
    Cow::Borrowed(&text[..end])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::identity::{Contract, Rights};

    fn principal(user: &str, products: &[&str]) -> Arc<Principal> {
        let contract = Contract {
            professional: Some(false),
            products: products.iter().map(|name| (*name).into()).collect(),
            sessions_max: None,
        };
        Arc::new(Principal { contract, ..Principal::new(Kind::Token, user, Arc::new(Rights::none())) })
    }

    fn text(change: Change, principal: Arc<Principal>) -> String {
        let session =
            SessionFacts { number: 7, principal, address: None, transport: "websocket", delay_s: 0, from_ms: 5 };
        let mut out = Vec::new();
        Line::of(&Event { at_ms: 1005, what: What::Session { session, change } }, 0xab).push(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_of_tokens_stays_inside_its_line() {
        let user = "a\"}\n{\"kind\":\"usage\",\"user\":\"b\u{2028}\u{1b}[2J";
        let closed = Change::Closed { reason: "policy", detail: "x\ny".repeat(200) };
        let line = text(closed, principal(user, &["P\n"]));
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((read["user"].as_str(), read["products"][0].as_str()), (Some(user), Some("P\n")));
        assert_eq!(read["detail"].as_str().map(|detail| detail.chars().count()), Some(DETAIL_CHARS_MAX));
        assert_eq!(
            (read["from"].as_str(), read["to"].as_str()),
            (Some("1970-01-01T00:00:00.005Z"), read["at"].as_str())
        );
        assert_eq!(read["session"], "000000ab-7");
    }

    #[test]
    fn change_names_what_was_gained_and_lost() {
        let line = text(Change::Changed { before: principal("a", &["A", "B"]) }, principal("a", &["B", "C"]));
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&read["gained"], &read["lost"]), (&serde_json::json!(["C"]), &serde_json::json!(["A"])), "{line}");
        assert_eq!((&read["products"], read.get("to")), (&serde_json::json!(["B", "C"]), None));
    }
}
