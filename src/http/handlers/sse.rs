//! `/v1/sse`: the stream as Server-Sent Events, for networks and tools that take no WebSocket. All that a client wants
//! stands in its request; then it is a seat of the shard as any other.

use std::time::Duration;

use http::header::{self, HeaderMap};
use http::{Method, Request};

use crate::clock::now_ns;
use crate::http::admission::origin;
use crate::http::connection::Peer;
use crate::http::handshake::Refusal;
use crate::http::server::HttpServer;
use crate::io::uring::duplicate;
use tickcast_protocol::control::{RequestLimits, reply};
use tickcast_protocol::{Token, sse};

/// Where the stream is.
pub(crate) const PATH: &str = "/v1/sse";

/// What every answer begins with. Its body has no length, and ends with the connection: no proxy in between may wait for
/// its end, or keep it.
const HEAD: &str = concat!(
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nX-Accel-Buffering: no\r\n",
    "Connection: close\r\nX-Content-Type-Options: nosniff\r\n"
);

/// Answers a request for events.
pub(crate) async fn serve(server: &HttpServer, peer: &mut Option<Peer>, request: &Request<()>) -> Result<(), Refusal> {
    let asked = parse(server, request)?;
    let head = head(server, request);
    if request.method() == Method::HEAD {
        return end_with(server, peer, head.as_bytes()).await;
    }
    match slot_id(server, peer, head.as_bytes(), asked).await {
        Err(refusal) => refuse(server, peer, request, refusal).await,
        Ok(()) => Ok(()),
    }
}

/// Refuses a request: one for events that is refused for the moment with a stream, any other by the refusal that comes
/// back.
pub(crate) async fn refuse(
    server: &HttpServer,
    peer: &mut Option<Peer>,
    request: &Request<()>,
    refusal: Refusal,
) -> Result<(), Refusal> {
    let is_reader = request.uri().path() == PATH && request.method() == Method::GET && wants_events(request.headers());
    if !is_reader || !is_temporary(&refusal) {
        return Err(refusal);
    }
    if let Some(who) = peer.as_ref().and_then(Peer::who) {
        tracing::debug!("{who} is refused, and to come back: {refusal}");
    }
    end_with(server, peer, &come_back(head(server, request), &refusal)).await
}

/// The head of an answer, with what it says of pages of other origins.
fn head(server: &HttpServer, request: &Request<()>) -> String {
    let config = server.config();
    let mut head = HEAD.to_owned();
    for (name, value) in origin::headers(request, &config) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if origin::varies(request, &config) {
        head.push_str("Vary: Origin\r\n");
    }
    head.push_str("\r\n");
    head
}

/// What is asked, as a WebSocket client would ask it.
fn parse(server: &HttpServer, request: &Request<()>) -> Result<tickcast_protocol::control::Request, Refusal> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let message = format!("method {} is not served; have GET, HEAD", request.method());
        return Err(Refusal::new(405, "method_not_allowed", message).with_header("Allow", "GET, HEAD"));
    }
    let shard = &server.config().shard;
    let limits = RequestLimits { symbols_max: shard.subscriptions_max, symbol_bytes_max: shard.symbol_bytes_max };
    let query = request.uri().query().unwrap_or_default();
    sse::parse_query(query, last_event_id(request.headers()), &limits)
        .map_err(|error| Refusal::new(400, error.code, error.message))
}

/// The token of a client that comes back. A browser writes what the stream gave it, and nothing that a person could put
/// right: what is no token comes from another server at this address, or from another version. It is one that cannot be
/// gone on from, and answered so, with a snapshot; a refusal would end the page's `EventSource` for good.
fn last_event_id(headers: &HeaderMap) -> Option<Token> {
    let value = headers.get("last-event-id").filter(|value| !value.is_empty())?;
    Some(value.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(Token::NOWHERE))
}

async fn slot_id(
    server: &HttpServer,
    peer: &mut Option<Peer>,
    head: &[u8],
    asked: tickcast_protocol::control::Request,
) -> Result<(), Refusal> {
    let Some(waiting) = peer.as_ref() else { return Ok(()) };
    server.await_turn(waiting).await?;
    drop_when_unheard(waiting, Duration::from_millis(server.config().shard.idle_timeout_ms.into()));
    // What came behind the request means nothing.
    server.hand_over(peer, |shard, slot_id, _| shard.open_events(slot_id, head, asked, now_ns()))
}

/// Has the kernel break the connection once the peer has acknowledged nothing for so long. Who reads events never speaks,
/// and cannot be pinged; heartbeats see to it that there always is something to acknowledge.
fn drop_when_unheard(peer: &Peer, timeout: Duration) {
    let set = duplicate(peer.socket()).and_then(|socket| {
        // Of 0 the kernel would make its own default.
        socket2::SockRef::from(&socket).set_tcp_user_timeout(Some(timeout.max(Duration::from_millis(1))))
    });
    if let Err(error) = set {
        tracing::debug!("a connection is not watched for silence: {error}");
    }
}

/// True for a refusal that another attempt may not meet.
fn is_temporary(refusal: &Refusal) -> bool {
    matches!(refusal.status, 429 | 503)
}

fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|list| list.split(',')).any(|range| {
        let media_type = range.split(';').next().unwrap_or_default();
        media_type.trim().eq_ignore_ascii_case(sse::CONTENT_TYPE)
    })
}

/// A refusal as a stream that ends at once and says when to come back. A browser's `EventSource` never tries again after
/// any status but 200, so that a restart or a full server would end the page's stream for good.
fn come_back(head: String, refusal: &Refusal) -> Vec<u8> {
    /// Where a refusal does not say it.
    const AFTER_S: u64 = 5;
    let after = refusal.headers.iter().find(|(name, _)| *name == "Retry-After");
    let after_s = after.and_then(|(_, seconds)| seconds.parse().ok()).unwrap_or(AFTER_S);
    // Spread by the moment at which each comes, so that not all come back at once.
    let reconnect_ms = after_s * 1000 + now_ns() / 1000 % 2000;
    let mut answer = head.into_bytes();
    let mut text = Vec::new();
    reply::error(&mut text, None, refusal.code, &refusal.message);
    sse::push_event(&text, &mut answer);
    text.clear();
    reply::closing(&mut text, refusal.code, reconnect_ms);
    sse::push_retry(reconnect_ms, &mut answer);
    sse::push_event(&text, &mut answer);
    answer
}

/// Sends an answer that is whole.
async fn end_with(server: &HttpServer, peer: &mut Option<Peer>, answer: &[u8]) -> Result<(), Refusal> {
    if let Some(mut peer) = peer.take() {
        let written = peer.write(answer).await;
        if written.is_ok() {
            peer.finish().await;
        }
        server.note(written);
    }
    Ok(())
}
