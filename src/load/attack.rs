//! `tickcast load --attack`: what a hostile client does to a server, from a process of its own, while well-behaved ones
//! are measured without it and with it.
//!
//! Method: the attack keeps `--attack-connections` of each kind, and goes through them in turn, `--attack-rate` actions a
//! second of each kind; one that the server has ended is opened anew. It never waits for an answer. Its threads run at
//! idle priority, so that on a machine that it shares with the measuring clients it takes what those leave; what it came
//! to is in the report, as an attack that had no time is none. Its addresses are those of this machine: the limits of an
//! address do not hold it back where they exempt loopback, as they do by default.

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

/// How long one connect may keep the others of its kind waiting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Frames of one action.
const FRAMES: usize = 16;

/// What the attack does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttackKind {
    /// Requests that come a byte at a time and never end
    SlowHeaders,
    /// Connections that say nothing
    HalfOpen,
    /// Subscribers that send pings, 16 at a time
    Pings,
    /// Subscribers that subscribe to everything and unsubscribe, 16 requests at a time
    Subscribes,
    /// Connections that ask for an upgrade and are gone
    Connects,
}

/// How it is done.
#[derive(Clone, Debug, clap::Args)]
pub struct AttackArgs {
    /// Attack the server meanwhile, and compare with runs without: a list of kinds
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND,…")]
    pub attack: Vec<AttackKind>,
    /// Connections of each kind
    #[arg(long, default_value_t = 256, value_name = "N", requires = "attack",
        value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub attack_connections: u32,
    /// Actions a second of each kind
    #[arg(long, default_value_t = 2000, value_name = "N", requires = "attack",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub attack_rate: u32,
}

/// What one kind came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttackCount {
    pub kind: AttackKind,
    /// Connections opened.
    pub opened: u64,
    /// Connections that could not be opened.
    pub failed: u64,
    /// Connections that the server has ended.
    pub ended: u64,
    /// Bytes, requests, pings or departures, whatever the kind does, in portions.
    pub actions: u64,
}

/// One process's task: what a line on its standard input says.
#[derive(Debug, Serialize, Deserialize)]
struct AttackTask {
    address: SocketAddr,
    path: String,
    kinds: Vec<AttackKind>,
    connections: u32,
    rate: u32,
}

/// An attack under way; dropped, it ends.
#[derive(Debug)]
pub struct Attack {
    child: Child,
}

impl Attack {
    /// Starts it against this address, on these cores.
    pub fn start(args: &AttackArgs, address: SocketAddr, path: &str, on: Option<&[usize]>) -> Result<Self, LoadError> {
        let mut command = this_program()?;
        command.arg("attack-worker").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut attack = Self { child: spawn(command, on)? };
        let (kinds, path) = (args.attack.clone(), path.to_owned());
        let task = AttackTask { address, path, kinds, connections: args.attack_connections, rate: args.attack_rate };
        let line = serde_json::to_string(&task).expect("plain data") + "\n";
        let input = attack.child.stdin.as_mut().expect("it is piped");
        input.write_all(line.as_bytes()).map_err(|error| LoadError::System { what: "attack process", error })?;
        Ok(attack)
    }

    /// Ends it, and has what it came to.
    pub fn end(mut self) -> Result<Vec<AttackCount>, LoadError> {
        drop(self.child.stdin.take());
        let mut said = String::new();
        let output = self.child.stdout.as_mut().expect("it is piped");
        output.read_to_string(&mut said).map_err(|error| LoadError::System { what: "attack process", error })?;
        serde_json::from_str(&said).map_err(|_| LoadError::Serve("the attack's process has failed".to_owned()))
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        // It ends with its input; the wait keeps it from being left as a zombie.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The process of an attack: reads its task, and attacks until its standard input ends.
pub fn attack_worker() -> Result<(), LoadError> {
    let system = |error| LoadError::System { what: "attack", error };
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(system)?;
    let task: AttackTask = serde_json::from_str(&line).map_err(|error| LoadError::Arguments(error.to_string()))?;
    crate::load::machine::ensure_descriptors(u64::from(task.connections) * task.kinds.len() as u64)?;
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
    // Whatever ends the run that started this ends its pipe.
    let _ = std::io::stdin().read_line(&mut line);
    while std::io::stdin().read_line(&mut line).is_ok_and(|read| read > 0) {}
    stop.store(true, Ordering::Relaxed);
    let counts: Vec<AttackCount> = threads.into_iter().map(|thread| thread.join().expect("a panic is a bug")).collect();
    let text = serde_json::to_string(&counts).expect("plain data");
    std::io::stdout().write_all(text.as_bytes()).map_err(system)
}

/// Leaves the core to whoever else wants it.
fn run_idle() {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let own = thread_priority::thread_native_id();
    // Where that is not permitted the attack disturbs the clients as well, and the report's generator line says so.
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
                // What was late is not made up for: a burst would be another attack.
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
            // Where the server does not read, the flood waits in the socket, and the next look tells whether it is over.
            let _ = stream.write(&self.bytes);
        }
    }
}

/// A connection with what its kind sends at first; it is reset when it is dropped, so that no port waits for its end.
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
    assert!(payload.len() < 126, "frames of ours are short");
    [&head[..], &mask, payload].concat()
}

/// Takes what has come and throws it away. False where the server has ended the connection.
fn is_open(stream: &mut TcpStream) -> bool {
    /// A server that sends without end is not read without end.
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

    /// What the first connection of this kind sends in `reads` reads, and what the kind came to.
    fn first_of(kind: AttackKind, bytes: usize) -> (Vec<u8>, AttackCount) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let task = AttackTask { address, path: "/v1/stream".to_owned(), kinds: vec![kind], connections: 1, rate: 1000 };
        let stop = Arc::new(AtomicBool::new(false));
        let (told, heard) = mpsc::channel();
        let stopped = stop.clone();
        std::thread::spawn(move || {
            let mut stream = listener.accept().expect("it connects").0;
            let mut came = vec![0; bytes];
            stream.read_exact(&mut came).expect("it sends");
            stopped.store(true, Ordering::Relaxed);
            told.send(came).expect("the test waits");
        });
        let count = AttackConnections::new(kind, &task).attack(&stop);
        (heard.recv().expect("it has come"), count)
    }

    #[test]
    fn each_kind_sends_what_its_name_says() {
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
