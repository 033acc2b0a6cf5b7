"""Frames of pandas, polars and Arrow: exact columns, times with a zone, the same dtypes with and without rows."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from conftest import TS, book, definition, packet, quote, read_arrays, record, trade

from tickcast.follow import Follower
from tickcast.http import Bars

np = pytest.importorskip("numpy")
pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")
arrays = pytest.importorskip("tickcast.arrays")

if TYPE_CHECKING:
    from tickcast.arrays import Arrays

PANDAS = {
    "symbol": "str",
    "ts_event": "datetime64[ns, UTC]",
    "ts_recv": "datetime64[ns, UTC]",
    "bid_px": "float64",
    "bid_sz": "float64",
    "ask_px": "float64",
    "ask_sz": "float64",
    "px": "float64",
    "sz": "float64",
    "trade_id": "uint64",
    "side": "str",
    "kind": "str",
    "book": "uint32",
    "sequence": "uint64",
    "flags": "uint8",
    "last_px": "float64",
    "open_px": "float64",
    "high_px": "float64",
    "low_px": "float64",
    "volume": "float64",
    "turnover": "float64",
}
POLARS = {
    "str": pl.String,
    "datetime64[ns, UTC]": pl.Datetime("ns", "UTC"),
    "float64": pl.Float64,
    "uint64": pl.UInt64,
    "uint32": pl.UInt32,
    "uint8": pl.UInt8,
    "int64": pl.Int64,
}
COLUMNS = {
    "quote": ["symbol", "ts_event", "ts_recv", "bid_px", "bid_sz", "ask_px", "ask_sz", "sequence", "flags"],
    "trade": ["symbol", "ts_event", "ts_recv", "px", "sz", "trade_id", "side", "sequence", "flags"],
    "ticker": ["symbol", "ts_event", "ts_recv", "last_px", "open_px", "high_px", "low_px", "volume", "turnover"],
    "book": ["symbol", "ts_event", "ts_recv", "kind", "px", "sz", "side", "book", "sequence", "flags"],
}
COLUMNS["ticker"] += ["bid_px", "ask_px", "sequence", "flags"]
EVENT = 1_763_700_000_123_456_789


def with_time(one: bytes) -> bytes:
    """A record with a time of the venue."""
    return one[:16] + EVENT.to_bytes(8, "little") + one[24:]


def read(*records: bytes) -> Arrays:
    """The arrays of a packet with two instruments of different exponents."""
    definitions = definition(1, "BTC-USD"), definition(2, "SHIB", px_exp=-8, sz_exp=2)
    return read_arrays(Follower(), packet(*definitions, *records))


def full() -> Arrays:
    ticker = record(3, 1, b"".join(value.to_bytes(8, "little", signed=True) for value in [arrays.ABSENT, *range(1, 8)]))
    quotes = with_time(quote(1, 6_183_763)), quote(1, arrays.ABSENT + 1, instrument=2)
    trades = with_time(trade(1, 6_183_763)), trade(1, 1234, instrument=2), trade(2)
    return read(*quotes, *trades, ticker, book(b"S", [(99, 1, b"B"), (101, 2, b"A")], 1), book(b"S", [], 2))


@pytest.mark.parametrize("channel", COLUMNS)
def test_the_columns_and_their_dtypes_do_not_depend_on_the_rows(channel: str) -> None:
    expected = {name: PANDAS[name] for name in COLUMNS[channel]}
    some: Any = full().rows(channel)
    for rows in (some, some[:0], some[:1]):
        frame = rows.to_pandas()
        assert {name: str(frame[name].dtype) for name in frame} == expected and len(frame) == len(rows)
        assert [*frame.columns] == [*expected]
        assert rows.to_polars().schema == {name: POLARS[kind] for name, kind in expected.items()}
        kinds = {"str": "string", "datetime64[ns, UTC]": "timestamp[ns, tz=UTC]", "float64": "double"}
        schema = rows.to_arrow().schema
        assert {one.name: str(one.type) for one in schema} == {a: kinds.get(b, b) for a, b in expected.items()}


def test_values_are_those_of_the_records() -> None:
    one: Any = full()
    quotes = one.quote.to_pandas()
    assert quotes["symbol"].tolist() == ["BTC-USD", "SHIB"]
    assert quotes["bid_px"].tolist() == [61837.63, -92233720368.54775807]
    assert quotes["ts_event"].tolist() == [pd.Timestamp(EVENT, tz="UTC"), pd.NaT]
    assert quotes["ts_recv"][0] == pd.Timestamp(TS, tz="UTC")
    trades = one.trade.to_pandas()
    assert trades["px"].tolist() == [61837.63, 0.00001234, 1.0] and trades["sz"].tolist() == [0.001, 100.0, 0.001]
    assert trades["side"].tolist() == ["B", "B", "B"] and trades["trade_id"].tolist() == [1, 1, 2]
    assert np.isnan(one.ticker.to_pandas()["last_px"][0])
    books = one.book.to_pandas()
    assert books["side"].tolist() == ["B", "A", ""] and books["book"].tolist() == [0, 0, 1]
    assert books["kind"].tolist() == ["S", "S", "S"] and books["px"].tolist()[:2] == [0.99, 1.01]
    assert np.isnan(books["px"][2])


def test_what_is_absent_is_null_in_polars_and_arrow() -> None:
    one: Any = full()
    assert one.ticker.to_polars()["last_px"].to_list() == one.ticker.to_arrow()["last_px"].to_pylist() == [None]
    for column in (one.quote.to_polars()["ts_event"].to_list(), one.quote.to_arrow()["ts_event"].to_pylist()):
        assert column[1] is None and column[0].utcoffset().total_seconds() == 0
    assert one.quote.to_polars()["ts_event"].cast(pl.Int64).to_list() == [EVENT, None]
    assert one.trade.to_polars()["px"].to_list() == one.trade.to_arrow()["px"].to_pylist() == [61837.63, 1.234e-05, 1.0]


def test_selected_rows_make_frames_and_columns_do_not() -> None:
    rows: Any = full().trade
    assert rows[rows["trade_id"] == 2].to_pandas()["px"].tolist() == [1.0]
    for wrong in (rows["px"], arrays.empty(2).view(arrays.Rows)):
        with pytest.raises(ValueError, match="rows: no rows of records with their scales"):
            wrong.to_pandas()


def test_ids_of_any_size_are_symbols() -> None:
    ids = [1, 4_000_000_000, 1]
    records = [definition(4_000_000_000, "HIGH"), trade(1), trade(1, instrument=ids[1]), trade(2)]
    rows: Any = read(*records).trade
    assert rows.to_pandas()["symbol"].tolist() == ["BTC-USD", "HIGH", "BTC-USD"]
    assert rows.scales.symbols(rows).tolist() == ["BTC-USD", "HIGH", "BTC-USD"]


ANSWER = {
    "symbol": "BTC-USD",
    "interval_s": 60,
    "time": [1_763_700_000, 1_763_700_060],
    **{name: ["100.01", None] for name in ("open", "high", "low", "close", "bid_px", "ask_px")},
    "volume": ["1.5", "0"],
    "trades": [3, 0],
}


def test_bars_are_frames() -> None:
    expected = {"symbol": "str", "time": "datetime64[ns, UTC]"}
    expected |= dict.fromkeys(["open", "high", "low", "close", "volume"], "float64")
    expected |= {"trades": "int64", "bid_px": "float64", "ask_px": "float64"}
    none = {name: [] if isinstance(column, list) else column for name, column in ANSWER.items()}
    for answer, count in ((ANSWER, 2), (none, 0)):
        bars = Bars(answer)
        for one in (bars, bars.as_arrays()):
            frame = one.to_pandas()
            assert {name: str(frame[name].dtype) for name in frame} == expected and len(frame) == count
            assert one.to_polars().schema == {name: POLARS[kind] for name, kind in expected.items()}
            assert one.to_arrow().num_rows == count
    frame = Bars(ANSWER).to_pandas()
    assert frame["time"][1] == pd.Timestamp("2025-11-21 04:41", tz="UTC")
    assert frame["close"][0] == 100.01 and np.isnan(frame["close"][1]) and frame["symbol"].tolist() == ["BTC-USD"] * 2


MISSING = """
import sys
sys.modules[{library!r}] = None
from tickcast import arrays
rows = arrays.Scales({{}}).marked(arrays.empty(2))
try:
    rows.to_{method}()
except ImportError as error:
    print(error)
"""


WITHOUT_NUMPY = """
import asyncio, sys
sys.modules["numpy"] = None
import tickcast
from tickcast.connection import Endpoint

async def main():
    client = tickcast.connect()._client
    publisher = tickcast.Publisher(Endpoint("ws://127.0.0.1:1"))
    bars = tickcast.http.Bars({"time": []})
    for call in (
        lambda: client.collect("quote", count=1),
        lambda: client.batches("quote").__anext__(),
        lambda: client.arrays().__anext__(),
        lambda: client.scales,
        lambda: publisher.publish_frame("quote", {}),
        bars.as_arrays,
        bars.to_pandas,
    ):
        try:
            await call()
        except ImportError as error:
            print(error)

asyncio.run(main())
"""


def test_a_program_without_numpy_is_told_which_calls_need_it() -> None:
    path = ":".join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-B", "-c", WITHOUT_NUMPY],
        check=False,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": path},
    )
    lines = done.stdout.splitlines()
    names = ["collect", "batches", "arrays", "scales", "publish_frame", "bars", "to_pandas"]
    assert [line.partition(":")[0] for line in lines] == names, done.stderr
    assert all(line.endswith("expected `pip install numpy`") for line in lines)


@pytest.mark.parametrize(("library", "method"), [("pandas", "pandas"), ("polars", "polars"), ("pyarrow", "arrow")])
def test_a_missing_library_is_named(library: str, method: str) -> None:
    code = MISSING.format(library=library, method=method)
    path = ":".join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], check=False, capture_output=True, text=True, env={"PYTHONPATH": path}
    )
    assert done.stdout.startswith(f"to_{method}: {library} cannot be imported"), done.stderr
    assert done.stdout.endswith(f"expected `pip install {library}`\n")
