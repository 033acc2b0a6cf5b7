"""What a program may get wrong: an error that names the argument and the value, before anything is sent."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import DEADLINE_S
from fake import Fake, Peer

import tickcast
from tickcast import Backoff, OrderBook, Publisher, arguments
from tickcast.arguments import mantissa
from tickcast.connection import Endpoint
from tickcast.publish import LEVELS_MAX
from tickcast.records import Instrument
from tickcast.subscriptions import check

NOW = 1_763_700_000_123_456_789
HUGE = 1 << 16_000_000


class Sent:
    """A socket that counts what is sent."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def send(self, message: Any) -> None:
        self.messages.append(message)


@pytest.fixture
def publisher() -> Publisher:
    """A publisher with one instrument, on a socket that only counts."""
    one: Any = Publisher(Endpoint("ws://127.0.0.1:1/v1/publish"))
    one._socket = Sent()
    one._instruments["X"] = Instrument(1, "X", "", -2, -3)
    one._instruments["HUNDREDS"] = Instrument(2, "HUNDREDS", "", 2, 0)
    kept: Publisher = one
    return kept


class Many(IntEnum):
    ONE = 1


class Word(str, Enum):  # noqa: UP042 its str() is another text than it is
    TRADE = "trade"
    BUY = "B"
    ONE = "1"


@pytest.mark.parametrize(
    ("value", "exponent", "expected"),
    [
        ("4.3E-7", -8, 43),
        ("0E-8", -2, 0),
        ("0E20000000", -2, 0),
        ("1." + "0" * 300_000, -2, 100),
        ("-.5", -1, -5),
        ("+12.", 0, 12),
        ("9223372036854775807", 0, 2**63 - 1),
        ("-9223372036854775807", 0, -(2**63) + 1),
        (Decimal("1E+18"), 0, 10**18),
        (Decimal("1E-18"), -18, 1),
        (1200, 2, 12),
        (Many.ONE, -2, 100),
    ],
    ids=arguments.shown,
)
def test_exact_numbers_become_mantissas(value: Any, exponent: int, expected: int) -> None:
    assert mantissa(value, exponent) == expected


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("1E20000000", ValueError, "is out of range"),
        ("1E-20000000", ValueError, "too many decimals"),
        (Decimal("7E+999999"), ValueError, "is out of range"),
        (Decimal("7E-999999"), ValueError, "too many decimals"),
        (HUGE, ValueError, "an int of 16000001 bits is out of range"),
        ("9" * 2_000_000, ValueError, "is out of range"),
        ("9223372036854775808", ValueError, "is out of range"),
        (-(2**63), ValueError, "is out of range"),
        ("NaN", ValueError, "no finite number"),
        ("-Infinity", ValueError, "no finite number"),
        (Decimal("NaN"), ValueError, "not a finite number"),
        (Decimal("sNaN"), ValueError, "not a finite number"),
        (Decimal("-Infinity"), ValueError, "not a finite number"),
        ("", ValueError, "no finite number"),
        ("1,000", ValueError, "no finite number"),
        ("1_000", ValueError, "no finite number"),
        (" 1", ValueError, "no finite number"),
        ("\u0661", ValueError, "no finite number"),
        ("0x10", ValueError, "no finite number"),
        (True, TypeError, "of the type bool"),
        (0.5, TypeError, "is a float"),
        (float("nan"), TypeError, "is a float"),
        (b"1", TypeError, "of the type bytes"),
        (1j, TypeError, "of the type complex"),
        ([1], TypeError, "of the type list"),
        ({}, TypeError, "of the type dict"),
        (object(), TypeError, "of the type object"),
    ],
    ids=arguments.shown,
)
async def test_wrong_numbers_are_named(publisher: Publisher, value: Any, error: type[Exception], message: str) -> None:
    calls: list[tuple[str, Callable[[], Awaitable[Any]]]] = [
        ("X: ask: ", lambda: publisher.quote("X", ask=value)),
        ("X: bid_size: ", lambda: publisher.quote("X", bid_size=value)),
        ("X: price: ", lambda: publisher.trade("X", value, 1)),
        ("X: size: ", lambda: publisher.trade("X", 1, value)),
        ("X: high_px: ", lambda: publisher.ticker("X", high_px=value)),
        ("X: volume: ", lambda: publisher.ticker("X", volume=value)),
        ("X: bids[1] price: ", lambda: publisher.book("X", bids=[(1, 1), (value, 1)])),
        ("X: asks[0] size: ", lambda: publisher.book("X", asks=[(1, value)])),
        ("Y: tick_size: ", lambda: publisher.define("Y", px_exp=-2, sz_exp=0, tick_size=value)),
        ("Y: lot_size: ", lambda: publisher.define("Y", px_exp=-2, sz_exp=0, lot_size=value)),
    ]
    for name, call in calls:
        with pytest.raises(error) as raised:
            await call()
        text = str(raised.value)
        assert text.startswith(name) and message in text and len(text) < 300
    await publisher.flush()
    assert not publisher._socket.messages  # type: ignore[union-attr]


def calls_of_a_publisher(of: Publisher, wrong: Any) -> list[tuple[str, Callable[[], Awaitable[Any]]]]:
    """Each argument that is no number, with a value that is wrong for all of them."""
    return [
        ("symbol: ", lambda: of.quote(wrong)),
        ("X: ts_event: ", lambda: of.quote("X", ts_event=wrong)),
        ("X: ts_event: ", lambda: of.book("X", ts_event=wrong)),
        ("X: trade_id: ", lambda: of.trade("X", 1, 1, trade_id=wrong)),
        ("X: side: ", lambda: of.trade("X", 1, 1, side=wrong)),
        ("X: bids", lambda: of.book("X", bids=wrong)),
        ("X: asks[0]", lambda: of.book("X", asks=[wrong])),
        ("X: snapshot: ", lambda: of.book("X", snapshot=wrong)),
        ("X: payload: ", lambda: of.raw("X", wrong)),
        ("symbol: ", lambda: of.define(wrong, px_exp=0, sz_exp=0)),
        ("Y: venue: ", lambda: of.define("Y", px_exp=0, sz_exp=0, venue=wrong)),
        ("Y: px_exp: ", lambda: of.define("Y", px_exp=wrong, sz_exp=0)),
        ("Y: sz_exp: ", lambda: of.define("Y", px_exp=0, sz_exp=wrong)),
    ]


@pytest.mark.parametrize("wrong", [-1, 1.5, HUGE, "\n*", None, 2**64, object(), (1, 2, 3)], ids=arguments.shown)
async def test_every_argument_of_a_publisher_is_checked(publisher: Publisher, wrong: Any) -> None:
    for name, call in calls_of_a_publisher(publisher, wrong):
        with pytest.raises((ValueError, TypeError)) as raised:
            if name in ("Y: px_exp: ", "Y: sz_exp: ") and wrong == -1:
                raise ValueError(name)  # a right exponent
            await call()
        text = str(raised.value)
        assert text.startswith(name) and len(text) < 300
    await publisher.flush()
    assert not publisher._socket.messages  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda of: of.trade("X", 1, -1), r"size: -1 is negative"),
        (lambda of: of.quote("X", ask_size="-0.001"), r"ask_size: '-0.001' is negative"),
        (lambda of: of.book("X", bids=[(1, -2)]), r"bids\[0\] size: -2 is negative"),
        (lambda of: of.ticker("X", volume=-1), r"volume: -1 is negative"),
        (lambda of: of.ticker("X", close_px=1), r"ticker: unknown close_px: expected some of last_px"),
        (lambda of: of.trade("X", None, 1), r"price: None: expected"),
        (lambda of: of.book("X", bids=[(1, None)]), r"bids\[0\] size: None: expected"),
        (lambda of: of.book("X", bids="12"), r"bids: '12' is of the type str: expected a list of levels"),
        (lambda of: of.book("X", bids=["12"]), r"bids\[0\]: '12' is of the type str: expected a level"),
        (lambda of: of.book("X", bids={1: 2}), r"bids: \{1: 2\} is of the type dict: expected a list of levels"),
        (lambda of: of.book("X", asks=[(1, 2, 3)]), r"asks\[0\]: \(1, 2, 3\) has 3 elements: expected \(price, size\)"),
        (lambda of: of.book("X", asks=itertools.repeat((1, 2))), f"asks: more than {LEVELS_MAX} elements"),
        (lambda of: of.book("X", bids=[(1, 1)] * LEVELS_MAX, asks=[(2, 1)]), "bids, asks: 21844 levels: expected at"),
        (lambda of: of.book("X", snapshot=1), "snapshot: 1 is of the type int: expected True or False"),
        (lambda of: of.trade("X", 1, 1, side="bid"), "X: side: unknown 'bid': expected one of B or buy, S or sell, N"),
        (lambda of: of.trade("X", 1, 1, side=""), "X: side: unknown '': expected one of B or buy"),
        (lambda of: of.trade("X", 1, 1, trade_id=True), "X: trade_id: True is of the type bool"),
        (lambda of: of.trade("X", 1, 1, trade_id=-1), "X: trade_id: -1 is out of range: expected 0 to"),
        (lambda of: of.trade("X", 1, 1, ts_event=1e18), r"X: ts_event: 1e\+18 is of the type float"),
        (
            lambda of: of.trade("X", 1, 1, ts_event=1_763_700_000),
            "ts_event: 1763700000 looks like seconds: expected an",
        ),
        (lambda of: of.trade("X", 1, 1, ts_event=1_763_700_000_000), "ts_event: 1763700000000 looks like milliseconds"),
        (
            lambda of: of.quote("X", ts_event=1_763_700_000_000_000),
            "ts_event: 1763700000000000 looks like microseconds",
        ),
        (lambda of: of.quote("X", ts_event=datetime(2026, 1, 1)), "ts_event: 2026-01-01 00:00:00 has no time zone"),
        (
            lambda of: of.quote("X", ts_event=datetime(1969, 1, 1, tzinfo=UTC)),
            "X: ts_event: 1969-01-01 .* of the years",
        ),
        (
            lambda of: of.quote("X", ts_event=datetime(2263, 1, 1, tzinfo=UTC)),
            "X: ts_event: 2263-01-01 .* of the years",
        ),
        (
            lambda of: of.quote("X", ts_event="2026-01-01"),
            "ts_event: '2026-01-01' is of the type str: expected an int of",
        ),
        (lambda of: of.quote("X", bid=""), "X: bid: '' is no finite number"),
        (lambda of: of.define("Y", px_exp=10**6, sz_exp=0), "Y: px_exp: 1000000 is out of range: expected -18 to 18"),
        (
            lambda of: of.quote("HUNDREDS", bid="100.51"),
            r"HUNDREDS: bid: '100.51' has too .* 10\*\*2; the exponent of .* -2",
        ),
        (lambda of: of.raw("X", 10**9), "payload: 1000000000 is of the type int: expected bytes"),
        (lambda of: of.raw("X", bytes(2**19)), "payload: 524288 bytes are too long: expected at most 524240"),
        (lambda of: of.define("Y", px_exp=19, sz_exp=0), "px_exp: 19 is out of range: expected -18 to 18"),
        (lambda of: of.define("Y", px_exp=0, sz_exp=False), "sz_exp: False is of the type bool"),
        (
            lambda of: of.define("Y", px_exp=-2, sz_exp=0, tick_size=0),
            "tick_size: 0 is out of range: expected a number",
        ),
        (lambda of: of.define("Y", px_exp=-2, sz_exp=0, tick_size="0.001"), "tick_size: '0.001' has too many decimals"),
        (lambda of: of.define("Y", px_exp=-2, sz_exp=0, lot_size=-1), "lot_size: -1 is out of range"),
    ],
)
async def test_a_wrong_call_of_a_publisher_is_named(publisher: Publisher, call: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        await call(publisher)
    assert not publisher._parts


async def test_numbers_of_other_types_are_accepted(publisher: Publisher) -> None:
    np = pytest.importorskip("numpy")
    await publisher.trade("X", np.int64(5), np.uint8(2), trade_id=np.uint64(2**64 - 1), ts_event=np.int64(NOW))
    await publisher.trade("X", Many.ONE, Decimal(2), trade_id=Many.ONE, side="B")
    await publisher.trade("X", Word.ONE, 1, side=Word.BUY)
    assert publisher._parts.pop()[56:57] == b"B"
    assert check([Word.TRADE], [Word.TRADE], 0) == (("trade",), ("trade",))
    assert type(check([Word.TRADE], ["trade"], 0)[0][0]) is str
    with pytest.raises(TypeError, match="symbols: "):
        check(np.array("A"), ["trade"], 0)
    await publisher.raw("X", bytearray(b"abc"))
    await publisher.book("X", bids=((px, 1) for px in range(3)), asks=iter([(5, 1)]))
    await publisher.ticker("X", last_px="-12.5", volume=None)
    assert len(publisher._parts) == 5
    for wrong in (np.float64(1), np.float32(1), np.bool_(True), np.array([1, 2]), np.datetime64("2026-01-01")):
        with pytest.raises(TypeError, match="X: price: "):
            await publisher.trade("X", wrong, 1)
    no_times: list[Any] = [np.float64(1), np.bool_(True), np.array([1, 2]), np.timedelta64(1, "s"), "", None, True]
    for wrong in no_times:
        with pytest.raises(TypeError, match="X: ts_event: "):
            await publisher.trade("X", 1, 1, ts_event=wrong)


async def test_times_of_other_types_are_accepted(publisher: Publisher) -> None:
    np, pd = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    micros = NOW // 1000 * 1000
    for time, expected in (
        (datetime.fromtimestamp(1_763_700_000, UTC).replace(microsecond=123_456), micros),
        (datetime.fromtimestamp(1_763_700_000, timezone(timedelta(hours=5))).replace(microsecond=123_456), micros),
        (np.datetime64(NOW, "ns"), NOW),
        (np.datetime64("2025-11-21T04:40:00"), 1_763_700_000 * 10**9),
        (pd.Timestamp(NOW, tz="UTC"), NOW),
        (pd.Timestamp(NOW, tz="UTC").tz_convert("Asia/Tokyo"), NOW),
        (pd.Timestamp(NOW, tz="UTC").as_unit("us"), micros),
        (np.uint64(NOW), NOW),
        (0, 0),
    ):
        await publisher.trade("X", 1, 1, ts_event=time)
        assert struct.unpack_from("<Q", publisher._parts.pop(), 16) == (expected,), time
    for wrong, message in (
        (pd.NaT, "NaT is no time"),
        (np.datetime64("NaT"), "NaT is no time"),
        (pd.Timestamp(NOW), "2025-11-21 04:40:00.123456789 has no time zone"),
        (np.datetime64("2300-01-01"), "2300-01-01 is out of range"),
        (np.datetime64("2570-01-01"), "2570-01-01 is out of range"),
        (np.datetime64("1960-01-01"), "1960-01-01 is out of range"),
    ):
        with pytest.raises(ValueError, match=f"X: ts_event: {message}"):
            await publisher.trade("X", 1, 1, ts_event=wrong)


@pytest.mark.parametrize(("side", "letter"), [("buy", b"B"), ("SELL", b"S"), ("b", b"B"), ("S", b"S"), ("N", b"N")])
async def test_sides_are_words_or_letters(publisher: Publisher, side: str, letter: bytes) -> None:
    await publisher.trade("X", 1, 1, side=side)
    assert publisher._parts.pop()[56:57] == letter


@pytest.mark.parametrize(
    ("quote", "message"),
    [
        ({"bid": "100.52", "ask": "100.51"}, "X: bid: 100.52 is above the ask 100.51: expected less"),
        ({"bid": 0, "ask": 1}, "X: bid: 0: expected no price where there is no bid"),
        ({"bid": 1, "ask": "0.00"}, "X: ask: 0: expected no price where there is no ask"),
        ({"bid": 1, "bid_size": 0}, "X: bid_size: 0: expected no bid without a size"),
        ({"ask": 1, "ask_size": "0"}, "X: ask_size: 0: expected no ask without a size"),
    ],
)
async def test_doubtful_quotes_are_published_with_one_warning(
    publisher: Publisher, quote: dict[str, Any], message: str
) -> None:
    with pytest.warns(tickcast.QuoteWarning) as warned:
        for _ in range(3):
            await publisher.quote("X", **quote)
    assert [str(one.message) for one in warned if message in str(one.message)] == [str(warned[0].message)]
    assert warned[0].filename == __file__, "it is attributed to the call of the program"
    assert len(publisher._parts) == 3


async def test_usual_quotes_are_published_without_a_warning(publisher: Publisher) -> None:
    for quote in ({"bid": 1, "ask": 1}, {"ask": "-0.01", "bid": "-0.02"}, {"bid": 5}, {"ask": 5, "ask_size": 1}, {}):
        await publisher.quote("X", **quote)
    assert len(publisher._parts) == 5


SYMBOLS = [
    "BTC-USD",
    "AAPL  240119C00150000",
    "A,B",
    "x" * 64,
    "a/b?c#d%20&+",
    "[~]",
    "\\",
    '"',
    "\u20ac",
    "币安",
    "\U0001f600",
]
NO_SYMBOLS = ["", " A", "A ", " ", "A*B", "A\tB", "A\n", "A\u200bB", "A\x7f", "A\x85", "A\u00a0B", "\u3000", "A\u202eB"]
NO_SYMBOLS += ["A\ufe0f", "\ufeffA", "\U000e0001", "\ud800", "x" * 256, "€" * 86, "**"]


@pytest.mark.parametrize("name", SYMBOLS, ids=ascii)
def test_symbols_of_the_grammar_are_accepted(name: str) -> None:
    assert arguments.symbol("symbol", name) == arguments.venue("venue", name) == name
    assert check([name, f"{name}*", f"{name}  *"], ["quote"], 0)[0] == (name, f"{name}*", f"{name}  *")


@pytest.mark.parametrize("name", NO_SYMBOLS, ids=lambda name: ascii(name)[:20])
def test_other_symbols_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="symbol: "):
        arguments.symbol("symbol", name)
    with pytest.raises(ValueError, match=r"symbols\[1\]: "):
        check(["OK", name], ["quote"], 0)
    if name.rstrip(" "):
        with pytest.raises(ValueError, match=r"symbols\[0\]: "):
            check([f"{name.rstrip(' ')}\t*"], ["quote"], 0)


def test_patterns_have_one_star_at_the_end() -> None:
    assert check(["*", "A*", "AAPL  *"], ["quote"], 0)[0] == ("*", "A*", "AAPL  *")
    for wrong in ("A**", "*A", " *", " A*", "A*B*", "x" * 255 + "*"):
        with pytest.raises(ValueError, match=r"symbols\[0\]: "):
            check([wrong], ["quote"], 0)
    with pytest.raises(ValueError, match=r"symbol: .* has '\*'"):
        arguments.symbol("symbol", "A*")


@pytest.mark.parametrize(
    ("symbols", "channels", "conflate_ms", "message"),
    [
        (None, ["quote"], 0, "symbols: None: expected a list"),
        (7, ["quote"], 0, "symbols: 7 is of the type int: expected a list"),
        (b"AB", ["quote"], 0, "symbols: b'AB' is of the type bytes: expected a list"),
        ({"A": 1}, ["quote"], 0, "symbols: {'A': 1} is of the type dict: expected a list"),
        (["A", 5], ["quote"], 0, r"symbols\[1\]: 5 is of the type int: expected a name"),
        ([["A"]], ["quote"], 0, r"symbols\[0\]: \['A'\] is of the type list"),
        (["A"], None, 0, "channels: None: expected a list"),
        (["A"], [], 0, "channels: empty list"),
        (["A"], [["quote"]], 0, r"channels\[0\]: \['quote'\] is of the type list"),
        (["A"], ["quote"], -1, "conflate_ms: -1 is out of range: expected 0 to 1000"),
        (["A"], ["quote"], 1001, "conflate_ms: 1001 is out of range"),
        (["A"], ["quote"], 0.5, "conflate_ms: 0.5 is of the type float"),
        (["A"], ["quote"], True, "conflate_ms: True is of the type bool"),
        (["A"], ["quote"], "100", "conflate_ms: '100' is of the type str"),
    ],
)
async def test_a_wrong_subscription_is_named(symbols: Any, channels: Any, conflate_ms: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        check(symbols, channels, conflate_ms)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": 5}, "url: 5 is of the type int"),
        ({"url": ""}, "url: invalid URL ''"),
        ({"url": "ws://h:port"}, "url: invalid URL 'ws://h:port'"),
        ({"url": "ws://h:99999"}, "url: invalid URL"),
        ({"url": "ws://[::1"}, "url: invalid URL"),
        ({"url": "ws://:9001"}, "url: invalid URL"),
        ({"url": "ws://a b"}, "url: invalid URL"),
        ({"conflate_ms": None}, "conflate_ms: None: expected"),
        ({"compression": "off"}, "compression: 'off' is of the type str: expected True or False"),
        ({"headers": ["a"]}, r"headers: \['a'\] is of the type list: expected a mapping"),
        ({"headers": {"a": 1}}, r"headers\['a'\]: a value of the type int: expected a str"),
        ({"headers": {"a": "x\r\nb: c"}}, r"headers\['a'\]: the character 1 cannot be sent"),
        ({"headers": {"a b": "c"}}, "headers: 'a b' is no name of a header"),
        ({"tls": True}, "tls: True: expected an ssl.SSLContext"),
        ({"open_timeout_s": 0}, "open_timeout_s: 0 is out of range: expected seconds above 0"),
        ({"open_timeout_s": float("nan")}, "open_timeout_s: nan is out of range"),
        ({"open_timeout_s": "5"}, "open_timeout_s: '5' is of the type str"),
        ({"wait": 1}, "wait: 1 is of the type int"),
        ({"backoff": 1}, "backoff: 1: expected a tickcast.Backoff"),
        ({"inbox_packets": 0}, "inbox_packets: 0 is out of range"),
        ({"inbox_packets": 2.0}, "inbox_packets: 2.0 is of the type float"),
    ],
)
def test_a_wrong_option_of_connect_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        tickcast.connect(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token": ""}, "token: empty"),
        ({"token": None}, "token: a value of the type NoneType"),
        ({"token": "secret\n"}, "token: the character 6 cannot be sent"),
        ({"token": "t", "heartbeat_s": float("inf")}, "heartbeat_s: inf is out of range"),
        ({"token": "t", "heartbeat_s": True}, "heartbeat_s: True is of the type bool"),
        ({"token": "t", "url": "ftp://x"}, "url: invalid URL 'ftp://x'"),
        ({"token": "t", "headers": "x"}, "headers: 'x' is of the type str"),
        ({"token": "t", "compression": None}, "compression: None: expected True or False"),
    ],
)
def test_a_wrong_option_of_publish_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message) as raised:
        tickcast.publish(**options)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("options", [{"first_s": -1}, {"max_s": float("nan")}, {"first_s": "1"}, {"attempt": 0.5}])
def test_a_wrong_backoff_is_named(options: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=f"{next(iter(options))}: "):
        Backoff(**options)


async def test_wrong_arguments_of_a_client_are_named_and_nothing_is_sent() -> None:
    pytest.importorskip("numpy")
    async with Fake(Peer.serve) as server, tickcast.connect(server.url) as client:
        subscription = await client.subscribe(["A"], conflate_ms=100)
        calls: list[tuple[str, Callable[[], Awaitable[Any]]]] = [
            ("snapshot: ", lambda: client.subscribe(["A"], snapshot="no")),  # type: ignore[arg-type]
            ("conflate_ms: ", lambda: client.subscribe(["A"], conflate_ms=2000)),
            ("conflate_ms: ", lambda: subscription.set_conflate_ms(-5)),
            ("channels: book is not", lambda: client.collect("book", count=1)),
            ("channels: unknown 'quotes': expected one", lambda: client.collect("quotes", count=1)),  # type: ignore[call-overload]
            (r"channels\[1\]: unknown 'bars'", lambda: client.collect(["quote", "bars"], count=1)),  # type: ignore[list-item]
            ("channels: empty list", lambda: client.collect([], seconds=1)),
            ("channels: None", lambda: client.collect(None, seconds=1)),  # type: ignore[call-overload]
            ("channels: ticker is not", lambda: client.batches(["quote", "ticker"]).__anext__()),
            ("seconds: 0 is out", lambda: client.batches("quote", seconds=0).__anext__()),
            ("count: ", lambda: client.collect("quote", count=0)),
            ("count: ", lambda: client.collect("quote", count=1.5)),  # type: ignore[call-overload]
            ("seconds: ", lambda: client.collect("quote", seconds=float("nan"))),
            ("seconds: ", lambda: client.collect("quote", seconds=-1)),
            ("symbol: ", lambda: client.snapshot("")),
            ("symbol: ", lambda: client.bars("A*")),
            ("interval_s: ", lambda: client.bars("A", interval_s=0)),
            ("limit: ", lambda: client.bars("A", limit=5001)),
            ("to: ", lambda: client.bars("A", to=1.5)),
            ("symbol: ", lambda: client.trades("A*")),
            ("limit: ", lambda: client.trades("A", limit=1001)),
            ("arrays: ", lambda: client.bars("A", arrays=1)),
        ]
        for name, call in calls:
            with pytest.raises((ValueError, TypeError), match=name):
                async with asyncio.timeout(DEADLINE_S):
                    await call()
        with pytest.raises(TypeError, match="symbol: 5"):
            client.state(5)  # type: ignore[arg-type]
        assert len(server.peers[0].requests) == 1


def test_wrong_arguments_of_records_and_books_are_named() -> None:
    kept: Any = OrderBook()
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: kept.mantissas("X"), "side: unknown 'X'"),
        (lambda: kept.bids(-1), "depth: -1 is out of range"),
        (lambda: kept.asks(True), "depth: True is of the type bool"),
        (lambda: kept.apply(SimpleNamespace()), "record: namespace"),
    ]
    for call, message in calls:
        with pytest.raises((ValueError, TypeError), match=message):
            call()
    record: Any = tickcast.Heartbeat(tickcast.NO_INSTRUMENT, 0, 0, 0, 0)
    with pytest.raises(TypeError, match="amounts: 'float'"):
        record.as_dict("float")


def test_an_absent_time_is_nat() -> None:
    np = pytest.importorskip("numpy")
    from tickcast import arrays

    rows = np.zeros(3, arrays.TRADE)
    rows["ts_event"] = [0, 1_763_700_000_000_000_001, 2**63]
    rows["ts_recv"] = 5
    scales = arrays.Scales({0: Instrument(0, "A")})
    columns = scales.columns(rows)
    assert np.isnat(columns["ts_event"]).tolist() == [True, False, True]
    assert str(columns["ts_event"][1]) == "2025-11-21T04:40:00.000000001"
    assert columns["ts_event"].dtype == columns["ts_recv"].dtype == "datetime64[ns]"
    with pytest.raises(ValueError, match="name: unknown 'sequence': expected one of px, sz"):
        scales.floats(rows, "sequence")
