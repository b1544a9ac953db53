"""LeNet: convolutions with pooling, then a dense layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from kinfolk.trunks.base import Stages, Trunk
from kinfolk.trunks.convolution import Conv2d, MaxPool, Reshape, checked_shape, image_of
from kinfolk.trunks.stages import ACTIVATIONS, LAWS, Chain, Dropout, Each, Linear, drawn_by

RISING = ("relu", "tanh", "sigmoid")  # pooled first the result is the same, for a quarter of the work


class LeNet(Trunk):
    """Convolutions, each with an activation and 2 x 2 max pooling, then one dense layer.

    A stage is a convolution with its activation and pooling, or the dense layer. The defaults are the network of
    Deep-AMTFL's official code for MNIST, which is that of Caffe and unlike LeNet-5 has max pooling, ReLU and one
    dense layer; that code draws weights by Glorot's rule.

    Parameters
    ----------
    channels
        Of each convolution, at least one.
    kernel
        Height and width of the kernels, at least 1.
    hidden
        Units of the dense layer, at least 1.
    activation
        "relu", "silu", "gelu", "tanh" or "sigmoid".
    dropout
        Share of the dense layer's units set to zero while training, in [0, 1).
    shape
        Channels, height and width of the images, where inputs are flat: rows of a table, say. None: inputs are
        ``[channel, height, width]``.
    init
        The law of the first weights, of the heads too, as of :class:`~kinfolk.trunks.mlp.Mlp`.
    padding
        Pixels of 0 around what a convolution reads, not negative.

    Raises
    ------
    ValueError
        For a value outside its range; from :meth:`build`, for inputs that are no images or too small.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner (1998). Gradient-based learning applied to document recognition.
    Proceedings of the IEEE 86, 2278-2324.

    Examples
    --------
    >>> LeNet(shape=(1, 28, 28)).build(torch.Size([784])).shapes
    [torch.Size([20, 12, 12]), torch.Size([50, 4, 4]), torch.Size([500])]
    """

    def __init__(
        self,
        channels: Sequence[int] = (20, 50),
        kernel: int = 5,
        hidden: int = 500,
        activation: str = "relu",
        dropout: float = 0.0,
        shape: Sequence[int] | None = None,
        init: str = "torch",
        padding: int = 0,
    ) -> None:
        if not channels or min(channels) < 1:
            raise ValueError(f"`channels` must be at least one number, each at least 1. Got {tuple(channels)}.")
        if kernel < 1 or hidden < 1:
            raise ValueError(f"`kernel` and `hidden` must be at least 1. Got {kernel} and {hidden}.")
        if activation not in ACTIVATIONS:
            raise ValueError(f"`activation` must be one of {', '.join(ACTIVATIONS)}. Got {activation!r}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1). Got {dropout}.")
        if init not in LAWS:
            raise ValueError(f"`init` must be one of {', '.join(LAWS)}. Got {init!r}.")
        if padding < 0:
            raise ValueError(f"`padding` must not be negative. Got {padding}.")
        self.init, self.above, self.padding = init, init, padding
        self.channels, self.kernel, self.hidden = tuple(channels), kernel, hidden
        self.activation, self.dropout, self.shape = activation, float(dropout), checked_shape(shape)

    def build(self, inputs: torch.Size) -> Stages:
        """New layers for images, or for flat inputs where ``shape`` is given."""
        shape = image_of(inputs, self.shape)
        stages: list[nn.Module] = []
        shapes: list[torch.Size] = []
        for outputs in self.channels:
            with drawn_by(self.init):
                stages.append(self._convolution(shape[0], outputs))
            shape = torch.Size([outputs, *(self._after(size, inputs) for size in shape[1:])])
            shapes.append(shape)
        if self.shape is not None:
            stages[0] = Chain(Reshape(self.shape), *stages[0].children())
        with drawn_by(self.init):
            stages.append(self._dense(math.prod(shape)))
        return Stages(stages, [*shapes, torch.Size([self.hidden])])

    def _after(self, size: int, inputs: torch.Size) -> int:
        """Height or width after a convolution and pooling."""
        left = (size + 2 * self.padding - self.kernel + 1) // 2
        if left < 1:
            said = f"{len(self.channels)} convolutions of kernel {self.kernel} with pooling"
            raise ValueError(
                f"Images must be large enough for {said}. Got inputs {list(self.shape or inputs)}: "
                f"use a smaller `kernel` or fewer `channels`."
            )
        return left

    def _convolution(self, inputs: int, outputs: int) -> Chain:
        after = [Each(ACTIVATIONS[self.activation], elementwise=True), MaxPool(2)]
        if self.activation in RISING:
            after.reverse()
        return Chain(Conv2d(inputs, outputs, self.kernel, padding=self.padding), *after)

    def _dense(self, inputs: int) -> Chain:
        layers = [Reshape((inputs,)), Linear(inputs, self.hidden), Each(ACTIVATIONS[self.activation], elementwise=True)]
        return Chain(*layers, *([Dropout(self.dropout)] if self.dropout else []))
