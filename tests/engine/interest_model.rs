//! The subscription index against a naive map: for any requests in any order, the watchers of each channel agree with
//! the map, equal sets share one audience, and nothing is left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use proptest::prelude::*;
use tickcast::shard::subscription_index::{AudienceId, Change, Key, SubscriptionIndex};
use tickcast::shard::{Encoding, Format};
use tickcast_protocol::ws::deflate::WindowBits;
use tickcast_protocol::{Channel, ConflationInterval};

const SYMBOLS: [&str; 8] = ["A", "AB", "ABC", "B", "BA", "AC", "ABCD", "C"];
const PREFIXES: [&str; 6] = ["", "A", "AB", "ABC", "B", "X"];

/// The target of a subscription: a name that need not be defined yet, by its index among the symbols, or a prefix by its
/// index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Aim {
    Name(usize),
    Prefix(usize),
}

#[derive(Clone, Debug)]
enum Step {
    Enter(Encoding),
    Leave(usize),
    /// Subscribes to these at an interval, or unsubscribes from them (`None`).
    Change(usize, Vec<(Aim, Channel, Option<usize>)>),
    AddInstrument,
}

type Wants = BTreeMap<(Aim, usize), usize>;

#[derive(Default)]
struct World {
    index: SubscriptionIndex,
    instruments: usize,
    clients: Vec<(AudienceId, Encoding, Wants)>,
}

impl World {
    fn apply(&mut self, step: Step) {
        match step {
            Step::Enter(encoding) => self.clients.push((self.index.enter(encoding), encoding, Wants::new())),
            Step::Leave(client) if !self.clients.is_empty() => {
                let client = client % self.clients.len();
                let (audience, ..) = self.clients.swap_remove(client);
                self.index.leave(audience);
            }
            Step::Change(client, changes) if !self.clients.is_empty() => {
                let client = client % self.clients.len();
                self.change(client, &changes);
            }
            Step::AddInstrument if self.instruments < SYMBOLS.len() => {
                self.instruments += 1;
                self.index.add_instrument(self.instruments as u32, SYMBOLS[self.instruments - 1]);
            }
            Step::Leave(_) | Step::Change(..) | Step::AddInstrument => {}
        }
    }

    fn change(&mut self, client: usize, changes: &[(Aim, Channel, Option<usize>)]) {
        let mut asked = Vec::new();
        let mut interned = Vec::new();
        let (audience, _, wants) = &mut self.clients[client];
        for (aim, channel, interval) in changes {
            let target = match *aim {
                Aim::Name(name) => self.index.intern_name(SYMBOLS[name]),
                Aim::Prefix(prefix) => self.index.intern_prefix(PREFIXES[prefix]),
            };
            interned.push(target);
            let key = Key::new(target, *channel);
            match interval {
                Some(interval) => {
                    wants.insert((*aim, *channel as usize), *interval);
                    asked.push(Change::Want(key, ConflationInterval::from_index(*interval)));
                }
                None => {
                    wants.remove(&(*aim, *channel as usize));
                    asked.push(Change::Drop(key));
                }
            }
        }
        *audience = self.index.change(*audience, &asked);
        self.index.release_all(interned);
    }

    fn check(&self) {
        self.check_audiences();
        self.check_watchers();
        let used: BTreeSet<Aim> =
            self.clients.iter().flat_map(|(.., wants)| wants.keys()).map(|(aim, _)| *aim).collect();
        for (nth, prefix) in PREFIXES.iter().enumerate() {
            let is_used = used.contains(&Aim::Prefix(nth));
            assert_eq!(self.index.find(prefix, true).is_some(), is_used, "pattern {prefix:?}");
        }
        for (nth, name) in SYMBOLS.iter().enumerate() {
            assert_eq!(self.index.find(name, false).is_some(), used.contains(&Aim::Name(nth)), "name {name:?}");
        }
    }

    fn check_audiences(&self) {
        let mut by_interest: BTreeMap<(u8, Option<u8>, &Wants), AudienceId> = BTreeMap::new();
        for (audience, encoding, wants) in &self.clients {
            let key = (encoding.format as u8, encoding.deflate.map(WindowBits::get), wants);
            assert_eq!(by_interest.entry(key).or_insert(*audience), audience, "the same set is the same audience");
            assert_eq!(self.index.encoding(*audience), *encoding);
            assert_eq!(self.index.items(*audience), wants.len());
        }
        let distinct: BTreeSet<AudienceId> = by_interest.values().copied().collect();
        assert_eq!(distinct.len(), by_interest.len(), "different sets are different audiences");
        assert_eq!(self.index.audiences(), by_interest.len(), "no audience without clients is left");
        for interval in ConflationInterval::all() {
            let used = by_interest.keys().any(|(_, _, wants)| wants.values().any(|of| *of == interval.index()));
            assert_eq!(self.index.uses(interval), used, "{interval:?}");
        }
    }

    fn check_watchers(&self) {
        for (name, symbol) in SYMBOLS.iter().enumerate().take(self.instruments) {
            let instrument = name as u32 + 1;
            for channel in Channel::ALL {
                let mut expected: BTreeMap<usize, BTreeSet<AudienceId>> = BTreeMap::new();
                for (audience, _, wants) in &self.clients {
                    let resolved = resolve(wants, name, symbol, channel);
                    let mut candidates = Vec::new();
                    let stopped = self.index.try_each_candidate(*audience, instrument, |id| {
                        candidates.push(id);
                        ControlFlow::Continue(())
                    });
                    assert!(stopped.is_none() && candidates.is_sorted(), "{candidates:?}");
                    assert!(candidates.iter().all(|id| *id >= instrument), "{candidates:?}");
                    assert!(resolved.is_none() || candidates.first() == Some(&instrument), "{symbol} {candidates:?}");
                    let answer = self.index.wants(*audience, instrument, channel);
                    assert_eq!(answer.map(ConflationInterval::index), resolved, "{symbol} {channel:?} {wants:?}");
                    if let Some(interval) = resolved {
                        expected.entry(interval).or_default().insert(*audience);
                    }
                }
                for interval in ConflationInterval::all() {
                    let mut watchers = Vec::new();
                    self.index.each_watcher(instrument, channel, interval, |audience| watchers.push(audience));
                    // Those without clients are still being dissolved.
                    watchers.retain(|audience| self.clients.iter().any(|(of, ..)| of == audience));
                    watchers.sort_unstable();
                    let want: Vec<AudienceId> =
                        expected.get(&interval.index()).into_iter().flatten().copied().collect();
                    assert_eq!(watchers, want, "{symbol} {channel:?} {interval:?}");
                    if !want.is_empty() {
                        assert!(self.index.is_watched(instrument, channel, interval));
                    }
                }
            }
        }
    }
}

/// The naive rule: the name, then the longest prefix.
fn resolve(wants: &Wants, name: usize, symbol: &str, channel: Channel) -> Option<usize> {
    if let Some(interval) = wants.get(&(Aim::Name(name), channel as usize)) {
        return Some(*interval);
    }
    let covering = wants.iter().filter_map(|((aim, of), interval)| match aim {
        Aim::Prefix(prefix) if *of == channel as usize && symbol.starts_with(PREFIXES[*prefix]) => {
            Some((PREFIXES[*prefix].len(), *interval))
        }
        _ => None,
    });
    covering.max_by_key(|(length, _)| *length).map(|(_, interval)| interval)
}

const FORMATS: [Format; 3] = [Format::Binary, Format::Json, Format::Events];

fn aims() -> impl Strategy<Value = Aim> {
    prop_oneof![(0..SYMBOLS.len()).prop_map(Aim::Name), (0..PREFIXES.len()).prop_map(Aim::Prefix)]
}

fn steps() -> impl Strategy<Value = Step> {
    let channels = prop::sample::select(vec![Channel::Quote, Channel::Trade, Channel::Book]);
    let change = (aims(), channels, prop::option::weighted(0.6, prop::sample::select(vec![0usize, 1, 6])));
    let formats = prop::sample::select(FORMATS.to_vec());
    let windows = prop::sample::select(vec![None, WindowBits::new(9), WindowBits::new(15)]);
    prop_oneof![
        2 => (formats, windows)
            .prop_map(|(format, deflate)| Step::Enter(Encoding { format, deflate })),
        1 => any::<usize>().prop_map(Step::Leave),
        8 => (any::<usize>(), prop::collection::vec(change, 1..5)).prop_map(|(of, changes)| Step::Change(of, changes)),
        1 => Just(Step::AddInstrument),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn watchers_agree_with_a_naive_map(
        steps in prop::collection::vec(steps(), 1..60),
        portions in prop::collection::vec(0..4usize, 60),
    ) {
        let (mut world, mut portions) = (World::default(), portions.into_iter());
        for _ in 0..3 {
            world.apply(Step::AddInstrument);
        }
        for step in steps {
            world.apply(step);
            // What is not used any more may be removed at once, later, or in portions.
            let mut units = portions.next().unwrap_or(usize::MAX);
            world.index.maintain(&mut units);
            world.check_watchers();
            world.index.maintain(&mut { usize::MAX });
            world.check();
        }
        while !world.clients.is_empty() {
            world.apply(Step::Leave(0));
            world.index.maintain(&mut { usize::MAX });
            world.check();
        }
        prop_assert_eq!(world.index.all_names(), 0);
        prop_assert_eq!(world.index.all_items(), 0);
    }
}
