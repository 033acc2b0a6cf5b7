//! One seed's world: a feed, the sequencer, a ring, a shard and its clients, stepped by chance.

use std::hash::{DefaultHasher, Hash, Hasher};

use tickcast::ring;
use tickcast::sequencer::Sequencer;
use tickcast::shard::{Encoding, Settings, Shard};
use tickcast::stats::Counter;
use tickcast::ws::deflate::WindowBits;
use tickcast::ws::frame::Opcode;

use crate::client::{Client, Reading, frame};
use crate::feed::{Feed, History};
use crate::io::{Faults, SimIo};
use crate::oracle::Truth;
use crate::{Dice, Seen};

const MS: u64 = 1_000_000;

/// What a seed has switched on.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub faults: Faults,
    pub clients: u32,
    pub steps: u32,
    pub instruments: u32,
    pub feed_size: u32,
    pub burst: u32,
    pub ring_bytes: usize,
    pub socket_bytes: usize,
    /// In 1024ths a step.
    pub requests: u32,
    pub pauses: u32,
    pub sleeps: u32,
    pub leaves: u32,
    pub turn_bytes_max: usize,
}

impl Plan {
    /// One client, nothing goes wrong.
    pub fn calm() -> Self {
        Self {
            faults: Faults::default(),
            clients: 1,
            steps: 600,
            instruments: 12,
            feed_size: 10,
            burst: 10,
            ring_bytes: 1 << 20,
            socket_bytes: 1 << 20,
            requests: 30,
            pauses: 0,
            sleeps: 0,
            leaves: 0,
            turn_bytes_max: 256 * 1024,
        }
    }

    /// Swarm: every seed switches some faults off and gives the rest wild probabilities.
    pub fn of_seed(dice: &mut Dice) -> Self {
        let mut wild = |most: u32| if dice.chance(512) { 0 } else { dice.below(most) };
        let faults = Faults {
            cut: wild(900),
            refused: wild(600),
            nothing: wild(700),
            piecemeal: wild(1000),
            late: wild(900),
            false_room: wild(200),
            reset: wild(8),
            shuffled: wild(2) == 1,
        };
        let (requests, pauses, sleeps, leaves) = (5 + wild(150), wild(20), wild(60), wild(6));
        let burst = 1 + wild(100);
        let fat = dice.chance(200);
        Self {
            faults,
            clients: 1 + dice.below(10),
            steps: if fat { 400 } else { 1000 },
            instruments: 1 + dice.below(40),
            feed_size: if fat { 200 } else { 1 + dice.below(20) },
            burst,
            ring_bytes: 1 << (if fat { 17 } else { 15 } + dice.below(5)),
            socket_bytes: 1 << (10 + dice.below(9)),
            requests,
            pauses,
            sleeps,
            leaves,
            turn_bytes_max: if dice.chance(300) { 1 + dice.below(2000) as usize } else { 256 * 1024 },
        }
    }
}

pub struct World {
    plan: Plan,
    dice: Dice,
    now_ns: u64,
    sequencer: Sequencer,
    feed: Feed,
    history: History,
    shard: Shard<SimIo>,
    clients: Vec<Client>,
    symbols: Vec<String>,
    overruns: Vec<(u64, u64)>,
    overrun_open: bool,
    resyncing: bool,
    drained_position: u64,
    asleep: u32,
    trace: DefaultHasher,
    pub seen: Seen,
}

impl World {
    pub fn new(seed: u64, plan: Plan) -> Self {
        let (writer, reader) = ring::ring(plan.ring_bytes);
        let settings = Settings {
            heartbeat_ms: 1000,
            ping_interval_ms: 2000,
            idle_timeout_ms: 8000,
            slow_timeout_ms: 3000,
            turn_bytes_max: plan.turn_bytes_max,
            requests_per_s: 10_000,
            compression: Some(1),
            ..Settings::default()
        };
        let mut world = Self {
            plan,
            dice: Dice::new(seed ^ 1),
            now_ns: 1_000_000 * MS,
            sequencer: Sequencer::new(vec![writer], 1000),
            feed: Feed::new(seed ^ 2, plan.feed_size),
            history: History::default(),
            shard: Shard::new(settings, SimIo::new(plan.faults, seed ^ 3), reader),
            clients: Vec::new(),
            symbols: Vec::new(),
            overruns: Vec::new(),
            overrun_open: false,
            resyncing: false,
            drained_position: 0,
            asleep: 0,
            trace: DefaultHasher::new(),
            seen: Seen::default(),
        };
        for _ in 0..1 + plan.instruments / 3 {
            world.define();
        }
        world
    }

    /// Runs to the end; returns the trace of all bytes delivered.
    pub fn run(&mut self) -> u64 {
        for step in 0..self.plan.steps {
            self.step(step);
        }
        self.rest();
        self.end();
        self.trace.finish()
    }

    fn step(&mut self, step: u32) {
        self.now_ns += match self.dice.below(64) {
            0 => u64::from(self.dice.below(600)) * MS,
            1..8 => u64::from(self.dice.below(30)) * MS,
            _ => u64::from(self.dice.below(3000)) * 1000,
        };
        if self.dice.chance(400) {
            let records = 1 + self.dice.below(self.plan.burst);
            self.feed.burst(records, &mut self.sequencer, &mut self.history, self.now_ns);
        }
        if (self.symbols.len() as u32) < self.plan.instruments && self.dice.chance(20) {
            self.define();
        }
        if (self.clients.len() as u32) < self.plan.clients && (step == 0 || self.dice.chance(60)) {
            self.open();
        }
        self.clients_act();
        self.turn();
        self.deliver();
    }

    fn define(&mut self) {
        self.feed.define(&mut self.sequencer, &mut self.history, self.now_ns);
        let instrument = self.history.instruments.last().expect("just defined");
        self.symbols.push(instrument.symbol.clone());
        for client in &mut self.clients {
            client.oracle.instrument(instrument.id, &instrument.symbol);
        }
    }

    fn open(&mut self) -> usize {
        let (conn, seat) = self.shard.io_mut().open(self.plan.socket_bytes);
        // Every third has agreed on compression, in one window or another.
        let window = WindowBits::new(8 + (conn % 8) as u8).filter(|_| conn % 3 == 1);
        let encoding = Encoding { deflate: window };
        let mut client = Client::new(conn, encoding.deflate.is_some());
        let input = if self.dice.chance(300) { client.request(&self.symbols, &mut self.dice) } else { Vec::new() };
        self.shard.open_as(seat, encoding, &[], &input, self.now_ns);
        self.clients.push(client);
        self.clients.len() - 1
    }

    fn clients_act(&mut self) {
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            if client.over || client.leaving {
                continue;
            }
            let io = self.shard.io_mut();
            let dice = &mut self.dice;
            if dice.chance(self.plan.requests) {
                for _ in 0..1 + dice.below(3) {
                    io.write(client.conn, &client.request(&self.symbols, dice));
                }
            }
            if dice.chance(self.plan.requests / 4) {
                io.write(client.conn, &frame(Opcode::Ping, b"?", dice));
            }
            if dice.chance(self.plan.pauses) {
                let forever = dice.chance(100);
                let until_ns = if forever { u64::MAX } else { self.now_ns + u64::from(dice.below(1500)) * MS };
                client.reading = Reading::Not { until_ns };
            }
            if dice.chance(self.plan.leaves) {
                client.leaving = true;
                match dice.below(3) {
                    0 => io.write(client.conn, &frame(Opcode::Close, &[3, 232], dice)),
                    1 => io.write(client.conn, &[0x81, 0x01, b'x']),
                    _ => io.finish(client.conn),
                }
            } else if dice.chance(self.plan.faults.reset) {
                client.leaving = true;
                self.seen.resets += 1;
                io.reset(client.conn);
            }
        }
    }

    fn turn(&mut self) {
        if self.asleep > 0 {
            self.asleep -= 1;
            return;
        }
        if self.dice.chance(self.plan.sleeps) {
            self.asleep = self.dice.below(60);
        }
        self.shard.io_mut().now_ns = self.now_ns;
        self.shard.turn(self.now_ns);
        if self.shard.wants_resync() {
            self.seen.overruns += 1;
            if !self.overrun_open {
                self.overruns.push((self.drained_position, u64::MAX));
                self.overrun_open = true;
            }
            self.sequencer.request_resync(0);
            self.shard.resync_requested();
            self.resyncing = true;
        } else if !self.shard.has_news() {
            if self.overrun_open && !self.resyncing {
                self.overruns.last_mut().expect("one is open").1 = self.history.position;
                self.overrun_open = false;
            }
            self.drained_position = self.history.position;
        }
        self.resyncing = self.sequencer.advance_resyncs();
    }

    fn deliver(&mut self) {
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            if client.over {
                continue;
            }
            if let Reading::Not { until_ns } = client.reading {
                if self.now_ns < until_ns {
                    continue;
                }
                client.reading = Reading::Always;
            }
            // Whoever took nothing for too long may be closed without a word: there was no room for one.
            let slow_closed = self.shard.counters().get(Counter::SlowClosed) > 0;
            let conn = &mut self.shard.io_mut().conns[client.conn];
            client.leaving |= slow_closed && conn.seat.is_none();
            let most = if self.dice.chance(100) { self.dice.below(2000) as usize } else { usize::MAX };
            let len = conn.to_client.len().min(most);
            let bytes: Vec<u8> = conn.to_client.drain(..len).collect();
            let ended = conn.reset || (conn.seat.is_none() && conn.to_client.is_empty());
            client.oracle.disturbed_ns.append(&mut conn.disturbed_ns);
            (client.conn, &bytes).hash(&mut self.trace);
            let overruns = &self.overruns;
            let truth = Truth { history: &self.history, shard: self.shard.values(), overruns };
            client.take(&bytes, ended, self.now_ns, &truth);
            let output = client.output();
            if !output.is_empty() {
                self.shard.io_mut().write(client.conn, &output);
            }
            if client.over && self.shard.io().conns[client.conn].seat.is_some() {
                self.shard.io_mut().finish(client.conn);
            }
        }
    }

    /// The feed stops; who reads comes to hold everything.
    fn rest(&mut self) {
        self.asleep = 0;
        self.plan.sleeps = 0;
        let io = self.shard.io_mut();
        io.faults = Faults { shuffled: io.faults.shuffled, ..Faults::default() };
        while self.shard.has_news() || self.resyncing {
            self.now_ns += MS / 10;
            self.turn();
            self.deliver();
        }
        // A socket of a kilobyte takes a large backlog in as many turns; then every tick and heartbeat has to come.
        let mut quiet = 0;
        for _ in 0..50_000 {
            self.now_ns += 13 * MS;
            self.turn();
            self.deliver();
            let answered = |client: &Client| client.oracle.asked.is_empty() && !client.leaving;
            let reads = |client: &&Client| !client.over && client.reading == Reading::Always;
            let settled = self.shard.counters().get(Counter::CatchingUp) == 0;
            quiet = if settled && self.clients.iter().filter(reads).all(answered) { quiet + 1 } else { 0 };
            if quiet == 300 {
                break;
            }
        }
        assert_eq!(self.shard.counters().get(Counter::CatchingUp), 0, "all are members at rest");
        for client in self.clients.iter().filter(|client| !client.over && client.reading == Reading::Always) {
            assert!(!client.leaving, "a client that goes is let go");
            assert!(client.oracle.welcomed && client.oracle.asked.is_empty(), "every request is answered");
            let silent_ns = self.now_ns - client.oracle.packets_at_ns;
            assert!(silent_ns < 3000 * MS, "silence without a heartbeat: {silent_ns} ns");
            client.oracle.is_whole(&self.history);
            self.seen.whole += client.oracle.items() as u64;
        }
    }

    fn end(&mut self) {
        self.shard.begin_drain(0, self.now_ns);
        for _ in 0..300 {
            self.now_ns += 21 * MS;
            self.turn();
            self.deliver();
        }
        assert_eq!(self.shard.clients(), 0, "all have gone");
        let io = self.shard.io();
        assert_eq!(io.opened, io.closed, "every seat is closed once");
        assert!(io.conns.iter().all(|conn| conn.seat.is_none()));
        for client in &self.clients {
            self.seen.add(&client.oracle.seen);
            self.seen.compressed += client.compressed();
            if client.closed_with == Some(4002) {
                self.seen.slow_closed += 1;
            }
        }
        self.seen.slow_closed += self.shard.counters().get(Counter::SlowClosed);
        self.seen.stragglers += self.shard.counters().get(Counter::ShortSends);
    }
}
