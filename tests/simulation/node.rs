//! One shard of the world, driven as the server drives it.

use tickcast::io::SlotId;
use tickcast::ring::Reader;
use tickcast::sequencer::Sequencer;
use tickcast::shard::{Settings, Shard};
use tickcast::stats::Counter;

use crate::Dice;
use crate::feed::History;
use crate::io::SimIo;
use crate::network::ByteRate;
use crate::plan::Plan;
use crate::planted_bug::{Relay, Trigger};
use crate::served::Served;
use crate::sessions::Sessions;
use crate::watch::Watch;
use crate::world::START_NS;

/// The settings of every shard. The timeouts are short, so that all of them pass in a seed.
pub fn settings(plan: &Plan) -> Settings {
    let default = Settings::default();
    Settings {
        backlog_ms_max: match plan.network.behind_ms {
            0 => default.backlog_ms_max,
            ms => ms,
        },
        delay_s: plan.delay_s,
        heartbeat_ms: 1000,
        ping_interval_ms: 2000,
        idle_timeout_ms: 8000,
        slow_timeout_ms: 3000,
        subscribe_timeout_ms: 5000,
        tick_bytes_max: plan.tick_bytes_max,
        answers_bytes_max: plan.answers_bytes_max,
        requests_per_s: 10_000,
        compression: Some(1),
        // No limit, but what it is compared with is counted.
        subscriptions_per_user_max: 1 << 40,
        ..default
    }
}

/// How long a slow client has to take the reason of its close.
pub const SLOW_CLOSE_MS: u32 = 10_000;

pub struct Node {
    index: usize,
    pub shard: Shard<Watch>,
    pub relay: Option<Relay>,
    /// What its clients share, if the plan limits it.
    pub link: Option<ByteRate>,
    /// Positions between which the shard was overrun; the last range may be open.
    pub overruns: Vec<(u64, u64)>,
    overrun_open: bool,
    drained_position: u64,
    /// Bytes of all records up to then, and the most that were read between two times.
    drained_bytes: usize,
    largest_read: usize,
    /// When it had read up to which position.
    known: Vec<(u64, u64)>,
    /// Ticks for which it is not scheduled.
    pub asleep: u32,
    idle: bool,
    pub ticks: u64,
    /// The times of its last tick and the one before.
    pub ticked_ns: [u64; 2],
    pub served: Served,
    pub sessions: Sessions,
    pub slept: u64,
    /// Whether each of the last two ticks has left conflated values to the next one, as they were more than one sends.
    pub left: [bool; 2],
}

/// Work for requests in one tick: what it may spend, and the rest of the last request.
const TICK_UNITS_MAX: u64 = 4096;

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
            shard: Shard::new(settings(plan), Watch::new(io), ring),
            relay,
            link: (plan.network.link_rate > 0).then(|| ByteRate::new(plan.network.link_rate, now_ns)),
            overruns: Vec::new(),
            overrun_open: false,
            drained_position: 0,
            drained_bytes: 0,
            largest_read: 0,
            known: Vec::new(),
            asleep: 0,
            idle: false,
            ticks: 0,
            ticked_ns: [0; 2],
            served: Served::default(),
            sessions: Sessions::default(),
            slept: 0,
            left: [false; 2],
        }
    }

    /// Wakes the shard: something was done to it from outside.
    pub fn poke(&mut self) {
        self.idle = false;
    }

    /// Makes a client that the shard has taken over a session of a user.
    pub fn begin_session(&mut self, slot_id: SlotId) {
        // Ends of former clients of the slot come first.
        self.sessions.learn(self.shard.take_session_news());
        self.shard.begin_session(slot_id, self.sessions.begin(slot_id));
    }

    pub fn pump(&mut self) {
        if let Some(relay) = &mut self.relay {
            relay.pump();
        }
    }

    /// True if the server would let it sleep on.
    fn sleeps(&self, now_ns: u64) -> bool {
        let due = self.shard.deadline_ns().is_some_and(|at_ns| at_ns <= now_ns);
        self.idle
            && !due
            && !self.shard.has_new_records()
            && !self.shard.io().has_own_completions()
            && !self.shard.io().io().is_due()
    }

    /// Ticks, unless it has nothing to do (`lazy`); returns whether it ticked.
    pub fn tick(&mut self, now_ns: u64, lazy: bool, sequencer: &mut Sequencer) -> bool {
        if lazy && self.sleeps(now_ns) {
            self.slept += 1;
            return false;
        }
        self.ticks += 1;
        self.ticked_ns = [self.ticked_ns[1], now_ns];
        self.served.see(now_ns);
        self.shard.io_mut().io_mut().begin_tick(now_ns, self.ticks);
        let spent = self.shard.counters().get(Counter::RequestWork);
        let worked = self.shard.tick(now_ns);
        self.sessions.learn(self.shard.take_session_news());
        let units = self.shard.counters().get(Counter::RequestWork) - spent;
        assert!(units <= TICK_UNITS_MAX, "{units} units of work for requests in one tick");
        // Values that are left are due since time 0, everything else since the start at the earliest.
        self.left = [self.left[1], self.shard.deadline_ns().is_some_and(|due_ns| due_ns < START_NS)];
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
    pub fn note_read(&mut self, history: &History, resyncing: bool) {
        if self.shard.has_new_records() || resyncing {
            return;
        }
        if std::mem::take(&mut self.overrun_open) {
            self.overruns.last_mut().expect("one is open").1 = history.position;
        }
        let position = history.position;
        self.largest_read = self.read_bytes(history);
        (self.drained_position, self.drained_bytes) = (position, history.bytes);
        if self.known.last().is_none_or(|(_, known)| *known < position) {
            self.known.push((self.ticked_ns[1], position));
        }
    }

    /// Bytes of records that it has read at once, at the most.
    pub fn read_bytes(&self, history: &History) -> usize {
        self.largest_read.max(history.bytes - self.drained_bytes)
    }

    /// The position up to which it had read everything by this time.
    pub fn known_at(&self, ns: u64) -> u64 {
        let before = self.known.partition_point(|(at_ns, _)| *at_ns <= ns);
        before.checked_sub(1).map_or(0, |last| self.known[last].1)
    }

    /// At rest a shard has nothing to do, and its deadline is in the future.
    pub fn is_idle(&mut self, now_ns: u64) -> bool {
        let idle = (0..20).any(|_| {
            self.ticks += 1;
            self.shard.io_mut().io_mut().begin_tick(now_ns, self.ticks);
            let worked = self.shard.tick(now_ns);
            self.sessions.learn(self.shard.take_session_news());
            !worked
        });
        idle && self.shard.deadline_ns().is_none_or(|at_ns| at_ns > now_ns)
    }
}
