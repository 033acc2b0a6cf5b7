//! `POST /v1/operator/revoke?jti=…`: refuses a token, or what a user has, from now on.
//!
//! The query says what is revoked: the server reads no bodies. A page cannot send this request, whatever its visitor may
//! do: browsers name the page's origin with each POST.

use std::net::IpAddr;

use http::{Method, Request, header};
use serde_json::json;

use super::operator;
use crate::config::{AdminListen, Config};
use crate::http::credential::now;
use crate::http::refusal::{RETRY_AFTER, Refusal};
use crate::http::request::quote;
use crate::http::response::Response;
use crate::http::server::HttpServer;
use crate::identity::Revocation;
use crate::state::{ClientAddress, ServerState};
use crate::tls::ClientCertificate;
use crate::usage::Security;

/// At the public listener.
pub(crate) fn post(
    server: &HttpServer,
    address: Option<ClientAddress>,
    certificate: Option<&ClientCertificate>,
    request: &Request<()>,
) -> Result<Response, Refusal> {
    check(request)?;
    let client = address.map(|address| address.client());
    operator::authorize(server.state(), &server.config(), client, certificate, request)?;
    revoke(server.state(), client, request)
}

/// At the admin listener.
pub(crate) fn post_admin(
    state: &ServerState,
    config: &Config,
    listen: &AdminListen,
    peer: Option<IpAddr>,
    request: &Request<()>,
) -> Result<Response, Refusal> {
    check(request)?;
    operator::authorize_admin(state, config, listen, peer, request)?;
    revoke(state, peer, request)
}

fn check(request: &Request<()>) -> Result<(), Refusal> {
    if request.method() != Method::POST {
        let message = format!("method {}: expected POST", request.method());
        return Err(Refusal::new(405, "method_not_allowed", message).with_header("Allow", "POST"));
    }
    if request.headers().contains_key(header::ORIGIN) || request.headers().contains_key("sec-fetch-site") {
        return Err(Refusal::forbidden("Origin: a page may not revoke: expected a request of another program"));
    }
    Ok(())
}

fn revoke(state: &ServerState, client: Option<IpAddr>, request: &Request<()>) -> Result<Response, Refusal> {
    if !state.access.is_on() {
        return Err(Refusal::not_found("there is nothing to revoke: the server identifies no clients"));
    }
    let revocation = parse(request.uri().query().unwrap_or_default())?;
    let entry = json!({ "revoked": revocation });
    tracing::info!("revoked by an operator: {entry}");
    let (user, detail) = (revocation.user.clone(), json!(revocation).to_string());
    let security =
        Security { event: "revoked", user, address: client, cause: "operator", detail, ..Security::default() };
    state.access.usage().security(security);
    match state.access.revoke(revocation, now()) {
        Ok(()) => Ok(Response::json(entry.to_string()).no_store()),
        Err(problem) => {
            let message = format!("revoked, and not written to the file, so that a restart forgets it: {problem}");
            Err(Refusal::unavailable(message, RETRY_AFTER))
        }
    }
}

/// Parses the query. What is not known is an error: it may narrow what is revoked.
fn parse(query: &str) -> Result<Revocation, Refusal> {
    let mut revocation = Revocation { jti: None, user: None, issued_before: None, until: 0 };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let is_new = match &*name {
            "jti" => revocation.jti.replace(value.into_owned()).is_none(),
            "user" => revocation.user.replace(value.into_owned()).is_none(),
            "issued_before" => {
                let seconds = value.parse().map_err(|_| {
                    let message =
                        format!("issued_before: invalid value {}: expected seconds since 1970", quote(&value));
                    Refusal::bad_request(message)
                })?;
                revocation.issued_before.replace(seconds).is_none()
            }
            _ => {
                let message = format!("query: unknown {}: expected jti, user or issued_before", quote(&name));
                return Err(Refusal::bad_request(message));
            }
        };
        if !is_new {
            return Err(Refusal::bad_request(format!("{name}: given twice: expected it once")));
        }
    }
    revocation.check().map(|()| revocation).map_err(|problem| Refusal::bad_request(format!("query: {problem}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_says_what_is_revoked_and_nothing_else() {
        assert_eq!(parse("user=u%2017&issued_before=5").unwrap().user.as_deref(), Some("u 17"));
        assert_eq!(parse("jti=a").unwrap().jti.as_deref(), Some("a"));
        for (query, message) in [
            ("", "expected \"jti\""),
            ("jti=a&user=b", "expected \"jti\""),
            ("jti=", "expected 1 to 256"),
            ("user=a&user=b", "user: given twice"),
            ("user=a&issued_befor=5", "unknown \"issued_befor\": expected jti, user or issued_before"),
            ("issued_before=now", "expected seconds since 1970"),
        ] {
            let refusal = parse(query).expect_err(query);
            assert!(refusal.status == 400 && refusal.message.contains(message), "{query}: {refusal}");
        }
    }
}
