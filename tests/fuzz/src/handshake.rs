//! Request heads and upgrades: a head is partial until its last byte, every refusal is one whole HTTP response, and an
//! accepted upgrade is accepted by tungstenite with the same key.
//!
//! Input: a byte for the limits and for compression, then the client's bytes.
//!
//! Where tungstenite may differ: it reads one line of `Upgrade` and of `Connection`, and no list in the first, so it
//! refuses some requests that are accepted here; and it needs no `Host` and allows either header twice, so it accepts
//! some that are refused here.

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, Request};
use tickcast::http::handshake::{Supported, Upgrade, accept_upgrade};
use tickcast::http::refusal::Refusal;
use tickcast::http::request::{HeadLimits, RequestHead, parse_head};
use tungstenite::handshake::derive_accept_key;
use tungstenite::handshake::server::create_response;

use super::Script;

const SUPPORTED: [&str; 2] = ["tickcast.v1", "tickcast.v1+json"];
/// Bytes of a head, and header lines.
const LIMITS: [(usize, usize); 4] = [(8192, 100), (8192, 8), (200, 100), (64, 2)];
/// Every cut of a head up to this length is tried; of a longer one, as many cuts.
const CUTS_MAX: usize = 256;

/// One input.
pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let shape = script.byte();
    let (head_bytes_max, headers_max) = LIMITS[usize::from(shape) % LIMITS.len()];
    let spoken = Supported { protocols: &SUPPORTED, deflate: shape & 4 == 4 };
    let limits = HeadLimits { head_bytes_max, headers_max };
    let bytes = script.rest;
    match parse_head(bytes, &limits) {
        Ok(RequestHead::Complete { consumed, request }) => {
            check_cuts(bytes, consumed, &limits);
            check_parser(bytes, consumed, headers_max);
            match accept_upgrade(&request, &spoken) {
                Ok(accepted) => check_granted(&request, &accepted),
                Err(refusal) => check_refusal(&refusal),
            }
        }
        Ok(RequestHead::Partial) => assert!(bytes.len() < head_bytes_max, "there is no room for more"),
        Err(refusal) => check_refusal(&refusal),
    }
}

fn check_cuts(bytes: &[u8], consumed: usize, limits: &HeadLimits) {
    assert!(consumed <= bytes.len().min(limits.head_bytes_max));
    for cut in (0..consumed).step_by(consumed.div_ceil(CUTS_MAX)) {
        assert!(matches!(parse_head(&bytes[..cut], limits), Ok(RequestHead::Partial)), "cut at {cut} of {consumed}");
    }
    let alone = parse_head(&bytes[..consumed], limits);
    assert!(
        matches!(alone, Ok(RequestHead::Complete { consumed: again, .. }) if again == consumed),
        "without what follows it"
    );
}

fn check_parser(bytes: &[u8], consumed: usize, headers_max: usize) {
    let mut headers = vec![httparse::EMPTY_HEADER; headers_max];
    let parsed = httparse::Request::new(&mut headers).parse(bytes);
    assert_eq!(parsed, Ok(httparse::Status::Complete(consumed)));
}

fn check_granted(request: &Request<()>, accepted: &Upgrade) {
    let headers = request.headers();
    let key = &headers[SEC_WEBSOCKET_KEY];
    let (status, answered) = read_response(&accepted.response);
    assert_eq!(status, 101);
    assert_eq!(value(&answered, "sec-websocket-accept"), Some(&*derive_accept_key(key.as_bytes())));
    assert_eq!(value(&answered, "sec-websocket-protocol"), accepted.protocol.as_deref());
    let agreed = accepted.deflate.map(|agreed| agreed.to_string());
    assert_eq!(value(&answered, "sec-websocket-extensions"), agreed.as_deref());
    if let Some(protocol) = &accepted.protocol {
        assert!(SUPPORTED.contains(&protocol.as_str()), "{protocol}");
    }
    if !is_plain(headers) {
        return;
    }
    let theirs = create_response(request).expect("tungstenite accepts it too");
    assert_eq!(theirs.headers()[SEC_WEBSOCKET_ACCEPT].as_bytes(), derive_accept_key(key.as_bytes()).as_bytes());
}

/// True if the headers that tungstenite reads differently are in the form that it knows.
fn is_plain(headers: &HeaderMap) -> bool {
    let one = |name| headers.get_all(name).iter().count() == 1;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-, ".contains(&byte);
    one(UPGRADE)
        && one(CONNECTION)
        && headers[UPGRADE].as_bytes().eq_ignore_ascii_case(b"websocket")
        && headers[CONNECTION].as_bytes().iter().all(|byte| is_token(*byte))
}

fn check_refusal(refusal: &Refusal) {
    assert!((400..=505).contains(&refusal.status), "{refusal}");
    let response = refusal.response();
    let (status, headers) = read_response(&response);
    assert_eq!(status, refusal.status);
    let length: usize = value(&headers, "content-length").expect("a length").parse().expect("a number");
    let body = &response[response.len() - length..];
    let body: serde_json::Value = serde_json::from_slice(body).expect("the body is JSON");
    assert_eq!(body["error"]["code"], refusal.code);
    assert_eq!(body["error"]["message"], refusal.message.as_str());
    assert!(refusal.message.len() < 4096, "a refusal fits a log line: {}", refusal.message);
    assert_eq!(headers.len(), 5 + refusal.headers.len(), "text of the client does not add a header: {headers:?}");
}

/// Status and headers, the names in lower case.
fn read_response(bytes: &[u8]) -> (u16, Vec<(String, String)>) {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    assert!(response.parse(bytes).is_ok_and(|status| status.is_complete()), "a whole response");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("our own headers are text");
    let headers = response.headers.iter().map(|line| (line.name.to_ascii_lowercase(), text(line.value))).collect();
    (response.code.expect("it is whole"), headers)
}

fn value<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(found, _)| found == name).map(|(_, value)| &value[..])
}
