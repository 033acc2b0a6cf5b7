//! What a seed switches on. Swarm testing: each seed switches most faults off altogether and gives the rest extreme
//! probabilities, because what hides a fault is often another fault.

use crate::Dice;
use crate::planted_bug::PlantedBug;

/// How often each fault of the kernel occurs, in 1024ths unless stated otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A send is cut although there is room.
    pub cut: u32,
    /// A send is refused although there is room.
    pub refused: u32,
    /// A receive finds nothing although there is input.
    pub nothing: u32,
    /// A receive returns less than there is, often a single byte.
    pub piecemeal: u32,
    /// A completion waits for a later reap.
    pub late: u32,
    /// Room in a socket is reported although there is none.
    pub false_room: u32,
    /// A connection is reset, per client and step.
    pub reset: u32,
    /// Completions and short sends come in another order.
    pub shuffled: bool,
    /// A completion for a closed slot is reported once more.
    pub stale: u32,
    /// Receives that one reap has buffers for; 0: as many as there are.
    pub buffers: u32,
    /// Completions that one reap returns, the others being kept for the next; 0: as many as the shard takes.
    pub trickle: u32,
    /// A closed slot is free only some reaps later.
    pub slow_close: u32,
}

/// A seed's world.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub faults: Faults,
    pub planted: Option<PlantedBug>,
    pub shards: u32,
    pub clients: u32,
    /// Slots of each shard.
    pub slots_max: u32,
    pub steps: u32,
    pub instruments: u32,
    pub feed_size: u32,
    pub burst: u32,
    pub ring_bytes: usize,
    pub socket_bytes: usize,
    pub tick_bytes_max: usize,
    pub answers_bytes_max: usize,
    /// A shard that has nothing to do is not ticked before a completion, a record or its deadline, as in the server.
    pub lazy: bool,
    /// This and the following in 1024ths, per client and step or per step.
    pub requests: u32,
    /// A request is one of so many at once.
    pub storm: u32,
    pub pauses: u32,
    pub sleeps: u32,
    pub leaves: u32,
    pub garbage: u32,
    /// A client reconnects in place of one that is gone.
    pub returns: u32,
    pub feed_faults: u32,
    /// All clients want one of so many interests; 0: each its own.
    pub interests: u32,
    /// All clients send one request at the beginning, and then hardly any.
    pub crowd: bool,
    /// Clients over TLS, in 1024ths.
    pub secured: u32,
    /// Different rights that clients have; 0: all see everything.
    pub rights: u32,
    /// Users are revoked, per step in 1024ths.
    pub revocations: u32,
    /// Settings are reloaded that give a user other rights, per step in 1024ths.
    pub reloads: u32,
    /// The age of the data, by which rights are asked about, s.
    pub delay_s: u32,
    pub network: Network,
}

/// How slowly clients read, and how long the shard bears it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Network {
    /// All clients stop reading, per step in 1024ths, for so long at the most.
    pub stalls: u32,
    pub stall_ms: u32,
    /// Bytes in a millisecond that all clients of a shard share; 0: no limit.
    pub link_rate: u32,
    /// Clients in 1024ths that are slow for ever, and what each of them reads in a millisecond.
    pub slow: u32,
    pub slow_rate: u32,
    /// A client that stops reading does so for so long at the most, if not for ever.
    pub pause_ms: u32,
    /// A client that is behind for so long is closed; 0: as in the server.
    pub behind_ms: u32,
}

impl Plan {
    /// One client and no faults.
    pub fn calm() -> Self {
        Self {
            faults: Faults::default(),
            planted: None,
            shards: 1,
            clients: 1,
            slots_max: 10,
            steps: 600,
            instruments: 12,
            feed_size: 10,
            burst: 10,
            ring_bytes: 1 << 20,
            socket_bytes: 1 << 20,
            tick_bytes_max: 256 * 1024,
            answers_bytes_max: 64 * 1024,
            lazy: true,
            requests: 30,
            storm: 1,
            pauses: 0,
            sleeps: 0,
            leaves: 0,
            garbage: 0,
            returns: 0,
            feed_faults: 0,
            interests: 0,
            crowd: false,
            secured: 0,
            reloads: 0,
            rights: 0,
            revocations: 0,
            delay_s: 0,
            network: Network::default(),
        }
    }

    /// The plan of a seed.
    pub fn of_seed(seed: u64) -> Self {
        let dice = &mut Dice::new(seed);
        let faults = Self::faults(dice);
        let (fat, crowd) = (dice.chance(150), dice.chance(256));
        let (clients, steps) = match dice.below(12) {
            0..2 => (100 + dice.below(300), 250),
            2..5 => (20 + dice.below(60), 500),
            _ if crowd => (2 + dice.below(30), 1000),
            _ => (1 + dice.below(12), 1000),
        };
        let mut wild = |most: u32| if dice.chance(512) { 0 } else { dice.below(most) };
        let (requests, storm, pauses, sleeps) = (4 + wild(150), 1 + wild(40), wild(20), wild(60));
        let (leaves, garbage, returns, feed_faults) = (wild(8), wild(6), wild(200), wild(30));
        let network = Self::network(&mut Dice::new(seed ^ 9 << 32));
        let mut of_tls = Dice::new(seed ^ 10 << 32);
        // A handshake takes as long as some hundred steps of a client.
        let secured_max = if clients < 100 { 1024 } else { 100 };
        let secured = if of_tls.chance(512) { of_tls.below(secured_max) } else { 0 };
        let rights_dice = &mut Dice::new(seed ^ 11 << 32);
        let (burst, slots, interests) = (1 + wild(100), wild(8), wild(9));
        Self {
            faults,
            planted: None,
            shards: 1 + if dice.chance(512) { 0 } else { dice.below(4) },
            clients,
            slots_max: clients.checked_div(slots).map_or(u32::MAX, |slots| slots.max(1)),
            steps: if fat { steps / 2 } else { steps },
            instruments: 1 + dice.below(40),
            feed_size: if fat { 200 } else { 1 + dice.below(20) },
            burst: if clients < 100 { burst } else { 1 + burst / 3 },
            ring_bytes: 1 << (if fat { 17 } else { 15 } + dice.below(5)),
            // A slow client is to read many times what its socket holds.
            socket_bytes: 1 << (10 + dice.below(9)).min(if network.slow > 0 { 13 } else { u32::MAX }),
            tick_bytes_max: if dice.chance(300) { 1 + dice.below(2000) as usize } else { 256 * 1024 },
            answers_bytes_max: if dice.chance(300) { 1 + dice.below(4000) as usize } else { 64 * 1024 },
            lazy: dice.chance(700),
            requests: match crowd {
                true => 1,
                false if clients < 100 => requests,
                false => requests / 4,
            },
            storm: if dice.chance(300) { storm } else { 3 },
            pauses,
            sleeps,
            leaves,
            garbage,
            returns,
            feed_faults,
            interests: if crowd { interests.clamp(1, 4) } else { interests },
            crowd,
            secured,
            rights: if rights_dice.chance(512) { 0 } else { 1 + rights_dice.below(6) },
            revocations: if rights_dice.chance(512) { 0 } else { rights_dice.below(12) },
            delay_s: if rights_dice.chance(700) { 0 } else { 900 },
            reloads: if rights_dice.chance(512) { 0 } else { rights_dice.below(20) },
            network,
        }
    }

    /// True if a socket may seem full for long although its client reads.
    pub fn stalls(&self) -> bool {
        let Faults { refused, late, trickle, .. } = self.faults;
        let Network { link_rate, slow, .. } = self.network;
        refused > 0 || late > 0 || trickle > 0 || self.sleeps > 0 || link_rate > 0 || slow > 0
    }

    fn network(dice: &mut Dice) -> Network {
        let mut network = Network { pause_ms: 1500, ..Network::default() };
        if dice.chance(200) {
            // Most stalls are shorter than what a shard keeps of what it has sent.
            let stall_ms = if dice.chance(700) { 20 + dice.below(150) } else { dice.below(2000) };
            (network.stalls, network.stall_ms) = (1 + dice.below(10), stall_ms);
        }
        if dice.chance(150) {
            network.link_rate = 1 << (3 + dice.below(8));
        }
        if dice.chance(200) {
            (network.slow, network.slow_rate) = (100 + dice.below(924), 1 << dice.below(8));
        }
        if dice.chance(200) {
            network.pause_ms = 9000;
        }
        if dice.chance(200) {
            network.behind_ms = 1000 + dice.below(5000);
        }
        network
    }

    fn faults(dice: &mut Dice) -> Faults {
        let mut wild = |most: u32| if dice.chance(512) { 0 } else { dice.below(most) };
        Faults {
            cut: wild(900),
            refused: wild(600),
            nothing: wild(700),
            piecemeal: wild(1000),
            late: wild(900),
            false_room: wild(200),
            reset: wild(8),
            shuffled: wild(2) == 1,
            stale: wild(1000),
            buffers: wild(4),
            trickle: wild(12),
            slow_close: wild(1000),
        }
    }
}
