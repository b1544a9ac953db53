"""A multi-layer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from kinfolk.trunks.base import Stages, Trunk
from kinfolk.trunks.stages import ACTIVATIONS, LAWS, BatchNorm, Chain, Dropout, Each, LayerNorm, Linear, drawn_by

NORMS = {"layer": LayerNorm, "batch": BatchNorm}


class Mlp(Trunk):
    """Fully connected layers, each with an activation.

    Parameters
    ----------
    width
        Units per layer, at least 1; or those of each layer, as in ``[60, 50]``. 128 was as good as wider on small
        tables.
    depth
        Number of layers of one width, at least 1; a list of widths says it itself. A stage is one layer.
    activation
        "silu", "relu", "gelu", "tanh" or "sigmoid".
    dropout
        Share of units set to zero while training, in [0, 1).
    norm
        "layer", "batch" or None.
    init
        The law of the first weights, of the heads too: "torch", as its layers start; "glorot", uniform in
        ±sqrt(6 / (inputs + outputs)), or "glorot_sigmoid", four times as wide, for sigmoid units; both with biases
        of 0.

    Raises
    ------
    ValueError
        For a value outside its range.

    Examples
    --------
    >>> Mlp(width=16, depth=3).build(torch.Size([5])).sizes
    [16, 16, 16]
    >>> Mlp(width=[60, 50]).build(torch.Size([5])).sizes
    [60, 50]
    """

    def __init__(
        self,
        width: int | Sequence[int] = 128,
        depth: int = 2,
        activation: str = "silu",
        dropout: float = 0.0,
        norm: str | None = None,
        init: str = "torch",
    ) -> None:
        self.widths = [width] * depth if isinstance(width, int) else list(width)
        if not self.widths or min(self.widths) < 1 or depth < 1:
            raise ValueError(f"`width` and `depth` must be at least 1. Got {width} and {depth}.")
        if activation not in ACTIVATIONS:
            raise ValueError(f"`activation` must be one of {', '.join(ACTIVATIONS)}. Got {activation!r}.")
        if norm is not None and norm not in NORMS:
            raise ValueError(f"`norm` must be one of {', '.join(NORMS)} or None. Got {norm!r}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1). Got {dropout}.")
        if init not in LAWS:
            raise ValueError(f"`init` must be one of {', '.join(LAWS)}. Got {init!r}.")
        self.width, self.depth, self.activation, self.dropout, self.norm = width, depth, activation, dropout, norm
        self.init = self.above = init

    def build(self, inputs: torch.Size) -> Stages:
        """New layers for inputs that are flattened to one axis."""
        sizes = [math.prod(inputs), *self.widths]
        with drawn_by(self.init):
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
