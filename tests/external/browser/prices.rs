//! The page shows the server's values.

use std::time::Instant;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::chromium::{Page, shared_browser};
use super::market::{PUBLISHED, Publisher};
use tickcast_protocol::BookSide;
use tickcast_test_support::DEADLINE;
use tickcast_test_support::server::Server;

const SYMBOLS: &[&str] = &["AAA-USD", "BBB-USD", "CCC-USD"];

/// The number of a text of the page; `None` for the dash that stands for no value.
fn number(text: &Value) -> Option<Decimal> {
    let text = text.as_str()?;
    (text != "–").then(|| text.replace(',', "").replace('−', "-").parse().unwrap_or_else(|_| panic!("{text:?}")))
}

#[track_caller]
fn assert_same(shown: &Value, expected: &Value, what: &str) {
    let expected: Decimal =
        expected.as_str().unwrap_or_else(|| panic!("{what}: {expected}")).parse().expect("a decimal");
    assert_eq!(number(shown), Some(expected), "{what}");
}

/// The server's snapshot of an instrument once it has this bid.
fn snapshot(server: &Server, symbol: &str, bid: &str) -> Value {
    let until = Instant::now() + DEADLINE;
    loop {
        let answer = server.get(&format!("/v1/snapshot/{symbol}")).json();
        if answer["quote"]["bid_px"] == bid {
            return answer;
        }
        assert!(Instant::now() < until, "{answer}");
    }
}

/// Publishes rounds of values for all channels of all instruments.
fn publish_rounds(publisher: &mut Publisher, rounds: std::ops::Range<i64>) {
    for round in rounds {
        for nth in 0..SYMBOLS.len() {
            let px = 10_000 + 1000 * nth as i64 + (round * 7919) % 400;
            publisher.quote(nth, px).trade(nth, px, round as u64).ticker(nth, px);
            if round % 10 == 0 {
                publisher.book(nth, px, 30);
            } else {
                publisher.level(nth, BookSide::Bid, px - 300, 1 + round).level(nth, BookSide::Ask, px + 300, 0);
            }
        }
        publisher.send();
    }
}

#[test]
fn prices_equal_the_servers_snapshot() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let mut publisher = Publisher::open(&server, SYMBOLS);
    publish_rounds(&mut publisher, 0..20);
    let page = Page::open(&server, "/#/BBB-USD");
    page.until_live();
    page.until("probe.field('CCC-USD', 'state') === 'LIVE'");
    for symbol in SYMBOLS {
        page.run(&format!("probe.count('{symbol}', '[data-row={symbol}] [data-field=bid]')"));
    }
    // Publishes as fast as the page shows it, until each bid has changed often enough.
    for round in 20.. {
        publish_rounds(&mut publisher, round..round + 1);
        page.until(&format!("Number(probe.lines('.trades li')[0]?.cells[2]) === {}", Decimal::new(1000 + round, 3)));
        if page.get("Object.values(probe.watched).every((changes) => changes >= 10)") == true {
            break;
        }
        assert!(round < 1000, "bids do not move: {}", page.get("probe.watched"));
    }
    publisher.book(0, 10_020, 3).book(1, 11_100, 30).quote(0, 9_999).quote(1, 11_099).quote(2, 12_345).send();
    for (symbol, bid) in SYMBOLS.iter().zip(["99.99", "110.99", "123.45"]) {
        let snapshot = snapshot(&server, symbol, bid);
        page.until(&format!("probe.field('{symbol}', 'bid') === '{bid}'"));
        for (name, expected) in [
            ("bid", &snapshot["quote"]["bid_px"]),
            ("ask", &snapshot["quote"]["ask_px"]),
            ("last", &snapshot["trade"]["px"]),
        ] {
            assert_same(
                &page.get(&format!("probe.field('{symbol}', '{name}')")),
                expected,
                &format!("{name} of {symbol}"),
            );
        }
        assert_eq!(page.get(&format!("probe.field('{symbol}', 'venue')")), "TEST");
    }
    assert_instrument_equals(&page, &snapshot(&server, "BBB-USD", "110.99"));
    page.is_clean(&[]);
}

/// Compares the header, the ladder and the newest trade of the shown instrument with a snapshot.
fn assert_instrument_equals(page: &Page, snapshot: &Value) {
    let head = page.get("probe.fields('ident', ['symbol', 'venue', 'state', 'bid', 'ask', 'last', 'high', 'low'])");
    assert_eq!((&head["symbol"], &head["venue"], &head["state"]), (&json!("BBB-USD"), &json!("TEST"), &json!("LIVE")));
    for (name, px, sz) in [("bid", "bid_px", "bid_sz"), ("ask", "ask_px", "ask_sz")] {
        let (shown_px, shown_sz) = head[name].as_str().expect("a text").split_once(" × ").expect("price and size");
        assert_same(&shown_px.into(), &snapshot["quote"][px], name);
        assert_same(&shown_sz.into(), &snapshot["quote"][sz], name);
    }
    assert_same(&head["last"], &snapshot["trade"]["px"], "last");
    assert_same(&head["high"], &snapshot["ticker"]["high_px"], "high");
    assert_same(&head["low"], &snapshot["ticker"]["low_px"], "low");

    let newest = page.get("probe.lines('.trades li')[0]");
    assert_same(&newest["cells"][1], &snapshot["trade"]["px"], "price of the newest trade");
    assert_same(&newest["cells"][2], &snapshot["trade"]["sz"], "size of the newest trade");
    assert_eq!(newest["side"], snapshot["trade"]["side"]);

    page.until("probe.lines('.bids li')[0].cells[0] === '110.99'");
    for (list, side, name) in [("bids", false, "bids"), ("asks", true, "asks")] {
        let mut lines = page.get(&format!("probe.lines('.{list} li')")).as_array().expect("a list").clone();
        assert!(lines.len() >= 5, "{} {list} are shown", lines.len());
        if side {
            lines.reverse();
        }
        let mut total = Decimal::ZERO;
        for (line, level) in lines.iter().zip(snapshot["book"][name].as_array().expect("a list")) {
            assert_same(&line["cells"][0], &level[0], list);
            assert_same(&line["cells"][1], &level[1], list);
            total += level[1].as_str().expect("a size").parse::<Decimal>().expect("a decimal");
            assert_eq!(number(&line["cells"][2]), Some(total), "total of {list}");
        }
    }
}

#[test]
fn time_and_sales_has_every_trade_in_order() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let mut publisher = Publisher::open(&server, SYMBOLS);
    publish_rounds(&mut publisher, 0..1);
    let page = Page::open(&server, "/#/AAA-USD");
    page.until_live();
    page.until("probe.lines('.trades li').length === 1 || null");
    // One packet with more trades than the list has lines, for all instruments, each with another price.
    for id in 1..=300 {
        for nth in 0..SYMBOLS.len() {
            publisher.trade(nth, 10_000 + id, id as u64);
        }
    }
    publisher.send();
    page.until("probe.lines('.trades li')[0].cells[1] === '103.00'");
    let lines = page.get("probe.lines('.trades li')");
    let shown: Vec<_> = lines.as_array().expect("a list").iter().map(|line| number(&line["cells"][1])).collect();
    assert!(shown.len() >= 10, "{} lines", shown.len());
    let sent: Vec<_> = (1..=300).rev().map(|id| Some(Decimal::new(10_000 + id, 2))).take(shown.len()).collect();
    assert_eq!(shown, sent);
    page.is_clean(&[]);
}

#[test]
fn zeros_that_a_venue_appends_are_not_shown_and_groupings_begin_at_the_finest_price() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    // Spot of Binance writes eight decimals of everything.
    let mut publisher = Publisher::open_scaled(&server, &[("BTCUSDT", -8, -8)]);
    let cent = 1_000_000;
    publisher.best(0, [6_183_763 * cent, 6_183_764 * cent], 150_000_000).send();
    let page = Page::open(&server, "/#/BTCUSDT");
    page.until_live();
    let shows = |bid: &str, grouping: &str| {
        page.until(&format!(
            "probe.field('BTCUSDT', 'bid') === '{bid}' && probe.lines('.bids li')[0].cells[0] === '{bid}' && \
             document.querySelector('[data-field=grouping]').selectedOptions[0].text === '{grouping}'"
        ));
    };
    shows("61,837.63", "0.01");
    publisher.best(0, [6_183_763 * cent + cent / 10, 6_183_764 * cent], 150_000_000).send();
    shows("61,837.631", "0.001");
    page.is_clean(&[]);
}

#[test]
fn names_with_slashes_blanks_and_other_letters_are_shown_chosen_and_kept_in_the_address() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let names = ["BTC/USD", "ES Dec 26", "50%?#", "币安人生"];
    let mut publisher = Publisher::open(&server, &names);
    (0..names.len()).for_each(|nth| _ = publisher.quote(nth, 10_000 + 100 * nth as i64));
    publisher.send();
    let page = Page::open(&server, "/");
    page.until_live();
    for (nth, name) in names.into_iter().enumerate() {
        let selector = format!("[data-row={}] [data-field=symbol]", json!(name));
        page.click(&selector);
        let is_shown = format!(
            "probe.text('[data-panel=ident] [data-field=symbol]') === {0} && \
             location.hash === '#/' + encodeURIComponent({0}) && \
             probe.fields('ident', ['bid']).bid.startsWith('{1}')",
            json!(name),
            Decimal::new(10_000 + 100 * nth as i64, 2)
        );
        page.until(&is_shown);
        page.run("location.reload()");
        page.until_live();
        page.until(&is_shown);
    }
    page.is_clean(&[]);
}

#[test]
fn page_has_policy_etags_gzip_and_no_other_origins() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let page = Page::open(&server, "/");
    page.until_live();
    let log = page.ask("log", json!({}));
    let responses = log["responses"].as_array().expect("a list").clone();
    let origin = format!("http://{}", server.address);
    for path in ["/", "/page.js", "/page.css", "/tickcast.js", "/tickcast-stream.js", "/favicon.svg"] {
        let answer = responses.iter().find(|answer| answer["url"] == format!("{origin}{path}"));
        let Some(answer) = answer else { panic!("{path} was not requested: {responses:#?}") };
        assert_eq!(answer["status"], 200, "{path}");
        let header = |name: &str| answer["headers"][name].as_str().unwrap_or_default().to_owned();
        assert!(header("etag").starts_with('"'), "{path}: {answer}");
        if path != "/favicon.svg" {
            assert_eq!(header("content-encoding"), "gzip", "{path}");
        }
        let policy = header("content-security-policy");
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{path}: {policy}");
        if path == "/" {
            let rules = ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "worker-src 'self'"];
            rules.iter().for_each(|rule| assert!(policy.contains(rule), "{rule} is not in {policy}"));
        }
    }
    page.is_clean(&[]);
}
