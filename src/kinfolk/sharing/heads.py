"""A task's own last layer; heads of one shape are slices of one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from kinfolk.data.tasks import Task
from kinfolk.replicas import own, stack
from kinfolk.sharing.base import Outputs
from kinfolk.trunks.stages import Linear


class Heads(nn.Module):
    """One linear layer per task.

    Parameters
    ----------
    tasks
        T tasks.
    size
        Features that each head reads: one number, or one per task.
    spread
        Deviation of normal initial weights, with biases of 0; None: as torch's layers start.

    Attributes
    ----------
    layers
        One :class:`~kinfolk.trunks.stages.Linear` per shape, with a slice per task.
    groups
        The positions of the tasks in each layer.
    """

    def __init__(self, tasks: Sequence[Task], size: int | Sequence[int], spread: float | None = None) -> None:
        super().__init__()
        sizes = [size] * len(tasks) if isinstance(size, int) else list(size)
        groups: dict[tuple[int, int], list[int]] = {}
        for i, task in enumerate(tasks):
            groups.setdefault((task.size, sizes[i]), []).append(i)
        self.groups = tuple(map(tuple, groups.values()))
        self.layers = nn.ModuleList([stack([_head(sizes[i], tasks[i], spread) for i in at]) for at in self.groups])

    def forward(self, features: Sequence[Tensor]) -> Outputs:
        """One output per task from what each head reads, ``[replica, row, feature]``."""
        outputs: list[Tensor] = [features[0]] * len(features)
        weights = list(outputs)
        for layer, at in zip(self.layers, self.groups, strict=True):
            slices = cast(Tensor, layer.weight).detach().unflatten(0, (-1, len(at))).unbind(1)
            for i, output, weight in zip(
                at, _read(cast(Linear, layer), [features[i] for i in at]), slices, strict=True
            ):
                outputs[i], weights[i] = output, weight
        return Outputs(outputs, features, weights)


def _head(size: int, task: Task, spread: float | None) -> Linear:
    with own(f"head {task.name}"):
        layer = Linear(size, task.size)
        if spread is not None:
            nn.init.normal_(layer.weight, std=spread)
            nn.init.zeros_(layer.bias)
    return layer


def _read(layer: Linear, features: list[Tensor]) -> Sequence[Tensor]:
    if all(x is features[0] for x in features):
        return layer.fan(features[0])
    return layer(torch.stack(features, 1).flatten(0, 1)).unflatten(0, (-1, len(features))).unbind(1)
