//! `/v1/stream`: subscribers over WebSocket. After the upgrade the connection is a client of the shard.

use http::Request;

use crate::clock::now_ns;
use crate::http::connection::Connection;
use crate::http::handshake::Supported;
use crate::http::refusal::Refusal;
use crate::http::request::quote;
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
    let asked = asked_format(request.uri().query().unwrap_or_default())?;
    let supported = Supported { protocols: protocols(asked), deflate };
    server.check_failures(connection)?;
    let upgrade = server.upgrade(connection, request, &supported).await?;
    // Behind the permit, whose rates so hold for signatures as well.
    let principal = server.identify(connection, request).await?;
    // The answer of an authorizer may have taken its time.
    server.refuse_new()?;
    let format = match upgrade.protocol.as_deref() {
        Some(json::SUBPROTOCOL) => Format::Json,
        Some(_) => Format::Binary,
        None => asked.unwrap_or(Format::Binary),
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

/// The format that the query asks for: tools that cannot name a subprotocol have no other way.
fn asked_format(query: &str) -> Result<Option<Format>, Refusal> {
    let mut formats = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "format");
    let Some((_, format)) = formats.next() else { return Ok(None) };
    let format = match &*format {
        "json" => Format::Json,
        "binary" => Format::Binary,
        other => {
            let message = format!("format: invalid value {}: expected json or binary", quote(other));
            return Err(Refusal::bad_request(message));
        }
    };
    match formats.next() {
        Some(_) => Err(Refusal::bad_request("format: repeated: expected once")),
        None => Ok(Some(format)),
    }
}

/// The subprotocols that may be selected: with a format in the query, that of the format only, so that both agree.
fn protocols(asked: Option<Format>) -> &'static [&'static str] {
    match asked {
        Some(Format::Json) => &[json::SUBPROTOCOL],
        Some(_) => &[packet::SUBPROTOCOL],
        None => &[packet::SUBPROTOCOL, json::SUBPROTOCOL],
    }
}
