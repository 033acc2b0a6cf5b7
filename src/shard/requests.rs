//! The frames of clients: control frames, and requests, which change what a client is subscribed to.
//!
//! A request is handled between two flushes; its answer and what it begins with go out in the catch-up phase of the
//! same tick. Requests that follow one whose snapshot is not complete wait, in order.
//!
//! A frame is first read into a [`Frame`], which borrows neither the session nor the input, and then handled.

mod subscribe;

use self::subscribe::Wish;
use super::Settings;
use super::client_context::ClientContext;
use super::connections::{Client, CloseState};
use crate::io::{Io, SlotId};
use crate::stats::Counter;
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

/// Reads the next frame of `input`; `None` if it has no whole one any more.
fn read_frame(
    client: &mut Client,
    inflater: &mut Inflater,
    input: &mut [u8],
    consumed: &mut usize,
    settings: &Settings,
    now_ns: u64,
) -> Option<Frame> {
    let limits = SessionLimits { message_bytes_max: settings.request_bytes_max };
    let is_open = client.is_open();
    let event = match client.session.next_inflating(&limits, inflater, input, consumed) {
        Ok(event) => event?,
        Err(violation) => return Some(Frame::Violation(violation)),
    };
    let mut is_in_rate = || client.request_bucket.take(settings.requests_per_s, now_ns);
    Some(match event {
        //= RFC 6455 section 5.5.1
        //# "When sending a Close frame in response, the endpoint typically echos the status code it received."
        SessionEvent::Close(frame) => Frame::Close(frame.map_or(CloseCode::NORMAL, |frame| frame.code)),
        SessionEvent::Pong(_) if is_open => Frame::Ignored,
        // Frames that are ignored are work, too.
        _ if !is_in_rate() => Frame::TooMany,
        _ if !is_open => Frame::Ignored,
        SessionEvent::Text(text) => Frame::Request(parse_request(text, &request_limits(settings))),
        SessionEvent::Ping(payload) => Frame::Ping(payload.to_vec()),
        SessionEvent::Binary(_) => Frame::Binary,
        SessionEvent::Pong(_) => Frame::Ignored,
    })
}

fn request_limits(settings: &Settings) -> RequestLimits {
    RequestLimits { symbols_max: settings.subscriptions_max, symbol_bytes_max: settings.symbol_bytes_max }
}

impl<I: Io> ClientContext<'_, I> {
    /// Handles the frames in `input`, one after another, until the client has to wait or is closed.
    pub(super) fn handle_input(&mut self, slot_id: SlotId, input: &mut [u8], inflater: &mut Inflater) {
        let mut at = 0;
        loop {
            let Some(client) = self.connections.get_mut(slot_id) else { return };
            let backlog = self.backlog.get_mut(slot_id).filter(|backlog| backlog.defers_requests(self.now));
            if let Some(backlog) = backlog.filter(|_| client.is_open() && at < input.len()) {
                backlog.deferred_input.extend_from_slice(&input[at..]);
                return;
            }
            let mut consumed = 0;
            let frame = read_frame(client, inflater, &mut input[at..], &mut consumed, self.settings, self.now.ns);
            at += consumed;
            if !frame.is_some_and(|frame| self.handle_frame(slot_id, frame)) {
                return;
            }
        }
    }

    /// True if the next frame may be handled.
    fn handle_frame(&mut self, slot_id: SlotId, frame: Frame) -> bool {
        match frame {
            Frame::Ignored => {}
            Frame::Request(request) => {
                self.counters.add(Counter::Requests, 1);
                if let Err(error) = request.and_then(|request| self.handle_request(slot_id, request)) {
                    self.answer_error(slot_id, &error);
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

    pub(super) fn handle_request(&mut self, slot_id: SlotId, request: Request) -> Result<(), RequestError> {
        match request {
            Request::Ping { id } => {
                let ts = self.now.wall_ns();
                self.answer(slot_id, |out| reply::pong(out, id, ts));
                Ok(())
            }
            Request::Subscribe { id, channels, symbols, conflate, snapshot } => {
                self.subscribe(slot_id, Wish { id, channels, symbols: &symbols, interval: conflate }, snapshot)
            }
            Request::Resume { id, token, channels, symbols, conflate } => {
                self.resume(slot_id, Wish { id, channels, symbols: &symbols, interval: conflate }, token)
            }
            Request::Unsubscribe { id, channels, symbols } => {
                self.unsubscribe(slot_id, id, channels, &symbols);
                Ok(())
            }
        }
    }

    pub(super) fn answer_error(&mut self, slot_id: SlotId, error: &RequestError) {
        self.counters.add(Counter::RequestErrors, 1);
        self.answer(slot_id, |out| reply::error(out, error.id, error.code, &error.message));
    }
}
