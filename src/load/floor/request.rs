//! The least of an HTTP upgrade that real clients accept: the key is answered, and nothing is validated.

use tungstenite::handshake::derive_accept_key;

/// Header lines that a request may have.
const HEADERS_MAX: usize = 64;

/// A request's head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FloorRequest {
    /// More bytes are needed.
    Partial,
    /// An upgrade request.
    Upgrade {
        /// The length of the head; frames follow.
        consumed: usize,
        /// Its path is that of publishers.
        is_publisher: bool,
        /// The 101 response.
        answer: String,
    },
    /// Another request, or not HTTP.
    Other,
}

/// Reads a head from the start of `bytes`.
pub(super) fn read(bytes: &[u8]) -> FloorRequest {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let consumed = match request.parse(bytes) {
        Ok(httparse::Status::Complete(consumed)) => consumed,
        Ok(httparse::Status::Partial) => return FloorRequest::Partial,
        Err(_) => return FloorRequest::Other,
    };
    let path = request.path.unwrap_or_default();
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| header.value.trim_ascii())
    };
    let Some(key) = header("Sec-WebSocket-Key") else { return FloorRequest::Other };
    let is_publisher = path.split('?').next() == Some("/v1/publish");
    FloorRequest::Upgrade { consumed, is_publisher, answer: answer(key, header("Sec-WebSocket-Protocol")) }
}

/// The 101 response to a key. A client that offers subprotocols requires one: it gets its first.
fn answer(key: &[u8], offered: Option<&[u8]>) -> String {
    let mut answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n".to_owned();
    answer.push_str("Sec-WebSocket-Accept: ");
    answer.push_str(&derive_accept_key(key));
    let first = offered.and_then(|offered| offered.split(|byte| *byte == b',').next());
    if let Some(protocol) = first.and_then(|first| std::str::from_utf8(first.trim_ascii()).ok()) {
        answer.push_str("\r\nSec-WebSocket-Protocol: ");
        answer.push_str(protocol);
    }
    answer.push_str("\r\n\r\n");
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_rfc_gets_the_answer_of_the_rfc() {
        let request = "GET /v1/publish?token=x HTTP/1.1\r\nHost: h\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       Sec-WebSocket-Protocol: tickcast.v1, other\r\n\r\n";
        let FloorRequest::Upgrade { consumed, is_publisher, answer } = read(format!("{request}rest").as_bytes()) else {
            panic!("an upgrade");
        };
        assert_eq!((consumed, is_publisher), (request.len(), true));
        assert!(answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
        assert!(answer.ends_with("\r\nSec-WebSocket-Protocol: tickcast.v1\r\n\r\n"), "{answer}");
        assert_eq!(read(&request.as_bytes()[..request.len() - 1]), FloorRequest::Partial);
        assert_eq!(read(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"), FloorRequest::Other);
        assert_eq!(read(b"\x16\x03\x01\x02"), FloorRequest::Other);
    }
}
