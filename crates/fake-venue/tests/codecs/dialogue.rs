//! What a venue answers to requests, right and wrong, word for word.

use std::net::TcpStream;
use std::time::Duration;

use fake_venue::{FakeVenue, Limits, Options, Rate, VenueKind};
use tickcast_test_support::DEADLINE;
use tungstenite::{Message, WebSocket};

use crate::driver::{get_path, path_of};
use crate::sessions::plain;

struct Client(WebSocket<TcpStream>);

impl Client {
    fn connect(venue: &FakeVenue, path: &str) -> Self {
        Self::try_connect(venue, path).unwrap_or_else(|status| panic!("{path} is refused with {status}"))
    }

    fn try_connect(venue: &FakeVenue, path: &str) -> Result<Self, u16> {
        let stream = TcpStream::connect(venue.address()).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        match tungstenite::client(format!("{}{path}", venue.url()), stream) {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                Err(response.status().as_u16())
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).expect("it reads");
    }

    /// The next text that has all of these parts.
    #[track_caller]
    fn expect(&mut self, parts: &[&str]) -> String {
        for _ in 0..2_000 {
            if let Message::Text(text) = self.0.read().expect("a message")
                && parts.iter().all(|part| text.contains(part))
            {
                return text.to_string();
            }
        }
        panic!("no text with {parts:?}")
    }

    /// The code of the close frame.
    #[track_caller]
    fn close_code(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.0.read().expect("a message") {
                return frame.expect("a code").code.into();
            }
        }
    }
}

fn start(kind: VenueKind, limits: impl FnOnce(&mut Limits)) -> FakeVenue {
    let mut options = plain(kind);
    limits(&mut options.limits);
    FakeVenue::start(options).expect("it starts")
}

/// Each line: what is sent, and the parts of the answer.
fn converse(kind: VenueKind, lines: &[(&str, &[&str])]) {
    let venue = start(kind, |limits| limits.messages.count = 1_000);
    let mut client = Client::connect(&venue, path_of(kind));
    for (request, parts) in lines {
        if !request.is_empty() {
            client.send(request);
        }
        client.expect(parts);
    }
}

#[test]
fn binance_answers_by_the_id_of_the_request() {
    converse(
        VenueKind::Binance,
        &[
            (r#"{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}"#, &[r#"{"result":null,"id":1}"#]),
            (r#"{"method":"SUBSCRIBE","params":["nosuch@trade"],"id":"x"}"#, &[r#"{"result":null,"id":"x"}"#]),
            (r#"{"method":"LIST_SUBSCRIPTIONS","id":3}"#, &[r#"{"result":["btcusdt@trade","nosuch@trade"],"id":3}"#]),
            (r#"{"method":"GET_PROPERTY","params":["combined"],"id":2}"#, &[r#"{"result":true,"id":2}"#]),
            ("", &[r#"{"stream":"btcusdt@trade","data":{"e":"trade","#]),
            (r#"{"method":"SET_PROPERTY","params":["combined",false],"id":5}"#, &[r#"{"result":null,"id":5}"#]),
            (r#"{"method":"PING"}"#, &[r#"{"e":"trade","E":"#]),
            (r#"{"method":"NONE","id":6}"#, &[r#"{"code":2,"msg":"Invalid request: unknown method NONE","id":6}"#]),
            (
                r#"{"method":"SUBSCRIBE","params":["btcusdt"],"id":7}"#,
                &[r#""code":2"#, "invalid stream btcusdt", r#""id":7"#],
            ),
            (r#"{"method":"SUBSCRIBE","params":["币安人生usdt@depth@100ms"],"id":8}"#, &[r#""s":"币安人生USDT","U":"#]),
        ],
    );
}

#[test]
fn coinbase_answers_with_all_subscriptions_or_an_error() {
    converse(
        VenueKind::Coinbase,
        &[
            (
                r#"{"type":"subscribe","product_ids":["BTC-USD"],"channels":["matches",{"name":"ticker","product_ids":["ETH-USD"]}]}"#,
                &[
                    r#""type":"subscriptions""#,
                    r#"{"name":"matches","product_ids":["BTC-USD"]}"#,
                    r#"{"name":"ticker","product_ids":["ETH-USD"]}"#,
                ],
            ),
            (
                r#"{"type":"subscribe","product_ids":["BTC-USD"],"channels":["level2_batch"]}"#,
                &[r#""type":"snapshot","product_id":"BTC-USD","asks":[["#],
            ),
            ("{}", &[r#""type":"error","message":"Invalid message type""#]),
            (
                r#"{"type":"subscribe","product_ids":["ABC-USD"],"channels":["ticker"]}"#,
                &["Failed to subscribe", "ABC-USD is not a valid product"],
            ),
            (
                r#"{"type":"subscribe","product_ids":["BTC-USD"],"channels":["level2"]}"#,
                &["Failed to subscribe", "require authentication"],
            ),
            (
                r#"{"type":"unsubscribe","product_ids":["BTC-USD"],"channels":["matches"]}"#,
                &[
                    r#""type":"subscriptions""#,
                    r#"[{"name":"level2_batch","product_ids":["BTC-USD"]},{"name":"ticker""#,
                ],
            ),
        ],
    );
}

#[test]
fn kraken_answers_each_symbol() {
    converse(
        VenueKind::Kraken,
        &[
            (r#"{"method":"ping","req_id":42}"#, &[r#"{"method":"pong","time_in":"#, r#""req_id":42}"#]),
            (
                r#"{"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD"],"depth":25},"req_id":1}"#,
                &[
                    r#"{"method":"subscribe","result":{"channel":"book","depth":25,"snapshot":true,"symbol":"BTC/USD"},"success":true"#,
                ],
            ),
            ("{}", &[r#""error":"Method not found""#]),
            (
                r#"{"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD"],"depth":25}}"#,
                &["Already subscribed"],
            ),
            (
                r#"{"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD"],"depth":26}}"#,
                &["Invalid depth"],
            ),
            (
                r#"{"method":"subscribe","params":{"channel":"trade","symbol":["ABC/USD"]}}"#,
                &[r#""error":"Currency pair not supported ABC/USD""#, r#""success":false"#, r#""symbol":"ABC/USD""#],
            ),
        ],
    );
}

#[test]
fn bybit_answers_a_request_as_a_whole() {
    converse(
        VenueKind::Bybit,
        &[
            (r#"{"op":"ping","req_id":"9"}"#, &[r#""success":true,"ret_msg":"pong""#, r#""req_id":"9","op":"ping""#]),
            (
                r#"{"op":"subscribe","args":["orderbook.50.BTCUSDT"],"req_id":"x"}"#,
                &[r#""success":true,"ret_msg":"""#, r#""req_id":"x","op":"subscribe""#],
            ),
            ("{}", &[r#""success":false"#, "handler not found"]),
            (r#"{"op":"subscribe","args":["orderbook.50.BTCUSDT"]}"#, &[r#""success":false"#, "already subscribed"]),
            (
                r#"{"op":"subscribe","args":["invalid.topic.BTCUSDT"]}"#,
                &[r#""success":false,"ret_msg":"Invalid topic: invalid.topic.BTCUSDT""#],
            ),
            (
                r#"{"op":"subscribe","args":["tickers.A","tickers.A","tickers.A","tickers.A","tickers.A","tickers.A","tickers.A","tickers.A","tickers.A","tickers.A","tickers.A"]}"#,
                &["args size >10"],
            ),
        ],
    );
}

#[test]
fn okx_answers_each_stream() {
    converse(
        VenueKind::Okx,
        &[
            ("ping", &["pong"]),
            (
                r#"{"id":"1512","op":"subscribe","args":[{"channel":"books","instId":"BTC-USDT"}]}"#,
                &[r#"{"id":"1512","event":"subscribe","arg":{"channel":"books","instId":"BTC-USDT"},"connId":""#],
            ),
            (r#"{"op":"subscribe","argss":[]}"#, &[r#""event":"error","code":"60012","msg":"Invalid request: "#]),
            (
                r#"{"op":"subscribe","args":[{"channel":"books","instId":"ABC-USDT"}]}"#,
                &[r#""code":"60018""#, "channel:books,instId:ABC-USDT doesn't exist"],
            ),
        ],
    );
}

#[test]
fn limits_are_those_that_the_venues_publish() {
    let venue = start(VenueKind::Binance, |limits| limits.streams = 2);
    let mut client = Client::connect(&venue, "/ws/btcusdt@trade");
    client.expect(&[r#"{"e":"trade""#]);
    client.send(r#"{"method":"SUBSCRIBE","params":["ethusdt@trade","ethusdt@ticker"],"id":1}"#);
    client.expect(&["too many streams: at most 2"]);
    (0..5).for_each(|_| client.send(r#"{"method":"LIST_SUBSCRIPTIONS","id":3}"#));
    assert_eq!(client.close_code(), 1008, "more than five messages in a second");

    let venue = start(VenueKind::Okx, |_| {});
    let connects: Vec<_> = (0..4).map(|_| Client::try_connect(&venue, "/ws/v5/public").map(|_| ())).collect();
    assert_eq!(connects, [Ok(()), Ok(()), Ok(()), Err(429)], "three connections in a second");

    let venue = start(VenueKind::Binance, |limits| limits.rest = Rate { count: 600, per_ms: 60_000 });
    let statuses = [0; 3].map(|_| get_path(&venue, "/api/v3/depth?symbol=BTCUSDT&limit=5000").0);
    assert_eq!(statuses, [200, 200, 429], "5,000 levels weigh 250");

    let venue = start(VenueKind::Coinbase, |limits| limits.first_request_ms = Some(50));
    assert_eq!(Client::connect(&venue, "/").close_code(), 1008);
    let venue = start(VenueKind::Okx, |limits| limits.silence_ms = Some(50));
    assert_eq!(Client::connect(&venue, "/ws/v5/public").close_code(), 4004);
    let venue = start(VenueKind::Binance, |limits| {
        limits.ping_ms = Some((20, 60));
        limits.messages.count = 1_000;
    });
    let mut client = Client::connect(&venue, "/ws");
    assert!((0..20).all(|_| matches!(client.0.read(), Ok(Message::Ping(_)))), "answered pings keep a connection");
}

#[test]
fn rest_has_lists_books_and_errors() {
    for (kind, path, status, parts) in [
        (VenueKind::Binance, "/api/v3/exchangeInfo", 200, &["PRICE_FILTER", "币安人生USDT"][..]),
        (VenueKind::Binance, "/api/v3/depth?symbol=BTCUSDT&limit=5", 200, &[r#"{"lastUpdateId":"#]),
        (VenueKind::Binance, "/api/v3/depth?symbol=%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT", 200, &["bids"]),
        (VenueKind::Binance, "/api/v3/depth?symbol=ABC", 400, &[r#"{"code":-1121,"msg":"Invalid symbol."}"#]),
        (VenueKind::BinanceUsdM, "/fapi/v1/depth?symbol=BTCUSDT&limit=1000", 200, &[r#""E":"#]),
        (VenueKind::BinanceUsdM, "/fapi/v1/depth?symbol=BTCUSDT&limit=1001", 400, &["limit is not valid"]),
        (VenueKind::BinanceCoinM, "/dapi/v1/depth?symbol=BTCUSD_PERP", 200, &[r#""pair":"BTCUSD""#]),
        (VenueKind::BinanceCoinM, "/dapi/v1/exchangeInfo", 200, &[r#""contractStatus":"TRADING""#]),
        (VenueKind::Coinbase, "/products", 200, &[r#""id":"BTC-USD""#, r#""quote_increment":"0.01""#]),
        (VenueKind::Bybit, "/v5/market/instruments-info?category=spot&limit=1000", 200, &["basePrecision"]),
        (
            VenueKind::BybitLinear,
            "/v5/market/instruments-info?category=linear&limit=1",
            200,
            &[r#""nextPageCursor":"1""#],
        ),
        (
            VenueKind::BybitLinear,
            "/v5/market/instruments-info?category=linear&limit=1&cursor=1",
            200,
            &[r#""nextPageCursor":"""#],
        ),
        (VenueKind::BybitLinear, "/v5/market/instruments-info?category=spot", 200, &[r#""retCode":10001"#]),
        (
            VenueKind::Okx,
            "/api/v5/public/instruments?instType=SWAP",
            200,
            &[r#""instId":"BTC-USDT-SWAP""#, r#""tickSz":"0.1""#],
        ),
        (VenueKind::Okx, "/api/v5/public/instruments", 200, &[r#""code":"50014""#]),
        (VenueKind::Kraken, "/nothing", 404, &[]),
    ] {
        let venue = FakeVenue::start(plain(kind)).expect("it starts");
        let (found, body) = get_path(&venue, path);
        let body = String::from_utf8(body).expect("UTF-8");
        assert_eq!(found, status, "{path}: {body}");
        assert!(parts.iter().all(|part| body.contains(part)), "{path}: {body}");
        assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok(), "{path}: {body}");
    }
}

#[test]
fn tls_has_a_certificate_of_its_own_authority() {
    let venue = FakeVenue::start(Options::new(VenueKind::Kraken)).expect("it starts");
    assert!(venue.url().starts_with("wss://127.0.0.1:"));
    let pem = venue.authority_pem().expect("with TLS").to_owned();
    let roots = rustls_roots(&pem);
    let provider = std::sync::Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = tokio_rustls::rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "127.0.0.1".try_into().expect("a name");
    let session = tokio_rustls::rustls::ClientConnection::new(std::sync::Arc::new(config), name).expect("a session");
    let tcp = TcpStream::connect(venue.address()).expect("it listens");
    tcp.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let stream = tokio_rustls::rustls::StreamOwned::new(session, tcp);
    let (mut socket, _) = tungstenite::client(format!("{}/v2", venue.url()), stream).expect("an upgrade");
    let Message::Text(text) = socket.read().expect("a message") else { panic!("expected a text") };
    assert!(text.contains(r#""channel":"status""#), "{text}");
}

fn rustls_roots(pem: &str) -> tokio_rustls::rustls::RootCertStore {
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    let mut roots = tokio_rustls::rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM")).expect("an authority");
    roots
}
