//! A connection that HTTP owns: its socket, bytes that were read and not parsed yet, and its guards in admission.

use std::borrow::Cow;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use glommio::net::TcpStream;

use super::admission::addresses::AddressGuard;
use super::admission::pending::PendingConnection;
use super::refusal::Refusal;
use super::request::{HeadLimits, RequestHead, parse_head};
use super::response::{Framing, Response};
use super::timer;
use crate::allowance::Allowance;
use crate::clock::now_ns;
use crate::state::ClientAddress;
use crate::tls::{ClientCertificate, Session, sealed_bytes_max};

/// Header lines of a request at most, as many as servers behind proxies take.
pub(super) const HEADERS_MAX: usize = 100;
/// Time for a peer to read its response and close.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes of one read: a browser's request head has some 500. Never an array in a future: every connection's task would
/// carry it.
pub(super) const READ_BYTES: usize = 2048;
/// Bytes of a close_notify of TLS, and some.
const CLOSE_BYTES: usize = 256;
/// Bytes of a response that a peer has to take within the write timeout: 13 KB a second by default.
const CHUNK_BYTES: usize = 64 << 10;

/// The time that a peer has to take what is sent to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct WriteTimeouts {
    /// For [`CHUNK_BYTES`] of a response, or for an echo.
    pub(super) piece: Duration,
    /// For a whole response.
    pub(super) whole: Duration,
}

/// A connection that is not a client of the shard.
pub(super) struct Connection {
    stream: TcpStream,
    /// `None`: the connection is not encrypted.
    session: Option<Box<Session>>,
    unread: Vec<u8>,
    pending: PendingConnection,
    /// `None` if the peer had closed when the connection was accepted.
    address: Option<ClientAddress>,
    /// `None` for an exempt address.
    address_guard: Option<AddressGuard>,
    /// `None` before the first plain request.
    allowance: Option<Allowance>,
    timeouts: WriteTimeouts,
    /// End of the time for the whole response; `None` before its first byte.
    answer_until_ns: Option<u64>,
}

impl Connection {
    pub(super) fn new(
        stream: TcpStream,
        peer: Option<SocketAddr>,
        pending: PendingConnection,
        timeouts: WriteTimeouts,
    ) -> Self {
        let address = peer.map(|socket| ClientAddress { socket, forwarded: None });
        Self {
            stream,
            session: None,
            unread: Vec::new(),
            pending,
            address,
            address_guard: None,
            allowance: None,
            timeouts,
            answer_until_ns: None,
        }
    }

    /// Reads the request head; `None` if the peer closes without a request. Bytes after the head stay unread.
    ///
    /// # Errors
    /// The refusal of an invalid head, of one that is not complete in time, or of a connection that is evicted.
    pub(super) async fn read_head(
        &mut self,
        head_bytes_max: usize,
        timeout: Duration,
    ) -> Result<Option<http::Request<()>>, Refusal> {
        let limits = HeadLimits { head_bytes_max, headers_max: HEADERS_MAX };
        let late = async {
            timer::sleep(timeout).await;
            Err(Refusal::head_timeout(timeout))
        };
        let Self { stream, session, unread, pending, .. } = self;
        let evicted = async {
            pending.must_end().await;
            let message = "evicted for a newer connection before the request was complete (pending_connections_max)";
            Err(Refusal::unavailable(message, Duration::ZERO))
        };
        let reading = async {
            loop {
                if !unread.is_empty()
                    && let RequestHead::Complete { consumed, request } = parse_head(unread, &limits)?
                {
                    unread.drain(..consumed);
                    return Ok(Some(request));
                }
                match read(stream, session, unread).await {
                    Ok(0) | Err(_) => return Ok(None),
                    Ok(_) => {}
                }
            }
        };
        future::or(reading, future::or(evicted, late)).await
    }

    /// The certificate that the peer has presented, if it has.
    pub(super) fn client_certificate(&self) -> Option<ClientCertificate> {
        self.session.as_ref()?.client_certificate()
    }

    /// A future that reads more bytes (0 at the end of the stream), and the pending connection, to wait for either.
    pub(super) fn read_or_end(&mut self) -> (impl Future<Output = io::Result<usize>>, &PendingConnection) {
        (read(&mut self.stream, &mut self.session, &mut self.unread), &self.pending)
    }

    /// Bytes that were read and not parsed.
    pub(super) fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Takes the unread bytes.
    pub(super) fn take_unread(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.unread)
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// What a TLS handshake needs.
    pub(super) fn parts(&mut self) -> (&mut TcpStream, &PendingConnection, Option<&AddressGuard>) {
        (&mut self.stream, &self.pending, self.address_guard.as_ref())
    }

    /// Secures the connection. False if what came behind the handshake cannot be opened.
    pub(super) async fn set_session(&mut self, mut session: Box<Session>) -> bool {
        let mut output = Vec::new();
        let opened = session.open(&mut [], &mut self.unread, &mut output);
        let is_written = output.is_empty() || self.write(&output).await.is_ok();
        self.session = Some(session);
        opened.is_ok() && is_written
    }

    /// True if the connection is encrypted.
    pub(super) fn is_secured(&self) -> bool {
        self.session.is_some()
    }

    /// Takes the session, for the next owner of the socket.
    pub(super) fn take_session(&mut self) -> Option<Box<Session>> {
        self.session.take()
    }

    pub(super) fn pending(&self) -> &PendingConnection {
        &self.pending
    }

    pub(super) fn address(&self) -> Option<ClientAddress> {
        self.address
    }

    /// Sets the client's address as a trusted proxy names it.
    pub(super) fn set_forwarded(&mut self, client: IpAddr) {
        self.address = self.address.map(|address| ClientAddress { forwarded: Some(client), ..address });
    }

    /// The allowance of the client's address, looked up by `of` the first time; `None` for a peer that has closed.
    pub(super) fn allowance_or_insert(&mut self, of: impl FnOnce(IpAddr) -> Allowance) -> Option<&Allowance> {
        let client = self.address?.client();
        Some(self.allowance.get_or_insert_with(|| of(client)))
    }

    pub(super) fn set_address_guard(&mut self, guard: Option<AddressGuard>) {
        self.address_guard = guard;
    }

    pub(super) fn address_guard(&self) -> Option<&AddressGuard> {
        self.address_guard.as_ref()
    }

    /// Takes the guard, for the next owner of the socket.
    pub(super) fn take_address_guard(&mut self) -> Option<AddressGuard> {
        self.address_guard.take()
    }

    /// Writes all bytes of something else than a response.
    ///
    /// # Errors
    /// `TimedOut` if the peer does not take them within the write timeout.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let bytes = sealed(&mut self.session, bytes)?;
        write_until(&mut self.stream, &bytes, self.timeouts.piece, std::future::pending()).await
    }

    /// Writes bytes of a response. A peer that does not take them at once may be evicted meanwhile.
    ///
    /// # Errors
    /// `TimedOut` if the peer does not take them in time, `ConnectionAborted` if the connection is evicted.
    pub(super) async fn write_answer(&mut self, bytes: &[u8]) -> io::Result<()> {
        let now_ns = now_ns();
        let until_ns = *self.answer_until_ns.get_or_insert(now_ns + self.timeouts.whole.as_nanos() as u64);
        let timeout = self.timeouts.piece.min(Duration::from_nanos(until_ns.saturating_sub(now_ns)));
        self.pending.set_waiting();
        let bytes = sealed(&mut self.session, bytes)?;
        write_until(&mut self.stream, &bytes, timeout, self.pending.must_end()).await
    }

    /// Sends a response and closes.
    pub(super) async fn respond(&mut self, response: &Response) -> io::Result<()> {
        self.begin_response(response).await?;
        self.close().await;
        Ok(())
    }

    /// Sends the head of a response and the body that it has, which may be its first portion.
    pub(super) async fn begin_response(&mut self, response: &Response) -> io::Result<()> {
        let (mut head, body) = (response.head().into_bytes(), &response.body[..]);
        match body {
            _ if response.headers_only => self.write_answer(&head).await?,
            // One segment instead of two.
            short if short.len() <= CHUNK_BYTES => {
                push_portion(response.framing, short, &mut head);
                self.write_answer(&head).await?;
            }
            // A long body is shared with other responses and written without a copy.
            long if response.framing == Framing::Length => {
                self.write_answer(&head).await?;
                self.write_pieces(long).await?;
            }
            long => {
                self.write_answer(&head).await?;
                self.write_portion(response.framing, long).await?;
            }
        }
        Ok(())
    }

    /// Sends another portion of a body.
    ///
    /// # Errors
    /// As [`Self::write_answer`]. An evicted connection ends here even if its peer reads.
    pub(super) async fn write_portion(&mut self, framing: Framing, portion: &[u8]) -> io::Result<()> {
        if self.pending.is_ending() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let mut framed = Vec::with_capacity(portion.len() + 16);
        push_portion(framing, portion, &mut framed);
        self.write_pieces(&framed).await
    }

    /// Ends a body that was sent in portions, and closes.
    pub(super) async fn end_portions(&mut self, framing: Framing) -> io::Result<()> {
        if framing == Framing::Chunked {
            self.write_answer(b"0\r\n\r\n").await?;
        }
        self.close().await;
        Ok(())
    }

    async fn write_pieces(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(CHUNK_BYTES) {
            self.write_answer(piece).await?;
        }
        Ok(())
    }

    /// Sends a refusal and closes.
    pub(super) async fn refuse(&mut self, refusal: &Refusal, headers_only: bool) -> io::Result<()> {
        let response = if headers_only { refusal.response_to_head() } else { refusal.response() };
        self.write_answer(&response).await?;
        self.close().await;
        Ok(())
    }

    /// Shuts the sending side down and waits a moment for the peer to close: closing with unread input would send a reset,
    /// which could overtake the response. The connection may be evicted meanwhile.
    pub(super) async fn close(&mut self) {
        if let Some(session) = &mut self.session {
            let mut notice = [0; CLOSE_BYTES];
            let len = session.close(&mut notice);
            // A peer that does not take it gets none.
            let _ = write_until(&mut self.stream, &notice[..len], LINGER, self.pending.must_end()).await;
        }
        if self.stream.shutdown(Shutdown::Write).await.is_err() {
            return;
        }
        self.pending.set_waiting();
        let (stream, pending) = (&mut self.stream, &self.pending);
        let rest = async {
            let mut buffer = vec![0; READ_BYTES];
            while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
        };
        let late = async {
            timer::sleep(LINGER).await;
        };
        future::or(rest, future::or(pending.must_end(), late)).await;
    }
}

/// Appends a portion of a body with its frame.
fn push_portion(framing: Framing, portion: &[u8], out: &mut Vec<u8>) {
    //= RFC 9112 section 7.1
    //# "chunk          = chunk-size [ chunk-ext ] CRLF
    //#                   chunk-data CRLF"
    if framing == Framing::Chunked {
        out.extend_from_slice(format!("{:x}\r\n", portion.len()).as_bytes());
    }
    out.extend_from_slice(portion);
    if framing == Framing::Chunked {
        out.extend_from_slice(b"\r\n");
    }
}

async fn write_until(
    stream: &mut TcpStream,
    bytes: &[u8],
    timeout: Duration,
    must_end: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut writing = std::pin::pin!(stream.write_all(bytes));
    // Most responses fit the socket's buffer, and a timer costs as much as the write.
    if let Some(written) = future::poll_once(writing.as_mut()).await {
        return written;
    }
    let evicted = async {
        must_end.await;
        Err(io::ErrorKind::ConnectionAborted.into())
    };
    let late = async {
        timer::sleep(timeout).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    future::or(writing, future::or(evicted, late)).await
}

/// Reads more bytes; 0 at the end of the stream.
async fn read(stream: &mut TcpStream, session: &mut Option<Box<Session>>, unread: &mut Vec<u8>) -> io::Result<usize> {
    let Some(session) = session else {
        let at = unread.len();
        unread.resize(at + READ_BYTES, 0);
        let read = stream.read(&mut unread[at..]).await;
        unread.truncate(at + *read.as_ref().unwrap_or(&0));
        return read;
    };
    let (mut input, mut output, before) = (vec![0; READ_BYTES], Vec::new(), unread.len());
    loop {
        let len = stream.read(&mut input).await?;
        if len == 0 {
            return Ok(0);
        }
        let opened = session.open(&mut input[..len], unread, &mut output);
        if !output.is_empty() {
            stream.write_all(&output).await?;
            output.clear();
        }
        let is_end = opened.map_err(io::Error::other)?;
        if is_end || unread.len() > before {
            return Ok(unread.len() - before);
        }
    }
}

/// The bytes as they are sent.
fn sealed<'a>(session: &mut Option<Box<Session>>, bytes: &'a [u8]) -> io::Result<Cow<'a, [u8]>> {
    let Some(session) = session else { return Ok(Cow::Borrowed(bytes)) };
    let mut out = vec![0; sealed_bytes_max(bytes.len())];
    let len = session.seal(bytes, &mut out).map_err(io::Error::other)?;
    out.truncate(len);
    Ok(Cow::Owned(out))
}
