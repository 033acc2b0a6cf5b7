//! One connection, from its first byte to its response or until another owner takes its socket over: admission, request
//! head, router.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use glommio::net::TcpStream;
use http::{Method, Request, header};

use super::Listener;
use super::admission::forwarded::{self, ClientScheme, Forwarded};
use super::admission::origin;
use super::connection::{Connection, WriteTimeouts};
use super::handlers::sse;
use super::refusal::Refusal;
use super::router::{self, Endpoint};
use super::rules;
use super::secured;
use super::server::HttpServer;
use crate::clock::now_ns;
use crate::config::{AllowedHosts, Config};
use crate::fault;
use crate::io::descriptor::duplicate;
use crate::stats::Counter;
use crate::usage::Security;

/// Serves a connection.
pub(super) async fn serve(server: Rc<HttpServer>, stream: TcpStream, listener: Listener) {
    fault::point("exchange");
    let config = server.config();
    let Some(mut connection) = admit(&server, stream, listener, &config) else { return };
    // The connection of a trusted proxy counts for the client that its request head names.
    let is_proxied =
        connection.address().is_some_and(|address| forwarded::is_trusted(address.client(), &config.trusted_proxies));
    if !is_proxied && let Err(refusal) = count_address(&server, &mut connection, &config) {
        // Its reason would cost a handshake.
        if listener == Listener::Plain {
            refuse(&server, &mut connection, &refusal, false).await;
        }
        return;
    }
    if listener == Listener::Tls && !secured::secure(&server, &mut connection, &config).await {
        return;
    }
    let timeout = Duration::from_millis(config.upgrade_timeout_ms.into());
    let mut request = match connection.read_head(config.head_bytes_max, timeout).await {
        Ok(Some(request)) => request,
        Ok(None) => return,
        Err(refusal) => {
            match refusal.status {
                408 => server.count(Counter::HeadTimeouts),
                414 | 431 => server.count(Counter::HeadsTooLarge),
                _ => {}
            }
            return refuse(&server, &mut connection, &refusal, false).await;
        }
    };
    let own_scheme = connection.is_secured().then_some(ClientScheme::Https);
    if let Some(scheme) = forwarded::scheme(request.headers()).filter(|_| is_proxied).or(own_scheme) {
        request.extensions_mut().insert(scheme);
    }
    let counted = if is_proxied { count_forwarded(&server, &mut connection, &request, &config) } else { Ok(()) };
    if counted.is_ok() {
        connection.pending().set_serving();
    }
    if let Err(refusal) = respond(&server, &mut connection, &request, counted, is_proxied).await {
        refuse(&server, &mut connection, &refusal, request.method() == Method::HEAD).await;
    }
}

/// Adds the connection to the pending ones; `None` if it was refused.
fn admit(server: &HttpServer, stream: TcpStream, listener: Listener, config: &Config) -> Option<Connection> {
    // A peer that has already closed has no address.
    let peer = stream.peer_addr().ok();
    match server.admission.enter(peer.map(|peer| peer.ip()), config) {
        Ok(entered) => {
            if entered.evicted {
                server.count(Counter::PendingEvicted);
            }
            let timeouts = WriteTimeouts {
                piece: Duration::from_millis(config.write_timeout_ms.into()),
                whole: Duration::from_millis(config.answer_timeout_ms.into()),
            };
            Some(Connection::new(stream, peer, entered.connection, timeouts))
        }
        Err(rejection) => {
            let refusal = server.reject(rejection);
            if listener == Listener::Plain {
                write_and_close(&stream, &refusal.response());
            }
            None
        }
    }
}

/// Counts the connection for its client's address.
fn count_address(server: &HttpServer, connection: &mut Connection, config: &Config) -> Result<(), Refusal> {
    // A peer that has already closed has no address and sends no request.
    let Some(address) = connection.address() else { return Ok(()) };
    let counted = server.admission.count_address(address.client(), config, now_ns());
    connection.set_address_guard(counted.map_err(|rejection| server.reject(rejection))?);
    Ok(())
}

/// Counts the connection of a trusted proxy for the proxy's client.
fn count_forwarded(
    server: &HttpServer,
    connection: &mut Connection,
    request: &Request<()>,
    config: &Config,
) -> Result<(), Refusal> {
    let Some(proxy) = connection.address() else { return Ok(()) };
    let forwarded = forwarded::client(proxy.client(), request.headers(), &config.trusted_proxies);
    server.count(match forwarded {
        Forwarded::Client(_) => Counter::Forwarded,
        Forwarded::LastKnown(_) => Counter::ForwardedUnread,
    });
    connection.set_forwarded(forwarded.address());
    let evicted = server.admission.set_client(connection.pending(), forwarded.address(), config);
    if evicted.map_err(|rejection| server.reject(rejection))? {
        server.count(Counter::PendingEvicted);
    }
    count_address(server, connection, config)
}

/// Serves the request. A refusal carries what a page of another origin may read of it.
async fn respond(
    server: &HttpServer,
    connection: &mut Connection,
    request: &Request<()>,
    counted: Result<(), Refusal>,
    is_proxied: bool,
) -> Result<(), Refusal> {
    let config = server.config();
    let access = router::cross_origin(request.uri().path());
    rules::check(request).map_err(|refusal| origin::share_refusal(access, request, &config, refusal))?;
    // A trusted proxy chooses its names itself, unless there is a list.
    let is_of_proxy = is_proxied && config.allow_host == AllowedHosts::ByListener;
    if !is_of_proxy && let Some(refusal) = origin::host_refusal(request, listener_of(connection, &config), &config) {
        server.count(Counter::RefusedHost);
        return Err(refusal);
    }
    let outcome = match (origin::stream_refusal(access, request, &config), counted) {
        (Some(refusal), _) => {
            server.count(Counter::RefusedOrigin);
            log_refused_origin(server, request, &config);
            Err(refusal)
        }
        (None, Err(refusal)) => match router::find(request.uri().path()) {
            Some(Endpoint::Sse) => sse::refuse(server, connection, request, refusal).await,
            _ => Err(refusal),
        },
        (None, Ok(())) => router::route(server, connection, request).await,
    };
    outcome.map_err(|refusal| origin::share_refusal(access, request, &config, refusal))
}

/// Names the origin in the log, if it is due: the page cannot see why it was refused.
fn log_refused_origin(server: &HttpServer, request: &Request<()>, config: &Config) {
    // An image of another site's page has no origin, and is no stream that somebody misses.
    let Some(given) = request.headers().get(header::ORIGIN) else { return };
    let host = rules::authority(request);
    let line = server.shared.refused_origins.line(given.as_bytes(), host, &config.allow_origin, now_ns());
    if let Some(line) = line {
        tracing::warn!("{line}");
    }
}

/// The address of the listener that has accepted this connection.
fn listener_of(connection: &Connection, config: &Config) -> IpAddr {
    config.tls_listen.filter(|_| connection.is_secured()).unwrap_or(config.listen).ip()
}

async fn refuse(server: &HttpServer, connection: &mut Connection, refusal: &Refusal, headers_only: bool) {
    if let Some(address) = connection.address() {
        tracing::debug!("shard {}: {address}: request refused: {refusal}", server.index());
        if refusal.status == 403 {
            let (cause, detail, address) = (refusal.code, refusal.message.clone(), Some(address.client()));
            let security = Security { event: "request_refused", cause, detail, address, ..Security::default() };
            server.state().access.usage().security(security);
        }
    }
    let written = connection.refuse(refusal, headers_only).await;
    server.count_write(&written);
}

/// Writes what the socket takes at once, and closes it. Input is read first: closing with unread input would send a reset,
/// which could overtake the response.
fn write_and_close(stream: &TcpStream, response: &[u8]) {
    let Ok(socket) = duplicate(stream) else { return };
    let socket = std::net::TcpStream::from(socket);
    // Failures do not matter: the connection is closed either way.
    let _ = socket.set_nonblocking(true);
    let _ = (&socket).read(&mut [0; 1024]);
    let _ = (&socket).write(response);
    let _ = socket.shutdown(std::net::Shutdown::Write);
}
