"""The queue between the task that reads the socket and the program.

It holds a bounded number of packets. When it is full, the socket is no longer read, TCP's backpressure reaches the
server, and the server conflates: a slow program gets fewer and newer values instead of a growing delay.
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
        self._has_space = asyncio.Event()
        self._has_space.set()
        self._error: BaseException | None = None
        self._ended = False

    def __len__(self) -> int:
        return len(self._items)

    def has_space(self) -> bool:
        """Whether another item fits, or the bound is lifted."""
        return len(self._items) < self._size_max or self._lifted > 0 or self._ended

    async def until_space(self) -> None:
        """Waits until there is space."""
        while not self.has_space():
            self._has_space.clear()
            await self._has_space.wait()

    def put_now(self, item: T) -> None:
        """Appends an item, also beyond the bound."""
        self._items.append(item)
        self._changed.set()

    async def get(self) -> T | None:
        """The next item; `None` at the end. Raises the writer's error after all items before it."""
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        item = self._items.popleft()
        self._has_space.set()
        return item

    def end(self, error: BaseException | None = None) -> None:
        """No more items follow."""
        if not self._ended:
            self._ended, self._error = True, error
        self._changed.set()
        self._has_space.set()

    @contextmanager
    def lifted(self) -> Generator[None]:
        """Lifts the bound: a call that waits for an answer does not read the packets before it."""
        self._lifted += 1
        self._has_space.set()
        try:
            yield
        finally:
            self._lifted -= 1
