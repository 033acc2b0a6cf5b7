//! The state of a market, as the records of a stream leave it: what checkpoints repeat, and what a reader needs that
//! begins within a stream.
//!
//! Memory: 250 bytes an instrument, its newest quote, ticker and trade, and its book.

use std::collections::BTreeMap;

use tickcast_protocol::packet::{self, PacketHeader, RECORDS_MAX};
use tickcast_protocol::record::{
    self, BOOK_LEVELS_MAX, Gap, Level, PRICE_NONE, Quote, RecordHeader, Ticker, encode_book, flags, read_book,
};
use tickcast_protocol::{
    Book, BookAction, Channel, FeedState, GapReason, Instrument, RecordKind, Sequence, Token, decimal,
};

/// Bytes of one packet of the state, apart from its last record.
const PACKET_BYTES: usize = 64 * 1024;

/// The newest values of all instruments of one epoch.
#[derive(Clone, Debug, Default)]
pub struct MarketState {
    epoch: Option<u32>,
    /// The newest Status record of the feed as a whole.
    feed_status: Vec<u8>,
    instruments: BTreeMap<u32, InstrumentState>,
}

/// What is known of an instrument. Records are whole, and empty before the first.
#[derive(Clone, Debug, Default)]
struct InstrumentState {
    definition: Option<Instrument>,
    status: Vec<u8>,
    quote: Vec<u8>,
    ticker: Vec<u8>,
    trade: Vec<u8>,
    book: Option<BookState>,
    /// The newest sequences of trades and of raw payloads.
    logs: [Sequence; 2],
}

#[derive(Clone, Debug)]
struct BookState {
    /// Of the newest record.
    header: RecordHeader,
    levels: Book,
    /// A level is missing until the next snapshot.
    is_suspect: bool,
}

impl MarketState {
    /// Applies the records of a packet. Another epoch begins with nothing.
    pub fn apply_packet(&mut self, bytes: &[u8]) {
        let Ok(header) = PacketHeader::read(bytes) else { return };
        self.begin_epoch(header.epoch);
        for (header, record) in record::records(&bytes[packet::HEADER_BYTES..]) {
            self.apply(&header, record);
        }
    }

    /// Forgets everything if the epoch is another one.
    pub fn begin_epoch(&mut self, epoch: u32) {
        if self.epoch.replace(epoch) != Some(epoch) {
            (self.feed_status, self.instruments) = (Vec::new(), BTreeMap::new());
        }
    }

    /// Applies a record. One that is cut short, or of an unknown kind, changes nothing.
    pub fn apply(&mut self, header: &RecordHeader, record: &[u8]) {
        let Some(kind) = header.known_kind() else { return };
        let id = header.instrument;
        match kind {
            RecordKind::Heartbeat => {}
            RecordKind::Status if id == 0 => self.feed_status = record.to_vec(),
            RecordKind::Status if record::read_status(record) == Some(FeedState::Released) => {
                self.instruments.remove(&id);
            }
            _ => self.instruments.entry(id).or_default().apply(kind, header, record),
        }
    }

    /// The newest sequence of a log channel, whether its record came or was reported missing; 0 if nothing is known of it,
    /// and for channels of state.
    pub fn newest(&self, instrument: u32, channel: Channel) -> Sequence {
        let state = self.instruments.get(&instrument);
        state.zip(log_index(channel)).map_or(Sequence::NONE, |(state, at)| state.logs[at])
    }

    /// An instrument, if it was defined.
    pub fn instrument(&self, id: u32) -> Option<&Instrument> {
        self.instruments.get(&id)?.definition.as_ref()
    }

    /// The epoch of the last packet.
    pub fn epoch(&self) -> Option<u32> {
        self.epoch
    }

    /// How many instruments are known.
    pub fn instruments(&self) -> usize {
        self.instruments.len()
    }

    /// Passes the state on as packets, as a subscriber gets a snapshot. The last of them is flagged CAUGHT_UP; there is at
    /// least one.
    ///
    /// # Errors
    /// The first of `each`.
    pub fn try_each_packet<E>(
        &self,
        token: Token,
        time_ns: u64,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Token { epoch, position } = token;
        let header = |flags: u8, count: u16| PacketHeader { flags, count, epoch, position, ts_send: time_ns }.encode();
        let (mut packet, mut count) = (vec![0; packet::HEADER_BYTES], 0u16);
        self.try_each_record(|record| {
            if usize::from(count) == RECORDS_MAX || (count > 0 && packet.len() + record.len() > PACKET_BYTES) {
                packet[..packet::HEADER_BYTES].copy_from_slice(&header(packet::flags::SNAPSHOT, count));
                each(&packet)?;
                packet.truncate(packet::HEADER_BYTES);
                count = 0;
            }
            packet.extend_from_slice(record);
            count += 1;
            Ok(())
        })?;
        let last = packet::flags::SNAPSHOT | packet::flags::CAUGHT_UP;
        packet[..packet::HEADER_BYTES].copy_from_slice(&header(last, count));
        each(&packet)
    }

    /// Passes the state on as records flagged SNAPSHOT, each instrument's Definition first. What is known of raw payloads
    /// is their newest sequence: a Gap up to it.
    ///
    /// # Errors
    /// The first of `each`.
    pub fn try_each_record<E>(&self, mut each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut scratch = Vec::new();
        for (id, state) in &self.instruments {
            state.push(*id, &mut scratch);
            for (_, record) in record::records(&scratch) {
                each(record)?;
            }
            scratch.clear();
        }
        if !self.feed_status.is_empty() {
            push_snapshot(&self.feed_status, &mut scratch);
            each(&scratch)?;
        }
        Ok(())
    }
}

impl InstrumentState {
    fn apply(&mut self, kind: RecordKind, header: &RecordHeader, record: &[u8]) {
        if let Some(at) = kind.channel().and_then(log_index) {
            self.logs[at] = self.logs[at].max(header.sequence);
        }
        match kind {
            RecordKind::Definition => {
                if let Some(to) = record::read_definition(record) {
                    self.define(to);
                }
            }
            RecordKind::Status => self.status = record.to_vec(),
            RecordKind::Quote => self.quote = record.to_vec(),
            RecordKind::Ticker => self.ticker = record.to_vec(),
            RecordKind::Trade => self.trade = record.to_vec(),
            RecordKind::Book => self.apply_book(header, record),
            RecordKind::Gap => {
                if let Some((gap, at)) = Gap::read(record).and_then(|gap| Some((gap, log_index(gap.channel)?))) {
                    self.logs[at] = self.logs[at].max(gap.to_sequence);
                }
            }
            RecordKind::Raw | RecordKind::Heartbeat => {}
        }
    }

    fn apply_book(&mut self, header: &RecordHeader, record: &[u8]) {
        let Some((action, levels)) = read_book(record) else { return };
        // A change of a book that is not known says nothing.
        if action != BookAction::Snapshot && self.book.is_none() {
            return;
        }
        let book =
            self.book.get_or_insert_with(|| BookState { header: *header, levels: Book::default(), is_suspect: false });
        book.levels.apply(action, levels);
        book.is_suspect &= action != BookAction::Snapshot;
        book.header = *header;
    }

    /// Takes a definition. Values are carried over to its exponents; those that do not fit are forgotten.
    fn define(&mut self, to: Instrument) {
        if let Some(from) = self.definition.replace(to.clone())
            && (from.px_exp, from.sz_exp) != (to.px_exp, to.sz_exp)
        {
            self.rescale(&from, &to);
        }
    }

    fn rescale(&mut self, from: &Instrument, to: &Instrument) {
        let of = |value: i64, from: i8, to: i8| match value {
            PRICE_NONE => Some(PRICE_NONE),
            value => decimal::rescale(value, from, to),
        };
        let px = |value: i64| of(value, from.px_exp, to.px_exp);
        let sz = |value: i64| of(value, from.sz_exp, to.sz_exp);
        self.quote = rescaled(&self.quote, |header, out| {
            let Quote { bid_px, bid_sz, ask_px, ask_sz } = Quote::read(&self.quote)?;
            let quote = Quote { bid_px: px(bid_px)?, bid_sz: sz(bid_sz)?, ask_px: px(ask_px)?, ask_sz: sz(ask_sz)? };
            quote.encode(header, out);
            Some(())
        });
        self.ticker = rescaled(&self.ticker, |header, out| {
            let Ticker { last_px, open_px, high_px, low_px, volume, turnover, bid_px, ask_px } =
                Ticker::read(&self.ticker)?;
            let (last_px, open_px, high_px, low_px) = (px(last_px)?, px(open_px)?, px(high_px)?, px(low_px)?);
            let (volume, turnover, bid_px, ask_px) = (sz(volume)?, px(turnover)?, px(bid_px)?, px(ask_px)?);
            Ticker { last_px, open_px, high_px, low_px, volume, turnover, bid_px, ask_px }.encode(header, out);
            Some(())
        });
        self.trade.clear();
        if let Some(book) = &mut self.book {
            let before = book.levels.levels(book.levels.len());
            let level = |level: &Level| Some(Level { px: px(level.px)?, sz: sz(level.sz)?, ..*level });
            let after: Vec<_> = before.iter().filter_map(level).collect();
            book.is_suspect |= after.len() < before.len();
            book.levels.apply(BookAction::Snapshot, after.into_iter());
        }
    }

    /// Appends the records of the state.
    fn push(&self, id: u32, out: &mut Vec<u8>) {
        if let Some(instrument) = &self.definition {
            let start = out.len();
            record::encode_definition(instrument, out);
            record::patch_flags(&mut out[start..], flags::LAST | flags::SNAPSHOT);
        }
        push_snapshot(&self.status, out);
        if let Some(book) = &self.book {
            let suspect = if book.is_suspect { flags::MAYBE_BAD_BOOK } else { 0 };
            let kept = book.header.flags & (flags::MAYBE_BAD_BOOK | flags::DELAYED);
            let header = book.header.with_flags(flags::LAST | flags::SNAPSHOT | kept | suspect);
            let levels = book.levels.levels(BOOK_LEVELS_MAX);
            encode_book(&header, BookAction::Snapshot, levels.into_iter(), out);
        }
        [&self.ticker, &self.quote, &self.trade].into_iter().for_each(|record| push_snapshot(record, out));
        let traded = RecordHeader::read(&self.trade).map_or(Sequence::NONE, |header| header.sequence);
        for (channel, known) in [(Channel::Trade, traded), (Channel::Raw, Sequence::NONE)] {
            let newest = log_index(channel).map_or(Sequence::NONE, |at| self.logs[at]);
            if newest > known {
                let gap = Gap {
                    instrument: id,
                    channel,
                    from_sequence: known.next(),
                    to_sequence: newest,
                    reason: GapReason::Overrun,
                };
                let start = out.len();
                gap.encode(0, out);
                record::patch_flags(&mut out[start..], flags::LAST | flags::SNAPSHOT);
            }
        }
    }
}

/// A record with other values; none if they do not fit.
fn rescaled(record: &[u8], encode: impl FnOnce(&RecordHeader, &mut Vec<u8>) -> Option<()>) -> Vec<u8> {
    let mut out = Vec::new();
    RecordHeader::read(record).and_then(|header| encode(&header, &mut out)).map_or(Vec::new(), |()| out)
}

fn push_snapshot(record: &[u8], out: &mut Vec<u8>) {
    let Some(header) = RecordHeader::read(record) else { return };
    let start = out.len();
    out.extend_from_slice(record);
    record::patch_flags(&mut out[start..], header.flags | flags::LAST | flags::SNAPSHOT);
}

/// The place of a log channel; `None` for state.
fn log_index(channel: Channel) -> Option<usize> {
    match channel {
        Channel::Trade => Some(0),
        Channel::Raw => Some(1),
        Channel::Quote | Channel::Ticker | Channel::Book => None,
    }
}
