"""One replica: what it is made of, how it is trained, and all of its state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Int
from torch import Tensor, nn

from kinfolk import replicas
from kinfolk.balancing.base import Balancing
from kinfolk.balancing.fixed import Fixed
from kinfolk.data.problem import Batch, Problem
from kinfolk.data.streams import Rows
from kinfolk.penalties.base import Penalty
from kinfolk.sharing.base import Sharing, reach
from kinfolk.training.optim import AdamW
from kinfolk.training.slices import SliceOptimizer, Tuned
from kinfolk.trunks.base import Trunk

NEEDS = {
    "last": "a last layer that all tasks share",
    "shared": "parameters that serve several tasks",
    "features": "features that several tasks read",
}
"""What a balancing may need of a sharing, in words."""


@dataclass(frozen=True)
class Parts:
    """What a replica is made of, fresh and without sizes; the optimiser is made from parameters, rate and decay."""

    trunk: Trunk
    sharing: Sharing
    balancing: Balancing
    penalties: tuple[Penalty, ...] = ()
    optimizer: Callable[[list[Tuned], float, float], SliceOptimizer] = AdamW


@dataclass(frozen=True)
class Replica:
    """How one replica is trained.

    Attributes
    ----------
    train, stop
        Row positions that train it, and that decide when each task was best.
    columns
        The tasks that it learns, as positions in the problem.
    seed
        Of its initial weights, its rows and its dropout.
    rate, decay
        Learning rate and weight decay.
    """

    train: Int[Tensor, " train"]
    stop: Int[Tensor, " stop"]
    columns: tuple[int, ...]
    seed: int
    rate: float
    decay: float


class Network(nn.Module):
    """One replica's network, balancing, penalties, optimiser and row stream; stacked, those of many.

    Its ``state_dict`` is the state of training. A network of one task has nothing to balance: whatever the balancing
    is, its loss weighs 1.

    Raises
    ------
    ValueError
        If the balancing needs something that the sharing has not, such as a last shared layer.
    """

    def __init__(self, problem: Problem, parts: Parts, one: Replica, batch: int, longest: int) -> None:
        super().__init__()
        self._tasks = tuple(problem.tasks[c] for c in one.columns)
        with replicas.own("replica", one.seed):
            self.model = parts.sharing.setup(parts.trunk, self._tasks, problem.inputs.shape[1:])
            balancing = parts.balancing if len(self._tasks) > 1 else Fixed()
            self.balancing = balancing.setup(self._tasks)
            self.balancing.at_start(problem, one.train, one.columns)
            self.model.at_start(problem, one.train, one.columns)
            plain = self.model.handed_over
            told = self._tasks if plain.made_for is None else plain.made_for.tasks
            self.penalties = nn.ModuleList([p.setup(plain, told) for p in parts.penalties])
            for penalty in parts.penalties:
                penalty.at_start(problem, one.train, one.columns[: len(told)])
            with replicas.own("rows"):
                self.rows = Rows(one.train, batch, longest)
        self.columns: Tensor
        self.number: Tensor
        self.register_buffer("columns", torch.tensor([one.columns]))
        self.register_buffer("number", torch.zeros(1, dtype=torch.int64))
        self._inputs = problem.inputs[:16]
        self.sparse = self.balancing.partial or self.balancing.active() is not None or not problem.complete
        self._several: set[str] | None = None
        self._check_needs()
        found = self._reach() if self.sparse else {}
        of_task = torch.eye(len(self._tasks), dtype=torch.bool)
        tuned = [Tuned(p, 1.0, 1.0, found.get(name)) for name, p in self.model.named_parameters()]
        tuned += [Tuned(p, 1.0, 0.0, of_task) for p in self.balancing.parameters()]
        tuned += [Tuned(p, 1.0, 0.0) for p in self.penalties.parameters()]
        self.optimizer = parts.optimizer(tuned, one.rate, one.decay)
        self.set_rates(0)

    def _check_needs(self) -> None:
        given = {"last": self.last_shared, "shared": self.shared, "features": self._common_features}
        for need in self.balancing.needs:
            if not given[need]():
                method, sharing = (
                    type(p).__module__.rpartition(".")[2] for p in (self.balancing, self.model.handed_over)
                )
                raise ValueError(
                    f"`{method}` needs {NEEDS[need]}, and `{sharing}` has none here. "
                    "Choose another sharing, as hard, or another balancing, as uncertainty."
                )

    @torch.no_grad()
    def _common_features(self) -> list[Tensor]:
        """The features that several tasks read."""
        if not self.model.through_features:
            return []
        inputs = self._inputs[:2].to(next(self.model.parameters()).device)
        features = self.model.eval()(inputs.unsqueeze(0)).features
        self.model.train()
        return [one for one in features if sum(one is other for other in features) > 1]

    def labelled(self, batch: Batch) -> Batch:
        """The batch without the labels of tasks that train no more."""
        active = self.balancing.active()
        if active is None:
            return batch
        active = active.view_as(batch.present)
        return replace(batch, weight=batch.weight * active.unsqueeze(1), present=batch.present & active)

    def parts(self) -> list[Sharing | Balancing | Penalty]:
        """What hears of epochs and learns something: the network, the balancing and the penalties."""
        return [self.model, self.balancing, *cast(Iterable[Penalty], self.penalties)]

    def shared(self) -> list[nn.Parameter]:
        """The parameters that serve several tasks, where the balancing asks for them."""
        if "shared" not in self.balancing.needs:
            return []
        if self._several is None:
            self._several = {name for name, one in self._reach().items() if bool((one.sum(1) > 1).any())}
        return [p for name, p in self.model.named_parameters() if name in self._several and p.requires_grad]

    def last_shared(self) -> list[nn.Parameter]:
        """The last layer that all tasks share, where the balancing asks for it."""
        return self.model.last_shared() if "last" in self.balancing.needs else []

    def set_rates(self, phase: int) -> None:
        """Gives every parameter its factor of the learning rate in a phase."""
        factors = self.model.rates(phase)
        rates = [
            next((f for prefix, f in factors.items() if name.startswith(prefix)), 1.0)
            for name, _ in self.model.named_parameters()
        ]
        own = self.balancing.rates()
        rates += [own.get(name, 1.0) for name, _ in self.balancing.named_parameters()]
        self.optimizer.set_rates(rates + [1.0] * len(list(self.penalties.parameters())))

    def restart(self, phase: int) -> None:
        """Begins a phase: an optimiser as new, for the network as it is now."""
        found, self._several = self._reach() if self.sparse else {}, None
        reach = [found.get(name) for name, _ in self.model.named_parameters()]
        others = (*self.balancing.parameters(), *self.penalties.parameters())
        kept = [self.optimizer.reach(len(reach) + i) for i in range(len(others))]
        self.optimizer.restart(reach + kept)
        self.set_rates(phase)

    def _reach(self) -> dict[str, Tensor]:
        """Which slices serve which task."""
        device = next(self.model.parameters()).device
        copies = len(self.number)
        found = reach(self.model, self._inputs.to(device).expand(copies, *self._inputs.shape))
        return {name: one.to(device) for name, one in found.items()}
