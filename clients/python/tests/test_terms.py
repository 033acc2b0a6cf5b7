"""Definitions that come again with other terms, and instruments that are released."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from conftest import DEADLINE_S, book, definition, packet, quote, read_arrays, status, trade, until
from fake import CAUGHT_UP, Fake, Peer

import tickcast
from tickcast import Book, Definition, OrderBook, ProtocolError, Quote, RescaledError, State, Status, Trade
from tickcast.cursor import Cursor, read_packet
from tickcast.follow import Follower

OLD, FINER, COARSER = definition(), definition(px_exp=-4, sz_exp=-5), definition(px_exp=-1, sz_exp=-3)


def test_each_record_has_the_exponents_of_its_time() -> None:
    follower = Follower()
    records = read_packet(follower, packet(OLD, trade(1, 250), FINER, trade(2, 250), quote(1, 70)))[1]
    prices = [one.price for one in records if isinstance(one, Trade)]
    assert prices == [Decimal("2.50"), Decimal("0.0250")]
    later = read_packet(follower, packet(trade(3, 7)))[1][0]
    assert isinstance(later, Trade) and later.price == Decimal("0.0007")
    assert follower.by_symbol["BTC-USD"].px_exp == -4
    assert follower.gaps == 0, "sequences go on"


@pytest.mark.parametrize("flags", [0x80, 0xA0])
def test_the_newest_states_come_again_after_a_change(flags: int) -> None:
    follower = Follower()
    read_packet(follower, packet(OLD, quote(5, 100), book(b"S", [(100, 5, b"B")], 8)))
    again = packet(FINER, quote(5, 10_000, flags=flags), book(b"S", [(10_000, 500, b"B")], 8))
    records = read_packet(follower, again)[1]
    assert [type(one) for one in records] == [Definition, Quote, Book]
    assert isinstance(records[1], Quote) and records[1].bid_price == Decimal("1.0000")
    assert [type(one) for one in read_packet(follower, packet(quote(5, flags=0x80), quote(6)))[1]] == [Quote]


def test_the_same_definition_again_changes_nothing() -> None:
    follower = Follower()
    read_packet(follower, packet(OLD, quote(5)))
    before = follower.by_symbol["BTC-USD"]
    shared = follower.share()
    assert [type(one) for one in read_packet(follower, packet(OLD, quote(5)))[1]] == [Definition]
    assert follower.by_symbol["BTC-USD"] is before and follower.directory is shared


def test_an_instrument_with_another_symbol_has_the_new_one_only() -> None:
    follower = Follower()
    read_packet(follower, packet(OLD, definition(1, "XBT-USD")))
    assert list(follower.by_symbol) == ["XBT-USD"]


def test_arrays_of_a_packet_with_a_change_come_in_parts() -> None:
    arrays = pytest.importorskip("tickcast.arrays")
    follower = Follower()
    data = packet(OLD, trade(1, 250), quote(1, 250), FINER, trade(2, 250), trade(3, 251), quote(2, 250))
    cursor = Cursor(follower, data)
    first, second = arrays.take(cursor), arrays.take(cursor)
    assert cursor.is_done
    assert first.scales.floats(first.trade, "px").tolist() == [2.5]
    assert second.scales.floats(second.trade, "px").tolist() == [0.025, 0.0251]
    assert (len(first.quote), len(second.quote)) == (1, 1)
    assert [type(one) for one in second.others] == [Definition]
    with pytest.raises(ValueError, match="BTC-USD has other exponents"):
        second.scales.floats(first.trade, "px")
    with pytest.raises(ValueError, match="BTC-USD has other exponents"):
        first.scales.columns(second.quote[:1])


def test_arrays_of_earlier_packets_keep_their_scales() -> None:
    pytest.importorskip("numpy")
    follower = Follower()
    before = read_arrays(follower, packet(OLD, trade(1, 250)))
    plain = read_arrays(follower, packet(trade(2, 252)))
    read_arrays(follower, packet(COARSER))
    after = read_arrays(follower, packet(trade(3, 250)))
    assert [one.scales.floats(one.trade, "px").tolist() for one in (before, plain, after)] == [[2.5], [2.52], [25.0]]


def test_a_change_of_an_instrument_without_rows_makes_no_parts() -> None:
    pytest.importorskip("numpy")
    follower = Follower()
    read_arrays(follower, packet(OLD, definition(2, "ETH-USD")))
    both = packet(trade(1, instrument=2), FINER, trade(1, 250), definition(2, "ETH-USD", venue="other"), trade(2, 250))
    rows = read_arrays(follower, both)
    assert rows.scales.floats(rows.trade, "px").tolist() == [1.0, 0.025, 0.025]
    assert follower.by_symbol["ETH-USD"].venue == "other"


def applied(*packets: bytes) -> OrderBook:
    follower, kept = Follower(), OrderBook()
    for data in packets:
        for one in read_packet(follower, data)[1]:
            if isinstance(one, Book):
                kept.apply(one)
    return kept


def test_a_kept_book_is_scaled_exactly_or_dropped() -> None:
    start = packet(OLD, book(b"S", [(250, 5, b"B"), (260, 70, b"A")], 1))
    finer = applied(start, packet(FINER, book(b"D", [(25_001, 300, b"B")], 2)))
    assert finer.bids() == [(Decimal("2.5001"), Decimal("0.00300")), (Decimal("2.50"), Decimal("0.005"))]
    assert finer.asks() == [(Decimal("2.60"), Decimal("0.070"))] and not finer.is_rebuilding
    coarser = applied(start, packet(COARSER, book(b"D", [(24, 3, b"B")], 2)))
    assert coarser.bids() == [(Decimal("2.5"), Decimal("0.005")), (Decimal("2.4"), Decimal("0.003"))]
    start = packet(OLD, book(b"S", [(251, 5, b"B"), (260, 70, b"A")], 1))
    inexact = [start, packet(COARSER, book(b"D", [(24, 3, b"B")], 2)), packet(book(b"D", [(23, 3, b"B")], 3))]
    dropped = applied(*inexact)
    assert (dropped.mantissas("B"), dropped.mantissas("A"), dropped.is_rebuilding) == ([(24, 3), (23, 3)], [], True)
    replaced = applied(*inexact, packet(book(b"S", [(22, 1, b"B")], 4)))
    assert (replaced.mantissas("B"), replaced.is_rebuilding) == ([(22, 1)], False)


def test_a_released_instrument_is_forgotten() -> None:
    follower = Follower()
    start = packet(OLD, trade(4), book(b"D", [(1, 1, b"B")], 3, flags=0x84), status("E", instrument=1))
    read_packet(follower, start)
    assert follower.state("BTC-USD") is State.ENDED
    shared = follower.share()
    records = read_packet(follower, packet(status("R", instrument=1), definition(7), trade(1, instrument=7)))[1]
    assert [type(one) for one in records] == [Status, Definition, Trade]
    assert isinstance(records[0], Status) and (records[0].symbol, records[0].state) == ("BTC-USD", "R")
    assert (list(follower.directory), follower.by_symbol["BTC-USD"].id) == ([7], 7)
    assert follower.state("BTC-USD") is State.LIVE
    assert not follower.states and not follower.bad_books
    assert follower.sequences[2][1] == 0
    assert list(shared) == [1], "scales that were given out keep it"


def test_a_release_after_the_new_definition_keeps_the_new_one() -> None:
    follower = Follower()
    read_packet(follower, packet(OLD, trade(4)))
    read_packet(follower, packet(definition(7)))
    assert (list(follower.directory), follower.sequences[2][1]) == ([7], 0), "an id that a symbol has no more is free"
    read_packet(follower, packet(status("R", instrument=1), trade(1, instrument=7)))
    assert follower.by_symbol["BTC-USD"].id == 7
    assert list(follower.directory) == [7]


@pytest.mark.parametrize("others", [[], [status("S")]])
def test_a_record_of_a_released_instrument_is_an_error(others: list[bytes]) -> None:
    pytest.importorskip("numpy")
    for read in (read_packet, read_arrays):
        follower = Follower()
        read_packet(follower, packet(OLD, trade(4), status("R", instrument=1)))
        with pytest.raises(ProtocolError, match="before its definition"):
            read(follower, packet(trade(5), *others))


def test_rows_of_a_released_instrument_keep_their_scales() -> None:
    arrays = pytest.importorskip("tickcast.arrays")
    follower = Follower()
    data = packet(OLD, trade(1, 250), status("R", instrument=1), definition(2, px_exp=0), trade(1, 3, instrument=2))
    cursor = Cursor(follower, data)
    first, second = arrays.take(cursor), arrays.take(cursor)
    assert cursor.is_done
    assert first.scales.columns(first.trade)["px"].tolist() == [2.5]
    assert second.scales.columns(second.trade)["symbol"].tolist() == ["BTC-USD"]


def test_an_unknown_letter_of_a_state_changes_nothing() -> None:
    follower = Follower()
    read_packet(follower, packet(OLD, status("H", instrument=1)))
    records = read_packet(follower, packet(status("Z", instrument=1), status("Q"), status("R")))[1]
    assert [one.state for one in records if isinstance(one, Status)] == ["Z", "Q", "R"]
    assert follower.state("BTC-USD") is State.HALTED


async def collected(*packets: bytes, count: int, channel: Any = "trade") -> list[Any]:
    """Collects until no packet is left; the rows or the errors."""

    async def script(peer: Peer) -> None:
        await peer.answer()
        for one in packets:
            await peer.socket.send(one)
        await peer.serve()

    results: list[Any] = []
    async with Fake(script) as server, tickcast.connect(server.url) as client:
        await client.subscribe(["*"])
        async with asyncio.timeout(DEADLINE_S):
            while sum(len(getattr(one, "rows", one)) for one in results) < count:
                try:
                    results.append(await client.collect(channel, count=count))
                except RescaledError as error:
                    results.append(error)
    return results


async def test_collect_over_a_change_raises_with_the_rows_before() -> None:
    pytest.importorskip("numpy")
    before, during = packet(OLD, trade(1, 250), flags=CAUGHT_UP), packet(trade(2, 251), FINER, trade(3, 252), trade(4))
    error, rows = await collected(before, during, packet(*map(trade, range(5, 9))), count=6)
    assert isinstance(error, RescaledError) and error.symbol == "BTC-USD"
    assert "2 rows" in str(error)
    assert error.rows.scales.floats(error.rows, "px").tolist() == [2.5, 2.51]
    assert rows["sequence"].tolist() == [3, 4, 5, 6, 7, 8]
    assert rows.scales.floats(rows, "px").tolist()[0] == 0.0252


async def test_collect_over_changes_of_other_instruments_has_one_scale_for_each() -> None:
    pytest.importorskip("numpy")
    packets = [
        packet(OLD, definition(2, "ETH-USD"), trade(1, 250), flags=CAUGHT_UP),
        packet(definition(2, "ETH-USD", px_exp=-3), trade(1, 250, instrument=2), definition(3, "SOL-USD")),
        packet(FINER, trade(2, 250, instrument=2), trade(1, 250, instrument=3)),
    ]
    (rows,) = await collected(*packets, count=4)
    assert rows.scales.columns(rows)["px"].tolist() == [2.5, 0.25, 0.25, 2.5]
    assert rows.scales.symbols(rows).tolist() == ["BTC-USD", "ETH-USD", "ETH-USD", "SOL-USD"]


async def test_the_newest_quotes_before_a_collect_have_their_own_scales() -> None:
    pytest.importorskip("numpy")
    packets = [
        packet(OLD, quote(1, 240), quote(2, 250), definition(2, "ETH-USD"), quote(1, 300, instrument=2)),
        packet(FINER, definition(3, "SOL-USD"), quote(1, 400, instrument=3), flags=CAUGHT_UP),
        packet(definition(2, "ETH-USD", px_exp=-3), quote(2, 3000, instrument=2), position=2),
    ]

    async def script(peer: Peer) -> None:
        await peer.answer()
        for one in packets:
            await peer.socket.send(one)
        await peer.serve()

    async with Fake(script) as server, tickcast.connect(server.url) as client:
        await client.subscribe(["*"], channels=["quote"])
        await until(lambda: client.packets_read == len(packets))
        rows = await client.collect("quote", seconds=0.1)
        assert rows.scales is not None
        columns = rows.scales.columns(rows)
        assert dict(zip(columns["symbol"], columns["bid_px"], strict=True)) == {
            "BTC-USD": 2.5,
            "SOL-USD": 4.0,
            "ETH-USD": 3.0,
        }
        with pytest.raises(ValueError, match="BTC-USD has other exponents"):
            client.scales.columns(rows)


async def test_client_follows_changes_and_releases() -> None:
    pytest.importorskip("numpy")

    async def script(peer: Peer) -> None:
        await peer.answer()
        await peer.socket.send(packet(OLD, quote(1, 250), flags=CAUGHT_UP))
        await peer.socket.send(packet(FINER, quote(1, 25_000, flags=0xA0)))
        await peer.socket.send(packet(status("R", instrument=1)))
        await peer.socket.send(packet(definition(2), quote(1, 300, instrument=2)))
        await peer.serve()

    async with Fake(script) as server, tickcast.connect(server.url) as client:
        await client.subscribe(["BTC-USD"])
        async with asyncio.timeout(DEADLINE_S):
            seen = [await anext(client.records()) for _ in range(3)]
            assert [one.bid_price for one in seen if isinstance(one, Quote)] == [Decimal("2.50"), Decimal("2.5000")]
            assert "BTC-USD" not in client.instruments
            last = await anext(client.records())
        assert isinstance(last, Quote) and last.bid_price == Decimal("3.00")
        assert client.instruments["BTC-USD"].id == 2
        assert client.stats["gaps"] == 0
