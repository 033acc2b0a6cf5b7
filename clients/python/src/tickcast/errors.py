"""What can go wrong. Everything raised here is a `TickcastError`, and says what was wrong and what would be right."""

from __future__ import annotations

from typing import Any

# Coming back would be refused again: the credentials, or what they entitle to, are not good (any more).
FINAL_CLOSE_CODES = frozenset({4001, 4003})
# Another try with the same request gets the same answer, unlike with 429, 503 and other answers of a busy server.
FINAL_STATUSES = frozenset({400, 401, 403, 404, 405, 426})


class TickcastError(Exception):
    """The parent of all errors of this package."""


class ProtocolError(TickcastError):
    """The server sent what is not version 1 of the protocol."""


class RefusedError(TickcastError):
    """The server answered with an HTTP status other than the one wanted: `status`, and its `code` and `message`."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"the server answers {status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s

    @property
    def is_final(self) -> bool:
        """True where another try would get the same answer, as with credentials that are not good."""
        return self.status in FINAL_STATUSES


class RejectedError(TickcastError):
    """The server does not take a request: `code` and `message` say which field, and what would be right."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class RestartedError(TickcastError):
    """The server was started anew amid a collection: `rows` is what came before, whose ids mean something else now."""

    def __init__(self, rows: Any) -> None:
        super().__init__(f"the server was started anew; what came before has {len(rows)} rows, in this error's `rows`")
        self.rows = rows


class UnreachableError(TickcastError):
    """No connection to the server comes about."""


class ClosedError(TickcastError):
    """The connection has ended for good: `code` is the WebSocket close code, 1006 where there was none."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the connection was closed with {code}{': ' + reason if reason else ''}")
        self.code = code
        self.reason = reason

    @property
    def is_final(self) -> bool:
        """True where coming back would be refused again."""
        return self.code in FINAL_CLOSE_CODES
