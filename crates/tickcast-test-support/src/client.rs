//! WebSocket clients for tests: one that shows what comes, one that also checks the promises of the data stream.

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

use super::http::{self, Answer};
use super::server::DEADLINE;
use super::unpack::Unpacked;

/// One thing that came from the server.
#[derive(Debug)]
pub enum Came {
    Reply(Value),
    /// Text that is no JSON object: an echo.
    Text(String),
    Packet(Vec<u8>),
    Ping,
    Pong(Vec<u8>),
    Close(u16, String),
}

/// An upgraded connection.
pub struct Client {
    socket: WebSocket<Unpacked>,
    until: Instant,
}

impl Client {
    /// Upgrades, with more headers.
    pub fn open(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        Self::try_open(address, path, headers).unwrap_or_else(|answer| panic!("{path} is refused: {answer:?}"))
    }

    /// Upgrades, or has the refusal.
    pub fn try_open(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Self, Answer> {
        let mut request = format!("ws://{address}{path}").into_client_request().expect("a URL");
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            request.headers_mut().insert(name, HeaderValue::from_str(value).expect("a value"));
        }
        match tungstenite::client::client(request, Unpacked::plain(http::connect(address))) {
            Ok((socket, _)) => Ok(Self::with(socket)),
            Err(tungstenite::HandshakeError::Failure(Error::Http(response))) => {
                let headers = response.headers().iter();
                let text = |value: &HeaderValue| value.to_str().expect("ASCII").to_owned();
                Err(Answer {
                    status: response.status().as_u16(),
                    headers: headers.map(|(name, value)| (name.as_str().to_owned(), text(value))).collect(),
                    body: response.body().clone().unwrap_or_default(),
                })
            }
            Err(error) => panic!("no upgrade to {path}: {error}"),
        }
    }

    /// What an upgrade by this request comes to: the connection, or the refusal.
    pub fn enter(mut stream: TcpStream, request: &str) -> Result<Self, Answer> {
        // Somebody who is refused before the request was read may have gone by the time that it is written.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = http::read_head(&mut stream);
        if answer.starts_with(b"HTTP/1.1 101 ") {
            return Ok(Self::upgraded(stream, Vec::new()));
        }
        stream.read_to_end(&mut answer).expect("an answer and an end");
        Err(Answer::parse(&answer))
    }

    /// Upgrades with permessage-deflate on offer; what was agreed on, and the connection. What the server compresses is
    /// inflated on its way.
    pub fn open_deflate(address: SocketAddr, path: &str, offer: &str) -> (String, Self) {
        let extensions = format!("Sec-WebSocket-Extensions: {offer}\r\n\r\n");
        let request = http::upgrade(path).replacen("\r\n\r\n", &format!("\r\n{extensions}"), 1);
        let mut stream = http::connect(address);
        stream.write_all(request.as_bytes()).expect("the server reads");
        let answer = Answer::parse(&http::read_head(&mut stream));
        assert_eq!(answer.status, 101, "{offer}");
        let agreed = answer.header("sec-websocket-extensions").unwrap_or_default().to_owned();
        (agreed, Self::upgraded(stream, Vec::new()))
    }

    /// How many compressed frames have come, and the bytes of all frames as they came and as they were meant.
    pub fn unpacked(&self) -> (usize, [usize; 2]) {
        let unpack = self.socket.get_ref().unpack.as_ref();
        unpack.map_or((0, [0, 0]), |unpack| (unpack.frames, unpack.bytes))
    }

    /// A connection on which the upgrade's answer has been read, and `beyond` after it.
    pub fn upgraded(stream: TcpStream, beyond: Vec<u8>) -> Self {
        Self::with(WebSocket::from_partially_read(Unpacked::new(stream), beyond, Role::Client, None))
    }

    fn with(socket: WebSocket<Unpacked>) -> Self {
        Self { socket, until: Instant::now() + DEADLINE }
    }

    /// Sends a text frame.
    pub fn say(&mut self, text: &str) {
        self.send(Message::text(text));
    }

    pub fn send(&mut self, message: Message) {
        self.socket.send(message).expect("the server reads");
    }

    /// Sends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.socket.get_mut().write_all(bytes).expect("the server reads");
    }

    pub fn stream(&self) -> &TcpStream {
        &self.socket.get_ref().stream
    }

    /// What comes next.
    #[track_caller]
    pub fn next(&mut self) -> Came {
        assert!(Instant::now() < self.until, "the connection goes on and on, and what the test wants does not come");
        match self.socket.read().expect("something comes") {
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(value @ Value::Object(_)) => Came::Reply(value),
                _ => Came::Text(text.to_string()),
            },
            Message::Binary(bytes) => Came::Packet(bytes.to_vec()),
            Message::Ping(_) => Came::Ping,
            Message::Pong(payload) => Came::Pong(payload.to_vec()),
            Message::Close(Some(frame)) => Came::Close(frame.code.into(), frame.reason.to_string()),
            other => panic!("{other:?} came"),
        }
    }

    /// The next reply; packets before it are passed over.
    #[track_caller]
    pub fn reply(&mut self) -> Value {
        loop {
            match self.next() {
                Came::Reply(reply) => return reply,
                Came::Packet(_) => {}
                other => panic!("{other:?} came in place of a reply"),
            }
        }
    }

    /// Says something, and reads the `error` with this code whose message has all of `said` in it.
    #[track_caller]
    pub fn is_refused(&mut self, text: &str, id: Option<u64>, code: &str, said: &[&str]) {
        self.say(text);
        self.error(id, code, said);
    }

    #[track_caller]
    pub fn error(&mut self, id: Option<u64>, code: &str, said: &[&str]) {
        let reply = self.reply();
        assert_eq!((&reply["type"], &reply["code"]), (&json!("error"), &json!(code)), "{reply}");
        assert_eq!(reply.get("id").and_then(Value::as_u64), id, "{reply}");
        let message = reply["message"].as_str().expect("a message");
        said.iter().for_each(|part| assert!(message.contains(part), "{part:?} is not in {message:?}"));
    }

    /// A request on this connection is answered.
    #[track_caller]
    pub fn ping(&mut self) {
        self.say(r#"{"op":"ping","id":77}"#);
        let reply = self.reply();
        assert_eq!((&reply["type"], &reply["id"]), (&json!("pong"), &json!(77)), "{reply}");
    }

    /// Reads up to the server's close frame and to the connection's end: the code and the reason.
    #[track_caller]
    pub fn closed(mut self) -> (u16, String) {
        loop {
            if let Came::Close(code, reason) = self.next() {
                self.ends();
                return (code, reason);
            }
        }
    }

    /// The server ends the connection after the close frames.
    #[track_caller]
    fn ends(&mut self) {
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

    /// Reads up to a close with this code and a reason that has all of `said` in it.
    #[track_caller]
    pub fn expect_closed(self, code: u16, said: &[&str]) {
        let (given, reason) = self.closed();
        assert_eq!(given, code, "{reason}");
        said.iter().for_each(|part| assert!(reason.contains(part), "{part:?} is not in {reason:?}"));
    }
}

/// A masked frame of a client; `first` is the byte with FIN, the reserved bits and the opcode.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
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

/// One record of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub header: RecordHeader,
    /// The whole record.
    pub bytes: Vec<u8>,
}

/// The records of a packet; the header counts them, and nothing is left over.
pub fn records(packet: &[u8]) -> Vec<Record> {
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

/// A client that reads well enough to be owed every record, and checks that it gets them: announced before their first
/// use, by sequence, without holes.
pub struct Subscriber {
    client: Client,
    symbols: HashMap<u32, String>,
    sequences: HashMap<(u32, u8), Sequence>,
    ready: VecDeque<Record>,
    /// Instrument and state of the Status records that came.
    pub states: Vec<(u32, char)>,
    /// The Gaps that came.
    pub gaps: Vec<Gap>,
}

impl Subscriber {
    pub fn of(mut client: Client, channels: &[&str], symbols: &[&str]) -> Self {
        client.say(&json!({"op": "subscribe", "id": 1, "channels": channels, "symbols": symbols}).to_string());
        let (symbols, sequences, ready) = (HashMap::new(), HashMap::new(), VecDeque::new());
        let (states, gaps) = (Vec::new(), Vec::new());
        let mut subscriber = Self { client, symbols, sequences, ready, states, gaps };
        let reply = subscriber.reply();
        assert_eq!(reply["type"], "subscribed", "{reply}");
        subscriber
    }

    /// The next record of a channel.
    #[track_caller]
    pub fn record(&mut self) -> Record {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return record;
            }
            match self.client.next() {
                Came::Packet(packet) => self.take(&packet),
                other => panic!("{other:?} came in place of a record"),
            }
        }
    }

    /// The next records of channels, as many as these.
    #[track_caller]
    pub fn records(&mut self, count: usize) -> Vec<Record> {
        (0..count).map(|_| self.record()).collect()
    }

    /// The connection.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The symbol of an instrument that was announced.
    pub fn symbol(&self, record: &Record) -> &str {
        &self.symbols[&record.header.instrument]
    }

    /// Reads up to a record that the server has received after now.
    #[track_caller]
    pub fn until_fresh(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
        self.client.until = Instant::now() + DEADLINE;
        while self.record().header.ts_recv <= now {}
    }

    #[track_caller]
    pub fn ping(&mut self) {
        self.client.say(r#"{"op":"ping","id":78}"#);
        let reply = self.reply();
        assert_eq!((&reply["type"], &reply["id"]), (&json!("pong"), &json!(78)), "{reply}");
    }

    /// The next reply; records before it are kept.
    #[track_caller]
    pub fn reply(&mut self) -> Value {
        loop {
            match self.client.next() {
                Came::Reply(reply) => return reply,
                Came::Packet(packet) => self.take(&packet),
                other => panic!("{other:?} came in place of a reply"),
            }
        }
    }

    fn take(&mut self, packet: &[u8]) {
        for record in records(packet) {
            let RecordHeader { kind, instrument, sequence, .. } = record.header;
            match RecordKind::from_wire(kind).expect("a kind that is known") {
                RecordKind::Definition => {
                    let definition = record::read_definition(&record.bytes).expect("a whole definition");
                    self.symbols.insert(instrument, definition.symbol);
                }
                RecordKind::Heartbeat => {}
                RecordKind::Status => self.states.push((instrument, char::from(record.bytes[32]))),
                RecordKind::Gap => {
                    let gap = Gap::read(&record.bytes).expect("a whole gap");
                    let before = self.sequences.insert((instrument, gap.channel.kind() as u8), gap.to_sequence);
                    assert!(before.is_none_or(|before| gap.from_sequence == before.next()), "{before:?}, then {gap:?}");
                    self.gaps.push(gap);
                }
                kind if kind.channel().is_some() => {
                    assert!(self.symbols.contains_key(&instrument), "{record:?} was not announced");
                    assert_eq!(record.header.flags & flags::CONFLATED, 0, "{record:?} stands for several");
                    let before = self.sequences.insert((instrument, kind as u8), sequence);
                    assert!(before.is_none_or(|before| sequence == before.next()), "{before:?}, then {record:?}");
                    self.ready.push_back(record);
                }
                kind => panic!("a {kind:?}: {record:?}"),
            }
        }
    }
}
