//! Using the page: keys, addresses, themes, phones, and accessibility.

use serde_json::json;

use super::chromium::{Page, shared_browser};
use super::market::{PUBLISHED, Publisher};
use tickcast_test_support::server::{SMALL_MARKET, Server};

/// What a browser says of the operator's view, which this listener does not serve without a token.
const NO_OPERATOR: &[&str] = &["403"];

const MARKET: &str = "sim:instruments=30,rate=3000,seed=1";
const ACTIVE: &str = "document.querySelector('[data-row][data-active=yes]')?.dataset.row ?? null";

#[test]
fn keys_search_move_and_open() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let mut publisher = Publisher::open(&server, &["AAA-USD", "BBB-EUR", "CCC-USD", "DDD-USD"]);
    (0..4).for_each(|nth| _ = publisher.quote(nth, 10_000));
    publisher.send();
    let page = Page::open(&server, "/");
    page.until_live();
    page.until("document.querySelectorAll('[data-row]').length === 4");
    page.press("/");
    page.until("document.activeElement === document.querySelector('[data-field=search]')");
    page.ask("type", json!({"text": "usd"}));
    page.until("probe.rows().join() === 'AAA-USD,CCC-USD,DDD-USD'");
    assert_eq!(page.get("probe.text('[data-panel=watchlist] [data-field=count]')"), "3 of 4 instruments");
    page.press("ArrowDown");
    page.until("document.activeElement.getAttribute('role') === 'grid'");
    let first = page.get(ACTIVE);
    page.press("ArrowDown");
    page.until(&format!("({ACTIVE}) !== {first}"));
    page.press("End");
    page.until(&format!("({ACTIVE}) === 'DDD-USD'"));
    page.press("ArrowUp");
    page.until(&format!("({ACTIVE}) === 'CCC-USD'"));
    page.press("Enter");
    page.until("location.hash === '#/CCC-USD' && probe.text('[data-panel=ident] [data-field=symbol]') === 'CCC-USD'");
    page.press("Escape");
    page.until("document.querySelector('[data-field=search]').value === ''");
    page.until("document.querySelectorAll('[data-row]').length === 4");
    page.press("Home");
    page.press("p");
    page.until("document.querySelector('[data-row=AAA-USD] [data-action=pin]').ariaPressed === 'true'");
    page.press("?");
    page.until("document.querySelector('dialog').open");
    page.press("Escape");
    page.until("!document.querySelector('dialog').open");
    page.is_clean(&[]);
}

#[test]
fn address_and_history_select_the_instrument() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(&["--feed", SMALL_MARKET]);
    let page = Page::open(&server, "/#/SPY");
    page.until_live();
    let shows = |symbol: &str| format!("probe.text('[data-panel=ident] [data-field=symbol]') === '{symbol}'");
    page.until(&shows("SPY"));
    page.until("document.title.startsWith('SPY ')");
    page.click("[data-row=NVDA] [data-field=symbol]");
    page.until(&format!("location.hash === '#/NVDA' && {}", shows("NVDA")));
    page.run("history.back()");
    page.until(&shows("SPY"));
    page.click("[data-go=operator]");
    page.until("document.body.dataset.view === 'operator'");
    page.run("history.back()");
    page.until(&format!("document.body.dataset.view === 'markets' && {}", shows("SPY")));
    // An undefined instrument with a name that has to be escaped.
    page.goto("/#/NO%20SUCH%2FONE");
    page.until(&shows("NO SUCH/ONE"));
    page.is_clean(NO_OPERATOR);
}

#[test]
fn address_of_an_undefined_instrument_shows_it_once_defined() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let page = Page::open(&server, "/#/ZZZ-USD");
    page.until_live();
    page.until("!document.querySelector('[data-panel=watchlist] [data-field=empty]').hidden");
    page.screenshot("empty");
    let mut publisher = Publisher::open(&server, &["AAA-USD", "ZZZ-USD"]);
    publisher.quote(0, 5_000).quote(1, 10_000).trade(1, 10_000, 1).book(1, 10_000, 3).send();
    page.until(
        "probe.text('[data-panel=ident] [data-field=last]') === '100'
        || probe.text('[data-panel=ident] [data-field=last]') === '100.00'",
    );
    page.until("probe.lines('.bids li').length === 3 && probe.lines('.trades li').length === 1");
    page.is_clean(&[]);
}

#[test]
fn theme_follows_the_system_or_the_stored_choice() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(&["--feed", SMALL_MARKET]);
    let page = Page::open_with(&server, "/", json!({"colorScheme": "dark"}));
    page.until_live();
    let paper = "getComputedStyle(document.body).backgroundColor";
    let dark = page.get(paper);
    page.ask("emulate", json!({"media": {"colorScheme": "light"}}));
    page.until(&format!("{paper} !== {dark}"));
    let light = page.get(paper);
    page.click("[data-action=theme]");
    page.until(&format!("{paper} === {dark} && document.documentElement.dataset.theme === 'dark'"));
    let again = page.beside("/");
    again.until_live();
    // The other tab's system theme is dark: what was stored is the choice of a dark theme in a light system.
    assert_eq!(again.get("document.documentElement.dataset.theme"), "dark");
    page.click("[data-action=theme]");
    page.until(&format!("{paper} === {light}"));
    page.is_clean(&[]);
    again.is_clean(&[]);
}

#[test]
fn phone_reaches_every_pane_without_sideways_scrolling() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(&["--feed", MARKET]);
    let phone =
        json!({"viewport": {"width": 390, "height": 844}, "isMobile": true, "hasTouch": true, "deviceScaleFactor": 2});
    let page = Page::open_with(&server, "/", phone);
    page.until_live();
    page.until("document.querySelectorAll('[data-row]').length > 5");
    let fits = "document.documentElement.scrollWidth <= innerWidth && document.body.scrollWidth <= innerWidth";
    let tap = |selector: &str| page.ask("tap", json!({"selector": selector}));
    for pane in ["chart", "ladder", "trades", "operator", "watchlist"] {
        tap(&format!("[data-pane-of={pane}]"));
        page.until(&format!("document.body.dataset.pane === '{pane}'"));
        page.until(&format!("document.querySelector('[data-panel={pane}]').checkVisibility()"));
        page.until(&format!(
            "(({{ left, right, height }}) => left >= 0 && right <= innerWidth && height > 100)
               (document.querySelector('[data-panel={pane}]').getBoundingClientRect())"
        ));
        assert_eq!(
            page.get(fits),
            true,
            "{pane} scrolls sideways: {}",
            page.get("document.documentElement.scrollWidth")
        );
        let covered = "(() => {
            const tabs = document.querySelector('nav.panes').getBoundingClientRect();
            return tabs.bottom <= innerHeight + 1 && tabs.height >= 40;
        })()";
        assert_eq!(page.get(covered), true, "the tabs are in view and at least 40 pixels high");
    }
    page.until("document.querySelectorAll('[data-row]').length > 5");
    page.screenshot("phone-watchlist");
    tap("[data-row=NVDA] [data-field=symbol]");
    page.until("document.body.dataset.pane === 'chart' && location.hash === '#/NVDA'");
    page.until("Number(document.querySelector('[data-panel=chart]').dataset.bars) > 0");
    page.screenshot("phone-chart");
    tap("[data-pane-of=ladder]");
    page.until("probe.lines('.bids li').length > 5");
    page.screenshot("phone-ladder");
    tap("[data-pane-of=trades]");
    page.screenshot("phone-trades");
    page.is_clean(NO_OPERATOR);
}

#[test]
fn no_serious_accessibility_violations() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(&["--feed", MARKET, "--operator-token", "token-of-the-operator"]);
    let without_instruments = Server::start(PUBLISHED);
    for theme in ["light", "dark"] {
        let empty =
            Page::open_with(&without_instruments, "/", json!({"colorScheme": theme, "reducedMotion": "reduce"}));
        empty.until_live();
        empty.until("!document.querySelector('[data-panel=watchlist] [data-field=empty]').hidden");
        assert_eq!(empty.ask("violations", json!({})), json!([]), "the empty page in {theme}");
        let page = Page::open_with(&server, "/#/BTC-USD", json!({"colorScheme": theme, "reducedMotion": "reduce"}));
        page.until_live();
        page.until("document.querySelectorAll('[data-row]').length >= 20 && probe.lines('.bids li').length > 5");
        page.until("probe.field('BTC-USD', 'state') === 'LIVE' && probe.lines('.trades li').length > 3");
        assert_eq!(page.ask("violations", json!({})), json!([]), "the markets in {theme}");
        page.screenshot(theme);
        page.press("?");
        page.until("document.querySelector('dialog').open");
        assert_eq!(page.ask("violations", json!({})), json!([]), "the keys in {theme}");
        page.press("Escape");
        page.click("[data-go=operator]");
        page.until("document.activeElement === document.querySelector('[data-field=token]')");
        assert_eq!(page.ask("violations", json!({})), json!([]), "the request for the token in {theme}");
        page.ask("type", json!({"text": "token-of-the-operator"}));
        page.press("Enter");
        page.until("document.querySelectorAll('[data-field=shards] tr').length > 0");
        assert_eq!(page.ask("violations", json!({})), json!([]), "the operator's view in {theme}");
        page.is_clean(&["401"]);
    }
}
