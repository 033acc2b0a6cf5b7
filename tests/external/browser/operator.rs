//! The operator's view.

use std::io::Write;

use rustix::process::Signal;
use serde_json::json;

use super::chromium::{Page, shared_browser};
use tickcast_test_support::client::masked_frame;
use tickcast_test_support::http::{connect, upgrade_request};
use tickcast_test_support::server::Server;

const BUSY: &str = "sim:instruments=50,rate=30000,seed=1,shape=even";

#[test]
fn operator_view_shows_shards_and_slow_clients() {
    let Some(_browser) = shared_browser() else { return };
    let args = ["--feed", BUSY, "--send-buffer-bytes", "16384", "--slow-timeout-ms", "600000"];
    let server = Server::start(&[&args[..], &["--operator-token", "token-of-the-operator"]].concat());
    let page = Page::open(&server, "/#operator");
    page.until("document.querySelector('[data-panel=operator]')?.dataset.access === 'token'");
    page.until("document.activeElement === document.querySelector('[data-field=token]')");
    page.ask("type", json!({"text": "token-of-the-operator"}));
    page.press("Enter");
    page.until("document.querySelector('[data-panel=operator]')?.dataset.access === 'open'");
    page.until("document.querySelectorAll('[data-field=shards] tr').length > 0");
    page.until("probe.text('[data-field=slow-note]') === 'No client is behind.'");
    // A client that subscribes to everything and never reads.
    let mut stalled = connect(server.address);
    stalled.write_all(upgrade_request("/v1/stream").as_bytes()).expect("the server reads");
    let all = json!({"op": "subscribe", "id": 1, "channels": ["quote", "trade", "ticker", "book"], "symbols": ["*"]});
    stalled.write_all(&masked_frame(0x81, all.to_string().as_bytes())).expect("the server reads");
    let address = stalled.local_addr().expect("it is connected").to_string();
    let slow = "[...document.querySelectorAll('[data-field=slow] tr')].map(({ children }) => children[2].textContent)";
    page.until(&format!("{slow}.includes('{address}')"));
    page.until(
        "Number(probe.text('[data-total=clients]')) >= 2 && Number(probe.text('[data-total=catching_up]')) >= 1",
    );
    page.until("parseFloat(probe.text('[data-total=sequenced]')) > 0");
    // A field of the answer that the page does not find shows as one of these.
    let missing = "[...document.querySelectorAll('[data-panel=operator] td')].map((cell) => cell.textContent)
        .filter((text) => /undefined|NaN/.test(text))";
    assert_eq!(page.get(missing), json!([]));
    page.until("['Clients', 'Longest tick'].every((name) => probe.cell('shards', name) !== '–')");
    page.screenshot("operator");
    page.ask("emulate", json!({"media": {"colorScheme": "dark"}}));
    page.screenshot("operator-dark");
    drop(stalled);
    page.until("probe.text('[data-field=slow-note]') === 'No client is behind.'");
    page.until("document.querySelector('[data-field=slow]').checkVisibility() === false");
    // The first request has no token.
    page.is_clean(&["401"]);
}

#[test]
fn operator_view_requires_the_token() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(&["--feed", "none", "--operator-token", "sesame-for-operators"]);
    let page = Page::open(&server, "/#operator");
    let access = |what: &str| format!("document.querySelector('[data-panel=operator]')?.dataset.access === '{what}'");
    page.until(&access("token"));
    page.until("document.activeElement === document.querySelector('[data-field=token]')");
    page.screenshot("operator-token");
    page.ask("type", json!({"text": "wrong"}));
    page.press("Enter");
    page.until("probe.text('[data-field=gate-text]').includes('refused this token')");
    page.run("document.querySelector('[data-field=token]').value = ''");
    page.click("[data-field=token]");
    page.ask("type", json!({"text": "sesame-for-operators"}));
    page.press("Enter");
    page.until(&access("open"));
    page.until("document.querySelectorAll('[data-field=shards] tr').length > 0");
    // The token is kept for this tab only.
    page.ask("reload", json!({}));
    page.until(&access("open"));
    let other = page.beside("/#operator");
    other.until(&access("token"));
    assert_eq!(
        page.get("JSON.stringify(localStorage).includes('sesame-for-operators') || document.cookie.includes('sesame-for-operators')"),
        false
    );
    // The browser itself logs each refusal on the console.
    page.is_clean(&["401"]);
    other.is_clean(&["401"]);
    assert_eq!(server.stop(Signal::TERM).code, Some(0));
}
