//! Numbers that a float does not hold exactly, and every number of decimals.

use serde_json::json;

use super::chromium::{Page, shared_browser};
use super::market::{PUBLISHED, Publisher};
use tickcast_protocol::BookSide;
use tickcast_test_support::server::Server;

#[test]
fn sizes_beyond_2_to_53_have_all_their_digits() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let mut publisher = Publisher::open_scaled(&server, &[("COIN-USDT", -8, -8)]);
    let page = Page::open(&server, "/#/COIN-USDT");
    page.until_live();
    publisher.sized(0, 48, 5).send();
    page.until("probe.lines('.bids li')[0]?.cells[1] === '0.00000005'");
    publisher.level(0, BookSide::Bid, 48, (1 << 53) + 1).level(0, BookSide::Bid, 46, 7).send();
    page.until("probe.lines('.bids li')[1]?.cells[2] === '90,071,992.54741000'");
    assert_eq!(
        page.get("probe.lines('.bids li')[0].cells"),
        json!(["0.00000048", "90,071,992.54740993", "90,071,992.54740993"])
    );
    publisher.sized(0, 49, i64::MAX).send();
    page.until("probe.lines('.trades li')[0]?.cells[2] === '92,233,720,368.54775807'");
    let head = page.get("probe.fields('ident', ['state', 'bid', 'ask', 'last'])");
    let size = "92,233,720,368.54775807";
    let quote = |px: &str| format!("{px} × {size}");
    assert_eq!(
        head,
        json!({"state": "LIVE", "bid": quote("0.00000049"), "ask": quote("0.00000050"), "last": "0.00000049"})
    );
    assert_eq!(page.get("probe.field('COIN-USDT', 'spread')"), "202.0");
    page.is_clean(&[]);
}

#[test]
fn chart_draws_0_to_18_decimals() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let names: Vec<String> = (0..=18).map(|decimals| format!("DEC{decimals}")).collect();
    let instruments: Vec<_> = names.iter().zip(0..).map(|(name, decimals)| (name.as_str(), -decimals, 0)).collect();
    let mut publisher = Publisher::open_scaled(&server, &instruments);
    for (nth, decimals) in (0..=18).enumerate() {
        publisher.sized(nth, 5 * 10_i64.pow(decimals), 3);
    }
    publisher.send();
    let page = Page::open(&server, "/");
    page.until_live();
    for name in &names {
        page.run(&format!("location.hash = '#/{name}'"));
        page.until(&format!("probe.text('[data-panel=ident] [data-field=symbol]') === '{name}'"));
        page.until("probe.text('[data-field=legend]')?.startsWith('O 5')");
    }
    page.is_clean(&[]);
}
