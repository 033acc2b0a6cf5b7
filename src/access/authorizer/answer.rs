//! What the authorizer is asked, and what its answer says, read strictly.
//!
//! ```json
//! {"token":"…","purpose":"subscribe","address":"192.0.2.7"}
//! {"user":"u-17","expires_in_s":300,"rights":{"products":["CRYPTO-L1"]},"iat":1796000000,"jti":"5f3c"}
//! ```
//!
//! What always holds: no text that is made here has the token in it, whatever the answer repeats.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::api_keys;
use super::super::claims::NAME_BYTES_MAX;
use super::super::verify::{Cause, Denial, Now};
use crate::identity::object::read_from_objects;
use crate::identity::{Claim, Kind, Principal, Products, Rights, RightsText, Source};
use crate::ingest::transport::post::PostAnswer;

/// Bytes of the longest answer.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;
/// The longest time that an answer may hold, s: revocations are kept for at least as long.
const EXPIRES_S_MAX: u64 = 86_400;
/// By how much the clock of the authorizer may be ahead, s.
const LEEWAY_S: u64 = 300;

#[derive(Serialize)]
struct QuestionText<'a> {
    token: &'a str,
    purpose: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
}

/// The body of a request. Publishers and operators have tokens in the configuration: subscribers alone are asked about.
pub(super) fn question(token: &str, address: Option<IpAddr>) -> Vec<u8> {
    let text = QuestionText { token, purpose: "subscribe", address };
    serde_json::to_vec(&text).expect("every key is a string")
}

/// An answer of the status 200.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
struct AnswerText<'a> {
    user: String,
    /// How long the answer holds.
    expires_in_s: u64,
    #[serde(borrow)]
    rights: &'a RawValue,
    /// When the token was issued, s since the Unix epoch.
    #[serde(default)]
    iat: Option<u64>,
    /// What the token is revoked by; its hash if missing.
    #[serde(default)]
    jti: Option<String>,
}

read_from_objects!(AnswerText<'a>);

/// The client that an answer names, with the rights beside it: they are shared with others that have the same.
pub(super) fn read(
    answer: &PostAnswer,
    token: &str,
    url: &str,
    products: &Products,
    now: Now,
) -> Result<(Principal, Rights), Denial> {
    let found = check(answer).and_then(|()| principal(&answer.body, token, url, products, now));
    found.map_err(|denial| match denial.detail.contains(token) {
        true => Denial { detail: "the answer is wrong, and repeats the token".to_owned(), ..denial },
        false => denial,
    })
}

fn unchecked(detail: impl Into<String>) -> Denial {
    Denial { cause: Cause::Unchecked, detail: detail.into() }
}

/// Checks all that is before the body.
fn check(answer: &PostAnswer) -> Result<(), Denial> {
    let denial = |cause, detail: &str| Err(Denial { cause, detail: detail.to_owned() });
    match answer.status {
        200 => {}
        401 => return denial(Cause::Invalid, "the authorizer has answered 401"),
        403 => return denial(Cause::Forbidden, "the authorizer has answered 403"),
        status => {
            let redirect = if (300..400).contains(&status) { "; redirects are not followed" } else { "" };
            return Err(unchecked(format!("status {status}: expected 200, 401 or 403{redirect}")));
        }
    }
    let given = answer.content_type.as_deref().unwrap_or_default();
    let media_type = given.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        let shown: String = given.chars().take(80).collect();
        return Err(unchecked(format!("Content-Type {shown:?}: expected application/json")));
    }
    if answer.is_encoded {
        return Err(unchecked("Content-Encoding: expected none"));
    }
    Ok(())
}

fn principal(
    body: &[u8],
    token: &str,
    url: &str,
    products: &Products,
    now: Now,
) -> Result<(Principal, Rights), Denial> {
    let text: AnswerText<'_> =
        serde_json::from_slice(body).map_err(|error| unchecked(format!("invalid answer: {error}")))?;
    let AnswerText { user, expires_in_s, rights, iat, jti } = text;
    for (field, name) in [("user", Some(&user)), ("jti", jti.as_ref())] {
        let Some(name) = name else { continue };
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) || name.chars().any(char::is_control) {
            let problem = format!("{field}: {} bytes: expected 1 to {NAME_BYTES_MAX} visible ones", name.len());
            return Err(unchecked(problem));
        }
        // Names are logged.
        if name.contains(token) {
            return Err(unchecked(format!("{field}: it is the token: expected another name")));
        }
    }
    if !(1..=EXPIRES_S_MAX).contains(&expires_in_s) {
        return Err(unchecked(format!("expires_in_s: {expires_in_s} is out of range: expected 1 to {EXPIRES_S_MAX}")));
    }
    if iat.is_some_and(|issued_s| issued_s > now.wall_s + LEEWAY_S) {
        return Err(unchecked("iat: in the future: expected seconds since 1970; are the clocks right?"));
    }
    let not_understood = |detail: String| {
        let user = if user.contains(token) { "" } else { &user };
        Denial { cause: Cause::Rights, detail: format!("user {user:?}: rights: {detail}") }
    };
    let text: RightsText = serde_json::from_str(rights.get()).map_err(|error| not_understood(error.to_string()))?;
    let rights = text.resolve(products).map_err(not_understood)?;
    let contract = text.contract(products, None).map_err(not_understood)?;
    let claim = if text.products.is_empty() { Claim::Rules } else { Claim::Products(text) };
    let hash = || api_keys::hash(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let jti: String = jti.unwrap_or_else(hash);
    let none = Arc::new(Rights::none());
    let principal = Principal {
        jti: Some(jti.into()),
        issued_s: iat.unwrap_or(0),
        expires_s: Some(now.wall_s + expires_in_s),
        answered_s: now.wall_s,
        contract,
        source: Some(Arc::new(Source { issuer: url.into(), claim })),
        ..Principal::new(Kind::Authorized, &user, none)
    };
    Ok((principal, rights))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Product;
    use tickcast_protocol::Channel;

    const NOW: Now = Now { wall_s: 1_796_000_000, ns: 0 };
    const TOKEN: &str = "an-opaque-token";

    fn read_body(body: &str) -> Result<Principal, Denial> {
        let content_type = Some("application/json; charset=utf-8".to_owned());
        let answer = PostAnswer { status: 200, content_type, is_encoded: false, body: body.as_bytes().to_vec() };
        read_answer(&answer)
    }

    fn read_answer(answer: &PostAnswer) -> Result<Principal, Denial> {
        let text: RightsText = serde_json::from_str(r#"{"allow":[{"symbols":["EQ-*"]}]}"#).unwrap();
        let product = Product { rules: text.rules().unwrap(), sessions_max: Some(2) };
        let products = Products::from([("L1".to_owned(), product)]);
        let found = read(answer, TOKEN, "http://127.0.0.1/a", &products, NOW);
        found.map(|(principal, rights)| Principal { rights: Arc::new(rights), ..principal })
    }

    #[test]
    fn question_has_the_token_the_purpose_and_the_address() {
        let text = |address: Option<&str>| {
            String::from_utf8(question("a\"b", address.map(|address| address.parse().unwrap()))).unwrap()
        };
        let [v4, v6] = ["192.0.2.7", "2001:db8::1"].map(|address| text(Some(address)));
        assert_eq!(v4, r#"{"token":"a\"b","purpose":"subscribe","address":"192.0.2.7"}"#);
        assert!(v6.ends_with(r#""address":"2001:db8::1"}"#), "{v6}");
        assert_eq!(text(None), r#"{"token":"a\"b","purpose":"subscribe"}"#);
    }

    #[test]
    fn answer_names_the_user_its_rights_and_its_end() {
        let principal = read_body(
            r#"{"user":"u-17","expires_in_s":300,"iat":1795999000,"jti":"t1",
                "rights":{"products":["L1"],"allow":[{"symbols":["BTC-*"],"channels":["quote"]}],
                          "deny":[{"symbols":["EQ-X"]}],"max_connections":1,"professional":true}}"#,
        )
        .unwrap();
        assert_eq!(
            (principal.kind, &*principal.user, principal.jti.as_deref()),
            (Kind::Authorized, "u-17", Some("t1"))
        );
        assert_eq!((principal.issued_s, principal.expires_s), (1_795_999_000, Some(NOW.wall_s + 300)));
        assert_eq!((principal.contract.sessions_max, principal.contract.professional), (Some(1), Some(true)));
        for (symbol, channel, may_see) in [
            ("BTC-USD", Channel::Quote, true),
            ("BTC-USD", Channel::Trade, false),
            ("EQ-A", Channel::Book, true),
            ("EQ-X", Channel::Book, false),
            ("user/u-17/orders", Channel::Raw, true),
        ] {
            assert_eq!(principal.may_see(symbol, channel, 0), may_see, "{symbol}");
        }
        let least = read_body(r#"{"user":"a","expires_in_s":86400,"rights":{}}"#).unwrap();
        assert!(!least.may_see("BTC-USD", Channel::Quote, 0) && least.issued_s == 0, "nothing is allowed by default");
        let hash = "793e0fad";
        assert_eq!(least.jti.as_deref().map(|jti| (jti.len(), &jti[..8])), Some((64, hash)), "of the token");
    }

    #[test]
    fn what_is_not_understood_is_refused_and_said_without_the_token() {
        for (body, cause, message) in [
            ("", Cause::Unchecked, "invalid answer: EOF"),
            ("<html>", Cause::Unchecked, "invalid answer: expected value"),
            ("[]", Cause::Unchecked, "expected an object"),
            (r#"["a",60,{},null,null]"#, Cause::Unchecked, "expected an object"),
            (r#"{"user":"a","expires_in_s":60}"#, Cause::Unchecked, "missing field `rights`"),
            (r#"{"expires_in_s":60,"rights":{}}"#, Cause::Unchecked, "missing field `user`"),
            (r#"{"user":"a","rights":{}}"#, Cause::Unchecked, "missing field `expires_in_s`"),
            (r#"{"user":"a","user":"b","expires_in_s":60,"rights":{}}"#, Cause::Unchecked, "duplicate field `user`"),
            (r#"{"user":"a","expires_in_s":60,"rights":{},"admin":true}"#, Cause::Unchecked, "unknown field `admin`"),
            (r#"{"user":"a","expires_in_s":60,"rights":{}} x"#, Cause::Unchecked, "trailing characters"),
            (r#"{"user":"","expires_in_s":60,"rights":{}}"#, Cause::Unchecked, "user: 0 bytes: expected 1 to 256"),
            (r#"{"user":"a\nb","expires_in_s":60,"rights":{}}"#, Cause::Unchecked, "user: 3 bytes"),
            (r#"{"user":"a","jti":"","expires_in_s":60,"rights":{}}"#, Cause::Unchecked, "jti: 0 bytes"),
            (r#"{"user":"a","expires_in_s":0,"rights":{}}"#, Cause::Unchecked, "expires_in_s: 0 is out of range"),
            (r#"{"user":"a","expires_in_s":86401,"rights":{}}"#, Cause::Unchecked, "expected 1 to 86400"),
            (r#"{"user":"a","expires_in_s":-1,"rights":{}}"#, Cause::Unchecked, "invalid value: integer `-1`"),
            (r#"{"user":"a","expires_in_s":60,"iat":1796000301,"rights":{}}"#, Cause::Unchecked, "iat: in the future"),
            (r#"{"user":"an-opaque-token","expires_in_s":60,"rights":{}}"#, Cause::Unchecked, "user: it is the token"),
            (r#"{"user":"a","expires_in_s":"an-opaque-token","rights":{}}"#, Cause::Unchecked, "repeats the token"),
            (r#"{"user":"a","expires_in_s":60,"rights":{"alow":[]}}"#, Cause::Rights, "unknown field `alow`"),
            (r#"{"user":"a","expires_in_s":60,"rights":{"products":["L2"]}}"#, Cause::Rights, "unknown product \"L2\""),
            (r#"{"user":"a","expires_in_s":60,"rights":{"products":["an-opaque-token"]}}"#, Cause::Rights, "repeats"),
            (r#"{"user":"a","expires_in_s":60,"rights":null}"#, Cause::Rights, "user \"a\": rights: invalid type"),
            (r#"{"user":"a","expires_in_s":60,"rights":{"max_connections":0}}"#, Cause::Rights, "max_connections: 0"),
        ] {
            let denial = read_body(body).unwrap_err();
            assert_eq!(denial.cause, cause, "{body}: {denial:?}");
            assert!(denial.detail.contains(message) && !denial.detail.contains(TOKEN), "{body}: {denial:?}");
        }
    }

    #[test]
    fn status_and_type_decide_before_the_body() {
        let body = br#"{"user":"a","expires_in_s":60,"rights":{}}"#.to_vec();
        let json = Some("Application/JSON".to_owned());
        let good = PostAnswer { status: 200, content_type: json, is_encoded: false, body };
        assert!(read_answer(&good).is_ok());
        for (answer, cause, message) in [
            (PostAnswer { status: 401, ..good.clone() }, Cause::Invalid, "answered 401"),
            (PostAnswer { status: 403, ..good.clone() }, Cause::Forbidden, "answered 403"),
            (PostAnswer { status: 204, ..good.clone() }, Cause::Unchecked, "status 204: expected 200, 401 or 403"),
            (PostAnswer { status: 302, ..good.clone() }, Cause::Unchecked, "redirects are not followed"),
            (PostAnswer { status: 500, ..good.clone() }, Cause::Unchecked, "status 500"),
            (PostAnswer { content_type: None, ..good.clone() }, Cause::Unchecked, "expected application/json"),
            (
                PostAnswer { content_type: Some("text/html".to_owned()), ..good.clone() },
                Cause::Unchecked,
                "Content-Type \"text/html\": expected application/json",
            ),
            (PostAnswer { is_encoded: true, ..good.clone() }, Cause::Unchecked, "Content-Encoding"),
        ] {
            let denial = read_answer(&answer).unwrap_err();
            assert!(denial.cause == cause && denial.detail.contains(message), "{denial:?}");
        }
    }
}
