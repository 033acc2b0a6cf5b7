//! The JavaScript client in an application's page, which only has `import "/tickcast.js"`.

use serde_json::json;

use super::chromium::{Page, shared_browser};
use super::market::{MovingMarket, PUBLISHED, Publisher};
use super::proxy::Proxy;
use tickcast_test_support::server::{SMALL_MARKET, Server};

/// An empty page behind a proxy, with the library as `tickcast`.
pub fn importing(proxy: &Proxy) -> Page {
    let page = Page::open_at(proxy.address, "/empty.html", json!({}));
    page.until("document.readyState === 'complete' && location.pathname === '/empty.html'");
    page.run("globalThis.tickcast = await import('/tickcast.js')");
    page
}

fn empty_page(server: &Server) -> Page {
    importing(&Proxy::to(server.address))
}

/// A client that records what is subscribed at the server, as `channel symbol`.
const RECORDING: &str = "
    globalThis.subscribed = new Set();
    globalThis.requests = 0;
    class Recording extends WebSocket {
      send(text) {
        const { op, symbols = [], channels = [] } = JSON.parse(text);
        if (op === 'subscribe' || op === 'unsubscribe') requests += 1;
        for (const symbol of symbols) for (const channel of channels) {
          if (op === 'subscribe') subscribed.add(`${channel} ${symbol}`);
          if (op === 'unsubscribe') subscribed.delete(`${channel} ${symbol}`);
        }
        super.send(text);
      }
    }
    globalThis.client = tickcast.connect({ WebSocket: Recording })";

#[test]
fn overlapping_subscriptions_are_requested_once() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(&["--feed", SMALL_MARKET]);
    let page = empty_page(&server);
    page.run(RECORDING);
    page.run("globalThis.one = client.subscribe({ symbols: ['SPY', 'NO-SUCH'], channels: ['quote', 'trade'] })");
    let result = page.get("one.ready.then(({ unknown, denied, conflateMs }) => ({ unknown, denied, conflateMs }))");
    assert_eq!(result, json!({"unknown": ["NO-SUCH"], "denied": [], "conflateMs": 100}));
    page.until("client.state('SPY') === 'LIVE' && client.quotes.sequence[client.instruments.row('SPY')] > 0");
    assert_eq!(page.get("requests"), 1, "the subscriptions of one task share a request");

    // Overlapping subscriptions: only the new channel is requested.
    page.run("globalThis.two = client.subscribe({ symbols: 'SPY', channels: 'quote' })");
    page.run("globalThis.three = client.subscribe({ symbols: '*', channels: ['ticker'] })");
    page.run("await Promise.all([two.ready, three.ready])");
    let subscribed = "[...subscribed].filter((what) => !what.endsWith('NO-SUCH')).sort().join()";
    assert_eq!(page.get(subscribed), "quote SPY,ticker *,trade SPY");
    page.run("one.close()");
    page.until(&format!("{subscribed} === 'quote SPY,ticker *'"));
    // The other subscription still has the quotes.
    let sequence = "client.quotes.sequence[client.instruments.row('SPY')]";
    let before = page.get(sequence);
    page.until(&format!("{sequence} > {before}"));
    assert_eq!(page.get("client.state('SPY')"), "LIVE");
    page.run("two[Symbol.dispose]()");
    page.until(&format!("{subscribed} === 'ticker *'"));
    assert_eq!(page.get("[one.closed, two.closed, three.closed]"), json!([true, true, false]));
    page.run("client.close()");
    assert_eq!(page.get("client.closed.then(({ phase }) => phase)"), "closed");
    server.wait_for_metric("tickcast_clients", |count| count == 0);
    page.is_clean(&[]);
}

#[test]
fn callbacks_and_loops_end_with_their_signal() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let mut publisher = Publisher::open(&server, &["AAA-USD"]);
    publisher.quote(0, 10_000).send();
    let page = empty_page(&server);
    page.run(
        "globalThis.client = tickcast.connect({ conflateMs: 0 });
         globalThis.ending = new AbortController();
         globalThis.quotes = []; globalThis.trades = [];
         const signal = ending.signal;
         const watching = client.onUpdate({ symbols: 'AAA-USD', signal }, (quote) => quotes.push(quote));
         globalThis.looping = (async () => {
           for await (const trade of client.trades('AAA-USD', { signal })) if (trade.tradeId > 0) trades.push(trade);
           return 'over';
         })();
         await watching.ready",
    );
    // The loop's subscription is answered no later than this one to the same channel.
    page.run("await client.subscribe({ symbols: 'AAA-USD', channels: 'trade' }).ready");
    for id in 1..=50 {
        publisher.trade(0, 10_000 + id, id as u64).quote(0, 10_000 + id).send();
    }
    page.until("trades.length >= 50 && quotes.at(-1)?.bid === '100.50'");
    let numbers: Vec<_> = (1..=50).collect();
    assert_eq!(page.get("trades.map(({ tradeId }) => tradeId)"), json!(numbers));
    assert_eq!(page.get("trades.map(({ sequence }) => sequence)"), json!(numbers));
    let first = "(({ channel, symbol, sequence, px, sz, side, price, size }) =>
        ({ channel, symbol, sequence, px, sz, side, price, size }))(trades[0])";
    let expected = json!({"channel": "trade", "symbol": "AAA-USD", "sequence": 1, "px": 10_001, "sz": 1001,
                          "side": "sell", "price": "100.01", "size": "1.001"});
    assert_eq!(page.get(first), expected);
    page.run("ending.abort()");
    assert_eq!(page.get("looping"), "over");
    page.is_clean(&[]);
}

#[test]
fn client_runs_in_a_worker_or_without_one() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(&["--feed", SMALL_MARKET]);
    let live =
        "globalThis.client = tickcast.connect(); client.subscribe({ symbols: '*' }).ready.then(() => client.worker)";
    let moving = "client.quotes.sequence.some((sequence) => sequence > 5)";

    let with_worker = empty_page(&server);
    assert_eq!(with_worker.get(live), "module");
    with_worker.until(moving);
    with_worker.is_clean(&[]);

    let without_worker = empty_page(&server);
    without_worker.run("delete globalThis.Worker");
    assert_eq!(without_worker.get(live), "none");
    without_worker.until(moving);
    without_worker.is_clean(&[]);

    let policy = "default-src 'none'; script-src 'self'; connect-src 'self'; img-src data:; worker-src 'none'";
    let refused = importing(&Proxy::with_policy(server.address, policy));
    assert_eq!(refused.get(live), "none");
    refused.until(moving);
    let violations = refused.get("probe.refused.splice(0)");
    assert!(violations.to_string().contains("worker-src"), "the policy had no effect: {violations}");
    refused.is_clean(&["worker-src"]);
}

#[test]
fn conflation_interval_changes_live() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let publisher = Publisher::open(&server, &["A", "B", "C", "D", "E"]);
    let _market = MovingMarket::start(publisher);
    let page = Page::open(&server, "/");
    page.until_live();
    let count =
        |text: &str| format!("Number(probe.text('[data-panel=status] [data-field={text}]').replaceAll(',', ''))");
    let updates = count("updates");
    let rate_at = |interval: &str, settled: &str| {
        page.click(&format!("[data-conflation='{interval}']"));
        page.until(&format!("document.querySelector(\"[data-conflation='{interval}']\").ariaChecked === 'true'"));
        page.until(settled);
        page.get(&updates).as_f64().expect("a number")
    };
    // Five instruments every 5 ms, on an idle machine; then each once a second.
    let unconflated = rate_at("0", &format!("{updates} > 100 && {} === 0", count("conflated")));
    let conflated = rate_at("1000", &format!("{updates} < 40 && {} > 0", count("conflated")));
    println!("updates per second: {unconflated} at 0 ms, {conflated} at 1000 ms");
    let again = rate_at("0", &format!("{updates} > 100"));
    println!("and {again} at 0 ms again");
    page.goto("/");
    page.until_live();
    assert_eq!(
        page.get("document.querySelector('[data-conflation=\"0\"]').ariaChecked"),
        "true",
        "the choice is stored"
    );
    page.is_clean(&[]);
}
