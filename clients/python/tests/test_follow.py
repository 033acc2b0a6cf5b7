"""New records, gaps and requests: rules without a socket."""

from __future__ import annotations

import json
import random
from decimal import Decimal

import pytest
from conftest import book, definition, gap, packet, quote, read_arrays, status, trade

from tickcast import Backoff, Book, Gap, OrderBook, ProtocolError, Quote, State, Trade, wire
from tickcast.cursor import read_packet
from tickcast.follow import Follower
from tickcast.http import plain_url, refusal, stream_url
from tickcast.publish import mantissa
from tickcast.subscriptions import Interest, check, requests

SNAPSHOT, CONFLATED = 0x20, 0x10


def follow(*packets: bytes) -> tuple[Follower, list[tuple[str, int, int]]]:
    """The new records of these packets: types with sequences, and gaps with their ranges."""
    follower, new = Follower(), []
    for data in packets:
        for one in read_packet(follower, data)[1]:
            if isinstance(one, Gap):
                new.append(("gap", one.from_sequence, one.to_sequence))
            elif isinstance(one, (Quote, Trade)):
                new.append((one.TYPE, one.sequence, one.sequence))
    return follower, new


def test_a_replay_repeats_no_records() -> None:
    first = packet(definition(), quote(1), trade(1), quote(2), trade(2))
    again = packet(trade(2), quote(2), trade(3), quote(3), flags=wire.REPLAY)
    follower, new = follow(first, again)
    assert [one[:2] for one in new[4:]] == [("trade", 3), ("quote", 3)]
    assert (follower.repeated, follower.missing) == (2, 0)


def test_a_gap_is_reported_for_logs_and_not_for_states() -> None:
    _, new = follow(packet(definition(), quote(1), trade(1)), packet(quote(9, flags=0x80 | CONFLATED), trade(9)))
    assert new[2:] == [("quote", 9, 9), ("gap", 2, 8), ("trade", 9, 9)]


def test_a_gap_of_the_server_is_reported_once() -> None:
    follower, new = follow(packet(definition(), trade(1)), packet(gap(2, 8), trade(9)))
    assert new == [("trade", 1, 1), ("gap", 2, 8), ("trade", 9, 9)]
    assert (follower.gaps, follower.missing) == (1, 7)


@pytest.mark.parametrize("bad", [gap(2, 2**53), trade(2**48), quote(2**64 - 1, flags=0x80 | CONFLATED)])
def test_a_sequence_that_no_server_assigns_is_an_error_and_is_not_followed(bad: bytes) -> None:
    for read in (read_packet, read_arrays):
        follower = Follower()
        read(follower, packet(definition(), quote(1), trade(1)))
        with pytest.raises(ProtocolError, match="expected less than"):
            read(follower, packet(bad))
        read(follower, packet(trade(2), quote(2)))
        assert follower.repeated == 0


def test_a_snapshot_may_repeat_a_state() -> None:
    _, new = follow(
        packet(definition(), quote(5), trade(5)), packet(quote(5, flags=SNAPSHOT), trade(5, flags=SNAPSHOT))
    )
    assert new == [("quote", 5, 5), ("trade", 5, 5), ("quote", 5, 5)]


def test_a_new_epoch_resets_sequences_and_directory() -> None:
    follower, new = follow(packet(definition(), trade(9)), packet(definition(), trade(1), epoch=8))
    assert new == [("trade", 9, 9), ("gap", 0, 0), ("trade", 1, 1)]
    with pytest.raises(ProtocolError, match="before its definition"):
        read_packet(follower, packet(trade(1), epoch=9))


def test_a_restart_reports_an_unknown_gap_for_each_log() -> None:
    start = packet(definition(), definition(2, "ETH-USD"), quote(1), trade(4), quote(1, instrument=2))
    expected = [("BTC-USD", "trade", 0, 0, "R")]
    follower, _ = follow(start)
    records = read_packet(follower, packet(definition(1, "ETH-USD"), epoch=8))[1]
    gaps = [one for one in records if isinstance(one, Gap)]
    assert [(g.symbol, g.channel, g.from_sequence, g.to_sequence, g.reason) for g in gaps] == expected
    assert (follower.gaps, follower.missing) == (1, 0)
    pytest.importorskip("numpy")
    follower, _ = follow(start)
    others = read_arrays(follower, packet(definition(1, "ETH-USD"), epoch=8)).others
    assert [(g.symbol, g.channel, g.reason) for g in others if isinstance(g, Gap)] == [("BTC-USD", "trade", "R")]


def test_arrays_keep_the_scales_of_their_epoch() -> None:
    arrays = pytest.importorskip("tickcast.arrays")
    follower = Follower()
    old = read_arrays(follower, packet(definition(), quote(1, 100)))
    new = read_arrays(follower, packet(definition(1, "ETH-USD"), quote(1, 100), epoch=8))
    assert old.scales.symbols(old.quote).tolist() == ["BTC-USD"]
    assert new.scales.symbols(new.quote).tolist() == ["ETH-USD"]
    rows = old.quote.view(arrays.Rows)
    rows.scales = old.scales
    assert rows[:1].scales.symbols(rows).tolist() == ["BTC-USD"]
    with pytest.raises(ValueError, match="restart of the server"):
        new.scales.columns(rows)


def test_an_unsubscribed_channel_makes_no_gap() -> None:
    follower, _ = follow(packet(definition(), trade(1)))
    follower.forget([("quote", "*"), ("trade", "BTC-*")])
    assert [type(one) for one in read_packet(follower, packet(trade(9)))[1]] == [Trade]


def test_states_follow_the_instrument_and_the_feed() -> None:
    follower, _ = follow(packet(definition(), quote(1)))
    assert follower.state("BTC-USD") is State.LIVE
    assert follower.state("ETH-USD") is State.RESYNCING
    for data, state in (
        (status("S"), State.STALE),
        (status("H", instrument=1), State.HALTED),
        (status("L"), State.HALTED),
        (status("L", instrument=1), State.LIVE),
        (status("E", instrument=1), State.ENDED),
    ):
        read_packet(follower, packet(data))
        assert follower.state("BTC-USD") is state


def test_arrays_follow_the_same_rules_as_records() -> None:
    pytest.importorskip("numpy")
    rng = random.Random(5)
    one, other = Follower(), Follower()
    start = packet(*(definition(i, f"I{i}") for i in range(1, 6)))
    read_packet(one, start)
    read_arrays(other, start)
    newest = {(kind, i): 0 for kind in (1, 2) for i in range(1, 6)}
    for _ in range(2000):
        records = []
        kinds = rng.choice([(1,), (2,), (1, 2), (1, 2, 18)])
        for _ in range(rng.randrange(1, 12)):
            kind, i = rng.choice(kinds), rng.randrange(1, 6)
            if kind == 18:
                last = newest[2, i] + rng.randrange(1, 4)
                records.append(gap(newest[2, i] + 1, last, instrument=i))
                newest[2, i] = last
                continue
            sequence = max(newest[kind, i] + rng.choice([1, 1, 1, 1, 1, 0, -2, 5]), 1)
            newest[kind, i] = max(newest[kind, i], sequence)
            make = quote if kind == 1 else trade
            records.append(make(sequence, instrument=i, flags=rng.choice([0x80, 0x80, 0xA0, 0x90])))
        data = packet(*records)
        records_read, read = read_packet(one, data)[1], read_arrays(other, data)
        for name in ("quote", "trade"):
            expected = [(record.instrument.id, record.sequence) for record in records_read if name == record.TYPE]
            rows = getattr(read, name)
            assert list(zip(rows["instrument"].tolist(), rows["sequence"].tolist(), strict=True)) == expected
        gaps = [
            sorted(
                (gap.instrument.id, gap.from_sequence, gap.to_sequence, gap.reason)
                for gap in of
                if isinstance(gap, Gap)
            )
            for of in (records_read, read.others)
        ]
        assert gaps[0] == gaps[1]
        assert one.records == other.records
        assert one.repeated == other.repeated


def test_ids_beyond_the_dense_array_are_followed() -> None:
    pytest.importorskip("numpy")
    follower, far = Follower(), 2**32 - 1
    read_packet(follower, packet(definition(far, "FAR"), trade(1, instrument=far)))
    assert len(read_arrays(follower, packet(trade(1, instrument=far), trade(2, instrument=far))).trade) == 1


def test_an_order_book_applies_its_records() -> None:
    follower, kept = Follower(), OrderBook()
    levels = [(100, 5, b"B"), (99, 6, b"B"), (101, 7, b"A")]
    for data in (book(b"S", levels, 1), book(b"D", [(99, 0, b"B"), (102, 1000, b"A")], 2)):
        for one in read_packet(follower, packet(definition(), data))[1]:
            if one.TYPE == "book":
                kept.apply(one)  # type: ignore[arg-type]
    assert kept.bids() == [(Decimal("1.00"), Decimal("0.005"))]
    assert kept.asks(1) == [(Decimal("1.01"), Decimal("0.007"))]
    assert kept.mantissas("A") == [(101, 7), (102, 1000)]


def test_a_book_of_another_epoch_or_instrument_clears_the_levels() -> None:
    follower, kept = Follower(), OrderBook()
    seen: list[list[tuple[int, int]]] = []
    for packets in (
        [packet(definition(), book(b"S", [(100, 5, b"B")], 1)), packet(definition(), book(b"D", [(50, 1, b"B")], 2))],
        [packet(definition(), book(b"D", [(50, 1, b"B")], 3), epoch=8)],
        [packet(definition(1, "ETH-USD"), book(b"D", [(51, 1, b"B")], 3), epoch=9)],
    ):
        for data in packets:
            for one in read_packet(follower, data)[1]:
                if isinstance(one, Book):
                    kept.apply(one)
        seen.append(kept.mantissas("B"))
    assert seen == [[(100, 5), (50, 1)], [(50, 1)], [(51, 1)]]


def interest(symbols: list[str], conflate_ms: int = 0, token: tuple[int, int] | None = None) -> Interest:
    one = Interest(*check(symbols, ["quote"], conflate_ms), conflate_ms, True)
    one.token = token
    return one


def test_interests_share_few_requests_and_resumes_come_first() -> None:
    many = [interest([f"S{i}", "SAME"], token=(7, 5)) for i in range(100)] + [interest(["NEW"])]
    sent = requests(many, 10_000)
    assert [(one.op, len(one.symbols), len(one.interests)) for one in sent] == [
        ("resume", 101, 100),
        ("subscribe", 1, 1),
    ]
    fields = json.loads(sent[0].text(3))
    assert [fields[name] for name in ("op", "id", "epoch", "position", "channels")] == ["resume", 3, 7, 5, ["quote"]]
    assert [len(one.symbols) for one in requests(many, 40)] == [40, 40, 21, 1]


def test_more_specific_names_come_first_where_intervals_differ() -> None:
    token = (7, 5)
    sent = requests([interest(["*"], 100, token), interest(["BTC-*", "ETH-USD"], 0, token)], 10_000)
    assert [(one.symbols, one.conflate_ms) for one in sent] == [(("ETH-USD",), 0), (("BTC-*",), 0), (("*",), 100)]


def test_an_interrupted_replay_keeps_its_token() -> None:
    one = interest(["*"])
    one.connection_lost((7, 5))
    assert one.token is None, "its snapshot was not complete"
    one.caught_up = True
    one.connection_lost((7, 9))
    assert one.token == (7, 9)
    one.answered = True
    one.connection_lost((7, 20))
    assert one.token == (7, 9)


@pytest.mark.parametrize(
    ("symbols", "channels", "message"),
    [
        ("BTC-USD", ["quote"], "expected a list, as \\['BTC-USD'\\]"),
        (["A"], "quote", "'quote' is a str: expected a list"),
        (["A"], ["quotes"], "unknown quotes: expected some of quote, trade"),
        ([], ["quote"], "symbols: empty list"),
    ],
)
def test_invalid_arguments_raise(symbols: list[str], channels: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(symbols, channels, 0)


def test_delays_are_uniform_below_a_doubling_bound() -> None:
    backoff = Backoff(1.0, 8.0, chance=random.Random(1))
    delays = [[Backoff(1.0, 8.0, attempt=n, chance=random.Random(s)).next_s() for s in range(500)] for n in range(6)]
    for delay, ceiling in zip(delays, (1, 2, 4, 8, 8, 8), strict=True):
        assert 0 <= min(delay) < ceiling * 0.05 and ceiling * 0.95 < max(delay) <= ceiling
    assert backoff.next_s(1.5) >= 1.5
    backoff.reset()
    assert backoff.next_s() <= 1.0


def test_urls_are_completed() -> None:
    assert stream_url("127.0.0.1:9001") == "ws://127.0.0.1:9001/v1/stream"
    assert stream_url("https://feed.example/md/v1/stream") == "wss://feed.example/md/v1/stream"
    assert plain_url("wss://feed.example/md/v1/stream", "/v1/instruments") == "https://feed.example/md/v1/instruments"
    assert plain_url("localhost:9001", "/v1/snapshot/A") == "http://localhost:9001/v1/snapshot/A"
    with pytest.raises(ValueError, match="invalid URL"):
        stream_url("ftp://x")


def test_a_refusal_has_code_and_message_of_the_server() -> None:
    error = refusal(429, b'{"error":{"code":"busy","message":"later"}}', "3")
    assert (error.code, error.message, error.retry_after_s, error.is_final) == ("busy", "later", 3.0, False)
    assert refusal(403, b"<html>", None).is_final


def test_mantissas_are_exact_or_raise() -> None:
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
            mantissa(value, exponent)
