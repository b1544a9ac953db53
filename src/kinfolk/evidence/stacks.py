"""Stacks of networks that train in step: learning curves and checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from kinfolk.data.problem import Problem
from kinfolk.evidence.features import Preparation
from kinfolk.evidence.jobs import Surroundings
from kinfolk.evidence.networks import Part, members_of
from kinfolk.exceptions import InputError
from kinfolk.runs import Folder
from kinfolk.training.loop import Parts, Replica, Training
from kinfolk.training.schedule import Schedule

CHECKPOINT_SECONDS = 30.0
CURVE_POINTS = 100


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
                found.setdefault(job, []).append(Part(model, member.columns))
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
        if around.folder is not None and around.folder.has(name):
            stack.training.load(_read(around.folder, name))
        stack.training.run(None, around.deadline, _keeper(around.folder, name))


def _mean(values: Sequence[float]) -> float:
    """The mean of what is known; NaN where nothing is."""
    known = [v for v in values if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan


def _keeper(folder: Folder | None, name: str) -> Callable[[Training], None]:
    """Writes a checkpoint at most every 30 s."""
    if folder is None:
        return lambda training: None
    return partial(_keep, folder, name, [time.monotonic()])


def _keep(folder: Folder, name: str, last: list[float], training: Training) -> None:
    if time.monotonic() - last[0] < CHECKPOINT_SECONDS:
        return
    from safetensors.torch import save

    folder.write_bytes(name, save({n: t.contiguous().cpu().clone() for n, t in training.state().items()}))
    last[0] = time.monotonic()


def _read(folder: Folder, name: str) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(folder.read_bytes(name))
    except SafetensorError as error:
        raise InputError(f"The checkpoint {name} in {folder} is damaged ({error}). Remove it to train anew.") from error
