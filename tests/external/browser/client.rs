//! The JavaScript client, as a page of somebody else would have it: `import "/tickcast.js"` and no more.

use serde_json::json;

use super::chromium::{Page, tick};
use super::market::{Beat, PUBLISHED, Publisher};
use super::wire::Wire;
use tickcast_test_support::server::{SMALL_MARKET, Server};

/// A page of somebody else's at the other end of a wire, with the library as `tickcast`.
pub fn importing(wire: &Wire) -> Page {
    let page = Page::open_at(wire.address, "/small.html", json!({}));
    page.until("document.readyState === 'complete' && location.pathname === '/small.html'");
    page.run("globalThis.tickcast = await import('/tickcast.js')");
    page
}

fn small(server: &Server) -> Page {
    importing(&Wire::to(server.address))
}

/// A client that lists what is asked of the server at this time, as `channel symbol`.
const TELLING: &str = "
    globalThis.asked = new Set();
    globalThis.requests = 0;
    class Telling extends WebSocket {
      send(text) {
        const { op, symbols = [], channels = [] } = JSON.parse(text);
        if (op === 'subscribe' || op === 'unsubscribe') requests += 1;
        for (const symbol of symbols) for (const channel of channels) {
          if (op === 'subscribe') asked.add(`${channel} ${symbol}`);
          if (op === 'unsubscribe') asked.delete(`${channel} ${symbol}`);
        }
        super.send(text);
      }
    }
    globalThis.client = tickcast.connect({ WebSocket: Telling })";

#[test]
fn the_client_subscribes_and_unsubscribes_and_counts_who_still_wants_what() {
    let Some(_turn) = tick() else { return };
    let server = Server::start(&["--feed", SMALL_MARKET]);
    let page = small(&server);
    page.run(TELLING);
    page.run("globalThis.one = client.subscribe({ symbols: ['SPY', 'NO-SUCH'], channels: ['quote', 'trade'] })");
    let result = page.get("one.ready.then(({ unknown, denied, conflateMs }) => ({ unknown, denied, conflateMs }))");
    assert_eq!(result, json!({"unknown": ["NO-SUCH"], "denied": [], "conflateMs": 100}));
    page.until("client.state('SPY') === 'LIVE' && client.quotes.sequence[client.instruments.row('SPY')] > 0");
    assert_eq!(page.get("requests"), 1, "all of one task travels together");

    // The same again and something more: only what is new is asked of the server.
    page.run("globalThis.two = client.subscribe({ symbols: 'SPY', channels: 'quote' })");
    page.run("globalThis.three = client.subscribe({ symbols: '*', channels: ['ticker'] })");
    page.run("await Promise.all([two.ready, three.ready])");
    let asked = "[...asked].filter((what) => !what.endsWith('NO-SUCH')).sort().join()";
    assert_eq!(page.get(asked), "quote SPY,ticker *,trade SPY");
    page.run("one.close()");
    page.until(&format!("{asked} === 'quote SPY,ticker *'"));
    // The quotes are still wanted by the other one.
    let sequence = "client.quotes.sequence[client.instruments.row('SPY')]";
    let before = page.get(sequence);
    page.until(&format!("{sequence} > {before}"));
    assert_eq!(page.get("client.state('SPY')"), "LIVE");
    page.run("two[Symbol.dispose]()");
    page.until(&format!("{asked} === 'ticker *'"));
    assert_eq!(page.get("[one.closed, two.closed, three.closed]"), json!([true, true, false]));
    page.run("client.close()");
    assert_eq!(page.get("client.closed.then(({ phase }) => phase)"), "closed");
    server.wait_for_metric("tickcast_clients", |count| count == 0);
    page.is_clean(&[]);
}

#[test]
fn callbacks_and_loops_bring_decimal_texts_until_their_signal_aborts() {
    let Some(_turn) = tick() else { return };
    let server = Server::start(PUBLISHED);
    let mut publisher = Publisher::open(&server, &["AAA-USD"]);
    publisher.quote(0, 10_000).send();
    let page = small(&server);
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
    // The loop's own subscription is answered no later than this one, which asks for the same.
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
    let told = json!({"channel": "trade", "symbol": "AAA-USD", "sequence": 1, "px": 10_001, "sz": 1001, "side": "sell",
                      "price": "100.01", "size": "1.001"});
    assert_eq!(page.get(first), told);
    page.run("ending.abort()");
    assert_eq!(page.get("looping"), "over");
    page.is_clean(&[]);
}

#[test]
fn the_socket_is_in_a_worker_and_on_the_pages_thread_where_a_worker_is_refused() {
    let Some(_turn) = tick() else { return };
    let server = Server::start(&["--feed", SMALL_MARKET]);
    let live =
        "globalThis.client = tickcast.connect(); client.subscribe({ symbols: '*' }).ready.then(() => client.worker)";
    let moving = "client.quotes.sequence.some((sequence) => sequence > 5)";

    let with_worker = small(&server);
    assert_eq!(with_worker.get(live), "module");
    with_worker.until(moving);
    with_worker.is_clean(&[]);

    let gone = small(&server);
    gone.run("delete globalThis.Worker");
    assert_eq!(gone.get(live), "none");
    gone.until(moving);
    gone.is_clean(&[]);

    let policy = "default-src 'none'; script-src 'self'; connect-src 'self'; img-src data:; worker-src 'none'";
    let refused = importing(&Wire::with_policy(server.address, policy));
    assert_eq!(refused.get(live), "none");
    refused.until(moving);
    let told = refused.get("probe.refused.splice(0)");
    assert!(told.to_string().contains("worker-src"), "the policy was in effect: {told}");
    refused.is_clean(&["worker-src"]);
}

#[test]
fn conflation_is_changed_live_and_thins_out_updates() {
    let Some(_turn) = tick() else { return };
    let server = Server::start(PUBLISHED);
    let publisher = Publisher::open(&server, &["A", "B", "C", "D", "E"]);
    let _beat = Beat::start(publisher);
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
    // Every 5 ms for each of five, if the machine has nothing else to do; then once a second for each.
    let every = rate_at("0", &format!("{updates} > 100 && {} === 0", count("conflated")));
    let slow = rate_at("1000", &format!("{updates} < 40 && {} > 0", count("conflated")));
    println!("updates a second: {every} at 0 ms, {slow} at 1000 ms");
    let again = rate_at("0", &format!("{updates} > 100"));
    println!("and {again} at 0 ms again");
    page.goto("/");
    page.until_live();
    assert_eq!(page.get("document.querySelector('[data-conflation=\"0\"]').ariaChecked"), "true", "it is remembered");
    page.is_clean(&[]);
}
