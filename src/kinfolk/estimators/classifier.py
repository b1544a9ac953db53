"""Several classes of a row, predicted by one network."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils import Tags

from kinfolk.estimators import labels
from kinfolk.estimators.base import MultiTaskBase


class MultiTaskClassifier(ClassifierMixin, MultiTaskBase):
    """A network that learns several classification tasks together, binary or with many classes; labels may have gaps.

    Parameters
    ----------
    sharing, balancing, penalty, auxiliary, trunk, width, encoding, learning_rate, weight_decay, dropout, epochs, \
updates, batch_size, patience, members, random_state, device
        As of :class:`MultiTaskRegressor`.

    Attributes
    ----------
    classes_ : array, or list of arrays
        The sorted classes of the task, or of each one when `y` was ``[row, task]`` with several tasks.
    tasks_, n_outputs_, n_features_in_, feature_names_in_, history_, learned_, predictor_
        As of :class:`MultiTaskRegressor`.

    Raises
    ------
    ValueError
        From :meth:`fit`, for a parameter outside its range, a method that does not exist, labels that are no
        classes, or a task with fewer than two classes.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, species = load_iris(return_X_y=True)
    >>> y = np.column_stack([species, X[:, 0] > 5.8])
    >>> y[::5, 0] = -1
    >>> model = MultiTaskClassifier(updates=50, epochs=1, random_state=0).fit(X, y)
    >>> [proba.shape for proba in model.predict_proba(X)]
    [(150, 3), (150, 2)]
    """

    classes_: np.ndarray | list[np.ndarray]

    def __sklearn_tags__(self) -> Tags:
        """Indicator matrices are tasks of two classes."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MultiTaskClassifier:
        """Learns all tasks.

        Parameters
        ----------
        X
            ``[row, feature]``, numbers; NaN = missing.
        y
            ``[row]`` or ``[row, task]``; not observed are -1 among integers and None among texts. Columns of a
            DataFrame, or of an array of objects, may differ in type. A ``[row]`` of -1 and 1 alone is two classes.
        sample_weight
            ``[row]``, not negative; the same for all tasks.
        """
        X, target, weight = self._learned(X, y, sample_weight)
        codes, tasks, known = labels.classes(target)
        self._train(X, codes, tasks, weight)
        self.classes_ = known[0] if len(known) == 1 else list(known)
        self._target = target.rows(np.zeros(0, dtype=int))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The most probable classes, in the shape of `y` in :meth:`fit`."""
        guesses = self._guesses(self._probabilities(X))
        return self._target.shape_of(guesses)

    def predict_proba(self, X: Any) -> np.ndarray | list[np.ndarray]:
        """Probabilities ``[row, class]``, in the order of ``classes_``; a list with one array per task of several."""
        found = self._probabilities(X)
        return found[0] if len(found) == 1 else found

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The mean accuracy over tasks, each on its observed rows; tasks without any are left out (all: NaN)."""
        guesses = self._guesses(self._probabilities(X))
        target, weight = self._judged(y, len(guesses[0]), sample_weight)
        found = []
        for raw, task, guess in zip(target.columns, self.tasks_, guesses, strict=True):
            column, observed = labels.classified(raw, task.name, gaps=labels.GAP not in task.classes)
            if weight[observed].sum() > 0:
                found.append(np.average(column[observed] == guess[observed], weights=weight[observed]))
        return float(np.mean(found)) if found else float("nan")

    def _guesses(self, found: list[np.ndarray]) -> list[np.ndarray]:
        known = self.classes_ if isinstance(self.classes_, list) else [self.classes_]
        return [classes[p.argmax(1)] for classes, p in zip(known, found, strict=True)]
