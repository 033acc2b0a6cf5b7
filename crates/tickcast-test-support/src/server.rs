//! The real program, started by a test on a port of its own and ended with it.

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::client::{Client, Subscriber};
use super::http::{self, Answer};
use super::paths;

/// Nothing that a test waits for takes this long on a slow and busy machine.
pub const DEADLINE: Duration = Duration::from_secs(40);
/// A small, even market for clients that are only there to notice a disturbance.
pub const SMALL_MARKET: &str = "sim:instruments=4,rate=200,seed=1,shape=even";

/// What one stream of the program has said so far, filled by a thread.
#[derive(Clone, Default)]
struct Said(Arc<(Mutex<Text>, Condvar)>);

#[derive(Default)]
struct Text {
    text: String,
    ended: bool,
}

impl Said {
    fn by(mut stream: impl Read + Send + 'static) -> Self {
        let said = Self::default();
        let text = said.0.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let read = stream.read(&mut buffer).unwrap_or(0);
                let mut so_far = text.0.lock().unwrap();
                so_far.text += &String::from_utf8_lossy(&buffer[..read]);
                so_far.ended = read == 0;
                text.1.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        said
    }

    fn text(&self) -> String {
        self.0.0.lock().unwrap().text.clone()
    }

    /// Waits until `find` finds something; `None` where the stream ends or the deadline passes without it.
    fn wait<R>(&self, find: impl Fn(&Text) -> Option<R>) -> Option<R> {
        let guard = self.0.0.lock().unwrap();
        let found = |text: &mut Text| find(text).is_none() && !text.ended;
        let (guard, _) = self.0.1.wait_timeout_while(guard, DEADLINE, found).unwrap();
        find(&guard)
    }
}

/// How the program ended.
#[derive(Debug)]
pub struct Exit {
    /// `None` where a signal killed it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A running program; it does not outlive its test.
pub struct Program {
    child: Child,
    stdout: Said,
    stderr: Said,
}

impl Program {
    /// The program with no setting from this process's environment.
    pub fn command(args: &[&str]) -> Command {
        let mut command = Command::new(paths::program());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TICKCAST_") {
                command.env_remove(name);
            }
        }
        command.args(args).stdin(Stdio::null());
        command
    }

    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let stdout = Said::by(child.stdout.take().expect("it is piped"));
        let stderr = Said::by(child.stderr.take().expect("it is piped"));
        Self { child, stdout, stderr }
    }

    /// Runs the program to its end.
    pub fn run(args: &[&str]) -> Exit {
        Self::spawn(Self::command(args)).exit()
    }

    /// Waits for the program's own end.
    pub fn exit(mut self) -> Exit {
        let ended = |text: &Text| text.ended.then_some(());
        let both = self.stdout.wait(ended).and_then(|()| self.stderr.wait(ended));
        assert!(both.is_some(), "still running after {DEADLINE:?}; stderr: {}", self.stderr.text());
        let code = self.child.wait().expect("it is a child of ours").code();
        Exit { code, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a pid is not 0");
        kill_process(pid, signal).expect("it is a child of ours");
    }

    /// Waits for the address that follows this text on stdout.
    pub fn announces(&self, text: &str) -> SocketAddr {
        let address = self.stdout.wait(|said| {
            let (_, rest) = said.text.split_once(text)?;
            rest.split_once('\n')?.0.parse().ok()
        });
        address.unwrap_or_else(|| panic!("it does not serve: {}", self.stderr.text()))
    }

    /// Waits until stderr has this text.
    pub fn says(&self, text: &str) {
        let found = self.stderr.wait(|said| said.text.contains(text).then_some(()));
        assert!(found.is_some(), "{text:?} is not in: {}", self.stderr.text());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the program said: {}", self.stderr.text());
        }
    }
}

/// A serving program.
pub struct Server {
    pub address: SocketAddr,
    pub program: Program,
}

impl Server {
    /// Serves on a free port of 127.0.0.1.
    pub fn start(args: &[&str]) -> Self {
        Self::of(Program::command(&[&["--listen", "127.0.0.1:0"], args].concat()))
    }

    /// Waits until the program says where it serves.
    pub fn of(command: Command) -> Self {
        let program = Program::spawn(command);
        let address = program.announces("serving on http://");
        Self { address, program }
    }

    pub fn get(&self, path: &str) -> Answer {
        http::ask(self.address, format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n").as_bytes())
    }

    /// A client that has been welcomed.
    pub fn client(&self) -> Client {
        let mut client = Client::open(self.address, "/v1/stream", &[]);
        assert_eq!(client.reply()["type"], "welcome");
        client
    }

    /// A client that is subscribed.
    pub fn subscriber(&self, channels: &[&str], symbols: &[&str]) -> Subscriber {
        Subscriber::of(self.client(), channels, symbols)
    }

    /// Asks for the program's end by a signal.
    pub fn stop(self, signal: Signal) -> Exit {
        self.program.signal(signal);
        self.program.exit()
    }

    /// Reads `/metrics` until the sum of a family over the shards is as wanted: it is shown some time later.
    pub fn wait_metric(&self, family: &str, wanted: impl Fn(u64) -> bool) {
        let until = std::time::Instant::now() + DEADLINE;
        loop {
            let values = self.metric(family);
            if wanted(values.iter().sum()) {
                return;
            }
            assert!(std::time::Instant::now() < until, "{family} stays {values:?}");
        }
    }

    /// The values of a family, one a shard, or the one of the whole server.
    pub fn metric(&self, family: &str) -> Vec<u64> {
        let text = self.get("/metrics").text();
        let of_family = |line: &str| {
            let rest = line.strip_prefix(family).filter(|rest| rest.starts_with(['{', ' ']))?;
            let value = rest.rsplit_once(' ')?.1;
            Some(value.parse().expect("a whole number"))
        };
        text.lines().filter_map(of_family).collect()
    }
}

/// A server with a small market, and a well-behaved client that watches its quotes.
pub struct Scene {
    pub server: Server,
    witness: Subscriber,
}

impl Scene {
    pub fn start(args: &[&str]) -> Self {
        let server = Server::start(&[&["--feed", SMALL_MARKET], args].concat());
        let mut witness = server.subscriber(&["quote"], &["*"]);
        witness.until_fresh();
        Self { server, witness }
    }

    /// Whatever happened: the witness's stream has gone on without a hole, goes on, and its connection is open.
    pub fn undisturbed(&mut self) {
        self.witness.until_fresh();
        self.witness.ping();
    }
}
