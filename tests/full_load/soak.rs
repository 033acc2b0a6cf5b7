//! A soak test of the program: a market at full speed, clients that connect, stall, disconnect and are killed, a
//! publisher that is killed. Afterwards no descriptor, slot, subscription or memory is left in use.
//!
//! `cargo test` runs a short one. This command runs an hour of the default market in some minutes, and prints the
//! rounds:
//!
//!     TICKCAST_SOAK_TICKS=72000000 cargo test --release --test full_load soak -- --nocapture
//!
//! A second one has all kinds of attacks, one after another, `TICKCAST_SOAK_ATTACKS` rounds of them.

use std::fs;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;
use tickcast_test_support::DEADLINE;
use tickcast_test_support::client::Client;
use tickcast_test_support::exclusive::exclusive;
use tickcast_test_support::server::{Program, Server};

/// Ticks of the short run: 150 s of the default market.
const TICKS: u64 = 3_000_000;
/// Allowed growth of memory after the first rounds: pages that the allocator keeps, tables that grew.
const GROWTH_BYTES_MAX: u64 = 12 << 20;
/// Rounds after which nothing should grow any more: every kind of event has occurred by then.
const ROUNDS_TO_WARM_UP: usize = 2;

/// What the first attacks may leave: a directory of 20,000 instruments, and tables that grew.
const FILLED_BYTES_MAX: u64 = 96 << 20;

/// What the other attacks may leave: pages that the allocator keeps. At its peak an attack takes up to 200 MiB more.
const KEPT_BYTES_MAX: u64 = 24 << 20;

/// The resources of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resources {
    pub(crate) descriptors: usize,
    pub(crate) private_bytes: u64,
}

impl Resources {
    pub(crate) fn of(program: &Program) -> Self {
        let folder = format!("/proc/{}", program.id());
        let rollup = fs::read_to_string(format!("{folder}/smaps_rollup")).expect("it runs");
        let private = rollup.lines().filter(|line| line.starts_with("Private_"));
        let kib =
            private.map(|line| line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number"));
        Self {
            descriptors: fs::read_dir(format!("{folder}/fd")).expect("it runs").count(),
            private_bytes: kib.sum::<u64>() * 1024,
        }
    }
}

struct Soak {
    server: Server,
    address: String,
    /// Descriptors before the first client.
    descriptors: usize,
}

impl Soak {
    fn start() -> Self {
        let market = "sim:instruments=500,rate=400000,seed=5";
        let server =
            Server::start(&["--feed", market, "--publish-token", "test-publish-token", "--slow-timeout-ms", "2000"]);
        let address = server.address.to_string();
        let descriptors = Resources::of(&server.program).descriptors;
        // The market has started.
        server.wait_for_metric("tickcast_sequencer_records_total", |records| records > 10_000);
        Self { server, address, descriptors }
    }

    fn ticks(&self) -> u64 {
        self.server.metric_values("tickcast_sequencer_records_total").iter().sum()
    }

    /// Normal clients among some that stall and some that disconnect; every stream is checked.
    fn checked_load(&self) {
        let args =
            ["load", &self.address, "--clients", "40", "--shape", "random:20", "--seconds", "2", "--warmup", "0"];
        let exit = Program::run(&[&args[..], &["--stalled", "10", "--churn", "20", "--json"]].concat());
        // 3: the machine is busy, so the rates mean nothing; the checks of the streams are valid.
        assert!(matches!(exit.code, Some(0 | 3)), "{exit:?}");
        let report: Value = serde_json::from_str(&exit.stdout).expect("JSON");
        assert_eq!((&report["sequence_violations"], &report["malformed"]), (&0.into(), &serde_json::json!({})));
    }

    /// Clients and their publisher, killed while they run.
    fn killed_load(&self) {
        let args =
            ["load", &self.address, "--clients", "30", "--publish", "500", "--publish-token", "test-publish-token"];
        let load = Program::spawn(Program::command(&[&args[..], &["--seconds", "600"]].concat()));
        let tap = Program::spawn(Program::command(&["tap", &self.address]));
        self.server.wait_for_metric("tickcast_publishers", |publishers| publishers == 1);
        self.server.wait_for_metric("tickcast_clients", |clients| clients == 31);
        load.signal(Signal::KILL);
        tap.signal(Signal::KILL);
        self.server.wait_for_metric("tickcast_publishers", |publishers| publishers == 0);
    }

    /// Clients that subscribe to everything and read nothing. Half of them disconnect with unread data; the server
    /// closes the others.
    fn stalled_clients(&self) {
        let closed = || self.server.metric_values("tickcast_slow_closed_total").iter().sum::<u64>();
        let before = closed();
        let everything = r#"{"op":"subscribe","id":1,"channels":["quote","trade","ticker","book"],"symbols":["*"]}"#;
        let open = |_| {
            let mut client = self.server.client();
            client.send_text(everything);
            client
        };
        let mut clients: Vec<Client> = (0..10).map(open).collect();
        self.server.wait_for_metric("tickcast_catching_up", |behind| behind >= 10);
        clients.truncate(5);
        self.server.wait_for_metric("tickcast_slow_closed_total", |closed| closed >= before + 5);
    }

    /// Waits until no client is left, and returns the resources in use.
    fn at_rest(&self) -> Resources {
        for level in ["tickcast_clients", "tickcast_catching_up", "tickcast_audiences", "tickcast_publishers"] {
            self.server.wait_for_metric(level, |value| value == 0);
        }
        let accepted: u64 = self.server.metric_values("tickcast_clients_accepted_total").iter().sum();
        let closed: u64 = self.server.metric_values("tickcast_clients_closed_total").iter().sum();
        assert_eq!(accepted, closed, "every accepted client is closed");
        // The connection of the last request for metrics may still be open.
        let until = Instant::now() + DEADLINE;
        loop {
            let held = Resources::of(&self.server.program);
            if held.descriptors <= self.descriptors {
                return held;
            }
            assert!(Instant::now() < until, "{held:?}, and {} descriptors at the start", self.descriptors);
            std::thread::yield_now();
        }
    }
}

/// All attacks that do not stop the server's process, a run for each line. Those of the first line fill the directory and
/// the tables of names, which keep some memory.
const ATTACKS: [&str; 3] = [
    "publisher-flood,patterns,slow-headers,half-open,connects",
    "unread-answers,pings,pongs,partial-messages,compressed",
    "subscribes,reconnects,nested-patterns,gets,unsubscribes",
];

/// Attacks, one after another, each beside clients that are well-behaved, whose streams are checked.
fn attack(address: &str, kinds: &str) {
    let args = ["load", address, "--clients", "20", "--publish", "100", "--instruments", "20", "--seconds", "1"];
    let load = ["--warmup", "0", "--publish-token", "load-publish-token-1", "--attack-token", "flood-publish-token-1"];
    let exit = Program::run(&[&args[..], &load, &["--attack", kinds, "--json"]].concat());
    assert!(matches!(exit.code, Some(0 | 3)), "{exit:?}");
    let report: Value = serde_json::from_str(&exit.stdout).expect("JSON");
    assert_eq!(report["attacked"]["runs"].as_array().map(Vec::len), Some(kinds.split(',').count()), "{report}");
}

#[test]
fn memory_is_given_back_after_all_attacks() {
    let _machine = exclusive();
    let rounds = std::env::var("TICKCAST_SOAK_ATTACKS").map_or(1, |text| text.parse().expect("a number of rounds"));
    let settings = r#"
        feed = ["sim:instruments=200,rate=2000,seed=1"]
        compression = "1"
        publisher = [
            { name = "load", token = "load-publish-token-1" },
            { name = "flood", token = "flood-publish-token-1" },
        ]"#;
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), settings).expect("written");
    let server = Server::start(&["--config", &file.path().display().to_string()]);
    let address = server.address.to_string();
    let mut most = Resources::of(&server.program).private_bytes + FILLED_BYTES_MAX;
    for (nth, kinds) in ATTACKS.iter().cycle().take(ATTACKS.len() * rounds).enumerate() {
        attack(&address, kinds);
        // Names of clients that have left are removed in portions.
        let until = Instant::now() + DEADLINE;
        let held = loop {
            let held = Resources::of(&server.program);
            if held.private_bytes <= most {
                break held;
            }
            assert!(Instant::now() < until, "{held:?} after {kinds}, at most {most} B are expected");
            std::thread::yield_now();
        };
        println!("{kinds}: {} descriptors, {} KiB", held.descriptors, held.private_bytes / 1024);
        if nth == 0 {
            most = held.private_bytes + KEPT_BYTES_MAX;
        }
    }
    let exit = server.stop(Signal::TERM);
    assert_eq!(exit.code, Some(0), "{exit:?}");
}

#[test]
fn no_resource_is_left_after_clients_stall_disconnect_and_are_killed() {
    let _machine = exclusive();
    let ticks = std::env::var("TICKCAST_SOAK_TICKS").map_or(TICKS, |text| text.parse().expect("a number of ticks"));
    let soak = Soak::start();
    let mut warm: Option<Resources> = None;
    for round in 1.. {
        soak.checked_load();
        soak.killed_load();
        soak.stalled_clients();
        let held = soak.at_rest();
        let so_far = soak.ticks();
        println!("round {round}: {so_far} ticks, {} descriptors, {} KiB", held.descriptors, held.private_bytes / 1024);
        match warm {
            None if round >= ROUNDS_TO_WARM_UP => warm = Some(held),
            None => {}
            Some(warm) => {
                let growth = held.private_bytes.saturating_sub(warm.private_bytes);
                assert!(
                    growth <= GROWTH_BYTES_MAX,
                    "grown by {growth} B from {warm:?} to {held:?} after round {round}"
                );
                if so_far >= ticks {
                    break;
                }
            }
        }
    }
    let exit = soak.server.stop(Signal::TERM);
    assert_eq!(exit.code, Some(0), "{exit:?}");
}
