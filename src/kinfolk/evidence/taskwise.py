"""Learning each task by itself: the labelled rows of a task, its estimators, their mean.

This is what all opponents share, whatever estimator they fit.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np

from kinfolk.data.tasks import Task
from kinfolk.evidence.jobs import Fits, Job, Predictor, Rows, Setting, Surroundings

LEAST_PROBABILITY = 1e-6
"""No class is predicted to be less likely than this: log loss stays finite for classes never seen."""

LEAST_ROWS = 5
"""With fewer labelled rows than this a task gets the mean (or the class shares) of its rows."""


@dataclass(frozen=True)
class Labelled:
    """The labelled rows of one task: ``inputs`` [row, feature], ``target`` [row], ``weight`` [row] (about 1)."""

    inputs: np.ndarray
    target: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True)
class OpponentPredictor:
    """Fitted scikit-learn estimators, one per task and member; predicts the mean of its members.

    Parameters
    ----------
    tasks
        The tasks it predicts.
    estimators
        Fitted regressors and classifiers, member after member, within a member in the order of ``tasks``.
        Classifiers were fitted on class codes, so that their ``classes_`` are columns of the prediction.
    parameters
        How many numbers were learnt, None where that is no useful count (trees).
    """

    tasks: tuple[Task, ...]
    estimators: list[Any]
    parameters: int | None = None
    epochs: float = math.nan

    @property
    def members(self) -> int:
        """How many models are averaged."""
        return len(self.estimators) // max(len(self.tasks), 1)

    def predict(self, inputs: np.ndarray) -> list[np.ndarray | None]:
        """Predict every task: ``inputs`` [row, feature] with NaN -> one [row, size] per task.

        Regression is in the target's unit, binary the probability of the positive class, multiclass
        probabilities that sum to 1; no class is less likely than ``LEAST_PROBABILITY``.
        """
        inputs = np.asarray(inputs, dtype=np.float64)
        return [self._predict_task(position, inputs) for position in range(len(self.tasks))]

    def _predict_task(self, position: int, inputs: np.ndarray) -> np.ndarray:
        task = self.tasks[position]
        members = self.estimators[position :: len(self.tasks)]
        total = sum(predict_one(task, estimator, inputs) for estimator in members)
        return np.asarray(total) / len(members)


def mean(predictors: Sequence[OpponentPredictor]) -> OpponentPredictor:
    """Join fits of the same tasks into one predictor that averages them, as the hand-over does.

    Raises
    ------
    ValueError
        If there is none, or their tasks differ.
    """
    if not predictors or any(p.tasks != predictors[0].tasks for p in predictors):
        raise ValueError("`predictors` must be at least one, all of the same tasks.")
    counts = [p.parameters for p in predictors if p.parameters is not None]
    parameters = sum(counts) if len(counts) == len(predictors) else None
    return OpponentPredictor(predictors[0].tasks, [e for p in predictors for e in p.estimators], parameters)


def predict_one(task: Task, estimator: Any, inputs: np.ndarray) -> np.ndarray:
    """The prediction of one estimator for one task, [row, size]."""
    if task.numeric:
        return np.asarray(estimator.predict(inputs), dtype=np.float64).reshape(-1, 1)
    probability = np.zeros((len(inputs), len(task.classes)))
    probability[:, np.asarray(estimator.classes_, dtype=int)] = estimator.predict_proba(inputs)
    probability = np.clip(probability, LEAST_PROBABILITY, 1.0)
    probability /= probability.sum(axis=1, keepdims=True)
    return probability[:, 1:] if task.kind == "binary" else probability


class Opponent(ABC):
    """A learner that a user of tables would pick instead, fitted task by task.

    Parameters
    ----------
    settings
        How many settings of its grid it tries, from the best-known on.

    Raises
    ------
    ValueError
        If ``settings`` is not between 1 and the size of the grid.
    """

    text: ClassVar[str]
    role: ClassVar[str] = "opponent"
    grid: ClassVar[tuple[Setting, ...]]

    def __init__(self, settings: int = 6) -> None:
        if not 1 <= settings <= len(self.grid):
            raise ValueError(f"`settings` must be between 1 and {len(self.grid)}. Got {settings}.")
        self.settings: tuple[Setting, ...] = self.grid[:settings]

    def __repr__(self) -> str:
        return self.text

    def fit(self, rows: Rows, jobs: Sequence[Job], around: Surroundings | None = None) -> Fits:
        """Fit every job, each task on its own labelled rows; the result is in the order of ``jobs``.

        Classes that a job's rows lack get a probability of ``LEAST_PROBABILITY``. A task without enough rows to
        learn from gets a constant. A setting that loses early on a large table is None in every job.
        """
        groups = _same_rows(jobs)
        kept = self._kept(rows, jobs) if jobs else set()
        predictors: list[Predictor | None] = [None] * len(jobs)
        for group in groups:
            same = [j for j in group if jobs[j].setting in kept]
            fitted = self._fit_same(rows, [jobs[j] for j in same], len(groups))
            for j, estimators in zip(same, fitted, strict=True):
                fit = OpponentPredictor(tuple(rows.tasks), estimators, self._parameters(estimators))
                predictors[j] = cast(Predictor, fit)  # the protocol's attributes are only read
        return Fits(predictors)

    def _fit_same(self, rows: Rows, jobs: Sequence[Job], groups: int) -> list[list[Any]]:
        """Fit jobs that share their rows: an estimator per task for each of them."""
        if not jobs:
            return []
        columns = []
        for position, task in enumerate(rows.tasks):
            train, stop = (labelled(rows, position, r) for r in rows_of(jobs[0]))
            columns.append(self._fit_or_constant(task, train, stop, jobs, groups))
        return [list(estimators) for estimators in zip(*columns, strict=True)]

    def _kept(self, rows: Rows, jobs: Sequence[Job]) -> set[int]:
        """The settings that are fitted: all of them, where an opponent holds no race."""
        return {job.setting for job in jobs}

    def _fit_or_constant(
        self, task: Task, train: Labelled, stop: Labelled, jobs: Sequence[Job], groups: int
    ) -> list[Any]:
        """Fit a task, or predict a constant where there is nothing to learn from."""
        both = joined(train, stop)
        if not task.main:  # an auxiliary task helps nobody here, and is not predicted
            return [_constant(task, both) for _ in jobs]
        if len(both) < LEAST_ROWS or len(train) < 2 or np.ptp(train.target) == 0:
            constant = _constant(task, both)
            return [constant for _ in jobs]
        return self._fit_task(task, train, stop, jobs, groups)

    @abstractmethod
    def _fit_task(self, task: Task, train: Labelled, stop: Labelled, jobs: Sequence[Job], groups: int) -> list[Any]:
        """Fit one task on the rows that all ``jobs`` share, an estimator per job; ``groups``: of equal rows, in all."""

    def _parameters(self, estimators: Sequence[Any]) -> int | None:
        """How many numbers were learnt, where that is a useful count."""
        return None


def _same_rows(jobs: Sequence[Job]) -> list[list[int]]:
    """Positions of jobs that have the same rows, so that what depends on rows alone is done once."""
    groups: dict[tuple[bytes, bytes], list[int]] = {}
    for position, job in enumerate(jobs):
        train, stop = rows_of(job)
        groups.setdefault((train.tobytes(), stop.tobytes()), []).append(position)
    return list(groups.values())


def rows_of(job: Job) -> tuple[np.ndarray, np.ndarray]:
    """The positions of a job's training and stop rows."""
    return np.asarray(job.train, dtype=np.int64), np.asarray(job.stop, dtype=np.int64)


def labelled(rows: Rows, position: int, which: np.ndarray) -> Labelled:
    """The rows among ``which`` that have a label of the task at ``position``, and a weight above 0."""
    target = rows.labels[:, position]
    which = which[~np.isnan(target[which]) & (rows.weight[which] > 0)]
    weight = rows.weight[which] / rows.weight.mean()
    return Labelled(np.asarray(rows.inputs[which], dtype=np.float64), target[which], weight)


def joined(first: Labelled, second: Labelled) -> Labelled:
    """The rows of both."""
    return Labelled(
        np.concatenate([first.inputs, second.inputs]),
        np.concatenate([first.target, second.target]),
        np.concatenate([first.weight, second.weight]),
    )


def _constant(task: Task, rows: Labelled) -> Any:
    """A predictor of the mean, or of the class shares; without a row: of 0, or of equal shares."""
    from sklearn.dummy import DummyClassifier, DummyRegressor

    if len(rows) == 0:
        target = np.zeros(1) if task.numeric else np.arange(len(task.classes), dtype=float)
        rows = Labelled(np.zeros((len(target), rows.inputs.shape[1])), target, np.ones(len(target)))
    model = DummyRegressor() if task.numeric else DummyClassifier(strategy="prior")
    return model.fit(rows.inputs, rows.target, sample_weight=rows.weight)


def loss(task: Task, rows: Labelled, prediction: np.ndarray) -> float:
    """The weighted squared error or log loss of a prediction."""
    if task.numeric:
        return float(np.average((rows.target - prediction[:, 0]) ** 2, weights=rows.weight))
    if task.kind == "binary":
        prediction = np.hstack([1.0 - prediction, prediction])
    right = prediction[np.arange(len(rows)), rows.target.astype(int)]
    return float(np.average(-np.log(right), weights=rows.weight))
