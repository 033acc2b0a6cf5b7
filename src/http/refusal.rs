//! Refusals: plain HTTP responses whose JSON body says why a request was not served.

use std::time::Duration;

use http::StatusCode;

/// `Retry-After` of a 503 that says nothing more precise.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why a request is refused, and the response to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status} {code}: {message}")]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// For programs: a word that does not change.
    pub code: &'static str,
    /// For people: what was wrong and what was expected.
    pub message: String,
    /// Headers that this status requires. Names and values are the server's own, never a client's.
    pub headers: Vec<(&'static str, String)>,
}

impl Refusal {
    /// A refusal without headers of its own.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), headers: Vec::new() }
    }

    /// Adds a header.
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// 400: the request cannot be understood.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "bad_request", message)
    }

    /// 401: credentials are missing or wrong.
    pub(super) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(401, "unauthorized", message).with_header("WWW-Authenticate", "Bearer")
    }

    /// 403: the client may not have this.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, "forbidden", message)
    }

    /// 404: the path, instrument or feature does not exist.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, "not_found", message)
    }

    /// 405: a method other than GET and HEAD.
    pub(super) fn method_not_allowed(method: &http::Method) -> Self {
        let message = format!("method {method}: expected GET, HEAD");
        Self::new(405, "method_not_allowed", message).with_header("Allow", "GET, HEAD")
    }

    /// 408: the request head was not complete in time.
    pub(super) fn head_timeout(timeout: Duration) -> Self {
        let message = format!("request head: not complete after {} ms (upgrade_timeout_ms)", timeout.as_millis());
        Self::new(408, "timeout", message)
    }

    /// 429: this client exceeds a limit; it may retry after `wait`.
    pub(super) fn too_many_requests(message: impl Into<String>, wait: Duration) -> Self {
        Self::new(429, "limit", message).retry_after(wait)
    }

    /// 503: the server cannot serve this now; the client may retry after `wait`.
    pub(super) fn unavailable(message: impl Into<String>, wait: Duration) -> Self {
        Self::new(503, "unavailable", message).retry_after(wait)
    }

    fn retry_after(self, wait: Duration) -> Self {
        self.with_header("Retry-After", wait.as_secs().max(1).to_string())
    }

    /// The bytes of the HTTP response; the connection is closed after it.
    pub fn response(&self) -> Vec<u8> {
        let body = self.body();
        [self.head(body.len()), body].concat().into_bytes()
    }

    /// The bytes of the response to a HEAD: the same without the body (RFC 9110 section 9.3.2).
    pub fn response_to_head(&self) -> Vec<u8> {
        self.head(self.body().len()).into_bytes()
    }

    fn body(&self) -> String {
        serde_json::json!({ "error": { "code": self.code, "message": self.message } }).to_string()
    }

    fn head(&self, body_bytes: usize) -> String {
        let phrase = StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        let mut text = format!("HTTP/1.1 {} {}\r\n", self.status, phrase.unwrap_or("Refused"));
        for (name, value) in &self.headers {
            assert!(!value.contains(['\r', '\n']), "header {name} has more than one line");
            text += &format!("{name}: {value}\r\n");
        }
        text += &format!(
            "Content-Type: application/json\r\nContent-Length: {body_bytes}\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
        );
        text
    }
}
