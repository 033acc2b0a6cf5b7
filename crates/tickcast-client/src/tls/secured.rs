//! One connection over TLS on a socket that may block or not.
//!
//! What always holds: [`Secured::read_once`] makes at most one read of the socket, and keeps no plaintext, so that a
//! program which waits for the socket misses nothing. Records that the socket does not take at once are kept as they
//! are, and nothing more is sealed until they have gone.
//!
//! Memory: some 3 KB, and what is not a whole record yet. It uses the library without its buffers, as those of very many
//! connections would be most of the memory. Cost: that of opening a record, and two copies of its bytes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};

use super::TlsConfig;
use crate::error::Error;
use crate::target::Target;
use crate::timeouts::CONNECT_TIMEOUT;

/// Plaintext of one record.
const RECORD_BYTES_MAX: usize = 16 * 1024;
/// What a record takes beside its plaintext, and what may go before it.
const OVERHEAD_MAX: usize = 256;
/// A flight of the handshake takes less.
const FLIGHT_BYTES: usize = 4 * 1024;
/// A buffer has two halves, for records and for plaintext; a record fits into each.
const BUFFER_BYTES_MIN: usize = 64 * 1024;

/// See the module.
pub(crate) struct Secured {
    socket: TcpStream,
    connection: UnbufferedClientConnection,
    /// Received, and not a whole record.
    held: Vec<u8>,
    /// Records that the socket has not taken.
    unsent: Vec<u8>,
    /// What is to be sealed once the handshake is complete.
    early: Vec<u8>,
    /// Plaintext that a read with a small buffer has left, and how much of it is taken.
    opened: Vec<u8>,
    taken: usize,
    /// The peer sends nothing more.
    has_ended: bool,
}

impl std::fmt::Debug for Secured {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Secured").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Secured {
    pub(crate) fn open(target: &Target, socket: TcpStream, tls: &TlsConfig) -> Result<Self, Error> {
        let name = ServerName::try_from(target.host().to_owned());
        let name = name.map_err(|error| Error::Tls(format!("{}: {error}", target.host())))?;
        let client = tls.client().ok_or_else(|| Error::Tls(format!("{target}: expected a TlsConfig for wss://")))?;
        let connection = UnbufferedClientConnection::new(client, name);
        let connection = connection.map_err(|error| Error::Tls(error.to_string()))?;
        let [held, unsent, early, opened] = [const { Vec::new() }; 4];
        let mut secured = Self { socket, connection, held, unsent, early, opened, taken: 0, has_ended: false };
        secured.take_records(&mut [], &mut []).map_err(|error| Error::Tls(error.to_string()))?;
        secured.try_flush()?;
        Ok(secured)
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty() || !self.early.is_empty()
    }

    pub(crate) fn complete_handshake(&mut self, target: &Target, tls: &TlsConfig) -> Result<(), Error> {
        let (begun, mut buffer) = (Instant::now(), vec![0; BUFFER_BYTES_MIN]);
        while self.connection.is_handshaking() {
            match self.read_once(&mut buffer, usize::MAX) {
                Ok(0) => return Err(Error::Dropped),
                Ok(_) => return Err(Error::Protocol("data before a request".to_owned())),
                Err(error) if is_transient(&error) => {}
                Err(error) => {
                    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
                    return Err(inner.map_or_else(|| Error::Dropped, |inner| tls.failure(target, inner)));
                }
            }
            if begun.elapsed() > CONNECT_TIMEOUT {
                return Err(Error::Unanswered("TLS handshake"));
            }
        }
        Ok(())
    }

    /// Reads the socket once, see [`crate::Stream::read_once`].
    pub(crate) fn read_once(&mut self, buffer: &mut [u8], bytes_max: usize) -> io::Result<usize> {
        self.receive(buffer, bytes_max)?.ok_or_else(|| ErrorKind::WouldBlock.into())
    }

    /// The same; `None` where no plaintext has come with it.
    fn receive(&mut self, buffer: &mut [u8], bytes_max: usize) -> io::Result<Option<usize>> {
        assert!(buffer.len() >= BUFFER_BYTES_MIN, "the buffer of a connection over TLS has 64 KiB");
        self.try_flush()?;
        if self.has_ended {
            return Ok(Some(0));
        }
        let (plain, sealed) = buffer.split_at_mut(buffer.len() / 2);
        let start = self.held.len();
        let end = sealed.len().min(start.saturating_add(bytes_max));
        sealed[..start].copy_from_slice(&self.held);
        let read = self.socket.read(&mut sealed[start..end])?;
        if read == 0 {
            // A server that ends without close_notify: a frame that was cut shows in the stream itself.
            return Ok(Some(0));
        }
        let sealed = &mut sealed[..start + read];
        let taken = self.take_records(sealed, plain);
        if taken.is_err() {
            self.push_alert();
        }
        let sent = self.seal_early().and_then(|()| self.try_flush());
        let (used, opened) = taken.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        sent?;
        self.held.clear();
        self.held.extend_from_slice(&sealed[used..]);
        if self.held.is_empty() {
            self.held = Vec::new();
        }
        if self.held.len() > RECORD_BYTES_MAX + OVERHEAD_MAX + FLIGHT_BYTES {
            return Err(io::Error::new(ErrorKind::InvalidData, "a record that is too long"));
        }
        Ok((opened > 0 || self.has_ended).then_some(opened))
    }

    /// The same, until there is plaintext or the socket has no more.
    fn receive_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(read) = self.receive(buffer, usize::MAX)? {
                return Ok(read);
            }
        }
    }

    /// Tells the peer that nothing more is sent.
    pub(crate) fn end(&mut self) {
        let mut out = vec![0; OVERHEAD_MAX];
        let Self { connection, held, unsent, .. } = self;
        if let ConnectionState::WriteTraffic(mut writing) = settle(connection, held, unsent)
            && let Ok(len) = writing.queue_close_notify(&mut out)
        {
            unsent.extend_from_slice(&out[..len]);
        }
        // A peer that is gone does not read it.
        let _ = self.try_flush();
    }

    /// Handles the whole records at the start of `sealed`. How many bytes they are, and how many of `plain` are filled.
    fn take_records(&mut self, sealed: &mut [u8], plain: &mut [u8]) -> Result<(usize, usize), rustls::Error> {
        let (mut used, mut opened) = (0, 0);
        loop {
            let UnbufferedStatus { mut discard, state, .. } = self.connection.process_tls_records(&mut sealed[used..]);
            let is_done = match state? {
                ConnectionState::ReadTraffic(mut reading) => {
                    while let Some(record) = reading.next_record() {
                        let record = record?;
                        discard += record.discard;
                        let len = record.payload.len();
                        plain[opened..opened + len].copy_from_slice(record.payload);
                        opened += len;
                    }
                    false
                }
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    self.has_ended = true;
                    true
                }
                state => push_state(state, &mut self.unsent),
            };
            used += discard;
            if is_done {
                return Ok((used, opened));
            }
        }
    }

    /// What a failed connection has for its peer.
    fn push_alert(&mut self) {
        while self.connection.wants_write() {
            // While there is something to send, the library does not look at the input.
            let state = self.connection.process_tls_records(&mut []).state;
            if state.map_or(true, |state| push_state(state, &mut self.unsent)) {
                return;
            }
        }
    }

    fn seal_early(&mut self) -> io::Result<()> {
        if self.early.is_empty() || self.connection.is_handshaking() {
            return Ok(());
        }
        let early = std::mem::take(&mut self.early);
        early.chunks(RECORD_BYTES_MAX).try_for_each(|part| self.seal(part))
    }

    /// Seals a record's plaintext behind what is unsent.
    fn seal(&mut self, plain: &[u8]) -> io::Result<()> {
        let failed = |problem: &str| io::Error::new(ErrorKind::BrokenPipe, problem.to_owned());
        let Self { connection, held, unsent, .. } = self;
        match settle(connection, held, unsent) {
            ConnectionState::WriteTraffic(mut writing) => {
                let start = unsent.len();
                unsent.resize(start + plain.len() + OVERHEAD_MAX, 0);
                let sealed = writing.encrypt(plain, &mut unsent[start..]);
                unsent.truncate(start + *sealed.as_ref().unwrap_or(&0));
                sealed.map(|_| ()).map_err(|error| failed(&error.to_string()))
            }
            _ => Err(failed("the connection has ended")),
        }
    }

    /// Sends what is unsent, as far as the socket takes it.
    fn try_flush(&mut self) -> io::Result<()> {
        match self.flush() {
            Err(error) if is_transient(&error) => Ok(()),
            flushed => flushed,
        }
    }
}

impl Read for Secured {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.opened.is_empty() {
            if buffer.len() >= BUFFER_BYTES_MIN {
                return self.receive_some(buffer);
            }
            let mut large = vec![0; BUFFER_BYTES_MIN];
            let read = self.receive_some(&mut large)?;
            large.truncate(read);
            (self.opened, self.taken) = (large, 0);
        }
        let rest = &self.opened[self.taken..];
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        self.taken += len;
        if self.taken == self.opened.len() {
            self.opened = Vec::new();
        }
        Ok(len)
    }
}

impl Write for Secured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.connection.is_handshaking() {
            self.early.extend_from_slice(bytes);
            return Ok(bytes.len());
        }
        self.flush()?;
        let part = &bytes[..bytes.len().min(RECORD_BYTES_MAX)];
        self.seal(part)?;
        self.try_flush()?;
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        let outcome = loop {
            if sent == self.unsent.len() {
                break Ok(());
            }
            match self.socket.write(&self.unsent[sent..]) {
                Ok(len) => sent += len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.unsent.drain(..sent);
        if self.unsent.is_empty() {
            self.unsent = Vec::new();
        }
        outcome
    }
}

/// Takes what else the connection has to send; the state after that. What is held is not whole, and nothing of it is used
/// here: the library remembers where it was in it.
fn settle<'c, 'i>(
    connection: &'c mut UnbufferedClientConnection,
    held: &'i mut [u8],
    unsent: &mut Vec<u8>,
) -> ConnectionState<'c, 'i, ClientConnectionData> {
    while connection.wants_write() {
        if connection.process_tls_records(held).state.map_or(true, |state| push_state(state, unsent)) {
            break;
        }
    }
    connection.process_tls_records(held).state.unwrap_or(ConnectionState::Closed)
}

/// Handles a state that has something to send. True if there is none.
fn push_state(state: ConnectionState<'_, '_, ClientConnectionData>, unsent: &mut Vec<u8>) -> bool {
    match state {
        ConnectionState::EncodeTlsData(mut encoding) => {
            let start = unsent.len();
            unsent.resize(start + FLIGHT_BYTES, 0);
            let encoded = match encoding.encode(&mut unsent[start..]) {
                Err(EncodeError::InsufficientSize(needed)) => {
                    unsent.resize(start + needed.required_size, 0);
                    encoding.encode(&mut unsent[start..])
                }
                encoded => encoded,
            };
            unsent.truncate(start + encoded.unwrap_or(0));
            false
        }
        ConnectionState::TransmitTlsData(transmitting) => {
            transmitting.done();
            false
        }
        _ => true,
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
