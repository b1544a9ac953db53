"""Several trunks as one stacked computation: one per task, or one per expert."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kinfolk.replicas import own, stack
from kinfolk.trunks.base import Trunk


class Copies(nn.Module):
    """N trunks of one kind, side by side on the copy axis.

    Parameters
    ----------
    trunk
        The recipe.
    inputs
        Shape of one row's inputs.
    names
        One per trunk: its initial weights depend on the seed and on this name alone. Equal names start equal.

    Attributes
    ----------
    stages
        Each maps ``[replica x N, row, ...]`` to ``[replica x N, row, ...]``.
    shapes
        What a stage gives per row.
    """

    def __init__(self, trunk: Trunk, inputs: torch.Size, names: Sequence[str]) -> None:
        super().__init__()
        made = []
        for name in names:
            with own(f"trunk {name}" if name else "trunk"):
                made.append(trunk.build(inputs))
        self._n = len(made)
        self.shapes = made[0].shapes
        self.stages = nn.ModuleList([stack(list(same)) for same in zip(*(m.modules for m in made), strict=True)])

    def __len__(self) -> int:
        return self._n

    def spread(self, x: Tensor) -> Tensor:
        """The same inputs for every trunk: ``[replica, row, ...]`` -> ``[replica x N, row, ...]``."""
        return x.unsqueeze(1).expand(-1, self._n, *x.shape[1:]).flatten(0, 1)

    def apart(self, x: Tensor) -> Tensor:
        """``[replica x N, row, ...]`` -> ``[replica, N, row, ...]``."""
        return x.unflatten(0, (-1, self._n))

    def forward(self, inputs: Tensor) -> Tensor:
        """Every trunk's last output from common inputs: ``[replica, row, ...]`` -> ``[replica, N, row, feature]``."""
        x = self.spread(inputs)
        for stage in self.stages:
            x = stage(x)
        return self.apart(x).flatten(3)
