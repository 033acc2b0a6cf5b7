//! The work and the held input of one client: charged to its allowance and its account, and shed over a limit.

use super::accounts::{Held, Subscriptions};
use super::backlog::ClientBacklog;
use super::client_context::ClientContext;
use super::connections::{Client, new_session};
use crate::io::{Io, SlotId};
use crate::stats::Counter;
use tickcast_protocol::ws::CloseCode;

impl<I: Io> ClientContext<'_, I> {
    /// Charges work to a client and its address.
    pub(super) fn spend(&mut self, slot_id: SlotId, units: u64) {
        self.counters.add(Counter::RequestWork, units);
        self.operations.spend_share(units, self.settings.shard_work_per_s, self.now.ns);
        let Some(client) = self.connections.get_mut(slot_id) else { return };
        let per_s = self.settings.request_work_per_s;
        client.work.spend(units, per_s, self.now.ns);
        if let Some(account) = client.account {
            self.accounts.spend(account, units, per_s, self.now.ns);
        }
    }

    /// When the next input of a client may be handled; `None` if it may be now.
    pub(super) fn work_due_ns(&self, slot_id: SlotId) -> Option<u64> {
        let client = self.connections.get(slot_id)?;
        let of_address = client.account.and_then(|account| self.accounts.due_ns(account, self.now.ns));
        client.work.due_ns(self.now.ns).max(of_address)
    }

    /// Notes how much input a client holds now, and sheds input over a limit.
    pub(super) fn note_held_input(&mut self, slot_id: SlotId) {
        let throttled = self.connections.throttled_bytes(slot_id);
        let Some(client) = self.connections.get_mut(slot_id) else { return };
        // A long answer repeats the names of its request.
        let answers_max = self.settings.answers_bytes_max;
        let of_backlog = |backlog: &ClientBacklog| {
            backlog.deferred_input.capacity() + backlog.pending_bytes().saturating_sub(answers_max)
        };
        let deferred = self.backlog.get(slot_id).map_or(0, of_backlog);
        let waiting = throttled + self.operations.bytes(slot_id) + self.outbox.io.held_input(slot_id);
        let held = u32::try_from(client.session.held_bytes() + deferred + waiting).unwrap_or(u32::MAX);
        let before = std::mem::replace(&mut client.input_bytes, held);
        let max = self.settings.input_bytes_max;
        match self.accounts.hold(slot_id, client.account, (before, held), max) {
            Held::Within => {}
            Held::OverAddress => self.shed(slot_id, "the clients of this address"),
            Held::Over { heaviest } => {
                if let Some(heaviest) = self.connections.slot_id(heaviest as usize) {
                    self.shed(heaviest, "all clients");
                }
            }
        }
    }

    /// Notes that answers of a client may have been sent, which count as held input while they are long.
    pub(super) fn note_sent_answers(&mut self, slot_id: SlotId) {
        if self.connections.get(slot_id).is_some_and(|client| client.input_bytes > 0) {
            self.note_held_input(slot_id);
        }
    }

    /// Closes a client for the input that is held for it, and frees the input.
    fn shed(&mut self, slot_id: SlotId, whose: &str) {
        let Some(client) = self.connections.get_mut(slot_id) else { return };
        client.session = new_session(client.encoding);
        client.message_since_ns = 0;
        let before = std::mem::take(&mut client.input_bytes);
        self.accounts.hold(slot_id, client.account, (before, 0), usize::MAX);
        self.connections.drop_throttled(slot_id);
        if let Some((operation, _)) = self.operations.remove(slot_id) {
            operation.abandon(&mut self.fan_out.index);
        }
        if let Some(backlog) = self.backlog.get_mut(slot_id) {
            backlog.deferred_input = Vec::new();
        }
        self.counters.add(Counter::InputShed, 1);
        let reason = format!("incomplete requests of {whose} are over the limit (input_bytes_max)");
        self.close(slot_id, CloseCode::POLICY, &reason);
    }

    /// Closes the clients that hold much input: the process is short of memory. Those whose requests come whole stay.
    pub(super) fn shed_all_input(&mut self) {
        for _ in 0..self.connections.len() {
            let heaviest = self.accounts.heaviest().and_then(|slot| self.connections.slot_id(slot as usize));
            let Some(slot_id) = heaviest else { return };
            self.shed(slot_id, "all clients, while memory is short,");
        }
    }

    /// Takes a client that is gone out of its account.
    pub(super) fn close_account(&mut self, client: &Client) {
        self.accounts.hold(client.slot_id, client.account, (client.input_bytes, 0), usize::MAX);
        if let Some(account) = client.account {
            self.accounts.subscribe(account, client.subscriptions, Subscriptions::default());
            self.accounts.leave(account);
        }
    }

    /// Carries on the requests that are under way, and removes from the index what is not used any more. False if there
    /// is nothing of either. The request of a client for which something of an earlier tick is pending has to wait, as
    /// one that comes then does: what it begins with depends on what the client has had.
    pub(super) fn advance_operations(&mut self) -> bool {
        let (now, mut has_advanced, mut waiting) = (self.now, false, 0);
        while self.operations.units > 0
            && waiting < self.operations.len()
            && let Some((slot_id, mut operation, input)) = self.operations.pop()
        {
            if !self.connections.get(slot_id).is_some_and(Client::is_open) {
                operation.abandon(&mut self.fan_out.index);
                self.resume_input(slot_id, input);
            } else if self.backlog.get(slot_id).is_some_and(|backlog| backlog.defers_requests(now)) {
                self.operations.push(slot_id, operation, input);
                waiting += 1;
                continue;
            } else if self.advance(slot_id, &mut operation) {
                self.resume_input(slot_id, input);
            } else {
                self.operations.push(slot_id, operation, input);
            }
            (has_advanced, waiting) = (true, 0);
            self.note_held_input(slot_id);
        }
        let mut units = super::operations::TICK_UNITS;
        self.fan_out.index.maintain(&mut units) || has_advanced
    }

    /// A request that was under way is done: the client's next ones follow.
    pub(super) fn resume_input(&mut self, slot_id: SlotId, input: Vec<u8>) {
        let Some(client) = self.connections.get_mut(slot_id) else { return };
        client.waits = false;
        client.received_ns = client.received_ns.max(self.now.ns);
        if input.is_empty() {
            self.receive_if_ready(slot_id);
        } else {
            self.connections.deferred_input.push_back((slot_id, input));
        }
    }
}
