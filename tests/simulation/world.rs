//! The world of one seed: a feed, the sequencer, rings, shards and their clients, stepped at random.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use tickcast::identity::Verdict;
use tickcast::io::SlotId;
use tickcast::ring;
use tickcast::sequencer::Sequencer;
use tickcast::shard::{AuthRefusal, Encoding, Format, Opening};
use tickcast_protocol::ws::Opcode;
use tickcast_protocol::ws::deflate::WindowBits;

use tickcast_test_support::node::shared_identity;

use crate::client::{Client, Reading, Wish, frame};
use crate::feed::{Feed, History};
use crate::network::{ByteRate, LinkShare};
use crate::node::Node;
use crate::oracle::Truth;
use crate::plan::{Network, Plan};
use crate::rights::{Entitled, USERS};
use crate::secured::Peer;
use crate::slow_clients::HISTORY_LAG_NS;
use crate::stream::HEAD;
use crate::trail::{Event, Trail};
use crate::{Dice, Seen};

pub const MS: u64 = 1_000_000;
/// When a simulation begins.
pub const START_NS: u64 = 1_000_000 * MS;

pub struct World {
    pub plan: Plan,
    dice: Dice,
    pub now_ns: u64,
    /// The last two times at which the shards could tick.
    ticks_ns: [u64; 2],
    is_prompt: bool,
    sequencer: Sequencer,
    feed: Feed,
    pub history: History,
    pub nodes: Vec<Node>,
    pub clients: Vec<Client>,
    symbols: Vec<String>,
    /// The interests of clients, if several have the same.
    pub wishes: Vec<Wish>,
    /// What clients may see, if not everything.
    pub rights: Vec<Rc<Entitled>>,
    pub rights_dice: Dice,
    /// The user who has other rights by the newest settings, and these rights.
    pub reloaded: Option<(u32, Rc<Entitled>)>,
    pub resyncing: bool,
    silent: u32,
    pub trail: Trail,
    /// Shard and connection of the stream that is being checked.
    pub about: Option<(usize, usize)>,
    pub seen: Seen,
}

/// Prints the last events if a check fails.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() && self.plan.planted.is_none() {
            eprintln!("{}", self.trail.tail(self.about));
        }
    }
}

impl World {
    pub fn new(seed: u64, plan: Plan) -> Self {
        let now_ns = START_NS;
        let mut dice = Dice::new(seed ^ 1 << 32);
        let (mut writers, mut nodes) = (Vec::new(), Vec::new());
        for index in 0..plan.shards as usize {
            // A relay reads from a ring that is never overrun.
            let relayed = plan.planted.is_some_and(|bug| bug.is_of_ring());
            let (writer, reader) = ring::ring(if relayed { 1 << 22 } else { plan.ring_bytes });
            writers.push(writer);
            nodes.push(Node::new(index, &plan, reader, &mut dice, seed ^ (3 + index as u64) << 32, now_ns));
        }
        let (writer, tap) = ring::ring(1 << 22);
        writers.push(writer);
        let mut world = Self {
            plan,
            dice,
            now_ns,
            ticks_ns: [0; 2],
            is_prompt: plan.sleeps == 0 && plan.tick_bytes_max >= 256 * 1024,
            sequencer: Sequencer::new(writers, 1000),
            feed: Feed::new(seed ^ 2 << 32, plan.feed_size),
            history: History::new(tap),
            nodes,
            clients: Vec::new(),
            symbols: Vec::new(),
            wishes: Vec::new(),
            rights: Entitled::any(plan.rights, plan.delay_s, &mut Dice::new(seed ^ 12 << 32)),
            rights_dice: Dice::new(seed ^ 13 << 32),
            reloaded: None,
            resyncing: false,
            silent: 0,
            trail: Trail::default(),
            about: None,
            seen: Seen::default(),
        };
        world.sequencer.open_source(0, shared_identity(0));
        world.sequencer.open_source(1, shared_identity(0));
        for _ in 0..1 + plan.instruments / 3 {
            world.define();
        }
        world.wishes = (0..plan.interests).map(|_| Wish::any(&world.symbols, &mut world.dice)).collect();
        world
    }

    /// Runs to the end; returns the hash of all that happened.
    pub fn run(&mut self) -> u64 {
        for step in 0..self.plan.steps {
            self.step(step);
        }
        self.rest();
        self.end();
        self.trail.hash()
    }

    fn step(&mut self, step: u32) {
        self.now_ns += match self.dice.below(64) {
            0 => u64::from(self.dice.below(600)) * MS,
            1..8 => u64::from(self.dice.below(30)) * MS,
            _ => u64::from(self.dice.below(3000)) * 1000,
        };
        self.trail.add(Event::Step { now_ns: self.now_ns });
        self.feed_acts();
        if (self.symbols.len() as u32) < self.plan.instruments && self.dice.chance(20) {
            self.define();
        }
        self.clients_come(step);
        self.everyone_stalls();
        self.a_user_is_revoked();
        self.settings_are_reloaded();
        self.clients_act();
        self.tick();
        self.deliver();
    }

    fn feed_acts(&mut self) {
        let (dice, feed) = (&mut self.dice, &mut self.feed);
        if dice.chance(self.plan.feed_faults) {
            let event = feed.fault(&mut self.sequencer, &mut self.history, self.now_ns);
            self.trail.add(event);
            self.seen.feed_faults += 1;
            if dice.chance(100) {
                self.silent = dice.below(200);
            }
        }
        if self.plan.feed_faults > 0 && dice.chance(100) {
            feed.check(&mut self.sequencer, &mut self.history, self.now_ns);
        }
        self.silent = self.silent.saturating_sub(1);
        if self.silent == 0 && dice.chance(400) {
            let records = 1 + dice.below(self.plan.burst);
            self.burst(records);
        }
    }

    pub fn burst(&mut self, records: u32) {
        self.feed.burst(records, &mut self.sequencer, &mut self.history, self.now_ns);
        self.trail.add(Event::Feed { records, position: self.history.position });
    }

    pub fn define(&mut self) {
        self.feed.define(&mut self.sequencer, &mut self.history, self.now_ns);
        let instrument = self.history.instruments.last().expect("just defined");
        self.trail.add(Event::Defined { symbol: instrument.symbol.clone() });
        self.symbols.push(instrument.symbol.clone());
        for client in &mut self.clients {
            client.oracle.instrument(instrument.id, &instrument.symbol);
        }
    }

    /// New clients, and those that reconnect.
    fn clients_come(&mut self, step: u32) {
        let open = self.clients.iter().filter(|client| !client.over).count() as u32;
        // Many come at once, now and then.
        let come = match self.clients.len() as u32 {
            0 => 1,
            len if len >= self.plan.clients => 0,
            _ if self.dice.chance(60) || step == 0 => 1 + self.dice.below(1 + self.plan.clients / 8),
            _ => 0,
        };
        for _ in 0..come.min(self.plan.clients - open.min(self.plan.clients)) {
            self.open(None);
        }
        for at in 0..self.clients.len() {
            let client = &self.clients[at];
            if client.over && !client.replaced && self.dice.chance(self.plan.returns) {
                self.clients[at].replaced = self.open(Some(at));
            }
        }
    }

    pub fn open(&mut self, old: Option<usize>) -> bool {
        let index = self.dice.below(self.nodes.len() as u32) as usize;
        let (user, entitled) = self.identity_of(old);
        let node = &mut self.nodes[index];
        node.shard.io_mut().io_mut().now_ns = self.now_ns;
        let encoding = encoding_of(node.shard.io().io().conns.len());
        let Some((conn, slot_id)) = node.shard.io_mut().io_mut().open(self.plan.socket_bytes, encoding.format) else {
            self.trail.add(Event::Refused { node: index });
            return false;
        };
        self.trail.add(Event::Opened { node: index, conn, slot: slot_id.index });
        let mut client = Client::new(index, (conn, slot_id), encoding, self.now_ns, (user, entitled.clone()));
        if self.plan.secured > 0 && self.dice.chance(self.plan.secured) {
            let (peer, session) = Peer::connect(conn);
            client.peer = Some(peer);
            let io = node.shard.io_mut();
            io.secure(slot_id, session);
            io.io_mut().conns[conn].is_secured = true;
            io.io_mut().tally.secured += 1;
            self.seen.secured += 1;
        }
        let Network { slow, slow_rate, .. } = self.plan.network;
        if slow > 0 && self.dice.chance(slow) {
            client.rate = Some(ByteRate::new(slow_rate, self.now_ns));
        }
        if self.plan.answers_bytes_max < 64 * 1024 {
            client.deserves.push(1008);
        }
        if !client.is_websocket() {
            self.open_events(client, old, slot_id);
            return true;
        }
        let mut texts = Vec::new();
        if let Some(old) = old {
            self.seen.returned += 1;
            texts = client.resume(&self.clients[old].oracle);
        } else if self.plan.crowd {
            texts.push(client.subscribe(&any_wish(&self.wishes, &self.symbols, &mut self.dice), true));
        } else if self.dice.chance(300) {
            let wish = any_wish(&self.wishes, &self.symbols, &mut self.dice);
            texts.push(client.request(&wish, &mut self.dice));
        }
        let mut input = Vec::new();
        for text in texts {
            input.extend(client.framed(&text, &mut self.dice));
            self.trail.add(Event::Asked { node: index, conn, text });
        }
        let principal = Some(entitled.principal(user, conn));
        let node = &mut self.nodes[index];
        node.served.see(self.now_ns);
        node.shard.open_with(slot_id, Opening { encoding, principal, upgrade: &[], input: &input }, self.now_ns);
        node.begin_session(slot_id);
        node.poke();
        self.clients.push(client);
        true
    }

    /// An SSE client, or one that reconnects.
    fn open_events(&mut self, mut client: Client, old: Option<usize>, slot_id: SlotId) {
        let wish = any_wish(&self.wishes, &self.symbols, &mut self.dice);
        let old = old.map(|old| &self.clients[old]);
        self.seen.returned += u64::from(old.is_some());
        let old = old.filter(|old| !old.is_websocket());
        let (text, request) = client.ask_for_events(&wish, old, &mut self.dice);
        self.trail.add(Event::Asked { node: client.node, conn: client.conn, text });
        let node = &mut self.nodes[client.node];
        node.served.see(self.now_ns);
        let principal = client.oracle.entitled.principal(client.user, client.conn);
        node.shard.open_events_with(slot_id, principal, HEAD, request, self.now_ns);
        node.begin_session(slot_id);
        node.poke();
        self.clients.push(client);
    }

    /// Who a new client is, and what it may see; mostly the same as the one that it replaces.
    fn identity_of(&mut self, old: Option<usize>) -> (u32, Rc<Entitled>) {
        if self.rights.is_empty() {
            return (0, Entitled::to_everything());
        }
        if let Some(old) = old.filter(|_| self.rights_dice.chance(768)) {
            let client = &self.clients[old];
            return (client.user, client.oracle.entitled.clone());
        }
        let rights = self.rights_dice.below(self.rights.len() as u32) as usize;
        (self.rights_dice.below(USERS), self.rights[rights].clone())
    }

    /// All that a user has is revoked: its clients on all shards are closed at once.
    fn a_user_is_revoked(&mut self) {
        if self.rights.is_empty() || !self.rights_dice.chance(self.plan.revocations) {
            return;
        }
        let user = self.rights_dice.below(USERS);
        let name = format!("u{user}");
        for node in &mut self.nodes {
            node.served.see(self.now_ns);
            let mut from = Some(0);
            while let Some(slot) = from {
                from = node.shard.review(slot, 1024, self.now_ns, |principal| match *principal.user == *name {
                    true => Verdict::Close("revoked"),
                    false => Verdict::Keep,
                });
            }
            node.poke();
        }
        for client in self.clients.iter_mut().filter(|client| !client.over && client.user == user) {
            client.deserves.push(4001);
            client.leaving = true;
            self.seen.revoked += 1;
        }
        self.trail.add(Event::Revoked { user });
    }

    /// A client sends another token.
    fn authenticate(&mut self, at: usize) {
        let rights = self.rights_dice.below(self.rights.len() as u32) as usize;
        let entitled = (!self.rights_dice.chance(100)).then(|| self.rights[rights].clone());
        let client = &mut self.clients[at];
        let text = client.authenticate(rights, entitled);
        let bytes = client.framed(&text, &mut self.dice);
        let bytes = client.sealed(bytes);
        self.nodes[client.node].shard.io_mut().io_mut().write(client.conn, &bytes);
        self.trail.add(Event::Asked { node: client.node, conn: client.conn, text });
    }

    /// The tokens that a shard has handed out are answered, mostly.
    fn answer_tokens(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        while self.rights_dice.chance(700)
            && let Some(request) = node.shard.take_auth_request()
        {
            let numbers: Vec<usize> = request.token.reveal().split(' ').filter_map(|word| word.parse().ok()).collect();
            let outcome = match numbers[..] {
                [user, rights, conn] => Ok(self.rights[rights].principal(user as u32, conn)),
                _ => Err(AuthRefusal { code: "unauthorized", message: "token: not valid".to_owned() }),
            };
            node.served.see(self.now_ns);
            node.shard.authenticated(request.slot_id, outcome, self.now_ns);
            node.poke();
        }
    }

    /// All clients stop reading for a while: a burst, a proxy that stalls, a host that is paused.
    fn everyone_stalls(&mut self) {
        let Network { stalls, stall_ms, .. } = self.plan.network;
        if stalls == 0 || !self.dice.chance(stalls) {
            return;
        }
        let until_ns = self.now_ns + u64::from(1 + self.dice.below(stall_ms)) * MS;
        for client in self.clients.iter_mut().filter(|client| client.is_there()) {
            client.reading = Reading::Not { until_ns };
            client.paused = true;
        }
        self.trail.add(Event::EveryoneStalls { until_ns });
        self.seen.stalls += 1;
    }

    fn clients_act(&mut self) {
        for at in 0..self.clients.len() {
            if self.clients[at].over || self.clients[at].leaving {
                continue;
            }
            let is_websocket = self.clients[at].is_websocket();
            if is_websocket && self.dice.chance(self.plan.requests) {
                let storm = if self.dice.chance(100) { self.plan.storm } else { 3 };
                for _ in 0..1 + self.dice.below(storm) {
                    self.ask(at);
                }
            }
            if is_websocket && !self.rights.is_empty() && self.rights_dice.chance(self.plan.requests / 3) {
                self.authenticate(at);
            }
            let (dice, client) = (&mut self.dice, &mut self.clients[at]);
            let (node, conn) = (client.node, client.conn);
            let pause_ms = self.plan.network.pause_ms;
            let io = self.nodes[node].shard.io_mut().io_mut();
            if is_websocket && dice.chance(self.plan.requests / 4) {
                io.write(conn, &client.sealed(frame(Opcode::Ping, b"?", dice)));
            }
            if dice.chance(self.plan.pauses) {
                let until_ns =
                    if dice.chance(100) { u64::MAX } else { self.now_ns + u64::from(dice.below(pause_ms)) * MS };
                client.reading = Reading::Not { until_ns };
                client.paused = true;
                self.trail.add(Event::Pause { node, conn, until_ns });
            }
            if dice.chance(self.plan.garbage) {
                let (what, bytes) = client.garbage(dice);
                io.write(conn, &client.sealed(bytes));
                self.trail.add(Event::Garbage { node, conn, what });
                self.seen.garbage += 1;
            } else if let Some(peer) = &mut client.peer
                && dice.chance(self.plan.garbage)
            {
                if dice.chance(700) {
                    let bytes = peer.update_keys();
                    self.seen.key_updates += u64::from(!bytes.is_empty());
                    io.write(conn, &bytes);
                } else {
                    peer.has_lied = true;
                    (client.leaving, client.may_break, client.speechless) = (true, true, true);
                    io.write(conn, &[23, 3, 3, 0, 20, dice.below(256) as u8].repeat(5));
                    self.seen.no_records += 1;
                }
            } else if dice.chance(self.plan.leaves) {
                self.leave(at);
            } else if dice.chance(self.plan.faults.reset) {
                (client.leaving, client.may_break) = (true, true);
                self.seen.resets += 1;
                io.reset(conn);
                self.trail.add(Event::Reset { node, conn });
            }
        }
    }

    fn ask(&mut self, at: usize) {
        let wish = any_wish(&self.wishes, &self.symbols, &mut self.dice);
        let client = &mut self.clients[at];
        let shard = &mut self.nodes[client.node].shard;
        let text = client.request(&wish, &mut self.dice);
        let bytes = client.framed(&text, &mut self.dice);
        let bytes = client.sealed(bytes);
        shard.io_mut().io_mut().write(client.conn, &bytes);
        self.trail.add(Event::Asked { node: client.node, conn: client.conn, text });
    }

    /// A client ends its side, with or without a close frame.
    fn leave(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let (node, conn) = (client.node, client.conn);
        let io = self.nodes[node].shard.io_mut().io_mut();
        client.leaving = true;
        let politely = client.is_websocket() && self.dice.chance(600);
        if politely {
            client.deserves.push(1000);
            io.write(conn, &client.sealed(frame(Opcode::Close, &[3, 232], &mut self.dice)));
        } else {
            client.may_break = true;
            io.finish(conn);
        }
        self.trail.add(Event::Leaves { node, conn, politely });
    }

    pub fn tick(&mut self) {
        self.ticks_ns = [self.ticks_ns[1], self.now_ns];
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            node.pump();
            if node.asleep > 0 {
                node.asleep -= 1;
                continue;
            }
            if self.dice.chance(self.plan.sleeps) {
                node.asleep = self.dice.below(60);
                self.trail.add(Event::Asleep { node: index, ticks: node.asleep });
            }
            let has_ticked = node.tick(self.now_ns, self.plan.lazy, &mut self.sequencer);
            for event in node.shard.io_mut().io_mut().events.drain(..) {
                self.trail.add(Event::Io { node: index, event });
            }
            if !self.rights.is_empty() {
                self.answer_tokens(index);
                self.review_postponed(index);
            }
            if has_ticked {
                self.same_interest_same_bytes(index);
                self.check_slow_clients(index);
            }
        }
        self.resyncing = self.sequencer.advance_resyncs();
        for node in &mut self.nodes {
            node.pump();
            node.note_read(&self.history, self.resyncing);
        }
    }

    pub fn deliver(&mut self) {
        let mut shares = self.link_shares();
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            if !client.is_reading(self.now_ns) {
                continue;
            }
            client.reading = Reading::Always;
            self.about = Some((client.node, client.conn));
            let node = &mut self.nodes[client.node];
            let conn = &mut node.shard.io_mut().io_mut().conns[client.conn];
            client.oracle.was_cut |= conn.was_cut;
            client.oracle.disturbed_ns.append(&mut conn.disturbed_ns);
            client.note_timeouts(conn, &self.plan, self.now_ns);
            let most = if self.dice.chance(100) { self.dice.below(2000) as usize } else { usize::MAX };
            let there = conn.to_client.len().min(most);
            let len = shares[client.node].cap(there.min(client.allowed(self.now_ns)));
            client.spend(len);
            self.seen.rationed += u64::from(len < there);
            let ended = conn.reset || (conn.slot_id.is_none() && conn.to_client.len() == len);
            if len == 0 && !ended {
                continue;
            }
            let bytes: Vec<u8> = conn.to_client.drain(..len).collect();
            self.read(at, bytes, ended);
        }
        for (node, share) in self.nodes.iter_mut().zip(shares) {
            if let Some(link) = &mut node.link {
                link.spend(share.used);
            }
        }
        self.about = None;
    }

    /// What this step's link has for the clients of each shard.
    fn link_shares(&mut self) -> Vec<LinkShare> {
        let mut readers = vec![0; self.nodes.len()];
        for client in self.clients.iter().filter(|client| client.is_reading(self.now_ns)) {
            let conn = &self.nodes[client.node].shard.io().io().conns[client.conn];
            readers[client.node] += usize::from(!conn.to_client.is_empty());
        }
        let links = self.nodes.iter_mut().map(|node| node.link.as_mut().map(|link| link.allowed(self.now_ns)));
        links.zip(readers).map(|(allowed, readers)| LinkShare::new(allowed, readers)).collect()
    }

    /// A client reads these bytes of its socket; `ended`: they are the last.
    fn read(&mut self, at: usize, bytes: Vec<u8>, ended: bool) {
        let client = &mut self.clients[at];
        let node = &mut self.nodes[client.node];
        let socket_bytes = bytes.len() as u64;
        let bytes = &client.opened(bytes)[..];
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let (len, hash) = (bytes.len(), hasher.finish());
        self.trail.add(Event::Read { node: client.node, conn: client.conn, bytes: len, hash });
        let truth = Truth {
            history: &self.history,
            shard: node.shard.values(),
            overruns: &node.overruns,
            served: &node.served,
            ticks_ns: (self.is_prompt && node.overruns.is_empty() && !node.left[0]).then_some(self.ticks_ns),
            known_position: client.pending.unmade_ns().map_or(0, |ns| node.known_at(ns.saturating_sub(HISTORY_LAG_NS))),
        };
        client.pending.read += socket_bytes;
        client.take(bytes, ended, self.now_ns, &truth);
        let output = client.output();
        if !output.is_empty() && !client.speechless {
            let output = client.sealed(output);
            node.shard.io_mut().io_mut().write(client.conn, &output);
        }
        if client.over && node.shard.io().io().conns[client.conn].slot_id.is_some() {
            node.shard.io_mut().io_mut().finish(client.conn);
        }
    }
}

/// The encoding of a connection. An SSE client comes after every binary one, so that clients that reconnect in place of
/// another find one of their own encoding as well as others.
fn encoding_of(conn: usize) -> Encoding {
    let format = [Format::Binary, Format::Events, Format::Binary, Format::Json][conn % 4];
    // Every third connection with frames is compressed, with different windows.
    let window = WindowBits::new(8 + (conn % 8) as u8).filter(|_| conn % 3 == 1 && format != Format::Events);
    Encoding { format, deflate: window }
}

fn any_wish(wishes: &[Wish], symbols: &[String], dice: &mut Dice) -> Wish {
    match wishes.len() as u32 {
        0 => Wish::any(symbols, dice),
        len => wishes[dice.below(len) as usize].clone(),
    }
}
