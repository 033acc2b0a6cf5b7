//! The audiences and the subscription index together against a naive model: clients subscribe by names and by patterns
//! that overlap, come, go, fall behind and return; each member gets exactly the records that it is subscribed to, once
//! and in their order.
//!
//! The model has clients only: which are members, and what each wants. It has no audiences.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::shard::subscription_index::{Change, Key, SubscriptionIndex};
use tickcast_protocol::ws::deflate::WindowBits;
use tickcast_protocol::{Channel, ConflationInterval};

const SYMBOLS: [&str; 6] = ["A", "AB", "ABC", "B", "BA", "ABD"];
/// Each covers those that are longer.
const PREFIXES: [&str; 4] = ["", "A", "AB", "B"];
const INTERVALS: [usize; 3] = [0, 1, 6];
const CHANNELS: [Channel; 2] = [Channel::Quote, Channel::Trade];

/// What a client subscribes to: a symbol or a prefix, by its index in the lists above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Aim {
    Name(usize),
    Prefix(usize),
}

/// What a tick dispatches.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A record of a channel of an instrument, for the audiences that want it at an interval.
    Record { name: usize, channel: Channel, interval: usize },
    /// A new instrument's definition, for the audiences that have a pattern that covers it.
    Definition { name: usize },
    /// The state of the feed, for all audiences with a subscription.
    Feed,
}

#[derive(Clone, Debug)]
enum Step {
    Enter(Encoding),
    Leave(usize),
    /// Wants (an interval) or drops (none) these; true if the client catches up at once.
    Change(usize, Vec<(Aim, Channel, Option<usize>)>, bool),
    /// The first changes to exactly what the second wants; they share an audience if they have the same encoding.
    Imitate(usize, usize),
    /// Is no longer a member, because its socket is full.
    FallBehind(usize),
    /// Is a member again.
    CatchUp(usize),
    /// Dispatches, and serves each audience that has marks.
    Tick(Vec<Event>),
    Pass(u64),
}

type Wants = BTreeMap<(Aim, Channel), usize>;

#[derive(Debug)]
struct Client {
    slot_id: SlotId,
    audience: AudienceId,
    encoding: Encoding,
    /// Its index among the members, if it is one.
    member: Option<u32>,
    wants: Wants,
}

impl Client {
    /// The naive rule: the exact name, then the longest prefix.
    fn interval_of(&self, name: usize, channel: Channel) -> Option<usize> {
        let of_prefix = |(nth, prefix): (usize, &&str)| {
            let wanted = self.wants.get(&(Aim::Prefix(nth), channel)).filter(|_| SYMBOLS[name].starts_with(*prefix))?;
            Some((prefix.len(), *wanted))
        };
        let by_prefix = || PREFIXES.iter().enumerate().filter_map(of_prefix).max().map(|(_, interval)| interval);
        self.wants.get(&(Aim::Name(name), channel)).copied().or_else(by_prefix)
    }

    fn is_due(&self, event: Event) -> bool {
        match event {
            Event::Record { name, channel, interval } => self.interval_of(name, channel) == Some(interval),
            Event::Definition { name } => self.wants.keys().any(|(aim, _)| match aim {
                Aim::Prefix(prefix) => SYMBOLS[name].starts_with(PREFIXES[*prefix]),
                Aim::Name(of) => name == *of,
            }),
            Event::Feed => !self.wants.is_empty(),
        }
    }
}

struct World {
    index: SubscriptionIndex,
    audiences: Audiences,
    clients: Vec<Client>,
    entered: u32,
    now_ns: u64,
    /// When each audience with members was last served, or got its first member.
    heard_ns: BTreeMap<AudienceId, u64>,
}

impl World {
    fn new() -> Self {
        let mut index = SubscriptionIndex::default();
        for (name, symbol) in SYMBOLS.iter().enumerate() {
            index.add_instrument(name as u32 + 1, symbol);
        }
        let (clients, heard_ns) = (Vec::new(), BTreeMap::new());
        Self { index, audiences: Audiences::default(), clients, entered: 0, now_ns: 1, heard_ns }
    }

    fn apply(&mut self, step: Step) {
        let clients = self.clients.len();
        match step {
            Step::Enter(encoding) => self.enter(encoding),
            Step::Pass(ns) => self.now_ns += ns,
            Step::Tick(events) => self.tick(&events),
            _ if clients == 0 => {}
            Step::Leave(client) => {
                self.fall_behind(client % clients);
                let gone = self.clients.swap_remove(client % clients);
                self.index.leave(gone.audience);
                self.index.maintain(&mut { usize::MAX });
            }
            Step::Change(client, changes, at_once) => {
                self.change(client % clients, &changes);
                if at_once {
                    self.catch_up(client % clients);
                }
            }
            Step::Imitate(client, other) => {
                let drops = self.clients[client % clients].wants.keys().map(|(aim, channel)| (*aim, *channel, None));
                let wants = self.clients[other % clients].wants.iter();
                let wants = wants.map(|((aim, channel), interval)| (*aim, *channel, Some(*interval)));
                let changes: Vec<_> = drops.chain(wants).collect();
                self.change(client % clients, &changes);
                self.catch_up(client % clients);
            }
            Step::FallBehind(client) => self.fall_behind(client % clients),
            Step::CatchUp(client) => self.catch_up(client % clients),
        }
    }

    fn enter(&mut self, encoding: Encoding) {
        let slot_id = SlotId { index: self.entered, generation: 7 };
        self.entered += 1;
        let audience = self.index.enter(encoding);
        self.audiences.grow(self.index.audience_ids());
        self.clients.push(Client { slot_id, audience, encoding, member: None, wants: Wants::new() });
    }

    fn catch_up(&mut self, client: usize) {
        let Client { slot_id, audience, encoding, member: None, .. } = self.clients[client] else { return };
        if self.audiences.members_len(audience) == 0 {
            self.heard_ns.insert(audience, self.now_ns);
        }
        self.clients[client].member = Some(self.audiences.join(audience, slot_id, encoding, self.now_ns));
    }

    fn fall_behind(&mut self, client: usize) {
        let Some(member) = self.clients[client].member.take() else { return };
        let audience = self.clients[client].audience;
        if let Some(moved) = self.audiences.leave(audience, member) {
            let moved = self.clients.iter_mut().find(|client| client.slot_id == moved).expect("members are clients");
            moved.member = Some(member);
        }
    }

    fn change(&mut self, client: usize, changes: &[(Aim, Channel, Option<usize>)]) {
        self.fall_behind(client);
        let mut asked = Vec::new();
        let mut interned = Vec::new();
        for (aim, channel, interval) in changes {
            let target = match *aim {
                Aim::Name(name) => self.index.intern_name(SYMBOLS[name]),
                Aim::Prefix(prefix) => self.index.intern_prefix(PREFIXES[prefix]),
            };
            interned.push(target);
            let (key, wants) = (Key::new(target, *channel), &mut self.clients[client].wants);
            match interval {
                Some(interval) => {
                    wants.insert((*aim, *channel), *interval);
                    asked.push(Change::Want(key, ConflationInterval::from_index(*interval)));
                }
                None => {
                    wants.remove(&(*aim, *channel));
                    asked.push(Change::Drop(key));
                }
            }
        }
        self.clients[client].audience = self.index.change(self.clients[client].audience, &asked);
        self.audiences.grow(self.index.audience_ids());
        self.index.release_all(interned);
        self.index.maintain(&mut { usize::MAX });
    }

    fn tick(&mut self, events: &[Event]) {
        self.audiences.begin_tick();
        for (number, event) in (0..).zip(events) {
            self.dispatch(number, *event);
        }
        let touched = self.audiences.sort_marks();
        let mut served: BTreeMap<SlotId, Vec<u32>> = BTreeMap::new();
        for audience in (0..touched).map(|index| self.audiences.touched(index)) {
            for member in self.audiences.members(audience) {
                let twice = served.insert(member, self.audiences.marked(audience).to_vec());
                assert_eq!(twice, None, "no member is served twice in a tick");
            }
        }
        for client in &self.clients {
            let due = (0u32..).zip(events).filter(|(_, event)| client.member.is_some() && client.is_due(**event));
            let due: Vec<u32> = due.map(|(number, _)| number).collect();
            let had = served.remove(&client.slot_id).unwrap_or_default();
            assert_eq!(had, due, "{client:?} of {events:?}");
        }
        assert!(served.is_empty(), "{served:?} are not clients any more");
        for index in 0..touched {
            self.serve(self.audiences.touched(index));
        }
    }

    fn dispatch(&mut self, number: u32, event: Event) {
        let Self { index, audiences, .. } = self;
        let mark = |audience| audiences.mark(audience, number);
        match event {
            Event::Record { name, channel, interval } => {
                index.each_watcher(name as u32 + 1, channel, ConflationInterval::from_index(interval), mark);
            }
            Event::Definition { name } => index.each_pattern_watcher(name as u32 + 1, mark),
            Event::Feed => {
                (0..index.audience_ids() as u32).filter(|audience| index.items(*audience) > 0).for_each(mark);
            }
        }
    }

    /// The member that was first is last in the next flush.
    fn serve(&mut self, audience: AudienceId) {
        let mut before: Vec<SlotId> = self.audiences.members(audience).collect();
        self.audiences.note_sent(audience, self.now_ns);
        let after: Vec<SlotId> = self.audiences.members(audience).collect();
        before.rotate_left(1);
        assert_eq!(after, before, "the order of the members rotates by one");
        self.heard_ns.insert(audience, self.now_ns);
    }

    fn check(&mut self) {
        let mut members: BTreeMap<AudienceId, Vec<SlotId>> = BTreeMap::new();
        for client in self.clients.iter().filter(|client| client.member.is_some()) {
            members.entry(client.audience).or_default().push(client.slot_id);
            assert_eq!(self.audiences.encoding(client.audience), client.encoding, "{client:?}");
        }
        for audience in 0..self.audiences.len() as u32 {
            let mut actual: Vec<SlotId> = self.audiences.members(audience).collect();
            actual.sort_unstable();
            let mut expected = members.get(&audience).cloned().unwrap_or_default();
            expected.sort_unstable();
            assert_eq!(actual, expected, "the members of audience {audience}");
            assert_eq!(self.audiences.members_len(audience), expected.len());
        }
        self.heard_ns.retain(|audience, _| members.contains_key(audience));
        self.check_silent();
    }

    fn check_silent(&self) {
        let length = self.audiences.len();
        for among in [0..length, 0..length + 3, length / 2..length, 1..length.max(2) - 1] {
            for before_ns in self.heard_ns.values().flat_map(|ns| [ns - 1, *ns]) {
                let silent: Vec<AudienceId> = self.audiences.silent_since(before_ns, among.clone()).collect();
                let expected = self
                    .heard_ns
                    .iter()
                    .filter(|(audience, heard_ns)| among.contains(&(**audience as usize)) && **heard_ns <= before_ns);
                let expected: Vec<AudienceId> = expected.map(|(audience, _)| *audience).collect();
                assert_eq!(silent, expected, "silent since {before_ns} among {among:?}");
            }
        }
    }
}

fn steps() -> impl Strategy<Value = Step> {
    let names = || 0..SYMBOLS.len();
    let channels = || prop::sample::select(CHANNELS.to_vec());
    let intervals = || prop::sample::select(INTERVALS.to_vec());
    let encodings = prop::sample::select(vec![
        Encoding::PLAIN,
        Encoding { deflate: Some(WindowBits::MOST), ..Encoding::PLAIN },
        Encoding::EVENTS,
    ]);
    let aims = prop_oneof![names().prop_map(Aim::Name), (0..PREFIXES.len()).prop_map(Aim::Prefix)];
    let change = (aims, channels(), prop::option::weighted(0.7, intervals()));
    let record = (names(), channels(), intervals());
    let event = prop_oneof![
        6 => record.prop_map(|(name, channel, interval)| Event::Record { name, channel, interval }),
        1 => names().prop_map(|name| Event::Definition { name }),
        1 => Just(Event::Feed),
    ];
    prop_oneof![
        3 => encodings.prop_map(Step::Enter),
        1 => any::<usize>().prop_map(Step::Leave),
        6 => (any::<usize>(), prop::collection::vec(change, 1..4), prop::bool::weighted(0.8))
            .prop_map(|(client, changes, at_once)| Step::Change(client, changes, at_once)),
        6 => any::<(usize, usize)>().prop_map(|(client, other)| Step::Imitate(client, other)),
        1 => any::<usize>().prop_map(Step::FallBehind),
        2 => any::<usize>().prop_map(Step::CatchUp),
        4 => prop::collection::vec(event, 0..8).prop_map(Step::Tick),
        1 => (1u64..10).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_member_gets_what_it_wants_once_and_in_order(steps in prop::collection::vec(steps(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            world.apply(step);
            world.check();
        }
        while !world.clients.is_empty() {
            world.apply(Step::Leave(0));
            world.check();
        }
        world.apply(Step::Tick(vec![Event::Feed, Event::Definition { name: 0 }]));
        prop_assert_eq!(world.audiences.sort_marks(), 0, "audiences without members get no marks");
    }
}
