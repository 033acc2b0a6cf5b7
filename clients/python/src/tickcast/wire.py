"""Bytes to records: version 1 of the wire format, see docs/protocol.md.

Pure: no socket and no clock. A packet that breaks the layout is a `ProtocolError`. Records of unknown types and fields
that a later version appends are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from .errors import ProtocolError
from .records import (
    CHANNELS,
    NO_INSTRUMENT,
    AnyRecord,
    Book,
    Definition,
    Gap,
    Heartbeat,
    Instrument,
    Level,
    Quote,
    Raw,
    Status,
    Ticker,
    Trade,
)

VERSION = 1
PACKET_BYTES, HEADER_BYTES, LEVEL_BYTES = 24, 32, 24
ABSENT = -(2**63)

# Flags of a packet.
SNAPSHOT, REPLAY, CAUGHT_UP = 0x01, 0x02, 0x04

QUOTE, TRADE, TICKER, BOOK, RAW, DEFINITION, HEARTBEAT, GAP, STATUS = 1, 2, 3, 4, 5, 16, 17, 18, 19
# The least bytes of a record of each known type.
BYTES_MIN = {QUOTE: 64, TRADE: 64, TICKER: 96, BOOK: 40, RAW: 40, DEFINITION: 64, HEARTBEAT: 32, GAP: 56, STATUS: 40}

_PACKET = Struct("<BBHIQQ")
_EPOCH = Struct("<I")
_HEADER = Struct("<HBBIQQQ")
_QUOTE = Struct("<4q")
_TRADE = Struct("<qqQc")
_TICKER = Struct("<8q")
_BOOK = Struct("<Hc")
_LEVEL = Struct("<qqc7x")
_PAYLOAD = Struct("<I")
_DEFINITION = Struct("<bbcBB3xqq")
_GAP = Struct("<QQBc")
_EXPONENTS = Struct("<bb")


@dataclass(slots=True, frozen=True)
class PacketHeader:
    """The header of a packet. `(epoch, position)` is the token to resume from."""

    flags: int
    count: int
    epoch: int
    position: int
    ts_send: int
    """When the packet was built, ns since the Unix epoch."""

    @property
    def is_caught_up(self) -> bool:
        """It ends a snapshot or a replay."""
        return bool(self.flags & CAUGHT_UP)


class RecordHeader(NamedTuple):
    """The header of a record, and its offsets in the packet."""

    at: int
    end: int
    kind: int
    flags: int
    instrument: int
    sequence: int
    ts_event: int
    ts_recv: int


def read_header(data: bytes) -> PacketHeader:
    """The header of a packet. Raises `ProtocolError`."""
    if len(data) < PACKET_BYTES:
        raise ProtocolError(f"packet: {len(data)} bytes are too short: expected at least {PACKET_BYTES}")
    version, flags, count, epoch, position, ts_send = _PACKET.unpack_from(data)
    if version != VERSION:
        raise ProtocolError(f"packet: unknown version {version}: expected {VERSION}")
    return PacketHeader(flags, count, epoch, position, ts_send)


def walk(data: bytes, count: int) -> Iterator[RecordHeader]:
    """The headers of a packet's records, also of unknown types. Raises `ProtocolError`."""
    at, size = PACKET_BYTES, len(data)
    for index in range(count):
        if size - at < HEADER_BYTES:
            raise ProtocolError(f"record {index} of {count}: {size - at} bytes left: expected at least {HEADER_BYTES}")
        length, kind, flags, instrument, sequence, ts_event, ts_recv = _HEADER.unpack_from(data, at)
        end = at + length * 8
        least = BYTES_MIN.get(kind, HEADER_BYTES)
        if end > size or length * 8 < least:
            raise ProtocolError(
                f"record {index} of type {kind}: invalid length {length * 8}: expected {least} to {size - at}"
            )
        yield RecordHeader(at, end, kind, flags, instrument, sequence, ts_event, ts_recv)
        at = end
    if at != size:
        raise ProtocolError(f"packet: {size - at} bytes after the last record: expected none")


def decode(data: bytes, directory: dict[int, Instrument]) -> tuple[PacketHeader, list[AnyRecord]]:
    """A packet's header, and its records of known types, oldest first. Raises `ProtocolError`.

    `directory` has the instruments defined so far in this epoch, by id; the packet's definitions are added to it.
    """
    header = read_header(data)
    records: list[AnyRecord] = []
    for head in walk(data, header.count):
        record = decode_record(data, head, directory)
        if isinstance(record, Definition):
            directory[record.instrument.id] = record.instrument
        if record is not None:
            records.append(record)
    return header, records


def decode_record(data: bytes, head: RecordHeader, directory: Mapping[int, Instrument]) -> AnyRecord | None:
    """The record of a header that `walk` has returned; `None` if its type is unknown. Changes nothing."""
    read = _READERS.get(head.kind)
    return None if read is None else read(data, head, directory)


def exponents(data: bytes, head: RecordHeader) -> tuple[int, int]:
    """The exponents of prices and sizes in a Definition record."""
    return _EXPONENTS.unpack_from(data, head.at + 32)


def instrument_of(head: RecordHeader, directory: Mapping[int, Instrument]) -> Instrument:
    """The instrument of a record. Raises `ProtocolError` if it is not defined."""
    instrument = directory.get(head.instrument)
    if instrument is None:
        raise ProtocolError(f"instrument {head.instrument}: a record of type {head.kind} comes before its definition")
    return instrument


def _amount(mantissa: int) -> int | None:
    return None if mantissa == ABSENT else mantissa


def _quote(data: bytes, head: RecordHeader, directory: Mapping[int, Instrument]) -> Quote:
    at, _, _, flags, _, sequence, ts_event, ts_recv = head
    bid_px, bid_sz, ask_px, ask_sz = map(_amount, _QUOTE.unpack_from(data, at + 32))
    return Quote(instrument_of(head, directory), flags, sequence, ts_event, ts_recv, bid_px, bid_sz, ask_px, ask_sz)


def _trade(data: bytes, head: RecordHeader, directory: Mapping[int, Instrument]) -> Trade:
    at, _, _, flags, _, sequence, ts_event, ts_recv = head
    px, sz, trade_id, side = _TRADE.unpack_from(data, at + 32)
    of = instrument_of(head, directory)
    return Trade(of, flags, sequence, ts_event, ts_recv, _amount(px), _amount(sz), trade_id, _letter(side))


def _ticker(data: bytes, head: RecordHeader, directory: Mapping[int, Instrument]) -> Ticker:
    at, _, _, flags, _, sequence, ts_event, ts_recv = head
    amounts = map(_amount, _TICKER.unpack_from(data, at + 32))
    return Ticker(instrument_of(head, directory), flags, sequence, ts_event, ts_recv, *amounts)


def levels_end(data: bytes, head: RecordHeader) -> int:
    """The offset after the levels of a Book record. Raises `ProtocolError`."""
    count = _BOOK.unpack_from(data, head.at + 32)[0]
    end = head.at + 40 + int(count) * LEVEL_BYTES
    if end > head.end:
        raise ProtocolError(f"book: {count} levels end {end - head.end} bytes beyond the record")
    return end


def _book(data: bytes, head: RecordHeader, directory: Mapping[int, Instrument]) -> Book:
    at, _, _, flags, _, sequence, ts_event, ts_recv = head
    entries = _LEVEL.iter_unpack(data[at + 40 : levels_end(data, head)])
    levels = [Level(_amount(px), _amount(sz), _letter(side)) for px, sz, side in entries]
    kind = _letter(data[at + 34 : at + 35])
    return Book(instrument_of(head, directory), flags, sequence, ts_event, ts_recv, kind, levels)


def _raw(data: bytes, head: RecordHeader, directory: Mapping[int, Instrument]) -> Raw:
    at, end, _, flags, _, sequence, ts_event, ts_recv = head
    (size,) = _PAYLOAD.unpack_from(data, at + 32)
    if at + 40 + size > end:
        raise ProtocolError(f"raw: a payload of {size} bytes ends beyond the record of {end - at} bytes")
    payload = data[at + 40 : at + 40 + size]
    return Raw(instrument_of(head, directory), flags, sequence, ts_event, ts_recv, payload)


def _definition(data: bytes, head: RecordHeader, directory: Mapping[int, Instrument]) -> Definition:
    at, end, _, flags, instrument, sequence, ts_event, ts_recv = head
    px_exp, sz_exp, status, symbol_bytes, venue_bytes, tick_size, lot_size = _DEFINITION.unpack_from(data, at + 32)
    venue_at = at + 64 + symbol_bytes
    if venue_at + venue_bytes > end:
        raise ProtocolError(f"definition of instrument {instrument}: names end beyond the {end - at} bytes")
    try:
        symbol, venue = data[at + 64 : venue_at].decode(), data[venue_at : venue_at + venue_bytes].decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"definition of instrument {instrument}: names are not UTF-8") from error
    terms = (px_exp, sz_exp, _letter(status), _amount(tick_size), _amount(lot_size))
    defined = Instrument(instrument, symbol, venue, *terms, _EPOCH.unpack_from(data, 4)[0])
    known = directory.get(instrument)
    return Definition(known if known == defined else defined, flags, sequence, ts_event, ts_recv)


def _heartbeat(_data: bytes, head: RecordHeader, _directory: Mapping[int, Instrument]) -> Heartbeat:
    return Heartbeat(NO_INSTRUMENT, head.flags, head.sequence, head.ts_event, head.ts_recv)


def _gap(data: bytes, head: RecordHeader, directory: Mapping[int, Instrument]) -> Gap | None:
    at, _, _, flags, _, sequence, ts_event, ts_recv = head
    first, last, channel, reason = _GAP.unpack_from(data, at + 32)
    channel = int(channel)
    if not 1 <= channel <= len(CHANNELS):
        return None  # A gap of an unknown channel, which this version does not read.
    of, name = instrument_of(head, directory), CHANNELS[channel - 1]
    return Gap(of, flags, sequence, ts_event, ts_recv, first, last, name, _letter(reason))


def _status(data: bytes, head: RecordHeader, directory: Mapping[int, Instrument]) -> Status | None:
    at, _, _, flags, instrument, sequence, ts_event, ts_recv = head
    of = directory.get(instrument) if instrument else NO_INSTRUMENT
    if of is None:
        return None  # The state of an instrument that this client has not subscribed to.
    return Status(of, flags, sequence, ts_event, ts_recv, _letter(data[at + 32 : at + 33]))


def _letter(byte: bytes) -> str:
    return byte.decode("latin-1")


_READERS: dict[int, Callable[[bytes, RecordHeader, Mapping[int, Instrument]], AnyRecord | None]] = {
    QUOTE: _quote,
    TRADE: _trade,
    TICKER: _ticker,
    BOOK: _book,
    RAW: _raw,
    DEFINITION: _definition,
    HEARTBEAT: _heartbeat,
    GAP: _gap,
    STATUS: _status,
}
