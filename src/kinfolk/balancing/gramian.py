"""Balancing by the gradients that tasks send to shared parameters: weights from their Gramian, or their Jacobian."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kinfolk.balancing.base import Balancing, Losses
from kinfolk.data.tasks import Task
from kinfolk.quantities import Quantity

PLACES = ("parameters", "features")
REDUCTIONS = ("native", "sum", "mean")


class Gramian(Balancing):
    """Weights of the tasks from the inner products of their gradients. A rule overrides :meth:`weights` alone.

    Shared parameters get the weighted sum of the tasks' gradients, parameters of a single task the gradient of its
    loss without a weight.

    Parameters
    ----------
    at
        Whose gradients: those of the shared "parameters", or of the "features" that the heads read, which costs
        about one backward pass instead of one per task and is an upper bound of the other.
    every
        The weights are found anew in each so many updates and kept between them.
    reduction
        "native" leaves the scale to the rule, "sum" and "mean" make equal gradients g of T tasks T g or g.
    memory
        MiB that the tasks' gradients may take at once.
    """

    needs = ("shared",)

    native: str = "sum"
    """What the rule gives for equal gradients g of T tasks: "sum" T g, "mean" g, "own" something else."""

    def __init__(
        self, at: str = "parameters", every: int = 1, reduction: str = "native", memory: float = 512.0
    ) -> None:
        super().__init__()
        if at not in PLACES:
            raise ValueError(f"`at` must be one of {', '.join(PLACES)}. Got {at!r}.")
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Got {every}.")
        if reduction not in REDUCTIONS:
            raise ValueError(f"`reduction` must be one of {', '.join(REDUCTIONS)}. Got {reduction!r}.")
        if reduction != "native" and self.native == "own":
            raise ValueError(f"`reduction` must be 'native': the rule has a scale of its own. Got {reduction!r}.")
        if not memory > 0:
            raise ValueError(f"`memory` must be positive. Got {memory}.")
        self.at, self.every, self.reduction, self.memory = at, every, reduction, float(memory)
        if at == "features":
            self.needs = ("features",)

    @abstractmethod
    def weights(
        self, gramian: Float[Tensor, "replica task task"], present: Bool[Tensor, "replica task"]
    ) -> Float[Tensor, "replica task"]:
        """A weight for each task; those of absent tasks are ignored."""

    def setup(self, tasks: Sequence[Task]) -> Gramian:
        """Weights that are kept between updates, and the cosines that were seen last."""
        super().setup(tasks)
        self.kept: Tensor
        self.cosines: Tensor
        self.made: Tensor
        self.register_buffer("kept", torch.ones(len(tasks)))
        self.register_buffer("cosines", torch.eye(len(tasks)))
        self.register_buffer("made", torch.zeros((), dtype=torch.int64))
        return self

    def solve_present(
        self,
        gramian: Float[Tensor, "replica task task"],
        present: Bool[Tensor, "replica task"],
        solve: Callable[[Tensor], Tensor],
    ) -> Float[Tensor, "replica task"]:
        """Weights by ``solve``, ``[batch, t, t] -> [batch, t]``, of the Gramians of the present tasks alone.

        Replicas are grouped by which tasks are present. Absent tasks weigh 0.
        """
        if bool(present.all()):
            return solve(gramian)
        found = torch.zeros_like(gramian[..., 0])
        patterns, which = torch.unique(present, dim=0, return_inverse=True)
        for i, pattern in enumerate(patterns):
            at, tasks = (which == i).nonzero(), pattern.nonzero().flatten()
            if len(tasks):
                found[at, tasks] = solve(gramian[at.unsqueeze(-1), tasks.unsqueeze(-1), tasks])
        return found

    def gradients(self, losses: Losses) -> Tensor:
        """Fills ``.grad`` and returns the weights. Not overridden."""
        tasks = losses.value.shape[-1]
        value, present = losses.value.view(-1, tasks), losses.seen.view(-1, tasks)
        shared = [p for p in losses.shared if p.requires_grad]
        rows = [torch.autograd.grad(value[:, t].sum(), shared, retain_graph=True) for t in range(tasks)]
        jacobian = torch.stack([torch.cat([g.reshape(len(value), -1) for g in row], 1) for row in rows], 1)
        gramian = jacobian @ jacobian.mT
        weights = torch.where(present, self.weights(gramian, present), 0)
        whole = value.sum() if losses.penalty is None else value.sum() + losses.penalty.sum()
        whole.backward(retain_graph=True)
        more = torch.autograd.grad(((weights - 1) * value).sum(), shared)
        for parameter, extra in zip(shared, more, strict=True):
            if parameter.grad is not None:
                parameter.grad += extra
        return weights.view_as(losses.value)

    def learned(self) -> Mapping[str, Quantity]:
        """The cosines between the tasks' gradients, as they were last seen."""
        cosines = self.cosines.unflatten(0, (-1, len(self._names)))
        return {"gradient cosines": Quantity(cosines, self._names, self._names)}


class Jacobian(Balancing):
    """The update from the tasks' gradients themselves: for rules that look at each number of them.

    The gradients of all tasks are held at once: as many times the shared parameters as there are tasks.
    """

    needs = ("shared",)

    @abstractmethod
    def combine(
        self, jacobian: Float[Tensor, "replica task param"], present: Bool[Tensor, "replica task"]
    ) -> Float[Tensor, "replica param"]:
        """The gradient of the shared parameters; rows of absent tasks are 0 and are to be left out."""

    def gradients(self, losses: Losses) -> Tensor:
        """Fills ``.grad`` and returns the weights that come nearest. Not overridden."""
        tasks = losses.value.shape[-1]
        value, present = losses.value.view(-1, tasks), losses.seen.view(-1, tasks)
        shared = [p for p in losses.shared if p.requires_grad]
        rows = [torch.autograd.grad(value[:, t].sum(), shared, retain_graph=True) for t in range(tasks)]
        jacobian = torch.stack([torch.cat([g.reshape(len(value), -1) for g in row], 1) for row in rows], 1)
        update = self.combine(jacobian, present)
        whole = value.sum() if losses.penalty is None else value.sum() + losses.penalty.sum()
        whole.backward()
        extra = (update - jacobian.sum(1)).split([p.numel() // len(value) for p in shared], 1)
        for parameter, one in zip(shared, extra, strict=True):
            if parameter.grad is not None:
                parameter.grad += one.reshape(parameter.shape)
        nearest = torch.linalg.pinv(jacobian @ jacobian.mT, hermitian=True) @ jacobian @ update.unsqueeze(-1)
        return nearest.squeeze(-1).view_as(losses.value)
