"""The position of a program within a packet.

Everything that was read from the socket and not handed out is behind a cursor, never in the frame of a suspended
call: a call that is cancelled takes nothing. Decoding a record and moving beyond it is one step without a suspension.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

from . import wire
from .errors import ProtocolError
from .follow import RELEASED, Follower
from .records import AnyRecord, Gap, Instrument
from .wire import PacketHeader, RecordHeader


class Cursor:
    """The rest of one packet. Its records are followed and decoded one by one, as they are taken."""

    def __init__(self, follower: Follower, data: bytes) -> None:
        gaps: list[AnyRecord] = []
        self.data = data
        self.header = follower.begin(data, gaps)
        self.is_new = True
        """Nothing was taken: also a packet without records is taken once."""
        self._gaps = deque(gaps)
        self._follower = follower
        self._error: ProtocolError | None = None
        self._head: RecordHeader | None = None
        self._heads = wire.walk(data, self.header.count)
        self._read_head()

    @property
    def follower(self) -> Follower:
        """What follows the records."""
        return self._follower

    @property
    def head(self) -> RecordHeader | None:
        """The header of the next record of the wire; `None` at the end."""
        return self._head

    @property
    def is_done(self) -> bool:
        """Nothing is left."""
        return self._head is None and not (self._gaps or self.is_new or self._error is not None)

    def directory(self) -> dict[int, Instrument]:
        """The instruments of the records that were taken last, to be kept."""
        return self._follower.share()

    def take_gap(self) -> AnyRecord | None:
        """The gap that comes before the next record, if there is one.

        Raises `ProtocolError` if the packet is broken there, at every call: the records before are not lost.
        """
        if self._error is not None and not self._gaps:
            raise self._error
        self.is_new = False
        if self._gaps:
            return self._gaps.popleft()
        return None if self._head is None else self._follower.gap_before(self._head)

    def take_record(self) -> AnyRecord | None:
        """The next record, decoded; `None` if it is repeated or of an unknown type. Call `take_gap` before."""
        head = self._required()
        record = wire.decode_record(self.data, head, self._follower.directory)
        is_new = record is not None and self._follower.admit(head, record)
        self._advance()
        return record if is_new else None

    def take_head(self) -> bool:
        """Takes the next record of a channel without decoding it; false if it is repeated."""
        head = self._required()
        wire.instrument_of(head, self._follower.directory)
        is_new = self._follower.admit(head, None)
        self._advance()
        return is_new

    def take_all(self) -> None:
        """Ends it: all records were taken in another way."""
        self._head = None
        self._gaps.clear()
        self.is_new = False

    def take(self) -> AnyRecord | None:
        """The next record, or the gap before it; `None` at the end."""
        while self._head is not None or not self.is_done:
            one = self.take_gap()
            if one is None and self._head is not None:
                one = self.take_record()
            if one is not None:
                return one
        return None

    def records(self) -> Iterator[AnyRecord]:
        """Takes record by record, and the gaps before them."""
        return iter(self.take, None)

    def changes_scale(self) -> bool:
        """Whether the next record defines a known instrument with other exponents, or releases it."""
        head = self._head
        if head is None or (known := self._follower.directory.get(head.instrument)) is None:
            return False
        if head.kind == wire.DEFINITION:
            return wire.exponents(self.data, head) != (known.px_exp, known.sz_exp)
        return head.kind == wire.STATUS and self.data[head.at + 32 : head.at + 33] == RELEASED

    def _required(self) -> RecordHeader:
        assert self._head is not None, "take_record after the end of the packet"
        return self._head

    def _advance(self) -> None:
        self.is_new = False
        self._read_head()

    def _read_head(self) -> None:
        try:
            self._head = next(self._heads, None)
        except ProtocolError as error:
            self._head, self._error = None, error


class ReturnedCursor(Cursor):
    """Records that were taken and come again, because the call that took them was cancelled.

    They are not followed a second time, and are decoded with the directory that they had. `gaps` come before the record
    of their index.
    """

    def __init__(
        self,
        follower: Follower,
        header: PacketHeader,
        data: bytes,
        directory: Mapping[int, Instrument],
        gaps: list[tuple[int, Gap]],
    ) -> None:
        self.data, self.header = data, header
        self.is_new = False
        self._follower = follower
        self._directory = dict(directory)
        self._error = None
        self._heads = wire.walk(data, header.count)
        self._read_head()
        self._taken = 0
        self._due = deque(gaps)
        self._gaps = deque[AnyRecord]()
        self._note_gaps()

    def directory(self) -> dict[int, Instrument]:
        return self._directory

    def take_gap(self) -> AnyRecord | None:
        return self._gaps.popleft() if self._gaps else None

    def take_record(self) -> AnyRecord | None:
        record = wire.decode_record(self.data, self._required(), self._directory)
        self._advance()
        return record

    def take_head(self) -> bool:
        self._required()
        self._advance()
        return True

    def changes_scale(self) -> bool:
        return False

    def _advance(self) -> None:
        super()._advance()
        self._taken += 1
        self._note_gaps()

    def _note_gaps(self) -> None:
        while self._due and self._due[0][0] <= self._taken:
            self._gaps.append(self._due.popleft()[1])


def read_packet(follower: Follower, data: bytes) -> tuple[PacketHeader, list[AnyRecord]]:
    """The header and the new records of a packet, with a `Gap` wherever records are missing."""
    cursor = Cursor(follower, data)
    return cursor.header, list(cursor.records())
