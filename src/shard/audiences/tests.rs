//! The audiences and the interest together against a naive map: whatever clients want, by names and by patterns that
//! overlap, and however they come, go, fall behind and return, each member is owed exactly the records that its own
//! wishes name, once and in their order.
//!
//! The map knows clients only: which are members, and what each wants. It knows no audience.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::shard::subscription_index::{Change, Key, SubscriptionIndex, Target};
use tickcast_protocol::Channel;
use tickcast_protocol::conflation::ConflationInterval;
use tickcast_protocol::ws::deflate::WindowBits;

const SYMBOLS: [&str; 6] = ["A", "AB", "ABC", "B", "BA", "ABD"];
/// Each covers those that are longer.
const PREFIXES: [&str; 4] = ["", "A", "AB", "B"];
const PROFILES: [usize; 3] = [0, 1, 6];
const CHANNELS: [Channel; 2] = [Channel::Quote, Channel::Trade];

/// What a client points at: a symbol or a prefix, by its place in the lists above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Aim {
    Name(usize),
    Prefix(usize),
}

/// What a turn dispatches.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A record of a channel of an instrument, for those who want it at a profile.
    Record { name: usize, channel: Channel, interval: usize },
    /// A new instrument's definition, for those who have a pattern that covers it.
    Definition { name: usize },
    /// The state of the feed, for all who want anything.
    Feed,
}

#[derive(Clone, Debug)]
enum Step {
    Enter(Encoding),
    Leave(usize),
    /// Wants (a profile) or drops (none) these; true if the client has caught up at once.
    Change(usize, Vec<(Aim, Channel, Option<usize>)>, bool),
    /// The first comes to want exactly what the second wants, and shares its audience if they have the same encoding.
    Imitate(usize, usize),
    /// Is no longer a member: its socket is full.
    FallBehind(usize),
    /// Is a member again.
    CatchUp(usize),
    /// Dispatches, and serves each audience for which something has gathered.
    Tick(Vec<Event>),
    Pass(u64),
}

type Wants = BTreeMap<(Aim, Channel), usize>;

#[derive(Debug)]
struct Client {
    slot_id: SlotId,
    audience: AudienceId,
    encoding: Encoding,
    /// Its place among the members, if it is one.
    place: Option<u32>,
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

    fn is_owed(&self, event: Event) -> bool {
        match event {
            Event::Record { name, channel, interval } => self.interval_of(name, channel) == Some(interval),
            Event::Definition { name } => self.wants.keys().any(|(aim, _)| match aim {
                Aim::Prefix(prefix) => SYMBOLS[name].starts_with(PREFIXES[*prefix]),
                Aim::Name(_) => false,
            }),
            Event::Feed => !self.wants.is_empty(),
        }
    }
}

struct World {
    interest: SubscriptionIndex,
    audiences: Audiences,
    clients: Vec<Client>,
    entered: u32,
    now_ns: u64,
    /// When each audience with members was served last, or came to have some.
    heard_ns: BTreeMap<AudienceId, u64>,
}

impl World {
    fn new() -> Self {
        let mut interest = SubscriptionIndex::default();
        for (name, symbol) in SYMBOLS.iter().enumerate() {
            interest.add_instrument(name as u32 + 1, symbol);
        }
        let (clients, heard_ns) = (Vec::new(), BTreeMap::new());
        Self { interest, audiences: Audiences::default(), clients, entered: 0, now_ns: 1, heard_ns }
    }

    fn take(&mut self, step: Step) {
        let clients = self.clients.len();
        match step {
            Step::Enter(encoding) => self.enter(encoding),
            Step::Pass(ns) => self.now_ns += ns,
            Step::Tick(events) => self.tick(&events),
            _ if clients == 0 => {}
            Step::Leave(client) => {
                self.fall_behind(client % clients);
                let gone = self.clients.swap_remove(client % clients);
                self.interest.leave(gone.audience);
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
        let audience = self.interest.enter(encoding);
        self.audiences.grow(self.interest.audience_ids());
        self.clients.push(Client { slot_id, audience, encoding, place: None, wants: Wants::new() });
    }

    fn catch_up(&mut self, client: usize) {
        let Client { slot_id, audience, encoding, place: None, .. } = self.clients[client] else { return };
        if self.audiences.members_len(audience) == 0 {
            self.heard_ns.insert(audience, self.now_ns);
        }
        self.clients[client].place = Some(self.audiences.join(audience, slot_id, encoding, self.now_ns));
    }

    fn fall_behind(&mut self, client: usize) {
        let Some(place) = self.clients[client].place.take() else { return };
        let audience = self.clients[client].audience;
        if let Some(moved) = self.audiences.leave(audience, place) {
            let moved = self.clients.iter_mut().find(|client| client.slot_id == moved).expect("members are clients");
            moved.place = Some(place);
        }
    }

    fn change(&mut self, client: usize, changes: &[(Aim, Channel, Option<usize>)]) {
        self.fall_behind(client);
        let mut asked = Vec::new();
        let mut interned = Vec::new();
        for (aim, channel, interval) in changes {
            let target = match *aim {
                Aim::Name(name) => Target::Instrument(name as u32 + 1),
                Aim::Prefix(prefix) => {
                    interned.push(PREFIXES[prefix]);
                    Target::Pattern(self.interest.intern(PREFIXES[prefix]))
                }
            };
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
        self.clients[client].audience = self.interest.change(self.clients[client].audience, &asked);
        self.audiences.grow(self.interest.audience_ids());
        for prefix in interned {
            if let Some(pattern) = self.interest.find_pattern(prefix) {
                self.interest.release_unused(pattern);
            }
        }
    }

    fn tick(&mut self, events: &[Event]) {
        self.audiences.begin_tick();
        for (number, event) in (0..).zip(events) {
            self.dispatch(number, *event);
        }
        let touched = self.audiences.gather();
        let mut served: BTreeMap<SlotId, Vec<u32>> = BTreeMap::new();
        for audience in (0..touched).map(|index| self.audiences.touched_at(index)) {
            for member in self.audiences.members(audience) {
                let twice = served.insert(member, self.audiences.gathered(audience).to_vec());
                assert_eq!(twice, None, "nobody is served twice in a tick");
            }
        }
        for client in &self.clients {
            let owed = (0u32..).zip(events).filter(|(_, event)| client.place.is_some() && client.is_owed(**event));
            let owed: Vec<u32> = owed.map(|(number, _)| number).collect();
            let had = served.remove(&client.slot_id).unwrap_or_default();
            assert_eq!(had, owed, "{client:?} of {events:?}");
        }
        assert!(served.is_empty(), "{served:?} are no clients any more");
        for index in 0..touched {
            self.serve(self.audiences.touched_at(index));
        }
    }

    fn dispatch(&mut self, number: u32, event: Event) {
        let Self { interest, audiences, .. } = self;
        let mark = |audience| audiences.mark(audience, number);
        match event {
            Event::Record { name, channel, interval } => {
                interest.each_watcher(name as u32 + 1, channel, ConflationInterval::from_index(interval), mark);
            }
            Event::Definition { name } => interest.each_pattern_watcher(name as u32 + 1, mark),
            Event::Feed => {
                (0..interest.audience_ids() as u32).filter(|audience| interest.items(*audience) > 0).for_each(mark);
            }
        }
    }

    /// Whoever was first is last in the next sweep.
    fn serve(&mut self, audience: AudienceId) {
        let mut before: Vec<SlotId> = self.audiences.members(audience).collect();
        self.audiences.served(audience, self.now_ns);
        let after: Vec<SlotId> = self.audiences.members(audience).collect();
        before.rotate_left(1);
        assert_eq!(after, before, "the order of the members ticks by one");
        self.heard_ns.insert(audience, self.now_ns);
    }

    fn check(&mut self) {
        let mut members: BTreeMap<AudienceId, Vec<SlotId>> = BTreeMap::new();
        for client in self.clients.iter().filter(|client| client.place.is_some()) {
            members.entry(client.audience).or_default().push(client.slot_id);
            assert_eq!(self.audiences.encoding(client.audience), client.encoding, "{client:?}");
        }
        for audience in 0..self.audiences.len() as u32 {
            let mut standing: Vec<SlotId> = self.audiences.members(audience).collect();
            standing.sort_unstable();
            let mut expected = members.get(&audience).cloned().unwrap_or_default();
            expected.sort_unstable();
            assert_eq!(standing, expected, "the members of audience {audience}");
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
    let intervals = || prop::sample::select(PROFILES.to_vec());
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
    fn each_member_is_owed_what_it_wants_once_and_in_order(steps in prop::collection::vec(steps(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            world.check();
        }
        while !world.clients.is_empty() {
            world.take(Step::Leave(0));
            world.check();
        }
        world.take(Step::Tick(vec![Event::Feed, Event::Definition { name: 0 }]));
        prop_assert_eq!(world.audiences.gather(), 0, "nothing gathers where nobody is left");
    }
}
