//! `tickcast load --attack`: hostile clients in a process of their own, while well-behaved clients are measured without
//! and with them.
//!
//! Method: the attack keeps `--attack-connections` of each kind and goes through them round robin with `--attack-rate`
//! actions a second; a connection that the server has ended is opened again. It never waits for an answer. Its threads
//! run at idle priority, so that on a shared machine it uses only what the measuring clients leave; the report states
//! how many actions it made. Its addresses are those of this machine: the server's limits per address exempt loopback
//! by default.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};

use crate::load::child::{spawn, this_program};
use crate::load::error::LoadError;
use crate::load::machine::ensure_descriptors;

/// How long one connect may delay the other connections of its kind.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Frames of one action.
const FRAMES: usize = 16;

/// A kind of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttackKind {
    /// Requests that arrive a byte at a time and never end
    SlowHeaders,
    /// Connections that send nothing
    HalfOpen,
    /// Subscribers that send pings, 16 at a time
    Pings,
    /// Subscribers that subscribe to everything and unsubscribe, 16 requests at a time
    Subscribes,
    /// Connections that request an upgrade and are reset
    Connects,
}

/// The arguments of an attack.
#[derive(Clone, Debug, clap::Args)]
pub struct AttackArgs {
    /// Attack the server, and compare with runs without the attack: a list of kinds
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND,…")]
    pub attack: Vec<AttackKind>,
    /// Connections of each kind
    #[arg(long, default_value_t = 256, value_name = "N", requires = "attack",
        value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub attack_connections: u32,
    /// Actions per second of each kind
    #[arg(long, default_value_t = 2000, value_name = "N", requires = "attack",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub attack_rate: u32,
}

/// What one kind did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttackCount {
    pub kind: AttackKind,
    /// Connections opened.
    pub opened: u64,
    /// Connections that could not be opened.
    pub failed: u64,
    /// Connections that the server has ended.
    pub ended: u64,
    /// Portions of bytes, requests or pings, or resets, as the kind has it.
    pub actions: u64,
}

/// The task of the process: one line of JSON on its stdin.
#[derive(Debug, Serialize, Deserialize)]
struct AttackTask {
    address: SocketAddr,
    path: String,
    kinds: Vec<AttackKind>,
    connections: u32,
    rate: u32,
}

/// An attack under way. It ends when this is dropped.
#[derive(Debug)]
pub struct Attack {
    child: Child,
}

impl Attack {
    /// Starts an attack on this address, from these cores.
    pub fn start(
        args: &AttackArgs,
        address: SocketAddr,
        path: &str,
        cores: Option<&[usize]>,
    ) -> Result<Self, LoadError> {
        let mut command = this_program()?;
        command.arg("attack-worker").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut attack = Self { child: spawn(command, cores)? };
        let (kinds, path) = (args.attack.clone(), path.to_owned());
        let task = AttackTask { address, path, kinds, connections: args.attack_connections, rate: args.attack_rate };
        let line = serde_json::to_string(&task).expect("plain data") + "\n";
        let input = attack.child.stdin.as_mut().expect("it is piped");
        input.write_all(line.as_bytes()).map_err(|error| LoadError::System { what: "attack process", error })?;
        Ok(attack)
    }

    /// Ends it, and returns what it did.
    pub fn end(mut self) -> Result<Vec<AttackCount>, LoadError> {
        drop(self.child.stdin.take());
        let mut results = String::new();
        let output = self.child.stdout.as_mut().expect("it is piped");
        output.read_to_string(&mut results).map_err(|error| LoadError::System { what: "attack process", error })?;
        serde_json::from_str(&results).map_err(|_| LoadError::Attack)
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        // It ends with its input; the wait leaves no zombie.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Runs the hidden command `attack-worker`: reads its task, and attacks until stdin ends.
pub fn attack_worker() -> Result<(), LoadError> {
    let system = |error| LoadError::System { what: "attack", error };
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(system)?;
    let task: AttackTask = serde_json::from_str(&line).map_err(|error| LoadError::Arguments(error.to_string()))?;
    ensure_descriptors(u64::from(task.connections) * task.kinds.len() as u64)?;
    let (task, stop) = (Arc::new(task), Arc::new(AtomicBool::new(false)));
    let threads: Vec<_> = task
        .kinds
        .iter()
        .map(|kind| {
            let (kind, task, stop) = (*kind, task.clone(), stop.clone());
            std::thread::spawn(move || {
                run_idle();
                AttackConnections::new(kind, &task).attack(&stop)
            })
        })
        .collect();
    // The pipe ends with the run that started this process.
    let _ = std::io::stdin().read_line(&mut line);
    while std::io::stdin().read_line(&mut line).is_ok_and(|read| read > 0) {}
    stop.store(true, Ordering::Relaxed);
    let counts: Vec<AttackCount> = threads.into_iter().map(|thread| thread.join().expect("a panic is a bug")).collect();
    let text = serde_json::to_string(&counts).expect("plain data");
    std::io::stdout().write_all(text.as_bytes()).map_err(system)
}

/// Leaves the core to every other thread that can run.
fn run_idle() {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let own = thread_priority::thread_native_id();
    // Where that is not permitted the attack slows the clients as well, which the report shows as a busy generator.
    let _ = thread_priority::set_thread_priority_and_policy(own, ThreadPriority::Min, idle);
}

/// The connections of one kind.
struct AttackConnections<'a> {
    kind: AttackKind,
    task: &'a AttackTask,
    connections: Vec<Option<TcpStream>>,
    count: AttackCount,
    /// What an action sends.
    bytes: Vec<u8>,
}

impl<'a> AttackConnections<'a> {
    fn new(kind: AttackKind, task: &'a AttackTask) -> Self {
        let connections = (0..task.connections).map(|_| None).collect();
        let count = AttackCount { kind, opened: 0, failed: 0, ended: 0, actions: 0 };
        Self { kind, task, connections, count, bytes: action(kind) }
    }

    fn attack(mut self, stop: &AtomicBool) -> AttackCount {
        let step = Duration::from_secs(1) / self.task.rate;
        let mut due = Instant::now();
        for slot in (0..self.connections.len()).cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            due += step;
            let now = Instant::now();
            if due > now {
                std::thread::sleep(due - now);
            } else {
                // Late actions are not made up for: a burst would be another attack.
                due = now;
            }
            self.act(slot);
        }
        self.count
    }

    fn act(&mut self, slot: usize) {
        let Some(stream) = &mut self.connections[slot] else {
            match open(self.kind, self.task) {
                Ok(stream) => {
                    self.count.opened += 1;
                    self.connections[slot] = Some(stream);
                }
                Err(_) => self.count.failed += 1,
            }
            return;
        };
        if !is_open(stream) {
            self.count.ended += 1;
            self.connections[slot] = None;
            return;
        }
        self.count.actions += 1;
        if self.kind == AttackKind::Connects {
            self.connections[slot] = None;
        } else {
            // Where the server does not read, the bytes wait in the socket; the next action checks the connection.
            let _ = stream.write(&self.bytes);
        }
    }
}

/// Opens a connection and sends what its kind begins with. It is reset when it is dropped, so that no port stays in
/// TIME_WAIT.
fn open(kind: AttackKind, task: &AttackTask) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&task.address, CONNECT_TIMEOUT)?;
    let linger = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
    linger.map_err(std::io::Error::from)?;
    stream.set_nonblocking(true)?;
    let head = match kind {
        AttackKind::HalfOpen => String::new(),
        AttackKind::SlowHeaders => format!("GET {} HTTP/1.1\r\nHost: {}\r\nX-Slow: ", task.path, task.address),
        AttackKind::Pings | AttackKind::Subscribes | AttackKind::Connects => format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            task.path, task.address
        ),
    };
    stream.write_all(head.as_bytes())?;
    Ok(stream)
}

/// What an action of this kind sends.
fn action(kind: AttackKind) -> Vec<u8> {
    match kind {
        AttackKind::SlowHeaders => b"a".to_vec(),
        AttackKind::HalfOpen | AttackKind::Connects => Vec::new(),
        AttackKind::Pings => frame(0x89, b"are you there?").repeat(FRAMES),
        AttackKind::Subscribes => {
            let what = r#""id":1,"channels":["quote","trade","ticker","book"],"symbols":["*"]"#;
            let [on, off] = ["subscribe", "unsubscribe"].map(|op| format!(r#"{{"op":"{op}",{what}}}"#));
            [frame(0x81, on.as_bytes()), frame(0x81, off.as_bytes())].concat().repeat(FRAMES / 2)
        }
    }
}

/// A client's frame, with a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0; 4];
    let head = [first, 0x80 | payload.len() as u8];
    assert!(payload.len() < 126, "the length does not fit into the short form");
    [&head[..], &mask, payload].concat()
}

/// Reads and discards what has arrived. False where the server has ended the connection.
fn is_open(stream: &mut TcpStream) -> bool {
    /// A bound for a server that sends without pause.
    const READS_MAX: usize = 4;
    let mut rest = [0; 16 * 1024];
    for _ in 0..READS_MAX {
        match stream.read(&mut rest) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc;

    use super::*;

    /// The first bytes that a connection of this kind sends, and the counts of the kind.
    fn first_of(kind: AttackKind, bytes: usize) -> (Vec<u8>, AttackCount) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let task = AttackTask { address, path: "/v1/stream".to_owned(), kinds: vec![kind], connections: 1, rate: 1000 };
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, first) = mpsc::channel();
        let stopped = stop.clone();
        std::thread::spawn(move || {
            let mut stream = listener.accept().expect("it connects").0;
            let mut received = vec![0; bytes];
            stream.read_exact(&mut received).expect("it sends");
            stopped.store(true, Ordering::Relaxed);
            sender.send(received).expect("the test waits");
        });
        let count = AttackConnections::new(kind, &task).attack(&stop);
        (first.recv().expect("the server has read"), count)
    }

    #[test]
    fn each_kind_sends_its_requests() {
        let (slow, count) = first_of(AttackKind::SlowHeaders, 100);
        assert!(slow.starts_with(b"GET /v1/stream HTTP/1.1\r\n") && slow.ends_with(b"aaa"), "{slow:?}");
        assert!(count.opened == 1 && count.actions > 1, "{count:?}");
        let (pings, _) = first_of(AttackKind::Pings, 400);
        let text = String::from_utf8_lossy(&pings);
        assert!(text.contains("Upgrade: websocket") && text.matches("are you there?").count() > 5, "{text}");
        let (subscribes, _) = first_of(AttackKind::Subscribes, 600);
        let text = String::from_utf8_lossy(&subscribes);
        assert!(text.contains(r#"{"op":"subscribe""#) && text.contains(r#"{"op":"unsubscribe""#), "{text}");
    }
}
