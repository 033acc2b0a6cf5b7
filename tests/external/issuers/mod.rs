//! The recipes of docs/issuers.md, with an issuer that is seen from outside as Keycloak and Auth0 are: discovery, key
//! sets, tokens of their shape signed by PyJWT, refresh tokens. And what clients and the log say when a login fails:
//! each row of the table in docs/issuers.md.
//!
//! `tests/external/interop/install` installs PyJWT. Without it the tests are reported as skipped.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tickcast_client::{Client, Event, Options, Reply, Subscription, TokenReason, TokenSource};
use tickcast_protocol::Channel;
use tickcast_test_support::exclusive::shared;
use tickcast_test_support::http::{Response, send_request};
use tickcast_test_support::paths;
use tickcast_test_support::server::Server;
use tickcast_test_support::tls::Authority;

use crate::browser::chromium::{Page, shared_browser};

const DEADLINE: Duration = Duration::from_secs(60);
const CERTS: &str = "/realms/quotes/protocol/openid-connect/certs";

/// The issuer's process. It ends with its stdin.
struct Issuer {
    process: Child,
    port: u16,
}

impl Issuer {
    /// `None`, with a message, if PyJWT is not installed.
    fn start(tls: Option<&Authority>) -> Option<Self> {
        let root = paths::repository();
        let mut command = Command::new("python3");
        command
            .arg(root.join("tests/external/issuers/issuer.py"))
            .env("PYTHONPATH", root.join("target/interop/python"));
        command.args(tls.iter().flat_map(|authority| [authority.path("cert.pem"), authority.path("key.pem")]));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().ok()?;
        let mut line = String::new();
        let _ = BufReader::new(process.stdout.take()?).read_line(&mut line);
        match line.trim().parse() {
            Ok(port) => Some(Self { process, port }),
            Err(_) => {
                let _ = process.wait();
                println!("SKIPPED: PyJWT is not installed; see tests/external/interop/install");
                None
            }
        }
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    fn base(&self) -> String {
        format!("http://{}", self.address())
    }

    fn post(&self, path: &str, body: &str) -> Value {
        let (address, length) = (self.address(), body.len());
        let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{body}");
        send_request(address, head.as_bytes()).json()
    }

    fn get(&self, path: &str) -> Value {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address());
        send_request(self.address(), head.as_bytes()).json()
    }

    /// A token with changes to the claims of alice.
    fn sign(&self, changes: &Value) -> String {
        self.post("/sign", &changes.to_string())["token"].as_str().expect("a token").to_owned()
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// The block of docs/issuers.md that begins with this line, with the address of the issuer.
fn recipe(name: &str, base: &str) -> String {
    block("toml", name).replace("https://id.example.com", base)
}

fn block(language: &str, name: &str) -> String {
    let text = std::fs::read_to_string(paths::repository().join("docs/issuers.md")).expect("the recipe");
    let fence = format!("```{language}\n");
    let start = text.find(&format!("{fence}# {name}\n")).expect("the block of the recipe");
    let block = &text[start + fence.len()..];
    block[..block.find("```").expect("its end")].to_owned()
}

fn start(folder: &Path, config: &str, args: &[&str]) -> Server {
    let path = folder.join("tickcast.toml");
    std::fs::write(&path, config).expect("the folder is writable");
    let own = ["--feed", "sim:instruments=20,rate=2000,seed=1", "--log", "info", "--config"];
    Server::start(&[&own[..], &[path.to_str().expect("a path in UTF-8")], args].concat())
}

fn instruments(server: &Server, token: &str) -> Response {
    let address = server.address;
    let head = format!("GET /v1/instruments HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n");
    send_request(address, head.as_bytes())
}

/// Waits until a token is accepted: the keys are read after the start.
fn until_accepted(server: &Server, token: &str) {
    let until = Instant::now() + DEADLINE;
    while instruments(server, token).status != 200 {
        assert!(Instant::now() < until, "{}", instruments(server, token).text());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The next reply that `see` takes.
fn reply_of<T>(client: &mut Client, mut see: impl FnMut(Reply) -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    while Instant::now() < until {
        if let Event::Reply(reply) = client.next().expect("the stream continues")
            && let Some(seen) = see(reply)
        {
            return seen;
        }
    }
    panic!("no such reply within {DEADLINE:?}");
}

/// Discovery, a first token, rights from its claim, and a refresh token for the next one.
fn check_recipe(name: &str, realm: &str, user: &str) {
    let _machine = shared();
    let Some(issuer) = Issuer::start(None) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let config = recipe(name, &issuer.base());
    let server = start(folder.path(), &config, &[]);
    let discovered = issuer.get(&format!("{realm}/.well-known/openid-configuration"));
    for name in ["issuer", "jwks_uri"] {
        let value = discovered[name].as_str().expect("a URL");
        assert!(
            config.contains(&format!("= \"{value}\"")),
            "the recipe has the {name} of discovery, {value}: {config}"
        );
    }
    let endpoint = discovered["token_endpoint"].as_str().expect("a URL").replace(&issuer.base(), "");
    issuer.post("/control", &json!({"lifetime_s": 8}).to_string());
    let granted = Arc::new(Mutex::new(issuer.post(&endpoint, "grant_type=password&username=alice")));
    let token = |granted: &Value, name: &str| granted[name].as_str().expect("a token").to_owned();
    until_accepted(&server, &token(&granted.lock().expect("no panic"), "access_token"));
    let (address, at) = (issuer.address(), endpoint.clone());
    let source = TokenSource::function(move |why| {
        let mut granted = granted.lock().expect("no panic");
        if why.reason != TokenReason::Connect {
            let form = format!("grant_type=refresh_token&refresh_token={}", token(&granted, "refresh_token"));
            let length = form.len();
            let head = format!("POST {at} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{form}");
            *granted = send_request(address, head.as_bytes()).json();
        }
        Ok(token(&granted, "access_token"))
    });
    let options = Options { token: Some(source), ..Options::default() };
    let mut client = Client::connect(&server.address.to_string(), options).expect("a server is there");
    client.subscribe(Subscription::new(&[Channel::Quote, Channel::Ticker], ["BTC-USD", "ETH-USD"]));
    let welcomed = reply_of(&mut client, |reply| match reply {
        Reply::Welcome { user, .. } => user,
        _ => None,
    });
    assert_eq!(welcomed, user);
    let rights = reply_of(&mut client, |reply| match reply {
        Reply::Subscribed { denied, limited, .. } => Some((denied, limited)),
        _ => None,
    });
    assert_eq!(rights, (vec!["ETH-USD".to_owned()], vec!["BTC-USD".to_owned()]), "CRYPTO-L1");
    for _ in 0..2 {
        let dropped = reply_of(&mut client, |reply| match reply {
            Reply::Authenticated { dropped, .. } => Some(dropped),
            _ => None,
        });
        assert_eq!(dropped, Vec::<String>::new());
    }
    assert_eq!(client.reconnects(), 0);
    // A user in no group, whose token has no claim.
    let other = issuer.post(&endpoint, "username=bob");
    let listed = instruments(&server, other["access_token"].as_str().expect("a token")).json();
    let symbols: Vec<_> = listed["instruments"].as_array().expect("a list").iter().map(|one| &one["symbol"]).collect();
    assert_eq!(symbols, ["ETH-USD"], "FREE");
}

#[test]
fn recipe_for_keycloak_works() {
    check_recipe("keycloak", "/realms/quotes", "0b9f1e0a-8a4c-4c55-9d4e-3f1f3f1f2a11");
}

#[test]
fn recipe_for_auth0_works() {
    check_recipe("auth0", "", "auth0|alice");
}

#[test]
fn page_of_another_origin_refreshes_its_token_in_the_browser() {
    let Some(_browser) = shared_browser() else { return };
    let Some(issuer) = Issuer::start(None) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(folder.path(), &recipe("keycloak", &issuer.base()), &["--allow-origin", &issuer.base()]);
    until_accepted(&server, &issuer.sign(&json!({})));
    issuer.post("/control", &json!({"lifetime_s": 6}).to_string());
    let page = Page::open_at(issuer.address(), &format!("/app?server=http://{}", server.address), json!({}));
    page.until("globalThis.dropped?.length >= 4 && client.state('BTC-USD') === 'LIVE'");
    assert_eq!(page.get("[...new Set(reasons)].join()"), "connect,expiring");
    assert_eq!(
        page.get("[client.connection.phase, client.stats.reconnects, client.worker]"),
        json!(["live", 0, "blob"])
    );
    assert_eq!(
        page.get("[quotes.denied, dropped.flat(), location.search.includes('token')]"),
        json!([["ETH-USD"], [], false])
    );
    // With an Authorization header, which a preflight has to allow.
    assert_eq!(page.get("client.fetch('/v1/bars/BTC-USD').then((answer) => answer.status)"), 200);
    assert_eq!(page.get("client.fetch('/v1/bars/ETH-USD').then((answer) => answer.status)"), 403);
    // A page of an origin that is not listed reads nothing, whatever token it has.
    drop(server);
    let server =
        start(folder.path(), &recipe("keycloak", &issuer.base()), &["--allow-origin", "https://app.example.com"]);
    let token = issuer.sign(&json!({}));
    until_accepted(&server, &token);
    let read = format!(
        "fetch('http://{}/v1/instruments', {{ headers: {{ authorization: 'Bearer {token}' }} }})
            .then(() => 'read', () => 'refused')",
        server.address
    );
    assert_eq!(page.get(&read), "refused");
}

/// A row of the table: what a client is told, and what the log says.
struct Row {
    what: &'static str,
    status: u16,
    told: &'static str,
    logged: &'static str,
}

/// Asserts that docs/issuers.md has the row with these texts.
#[track_caller]
fn assert_documented(row: &Row) {
    let text = std::fs::read_to_string(paths::repository().join("docs/issuers.md")).expect("the table");
    let line = text.lines().find(|line| line.starts_with('|') && line.contains(row.what));
    let line = line.unwrap_or_else(|| panic!("docs/issuers.md has no row of {:?}", row.what));
    for part in [format!("{} `{}`", row.status, row.told), format!("`{}", row.logged)] {
        assert!(line.contains(&part), "the row of {:?} lacks {part:?}: {line}", row.what);
    }
}

#[test]
fn token_that_is_refused_is_told_and_logged_as_documented() {
    let _machine = shared();
    let Some(issuer) = Issuer::start(None) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(folder.path(), &recipe("keycloak", &issuer.base()), &[]);
    until_accepted(&server, &issuer.sign(&json!({})));
    const INVALID: &str = "token: not valid";
    let row = |what, told, logged| Row { what, status: 401, told, logged };
    let expired = "token: expired: expected a new one";
    let rights = "token: its rights are not understood by this server";
    let later = json!({"times": {"iat": 120, "exp": 420}});
    let cases = [
        (row("a key that is not the issuer's", INVALID, "invalid: InvalidSignature"), json!({"foreign": true})),
        (row("keys were rotated", INVALID, "invalid: no key has the algorithm"), json!({"kid": "sig-2"})),
        (
            row("`iss` of another realm", INVALID, "is no issuer of the configuration"),
            json!({"claims": {"iss": issuer.base()}}),
        ),
        (row("no audience mapper", INVALID, "invalid: aud: expected one of"), json!({"claims": {"aud": "account"}})),
        (row("the clock of the issuer is ahead", INVALID, "in the future; is the clock of this machine right?"), later),
        (
            row("the clock of the server is ahead", expired, "expired: exp: "),
            json!({"times": {"iat": -400, "exp": -40}}),
        ),
        (row("a life of more than", INVALID, "lifetime_max_s is 3600"), json!({"times": {"exp": 4000}})),
        (row("a product that", rights, "rights: user "), json!({"claims": {"tickcast": {"products": ["NONE"]}}})),
    ];
    for (row, changes) in &cases {
        let token = issuer.sign(changes);
        instruments(&server, &token).assert_refusal(row.status, "unauthorized", &[row.told]);
        server.program.wait_for_stderr(row.logged);
        assert_documented(row);
        assert_eq!(
            instruments(&server, &issuer.sign(&json!({}))).status,
            200,
            "{}: no other token is concerned",
            row.what
        );
    }
    // Clocks that differ by less than leeway_s.
    for times in [json!({"iat": 20, "exp": 320}), json!({"iat": -320, "exp": -20})] {
        assert_eq!(instruments(&server, &issuer.sign(&json!({ "times": times }))).status, 200);
    }
    let opaque = row("an opaque token", INVALID, "invalid: not a token");
    // Until the address has presented too many.
    loop {
        let refused = instruments(&server, "2jmj7l5rSw0yVb_vlWAYkK_YBwk");
        if refused.status == 429 {
            break;
        }
        refused.assert_refusal(opaque.status, "unauthorized", &[opaque.told]);
    }
    server.program.wait_for_stderr(opaque.logged);
    assert_documented(&opaque);
    let many =
        Row { what: "more than ten tokens", status: 429, told: "too many wrong tokens from this address", logged: "" };
    instruments(&server, &issuer.sign(&json!({}))).assert_refusal(many.status, "limit", &[many.told]);
    let text = std::fs::read_to_string(paths::repository().join("docs/issuers.md")).expect("the table");
    assert!(text.contains(&format!("429 `{}`", many.told)));
    assert_eq!(server.stop(Signal::TERM).code, Some(0));
}

/// A server whose issuer has these keys at `url`: a client is told as documented, and the log has the reason.
fn check_without_keys(issuer: &Issuer, url: &str, more: &str, what: &'static str, reason: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let config = recipe("keycloak", &issuer.base());
    let line = config.lines().find(|line| line.starts_with("jwks_url")).expect("a line of the recipe").to_owned();
    let server = start(folder.path(), &config.replace(&line, &format!("jwks_url = \"{url}\"\n{more}")), &[]);
    let told = "token: the keys of its issuer are not known now";
    let row = Row { what, status: 503, told, logged: "its keys cannot be read: " };
    server.program.wait_for_stderr("issuer keycloak: its keys cannot be read: ");
    server.program.wait_for_stderr(reason);
    let refused = instruments(&server, &issuer.sign(&json!({})));
    assert_eq!((refused.status, refused.header("retry-after")), (row.status, Some("5")), "{what}: {}", refused.text());
    assert!(refused.text().contains(row.told), "{}", refused.text());
    assert_documented(&row);
    server.wait_for_metric("tickcast_jwks_fetches_failed_total", |failed| failed >= 1);
    assert!(
        server.get("/readyz").text().contains("keycloak")
            || server.metric_values("tickcast_issuers_without_keys") == [1]
    );
}

#[test]
fn keys_that_cannot_be_read_are_told_and_logged_as_documented() {
    let _machine = shared();
    let authority = Authority::new();
    authority.expire(&["localhost"]);
    let (Some(issuer), Some(expired)) = (Issuer::start(None), Issuer::start(Some(&authority))) else { return };
    let at = |issuer: &Issuer| format!("https://localhost:{}{CERTS}", issuer.port);
    let own = format!("ca_file = {:?}", authority.path("ca.pem"));
    let of_certificates = "the issuer's certificate has expired";
    check_without_keys(&issuer, &at(&expired), &own, of_certificates, "expired");
    authority.renew(&["localhost"]);
    let Some(good) = Issuer::start(Some(&authority)) else { return };
    check_without_keys(&issuer, &at(&good), "", of_certificates, "authority");
    authority.renew(&["elsewhere.example.com"]);
    let Some(named) = Issuer::start(Some(&authority)) else { return };
    check_without_keys(&issuer, &at(&named), &own, of_certificates, "elsewhere.example.com");
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let unreachable = format!("http://{closed}{CERTS}");
    check_without_keys(&issuer, &unreachable, "", "the issuer cannot be reached", "refused");
    let plain = format!("{}{CERTS}", issuer.base());
    for (fault, reason) in [("500", "500"), ("html", "JSON"), ("none", "key"), ("huge", "bytes")] {
        issuer.post("/control", &json!({ "fault": fault }).to_string());
        check_without_keys(&issuer, &plain, "", "the issuer answers with an error", reason);
    }
    issuer.post("/control", &json!({ "fault": null }).to_string());
    // A trusted certificate with the right name: the same configuration as above, and the keys of another issuer.
    let folder = tempfile::tempdir().expect("a folder");
    authority.renew(&["localhost"]);
    let Some(right) = Issuer::start(Some(&authority)) else { return };
    let base = format!("https://localhost:{}", right.port);
    let config = recipe("keycloak", &base).replace("algorithms =", &format!("{own}\nalgorithms ="));
    let server = start(folder.path(), &config, &[]);
    server.wait_for_metric("tickcast_jwks_fetches_total", |fetches| fetches >= 1);
    assert_eq!(server.metric_values("tickcast_jwks_fetches_failed_total"), [0]);
}

/// The authorizer of the recipe. It is ended with its handle.
struct Authorizer(Child);

impl Drop for Authorizer {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn authorizer_of_the_recipe_lets_in_whom_it_knows_and_others_are_told_as_documented() {
    let _machine = shared();
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("authorizer.py");
    std::fs::write(&program, block("python", "authorizer")).expect("the folder is writable");
    let mut command = Command::new("python3");
    let spawned = command.arg(&program).arg("0").stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
    let Ok(mut authorizer) = spawned.map(Authorizer) else { return println!("SKIPPED: there is no python3") };
    let mut line = String::new();
    let stdout = authorizer.0.stdout.take().expect("it is piped");
    BufReader::new(stdout).read_line(&mut line).expect("it says its port");
    let port: u16 = line.trim().parse().expect("a port");
    let config = block("toml", "authorizer").replace("127.0.0.1:9005", &format!("127.0.0.1:{port}"));
    let server = start(folder.path(), &config, &[]);
    for _ in 0..3 {
        let listed = instruments(&server, "session-7f3c0a91d2e4").json();
        let symbols = listed["instruments"].as_array().expect("a list").iter();
        let symbols: Vec<_> = symbols.map(|instrument| instrument["symbol"].as_str().expect("a name")).collect();
        assert!(!symbols.is_empty() && symbols.iter().all(|symbol| symbol.starts_with("BTC-")), "{symbols:?}");
    }
    let row = |what, status, told, logged| Row { what, status, told, logged };
    let unreachable = "an authorizer: not reached";
    for (token, code, row) in [
        (
            "session-of-nobody-at-all",
            "unauthorized",
            row(
                "an authorizer: it has answered 401",
                401,
                "token: not valid",
                "invalid: the authorizer has answered 401",
            ),
        ),
        (
            "session-b81e55f0c377",
            "forbidden",
            row(
                "an authorizer: it has answered 403",
                403,
                "token: its user may not connect",
                "forbidden: the authorizer has answered 403",
            ),
        ),
        (
            "session-after-its-end",
            "unavailable",
            row(unreachable, 503, "token: it cannot be checked now: try again later", "authorizer: "),
        ),
    ] {
        if row.what == unreachable {
            authorizer.0.kill().expect("it runs");
            authorizer.0.wait().expect("it ends");
        }
        instruments(&server, token).assert_refusal(row.status, code, &[row.told]);
        server.program.wait_for_stderr(row.logged);
        assert_documented(&row);
    }
}
