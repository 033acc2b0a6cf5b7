"""Against the real server: values, resume after a reset connection, restart, publishing."""

from __future__ import annotations

import asyncio
import signal
from decimal import Decimal
from typing import Any

import pytest
from conftest import DEADLINE_S, Start, until

import tickcast
from tickcast import Backoff, Book, Gap, OrderBook, Quote, RefusedError, RejectedError, State, Status, Ticker, Trade

MARKET = ("--feed", "sim:instruments=20,rate=2000,seed=1")
TOKEN = "test-publish-token"
PUBLISHING = ("--feed", "none", "--publish-token", TOKEN)


def quick() -> Backoff:
    return Backoff(0.05, 0.2)


async def read_until(client: tickcast.Client, latest: dict[str, Any], trade_id: int) -> None:
    """Reads until the trade with this id; `latest` gets the newest record of each type."""
    async with asyncio.timeout(DEADLINE_S):
        async for record in client:
            latest[record.TYPE] = record
            latest.setdefault("trades", []).append(record) if isinstance(record, Trade) else None
            assert not isinstance(record, Gap), record
            if isinstance(record, Trade) and record.trade_id == trade_id:
                return


async def publish_all(publisher: tickcast.Publisher, trade_id: int) -> None:
    px = Decimal(100) + Decimal(trade_id) / 100
    await publisher.quote("MINE-USD", bid=px, bid_size="1.5", ask=px + 1, ask_size=2)
    await publisher.book("MINE-USD", bids=[(px, "1.5"), (px - 1, 3)], asks=[(px + 1, 2)], snapshot=True)
    await publisher.ticker("MINE-USD", last_px=px, high_px=px, volume="12.345")
    await publisher.trade("MINE-USD", px, "0.001", trade_id=trade_id, side="B")
    await publisher.flush()


async def test_values_equal_the_http_snapshot(start: Start) -> None:
    server = await start(*PUBLISHING)
    async with tickcast.publish(TOKEN, server.url) as publisher, tickcast.connect(server.url) as client:
        await publisher.define("MINE-USD", px_exp=-2, sz_exp=-3, venue="me", tick_size="0.01")
        subscription = await client.subscribe(["MINE-USD", "NOPE"], channels=["quote", "trade", "ticker", "book"])
        assert (subscription.count, subscription.unknown) == (1, ["NOPE"])
        await publish_all(publisher, 1)
        await publish_all(publisher, 2)
        latest: dict[str, Any] = {}
        await read_until(client, latest, 2)
        shown = await client.snapshot("MINE-USD")
        for kind in ("quote", "trade", "ticker"):
            assert latest[kind].as_dict(str) | {"flags": None} == shown[kind] | {"flags": None}
        book = OrderBook()
        book.apply(latest["book"])
        assert [[str(px), str(sz)] for px, sz in book.bids()] == shown["book"]["bids"]
        assert shown["quote"]["bid_px"] == "100.02"
        assert client.instruments["MINE-USD"].tick_size == 1
        assert (await tickcast.instruments(server.url))[0]["venue"] == "me"
        assert client.state("MINE-USD") is State.LIVE


async def test_a_reset_connection_resumes_without_a_gap(start: Start) -> None:
    server = await start(*PUBLISHING)
    async with (
        tickcast.publish(TOKEN, server.url) as publisher,
        tickcast.connect(server.url, backoff=quick()) as client,
    ):
        await publisher.define("MINE-USD", px_exp=-2, sz_exp=-3)
        await client.subscribe(["MINE-*"], channels=["quote", "trade", "book"])
        latest: dict[str, Any] = {}
        for kill in range(4):
            for trade_id in range(kill * 50, kill * 50 + 50):
                await publish_all(publisher, trade_id)
            await read_until(client, latest, kill * 50 + 49)
            assert client._socket is not None
            client._socket.transport.abort()
            for trade_id in range(1000 + kill * 50, 1050 + kill * 50):
                await publish_all(publisher, trade_id)
            await read_until(client, latest, 1049 + kill * 50)
        assert [trade.sequence for trade in latest["trades"]] == list(range(1, 401))
        assert client.stats["missing"] == 0
        assert client.stats["reconnects"] == 4
        await until(lambda: client.state() is State.LIVE)
        shown = await client.snapshot("MINE-USD")
        assert latest["quote"].as_dict(str)["bid_px"] == shown["quote"]["bid_px"]


async def test_closing_a_pattern_loses_no_records_of_covered_names(start: Start) -> None:
    server = await start(*PUBLISHING)
    async with (
        tickcast.publish(TOKEN, server.url) as publisher,
        tickcast.connect(server.url, backoff=quick()) as client,
    ):
        await publisher.define("OTHER", px_exp=-2, sz_exp=-3)
        await publisher.define("MINE-USD", px_exp=-2, sz_exp=-3)
        for symbols in (["MINE-USD"], ["OTHER"], ["MINE-USD", "OTHER"]):
            await client.subscribe(symbols, channels=["trade"])
        latest: dict[str, Any] = {}
        for kill in range(4):
            pattern = await client.subscribe(["MINE-*"], channels=["trade"])
            await publish_all(publisher, kill * 3)
            closing = asyncio.create_task(pattern.close())
            await publish_all(publisher, kill * 3 + 1)
            await closing
            await until(lambda: all(one.caught_up for one in client._interests))
            assert client._socket is not None
            client._socket.transport.abort()
            await publish_all(publisher, kill * 3 + 2)
            await read_until(client, latest, kill * 3 + 2)
        assert [trade.trade_id for trade in latest["trades"]] == list(range(12))
        assert client.stats["missing"] == 0


async def test_a_restart_leads_through_stale_and_resyncing_to_live(start: Start) -> None:
    server = await start(*PUBLISHING)
    states: list[str] = []
    async with tickcast.connect(server.url, backoff=quick()) as client:
        publisher = await tickcast.publish(TOKEN, server.url)
        await publisher.define("MINE-USD", px_exp=-2, sz_exp=-3)
        await client.subscribe(["MINE-USD", "*"])
        await publish_all(publisher, 1)
        before: dict[str, Any] = {}
        await read_until(client, before, 1)
        epoch = client.token
        await server.stop(signal.SIGKILL)
        await until(lambda: client.state("MINE-USD") is State.STALE)
        await publisher.close()
        again = await server.start_again()
        try:
            async with tickcast.publish(TOKEN, again.url) as publisher:
                await publisher.define("OTHER", px_exp=0, sz_exp=0)
                await publisher.define("MINE-USD", px_exp=-2, sz_exp=-3)
                await publish_all(publisher, 77)
                async with asyncio.timeout(DEADLINE_S):
                    async for event in client.events():
                        if isinstance(event, tickcast.Connection):
                            states.append(event.state)
                        if isinstance(event, Quote) and event.bid_price == Decimal("100.77"):
                            break
                await until(lambda: client.state("MINE-USD") is State.LIVE)
                assert states[:2] == ["lost", "resyncing"]
                assert client.token is not None and epoch is not None and client.token[0] != epoch[0]
                assert client.instruments["MINE-USD"].id == 2
        finally:
            await again.stop()


async def test_the_end_of_a_publisher_ends_its_instruments(start: Start) -> None:
    server = await start(*PUBLISHING)
    async with tickcast.connect(server.url) as client:
        async with tickcast.publish(TOKEN, server.url) as publisher:
            await publisher.define("MINE-USD", px_exp=-2, sz_exp=-3)
            await client.subscribe(["*"])
            await publish_all(publisher, 1)
            await read_until(client, {}, 1)
        async with asyncio.timeout(DEADLINE_S):
            async for record in client:
                if isinstance(record, Status) and record.symbol == "MINE-USD":
                    break
        assert client.state("MINE-USD") is State.ENDED


@pytest.mark.parametrize("compression", [False, True])
async def test_a_market_is_read_as_records_without_a_gap(start: Start, compression: bool) -> None:
    server = await start(*MARKET, "--compression", "1")
    async with tickcast.connect(server.url, compression=compression) as client:
        await client.subscribe(["*"], channels=["quote", "trade", "ticker", "book"])
        kinds = dict.fromkeys((Quote, Trade, Ticker, Book), 0)
        async with asyncio.timeout(DEADLINE_S):
            async for record in client:
                assert not isinstance(record, Gap), record
                kinds[type(record)] = kinds.get(type(record), 0) + 1
                if min(kinds.values()) >= 50:
                    break
        assert client.stats["missing"] == 0


async def test_a_packet_is_read_in_parts_without_a_loss(start: Start) -> None:
    server = await start(*PUBLISHING)
    async with tickcast.publish(TOKEN, server.url) as publisher, tickcast.connect(server.url) as client:
        await publisher.define("MINE-USD", px_exp=-2, sz_exp=-3)
        await client.subscribe(["MINE-USD"], channels=["trade"])
        for trade_id in range(1, 13):
            await publisher.trade("MINE-USD", 1, 1, trade_id=trade_id)
            if trade_id == 10:
                await publisher.flush()
        await publisher.flush()
        seen: list[int] = []
        while len(seen) < 12:
            with pytest.raises((TimeoutError, LookupError)):
                async with asyncio.timeout(0.05):
                    async for record in client:
                        if isinstance(record, Trade):
                            seen.append(record.trade_id)
                            if len(seen) % 3 == 0:
                                raise LookupError
        assert seen == list(range(1, 13))
        assert client.stats["missing"] == 0


@pytest.mark.parametrize("symbol", ["AAPL  240119C00150000", "A,B", "a/b?c#d%2C&+", "\\,", "\u20ac"])
async def test_symbols_of_the_whole_grammar_are_served(start: Start, symbol: str) -> None:
    server = await start(*PUBLISHING)
    async with tickcast.publish(TOKEN, server.url) as publisher, tickcast.connect(server.url) as client:
        await publisher.define(symbol, px_exp=-2, sz_exp=0, lot_size=100, venue="a b")
        exact = await client.subscribe([symbol], channels=["trade"])
        beginning = await client.subscribe([f"{symbol[:6]}*"], channels=["quote"])
        assert (exact.count, beginning.count, exact.unknown) == (1, 1, [])
        await publisher.quote(symbol, bid=1)
        await publisher.trade(symbol, "1.25", 300)
        await publisher.flush()
        kinds = set()
        async with asyncio.timeout(DEADLINE_S):
            async for record in client:
                kinds.add((type(record), record.symbol))
                if len(kinds) == 2:
                    break
        assert kinds == {(Trade, symbol), (Quote, symbol)}
        assert (client.instruments[symbol].lot_size, client.instruments[symbol].venue) == (100, "a b")
        assert (await client.snapshot(symbol))["trade"]["px"] == "1.25"
        assert (await client.bars(symbol))["symbol"] == symbol


async def test_a_name_begins_with_its_definition(start: Start) -> None:
    server = await start(*PUBLISHING)
    async with (
        tickcast.publish(TOKEN, server.url) as publisher,
        tickcast.connect(server.url, backoff=quick()) as client,
    ):
        subscription = await client.subscribe(["MINE-USD", "LATER"], channels=["quote", "trade"])
        assert (subscription.count, subscription.unknown) == (0, ["MINE-USD", "LATER"])
        await publisher.define("MINE-USD", px_exp=-2, sz_exp=-3)
        await publish_all(publisher, 1)
        latest: dict[str, Any] = {}
        await read_until(client, latest, 1)
        assert latest["quote"].bid_price == Decimal("100.01")
        assert client._socket is not None
        client._socket.transport.abort()
        await publisher.define("LATER", px_exp=-2, sz_exp=-3)
        await publish_all(publisher, 2)
        await read_until(client, latest, 2)
        await publisher.trade("LATER", 5, 1, trade_id=3)
        await publisher.flush()
        await read_until(client, latest, 3)
        assert [trade.trade_id for trade in latest["trades"]] == [1, 2, 3]
        assert client.stats["missing"] == 0


async def test_exponents_change_while_records_are_read(start: Start) -> None:
    server = await start(*PUBLISHING)
    async with tickcast.publish(TOKEN, server.url) as publisher, tickcast.connect(server.url) as client:
        await publisher.define("MINE-USD", px_exp=-2, sz_exp=-3)
        await client.subscribe(["MINE-USD"], channels=["quote", "trade", "book"])
        await publish_all(publisher, 1)
        await publisher.define("MINE-USD", px_exp=-4, sz_exp=-3, tick_size="0.0005", lot_size="0.5", venue="other")
        await publisher.trade("MINE-USD", "100.0105", 1, trade_id=2)
        await publisher.flush()
        kept, prices, quotes = OrderBook(), [], []
        async with asyncio.timeout(DEADLINE_S):
            async for record in client:
                if isinstance(record, Book):
                    kept.apply(record)
                if isinstance(record, Quote):
                    quotes.append(str(record.bid_price))
                if isinstance(record, Trade):
                    prices.append(str(record.price))
                    if record.trade_id == 2:
                        break
        assert prices == ["100.01", "100.0105"]
        assert (quotes[0], quotes[-1]) == ("100.01", "100.0100")
        assert [str(px) for px, _ in kept.bids()] == ["100.0100", "99.0100"] and not kept.is_rebuilding
        terms = client.instruments["MINE-USD"]
        assert (terms.px_exp, terms.tick_size, terms.lot_size, terms.venue) == (-4, 5, 500, "other")
        assert client.stats["missing"] == 0


async def test_a_released_instrument_is_forgotten(start: Start) -> None:
    server = await start(*PUBLISHING, "--instruments-max", "2")
    async with tickcast.connect(server.url) as client:
        async with tickcast.publish(TOKEN, server.url) as publisher:
            await publisher.define("OLD", px_exp=0, sz_exp=0)
            await client.subscribe(["OLD", "KEPT", "*"], channels=["trade"])
            await publisher.trade("OLD", 1, 1, trade_id=1)
            await publisher.flush()
            await read_until(client, {}, 1)
        async with tickcast.publish(TOKEN, server.url) as publisher, asyncio.timeout(DEADLINE_S):
            await publisher.define("KEPT", px_exp=0, sz_exp=0)
            await publisher.define("NEXT", px_exp=0, sz_exp=0)
            async for record in client:
                if isinstance(record, Status) and record.state == "R":
                    break
            assert record.symbol == "OLD" and "OLD" not in client.instruments
            await publisher.trade("NEXT", 1, 1, trade_id=2)
            await publisher.flush()
            await read_until(client, {}, 2)


async def test_cancelled_subscriptions_leave_nothing_at_the_server(start: Start) -> None:
    server = await start(*PUBLISHING)
    async with tickcast.publish(TOKEN, server.url) as publisher, tickcast.connect(server.url) as client:
        await publisher.define("MINE-USD", px_exp=-2, sz_exp=-3)
        cancelled = 0
        for steps in range(40):
            task = asyncio.create_task(client.subscribe(["MINE-USD"], channels=["trade"]))
            for _ in range(steps % 20):
                await asyncio.sleep(0)
            task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            cancelled += isinstance(result, asyncio.CancelledError)
            if isinstance(result, tickcast.Subscription):
                await result.close()
            await client.ping()
        assert cancelled >= 10 and not client._interests
        # Requests are answered in order: the last unsubscribe is done.
        await client.ping()
        await until(lambda: not client._tasks)
        before = client.packets_read
        await publish_all(publisher, 1)
        await publisher.define("OTHER", px_exp=0, sz_exp=0)
        await client.ping()
        assert client.packets_read == before
        await client.subscribe(["MINE-USD"], channels=["trade"])
        await publish_all(publisher, 2)
        latest: dict[str, Any] = {}
        await read_until(client, latest, 2)


async def test_a_market_is_read_as_arrays(start: Start) -> None:
    np = pytest.importorskip("numpy")
    server = await start(*MARKET)
    async with tickcast.connect(server.url) as client:
        await client.subscribe(["*"], channels=["quote", "trade"])
        quotes = await client.collect("quote", count=2000)
        assert len(quotes) == 2000
        prices = client.scales.floats(quotes, "bid_px")
        asks = client.scales.floats(quotes, "ask_px")
        both = ~np.isnan(prices) & ~np.isnan(asks)
        assert (prices[both] < asks[both]).all()
        columns = client.scales.columns(quotes)
        assert {"symbol", "ts_recv", "bid_px", "ask_sz"} <= set(columns)
        assert set(columns["symbol"]) <= set(client.instruments)
        assert client.stats["missing"] == 0
        with pytest.raises(ValueError, match="no end"):
            await client.collect("quote")


async def test_conflation_intervals_are_granted_and_changed(start: Start) -> None:
    server = await start(*MARKET)
    async with tickcast.connect(server.url, conflate_ms=90) as client, asyncio.timeout(DEADLINE_S):
        while len(await tickcast.instruments(server.url)) < 20:
            await client.ping()
        async with await client.subscribe(["*"], channels=["quote"]) as quotes:
            assert quotes.conflate_ms == 100
            await quotes.set_conflate_ms(0)
            assert quotes.conflate_ms == 0
        ticker = await client.subscribe(["*"], channels=["ticker"])
        assert ticker.count == 20
        async with asyncio.timeout(DEADLINE_S):
            async for packet in client.packets():
                if packet.header.is_caught_up and any(isinstance(record, Ticker) for record in packet.records):
                    break
        assert abs((await client.ping()).clock_ahead_s) < 5


async def test_refusals_have_status_and_code_of_the_server(start: Start) -> None:
    server = await start(*PUBLISHING)
    with pytest.raises(RefusedError) as refused:
        await tickcast.publish("wrong", server.url)
    assert refused.value.status == 401
    with pytest.raises(RefusedError) as refused:
        await tickcast.snapshot("NOPE", server.url)
    assert (refused.value.status, refused.value.code) == (404, "not_found")
    with pytest.raises(RefusedError) as refused:
        await tickcast.connect(f"{server.url}/v1/nowhere")
    assert refused.value.status == 404
    async with tickcast.publish(TOKEN, server.url) as publisher, tickcast.publish(TOKEN, server.url) as other:
        await publisher.define("MINE-USD", px_exp=-2, sz_exp=-3)
        with pytest.raises(RejectedError):
            await other.define("MINE-USD", px_exp=-4, sz_exp=-3)
        with pytest.raises(ValueError, match="too many decimals"):
            await publisher.quote("MINE-USD", bid="1.001")
        with pytest.raises(KeyError, match="is not defined"):
            await publisher.quote("YOURS", bid=1)


async def test_bars_are_columns(start: Start) -> None:
    np = pytest.importorskip("numpy")
    server = await start(*PUBLISHING)
    async with tickcast.publish(TOKEN, server.url) as publisher, tickcast.connect(server.url) as client:
        await publisher.define("MINE-USD", px_exp=-2, sz_exp=-3)
        for trade_id in (1, 2, 3):
            await publish_all(publisher, trade_id)
        columns: dict[str, Any] = {"trades": []}
        async with asyncio.timeout(DEADLINE_S):
            while sum(columns["trades"]) < 3:
                columns = await client.bars("MINE-USD", interval_s=3600)
        assert (columns["open"][0], columns["close"][-1]) == ("100.01", "100.03")
        arrays = await tickcast.bars("MINE-USD", server.url, interval_s=3600, limit=5, arrays=True)
        assert arrays["close"][-1] == 100.03
        assert arrays["close"].dtype == np.float64
        assert arrays["time"].dtype == "datetime64[s]"
        assert arrays["trades"].sum() == 3


async def test_the_newest_trades_are_columns(start: Start) -> None:
    server = await start(*PUBLISHING)
    async with tickcast.publish(TOKEN, server.url) as publisher, tickcast.connect(server.url) as client:
        await publisher.define("MINE-USD", px_exp=-2, sz_exp=-3)
        await client.subscribe(["MINE-USD"], channels=["trade"])
        for trade_id in (1, 2, 3):
            await publish_all(publisher, trade_id)
        async with asyncio.timeout(DEADLINE_S):
            async for record in client:
                if isinstance(record, Trade) and record.trade_id == 3:
                    break
        # What the client was sent is in the answer.
        columns = await client.trades("MINE-USD", limit=2)
        assert (columns["trade_id"], columns["px"]) == ([2, 3], ["100.02", "100.03"])
        assert columns["sequence"] == [2, 3]
        assert (await tickcast.trades("MINE-USD", server.url))["trade_id"] == [1, 2, 3]


async def test_heartbeats_keep_a_silent_publisher_from_being_stale(start: Start) -> None:
    server = await start(*PUBLISHING, "--stale-ms", "1500")
    async with (
        tickcast.publish(TOKEN, server.url, heartbeat_s=0.2) as beating,
        tickcast.publish(TOKEN, server.url) as by_hand,
        tickcast.publish(TOKEN, server.url) as silent,
        tickcast.connect(server.url) as client,
    ):
        await client.subscribe(["*"])
        for publisher, symbol in ((beating, "BEATING"), (by_hand, "BY-HAND"), (silent, "SILENT")):
            await publisher.define(symbol, px_exp=-2, sz_exp=-3)
            await publisher.quote(symbol, bid=1)
            await publisher.flush()

        async def read_until(symbol: str, state: str, stale: set[str]) -> None:
            async for record in client:
                if isinstance(record, Status) and record.symbol:
                    (stale.add if record.state == "S" else stale.discard)(record.symbol)
                    if (record.symbol, record.state) == (symbol, state):
                        return

        stale: set[str] = set()
        async with asyncio.timeout(DEADLINE_S):
            await read_until("SILENT", "S", stale)
            await by_hand.heartbeat()
            await silent.heartbeat()
            await read_until("SILENT", "L", stale)
            await read_until("SILENT", "S", stale)
        assert "BEATING" not in stale
        assert client.state("BEATING") is State.LIVE
    with pytest.raises(ValueError, match="heartbeat_s"):
        tickcast.publish("t", heartbeat_s=0)
