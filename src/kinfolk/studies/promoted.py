"""Inputs that work better as outputs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from kinfolk.data.tasks import Task
from kinfolk.studies.base import Finding
from kinfolk.studies.mechanism import (
    Backprop,
    Experiment,
    Rows,
    Sample,
    Setting,
    best,
    outputs,
    row,
    sigmoid,
    values,
)
from kinfolk.training.loop import Training

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

ARMS = ("standard", "F2 as an input", "F2 as an output")
EXTRAS = ("real", "code")
PUBLISHED = (0.0648, 0.0647, 0.0631)
BITS = 10
TRAIN, HALT, TEST = 50, 1000, 1000
TASKS = (Task("F1", "binary", (0, 1), loss="squared"), Task("F2", "binary", (0, 1), main=False, loss="squared"))


def draw(seed: int, train: int, halt: int, test: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes of A and B ``[row, 20]``, and F1 and F2 ``[row, 2]``; A and B are uniform in [-5, 5]."""
    random = np.random.default_rng([11, seed])
    both = random.uniform(-5, 5, (train + halt + test, 2))
    a, b = both.T
    return np.concatenate([code(a), code(b)], 1), np.stack([sigmoid(a + b), sigmoid(a - b)], 1)


def code(numbers: np.ndarray) -> np.ndarray:
    """The number of one of 2^10 equal parts of [-5, 5] as bits, the highest first: ``[row, 10]``."""
    parts = np.minimum((numbers + 5) / 10 * 2**BITS, 2**BITS - 1).astype(np.int64)
    return (parts[:, None] >> np.arange(BITS)[::-1] & 1).astype(float)


class Promoted(Experiment):
    """F1 = sigmoid(A + B) from codes of A and B; F2 = sigmoid(A - B) is left out, an input or an output.

    Parameters
    ----------
    backprop
        How networks learn.
    extra
        How F2 is given as an input: "real", one number, or "code", the bits of 10 F2 - 5.
    """

    name = "inputs as outputs"

    def __init__(self, backprop: Backprop, extra: str = "real") -> None:
        self.backprop, self.extra = backprop, extra

    def settings(self, seeds: int, quick: bool) -> list[Setting]:
        """Five trials per seed: 50 of ten seeds, as in the paper."""
        return [{"seeds": seeds * (1 if quick else 5), "quick": quick}]

    def trainings(self, setting: Setting) -> dict[str, Callable[[], Training]]:
        """One stack of networks for each arm."""
        return {arm: partial(self._training, setting, arm) for arm in ARMS}

    def _rows(self, setting: Setting, arm: str, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
        halt, test = (100, 100) if setting["quick"] else (HALT, TEST)
        inputs, labels = draw(seed, TRAIN, halt, test)
        if arm == ARMS[1]:
            more = labels[:, 1:] if self.extra == "real" else code(10 * labels[:, 1] - 5)
            inputs = np.concatenate([inputs, more], 1)
        return inputs, labels if arm == ARMS[2] else labels[:, :1], TRAIN + halt

    def _training(self, setting: Setting, arm: str) -> Training:
        samples = []
        for seed in range(setting["seeds"]):
            inputs, labels, known = self._rows(setting, arm, seed)
            samples.append(Sample(inputs[:known], labels[:known], TRAIN))
        return self.backprop.training(samples, TASKS[: samples[0].labels.shape[1]], 16)

    def measure(self, setting: Setting, arm: str, training: Training) -> Rows:
        """The root of the mean squared error of F1 on test rows."""
        rows = [self._rows(setting, arm, seed) for seed in range(setting["seeds"])]
        said = outputs(best(training), np.stack([inputs[known:] for inputs, _, known in rows]))[0][..., 0]
        truth = np.stack([labels[known:, 0] for _, labels, known in rows])
        errors = np.sqrt(((sigmoid(said) - truth) ** 2).mean(1))
        return [row(arm, seed, "RMSE", error) for seed, error in enumerate(errors)]

    def findings(self, rows: pandas.DataFrame) -> list[Finding]:
        """Three errors, and what an extra input and an extra output change."""
        source = "Caruana 1997, section 5.1"
        found = [values(rows, arm=arm) for arm in ARMS]
        lines = [
            Finding(f"F1, {arm}: RMSE", published, tuple(errors), source=source)
            for arm, published, errors in zip(ARMS, PUBLISHED, found, strict=True)
        ]
        as_input, as_output = tuple(found[1] - found[0]), tuple(found[2] - found[0])
        return [
            *lines,
            Finding("F2 as an input - standard", PUBLISHED[1] - PUBLISHED[0], as_input, source=source),
            Finding("F2 as an output - standard", PUBLISHED[2] - PUBLISHED[0], as_output, "", "negative", source),
        ]

    def draw(self, rows: pandas.DataFrame, axes: Axes) -> None:
        """The errors of all trials, arm by arm."""
        axes.boxplot([values(rows, arm=arm) for arm in ARMS], tick_labels=[arm.replace(" as", "\nas") for arm in ARMS])
        axes.set(title="Inputs as outputs", ylabel="RMSE of F1")
