"""Balancing by the gradients that tasks send to what they share: weights from their Gramian, or their Jacobian."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kinfolk.balancing.base import Balancing, Losses
from kinfolk.balancing.passes import Passes, sum_of
from kinfolk.data.tasks import Task
from kinfolk.quantities import Quantity

PLACES = ("parameters", "features")
REDUCTIONS = ("native", "sum", "mean")


class Gramian(Balancing):
    """Weights of the tasks from the inner products of their gradients. A rule overrides :meth:`weights` alone.

    Shared parameters get the weighted sum of the tasks' gradients. Parameters of a single task, such as its head, get
    the gradient of its loss **without** a weight.

    Parameters
    ----------
    at
        Whose gradients: those of the shared "parameters", or of the "features" that all heads read. The latter costs
        about one backward pass instead of one per task, and is another matrix: it does not know the trunk.
    every
        The weights are found anew in each so many updates and kept between them.
    reduction
        "native" leaves the scale to the rule, "sum" and "mean" make equal gradients g of T tasks T g or g.
    memory
        MiB that the tasks' gradients may take at once. Where they need more, there are more passes back.

    Raises
    ------
    ValueError
        For a value out of its range, or a reduction of a rule whose scale is its own; in training for a loss that
        does not depend on what is shared.
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
            raise ValueError(f"`reduction` must be native: the rule has a scale of its own. Got {reduction!r}.")
        if not memory > 0:
            raise ValueError(f"`memory` must be positive. Got {memory}.")
        self.at, self.every, self.reduction, self.memory = at, every, reduction, float(memory)
        if at == "features":
            self.needs = ("features",)
        self._gathered = Gathered()

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
        mean = (self.native if self.reduction == "native" else self.reduction) == "mean"
        self.register_buffer("kept", torch.full((len(tasks),), 1 / len(tasks) if mean else 1.0))
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
        with torch.autocast(losses.value.device.type, enabled=False):
            passes = Passes(losses, self._names)
            passes = passes.at_parameters() if self.at == "parameters" else passes.at_features()
            if self.every == 1 or int(self.made) % self.every == 0:
                found = passes.gramian(self.memory) if self.at == "parameters" else passes.gramian_of_features()
                self._learn(found, passes.present)
            if self.every > 1:
                self.made.add_(1)
            weights = torch.where(passes.present, self.kept.view_as(passes.present), 0)
            passes.finish(weights)
        return weights.to(losses.value.dtype).view_as(losses.value)

    @torch.no_grad()
    def _learn(self, gramian: Tensor, present: Tensor) -> None:
        """Keeps the weights of a Gramian and its cosines, those of tasks that are present."""
        weights = self.weights(gramian, present)
        if self.reduction not in ("native", self.native):
            count = present.sum(-1, keepdim=True).clamp(min=1)
            weights = weights * count if self.reduction == "sum" else weights / count
        kept = self.kept.view_as(present)
        kept.copy_(torch.where(present, weights, kept))
        norm = gramian.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
        sizes = norm.unsqueeze(-1) * norm.unsqueeze(-2)
        cosines = torch.where(sizes > 0, gramian / torch.where(sizes > 0, sizes, 1), 0)
        seen = self.cosines.view_as(gramian)
        seen.copy_(torch.where(present.unsqueeze(-1) & present.unsqueeze(-2), cosines, seen))

    def learned(self) -> Mapping[str, Quantity]:
        """The cosines between the tasks' gradients, as they were last seen."""
        cosines = self.cosines.unflatten(0, (-1, len(self._names)))
        return {"gradient cosines": Quantity(cosines, self._names, self._names)}

    def gather(self, losses: Losses | Tensor | Sequence[Tensor], *, shared: Iterable[nn.Parameter] = ()) -> None:
        """Adds the tasks' gradients of one of several small batches, of which :meth:`release` makes an update.

        Each loss is divided by what the whole batch has of it. The gradients themselves are held, as the Gramian of a
        sum is not the sum of Gramians. Parameters of single tasks get theirs at once.

        Parameters
        ----------
        losses, shared
            As in :meth:`backward`.

        Raises
        ------
        ValueError
            If gradients are taken at features, or those of parameters need more than ``memory``.
        """
        if self.at == "features":
            raise ValueError("`at` must be parameters where small batches are gathered: features belong to one batch.")
        self._gathered.add(self.checked(losses, shared=shared), self._names, self.memory)

    def release(self) -> Float[Tensor, "*replica task"]:
        """Fills ``.grad`` of the shared parameters from all that was gathered, and returns the weights."""
        jacobian, passes, shape = self._gathered.taken()
        with torch.autocast(jacobian.device.type, enabled=False):
            self._learn(jacobian @ jacobian.mT, passes.present)
            weights = torch.where(passes.present, self.kept.view_as(passes.present), 0)
            passes.put(sum_of(jacobian, weights))
        return weights.view(shape)


class Jacobian(Balancing):
    """The update from the tasks' gradients themselves: for rules that look at each number of them.

    The gradients of all tasks are held at once: as many times the shared parameters as there are tasks. A rule
    overrides :meth:`combine`. Parameters of single tasks get the gradient of their loss without a weight.
    """

    needs = ("shared",)

    def __init__(self) -> None:
        super().__init__()
        self._gathered = Gathered()

    @abstractmethod
    def combine(
        self, jacobian: Float[Tensor, "replica task param"], present: Bool[Tensor, "replica task"]
    ) -> Float[Tensor, "replica param"]:
        """The gradient of the shared parameters; rows of absent tasks are 0 and are to be left out."""

    def gradients(self, losses: Losses) -> Tensor:
        """Fills ``.grad`` and returns the weights whose sum of gradients comes nearest. Not overridden."""
        with torch.autocast(losses.value.device.type, enabled=False):
            passes = Passes(losses, self._names).at_parameters()
            weights = self._put(passes, passes.rows())
            passes.finish_others()
        return weights.to(losses.value.dtype).view_as(losses.value)

    @torch.no_grad()
    def _put(self, passes: Passes, jacobian: Tensor) -> Tensor:
        update = self.combine(jacobian, passes.present)
        passes.put(update)
        inverse = torch.linalg.pinv((jacobian @ jacobian.mT).double(), hermitian=True).to(jacobian.dtype)
        nearest = inverse @ (jacobian @ update.unsqueeze(-1))
        return torch.where(passes.present, nearest.squeeze(-1), 0)

    def gather(self, losses: Losses | Tensor | Sequence[Tensor], *, shared: Iterable[nn.Parameter] = ()) -> None:
        """Adds the tasks' gradients of one of several small batches, of which :meth:`release` makes an update.

        Parameters
        ----------
        losses, shared
            As in :meth:`backward`; each loss is divided by what the whole batch has of it.
        """
        self._gathered.add(self.checked(losses, shared=shared), self._names)

    def release(self) -> Float[Tensor, "*replica task"]:
        """Fills ``.grad`` of the shared parameters from all that was gathered, and returns the nearest weights."""
        jacobian, passes, shape = self._gathered.taken()
        return self._put(passes, jacobian).view(shape)


class Gathered:
    """The gradients of tasks in the small batches of one update."""

    def __init__(self) -> None:
        self._jacobian: Tensor | None = None
        self._passes: Passes | None = None
        self._shape = torch.Size()

    def add(self, losses: Losses, names: Sequence[str], memory: float = float("inf")) -> None:
        """Adds those of one more, and fills ``.grad`` of the parameters that are not shared."""
        with torch.autocast(losses.value.device.type, enabled=False):
            passes = Passes(losses, names).at_parameters()
            if passes.size > memory:
                raise ValueError(
                    "To gather small batches, the gradients of all tasks must be held: the Gramian of a sum is not the "
                    f"sum of Gramians. They take {passes.size:.0f} MiB; `memory` allows {memory:.0f}."
                )
            rows = passes.rows()
            passes.finish_others()
        if self._jacobian is not None and self._passes is not None:
            rows, passes.present = self._jacobian.add_(rows), self._passes.present | passes.present
        passes.let_go()
        self._jacobian, self._passes, self._shape = rows, passes, losses.value.shape

    def taken(self) -> tuple[Tensor, Passes, torch.Size]:
        """The sum of gradients, what to fill, and the shape of the losses; nothing is held then."""
        if self._jacobian is None or self._passes is None:
            raise ValueError("Something must be gathered before it is released: call gather(losses, shared=...).")
        found = self._jacobian, self._passes, self._shape
        self._jacobian, self._passes = None, None
        return found
