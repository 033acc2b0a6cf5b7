//! `/v1/publish`: publishers over WebSocket. After the token and the upgrade are checked, the connection gets a thread of
//! its own, see [`crate::ingest::Publisher`]: on a shard's executor it would be read between two flushes only, and the
//! later, the busier the fan-out.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::affinity::pin_current_thread;
use crate::auth::Purpose;
use crate::clock::now_ns;
use crate::config::Config;
use crate::fault;
use crate::http::connection::Connection;
use crate::http::credential::check_failures;
use crate::http::handshake::{Supported, Upgrade, accept_upgrade};
use crate::http::refusal::{RETRY_AFTER, Refusal};
use crate::http::request::{bearer_token, quote};
use crate::http::server::HttpServer;
use crate::ingest::{Credential, EnterError, Entered, Publisher, PublisherStream};
use crate::io::descriptor::duplicate;
use crate::sequencer::SourceId;
use crate::state::ServerState;
use crate::tls::ClientCertificate;
use tickcast_protocol::packet;

pub(crate) async fn serve(
    server: &HttpServer,
    connection: &mut Connection,
    request: &http::Request<()>,
) -> Result<(), Refusal> {
    let (state, config) = (server.state(), server.config());
    let certificate = connection.client_certificate();
    let client = connection.address().map(|address| address.client());
    let credential = authorize(state, client, certificate.as_ref(), request)?;
    let upgrade = server.upgrade(connection, request, &supported(state)).await?;
    let opened = enter(state, &config, upgrade, credential, connection.socket().peer_addr().ok())?;
    let source = opened.entered.source;
    match start(server, connection, opened).await {
        Ok(true) => {}
        Ok(false) => state.publishers.leave(source, false),
        Err(error) => {
            tracing::warn!("publisher {source}: the connection could not be served: {error}");
            state.publishers.leave(source, false);
        }
    }
    Ok(())
}

/// A publisher whose handshake is accepted and that is counted.
pub(crate) struct OpenedPublisher {
    upgrade: Upgrade,
    credential: Credential,
    entered: Entered,
}

/// Accepts the handshake of a publisher of the admin listener.
pub(crate) fn open_blocking(
    state: &ServerState,
    config: &Config,
    request: &http::Request<()>,
    peer: Option<SocketAddr>,
) -> Result<OpenedPublisher, Refusal> {
    let credential = authorize(state, peer.map(|peer| peer.ip().to_canonical()), None, request)?;
    let upgrade = accept_upgrade(request, &supported(state))?;
    if state.lifecycle.is_draining() {
        return Err(Refusal::unavailable("the server is stopping", RETRY_AFTER));
    }
    enter(state, config, upgrade, credential, peer)
}

/// Serves a publisher of the admin listener to its end, on the calling thread.
pub(crate) fn serve_blocking(
    state: &Arc<ServerState>,
    config: &Config,
    opened: OpenedPublisher,
    stream: &mut TcpStream,
    unread: &[u8],
) {
    let source = opened.entered.source;
    let publisher = stream
        .write_all(&opened.upgrade.response)
        .and_then(|()| stream.try_clone())
        .and_then(|stream| publisher_of(state, config, opened, PublisherStream::new(stream, None)));
    match publisher {
        Ok(publisher) => run(state, source, publisher, unread),
        Err(error) => {
            tracing::warn!("publisher {source}: the connection could not be served: {error}");
            state.publishers.leave(source, false);
        }
    }
}

fn supported(state: &ServerState) -> Supported<'static> {
    Supported { protocols: &[packet::SUBPROTOCOL], deflate: state.config.shard.compression.is_some() }
}

fn enter(
    state: &ServerState,
    config: &Config,
    upgrade: Upgrade,
    credential: Credential,
    address: Option<SocketAddr>,
) -> Result<OpenedPublisher, Refusal> {
    let max = config.publishers_max;
    match state.publishers.enter(max, address, credential.clone()) {
        Ok(entered) => Ok(OpenedPublisher { upgrade, credential, entered }),
        Err(EnterError::Full) => {
            Err(Refusal::unavailable(format!("too many publishers: publishers_max is {max}"), RETRY_AFTER))
        }
        Err(EnterError::Withdrawn) => Err(Refusal::unauthorized("publish token: withdrawn")),
    }
}

/// Hands the socket over to a thread that blocks on it. False if the peer has closed meanwhile.
async fn start(server: &HttpServer, connection: &mut Connection, opened: OpenedPublisher) -> io::Result<bool> {
    if connection.write(&opened.upgrade.response).await.is_err() {
        return Ok(false);
    }
    let stream = TcpStream::from(duplicate(connection.socket())?);
    let (unread, address_guard) = (connection.take_unread(), connection.take_address_guard());
    stream.set_nonblocking(false)?;
    let (state, source) = (server.shared.state.clone(), opened.entered.source);
    let stream = PublisherStream::new(stream, connection.take_session());
    let publisher = publisher_of(&state, &server.config(), opened, stream)?;
    std::thread::Builder::new().name(format!("publisher-{source}")).spawn(move || {
        run(&state, source, publisher, &unread);
        drop(address_guard);
    })?;
    Ok(true)
}

fn publisher_of(
    state: &Arc<ServerState>,
    config: &Config,
    opened: OpenedPublisher,
    stream: PublisherStream,
) -> io::Result<Publisher> {
    Publisher::new(
        state.sequencer.clone(),
        state.publishers.clone(),
        config.publisher_settings(),
        opened.credential,
        opened.entered,
        stream,
        opened.upgrade.deflate.is_some(),
    )
}

/// Runs a publisher to its end, on the calling thread.
fn run(state: &ServerState, source: SourceId, publisher: Publisher, unread: &[u8]) {
    let cores = &state.config.other_cores;
    pin_current_thread(cores[source as usize % cores.len()]);
    // A panic ends this publisher only. One inside the sequencer ends the server, see `SequencerHandle`.
    let served = catch_unwind(AssertUnwindSafe(|| {
        fault::point("publisher");
        publisher.run(unread)
    }));
    state.publishers.leave(source, served.unwrap_or(false));
}

/// A token decides, where there is one; else the certificate of the connection.
fn authorize(
    state: &ServerState,
    client: Option<IpAddr>,
    certificate: Option<&ClientCertificate>,
    request: &http::Request<()>,
) -> Result<Credential, Refusal> {
    if !state.publishers.is_enabled() {
        return Err(Refusal::not_found("publishing is off: start the server with --publish-token-file FILE"));
    }
    // A + is itself here: tokens may have it.
    let decoded = |text| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    let mut pairs = request.uri().query().unwrap_or("").split('&').filter_map(|pair| pair.split_once('='));
    let query = pairs.find(|(name, _)| decoded(name) == b"token").map(|(_, token)| decoded(token));
    let Some(given) = bearer_token(request).map(<[u8]>::to_vec).or(query) else {
        if let Some(certificate) = certificate {
            let found = state.publishers.authenticate_certificate(certificate);
            return found.ok_or_else(|| {
                let subject = quote(&certificate.subject);
                Refusal::unauthorized(format!(
                    "client certificate of {subject}: expected a name of certificate_names, or a token"
                ))
            });
        }
        return Err(Refusal::unauthorized(
            "publish token: missing: expected Authorization: Bearer TOKEN, or ?token=TOKEN",
        ));
    };
    check_failures(state, client)?;
    state.publishers.authenticate(&given).ok_or_else(|| {
        state.auth_failures.count(Purpose::Publish, client, now_ns());
        state.access.log_refused("publish", client, "invalid", "");
        Refusal::unauthorized("publish token: wrong value")
    })
}
