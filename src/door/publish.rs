//! `/v1/publish`: who brings market data in over WebSocket. Text frames define instruments, binary packets carry records.
//!
//! A publisher may outrun the server: then its socket is not read until the rings have room, and TCP slows it down. A
//! packet that breaks the layout ends the connection with 1008 and says where; the records before the break are kept.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use constant_time_eq::constant_time_eq;
use crossbeam::channel::TrySendError;
use futures_channel::oneshot;

use super::Door;
use super::conversation::{Conversation, Message};
use super::http::{not_found, unauthorized};
use super::stream::Peer;
use crate::intake::{BATCH_BYTES_MAX, Input, Pace};
use crate::market::Instrument;
use crate::market::record::{self, Malformed};
use crate::sequencer::SourceId;
use crate::wire::control::{Define, RequestError, parse_define, reply};
use crate::wire::packet::{self, PacketError, PacketHeader};
use crate::ws::close::CloseCode;
use crate::ws::frame::Opcode;
use crate::ws::handshake::Refusal;

/// How soon a publisher that has to wait looks again.
const WAIT: Duration = Duration::from_micros(500);

/// Gives every publisher a source id of its own.
#[derive(Debug)]
pub struct Publishers(AtomicU32);

impl Publishers {
    /// Ids from `first` on; those below are the feeds'.
    pub fn after(first: SourceId) -> Self {
        Self(AtomicU32::new(first))
    }

    fn next(&self) -> SourceId {
        // Relaxed: only the ids' being different matters.
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Why a packet was not taken to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Break {
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error("record {record} at byte {at}: {why}")]
    Record { record: usize, at: usize, why: Malformed },
    #[error("record {record} at byte {at}: instrument {instrument} was not defined on this connection")]
    Undefined { record: usize, at: usize, instrument: u32 },
    #[error("the header counts {count} records, and {bytes} bytes are left after them")]
    Left { count: usize, bytes: usize },
}

pub(super) async fn serve(door: &Door, peer: &mut Option<Peer>, request: &http::Request<()>) -> Result<(), Refusal> {
    authorize(door, request)?;
    let Some(conversation) = Conversation::open(door, peer, request, &[packet::SUBPROTOCOL]).await? else {
        return Ok(());
    };
    let source = door.public.publishers.next();
    let publisher = Publisher {
        door: door.clone(),
        source,
        pace: Pace::new(door.public.gauges.clone()),
        instruments: HashMap::new(),
        taken: Vec::new(),
        conversation,
    };
    publisher.run().await;
    // Waits for its turn in the queue, behind the publisher's last records.
    send(door, Input::SourceClosed(source)).await;
    Ok(())
}

fn authorize(door: &Door, request: &http::Request<()>) -> Result<(), Refusal> {
    let Some(token) = &door.public.config.publish_token else {
        let message = "publishing is off; start the server with --publish-token TOKEN".to_owned();
        return Err(not_found(message));
    };
    let header = request.headers().get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer =
        header.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let query = request.uri().query().unwrap_or("").split('&').find_map(|pair| pair.strip_prefix("token="));
    let query = query.map(|text| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>());
    let given = bearer.map(|(_, token)| token.trim().as_bytes().to_vec()).or(query);
    match given {
        None => Err(unauthorized("a token is wanted: Authorization: Bearer TOKEN, or ?token=TOKEN")),
        Some(given) if constant_time_eq(&given, token.as_bytes()) => Ok(()),
        Some(_) => Err(unauthorized("this is not the publish token")),
    }
}

/// One publisher's connection.
struct Publisher {
    door: Door,
    source: SourceId,
    pace: Pace,
    /// Symbols to this connection's instrument ids, which are dense from 1.
    instruments: HashMap<String, u32>,
    /// By id, whether the sequencer has taken the definition: one that it refused has an id, and may have no records.
    taken: Vec<bool>,
    conversation: Conversation,
}

impl Publisher {
    async fn run(mut self) {
        while let Some(message) = self.conversation.next().await {
            match message {
                Message::Text(mut text) => {
                    if self.define(&mut text).await.is_err() {
                        return;
                    }
                }
                Message::Binary(bytes) => {
                    if let Err(why) = self.take_packet(&bytes).await {
                        return self.conversation.close(CloseCode::POLICY, &why.to_string()).await;
                    }
                }
            }
        }
    }

    async fn define(&mut self, text: &mut [u8]) -> std::io::Result<()> {
        let mut answer = Vec::new();
        match parse_define(text) {
            Ok(define) => match self.define_all(&define).await {
                Ok(ids) => {
                    let named = define.instruments.iter().map(|instrument| instrument.symbol.as_str());
                    let defined: Vec<(&str, u32)> = named.zip(ids).collect();
                    reply::defined(&mut answer, define.id, &defined);
                }
                Err(error) => reply::error(&mut answer, error.id, error.code, &error.message),
            },
            Err(error) => reply::error(&mut answer, error.id, error.code, &error.message),
        }
        self.conversation.send(Opcode::Text, &answer).await
    }

    /// This connection's ids for the instruments, in their order. Those before one that is refused are defined.
    async fn define_all(&mut self, define: &Define) -> Result<Vec<u32>, RequestError> {
        let mut ids = Vec::with_capacity(define.instruments.len());
        let mut bytes = Vec::new();
        for wanted in &define.instruments {
            let next = self.instruments.len() as u32 + 1;
            let id = *self.instruments.entry(wanted.symbol.clone()).or_insert(next);
            let mut instrument = Instrument::new(id, &wanted.symbol, &wanted.venue, wanted.px_exp, wanted.sz_exp);
            instrument.tick_size = wanted.tick_size.unwrap_or(instrument.tick_size);
            instrument.lot_size = wanted.lot_size.unwrap_or(instrument.lot_size);
            record::encode_definition(&instrument, &mut bytes);
            ids.push(id);
        }
        let (reply, outcomes) = oneshot::channel();
        let mut batch = self.pace.batch(self.source, bytes);
        batch.reply = Some(reply);
        send(&self.door, Input::Batch(batch)).await;
        let outcomes = outcomes.await.unwrap_or_default();
        self.taken.resize(self.instruments.len() + 1, false);
        for (id, _) in ids.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok()) {
            self.taken[*id as usize] = true;
        }
        let refused = outcomes.into_iter().enumerate().find_map(|(nth, outcome)| Some((nth, outcome.err()?)));
        match refused {
            None => Ok(ids),
            Some((nth, error)) => {
                let message = format!("instruments[{nth}]: {error}");
                Err(RequestError { id: Some(define.id), code: "bad_request", message })
            }
        }
    }

    /// Hands the records of a packet over, up to the first that breaks the layout.
    async fn take_packet(&mut self, bytes: &[u8]) -> Result<(), Break> {
        let header = PacketHeader::read(bytes)?;
        let mut at = packet::HEADER_BYTES;
        let mut batch_start = at;
        let mut outcome = Ok(());
        for record in 0..usize::from(header.count) {
            match self.check(bytes, record, at) {
                Ok(length) => at += length,
                Err(why) => {
                    outcome = Err(why);
                    break;
                }
            }
            if at - batch_start >= BATCH_BYTES_MAX {
                self.hand_over(&bytes[batch_start..at]).await;
                batch_start = at;
            }
        }
        self.hand_over(&bytes[batch_start..at]).await;
        let left = bytes.len() - at;
        outcome?;
        if left > 0 { Err(Break::Left { count: header.count.into(), bytes: left }) } else { Ok(()) }
    }

    fn check(&self, bytes: &[u8], record: usize, at: usize) -> Result<usize, Break> {
        let header = record::check(&bytes[at..]).map_err(|why| Break::Record { record, at, why })?;
        let instrument = header.instrument;
        if !self.taken.get(instrument as usize).is_some_and(|taken| *taken) {
            return Err(Break::Undefined { record, at, instrument });
        }
        Ok(header.bytes())
    }

    async fn hand_over(&mut self, records: &[u8]) {
        if records.is_empty() {
            return;
        }
        while !self.pace.has_room() {
            glommio::timer::sleep(WAIT).await;
        }
        let batch = self.pace.batch(self.source, records.to_vec());
        send(&self.door, Input::Batch(batch)).await;
    }
}

/// Puts an input into the queue, however long that takes: the socket is not read meanwhile.
async fn send(door: &Door, mut input: Input) {
    loop {
        match door.public.inputs.try_send(input) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => return,
            Err(TrySendError::Full(back)) => {
                input = back;
                glommio::timer::sleep(WAIT).await;
            }
        }
    }
}
