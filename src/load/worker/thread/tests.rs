//! A worker thread against scripted servers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use tungstenite::protocol::Message;

use super::super::messages::ExpectedInstruments;
use super::super::timeline::SecondTally;
use super::*;
use tickcast_client::decode::SequenceViolation;
use tickcast_protocol::Channel;
use tickcast_test_support::packets::PacketBuilder;
use tickcast_test_support::scripted_server;

const PENDING_MAX: usize = 64;

/// A job with `count` clients, of which the first is read independently.
fn thread_job(address: SocketAddr, count: usize, role: ClientRole) -> ThreadJob {
    let target = Target::parse(&address.to_string()).expect("an address is a good URL");
    let request = ClientRequest {
        messages: vec![r#"{"op":"subscribe","id":1}"#.to_owned()],
        expected: ExpectedInstruments::Unknown,
    };
    let plan = |nth| ClientPlan { request: 0, role, pauses: false, source: None, independent: nth == 0 };
    ThreadJob {
        address,
        tls: TlsConfig::new(&target, None).expect("it is a plain one"),
        target,
        options: ReadOptions::default(),
        requests: Arc::new([request]),
        clients: (0..count).map(plan).collect(),
        storm: Vec::new(),
        pending_max: PENDING_MAX,
        churn_per_s: 0.0,
        stall_for: None,
        pause: None,
        read_rate: None,
        instruments: 0,
    }
}

/// Runs a thread with `count` clients until the server has sent one message for each.
fn run(address: SocketAddr, count: usize, role: ClientRole, until: &Receiver<()>) -> (WorkerTally, Arc<WorkerShared>) {
    run_job(thread_job(address, count, role), count, until)
}

/// Runs a thread until the server has sent so many messages.
fn run_job(job: ThreadJob, times: usize, until: &Receiver<()>) -> (WorkerTally, Arc<WorkerShared>) {
    let shared = Arc::new(WorkerShared::default());
    shared.set_stage(RunStage::Measuring);
    let worker = WorkerThread::new(job, Arc::clone(&shared)).expect("epoll is there");
    let thread = std::thread::spawn(move || worker.run());
    for _ in 0..times {
        until.recv().expect("the server sends one when it is done");
    }
    shared.set_stage(RunStage::Done);
    (thread.join().expect("the worker ends").expect("no system error"), shared)
}

/// A server that sends these packets to each client, closes with 4002, and sends `()` when the client has gone.
fn server(packets: Vec<PacketBuilder>) -> (SocketAddr, Receiver<()>) {
    let (sender, done) = channel();
    let address = scripted_server::serve("", move |mut peer| {
        scripted_server::accept_subscription(&mut peer, &[]);
        for packet in &packets {
            peer.send(packet.message()).expect("the client reads");
        }
        let frame = tungstenite::protocol::CloseFrame { code: 4002.into(), reason: "enough".into() };
        // A client that found something malformed has gone by now.
        let _ = peer.close(Some(frame));
        scripted_server::wait_for_end(&mut peer);
        sender.send(()).expect("the test waits");
    });
    (address, done)
}

fn start() -> PacketBuilder {
    PacketBuilder::new().definition(1, "BTC-USD")
}

#[test]
fn all_records_are_read_and_closes_are_counted_by_code() {
    let gap = PacketBuilder::new().gap(Channel::Trade, 4, 9).trade(10, 0);
    let (address, done) = server(vec![start().quote(1, 0).trade(3, 0), gap]);
    // More than may be pending at once.
    let (tally, shared) = run(address, PENDING_MAX + 6, ClientRole::Steady, &done);
    let clients = PENDING_MAX as u64 + 6;
    assert_eq!((tally.connected, tally.refused.len()), (clients, 0));
    assert_eq!(shared.progress().settled, clients);
    assert_eq!((tally.violations, &tally.first_violation), (0, &None));
    assert_eq!(tally.closes, BTreeMap::from([("4002 (slow consumer)".to_owned(), clients)]));
    let counters = tally.window.counters;
    assert_eq!((counters.records, counters.packets, counters.gaps), (3 * clients, 2 * clients, clients));
    assert!(tally.window.bytes > clients * 300, "{}", tally.window.bytes);
    assert!(tally.window.meter.recv().max_ns > 0);
}

#[test]
fn a_sequence_jump_is_found_on_every_connection() {
    let (address, done) = server(vec![start().trade(3, 0), PacketBuilder::new().trade(5, 0)]);
    let (tally, _) = run(address, 3, ClientRole::Steady, &done);
    assert_eq!(tally.violations, 3);
    let jump = SequenceViolation::Jump { instrument: 1, channel: Channel::Trade, last: 3.into(), got: 5.into() };
    assert_eq!(tally.first_violation, Some(jump.to_string()));
}

#[test]
fn a_malformed_packet_ends_the_connection_and_is_counted() {
    let (sender, done) = channel();
    let address = scripted_server::serve("", move |mut peer| {
        scripted_server::accept_subscription(&mut peer, &[]);
        peer.send(Message::binary(vec![9; 24])).expect("the client reads");
        scripted_server::wait_for_end(&mut peer);
        sender.send(()).expect("the test waits");
    });
    let (tally, _) = run(address, 1, ClientRole::Steady, &done);
    assert_eq!(tally.malformed.len(), 1);
    assert!(tally.malformed.keys().all(|what| what.contains("version 9")), "{:?}", tally.malformed);
}

#[test]
fn rejected_subscriptions_are_counted_by_message() {
    let (sender, done) = channel();
    let address = scripted_server::serve("", move |mut peer| {
        scripted_server::subscribe_request(&mut peer);
        let error = r#"{"type":"error","id":1,"code":"bad_request","message":"symbols: too many"}"#;
        peer.send(Message::text(error)).expect("the client reads");
        peer.close(None).expect("the client reads");
        scripted_server::wait_for_end(&mut peer);
        sender.send(()).expect("the test waits");
    });
    let (tally, _) = run(address, 2, ClientRole::Steady, &done);
    assert_eq!(tally.rejected, BTreeMap::from([("bad_request: symbols: too many".to_owned(), 2)]));
    assert_eq!(tally.closes, BTreeMap::from([("1005 (no code given)".to_owned(), 2)]));
}

#[test]
fn a_stalled_client_reads_nothing_until_the_end() {
    let (sender, done) = channel();
    let address = scripted_server::serve("", move |mut peer| {
        scripted_server::subscribe_request(&mut peer);
        peer.send(start().quote(1, 0).message()).expect("the socket has room");
        let frame = tungstenite::protocol::CloseFrame { code: 4002.into(), reason: "enough".into() };
        peer.close(Some(frame)).expect("the socket has room");
        sender.send(()).expect("the test waits");
        scripted_server::wait_for_end(&mut peer);
    });
    let (tally, shared) = run(address, 2, ClientRole::Stalled, &done);
    assert_eq!((tally.connected, shared.progress().records), (2, 0));
    assert_eq!(tally.closes, BTreeMap::from([("4002 (slow consumer)".to_owned(), 2)]));
}

#[test]
fn refusals_are_counted_by_message() {
    let answer = concat!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 42\r\n\r\n",
        r#"{"error":{"code":"full","message":"full"}}"#
    );
    let address = scripted_server::respond(answer);
    let shared = Arc::new(WorkerShared::default());
    let worker =
        WorkerThread::new(thread_job(address, 3, ClientRole::Steady), Arc::clone(&shared)).expect("epoll is there");
    let thread = std::thread::spawn(move || worker.run());
    while shared.progress().settled < 3 {
        std::thread::yield_now();
    }
    shared.set_stage(RunStage::Done);
    let tally = thread.join().expect("the worker ends").expect("no system error");
    assert_eq!(tally.connected, 0);
    assert_eq!(tally.refused, BTreeMap::from([("503 Service Unavailable: full".to_owned(), 3)]));
}

#[test]
fn a_storm_is_counted_apart_from_steady_clients() {
    let (address, done) = server(vec![start().quote(1, 0)]);
    let mut job = thread_job(address, 3, ClientRole::Steady);
    let plan = ClientPlan { request: 0, role: ClientRole::Storm, pauses: false, source: None, independent: false };
    job.storm = vec![plan; 200];
    let (tally, shared) = run_job(job, 203, &done);
    assert_eq!((tally.connected, tally.storm.connected, tally.storm.refused), (3, 200, 0));
    assert_eq!(shared.progress().settled, 3, "the storm is not what the run waits for");
    assert!(tally.storm.seconds > 0.0);
    assert_eq!(tally.connect_times.upgraded.summary().count, 203);
    assert_eq!(tally.connect_times.first_data.summary().count, 203);
    // Latencies are those of the steady clients alone.
    assert_eq!((tally.window.meter.recv().count, tally.window.counters.records), (3, 203));
}

#[test]
fn churned_clients_are_reset_and_replaced() {
    let (sender, done) = channel();
    let address = scripted_server::serve("", move |mut peer| {
        scripted_server::accept_subscription(&mut peer, &[]);
        let end = loop {
            if let Err(error) = peer.read() {
                break error;
            }
        };
        // The run may be over for the clients that are left at its end.
        let _ = sender.send(!matches!(end, tungstenite::Error::ConnectionClosed));
    });
    let mut job = thread_job(address, 4, ClientRole::Steady);
    job.churn_per_s = 1000.0;
    let shared = Arc::new(WorkerShared::default());
    let worker = WorkerThread::new(job, Arc::clone(&shared)).expect("epoll is there");
    let thread = std::thread::spawn(move || worker.run());
    while shared.progress().settled < 4 {
        std::thread::yield_now();
    }
    shared.set_stage(RunStage::Measuring);
    for _ in 0..20 {
        assert!(done.recv().expect("a client left"), "the server gets a reset and no close frame");
    }
    shared.set_stage(RunStage::Done);
    let tally = thread.join().expect("the worker ends").expect("no system error");
    assert!(tally.churned >= 20, "{}", tally.churned);
    assert_eq!((tally.connected, tally.violations, tally.refused.len()), (4, 0, 0));
}

#[test]
fn a_client_reads_nothing_in_a_pause_and_everything_after_it() {
    let (sender, sent) = channel();
    let is_paused = Arc::new(AtomicBool::new(false));
    let waits_for = Arc::clone(&is_paused);
    let address = scripted_server::serve("", move |mut peer| {
        scripted_server::accept_subscription(&mut peer, &[]);
        // Acquire: the partner is the test's Release.
        while !waits_for.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        peer.send(start().quote(1, 0).message()).expect("the socket has room");
        sender.send(()).expect("the test waits");
        scripted_server::wait_for_end(&mut peer);
    });
    let mut job = thread_job(address, 2, ClientRole::Steady);
    job.clients[1].pauses = true;
    let shared = Arc::new(WorkerShared::default());
    let mut worker = WorkerThread::new(job, Arc::clone(&shared)).expect("epoll is there");
    let mut events = Vec::with_capacity(EVENTS_MAX);
    let mut step = |worker: &mut WorkerThread| worker.step(&mut events, WAIT_CHURN).expect("no system error");
    while shared.progress().settled < 2 {
        step(&mut worker);
    }
    worker.open_window();
    worker.change_interest(InterestChange::PauseBegins).expect("no system error");
    is_paused.store(true, Ordering::Release);
    for _ in 0..2 {
        sent.recv().expect("the server has sent");
    }
    while shared.progress().records < 1 {
        step(&mut worker);
    }
    for _ in 0..20 {
        step(&mut worker);
    }
    assert_eq!(shared.progress().records, 1, "one of the two does not read");
    worker.change_interest(InterestChange::PauseEnds).expect("no system error");
    while shared.progress().records < 2 {
        step(&mut worker);
    }
    worker.close_window();
    let tally = worker.finish();
    assert_eq!((tally.closes.len(), tally.malformed.len(), tally.violations), (0, 0, 0));
    let rows = &tally.window.timeline;
    let records = [ClientClass::Steady, ClientClass::Pausing].map(|class| {
        let (of, last) = (|row: &SecondTally| row.received[class as usize].records, rows.last().expect("a row"));
        assert_eq!(last.received[class as usize].standing.covered, 1);
        rows.iter().map(of).sum::<u64>()
    });
    assert_eq!((records, tally.window.meter.recv().count), ([1, 1], 2));
}

#[test]
fn limited_clients_are_counted_apart_and_their_closes_are_no_errors() {
    let gap = PacketBuilder::new().gap(Channel::Trade, 4, 9).trade(10, 0);
    let (address, done) = server(vec![start().quote(1, 0).trade(3, 0), gap]);
    let mut job = thread_job(address, 3, ClientRole::Steady);
    job.clients[0].role = ClientRole::Limited;
    job.read_rate = Some(ReadRate { bytes_per_second: 1_000_000, percent: 33.0 });
    let (tally, shared) = run_job(job, 3, &done);
    let closed = |clients| BTreeMap::from([("4002 (slow consumer)".to_owned(), clients)]);
    assert_eq!((&tally.closes, &tally.limited_closes, tally.violations), (&closed(2), &closed(1), 0));
    let MeasuredWindow { counters, limited_counters, limited_meter, meter, limited_bytes, .. } = &tally.window;
    assert_eq!((counters.records, limited_counters.records, limited_counters.gaps), (9, 3, 1));
    assert_eq!((meter.recv().count, limited_meter.recv().count), (6, 3));
    assert!(*limited_bytes > 200, "{limited_bytes}");
    assert_eq!(shared.progress().records, 6, "the run does not wait for limited clients");
    let row = tally.window.timeline.first().expect("a row");
    assert_eq!(row.received.each_ref().map(|of| of.records), [6, 3, 0]);
}

#[test]
fn a_limited_client_leaves_the_rest_in_its_socket() {
    const PACKETS: usize = 200;
    let (sender, sent) = channel();
    let address = scripted_server::serve("", move |mut peer| {
        scripted_server::accept_subscription(&mut peer, &[]);
        for nth in 0..PACKETS as u64 {
            peer.send(start().quote(nth + 1, 0).message()).expect("the sockets have room");
        }
        sender.send(()).expect("the test waits");
        scripted_server::wait_for_end(&mut peer);
    });
    let mut job = thread_job(address, 1, ClientRole::Limited);
    job.read_rate = Some(ReadRate { bytes_per_second: 1_000, percent: 100.0 });
    let mut worker = WorkerThread::new(job, Arc::new(WorkerShared::default())).expect("epoll is there");
    let mut events = Vec::with_capacity(EVENTS_MAX);
    while worker.tally.connected < 1 {
        worker.step(&mut events, WAIT_CHURN).expect("no system error");
    }
    worker.open_window();
    sent.recv().expect("it has sent");
    while worker.context.limited_bytes < 100 {
        worker.step(&mut events, WAIT_CHURN).expect("no system error");
    }
    // Two intervals' worth at most.
    assert!(worker.context.limited_bytes < 100 + 100, "{}", worker.context.limited_bytes);
}

#[test]
fn changes_of_interest_come_in_the_order_of_their_times() {
    let pause = Pause { at_seconds: 6.0, for_seconds: 2.0, percent: 100.0 };
    let changes = interest_changes(Some(Duration::from_secs(7)), Some(pause));
    let seconds = Duration::from_secs;
    let want = [
        (seconds(6), InterestChange::PauseBegins),
        (seconds(7), InterestChange::StallEnds),
        (seconds(8), InterestChange::PauseEnds),
    ];
    assert_eq!(changes, want);
}

#[test]
fn stalled_clients_read_after_stall_for() {
    let (address, done) = server(vec![start().quote(1, 0)]);
    let job = ThreadJob { stall_for: Some(Duration::from_millis(50)), ..thread_job(address, 2, ClientRole::Stalled) };
    let (tally, _) = run_job(job, 2, &done);
    assert_eq!(tally.closes, BTreeMap::from([("4002 (slow consumer)".to_owned(), 2)]));
    assert_eq!((tally.window.counters.records, tally.window.meter.recv().count), (2, 0), "read, and not timed");
}

#[test]
fn packets_of_an_opaque_server_are_checked_and_timed() {
    let (sender, done) = channel();
    let address = scripted_server::serve("", move |mut peer| {
        assert_eq!(peer.read().expect("the client speaks"), Message::text("SUB a"));
        assert_eq!(peer.read().expect("the client speaks"), Message::text("SUB b"));
        peer.send(Message::text("welcome")).expect("the client reads");
        peer.send(Message::binary(b"\x01 is no packet, though it begins like one".to_vec())).expect("the client reads");
        for sequence in [3, 4, 6] {
            peer.send(PacketBuilder::new().trade(sequence, 0).message()).expect("the client reads");
        }
        peer.close(None).expect("the client reads");
        scripted_server::wait_for_end(&mut peer);
        sender.send(()).expect("the test waits");
    });
    let mut job = thread_job(address, 2, ClientRole::Steady);
    let messages = ["SUB a", "", "SUB b"].map(str::to_owned).to_vec();
    job.requests = Arc::new([ClientRequest { messages, expected: ExpectedInstruments::Unknown }]);
    job.options.opaque = true;
    let (tally, shared) = run_job(job, 2, &done);
    assert_eq!((tally.malformed.len(), tally.window.messages, tally.window.counters.records), (0, 10, 6));
    assert_eq!((tally.violations, tally.window.meter.recv().count), (2, 6), "the jump is found without a Definition");
    assert_eq!(shared.progress().records, 10, "progress is in messages");
}

#[test]
fn received_records_are_compared_with_published_ones() {
    let packet = start().quote(1, 0).quote(2, 0).quote(5, 0x10).trade(3, 0).gap(Channel::Trade, 4, 5);
    let (sender, done) = channel();
    let address = scripted_server::serve("", move |mut peer| {
        scripted_server::accept_subscription(&mut peer, &[]);
        peer.send(packet.message()).expect("the client reads");
        sender.send(()).expect("the test waits");
        scripted_server::wait_for_end(&mut peer);
    });
    let mut job = thread_job(address, 2, ClientRole::Steady);
    job.requests = Arc::new([ClientRequest {
        messages: vec![r#"{"op":"subscribe","id":1}"#.to_owned()],
        expected: ExpectedInstruments::Any(1),
    }]);
    // A client that connects later receives as much, and is not counted.
    let plan = ClientPlan { request: 0, role: ClientRole::Storm, pauses: false, source: None, independent: false };
    job.storm = vec![plan];
    let shared = Arc::new(WorkerShared::default());
    shared.set_stage(RunStage::Measuring);
    let worker = WorkerThread::new(job, Arc::clone(&shared)).expect("epoll is there");
    let thread = std::thread::spawn(move || worker.run());
    while shared.progress().records < 12 {
        std::thread::yield_now();
    }
    done.recv().expect("the server has sent all");
    shared.finish(PublishedCount { records: 10, instruments: 1 });
    let delivered = thread.join().expect("the worker ends").expect("no system error").delivered;
    // Of ten: quotes 1, 2, 5 and trade 3 came, two quotes were merged, two trades announced as lost.
    let want =
        DeliveryCounts { clients: 2, expected: 20, received: 8, merged: 4, lost: 4, missing: 4, clients_short: 2 };
    assert_eq!(delivered, want);
}
