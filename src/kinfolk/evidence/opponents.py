"""What a user of tables would pick instead of a network, task by task: ridge, boosting, extra trees.

An opponent fits each task on that task's own labelled rows and knows nothing of the others. It has the
contract of every arm: settings (its own small grid, best-known first), and a fit for many jobs at once.
Missing numbers (NaN) are imputed for ridge; the trees take them as they are.
"""

from __future__ import annotations

import copy
import math
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from kinfolk.data.tasks import Task
from kinfolk.evidence.jobs import Job, Rows, Setting
from kinfolk.evidence.taskwise import (
    LEAST_ROWS,
    Labelled,
    Opponent,
    OpponentPredictor,
    joined,
    labelled,
    loss,
    mean,
    predict_one,
    rows_of,
)

__all__ = ["ExtraTrees", "HistGradientBoosting", "Opponent", "OpponentPredictor", "Ridge", "mean"]

RACE_ROWS = 2000
"""From this number of training rows on, trees drop settings that lose a short race."""

RACE_KEEPS = 2
"""How many settings win it. There is no race among fewer than twice as many."""


class Ridge(Opponent):
    """Ridge regression, and logistic regression with the same penalty for classes.

    Missing numbers become the median and a column that says so; inputs are standardised. ``alpha`` is the
    weight of the squared coefficients against the sum (over rows) of squared errors or log losses.
    """

    text = "ridge"
    grid = tuple({"alpha": a} for a in (10.0, 100.0, 1.0, 300.0, 0.1, 1000.0, 30.0, 0.01))

    def _fit_task(self, task: Task, train: Labelled, stop: Labelled, jobs: Sequence[Job], groups: int) -> list[Any]:
        from sklearn.pipeline import make_pipeline

        rows = joined(train, stop)
        prepare = _prepare().fit(rows.inputs)
        prepared = prepare.transform(rows.inputs)
        alphas = [self.settings[job.setting]["alpha"] for job in jobs]
        fit = _ridge_path if task.numeric else _logistic_path
        models = fit(prepared, rows.target, rows.weight, sorted(set(alphas), reverse=True))
        return [make_pipeline(*(step for _, step in prepare.steps), models[alpha]) for alpha in alphas]

    def _parameters(self, estimators: Sequence[Any]) -> int | None:
        linear = [e[-1] for e in estimators if hasattr(e, "steps")]
        return sum(int(np.size(m.coef_) + np.size(m.intercept_)) for m in linear)


class Trees(Opponent):
    """What boosting and extra trees share: on a large table a short race decides which settings are fitted in full.

    All settings run for a short while on the first rows, and the two that are best on its stop rows (mean over
    tasks of the loss relative to the best) go on. That halves the time of a comparison on 4,000 rows; below
    ``RACE_ROWS`` the outcome would be mostly noise.
    """

    def _fit_task(self, task: Task, train: Labelled, stop: Labelled, jobs: Sequence[Job], groups: int) -> list[Any]:
        stop = _known(task, train, stop)
        return [self._fit_trees(task, train, stop, self.settings[job.setting], job.seed, groups) for job in jobs]

    @abstractmethod
    def _fit_trees(self, task: Task, train: Labelled, stop: Labelled, setting: Setting, seed: int, groups: int) -> Any:
        """Fit one estimator; with ``groups`` 0 a short while only, never on the stop rows."""

    def _kept(self, rows: Rows, jobs: Sequence[Job]) -> set[int]:
        settings = sorted({job.setting for job in jobs})
        if len(settings) < 2 * RACE_KEEPS or len(jobs[0].train) < RACE_ROWS:
            return set(settings)
        ratios = np.zeros(len(settings))
        for position, task in enumerate(rows.tasks):
            train, stop = (labelled(rows, position, r) for r in rows_of(jobs[0]))
            stop = _known(task, train, stop)
            if len(stop) >= RACE_ROWS // 100 and np.ptp(train.target) > 0:
                losses = [self._short_loss(task, train, stop, self.settings[s], jobs[0].seed) for s in settings]
                ratios += np.asarray(losses) / max(min(losses), 1e-12)
        return {settings[i] for i in np.argsort(ratios, kind="stable")[:RACE_KEEPS]}

    def _short_loss(self, task: Task, train: Labelled, stop: Labelled, setting: Setting, seed: int) -> float:
        model = self._fit_trees(task, train, stop, setting, seed, 0)
        return loss(task, stop, predict_one(task, model, stop.inputs))


class HistGradientBoosting(Trees):
    """Gradient boosting of histogram trees, stopped on the job's stop rows.

    The trees after the best iteration are cut off: on rare classes boosting goes wrong all at once.
    """

    text = "hist_gradient_boosting"
    grid = tuple(
        {"learning_rate": rate, "max_leaf_nodes": leaves, "min_samples_leaf": least, "l2_regularization": l2}
        for rate, leaves, least, l2 in (
            (0.15, 15, 5, 10.0),
            (0.2, 8, 5, 1.0),
            (0.1, 4, 5, 1.0),
            (0.2, 31, 10, 1.0),
            (0.1, 15, 20, 10.0),
            (0.1, 31, 10, 1.0),
            (0.3, 31, 5, 1.0),
            (0.05, 8, 10, 1.0),
        )
    )
    iterations: ClassVar[int] = 150
    patience: ClassVar[int] = 10

    def _fit_trees(self, task: Task, train: Labelled, stop: Labelled, setting: Setting, seed: int, groups: int) -> Any:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        stopped = len(stop) >= LEAST_ROWS
        kind = HistGradientBoostingRegressor if task.numeric else HistGradientBoostingClassifier
        fixed: Setting = {"early_stopping": stopped, "n_iter_no_change": self.patience, "tol": 0.0}
        fixed |= {"categorical_features": None, "random_state": seed}
        iterations = self.iterations if groups and stopped else self.iterations // 4
        model = kind(max_iter=iterations, **setting, **fixed)
        # The binning fails on a column without any number; a constant one is never split.
        inputs = np.where(np.isnan(train.inputs).all(axis=0), 0.0, train.inputs)
        judged: Setting = {"X_val": stop.inputs, "y_val": stop.target, "sample_weight_val": stop.weight}
        model.fit(inputs, train.target, sample_weight=train.weight, **(judged if stopped else {}))
        return _cut(model) if stopped else model


class ExtraTrees(Trees):
    """Extremely randomised trees (Geurts, Ernst and Wehenkel 2006), of bounded size.

    Trained on train and stop rows: nothing is stopped. One thread, because with more the sums of the trees come
    in another order from call to call. ``min_samples_leaf`` is multiplied by (rows / 2000, rounded up), which
    bounds a tree to about 4,000 nodes and serves the log loss of classes. The inner fits of a comparison have
    about ``trees`` trees together, as many as their mean needs.
    """

    text = "extra_trees"
    grid = tuple(
        {"max_features": share, "min_samples_leaf": least}
        for share, least in ((0.5, 2), (1.0, 1), (0.5, 5), (1.0, 5), (0.3, 10), (0.5, 1), (0.3, 2), ("sqrt", 5))
    )
    trees: ClassVar[int] = 100
    least_trees: ClassVar[int] = 30

    def _fit_trees(self, task: Task, train: Labelled, stop: Labelled, setting: Setting, seed: int, groups: int) -> Any:
        from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

        rows = joined(train, stop) if groups else train
        kind = ExtraTreesRegressor if task.numeric else ExtraTreesClassifier
        trees = max(self.least_trees, self.trees // groups) if groups else 10
        least = setting["min_samples_leaf"] * math.ceil(len(rows) / 2000)
        model = kind(
            n_estimators=trees,
            random_state=seed,
            n_jobs=1,
            max_features=setting["max_features"],
            min_samples_leaf=least,
        )
        return _slim(model.fit(rows.inputs, rows.target, sample_weight=rows.weight))


def _prepare() -> Any:
    """Imputation and scaling. Columns without any number stay (as 0), or predicting would lose its width."""
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True), StandardScaler()
    )


def _ridge_path(inputs: np.ndarray, target: np.ndarray, weight: np.ndarray, alphas: list[float]) -> dict[float, Any]:
    """A ridge regression for each alpha. Closed form: 20 ms each at 30,000 rows and 80 columns."""
    from sklearn.linear_model import Ridge as SklearnRidge

    return {alpha: SklearnRidge(alpha=alpha).fit(inputs, target, sample_weight=weight) for alpha in alphas}


def _logistic_path(inputs: np.ndarray, target: np.ndarray, weight: np.ndarray, alphas: list[float]) -> dict[float, Any]:
    """A logistic regression for each alpha, from strong to weak, each started where the last one ended."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(solver="lbfgs", max_iter=300, tol=1e-4, warm_start=True)
    path = {}
    with warnings.catch_warnings():
        # Separable classes at a small alpha end at max_iter: a good enough classifier, judged as it is.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for alpha in alphas:
            path[alpha] = copy.deepcopy(model.set_params(C=1.0 / alpha).fit(inputs, target, sample_weight=weight))
    return path


def _known(task: Task, train: Labelled, stop: Labelled) -> Labelled:
    """The stop rows whose class is among the training rows: no other can be judged by a classifier."""
    if task.numeric:
        return stop
    known = np.isin(stop.target, train.target)
    return Labelled(stop.inputs[known], stop.target[known], stop.weight[known])


def _cut(model: Any) -> Any:
    """Cut off the trees after the iteration with the best score on the stop rows (at least one stays)."""
    best = max(int(np.argmax(model.validation_score_)), 1)
    del model._predictors[best:]
    return model


def _slim(forest: Any) -> Any:
    """Leave in a forest's trees only what predicting needs, so that they are small once compressed.

    Thresholds are rounded down to float32, which changes no decision because scikit-learn compares float32
    inputs; leaf values are rounded to float32, values of inner nodes and impurities are 0.
    """
    for estimator in forest.estimators_:
        tree = estimator.tree_
        state = tree.__getstate__()
        nodes, values = state["nodes"].copy(), state["values"].astype(np.float32).astype(np.float64)
        inner = nodes["left_child"] >= 0
        near = nodes["threshold"].astype(np.float32)
        near = np.where(near > nodes["threshold"], np.nextafter(near, np.float32(-np.inf)), near)
        nodes["threshold"] = np.where(inner, near, nodes["threshold"])
        values[inner] = 0.0
        for unused in ("impurity", "n_node_samples", "weighted_n_node_samples"):
            nodes[unused] = 0
        slim = type(tree)(tree.n_features, tree.n_classes, tree.n_outputs)
        slim.__setstate__(state | {"nodes": nodes, "values": values})
        estimator.tree_ = slim
    return forest
