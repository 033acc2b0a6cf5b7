//! The upgrade of one connection of a load run: tungstenite asks and judges the answer, and what follows the answer's
//! head is kept apart, for whichever reader the connection gets.

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;

use http::Uri;
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::ClientHandshake;
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, WebSocket};

use super::client::{ClientError, READ_BUFFER_BYTES, failure, refusal_message};
use super::lane::Lane;

/// No answer to an upgrade is as long as this.
const HEAD_BYTES_MAX: usize = 64 * 1024;
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
    /// The connection, and the bytes that came behind the answer's head.
    Open(Box<WebSocket<Lane>>, Vec<u8>),
    Refused(String),
}

impl Upgrade {
    /// Asks for the upgrade; an error is what the server or the kernel said.
    pub fn ask(stream: TcpStream, uri: &Uri) -> Result<Self, String> {
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        let begun = uri
            .into_client_request()
            .and_then(|request| ClientHandshake::start(Lane::new(stream), request, Some(config)));
        match begun.map(MidHandshake::handshake) {
            Ok(Err(HandshakeError::Interrupted(handshake))) => Ok(Self { handshake, answer: Vec::new() }),
            Ok(Err(HandshakeError::Failure(error))) | Err(error) => Err(failure(error).to_string()),
            Ok(Ok(_)) => unreachable!("a lane that was never filled has no answer in it"),
        }
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        self.handshake.get_ref().get_ref().stream()
    }

    /// Reads what has come of the answer; `bytes` counts it.
    pub fn advance(mut self: Box<Self>, buffer: &mut [u8], bytes: &mut u64) -> Upgraded {
        match self.stream().read(buffer) {
            Ok(0) => return Upgraded::Refused(ClientError::Dropped.to_string()),
            Ok(read) => {
                *bytes += read as u64;
                self.answer.extend_from_slice(&buffer[..read]);
            }
            Err(error) if is_later(&error) => {}
            Err(error) => return Upgraded::Refused(error.to_string()),
        }
        let Some(end) = head_end(&self.answer) else {
            if self.answer.len() > HEAD_BYTES_MAX {
                return Upgraded::Refused(format!(
                    "the answer to the upgrade has no end within {HEAD_BYTES_MAX} bytes"
                ));
            }
            return Upgraded::NotYet(self);
        };
        // The body of a refusal is for tungstenite too, the first frames of a granted upgrade are not.
        let rest = if self.answer.starts_with(GRANTED) { self.answer.split_off(end) } else { Vec::new() };
        self.handshake.get_mut().get_mut().give(self.answer);
        match self.handshake.handshake() {
            Ok((mut socket, _)) => {
                socket.get_mut().release();
                Upgraded::Open(Box::new(socket), rest)
            }
            Err(HandshakeError::Failure(Error::Http(response))) => {
                let body = response.body().as_deref().unwrap_or_default();
                Upgraded::Refused(format!("{}{}", response.status(), refusal_message(body)))
            }
            Err(HandshakeError::Failure(error)) => Upgraded::Refused(failure(error).to_string()),
            Err(HandshakeError::Interrupted(_)) => {
                Upgraded::Refused("the answer to the upgrade is not HTTP".to_owned())
            }
        }
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
