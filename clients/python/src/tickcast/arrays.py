"""Packets as numpy arrays. A packet of one type, or of quotes and trades, costs no Python work per record.

The dtypes have the layout of the wire, so that `np.frombuffer` reads a packet in place. An absent value is the least
int64, `ABSENT`; `Scales.floats` makes it NaN. Arrays of a packet are read-only: copy them before changing them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from . import frames, wire
from .cursor import Cursor
from .errors import ProtocolError
from .follow import LOGS, SEQUENCE_LIMIT, Follower
from .records import CHANNELS, CONFLATED, SNAPSHOT, AnyRecord, Gap, Instrument
from .wire import PacketHeader, RecordHeader

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

ABSENT = wire.ABSENT
Structured: TypeAlias = npt.NDArray[np.void]
Floats: TypeAlias = npt.NDArray[np.float64]
Indexes: TypeAlias = npt.NDArray[np.intp]
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
# The layouts of fixed size, by type.
DTYPES = {wire.QUOTE: QUOTE, wire.TRADE: TRADE, wire.TICKER: TICKER}
# One row per level; `book` is the index of its record among the books of the packet. A record without levels, such as a
# snapshot of an empty book, has one row without a price, a size and a side.
LEVEL = np.dtype(
    {
        "names": ["instrument", "sequence", "ts_event", "ts_recv", "flags", "kind", "px", "sz", "side", "book"],
        "formats": ["<u4", "<u8", "<u8", "<u8", "u1", "S1", "<i8", "<i8", "S1", "<u4"],
    }
)
# The layouts of all rows, by channel.
LAYOUTS = {"quote": QUOTE, "trade": TRADE, "ticker": TICKER, "book": LEVEL}
# The end of a `RecordHeader`.
_HEAD = np.dtype([(name, LEVEL[name]) for name in ("flags", "instrument", "sequence", "ts_event", "ts_recv")])
_WIRE_LEVEL = np.dtype(
    {
        "names": ["px", "sz", "side"],
        "formats": ["<i8", "<i8", "S1"],
        "offsets": [0, 8, 16],
        "itemsize": wire.LEVEL_BYTES,
    }
)
# The fields that are in no frame: of the layout, and ids, which a frame has as symbols.
_NOT_SHOWN = frozenset({"length", "type", "instrument"})
_LAST = {"sequence": 1, "flags": 2}
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
    order: dict[str, Indexes] = field(default_factory=dict[str, Indexes])
    """The index of each record of a channel among the records of the packet; empty if it has one channel."""

    def rows(self, channel: str) -> Structured:
        """The rows of a channel."""
        rows: Structured = getattr(self, channel)
        return rows

    def only(self, channel: str, rows: Structured) -> Arrays:
        """Nothing but these rows of a channel."""
        part = Arrays(self.header, self.scales)
        setattr(part, channel, rows)
        return part


@dataclass(slots=True)
class Limit:
    """Ends a part of a packet after some records of some types."""

    kinds: frozenset[int]
    records: int


def take(cursor: Cursor, limit: Limit | None = None) -> Arrays:
    """Takes the rest of a packet, or a part of it. Raises `ProtocolError`.

    A part ends at the limit, or before a record that changes the scale of rows in it.
    """
    arrays = Arrays(cursor.header, Scales({}, cursor.header.epoch))
    if not (cursor.is_new and (limit is None or cursor.header.count < limit.records) and _take_plain(cursor, arrays)):
        _take_mixed(cursor, arrays, limit)
    scales = arrays.scales = Scales(cursor.directory(), cursor.header.epoch)
    for name in ("quote", "trade", "ticker", "book"):
        if len(rows := arrays.rows(name)):
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
    kinds = np.frombuffer(cursor.data, QUOTE, offset=wire.PACKET_BYTES)["type"] if len(plain) > 1 else None
    for kind, rows in plain.items():
        is_new = _follow(follower, kind, rows, groups[kind], arrays.others)
        _put(arrays, kind, rows if is_new is None else rows[is_new])
        if kinds is not None:
            order = np.flatnonzero(kinds == kind)
            arrays.order[CHANNELS[kind - 1]] = order if is_new is None else order[is_new]
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


def _follow(
    follower: Follower, kind: int, rows: Structured, group: Group, gaps: list[AnyRecord]
) -> npt.NDArray[np.bool_] | None:
    """Which rows are new, `None` if all are; gaps between them are appended to `gaps`. Follows the rules of
    `Follower.admit`."""
    last = np.frombuffer(follower.sequences[kind].dense, np.uint64)
    newest = last[rows["instrument"]]
    known = rows["sequence"] <= newest
    is_new: npt.NDArray[np.bool_] | None = None
    if known.any():
        if kind not in LOGS:
            known &= (rows["flags"] & SNAPSHOT == 0) | (rows["sequence"] != newest)
        follower.repeated += int(known.sum())
        is_new = ~known
        rows = rows[is_new]
        if not len(rows):
            return is_new
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
    return is_new


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
    books: list[tuple[RecordHeader, int]] = []
    ids: set[int] = set()
    taken: list[int] = []
    left = -1 if limit is None else limit.records
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
                end = wire.levels_end(cursor.data, head) if head.kind == wire.BOOK else 0
                if cursor.take_head():
                    ids.add(head.instrument)
                    taken.append(head.kind)
                    if end:
                        books.append((head, end))
                    else:
                        rows[head.kind].append(cursor.data[head.at : head.at + DTYPES[head.kind].itemsize])
                    left -= limit is not None and head.kind in limit.kinds
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
        arrays.book = _levels(cursor.data, books)
    kinds = np.array(taken, np.uint8)
    if len(taken) and (kinds != kinds[0]).any():
        arrays.order = {CHANNELS[kind - 1]: np.flatnonzero(kinds == kind) for kind in {*taken}}


def _levels(data: bytes, books: list[tuple[RecordHeader, int]]) -> Structured:
    """The levels of some records, each with the end of its levels in the packet."""
    counts = np.array([(end - head.at - 40) // wire.LEVEL_BYTES for head, end in books])
    wanted = np.maximum(counts, 1)
    rows = np.empty(int(wanted.sum()), LEVEL)
    levels = np.frombuffer(b"".join(data[head.at + 40 : end] for head, end in books), _WIRE_LEVEL)
    has_level = np.repeat(counts > 0, wanted)
    for name, absent in (("px", ABSENT), ("sz", ABSENT), ("side", b"")):
        rows[name] = absent
        rows[name][has_level] = levels[name]
    heads = np.array([head[3:] for head, _ in books], _HEAD)
    for name in _HEAD.names or ():
        rows[name] = np.repeat(heads[name], wanted)
    rows["kind"] = np.repeat(np.frombuffer(bytes(data[head.at + 34] for head, _ in books), "S1"), wanted)
    rows["book"] = np.repeat(np.arange(len(books), dtype=np.uint32), wanted)
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

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each record, or level of a book: symbol, times in UTC, prices and sizes as floats, NaN and NaT
        where absent. The dtypes of the columns do not depend on the rows."""
        return frames.to_pandas(self._columns())

    def to_polars(self) -> polars.DataFrame:
        """The same for polars; null where absent."""
        return frames.to_polars(self._columns())

    def to_arrow(self) -> pyarrow.Table:
        """The same for Arrow; null where absent."""
        return frames.to_arrow(self._columns())

    def _columns(self) -> dict[str, frames.Column]:
        if self.scales is None or self.dtype.names is None:
            raise ValueError("rows: no rows of records with their scales: expected what collect or arrays has returned")
        return self.scales.table(self)


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
        ids, indexes = _indexed(np.asarray(rows["instrument"]))
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
        return self._scaled(np.asarray(rows[name]), name, of, indexes)

    @staticmethod
    def _scaled(mantissas: npt.NDArray[Any], name: str, of: list[Instrument], indexes: Indexes) -> Floats:
        exponents = np.array([one.sz_exp if name in _SIZES else one.px_exp for one in of], np.int64)
        # A power of ten below 1 has no exact float, but its inverse has one, and a division rounds once.
        up, down = 10.0 ** np.maximum(exponents, 0), 10.0 ** np.maximum(-exponents, 0)
        values: Floats = mantissas * up[indexes] / down[indexes]
        values[mantissas == ABSENT] = np.nan
        return values

    def table(self, rows: Structured) -> dict[str, frames.Column]:
        """The columns of a frame: symbol, times, values, sequence and flags."""
        of, indexes = self._of(rows)
        columns: dict[str, frames.Column] = {"symbol": frames.Words([one.symbol for one in of], indexes)}
        names = [name for name in rows.dtype.names or () if name not in _NOT_SHOWN]
        for name in sorted(names, key=lambda name: (_LAST.get(name, 0), not name.startswith("ts_"))):
            kind, column = rows.dtype[name], np.asarray(rows[name])
            if name.startswith("ts_"):
                columns[name] = times(column)
            elif kind == np.int64:
                columns[name] = self._scaled(column, name, of, indexes)
            elif kind.kind == "S":
                columns[name] = _words(column)
            else:
                # Of its own, and not one that keeps the packets in memory.
                columns[name] = np.array(column)
        return columns

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
            if name in _NOT_SHOWN:
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


def _indexed(ids: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Indexes]:
    """The different ids, and for each row the index of its id: `np.unique`, without sorting where ids are low."""
    most = int(ids.max(initial=0))
    if most > 4 * len(ids) + 4096:
        return np.unique(ids, return_inverse=True)
    present = np.flatnonzero(np.bincount(ids, minlength=most + 1))
    index = np.zeros(most + 1, np.intp)
    index[present] = np.arange(len(present))
    return present, index[ids]


def _words(column: npt.NDArray[Any]) -> frames.Words:
    """A column of letters as text."""
    letters = np.ascontiguousarray(column).view(np.uint8)
    present = np.flatnonzero(np.bincount(letters, minlength=256))
    index = np.zeros(256, np.intp)
    index[present] = np.arange(len(present))
    return frames.Words([chr(letter) if letter else "" for letter in present], index[letters])


def times(column: npt.NDArray[Any]) -> npt.NDArray[np.datetime64]:
    """Times of the wire as datetime64[ns]; NaT for 0, which is an absent time, and for times after 2262."""
    values = column.astype("datetime64[ns]")
    values[(column == 0) | (column >= np.uint64(2**63))] = np.datetime64("NaT")
    return values
