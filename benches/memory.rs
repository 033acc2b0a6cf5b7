//! The memory of the process for a client, without the kernel's.
//!
//! Method: a node of `node/` (a real sequencer, ring and shard on an `Io` that accepts every send) adds its clients in
//! waves and flushes once; then `/proc/self/statm` gives the resident memory. The same node without clients is the
//! base: ring, directory, last values. The figure is the difference divided by the number of clients. Each node has a
//! process of its own, because memory that an earlier node freed would hide what the next one takes. The allocator is
//! the server's, mimalloc, set to return freed pages at once. The floor is what a client takes in a list of sends,
//! without which there is no flush.
//!
//! Not measured: the kernel's memory of a socket, which is more; clients with pending bytes; fragmentation over weeks.

mod node;

use std::process::{Command, ExitCode};

use tickcast::io::SendOp;

use self::node::shapes::Shape;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// First argument of the process that has the node; shape and number of clients follow.
const RESIDENT: &str = "resident";

struct Population {
    name: &'static str,
    clients: u32,
    make: fn(u32) -> Shape,
}

const POPULATIONS: [Population; 3] = [
    Population {
        name: "1,000,000 clients, one audience",
        clients: 1_000_000,
        make: |clients| Shape::one_audience(clients, 1),
    },
    Population {
        name: "100,000 clients, a watchlist of 10 of 10,000 each",
        clients: 100_000,
        make: |clients| Shape::watchlists(clients, 10, 10_000, 1_000),
    },
    Population {
        name: "100,000 clients, a symbol of its own each",
        clients: 100_000,
        make: |clients| Shape::one_symbol_each(clients, 100_000, 100_000),
    },
];

/// Resident bytes of this process, and the sends of its flush.
fn print_resident(arguments: &[String]) -> Option<()> {
    let [population, clients] = arguments else { return None };
    let population = POPULATIONS.get(population.parse::<usize>().ok()?)?;
    let mut shape = (population.make)(clients.parse().ok()?);
    let sends = shape.sent_by(Shape::flush).sends;
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    // proc(5): the second number is the resident pages.
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    println!("{} {sends}", pages * rustix::param::page_size() as u64);
    Some(())
}

/// Resident bytes and sends of a process with so many clients.
fn resident(population: usize, clients: u32) -> Result<(u64, u64), String> {
    let program = std::env::current_exe().map_err(|error| format!("the program does not find itself: {error}"))?;
    let output = Command::new(program)
        .args([RESIDENT, &population.to_string(), &clients.to_string()])
        // Milliseconds that freed pages stay resident. Pages that the set-up freed would count with the base, and hide
        // what the clients take.
        .env("MIMALLOC_PURGE_DELAY", "0")
        .output()
        .map_err(|error| format!("the program does not start a second time: {error}"))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let numbers = printed.trim().split_once(' ');
    numbers.and_then(|(bytes, sends)| Some((bytes.parse().ok()?, sends.parse().ok()?))).ok_or_else(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        format!("the process with {clients} clients printed {printed:?}: expected bytes and sends: {errors}")
    })
}

fn print_table() -> Result<(), String> {
    println!("| population | bytes a client | of them the floor, its send | all clients |\n|---|---|---|---|");
    for (index, Population { name, clients, .. }) in POPULATIONS.iter().enumerate() {
        let (base, _) = resident(index, 0)?;
        let (with_clients, sends) = resident(index, *clients)?;
        if sends < u64::from(*clients) / 2 {
            return Err(format!("{name}: only {sends} were sent what most of them want"));
        }
        let grown = with_clients.saturating_sub(base);
        let each = grown / u64::from(*clients);
        println!("| {name} | {each} | {} | {} MiB |", size_of::<SendOp>(), grown >> 20);
    }
    Ok(())
}

fn main() -> ExitCode {
    // Arguments for cargo, such as `--bench`, are ignored.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((RESIDENT, rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        print_resident(rest).expect("the number of a population and of clients follow, and /proc is there");
        return ExitCode::SUCCESS;
    }
    match print_table() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memory: {error}");
            ExitCode::FAILURE
        }
    }
}
