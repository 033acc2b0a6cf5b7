//! Plain HTTP answers. Every connection carries one request: pages and JSON are rare here, streams are the rule.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use crate::http::handshake::Refusal;

/// What is sent where nothing else is said: an answer that is no page does nothing in a browser, and is no part of a page
/// of another origin, unless that one may read it.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'";
/// Nothing is used without asking whether it is still so; that is answered with 304 where there is an `ETag`.
const CACHING: &str = "no-cache";

/// The type of an answer for programs.
pub(super) const JSON: &str = "application/json";

/// An answer to a GET, or to a HEAD.
pub(crate) struct Response {
    status: StatusCode,
    headers: Vec<(&'static str, Cow<'static, str>)>,
    vary: Vec<&'static str>,
    caching: &'static str,
    policy: &'static str,
    resource_policy: &'static str,
    /// Shared with whoever else is sent the same.
    pub(super) body: Bytes,
    /// A HEAD gets the headers alone.
    pub(super) headers_only: bool,
}

impl Response {
    /// 200 with this body.
    pub(super) fn new(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..Self::empty(StatusCode::OK) }.with("Content-Type", content_type)
    }

    /// 200 with this text.
    pub(super) fn json(text: impl Into<Bytes>) -> Self {
        Self::new(JSON, text)
    }

    /// 204: nothing but headers.
    pub(super) fn no_content() -> Self {
        Self::empty(StatusCode::NO_CONTENT)
    }

    /// 304: the client has it.
    pub(super) fn not_modified() -> Self {
        Self::empty(StatusCode::NOT_MODIFIED)
    }

    fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: Vec::new(),
            vary: Vec::new(),
            caching: CACHING,
            policy: POLICY,
            resource_policy: "same-origin",
            body: Bytes::new(),
            headers_only: false,
        }
    }

    /// Adds a header; a value is the server's own, never a client's.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Is another one for another value of this header.
    pub(super) fn vary(mut self, name: &'static str) -> Self {
        self.vary.push(name);
        self
    }

    /// Is for pages of all origins.
    pub(super) fn for_all_origins(self) -> Self {
        Self { resource_policy: "cross-origin", ..self }
    }

    /// Has this Content-Security-Policy.
    pub(super) fn policy(self, policy: &'static str) -> Self {
        Self { policy, ..self }
    }

    /// Is kept by nobody.
    pub(super) fn unstored(self) -> Self {
        Self { caching: "no-store", ..self }
    }

    /// The head, with the empty line at its end.
    pub(super) fn head(&self) -> String {
        let mut text = format!("HTTP/1.1 {}\r\n", self.status);
        for (name, value) in &self.headers {
            assert!(!value.contains(['\r', '\n']), "header {name} has more than one line");
            text += &format!("{name}: {value}\r\n");
        }
        //= RFC 9110 section 15.4.5
        //# "A 304 response is terminated by the end of the header section; it cannot contain content or trailers."
        if self.status == StatusCode::OK {
            text += &format!("Content-Length: {}\r\n", self.body.len());
        }
        if !self.vary.is_empty() {
            text += &format!("Vary: {}\r\n", self.vary.join(", "));
        }
        let (caching, policy, resource_policy) = (self.caching, self.policy, self.resource_policy);
        text += &format!(
            "Cache-Control: {caching}\r\nConnection: close\r\nX-Content-Type-Options: nosniff\r\n\
             Referrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: {resource_policy}\r\n\
             Content-Security-Policy: {policy}\r\n\r\n"
        );
        text
    }
}

/// 503: come back later.
pub(super) fn unavailable(message: &str) -> Refusal {
    Refusal::new(503, "unavailable", message).with_header("Retry-After", "5")
}

/// 503 or 429: come back when there is a turn for you.
pub(super) fn later(status: u16, message: String, wait: Duration) -> Refusal {
    let code = if status == 429 { "limit" } else { "unavailable" };
    Refusal::new(status, code, message).with_header("Retry-After", wait.as_secs().max(1).to_string())
}

/// 503: others want the place.
pub(super) fn crowded_out() -> Refusal {
    let message = "too many connections wait for their request (door_connections_max), and this one waited longest";
    later(503, message.to_owned(), Duration::from_secs(1))
}

/// 408: the head did not come in time.
pub(super) fn timed_out(timeout: Duration) -> Refusal {
    let message = format!("the request head was not complete after {} ms", timeout.as_millis());
    Refusal { status: 408, code: "timeout", message, headers: Vec::new() }
}

/// 401: who are you?
pub(super) fn unauthorized(message: &str) -> Refusal {
    let headers = vec![("WWW-Authenticate", "Bearer".to_owned())];
    Refusal { status: 401, code: "unauthorized", message: message.to_owned(), headers }
}

/// 403: not for you.
pub(super) fn forbidden(message: &str) -> Refusal {
    Refusal { status: 403, code: "forbidden", message: message.to_owned(), headers: Vec::new() }
}

/// The token of `Authorization: Bearer TOKEN`.
pub(super) fn bearer(request: &http::Request<()>) -> Option<&[u8]> {
    let header = request.headers().get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().as_bytes())
}

/// 404: nothing is there.
pub(super) fn not_found(message: String) -> Refusal {
    Refusal { status: 404, code: "not_found", message, headers: Vec::new() }
}

/// 400: this is not what is served here.
pub(super) fn bad_request(message: String) -> Refusal {
    Refusal { status: 400, code: "bad_request", message, headers: Vec::new() }
}

/// A peer's text, short enough to be repeated.
pub(super) fn shown(text: &str) -> &str {
    /// Enough to recognise what was asked.
    const BYTES_MAX: usize = 80;
    &text[..text.floor_char_boundary(BYTES_MAX)]
}
