"""What each process of tests/test_distributed.py does: a module of its own, so that a fresh process can import it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from kinfolk import distributed
from kinfolk.balancing import Fixed, Uncertainty
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.sharing import Hard
from kinfolk.training.loop import Parts, Replica, Training
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import Mlp

ARMS: dict[str, Any] = {
    "fixed": lambda: Parts(Mlp(8), Hard(), Fixed({"a": 0.3})),
    "uncertainty": lambda: Parts(Mlp(8, norm="layer"), Hard(), Uncertainty()),
    "batch norm": lambda: Parts(Mlp(8, norm="batch"), Hard(), Uncertainty()),
}
PER = {"fixed": "expected"}


def problem() -> Problem:
    g = np.random.default_rng(0)
    x = g.normal(size=(60, 5))
    labels = np.stack([x[:, 0], (x[:, 1] > 0) + 0.0, np.digitize(x[:, 2], [-0.5, 0.5]), x[:, 3]], 1)
    labels[g.random(labels.shape) < 0.4] = np.nan
    tasks = [
        Task("a", "regression"),
        Task("b", "binary", (0, 1)),
        Task("c", "multiclass", (0, 1, 2)),
        Task("d", "regression"),
    ]
    return Problem.from_arrays(x, labels, tasks, g.uniform(0.5, 2, 60))


def train(arm: str) -> dict[str, Tensor]:
    """The final state of two replicas, one of which retires early; batches of 7, so shares are unequal."""
    rows = [torch.arange(40), torch.arange(5, 45)]
    members = [Replica(r, torch.arange(45, 60), (0, 1, 2, 3), s, (0.2, 0.01)[s], 0.1) for s, r in enumerate(rows)]
    schedule = Schedule(updates=24, every=3, batch=7, patience=6, warmup=2)
    training = Training(problem(), ARMS[arm], members, schedule, PER.get(arm, "batch"))
    training.run()
    return training.state()


def sums() -> dict[str, Tensor]:
    """Of a view that is not contiguous, and the gradient of a sum that normalises rows which differ by process."""
    rank = dist.get_rank() if distributed.processes() > 1 else 0
    rows = torch.arange(12.0).view(6, 2)[distributed.share()]
    weight = torch.ones(2, requires_grad=True)
    x = rows * weight
    centred = x - distributed.total(x.sum(0)) / 6
    loss = distributed.total(centred.pow(4).sum())
    (gradient,) = torch.autograd.grad(loss, weight)
    view = torch.arange(6.0).view(2, 3).t() * (1.0 if distributed.processes() == 1 else float(rank))
    return {"loss": loss.detach(), "gradient": distributed.mean(gradient), "view": distributed.total(view)}


def compute() -> dict[str, dict[str, Tensor]]:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    return {"sums": sums()} | {arm: train(arm) for arm in ARMS}


def process(rank: int, folder: str) -> None:
    """One of two processes: writes what it computed."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(compute(), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
