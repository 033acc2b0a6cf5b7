//! One run: a server or a floor on its core, the load on the other, and the results of both.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;
use tickcast::load::{CpuTime, ObservedProcess};
use tickcast_test_support::tls::Authority;

/// How often memory and CPU time are sampled.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);

/// The program under load, and its arguments.
pub struct Setup {
    pub program: Program,
    /// Further arguments of the program.
    pub args: &'static [&'static str],
    /// Further arguments of the load.
    pub load: &'static [&'static str],
    /// Memory in small pages: mimalloc uses huge ones, and two or three pages of 2 MiB more or less hide what 15,000
    /// clients take.
    pub small_pages: bool,
    /// Ask `/v1/operator` for the slow clients while the load runs.
    pub operator: bool,
    /// Clients and publisher connect over TLS.
    pub is_secured: bool,
}

/// What serves. A server has `cores` for its shards and its other threads.
pub enum Program {
    /// A server for the load's publisher.
    Server {
        cores: &'static str,
    },
    /// A server with the default settings: the simulated market.
    Market {
        cores: &'static str,
    },
    Floor,
}

/// The results of a run.
pub struct Outcome {
    /// The load's report.
    report: Value,
    samples: Vec<Sample>,
    /// The most bytes that the server kept for one client, where it was asked.
    pending_bytes_max: Option<f64>,
    /// The counts of a floor; none for a server.
    tally: Option<Value>,
}

struct Sample {
    anonymous_bytes: u64,
    cpu: CpuTime,
}

/// Starts the program, loads it, and stops it.
pub fn run(setup: &Setup, load: &[&str], seconds: u32) -> Result<Outcome, String> {
    let mut served = Served::start(setup)?;
    let sampler = Sampler::start(served.child.id(), setup.operator.then_some(served.address));
    let report = load_it(&served, setup, load, seconds);
    let (samples, pending_bytes_max) = sampler.stop();
    let tally = served.end()?;
    let outcome = Outcome { report: report?, samples, pending_bytes_max, tally };
    match outcome.bottleneck() {
        Some(why) => Err(format!("the load generator was the bottleneck: {why}")),
        None => Ok(outcome),
    }
}

fn load_it(served: &Served, setup: &Setup, load: &[&str], seconds: u32) -> Result<Value, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tickcast"));
    command.args(["load", &served.url, "--json", "--seconds", &seconds.to_string()]);
    command.args(load).args(setup.load);
    if let Some(authority) = &served.authority {
        command.arg("--ca").arg(authority.path("ca.pem"));
    }
    match setup.program {
        Program::Server { .. } if load.contains(&"--publish") => {
            command.args(["--publish-token", "bars-publish-token"])
        }
        Program::Server { .. } | Program::Market { .. } => &mut command,
        // It has neither definitions nor subscriptions: every connection gets all messages.
        Program::Floor => command.args(["--publish-plain", "--message", ""]),
    };
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| format!("tickcast load: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).map_err(|_| format!("tickcast load ended with {} and no report", output.status))
}

/// A program that serves; it is stopped when this is dropped.
struct Served {
    child: Child,
    address: SocketAddr,
    /// Where the load connects.
    url: String,
    /// Of its certificate, if it has one.
    authority: Option<Authority>,
    stdout: BufReader<ChildStdout>,
}

impl Served {
    fn start(setup: &Setup) -> Result<Self, String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tickcast"));
        command.env("TICKCAST_OPERATOR_TOKEN", OPERATOR_TOKEN);
        let (announces, cores) = match setup.program {
            Program::Server { cores } => {
                command.args(["serve", "--feed", "none", "--publish-token", "bars-publish-token", "--log", "warn"]);
                // The row measures the cost of a connection, not the limit of admission.
                command.args(["--handshakes-per-s", "0"]);
                command.args(["--listen", "127.0.0.1:0", "--cores", cores]);
                ("serving on http://", cores)
            }
            Program::Market { cores } => {
                command.args(["serve", "--log", "warn", "--listen", "127.0.0.1:0", "--cores", cores]);
                ("serving on http://", cores)
            }
            Program::Floor => {
                command.args(["floor", "--listen", "127.0.0.1:0"]);
                ("listening on ", "0")
            }
        };
        let authority = setup.is_secured.then(Authority::new);
        if let Some(authority) = &authority {
            command.arg("--tls-cert").arg(authority.path("cert.pem"));
            command.arg("--tls-key").arg(authority.path("key.pem"));
            if !matches!(setup.program, Program::Floor) {
                command.args(["--tls-listen", "127.0.0.1:0"]);
            }
        }
        command.args(setup.args).stdin(Stdio::piped()).stdout(Stdio::piped());
        if setup.small_pages {
            command.env("MIMALLOC_ALLOW_THP", "0");
        }
        let mut child = on_cores(cores, || command.spawn())?;
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let (mut line, mut address, mut secured) = (String::new(), None::<SocketAddr>, None::<SocketAddr>);
        while stdout.read_line(&mut line).is_ok_and(|read| read > 0) {
            let after = |text: &str| line.split(text).nth(1).and_then(|rest| rest.trim().parse().ok());
            address = address.or_else(|| after(announces));
            // A floor has one port for both.
            secured = secured.or_else(|| match setup.program {
                Program::Floor => address,
                _ => after("serving TLS on https://"),
            });
            if let (Some(address), Some(secured)) = (address, secured.or(address.filter(|_| authority.is_none()))) {
                let url = match &authority {
                    Some(_) => format!("wss://localhost:{}", secured.port()),
                    None => address.to_string(),
                };
                return Ok(Self { child, address, url, authority, stdout });
            }
            line.clear();
        }
        // It has closed its output, so it has exited or is about to.
        let _ = child.kill();
        Err(format!("the program does not serve: {:?}", child.wait()))
    }

    /// Stops it, and returns the counts of a floor.
    fn end(&mut self) -> Result<Option<Value>, String> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).map_err(|error| format!("the program has ended by itself: {error}"))?;
        let mut last = None;
        for line in (&mut self.stdout).lines().map_while(Result::ok) {
            last = serde_json::from_str(&line).ok().filter(Value::is_object).or(last);
        }
        self.child.wait().map_err(|error| error.to_string())?;
        Ok(last)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Both do nothing where it has exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a process whose threads all stay on these cores: a child inherits them from the thread that starts it.
fn on_cores(cores: &str, start: impl FnOnce() -> std::io::Result<Child>) -> Result<Child, String> {
    let problem = |error: &dyn std::fmt::Display| format!("cores {cores}: {error}");
    let before = sched_getaffinity(None).map_err(|error| problem(&error))?;
    let mut set = CpuSet::new();
    for core in cores.split(',') {
        set.set(core.parse().expect("rows name cores by number"));
    }
    sched_setaffinity(None, &set).map_err(|error| problem(&error))?;
    let started = start().map_err(|error| problem(&error));
    sched_setaffinity(None, &before).map_err(|error| problem(&error))?;
    started
}

/// Samples a process at intervals.
struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Vec<Sample>, Option<f64>)>,
}

impl Sampler {
    /// Samples the process, and asks the server at `operator` for its slow clients.
    fn start(pid: u32, operator: Option<SocketAddr>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let process = ObservedProcess::of(pid);
            let (mut samples, mut pending) = (Vec::new(), None);
            // Relaxed: the flag carries no other data.
            while !stopped.load(Ordering::Relaxed) {
                // A process that has exited has no figures; the run reports it.
                if let (Ok(memory), Ok(cpu)) = (process.memory(), process.cpu()) {
                    samples.push(Sample { anonymous_bytes: memory.anonymous, cpu });
                }
                pending = operator.and_then(pending_bytes).into_iter().chain(pending).reduce(f64::max);
                std::thread::sleep(SAMPLE_INTERVAL);
            }
            (samples, pending)
        });
        Self { stop, thread }
    }

    fn stop(self) -> (Vec<Sample>, Option<f64>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the sampler does not panic")
    }
}

/// Of the servers that this bench starts.
const OPERATOR_TOKEN: &str = "token-of-the-bench";

/// The most bytes that the server keeps for one of its slow clients now, 0 where none is slow. `None` where it does not
/// answer.
fn pending_bytes(address: SocketAddr) -> Option<f64> {
    let mut stream = TcpStream::connect_timeout(&address, SAMPLE_INTERVAL).ok()?;
    stream.set_read_timeout(Some(SAMPLE_INTERVAL)).ok()?;
    write!(stream, "GET /v1/operator HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {OPERATOR_TOKEN}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let view: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
    let slow = view["slow"].as_array()?;
    Some(slow.iter().filter_map(|client| client["pending_bytes"].as_f64()).fold(0.0, f64::max))
}

impl Outcome {
    fn number(&self, pointer: &str) -> Option<f64> {
        self.report.pointer(pointer)?.as_f64()
    }

    /// CPU time of all the server's threads for each record that a client received.
    pub fn cpu_ns(&self) -> Option<f64> {
        self.number("/server/cpu_ns_per_delivery")
    }

    pub fn p50_ms(&self) -> Option<f64> {
        Some(self.number("/measured/latency_recv/p50_ns")? / 1e6)
    }

    pub fn p90_ms(&self) -> Option<f64> {
        Some(self.number("/measured/latency_recv/p90_ns")? / 1e6)
    }

    pub fn max_ms(&self) -> Option<f64> {
        Some(self.number("/measured/latency_recv/max_ns")? / 1e6)
    }

    pub fn p99_ms(&self) -> Option<f64> {
        Some(self.number("/measured/latency_recv/p99_ns")? / 1e6)
    }

    /// A number of the attack's report.
    pub fn attack_number(&self, pointer: &str) -> Option<f64> {
        self.number(&format!("/attacked/runs/0/report/attack/{pointer}"))
    }

    /// How many actions of the attack a core can serve in a second, by the CPU time that they have added.
    pub fn actions_per_core_second(&self) -> Option<f64> {
        let cores = self.attack_number("cores/during")? - self.attack_number("cores/before")?;
        let seconds = self.attack_number("phases/seconds")?;
        Some(self.attack_number("count/actions")? / (cores * seconds))
    }

    pub fn accepts_per_second(&self) -> Option<f64> {
        self.number("/storm/accepts_per_second")
    }

    pub fn storm_p99_ms(&self) -> Option<f64> {
        Some(self.number("/storm/live_latency/p99_ns")? / 1e6)
    }

    /// The share of a report that is about clients that read slowly.
    pub fn limited_number(&self, pointer: &str) -> Option<f64> {
        self.number(&format!("/limited/{pointer}"))
    }

    /// Clients that read slowly and were closed by the server.
    pub fn limited_closed(&self) -> Option<f64> {
        Some(count(&self.report["limited"]["closes"]))
    }

    /// CPU time for each record that a slow client received: what is left of the server's when each record to the others
    /// costs as much as without slow clients. For a run without them: of each record.
    pub fn limited_cpu_ns(&self, without: Option<&Self>) -> Option<f64> {
        let (each, rate) = (self.cpu_ns()?, self.number("/measured/records_per_second")?);
        let Some(without) = without else { return Some(each) };
        let slow = self.limited_number("records_per_second")?;
        Some((each * rate - without.cpu_ns()? * (rate - slow)) / slow)
    }

    /// The p99 of the age of what slow clients read, of the second in which it was greatest.
    pub fn limited_worst_p99_ms(&self) -> Option<f64> {
        let ages = self.seconds().filter_map(|row| row.pointer("/limited/latency/p99_ns")?.as_f64());
        Some(ages.reduce(f64::max)? / 1e6)
    }

    /// The most bytes that the server kept for one client.
    pub fn pending_bytes_max(&self) -> Option<f64> {
        self.pending_bytes_max
    }

    /// A percentile of clients that did not pause, after the pause of others; without a pause, of all.
    pub fn live_ms(&self, percentile: &str) -> Option<f64> {
        let part = if self.report["pause"].is_object() { "pause/live_latency" } else { "measured/latency_recv" };
        Some(self.number(&format!("/{part}/{percentile}"))? / 1e6)
    }

    /// Seconds from the end of the pause until a second of which the p99 is at most so many times that of the reference
    /// before the pause (the median of its seconds). As long as the run where there is none.
    pub fn recovery_seconds(&self, reference: &Self, times: f64) -> Option<f64> {
        let pause = &self.report["pause"];
        let (at, length) = (pause["at_seconds"].as_f64()?, pause["for_seconds"].as_f64()?);
        let p99 = |row: &Value| row.pointer("/latency/p99_ns")?.as_f64();
        let mut before: Vec<_> = reference.seconds().take(at as usize).filter_map(p99).collect();
        before.sort_by(f64::total_cmp);
        let most = before.get(before.len() / 2)? * times;
        let end = at + length;
        let mut after = self.seconds().enumerate().skip(end.ceil() as usize);
        let recovered = after.find(|(_, row)| p99(row).is_some_and(|p99| p99 <= most));
        let second = recovered.map_or(self.seconds().count(), |(second, _)| second);
        Some(second as f64 - end)
    }

    /// The rows of the time line.
    fn seconds(&self) -> impl Iterator<Item = &Value> {
        self.report["measured"]["timeline"].as_array().into_iter().flatten()
    }

    /// Streams out of order, and clients without a read rate that the server closed.
    pub fn broken(&self) -> Option<f64> {
        Some(self.number("/sequence_violations")? + count(&self.report["closes"]))
    }

    /// Records that are missing for any reason, and streams out of order. A connection that the server closed counts as
    /// one.
    pub fn lost(&self) -> Option<f64> {
        let announced = self.number("/delivered/lost")?;
        let dropped = self.tally.as_ref().and_then(|tally| tally["dropped"].as_f64()).unwrap_or(0.0);
        Some(self.number("/delivered/missing")? + announced + self.broken()? + dropped)
    }

    /// The maximum of heap and stacks, without those before the first connection, for each of `count`.
    pub fn anonymous_each(&self, count: f64) -> Option<f64> {
        let before = self.samples.first()?.anonymous_bytes;
        let most = self.samples.iter().map(|sample| sample.anonymous_bytes).max()?;
        Some((most - before) as f64 / count)
    }

    /// Heap and stacks at the end, when all are still connected: the maximum of the last quarter.
    pub fn anonymous_end(&self) -> Option<f64> {
        self.most_anonymous(3)
    }

    /// Their growth from the third quarter of the run to the last.
    pub fn anonymous_growth(&self) -> Option<f64> {
        Some(self.most_anonymous(3)? - self.most_anonymous(2)?)
    }

    /// The maximum in a quarter of the run, counted from 0.
    fn most_anonymous(&self, quarter: usize) -> Option<f64> {
        let count = self.samples.len();
        let part = &self.samples[count * quarter / 4..count * (quarter + 1) / 4];
        part.iter().map(|sample| sample.anonymous_bytes as f64).max_by(f64::total_cmp)
    }

    /// The busiest shard's part of the CPU time of all shards.
    pub fn busier_shard_percent(&self) -> Option<f64> {
        let by_thread = &self.samples.last()?.cpu.by_thread;
        let shards = by_thread.iter().filter(|(name, _)| name.starts_with("shard-")).map(|(_, ns)| *ns as f64);
        let (all, most) = shards.fold((0.0, 0.0), |(all, most), ns| (all + ns, f64::max(most, ns)));
        (all > 0.0).then_some(most / all * 100.0)
    }

    /// Why a run is not valid.
    fn bottleneck(&self) -> Option<String> {
        let is_bottleneck = self.report["generator_was_the_bottleneck"].as_bool().unwrap_or(false);
        let why = self.report["bottlenecks"].as_array().into_iter().flatten().filter_map(Value::as_str);
        is_bottleneck.then(|| why.collect::<Vec<_>>().join("; "))
    }

    /// Messages that a floor dropped, which make it no floor.
    pub fn dropped_by_floor(&self) -> Option<f64> {
        self.tally.as_ref()?["dropped"].as_f64().filter(|dropped| *dropped > 0.0)
    }

    /// A note for the table.
    pub fn summary(&self) -> String {
        let lost = self.lost().map_or("unknown".to_owned(), |lost| lost.to_string());
        let p99 = self.p99_ms().map_or("unknown".to_owned(), |p99| format!("{p99:.0} ms"));
        format!("{lost} were not delivered, p99 {p99}")
    }
}

/// The sum of a map of counts.
fn count(map: &Value) -> f64 {
    map.as_object().into_iter().flatten().filter_map(|(_, count)| count.as_f64()).fold(0.0, |sum, count| sum + count)
}
