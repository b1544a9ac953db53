"""Rows without labels from a table of their own, below the rows of the table that is learned from.

They only feed tasks that need no label, as reconstruction. Nothing of the rows above changes: which columns are
features, and what their cells mean, the first table decides alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from pandas.core.util.hashing import hash_pandas_object

from kinfolk.data.columns import as_text, column_of, infinite, is_text, is_truth, parse_numbers, shown, tidy
from kinfolk.data.kinds import dates, numbers
from kinfolk.data.rows import weights
from kinfolk.data.tables import Roles, Table
from kinfolk.exceptions import InputError, unknown

WHAT = "The unlabelled table"


def with_unlabelled(table: Table, below: pd.DataFrame, roles: Roles, above: Sequence[pd.DataFrame]) -> Table:
    """The table with rows without labels below its own.

    Parameters
    ----------
    table
        The table that is learned from.
    below
        Rows that have its feature columns. Other columns may lack: without a weight a row weighs as the labelled rows
        do on average, without a group it is a group of its own. Labels in it are not read.
    roles
        The parts that the columns of the table play.
    above
        The frames that the rows of the table came from, in order: its own and that of the test rows.

    Raises
    ------
    InputError
        When feature columns lack or hold something else than above, and when no row is new. Rows that the table has
        already are left out, whether they train or judge: nothing may learn from the inputs of rows that judge.
    """
    below = tidy(below)
    if below.empty:
        raise InputError(f"{WHAT} must have rows and columns. It has {below.shape[0]} by {below.shape[1]} cells.")
    features, notes = _features(table.features, below)
    new = ~_known(table.features, features)
    if not new.any():
        raise InputError(f"{WHAT} must have rows that the table has not. The table has all {len(new)} of them.")
    if not new.all():
        notes.append(f"{WHAT}: {(~new).sum()} of {len(new)} rows are in the table too, and are left out.")
    if labels := [t for t in _targets(roles, below) if column_of(below, t).count()]:
        notes.append(f"{WHAT}: labels in it are not read ({shown(labels)}).")
    groups = None if table.groups is None else _groups(table.groups, below, roles, above, notes)
    return replace(
        table,
        features=_one_below_the_other(table.features, features.loc[new]),
        labels=np.vstack([table.labels, np.full((new.sum(), table.labels.shape[1]), np.nan)]),
        weight=np.concatenate([table.weight, _weights(table, below, roles)[new]]),
        groups=None if groups is None else np.concatenate([np.asarray(table.groups), groups[new]]),
        test=None if table.test is None else np.concatenate([table.test, np.zeros(new.sum(), dtype=bool)]),
        warnings=(*table.warnings, *notes),
        added=int(new.sum()),
    )


def _targets(roles: Roles, below: pd.DataFrame) -> list[str]:
    """The targets that a frame has a column of."""
    named = [spec.strip() for spec in (*roles.targets, *roles.auxiliary)]
    found = [spec if spec in below else spec.rpartition(":")[0].strip() for spec in named]
    return [name for name in dict.fromkeys(found) if name in below]


def _features(above: pd.DataFrame, below: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The feature columns of the rows below, each with the type that it has above."""
    lacking = [str(c) for c in above if c not in below]
    if lacking:
        near = str(unknown("column", lacking[0], [str(c) for c in below])).partition(". ")[2]
        raise InputError(f"{WHAT} must have the feature columns of the table. It lacks {shown(lacking)}. {near}")
    notes: list[str] = []
    try:
        columns = {str(c): _alike(column_of(above, str(c)), column_of(below, str(c)), notes) for c in above}
    except InputError as error:
        raise InputError(f"{WHAT}: {str(error).replace(', as in training', ', as in the table')}") from error
    return pd.DataFrame(columns, index=below.index), notes


def _alike(above: pd.Series, below: pd.Series, notes: list[str]) -> pd.Series:
    """A column with the type that it has in the rows above."""
    if below.isna().all():
        return above.iloc[:0].reindex(range(len(below)))
    if is_text(above):
        return as_text(below)
    if pd.api.types.is_datetime64_any_dtype(above.dtype):
        return dates(below, "")
    below = numbers(below)
    if (bad := infinite(below)).any():
        notes.append(f"{WHAT}: column '{above.name}' is infinite in {bad.sum()} cells; they are taken for missing.")
    return below.mask(bad)


def _one_below_the_other(above: pd.DataFrame, below: pd.DataFrame) -> pd.DataFrame:
    names = [str(c) for c in above]
    return pd.DataFrame({c: _joined(column_of(above, c), column_of(below, c)) for c in names})


def _joined(above: pd.Series, below: pd.Series) -> pd.Series:
    if is_truth(above) and not is_truth(below):
        above = pd.Series(above.to_numpy(dtype=float, na_value=np.nan), name=above.name)
    return pd.concat([above, below], ignore_index=True)


def _known(above: pd.DataFrame, below: pd.DataFrame) -> np.ndarray:
    """Which rows below have the features of a row above, Bool [row]."""
    marks = np.asarray(hash_pandas_object(_one_below_the_other(above, below), index=False))
    return np.isin(marks[len(above) :], marks[: len(above)])


def _weights(table: Table, below: pd.DataFrame, roles: Roles) -> np.ndarray:
    if roles.weight and roles.weight in below:
        return weights(column_of(below, roles.weight))
    labelled = ~np.isnan(table.labels).all(1) & (table.weight > 0)
    return np.full(len(below), table.weight[labelled].mean())


def _groups(
    codes: np.ndarray, below: pd.DataFrame, roles: Roles, above: Sequence[pd.DataFrame], notes: list[str]
) -> np.ndarray:
    """The groups of the rows below, by the codes of the rows above; a group that is not there gets a new one."""
    name, first = str(roles.group), int(codes.max()) + 1
    alone = first + np.arange(len(below))
    if name not in below:
        notes.append(f"{WHAT}: it has no group column '{name}'; each of its rows is a group of its own.")
        return alone
    parts = [parse_numbers(column_of(frame, name)) for frame in (*map(tidy, above), below)]
    if any(map(is_text, parts)):
        parts = [as_text(part) for part in parts]
    values = pd.concat(parts, ignore_index=True).to_numpy(dtype=object, na_value=None)
    known = dict(zip(values[: len(codes)], codes.tolist(), strict=True))
    for value, code in zip(values[len(codes) :], alone.tolist(), strict=True):
        known.setdefault(value, code)
    found = np.array([known[value] for value in values[len(codes) :]])
    return np.where(values[len(codes) :] == None, alone, found).astype(np.int64)  # noqa: E711
