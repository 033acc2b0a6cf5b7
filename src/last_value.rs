//! The newest value of every instrument and channel: what a snapshot is made of, and where holes are found.
//!
//! The sequencer and every shard hold one each. Records come in order; sequences per instrument and channel are
//! contiguous, so a jump is a hole (the ring was overrun), and [`LastValues::apply`] says so. A book with a hole is
//! dropped until a record of kind `'S'` makes it whole.
//!
//! Memory: some 350 bytes an instrument, and its book. Cost: a copy of the record, for a book a tree step a level.

use tickcast_protocol::book::Book;
use tickcast_protocol::record::{self, BOOK_SNAPSHOT, Channel, Gap, RecordHeader, RecordKind, flags};

/// What a record meant for the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Known already, or for an instrument that is not known: not to be passed on.
    Ignored,
    /// The next in order.
    Next,
    /// Taken, but the sequences from `from` to `to` are missing before it.
    After { from: u64, to: u64 },
    /// A delta for a book that has a hole: not to be passed on, the book waits for an `'S'`.
    Broken,
}

/// A book and what its newest record said beside the levels.
#[derive(Clone, Debug, Default)]
pub struct BookState {
    pub levels: Book,
    /// `MAYBE_BAD_BOOK` and `DELAYED` as the newest record had them.
    pub flags: u8,
    pub ts_event: u64,
    pub ts_recv: u64,
    /// A hole was found: the levels are not to be shown.
    pub broken: bool,
}

/// What the newest Status record of a feed or an instrument said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// `'L'` live, `'S'` stale, `'H'` halted, `'E'` ended.
    pub state: u8,
    /// Place of that record, in what the owner counts places in; 0 before the first.
    pub place: u64,
    pub ts_recv: u64,
}

impl Default for Status {
    fn default() -> Self {
        Self { state: b'L', place: 0, ts_recv: 0 }
    }
}

impl Status {
    /// Appends it as a record.
    pub fn push(&self, instrument: u32, extra: u8, out: &mut Vec<u8>) {
        let header = RecordHeader { ts_recv: self.ts_recv, ..RecordHeader::of_feed(RecordKind::Status, instrument, 0) };
        record::encode_status(&header.with_flags(flags::LAST | extra), self.state, out);
    }

    /// Appends it as a record where there ever was one: live is what everybody takes for granted till then, and who comes
    /// back may know of another state.
    pub fn push_if_received(&self, instrument: u32, out: &mut Vec<u8>) {
        if self.place > 0 {
            self.push(instrument, 0, out);
        }
    }
}

/// What is known of one instrument.
#[derive(Clone, Debug)]
pub struct InstrumentValues {
    status: Status,
    sequences: [u64; Channel::COUNT],
    positions: [u64; Channel::COUNT],
    quote: [u8; record::Quote::BYTES],
    trade: [u8; record::Trade::BYTES],
    ticker: [u8; record::Ticker::BYTES],
    book: Option<Box<BookState>>,
}

impl Default for InstrumentValues {
    fn default() -> Self {
        Self {
            status: Status::default(),
            sequences: [0; Channel::COUNT],
            positions: [0; Channel::COUNT],
            quote: [0; record::Quote::BYTES],
            trade: [0; record::Trade::BYTES],
            ticker: [0; record::Ticker::BYTES],
            book: None,
        }
    }
}

impl InstrumentValues {
    /// Sequence of the newest record of a channel; 0 before the first.
    pub fn sequence(&self, channel: Channel) -> u64 {
        self.sequences[channel as usize]
    }

    /// Place of that record in the node's order.
    pub fn position(&self, channel: Channel) -> u64 {
        self.positions[channel as usize]
    }

    /// The book, if it is whole.
    pub fn book(&self) -> Option<&BookState> {
        self.book.as_deref().filter(|state| !state.broken)
    }

    /// Appends the newest record of a channel, with `extra` among its flags. Returns false where there is none: before
    /// the first, for a book that waits to be made whole, and for Raw, whose payloads are not kept.
    pub fn push(&self, instrument: u32, channel: Channel, extra: u8, out: &mut Vec<u8>) -> bool {
        if self.sequence(channel) == 0 {
            return false;
        }
        let kept: &[u8] = match channel {
            Channel::Quote => &self.quote,
            Channel::Trade => &self.trade,
            Channel::Ticker => &self.ticker,
            Channel::Book => return self.push_book(instrument, extra, out),
            Channel::Raw => return false,
        };
        if kept[0] == 0 {
            return false;
        }
        let start = out.len();
        out.extend_from_slice(kept);
        record::patch_flags(&mut out[start..], kept[3] | flags::LAST | extra);
        true
    }

    /// Appends a Gap where trades that followed the one that is kept were lost before they came here, or all were: who is
    /// sent that one would else see a hole before the next. True if there is such a hole.
    pub fn push_trades_lost(&self, instrument: u32, ts_recv: u64, out: &mut Vec<u8>) -> bool {
        let (channel, to_sequence) = (Channel::Trade, self.sequence(Channel::Trade));
        let Some(kept) = RecordHeader::read(&self.trade).filter(|kept| (0..to_sequence).contains(&kept.sequence))
        else {
            return false;
        };
        let from_sequence = kept.sequence + 1;
        Gap { instrument, channel, from_sequence, to_sequence, reason: b'F' }.encode(ts_recv, out);
        true
    }

    /// A trade that is sent again may be newer than the one that is kept, and yet older than a Gap that came meanwhile.
    fn keep_trade_before_gap(&mut self, header: &RecordHeader, channel: Channel, bytes: &[u8]) {
        let is_newer = |kept: RecordHeader| kept.sequence < header.sequence;
        if channel == Channel::Trade && RecordHeader::read(&self.trade).is_some_and(is_newer) {
            self.trade.copy_from_slice(bytes);
        }
    }

    fn push_book(&self, instrument: u32, extra: u8, out: &mut Vec<u8>) -> bool {
        let Some(state) = self.book() else { return false };
        let header = self.book_header(state, instrument, extra);
        let levels = state.levels.levels(record::BOOK_LEVELS_MAX);
        record::encode_book(&header, BOOK_SNAPSHOT, levels.into_iter(), out);
        true
    }

    /// The header that a record made from the book's present state has.
    pub fn book_header(&self, state: &BookState, instrument: u32, extra: u8) -> RecordHeader {
        let sequence = self.sequence(Channel::Book);
        RecordHeader {
            sequence,
            ts_recv: state.ts_recv,
            ..RecordHeader::of_feed(RecordKind::Book, instrument, state.ts_event)
        }
        .with_flags(flags::LAST | state.flags | extra)
    }
}

/// Rows by instrument id.
#[derive(Clone, Debug, Default)]
pub struct LastValues {
    /// Of the feed as a whole.
    status: Status,
    rows: Vec<InstrumentValues>,
    log_changes: u64,
}

impl LastValues {
    /// Makes room for the instrument with this id; ids come in order.
    pub fn add(&mut self, instrument: u32) {
        let rows = instrument as usize;
        if self.rows.len() < rows {
            self.rows.resize_with(rows, InstrumentValues::default);
            self.log_changes += 1;
        }
    }

    /// What is known of an instrument.
    pub fn row(&self, instrument: u32) -> Option<&InstrumentValues> {
        self.rows.get((instrument as usize).checked_sub(1)?)
    }

    /// The newest sequence; 0 before the first record or for an unknown instrument.
    pub fn sequence(&self, instrument: u32, channel: Channel) -> u64 {
        self.row(instrument).map_or(0, |row| row.sequence(channel))
    }

    /// Sequences of the log channels (trade, raw) of all instruments, by id: what a Gap is computed from.
    pub fn log_sequences(&self) -> impl ExactSizeIterator<Item = [u64; 2]> {
        self.rows.iter().map(|row| [row.sequence(Channel::Trade), row.sequence(Channel::Raw)])
    }

    /// Counts the changes of what [`Self::log_sequences`] tells: while it is the same, that is.
    pub fn log_changes(&self) -> u64 {
        self.log_changes
    }

    /// The state of an instrument; of the feed as a whole for instrument 0.
    pub fn status(&self, instrument: u32) -> Status {
        if instrument == 0 { self.status } else { self.row(instrument).map(|row| row.status).unwrap_or_default() }
    }

    /// Takes a Status record in. False for one that says nothing new, or of an instrument that is not known.
    pub fn apply_status(&mut self, header: &RecordHeader, bytes: &[u8], place: u64) -> bool {
        let held = match header.instrument {
            0 => &mut self.status,
            id => match self.rows.get_mut(id as usize - 1) {
                Some(row) => &mut row.status,
                None => return false,
            },
        };
        let Some(&state) = bytes.get(record::HEADER_BYTES).filter(|state| **state != held.state) else { return false };
        *held = Status { state, place, ts_recv: header.ts_recv };
        true
    }

    /// Takes a record of a channel in.
    pub fn apply(&mut self, header: &RecordHeader, channel: Channel, bytes: &[u8], position: u64) -> Applied {
        let Some(row) = self.rows.get_mut((header.instrument as usize).wrapping_sub(1)) else {
            return Applied::Ignored;
        };
        let index = channel as usize;
        let last = row.sequences[index];
        let waits_for_whole = channel == Channel::Book && row.book.as_ref().is_some_and(|state| state.broken);
        if header.sequence < last || (header.sequence == last && !waits_for_whole) {
            row.keep_trade_before_gap(header, channel, bytes);
            return Applied::Ignored;
        }
        let hole = header.sequence > last + 1 || waits_for_whole;
        match channel {
            Channel::Quote => row.quote.copy_from_slice(bytes),
            Channel::Trade => row.trade.copy_from_slice(bytes),
            Channel::Ticker => row.ticker.copy_from_slice(bytes),
            Channel::Raw => {}
            Channel::Book => {
                if !apply_book(row.book.get_or_insert_default(), header, bytes, hole) {
                    return Applied::Broken;
                }
            }
        }
        row.sequences[index] = header.sequence;
        row.positions[index] = position;
        self.log_changes += u64::from(channel.is_log());
        if hole { Applied::After { from: last + 1, to: header.sequence - 1 } } else { Applied::Next }
    }

    /// Takes in that a log channel has reached a sequence whose records are not there. Returns the part that is new.
    pub fn apply_gap(&mut self, gap: &Gap, position: u64) -> Option<Gap> {
        let row = self.rows.get_mut((gap.instrument as usize).wrapping_sub(1))?;
        let index = gap.channel as usize;
        let from_sequence = row.sequences[index] + 1;
        if gap.to_sequence < from_sequence {
            return None;
        }
        row.sequences[index] = gap.to_sequence;
        row.positions[index] = position;
        self.log_changes += 1;
        Some(Gap { from_sequence, ..*gap })
    }
}

/// False where the record cannot be applied: a delta on a book that has a hole.
fn apply_book(state: &mut BookState, header: &RecordHeader, bytes: &[u8], hole: bool) -> bool {
    let Some((kind, levels)) = record::read_book(bytes) else { return false };
    if hole && kind != BOOK_SNAPSHOT {
        state.levels.clear();
        state.broken = true;
        return false;
    }
    state.levels.apply(kind, levels);
    state.broken = false;
    state.flags = header.flags & (flags::MAYBE_BAD_BOOK | flags::DELAYED);
    state.ts_event = header.ts_event;
    state.ts_recv = header.ts_recv;
    true
}
