"""Layers for images over a leading copy axis: ``[copy, row, channel, height, width]``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kinfolk.trunks.stages import bounds, each_copy, fold, unfold


class Conv2d(nn.Module):
    """A convolution for each copy; a unit of the law of first weights has kernel² inputs for each channel.

    Copies are one grouped convolution, or run one by one, see :func:`~kinfolk.trunks.stages.each_copy`. Unfolded
    patches and a batched matrix product were several times slower on a CPU. There one copy computes with channels
    innermost, which makes the convolution and pooling after it twice as fast; many copies in one call are slower so.

    Parameters
    ----------
    inputs, outputs
        Channels.
    kernel
        Height and width of the kernel.
    stride, padding
        As in ``torch.nn.Conv2d``.
    bias
        Whether a number is added to each channel. A batch norm that follows takes it away again.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        bound, shift = bounds(inputs * kernel**2, outputs * kernel**2)
        self.weight = nn.Parameter(torch.empty(1, outputs, inputs, kernel, kernel).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(1, outputs).uniform_(-shift, shift)) if bias else None

    def forward(
        self, x: Float[Tensor, "copy row _ height width"]
    ) -> Float[Tensor, "copy row _ after_height after_width"]:
        """Each copy's own convolution."""
        return each_copy(self._kernel, x, self.weight, self.bias)

    def _kernel(self, x: Tensor, copies: int, weight: Tensor, bias: Tensor | None) -> Tensor:
        if copies == 1 and x.device.type == "cpu":
            weight = weight.clone(memory_format=torch.channels_last)  # by it torch chooses the form of the result
        return F.conv2d(x, weight, bias, self.stride, self.padding, groups=copies)


class MaxPool(nn.Module):
    """The largest value of each square of pixels; a rest at the border is left out.

    Parameters
    ----------
    size
        Height and width of a square.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(
        self, x: Float[Tensor, "copy row channel height width"]
    ) -> Float[Tensor, "copy row channel after_height after_width"]:
        """The squares of every channel."""
        if x.is_contiguous():
            return F.max_pool2d(x.flatten(0, 1), self.size).unflatten(0, x.shape[:2])
        return unfold(F.max_pool2d(fold(x), self.size), len(x))


class MeanPool(nn.Module):
    """The mean of each channel over the whole image."""

    def forward(self, x: Float[Tensor, "copy row channel height width"]) -> Float[Tensor, "copy row channel"]:
        """One number per channel."""
        return x.mean((-2, -1))


class Reshape(nn.Module):
    """The numbers of each row in another shape.

    Parameters
    ----------
    shape
        Without copy and row.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """``[copy, row, ...]`` -> ``[copy, row, *shape]``."""
        return x.flatten(2).unflatten(2, self.shape)


def image_of(inputs: torch.Size, shape: Sequence[int] | None) -> torch.Size:
    """Channels, height and width of inputs, which may be flat where a ``shape`` is given.

    Raises
    ------
    ValueError
        If the inputs are no images, or have not as many numbers as ``shape``.
    """
    if shape is None:
        if len(inputs) == 3:
            return inputs
        side = math.isqrt(math.prod(inputs))
        like = (1, side, side) if side**2 == math.prod(inputs) else (1, 28, 28)
        raise ValueError(
            f"Inputs of a trunk for images must be [channel, height, width]. Got {list(inputs)}. "
            f"Flat ones need a `shape`, such as shape={like}."
        )
    if math.prod(shape) != math.prod(inputs):
        raise ValueError(
            f"Inputs must have as many numbers as `shape` has: {' x '.join(map(str, shape))} = {math.prod(shape)}. "
            f"Got {math.prod(inputs)}."
        )
    return torch.Size(shape)


def checked_shape(shape: Sequence[int] | None) -> tuple[int, ...] | None:
    """``shape`` as a tuple.

    Raises
    ------
    ValueError
        If it has not three positive numbers.
    """
    if shape is None:
        return None
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"`shape` must be channels, height and width, such as (1, 28, 28). Got {tuple(shape)}.")
    return tuple(shape)
