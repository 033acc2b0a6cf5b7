"""Packets as numpy arrays. A packet of one type, or of quotes and trades, costs no Python work per record.

The dtypes have the layout of the wire, so that `np.frombuffer` reads a packet in place. An absent value is the least
int64, `ABSENT`; `Scales.floats` makes it NaN. Arrays of a packet are read-only: copy them before changing them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from . import wire
from .cursor import Cursor, ReturnedCursor
from .errors import ProtocolError, RescaledError, RestartedError
from .follow import LOGS, SEQUENCE_LIMIT, Follower
from .records import CHANNELS, CONFLATED, SNAPSHOT, AnyRecord, Gap, Instrument
from .wire import PacketHeader, RecordHeader

ABSENT = wire.ABSENT
Structured: TypeAlias = npt.NDArray[np.void]
Floats: TypeAlias = npt.NDArray[np.float64]
Group: TypeAlias = tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]

_HEADER = {
    "length": ("<u2", 0),
    "type": ("u1", 2),
    "flags": ("u1", 3),
    "instrument": ("<u4", 4),
    "sequence": ("<u8", 8),
    "ts_event": ("<u8", 16),
    "ts_recv": ("<u8", 24),
}


def _layout(size: int, body: Mapping[str, str]) -> np.dtype[np.void]:
    fields = dict(_HEADER)
    at = wire.HEADER_BYTES
    for name, kind in body.items():
        fields[name] = (kind, at)
        at += 8
    formats, offsets = [kind for kind, _ in fields.values()], [at for _, at in fields.values()]
    return np.dtype({"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": size})


QUOTE = _layout(64, {"bid_px": "<i8", "bid_sz": "<i8", "ask_px": "<i8", "ask_sz": "<i8"})
TRADE = _layout(64, {"px": "<i8", "sz": "<i8", "trade_id": "<u8", "side": "S1"})
TICKER = _layout(
    96,
    dict.fromkeys(["last_px", "open_px", "high_px", "low_px", "volume", "turnover", "bid_px", "ask_px"], "<i8"),
)
DTYPES = {wire.QUOTE: QUOTE, wire.TRADE: TRADE, wire.TICKER: TICKER}
# One row per level; `book` is the index of its record among the books of the packet.
LEVEL = np.dtype(
    {
        "names": ["instrument", "sequence", "ts_recv", "flags", "kind", "px", "sz", "side", "book"],
        "formats": ["<u4", "<u8", "<u8", "u1", "S1", "<i8", "<i8", "S1", "<u4"],
    }
)
_WIRE_LEVEL = np.dtype(
    {
        "names": ["px", "sz", "side"],
        "formats": ["<i8", "<i8", "S1"],
        "offsets": [0, 8, 16],
        "itemsize": wire.LEVEL_BYTES,
    }
)
# The fields at the size exponent.
_SIZES = frozenset({"bid_sz", "ask_sz", "sz", "volume"})


def empty(kind: int) -> Structured:
    """An empty array of a type."""
    return np.empty(0, DTYPES[kind])


@dataclass(slots=True)
class Arrays:
    """New records of one packet. `others` has gaps, states, definitions and raw bytes as records.

    `scales` are those of the records: after a restart of the server an id may be that of another instrument, and after
    a new definition the exponents may be others. A packet with rows of an instrument before and after such a definition
    is returned in parts.
    """

    header: PacketHeader
    scales: Scales
    quote: Structured = field(default_factory=lambda: empty(wire.QUOTE))
    trade: Structured = field(default_factory=lambda: empty(wire.TRADE))
    ticker: Structured = field(default_factory=lambda: empty(wire.TICKER))
    book: Structured = field(default_factory=lambda: np.empty(0, LEVEL))
    others: list[AnyRecord] = field(default_factory=list[AnyRecord])


@dataclass(slots=True)
class Limit:
    """Ends a part of a packet after some rows of one type."""

    kind: int
    rows: int


def take(cursor: Cursor, limit: Limit | None = None) -> Arrays:
    """Takes the rest of a packet, or a part of it. Raises `ProtocolError`.

    A part ends at the limit, or before a record that changes the scale of rows in it.
    """
    arrays = Arrays(cursor.header, Scales({}, cursor.header.epoch))
    if not (cursor.is_new and (limit is None or cursor.header.count < limit.rows) and _take_plain(cursor, arrays)):
        _take_mixed(cursor, arrays, limit)
    scales = arrays.scales = Scales(cursor.directory(), cursor.header.epoch)
    for name in ("quote", "trade", "ticker", "book"):
        rows: Structured = getattr(arrays, name)
        if len(rows):
            setattr(arrays, name, scales.marked(rows))
    return arrays


def _take_plain(cursor: Cursor, arrays: Arrays) -> bool:
    """Takes a whole packet of quotes, trades or tickers; false if it is another one, and nothing was taken."""
    plain, follower = _plain(cursor.data, cursor.header.count), cursor.follower
    if plain is None:
        return False
    groups = {kind: _grouped(rows) for kind, rows in plain.items()}
    if not all(_is_simple(follower, kind, rows, groups[kind]) for kind, rows in plain.items()):
        return False
    while (gap := cursor.take_gap()) is not None:
        arrays.others.append(gap)
    for kind, rows in plain.items():
        _put(arrays, kind, _follow(follower, kind, rows, groups[kind], arrays.others))
    cursor.take_all()
    return True


def _plain(data: bytes, count: int) -> dict[int, Structured] | None:
    """The records by type, if all have one length and are quotes, trades or tickers; `None` for another packet."""
    if count == 0 or len(data) < wire.PACKET_BYTES + wire.HEADER_BYTES:
        return None
    size = (len(data) - wire.PACKET_BYTES) // count
    if size not in (64, 96) or size * count + wire.PACKET_BYTES != len(data):
        return None
    either = np.frombuffer(data, QUOTE if size == 64 else TICKER, offset=wire.PACKET_BYTES)
    kinds = either["type"]
    if not (either["length"] == size // 8).all():
        return None
    if size == 96:
        return {wire.TICKER: either} if (kinds == wire.TICKER).all() else None
    quotes, trades = kinds == wire.QUOTE, kinds == wire.TRADE
    if quotes.all():
        return {wire.QUOTE: either}
    of_trades = np.frombuffer(data, TRADE, offset=wire.PACKET_BYTES)
    if trades.all():
        return {wire.TRADE: of_trades}
    return {wire.QUOTE: either[quotes], wire.TRADE: of_trades[trades]} if (quotes | trades).all() else None


def _grouped(rows: Structured) -> Group:
    """A stable order of the rows by instrument, and which rows in it are the first of their instrument."""
    order = np.argsort(rows["instrument"], kind="stable")
    ids = rows["instrument"][order]
    return order, np.append(True, ids[1:] != ids[:-1])


def _is_simple(follower: Follower, kind: int, rows: Structured, group: Group) -> bool:
    """Whether the ids are dense and defined, and the sequences of each instrument rise within the packet."""
    order, first = group
    sequences = rows["sequence"][order]
    rises = sequences[1:] > sequences[:-1]
    if int(sequences.max()) >= SEQUENCE_LIMIT:
        return False
    if not ((rises | first[1:]).all() and follower.sequences[kind].reach(int(rows["instrument"].max()))):
        return False
    ids = rows["instrument"][order][first]
    unknown = ids[np.frombuffer(follower.sequences[kind].dense, np.uint64)[ids] == 0]
    return all(int(instrument) in follower.directory for instrument in unknown)


def _follow(follower: Follower, kind: int, rows: Structured, group: Group, gaps: list[AnyRecord]) -> Structured:
    """The new rows; gaps between them are appended to `gaps`. Follows the rules of `Follower.packet`."""
    last = np.frombuffer(follower.sequences[kind].dense, np.uint64)
    newest = last[rows["instrument"]]
    known = rows["sequence"] <= newest
    if known.any():
        if kind not in LOGS:
            known &= (rows["flags"] & SNAPSHOT == 0) | (rows["sequence"] != newest)
        follower.repeated += int(known.sum())
        rows = rows[~known]
        if not len(rows):
            return rows
        group = _grouped(rows)
    order, first = group
    ids, sequences = rows["instrument"][order], rows["sequence"][order]
    previous = np.append(np.uint64(0), sequences[:-1])
    previous[first] = last[ids[first]]
    if kind in LOGS:
        for at in np.flatnonzero((previous != 0) & (sequences - previous > np.uint64(1))):
            missing = (int(previous[at]) + 1, int(sequences[at]) - 1, int(rows["ts_recv"][order[at]]))
            gaps.append(follower.gap(kind, int(ids[at]), *missing))
    is_end = np.append(first[1:], True)
    last[ids[is_end]] = sequences[is_end]
    follower.records += len(rows)
    follower.conflated += int(np.count_nonzero(rows["flags"] & CONFLATED))
    return rows


def _put(arrays: Arrays, kind: int, rows: Structured) -> None:
    if kind == wire.QUOTE:
        arrays.quote = rows
    elif kind == wire.TRADE:
        arrays.trade = rows
    else:
        arrays.ticker = rows


def _take_mixed(cursor: Cursor, arrays: Arrays, limit: Limit | None) -> None:
    """Takes any other packet record by record, such as a snapshot, or one with gaps or states."""
    rows: dict[int, list[bytes]] = {kind: [] for kind in DTYPES}
    books: list[Structured] = []
    ids: set[int] = set()
    left = -1 if limit is None else limit.rows
    while left != 0 and not cursor.is_done:
        try:
            gap = cursor.take_gap()
            if gap is not None:
                arrays.others.append(gap)
                continue
            if (head := cursor.head) is None:
                continue
            if head.instrument in ids and cursor.changes_scale():
                break
            if head.kind in rows or head.kind == wire.BOOK:
                levels = _levels(cursor.data, head, len(books)) if head.kind == wire.BOOK else None
                if cursor.take_head():
                    ids.add(head.instrument)
                    if levels is None:
                        rows[head.kind].append(cursor.data[head.at : head.at + DTYPES[head.kind].itemsize])
                    else:
                        books.append(levels)
                    left -= limit is not None and head.kind == limit.kind
            elif (record := cursor.take_record()) is not None:
                arrays.others.append(record)
        except ProtocolError:
            # What was taken is returned first; the next call raises.
            if not (ids or arrays.others):
                raise
            break
    for kind, parts in rows.items():
        if parts:
            _put(arrays, kind, np.frombuffer(b"".join(parts), DTYPES[kind]))
    if books:
        arrays.book = np.concatenate(books)


def _levels(data: bytes, head: RecordHeader, index: int) -> Structured:
    count = (wire.levels_end(data, head) - head.at - 40) // wire.LEVEL_BYTES
    levels = np.frombuffer(data, _WIRE_LEVEL, count=count, offset=head.at + 40)
    rows = np.empty(count, LEVEL)
    for name in ("px", "sz", "side"):
        rows[name] = levels[name]
    rows["instrument"], rows["sequence"], rows["ts_recv"] = head.instrument, head.sequence, head.ts_recv
    rows["flags"], rows["kind"], rows["book"] = head.flags, data[head.at + 34 : head.at + 35], index
    return rows


class Rows(np.ndarray[tuple[int, ...], np.dtype[np.void]]):
    """Rows of `Client.collect` or of a packet, with their scales as `rows.scales`.

    What `collect` returns also has `gaps`: the `Gap`s of the channel from the time of the call. A part of it has none.
    """

    scales: Scales | None = None
    gaps: tuple[Gap, ...] = ()

    def __array_finalize__(self, of: object) -> None:
        self.scales = getattr(of, "scales", None)
        self.gaps = ()


class Scales:
    """Turns columns of mantissas into floats, by the exponents in the directory of one epoch.

    Raises `ValueError` for rows that are known to be of another epoch or to have other exponents, and `KeyError` for
    unknown ids.
    """

    def __init__(self, directory: Mapping[int, Instrument], epoch: int | None = None) -> None:
        self._directory = directory
        self.epoch = epoch

    @property
    def directory(self) -> Mapping[int, Instrument]:
        """The instruments, by id."""
        return self._directory

    def _of(self, rows: Structured) -> tuple[list[Instrument], npt.NDArray[np.intp]]:
        """The instruments of the rows, and for each row the index of its instrument."""
        own = getattr(rows, "scales", None)
        ids, indexes = np.unique(np.asarray(rows["instrument"]), return_inverse=True)
        if isinstance(own, Scales) and own is not self:
            if self.epoch is not None and own.epoch != self.epoch:
                raise ValueError(
                    "rows: of another epoch, from before or after a restart of the server: use `rows.scales`"
                )
            for one in self.differing(own, ids):
                name = own._directory[one].symbol
                raise ValueError(f"rows: {name} has other exponents, from before or after a change: use `rows.scales`")
        return [self._directory[int(instrument)] for instrument in ids], indexes

    def differing(self, other: Scales, ids: npt.NDArray[Any]) -> list[int]:
        """Those of the ids of which the exponents differ."""
        if self._directory is other._directory:
            return []
        both = ((int(one), self._directory.get(int(one)), other._directory.get(int(one))) for one in ids)
        return [one for one, a, b in both if a and b and (a.px_exp, a.sz_exp) != (b.px_exp, b.sz_exp)]

    def marked(self, rows: Structured) -> Rows:
        """The rows with these scales."""
        own = rows.view(Rows)
        own.scales = self
        return own

    def floats(self, rows: Structured, name: str) -> Floats:
        """A price or size column as float64, NaN where absent: the nearest float for mantissas below 2^53."""
        columns = [one for one in rows.dtype.names or () if rows.dtype[one] == np.int64]
        if name not in columns:
            raise ValueError(f"name: unknown {name!r}: expected one of {', '.join(columns)}")
        of, indexes = self._of(rows)
        mantissas = np.asarray(rows[name])
        exponents = np.array([one.sz_exp if name in _SIZES else one.px_exp for one in of], np.int64)
        # A power of ten below 1 has no exact float, but its inverse has one, and a division rounds once.
        up, down = 10.0 ** np.maximum(exponents, 0), 10.0 ** np.maximum(-exponents, 0)
        values: Floats = mantissas * up[indexes] / down[indexes]
        values[mantissas == ABSENT] = np.nan
        return values

    def symbols(self, rows: Structured) -> npt.NDArray[np.object_]:
        """The symbol of each row."""
        of, indexes = self._of(rows)
        return np.array([one.symbol for one in of], object)[indexes]

    def columns(self, rows: Structured) -> dict[str, npt.NDArray[Any]]:
        """Columns for `pandas.DataFrame`: symbols, times as datetime64[ns], prices and sizes as floats.

        A time that is not present is NaT.
        """
        columns: dict[str, npt.NDArray[Any]] = {"symbol": self.symbols(rows)}
        for name in rows.dtype.names or ():
            if name in ("length", "type", "instrument"):
                continue
            kind = rows.dtype[name]
            if name.startswith("ts_"):
                columns[name] = times(np.asarray(rows[name]))
            elif kind == np.int64:
                columns[name] = self.floats(rows, name)
            elif kind.kind == "S":
                columns[name] = np.asarray(rows[name]).astype(str)
            else:
                columns[name] = np.array(rows[name])
        return columns


def times(column: npt.NDArray[Any]) -> npt.NDArray[np.datetime64]:
    """Times of the wire as datetime64[ns]; NaT for 0, which is an absent time, and for times after 2262."""
    values = column.astype("datetime64[ns]")
    values[(column == 0) | (column >= np.uint64(2**63))] = np.datetime64("NaT")
    return values


class Collection:
    """Collects rows of one channel, all of which have one scale for each instrument."""

    def __init__(self, channel: str, scales: Scales) -> None:
        self.channel = channel
        self.kind = CHANNELS.index(channel) + 1
        self.scales = scales
        self.count = 0
        self.gaps: list[tuple[int, Gap]] = []
        """The gaps of the channel, each with the index of the row that it comes before."""
        self._parts = [empty(self.kind)]
        self._header: PacketHeader | None = None
        self._latest = scales.directory
        self._changed: list[int] = []

    def add(self, packet: Arrays) -> None:
        """Adds the rows and gaps of the channel, or raises and adds nothing.

        Raises `RestartedError` if it has rows of another epoch, and `RescaledError` if it has rows of an instrument
        with other exponents.
        """
        rows: Structured = getattr(packet, self.channel)
        self._reach(packet.scales, rows["instrument"])
        self._header = packet.header
        for gap in packet.others:
            if isinstance(gap, Gap) and gap.channel == self.channel:
                after = (rows["instrument"] == gap.instrument.id) & (rows["sequence"] > gap.to_sequence)
                at = int(after.argmax()) if after.any() else len(rows)
                self.gaps.append((self.count + at, gap))
        self._parts.append(np.asarray(rows))
        self.count += len(rows)

    def _reach(self, scales: Scales, ids: npt.NDArray[Any]) -> None:
        """Extends the scales to those of further rows."""
        if scales.epoch != self.scales.epoch:
            if self.count:
                raise RestartedError(self.rows())
            self.scales, self._changed = scales, []
        elif scales.directory is not self._latest:
            own = np.unique(np.concatenate(self._parts)["instrument"])
            self._changed = self.scales.differing(scales, own)
            kept = {int(one): self.scales.directory[int(one)] for one in own}
            self.scales = Scales({**scales.directory, **kept}, scales.epoch) if kept else scales
        self._latest = scales.directory
        for one in self._changed:
            if (ids == one).any():
                raise RescaledError(self.rows(), scales.directory[one].symbol)

    def rows(self) -> Rows:
        """All rows, with the gaps."""
        rows = self.scales.marked(np.concatenate(self._parts))
        rows.gaps = tuple(gap for _, gap in self.gaps)
        return rows

    def returned(self, follower: Follower) -> ReturnedCursor | None:
        """A cursor from which the rows and gaps are taken again; `None` without any."""
        header = self._header
        if header is None or not (self.count or self.gaps):
            return None
        # In the layout of the wire, which concatenating does not keep.
        rows = np.zeros(self.count, DTYPES[self.kind])
        rows[:] = np.concatenate(self._parts)
        rows["length"] = rows.dtype.itemsize // 8
        whole = PacketHeader(0, len(rows), header.epoch, header.position, header.ts_send)
        data = bytes(wire.PACKET_BYTES) + rows.tobytes()
        return ReturnedCursor(follower, whole, data, self.scales.directory, self.gaps)


class Newest:
    """The newest row of each instrument of one channel and epoch, each with the scales that it had."""

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._rows: dict[int, Arrays] = {}
        self._epoch: int | None = None

    def add(self, packet: Arrays) -> None:
        """Takes the last row of each instrument from a packet."""
        if packet.scales.epoch != self._epoch:
            self._rows, self._epoch = {}, packet.scales.epoch
        rows = np.asarray(getattr(packet, self._channel))
        _, from_end = np.unique(rows["instrument"][::-1], return_index=True)
        for at in np.sort(len(rows) - 1 - from_end):
            instrument = int(rows["instrument"][at])
            # At the end of the dict, which has the order of receipt.
            self._rows.pop(instrument, None)
            self._rows[instrument] = row = Arrays(packet.header, packet.scales)
            setattr(row, self._channel, rows[at : at + 1])

    def fill(self, into: Collection) -> None:
        """Adds the rows, in the order of receipt."""
        for row in self._rows.values():
            into.add(row)
