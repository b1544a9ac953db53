"""What a column holds: missing cells, numbers, truth values, dates or text."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kinfolk.exceptions import InputError

# The marks that pandas takes for missing, and those of the UCI files ("?"), SAS (".") and spreadsheets ("-").
# "none" in lower case is no mark: it is a common answer in questionnaires.
_MARKS = """? . - -- NA na N/A n/a #N/A #NA <NA> NaN nan NAN -NaN -nan NULL null Null None NaT
1.#IND -1.#IND 1.#QNAN -1.#QNAN"""
MISSING = frozenset(["", "#N/A N/A", *_MARKS.split()])
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?:[iI]nf|[iI]nfinity|INF)")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+(?:,[0-9]+)?")
_TRUTH = {"true": True, "false": False}


def tidy(frame: pd.DataFrame, missing: Sequence[str] = ()) -> pd.DataFrame:
    """A copy with plain column types: bool, int64, float64, datetime64 or text, text stripped, marks of missing gone.

    Parameters
    ----------
    frame
        Any table. Names of columns are made text and stripped; the index is replaced by 0, 1, 2 ...
    missing
        More texts that mean "missing", beside :data:`MISSING`.

    Raises
    ------
    InputError
        For two columns of one name, and for cells that are no single value (lists, complex numbers).
    """
    names = [str(name).strip() for name in frame.columns]
    check_unique(names)
    marks = MISSING | {mark.strip() for mark in missing}
    columns = {name: _tidy_column(frame.iloc[:, at], name, marks) for at, name in enumerate(names)}
    return pd.DataFrame(
        {name: column.reset_index(drop=True) for name, column in columns.items()}, index=pd.RangeIndex(len(frame))
    )


def check_unique(names: Sequence[str]) -> None:
    """Refuse two columns of one name."""
    double = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if double is None:
        return
    at = [str(i + 1) for i, name in enumerate(names) if name == double]
    headless = all(is_number(name) for name in names if name)
    hint = "Is the first line a header?" if headless else "Rename one of them."
    raise InputError(f"Column names must differ. Columns {', '.join(at[:5])} are all called '{double}'. {hint}")


def column_of(frame: pd.DataFrame, name: str) -> pd.Series:
    """The column of that name, of a table whose names differ."""
    column = frame[name]
    if not isinstance(column, pd.Series):
        raise ValueError(f"Column names must differ. {name!r} occurs more than once.")
    return column


def parse_numbers(column: pd.Series, decimal_comma: bool = False) -> pd.Series:
    """A text column as numbers or truth values where every cell is one; else the column itself.

    Parameters
    ----------
    column
        A tidy column; columns that are not text come back unchanged. Without any value: float64.
    decimal_comma
        Whether ``1,5`` may be a number, as in files that are separated by semicolons.
    """
    if not is_text(column):
        return column
    texts = column.dropna().tolist()
    if not texts:
        return pd.Series(np.full(len(column), np.nan), column.index, name=column.name)
    if _all_match(texts, _NUMBER):
        return _numeric(column, texts)
    if decimal_comma and _all_match(texts, _DECIMAL_COMMA):
        return _numeric(column, [text.replace(",", ".") for text in texts])
    if all(text.lower() in _TRUTH for text in texts):
        truth = column.str.lower().map(_TRUTH).astype("boolean")
        return truth if column.hasnans else truth.astype(bool)
    return column


def as_text(column: pd.Series) -> pd.Series:
    """A tidy column as text; whole numbers without a decimal point, so that 1, 1.0 and "1" are one category."""
    if is_text(column):
        return column
    if pd.api.types.is_float_dtype(column.dtype):
        texts = [str(int(v)) if np.isfinite(v) and v == int(v) else str(v) for v in column.dropna()]
    else:
        texts = [str(v) for v in column.dropna()]
    out = pd.Series([None] * len(column), column.index, dtype="str", name=column.name)
    out[column.notna()] = texts
    return out


def is_text(column: pd.Series) -> bool:
    """Whether a tidy column holds text."""
    return isinstance(column.dtype, pd.StringDtype)


def is_truth(column: pd.Series) -> bool:
    """Whether a tidy column holds truth values."""
    return pd.api.types.is_bool_dtype(column.dtype)


def is_numeric(column: pd.Series) -> bool:
    """Whether a tidy column holds numbers; truth values are none."""
    return pd.api.types.is_numeric_dtype(column.dtype) and not is_truth(column)


def is_number(text: str) -> bool:
    """Whether a text is a number.

    >>> is_number("-1.5e3"), is_number("1_000"), is_number("G1")
    (True, False, False)
    """
    return _NUMBER.fullmatch(text) is not None


def not_numbers(column: pd.Series) -> pd.Series:
    """The cells of a text column that are no numbers, with their row positions as index."""
    values = column.reset_index(drop=True).dropna()
    return values.loc[[not is_number(text) for text in values]]


def infinite(column: pd.Series) -> np.ndarray:
    """Which cells are infinite, Bool [row]."""
    if not pd.api.types.is_float_dtype(column.dtype):
        return np.zeros(len(column), bool)
    return np.isinf(column.to_numpy(float))


def shown(values: Iterable[Any], limit: int = 5) -> str:
    """A few values in quotes, for a message."""
    texts = [f"'{str(v)[:40]}'" for v in values]
    return ", ".join(texts[:limit]) + (f" and {len(texts) - limit} more" if len(texts) > limit else "")


def _tidy_column(column: pd.Series, name: str, marks: frozenset[str]) -> pd.Series:
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        # Who marks numbers as categories wants classes, so they become text.
        return _tidy_text(as_text(_plain(column.astype(object), name)), marks)
    if isinstance(dtype, pd.ArrowDtype) or pd.api.types.is_object_dtype(dtype):
        column = _plain(column.astype(object), name)
    elif isinstance(dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    if is_text(column) or isinstance(column.dtype, pd.StringDtype):
        return _tidy_text(column.astype("str"), marks)
    return _tidy_typed(column, name)


def _tidy_typed(column: pd.Series, name: str) -> pd.Series:
    types = pd.api.types
    if types.is_bool_dtype(column.dtype):
        return column.astype("boolean") if column.hasnans else column.astype(bool)
    if types.is_complex_dtype(column.dtype):
        raise InputError(f"Column '{name}' must hold numbers, text or dates. It holds complex ones; split it in two.")
    if types.is_integer_dtype(column.dtype) and not column.hasnans:
        return column.astype("float64" if types.is_unsigned_integer_dtype(column.dtype) else "int64")
    if types.is_numeric_dtype(column.dtype):
        return pd.Series(column.to_numpy(dtype=float, na_value=np.nan), column.index, name=column.name)
    if types.is_timedelta64_dtype(column.dtype):
        return column.dt.total_seconds().astype(float)
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return column.dt.tz_convert(None)
    if types.is_datetime64_any_dtype(column.dtype):
        return column
    return _plain(column.astype(object), name).astype("str")


def _plain(column: pd.Series, name: str) -> pd.Series:
    """A column of Python objects as the type that its cells share; text if they share none."""
    what = pd.api.types.infer_dtype(column, skipna=True)
    if what == "empty":
        return pd.Series(np.full(len(column), np.nan), column.index, name=column.name)
    if what == "boolean":
        return column.astype("boolean")
    if what in ("integer", "floating", "mixed-integer-float", "decimal"):
        return pd.Series([_float(v) for v in column], column.index, dtype=float, name=column.name)
    if what in ("date", "datetime", "datetime64"):
        dates = pd.to_datetime(column, errors="coerce", utc=True)
        return dates.dt.tz_convert(None)
    odd = next((v for v in column if not isinstance(v, Hashable) or isinstance(v, (bytes, tuple, complex))), None)
    if odd is not None:
        raise InputError(
            f"Column '{name}' must hold single numbers, texts or dates. It holds {type(odd).__name__} cells; "
            "split it into columns, or leave it out with --ignore."
        )
    texts = [None if pd.isna(v) else str(v).encode("utf-8", "replace").decode() for v in column]
    return pd.Series(texts, column.index, dtype="str", name=column.name)


def _float(value: Any) -> float:
    if pd.isna(value):
        return float("nan")
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits
        return float("inf") if value > 0 else float("-inf")


def _tidy_text(column: pd.Series, marks: frozenset[str]) -> pd.Series:
    if not is_text(column):
        return column
    column = column.str.strip()
    return column.mask(column.isin(list(marks)))


def _all_match(texts: list[str], pattern: re.Pattern[str]) -> bool:
    return all(pattern.fullmatch(text) for text in texts)


def _numeric(column: pd.Series, texts: list[str]) -> pd.Series:
    whole = len(texts) == len(column) and _all_match(texts, _INTEGER)
    if whole and max(map(len, texts)) <= 18:  # digits that surely fit into an int64
        return pd.Series([int(text) for text in texts], column.index, dtype="int64", name=column.name)
    # Python's own conversion rounds correctly, so a written float64 is read back bit for bit.
    out = np.full(len(column), np.nan)
    out[column.notna().to_numpy()] = [float(text) for text in texts]
    return pd.Series(out, column.index, name=column.name)
