//! The watchlist: what it opens by itself, folds away and finds, and what the tab's title says.

use serde_json::json;

use super::chromium::{Page, shared_browser};
use super::connection::LOST;
use super::market::{PUBLISHED, Publisher};
use super::proxy::Proxy;
use tickcast_protocol::FeedState;
use tickcast_test_support::server::Server;

const SHOWN: &str = "probe.text('[data-panel=ident] [data-field=symbol]')";

#[test]
fn page_opens_a_live_instrument_with_values_by_itself() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let mut publisher = Publisher::open(&server, &["AAA-ENDED", "BBB-EMPTY", "CCC-GOOD", "DDD-GOOD"]);
    publisher.quote(0, 10_000).status(0, FeedState::Ended).send();
    let page = Page::open(&server, "/");
    page.until_live();
    page.until("probe.text('[data-panel=watchlist] [data-field=count]') === '4 instruments'");
    page.until("document.querySelector('#watchlist-fold') !== null");
    // None is live with values yet.
    assert_eq!(page.get(SHOWN), "–");
    publisher.quote(2, 12_345).send();
    page.until(&format!("{SHOWN} === 'CCC-GOOD' && probe.fields('ident', ['bid']).bid.startsWith('123.45')"));
    publisher.quote(3, 10_000).send();
    page.until("probe.field('DDD-GOOD', 'bid') === '100.00'");
    assert_eq!(page.get(SHOWN), "CCC-GOOD", "the page does not leave it for another");
    // The instrument of the last visit is opened again unless it has ended since.
    page.run("location.hash = '#/DDD-GOOD'");
    page.until(&format!("{SHOWN} === 'DDD-GOOD'"));
    let again = page.beside("/");
    again.until(&format!("{SHOWN} === 'DDD-GOOD' && probe.text('[data-panel=ident] [data-field=state]') === 'LIVE'"));
    publisher.status(3, FeedState::Ended).send();
    again.until("probe.text('[data-panel=ident] [data-field=state]') === 'ENDED'");
    again.until("document.title.startsWith('ended · ')");
    assert_eq!(again.get("document.title"), "ended · DDD-GOOD · tickcast");
    let later = page.beside("/");
    later.until(&format!("{SHOWN} === 'CCC-GOOD'"));
    [page, again, later].iter().for_each(|page| page.is_clean(&[]));
}

#[test]
fn ended_instruments_are_folded_under_a_row_that_opens_by_click_and_key() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let mut publisher = Publisher::open(&server, &["AAA-USD", "BBB-USD", "CCC-USD"]);
    (0..3).for_each(|nth| _ = publisher.quote(nth, 10_000));
    publisher.status(0, FeedState::Ended).status(1, FeedState::Ended).send();
    let page = Page::open(&server, "/");
    page.until_live();
    page.until("probe.rows().join() === 'CCC-USD' && probe.text('#watchlist-fold') === '2 ended'");
    page.click("#watchlist-fold button");
    page.until("probe.rows().join() === 'CCC-USD,AAA-USD,BBB-USD'");
    page.until("document.querySelector('#watchlist-fold button').ariaExpanded === 'true'");
    page.click("#watchlist-fold button");
    page.until("probe.rows().join() === 'CCC-USD'");
    page.run("document.querySelector('#watchlist-rows').focus()");
    page.press("End");
    page.until("document.querySelector('#watchlist-rows').getAttribute('aria-activedescendant') === 'watchlist-fold'");
    page.press("Enter");
    page.until("probe.rows().join() === 'CCC-USD,AAA-USD,BBB-USD'");
    page.press("Space");
    page.until("probe.rows().join() === 'CCC-USD'");
    // A search finds what is folded.
    page.press("/");
    page.ask("type", json!({"text": "aaa"}));
    page.until("probe.rows().join() === 'AAA-USD' && document.querySelector('#watchlist-fold') === null");
    page.press("Escape");
    publisher.status(0, FeedState::Live).quote(0, 10_001).send();
    page.until("probe.rows().join() === 'AAA-USD,CCC-USD' && probe.text('#watchlist-fold') === '1 ended'");
    page.is_clean(&[]);
}

#[test]
fn search_finds_names_however_venues_write_them() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let mut publisher = Publisher::open(&server, &["BTC-USD", "BTC/USD", "btc_usd", "ETH.USD", "BTCEUR"]);
    (0..5).for_each(|nth| _ = publisher.quote(nth, 10_000));
    publisher.send();
    let page = Page::open(&server, "/");
    page.until_live();
    for search in ["btcusd", "BTC/usd", "btc usd"] {
        page.press("/");
        page.ask("type", json!({"text": search}));
        page.until("probe.rows().sort().join() === 'BTC-USD,BTC/USD,btc_usd'");
        page.press("Escape");
        page.until("probe.rows().length === 5");
    }
    page.is_clean(&[]);
}

#[test]
fn title_says_that_data_is_stale_or_the_connection_lost() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let proxy = Proxy::to(server.address);
    let mut publisher = Publisher::open(&server, &["AAA-USD"]);
    publisher.trade(0, 6_183_763, 1).send();
    let page = Page::open_at(proxy.address, "/", json!({}));
    page.until("document.title === 'AAA-USD 61,837.63 · tickcast'");
    publisher.status(0, FeedState::Stale).send();
    page.until("document.title === 'stale · AAA-USD 61,837.63 · tickcast'");
    publisher.status(0, FeedState::Live).trade(0, 6_183_764, 2).send();
    page.until("document.title === 'AAA-USD 61,837.64 · tickcast'");
    proxy.refuse_streams(true);
    proxy.cut();
    page.until("document.title === 'connection lost · AAA-USD 61,837.64 · tickcast'");
    proxy.refuse_streams(false);
    page.until("document.title === 'AAA-USD 61,837.64 · tickcast'");
    page.is_clean(LOST);
}
