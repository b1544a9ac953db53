"""GradNorm: weights that bring the gradient norms of tasks to a common scale."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kinfolk.balancing.base import Balancing, Losses
from kinfolk.balancing.norms import Norms
from kinfolk.data.tasks import Task

INITIAL = ("measured", "theoretical")
STEPS = ("adam", "sgd")
LEAST = 1e-4  # of a weight


class GradNorm(Balancing):
    """Learns weights w such that tasks which train slowly send larger gradients to the last shared layer.

    With g the norms of the tasks' gradients there and r their losses relative to the initial ones (over the mean of
    these ratios), ``|w g - mean(w g) r^alpha|``, summed over tasks, is decreased by one step in each update, the
    target held constant: the derivative is ``sign(w g - target) g``. Then the weights are scaled to sum to the number
    of tasks. Tasks without a label in the batch keep theirs, and the others share what is left.

    Parameters
    ----------
    alpha
        How strongly tasks that train slowly are pulled, not negative; 0 makes all norms equal. 1.5 as published for
        images, where anything up to 3 was better than equal weights; 0.12 for a toy of like tasks.
    rate
        Learning rate of the weights, positive. 0.025 as published.
    initial
        The initial loss: "measured" in the first update in which a task has labels, or "theoretical", that of a
        constant prediction: log C for C classes, 1 for a standardised target. Measured ones depend on the draw of
        the initial weights.
    every
        The norms are measured in each so many updates, at least 1, and kept between; the ratios always are new.
    steps
        Of the weights: "adam", as published, whose steps do not depend on the scale of the norms, or "sgd", whose
        steps are ``rate g``.
    attainable
        Whether targets are divided by the mean of ``r^alpha``. The published ones can all be met only where that
        mean is 1, as for alpha 0 and 1; where it is larger all norms may lie below, and tasks with large gradients
        gain. Divided, weights rest where w is proportional to ``r^alpha / g``, within a step.

    Raises
    ------
    ValueError
        For a number out of its range; in training for a loss that is negative, or that the last shared layer has
        no part in.

    References
    ----------
    Z. Chen, V. Badrinarayanan, C.-Y. Lee, A. Rabinovich (2018). GradNorm: gradient normalization for adaptive loss
    balancing in deep multitask networks. ICML. Algorithm 1. Here weights are at least 1e-4 before they are scaled.

    Examples
    --------
    >>> layer = torch.nn.Parameter(torch.zeros(2))
    >>> method = GradNorm(steps="sgd").setup([Task("a", "regression"), Task("b", "regression")])
    >>> method.backward(1 + layer * torch.tensor([1.0, 10.0]), last=[layer])
    tensor([1., 1.])
    >>> method.weight
    tensor([1.1549, 0.8451])
    """

    needs = ("last",)

    def __init__(
        self,
        alpha: float = 1.5,
        rate: float = 0.025,
        initial: str = "measured",
        every: int = 1,
        steps: str = "adam",
        attainable: bool = False,
    ) -> None:
        super().__init__()
        if not alpha >= 0 or not rate > 0:
            raise ValueError(f"`alpha` must not be negative and `rate` must be positive. Got {alpha} and {rate}.")
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Got {every}.")
        for name, value, known in (("initial", initial, INITIAL), ("steps", steps, STEPS)):
            if value not in known:
                raise ValueError(f"`{name}` must be one of {', '.join(known)}. Got {value!r}.")
        self.alpha, self.rate, self.initial, self.every, self.steps = float(alpha), float(rate), initial, every, steps
        self.attainable = attainable

    def setup(self, tasks: Sequence[Task]) -> GradNorm:
        """Weights of 1; initial losses and norms are 0 until they are known."""
        super().setup(tasks)
        self.weight: Tensor
        self.first: Tensor
        self.norm: Tensor
        self.mean: Tensor
        self.square: Tensor
        self.count: Tensor
        self.update: Tensor
        start = [1.0 if t.kind == "regression" else math.log(len(t.classes)) for t in tasks]
        self.register_buffer("weight", torch.ones(len(tasks)))
        self.register_buffer("first", torch.tensor(start) * (self.initial == "theoretical"))
        for name in ("norm", "mean", "square", "count"):
            self.register_buffer(name, torch.zeros(len(tasks)))
        self.register_buffer("update", torch.zeros((), dtype=torch.int64))
        return self

    def gradients(self, losses: Losses) -> Tensor:
        """Fills ``.grad`` with the gradient of the weighted sum, then moves the weights."""
        weight = self.weight.view_as(losses.value).clone()
        if int(self.update) % self.every == 0:
            self._measure(losses)
        whole = (weight * losses.value).sum(-1)
        (whole if losses.penalty is None else whole + losses.penalty).sum().backward()
        self._move(losses.value.detach(), losses.seen)
        return torch.where(losses.seen, weight, 0)

    def _measure(self, losses: Losses) -> None:
        """The norms of the present tasks' gradients, without their weights."""
        value, seen, tasks = losses.value, losses.seen, len(self._names)
        norm, norms = self.norm.view_as(value), Norms(losses)
        lowest = value.detach().reshape(-1, tasks).amin(0).tolist()
        for t, there in enumerate(seen.reshape(-1, tasks).any(0).tolist()):
            if not there:
                continue
            if lowest[t] < 0:  # NaN is for the loop to find: other replicas go on
                raise ValueError(
                    "Losses must not be negative: `gradnorm` reads from their ratios how fast tasks train. "
                    f"Got {lowest[t]} for '{self._names[t]}'."
                )
            found = norms.of(t)
            if found is None:
                raise ValueError(
                    f"Every loss must depend on the last shared layer. That of '{self._names[t]}' does not."
                )
            norm[..., t] = torch.where(seen[..., t], found.view_as(seen[..., t]), norm[..., t])

    @torch.no_grad()
    def _move(self, value: Tensor, seen: Tensor) -> None:
        """One step of the weights."""
        weight, first, norm = (state.view_as(value) for state in (self.weight, self.first, self.norm))
        first.copy_(torch.where(seen & (first == 0), value, first))
        on = seen & (norm > 0)
        number = on.sum(-1, keepdim=True).clamp(min=1)
        ratio = torch.where(on, value / first.clamp(min=torch.finfo(value.dtype).tiny), 0)
        relative = ratio * number / ratio.sum(-1, keepdim=True).clamp(min=torch.finfo(value.dtype).tiny)
        size = torch.where(on, weight * norm, 0)
        pull = torch.where(on, relative**self.alpha, 0)
        scale = pull.sum(-1, keepdim=True) if self.attainable else number
        target = size.sum(-1, keepdim=True) * pull / scale.clamp(min=LEAST)
        moved = (weight - self.rate * self._step((size - target).sign() * norm, on)).clamp(min=LEAST)
        free = torch.where(on, weight, 0).sum(-1, keepdim=True)
        moved = moved * free / torch.where(on, moved, 0).sum(-1, keepdim=True).clamp(min=LEAST)
        weight.copy_(torch.where(on, moved, weight))
        self.update.add_(1)

    def _step(self, gradient: Tensor, on: Tensor) -> Tensor:
        """What the optimiser makes of a gradient, where ``on``."""
        if self.steps == "sgd":
            return gradient
        mean, square, count = (state.view_as(gradient) for state in (self.mean, self.square, self.count))
        count.add_(on)
        mean.lerp_(gradient, 0.1 * on)
        square.lerp_(gradient.square(), 0.001 * on)
        made = count.clamp(min=1)
        return mean / (1 - 0.9**made) / ((square / (1 - 0.999**made)).sqrt() + 1e-8)
