//! The connections of one kind: visited round robin, so many a second; one that the server has ended is opened again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::connection::{AttackConnection, Peer, Visit};
use super::flood;
use super::kind::AttackKind;
use super::script::{Leaves, Script};
use super::task::AttackTask;
use crate::load::error::LoadError;
use tickcast_client::{Target, TlsConfig};

/// What an attack did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttackCount {
    /// Connections opened.
    pub opened: u64,
    /// Connections that could not be opened.
    pub failed: u64,
    /// Connections whose first request was answered with an error.
    pub refused: u64,
    /// Other connections that the server has ended.
    pub ended: u64,
    /// Portions of bytes, requests or frames, or resets, as the kind has it.
    pub actions: u64,
}

/// The connections of one kind.
pub struct AttackConnections<'a> {
    task: &'a AttackTask,
    peer: Peer,
    script: Script,
    slots: Vec<Option<(AttackConnection, u64)>>,
    count: AttackCount,
}

impl<'a> AttackConnections<'a> {
    /// None is open yet.
    ///
    /// # Errors
    /// The authorities of the server's certificate cannot be used.
    pub fn new(task: &'a AttackTask) -> Result<Self, LoadError> {
        let target = Target::parse(&task.url)?;
        let tls = TlsConfig::new(&target, task.ca.as_deref())?;
        let peer = Peer { address: task.address, target, tls };
        let script = Script::new(task.kind, &task.script_input());
        let slots = (0..task.connections).map(|_| None).collect();
        Ok(Self { task, peer, script, slots, count: AttackCount::default() })
    }

    /// Attacks until it is to stop.
    pub fn attack(mut self, stop: &AtomicBool) -> AttackCount {
        let step = Duration::from_secs(1) / self.task.rate;
        let mut due = Instant::now();
        for slot in (0..self.slots.len()).cycle() {
            // Relaxed: the flag carries no other data.
            if stop.load(Ordering::Relaxed) {
                break;
            }
            due += step;
            let now = Instant::now();
            if due > now {
                std::thread::sleep(due - now);
            } else {
                // Late actions are not made up for: a burst would be another attack.
                due = now;
            }
            self.visit(slot);
        }
        self.count
    }

    fn visit(&mut self, slot: usize) {
        if let Some((connection, nth)) = &mut self.slots[slot] {
            match connection.visit(&self.script, *nth) {
                Visit::Acted => self.count.actions += 1,
                Visit::Waited => {}
                Visit::Left => self.slots[slot] = None,
                Visit::Reset => {
                    self.count.actions += 1;
                    self.slots[slot] = None;
                }
                Visit::Refused => {
                    self.count.refused += 1;
                    self.slots[slot] = None;
                }
                Visit::Ended => {
                    self.count.ended += 1;
                    self.slots[slot] = None;
                }
            }
            // One request a connection: the rate is that of the connects.
            if self.slots[slot].is_some() || self.script.leaves != Leaves::Ended {
                return;
            }
        }
        match self.open(slot) {
            Some(connection) => {
                self.count.opened += 1;
                self.count.actions += u64::from(self.script.leaves == Leaves::Ended);
                self.slots[slot] = Some((connection, self.count.opened));
            }
            None => self.count.failed += 1,
        }
    }

    fn open(&mut self, slot: usize) -> Option<AttackConnection> {
        let AttackTask { token, ca, sources, .. } = self.task;
        if self.task.kind == AttackKind::PublisherFlood {
            let url = self.peer.target.with_path("/v1/publish").to_string();
            let (stream, actions) = flood::open(&url, token.as_deref(), ca.as_deref()).ok()?;
            self.script.actions = actions;
            return AttackConnection::upgraded(stream).ok();
        }
        let source = sources.get(slot % sources.len().max(1)).copied();
        let head = &self.script.heads[self.count.opened as usize % self.script.heads.len()];
        AttackConnection::open(&self.peer, source, &self.script, head).ok()
    }
}
