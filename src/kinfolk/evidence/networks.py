"""Trained networks as predictors: each task by the snapshot of its best epoch, averaged over members."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kinfolk import replicas
from kinfolk.data.losses import link
from kinfolk.data.tasks import Task
from kinfolk.evidence.features import Preparation
from kinfolk.sharing.base import Sharing
from kinfolk.training.loop import Parts, Training

CHUNK = 65_536  # rows times copies that are predicted at once


@dataclass(frozen=True)
class Part:
    """Copies of one network that predict some of the tasks.

    Attributes
    ----------
    model
        member x task copies, member first: each task is read from the copy that was taken at its best epoch.
    columns
        Positions of the tasks it predicts.
    """

    model: Sharing
    columns: tuple[int, ...]


@dataclass(frozen=True)
class NetworkPredictor:
    """Networks that are averaged.

    Attributes
    ----------
    parts
        One for all tasks, or (single-task) one per task.
    preparation
        From encoded columns to network inputs.
    tasks
        All tasks of the problem.
    scale
        ``[task, 2]``: mean and deviation by which regression targets were standardised.
    members
        How many networks are averaged.
    epochs
        Mean epochs until a task's best.
    """

    parts: tuple[Part, ...]
    preparation: Preparation
    tasks: tuple[Task, ...]
    scale: Float[np.ndarray, "task 2"]
    members: int = 1
    epochs: float = math.nan

    @property
    def parameters(self) -> int:
        """Trainable numbers of one network (all tasks' networks together where each has its own)."""
        return sum(
            sum(p.numel() for p in part.model.parameters()) // (self.members * len(part.columns)) for part in self.parts
        )

    @torch.no_grad()
    def predict(self, inputs: Float[np.ndarray, "row feature"]) -> list[np.ndarray | None]:
        """One ``[row, size]`` per task; None for a task that no part predicts."""
        x = self.preparation.transform(inputs)
        found: list[np.ndarray | None] = [None] * len(self.tasks)
        for part in self.parts:
            like = next(part.model.parameters())  # on its device, in its precision
            size = max(64, CHUNK // (self.members * len(part.columns)))
            chunks = [[p.cpu().numpy() for p in self.averaged(part, rows.to(like))] for rows in x.split(size)]
            for slot, column in enumerate(part.columns):
                found[column] = np.concatenate([chunk[slot] for chunk in chunks])
        return found

    def averaged(self, part: Part, x: Tensor) -> list[Tensor]:
        """What a part predicts from network inputs ``[row, feature]``: one ``[row, size]`` per column, over members."""
        copies = self.members * len(part.columns)
        outputs = part.model(x.expand(copies, *x.shape)).tasks
        predictions = []
        for slot, column in enumerate(part.columns):
            task = self.tasks[column]
            output = outputs[slot].unflatten(0, (self.members, -1))[:, slot]
            mean, deviation = self.scale[column]
            if task.numeric:
                output = output * deviation + mean
            predictions.append(link(task.kind, output).mean(0))
        return predictions

    def state(self) -> dict[str, np.ndarray]:
        """All learned numbers, by name."""
        arrays = {f"preparation/{name}": array for name, array in self.preparation.state().items()}
        arrays["scale"], arrays["members"] = self.scale, np.array(self.members)
        for part in self.parts:
            before = f"part{part.columns[0]}/"
            arrays |= {f"{before}{name}": t.detach().cpu().numpy() for name, t in replicas.tensors(part.model)}
        return arrays


def from_state(state: Mapping[str, np.ndarray], tasks: tuple[Task, ...], parts: Parts) -> NetworkPredictor:
    """The inverse of :meth:`NetworkPredictor.state`.

    Parameters
    ----------
    state
        What was stored.
    tasks
        All tasks of the problem.
    parts
        Fresh trunk and sharing of the arm; no number of them is used.

    Raises
    ------
    ValueError
        If the numbers do not fit the arm.
    """
    stored = {n.removeprefix("preparation/"): a for n, a in state.items() if n.startswith("preparation/")}
    preparation = Preparation.from_state(stored)
    width = preparation.transform(np.zeros((1, len(preparation.shift)))).shape[1]
    members, scale = int(state["members"]), np.asarray(state["scale"])
    if scale.shape != (len(tasks), 2):
        raise ValueError(f"it holds scales {scale.shape} for {len(tasks)} tasks")
    made = []
    for columns in parts.sharing.problems(tasks):
        before = f"part{columns[0]}/"
        held = {n.removeprefix(before): torch.from_numpy(a) for n, a in state.items() if n.startswith(before)}
        if not held:  # could not be trained: no label in some fold, or its loss was not finite
            continue
        fresh = copy.deepcopy(parts.sharing).setup(parts.trunk, [tasks[c] for c in columns], torch.Size([width]))
        sizes = {n: len(t) * members * len(columns) for n, t in replicas.tensors(fresh)}
        replicas.load(fresh, held | {n: b for n, b in fresh.named_buffers() if not b.ndim})
        if members < 1 or any(len(t) != sizes[n] for n, t in replicas.tensors(fresh)):
            raise ValueError(f"its tensors must be those of {members} members")
        made.append(Part(fresh.eval().requires_grad_(False), columns))
    return NetworkPredictor(tuple(made), preparation, tasks, scale, members)


def members_of(training: Training) -> list[Sharing | None]:
    """Each replica's snapshots as a network of one copy per task; None where a replica has none.

    A replica without snapshots failed, or was stopped before its first epoch ended.
    """
    empty = copy.deepcopy(training.network.model)
    common = {name: buffer for name, buffer in empty.named_buffers() if not buffer.ndim}
    if training.replicas:  # those that have retired are gone from the network, not from the snapshots
        replicas.select(empty, torch.zeros(training.replicas, dtype=torch.bool))
    found: list[Sharing | None] = []
    for replica, best in enumerate(training.stopping.best):
        model = cast(Sharing, copy.deepcopy(empty))
        replicas.load(model, training.stopping.snapshot(replica) | common)
        usable = bool(torch.isfinite(best).all())
        found.append(model.eval().requires_grad_(False) if usable else None)
    return found


def handed_over(model: Sharing, columns: tuple[int, ...]) -> Part:
    """What is handed over of a network with a copy per task: without auxiliary tasks of its own making."""
    plain = model.handed_over
    if plain is model or plain.made_for is None:
        return Part(model, columns)
    kept = torch.arange(len(columns)) < len(plain.made_for.tasks)
    replicas.select(plain, kept)
    return Part(plain, columns[: int(kept.sum())])


def mean(predictors: Sequence[NetworkPredictor]) -> NetworkPredictor:
    """One stacked predictor that averages the given ones (same arm and setting, one preparation).

    It predicts the tasks that all of them predict.
    """
    first = predictors[0]
    parts = []
    for part in first.parts:
        same = [other.model for p in predictors for other in p.parts if other.columns == part.columns]
        if len(same) == len(predictors):
            parts.append(Part(replicas.stack([copy.deepcopy(model) for model in same]), part.columns))
    members = sum(p.members for p in predictors)
    return replace(first, parts=tuple(parts), members=members, epochs=float(np.mean([p.epochs for p in predictors])))
