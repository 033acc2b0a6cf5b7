//! The upgrade of one connection: tungstenite asks and judges the answer, and what follows the answer's head is kept
//! apart, for whichever reader the connection gets. It waits for nothing but the socket's own read, so that one thread
//! can lead very many connections through it.

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;

use http::Uri;
use http::header::{HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_EXTENSIONS};
use tungstenite::WebSocket;
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::ClientHandshake;
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::protocol::WebSocketConfig;

use super::error::{Error, Refusal, failure, refusal_message};
use super::lane::Lane;

/// Tungstenite would take 128 KiB; packets are mostly shorter than this.
const READ_BUFFER_BYTES: usize = 4096;
/// No answer to an upgrade is as long as this.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Header lines of an answer; tungstenite takes as many.
const HEADERS_MAX: usize = 124;
/// What a granted upgrade begins with (RFC 6455, section 4.2.2).
const GRANTED: &[u8] = b"HTTP/1.1 101";

/// A connection that has asked for its upgrade.
#[derive(Debug)]
pub struct Upgrade {
    handshake: MidHandshake<ClientHandshake<Lane>>,
    /// The answer so far.
    answer: Vec<u8>,
}

/// How far an upgrade has come.
#[derive(Debug)]
pub enum Upgraded {
    NotYet(Box<Upgrade>),
    Open(Opened),
    Refused(Error),
}

/// An upgrade that was granted.
#[derive(Debug)]
pub struct Opened {
    pub socket: Box<WebSocket<Lane>>,
    /// The bytes that came behind the answer's head.
    pub rest: Vec<u8>,
    /// What the server says of extensions; empty where it says nothing.
    extensions: String,
}

impl Opened {
    /// Whether permessage-deflate was agreed on; an error for what was never offered.
    pub fn is_compressed(&self) -> Result<bool, Error> {
        let mut said = self.extensions.split(';').map(str::trim);
        match said.next() {
            None | Some("") => Ok(false),
            Some("permessage-deflate") if said.clone().any(|word| word == "server_no_context_takeover") => Ok(true),
            Some(_) => {
                let extensions = &self.extensions;
                Err(Error::Protocol(format!(
                    "the server answers with the extensions {extensions:?}, which were not offered"
                )))
            }
        }
    }
}

impl Upgrade {
    /// Asks for the upgrade, with an offer of extensions where there is one; an error is what the kernel said.
    pub fn ask(stream: TcpStream, uri: &Uri, offer: Option<&'static str>) -> Result<Self, Error> {
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        let begun = uri.into_client_request().and_then(|mut request| {
            if let Some(offer) = offer {
                request.headers_mut().insert(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(offer));
            }
            ClientHandshake::start(Lane::new(stream), request, Some(config))
        });
        match begun.map(MidHandshake::handshake) {
            Ok(Err(HandshakeError::Interrupted(handshake))) => Ok(Self { handshake, answer: Vec::new() }),
            Ok(Err(HandshakeError::Failure(error))) | Err(error) => Err(failure(error)),
            Ok(Ok(_)) => unreachable!("a lane that was never filled has no answer in it"),
        }
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        self.handshake.get_ref().get_ref().stream()
    }

    /// Reads what has come of the answer; `bytes` counts it.
    pub fn advance(mut self: Box<Self>, buffer: &mut [u8], bytes: &mut u64) -> Upgraded {
        let ended = match self.stream().read(buffer) {
            Ok(read) => {
                *bytes += read as u64;
                self.answer.extend_from_slice(&buffer[..read]);
                read == 0
            }
            Err(error) if is_later(&error) => false,
            Err(error) => return Upgraded::Refused(failure(error.into())),
        };
        match head_end(&self.answer) {
            None if ended => Upgraded::Refused(Error::Dropped),
            None if self.answer.len() > ANSWER_BYTES_MAX => {
                let problem = format!("the answer to the upgrade has no end within {ANSWER_BYTES_MAX} bytes");
                Upgraded::Refused(Error::Protocol(problem))
            }
            Some(end) if ended || self.is_whole(end) => self.judge(end),
            _ => Upgraded::NotYet(self),
        }
    }

    /// Whether a refusal's body has come; a granted upgrade has none.
    fn is_whole(&self, end: usize) -> bool {
        if self.answer.starts_with(GRANTED) {
            return true;
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut answer = httparse::Response::new(&mut headers);
        // What is no HTTP answer is judged as it is.
        let is_read = answer.parse(&self.answer).is_ok_and(|status| status.is_complete());
        let length = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok());
        !is_read || self.answer.len() - end >= length.unwrap_or(0).min(ANSWER_BYTES_MAX)
    }

    /// The verdict on an answer whose head ends there.
    fn judge(mut self: Box<Self>, end: usize) -> Upgraded {
        // The body of a refusal is for tungstenite too, the first frames of a granted upgrade are not.
        let rest = if self.answer.starts_with(GRANTED) { self.answer.split_off(end) } else { Vec::new() };
        self.handshake.get_mut().get_mut().give(self.answer);
        match self.handshake.handshake() {
            Ok((mut socket, answer)) => {
                socket.get_mut().release();
                let said = answer.headers().get(SEC_WEBSOCKET_EXTENSIONS);
                let extensions =
                    said.map_or_else(String::new, |value| String::from_utf8_lossy(value.as_bytes()).into());
                Upgraded::Open(Opened { socket: Box::new(socket), rest, extensions })
            }
            Err(HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                Upgraded::Refused(Error::Refused(refusal(&response)))
            }
            Err(HandshakeError::Failure(error)) => Upgraded::Refused(failure(error)),
            Err(HandshakeError::Interrupted(_)) => {
                Upgraded::Refused(Error::Protocol("the answer to the upgrade is not HTTP".to_owned()))
            }
        }
    }
}

fn refusal(response: &http::Response<Option<Vec<u8>>>) -> Refusal {
    let body = response.body().as_deref().unwrap_or_default();
    let retry_after = response.headers().get(RETRY_AFTER);
    Refusal {
        status: response.status().as_u16(),
        text: format!("{}{}", response.status(), refusal_message(body)),
        retry_after_s: retry_after.and_then(|value| value.to_str().ok()?.parse().ok()),
    }
}

/// A read or write that has to be tried again.
pub fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Where the head of an HTTP answer ends.
fn head_end(answer: &[u8]) -> Option<usize> {
    answer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}
