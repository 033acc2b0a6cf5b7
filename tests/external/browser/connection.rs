//! Connections that are lost, servers that are started again, and pages that nobody looks at.

use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::chromium::{Page, tick};
use super::client::importing;
use super::market::{PUBLISHED, Publisher};
use super::wire::Wire;
use tickcast_test_support::server::{Program, SMALL_MARKET, Server};

/// What a browser says by itself where nobody listens, or a connection breaks.
pub const LOST: &[&str] =
    &["WebSocket connection to", "ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE"];
const SYMBOLS: &[&str] = &["AAA-USD", "BBB-USD"];

/// A server at the address of one that has gone.
pub fn at(address: SocketAddr, args: &[&str]) -> Server {
    Server::spawn(Program::command(&[args, &["--listen", &address.to_string()]].concat()))
}

fn texts(values: &Value) -> Vec<&str> {
    values.as_array().expect("a list").iter().map(|value| value.as_str().unwrap_or("")).collect()
}

#[test]
fn a_restarted_server_makes_prices_stale_then_resyncing_then_live_with_the_new_values() {
    let Some(_turn) = tick() else { return };
    let server = Server::start(&[PUBLISHED, &["--drain-ms", "0"]].concat());
    let address = server.address;
    let mut publisher = Publisher::open(&server, SYMBOLS);
    publisher.quote(0, 10_000).trade(0, 10_000, 1).book(0, 10_000, 5).quote(1, 20_000).send();
    let page = Page::open(&server, "/#/AAA-USD");
    page.until_live();
    page.until("probe.field('AAA-USD', 'bid') === '100.00' && probe.field('BBB-USD', 'bid') === '200.00'");
    page.until("probe.lines('.bids li')[0]?.cells[0] === '99.99'");
    page.run("probe.watch('row', '[data-row=AAA-USD]', 'data-state'); probe.watch('body', 'body', 'data-connection')");
    // Beside it a client of its own, which tells by events.
    let small = importing(&Wire::to(address));
    small.run(
        "globalThis.states = [];
         globalThis.client = tickcast.connect();
         await client.subscribe({ symbols: '*', channels: ['quote', 'trade', 'book'] }).ready",
    );
    small.until("client.state('AAA-USD') === 'LIVE'");
    small.run("client.on('state', ({ symbol, state }) => symbol === 'AAA-USD' && states.push(state))");

    let exit = server.stop(Signal::TERM);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    page.until("document.body.dataset.connection === 'reconnecting'");
    page.until("probe.field('AAA-USD', 'state') === 'STALE'");
    assert_eq!(page.get("probe.field('AAA-USD', 'bid')"), "100.00", "the last value is still there");
    page.until("!document.querySelector('[data-panel=banner]').hidden");
    page.picture("disconnected");

    let server = at(address, PUBLISHED);
    // It is there, and knows nothing yet of what is shown.
    page.until_live();
    page.until("probe.field('AAA-USD', 'state') === 'RESYNCING'");
    small.until("client.state('AAA-USD') === 'RESYNCING'");
    assert_eq!(page.get("probe.field('AAA-USD', 'bid')"), "100.00");
    // In another order, so that numbers of instruments differ.
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
    assert_eq!(page.get("probe.watched.row"), json!(["LIVE", "STALE", "RESYNCING", "LIVE"]));
    small.until("client.state('AAA-USD') === 'LIVE'");
    small.until("states.at(-1) === 'LIVE'");
    assert_eq!(small.get("states"), json!(["STALE", "RESYNCING", "LIVE"]));
    assert_eq!(small.get("client.format(0, client.quotes.bidPx[client.instruments.row('AAA-USD')])"), "111.11");
    // The page may ask for history before the new server knows the instrument.
    page.is_clean(&[LOST, &["404"]].concat());
    small.is_clean(LOST);
}

#[test]
fn a_cut_connection_goes_on_from_history_without_a_gap() {
    let Some(_turn) = tick() else { return };
    let server = Server::start(PUBLISHED);
    let wire = Wire::to(server.address);
    let mut publisher = Publisher::open(&server, SYMBOLS);
    publisher.trade(0, 10_000, 1).send();
    let page = importing(&wire);
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
        // More is on its way while it is cut.
        send(500, &mut publisher);
        wire.cut();
        let last = send(500, &mut publisher);
        page.until(&format!("sequences.at(-1) === {last} && client.stats.reconnects >= {round}"));
        page.until("client.connection.phase === 'live' && client.connection.resumed === 'replay'");
    }
    let holes = page.get("sequences.filter((sequence, at) => at > 0 && sequence !== sequences[at - 1] + 1)");
    assert_eq!(holes, json!([]), "sequences that do not follow the one before");
    assert_eq!(page.get("gaps"), 0);
    assert_eq!(page.get("client.stats.gaps"), 0);
    page.is_clean(LOST);
}

#[test]
fn a_server_that_falls_silent_makes_prices_stale_until_it_is_heard_again() {
    let Some(_turn) = tick() else { return };
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
    assert_eq!(page.get("probe.field('AAA-USD', 'bid')"), "100.00", "the last value is still there");
    server.program.signal(Signal::CONT);
    publisher.quote(0, 12_345).send();
    page.until("probe.field('AAA-USD', 'bid') === '123.45' && probe.field('AAA-USD', 'state') === 'LIVE'");
    page.until_live();
    page.until("document.querySelector('[data-panel=banner]').hidden");
    page.is_clean(LOST);
}

#[test]
fn a_page_that_is_opened_while_the_server_is_away_says_so_and_comes_live_with_it() {
    let Some(_turn) = tick() else { return };
    let server = Server::start(&["--feed", SMALL_MARKET]);
    let wire = Wire::to(server.address);
    wire.refuse_streams(true);
    let page = Page::open_at(wire.address, "/", json!({}));
    page.until("document.body?.dataset.connection === 'reconnecting'");
    page.until("!document.querySelector('[data-panel=banner]').hidden");
    let title = page.get("probe.text('[data-field=banner-title]')");
    assert!(title.as_str().is_some_and(|title| title.contains("Reconnecting")), "{title}");
    assert_eq!(page.get("document.querySelectorAll('[data-row]').length"), 0);
    page.picture("away");
    wire.refuse_streams(false);
    page.until_live();
    page.until("probe.field('SPY', 'state') === 'LIVE'");
    page.until("document.querySelector('[data-panel=banner]').hidden");
    page.is_clean(LOST);
}

#[test]
fn a_hidden_page_takes_the_slower_profile_and_takes_it_back() {
    let Some(_turn) = tick() else { return };
    let server = Server::start(&["--feed", SMALL_MARKET]);
    let page = importing(&Wire::to(server.address));
    page.run(
        "globalThis.asked = [];
         class Telling extends WebSocket {
           send(text) {
             const { op, conflate_ms: ms } = JSON.parse(text);
             if (op === 'subscribe') asked.push(ms);
             super.send(text);
           }
         }
         globalThis.client = tickcast.connect({ WebSocket: Telling, conflateMs: 50 });
         await client.subscribe({ symbols: '*', channels: ['quote', 'ticker'] }).ready",
    );
    assert_eq!(page.get("[document.visibilityState, client.hidden, asked.at(-1)]"), json!(["visible", false, 50]));
    page.run("probe.hide(true)");
    page.until("client.hidden && asked.at(-1) === 1000");
    page.run("probe.hide(false)");
    page.until("!client.hidden && asked.at(-1) === 50");
    page.is_clean(&[]);
}
