//! The header of a record: reading it, peeking into it, and changing the fields that the server owns.

use super::bytes::{u16_at, u32_at, u64_at};
use super::flags;
use super::kind::RecordKind;
use crate::numbering::Sequence;

/// Bytes of a record header.
pub const HEADER_BYTES: usize = 32;
/// The longest record: a `u16` count of 8-byte units.
pub const RECORD_BYTES_MAX: usize = u16::MAX as usize * 8;

/// Where the fields of the header begin.
mod at {
    pub(super) const LENGTH: usize = 0;
    pub(super) const KIND: usize = 2;
    pub(super) const FLAGS: usize = 3;
    pub(super) const INSTRUMENT: usize = 4;
    pub(super) const SEQUENCE: usize = 8;
    pub(super) const TS_EVENT: usize = 16;
    pub(super) const TS_RECV: usize = 24;
}

/// The 32 bytes that every record begins with.
///
/// ```text
///  0 u16 length (units of 8)   2 u8 kind   3 u8 flags   4 u32 instrument
///  8 u64 sequence             16 u64 ts_event          24 u64 ts_recv
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Whole record in units of 8 bytes. Encoding sets it; the value here is not written.
    pub length: u16,
    /// Wire number of the kind, kept raw: a reader skips kinds that it does not know. See [`RecordHeader::known_kind`].
    pub kind: u8,
    /// See [`flags`].
    pub flags: u8,
    /// Instrument id of the epoch; 0 if the record is of no instrument.
    pub instrument: u32,
    /// Number within the instrument and channel, contiguous from 1; [`Sequence::NONE`] if the record is of no channel.
    pub sequence: Sequence,
    /// Time of the venue, ns since the Unix epoch; 0 if none is given.
    pub ts_event: u64,
    /// When the first server received it, ns since the Unix epoch.
    pub ts_recv: u64,
}

impl RecordHeader {
    /// The header of a record that a feed or publisher sends: the sequencer sets `sequence` and `ts_recv`.
    pub fn of_feed(kind: RecordKind, instrument: u32, ts_event: u64) -> Self {
        let (kind, sequence) = (kind.to_wire(), Sequence::NONE);
        Self { length: 0, kind, flags: flags::LAST, instrument, sequence, ts_event, ts_recv: 0 }
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
            length: u16_at(head, at::LENGTH),
            kind: head[at::KIND],
            flags: head[at::FLAGS],
            instrument: u32_at(head, at::INSTRUMENT),
            sequence: Sequence::new(u64_at(head, at::SEQUENCE)),
            ts_event: u64_at(head, at::TS_EVENT),
            ts_recv: u64_at(head, at::TS_RECV),
        })
    }

    /// Length of the whole record in bytes.
    pub fn bytes(&self) -> usize {
        usize::from(self.length) * 8
    }

    /// The kind; `None` for one that this version does not know.
    #[inline]
    pub fn known_kind(&self) -> Option<RecordKind> {
        RecordKind::from_wire(self.kind)
    }

    /// Appends the header of a record of this length.
    ///
    /// # Panics
    /// When the length is not a multiple of 8 or beyond [`RECORD_BYTES_MAX`]: the caller bounds what it encodes.
    pub(super) fn write(&self, length_bytes: usize, out: &mut Vec<u8>) {
        assert!(length_bytes.is_multiple_of(8) && length_bytes <= RECORD_BYTES_MAX, "record of {length_bytes} bytes");
        out.extend_from_slice(&((length_bytes / 8) as u16).to_le_bytes());
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.instrument.to_le_bytes());
        out.extend_from_slice(&self.sequence.get().to_le_bytes());
        out.extend_from_slice(&self.ts_event.to_le_bytes());
        out.extend_from_slice(&self.ts_recv.to_le_bytes());
    }
}

/// The first eight bytes of a record: enough to see what it is and of which instrument, without reading the header.
///
/// ```text
///  0 u16 length (units of 8)   2 u8 kind   3 u8 flags   4 u32 instrument
/// ```
///
/// Cost: one load; each field is a shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPrefix(u64);

impl RecordPrefix {
    /// From the first eight bytes of a record as a little-endian word.
    #[inline]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// From the bytes of a record; `None` if fewer than eight are there.
    #[inline]
    pub fn read(record: &[u8]) -> Option<Self> {
        Some(Self(u64::from_le_bytes(*record.first_chunk()?)))
    }

    /// Length of the whole record in bytes.
    #[inline]
    pub const fn bytes(self) -> usize {
        (self.0 as u16 as usize) * 8
    }

    /// The kind; `None` for one that this version does not know.
    #[inline]
    pub fn kind(self) -> Option<RecordKind> {
        RecordKind::from_wire((self.0 >> (8 * at::KIND)) as u8)
    }

    /// See [`flags`].
    #[inline]
    pub const fn flags(self) -> u8 {
        (self.0 >> (8 * at::FLAGS)) as u8
    }

    /// Instrument id of the epoch; 0 if the record is of no instrument.
    #[inline]
    pub const fn instrument(self) -> u32 {
        (self.0 >> (8 * at::INSTRUMENT)) as u32
    }
}

/// The kind of an encoded record; `None` for one that this version does not know.
#[inline]
pub fn kind_of(record: &[u8]) -> Option<RecordKind> {
    RecordPrefix::read(record)?.kind()
}

/// Sets the flags of an encoded record.
///
/// # Panics
/// When the record has no header.
pub fn patch_flags(record: &mut [u8], flags: u8) {
    record[at::FLAGS] = flags;
}

/// Sets the fields of an encoded record that the sequencer owns.
///
/// # Panics
/// When the record has no header.
pub fn patch_sequenced(record: &mut [u8], instrument: u32, sequence: Sequence, ts_recv: u64) {
    record[at::INSTRUMENT..at::SEQUENCE].copy_from_slice(&instrument.to_le_bytes());
    record[at::SEQUENCE..at::TS_EVENT].copy_from_slice(&sequence.get().to_le_bytes());
    record[at::TS_RECV..HEADER_BYTES].copy_from_slice(&ts_recv.to_le_bytes());
}

/// The records of `bytes`, one after another, each with its header; ends at the first that is cut short.
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

/// The `N` words that follow the header; `None` if they are not all there.
#[inline]
pub(super) fn take<const N: usize>(record: &[u8]) -> Option<[i64; N]> {
    let body = record.get(HEADER_BYTES..HEADER_BYTES + N * 8)?;
    Some(std::array::from_fn(|i| u64_at(body, i * 8) as i64))
}
