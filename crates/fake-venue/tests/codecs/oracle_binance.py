"""Rebuilds the book of a recorded session of Binance, with none of the program's code.

Usage: oracle_binance.py FILE.gz. The lines are `<receive ns> <message>`; one of them is the REST snapshot.
Writes one JSON object: the last book of the instrument.
"""

import decimal
import gzip
import json
import sys


def plain(text):
    """A number without zeros at its end."""
    value = decimal.Decimal(text)
    return "0" if value == 0 else format(value.normalize(), "f")


def main():
    snapshot, updates, symbol = None, [], None
    with gzip.open(sys.argv[1], "rt", encoding="utf-8") as lines:
        for line in lines:
            message = json.loads(line.split(" ", 1)[1])
            if "lastUpdateId" in message:
                snapshot = snapshot or message
                continue
            data = message["data"]
            symbol = data["s"]
            if data.get("e") == "depthUpdate":
                updates.append(data)
    sides = {"b": {}, "a": {}}
    for side, key in (("b", "bids"), ("a", "asks")):
        for px, sz in snapshot[key]:
            sides[side][decimal.Decimal(px)] = sz
    for data in updates:
        if data["u"] <= snapshot["lastUpdateId"]:
            continue
        for side in "ba":
            for px, sz in data[side]:
                if decimal.Decimal(sz) == 0:
                    sides[side].pop(decimal.Decimal(px), None)
                else:
                    sides[side][decimal.Decimal(px)] = sz
    parts = []
    for side in "ba":
        prices = sorted(sides[side], reverse=side == "b")
        parts += [f"{side}{plain(px)}x{plain(sides[side][px])}" for px in prices]
    json.dump({"instruments": {symbol: {"book": " ".join(parts)}}}, sys.stdout)


main()
