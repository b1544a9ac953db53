"""Residual networks of basic blocks, for small images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kinfolk.trunks.base import Stages, Trunk
from kinfolk.trunks.convolution import Conv2d, MeanPool, Reshape, checked_shape, image_of
from kinfolk.trunks.stages import BatchNorm, Chain, Each


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> Conv2d:
    """Without bias, as a batch norm follows, and drawn so that the variance of gradients is kept (He 2015)."""
    layer = Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight.data[0], mode="fan_out", nonlinearity="relu")
    return layer


class Block(nn.Module):
    """Two 3 x 3 convolutions, added to what came in.

    Parameters
    ----------
    inputs, outputs
        Channels. Where they differ, or with a stride, what came in goes through a 1 x 1 convolution.
    stride
        Of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first, self.first_norm = _convolution(inputs, outputs, 3, stride), BatchNorm(outputs)
        self.second, self.second_norm = _convolution(outputs, outputs), BatchNorm(outputs)
        plain = inputs == outputs and stride == 1
        self.shortcut = None if plain else Chain(_convolution(inputs, outputs, 1, stride), BatchNorm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``[copy, row, channel, height, width]`` -> the same with other numbers of each."""
        y = self.second_norm(self.second(self.first_norm(self.first(x)).relu()))
        return (y + (x if self.shortcut is None else self.shortcut(x))).relu()


class ResNet(Trunk):
    """A residual network of basic blocks with batch norm: a 3 x 3 stem, groups of blocks, the mean over the image.

    A stage is the stem, or a group of blocks of one resolution. Each group after the first halves height and width
    and doubles the channels; the last stage takes the mean over the image. The stem is that for small images: it
    keeps the resolution.

    Parameters
    ----------
    blocks
        Blocks in each group. (2, 2, 2, 2) is ResNet-18, (3, 4, 6, 3) is ResNet-34; (3, 3, 3) with ``width=16`` is the
        ResNet-20 of the paper's CIFAR-10 experiments.
    width
        Channels of the stem and the first group, at least 1. 64 is the paper's.
    shape
        Channels, height and width of the images, where inputs are flat: rows of a table, say. None: inputs are
        ``[channel, height, width]``.

    Raises
    ------
    ValueError
        For a value outside its range; from :meth:`build`, for inputs that are no images.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun (2016). Deep residual learning for image recognition. CVPR. Table 1 and section
    4.2.

    Shortcuts between groups are 1 x 1 convolutions (option B), also where the paper's CIFAR-10 networks pad with zeros
    (option A).

    Examples
    --------
    >>> ResNet((1, 1, 1), width=16).build(torch.Size([3, 32, 32])).shapes
    [torch.Size([16, 32, 32]), torch.Size([16, 32, 32]), torch.Size([32, 16, 16]), torch.Size([64])]
    """

    def __init__(
        self, blocks: Sequence[int] = (2, 2, 2, 2), width: int = 64, shape: Sequence[int] | None = None
    ) -> None:
        if not blocks or min(blocks) < 1:
            raise ValueError(f"`blocks` must be at least one number, each at least 1. Got {tuple(blocks)}.")
        if width < 1:
            raise ValueError(f"`width` must be at least 1. Got {width}.")
        self.blocks, self.width, self.shape = tuple(blocks), width, checked_shape(shape)

    def build(self, inputs: torch.Size) -> Stages:
        """New layers for images, or for flat inputs where ``shape`` is given."""
        channels, height, width = image_of(inputs, self.shape)
        before = [] if self.shape is None else [Reshape(self.shape)]
        relu = Each(torch.relu, elementwise=True)
        stages = [Chain(*before, _convolution(channels, self.width), BatchNorm(self.width), relu)]
        shapes = [torch.Size([self.width, height, width])]
        for number, blocks in enumerate(self.blocks):
            stride = 2 if number else 1
            outputs = self.width * 2**number
            first = Block(shapes[-1][0], outputs, stride)
            stages.append(Chain(first, *(Block(outputs, outputs) for _ in range(blocks - 1))))
            shapes.append(torch.Size([outputs, *(-(-size // stride) for size in shapes[-1][1:])]))
        stages[-1].append(MeanPool())
        shapes[-1] = shapes[-1][:1]
        return Stages(stages, shapes)
