"""Several channels in one call, batches without a break, and a second reader, which would get a part of the stream."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
from conftest import DEADLINE_S, Start, book, definition, gap, packet, quote, trade, until
from fake import CAUGHT_UP, Fake, Peer

import tickcast
from tickcast import Book, ConcurrentReadError, Gap, Quote, RescaledError, RestartedError, Trade

np = pytest.importorskip("numpy")
arrays = pytest.importorskip("tickcast.arrays")

if TYPE_CHECKING:
    from tickcast.client import TableChannel
    from tickcast.collection import Collected

CHANNELS: list[TableChannel] = ["quote", "trade", "book"]
KINDS = ("quote", "trade", "book", "gap")
Script = Callable[[Peer], Awaitable[None]]


def streaming(*packets: bytes) -> Script:
    """A server that answers one subscription, sends these packets, and then answers requests."""

    async def script(peer: Peer) -> None:
        await peer.answer()
        for one in packets:
            await peer.socket.send(one)
        await peer.serve()

    return script


@contextlib.asynccontextmanager
async def reading(*packets: bytes, channels: Any = CHANNELS) -> AsyncIterator[tickcast.Client]:
    """A client that has received these packets, and read none of them."""
    async with Fake(streaming(*packets)) as server, tickcast.connect(server.url, inbox_packets=1000) as client:
        await client.subscribe(["*"], channels=channels)
        await until(lambda: client.packets_read == len(packets))
        async with asyncio.timeout(DEADLINE_S):
            yield client


def sides(sequence: int, kind: bytes = b"D") -> bytes:
    return book(kind, [(99, 1, b"B"), (101, sequence, b"A")], sequence)


MADE: dict[str, Callable[[int], bytes]] = {"quote": quote, "trade": trade, "book": sides}


def mixed(count: int, seed: int) -> list[bytes]:
    """Packets of quotes, trades and books in random order, with a gap of trades before some of them."""
    rng = random.Random(seed)
    last = {"quote": 0, "trade": 0, "book": 0}
    packets = [packet(definition(), sides(1, b"S"), flags=CAUGHT_UP)]
    last["book"] = 1
    for _ in range(count):
        records = []
        for _ in range(rng.randrange(1, 9)):
            channel = rng.choice(CHANNELS)
            last[channel] += 1
            if channel == "trade" and rng.random() < 0.1:
                records.append(gap(last[channel], last[channel]))
                last[channel] += 1
            records.append(MADE[channel](last[channel]))
        packets.append(packet(*records))
    return packets


def records(of: Collected) -> dict[str, list[int]]:
    """The sequences of each channel; one of a book for each record."""
    assert isinstance(of, dict)
    rows: dict[str, Any] = {**of}
    if "book" in rows:
        rows["book"] = rows["book"][np.unique(rows["book"]["book"], return_index=True)[1]]
    return {channel: [int(sequence) for sequence in one["sequence"]] for channel, one in rows.items()}


async def test_channels_are_collected_together() -> None:
    packets = [packet(definition(), quote(1), trade(1), sides(1, b"S"), flags=CAUGHT_UP)]
    packets += [packet(quote(2), trade(2)), packet(sides(2), gap(3, 4), trade(5)), packet(trade(6), quote(3))]
    async with reading(*packets) as client:
        tables = await client.collect(["quote", "trade", "book"], count=8)
        assert records(tables) == {"quote": [1, 2], "trade": [1, 2, 5, 6], "book": [1, 2]}
        assert [(one.from_sequence, one.to_sequence) for one in tables["trade"].gaps] == [(3, 4)]
        assert not tables["quote"].gaps
        assert tables["book"]["book"].tolist() == [0, 0, 1, 1]
        # It ends directly after the last record.
        assert [one.sequence for one in (await anext(client.packets())).records] == [3]


async def test_one_channel_in_a_list_is_a_table_as_well() -> None:
    async with reading(packet(definition(), trade(1), sides(1, b"S"), quote(1), flags=CAUGHT_UP)) as client:
        tables = await client.collect(("book",), count=1)
        assert list(tables) == ["book"] and len(tables["book"]) == 2
        assert len(await client.collect("quote", count=1)) == 1


@pytest.mark.parametrize("seed", range(5))
async def test_what_a_cancelled_call_has_taken_comes_again_in_its_order(seed: int) -> None:
    packets = mixed(40, seed)

    def summary(one: object) -> tuple[Any, ...]:
        if isinstance(one, Gap):
            return "gap", one.from_sequence
        assert isinstance(one, (Quote, Trade, Book))
        return one.TYPE, one.sequence, getattr(one, "levels", None), one.ts_recv, one.flags

    async with reading(*packets) as client:
        expected = [summary(one) async for one in received(client)]
    async with reading(*packets) as client:
        for count in (10_000, 12_000):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await client.collect(["quote", "trade", "book"], count=count)
        given = [summary(one) async for one in received(client)]
    assert given == expected, seed
    assert len(given) > 100


async def test_repeated_records_do_not_change_the_order_of_what_comes_again() -> None:
    packets = [packet(definition(), *map(trade, range(1, 6)), flags=CAUGHT_UP)]
    packets += [packet(quote(1), trade(5), quote(2), trade(6), quote(3), trade(7))]
    for read in ("collect", "batches"):
        async with reading(*packets, channels=["quote", "trade"]) as client:
            await client.collect("trade", count=5)
            task: asyncio.Future[object] = asyncio.ensure_future(
                client.collect(["quote", "trade"], count=9)
                if read == "collect"
                else anext(client.batches(["quote", "trade"], seconds=DEADLINE_S))
            )
            await until(lambda client=client: not len(client._reader))  # type: ignore[misc]
            task.cancel()
            await asyncio.wait({task})
            given = [(one.TYPE, one.sequence) async for one in received(client)]
            assert given == [("quote", 1), ("quote", 2), ("trade", 6), ("quote", 3), ("trade", 7)], read


async def received(client: tickcast.Client) -> AsyncIterator[tickcast.AnyRecord]:
    """The records of channels, and gaps, of the packets that have been received."""
    while len(client._reader):
        for one in (await anext(client.packets())).records:
            if one.TYPE in KINDS:
                yield one


async def test_a_call_without_a_count_begins_with_the_books_as_they_are() -> None:
    """What came before is skipped, and the changes of a book since its snapshot are not."""
    packets = [packet(definition(), quote(1), trade(1), sides(1), sides(2, b"S"), flags=CAUGHT_UP)]
    packets += [packet(sides(3), quote(2)), packet(quote(3), trade(2), book(b"D", [], 4))]
    async with reading(*packets) as client:
        tables = await client.collect(CHANNELS, seconds=0.05)
        assert records(tables) == {"quote": [3], "trade": [], "book": [2, 3, 4]}
        assert tables["book"]["kind"].tolist() == [b"S", b"S", b"D", b"D", b"D"]
        assert int(tables["book"]["px"][-1]) == arrays.ABSENT, "a record without levels has a row"


async def test_batches_follow_each_other_without_a_break() -> None:
    async with reading(*mixed(300, 7)) as client:
        seen: dict[str, list[int]] = {channel: [] for channel in CHANNELS}
        gaps = 0
        batches = client.batches(["quote", "trade", "book"], seconds=0.01)
        while not len(seen["trade"]) or len(client._reader):
            tables = await anext(batches)
            gaps += len(tables["trade"].gaps)
            for channel, sequences in records(tables).items():
                seen[channel] += sequences
        assert seen["quote"] == list(range(1, seen["quote"][-1] + 1))
        assert seen["book"] == list(range(1, seen["book"][-1] + 1))
        assert gaps > 5 and len(seen["trade"]) + gaps == seen["trade"][-1]
        assert records(await anext(batches)) == {"quote": [], "trade": [], "book": []}


async def test_a_batch_ends_where_the_exponents_or_the_server_change() -> None:
    packets = [packet(definition(), trade(1), flags=CAUGHT_UP), packet(definition(px_exp=-4), trade(2, 10_000))]
    packets += [packet(definition(), trade(1, 300), epoch=8)]
    async with reading(*packets, channels=["trade"]) as client:
        prices = []
        async for rows in client.batches("trade", seconds=0.02):
            assert rows.scales is not None
            prices.append(rows.scales.floats(rows, "px").tolist())
            if len(prices) == 3:
                break
        assert prices == [[1.0], [1.0], [3.0]]
    async with reading(*packets, channels=["trade"]) as client:
        with pytest.raises(
            RescaledError, match=r"the exponents of BTC-USD have changed; .* has the 1 rows"
        ) as rescaled:
            await client.collect(["trade"], count=3)
        with pytest.raises(RestartedError, match=r"the server was restarted; .* has the 1 rows") as restarted:
            await client.collect(["trade"], count=3)
        assert records(rescaled.value.rows) == {"trade": [1]} and records(restarted.value.rows) == {"trade": [2]}
        assert records(await client.collect(["trade"], count=1)) == {"trade": [1]}


async def test_batches_end_with_the_client() -> None:
    async with reading(packet(definition(), trade(1), flags=CAUGHT_UP)) as client:
        batches = client.batches("trade", seconds=DEADLINE_S)
        await client.close()
        assert [len(rows) async for rows in batches] == [1]


# ---- a second reader


async def loop(client: tickcast.Client, into: list[int]) -> None:
    async for one in client:
        into.append(one.sequence)
        await asyncio.sleep(0)


async def test_two_collects_at_a_time_are_refused() -> None:
    async with reading(packet(definition(), quote(1), trade(1), flags=CAUGHT_UP)) as client:
        first = asyncio.create_task(client.collect("quote", seconds=DEADLINE_S, count=2), name="the first")
        await until(lambda: not len(client._reader))
        with pytest.raises(
            ConcurrentReadError, match=r"by the task 'the first': expected one reader at a time; collect"
        ):
            await client.collect("trade", count=1)
        with pytest.raises(ConcurrentReadError, match="the first"):
            await anext(client.records())
        first.cancel()
        await asyncio.wait({first})
        assert len(await client.collect("quote", count=1)) == 1


async def test_two_loops_at_a_time_are_refused_also_if_none_waits() -> None:
    """Neither loop waits for a record while the other one reads: each would get every second one."""
    packets = [packet(definition(), flags=CAUGHT_UP), *(packet(trade(sequence)) for sequence in range(1, 201))]
    async with reading(*packets) as client:
        seen: tuple[list[int], list[int]] = ([], [])
        loops = [asyncio.create_task(loop(client, into)) for into in seen]
        done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
        assert isinstance(done.pop().exception(), ConcurrentReadError)
        await until(lambda: not len(client._reader))
        for one in loops:
            one.cancel()
        await asyncio.wait(loops)
        assert sorted(seen[0] + seen[1]) == list(range(1, 201)), "nothing is lost"
        assert min(map(len, seen)) <= 2, "one loop is ended at its second read"


async def test_a_task_continues_where_an_ended_one_has_read() -> None:
    """A program may read in tasks that follow each other, as `asyncio.wait_for` does."""
    packets = [packet(definition(), flags=CAUGHT_UP), *(packet(trade(sequence)) for sequence in range(1, 10))]
    async with reading(*packets, channels=["trade"]) as client:
        seen, tasks = [], []
        for _ in range(3):
            seen.append(int((await asyncio.wait_for(client.collect("trade", count=1), DEADLINE_S))["sequence"][0]))
            seen.append((await anext(client.records())).sequence)
            # Tasks are kept, as those of a program may be.
            tasks.append(asyncio.create_task(client.collect("trade", count=1)))
            seen.append(int((await tasks[-1])["sequence"][0]))
        assert seen == list(range(1, 10))


async def test_a_market_is_collected_whole(start: Start) -> None:
    """The channels of a real server in one call: no row is conflated, missing or repeated."""
    server = await start("--feed", "sim:instruments=20,rate=2000,seed=1")
    async with tickcast.connect(server.url) as client, asyncio.timeout(DEADLINE_S):
        await client.subscribe(["*"], channels=["quote", "trade", "ticker", "book"])
        tables = await client.collect(["quote", "trade", "ticker", "book"], count=5000)
        assert sum(len(one) for one in records(tables).values()) == 5000
        for channel, rows in tables.items():
            assert len(rows) > 20 and not rows.gaps, channel
            for instrument in np.unique(rows["instrument"]):
                sequences = np.unique(rows["sequence"][rows["instrument"] == instrument])
                assert (np.diff(sequences.astype(np.int64)) == 1).all(), channel
        assert client.stats["missing"] == client.stats["conflated"] == 0


def test_errors_count_the_rows_of_all_channels() -> None:
    rows = {"quote": [1, 2], "trade": [3]}
    assert "the 3 rows from before" in str(RestartedError(rows))
    assert "the 3 rows from before" in str(RescaledError(rows, "A")) and "the 2 rows" in str(RestartedError([1, 2]))
