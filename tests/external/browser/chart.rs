//! The chart: history from before the page was opened, joined with live trades.

use std::time::Instant;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::chromium::{Page, shared_browser};
use super::market::{PUBLISHED, Publisher};
use tickcast_test_support::DEADLINE;
use tickcast_test_support::server::Server;

/// The server's bars of one second.
fn bars(server: &Server) -> Value {
    server.get("/v1/bars/AAA-USD?interval_s=1&limit=5000").json()
}

/// Publishes trades and quotes until the server has `count` more bars of one second.
fn publish_bars(server: &Server, publisher: &mut Publisher, id: &mut u64, count: usize) {
    let len = |bars: &Value| bars["time"].as_array().map_or(0, Vec::len);
    let target = len(&bars(server)) + count;
    let until = Instant::now() + DEADLINE;
    while len(&bars(server)) < target {
        *id += 1;
        let px = 10_000 + (*id * 37 % 100) as i64;
        publisher.trade(0, px, *id).quote(0, px).send();
        assert!(Instant::now() < until, "{}", bars(server));
    }
}

/// The number of bars of the chart, and their first and last second.
fn drawn(page: &Page) -> [u64; 3] {
    let chart = "document.querySelector('[data-panel=chart]').dataset";
    let drawn = page.get(&format!("(({{ bars, first, last }}) => [bars, first, last].map(Number))({chart})"));
    [0, 1, 2].map(|at| drawn[at].as_u64().unwrap_or_else(|| panic!("{drawn}")))
}

/// Waits until the legend has this price after a letter.
#[track_caller]
fn wait_for_legend(page: &Page, letter: &str, price: &str) {
    let shown = format!("probe.text('[data-field=legend]').match(/{letter} ?([\\d.,]+)/)?.[1]");
    page.until(&format!("Number({shown}) === Number('{price}')"));
}

#[test]
fn chart_joins_history_and_live_trades() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let mut publisher = Publisher::open(&server, &["AAA-USD"]);
    let mut id = 0;
    publish_bars(&server, &mut publisher, &mut id, 4);
    let before = bars(&server);
    let first = before["time"][0].as_u64().expect("a second");
    let page = Page::open(&server, "/#/AAA-USD");
    page.until_live();
    page.press("1");
    page.until("document.querySelector('[data-interval=\"1\"]').ariaChecked === 'true'");
    page.until("Number(document.querySelector('[data-panel=chart]').dataset.bars) >= 4");
    assert_eq!(drawn(&page)[1], first, "the chart begins with the server's first bar");

    publish_bars(&server, &mut publisher, &mut id, 4);
    // Waits until the page has the last trade, and the server's bars have all trades.
    let last = format!("Number(probe.lines('.trades li')[0]?.cells[2]) === {}", (1000 + id) as f64 / 1000.0);
    page.until(&last);
    let until = Instant::now() + DEADLINE;
    let all = loop {
        let all = bars(&server);
        let trades: u64 = all["trades"].as_array().expect("a list").iter().filter_map(Value::as_u64).sum();
        if trades == id {
            break all;
        }
        assert!(Instant::now() < until, "{trades} of {id} trades: {all}");
    };
    let times = all["time"].as_array().expect("a list");
    let (count, last) = (times.len() as u64, times[times.len() - 1].as_u64().expect("a second"));
    page.until(&format!("document.querySelector('[data-panel=chart]').dataset.last === '{last}'"));
    // Each bar once: those from before the page, the one in which it was opened, and the live ones.
    assert_eq!(drawn(&page), [count, first, last], "{times:?}");
    let newest = times.len() - 1;
    for (letter, name) in [("O", "open"), ("H", "high"), ("L", "low"), ("C", "close")] {
        wait_for_legend(&page, letter, all[name][newest].as_str().expect("a decimal"));
    }
    page.is_clean(&[]);
}

#[test]
fn last_trade_is_drawn_without_further_trades() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let mut publisher = Publisher::open(&server, &["AAA-USD"]);
    publisher.trade(0, 9_000, 0).send();
    let page = Page::open(&server, "/#/AAA-USD");
    page.until_live();
    page.until("Number(document.querySelector('[data-panel=chart]').dataset.bars) >= 1");
    for id in 1..=20 {
        publisher.trade(0, 10_000 + id, id as u64).send();
        page.until(&format!("probe.lines('.trades li')[0]?.cells[1] === '{}'", Decimal::new(10_000 + id, 2)));
        // Two trades in quick succession, then none.
        if id % 2 == 0 {
            wait_for_legend(&page, "C", &Decimal::new(10_000 + id, 2).to_string());
        }
    }
    page.is_clean(&[]);
}

#[test]
fn another_interval_or_instrument_loads_its_own_history() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let mut publisher = Publisher::open(&server, &["AAA-USD", "BBB-USD"]);
    let mut id = 0;
    publish_bars(&server, &mut publisher, &mut id, 3);
    let page = Page::open(&server, "/#/AAA-USD");
    page.until_live();
    page.press("1");
    page.until("Number(document.querySelector('[data-panel=chart]').dataset.bars) >= 3");
    page.press("4");
    page.until("document.querySelector('[data-interval=\"300\"]').ariaChecked === 'true'");
    page.until("['1', '2'].includes(document.querySelector('[data-panel=chart]').dataset.bars)");
    assert_eq!(drawn(&page)[1] % 300, 0, "bars begin at multiples of their length");
    // This instrument has no trade and no quote.
    page.run("location.hash = '#/BBB-USD'");
    page.until("probe.text('[data-field=chart-note]') === 'No trades or quotes yet'");
    assert_eq!(page.get("document.querySelector('[data-panel=chart]').dataset.bars"), "0");
    publisher.trade(1, 5_000, 1).send();
    page.until("document.querySelector('[data-panel=chart]').dataset.bars === '1'");
    assert_eq!(page.get("probe.text('[data-field=chart-note]')"), json!(""));
    page.is_clean(&[]);
}
