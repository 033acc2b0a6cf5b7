"""The one position of a program in its stream, and the ways to read on from it.

What always holds: what was received and not handed out comes next, in whichever way the program reads on; a read that
is cancelled or that times out takes nothing; and nothing is handed out twice. Between taking from the inbox and
returning there is no suspension.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from .cursor import Cursor
from .errors import ConcurrentReadError, ProtocolError
from .events import Authenticated, Connection, Forget, Item, TokenFailure
from .follow import Follower
from .inbox import Inbox
from .records import AnyRecord, Definition, Heartbeat
from .wire import PacketHeader

if TYPE_CHECKING:
    from .arrays import Arrays

T = TypeVar("T")
Change: TypeAlias = Connection | Authenticated | TokenFailure
Event: TypeAlias = AnyRecord | Change


@dataclass(slots=True, frozen=True)
class Packet:
    """The new records of one packet. `(header.epoch, header.position)` is its token."""

    header: PacketHeader
    records: list[AnyRecord]


class Exclusive:
    """Tells a program that two of its tasks read one stream: each record would go to one of them only.

    A read while another one waits raises `ConcurrentReadError`, and so does that of a task that finds, after its last
    read, that another one has read which has not ended. A task may continue where one that has ended has read.
    """

    def __init__(self) -> None:
        self._is_reading = False
        self._last: weakref.ref[asyncio.Task[Any]] | None = None
        self._before: weakref.ref[asyncio.Task[Any]] | None = None

    def begin(self) -> None:
        """A read begins. Raises `ConcurrentReadError`."""
        task = asyncio.current_task()
        last = None if self._last is None else self._last()
        if self._is_reading:
            raise ConcurrentReadError("another task" if last is None else f"the task {last.get_name()!r}")
        if task is None or task is last:
            return
        if last is not None and not last.done() and self._before is not None and self._before() is task:
            raise ConcurrentReadError(f"the task {last.get_name()!r}")
        self._before, self._last = self._last, weakref.ref(task)

    async def during(self, read: Awaitable[T]) -> T:
        """The result of a read for which `begin` was called."""
        self._is_reading = True
        try:
            return await read
        finally:
            self._is_reading = False


class Iteration(AsyncIterator[T], Generic[T]):
    """An iterator over a stream. A cancelled or timed-out `anext` leaves it as it was."""

    def __init__(self, read: Callable[[], Awaitable[T | None]], exclusive: Exclusive) -> None:
        self._read = read
        self._exclusive = exclusive
        self._is_closed = False

    def __aiter__(self) -> Iteration[T]:
        return self

    async def __anext__(self) -> T:
        if self._is_closed:
            raise StopAsyncIteration
        self._exclusive.begin()
        if (item := await self._exclusive.during(self._read())) is None:
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        """Ends this iterator, and not the stream. It need not be called."""
        self._is_closed = True


class Reader:
    """Takes items from the inbox, and follows them."""

    def __init__(self, inbox: Inbox[Item]) -> None:
        self._inbox = inbox
        self.follower = Follower()
        self.exclusive = Exclusive()
        self._cursors: deque[Cursor] = deque()

    def __len__(self) -> int:
        """The number of items of the inbox, and 1 for a packet that is not wholly read."""
        return (self._present() is not None) + len(self._inbox)

    def give_back(self, cursor: Cursor) -> None:
        """Puts records before the present position."""
        self._cursors.appendleft(cursor)

    async def record(self) -> AnyRecord | None:
        """The next record of a channel, gap or state."""
        while (event := await self.event()) is not None:
            if not isinstance(event, (Connection, Authenticated, TokenFailure, Definition, Heartbeat)):
                return event
        return None

    async def event(self) -> Event | None:
        """The next record, or change of the connection or the token."""
        while True:
            if (record := self.ready()) is not None:
                return record
            if not isinstance(item := await self._next(), Cursor):
                return item

    def ready(self) -> AnyRecord | None:
        """The next record of the packets that were begun, without waiting; `None` at their end."""
        while (cursor := self._present()) is not None:
            if (record := cursor.take()) is not None:
                return record
        return None

    async def packet(self) -> Packet | None:
        """The rest of the present packet, or the next one."""
        cursor = await self.cursor()
        if cursor is None:
            return None
        records: list[AnyRecord] = []
        try:
            records.extend(cursor.records())
        except ProtocolError:
            if not records:
                raise
        return Packet(cursor.header, records)

    async def arrays(self) -> Arrays | None:
        """The rest of the present packet as arrays, or the next one, or a part of it."""
        from . import arrays

        cursor = await self.cursor()
        return None if cursor is None else arrays.take(cursor)

    async def cursor(self) -> Cursor | None:
        """The present packet, or the next one; changes of the connection are skipped."""
        while (cursor := self._present()) is None:
            if await self._next() is None:
                return None
        return cursor

    def _present(self) -> Cursor | None:
        while self._cursors and self._cursors[0].is_done:
            self._cursors.popleft()
        return self._cursors[0] if self._cursors else None

    async def _next(self) -> Cursor | Change | None:
        """The next item of the inbox; a packet becomes the present one."""
        while (item := await self._inbox.get()) is not None:
            if isinstance(item, Forget):
                self.follower.forget(item.keys, item.kept)
            elif isinstance(item, (Connection, Authenticated, TokenFailure)):
                return item
            else:
                cursor = Cursor(self.follower, item)
                self._cursors.append(cursor)
                return cursor
        return None
