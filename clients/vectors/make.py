#!/usr/bin/env python3
"""Writes packets.json, the golden bytes that every decoder of tickcast is tested on: `./make.py > packets.json`.

It implements the layouts of docs/protocol.md on its own, with `struct` only, and deliberately shares no code with any
decoder or encoder. README.md has the format of the file.
"""

import json
import struct

ABSENT = None  # No value: the least i64 on the wire, null in the JSON.
LEAST, GREATEST = -(2**63), 2**63 - 1
SAFE = 2**53 - 1  # The greatest integer up to which a double holds all integers.
TS = 1_763_700_000_000_000_000

LAST, SNAPSHOT, CONFLATED, DELAYED, MAYBE_BAD_BOOK, COMPUTED = 0x80, 0x20, 0x10, 0x08, 0x04, 0x02
PACKET_SNAPSHOT, PACKET_REPLAY, PACKET_CAUGHT_UP = 0x01, 0x02, 0x04

CHANNELS = {"quote": 1, "trade": 2, "ticker": 3, "book": 4, "raw": 5}
KINDS = CHANNELS | {"definition": 16, "heartbeat": 17, "gap": 18, "status": 19}
FLAG_WORDS = (
    (SNAPSHOT, "snapshot"),
    (CONFLATED, "conflated"),
    (DELAYED, "delayed"),
    (MAYBE_BAD_BOOK, "maybe_bad_book"),
    (COMPUTED, "computed"),
)
# The i64 fields at the price exponent or the size exponent, in the order of the bytes.
AMOUNTS = {
    "quote": {"bid_px": "px", "bid_sz": "sz", "ask_px": "px", "ask_sz": "sz"},
    "trade": {"px": "px", "sz": "sz"},
    "ticker": {
        "last_px": "px", "open_px": "px", "high_px": "px", "low_px": "px",
        "volume": "sz", "turnover": "px", "bid_px": "px", "ask_px": "px",
    },
    "definition": {"tick_size": "px", "lot_size": "sz"},
}  # fmt: skip

# The definitions so far: instrument -> (symbol, px_exp, sz_exp).
directory = {0: (None, 0, 0)}


def i64(value):
    """The eight bytes of a mantissa, or of an absent value."""
    return struct.pack("<q", LEAST if value is ABSENT else value)


def wide(value):
    """A 64-bit integer in the vectors: a decimal string, because a double does not hold it."""
    return None if value is ABSENT else str(value)


def decimal(mantissa, exponent):
    """mantissa * 10^exponent with all its decimals, as in the JSON encoding."""
    if mantissa is ABSENT:
        return None
    sign, digits = ("-" if mantissa < 0 else ""), str(abs(mantissa))
    if exponent >= 0:
        return sign + (digits + "0" * exponent if mantissa else "0")
    digits = digits.rjust(1 - exponent, "0")
    return f"{sign}{digits[:exponent]}.{digits[exponent:]}"


def body_of(kind, fields):
    """The bytes after the header of 32 bytes, without padding."""
    amounts = b"".join(i64(fields[name]) for name in AMOUNTS.get(kind, ()))
    if kind in ("quote", "ticker"):
        return amounts
    if kind == "trade":
        return amounts + struct.pack("<Qc7x", fields["trade_id"], fields["side"].encode())
    if kind == "book":
        levels = (i64(px) + i64(sz) + struct.pack("<c7x", side.encode()) for px, sz, side in fields["levels"])
        return struct.pack("<Hc5x", len(fields["levels"]), fields["kind"].encode()) + b"".join(levels)
    if kind == "raw":
        return struct.pack("<I4x", len(fields["payload"])) + fields["payload"]
    if kind == "definition":
        symbol, venue = fields["symbol"].encode(), fields["venue"].encode()
        terms = (fields["px_exp"], fields["sz_exp"], fields["status"].encode(), len(symbol), len(venue))
        return struct.pack("<bbcBB3x", *terms) + amounts + bytes(8) + symbol + venue
    if kind == "gap":
        channel = CHANNELS.get(fields["channel"], 77)
        bounds = (fields["from_sequence"], fields["to_sequence"])
        return struct.pack("<QQBc6x", *bounds, channel, fields["reason"].encode())
    if kind == "status":
        return struct.pack("<c7x", fields["state"].encode())
    return fields.get("body", b"")  # A heartbeat has none; an unknown type has the given one.


def vector_fields(kind, fields):
    """The fields of the body in the format of the vectors."""
    plain = {}
    for name, value in fields.items():
        if name == "levels":
            plain[name] = [[wide(px), wide(sz), side] for px, sz, side in value]
        elif name == "payload":
            plain["payload_hex"] = value.hex()
        elif name in AMOUNTS.get(kind, ()) or name in ("trade_id", "from_sequence", "to_sequence"):
            plain[name] = wide(value)
        elif name != "body":
            plain[name] = value
    return plain


def json_encoding(kind, header, fields):
    """The record in the subprotocol tickcast.v1+json."""
    symbol, px_exp, sz_exp = directory[header["instrument"]]
    record = {"type": kind} | ({} if symbol is None else {"symbol": symbol})
    record |= {name: header[name] for name in ("sequence", "ts_event", "ts_recv")}
    words = ([] if header["flags"] & LAST else ["more"]) + [word for bit, word in FLAG_WORDS if header["flags"] & bit]
    record |= {"flags": words} if words else {}
    exponents = {"px": px_exp, "sz": sz_exp}
    for name, value in fields.items():
        if name in AMOUNTS.get(kind, ()):
            record[name] = decimal(value, exponents[AMOUNTS[kind][name]])
        elif name == "levels":
            for key, side in (("bids", "B"), ("asks", "A")):
                record[key] = [[decimal(px, px_exp), decimal(sz, sz_exp)] for px, sz, of in value if of == side]
        elif name == "payload":
            record["payload_hex"] = value.hex()
        elif name not in ("symbol", "body") and (kind, name) != ("unknown", "kind"):
            record[name] = value
    return record


def record(kind, instrument, fields, *, flags=LAST, sequence=0, ts_event=0, ts_recv=TS, appended=b"", has_json=True):
    """One record: its bytes, and the object that a decoder must return."""
    if kind == "definition":
        directory[instrument] = (fields["symbol"], fields["px_exp"], fields["sz_exp"])
    body = body_of(kind, fields)
    body += bytes(-len(body) % 8) + appended
    number = fields["kind"] if kind == "unknown" else KINDS[kind]
    length = (32 + len(body)) // 8
    head = struct.pack("<HBBIQQQ", length, number, flags, instrument, sequence, ts_event, ts_recv)
    header = {"instrument": instrument, "flags": flags, "sequence": sequence, "ts_event": ts_event, "ts_recv": ts_recv}
    plain = {"type": kind, "length": length, "instrument": instrument, "flags": flags}
    plain |= {name: wide(header[name]) for name in ("sequence", "ts_event", "ts_recv")}
    plain |= vector_fields(kind, fields)
    plain |= {"appended_hex": appended.hex()} if appended else {}
    plain |= {"json": json_encoding(kind, header, fields)} if has_json else {}
    return head + body, plain


def packet(name, *records, flags=0, epoch=7, position=91823, ts_send=TS + 1_000):
    """One entry of the list of packets."""
    count = len(records)
    head = struct.pack("<BBHIQQ", 1, flags, count, epoch, position, ts_send)
    header = {"version": 1, "flags": flags, "count": count, "epoch": epoch}
    header |= {"position": wide(position), "ts_send": wide(ts_send)}
    octets = head + b"".join(octets for octets, _ in records)
    return {"name": name, "hex": octets.hex(), "header": header, "records": [plain for _, plain in records]}


def definition(instrument, symbol, px_exp, sz_exp, *, venue="sim", status="T", tick=ABSENT, lot=ABSENT, **rest):
    fields = {"symbol": symbol, "venue": venue, "px_exp": px_exp, "sz_exp": sz_exp, "status": status}
    return record("definition", instrument, fields | {"tick_size": tick, "lot_size": lot}, **{"ts_recv": 0} | rest)


def quote(instrument, bid_px, bid_sz, ask_px, ask_sz, **rest):
    fields = {"bid_px": bid_px, "bid_sz": bid_sz, "ask_px": ask_px, "ask_sz": ask_sz}
    return record("quote", instrument, fields, **{"sequence": 5, "ts_event": TS - 7} | rest)


def trade(instrument, px, sz, trade_id, side, **rest):
    fields = {"px": px, "sz": sz, "trade_id": trade_id, "side": side}
    return record("trade", instrument, fields, **{"sequence": 6, "ts_event": TS - 7} | rest)


def ticker(instrument, *amounts, **rest):
    return record("ticker", instrument, dict(zip(AMOUNTS["ticker"], amounts, strict=True)), **{"sequence": 7} | rest)


def book(instrument, kind, levels, **rest):
    return record("book", instrument, {"kind": kind, "levels": levels}, **{"sequence": 8} | rest)


def raw(instrument, payload, **rest):
    return record("raw", instrument, {"payload": payload}, **{"sequence": 9} | rest)


def gap(instrument, channel, first, last, reason, **rest):
    fields = {"from_sequence": first, "to_sequence": last, "channel": channel, "reason": reason}
    return record("gap", instrument, fields, **rest)


def status(instrument, state, **rest):
    return record("status", instrument, {"state": state}, **rest)


def heartbeat(**rest):
    return record("heartbeat", 0, {}, **rest)


def unknown(kind, body, instrument=1, **rest):
    return record("unknown", instrument, {"kind": kind, "body": body}, **{"sequence": 10} | rest)


BTC, SHIB, YEN, WHOLE = 1, 2, 3, 4
LONGEST_SYMBOL = "\u00dc" * 127 + "X"
LONGEST_VENUE = "\u65e5" * 85


def definitions():
    """The instruments of the following packets, and texts of every kind."""
    yield packet(
        "definitions",
        definition(BTC, "BTC-USD", -2, -5, tick=1, lot=1),
        definition(SHIB, "SHIB-USD", -18, -18),
        definition(YEN, "TOPIX-JPY", 6, 6, status="H"),
        definition(WHOLE, "WHOLE", 0, 0, venue="", status="C", tick=5, lot=100),
        flags=PACKET_SNAPSHOT,
    )
    yield packet(
        "texts_of_a_definition",
        definition(20, "X", 0, 0, venue=""),
        definition(21, "\u00c4PFEL/\u20ac", -2, 0, venue="\u6771\u4eac"),
        definition(22, "\U0001f680-USD", -4, -4, venue="\U0001f310"),
        definition(23, 'QUO"TE\\BACK\tTAB', -1, -1, venue='"'),
        definition(24, LONGEST_SYMBOL, -2, -3, venue=LONGEST_VENUE),
        definition(25, "12345678", -2, -3, venue="12345678", tick=GREATEST, lot=SAFE),
    )


def state_channels():
    """Quotes, tickers and books."""
    yield packet("quote", quote(BTC, 6183763, 378826, 6183764, 120000))
    yield packet("quote_with_one_side", quote(BTC, 6183763, 378826, ABSENT, ABSENT))
    yield packet("quote_with_no_side", quote(BTC, ABSENT, ABSENT, ABSENT, ABSENT))
    yield packet("quote_at_2_to_the_53", quote(BTC, SAFE, -SAFE, SAFE + 1, -SAFE - 1))
    yield packet("quote_beyond_2_to_the_53", quote(BTC, SAFE + 2, -SAFE - 2, GREATEST, LEAST + 1))
    yield packet("quote_at_exponent_minus_18", quote(SHIB, 1, -1, GREATEST, LEAST + 1))
    yield packet("quote_at_exponent_plus_6", quote(YEN, 1, 0, -3, GREATEST))
    yield packet("quote_of_whole_numbers", quote(WHOLE, 0, -1, 7, 100))
    yield packet("ticker", ticker(BTC, 6183763, 6000000, 6200000, 5990000, 123456789, 7634512345678, 6183763, 6183764))
    yield packet("ticker_of_extremes", ticker(BTC, ABSENT, 0, GREATEST, LEAST + 1, SAFE, -SAFE, SAFE + 2, ABSENT))
    sides = [(6183763, 100, "B"), (6183764, 7, "A"), (6183762, 0, "B"), (6183765, GREATEST, "A"), (ABSENT, ABSENT, "A")]
    yield packet("book_snapshot", book(BTC, "S", sides, flags=LAST | SNAPSHOT))
    yield packet("book_delta", book(BTC, "D", [(6183763, 0, "B")]))
    yield packet("book_of_no_levels", book(BTC, "S", []))
    bids = [(6183763 - i, 1000 + i, "B") for i in range(250)]
    asks = [(6183764 + i, 2000 + i, "A") for i in range(250)]
    yield packet("book_of_500_levels", book(BTC, "S", bids + asks))
    yield packet(
        "book_event_of_two_records",
        book(BTC, "S", bids[:2], flags=SNAPSHOT, sequence=8),
        book(BTC, "D", asks[:2], flags=SNAPSHOT | LAST, sequence=9),
    )


def log_channels():
    """Trades, raw bytes and gaps."""
    yield packet("trades_of_each_side", *(trade(BTC, 6183763, 250, 1 + i, side) for i, side in enumerate("BSN")))
    yield packet("trade_with_the_greatest_id", trade(BTC, -GREATEST, 0, 2**64 - 1, "N"))
    yield packet("trade_ids_around_2_to_the_53", *(trade(BTC, 1, 1, SAFE + i, "B", sequence=6 + i) for i in range(3)))
    octets = bytes(range(256))
    yield packet("raw_of_each_padding", *(raw(BTC, octets[:size], sequence=9 + size) for size in range(10)))
    yield packet("raw_of_every_byte", raw(BTC, octets))
    yield packet("gaps_of_each_reason", *(gap(BTC, "trade", 3 + i, 2**48 - 3 + i, why) for i, why in enumerate("SOF")))
    yield packet("gaps_of_each_channel", *(gap(BTC, channel, 1, 2**48 - 1, "S") for channel in CHANNELS))
    yield packet("gap_of_an_unknown_channel", gap(BTC, None, 1, 2, "S", has_json=False))


def stream_state():
    """Packets about the state of the stream, and flags."""
    yield packet("empty_packet")
    yield packet("empty_packet_that_ends_a_snapshot", flags=PACKET_SNAPSHOT | PACKET_CAUGHT_UP)
    yield packet("heartbeat", heartbeat())
    yield packet("status_of_the_feed", *(status(0, state) for state in "LSHE"))
    yield packet("status_of_an_instrument", *(status(BTC, state, sequence=0, ts_event=TS) for state in "LSHE"))
    for name, flags in (("snapshot", PACKET_SNAPSHOT), ("replay", PACKET_REPLAY), ("caught_up", PACKET_CAUGHT_UP)):
        yield packet(f"packet_flag_{name}", quote(BTC, 1, 1, 2, 2), flags=flags)
    yield packet("all_packet_flags_and_unknown_ones", quote(BTC, 1, 1, 2, 2), flags=0xFF)
    each = [0, *(bit for bit, _ in FLAG_WORDS), LAST, 0x40, 0x01, 0x7F, 0xFF]
    yield packet("record_flags", *(quote(BTC, 1, 1, 2, 2, flags=flags, sequence=5 + i) for i, flags in enumerate(each)))
    trades = (trade(SHIB, 1, 1, 1, "B"), trade(BTC, 1, 1, 2, "S"))
    mixed = (quote(BTC, 1, 1, 2, 2), trades[0], quote(YEN, 1, 1, 2, 2), heartbeat(), trades[1])
    yield packet("records_of_several_types", *mixed)
    yield packet("many_quotes", *(quote(1 + i % 4, i, i, i + 1, i, sequence=100 + i) for i in range(100)))


def of_a_later_version():
    """Packets of a possible later version: appended fields and unknown types."""
    more = struct.pack("<QQ", 2**64 - 1, 1)
    yield packet(
        "records_with_appended_fields",
        quote(BTC, 1, 2, 3, 4, appended=more),
        trade(BTC, 1, 2, 3, "B", appended=more),
        ticker(BTC, 1, 2, 3, 4, 5, 6, 7, 8, appended=more),
        book(BTC, "D", [(1, 2, "A")], appended=more),
        raw(BTC, b"\x01\x02\x03", appended=more),
        definition(26, "LATER", -2, -3, appended=more),
        heartbeat(appended=more),
        gap(BTC, "raw", 1, 2, "F", appended=more),
        status(0, "S", appended=more),
        quote(26, 1, 2, 3, 4),
    )
    yield packet("unknown_type", unknown(200, b""))
    known = (quote(BTC, 1, 2, 3, 4), trade(BTC, 1, 2, 3, "B"))
    among = (unknown(6, more), known[0], unknown(255, more, 0), unknown(0, more), known[1])
    yield packet("unknown_types_among_known_ones", *among)


def of_other_epochs():
    """Packets of other epochs: these are last, because definitions hold for one epoch."""
    top, most = 2**32 - 1, 2**64 - 1
    yield packet(
        "greatest_numbers",
        definition(top, "TOP", -2, -3),
        quote(top, 1, 2, 3, 4, sequence=2**48 - 1, ts_event=most, ts_recv=most),
        epoch=top,
        position=most,
        ts_send=most,
    )
    zeros = quote(BTC, 0, 0, 0, 0, sequence=0, ts_event=0, ts_recv=0)
    yield packet("least_numbers", definition(BTC, "BTC-USD", -2, -5), zeros, epoch=0, position=0, ts_send=0)


def invalid():
    """Packets that a decoder must refuse: (name, bytes, reason)."""
    head = lambda count, version=1: struct.pack("<BBHIQQ", version, 0, count, 7, 1, TS)  # noqa: E731
    one, another = quote(BTC, 1, 2, 3, 4)[0], trade(BTC, 1, 2, 3, "B")[0]
    with_length = lambda octets, length: struct.pack("<H", length) + octets[2:]  # noqa: E731
    cut = lambda octets, size: with_length(octets[:size], size // 8)  # noqa: E731
    patched = lambda octets, at, value: octets[:at] + bytes([value]) + octets[at + 1 :]  # noqa: E731
    yield "no_bytes", b"", "a packet has a header of 24 bytes"
    yield "header_cut_short", head(0)[:23], "the header has 24 bytes"
    yield "version_0", head(1, 0) + one, "the version is 1"
    yield "version_2", head(1, 2) + one, "the version is 1"
    yield "record_header_cut_short", head(1) + one[:31], "a record's header has 32 bytes"
    yield "record_of_length_0", head(1) + with_length(one, 0), "a reader would not advance"
    yield "record_shorter_than_its_header", head(1) + with_length(one, 3), "a record has at least 32 bytes"
    yield "unknown_type_of_length_0", head(1) + with_length(unknown(200, b"")[0], 0), "a record has at least 32 bytes"
    yield "record_beyond_the_end", head(1) + one[:-8], "the record says 64 bytes, 56 are left"
    yield "second_record_beyond_the_end", head(2) + one + another[:40], "the record says 64 bytes, 40 are left"
    yield "longest_length_of_a_short_record", head(1) + with_length(one, 65535), "the record says 524,280 bytes"
    yield "count_above_the_records", head(2) + one, "the header counts 2 records, 1 is there"
    yield "count_below_the_records", head(1) + one + another, "bytes follow the last record"
    yield "count_0_and_a_record", head(0) + one, "bytes follow the last record"
    yield "bytes_after_the_last_record", head(1) + one + bytes(8), "bytes follow the last record"
    yield "quote_too_short", head(1) + cut(one, 56), "a quote has 64 bytes"
    yield "trade_too_short", head(1) + cut(another, 56), "a trade has 64 bytes"
    yield "ticker_too_short", head(1) + cut(ticker(BTC, *range(8))[0], 88), "a ticker has 96 bytes"
    levels = book(BTC, "S", [(1, 2, "B"), (3, 4, "A")])[0]
    yield "book_without_a_count", head(1) + cut(levels, 32), "a book has at least 40 bytes"
    yield "book_with_more_levels_than_its_length", head(1) + patched(levels, 32, 3), "3 levels need 112 bytes, not 88"
    yield "book_that_counts_65535_levels", head(1) + patched(patched(levels, 32, 255), 33, 255), "it has 88 bytes"
    payload = raw(BTC, b"12345678")[0]
    yield "raw_without_a_length", head(1) + cut(payload, 32), "a raw record has at least 40 bytes"
    yield "raw_payload_beyond_its_length", head(1) + patched(payload, 32, 9), "9 bytes of payload end at 49, not 48"
    yield "raw_payload_of_4_gigabytes", head(1) + payload[:32] + b"\xff" * 4 + payload[36:], "it has 48 bytes"
    defined = definition(30, "ABCDEFGH", -2, -3, venue="sim")[0]
    yield "definition_too_short", head(1) + cut(defined, 56), "a definition has at least 64 bytes"
    yield "definition_with_a_symbol_beyond_its_length", head(1) + patched(defined, 35, 255), "the symbol ends beyond it"
    yield "definition_with_a_venue_beyond_its_length", head(1) + patched(defined, 36, 255), "the venue ends beyond it"
    yield "definition_with_a_symbol_that_is_not_utf8", head(1) + patched(defined, 64, 0xFF), "the symbol is not UTF-8"
    yield "definition_with_a_venue_that_is_not_utf8", head(1) + patched(defined, 72, 0xC3), "the venue is not UTF-8"
    yield "gap_too_short", head(1) + cut(gap(BTC, "trade", 1, 2, "S")[0], 48), "a gap has 56 bytes"
    yield "status_too_short", head(1) + cut(status(0, "L")[0], 32), "a status has 40 bytes"


def text():
    """The text of the file, one record per line."""
    parts = []
    for make in (definitions, state_channels, log_channels, stream_state, of_a_later_version, of_other_epochs):
        for each in make():
            head = ",\n   ".join(f'"{key}": {json.dumps(each[key])}' for key in ("name", "hex", "header"))
            records = ",\n    ".join(json.dumps(record) for record in each["records"])
            parts.append("  {" + head + ',\n   "records": [' + (f"\n    {records}" if records else "") + "]}")
    refused = [json.dumps({"name": name, "hex": octets.hex(), "reason": why}) for name, octets, why in invalid()]
    return '{"packets": [\n' + ",\n".join(parts) + '\n],\n"invalid": [\n  ' + ",\n  ".join(refused) + "\n]}\n"


if __name__ == "__main__":
    print(text(), end="")
