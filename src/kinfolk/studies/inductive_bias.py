"""Tasks prefer representations that other tasks prefer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from kinfolk.data.tasks import Task
from kinfolk.studies.base import Finding
from kinfolk.studies.mechanism import Backprop, Experiment, Rows, Sample, Setting, best, outputs, row, values
from kinfolk.training.loop import Training

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

HIDDEN, TEST = 12, 500
PAIR = 2  # inputs that code a label together: their exclusive or
ARMS = {
    "T alone": ("AB", ""),
    "T' alone": ("", "AC"),
    "both, A serves both": ("AB", "AC"),
    "T needs A": ("A", "AC"),
    "T needs B": ("B", "AC"),
}
"""For each arm the codes that tell the labels of T, and those that tell the labels of T'."""


def draw(random: np.random.Generator, codes: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs ``[row, 6]``, a pair for each of A, B, C, and labels 0/1 that these codes tell; other pairs are noise."""
    bits = random.integers(0, 2, (rows, 3, PAIR))
    labels = random.integers(0, 2, rows)
    for code in codes:
        bits[:, "ABC".index(code), 1] = bits[:, "ABC".index(code), 0] ^ labels
    return (2.0 * bits - 1 + 0.2 * random.normal(size=bits.shape)).reshape(rows, -1), labels


def conflict(random: np.random.Generator, other: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs in which A tells one label and another code the opposite; the labels that A tells."""
    bits = random.integers(0, 2, (rows, 3, PAIR))
    labels = random.integers(0, 2, rows)
    for code, wanted in (("A", labels), (other, 1 - labels)):
        bits[:, "ABC".index(code), 1] = bits[:, "ABC".index(code), 0] ^ wanted
    return (2.0 * bits - 1).reshape(rows, -1), labels


class InductiveBias(Experiment):
    """T can be read from A or B, T' from A or C; each has rows of its own.

    Rows in which A and the other code disagree show which one a network has learned.
    """

    name = "inductive bias"

    def __init__(self, backprop: Backprop) -> None:
        self.backprop = backprop

    def settings(self, seeds: int, quick: bool) -> list[Setting]:
        """Five networks per seed: each goes one way or the other."""
        return [{"seeds": seeds * (1 if quick else 5), "quick": quick}]

    def trainings(self, setting: Setting) -> dict[str, Callable[[], Training]]:
        """A task alone, and both with codes that differ."""
        return {arm: partial(self._training, setting, codes) for arm, codes in ARMS.items()}

    def _training(self, setting: Setting, codes: tuple[str, str]) -> Training:
        rows = 60 if setting["quick"] else 200
        samples = [_sample(seed, codes, rows) for seed in range(setting["seeds"])]
        tasks = [Task("T", "binary", (0, 1)), Task("T'", "binary", (0, 1))]
        return self.backprop.training(samples, tasks, HIDDEN)

    def measure(self, setting: Setting, arm: str, training: Training) -> Rows:
        """The share of rows in conflict in which a task follows A."""
        found = []
        for task, (codes, other) in enumerate(zip(ARMS[arm], "BC", strict=True)):
            drawn = [conflict(np.random.default_rng([15, s]), other, TEST) for s in range(setting["seeds"])]
            said = outputs(best(training, task), np.stack([inputs for inputs, _ in drawn]))[task][..., 0]
            follows = ((said > 0) == np.stack([labels for _, labels in drawn])).mean(1)
            found += [row(arm, s, f"task {task} follows A", f) for s, f in enumerate(follows) if len(codes) == 2]
        return found

    def findings(self, rows: pandas.DataFrame) -> list[Finding]:
        """How the company of another task changes what is learned."""
        source = "Caruana 1997, section 4.4"
        said = [
            ("T follows A, with T' - alone", 0, "both, A serves both", "T alone", "positive"),
            ("T' follows A, with T - alone", 1, "both, A serves both", "T' alone", "positive"),
            ("T' follows A, where T needs A - alone", 1, "T needs A", "T' alone", "positive"),
            ("T' follows A, where T needs B - alone", 1, "T needs B", "T' alone", "negative"),
        ]
        lines = []
        for what, task, arm, alone, claim in said:
            one, other = (values(rows, arm=a, measure=f"task {task} follows A") for a in (arm, alone))
            lines.append(Finding(what, None, tuple(one - other), "", claim, source))
        return lines

    def draw(self, rows: pandas.DataFrame, axes: Axes) -> None:
        """The shares, arm by arm."""
        found = {
            f"{arm}\n{('T', chr(84) + chr(39))[task]}": values(rows, arm=arm, measure=f"task {task} follows A")
            for arm in ARMS
            for task in (0, 1)
        }
        found = {name: shares for name, shares in found.items() if len(shares)}
        axes.boxplot(list(found.values()), tick_labels=list(found), orientation="horizontal")
        axes.set(title="Inductive bias", xlabel="share of rows that follow A")


def _sample(seed: int, codes: tuple[str, str], rows: int) -> Sample:
    """Rows of both tasks, each labelled for its own; as many halt as train."""
    parts = []
    for task, told in enumerate(codes):
        random = np.random.default_rng([14, task, seed])  # a task has the same rows alone and in company
        inputs, labels = draw(random, told, 2 * rows)
        marks = np.full((2 * rows, 2), np.nan)
        marks[:, task] = labels if told else np.nan
        parts.append((inputs.reshape(2, rows, -1), marks.reshape(2, rows, 2)))
    inputs = np.concatenate([inputs for inputs, _ in parts], 1).reshape(4 * rows, -1)
    return Sample(inputs, np.concatenate([marks for _, marks in parts], 1).reshape(4 * rows, 2), 2 * rows)
