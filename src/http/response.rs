//! Responses to GET and HEAD. A connection carries one request: plain responses are rare here, streams are the rule.

use std::borrow::Cow;

use bytes::Bytes;
use http::StatusCode;

/// Content-Security-Policy of a response that is not a page: it runs nothing in a browser and cannot be framed.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'";
/// A cached copy is revalidated before use; with an `ETag` that is answered with 304.
const CACHE_CONTROL: &str = "no-cache";

/// The content type of responses for programs.
pub(super) const JSON: &str = "application/json";

/// A response to a GET or a HEAD.
pub(super) struct Response {
    status: StatusCode,
    headers: Vec<(&'static str, Cow<'static, str>)>,
    vary: Vec<&'static str>,
    cache_control: &'static str,
    policy: Cow<'static, str>,
    resource_policy: &'static str,
    /// Shared by all clients that get the same bytes.
    pub(super) body: Bytes,
    /// The body is held once for all clients, and so is not counted for this one.
    pub(super) is_shared: bool,
    /// How the end of the body is found.
    pub(super) framing: Framing,
    /// A HEAD gets the headers alone.
    pub(super) headers_only: bool,
}

/// How a client finds the end of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// By its length.
    Length,
    /// By the last chunk: the body is written in portions, and its length is not known yet.
    Chunked,
    /// By the end of the connection, as HTTP/1.0 has no chunks.
    Close,
}

impl Response {
    /// 200 with this body.
    pub(super) fn new(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..Self::empty(StatusCode::OK) }.with("Content-Type", content_type)
    }

    /// 200 with this JSON text.
    pub(super) fn json(text: impl Into<Bytes>) -> Self {
        Self::new(JSON, text)
    }

    /// 204: headers only.
    pub(super) fn no_content() -> Self {
        Self::empty(StatusCode::NO_CONTENT)
    }

    /// 304: the client's copy is current.
    pub(super) fn not_modified() -> Self {
        Self::empty(StatusCode::NOT_MODIFIED)
    }

    fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: Vec::new(),
            vary: Vec::new(),
            cache_control: CACHE_CONTROL,
            policy: Cow::Borrowed(POLICY),
            resource_policy: "same-origin",
            body: Bytes::new(),
            is_shared: false,
            framing: Framing::Length,
            headers_only: false,
        }
    }

    /// The body is held once for all clients.
    pub(super) fn shared(self) -> Self {
        Self { is_shared: true, ..self }
    }

    /// Sets how the end of the body is found.
    pub(super) fn framed(self, framing: Framing) -> Self {
        Self { framing, ..self }
    }

    /// Sets whether the headers alone are sent.
    pub(super) fn with_headers_only(self, headers_only: bool) -> Self {
        Self { headers_only, ..self }
    }

    /// Adds a header. The value is the server's own, never a client's.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds a request header to `Vary`.
    pub(super) fn vary(mut self, name: &'static str) -> Self {
        self.vary.push(name);
        self
    }

    /// Lets pages of all origins embed the response.
    pub(super) fn cross_origin(self) -> Self {
        Self { resource_policy: "cross-origin", ..self }
    }

    /// Replaces the Content-Security-Policy.
    pub(super) fn policy(self, policy: impl Into<Cow<'static, str>>) -> Self {
        Self { policy: policy.into(), ..self }
    }

    /// Forbids caches that several clients use to keep the response, which differs by who asks.
    pub(super) fn private(self) -> Self {
        let cache_control = if self.cache_control == "no-store" { "no-store" } else { "private, no-cache" };
        Self { cache_control, ..self }.vary("Authorization").vary("Cookie")
    }

    /// Forbids caches to keep the response.
    pub(super) fn no_store(self) -> Self {
        Self { cache_control: "no-store", ..self }
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
            match self.framing {
                Framing::Length => text += &format!("Content-Length: {}\r\n", self.body.len()),
                Framing::Chunked => text += "Transfer-Encoding: chunked\r\n",
                Framing::Close => {}
            }
        }
        if !self.vary.is_empty() {
            text += &format!("Vary: {}\r\n", self.vary.join(", "));
        }
        let (cache_control, policy, resource_policy) = (self.cache_control, &self.policy, self.resource_policy);
        text += &format!(
            "Cache-Control: {cache_control}\r\nConnection: close\r\nX-Content-Type-Options: nosniff\r\n\
             Referrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: {resource_policy}\r\n\
             Content-Security-Policy: {policy}\r\n\r\n"
        );
        text
    }
}
