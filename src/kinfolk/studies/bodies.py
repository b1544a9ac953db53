"""Networks with one layer that planted tasks share, many side by side, and how far they are from the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kinfolk.balancing import Fixed
from kinfolk.balancing.base import Balancing
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.sharing import Hard
from kinfolk.sharing.base import Sharing
from kinfolk.studies.planted import Covariances, Family, Labelled, values
from kinfolk.training.loop import Training
from kinfolk.training.network import Parts, Replica
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import Mlp

RATE, TEST = 0.03, 1000


@dataclass(frozen=True)
class Stack:
    """Networks of one kind, each with rows of its own.

    Attributes
    ----------
    problem
        The rows of all.
    members, about
        The networks, and what tells them apart.
    width, body
        Units of the shared layer, "linear" or "relu".
    sharing, balancing
        Make these anew.
    """

    problem: Problem
    members: Sequence[Replica]
    about: Sequence[tuple[int, ...]]
    width: int = 1
    body: str = "linear"
    sharing: Callable[[], Sharing] = Hard
    balancing: Callable[[], Balancing] = Fixed

    def training(self, updates: int) -> Training:
        """All rows in each update, without weight decay; the last update counts."""
        rows = max(len(one.train) for one in self.members)
        schedule = Schedule(updates, max(1, updates // 4), rows, updates + 1, min(20, updates))
        make = lambda: Parts(Mlp(self.width, 1, self.body), self.sharing(), self.balancing())  # noqa: E731
        return Training(self.problem, make, self.members, schedule)


def member(rows: Tensor, columns: tuple[int, ...], seed: int) -> Replica:
    """A network of these rows; nothing is stopped, so one row is enough to look at."""
    return Replica(rows, rows[:1], columns, seed, RATE, 0.0)


def numbers(training: Training) -> list[int]:
    """The networks that reached the end, in the order of the copies; others failed."""
    return training.network.number.tolist()


@torch.no_grad()
def outputs(training: Training, inputs: np.ndarray) -> np.ndarray:
    """``[network, task, row]`` from inputs ``[network, row, feature]``; all tasks have one output."""
    x = torch.tensor(inputs).to(training.problem.inputs)
    found = training.network.model.eval()(x).tasks
    return torch.stack([one.squeeze(-1) for one in found], 1).double().numpy()


def family_stack(families: Sequence[Family], together: bool, width: int, body: str) -> Stack:
    """All tasks of a family in one network, or a network for each; a row has the label of one task."""
    tasks, rows, _ = families[0].inputs.shape
    of_task = np.repeat(np.eye(tasks), rows, 0)
    labels = [np.where(of_task, one.labels.reshape(-1, 1), np.nan) for one in families]
    inputs = np.concatenate([one.inputs.reshape(tasks * rows, -1) for one in families])
    named = [Task(f"task {i}", "regression") for i in range(tasks)]
    problem = Problem.from_arrays(inputs, np.concatenate(labels), named)
    members, about = [], []
    for i in range(len(families)):
        own = i * tasks * rows + torch.arange(tasks * rows)
        parts = [(own, tuple(range(tasks)))] if together else [(part, (t,)) for t, part in enumerate(own.split(rows))]
        members += [member(part, columns, i) for part, columns in parts]
        about += [(i, *columns) for _, columns in parts]
    return Stack(problem, members, about, width, body)


def family_excess(training: Training, families: Sequence[Family], stack: Stack) -> dict[int, float]:
    """The mean over tasks of squared distances from the functions that were planted, by family."""
    drawn = np.random.default_rng(5).normal(size=(TEST, families[0].inputs.shape[-1]))
    found: dict[int, list[float]] = {}
    given = outputs(training, np.broadcast_to(drawn, (len(numbers(training)), *drawn.shape)))
    for number, output in zip(numbers(training), given, strict=True):
        i, *tasks = stack.about[number]
        for task, one in zip(tasks, output, strict=True):
            truth = values(drawn, families[i].thetas[task], stack.body)
            found.setdefault(i, []).append(float(np.square(one - truth).mean()))
    return {i: float(np.mean(all_tasks)) for i, all_tasks in found.items()}


@dataclass(frozen=True)
class Scaled:
    """Rows of a task with labels of variance 1 and inputs divided by one number for all tasks."""

    inputs: np.ndarray
    labels: np.ndarray
    factor: float  # of thetas, back to the scale of the law

    @classmethod
    def of(cls, rows: tuple[np.ndarray, np.ndarray], scale: float) -> Scaled:
        """From rows of the law."""
        deviation = float(rows[1].std())
        return cls(rows[0] / scale, rows[1] / deviation, deviation / scale)


def covariance_parts(law: Covariances, source: str, target_rows: int, rows: int) -> list[Scaled]:
    """The target's rows, and those of a source where there are some."""
    scale = float(np.sqrt(np.square(law.roots()["1"]).sum(0).mean()))
    parts = [Scaled.of(law.rows("1", target_rows), scale)]
    return [*parts, Scaled.of(law.rows(source, rows), scale)] if rows else parts


def covariance_stack(
    settings: Sequence[list[Scaled]], seeds: Sequence[int], sharing: Callable[[], Sharing], by_rows: bool
) -> Stack:
    """The target and a source (or the target alone) per network; a task's loss is a sum over rows, or a mean."""
    counts = [len(part.labels) for part in settings[0]]
    of_task = np.repeat(np.eye(len(counts)), counts, 0)
    labels = [np.where(of_task, np.concatenate([p.labels for p in parts])[:, None], np.nan) for parts in settings]
    inputs = np.concatenate([part.inputs for parts in settings for part in parts])
    names: tuple[str, ...] = ("target", "source")[: len(counts)]
    problem = Problem.from_arrays(inputs, np.concatenate(labels), [Task(name, "regression") for name in names])
    own = torch.arange(len(inputs)).split(sum(counts))
    columns = tuple(range(len(counts)))
    members = [member(rows, columns, seed) for rows, seed in zip(own, seeds, strict=True)]
    shares = [len(counts) * count / sum(counts) if by_rows else 1.0 for count in counts]
    weights: dict[str, float] = dict(zip(names, shares, strict=True)) if len(counts) > 1 else {}
    return Stack(problem, members, [(seed,) for seed in seeds], 1, "linear", sharing, lambda: Fixed(weights))


def target_thetas(training: Training, settings: Sequence[list[Scaled]]) -> dict[int, np.ndarray]:
    """What each network multiplies inputs with for task 1: its outputs for the unit vectors, less that for 0."""
    features = training.problem.inputs.shape[-1]
    probe = np.concatenate([np.zeros((1, features)), np.eye(features)])
    given = outputs(training, np.broadcast_to(probe, (len(numbers(training)), *probe.shape)))[:, 0]
    return {n: (one[1:] - one[0]) * settings[n][0].factor for n, one in zip(numbers(training), given, strict=True)}


def pair_stack(data: Sequence[Labelled], single: bool, balancing: Callable[[], Balancing]) -> Stack:
    """Every ordered pair of tasks (or every task alone), the second with labels of which some are random."""
    rows, tasks = data[0].clean.shape
    named = [Task(f"{kind} {i}", "binary", (0, 1)) for kind in ("clean", "noisy") for i in range(tasks)]
    labels = np.concatenate([np.concatenate([one.clean, one.noisy], 1) for one in data])
    problem = Problem.from_arrays(np.concatenate([one.inputs for one in data]), labels, named)
    pairs = [(i, tasks + j) for i in range(tasks) for j in range(tasks) if i != j]
    columns = [(i,) for i in range(2 * tasks)] if single else pairs
    about = [(i, *both) for i in range(len(data)) for both in columns]
    members = [member(i * rows + torch.arange(rows), tuple(both), i) for i, *both in about]
    return Stack(problem, members, about, balancing=balancing)


def areas(training: Training, data: Sequence[Labelled], stack: Stack) -> Iterator[tuple[int, int, float]]:
    """Seed, column and area under the ROC curve on clean test rows, of each task of each network."""
    order = numbers(training)
    given = outputs(training, np.stack([data[stack.about[n][0]].test_inputs for n in order]))
    tasks = data[0].test.shape[1]
    for number, output in zip(order, given, strict=True):
        i, *columns = stack.about[number]
        for column, scores in zip(columns, output, strict=True):
            yield i, column, area(data[i].test[:, column % tasks], scores)


def area(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))
