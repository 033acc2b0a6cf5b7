//! Phase 3: what the kernel has completed, and what clients have sent.
//!
//! Completions are collected into a list first, since handling them may ask the kernel for more. Input that was
//! deferred comes before new input of the same client. Input is handled until the work of the tick is spent; the rest
//! waits for the next one, or until the allowance of the shard has refilled.

use std::collections::VecDeque;

use super::client_context::ClientContext;
use crate::io::{Completion, Completions, Io, SlotId};
use crate::stats::Counter;
use tickcast_protocol::control::Request;
use tickcast_protocol::ws::CloseCode;
use tickcast_protocol::ws::deflate::Inflater;

/// Completions that are handled in one tick: a connect storm must not keep the flush waiting.
const COMPLETIONS_MAX: usize = 4096;

/// Input of a client whose receive has completed. The next one begins once this is handled.
#[derive(Debug)]
struct Received {
    slot_id: SlotId,
    input: Vec<u8>,
    more: bool,
}

/// Input on its way to be handled.
#[derive(Debug)]
pub(super) struct Inbox {
    completions: Completions,
    /// Received input that waits for the next tick.
    waiting: VecDeque<Received>,
    inflater: Inflater,
    /// Requests of SSE clients that were opened since the last tick, or wait for one with units.
    pub(super) sse_requests: VecDeque<(SlotId, Request)>,
}

impl Inbox {
    pub(super) fn new(inflate_ratio_max: u32) -> Self {
        let inflater = Inflater::new(inflate_ratio_max);
        Self { completions: Completions::default(), waiting: VecDeque::new(), inflater, sse_requests: VecDeque::new() }
    }
}

/// Handles what has come since the last tick. True if there was anything.
pub(super) fn handle_completions<I: Io>(inbox: &mut Inbox, clients: &mut ClientContext<'_, I>) -> bool {
    let Inbox { completions, waiting, inflater, sse_requests } = inbox;
    clients.connections.resume_throttled(clients.now.ns);
    completions.clear();
    clients.outbox.io.reap(COMPLETIONS_MAX, completions);
    clients.handle_events(&completions.list);
    let has_input = !waiting.is_empty() || !clients.connections.deferred_input.is_empty() || !sse_requests.is_empty();
    let has_work = !completions.list.is_empty() || has_input && clients.operations.units > 0;
    while clients.operations.units > 0
        && let Some((slot_id, request)) = sse_requests.pop_front()
    {
        clients.handle_sse_request(slot_id, request);
    }
    // What is deferred anew is for the next tick.
    for _ in 0..clients.connections.deferred_input.len() {
        if clients.operations.units == 0 {
            break;
        }
        let Some((slot_id, mut input)) = clients.connections.deferred_input.pop_front() else { break };
        if clients.connections.get_mut(slot_id).is_some() {
            clients.handle_input(slot_id, &mut input, inflater);
            clients.receive_if_ready(slot_id);
        }
    }
    while clients.operations.units > 0
        && let Some(Received { slot_id, mut input, more }) = waiting.pop_front()
    {
        clients.on_received(slot_id, &mut input, more, inflater);
    }
    let Completions { list, input } = completions;
    for completion in list {
        let Completion::Received { slot_id, start, len, more } = *completion else { continue };
        let input = &mut input[start as usize..][..len as usize];
        if clients.operations.units > 0 {
            clients.on_received(slot_id, input, more, inflater);
        } else {
            waiting.push_back(Received { slot_id, input: input.to_vec(), more });
        }
    }
    has_work
}

impl<I: Io> ClientContext<'_, I> {
    /// Handles all completions but received input, which may have to wait until the next tick.
    fn handle_events(&mut self, list: &[Completion]) {
        for completion in list {
            match *completion {
                Completion::Readable { slot_id } => self.on_readable(slot_id),
                Completion::Received { .. } => {}
                Completion::Nothing { slot_id } => self.on_nothing(slot_id),
                Completion::Writable { slot_id } => self.on_writable(slot_id),
                Completion::Progress { slot_id } => {
                    if let Some(backlog) = self.backlog.get_mut(slot_id) {
                        backlog.progress_ns = backlog.progress_ns.max(self.now.ns);
                    }
                }
                Completion::Ended { slot_id } => {
                    if self.connections.get_mut(slot_id).is_some() {
                        self.drop_client(slot_id);
                    }
                }
            }
        }
    }

    fn on_readable(&mut self, slot_id: SlotId) {
        let Some(client) = self.connections.get_mut(slot_id) else { return };
        client.readable = true;
        self.receive_if_ready(slot_id);
    }

    fn on_received(&mut self, slot_id: SlotId, input: &mut [u8], more: bool, inflater: &mut Inflater) {
        let Some(client) = self.connections.get_mut(slot_id) else { return };
        client.receiving = false;
        client.pinged_ns = 0;
        client.received_ns = self.now.ns;
        client.readable |= more;
        if client.is_websocket() {
            self.handle_input(slot_id, input, inflater);
        } else if !client.request_bucket.take(self.settings.requests_per_s, self.now.ns) && client.is_open() {
            // An SSE client asks once, as it connects. What it sends afterwards is ignored, and counts as a request.
            self.counters.add(Counter::Floods, 1);
            self.close(slot_id, CloseCode::POLICY, "");
        }
        self.receive_if_ready(slot_id);
    }

    fn on_nothing(&mut self, slot_id: SlotId) {
        let Some(client) = self.connections.get_mut(slot_id) else { return };
        client.receiving = false;
        self.note_unfinished(slot_id, false);
        self.receive_if_ready(slot_id);
    }

    fn on_writable(&mut self, slot_id: SlotId) {
        if self.connections.get_mut(slot_id).is_none() {
            return;
        }
        self.backlog.unblock(slot_id, self.now.tick);
    }

    /// Handles the request of an SSE client that was opened since the last tick. Until now it had no subscription, so
    /// it has missed nothing: its backlog begins anew.
    fn handle_sse_request(&mut self, slot_id: SlotId, request: Request) {
        let Some(client) = self.connections.get_mut(slot_id) else { return };
        if !client.is_open() {
            return;
        }
        let answers = std::mem::take(&mut self.leave_live_path(slot_id).answers);
        self.remove_backlog(slot_id);
        self.leave_live_path(slot_id).answers = answers;
        self.backlog.enqueue(slot_id);
        self.counters.add(Counter::Requests, 1);
        self.handle_request(slot_id, request);
        self.note_held_input(slot_id);
    }
}
