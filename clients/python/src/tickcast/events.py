"""What the task that reads the socket hands to the program, beside records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from .subscriptions import Key


@dataclass(slots=True, frozen=True)
class Connection:
    """A change of the connection, as an event.

    `state` is `resyncing` (connected, and the missed records are coming), `live`, or `lost` with a `reason`.
    """

    state: Literal["resyncing", "live", "lost"]
    reason: str = ""


@dataclass(slots=True, frozen=True)
class Authenticated:
    """The server has accepted another token on the open connection, as an event.

    `expires_at` is in Unix seconds, `None` for a token that does not expire. `dropped` are the names and patterns that
    the former token allowed, wholly or in part, and this one does not.
    """

    user: str
    expires_at: float | None
    dropped: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class TokenFailure:
    """There is no next token, or it was refused, as an event: the client asks again after `retry_s`."""

    reason: str
    retry_s: float


@dataclass(slots=True, frozen=True)
class Forget:
    """These keys were unsubscribed: their later records have no predecessor."""

    keys: frozenset[Key]
    kept: frozenset[Key]
    """The keys of other subscriptions, whose sequences continue."""


Item: TypeAlias = bytes | Connection | Authenticated | TokenFailure | Forget
