//! The server's program as a process of the test: started on a free port, killed at the end of the test.

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::DEADLINE;
use crate::client::{Client, Subscriber};
use crate::http::{self, Response};
use crate::paths;

/// A small and steady market for clients that only have to notice a disturbance.
pub const SMALL_MARKET: &str = "sim:instruments=4,rate=200,seed=1,shape=even";

/// The output of a process so far, filled by a thread.
#[derive(Clone, Default)]
struct Output(Arc<(Mutex<OutputState>, Condvar)>);

#[derive(Default)]
struct OutputState {
    text: String,
    ended: bool,
}

impl Output {
    fn read(mut stream: impl Read + Send + 'static) -> Self {
        let output = Self::default();
        let shared = output.0.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let read = stream.read(&mut buffer).unwrap_or(0);
                let mut state = shared.0.lock().unwrap();
                state.text += &String::from_utf8_lossy(&buffer[..read]);
                state.ended = read == 0;
                shared.1.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        output
    }

    fn text(&self) -> String {
        self.0.0.lock().unwrap().text.clone()
    }

    /// Waits until `find` returns something; `None` if the output ends or the deadline passes before.
    fn wait<R>(&self, find: impl Fn(&OutputState) -> Option<R>) -> Option<R> {
        let guard = self.0.0.lock().unwrap();
        let is_waiting = |state: &mut OutputState| find(state).is_none() && !state.ended;
        let (guard, _) = self.0.1.wait_timeout_while(guard, DEADLINE, is_waiting).unwrap();
        find(&guard)
    }
}

/// How the program ended.
#[derive(Debug)]
pub struct Exit {
    /// `None` if a signal killed it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A running program, killed when this is dropped.
pub struct Program {
    child: Child,
    stdout: Output,
    stderr: Output,
}

impl Program {
    /// The program with these arguments, without the settings in this process's environment, and without a limit of the
    /// cost of plain requests or of names, which flags may set.
    pub fn command(args: &[&str]) -> Command {
        let mut command = Command::new(paths::program());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TICKCAST_") {
                command.env_remove(name);
            }
        }
        // Tests read the metrics in a loop.
        command.env("TICKCAST_GET_UNITS_PER_ADDRESS_PER_S", "0");
        // Requests of tests have names such as `here`.
        command.env("TICKCAST_ALLOW_HOST", "*");
        command.args(args).stdin(Stdio::null());
        command
    }

    pub fn spawn(command: Command) -> Self {
        Self::spawn_with_stderr(command, Stdio::piped())
    }

    /// The same with a stderr of the test's own, which is not read.
    pub fn spawn_with_stderr(mut command: Command, stderr: Stdio) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().expect("the program starts");
        let stdout = Output::read(child.stdout.take().expect("stdout is piped"));
        let stderr = child.stderr.take().map_or_else(|| Output::read(std::io::empty()), Output::read);
        Self { child, stdout, stderr }
    }

    /// Runs the program to its end.
    pub fn run(args: &[&str]) -> Exit {
        Self::spawn(Self::command(args)).wait_for_exit()
    }

    /// Waits until the program exits by itself.
    pub fn wait_for_exit(mut self) -> Exit {
        let ended = |state: &OutputState| state.ended.then_some(());
        let both = self.stdout.wait(ended).and_then(|()| self.stderr.wait(ended));
        assert!(both.is_some(), "still running after {DEADLINE:?}; stderr: {}", self.stderr.text());
        let code = self.child.wait().expect("it is a child of this process").code();
        Exit { code, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a pid is not 0");
        kill_process(pid, signal).expect("it is a child of this process");
    }

    /// Waits for the address that stdout has after this text.
    pub fn wait_for_address(&self, text: &str) -> SocketAddr {
        let address = self.stdout.wait(|state| {
            let (_, rest) = state.text.split_once(text)?;
            rest.split_once('\n')?.0.parse().ok()
        });
        address.unwrap_or_else(|| panic!("the program does not serve: {}", self.stderr.text()))
    }

    /// Waits until stderr contains this text.
    pub fn wait_for_stderr(&self, text: &str) {
        let found = self.stderr.wait(|state| state.text.contains(text).then_some(()));
        assert!(found.is_some(), "{text:?} is not in: {}", self.stderr.text());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("stderr of the program: {}", self.stderr.text());
        }
    }
}

/// A fault that a test plants in a program of a debug build, see `src/fault.rs`.
pub struct PlantedFault {
    folder: tempfile::TempDir,
    /// Its kind and place.
    what: String,
}

impl PlantedFault {
    /// `what` is a kind and a place: `panic tick-0`.
    pub fn new(what: &str) -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), what: what.to_owned() }
    }

    /// The program with these arguments, which has the fault once it is planted.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Program::command(&[&["--listen", "127.0.0.1:0"], args].concat());
        command.env("FAULT_INJECTION", format!("{} {}", self.what, self.file().display()));
        command
    }

    /// The fault occurs the next time the program comes to its place.
    pub fn plant(&self) {
        std::fs::write(self.file(), "").expect("the folder is writable");
    }

    /// Ends a hang.
    pub fn remove(&self) {
        std::fs::remove_file(self.file()).expect("the fault is planted");
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("fault")
    }
}

/// A program that serves.
pub struct Server {
    pub address: SocketAddr,
    pub program: Program,
}

impl Server {
    /// Starts the program on a free port of 127.0.0.1.
    pub fn start(args: &[&str]) -> Self {
        Self::spawn(Program::command(&[&["--listen", "127.0.0.1:0"], args].concat()))
    }

    /// Starts the program, and waits until it prints its address.
    pub fn spawn(command: Command) -> Self {
        Self::of(Program::spawn(command))
    }

    /// A program that was started otherwise.
    pub fn of(program: Program) -> Self {
        let address = program.wait_for_address("serving on http://");
        Self { address, program }
    }

    pub fn get(&self, path: &str) -> Response {
        self.get_at("here", path)
    }

    /// A request that names the server like this.
    pub fn get_at(&self, host: &str, path: &str) -> Response {
        http::send_request(self.address, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
    }

    /// A client that has read its welcome.
    pub fn client(&self) -> Client {
        let mut client = Client::connect(self.address, "/v1/stream", &[]);
        assert_eq!(client.reply()["type"], "welcome");
        client
    }

    pub fn subscriber(&self, channels: &[&str], symbols: &[&str]) -> Subscriber {
        Subscriber::subscribe(self.client(), channels, symbols)
    }

    /// Ends the program by a signal.
    pub fn stop(self, signal: Signal) -> Exit {
        self.program.signal(signal);
        self.program.wait_for_exit()
    }

    /// Reads `/metrics` until the sum of a family over the shards is as expected: a shard publishes its counters with
    /// some delay.
    pub fn wait_for_metric(&self, family: &str, is_expected: impl Fn(u64) -> bool) {
        self.wait_for_metric_at("here", family, is_expected);
    }

    /// The same with requests that name the server like this.
    pub fn wait_for_metric_at(&self, host: &str, family: &str, is_expected: impl Fn(u64) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let values = values_of(&self.get_at(host, "/metrics").text(), family);
            if is_expected(values.iter().sum()) {
                return;
            }
            assert!(Instant::now() < deadline, "{family} stays {values:?}");
        }
    }

    /// The resident memory of the program, in bytes.
    pub fn resident_bytes(&self) -> usize {
        let path = format!("/proc/{}/status", self.program.id());
        let text = std::fs::read_to_string(path).expect("the program runs");
        let resident = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the line VmRSS");
        resident.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
    }

    /// The values of a family: one of each shard, or one of the whole server.
    pub fn metric_values(&self, family: &str) -> Vec<u64> {
        values_of(&self.get("/metrics").text(), family)
    }
}

fn values_of(metrics: &str, family: &str) -> Vec<u64> {
    let value_of = |line: &str| {
        let rest = line.strip_prefix(family).filter(|rest| rest.starts_with(['{', ' ']))?;
        let value = rest.rsplit_once(' ')?.1;
        Some(value.parse().expect("a whole number"))
    };
    metrics.lines().filter_map(value_of).collect()
}

/// A server with a small market, and a subscriber to its quotes that must not notice what a test does to the server.
pub struct WatchedServer {
    pub server: Server,
    witness: Subscriber,
}

impl WatchedServer {
    pub fn start(args: &[&str]) -> Self {
        let server = Server::start(&[&["--feed", SMALL_MARKET], args].concat());
        let mut witness = server.subscriber(&["quote"], &["*"]);
        witness.until_live();
        Self { server, witness }
    }

    /// Asserts that the subscriber's stream has no hole, is live, and that its connection is open.
    pub fn assert_undisturbed(&mut self) {
        self.witness.until_live();
        self.witness.ping();
    }
}
