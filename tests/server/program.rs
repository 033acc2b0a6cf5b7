//! The program as a whole: its end, its silence, its pages, its own clients, its shards, its echo.

use std::io::Write;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;
use tickcast_test_support::client::{Client, Received, Subscriber, masked_frame, records_of};
use tickcast_test_support::http::{connect, send_request, upgrade_request};
use tickcast_test_support::server::{Program, SMALL_MARKET, Server};
use tungstenite::Message;

/// A market that fills any socket that is not read.
const FAST_MARKET: &str = "sim:instruments=200,rate=20000,seed=1";

#[test]
fn a_signal_sends_the_clients_away_and_ends_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Server::start(&["--feed", SMALL_MARKET]);
        let mut silent = server.client();
        let mut busy = server.client();
        busy.send_text(r#"{"op":"subscribe","id":1,"channels":["quote"],"symbols":["*"]}"#);
        assert_eq!(busy.reply()["type"], "subscribed");
        silent.ping();
        server.program.signal(signal);
        for mut client in [silent, busy] {
            let closing = client.reply();
            assert_eq!((closing["type"].as_str(), closing["reason"].as_str()), (Some("closing"), Some("going_away")));
            assert!(closing["reconnect_ms"].as_u64().is_some_and(|ms| ms > 0), "{closing}");
            client.expect_close(1001, &["stopping"]);
        }
        let exit = server.program.wait_for_exit();
        assert_eq!(exit.code, Some(0), "{exit:?}");
        assert!(!exit.stderr.contains("panicked") && !exit.stderr.contains("ERROR"), "{}", exit.stderr);
    }
}

#[test]
fn a_client_that_never_reads_does_not_hold_up_the_end() {
    let args = ["--feed", FAST_MARKET, "--send-buffer-bytes", "4096", "--drain-timeout-ms", "200"];
    let server = Server::start(&args);
    let mut stalled = server.client();
    socket2::SockRef::from(stalled.tcp()).set_recv_buffer_size(4096).expect("a TCP socket");
    stalled.send_text(r#"{"op":"subscribe","id":1,"channels":["quote","trade"],"symbols":["*"]}"#);
    server.wait_for_metric("tickcast_short_sends_total", |count| count > 0);
    let exit = server.stop(Signal::TERM);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    drop(stalled);
}

#[test]
fn the_port_is_free_for_a_second_start_at_once() {
    // An address of its own: no other test's connection can have taken the port meanwhile.
    let first = Server::spawn(Program::command(&["--listen", "127.0.0.77:0", "--feed", "none"]));
    let address = first.address;
    let mut client = first.client();
    client.ping();
    assert_eq!(first.stop(Signal::TERM).code, Some(0));
    let second = Server::spawn(Program::command(&["--listen", &address.to_string(), "--feed", "none"]));
    assert_eq!(second.address, address);
    second.client().ping();
}

#[test]
fn a_closed_stdout_is_no_reason_not_to_serve() {
    let free = std::net::TcpListener::bind("127.0.0.78:0").expect("a free port").local_addr().expect("it is bound");
    let mut command = Program::command(&["--listen", &free.to_string(), "--feed", "none", "--log", "debug"]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut child = command.stdout(writer).stderr(Stdio::null()).spawn().expect("the program starts");
    let answer = loop {
        assert!(child.try_wait().expect("it is a child of ours").is_none(), "it has ended");
        if std::net::TcpStream::connect(free).is_ok() {
            break send_request(free, b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n");
        }
    };
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).expect("it is a child of ours");
    let code = child.wait().expect("it is a child of ours").code();
    assert_eq!((answer.status, code), (200, Some(0)));
}

#[test]
fn a_silent_market_has_heartbeats() {
    let server = Server::start(&["--feed", "none", "--heartbeat-ms", "50"]);
    let mut client = server.client();
    client.send_text(r#"{"op":"subscribe","id":1,"channels":["quote"],"symbols":["*"]}"#);
    assert_eq!(client.reply()["type"], "subscribed");
    // The end of the snapshot, which has nothing in it, comes first.
    let Received::Packet(packet) = client.receive() else { panic!("a packet is wanted") };
    assert_eq!((packet[1] & 4, records_of(&packet).len()), (4, 0), "caught up");
    for _ in 0..3 {
        let Received::Packet(packet) = client.receive() else { panic!("a packet is wanted") };
        let heartbeats = records_of(&packet);
        assert_eq!(heartbeats.len(), 1);
        let header = heartbeats[0].header;
        assert_eq!((header.kind, header.instrument, header.sequence.get(), header.bytes()), (17, 0, 0, 32));
    }
}

#[test]
fn a_client_that_answers_pings_stays_and_one_that_does_not_is_closed_with_1008() {
    let server = Server::start(&["--feed", "none", "--ping-interval-ms", "100", "--idle-timeout-ms", "4000"]);
    let mut answering = server.client();
    let deaf = server.client();
    // As long as nobody reads for it, the other one answers nothing.
    while server.metric_values("tickcast_idle_closed_total") == [0] {
        while !matches!(answering.receive(), Received::Ping) {}
    }
    answering.ping();
    deaf.expect_close(1008, &["nothing was received"]);
    answering.ping();
}

#[test]
fn health_is_told() {
    let server = Server::start(&["--feed", "none"]);
    for (path, status) in [("/healthz", "ok"), ("/readyz", "ready")] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some(status)), "{path}");
    }
}

#[test]
fn the_directory_and_the_last_values_are_told() {
    let server = Server::start(&["--feed", SMALL_MARKET, "--publish-token", "t"]);
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
    let mut publisher = Client::connect(server.address, "/v1/publish?token=t", &[]);
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
    let answer = server.get("/metrics");
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text")));
    let text = answer.text();
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
            assert_eq!(name, format!("{}{suffix}", family.0), "every sample is of the family above it");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            samples += 1;
        }
    }
    assert!(samples > 20, "{text}");
    drop(client);
    server.wait_for_metric("tickcast_clients", |count| count == 0);
}

#[test]
fn the_page_and_all_that_it_names_are_served_and_no_script_stands_in_it() {
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
        assert!(!html.contains(attribute), "{attribute} is not allowed by the page's own policy");
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
            _ => panic!("{path} is none of these"),
        };
        let answer = server.get(path);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)), "{path}");
        assert!(!answer.body.is_empty(), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
}

#[test]
fn a_head_gets_the_headers_of_the_get_alone() {
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
fn tap_prints_as_many_records_as_it_was_asked_for() {
    let server = Server::start(&["--feed", SMALL_MARKET]);
    let exit = Program::run(&["tap", &server.address.to_string(), "--count", "5", "--json"]);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let lines: Vec<Value> = exit.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 5, "{}", exit.stdout);
    assert!(lines.iter().all(|line| line["type"].is_string() && line["symbol"].is_string()), "{}", exit.stdout);
}

/// Runs the load generator; on a machine that others use it may say that it was the bottleneck, and then only that.
fn load(args: &[&str]) -> (Value, bool) {
    let exit = Program::run(&[&["load"], args, &["--json"]].concat());
    let is_result = exit.code == Some(0);
    assert!(is_result || exit.code == Some(3), "{exit:?}");
    let report: Value = serde_json::from_str(&exit.stdout).expect("JSON");
    assert_eq!(report["sequence_violations"], 0, "{report}");
    // Which of the runs it was, ours or one that it is compared with, is named.
    let names_one = |report: &Value| report["bottlenecks"].as_array().is_some_and(|all| !all.is_empty());
    let compared = report["compared"]["runs"].as_array().into_iter().flatten();
    let named = names_one(&report) || compared.into_iter().any(|run| names_one(&run["report"]));
    assert_eq!(named, !is_result, "{report}");
    assert!(report["measured"].is_object() || named, "{report}");
    (report, is_result)
}

#[test]
fn load_finds_no_violations() {
    let server = Server::start(&["--feed", SMALL_MARKET]);
    let address = server.address.to_string();
    let (report, is_result) =
        load(&[&address, "--clients", "20", "--processes", "2", "--seconds", "1", "--warmup", "0"]);
    assert_eq!((&report["connected"], &report["refused"]), (&20.into(), &serde_json::json!({})));
    if is_result {
        assert!(report["server"]["pid"].as_u64().is_some_and(|pid| pid > 0), "{report}");
        assert_eq!(report["measured"]["latency_origin"], "received");
    }
}

#[test]
fn load_publishes_and_every_record_is_accounted_for() {
    let server = Server::start(&["--feed", "none", "--publish-token", "t/o+k%"]);
    let address = server.address.to_string();
    let publish = ["--publish", "2000", "--publish-token", "t/o+k%", "--instruments", "7", "--burst", "5"];
    for (shape, channel) in [("all", "quote"), ("one", "raw"), ("random:3", "trade")] {
        let time =
            ["--clients", "12", "--seconds", "1", "--warmup", "0", "--shape", shape, "--publish-channel", channel];
        let (report, _) = load(&[&[address.as_str()], &publish[..], &time].concat());
        let delivered = &report["delivered"];
        assert_eq!((&delivered["clients"], &delivered["missing"]), (&12.into(), &0.into()), "{shape}: {report}");
        assert!(delivered["expected"].as_u64().is_some_and(|expected| expected > 1000), "{shape}: {report}");
    }
}

#[test]
fn load_storms_churns_and_stalls_without_harm_to_the_others() {
    let server = Server::start(&["--feed", "none", "--publish-token", "t"]);
    let address = server.address.to_string();
    let publish = ["--publish", "500", "--publish-token", "t", "--clients", "20", "--seconds", "2", "--warmup", "0"];
    let disturb = ["--storm", "50", "--churn", "3", "--stalled", "20", "--stall-for", "1"];
    let (report, _) = load(&[&[address.as_str()], &publish[..], &disturb].concat());
    assert_eq!((&report["storm"]["connected"], &report["stalled"]), (&50.into(), &4.into()), "{report}");
    assert!(report["churned"].as_u64().is_some_and(|churned| churned > 0), "{report}");
    assert_eq!(report["delivered"]["missing"], 0, "{report}");
}

#[test]
fn load_attacks_the_server_and_compares_with_runs_in_peace() {
    let server = Server::start(&["--feed", "none", "--publish-token", "t"]);
    let address = server.address.to_string();
    let publish = ["--publish", "200", "--publish-token", "t", "--clients", "10", "--seconds", "1", "--warmup", "0"];
    let kinds = "slow-headers,half-open,pings,subscribes,connects";
    let attack = ["--attack", kinds, "--attack-connections", "8", "--attack-rate", "500"];
    let (report, _) = load(&[&[address.as_str()], &publish[..], &attack].concat());
    let counts = report["attack"].as_array().expect("a list");
    assert_eq!(counts.len(), 5, "{report}");
    assert!(counts.iter().all(|count| count["opened"].as_u64() >= Some(8)), "{report}");
    let runs = report["compared"]["runs"].as_array().expect("a list");
    let names: Vec<_> = runs.iter().map(|run| run["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["calm", "attacked"]);
    for run in runs {
        assert_eq!((&run["report"]["connected"], &run["report"]["delivered"]["missing"]), (&10.into(), &0.into()));
    }
}

#[test]
fn load_starts_the_server_and_the_floor_itself_and_compares_them() {
    let free = std::net::TcpListener::bind("127.0.0.79:0").expect("a free port").local_addr().expect("it is bound");
    let folder = tempfile::tempdir().expect("a folder");
    let picture = folder.path().join("latency.svg");
    let (address, picture_path) = (free.to_string(), picture.to_str().expect("a path in UTF-8"));
    let serve = ["--serve", "--feed none --publish-token t", "--floor", "--floor-send", "--plot", picture_path];
    let rest = ["--publish", "500", "--publish-token", "t", "--clients", "10", "--seconds", "1", "--warmup", "0"];
    let (report, _) = load(&[&[address.as_str()], &serve[..], &rest].concat());
    let runs = report["compared"]["runs"].as_array().expect("a list");
    let names: Vec<_> = runs.iter().map(|run| run["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["tickcast", "floor", "floor, send(2)"]);
    for run in runs {
        assert_eq!((&run["report"]["connected"], &run["report"]["delivered"]["missing"]), (&10.into(), &0.into()));
    }
    assert!(std::fs::read_to_string(picture).expect("it was written").contains("<svg"));
    assert!(std::net::TcpStream::connect(free).is_err(), "the server has ended with the run");
}

#[test]
fn a_load_process_ends_with_whoever_started_it() {
    let mut command = Program::command(&["load-worker"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
    drop(child.stdin.take());
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().expect("it is piped"), &mut said).expect("it says why");
    assert!(said.contains("failed") && said.contains("the job"), "{said}");
    assert_eq!(child.wait().expect("it is a child of ours").code(), Some(0));
}

#[test]
fn clients_of_two_shards_get_the_same() {
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
        return println!("SKIPPED: two shards want two cores");
    }
    let server = Server::start(&["--feed", "none", "--cores", "0,1", "--publish-token", "t"]);
    let mut publisher = Client::connect(server.address, "/v1/publish?token=t", &[]);
    publisher.send_text(r#"{"op":"define","id":1,"instruments":[{"symbol":"A","px_exp":-2,"sz_exp":0}]}"#);
    assert_eq!(publisher.reply()["type"], "defined");
    // The kernel spreads connections by a hash: that all of 32 fall to one shard happens once in 2^31 times.
    let mut clients: Vec<Subscriber> = (0..32).map(|_| server.subscriber(&["trade"], &["A*"])).collect();
    server.wait_for_metric("tickcast_clients", |count| count == 32);
    assert!(server.metric_values("tickcast_clients").iter().all(|count| *count > 0), "both shards have some");
    let trade = |nth: u64| {
        let head = [&8u16.to_le_bytes()[..], &[2, 0x80], &1u32.to_le_bytes(), &[0; 24]].concat();
        [head, 500u64.to_le_bytes().to_vec(), [1; 8].to_vec(), nth.to_le_bytes().to_vec(), b"S\0\0\0\0\0\0\0".to_vec()]
            .concat()
    };
    for nth in 0..200 {
        let packet = [&[1, 0, 1, 0][..], &[0; 20], &trade(nth)].concat();
        publisher.send(Message::binary(packet));
    }
    let right = clients[0].records(200);
    assert_eq!((right[0].header.sequence.get(), right[199].header.sequence.get()), (1, 200));
    for client in &mut clients[1..] {
        assert_eq!(client.records(200), right);
    }
}

#[test]
fn echo_gives_back_text_binary_and_fragments() {
    let server = Server::start(&["--enable-echo", "--feed", "none"]);
    let mut client = Client::connect(server.address, "/v1/echo", &[]);
    for text in ["", "hello", "κόσμε 🦀", &"long ".repeat(50_000)] {
        client.send_text(text);
        assert!(matches!(client.receive(), Received::Text(back) if back == text), "{} bytes", text.len());
    }
    client.send(Message::binary(vec![0, 255, 128]));
    assert!(matches!(client.receive(), Received::Packet(back) if back == [0, 255, 128]));
    client.send_bytes(
        &[
            masked_frame(0x01, b"a\xe2\x82"),
            masked_frame(0x89, b"!"),
            masked_frame(0x00, b""),
            masked_frame(0x80, b"\xac b"),
        ]
        .concat(),
    );
    assert!(matches!(client.receive(), Received::Pong(payload) if payload == b"!"), "a ping between fragments");
    assert!(matches!(client.receive(), Received::Text(back) if back == "a€ b"));
    client.send_bytes(&masked_frame(0x88, &[&3000u16.to_be_bytes()[..], b"enough"].concat()));
    client.expect_close(3000, &[]);
}

#[test]
fn echo_is_off_unless_it_is_asked_for() {
    for args in [&["--feed", "none"][..], &["--enable-echo=false", "--feed", "none"]] {
        let server = Server::start(args);
        send_request(server.address, upgrade_request("/v1/echo").as_bytes()).assert_refusal(
            404,
            "not_found",
            &["/v1/echo"],
        );
    }
}

#[test]
fn a_connection_that_asks_nothing_is_not_counted_and_not_answered() {
    let server = Server::start(&["--feed", "none"]);
    let mut idle = connect(server.address);
    idle.write_all(b"GET").expect("the server reads");
    server.client().ping();
    assert_eq!(server.stop(Signal::TERM).code, Some(0), "it does not hold up the end");
}
