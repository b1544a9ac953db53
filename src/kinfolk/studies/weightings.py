"""Tasks of different scale that read the same hidden features, and how weightings of their losses compare."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinfolk.data.losses import row_losses
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.training.loop import Training

if TYPE_CHECKING:
    import pandas

Array = NDArray[Any]
FEATURES, HIDDEN, CLASSES = 20, 12, 5
NOISE = {"far": 0.5, "near": 0.2}  # relative to the deviation of what can be predicted
FAR, NEAR = Task("far", "regression"), Task("near", "regression")
CLASS = Task("class", "multiclass", tuple(range(CLASSES)))
TASKS = {2: (FAR, CLASS), 3: (FAR, NEAR, CLASS)}


def problem(tasks: int, seeds: int, rows: int, far: float, near: float) -> Problem:
    """The rows of all seeds, one seed after the other.

    Parameters
    ----------
    tasks
        2 or 3.
    seeds
        How many; each has functions of its own.
    rows
        Of each seed.
    far, near
        The deviation of what can be predicted of the two regressions.
    """
    parts = [_drawn(seed, rows, {"far": far, "near": near}) for seed in range(seeds)]
    labels = [np.concatenate([part[task.name] for part in parts]) for task in TASKS[tasks]]
    return Problem.from_arrays(np.concatenate([part["inputs"] for part in parts]), labels, TASKS[tasks])


def _drawn(seed: int, rows: int, scales: dict[str, float]) -> dict[str, Array]:
    law = np.random.default_rng(seed)
    inputs = law.normal(size=(rows, FEATURES))
    hidden = np.tanh(inputs @ law.normal(0, 1.5 / FEATURES**0.5, (FEATURES, HIDDEN)))
    made = {"inputs": inputs}
    for name, scale in scales.items():
        signal = hidden @ law.normal(size=HIDDEN)
        made[name] = scale * (signal / signal.std() + NOISE[name] * law.normal(size=rows))
    logits = hidden @ law.normal(size=(HIDDEN, CLASSES))
    made["class"] = (2 * logits / logits.std() + law.gumbel(size=logits.shape)).argmax(1)
    return made


def places(seed: int, rows: Sequence[int]) -> tuple[Tensor, ...]:
    """Where a seed's rows stand in the problem: those to train, to choose by, to test."""
    return torch.arange(seed * sum(rows), (seed + 1) * sum(rows)).split(list(rows))


def relative(training: Training, learned: Tensor, judged: Tensor, columns: Sequence[int]) -> Tensor:
    """Losses in percent of those of a constant prediction, ``[replica, task]``.

    Parameters
    ----------
    training
        Its networks.
    learned
        Rows ``[replica, row]`` that the constant is taken from.
    judged
        Rows ``[replica, row]`` whose losses are taken.
    columns
        Positions of the tasks.
    """
    each = torch.tensor([list(columns)] * len(judged))
    with torch.no_grad():
        outputs = training.network.model(training.problem.inputs[judged]).tasks
    targets, seen = (training.problem.batch(rows, each).targets for rows in (judged, learned))
    constant = [
        _constant(task, labels).unsqueeze(1).expand_as(output)
        for task, labels, output in zip(training.tasks, seen, outputs, strict=True)
    ]
    losses, least = (row_losses(training.tasks, made, targets).mean(1) for made in (outputs, constant))
    return 100 * losses / least


def _constant(task: Task, labels: Tensor) -> Tensor:
    """The best output that reads no inputs, ``[replica, size]``: the mean, or log shares of the classes."""
    if task.kind == "regression":
        return labels.mean(1, keepdim=True)
    shares = torch.stack([(labels == c).float().mean(1) for c in range(task.size)], 1)
    return shares.clamp(min=1e-3).log()


class Errors:
    """What was measured with one number of tasks, for each arm at the learning rates that are best on validation rows.

    Parameters
    ----------
    rows
        Those of all trials, with ``tasks``, ``arm``, ``point``, ``rate``, ``speed``, ``seed``, ``task``, ``measure``,
        ``value``.
    tasks
        Which of them.
    """

    def __init__(self, rows: pandas.DataFrame, tasks: int) -> None:
        self._rows: Any = rows[rows["tasks"] == tasks]
        self.names = [task.name for task in TASKS[tasks]]
        self.seeds = sorted(self._rows["seed"].unique())

    def of(self, arm: str, measure: str = "test") -> Array:
        """``[point, seed, task]``; all arms but a grid have one point. NaN where every training failed."""
        chosen = self._every(arm, "validation").mean(-1)
        best = np.where(np.isfinite(chosen), chosen, np.inf).argmin(-1)
        return np.take_along_axis(self._every(arm, measure), best[..., None, None], 2).squeeze(2)

    def alone(self, arm: str, measure: str = "test") -> Array:
        """``[point, seed, task]`` of an arm in which each task has a network, and so a rate, of its own."""
        chosen = self._every(arm, "validation")
        best = np.where(np.isfinite(chosen), chosen, np.inf).argmin(2)
        return np.take_along_axis(self._every(arm, measure), best[:, :, None], 2).squeeze(2)

    def chosen(self, arm: str) -> Array:
        """The test errors of the point that is best on validation rows, ``[seed, task]``."""
        seen = self.of(arm, "validation").mean(-1)
        best = np.where(np.isfinite(seen), seen, np.inf).argmin(0)
        return self.of(arm)[best, np.arange(len(best))]

    def grid(self, arm: str) -> list[tuple[float, ...]]:
        """The points of a grid: log10 of the weights of the regressions over that of the classes."""
        powers = [f"log10 weight of {name}" for name in self.names[:-1]]
        mine = self._rows[self._rows["arm"] == arm].drop_duplicates("point").sort_values("point")
        return [tuple(point) for point in mine[powers].to_numpy().tolist()]

    def _every(self, arm: str, measure: str) -> Array:
        """``[point, seed, rate and speed, task]``, NaN where a training failed."""
        mine = self._rows[(self._rows["arm"] == arm) & (self._rows["measure"] == measure)]
        keys = ["point", "seed", "rate", "speed"]
        axes = [range(int(mine["point"].max()) + 1), self.seeds, *(sorted(mine[key].unique()) for key in keys[2:])]
        table = mine.pivot(index=keys, columns="task", values="value").reindex(list(product(*axes)))[self.names]
        return table.to_numpy().reshape(len(axes[0]), len(self.seeds), -1, len(self.names))
