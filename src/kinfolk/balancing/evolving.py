"""Evolving weights: from the auxiliary tasks to the main ones, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from kinfolk.balancing.base import Balancing, Losses, Optimizer
from kinfolk.data.tasks import Task

SCHEDULES = ("constant", "stairs", "linear", "abridged_linear", "exponential", "errors")


class Evolving(Balancing):
    """Weights that move over the epochs t from groups of tasks to the last group, by default the main tasks.

    Every task of the last group weighs ``1 - lambda(t)``; each group before it has an equal part of ``lambda(t)``,
    which is the weight of all its tasks: the weights of the groups sum to 1. Where there is one group only, all
    weigh 1.

    =================  =====================================================================================
    schedule           lambda(t)
    =================  =====================================================================================
    constant           ``share``
    stairs             1 before epoch ``t1``, then 0: pre-training
    linear             from 1 in epoch 0 to 0 in the last of ``epochs``
    abridged_linear    from 1 in epoch 0 to 0 in epoch ``t1``, then 0
    exponential        ``exp(-t / sigma)``
    errors             ``share exp(-n / sigma)``, n the epochs in which no task of the last group reached a new
                       least error on the stop rows: it stands while these tasks get better, and falls when
                       they do not. A replica counts its own.
    =================  =====================================================================================

    A loss is multiplied by its weight, which with plain gradient steps multiplies the learning rate. Optimisers
    that normalise (Adam) take that back from parameters which serve one group only.

    With ``alternate`` an update is one step of the optimiser toward each group in turn, the first on all rows
    that have a label of it, the next from where that led, on its own labelled rows only. A group that weighs 0, or
    has no label in the batch, makes no step: its own parameters keep still. Without it an update is one step on
    the weighted sum, and a task that weighs 0 has gradient 0; :meth:`backward` always is that sum. A penalty is part
    of every step.

    Parameters
    ----------
    schedule
        How lambda falls, see above. The authors found exponential best.
    sigma
        Epochs in which exponential, or errors that do not improve, divide lambda by e; positive. 40 as published.
    t1
        The epoch in which stairs and abridged_linear reach 0. 100 as published, where trainings took 5000 epochs:
        the patience of training must last longer, as the main tasks do not improve before.
    epochs
        The epochs of the training, at least 2: linear needs to know.
    share
        Lambda of constant, in [0, 1], and where errors starts, inside of that.
    groups
        The names of the tasks of each group, in the order in which they are trained. By default the auxiliary
        tasks, then the main ones.
    windows
        ``{task: [start, end]}``: such a task leaves the schedule: it weighs 1 up to epoch start, and falls linearly
        to 0 in epoch end. For several auxiliary tasks that leave one by one, as in structured output. A group all
        of whose tasks have windows keeps its turn and counts no more in the schedule.
    alternate
        Whether each group has a step of its own.
    cutoff
        A lambda below it counts as 0, in [0, 1): what steps that small would cost is saved. Not for errors.

    Raises
    ------
    ValueError
        For numbers out of their range, and (at setup) names of tasks that are not there, twice there or left out.

    References
    ----------
    S. Belharbi, R. Herault, C. Chatelain, S. Adam (2016). Deep multi-task learning with evolving weights. ESANN,
    141-146. Algorithm 1. The schedule errors is our own: the authors name weights driven by errors as a
    perspective. Windows are as in their later code for structured output (arXiv 1504.07550).

    Examples
    --------
    >>> tasks = [Task("passes", "binary", (0, 1)), Task("pixels", "regression", main=False)]
    >>> method = Evolving(schedule="stairs", t1=10).setup(tasks)
    >>> method.at_epoch(9, None, None)
    >>> method.backward(Losses(torch.tensor([0.7, 2.0], requires_grad=True) * 1))
    tensor([0., 1.])
    """

    def __init__(
        self,
        schedule: str = "exponential",
        sigma: float = 40.0,
        t1: int = 100,
        epochs: int | None = None,
        share: float = 0.5,
        groups: Sequence[Sequence[str]] | None = None,
        windows: Mapping[str, Sequence[int]] | None = None,
        alternate: bool = False,
        cutoff: float = 0.0,
    ) -> None:
        super().__init__()
        self.schedule, self.t1, self.epochs, self.alternate = schedule, t1, epochs, alternate
        self.sigma, self.share, self.cutoff = float(sigma), float(share), float(cutoff)
        self.groups = None if groups is None else [list(group) for group in groups]
        self.windows = {name: list(window) for name, window in (windows or {}).items()}
        self.partial = alternate
        self._check()

    def _check(self) -> None:
        last = math.inf if self.epochs is None else self.epochs
        if self.schedule not in SCHEDULES:
            raise ValueError(f"`schedule` must be one of {', '.join(SCHEDULES)}. Got {self.schedule!r}.")
        if not self.sigma > 0:
            raise ValueError(f"`sigma` must be positive. Got {self.sigma}.")
        if not 0 <= self.share <= 1 or (self.schedule == "errors" and self.share in (0, 1)):
            raise ValueError(f"`share` must be in [0, 1], for errors inside of it. Got {self.share}.")
        if not 0 <= self.cutoff < 1:
            raise ValueError(f"`cutoff` must be in [0, 1). Got {self.cutoff}.")
        if last < 2 or (self.schedule == "linear" and self.epochs is None):
            raise ValueError(f"`epochs` must be at least 2, and be given for linear. Got {self.epochs}.")
        if self.schedule in ("stairs", "abridged_linear") and not 1 <= self.t1 <= last:
            raise ValueError(f"`t1` must be at least 1 and at most `epochs` ({last}). Got {self.t1}.")
        for name, window in self.windows.items():
            if len(window) != 2 or not 0 <= window[0] < window[1] <= last:
                raise ValueError(
                    f"`windows` must be [start, end], 0 <= start < end <= `epochs` ({last}). Got {window} for {name!r}."
                )

    def setup(self, tasks: Sequence[Task]) -> Evolving:
        """Finds the group of each task, and the weights of epoch 0."""
        super().setup(tasks)
        self.factor: Tensor
        self.best: Tensor
        self.waited: Tensor
        self.register_buffer("factor", torch.ones(len(tasks)))
        self.register_buffer("best", torch.full((len(tasks),), math.inf))
        self.register_buffer("waited", torch.zeros(1))
        self._turns = [[self._names.index(name) for name in group] for group in self._order(tasks)]
        held = [[task for task in turn if self._names[task] not in self.windows] for turn in self._turns]
        self._evolving = [turn for turn in held if turn] if len(tasks) > 1 else self._turns
        self.at_epoch(0, None, None)
        return self

    def _order(self, tasks: Sequence[Task]) -> list[list[str]]:
        """The names of the tasks in each group."""
        usual = [[task.name for task in tasks if not task.main], [task.name for task in tasks if task.main]]
        groups = usual if self.groups is None else self.groups
        given = [name for group in groups for name in group]
        if len(tasks) == 1:  # a single-task problem sees one of the names
            return [[tasks[0].name]]
        strangers = (set(given) | set(self.windows)) - set(self._names)
        if strangers:
            raise ValueError(f"`groups` and `windows` must name tasks. Got {', '.join(sorted(strangers))}.")
        if sorted(given) != sorted(self._names):
            raise ValueError(f"`groups` must name each task once: {', '.join(self._names)}. Got {', '.join(given)}.")
        if not set(self._names) - set(self.windows):
            raise ValueError("`windows` must leave a task that weighs something to the end. All tasks have one.")
        return [group for group in groups if group]

    def at_epoch(self, epoch: int, losses: Tensor | None, errors: Tensor | None) -> None:
        """Sets the weights of the epoch."""
        if self.schedule == "errors" and errors is not None:
            self._wait(errors)
        share = self._share(epoch).unsqueeze(-1)
        factor = share.new_ones(len(share), len(self._names))
        *earlier, last = self._evolving
        for turn in earlier:
            factor[:, turn], factor[:, last] = share / len(earlier), 1 - share
        for name, (start, end) in self.windows.items():
            if len(self._names) > 1:
                factor[:, self._names.index(name)] = min(1.0, max(0.0, (end - epoch) / (end - start)))
        self.factor.copy_(factor.flatten())
        self._wanted = self._with_weight()

    def _with_weight(self) -> list[Tensor]:
        """The tasks of each group's step, Bool ``[task]``: those that weigh something; groups without one have none."""
        weighs = (self.factor.view(-1, len(self._names)) > 0).any(0)
        places = torch.arange(len(weighs), device=weighs.device)
        found = [weighs & torch.isin(places, places[turn]) for turn in self._turns]
        return [tasks for tasks in found if bool(tasks.any())]

    def _wait(self, errors: Float[Tensor, "*replica task"]) -> None:
        """Counts the epochs in which no task of the last group reached a new least error."""
        best = self.best.view_as(errors)
        better = (errors < best)[..., self._evolving[-1]].any(-1)  # NaN is no better
        self.waited.add_((~better).view_as(self.waited))
        best.copy_(torch.where(errors < best, errors, best))

    def _share(self, epoch: int) -> Float[Tensor, " replica"]:
        """Lambda in an epoch."""
        waited = self.waited.double()
        if self.schedule == "errors":  # never 0: replicas differ, and one that makes no step would not be alone
            return (self.share * (-waited / self.sigma).exp()).clamp(min=torch.finfo(self.factor.dtype).tiny)
        shares: dict[str, Callable[[], float]] = {
            "constant": lambda: self.share,
            "stairs": lambda: float(epoch < self.t1),
            "linear": lambda: max(0.0, 1 - epoch / ((self.epochs or 2) - 1)),
            "abridged_linear": lambda: max(0.0, 1 - epoch / self.t1),
            "exponential": lambda: math.exp(-epoch / self.sigma),
        }
        share = shares[self.schedule]()
        return torch.full_like(waited, share if share >= self.cutoff else 0.0)

    def total(self, losses: Losses) -> Tensor:
        """The weighted sum over tasks."""
        return (torch.where(losses.seen, self.factor.view_as(losses.value), 0) * losses.value).sum(-1)

    def step(self, closure: Callable[..., Losses], optimizer: Optimizer) -> tuple[Losses, Tensor]:
        """One step toward all tasks, or toward each group in turn."""
        if not self.alternate:
            return super().step(closure, optimizer)
        made = []
        for tasks in self._wanted:
            losses, weights = closure(tasks), torch.zeros_like(self.factor)
            if bool(losses.seen.any()):
                optimizer.zero_grad()
                weights = self.backward(losses)
                optimizer.step()
            made.append((losses, weights.view_as(losses.value)))
        return _joined([losses for losses, _ in made]), torch.stack([weights for _, weights in made]).sum(0)


def _joined(made: Sequence[Losses]) -> Losses:
    """The losses before each step as those of one update; a task whose group made no step is absent."""
    value = torch.stack([losses.value.detach() for losses in made]).sum(0)
    return Losses(value, torch.stack([losses.seen for losses in made]).any(0))
