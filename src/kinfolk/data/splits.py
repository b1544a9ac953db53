"""Which rows train and which judge: repeats of k-fold, stratified over tasks; groups; the user's own test rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from kinfolk.data.tables import Table
from kinfolk.data.tasks import Task
from kinfolk.exceptions import InputError

STRATIFIED_ROWS = 10_000  # beyond that, random folds are as even, and stratifying costs seconds
QUANTILES = 4
LEAST_ROWS = 10  # labelled rows of a target
LEAST_GROUPS = 3  # in training rows: one is held out, one stops, one trains


@dataclass(frozen=True)
class Split:
    """One way to hold rows out.

    Attributes
    ----------
    repeat, fold
        Their numbers.
    train, test
        Row positions; ``test`` is empty when nothing is held out (the procedure on all rows).
    unlabelled
        Rows without any label, for tasks that need none. They are in neither of the others.
    """

    repeat: int
    fold: int
    train: Int[np.ndarray, " train"]
    test: Int[np.ndarray, " test"]
    unlabelled: Int[np.ndarray, " unlabelled"] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


def outer_splits(table: Table, repeats: int, folds: int, seed: int, unlabelled: int | None = None) -> list[Split]:
    """Repeats of k-fold, each with its own seed; one split where the user has test rows already.

    Parameters
    ----------
    table
        What is split.
    repeats, folds
        How often, into how many folds.
    seed
        Of all draws.
    unlabelled
        The most rows without any label that are used, drawn at random; None: all.

    Raises
    ------
    InputError
        If a main task has fewer labelled rows than folds, or there are fewer groups than folds.
    """
    labelled, extra = labelled_rows(table), unlabelled_rows(table, unlabelled, seed)
    known = ~np.isnan(table.labels).all(1)
    if table.test is not None:
        _check_test(table, table.test)
        return [Split(0, 0, np.flatnonzero(known & ~table.test), labelled[table.test[labelled]], extra)]
    _check(table, folds)
    others = np.setdiff1d(np.flatnonzero(known), labelled)  # of auxiliary tasks alone, or without a weight
    splits = []
    for repeat in range(repeats):
        at = fold_numbers(table.labels[labelled], table.tasks, _of(table.groups, labelled), folds, seed + repeat)
        for fold in range(folds):
            test = labelled[at == fold]
            train = np.concatenate([labelled[at != fold], _apart(table.groups, others, test)])
            splits.append(Split(repeat, fold, np.sort(train), test, _apart(table.groups, extra, test)))
    return splits


def whole_split(table: Table, repeat: int, seed: int, unlabelled: int | None = None) -> Split:
    """The split of the model, in which no row is held out; see :func:`outer_splits`."""
    known = np.flatnonzero(~np.isnan(table.labels).all(1))
    return Split(repeat, 0, known, known[:0], unlabelled_rows(table, unlabelled, seed))


def unlabelled_rows(table: Table, most: int | None = None, seed: int = 0) -> Int[np.ndarray, " unlabelled"]:
    """Rows without a label of any task, with a weight, that are not marked as test rows; at most so many, at random."""
    found = np.isnan(table.labels).all(1) & (table.weight > 0)
    rows = np.flatnonzero(found if table.test is None else found & ~table.test)
    if most is None or len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).permutation(rows)[:most])


def labelled_rows(table: Table) -> Int[np.ndarray, " labelled"]:
    """Rows that can judge: with a label of a main task, and a weight."""
    main = np.array([task.main for task in table.tasks])
    return np.flatnonzero(~np.isnan(table.labels[:, main]).all(1) & (table.weight > 0))


def _apart(groups: np.ndarray | None, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The rows of groups that the others are not of."""
    return rows if groups is None else rows[~np.isin(groups[rows], groups[others])]


def fold_numbers(
    labels: Float[np.ndarray, "row task"],
    tasks: Sequence[Task],
    groups: Int[np.ndarray, " row"] | None,
    folds: int,
    seed: int,
) -> Int[np.ndarray, " row"]:
    """A fold for each row.

    Classes, quarters of regression targets and gaps are spread evenly over folds (Sechidis, Tsoumakas, Vlahavas
    2011, iterative stratification); the rows of a group stay together. Above 10,000 rows folds are random.
    """
    from sklearn.model_selection import GroupKFold, KFold

    rows = np.zeros((len(labels), 1))
    if groups is not None:
        parts = GroupKFold(folds, shuffle=True, random_state=seed).split(rows, groups=groups)
    elif len(labels) > STRATIFIED_ROWS:
        parts = KFold(folds, shuffle=True, random_state=seed).split(rows)
    else:
        from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

        marks = _marks(labels, tasks)
        parts = MultilabelStratifiedKFold(n_splits=folds, shuffle=True, random_state=seed).split(rows, marks)
    numbers = np.zeros(len(labels), dtype=np.int64)
    for number, (_, held) in enumerate(parts):
        numbers[held] = number
    return numbers


def _marks(labels: np.ndarray, tasks: Sequence[Task]) -> np.ndarray:
    """0/1 columns that shall be spread evenly: classes, quarters of a target, and whether there is a label."""
    columns = []
    for label, task in zip(labels.T, tasks, strict=True):
        known = ~np.isnan(label)
        if not task.main or not known.any():
            continue
        if task.numeric:
            edges = np.unique(np.nanquantile(label, np.linspace(0, 1, QUANTILES + 1)[1:-1]))
            codes = np.searchsorted(edges, label)
        else:
            codes = np.nan_to_num(label).astype(int)
        columns += [known & (codes == code) for code in np.unique(codes[known])]
    marks = np.array(columns or [np.ones(len(labels))], dtype=int).T
    return np.concatenate([marks, 1 - marks[:, :1]], 1)  # at least two columns: one alone is not multi-label


def stop_rows(
    rows: Int[np.ndarray, " some"],
    labels: Float[np.ndarray, "row task"],
    tasks: Sequence[Task],
    groups: Int[np.ndarray, " row"] | None,
    seed: int,
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " stop"]]:
    """Training rows parted into those that train and those (about a seventh) that stop."""
    parts = min(7, len(rows) if groups is None else len(np.unique(groups[rows])))
    if parts < 2:
        return rows, rows
    numbers = fold_numbers(labels[rows], tasks, _of(groups, rows), parts, seed)
    return rows[numbers != 0], rows[numbers == 0]


def rare_classes(table: Table, folds: int) -> list[str]:
    """A warning for each task with classes of fewer rows than folds: they cannot be judged in every fold."""
    notes: list[str] = []
    if table.test is not None:  # there are no folds
        return notes
    for label, task in zip(table.labels.T, table.tasks, strict=True):
        counts = [int((label == code).sum()) for code in range(len(task.classes))]
        rare = [f"'{c}' ({n} rows)" for c, n in zip(task.classes, counts, strict=True) if n < folds]
        if rare and task.main:
            listed = ", ".join(rare[:5]) + (" ..." if len(rare) > 5 else "")
            notes.append(f"Task '{task.name}': too rare to be judged in every one of {folds} folds: {listed}.")
    return notes


def _of(groups: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if groups is None else groups[rows]


def _check(table: Table, folds: int) -> None:
    least = max(LEAST_ROWS, 2 * folds)
    for label, task in zip(table.labels.T, table.tasks, strict=True):
        known = int((~np.isnan(label) & (table.weight > 0)).sum())
        if task.main and known < least:
            raise InputError(
                f"Each target needs at least {least} labelled rows for {folds} folds. '{task.name}' has {known}. "
                "Give more labels, or fewer folds by --splits."
            )
    least = max(2 * LEAST_GROUPS, 2 * folds)
    groups = least if table.groups is None else len(np.unique(table.groups[labelled_rows(table)]))
    if groups < least:
        raise InputError(
            f"--group needs at least {least} groups with labels for {folds} folds. There are {groups}. "
            "Give fewer folds by --splits, or leave --group out."
        )


def _check_test(table: Table, test: np.ndarray) -> None:
    for name, rows in (("test", test), ("training", ~test)):
        for label, task in zip(table.labels.T, table.tasks, strict=True):
            known = int((~np.isnan(label[rows]) & (table.weight[rows] > 0)).sum())
            if task.main and known < LEAST_ROWS:
                raise InputError(
                    f"Each target needs at least {LEAST_ROWS} labelled {name} rows. '{task.name}' has {known}."
                )
    train = labelled_rows(table)[~test[labelled_rows(table)]]
    groups = LEAST_GROUPS if table.groups is None else len(np.unique(table.groups[train]))
    if groups < LEAST_GROUPS:
        raise InputError(
            f"--group needs at least {LEAST_GROUPS} groups in the training rows. There are {groups}. Leave --group out."
        )
