"""What is new, what is missing, what is asked for anew: rules that need no socket."""

from __future__ import annotations

import json
import random
import struct
from decimal import Decimal

import pytest
from conftest import definition, gap, packet, quote, record, status, trade

from tickcast import Backoff, Book, Gap, OrderBook, ProtocolError, Quote, State, Trade, wire
from tickcast.follow import Follower
from tickcast.http import plain_url, refusal, stream_url
from tickcast.publish import mantissa
from tickcast.subscriptions import Wanted, check, requests

SNAPSHOT, CONFLATED = 0x20, 0x10


def follow(*packets: bytes) -> tuple[Follower, list[tuple[str, int, int]]]:
    """What is news of these packets: types with sequences, and gaps with what is missing."""
    follower, news = Follower(), []
    for data in packets:
        for one in follower.packet(data)[1]:
            if isinstance(one, Gap):
                news.append(("gap", one.from_sequence, one.to_sequence))
            elif isinstance(one, (Quote, Trade)):
                news.append((one.TYPE, one.sequence, one.sequence))
    return follower, news


def test_a_replay_brings_only_what_is_new() -> None:
    first = packet(definition(), quote(1), trade(1), quote(2), trade(2))
    again = packet(trade(2), quote(2), trade(3), quote(3), flags=wire.REPLAY)
    follower, news = follow(first, again)
    assert [one[:2] for one in news[4:]] == [("trade", 3), ("quote", 3)]
    assert (follower.repeated, follower.missing) == (2, 0)


def test_a_hole_of_a_log_is_told_and_of_a_state_is_not() -> None:
    _, news = follow(packet(definition(), quote(1), trade(1)), packet(quote(9, flags=0x80 | CONFLATED), trade(9)))
    assert news[2:] == [("quote", 9, 9), ("gap", 2, 8), ("trade", 9, 9)]


def test_a_gap_that_the_server_tells_is_told_once() -> None:
    follower, news = follow(packet(definition(), trade(1)), packet(gap(2, 8), trade(9)))
    assert news == [("trade", 1, 1), ("gap", 2, 8), ("trade", 9, 9)]
    assert (follower.gaps, follower.missing) == (1, 7)


def test_a_snapshot_may_say_again_what_is_had() -> None:
    _, news = follow(
        packet(definition(), quote(5), trade(5)), packet(quote(5, flags=SNAPSHOT), trade(5, flags=SNAPSHOT))
    )
    assert news == [("quote", 5, 5), ("trade", 5, 5), ("quote", 5, 5)]


def test_a_new_epoch_begins_anew() -> None:
    follower, news = follow(packet(definition(), trade(9)), packet(definition(), trade(1), epoch=8))
    assert news == [("trade", 9, 9), ("gap", 0, 0), ("trade", 1, 1)]
    with pytest.raises(ProtocolError, match="before its definition"):
        follower.packet(packet(trade(1), epoch=9))


def test_a_restart_tells_of_each_log_that_what_came_before_it_is_not_known() -> None:
    start = packet(definition(), definition(2, "ETH-USD"), quote(1), trade(4), quote(1, instrument=2))
    for_all = [("BTC-USD", "trade", 0, 0, "R")]
    follower, _ = follow(start)
    told = follower.packet(packet(definition(1, "ETH-USD"), epoch=8))[1]
    gaps = [one for one in told if isinstance(one, Gap)]
    assert [(g.symbol, g.channel, g.from_sequence, g.to_sequence, g.reason) for g in gaps] == for_all
    assert (follower.gaps, follower.missing) == (1, 0)
    arrays = pytest.importorskip("tickcast.arrays")
    follower, _ = follow(start)
    others = arrays.read(follower, packet(definition(1, "ETH-USD"), epoch=8)).others
    assert [(g.symbol, g.channel, g.reason) for g in others if isinstance(g, Gap)] == [("BTC-USD", "trade", "R")]


def test_arrays_mean_what_their_epoch_said() -> None:
    arrays = pytest.importorskip("tickcast.arrays")
    follower = Follower()
    old = arrays.read(follower, packet(definition(), quote(1, 100)))
    new = arrays.read(follower, packet(definition(1, "ETH-USD"), quote(1, 100), epoch=8))
    assert old.scales.symbols(old.quote).tolist() == ["BTC-USD"]
    assert new.scales.symbols(new.quote).tolist() == ["ETH-USD"]
    rows = old.quote.view(arrays.Rows)
    rows.scales = old.scales
    assert rows[:1].scales.symbols(rows).tolist() == ["BTC-USD"]
    with pytest.raises(ValueError, match="restart of the server"):
        new.scales.columns(rows)


def test_what_was_unsubscribed_is_no_hole_when_it_comes_again() -> None:
    follower, _ = follow(packet(definition(), trade(1)))
    follower.forget([("quote", "*"), ("trade", "BTC-*")])
    assert [type(one) for one in follower.packet(packet(trade(9)))[1]] == [Trade]


def test_states_are_those_of_the_instrument_and_of_the_feed() -> None:
    follower, _ = follow(packet(definition(), quote(1)))
    assert follower.state("BTC-USD") is State.LIVE
    assert follower.state("ETH-USD") is State.RESYNCING
    for told, state in (
        (status("S"), State.STALE),
        (status("H", instrument=1), State.HALTED),
        (status("L"), State.HALTED),
        (status("L", instrument=1), State.LIVE),
        (status("E", instrument=1), State.ENDED),
    ):
        follower.packet(packet(told))
        assert follower.state("BTC-USD") is state


def test_arrays_follow_the_same_rules_as_records() -> None:
    arrays = pytest.importorskip("tickcast.arrays")
    chance = random.Random(5)
    one, other = Follower(), Follower()
    start = packet(*(definition(i, f"I{i}") for i in range(1, 6)))
    one.packet(start)
    arrays.read(other, start)
    newest = {(kind, i): 0 for kind in (1, 2) for i in range(1, 6)}
    for _ in range(2000):
        records = []
        kinds = chance.choice([(1,), (2,), (1, 2), (1, 2, 18)])
        for _ in range(chance.randrange(1, 12)):
            kind, i = chance.choice(kinds), chance.randrange(1, 6)
            if kind == 18:
                last = newest[2, i] + chance.randrange(1, 4)
                records.append(gap(newest[2, i] + 1, last, instrument=i))
                newest[2, i] = last
                continue
            sequence = max(newest[kind, i] + chance.choice([1, 1, 1, 1, 1, 0, -2, 5]), 1)
            newest[kind, i] = max(newest[kind, i], sequence)
            make = quote if kind == 1 else trade
            records.append(make(sequence, instrument=i, flags=chance.choice([0x80, 0x80, 0xA0, 0x90])))
        data = packet(*records)
        told, read = one.packet(data)[1], arrays.read(other, data)
        for name in ("quote", "trade"):
            wanted = [(record.instrument.id, record.sequence) for record in told if name == record.TYPE]
            rows = getattr(read, name)
            assert list(zip(rows["instrument"].tolist(), rows["sequence"].tolist(), strict=True)) == wanted
        holes = [
            sorted(
                (gap.instrument.id, gap.from_sequence, gap.to_sequence, gap.reason)
                for gap in of
                if isinstance(gap, Gap)
            )
            for of in (told, read.others)
        ]
        assert holes[0] == holes[1]
        assert one.records == other.records
        assert one.repeated == other.repeated


def test_ids_beyond_the_dense_ones_are_followed_as_well() -> None:
    arrays = pytest.importorskip("tickcast.arrays")
    follower, far = Follower(), 2**32 - 1
    follower.packet(packet(definition(far, "FAR"), trade(1, instrument=far)))
    assert len(arrays.read(follower, packet(trade(1, instrument=far), trade(2, instrument=far))).trade) == 1


def book(kind: bytes, levels: list[tuple[int, int, bytes]], sequence: int) -> bytes:
    body = struct.pack("<Hc5x", len(levels), kind) + b"".join(struct.pack("<qqc7x", *level) for level in levels)
    return record(4, sequence, body)


def test_a_book_is_kept_up_to_date() -> None:
    follower, kept = Follower(), OrderBook()
    levels = [(100, 5, b"B"), (99, 6, b"B"), (101, 7, b"A")]
    for data in (book(b"S", levels, 1), book(b"D", [(99, 0, b"B"), (102, 1000, b"A")], 2)):
        for one in follower.packet(packet(definition(), data))[1]:
            if one.TYPE == "book":
                kept.apply(one)  # type: ignore[arg-type]
    assert kept.bids() == [(Decimal("1.00"), Decimal("0.005"))]
    assert kept.asks(1) == [(Decimal("1.01"), Decimal("0.007"))]
    assert kept.mantissas("A") == [(101, 7), (102, 1000)]


def test_a_book_of_another_epoch_or_instrument_is_not_put_onto_the_old_one() -> None:
    follower, kept = Follower(), OrderBook()
    seen: list[list[tuple[int, int]]] = []
    for packets in (
        [packet(definition(), book(b"S", [(100, 5, b"B")], 1)), packet(definition(), book(b"D", [(50, 1, b"B")], 2))],
        [packet(definition(), book(b"D", [(50, 1, b"B")], 3), epoch=8)],
        [packet(definition(1, "ETH-USD"), book(b"D", [(51, 1, b"B")], 3), epoch=9)],
    ):
        for data in packets:
            for one in follower.packet(data)[1]:
                if isinstance(one, Book):
                    kept.apply(one)
        seen.append(kept.mantissas("B"))
    assert seen == [[(100, 5), (50, 1)], [(50, 1)], [(51, 1)]]


def wanted(symbols: list[str], conflate_ms: int = 0, token: tuple[int, int] | None = None) -> Wanted:
    one = Wanted(*check(symbols, ["quote"], conflate_ms), conflate_ms, True)
    one.token = token
    return one


def test_what_is_wanted_is_asked_for_anew_in_few_requests_and_resumed_first() -> None:
    many = [wanted([f"S{i}", "SAME"], token=(7, 5)) for i in range(100)] + [wanted(["NEW"])]
    asked = requests(many, 10_000)
    assert [(one.op, len(one.symbols), len(one.wanted)) for one in asked] == [("resume", 101, 100), ("subscribe", 1, 1)]
    said = json.loads(asked[0].text(3))
    assert (said["op"], said["id"], said["epoch"], said["position"], said["channels"]) == ("resume", 3, 7, 5, ["quote"])
    assert [len(one.symbols) for one in requests(many, 40)] == [40, 40, 21, 1]


def test_where_intervals_differ_the_more_specific_names_come_first() -> None:
    token = (7, 5)
    asked = requests([wanted(["*"], 100, token), wanted(["BTC-*", "ETH-USD"], 0, token)], 10_000)
    assert [(one.symbols, one.conflate_ms) for one in asked] == [(("ETH-USD",), 0), (("BTC-*",), 0), (("*",), 100)]


def test_a_token_is_kept_from_before_a_replay_that_did_not_come_to_its_end() -> None:
    one = wanted(["*"])
    one.lose((7, 5))
    assert one.token is None, "its snapshot never came"
    one.caught_up = True
    one.lose((7, 9))
    assert one.token == (7, 9)
    one.answered = True
    one.lose((7, 20))
    assert one.token == (7, 9)


@pytest.mark.parametrize(
    ("symbols", "channels", "message"),
    [
        ("BTC-USD", ["quote"], "write \\['BTC-USD'\\]"),
        (["A"], "quote", "channels is a list"),
        (["A"], ["quotes"], "unknown channels quotes; have quote, trade"),
        ([], ["quote"], "at least one symbol"),
    ],
)
def test_what_no_server_takes_is_refused_at_once(symbols: list[str], channels: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(symbols, channels, 0)


def test_waits_are_even_in_a_range_that_doubles_and_no_less_than_asked_for() -> None:
    pace = Backoff(1.0, 8.0, chance=random.Random(1))
    waits = [[Backoff(1.0, 8.0, attempt=n, chance=random.Random(s)).next_s() for s in range(500)] for n in range(6)]
    for told, ceiling in zip(waits, (1, 2, 4, 8, 8, 8), strict=True):
        assert 0 <= min(told) < ceiling * 0.05 and ceiling * 0.95 < max(told) <= ceiling
    assert pace.next_s(1.5) >= 1.5
    pace.reset()
    assert pace.next_s() <= 1.0


def test_urls_are_as_people_write_them() -> None:
    assert stream_url("127.0.0.1:9001") == "ws://127.0.0.1:9001/v1/stream"
    assert stream_url("https://feed.example/md/v1/stream") == "wss://feed.example/md/v1/stream"
    assert plain_url("wss://feed.example/md/v1/stream", "/v1/instruments") == "https://feed.example/md/v1/instruments"
    assert plain_url("localhost:9001", "/v1/snapshot/A") == "http://localhost:9001/v1/snapshot/A"
    with pytest.raises(ValueError, match="no server's URL"):
        stream_url("ftp://x")


def test_a_refusal_says_what_the_server_said() -> None:
    error = refusal(429, b'{"error":{"code":"busy","message":"later"}}', "3")
    assert (error.code, error.message, error.retry_after_s, error.is_final) == ("busy", "later", 3.0, False)
    assert refusal(403, b"<html>", None).is_final


def test_mantissas_are_exact_or_refused() -> None:
    assert mantissa("61837.63", -2) == 6183763
    assert mantissa(Decimal("1.20"), -1) == 12
    assert mantissa(1200, 2) == 12
    assert mantissa("-0.5", -1) == -5
    assert mantissa(None, 0) == -(2**63)
    for value, exponent, error in (
        ("0.001", -2, ValueError),
        (0.5, -1, TypeError),
        ("NaN", 0, ValueError),
        (2**63, 0, ValueError),
    ):
        with pytest.raises(error):
            mantissa(value, exponent)  # type: ignore[arg-type]
