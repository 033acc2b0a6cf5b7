//! Plain HTTP answers. Every connection carries one request: pages and JSON are rare here, streams are the rule.

use std::time::Duration;

use crate::ws::handshake::Refusal;

/// An answer to a GET.
pub(super) struct Response {
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
    /// A HEAD gets the headers alone.
    pub(super) headers_only: bool,
}

impl Response {
    pub(super) fn new(content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { content_type, body: body.into(), headers_only: false }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-cache\r\nConnection: close\r\n\
             X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nContent-Security-Policy: default-src 'none'; \
             script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-ancestors 'none'\r\n\r\n",
            self.content_type,
            self.body.len()
        )
        .into_bytes();
        if !self.headers_only {
            bytes.extend_from_slice(&self.body);
        }
        bytes
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

/// 404: nothing is there.
pub(super) fn not_found(message: String) -> Refusal {
    Refusal { status: 404, code: "not_found", message, headers: Vec::new() }
}
