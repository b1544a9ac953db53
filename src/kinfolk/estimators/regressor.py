"""Several numbers of a row, predicted by one network."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score

from kinfolk.estimators import labels
from kinfolk.estimators.base import MultiTaskBase


class MultiTaskRegressor(RegressorMixin, MultiTaskBase):
    """A network that learns several regression tasks together; labels may have gaps.

    Targets are standardised, numeric inputs too; missing inputs (NaN) set an indicator. A seventh of the rows,
    spread evenly over tasks, is held out: each task is kept as the network was when it was best on them.

    Parameters
    ----------
    sharing
        How tasks share a trunk, as text: "hard", "independent" (single-task: each task has a network of its own) ...
        ``kinfolk list`` shows all methods and their arguments.
    balancing
        How task losses become one update: "fixed", "uncertainty", "uncertainty(initial=0.1)" ...
    penalty
        A regulariser, or None.
    auxiliary
        A task that needs no label, as "reconstruction" of the inputs, or None. Rows whose labels are all missing train
        it too; without it they are left out. It weighs as much as a task unless the balancing says otherwise:
        "evolving(schedule=exponential, sigma=10.0)" begins with reconstruction and ends with the tasks.
    trunk
        The layers before the heads: "mlp", "mlp(depth=3)" ... What it says goes before `width` and `dropout`.
    width
        Units per layer. None: from the number of rows, as for :func:`kinfolk.fit` (128; 256 from 10,000 rows on).
    encoding
        "piecewise" (numeric inputs also as how far they have come through each of up to 8 quantile bins), "standard",
        or "plain" (no indicators of gaps). A trunk with a ``shape`` reads "plain", whatever is said here.
    learning_rate
        Of AdamW, above 0; it rises for 3 % of the updates and falls to 0 along a cosine. The best on most of the
        tables that were measured.
    weight_decay
        Of AdamW, not negative.
    dropout
        Share of units set to zero while training, in [0, 1).
    epochs, updates
        At most as long as the longer of both. None: from the number of rows, as for :func:`kinfolk.fit` (100 and
        1500; 75 epochs from 2,000 rows on, 15 from 10,000 on).
    batch_size
        Rows per update. None: from the number of rows (32 to 256), with those that have no labels.
    patience
        Share of all updates without improvement on the held-out rows after which a task's patience is spent.
        None: from the number of rows (0.2; 0.3 from 10,000 rows on).
    members
        How many networks are averaged. Each stops on another seventh of the rows (with more than seven members:
        on another part of so many) and starts from other weights. They train side by side.
    random_state
        Seed, a ``numpy.random.RandomState``, or None. With a seed, equal data gives equal predictions.
    device
        Of the networks, as torch names it.

    Attributes
    ----------
    tasks_ : tuple of Task
        Names and kinds.
    n_outputs_ : int
        Number of tasks.
    n_features_in_, feature_names_in_
        Of the inputs; names only when `X` was a DataFrame.
    history_ : list of dict
        Learning curves: a row per task and epoch, with its losses and its weight.
    learned_ : DataFrame
        What the methods learned beside weights, such as stitch matrices, gates and task covariances: a row per update
        and number of a quantity, with the names of its line and column. Averaged over members; empty where a method
        learns no such thing.
    predictor_ : NetworkPredictor
        The trained networks.

    Raises
    ------
    ValueError
        From :meth:`fit`, for a parameter outside its range, a method that does not exist, or a task without labels.

    See Also
    --------
    kinfolk.fit : Compares ways to share, and says whether the difference is more than chance.
    MultiTaskKFold : Folds that spread the labels of all tasks.

    Examples
    --------
    >>> from sklearn.datasets import load_linnerud
    >>> X, y = load_linnerud(return_X_y=True)
    >>> y[::4, 0] = np.nan
    >>> MultiTaskRegressor(updates=50, epochs=1, random_state=0).fit(X, y).predict(X).shape
    (20, 3)
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MultiTaskRegressor:
        """Learns all tasks.

        Parameters
        ----------
        X
            ``[row, feature]``, numbers; NaN = missing.
        y
            ``[row]`` or ``[row, task]``; NaN = not observed.
        sample_weight
            ``[row]``, not negative; the same for all tasks.
        """
        X, target, weight = self._learned(X, y, sample_weight)
        self._train(X, *labels.numeric(target), weight)
        self._target = target.rows(np.zeros(0, dtype=int))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Values in the targets' units, in the shape of `y` in :meth:`fit`."""
        outputs = self._outputs(X)
        return self._target.shape_of([output[:, 0] for output in outputs])

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The mean R2 over tasks, each on its observed rows; tasks with fewer than two are left out (all: NaN)."""
        found = []
        outputs = self._outputs(X)
        target, weight = self._judged(y, len(outputs[0]), sample_weight)
        truth, _ = labels.numeric(target)
        for column, output in zip(truth.T, outputs, strict=True):
            seen = ~np.isnan(column) & (weight > 0)
            if seen.sum() > 1:
                found.append(r2_score(column[seen], output[seen, 0], sample_weight=weight[seen]))
        return float(np.mean(found)) if found else float("nan")
