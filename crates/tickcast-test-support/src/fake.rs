//! For the tests of this room: packets by hand, and a server that plays a script to whoever connects.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use tungstenite::WebSocket;
use tungstenite::protocol::Message;

use tickcast_protocol::packet::PacketHeader;
use tickcast_protocol::record::{self, Gap, Level, Quote, RecordHeader, Ticker, Trade};
use tickcast_protocol::{Channel, Instrument, Position, RecordKind};

/// 2025-11-21 02:13:20.123456789 UTC.
pub const TS_EVENT: u64 = 1_763_691_200_123_456_789;
/// Fifty microseconds later.
pub const TS_RECV: u64 = TS_EVENT + 50_000;

/// A packet, record by record; all of instrument 1 where nothing else is said.
#[derive(Clone)]
pub struct PacketBuilder {
    head: PacketHeader,
    records: Vec<u8>,
}

impl Default for PacketBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl PacketBuilder {
    pub fn new() -> Self {
        let head = PacketHeader { flags: 0, count: 0, epoch: 1, position: Position::new(1), ts_send: TS_RECV + 10_000 };
        Self { head, records: Vec::new() }
    }

    pub fn epoch(mut self, epoch: u32) -> Self {
        self.head.epoch = epoch;
        self
    }

    /// Ends a snapshot or a replay.
    pub fn caught_up(mut self) -> Self {
        self.head.flags |= tickcast_protocol::packet::flags::CAUGHT_UP;
        self
    }

    pub fn position(mut self, position: u64) -> Self {
        self.head.position = position.into();
        self
    }

    pub fn definition(self, id: u32, symbol: &str) -> Self {
        self.push(|out| record::encode_definition(&Instrument::new(id, symbol, "sim", -2, -3), out))
    }

    pub fn quote(self, sequence: u64, flags: u8) -> Self {
        self.quote_of(1, sequence, flags)
    }

    pub fn quote_of(self, instrument: u32, sequence: u64, flags: u8) -> Self {
        let quote = Quote { bid_px: 6_183_763, bid_sz: 3788, ask_px: 6_183_764, ask_sz: 1200 };
        self.push(|out| quote.encode(&header(RecordKind::Quote, instrument, sequence, flags), out))
    }

    pub fn trade(self, sequence: u64, flags: u8) -> Self {
        let trade = Trade { px: 6_183_764, sz: 10, trade_id: 77, side: b'B' };
        self.push(|out| trade.encode(&header(RecordKind::Trade, 1, sequence, flags), out))
    }

    pub fn ticker(self, sequence: u64, ticker: Ticker) -> Self {
        self.push(|out| ticker.encode(&header(RecordKind::Ticker, 1, sequence, 0), out))
    }

    pub fn book(self, sequence: u64, kind: u8, levels: &[Level]) -> Self {
        let header = header(RecordKind::Book, 1, sequence, 0);
        self.push(|out| record::encode_book(&header, kind, levels.iter().copied(), out))
    }

    pub fn raw(self, sequence: u64, payload: &[u8]) -> Self {
        self.push(|out| record::encode_raw(&header(RecordKind::Raw, 1, sequence, 0), payload, out))
    }

    pub fn heartbeat(self) -> Self {
        self.push(|out| record::encode_heartbeat(TS_RECV, out))
    }

    pub fn status(self, state: u8) -> Self {
        self.push(|out| record::encode_status(&header(RecordKind::Status, 0, 0, 0), state, out))
    }

    pub fn gap(self, channel: Channel, from_sequence: u64, to_sequence: u64) -> Self {
        let gap = Gap {
            instrument: 1,
            channel,
            from_sequence: from_sequence.into(),
            to_sequence: to_sequence.into(),
            reason: b'S',
        };
        self.push(|out| gap.encode(TS_RECV, out))
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.encode().to_vec();
        bytes.extend_from_slice(&self.records);
        bytes
    }

    pub fn message(&self) -> Message {
        Message::binary(self.bytes())
    }

    fn push(mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Self {
        encode(&mut self.records);
        self.head.count += 1;
        self
    }
}

fn header(kind: RecordKind, instrument: u32, sequence: u64, flags: u8) -> RecordHeader {
    let mut header = RecordHeader::of_feed(kind, instrument, TS_EVENT).with_flags(flags);
    header.sequence = sequence.into();
    header.ts_recv = TS_RECV;
    header
}

/// The server's end of one upgraded connection.
pub type Peer = WebSocket<TcpStream>;

/// A server on loopback: answers `/v1/instruments` with `directory`, upgrades everything else and plays `script` to
/// it on a thread of its own. Its listening thread ends with the test process.
pub fn serve(directory: &'static str, script: impl Fn(Peer) + Clone + Send + 'static) -> SocketAddr {
    answer(move |mut stream| {
        let Some(request) = request_of(&stream) else { return };
        if request.starts_with("GET /v1/instruments ") {
            let length = directory.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
            read_request(&mut stream);
            stream.write_all((head + directory).as_bytes()).expect("the client waits for it");
        } else {
            script(tungstenite::accept(stream).expect("an upgrade request"));
        }
    })
}

/// A server that answers every request with these bytes.
pub fn refuse(answer_text: &'static str) -> SocketAddr {
    answer(move |mut stream| {
        read_request(&mut stream);
        // A client that only knocked does not wait for it.
        let _ = stream.write_all(answer_text.as_bytes());
    })
}

/// Reads the subscribe request.
pub fn subscribe_request(peer: &mut Peer) -> serde_json::Value {
    let request = peer.read().expect("the client subscribes");
    serde_json::from_str(request.to_text().expect("requests are text")).expect("requests are JSON")
}

/// Answers the subscribe request with `count` and `unknown`.
pub fn accept_subscription(peer: &mut Peer, unknown: &[&str]) {
    let id = subscribe_request(peer)["id"].clone();
    let reply = serde_json::json!({"type": "subscribed", "id": id, "conflate_ms": 0, "count": 1, "unknown": unknown});
    peer.send(Message::text(reply.to_string())).expect("the client reads");
}

/// Reads until the client has gone.
pub fn wait_for_end(peer: &mut Peer) {
    while peer.read().is_ok() {}
}

fn answer(each: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound listener has an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let each = each.clone();
            // What a script has sent must have arrived, without waiting for the client to acknowledge.
            stream.set_nodelay(true).expect("a TCP socket");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a positive timeout");
            std::thread::spawn(move || each(stream));
        }
    });
    address
}

/// The first line of the request, without taking it from the socket; `None` where the client only knocked.
fn request_of(stream: &TcpStream) -> Option<String> {
    let mut head = [0; 256];
    loop {
        let length = stream.peek(&mut head).expect("the client sends a request");
        let text = String::from_utf8_lossy(&head[..length]);
        if let Some((line, _)) = text.split_once("\r\n") {
            return Some(line.to_owned());
        }
        if length == 0 {
            return None;
        }
        assert!(length < head.len(), "no request line: {text:?}");
    }
}

fn read_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        let length = stream.read(&mut chunk).expect("the client sends a request");
        if length == 0 {
            return;
        }
        request.extend_from_slice(&chunk[..length]);
    }
}
