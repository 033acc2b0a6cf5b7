//! One shard of the world, driven as the server drives it.

use tickcast::ring::Reader;
use tickcast::sequencer::Sequencer;
use tickcast::shard::{Settings, Shard};

use crate::Dice;
use crate::io::SimIo;
use crate::network::ByteRate;
use crate::plan::Plan;
use crate::planted_bug::{Relay, Trigger};

/// The settings of every shard. The timeouts are short, so that all of them pass in a seed.
pub fn settings(plan: &Plan) -> Settings {
    Settings {
        heartbeat_ms: 1000,
        ping_interval_ms: 2000,
        idle_timeout_ms: IDLE_TIMEOUT_MS as u32,
        slow_timeout_ms: SLOW_TIMEOUT_MS as u32,
        subscribe_timeout_ms: SUBSCRIBE_TIMEOUT_MS as u32,
        tick_bytes_max: plan.tick_bytes_max,
        answers_bytes_max: plan.answers_bytes_max,
        requests_per_s: 10_000,
        compression: Some(1),
        ..Settings::default()
    }
}

pub const IDLE_TIMEOUT_MS: u64 = 8000;
pub const SLOW_TIMEOUT_MS: u64 = 3000;
pub const SUBSCRIBE_TIMEOUT_MS: u64 = 5000;

pub struct Node {
    index: usize,
    pub shard: Shard<SimIo>,
    pub relay: Option<Relay>,
    /// What its clients share, if the plan limits it.
    pub link: Option<ByteRate>,
    /// Positions between which the shard was overrun; the last range may be open.
    pub overruns: Vec<(u64, u64)>,
    overrun_open: bool,
    drained_position: u64,
    /// Ticks for which it is not scheduled.
    pub asleep: u32,
    idle: bool,
    pub ticks: u64,
    /// The times of its last tick and the one before.
    pub ticked_ns: [u64; 2],
    pub slept: u64,
}

impl Node {
    pub fn new(index: usize, plan: &Plan, ring: Reader, dice: &mut Dice, seed: u64, now_ns: u64) -> Self {
        let trigger = Trigger::new(plan.planted, 20 + dice.below(60));
        let (relay, ring) = match plan.planted {
            Some(bug) if bug.is_of_ring() => {
                let (relay, ring) = Relay::new(ring, trigger, plan.ring_bytes);
                (Some(relay), ring)
            }
            _ => (None, ring),
        };
        let io = SimIo::new(plan.faults, plan.slots_max, trigger, seed);
        Self {
            index,
            shard: Shard::new(settings(plan), io, ring),
            relay,
            link: (plan.network.link_rate > 0).then(|| ByteRate::new(plan.network.link_rate, now_ns)),
            overruns: Vec::new(),
            overrun_open: false,
            drained_position: 0,
            asleep: 0,
            idle: false,
            ticks: 0,
            ticked_ns: [0; 2],
            slept: 0,
        }
    }

    /// Wakes the shard: something was done to it from outside.
    pub fn poke(&mut self) {
        self.idle = false;
    }

    pub fn pump(&mut self) {
        if let Some(relay) = &mut self.relay {
            relay.pump();
        }
    }

    /// True if the server would let it sleep on.
    fn sleeps(&self, now_ns: u64) -> bool {
        let due = self.shard.deadline_ns().is_some_and(|at_ns| at_ns <= now_ns);
        self.idle && !due && !self.shard.has_new_records() && !self.shard.io().is_due()
    }

    /// Ticks, unless it has nothing to do (`lazy`); returns whether it ticked.
    pub fn tick(&mut self, now_ns: u64, lazy: bool, sequencer: &mut Sequencer) -> bool {
        if lazy && self.sleeps(now_ns) {
            self.slept += 1;
            return false;
        }
        self.ticks += 1;
        self.ticked_ns = [self.ticked_ns[1], now_ns];
        self.shard.io_mut().begin_tick(now_ns, self.ticks);
        let worked = self.shard.tick(now_ns);
        self.idle = !worked && !self.shard.has_new_records() && !self.shard.wants_resync();
        if self.shard.wants_resync() {
            if !self.overrun_open {
                self.overruns.push((self.drained_position, u64::MAX));
                self.overrun_open = true;
            }
            sequencer.request_resync(self.index);
            self.shard.resync_requested();
        }
        true
    }

    /// After the sequencer's step: an overrun is over once the whole resynchronisation has been read.
    pub fn note_read(&mut self, position: u64, resyncing: bool) {
        if self.shard.has_new_records() || resyncing {
            return;
        }
        if std::mem::take(&mut self.overrun_open) {
            self.overruns.last_mut().expect("one is open").1 = position;
        }
        self.drained_position = position;
    }

    /// At rest a shard has nothing to do, and its deadline is in the future.
    pub fn is_idle(&mut self, now_ns: u64) -> bool {
        let idle = (0..20).any(|_| {
            self.ticks += 1;
            self.shard.io_mut().begin_tick(now_ns, self.ticks);
            !self.shard.tick(now_ns)
        });
        idle && self.shard.deadline_ns().is_none_or(|at_ns| at_ns > now_ns)
    }
}
