//! HTTP/1.1 as bytes: the request as it was written, and the whole response. Parsed by `httparse`.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use serde_json::Value;

use crate::DEADLINE;

/// An HTTP response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn parse(bytes: &[u8]) -> Self {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut headers);
        let shown = String::from_utf8_lossy(bytes);
        let parsed = head.parse(bytes).unwrap_or_else(|error| panic!("{error} in response {shown:?}"));
        let httparse::Status::Complete(length) = parsed else { panic!("the response is incomplete: {shown:?}") };
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).expect("header values are ASCII");
        let response = Self {
            status: head.code.expect("httparse sets it"),
            headers: head.headers.iter().map(|line| (line.name.to_ascii_lowercase(), text(line.value))).collect(),
            body: bytes[length..].to_vec(),
        };
        match response.header("transfer-encoding") {
            Some("chunked") => Self { body: unchunk(&response.body), ..response },
            _ => response,
        }
    }

    /// The value of a header; panics if the header occurs twice.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} occurs twice: {:?}", self.headers);
        value
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("the body is UTF-8")
    }

    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Asserts that this is a refusal: the status, and a JSON body with the code and a message that contains all `parts`.
    #[track_caller]
    pub fn assert_refusal(&self, status: u16, code: &str, parts: &[&str]) {
        assert_eq!(self.status, status, "{}", self.text());
        let length = self.body.len().to_string();
        assert_eq!(self.header("content-length"), Some(length.as_str()), "the length of the body");
        let body = self.json();
        assert_eq!(body["error"]["code"], code, "{body}");
        assert_contains(body["error"]["message"].as_str().expect("a message"), parts);
    }
}

/// The content of a body in chunks. Nothing follows the last one.
fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    loop {
        let parsed = httparse::parse_chunk_size(body).expect("a size of a chunk");
        let httparse::Status::Complete((start, bytes)) = parsed else { panic!("the body is cut off") };
        let end = start + bytes as usize;
        assert!(body.len() >= end + 2, "a chunk is cut off");
        content.extend_from_slice(&body[start..end]);
        assert_eq!(&body[end..end + 2], b"\r\n", "the end of a chunk");
        body = &body[end + 2..];
        if bytes == 0 {
            assert_eq!(body, b"", "bytes after the last chunk");
            return content;
        }
    }
}

/// Asserts that `text` contains all `parts`.
#[track_caller]
pub fn assert_contains(text: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(text.contains(part), "{part:?} is not in {text:?}"));
}

/// Reads the head of the next response, and no byte after it.
pub fn read_head(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the server responds");
        head.push(byte[0]);
    }
    head
}

/// Connects with a deadline on every read and write.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("the server accepts");
    stream.set_read_timeout(Some(DEADLINE)).expect("not 0");
    stream.set_write_timeout(Some(DEADLINE)).expect("not 0");
    stream.set_nodelay(true).expect("a TCP socket");
    stream
}

/// Connects from this address of 127.0.0.0/8, with a deadline on every read.
pub fn connect_from(source: &str, address: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let source: IpAddr = source.parse().expect("an address");
    socket.bind(&SocketAddr::new(source, 0).into()).expect("the loopback interface has 127.0.0.0/8");
    socket.connect(&address.into()).expect("the server accepts");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).expect("not 0");
    stream
}

/// Sends these bytes on a new connection, and reads the response until the server closes it.
pub fn send_request(address: SocketAddr, bytes: &[u8]) -> Response {
    let mut stream = connect(address);
    stream.write_all(bytes).expect("the server reads");
    read_response(&mut stream)
}

/// Reads a response until the server closes the connection.
pub fn read_response(stream: &mut TcpStream) -> Response {
    let mut response = Vec::new();
    stream.read_to_end(&mut response).expect("a response and a close, no reset");
    Response::parse(&response)
}

/// A valid upgrade request for this path.
pub fn upgrade_request(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}
