//! The real binary, started and ended by the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tickcast_test_support::paths;

/// A running server; dropping it ends the process.
pub struct ReplayServer {
    child: Child,
    pub address: String,
}

impl ReplayServer {
    /// Starts the binary on a free port and waits until it serves. One shard, so that all clients share it.
    pub fn start(feed: &str, flags: &[&str]) -> Self {
        let core =
            core_affinity::get_core_ids().and_then(|cores| cores.last().copied()).expect("a core").id.to_string();
        let mut child = Command::new(paths::program())
            .args(["--listen", "127.0.0.1:0", "--log", "warn", "--cores", &core, "--feed", feed])
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped above")).lines();
        let address = lines
            .find_map(|line| line.expect("UTF-8").strip_prefix("serving on http://").map(str::to_owned))
            .expect("the server prints its address");
        Self { child, address }
    }

    /// The last values of an instrument, `None` if it is unknown.
    pub fn snapshot(&self, symbol: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(&self.address).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a valid timeout");
        write!(stream, "GET /v1/snapshot/{symbol} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address)
            .expect("the request is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        head.starts_with("HTTP/1.1 200").then(|| serde_json::from_str(body).expect("JSON"))
    }
}

impl Drop for ReplayServer {
    fn drop(&mut self) {
        // Errors mean that it has ended already, which the clients have noticed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
