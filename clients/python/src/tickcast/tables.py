"""Frames of a program as columns to publish: pandas, polars, Arrow, or a dict of columns.

A column becomes a numpy array of numbers, or of times in ns of UTC, or a list of other values.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from . import arguments
from .arguments import shown

Values: TypeAlias = npt.NDArray[Any] | list[Any]

# The fields of each channel, with the names that its columns may have: of the calls of `Publisher`, and of frames that
# were collected.
TICKER_FIELDS = ("last_px", "open_px", "high_px", "low_px", "volume", "turnover", "bid_px", "ask_px")
FIELDS: dict[str, dict[str, tuple[str, ...]]] = {
    "quote": {
        "bid": ("bid", "bid_px"),
        "bid_size": ("bid_size", "bid_sz"),
        "ask": ("ask", "ask_px"),
        "ask_size": ("ask_size", "ask_sz"),
    },
    "trade": {"price": ("price", "px"), "size": ("size", "sz"), "side": ("side",), "trade_id": ("trade_id",)},
    "ticker": {name: (name,) for name in TICKER_FIELDS},
}
_COMMON = {"symbol": ("symbol",), "ts_event": ("ts_event",)}
_REQUIRED = {"trade": ("price", "size")}
# The server sets these, so that a frame that was collected can be published.
_IGNORED = frozenset({"ts_recv", "sequence", "flags"})


@dataclass(slots=True)
class Table:
    """The columns of one channel, by field, and the symbols."""

    channel: str
    columns: dict[str, Values]
    symbols: list[str]
    """The different symbols."""
    indexes: npt.NDArray[np.intp]
    """For each row the index of its symbol."""

    def __len__(self) -> int:
        return len(self.indexes)


def read(channel: str, frame: object, symbol: str | None) -> Table:
    """The columns of a frame that are published. Raises `TypeError` and `ValueError` for what no frame may have."""
    arguments.one_of("channel", channel, tuple(FIELDS))
    given = _columns(frame)
    fields = FIELDS[channel] | _COMMON
    names = {name: field for field, accepted in fields.items() for name in accepted}
    unknown = [name for name in given if name not in names and name not in _IGNORED]
    if unknown:
        known = ", ".join(" or ".join(accepted) for accepted in fields.values())
        raise ValueError(
            f"frame: unknown column {shown(unknown[0])}: expected some of {known}; select or rename columns"
        )
    columns: dict[str, Values] = {}
    for name, values in given.items():
        if (field := names.get(name)) is None:
            continue
        if field in columns:
            raise ValueError(f"frame: two columns for {field}: expected one of {', '.join(fields[field])}")
        columns[field] = values
    for field in _REQUIRED.get(channel, ()):
        if field not in columns:
            raise ValueError(f"frame: no column for {field}: expected {' or '.join(fields[field])}")
    if not columns.keys() & FIELDS[channel].keys():
        raise ValueError(f"frame: no column of a {channel}: expected some of {', '.join(FIELDS[channel])}")
    return _with_symbols(channel, columns, symbol)


def _with_symbols(channel: str, columns: dict[str, Values], symbol: str | None) -> Table:
    named = columns.pop("symbol", None)
    counts = {len(values) for values in columns.values()}
    if len(counts) > 1:
        raise ValueError(f"frame: columns of {' and '.join(map(str, sorted(counts)))} rows: expected the same number")
    if symbol is not None:
        if named is not None:
            raise ValueError(f"symbol: {shown(symbol)} is given beside a column symbol: expected one of them")
        return Table(channel, columns, [arguments.symbol("symbol", symbol)], np.zeros(counts.pop(), np.intp))
    if named is None:
        raise ValueError("frame: no column symbol: expected one, or the argument symbol")
    index: dict[object, int] = {}
    try:
        indexes = np.fromiter((index.setdefault(one, len(index)) for one in named), np.intp, len(named))
    except TypeError:
        raise TypeError(f"frame: symbol: a {type(named[0]).__name__}: expected the names of instruments") from None
    symbols = []
    for one, number in index.items():
        row = int((indexes == number).argmax())
        symbols.append(arguments.symbol(f"row {row}: symbol", one))
    if {*counts} - {len(indexes)}:
        raise ValueError(f"frame: {len(indexes)} symbols for {counts.pop()} rows: expected the same number")
    return Table(channel, columns, symbols, indexes)


# ---- frames to columns


def _columns(frame: object) -> dict[str, Values]:
    for library, kind, reader in (
        ("pandas", "DataFrame", _of_pandas),
        ("polars", "DataFrame", _of_polars),
        ("pyarrow", "Table", _of_arrow),
    ):
        module = sys.modules.get(library)
        if module is not None and isinstance(frame, getattr(module, kind)):
            return reader(frame)
    if not isinstance(frame, Mapping):
        kind = type(frame).__name__
        raise TypeError(
            f"frame: a {kind}: expected a DataFrame of pandas or polars, a Table of Arrow, or a dict of columns"
        )
    return {_name(name): _of_sequence(str(name), values) for name, values in frame.items()}


def _name(name: object) -> str:
    return arguments.text("frame: the name of a column", name)


def _no_zone(name: str, how: str) -> ValueError:
    return ValueError(f"frame: {name} has no time zone: expected one, as {how} has")


def _nanoseconds(name: str, times: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Times in ns; the time of a row that is not in the range of these is not converted to another one."""
    exact = times.astype("datetime64[ns]")
    wrong = (exact.astype(times.dtype) != times) & ~np.isnat(times)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"frame: row {row}: {name}: {times[row]} is out of range: expected a time before 2262")
    return exact


def _of_pandas(frame: Any) -> dict[str, Values]:
    columns: dict[str, Values] = {}
    for at, label in enumerate(frame.columns):
        name, series = _name(label), frame.iloc[:, at]
        if name in columns:
            raise ValueError(f"frame: two columns {name}: expected different names")
        kind = series.dtype.kind
        if kind == "M":
            if series.dt.tz is None:
                raise _no_zone(name, f"frame[{name!r}].dt.tz_localize('UTC')")
            columns[name] = _nanoseconds(name, series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy())
        elif kind == "f":
            columns[name] = series.to_numpy(np.float64, na_value=np.nan)
        elif kind in "iu" and not series.hasnans:
            columns[name] = series.to_numpy()
        else:
            missing = series.isna().to_numpy()
            columns[name] = [None if gone else one for one, gone in zip(series.tolist(), missing, strict=True)]
    return columns


def _of_polars(frame: Any) -> dict[str, Values]:
    columns: dict[str, Values] = {}
    for series in frame.get_columns():
        kind, name = series.dtype, series.name
        if getattr(kind, "time_unit", None) is not None and hasattr(kind, "time_zone"):
            if kind.time_zone is None:
                raise _no_zone(name, f"frame[{name!r}].dt.replace_time_zone('UTC')")
            columns[name] = _nanoseconds(name, series.dt.convert_time_zone("UTC").dt.replace_time_zone(None).to_numpy())
        elif kind.is_float() or (kind.is_integer() and not series.null_count()):
            columns[name] = series.to_numpy()
        else:
            columns[name] = series.to_list()
    return columns


def _of_arrow(table: Any) -> dict[str, Values]:
    types = sys.modules["pyarrow"].types
    columns: dict[str, Values] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name in columns:
            raise ValueError(f"frame: two columns {name}: expected different names")
        if types.is_timestamp(column.type):
            if column.type.tz is None:
                raise _no_zone(name, "pyarrow.timestamp('ns', 'UTC')")
            columns[name] = _nanoseconds(name, column.to_numpy())
        elif types.is_floating(column.type) or (types.is_integer(column.type) and not column.null_count):
            columns[name] = column.to_numpy()
        else:
            columns[name] = column.to_pylist()
    return columns


def _of_sequence(name: str, values: object) -> Values:
    if isinstance(values, (str, bytes)) or not isinstance(values, (Sequence, np.ndarray)):
        raise TypeError(f"frame: {name}: a {type(values).__name__}: expected a list or a numpy array")
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise ValueError(f"frame: {name}: an array of {values.ndim} dimensions: expected 1")
        if values.dtype.kind in "iuf":
            return values
        if values.dtype.kind == "M":
            return _nanoseconds(name, values)
        return [*values.tolist()]
    return [*values]
