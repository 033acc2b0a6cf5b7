//! A packet as a program reads it: its header, and its records by type.

use crate::decode::Decoder;
use tickcast_protocol::packet::PacketHeader;
use tickcast_protocol::record::{self, Gap, Level, Quote, RecordHeader, Ticker, Trade, read_book, read_raw};
use tickcast_protocol::{BookAction, FeedState, Instrument, RecordKind};

/// A packet, without the records that the client already had.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Its header. Epoch and position make [`Client::token`](crate::Client::token).
    pub header: PacketHeader,
    /// Its length, inflated.
    pub bytes: usize,
    pub(crate) records: &'a [u8],
    pub(crate) decoder: &'a Decoder,
}

/// One record.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its header.
    pub header: RecordHeader,
    /// Its instrument; `None` for heartbeats and the status of a whole feed.
    pub instrument: Option<&'a Instrument>,
    /// Its values.
    pub body: Body<'a>,
    /// The whole record as it was sent.
    pub bytes: &'a [u8],
}

/// The values of a record, by its type.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// Best bid and offer.
    Quote(Quote),
    /// One trade.
    Trade(Trade),
    /// 24 h statistics.
    Ticker(Ticker),
    /// Levels of a book.
    Book(BookUpdate<'a>),
    /// A payload that the server does not read.
    Raw(&'a [u8]),
    /// Defines the record's instrument.
    Definition,
    /// The server has nothing to send.
    Heartbeat,
    /// Records of a log channel are missing.
    Gap(Gap),
    /// The state of the instrument, or of the feed where the record has no instrument.
    Status(FeedState),
}

/// The levels of a Book record. [`tickcast_protocol::Book`] keeps a book up to date with them.
#[derive(Clone, Copy, Debug)]
pub struct BookUpdate<'a> {
    record: &'a [u8],
}

impl<'a> Packet<'a> {
    /// The records, the oldest first. Types that this version does not know are left out.
    pub fn records(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let decoder = self.decoder;
        record::records(self.records).filter_map(move |(header, bytes)| {
            let body = Body::decode(&header, bytes)?;
            Some(Record { header, instrument: decoder.instrument(header.instrument), body, bytes })
        })
    }

    /// The instrument with this id, where it has been defined.
    pub fn instrument(&self, id: u32) -> Option<&'a Instrument> {
        self.decoder.instrument(id)
    }

    /// Records of log channels (trades, raw bytes) that were sent while the client was disconnected and that the
    /// server's history no longer has. Their reason is
    /// [`GapReason::Reconnect`](tickcast_protocol::GapReason::Reconnect).
    pub fn missed(&self) -> &'a [Gap] {
        self.decoder.missed()
    }
}

impl<'a> Body<'a> {
    /// The values of a whole record; `None` for a type or a channel that this version does not know.
    pub fn decode(header: &RecordHeader, record: &'a [u8]) -> Option<Self> {
        Some(match RecordKind::from_wire(header.kind)? {
            RecordKind::Quote => Self::Quote(Quote::read(record)?),
            RecordKind::Trade => Self::Trade(Trade::read(record)?),
            RecordKind::Ticker => Self::Ticker(Ticker::read(record)?),
            RecordKind::Book => read_book(record).map(|_| Self::Book(BookUpdate { record }))?,
            RecordKind::Raw => Self::Raw(read_raw(record)?),
            RecordKind::Definition => Self::Definition,
            RecordKind::Heartbeat => Self::Heartbeat,
            RecordKind::Gap => Self::Gap(Gap::read(record)?),
            RecordKind::Status => Self::Status(record::read_status(record)?),
        })
    }
}

impl<'a> BookUpdate<'a> {
    /// Whether the levels replace both sides or change levels by absolute size.
    pub fn action(&self) -> BookAction {
        read_book(self.record).map_or(BookAction::Delta, |(action, _)| action)
    }

    /// The levels, in the record's order; a size of 0 removes one.
    pub fn levels(&self) -> impl Iterator<Item = Level> + use<'a> {
        read_book(self.record).into_iter().flat_map(|(_, levels)| levels)
    }
}
