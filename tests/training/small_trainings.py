"""Small problems and trainings for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

import kinfolk.balancing
import kinfolk.sharing
from kinfolk.balancing import Fixed
from kinfolk.balancing.base import Balancing
from kinfolk.data.losses import alike
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.replicas import own
from kinfolk.sharing import Hard
from kinfolk.sharing.base import Sharing
from kinfolk.training.loop import Parts, Replica, Training
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import FromModules, Mlp
from kinfolk.trunks.base import Trunk

ROWS = 60
RATES = [1e-2, 1e-1, 1e-3]
DECAYS = [1e-2, 1.0, 0.0]

SHARINGS: list[type[Sharing]] = [
    v for v in vars(kinfolk.sharing).values() if isinstance(v, type) and issubclass(v, Sharing)
]
BALANCINGS: list[type[Balancing]] = [
    v for v in vars(kinfolk.balancing).values() if isinstance(v, type) and issubclass(v, Balancing)
]


class Tied(nn.Module):
    """A user's own layer: two uses of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.forth, self.back = nn.Linear(7, 7, bias=False), nn.Linear(7, 7)
        self.back.weight = self.forth.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.back(torch.tanh(self.forth(x)))


def users_own() -> nn.Sequential:
    with own("a user's module", 0):  # a module keeps the weights that it comes with
        return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(0.2), Tied())


TRUNKS: dict[str, Callable[[], Trunk]] = {
    "dropout, layer norm": lambda: Mlp(8, dropout=0.2, norm="layer"),
    "batch norm": lambda: Mlp(8, norm="batch", activation="relu"),
    "from modules": lambda: FromModules(users_own()),
}


# Every sharing over every trunk, and every balancing on one: all combinations would be thousands.
COMBINATIONS = [
    *((sharing, Fixed, trunk) for sharing in SHARINGS for trunk in TRUNKS),
    *((Hard, balancing, "dropout, layer norm") for balancing in BALANCINGS if balancing is not Fixed),
]


def mixed(missing: float = 0.3, weighted: bool = True, rows: int = ROWS) -> Problem:
    """Two regressions, three classes, two classes, and an auxiliary regression."""
    g = np.random.default_rng(0)
    x = g.normal(size=(rows, 5))
    columns = [x[:, 0] + x[:, 1], np.clip(np.round(x[:, 1] * 2), -1, 1) + 1, x[:, 2] > 0, x[:, 3] - x[:, 0], x[:, 4]]
    labels = np.stack(columns, 1) + np.array([1, 0, 0, 1, 1]) * 0.3 * g.normal(size=(rows, 5))
    labels = np.where(g.random(labels.shape) < missing, np.nan, labels)
    tasks = [
        Task("a", "regression"),
        Task("b", "multiclass", ("x", "y", "z")),
        Task("c", "binary", (0, 1)),
        Task("d", "regression"),
        Task("e", "regression", main=False),
    ]
    return Problem.from_arrays(x, labels, tasks, g.uniform(0.5, 2, rows) if weighted else None)


def parts(
    sharing: type[Sharing], balancing: type[Balancing], trunk: str = "dropout, layer norm"
) -> Callable[[], Parts]:
    return lambda: Parts(TRUNKS[trunk](), sharing(), balancing())


def groups(sharing: type[Sharing], tasks: Sequence[Task]) -> list[list[tuple[int, ...]]]:
    """The problems that a sharing makes of the tasks, those of like tasks together: what one stack can train."""
    found = sharing().problems(tasks)
    if len(found) == 1:
        return [found]
    assert all(len(columns) == 1 for columns in found)
    return [[found[i] for i in at] for at in alike([tasks[columns[0]] for columns in found])]


def member(problem: Problem, columns: tuple[int, ...], seed: int) -> Replica:
    """A replica with rows, a learning rate and a weight decay of its own. One task: on its own labelled rows."""
    order = torch.randperm(len(problem.inputs), generator=torch.Generator().manual_seed(seed))
    train, stop = order[: 40 - 3 * seed], order[40 : 60 - seed]
    if len(columns) == 1:
        train = train[problem.observed[train, columns[0]]]
    return Replica(train, stop, columns, seed, RATES[seed % 3], DECAYS[seed % 3])


SCHEDULE = Schedule(updates=36, every=4, batch=8, patience=8, warmup=6)
PATIENT = replace(SCHEDULE, patience=999)


def short(problem: Problem, make: Callable[[], Parts], one: Replica) -> Schedule:
    """The schedule with all phases together as long as one: rounding grows with the number of updates."""
    phases = Training(problem, make, [one], SCHEDULE).network.model.phases
    return replace(SCHEDULE, updates=SCHEDULE.updates // phases)


def train(
    problem: Problem,
    make: Callable[[], Parts],
    members: Sequence[Replica],
    schedule: Schedule = SCHEDULE,
    until: int | None = None,
) -> Training:
    training = Training(problem, make, members, schedule)
    training.run(until)
    return training


History = dict[int, dict[int, tuple[Tensor, Tensor, Tensor]]]


def histories(training: Training) -> History:
    """Replica -> update -> (loss while training, loss on the stop rows, weight)."""
    found: History = {}
    for updates, numbers, *shown in training.history:
        for i, (update, number) in enumerate(zip(updates.tolist(), numbers.tolist(), strict=True)):
            found.setdefault(number, {})[update] = (shown[0][i], shown[1][i], shown[2][i])
    return found


def assert_equal_but_for_rounding(stacked: Training, place: int, alone: Training) -> None:
    """The replica in a place of a stack is the one that trained alone: history, best updates, snapshots."""
    mine, theirs = histories(stacked)[place], histories(alone)[0]
    assert mine.keys() == theirs.keys()
    for update, shown in mine.items():
        for one, other in zip(shown, theirs[update], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10, equal_nan=True)
    torch.testing.assert_close(stacked.stopping.best[place], alone.stopping.best[0], rtol=1e-8, atol=1e-10)
    assert torch.equal(stacked.stopping.best_update[place], alone.stopping.best_update[0])
    snapshot = alone.stopping.snapshot(0)
    for name, tensor in stacked.stopping.snapshot(place).items():
        # Adam moves a bias before a batch norm by rounding alone: its gradient is 0.
        torch.testing.assert_close(tensor, snapshot[name], rtol=1e-6, atol=1e-7)
