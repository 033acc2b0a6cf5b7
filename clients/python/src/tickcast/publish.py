"""A small publisher: instruments are defined by name, values are exact, and records are sent in batches as packets.

The server slows down a publisher that is too fast by TCP's backpressure, and closes one that breaks the rules, with a
reason that the next call raises as `ClosedError`. The publisher does not reconnect by itself: records that were under
way are lost, and only the program can decide what to publish again.

Arguments are checked before anything is kept or sent. What always holds: a record is published whole and once, or not
at all. A call that is cancelled while it waits for space has published nothing; a message that is being sent is sent by
a task of its own, so that cancelling a call never cuts it. At most one packet is being sent, and one is being filled.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import ssl
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from dataclasses import replace
from struct import Struct
from types import TracebackType
from typing import Any, Literal, TypeVar, cast

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from . import arguments, http, wire
from .arguments import ABSENT, Number, Time, amount, size
from .arguments import mantissa as mantissa
from .connection import Endpoint, closed
from .doubts import Doubts
from .errors import ClosedError, ProtocolError, RejectedError, TickcastError
from .extras import required
from .records import LAST, Instrument

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
# The rows of a frame that are kept at a time.
FRAME_ROWS = 128
RECORD_BYTES_MAX = 65535 * 8
LEVELS_MAX = (RECORD_BYTES_MAX - 40) // wire.LEVEL_BYTES
_TICKER_FIELDS = ("last_px", "open_px", "high_px", "low_px", "volume", "turnover", "bid_px", "ask_px")


Call = TypeVar("Call", bound=Callable[..., Awaitable[Any]])


def _naming_symbol(call: Call) -> Call:
    """The errors of a call name its symbol."""

    @functools.wraps(call)
    async def named(self: Publisher, symbol: str, *args: Any, **options: Any) -> Any:
        try:
            return await call(self, symbol, *args, **options)
        except (TypeError, ValueError) as error:
            if type(error) not in (TypeError, ValueError) or str(error).startswith("symbol: "):
                raise
            raise type(error)(f"{symbol}: {error}") from None

    return cast("Call", named)


class Publisher:
    """A connection to `/v1/publish`. `tickcast.publish` makes one."""

    def __init__(self, endpoint: Endpoint, heartbeat_s: float | None = None) -> None:
        self._endpoint = endpoint
        self._heartbeat_s = None if heartbeat_s is None else arguments.seconds("heartbeat_s", heartbeat_s)
        self._heartbeat_task: asyncio.Task[None] | None = None
        self._socket: ClientConnection | None = None
        self._reading: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._sending: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._next_id = 0
        self._instruments: dict[str, Instrument] = {}
        self._defining: dict[str, asyncio.Task[Instrument]] = {}
        self._parts: list[bytes] = []
        self._count = 0
        self._bytes = 0
        self._doubts = Doubts()
        self._ended: TickcastError | None = None

    async def open(self) -> Publisher:
        """Connects. Raises `RefusedError` with status 401 for a wrong token. `tickcast.publish` calls it."""
        self._socket = await self._endpoint.open()
        self._reading = asyncio.create_task(self._read_answers(self._socket), name="tickcast publisher")
        if self._heartbeat_s is not None:
            heartbeats = self._send_heartbeats(self._heartbeat_s)
            self._heartbeat_task = asyncio.create_task(heartbeats, name="tickcast publisher's heartbeat")
        return self

    async def close(self) -> None:
        """Sends the pending records and ends the connection: the server then marks its instruments as ended.

        If the call is cancelled, this is still completed.
        """
        if self._socket is None:
            return
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(self._socket), name="tickcast publisher's close")
        await asyncio.shield(self._closing)

    async def _close(self, socket: ClientConnection) -> None:
        try:
            if self._heartbeat_task is not None:
                self._heartbeat_task.cancel()
                await asyncio.wait({self._heartbeat_task})
            if self._ended is None:
                await self.flush()
        finally:
            await socket.close()
            if self._reading is not None:
                await asyncio.wait({self._reading})
            self._socket = self._closing = None

    async def __aenter__(self) -> Publisher:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @_naming_symbol
    async def define(
        self,
        symbol: str,
        *,
        px_exp: int,
        sz_exp: int,
        venue: str = "",
        tick_size: Number | None = None,
        lot_size: Number | None = None,
    ) -> Instrument:
        """Defines an instrument: prices are multiples of `10**px_exp`, sizes of `10**sz_exp`.

        Raises `RejectedError` with the reason if the server rejects it. A defined instrument may be defined again with
        other terms if the server accepts that: its records wait meanwhile. A cancelled call is completed.
        """
        px_exp, sz_exp = arguments.exponent("px_exp", px_exp), arguments.exponent("sz_exp", sz_exp)
        steps = arguments.step("tick_size", tick_size, px_exp), arguments.step("lot_size", lot_size, sz_exp)
        terms = Instrument(0, arguments.symbol("symbol", symbol), arguments.venue("venue", venue), px_exp, sz_exp)
        terms = replace(terms, tick_size=steps[0], lot_size=steps[1])
        while (before := self._defining.get(terms.symbol)) is not None:
            await asyncio.wait({before})
        task = asyncio.create_task(self._define(terms), name="tickcast publisher's definition")
        self._defining[terms.symbol] = task
        task.add_done_callback(lambda done: self._defined(terms.symbol, done))
        return await asyncio.shield(task)

    async def _define(self, terms: Instrument) -> Instrument:
        fields: dict[str, Any] = {"symbol": terms.symbol, "venue": terms.venue}
        fields |= {"px_exp": terms.px_exp, "sz_exp": terms.sz_exp}
        steps = {"tick_size": terms.tick_size, "lot_size": terms.lot_size}
        fields |= {name: value for name, value in steps.items() if value is not None}
        self._next_id += 1
        request_id, future = self._next_id, asyncio.get_running_loop().create_future()
        # Records at the former exponents go before.
        await self.flush()
        self._answers[request_id] = future
        try:
            await self._send(json.dumps({"op": "define", "id": request_id, "instruments": [fields]}))
            answer = await future
        finally:
            self._answers.pop(request_id, None)
        defined = replace(terms, id=int(answer["instruments"][0]["instrument"]))
        self._instruments[terms.symbol] = defined
        return defined

    def _defined(self, symbol: str, task: asyncio.Task[Instrument]) -> None:
        del self._defining[symbol]
        if not task.cancelled():
            # It is raised by the call, unless that was cancelled.
            task.exception()

    @_naming_symbol
    async def quote(
        self,
        symbol: str,
        *,
        bid: Number | None = None,
        bid_size: Number | None = None,
        ask: Number | None = None,
        ask_size: Number | None = None,
        ts_event: Time = 0,
    ) -> None:
        """Publishes the best bid and offer. A side without arguments is absent.

        A quote that is crossed, or has a price or size of 0, is published with a `QuoteWarning`, the first time for
        each instrument.
        """

        def body(of: Instrument) -> bytes:
            bids = mantissa(bid, of.px_exp, "bid"), size("bid_size", bid_size, of.sz_exp)
            asks = mantissa(ask, of.px_exp, "ask"), size("ask_size", ask_size, of.sz_exp)
            if 0 in (*bids, *asks) or bids[0] > asks[0] != ABSENT:
                self._doubts.about_quote(of, bids, asks)
            return _QUOTE.pack(*bids, *asks)

        await self._push(wire.QUOTE, symbol, body, ts_event)

    @_naming_symbol
    async def trade(
        self, symbol: str, price: Number, size: Number, *, trade_id: int = 0, side: str = "N", ts_event: Time = 0
    ) -> None:
        """Publishes a trade. `side` is the aggressor's: `B` or `buy`, `S` or `sell`, `N` unknown."""
        letter = arguments.side("side", side).encode()
        number = arguments.integer("trade_id", trade_id, 0, 2**64 - 1)

        def body(of: Instrument) -> bytes:
            amounts = amount("price", price, of.px_exp), amount("size", size, of.sz_exp, signed=False)
            return _TRADE.pack(*amounts, number, letter)

        await self._push(wire.TRADE, symbol, body, ts_event)

    @_naming_symbol
    async def ticker(self, /, symbol: str, *, ts_event: Time = 0, **amounts: Number | None) -> None:
        """Publishes 24 h statistics: last_px, open_px, high_px, low_px, volume, turnover, bid_px, ask_px."""
        unknown = set(amounts) - set(_TICKER_FIELDS)
        if unknown:
            named = ", ".join(sorted(unknown)[:8])
            raise ValueError(f"ticker: unknown {named}: expected some of {', '.join(_TICKER_FIELDS)}")

        def field(name: str, of: Instrument) -> int:
            value = amounts.get(name)
            return size(name, value, of.sz_exp) if name == "volume" else mantissa(value, of.px_exp, name)

        await self._push(
            wire.TICKER, symbol, lambda of: _TICKER.pack(*(field(name, of) for name in _TICKER_FIELDS)), ts_event
        )

    @_naming_symbol
    async def book(
        self,
        symbol: str,
        *,
        bids: Iterable[tuple[Number, Number]] = (),
        asks: Iterable[tuple[Number, Number]] = (),
        snapshot: bool = False,
        ts_event: Time = 0,
    ) -> None:
        """Publishes levels as (price, size): size 0 removes a level, and `snapshot` replaces the book."""
        kind = b"S" if arguments.boolean("snapshot", snapshot) else b"D"
        given = [("bids", b"B", _levels("bids", bids)), ("asks", b"A", _levels("asks", asks))]
        count = sum(len(levels) for _, _, levels in given)
        if count > LEVELS_MAX:
            raise ValueError(f"bids, asks: {count} levels: expected at most {LEVELS_MAX} in one record")

        def body(of: Instrument) -> bytes:
            levels = [
                _LEVEL.pack(
                    amount(f"{name}[{at}] price", px, of.px_exp),
                    amount(f"{name}[{at}] size", sz, of.sz_exp, signed=False),
                    side,
                )
                for name, side, levels in given
                for at, (px, sz) in enumerate(levels)
            ]
            return _BOOK.pack(count, kind) + b"".join(levels)

        await self._push(wire.BOOK, symbol, body, ts_event)

    @_naming_symbol
    async def raw(self, symbol: str, payload: bytes | bytearray | memoryview, *, ts_event: Time = 0) -> None:
        """Publishes bytes that the server does not interpret."""
        if not isinstance(payload, (bytes, bytearray, memoryview)):
            kind = type(payload).__name__
            raise TypeError(f"payload: {arguments.shown(payload)} is of the type {kind}: expected bytes")
        copied = bytes(payload)
        most = RECORD_BYTES_MAX - wire.HEADER_BYTES - 8
        if len(copied) > most:
            raise ValueError(f"payload: {len(copied)} bytes are too long: expected at most {most}")
        whole = _RAW.pack(len(copied)) + copied
        await self._push(wire.RAW, symbol, lambda _: whole + bytes(-len(whole) % 8), ts_event)

    async def publish_frame(
        self,
        channel: Literal["quote", "trade", "ticker"],
        frame: Any,
        *,
        symbol: str | None = None,
        round: bool = False,
    ) -> int:
        """Publishes the rows of a DataFrame of pandas or polars, a Table of Arrow or a dict of columns; returns their
        number.

        The columns have the names of the arguments of `quote`, `trade` and `ticker`, or of a collected frame, and the
        instruments are in a column `symbol`, or are the one of the argument. A float stands for the decimal number that
        it is the nearest float of. Values with more decimals than the instrument are rounded with `round=True`, and
        raise an error otherwise. All rows are checked before the first is published. A call that is cancelled has
        published the first ones, or none. Needs numpy.
        """
        required("numpy", "publish_frame")
        from . import encode, tables

        table = tables.read(channel, frame, symbol)
        is_rounded = arguments.boolean("round", round)
        of = [self._of(one) for one in table.symbols]
        rows = encode.records(table, of, self._doubts, is_rounded=is_rounded)
        self._check_open()
        at = 0
        while at < len(rows):
            await self._until_space(*table.symbols)
            latest = [self._of(one) for one in table.symbols]
            if any(one is not before for one, before in zip(latest, of, strict=True)):
                of, rows = latest, encode.records(table, latest, self._doubts, is_rounded=is_rounded)
            part = rows[at : at + FRAME_ROWS]
            self._keep(part.tobytes(), len(part))
            at += len(part)
        return len(rows)

    async def heartbeat(self) -> None:
        """Sends a heartbeat. The server marks the instruments of a publisher as stale after a silence of its
        `--stale-ms`, by default 10 s."""
        record = _HEADER.pack(wire.HEADER_BYTES // 8, wire.HEARTBEAT, LAST, 0, 0, 0, 0)
        await self._send(_PACKET.pack(wire.VERSION, 0, 1, 0, 0, 0) + record)

    async def _send_heartbeats(self, every_s: float) -> None:
        """Sends heartbeats at an interval. If the connection has ended, the program's next call raises the reason."""
        with contextlib.suppress(TickcastError):
            while True:
                await asyncio.sleep(every_s)
                await self.heartbeat()

    async def flush(self) -> None:
        """Sends the pending records as one packet. This also happens at 32 KiB, in `define` and in `close`.

        If the call is cancelled, the records are still pending or still being sent.
        """
        await self._until_sent()
        # What was pending at the call is in the next packet, which another task may be sending already.
        self._start_sending()
        await self._until_sent()

    def _start_sending(self) -> None:
        """Sends the pending records, if nothing is being sent."""
        if self._parts and self._sending is None:
            head = _PACKET.pack(wire.VERSION, 0, self._count, 0, 0, 0)
            packet = head + b"".join(self._parts)
            self._parts, self._count, self._bytes = [], 0, 0
            self._sending = asyncio.create_task(self._send_whole(packet), name="tickcast publisher's packet")
            self._sending.add_done_callback(self._sent)

    async def _until_sent(self) -> None:
        """Waits until the present packet is sent; raises why it could not be sent."""
        if (sending := self._sending) is not None:
            # `_sent` runs before this returns, also if the task has ended already.
            await asyncio.wait({sending})
            if not sending.cancelled() and (error := sending.exception()) is not None:
                raise error
        self._check_open()

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending = None
        if not task.cancelled() and isinstance(error := task.exception(), ClosedError):
            self._ended = self._ended or error

    async def _push(self, kind: int, symbol: str, body: Callable[[Instrument], bytes], ts_event: object) -> None:
        """Keeps a record, after waiting for space and for a definition of its instrument."""
        at_ns = arguments.time_ns("ts_event", ts_event)
        of = self._of(symbol)
        # Wrong arguments are reported before anything is waited for.
        encoded = body(of)
        self._check_open()
        await self._until_space(symbol)
        if of is not (latest := self._of(symbol)):
            of, encoded = latest, body(latest)
        record = _HEADER.pack((wire.HEADER_BYTES + len(encoded)) // 8, kind, LAST, of.id, 0, at_ns, 0) + encoded
        self._keep(record, 1)

    async def _until_space(self, *symbols: str) -> None:
        """Waits for space, and for the definitions of some symbols."""
        while True:
            defining = {self._defining[one] for one in symbols if one in self._defining}
            if defining:
                await asyncio.wait(defining)
            elif self._bytes >= FLUSH_BYTES:
                await self._until_sent()
                self._start_sending()
            else:
                break
        self._check_open()

    def _keep(self, records: bytes, count: int) -> None:
        """Keeps records for the next packet, and sends it if it is full."""
        self._parts.append(records)
        self._count += count
        self._bytes += len(records)
        if self._bytes >= FLUSH_BYTES:
            self._start_sending()

    def _of(self, symbol: str) -> Instrument:
        name = arguments.symbol("symbol", symbol)
        if name not in self._instruments:
            raise KeyError(
                f"{name} is not defined: call `await publisher.define({name!r}, px_exp=..., sz_exp=...)` first"
            )
        return self._instruments[name]

    def _check_open(self) -> None:
        if self._ended is not None:
            raise self._ended
        if self._socket is None:
            raise ClosedError(1000, "this publisher is not open")

    async def _send(self, message: str | bytes) -> None:
        """Sends a message whole, also if the call is cancelled."""
        self._check_open()
        await asyncio.shield(asyncio.create_task(self._send_whole(message), name="tickcast publisher's message"))

    async def _send_whole(self, message: str | bytes) -> None:
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
                read: Any = json.loads(await socket.recv())
                if not isinstance(read, dict):
                    raise ValueError("no object")
                answer = cast("dict[str, Any]", read)
                future = self._answers.get(answer.get("id", 0))
                if future is None or future.done():
                    continue
                if answer.get("type") == "error":
                    future.set_exception(RejectedError(str(answer.get("code")), str(answer.get("message"))))
                else:
                    future.set_result(answer)
        except ConnectionClosed as error:
            self._ended = closed(error)
        except ValueError as error:
            self._ended = ProtocolError(f"answer: invalid JSON: {error}")
        finally:
            for future in self._answers.values():
                if not future.done():
                    future.set_exception(self._ended or ClosedError(1006, "the publisher has ended"))


def _levels(name: str, levels: object) -> list[tuple[Any, Any]]:
    """The levels of one side as pairs."""
    expected = "a list of levels (price, size)"
    checked: list[tuple[Any, Any]] = []
    for at, level in enumerate(arguments.items(name, levels, expected, LEVELS_MAX)):
        pair = list(arguments.items(f"{name}[{at}]", level, "a level (price, size)", 3))
        if len(pair) != 2:
            raise ValueError(f"{name}[{at}]: {arguments.shown(level)} has {len(pair)} elements: expected (price, size)")
        checked.append((pair[0], pair[1]))
    return checked


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
        tls: ssl.SSLContext | None = None,
        heartbeat_s: float | None = None,
    ) -> None:
        if not arguments.header_value("token", token):
            raise ValueError("token: empty: expected the server's --publish-token")
        all_headers = {**arguments.headers("headers", headers), "Authorization": f"Bearer {token}"}
        where = http.stream_url(url, "/v1/publish")
        endpoint = Endpoint(where, all_headers, compression, tls, subprotocol=None).checked()
        self._publisher = Publisher(endpoint, heartbeat_s)

    def __await__(self) -> Generator[Any, None, Publisher]:
        return self._publisher.open().__await__()

    async def __aenter__(self) -> Publisher:
        return await self._publisher.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._publisher.close()
