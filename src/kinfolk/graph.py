"""A model's networks as one module, all in torch, from encoded inputs to predictions."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kinfolk.data.tasks import Task
from kinfolk.evidence.features import Preparation
from kinfolk.evidence.networks import NetworkPredictor

Blend = Mapping[str, Mapping[str, float]]
"""Task -> name of a fit -> weight."""


class Prepared(nn.Module):
    """A :class:`Preparation` in torch: in double precision, as there, whatever the network computes in."""

    def __init__(self, preparation: Preparation) -> None:
        super().__init__()
        self.shift: Tensor
        self.scale: Tensor
        self.indicators: Tensor
        self.binned: Tensor
        for name in ("shift", "scale", "indicators", "binned"):
            self.register_buffer(name, torch.as_tensor(getattr(preparation, name)))
        self.bins: nn.Module | None = None
        if not len(preparation.edges):
            return
        encoding = preparation.piecewise()
        self.bins, mask = (
            encoding.impl,
            encoding.impl.mask,
        )  # a mask would make the width depend on data: kept by number
        self.low: Tensor
        self.high: Tensor
        self.kept: Tensor
        for name, end in zip(("low", "high"), preparation.ends(), strict=True):
            self.register_buffer(name, torch.as_tensor(end))
        mask = torch.ones_like(self.bins.weight) if mask is None else mask
        self.register_buffer("kept", mask.flatten().nonzero().flatten())

    def forward(self, inputs: Float[Tensor, "row feature"]) -> Float[Tensor, "row input"]:
        """Network inputs from encoded columns, in float64."""
        values = inputs.to(torch.float64)
        gaps = values.isnan()
        standard = torch.where(gaps, torch.zeros_like(values), (values - self.shift) / self.scale)
        parts = [standard]
        if len(self.indicators):
            parts.append(gaps[:, self.indicators].to(values.dtype))
        if self.bins is not None:
            inside = standard[:, self.binned].clamp(self.low, self.high)
            parts.append(self.bins(inside).flatten(1)[:, self.kept])
        return torch.cat(parts, 1)


class Graph(nn.Module):
    """A model from encoded inputs ``[row, feature]`` to one prediction per task, all in torch.

    Values ``[row]`` for regression, probabilities ``[row, class]`` for classes.

    Parameters
    ----------
    features
        Width of the inputs.
    tasks
        All tasks of the problem.
    fits
        The networks by name. They are copied, to the CPU.
    blend
        The tasks that are predicted, and how.

    Attributes
    ----------
    tasks
        Those that are predicted.
    """

    def __init__(
        self, features: int, tasks: Sequence[Task], fits: Mapping[str, NetworkPredictor], blend: Blend
    ) -> None:
        super().__init__()
        self.tasks = [task for task in tasks if blend.get(task.name)]
        self.features = features
        self._positions = [list(tasks).index(task) for task in self.tasks]
        self._weights = [blend[task.name] for task in self.tasks]
        self._fits = copy.deepcopy(dict(fits))
        self.prepared = nn.ModuleList([Prepared(fit.preparation) for fit in fits.values()])
        self.networks = nn.ModuleList([part.model for fit in self._fits.values() for part in fit.parts])
        self.cpu()

    def forward(self, inputs: Float[Tensor, "row feature"]) -> tuple[Tensor, ...]:
        """One prediction for each of :attr:`tasks`."""
        found: dict[tuple[str, int], Tensor] = {}
        for (name, fit), prepared in zip(self._fits.items(), self.prepared, strict=True):
            x = prepared(inputs)
            for part in fit.parts:
                like = next(part.model.parameters())
                for column, prediction in zip(part.columns, fit.averaged(part, x.to(like.dtype)), strict=True):
                    found[name, column] = prediction
        outputs = []
        for task, at, weights in zip(self.tasks, self._positions, self._weights, strict=True):
            parts = [weight * found[name, at] for name, weight in weights.items() if (name, at) in found]
            outputs.append(shown(task, torch.stack(parts).sum(0)))
        return tuple(outputs)


def shown(task: Task, prediction: Float[Tensor, "row _"]) -> Tensor:
    """A prediction as users of a graph get it: a value per row, or a probability for each class."""
    if task.numeric:
        return prediction[:, 0]
    return torch.cat([1 - prediction, prediction], 1) if task.kind == "binary" else prediction
