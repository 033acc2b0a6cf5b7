//! `https://` and `wss://`: the same as without encryption, certificates that are renewed, limits of handshakes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;
use tickcast_protocol::record::RecordKind;
use tickcast_test_support::DEADLINE;
use tickcast_test_support::client::{Client, Received, records_of};
use tickcast_test_support::http::{Response, send_request};
use tickcast_test_support::publisher::{Publisher, quote, trade};
use tickcast_test_support::server::Program;
use tickcast_test_support::tls::{Authority, tls_address};

const TOKEN: &str = "token-of-the-publisher";
const PUBLISHING: [&str; 4] = ["--feed", "none", "--publish-token", TOKEN];

fn get(address: SocketAddr, path: &str) -> Response {
    send_request(address, format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())
}

fn publisher_at(address: SocketAddr) -> Publisher {
    let bearer = format!("Bearer {TOKEN}");
    Publisher(Client::connect(address, "/v1/publish", &[("Authorization", &bearer)]))
}

fn subscribe(address: SocketAddr, channels: &[&str]) -> Client {
    let mut client = Client::connect(address, "/v1/stream", &[]);
    assert_eq!(client.reply()["type"], "welcome");
    let request = json!({"op": "subscribe", "id": 1, "channels": channels, "symbols": ["*"], "snapshot": false});
    client.send_text(&request.to_string());
    assert_eq!(client.reply()["type"], "subscribed");
    client
}

/// The trades that a client gets, up to the one with this price: all of their bytes.
fn trades_to(client: &mut Client, px: i64) -> Vec<Vec<u8>> {
    let mut trades = Vec::new();
    loop {
        let Received::Packet(packet) = client.receive() else { continue };
        for record in records_of(&packet) {
            if RecordKind::from_wire(record.header.kind) == Some(RecordKind::Trade) {
                let is_last = record.bytes[32..40] == px.to_le_bytes();
                trades.push(record.bytes);
                if is_last {
                    return trades;
                }
            }
        }
    }
}

#[test]
fn subscribers_and_publishers_have_over_tls_what_they_have_without() {
    let authority = Authority::new();
    let server = authority.start(&PUBLISHING);
    let tunnel = authority.tunnel(&server);
    let mut publisher = publisher_at(tunnel);
    assert_eq!(publisher.define(&["A", "B"]), [1, 2]);
    let mut clients = [server.address, tunnel, tunnel].map(|address| subscribe(address, &["trade", "quote"]));
    for px in 1..=2000 {
        publisher.publish(&[quote(1, px), trade(1, px), quote(2, px), trade(2, px)]);
    }
    publisher.publish(&[trade(1, 5000)]);
    let [plain, secured, other] = clients.each_mut().map(|client| trades_to(client, 5000));
    assert_eq!(plain.len(), 4001);
    assert!(plain == secured && plain == other, "the records are the same");
    server.wait_for_metric("tickcast_tls_clients", |clients| clients == 2);
    server.wait_for_metric("tickcast_tls_faults_total", |faults| faults == 0);
}

#[test]
fn requests_are_answered_over_tls_as_without() {
    let authority = Authority::new();
    let server = authority.start(&["--feed", "sim:instruments=2000,rate=1", "--enable-echo"]);
    let tunnel = authority.tunnel(&server);
    // All of them are defined.
    let until = Instant::now() + DEADLINE;
    while !get(server.address, "/v1/instruments").text().contains("\"instrument\":2000,") {
        assert!(Instant::now() < until, "the market has 2,000 instruments");
    }
    for path in ["/healthz", "/readyz", "/", "/v1/instruments", "/v1/nothing"] {
        let (plain, secured) = (get(server.address, path), get(tunnel, path));
        assert!(plain.status == secured.status && plain.body == secured.body, "{path}");
    }
    assert!(get(tunnel, "/v1/instruments").body.len() > 100_000, "a response of several pieces");
    let events = format!("GET /v1/sse?symbols=*&channels=quote HTTP/1.1\r\nHost: {tunnel}\r\n\r\n");
    let mut stream = TcpStream::connect(tunnel).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("not 0");
    stream.write_all(events.as_bytes()).expect("it reads");
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains("\"type\":\"subscribed\"") {
        let len = stream.read(&mut buffer).expect("events");
        assert!(len > 0, "the stream goes on: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..len]));
    }
    let mut echo = Client::connect(tunnel, "/v1/echo", &[]);
    let long = "x".repeat(100_000);
    echo.send_text(&long);
    assert!(matches!(echo.receive(), Received::Text(text) if text == long));
}

#[test]
fn certificates_are_renewed_without_a_closed_connection() {
    let authority = Authority::new();
    let server = authority.start(&PUBLISHING);
    let tunnel = authority.tunnel(&server);
    let mut publisher = publisher_at(tunnel);
    publisher.define(&["A"]);
    let mut client = subscribe(tunnel, &["trade"]);
    let first = authority.shake(&server, "localhost").expect("a handshake");
    // A key without its certificate, as between two steps of a renewal.
    let old_key = std::fs::read(authority.path("key.pem")).expect("it is there");
    std::fs::write(authority.path("key.pem"), "no key").expect("the folder is writable");
    server.program.wait_for_stderr("key.pem: no private key: expected PEM with BEGIN PRIVATE KEY");
    server.wait_for_metric("tickcast_tls_certificate_reload_failures_total", |failures| failures > 0);
    assert_eq!(authority.shake(&server, "localhost").expect("the old pair"), first);
    std::fs::write(authority.path("key.pem"), old_key).expect("the folder is writable");
    authority.renew(&["localhost", "new.test"]);
    server.program.wait_for_stderr("certificates were read again: localhost");
    let until = Instant::now() + DEADLINE;
    let second = loop {
        // A look between the two files finds a pair that does not match.
        if let Ok(second) = authority.shake(&server, "new.test") {
            break second;
        }
        assert!(Instant::now() < until, "the new certificate is not in use");
    };
    assert_ne!(first, second);
    server.program.signal(Signal::HUP);
    server.program.wait_for_stderr("SIGHUP: settings were read again");
    publisher.publish(&[trade(1, 7)]);
    assert_eq!(trades_to(&mut client, 7).len(), 1, "the connections of before go on");
}

#[test]
fn pair_that_cannot_be_used_ends_the_start() {
    let (authority, other) = (Authority::new(), Authority::new());
    let path = |of: &Authority, name: &str| of.path(name).to_str().expect("UTF-8").to_owned();
    let run = |cert: &str, key: &str| {
        let pair = ["--tls-listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key];
        Program::run(&[&["--listen", "127.0.0.1:0", "--feed", "none"], &pair[..]].concat())
    };
    let (cert, key) = (path(&authority, "cert.pem"), path(&authority, "key.pem"));
    for (cert, key, message) in [
        (&cert, &path(&other, "key.pem"), "key.pem: the certificate is for another key"),
        (&"/nonexistent/cert.pem".to_owned(), &key, "/nonexistent/cert.pem: "),
        (&key, &key, "key.pem: no certificate: expected PEM with BEGIN CERTIFICATE"),
    ] {
        let exit = run(cert, key);
        assert!(exit.code == Some(2) && exit.stderr.contains(message), "{:?} {}", exit.code, exit.stderr);
    }
}

#[test]
fn what_is_no_handshake_is_answered_and_counted() {
    let authority = Authority::new();
    let server = authority.start(&["--feed", "none"]);
    let address = tls_address(&server);
    let response = get(address, "/");
    assert!(response.status == 400 && response.text().contains("expected https:// or wss://"), "{response:?}");
    server.wait_for_metric("tickcast_tls_plain_http_total", |count| count == 1);
    for (bytes, metric) in [
        (&b"\x00\x01\x02\x03"[..], "tickcast_tls_not_tls_total"),
        (&[22, 3, 3, 0, 4, 99, 0, 0, 0], "tickcast_tls_broken_total"),
    ] {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("not 0");
        stream.write_all(bytes).expect("it reads");
        let mut answer = Vec::new();
        // An error is a reset.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer[0] == 21, "an alert or nothing: {answer:?}");
        server.wait_for_metric(metric, |count| count == 1);
    }
    // TLS to the plain port.
    let mut stream = TcpStream::connect(server.address).expect("it listens");
    stream.write_all(&[22, 3, 1, 0, 4, 1, 0, 0, 0]).expect("it reads");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn handshakes_have_a_rate_and_a_deadline_of_their_own() {
    let authority = Authority::new();
    let limits = ["--tls-handshakes-per-s", "2", "--tls-handshake-timeout-ms", "1000", "--cores", "0"];
    let server = authority.start(&[&["--feed", "none"], &limits[..]].concat());
    let mut undisturbed = server.client();
    let outcomes: Vec<bool> = thread::scope(|scope| {
        let shake = || scope.spawn(|| authority.shake(&server, "localhost").is_ok());
        let threads: Vec<_> = (0..20).map(|_| shake()).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let served = outcomes.iter().filter(|is_served| **is_served).count();
    assert!((1..20).contains(&served), "{served} of 20 handshakes");
    server.wait_for_metric("tickcast_tls_refused_rate_total", |refused| refused == 20 - served as u64);
    // One that sends nothing takes no permit, and is closed.
    let mut silent = TcpStream::connect(tls_address(&server)).expect("it listens");
    silent.set_read_timeout(Some(DEADLINE)).expect("not 0");
    assert_eq!(silent.read(&mut [0; 16]).expect("an end"), 0);
    server.wait_for_metric("tickcast_tls_timeouts_total", |count| count == 1);
    undisturbed.send_text(r#"{"op":"ping","id":3}"#);
    assert_eq!(undisturbed.reply()["type"], "pong");
}

#[test]
fn over_the_limit_of_handshakes_under_way_the_newest_is_closed() {
    let authority = Authority::new();
    let limits = ["--tls-handshakes-pending-max", "2", "--cores", "0", "--tls-handshake-timeout-ms", "60000"];
    let server = authority.start(&[&["--feed", "none"], &limits[..]].concat());
    let silent: Vec<_> = (0..5).map(|_| TcpStream::connect(tls_address(&server)).expect("it listens")).collect();
    let begin = || {
        let (mut client, mut socket) = authority.connect(&server);
        client.write_tls(&mut socket).expect("it reads");
        let read = socket.read(&mut [0; 4096]);
        (socket, read.expect("an end, or the server's part of the handshake"))
    };
    // They do not go on.
    let under_way = [begin(), begin()];
    assert!(under_way.iter().all(|(_, read)| *read > 0));
    assert_eq!(begin().1, 0, "the third is closed");
    server.wait_for_metric("tickcast_tls_refused_pending_total", |refused| refused == 1);
    under_way[0].0.shutdown(Shutdown::Both).expect("it is open");
    server.wait_for_metric("tickcast_tls_closed_total", |closed| closed == 1);
    authority.shake(&server, "localhost").expect("one has made place");
    drop(silent);
}

#[test]
fn page_without_encryption_is_of_another_origin() {
    let authority = Authority::new();
    let server = authority.start(&["--feed", "none"]);
    let tunnel = authority.tunnel(&server);
    let upgrade = |scheme: &str| {
        let origin = format!("{scheme}://{tunnel}");
        Client::try_connect(tunnel, "/v1/stream", &[("Origin", &origin)]).map_err(|refusal| refusal.status).err()
    };
    assert_eq!((upgrade("https"), upgrade("http")), (None, Some(403)));
}

#[test]
fn clients_over_tls_are_told_of_a_stop() {
    let authority = Authority::new();
    let server = authority.start(&["--feed", "none"]);
    let mut client = subscribe(authority.tunnel(&server), &["trade"]);
    server.program.signal(Signal::TERM);
    let code = loop {
        if let Received::Close(code, _) = client.receive() {
            break code;
        }
    };
    assert_eq!(code, 1001);
    assert_eq!(server.program.wait_for_exit().code, Some(0));
}

#[test]
fn tap_and_record_take_a_private_authority() {
    let authority = Authority::new();
    let server = authority.start(&["--feed", "sim:instruments=5,rate=1000,seed=1"]);
    let url = format!("wss://localhost:{}", tls_address(&server).port());
    let (ca, out) = (authority.path("ca.pem"), authority.path("recording"));
    let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let exit = Program::run(&["tap", &url, "--ca", &text(&ca), "--count", "50", "--json"]);
    assert!(exit.code == Some(0) && exit.stdout.lines().count() >= 50, "{exit:?}");
    let exit = Program::run(&["record", "--url", &url, "--ca", &text(&ca), "--out", &text(&out), "--seconds", "1"]);
    assert!(exit.code == Some(0) && out.metadata().is_ok_and(|file| file.len() > 1000), "{exit:?}");
    let exit = Program::run(&["tap", &url, "--no-reconnect"]);
    assert!(exit.code != Some(0) && exit.stderr.contains("no authority that this system trusts"), "{exit:?}");
}

#[test]
fn record_that_is_not_complete_has_a_deadline() {
    let authority = Authority::new();
    let server = authority.start(&["--feed", "none", "--message-timeout-ms", "300"]);
    let (mut client, mut socket) = authority.connect(&server);
    let upgrade = "GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    client.writer().write_all(upgrade.as_bytes()).expect("no limit");
    client.complete_io(&mut socket).expect("the server reads");
    server.wait_for_metric("tickcast_tls_clients", |clients| clients == 1);
    // The head of a record of 100 bytes.
    socket.write_all(&[23, 3, 3, 0, 100]).expect("the server reads");
    let mut bytes = Vec::new();
    let mut tls = rustls::Stream::new(&mut client, &mut socket);
    // An error is an end without close_notify.
    let _ = tls.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("a message was not complete within 300 ms"), "{text}");
    server.wait_for_metric("tickcast_message_timeouts_total", |count| count == 1);
}

#[test]
fn client_certificates_stand_for_publishers_and_operators() {
    let authority = Authority::new();
    let config = authority.path("tickcast.toml");
    let settings = |names: &str| {
        let ca = authority.path("ca.pem");
        let text = format!(
            "feed = ['none']\ntls_client_ca = '{}'\noperator_certificates = 'ops.test, second.test'\n\
             [[publisher]]\nname = 'maker-a'\nsymbols = ['BTC-*']\ncertificate_names = [{names}]\n",
            ca.display()
        );
        std::fs::write(&config, text).expect("the folder is writable");
    };
    settings("'feed-1.test', 'feed-2.test'");
    let server = authority.start(&["--config", config.to_str().expect("UTF-8")]);
    let at = |names: &[&str]| authority.tunnel_as(&server, names);

    let refused = |address: SocketAddr, headers: &[(&str, &str)]| {
        let refusal = Client::try_connect(address, "/v1/publish", headers).map(drop).expect_err("it is refused");
        (refusal.status, refusal.text())
    };
    let mut publisher = Publisher(Client::connect(at(&["feed-2.test"]), "/v1/publish", &[]));
    let ids = publisher.define(&["BTC-USD"]);
    let mut client = subscribe(server.address, &["trade"]);
    publisher.publish(&[trade(ids[0], 7)]);
    trades_to(&mut client, 7);
    let (status, text) = refused(at(&["other.test"]), &[]);
    assert!(status == 401 && text.contains("expected a name of certificate_names, or a token"), "{status} {text}");
    let (status, text) = refused(authority.tunnel(&server), &[]);
    assert!(status == 401 && text.contains("missing"), "{status} {text}");
    let wrong = [("Authorization", "Bearer a-token-that-is-wrong")];
    assert_eq!(refused(at(&["feed-1.test"]), &wrong).0, 401, "a token that is given decides");

    assert_eq!(get(at(&["ops.test"]), "/v1/operator").status, 200);
    assert_eq!(get(at(&["feed-1.test"]), "/v1/operator").status, 403);
    assert_eq!(get(server.address, "/v1/operator").status, 403);

    // A name that is withdrawn ends the connections that came with it.
    settings("'feed-1.test'");
    server.program.signal(Signal::HUP);
    server.program.wait_for_stderr("settings were read again");
    let end = publisher.0.end_code();
    assert!(matches!(end, Some(1008)), "{end:?}");
    assert_eq!(refused(at(&["feed-2.test"]), &[]).0, 401);
}
