//! `/v1/echo`: gives every message back, through the codec that serves subscribers, compressed where the client has
//! offered it. For conformance suites.

use super::Door;
use super::conversation::{Conversation, Message};
use super::stream::Peer;
use crate::ws::frame::Opcode;
use crate::ws::handshake::{Refusal, Spoken};

pub(super) async fn serve(door: &Door, peer: &mut Option<Peer>, request: &http::Request<()>) -> Result<(), Refusal> {
    let spoken = Spoken { protocols: &[], deflate: true };
    let Some(mut conversation) = Conversation::open(door, peer, request, &spoken).await? else { return Ok(()) };
    while let Some(message) = conversation.next().await {
        let sent = match message {
            Message::Text(text) => conversation.send(Opcode::Text, &text).await,
            Message::Binary(bytes) => conversation.send(Opcode::Binary, &bytes).await,
        };
        if sent.is_err() {
            break;
        }
    }
    Ok(())
}
