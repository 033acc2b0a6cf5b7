//! `/v1/sse`: the stream as Server-Sent Events, for networks and tools without WebSocket. The query is the subscription;
//! then the connection is a client of the shard like any other.

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap};
use http::{Method, Request};

use crate::clock::now_ns;
use crate::http::admission::origin::{self, CrossOrigin};
use crate::http::connection::Connection;
use crate::http::refusal::{RETRY_AFTER, Refusal};
use crate::http::server::HttpServer;
use crate::http::sessions::Caller;
use crate::identity::Principal;
use crate::io::descriptor::duplicate;
use tickcast_protocol::control::{RequestLimits, reply};
use tickcast_protocol::{Token, sse};

/// What pages of allowed origins may do.
pub(crate) const ACCESS: CrossOrigin = CrossOrigin::ReadableStream;

/// The start of every response. The body has no length and ends with the connection, so no proxy may buffer or cache it.
const HEAD: &str = concat!(
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nX-Accel-Buffering: no\r\n",
    "Connection: close\r\nX-Content-Type-Options: nosniff\r\n"
);

pub(crate) async fn serve(
    server: &HttpServer,
    connection: &mut Connection,
    request: &Request<()>,
) -> Result<(), Refusal> {
    let subscription = parse(server, request)?;
    let principal = match server.identified(connection, request).await {
        Ok(principal) => principal,
        Err(refusal) => return refuse(server, connection, request, refusal).await,
    };
    let head = head(server, request);
    if request.method() == Method::HEAD {
        send_and_close(server, connection, head.as_bytes()).await;
        return Ok(());
    }
    match subscribe(server, connection, principal, head.as_bytes(), subscription).await {
        Err(refusal) => refuse(server, connection, request, refusal).await,
        Ok(()) => Ok(()),
    }
}

/// Refuses a request. A temporary refusal of a stream is sent as a stream that ends at once; others are returned.
pub(crate) async fn refuse(
    server: &HttpServer,
    connection: &mut Connection,
    request: &Request<()>,
    refusal: Refusal,
) -> Result<(), Refusal> {
    let wants_stream = request.method() == Method::GET && accepts_events(request.headers());
    if !wants_stream || !is_temporary(&refusal) {
        return Err(refusal);
    }
    if let Some(address) = connection.address() {
        tracing::debug!("shard {}: {address}: stream refused: {refusal}", server.index());
    }
    send_and_close(server, connection, &refusal_stream(head(server, request), &refusal)).await;
    Ok(())
}

/// The head of a response, with its CORS headers.
fn head(server: &HttpServer, request: &Request<()>) -> String {
    let config = server.config();
    let mut head = HEAD.to_owned();
    for (name, value) in origin::cors_headers(ACCESS, request, &config) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if origin::varies(ACCESS, &config) {
        head.push_str("Vary: Origin\r\n");
    }
    head.push_str("\r\n");
    head
}

/// The request of a WebSocket client that equals this one.
fn parse(server: &HttpServer, request: &Request<()>) -> Result<tickcast_protocol::control::Request, Refusal> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Refusal::method_not_allowed(request.method()));
    }
    let shard = &server.config().shard;
    let limits = RequestLimits { symbols_max: shard.subscriptions_max, symbol_bytes_max: shard.symbol_bytes_max };
    let query = request.uri().query().unwrap_or_default();
    sse::parse_query(query, last_event_id(request.headers()), &limits)
        .map_err(|error| Refusal::new(400, error.code, error.message))
}

/// The token of a client that reconnects. A browser sends the id that it got from a stream, so an invalid one comes from
/// another server at this address or from another version. It becomes a token that cannot be resumed, which is answered
/// with a snapshot: a refusal would end the page's `EventSource` for good.
fn last_event_id(headers: &HeaderMap) -> Option<Token> {
    let value = headers.get("last-event-id").filter(|value| !value.is_empty())?;
    Some(value.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(Token::NOWHERE))
}

async fn subscribe(
    server: &HttpServer,
    connection: &mut Connection,
    principal: Arc<Principal>,
    head: &[u8],
    subscription: tickcast_protocol::control::Request,
) -> Result<(), Refusal> {
    server.await_handshake_permit(connection).await?;
    set_user_timeout(connection, Duration::from_millis(server.config().shard.idle_timeout_ms.into()));
    server.check_still(Some(&principal))?;
    // Bytes after the request have no meaning.
    let caller = Caller { principal: Some(principal.clone()), transport: "events" };
    server.hand_over(connection, &caller, |shard, slot_id, _| {
        shard.open_events_with(slot_id, principal, head, subscription, now_ns());
    })
}

/// Lets the kernel reset the connection when the peer acknowledges nothing for this long. An SSE client sends nothing and
/// cannot be pinged; heartbeats ensure that there is always something to acknowledge.
fn set_user_timeout(connection: &Connection, timeout: Duration) {
    let set = duplicate(connection.socket()).and_then(|socket| {
        // 0 would be the kernel's default.
        socket2::SockRef::from(&socket).set_tcp_user_timeout(Some(timeout.max(Duration::from_millis(1))))
    });
    if let Err(error) = set {
        tracing::debug!("TCP_USER_TIMEOUT could not be set: {error}");
    }
}

/// True for a refusal that a later attempt may not get.
fn is_temporary(refusal: &Refusal) -> bool {
    matches!(refusal.status, 429 | 503)
}

fn accepts_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|list| list.split(',')).any(|range| {
        let media_type = range.split(';').next().unwrap_or_default();
        media_type.trim().eq_ignore_ascii_case(sse::CONTENT_TYPE)
    })
}

/// A refusal as a stream that ends at once with the time to reconnect. A browser's `EventSource` never retries after a
/// status other than 200, so a restart or a full server would end the page's stream for good.
fn refusal_stream(head: String, refusal: &Refusal) -> Vec<u8> {
    let after = refusal.headers.iter().find(|(name, _)| *name == "Retry-After");
    let after_s = after.and_then(|(_, seconds)| seconds.parse().ok()).unwrap_or(RETRY_AFTER.as_secs());
    // The time of arrival spreads the reconnects of many clients over two seconds.
    let reconnect_ms = after_s * 1000 + now_ns() / 1000 % 2000;
    let mut response = head.into_bytes();
    let mut text = Vec::new();
    reply::error(&mut text, None, refusal.code, &refusal.message);
    sse::push_event(&text, &mut response);
    text.clear();
    reply::closing(&mut text, refusal.code, reconnect_ms);
    sse::push_retry(reconnect_ms, &mut response);
    sse::push_event(&text, &mut response);
    response
}

async fn send_and_close(server: &HttpServer, connection: &mut Connection, response: &[u8]) {
    let written = connection.write_answer(response).await;
    if written.is_ok() {
        connection.close().await;
    }
    server.count_write(&written);
}
