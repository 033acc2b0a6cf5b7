//! `/v1/echo`: gives every message back, through the codec that serves subscribers, compressed where the client has
//! offered it. For conformance suites.

use super::echo_session::{Conversation, Message, refuse_crowd};
use crate::http::connection::Peer;
use crate::http::handshake::{Refusal, Spoken};
use crate::http::server::HttpServer;
use tickcast_protocol::ws::Opcode;

pub(crate) async fn serve(
    server: &HttpServer,
    peer: &mut Option<Peer>,
    request: &http::Request<()>,
) -> Result<(), Refusal> {
    refuse_crowd(server)?;
    let spoken = Spoken { protocols: &[], deflate: true };
    let Some(mut conversation) = Conversation::open(server, peer, request, &spoken).await? else { return Ok(()) };
    while let Some(message) = conversation.next().await {
        let sent = match message {
            Message::Text(text) => conversation.send(Opcode::Text, &text).await,
            Message::Binary(bytes) => conversation.send(Opcode::Binary, &bytes).await,
        };
        if !sent {
            break;
        }
    }
    Ok(())
}
