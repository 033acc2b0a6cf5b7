"""Delays of reconnecting, with full jitter: clients that one event has disconnected do not reconnect all at once."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Random delays of 0 to `first_s`, then to twice that, and so on up to `max_s`."""

    first_s: float = 0.25
    max_s: float = 30.0
    attempt: int = 0
    chance: random.Random = field(default_factory=random.Random)

    def next_s(self, asked_s: float = 0.0) -> float:
        """Seconds to wait before the next attempt: the server's delay `asked_s`, plus the random delay."""
        ceiling = min(self.max_s, self.first_s * 2.0 ** min(self.attempt, 32))
        self.attempt += 1
        return asked_s + self.chance.uniform(0.0, ceiling)

    def reset(self) -> None:
        """After a connection that lasted: the next delay is short again."""
        self.attempt = 0
