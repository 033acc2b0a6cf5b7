//! The page over `https://`, with a stream over `wss://`.

use serde_json::json;
use tickcast_test_support::tls::{Authority, tls_address};

use super::chromium::{Page, shared_browser, trusted_authority};

const MARKET: &[&str] = &["--feed", "sim:instruments=20,rate=2000,seed=1"];

#[test]
fn page_over_tls_shows_live_prices() {
    let Some(_browser) = shared_browser() else { return };
    let Some(authority) = trusted_authority() else { return };
    let server = authority.start(MARKET);
    let page = Page::open_secured(tls_address(&server), "/").expect("its certificate is trusted");
    page.until_live();
    server.wait_for_metric("tickcast_tls_clients", |clients| clients == 1);
    assert_eq!(page.get("isSecureContext"), true);
    page.until("(window.before ??= document.body.innerText) !== document.body.innerText");
    let log = page.ask("log", json!({}));
    let requests = log["requests"].as_array().expect("a list");
    let is_stream = |url: &&serde_json::Value| url.as_str().is_some_and(|url| url.starts_with("wss://"));
    assert_eq!(requests.iter().filter(is_stream).count(), 1, "{requests:?}");
    page.is_clean(&[]);
    server.wait_for_metric("tickcast_tls_faults_total", |faults| faults == 0);
}

#[test]
fn page_of_an_unknown_authority_is_not_opened() {
    let Some(_browser) = shared_browser() else { return };
    if trusted_authority().is_none() {
        return;
    }
    let other = Authority::new();
    other.renew(&["127.0.0.1"]);
    let server = other.start(MARKET);
    let error = Page::open_secured(tls_address(&server), "/").err().expect("it is not trusted");
    assert!(error.contains("ERR_CERT_AUTHORITY_INVALID"), "{error}");
    server.wait_for_metric("tickcast_tls_alerts_total", |alerts| alerts > 0);
}
