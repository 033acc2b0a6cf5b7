"""The first hour of a feed owner: trades of a CSV file become a live market.

    pip install ./clients/python
    tickcast --publish-token-file token --archive-dir bars
    python publish_csv.py ticks.csv --symbol MINE-USD --publish-token-file token

The file has a header with `ts_event`, `price`, `size` and, if it is known, `side`: `buy` or `sell`. Times are RFC 3339
with an offset. The trades are published at the pace of the file, and then the instrument stays live until Ctrl-C: the
page shows its price, its bars, and the change, high, low and volume that the server computes from the trades.

What happened before is loaded into the archive, and needs no connection:

    tickcast archive load --archive-dir bars --symbol MINE-USD yesterday.csv
"""

from __future__ import annotations

import argparse
import csv
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from tickcast import sync


class Tick(NamedTuple):
    """A trade of the file, with exact numbers."""

    time: datetime
    price: Decimal
    size: Decimal
    side: str


def read(path: Path) -> list[Tick]:
    """The trades of a file, in the order of their times."""
    ticks = []
    with path.open(newline="") as file:
        lines = csv.DictReader(file)
        for row in lines:
            try:
                when = datetime.fromisoformat(row["ts_event"])
                tick = Tick(when, Decimal(row["price"]), Decimal(row["size"]), row.get("side") or "N")
            except (KeyError, TypeError, ValueError, ArithmeticError) as error:
                raise SystemExit(
                    f"{path}, line {lines.line_num}: {error!r}: expected ts_event, price and size"
                ) from None
            if when.tzinfo is None:
                raise SystemExit(f"{path}, line {lines.line_num}: ts_event {when}: expected an offset, such as Z")
            ticks.append(tick)
    return sorted(ticks, key=lambda tick: tick.time)


def exponent(values: Iterator[Decimal]) -> int:
    """The exponent at which all of them are whole numbers, such as -2 for hundredths."""
    return min((int(value.normalize().as_tuple().exponent) for value in values if value), default=0)


def publish(ticks: list[Tick], symbol: str, url: str, token: str, speed: float) -> None:
    """Publishes the trades, and prints when a subscriber has the first one."""
    px_exp, sz_exp = (min(0, exponent(values)) for values in ((t.price for t in ticks), (t.size for t in ticks)))
    started = time.perf_counter()
    with sync.connect(url) as client, sync.publish(token, url, heartbeat_s=2) as publisher:
        publisher.define(symbol, px_exp=px_exp, sz_exp=sz_exp, venue="mine")
        client.subscribe([symbol], channels=["trade"])
        for nth, tick in enumerate(ticks):
            due_s = (tick.time - ticks[0].time).total_seconds() / speed
            time.sleep(max(0.0, started + due_s - time.perf_counter()))
            publisher.trade(symbol, tick.price, tick.size, side=tick.side, ts_event=tick.time)
            publisher.flush()
            if nth == 0:
                first = next(record for record in client if record.TYPE == "trade")
                took_ms = (time.perf_counter() - started) * 1e3
                print(f"first price after {took_ms:.0f} ms: {first.symbol} {first.as_dict(str)['px']}", flush=True)
        print(f"published {len(ticks)} trades; {symbol} is live until Ctrl-C", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("done")


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--symbol", required=True)
    parser.add_argument("--url", default="ws://127.0.0.1:9001")
    parser.add_argument("--publish-token-file", type=Path, required=True)
    parser.add_argument("--speed", type=float, default=1.0, help="times the pace of the file")
    given = parser.parse_args()
    ticks = read(given.file)
    if not ticks:
        parser.error(f"{given.file} has no trades: expected lines below the header")
    publish(ticks, given.symbol, given.url, given.publish_token_file.read_text().strip(), given.speed)


if __name__ == "__main__":
    main()
