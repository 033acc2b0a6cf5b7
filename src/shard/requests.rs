//! The frames of clients: control frames, and requests, which change what a client is subscribed to.
//!
//! A request is handled between two flushes; its answer and what it begins with go out in the catch-up phase of the
//! same tick. A long one is carried out in portions. Requests that follow one that is not done, or whose snapshot is not
//! complete, wait, in order. So do those of a client that has spent its allowance of work.
//!
//! A frame is first read into a [`Frame`], which borrows neither the session nor the input, and then handled.

mod auth;
mod subscribe;

use std::sync::Arc;

use super::Settings;
use super::accounts::cost;
use super::client_context::ClientContext;
use super::connections::{Client, CloseState};
use super::operations::{Kind, Operation, Stage};
use super::resolve::{Resolving, Wants};
use super::select::Selecting;
use crate::identity::Principal;
use crate::io::{Io, SlotId};
use crate::stats::Counter;
use tickcast_protocol::ConflationInterval;
use tickcast_protocol::control::{Request, RequestError, RequestLimits, parse_request, reply};
use tickcast_protocol::ws::deflate::Inflater;
use tickcast_protocol::ws::{CloseCode, Opcode, SessionEvent, SessionLimits, Violation};

/// What one frame of a client asks for.
enum Frame {
    /// Nothing: a pong, or any frame but a close frame when the connection is closing.
    Ignored,
    Request(Result<Request, RequestError>),
    Ping(Vec<u8>),
    Binary,
    Close(CloseCode),
    /// More requests than the client may send.
    TooMany,
    Violation(Violation),
}

/// Units of a tick that a request takes, besides its symbols and items.
const REQUEST_UNITS: usize = 16;

/// Reads the next frame of `input`; `None` if it has no whole one any more. Adds its work to `units`.
fn read_frame(
    client: &mut Client,
    inflater: &mut Inflater,
    input: &mut [u8],
    consumed: &mut usize,
    settings: &Settings,
    now_ns: u64,
    units: &mut u64,
) -> Option<Frame> {
    let limits = SessionLimits { message_bytes_max: settings.request_bytes_max };
    let (is_open, inflated_before) = (client.is_open(), inflater.inflated_bytes());
    let read = client.session.next_inflating(&limits, inflater, input, consumed);
    let text_bytes = match &read {
        Ok(Some(SessionEvent::Text(text))) => text.len() as u64,
        _ => 0,
    };
    let frame = match read {
        Ok(event) => event.map(|event| {
            let mut is_in_rate = || client.request_bucket.take(settings.requests_per_s, now_ns);
            let expects_pong = &mut client.expects_pong;
            to_frame(event, is_open, expects_pong, &mut is_in_rate, settings)
        }),
        Err(violation) => Some(Frame::Violation(violation)),
    };
    *units += u64::from(client.session.take_frames()) * cost::FRAME;
    *units += text_bytes / cost::TEXT_BYTES + if text_bytes > 0 { cost::REQUEST } else { 0 };
    *units += (inflater.inflated_bytes() - inflated_before) / cost::INFLATED_BYTES;
    frame
}

fn to_frame(
    event: SessionEvent<'_>,
    is_open: bool,
    expects_pong: &mut bool,
    is_in_rate: &mut impl FnMut() -> bool,
    settings: &Settings,
) -> Frame {
    match event {
        //= RFC 6455 section 5.5.1
        //# "When sending a Close frame in response, the endpoint typically echos the status code it received."
        SessionEvent::Close(frame) => Frame::Close(frame.map_or(CloseCode::NORMAL, |frame| frame.code)),
        // The answer to a ping of this server; others are frames like any.
        SessionEvent::Pong(_) if is_open && std::mem::take(expects_pong) => Frame::Ignored,
        // Frames that are ignored are work, too.
        _ if !is_in_rate() => Frame::TooMany,
        _ if !is_open => Frame::Ignored,
        SessionEvent::Text(text) => Frame::Request(parse_request(text, &request_limits(settings))),
        SessionEvent::Ping(payload) => Frame::Ping(payload.to_vec()),
        SessionEvent::Binary(_) => Frame::Binary,
        SessionEvent::Pong(_) => Frame::Ignored,
    }
}

fn request_limits(settings: &Settings) -> RequestLimits {
    RequestLimits { symbols_max: settings.subscriptions_max, symbol_bytes_max: settings.symbol_bytes_max }
}

impl<I: Io> ClientContext<'_, I> {
    /// Handles the frames in `input`, one after another, until the client has to wait or is closed.
    pub(super) fn handle_input(&mut self, slot_id: SlotId, input: &mut [u8], inflater: &mut Inflater) {
        let (mut at, mut has_event) = (0, false);
        loop {
            if at < input.len() && self.defer_input(slot_id, &input[at..]) {
                break;
            }
            let Some(client) = self.connections.get_mut(slot_id) else { return };
            let (mut consumed, mut units) = (0, 0);
            let rest = &mut input[at..];
            let frame = read_frame(client, inflater, rest, &mut consumed, self.settings, self.now.ns, &mut units);
            at += consumed;
            has_event |= frame.is_some();
            self.spend(slot_id, units);
            self.operations.units = self.operations.units.saturating_sub(units as usize / 2);
            if !frame.is_some_and(|frame| self.handle_frame(slot_id, frame)) {
                break;
            }
        }
        self.note_unfinished(slot_id, has_event);
    }

    /// Notes whether a message, or a record of TLS, is incomplete now, and what is held of it. `has_event`: others were
    /// completed meanwhile.
    pub(super) fn note_unfinished(&mut self, slot_id: SlotId, has_event: bool) {
        let Some(client) = self.connections.get_mut(slot_id) else { return };
        client.message_since_ns = match client.session.held_bytes() + self.outbox.io.held_input(slot_id) {
            0 => 0,
            _ if client.message_since_ns == 0 || has_event => self.now.ns.max(1),
            _ => client.message_since_ns,
        };
        self.note_held_input(slot_id);
    }

    /// Keeps the input of an open client whose next request has to wait. False if it need not.
    fn defer_input(&mut self, slot_id: SlotId, input: &[u8]) -> bool {
        if !self.connections.get(slot_id).is_some_and(Client::is_open) {
            return false;
        }
        let backlog = self.backlog.get_mut(slot_id).filter(|backlog| backlog.defers_requests(self.now));
        if self.operations.has(slot_id) {
            self.operations.defer(slot_id, input);
        } else if let Some(backlog) = backlog {
            backlog.deferred_input.extend_from_slice(input);
        } else if let Some(due_ns) = self.work_due_ns(slot_id) {
            self.counters.add(Counter::Throttled, 1);
            self.connections.throttle(slot_id, due_ns, input);
        } else {
            return false;
        }
        true
    }

    /// True if the next frame may be handled.
    fn handle_frame(&mut self, slot_id: SlotId, frame: Frame) -> bool {
        match frame {
            Frame::Ignored => {}
            Frame::Request(request) => {
                self.counters.add(Counter::Requests, 1);
                match request {
                    Ok(request) => self.handle_request(slot_id, request),
                    Err(error) => self.answer_error(slot_id, &error),
                }
            }
            //= RFC 6455 section 5.5.3
            //# "A Pong frame sent in response to a Ping frame must have identical \"Application data\" as found in
            //# the message body of the Ping frame being replied to."
            Frame::Ping(payload) => {
                self.counters.add(Counter::Requests, 1);
                self.push_control_frame(slot_id, Opcode::Pong, &payload);
            }
            Frame::Binary => {
                self.counters.add(Counter::Requests, 1);
                let message = "binary frames are for publishers, at /v1/publish; requests are JSON in text frames";
                self.answer_error(
                    slot_id,
                    &RequestError { id: None, code: "bad_request", message: message.to_owned() },
                );
            }
            Frame::Close(code) => {
                self.handle_close(slot_id, code);
                return false;
            }
            Frame::TooMany => return self.handle_flood(slot_id),
            Frame::Violation(violation) => {
                self.handle_violation(slot_id, &violation);
                return false;
            }
        }
        true
    }

    fn handle_close(&mut self, slot_id: SlotId, code: CloseCode) {
        let Some(client) = self.connections.get_mut(slot_id) else { return };
        match client.close_state {
            CloseState::Open => self.answer_close(slot_id, code),
            // The peer was quicker than our close frame, which is still pending.
            CloseState::Closing { until_ns, .. } => {
                client.close_state = CloseState::Closing { is_answered: true, until_ns };
            }
            CloseState::Lingering { .. } => self.drop_client(slot_id),
        }
    }

    /// The client has sent more than it may. Always false: its next frame is not handled.
    fn handle_flood(&mut self, slot_id: SlotId) -> bool {
        match self.connections.get(slot_id).map(|client| client.close_state) {
            Some(CloseState::Open) => {
                self.counters.add(Counter::Floods, 1);
                let reason = format!("more than {} requests a second", self.settings.requests_per_s);
                self.close(slot_id, CloseCode::POLICY, &reason);
            }
            Some(CloseState::Lingering { .. }) => self.drop_client(slot_id),
            Some(CloseState::Closing { .. }) | None => {}
        }
        false
    }

    fn handle_violation(&mut self, slot_id: SlotId, violation: &Violation) {
        self.counters.add(Counter::Violations, 1);
        if matches!(violation, Violation::InflatesTooBig { .. } | Violation::InflatesTooFar { .. }) {
            self.counters.add(Counter::InflatedTooFar, 1);
        }
        self.close(slot_id, violation.close_code(), &violation.to_string());
    }

    pub(super) fn handle_request(&mut self, slot_id: SlotId, request: Request) {
        if !matches!(request, Request::Auth { .. } | Request::Ping { .. }) && self.refuse_unknown(slot_id, request.id())
        {
            return;
        }
        let principal = self.connections.get(slot_id).and_then(|client| client.principal.clone());
        let resolve = |symbols, channels, interval| {
            let principal = principal.unwrap_or_else(|| Arc::new(Principal::none()));
            Stage::Resolve(Resolving::new(symbols, Wants { principal, channels, interval }))
        };
        let mut operation = match request {
            Request::Auth { id, token } => return self.begin_auth(slot_id, id, token),
            Request::Ping { id } => {
                let ts = self.now.wall_ns();
                return self.answer(slot_id, |out| reply::pong(out, id, ts));
            }
            Request::Subscribe { id, channels, symbols, conflate, snapshot } => {
                let kind = Kind::Subscribe { snapshot };
                Operation { kind, id, channels, interval: conflate, stage: resolve(symbols, channels, conflate) }
            }
            Request::Resume { id, token, channels, symbols, conflate } => {
                let kind = Kind::Resume { token };
                Operation { kind, id, channels, interval: conflate, stage: resolve(symbols, channels, conflate) }
            }
            Request::Unsubscribe { id, channels, symbols } => {
                let stage = Stage::Select(Selecting::new(symbols));
                Operation { kind: Kind::Unsubscribe, id, channels, interval: ConflationInterval::IMMEDIATE, stage }
            }
        };
        self.operations.units = self.operations.units.saturating_sub(REQUEST_UNITS);
        if !self.advance(slot_id, &mut operation) {
            if let Some(client) = self.connections.get_mut(slot_id) {
                client.waits = true;
            }
            self.counters.add(Counter::RequestsCut, 1);
            self.operations.push(slot_id, operation, Vec::new());
        }
    }

    pub(super) fn answer_error(&mut self, slot_id: SlotId, error: &RequestError) {
        self.counters.add(Counter::RequestErrors, 1);
        self.answer(slot_id, |out| reply::error(out, error.id, error.code, &error.message));
    }
}
