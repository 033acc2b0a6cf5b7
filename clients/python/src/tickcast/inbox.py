"""What has come and was not read yet, between the task that reads the socket and the program that uses it.

It holds a bounded number of packets. When it is full, the socket is read no further, TCP tells the server, and the
server merges what waits: a slow program gets fewer and newer values, and not a growing delay.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Inbox(Generic[T]):
    """A queue of one reader and one writer."""

    def __init__(self, size_max: int) -> None:
        self._items: deque[T] = deque()
        self._size_max = size_max
        self._lifted = 0
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._error: BaseException | None = None
        self._ended = False

    def __len__(self) -> int:
        return len(self._items)

    def has_room(self) -> bool:
        """Whether another item has room, or the bound is lifted."""
        return len(self._items) < self._size_max or self._lifted > 0 or self._ended

    async def room(self) -> None:
        """Waits until there is room."""
        while not self.has_room():
            self._has_room.clear()
            await self._has_room.wait()

    def put_now(self, item: T) -> None:
        """Appends an item, room or not."""
        self._items.append(item)
        self._changed.set()

    async def get(self) -> T | None:
        """The next item; `None` at the end. Raises what the writer failed with, after all that came before it."""
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        item = self._items.popleft()
        self._has_room.set()
        return item

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more is to come."""
        if not self._ended:
            self._ended, self._error = True, error
        self._changed.set()
        self._has_room.set()

    @contextmanager
    def lifted(self) -> Generator[None]:
        """Lifts the bound meanwhile: who waits for an answer does not read what stands before it."""
        self._lifted += 1
        self._has_room.set()
        try:
            yield
        finally:
            self._lifted -= 1
