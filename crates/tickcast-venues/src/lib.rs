//! Codecs of crypto exchanges: their messages as records of tickcast.
//!
//! Everything here is pure: texts, bytes and times in, records and texts to send out. There is no I/O, no clock and no
//! thread. A program that holds the connection to a venue drives a [`Codec`]; a replay gives it the lines of a recording.
//!
//! * [`Venue`]: the venues, and how a message shows of which it is. [`Access`]: their addresses and limits.
//! * [`Codec`]: subscriptions, messages, HTTP requests, pings, what is silent. [`Sink`]: where records, counters and
//!   [`Event`]s go.
//! * [`Handover`]: the change from one connection to the next, without loss and duplicates.
//! * [`Naming`]: the names of instruments in the directory.
//! * [`records`]: the JSON records of the protocol, as a source that is no venue sends them.
//! * [`binance`]: its parts, for recordings that mix markets and files.
//! * [`stamp`]: times of other systems, in any unit.
//!
//! What all of them hold to:
//!
//! * Prices and sizes are exact. Exponents come from the venue's list of instruments, else from the texts; a value that
//!   does not fit changes them by another Definition. What fits no exponents is counted and flagged.
//! * A fault of a book drops this book alone, flags it MAYBE_BAD_BOOK, and asks for it again within the venue's limits.
//! * Memory is bounded: instruments, levels, held updates, awaited answers and texts have limits.
//! * No text of a venue causes a panic.
//!
//! ```
//! use tickcast_protocol::control::ChannelSet;
//! use tickcast_protocol::record;
//! use tickcast_protocol::{Channel, RecordKind};
//! use tickcast_venues::{CodecOptions, Event, Report, Sink, Venue};
//!
//! let mut codec = Venue::Okx.codec(CodecOptions::default());
//! let (mut batch, mut report, mut next_id, mut events) = (Vec::new(), Report::default(), 1, Vec::new());
//! let mut sink = Sink { batch: &mut batch, report: &mut report, next_id: &mut next_id, events: &mut events };
//!
//! let now_ns = 1_763_700_000_000_000_000;
//! codec.subscribe(&["BTC-USDT"], ChannelSet::from_iter([Channel::Trade]), now_ns, &mut sink)?;
//! let mut message = br#"{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT",
//!     "tradeId":"130639474","px":"42219.9","sz":"0.12060306","side":"buy","ts":"1630048897897"}]}"#.to_vec();
//! codec.on_message(&mut message, now_ns, &mut sink)?;
//!
//! let kinds: Vec<_> = record::records(&batch).filter_map(|(header, _)| header.known_kind()).collect();
//! assert_eq!(kinds, [RecordKind::Definition, RecordKind::Trade]);
//! assert!(events.iter().any(|event| matches!(event, Event::Send(text) if text.contains("trades"))));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod access;
mod awaited;
pub mod binance;
mod bybit;
mod codec;
mod coinbase;
mod error;
mod handover;
mod instruments;
mod json;
mod kraken;
mod listing;
mod local_book;
mod okx;
pub mod records;
pub mod scale;
mod sink;
pub mod stamp;
mod stream_book;
mod streams;
#[cfg(test)]
mod test_records;
mod tracked;
mod trade_ids;
mod venue;
mod window;

pub use access::{Access, Endpoint, Limits};
pub use codec::{Codec, CodecOptions, RestRequest};
pub use error::{Malformed, SubscribeError, TimeFault};
pub use handover::Handover;
pub use instruments::{INSTRUMENTS_MAX, Naming};
pub use listing::NameStyle;
pub use sink::{BookFault, Event, Notice, Report, Sink, StreamName};
pub use streams::{RequestLimit, SILENT_NS, StreamState};
pub use venue::Venue;
