//! A packet as a program reads it: its header, and its records with their types.

use super::decode::Decoder;
use tickcast_protocol::packet::PacketHeader;
use tickcast_protocol::record::{self, Gap, Level, Quote, RecordHeader, Ticker, Trade, read_book, read_raw};
use tickcast_protocol::{BookAction, FeedState, Instrument, RecordKind};

/// What is new in one packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Its header; [`Client::token`](super::Client::token) is made of it.
    pub header: PacketHeader,
    /// Its length as it came, decompressed.
    pub bytes: usize,
    pub(super) records: &'a [u8],
    pub(super) decoder: &'a Decoder,
}

/// One record.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub header: RecordHeader,
    /// Whose it is; `None` for heartbeats and the state of the feed.
    pub instrument: Option<&'a Instrument>,
    /// What its type has.
    pub body: Body<'a>,
    /// The whole record as it travels.
    pub bytes: &'a [u8],
}

/// What a record says, by its type.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    Quote(Quote),
    Trade(Trade),
    Ticker(Ticker),
    Book(Book<'a>),
    /// The payload.
    Raw(&'a [u8]),
    /// Announces the record's instrument.
    Definition,
    Heartbeat,
    Gap(Gap),
    /// The state of the instrument, or of the feed if the record has no instrument.
    Status(FeedState),
}

/// The levels of a Book record. [`tickcast_protocol::Book`] keeps a book up to date with them.
#[derive(Clone, Copy, Debug)]
pub struct Book<'a> {
    record: &'a [u8],
}

impl<'a> Packet<'a> {
    /// The records, the oldest first: without types that this version does not know, and without what was had before.
    pub fn records(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let decoder = self.decoder;
        record::records(self.records).filter_map(move |(header, bytes)| {
            let body = Body::read(RecordKind::from_wire(header.kind)?, bytes)?;
            Some(Record { header, instrument: decoder.instrument(header.instrument), body, bytes })
        })
    }

    /// The instrument with this id, where it has been defined.
    pub fn instrument(&self, id: u32) -> Option<&'a Instrument> {
        self.decoder.instrument(id)
    }

    /// Log records (trades, raw bytes) that came while the client was away, and that the server's history does not reach
    /// any more; their reason is `'R'`.
    pub fn missed(&self) -> &'a [Gap] {
        self.decoder.missed()
    }
}

impl<'a> Body<'a> {
    /// `None` for what this version does not know, such as a gap of an unknown channel.
    fn read(kind: RecordKind, record: &'a [u8]) -> Option<Self> {
        Some(match kind {
            RecordKind::Quote => Self::Quote(Quote::read(record)?),
            RecordKind::Trade => Self::Trade(Trade::read(record)?),
            RecordKind::Ticker => Self::Ticker(Ticker::read(record)?),
            RecordKind::Book => read_book(record).map(|_| Self::Book(Book { record }))?,
            RecordKind::Raw => Self::Raw(read_raw(record)?),
            RecordKind::Definition => Self::Definition,
            RecordKind::Heartbeat => Self::Heartbeat,
            RecordKind::Gap => Self::Gap(Gap::read(record)?),
            RecordKind::Status => Self::Status(record::read_status(record)?),
        })
    }
}

impl<'a> Book<'a> {
    /// Whether the levels replace both sides or change levels by absolute size.
    pub fn action(&self) -> BookAction {
        read_book(self.record).map_or(BookAction::Delta, |(action, _)| action)
    }

    /// The levels, in the record's order; a size of 0 removes one.
    pub fn levels(&self) -> impl Iterator<Item = Level> + use<'a> {
        read_book(self.record).into_iter().flat_map(|(_, levels)| levels)
    }
}
