//! Lost connections, restarted servers, and hidden pages.

use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::chromium::{Page, shared_browser};
use super::client::importing;
use super::market::{PUBLISHED, Publisher};
use super::proxy::Proxy;
use tickcast_test_support::server::{Program, SMALL_MARKET, Server};

/// The browser's own console messages for a refused or lost connection.
pub const LOST: &[&str] =
    &["WebSocket connection to", "ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE"];
const SYMBOLS: &[&str] = &["AAA-USD", "BBB-USD"];

/// Starts a server at the address of a stopped one.
pub fn at(address: SocketAddr, args: &[&str]) -> Server {
    Server::spawn(Program::command(&[args, &["--listen", &address.to_string()]].concat()))
}

fn texts(values: &Value) -> Vec<&str> {
    values.as_array().expect("a list").iter().map(|value| value.as_str().unwrap_or("")).collect()
}

#[test]
fn restart_makes_prices_stale_resyncing_then_live() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(&[PUBLISHED, &["--drain-ms", "0"]].concat());
    let address = server.address;
    let mut publisher = Publisher::open(&server, SYMBOLS);
    publisher.quote(0, 10_000).trade(0, 10_000, 1).book(0, 10_000, 5).quote(1, 20_000).send();
    let page = Page::open(&server, "/#/AAA-USD");
    page.until_live();
    page.until("probe.field('AAA-USD', 'bid') === '100.00' && probe.field('BBB-USD', 'bid') === '200.00'");
    page.until("probe.lines('.bids li')[0]?.cells[0] === '99.99'");
    page.run("probe.watch('row', '[data-row=AAA-USD]', 'data-state'); probe.watch('body', 'body', 'data-connection')");
    // Another page, which records events of the client.
    let client_page = importing(&Proxy::to(address));
    client_page.run(
        "globalThis.states = [];
         globalThis.client = tickcast.connect();
         await client.subscribe({ symbols: '*', channels: ['quote', 'trade', 'book'] }).ready",
    );
    client_page.until("client.state('AAA-USD') === 'LIVE'");
    client_page.run("client.on('state', ({ symbol, state }) => symbol === 'AAA-USD' && states.push(state))");

    let exit = server.stop(Signal::TERM);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    page.until("document.body.dataset.connection === 'reconnecting'");
    page.until("probe.field('AAA-USD', 'state') === 'STALE'");
    assert_eq!(page.get("probe.field('AAA-USD', 'bid')"), "100.00", "the last value is still shown");
    page.until("!document.querySelector('[data-panel=banner]').hidden");
    page.screenshot("disconnected");

    let server = at(address, PUBLISHED);
    // The new server has no instruments yet.
    page.until_live();
    page.until("probe.text('#watchlist-fold') === '2 not back'");
    page.click("#watchlist-fold button");
    page.until("probe.field('AAA-USD', 'state') === 'NOT BACK'");
    page.until(
        "probe.text('[data-panel=watchlist] [data-field=count]') === '0 instruments, 2 not back since the restart'",
    );
    client_page.until("client.state('AAA-USD') === 'UNKNOWN'");
    assert_eq!(page.get("probe.field('AAA-USD', 'bid')"), "100.00");
    // In another order, so that the ids of instruments differ.
    let mut publisher = Publisher::open(&server, &["NEW-USD", "BBB-USD", "AAA-USD"]);
    publisher.quote(2, 11_111).trade(2, 11_112, 9).book(2, 11_100, 5).quote(1, 22_222).quote(0, 33_333).send();
    page.until("probe.field('AAA-USD', 'bid') === '111.11' && probe.field('AAA-USD', 'state') === 'LIVE'");
    page.until("probe.field('BBB-USD', 'bid') === '222.22' && probe.field('NEW-USD', 'bid') === '333.33'");
    page.until("probe.lines('.bids li')[0]?.cells[0] === '110.99' && probe.field('AAA-USD', 'last') === '111.12'");
    page.until("document.querySelector('[data-panel=banner]').hidden");

    let connection = page.get("probe.watched.body");
    let connection = texts(&connection);
    assert_eq!((connection.first(), connection.last()), (Some(&"live"), Some(&"live")), "{connection:?}");
    assert!(connection.contains(&"reconnecting"), "{connection:?}");
    page.until("probe.text('[data-panel=watchlist] [data-field=count]') === '3 instruments'");
    // A frame shows the last of its states: the snapshot may be complete before the first frame.
    // While it is folded away, the row is not in the document.
    let states = page.get("probe.watched.row.filter((state) => state !== null && state !== 'RESYNCING')");
    assert_eq!(states, json!(["LIVE", "STALE", "UNKNOWN", "LIVE"]));
    client_page.until("client.state('AAA-USD') === 'LIVE'");
    client_page.until("states.at(-1) === 'LIVE'");
    assert_eq!(client_page.get("states"), json!(["STALE", "RESYNCING", "UNKNOWN", "LIVE"]));
    assert_eq!(client_page.get("client.format(0, client.quotes.bidPx[client.instruments.row('AAA-USD')])"), "111.11");
    // The page may request history before the instrument is defined again.
    page.is_clean(&[LOST, &["404"]].concat());
    client_page.is_clean(LOST);
}

#[test]
fn lost_connection_resumes_without_a_gap() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let proxy = Proxy::to(server.address);
    let mut publisher = Publisher::open(&server, SYMBOLS);
    publisher.trade(0, 10_000, 1).send();
    let page = importing(&proxy);
    page.run(
        "globalThis.sequences = []; globalThis.gaps = 0;
         globalThis.client = tickcast.connect();
         client.on('gap', () => (gaps += 1));
         (async () => {
           for await (const { sequence } of client.trades('AAA-USD')) sequences.push(sequence);
         })();
         await client.subscribe({ symbols: 'AAA-USD', channels: 'trade' }).ready",
    );
    let mut id = 1;
    let mut send = |count: u64, publisher: &mut Publisher| {
        for _ in 0..count {
            id += 1;
            publisher.trade(0, 10_000, id);
        }
        publisher.send();
        id
    };
    for round in 1..=5 {
        let known = send(200, &mut publisher);
        page.until(&format!("sequences.at(-1) === {known}"));
        // The connection is lost while these are under way.
        send(500, &mut publisher);
        proxy.cut();
        let last = send(500, &mut publisher);
        page.until(&format!("sequences.at(-1) === {last} && client.stats.reconnects >= {round}"));
        page.until("client.connection.phase === 'live' && client.connection.resumed === 'replay'");
    }
    let out_of_order = page.get("sequences.filter((sequence, at) => at > 0 && sequence !== sequences[at - 1] + 1)");
    assert_eq!(out_of_order, json!([]), "sequences that do not follow the previous one");
    assert_eq!(page.get("gaps"), 0);
    assert_eq!(page.get("client.stats.gaps"), 0);
    page.is_clean(LOST);
}

#[test]
fn silent_server_makes_prices_stale() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(&[PUBLISHED, &["--heartbeat-ms", "500"]].concat());
    let mut publisher = Publisher::open(&server, SYMBOLS);
    publisher.quote(0, 10_000).send();
    let page = Page::open(&server, "/#/AAA-USD");
    page.until_live();
    page.until("probe.field('AAA-USD', 'bid') === '100.00' && probe.field('AAA-USD', 'state') === 'LIVE'");
    page.run("probe.watch('body', 'body', 'data-connection')");
    server.program.signal(Signal::STOP);
    page.until("probe.watched.body.includes('stale')");
    page.until("probe.field('AAA-USD', 'state') === 'STALE'");
    page.until("!document.querySelector('[data-panel=banner]').hidden");
    assert_eq!(page.get("probe.field('AAA-USD', 'bid')"), "100.00", "the last value is still shown");
    server.program.signal(Signal::CONT);
    publisher.quote(0, 12_345).send();
    page.until("probe.field('AAA-USD', 'bid') === '123.45' && probe.field('AAA-USD', 'state') === 'LIVE'");
    page.until_live();
    page.until("document.querySelector('[data-panel=banner]').hidden");
    page.is_clean(LOST);
}

#[test]
fn page_opened_without_a_server_connects_later() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(&["--feed", SMALL_MARKET]);
    let proxy = Proxy::to(server.address);
    proxy.refuse_streams(true);
    let page = Page::open_at(proxy.address, "/", json!({}));
    page.until("document.body?.dataset.connection === 'reconnecting'");
    page.until("!document.querySelector('[data-panel=banner]').hidden");
    let title = page.get("probe.text('[data-field=banner-title]')");
    assert!(title.as_str().is_some_and(|title| title.contains("Reconnecting")), "{title}");
    assert_eq!(page.get("document.querySelectorAll('[data-row]').length"), 0);
    page.screenshot("unreachable");
    proxy.refuse_streams(false);
    // The button tries again, and keeps the page; without it the next attempt comes by itself.
    page.run("globalThis.isTheSame = true; document.querySelector('[data-action=reconnect]').click()");
    page.until_live();
    assert_eq!(page.get("globalThis.isTheSame"), true);
    page.until("probe.field('SPY', 'state') === 'LIVE'");
    page.until("document.querySelector('[data-panel=banner]').hidden");
    page.is_clean(LOST);
}

#[test]
fn hidden_page_uses_the_longer_interval() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(&["--feed", SMALL_MARKET]);
    let page = importing(&Proxy::to(server.address));
    page.run(
        "globalThis.intervals = [];
         class Recording extends WebSocket {
           send(text) {
             const { op, conflate_ms: ms } = JSON.parse(text);
             if (op === 'subscribe') intervals.push(ms);
             super.send(text);
           }
         }
         globalThis.client = tickcast.connect({ WebSocket: Recording, conflateMs: 50 });
         await client.subscribe({ symbols: '*', channels: ['quote', 'ticker'] }).ready",
    );
    assert_eq!(page.get("[document.visibilityState, client.hidden, intervals.at(-1)]"), json!(["visible", false, 50]));
    page.run("probe.hide(true)");
    page.until("client.hidden && intervals.at(-1) === 1000");
    page.run("probe.hide(false)");
    page.until("!client.hidden && intervals.at(-1) === 50");
    page.is_clean(&[]);
}
