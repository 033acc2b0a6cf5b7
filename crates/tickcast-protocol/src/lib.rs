//! The tickcast wire protocol: records, packets, control messages, their JSON and Server-Sent Events encodings, and
//! WebSocket (RFC 6455, RFC 7692) without a socket. `docs/protocol.md` of the repository is the normative description.
//!
//! Everything here is pure: bytes and values in, bytes and values out. There is no I/O, no clock, no thread, and no
//! dependency on an operating system, so servers, clients, publishers and test tools can link it.
//!
//! * [`record`] and [`packet`]: the binary data. [`json`] and [`sse`]: the same as text.
//! * [`control`]: requests and replies.
//! * [`ws`]: WebSocket frames, sessions, close codes, and [`ws::deflate`].
//! * [`Directory`], [`Instrument`], [`Book`], [`decimal`]: what a reader needs to make values of records.
//!
//! # Publish and decode
//!
//! A publisher encodes records and puts a packet header in front. The server ignores `epoch`, `position` and the
//! sequences of a publisher; it sets its own.
//!
//! ```
//! use tickcast_protocol::record::{self, Quote, RecordHeader, Trade};
//! use tickcast_protocol::{PacketHeader, Position, RecordKind, Side, decimal, packet};
//!
//! // Prices and sizes are integers at the instrument's exponents, here px_exp = -2 and sz_exp = -8.
//! let px = decimal::parse("61837.63", -2)?;
//! let mut records = Vec::new();
//! let trade = Trade { px, sz: 25_000_000, trade_id: 77, side: Side::Buy };
//! trade.encode(&RecordHeader::of_feed(RecordKind::Trade, 1, 1_763_700_000_000_000_000), &mut records);
//! let quote = Quote { bid_px: px - 1, bid_sz: 378_000_000, ask_px: px, ask_sz: 120_000_000 };
//! quote.encode(&RecordHeader::of_feed(RecordKind::Quote, 1, 1_763_700_000_000_000_000), &mut records);
//!
//! let header = PacketHeader { flags: 0, count: 2, epoch: 0, position: Position::ZERO, ts_send: 0 };
//! let packet = [&header.encode()[..], &records].concat();
//!
//! // A subscriber reads the same bytes. Kinds that it does not know are skipped.
//! let header = PacketHeader::read(&packet)?;
//! let mut lines = Vec::new();
//! for (header, record) in record::records(&packet[packet::HEADER_BYTES..]) {
//!     match header.known_kind() {
//!         Some(RecordKind::Trade) => {
//!             let trade = Trade::read(record).expect("a whole record");
//!             lines.push(format!("trade {} of {}", trade.trade_id, decimal::to_string(trade.px, -2)));
//!         }
//!         Some(RecordKind::Quote) => {
//!             let quote = Quote::read(record).expect("a whole record");
//!             lines.push(format!("bid {}", decimal::to_string(quote.bid_px, -2)));
//!         }
//!         _ => {}
//!     }
//! }
//! assert_eq!(header.count, 2);
//! assert_eq!(lines, ["trade 77 of 61837.63", "bid 61837.62"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Subscribe and resume
//!
//! The token of the last packet received, its epoch and position, resumes the stream exactly after that packet.
//!
//! ```
//! use tickcast_protocol::control::{ChannelSet, Reply, resume_text, subscribe_text};
//! use tickcast_protocol::{Channel, Position, Token};
//!
//! let channels = ChannelSet::from_iter([Channel::Quote, Channel::Trade]);
//! let subscribe = subscribe_text(1, channels, &["BTC-USD", "ETH-*"], 100, true);
//! assert_eq!(
//!     subscribe,
//!     concat!(
//!         r#"{"op":"subscribe","id":1,"channels":["quote","trade"],"symbols":["BTC-USD","ETH-*"],"#,
//!         r#""conflate_ms":100,"snapshot":true}"#
//!     )
//! );
//!
//! let token = Token { epoch: 7, position: Position::new(91_823) };
//! let resume = resume_text(2, token, channels, &["BTC-USD", "ETH-*"], 100);
//! assert!(resume.starts_with(r#"{"op":"resume","id":2,"epoch":7,"position":91823,"#));
//!
//! let reply = Reply::parse(r#"{"type":"resumed","id":2,"how":"replay","from":91824,"conflate_ms":100,"count":37}"#)?;
//! assert!(matches!(reply, Reply::Resumed { id: 2, from, .. } if from == token.position.next()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A WebSocket session over bytes
//!
//! ```
//! use tickcast_protocol::ws::{NextStep, Opcode, Role, Session, SessionEvent, SessionLimits};
//! use tickcast_protocol::ws::{answer_control, push_masked_frame};
//!
//! // A client's frames, as a server reads them from a socket: one message, and a ping.
//! let mut input = Vec::new();
//! push_masked_frame(Opcode::Text, br#"{"op":"ping","id":1}"#, [1, 2, 3, 4], &mut input);
//! push_masked_frame(Opcode::Ping, b"", [5, 6, 7, 8], &mut input);
//!
//! let mut session = Session::new(Role::Server);
//! let limits = SessionLimits { message_bytes_max: 1 << 20 };
//! let (mut consumed, mut messages, mut output) = (0, Vec::new(), Vec::new());
//! while let Some(event) = session.next(&limits, &mut input, &mut consumed)? {
//!     match event {
//!         SessionEvent::Text(text) => messages.push(String::from_utf8_lossy(text).into_owned()),
//!         control => match answer_control(&control) {
//!             NextStep::Send(frame) | NextStep::Close(frame) => output.extend(frame),
//!             NextStep::Continue => {}
//!         },
//!     }
//! }
//! assert_eq!(messages, [r#"{"op":"ping","id":1}"#]);
//! assert_eq!(output, [0x8A, 0x00], "an empty pong");
//! # Ok::<(), tickcast_protocol::ws::Violation>(())
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

mod book;
mod conflation;
pub mod control;
pub mod decimal;
mod directory;
pub mod json;
mod numbering;
pub mod packet;
pub mod record;
pub mod sse;
mod symbol;
pub mod ws;

pub use self::book::Book;
pub use self::conflation::ConflationInterval;
pub use self::directory::{DefineError, Directory};
pub use self::numbering::{Position, Sequence, Token, TokenError};
pub use self::packet::{PacketError, PacketHeader};
pub use self::record::{
    BookAction, BookSide, Channel, FeedState, GapReason, Instrument, InstrumentStatus, RecordHeader, RecordKind, Side,
};
pub use self::symbol::{SYMBOL_BYTES_MAX, SymbolError, check_defined_name, check_symbol};
