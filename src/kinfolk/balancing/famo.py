"""Fast adaptive multitask optimisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from kinfolk.balancing.base import Balancing, Losses, Optimizer
from kinfolk.data.tasks import Task

REDUCTIONS = ("native", "sum", "mean")
BETAS, EPSILON = (0.9, 0.999), 1e-8


class Famo(Balancing):
    """Lets the logarithms of all losses fall at one rate, from the values of the losses alone.

    With logits x and z = softmax(x), task t weighs ``(z_t / L_t) / sum_s (z_s / L_s)``, L being the loss above its
    lower bound. After the step the same rows go through the network once more: x moves by Adam so that a task
    whose log loss fell more than others' weighs less in the next update.

    In a loop of one's own call :meth:`step` with a closure, or :meth:`backward` and, after the optimiser's step,
    :meth:`adapt` with the losses before and after.

    Parameters
    ----------
    rate
        Learning rate of the logits, positive. 0.025 as published.
    decay
        Weight decay of the logits, added to their gradient, not negative. 1e-3 as published; the authors' code has
        1e-3 to 1e-2.
    least
        Lower bounds of the losses by task name; tasks that are not named have 0.
    every
        The logits move in every so-many-th update only, at least 1: what saves second passes.
    reduction
        "native", which is "mean": the weights sum to 1. "sum": they sum to the number of tasks that are present.

    Raises
    ------
    ValueError
        For numbers out of their range, (at setup) the name of a task that is not there, and (in training) a loss
        below its lower bound.

    References
    ----------
    B. Liu, Y. Feng, P. Stone, Q. Liu (2023). FAMO: fast adaptive multitask optimization. NeurIPS. Algorithm 2.
    The authors' code also clips the norm of the gradient to 1; here the optimiser is left as it is.

    Examples
    --------
    >>> method = Famo().setup([Task("price", "regression"), Task("rooms", "regression")])
    >>> method.backward(Losses(torch.tensor([1.0, 4.0], requires_grad=True) * 1))
    tensor([0.8000, 0.2000])
    """

    def __init__(
        self,
        rate: float = 0.025,
        decay: float = 1e-3,
        least: Mapping[str, float] | None = None,
        every: int = 1,
        reduction: str = "native",
    ) -> None:
        super().__init__()
        self.rate, self.decay, self.every, self.reduction = float(rate), float(decay), every, reduction
        self.least = dict(least or {})
        if not self.rate > 0 or not self.decay >= 0:
            raise ValueError(f"`rate` must be positive and `decay` not negative. Got {rate}, {decay}.")
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Got {every}.")
        if reduction not in REDUCTIONS:
            raise ValueError(f"`reduction` must be one of {', '.join(REDUCTIONS)}. Got {reduction!r}.")

    def setup(self, tasks: Sequence[Task]) -> Famo:
        """Logits of 0 and their moments, one per task: those of an absent task stand still."""
        super().setup(tasks)
        strangers = set(self.least) - set(self._names)
        if strangers and len(tasks) > 1:  # a single-task problem sees one name of all
            raise ValueError(f"`least` must name tasks. Got {', '.join(sorted(strangers))}.")
        self.logits: Tensor
        self.mean: Tensor
        self.square: Tensor
        self.count: Tensor
        self.bound: Tensor
        self.updates: Tensor
        for name in ("logits", "mean", "square", "count"):
            self.register_buffer(name, torch.zeros(len(tasks)))
        self.register_buffer("bound", torch.tensor([float(self.least.get(name, 0)) for name in self._names]))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        return self

    def total(self, losses: Losses) -> Tensor:
        """The sum over tasks, weighted so that its gradient is that of the sum of z log L over its constant."""
        share = self._share(losses) / self._above(losses)
        weights = share / share.sum(-1, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)
        if self.reduction == "sum":
            weights = weights * losses.seen.sum(-1, keepdim=True)
        return (weights * losses.value).sum(-1)

    def step(self, closure: Callable[..., Losses], optimizer: Optimizer) -> tuple[Losses, Tensor]:
        """One update of the network, then one of the logits."""
        losses, weights = super().step(closure, optimizer)
        self.updates.add_(1)
        if self.every == 1 or int(self.updates) % self.every == 0:
            with torch.no_grad():
                self.adapt(losses, closure())
        return losses, weights

    @torch.no_grad()
    def adapt(self, before: Losses, after: Losses) -> None:
        """Moves the logits: one step of Adam, from the losses of the same rows before and after an update."""
        share, logits = self._share(before), self.logits.view_as(before.value)
        fell = torch.where(before.seen, self._above(before).log() - self._above(after).log(), 0)
        gradient = share * (fell - (share * fell).sum(-1, keepdim=True)) + self.decay * logits
        mean, square, count = (x.view_as(logits) for x in (self.mean, self.square, self.count))
        on = before.seen.to(logits.dtype)
        count.add_(on)
        mean.lerp_(gradient, (1 - BETAS[0]) * on)
        square.lerp_(gradient.square(), (1 - BETAS[1]) * on)
        made = count.clamp(min=1)
        root = (square / (1 - BETAS[1] ** made)).sqrt() + EPSILON
        logits.sub_(self.rate * on * mean / (1 - BETAS[0] ** made) / root)

    def _share(self, losses: Losses) -> Float[Tensor, "*replica task"]:
        """z, over the tasks that are present."""
        logits = self.logits.view_as(losses.value).masked_fill(~losses.seen, -math.inf)
        return logits.softmax(-1).nan_to_num(0)

    def _above(self, losses: Losses) -> Float[Tensor, "*replica task"]:
        """The losses above their lower bounds; 1 where absent."""
        bound = self.bound.view_as(losses.value)
        above = losses.value.detach() - bound
        below = (above < 0) & losses.seen
        if bool(below.any()):
            name = self._names[int(below.nonzero()[0, -1])]
            raise ValueError(
                f"`famo` takes logarithms: the loss of {name!r} must be at least {bound[below][0].item():g}. "
                f"Got {losses.value[below][0].item():g}; give its lower bound, as in least={{{name!r}: -10.0}}."
            )
        return torch.where(losses.seen, above + EPSILON, 1)
