"""Frames of pandas and polars and tables of Arrow, from columns of numpy arrays: no Python work per row.

A column has the same dtype with and without rows: text, times in ns of the time zone UTC, float64 for prices and sizes,
and whole numbers. What is absent is NaT or NaN in pandas, null in polars and Arrow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .extras import required

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow


@dataclass(slots=True, frozen=True)
class Words:
    """A column of text: the different words, and for each row the index of its word."""

    words: list[str]
    indexes: npt.NDArray[np.intp]


# Times are datetime64[ns] of UTC, prices and sizes float64 with NaN; other arrays stay as they are.
Column: TypeAlias = Words | npt.NDArray[Any]


def to_pandas(columns: Mapping[str, Column]) -> pandas.DataFrame:
    """A `pandas.DataFrame`. Needs pandas and numpy."""
    pd = required("pandas", "to_pandas")

    def made(column: Column) -> Any:
        if isinstance(column, Words):
            return pd.array(column.words, dtype="str").take(column.indexes)
        return pd.DatetimeIndex(column, tz="UTC") if column.dtype.kind == "M" else column

    frame: pandas.DataFrame = pd.DataFrame({name: made(column) for name, column in columns.items()})
    return frame


def to_polars(columns: Mapping[str, Column]) -> polars.DataFrame:
    """A `polars.DataFrame`. Needs polars and numpy."""
    pl = required("polars", "to_polars")

    def made(name: str, column: Column) -> Any:
        if isinstance(column, Words):
            return pl.Series(name, column.words, dtype=pl.String).gather(column.indexes)
        if column.dtype.kind == "M":
            return pl.Series(name, column).dt.replace_time_zone("UTC")
        return pl.Series(name, column, nan_to_null=True)

    frame: polars.DataFrame = pl.DataFrame([made(name, column) for name, column in columns.items()])
    return frame


def to_arrow(columns: Mapping[str, Column]) -> pyarrow.Table:
    """A `pyarrow.Table`. Needs pyarrow and numpy."""
    pa = required("pyarrow", "to_arrow")

    def made(column: Column) -> Any:
        if isinstance(column, Words):
            return pa.array(column.words, pa.string()).take(pa.array(column.indexes))
        if column.dtype.kind == "M":
            return pa.array(column).cast(pa.timestamp("ns", "UTC"))
        return pa.array(column, from_pandas=True)

    table: pyarrow.Table = pa.table({name: made(column) for name, column in columns.items()})
    return table
