"""The publisher on a fake server: cancelled calls, definitions that come again, ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from conftest import DEADLINE_S, until
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

import tickcast
from tickcast import ClosedError, ProtocolError, RejectedError, Trade, wire
from tickcast.publish import FLUSH_BYTES
from tickcast.records import Instrument


class Sink:
    """A server for one publisher: it reads and answers while `is_open` is set."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.answers = asyncio.Event()
        self.answers.set()
        self.reject = ""
        self.messages: list[dict[str, Any] | bytes] = []
        self.socket: ServerConnection | None = None
        self.url = ""
        self.code: int | None = None

    async def serve(self, socket: ServerConnection) -> None:
        self.socket = socket
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.is_open.wait()
                message = await socket.recv()
                self.messages.append(message if isinstance(message, bytes) else json.loads(message))
                if isinstance(message, str):
                    await self.answers.wait()
                    await self.answer(json.loads(message))
        self.code = socket.close_code

    async def answer(self, request: dict[str, Any]) -> None:
        assert self.socket is not None
        symbol = request["instruments"][0]["symbol"]
        fields: dict[str, Any] = {"type": "defined", "instruments": [{"symbol": symbol, "instrument": 1}]}
        if self.reject:
            fields = {"type": "error", "code": "bad_request", "message": self.reject}
        await self.socket.send(json.dumps({**fields, "id": request["id"]}))

    def trades(self, px_exp: int = 0) -> list[Trade]:
        """The trades received, in order; each `define` sets the exponent of those after it."""
        read: list[Trade] = []
        for message in self.messages:
            if isinstance(message, dict):
                px_exp = message["instruments"][0]["px_exp"]
                continue
            records = wire.decode(message, {1: Instrument(1, "X", px_exp=px_exp)})[1]
            read += [one for one in records if isinstance(one, Trade)]
        return read


@contextlib.asynccontextmanager
async def sink(**options: Any) -> AsyncIterator[tuple[Sink, tickcast.Publisher]]:
    """A publisher with the instrument X, connected to a sink."""
    one = Sink()
    async with serve(one.serve, "127.0.0.1", 0, max_queue=2, compression=None) as listener:
        url = f"127.0.0.1:{next(iter(listener.sockets)).getsockname()[1]}"
        async with asyncio.timeout(DEADLINE_S), tickcast.publish("t", url, **options) as publisher:
            await publisher.define("X", px_exp=0, sz_exp=0)
            yield one, publisher


async def test_cancelled_calls_publish_a_record_whole_or_not_at_all() -> None:
    """The server stops reading: calls that come back have published, calls that are cancelled have not."""
    published: list[int] = []
    async with sink() as (one, publisher):
        one.is_open.clear()
        cancelled = 0
        payload = bytes(20_000)
        for number in range(2000):
            try:
                async with asyncio.timeout(0.001):
                    await publisher.raw("X", payload)
                    await publisher.trade("X", number, 1, trade_id=number)
            except TimeoutError:
                cancelled += 1
            else:
                published.append(number)
            if cancelled == 20:
                break
            assert publisher._bytes < FLUSH_BYTES + 30_000, "what is pending is bounded"
        assert cancelled == 20 and len(published) > 10
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await publisher.flush()
        one.is_open.set()
        await publisher.flush()
        await publisher.trade("X", 1, 1, trade_id=5000)
    assert [trade.trade_id for trade in one.trades()] == [*published, 5000]
    assert one.code == 1000


async def test_a_flush_after_a_packet_that_has_just_been_sent_sends_the_next() -> None:
    async with sink() as (one, publisher):
        await publisher.trade("X", 1, 1)
        publisher._start_sending()
        await publisher.trade("X", 2, 1)
        # The task has ended, and what follows its end has not run.
        await asyncio.sleep(0)
        assert publisher._sending is not None and publisher._sending.done()
        await publisher.flush()
        await until(lambda: len(one.trades()) == 2)


async def test_a_cancelled_definition_is_completed() -> None:
    async with sink() as (one, publisher):
        one.answers.clear()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await publisher.define("Y", px_exp=-2, sz_exp=0)
        one.answers.set()
        await until(lambda: "Y" in publisher._instruments)
        await publisher.trade("Y", "1.25", 1)


async def test_records_wait_for_a_definition_that_comes_again() -> None:
    async with sink() as (one, publisher):
        await publisher.trade("X", 7, 1, trade_id=1)
        one.answers.clear()
        defining = asyncio.create_task(publisher.define("X", px_exp=-2, sz_exp=0, tick_size="0.05"))
        await until(lambda: len(one.messages) == 3)
        waiting = asyncio.create_task(publisher.trade("X", 8, 1, trade_id=2))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        one.answers.set()
        again = await defining
        assert (again.px_exp, again.tick_size) == (-2, 5)
        await waiting
        await publisher.trade("X", "8.01", 1, trade_id=3)
    assert [(trade.trade_id, trade.price) for trade in one.trades()] == [
        (1, Decimal(7)),
        (2, Decimal(8)),
        (3, Decimal("8.01")),
    ]


async def test_a_rejected_definition_keeps_the_former_one() -> None:
    async with sink() as (one, publisher):
        one.reject = "instruments[0].px_exp: -2 differs"
        with pytest.raises(RejectedError, match="differs"):
            await publisher.define("X", px_exp=-2, sz_exp=0)
        await publisher.trade("X", 7, 1)
        with pytest.raises(ValueError, match="too many decimals"):
            await publisher.trade("X", "7.5", 1)
    fields = [struct.unpack_from("<q", message, 56)[0] for message in one.messages if isinstance(message, bytes)]
    assert fields == [7]


async def test_the_terms_of_a_definition_are_sent() -> None:
    async with sink() as (one, publisher):
        name = "AAPL  240119C00150000"
        defined = await publisher.define(name, venue="opra", px_exp=-2, sz_exp=0, tick_size="0.05", lot_size=100)
        assert (defined.symbol, defined.venue, defined.tick_size, defined.lot_size) == (name, "opra", 5, 100)
        sent = one.messages[-1]
        assert isinstance(sent, dict) and sent["instruments"] == [
            {"symbol": name, "venue": "opra", "px_exp": -2, "sz_exp": 0, "tick_size": 5, "lot_size": 100}
        ]


async def test_a_cancelled_close_is_completed_with_all_records() -> None:
    async with sink() as (one, publisher):
        await publisher.trade("X", 1, 1, trade_id=9)
        closing = asyncio.create_task(publisher.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        await until(lambda: one.code is not None)
        assert one.code == 1000
        with pytest.raises(ClosedError, match="closed with 1000"):
            await publisher.trade("X", 1, 1)
    assert [trade.trade_id for trade in one.trades()] == [9]


async def test_the_reason_of_a_close_is_raised_by_the_next_calls() -> None:
    async with sink(heartbeat_s=0.01) as (one, publisher):
        assert one.socket is not None
        await one.socket.close(1008, "a bad packet")
        await until(lambda: publisher._ended is not None)
        for call in (publisher.flush, publisher.heartbeat):
            with pytest.raises(ClosedError, match="1008: a bad packet"):
                await call()
        with pytest.raises(ClosedError, match="1008: a bad packet"):
            await publisher.trade("X", 1, 1)


async def test_an_answer_that_is_no_object_is_raised() -> None:
    async with sink() as (one, publisher):
        assert one.socket is not None
        await one.socket.send("[1]")
        await until(lambda: publisher._ended is not None)
        with pytest.raises(ProtocolError, match="no object"):
            await publisher.trade("X", 1, 1)
