//! Feeds of live venues in the program: what `/readyz` and the operator's view say of them, and that others go on.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use tickcast_test_support::DEADLINE;
use tickcast_test_support::http::send_request;
use tickcast_test_support::scripted_server::{Peer, serve_api, wait_for_end};
use tickcast_test_support::server::{Program, SMALL_MARKET, Server};
use tungstenite::Message;

const TOKEN: &str = "token-of-the-operator";

fn list(path: &str) -> Option<String> {
    let symbol = json!({"symbol": "AUSDT", "status": "TRADING", "baseAsset": "A", "quoteAsset": "USDT", "filters": [
        {"filterType": "PRICE_FILTER", "tickSize": "0.01"}, {"filterType": "LOT_SIZE", "stepSize": "0.001"}]});
    path.starts_with("/api/v3/exchangeInfo").then(|| json!({"symbols": [symbol]}).to_string())
}

/// Sends a trade after each subscription, then what `more` does.
fn venue(more: impl Fn(&mut Peer) + Clone + Send + 'static) -> SocketAddr {
    serve_api(list, move |mut peer| {
        peer.read().expect("a subscription");
        let trade = json!({"stream": "ausdt@trade", "data": {"e": "trade", "E": 1, "s": "AUSDT", "t": 7, "p": "10.50",
            "q": "2", "T": 1_700_000_000_000_u64, "m": true, "M": true}});
        peer.send(Message::text(trade.to_string())).expect("the server reads");
        more(&mut peer);
    })
}

/// A simulated market, and a feed of this venue.
fn start(venue: SocketAddr, symbols: &str) -> Server {
    let feed = format!("binance:{symbols}?channels=trade&url=ws://{venue}");
    Server::start(&["--feed", SMALL_MARKET, "--feed", &feed, "--operator-token", TOKEN])
}

fn feed(server: &Server) -> Value {
    let request = format!("GET /v1/operator HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    send_request(server.address, request.as_bytes()).json()["sources"][1].clone()
}

#[track_caller]
fn wait_for_state(server: &Server, state: &str) -> Value {
    let until = Instant::now() + DEADLINE;
    loop {
        let feed = feed(server);
        if feed["state"] == state {
            return feed;
        }
        assert!(Instant::now() < until, "not {state}: {feed}");
    }
}

fn assert_market_is_live(server: &Server) {
    server.subscriber(&["quote"], &["BTC-USD"]).until_live();
}

#[test]
fn venue_is_served_with_its_streams() {
    let server = start(venue(wait_for_end), "AUSDT");
    let feed = wait_for_state(&server, "live");
    assert_eq!(feed["streams"]["counts"]["live"], 1, "{feed}");
    assert_eq!(feed["streams"]["list"][0]["name"], "AUSDT.trade", "{feed}");
    let snapshot = server.get("/v1/snapshot/AUSDT").json();
    assert_eq!(snapshot["trade"]["trade_id"], 7, "{snapshot}");
    assert_eq!(server.get("/readyz").json(), json!({"status": "ready"}));
}

#[test]
fn venue_that_is_down_is_named_and_retried_and_the_others_go_on() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let server = start(free, "AUSDT");
    server.wait_for_metric("tickcast_feed_restarts_total", |count| count >= 2);
    let parts = ["feed 1 (binance:AUSDT", "has failed", "connection refused: nothing listens there", "again"];
    server.get("/readyz").assert_refusal(503, "unavailable", &parts);
    assert_market_is_live(&server);
}

#[test]
fn unknown_symbol_ends_the_feed_with_similar_names_and_the_others_go_on() {
    let server = start(venue(wait_for_end), "AUSDT,AUSD");
    wait_for_state(&server, "failed");
    let parts = ["unknown symbol", "AUSD", "such as AUSDT", "correct the --feed argument", "is not opened again"];
    server.get("/readyz").assert_refusal(503, "unavailable", &parts);
    assert_market_is_live(&server);
}

#[test]
fn lost_connection_is_opened_again_without_a_restart_of_the_feed() {
    let connections = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&connections);
    let venue = venue(move |peer| {
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            drop(peer.close(None));
        }
        wait_for_end(peer);
    });
    let server = start(venue, "AUSDT");
    let until = Instant::now() + DEADLINE;
    while connections.load(Ordering::SeqCst) < 2 {
        assert!(Instant::now() < until, "it is not opened again");
        server.get("/readyz");
    }
    // The feed as a whole was not opened again.
    let feed = wait_for_state(&server, "live");
    assert_eq!(feed["restarts"], 0, "{feed}");
    assert_market_is_live(&server);
}

#[test]
fn malformed_argument_is_rejected_at_the_start() {
    for (feed, part) in [
        ("binance:AUSDT?url=http://h", "the scheme is neither wss nor ws"),
        ("kraken:A?depth=3", "expected one of 10, 25, 100, 500, 1000"),
        ("okx:", "empty symbol"),
        ("okx:A?ca_file=/nonexistent/ca.pem", "ca_file: /nonexistent/ca.pem: "),
    ] {
        let exit = Program::run(&["--feed", feed]);
        assert_eq!(exit.code, Some(2), "{feed}: {exit:?}");
        assert!(exit.stderr.contains(part), "{feed}: {}", exit.stderr);
    }
}
