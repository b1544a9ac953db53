"""Which tasks belong together, from how difficult rows are for them; and which rows stand for a matrix.

The algebra of fully-adaptive feature sharing (:mod:`kinfolk.sharing.branching`), in numpy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray


def affinity(margins: Float[ndarray, "row task"], observed: Bool[ndarray, "row task"]) -> Float[ndarray, "task other"]:
    """How often two tasks agree on whether a row is difficult, in [0, 1].

    A row is difficult for a task where its margin is at least the task's mean margin. Rows where either label is not
    observed are left out of a pair; a pair without a common row gets 1/2, which is chance.

    Parameters
    ----------
    margins
        How far each prediction is from its label, on rows that did not train it: else memorisation decides.
    observed
        Whether the label is there.

    Examples
    --------
    >>> margins = np.array([[0.9, 0.8, 0.1], [0.1, 0.2, 0.9], [0.2, 0.1, 0.8], [0.7, 0.9, 0.9]])
    >>> affinity(margins, np.ones((4, 3), dtype=bool))
    array([[1.  , 1.  , 0.25],
           [1.  , 1.  , 0.25],
           [0.25, 0.25, 1.  ]])
    """
    mean = np.where(observed, margins, 0.0).sum(0) / observed.sum(0).clip(min=1)
    difficult = (observed & (margins >= mean)).astype(float)
    easy = (observed & (margins < mean)).astype(float)
    both = observed.T.astype(float) @ observed
    agree = difficult.T @ difficult + easy.T @ easy
    found = np.where(both > 0, agree / both.clip(min=1), 0.5)
    np.fill_diagonal(found, 1.0)
    return found


def between(tasks: Float[ndarray, "task task"], branch: Int[ndarray, " task"]) -> Float[ndarray, "branch other"]:
    """The affinity of branches, from that of their tasks: of each task to the other branch's least related, on average.

    Parameters
    ----------
    tasks
        See :func:`affinity`.
    branch
        The branch of each task, numbered from 0 without gaps.
    """
    members = [np.flatnonzero(branch == k) for k in range(branch.max() + 1)]
    one_way = np.array([[tasks[np.ix_(k, other)].min(1).mean() for other in members] for k in members])
    return (one_way + one_way.T) / 2


def separation(affinity: Float[ndarray, "branch branch"], groups: Int[ndarray, " branch"]) -> float:
    """How far apart the branches are that share a group, in [0, 1]: the loss that more groups make smaller."""
    members = [np.flatnonzero(groups == g) for g in range(groups.max() + 1)]
    return float(np.mean([1 - affinity[np.ix_(g, g)].mean(1).min() for g in members]))


def group(
    affinity: Float[ndarray, "branch branch"], unit: float | int, alpha: float | int, most: int
) -> Int[ndarray, " branch"]:
    """The grouping of least cost among those that spectral clustering makes for each number of groups.

    The cost of d groups is (d - 1) times ``unit`` plus ``alpha`` times :func:`separation`. Of equal costs the one of
    fewer groups is taken.

    Parameters
    ----------
    affinity
        Symmetric, not negative.
    unit
        What a further group costs.
    alpha
        What separation costs.
    most
        The largest number of groups.

    Returns
    -------
    ndarray
        The group of each branch, numbered from 0 in the order of their first branches.

    Examples
    --------
    >>> pairs = np.kron(np.eye(2), np.ones((2, 2))) * 0.5 + 0.5
    >>> [group(pairs, unit=1, alpha=alpha, most=4).tolist() for alpha in (3.9, 4.1)]
    [[0, 0, 0, 0], [0, 0, 1, 1]]
    """
    groupings = [_clustered(affinity, d) for d in range(1, min(most, len(affinity)) + 1)]
    costs = [groups.max() * unit + alpha * separation(affinity, groups) for groups in groupings]
    return groupings[int(np.argmin(costs))]


def _clustered(affinity: ndarray, groups: int) -> Int[ndarray, " branch"]:
    """Spectral clustering, where there is something to choose."""
    if groups == 1:
        return np.zeros(len(affinity), dtype=np.int64)
    if groups == len(affinity):
        return np.arange(len(affinity))
    from sklearn.cluster import SpectralClustering

    # By a pivoted QR of the eigenvectors: no k-means, whose draws would decide. A graph must be connected.
    method = SpectralClustering(groups, affinity="precomputed", assign_labels="cluster_qr", random_state=0)
    labels = method.fit_predict(affinity.clip(min=1e-6))
    _, first, place = np.unique(labels, return_index=True, return_inverse=True)
    return first.argsort().argsort()[place]


def somp(matrix: Float[ndarray, "row column"], rows: int) -> tuple[list[int], Float[ndarray, "row _"]]:
    """Some rows of a matrix of which combinations come near to all: simultaneous orthogonal matching pursuit.

    Parameters
    ----------
    matrix
        Such as a trained layer's weights, a row per unit or (flattened) filter.
    rows
        How many are chosen, from 1 to all.

    Returns
    -------
    list
        Their positions, best first.
    ndarray
        The combinations: ``combinations @ matrix[positions]`` is the least-squares fit of the matrix.

    Raises
    ------
    ValueError
        If there are not so many rows.

    References
    ----------
    J. A. Tropp, A. C. Gilbert, M. J. Strauss (2006). Algorithms for simultaneous sparse approximation, part I: greedy
    pursuit. Signal Processing 86, 572-588.

    Examples
    --------
    >>> positions, combinations = somp(np.array([[2.0, 0.0], [0.0, 1.0], [4.0, 0.0]]), 2)
    >>> positions, combinations.round(6).tolist()
    ([0, 1], [[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    """
    if not 1 <= rows <= len(matrix):
        raise ValueError(f"`rows` must be from 1 to the matrix's {len(matrix)} rows. Got {rows}.")
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    directions = matrix / np.where(lengths > 0, lengths, 1.0)
    chosen: list[int] = []
    combinations, rest = np.zeros((len(matrix), 0)), matrix
    for _ in range(rows):
        gain = np.abs(rest @ directions.T).sum(0)
        gain[chosen] = -1.0
        chosen.append(int(gain.argmax()))
        combinations = matrix @ np.linalg.pinv(matrix[chosen])
        rest = matrix - combinations @ matrix[chosen]
    return chosen, combinations


def thin(weights: Sequence[ndarray], units: Sequence[int]) -> tuple[list[ndarray], list[list[int]]]:
    """Thin layers from trained wide ones: the units that :func:`somp` chooses, reading the units chosen below.

    Parameters
    ----------
    weights
        Of layers one after the other, ``[output, input, ...]`` each, as ``torch.nn`` stores them.
    units
        How many outputs each keeps.

    Returns
    -------
    list
        The thin weights.
    list
        The units that were kept, for biases and for the layers that read the last.

    Examples
    --------
    >>> wide = [np.array([[2.0, 0.0], [0.0, 1.0], [4.0, 0.0]]), np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])]
    >>> thinner, kept = thin(wide, [2, 1])
    >>> kept, thinner[1].tolist()
    ([[0, 1], [0]], [[1.0, 2.0]])
    """
    thinner, kept = [], []
    for weight, wanted in zip(weights, units, strict=True):
        chosen, _ = somp(weight.reshape(len(weight), -1), wanted)
        thinner.append(weight[chosen][:, kept[-1]] if kept else weight[chosen])
        kept.append(chosen)
    return thinner, kept
