//! The source over real connections, to a venue that is played by a thread.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tickcast_protocol::RecordKind;
use tickcast_protocol::record::{self, Trade};
use tickcast_test_support::DEADLINE;
use tickcast_test_support::scripted_server::{Peer, respond, serve_api, wait_for_end};
use tickcast_venues::{RequestLimit, Venue};
use tungstenite::Message;

use super::*;
use crate::ingest::transport::budget::{BUDGETS, Use};

const LIST: &str = r#"{"symbols":[{"symbol":"AUSDT","status":"TRADING","baseAsset":"A","quoteAsset":"USDT","filters":[
    {"filterType":"PRICE_FILTER","tickSize":"0.01"},{"filterType":"LOT_SIZE","stepSize":"0.001"}]}]}"#;

fn open(server: SocketAddr, argument: &str) -> Result<VenueSource, SourceError> {
    let separator = if argument.contains('?') { '&' } else { '?' };
    let text = format!("{argument}{separator}url=ws://{server}");
    let params = Params::parse(Venue::Binance, &text).expect("a valid argument");
    VenueSource::open(&params, &Arc::default(), None, &Stop::default())
}

/// Why the source cannot be opened, without the address.
fn open_error(server: SocketAddr) -> (String, Duration) {
    match open(server, "AUSDT").expect_err("it cannot be opened") {
        SourceError::Retry { reason, after } => (reason.replace(&server.to_string(), "HOST"), after),
        error => panic!("{error:?}"),
    }
}

fn list(path: &str) -> Option<String> {
    path.starts_with("/api/v3/exchangeInfo").then(|| LIST.to_owned())
}

fn trade(id: u64) -> Message {
    let fields = format!(r#""e":"trade","E":1,"s":"AUSDT","t":{id},"p":"10.50","q":"1","T":1700000000000"#);
    Message::text(format!(r#"{{"stream":"ausdt@trade","data":{{{fields},"m":true,"M":true}}}}"#))
}

/// The ids of trades, until there are this many.
fn trades(source: &mut VenueSource, count: usize) -> Vec<u64> {
    let until = Instant::now() + DEADLINE;
    let (mut ids, mut batch) = (Vec::new(), Batch::default());
    while ids.len() < count {
        assert!(Instant::now() < until, "only {ids:?}");
        batch.clear();
        let now_ns = now_ns();
        let times = Times { now_ns, wall_offset_ns: 0, deadline_ns: now_ns + POLL_NS };
        source.receive(times, &mut batch).expect("the source goes on");
        let trades = record::records(&batch.records)
            .filter(|(header, _)| header.known_kind() == Some(RecordKind::Trade))
            .filter_map(|(_, bytes)| Trade::read(bytes));
        ids.extend(trades.map(|trade| trade.trade_id));
    }
    ids
}

#[test]
fn addresses_of_all_venues_are_valid_and_another_server_keeps_their_paths() {
    let server = Address::parse("ws://127.0.0.1:9", SCHEMES).expect("a URL");
    for venue in Venue::ALL {
        let access = venue.access();
        let (own, rest) = targets(&access, None);
        assert!(rest.is_secure && rest.path == "/", "{venue:?}");
        let (others, rest) = targets(&access, Some(&server));
        assert_eq!(rest.authority(), "127.0.0.1:9");
        for ((own, other), endpoint) in own.iter().zip(&others).zip(access.endpoints) {
            let usual = endpoint.url.trim_end_matches('/');
            assert_eq!(own.address.url(SCHEMES).trim_end_matches('/'), usual);
            assert_eq!((other.address.authority().as_str(), &other.address.path), ("127.0.0.1:9", &own.address.path));
        }
    }
}

#[test]
fn symbols_are_checked_and_subscribed_and_a_lost_connection_is_opened_again() {
    let connections = Arc::new(AtomicU64::new(0));
    let server = serve_api(list, move |mut peer: Peer| {
        let nth = connections.fetch_add(1, Ordering::Relaxed);
        let request = peer.read().expect("a subscription");
        assert!(request.to_text().is_ok_and(|text| text.contains("ausdt@trade")), "{request:?}");
        peer.send(Message::Ping("x".into())).expect("the source reads");
        let pong = peer.read().expect("an answer");
        assert_eq!(pong, Message::Pong("x".into()));
        // From the second connection on, the first one was sent before.
        for id in [2 * nth, 2 * nth + 1, 2 * nth + 2] {
            peer.send(trade(id)).expect("the source reads");
        }
        drop(peer.close(None));
    });
    let mut source = open(server, "AUSDT?channels=trade").expect("the venue is there");
    assert_eq!(trades(&mut source, 3), [0, 1, 2]);
    assert_eq!(trades(&mut source, 2), [3, 4], "on another connection");
    assert_eq!(source.report().malformed, 0);
}

#[test]
fn unknown_symbol_is_fatal_with_what_to_do() {
    let server = serve_api(list, |mut peer: Peer| wait_for_end(&mut peer));
    let error = open(server, "AUSD").expect_err("it is not listed").to_string();
    let expected = "binance: unknown symbol \"AUSD\": expected one of its 1 instruments, such as AUSDT: correct the \
                    --feed argument, and restart the server";
    assert_eq!(error, expected);
}

#[test]
fn failure_says_what_the_server_said() {
    let list = |text: &str| format!("the list of instruments cannot be had: HOST: {text}");
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    assert_eq!(open_error(free).0, list("connection refused: nothing listens there"));

    let server = respond("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nslow");
    let (reason, after) = open_error(server);
    let expected = "the request for /api/v3/exchangeInfo was answered with HTTP 429: too many requests; nothing is asked \
                    of it for 7 s (slow)";
    assert_eq!((reason, after), (list(expected), Duration::from_secs(7)));
    let limit = RequestLimit { burst: 10, interval_ns: 1 };
    for use_ in [Use::Connect, Use::Request] {
        assert!(BUDGETS.open_ns(&server.to_string(), use_, limit, now_ns()) > now_ns(), "{use_:?}: it is not asked");
    }

    let server = respond("HTTP/1.1 451 Unavailable\r\nContent-Length: 0\r\n\r\n");
    let reason = open_error(server).0;
    assert!(reason.contains("HTTP 451: it does not serve this address: venues block regions"), "{reason}");

    let server = respond("SSH-2.0-OpenSSH\r\n\r\n");
    let reason = open_error(server).0;
    assert!(reason.starts_with("the list of instruments cannot be had: HOST: the request for "), "{reason}");

    let server = serve_api(|_| Some("{}".to_owned()), |mut peer: Peer| wait_for_end(&mut peer));
    let reason = open_error(server).0;
    let expected = "the list of instruments cannot be had: answer to /api/v3/exchangeInfo: key \"symbols\"";
    assert!(reason.starts_with(expected), "{reason}");

    // The list is there, and WebSockets are not.
    let answer = |path: &str| Some(if path.starts_with("/api") { LIST } else { "not here" }.to_owned());
    let server = serve_api(answer, |mut peer: Peer| wait_for_end(&mut peer));
    let reason = open_error(server).0;
    let expected = "HOST: the request for a WebSocket was answered with HTTP 200: another answer was expected; is url= \
                    that of this venue? (not here)";
    assert_eq!(reason, expected);
}

#[test]
fn end_of_the_server_ends_the_wait() {
    let server = serve_api(list, |mut peer: Peer| wait_for_end(&mut peer));
    let params = Params::parse(Venue::Binance, &format!("AUSDT?url=ws://{server}")).expect("a valid argument");
    let stop = Stop::default();
    let mut source = VenueSource::open(&params, &Arc::default(), None, &stop).expect("the venue is there");
    stop.stop();
    let mut batch = Batch::default();
    let times = Times { now_ns: now_ns(), wall_offset_ns: 0, deadline_ns: u64::MAX };
    for _ in 0..3 {
        assert_eq!(source.receive(times, &mut batch), Ok(Next::Now));
    }
}
