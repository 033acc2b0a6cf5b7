//! Foreign clients: npm's `ws`, Python's `websockets`, a browser, websocat. Each subscribes and checks that sequences are
//! in order, and gets its messages echoed, with permessage-deflate where it supports it, and without. npm's `eventsource`
//! reads Server-Sent Events and reconnects after losses; curl reads them as well.
//!
//! `tests/external/interop/install` installs the clients. A test whose client is missing is reported as skipped.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tickcast_test_support::DEADLINE;
use tickcast_test_support::exclusive::shared;
use tickcast_test_support::paths;
use tickcast_test_support::server::Server;

const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// A server with many trades, with this compression, that allows pages of this origin.
fn server_for(origin: &str, compression: &str) -> Server {
    let market = "sim:instruments=20,rate=5000,seed=1";
    Server::start(&["--feed", market, "--enable-echo", "--compression", compression, "--allow-origin", origin])
}

/// The same without another origin, for clients that are no browsers.
fn server(compression: &str) -> Server {
    server_for("none", compression)
}

/// True if the program starts; otherwise reports the test as skipped.
pub fn is_available(program: &str, args: &[&str]) -> bool {
    let started = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_available = started.is_ok_and(|status| status.success());
    if !is_available {
        println!("SKIPPED: {program} {} does not start; see tests/external/interop/install", args.join(" "));
    }
    is_available
}

/// Runs a script against a server; returns its results.
fn run(server: &Server, program: &str, script: &str, deflate: &str) -> Value {
    let root = paths::repository();
    let script = root.join("tests/external/interop").join(script);
    let url = format!("ws://{}", server.address);
    let mut command = Command::new(program);
    let output = command.arg(script).args([&url, deflate]).current_dir(root).output().expect("it started before");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{program}: {text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[track_caller]
fn check(found: &Value, extensions: &str, echo: &str) {
    assert_eq!(found["failed"], Value::Null, "{found}");
    assert!(found["records"].as_u64().is_some_and(|records| records >= 300), "{found}");
    assert_eq!((&found["code"], &found["echo_code"], &found["echoes"]), (&json!(1000), &json!(1000), &json!(6)));
    let agreed = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    assert_eq!((agreed("extensions"), agreed("echo")), (extensions.to_owned(), echo.to_owned()), "{found}");
}

/// Runs a script with and without compression of the server, and of the client.
fn with_and_without(program: &str, script: &str, agreed: &str) {
    let (off, on) = (server("off"), server("6"));
    check(&run(&off, program, script, "off"), "", "");
    check(&run(&off, program, script, "on"), "", agreed);
    check(&run(&on, program, script, "off"), "", "");
    check(&run(&on, program, script, "on"), agreed, agreed);
    on.wait_for_metric("tickcast_compressed_total", |packets| packets > 0);
    assert_eq!(off.metric_values("tickcast_compressed_total").iter().sum::<u64>(), 0);
}

#[test]
fn npm_ws_reads_stream_and_echo() {
    let _machine = shared();
    let module = paths::repository().join("target/interop/node_modules/ws");
    if is_available("node", &["-e", &format!("require({:?})", module.display().to_string())]) {
        // ws reports the name of the negotiated extension without its parameters.
        with_and_without("node", "ws.cjs", "permessage-deflate");
    }
}

#[test]
fn npm_eventsource_reconnects_without_a_gap() {
    let _machine = shared();
    let root = paths::repository();
    let module = root.join("target/interop/node_modules/eventsource/package.json");
    if is_available("node", &["-e", &format!("require({:?})", module.display().to_string())]) {
        let server = server("off");
        let url = format!("http://{}", server.address);
        let script = root.join("tests/external/interop/events.mjs");
        let output = Command::new("node").arg(script).arg(url).current_dir(root).output().expect("it started before");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found: Value = serde_json::from_slice(&output.stdout).expect("a line of JSON");
        assert_eq!(found["resumed"], json!(["replay", "replay", "replay"]), "{found}");
    }
}

#[test]
fn curl_reads_events() {
    let _machine = shared();
    if !is_available("curl", &["--version"]) {
        return;
    }
    let server = server("off");
    let url = format!("http://{}/v1/sse?symbols=*&channels=quote", server.address);
    let mut command = Command::new("curl");
    let child = command.args(["--silent", "--no-buffer", &url]).stdout(Stdio::piped()).spawn().expect("it is there");
    let mut curl = KilledOnDrop(child);
    let stdout = curl.0.stdout.take().expect("it is piped");
    let lines = BufReader::new(stdout).lines().map(|line| line.expect("UTF-8"));
    let is_quote = |line: &String| line.starts_with("data: ") && line.contains(r#""bid_px":""#);
    assert_eq!(lines.filter(is_quote).take(50).count(), 50, "the stream ended before 50 quotes");
}

#[test]
fn python_websockets_reads_stream_and_echo() {
    let _machine = shared();
    let folder = paths::repository().join("target/interop/python");
    let import =
        format!("import sys; sys.path.insert(0, {:?}); import websockets.sync.client", folder.display().to_string());
    if is_available("python3", &["-c", &import]) {
        with_and_without("python3", "client.py", AGREED);
    }
}

#[test]
fn browser_reads_stream_and_echo() {
    let _machine = shared();
    let Some(browser) = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()))
    else {
        println!("SKIPPED: chromium is not installed: run apt-get install chromium");
        return;
    };
    // The test serves the page on a port of its own, so its origin is not the server's.
    let listen = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let origin = |listener: &TcpListener| format!("http://{}", listener.local_addr().expect("it is bound"));
    let (first, second) = (listen(), listen());
    let (off, on) = (server_for(&origin(&first), "off"), server_for(&origin(&second), "6"));
    check(&browse(browser, first, &off), "", AGREED);
    check(&browse(browser, second, &on), AGREED, AGREED);
    on.wait_for_metric("tickcast_compressed_total", |packets| packets > 0);
    let refused = browse(browser, listen(), &on);
    assert_eq!(refused["failed"], "the stream failed", "a page of an origin that is not listed: {refused}");
    on.wait_for_metric("tickcast_refused_origin_total", |count| count > 0);
}

/// A process that is killed when it is dropped.
struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the page in a browser; returns the results that it posts.
fn browse(browser: &str, listener: TcpListener, server: &Server) -> Value {
    let address = listener.local_addr().expect("it is bound");
    let profile = tempfile::tempdir().expect("a folder for the browser's profile");
    let child = Command::new(browser)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("http://{address}/?port={}", server.address.port()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("its version was printed before");
    let _browser = KilledOnDrop(child);
    let (sender, found) = std::sync::mpsc::channel();
    // If the browser posts nothing, the thread ends with the process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Some(result) = answer(stream) {
                let _ = sender.send(result);
                return;
            }
        }
    });
    found.recv_timeout(DEADLINE).expect("the page posts its results")
}

/// Serves the page, or takes the results that it posts.
fn answer(stream: TcpStream) -> Option<Value> {
    let mut reader = BufReader::new(&stream);
    let (mut request, mut length) = (String::new(), 0);
    reader.read_line(&mut request).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let page = if request.starts_with("GET /?") { include_str!("page.html") } else { "" };
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nConnection: close\r\n";
    write!(&stream, "{head}Content-Length: {}\r\n\r\n{page}", page.len()).ok()?;
    if request.starts_with("POST") { serde_json::from_slice(&body).ok() } else { None }
}

#[test]
fn websocat_reads_echo() {
    let _machine = shared();
    let built = paths::repository().join("target/interop/bin/websocat");
    let program = if built.exists() { built.display().to_string() } else { "websocat".to_owned() };
    if !is_available(&program, &["--version"]) {
        return;
    }
    let server = server("off");
    let mut child = Command::new(&program)
        .args(["--text", &format!("ws://{}/v1/echo", server.address)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it started before");
    let mut input = child.stdin.take().expect("it is piped");
    let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
    let _websocat = KilledOnDrop(child);
    for line in ["hello", "grüße €", &"x".repeat(5000)] {
        writeln!(input, "{line}").expect("it reads");
        let mut echoed = String::new();
        output.read_line(&mut echoed).expect("it answers");
        assert_eq!(echoed.trim_end(), line);
    }
}
