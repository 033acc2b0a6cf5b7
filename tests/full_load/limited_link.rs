//! Very many clients behind one link that is too slow for them.
//!
//! Two network namespaces are joined by a pair of virtual interfaces, whose server side lets 100 Mbit/s pass, and by a
//! second pair for the publisher. Both namespaces end with the test's shell. The clients want five times what the link
//! carries, so all of them are slow all the time.
//!
//! ```text
//!   server ═══ 100 Mbit/s ═══► 500 clients of 200 quotes
//!      ▲─────── unlimited ──── publisher
//! ```
//!
//! It prints the figures of `benches/README.md`. These commands take others:
//!
//!     cargo test --release --test full_load limited_link -- --nocapture
//!     TICKCAST_LINK_CLIENTS=300 TICKCAST_LINK_ARGS='--send-buffer-bytes 4608 --notsent-lowat-bytes 0' cargo test …

use std::process::Command;

use serde_json::Value;
use tickcast_test_support::exclusive::exclusive;
use tickcast_test_support::paths;

/// What the link carries, bytes a second, and the share of it that has to be used by WebSocket payload.
const LINK_BYTES_PER_S: f64 = 12_500_000.0;
const FULL_SHARE: f64 = 0.85;
/// What the kernel may hold for one client without having sent it: the default of `notsent_lowat_bytes`, and the piece
/// or flush that the socket took when it was still below that.
const UNSENT_BYTES_MAX: u64 = 16_384 + 16_384 + 1024;
/// What the issue of a slow link allows beyond the time in which a client's share of the link carries the unsent bytes.
const SLACK_S: f64 = 0.5;

/// Prints the report of the load generator and, after a line `== sockets`, what `ss` says of the clients' connections
/// once a second.
const SCRIPT: &str = r#"
    set -euo pipefail
    unshare --net sleep 300 & far=$!
    server= sampler=
    trap 'kill $far $server $sampler' EXIT
    until [ "$(readlink /proc/$far/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
    clients() { nsenter --net --target $far "$@"; }
    ip link set lo up
    # Permitted everywhere, so that the machine's choice has no influence.
    echo reno >/proc/sys/net/ipv4/tcp_congestion_control
    for pair in 77 78; do
      ip link add near$pair type veth peer name far$pair netns $far || { echo "SKIPPED: this kernel has no veth"; exit 0; }
      ip addr add 10.$pair.0.1/24 dev near$pair
      ip link set near$pair up
      clients ip addr add 10.$pair.0.2/24 dev far$pair
      clients ip link set far$pair up
    done
    tc qdisc add dev near77 root tbf rate 100mbit burst 32kb latency 50ms ||
      { echo "SKIPPED: this kernel has no token bucket (sch_tbf)"; exit 0; }
    "$PROGRAM" --listen 0.0.0.0:9100 --feed none --publish-token test-publish-token --log warn $SERVER_ARGS >served & server=$!
    until grep -q 'serving on' served; do kill -0 $server; sleep 0.05; done
    while sleep 1; do ss --tcp --info --no-header state established '( sport = :9100 and dst 10.77.0.2 )'; done >sockets &
    sampler=$!
    code=0
    clients "$PROGRAM" load ws://10.77.0.1:9100 --clients $CLIENTS --instruments 200 --conflate-ms 100 \
      --publish 4000 --burst 20 --records-per-packet 20 --publish-token test-publish-token \
      --publish-url 'ws://10.78.0.1:9100/v1/publish?token=test-publish-token' --seconds 8 --warmup 3 --server-pid $server --json || code=$?
    # 3: the machine is busy, so the report has no rates; the checks of the streams are valid.
    [ $code = 0 ] || [ $code = 3 ]
    echo "== sockets"
    cat sockets
"#;

/// A run: the report, and what `ss` said. `None`, and a line in the output, where the machine does not permit it.
fn run(clients: u32, server_args: &str) -> Option<(Value, String)> {
    let is_root = rustix::process::geteuid().is_root();
    let namespace: &[&str] = if is_root { &["--net"] } else { &["--net", "--map-root-user"] };
    let has = |program: &str, args: &[&str]| {
        let is_there = Command::new(program).args(args).output().is_ok_and(|output| output.status.success());
        if !is_there {
            println!("SKIPPED: '{program} {}' does not work here", args.join(" "));
        }
        is_there
    };
    let ip = [("ip", "-V"), ("tc", "-V"), ("ss", "-V"), ("nsenter", "-V")];
    if !has("unshare", &[namespace, &["true"]].concat()) || !ip.iter().all(|(program, arg)| has(program, &[arg])) {
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new("unshare");
    command.args(namespace).args(["--pid", "--fork", "--kill-child", "--mount-proc", "timeout", "120", "bash", "-c"]);
    command.arg(SCRIPT).current_dir(folder.path());
    // The program reports a variable with its prefix that it does not know.
    let ours = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TICKCAST_"));
    ours.for_each(|(name, _)| {
        command.env_remove(name);
    });
    command.env("PROGRAM", paths::program()).env("CLIENTS", clients.to_string()).env("SERVER_ARGS", server_args);
    let output = command.output().expect("unshare was there before");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    if stdout.contains("SKIPPED") {
        println!("{stdout}");
        return None;
    }
    let (report, sockets) = stdout.split_once("== sockets").unwrap_or_else(|| panic!("{stdout}\n{stderr}"));
    Some((serde_json::from_str(report).unwrap_or_else(|error| panic!("{error}: {report}")), sockets.to_owned()))
}

/// The numbers that follow this word in the output of `ss`, in ascending order.
fn numbers(sockets: &str, word: &str) -> Vec<u64> {
    let after = sockets.split(word).skip(1);
    let digits = after.map(|text| text.split(|character: char| !character.is_ascii_digit()).next().unwrap_or(""));
    let mut numbers: Vec<u64> = digits.filter_map(|digits| digits.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

fn quantile(sorted: &[u64], part: f64) -> u64 {
    sorted.get((part * sorted.len().saturating_sub(1) as f64) as usize).copied().unwrap_or(0)
}

#[test]
fn clients_of_a_limited_link_get_new_values_within_what_the_kernel_holds() {
    let _machine = exclusive();
    let setting = |name: &str| std::env::var(name).ok();
    let clients = setting("TICKCAST_LINK_CLIENTS").map_or(500, |text| text.parse().expect("a number of clients"));
    let server_args = setting("TICKCAST_LINK_ARGS");
    let Some((report, sockets)) = run(clients, server_args.as_deref().unwrap_or("")) else { return };
    // A sequence that is missing without a flag or a Gap would be a violation.
    assert_eq!((&report["sequence_violations"], &report["malformed"]), (&0.into(), &serde_json::json!({})), "{report}");
    assert_eq!((&report["connected"], &report["closes"]), (&clients.into(), &serde_json::json!({})), "{report}");
    assert_eq!(report["delivered"]["lost"], 0, "{report}");
    let (unsent, unacked) = (numbers(&sockets, "notsent:"), numbers(&sockets, "unacked:"));
    println!("{clients} clients, server arguments: {:?}", server_args.as_deref().unwrap_or("none"));
    println!(
        "unsent in the kernel, a client: p50 {} p90 {} max {} B; packets under way: p50 {} max {}",
        quantile(&unsent, 0.5),
        quantile(&unsent, 0.9),
        quantile(&unsent, 1.0),
        quantile(&unacked, 0.5),
        quantile(&unacked, 1.0)
    );
    assert!(unsent.len() >= clients as usize, "{} connections have unsent bytes", unsent.len());
    let has_defaults = server_args.is_none();
    assert!(!has_defaults || quantile(&unsent, 1.0) <= UNSENT_BYTES_MAX, "{unsent:?}");
    let measured = &report["measured"];
    if !measured.is_object() {
        return println!("SKIPPED: rates and ages, since the machine is too busy: {}", report["bottlenecks"]);
    }
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("not a number: {report}"));
    let bytes_per_s = number(&measured["bytes_per_second"]);
    let age_s = |field: &str| number(&measured["latency_recv"][field]) / 1e9;
    let (p50, p90, p99) = (age_s("p50_ns"), age_s("p90_ns"), age_s("p99_ns"));
    let bound = UNSENT_BYTES_MAX as f64 / (bytes_per_s / f64::from(clients)) + SLACK_S;
    println!("link {:.2} MB/s, server {:.2} cores", bytes_per_s / 1e6, number(&report["server"]["cores"]));
    println!(
        "age on arrival: p50 {p50:.2} p90 {p90:.2} p99 {p99:.2} s; unsent bytes / share of the link + 0.5: {bound:.2} s"
    );
    if has_defaults {
        assert!(number(&measured["conflated"]) > 0.0, "{report}");
        assert!(bytes_per_s >= FULL_SHARE * LINK_BYTES_PER_S, "the link is not full: {report}");
        assert!(p50 <= bound, "{report}");
    }
}
