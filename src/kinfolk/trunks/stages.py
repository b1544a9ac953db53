"""Layers over a leading copy axis. Each is built for one copy; ``replicas.stack`` makes it many.

Inputs and outputs are ``[copy, row, ...]`` throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kinfolk import distributed
from kinfolk.replicas import Random


def _itself(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "relu": F.relu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "linear": _itself,
}
"""By the name that trunks know them by."""

EPSILON = 1e-5  # what is added to variances, as in torch


def fold(x: Tensor) -> Tensor:
    """``[copy, row, feature, ...]`` -> ``[row, copy x feature, ...]``: torch's own layers then see groups of channels.

    What :func:`unfold` made is folded without a copy in memory, so layers that fold can follow each other.
    """
    return x.transpose(0, 1).flatten(1, 2)


def unfold(x: Tensor, copies: int) -> Tensor:
    """The inverse of :func:`fold`."""
    return x.unflatten(1, (copies, -1)).transpose(0, 1)


LARGE = 2**20


def each_copy(
    layer: Callable[..., Tensor], x: Float[Tensor, "copy row _ *pixel"], *own: Tensor | None
) -> Float[Tensor, "copy row _ *after"]:
    """A layer of torch with weights per channel, for all copies.

    Folded they are one call, several times faster where images are small and copies many. Beyond :data:`LARGE`
    numbers they run one by one: what is in the cache is used again, and new memory is paid for page by page.

    Parameters
    ----------
    layer
        Called with rows ``[row, feature, ...]``, the number of copies that are folded in them, and ``own``.
    x
        Its input.
    own
        What belongs to the copies, ``[copy, feature, ...]``.
    """
    if len(x) == 1 or x.numel() <= LARGE:
        return unfold(layer(fold(x), len(x), *(None if t is None else t.flatten(0, 1) for t in own)), len(x))
    apart = [[None] * len(x) if t is None else t.unbind() for t in own]
    return torch.stack([layer(one, 1, *held) for one, *held in zip(x.unbind(), *apart, strict=True)])


def _beside(parameter: Tensor, x: Tensor) -> Tensor:
    """``[copy, feature]`` in a shape that broadcasts over rows and pixels of ``[copy, row, feature, ...]``."""
    return parameter.view(len(parameter), 1, -1, *[1] * (x.ndim - 3))


LAWS: dict[str, float | None] = {"torch": None, "glorot": 1.0, "glorot_sigmoid": 4.0}
"""Laws of initial weights. "torch": uniform in ±1/sqrt(inputs), biases too, as ``torch.nn.Linear`` is. The others:
uniform in ±gain sqrt(6 / (inputs + outputs)) with biases of 0, after X. Glorot, Y. Bengio (2010). Understanding the
difficulty of training deep feedforward neural networks. AISTATS; the larger gain is for sigmoid units."""

_law = ContextVar("law", default="torch")


@contextmanager
def drawn_by(law: str) -> Iterator[None]:
    """Linear layers and convolutions that are made inside draw their weights by one of :data:`LAWS`."""
    before = _law.set(law)
    try:
        yield
    finally:
        _law.reset(before)


def bounds(inputs: int, outputs: int) -> tuple[float, float]:
    """Of the first weights and biases, by the law of :func:`drawn_by`, for units with so many in- and outputs."""
    gain = LAWS[_law.get()]
    if gain is None:
        bound = 1 / math.sqrt(max(1, inputs))
        return bound, bound
    return gain * math.sqrt(6 / max(1, inputs + outputs)), 0.0


class Linear(nn.Module):
    """``y = x W + b`` for each copy; the first weights follow the law of :func:`drawn_by`, else that of torch.

    Parameters
    ----------
    inputs, outputs
        Features per row.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        bound, shift = bounds(inputs, outputs)
        self.weight = nn.Parameter(torch.empty(1, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(1, 1, outputs).uniform_(-shift, shift))

    def forward(self, x: Float[Tensor, "copy row _"]) -> Float[Tensor, "copy row _"]:
        """Each copy's own product.

        With one output, products of many copies take several times as long as the sum that they are.
        """
        if self.weight.shape[-1] == 1 and len(x) > 1:
            return (x * self.weight.mT).sum(-1, keepdim=True) + self.bias
        return torch.baddbmm(self.bias, x, self.weight)

    def fan(self, x: Float[Tensor, "replica row _"]) -> tuple[Tensor, ...]:
        """The same ``[replica, row, feature]`` read by every slice: one ``[replica, row, output]`` per slice."""
        replicas, slices = len(x), len(self.weight) // len(x)
        if slices == 1:
            return (self(x),)
        side_by_side = self.weight.unflatten(0, (replicas, slices)).transpose(1, 2).flatten(2)
        bias = self.bias.view(replicas, 1, -1)
        return torch.baddbmm(bias, x, side_by_side).unflatten(-1, (slices, -1)).unbind(-2)


class Pointwise(Linear):
    """A linear map of the features or channels at every pixel: a 1x1 convolution, and ``Linear`` where there is none.

    Parameters
    ----------
    inputs, outputs
        Features or channels, the third axis.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``[copy, row, inputs, ...]`` -> ``[copy, row, outputs, ...]``."""
        if x.ndim == 3:
            return super().forward(x)
        weight = self.weight.mT.unsqueeze(1)  # [copy, 1, outputs, inputs]
        return (weight @ x.flatten(3)).unflatten(-1, x.shape[3:]) + _beside(self.bias.squeeze(1), x)


class Each(nn.Module):
    """A function of rows without parameters, such as an activation, pooling or flattening.

    Parameters
    ----------
    function
        Maps ``[row, ...]`` to ``[row, ...]``.
    elementwise
        The function does not care for axes, so none need be folded.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], elementwise: bool = False) -> None:
        super().__init__()
        self.function = function
        self.elementwise = elementwise

    def forward(self, x: Tensor) -> Tensor:
        """The function of every row of every copy."""
        if self.elementwise:
            return self.function(x)
        return self.function(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Dropout(Random):
    """Dropout whose mask is a function of (seed of the copy, update): the same in all passes of one update.

    Parameters
    ----------
    probability
        Share of features set to zero while training, in [0, 1); replicas may differ.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"`probability` of dropout must be in [0, 1). Got {probability}.")
        self.probability: Tensor
        self.register_buffer("probability", torch.tensor([float(probability)]))

    def forward(self, x: Tensor) -> Tensor:
        """Masked and rescaled features while training, ``x`` otherwise."""
        if not self.training:
            return x
        keep = (1 - self.probability).view(-1, *[1] * (x.ndim - 1))
        return x * ((self.uniform(*x.shape[1:]) < keep) / keep)


class LayerNorm(nn.Module):
    """Normalises each row over its features (Ba, Kiros, Hinton 2016)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, features))
        self.bias = nn.Parameter(torch.zeros(1, features))

    def forward(self, x: Tensor) -> Tensor:
        """Zero mean and unit variance over the last axis, then scaled and shifted."""
        return F.layer_norm(x, x.shape[-1:]) * _beside(self.weight, x) + _beside(self.bias, x)


def _moments(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean and variance ``[copy, feature]`` over rows and pixels, and how many these are."""
    axes = [axis for axis in range(x.ndim) if axis not in (0, 2)]
    n = x[0, :, 0].numel()
    if distributed.processes() == 1:
        return x.mean(axes), x.var(axes, correction=0), n
    n = int(distributed.total(torch.tensor(float(n), device=x.device)))
    mean = distributed.total(x.sum(axes)) / n
    return mean, distributed.total((x - _beside(mean, x)).square().sum(axes)) / n, n


class BatchNorm(nn.Module):
    """Normalises each feature over rows and pixels (Ioffe, Szegedy 2015), with running statistics.

    An update counts once in the running statistics, however many forward passes it has. Processes that train
    together normalise by the rows of all.

    Parameters
    ----------
    features
        Features or channels, the third axis.
    momentum
        Weight of the newest batch in the running statistics.
    """

    def __init__(self, features: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(1, features))
        self.bias = nn.Parameter(torch.zeros(1, features))
        self.mean: Tensor
        self.variance: Tensor
        self.counted: Tensor
        self.clock = Random()
        self.register_buffer("mean", torch.zeros(1, features))
        self.register_buffer("variance", torch.ones(1, features))
        self.register_buffer("counted", torch.full((), -1, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised by the batch while training, by the running statistics otherwise."""
        counts = self.training and int(self.counted) != int(self.clock.update)
        if counts:
            self.counted.copy_(self.clock.update)
        n = x[0, :, 0].numel()
        if self.training and (n == 1 or distributed.processes() > 1):
            return self._by_moments(x, counts)
        running = (self.mean, self.variance) if counts or not self.training else (None, None)
        return each_copy(self._kernel, x, self.weight, self.bias, *running)

    def _kernel(self, x: Tensor, _: int, weight: Tensor, bias: Tensor, *running: Tensor | None) -> Tensor:
        mean, variance = running
        return torch.batch_norm(x, weight, bias, mean, variance, self.training, self.momentum, EPSILON, False)

    def _by_moments(self, x: Tensor, counts: bool) -> Tensor:
        """What torch's kernel has no form of: rows of several processes, and a single row, which becomes the bias."""
        mean, variance, n = _moments(x)
        if counts:
            self.mean.lerp_(mean.detach(), self.momentum)
            self.variance.lerp_(variance.detach() * n / max(1, n - 1), self.momentum)
        scale = (_beside(variance, x) + EPSILON).rsqrt() * _beside(self.weight, x)
        return (x - _beside(mean, x)) * scale + _beside(self.bias, x)


class Chain(nn.Sequential):
    """Layers that count as one stage."""
