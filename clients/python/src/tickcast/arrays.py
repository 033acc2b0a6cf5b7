"""Packets as numpy arrays. A packet of one type, or of quotes and trades, costs no Python work per record.

The dtypes have the layout of the wire, so that `np.frombuffer` reads a packet in place. An absent value is the least
int64, `ABSENT`; `Scales.floats` makes it NaN. Arrays of a packet are read-only: copy them before changing them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from . import wire
from .errors import ProtocolError, RestartedError
from .follow import LOGS, Follower
from .records import CONFLATED, SNAPSHOT, AnyRecord, Instrument
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
    """The new records of one packet. `others` has gaps, states, definitions and raw bytes as records.

    `scales` are for the packet's epoch: after a restart of the server an id may be that of another instrument.
    """

    header: PacketHeader
    scales: Scales
    quote: Structured = field(default_factory=lambda: empty(wire.QUOTE))
    trade: Structured = field(default_factory=lambda: empty(wire.TRADE))
    ticker: Structured = field(default_factory=lambda: empty(wire.TICKER))
    book: Structured = field(default_factory=lambda: np.empty(0, LEVEL))
    others: list[AnyRecord] = field(default_factory=list[AnyRecord])


def read(follower: Follower, data: bytes) -> Arrays:
    """The new records of a packet. Raises `ProtocolError`."""
    others: list[AnyRecord] = []
    header = follower.begin(data, others)
    arrays = Arrays(header, Scales(follower.directory, header.epoch), others=others)
    plain = _plain(data, header.count)
    groups = [_grouped(rows) for rows in plain.values()] if plain is not None else []
    if plain is not None and all(map(_is_simple, repeat(follower), plain.items(), groups)):
        for (kind, rows), group in zip(plain.items(), groups, strict=True):
            _put(arrays, kind, _follow(follower, kind, rows, group, arrays.others))
    else:
        _read_mixed(follower, data, arrays)
    return arrays


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


def _is_simple(follower: Follower, of: tuple[int, Structured], group: Group) -> bool:
    """Whether the ids are dense, and the sequences of each instrument rise within the packet."""
    (kind, rows), (order, first) = of, group
    sequences = rows["sequence"][order]
    rises = sequences[1:] > sequences[:-1]
    return bool((rises | first[1:]).all()) and follower.sequences[kind].reach(int(rows["instrument"].max()))


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
    for instrument in ids[previous == 0]:
        if int(instrument) not in follower.directory:
            raise ProtocolError(f"instrument {instrument}: a record comes before its definition")
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


def _read_mixed(follower: Follower, data: bytes, arrays: Arrays) -> None:
    """Reads any other packet record by record, such as a snapshot, or one with gaps or states."""
    rows: dict[int, list[bytes]] = {kind: [] for kind in DTYPES}
    books: list[RecordHeader] = []
    for head in wire.walk(data, arrays.header.count):
        if head.kind in rows:
            if follower.admit(head, None, arrays.others):
                rows[head.kind].append(data[head.at : head.at + DTYPES[head.kind].itemsize])
        elif head.kind == wire.BOOK:
            if follower.admit(head, None, arrays.others):
                books.append(head)
        else:
            record = wire.decode_record(data, head, follower.directory)
            if record is not None and follower.admit(head, record, arrays.others):
                arrays.others.append(record)
    for kind, parts in rows.items():
        if parts:
            _put(arrays, kind, np.frombuffer(b"".join(parts), DTYPES[kind]))
    if books:
        arrays.book = np.concatenate([_levels(data, head, index) for index, head in enumerate(books)])


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
    """The array of `Client.collect`, with the scales of its epoch as `rows.scales`."""

    scales: Scales | None = None

    def __array_finalize__(self, of: object) -> None:
        self.scales = getattr(of, "scales", None)


class Scales:
    """Turns columns of mantissas into floats, by the exponents in the directory of one epoch.

    Raises `ValueError` for rows that are known to be of another epoch, and `KeyError` for unknown ids.
    """

    def __init__(self, directory: Mapping[int, Instrument], epoch: int | None = None) -> None:
        self._directory = directory
        self.epoch = epoch

    def _of(self, rows: Structured) -> tuple[list[Instrument], npt.NDArray[np.intp]]:
        """The instruments of the rows, and for each row the index of its instrument."""
        own = getattr(rows, "scales", None)
        if isinstance(own, Scales) and own.epoch != self.epoch:
            raise ValueError("rows: of another epoch, from before or after a restart of the server: use `rows.scales`")
        ids, indexes = np.unique(np.asarray(rows["instrument"]), return_inverse=True)
        return [self._directory[int(instrument)] for instrument in ids], indexes

    def marked(self, rows: Structured) -> Rows:
        """The rows with these scales."""
        own = rows.view(Rows)
        own.scales = self
        return own

    def floats(self, rows: Structured, name: str) -> Floats:
        """A price or size column as float64, NaN where absent: the nearest float for mantissas below 2^53."""
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
        """Columns for `pandas.DataFrame`: symbols, times as datetime64[ns], prices and sizes as floats."""
        columns: dict[str, npt.NDArray[Any]] = {"symbol": self.symbols(rows)}
        for name in rows.dtype.names or ():
            if name in ("length", "type", "instrument"):
                continue
            kind = rows.dtype[name]
            if name.startswith("ts_"):
                columns[name] = np.asarray(rows[name]).astype("datetime64[ns]")
            elif kind == np.int64:
                columns[name] = self.floats(rows, name)
            elif kind.kind == "S":
                columns[name] = np.asarray(rows[name]).astype(str)
            else:
                columns[name] = np.array(rows[name])
        return columns


class Collection:
    """Collects rows of one channel and one epoch."""

    def __init__(self, channel: str, scales: Scales) -> None:
        self.channel = channel
        self.scales = scales
        self.count = 0
        kinds = {"quote": wire.QUOTE, "trade": wire.TRADE, "ticker": wire.TICKER}
        self._parts = [empty(kinds[channel])]

    def add(self, rows: Structured, scales: Scales) -> None:
        """Adds rows. Raises `RestartedError` if it has rows of another epoch."""
        if scales.epoch != self.scales.epoch:
            if self.count:
                raise RestartedError(self.rows())
            self.scales = scales
        self._parts.append(np.asarray(rows))
        self.count += len(rows)

    def rows(self) -> Rows:
        """All rows."""
        return self.scales.marked(np.concatenate(self._parts))

    def newest(self) -> Rows:
        """The last row of each instrument, in the order of receipt."""
        rows = self.rows()
        _, from_end = np.unique(np.asarray(rows["instrument"])[::-1], return_index=True)
        return self.scales.marked(rows[np.sort(len(rows) - 1 - from_end)])
