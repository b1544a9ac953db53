"""A multi-layer perceptron."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn

from kinfolk.trunks.base import Stages, Trunk
from kinfolk.trunks.stages import ACTIVATIONS, BatchNorm, Chain, Dropout, Each, LayerNorm, Linear

NORMS = {"layer": LayerNorm, "batch": BatchNorm}


class Mlp(Trunk):
    """Fully connected layers of one width, each with an activation.

    Parameters
    ----------
    width
        Units per layer, at least 1. 128 was as good as wider on small tables.
    depth
        Number of layers, at least 1. A stage is one layer.
    activation
        "silu", "relu", "gelu", "tanh" or "sigmoid".
    dropout
        Share of units set to zero while training, in [0, 1).
    norm
        "layer", "batch" or None.

    Raises
    ------
    ValueError
        For a value outside its range.

    Examples
    --------
    >>> Mlp(width=16, depth=3).build(torch.Size([5])).sizes
    [16, 16, 16]
    """

    def __init__(
        self,
        width: int = 128,
        depth: int = 2,
        activation: str = "silu",
        dropout: float = 0.0,
        norm: str | None = None,
    ) -> None:
        if width < 1 or depth < 1:
            raise ValueError(f"`width` and `depth` must be at least 1. Got {width} and {depth}.")
        if activation not in ACTIVATIONS:
            raise ValueError(f"`activation` must be one of {', '.join(ACTIVATIONS)}. Got {activation!r}.")
        if norm is not None and norm not in NORMS:
            raise ValueError(f"`norm` must be one of {', '.join(NORMS)} or None. Got {norm!r}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1). Got {dropout}.")
        self.width, self.depth, self.activation, self.dropout, self.norm = width, depth, activation, dropout, norm

    def build(self, inputs: torch.Size) -> Stages:
        """New layers for inputs that are flattened to one axis."""
        sizes = [math.prod(inputs)] + [self.width] * self.depth
        stages = [self._stage(a, b) for a, b in pairwise(sizes)]
        if len(inputs) > 1:
            stages[0] = Chain(Each(lambda x: x.flatten(1)), *stages[0])
        return Stages(stages, [torch.Size([size]) for size in sizes[1:]])

    def _stage(self, inputs: int, outputs: int) -> Chain:
        layers: list[nn.Module] = [Linear(inputs, outputs)]
        if self.norm is not None:
            layers.append(NORMS[self.norm](outputs))
        layers.append(Each(ACTIVATIONS[self.activation], elementwise=True))
        if self.dropout:
            layers.append(Dropout(self.dropout))
        return Chain(*layers)
