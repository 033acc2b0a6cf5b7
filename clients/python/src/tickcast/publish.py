"""A small publisher: instruments are defined by name, values are exact, and records are sent in batches as packets.

The server slows down a publisher that is too fast by TCP's backpressure, and closes one that breaks the rules, with a
reason that the next call raises as `ClosedError`. The publisher does not reconnect by itself: records that were under
way are lost, and only the program can decide what to publish again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Generator, Iterable, Mapping
from decimal import Decimal
from struct import Struct
from types import TracebackType
from typing import Any, TypeAlias

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from . import http, wire
from .connection import Endpoint, closed
from .errors import ClosedError, ProtocolError, RejectedError
from .records import LAST, Instrument

# An exact number. Floats are not exact, and raise TypeError.
Number: TypeAlias = Decimal | int | str

_PACKET = Struct("<BBHIQQ")
_HEADER = Struct("<HBBIQQQ")
_QUOTE = Struct("<4q")
_TRADE = Struct("<qqQc7x")
_TICKER = Struct("<8q")
_BOOK = Struct("<Hc5x")
_LEVEL = Struct("<qqc7x")
_RAW = Struct("<I4x")
# The size at which a packet is sent, far below the server's limit of a message.
FLUSH_BYTES = 32 * 1024
RECORD_BYTES_MAX = 65535 * 8
RECORDS_MAX = 65535


def mantissa(value: Number | None, exponent: int) -> int:
    """The mantissa of a value at an exponent. Raises `ValueError` if it would have to be rounded."""
    if value is None:
        return wire.ABSENT
    if isinstance(value, float):
        raise TypeError(f"{value} is a float, which is not exact: expected an int, a Decimal or a str")
    number = Decimal(value)
    if not number.is_finite():
        raise ValueError(f"{value} is not a finite number")
    sign, digits, at = number.as_tuple()
    shift = int(at) - exponent
    whole = int("".join(map(str, digits)))
    if shift < 0 and whole % 10**-shift:
        raise ValueError(f"{value} has too many decimals: expected a multiple of 10**{exponent}")
    scaled: int = whole * 10**shift if shift >= 0 else whole // 10**-shift
    if scaled >= 2**63:
        raise ValueError(f"{value} is out of range: expected a mantissa below 2**63 at the exponent {exponent}")
    return -scaled if sign else scaled


class Publisher:
    """A connection to `/v1/publish`. `tickcast.publish` makes one."""

    def __init__(self, endpoint: Endpoint, heartbeat_s: float | None = None) -> None:
        if heartbeat_s is not None and heartbeat_s <= 0:
            raise ValueError(f"heartbeat_s: {heartbeat_s} is out of range: expected seconds above 0, or None")
        self._endpoint = endpoint
        self._heartbeat_s = heartbeat_s
        self._heartbeat_task: asyncio.Task[None] | None = None
        self._socket: ClientConnection | None = None
        self._reading: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._next_id = 0
        self._instruments: dict[str, Instrument] = {}
        self._parts: list[bytes] = []
        self._bytes = 0
        self._ended: ClosedError | None = None

    async def open(self) -> Publisher:
        """Connects. Raises `RefusedError` with status 401 for a wrong token. `tickcast.publish` calls it."""
        self._socket = await self._endpoint.open()
        self._reading = asyncio.create_task(self._read_answers(self._socket), name="tickcast publisher")
        if self._heartbeat_s is not None:
            heartbeats = self._send_heartbeats(self._heartbeat_s)
            self._heartbeat_task = asyncio.create_task(heartbeats, name="tickcast publisher's heartbeat")
        return self

    async def close(self) -> None:
        """Sends the pending records and ends the connection: the server then marks its instruments as ended."""
        if self._socket is None:
            return
        if self._heartbeat_task is not None:
            self._heartbeat_task.cancel()
            await asyncio.gather(self._heartbeat_task, return_exceptions=True)
        if self._ended is None:
            await self.flush()
        await self._socket.close()
        if self._reading is not None:
            await self._reading
        self._socket = None

    async def __aenter__(self) -> Publisher:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def define(
        self, symbol: str, *, px_exp: int, sz_exp: int, venue: str = "", tick_size: Number | None = None
    ) -> Instrument:
        """Defines an instrument: prices are multiples of `10**px_exp`, sizes of `10**sz_exp`.

        Raises `RejectedError` if the server rejects it, as with exponents that differ from an earlier definition.
        """
        fields: dict[str, Any] = {"symbol": symbol, "venue": venue, "px_exp": px_exp, "sz_exp": sz_exp}
        if tick_size is not None:
            fields["tick_size"] = mantissa(tick_size, px_exp)
        self._next_id += 1
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[self._next_id] = future
        await self.flush()
        await self._send(json.dumps({"op": "define", "id": self._next_id, "instruments": [fields]}))
        answer = await future
        defined = Instrument(int(answer["instruments"][0]["instrument"]), symbol, venue, px_exp, sz_exp)
        self._instruments[symbol] = defined
        return defined

    async def quote(
        self,
        symbol: str,
        *,
        bid: Number | None = None,
        bid_size: Number | None = None,
        ask: Number | None = None,
        ask_size: Number | None = None,
        ts_event: int = 0,
    ) -> None:
        """Publishes the best bid and offer. A side without arguments is absent."""
        of = self._of(symbol)
        amounts = (mantissa(bid, of.px_exp), mantissa(bid_size, of.sz_exp))
        body = _QUOTE.pack(*amounts, mantissa(ask, of.px_exp), mantissa(ask_size, of.sz_exp))
        await self._push(wire.QUOTE, of, body, ts_event)

    async def trade(
        self, symbol: str, price: Number, size: Number, *, trade_id: int = 0, side: str = "N", ts_event: int = 0
    ) -> None:
        """Publishes a trade. `side` is the aggressor's: `B` buys, `S` sells, `N` unknown."""
        of = self._of(symbol)
        amounts = (mantissa(price, of.px_exp), mantissa(size, of.sz_exp))
        await self._push(wire.TRADE, of, _TRADE.pack(*amounts, trade_id, side.encode()), ts_event)

    async def ticker(self, symbol: str, *, ts_event: int = 0, **amounts: Number | None) -> None:
        """Publishes 24 h statistics: last_px, open_px, high_px, low_px, volume, turnover, bid_px, ask_px."""
        of = self._of(symbol)
        names = ("last_px", "open_px", "high_px", "low_px", "volume", "turnover", "bid_px", "ask_px")
        unknown = set(amounts) - set(names)
        if unknown:
            raise ValueError(f"ticker: unknown {', '.join(sorted(unknown))}: expected some of {', '.join(names)}")
        at = [of.sz_exp if name == "volume" else of.px_exp for name in names]
        values = [mantissa(amounts.get(name), exponent) for name, exponent in zip(names, at, strict=True)]
        await self._push(wire.TICKER, of, _TICKER.pack(*values), ts_event)

    async def book(
        self,
        symbol: str,
        *,
        bids: Iterable[tuple[Number, Number]] = (),
        asks: Iterable[tuple[Number, Number]] = (),
        snapshot: bool = False,
        ts_event: int = 0,
    ) -> None:
        """Publishes levels as (price, size): size 0 removes a level, and `snapshot` replaces the book."""
        of = self._of(symbol)
        levels = [
            _LEVEL.pack(mantissa(px, of.px_exp), mantissa(sz, of.sz_exp), side)
            for entries, side in ((bids, b"B"), (asks, b"A"))
            for px, sz in entries
        ]
        head = _BOOK.pack(len(levels), b"S" if snapshot else b"D")
        await self._push(wire.BOOK, of, head + b"".join(levels), ts_event)

    async def raw(self, symbol: str, payload: bytes, *, ts_event: int = 0) -> None:
        """Publishes bytes that the server does not interpret."""
        body = _RAW.pack(len(payload)) + payload
        await self._push(wire.RAW, self._of(symbol), body + bytes(-len(body) % 8), ts_event)

    async def heartbeat(self) -> None:
        """Sends a heartbeat. The server marks the instruments of a publisher as stale after a silence of its
        `--stale-ms`, by default 10 s."""
        record = _HEADER.pack(wire.HEADER_BYTES // 8, wire.HEARTBEAT, LAST, 0, 0, 0, 0)
        await self._send(_PACKET.pack(wire.VERSION, 0, 1, 0, 0, 0) + record)

    async def _send_heartbeats(self, every_s: float) -> None:
        """Sends heartbeats at an interval. If the connection has ended, the program's next call raises the reason."""
        with contextlib.suppress(ClosedError):
            while True:
                await asyncio.sleep(every_s)
                await self.heartbeat()

    async def flush(self) -> None:
        """Sends the pending records as one packet. This also happens at 32 KiB, in `define` and in `close`."""
        if self._parts:
            head = _PACKET.pack(wire.VERSION, 0, len(self._parts), 0, 0, 0)
            packet = head + b"".join(self._parts)
            self._parts, self._bytes = [], 0
            await self._send(packet)

    def _of(self, symbol: str) -> Instrument:
        if symbol not in self._instruments:
            raise KeyError(
                f"{symbol} is not defined: call `await publisher.define({symbol!r}, px_exp=..., sz_exp=...)` first"
            )
        return self._instruments[symbol]

    async def _push(self, kind: int, of: Instrument, body: bytes, ts_event: int) -> None:
        size = wire.HEADER_BYTES + len(body)
        if size > RECORD_BYTES_MAX:
            raise ValueError(f"record: {size} bytes are too long: expected at most {RECORD_BYTES_MAX}")
        self._parts.append(_HEADER.pack(size // 8, kind, LAST, of.id, 0, ts_event, 0) + body)
        self._bytes += size
        if self._bytes >= FLUSH_BYTES or len(self._parts) >= RECORDS_MAX:
            await self.flush()

    async def _send(self, message: str | bytes) -> None:
        if self._ended is not None:
            raise self._ended
        if self._socket is None:
            raise ClosedError(1000, "this publisher is not open")
        try:
            await self._socket.send(message)
        except ConnectionClosed as error:
            raise closed(error) from None

    async def _read_answers(self, socket: ClientConnection) -> None:
        """Reads the server's answers, and the reason of its close."""
        try:
            while True:
                answer = json.loads(await socket.recv())
                future = self._answers.pop(answer.get("id"), None)
                if future is None or future.done():
                    continue
                if answer.get("type") == "error":
                    future.set_exception(RejectedError(str(answer.get("code")), str(answer.get("message"))))
                else:
                    future.set_result(answer)
        except ConnectionClosed as error:
            self._ended = closed(error)
        except ValueError as error:
            raise ProtocolError(f"answer: invalid JSON: {error}") from error
        finally:
            for future in self._answers.values():
                if not future.done():
                    future.set_exception(self._ended or ClosedError(1006, "the publisher has ended"))


class publish:
    """Publishes to a server: `async with tickcast.publish(token, url) as publisher`.

    `token` is the server's `--publish-token`. `heartbeat_s` is the interval of automatic heartbeats, for a source that
    may be silent for longer than the server's `--stale-ms`; without it, call `Publisher.heartbeat`.
    """

    def __init__(
        self,
        token: str,
        url: str = http.DEFAULT_URL,
        *,
        compression: bool = False,
        headers: Mapping[str, str] | None = None,
        heartbeat_s: float | None = None,
    ) -> None:
        all_headers = {**(headers or {}), "Authorization": f"Bearer {token}"}
        where = http.stream_url(url, "/v1/publish")
        self._publisher = Publisher(Endpoint(where, all_headers, compression, subprotocol=None), heartbeat_s)

    def __await__(self) -> Generator[Any, None, Publisher]:
        return self._publisher.open().__await__()

    async def __aenter__(self) -> Publisher:
        return await self._publisher.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._publisher.close()
