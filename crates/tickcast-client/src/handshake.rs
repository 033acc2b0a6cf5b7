//! The WebSocket upgrade without a socket, for programs that bring their own transport (TLS, a Unix socket, an event
//! loop with very many connections): the request as bytes, then the answer's bytes as they arrive.
//!
//! tungstenite makes the request and judges the answer. The bytes behind the answer's head are kept apart for
//! [`tickcast_protocol::ws::Session`], or whatever reads the connection next.
//!
//! ```no_run
//! use std::io::{Read, Write};
//! use tickcast_client::Target;
//! use tickcast_client::handshake::Handshake;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let target = Target::parse("127.0.0.1:9001")?;
//! let mut stream = target.connect()?;
//! let mut handshake = Handshake::new(&target, &[])?;
//! stream.write_all(handshake.request())?;
//! let mut buffer = [0; 4096];
//! let upgraded = loop {
//!     let read = stream.read(&mut buffer)?;
//!     if read == 0 || handshake.receive(&buffer[..read]) {
//!         break handshake.finish()?;
//!     }
//! };
//! println!("{} bytes of frames came with the answer", upgraded.rest.len());
//! # Ok(())
//! # }
//! ```
//!
//! What it does not do: read, write, time out. Memory: the answer, at most 64 KiB.

use std::io::{self, ErrorKind, Read, Write};

use http::header::{HeaderName, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_EXTENSIONS};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::ClientHandshake;
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::protocol::WebSocketConfig;

use crate::error::{Error, Refusal};
use crate::target::Target;

/// The offer of permessage-deflate that [`Upgraded::is_compressed`] understands: neither side keeps a window from
/// message to message, so that each message can be inflated by itself.
pub const COMPRESSION_OFFER: (&str, &str) =
    ("sec-websocket-extensions", "permessage-deflate; server_no_context_takeover; client_no_context_takeover");

/// tungstenite allocates a buffer of 128 KiB by default, which is never used here.
const READ_BUFFER_BYTES: usize = 512;
/// No answer to an upgrade is as long as this.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Header lines of an answer; tungstenite takes as many.
const HEADERS_MAX: usize = 124;
/// The beginning of a granted upgrade (RFC 6455, section 4.2.2).
const GRANTED: &[u8] = b"HTTP/1.1 101";

/// An upgrade that has been requested.
#[derive(Debug)]
pub struct Handshake {
    inner: MidHandshake<ClientHandshake<MemoryStream>>,
    answer: Vec<u8>,
}

/// A granted upgrade.
#[derive(Debug)]
pub struct Upgraded {
    /// The bytes that came behind the answer's head: the beginning of the frames.
    pub rest: Vec<u8>,
    /// The extensions that the server agreed to; empty where it named none.
    extensions: String,
}

impl Handshake {
    /// Makes the request for this URL, with these headers beside the ones that every upgrade has.
    ///
    /// # Errors
    /// [`Error::Header`] where a value has characters that no header may have.
    pub fn new(target: &Target, headers: &[(&'static str, &str)]) -> Result<Self, Error> {
        let mut request = target.uri().into_client_request().map_err(failure)?;
        for (name, value) in headers {
            let mut value = HeaderValue::from_str(value).map_err(|_| Error::Header(name))?;
            value.set_sensitive(*name == "authorization");
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        let begun = ClientHandshake::start(MemoryStream::default(), request, Some(config));
        match begun.map(MidHandshake::handshake) {
            Ok(Err(HandshakeError::Interrupted(inner))) => Ok(Self { inner, answer: Vec::new() }),
            Ok(Err(HandshakeError::Failure(error))) | Err(error) => Err(failure(error)),
            Ok(Ok(_)) => unreachable!("no answer has been received"),
        }
    }

    /// The request, to be sent before anything is received.
    pub fn request(&self) -> &[u8] {
        &self.inner.get_ref().get_ref().sent
    }

    /// Takes bytes of the answer, in any portions. True once the answer is whole: [`Self::finish`] then judges it.
    pub fn receive(&mut self, bytes: &[u8]) -> bool {
        self.answer.extend_from_slice(bytes);
        match head_end(&self.answer) {
            Some(end) => self.answer.starts_with(GRANTED) || self.body_is_whole(end),
            None => self.answer.len() > ANSWER_BYTES_MAX,
        }
    }

    /// Judges the answer, which is whole or where the stream has ended.
    ///
    /// # Errors
    /// [`Error::Refused`] for a status other than 101, [`Error::Dropped`] where the answer is cut short, and
    /// [`Error::Protocol`] where it breaks the rules.
    pub fn finish(mut self) -> Result<Upgraded, Error> {
        let Some(end) = head_end(&self.answer) else {
            return Err(match self.answer.len() {
                0..=ANSWER_BYTES_MAX => Error::Dropped,
                _ => Error::Protocol(format!("the answer to the upgrade has no end within {ANSWER_BYTES_MAX} bytes")),
            });
        };
        // tungstenite reads the body of a refusal as well, but not the frames behind a granted upgrade.
        let rest = if self.answer.starts_with(GRANTED) { self.answer.split_off(end) } else { Vec::new() };
        self.inner.get_mut().get_mut().received = self.answer;
        match self.inner.handshake() {
            Ok((_, answer)) => {
                let extensions = answer.headers().get(SEC_WEBSOCKET_EXTENSIONS);
                let extensions =
                    extensions.map_or_else(String::new, |value| String::from_utf8_lossy(value.as_bytes()).into());
                Ok(Upgraded { rest, extensions })
            }
            Err(HandshakeError::Failure(tungstenite::Error::Http(answer))) => Err(Error::Refused(refusal(&answer))),
            Err(HandshakeError::Failure(error)) => Err(failure(error)),
            Err(HandshakeError::Interrupted(_)) => {
                Err(Error::Protocol("the answer to the upgrade is not HTTP".to_owned()))
            }
        }
    }

    /// Whether the body of a refusal has come.
    fn body_is_whole(&self, head_end: usize) -> bool {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut answer = httparse::Response::new(&mut headers);
        // An answer that is not HTTP is judged as it is.
        let is_http = answer.parse(&self.answer).is_ok_and(|status| status.is_complete());
        let length = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok());
        !is_http || self.answer.len() - head_end >= length.unwrap_or(0).min(ANSWER_BYTES_MAX)
    }
}

impl Upgraded {
    /// Whether the server agreed to [`COMPRESSION_OFFER`]: messages may then come compressed.
    ///
    /// # Errors
    /// [`Error::Protocol`] where it agreed to an extension that was not offered.
    pub fn is_compressed(&self) -> Result<bool, Error> {
        let mut words = self.extensions.split(';').map(str::trim);
        match words.next() {
            None | Some("") => Ok(false),
            Some("permessage-deflate") if words.any(|word| word == "server_no_context_takeover") => Ok(true),
            Some(_) => {
                let extensions = &self.extensions;
                Err(Error::Protocol(format!(
                    "the server answers with extensions that were not offered: {extensions:?}"
                )))
            }
        }
    }
}

/// A stream for tungstenite whose other end is this module.
#[derive(Debug, Default)]
struct MemoryStream {
    sent: Vec<u8>,
    received: Vec<u8>,
    /// How much of `received` has been read.
    read: usize,
}

impl Read for MemoryStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut unread = &self.received[self.read..];
        if unread.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let read = unread.read(out)?;
        self.read += read;
        Ok(read)
    }
}

impl Write for MemoryStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sent.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// tungstenite's error as one of this crate.
fn failure(error: tungstenite::Error) -> Error {
    use tungstenite::error::ProtocolError::HandshakeIncomplete;
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => Error::Dropped,
        tungstenite::Error::Protocol(HandshakeIncomplete) => Error::Dropped,
        tungstenite::Error::Io(error) => error.into(),
        error => Error::Protocol(error.to_string()),
    }
}

fn refusal(answer: &http::Response<Option<Vec<u8>>>) -> Refusal {
    let body = answer.body().as_deref().unwrap_or_default();
    let retry_after = answer.headers().get(RETRY_AFTER);
    let status = answer.status();
    Refusal {
        status: status.as_u16(),
        text: refusal_message(body).map_or_else(|| status.to_string(), |message| format!("{status}: {message}")),
        retry_after_s: retry_after.and_then(|value| value.to_str().ok()?.parse().ok()),
    }
}

/// The message of a refusal's body, `{"error":{"code":"..","message":".."}}`; `None` where the body is something else.
pub fn refusal_message(body: &[u8]) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(json["error"]["message"].as_str()?.to_owned())
}

/// Where the head of an HTTP answer ends.
fn head_end(answer: &[u8]) -> Option<usize> {
    answer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

#[cfg(test)]
mod tests {
    use tungstenite::handshake::derive_accept_key;

    use super::*;

    fn begin(headers: &[(&'static str, &str)]) -> Handshake {
        let target = Target::parse("h:1/v1/stream?token=x").expect("a good URL");
        Handshake::new(&target, headers).expect("good headers")
    }

    /// The answer that grants this upgrade, with one more header line.
    fn granted(handshake: &Handshake, line: &str) -> Vec<u8> {
        let request = String::from_utf8(handshake.request().to_vec()).expect("ASCII");
        let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
        let accept = derive_accept_key(key.as_bytes());
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{line}\r\n"
        )
        .into_bytes()
    }

    #[test]
    fn the_request_names_the_path_and_the_given_headers() {
        let handshake = begin(&[COMPRESSION_OFFER, ("authorization", "Bearer t")]);
        let request = String::from_utf8_lossy(handshake.request()).to_lowercase();
        assert!(request.starts_with("get /v1/stream?token=x http/1.1\r\nhost: h:1\r\n"), "{request}");
        assert!(
            request.contains("\r\nauthorization: bearer t\r\n") && request.contains("permessage-deflate"),
            "{request}"
        );
        assert!(request.ends_with("\r\n\r\n"), "{request}");
        let target = Target::parse("h").expect("a good URL");
        let error = Handshake::new(&target, &[("authorization", "a\nb")]).expect_err("a line break").to_string();
        assert_eq!(error, "invalid header authorization: expected visible ASCII characters");
    }

    #[test]
    fn an_answer_may_arrive_in_any_portions_and_frames_behind_it_are_kept() {
        let mut handshake = begin(&[]);
        let answer = granted(&handshake, "");
        for byte in &answer[..answer.len() - 1] {
            assert!(!handshake.receive(&[*byte]));
        }
        assert!(handshake.receive(b"\n\x82\x00"));
        let upgraded = handshake.finish().expect("granted");
        assert_eq!((upgraded.rest.as_slice(), upgraded.is_compressed().expect("none")), (&b"\x82\x00"[..], false));
    }

    #[test]
    fn only_the_offered_extension_is_accepted() {
        let mut results = Vec::new();
        for extensions in ["permessage-deflate; server_no_context_takeover", "permessage-deflate", "x-other"] {
            let mut handshake = begin(&[COMPRESSION_OFFER]);
            let answer = granted(&handshake, &format!("Sec-WebSocket-Extensions: {extensions}\r\n"));
            assert!(handshake.receive(&answer));
            results.push(handshake.finish().expect("granted").is_compressed().ok());
        }
        assert_eq!(results, [Some(true), None, None]);
    }

    #[test]
    fn a_refusal_is_read_with_its_body() {
        let mut handshake = begin(&[]);
        let body = r#"{"error":{"code":"full","message":"1000 connections"}}"#;
        let head = format!("HTTP/1.1 503 Full\r\nRetry-After: 5\r\nContent-Length: {}\r\n\r\n", body.len());
        assert!(!handshake.receive(head.as_bytes()), "the body is missing");
        assert!(handshake.receive(body.as_bytes()));
        let error = handshake.finish().expect_err("refused").to_string();
        let want = "the server refused the connection: 503 Service Unavailable: 1000 connections (try again in 5 s)";
        assert_eq!(error, want);
    }

    #[test]
    fn an_answer_that_is_cut_short_or_not_http_is_an_error() {
        assert!(matches!(begin(&[]).finish(), Err(Error::Dropped)));
        let mut other = begin(&[]);
        assert!(other.receive(b"SSH-2.0-x\r\n\r\n"));
        assert!(matches!(other.finish(), Err(Error::Protocol(_))));
        let mut endless = begin(&[]);
        assert!(endless.receive(&vec![b'a'; ANSWER_BYTES_MAX + 1]));
        assert!(matches!(endless.finish(), Err(Error::Protocol(_))));
    }
}
