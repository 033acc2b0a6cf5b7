"""The interests of a client, and the fewest requests that subscribe to them again after a reconnect.

Pure. An interest whose snapshot was complete resumes from the client's token; another one starts with a snapshot. Where
intervals differ, exact names come before patterns and longer patterns before shorter ones: the server would otherwise
count a value that still waits for a more specific interval as sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from . import arguments
from .records import CHANNELS, Channel

Token: TypeAlias = tuple[int, int]
Key: TypeAlias = tuple[Channel, str]

# Bytes of names in one request. The server's limit is 1 MiB (request_bytes_max), and may be configured lower.
REQUEST_BYTES = 32 * 1024
# The largest conflation interval of the protocol.
INTERVAL_MS_MAX = 1000
# Far above the server's limit of subscriptions, and far below the memory of a machine.
NAMES_MAX = 10_000_000


@dataclass(eq=False)
class Interest:
    """One subscription of the program. From `is_new` on, its state on the present connection."""

    symbols: tuple[str, ...]
    channels: tuple[Channel, ...]
    conflate_ms: int
    snapshot: bool
    is_new: bool = True
    """The call of `subscribe` still waits for the first answer."""
    requested: bool = False
    unanswered: int = 0
    """Requests without an answer."""
    answered: bool = False
    caught_up: bool = False
    """Its snapshot or replay is complete: the client's token holds for it."""
    token: Token | None = None
    """The token to resume from after a reconnect; `None` if it needs a snapshot."""
    sent: set[Key] = field(default_factory=set[Key])
    """Its keys in requests that the server was sent, and has not rejected."""
    count: int = 0
    unknown: list[str] = field(default_factory=list[str])
    denied: list[str] = field(default_factory=list[str])
    limited: list[str] = field(default_factory=list[str])
    delayed: list[str] = field(default_factory=list[str])
    book_depth: int = 0
    """Levels of each side of its books by the last answer; 0 for all."""

    def take_depth(self, depth: int, continues: bool) -> bool:
        """Takes the depth of its books from an answer. True if it continues with another one, and needs a snapshot."""
        has_changed, self.book_depth = continues and depth != self.book_depth, depth
        if has_changed:
            self.token, self.caught_up = None, False
        return has_changed

    def take_names(self, answer: Mapping[str, Any]) -> None:
        """What an answer says of its names."""
        names = set(self.symbols)
        for what in ("unknown", "denied", "limited", "delayed"):
            listed: list[str] = getattr(self, what)
            listed += [name for name in answer.get(what, ()) if name in names]

    def forget_names(self) -> None:
        """Its names are requested, and the answers say more of them."""
        self.count, self.unknown, self.denied, self.limited, self.delayed = 0, [], [], [], []

    def keys(self) -> set[Key]:
        """Its pairs of channel and name."""
        return {(channel, symbol) for channel in self.channels for symbol in self.symbols}

    def granted_keys(self) -> set[Key]:
        """Those that the server has not denied."""
        denied = set(self.denied)
        return {(channel, symbol) for channel, symbol in self.keys() if symbol not in denied}

    def note_sent(self, request: Request, is_sent: bool) -> None:
        """Notes which keys the server was sent, or has rejected."""
        keys = {(channel, symbol) for channel in request.channels for symbol in request.symbols} & self.keys()
        self.sent = self.sent | keys if is_sent else self.sent - keys

    def is_covered_by(self, keys: Iterable[Key]) -> bool:
        """Whether a pattern among the keys covers one of its names or narrower patterns."""
        patterns = [(channel, symbol) for channel, symbol in keys if symbol.endswith("*")]
        return any(
            channel in self.channels and any(covers(pattern, symbol) for symbol in self.symbols)
            for channel, pattern in patterns
        )

    def is_restricted(self, dropped: Iterable[str]) -> bool:
        """Whether other rights may change what it gets."""
        return bool(self.denied or self.limited) or not set(self.symbols).isdisjoint(dropped)

    def connection_lost(self, token: Token | None) -> None:
        """Resets its state. `token` is that of the last packet of the connection."""
        if self.caught_up:
            self.token = token
        self.requested = self.answered = self.caught_up = False
        self.unanswered = 0
        self.sent = set()


@dataclass(slots=True)
class Request:
    """A request, and the interests that it is for."""

    op: str
    channels: tuple[Channel, ...]
    symbols: tuple[str, ...]
    conflate_ms: int
    snapshot: bool
    token: Token | None
    interests: list[Interest]

    def text(self, request_id: int) -> str:
        """Its JSON."""
        fields: dict[str, Any] = {"op": self.op, "id": request_id, "channels": self.channels, "symbols": self.symbols}
        if self.op == "unsubscribe":
            return json.dumps(fields, ensure_ascii=False)
        fields["conflate_ms"] = self.conflate_ms
        if self.token is not None:
            fields["epoch"], fields["position"] = self.token
        else:
            fields["snapshot"] = self.snapshot
        return json.dumps(fields, ensure_ascii=False)


def covers(name: str, symbol: str) -> bool:
    """Whether a name, or a pattern with one `*` at its end, covers a symbol, or a narrower pattern."""
    return symbol.startswith(name[:-1]) if name.endswith("*") else name == symbol


def check(
    symbols: Iterable[str], channels: Iterable[str], conflate_ms: int
) -> tuple[tuple[str, ...], tuple[Channel, ...]]:
    """The names and channels without repetitions. Raises `ValueError` or `TypeError` for what no server accepts."""
    for name, given in (("symbols", symbols), ("channels", channels)):
        if isinstance(given, str):
            raise ValueError(f"{name}: {arguments.shown(given)} is a str: expected a list, as [{given[:60]!r}]")
    listed = arguments.items("symbols", symbols, "a list of names and patterns", NAMES_MAX)
    names = tuple(dict.fromkeys(arguments.pattern(f"symbols[{at}]", one) for at, one in enumerate(listed)))
    chosen = {
        arguments.text(f"channels[{at}]", one)
        for at, one in enumerate(arguments.items("channels", channels, "a list of channels", 1000))
    }
    unknown = chosen - set(CHANNELS)
    if unknown:
        first = ", ".join(arguments.shown(one).strip("'\"") for one in sorted(unknown)[:3])
        raise ValueError(f"channels: unknown {first}: expected some of {', '.join(CHANNELS)}")
    if not names:
        raise ValueError("symbols: empty list: expected at least one name or pattern")
    if not chosen:
        raise ValueError("channels: empty list: expected at least one channel")
    check_interval(conflate_ms)
    return names, tuple(channel for channel in CHANNELS if channel in chosen)


def check_interval(conflate_ms: object) -> int:
    """A conflation interval in ms."""
    return arguments.integer("conflate_ms", conflate_ms, 0, INTERVAL_MS_MAX, "an int, ms, or 0 for every update")


def requests(interests: Sequence[Interest], symbols_max: int) -> list[Request]:
    """The requests for these interests, in the order in which they are to be sent."""
    differ = len({interest.conflate_ms for interest in interests}) > 1
    groups: dict[tuple[Any, ...], tuple[dict[str, None], list[Interest]]] = {}
    for interest in interests:
        for specificity, names in _by_specificity(interest.symbols, differ):
            # A resume goes before a subscribe: it replays nothing of a name that is already subscribed.
            rank = (interest.token is None, -specificity)
            key = (rank, interest.channels, interest.conflate_ms, interest.snapshot, interest.token)
            symbols, of = groups.setdefault(key, ({}, []))
            symbols.update(dict.fromkeys(names))
            of.append(interest)
    parts: list[Request] = []
    for key, (symbols, of) in sorted(groups.items(), key=lambda item: item[0][0]):
        _, channels, conflate_ms, snapshot, token = key
        op = "subscribe" if token is None else "resume"
        parts += split(Request(op, channels, tuple(symbols), conflate_ms, snapshot, token, of), symbols_max)
    return parts


def _by_specificity(symbols: tuple[str, ...], differ: bool) -> list[tuple[int, list[str]]]:
    """Names by specificity: the length of a pattern, and above all patterns an exact name."""
    if not differ:
        return [(0, list(symbols))]
    parts: dict[int, list[str]] = {}
    for symbol in symbols:
        parts.setdefault(len(symbol) if symbol.endswith("*") else 1 << 16, []).append(symbol)
    return list(parts.items())


def split(request: Request, symbols_max: int) -> Iterator[Request]:
    """The request in parts of at most `symbols_max` names and `REQUEST_BYTES` bytes of names."""
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
    return Request(of.op, of.channels, tuple(names), of.conflate_ms, of.snapshot, of.token, of.interests)
