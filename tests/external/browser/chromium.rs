//! One headless Chromium for all tests of this binary, controlled through `driver.mjs`, and its pages.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use serde_json::{Value, json};

use tickcast_test_support::DEADLINE;
use tickcast_test_support::exclusive;
use tickcast_test_support::server::Server;
use tickcast_test_support::tls::Authority;

type Answers = Arc<Mutex<HashMap<u64, Sender<Result<Value, String>>>>>;

/// The driver's process. It exits when its stdin is closed, also when this process crashes.
struct Driver {
    input: Mutex<(ChildStdin, u64)>,
    answers: Answers,
    _child: Child,
}

/// Why there is no driver.
enum Unavailable {
    /// A tool is not installed: tests are skipped.
    NotInstalled(&'static str),
    /// A tool is installed and does not start: tests fail.
    Broken(String),
}

static DRIVER: OnceLock<Result<Driver, Unavailable>> = OnceLock::new();

/// The authority that the browser trusts, if there is a tool to tell it so.
static TRUSTED: OnceLock<Option<Authority>> = OnceLock::new();

/// The folder of `tests/external/browser/install`, and of screenshots.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/browser")
}

/// True if node is installed in a version that playwright-core supports.
fn has_node() -> bool {
    let is_new = "process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)";
    Command::new("node").args(["-e", is_new]).status().is_ok_and(|status| status.success())
}

/// An authority of the tests that the browser trusts; its certificate is for 127.0.0.1. `None`, with a message, if the test
/// is to be skipped.
pub fn trusted_authority() -> Option<&'static Authority> {
    let trusted = TRUSTED.get().and_then(Option::as_ref);
    if trusted.is_none() {
        println!("SKIPPED: certutil is not installed: run apt-get install libnss3-tools");
    }
    trusted
}

/// Makes the authority, and a home whose certificate database has it. Chromium reads that when it starts.
fn trust(home: &Path) -> Option<Authority> {
    let database = home.join(".pki/nssdb");
    let _ = std::fs::remove_dir_all(&database);
    std::fs::create_dir_all(&database).expect("the folder is writable");
    let authority = Authority::new();
    authority.renew(&["127.0.0.1"]);
    let certutil = |args: &[&str]| {
        let folder = format!("sql:{}", database.display());
        Command::new("certutil").args(["-d", &folder]).args(args).output()
    };
    // Where it is not installed, it does not start.
    certutil(&["-N", "--empty-password"]).ok()?;
    let ca = authority.path("ca.pem");
    let added = certutil(&["-A", "-t", "C,,", "-n", "test", "-i", ca.to_str().expect("UTF-8")]).ok()?;
    assert!(added.status.success(), "certutil: {}", String::from_utf8_lossy(&added.stderr));
    Some(authority)
}

/// Deletes the screenshots of tests that failed in an earlier run.
fn delete_failure_screenshots() {
    let failed = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("failed-"));
    let files = std::fs::read_dir(folder()).into_iter().flatten().flatten().map(|entry| entry.path());
    files.filter(|path| failed(path)).for_each(|path| _ = std::fs::remove_file(path));
}

impl Driver {
    /// Starts node, playwright-core and Chromium.
    fn start() -> Result<Self, Unavailable> {
        let installed = folder();
        if !has_node() {
            return Err(Unavailable::NotInstalled("node 20 or newer is not installed"));
        }
        if !installed.join("installed.json").exists() {
            return Err(Unavailable::NotInstalled(
                "playwright-core is not installed: run tests/external/browser/install",
            ));
        }
        let browsers = ["chromium", "chromium-browser", "google-chrome"];
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let browser = std::env::split_paths(&paths)
            .flat_map(|folder| browsers.map(|name| folder.join(name)))
            .find(|path| path.exists())
            .ok_or(Unavailable::NotInstalled("chromium is not installed: run apt-get install chromium"))?;
        delete_failure_screenshots();
        let home = installed.join("home");
        TRUSTED.get_or_init(|| trust(&home));
        let mut child = Command::new("node")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/external/browser/driver.mjs"))
            .args([&installed, &browser])
            .env("HOME", &home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Unavailable::Broken(format!("node: {error}")))?;
        let answers = Answers::default();
        let (sender, started) = channel();
        answers.lock().expect("no thread has panicked").insert(0, sender);
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let waiting = answers.clone();
        std::thread::spawn(move || read_answers(output, &waiting));
        match started.recv_timeout(DEADLINE) {
            Ok(Ok(version)) => println!("Chromium {version}"),
            _ => return Err(Unavailable::Broken(format!("{} does not start", browser.display()))),
        }
        Ok(Self { input: Mutex::new((input, 0)), answers, _child: child })
    }

    /// Sends a request; the receiver gets the answer. An error if the driver has exited.
    fn send(&self, mut request: Value) -> std::io::Result<Receiver<Result<Value, String>>> {
        let (sender, answer) = channel();
        let mut input = self.input.lock().expect("no thread has panicked");
        input.1 += 1;
        request["id"] = input.1.into();
        self.answers.lock().expect("no thread has panicked").insert(input.1, sender);
        writeln!(input.0, "{request}")?;
        Ok(answer)
    }
}

/// Passes answers to the threads that wait for them, until the driver exits.
fn read_answers(output: impl BufRead, answers: &Answers) {
    for line in output.lines().map_while(Result::ok) {
        let mut answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let id = answer["id"].as_u64().expect("a number");
        let Some(waiting) = answers.lock().expect("no thread has panicked").remove(&id) else { continue };
        let result = match answer["error"].take() {
            Value::Null => Ok(answer["value"].take()),
            error => Err(error.as_str().expect("a text").to_owned()),
        };
        // A failed test no longer waits for its answer.
        let _ = waiting.send(result);
    }
    answers.lock().expect("no thread has panicked").clear();
}

/// The browser, for a test that runs beside others. `None`, with a message, if the test is to be skipped.
pub fn shared_browser() -> Option<RwLockReadGuard<'static, ()>> {
    is_available().then(exclusive::shared)
}

/// The browser, for a test that measures: no other test of this binary runs meanwhile.
pub fn exclusive_browser() -> Option<RwLockWriteGuard<'static, ()>> {
    is_available().then(exclusive::exclusive)
}

fn is_available() -> bool {
    match DRIVER.get_or_init(Driver::start) {
        Ok(_) => true,
        Err(Unavailable::NotInstalled(what)) => {
            println!("SKIPPED: {what}");
            false
        }
        Err(Unavailable::Broken(why)) => panic!("{why}"),
    }
}

/// An open page. The driver logs its console output and its requests from the start.
pub struct Page {
    id: u64,
    context: u64,
    /// `http://ADDRESS` of its server, or `https://ADDRESS`.
    origin: String,
}

impl Page {
    /// An empty page, with options of playwright's `newContext`.
    fn blank(origin: String, options: Value) -> Self {
        let opened = ask(with(json!({"op": "open"}), options));
        let number = |name: &str| opened[name].as_u64().expect("a number");
        Self { id: number("page"), context: number("context"), origin }
    }

    /// Opens a path of the server, with a viewport of 1440 by 900 in the light theme.
    pub fn open(server: &Server, path: &str) -> Self {
        Self::open_with(server, path, json!({}))
    }

    pub fn open_with(server: &Server, path: &str, options: Value) -> Self {
        Self::open_at(server.address, path, options)
    }

    /// Opens a path of the server or proxy at this address.
    pub fn open_at(address: SocketAddr, path: &str, options: Value) -> Self {
        let page = Self::blank(format!("http://{address}"), options);
        page.goto(path);
        page
    }

    /// Opens a path by `https://`, or says why the browser does not.
    pub fn open_secured(address: SocketAddr, path: &str) -> Result<Self, String> {
        let page = Self::blank(format!("https://{address}"), json!({}));
        let url = format!("{}{path}", page.origin);
        try_ask(json!({"op": "goto", "page": page.id, "url": url}))?;
        Ok(page)
    }

    /// Opens another tab, which shares the storage.
    pub fn beside(&self, path: &str) -> Self {
        let page = Self::blank(self.origin.clone(), json!({"context": self.context}));
        page.goto(path);
        page
    }

    pub fn goto(&self, path: &str) {
        self.ask("goto", json!({"url": format!("{}{path}", self.origin)}));
    }

    /// The value of an expression, awaited.
    #[track_caller]
    pub fn get(&self, expression: &str) -> Value {
        self.ask("evaluate", json!({"expression": expression}))
    }

    /// Runs statements, and awaits them.
    #[track_caller]
    pub fn run(&self, statements: &str) {
        self.get(&format!("(async () => {{ {statements} }})().then(() => null)"));
    }

    /// Waits until an expression is truthy; returns its value.
    #[track_caller]
    pub fn until(&self, expression: &str) -> Value {
        self.ask("until", json!({"expression": expression, "ms": DEADLINE.as_millis() as u64}))
    }

    #[track_caller]
    pub fn until_live(&self) {
        self.until("document.body?.dataset.connection === 'live'");
    }

    #[track_caller]
    pub fn press(&self, key: &str) {
        self.ask("press", json!({"key": key}));
    }

    #[track_caller]
    pub fn click(&self, selector: &str) {
        self.ask("click", json!({"selector": selector}));
    }

    /// Any other operation of the driver.
    #[track_caller]
    pub fn ask(&self, op: &str, args: Value) -> Value {
        ask(with(json!({"op": op, "page": self.id}), args))
    }

    /// Takes a screenshot of the viewport.
    #[track_caller]
    pub fn screenshot(&self, name: &str) {
        let path = folder().join(format!("{name}.png"));
        self.ask("screenshot", json!({"path": path.display().to_string()}));
        println!("screenshot: {}", path.display());
    }

    /// Asserts that the page had no errors or warnings on the console, except for those with one of the texts in
    /// `allowed`; that its Content-Security-Policy refused nothing; and that it requested nothing from other origins.
    #[track_caller]
    pub fn is_clean(&self, allowed: &[&str]) {
        let log = self.ask("log", json!({}));
        let list = |name: &str| log[name].as_array().expect("a list").clone();
        let is_problem = |message: &&Value| {
            let text = message["text"].as_str().unwrap_or_default();
            let is_severe = matches!(message["type"].as_str(), Some("error" | "warning" | "assert"));
            is_severe && !allowed.iter().any(|part| text.contains(part))
        };
        let console = list("console");
        let problems: Vec<_> = console.iter().filter(is_problem).collect();
        assert!(problems.is_empty(), "on the console: {problems:#?}");
        assert_eq!(log["errors"], json!([]), "uncaught exceptions");
        assert_eq!(self.get("probe.refused"), json!([]), "refused by the Content-Security-Policy");
        let requests = list("requests");
        assert!(!requests.is_empty(), "requests are logged");
        for request in requests {
            let url = request.as_str().expect("a text");
            // `ws:` and `wss:` are `http:` and `https:`.
            let url = url.strip_prefix("ws").map_or(url.to_owned(), |rest| format!("http{rest}"));
            let inside = ["data:", "blob:", &format!("{}/", self.origin)];
            let inside = inside.iter().any(|start| url.starts_with(start));
            assert!(inside, "request to another origin: {url}");
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let name = std::thread::current().name().unwrap_or("test").replace("::", "-");
            let path = folder().join(format!("failed-{name}.png"));
            let page = json!({"op": "screenshot", "page": self.id, "path": path.display().to_string()});
            let log = try_ask(json!({"op": "log", "page": self.id})).unwrap_or_default();
            eprintln!("screenshot: {:?} {}; console: {}", try_ask(page), path.display(), log["console"]);
        }
        let _ = try_ask(json!({"op": "close", "page": self.id}));
    }
}

fn with(mut object: Value, more: Value) -> Value {
    let more = more.as_object().expect("options are an object").clone();
    object.as_object_mut().expect("an object").extend(more);
    object
}

#[track_caller]
fn ask(request: Value) -> Value {
    try_ask(request).unwrap_or_else(|error| panic!("{error}"))
}

/// The answer to a request. The driver has a shorter deadline of its own.
fn try_ask(request: Value) -> Result<Value, String> {
    let driver =
        DRIVER.get().and_then(|driver| driver.as_ref().ok()).expect("a test checks that the browser is available");
    let ended = |error| format!("the driver has exited: {error}");
    match driver.send(request).map_err(ended)?.recv_timeout(2 * DEADLINE + Duration::from_secs(10)) {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Timeout) => Err("the driver does not answer".to_owned()),
        Err(RecvTimeoutError::Disconnected) => Err("the driver has exited".to_owned()),
    }
}
