//! The records of the wire: little-endian, 8-byte aligned, sizes multiples of 8.
//!
//! A record is written once, by the sequencer, and travels as these bytes to every client that wants it. The structs
//! here are views for those who make or read one; nothing transmutes: fields go through `to_le_bytes`.
//!
//! ```text
//! header, 32 bytes
//!  0 u16 length (units of 8)   2 u8 kind   3 u8 flags   4 u32 instrument
//!  8 u64 sequence             16 u64 ts_event          24 u64 ts_recv
//! ```
//!
//! Cost: writing a quote is eight stores; reading a header is one bounds check and six loads.

mod letters;

pub use self::letters::{BookAction, BookSide, FeedState, GapReason, InstrumentStatus, Side};
use super::instrument::Instrument;
use super::numbering::Sequence;

/// "Not present" for prices and sizes.
pub const PRICE_NONE: i64 = i64::MIN;
/// Bytes of a record header.
pub const HEADER_BYTES: usize = 32;
/// The longest record: a `u16` count of 8-byte units.
pub const RECORD_BYTES_MAX: usize = u16::MAX as usize * 8;
/// Levels that fit into one Book record.
pub const BOOK_LEVELS_MAX: usize = (RECORD_BYTES_MAX - 40) / LEVEL_BYTES;
/// Bytes of one book level.
pub const LEVEL_BYTES: usize = 24;

/// Record flags.
pub mod flags {
    /// Last record of its event.
    pub const LAST: u8 = 0x80;
    /// State before live.
    pub const SNAPSHOT: u8 = 0x20;
    /// Values were merged before this one.
    pub const CONFLATED: u8 = 0x10;
    /// Held back on purpose.
    pub const DELAYED: u8 = 0x08;
    /// The book missed an update of its venue and is being rebuilt.
    pub const MAYBE_BAD_BOOK: u8 = 0x04;
}

/// What a record is; the wire's `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum RecordKind {
    Quote = 1,
    Trade = 2,
    Ticker = 3,
    Book = 4,
    Raw = 5,
    Definition = 16,
    Heartbeat = 17,
    Gap = 18,
    Status = 19,
}

impl RecordKind {
    /// The kind with this wire number, or `None`: a reader skips what it does not know.
    pub fn from_wire(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Quote,
            2 => Self::Trade,
            3 => Self::Ticker,
            4 => Self::Book,
            5 => Self::Raw,
            16 => Self::Definition,
            17 => Self::Heartbeat,
            18 => Self::Gap,
            19 => Self::Status,
            _ => return None,
        })
    }

    /// The channel that carries this kind, for those that are subscribed to.
    pub fn channel(self) -> Option<Channel> {
        Some(match self {
            Self::Quote => Channel::Quote,
            Self::Trade => Channel::Trade,
            Self::Ticker => Channel::Ticker,
            Self::Book => Channel::Book,
            Self::Raw => Channel::Raw,
            Self::Definition | Self::Heartbeat | Self::Gap | Self::Status => return None,
        })
    }
}

/// What a client subscribes to for an instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Channel {
    /// Best bid and offer: state, the newest wins.
    Quote = 0,
    /// Trades: a log, never conflated.
    Trade = 1,
    /// 24 h statistics: state.
    Ticker = 2,
    /// Levels: state made of deltas.
    Book = 3,
    /// Opaque bytes: a log, never conflated.
    Raw = 4,
}

impl Channel {
    /// How many there are.
    pub const COUNT: usize = 5;
    /// All of them, in wire order.
    pub const ALL: [Self; Self::COUNT] = [Self::Quote, Self::Trade, Self::Ticker, Self::Book, Self::Raw];

    /// The word a client writes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quote => "quote",
            Self::Trade => "trade",
            Self::Ticker => "ticker",
            Self::Book => "book",
            Self::Raw => "raw",
        }
    }

    /// The channel of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.name() == name)
    }

    /// The kind of its records.
    pub fn kind(self) -> RecordKind {
        match self {
            Self::Quote => RecordKind::Quote,
            Self::Trade => RecordKind::Trade,
            Self::Ticker => RecordKind::Ticker,
            Self::Book => RecordKind::Book,
            Self::Raw => RecordKind::Raw,
        }
    }

    /// True for channels whose every record counts (trade, raw); false for state, where the newest wins.
    pub fn is_log(self) -> bool {
        matches!(self, Self::Trade | Self::Raw)
    }
}

/// The 32 bytes that open every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Whole record in units of 8 bytes.
    pub length: u16,
    /// Wire number of the kind; kept raw, since a reader skips what it does not know.
    pub kind: u8,
    /// See [`flags`].
    pub flags: u8,
    /// Instrument id of the epoch; 0 where none applies.
    pub instrument: u32,
    /// Per instrument and channel, contiguous, from 1; 0 where none applies.
    pub sequence: Sequence,
    /// Venue time, ns since the Unix epoch (0 = none given).
    pub ts_event: u64,
    /// When this system first saw it, ns since the Unix epoch.
    pub ts_recv: u64,
}

impl RecordHeader {
    /// A header that a feed fills in: the sequencer sets sequence and `ts_recv`.
    pub fn of_feed(kind: RecordKind, instrument: u32, ts_event: u64) -> Self {
        Self {
            length: 0,
            kind: kind as u8,
            flags: flags::LAST,
            instrument,
            sequence: Sequence::NONE,
            ts_event,
            ts_recv: 0,
        }
    }

    /// The same header with other flags.
    pub fn with_flags(mut self, flags: u8) -> Self {
        self.flags = flags;
        self
    }

    /// Reads the header at the start of `bytes`; `None` if fewer than 32 are there.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let head = bytes.first_chunk::<HEADER_BYTES>()?;
        Some(Self {
            length: u16::from_le_bytes([head[0], head[1]]),
            kind: head[2],
            flags: head[3],
            instrument: u32_at(head, 4),
            sequence: Sequence::new(u64_at(head, 8)),
            ts_event: u64_at(head, 16),
            ts_recv: u64_at(head, 24),
        })
    }

    /// Length of the whole record in bytes.
    pub fn bytes(&self) -> usize {
        usize::from(self.length) * 8
    }

    /// `None` for a kind that this version does not know.
    #[inline]
    pub fn known_kind(&self) -> Option<RecordKind> {
        RecordKind::from_wire(self.kind)
    }

    fn write(&self, length_bytes: usize, out: &mut Vec<u8>) {
        assert!(length_bytes.is_multiple_of(8) && length_bytes <= RECORD_BYTES_MAX, "record of {length_bytes} bytes");
        out.extend_from_slice(&((length_bytes / 8) as u16).to_le_bytes());
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.instrument.to_le_bytes());
        out.extend_from_slice(&self.sequence.get().to_le_bytes());
        out.extend_from_slice(&self.ts_event.to_le_bytes());
        out.extend_from_slice(&self.ts_recv.to_le_bytes());
    }
}

/// The first eight bytes of a record: enough to see what it is and whose, without reading its header.
///
/// Cost: one load; each field is a shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPrefix(u64);

impl RecordPrefix {
    /// Of the first eight bytes of a record as a little-endian word.
    #[inline]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// Of a record; `None` if fewer than eight bytes are there.
    #[inline]
    pub fn read(record: &[u8]) -> Option<Self> {
        Some(Self(u64::from_le_bytes(*record.first_chunk()?)))
    }

    /// Length of the whole record in bytes.
    #[inline]
    pub const fn bytes(self) -> usize {
        (self.0 as u16 as usize) * 8
    }

    /// `None` for a kind that this version does not know.
    #[inline]
    pub fn kind(self) -> Option<RecordKind> {
        RecordKind::from_wire((self.0 >> 16) as u8)
    }

    /// See [`flags`].
    #[inline]
    pub const fn flags(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// Instrument id of the epoch; 0 where none applies.
    #[inline]
    pub const fn instrument(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// The kind of an encoded record; `None` if this version does not know it.
#[inline]
pub fn kind_of(record: &[u8]) -> Option<RecordKind> {
    RecordPrefix::read(record)?.kind()
}

/// Best bid and offer, 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    pub bid_px: i64,
    pub bid_sz: i64,
    pub ask_px: i64,
    pub ask_sz: i64,
}

impl Quote {
    /// Length on the wire.
    pub const BYTES: usize = 64;

    /// Appends header and body.
    pub fn encode(&self, header: &RecordHeader, out: &mut Vec<u8>) {
        header.write(Self::BYTES, out);
        put(out, &[self.bid_px, self.bid_sz, self.ask_px, self.ask_sz]);
    }

    /// Reads the body of a whole record.
    pub fn read(record: &[u8]) -> Option<Self> {
        let [bid_px, bid_sz, ask_px, ask_sz] = take(record)?;
        Some(Self { bid_px, bid_sz, ask_px, ask_sz })
    }
}

/// One trade, 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trade {
    pub px: i64,
    pub sz: i64,
    pub trade_id: u64,
    /// Side of the aggressor.
    pub side: Side,
}

impl Trade {
    /// Length on the wire.
    pub const BYTES: usize = 64;

    /// Appends header and body.
    pub fn encode(&self, header: &RecordHeader, out: &mut Vec<u8>) {
        header.write(Self::BYTES, out);
        put(out, &[self.px, self.sz]);
        out.extend_from_slice(&self.trade_id.to_le_bytes());
        out.extend_from_slice(&[self.side.to_wire(), 0, 0, 0, 0, 0, 0, 0]);
    }

    /// Reads the body of a whole record.
    pub fn read(record: &[u8]) -> Option<Self> {
        let [px, sz, trade_id, side] = take(record)?;
        Some(Self { px, sz, trade_id: trade_id as u64, side: Side::from_wire(side as u8) })
    }
}

/// 24 h statistics, 96 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticker {
    pub last_px: i64,
    pub open_px: i64,
    pub high_px: i64,
    pub low_px: i64,
    /// In the base, at the size exponent.
    pub volume: i64,
    /// In the quote currency, at the price exponent.
    pub turnover: i64,
    pub bid_px: i64,
    pub ask_px: i64,
}

impl Ticker {
    /// Length on the wire.
    pub const BYTES: usize = 96;

    /// Appends header and body.
    pub fn encode(&self, header: &RecordHeader, out: &mut Vec<u8>) {
        header.write(Self::BYTES, out);
        let prices = [self.last_px, self.open_px, self.high_px, self.low_px];
        put(out, &prices);
        put(out, &[self.volume, self.turnover, self.bid_px, self.ask_px]);
    }

    /// Reads the body of a whole record.
    pub fn read(record: &[u8]) -> Option<Self> {
        let [last_px, open_px, high_px, low_px, volume, turnover, bid_px, ask_px] = take(record)?;
        Some(Self { last_px, open_px, high_px, low_px, volume, turnover, bid_px, ask_px })
    }
}

/// One level of a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    pub px: i64,
    /// Absolute size; 0 removes the level.
    pub sz: i64,
    pub side: BookSide,
}

/// Appends a Book record: 40 + 24n bytes.
///
/// # Panics
/// When there are more than [`BOOK_LEVELS_MAX`] levels: whoever builds one cuts first.
pub fn encode_book(
    header: &RecordHeader,
    action: BookAction,
    levels: impl ExactSizeIterator<Item = Level>,
    out: &mut Vec<u8>,
) {
    let count = levels.len();
    assert!(count <= BOOK_LEVELS_MAX, "a book of {count} levels does not fit into a record");
    header.write(40 + count * LEVEL_BYTES, out);
    out.extend_from_slice(&(count as u16).to_le_bytes());
    out.extend_from_slice(&[action.to_wire(), 0, 0, 0, 0, 0]);
    for level in levels {
        put(out, &[level.px, level.sz]);
        out.extend_from_slice(&[level.side.to_wire(), 0, 0, 0, 0, 0, 0, 0]);
    }
}

/// What the levels of a whole Book record do, and the levels.
pub fn read_book(record: &[u8]) -> Option<(BookAction, impl ExactSizeIterator<Item = Level>)> {
    let head = record.get(32..40)?;
    let count = usize::from(u16::from_le_bytes([head[0], head[1]]));
    let body = record.get(40..40 + count * LEVEL_BYTES)?;
    let levels = body.chunks_exact(LEVEL_BYTES).map(|level| Level {
        px: u64_at(level, 0) as i64,
        sz: u64_at(level, 8) as i64,
        side: BookSide::from_wire(level[16]),
    });
    Some((BookAction::from_wire(head[2]), levels))
}

/// Appends a Raw record: 40 + payload, padded with zeros.
pub fn encode_raw(header: &RecordHeader, payload: &[u8], out: &mut Vec<u8>) {
    let length = (40 + payload.len()).next_multiple_of(8);
    header.write(length, out);
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out.resize(out.len() + length - 40 - payload.len(), 0);
}

/// The payload of a whole Raw record.
pub fn read_raw(record: &[u8]) -> Option<&[u8]> {
    let length = u32::from_le_bytes(*record.get(32..)?.first_chunk()?) as usize;
    record.get(40..40usize.checked_add(length)?)
}

/// Appends a Definition record: 64 + symbol and venue, padded.
///
/// # Panics
/// When symbol or venue are longer than 255 bytes: the directory refuses those.
pub fn encode_definition(instrument: &Instrument, out: &mut Vec<u8>) {
    let (symbol, venue) = (instrument.symbol.as_bytes(), instrument.venue.as_bytes());
    let symbol_bytes = u8::try_from(symbol.len()).expect("the directory bounds symbols to 255 bytes");
    let venue_bytes = u8::try_from(venue.len()).expect("the directory bounds venues to 255 bytes");
    let length = (64 + symbol.len() + venue.len()).next_multiple_of(8);
    RecordHeader::of_feed(RecordKind::Definition, instrument.id, 0).write(length, out);
    out.extend_from_slice(&[
        instrument.px_exp as u8,
        instrument.sz_exp as u8,
        instrument.status.to_wire(),
        symbol_bytes,
    ]);
    out.extend_from_slice(&[venue_bytes, 0, 0, 0]);
    put(out, &[instrument.tick_size, instrument.lot_size, 0]);
    out.extend_from_slice(symbol);
    out.extend_from_slice(venue);
    out.resize(out.len() + length - 64 - symbol.len() - venue.len(), 0);
}

/// The instrument that a whole Definition record announces; `None` if it is cut short or not UTF-8.
pub fn read_definition(record: &[u8]) -> Option<Instrument> {
    let header = RecordHeader::read(record)?;
    let body = record.get(32..64)?;
    let symbol_end = 64 + usize::from(body[3]);
    let venue_end = symbol_end + usize::from(body[4]);
    Some(Instrument {
        id: header.instrument,
        symbol: std::str::from_utf8(record.get(64..symbol_end)?).ok()?.to_owned(),
        venue: std::str::from_utf8(record.get(symbol_end..venue_end)?).ok()?.to_owned(),
        px_exp: body[0] as i8,
        sz_exp: body[1] as i8,
        status: InstrumentStatus::from_wire(body[2]),
        tick_size: u64_at(body, 8) as i64,
        lot_size: u64_at(body, 16) as i64,
    })
}

/// Appends a Heartbeat: a bare header.
pub fn encode_heartbeat(ts_recv: u64, out: &mut Vec<u8>) {
    let mut header = RecordHeader::of_feed(RecordKind::Heartbeat, 0, 0);
    header.ts_recv = ts_recv;
    header.write(HEADER_BYTES, out);
}

/// A hole in a log channel, announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub instrument: u32,
    pub channel: Channel,
    /// First sequence that is missing.
    pub from_sequence: Sequence,
    /// Last sequence that is missing.
    pub to_sequence: Sequence,
    pub reason: GapReason,
}

impl Gap {
    /// Length on the wire.
    pub const BYTES: usize = 56;

    /// How many records are missing; 1 for a range that ends before it begins.
    pub fn missing(&self) -> u64 {
        self.to_sequence.get().saturating_sub(self.from_sequence.get()).saturating_add(1)
    }

    /// Appends the record.
    pub fn encode(&self, ts_recv: u64, out: &mut Vec<u8>) {
        let mut header = RecordHeader::of_feed(RecordKind::Gap, self.instrument, 0);
        header.ts_recv = ts_recv;
        header.write(Self::BYTES, out);
        put(out, &[self.from_sequence.get() as i64, self.to_sequence.get() as i64]);
        out.extend_from_slice(&[self.channel.kind() as u8, self.reason.to_wire(), 0, 0, 0, 0, 0, 0]);
    }

    /// Reads a whole record.
    pub fn read(record: &[u8]) -> Option<Self> {
        let header = RecordHeader::read(record)?;
        let body = record.get(32..56)?;
        Some(Self {
            instrument: header.instrument,
            channel: RecordKind::from_wire(body[16])?.channel()?,
            from_sequence: u64_at(body, 0).into(),
            to_sequence: u64_at(body, 8).into(),
            reason: GapReason::from_wire(body[17]),
        })
    }
}

/// Length of a Status record on the wire.
const STATUS_BYTES: usize = 40;

/// Appends a Status record, 40 bytes; instrument 0 is the feed as a whole.
pub fn encode_status(header: &RecordHeader, state: FeedState, out: &mut Vec<u8>) {
    header.write(STATUS_BYTES, out);
    out.extend_from_slice(&[state.to_wire(), 0, 0, 0, 0, 0, 0, 0]);
}

/// The state that a whole Status record reports.
pub fn read_status(record: &[u8]) -> Option<FeedState> {
    record.get(HEADER_BYTES).copied().map(FeedState::from_wire)
}

/// Why bytes are not a record that a publisher may send.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Fewer bytes than the header, or than the header's length, says.
    #[error("record is cut short: {have} bytes are there, {need} are needed")]
    Short { have: usize, need: usize },
    /// The length is not what this kind has.
    #[error("record of type {kind} says {given} bytes; that type has {want}")]
    Length { kind: u8, given: usize, want: usize },
    /// Not a type that publishers send.
    #[error("record type {0} is not one of 1 quote, 2 trade, 3 ticker, 4 book, 5 raw")]
    Kind(u8),
    /// A field that has few values has another.
    #[error("{field} is {given:#04x}; {want}")]
    Field { field: &'static str, given: u8, want: &'static str },
}

/// Checks the record at the start of `bytes`, and returns its header. Everything a reader relies on holds afterwards:
/// lengths agree with the kind, counts with the length, letters are known ones.
pub fn check(bytes: &[u8]) -> Result<RecordHeader, RecordError> {
    let header = RecordHeader::read(bytes).ok_or(RecordError::Short { have: bytes.len(), need: HEADER_BYTES })?;
    let given = header.bytes();
    let may_be_sent = |kind: &RecordKind| *kind != RecordKind::Definition;
    let kind = RecordKind::from_wire(header.kind).filter(may_be_sent).ok_or(RecordError::Kind(header.kind))?;
    let short = RecordError::Short { have: bytes.len(), need: given.max(HEADER_BYTES) };
    let length =
        |want: usize| if given == want { Ok(()) } else { Err(RecordError::Length { kind: header.kind, given, want }) };
    match kind {
        RecordKind::Quote => length(Quote::BYTES)?,
        RecordKind::Trade => length(Trade::BYTES)?,
        RecordKind::Ticker => length(Ticker::BYTES)?,
        RecordKind::Gap => length(Gap::BYTES)?,
        RecordKind::Status => length(STATUS_BYTES)?,
        RecordKind::Heartbeat => length(HEADER_BYTES)?,
        // The count stands at byte 32: a record that ends before it has none, whatever follows.
        RecordKind::Book | RecordKind::Raw if given < 40 => length(40)?,
        RecordKind::Book => {
            let count = bytes.get(32..34).ok_or(short.clone())?;
            length(40 + usize::from(u16::from_le_bytes([count[0], count[1]])) * LEVEL_BYTES)?;
        }
        _ => {
            let payload = u32::from_le_bytes(*bytes.get(32..).and_then(<[u8]>::first_chunk).ok_or(short.clone())?);
            length((40 + payload as usize).next_multiple_of(8))?;
        }
    }
    let record = bytes.get(..given).ok_or(short)?;
    check_letters(kind, record)?;
    Ok(header)
}

fn check_letters(kind: RecordKind, record: &[u8]) -> Result<(), RecordError> {
    match kind {
        RecordKind::Trade if !Side::from_wire(record[56]).is_known() => {
            Err(RecordError::Field { field: "trade side", given: record[56], want: "have 'B', 'S', 'N'" })
        }
        RecordKind::Status if !FeedState::from_wire(record[32]).is_known() => {
            Err(RecordError::Field { field: "status", given: record[32], want: "have 'L', 'S', 'H', 'E'" })
        }
        RecordKind::Gap if Gap::read(record).is_none_or(|gap| !gap.channel.is_log()) => {
            Err(RecordError::Field { field: "gap channel", given: record[48], want: "have 2 (trade), 5 (raw)" })
        }
        RecordKind::Book => {
            if !BookAction::from_wire(record[34]).is_known() {
                return Err(RecordError::Field { field: "book kind", given: record[34], want: "have 'S', 'D'" });
            }
            match record[40..].chunks_exact(LEVEL_BYTES).find(|level| !BookSide::from_wire(level[16]).is_known()) {
                Some(level) => Err(RecordError::Field { field: "level side", given: level[16], want: "have 'B', 'A'" }),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Sets the flags of an encoded record.
pub fn patch_flags(record: &mut [u8], flags: u8) {
    record[3] = flags;
}

/// Sets what the sequencer owns: instrument, sequence, `ts_recv`.
pub fn patch_sequenced(record: &mut [u8], instrument: u32, sequence: Sequence, ts_recv: u64) {
    record[4..8].copy_from_slice(&instrument.to_le_bytes());
    record[8..16].copy_from_slice(&sequence.get().to_le_bytes());
    record[24..32].copy_from_slice(&ts_recv.to_le_bytes());
}

/// The records of `bytes`, one after another; ends at the first that is cut short.
pub fn records(bytes: &[u8]) -> impl Iterator<Item = (RecordHeader, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let header = RecordHeader::read(rest)?;
        let length = header.bytes();
        if length < HEADER_BYTES || length > rest.len() {
            return None;
        }
        let (record, tail) = rest.split_at(length);
        rest = tail;
        Some((header, record))
    })
}

fn put(out: &mut Vec<u8>, words: &[i64]) {
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

/// The `N` words that follow the header.
fn take<const N: usize>(record: &[u8]) -> Option<[i64; N]> {
    let body = record.get(HEADER_BYTES..HEADER_BYTES + N * 8)?;
    Some(std::array::from_fn(|i| u64_at(body, i * 8) as i64))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests;
