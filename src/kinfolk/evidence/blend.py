"""The blend of the hand-over: greedy ensemble selection with replacement, per task.

Caruana, Niculescu-Mizil, Crew and Ksikes 2004, "Ensemble selection from libraries of models", with its
remedies against overfitting the rows that choose: sorted initialisation, bags of random candidates, and the
best ensemble on the way rather than the last. One thing is ours: a bag counts only if it is not clearly worse
than the selection from all candidates. Where one learner stands out, bags without it would spoil the blend
(up to 15 % on the enb table); where many are alike, averaging bags is what helps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kinfolk.data.errors import LEAST_PROBABILITY, check_error, error, resampled
from kinfolk.data.tasks import Task

Array = NDArray[np.float64]
CHUNK = 1 << 19  # numbers worked on at a time: they stay in the processor's cache
CHOSEN_BY = {"regression": "mse", "binary": "log_loss", "multiclass": "log_loss", "ranking": "1-concordance"}
RESAMPLES = 50  # of rows, for a standard error
SQUARED = ("rrse", "rmse", "mse", "1-r2", "brier")  # all rise with the squared error, so they choose alike


@runtime_checkable
class Objective(Protocol):
    """What a blend is chosen by; lower is better."""

    def at(self, weights: Array) -> float:
        """The loss of the weighted mean; weights ``[candidate]`` sum to 1."""
        ...

    def added(self, counts: Array) -> Array:
        """The loss ``[candidate]`` of the mean of those chosen so often (``counts``) and one more of each."""
        ...


@dataclass(frozen=True)
class Squared:
    """Mean squared error; all that is needed of the rows is the Gram matrix of residuals ``[candidate, candidate]``."""

    gram: Array

    def at(self, weights: Array) -> float:
        """Weights times Gram matrix times weights."""
        return float(weights @ self.gram @ weights)

    def added(self, counts: Array) -> Array:
        """(n + e_c)' G (n + e_c) / (sum n + 1)^2 for every c."""
        along = self.gram @ counts
        return (counts @ along + 2 * along + np.diagonal(self.gram)) / (counts.sum() + 1) ** 2


@dataclass(frozen=True)
class LogLoss:
    """Log loss; all that is needed of a mean of probabilities is what it gave to the class that happened."""

    happened: Array  # [candidate, row]
    weight: Array  # [row], sums to 1

    def at(self, weights: Array) -> float:
        """The loss of the weighted mean."""
        return float(-np.log(np.maximum(weights @ self.happened, LEAST_PROBABILITY)) @ self.weight)

    def added(self, counts: Array) -> Array:
        """One more of each."""
        total, running = counts.sum() + 1, counts @ self.happened
        step = max(1, CHUNK // max(1, len(running)))
        parts = []
        for start in range(0, len(counts), step):
            mean = (self.happened[start : start + step] + running) / total
            parts.append(-np.log(np.maximum(mean, LEAST_PROBABILITY)) @ self.weight)
        return np.concatenate(parts)


@dataclass(frozen=True)
class Named:
    """Any error of :mod:`kinfolk.data.errors`, taken anew for every candidate; undefined counts as infinite."""

    task: Task
    target: Array
    predictions: Sequence[NDArray]
    weight: Array

    def _error(self, prediction: NDArray) -> float:
        value = error(self.task, self.target, prediction, self.weight)
        return value if np.isfinite(value) else np.inf

    def at(self, weights: Array) -> float:
        """The error of the weighted mean."""
        return self._error(_sum(weights, self.predictions))

    def added(self, counts: Array) -> Array:
        """One more of each."""
        running, total = _sum(counts, self.predictions), counts.sum() + 1
        return np.array([self._error((running + p) / total) for p in self.predictions])


def objective(task: Task, target: Array, predictions: Sequence[NDArray], weight: Array) -> Objective:
    """What to choose by (`task.error`) in its fastest form; all rows have a label."""
    share = weight / weight.sum()
    if task.error in SQUARED:
        residuals = np.stack([(p[:, 0] - target) * np.sqrt(share) for p in predictions])
        return Squared(residuals @ residuals.T)
    if task.error == "log_loss":
        return LogLoss(np.stack([_happened(p, target) for p in predictions]), share)
    return Named(task, target, predictions, weight)


def _sum(weights: Array, predictions: Sequence[NDArray]) -> NDArray:
    """The weighted sum ``[row, size]`` of predictions; most weights are zero."""
    chosen = [w * p for w, p in zip(weights, predictions, strict=True) if w > 0]
    return np.sum(chosen, axis=0) if chosen else np.zeros_like(predictions[0], np.float64)


def _happened(prediction: NDArray, target: Array) -> Array:
    if prediction.shape[1] == 1:
        return np.where(target > 0, prediction[:, 0], 1 - prediction[:, 0])
    return prediction[np.arange(len(target)), target.astype(np.intp)]


def greedy(goal: Objective, size: int, rounds: int, first: int) -> Array:
    """Counts ``[candidate]`` of greedy selection with replacement; ties go to the earlier candidate.

    It starts from the best 1 .. `first` candidates, whichever number is best, and returns the best
    ensemble met within `rounds` choices.
    """
    alone = np.argsort(goal.added(np.zeros(size)), kind="stable")
    counts, best, lowest = np.zeros(size), np.zeros(size), np.inf
    for candidate in alone[: max(1, first)]:
        counts[candidate] += 1
        loss = goal.at(counts / counts.sum())
        if loss < lowest or not best.any():
            best, lowest = counts.copy(), loss
    counts = best.copy()
    for _ in range(rounds - int(counts.sum())):
        losses = goal.added(counts)
        candidate = int(np.argmin(losses))
        counts[candidate] += 1
        if losses[candidate] < lowest:
            best, lowest = counts.copy(), losses[candidate]
    return best


def prune(weights: Array, most: int) -> Array:
    """The `most` largest weights (ties: the earlier), scaled to sum to 1."""
    largest = np.argsort(-weights, kind="stable")[:most]
    kept = np.zeros_like(weights)
    kept[largest] = weights[largest]
    return kept / kept.sum()


def blend(
    task: Task,
    target: ArrayLike,
    candidates: Mapping[str, NDArray],
    weight: ArrayLike | None = None,
    baseline: float | None = None,
    *,
    by: str | None = None,
    rounds: int = 20,
    bags: int = 20,
    share: float = 0.5,
    row_share: float = 1.0,
    first: int = 3,
    worse: float = 2.0,
    tolerance: float = 0.05,
    most: int = 8,
    seed: int = 0,
) -> dict[str, float]:
    """Weights of a blend of candidates, chosen on predictions for rows that no candidate was trained on.

    Parameters
    ----------
    task
        One task; its kind says what is chosen by.
    target
        ``[row]``; NaN where there is no label.
    candidates
        Name -> predictions ``[row, size]`` for the same rows (inner rows left out in training).
    weight
        ``[row]``, ones by default.
    baseline
        Mean of the training rows' labels. No choice depends on it; it may be left out.
    by
        The error to choose by; unless given, squared error for regression, log loss for classes, concordance for
        rankings.
    rounds
        Choices per selection: its weights are multiples of 1 / rounds, or of less.
    bags
        How many selections from a random `share` of the candidates on a random `row_share` of the rows are
        averaged with the selection from all.
    first
        A bag's selection starts from the best 1 to `first` candidates.
    worse
        A bag that is worse than the selection from all by more than so many standard errors (paired, over
        rows) is left out.
    tolerance
        Nor does a bag count that is worse by more than this share of the error: where errors have long tails, a few
        rows make any difference look like noise.
    most
        At most so many members remain; those with the smallest weights are dropped.
    seed
        Of the bags. Same seed, same weights.

    Returns
    -------
    Name -> weight of the members, largest first; positive, multiples of 0.001 that sum to 1.

    Raises
    ------
    ValueError
        If there is no candidate, or no row with a label.

    Examples
    --------
    >>> low, high = np.array([[0.0], [1.0], [2.0]]), np.array([[2.0], [3.0], [4.0]])
    >>> blend(Task("t", "regression"), [1.0, 2.0, 3.0], {"low": low, "high": high})
    {'low': 0.5, 'high': 0.5}
    """
    names = list(candidates)
    task = replace(task, error=check_error(task.name, by or CHOSEN_BY[task.kind], task.kind))
    if task.kind == "regression" and task.error in SQUARED:
        task = replace(task, error="mse")  # chooses the same and needs no baseline
    y, predictions, w = _labelled(task, target, list(candidates.values()), weight)
    goal = objective(task, y, predictions, w)
    all_counts = greedy(goal, len(names), rounds, 1)
    kept = [all_counts / all_counts.sum()]
    random = np.random.default_rng(seed)
    clearly_worse = _Judge(task, y, predictions, w, kept[0], random)
    for _ in range(bags if len(names) > 1 else 0):
        chosen, rows = _part(random, len(names), share), _part(random, len(y), row_share)
        bag = objective(task, y[rows], [predictions[c][rows] for c in chosen], w[rows])
        weights = np.zeros(len(names))
        weights[chosen] = greedy(bag, len(chosen), rounds, first)
        weights /= weights.sum()
        if not clearly_worse(weights, worse, tolerance):
            kept.append(weights)
    return _readable(names, prune(np.mean(kept, axis=0), most))


class _Judge:
    """Tells whether a blend is clearly worse than a reference on the same rows, by a paired bootstrap over rows."""

    def __init__(
        self,
        task: Task,
        target: Array,
        predictions: Sequence[NDArray],
        weight: Array,
        reference: Array,
        random: np.random.Generator,
    ) -> None:
        self.task, self.target, self.predictions = task, target, predictions
        counts = random.multinomial(len(target), np.full(len(target), 1 / len(target)), RESAMPLES)
        self.weights = np.vstack([weight, counts * weight])  # the rows as they are, then resamples
        self.reference = self._errors(reference)

    def _errors(self, weights: Array) -> Array:
        return np.asarray(resampled(self.task, self.target, _sum(weights, self.predictions), self.weights))

    def __call__(self, weights: Array, standard_errors: float, tolerance: float) -> bool:
        """Whether it is worse by more than so many standard errors, or by more than a share of the reference."""
        difference = self._errors(weights) - self.reference
        if not difference[0] > 0:
            return False
        if difference[0] > tolerance * self.reference[0]:  # a few rows can make any difference look like noise
            return True
        defined = difference[1:][np.isfinite(difference[1:])]
        spread = defined.std(ddof=1) if len(defined) > 1 else np.inf
        return bool(spread == 0 or difference[0] / spread > standard_errors)


def mix(weights: Mapping[str, float], predictions: Mapping[str, NDArray]) -> Array:
    """The blend's prediction ``[row, size]``: the weighted mean of its members'.

    >>> mix({"a": 0.25, "b": 0.75}, {"a": np.array([[4.0]]), "b": np.array([[0.0]]), "c": np.array([[9.0]])})
    array([[1.]])
    """
    if not weights:
        raise ValueError("A blend must have a member. Got none.")
    return np.sum([w * np.asarray(predictions[name], np.float64) for name, w in weights.items()], axis=0)


def _labelled(
    task: Task, target: ArrayLike, predictions: Sequence[NDArray], weight: ArrayLike | None
) -> tuple[Array, list[NDArray], Array]:
    """The rows that have a label and a weight."""
    y = np.asarray(target, np.float64)
    w = np.ones(len(y)) if weight is None else np.asarray(weight, np.float64)
    seen = np.isfinite(y) & (w > 0)
    if not predictions or not seen.any():
        lacks = "a candidate" if not predictions else "a row with a label"
        raise ValueError(f"A blend of task {task.name!r} must have {lacks}. Got none.")
    return y[seen], [np.asarray(p)[seen] for p in predictions], w[seen]


def _part(random: np.random.Generator, size: int, share: float) -> NDArray[np.intp]:
    """A random share of `size` things, at least one, in order."""
    return np.sort(random.permutation(size)[: max(1, round(share * size))])


def _readable(names: list[str], weights: Array) -> dict[str, float]:
    """Weights as multiples of 0.001 that sum to 1, largest first."""
    steps = np.floor(weights * 1000)
    lacking = round(1000 - steps.sum())
    steps[np.argsort(steps - weights * 1000, kind="stable")[:lacking]] += 1  # largest remainders
    order = np.argsort(-steps, kind="stable")
    return {names[i]: float(steps[i] / 1000) for i in order if steps[i] > 0}
