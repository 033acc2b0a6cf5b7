//! `tickcast tap` and `tickcast load` against the server.

use std::process::Stdio;

use serde_json::Value;
use tickcast_test_support::server::{Program, SMALL_MARKET, Server};
use tickcast_test_support::tls::{Authority, tls_address};

#[test]
fn tap_prints_the_requested_number_of_records() {
    let server = Server::start(&["--feed", SMALL_MARKET]);
    let exit = Program::run(&["tap", &server.address.to_string(), "--count", "5", "--json"]);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let lines: Vec<Value> = exit.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 5, "{}", exit.stdout);
    assert!(lines.iter().all(|line| line["type"].is_string() && line["symbol"].is_string()), "{}", exit.stdout);
}

/// Runs the load generator: its report, and whether it has a result. On a busy machine the load generator may report that
/// it was the bottleneck, and then it has none.
fn load(args: &[&str]) -> (Value, bool) {
    let exit = Program::run(&[&["load"], args, &["--json"]].concat());
    let is_result = exit.code == Some(0);
    assert!(is_result || exit.code == Some(3), "{exit:?}");
    let report: Value = serde_json::from_str(&exit.stdout).expect("JSON");
    assert_eq!(report["sequence_violations"], 0, "{report}");
    // The report names the bottleneck, of its own run or of a run that it compares.
    let has_bottleneck = |report: &Value| report["bottlenecks"].as_array().is_some_and(|all| !all.is_empty());
    let others = ["compared", "attacked"].into_iter().filter_map(|kind| report[kind]["runs"].as_array()).flatten();
    let named = has_bottleneck(&report) || others.into_iter().any(|run| has_bottleneck(&run["report"]));
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
fn load_accounts_for_every_published_record() {
    let server = Server::start(&["--feed", "none", "--publish-token", "token/with+odd%signs"]);
    let address = server.address.to_string();
    let publish =
        ["--publish", "2000", "--publish-token", "token/with+odd%signs", "--instruments", "7", "--burst", "5"];
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
fn load_with_storm_churn_and_stalls_misses_no_record() {
    let server = Server::start(&["--feed", "none", "--publish-token", "test-publish-token"]);
    let address = server.address.to_string();
    let publish = [
        "--publish",
        "500",
        "--publish-token",
        "test-publish-token",
        "--clients",
        "20",
        "--seconds",
        "2",
        "--warmup",
        "0",
    ];
    let disturb = ["--storm", "50", "--churn", "3", "--stalled", "20", "--stall-for", "1"];
    let (report, _) = load(&[&[address.as_str()], &publish[..], &disturb].concat());
    assert_eq!((&report["storm"]["connected"], &report["stalled"]), (&50.into(), &4.into()), "{report}");
    assert!(report["churned"].as_u64().is_some_and(|churned| churned > 0), "{report}");
    assert_eq!(report["delivered"]["missing"], 0, "{report}");
}

/// The rows of a report's time line.
fn rows(report: &Value) -> &[Value] {
    report["measured"]["timeline"].as_array().expect("a list")
}

#[test]
fn a_pause_loses_no_record_on_the_server_and_on_the_floor() {
    let free = std::net::TcpListener::bind("127.0.0.81:0").expect("a free port").local_addr().expect("it is bound");
    let address = free.to_string();
    let serve = ["--serve", "--feed none --publish-token test-publish-token --slow-timeout-ms 60000", "--floor"];
    let publish =
        ["--publish", "400", "--publish-token", "test-publish-token", "--publish-channel", "raw", "--size", "20000"];
    // 8 MB for each client in the pause: more than its sockets take.
    let rest = ["--clients", "10", "--seconds", "3", "--warmup", "0", "--pause", "1,1,50"];
    let (report, _) = load(&[&[address.as_str()], &serve[..], &publish, &rest].concat());
    for run in report["compared"]["runs"].as_array().expect("a list") {
        let report = &run["report"];
        assert_eq!((&report["pause"]["clients"], &report["closes"]), (&5.into(), &serde_json::json!({})), "{report}");
        let delivered = &report["delivered"];
        assert_eq!((&delivered["clients"], &delivered["missing"]), (&10.into(), &0.into()), "{report}");
        let announced = delivered["lost"].as_u64().expect("a count") + delivered["merged"].as_u64().expect("a count");
        let received = delivered["received"].as_u64().expect("a count");
        assert_eq!(delivered["expected"], received + announced, "{report}");
        if report["measured"].is_object() {
            let of_rows: u64 = rows(report).iter().filter_map(|row| row["delivered"].as_u64()).sum();
            assert_eq!(report["measured"]["latency_recv"]["count"], of_rows, "each record is in one row");
            assert_eq!(rows(report).last().expect("a row")["behind"], 0, "{report}");
        }
    }
}

#[test]
fn a_pause_that_the_measured_time_does_not_contain_is_refused() {
    let exit = Program::run(&["load", "127.0.0.1:1", "--seconds", "8", "--pause", "6,2"]);
    assert_eq!(exit.code, Some(2));
    assert!(exit.stderr.contains("--pause: ends 8 s after the measurement begins: expected an end before --seconds 8"));
}

#[test]
fn limited_clients_miss_nothing_unannounced_and_others_miss_nothing() {
    let server = Server::start(&["--feed", "none", "--publish-token", "test-publish-token"]);
    let address = server.address.to_string();
    // 400 KB/s, and 30 KB/s for four of the ten.
    let publish =
        ["--publish", "200", "--publish-token", "test-publish-token", "--publish-channel", "raw", "--size", "2000"];
    let rest = ["--clients", "10", "--seconds", "3", "--warmup", "0", "--read-rate", "30000,40"];
    let (report, is_result) = load(&[&[address.as_str()], &publish[..], &rest].concat());
    let (delivered, limited) = (&report["delivered"], &report["limited"]);
    assert_eq!((&report["connected"], &limited["clients"]), (&10.into(), &4.into()), "{report}");
    assert_eq!((&delivered["clients"], &delivered["missing"], &delivered["lost"]), (&6.into(), &0.into(), &0.into()));
    assert_eq!(report["closes"], serde_json::json!({}));
    if is_result {
        let bytes = limited["bytes_per_second"].as_f64().expect("a number");
        assert!(bytes > 0.0 && bytes < 4.0 * 30_000.0 * 1.2, "{report}");
        let records: u64 = rows(&report).iter().filter_map(|row| row["limited"]["delivered"].as_u64()).sum();
        assert_eq!(limited["latency"]["count"], records, "{report}");
        assert!(records > 0, "{report}");
    }
}

#[test]
fn limited_clients_may_ask_for_json() {
    let server = Server::start(&["--feed", SMALL_MARKET]);
    let address = server.address.to_string();
    let clients = ["--clients", "4", "--read-rate", "1000000,50", "--limited-format", "json"];
    let (report, is_result) = load(&[&[address.as_str()], &clients[..], &["--seconds", "2", "--warmup", "0"]].concat());
    assert_eq!((&report["connected"], &report["malformed"]), (&4.into(), &serde_json::json!({})), "{report}");
    assert_eq!((&report["rejected"], &report["limited"]["clients"]), (&serde_json::json!({}), &2.into()), "{report}");
    if is_result {
        let [of_steady, of_limited] = [&report["measured"]["latency_recv"], &report["limited"]["latency"]];
        let counts = [of_steady, of_limited].map(|latency| latency["count"].as_u64().expect("a count"));
        assert!(counts[0] > 0 && counts[1] > 0, "{report}");
    }
}

/// The runs of a report under attack.
fn attacked(report: &Value) -> &Vec<Value> {
    report["attacked"]["runs"].as_array().expect("a list")
}

#[test]
fn kinds_of_attacks_have_a_run_each_with_clients_that_miss_nothing() {
    let server =
        Server::start(&["--feed", SMALL_MARKET, "--publish-token", "test-publish-token", "--compression", "1"]);
    let address = server.address.to_string();
    let publish = ["--publish", "200", "--publish-token", "test-publish-token", "--clients", "10", "--warmup", "0"];
    let attack = [
        "--attack",
        "partial-messages,patterns,unsubscribes,compressed,unread-answers,publisher-flood",
        "--attack-token",
        "test-publish-token",
        "--attack-connections",
        "8",
        "--attack-rate",
        "500",
    ];
    // Where the machine has no time for an attack within a second, it gets more.
    let run = |seconds: &str| load(&[&[address.as_str()], &publish[..], &attack, &["--seconds", seconds]].concat()).0;
    let has_acted = |run: &Value| run["report"]["attack"]["count"]["actions"].as_u64() > Some(0);
    let is_idle = |run: &Value| run["report"]["attack"]["kind"] != "unread_answers" && !has_acted(run);
    let mut report = run("1");
    for seconds in ["5", "20"] {
        if attacked(&report).iter().any(is_idle) {
            report = run(seconds);
        }
    }
    let runs = attacked(&report);
    assert_eq!(runs.len(), 6, "{report}");
    for run in runs {
        let report = &run["report"];
        let (attack, kind) = (&report["attack"], &report["attack"]["kind"]);
        assert!(attack["count"]["opened"].as_u64() > Some(0), "{kind}: {attack}");
        assert!(kind == "unread_answers" || attack["count"]["actions"].as_u64() > Some(0));
        assert_eq!(
            (&report["connected"], &report["delivered"]["missing"]),
            (&10.into(), &0.into()),
            "{kind}: {report}"
        );
        let memory = ["before", "peak", "after"].map(|phase| attack["memory"][phase].as_u64().expect("bytes"));
        assert!(memory[1] >= memory[0] && memory[1] >= memory[2] && memory[2] > 0, "{kind}: {memory:?}");
        // A run in which the load generator was the bottleneck has none.
        if report["measured"].is_object() {
            let phases = ["before", "during", "after"].map(|phase| &attack["latencies"][phase]["count"]);
            assert!(phases.iter().all(|count| count.as_u64() > Some(0)), "{kind}: {attack}");
        }
    }
}

#[test]
fn a_started_server_is_paused_and_continues() {
    let free = std::net::TcpListener::bind("127.0.0.79:0").expect("a free port").local_addr().expect("it is bound");
    let publish = [
        "--publish",
        "200",
        "--publish-token",
        "test-publish-token",
        "--clients",
        "10",
        "--seconds",
        "2",
        "--warmup",
        "0",
    ];
    let rest = ["--attack", "pauses", "--serve", "--feed none --publish-token test-publish-token"];
    let (report, is_result) = load(&[&[free.to_string().as_str()], &publish[..], &rest].concat());
    let attack = &attacked(&report)[0]["report"]["attack"];
    assert_eq!((&attack["kind"], &attack["count"]["actions"]), (&"pauses".into(), &1.into()), "{report}");
    assert_eq!((&report["closes"], &report["delivered"]["missing"]), (&serde_json::json!({}), &0.into()), "{report}");
    if is_result {
        // What was published in the pause came afterwards.
        let late = attack["latencies"]["during"]["max_ns"].as_u64().expect("a number");
        assert!(late > 500_000_000, "{attack}");
    }
}

#[test]
fn attacks_without_their_arguments_are_refused() {
    for (kind, problem) in [
        ("pauses", "--attack: pauses stops the server's process: expected --serve ARGS or --server-pid PID"),
        ("publisher-flood", "--attack: publisher-flood needs a token of the server: expected --attack-token TOKEN"),
        ("all", "--attack compares the server with itself before the attack: expected no --floor"),
    ] {
        let floor: &[&str] = if kind == "all" { &["--floor", "--publish", "10"] } else { &[] };
        let exit = Program::run(&[&["load", "127.0.0.1:1", "--attack", kind], floor].concat());
        assert_eq!(exit.code, Some(2), "{exit:?}");
        assert!(exit.stderr.contains(problem), "{exit:?}");
    }
}

#[test]
fn load_starts_server_and_floor_and_compares_them() {
    let free = std::net::TcpListener::bind("127.0.0.79:0").expect("a free port").local_addr().expect("it is bound");
    let folder = tempfile::tempdir().expect("a folder");
    let picture = folder.path().join("latency.svg");
    let (address, picture_path) = (free.to_string(), picture.to_str().expect("a path in UTF-8"));
    let serve = [
        "--serve",
        "--feed none --publish-token test-publish-token",
        "--floor",
        "--floor-send",
        "--plot",
        picture_path,
    ];
    let rest = [
        "--publish",
        "500",
        "--publish-token",
        "test-publish-token",
        "--clients",
        "10",
        "--seconds",
        "1",
        "--warmup",
        "0",
    ];
    let (report, _) = load(&[&[address.as_str()], &serve[..], &rest].concat());
    let runs = report["compared"]["runs"].as_array().expect("a list");
    let names: Vec<_> = runs.iter().map(|run| run["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["tickcast", "floor", "floor, send(2)"]);
    for run in runs {
        assert_eq!((&run["report"]["connected"], &run["report"]["delivered"]["missing"]), (&10.into(), &0.into()));
    }
    assert!(std::fs::read_to_string(picture).expect("the plot was written").contains("<svg"));
    assert!(std::net::TcpStream::connect(free).is_err(), "the server ends with the run");
}

/// `load` against a server over TLS: its URL, and the authority.
fn secured(authority: &Authority, server: &Server) -> [String; 3] {
    let port = tls_address(server).port();
    [format!("wss://localhost:{port}"), "--ca".to_owned(), authority.path("ca.pem").to_string_lossy().into_owned()]
}

#[test]
fn load_over_tls_accounts_for_every_published_record() {
    let authority = Authority::new();
    let server = authority.start(&["--feed", "none", "--publish-token", "test-publish-token"]);
    let server_args = secured(&authority, &server);
    let server_args = server_args.each_ref().map(String::as_str);
    let publish = ["--publish", "2000", "--publish-token", "test-publish-token", "--burst", "5", "--symbols", "LOAD-*"];
    let time = ["--clients", "12", "--seconds", "1", "--warmup", "0", "--publish-channel", "raw", "--size"];
    // The second has packets of several records of TLS.
    for (size, shape) in [("40", "all"), ("20000", "one")] {
        let (report, _) = load(&[&server_args[..], &publish, &time, &[size, "--shape", shape]].concat());
        let delivered = &report["delivered"];
        assert_eq!((&delivered["clients"], &delivered["missing"]), (&12.into(), &0.into()), "{shape}: {report}");
        assert!(delivered["expected"].as_u64().is_some_and(|expected| expected > 20), "{shape}: {report}");
    }
    server.wait_for_metric("tickcast_tls_faults_total", |faults| faults == 0);
}

#[test]
fn load_over_tls_resumes_sessions_where_that_is_asked_for() {
    let authority = Authority::new();
    let server = authority.start(&["--feed", SMALL_MARKET]);
    let server_args = secured(&authority, &server);
    let server_args = server_args.each_ref().map(String::as_str);
    let churn = ["--clients", "20", "--seconds", "2", "--warmup", "0", "--churn", "20", "--read-rate", "9000,20"];
    for (more, resumed) in [(&[][..], false), (&["--tls-resume"], true)] {
        let (report, _) = load(&[&server_args[..], &churn, more].concat());
        assert!(report["churned"].as_u64().is_some_and(|churned| churned > 10), "{report}");
        assert_eq!(report["closes"], serde_json::json!({}), "{report}");
        let count: u64 = server.metric_values("tickcast_tls_resumed_total").iter().sum();
        assert_eq!(count > 0, resumed, "{count} were resumed");
    }
}

#[test]
fn load_says_why_there_is_no_connection_over_tls() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = authority.start(&["--feed", SMALL_MARKET]);
    let [url, _, ca] = secured(&authority, &server);
    let of_other = other.path("ca.pem").to_string_lossy().into_owned();
    let plain = format!("wss://localhost:{}", server.address.port());
    for (url, ca, message) in [
        (&url, Some(&of_other), "the server's certificate is from no authority in "),
        (&url, None, "from no authority that this system trusts: expected that of a private one as `ca`"),
        (&plain, Some(&ca), "does not speak TLS: expected ws:// there"),
        (&url, Some(&"/nothing/here.pem".to_owned()), "/nothing/here.pem: "),
    ] {
        let ca = ca.map_or(vec![], |ca| vec!["--ca", ca]);
        let exit = Program::run(&[&["load", url, "--clients", "5"], &ca[..]].concat());
        assert_eq!(exit.code, Some(2), "{exit:?}");
        assert!(exit.stderr.contains(message), "{exit:?}");
    }
}

#[test]
fn load_starts_server_and_floor_over_tls() {
    let authority = Authority::new();
    let path = |name| authority.path(name).to_string_lossy().into_owned();
    let (cert, key, ca) = (path("cert.pem"), path("key.pem"), path("ca.pem"));
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound");
    let url = format!("wss://localhost:{}", free.port());
    let serve = "--feed none --publish-token test-publish-token --listen 127.0.0.1:0";
    let publish = ["--publish", "500", "--publish-token", "test-publish-token", "--publish-channel", "raw"];
    let time = ["--clients", "10", "--seconds", "1", "--warmup", "0", "--floor", "--ca", &ca, "--serve"];
    let args = [&[url.as_str()], &publish[..], &time].concat();
    let exit = Program::run(&[&["load"], &args[..], &[serve]].concat());
    assert_eq!(exit.code, Some(2), "{exit:?}");
    let with_pair = format!("{serve} --tls-cert {cert} --tls-key {key}");
    let (report, _) = load(&[&args[..], &[with_pair.as_str()]].concat());
    let runs = report["compared"]["runs"].as_array().expect("a list");
    assert_eq!(runs.len(), 2, "{report}");
    for run in runs {
        let delivered = &run["report"]["delivered"];
        assert_eq!((&delivered["clients"], &delivered["missing"]), (&10.into(), &0.into()), "{report}");
    }
}

#[test]
fn a_load_worker_ends_with_the_process_that_started_it() {
    let mut command = Program::command(&["load-worker"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
    drop(child.stdin.take());
    let mut parts = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().expect("stdout is piped"), &mut parts)
        .expect("stdout is UTF-8");
    assert!(parts.contains("failed") && parts.contains("the job"), "{parts}");
    assert_eq!(child.wait().expect("it is a child of this process").code(), Some(0));
}
