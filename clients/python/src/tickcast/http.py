"""The server's HTTP endpoints: the directory, the last values of an instrument, bars, newest trades.

Each is one GET in a thread of its own, so that it does not block the event loop.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from . import arguments
from .errors import RefusedError, UnreachableError
from .extras import required
from .tokens import bearer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas
    import polars
    import pyarrow

DEFAULT_URL = "ws://127.0.0.1:9001"
TIMEOUT_S = 20.0
_PLAIN = {"ws": "http", "wss": "https", "http": "http", "https": "https"}
_SOCKET = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


def stream_url(url: str, path: str = "/v1/stream") -> str:
    """The WebSocket URL of `HOST:PORT`, or of a ws, wss, http or https URL; `path` is used if the URL has none."""
    expected = "ws://HOST:PORT, or wss://HOST:PORT for a server behind TLS"
    given = arguments.text("url", url, expected)
    try:
        parts = urlsplit(given if "://" in given else f"ws://{given}")
        # The port is read when it is asked for.
        is_valid = parts.scheme in _SOCKET and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_valid = False
    if not is_valid or re.search(r"[\s\x00-\x1f\x7f]", given):
        raise ValueError(f"url: invalid URL {arguments.shown(url)}: expected {expected}")
    at = parts.path if parts.path not in ("", "/") else path
    return urlunsplit((_SOCKET[parts.scheme], parts.netloc, at, parts.query, ""))


def plain_url(url: str, path: str) -> str:
    """The URL of an HTTP endpoint of the same server. A path before `/v1/` (as behind a proxy) is kept."""
    parts = urlsplit(stream_url(url))
    before = parts.path.partition("/v1/")[0] if "/v1/" in parts.path else ""
    return urlunsplit((_PLAIN[parts.scheme], parts.netloc, before + path, "", ""))


def retry_after_s(value: str | None) -> float | None:
    """The seconds of a Retry-After header; `None` for a date, or without the header."""
    return float(value) if value is not None and value.strip().isdigit() else None


def refusal(status: int, body: bytes, retry_after: str | None) -> RefusedError:
    """The error of a refusal, with a body like `{"error":{"code":"..","message":".."}}` or any other."""
    try:
        fields = json.loads(body)["error"]
        code, message = str(fields["code"]), str(fields["message"])
    except (ValueError, KeyError, TypeError):
        code, message = "error", body[:200].decode("utf-8", "replace").strip()
    return RefusedError(status, code, message, retry_after_s(retry_after))


def _get(url: str, headers: Mapping[str, str], tls: ssl.SSLContext | None, token: str | None) -> Any:
    request = urllib.request.Request(url, headers={"Accept": "application/json", **headers})
    for name, value in bearer(token).items():
        # Not for another server that an answer leads to.
        request.add_unredirected_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=tls) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            raise refusal(error.code, error.read(), error.headers.get("Retry-After")) from None
    except ValueError as error:
        raise UnreachableError(f"{url}: the answer is not JSON; is it a tickcast server?") from error
    except OSError as error:
        raise UnreachableError(f"{url}: {getattr(error, 'reason', error)}; is the server running?") from error


async def get(
    url: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    query: Mapping[str, int | str] | None = None,
    token: str | None = None,
) -> Any:
    """The JSON of an endpoint. Raises `RefusedError` and `UnreachableError`."""
    if tls is not None and not isinstance(cast("object", tls), ssl.SSLContext):
        raise TypeError(f"tls: {arguments.shown(tls)}: expected an ssl.SSLContext, or None")
    whole = plain_url(url, path) + (f"?{urlencode(query)}" if query else "")
    return await asyncio.to_thread(_get, whole, arguments.headers("headers", headers), tls, token)


def _segment(symbol: str) -> str:
    """A symbol as a segment of a path."""
    return quote(arguments.symbol("symbol", symbol), safe="")


async def instruments(
    url: str = DEFAULT_URL,
    *,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    token: str | None = None,
) -> list[dict[str, Any]]:
    """The server's directory: symbol, venue, exponents and steps of each instrument."""
    return cast("list[dict[str, Any]]", (await get(url, "/v1/instruments", headers, tls, token=token))["instruments"])


async def snapshot(
    symbol: str,
    url: str = DEFAULT_URL,
    *,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    token: str | None = None,
) -> dict[str, Any]:
    """The last values of an instrument, by channel, with prices and sizes as decimal text.

    Raises `RefusedError` with the status 404 for an unknown symbol.
    """
    return cast("dict[str, Any]", await get(url, f"/v1/snapshot/{_segment(symbol)}", headers, tls, token=token))


class Bars(dict[str, Any]):
    """The columns of bars, oldest first, and their `symbol` and `interval_s`.

    Prices are decimal text, or floats in numpy arrays after `as_arrays`. Frames are made of both.
    """

    symbol = ""

    def as_arrays(self) -> Bars:
        """The columns as numpy arrays: times as datetime64[s], prices as float64."""
        columns = Bars(bar_arrays(self))
        columns.symbol = str(self.get("symbol", ""))
        return columns

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each bar: symbol, time of its start in UTC, prices and volume as floats, NaN where absent."""
        required("numpy", "to_pandas")
        from . import frames

        return frames.to_pandas(self._columns())

    def to_polars(self) -> polars.DataFrame:
        """The same for polars; null where absent."""
        required("numpy", "to_polars")
        from . import frames

        return frames.to_polars(self._columns())

    def to_arrow(self) -> pyarrow.Table:
        """The same for Arrow; null where absent."""
        required("numpy", "to_arrow")
        from . import frames

        return frames.to_arrow(self._columns())

    def _columns(self) -> dict[str, Any]:
        import numpy as np

        from . import frames

        own = self if self.symbol else self.as_arrays()
        index = np.zeros(len(own["time"]), np.intp)
        return {"symbol": frames.Words([own.symbol], index), **own, "time": own["time"].astype("datetime64[ns]")}


async def bars(
    symbol: str,
    url: str = DEFAULT_URL,
    *,
    interval_s: int = 60,
    limit: int = 1000,
    to: int | None = None,
    session: str | None = None,
    arrays: bool = False,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    token: str | None = None,
) -> Bars:
    """Bars of an instrument's trades and its last quotes, as columns, oldest first.

    `to` is the end in Unix seconds, by default now. `session="venue"` makes bars of the sessions of the instrument's
    venue. The columns are time (start of the bar), open, high, low, close, volume, trades, bid_px and ask_px: prices as
    decimal text, `None` for a bar without a trade or without a quote. With `arrays=True` they are numpy arrays: times
    as datetime64[s], prices as float64. `to_pandas()`, `to_polars()` and `to_arrow()` of the result make frames.
    """
    query: dict[str, int | str] = {"interval_s": arguments.integer("interval_s", interval_s, 1, 86_400)}
    query["limit"] = arguments.integer("limit", limit, 1, 5000)
    if to is not None:
        query["to"] = arguments.integer("to", to, 0, 2**63 - 1, "an int, Unix seconds")
    if session is not None:
        if session != "venue":
            raise ValueError(f"session: {session!r}: expected 'venue' or None")
        query["session"] = session
    arguments.boolean("arrays", arrays)
    answer = Bars(await get(url, f"/v1/bars/{_segment(symbol)}", headers, tls, query, token))
    return answer.as_arrays() if arrays else answer


async def trades(
    symbol: str,
    url: str = DEFAULT_URL,
    *,
    limit: int = 100,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    token: str | None = None,
) -> dict[str, Any]:
    """The newest trades of an instrument, as columns, oldest first.

    The columns are sequence, ts_event and ts_recv (ns since 1970), px and sz (decimal text), side (`B`, `S`) and
    trade_id; `None` where a value is absent. From the Unix second `since` on no trade is missing. What a subscription
    had received before the call is among them: the sequences join the two. Trades that the server has stored before its
    start come first, with the sequence `None`.
    """
    query = {"limit": arguments.integer("limit", limit, 1, 1000)}
    return cast("dict[str, Any]", await get(url, f"/v1/trades/{_segment(symbol)}", headers, tls, query, token))


def bar_arrays(answer: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """The columns of an answer of `/v1/bars` as numpy arrays."""
    required("numpy", "bars")
    import numpy as np

    def floats(column: list[str | None]) -> npt.NDArray[np.float64]:
        return np.array([np.nan if value is None else float(value) for value in column], np.float64)

    columns: dict[str, npt.NDArray[Any]] = {"time": np.array(answer["time"], "datetime64[s]")}
    columns |= {name: floats(answer[name]) for name in ("open", "high", "low", "close", "volume")}
    columns["trades"] = np.array(answer["trades"], np.int64)
    return columns | {name: floats(answer[name]) for name in ("bid_px", "ask_px")}
