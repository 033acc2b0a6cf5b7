//! Plain HTTP as bytes: what was written, and the whole answer.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use serde_json::Value;

use super::server::DEADLINE;

/// The head of the next answer, and not a byte of what follows it.
pub fn read_head(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    head
}

/// An HTTP answer, read to the end of its connection.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn parse(bytes: &[u8]) -> Self {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut headers);
        let shown = String::from_utf8_lossy(bytes);
        let parsed = head.parse(bytes).unwrap_or_else(|error| panic!("{error} in answer {shown:?}"));
        let httparse::Status::Complete(length) = parsed else { panic!("the answer is cut short: {shown:?}") };
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).expect("a header of ASCII");
        Self {
            status: head.code.expect("httparse sets it"),
            headers: head.headers.iter().map(|line| (line.name.to_ascii_lowercase(), text(line.value))).collect(),
            body: bytes[length..].to_vec(),
        }
    }

    /// The value of a header that is there once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is there twice: {:?}", self.headers);
        value
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("UTF-8")
    }

    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// A refusal: a status and a JSON body with a code, and a message that has all of `said` in it.
    #[track_caller]
    pub fn refuses(&self, status: u16, code: &str, said: &[&str]) {
        assert_eq!(self.status, status, "{}", self.text());
        let length = self.body.len().to_string();
        assert_eq!(self.header("content-length"), Some(length.as_str()), "the whole body, and no more");
        let body = self.json();
        assert_eq!(body["error"]["code"], code, "{body}");
        let message = body["error"]["message"].as_str().expect("a message");
        said.iter().for_each(|part| assert!(message.contains(part), "{part:?} is not in {message:?}"));
    }
}

/// Connects with a deadline on every read and write.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("the server accepts");
    stream.set_read_timeout(Some(DEADLINE)).expect("not 0");
    stream.set_write_timeout(Some(DEADLINE)).expect("not 0");
    stream.set_nodelay(true).expect("a TCP socket");
    stream
}

/// The same from this address of our own: all of 127.0.0.0/8 is.
pub fn connect_from(source: &str, address: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let source: IpAddr = source.parse().expect("an address");
    socket.bind(&SocketAddr::new(source, 0).into()).expect("127.0.0.0/8 is ours");
    socket.connect(&address.into()).expect("the server accepts");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).expect("not 0");
    stream
}

/// Writes these bytes on a connection of their own, and reads what comes until the server ends it.
pub fn ask(address: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = connect(address);
    stream.write_all(bytes).expect("the server reads");
    read_answer(&mut stream)
}

/// Reads the answer up to the end of the connection.
pub fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer and an end, no reset");
    Answer::parse(&answer)
}

/// A right upgrade to this path.
pub fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}
