//! `/v1/publish`: who brings market data in over WebSocket. The upgrade and the token are looked at here; then the
//! connection gets a thread of its own, see [`crate::ingest::Publisher`]: one that shares a core's executor would be read only
//! between two sweeps, and the busier the fan-out, the later.

use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

use constant_time_eq::constant_time_eq;

use crate::http::connection::Peer;
use crate::http::handshake::{Accepted, Refusal, Spoken};
use crate::http::response::{bearer, not_found, unauthorized, unavailable};
use crate::http::server::HttpServer;
use crate::ingest::Publisher;
use crate::io::uring::duplicate;
use crate::sequencer::SourceId;
use tickcast_protocol::packet;

pub(crate) async fn serve(
    server: &HttpServer,
    peer: &mut Option<Peer>,
    request: &http::Request<()>,
) -> Result<(), Refusal> {
    authorize(server, request)?;
    let Some(waiting) = peer.as_ref() else { return Ok(()) };
    let deflate = server.state.config.shard.compression.is_some();
    let spoken = Spoken { protocols: &[packet::SUBPROTOCOL], deflate };
    let accepted = server.upgrade(waiting, request, &spoken).await?;
    let from = waiting.socket().peer_addr().ok();
    let max = server.config().publishers_max;
    let Some(source) = server.state.publishers.enter(max, from) else {
        return Err(unavailable(&format!("{max} publishers are connected, which is publishers_max")));
    };
    let entered = match peer.take() {
        Some(peer) => start(server, peer, &accepted, source).await,
        None => Ok(false),
    };
    match entered {
        Ok(true) => {}
        Ok(false) => server.state.publishers.leave(source, false),
        Err(error) => {
            tracing::warn!("a publisher could not be served: {error}");
            server.state.publishers.leave(source, false);
        }
    }
    Ok(())
}

/// Hands the connection over to a thread that blocks on it. False if the peer has gone meanwhile.
async fn start(server: &HttpServer, mut peer: Peer, accepted: &Accepted, source: SourceId) -> std::io::Result<bool> {
    if peer.write(&accepted.response).await.is_err() {
        return Ok(false);
    }
    let stream = TcpStream::from(duplicate(peer.socket())?);
    let (unread, place) = (peer.take_unread(), peer.take_place());
    drop(peer);
    stream.set_nonblocking(false)?;
    let public = server.state.clone();
    let settings = server.config().publisher_settings();
    let publisher = Publisher::new(
        public.sequencer.clone(),
        public.publishers.clone(),
        settings,
        source,
        stream,
        accepted.deflate.is_some(),
    )?;
    let cores = &public.config.other_cores;
    let core = cores[source as usize % cores.len()];
    std::thread::Builder::new().name(format!("publisher-{source}")).spawn(move || {
        crate::ingest::supervisor::pin(core);
        // A panic is this publisher's alone, unless it is the sequencer's, which the desk sees.
        let served = catch_unwind(AssertUnwindSafe(|| publisher.run(&unread)));
        drop(place);
        public.publishers.leave(source, served.unwrap_or(false));
    })?;
    Ok(true)
}

fn authorize(server: &HttpServer, request: &http::Request<()>) -> Result<(), Refusal> {
    let config = server.config();
    let Some(token) = &config.publish_token else {
        let message = "publishing is off; start the server with --publish-token TOKEN".to_owned();
        return Err(not_found(message));
    };
    let query = request.uri().query().unwrap_or("").split('&').find_map(|pair| pair.strip_prefix("token="));
    let query = query.map(|text| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>());
    let given = bearer(request).map(<[u8]>::to_vec).or(query);
    match given {
        None => Err(unauthorized("a token is wanted: Authorization: Bearer TOKEN, or ?token=TOKEN")),
        Some(given) if constant_time_eq(&given, token.as_bytes()) => Ok(()),
        Some(_) => Err(unauthorized("this is not the publish token")),
    }
}
