"""A book kept up to date from its records."""

from __future__ import annotations

from decimal import Decimal

from .records import MAYBE_BAD_BOOK, NO_INSTRUMENT, Book, Instrument


class OrderBook:
    """The levels of one instrument. Apply every `Book` record of the instrument, in order.

    A record of another instrument, or after a restart of the server, clears the levels first.
    """

    def __init__(self) -> None:
        self.instrument: Instrument = NO_INSTRUMENT
        self.sequence = 0
        self.is_rebuilding = False
        """The source missed an update of the venue: the book may be wrong until a snapshot replaces it."""
        self._sides: dict[str, dict[int, int]] = {"B": {}, "A": {}}

    def apply(self, record: Book) -> None:
        """Applies a record: a snapshot replaces both sides, a change sets levels, and a size of 0 removes one."""
        before, of = self.instrument, record.instrument
        if record.kind == "S" or (of.id, of.epoch) != (before.id, before.epoch):
            self._sides = {"B": {}, "A": {}}
        for px, sz, side in record.levels:
            if px is None or side not in self._sides:
                continue
            if sz:
                self._sides[side][px] = sz
            else:
                self._sides[side].pop(px, None)
        self.instrument, self.sequence = record.instrument, record.sequence
        self.is_rebuilding = bool(record.flags & MAYBE_BAD_BOOK)

    def mantissas(self, side: str, depth: int | None = None) -> list[tuple[int, int]]:
        """Price and size mantissas of `B` (bids, highest first) or `A` (asks, lowest first)."""
        return sorted(self._sides[side].items(), reverse=side == "B")[:depth]

    def bids(self, depth: int | None = None) -> list[tuple[Decimal, Decimal]]:
        """Exact prices and sizes of the bids, best first."""
        return self._exact("B", depth)

    def asks(self, depth: int | None = None) -> list[tuple[Decimal, Decimal]]:
        """Exact prices and sizes of the asks, best first."""
        return self._exact("A", depth)

    def _exact(self, side: str, depth: int | None) -> list[tuple[Decimal, Decimal]]:
        of = self.instrument
        both = ((of.price(px), of.size(sz)) for px, sz in self.mantissas(side, depth))
        return [(px, sz) for px, sz in both if px is not None and sz is not None]
