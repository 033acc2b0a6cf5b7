//! The server as a whole: heartbeats and pings, health, directory, metrics, page, and shards.

use serde_json::Value;
use tickcast_test_support::client::{Client, Received, Subscriber, records_of};
use tickcast_test_support::http::send_request;
use tickcast_test_support::publisher::{Publisher, trade};
use tickcast_test_support::server::{SMALL_MARKET, Server};

#[test]
fn a_silent_market_has_heartbeats() {
    let server = Server::start(&["--feed", "none", "--heartbeat-ms", "50"]);
    let mut client = server.client();
    client.send_text(r#"{"op":"subscribe","id":1,"channels":["quote"],"symbols":["*"]}"#);
    assert_eq!(client.reply()["type"], "subscribed");
    // The empty packet that ends the snapshot comes first.
    let Received::Packet(packet) = client.receive() else { panic!("expected a packet") };
    assert_eq!((packet[1] & 4, records_of(&packet).len()), (4, 0), "caught up");
    for _ in 0..3 {
        let Received::Packet(packet) = client.receive() else { panic!("expected a packet") };
        let heartbeats = records_of(&packet);
        assert_eq!(heartbeats.len(), 1);
        let header = heartbeats[0].header;
        assert_eq!((header.kind, header.instrument, header.sequence.get(), header.bytes()), (17, 0, 0, 32));
    }
}

#[test]
fn an_idle_client_that_answers_no_ping_closes_with_1008() {
    let server = Server::start(&["--feed", "none", "--ping-interval-ms", "100", "--idle-timeout-ms", "4000"]);
    let mut reading = server.client();
    let silent = server.client();
    // A client that does not read does not response.
    while server.metric_values("tickcast_idle_closed_total") == [0] {
        while !matches!(reading.receive(), Received::Ping) {}
    }
    reading.ping();
    silent.expect_close(1008, &["nothing was received"]);
    reading.ping();
}

#[test]
fn health_and_readiness_are_reported() {
    let server = Server::start(&["--feed", "none"]);
    for (path, status) in [("/healthz", "ok"), ("/readyz", "ready")] {
        let response = server.get(path);
        assert_eq!((response.status, response.json()["status"].as_str()), (200, Some(status)), "{path}");
    }
}

#[test]
fn the_directory_and_snapshots_have_every_instrument() {
    let server = Server::start(&["--feed", SMALL_MARKET, "--publish-token", "test-publish-token"]);
    server.subscriber(&["quote"], &["*"]).until_live();
    let instruments = server.get("/v1/instruments").json();
    let list = instruments["instruments"].as_array().expect("a list");
    assert_eq!(list.len(), 4, "{instruments}");
    for instrument in list {
        let symbol = instrument["symbol"].as_str().expect("a name");
        let snapshot = server.get(&format!("/v1/snapshot/{symbol}")).json();
        assert_eq!(&snapshot["instrument"], instrument);
        assert_eq!(snapshot["quote"]["symbol"].as_str(), Some(symbol), "{snapshot}");
        let price = snapshot["quote"]["bid_px"].as_str().expect("prices are texts");
        assert!(price.parse::<f64>().is_ok_and(|price| price > 0.0), "{snapshot}");
        let escaped: String = symbol.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let again = server.get(&format!("/v1/snapshot/{escaped}")).json();
        assert_eq!(again["instrument"], snapshot["instrument"]);
    }
    let mut publisher = Client::connect(server.address, "/v1/publish?token=test-publish-token", &[]);
    publisher.send_text(r#"{"op":"define","id":1,"instruments":[{"symbol":"A/€\"%41","px_exp":-2,"sz_exp":0}]}"#);
    assert_eq!(publisher.reply()["type"], "defined");
    let odd = server.get("/v1/snapshot/A%2F%E2%82%AC%22%2541").json();
    assert_eq!(odd["instrument"]["symbol"], "A/€\"%41");
    assert_eq!((&odd["quote"], &odd["trade"]), (&Value::Null, &Value::Null));
    server.get("/v1/snapshot/%FF%FE").assert_refusal(404, "not_found", &["/v1/instruments"]);
    server.get("/v1/snapshot/").assert_refusal(404, "not_found", &["/v1/instruments"]);
}

#[test]
fn metrics_are_open_metrics() {
    let server = Server::start(&["--feed", SMALL_MARKET]);
    let client = server.client();
    server.wait_for_metric("tickcast_clients", |count| count == 1);
    let response = server.get("/metrics");
    assert!(response.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text")));
    let text = response.text();
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    let mut family = ("", "");
    let mut samples = 0;
    for line in text.lines().take_while(|line| *line != "# EOF") {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            family = kind.split_once(' ').expect("a name and a type");
            assert!(matches!(family.1, "counter" | "gauge"), "{line}");
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            let suffix = if family.1 == "counter" { "_total" } else { "" };
            let name = name.split('{').next().expect("split has a first part");
            assert_eq!(name, format!("{}{suffix}", family.0), "every sample follows its family");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            samples += 1;
        }
    }
    assert!(samples > 20, "{text}");
    drop(client);
    server.wait_for_metric("tickcast_clients", |count| count == 0);
}

#[test]
fn the_page_and_its_files_are_served_without_inline_scripts() {
    let server = Server::start(&["--feed", "none"]);
    let page = server.get("/");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"), "{policy}");
    let html = page.text();
    for script in html.split("<script").skip(1) {
        let (tag, rest) = script.split_once('>').expect("the tag ends");
        assert!(tag.contains("src=\"/") && rest.starts_with("</script>"), "<script{tag}>");
    }
    for attribute in [" onclick=", " onload=", " onerror=", " style=", "javascript:", "<style"] {
        assert!(!html.contains(attribute), "{attribute} violates the page's own policy");
    }
    let named = |attribute| html.split(attribute).skip(1).filter_map(|rest| rest.split_once('"')).map(|(path, _)| path);
    let paths: Vec<&str> =
        named("src=\"").chain(named("href=\"")).filter(|path| path.starts_with('/') && path.contains('.')).collect();
    assert!(paths.len() >= 4, "{paths:?}");
    for path in paths {
        let kind = match path.rsplit('.').next() {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some("txt") => "text/plain; charset=utf-8",
            _ => panic!("{path} has another extension"),
        };
        let response = server.get(path);
        assert_eq!((response.status, response.header("content-type")), (200, Some(kind)), "{path}");
        assert!(!response.body.is_empty(), "{path}");
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
}

#[test]
fn a_head_gets_the_headers_of_the_get() {
    let server = Server::start(&["--feed", "none"]);
    for path in ["/", "/page.js", "/healthz", "/v1/instruments"] {
        let head = send_request(server.address, format!("HEAD {path} HTTP/1.1\r\nHost: here\r\n\r\n").as_bytes());
        let get = server.get(path);
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.headers, get.headers, "{path}");
        assert_eq!(get.header("content-length"), Some(get.body.len().to_string().as_str()), "{path}");
    }
    for path in ["/nowhere", "/v1/snapshot/NONE"] {
        let head = send_request(server.address, format!("HEAD {path} HTTP/1.1\r\nHost: here\r\n\r\n").as_bytes());
        assert_eq!((head.status, head.body.len()), (404, 0), "a refused HEAD has no body either: {path}");
    }
}

#[test]
fn clients_of_two_shards_receive_the_same() {
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
        return println!("SKIPPED: two shards need two cores");
    }
    let server = Server::start(&["--feed", "none", "--cores", "0,1", "--publish-token", "test-publish-token"]);
    let mut publisher = Publisher::connect(&server, "test-publish-token");
    let id = publisher.define(&["A"])[0];
    // The kernel spreads connections by a hash: all of 32 go to one shard once in 2^31 runs.
    let mut clients: Vec<Subscriber> = (0..32).map(|_| server.subscriber(&["trade"], &["A*"])).collect();
    server.wait_for_metric("tickcast_clients", |count| count == 32);
    assert!(server.metric_values("tickcast_clients").iter().all(|count| *count > 0), "both shards have clients");
    (0..200).for_each(|px| publisher.publish(&[trade(id, px)]));
    let expected = clients[0].records(200);
    assert_eq!((expected[0].header.sequence.get(), expected[199].header.sequence.get()), (1, 200));
    for client in &mut clients[1..] {
        assert_eq!(client.records(200), expected);
    }
}
