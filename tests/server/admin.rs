//! The admin listener: an address or a Unix socket of its own, which a flood of the public port does not reach. And what
//! the public listener serves beside it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use rustix::process::Signal;
use tickcast_protocol::packet;
use tickcast_test_support::DEADLINE;
use tickcast_test_support::client::Client;
use tickcast_test_support::http::{Response, connect, connect_from, read_head, send_request, upgrade_request};
use tickcast_test_support::publisher::Publisher;
use tickcast_test_support::server::{PlantedFault, Program, Server};

const TOKEN: &str = "token-of-the-publisher";

fn start(admin: &str, args: &[&str]) -> Server {
    let all = ["--feed", "none", "--publish-token", TOKEN, "--admin-listen", admin];
    Server::start(&[&all[..], args].concat())
}

/// The address of an admin listener on TCP.
fn admin_address(server: &Server) -> SocketAddr {
    server.program.wait_for_address("admin listener on http://")
}

fn get(address: SocketAddr, path: &str) -> Response {
    send_request(address, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
}

fn connect_unix(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("the server listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("not 0");
    stream
}

fn get_unix(socket: &Path, path: &str) -> Response {
    let mut stream = connect_unix(socket);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: rebound.example\r\n\r\n").expect("the server reads");
    let mut response = Vec::new();
    stream.read_to_end(&mut response).expect("a response and a close");
    Response::parse(&response)
}

#[test]
fn reason_why_a_feed_has_failed_is_for_the_admin_listener() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secret-place");
    let line = r#"1723161254000 {"stream":"x@trade","data":{"e":"trade","E":1723161254000,"s":"AB","t":1,"p":"1.50","q":"2","T":1723161254000,"m":true,"M":true}}"#;
    std::fs::write(&path, format!("{line}\n")).expect("the folder is writable");
    let fault = PlantedFault::new("panic feed-0");
    let replay = format!("replay:{}?loop=1", path.display());
    let server = Server::spawn(fault.command(&["--feed", &replay, "--admin-listen", "127.0.0.1:0"]));
    let admin = admin_address(&server);
    std::fs::write(&path, "no recording\n").expect("the folder is writable");
    fault.plant();
    let until = Instant::now() + DEADLINE;
    while !server.get("/readyz").text().contains("feed 0: failed") {
        assert!(Instant::now() < until, "{}", server.get("/readyz").text());
    }
    assert!(!server.get("/readyz").text().contains("secret-place"), "{}", server.get("/readyz").text());
    get(admin, "/readyz").assert_refusal(503, "unavailable", &["feed 0 (replay:", "secret-place", "no recording"]);
}

#[test]
fn admin_paths_are_served_there_and_not_at_the_public_listener() {
    let server = start("127.0.0.1:0", &[]);
    let admin = admin_address(&server);
    for path in ["/metrics", "/v1/operator", "/v1/publish"] {
        server.get(path).assert_refusal(404, "not_found", &[path, "admin listener", "127.0.0.1:0"]);
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!((server.get(path).status, get(admin, path).status), (200, 200), "{path}");
    }
    let metrics = get(admin, "/metrics");
    assert!(metrics.status == 200 && metrics.text().contains("tickcast_clients"), "{}", metrics.text());
    // The operator has chosen a loopback address: no token is needed.
    assert!(get(admin, "/v1/operator").json()["uptime_ms"].is_u64());
    get(admin, "/v1/snapshot/A").assert_refusal(404, "not_found", &["admin listener", "/v1/operator"]);
    send_request(admin, b"POST /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").assert_refusal(
        405,
        "method_not_allowed",
        &["POST"],
    );
    send_request(admin, b"GET /metrics HTTP/1.1\r\n\r\n").assert_refusal(400, "malformed_request", &["Host"]);
    let head = send_request(admin, b"HEAD /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((head.status, head.body.len()), (200, 0));
    let wrong = Client::try_connect(admin, "/v1/publish?token=wrong-token-of-some-length", &[]);
    assert_eq!(wrong.err().expect("a refusal").status, 401);
    let page = [("Origin", "http://evil.example")];
    let foreign = Client::try_connect(admin, &format!("/v1/publish?token={TOKEN}"), &page);
    assert_eq!(foreign.err().expect("a refusal").status, 403);
}

#[test]
fn a_publisher_of_the_admin_listener_reaches_subscribers_and_is_drained() {
    let server = start("127.0.0.1:0", &[]);
    let path = format!("/v1/publish?token={TOKEN}");
    let mut publisher = Publisher(Client::connect(admin_address(&server), &path, &[]));
    let id = publisher.define(&["A"])[0];
    let mut subscriber = server.subscriber(&["trade"], &["A"]);
    publisher.publish(&[tickcast_test_support::publisher::trade(id, 7)]);
    assert_eq!(subscriber.records(1)[0].header.sequence.get(), 1);
    server.program.signal(Signal::TERM);
    publisher.0.expect_close(1001, &["stopping"]);
    assert_eq!(server.program.wait_for_exit().code, Some(0));
}

#[test]
fn a_unix_socket_is_private_and_removed_at_the_end() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("admin.sock");
    let listen = format!("unix:{}", path.display());
    let server = start(&listen, &[]);
    assert_eq!(std::fs::metadata(&path).expect("the socket").permissions().mode() & 0o777, 0o600);
    // No browser reaches it, so every name is accepted.
    assert_eq!((get_unix(&path, "/readyz").status, get_unix(&path, "/v1/operator").status), (200, 200));
    let mut stream = connect_unix(&path);
    let request = upgrade_request(&format!("/v1/publish?token={TOKEN}")).replacen(
        "\r\n\r\n",
        &format!("\r\nSec-WebSocket-Protocol: {}\r\n\r\n", packet::SUBPROTOCOL),
        1,
    );
    stream.write_all(request.as_bytes()).expect("the server reads");
    // The test's clients speak over TCP streams, which a connected Unix socket can stand in for.
    let mut stream = TcpStream::from(std::os::fd::OwnedFd::from(stream));
    assert!(read_head(&mut stream).starts_with(b"HTTP/1.1 101 "));
    let mut publisher = Publisher(Client::upgraded(stream, Vec::new()));
    assert_eq!(publisher.define(&["A"]), [1]);
    // A second server refuses the socket of one that runs.
    let more = ["--listen", "127.0.0.1:0", "--feed", "none", "--admin-listen", &listen];
    let second = Program::run(&more);
    assert!(second.code == Some(2) && second.stderr.contains("in use"), "{}", second.stderr);
    assert_eq!(get_unix(&path, "/healthz").status, 200, "the first server keeps its socket");
    drop(publisher);
    assert_eq!(server.stop(Signal::TERM).code, Some(0));
    assert!(!path.exists(), "the socket is removed");
    // A socket that a killed server has left behind is replaced; a file is not.
    assert_eq!(start(&listen, &[]).stop(Signal::KILL).code, None);
    assert!(path.exists());
    assert_eq!(get_unix_of(&start(&listen, &[]), &path), 200);
    std::fs::remove_file(&path).expect("left behind");
    std::fs::write(&path, "text").expect("the folder is writable");
    let refused = Program::run(&more);
    assert!(refused.code == Some(2) && refused.stderr.contains("is a file and no socket"), "{}", refused.stderr);
    assert_eq!(std::fs::read_to_string(&path).expect("the file"), "text");
}

fn get_unix_of(_server: &Server, path: &Path) -> u16 {
    get_unix(path, "/readyz").status
}

#[test]
fn a_flood_of_the_public_listener_leaves_the_admin_listener_free() {
    let server = start("127.0.0.1:0", &["--pending-connections-max", "16", "--enable-echo", "--cores", "0"]);
    let admin = admin_address(&server);
    // Echoes are not evicted: the public listener has no room at all.
    let echoes: Vec<_> = (0..16).map(|_| Client::connect(server.address, "/v1/echo", &[])).collect();
    assert_eq!(tickcast_test_support::http::read_response(&mut connect(server.address)).status, 503);
    for _ in 0..100 {
        assert_eq!(get(admin, "/readyz").status, 200);
    }
    drop(echoes);
    // Its own connections have a limit: the oldest is closed for a newer one.
    let mut silent: Vec<_> = (0..200).map(|_| connect(admin)).collect();
    assert_eq!(get(admin, "/readyz").status, 200);
    assert_eq!(silent[0].read(&mut [0]).unwrap_or(0), 0, "the oldest is closed");
}

#[test]
fn the_operator_view_needs_a_token_where_others_reach_the_listener() {
    let server = Server::start(&["--feed", "none"]);
    for host in ["localhost", "127.0.0.1"] {
        let request = format!("GET /v1/operator HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let refused = send_request(server.address, request.as_bytes());
        refused.assert_refusal(403, "forbidden", &["--operator-token", "--admin-listen"]);
    }
    let server = start("0.0.0.0:0", &[]);
    let admin = SocketAddr::new([127, 0, 0, 1].into(), admin_address(&server).port());
    get(admin, "/v1/operator").assert_refusal(403, "forbidden", &["--operator-token"]);
    let server = start("127.0.0.1:0", &["--operator-token", "token-of-the-operator"]);
    let admin = admin_address(&server);
    get(admin, "/v1/operator").assert_refusal(401, "unauthorized", &["Bearer"]);
    let request =
        b"GET /v1/operator HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer token-of-the-operator\r\n\r\n";
    assert_eq!(send_request(admin, request).status, 200);
}

#[test]
fn a_listener_that_equals_the_public_one_is_refused() {
    let exit = Program::run(&["--listen", "127.0.0.1:9377", "--feed", "none", "--admin-listen", "127.0.0.1:9377"]);
    assert_eq!(exit.code, Some(2));
    assert!(exit.stderr.contains("admin_listen: 127.0.0.1:9377 is also listen"), "{}", exit.stderr);
}

/// A server with the default of `allow_host`.
fn with_default_hosts(args: &[&str]) -> Server {
    let mut command = Program::command(&[&["--feed", "none"], args].concat());
    command.env_remove("TICKCAST_ALLOW_HOST");
    Server::spawn(command)
}

fn status(source: &str, address: SocketAddr, path: &str, host: &str) -> Response {
    let mut stream = connect_from(source, address);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("the server reads");
    tickcast_test_support::http::read_response(&mut stream)
}

#[test]
fn a_server_on_loopback_refuses_foreign_names() {
    let server = with_default_hosts(&["--listen", "127.0.0.1:0", "--trusted-proxies", "127.0.0.9"]);
    for path in ["/", "/metrics", "/v1/instruments", "/v1/stream", "/v1/sse?symbols=*", "/nowhere"] {
        let refused = status("127.0.0.1", server.address, path, "rebound.example:9001");
        refused.assert_refusal(403, "forbidden_host", &["rebound.example", "--allow-host"]);
        for (name, value) in [("cache-control", "no-store"), ("x-content-type-options", "nosniff")] {
            assert_eq!(refused.header(name), Some(value), "{path}");
        }
    }
    server.wait_for_metric_at("localhost", "tickcast_refused_host_total", |count| count == 6);
    for host in ["localhost", "127.0.0.1:9001", "[::1]", "page.localhost"] {
        assert_eq!(status("127.0.0.1", server.address, "/readyz", host).status, 200, "{host}");
    }
    // A trusted proxy serves its own names.
    assert_eq!(status("127.0.0.9", server.address, "/readyz", "quotes.example.com").status, 200);
    assert_eq!(send_request(server.address, b"GET /readyz HTTP/1.0\r\n\r\n").status, 200);

    let listed = ["--listen", "127.0.0.1:0", "--trusted-proxies", "127.0.0.9", "--allow-host", "quotes.example.com"];
    let server = with_default_hosts(&listed);
    for source in ["127.0.0.1", "127.0.0.9"] {
        assert_eq!(status(source, server.address, "/readyz", "Quotes.example.com:443").status, 200);
        assert_eq!(status(source, server.address, "/readyz", "rebound.example").status, 403);
    }
}

#[test]
fn a_server_on_all_addresses_takes_every_name_unless_there_is_a_list() {
    let server = with_default_hosts(&["--listen", "0.0.0.0:0"]);
    let loopback = SocketAddr::new([127, 0, 0, 1].into(), server.address.port());
    assert_eq!(status("127.0.0.1", loopback, "/readyz", "quotes.example.com").status, 200);
    let listed = with_default_hosts(&["--listen", "0.0.0.0:0", "--allow-host", "quotes.example.com"]);
    let loopback = SocketAddr::new([127, 0, 0, 1].into(), listed.address.port());
    assert_eq!(status("127.0.0.1", loopback, "/readyz", "quotes.example.com").status, 200);
    assert_eq!(status("127.0.0.1", loopback, "/readyz", "rebound.example").status, 403);
}

#[test]
fn pages_of_the_other_scheme_are_foreign_behind_a_proxy_that_names_it() {
    let server = Server::start(&["--feed", "none", "--trusted-proxies", "127.0.0.9"]);
    let status = |source: &str, origin: &str, scheme: &str| {
        let lines = format!("Host: quotes.example.com\r\nOrigin: {origin}\r\n{scheme}");
        let request = upgrade_request("/v1/stream").replacen("Host: here\r\n", &lines, 1);
        Client::upgrade(connect_from(source, server.address), &request).map_or_else(|refused| refused.status, |_| 101)
    };
    let (http, https) = ("http://quotes.example.com", "https://quotes.example.com");
    let says = |scheme: &str| format!("X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: {scheme}\r\n");
    assert_eq!(status("127.0.0.9", https, &says("https")), 101);
    assert_eq!(status("127.0.0.9", http, &says("https")), 403);
    assert_eq!(status("127.0.0.9", http, &says("http")), 101);
    assert_eq!(status("127.0.0.9", https, &says("https, http")), 403, "what the trusted proxy has written counts");
    // Without the header, and from a peer that is no proxy, both are accepted as before.
    assert_eq!((status("127.0.0.9", http, ""), status("127.0.0.9", https, "")), (101, 101));
    assert_eq!(status("127.0.0.1", http, &says("https")), 101);
}

#[test]
fn a_fragment_in_a_target_is_refused() {
    let server = Server::start(&["--feed", "none"]);
    for target in ["/metrics#x", "/#", "http://localhost/healthz#x", "#"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        send_request(server.address, request.as_bytes()).assert_refusal(400, "malformed_request", &["request target"]);
    }
}
