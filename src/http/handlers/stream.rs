//! `/v1/stream`: subscribers over WebSocket. After the upgrade the connection is a client of the shard.

use http::Request;

use crate::clock::now_ns;
use crate::http::connection::Connection;
use crate::http::handshake::Supported;
use crate::http::refusal::Refusal;
use crate::http::server::HttpServer;
use crate::http::sessions::Caller;
use crate::shard::{Encoding, Format, Opening};
use tickcast_protocol::{json, packet};

pub(crate) async fn serve(
    server: &HttpServer,
    connection: &mut Connection,
    request: &Request<()>,
) -> Result<(), Refusal> {
    let deflate = server.state().config.shard.compression.is_some();
    let supported = Supported { protocols: &[packet::SUBPROTOCOL, json::SUBPROTOCOL], deflate };
    server.check_failures(connection)?;
    let upgrade = server.upgrade(connection, request, &supported).await?;
    // Behind the permit, whose rates so hold for signatures as well.
    let principal = server.identify(connection, request)?;
    let format = match upgrade.protocol.as_deref() {
        Some(json::SUBPROTOCOL) => Format::Json,
        _ => Format::Binary,
    };
    let encoding = Encoding { format, deflate: upgrade.deflate.map(|agreed| agreed.window()) };
    server.check_still(principal.as_deref())?;
    let caller = Caller { principal: principal.clone(), transport: "websocket" };
    server.hand_over(connection, &caller, |shard, slot_id, unread| {
        // The shard sends the response and its welcome message in one send.
        let opening = Opening { encoding, principal, upgrade: &upgrade.response, input: unread };
        shard.open_with(slot_id, opening, now_ns());
    })
}
