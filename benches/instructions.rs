//! The cost of a delivery in user-space instructions: a figure that does not change on a busy machine.
//!
//! Method: started by `cargo bench`, the program runs itself under `valgrind --tool=callgrind`, which counts. Each
//! shape is a node of `node/`, a real sequencer, ring and shard on an `Io` that takes every byte at once, and runs
//! twice, with different numbers of flushes. Only `measured_flushes` and what it calls is counted; the difference of
//! the two runs excludes what the first flushes do once, like growing vectors. A figure is that difference divided by
//! the difference in flushes, in sends (one a client and flush), and in records delivered (one in a send to one
//! client). The first runs are without clients, the floor: the same quotes are sequenced, written to the ring and read
//! by the shard. With 8 rings the sequencer writes to 7 more, which are not read.
//!
//! Runs of one build print the same figures on a busy machine and an idle one. Another compiler, cargo profile or C
//! library (which chooses its copy routine by the processor) changes them, so only figures of one machine compare.
//!
//! Not measured: time. Instructions that wait for memory count as much as others; those of the kernel, which are most
//! of the cost of a send, do not count.

mod node;

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, ExitCode};

use tickcast::shard::Encoding;
use tickcast_protocol::ws::deflate::WindowBits;

use self::node::Node;
use self::node::shapes::{Sent, Shape};

/// Flushes of the two runs. After ten, a shape's stride has visited its symbols evenly.
const FLUSHES: [u32; 2] = [10, 30];
/// First argument of the program that runs under valgrind; shape and flushes follow.
const COUNTED: &str = "counted";

struct Workload {
    name: &'static str,
    make: fn() -> Shape,
}

const WORKLOADS: [Workload; 12] = [
    Workload { name: "floor: no client, 1 quote a flush", make: || Shape::one_audience(0, 1) },
    Workload { name: "floor: no client, 100 quotes a flush", make: || Shape::one_audience(0, 100) },
    Workload {
        name: "floor: no client, 100 quotes a flush, 8 rings",
        make: || Shape::new(Node::with_rings(100, 8), 100, 100),
    },
    Workload { name: "floor: no client, 1,000 quotes a flush", make: || Shape::one_audience(0, 1_000) },
    Workload { name: "one audience of 10,000, 1 quote a flush", make: || Shape::one_audience(10_000, 1) },
    Workload { name: "one audience of 10,000, 100 quotes a flush", make: || Shape::one_audience(10_000, 100) },
    Workload { name: "one audience of 1,000, 100 quotes a flush", make: || Shape::one_audience(1_000, 100) },
    Workload { name: "the same 1,000 in JSON", make: || Shape::one_audience_as(Encoding::JSON, 1_000, 100) },
    Workload { name: "the same 1,000 in JSON, compressed", make: || Shape::one_audience_as(deflated(), 1_000, 100) },
    Workload { name: "the same 1,000 as events", make: || Shape::one_audience_as(Encoding::EVENTS, 1_000, 100) },
    Workload {
        name: "5,000 watchlists of 50 of 1,000, 100 quotes a flush",
        make: || Shape::watchlists(5_000, 50, 1_000, 100),
    },
    Workload {
        name: "10,000 clients with a symbol each, 1,000 quotes a flush",
        make: || Shape::one_symbol_each(10_000, 10_000, 1_000),
    },
];

fn deflated() -> Encoding {
    Encoding { deflate: Some(WindowBits::MOST), ..Encoding::JSON }
}

/// The counts of one run, or the difference of two.
struct Count {
    flushes: u64,
    instructions: u64,
    sent: Sent,
}

impl Count {
    fn less(&self, fewer: &Self) -> Self {
        let sent = Sent { sends: self.sent.sends - fewer.sent.sends, records: self.sent.records - fewer.sent.records };
        let instructions = self.instructions - fewer.instructions;
        Self { flushes: self.flushes - fewer.flushes, instructions, sent }
    }

    fn row(&self, name: &str) -> String {
        let by = |amount: u64, digits: usize| match amount {
            0 => "".to_owned(),
            _ => format!("{:.digits$}", self.instructions as f64 / amount as f64),
        };
        let Sent { sends, records } = self.sent;
        format!("| {name} | {} | {} | {} |", by(self.flushes, 0), by(sends, 1), by(records, 1))
    }
}

/// callgrind counts this function, which it finds by its name, and what it calls.
#[inline(never)]
fn measured_flushes(shape: &mut Shape, flushes: u32) {
    for _ in 0..flushes {
        shape.flush();
    }
}

/// Under valgrind: flushes, and prints what was sent to the standard output.
fn run_counted(arguments: &[String]) -> Option<()> {
    let [shape, flushes] = arguments else { return None };
    let workload = WORKLOADS.get(shape.parse::<usize>().ok()?)?;
    let flushes = flushes.parse().ok()?;
    let sent = (workload.make)().sent_by(|shape| measured_flushes(shape, flushes));
    println!("{} {}", sent.sends, sent.records);
    Some(())
}

/// One run under valgrind.
fn count(shape: usize, flushes: u32, folder: &Path) -> Result<Count, String> {
    let counts = folder.join(format!("{shape}-{flushes}"));
    let program =
        std::env::current_exe().map_err(|error| format!("the program does not find its own path: {error}"))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--toggle-collect=*measured_flushes*"])
        .arg([OsStr::new("--callgrind-out-file="), counts.as_os_str()].join(OsStr::new("")))
        .arg(program)
        .args([COUNTED, &shape.to_string(), &flushes.to_string()])
        .output()
        .map_err(|error| format!("valgrind does not start: {error}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!(
            "valgrind ended with {}: {stdout}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    let sent = stdout
        .trim()
        .split_once(' ')
        .and_then(|(sends, records)| Some(Sent { sends: sends.parse().ok()?, records: records.parse().ok()? }));
    let sent = sent.ok_or_else(|| format!("invalid output {stdout:?}: expected the numbers of sends and records"))?;
    let counted = std::fs::read_to_string(&counts).map_err(|error| format!("callgrind wrote no counts: {error}"))?;
    let instructions = counted.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    let instructions = instructions
        .filter(|counted| *counted > 0)
        .ok_or("callgrind counted nothing: the function `measured_flushes` was not found; was the program stripped?")?;
    Ok(Count { flushes: flushes.into(), instructions, sent })
}

/// Runs the shapes whose names hold one of `wanted`, or all, and prints the table.
fn print_table(wanted: &[String]) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder for callgrind's counts: {error}"))?;
    println!("| shape | instructions a flush | a send | a record delivered |\n|---|---|---|---|");
    for (shape, Workload { name, .. }) in WORKLOADS.iter().enumerate() {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part)) {
            continue;
        }
        let [fewer, more] = FLUSHES.map(|flushes| count(shape, flushes, folder.path()));
        let (fewer, more) = (fewer?, more?);
        let difference = more.less(&fewer);
        if !name.starts_with("floor") && (difference.sent.sends == 0 || difference.sent.records == 0) {
            return Err(format!("{name}: nothing was sent"));
        }
        println!("{}", difference.row(name));
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((COUNTED, rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        run_counted(rest).expect("the number of a shape and of flushes follow");
        return ExitCode::SUCCESS;
    }
    let absent = |error: &std::io::Error| error.kind() == ErrorKind::NotFound;
    if Command::new("valgrind").arg("--version").output().is_err_and(|error| absent(&error)) {
        // No failure: the other benches of the same `cargo bench` need no valgrind.
        eprintln!("instructions: SKIPPED: valgrind is not installed (apt-get install valgrind)");
        return ExitCode::SUCCESS;
    }
    // Options like `--bench` are for cargo and criterion.
    let wanted: Vec<String> = arguments.into_iter().filter(|argument| !argument.starts_with('-')).collect();
    match print_table(&wanted) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}
