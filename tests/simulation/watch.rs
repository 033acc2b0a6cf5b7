//! What a shard sees of its connections: a layer above the one that seals. So what is checked of plain connections is
//! checked of secured ones as well, before it is sealed.

use tickcast::io::sealed::{Sealed, SealedCounts};
use tickcast::io::{Completion, Completions, Io, SendOp, ShortSend, SlotId};
use tickcast::tls::Session;

use crate::io::SimIo;

/// See the module.
pub struct Watch(Sealed<SimIo>);

impl Watch {
    pub fn new(io: SimIo) -> Self {
        Self(Sealed::new(io))
    }

    /// The simulated sockets.
    pub fn io(&self) -> &SimIo {
        self.0.io()
    }

    pub fn io_mut(&mut self) -> &mut SimIo {
        self.0.io_mut()
    }

    pub fn secure(&mut self, slot_id: SlotId, session: Box<Session>) {
        self.0.secure(slot_id, session);
    }

    pub fn counts(&self) -> SealedCounts {
        self.0.counts()
    }

    pub fn tail_bytes(&self, slot_id: SlotId) -> usize {
        self.0.tail_bytes(slot_id)
    }

    pub fn has_own_completions(&self) -> bool {
        self.0.has_own_completions()
    }
}

impl Io for Watch {
    fn send_batch(&mut self, bytes: &[u8], sends: &[SendOp], short: &mut Vec<ShortSend>) {
        let first = short.len();
        self.0.send_batch(bytes, sends, short);
        let mut outcomes = vec![None; sends.len()];
        for short in &short[first..] {
            outcomes[short.index as usize] = Some(short.outcome);
        }
        for (send, short) in sends.iter().zip(outcomes) {
            let payload = &bytes[send.start as usize..][..send.len as usize];
            self.0.io_mut().note_plain(send.slot_id, payload, short);
        }
    }

    fn receive(&mut self, slot_id: SlotId) {
        self.0.receive(slot_id);
    }

    fn want_writable(&mut self, slot_id: SlotId) {
        self.0.want_writable(slot_id);
    }

    fn close(&mut self, slot_id: SlotId) {
        self.0.close(slot_id);
    }

    fn held_input(&self, slot_id: SlotId) -> usize {
        self.0.held_input(slot_id)
    }

    fn reap(&mut self, completions_max: usize, out: &mut Completions) {
        self.0.reap(completions_max, out);
        for completion in &out.list {
            if let Completion::Writable { slot_id } = *completion {
                self.0.io_mut().note_plain_room(slot_id);
            }
        }
    }
}
