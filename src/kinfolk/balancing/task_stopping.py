"""Task-wise early stopping: a task's loss is removed once it no longer helps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kinfolk.balancing.base import Balancing, Losses
from kinfolk.data.tasks import Task

WHICH = ("auxiliary", "all")


def criterion(
    window: Float[Tensor, "*task epoch"],
    best: Float[Tensor, "*task"],
    error: Float[Tensor, "*task"],
    weight: Float[Tensor, "*task"] | float = 1.0,
) -> Float[Tensor, "*task"]:
    """How much a task has stopped to learn, times how far it is from generalising.

    Parameters
    ----------
    window
        Training errors of the last k + 1 epochs.
    best
        The least training error so far.
    error
        That on rows which do not train.
    weight
        Of the task's loss.

    Returns
    -------
    Tensor
        ``k m / (sum - k m) (error - best) / (weight best)``, m the median of the window; 0 where the few lowest
        errors leave no positive denominator: there is progress.

    Examples
    --------
    >>> criterion(torch.full((6,), 0.5), torch.tensor(0.5), torch.tensor(0.6))
    tensor(1.0000)
    """
    k = window.shape[-1] - 1
    median = torch.quantile(window, 0.5, -1)
    rest = window.sum(-1) - k * median
    tiny = torch.finfo(window.dtype).tiny
    flat = torch.where(rest > 0, k * median / rest.clamp(min=tiny), 0)
    return flat * (error - best) / (weight * best.clamp(min=1e-12))


class TaskStopping(Balancing):
    """The sum of the losses, from which a task is taken for good when it has stopped to learn, or begins to overfit.

    After each epoch a task's training loss of the last k + 1 epochs and its loss on the stop rows are looked at: see
    :func:`criterion`, which must not exceed ``epsilon``. A task that is stopped counts as unlabelled from then on, so
    its head keeps its weights, and is judged as before. In loops of one's own its loss is left out; call
    ``at_epoch`` there, and note that optimisers with momentum move its head on for a while.

    This changes training. That each task is kept as it was in its own best epoch needs none of it.

    Parameters
    ----------
    epsilon
        What the criterion must exceed. The authors' is not known: for flat training errors 1 is a gap of 1 / k.
    k
        Epochs looked back, at least 1. The authors' is not known.
    which
        The tasks that may stop: "auxiliary" as in the paper, or "all".
    weight
        Of the losses of auxiliary tasks, positive. A task that matters more stops later.

    Raises
    ------
    ValueError
        For a number out of its range.

    References
    ----------
    Z. Zhang, P. Luo, C. C. Loy, X. Tang (2014). Facial landmark detection by deep multi-task learning. ECCV.
    Task-wise early stopping. There the weight may be learned.
    """

    def __init__(self, epsilon: float = 1.0, k: int = 5, which: str = "auxiliary", weight: float = 1.0) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"`k` must be at least 1. Got {k}.")
        if which not in WHICH:
            raise ValueError(f"`which` must be one of {', '.join(WHICH)}. Got {which!r}.")
        if not weight > 0:
            raise ValueError(f"`weight` must be positive. Got {weight}.")
        self.epsilon, self.k, self.which, self.weight = float(epsilon), k, which, float(weight)

    def setup(self, tasks: Sequence[Task]) -> TaskStopping:
        """Nobody has stopped, and nothing was seen."""
        super().setup(tasks)
        self.window: Tensor
        self.seen: Tensor
        self.best: Tensor
        self.stopped: Tensor
        self.may: Tensor
        self.factor: Tensor
        self.register_buffer("window", torch.zeros(len(tasks), self.k + 1))
        self.register_buffer("seen", torch.zeros(len(tasks), dtype=torch.int64))
        self.register_buffer("best", torch.full((len(tasks),), torch.inf))
        self.register_buffer("stopped", torch.zeros(len(tasks), dtype=torch.bool))
        self.register_buffer("may", torch.tensor([not task.main or self.which == "all" for task in tasks]))
        self.register_buffer("factor", torch.tensor([1.0 if task.main else self.weight for task in tasks]))
        return self

    def total(self, losses: Losses) -> Tensor:
        """The sum over tasks that go on."""
        factor = torch.where(self.stopped, 0, self.factor).view_as(losses.value)
        return (factor * losses.value).sum(-1)

    @torch.no_grad()
    def at_epoch(self, epoch: int, losses: Tensor | None, errors: Tensor | None) -> None:
        """Notes the epoch before, and stops tasks. One without a label in it changes nothing."""
        if losses is None or errors is None:
            return
        known = losses.isfinite().flatten()
        window, error = self.window, errors.flatten().to(self.window)
        latest = losses.flatten().to(window)
        window.copy_(torch.where(known.unsqueeze(1), torch.cat([window[:, 1:], latest.unsqueeze(1)], 1), window))
        self.seen.add_(known)
        self.best.copy_(torch.where(known, torch.minimum(self.best, latest), self.best))
        ready = known & error.isfinite() & self.may & (self.seen > self.k)
        found = criterion(window, self.best, error, self.factor)
        self.stopped.logical_or_(ready & (found > self.epsilon))

    def active(self) -> Bool[Tensor, " copies"]:
        """The tasks that have not stopped."""
        return ~self.stopped
