"""Follows a stream over its packets and connections: new records, sequence gaps, and the state of each instrument.

Records that a replay repeats are left out. A gap in a log channel from the time without a connection, which the server
could not announce, becomes a `Gap` with the reason `R`. A new epoch (a restart of the server) resets everything, and
each log channel with records gets a `Gap` from 0 to 0, because the number of missing records is not known.

A `Definition` may come again with other terms; sequences go on. A `Status` with `R` releases an instrument: everything
about it is forgotten. A directory that was given out (`share`) is not changed by either, but replaced.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable

from . import wire
from .errors import ProtocolError
from .records import (
    CHANNELS,
    MAYBE_BAD_BOOK,
    SNAPSHOT,
    AnyRecord,
    Definition,
    Gap,
    Instrument,
    State,
    Status,
)
from .subscriptions import Key, covers
from .wire import PacketHeader, RecordHeader

# Ids are dense and begin at 1. Higher ones go into a dict, so that a wrong id cannot allocate much memory.
DENSE_IDS_MAX = 1 << 20
# The channels without conflation: a missing sequence is a lost record.
LOGS = frozenset({wire.TRADE, wire.RAW})
_CHANNEL_TYPES = {name: number for number, name in enumerate(CHANNELS, start=1)}
_STATES = {"L": State.LIVE, "S": State.STALE, "H": State.HALTED, "E": State.ENDED}
RELEASED = b"R"
"""The letter of a Status that releases its instrument."""


# Sequences of a server stay far below: a million records a second take nine years to get there.
SEQUENCE_LIMIT = 2**48


def plausible(sequence: int) -> int:
    """The sequence. One that is not plausible would make all later records look old: it raises `ProtocolError`."""
    if sequence >= SEQUENCE_LIMIT:
        raise ProtocolError(f"sequence {sequence}: expected less than 2**48")
    return sequence


class Sequences:
    """The last sequence of each instrument on one channel; 0 before the first."""

    def __init__(self) -> None:
        self.dense = array("Q", bytes(8 * 1024))
        self._sparse: dict[int, int] = {}

    def reach(self, instrument: int) -> bool:
        """Grows the array to an id; false if the id is too high for it."""
        if instrument >= DENSE_IDS_MAX:
            return False
        while instrument >= len(self.dense):
            self.dense.extend(array("Q", bytes(8 * len(self.dense))))
        return True

    def __getitem__(self, instrument: int) -> int:
        if instrument < len(self.dense):
            return self.dense[instrument]
        return self._sparse.get(instrument, 0)

    def __setitem__(self, instrument: int, sequence: int) -> None:
        if self.reach(instrument):
            self.dense[instrument] = sequence
        else:
            self._sparse[instrument] = sequence

    def instruments(self) -> list[int]:
        """The instruments with a sequence."""
        return [*(instrument for instrument, sequence in enumerate(self.dense) if sequence), *self._sparse]


class Follower:
    """Follows the packets of one client, over all of its connections."""

    def __init__(self) -> None:
        self.epoch: int | None = None
        self.directory: dict[int, Instrument] = {}
        self._is_shared = False
        self.by_symbol: dict[str, Instrument] = {}
        self.sequences: dict[int, Sequences] = {kind: Sequences() for kind in _CHANNEL_TYPES.values()}
        self.states: dict[int, State] = {}
        self.bad_books: set[int] = set()
        self.records = self.repeated = self.gaps = self.missing = self.conflated = 0

    def state(self, symbol: str) -> State:
        """The state of an instrument on a live connection."""
        instrument = self.by_symbol.get(symbol)
        if instrument is None:
            return State.RESYNCING
        feed, own = self.states.get(0, State.LIVE), self.states.get(instrument.id, State.LIVE)
        if own is State.LIVE and feed is not State.LIVE:
            return feed
        if own is State.LIVE and instrument.id in self.bad_books:
            return State.RESYNCING
        return own

    def share(self) -> dict[int, Instrument]:
        """The directory, to be kept: it will get further instruments, but what it has does not change."""
        self._is_shared = True
        return self.directory

    def begin(self, data: bytes, gaps: list[AnyRecord]) -> PacketHeader:
        """Reads a packet's header; a new epoch resets everything.

        The gaps of a new epoch are appended to `gaps`. The old directory stays as it is for its other users.
        """
        header = wire.read_header(data)
        if header.epoch != self.epoch:
            gaps += self._epoch_gaps(header.ts_send)
            self.epoch = header.epoch
            self.directory, self.by_symbol, self._is_shared = {}, {}, False
            self.states.clear()
            self.bad_books.clear()
            self.sequences = {kind: Sequences() for kind in _CHANNEL_TYPES.values()}
        return header

    def gap_before(self, head: RecordHeader) -> Gap | None:
        """The gap before a record, if sequences of a log channel are missing. It is returned once."""
        if head.kind not in LOGS:
            return None
        plausible(head.sequence)
        last = self.sequences[head.kind][head.instrument]
        if not last or head.sequence <= last + 1:
            return None
        gap = self.gap(head.kind, head.instrument, last + 1, head.sequence - 1, head.ts_recv)
        self.sequences[head.kind][head.instrument] = head.sequence - 1
        return gap

    def admit(self, head: RecordHeader, record: AnyRecord | None) -> bool:
        """True if the record is new. `record` may be left out for the records of channels."""
        if isinstance(record, Definition):
            self._define(record.instrument)
        elif isinstance(record, Status):
            self._note_state(record)
        elif isinstance(record, Gap):
            self._announced(record)
        elif head.kind in self.sequences:
            return self._follow(head)
        return True

    def _define(self, of: Instrument) -> None:
        before = self.directory.get(of.id)
        if before is of:
            return
        if before is not None:
            self._unshare()
            self.by_symbol.pop(before.symbol, None)
            if (before.px_exp, before.sz_exp) != (of.px_exp, of.sz_exp):
                self._expect_again(of.id)
        namesake = self.by_symbol.get(of.symbol)
        if namesake is not None and namesake.id != of.id:
            # Its release came while there was no connection.
            self._release(namesake)
        self.directory[of.id] = self.by_symbol[of.symbol] = of

    def _expect_again(self, instrument: int) -> None:
        """The newest states come again in the new exponents, with the sequences that they have."""
        for kind in self.sequences.keys() - LOGS:
            last = self.sequences[kind][instrument]
            if last:
                self.sequences[kind][instrument] = last - 1

    def _note_state(self, status: Status) -> None:
        if status.state == RELEASED.decode():
            self._release(status.instrument)
        elif status.state in _STATES:
            self.states[status.instrument.id] = _STATES[status.state]

    def _release(self, of: Instrument) -> None:
        """Forgets an instrument: its id carries nothing more, and its symbol may get another one."""
        if of.id not in self.directory:
            return
        self._unshare()
        del self.directory[of.id]
        self.by_symbol.pop(of.symbol, None)
        self.states.pop(of.id, None)
        self.bad_books.discard(of.id)
        for sequences in self.sequences.values():
            if sequences[of.id]:
                sequences[of.id] = 0

    def _unshare(self) -> None:
        if self._is_shared:
            self.directory, self._is_shared = dict(self.directory), False

    def _follow(self, head: RecordHeader) -> bool:
        sequences = self.sequences[head.kind]
        last, sequence = sequences[head.instrument], plausible(head.sequence)
        if sequence <= last and not (self._may_repeat(head) and sequence == last):
            self.repeated += 1
            return False
        sequences[head.instrument] = sequence
        self.records += 1
        self.conflated += head.flags >> 4 & 1
        if head.kind == wire.BOOK:
            self.note_book(head.instrument, head.flags)
        return True

    @staticmethod
    def _may_repeat(head: RecordHeader) -> bool:
        """Whether it may have the last sequence again: a snapshot of a state channel."""
        return bool(head.flags & SNAPSHOT) and head.kind not in LOGS

    def note_book(self, instrument: int, flags: int) -> None:
        """Notes whether a book is flagged as possibly wrong."""
        if flags & MAYBE_BAD_BOOK:
            self.bad_books.add(instrument)
        else:
            self.bad_books.discard(instrument)

    def gap(self, kind: int, instrument: int, first: int, last: int, ts_recv: int) -> Gap:
        """The gap of sequences that were missed without a connection."""
        of = self.directory.get(instrument)
        if of is None:
            raise ProtocolError(f"instrument {instrument}: a record comes before its definition")
        self.gaps += 1
        self.missing += last - first + 1
        return Gap(of, 0x80, 0, 0, ts_recv, first, last, CHANNELS[kind - 1], "R")

    def _epoch_gaps(self, ts_recv: int) -> list[Gap]:
        """A gap of unknown length for each log channel with records: those before the restart may be missing."""
        gaps = [
            Gap(self.directory[instrument], 0x80, 0, 0, ts_recv, 0, 0, CHANNELS[kind - 1], "R")
            for kind in sorted(LOGS)
            for instrument in self.sequences[kind].instruments()
            if instrument in self.directory
        ]
        self.gaps += len(gaps)
        return gaps

    def _announced(self, gap: Gap) -> None:
        sequences = self.sequences[_CHANNEL_TYPES[gap.channel]]
        instrument = gap.instrument.id
        sequences[instrument] = max(sequences[instrument], plausible(gap.to_sequence))
        self.gaps += 1
        self.missing += max(gap.to_sequence - gap.from_sequence + 1, 0)

    def forget(self, keys: Iterable[Key], kept: Collection[Key] = ()) -> None:
        """Resets the sequences of these channels and names, but for those of `kept`: their next record makes no gap."""
        for channel, symbol in keys:
            sequences = self.sequences[_CHANNEL_TYPES[channel]]
            for instrument in sequences.instruments():
                of = self.directory.get(instrument)
                if of is None or any(channel == other and covers(name, of.symbol) for other, name in kept):
                    continue
                if covers(symbol, of.symbol):
                    sequences[instrument] = 0
