"""Folds for several tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, no_type_check

import numpy as np
import pandas as pd
from sklearn.model_selection import BaseCrossValidator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length

from kinfolk.data.splits import fold_numbers
from kinfolk.data.targets import MOST_CLASSES
from kinfolk.data.tasks import Task
from kinfolk.estimators import labels


class MultiTaskKFold(BaseCrossValidator):
    """K folds over which the labels of all tasks are spread evenly; labels may have gaps.

    Classes, quarters of regression targets and gaps are spread by iterative stratification; above 10,000 rows folds
    are random. With `groups`, the rows of a group stay together instead. scikit-learn's own stratified splitters
    take one task without gaps.

    Parameters
    ----------
    n_splits
        Number of folds, at least 2.
    random_state
        Seed, a ``numpy.random.RandomState``, or None. Rows are always shuffled; with a seed, equally each time.

    References
    ----------
    K. Sechidis, G. Tsoumakas, I. Vlahavas (2011). On the stratification of multi-label data. ECML PKDD.

    Examples
    --------
    >>> y = np.array([["a", None], ["a", "x"], ["b", "x"], ["b", None]], dtype=object)
    >>> [len(test) for train, test in MultiTaskKFold(2, random_state=0).split(y, y)]
    [2, 2]
    """

    @no_type_check  # checked below
    def __init__(self, n_splits: int = 5, *, random_state: Any = None) -> None:
        if isinstance(n_splits, bool) or not isinstance(n_splits, int | np.integer) or n_splits < 2:
            raise ValueError(f"`n_splits` must be a whole number of at least 2. Got {n_splits!r}.")
        self.n_splits = int(n_splits)
        self.random_state = random_state

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """The number of folds."""
        return self.n_splits

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Row positions to train on and to judge on, fold by fold.

        Parameters
        ----------
        X
            Its number of rows counts.
        y
            ``[row]`` or ``[row, task]``, in the form that the estimators take.
        groups
            ``[row]``: rows of one group stay together.

        Raises
        ------
        ValueError
            If there are fewer rows, or groups, than folds.
        """
        numbers = self._numbers(X, y, groups)
        every = np.arange(len(numbers))
        for fold in range(self.n_splits):
            yield every[numbers != fold], every[numbers == fold]

    def _numbers(self, X: Any, y: Any, groups: Any) -> np.ndarray:
        target = labels.target(y)
        check_consistent_length(X, target.columns[0], groups)
        marks = [_marks(c, name, target.flat) for c, name in zip(target.columns, target.names, strict=True)]
        codes = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)
        units, what = (len(target.columns[0]), "rows") if codes is None else (int(codes.max()) + 1, "groups")
        if units < self.n_splits:
            raise ValueError(f"There must be at least as many {what} as folds, {self.n_splits}. There are {units}.")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        columns = np.column_stack([column for column, _ in marks])
        return fold_numbers(columns, [task for _, task in marks], codes, self.n_splits, seed)


def _marks(column: np.ndarray, name: str, flat: bool) -> tuple[np.ndarray, Task]:
    """A column as labels, and a task for it: numbers with fractions are a regression, all else classes."""
    if _fractions(column):
        return np.where(pd.isna(column), np.nan, column).astype(np.float64), Task(name, "regression")
    column, observed = labels.classified(column, name, gaps=not (flat and labels.signs(column)))
    found = np.full(len(column), np.nan)
    classes, found[observed] = np.unique(column[observed], return_inverse=True)
    if column.dtype.kind in "iuf" and len(classes) > MOST_CLASSES:
        return found, Task(name, "regression")
    return found, Task(name, "multiclass", tuple(range(max(2, len(classes)))))


def _fractions(column: np.ndarray) -> bool:
    """Whether a column holds numbers that are not whole."""
    known = column[~pd.isna(column)]
    numeric = column.dtype.kind in "iuf" or all(isinstance(v, int | float | np.number) for v in known)
    return numeric and bool((known.astype(np.float64) % 1 != 0).any())
