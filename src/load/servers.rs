//! Servers that a run starts itself, on chosen cores: the measured server, the bare loops, rivals.
//!
//! What always holds: a child gets its cores before its first thread starts, and does not outlive its run.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::load::child::{spawn, this_program};
use crate::load::error::LoadError;

/// How long a server may take until it listens.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it may take to exit after SIGTERM.
const END_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// A server that this run has started.
#[derive(Debug)]
pub struct StartedServer {
    child: Child,
    /// Its stdin; a floor exits when this is closed.
    _input: Option<ChildStdin>,
}

/// Another server to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Rival {
    /// A task for each connection, fed by a broadcast channel
    TokioTungstenite,
}

/// A server that passes on what is published, to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    Floor,
    FloorSend,
    Rival(Rival),
}

impl Baseline {
    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::FloorSend => "floor, send(2)",
            Self::Rival(Rival::TokioTungstenite) => "tokio-tungstenite",
        }
    }

    fn sends(self) -> &'static str {
        match self {
            Self::Floor => "io-uring",
            Self::FloorSend => "send",
            Self::Rival(Rival::TokioTungstenite) => "tokio-tungstenite",
        }
    }

    /// Starts it on a free port of this machine, on these cores. With `each`, every message goes to one subscriber. With
    /// `pair`, the files of a certificate and its key, it serves connections over TLS.
    pub fn start(
        self,
        each: bool,
        pair: Option<(&str, &str)>,
        cores: Option<&[usize]>,
    ) -> Result<(StartedServer, SocketAddr), LoadError> {
        let mut command = this_program()?;
        command.args(["floor", "--listen", "127.0.0.1:0", "--sends", self.sends()]);
        if each {
            command.arg("--each");
        }
        if let Some((cert, key)) = pair {
            command.args(["--tls-cert", cert, "--tls-key", key]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(command, cores)?;
        let input = child.stdin.take();
        let output = child.stdout.take();
        let started = StartedServer { child, _input: input };
        let mut line = String::new();
        let mut output = BufReader::new(output.expect("it is piped"));
        output.read_line(&mut line).map_err(|error| LoadError::System { what: "floor", error })?;
        // It writes its counts at its end, into a pipe that has to be read.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let address = line.trim().strip_prefix("listening on ").and_then(|address| address.parse().ok());
        match address {
            Some(address) => Ok((started, address)),
            None => Err(LoadError::Serve(format!("{} did not start", self.name()))),
        }
    }
}

impl StartedServer {
    /// Starts this program with a server's arguments, and waits until it listens.
    ///
    /// # Errors
    /// It does not start, or something else listens there.
    pub fn serve(
        arguments: &str,
        address: SocketAddr,
        is_secured: bool,
        cores: Option<&[usize]>,
    ) -> Result<Self, LoadError> {
        let mut command = this_program()?;
        command.args(arguments.split_whitespace()).stdin(Stdio::null()).stdout(Stdio::null());
        let listen = if is_secured { "--tls-listen" } else { "--listen" };
        let is_given = arguments.split_whitespace().any(|word| word.split('=').next() == Some(listen));
        if !is_given && !arguments.contains("--config") {
            command.arg(listen).arg(address.to_string());
        }
        if TcpStream::connect(address).is_ok() {
            return Err(LoadError::Serve(format!("another process listens on {address} already")));
        }
        let mut started = Self { child: spawn(command, cores)?, _input: None };
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(address).is_err() {
            if let Ok(Some(status)) = started.child.try_wait() {
                return Err(LoadError::Serve(format!("it exited with {status}")));
            }
            if Instant::now() > deadline {
                return Err(LoadError::Serve(format!("it does not listen on {address} after {START_TIMEOUT:?}")));
            }
            std::thread::sleep(POLL);
        }
        Ok(started)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for StartedServer {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + END_TIMEOUT;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
