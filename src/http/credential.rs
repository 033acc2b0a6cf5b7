//! The credential of a subscriber's request: where it may be, and whose it is.
//!
//! A credential may be in `Authorization`, in an entry of `Sec-WebSocket-Protocol`, in a cookie, or in the query; the
//! settings permit the last two. One that is in several places is refused, as is one of several in one place: two readers
//! could take different ones.
//!
//! A credential that is the authorizer's matter is answered later, see [`super::questions`].
//!
//! What always holds: no refusal and no log line has a credential. The cookie of a browser counts only for a page of this
//! server or of an allowed origin, which no other page can pretend to be.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use http::header::{self, HeaderMap};

use super::admission::origin;
use super::questions::Questions;
use super::refusal::{RETRY_AFTER, Refusal};
use super::request::{quote, tokens};
use crate::access::{Answer, Cause, Denial, Found, Now};
use crate::auth::Purpose;
use crate::clock::now_ns;
use crate::config::Config;
use crate::identity::Principal;
use crate::shard::AuthRefusal;
use crate::state::ServerState;

/// What the entry of `Sec-WebSocket-Protocol` with a credential begins with. The rest is the credential in base64url
/// without padding, since the names of protocols have no other characters. The server never selects it.
pub(super) const PROTOCOL_PREFIX: &str = "base64url.bearer.tickcast.";

/// Who a credential stands for, or the number of the question about it.
pub(super) enum Identified<T> {
    Known(T),
    Asked(u64),
}

/// Who sends a request; `None` for one without a credential that needs one.
pub(super) fn identify(
    state: &ServerState,
    config: &Config,
    client: Option<IpAddr>,
    request: &Request<()>,
    questions: &Questions,
) -> Result<Identified<Option<Arc<Principal>>>, Refusal> {
    let anonymous = || Ok(Identified::Known(state.access.anonymous()));
    if !state.access.is_on() {
        return anonymous();
    }
    let Some(credential) = find(request, config)? else { return anonymous() };
    check_failures(state, client)?;
    let asker = questions.asker(client, false);
    match state.access.find_client(&credential, asker, now()) {
        Found::Asked => Ok(Identified::Asked(asker.number)),
        Found::Known(found) => judge(state, client, found).map(|principal| Identified::Known(Some(principal))),
    }
}

/// Whose token a client has sent on its open connection. `is_fresh`: it has another one, which this one is to prolong.
pub(super) fn of_message(
    state: &ServerState,
    client: Option<IpAddr>,
    token: &str,
    is_fresh: bool,
    questions: &Questions,
) -> Identified<Result<Arc<Principal>, AuthRefusal>> {
    if let Err(Refusal { code, message, .. }) = check_failures(state, client) {
        return Identified::Known(Err(AuthRefusal { code, message }));
    }
    let asker = questions.asker(client, is_fresh);
    match state.access.find_client(token.as_bytes(), asker, now()) {
        Found::Asked => Identified::Asked(asker.number),
        Found::Known(found) => Identified::Known(judge_message(state, client, found)),
    }
}

/// The client that was found for the credential of a request, or its refusal.
pub(super) fn judge(state: &ServerState, client: Option<IpAddr>, found: Answer) -> Result<Arc<Principal>, Refusal> {
    found.map_err(|denial| {
        note_denial(state, client, &denial);
        let message = denial.cause.message();
        match denial.cause {
            cause if cause.is_passing() => Refusal::unavailable(message, RETRY_AFTER),
            Cause::Forbidden => Refusal::forbidden(message),
            _ => Refusal::unauthorized(message),
        }
    })
}

/// The same for the token of a message.
pub(super) fn judge_message(
    state: &ServerState,
    client: Option<IpAddr>,
    found: Answer,
) -> Result<Arc<Principal>, AuthRefusal> {
    found.map_err(|denial| {
        note_denial(state, client, &denial);
        let code = if denial.cause.is_passing() { "unavailable" } else { "unauthorized" };
        AuthRefusal { code, message: denial.cause.message().to_owned() }
    })
}

fn note_denial(state: &ServerState, client: Option<IpAddr>, denial: &Denial) {
    // A token that was valid once is no attempt to guess one.
    if matches!(denial.cause, Cause::Invalid | Cause::TooLong) {
        state.auth_failures.count(Purpose::Subscribe, client, now_ns());
    }
    let address = client.map_or_else(|| "an unknown address".to_owned(), |client| client.to_string());
    tracing::info!("credential of {address} refused: {}: {}", denial.cause.word(), denial.detail);
    state.access.log_refused("subscribe", client, denial.cause.word(), &denial.detail);
}

/// Refuses an address that has presented too many wrong tokens, whatever it presents now.
pub(super) fn check_failures(state: &ServerState, client: Option<IpAddr>) -> Result<(), Refusal> {
    let checked = state.auth_failures.check(client, now_ns());
    checked.map_err(|wait| {
        state.access.log_refused("address", client, "too many wrong tokens from this address", "");
        Refusal::too_many_requests("too many wrong tokens from this address", wait)
    })
}

/// The present time of both clocks.
pub(super) fn now() -> Now {
    Now::present()
}

/// The credential of a request.
///
/// # Errors
/// 400: it is in several places, or in one that is not permitted.
fn find(request: &Request<()>, config: &Config) -> Result<Option<Vec<u8>>, Refusal> {
    let headers = request.headers();
    let found =
        [of_authorization(headers)?, of_protocols(headers)?, of_cookie(request, config)?, of_query(request, config)?];
    let mut found = found.into_iter().flatten();
    match (found.next(), found.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => Err(Refusal::bad_request(
            "token: given in several places: expected one of Authorization, Sec-WebSocket-Protocol, the cookie and the query",
        )),
    }
}

/// Another scheme than Bearer is of a proxy or a browser, and says nothing here.
fn of_authorization(headers: &HeaderMap) -> Result<Option<Vec<u8>>, Refusal> {
    let mut found = None;
    for line in headers.get_all(header::AUTHORIZATION) {
        let scheme = line.as_bytes().split(|byte| *byte == b' ').next().unwrap_or_default();
        if !scheme.eq_ignore_ascii_case(b"bearer") {
            continue;
        }
        let token = line.as_bytes()[scheme.len()..].trim_ascii();
        if token.is_empty() || found.replace(token.to_vec()).is_some() {
            return Err(Refusal::bad_request("Authorization: expected Bearer and one token, once"));
        }
    }
    Ok(found)
}

fn of_protocols(headers: &HeaderMap) -> Result<Option<Vec<u8>>, Refusal> {
    let mut found = None;
    let entries = tokens(headers, header::SEC_WEBSOCKET_PROTOCOL);
    for entry in entries.filter_map(|entry| entry.strip_prefix(PROTOCOL_PREFIX.as_bytes())) {
        let token = URL_SAFE_NO_PAD.decode(entry).ok().filter(|token| !token.is_empty());
        let expected = "expected one entry base64url.bearer.tickcast.TOKEN, TOKEN in base64url without padding";
        let Some(token) = token else {
            return Err(Refusal::bad_request(format!("Sec-WebSocket-Protocol: {expected}")));
        };
        if found.replace(token).is_some() {
            return Err(Refusal::bad_request(format!("Sec-WebSocket-Protocol: several tokens: {expected}")));
        }
    }
    Ok(found)
}

fn of_cookie(request: &Request<()>, config: &Config) -> Result<Option<Vec<u8>>, Refusal> {
    let Some(name) = &config.access.cookie else { return Ok(None) };
    if !origin::is_of_trusted_page(request, config) {
        return Ok(None);
    }
    let mut found = None;
    let lines = request.headers().get_all(header::COOKIE).iter();
    for pair in lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).map(<[u8]>::trim_ascii) {
        let Some(value) = pair.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")) else { continue };
        if value.is_empty() || found.replace(value.to_vec()).is_some() {
            return Err(Refusal::bad_request(format!("Cookie: expected {} once, with a token", quote(name))));
        }
    }
    Ok(found)
}

fn of_query(request: &Request<()>, config: &Config) -> Result<Option<Vec<u8>>, Refusal> {
    let query = request.uri().query().unwrap_or_default();
    let mut values =
        form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "token").map(|(_, value)| value);
    let Some(value) = values.next() else { return Ok(None) };
    if !config.access.in_query {
        let message = "token: not taken from the query, which proxies log: expected Authorization: Bearer TOKEN, or the \
                       setting token_in_query";
        return Err(Refusal::bad_request(message));
    }
    if values.next().is_some() || value.is_empty() {
        return Err(Refusal::bad_request("token: expected once in the query"));
    }
    Ok(Some(value.into_owned().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layer, Machine};

    fn config(toml: &str) -> Config {
        let machine = Machine { cores: vec![0, 1], descriptors_max: 20_000 };
        Config::resolve(toml::from_str::<Layer>(toml).unwrap(), &machine, 1).unwrap()
    }

    fn request(target: &str, headers: &[(&str, &str)]) -> Request<()> {
        let builder = Request::get(target).header("Host", "quotes.example.com");
        headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value)).body(()).unwrap()
    }

    const PROTOCOL: &str = "tickcast.v1, base64url.bearer.tickcast.dG9rZW4";
    const ORIGIN: (&str, &str) = ("Origin", "https://quotes.example.com");
    const COOKIE: (&str, &str) = ("Cookie", "a=b; session=token; c");

    #[test]
    fn token_is_found_in_each_place_that_is_permitted() {
        let config =
            config("token_cookie = 'session'\ntoken_in_query = true\nallow_origin = 'https://app.example.com'");
        let app = ("Origin", "https://app.example.com");
        for (target, headers, has_token) in [
            ("/", &[("Authorization", "Bearer token")][..], true),
            ("/", &[("Authorization", "bearer   token")], true),
            ("/", &[("Authorization", "Basic dTpw")], false),
            ("/", &[("Authorization", "Basic dTpw"), ("Authorization", "Bearer token")], true),
            ("/", &[("Sec-WebSocket-Protocol", PROTOCOL)], true),
            ("/", &[("Sec-WebSocket-Protocol", "tickcast.v1, base64url.bearer.other.dG9rZW4")], false),
            ("/?token=token", &[], true),
            ("/?a=token", &[], false),
            ("/", &[COOKIE, ORIGIN], true),
            ("/", &[COOKIE, app], true),
            ("/", &[COOKIE, ("Sec-Fetch-Site", "same-origin")], true),
            ("/", &[("Cookie", "xsession=token; Session=token"), ORIGIN], false),
            // Pages of other sites send the visitor's cookies, too.
            ("/", &[COOKIE, ("Origin", "https://evil.example.com")], false),
            ("/", &[COOKIE, ("Origin", "null")], false),
            ("/", &[COOKIE, ("Sec-Fetch-Site", "cross-site")], false),
            ("/", &[COOKIE, ("Sec-Fetch-Site", "same-site")], false),
            ("/", &[COOKIE, ("Origin", "https://evil.example.com"), ("Sec-Fetch-Site", "same-origin")], false),
            ("/", &[COOKIE], false),
            ("/", &[], false),
        ] {
            let found = find(&request(target, headers), &config).unwrap();
            assert_eq!(found.as_deref(), has_token.then_some(&b"token"[..]), "{target} {headers:?}");
        }
    }

    #[test]
    fn token_in_several_places_or_several_times_is_refused_and_not_repeated() {
        let on = config("token_cookie = 'session'\ntoken_in_query = true");
        let bearer = ("Authorization", "Bearer token");
        for (target, headers) in [
            ("/?token=token", &[bearer][..]),
            ("/", &[bearer, ("Sec-WebSocket-Protocol", PROTOCOL)]),
            ("/", &[bearer, COOKIE, ORIGIN]),
            ("/", &[("Authorization", "Bearer token"), ("Authorization", "Bearer other")]),
            ("/", &[("Authorization", "Bearer ")]),
            (
                "/",
                &[
                    ("Sec-WebSocket-Protocol", PROTOCOL),
                    ("Sec-WebSocket-Protocol", "base64url.bearer.tickcast.b3RoZXI"),
                ],
            ),
            ("/", &[("Sec-WebSocket-Protocol", "base64url.bearer.tickcast.dG9rZW4=")]),
            ("/", &[("Sec-WebSocket-Protocol", "base64url.bearer.tickcast.")]),
            ("/", &[("Cookie", "session=token; session=token"), ORIGIN]),
            ("/", &[("Cookie", "session="), ORIGIN]),
            ("/?token=token&token=other", &[]),
            ("/?token=", &[]),
        ] {
            let refusal = find(&request(target, headers), &on).expect_err(target);
            assert!(refusal.status == 400 && refusal.message.contains("expected"), "{headers:?}: {refusal}");
            assert!(!refusal.message.contains("dG9rZW4") && !refusal.message.contains("token;"), "{refusal}");
        }
        let off = config("");
        assert_eq!(find(&request("/?token=secret", &[]), &off).unwrap_err().status, 400);
        assert_eq!(find(&request("/", &[COOKIE, ORIGIN]), &off).unwrap(), None, "no cookie is configured");
    }
}
