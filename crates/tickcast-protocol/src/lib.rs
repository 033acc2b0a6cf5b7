//! The tickcast wire protocol: records, packets, control messages, the JSON and Server-Sent Events encodings, and
//! WebSocket (RFC 6455, RFC 7692) without a socket.

mod book;
mod conflation;
pub mod control;
pub mod decimal;
mod directory;
mod instrument;
pub mod json;
mod numbering;
pub mod packet;
pub mod record;
pub mod sse;
pub mod ws;

pub use book::Book;
pub use conflation::ConflationInterval;
pub use directory::{DefineError, Directory};
pub use instrument::Instrument;
pub use numbering::{Position, Sequence, Token, TokenError};
pub use packet::{PacketError, PacketHeader};
pub use record::{
    BookAction, BookSide, Channel, FeedState, GapReason, InstrumentStatus, RecordHeader, RecordKind, Side,
};
