//! The login state of the page, on servers that identify their clients.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::chromium::{Page, shared_browser};
use tickcast_test_support::http::send_request;
use tickcast_test_support::server::{Program, Server};

const SECRET: &str = "a-secret-of-the-tests-with-32-bytes-or-more";
const OPERATOR: &str = "token-of-the-operator";
const API_KEY: &str = "tk_0123456789abcdefghijkl";
/// From `printf %s tk_0123456789abcdefghijkl | sha256sum`.
const API_KEY_HASH: &str = "c86c87391a7fcc737daeb776aae8afd2aa885ac48c6ed585ec5709686666eb47";
const TOKEN_FIELD: &str = "[data-field=login-token]";

fn start(more: &str, args: &[&str]) -> (tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("the folder is writable");
        path.to_str().expect("a path in UTF-8").to_owned()
    };
    let secret = file("secret", SECRET);
    let keys =
        format!("[[key]]\nuser = 'robot'\nsha256 = '{API_KEY_HASH}'\nrights.allow = [{{ symbols = ['BTC-USD'] }}]");
    let keys = file("keys.toml", &keys);
    let issuer = format!(
        "[[issuer]]\nname = 'test'\niss = 'https://id.example.com'\naudience = ['tickcast']\nalgorithms = ['HS256']\n\
         secret_file = '{secret}'\nleeway_s = 0\n{more}"
    );
    let config = file("tickcast.toml", &issuer);
    let own = [
        "--listen",
        "127.0.0.1:0",
        "--feed",
        "sim:instruments=20,rate=500,seed=1",
        "--operator-token",
        OPERATOR,
        "--config",
        &config,
        "--api-keys-file",
        &keys,
    ];
    let server = Server::spawn(Program::command(&[&own[..], args].concat()));
    (folder, server)
}

fn token(user: &str, seconds: u64, rights: &Value) -> String {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = json!({
        "iss": "https://id.example.com", "aud": "tickcast", "sub": user, "iat": now_s, "exp": now_s + seconds,
        "tickcast": rights
    });
    let key = EncodingKey::from_secret(SECRET.as_bytes()).expect("a secret");
    encode(&Header::new(Algorithm::HS256), &claims, &key).expect("claims")
}

fn everything() -> Value {
    json!({"allow": [{"symbols": ["*"]}]})
}

/// Types a credential into the open dialog.
fn log_in(page: &Page, credential: &str) {
    page.until(&format!("document.activeElement === document.querySelector('{TOKEN_FIELD}')"));
    page.ask("type", json!({ "text": credential }));
    page.press("Enter");
}

fn is_open(page: &Page, open: bool) {
    page.until(&format!("document.querySelector('[data-panel=login]').open === {open}"));
}

fn is_live(page: &Page, user: &str) {
    page.until("document.body.dataset.connection === 'live'");
    page.until(&format!("probe.text('[data-action=login]') === '{user}'"));
}

/// No address, storage between visits or cookie has the credential.
fn assert_kept_for_the_tab(page: &Page, credential: &str) {
    let kept = "JSON.stringify(localStorage) + document.cookie + location.href";
    assert_eq!(page.get(&format!("({kept}).includes('{credential}')")), false);
    assert_eq!(page.get(&format!("JSON.stringify(sessionStorage).includes('{credential}')")), true);
    let addresses = page.ask("log", json!({}))["requests"].to_string();
    assert!(!addresses.contains(credential), "{addresses}");
}

#[test]
fn page_asks_for_a_token_and_says_who_is_logged_in_and_what_is_not_shown() {
    let Some(_browser) = shared_browser() else { return };
    let (_folder, server) = start("", &[]);
    let page = Page::open(&server, "/");
    is_open(&page, true);
    page.until("probe.text('[data-field=login-state]') === 'Not logged in. This server needs a token or an API key.'");
    page.until("probe.text('[data-field=banner-title]') === 'Log in to see prices.'");
    page.screenshot("login");
    assert_eq!(page.ask("violations", json!({})), json!([]));
    log_in(&page, "wrong");
    page.until("probe.text('[data-field=login-message]').includes('did not accept the token: not valid')");
    page.screenshot("login-refused");
    // Dismissed and opened again by keys alone.
    page.press("Escape");
    is_open(&page, false);
    page.run("document.querySelector('[data-action=login-banner]').focus()");
    page.press("Enter");
    is_open(&page, true);
    let rights = json!({"allow": [
        {"symbols": ["BTC-*", "ETH-USD"], "channels": ["quote", "trade", "ticker"]}, {"symbols": ["*"], "delay_s": 900}
    ]});
    let own = token("u-17", 600, &rights);
    log_in(&page, &own);
    is_open(&page, false);
    is_live(&page, "u-17");
    page.until("probe.rows().includes('BTC-USD') && probe.rows().every((symbol) => /^(BTC-|ETH-USD)/.test(symbol))");
    page.until("probe.text('[data-field=rights]').startsWith('Some symbols or channels are not among your rights')");
    page.until("probe.text('[data-field=ladder-note]').includes('delayed depth')");
    page.until("Number(document.querySelector('[data-panel=chart]').dataset.bars) > 0");
    page.click("[data-action=login]");
    page.until("/^Logged in as u-17. It expires in 9 min/.test(probe.text('[data-field=login-state]'))");
    page.screenshot("login-user");
    assert_eq!(page.ask("violations", json!({})), json!([]));
    page.ask("emulate", json!({"media": {"colorScheme": "dark"}}));
    page.screenshot("login-user-dark");
    assert_eq!(page.ask("violations", json!({})), json!([]));
    page.press("Escape");
    assert_kept_for_the_tab(&page, &own);
    // The tab keeps it, another one does not have it.
    page.ask("reload", json!({}));
    is_live(&page, "u-17");
    let other = page.beside("/");
    is_open(&other, true);
    // A log-out is complete.
    page.click("[data-action=login]");
    page.click("[data-action=logout]");
    is_open(&page, true);
    page.until("probe.text('[data-field=login-state]').startsWith('Not logged in')");
    assert_eq!(page.get("JSON.stringify(sessionStorage)"), json!("{}"));
    log_in(&page, API_KEY);
    is_live(&page, "robot");
    page.until("probe.rows().length === 1");
    page.click("[data-action=login]");
    page.until("probe.text('[data-field=login-state]') === 'Logged in as robot. This login does not expire.'");
    assert_kept_for_the_tab(&page, API_KEY);
    page.is_clean(&[]);
}

#[test]
fn token_that_expires_is_renewed_in_the_dialog_and_a_revoked_one_ends_the_session() {
    let Some(_browser) = shared_browser() else { return };
    let (_folder, server) = start("", &["--token-notice-s", "600"]);
    let page = Page::open(&server, "/");
    is_open(&page, true);
    log_in(&page, &token("u-17", 80, &everything()));
    page.until("document.querySelector('[data-action=login]').dataset.login === 'expiring'");
    page.until("probe.text('[data-action=login]') === 'u-17: expires soon'");
    page.until("probe.rows().length > 10");
    page.run("probe.watch('connection', 'body', 'data-connection')");
    // By the keyboard, while prices go on.
    page.run("document.querySelector('[data-action=login]').focus()");
    page.press("Enter");
    page.screenshot("login-expiring");
    log_in(&page, &token("u-17", 600, &everything()));
    is_live(&page, "u-17");
    assert_eq!(page.get("probe.watched.connection"), json!(["live"]));
    let revoke = format!(
        "POST /v1/operator/revoke?user=u-17 HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {OPERATOR}\r\n\
         Content-Length: 0\r\n\r\n",
        server.address
    );
    assert_eq!(send_request(server.address, revoke.as_bytes()).status, 200);
    is_open(&page, true);
    page.until("probe.text('[data-field=login-message]').includes('the credential was revoked')");
    page.until("document.body.dataset.connection === 'closed'");
    assert_eq!(page.get("JSON.stringify(sessionStorage)"), json!("{}"));
    // Another user may log in on the page.
    log_in(&page, &token("u-18", 600, &everything()));
    is_live(&page, "u-18");
    page.is_clean(&[]);
}

#[test]
fn token_that_has_expired_is_asked_for_when_the_connection_has_ended() {
    let Some(_browser) = shared_browser() else { return };
    let (_folder, server) = start("", &["--token-grace-s", "1"]);
    let page = Page::open(&server, "/");
    is_open(&page, true);
    log_in(&page, &token("u-17", 3, &everything()));
    is_open(&page, false);
    is_open(&page, true);
    page.until("probe.text('[data-field=banner-title]') === 'Log in to see prices.'");
    log_in(&page, &token("u-17", 600, &everything()));
    is_live(&page, "u-17");
    page.until("probe.field('BTC-USD', 'state') === 'LIVE'");
    // A query of the chart in the time of grace, which the browser logs.
    page.is_clean(&["401"]);
}

#[test]
fn cookie_of_the_site_logs_in_and_anonymous_access_asks_for_nothing() {
    let Some(_browser) = shared_browser() else { return };
    let anonymous = "[anonymous]\nallow = [{ symbols = ['BTC-USD'] }]\n";
    let (_folder, server) = start(anonymous, &["--token-cookie", "session"]);
    let page = Page::open(&server, "/");
    is_live(&page, "Log in");
    page.until("probe.rows().length === 1");
    page.until("probe.text('[data-field=rights]').startsWith('Some symbols or channels are not among your rights')");
    assert_eq!(page.get("document.querySelector('[data-panel=login]').open"), false);
    page.run(&format!("document.cookie = 'session={}; path=/; SameSite=Strict'", token("u-9", 600, &everything())));
    page.ask("reload", json!({}));
    is_live(&page, "u-9");
    page.until("probe.rows().length > 10");
    page.until("probe.text('[data-field=rights]') === ''");
    page.click("[data-action=login]");
    page.until("probe.text('[data-field=login-state]').startsWith('Logged in as u-9, by a cookie of this site.')");
    assert_eq!(page.get("document.querySelector('[data-action=logout]').checkVisibility()"), false);
    page.screenshot("login-cookie");
    page.is_clean(&[]);
    drop(server);

    let open = Server::start(&["--feed", "sim:instruments=5,rate=500,seed=1"]);
    let page = Page::open(&open, "/");
    page.until("document.body.dataset.connection === 'live'");
    assert_eq!(page.get("document.querySelector('[data-action=login]').checkVisibility()"), false);
}
