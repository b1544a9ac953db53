"""Tasks whose truth is known: linear functions that are alike, or inputs of other covariances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

SOURCES = ("2", "3", "4", "4 as printed")
"""Tasks that may help or hurt task 1."""


@dataclass(frozen=True)
class Family:
    """Tasks that are near copies of a few, each with rows of its own.

    Attributes
    ----------
    thetas
        Of length 1, ``[task, feature]``.
    inputs, labels
        ``[task, row, feature]`` and ``[task, row]``.
    """

    thetas: Float[np.ndarray, "task feature"]
    inputs: Float[np.ndarray, "task row feature"]
    labels: Float[np.ndarray, "task row"]


def values(inputs: np.ndarray, theta: np.ndarray, body: str) -> np.ndarray:
    """What a body of one unit gives without noise: ``x theta``, or its positive part."""
    linear = inputs @ theta
    return np.maximum(linear, 0) if body == "relu" else linear


def family(
    seed: int, body: str, tasks: int, groups: int, features: int, rows: int, noise: float, cosine: float
) -> Family:
    """Tasks in groups; each has this cosine with the direction of its group."""
    random = np.random.default_rng([1, seed])
    centres = _units(random.normal(size=(groups, features)))
    thetas = np.stack([turned(random, centres[i % groups], cosine) for i in range(tasks)])
    inputs = random.normal(size=(tasks, rows, features))
    clean = np.stack([values(x, theta, body) for x, theta in zip(inputs, thetas, strict=True)])
    return Family(thetas, inputs, clean + noise * random.normal(size=clean.shape))


def turned(random: np.random.Generator, theta: np.ndarray, cosine: float) -> np.ndarray:
    """A random vector of length 1 that has this cosine with another of length 1."""
    other = random.normal(size=theta.shape)
    other = _units(other - other @ theta * theta)
    return cosine * theta + np.sqrt(1 - cosine**2) * other


def _units(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@dataclass(frozen=True)
class Covariances:
    """Task 1 and the tasks 2, 3, 4 of the paper's example, whose inputs have other covariances.

    A row of inputs is ``r D Q``: ``r`` normal, ``D`` diagonal with `kappa` in a tenth of the places and else 1, ``Q`` a
    rotation. Task 3 has its large places elsewhere, task 4 another rotation. The paper prints ``r Q D``: then the
    rotation changes nothing, as ``r Q`` is normal as ``r`` is, and task 4 has the law of task 2: "4 as printed".

    Parameters
    ----------
    seed
        Of all draws.
    features, kappa, cosine
        Their number, at least 20; the large entries of D; the cosine of the thetas of task 1 and all others.
    noise
        Deviation of the noise in all labels, relative to that of the labels of task 1 without noise.
    """

    seed: int
    features: int
    kappa: float | int
    cosine: float | int
    noise: float | int

    def thetas(self) -> tuple[np.ndarray, np.ndarray]:
        """Theta of task 1, and that of all others."""
        random = np.random.default_rng([2, self.seed])
        one = _units(random.normal(size=self.features))
        return one, turned(random, one, self.cosine)

    def roots(self) -> dict[str, np.ndarray]:
        """``D Q`` of each task: its covariance is the product of the transpose with this."""
        random = np.random.default_rng([3, self.seed])
        tenth, d = self.features // 10, self.features
        first, second = (
            np.where((np.arange(d) >= i * tenth) & (np.arange(d) < (i + 1) * tenth), self.kappa, 1.0) for i in range(2)
        )
        one, other = (np.linalg.qr(random.normal(size=(d, d)))[0] for _ in range(2))
        base, rotated = first[:, None] * one, first[:, None] * other
        return {"1": base, "2": base, "3": second[:, None] * one, "4": rotated, "4 as printed": base}

    def deviation(self) -> float:
        """Of the labels of task 1 without noise."""
        return float(np.linalg.norm(self.roots()["1"] @ self.thetas()[0]))

    def rows(self, task: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and labels of a task; fewer rows are the first of more."""
        random, other = (np.random.default_rng([4 + i, self.seed, list(self.roots()).index(task)]) for i in range(2))
        inputs = random.normal(size=(count, self.features)) @ self.roots()[task]
        noise = self.noise * self.deviation() * other.normal(size=count)
        return inputs, inputs @ self.thetas()[task != "1"] + noise

    def risk(self, theta: np.ndarray) -> float:
        """Excess squared error of task 1, relative to the variance of its labels without noise."""
        return float(np.square(self.roots()["1"] @ (theta - self.thetas()[0])).sum()) / self.deviation() ** 2

    def distance(self, theta: np.ndarray) -> float:
        """Squared distance from the theta of task 1, which has length 1."""
        return float(np.square(theta - self.thetas()[0]).sum())


def least_squares(inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Theta of least squares; the shortest one where rows are fewer than features."""
    return np.linalg.lstsq(inputs, labels, rcond=None)[0]


def best_shared(parts: list[tuple[np.ndarray, np.ndarray]], updates: int = 20_000) -> list[np.ndarray]:
    """Thetas of the best linear body of width 1: the sum over rows of squared errors, minimised over body and heads.

    With the heads solved for, what is left is a sum over tasks of ``(b'X'y)^2 / b'X'X b``, which is maximised.
    """
    from scipy.optimize import minimize

    grams, crosses = [x.T @ x for x, _ in parts], [x.T @ y for x, y in parts]

    def loss(b: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = 0.0, np.zeros(len(b))
        for gram, cross in zip(grams, crosses, strict=True):
            head = cross @ b / (b @ gram @ b)
            value -= float(head * (cross @ b))
            gradient -= 2 * head * (cross - head * (gram @ b))
        return value, gradient

    starts = [least_squares(x, y) for x, y in parts]
    found = [
        minimize(loss, b, jac=True, method="L-BFGS-B", options={"maxiter": updates, "ftol": 1e-15}) for b in starts
    ]
    best = min(found, key=lambda one: one.fun).x
    return [best * (cross @ best) / (best @ gram @ best) for gram, cross in zip(grams, crosses, strict=True)]


@dataclass(frozen=True)
class Labelled:
    """Binary tasks on common rows: the labels, the same with some at random, and clean test rows.

    Attributes
    ----------
    inputs, test_inputs
        ``[row, feature]``.
    clean, noisy, test
        0 and 1, ``[row, task]``.
    """

    inputs: Float[np.ndarray, "row feature"]
    clean: Float[np.ndarray, "row task"]
    noisy: Float[np.ndarray, "row task"]
    test_inputs: Float[np.ndarray, "test feature"]
    test: Float[np.ndarray, "test task"]


def labelled(
    seed: int, tasks: int, features: int, rows: int, test: int, random_labels: float | int, cosine: float
) -> Labelled:
    """Tasks whose thetas all have this cosine with one direction; a task's label is the sign of ``x theta``."""
    random = np.random.default_rng([6, seed])
    centre = _units(random.normal(size=features))
    thetas = np.stack([turned(random, centre, cosine) for _ in range(tasks)], 1)
    inputs, tests = random.normal(size=(rows, features)), random.normal(size=(test, features))
    clean = (inputs @ thetas > 0).astype(float)
    coins = (random.random(clean.shape) < 0.5).astype(float)
    noisy = np.where(random.random(clean.shape) < random_labels, coins, clean)
    return Labelled(inputs, clean, noisy, tests, (tests @ thetas > 0).astype(float))
