//! Requests and responses of HTTP/1.1, as far as a venue has them: GET without a body.

use tokio::io::{AsyncRead, AsyncReadExt};

const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

/// The head of a request.
#[derive(Debug)]
pub struct Request {
    /// Path and query.
    pub target: String,
    /// The header Sec-WebSocket-Key of an upgrade.
    pub key: Option<String>,
    /// Bytes after the head.
    pub rest: Vec<u8>,
}

/// Reads the head of the next request; `None` at the end of the connection, or if it is no request.
pub async fn read_request(stream: &mut (impl AsyncRead + Unpin), mut bytes: Vec<u8>) -> Option<Request> {
    loop {
        if let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return parse(&bytes, rest);
        }
        if bytes.len() > HEAD_BYTES_MAX || stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn parse(head: &[u8], rest: Vec<u8>) -> Option<Request> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(head).ok().filter(httparse::Status::is_complete)?;
    let value = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let upgrades = value("upgrade").is_some_and(|text| text.eq_ignore_ascii_case("websocket"));
    let key = value("sec-websocket-key").filter(|_| upgrades).map(str::to_owned);
    let target = request.path.filter(|_| request.method == Some("GET"))?.to_owned();
    Some(Request { target, key, rest })
}

/// A response with a JSON text. The connection stays open.
pub fn response(status: u16, headers: &[(&str, String)], body: &str) -> Vec<u8> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        418 => "I'm a teapot",
        429 => "Too Many Requests",
        503 => "Service Unavailable",
        _ => "Error",
    };
    let mut text = format!("HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    text.into_bytes()
}

/// The response that upgrades a connection.
pub fn upgrade_response(key: &str) -> Vec<u8> {
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

/// The first bytes of a text frame, up to half of its payload.
pub fn half_frame(text: &str) -> Vec<u8> {
    let payload = text.as_bytes();
    let mut bytes = vec![0x81];
    match payload.len() {
        length @ 0..=125 => bytes.push(length as u8),
        length @ 126..=0xffff => {
            bytes.push(126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(&payload[..payload.len() / 2]);
    bytes
}
