//! WebSocket clients: [`Client`] shows each message, [`Subscriber`] also checks the guarantees of the data stream.

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tickcast_protocol::packet::{self, PacketHeader};
use tickcast_protocol::record::{self, Gap, RecordHeader, flags};
use tickcast_protocol::{RecordKind, Sequence};
use tungstenite::client::IntoClientRequest;
use tungstenite::error::ProtocolError;
use tungstenite::http::{HeaderName, HeaderValue};
use tungstenite::protocol::Role;
use tungstenite::{Error, Message, WebSocket};

use crate::DEADLINE;
use crate::deflate::{InflatedCounts, InflatingStream};
use crate::http::{self, Response, assert_contains};

/// A message of the server.
#[derive(Debug)]
pub enum Received {
    Reply(Value),
    /// A text that is no JSON object: an echo.
    Text(String),
    Packet(Vec<u8>),
    Ping,
    Pong(Vec<u8>),
    Close(u16, String),
}

/// An upgraded connection.
pub struct Client {
    socket: WebSocket<InflatingStream>,
    /// When the test gives up.
    deadline: Instant,
}

impl Client {
    /// Upgrades with additional headers.
    pub fn connect(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        Self::try_connect(address, path, headers).unwrap_or_else(|refusal| panic!("{path} is refused: {refusal:?}"))
    }

    /// Upgrades with additional headers; the response where the server refuses.
    pub fn try_connect(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Self, Response> {
        let mut request = format!("ws://{address}{path}").into_client_request().expect("a URL");
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
            request.headers_mut().insert(name, HeaderValue::from_str(value).expect("a header value"));
        }
        match tungstenite::client::client(request, InflatingStream::unchanged(http::connect(address))) {
            Ok((socket, _)) => Ok(Self::new(socket)),
            Err(tungstenite::HandshakeError::Failure(Error::Http(response))) => {
                let headers = response.headers().iter();
                let text = |value: &HeaderValue| value.to_str().expect("header values are ASCII").to_owned();
                Err(Response {
                    status: response.status().as_u16(),
                    headers: headers.map(|(name, value)| (name.as_str().to_owned(), text(value))).collect(),
                    body: response.body().clone().unwrap_or_default(),
                })
            }
            Err(error) => panic!("no upgrade to {path}: {error}"),
        }
    }

    /// Upgrades with this request over `stream`; the response where the server refuses.
    pub fn upgrade(mut stream: TcpStream, request: &str) -> Result<Self, Response> {
        // A server that refuses before it has read the request may have closed the connection by now.
        let _ = stream.write_all(request.as_bytes());
        let mut response = http::read_head(&mut stream);
        if response.starts_with(b"HTTP/1.1 101 ") {
            return Ok(Self::upgraded(stream, Vec::new()));
        }
        stream.read_to_end(&mut response).expect("a response and a close");
        Err(Response::parse(&response))
    }

    /// Upgrades with this offer of permessage-deflate; the extensions that the server accepted, and the client.
    /// Compressed frames are inflated before they are read.
    pub fn connect_deflate(address: SocketAddr, path: &str, offer: &str) -> (String, Self) {
        let extensions = format!("Sec-WebSocket-Extensions: {offer}\r\n\r\n");
        let request = http::upgrade_request(path).replacen("\r\n\r\n", &format!("\r\n{extensions}"), 1);
        let mut stream = http::connect(address);
        stream.write_all(request.as_bytes()).expect("the server reads");
        let response = Response::parse(&http::read_head(&mut stream));
        assert_eq!(response.status, 101, "{offer}");
        let accepted = response.header("sec-websocket-extensions").unwrap_or_default().to_owned();
        (accepted, Self::upgraded(stream, Vec::new()))
    }

    /// A connection whose upgrade is complete; `rest` are the bytes that were read after the response.
    pub fn upgraded(stream: TcpStream, rest: Vec<u8>) -> Self {
        Self::new(WebSocket::from_partially_read(InflatingStream::new(stream), rest, Role::Client, None))
    }

    fn new(socket: WebSocket<InflatingStream>) -> Self {
        Self { socket, deadline: Instant::now() + DEADLINE }
    }

    /// What was inflated so far.
    pub fn inflated(&self) -> InflatedCounts {
        self.socket.get_ref().counts()
    }

    pub fn tcp(&self) -> &TcpStream {
        &self.socket.get_ref().tcp
    }

    pub fn send_text(&mut self, text: &str) {
        self.send(Message::text(text));
    }

    pub fn send(&mut self, message: Message) {
        self.socket.send(message).expect("the server reads");
    }

    /// Sends bytes past the WebSocket layer.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket.get_mut().write_all(bytes).expect("the server reads");
    }

    /// The next message.
    #[track_caller]
    pub fn receive(&mut self) -> Received {
        assert!(Instant::now() < self.deadline, "messages are received, and the expected one is not among them");
        match self.socket.read().expect("a message") {
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(value @ Value::Object(_)) => Received::Reply(value),
                _ => Received::Text(text.to_string()),
            },
            Message::Binary(bytes) => Received::Packet(bytes.to_vec()),
            Message::Ping(_) => Received::Ping,
            Message::Pong(payload) => Received::Pong(payload.to_vec()),
            Message::Close(Some(frame)) => Received::Close(frame.code.into(), frame.reason.to_string()),
            other => panic!("received {other:?}"),
        }
    }

    /// The next reply; packets before it are skipped.
    #[track_caller]
    pub fn reply(&mut self) -> Value {
        loop {
            match self.receive() {
                Received::Reply(reply) => return reply,
                Received::Packet(_) => {}
                other => panic!("received {other:?}, expected a reply"),
            }
        }
    }

    /// Sends a request, and expects an error with this id and code, whose message contains all `parts`.
    #[track_caller]
    pub fn send_and_expect_error(&mut self, text: &str, id: Option<u64>, code: &str, parts: &[&str]) {
        self.send_text(text);
        self.expect_error(id, code, parts);
    }

    /// Expects an error as the next reply.
    #[track_caller]
    pub fn expect_error(&mut self, id: Option<u64>, code: &str, parts: &[&str]) {
        let reply = self.reply();
        assert_eq!((&reply["type"], &reply["code"]), (&json!("error"), &json!(code)), "{reply}");
        assert_eq!(reply.get("id").and_then(Value::as_u64), id, "{reply}");
        assert_contains(reply["message"].as_str().expect("a message"), parts);
    }

    /// Sends the request `ping`, and expects its `pong`.
    #[track_caller]
    pub fn ping(&mut self) {
        self.send_text(r#"{"op":"ping","id":77}"#);
        let reply = self.reply();
        assert_eq!((&reply["type"], &reply["id"]), (&json!("pong"), &json!(77)), "{reply}");
    }

    /// Expects the server to close the connection with this code, and a reason that contains all `parts`.
    #[track_caller]
    pub fn expect_close(mut self, code: u16, parts: &[&str]) {
        let (received, reason) = loop {
            if let Received::Close(code, reason) = self.receive() {
                break (code, reason);
            }
        };
        self.expect_end();
        assert_eq!(received, code, "{reason}");
        assert_contains(&reason, parts);
    }

    /// Reads to the end of the connection; returns the code of the server's close frame, if one comes.
    pub fn end_code(mut self) -> Option<u16> {
        let mut code = None;
        loop {
            match self.socket.read() {
                Ok(Message::Close(frame)) => code = frame.map(|frame| frame.code.into()),
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("the connection does not end")
                }
                Err(_) => return code,
            }
        }
    }

    /// The server ends the connection after the close frames.
    #[track_caller]
    fn expect_end(&mut self) {
        loop {
            match self.socket.read() {
                Ok(_) => {}
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => return,
                Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => return,
                Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
                Err(error) => panic!("the connection does not end: {error}"),
            }
        }
    }
}

/// A masked frame of a client; `first` is the byte with FIN, the reserved bits and the opcode.
pub fn masked_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A record of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub header: RecordHeader,
    /// The whole record, header included.
    pub bytes: Vec<u8>,
}

/// The records of a packet. Checks the count in the packet's header.
pub fn records_of(packet: &[u8]) -> Vec<Record> {
    let head = PacketHeader::read(packet).expect("a packet");
    let mut rest = &packet[packet::HEADER_BYTES..];
    let mut records = Vec::new();
    while let Some(header) = RecordHeader::read(rest) {
        let (bytes, after) = rest.split_at(header.bytes());
        records.push(Record { header, bytes: bytes.to_vec() });
        rest = after;
    }
    assert_eq!((records.len(), rest.len()), (usize::from(head.count), 0), "count, bytes left");
    records
}

/// A subscribed client that reads fast enough to receive every record. It checks that each instrument is announced before
/// its first record, that sequences have no hole that no Gap reports, and that no record is conflated.
pub struct Subscriber {
    client: Client,
    symbols: HashMap<u32, String>,
    sequences: HashMap<(u32, u8), Sequence>,
    ready: VecDeque<Record>,
    /// Instrument and state of the Status records received.
    pub states: Vec<(u32, char)>,
    /// The Gaps received.
    pub gaps: Vec<Gap>,
}

impl Subscriber {
    pub fn subscribe(mut client: Client, channels: &[&str], symbols: &[&str]) -> Self {
        client.send_text(&json!({"op": "subscribe", "id": 1, "channels": channels, "symbols": symbols}).to_string());
        let (symbols, sequences, ready) = (HashMap::new(), HashMap::new(), VecDeque::new());
        let (states, gaps) = (Vec::new(), Vec::new());
        let mut subscriber = Self { client, symbols, sequences, ready, states, gaps };
        let reply = subscriber.reply();
        assert_eq!(reply["type"], "subscribed", "{reply}");
        subscriber
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The test gives up at the usual time from now on.
    pub fn restart_deadline(&mut self) {
        self.client.deadline = Instant::now() + DEADLINE;
    }

    /// The symbol of an instrument that was announced.
    pub fn symbol(&self, record: &Record) -> &str {
        &self.symbols[&record.header.instrument]
    }

    /// The next record of a channel.
    #[track_caller]
    pub fn record(&mut self) -> Record {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return record;
            }
            match self.client.receive() {
                Received::Packet(packet) => self.accept(&packet),
                // It is answered with the next read.
                Received::Ping => {}
                other => panic!("received {other:?}, expected a record"),
            }
        }
    }

    /// The next `count` records of channels.
    #[track_caller]
    pub fn records(&mut self, count: usize) -> Vec<Record> {
        (0..count).map(|_| self.record()).collect()
    }

    /// Reads until a record that the server received after this call.
    #[track_caller]
    pub fn until_live(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
        self.restart_deadline();
        while self.record().header.ts_recv <= now {}
    }

    #[track_caller]
    pub fn ping(&mut self) {
        self.client.send_text(r#"{"op":"ping","id":78}"#);
        let reply = self.reply();
        assert_eq!((&reply["type"], &reply["id"]), (&json!("pong"), &json!(78)), "{reply}");
    }

    /// The next reply; records before it are kept.
    #[track_caller]
    pub fn reply(&mut self) -> Value {
        loop {
            match self.client.receive() {
                Received::Reply(reply) => return reply,
                Received::Packet(packet) => self.accept(&packet),
                other => panic!("received {other:?}, expected a reply"),
            }
        }
    }

    fn accept(&mut self, packet: &[u8]) {
        for record in records_of(packet) {
            let RecordHeader { kind, instrument, sequence, .. } = record.header;
            match RecordKind::from_wire(kind).expect("a known kind") {
                RecordKind::Definition => {
                    let definition = record::read_definition(&record.bytes).expect("a complete definition");
                    self.symbols.insert(instrument, definition.symbol);
                }
                RecordKind::Heartbeat => {}
                RecordKind::Status => self.states.push((
                    instrument,
                    char::from(u8::from(record::read_status(&record.bytes).expect("a whole record"))),
                )),
                RecordKind::Gap => {
                    let gap = Gap::read(&record.bytes).expect("a complete gap");
                    let before = self.sequences.insert((instrument, gap.channel.kind() as u8), gap.to_sequence);
                    assert!(before.is_none_or(|before| gap.from_sequence == before.next()), "{gap:?} after {before:?}");
                    self.gaps.push(gap);
                }
                kind if kind.channel().is_some() => {
                    assert!(self.symbols.contains_key(&instrument), "{record:?} has no definition before it");
                    assert_eq!(record.header.flags & flags::CONFLATED, 0, "{record:?} is conflated");
                    let before = self.sequences.insert((instrument, kind as u8), sequence);
                    assert!(before.is_none_or(|before| sequence == before.next()), "{record:?} after {before:?}");
                    self.ready.push_back(record);
                }
                kind => panic!("received a {kind:?}: {record:?}"),
            }
        }
    }
}
