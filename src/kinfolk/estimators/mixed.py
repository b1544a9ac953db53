"""Numbers and classes of a row, predicted by one network."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.metaestimators import available_if

from kinfolk.data.errors import error
from kinfolk.estimators import labels
from kinfolk.estimators.base import MultiTaskBase


def _has_classes(estimator: MultiTaskEstimator) -> bool:
    """Whether it may have probabilities: it is not fitted yet, or has a task of classes."""
    return not hasattr(estimator, "tasks_") or any(not task.numeric for task in estimator.tasks_)


@dataclass(eq=False, repr=False)
class MultiTaskEstimator(MultiTaskBase):
    """A network that learns regression, binary and multiclass tasks together; labels may have gaps.

    Parameters
    ----------
    kinds
        The kind of each task: "regression", "binary", "multiclass", "ranking", or None to find it out; a dict by the
        name of the task (others are found out), or a sequence. None: all are found out, as for tables: two values make
        a binary task, numbers with more of them a regression, texts a multiclass task.
    sharing, balancing, penalty, auxiliary, trunk, width, encoding, learning_rate, weight_decay, dropout, epochs, \
updates, batch_size, patience, members, random_state, device
        As of :class:`MultiTaskRegressor`.

    Attributes
    ----------
    tasks_ : tuple of Task
        Names, kinds and classes.
    n_outputs_, n_features_in_, feature_names_in_, history_, learned_, predictor_
        As of :class:`MultiTaskRegressor`.

    Raises
    ------
    ValueError
        From :meth:`fit`, for a parameter outside its range, a method that does not exist, or labels that do not fit
        their kind.

    Examples
    --------
    >>> X = np.arange(40.0).reshape(20, 2)
    >>> y = pd.DataFrame({"size": X[:, 0] / 2, "long": np.where(X[:, 0] > 20, "yes", "no")})
    >>> model = MultiTaskEstimator(updates=50, epochs=1, random_state=0).fit(X, y)
    >>> [task.kind for task in model.tasks_], model.predict(X).shape
    (['regression', 'binary'], (20, 2))
    """

    kinds: Any = None

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MultiTaskEstimator:
        """Learns all tasks.

        Parameters
        ----------
        X
            ``[row, feature]``, numbers; NaN = missing.
        y
            A DataFrame, or an array ``[row]`` or ``[row, task]``, of objects where tasks differ in type; None, NaN
            and texts such as "?" = not observed.
        sample_weight
            ``[row]``, not negative; the same for all tasks.
        """
        X, target, weight = self._learned(X, y, sample_weight)
        found, tasks = labels.mixed(target, self.kinds)
        self._train(X, found, tasks, weight)
        seen = ~np.isnan(found)
        self.baselines_ = np.array([np.average(c[s], weights=weight[s]) for c, s in zip(found.T, seen.T, strict=True)])
        self._target = target.rows(np.zeros(0, dtype=int))
        return self

    def predict(self, X: Any) -> np.ndarray | pd.DataFrame:
        """Values, and most probable classes: a DataFrame if `y` was one (with the index of `X`), else an array.

        The array has the shape of `y`; it is of type object where tasks differ in type.
        """
        columns = []
        for p, task in zip(self._probabilities(X), self.tasks_, strict=True):
            classes = np.asarray(task.classes, dtype=None if _alike(task.classes) else object)
            columns.append(p[:, 0] if task.numeric else classes[p.argmax(1)])
        if not self._target.framed:
            return self._target.shape_of(columns)
        index = X.index if isinstance(X, pd.DataFrame) else None
        frame = pd.DataFrame(dict(enumerate(columns)), index=index)
        return frame.set_axis(list(self._target.names), axis=1)

    @available_if(_has_classes)
    def predict_proba(self, X: Any) -> np.ndarray | list[np.ndarray | None]:
        """One ``[row, class]`` per task, in the order of ``tasks_[...].classes``; None for tasks of numbers.

        For a single task it is no list. There is no such method once only such tasks were learned.
        """
        found = zip(self._probabilities(X), self.tasks_, strict=True)
        probabilities = [None if task.numeric else p for p, task in found]
        only = probabilities[0]
        return only if only is not None and len(probabilities) == 1 else probabilities

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """1 - the mean error over tasks: RRSE, 1 - AUC, log loss or 1 - concordance by the kind of task; at most 1.

        Each task is judged on its observed rows. A task whose error is undefined there (no row, one class) is left
        out (all: NaN), and so are rows of a class that :meth:`fit` has not seen, with a warning.
        """
        outputs = self._outputs(X)
        target, weight = self._judged(y, len(outputs[0]), sample_weight)
        errors = []
        for t, task in enumerate(self.tasks_):
            truth, strange = labels.coded(target.columns[t], task)
            if strange:
                warnings.warn(f"Classes of task {task.name!r} that `fit` has not seen: {strange}.", stacklevel=2)
            errors.append(error(task, truth, outputs[t], weight, float(self.baselines_[t])))
        known = [e for e in errors if not np.isnan(e)]
        return 1 - float(np.mean(known)) if known else float("nan")


def _alike(classes: tuple[Any, ...]) -> bool:
    return len({type(c) for c in classes}) == 1
