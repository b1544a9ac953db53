"""How far test error is from training error, against the number of tasks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from kinfolk.data.tasks import Task
from kinfolk.studies.base import Finding
from kinfolk.studies.mechanism import Backprop, Experiment, Rows, Sample, Setting, outputs, row, values
from kinfolk.training.loop import Training

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

INPUTS, SHARED, TEST = 20, 3, 500
ROWS, NOISE = 30, 0.3
COUNTS = (1, 2, 4, 8, 16)


def draw(seed: int, tasks: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels ``[task, row, ...]``: each task mixes the same three hidden functions, on rows of its own.

    The first tasks are the same whatever their number is.
    """
    shared = np.random.default_rng([17, seed])
    units = shared.normal(size=(SHARED, INPUTS))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    inputs, labels = [], []
    for task in range(tasks):
        random = np.random.default_rng([18, task, seed])
        mix = random.normal(size=SHARED)
        x = random.normal(size=(rows, INPUTS))
        clean = np.tanh(2 * x @ units.T) @ (mix / np.linalg.norm(mix))
        inputs.append(x)
        labels.append(clean + NOISE * random.normal(size=rows))
    return np.stack(inputs), np.stack(labels)


class Overfitting(Experiment):
    """N tasks that share a representation, each with as many rows of its own; networks train to the end."""

    name = "tasks against overfitting"

    def __init__(self, backprop: Backprop) -> None:
        self.backprop = backprop

    def trainings(self, setting: Setting) -> dict[str, Callable[[], Training]]:
        """A stack of networks for each number of tasks."""
        counts = COUNTS[:3] if setting["quick"] else COUNTS
        return {f"{count} tasks": partial(self._training, setting, count) for count in counts}

    def _training(self, setting: Setting, count: int) -> Training:
        samples = []
        for seed in range(setting["seeds"]):
            inputs, labels = draw(seed, count, ROWS + TEST)
            marks = np.full((count, ROWS, count), np.nan)
            marks[np.arange(count), :, np.arange(count)] = labels[:, :ROWS]
            sample = inputs[:, :ROWS].reshape(-1, INPUTS)
            samples.append(Sample(sample, marks.reshape(-1, count), len(sample)))
        return self.backprop.training(samples, [Task(f"y{k}", "regression") for k in range(count)], SHARED)

    def measure(self, setting: Setting, arm: str, training: Training) -> Rows:
        """Mean squared errors, mean over tasks; the first task's too."""
        model, count = training.network.model.eval(), len(training.tasks)
        drawn = [draw(seed, count, ROWS + TEST) for seed in range(setting["seeds"])]
        said = outputs(model, np.stack([inputs.reshape(-1, INPUTS) for inputs, _ in drawn]))
        errors = []  # [task][replica, row]
        for task, one in enumerate(said):
            own = one[..., 0].reshape(len(drawn), count, -1)[:, task]
            errors.append((own - np.stack([labels[task] for _, labels in drawn])) ** 2)
        train, test = (np.mean([e[:, part].mean(1) for e in errors], 0) for part in (slice(ROWS), slice(ROWS, None)))
        found = []
        for seed in range(len(drawn)):
            one = {"training error": train[seed], "test error": test[seed], "gap": test[seed] - train[seed]}
            found += [row(arm, seed, measure, value, tasks=count) for measure, value in one.items()]
        return found

    def findings(self, rows: pandas.DataFrame) -> list[Finding]:
        """The gap at each number of tasks, and that it falls."""
        counts = sorted({int(count) for count in rows["tasks"]})
        gaps = [values(rows, tasks=count, measure="gap") for count in counts]
        source = "Baxter 1997"
        lines = [
            Finding(f"test - training error, N = {count}", None, tuple(gap), source=source)
            for count, gap in zip(counts, gaps, strict=True)
        ]
        return lines + [
            Finding(f"gap, N = {count} - N = 1", None, tuple(gap - gaps[0]), "", "negative", source)
            for count, gap in zip(counts[1:], gaps[1:], strict=True)
        ]

    def draw(self, rows: pandas.DataFrame, axes: Axes) -> None:
        """Both errors against the number of tasks."""
        counts = sorted({int(count) for count in rows["tasks"]})
        for measure in ("training error", "test error"):
            means = [values(rows, tasks=count, measure=measure).mean() for count in counts]
            axes.plot(counts, means, "o-", label=measure)
        axes.set(title="Number of tasks", xlabel="N", ylabel="squared error", xscale="log")
        axes.legend(fontsize=6)
