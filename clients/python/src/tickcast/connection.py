"""Opens one WebSocket connection, and turns failures into the errors of this package."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.frames import Frame

from . import arguments
from .errors import ClosedError, UnreachableError
from .http import refusal
from .tokens import Tokens, bearer

# Far above the largest packet that a server makes.
MESSAGE_BYTES_MAX = 64 * 1024 * 1024


class _Secrets(logging.Filter):
    """Leaves tokens out of what the library logs of a connection, which it does at the level DEBUG."""

    def filter(self, record: logging.LogRecord) -> bool:
        match record.args:
            case (str(name), str()) if name.lower() in ("authorization", "cookie", "proxy-authorization"):
                record.args = (name, "[not logged]")
            case (Frame(data=data),) if b'"auth"' in bytes(data):
                record.args = ("a message with a token",)
        return True


_wire_logger = logging.getLogger("tickcast.wire")
_wire_logger.addFilter(_Secrets())


@dataclass(slots=True)
class Endpoint:
    """A URL, and the options of connecting to it."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    compression: bool = False
    tls: ssl.SSLContext | None = None
    open_timeout_s: float = 10.0
    subprotocol: str | None = "tickcast.v1"
    tokens: Tokens = field(default_factory=lambda: Tokens(None))

    def checked(self) -> Endpoint:
        """Raises `ValueError` or `TypeError` for options with which no connection can be opened."""
        self.headers = arguments.headers("headers", self.headers)
        if self.tokens.is_given and any(name.lower() == "authorization" for name in self.headers):
            raise ValueError("token: given beside an Authorization in headers: expected one of them")
        arguments.boolean("compression", self.compression)
        if self.tls is not None and not isinstance(cast("object", self.tls), ssl.SSLContext):
            raise TypeError(f"tls: {arguments.shown(self.tls)}: expected an ssl.SSLContext, or None")
        if self.tls is not None and not self.url.startswith("wss:"):
            raise ValueError(f"tls: given for {arguments.shown(self.url)}: expected a wss:// URL")
        self.open_timeout_s = arguments.seconds("open_timeout_s", self.open_timeout_s)
        return self

    async def open(self) -> ClientConnection:
        """Connects and upgrades. Raises `RefusedError`, `UnreachableError` and `TokenError`."""
        token = await self.tokens.obtain()
        options: dict[str, Any] = {"ssl": self.tls} if self.tls is not None else {}
        if self.subprotocol is not None:
            options["subprotocols"] = [self.subprotocol]
        try:
            return await open_socket(
                self.url,
                additional_headers={**self.headers, **bearer(token)},
                compression="deflate" if self.compression else None,
                open_timeout=self.open_timeout_s,
                close_timeout=2.0,
                max_size=MESSAGE_BYTES_MAX,
                logger=_wire_logger,
                **options,
            )
        except InvalidStatus as error:
            answer = error.response
            raise refusal(answer.status_code, bytes(answer.body or b""), answer.headers.get("Retry-After")) from None
        except (InvalidHandshake, InvalidURI) as error:
            raise UnreachableError(f"{self.url}: {error}; is it a tickcast server?") from error
        except TimeoutError:
            raise UnreachableError(f"{self.url}: no answer within {self.open_timeout_s} s") from None
        except OSError as error:
            raise UnreachableError(f"{self.url}: {error}; is the server running?") from error


def closed(error: ConnectionClosed) -> ClosedError:
    """The close code and reason of a connection; 1006 if no close frame came."""
    if error.rcvd is None:
        return ClosedError(1006, "no close frame received")
    return ClosedError(error.rcvd.code, error.rcvd.reason)
