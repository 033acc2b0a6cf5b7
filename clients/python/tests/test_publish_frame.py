"""Frames as records: the same as of single calls, exact unless rounding is asked for, all or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from conftest import DEADLINE_S, Start, until
from test_publish import sink

import tickcast
from tickcast import Publisher, QuoteWarning, wire
from tickcast.connection import Endpoint
from tickcast.publish import FLUSH_BYTES
from tickcast.records import Instrument

np = pytest.importorskip("numpy")
pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")

NOW = 1_763_700_000_123_456_789
TERMS = (Instrument(1, "A", "", -2, -3), Instrument(2, "B", "", -8, 2))
Make = Callable[[dict[str, Any]], Any]


@pytest.fixture
def publisher() -> Publisher:
    """A publisher with two instruments, which keeps what it would send."""
    one: Any = Publisher(Endpoint("ws://127.0.0.1:1/v1/publish"))
    one._socket = object()
    one._instruments.update({of.symbol: of for of in TERMS})
    kept: Publisher = one
    return kept


def kept(publisher: Publisher) -> list[tickcast.AnyRecord]:
    """The records that wait to be sent."""
    data = b"".join(publisher._parts)
    head = wire._PACKET.pack(wire.VERSION, 0, publisher._count, 0, 0, 0)
    records = wire.decode(head + data, {of.id: of for of in TERMS})[1]
    publisher._parts, publisher._count, publisher._bytes = [], 0, 0
    return records


MAKERS: dict[str, Make] = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "arrow": pa.table, "dict": dict}
TIMES: dict[str, Any] = {
    "pandas": pd.to_datetime([NOW, NOW + 1, None], utc=True),
    "polars": pl.Series([NOW, NOW + 1, None], dtype=pl.Int64).cast(pl.Datetime("ns", "UTC")),
    "arrow": pa.array([NOW, NOW + 1, None], pa.timestamp("ns", "Asia/Tokyo")),
    "dict": np.array([NOW, NOW + 1, "NaT"], "datetime64[ns]"),
}


@pytest.mark.parametrize("library", MAKERS)
async def test_a_frame_is_published_as_single_calls_are(publisher: Publisher, library: str) -> None:
    symbols, times = ["A", "B", "A"], TIMES[library]
    trades = {"symbol": symbols, "price": [100.51, 0.00001234, -3.0], "size": [1, 200, 0], "ts_event": times}
    trades |= {"side": ["buy", "S", None], "trade_id": [5, 6, 7]}
    quotes = {
        "symbol": symbols,
        "bid": [100.5, None, 1.0],
        "ask": ["100.51", "1", None],
        "ask_size": [1.5, 100.0, None],
    }
    ticker = {"symbol": symbols, "last_px": [Decimal("1.25"), None, Decimal(3)], "volume": [1.0, 100.0, 0.0]}
    assert await publisher.publish_frame("trade", MAKERS[library](trades)) == 3
    assert await publisher.publish_frame("quote", MAKERS[library](quotes)) == 3
    assert await publisher.publish_frame("ticker", MAKERS[library](ticker)) == 3
    records = kept(publisher)
    await publisher.trade("A", "100.51", 1, side="B", trade_id=5, ts_event=NOW)
    await publisher.trade("B", "0.00001234", 200, side="S", trade_id=6, ts_event=NOW + 1)
    await publisher.trade("A", -3, 0, trade_id=7)
    await publisher.quote("A", bid="100.5", ask="100.51", ask_size="1.5")
    await publisher.quote("B", ask=1, ask_size=100)
    await publisher.quote("A", bid=1)
    await publisher.ticker("A", last_px="1.25", volume=1)
    await publisher.ticker("B", volume=100)
    await publisher.ticker("A", last_px=3, volume=0)
    assert records == kept(publisher)


async def test_a_collected_frame_can_be_published(start: Start) -> None:
    server = await start("--feed", "none", "--publish-token", "test-publish-token")
    async with (
        tickcast.publish("test-publish-token", server.url) as publisher,
        tickcast.connect(server.url) as client,
        asyncio.timeout(DEADLINE_S),
    ):
        for symbol in ("OLD", "NEW"):
            await publisher.define(symbol, px_exp=-2, sz_exp=-3)
        await client.subscribe(["OLD", "NEW"], channels=["quote", "trade"])
        count = 3 * FLUSH_BYTES // 64
        prices = np.round(100 + np.arange(count) / 100, 2)
        trades = {
            "price": prices,
            "size": np.arange(count),
            "trade_id": np.arange(count),
            "ts_event": NOW + np.arange(count),
        }
        assert await publisher.publish_frame("trade", trades, symbol="OLD") == count
        await publisher.publish_frame("quote", {"bid": [1.25], "ask_size": [3]}, symbol="OLD")
        await publisher.flush()
        tables = await client.collect(["quote", "trade"], count=count + 1)
        quotes, frame = tables["quote"].to_polars(), tables["trade"].to_pandas()
        assert frame["px"].tolist() == prices.tolist()
        assert frame["ts_event"].astype("int64").tolist() == trades["ts_event"].tolist()
        await publisher.publish_frame("quote", quotes.with_columns(symbol=pl.lit("NEW")))
        await publisher.publish_frame("trade", frame.assign(symbol="NEW"))
        await publisher.flush()
        again = await client.collect(["quote", "trade"], count=count + 1)
        for before, rows in zip(tables.values(), again.values(), strict=True):
            first, second = before.to_pandas(), rows.to_pandas()
            assert set(second["symbol"]) == {"NEW"}
            columns = [name for name in first if name not in ("symbol", "ts_recv")]
            pd.testing.assert_frame_equal(first[columns], second[columns])


@pytest.mark.parametrize(
    ("price", "exponent", "mantissa"),
    [
        (100.51, -2, 10051),
        (0.1 + 0.2, -1, None),
        (0.3, -1, 3),
        (4.3e-7, -8, 43),
        (100.505, -2, None),
        (1200.0, 2, 12),
        (1250.0, 2, None),
        (90071992547409.9, -2, 9007199254740990),
        (1.5, -18, 15 * 10**17),
    ],
)
def test_a_float_stands_for_its_decimal_number(price: float, exponent: int, mantissa: int | None) -> None:
    from tickcast import encode, tables
    from tickcast.doubts import Doubts

    of = [Instrument(1, "A", "", exponent, 0)]
    for values in ([price], np.array([price])):
        table = tables.read("trade", {"price": values, "size": [1]}, "A")
        rounded = encode.records(table, of, Doubts(), is_rounded=True)["px"].tolist()
        nearest = Decimal(price).scaleb(-exponent).quantize(Decimal(1))
        assert abs(rounded[0] - nearest) <= 1
        if mantissa is not None:
            assert rounded == encode.records(table, of, Doubts(), is_rounded=False)["px"].tolist() == [mantissa]
            continue
        expected = rf"row 0: A: price: '?{price}'? has too many decimals: expected a multiple of 10\*\*{exponent}"
        with pytest.raises(ValueError, match=rf"{expected}.*, or round=True"):
            encode.records(table, of, Doubts(), is_rounded=False)


@pytest.mark.parametrize(
    ("values", "exponent", "expected"),
    [
        ([Decimal("1.005"), "1.015", 1.005, Decimal("-1.005"), "1"], -2, [100, 102, 100, -100, 100]),
        ([Decimal("0.0001"), "1E-20000000", "1." + "0" * 300_000, "0.005", 0], -2, [0, 0, 100, 0, 0]),
        (np.array([149, 150, 250, -150, -151]), 2, [1, 2, 2, -2, -2]),
        (np.array([1.005, 1.2345, 7, -0.001, 0]), -2, [100, 123, 700, 0, 0]),
    ],
)
def test_values_are_rounded_by_request(values: Any, exponent: int, expected: list[int]) -> None:
    from tickcast import encode, tables
    from tickcast.doubts import Doubts

    table = tables.read("ticker", {"last_px": values}, "A")
    rows = encode.records(table, [Instrument(1, "A", "", exponent, 0)], Doubts(), is_rounded=True)
    assert rows["last_px"].tolist() == expected


def trades(**columns: Any) -> dict[str, Any]:
    return {"symbol": ["A", "B", "A"], "price": [1, 2, 3], "size": [1, 100, 1]} | columns


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"price": [1, 2, None]}, "row 2: A: price: missing: expected a number"),
        ({"price": np.array([1, np.nan, 1])}, "row 1: B: price: missing: expected a number"),
        ({"price": np.array([1, np.inf, 1])}, "row 1: B: price: 'inf' is no finite number"),
        ({"price": np.array([1, 1e12, 1])}, r"row 1: B: price: '1000000000000.0' is out of range: .* below 2\*\*63"),
        ({"price": np.array([1, 10**11, 1])}, "row 1: B: price: 100000000000 is out of range"),
        ({"price": np.array([2**64 - 1, 1, 1], np.uint64)}, "row 0: A: price: 18446744073709551615 is out of range"),
        (
            {"price": np.array([1, 1, 1.005])},
            r"row 2: A: price: 1.005 has too many decimals: .* 10\*\*-2, or round=True",
        ),
        ({"price": ["1", "1", "1.005"]}, r"row 2: A: price: '1.005' has too many decimals: .* 10\*\*-2, or round=True"),
        ({"price": ["1", "", "1"]}, "row 1: B: price: '' is no finite number"),
        ({"price": [1, True, 1]}, "row 1: B: price: True is of the type bool"),
        ({"price": [1, Decimal("NaN"), 1]}, "row 1: B: price: NaN is not a finite number"),
        ({"price": TIMES["dict"]}, "frame: price: a column of times: expected numbers"),
        ({"size": [1, 100, -1]}, "row 2: A: size: -1 is negative"),
        ({"size": np.array([1, -100, 1])}, "row 1: B: size: -100 is negative"),
        ({"size": np.array([1, 150, 1])}, r"row 1: B: size: 150 has too many decimals: expected a multiple of 10\*\*2"),
        ({"side": ["B", "S", "bid"]}, "row 2: A: side: unknown 'bid': expected one of B or buy"),
        ({"side": [1, 2, 3]}, "row 0: A: side: 1 is of the type int"),
        ({"trade_id": [1, -2, 3]}, "row 1: B: trade_id: -2 is out of range"),
        ({"trade_id": np.array([1, -2, 3])}, "row 1: B: trade_id: -2 is out of range"),
        ({"trade_id": [1, 2, None]}, "row 2: A: trade_id: None: expected an int"),
        ({"trade_id": np.array([1.0, 2, 3])}, "row 0: A: trade_id: 1.0 is of the type float"),
        ({"ts_event": np.array([0, 1_763_700_000, 0])}, "row 1: B: ts_event: 1763700000 looks like seconds"),
        ({"ts_event": [0, 1_763_700_000_000, 0]}, "row 1: B: ts_event: 1763700000000 looks like milliseconds"),
        ({"ts_event": np.array([1e18, 1e18, 1e18])}, r"row 0: A: ts_event: 1e\+18 is of the type float"),
        ({"ts_event": np.array([-1, 0, 0])}, "row 0: A: ts_event: -1 is out of range"),
        (
            {"ts_event": ["2026-01-01"] * 3},
            "row 0: A: ts_event: '2026-01-01' is of the type str: expected an int of ns",
        ),
        ({"ts_event": [datetime(2026, 1, 1)] * 3}, "row 0: A: ts_event: 2026-01-01 00:00:00 has no time zone"),
        (
            {"ts_event": np.array(["1960-01-01"] * 3, "datetime64[s]")},
            "row 0: A: ts_event: 1960-01-01.* is out of range",
        ),
        ({"ts_event": np.array(["2570-01-01"] * 3, "datetime64[s]")}, "row 0: ts_event: 2570-01-01.* is out of range"),
        ({"symbol": ["A", "B", "A*"]}, r"row 2: symbol: 'A\*' has '\*'"),
        ({"symbol": ["A", None, "A"]}, "row 1: symbol: None: expected the name"),
        ({"symbol": [["A"], ["B"], ["A"]]}, "frame: symbol: a list: expected the names of instruments"),
        ({"symbol": ["A", "B"]}, "frame: 2 symbols for 3 rows: expected the same number"),
        ({"size": [1, 2]}, "frame: columns of 2 and 3 rows: expected the same number"),
        ({"px": [1, 2, 3]}, "frame: two columns for price: expected one of price, px"),
        ({"prize": [1, 2, 3]}, "frame: unknown column 'prize': expected some of price or px, .*; select or rename"),
        ({5: [1, 2, 3]}, "frame: the name of a column: 5 is of the type int"),
        ({"price": 5}, "frame: price: a int: expected a list or a numpy array"),
        ({"price": np.ones((3, 2))}, "frame: price: an array of 2 dimensions: expected 1"),
    ],
)
async def test_a_wrong_frame_is_named_and_nothing_is_published(
    publisher: Publisher, columns: dict[Any, Any], message: str
) -> None:
    frame = {"symbol": ["A", "B", "A"], "price": [1, 2, 3], "size": [1, 100, 1], **columns}
    with pytest.raises((TypeError, ValueError), match=message):
        await publisher.publish_frame("trade", frame)
    assert not publisher._parts


@pytest.mark.parametrize(
    ("channel", "frame", "options", "message"),
    [
        ("trades", {}, {}, "channel: unknown 'trades': expected one of quote, trade, ticker"),
        ("trade", None, {}, "frame: a NoneType: expected a DataFrame of pandas or polars, a Table of Arrow, or a dict"),
        ("trade", {"symbol": ["A"], "size": [1]}, {}, "frame: no column for price: expected price or px"),
        ("quote", {"symbol": ["A"]}, {}, "frame: no column of a quote: expected some of bid, bid_size, ask, ask_size"),
        ("quote", {"bid": [1]}, {}, "frame: no column symbol: expected one, or the argument symbol"),
        ("quote", {"bid": [1], "symbol": ["A"]}, {"symbol": "A"}, "symbol: 'A' is given beside a column symbol"),
        ("quote", {"bid": [1]}, {"symbol": ""}, "symbol: '' has 0 bytes"),
        ("quote", {"bid": [1]}, {"symbol": "A", "round": 1}, "round: 1 is of the type int: expected True or False"),
        (
            "quote",
            pd.DataFrame({"bid": [1], "ts_event": pd.to_datetime([NOW])}),
            {"symbol": "A"},
            r"ts_event has no time zone: .*tz_localize",
        ),
        ("quote", pl.DataFrame({"bid": [1], "ts_event": [datetime(2026, 1, 1)]}), {"symbol": "A"}, "replace_time_zone"),
        ("quote", pa.table({"bid": [1], "ts_event": [datetime(2026, 1, 1)]}), {"symbol": "A"}, "pyarrow.timestamp"),
        ("quote", pd.DataFrame([[1, 2]], columns=["bid", "bid"]), {"symbol": "A"}, "frame: two columns bid"),
    ],
)
async def test_a_wrong_call_is_named(
    publisher: Publisher, channel: Any, frame: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        await publisher.publish_frame(channel, frame, **options)
    assert not publisher._parts


async def test_columns_of_many_types_are_read(publisher: Publisher) -> None:
    """What readers of files make of numbers and names, with values that are missing."""
    frames = [
        pd.DataFrame({"symbol": pd.Categorical(["A", "A"]), "bid": pd.array([1, None], "Int64")}),
        pd.DataFrame({"symbol": ["A", "A"], "bid": pd.array([1, None], "Float64")}),
        pd.DataFrame({"symbol": ["A", "A"], "bid": pd.array([1, None], "int64[pyarrow]")}),
        pd.DataFrame({"symbol": ["A", "A"], "bid": np.array([1, np.nan], np.float32)}),
        pd.DataFrame({"symbol": ["A", "A"], "bid": [1, None]}, dtype=object),
        pl.DataFrame({"symbol": pl.Series(["A", "A"], dtype=pl.Categorical), "bid": [1, None]}),
        pl.DataFrame({"symbol": ["A", "A"], "bid": pl.Series([Decimal("1.00"), None])}),
        pa.table(
            {"symbol": pa.array(["A", "A"]).dictionary_encode(), "bid": pa.chunked_array([[1], [None]], pa.int8())}
        ),
        {"symbol": np.array(["A", "A"]), "bid": np.array([1, None])},
        {"symbol": ("A", "A"), "bid": ["1", None], "ts_event": [None, datetime(2026, 1, 1, tzinfo=UTC)]},
    ]
    for frame in frames:
        assert await publisher.publish_frame("quote", frame) == 2
        assert [one.decimal("bid_px") for one in kept(publisher)] == [1, None], frame
    high = 2**53 + 1
    for frame in (
        pd.DataFrame({"bid": pd.array([high, None], "Int64")}),
        pl.DataFrame({"bid": [high, None]}),
        pa.table({"bid": [high, None]}),
    ):
        await publisher.publish_frame("quote", frame, symbol="A")
        assert [one.decimal("bid_px") for one in kept(publisher)] == [high, None], frame
    whole = pd.DataFrame({"price": pd.array([1, 2], "Int64"), "size": np.array([1, 2], np.uint8)})
    assert await publisher.publish_frame("trade", whole, symbol="A") == 2
    assert await publisher.publish_frame("trade", whole[:0], symbol="A") == 0
    empty = {"price": [], "size": [], "ts_event": np.empty(0), "symbol": []}
    assert await publisher.publish_frame("trade", empty) == 0


async def test_doubtful_quotes_of_a_frame_are_named_once(publisher: Publisher) -> None:
    frame = {"symbol": ["A", "B", "B", "A", "A"], "bid": [1, 3, 3, 5, 6], "ask": [2, 2, 1, 4, 5]}
    with pytest.warns(QuoteWarning) as warned:
        await publisher.publish_frame("quote", frame)
        await publisher.publish_frame("quote", frame)
    assert sorted(str(one.message).partition(" (")[0] for one in warned) == [
        "row 1: B: bid: 3.00000000 is above the ask 2.00000000: expected less",
        "row 3: A: bid: 5.00 is above the ask 4.00: expected less",
    ]
    assert len(kept(publisher)) == 10


async def test_rows_after_a_change_of_the_exponents_are_at_the_new_ones() -> None:
    """The server stops reading, and the instrument is defined again before all of the frame is sent."""
    # More than the buffers of the kernel.
    count = 400 * FLUSH_BYTES // 64
    async with sink() as (one, publisher):
        one.is_open.clear()
        frame = {"price": np.arange(count), "size": np.ones(count)}
        publishing = asyncio.create_task(publisher.publish_frame("trade", frame, symbol="X"))
        defining = asyncio.create_task(publisher.define("X", px_exp=-2, sz_exp=0))
        await until(lambda: "X" in publisher._defining)
        assert not publishing.done()
        one.is_open.set()
        await defining
        assert await publishing == count
        await publisher.flush()
        await until(lambda: sum(isinstance(message, bytes) for message in one.messages) >= 400)
    trades = one.trades()
    assert [int(trade.price or 0) for trade in trades] == list(range(count))
    assert {trade.instrument.px_exp for trade in trades} == {0, -2}
