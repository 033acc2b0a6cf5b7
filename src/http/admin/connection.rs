//! One connection of the admin listener, on a thread that blocks on it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use http::{Method, Request};

use super::{AdminServer, ConnectionGuard};
use crate::config::{AdminListen, Config};
use crate::http::admission::origin;
use crate::http::connection::HEADERS_MAX;
use crate::http::handlers::{health, market, metrics, operator, publish, revoke};
use crate::http::refusal::Refusal;
use crate::http::request::{HeadLimits, RequestHead, parse_head, quote};
use crate::http::response::Response;
use crate::http::router::{self, Endpoint};
use crate::http::rules;

/// Bytes of one read of a request head.
const READ_BYTES: usize = 2048;
/// Time for a peer to read its response and close.
const LINGER: Duration = Duration::from_secs(1);

/// A request head, and bytes after it.
type ReadRequest = (Request<()>, Vec<u8>);

/// Serves a connection to its end.
pub(super) fn serve(server: &AdminServer, mut stream: TcpStream, peer: Option<SocketAddr>) {
    let config = server.config();
    let Ok(guard) = server.enter(&stream) else { return };
    // An error is one of the socket: the peer has closed, or was closed for a newer connection.
    let _ = answer(server, &mut stream, peer, &config, guard);
}

fn answer(
    server: &AdminServer,
    stream: &mut TcpStream,
    peer: Option<SocketAddr>,
    config: &Config,
    guard: ConnectionGuard<'_>,
) -> io::Result<()> {
    let (request, unread) = match read_head(stream, config) {
        Ok(Some(read)) => read,
        Ok(None) => return Ok(()),
        Err(refusal) => return write_and_close(stream, &refusal.response(), config),
    };
    let is_head = request.method() == Method::HEAD;
    let refuse = |stream: &mut TcpStream, refusal: &Refusal| {
        tracing::debug!("admin listener: request refused: {refusal}");
        let response = if is_head { refusal.response_to_head() } else { refusal.response() };
        write_and_close(stream, &response, config)
    };
    let endpoint = router::find(request.uri().path());
    let query = request.uri().query().unwrap_or_default();
    let checked = check(server, &request, config);
    let checked = checked.and_then(|()| endpoint.map_or(Ok(()), |endpoint| router::check_parameters(endpoint, query)));
    if let Err(refusal) = checked {
        return refuse(stream, &refusal);
    }
    if endpoint == Some(Endpoint::Publish) {
        return match publish::open_blocking(&server.shared.state, config, &request, peer) {
            Err(refusal) => refuse(stream, &refusal),
            Ok(opened) => {
                // A publisher is no longer one of the connections that a newer one closes.
                drop(guard);
                publish::serve_blocking(&server.shared.state, config, opened, stream, &unread);
                Ok(())
            }
        };
    }
    match get(server, &request, endpoint, config, peer) {
        Err(refusal) => refuse(stream, &refusal),
        Ok(response) => {
            let response = response.with_headers_only(is_head);
            let body = if is_head { &[][..] } else { &response.body[..] };
            write_and_close(stream, &[response.head().as_bytes(), body].concat(), config)
        }
    }
}

/// Reads a request; `None` if the peer closes before.
fn read_head(stream: &mut TcpStream, config: &Config) -> Result<Option<ReadRequest>, Refusal> {
    let limits = HeadLimits { head_bytes_max: config.head_bytes_max, headers_max: HEADERS_MAX };
    let timeout = Duration::from_millis(config.upgrade_timeout_ms.into());
    let (until, mut bytes) = (Instant::now() + timeout, Vec::new());
    loop {
        if !bytes.is_empty()
            && let RequestHead::Complete { consumed, request } = parse_head(&bytes, &limits)?
        {
            bytes.drain(..consumed);
            return Ok(Some((request, bytes)));
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Refusal::head_timeout(timeout));
        }
        let start = bytes.len();
        bytes.resize(start + READ_BYTES, 0);
        let read = stream.set_read_timeout(Some(left)).and_then(|()| stream.read(&mut bytes[start..]));
        bytes.truncate(start + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(None),
        }
    }
}

/// The rules that hold on every path.
fn check(server: &AdminServer, request: &Request<()>, config: &Config) -> Result<(), Refusal> {
    rules::check(request)?;
    // A browser reaches no Unix socket.
    if let AdminListen::Address(address) = &server.socket.listen
        && let Some(refusal) = origin::host_refusal(request, address.ip(), config)
    {
        return Err(refusal);
    }
    origin::stream_refusal(router::cross_origin(request.uri().path()), request, config).map_or(Ok(()), Err)
}

fn get(
    server: &AdminServer,
    request: &Request<()>,
    endpoint: Option<Endpoint>,
    config: &Config,
    peer: Option<SocketAddr>,
) -> Result<Response, Refusal> {
    let state = &server.shared.state;
    let client = peer.map(|peer| peer.ip().to_canonical());
    if endpoint == Some(Endpoint::Revoke) {
        return revoke::post_admin(state, config, &server.socket.listen, client, request);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Refusal::method_not_allowed(request.method()));
    }
    match endpoint {
        Some(Endpoint::Healthz) => health::healthz(state),
        Some(Endpoint::Readyz) => health::readyz_admin(state),
        Some(Endpoint::Metrics) => Ok(metrics::response(market::market_of(state, request)?)),
        Some(Endpoint::Operator) => operator::get_admin(state, config, &server.socket.listen, client, request),
        _ => Err(Refusal::not_found(format!(
            "path {} is not served by the admin listener: expected /healthz, /readyz, /metrics, /v1/operator, /v1/operator/revoke or /v1/publish",
            quote(request.uri().path())
        ))),
    }
}

/// Writes within `answer_timeout_ms`, and each part within `write_timeout_ms`; then waits a moment for the peer to close.
fn write_and_close(stream: &mut TcpStream, bytes: &[u8], config: &Config) -> io::Result<()> {
    let until = Instant::now() + Duration::from_millis(config.answer_timeout_ms.into());
    let mut rest = bytes;
    while !rest.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left.min(Duration::from_millis(config.write_timeout_ms.into()))))?;
        match stream.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    stream.shutdown(Shutdown::Write)?;
    let (until, mut buffer) = (Instant::now() + LINGER, [0; READ_BYTES]);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return Ok(());
        }
        match stream.read(&mut buffer) {
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return Ok(()),
        }
    }
}
