"""The decoder against the golden bytes of `clients/vectors`, whose README has the format."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from conftest import ROOT, read_arrays

from tickcast import wire
from tickcast.errors import ProtocolError
from tickcast.follow import Follower
from tickcast.records import (
    NO_INSTRUMENT,
    AnyRecord,
    Book,
    Definition,
    Gap,
    Instrument,
    Level,
    Quote,
    Raw,
    Status,
    Trade,
)

np = pytest.importorskip("numpy")

VECTORS = json.loads((ROOT / "clients/vectors/packets.json").read_text())
PACKETS: list[dict[str, Any]] = VECTORS["packets"]
WIDE = ("sequence", "ts_event", "ts_recv", "trade_id", "from_sequence", "to_sequence")


def test_the_vectors_are_complete() -> None:
    assert len(PACKETS) > 40
    assert len(VECTORS["invalid"]) > 25


def number(value: int | None) -> str | None:
    return None if value is None else str(value)


def as_vector(record: AnyRecord) -> dict[str, Any]:
    """A record in the format of the vectors."""
    fields: dict[str, Any] = {"type": record.TYPE, "instrument": record.instrument.id, "flags": record.flags}
    fields.update((name, str(getattr(record, name))) for name in WIDE if hasattr(record, name))
    fields |= {name: number(getattr(record, name)) for name in record.AMOUNTS}
    match record:
        case Trade():
            fields["side"] = record.side
        case Book():
            fields["kind"] = record.kind
            fields["levels"] = [[number(px), number(sz), side] for px, sz, side in record.levels]
        case Raw():
            fields["payload_hex"] = record.payload.hex()
        case Definition(instrument=of):
            fields |= {"symbol": of.symbol, "venue": of.venue, "px_exp": of.px_exp, "sz_exp": of.sz_exp}
            fields |= {"status": of.status, "tick_size": number(of.tick_size), "lot_size": number(of.lot_size)}
        case Gap():
            fields |= {"channel": record.channel, "reason": record.reason}
        case Status():
            fields["state"] = record.state
        case _:
            pass
    return fields


def known(vector: dict[str, Any]) -> list[dict[str, Any]]:
    """The vector's records of known types and channels."""
    return [one for one in vector["records"] if one["type"] != "unknown" and one.get("channel", "") is not None]


def expected(vector: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {name: one[name] for name in one if name not in ("json", "length", "appended_hex")} for one in known(vector)
    ]


def decoded() -> list[tuple[dict[str, Any], wire.PacketHeader, list[AnyRecord], dict[int, Instrument]]]:
    """All packets in order. A new epoch has an empty directory."""
    directory: dict[int, Instrument] = {}
    epoch = None
    packets: list[tuple[dict[str, Any], wire.PacketHeader, list[AnyRecord], dict[int, Instrument]]] = []
    for vector in PACKETS:
        data = bytes.fromhex(vector["hex"])
        if epoch != (epoch := wire.read_header(data).epoch):
            directory = {}
        packets.append((vector, *wire.decode(data, directory), dict(directory)))
    return packets


def test_headers_and_records_equal_the_vectors() -> None:
    for vector, header, records, _ in decoded():
        fields: dict[str, Any] = {"version": 1, "flags": header.flags, "count": header.count, "epoch": header.epoch}
        fields |= {"position": str(header.position), "ts_send": str(header.ts_send)}
        assert fields == vector["header"], vector["name"]
        assert [as_vector(record) for record in records] == expected(vector), vector["name"]


def test_as_dict_of_str_equals_the_json_encoding() -> None:
    compared = 0
    for vector, _, records, _ in decoded():
        for record, one in zip(records, known(vector), strict=True):
            if "json" in one:
                assert record.as_dict(str) == one["json"], vector["name"]
                compared += 1
    assert compared > 150


def test_decimals_are_exact_at_the_extremes() -> None:
    for vector, _, records, _ in decoded():
        for record, one in zip(records, known(vector), strict=True):
            for field in record.AMOUNTS:
                text = one["json"][field]
                assert record.decimal(field) == (None if text is None else Decimal(text)), vector["name"]


def test_arrays_equal_the_records() -> None:
    from tickcast import arrays

    for vector, _, records, directory in decoded():
        follower = Follower()
        # Sequences have no order across the vectors: each packet is followed alone.
        follower.epoch, follower.directory = vector["header"]["epoch"], directory
        read = read_arrays(follower, bytes.fromhex(vector["hex"]))
        for name, kind in (("quote", wire.QUOTE), ("trade", wire.TRADE), ("ticker", wire.TICKER)):
            rows = getattr(read, name)
            expected_rows = once([record for record in records if name == record.TYPE])
            assert rows.dtype == arrays.DTYPES[kind]
            assert [row["instrument"] for row in rows] == [one.instrument.id for one in expected_rows], vector["name"]
            for row, one in zip(rows, expected_rows, strict=True):
                assert row["sequence"] == one.sequence
                for field in one.AMOUNTS:
                    mantissa = getattr(one, field)
                    assert row[field] == (arrays.ABSENT if mantissa is None else mantissa), vector["name"]
        # A record without levels has a row as well.
        none = [Level(None, None, "")]
        levels = [(level, one.sequence) for one in records if isinstance(one, Book) for level in one.levels or none]
        assert len(read.book) == len(levels), vector["name"]
        for row, ((px, sz, side), sequence) in zip(read.book, levels, strict=True):
            assert (row["side"].decode(), row["sequence"]) == (side, sequence)
            assert row["px"] == (arrays.ABSENT if px is None else px)
            assert row["sz"] == (arrays.ABSENT if sz is None else sz)


def once(records: list[AnyRecord]) -> list[AnyRecord]:
    """Without records that a follower counts as repeated: some vectors repeat a sequence, or have 0."""
    newest: dict[int, int] = {}
    new: list[AnyRecord] = []
    for record in records:
        if record.sequence > newest.get(record.instrument.id, 0):
            newest[record.instrument.id] = record.sequence
            new.append(record)
    return new


@pytest.mark.parametrize("vector", VECTORS["invalid"], ids=lambda vector: vector["name"])
def test_invalid_packets_raise(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    directory = {1: Instrument(1, "BTC-USD")}
    with pytest.raises(ProtocolError):
        wire.decode(data, directory)
    follower = Follower()
    follower.epoch, follower.directory = 7, directory
    with pytest.raises(ProtocolError):
        read_arrays(follower, data)


def test_every_cut_packet_raises() -> None:
    for vector, *_, directory in decoded():
        data = bytes.fromhex(vector["hex"])
        for size in [*range(min(len(data), 200)), *range(200, len(data), 97), len(data) - 1]:
            with pytest.raises(ProtocolError):
                wire.decode(data[:size], directory)


def test_floats_are_nearest_or_nan() -> None:
    from tickcast.arrays import Scales

    follower = Follower()
    for vector in PACKETS[:3]:
        rows = read_arrays(follower, bytes.fromhex(vector["hex"])).quote
    scales = Scales(follower.directory)
    assert scales.floats(rows, "bid_px").tolist() == [61837.63]
    assert scales.floats(rows, "ask_sz").tolist() == [1.2]
    assert scales.symbols(rows).tolist() == ["BTC-USD"]
    rows = read_arrays(follower, bytes.fromhex(PACKETS[4]["hex"])).quote
    assert len(rows) == 0, "a repeated record"
    follower.sequences[wire.QUOTE][1] = 0
    rows = read_arrays(follower, bytes.fromhex(PACKETS[4]["hex"])).quote
    assert np.isnan(scales.floats(rows, "ask_px")).all()
    columns = scales.columns(rows)
    assert columns["ts_recv"].dtype == "datetime64[ns]"
    assert columns["symbol"].tolist() == ["BTC-USD"]


def test_a_quote_has_exact_prices() -> None:
    record = decoded()[2][2][0]
    assert isinstance(record, Quote)
    assert (record.symbol, record.bid_px, record.bid_price) == ("BTC-USD", 6183763, Decimal("61837.63"))
    assert (str(record.ask_price), str(record.ask_size)) == ("61837.64", "1.20000")
    assert record.time.isoformat() == "2025-11-21T04:40:00+00:00"
    assert record.as_dict(float)["bid_px"] == 61837.63
    assert NO_INSTRUMENT.symbol == ""
