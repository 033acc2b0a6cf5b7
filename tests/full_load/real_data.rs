//! Real recordings through the real binary to real WebSocket clients, compared with an independent decoder of the
//! recordings.
//!
//! Every packet of every client is checked against the protocol's rules. Each trade is compared with the decoder's by
//! its sequence; when nothing more comes, books and last quotes are compared as exact decimals. A late client is exact
//! from its snapshot on.

mod server;
mod subscriber;
mod truth;
mod wire;

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tickcast_test_support::exclusive::exclusive;

use server::ReplayServer;
use subscriber::{BOOK, CheckedClient, PlannedRequest, QUOTE, TICKER, TRADE, subscribes};
use truth::{SYMBOLS, Truth, lead};

const ALL: &[usize] = &[QUOTE, TRADE, TICKER, BOOK];
/// A run that is not complete by then has failed.
const DEADLINE: Duration = Duration::from_secs(240);
const PERP: usize = 2;

/// Interests that can be subscribed to before an instrument is defined. Clients of one plan are compared with each
/// other.
fn early_plans() -> Vec<(&'static str, Vec<PlannedRequest>)> {
    vec![
        ("all", vec![subscribes(ALL, &["*"], 0)]),
        ("all of btc", vec![subscribes(ALL, &["BTC*"], 0)]),
        ("all of eth", vec![subscribes(ALL, &["ETH*"], 0)]),
        ("trades", vec![subscribes(&[TRADE], &["*"], 0)]),
        ("quotes", vec![subscribes(&[QUOTE], &["*"], 0)]),
        ("books", vec![subscribes(&[BOOK], &["*"], 0)]),
        ("quotes and trades of the perpetual", vec![subscribes(&[QUOTE, TRADE], &["BTCUSDT-*"], 0)]),
        ("quotes at 100 ms", vec![subscribes(&[QUOTE], &["*"], 100)]),
        ("quotes at 1000 ms", vec![subscribes(&[QUOTE, TICKER], &["*"], 1000)]),
        ("books at 250 ms", vec![subscribes(&[BOOK], &["BTC*"], 250)]),
        ("trades and quotes at 100 ms", vec![subscribes(&[QUOTE, TRADE], &["*"], 100)]),
        ("trades and all at 1000 ms", vec![subscribes(ALL, &["*"], 1000)]),
        ("trades, and quotes at 10 ms", vec![subscribes(&[TRADE], &["BTC*"], 0), subscribes(&[QUOTE], &["BTC*"], 10)]),
    ]
}

/// Interests in symbols, which have to be defined.
fn named_plans() -> Vec<(&'static str, Vec<PlannedRequest>)> {
    vec![
        ("BTCUSDT", vec![subscribes(ALL, &["BTCUSDT"], 0)]),
        ("ETHUSDT", vec![subscribes(ALL, &["ETHUSDT"], 0)]),
        ("BTCUSDT-PERP", vec![subscribes(ALL, &["BTCUSDT-PERP"], 0)]),
        ("two names", vec![subscribes(&[TRADE, QUOTE], &["ETHUSDT", "BTCUSDT"], 50)]),
        ("no snapshot", vec![subscribes(&[QUOTE, TRADE], &["ETHUSDT"], 0).without_snapshot()]),
    ]
}

/// Interests that change during the run.
fn changing_plans() -> Vec<(&'static str, Vec<PlannedRequest>)> {
    let quotes = |conflate_ms| subscribes(&[QUOTE], &["*"], conflate_ms);
    vec![
        ("other intervals", vec![quotes(0), quotes(1000).after(3000), quotes(100).after(3050), quotes(0).after(3300)]),
        ("leaves books", vec![subscribes(ALL, &["*"], 0), subscribes(&[BOOK], &["*"], 0).unsubscribes().after(20_000)]),
        (
            "leaves and comes again",
            vec![
                subscribes(&[TRADE, BOOK], &["BTC*"], 0),
                subscribes(&[TRADE, BOOK], &["BTC*"], 0).unsubscribes().after(2_000),
                subscribes(&[TRADE, BOOK], &["BTC*"], 100),
            ],
        ),
        ("adds trades", vec![quotes(1000), subscribes(&[TRADE], &["*"], 0).after(20), quotes(500).after(5000)]),
        (
            "drops trades",
            vec![subscribes(&[QUOTE, TRADE], &["*"], 500), subscribes(&[TRADE], &["*"], 0).unsubscribes().after(2000)],
        ),
        (
            "a name within a pattern",
            vec![
                quotes(0),
                subscribes(&[QUOTE], &["BTCUSDT-PERP"], 1000).after(1000),
                subscribes(&[QUOTE], &["BTCUSDT-PERP"], 0).unsubscribes().after(4000),
            ],
        ),
    ]
}

fn connect(address: &str, truth: &Arc<Truth>, name: String, steps: Vec<PlannedRequest>) -> CheckedClient {
    let stream = TcpStream::connect(address).expect("the server listens");
    CheckedClient::connect(name, stream, truth, steps)
}

/// A connection with a small receive buffer.
fn narrow(address: &str) -> TcpStream {
    let address: SocketAddr = address.parse().expect("an address");
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    socket.connect(&address.into()).expect("the server listens");
    socket.into()
}

/// Connects `each` clients of each plan.
fn connect_all(
    server: &ReplayServer,
    truth: &Arc<Truth>,
    plans: &[(&'static str, Vec<PlannedRequest>)],
    each: usize,
    when: &str,
    clients: &mut Vec<(&'static str, CheckedClient)>,
) {
    for nth in 0..each {
        for (name, steps) in plans {
            clients.push((*name, connect(&server.address, truth, format!("{name}, {when} {nth}"), steps.clone())));
            // The connected clients keep reading.
            pump(&mut clients.iter_mut().map(|(_, client)| client).collect::<Vec<_>>(), Duration::ZERO);
        }
    }
}

/// Waits until a client has input, and reads it.
fn pump(clients: &mut [&mut CheckedClient], timeout: Duration) {
    const MESSAGES: usize = 64;
    let timeout = Timespec::try_from(timeout).expect("a short time");
    let ready: Vec<bool> = {
        let mut sockets: Vec<_> = clients.iter().map(|client| PollFd::new(client.stream(), PollFlags::IN)).collect();
        poll(&mut sockets, Some(&timeout)).expect("poll");
        sockets.iter().map(|socket| !socket.revents().is_empty()).collect()
    };
    for (client, ready) in clients.iter_mut().zip(ready) {
        if ready {
            while client.read(MESSAGES) {}
        }
    }
}

/// Pumps until `done`; at the deadline it fails and prints what is missing.
fn pump_until(
    clients: &mut [(&'static str, CheckedClient)],
    targets: &[[Option<u64>; 4]],
    deadline: Instant,
    mut done: impl FnMut(&[(&'static str, CheckedClient)]) -> bool,
) {
    while !done(clients) {
        let lacking = || clients.iter().find_map(|(_, c)| c.lacking(targets).map(|lack| format!("{}: {lack}", c.name)));
        assert!(Instant::now() < deadline, "too late; {:?}", lacking());
        pump(&mut clients.iter_mut().map(|(_, client)| client).collect::<Vec<_>>(), Duration::from_millis(100));
    }
}

/// The targets with those of the tickers, which only the server knows: it computes tickers itself.
fn with_tickers(server: &ReplayServer, mut targets: Vec<[Option<u64>; 4]>) -> Vec<[Option<u64>; 4]> {
    for (target, (symbol, _)) in targets.iter_mut().zip(SYMBOLS) {
        let snapshot = server.snapshot(symbol).expect("an instrument of the recordings");
        for (channel, name) in [(QUOTE, "quote"), (TRADE, "trade"), (BOOK, "book")] {
            assert_eq!(snapshot[name]["sequence"].as_u64(), target[channel], "{symbol} {name}");
        }
        target[TICKER] = snapshot["ticker"]["sequence"].as_u64();
    }
    targets
}

fn assert_groups_agree(clients: &[(&'static str, CheckedClient)], plans: &[(&'static str, Vec<PlannedRequest>)]) {
    let mut compared = 0;
    for (plan, _) in plans {
        // A client whose socket was full had some values conflated that the others received one by one. With a
        // conflation interval that looks the same as the requested conflation, so only clients without a large snapshot
        // are compared.
        let direct = |client: &CheckedClient| match plan.contains("ms") {
            true => !client.name.contains("early"),
            false => client.conflated > 0,
        };
        let members: Vec<_> =
            clients.iter().filter(|(of, client)| of == plan && !direct(client)).map(|(_, client)| client).collect();
        compared += members.iter().skip(1).map(|member| members[0].assert_same_as(member)).sum::<usize>();
    }
    assert!(compared > 0, "nothing was compared");
}

#[test]
fn two_hundred_clients_receive_the_recordings_exactly() {
    let _machine = exclusive();
    let Some(dir) = tickcast_test_support::paths::recordings() else { return };
    let truth = Arc::new(Truth::read(&dir));
    let lead = lead(1, 60_000_000_000);
    // After a ping or a full socket a client catches up, and may receive a value before its interval ends. The rule of
    // one value an interval is checked without them: a snapshot with books is larger than what is kept unsent by default.
    let flags = ["--heartbeat-ms", "200", "--ping-interval-ms", "600000", "--idle-timeout-ms", "900000"];
    let flags = [&flags[..], &["--send-buffer-bytes", "262144", "--notsent-lowat-bytes", "0"]].concat();
    let server = ReplayServer::start(&truth.feed(lead.path(), "10"), &flags);
    let deadline = Instant::now() + DEADLINE;
    let targets = truth.targets();
    let (early, named, changing) = (early_plans(), named_plans(), changing_plans());
    let mut clients = Vec::new();
    connect_all(&server, &truth, &early, 9, "early", &mut clients);
    let known = |clients: &[(_, CheckedClient)]| (0..3).all(|symbol| clients[0].1.sequence(symbol, TRADE) > 0);
    pump_until(&mut clients, &targets, deadline, known);
    connect_all(&server, &truth, &changing, 4, "early", &mut clients);
    connect_all(&server, &truth, &named, 5, "early", &mut clients);
    for late in ["late", "later"] {
        let part = if late == "late" { 3 } else { 2 };
        let trades = truth.instruments[PERP].trades.len() as u64;
        pump_until(&mut clients, &targets, deadline, |clients| clients[0].1.sequence(PERP, TRADE) * part > trades);
        connect_all(&server, &truth, &early, 1, late, &mut clients);
        connect_all(&server, &truth, &named, 1, late, &mut clients);
        connect_all(&server, &truth, &changing[..2], 1, late, &mut clients);
    }
    assert!(clients.len() >= 200, "{} clients", clients.len());
    pump_until(&mut clients, &targets, deadline, |c| c.iter().all(|(_, client)| client.is_complete(&targets)));
    let targets = with_tickers(&server, targets);
    pump_until(&mut clients, &targets, deadline, |c| c.iter().all(|(_, client)| client.is_complete(&targets)));
    assert_rest(&mut clients, &targets, deadline);
    for (_, client) in &clients {
        assert_eq!((client.gaps, client.missed), (0, 0), "{}: gaps", client.name);
    }
    let whole = clients.iter().filter(|(plan, c)| *plan == "all" && c.first_trades[..3] == [1, 1, 1]).count();
    println!("{} clients, {whole} of plan \"all\" from the first trade on", clients.len());
    assert!(whole > 0, "no client received all trades");
    assert_groups_agree(&clients, &early);
    assert_groups_agree(&clients, &named);
}

/// The recordings have ended: each client gets a heartbeat with the same position, and no more records.
fn assert_rest(clients: &mut [(&'static str, CheckedClient)], targets: &[[Option<u64>; 4]], deadline: Instant) {
    let records: Vec<_> = clients.iter().map(|(_, client)| (client.records, client.heartbeats)).collect();
    pump_until(clients, targets, deadline, |clients| {
        clients.iter().zip(&records).all(|((_, client), (_, heartbeats))| client.heartbeats > *heartbeats)
    });
    for ((_, client), (records, _)) in clients.iter().zip(&records) {
        assert_eq!(client.lacking(targets), None, "{}", client.name);
        assert_eq!(client.records, *records, "{}: records after the last", client.name);
        assert_eq!(client.position, clients[0].1.position, "{}: position at the end", client.name);
        client.assert_at_rest();
    }
}

/// Some clients that read at once, and some that read a little each time the others have advanced.
struct Race {
    server: ReplayServer,
    clients: Vec<(&'static str, CheckedClient)>,
    readers: usize,
    /// For each slow client, the number of the readers' records at which it reads again.
    resumes: Vec<u64>,
}

impl Race {
    /// Messages that a slow client reads at once, and records that the others receive in between.
    const MESSAGES: usize = 6;
    const RECORDS: u64 = 1_000;

    fn start(truth: &Arc<Truth>, ring_bytes: &str) -> Self {
        let lead = lead(600_000, 1_000_000_000);
        let flags = ["--heartbeat-ms", "200", "--send-buffer-bytes", "16384", "--ring-bytes", ring_bytes];
        // Trades are given up for nothing but the ring here, neither for their age nor for the time a client is slow.
        let limits = ["--slow-timeout-ms", "600000", "--log-lag-ms", "0"];
        let server = ReplayServer::start(&truth.feed(lead.path(), "max"), &[&flags[..], &limits].concat());

        let slow: [(&[usize], u64); 3] = [(ALL, 0), (&[QUOTE, TRADE], 0), (&[QUOTE, TRADE, BOOK], 100)];
        // All at once, as a busy server takes a while for each upgrade.
        let address = &server.address;
        let clients = std::thread::scope(|scope| {
            let readers = (0..3).map(|nth| {
                let steps = vec![subscribes(ALL, &["BTC*", "ETH*"], 0)];
                scope.spawn(move || ("reader", connect(address, truth, format!("reader {nth}"), steps)))
            });
            let slow = slow.map(|(channels, conflate_ms)| {
                let steps = vec![subscribes(channels, &["BTC*", "ETH*"], conflate_ms)];
                let name = format!("slow, {channels:?} at {conflate_ms} ms");
                scope.spawn(move || ("slow", CheckedClient::connect(name, narrow(address), truth, steps)))
            });
            let begun: Vec<_> = readers.chain(slow).collect();
            begun.into_iter().map(|client| client.join().expect("connected")).collect()
        });
        Self { server, clients, readers: 3, resumes: vec![0; 3] }
    }

    /// Runs until every client has all that the recordings contain.
    fn run(&mut self, truth: &Truth) {
        let deadline = Instant::now() + DEADLINE;
        let targets = truth.targets();
        loop {
            let complete = |clients: &[(&str, CheckedClient)]| clients.iter().all(|(_, c)| c.is_complete(&targets));
            if complete(&self.clients) {
                break;
            }
            let lacking =
                || self.clients.iter().find_map(|(_, c)| Some(format!("{}: {}", c.name, c.lacking(&targets)?)));
            assert!(Instant::now() < deadline, "too late; {:?}", lacking());
            self.tick(complete(&self.clients[..self.readers]));
        }
        let targets = with_tickers(&self.server, targets);
        pump_until(&mut self.clients, &targets, deadline, |c| c.iter().all(|(_, c)| c.is_complete(&targets)));
        assert_rest(&mut self.clients, &targets, deadline);
        for (_, client) in &self.clients {
            println!(
                "{}: {} records, {} trades from {:?}, {} in {} gaps, {} conflated",
                client.name,
                client.records,
                client.trades,
                client.first_trades,
                client.missed,
                client.gaps,
                client.conflated
            );
        }
        self.assert_sums(truth);
    }

    fn tick(&mut self, readers_are_complete: bool) {
        let (readers, slow) = self.clients.split_at_mut(self.readers);
        let mut readers: Vec<_> = readers.iter_mut().map(|(_, client)| client).collect();
        pump(&mut readers, Duration::from_millis(10));
        let records = readers.iter().map(|reader| reader.records).min().expect("readers");
        for ((_, client), resume) in slow.iter_mut().zip(&mut self.resumes) {
            if readers_are_complete || records >= *resume {
                *resume = records + Self::RECORDS;
                client.read(Self::MESSAGES);
            }
        }
    }

    /// Received trades and those in gaps are all that were sent since the first. The sums suffice, as sequences are
    /// checked on arrival to be contiguous.
    fn assert_sums(&self, truth: &Truth) {
        for (_, client) in &self.clients {
            let sent: u64 = truth
                .instruments
                .iter()
                .zip(&client.first_trades)
                .map(|(instrument, first)| instrument.trades.len() as u64 + 1 - first)
                .sum();
            assert_eq!(client.trades + client.missed, sent, "{}: trades and gaps", client.name);
        }
    }
}

#[test]
fn slow_clients_receive_every_trade_that_is_in_the_ring() {
    let _machine = exclusive();
    let Some(dir) = tickcast_test_support::paths::recordings() else { return };
    let truth = Arc::new(Truth::read(&dir));
    let mut race = Race::start(&truth, "134217728");
    race.run(&truth);
    for (name, client) in &race.clients {
        assert_eq!(client.gaps, 0, "{}", client.name);
        assert!(*name == "reader" || client.conflated > 0, "{} was never slow", client.name);
    }
}

#[test]
fn slow_clients_receive_a_gap_for_every_missed_trade() {
    let _machine = exclusive();
    let Some(dir) = tickcast_test_support::paths::recordings() else { return };
    let truth = Arc::new(Truth::read(&dir));
    let mut race = Race::start(&truth, "2097152");
    race.run(&truth);
    let slow = || race.clients[race.readers..].iter().map(|(_, client)| client);
    assert!(slow().any(|client| client.gaps > 0), "no client had a gap");
    assert!(slow().any(|client| client.conflated > 0), "no client had conflated values");
}
