//! Pages of other origins: which may open a stream, which responses they may read, and how the list is changed.

use std::io::Write;
use std::net::SocketAddr;

use rustix::process::Signal;
use tickcast_test_support::DEADLINE;
use tickcast_test_support::client::Client;
use tickcast_test_support::http::{Response, send_request, upgrade_request};
use tickcast_test_support::server::{Program, Server, WatchedServer};

const STREAMS: [&str; 3] = ["/v1/stream", "/v1/echo", "/v1/publish?token=test-publish-token"];
const ARGS: &[&str] = &["--feed", "none", "--enable-echo", "--publish-token", "test-publish-token"];
const EVIL: &str = "http://evil.example";

fn request(address: SocketAddr, method: &str, path: &str, lines: &[(&str, &str)]) -> Response {
    let lines: String = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    send_request(address, format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{lines}\r\n").as_bytes())
}

/// The status of an upgrade with this `Host` and these `Origin` lines.
fn upgrade_status(address: SocketAddr, path: &str, host: &str, origins: &[&str]) -> u16 {
    let lines: String = origins.iter().map(|origin| format!("Origin: {origin}\r\n")).collect();
    let request = upgrade_request(path).replacen("Host: here\r\n", &format!("Host: {host}\r\n{lines}"), 1);
    let mut stream = tickcast_test_support::http::connect(address);
    stream.write_all(request.as_bytes()).expect("the server reads");
    let mut status = [0; 12];
    std::io::Read::read_exact(&mut stream, &mut status).expect("a response");
    String::from_utf8_lossy(&status[9..]).parse().expect("a status")
}

#[test]
fn by_default_a_page_of_another_origin_opens_no_stream() {
    let mut watched = WatchedServer::start(&["--enable-echo", "--publish-token", "test-publish-token"]);
    let address = watched.server.address;
    let mut refused = 0;
    for path in STREAMS {
        for origin in [EVIL, "null", "", "http://127.0.0.1", "garbage", "http://a.example http://b.example", "file://"]
        {
            assert_eq!(upgrade_status(address, path, &address.to_string(), &[origin]), 403, "{path} {origin:?}");
            refused += 1;
        }
        let own = format!("http://{address}");
        assert_eq!(upgrade_status(address, path, &address.to_string(), &[&own, &own]), 403, "two Origin lines");
        refused += 1;
        assert_eq!(upgrade_status(address, path, &address.to_string(), &[&own]), 101, "{path}: the server's own page");
        assert_eq!(upgrade_status(address, path, &address.to_string(), &[]), 101, "{path}: no browser");
        // As from a proxy that ends TLS and passes the Host on.
        assert_eq!(upgrade_status(address, path, "quotes.example.com", &["https://quotes.example.com"]), 101, "{path}");
        assert_eq!(
            upgrade_status(address, path, "quotes.example.com", &["https://quotes.example.com:8443"]),
            403,
            "{path}"
        );
        refused += 1;
    }
    watched.server.wait_for_metric("tickcast_refused_origin_total", |count| count == refused);
    watched.assert_undisturbed();
}

#[test]
fn the_refusal_names_the_origin_the_host_and_the_setting() {
    let server = Server::start(ARGS);
    let Err(refused) = Client::try_connect(server.address, "/v1/stream", &[("Origin", EVIL)]) else {
        panic!("the upgrade is accepted")
    };
    refused.assert_refusal(403, "forbidden_origin", &[EVIL, &server.address.to_string(), "--allow-origin"]);
    let refused = request(server.address, "GET", "/v1/stream", &[("Origin", "null")]);
    refused.assert_refusal(403, "forbidden_origin", &["\"null\"", "--allow-origin"]);
}

#[test]
fn listed_origins_open_streams_and_others_do_not() {
    let args = [ARGS, &["--allow-origin", "https://App.example, http://localhost:3000"]].concat();
    let server = Server::start(&args);
    let host = server.address.to_string();
    for path in STREAMS {
        for allowed in ["https://app.example", "http://localhost:3000", &format!("http://{host}")] {
            assert_eq!(upgrade_status(server.address, path, &host, &[allowed]), 101, "{path} {allowed}");
        }
        for other in ["http://app.example", "https://app.example:8443", "http://localhost:3001", "null", EVIL] {
            assert_eq!(upgrade_status(server.address, path, &host, &[other]), 403, "{path} {other}");
        }
    }
    let null = Server::start(&[ARGS, &["--allow-origin", "null"]].concat());
    assert_eq!(upgrade_status(null.address, "/v1/stream", "here", &["null"]), 101);
    assert_eq!(upgrade_status(null.address, "/v1/stream", "here", &[EVIL]), 403);
    let all = Server::start(&[ARGS, &["--allow-origin", "*"]].concat());
    for origin in [EVIL, "null", "garbage"] {
        assert_eq!(upgrade_status(all.address, "/v1/stream", "here", &[origin]), 101, "{origin}");
    }
}

const READABLE: [&str; 4] = ["/v1/instruments", "/v1/snapshot?symbols=*", "/v1/snapshot/NO-SUCH", "/v1/snapshot"];

/// The allowed origin of a response, and whether it varies by origin.
fn cross_origin(response: &Response) -> (Option<&str>, bool) {
    let varies = response.header("vary").is_some_and(|vary| vary.split(", ").any(|name| name == "Origin"));
    (response.header("access-control-allow-origin"), varies)
}

#[test]
fn responses_may_be_read_by_listed_origins_and_vary_by_origin() {
    let server = Server::start(&[ARGS, &["--allow-origin", "https://app.example"]].concat());
    for path in READABLE {
        let of = |origin: &str| request(server.address, "GET", path, &[("Origin", origin)]);
        let allowed = of("https://app.example");
        assert_eq!(cross_origin(&allowed), (Some("https://app.example"), true), "{path}");
        assert_eq!(allowed.header("access-control-allow-credentials"), None);
        assert!(allowed.header("access-control-expose-headers").is_some_and(|names| names.contains("ETag")));
        assert_eq!(cross_origin(&of(EVIL)), (None, true), "{path}: a cache must not serve it to another origin");
        assert_eq!(cross_origin(&request(server.address, "GET", path, &[])), (None, true), "{path}");
        assert_eq!(of(EVIL).status, allowed.status, "the browser withholds it from the page");
    }
    let tag = request(server.address, "GET", "/v1/instruments", &[]).header("etag").expect("a tag").to_owned();
    let lines = [("Origin", "https://app.example"), ("If-None-Match", tag.as_str())];
    let same = request(server.address, "GET", "/v1/instruments", &lines);
    assert_eq!((same.status, cross_origin(&same)), (304, (Some("https://app.example"), true)));
    for path in ["/", "/metrics", "/healthz", "/v1/operator", "/v1/instrumentsx"] {
        let response = request(server.address, "GET", path, &[("Origin", "https://app.example")]);
        assert_eq!(cross_origin(&response), (None, false), "{path} is not for other origins");
    }

    let all = Server::start(&[ARGS, &["--allow-origin", "*"]].concat());
    let own = Server::start(ARGS);
    for path in READABLE {
        assert_eq!(cross_origin(&request(all.address, "GET", path, &[("Origin", EVIL)])), (Some("*"), false), "{path}");
        assert_eq!(cross_origin(&request(own.address, "GET", path, &[("Origin", EVIL)])), (None, false), "{path}");
    }
    assert_eq!(cross_origin(&request(all.address, "GET", "/metrics", &[("Origin", EVIL)])), (None, false));
}

#[test]
fn a_preflight_is_allowed_for_readable_paths_and_listed_origins() {
    let server = Server::start(&[ARGS, &["--allow-origin", "https://app.example"]].concat());
    let preflight = |origin, method| [("Origin", origin), ("Access-Control-Request-Method", method)];
    for path in READABLE {
        let allowed = request(server.address, "OPTIONS", path, &preflight("https://app.example", "GET"));
        assert_eq!((allowed.status, cross_origin(&allowed)), (204, (Some("https://app.example"), true)), "{path}");
        assert_eq!((allowed.header("content-length"), allowed.body.len()), (None, 0));
        assert_eq!(allowed.header("access-control-allow-methods"), Some("GET, HEAD"));
        let headers = allowed.header("access-control-allow-headers").expect("some").to_ascii_lowercase();
        assert!(
            ["if-none-match", "last-event-id", "authorization"].iter().all(|name| headers.contains(name)),
            "{headers}"
        );
        let refused = request(server.address, "OPTIONS", path, &preflight(EVIL, "GET"));
        refused.assert_refusal(403, "forbidden_origin", &[EVIL, "--allow-origin"]);
        assert_eq!(cross_origin(&refused), (None, true));
    }
    for path in ["/metrics", "/v1/operator", "/nowhere"] {
        let response = request(server.address, "OPTIONS", path, &preflight("https://app.example", "GET"));
        response.assert_refusal(405, "method_not_allowed", &["OPTIONS"]);
        assert_eq!(cross_origin(&response), (None, false), "{path}");
    }
    let plain = request(server.address, "OPTIONS", "/v1/instruments", &[]);
    plain.assert_refusal(405, "method_not_allowed", &["OPTIONS"]);
}

#[test]
fn sighup_changes_the_list() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tickcast.toml");
    let write = |list: &str| {
        let text = format!("listen = '127.0.0.1:0'\nfeed = ['none']\nallow_origin = '{list}'\n");
        std::fs::write(&file, text).expect("the folder is writable");
    };
    write("none");
    let server = Server::spawn(Program::command(&["--config", file.to_str().expect("UTF-8")]));
    assert_eq!(upgrade_status(server.address, "/v1/stream", "here", &[EVIL]), 403);
    write(EVIL);
    server.program.signal(Signal::HUP);
    server.program.wait_for_stderr("settings were read again: allow_origin");
    let until = std::time::Instant::now() + DEADLINE;
    while upgrade_status(server.address, "/v1/stream", "here", &[EVIL]) != 101 {
        assert!(std::time::Instant::now() < until, "the list does not change");
    }
    write("evil.example");
    server.program.signal(Signal::HUP);
    server.program.wait_for_stderr("allow_origin: invalid origin \"evil.example\"");
    assert_eq!(upgrade_status(server.address, "/v1/stream", "here", &[EVIL]), 101, "the list is unchanged");
}

#[test]
fn page_is_framed_by_the_pages_of_the_list_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tickcast.toml");
    let write = |list: &str| {
        let text = format!("listen = '127.0.0.1:0'\nfeed = ['none']\nallow_frame = '{list}'\n");
        std::fs::write(&file, text).expect("the folder is writable");
    };
    write("none");
    let server = Server::spawn(Program::command(&["--config", file.to_str().expect("UTF-8")]));
    let header = |path: &str, name: &str| request(server.address, "GET", path, &[]).header(name).map(str::to_owned);
    let policy = |path: &str| header(path, "content-security-policy").expect("a policy");
    assert!(policy("/").ends_with("; frame-ancestors 'none'"), "{}", policy("/"));
    assert_eq!(header("/", "x-frame-options").as_deref(), Some("DENY"));
    write("https://App.example, http://localhost:3000");
    server.program.signal(Signal::HUP);
    server.program.wait_for_stderr("settings were read again: allow_frame");
    let until = std::time::Instant::now() + DEADLINE;
    while !policy("/").ends_with("; frame-ancestors https://app.example http://localhost:3000") {
        assert!(std::time::Instant::now() < until, "{}", policy("/"));
    }
    assert_eq!(header("/", "x-frame-options"), None);
    // The page alone: no other response can be framed.
    for path in ["/page.js", "/v1/instruments", "/healthz"] {
        assert!(policy(path).ends_with("frame-ancestors 'none'"), "{path}: {}", policy(path));
    }
    write("https://app.example;script-src");
    server.program.signal(Signal::HUP);
    server.program.wait_for_stderr("allow_frame: invalid origin \"https://app.example;script-src\"");
    assert!(policy("/").contains("http://localhost:3000"), "the list is unchanged");
}

#[test]
fn an_image_request_of_another_site_opens_no_stream() {
    let server = Server::start(&["--feed", "none"]);
    let status = |site| request(server.address, "HEAD", "/v1/sse?symbols=*", &[("Sec-Fetch-Site", site)]).status;
    assert_eq!(["cross-site", "same-site", "same-origin", "none"].map(status), [403, 403, 200, 200]);
}

#[test]
fn listed_origins_may_read_server_sent_events() {
    let listed = "https://dash.example.com";
    let server = Server::start(&["--feed", "none", "--allow-origin", listed]);
    let path = "/v1/sse?symbols=*";
    let response = request(server.address, "HEAD", path, &[("Origin", listed)]);
    assert_eq!((response.status, cross_origin(&response)), (200, (Some(listed), true)));
    let response =
        request(server.address, "OPTIONS", path, &[("Origin", listed), ("Access-Control-Request-Method", "GET")]);
    assert_eq!((response.status, cross_origin(&response)), (204, (Some(listed), true)));
    assert_eq!(request(server.address, "GET", path, &[("Origin", EVIL)]).status, 403);
    // A refusal is readable: the page needs to see what was wrong with its request.
    let response = request(server.address, "GET", "/v1/sse", &[("Origin", listed)]);
    assert_eq!((response.status, cross_origin(&response)), (400, (Some(listed), true)));
}

#[test]
fn the_log_names_a_refused_origin_once_with_the_flag_that_admits_it() {
    let server = Server::start(&[ARGS, &["--allow-origin", "https://app.example"]].concat());
    let host = server.address.to_string();
    for path in STREAMS {
        assert_eq!(upgrade_status(server.address, path, &host, &["http://localhost:5173"]), 403);
        assert_eq!(upgrade_status(server.address, path, &host, &["https://app.example"]), 101);
    }
    server.program.wait_for_stderr("--allow-origin https://app.example,http://localhost:5173,");
    let log = server.stop(Signal::TERM).stderr;
    let lines: Vec<_> = log.lines().filter(|line| line.contains("was refused (Host: ")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("WARN") && lines[0].contains(&host), "{}", lines[0]);
}

#[test]
fn a_page_of_every_origin_may_read_whether_it_is_admitted_and_nothing_else() {
    let server =
        Server::start(&[ARGS, &["--allow-origin", "https://app.example", "--allow-host", "127.0.0.1"]].concat());
    let address = server.address;
    let own = format!("http://{address}");
    for (origin, admitted) in [("https://app.example", true), (own.as_str(), true), (EVIL, false), ("null", false)] {
        for method in ["GET", "HEAD"] {
            let answer = request(address, method, "/v1/origin", &[("Origin", origin)]);
            assert_eq!((answer.status, cross_origin(&answer)), (200, (Some("*"), true)), "{origin}");
            assert_eq!(answer.header("access-control-allow-credentials"), None);
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            if method == "GET" {
                assert_eq!(answer.json(), serde_json::json!({ "origin": origin, "admitted": admitted }));
            }
        }
        let lines = [("Origin", origin), ("Access-Control-Request-Method", "GET")];
        assert_eq!(request(address, "OPTIONS", "/v1/origin", &lines).status, 204, "{origin}");
    }
    let program = request(address, "GET", "/v1/origin", &[]);
    assert_eq!(program.json(), serde_json::json!({ "origin": null, "admitted": true }));
    // A page that had a foreign name resolve to this server learns nothing more than it does elsewhere.
    let rebound = send_request(address, b"GET /v1/origin HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    rebound.assert_refusal(403, "forbidden_host", &["evil.example"]);
}

#[test]
fn a_page_of_every_origin_may_read_the_descriptions() {
    let server = Server::start(ARGS);
    for path in ["/v1/openapi.json", "/v1/asyncapi.json"] {
        let answer = request(server.address, "GET", path, &[("Origin", EVIL)]);
        assert_eq!((answer.status, cross_origin(&answer)), (200, (Some("*"), true)), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-cache"), "{path}");
        let lines = [("Origin", EVIL), ("If-None-Match", answer.header("etag").expect("a tag"))];
        let current = request(server.address, "GET", path, &lines);
        assert_eq!((current.status, cross_origin(&current)), (304, (Some("*"), true)), "{path}");
    }
}
