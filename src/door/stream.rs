//! One peer of the door: its socket, and what it has sent that nobody has looked at yet.

use std::io;
use std::net::Shutdown;
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use glommio::net::TcpStream;

use super::http::Response;
use crate::ws::handshake::{Head, HeadLimits, Refusal, parse_head};

/// Headers of a request at the most.
const HEADERS_MAX: usize = 64;
/// Time for a peer to read its answer and go.
const LINGER: Duration = Duration::from_secs(1);
/// What one read takes: a browser's request head is some 500 bytes. Never an array in a future, which would be carried by
/// every connection's task.
const READ_BYTES: usize = 2048;

/// A connection that is not a seat.
pub(super) struct Peer {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Peer {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, unread: Vec::new() }
    }

    /// The request's head; `None` where the peer went without a request. What follows the head stays unread.
    pub(super) async fn read_head(
        &mut self,
        head_bytes_max: usize,
        timeout: Duration,
    ) -> Result<Option<http::Request<()>>, Refusal> {
        let limits = HeadLimits { head_bytes_max, headers_max: HEADERS_MAX };
        let late = async {
            glommio::timer::sleep(timeout).await;
            Err(super::http::timed_out(timeout))
        };
        let reading = async {
            loop {
                if !self.unread.is_empty()
                    && let Head::Whole { consumed, request } = parse_head(&self.unread, &limits)?
                {
                    self.unread.drain(..consumed);
                    return Ok(Some(request));
                }
                match self.read().await {
                    Ok(0) | Err(_) => return Ok(None),
                    Ok(_) => {}
                }
            }
        };
        future::or(reading, late).await
    }

    /// Reads more into what is unread; 0 at the end of the stream.
    pub(super) async fn read(&mut self) -> io::Result<usize> {
        let at = self.unread.len();
        self.unread.resize(at + READ_BYTES, 0);
        let read = self.stream.read(&mut self.unread[at..]).await;
        self.unread.truncate(at + *read.as_ref().unwrap_or(&0));
        read
    }

    /// What has been read and not been looked at.
    pub(super) fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Takes what is unread.
    pub(super) fn take_unread(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.unread)
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.stream
    }

    pub(super) async fn respond(&mut self, response: &Response) {
        if self.write(&response.encode()).await.is_ok() {
            self.finish().await;
        }
    }

    pub(super) async fn refuse(&mut self, refusal: &Refusal, headers_only: bool) {
        let answer = if headers_only { refusal.response_to_head() } else { refusal.response() };
        if self.write(&answer).await.is_ok() {
            self.finish().await;
        }
    }

    /// Ends our side and waits a moment for the peer's: a close with unread input would be a reset, and could take the
    /// answer with it.
    pub(super) async fn finish(&mut self) {
        if self.stream.shutdown(Shutdown::Write).await.is_err() {
            return;
        }
        let rest = async {
            let mut buffer = vec![0; READ_BYTES];
            while matches!(self.stream.read(&mut buffer).await, Ok(1..)) {}
        };
        let late = async {
            glommio::timer::sleep(LINGER).await;
        };
        future::or(rest, late).await;
    }
}
