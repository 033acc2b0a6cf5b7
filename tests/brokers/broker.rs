//! A broker as a process of the test: killed and started again on the same port and folder, killed at the end.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tickcast_test_support::server::Server;
use tickcast_test_support::{DEADLINE, http, paths};

/// Token of the operator's view.
pub const OPERATOR: &str = "token-of-the-operator";

/// The path of an installed broker, below `target/brokers`; `None`, and a line in the output, where it is absent.
pub fn installed(path: &str) -> Option<PathBuf> {
    let program = paths::repository().join("target/brokers").join(path);
    if program.exists() {
        return Some(program);
    }
    println!("SKIPPED: {} is not installed: run tests/brokers/install", program.display());
    None
}

/// A port that was free just now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// A broker with a folder of its own.
pub struct Broker {
    pub port: u16,
    pub folder: TempDir,
    program: PathBuf,
    args: Vec<String>,
    child: Option<Child>,
}

impl Broker {
    /// A broker that is not started yet. `args` gets the port and the folder.
    pub fn new(program: PathBuf, args: impl FnOnce(u16, &Path) -> Vec<String>) -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().expect("a folder"));
        let args = args(port, folder.path());
        Self { port, folder, program, args, child: None }
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Starts it, and waits until it accepts connections.
    pub fn start(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log"));
        let log = log.expect("the folder is writable");
        let errors = log.try_clone().expect("a descriptor");
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null()).stdout(log).stderr(errors);
        self.child = Some(command.spawn().expect("the broker starts"));
        let until = Instant::now() + DEADLINE;
        while TcpStream::connect(self.address()).is_err() {
            assert!(Instant::now() < until, "the broker does not listen: {}", self.log());
            std::thread::yield_now();
        }
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is a child of this process");
            child.wait().expect("it is a child of this process");
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("log of the broker: {}", self.log());
        }
    }
}

/// The program with these feeds.
pub fn serve(feeds: &[&str]) -> Server {
    let feeds = feeds.iter().flat_map(|feed| ["--feed", *feed]);
    // A test does not read while it waits for a broker to start.
    let settings = ["--operator-token", OPERATOR, "--ping-timeout-ms", "300000"];
    Server::start(&[&settings[..], &feeds.collect::<Vec<_>>()].concat())
}

/// The sources in the operator's view.
pub fn sources(server: &Server) -> Vec<Value> {
    let request = format!("GET /v1/operator HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OPERATOR}\r\n\r\n");
    let view = http::send_request(server.address, request.as_bytes()).json();
    view["sources"].as_array().expect("a list").clone()
}

/// Ends the server: it has shown this secret in none of its views, and not in its log.
#[track_caller]
pub fn assert_never_shown(server: Server, secret: &str) {
    for path in ["/readyz", "/metrics"] {
        assert!(!server.get(path).text().contains(secret), "{path} shows the secret");
    }
    let exit = server.stop(Signal::TERM);
    assert!(!exit.stderr.contains(secret) && !exit.stdout.contains(secret), "{exit:?}");
}

/// Does something while the server does not run.
pub fn while_stopped(server: &Server, act: impl FnOnce()) {
    server.program.signal(Signal::STOP);
    act();
    server.program.signal(Signal::CONT);
}

/// Asks until a source is as expected.
#[track_caller]
pub fn wait_for_source(server: &Server, nth: usize, mut is_expected: impl FnMut(&Value) -> bool) -> Value {
    let until = Instant::now() + DEADLINE;
    loop {
        let source = sources(server).swap_remove(nth);
        if is_expected(&source) {
            return source;
        }
        assert!(Instant::now() < until, "the source stays {source}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Asks until a source says this is wrong with it.
#[track_caller]
pub fn wait_for_problem(server: &Server, nth: usize, state: &str, problem: &str) {
    let has = |source: &Value| source["problem"].as_str().is_some_and(|text| text.contains(problem));
    wait_for_source(server, nth, |source| source["state"] == state && has(source));
}

/// Asks until a source is open.
#[track_caller]
pub fn wait_until_open(server: &Server, nth: usize) {
    wait_for_source(server, nth, |source| source["state"] == "new" || source["state"] == "live");
}
