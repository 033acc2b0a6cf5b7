//! `/v1/publish`: publishers over WebSocket. After the token and the upgrade are checked, the connection gets a thread of
//! its own, see [`crate::ingest::Publisher`]: on a shard's executor it would be read between two flushes only, and the
//! later, the busier the fan-out.

use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

use constant_time_eq::constant_time_eq;

use crate::affinity::pin_current_thread;
use crate::fault;
use crate::http::connection::Connection;
use crate::http::handshake::{Supported, Upgrade};
use crate::http::refusal::{RETRY_AFTER, Refusal};
use crate::http::request::bearer_token;
use crate::http::server::HttpServer;
use crate::ingest::Publisher;
use crate::io::uring::duplicate;
use crate::sequencer::SourceId;
use tickcast_protocol::packet;

pub(crate) async fn serve(
    server: &HttpServer,
    connection: &mut Connection,
    request: &http::Request<()>,
) -> Result<(), Refusal> {
    authorize(server, request)?;
    let deflate = server.state().config.shard.compression.is_some();
    let supported = Supported { protocols: &[packet::SUBPROTOCOL], deflate };
    let upgrade = server.upgrade(connection, request, &supported).await?;
    let address = connection.socket().peer_addr().ok();
    let (publishers, max) = (&server.state().publishers, server.config().publishers_max);
    let Some(source) = publishers.enter(max, address) else {
        return Err(Refusal::unavailable(format!("too many publishers: publishers_max is {max}"), RETRY_AFTER));
    };
    match start(server, connection, &upgrade, source).await {
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
    source: SourceId,
) -> std::io::Result<bool> {
    if connection.write(&upgrade.response).await.is_err() {
        return Ok(false);
    }
    let stream = TcpStream::from(duplicate(connection.socket())?);
    let (unread, address_guard) = (connection.take_unread(), connection.take_address_guard());
    stream.set_nonblocking(false)?;
    let state = server.shared.state.clone();
    let settings = server.config().publisher_settings();
    let publisher = Publisher::new(
        state.sequencer.clone(),
        state.publishers.clone(),
        settings,
        source,
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

fn authorize(server: &HttpServer, request: &http::Request<()>) -> Result<(), Refusal> {
    let config = server.config();
    let Some(token) = &config.publish_token else {
        return Err(Refusal::not_found("publishing is off: start the server with --publish-token TOKEN"));
    };
    let query = request.uri().query().unwrap_or("").split('&').find_map(|pair| pair.strip_prefix("token="));
    let query = query.map(|text| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>());
    let given = bearer_token(request).map(<[u8]>::to_vec).or(query);
    match given {
        None => {
            Err(Refusal::unauthorized("publish token: missing: expected Authorization: Bearer TOKEN, or ?token=TOKEN"))
        }
        Some(given) if constant_time_eq(&given, token.as_bytes()) => Ok(()),
        Some(_) => Err(Refusal::unauthorized("publish token: wrong value")),
    }
}
