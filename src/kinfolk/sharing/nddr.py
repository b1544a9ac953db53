"""NDDR: after a stage, each task reads a learned linear map of all tasks' channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinfolk.data.problem import Batch
from kinfolk.data.tasks import Task
from kinfolk.quantities import Quantity
from kinfolk.replicas import own, stack
from kinfolk.sharing.base import Outputs, Sharing
from kinfolk.sharing.copies import Copies, Joined, check_shares, chosen, phases_of, shares
from kinfolk.sharing.heads import Heads
from kinfolk.trunks.base import Trunk
from kinfolk.trunks.stages import BatchNorm, Pointwise, fold, unfold

POOLING = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


class Nddr(Sharing):
    """A trunk per task; after a stage, each task's features become a 1x1 convolution of those of all tasks.

    The features of all tasks stand side by side on the channel axis; each task maps them back to its number of
    channels and normalises over the batch ("neural discriminative dimensionality reduction"). A cross-stitch unit is
    the case in which each block of this map is a multiple of the identity.

    Differs from the authors' program: batch norm's running statistics take 0.1 of each batch (there 0.05); a ReLU
    after it is an option, as it is right only for stages that end in one; the shortcut shrinks maps by average
    pooling (there bilinear); weight decay is that of the training. For more than two tasks ``other`` is spread evenly.

    Parameters
    ----------
    same, other
        The map starts as ``same`` times a task's own features plus ``other`` times the mean of the others', both in
        [0, 1].
    shortcut
        What the head reads is a 1x1 convolution of the outputs after all fusions, not of the last alone.
    relu
        A ReLU after the batch norm.
    rate
        Factor of the learning rate of the fusions. The authors' is 100, under SGD; AdamW scales every step.
    start
        "independent": a first phase trains the trunks apart, and fusion comes in a second one, as in the paper. None:
        all start at once, from random weights.
    alike
        All trunks start from the same weights, so that the channels of one number mean something alike.
    stages
        After which stages to fuse, from 0; None: after each. In the paper after each pooling.

    Raises
    ------
    ValueError
        For a value outside its range, and in ``setup`` for a stage that does not exist.

    References
    ----------
    Y. Gao, J. Ma, M. Zhao, W. Liu, A. L. Yuille (2019). NDDR-CNN: layerwise feature fusing in multi-task CNNs by neural
    discriminative dimensionality reduction. CVPR, 3205-3214.
    """

    def __init__(
        self,
        same: float | int = 0.9,
        other: float | int = 0.1,
        shortcut: bool = False,
        relu: bool = False,
        rate: float | int = 1.0,
        start: str | None = None,
        alike: bool = True,
        stages: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_shares(same=same, other=other)
        if not rate >= 0:
            raise ValueError(f"`rate` must not be negative. Got {rate}.")
        self.same, self.other, self.rate = float(same), float(other), float(rate)
        self.shortcut, self.relu = shortcut, relu
        self.start, self.alike, self.stages = start, alike, stages
        self.phases = phases_of(start)

    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> Nddr:
        """A trunk and a head per task, and fusions between the trunks."""
        self._names = tuple(task.name for task in tasks)
        self.trunks = Copies(trunk, inputs, ["" if self.alike else name for name in self._names])
        shapes = self.trunks.shapes
        self._at = chosen(self.stages, len(shapes))
        self.joined = Joined(self.start)
        start = shares(len(tasks), self.same, self.other)
        self.fusions = nn.ModuleList([Fusion(self._names, shapes[i][0], start, self.relu) for i in self._at])
        self._read = sorted({*self._at, len(shapes) - 1})
        if self.shortcut:
            self.short = stack([self._short([shapes[i] for i in self._read], name) for name in self._names])
        self.heads = Heads(tasks, shapes[-1].numel())
        return self

    def _short(self, shapes: Sequence[torch.Size], name: str) -> Pointwise:
        if any(len(shape) < len(shapes[-1]) or len(shape) > 4 for shape in shapes):
            said = ", ".join(str(tuple(shape)) for shape in shapes)
            raise ValueError(f"`shortcut` must be able to pool each stage's output to the last one's size. Got {said}.")
        with own(f"shortcut {name}"):
            return Pointwise(sum(shape[0] for shape in shapes), shapes[-1][0])

    def rates(self, phase: int) -> Mapping[str, float]:
        """The fusions' own factor."""
        return {"fusions": self.rate}

    def at_phase(self, phase: int, outputs: Outputs, batch: Batch) -> None:
        """Fuses the trained trunks."""
        self.joined.now.fill_(True)

    def forward(self, inputs: Tensor, preference: Tensor | None = None) -> Outputs:
        """One output per task, each from its own trunk with what it takes from the others."""
        x, fusions, after = self.trunks.spread(inputs), dict(zip(self._at, self.fusions, strict=True)), {}
        for i in range(len(self.trunks.stages)):
            x = self.trunks.run(i, x)
            if i in fusions:
                x = self.joined(x, fusions[i])
            after[i] = x
        if self.shortcut:
            short = self.get_submodule("short")
            x = self.joined(x, lambda last: short(torch.cat([_pooled(after[i], last) for i in self._read], 2)))
        return self.heads(self.trunks.apart(x).flatten(3).unbind(1))

    def learned(self) -> Mapping[str, Quantity]:
        """After each stage, how much a task (line) takes of each task (column): the root mean square of the block.

        For a multiple of the identity this is its factor.
        """
        found = {}
        for i, fusion in zip(self._at, self.fusions, strict=True):
            n, weight = len(self._names), fusion.get_parameter("weight").detach()
            blocks = weight.unflatten(2, (n, -1)).square().sum((1, 3)) / weight.shape[1]
            found[f"fusion after stage {i}"] = Quantity(blocks.sqrt().unflatten(0, (-1, n)), self._names, self._names)
        return found


class Fusion(nn.Module):
    """Each task's own 1x1 convolution of the channels of all tasks, with batch norm.

    Parameters
    ----------
    names
        Of T tasks.
    channels
        C, of each task before and after.
    start
        ``[task, source]``: the map starts as these multiples of the identity.
    relu
        A ReLU at the end.
    """

    def __init__(self, names: Sequence[str], channels: int, start: Tensor, relu: bool) -> None:
        super().__init__()
        blocks = start[:, None, :, None] * torch.eye(channels).unsqueeze(1)
        self.weight = nn.Parameter(blocks.flatten(2))  # [task, C, T C]; no bias before a batch norm
        norms = []
        for name in names:
            with own(f"fusion {name}"):
                norms.append(BatchNorm(channels))
        self.norm = stack(norms)
        self.relu = relu
        self._n = len(names)

    def forward(self, x: Tensor) -> Tensor:
        """``[replica x task, row, channel, ...]`` -> the same."""
        fused = self.norm(self._mapped(x))
        return F.relu(fused) if self.relu else fused

    def _mapped(self, x: Tensor) -> Tensor:
        replicas, beside = len(x) // self._n, fold(x)  # [row, replica T C, ...]
        if x.ndim > 3:
            weight = self.weight.flatten(0, 1).unsqueeze(-1)
            fused = F.conv1d(beside.flatten(2), weight, groups=replicas).unflatten(2, x.shape[3:])
            return unfold(fused, len(x))
        # The weight first: neither it nor its gradient is then copied, and it is the largest tensor here.
        weight = self.weight.unflatten(0, (replicas, -1)).flatten(1, 2)
        fused = (weight @ beside.unflatten(1, (replicas, -1)).permute(1, 2, 0)).mT.contiguous()
        return fused.unflatten(2, (self._n, -1)).transpose(1, 2).flatten(0, 1)


def _pooled(x: Tensor, last: Tensor) -> Tensor:
    """``[copy, row, channel, ...]`` with the pixels of the last stage's output."""
    if x.shape[3:] == last.shape[3:]:
        return x
    if last.ndim == 3:
        return x.flatten(3).mean(3)
    return POOLING[x.ndim - 3](x.flatten(0, 1), last.shape[3:]).unflatten(0, x.shape[:2])
