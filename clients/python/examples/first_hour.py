"""The first hour with tickcast: a price, frames of a market, bars, a file, and ticks of your own.

    pip install './clients/python[pandas,polars,arrow]'
    ./target/release/tickcast --publish-token-file token     # a simulated market, and publishers are allowed
    python first_hour.py ws://127.0.0.1:9001 --publish-token-file token

Without a token, nothing is published. Everything here waits for its result: `tickcast.sync` needs no asyncio.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import pandas as pd
import polars as pl

from tickcast import sync

SYMBOL = "MINE-USD"
TICKS = """time,price,size,side
2026-01-05T14:30:00.000000001Z,100.51,0.25,buy
2026-01-05T14:30:00.250Z,100.52,1.5,buy
2026-01-05T14:30:01Z,100.50,0.75,sell
2026-01-05T14:30:02.5Z,100.49,2,sell
"""


def first_price(client: sync.Client, started: float) -> None:
    """One record, with exact prices."""
    quote = next(record for record in client if record.TYPE == "quote")
    took_ms = (time.perf_counter() - started) * 1e3
    print(f"first price after {took_ms:.0f} ms: {quote.symbol} {quote.as_dict(str)}")


def market(client: sync.Client, folder: Path) -> None:
    """Frames of all channels, from one call."""
    tables = client.collect(["quote", "trade", "book"], seconds=2)
    frames = tables.to_pandas()
    for channel, frame in frames.items():
        print(f"\n{len(frame)} rows of {channel}, {len(tables[channel].gaps)} gaps\n{frame.head(3)}")
    quotes, trades = frames["quote"], frames["trade"]
    assert len(quotes) and len(trades) and len(frames["book"])
    assert str(quotes["ts_recv"].dtype) == "datetime64[ns, UTC]"

    # Each trade with the quote before it. The first quotes are the newest from before the call, by instrument.
    quotes = quotes.sort_values("ts_recv", kind="stable")
    both = pd.merge_asof(trades, quotes, on="ts_recv", by="symbol", suffixes=("", "_quote"))
    both["mid"] = (both["bid_px"] + both["ask_px"]) / 2
    print(f"\nmean distance of a trade from the middle: {(both['px'] - both['mid']).abs().mean():.4f}")

    spreads = tables["quote"].to_polars().with_columns(spread=pl.col("ask_px") - pl.col("bid_px"))
    print(spreads.group_by("symbol").agg(pl.col("spread").mean(), pl.len()).sort("symbol").head(3))

    trades.to_parquet(folder / "trades.parquet")
    assert pd.read_parquet(folder / "trades.parquet").equals(trades)


def bars(client: sync.Client, symbol: str) -> None:
    """Bars that the server has made of the trades."""
    frame = client.bars(symbol, interval_s=1, limit=100).to_pandas()
    print(f"\n{len(frame)} bars of a second\n{frame.tail(3)}")
    assert [*frame.columns][:6] == ["symbol", "time", "open", "high", "low", "close"]


def own_ticks(url: str, token: str, folder: Path) -> None:
    """A CSV is published, and read back."""
    path = folder / "ticks.csv"
    path.write_text(TICKS)
    ticks = pd.read_csv(path)
    ticks["ts_event"] = pd.to_datetime(ticks.pop("time"), utc=True, format="ISO8601")
    with sync.connect(url) as client, sync.publish(token, url) as publisher:
        publisher.define(SYMBOL, px_exp=-2, sz_exp=-3)
        client.subscribe([SYMBOL], channels=["trade"])
        publisher.publish_frame("trade", ticks, symbol=SYMBOL)
        publisher.flush()
        read = client.collect("trade", count=len(ticks)).to_pandas()
    print(f"\npublished and read back\n{read}")
    assert read["px"].tolist() == ticks["price"].tolist()
    assert read["sz"].tolist() == ticks["size"].tolist()
    assert read["ts_event"].tolist() == ticks["ts_event"].tolist()
    assert read["side"].tolist() == ["B", "B", "S", "S"]


def main() -> None:
    """Runs all of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url", nargs="?", default="ws://127.0.0.1:9001")
    parser.add_argument("--publish-token-file", type=Path)
    given = parser.parse_args()
    pd.set_option("display.width", 160, "display.max_columns", 12)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, sync.connect(given.url) as client:
        client.subscribe(["*"], channels=["quote", "trade", "book"])
        first_price(client, started)
        market(client, Path(folder))
        bars(client, next(iter(client.instruments)))
        if given.publish_token_file is not None:
            own_ticks(given.url, given.publish_token_file.read_text().strip(), Path(folder))
    print("done")


if __name__ == "__main__":
    main()
