"""From a raw table and the roles of its columns to features, labels and tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from kinfolk.data.columns import (
    as_text,
    column_of,
    infinite,
    is_text,
    is_truth,
    not_numbers,
    parse_numbers,
    shown,
    tidy,
)
from kinfolk.data.reading import read
from kinfolk.data.rows import check_parts, groups, learnable, marked_rows, weights
from kinfolk.data.targets import chosen_errors, make_tasks, parse_target
from kinfolk.data.tasks import Task
from kinfolk.exceptions import InputError, unknown

__all__ = ["Roles", "Table", "make_table", "read"]


@dataclass(frozen=True)
class Roles:
    """Which column plays which part; every other column is a feature.

    Parameters
    ----------
    targets
        What is learned and judged, each ``NAME`` or ``NAME:KIND``; at least one. ``NAME:one_vs_rest`` is a binary task
        for each class.
    auxiliary
        What is learned only to help, in the same form.
    ignore
        Columns to leave out.
    group
        Rows with one value of this column stay in one fold.
    weight
        Weights of rows, not negative.
    split
        Says which rows are test rows: test/train, 1/0, True/False or yes/no.
    errors
        Name of a main task or of its target -> name of the error by which it is judged.
    """

    targets: tuple[str, ...]
    auxiliary: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    group: str | None = None
    weight: str | None = None
    split: str | None = None
    errors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Raw features, labels and what else is known about each row.

    Parameters
    ----------
    features
        Feature columns only, index 0 ... rows - 1; not encoded yet, without infinities.
    labels
        Float64 [row, task]; NaN where not observed, a class as its index in ``task.classes``.
    tasks
        Main tasks first, then auxiliary ones, each in the order of the roles.
    weight
        Float64 [row]; ones where there is no weight column.
    groups
        Int64 [row], or None.
    test
        Bool [row]: the user's test rows, or None.
    name
        What the report calls the table.
    warnings
        What was done to the table that its owner should know.
    added
        How many rows at the end came from a table of rows without labels (:mod:`kinfolk.data.unlabelled`).
    """

    features: pd.DataFrame
    labels: np.ndarray
    tasks: tuple[Task, ...]
    weight: np.ndarray
    groups: np.ndarray | None = None
    test: np.ndarray | None = None
    name: str = "table"
    warnings: tuple[str, ...] = ()
    added: int = 0


def make_table(frame: pd.DataFrame, roles: Roles, test: pd.DataFrame | None = None, name: str = "table") -> Table:
    """Sort the columns of a table by their roles, code the targets, and check all of it.

    Parameters
    ----------
    frame
        A table, from :func:`read` or from anywhere else.
    roles
        The parts that columns play.
    test
        Test rows with the same columns; they are appended below and marked.
    name
        What the report calls the table.

    Raises
    ------
    InputError
        For unknown columns, columns in two roles, targets that cannot be learned, bad weights, groups or
        splits, and when no feature is left. The message says what to do.
    """
    frame = tidy(frame)
    if frame.empty:
        raise InputError(f"A table needs rows and columns. '{name}' has {frame.shape[0]} by {frame.shape[1]} cells.")
    main = [parse_target(spec, frame) for spec in roles.targets]
    auxiliary = [parse_target(spec, frame) for spec in roles.auxiliary]
    used = _check_roles(frame, roles, [t for t, _ in main], [t for t, _ in auxiliary])
    is_test = None
    if test is not None:
        test = tidy(test)
        is_test = np.repeat([False, True], [len(frame), len(test)])
        frame = _append(frame, test, set(roles.ignore))
    elif roles.split:
        is_test = marked_rows(column_of(frame, roles.split))
    coded = [make_tasks(column_of(frame, t), form, main=True) for t, form in main]
    coded += [make_tasks(column_of(frame, t), form, main=False) for t, form in auxiliary]
    labels = np.concatenate([codes for _, codes in coded], axis=1)
    tasks = _with_errors([task for tasks, _ in coded for task in tasks], roles.errors)
    features, warnings = _features(frame.drop(columns=sorted(used)))
    if is_test is not None:
        labels, tasks, unseen = learnable(labels, tasks, is_test)
        warnings += unseen + check_parts(labels, tasks, is_test)
    return Table(
        features=features,
        labels=labels,
        tasks=tasks,
        weight=weights(column_of(frame, roles.weight)) if roles.weight else np.ones(len(frame)),
        groups=groups(column_of(frame, roles.group)) if roles.group else None,
        test=is_test,
        name=name,
        warnings=tuple(warnings),
    )


def _check_roles(frame: pd.DataFrame, roles: Roles, main: list[str], auxiliary: list[str]) -> set[str]:
    """The columns that are no features."""
    if not main:
        raise InputError(f"At least one target is needed. Name it with --target; columns are {shown(frame, 12)}.")
    single = {"weight": roles.weight, "group": roles.group, "split": roles.split}
    parts = [("target", t) for t in main] + [("auxiliary target", t) for t in auxiliary]
    parts += [("ignored column", c) for c in dict.fromkeys(roles.ignore)]
    parts += [(f"{part} column", c) for part, c in single.items() if c]
    seen: dict[str, str] = {}
    for part, column in parts:
        if column not in frame:
            raise unknown(part, column, [str(c) for c in frame])
        if column in seen:
            raise InputError(
                f"A column can play one part. '{column}' is both {seen[column]} and {part}; leave one of them out."
            )
        seen[column] = part
    return set(seen)


def _append(frame: pd.DataFrame, test: pd.DataFrame, ignored: set[str]) -> pd.DataFrame:
    """Test rows below the others; each column keeps the type that it has above."""
    if test.empty:
        raise InputError("The test table must have rows. It has none.")
    needed = [str(c) for c in frame if c not in ignored]
    for column in needed:
        if column not in test:
            raise InputError(f"The test table must have the same columns. {unknown('column', column, list(test))}")
    both = {c: _join(column_of(frame, c), column_of(test, c)) for c in needed}
    both |= {c: pd.concat([frame[c], frame[c].iloc[:0].reindex(range(len(test)))]) for c in ignored}
    return pd.DataFrame({c: both[str(c)].reset_index(drop=True) for c in frame})


def _join(above: pd.Series, below: pd.Series) -> pd.Series:
    if below.isna().all():
        below = above.iloc[:0].reindex(range(len(below)))
    elif above.isna().all():
        above = below.iloc[:0].reindex(range(len(above)))
    if is_text(above) and not is_text(below):
        below = as_text(below)
    elif is_text(below) and not is_text(above):
        below = parse_numbers(below)
        if is_text(below):
            odd = not_numbers(below)
            raise InputError(
                f"Column '{above.name}' must hold {_what(above)} in the test table as in the other. "
                f"Its data row {int(odd.index[0]) + 1} holds '{odd.iloc[0]}'."
            )
    dates = [pd.api.types.is_datetime64_any_dtype(part.dtype) for part in (above, below)]
    if dates[0] != dates[1]:
        raise InputError(f"Column '{above.name}' must hold {_what(above)} in the test table, but holds {_what(below)}.")
    if is_truth(above) != is_truth(below):  # 0/1 in one of them
        above, below = above.astype(float), below.astype(float)
    return pd.concat([above, below], ignore_index=True)


def _what(column: pd.Series) -> str:
    if is_text(column):
        return "text"
    return "dates" if pd.api.types.is_datetime64_any_dtype(column.dtype) else "numbers"


def _with_errors(tasks: list[Task], errors: Mapping[str, str]) -> tuple[Task, ...]:
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise InputError(f"Tasks must differ in name. Two are called '{double}'; rename the column of that name.")
    chosen = chosen_errors(tasks, errors)
    return tuple(replace(t, error=chosen[t.name]) if t.main and t.name in chosen else t for t in tasks)


def _features(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Feature columns that may say something, and what was done to the others."""
    columns = {str(name): parse_numbers(column) for name, column in frame.items()}
    warnings: list[str] = []
    for name, column in columns.items():
        if (bad := infinite(column)).any():
            columns[name] = column.mask(bad)
            rows = f"{bad.sum()} cells (the first in data row {bad.argmax() + 1})"
            warnings.append(f"Column '{name}' is infinite in {rows}; they are taken for missing.")
    empty = [name for name, column in columns.items() if column.isna().all()]
    constant = [name for name, column in columns.items() if column.nunique(dropna=False) == 1 and name not in empty]
    counting = [name for name, column in columns.items() if name.startswith("Unnamed: ") and _counts(column)]
    for what, names in (("have no value", empty), ("never vary", constant), ("number the rows", counting)):
        if names:
            warnings.append(f"Left out, since they {what}: {shown(names, 8)}.")
    kept = {n: c for n, c in columns.items() if n not in {*empty, *constant, *counting}}
    warnings += [
        f"Column '{n}' numbers the rows. If it is an identifier, leave it out with --ignore {n}."
        for n, c in kept.items()
        if _counts(c)
    ]
    if not kept:
        left_out = f" Left out for having one value or none: {shown([*empty, *constant])}." if empty or constant else ""
        raise InputError(f"At least one feature column is needed. Every column has another part.{left_out}")
    return pd.DataFrame(kept, index=pd.RangeIndex(len(frame))), warnings


def _counts(column: pd.Series) -> bool:
    """Whether a column is 0, 1, 2 ... or 1, 2, 3 ..."""
    if len(column) < 3 or not pd.api.types.is_integer_dtype(column.dtype):
        return False
    values = column.to_numpy()
    return bool(values[0] in (0, 1) and (np.diff(values) == 1).all())
