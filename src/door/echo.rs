//! `/v1/echo`: gives every message back, through the codec that serves subscribers, compressed where the client has
//! offered it. For conformance suites.

use super::Door;
use super::conversation::{Conversation, Message};
use super::http::unavailable;
use super::stream::Peer;
use crate::stats::Counter;
use crate::ws::frame::Opcode;
use crate::ws::handshake::{Refusal, Spoken};

pub(super) async fn serve(door: &Door, peer: &mut Option<Peer>, request: &http::Request<()>) -> Result<(), Refusal> {
    refuse_crowd(door)?;
    let spoken = Spoken { protocols: &[], deflate: true };
    let Some(mut conversation) = Conversation::open(door, peer, request, &spoken).await? else { return Ok(()) };
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

/// To be asked once more when the upgrade has waited for its turn: others have waited with it.
pub(super) fn refuse_crowd(door: &Door) -> Result<(), Refusal> {
    let config = door.config();
    let max = config.echoes_max;
    if door.own.lobby.talking() < max.div_ceil(config.cores.len() as u32) as usize {
        return Ok(());
    }
    door.count(Counter::RefusedEchoes);
    Err(unavailable(&format!("{max} echoes are connected, which is echoes_max")))
}
