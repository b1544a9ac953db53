"""How a feature column will be encoded, and its cells as numbers or dates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kinfolk.data.columns import as_text, is_text, not_numbers, parse_numbers
from kinfolk.exceptions import InputError

TEXT_COMPONENTS = 30  # skrub's default
_MOST_CATEGORIES = 60  # more distinct texts are encoded by their character n-grams
_DATE_COLUMNS = 5  # year, month, day, hour, total seconds


@dataclass(frozen=True)
class Column:
    """How one feature column is encoded.

    Parameters
    ----------
    kind
        ``"numeric"``, ``"category"``, ``"date"``, ``"text"``, or ``"empty"``: no value in the fitted rows, left out.
    categories
        Those of a category, sorted.
    format
        Of a date that is written as text (``strftime``), else empty.
    """

    kind: str
    categories: tuple[str, ...] = ()
    format: str = ""


def width(columns: Iterable[Column]) -> int:
    """How many columns these have once encoded, at most."""
    sizes = {"numeric": 1, "date": _DATE_COLUMNS, "text": TEXT_COMPONENTS, "empty": 0}
    return sum(len(c.categories) + 1 if c.kind == "category" else sizes[c.kind] for c in columns)


def describe(column: pd.Series) -> Column:
    """How a tidy column will be encoded, by what its rows hold."""
    column = parse_numbers(column)
    if column.isna().all():
        return Column("empty")
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return Column("date")
    if not is_text(column):
        return Column("numeric")
    if (written := _date_format(column)) is not None:
        return Column("date", format=written)
    distinct = column.dropna().unique().tolist()
    # In a small table most texts are too rare for a column each.
    if len(distinct) <= min(_MOST_CATEGORIES, max(10, len(column) // 3)):
        return Column("category", tuple(sorted(str(value) for value in distinct)))
    return Column("text")


def _date_format(column: pd.Series) -> str | None:
    """How the dates of a text column are written, None where it holds others than dates."""
    from skrub import ToDatetime
    from skrub.core import RejectColumn

    try:
        parser = ToDatetime()
        parser.fit_transform(column)
    except RejectColumn:
        return None
    return parser.format_


def dates(column: pd.Series, written: str) -> pd.Series:
    """A column as datetime64, from text in the given format (``strftime``)."""
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return column
    texts = as_text(column)
    parsed = pd.to_datetime(texts, format=written or "ISO8601", errors="coerce", utc=True).dt.tz_convert(None)
    odd = texts.reset_index(drop=True).loc[(texts.notna() & parsed.isna()).to_numpy()]
    if len(odd):
        raise InputError(
            f"Column '{column.name}' must hold dates{f' written as {written}' if written else ''}, as in training. "
            f"Data row {int(odd.index[0]) + 1} holds '{odd.iloc[0]}'."
        )
    return parsed


def numbers(column: pd.Series) -> pd.Series:
    """A column as float64; truth values as 0 and 1."""
    column = parse_numbers(column)
    if is_text(column) or pd.api.types.is_datetime64_any_dtype(column.dtype):
        odd = not_numbers(as_text(column))
        raise InputError(
            f"Column '{column.name}' must hold numbers, as in training. Data row {int(odd.index[0]) + 1} "
            f"holds '{odd.iloc[0]}'. Correct it, or leave it empty."
        )
    return pd.Series(column.to_numpy(dtype=float, na_value=np.nan), column.index, name=column.name)
