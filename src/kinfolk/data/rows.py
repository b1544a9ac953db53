"""What columns and labels say about rows: their weights, groups and test rows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kinfolk.data.columns import as_text, is_numeric, is_truth, not_numbers, parse_numbers, shown
from kinfolk.data.tasks import Task
from kinfolk.exceptions import InputError

_SPLIT_WORDS = {
    **dict.fromkeys(("test", "testing", "1", "true", "yes"), True),
    **dict.fromkeys(("train", "training", "0", "false", "no"), False),
}


def weights(column: pd.Series) -> np.ndarray:
    """Weights of rows, float64 [row]: finite, not negative, not all 0."""
    column = parse_numbers(column)
    if not (is_numeric(column) or is_truth(column)):
        odd = not_numbers(as_text(column))
        row, value = (int(odd.index[0]) + 1, odd.iloc[0])
        raise InputError(f"Weight column '{column.name}' must hold numbers. Data row {row} holds '{value}'.")
    weight = column.to_numpy(dtype=float, na_value=np.nan)
    for bad, what in ((np.isnan(weight), "missing"), (weight < 0, "negative"), (np.isinf(weight), "infinite")):
        if bad.any():
            raise InputError(
                f"Weight column '{column.name}' must hold finite numbers that are not negative. "
                f"It is {what} in data row {bad.argmax() + 1}; correct it, or remove the row."
            )
    if not weight.any():
        raise InputError(f"Weight column '{column.name}' must have a weight above 0. All are 0.")
    return weight


def groups(column: pd.Series) -> np.ndarray:
    """Groups of rows as codes, int64 [row]."""
    codes, values = pd.factorize(column, sort=True)
    if (codes < 0).any():
        row = int((codes < 0).argmax()) + 1
        raise InputError(f"Group column '{column.name}' must name a group in each row. Data row {row} is missing.")
    if len(values) < 2:
        raise InputError(f"Group column '{column.name}' must have at least two groups. It has one, '{values[0]}'.")
    return codes.astype(np.int64)


def marked_rows(column: pd.Series) -> np.ndarray:
    """Which rows are test rows, Bool [row]."""
    words = as_text(column).str.lower()
    odd = words[~words.isin(list(_SPLIT_WORDS))]
    if len(odd):
        raise InputError(
            f"Split column '{column.name}' must hold test/train, 1/0, true/false or yes/no. "
            f"Data row {int(odd.index[0]) + 1} holds {'nothing' if odd.isna().iloc[0] else repr(odd.iloc[0])}."
        )
    test = words.map(_SPLIT_WORDS).to_numpy(dtype=bool)
    if test.all() or not test.any():
        raise InputError(f"Split column '{column.name}' must mark test and training rows. All are {words.iloc[0]!r}.")
    return test


def learnable(
    labels: np.ndarray, tasks: tuple[Task, ...], test: np.ndarray
) -> tuple[np.ndarray, tuple[Task, ...], list[str]]:
    """Leaves out the tasks of classes that only test rows have, and says so."""
    there = [not task.target or bool((column[~test] == 1).any()) for task, column in zip(tasks, labels.T, strict=True)]
    lacking = [task.name for task, one in zip(tasks, there, strict=True) if not one]
    said = [f"Left out, since only test rows have the class: {shown(lacking)}."] if lacking else []
    return labels[:, there], tuple(task for task, one in zip(tasks, there, strict=True) if one), said


def check_parts(labels: np.ndarray, tasks: tuple[Task, ...], test: np.ndarray) -> list[str]:
    """Refuse targets that the training rows do not show; warn of classes that only the test rows have."""
    warnings = []
    for task, column in zip(tasks, labels.T, strict=True):
        train = np.unique(column[~test & ~np.isnan(column)])
        if len(train) < 2:
            state = "varies in none of" if len(train) else "is missing in all of"
            raise InputError(f"Target '{task.name}' must vary in the training rows. It {state} them; split otherwise.")
        if task.main and np.isnan(column[test]).all():
            raise InputError(
                f"Target '{task.name}' must have values in the test rows. All are missing; split otherwise."
            )
        unseen = [c for code, c in enumerate(task.classes) if code not in train]
        if unseen:
            warnings.append(f"Classes of '{task.name}' that only test rows have cannot be learned: {shown(unseen)}.")
    return warnings
