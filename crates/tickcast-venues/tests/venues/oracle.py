"""Rebuilds books and trades from a recorded session, with none of the program's code.

Usage: oracle.py FILE.gz. The lines are those of cryptofeed: `<seconds>: <message>`, and `wss://…` for what was sent.
Writes one JSON object: for each instrument its last book and its trades, the CRC-32 of all books after each hundredth
message, and how many checksums of the venue were right.
"""

import decimal
import gzip
import json
import sys
import zlib

CHECKPOINT_LINES = 100


def plain(text):
    """A number without zeros at its end."""
    value = decimal.Decimal(text)
    return "0" if value == 0 else format(value.normalize(), "f")


class Instrument:
    def __init__(self):
        self.sides = {"b": {}, "a": {}}
        self.trades = []

    def set(self, side, px, sz):
        levels = self.sides[side]
        key = decimal.Decimal(px)
        if decimal.Decimal(sz) == 0:
            levels.pop(key, None)
        else:
            levels[key] = (px, sz)

    def best(self, side, count):
        return [self.sides[side][px] for px in sorted(self.sides[side], reverse=side == "b")[:count]]

    def cut(self, depth):
        for side in "ba":
            for px in sorted(self.sides[side], reverse=side == "b")[depth:]:
                del self.sides[side][px]

    def text(self):
        parts = []
        for side in "ba":
            parts += [f"{side}{plain(px)}x{plain(sz)}" for px, sz in self.best(side, None)]
        return " ".join(parts)


class Session:
    def __init__(self):
        self.instruments = {}
        self.verified = 0
        self.failed = 0

    def of(self, symbol):
        return self.instruments.setdefault(symbol, Instrument())

    def verify(self, text, stated):
        if zlib.crc32(text.encode()) == stated:
            self.verified += 1
        else:
            self.failed += 1

    def take(self, message):
        if isinstance(message, list):
            self.kraken(message)
        elif "type" in message:
            self.coinbase(message)
        elif "data" in message:
            self.okx(message)

    def coinbase(self, message):
        kind = message["type"]
        if kind == "snapshot":
            book = self.of(message["product_id"])
            book.sides = {"b": {}, "a": {}}
            for side, key in (("b", "bids"), ("a", "asks")):
                for px, sz in message[key]:
                    book.set(side, px, sz)
        elif kind == "l2update":
            for side, px, sz in message["changes"]:
                self.of(message["product_id"]).set("b" if side == "buy" else "a", px, sz)
        elif kind in ("match", "last_match"):
            # The side is that of the maker.
            side = "S" if message["side"] == "buy" else "B"
            trade = [message["trade_id"], plain(message["price"]), plain(message["size"]), side]
            self.of(message["product_id"]).trades.append(trade)

    def kraken(self, message):
        symbol, channel = message[-1], message[-2]
        if not channel.startswith("book-"):
            return
        book = self.of(symbol)
        parts = {}
        for part in message[1:-2]:
            parts.update(part)
        if "as" in parts or "bs" in parts:
            book.sides = {"b": {}, "a": {}}
        for side, keys in (("b", ("bs", "b")), ("a", ("as", "a"))):
            for key in keys:
                for level in parts.get(key, []):
                    book.set(side, level[0], level[1])
        book.cut(int(channel.split("-")[1]))
        if "c" in parts:
            digits = [text.replace(".", "").lstrip("0") for level in book.best("a", 10) + book.best("b", 10) for text in level]
            self.verify("".join(digits), int(parts["c"]))

    def okx(self, message):
        channel = message["arg"]["channel"]
        for data in message["data"]:
            if channel == "trades":
                trade = [int(data["tradeId"]), plain(data["px"]), plain(data["sz"]), data["side"][0].upper()]
                self.of(data["instId"]).trades.append(trade)
            elif channel == "books":
                book = self.of(message["arg"]["instId"])
                if message["action"] == "snapshot":
                    book.sides = {"b": {}, "a": {}}
                for side, key in (("b", "bids"), ("a", "asks")):
                    for level in data[key]:
                        book.set(side, level[0], level[1])
                bids, asks = book.best("b", 25), book.best("a", 25)
                texts = []
                for nth in range(25):
                    for levels in (bids, asks):
                        if nth < len(levels):
                            texts += levels[nth]
                self.verify(":".join(texts), data["checksum"] & 0xFFFFFFFF)


def main():
    session = Session()
    checkpoints = []
    count = 0
    with gzip.open(sys.argv[1], "rt", encoding="utf-8") as lines:
        for line in lines:
            stamp, separator, text = line.partition(": ")
            if not separator or not stamp.replace(".", "").isdigit():
                continue
            session.take(json.loads(text))
            count += 1
            if count % CHECKPOINT_LINES == 0:
                texts = [f"{name} {session.instruments[name].text()}" for name in sorted(session.instruments)]
                checkpoints.append(zlib.crc32("\n".join(texts).encode()))
    instruments = {
        name: {"book": instrument.text(), "trades": instrument.trades}
        for name, instrument in session.instruments.items()
    }
    result = {
        "instruments": instruments,
        "checkpoints": checkpoints,
        "verified": session.verified,
        "failed": session.failed,
        "messages": count,
    }
    json.dump(result, sys.stdout)


main()
