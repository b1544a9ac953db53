"""What the experiments of one study share: trainings of many seeds as replicas, judged by their best epoch."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from kinfolk import replicas
from kinfolk.balancing.fixed import Fixed
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.runs import Folder
from kinfolk.sharing.hard import Hard
from kinfolk.studies.base import Finding, train
from kinfolk.training.loop import Training
from kinfolk.training.network import Parts, Replica
from kinfolk.training.optim import Sgd
from kinfolk.training.schedule import Schedule
from kinfolk.trunks.mlp import Mlp

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

Rows = list[dict[str, Any]]
Setting = Mapping[str, Any]


@dataclass(frozen=True)
class Backprop:
    """How networks of one hidden layer of sigmoid units are trained.

    Attributes
    ----------
    updates
        At most.
    rate, momentum
        Of gradient steps.
    batch
        Rows per update; None: all training rows.
    every
        Updates between two looks at the halting rows.
    patience
        Updates without improvement after which a network ends; None: it never does.
    init
        The law of the first weights, as of :class:`kinfolk.trunks.mlp.Mlp`.
    """

    updates: int
    rate: float
    momentum: float = 0.9
    batch: int | None = None
    every: int = 20
    patience: int | None = None
    init: str = "torch"

    def training(
        self,
        samples: Sequence[Sample],
        tasks: Sequence[Task],
        hidden: int,
        weights: Mapping[str, float] | None = None,
    ) -> Training:
        """A replica for each sample, number and seed its place; first weights as torch's layers have them."""
        start, members = 0, []
        for i, sample in enumerate(samples):
            rows = torch.arange(start, start := start + len(sample.inputs))
            members.append(
                Replica(rows[: sample.train], rows[sample.train :], tuple(range(len(tasks))), i, self.rate, 0.0)
            )
        inputs = np.concatenate([sample.inputs for sample in samples])
        labels = np.concatenate([sample.labels for sample in samples])
        batch = self.batch or max(sample.train for sample in samples)
        schedule = Schedule(self.updates, self.every, batch, self.patience or self.updates, 0, shape="constant")
        make = partial(_parts, hidden, self.init, dict(weights or {}), self.momentum)
        return Training(Problem.from_arrays(inputs, labels, tasks), make, members, schedule)


def _parts(hidden: int, init: str, weights: dict[str, float], momentum: float) -> Parts:
    trunk = Mlp(width=hidden, depth=1, activation="sigmoid", init=init)
    return Parts(trunk, Hard(), Fixed(weights), optimizer=partial(Sgd, momentum=momentum))


@dataclass(frozen=True)
class Sample:
    """The rows of one seed: the first ``train`` train, the others halt.

    Attributes
    ----------
    inputs, labels
        ``[row, feature]`` and ``[row, task]``; NaN is not observed.
    train
        How many train.
    """

    inputs: np.ndarray
    labels: np.ndarray
    train: int


def best(training: Training, task: int = 0) -> Any:
    """The network of all replicas, each as it was when the task was best on its halting rows."""
    model = training.network.model
    kept = {name: t[:, task].flatten(0, 1) for name, t in training.stopping.snapshots.items()}
    replicas.load(model, kept)
    return model.eval()


@torch.no_grad()
def outputs(model: Any, inputs: np.ndarray) -> list[np.ndarray]:
    """What replicas say about inputs ``[replica, row, feature]``: one ``[replica, row, size]`` per task."""
    like: Tensor = next(model.parameters())
    return [one.numpy() for one in model(torch.as_tensor(inputs).to(like)).tasks]


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def shuffled(labels: np.ndarray, seed: int) -> np.ndarray:
    """Labels ``[row, task]`` of other rows: each column in an order of its own."""
    random = np.random.default_rng([9, seed])
    return np.stack([random.permutation(column) for column in labels.T], 1)


class Experiment(ABC):
    """One part of a study: its settings are its trials."""

    name: ClassVar[str]
    """In words; the beginning of the names of its trials."""

    def settings(self, seeds: int, quick: bool) -> list[Setting]:
        """What each trial is told, in the types of JSON."""
        return [{"seeds": seeds, "quick": quick}]

    @abstractmethod
    def trainings(self, setting: Setting) -> dict[str, Callable[[], Training]]:
        """Makers of the trainings of a trial, by name of the arm."""

    @abstractmethod
    def measure(self, setting: Setting, arm: str, training: Training) -> Rows:
        """What a finished training shows."""

    @abstractmethod
    def findings(self, rows: pandas.DataFrame) -> list[Finding]:
        """Its lines of the table."""

    @abstractmethod
    def draw(self, rows: pandas.DataFrame, axes: Axes) -> None:
        """Its panel of the figure."""

    def run(self, setting: Setting, folder: Folder) -> Rows:
        """Trains one arm after the other."""
        rows: Rows = []
        for arm, make in self.trainings(setting).items():
            training = make()
            train(training, folder, arm.replace(" ", "_").replace(",", ""))
            rows += [row | {"experiment": self.name} for row in self.measure(setting, arm, training)]
        return rows

    def seconds(self, setting: Setting) -> float:
        """From the processor time of two epochs of each training after a first one."""
        total = 0.0
        for make in self.trainings(setting).values():
            training = make()
            every = training.schedule.every
            training.run(until=every)
            began = time.process_time()
            training.run(until=3 * every)
            total += (time.process_time() - began) / 2 * (training.last / every)
        return total


def row(arm: str, seed: int, measure: str, value: float, **more: Any) -> dict[str, Any]:
    """One measured number."""
    return {"arm": arm, "seed": seed, "measure": measure, "value": float(value), **more}


def part(rows: Any, **where: Any) -> Any:
    """The rows of a table with these entries; none where it has no such column."""
    for column, wanted in where.items():
        rows = rows[rows[column] == wanted] if column in rows else rows.iloc[:0]
    return rows


def values(rows: pandas.DataFrame, **where: Any) -> np.ndarray:
    """The values of the rows with these entries, in the order of seeds."""
    return part(rows, **where).sort_values("seed")["value"].to_numpy()
