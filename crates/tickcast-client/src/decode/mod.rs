//! Packets without a connection: records with their instruments, and the check that no record is missing silently.
//!
//! The rule, for each instrument and channel: the next sequence is the last one plus one, or the jump is announced. A
//! Gap record announces it on any channel; the flags CONFLATED and SNAPSHOT do on state channels. And every instrument
//! is defined before its first record.
//!
//! [`Decoder`] applies the rule to one stream. [`split_record`], [`body_is_complete`], [`sequence_violation`] and
//! [`sequences_covered`] are its parts, for a program that follows very many streams with a table of its own.
//!
//! ```
//! use tickcast_client::decode::Decoder;
//! use tickcast_client::{Body, PublishPacket};
//! use tickcast_protocol::record::{Quote, RecordHeader, encode_definition};
//! use tickcast_protocol::{Instrument, RecordKind, Sequence, decimal};
//!
//! // As a server sends it: the definition of an instrument, then its first quote.
//! let mut packet = PublishPacket::new();
//! packet.push(|out| encode_definition(&Instrument::new(1, "BTC-USD", "sim", -2, -8), out));
//! let mut header = RecordHeader::of_feed(RecordKind::Quote, 1, 0);
//! header.sequence = Sequence::new(1);
//! packet.push(|out| Quote { bid_px: 6_183_763, bid_sz: 5, ask_px: 6_183_764, ask_sz: 7 }.encode(&header, out));
//!
//! let mut decoder = Decoder::new();
//! let mut bids = Vec::new();
//! decoder.packet(packet.bytes(), |instrument, header, record| {
//!     if let (Some(Body::Quote(quote)), Some(instrument)) = (Body::decode(header, record), instrument) {
//!         bids.push((instrument.symbol.clone(), decimal::to_string(quote.bid_px, instrument.px_exp)));
//!     }
//! })?;
//! assert_eq!(bids, [("BTC-USD".to_owned(), "61837.63".to_owned())]);
//! assert_eq!(decoder.first_violation(), None);
//! # Ok::<(), tickcast_client::decode::DecodeError>(())
//! ```

mod counters;
mod decoder;
mod rules;

pub use counters::DecodeCounters;
pub use decoder::Decoder;
pub use rules::{
    DecodeError, SequenceViolation, body_is_complete, highest_sequence, sequence_violation, sequences_covered,
    split_record,
};
