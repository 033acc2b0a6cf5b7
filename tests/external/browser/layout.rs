//! A second chart, the chart in a frame of another page, and narrow windows.

use serde_json::{Value, json};

use super::chromium::{Page, shared_browser};
use super::client::importing;
use super::market::{PUBLISHED, Publisher};
use super::proxy::Proxy;
use tickcast_test_support::server::{SMALL_MARKET, Server};

#[test]
fn second_chart_shows_another_instrument_and_is_stored() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let mut publisher = Publisher::open(&server, &["AAA-USD", "BBB-USD"]);
    publisher.trade(0, 10_000, 1).trade(1, 20_000, 1).send();
    let page = Page::open(&server, "/#/AAA-USD");
    page.until_live();
    page.until("document.querySelector('[data-panel=chart]').dataset.bars === '1'");
    let second = "document.querySelector('[data-panel=second]')";
    let closes = |panel: &str, price: &str| {
        page.until(&format!("probe.text('[data-panel={panel}] [data-field=legend]').includes('C {price}')"));
    };
    page.press("c");
    page.until(&format!("{second}?.checkVisibility() && {second}.dataset.bars === '1'"));
    closes("second", "100.00");
    page.ask("type", json!({"text": "bbbusd"}));
    page.press("Enter");
    page.until("document.querySelector('[data-field=second-symbol]').value === 'BBB-USD'");
    closes("second", "200.00");
    closes("chart", "100.00");
    page.click("[data-panel=second] [data-interval='3600']");
    publisher.trade(1, 20_100, 2).send();
    closes("second", "201.00");
    let beside = "(([one, two]) => one.right <= two.left && one.top === two.top)
        (['chart', 'second'].map((name) => document.querySelector(`[data-panel=${name}]`).getBoundingClientRect()))";
    assert_eq!(page.get(beside), true, "side by side");
    page.screenshot("second-chart");
    let again = page.beside("/#/AAA-USD");
    again.until_live();
    again.until("probe.text('[data-panel=second] [data-field=legend]').includes('C 201.00')");
    let chosen = |panel: &str| {
        again.get(&format!("document.querySelector('[data-panel={panel}] [aria-checked=true]').dataset.interval"))
    };
    assert_eq!((chosen("chart"), chosen("second")), (json!("5"), json!("3600")));
    again.click("[data-action=close-second]");
    again.until("!document.querySelector('[data-panel=second]').checkVisibility()");
    [page, again].iter().for_each(|page| page.is_clean(&[]));
}

#[test]
fn the_chart_alone_is_shown_in_frames_of_listed_pages_only() {
    let Some(_browser) = shared_browser() else { return };
    let closed = Server::start(PUBLISHED);
    let framing = Proxy::to(closed.address);
    let origin = format!("http://{}", framing.address);
    let server = Server::start(&[PUBLISHED, &["--allow-frame", &origin]].concat());
    let mut publisher = Publisher::open(&server, &["AAA-USD", "BBB-USD"]);
    publisher.trade(0, 10_000, 1).trade(1, 20_000, 1).send();
    let page = Page::open(&server, "/#/AAA-USD?view=chart");
    page.until("probe.text('[data-panel=ident] [data-field=last]') === '100.00'");
    page.until("document.querySelector('[data-panel=chart]').dataset.bars === '1'");
    let shown = "['watchlist', 'ladder', 'trades', 'status', 'ident', 'chart'].filter((name) =>
        document.querySelector(`[data-panel=${name}]`).checkVisibility()).join()";
    assert_eq!(page.get(shown), "ident,chart");
    assert_eq!(page.get("probe.text('[data-panel=ident] [data-field=state]')"), "LIVE");
    assert_eq!(page.get("localStorage.getItem('tickcast.symbol')"), json!(null), "a frame is no visit");
    assert_eq!(page.ask("violations", json!({})), json!([]), "the chart alone");
    // Only this instrument is subscribed.
    assert_eq!(page.get("document.querySelector('#watchlist-rows').getAttribute('aria-rowcount')"), "2");
    page.run("location.hash = '#/BBB-USD?view=chart'");
    page.until("probe.text('[data-panel=ident] [data-field=last]') === '200.00'");
    page.is_clean(&[]);

    let outer = importing(&framing);
    let frame = |server: &Server| {
        outer.run(&format!(
            "const frame = document.createElement('iframe');
             frame.src = 'http://{}/#/AAA-USD?view=chart';
             document.body.replaceChildren(frame);
             await new Promise((resolve) => (frame.onload = resolve))",
            server.address
        ));
    };
    let refusals = |outer: &Page| {
        let log = outer.ask("log", json!({}));
        let is_refusal =
            |message: &&Value| message["text"].as_str().is_some_and(|text| text.contains("frame-ancestors"));
        log["console"].as_array().expect("a list").iter().filter(is_refusal).count()
    };
    frame(&server);
    server.wait_for_metric("tickcast_clients", |clients| clients == 2);
    assert_eq!(refusals(&outer), 0);
    frame(&closed);
    assert_eq!(refusals(&outer), 1, "a page that is not listed");
}

/// Pairs of elements that overlap, and elements that leave the window, among those that are side by side.
const COLLISIONS: &str = "(() => {
    const groups = ['.top > *', '.ident .name > *, .ident .price > *', '.ident dl > div', '.ladder .bar > *',
      '[data-panel=chart] .bar > *', '[data-panel=second] .bar > *', '.trades .bar > *', '.listbar > *', '.status > *',
      '.panes > *', '[data-panel=chart] .segments > *'];
    const found = [];
    const nameOf = (element) => `${element.tagName}.${element.className} ${element.textContent.trim().slice(0, 20)}`;
    for (const group of groups) {
      const visible = [...document.querySelectorAll(group)].filter((element) => element.checkVisibility());
      const all = visible.map((element) => [element, element.getBoundingClientRect()]);
      const boxes = all.filter(([, box]) => box.width > 1);
      for (const [element, box] of boxes) {
        if (box.left < -0.5 || box.right > innerWidth + 0.5) found.push(`${nameOf(element)} leaves the window`);
      }
      boxes.forEach(([one, a], at) => boxes.slice(at + 1).forEach(([two, b]) => {
        const isBeside = a.right <= b.left + 0.5 || b.right <= a.left + 0.5;
        const apart = isBeside || a.bottom <= b.top + 0.5 || b.bottom <= a.top + 0.5;
        if (!apart) found.push(`${nameOf(one)} overlaps ${nameOf(two)}`);
      }));
    }
    return found;
  })()";

#[test]
fn nothing_overlaps_on_a_phone_of_360_pixels() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(&["--feed", SMALL_MARKET]);
    let phone = json!({"viewport": {"width": 360, "height": 740}, "isMobile": true, "hasTouch": true});
    let page = Page::open_with(&server, "/#/SPY?list=Mine:SPY,NVDA", phone);
    page.until_live();
    page.until("probe.text('[data-panel=ident] [data-field=state]') === 'LIVE'");
    page.run("document.querySelector('[data-panel=chart] [data-action=second]').click()");
    page.until("Number(document.querySelector('[data-panel=second]').dataset.bars) > 0");
    for pane in ["watchlist", "chart", "ladder", "trades"] {
        page.ask("tap", json!({"selector": format!("[data-pane-of={pane}]")}));
        page.until(&format!("document.querySelector('[data-panel={pane}]').checkVisibility()"));
        assert_eq!(page.get(COLLISIONS), json!([]), "{pane}");
        page.screenshot(&format!("phone-360-{pane}"));
    }
    page.ask("tap", json!({"selector": "[data-pane-of=chart]"}));
    page.ask("tap", json!({"selector": "[data-action=close-second]"}));
    page.until("!document.querySelector('[data-panel=second]').checkVisibility()");
    page.is_clean(&[]);
}

#[test]
fn status_bar_cuts_no_word_at_1200_pixels() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(&["--feed", SMALL_MARKET]);
    let page = Page::open_with(&server, "/#/SPY", json!({"viewport": {"width": 1200, "height": 800}}));
    page.until_live();
    page.until("probe.text('[data-panel=status] [data-field=latency-p99]') !== '–'");
    // As long as the figures of a busy server are. They are written again twice a second: this is one step.
    let cut = "(() => {
        for (const name of ['messages', 'updates', 'conflated', 'gaps']) {
          document.querySelector(`[data-panel=status] [data-field=${name}]`).textContent = '1,234,567';
        }
        const list = document.querySelector('.status dl').getBoundingClientRect();
        const figures = [...document.querySelectorAll('.status dl > div')].filter((figure) => figure.checkVisibility());
        const cut = figures.filter((figure) => {
          const { left, right, top, bottom } = figure.getBoundingClientRect();
          const isSeen = top < list.bottom && bottom > list.top;
          return isSeen && (left < list.left || right > list.right || top < list.top - 2 || bottom > list.bottom + 2);
        });
        const bar = document.querySelector('.status');
        if (bar.scrollWidth > bar.clientWidth) cut.push(bar);
        return cut.map((element) => element.textContent.replace(/\\s+/g, ' ').trim());
      })()";
    assert_eq!(page.get(cut), json!([]));
    assert_eq!(page.get(COLLISIONS), json!([]));
    page.is_clean(&[]);
}
