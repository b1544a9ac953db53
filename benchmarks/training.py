"""How much time training takes: side by side against one after the other, and against a bare loop in torch.

    python benchmarks/training.py [rounds]

CPU time of one thread, per update of one network. The contestants take turns, so that what else the machine does
hits all of them; shown are medians over rounds with the spread (lowest to highest). A ratio is the median of the
ratios within rounds. Validation and set-up are not timed. KINFOLK_DATA may name the folder of data sets: then the
small table is student-por.csv, else random numbers of its size.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from kinfolk.balancing import Fixed
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.sharing import Hard, Independent
from kinfolk.sharing.base import Sharing
from kinfolk.training.loop import Parts, Replica, Training
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import Mlp

ROWS, INPUTS = 353, 60
Contestant = Callable[[], float]
"""Trains, and returns seconds of CPU time per update of one network."""


def students() -> tuple[np.ndarray, np.ndarray]:
    """60 inputs and the three grades of 353 pupils, all standardised."""
    folder = os.environ.get("KINFOLK_DATA")
    path = Path(folder or ".") / "student_performance" / "student-por.csv"
    if folder and path.is_file():
        import pandas as pd

        table = pd.get_dummies(pd.read_csv(path)).to_numpy(dtype=np.float64)[:ROWS]
        labels, inputs = table[:, 13:16], np.delete(table, [13, 14, 15], 1)
        inputs = np.pad(inputs, ((0, 0), (0, max(0, INPUTS - inputs.shape[1]))))[:, :INPUTS]
    else:
        g = np.random.default_rng(0)
        inputs = g.normal(size=(ROWS, INPUTS))
        labels = inputs[:, :3] + g.normal(size=(ROWS, 3))
    scale = lambda a: ((a - a.mean(0)) / np.maximum(a.std(0), 1e-9)).astype(np.float32)  # noqa: E731
    return scale(inputs), scale(labels)


def training(
    problem: Problem, members: list[Replica], sharing: type[Sharing], trunk: Mlp, updates: int, batch: int
) -> Training:
    schedule = Schedule(updates, every=updates, batch=batch, patience=updates, warmup=10)
    return Training(problem, lambda: Parts(trunk, sharing(), Fixed()), members, schedule)


def timed(*trainings: Training) -> float:
    start = time.process_time()
    for one in trainings:
        for _ in range(one.schedule.updates):
            one._update()
    return time.process_time() - start


def regressions(n: int) -> list[Task]:
    return [Task(f"t{i}", "regression") for i in range(n)]


def side_by_side(width: int, replicas: int = 30, updates: int = 50) -> dict[str, Contestant]:
    inputs, labels = students()
    problem = Problem.from_arrays(inputs, labels, regressions(3))
    rows = torch.arange(ROWS)
    members = [Replica(rows, rows[:1], (0, 1, 2), seed, 3e-3, 0.01) for seed in range(replicas)]
    make = lambda some: training(problem, some, Hard, Mlp(width), updates, 32)  # noqa: E731
    return {
        "side by side": lambda: timed(make(members)) / updates / replicas,
        "one after the other": lambda: timed(*(make([one]) for one in members)) / updates / replicas,
    }


def single_task(width: int, tasks: int = 10, updates: int = 100) -> dict[str, Contestant]:
    """Every task has labels on 70 % of the rows of its own; alone, it knows of no other rows or tasks."""
    g = np.random.default_rng(0)
    inputs = g.normal(size=(ROWS, INPUTS)).astype(np.float32)
    labels = np.where(g.random((ROWS, tasks)) < 0.3, np.nan, inputs[:, :tasks] + g.normal(size=(ROWS, tasks)))
    whole = Problem.from_arrays(inputs, labels, regressions(tasks))
    labelled = [torch.arange(ROWS)[whole.observed[:, t]] for t in range(tasks)]
    members = [Replica(rows, rows[:1], (t,), 0, 3e-3, 0.01) for t, rows in enumerate(labelled)]

    def alone(task: int) -> Training:
        at = labelled[task].numpy()
        own = Problem.from_arrays(inputs[at], labels[at, task : task + 1], regressions(1))
        rows = torch.arange(len(at))
        return training(own, [Replica(rows, rows[:1], (0,), 0, 3e-3, 0.01)], Independent, Mlp(width), updates, 32)

    together = lambda: training(whole, members, Independent, Mlp(width), updates, 32)  # noqa: E731
    return {
        "side by side": lambda: timed(together()) / updates / tasks,
        "one after the other": lambda: timed(*(alone(task) for task in range(tasks))) / updates / tasks,
    }


def bare(inputs: torch.Tensor, target: torch.Tensor, sizes: list[int], batch: int, updates: int, fused: bool) -> float:
    """What one writes by hand: torch's modules, AdamW, shuffled rows."""
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.SiLU())]
    model = nn.Sequential(*layers[:-1])
    loss = F.cross_entropy if target.dtype == torch.int64 else F.mse_loss
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=fused)
    order, at = torch.randperm(len(inputs)), 0
    start = time.process_time()
    for _ in range(updates):
        if at + batch > len(inputs):
            order, at = torch.randperm(len(inputs)), 0
        rows = order[at : at + batch]
        at += batch
        optimizer.zero_grad()
        loss(model(inputs[rows]), target[rows]).backward()
        optimizer.step()
    return (time.process_time() - start) / updates


def against_bare(
    problem: Problem, target: torch.Tensor, trunk: Mlp, sizes: list[int], batch: int, updates: int
) -> dict[str, Contestant]:
    rows = torch.arange(len(problem.inputs))
    one = [Replica(rows, rows[:1], tuple(range(len(problem.tasks))), 0, 3e-3, 0.01)]
    return {
        "kinfolk": lambda: timed(training(problem, one, Hard, trunk, updates, batch)) / updates,
        "bare loop": lambda: bare(problem.inputs, target, sizes, batch, updates, fused=False),
        "bare loop, fused": lambda: bare(problem.inputs, target, sizes, batch, updates, fused=True),
    }


def images(updates: int = 150) -> dict[str, Contestant]:
    g = np.random.default_rng(0)
    inputs, digits = g.random((10_000, 784), dtype=np.float32), g.integers(10, size=10_000)
    problem = Problem.from_arrays(inputs, digits[:, None], [Task("digit", "multiclass", tuple(range(10)))])
    return against_bare(problem, torch.as_tensor(digits), Mlp(256, depth=1), [784, 256, 10], 128, updates)


def small(updates: int = 600) -> dict[str, Contestant]:
    inputs, labels = students()
    problem = Problem.from_arrays(inputs, labels, regressions(3))
    return against_bare(problem, torch.as_tensor(labels), Mlp(64), [INPUTS, 64, 64, 3], 32, updates)


BENCHMARKS: dict[str, tuple[Callable[[], dict[str, Contestant]], float]] = {
    "30 replicas of 2x64, batch 32": (lambda: side_by_side(64), 0.15),
    "30 replicas of 2x128, batch 32": (lambda: side_by_side(128), 0.35),
    "independent: 10 tasks of 2x64": (lambda: single_task(64), 0.5),
    "independent: 10 tasks of 2x256": (lambda: single_task(256), 1.05),
    "one 784-256-10, batch 128": (images, 1.2),
    "one 2x64, batch 32": (small, 1.5),
}


def lines(name: str, contestants: dict[str, Contestant], bound: float, rounds: int) -> Iterator[str]:
    """The rows of the table: the first contestant against each of the others."""
    seconds = {who: [run()][:0] for who, run in contestants.items()}  # a first round that does not count
    for _ in range(rounds):
        for who, run in contestants.items():
            seconds[who].append(run())
    first, *others = seconds
    shown = {
        who: f"{statistics.median(s) * 1e3:.3f} ({min(s) * 1e3:.3f} to {max(s) * 1e3:.3f})"
        for who, s in seconds.items()
    }
    for other in others:
        ratios = [a / b for a, b in zip(seconds[first], seconds[other], strict=True)]
        ratio = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        yield f"| {name} | {first}: {shown[first]} | {other}: {shown[other]} | {ratio} | {bound} |"


def main() -> None:
    torch.set_num_threads(1)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    print("| network | ms per update of one network | against | ratio | at most |\n|---|---|---|---|---|")
    for name, (make, bound) in BENCHMARKS.items():
        for line in lines(name, make(), bound, rounds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
