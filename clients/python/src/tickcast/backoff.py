"""Delays of reconnecting, with full jitter: clients that one event has disconnected do not reconnect all at once."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from . import arguments


@dataclass(slots=True)
class Backoff:
    """Random delays of 0 to `first_s`, then to twice that, and so on up to `max_s`."""

    first_s: float = 0.25
    max_s: float = 30.0
    attempt: int = 0
    chance: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        arguments.seconds("first_s", self.first_s, zero=True)
        arguments.seconds("max_s", self.max_s, zero=True)
        arguments.integer("attempt", self.attempt, 0, 2**63 - 1)

    def next_s(self, asked_s: float = 0.0) -> float:
        """Seconds to wait before the next attempt: the server's delay `asked_s`, plus the random delay."""
        ceiling = min(self.max_s, self.first_s * 2.0 ** min(self.attempt, 32))
        self.attempt += 1
        return asked_s + self.chance.uniform(0.0, ceiling)

    def reset(self) -> None:
        """After a connection that lasted: the next delay is short again."""
        self.attempt = 0


def check_backoff(backoff: object) -> Backoff:
    """A `Backoff`, as the argument of that name."""
    if not isinstance(backoff, Backoff):
        raise TypeError(f"backoff: {arguments.shown(backoff)}: expected a tickcast.Backoff")
    return backoff
