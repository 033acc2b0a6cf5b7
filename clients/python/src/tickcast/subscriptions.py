"""What a client wants, and how that is asked for anew after a reconnect: in as few requests as may be.

Pure. A subscription that has had its snapshot resumes from the token that the client had; another begins with a
snapshot again. Where intervals differ, exact names come before patterns and longer patterns before shorter ones, since
a value that waits for a more specific interval is taken for had otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from .records import CHANNELS, Channel

Token: TypeAlias = tuple[int, int]
Key: TypeAlias = tuple[Channel, str]

# Names in one request; the server takes 1 MiB as it comes (request_bytes_max), and may be told to take less.
REQUEST_BYTES = 32 * 1024


@dataclass(eq=False)
class Wanted:
    """One subscription, as the client keeps it. All but what is asked for is of the present connection."""

    symbols: tuple[str, ...]
    channels: tuple[Channel, ...]
    conflate_ms: int
    snapshot: bool
    is_new: bool = True
    """Whoever asked for it still waits for the first answer."""
    asked: bool = False
    parts: int = 0
    """Requests that have not been answered."""
    answered: bool = False
    caught_up: bool = False
    """Its snapshot or replay has come to its end: the client's token is good for it."""
    token: Token | None = None
    """Where it goes on after a reconnect; `None` where a snapshot is needed."""
    count: int = 0
    unknown: list[str] = field(default_factory=list[str])

    def keys(self) -> set[Key]:
        """The channels and names that it stands for."""
        return {(channel, symbol) for channel in self.channels for symbol in self.symbols}

    def is_covered_by(self, keys: Iterable[Key]) -> bool:
        """Whether one of these patterns covers a name or a narrower pattern of it."""
        patterns = [(channel, symbol) for channel, symbol in keys if symbol.endswith("*")]
        return any(
            channel in self.channels and any(covers(pattern, symbol) for symbol in self.symbols)
            for channel, pattern in patterns
        )

    def lose(self, token: Token | None) -> None:
        """The connection is gone. `token` is that of the last packet that came over it."""
        if self.caught_up:
            self.token = token
        self.asked = self.answered = self.caught_up = False
        self.parts = 0


@dataclass(slots=True)
class Request:
    """A request and whose it is."""

    op: str
    channels: tuple[Channel, ...]
    symbols: tuple[str, ...]
    conflate_ms: int
    snapshot: bool
    token: Token | None
    wanted: list[Wanted]

    def text(self, request_id: int) -> str:
        """The JSON that the server takes."""
        said: dict[str, Any] = {"op": self.op, "id": request_id, "channels": self.channels, "symbols": self.symbols}
        said["conflate_ms"] = self.conflate_ms
        if self.token is not None:
            said["epoch"], said["position"] = self.token
        else:
            said["snapshot"] = self.snapshot
        return json.dumps(said, ensure_ascii=False)


def covers(asked: str, symbol: str) -> bool:
    """Whether a name, or a pattern with one `*` at its end, covers a symbol, or a narrower pattern."""
    return symbol.startswith(asked[:-1]) if asked.endswith("*") else asked == symbol


def check(
    symbols: Iterable[str], channels: Iterable[str], conflate_ms: int
) -> tuple[tuple[str, ...], tuple[Channel, ...]]:
    """The names and channels without repetitions. Raises `ValueError` for what no server takes."""
    if isinstance(symbols, str):
        raise ValueError(f"symbols is a list: write [{symbols!r}]")
    if isinstance(channels, str):
        raise ValueError(f"channels is a list: write [{channels!r}]")
    wanted, named = tuple(dict.fromkeys(symbols)), set(channels)
    unknown = named - set(CHANNELS)
    if unknown:
        raise ValueError(f"unknown channels {', '.join(sorted(unknown))}; have {', '.join(CHANNELS)}")
    if not wanted or not named:
        raise ValueError("a subscription names at least one symbol and one channel")
    if conflate_ms < 0:
        raise ValueError(f"conflate_ms is {conflate_ms}; 0 is every update, and the least")
    return wanted, tuple(channel for channel in CHANNELS if channel in named)


def requests(wanted: Sequence[Wanted], symbols_max: int) -> list[Request]:
    """The requests that ask for all of these anew, in the order in which they are to be made."""
    differ = len({one.conflate_ms for one in wanted}) > 1
    groups: dict[tuple[Any, ...], tuple[dict[str, None], list[Wanted]]] = {}
    for one in wanted:
        for specificity, names in _by_specificity(one.symbols, differ):
            # A resume goes before a subscription: of what is subscribed already it would replay nothing.
            rank = (one.token is None, -specificity)
            key = (rank, one.channels, one.conflate_ms, one.snapshot, one.token)
            together, of = groups.setdefault(key, ({}, []))
            together.update(dict.fromkeys(names))
            of.append(one)
    parts: list[Request] = []
    for key, (together, of) in sorted(groups.items(), key=lambda item: item[0][0]):
        _, channels, conflate_ms, snapshot, token = key
        op = "subscribe" if token is None else "resume"
        parts += split(Request(op, channels, tuple(together), conflate_ms, snapshot, token, of), symbols_max)
    return parts


def _by_specificity(symbols: tuple[str, ...], differ: bool) -> list[tuple[int, list[str]]]:
    """Names with how specific they are: the length of a pattern, and beyond all patterns an exact name."""
    if not differ:
        return [(0, list(symbols))]
    parts: dict[int, list[str]] = {}
    for symbol in symbols:
        parts.setdefault(len(symbol) if symbol.endswith("*") else 1 << 16, []).append(symbol)
    return list(parts.items())


def split(request: Request, symbols_max: int) -> Iterator[Request]:
    """The request in parts that a server takes, of at most so many names and bytes each."""
    names: list[str] = []
    size = 0
    for symbol in request.symbols:
        cost = len(symbol.encode()) + 4
        if names and (len(names) >= symbols_max or size + cost > REQUEST_BYTES):
            yield _part(request, names)
            names, size = [], 0
        names.append(symbol)
        size += cost
    yield _part(request, names)


def _part(request: Request, names: list[str]) -> Request:
    of = request
    return Request(of.op, of.channels, tuple(names), of.conflate_ms, of.snapshot, of.token, of.wanted)
