//! One peer of the door: its socket, what it has sent that nobody has looked at yet, and its place in the lobby.

use std::io;
use std::net::{IpAddr, Shutdown};
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use glommio::net::TcpStream;

use super::admission::addresses::Place;
use super::admission::pending::Visit;
use super::response::Response;
use crate::http::handshake::{Head, HeadLimits, Refusal, parse_head};
use crate::state::Who;

/// Headers of a request at the most.
const HEADERS_MAX: usize = 64;
/// Time for a peer to read its answer and go.
const LINGER: Duration = Duration::from_secs(1);
/// What one read takes: a browser's request head is some 500 bytes. Never an array in a future, which would be carried by
/// every connection's task.
const READ_BYTES: usize = 2048;

/// What a peer has to take of an answer in the time that a write has: 13 KB a second by default.
const PORTION_BYTES: usize = 64 << 10;

/// A connection that is not a seat.
pub(super) struct Peer {
    stream: TcpStream,
    unread: Vec<u8>,
    visit: Visit,
    who: Option<Who>,
    /// What it counts for at its address.
    place: Option<Place>,
    write_timeout: Duration,
}

impl Peer {
    pub(super) fn new(stream: TcpStream, visit: Visit, write_timeout: Duration) -> Self {
        let who = stream.peer_addr().ok().map(|socket| Who { socket, client: None });
        Self { stream, unread: Vec::new(), visit, who, place: None, write_timeout }
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
            Err(super::response::timed_out(timeout))
        };
        let (stream, unread, visit) = (&mut self.stream, &mut self.unread, &self.visit);
        let unwanted = async {
            visit.notice().await;
            Err(super::response::crowded_out())
        };
        let reading = async {
            loop {
                if !unread.is_empty()
                    && let Head::Whole { consumed, request } = parse_head(unread, &limits)?
                {
                    unread.drain(..consumed);
                    return Ok(Some(request));
                }
                match read(stream, unread).await {
                    Ok(0) | Err(_) => return Ok(None),
                    Ok(_) => {}
                }
            }
        };
        future::or(reading, future::or(unwanted, late)).await
    }

    /// Reads more into what is unread, 0 at the end of the stream; and the visit, to see whether it should end meanwhile.
    pub(super) fn read_or_visit(&mut self) -> (impl Future<Output = io::Result<usize>>, &Visit) {
        (read(&mut self.stream, &mut self.unread), &self.visit)
    }

    /// What has been read and not been looked at.
    pub(super) fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Takes what is unread.
    pub(super) fn take_unread(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.unread)
    }

    /// Writes all of it. `TimedOut` where the peer has not taken it in time.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let timeout = self.write_timeout;
        let mut writing = std::pin::pin!(self.stream.write_all(bytes));
        // Most answers are taken at once, and a timer costs as much as the write.
        if let Some(written) = future::poll_once(writing.as_mut()).await {
            return written;
        }
        let late = async {
            glommio::timer::sleep(timeout).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        future::or(writing, late).await
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.stream
    }

    pub(super) fn visit(&self) -> &Visit {
        &self.visit
    }

    /// Whose connection it is; `None` for one that had gone when it was accepted.
    pub(super) fn who(&self) -> Option<Who> {
        self.who
    }

    /// Notes the address that a trusted proxy has named.
    pub(super) fn is_of(&mut self, client: IpAddr) {
        self.who = self.who.map(|who| Who { client: Some(client), ..who });
    }

    /// Notes what it counts for at its address.
    pub(super) fn count(&mut self, place: Option<Place>) {
        self.place = place;
    }

    /// What it counts for at its address; `None` for one that is exempt.
    pub(super) fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// Hands over what it counts for, for whoever takes the connection over.
    pub(super) fn take_place(&mut self) -> Option<Place> {
        self.place.take()
    }

    pub(super) async fn respond(&mut self, response: &Response) -> io::Result<()> {
        let (mut head, body) = (response.head().into_bytes(), &response.body[..]);
        match body {
            _ if response.headers_only => self.write(&head).await?,
            // One segment is better than two.
            short if short.len() <= PORTION_BYTES => {
                head.extend_from_slice(short);
                self.write(&head).await?;
            }
            // A long body is shared with others who read it, and written from where it is.
            long => {
                self.write(&head).await?;
                for portion in long.chunks(PORTION_BYTES) {
                    self.write(portion).await?;
                }
            }
        }
        self.finish().await;
        Ok(())
    }

    pub(super) async fn refuse(&mut self, refusal: &Refusal, headers_only: bool) -> io::Result<()> {
        let answer = if headers_only { refusal.response_to_head() } else { refusal.response() };
        self.write(&answer).await?;
        self.finish().await;
        Ok(())
    }

    /// Ends our side and waits a moment for the peer's: a close with unread input would be a reset, and could take the
    /// answer with it. Somebody new who wants the place has it.
    pub(super) async fn finish(&mut self) {
        if self.stream.shutdown(Shutdown::Write).await.is_err() {
            return;
        }
        self.visit.idle();
        let (stream, visit) = (&mut self.stream, &self.visit);
        let rest = async {
            let mut buffer = vec![0; READ_BYTES];
            while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
        };
        let late = async {
            glommio::timer::sleep(LINGER).await;
        };
        future::or(rest, future::or(visit.notice(), late)).await;
    }
}

async fn read(stream: &mut TcpStream, unread: &mut Vec<u8>) -> io::Result<usize> {
    let at = unread.len();
    unread.resize(at + READ_BYTES, 0);
    let read = stream.read(&mut unread[at..]).await;
    unread.truncate(at + *read.as_ref().unwrap_or(&0));
    read
}
