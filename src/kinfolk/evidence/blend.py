"""The blend of the hand-over: greedy ensemble selection with replacement, per task.

Caruana, Niculescu-Mizil, Crew and Ksikes 2004, "Ensemble selection from libraries of models", with its three
remedies against overfitting the rows that choose: sorted initialisation, bags of random candidates, and the
best ensemble on the way rather than the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kinfolk.data.errors import ERRORS, LEAST_PROBABILITY, check_error, error
from kinfolk.data.tasks import Task

Array = NDArray[np.float64]
CHUNK = 1 << 19  # numbers worked on at a time: they stay in the processor's cache


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
        """w' G w."""
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
    baseline: float | None

    def _error(self, prediction: NDArray) -> float:
        value = error(self.task, self.target, prediction, self.weight, self.baseline)
        return value if np.isfinite(value) else np.inf

    def _sum(self, weights: Array) -> NDArray:
        chosen = [w * p for w, p in zip(weights, self.predictions, strict=True) if w > 0]
        return np.sum(chosen, axis=0) if chosen else np.zeros_like(self.predictions[0], np.float64)

    def at(self, weights: Array) -> float:
        """The error of the weighted mean."""
        return self._error(self._sum(weights))

    def added(self, counts: Array) -> Array:
        """One more of each."""
        running, total = self._sum(counts), counts.sum() + 1
        return np.array([self._error((running + p) / total) for p in self.predictions])


def objective(
    task: Task, target: Array, predictions: Sequence[NDArray], weight: Array, baseline: float | None, by: str
) -> Objective:
    """What to choose by, in its fastest form; rows all have a label."""
    by = check_error(task.name, by, task.kind)
    share = weight / weight.sum()
    if by in ("rrse", "rmse", "mse", "1-r2", "brier"):  # all rise with the squared error, so they choose alike
        residuals = np.stack([(p[:, 0] - target) * np.sqrt(share) for p in predictions])
        return Squared(residuals @ residuals.T)
    if by == "log_loss":
        return LogLoss(np.stack([_happened(p, target) for p in predictions]), share)
    return Named(replace(task, error=by), target, predictions, weight, baseline)


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


def prune(goal: Objective, weights: Array, most: int, tolerance: float) -> Array:
    """Drop the smallest weights: down to `most` members, then while the loss rises by no more than `tolerance`."""
    limit = goal.at(weights) * (1 + tolerance)
    while (weights > 0).sum() > 1:
        least = int(np.argmin(np.where(weights > 0, weights, np.inf)))
        fewer = np.where(np.arange(len(weights)) == least, 0.0, weights)
        fewer /= fewer.sum()
        if (weights > 0).sum() <= most and goal.at(fewer) > limit:
            break
        weights = fewer
    return weights


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
    row_share: float = 0.5,
    first: int = 3,
    most: int = 8,
    tolerance: float = 0.001,
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
        Mean of the training rows' labels, where `by` needs it.
    by
        The error to choose by: squared error for regression and log loss for classes, unless given.
    rounds
        Choices per bag; a weight is a multiple of 1 / rounds within a bag.
    bags
        How many greedy selections are averaged, each from a random `share` of the candidates on a random
        `row_share` of the rows. 0: one selection from all candidates on all rows.
    first
        The selection starts from the best 1 to `first` candidates.
    most
        At most so many members remain.
    tolerance
        A member whose weight is smallest is dropped as long as the error (chosen by) rises by no more than this share.
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
    >>> blend(Task("t", "regression"), [1.0, 2.0, 3.0], {"low": low, "high": high}, bags=0)
    {'low': 0.5, 'high': 0.5}
    """
    names = list(candidates)
    y, predictions, w = _labelled(task, target, list(candidates.values()), weight)
    by = by or ("rrse" if task.kind == "regression" else "log_loss")
    goal = objective(task, y, predictions, w, baseline, by)
    if bags == 0:
        weights = greedy(goal, len(names), rounds, first)
    else:
        weights = np.zeros(len(names))
        random = np.random.default_rng(seed)
        for _ in range(bags):
            chosen = _part(random, len(names), share)
            rows = _part(random, len(y), row_share)
            if w[rows].sum() == 0:
                continue
            bag = objective(task, y[rows], [predictions[c][rows] for c in chosen], w[rows], baseline, by)
            counts = greedy(bag, len(chosen), rounds, first)
            weights[chosen] += counts / counts.sum()
    return _readable(names, prune(goal, weights / weights.sum(), most, tolerance))


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


def _readable(names: Sequence[str], weights: Array) -> dict[str, float]:
    """Weights as multiples of 0.001 that sum to 1, largest first."""
    steps = np.floor(weights * 1000)
    lacking = round(1000 - steps.sum())
    steps[np.argsort(steps - weights * 1000, kind="stable")[:lacking]] += 1  # largest remainders
    order = np.argsort(-steps, kind="stable")
    return {names[i]: float(steps[i] / 1000) for i in order if steps[i] > 0}
