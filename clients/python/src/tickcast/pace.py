"""When to try again: full jitter, so that the many whom one event has cut off do not come back as one."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Waits of 0 to `first_s`, then to twice that, up to `max_s`, each even in its range; what the server asks for is
    the least."""

    first_s: float = 0.25
    max_s: float = 30.0
    attempt: int = 0
    chance: random.Random = field(default_factory=random.Random)

    def next_s(self, asked_s: float = 0.0) -> float:
        """Seconds to wait before the next try, no less than `asked_s`, which a server has asked for."""
        ceiling = min(self.max_s, self.first_s * 2.0 ** min(self.attempt, 32))
        self.attempt += 1
        return asked_s + self.chance.uniform(0.0, ceiling)

    def reset(self) -> None:
        """A connection has held: the next loss begins with a short wait."""
        self.attempt = 0
