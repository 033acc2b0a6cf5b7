//! `/v1/publish`: publishers over WebSocket. After the token and the upgrade are checked, the connection gets a thread of
//! its own, see [`crate::ingest::Publisher`]: on a shard's executor it would be read between two flushes only, and the
//! later, the busier the fan-out.

use std::net::{IpAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::affinity::pin_current_thread;
use crate::auth::Purpose;
use crate::clock::now_ns;
use crate::fault;
use crate::http::connection::Connection;
use crate::http::handshake::{Supported, Upgrade};
use crate::http::refusal::{RETRY_AFTER, Refusal};
use crate::http::request::bearer_token;
use crate::http::server::HttpServer;
use crate::ingest::{Credential, EnterError, Entered, Publisher};
use crate::io::descriptor::duplicate;
use tickcast_protocol::packet;

pub(crate) async fn serve(
    server: &HttpServer,
    connection: &mut Connection,
    request: &http::Request<()>,
) -> Result<(), Refusal> {
    let credential = authorize(server, connection, request)?;
    let deflate = server.state().config.shard.compression.is_some();
    let supported = Supported { protocols: &[packet::SUBPROTOCOL], deflate };
    let upgrade = server.upgrade(connection, request, &supported).await?;
    let address = connection.socket().peer_addr().ok();
    let (publishers, max) = (&server.state().publishers, server.config().publishers_max);
    let entered = match publishers.enter(max, address, credential.clone()) {
        Ok(entered) => entered,
        Err(EnterError::Full) => {
            return Err(Refusal::unavailable(format!("too many publishers: publishers_max is {max}"), RETRY_AFTER));
        }
        Err(EnterError::Withdrawn) => return Err(Refusal::unauthorized("publish token: withdrawn")),
    };
    let source = entered.source;
    match start(server, connection, &upgrade, credential, entered).await {
        Ok(true) => {}
        Ok(false) => publishers.leave(source, false),
        Err(error) => {
            tracing::warn!("publisher {source}: the connection could not be served: {error}");
            publishers.leave(source, false);
        }
    }
    Ok(())
}

/// Hands the socket over to a thread that blocks on it. False if the peer has closed meanwhile.
async fn start(
    server: &HttpServer,
    connection: &mut Connection,
    upgrade: &Upgrade,
    credential: Credential,
    entered: Entered,
) -> std::io::Result<bool> {
    if connection.write(&upgrade.response).await.is_err() {
        return Ok(false);
    }
    let stream = TcpStream::from(duplicate(connection.socket())?);
    let (unread, address_guard) = (connection.take_unread(), connection.take_address_guard());
    stream.set_nonblocking(false)?;
    let state = server.shared.state.clone();
    let settings = server.config().publisher_settings();
    let source = entered.source;
    let publisher = Publisher::new(
        state.sequencer.clone(),
        state.publishers.clone(),
        settings,
        credential,
        entered,
        stream,
        upgrade.deflate.is_some(),
    )?;
    let cores = &state.config.other_cores;
    let core = cores[source as usize % cores.len()];
    std::thread::Builder::new().name(format!("publisher-{source}")).spawn(move || {
        pin_current_thread(core);
        // A panic ends this publisher only. One inside the sequencer ends the server, see `SequencerHandle`.
        let served = catch_unwind(AssertUnwindSafe(|| {
            fault::point("publisher");
            publisher.run(&unread)
        }));
        drop(address_guard);
        state.publishers.leave(source, served.unwrap_or(false));
    })?;
    Ok(true)
}

fn authorize(server: &HttpServer, connection: &Connection, request: &http::Request<()>) -> Result<Credential, Refusal> {
    let state = server.state();
    if !state.publishers.is_enabled() {
        return Err(Refusal::not_found("publishing is off: start the server with --publish-token-file FILE"));
    }
    let query = request.uri().query().unwrap_or("").split('&').find_map(|pair| pair.strip_prefix("token="));
    let query = query.map(|text| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>());
    let Some(given) = bearer_token(request).map(<[u8]>::to_vec).or(query) else {
        return Err(Refusal::unauthorized(
            "publish token: missing: expected Authorization: Bearer TOKEN, or ?token=TOKEN",
        ));
    };
    let address = connection.address().map(|address| address.client());
    check_failures(server, address)?;
    state.publishers.authenticate(&given).ok_or_else(|| {
        state.auth_failures.count(Purpose::Publish, address, now_ns());
        Refusal::unauthorized("publish token: wrong value")
    })
}

/// Refuses an address that has presented too many wrong tokens, whatever it presents now.
pub(super) fn check_failures(server: &HttpServer, address: Option<IpAddr>) -> Result<(), Refusal> {
    let checked = server.state().auth_failures.check(address, now_ns());
    checked.map_err(|wait| Refusal::too_many_requests("too many wrong tokens from this address", wait))
}
