//! A request that is refused gets a plain HTTP answer with a JSON body that says why.

use http::StatusCode;

/// Why a request is refused, and the answer to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status} {code}: {message}")]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// For programs: a word that does not change.
    pub code: &'static str,
    /// For people: what is wrong and what would be right.
    pub message: String,
    /// Headers that this status asks for. Names and values are the server's own, never a client's.
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

    /// The bytes of the HTTP answer; the connection ends after it.
    pub fn response(&self) -> Vec<u8> {
        let body = self.body();
        [self.head(body.len()), body].concat().into_bytes()
    }

    /// The bytes of the answer to a HEAD, which is the same without its body (RFC 9110 section 9.3.2).
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
        text += &format!("Content-Type: application/json\r\nContent-Length: {body_bytes}\r\nConnection: close\r\n\r\n");
        text
    }
}
