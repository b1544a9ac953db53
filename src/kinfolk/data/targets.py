"""A target column -> a task and its labels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from kinfolk.data.columns import infinite, is_text, is_truth, not_numbers, parse_numbers, shown
from kinfolk.data.tasks import KINDS, Task
from kinfolk.exceptions import InputError, unknown

MOST_CLASSES = 100


def parse_target(spec: str, columns: Iterable[str]) -> tuple[str, str | None]:
    """Split ``NAME`` or ``NAME:KIND`` into the name and the kind, None where it is to be found out.

    A column that has the whole text as its name wins, so ``Jitter:RAP`` is a name.

    >>> parse_target("Jitter:RAP", ["Jitter:RAP"]), parse_target("Jitter:RAP:binary", ["Jitter:RAP"])
    (('Jitter:RAP', None), ('Jitter:RAP', 'binary'))
    """
    columns = list(columns)
    spec = spec.strip()
    if spec in columns:
        return spec, None
    name, colon, kind = spec.rpartition(":")
    name, kind = name.strip(), kind.strip()
    if colon and kind in KINDS:
        if name in columns:
            return name, kind
        raise unknown("target", name, columns)
    if colon and name in columns:
        raise unknown(f"kind of target {name}:", kind, KINDS)
    raise unknown("target", spec, columns)


def make_task(column: pd.Series, kind: str | None = None, main: bool = True) -> tuple[Task, np.ndarray]:
    """The task that a column asks for, and its labels.

    Two values make a binary task (classes in the order of numbers or of texts), numbers with more than two
    values a regression, texts a multiclass task.

    Parameters
    ----------
    column
        A tidy column (:func:`kinfolk.data.columns.tidy`); its name becomes the task's.
    kind
        The kind, if the user names one.
    main
        False for an auxiliary task.

    Returns
    -------
    task, labels
        Labels are float64 [row]: a class as its index in ``task.classes``, NaN where not observed.

    Raises
    ------
    InputError
        If the column is constant, has no value, infinities, too many classes, or values that do not fit the kind.
    """
    name = str(column.name)
    column = column.reset_index(drop=True)
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        raise InputError(f"Target '{name}' must hold numbers or classes. It holds dates; make numbers of them.")
    _check_values(column, name)
    distinct = sorted(column.dropna().unique().tolist())
    kind = kind or _kind(column, distinct)
    if kind == "regression":
        return Task(name, kind, main=main), _numbers(column, name)
    if kind == "binary" and len(distinct) != 2:
        raise InputError(
            f"Target '{name}' must have two values to be binary. It has {len(distinct)}: {shown(distinct)}."
        )
    _check_classes(column, name, distinct)
    codes = column.map({value: float(code) for code, value in enumerate(distinct)})
    classes = tuple(int(v) if isinstance(v, float) and v.is_integer() else v for v in distinct)
    return Task(name, kind, classes, main=main), codes.to_numpy(dtype=float, na_value=np.nan)


def _check_values(column: pd.Series, name: str) -> None:
    if (bad := infinite(column)).any():
        raise InputError(
            f"Target '{name}' must be finite. Data row {bad.argmax() + 1} is infinite; correct it or leave it empty."
        )
    values = column.dropna().unique()
    if len(values) == 0:
        raise InputError(f"Target '{name}' must have values. All {len(column)} are missing; choose another column.")
    if len(values) == 1:
        raise InputError(f"Target '{name}' must vary. All its values are '{values[0]}'; choose another column.")


def _kind(column: pd.Series, distinct: list) -> str:
    if is_truth(column) or len(distinct) == 2:
        return "binary"
    if not is_text(column):
        return "regression"
    odd = not_numbers(column)
    # Mostly numbers: a regression with a typing error is likelier than classes that look like numbers.
    if 0 < len(odd) < 0.5 * column.notna().sum():
        _refuse_text(odd, str(column.name))
    return "multiclass"


def _numbers(column: pd.Series, name: str) -> np.ndarray:
    if is_text(column):
        if len(odd := not_numbers(column)):
            _refuse_text(odd, name)
        column = parse_numbers(column)
        _check_values(column, name)
    return column.to_numpy(dtype=float, na_value=np.nan)


def _refuse_text(odd: pd.Series, name: str) -> None:
    row, value = int(odd.index[0]) + 1, odd.iloc[0]
    raise InputError(
        f"Target '{name}' must hold numbers to be a regression. Data row {row} holds '{value}'. Correct it, "
        f"declare it missing (--missing '{value}'), or ask for classes (--target {name}:multiclass)."
    )


def _check_classes(column: pd.Series, name: str, distinct: list) -> None:
    numeric = not is_text(column) or not len(not_numbers(column))
    hint = f", or ask for numbers (--target {name}:regression)" if numeric else ""
    if len(distinct) > 2 and len(distinct) == column.notna().sum():
        raise InputError(
            f"Target '{name}' must have rows that share a class. Each of its {len(distinct)} values occurs once, "
            f"as in an identifier; choose another column{hint}."
        )
    if len(distinct) > MOST_CLASSES:
        raise InputError(
            f"Target '{name}' may have at most {MOST_CLASSES} classes. It has {len(distinct)}; join rare classes{hint}."
        )
