//! Panics and hangs that are planted in a running server: a panic that the server cannot do without drains it and ends it
//! with 1, a hang shows in `/healthz`, in `/readyz` and at the service manager, and a feed or a publisher that panics ends
//! alone.

use std::os::unix::net::UnixDatagram;
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tickcast_test_support::DEADLINE;
use tickcast_test_support::client::Client;
use tickcast_test_support::http::{Response, connect, send_request};
use tickcast_test_support::publisher::Publisher;
use tickcast_test_support::server::{PlantedFault, SMALL_MARKET, Server};

const ARGS: &[&str] = &["--feed", SMALL_MARKET, "--publish-token", "test-publish-token", "--cores", "0"];
const BOTH_CORES: &[&str] = &["--feed", SMALL_MARKET, "--cores", "0-1"];

fn server(fault: &PlantedFault, args: &[&str]) -> Server {
    Server::spawn(fault.command(args))
}

/// Connects without a request, so that something is accepted.
fn poke(server: &Server) {
    drop(connect(server.address));
}

#[test]
fn any_panic_that_the_server_cannot_do_without_closes_the_clients_and_exits_with_1() {
    for (place, what, code) in [
        ("tick-0", "shard 0", None),
        ("listener", "shard 0", Some(1001)),
        ("exchange", "shard 0", Some(1001)),
        ("sequencer", "the sequencer", Some(1001)),
        ("resync", "the resync thread", Some(1001)),
        ("bars", "the thread that makes bars", Some(1001)),
        ("health", "the health thread", Some(1001)),
        ("signals", "the thread for signals", Some(1001)),
    ] {
        let fault = PlantedFault::new(&format!("panic {place}"));
        let server = server(&fault, ARGS);
        let client = server.client();
        fault.plant();
        if matches!(place, "listener" | "exchange") {
            poke(&server);
        }
        if place == "signals" {
            server.program.signal(Signal::HUP);
        }
        assert_eq!(client.end_code(), code, "{place}");
        let exit = server.program.wait_for_exit();
        assert_eq!(exit.code, Some(1), "{place}: {exit:?}");
        for part in [&format!("{what} has panicked"), "a fault was planted at"] {
            assert!(exit.stderr.contains(part), "{place}: {part:?} is not in {}", exit.stderr);
        }
    }
}

#[test]
fn both_shards_are_not_ready_after_the_panic_of_one_and_the_other_serves_until_it_is_drained() {
    let fault = PlantedFault::new("panic tick-0");
    // Each client is closed a second after the one before, which takes far longer than the test.
    let server = server(&fault, &[BOTH_CORES, &["--drain-ms", "600000"]].concat());
    let mut clients: Vec<Client> = Vec::new();
    while server.metric_values("tickcast_clients").contains(&0) {
        clients.push(server.client());
    }
    clients.extend((0..60).map(|_| server.client()));
    fault.plant();
    server.program.wait_for_stderr("shard 0 has panicked");
    let (sender, codes) = mpsc::channel();
    for client in clients {
        let sender = sender.clone();
        std::thread::spawn(move || sender.send(client.end_code()));
    }
    while codes.recv_timeout(DEADLINE).expect("a client of shard 0 is disconnected").is_some() {}
    for _ in 0..16 {
        server.get("/readyz").assert_refusal(503, "unavailable", &["shard 0 has panicked"]);
    }
}

#[test]
fn a_panic_of_a_feed_or_a_publisher_ends_nothing_else() {
    let fault = PlantedFault::new("panic publisher");
    let other = server(&fault, ARGS);
    fault.plant();
    let publisher = Client::connect(other.address, "/v1/publish?token=test-publish-token", &[]);
    assert_eq!(publisher.end_code(), None);
    Publisher::connect(&other, "test-publish-token").define(&["NEXT"]);
    assert_eq!((other.get("/readyz").status, other.stop(Signal::TERM).code), (200, Some(0)));

    let fault = PlantedFault::new("panic feed-0");
    let other = server(&fault, ARGS);
    let mut client = other.client();
    fault.plant();
    other.program.wait_for_stderr("has failed; its instruments are stale");
    other.wait_for_metric("tickcast_feed_restarts_total", |count| count == 1);
    other.subscriber(&["quote"], &["*"]).until_live();
    client.ping();
    assert_eq!((other.get("/readyz").status, other.stop(Signal::TERM).code), (200, Some(0)));
}

/// The first response to any of several requests, which come to different shards.
fn first_response(server: &Server, path: &'static str) -> Response {
    let (sender, responses) = mpsc::channel();
    for _ in 0..16 {
        let (sender, address) = (sender.clone(), server.address);
        std::thread::spawn(move || {
            let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n");
            let _ = sender.send(send_request(address, request.as_bytes()));
        });
    }
    responses.recv_timeout(DEADLINE).expect("the other shard answers")
}

/// The service manager's end of `NOTIFY_SOCKET`.
struct ServiceManager {
    socket: UnixDatagram,
    folder: TempDir,
}

impl ServiceManager {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("the folder is writable");
        socket.set_read_timeout(Some(DEADLINE)).expect("not 0");
        Self { socket, folder }
    }

    fn next(&self) -> Option<String> {
        let mut bytes = [0; 1024];
        let length = self.socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    /// Reads until a message that begins like this.
    #[track_caller]
    fn wait_for(&self, start: &str) -> String {
        loop {
            let message = self.next().unwrap_or_else(|| panic!("no message {start:?}"));
            if message.starts_with(start) {
                return message;
            }
        }
    }

    /// No message comes for three times as long as there is between two.
    fn assert_silent(&self) {
        self.socket.set_nonblocking(true).expect("a socket");
        while self.next().is_some() {}
        self.socket.set_nonblocking(false).expect("a socket");
        self.socket.set_read_timeout(Some(Duration::from_millis(1500))).expect("not 0");
        assert_eq!(self.next(), None);
        self.socket.set_read_timeout(Some(DEADLINE)).expect("not 0");
    }
}

#[test]
fn a_hanging_shard_fails_the_health_checks_and_the_watchdog_until_it_runs_again() {
    let fault = PlantedFault::new("hang tick-0");
    let manager = ServiceManager::new();
    let mut command = fault.command(BOTH_CORES);
    command.env("NOTIFY_SOCKET", manager.folder.path().join("notify"));
    let server = Server::spawn(command);
    manager.wait_for("READY=1");
    manager.wait_for("WATCHDOG=1");
    assert_eq!((server.get("/healthz").status, server.get("/readyz").status), (200, 200));
    fault.plant();
    server.program.wait_for_stderr("shard 0 does not run");
    for path in ["/healthz", "/readyz"] {
        first_response(&server, path).assert_refusal(503, "unavailable", &["shard 0 does not run", "5 s"]);
    }
    manager.assert_silent();
    fault.remove();
    server.program.wait_for_stderr("shard 0 runs again");
    manager.wait_for("WATCHDOG=1");
    assert_eq!((server.get("/healthz").status, server.get("/readyz").status), (200, 200));
    assert_eq!(server.stop(Signal::TERM).code, Some(0));
}

#[test]
fn a_hanging_shard_does_not_keep_the_process_from_ending() {
    let fault = PlantedFault::new("hang tick-0");
    let server = server(&fault, &[BOTH_CORES, &["--drain-ms", "0", "--drain-timeout-ms", "100"]].concat());
    fault.plant();
    server.program.wait_for_stderr("shard 0 does not run");
    let exit = server.stop(Signal::TERM);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains("shard 0 did not end"), "{}", exit.stderr);
}

#[test]
fn the_service_manager_learns_of_start_reload_and_stop() {
    let manager = ServiceManager::new();
    let mut command = tickcast_test_support::server::Program::command(&["--listen", "127.0.0.1:0", "--feed", "none"]);
    command.env("NOTIFY_SOCKET", manager.folder.path().join("notify"));
    let server = Server::spawn(command);
    manager.wait_for("READY=1");
    server.program.signal(Signal::HUP);
    let reloading = manager.wait_for("RELOADING=1");
    assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
    manager.wait_for("READY=1");
    server.program.signal(Signal::TERM);
    manager.wait_for("STOPPING=1");
    assert_eq!(server.program.wait_for_exit().code, Some(0));
}
