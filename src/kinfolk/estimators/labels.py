"""What users give as ``y`` <-> labels as networks learn them."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from kinfolk.data.columns import tidy
from kinfolk.data.targets import make_task
from kinfolk.data.tasks import KINDS, Task
from kinfolk.exceptions import unknown

GAP = -1
"""The integer that says that a class was not observed."""


@dataclass(frozen=True)
class Target:
    """A ``y``, column by column.

    Attributes
    ----------
    columns
        One ``[row]`` per task, each of its own type.
    names
        Of the tasks.
    flat
        ``y`` was ``[row]``, not ``[row, task]``.
    framed
        ``y`` was a DataFrame.
    """

    columns: tuple[np.ndarray, ...]
    names: tuple[str, ...]
    flat: bool
    framed: bool

    def rows(self, chosen: np.ndarray) -> Target:
        """Some of the rows."""
        return replace(self, columns=tuple(column[chosen] for column in self.columns))

    def shape_of(self, columns: Sequence[np.ndarray]) -> np.ndarray:
        """Predictions of all tasks in the shape of ``y``; of type object where tasks differ in type."""
        if self.flat:
            return columns[0]
        mixed = len({column.dtype.kind for column in columns}) > 1
        return np.column_stack([column.astype(object) if mixed else column for column in columns])


def target(y: Any) -> Target:
    """Reads ``y``: an array, list, Series or DataFrame, ``[row]`` or ``[row, task]``.

    Raises
    ------
    ValueError
        If there is none, or it has another shape.
    """
    if y is None:
        raise ValueError("Labels are needed: requires y to be passed, but the target y is None.")
    if isinstance(y, pd.DataFrame):
        _check_shape(y.shape)
        names = tuple(str(name) for name in y.columns)
        if len(set(names)) < len(names):
            raise ValueError(f"Columns of `y` must have different names. Got {', '.join(names)}.")
        return Target(tuple(_plain(y.iloc[:, t]) for t in range(y.shape[1])), names, False, True)
    if isinstance(y, pd.Series):
        return Target((_plain(y),), ("task 0" if y.name is None else str(y.name),), True, False)
    array = np.asarray(y)
    if array.dtype.kind in "US" and not isinstance(y, np.ndarray):
        array = np.asarray(y, dtype=object)  # a list of texts and numbers: NumPy made texts of all
    _check_shape(array.shape)
    columns = (array,) if array.ndim == 1 else tuple(array.T)
    return Target(columns, tuple(f"task {t}" for t in range(len(columns))), array.ndim == 1, False)


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) not in (1, 2) or 0 in shape[1:]:
        raise ValueError(f"`y` must be [row] or [row, task], with at least one task. Got shape {shape}.")


def _plain(column: pd.Series) -> np.ndarray:
    """A column as a NumPy array; object, with None where missing, for the types that only pandas has."""
    if isinstance(column.dtype, np.dtype):
        return column.to_numpy()
    return column.astype(object).where(column.notna(), None).to_numpy(dtype=object)


# ---- numbers


def numeric(given: Target) -> tuple[np.ndarray, tuple[Task, ...]]:
    """Labels ``[row, task]`` and regression tasks; NaN = not observed.

    Raises
    ------
    ValueError
        For a label that is no finite number, or a task without labels.
    """
    labels = np.column_stack([_numbers(c, name) for c, name in zip(given.columns, given.names, strict=True)])
    return labels, tuple(Task(name, "regression") for name in given.names)


def _numbers(column: np.ndarray, name: str) -> np.ndarray:
    if np.iscomplexobj(column):
        raise ValueError(f"Complex data not supported. Task {name!r} must hold numbers or NaN.")
    try:
        column = np.where(pd.isna(column), np.nan, column).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Labels of task {name!r} must be numbers, or NaN where not observed: {error}.") from error
    if np.isinf(column).any():
        raise ValueError(f"Labels of task {name!r} must be finite. Row {int(np.isinf(column).argmax())} is infinite.")
    return column


# ---- classes


def classes(given: Target) -> tuple[np.ndarray, tuple[Task, ...], tuple[np.ndarray, ...]]:
    """Codes of classes ``[row, task]`` (NaN = not observed), the tasks, and each one's sorted classes.

    Raises
    ------
    ValueError
        For labels that are no classes, or a task with fewer than two of them.
    """
    codes, tasks, known = [], [], []
    for raw, name in zip(given.columns, given.names, strict=True):
        column, observed = classified(raw, name, gaps=not (given.flat and signs(raw)))
        found, inverse = np.unique(column[observed], return_inverse=True)
        _check_classes(found, name, bool((~observed).any()))
        code = np.full(len(column), np.nan)
        code[observed] = inverse
        codes.append(code)
        tasks.append(Task(name, "binary" if len(found) == 2 else "multiclass", tuple(found.tolist())))
        known.append(found)
    return np.column_stack(codes), tuple(tasks), tuple(known)


def signs(column: np.ndarray) -> bool:
    """Whether a column's values are -1 and 1 alone.

    As ``y`` of a single task that is a usual way to write two classes; -1 as a gap would leave one class, an error.
    """
    return set(column[~pd.isna(column)].tolist()) == {GAP, 1}


def classified(column: np.ndarray, name: str, gaps: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """A column of classes in its natural type, and where it is observed.

    Not observed are NaN among numbers, None (and NaN) among texts, and, if `gaps`, -1 among integers.
    """
    if column.dtype.kind == "O":
        column = _natural(column, name)
    if column.dtype.kind == "f":
        missing = np.isnan(column)
        odd = ~missing & (column != np.floor(column))
        if np.isinf(column).any() or odd.any():
            raise ValueError(
                f"Unknown label type: continuous. Task {name!r} must hold classes; numbers with fractions are for "
                "MultiTaskRegressor or MultiTaskEstimator."
            )
        return column, ~missing & ~(gaps & (column == GAP))
    if column.dtype.kind in "iu":
        return column, ~(gaps & (column == GAP))
    if column.dtype.kind in "bU":
        return column, np.ones(len(column), dtype=bool)
    if column.dtype.kind == "O":
        return column, ~pd.isna(column)
    raise ValueError(
        f"Unknown label type: {column.dtype}. Task {name!r} must hold integers, truth values or texts; decode others."
    )


def _natural(column: np.ndarray, name: str) -> np.ndarray:
    """A column of type object as integers, numbers or truth values where all that is observed is."""
    observed = ~pd.isna(column)
    values = column[observed]
    if all(isinstance(v, str) for v in values) or all(isinstance(v, bool | np.bool_) for v in values):
        return column
    for kind, dtype, gap in ((numbers.Integral, np.int64, GAP), (numbers.Real, np.float64, np.nan)):
        if all(isinstance(v, kind) and not isinstance(v, bool | np.bool_) for v in values):
            natural = np.full(len(column), gap, dtype=dtype)
            natural[observed] = values.astype(dtype)
            return natural
    kinds = ", ".join(sorted({type(v).__name__ for v in values}))
    raise ValueError(f"Unknown label type: labels of task {name!r} must be of one type. Got {kinds}.")


def _check_classes(found: np.ndarray, name: str, gaps: bool) -> None:
    if len(found) >= 2:
        return
    why = "It has no label" if not len(found) else f"It has one class, {found.tolist()[0]!r}"
    hint = f" ({GAP} means not observed; code classes by other numbers)" if gaps and found.dtype.kind in "iuf" else ""
    raise ValueError(f"Each task needs labels of at least two classes. {why} in task {name!r}{hint}.")


# ---- both


def mixed(given: Target, kinds: Any) -> tuple[np.ndarray, tuple[Task, ...]]:
    """Labels ``[row, task]`` and tasks of kinds that are given, or found out as the reader of tables does.

    Raises
    ------
    ValueError
        For an unknown kind or task, and labels that do not fit their kind.
    """
    frame = tidy(pd.DataFrame(dict(enumerate(given.columns))))
    frame = frame.set_axis(list(given.names), axis=1)
    wanted = _kinds(kinds, given.names)
    made = [make_task(frame.iloc[:, t], kind) for t, kind in enumerate(wanted)]
    return np.column_stack([labels for _, labels in made]), tuple(task for task, _ in made)


def _kinds(kinds: Any, names: Sequence[str]) -> list[str | None]:
    if kinds is None:
        return [None] * len(names)
    if isinstance(kinds, Mapping):
        for name in kinds:
            if name not in names:
                raise unknown("task in `kinds`", str(name), names)
        wanted = [kinds.get(name) for name in names]
    else:
        wanted = [kinds] if isinstance(kinds, str) else list(kinds)
    if len(wanted) != len(names):
        raise ValueError(f"`kinds` must have one kind per task. Got {len(wanted)} for {len(names)} tasks.")
    for kind in wanted:
        if kind is not None and kind not in KINDS:
            raise unknown("kind of task", str(kind), KINDS)
    return wanted


def coded(column: np.ndarray, task: Task) -> tuple[np.ndarray, list[str]]:
    """Labels of a known task ``[row]``, NaN where not observed; and the classes that it does not know, as NaN too."""
    tidied = tidy(pd.DataFrame({task.name: column})).iloc[:, 0]
    if task.numeric:
        return _numbers(tidied.to_numpy(), task.name), []
    codes: dict[Any, float] = {str(known): float(code) for code, known in enumerate(task.classes)}
    codes |= {known: float(code) for code, known in enumerate(task.classes)}
    values = tidied.dropna().unique().tolist()
    # As text too: rows of which all happen to be numbers are read as numbers, beside rows with "x" they were texts.
    found = {value: codes.get(value, codes.get(str(value))) for value in values}
    strange = sorted(str(value) for value, code in found.items() if code is None)
    return tidied.map(found).to_numpy(dtype=float, na_value=np.nan), strange
