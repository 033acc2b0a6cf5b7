//! Server-Sent Events with the browser's EventSource, which reconnects by itself.

use rustix::process::Signal;
use serde_json::json;

use super::chromium::{Page, shared_browser};
use super::client::importing;
use super::connection::{LOST, at};
use super::market::{PUBLISHED, Publisher};
use super::proxy::Proxy;
use tickcast_test_support::server::Server;

/// Collects `records`, and other messages as `answers`, in order.
const LISTEN: &str = "
    globalThis.records = []; globalThis.answers = [];
    globalThis.source = new EventSource('/v1/sse?symbols=AAA-USD&channels=quote,trade');
    source.onmessage = ({ data }) => {
      for (const record of [JSON.parse(data)].flat()) {
        if ('symbol' in record) records.push(record);
        else answers.push(record);
      }
    };
    globalThis.trades = () => records.filter(({ type }) => type === 'trade');";

fn listening(proxy: &Proxy) -> Page {
    let page = importing(proxy);
    page.run(LISTEN);
    page.until("answers.some(({ type }) => type === 'subscribed')");
    page
}

#[test]
fn event_source_resumes_without_a_gap() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let proxy = Proxy::to(server.address);
    let mut publisher = Publisher::open(&server, &["AAA-USD"]);
    publisher.trade(0, 10_000, 1).send();
    let page = listening(&proxy);
    page.until("trades().at(-1)?.sequence === 1");
    for round in 1..=3 {
        (0..100).for_each(|nth| _ = publisher.trade(0, 10_000 + nth, nth as u64));
        publisher.send();
        proxy.cut();
        (0..100).for_each(|nth| _ = publisher.trade(0, 10_000 + nth, nth as u64));
        publisher.send();
        page.until(&format!("trades().at(-1).sequence === {}", 1 + 200 * round));
    }
    assert_eq!(page.get("trades().filter(({ sequence }, at) => sequence !== at + 1)"), json!([]), "out of order");
    page.until("answers.filter(({ type }) => type === 'resumed').length > 0");
    assert_eq!(page.get("answers.filter(({ type, how }) => type === 'resumed' && how !== 'replay')"), json!([]));
    assert_eq!(page.get("records.filter(({ type }) => type === 'gap')"), json!([]));
    page.is_clean(LOST);
}

#[test]
fn event_source_reconnects_after_a_restart() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(&[PUBLISHED, &["--drain-ms", "0"]].concat());
    let address = server.address;
    let mut publisher = Publisher::open(&server, &["AAA-USD"]);
    publisher.quote(0, 10_000).send();
    let page = listening(&Proxy::to(address));
    page.until("records.at(-1)?.bid_px === '100.00'");
    assert_eq!(server.stop(Signal::TERM).code, Some(0));
    page.until("source.readyState !== EventSource.OPEN");
    assert_eq!(page.get("source.readyState === EventSource.CLOSED"), false, "the EventSource gave up");
    let server = at(address, PUBLISHED);
    let mut publisher = Publisher::open(&server, &["BBB-USD", "AAA-USD"]);
    publisher.quote(1, 20_000).send();
    page.until("records.at(-1)?.bid_px === '200.00'");
    assert_eq!(page.get("new Set(answers.filter(({ type }) => type === 'welcome').map(({ epoch }) => epoch)).size"), 2);
    page.is_clean(LOST);
}
