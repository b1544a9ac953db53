"""How well scores order rows, for one or many weight vectors at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Numbers = Array | np.float64


def concordance(label: ArrayLike, score: ArrayLike, weight: ArrayLike) -> Numbers:
    """The share of pairs with different labels that scores put in the right order, equal scores counted half.

    For two labels it is the area under the ROC curve.

    Parameters
    ----------
    label, score
        ``[row]``.
    weight
        ``[..., row]``, not negative; a pair weighs the product.

    Returns
    -------
    ``[...]``; NaN where there is no pair.

    Examples
    --------
    >>> float(concordance([1, 2, 3], [0.1, 0.3, 0.2], [1, 1, 1])) * 3
    2.0
    """
    # Two labels first differ in one bit of their ranks. Among rows equal in all bits above it, it parts low from high.
    rank = np.unique(np.asarray(label), return_inverse=True)[1].ravel()
    score, weight = np.asarray(score, np.float64), np.asarray(weight, np.float64)
    right, pairs = np.zeros(weight.shape[:-1]), np.zeros(weight.shape[:-1])
    for bit in range(int(rank.max(initial=0)).bit_length()):
        group, high = rank >> (bit + 1), (rank >> bit) & 1
        order = np.lexsort((score, group))
        one_right, one_pairs = _parted(group[order], score[order], weight[..., order] * high[order], weight[..., order])
        right, pairs = right + one_right, pairs + one_pairs
    return np.divide(right, pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0)[()]


def _parted(group: NDArray[np.intp], score: Array, high: Array, weight: Array) -> tuple[Numbers, Numbers]:
    """Pairs of a low and a high row of one group: those in the right order, and all; rows in order of group, score."""
    new_group = np.r_[True, group[1:] != group[:-1]]
    runs = np.flatnonzero(new_group | np.r_[True, score[1:] != score[:-1]])  # equal scores
    high, low = np.add.reduceat(high, runs, axis=-1), np.add.reduceat(weight - high, runs, axis=-1)
    starts = np.flatnonzero(new_group[runs])
    before = np.cumsum(low, axis=-1) - low
    before = before - np.repeat(before[..., starts], np.diff(np.r_[starts, len(runs)]), axis=-1)
    pairs = np.add.reduceat(high, starts, axis=-1) * np.add.reduceat(low, starts, axis=-1)
    return (high * (before + low / 2)).sum(-1), pairs.sum(-1)


def mean_of_lowest(label: ArrayLike, score: ArrayLike, weight: ArrayLike, share: float) -> Numbers:
    """The mean label of the rows with the lowest scores: of 0/1 labels, the error at a fraction of the population.

    Rows of equal scores at the edge count in part.

    Parameters
    ----------
    label, score
        ``[row]``.
    weight
        ``[..., row]``, not negative.
    share
        Of the rows' weight, in (0, 1].

    Returns
    -------
    ``[...]``; NaN without weight.

    References
    ----------
    R. Caruana, S. Baluja, T. Mitchell (1996). Using the future to "sort out" the present: Rankprop and multitask
    learning for medical risk evaluation. NIPS 8.

    Examples
    --------
    >>> float(mean_of_lowest([0, 0, 1, 1], [0.1, 0.3, 0.2, 0.4], [1, 1, 1, 1], 0.5))
    0.5
    """
    label, score, weight = (np.asarray(one, np.float64) for one in (label, score, weight))
    if not len(score):
        return np.full(weight.shape[:-1], np.nan)[()]
    order = np.argsort(score, kind="stable")
    ordered, weight, label = score[order], weight[..., order], label[order]
    runs = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    sums = np.add.reduceat(weight * label, runs, axis=-1)
    weights = np.add.reduceat(weight, runs, axis=-1)
    wanted = share * weights.sum(-1, keepdims=True)
    taken = np.clip(wanted - (np.cumsum(weights, axis=-1) - weights), 0, weights)
    found = np.divide(taken * sums, weights, out=np.zeros(weights.shape), where=weights > 0).sum(-1)
    return np.divide(found, wanted[..., 0], out=np.full(found.shape, np.nan), where=wanted[..., 0] > 0)[()]
