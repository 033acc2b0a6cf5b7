//! All clients stop reading for less than their shard keeps of what it has sent: they catch up at the rate of the live
//! path, with every record, and however many they are.

use tickcast_protocol::control::ChannelSet;
use tickcast_protocol::{Channel, ConflationInterval};

use crate::client::{Reading, Wish};
use crate::plan::Plan;
use crate::world::{MS, World};
use crate::{Seen, seeds};

const SOCKET_BYTES: usize = 4096;
/// A tick is to send at least so many bytes of what is pending, all clients together.
const TICK_BYTES: usize = 256 * 1024;
/// Ticks that are needed besides.
const TICKS: usize = 8;

#[test]
fn stall_of_all_is_over_at_the_rate_of_the_live_path() {
    for seed in seeds(1) {
        for clients in [8, 200] {
            catch_up_after_stall(seed, clients, ChannelSet::ALL);
            let log = [Channel::Trade, Channel::Raw].into_iter().collect();
            catch_up_after_stall(seed, clients, log);
        }
    }
}

fn catch_up_after_stall(seed: u64, clients: u32, channels: ChannelSet) {
    let plan = Plan { clients, slots_max: clients, socket_bytes: SOCKET_BYTES, lazy: false, ..Plan::calm() };
    let mut world = World::new(seed, Plan { crowd: true, ..plan });
    world.wishes = vec![Wish { channels, symbols: vec!["*".to_owned()], interval: ConflationInterval::IMMEDIATE }];
    (0..8).for_each(|_| world.define());
    (0..clients).for_each(|_| assert!(world.open(None)));
    step(&mut world, 400, 2);
    assert!(behind(&world) == 0, "no client is behind before");
    let before = seen(&world);

    let until_ns = world.now_ns + 90 * MS;
    for client in &mut world.clients {
        client.reading = Reading::Not { until_ns };
    }
    let sent: Vec<u64> = sent(&world);
    step(&mut world, 90, 12);
    let (mut ticks, stopped) = (0, behind(&world));
    while behind(&world) > 0 {
        step(&mut world, 1, 0);
        ticks += 1;
        assert!(ticks < 20_000, "{} clients are behind for ever", behind(&world));
    }
    // What each has been sent since it stopped, and all of them.
    let backlog: Vec<usize> = sent.iter().zip(self::sent(&world)).map(|(from, to)| (to - from) as usize).collect();
    let (largest, all) = (backlog.iter().max().expect("there are clients"), backlog.iter().sum::<usize>());
    let after = seen(&world);
    assert!(stopped > clients as usize / 2, "{stopped} of {clients} clients were behind");
    let most = largest.div_ceil(SOCKET_BYTES) + all.div_ceil(TICK_BYTES) + TICKS;
    assert!(ticks <= most, "{clients} clients, {all} bytes: {ticks} ticks, of {most}");
    assert_eq!(after.gaps, before.gaps, "every record of a log channel comes");
    world.rest();
    world.end();
}

/// Ticks of a millisecond each, with so many records.
fn step(world: &mut World, ticks: u32, records: u32) {
    for _ in 0..ticks {
        world.now_ns += MS;
        if records > 0 {
            world.burst(records);
        }
        world.tick();
        world.deliver();
    }
}

/// Clients that have not been sent everything.
fn behind(world: &World) -> usize {
    world.nodes[0].shard.io().io().conns.iter().filter(|conn| conn.socket.cut).count()
}

fn sent(world: &World) -> Vec<u64> {
    world.nodes[0].shard.io().io().conns.iter().map(|conn| conn.socket.sent).collect()
}

fn seen(world: &World) -> Seen {
    let mut seen = Seen::default();
    world.clients.iter().for_each(|client| seen.add(&client.oracle.seen));
    seen
}
