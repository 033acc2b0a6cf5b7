"""Records as Python objects.

Prices and sizes are integer mantissas, as on the wire, to be multiplied by ten to the power of the instrument's
exponent, and `None` where there is no value. Properties named price and size return them as exact `decimal.Decimal`s.
Only `as_dict(float)` uses floats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

from .arguments import shown

Channel: TypeAlias = Literal["quote", "trade", "ticker", "book", "raw"]
CHANNELS: tuple[Channel, ...] = ("quote", "trade", "ticker", "book", "raw")

# Flags of a record.
LAST, SNAPSHOT, CONFLATED, DELAYED, MAYBE_BAD_BOOK, COMPUTED = 0x80, 0x20, 0x10, 0x08, 0x04, 0x02
_FLAG_WORDS = (
    (SNAPSHOT, "snapshot"),
    (CONFLATED, "conflated"),
    (DELAYED, "delayed"),
    (MAYBE_BAD_BOOK, "maybe_bad_book"),
    (COMPUTED, "computed"),
)

# How `as_dict` writes prices and sizes: as mantissas, exact decimals, their text, or the nearest floats.
Amounts: TypeAlias = type[int] | type[Decimal] | type[str] | type[float]


class State(Enum):
    """Whether an instrument's values are current."""

    LIVE = "live"
    """The last values read are the server's newest."""
    STALE = "stale"
    """There is no connection, or the server has lost the source."""
    RESYNCING = "resyncing"
    """After a reconnect: the missed records are coming."""
    HALTED = "halted"
    """The venue has halted trading."""
    ENDED = "ended"
    """The source has ended."""


def to_decimal(mantissa: int, exponent: int) -> Decimal:
    """`mantissa * 10**exponent`, exact in any decimal context: `(6183763, -2)` is `61837.63`."""
    return Decimal(f"{mantissa}E{exponent}")


def to_text(mantissa: int, exponent: int) -> str:
    """The same as text with all its decimals, as in the server's JSON: `(12, 2)` is `1200`."""
    return f"{to_decimal(mantissa, exponent):f}" if mantissa or exponent < 0 else "0"


_WRITERS: dict[type, Callable[[int, int], Any]] = {
    int: lambda mantissa, _: mantissa,
    Decimal: to_decimal,
    str: to_text,
    float: lambda mantissa, exponent: float(to_decimal(mantissa, exponent)),
}


@dataclass(slots=True, frozen=True)
class Instrument:
    """An instrument of the server's directory. Its id holds for one epoch of the server, its symbol for all."""

    id: int
    symbol: str
    venue: str = ""
    px_exp: int = 0
    sz_exp: int = 0
    status: str = "T"
    """`T` trading, `H` halted, `C` closed."""
    tick_size: int | None = None
    lot_size: int | None = None
    epoch: int = 0
    """The epoch of the id; 0 if it was not read from a packet."""

    def price(self, mantissa: int | None) -> Decimal | None:
        """A mantissa at the price exponent."""
        return None if mantissa is None else to_decimal(mantissa, self.px_exp)

    def size(self, mantissa: int | None) -> Decimal | None:
        """A mantissa at the size exponent."""
        return None if mantissa is None else to_decimal(mantissa, self.sz_exp)


NO_INSTRUMENT = Instrument(0, "")
"""The instrument of records without one: heartbeats, and the state of the whole feed."""


@dataclass(slots=True)
class Record:
    """The common part of records. Times are ns since the Unix epoch; `ts_event` is the venue's, 0 if it gave none."""

    TYPE: ClassVar[str] = "unknown"
    # The fields that are prices (px) and sizes (sz).
    AMOUNTS: ClassVar[dict[str, str]] = {}

    instrument: Instrument
    flags: int
    sequence: int
    """Counts up from 1 for each instrument and channel; 0 where none applies."""
    ts_event: int
    ts_recv: int

    @property
    def symbol(self) -> str:
        """The instrument's symbol; empty for a record without an instrument."""
        return self.instrument.symbol

    @property
    def time(self) -> datetime:
        """When the server received it, UTC, to the microsecond; `ts_recv` has the nanoseconds."""
        return datetime.fromtimestamp(self.ts_recv // 1_000_000_000, UTC).replace(
            microsecond=self.ts_recv // 1_000 % 1_000_000
        )

    @property
    def is_snapshot(self) -> bool:
        """It is part of a snapshot."""
        return bool(self.flags & SNAPSHOT)

    @property
    def is_conflated(self) -> bool:
        """It replaces earlier values by conflation."""
        return bool(self.flags & CONFLATED)

    @property
    def is_computed(self) -> bool:
        """The server has made it of other records: a ticker whose source sends none."""
        return bool(self.flags & COMPUTED)

    def decimal(self, field: str) -> Decimal | None:
        """A price or size of this record, exact; `None` if absent.

        Raises `KeyError` for a field that is neither.
        """
        exponent = self._exponent(self.AMOUNTS[field])
        mantissa: int | None = getattr(self, field)
        return None if mantissa is None else to_decimal(mantissa, exponent)

    def as_dict(self, amounts: Amounts = int) -> dict[str, Any]:
        """The record as a dict with the names of the server's JSON encoding.

        With `as_dict(str)` it equals that encoding; `amounts` may also be `int` (mantissas), `Decimal` and `float`.
        """
        if amounts not in (int, Decimal, str, float):
            raise TypeError(f"amounts: {shown(amounts)}: expected one of the types int, Decimal, str, float")
        fields: dict[str, Any] = {"type": self.TYPE}
        if self.instrument.id:
            fields["symbol"] = self.instrument.symbol
        fields |= {"sequence": self.sequence, "ts_event": self.ts_event, "ts_recv": self.ts_recv}
        words = [] if self.flags & LAST else ["more"]
        words += [word for bit, word in _FLAG_WORDS if self.flags & bit]
        if words:
            fields["flags"] = words
        self._fill(fields, _WRITERS[amounts])
        return fields

    def _exponent(self, of: str) -> int:
        return self.instrument.px_exp if of == "px" else self.instrument.sz_exp

    def _fill(self, fields: dict[str, Any], write: Callable[[int, int], Any]) -> None:
        for field, of in self.AMOUNTS.items():
            mantissa: int | None = getattr(self, field)
            fields[field] = None if mantissa is None else write(mantissa, self._exponent(of))


@dataclass(slots=True)
class Quote(Record):
    """The best bid and offer."""

    TYPE: ClassVar[str] = "quote"
    AMOUNTS: ClassVar[dict[str, str]] = {"bid_px": "px", "bid_sz": "sz", "ask_px": "px", "ask_sz": "sz"}

    bid_px: int | None
    bid_sz: int | None
    ask_px: int | None
    ask_sz: int | None

    @property
    def bid_price(self) -> Decimal | None:
        """The price of the best bid; `None` if there is none."""
        return self.instrument.price(self.bid_px)

    @property
    def bid_size(self) -> Decimal | None:
        """The size at that price."""
        return self.instrument.size(self.bid_sz)

    @property
    def ask_price(self) -> Decimal | None:
        """The price of the best offer; `None` if there is none."""
        return self.instrument.price(self.ask_px)

    @property
    def ask_size(self) -> Decimal | None:
        """The size at that price."""
        return self.instrument.size(self.ask_sz)


@dataclass(slots=True)
class Trade(Record):
    """One trade. Every trade is delivered, or a `Gap` reports the missing ones."""

    TYPE: ClassVar[str] = "trade"
    AMOUNTS: ClassVar[dict[str, str]] = {"px": "px", "sz": "sz"}

    px: int | None
    sz: int | None
    trade_id: int
    side: str
    """The aggressor's: `B` buys, `S` sells, `N` unknown."""

    @property
    def price(self) -> Decimal | None:
        """The price."""
        return self.instrument.price(self.px)

    @property
    def size(self) -> Decimal | None:
        """The size."""
        return self.instrument.size(self.sz)

    def _fill(self, fields: dict[str, Any], write: Callable[[int, int], Any]) -> None:
        Record._fill(self, fields, write)
        fields |= {"trade_id": self.trade_id, "side": self.side}


@dataclass(slots=True)
class Ticker(Record):
    """24 h statistics. The volume is in the base currency, the turnover in the quote currency."""

    TYPE: ClassVar[str] = "ticker"
    AMOUNTS: ClassVar[dict[str, str]] = {
        "last_px": "px",
        "open_px": "px",
        "high_px": "px",
        "low_px": "px",
        "volume": "sz",
        "turnover": "px",
        "bid_px": "px",
        "ask_px": "px",
    }

    last_px: int | None
    open_px: int | None
    high_px: int | None
    low_px: int | None
    volume: int | None
    turnover: int | None
    bid_px: int | None
    ask_px: int | None

    @property
    def last_price(self) -> Decimal | None:
        """The last price; `decimal("high_px")` and so on return the others."""
        return self.instrument.price(self.last_px)


class Level(NamedTuple):
    """One level of a book: a size of 0 removes it. `side` is `B` for bids, `A` for asks."""

    px: int | None
    sz: int | None
    side: str


@dataclass(slots=True)
class Book(Record):
    """Levels of a book: `kind` `S` replaces both sides, `D` changes levels. `OrderBook` keeps one up to date."""

    TYPE: ClassVar[str] = "book"

    kind: str
    levels: list[Level]

    def _fill(self, fields: dict[str, Any], write: Callable[[int, int], Any]) -> None:
        px_exp, sz_exp = self.instrument.px_exp, self.instrument.sz_exp

        def written(level: Level) -> list[Any]:
            px = None if level.px is None else write(level.px, px_exp)
            return [px, None if level.sz is None else write(level.sz, sz_exp)]

        fields["kind"] = self.kind
        fields["bids"] = [written(level) for level in self.levels if level.side == "B"]
        fields["asks"] = [written(level) for level in self.levels if level.side == "A"]


@dataclass(slots=True)
class Raw(Record):
    """Bytes that the server does not interpret. Every record is delivered, or a `Gap` reports the missing ones."""

    TYPE: ClassVar[str] = "raw"

    payload: bytes

    def _fill(self, fields: dict[str, Any], write: Callable[[int, int], Any]) -> None:
        fields["payload_hex"] = self.payload.hex()


@dataclass(slots=True)
class Definition(Record):
    """Defines `instrument` before its first record, or again with other terms, which hold for the records after it."""

    TYPE: ClassVar[str] = "definition"

    def _fill(self, fields: dict[str, Any], write: Callable[[int, int], Any]) -> None:
        of = self.instrument
        fields |= {"venue": of.venue, "px_exp": of.px_exp, "sz_exp": of.sz_exp, "status": of.status}
        fields["tick_size"] = None if of.tick_size is None else write(of.tick_size, of.px_exp)
        fields["lot_size"] = None if of.lot_size is None else write(of.lot_size, of.sz_exp)


@dataclass(slots=True)
class Heartbeat(Record):
    """Sent when the stream is silent."""

    TYPE: ClassVar[str] = "heartbeat"


@dataclass(slots=True)
class Gap(Record):
    """A sequence gap: the records `from_sequence` to `to_sequence` of `channel` are missing.

    `reason` is `S` if this client was too slow, `O` if the server was overrun, `F` if the feed lost them, and `R` if
    they came while this client was not connected, and the server's history does not reach back to them. After a restart
    of the server the range is 0 to 0, because it is not known, and `instrument` is that of the former epoch.
    """

    TYPE: ClassVar[str] = "gap"

    from_sequence: int
    to_sequence: int
    channel: Channel
    reason: str

    def _fill(self, fields: dict[str, Any], write: Callable[[int, int], Any]) -> None:
        fields |= {"from_sequence": self.from_sequence, "to_sequence": self.to_sequence}
        fields |= {"channel": self.channel, "reason": self.reason}


@dataclass(slots=True)
class Status(Record):
    """The state of an instrument, or of the whole feed if `instrument` is `NO_INSTRUMENT`.

    `state` is `L` live, `S` stale, `H` halted, `E` ended, `R` released: the id of the instrument carries nothing more,
    the client has forgotten it, and its symbol may be defined again with another id. Ignore other letters.
    """

    TYPE: ClassVar[str] = "status"

    state: str

    def _fill(self, fields: dict[str, Any], write: Callable[[int, int], Any]) -> None:
        fields["state"] = self.state


AnyRecord: TypeAlias = Quote | Trade | Ticker | Book | Raw | Definition | Heartbeat | Gap | Status
