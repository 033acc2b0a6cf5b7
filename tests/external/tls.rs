//! TLS with clients of other libraries: OpenSSL's `s_client`, curl, testssl.sh, Python's `ssl`, Node. What is not installed
//! is reported as skipped.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tickcast_test_support::exclusive::shared;
use tickcast_test_support::paths;
use tickcast_test_support::server::Server;
use tickcast_test_support::tls::{Authority, tls_address};

use crate::interop::is_available;

fn start() -> (Authority, Server) {
    let authority = Authority::new();
    let server = authority.start(&["--feed", "sim:instruments=20,rate=5000,seed=1", "--enable-echo"]);
    (authority, server)
}

fn text_of(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// `s_client`, whose stdin is what is sent.
fn s_client(authority: &Authority, server: &Server, args: &[&str]) -> Child {
    let (address, ca) = (tls_address(server).to_string(), authority.path("ca.pem"));
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address, "-servername", "localhost", "-CAfile", text_of(&ca)]);
    command.args(["-verify_return_error", "-verify_hostname", "localhost"]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("it started before")
}

/// All that it prints, with this input.
fn output_of(mut client: Child, input: &str) -> String {
    let mut stdin = client.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    // It ends with the server's end, and not with that of its input, which stays open.
    let mut text = String::new();
    client.stdout.take().expect("it is piped").read_to_string(&mut text).expect("UTF-8");
    client.stderr.take().expect("it is piped").read_to_string(&mut text).expect("UTF-8");
    drop(stdin);
    client.wait().expect("it is a child");
    text
}

const REQUEST: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn openssl_agrees_on_both_versions_and_resumes() {
    let _machine = shared();
    if !is_available("openssl", &["version"]) {
        return;
    }
    let (authority, server) = start();
    for (version, name) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        let (session, kept) = (authority.path("session"), format!("-sess_out {}", version));
        let first = output_of(s_client(&authority, &server, &[version, "-sess_out", text_of(&session)]), REQUEST);
        assert!(first.contains(&format!("New, {name}")) && first.contains("{\"status\":\"ok\"}"), "{kept}: {first}");
        assert!(first.contains("Verify return code: 0 (ok)"), "{first}");
        assert!(!first.contains("Compression: zlib"), "{first}");
        let again = output_of(s_client(&authority, &server, &[version, "-sess_in", text_of(&session)]), REQUEST);
        assert!(again.contains(&format!("Reused, {name}")) && again.contains("{\"status\":\"ok\"}"), "{again}");
    }
    server.wait_for_metric("tickcast_tls_resumed_total", |count| count == 2);
    for version in ["-tls1_1", "-tls1"] {
        let refused = output_of(s_client(&authority, &server, &[version, "-cipher", "DEFAULT@SECLEVEL=0"]), "");
        assert!(refused.contains("alert") && !refused.contains("status"), "{version}: {refused}");
    }
    server.wait_for_metric("tickcast_tls_version_total", |count| count == 2);
    let other = output_of(s_client(&authority, &server, &["-alpn", "h2"]), "");
    assert!(other.contains("no application protocol"), "{other}");
    let chosen = output_of(s_client(&authority, &server, &["-alpn", "h2,http/1.1"]), REQUEST);
    assert!(chosen.contains("ALPN protocol: http/1.1"), "{chosen}");
}

/// Reads until a line has this text.
fn read_to(stdout: &mut impl BufRead, text: &str) {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert!(stdout.read_line(&mut line).expect("UTF-8") > 0, "{text} does not come");
    }
}

#[test]
fn openssl_may_update_its_keys_and_not_renegotiate() {
    let _machine = shared();
    if !is_available("openssl", &["version"]) {
        return;
    }
    let (authority, server) = start();
    for (version, command, is_served) in [("-tls1_3", "K\n", true), ("-tls1_2", "R\n", false)] {
        let mut client = s_client(&authority, &server, &[version]);
        let mut stdin = client.stdin.take().expect("it is piped");
        let mut stdout = BufReader::new(client.stdout.take().expect("it is piped"));
        // Its commands are single letters at the beginning of what it reads at once.
        read_to(&mut stdout, "Verify return code: 0 (ok)");
        read_to(&mut stdout, "---");
        stdin.write_all(command.as_bytes()).expect("it reads");
        let mut text = String::new();
        if is_served {
            let mut stderr = BufReader::new(client.stderr.take().expect("it is piped"));
            read_to(&mut stderr, "KEYUPDATE");
            stdin.write_all(REQUEST.as_bytes()).expect("it reads");
            stdout.read_to_string(&mut text).expect("UTF-8");
        } else {
            client.stderr.take().expect("it is piped").read_to_string(&mut text).expect("UTF-8");
        }
        drop(stdin);
        client.wait().expect("it is a child");
        assert_eq!(text.contains("{\"status\":\"ok\"}"), is_served, "{version}: {text}");
        assert!(is_served || text.contains("no renegotiation"), "{text}");
    }
}

/// Findings of testssl.sh that are none: the tests' own authority, and what a server of this kind has on purpose.
const EXPLAINED: &[&str] = &[
    // OpenSSL on this machine has no GOST.
    "engine_problem",
    // Compressed answers have no secret: what a client is authorized by is never in one.
    "BREACH",
];

#[test]
fn testssl_finds_nothing_of_weight() {
    let _machine = shared();
    // Debian calls it so.
    if !is_available("testssl", &["--version"]) {
        return;
    }
    let (authority, server) = start();
    let (ca, report) = (authority.path("ca.pem"), authority.path("testssl.json"));
    let place = format!("localhost:{}", tls_address(&server).port());
    let mut command = Command::new("testssl");
    // Versions, groups of suites, forward secrecy, the order of suites, weaknesses.
    command.args(["--quiet", "--color", "0", "--warnings", "off", "-p", "-s", "-f", "-P", "-U"]);
    command.args(["--ip", "127.0.0.1", "--add-ca", text_of(&ca), "--jsonfile", text_of(&report), &place]);
    let output = command.stdin(Stdio::null()).output().expect("it started before");
    let text = std::fs::read_to_string(&report).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let findings: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let findings = findings.as_array().expect("a list");
    let severity = |finding: &Value| finding["severity"].as_str().map(str::to_owned).unwrap_or_default();
    let is_found =
        |id: &str, severe: &str| findings.iter().any(|found| found["id"] == *id && severity(found) == severe);
    for id in ["TLS1_2", "TLS1_3", "heartbleed", "ROBOT", "secure_renego"] {
        assert!(is_found(id, "OK"), "{id}: {text}");
    }
    let of_weight = |finding: &&Value| {
        let is_explained = EXPLAINED.iter().any(|id| finding["id"] == **id);
        !["OK", "INFO", "LOW", "DEBUG"].contains(&severity(finding).as_str()) && !is_explained
    };
    let found: Vec<_> = findings.iter().filter(of_weight).collect();
    assert!(found.is_empty(), "{found:#?}");
    server.wait_for_metric("tickcast_tls_faults_total", |faults| faults == 0);
}

#[test]
fn curl_reads_answers_and_events() {
    let _machine = shared();
    if !is_available("curl", &["--version"]) {
        return;
    }
    let (authority, server) = start();
    let (ca, port) = (authority.path("ca.pem"), tls_address(&server).port());
    let curl = |args: &[&str], path: &str| {
        let url = format!("https://localhost:{port}{path}");
        let output = Command::new("curl").args(["-sS", "--cacert", text_of(&ca)]).args(args).arg(url).output();
        let output = output.expect("it started before");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for args in [&["--tls-max", "1.2"][..], &["--tlsv1.3"], &["--http2"]] {
        let (code, text) = curl(args, "/v1/instruments");
        let body: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"));
        assert_eq!((code, body["instruments"].as_array().map(Vec::len)), (Some(0), Some(20)));
    }
    // It reads until its time is up.
    let (code, events) = curl(&["-N", "--max-time", "3"], "/v1/sse?symbols=*&channels=trade");
    assert!(code == Some(28) && events.matches("\ndata: ").count() > 20, "{code:?}: {events}");
    let untrusted = Command::new("curl").args(["-sS", &format!("https://localhost:{port}/healthz")]).output();
    assert_eq!(untrusted.expect("it started before").status.code(), Some(60), "an unknown authority");
    server.wait_for_metric("tickcast_tls_alerts_total", |count| count == 1);
}

/// Runs a client of the interop tests over TLS: its variable names the authority.
fn run(program: &str, script: &str, variable: &str) {
    let (authority, server) = start();
    let root = paths::repository();
    let url = format!("wss://localhost:{}", tls_address(&server).port());
    let mut command = Command::new(program);
    command.arg(root.join("tests/external/interop").join(script)).args([&url, "off"]).current_dir(root);
    let output = command.env(variable, authority.path("ca.pem")).output().expect("it started before");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{program}: {text}{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(found["records"].as_u64().is_some_and(|records| records >= 300), "{found}");
    assert_eq!((&found["code"], &found["echoes"]), (&1000.into(), &6.into()), "{found}");
    server.wait_for_metric("tickcast_tls_faults_total", |faults| faults == 0);
}

#[test]
fn npm_ws_reads_stream_and_echo_over_tls() {
    let _machine = shared();
    let module = paths::repository().join("target/interop/node_modules/ws");
    if is_available("node", &["-e", &format!("require({:?})", module.display().to_string())]) {
        run("node", "ws.cjs", "NODE_EXTRA_CA_CERTS");
    }
}

#[test]
fn websockets_of_python_reads_stream_and_echo_over_tls() {
    let _machine = shared();
    let folder = paths::repository().join("target/interop/python");
    let import = format!("import sys; sys.path.insert(0, {:?}); import websockets", folder.display().to_string());
    if is_available("python3", &["-c", &import]) {
        run("python3", "client.py", "SSL_CERT_FILE");
    }
}
