"""A book kept up to date from its records."""

from __future__ import annotations

from decimal import Decimal
from typing import cast

from .arguments import integer, one_of, shown
from .records import MAYBE_BAD_BOOK, NO_INSTRUMENT, Book, Instrument


class OrderBook:
    """The levels of one instrument. Apply every `Book` record of the instrument, in order.

    A record of another instrument, or after a restart of the server, clears the levels first. After a change of the
    exponents the levels are kept at the new ones, exactly, or dropped until a snapshot replaces them.
    """

    def __init__(self) -> None:
        self.instrument: Instrument = NO_INSTRUMENT
        self.sequence = 0
        self.is_rebuilding = False
        """The source missed an update of the venue, or levels were dropped: the book may be wrong until a snapshot
        replaces it."""
        self._is_incomplete = False
        self._sides: dict[str, dict[int, int]] = {"B": {}, "A": {}}

    def apply(self, record: Book) -> None:
        """Applies a record: a snapshot replaces both sides, a change sets levels, and a size of 0 removes one."""
        if not isinstance(cast("object", record), Book):
            raise TypeError(f"record: {shown(record)}: expected a Book")
        before, of = self.instrument, record.instrument
        if record.kind == "S" or (of.id, of.epoch) != (before.id, before.epoch):
            self._sides = {"B": {}, "A": {}}
            self._is_incomplete = False
        else:
            self._rescale(before.px_exp - of.px_exp, before.sz_exp - of.sz_exp)
        for px, sz, side in record.levels:
            if px is None or side not in self._sides:
                continue
            if sz:
                self._sides[side][px] = sz
            else:
                self._sides[side].pop(px, None)
        self.instrument, self.sequence = record.instrument, record.sequence
        self.is_rebuilding = bool(record.flags & MAYBE_BAD_BOOK) or self._is_incomplete

    def _rescale(self, px_shift: int, sz_shift: int) -> None:
        """Multiplies the mantissas by powers of ten. Where that is not exact, all levels are dropped."""
        if not (px_shift or sz_shift):
            return
        sides: dict[str, dict[int, int]] = {}
        for side, levels in self._sides.items():
            scaled = [(_scaled(px, px_shift), _scaled(sz, sz_shift)) for px, sz in levels.items()]
            sides[side] = {px: sz for px, sz in scaled if px is not None and sz is not None}
            self._is_incomplete |= len(sides[side]) < len(levels)
        self._sides = {"B": {}, "A": {}} if self._is_incomplete else sides

    def mantissas(self, side: str, depth: int | None = None) -> list[tuple[int, int]]:
        """Price and size mantissas of `B` (bids, highest first) or `A` (asks, lowest first)."""
        one_of("side", side, ("B", "A"))
        if depth is not None:
            integer("depth", depth, 0, 2**63 - 1, "an int from 0 on, or None")
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


def _scaled(mantissa: int, shift: int) -> int | None:
    """`mantissa * 10**shift`; `None` if that is no whole number."""
    if shift >= 0:
        return mantissa * 10**shift  # type: ignore[no-any-return]
    whole, rest = divmod(mantissa, 10**-shift)
    return None if rest else whole
