"""What each process of tests/test_distributed.py does: a module of its own, so that a fresh process can import it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

import kinfolk.balancing
from kinfolk import distributed
from kinfolk.balancing import Fixed, Losses, Uncertainty
from kinfolk.balancing.base import Balancing
from kinfolk.catalogue import CATALOGUES, parse
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.replicas import tick
from kinfolk.sharing import Hard
from kinfolk.training.loop import Parts, Replica, Training
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import Mlp

ARMS: dict[str, Callable[[], Parts]] = {
    "fixed": lambda: Parts(Mlp(8), Hard(), Fixed({"a": 0.3})),
    "uncertainty": lambda: Parts(Mlp(8, norm="layer"), Hard(), Uncertainty()),
    "batch norm": lambda: Parts(Mlp(8, norm="batch"), Hard(), Uncertainty()),
}
PER = {"fixed": "expected"}
EXPORTED = [v for v in vars(kinfolk.balancing).values() if isinstance(v, type) and issubclass(v, Balancing)]
WRITTEN = (
    "evolving(schedule=linear, epochs=3, alternate=True)",
    "mgda(at=features)",
    "pcgrad(every=2)",
    "task_stopping(k=1, epsilon=1e-9)",
    "upgrad(at=features, every=2)",
    "upgrad(memory=1e-4)",
)
BALANCINGS: dict[str, Callable[[], Balancing]] = {
    **{kind.__name__: kind for kind in EXPORTED},
    **{text: partial(CATALOGUES["balancing"].make, parse(text)[0]) for text in WRITTEN},
}
NORMS = {"no norm": None, "batch norm": "batch"}
LONG = Schedule(updates=24, every=3, batch=7, patience=6, warmup=2)
SHORT = Schedule(updates=6, every=2, batch=7, patience=6, warmup=2)
Computed = dict[str, dict[str, Tensor]]


def problem() -> Problem:
    g = np.random.default_rng(0)
    x = g.normal(size=(60, 5))
    labels = np.stack([x[:, 0], (x[:, 1] > 0) + 0.0, np.digitize(x[:, 2], [-0.5, 0.5]), x[:, 3]], 1)
    labels[g.random(labels.shape) < 0.4] = np.nan
    tasks = [
        Task("a", "regression"),
        Task("b", "binary", (0, 1)),
        Task("c", "multiclass", (0, 1, 2)),
        Task("d", "regression", main=False),
    ]
    return Problem.from_arrays(x, labels, tasks, g.uniform(0.5, 2, 60))


def start(make: Callable[[], Parts], schedule: Schedule, per: str = "batch") -> Training:
    """Two replicas, one of which may retire early; batches of 7, so shares are unequal."""
    rows = [torch.arange(40), torch.arange(5, 45)]
    members = [Replica(r, torch.arange(45, 60), (0, 1, 2, 3), s, (0.2, 0.01)[s], 0.1) for s, r in enumerate(rows)]
    return Training(problem(), make, members, schedule, per)


def train(make: Callable[[], Parts], schedule: Schedule, per: str = "batch") -> dict[str, Tensor]:
    """The final state."""
    training = start(make, schedule, per)
    training.run()
    return training.state()


def balanced(name: str, norm: str) -> dict[str, Tensor] | str:
    """The final state of a method with its defaults, or what it raised."""
    try:
        return train(lambda: Parts(Mlp(8, norm=NORMS[norm]), Hard(), BALANCINGS[name]()), SHORT)
    except Exception as error:  # the other methods are tried all the same
        return f"{type(error).__name__}: {error}"


def own_loop(name: str) -> dict[str, Tensor] | str:
    """A loop of one's own, as the documentation has it; a task without a label is absent."""
    torch.manual_seed(0)
    trunk, heads = nn.Sequential(nn.Linear(5, 6), nn.Tanh()), nn.ModuleList([nn.Linear(6, 1) for _ in range(3)])
    method = BALANCINGS[name]().setup([Task("a", "regression"), Task("b", "regression"), Task("c", "regression")])
    parameters = [*trunk.parameters(), *heads.parameters(), *method.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    weights, mine = [], distributed.share()
    for number, (x, y) in enumerate(zip(torch.randn(4, 7, 5), torch.rand(4, 7, 3) + 1, strict=True)):
        present = torch.tensor([True, number != 2, True])
        z = trunk(x[mine])
        squares = [((head(z)[:, 0] - y[mine, t]) * present[t]).square().sum() for t, head in enumerate(heads)]
        value, shared = distributed.total(torch.stack(squares)) / len(x), list(trunk.parameters())
        method.at_epoch(number, None, None)
        optimizer.zero_grad()
        try:
            weights.append(method.backward(Losses(value, present, None, shared, shared, [z] * 3)))
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        for parameter in parameters:
            parameter.grad = None if parameter.grad is None else distributed.mean(parameter.grad)
        optimizer.step()
        tick(method)
    return {"weights": torch.stack(weights).detach(), **trunk.state_dict(), **heads.state_dict()}


def cut() -> dict[str, Tensor]:
    """The state of a training whose time is over for one of the processes."""
    training = start(ARMS["fixed"], LONG)
    training.run(deadline=time.monotonic() + (1000.0 if distributed.rank() else 0.0))
    return training.state()


def sums() -> dict[str, Tensor]:
    """Of a view that is not contiguous, and the gradient of a sum that normalises rows which differ by process."""
    rank = distributed.rank()
    rows = torch.arange(12.0).view(6, 2)[distributed.share()]
    weight = torch.ones(2, requires_grad=True)
    x = rows * weight
    centred = x - distributed.total(x.sum(0)) / 6
    loss = distributed.total(centred.pow(4).sum())
    (gradient,) = torch.autograd.grad(loss, weight)
    view = torch.arange(6.0).view(2, 3).t() * (1.0 if distributed.processes() == 1 else float(rank))
    return {"loss": loss.detach(), "gradient": distributed.mean(gradient), "view": distributed.total(view)}


def compute() -> tuple[Computed, dict[str, dict[str, Tensor] | str]]:
    """What is known to work, and what every method gives."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    arms = {arm: train(make, LONG, PER.get(arm, "batch")) for arm, make in ARMS.items()}
    methods = {f"{name}, {norm}": balanced(name, norm) for name in BALANCINGS for norm in NORMS}
    loops = {f"{name}, loop": own_loop(name) for name in BALANCINGS}
    return {"sums": sums(), "cut": cut()} | arms, methods | loops


def process(rank: int, folder: str) -> None:
    """One of two processes: writes what it computed."""
    place, soon = f"file://{folder}/meeting", timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=place, rank=rank, world_size=2, timeout=soon)
    torch.save(compute(), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
