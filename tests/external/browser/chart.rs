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
    for (key, seconds) in [("4", 300), ("5", 900), ("6", 3600), ("7", 86_400)] {
        page.press(key);
        page.until(&format!("document.querySelector('[data-interval=\"{seconds}\"]').ariaChecked === 'true'"));
        page.until("['1', '2'].includes(document.querySelector('[data-panel=chart]').dataset.bars)");
        assert_eq!(drawn(&page)[1] % seconds, 0, "bars begin at multiples of their length");
    }
    // This instrument has no trade and no quote.
    page.run("location.hash = '#/BBB-USD'");
    page.until("probe.text('[data-field=chart-note]') === 'No trades or quotes yet'");
    assert_eq!(page.get("document.querySelector('[data-panel=chart]').dataset.bars"), "0");
    publisher.trade(1, 5_000, 1).send();
    page.until("document.querySelector('[data-panel=chart]').dataset.bars === '1'");
    assert_eq!(page.get("probe.text('[data-field=chart-note]')"), json!(""));
    page.is_clean(&[]);
}

/// Bars of a minute, as a server would have them that keeps 2,500 of them, from long before its start.
const LONG_HISTORY: &str = "(url) => {
    const [limit, to] = [Number(url.searchParams.get('limit')), Number(url.searchParams.get('to') ?? Infinity)];
    const now = Math.floor(Date.now() / 60_000) * 60;
    const all = Array.from({ length: 2500 }, (_, at) => now - 60 * (2499 - at));
    const time = all.filter((second) => second < to).slice(-limit);
    const of = (add) => time.map((second) => (100 + add + (second / 60) % 5).toFixed(2));
    const trades = time.map(() => 1);
    const [open, high, low, close] = [of(0), of(1), of(-1), of(0)];
    const body = { symbol: 'AAA-USD', interval_s: 60, since: now - 60 * 1800, time, open, high, low, close,
      volume: of(0), trades, bid_px: of(0), ask_px: of(0.01), holes: [] };
    return { body };
}";

/// A page whose requests of a kind the test answers.
fn routed(server: &Server, url: &str, answer: &str) -> Page {
    let page = Page::open(server, "/licences.txt");
    page.ask("route", json!({"url": url, "answer": answer}));
    page.goto("/#/AAA-USD");
    page.until_live();
    page
}

#[test]
fn older_bars_load_on_scrolling_until_there_are_none() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let mut publisher = Publisher::open(&server, &["AAA-USD"]);
    publisher.quote(0, 10_000).trade(0, 10_000, 1).send();
    let page = routed(&server, "**/v1/bars/**", LONG_HISTORY);
    page.press("3");
    page.until("document.querySelector('[data-panel=chart]').dataset.bars === '1000'");
    page.run("document.querySelector('[data-panel=chart] [data-field=canvas]').focus()");
    for bars in ["2000", "2500"] {
        page.press("Home");
        page.until(&format!("document.querySelector('[data-panel=chart]').dataset.bars === '{bars}'"));
    }
    let [_, first, last] = drawn(&page);
    assert_eq!(last - first, 60 * 2499, "no bar is missing");
    // One request finds that there are no more, and no further one follows.
    let older = |page: &Page| {
        let log = page.ask("log", json!({}));
        let urls = log["requests"].as_array().expect("a list");
        urls.iter().filter(|url| url.as_str().is_some_and(|url| url.contains("&to="))).count()
    };
    page.press("End");
    page.press("Home");
    page.press("End");
    page.until("!document.querySelector('[data-panel=chart] [data-action=to-now]').checkVisibility()");
    page.press("Home");
    page.until("document.querySelector('[data-panel=chart] [data-action=to-now]').checkVisibility()");
    assert_eq!(older(&page), 3);
    page.is_clean(&[]);
}

#[test]
fn an_outlier_leaves_the_scale_with_a_mark_until_everything_is_shown() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let mut publisher = Publisher::open(&server, &["AAA-USD"]);
    publisher.quote(0, 10_000).trade(0, 10_000, 1).send();
    let page = routed(&server, "**/v1/bars/**", LONG_HISTORY);
    page.press("3");
    page.until("document.querySelector('[data-panel=chart]').dataset.bars === '1000'");
    let beyond = "document.querySelector('[data-panel=chart]').dataset.beyond";
    assert_eq!(page.get(&format!("{beyond} ?? ''")), "");
    publisher.trade(0, 1_000_000, 2).send();
    page.until(&format!("{beyond} === '1'"));
    page.until("probe.text('[data-panel=chart] [data-action=beyond]') === '1 bar leaves the scale: show all'");
    page.screenshot("outlier");
    page.press("e");
    page.until(&format!("{beyond} === undefined"));
    page.press("e");
    page.until(&format!("{beyond} === '1'"));
    page.click("[data-panel=chart] [data-action=beyond]");
    page.until(&format!("{beyond} === undefined"));
    page.is_clean(&[]);
}

#[test]
fn times_are_in_the_chosen_zone_with_its_label() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let mut publisher = Publisher::open(&server, &["AAA-USD"]);
    publisher.quote(0, 10_000).trade(0, 10_000, 1).send();
    let page = Page::open_with(&server, "/#/AAA-USD", json!({"timezoneId": "Asia/Kolkata"}));
    page.until_live();
    page.until("probe.lines('.trades li').length === 1");
    let labels = "[probe.text('[data-field=chart-zone]'), probe.text('[data-field=trades-zone]')].join()";
    page.until(&format!("{labels} === 'UTC+5:30,Time · UTC+5:30'"));
    let minutes = "probe.lines('.trades li')[0].cells[0].slice(3, 5)";
    let local = page.get(minutes);
    page.press("z");
    page.until(&format!("{labels} === 'UTC,Time · UTC' && {minutes} !== {local}"));
    // Days are those of UTC in any zone.
    page.press("z");
    page.until(&format!("{labels} === 'UTC+5:30,Time · UTC+5:30'"));
    page.press("7");
    page.until(&format!("{labels} === 'UTC,Time · UTC+5:30'"));
    // The venue TEST has no known zone.
    assert_eq!(page.get("document.querySelector('[data-field=zone] [value=exchange]').disabled"), true);
    assert_eq!(page.get("probe.text('[data-field=zone] [value=exchange]')"), "Exchange: not known");
    page.is_clean(&[]);
}

#[test]
fn bars_trades_and_a_picture_are_saved() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let mut publisher = Publisher::open(&server, &["AAA-USD"]);
    publisher.quote(0, 10_000).trade(0, 6_183_763, 1).send();
    let page = Page::open(&server, "/#/AAA-USD");
    page.until_live();
    page.until("document.querySelector('[data-panel=chart]').dataset.bars === '1'");
    page.until("probe.lines('.trades li').length === 1");
    let saved = |count: usize| {
        let until = Instant::now() + DEADLINE;
        loop {
            let log = page.ask("log", json!({}));
            let files = log["downloads"].as_array().expect("a list").clone();
            if files.len() == count {
                let text = |name: &str| files[count - 1][name].as_str().expect("a text").to_owned();
                return (text("name"), text("bytes"));
            }
            assert!(Instant::now() < until, "{} of {count} files", files.len());
        }
    };
    page.click("[data-action=trades-csv]");
    let (name, trades) = saved(1);
    assert!(name.starts_with("tickcast AAA-USD trades ") && name.ends_with(".csv"), "{name}");
    let lines: Vec<_> = trades.lines().collect();
    assert_eq!(lines[0], r#""time","unix_ms","symbol","price","size","side","sequence""#);
    assert!(lines.len() == 2 && lines[1].ends_with(r#","AAA-USD",61837.63,1.001,"S",1"#), "{trades}");
    // By keys: the menu opens at its first item.
    page.run("document.querySelector('[data-panel=chart] [data-action=menu]').focus()");
    page.press("Enter");
    for _ in 0..3 {
        page.press("ArrowDown");
    }
    page.press("Enter");
    let (_, bars) = saved(2);
    let lines: Vec<_> = bars.lines().collect();
    assert_eq!(lines[0], r#""time","unix_s","open","high","low","close","volume","bid","ask""#);
    assert!(
        lines.len() == 2 && lines[1].ends_with(",61837.63,61837.63,61837.63,61837.63,1.001,100.00,100.01"),
        "{bars}"
    );
    page.click("[data-panel=chart] [data-action=menu]");
    page.click("[data-panel=chart] [data-action=picture]");
    let (name, picture) = saved(3);
    assert!(name.ends_with(".png") && picture.contains("PNG") && picture.len() > 2000, "{name}");
    page.is_clean(&[]);
}

/// Trades 1 to 5, of which the last two are live ones as well.
const TRADES: &str = "() => ({ body: { symbol: 'AAA-USD', since: 1, sequence: [1, 2, 3, 4, 5],
    ts_event: [1, 2, 3, 4, 5].map((at) => 1795293329000000000 + at * 1e9), ts_recv: [1, 2, 3, 4, 5],
    px: ['100.01', '100.02', '100.03', '100.04', '100.05'], sz: ['0.25', null, '1', '1', '1'],
    side: ['B', 'S', null, 'B', 'S'], trade_id: [1, 2, 3, 4, 5] } })";

#[test]
fn trades_begin_with_those_from_before_the_page_each_once() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let mut publisher = Publisher::open(&server, &["AAA-USD"]);
    (1..=5).for_each(|id| _ = publisher.trade(0, 10_000 + id, id as u64));
    publisher.send();
    let page = routed(&server, "**/v1/trades/**", TRADES);
    let prices = "probe.lines('.trades li').map(({ cells }) => cells[1]).join()";
    page.until(&format!("{prices} === '100.05,100.04,100.03,100.02,100.01'"));
    publisher.trade(0, 10_006, 6).send();
    page.until(&format!("{prices} === '100.06,100.05,100.04,100.03,100.02,100.01'"));
    let refused = routed(&server, "**/v1/trades/**", "() => ({ status: 503, body: {} })");
    publisher.trade(0, 10_007, 7).send();
    refused.until("probe.lines('.trades li')[0]?.cells[1] === '100.07'");
    page.is_clean(&[]);
    refused.is_clean(&["503"]);
}
