"""What `Client.collect` and `Client.batches` gather: the rows of one or more channels, from packet after packet.

All rows have one scale for each instrument. What was gathered and is not returned can be given back, in the order in
which it came.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from . import wire
from .arrays import ABSENT, LAYOUTS, Arrays, Indexes, Limit, Rows, Scales, Structured
from .cursor import ReturnedCursor
from .errors import RescaledError, RestartedError
from .follow import Follower
from .records import CHANNELS, Gap
from .wire import PacketHeader

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

_HEADER = Struct("<HBBIQQQ")
_BOOK = Struct("<Hc5x")
_LEVEL = Struct("<qqc7x")


class Tables(dict[str, Rows]):
    """The rows of several channels, by the name of the channel."""

    def to_pandas(self) -> dict[str, pandas.DataFrame]:
        """A frame of each channel, see `Rows.to_pandas`."""
        return {channel: rows.to_pandas() for channel, rows in self.items()}

    def to_polars(self) -> dict[str, polars.DataFrame]:
        """A frame of each channel, see `Rows.to_polars`."""
        return {channel: rows.to_polars() for channel, rows in self.items()}

    def to_arrow(self) -> dict[str, pyarrow.Table]:
        """A table of each channel, see `Rows.to_arrow`."""
        return {channel: rows.to_arrow() for channel, rows in self.items()}


Collected: TypeAlias = Rows | Tables


class _Part(NamedTuple):
    """The rows of one packet, and the order of its records where it has several channels."""

    rows: dict[str, Structured]
    order: dict[str, Indexes]


class Collection:
    """Collects records of some channels. `is_one` says that the result is that of the one channel."""

    def __init__(self, channels: Sequence[str], scales: Scales, *, is_one: bool) -> None:
        self.channels = tuple(channels)
        self.kinds = frozenset(CHANNELS.index(channel) + 1 for channel in channels)
        self.scales = scales
        self.count = 0
        """The number of records; a record of a book may have several rows."""
        self._is_one = is_one
        self._gaps: list[tuple[int, int, Gap]] = []
        """The gaps of the channels, each with the part and the number of records in it that come before the gap."""
        self._parts: list[_Part] = []
        self._header: PacketHeader | None = None
        self._latest = scales.directory
        self._changed: list[int] = []

    def limit(self, count: int) -> Limit:
        """Ends a packet where there are `count` records in all."""
        return Limit(self.kinds, count - self.count)

    def rest(self, packet: Arrays) -> Collection:
        """What `add` has refused."""
        rest = Collection(self.channels, packet.scales, is_one=self._is_one)
        rest.add(packet)
        return rest

    def add(self, packet: Arrays) -> None:
        """Adds the rows and gaps of the channels, or raises and adds nothing.

        Raises `RestartedError` if it has rows of another epoch, and `RescaledError` if it has rows of an instrument
        with other exponents.
        """
        rows = {channel: np.asarray(of) for channel in self.channels if len(of := packet.rows(channel))}
        gaps = [one for one in packet.others if isinstance(one, Gap) and one.channel in self.channels]
        self._reach(packet.scales, [of["instrument"] for of in rows.values()])
        self._header = packet.header
        part = _Part(rows, packet.order)
        self._gaps += [(len(self._parts), _records_before(part, gap), gap) for gap in gaps]
        if rows or gaps:
            self._parts.append(part)
            self.count += sum(map(_records, rows.values()))

    def _reach(self, scales: Scales, ids: list[npt.NDArray[Any]]) -> None:
        """Extends the scales to those of further rows."""
        if scales.epoch != self.scales.epoch:
            if self.count:
                raise RestartedError(self.result())
            self.scales, self._changed = scales, []
        elif scales.directory is not self._latest:
            parts = [rows["instrument"] for part in self._parts for rows in part.rows.values()]
            own = np.unique(np.concatenate(parts)) if parts else np.empty(0, np.uint32)
            self._changed = self.scales.differing(scales, own)
            kept = {int(one): self.scales.directory[int(one)] for one in own}
            self.scales = Scales({**scales.directory, **kept}, scales.epoch) if kept else scales
        self._latest = scales.directory
        for one in self._changed:
            if any((of == one).any() for of in ids):
                raise RescaledError(self.result(), scales.directory[one].symbol)

    def result(self) -> Collected:
        """All rows, with the gaps."""
        if self._is_one:
            return self._rows(self.channels[0])
        return Tables({channel: self._rows(channel) for channel in self.channels})

    def _rows(self, channel: str) -> Rows:
        parts = [part.rows[channel] for part in self._parts if channel in part.rows]
        joined = np.concatenate([np.empty(0, LAYOUTS[channel]), *parts])
        if channel == "book" and parts:
            # The records of all packets are counted on.
            counts = np.array([_records(part) for part in parts], np.uint32)
            joined["book"] += np.repeat(np.cumsum(counts, dtype=np.uint32) - counts, [len(part) for part in parts])
        rows = self.scales.marked(joined)
        rows.gaps = tuple(gap for _, _, gap in self._gaps if gap.channel == channel)
        return rows

    def returned(self, follower: Follower) -> ReturnedCursor | None:
        """A cursor from which the records and gaps are taken again, in their order; `None` without any."""
        header = self._header
        if header is None or not self._parts:
            return None
        starts = np.cumsum([0, *(sum(map(_records, part.rows.values())) for part in self._parts)])
        gaps = [(int(starts[part]) + before, gap) for part, before, gap in self._gaps]
        data = bytearray(wire.PACKET_BYTES)
        for part in self._parts:
            if len(part.rows) == 1 and "book" not in part.rows:
                data += _encoded_at_once(*next(iter(part.rows.items())))
            else:
                for one in _encoded(part):
                    data += one
        whole = PacketHeader(0, self.count, header.epoch, header.position, header.ts_send)
        return ReturnedCursor(follower, whole, bytes(data), self.scales.directory, gaps)


def _records(rows: Structured) -> int:
    """The number of records of some rows of one packet and channel."""
    return int(rows["book"][-1]) + 1 if "book" in (rows.dtype.names or ()) else len(rows)


def _ordered(part: _Part) -> Iterator[tuple[str, int]]:
    """The channel and the number of each record, in the order of the packet."""
    numbered = [(channel, number) for channel, rows in part.rows.items() for number in range(_records(rows))]
    if len(part.rows) > 1:
        numbered.sort(key=lambda one: part.order[one[0]][one[1]])
    return iter(numbered)


def _records_before(part: _Part, gap: Gap) -> int:
    """The number of records that come before a gap."""
    rows = part.rows.get(gap.channel)
    after = None if rows is None else (rows["instrument"] == gap.instrument.id) & (rows["sequence"] > gap.to_sequence)
    if rows is None or after is None or not after.any():
        return sum(map(_records, part.rows.values()))
    first = int(after.argmax())
    number = int(rows["book"][first]) if gap.channel == "book" else first
    return next(at for at, one in enumerate(_ordered(part)) if one == (gap.channel, number))


def _encoded_at_once(channel: str, rows: Structured) -> bytes:
    # In the layout of the wire, which selecting rows does not keep.
    own = np.zeros(len(rows), LAYOUTS[channel])
    own[:] = rows
    own["length"] = own.dtype.itemsize // 8
    return own.tobytes()


def _encoded(part: _Part) -> Iterator[bytes]:
    """Each record as on the wire, in the order of the packet."""
    encoded: dict[str, list[bytes]] = {}
    for channel, rows in part.rows.items():
        if channel == "book":
            encoded[channel] = [_encoded_book(rows[rows["book"] == number]) for number in range(_records(rows))]
        else:
            data, size = _encoded_at_once(channel, rows), LAYOUTS[channel].itemsize
            encoded[channel] = [data[at : at + size] for at in range(0, len(data), size)]
    for channel, number in _ordered(part):
        yield encoded[channel][number]


def _encoded_book(rows: Structured) -> bytes:
    first = rows[0]
    levels = rows if first["px"] != ABSENT or first["side"] else rows[:0]
    body = _BOOK.pack(len(levels), bytes(first["kind"]) or b"\0")
    body += b"".join(_LEVEL.pack(px, sz, side or b"\0") for px, sz, side in levels[["px", "sz", "side"]].tolist())
    names = ("flags", "instrument", "sequence", "ts_event", "ts_recv")
    head = _HEADER.pack((wire.HEADER_BYTES + len(body)) // 8, wire.BOOK, *(int(first[name]) for name in names))
    return head + body


class Newest:
    """What is kept of packets that are skipped: the newest quote and ticker of each instrument, and of each book the
    records from its last snapshot on. Each has the scales that it had."""

    def __init__(self, channels: Sequence[str]) -> None:
        self._channels = [channel for channel in channels if channel != "trade"]
        self._rows: dict[tuple[str, int], list[Arrays]] = {}
        self._epoch: int | None = None

    def add(self, packet: Arrays) -> None:
        """Takes what is newest from a packet."""
        if packet.scales.epoch != self._epoch:
            self._rows, self._epoch = {}, packet.scales.epoch
        for channel in self._channels:
            rows = np.asarray(packet.rows(channel))
            if channel == "book":
                self._add_books(packet, rows)
                continue
            _, from_end = np.unique(rows["instrument"][::-1], return_index=True)
            for at in np.sort(len(rows) - 1 - from_end):
                key = channel, int(rows["instrument"][at])
                # At the end of the dict, which has the order of receipt.
                self._rows.pop(key, None)
                self._rows[key] = [packet.only(channel, rows[at : at + 1])]

    def _add_books(self, packet: Arrays, rows: Structured) -> None:
        for number in range(_records(rows) if len(rows) else 0):
            record = rows[rows["book"] == number]
            record["book"] = 0
            key = "book", int(record["instrument"][0])
            if record["kind"][0] == b"S":
                self._rows.pop(key, None)
            self._rows.setdefault(key, []).append(packet.only("book", record))

    def fill(self, into: Collection, *, books_only: bool) -> None:
        """Adds the records, in the order of receipt."""
        for (channel, _), kept in self._rows.items():
            if channel == "book" or not books_only:
                for one in kept:
                    into.add(one)
