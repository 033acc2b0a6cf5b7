//! A blocking publisher: defines instruments and sends records as packets.
//!
//! What always holds: records arrive in the order in which they were sent; instrument ids are those of this connection.
//! Backpressure: a server that is slower than its publisher does not read the socket, and [`Publisher::send`] blocks.
//! After 5 s it fails.
//!
//! What it does not do: reconnect. Records that were on their way are lost with the connection, and only the program
//! knows which to send again.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::connection::{Connection, Received};
use crate::error::Error;
use crate::publish_packet::PublishPacket;
use crate::stream::Stream;
use crate::target::Target;
use crate::timeouts::CONNECT_TIMEOUT;
use tickcast_protocol::control::{DefineInstrument, INSTRUMENTS_MAX, Reply, define_text};
use tickcast_protocol::ws::{Opcode, Session};

const PUBLISH_PATH: &str = "/v1/publish";
/// How long a failed write waits for the close frame that says why.
const REASON_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection to a server's `/v1/publish`. [`crate`] shows how to use it.
#[derive(Debug)]
pub struct Publisher {
    connection: Connection,
    last_id: u64,
}

impl Publisher {
    /// Connects to `ws://HOST[:PORT][/PATH]`, `wss://` or `HOST[:PORT]`; the default path is `/v1/publish`. `token` is the
    /// server's `--publish-token`.
    ///
    /// # Errors
    /// When the URL is invalid, no server listens there, or the upgrade is refused: [`Error::Refused`] with 401 for a
    /// wrong token.
    pub fn connect(url: &str, token: Option<&str>) -> Result<Self, Error> {
        Self::connect_with(url, token, None)
    }

    /// The same with the file of the authorities that the server's certificate is verified with, PEM, for `wss://`.
    ///
    /// # Errors
    /// As [`Self::connect`]; [`Error::Tls`] where the certificate is refused.
    pub fn connect_with(url: &str, token: Option<&str>, ca: Option<&Path>) -> Result<Self, Error> {
        let target = Target::parse_with_path(url, PUBLISH_PATH)?;
        let authorization = token.map(|token| format!("Bearer {token}"));
        let header = authorization.as_deref().map(|value| ("authorization", value));
        let connection = Connection::open(&target, header.as_slice(), false, ca)?;
        Ok(Self { connection, last_id: 0 })
    }

    /// Defines instruments, and returns this connection's ids for them, in their order. An instrument that is known
    /// already keeps its id.
    ///
    /// # Errors
    /// [`Error::Rejected`] where the server refuses one, as with exponents other than those it knows; those before it
    /// are defined, and the connection goes on.
    pub fn define(&mut self, instruments: &[DefineInstrument]) -> Result<Vec<u32>, Error> {
        let mut ids = Vec::with_capacity(instruments.len());
        for part in instruments.chunks(INSTRUMENTS_MAX) {
            self.last_id += 1;
            self.connection.send_text(&define_text(self.last_id, part))?;
            self.await_ids(&mut ids)?;
        }
        Ok(ids)
    }

    /// Sends a packet, whose records must be of instruments that are defined. An empty packet is not sent. The server
    /// answers a packet only where it breaks the rules: with a close, which is the error of a later call.
    ///
    /// # Errors
    /// [`Error::Closed`] with the server's reason, [`Error::Dropped`] where there is none.
    pub fn send(&mut self, packet: &PublishPacket) -> Result<(), Error> {
        self.check()?;
        if packet.is_empty() {
            return Ok(());
        }
        match self.connection.send(Opcode::Binary, packet.bytes()) {
            Ok(()) => Ok(()),
            // The server may have said why before it stopped reading.
            Err(error) => self.receive_until(Instant::now() + REASON_TIMEOUT, |_| None::<()>).and(Err(error)),
        }
    }

    /// Answers the server's pings, without waiting. [`Self::send`] does so too; a publisher that sends nothing for
    /// seconds calls this.
    ///
    /// # Errors
    /// Where the server has closed the connection.
    pub fn check(&mut self) -> Result<(), Error> {
        self.receive_until(Instant::now(), |_| None::<()>).map(|_| ())
    }

    /// Closes with 1000: the server then announces that the instruments of this publisher have ended. Waits up to a
    /// second for its answer.
    ///
    /// # Errors
    /// Where the server has closed the connection for another reason, such as a packet that breaks the rules.
    pub fn close(self) -> Result<(), Error> {
        self.connection.close()
    }

    /// The socket, the state of its reading, and the bytes that were read and not parsed yet: for a program that waits
    /// with `poll(2)` and writes without blocking. The socket is a blocking one with timeouts of 5 s.
    pub fn into_parts(self) -> (Stream, Session, Vec<u8>) {
        self.connection.into_parts()
    }

    /// Takes the answer to the last define request.
    fn await_ids(&mut self, ids: &mut Vec<u32>) -> Result<(), Error> {
        let wanted = self.last_id;
        let answer = self.receive_until(Instant::now() + CONNECT_TIMEOUT, |reply| match reply {
            Reply::Defined { id, instruments } if id == wanted => Some(Ok(instruments)),
            Reply::Error { id, code, message } if id.is_none_or(|id| id == wanted) => {
                Some(Err(Error::Rejected { code, message }))
            }
            _ => None,
        })?;
        let defined = answer.ok_or(Error::Unanswered("define request"))??;
        ids.extend(defined.iter().map(|defined| defined.instrument));
        Ok(())
    }

    /// Reads replies up to the first for which `pick` has a value; `None` at the deadline.
    fn receive_until<T>(&mut self, deadline: Instant, pick: impl Fn(Reply) -> Option<T>) -> Result<Option<T>, Error> {
        let mut packet = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.connection.receive(left, &mut packet)? {
                Received::Text(text) => {
                    let invalid = |error| Error::Protocol(format!("invalid reply {text:?}: {error}"));
                    if let Some(picked) = pick(Reply::parse(&text).map_err(invalid)?) {
                        return Ok(Some(picked));
                    }
                }
                Received::Nothing if left.is_zero() => return Ok(None),
                Received::Nothing | Received::Packet => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
