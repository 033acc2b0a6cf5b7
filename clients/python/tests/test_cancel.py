"""One position in the stream: nothing is lost or repeated when a read or a request is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from conftest import DEADLINE_S, book, definition, gap, packet, quote, trade, until
from fake import CAUGHT_UP, WELCOME, Fake, Peer, quick

import tickcast
from tickcast import Backoff, Book, ClosedError, Definition, Gap, Quote, RejectedError, Trade

READS = ("records", "events", "packets", "arrays", "collect")


def streaming(*packets: bytes) -> Callable[[Peer], Awaitable[None]]:
    """A server that answers one subscription, sends these packets, and then answers requests."""

    async def script(peer: Peer) -> None:
        await peer.answer()
        for one in packets:
            await peer.socket.send(one)
        await peer.serve()

    return script


@contextlib.asynccontextmanager
async def reading(*packets: bytes, channels: Any = ("trade",)) -> AsyncIterator[tickcast.Client]:
    """A client that has received these packets, and read none of them."""
    async with Fake(streaming(*packets)) as server, tickcast.connect(server.url, inbox_packets=1000) as client:
        await client.subscribe(["*"], channels=channels)
        await until(lambda: client.packets_read == len(packets))
        async with asyncio.timeout(DEADLINE_S):
            yield client


async def read_once(client: tickcast.Client, way: str) -> list[int]:
    """Sequences of the trades of one read."""
    match way:
        case "records":
            record = await anext(client.records())
            return [record.sequence] if isinstance(record, Trade) else []
        case "events":
            event = await anext(client.events())
            return [event.sequence] if isinstance(event, Trade) else []
        case "packets":
            return [one.sequence for one in (await anext(client.packets())).records if isinstance(one, Trade)]
        case "arrays":
            return [*map(int, (await anext(client.arrays())).trade["sequence"])]
        case _:
            return [*map(int, (await client.collect("trade", count=3))["sequence"])]


async def test_a_loop_that_is_left_continues_with_the_next_record() -> None:
    async with reading(packet(definition(), *map(trade, range(1, 11)), flags=CAUGHT_UP), packet(trade(11))) as client:
        seen = []
        for _ in range(3):
            async for one in client:
                seen.append(one.sequence)
                break
        with pytest.raises(ZeroDivisionError):
            async for one in client:
                seen.append(one.sequence)
                _ = 1 // 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                async for one in client:
                    seen.append(one.sequence)
                    await asyncio.Event().wait()
        async for one in client:
            seen.append(one.sequence)
            if one.sequence == 11:
                break
        assert seen == list(range(1, 12))
        assert client.stats["records"] == 11


@pytest.mark.parametrize("first", READS)
@pytest.mark.parametrize("second", READS)
async def test_every_way_to_read_continues_where_another_ended(first: str, second: str) -> None:
    pytest.importorskip("numpy")
    packets = [packet(definition(), *map(trade, range(1, 8)), flags=CAUGHT_UP)]
    packets += [packet(*map(trade, range(start, start + 6))) for start in (8, 14)]
    async with reading(*packets) as client:
        seen: list[int] = []
        way = 0
        while len(seen) < 16:
            seen += await read_once(client, (first, second)[way % 2])
            way += 1
        while len(seen) < 19:
            seen += await read_once(client, "packets")
        assert seen == list(range(1, 20))


async def test_random_reads_lose_and_repeat_nothing() -> None:
    """Reads of all kinds in random order, some of them cancelled, with gaps and states between the trades."""
    pytest.importorskip("numpy")
    seed = 20_261
    rng = random.Random(seed)
    packets, sequence = [packet(definition(), flags=CAUGHT_UP)], 0
    for _ in range(300):
        records = []
        for _ in range(rng.randrange(1, 9)):
            sequence += 1
            records += [trade(sequence)] if rng.random() < 0.9 else [gap(sequence, sequence)]
        packets.append(packet(*records))
    packets.append(packet(*(trade(sequence + more) for more in (1, 2, 3))))
    async with reading(*packets) as client:
        seen: list[int] = []
        while not seen or seen[-1] <= sequence:
            if rng.random() < 0.02:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        await client.collect("trade", count=10_000)
            seen += await read_once(client, rng.choice(READS))
        assert seen == sorted(set(seen)), seed
        assert len(seen) + client.stats["missing"] == seen[-1], seed


@pytest.mark.parametrize("way", ["records", "events", "packets", "arrays"])
async def test_an_iterator_lasts_after_a_timeout(way: str) -> None:
    pytest.importorskip("numpy")

    async def script(peer: Peer) -> None:
        await peer.answer()
        await peer.socket.send(packet(definition(), flags=CAUGHT_UP))
        await peer.answer()
        await peer.socket.send(packet(trade(1), trade(2)))
        await peer.serve()

    async with Fake(script) as server, tickcast.connect(server.url) as client:
        await client.subscribe(["*"])
        source: AsyncIterator[Any] = getattr(client, way)()
        if way != "records":
            await until(lambda: client.packets_read == 1)
            await anext(source)
            if way == "events":
                await anext(source)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(source), 0.02)
        task = asyncio.create_task(anext(source, None))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.ping()
        async with asyncio.timeout(DEADLINE_S):
            one = await anext(source)
            assert one is not None
            if way in ("records", "events"):
                assert [one.sequence, (await anext(source)).sequence] == [1, 2]


async def test_two_readers_share_the_stream() -> None:
    proceed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.answer()
        await proceed.wait()
        await peer.socket.send(packet(definition(), flags=CAUGHT_UP))
        for start in range(1, 200, 5):
            await peer.socket.send(packet(*map(trade, range(start, start + 5))))
        await peer.serve()

    seen: list[int] = []

    async def read(source: AsyncIterator[Any]) -> None:
        while len(seen) < 200:
            seen.append((await anext(source)).sequence)
            await asyncio.sleep(0)

    async with Fake(script) as server, tickcast.connect(server.url) as client:
        await client.subscribe(["*"], channels=["trade"])
        tasks = [asyncio.create_task(read(client.records())) for _ in range(3)]
        await asyncio.sleep(0.02)
        proceed.set()
        await until(lambda: len(seen) >= 200)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert seen == list(range(1, 201))
        assert client.stats["repeated"] == 0


async def test_closing_an_iterator_does_not_end_the_stream() -> None:
    async with reading(packet(definition(), trade(1), trade(2), flags=CAUGHT_UP)) as client:
        async with contextlib.aclosing(client.records()) as source:
            assert (await anext(source)).sequence == 1
        assert await anext(source, None) is None
        assert (await anext(client.records())).sequence == 2


async def test_arrays_return_the_rest_of_a_packet_that_was_read_in_part() -> None:
    pytest.importorskip("numpy")
    mixed = packet(definition(), trade(1), quote(1), book(b"S", [(7, 1, b"B")], 1), trade(5), quote(2), flags=CAUGHT_UP)
    async with reading(mixed, channels=["trade", "quote", "book"]) as client:
        records = client.records()
        kinds = [type(await anext(records)) for _ in range(3)]
        assert kinds == [Trade, Quote, Book]
        gap_before = await anext(records)
        assert isinstance(gap_before, Gap) and (gap_before.from_sequence, gap_before.to_sequence) == (2, 4)
        rest = await anext(client.arrays())
        assert (rest.trade["sequence"].tolist(), rest.quote["sequence"].tolist()) == ([5], [2])
        assert not len(rest.book) and not rest.others


async def test_a_packet_without_records_is_returned_once() -> None:
    pytest.importorskip("numpy")
    empty = [packet(position=number, flags=CAUGHT_UP) for number in range(1, 5)]
    async with reading(*empty, packet(definition(), trade(1), position=5)) as client:
        assert [(await anext(client.packets())).header.position for _ in range(2)] == [1, 2]
        assert (await anext(client.arrays())).header.position == 3
        assert isinstance(await anext(client.events()), Definition)
        assert (await anext(client.packets())).header.position == 5


async def test_collect_ends_directly_after_its_last_row() -> None:
    pytest.importorskip("numpy")
    mixed = packet(definition(), trade(1), quote(1), trade(2), quote(2), trade(3), quote(3), flags=CAUGHT_UP)
    async with reading(mixed, channels=["trade", "quote"]) as client:
        rows = await client.collect("trade", count=2)
        assert rows["sequence"].tolist() == [1, 2]
        assert [one.sequence for one in (await anext(client.packets())).records] == [2, 3, 3]


async def test_a_cancelled_collect_gives_back_its_rows_and_gaps() -> None:
    pytest.importorskip("numpy")
    packets = packet(definition(), trade(1), trade(2), flags=CAUGHT_UP), packet(trade(6), trade(7), position=2)
    async with reading(*packets) as client:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await client.collect("trade", count=99)
        seen = [await anext(client.records()) for _ in range(5)]
        assert [type(one) for one in seen] == [Trade, Trade, Gap, Trade, Trade]
        assert [one.sequence for one in seen if isinstance(one, Trade)] == [1, 2, 6, 7]
        assert (client.stats["records"], client.stats["gaps"], client.stats["missing"]) == (4, 1, 3)


async def test_collect_reports_the_gaps_of_its_channel() -> None:
    pytest.importorskip("numpy")
    packets = packet(definition(), trade(1), quote(1), flags=CAUGHT_UP), packet(gap(2, 8), trade(9), trade(12))
    async with reading(*packets, channels=["trade", "quote"]) as client:
        rows = await client.collect("trade", count=3)
        assert [(one.from_sequence, one.to_sequence) for one in rows.gaps] == [(2, 8), (10, 11)]


async def test_the_records_before_a_broken_one_are_not_lost() -> None:
    whole = packet(definition(), trade(1), trade(2), trade(3), flags=CAUGHT_UP)
    broken = whole[:-64] + b"\0\0" + whole[-62:]
    async with reading(broken) as client:
        assert [(await anext(client.records())).sequence for _ in range(2)] == [1, 2]
        for _ in range(2):
            with pytest.raises(tickcast.ProtocolError, match="record 3 of"):
                await anext(client.records())
    async with reading(broken) as client:
        packet_read = await anext(client.packets())
        assert [type(one) for one in packet_read.records] == [Definition, Trade, Trade]
        for source in (client.packets(), client.arrays()):
            with pytest.raises(tickcast.ProtocolError, match="record 3 of"):
                await anext(source)
    async with reading(broken) as client:
        assert (await anext(client.arrays())).trade["sequence"].tolist() == [1, 2]
        with pytest.raises(tickcast.ProtocolError, match="record 3 of"):
            await client.collect("trade", count=1)


async def test_counters_are_those_of_the_records_read() -> None:
    start = packet(definition(), trade(1), definition(2, "ETH-USD"), trade(1, instrument=2), flags=CAUGHT_UP)
    async with reading(start) as client:
        events = client.events()
        while not isinstance(await anext(events), Definition):
            pass
        assert (list(client.instruments), client.stats["records"]) == (["BTC-USD"], 0)
        while client.stats["records"] < 2:
            await anext(events)
        assert list(client.instruments) == ["BTC-USD", "ETH-USD"]


async def silent_subscription(peer: Peer) -> None:
    """Answers all requests except for the first."""
    await peer.request()
    await peer.serve()


async def test_a_cancelled_subscription_is_ended_at_the_server() -> None:
    async with Fake(silent_subscription) as server, tickcast.connect(server.url) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.subscribe(["A", "B"], channels=["trade"])
        await client.ping()
        requests = server.peers[0].requests
        await until(lambda: len(requests) >= 3)
        assert [(one["op"], one.get("symbols")) for one in requests if one["op"] != "ping"] == [
            ("subscribe", ["A", "B"]),
            ("unsubscribe", ["A", "B"]),
        ]


async def test_a_cancelled_subscription_leaves_others_as_they_were() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer()
        await silent_subscription(peer)

    async with Fake(script) as server, tickcast.connect(server.url) as client:
        await client.subscribe(["A"], channels=["trade", "quote"], conflate_ms=100)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.subscribe(["A", "B"], channels=["quote"])
        again = await client.subscribe(["B"], channels=["quote"])
        sent = [(one["op"], one["channels"], one["symbols"]) for one in server.peers[0].requests]
        assert sent == [
            ("subscribe", ["quote", "trade"], ["A"]),
            ("subscribe", ["quote"], ["A", "B"]),
            ("unsubscribe", ["quote"], ["B"]),
            ("subscribe", ["quote"], ["A"]),
            ("subscribe", ["quote"], ["B"]),
        ]
        restored = server.peers[0].requests[3]
        assert (restored["conflate_ms"], restored["snapshot"]) == (100, False)
        assert again.count == 1


async def test_a_cancelled_subscription_is_not_requested_after_a_reconnect() -> None:
    async def first(peer: Peer) -> None:
        await peer.request()
        await peer.request()
        peer.reset()

    async with Fake(first, Peer.serve) as server, tickcast.connect(server.url, backoff=quick()) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.subscribe(["A"])
        await until(lambda: len(server.peers) == 2 and client.connected)
        await client.ping()
        assert [one["op"] for one in server.peers[1].requests] == ["ping"]


async def test_a_subscription_that_is_rejected_in_part_is_ended_as_a_whole() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer()
        request = await peer.request()
        await peer.send(type="error", id=request["id"], code="limit", message="symbols: too many")
        await peer.serve()

    async with Fake(script) as server, tickcast.connect(server.url) as client:
        with pytest.raises(RejectedError, match="too many"):
            await client.subscribe(["A", "B", "C", "D"], channels=["trade"])
        requests = server.peers[0].requests
        await until(lambda: len(requests) == 3)
        assert (requests[2]["op"], requests[2]["symbols"]) == ("unsubscribe", ["A", "B", "C"])


async def test_a_cancelled_close_is_completed() -> None:
    proceed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.answer()
        request = await peer.request()
        await proceed.wait()
        await peer.send(type="unsubscribed", id=request["id"], count=2)
        await peer.serve()

    async with Fake(script) as server, tickcast.connect(server.url) as client:
        subscription = await client.subscribe(["A", "B"], channels=["quote", "trade"])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await subscription.close()
        proceed.set()
        requests = server.peers[0].requests
        await until(lambda: len(requests) == 3)
        assert [(one["op"], one["channels"]) for one in requests[1:]] == [
            ("unsubscribe", ["quote"]),
            ("unsubscribe", ["trade"]),
        ]
        await subscription.close()
        await client.ping()
        assert len(requests) == 4, "a second close sends nothing"


async def test_a_cancelled_change_of_the_interval_is_completed() -> None:
    proceed = asyncio.Event()

    async def first(peer: Peer) -> None:
        await peer.answer()
        await peer.socket.send(packet(definition(), position=5, flags=CAUGHT_UP))
        await peer.request()
        await proceed.wait()
        await peer.send(type="subscribed", id=peer.requests[-1]["id"], conflate_ms=250, count=1, unknown=[])
        await peer.answer()
        peer.reset()

    async with Fake(first, Peer.serve) as server, tickcast.connect(server.url, backoff=quick()) as client:
        subscription = await client.subscribe(["A"], conflate_ms=100)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await subscription.set_conflate_ms(250)
        proceed.set()
        await until(lambda: subscription.conflate_ms == 250)
        await client.ping()
        await until(lambda: len(server.peers) == 2 and len(server.peers[1].requests) == 1)
        assert server.peers[1].requests[0]["conflate_ms"] == 250


async def test_a_cancelled_ping_leaves_the_client_as_it_was() -> None:
    async with Fake(silent_subscription) as server, tickcast.connect(server.url) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await client.ping()
        assert (await client.ping()).rtt_s >= 0
        assert not client._answers


async def test_a_close_during_a_loss_of_the_connection_raises_nothing() -> None:
    async def first(peer: Peer) -> None:
        await peer.answer()
        await peer.request()
        peer.reset()

    async with Fake(first, Peer.serve) as server, tickcast.connect(server.url, backoff=quick()) as client:
        subscription = await client.subscribe(["A"])
        await subscription.close()
        await until(lambda: len(server.peers) == 2 and client.connected)
        assert server.peers[1].requests == []


async def test_a_name_that_is_subscribed_again_makes_no_gap_after_a_loss() -> None:
    async def first(peer: Peer) -> None:
        await peer.answer()
        await peer.socket.send(packet(definition(), trade(1), flags=CAUGHT_UP))
        await peer.answer()
        peer.reset()

    async def second(peer: Peer) -> None:
        await peer.answer()
        await peer.socket.send(packet(definition(), trade(70), position=9, flags=CAUGHT_UP))
        await peer.serve()

    class Late(Backoff):
        def next_s(self, asked_s: float = 0.0) -> float:
            return 0.5

    async with Fake(first, second) as server, tickcast.connect(server.url, backoff=Late()) as client:
        subscription = await client.subscribe(["BTC-USD"], channels=["trade"])
        await client.ping()
        await until(lambda: not client.connected)
        await subscription.close()
        await client.subscribe(["BTC-USD"], channels=["trade"])
        seen = [await anext(client.records()) for _ in range(2)]
        assert [type(one) for one in seen] == [Trade, Trade]


async def test_a_cancelled_connect_leaves_no_connection() -> None:
    ended = asyncio.Event()

    async def mute(socket: Any) -> None:
        await socket.wait_closed()
        ended.set()

    from websockets.asyncio.server import serve

    async with serve(mute, "127.0.0.1", 0) as listener:
        port = next(iter(listener.sockets)).getsockname()[1]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await tickcast.connect(f"127.0.0.1:{port}")
        async with asyncio.timeout(DEADLINE_S):
            await ended.wait()


async def test_closing_the_client_fails_the_calls_that_wait() -> None:
    async with Fake(silent_subscription) as server:
        client = await tickcast.connect(server.url)
        waiting = asyncio.create_task(client.subscribe(["A"]))
        await until(lambda: len(server.peers[0].requests) == 1)
        await client.close()
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(ClosedError, match="has been closed"):
                await waiting


async def test_a_cancelled_close_of_the_client_is_completed() -> None:
    closed = asyncio.Event()

    async def script(socket: Any) -> None:
        await socket.send(json.dumps(WELCOME))
        await socket.wait_closed()
        closed.set()

    from websockets.asyncio.server import serve

    async with serve(script, "127.0.0.1", 0) as listener:
        client = await tickcast.connect(f"127.0.0.1:{next(iter(listener.sockets)).getsockname()[1]}")
        closing = asyncio.create_task(client.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        async with asyncio.timeout(DEADLINE_S):
            await closed.wait()
            assert await anext(client.records(), None) is None
