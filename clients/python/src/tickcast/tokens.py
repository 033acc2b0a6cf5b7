"""The token of a client: where it comes from, and when another one is worth an attempt.

What always holds: the program's function is called once at a time, within a limit of time; no message and no log line
has a token.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from . import arguments
from .backoff import Backoff
from .errors import ClosedError, RefusedError, RejectedError, TokenError

# The server takes no longer ones.
TOKEN_BYTES_MAX = 8192
# For one call of the program's function.
CALL_S = 30.0
# Refused tokens in a row after which the client ends.
REFUSALS_MAX = 3
_VISIBLE = re.compile(r"[!-~]+")


@dataclass(slots=True, frozen=True)
class TokenRequest:
    """Why a token is asked for, and what the server said.

    `connect`: for a connection. `expiring`: the present one expires soon. `refused`: the last one was refused or has
    expired, and the same one would be refused again.
    """

    reason: Literal["connect", "expiring", "refused"]
    message: str = ""


Provider: TypeAlias = Callable[[TokenRequest], str | Awaitable[str]]
CONNECT = TokenRequest("connect")


class Tokens:
    """A token that does not change, a function for tokens, or none."""

    def __init__(self, given: str | Provider | None) -> None:
        self._function = given if callable(given) else None
        self._fixed = None if given is None or callable(given) else _checked(given)
        self._last = self._fixed
        self._call: asyncio.Task[str] | None = None
        self._refusals = 0
        self.why = CONNECT
        """Why the next token is asked for."""

    @property
    def is_given(self) -> bool:
        """Whether there is a token at all."""
        return self._function is not None or self._fixed is not None

    @property
    def can_change(self) -> bool:
        """Whether another call may bring another token."""
        return self._function is not None

    async def obtain(self) -> str | None:
        """A token for `why`; `None` where the client has none. Raises `TokenError`.

        Calls at the same time share one call of the function, and a call that is cancelled leaves it to the others.
        """
        if self._function is None:
            return self._fixed
        if self._call is None:
            self._call = asyncio.create_task(self._ask(self._function, self.why), name="tickcast token")
            self._call.add_done_callback(self._asked)
        return await asyncio.shield(self._call)

    async def present(self) -> str | None:
        """The token that was used last, or a first one."""
        return self._last if self._last is not None else await self.obtain()

    async def _ask(self, function: Provider, why: TokenRequest) -> str:
        try:
            async with asyncio.timeout(CALL_S):
                token = function(why)
                if inspect.isawaitable(token):
                    token = await token
        except TimeoutError:
            raise TokenError(f"the token function gave no answer within {CALL_S:.0f} s") from None
        except Exception as error:
            raise TokenError(f"the token function has failed: {type(error).__name__}: {error}") from error
        try:
            self._last = _checked(token)
        except (TypeError, ValueError) as error:
            raise TokenError(f"the token function: {error}") from None
        return self._last

    def _asked(self, call: asyncio.Task[str]) -> None:
        self._call = None
        if not call.cancelled():
            # Those that wait for it raise its error.
            call.exception()

    def close(self) -> None:
        """Ends a call of the function that no one waits for any more."""
        if self._call is not None:
            self._call.cancel()

    def accepted(self) -> None:
        """The server has accepted the last token."""
        self._refusals = 0
        self.why = CONNECT

    def expiring(self) -> None:
        """The server has announced that the token expires."""
        self.why = TokenRequest("expiring")

    def may_follow(self, error: RefusedError | RejectedError | ClosedError) -> bool:
        """Notes that a token was refused or has expired. True if another one may be accepted."""
        if isinstance(error, ClosedError):
            is_refusal, message = error.code == 4001, error.reason
        elif isinstance(error, RefusedError):
            is_refusal, message = error.status == 401, error.message
        else:
            is_refusal, message = error.code == "unauthorized", error.message
        if not is_refusal or self._function is None or "revoked" in message:
            return False
        self.why = TokenRequest("refused", message)
        # A token that was accepted and has expired since is no refused one.
        self._refusals += not isinstance(error, ClosedError)
        return self._refusals < REFUSALS_MAX


class Renewal:
    """When to ask for the next token: at once, and later with a back-off where the one before was no progress."""

    def __init__(self) -> None:
        self._attempts = 0
        self._expires_at: float | None = None

    def next_s(self, backoff: Backoff, expires_at: float | None) -> float:
        """Seconds to wait. `expires_at` is that of the present token: a later one than before is progress."""
        before, self._expires_at = self._expires_at, expires_at
        if before is None or expires_at is None or expires_at > before + 1.0:
            self._attempts = 0
        ceiling_s = min(backoff.max_s, 2.0 ** min(self._attempts - 1, 32)) if self._attempts else 0.0
        self._attempts += 1
        return ceiling_s / 2 + backoff.chance.uniform(0.0, ceiling_s / 2)


def check(given: object) -> Tokens:
    """The argument `token`."""
    if given is not None and not isinstance(given, str) and not callable(given):
        raise TypeError(f"token: a value of the type {type(given).__name__}: expected a str, a function, or None")
    return Tokens(cast("str | Provider | None", given))


def bearer(token: str | None) -> dict[str, str]:
    """The header for a token that is a text."""
    return {} if token is None else {"Authorization": f"Bearer {_checked(token)}"}


def _checked(token: object) -> str:
    """A token, which the message does not have."""
    if not isinstance(token, str):
        raise TypeError(f"token: a value of the type {type(token).__name__}: expected a str")
    if len(token) > TOKEN_BYTES_MAX or not _VISIBLE.fullmatch(token):
        raise ValueError(f"token: {len(token)} characters: expected 1 to {TOKEN_BYTES_MAX} visible ASCII characters")
    return arguments.text("token", token)
