"""A trunk that is told how much each task matters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinfolk.data.tasks import Task
from kinfolk.replicas import own
from kinfolk.sharing.base import Outputs, Sharing, last_with_parameters
from kinfolk.sharing.heads import Heads
from kinfolk.trunks.base import Trunk
from kinfolk.trunks.stages import Chain, Each, Linear

LEAST = 1e-3  # smaller preferences count as this one: their logarithm would drown the others


class Conditioned(Sharing):
    """Hard sharing whose features are scaled and shifted by a function of a preference over tasks (FiLM).

    After each stage ``h <- scale * h + shift`` per feature (of images: per channel), with ``scale = 1 + factor *
    a(log preference)`` and ``shift = factor * b(log preference)``; a and b are networks with one hidden layer. One
    network thus learns many weightings of the losses. Without a preference all tasks have an equal one.

    Parameters
    ----------
    hidden
        Hidden units of the networks that read the preference, at least 1; the paper has 256 and 512.
    factor
        How much they matter at the start, not negative; the paper has 0.1 and 0.01. 0 is hard sharing.

    Raises
    ------
    ValueError
        For a value outside its range, and in ``forward`` for preferences of another shape.

    References
    ----------
    A. Dosovitskiy, J. Djolonga (2020). You only train once: loss-conditional training of deep networks. ICLR.

    There the features are conditioned before the non-linearity of a block; here after the stage, as a stage may be any
    module. Preferences below 0.001 count as 0.001.
    """

    def __init__(self, hidden: int = 64, factor: float | int = 0.1) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"`hidden` must be at least 1. Got {hidden}.")
        if not 0 <= factor < math.inf:
            raise ValueError(f"`factor` must be a number, 0 or more. Got {factor}.")
        self.hidden, self.factor = hidden, float(factor)

    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> Conditioned:
        """One trunk, two small networks per stage, a head per task."""
        with own("trunk"):
            stages = trunk.build(inputs)
        self.trunk = nn.ModuleList(stages.modules)
        self.scales, self.shifts = nn.ModuleList(), nn.ModuleList()
        for number, shape in enumerate(stages.shapes):
            for name, layers in (("scale", self.scales), ("shift", self.shifts)):
                with own(f"{name} {number}"):
                    layers.append(_reader(len(tasks), self.hidden, shape[0]))
        self.heads = Heads(tasks, stages.sizes[-1])
        self._tasks = len(tasks)
        return self

    def forward(self, inputs: Tensor, preference: Tensor | None = None) -> Outputs:
        """One output per task; `preference` is ``[replica, row, task]``, of positive numbers."""
        told = self._told(inputs, preference)
        x = inputs
        for stage, scale, shift in zip(self.trunk, self.scales, self.shifts, strict=True):
            x = stage(x)
            a, b = (self.factor * part(told).view(*told.shape[:2], -1, *[1] * (x.ndim - 3)) for part in (scale, shift))
            x = x * (1 + a) + b
        return cast(Outputs, self.heads([x.flatten(2)] * self._tasks))

    def _told(self, inputs: Tensor, preference: Tensor | None) -> Tensor:
        """Logarithms of the preferences; one row for all rows where there are none."""
        if preference is None:
            like = next(self.heads.parameters())
            return like.new_full((len(inputs), 1, self._tasks), -math.log(self._tasks))
        wanted = (*inputs.shape[:2], self._tasks)
        if preference.shape != wanted:
            raise ValueError(f"Preferences must be [replica, row, task], {wanted}. Got {tuple(preference.shape)}.")
        return preference.clamp(min=LEAST).log()

    def last_shared(self) -> list[nn.Parameter]:
        """The last stage of the trunk that has parameters."""
        return last_with_parameters(self.trunk)


def _reader(tasks: int, hidden: int, features: int) -> Chain:
    """A network with one hidden layer; initial weights as the paper's (He et al. 2015, truncated), biases 0."""
    layers = Linear(tasks, hidden), Linear(hidden, features)
    for layer, inputs in zip(layers, (tasks, hidden), strict=True):
        spread = math.sqrt(2 / inputs) / 0.8796  # what the cut at two deviations leaves of the deviation
        nn.init.trunc_normal_(layer.weight, std=spread, a=-2 * spread, b=2 * spread)
        nn.init.zeros_(layer.bias)
    return Chain(layers[0], Each(_leaky, elementwise=True), layers[1])


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)
