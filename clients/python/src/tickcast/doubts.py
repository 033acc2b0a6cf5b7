"""Warnings about quotes that are allowed, and most often a mistake.

One of a kind for each instrument: a feed that has one such quote often has many.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from .arguments import ABSENT
from .errors import QuoteWarning
from .records import Instrument, to_text

_PACKAGE = str(Path(__file__).parent)


class Doubts:
    """What a publisher has warned about."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str]] = set()

    def about_quote(self, of: Instrument, bid: tuple[int, int], ask: tuple[int, int], where: str = "") -> None:
        """Warns about a quote, given as the mantissas of prices and sizes, if it is crossed or has a 0."""
        for name, (px, sz) in (("bid", bid), ("ask", ask)):
            if px == 0:
                self._warn(of, name, f"{where}{of.symbol}: {name}: 0: expected no price where there is no {name}")
            if sz == 0:
                self._warn(of, f"{name}_size", f"{where}{of.symbol}: {name}_size: 0: expected no {name} without a size")
        if ABSENT not in (bid[0], ask[0]) and bid[0] > ask[0]:
            prices = to_text(bid[0], of.px_exp), to_text(ask[0], of.px_exp)
            self._warn(
                of, "crossed", f"{where}{of.symbol}: bid: {prices[0]} is above the ask {prices[1]}: expected less"
            )

    def _warn(self, of: Instrument, what: str, text: str) -> None:
        if (of.symbol, what) not in self._known:
            self._known.add((of.symbol, what))
            warnings.warn(f"{text} (the next ones are not reported)", QuoteWarning, stacklevel=_outside())


def _outside() -> int:
    """The level of the first caller outside of the package, for `warnings.warn` in the caller of this function."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level
