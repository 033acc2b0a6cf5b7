"""The errors of this package. All are `TickcastError`s, and say what was wrong and what was expected."""

from __future__ import annotations

from typing import Any

# Close codes after which a reconnect would be refused or wrong: credentials expired, no longer entitled, and another
# session of the user in this one's place, which a reconnect would end.
FINAL_CLOSE_CODES = frozenset({4001, 4003, 4005})
# Statuses that another attempt would get again, unlike 429, 503 and other answers of a busy server.
FINAL_STATUSES = frozenset({400, 401, 403, 404, 405, 426})


class TickcastError(Exception):
    """The base class of all errors of this package."""


class ProtocolError(TickcastError):
    """The server sent bytes or text that break version 1 of the protocol."""


class RefusedError(TickcastError):
    """The server refused an HTTP request or an upgrade: `status`, and its `code` and `message`."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"the server answered {status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s

    @property
    def is_final(self) -> bool:
        """True if another attempt would get the same answer, as with invalid credentials."""
        return self.status in FINAL_STATUSES


class RejectedError(TickcastError):
    """The server rejected a request: `code`, and a `message` with the field and the expected value."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class TokenError(TickcastError):
    """The program's function for tokens has failed, or has returned something that is no token."""


class QuoteWarning(UserWarning):
    """A quote that is published is crossed, or has a price or size of 0. It is published all the same."""


class ConcurrentReadError(TickcastError):
    """Two readers of one client at a time: each would get a part of the stream."""

    def __init__(self, other: str) -> None:
        super().__init__(
            f"this client is being read by {other}: expected one reader at a time; "
            'collect(["quote", "trade"]) reads several channels, and each connect() has a stream of its own'
        )


def _count(rows: Any) -> int:
    """The number of rows, of all channels."""
    return sum(map(len, rows.values())) if isinstance(rows, dict) else len(rows)


class RestartedError(TickcastError):
    """The server was restarted during `Client.collect`: `rows` has the rows of the former epoch, with its ids."""

    def __init__(self, rows: Any) -> None:
        super().__init__(f"the server was restarted; this error's `rows` has the {_count(rows)} rows from before")
        self.rows = rows


class RescaledError(TickcastError):
    """The exponents of an instrument changed during `Client.collect`: `rows` has the rows with the former ones."""

    def __init__(self, rows: Any, symbol: str) -> None:
        super().__init__(
            f"the exponents of {symbol} have changed; this error's `rows` has the {_count(rows)} rows from before"
        )
        self.rows = rows
        self.symbol = symbol


class UnreachableError(TickcastError):
    """The server cannot be reached."""


class ClosedError(TickcastError):
    """The connection has ended for good: `code` is the WebSocket close code, 1006 if there was none."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the connection was closed with {code}{': ' + reason if reason else ''}")
        self.code = code
        self.reason = reason

    @property
    def is_final(self) -> bool:
        """True if a reconnect would be refused."""
        return self.code in FINAL_CLOSE_CODES
