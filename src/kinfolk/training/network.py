"""One replica: what it is made of, how it is trained, and all of its state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from kinfolk import replicas
from kinfolk.balancing.base import Balancing
from kinfolk.data.problem import Problem
from kinfolk.data.streams import Rows
from kinfolk.penalties.base import Penalty
from kinfolk.sharing.base import Sharing, reach
from kinfolk.training.optim import AdamW, Tuned
from kinfolk.trunks.base import Trunk


@dataclass(frozen=True)
class Parts:
    """What a replica is made of, fresh and without sizes."""

    trunk: Trunk
    sharing: Sharing
    balancing: Balancing
    penalty: Penalty | None = None


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
    """One replica's network, balancing, penalty, optimiser and row stream; stacked, those of many.

    Its ``state_dict`` is the state of training.
    """

    def __init__(self, problem: Problem, parts: Parts, one: Replica, batch: int, longest: int) -> None:
        super().__init__()
        self._tasks = tuple(problem.tasks[c] for c in one.columns)
        with replicas.own("replica", one.seed):
            self.model = parts.sharing.setup(parts.trunk, self._tasks, problem.inputs.shape[1:])
            self.balancing = parts.balancing.setup(self._tasks)
            self.penalty = None if parts.penalty is None else parts.penalty.setup(self.model, self._tasks)
            with replicas.own("rows"):
                self.rows = Rows(one.train, batch, longest)
        self.columns: Tensor
        self.number: Tensor
        self.register_buffer("columns", torch.tensor([one.columns]))
        self.register_buffer("number", torch.zeros(1, dtype=torch.int64))
        found = {} if problem.complete else reach(self.model, problem.inputs[:16].cpu().unsqueeze(0))
        self.optimizer = AdamW(self._tuned(found), one.rate, one.decay)

    def _tuned(self, found: dict[str, Tensor]) -> list[Tuned]:
        rates = self.model.rates
        tuned = [
            Tuned(p, next((f for prefix, f in rates.items() if name.startswith(prefix)), 1.0), 1.0, found.get(name))
            for name, p in self.model.named_parameters()
        ]
        of_task = torch.eye(len(self._tasks), dtype=torch.bool)
        tuned += [Tuned(p, 1.0, 0.0, of_task) for p in self.balancing.parameters()]
        return tuned + [Tuned(p, 1.0, 0.0) for p in ([] if self.penalty is None else self.penalty.parameters())]
