"""Stacks of networks that train in step: their problem, learning curves, what was learned, and checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch

from kinfolk.data.problem import Problem
from kinfolk.evidence.features import Preparation
from kinfolk.evidence.jobs import Rows, Surroundings, nothing_learned
from kinfolk.evidence.networks import Part, handed_over, members_of
from kinfolk.quantities import Quantity
from kinfolk.training import checkpoints
from kinfolk.training.loop import Learned, Parts, Replica, Training
from kinfolk.training.schedule import Schedule

CURVE_POINTS = 100
LEARNED_ROWS = 20_000  # of one quantity and setting: a large one is kept at fewer updates


@dataclass(frozen=True)
class Stack:
    """Replicas that train side by side, and whose they are.

    Attributes
    ----------
    problem, preparation
        What they learn, and how its inputs were made.
    makers
        Make the parts of each.
    members
        (number of the job, replica) of each.
    schedule
        How long they train.
    settings
        Each one's setting.
    """

    problem: Problem
    preparation: Preparation
    makers: Sequence[Callable[[], Parts]]
    members: Sequence[tuple[int, Replica]]
    schedule: Schedule
    settings: Sequence[int]

    @cached_property
    def training(self) -> Training:
        """The training of all members, made when it is first asked for."""
        makers = iter(self.makers)
        return Training(self.problem, lambda: next(makers)(), [m for _, m in self.members], self.schedule)

    def networks(self) -> dict[int, list[Part]]:
        """What was trained, job by job; a replica without a usable snapshot is left out."""
        found: dict[int, list[Part]] = {}
        for (job, member), model in zip(self.members, members_of(self.training), strict=True):
            if model is not None:
                found.setdefault(job, []).append(handed_over(model, member.columns))
        return found

    def of(self, job: int) -> list[int]:
        """The members of a job."""
        return [i for i, (j, _) in enumerate(self.members) if j == job]

    def epochs(self, job: int) -> list[float]:
        """Passes over its rows that each member of a job made until a task's best."""
        own = self.of(job)
        updates = self.training.stopping.best_update[own].double().mean(1).tolist() if own else []
        return [u * self.schedule.batch / len(self.members[i][1].train) for i, u in zip(own, updates, strict=True)]

    def failures(self) -> list[tuple[int, str, int]]:
        """(job, task, epoch) of each member whose loss became NaN or infinite."""
        return [
            (
                self.members[f.replica][0],
                self.problem.tasks[self.members[f.replica][1].columns[f.task]].name,
                f.update // self.schedule.every,
            )
            for f in self.training.failures
        ]

    def curves(self) -> list[dict[str, Any]]:
        """Learning curves averaged over the members of a setting, thinned to some hundred points."""
        history = self.training.history
        wanted = np.unique(np.linspace(0, len(history) - 1, min(len(history), CURVE_POINTS)).astype(int))
        rows = []
        for at in wanted:
            updates, numbers, train, stop, weight = (t.numpy() for t in history[at])
            groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
            for i, number in enumerate(numbers):
                for slot, column in enumerate(self.members[number][1].columns):
                    groups.setdefault((self.settings[number], column), []).append((i, slot))
            for (setting, column), cells in groups.items():
                mean = [_mean([float(table[i, slot]) for i, slot in cells]) for table in (stop, train, weight)]
                rows.append(
                    {"setting": setting, "task": self.problem.tasks[column].name, "update": int(updates[0])}
                    | dict(zip(("stop_loss", "train_loss", "weight"), mean, strict=True))
                )
        return rows

    def learned(self) -> pd.DataFrame:
        """What was learned beside weights, averaged over the members of a setting that learn the same tasks.

        A member that has ended counts with what it had last, as long as another one goes on; one that failed does not
        count. ``setting`` is a number here.
        """
        failed = {failure.replica for failure in self.training.failures}
        groups: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for number, (_, member) in enumerate(self.members):
            if number not in failed:
                groups.setdefault((self.settings[number], member.columns), []).append(number)
        noted = self.training.learned
        names = dict.fromkeys(name for one in noted for name in one.quantities)
        parts = [
            part.assign(setting=setting)
            for name in names
            for (setting, columns), own in groups.items()
            for part in self._averaged(name, [one for one in noted if name in one.quantities], columns, own)
        ]
        return pd.concat(parts, ignore_index=True) if parts else nothing_learned()

    def _averaged(
        self, name: str, noted: Sequence[Learned], columns: tuple[int, ...], own: list[int]
    ) -> Iterator[pd.DataFrame]:
        """A quantity of some members after each update at which one of them still trained."""
        first = noted[0].quantities[name]
        quantity, lines, across = self._labels(name, first, columns)
        known = np.full((self.training.members, *first.values.shape[1:]), np.nan)
        alive = [one for one in noted if np.isin(own, one.numbers).any()]
        most = max(1, LEARNED_ROWS // max(1, known[0].size))
        kept = np.linspace(len(alive) - 1, 0, min(len(alive), most)).astype(int)  # the last one always
        for at, one in enumerate(alive):
            known[one.numbers] = one.quantities[name].values
            if at in kept:
                values = _mean_known(known[own]).reshape(-1)
                labels = {"line": np.repeat(lines, len(across)), "column": np.tile(across, len(lines))}
                yield pd.DataFrame({"update": one.updates, "quantity": quantity, **labels, "value": values})

    def _labels(self, name: str, quantity: Quantity, columns: tuple[int, ...]) -> tuple[str, list[str], list[str]]:
        """A quantity's name, lines and columns for members that learn some tasks.

        All members of a stack bear the names of the first one's tasks. Where tasks are problems of their own and
        neither lines nor columns tell them apart, the name does.
        """
        name_of = [task.name for task in self.problem.tasks]
        own = [name_of[c] for c in columns]
        named = dict(zip([name_of[c] for c in self.members[0][1].columns], own, strict=True))
        lines, across = ([named.get(text, text) for text in side] for side in (quantity.lines, quantity.columns))
        told = len(own) == len(name_of) or {*own} <= {*lines} or {*own} <= {*across}
        return name if told else f"{name} ({', '.join(own)})", lines, across


def target_scale(rows: Rows) -> np.ndarray:
    """Mean and deviation of each target of numbers, ``[task, 2]``; (0, 1) for classes."""
    scale = np.tile([0.0, 1.0], (len(rows.tasks), 1))
    for t, task in enumerate(rows.tasks):
        known = rows.labels[~np.isnan(rows.labels[:, t]), t]
        if task.numeric and len(known):
            scale[t] = known.mean(), known.std() or 1.0
    return scale


def problem_of(rows: Rows, preparation: Preparation, scale: np.ndarray, device: str) -> Problem:
    """The labelled rows, and below them those without labels, within the range of the others.

    A squared error of their inputs would make the most of the farthest of them.
    """
    inputs, weight = preparation.transform(rows.inputs), rows.weight
    labels = (rows.labels - scale[:, 0]) / scale[:, 1]
    if rows.unlabelled is not None and rows.unlabelled_weight is not None:
        low, high = inputs.min(0).values, inputs.max(0).values
        inputs = torch.cat([inputs, preparation.transform(rows.unlabelled).clamp(low, high)])
        labels = np.vstack([labels, np.full((len(rows.unlabelled), labels.shape[1]), np.nan)])
        weight = np.concatenate([weight, rows.unlabelled_weight])
    return Problem.from_arrays(inputs, labels, rows.tasks, weight / rows.weight.mean(), device)


def train_together(stacks: Sequence[Stack], around: Surroundings) -> None:
    """Trains the stacks of one arm to the end, from their checkpoints if there are any.

    Parameters
    ----------
    stacks
        One after the other; each is a computation of its own.
    around
        Folder for checkpoints, deadline, and whether a network is kept at one epoch for all tasks.
    """
    for i, stack in enumerate(stacks):
        name = f"checkpoint{i}.safetensors"
        stack.training.stopping.together = around.together
        checkpoints.run(stack.training, around.folder, name, around.deadline)


def _mean(values: Sequence[float]) -> float:
    """The mean of what is known; NaN where nothing is."""
    known = [v for v in values if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan


def _mean_known(values: np.ndarray) -> np.ndarray:
    """The mean over the first axis of what is known; NaN where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(0)
    return np.where(count, np.where(known, values, 0.0).sum(0) / np.maximum(count, 1), np.nan)
