"""Columns to records of the wire: no Python work per row for columns that are numpy arrays.

What cannot be published exactly raises an error that names the row, the symbol, the field and the value.
"""

from __future__ import annotations

import math
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from . import arguments
from .arguments import ABSENT
from .arrays import LAYOUTS, Structured
from .doubts import Doubts
from .records import CHANNELS, LAST, Instrument
from .tables import TICKER_FIELDS, Table


def records(table: Table, of: list[Instrument], doubts: Doubts, *, is_rounded: bool) -> Structured:
    """The records of a table as on the wire, with the terms of its symbols. Raises `TypeError` and `ValueError`."""
    rows = np.zeros(len(table), LAYOUTS[table.channel])
    rows["length"], rows["flags"] = rows.dtype.itemsize // 8, LAST
    rows["type"] = CHANNELS.index(table.channel) + 1
    encoder = _Encoder(table, of, is_rounded)
    rows["instrument"] = encoder.ids
    rows["ts_event"] = encoder.times()
    if table.channel == "quote":
        for name, field in (("bid_px", "bid"), ("bid_sz", "bid_size"), ("ask_px", "ask"), ("ask_sz", "ask_size")):
            rows[name] = encoder.amounts(field, is_size=name.endswith("sz"))
        _doubt_quotes(table, of, rows, doubts)
    elif table.channel == "trade":
        rows["px"] = encoder.amounts("price", is_size=False, is_required=True)
        rows["sz"] = encoder.amounts("size", is_size=True, is_required=True)
        rows["trade_id"], rows["side"] = encoder.numbers("trade_id"), encoder.sides()
    else:
        for name in TICKER_FIELDS:
            rows[name] = encoder.amounts(name, is_size=name == "volume")
    return rows


def _doubt_quotes(table: Table, of: list[Instrument], rows: Structured, doubts: Doubts) -> None:
    bid, ask = rows["bid_px"], rows["ask_px"]
    doubtful = (bid > ask) & (ask != ABSENT)
    for name in ("bid_px", "bid_sz", "ask_px", "ask_sz"):
        doubtful |= rows[name] == 0
    at = np.flatnonzero(doubtful)
    for first in np.unique(table.indexes[at], return_index=True)[1]:
        row = int(at[first])
        one = rows[row]
        sides = (int(one["bid_px"]), int(one["bid_sz"])), (int(one["ask_px"]), int(one["ask_sz"]))
        doubts.about_quote(of[table.indexes[row]], *sides, where=f"row {row}: ")


class _Encoder:
    """Turns the columns of a table into those of records."""

    def __init__(self, table: Table, of: list[Instrument], is_rounded: bool) -> None:
        self._table = table
        self._is_rounded = is_rounded
        self._px_exp = np.array([one.px_exp for one in of], np.int64)[table.indexes]
        self._sz_exp = np.array([one.sz_exp for one in of], np.int64)[table.indexes]
        self.ids = np.array([one.id for one in of], np.uint32)[table.indexes]

    def _named(self, row: int, field: str) -> str:
        return f"row {row}: {self._table.symbols[self._table.indexes[row]]}: {field}"

    def amounts(self, field: str, *, is_size: bool, is_required: bool = False) -> npt.NDArray[np.int64]:
        """The mantissas of a column of prices or sizes, `ABSENT` where there is none."""
        values = self._table.columns.get(field)
        exponents = self._sz_exp if is_size else self._px_exp
        if values is None:
            return np.full(len(self._table), ABSENT, np.int64)
        if isinstance(values, list):
            read = (self._mantissa(row, field, one, int(exponents[row])) for row, one in enumerate(values))
            mantissas = np.fromiter(read, np.int64, len(values))
        elif values.dtype.kind == "f":
            mantissas = self._of_floats(field, values.astype(np.float64), exponents)
        elif values.dtype.kind in "iu":
            mantissas = self._of_ints(field, values, exponents)
        else:
            raise TypeError(f"frame: {field}: a column of times: expected numbers")
        if is_required and (missing := mantissas == ABSENT).any():
            raise ValueError(f"{self._named(int(missing.argmax()), field)}: missing: expected a number")
        if is_size and (negative := (mantissas < 0) & (mantissas != ABSENT)).any():
            row = int(negative.argmax())
            raise ValueError(f"{self._named(row, field)}: {values[row]} is negative: expected a size from 0 on")
        return mantissas

    def _of_floats(
        self, field: str, values: npt.NDArray[np.float64], exponents: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """A float stands for the decimal number that it is the nearest float of: that of `100.51` is exact."""
        up, down = 10.0 ** np.maximum(-exponents, 0), 10.0 ** np.maximum(exponents, 0)
        absent = np.isnan(values)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.rint(values * up / down)
            # Up to 15 digits, no two decimal numbers have the same nearest float.
            is_long = ~absent & ~(np.abs(scaled) < 1e15)
            is_rounded = ~absent & ~is_long & (scaled * down / up != values)
        if is_rounded.any() and not self._is_rounded:
            row = int(is_rounded.argmax())
            raise self._too_exact(row, field, values[row], int(exponents[row]))
        mantissas = np.where(absent, ABSENT, np.where(absent | is_long, 0.0, scaled).astype(np.int64))
        for at in np.flatnonzero(is_long).tolist():
            mantissas[at] = self._mantissa(at, field, float(values[at]), int(exponents[at]))
        return mantissas

    def _of_ints(self, field: str, values: npt.NDArray[Any], exponents: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        factors = np.int64(10) ** np.abs(exponents)
        limits = np.where(exponents <= 0, (2**63 - 1) // factors, 2**63 - 1)
        wrong = values > np.uint64(2**63 - 1) if values.dtype.kind == "u" else np.zeros(len(values), bool)
        signed = np.where(wrong, 0, values).astype(np.int64)
        wrong |= (signed > limits) | (signed < -limits)
        if wrong.any():
            row = int(wrong.argmax())
            # It raises that this is out of range.
            arguments.mantissa(int(values[row]), int(exponents[row]), self._named(row, field))
        whole, rest = np.divmod(signed, np.where(exponents > 0, factors, 1))
        if rest.any():
            if not self._is_rounded:
                row = int((rest != 0).argmax())
                raise self._too_exact(row, field, values[row], int(exponents[row]))
            half = rest - (factors - rest)
            whole += (half > 0) | ((half == 0) & (whole % 2 != 0))
        return np.where(exponents > 0, whole, signed * np.where(exponents > 0, 1, factors))

    def _too_exact(self, row: int, field: str, value: object, exponent: int) -> ValueError:
        name = self._named(row, field)
        return ValueError(
            f"{name}: {value} has too many decimals: expected a multiple of 10**{exponent}, or round=True"
        )

    def _mantissa(self, row: int, field: str, value: object, exponent: int) -> int:
        """The mantissa of one value of any type."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ABSENT
        name = self._named(row, field)
        if isinstance(value, float):
            # The shortest decimal number of which it is the nearest float.
            value = repr(float(value))
        if self._is_rounded and isinstance(value, (Decimal, str)):
            number = arguments.parsed(name, value)
            if -1 <= number.adjusted() - exponent <= 19:
                value = number.quantize(Decimal(1).scaleb(exponent), ROUND_HALF_EVEN, Context(prec=40))
            elif number.adjusted() < exponent:
                return 0
        try:
            return arguments.mantissa(value, exponent, name)
        except ValueError as error:
            hint = ", or round=True" if "too many decimals" in str(error) else ""
            raise ValueError(f"{error}{hint}") from None

    def times(self) -> npt.NDArray[np.uint64]:
        """The times of the venue, 0 where there is none."""
        values = self._table.columns.get("ts_event")
        if values is None:
            return np.zeros(len(self._table), np.uint64)
        if isinstance(values, list):
            read = (
                0 if one is None else arguments.time_ns(self._named(row, "ts_event"), one)
                for row, one in enumerate(values)
            )
            return np.fromiter(read, np.uint64, len(values))
        if values.dtype.kind == "M":
            since = np.where(np.isnat(values), 1, values.astype(np.int64))
            if (wrong := since <= 0).any():
                row = int(wrong.argmax())
                name = self._named(row, "ts_event")
                raise ValueError(f"{name}: {values[row]} is out of range: expected a time of the years 1970 to 2262")
            return np.where(np.isnat(values), 0, since).astype(np.uint64)
        is_wrong = values.dtype.kind == "f" or (
            (values != 0) & ((values < arguments.TIME_NS_MIN) | (values > arguments.TIME_NS_MAX))
        )
        if len(values) and np.any(is_wrong):
            row = int(np.argmax(is_wrong))
            one = values[row]
            arguments.time_ns(self._named(row, "ts_event"), float(one) if values.dtype.kind == "f" else int(one))
        return values.astype(np.uint64)

    def numbers(self, field: str) -> npt.NDArray[np.uint64]:
        """The ids of trades, 0 without a column."""
        values = self._table.columns.get(field)
        if values is None:
            return np.zeros(len(self._table), np.uint64)
        if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
            if (negative := values < 0).any():
                row = int(negative.argmax())
                arguments.integer(self._named(row, field), int(values[row]), 0, 2**64 - 1)
            return values.astype(np.uint64)
        listed = values.tolist() if isinstance(values, np.ndarray) else values
        read = (arguments.integer(self._named(row, field), one, 0, 2**64 - 1) for row, one in enumerate(listed))
        return np.fromiter(read, np.uint64, len(listed))

    def sides(self) -> npt.NDArray[np.bytes_]:
        """The letters of the sides of trades, N without a column and where it has no value."""
        values = self._table.columns.get("side")
        if values is None:
            return np.full(len(self._table), b"N", "S1")
        known: dict[object, bytes] = {None: b"N"}
        letters: list[bytes] = []
        for row, one in enumerate(values):
            if (letter := known.get(one) if isinstance(one, (str, type(None))) else None) is None:
                known[one] = letter = arguments.side(self._named(row, "side"), one).encode()
            letters.append(letter)
        return np.array(letters, "S1")
