//! Payloads of brokers as records: what a message says, wherever it came from.
//!
//! * [`tickcast`]: packets of the protocol. [`json`]: its JSON records. [`raw`]: opaque bytes for the channel `raw`.
//! * [`address`]: the symbol that the address of a message stands for.
//! * [`directory`]: the instruments that messages have named.
//!
//! What always holds: everything here is pure; no bytes cause a panic; a message that cannot be read is counted and
//! logged, at most one a minute, and the next one is read; instruments and names are bounded.

pub mod address;
pub mod directory;
pub mod json;
pub mod raw;
pub mod tickcast;

use self::address::{AddressError, AddressRule};
use self::directory::Directory;
use self::tickcast::Packets;
use super::source::Report;
use tickcast_protocol::SymbolError;
use tickcast_protocol::packet::PacketError;
use tickcast_protocol::record::RecordError;
use tickcast_venues::records::JsonRecords;
use tickcast_venues::{Malformed, Sink};

/// Least time between two lines in the log about messages that cannot be read.
const LOG_INTERVAL_NS: u64 = 60_000_000_000;

/// The form of payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Packets of the protocol, see [`tickcast`].
    Tickcast,
    /// JSON records of the protocol.
    #[default]
    Json,
    /// Opaque bytes.
    Raw,
}

/// Where the symbol of a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SymbolFrom {
    /// Its subject, channel, topic or routing key.
    Address,
    /// The key that the broker keeps beside the payload.
    Key,
    /// A field of its JSON.
    Field(String),
}

/// What a decoder is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodecSettings {
    pub form: Form,
    /// Packets have their symbols in themselves.
    pub symbol: SymbolFrom,
    pub address: AddressRule,
    /// The venue of instruments that no message defines.
    pub venue: String,
}

/// A message as a codec sees it.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    /// Subject, channel, topic or routing key.
    pub address: &'a str,
    /// The key that the broker keeps beside the payload.
    pub key: Option<&'a [u8]>,
    pub bytes: &'a [u8],
}

/// Why a message cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    #[error(transparent)]
    Json(#[from] Malformed),
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error("record {record} at byte {at}: {error}")]
    Record { record: usize, at: usize, error: RecordError },
    #[error(
        "record {record} at byte {at}: instrument {instrument} has no Definition before it in the packets of this address"
    )]
    Undefined { record: usize, at: usize, instrument: u32 },
    #[error("record {record} at byte {at}: {symbol} has other exponents since another address has defined it")]
    Redefined { record: usize, at: usize, symbol: String },
    #[error("record {record} at byte {at}: the Definition is cut short or not UTF-8")]
    Definition { record: usize, at: usize },
    #[error("{bytes} bytes follow the {count} records that the header counts")]
    Trailing { count: usize, bytes: usize },
    #[error("name {name:?} {error}")]
    Name { name: String, error: SymbolError },
    #[error("name of {bytes} bytes: expected at most {most}")]
    LongName { bytes: usize, most: usize },
    #[error("exponent {0}: expected -18 to 18")]
    Exponent(i8),
    #[error("instrument beyond the first {0} of this feed")]
    TooMany(usize),
    #[error("the message has no key: expected the symbol")]
    NoKey,
    #[error("the key is not UTF-8: expected the symbol")]
    KeyNotText,
    #[error("payload of {bytes} bytes: expected at most {most}")]
    LongPayload { bytes: usize, most: usize },
}

/// Turns payloads into records; keeps the instruments that they have named.
pub struct Decoder {
    /// Of the feed, for the log.
    name: String,
    settings: CodecSettings,
    codec: Codec,
    report: tickcast_venues::Report,
    next_id: u32,
    events: Vec<tickcast_venues::Event>,
    logged_ns: Option<u64>,
    unlogged: u64,
}

enum Codec {
    Tickcast(Packets),
    Json(JsonRecords),
    Raw(Directory),
}

impl Decoder {
    /// A decoder that knows no instrument yet.
    pub fn new(name: &str, settings: &CodecSettings) -> Self {
        let codec = match settings.form {
            Form::Tickcast => Codec::Tickcast(Packets::default()),
            Form::Json => Codec::Json(JsonRecords::new(&settings.venue)),
            Form::Raw => Codec::Raw(Directory::default()),
        };
        Self {
            name: name.to_owned(),
            settings: settings.clone(),
            codec,
            report: tickcast_venues::Report::default(),
            next_id: 1,
            events: Vec::new(),
            logged_ns: None,
            unlogged: 0,
        }
    }

    /// Appends the records of a message to `batch`. One that cannot be read is counted and logged.
    pub fn decode(&mut self, payload: &Payload<'_>, now_ns: u64, batch: &mut Vec<u8>) {
        let Self { settings, codec, report, next_id, events, .. } = self;
        let mut sink = Sink { batch, report, next_id, events };
        let result = match codec {
            Codec::Tickcast(packets) => packets.take(payload, &mut sink),
            Codec::Json(records) => json::take(records, settings, payload, &mut sink),
            Codec::Raw(directory) => raw::take(directory, settings, payload, &mut sink),
        };
        events.clear();
        if let Err(error) = result {
            report.malformed += 1;
            self.log(payload.address, &error, now_ns);
        }
    }

    /// Appends the Definitions of all instruments, after the source was opened anew.
    pub fn announce_again(&mut self, batch: &mut Vec<u8>) {
        let Self { codec, report, next_id, events, .. } = self;
        let mut sink = Sink { batch, report, next_id, events };
        match codec {
            Codec::Tickcast(packets) => packets.directory().announce_again(&mut sink),
            Codec::Json(records) => records.announce_again(&mut sink),
            Codec::Raw(directory) => directory.announce_again(&mut sink),
        }
    }

    /// Takes the counters since this was last called.
    pub fn take_report(&mut self) -> Report {
        std::mem::take(&mut self.report)
    }

    fn log(&mut self, address: &str, error: &Undecodable, now_ns: u64) {
        if self.logged_ns.is_some_and(|logged| now_ns < logged.saturating_add(LOG_INTERVAL_NS)) {
            self.unlogged += 1;
            return;
        }
        let more = std::mem::take(&mut self.unlogged);
        let address: String = address.chars().take(100).collect();
        tracing::warn!("feed {}: a message of {address:?} was left out: {error}; {more} others before it", self.name);
        self.logged_ns = Some(now_ns);
    }
}

impl CodecSettings {
    /// The symbol of a message that is not in the payload.
    fn symbol<'a>(&self, payload: &Payload<'a>) -> Result<std::borrow::Cow<'a, str>, Undecodable> {
        match self.symbol {
            SymbolFrom::Key => {
                let key = payload.key.ok_or(Undecodable::NoKey)?;
                Ok(std::str::from_utf8(key).map_err(|_| Undecodable::KeyNotText)?.into())
            }
            SymbolFrom::Address | SymbolFrom::Field(_) => Ok(self.address.symbol(payload.address)?),
        }
    }
}

#[cfg(test)]
mod tests;
