"""The client without asyncio: the same calls and the same stream, from scripts, threads and notebooks."""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import DEADLINE_S, Start, definition, gap, packet, quote, trade
from fake import CAUGHT_UP, Fake, Peer

import tickcast
from tickcast import ClosedError, ConcurrentReadError, Gap, Quote, RefusedError, Trade, sync

TOKEN = "test-publish-token"


def streaming(*packets: bytes) -> Callable[[Peer], Any]:
    async def script(peer: Peer) -> None:
        await peer.answer()
        for one in packets:
            await peer.socket.send(one)
        await peer.serve()

    return script


@pytest.fixture
def reading() -> Iterator[Callable[..., sync.Client]]:
    """Opens clients that have received some packets, and read none of them; the server is in a thread of its own."""
    with sync.Loop() as loop:
        servers: list[Fake] = []
        clients: list[sync.Client] = []

        def opened(*packets: bytes) -> sync.Client:
            servers.append(loop.run(Fake(streaming(*packets)).__aenter__()))
            client = sync.connect(servers[-1].url, inbox_packets=1000)
            clients.append(client)
            client.subscribe(["*"], channels=["quote", "trade"])
            wait_until(lambda: client._of.packets_read == len(packets))
            return client

        yield opened
        for client in clients:
            client.close()
        for server in servers:
            loop.run(server.__aexit__())


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def trades(first: int, last: int) -> bytes:
    return packet(*map(trade, range(first, last + 1)))


def test_every_way_to_read_continues_where_another_ended(reading: Callable[..., sync.Client]) -> None:
    pytest.importorskip("numpy")
    client = reading(packet(definition(), flags=CAUGHT_UP), *(trades(at, at + 4) for at in range(1, 100, 5)))
    seen: list[int] = []
    for record in client:
        seen.append(record.sequence)
        if len(seen) == 3:
            break
    seen += [int(one) for one in client.collect("trade", count=4)["sequence"]]
    seen += [one.sequence for one in next(client.packets()).records]
    seen += [int(one) for one in next(client.arrays()).trade["sequence"]]
    seen.append(next(event.sequence for event in client.events() if isinstance(event, Trade)))
    seen += [int(one) for one in next(client.batches(["trade"], seconds=0.05))["trade"]["sequence"]]
    assert seen == list(range(1, 101))
    assert client.stats["records"] == 100 and client.instruments["BTC-USD"].px_exp == -2
    assert client.scales.directory and client.state() is tickcast.State.LIVE and client.connected


def test_a_read_that_times_out_can_be_repeated(reading: Callable[..., sync.Client]) -> None:
    client = reading(packet(definition(), quote(1), definition(2, "ETH"), gap(1, 2), trade(3), flags=CAUGHT_UP))
    records = client.records(timeout_s=0.05)
    assert [type(next(records)) for _ in range(3)] == [Quote, Gap, Trade]
    for _ in range(2):
        with pytest.raises(TimeoutError):
            next(records)


def test_a_loop_ends_with_the_client(reading: Callable[..., sync.Client]) -> None:
    client = reading(packet(definition(), trade(1), flags=CAUGHT_UP))
    seen = []
    for record in client:
        seen.append(record.sequence)
        client._run(client._of.close())
    assert seen == [1]
    client.close()
    with pytest.raises(ClosedError, match="has been closed"):
        client.subscribe(["*"])
    assert not [one for one in threading.enumerate() if one is client._loop._thread]


def test_a_second_thread_that_reads_is_refused(reading: Callable[..., sync.Client]) -> None:
    client = reading(packet(definition(), trade(1), flags=CAUGHT_UP))
    first: list[Any] = []

    def collect() -> None:
        first.append(client.collect("trade", count=2, seconds=0.5))

    pytest.importorskip("numpy")
    thread = threading.Thread(target=collect)
    thread.start()
    wait_until(client._reading._lock.locked)
    for read in (lambda: next(iter(client)), lambda: client.collect("quote", count=1)):
        with pytest.raises(ConcurrentReadError, match="by another thread: expected one reader at a time"):
            read()
    thread.join()
    assert len(first[0]) == 1


def test_an_interrupted_wait_loses_nothing(reading: Callable[..., sync.Client]) -> None:
    """Ctrl-C in a collect: what it has taken comes next."""
    pytest.importorskip("numpy")
    client = reading(packet(definition(), flags=CAUGHT_UP), trades(1, 5), trades(6, 9))
    main = threading.main_thread().ident
    assert main is not None and threading.current_thread() is threading.main_thread()

    def interrupt() -> None:
        wait_until(lambda: not len(client._of._reader))
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        client.collect("trade", count=100)
    thread.join()
    assert [int(one) for one in client.collect("trade", count=9)["sequence"]] == list(range(1, 10))


def program(url: str) -> list[Any]:
    """A script of a feed and of its reader."""
    with sync.publish(TOKEN, url, heartbeat_s=1) as publisher, sync.connect(url) as client:
        publisher.define("MINE-USD", px_exp=-2, sz_exp=-3, venue="me")
        with client.subscribe(["MINE-USD", "NOPE"], channels=["quote", "trade", "book"]) as subscription:
            assert (subscription.count, subscription.unknown) == (1, ["NOPE"])
            assert subscription.symbols == ("MINE-USD", "NOPE")
            subscription.set_conflate_ms(100)
            assert subscription.conflate_ms == 100 and subscription.channels == ("quote", "trade", "book")
            publisher.quote("MINE-USD", bid="1.25", ask="1.26")
            publisher.book("MINE-USD", bids=[("1.25", 1)], snapshot=True)
            publisher.trade("MINE-USD", "1.25", 1, side="buy")
            publisher.heartbeat()
            publisher.flush()
            tables = client.collect(["quote", "trade", "book"], count=3)
        publisher.publish_frame("trade", {"price": [1.5], "size": [2]}, symbol="MINE-USD")
        publisher.flush()
        wait_until(lambda: client.snapshot("MINE-USD")["trade"]["px"] == "1.50")
        wait_until(lambda: client.bars("MINE-USD", interval_s=3600)["close"][-1:] == ["1.50"])
        assert sync.bars("MINE-USD", url)["close"][-1] == "1.50"
        assert sync.trades("MINE-USD", url)["px"] == client.trades("MINE-USD")["px"]
        assert [one["symbol"] for one in sync.instruments(url)] == ["MINE-USD"]
        assert sync.snapshot("MINE-USD", url)["trade"]["side"] == "N"
        assert client.ping().rtt_s > 0 and client.version and client.delay_s == 0
        with pytest.raises(ValueError, match=r"MINE-USD: bid: '1\.001' has too many decimals"):
            publisher.quote("MINE-USD", bid="1.001")
    with pytest.raises(RefusedError):
        sync.publish("wrong", url)
    with pytest.raises(TypeError, match="conflate_ms"):
        sync.connect(url, conflate_ms="1")  # type: ignore[arg-type]
    return [len(rows) for rows in tables.values()]


async def test_a_script_publishes_and_reads(start: Start) -> None:
    pytest.importorskip("numpy")
    server = await start("--feed", "none", "--publish-token", TOKEN)
    assert await asyncio.to_thread(program, server.url) == [1, 1, 1]


async def test_a_notebook_with_a_running_event_loop_can_use_it(start: Start) -> None:
    server = await start("--feed", "sim:instruments=2,rate=100,seed=1")
    with sync.connect(server.url) as client:
        client.subscribe(["*"], channels=["quote"])
        assert isinstance(next(iter(client)), Quote)
    assert len(sync.instruments(server.url)) == 2


def test_all_calls_are_there() -> None:
    """What the asyncio objects have, for the programs of users."""
    internal = {"set_interval", "unsubscribe", "open", "ready", "packets_read", "bytes_read"}
    for owner, of in ((sync.Client, tickcast.Client), (sync.Publisher, tickcast.Publisher)):
        public = {name for name in dir(of) if not name.startswith("_")} - internal
        assert public <= set(dir(owner)), public - set(dir(owner))
    for name in {name for name in dir(tickcast.Subscription) if not name.startswith("_")}:
        assert hasattr(sync.Subscription, name), name
    assert inspect.signature(sync.connect) == inspect.signature(tickcast.connect)
    assert not inspect.iscoroutinefunction(sync.Publisher.quote) and sync.Publisher.quote.__doc__
