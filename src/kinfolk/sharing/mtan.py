"""Multi-task attention: a mask per task over the features of a shared trunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinfolk.data.tasks import Task
from kinfolk.quantities import Quantity
from kinfolk.replicas import own, stack
from kinfolk.sharing.base import Outputs, Sharing, last_with_parameters
from kinfolk.sharing.heads import Heads
from kinfolk.trunks.base import Trunk
from kinfolk.trunks.stages import BatchNorm, Chain, Each, Pointwise

POOLS = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}


class Attention(nn.Module):
    """One task's mask over what one stage gives.

    Parameters
    ----------
    read, given
        Channels of what it reads, and of what it masks.
    before
        Channels that the task attended to at the stage before; 0 at the first stage.
    hidden
        Channels between its two layers.
    """

    def __init__(self, read: int, given: int, before: int, hidden: int) -> None:
        super().__init__()
        self.bring = Chain(Pointwise(before, given), BatchNorm(given), _relu()) if before else None
        first = Pointwise(read + given if before else read, hidden)
        second = Pointwise(hidden, given)
        squash = Each(torch.sigmoid, elementwise=True)
        self.mask = Chain(first, BatchNorm(hidden), _relu(), second, BatchNorm(given), squash)

    def forward(self, x: Tensor, attended: Tensor | None) -> Tensor:
        """In [0, 1], one number for each of the stage's."""
        if self.bring is not None and attended is not None:
            x = torch.cat([x, _fit(self.bring(attended), x.shape[3:])], 2)
        return self.mask(x)


class Mtan(Sharing):
    """One trunk for all tasks; each task looks at the features of every stage through a mask of its own.

    With u what a stage reads and p what it gives, a task's mask is ``sigmoid(BN W2 relu(BN W1 [u; f(a)]))`` and its
    attended features are ``mask * p``, where a are those of the stage before, and f brings them to the shape of p.
    W1, W2 and f work on channels (1x1 convolutions); on images f also pools by the maximum. A head reads what its
    task attended to at the last stage.

    In the paper a block has several convolutions, u is the feature after the first and p the one after the last, and
    f is a 3x3 convolution. A stage here may be a single layer, of any kind, so u is the stage's input; where the
    stage changes the size of images, or turns them into features, u is p itself.

    Parameters
    ----------
    reduction
        Channels of p divided by those between W1 and W2, at least 1. 1 is the paper's; 4 saves in wide trunks.

    Raises
    ------
    ValueError
        If ``reduction`` is less than 1.

    References
    ----------
    S. Liu, E. Johns, A. J. Davison (2019). End-to-end multi-task learning with attention. CVPR.
    """

    def __init__(self, reduction: int = 1) -> None:
        super().__init__()
        if reduction < 1:
            raise ValueError(f"`reduction` must be at least 1. Got {reduction}.")
        self.reduction = reduction

    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> Mtan:
        """One trunk; a mask per stage and a head for each task."""
        with own("trunk"):
            stages = trunk.build(inputs)
        self._tasks = tuple(task.name for task in tasks)
        self.trunk = nn.ModuleList(stages.modules)
        shapes = [inputs, *stages.shapes]
        self._reads_input = [u[1:] == p[1:] for u, p in pairwise(shapes)]
        self.attention = nn.ModuleList(
            stack([self._attention(shapes, i, name) for name in self._tasks]) for i in range(len(self.trunk))
        )
        self.heads = Heads(tasks, stages.sizes[-1])
        self._seen: Tensor | None = None
        return self

    def _attention(self, shapes: Sequence[torch.Size], i: int, task: str) -> Attention:
        given = shapes[i + 1][0]
        read = shapes[i][0] if self._reads_input[i] else given
        with own(f"attention {i} {task}"):
            return Attention(read, given, shapes[i][0] if i else 0, max(1, given // self.reduction))

    def forward(self, inputs: Tensor, preference: Tensor | None = None) -> Outputs:
        """One output per task."""
        x, attended, means = inputs, None, []
        for stage, attention, reads_input in zip(self.trunk, self.attention, self._reads_input, strict=True):
            u, x = x, stage(x)
            mask = attention(self._spread(u if reads_input else x), attended)
            means.append(mask.detach().flatten(1).mean(1).unflatten(0, (len(x), -1)))
            attended = (mask.unflatten(0, (len(x), -1)) * x.unsqueeze(1)).flatten(0, 1)
        self._seen = torch.stack(means, -1)
        features = cast(Tensor, attended).flatten(2).unflatten(0, (len(x), -1))
        return cast(Outputs, self.heads(features.unbind(1)))

    def _spread(self, x: Tensor) -> Tensor:
        """The same for every task: ``[replica, row, ...]`` -> ``[replica x task, row, ...]``."""
        return x.unsqueeze(1).expand(-1, len(self._tasks), *x.shape[1:]).flatten(0, 1)

    def learned(self) -> Mapping[str, Quantity]:
        """The mean mask of each stage in the last forward pass; a half before it."""
        values = self._seen
        if values is None:
            replicas = len(cast(BatchNorm, cast(Attention, self.attention[0]).mask[1]).weight) // len(self._tasks)
            values = torch.full((replicas, len(self._tasks), len(self.trunk)), 0.5)
        return {"masks": Quantity(values, self._tasks, tuple(f"stage {i + 1}" for i in range(len(self.trunk))))}

    def last_shared(self) -> list[nn.Parameter]:
        """The last stage of the trunk that has parameters."""
        return last_with_parameters(self.trunk)


def _relu() -> Each:
    return Each(torch.relu, elementwise=True)


def _fit(x: Tensor, size: torch.Size) -> Tensor:
    """``[copy, row, channel, ...]`` at another size: pooled by the maximum, or averaged where images end or begin."""
    if x.shape[3:] == size:
        return x
    if x.ndim - 3 == len(size) and len(size) in POOLS:
        return POOLS[len(size)](x.flatten(0, 1), tuple(size)).unflatten(0, x.shape[:2])
    mean = x.unsqueeze(-1).flatten(3).mean(3)
    return mean.view(*mean.shape, *[1] * len(size)).expand(*mean.shape, *size)
