//! The chart: what was before the page was opened, what comes, and no seam between them.

use std::time::Instant;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::chromium::{Page, tick};
use super::market::{PUBLISHED, Publisher};
use tickcast_test_support::DEADLINE;
use tickcast_test_support::server::Server;

/// Bars of a second that the server has.
fn bars(server: &Server) -> Value {
    server.get("/v1/bars/AAA-USD?interval_s=1&limit=5000").json()
}

/// Publishes a trade and a quote now and again until the server has so many more bars of a second.
fn seconds(server: &Server, publisher: &mut Publisher, id: &mut u64, count: usize) {
    let have = |bars: &Value| bars["time"].as_array().map_or(0, Vec::len);
    let wanted = have(&bars(server)) + count;
    let until = Instant::now() + DEADLINE;
    while have(&bars(server)) < wanted {
        *id += 1;
        let px = 10_000 + (*id * 37 % 100) as i64;
        publisher.trade(0, px, *id).quote(0, px).send();
        assert!(Instant::now() < until, "{}", bars(server));
    }
}

/// The chart's own bars, through what the page was told and drew: first and last second, and how many.
fn drawn(page: &Page) -> [u64; 3] {
    let chart = "document.querySelector('[data-panel=chart]').dataset";
    let told = page.get(&format!("(({{ bars, first, last }}) => [bars, first, last].map(Number))({chart})"));
    [0, 1, 2].map(|at| told[at].as_u64().unwrap_or_else(|| panic!("{told}")))
}

/// Waits until the legend has this price after a letter.
#[track_caller]
fn legend_says(page: &Page, letter: &str, price: &str) {
    let shown = format!("probe.text('[data-field=legend]').match(/{letter} ?([\\d.,]+)/)?.[1]");
    page.until(&format!("Number({shown}) === Number('{price}')"));
}

#[test]
fn the_chart_has_history_from_before_the_page_and_goes_on_without_a_seam() {
    let Some(_turn) = tick() else { return };
    let server = Server::start(PUBLISHED);
    let mut publisher = Publisher::open(&server, &["AAA-USD"]);
    let mut id = 0;
    seconds(&server, &mut publisher, &mut id, 4);
    let before = bars(&server);
    let first = before["time"][0].as_u64().expect("a second");
    let page = Page::open(&server, "/#/AAA-USD");
    page.until_live();
    page.press("1");
    page.until("document.querySelector('[data-interval=\"1\"]').ariaChecked === 'true'");
    page.until("Number(document.querySelector('[data-panel=chart]').dataset.bars) >= 4");
    assert_eq!(drawn(&page)[1], first, "the chart begins where the server does");

    seconds(&server, &mut publisher, &mut id, 4);
    // At rest: the page has drawn the last trade's bar, and the server has written it down.
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
    // A bar a second, each once: those from before, the one in which the page was opened, and those that it saw.
    assert_eq!(drawn(&page), [count, first, last], "{times:?}");
    let newest = times.len() - 1;
    for (letter, name) in [("O", "open"), ("H", "high"), ("L", "low"), ("C", "close")] {
        legend_says(&page, letter, all[name][newest].as_str().expect("a decimal"));
    }
    page.is_clean(&[]);
}

#[test]
fn what_is_traded_last_is_drawn_although_nothing_follows() {
    let Some(_turn) = tick() else { return };
    let server = Server::start(PUBLISHED);
    let mut publisher = Publisher::open(&server, &["AAA-USD"]);
    publisher.trade(0, 9_000, 0).send();
    let page = Page::open(&server, "/#/AAA-USD");
    page.until_live();
    page.until("Number(document.querySelector('[data-panel=chart]').dataset.bars) >= 1");
    for id in 1..=20 {
        publisher.trade(0, 10_000 + id, id as u64).send();
        page.until(&format!("probe.lines('.trades li')[0]?.cells[1] === '{}'", Decimal::new(10_000 + id, 2)));
        // Two soon after one another, then silence.
        if id % 2 == 0 {
            legend_says(&page, "C", &Decimal::new(10_000 + id, 2).to_string());
        }
    }
    page.is_clean(&[]);
}

#[test]
fn the_chart_of_another_interval_or_instrument_begins_anew_with_its_own_history() {
    let Some(_turn) = tick() else { return };
    let server = Server::start(PUBLISHED);
    let mut publisher = Publisher::open(&server, &["AAA-USD", "BBB-USD"]);
    let mut id = 0;
    seconds(&server, &mut publisher, &mut id, 3);
    let page = Page::open(&server, "/#/AAA-USD");
    page.until_live();
    page.press("1");
    page.until("Number(document.querySelector('[data-panel=chart]').dataset.bars) >= 3");
    page.press("4");
    page.until("document.querySelector('[data-interval=\"300\"]').ariaChecked === 'true'");
    page.until("['1', '2'].includes(document.querySelector('[data-panel=chart]').dataset.bars)");
    assert_eq!(drawn(&page)[1] % 300, 0, "bars begin at multiples of their length");
    // Nothing was ever traded or quoted here.
    page.run("location.hash = '#/BBB-USD'");
    page.until("probe.text('[data-field=chart-note]') === 'No trades or quotes yet'");
    assert_eq!(page.get("document.querySelector('[data-panel=chart]').dataset.bars"), "0");
    publisher.trade(1, 5_000, 1).send();
    page.until("document.querySelector('[data-panel=chart]').dataset.bars === '1'");
    assert_eq!(page.get("probe.text('[data-field=chart-note]')"), json!(""));
    page.is_clean(&[]);
}
