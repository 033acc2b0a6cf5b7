//! One headless Chromium for all tests of this program, behind `driver.mjs`, and pages in it.

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

type Answers = Arc<Mutex<HashMap<u64, Sender<Result<Value, String>>>>>;

/// The driver's process. It ends with its stdin, which is this process's to close, however that ends.
struct Driver {
    input: Mutex<(ChildStdin, u64)>,
    answers: Answers,
    _child: Child,
}

/// Why there is no driver.
enum Lack {
    /// Something is not installed, and tests are skipped.
    Absent(&'static str),
    /// All is there and does not start, which is a failure.
    Broken(String),
}

static DRIVER: OnceLock<Result<Driver, Lack>> = OnceLock::new();

/// Where `tests/external/browser/install` puts things, and where pictures go.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/browser")
}

/// True if node is there and as new as playwright-core wants it.
fn has_node() -> bool {
    let is_new = "process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)";
    Command::new("node").args(["-e", is_new]).status().is_ok_and(|status| status.success())
}

/// Pictures of what failed in another run say nothing of this one.
fn forget_failures() {
    let failed = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("failed-"));
    let files = std::fs::read_dir(folder()).into_iter().flatten().flatten().map(|entry| entry.path());
    files.filter(|path| failed(path)).for_each(|path| _ = std::fs::remove_file(path));
}

impl Driver {
    /// Starts node, playwright-core and Chromium.
    fn start() -> Result<Self, Lack> {
        let installed = folder();
        if !has_node() {
            return Err(Lack::Absent("no node of version 20 or newer"));
        }
        if !installed.join("installed.json").exists() {
            return Err(Lack::Absent("no playwright-core; see tests/external/browser/install"));
        }
        let browsers = ["chromium", "chromium-browser", "google-chrome"];
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let browser = std::env::split_paths(&paths)
            .flat_map(|folder| browsers.map(|name| folder.join(name)))
            .find(|path| path.exists())
            .ok_or(Lack::Absent("no chromium; apt-get install chromium"))?;
        forget_failures();
        let mut child = Command::new("node")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/external/browser/driver.mjs"))
            .args([&installed, &browser])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Lack::Broken(format!("node: {error}")))?;
        let answers = Answers::default();
        let (sender, started) = channel();
        answers.lock().expect("no thread has panicked").insert(0, sender);
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let waiting = answers.clone();
        std::thread::spawn(move || hear(output, &waiting));
        match started.recv_timeout(DEADLINE) {
            Ok(Ok(version)) => println!("Chromium {version}"),
            _ => return Err(Lack::Broken(format!("{} does not start", browser.display()))),
        }
        Ok(Self { input: Mutex::new((input, 0)), answers, _child: child })
    }

    /// Where the answer will be; an error where the driver has ended.
    fn ask(&self, mut request: Value) -> std::io::Result<Receiver<Result<Value, String>>> {
        let (sender, answer) = channel();
        let mut input = self.input.lock().expect("no thread has panicked");
        input.1 += 1;
        request["id"] = input.1.into();
        self.answers.lock().expect("no thread has panicked").insert(input.1, sender);
        writeln!(input.0, "{request}")?;
        Ok(answer)
    }
}

/// Hands answers to who waits for them, until the driver ends.
fn hear(output: impl BufRead, answers: &Answers) {
    for line in output.lines().map_while(Result::ok) {
        let mut answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let id = answer["id"].as_u64().expect("a number");
        let Some(waiting) = answers.lock().expect("no thread has panicked").remove(&id) else { continue };
        let said = match answer["error"].take() {
            Value::Null => Ok(answer["value"].take()),
            error => Err(error.as_str().expect("a text").to_owned()),
        };
        // Nobody waits any more where a test has failed.
        let _ = waiting.send(said);
    }
    answers.lock().expect("no thread has panicked").clear();
}

/// A test's turn, where there is a browser to test in; says that the test is skipped otherwise.
pub fn tick() -> Option<RwLockReadGuard<'static, ()>> {
    is_there().then(exclusive::shared)
}

/// The turn of a test that measures: no other one of this program runs meanwhile.
pub fn tick_alone() -> Option<RwLockWriteGuard<'static, ()>> {
    is_there().then(exclusive::exclusive)
}

fn is_there() -> bool {
    match DRIVER.get_or_init(Driver::start) {
        Ok(_) => true,
        Err(Lack::Absent(what)) => {
            println!("SKIPPED: {what}");
            false
        }
        Err(Lack::Broken(why)) => panic!("{why}"),
    }
}

/// An open page. What was said on its console and asked for over the network is kept from its beginning.
pub struct Page {
    id: u64,
    context: u64,
    /// `http://ADDRESS` of the server whose page it is.
    origin: String,
}

impl Page {
    /// An empty page with these options of playwright's `newContext`.
    fn blank(server: &str, options: Value) -> Self {
        let opened = ask(with(json!({"op": "open"}), options));
        let number = |name: &str| opened[name].as_u64().expect("a number");
        Self { id: number("page"), context: number("context"), origin: format!("http://{server}") }
    }

    /// The server's page at this address behind the origin, on a screen of 1440 by 900, in the light.
    pub fn open(server: &Server, path: &str) -> Self {
        Self::open_with(server, path, json!({}))
    }

    pub fn open_with(server: &Server, path: &str, options: Value) -> Self {
        Self::open_at(server.address, path, options)
    }

    /// The page of whoever serves at this address.
    pub fn open_at(address: SocketAddr, path: &str, options: Value) -> Self {
        let page = Self::blank(&address.to_string(), options);
        page.goto(path);
        page
    }

    /// A page beside this one: the same storage, another tab.
    pub fn beside(&self, path: &str) -> Self {
        let page = Self::blank(self.origin.trim_start_matches("http://"), json!({"context": self.context}));
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

    /// Runs statements, and waits for what the last of them promises.
    #[track_caller]
    pub fn run(&self, statements: &str) {
        self.get(&format!("(async () => {{ {statements} }})().then(() => null)"));
    }

    /// Waits until an expression is true in JavaScript's sense; its value.
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

    /// Takes a picture of what is in view.
    #[track_caller]
    pub fn picture(&self, name: &str) {
        let path = folder().join(format!("{name}.png"));
        self.ask("screenshot", json!({"path": path.display().to_string()}));
        println!("picture: {}", path.display());
    }

    /// Holds the page to what every page owes: no error and no warning on the console, but for those that contain one
    /// of `allowed`; nothing refused by the policy; nothing asked of anybody but the server.
    #[track_caller]
    pub fn is_clean(&self, allowed: &[&str]) {
        let log = self.ask("log", json!({}));
        let list = |name: &str| log[name].as_array().expect("a list").clone();
        let told = |said: &&Value| {
            let text = said["text"].as_str().unwrap_or_default();
            let matters = matches!(said["type"].as_str(), Some("error" | "warning" | "assert"));
            matters && !allowed.iter().any(|part| text.contains(part))
        };
        let said: Vec<_> = list("console");
        let said: Vec<_> = said.iter().filter(told).collect();
        assert!(said.is_empty(), "on the console: {said:#?}");
        assert_eq!(log["errors"], json!([]), "thrown and not caught");
        assert_eq!(self.get("probe.refused"), json!([]), "refused by the Content-Security-Policy");
        let requests = list("requests");
        assert!(!requests.is_empty(), "its requests are seen");
        for request in requests {
            let url = request.as_str().expect("a text").replacen("ws://", "http://", 1);
            let inside = ["data:", "blob:", &format!("{}/", self.origin)];
            let inside = inside.iter().any(|start| url.starts_with(start));
            assert!(inside, "{url} was asked for");
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
            eprintln!("picture: {:?} {}; console: {}", try_ask(page), path.display(), log["console"]);
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

/// The answer to a request. The driver has a deadline of its own, which is the sooner one.
fn try_ask(request: Value) -> Result<Value, String> {
    let driver = DRIVER.get().and_then(|driver| driver.as_ref().ok()).expect("a test looks whether it is there");
    let ended = |error| format!("the driver has ended: {error}");
    match driver.ask(request).map_err(ended)?.recv_timeout(2 * DEADLINE + Duration::from_secs(10)) {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Timeout) => Err("the driver does not answer".to_owned()),
        Err(RecvTimeoutError::Disconnected) => Err("the driver has ended".to_owned()),
    }
}
