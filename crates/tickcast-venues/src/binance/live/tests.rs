//! The procedure for a local book over HTTP and the stream, and the other messages of a connection.

use tickcast_protocol::Channel;

use crate::sink::{Event, Notice, StreamName};
use crate::test_records::{Bench, S};
use crate::{StreamState, Venue};

fn depth(first: u64, last: u64, size: &str) -> String {
    format!(
        r#"{{"stream":"bnbbtc@depth@100ms","data":{{"e":"depthUpdate","E":1672515782136,"s":"BNBBTC","U":{first},"u":{last},
            "b":[["0.0024","{size}"]],"a":[]}}}}"#
    )
}

fn snapshot(id: u64) -> String {
    format!(r#"{{"lastUpdateId":{id},"bids":[["0.0023","7"]],"asks":[["0.0026","100"]]}}"#)
}

/// A codec whose list was taken and whose book is subscribed.
fn subscribed() -> Bench {
    let mut bench = Bench::new(Venue::Binance);
    let request = bench.rest().expect("the list is asked for");
    assert_eq!(request.path, "/api/v3/exchangeInfo");
    let list = r#"{"symbols":[{"symbol":"BNBBTC","status":"TRADING","baseAsset":"BNB","quoteAsset":"BTC","filters":[
        {"filterType":"PRICE_FILTER","minPrice":"0.00010000","tickSize":"0.00010000"},
        {"filterType":"LOT_SIZE","stepSize":"1.00000000"}]}]}"#;
    bench.answer(&request, list).expect("a list");
    let sent = bench.subscribe(&["BNBBTC"], &[Channel::Book]);
    assert_eq!(sent, [r#"{"id":1,"method":"SUBSCRIBE","params":["bnbbtc@depth@100ms"]}"#]);
    assert_eq!(bench.drain(), ["define BNBBTC@binance -4 0 tick 0.0001 lot 1 T"]);
    bench.records(r#"{"result":null,"id":1}"#);
    bench
}

#[test]
fn snapshot_is_asked_for_after_the_first_update_and_joins_the_held_ones() {
    let mut bench = subscribed();
    assert!(bench.rest().is_none(), "no update was held yet");
    assert_eq!(bench.records(&depth(11, 12, "1")), [""; 0]);
    let request = bench.rest().expect("a snapshot is asked for");
    assert_eq!(request.path, "/api/v3/depth?symbol=BNBBTC&limit=5000");
    assert_eq!(bench.records(&depth(13, 15, "2")), [""; 0]);
    assert!(bench.rest().is_none(), "the answer is awaited");

    bench.answer(&request, &snapshot(9)).expect("a snapshot that is too old");
    assert_eq!(bench.drain(), [""; 0]);
    assert!(bench.rest().is_none(), "not so soon after the former request");
    bench.now_ns += S;
    let request = bench.rest().expect("another is asked for");
    bench.answer(&request, &snapshot(12)).expect("a snapshot");
    assert_eq!(bench.drain(), ["book S B0.0023x7 A0.0026x100", "book D B0.0024x2"]);
    assert_eq!(bench.records(&depth(16, 17, "3")), ["book D B0.0024x3"]);
}

#[test]
fn missing_update_voids_the_book_and_asks_for_a_snapshot() {
    let mut bench = subscribed();
    bench.records(&depth(11, 12, "1"));
    let request = bench.rest().expect("a snapshot is asked for");
    bench.answer(&request, &snapshot(12)).expect("a snapshot");
    bench.drain();
    assert_eq!(bench.records(&depth(14, 15, "3")), ["book S?"]);
    assert_eq!(bench.report.book_gaps, 1);
    bench.now_ns += S;
    let request = bench.rest().expect("a snapshot is asked for");
    bench.codec.on_rest_failed(&request, bench.now_ns);
    bench.now_ns += 2 * S;
    let request = bench.rest().expect("it is asked for again");
    assert!(bench.answer(&request, r#"{"code":-1003,"msg":"Too many requests"}"#).is_err());
    bench.now_ns += 4 * S;
    let request = bench.rest().expect("it is asked for again");
    bench.answer(&request, &snapshot(14)).expect("a snapshot");
    assert_eq!(bench.drain(), ["book S B0.0023x7 A0.0026x100", "book D B0.0024x3"]);
}

#[test]
fn answers_and_notices_are_events() {
    let mut bench = subscribed();
    let stream = StreamName { symbol: "BNBBTC".to_owned(), channel: Channel::Book };
    bench.records(r#"{"code":2,"msg":"Invalid request: unknown stream","id":"x"}"#);
    bench.records(r#"{"e":"serverShutdown","E":1770123456789}"#);
    bench.records(r#"{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}"#);
    let closing = Event::Notice(Notice::Closing { reason: "serverShutdown".to_owned() });
    let reason = "Invalid request: unknown stream".to_owned();
    assert_eq!(
        bench.events,
        [Event::Subscribed(stream.clone()), Event::Refused { stream: None, reason }, closing.clone(), closing,]
    );
    // USD-M's retired paths acknowledge, and send nothing.
    bench.tick(61);
    assert_eq!(bench.codec.stream_state(&stream), StreamState::Silent);
}

#[test]
fn futures_have_their_own_paths_and_streams() {
    for (venue, list, depth, name) in [
        (Venue::BinanceUsdM, "/fapi/v1/exchangeInfo", "/fapi/v1/depth?symbol=", "define BTCUSDT-PERP@binance-usdm"),
        (Venue::BinanceCoinM, "/dapi/v1/exchangeInfo", "/dapi/v1/depth?symbol=", "define BTCUSDT@binance-coinm"),
    ] {
        let mut bench = Bench::new(venue);
        assert_eq!(bench.rest().expect("the list is asked for").path, list);
        let sent = bench.subscribe(&["BTCUSDT"], &[Channel::Trade, Channel::Quote, Channel::Ticker, Channel::Book]);
        let streams = r#"["btcusdt@bookTicker","btcusdt@aggTrade","btcusdt@ticker","btcusdt@depth@100ms"]"#;
        assert_eq!(sent, [format!(r#"{{"id":1,"method":"SUBSCRIBE","params":{streams}}}"#)]);
        let update = r#"{"stream":"x","data":{"e":"depthUpdate","E":1626992741037,"T":1626992741024,"s":"BTCUSDT",
            "U":5,"u":6,"pu":4,"b":[["7.5","813"]],"a":[]}}"#;
        assert!(bench.records(update)[0].starts_with(name));
        let path = bench.rest().expect("a snapshot is asked for").path;
        assert!(path.starts_with(depth) && path.ends_with("&limit=1000"), "{path}");
    }
    let mut bench = Bench::new(Venue::Binance);
    bench.rest();
    bench.subscribe(&["币安人生USDT"], &[Channel::Book]);
    bench.records(&depth(1, 2, "1").replace("BNBBTC", "币安人生USDT"));
    let path = bench.rest().expect("a snapshot is asked for").path;
    assert!(path.starts_with("/api/v3/depth?symbol=%E5%B8%81%E5%AE%89"), "{path}");
}
