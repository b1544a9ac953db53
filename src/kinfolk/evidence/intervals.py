"""Is a paired difference clear? Intervals and p-values over outer splits, or over test rows, and Holm over tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kinfolk.data.errors import resampled
from kinfolk.data.tasks import Task

Array = NDArray[np.float64]
ALIKE = 1e-10  # differences that differ by less than this share of themselves are the same number
CHUNK = 1 << 21  # how many resampled weights are held at a time


@runtime_checkable
class Evidence(Protocol):
    """A mean difference and what is known of its chance part. The interval excludes 0 if, and only if, p <= alpha."""

    @property
    def mean(self) -> float:
        """The difference itself."""
        ...

    @property
    def p_value(self) -> float:
        """Two-sided; NaN where nothing can be said."""
        ...

    def interval(self, alpha: float) -> tuple[float, float]:
        """The 1 - `alpha` interval; NaN where nothing can be said."""
        ...


@dataclass(frozen=True)
class CorrectedT:
    """The corrected resampled t-test over outer splits.

    Training sets of different splits overlap, so their differences are not independent and the ordinary
    t-test finds far too much. The variance of the mean of J differences is taken as
    ``(1 / J + n_test / n_train) * s**2``, with J - 1 degrees of freedom: Nadeau and Bengio 2003, "Inference
    for the generalization error", Machine Learning 52, section 4; for repeated k-fold Bouckaert and Frank 2004.

    With fewer than two splits nothing is said (NaN). Differences that are all zero give p = 1 and [0, 0].
    Differences that are all the same number d, not zero, leave no variance to be estimated, which would make any
    number of splits certain: there p is that of the sign test, 2 / 2**J, and the interval is [d, d] where that
    is significant and otherwise reaches from d just to zero and as far to the other side.

    Parameters
    ----------
    differences
        ``[split]``, one per outer split.
    test_to_train
        Rows judged on over rows trained on.

    Examples
    --------
    >>> test = CorrectedT((0.02, 0.01, 0.03, 0.02, 0.02), test_to_train=0.25)
    >>> round(test.mean, 3), round(test.p_value, 3)
    (0.02, 0.014)
    """

    differences: tuple[float, ...]
    test_to_train: float

    @property
    def mean(self) -> float:
        """Over the splits."""
        return float(np.mean(self.differences)) if self.differences else np.nan

    @property
    def standard_error(self) -> float:
        """Of the mean, corrected; zero where all differences are the same."""
        splits = len(self.differences)
        if splits < 2:
            return np.nan
        spread = float(np.std(self.differences, ddof=1))
        if spread <= ALIKE * max(abs(d) for d in self.differences):
            return 0.0
        return float(np.sqrt(1 / splits + self.test_to_train)) * spread

    @property
    def p_value(self) -> float:
        """Two-sided."""
        from scipy import stats

        error, splits = self.standard_error, len(self.differences)
        if np.isnan(error):
            return np.nan
        if error == 0:
            return 1.0 if self.mean == 0 else 2.0 ** (1 - splits)
        return float(2 * stats.t.sf(abs(self.mean) / error, splits - 1))

    def interval(self, alpha: float) -> tuple[float, float]:
        """Around the mean."""
        from scipy import stats

        error = self.standard_error
        if np.isnan(error):
            return np.nan, np.nan
        if error == 0:
            half = 0.0 if self.p_value <= alpha else abs(self.mean)
        else:
            half = float(stats.t.isf(alpha / 2, len(self.differences) - 1)) * error
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class Percentile:
    """A paired bootstrap: the difference on the test rows, and on resamples of them.

    It says how much depends on which rows happened to be the test rows, for models that are given; not how
    much another training set would change. The p-value is twice the smaller share of resamples on one side
    of zero, counted with the sample itself (Davison and Hinkley 1997, section 4.2), and the ends of the
    interval are the resamples in the places that make both agree.

    Examples
    --------
    >>> test = Percentile(0.5, tuple(np.linspace(-0.1, 0.9, 1999)))
    >>> round(test.p_value, 2), [round(end, 2) for end in test.interval(0.05)]
    (0.2, [-0.08, 0.88])
    """

    mean: float
    draws: tuple[float, ...]

    @property
    def p_value(self) -> float:
        """Two-sided."""
        if not self.draws or np.isnan(self.mean):
            return np.nan
        draws = np.asarray(self.draws)
        smaller = min((draws <= 0).sum(), (draws >= 0).sum())
        return float(min(1.0, 2 * (smaller + 1) / (len(draws) + 1)))

    def interval(self, alpha: float) -> tuple[float, float]:
        """By percentiles."""
        if not self.draws or np.isnan(self.mean):
            return np.nan, np.nan
        draws = np.sort(self.draws)
        place = int(np.floor(alpha * (len(draws) + 1) / 2))
        if place < 1:  # too few resamples for so high a level: nothing can be clear
            return min(0.0, float(draws[0])), max(0.0, float(draws[-1]))
        return float(draws[place - 1]), float(draws[-place])


def holm(p_values: ArrayLike) -> Array:
    """Holm's (1979) adjusted p-values; NaN (not judged) neither changes nor counts.

    >>> holm([0.01, 0.04, 0.03, float("nan")]).round(3).tolist()
    [0.03, 0.06, 0.06, nan]
    """
    p = np.asarray(p_values, np.float64)
    adjusted = np.full(p.shape, np.nan)
    order = [i for i in np.argsort(p, kind="stable") if np.isfinite(p[i])]
    stepped = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted


def interval_levels(p_values: ArrayLike, adjusted: ArrayLike, level: float) -> Array:
    """The alpha of each task's interval, so that it excludes 0 if, and only if, its adjusted p <= `level`.

    p <= alpha must mean adjusted p <= level, so alpha = level * p / adjusted. It lies between
    level / number of tasks and level, for every step of Holm's.
    """
    p, adjusted = np.asarray(p_values, np.float64), np.asarray(adjusted, np.float64)
    tasks = max(1, int(np.isfinite(p).sum()))
    share = np.divide(p, adjusted, out=np.full(p.shape, 1 / tasks), where=adjusted > 0)  # p = 0: the strictest
    return np.where(np.isfinite(p), level * np.clip(share, 1 / tasks, 1.0), level)


@dataclass(frozen=True)
class Judged:
    """Predictions of several arms for the same test rows of one task."""

    task: Task
    unit: NDArray[np.intp]  # [row]: what is drawn together, a row or a group, as a code from 0
    target: Array  # [row]
    weight: Array  # [row]
    baseline: float | None
    predictions: tuple[NDArray, ...]  # one [row, size] per arm

    def errors(self, counts: Array) -> Array:
        """Errors ``[resample, arm]`` when unit u is there ``counts[resample, u]`` times."""
        weights = counts[:, self.unit] * self.weight
        each = [resampled(self.task, self.target, p, weights, self.baseline) for p in self.predictions]
        return np.stack(each, axis=1)


def bootstrap(
    judged: Sequence[Judged], strata: NDArray[np.intp], resamples: int = 2000, seed: int = 0
) -> tuple[Array, Array]:
    """Errors on the test rows and on resamples of them, drawn alike for all tasks and arms.

    Parameters
    ----------
    judged
        One per task.
    strata
        ``[unit]``: units are drawn inside their stratum, as many as it has; so a binary task keeps both classes.
    resamples
        How many.
    seed
        Of the draws.

    Returns
    -------
    errors ``[task, arm]`` and resampled errors ``[resample, task, arm]``; NaN where undefined.
    """
    whole = np.ones((1, len(strata)))
    at_once = max(1, CHUNK // max(1, len(strata)))
    random = np.random.default_rng(seed)
    parts = [
        np.stack([task.errors(counts) for task in judged], axis=1)
        for counts in _draws(strata, resamples, at_once, random)
    ]
    return np.stack([task.errors(whole)[0] for task in judged]), np.concatenate(parts)


def _draws(strata: NDArray[np.intp], resamples: int, at_once: int, random: np.random.Generator) -> Iterator[Array]:
    """How often each unit is drawn, ``[resample, unit]``, some resamples at a time."""
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        counts = np.empty((size, len(strata)))
        for units in members:
            drawn = random.integers(0, len(units), (size, len(units))) + len(units) * np.arange(size)[:, None]
            counts[:, units] = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        yield counts
