//! The usage log and its report: what the program writes while clients come and go is compared with what the test has
//! seen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tickcast_test_support::client::Client;
use tickcast_test_support::server::{Exit, Program};

use crate::access::{API_KEY, Quotes, claims, operator, reply_of, signed, subscribe, token};

const MORE: &str = "[[product]]\nname = 'GOLD'\nrights.allow = [{ symbols = ['XAU-*'] }]\n";
/// Longer than a machine under load needs.
const DEADLINE: Duration = Duration::from_secs(60);

fn start(folder: tempfile::TempDir, dir: &Path, args: &[&str]) -> Quotes {
    let dir = dir.to_str().expect("a path in UTF-8");
    Quotes::in_folder(folder, MORE, &[&["--cores", "0,1", "--usage-dir", dir], args].concat())
}

/// All lines of the log, in order. Lines that are no JSON are left out.
fn lines(dir: &Path) -> Vec<Value> {
    let mut files: Vec<_> =
        std::fs::read_dir(dir).expect("the folder").map(|entry| entry.expect("a file").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    let texts = files.iter().map(|file| std::fs::read_to_string(file).expect("text"));
    texts.collect::<String>().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Waits for a line.
fn wait_for(dir: &Path, is_it: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + DEADLINE;
    loop {
        let lines = lines(dir);
        if let Some(line) = lines.iter().find(|line| is_it(line)) {
            return line.clone();
        }
        assert!(Instant::now() < until, "{lines:#?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is(line: &Value, event: &str, user: &str) -> bool {
    line["event"] == event && line["user"] == user
}

fn report(dir: &Path, args: &[&str]) -> Exit {
    let month = lines(dir)[0]["at"].as_str().expect("a time")[..7].to_owned();
    let dir = dir.to_str().expect("a path in UTF-8");
    Program::run(&[&["usage", "report", "--dir", dir, "--month", &month], args].concat())
}

fn of(products: &[&str], professional: Option<bool>) -> Value {
    let mut rights = json!({"products": products});
    if let Some(professional) = professional {
        rights["professional"] = json!(professional);
    }
    rights
}

/// What the test itself has seen of a product.
#[derive(Default)]
struct Seen {
    professional: BTreeSet<String>,
    non_professional: BTreeSet<String>,
    unclassified: BTreeSet<String>,
    present: u64,
    peak: u64,
}

/// The sessions that the test has opened, and what it has seen of each product.
struct Test {
    quotes: Quotes,
    seen: BTreeMap<String, Seen>,
    open: Vec<(String, Value, Client)>,
}

impl Test {
    fn note(&mut self, user: &str, rights: &Value, by: i64) {
        for product in rights["products"].as_array().expect("products") {
            let seen = self.seen.entry(product.as_str().expect("a name").to_owned()).or_default();
            match rights["professional"].as_bool() {
                Some(true) => seen.professional.insert(user.to_owned()),
                Some(false) => seen.non_professional.insert(user.to_owned()),
                None => seen.unclassified.insert(user.to_owned()),
            };
            seen.present = seen.present.strict_add_signed(by);
            seen.peak = seen.peak.max(seen.present);
        }
    }

    fn open(&mut self, user: &str, rights: Value) -> &mut Client {
        let (client, _) = self.quotes.stream(&token(user, rights.clone()));
        self.note(user, &rights, 1);
        self.open.push((user.to_owned(), rights, client));
        self.settle();
        &mut self.open.last_mut().expect("it was just pushed").2
    }

    /// The oldest session leaves.
    fn close(&mut self) {
        let (user, rights, mut client) = self.open.remove(0);
        client.send(tungstenite::Message::Close(None));
        self.note(&user, &rights, -1);
        self.settle();
    }

    /// The newest session gets another token.
    fn refresh(&mut self, rights: Value) {
        let (user, before, mut client) = self.open.pop().expect("one is open");
        client.send_text(&json!({"op": "auth", "id": 9, "token": token(&user, rights.clone())}).to_string());
        reply_of(&mut client, "authenticated");
        self.note(&user, &before, -1);
        self.note(&user, &rights, 1);
        self.open.push((user, rights, client));
    }

    fn settle(&self) {
        let open = self.open.len() as u64;
        self.quotes.server.wait_for_metric("tickcast_sessions", |sessions| sessions == open);
    }
}

#[test]
fn report_equals_what_the_test_has_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("usage");
    // Small files: the report reads several.
    let quotes = start(folder, &dir, &["--usage-bytes-max", "4096"]);
    let mut test = Test { quotes, seen: BTreeMap::new(), open: Vec::new() };
    for _ in 0..3 {
        for user in ["a", "b", "c", "d"] {
            let flag = match user {
                "a" => Some(true),
                "d" => None,
                _ => Some(false),
            };
            test.open(user, of(if user == "c" { &["BTC", "GOLD"] } else { &["BTC"] }, flag));
        }
        test.refresh(of(&["GOLD"], None));
        test.close();
        test.close();
    }
    let odd = "x\"},{\"kind\":\"usage\",\u{2028}é";
    test.open(odd, of(&["GOLD"], Some(true)));
    let Test { quotes, seen, open } = test;
    assert_eq!(quotes.server.stop(Signal::TERM).code, Some(0));
    drop(open);
    let json = report(&dir, &["--json"]);
    let read: Value = serde_json::from_str(&json.stdout).unwrap_or_else(|error| panic!("{error}: {json:?}"));
    assert_eq!((&read["unread"]["lines"], json.code), (&json!(0), Some(0)), "{read}");
    assert!(read["files"].as_u64().is_some_and(|files| files > 2), "{read}");
    let products = read["products"].as_array().expect("a list");
    assert_eq!(products.len(), seen.len(), "{read}");
    for product in products {
        let seen = &seen[product["product"].as_str().expect("a name")];
        let counts = ["professional", "non_professional", "unclassified"].map(|class| product[class].as_u64());
        let expected =
            [&seen.professional, &seen.non_professional, &seen.unclassified].map(|users| Some(users.len() as u64));
        assert_eq!((counts, product["peak_sessions"].as_u64()), (expected, Some(seen.peak)), "{product}");
    }
    assert_eq!(read["all"]["users"], 5, "{read}");
    let csv = report(&dir, &["--csv"]).stdout;
    assert!(csv.starts_with("product,delay_s,professional,") && csv.contains("\nGOLD,0,1,1,1,3,"), "{csv}");
    let table = report(&dir, &[]).stdout;
    assert!(table.contains("BTC ") && table.contains("(all)"), "{table}");
    // Each session that was opened was closed, by a line that has all of it.
    let lines = lines(&dir);
    let of_event = |event: &str| lines.iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
    let closed = of_event("closed");
    assert_eq!((of_event("opened").len(), closed.len(), of_event("changed").len()), (13, 13, 3));
    for line in &closed {
        let is_whole =
            ["session", "user", "address", "from", "to", "reason", "products"].iter().all(|key| !line[key].is_null());
        assert!(is_whole && line["address"] == "127.0.0.1", "{line}");
    }
    assert!(closed.iter().any(|line| line["user"] == odd && line["reason"] == "going_away"), "{closed:?}");
    assert_eq!(closed.iter().filter(|line| line["reason"] == "closed_by_client").count(), 6);
    let changed = of_event("changed")[0];
    assert_eq!((&changed["gained"], &changed["lost"]), (&json!(["GOLD"]), &json!(["BTC"])), "{changed}");
    let text = std::fs::read_to_string(dir.join("usage.lock")).expect("the lock");
    assert!(text.is_empty());
}

#[test]
fn what_concerns_security_is_logged_without_a_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("usage");
    let quotes = start(folder, &dir, &["--token-grace-s", "0"]);
    let mut short = claims("short", of(&["BTC"], None));
    short["exp"] = json!(short["iat"].as_u64().expect("a time") + 2);
    let (expired, forged) = (signed(&short), token("u1", of(&["NONE"], None)));
    let (mut short, _) = quotes.stream(&expired);
    let one = token("u1", json!({"products": ["BTC"], "max_connections": 1}));
    let (mut client, _) = quotes.stream(&one);
    subscribe(&mut client, &["XAU-USD", "BTC-USD"]);
    let (_second, _) = quotes.stream(&one);
    client.expect_close(4005, &["at most 1"]);
    quotes.get(Some(&forged), "/v1/instruments").assert_refusal(401, "unauthorized", &["its rights"]);
    quotes.get(Some("a.b.c"), "/v1/instruments").assert_refusal(401, "unauthorized", &["not valid"]);
    quotes.get(Some("wrong-operator-token"), "/v1/operator").assert_refusal(401, "unauthorized", &["wrong value"]);
    quotes.get(Some(&one), "/v1/snapshot/XAU-USD").assert_refusal(403, "forbidden", &["not among your rights"]);
    assert_eq!(quotes.revoke("user=u1", &operator()).status, 200);
    quotes.get(Some(&one), "/v1/instruments").assert_refusal(401, "unauthorized", &["revoked"]);
    assert_eq!(reply_of(&mut short, "closing")["reason"], "credentials_expired");
    let robot = quotes.stream(API_KEY).0;
    let keys = quotes.folder.path().join("keys.toml");
    let other = "0".repeat(64);
    std::fs::write(&keys, format!("[[key]]\nuser = 'robot'\nsha256 = '{other}'\n")).expect("written");
    quotes.server.program.signal(Signal::HUP);
    robot.expect_close(4001, &["the settings have changed"]);
    wait_for(&dir, |line| is(line, "closed", "robot"));
    wait_for(&dir, |line| is(line, "closed", "short") && line["reason"] == "credentials_expired");
    let all = lines(&dir);
    let revoked = all.iter().find(|line| is(line, "closed", "u1") && line["detail"] == "the credential was revoked");
    assert!(revoked.is_some(), "{all:#?}");
    for (event, cause, detail) in [
        ("rights_refused", "not_allowed", ""),
        ("session_ended", "session_limit", "at most 1"),
        ("login_failed", "subscribe", "rights: "),
        ("login_failed", "subscribe", "invalid: "),
        ("login_failed", "subscribe", "revoked: "),
        ("login_failed", "operator", "invalid"),
        ("request_refused", "forbidden", "XAU-USD"),
        ("revoked", "operator", "\"user\":\"u1\""),
        ("session_ended", "credentials_expired", "the credential was revoked"),
        ("session_ended", "credentials_expired", "the token has expired"),
        ("rights_reloaded", "", "1 API keys"),
        ("session_ended", "credentials_expired", "the settings have changed"),
    ] {
        let is_it = |line: &&Value| {
            line["kind"] == "security"
                && line["event"] == event
                && line["cause"].as_str().unwrap_or_default() == cause
                && line["detail"].as_str().unwrap_or_default().contains(detail)
        };
        let line = all.iter().find(is_it).unwrap_or_else(|| panic!("{event} {cause} {detail}: {all:#?}"));
        let has_address = line["address"] == "127.0.0.1";
        assert!(has_address || event == "rights_reloaded", "{line}");
    }
    let denied = all.iter().find(|line| line["event"] == "rights_refused").expect("it is there");
    assert_eq!((&denied["names"], &denied["count"], &denied["user"]), (&json!(["XAU-USD"]), &json!(1), &json!("u1")));
    let text: String = all.iter().map(Value::to_string).collect();
    for secret in [&expired, &forged, &one] {
        assert!(secret.split('.').skip(1).all(|part| !text.contains(part)), "{text}");
    }
    assert!(!text.contains(API_KEY) && !text.contains("wrong-operator-token"), "{text}");
}

#[test]
fn log_goes_on_after_a_kill_and_one_server_has_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("usage");
    let quotes = start(folder, &dir, &[]);
    let (_one, _) = quotes.stream(&token("u1", of(&["BTC"], Some(true))));
    let first = wait_for(&dir, |line| is(line, "opened", "u1"));
    // Another server may not write to it.
    let text = dir.to_str().expect("a path in UTF-8");
    let second = Program::run(&["--listen", "127.0.0.1:0", "--feed", "none", "--usage-dir", text]);
    assert_eq!(second.code, Some(2), "{second:?}");
    assert!(second.stderr.contains("another server writes its log here: expected a folder of its own"), "{second:?}");
    let Quotes { folder, server, .. } = quotes;
    server.stop(Signal::KILL);
    // What a kill in the middle of a line leaves.
    let file = std::fs::read_dir(&dir).expect("the folder").map(|entry| entry.expect("a file").path());
    let file = file.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl")).last();
    let file = file.expect("a file of the log");
    let torn = std::fs::read_to_string(&file).expect("text") + "{\"at\":\"2026-";
    std::fs::write(&file, torn).expect("written");
    let quotes = start(folder, &dir, &[]);
    let (two, _) = quotes.stream(&token("u2", of(&["BTC"], Some(false))));
    let next = wait_for(&dir, |line| is(line, "opened", "u2"));
    assert_ne!(next["session"].as_str().expect("a name")[..8], first["session"].as_str().expect("a name")[..8]);
    drop(two);
    wait_for(&dir, |line| is(line, "closed", "u2") && line["reason"] == "disconnected");
    assert_eq!(quotes.server.stop(Signal::TERM).code, Some(0));
    let Exit { stdout, code, .. } = report(&dir, &["--json"]);
    let read: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((&read["unread"]["lines"], code), (&json!(1), Some(0)), "{read}");
    let product = &read["products"][0];
    assert_eq!((&product["professional"], &product["non_professional"]), (&json!(1), &json!(1)), "{read}");
    assert_eq!(product["peak_sessions"], 1, "the sessions of the server that was killed have ended: {read}");
    assert!(report(&dir, &[]).stdout.contains("1 lines could not be read"));
    let wrong = Program::run(&["usage", "report", "--dir", text, "--month", "2026-13"]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("expected one such as 2026-11"), "{wrong:?}");
    let empty = Program::run(&["usage", "report", "--dir", "/", "--month", "2026-11"]);
    assert!(empty.code == Some(2) && empty.stderr.contains("no usage log"), "{empty:?}");
}
