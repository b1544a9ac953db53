"""A target column -> a task and its labels, or several: one for each class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from kinfolk.data.columns import infinite, is_text, is_truth, not_numbers, parse_numbers, shown
from kinfolk.data.errors import check_error
from kinfolk.data.tasks import KINDS, Task
from kinfolk.exceptions import InputError, unknown

MOST_CLASSES = 100
ONE_VS_REST = "one_vs_rest"
FORMS = (*KINDS, ONE_VS_REST)
"""What may stand behind the name of a target."""


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
    if colon and kind in FORMS:
        if name in columns:
            return name, kind
        raise unknown("target", name, columns)
    if colon and name in columns:
        raise unknown(f"kind of target {name}:", kind, FORMS)
    raise unknown("target", spec, columns)


def make_tasks(column: pd.Series, form: str | None = None, main: bool = True) -> tuple[tuple[Task, ...], np.ndarray]:
    """The tasks that a column asks for, and their labels ``[row, task]``.

    They are the one of :func:`make_task`; or, in the form "one_vs_rest", a binary task for each class, called
    ``column=class``, whose labels are missing where the column is.

    Raises
    ------
    InputError
        As :func:`make_task`, and where there are only two classes.

    Examples
    --------
    >>> tasks, labels = make_tasks(pd.Series(["a", "b", "c", "a"], name="kind"), "one_vs_rest")
    >>> [task.name for task in tasks], labels[:, 0].tolist()
    (['kind=a', 'kind=b', 'kind=c'], [1.0, 0.0, 0.0, 1.0])
    """
    if form != ONE_VS_REST:
        task, labels = make_task(column, form, main)
        return (task,), labels[:, None]
    whole, codes = make_task(column, "multiclass", main)
    name = whole.name
    if len(whole.classes) == 2:
        raise InputError(
            f"Target '{name}' must have more than two classes to be several tasks. It has {shown(whole.classes)}: "
            f"two classes are one task (--target {name}:binary)."
        )
    parts = [Task(f"{name}={one}", "binary", (f"not {one}", one), main, target=name) for one in whole.classes]
    marks = (codes[:, None] == np.arange(len(parts))).astype(float)
    return tuple(parts), np.where(np.isnan(codes)[:, None], np.nan, marks)


def by_target(tasks: Iterable[Task]) -> dict[str, list[Task]]:
    """The tasks that each target column makes, usually one."""
    found: dict[str, list[Task]] = {}
    for task in tasks:
        found.setdefault(task.column, []).append(task)
    return found


def chosen_errors(tasks: Sequence[Task], errors: Mapping[str, str]) -> dict[str, str]:
    """The canonical name of an error for each main task that is named, or whose target is; the task's own name wins.

    Raises
    ------
    InputError
        For an unknown target, and an error that is unknown or does not judge the task's kind.
    """
    main = {task.name: task for task in tasks if task.main}
    targets = by_target(main.values())
    for name in errors:
        if name not in main and name not in targets:
            raise unknown("target of an error", name, [*targets, *(name for name in main if name not in targets)])
    named = {task.name: errors.get(task.name, errors.get(task.column)) for task in main.values()}
    return {name: check_error(name, error, main[name].kind) for name, error in named.items() if error is not None}


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
    if kind in ("regression", "ranking"):
        return Task(name, kind, main=main), _numbers(column, name, kind)
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
        _refuse_text(odd, str(column.name), "regression")
    return "multiclass"


def _numbers(column: pd.Series, name: str, kind: str) -> np.ndarray:
    if is_text(column):
        if len(odd := not_numbers(column)):
            _refuse_text(odd, name, kind)
        column = parse_numbers(column)
        _check_values(column, name)
    return column.to_numpy(dtype=float, na_value=np.nan)


def _refuse_text(odd: pd.Series, name: str, kind: str) -> None:
    row, value = int(odd.index[0]) + 1, odd.iloc[0]
    raise InputError(
        f"Target '{name}' must hold numbers to be a {kind}. Data row {row} holds '{value}'. Correct it, "
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
