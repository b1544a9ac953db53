"""Every sharing over every kind of trunk: dense, images, residual, a user's own modules."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn

import kinfolk.sharing
from kinfolk import replicas
from kinfolk.data.tasks import Task
from kinfolk.sharing.base import Sharing
from kinfolk.trunks import FromModules, LeNet, Mlp, ResNet
from kinfolk.trunks.base import Trunk

TASKS = (Task("a", "regression"), Task("b", "multiclass", ("x", "y", "z")), Task("c", "binary", (0, 1)))
FOUND: list[type[Sharing]] = [
    v for v in vars(kinfolk.sharing).values() if isinstance(v, type) and issubclass(v, Sharing)
]


def users_own() -> FromModules:
    layers = [nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), nn.Sequential(nn.Flatten(), nn.Linear(144, 6), nn.Tanh())]
    return FromModules(layers, fresh=True)


TRUNKS: dict[str, tuple[Callable[[], Trunk], tuple[int, ...]]] = {
    "mlp": (lambda: Mlp(6, norm="batch"), (5,)),
    "lenet": (lambda: LeNet((4, 6), kernel=3, hidden=8), (1, 10, 10)),
    "lenet, flat": (lambda: LeNet((4,), kernel=3, hidden=8, shape=(1, 8, 8)), (64,)),
    "resnet": (lambda: ResNet((1, 1), width=4), (2, 6, 6)),
    "from modules": (users_own, (1, 8, 8)),
}


def build(kind: type[Sharing], trunk: str, tasks: Sequence[Task], seed: int) -> Sharing:
    make, inputs = TRUNKS[trunk]
    with replicas.own("network", seed):
        return kind().setup(make(), tasks, torch.Size(inputs)).double()


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("kind", FOUND, ids=lambda kind: kind.__name__)
def test_sharing_over_trunk(kind: type[Sharing], trunk: str) -> None:
    """Shapes are right, gradients finite, and a stack computes what its replicas compute alone."""
    for columns in kind().problems(TASKS):
        tasks = [TASKS[i] for i in columns]
        apart = [build(kind, trunk, tasks, seed) for seed in range(2)]
        together = replicas.stack([copy.deepcopy(one) for one in apart])
        x = torch.randn(2, 5, *TRUNKS[trunk][1], dtype=torch.float64)
        outputs = together(x)
        assert [tuple(output.shape) for output in outputs.tasks] == [(2, 5, task.size) for task in tasks]
        assert [feature.ndim for feature in outputs.features] == [3] * len(tasks)
        torch.stack([output.square().mean() for output in outputs.tasks]).sum().backward()
        gradients = [p.grad for p in together.parameters() if p.grad is not None]
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)
        assert any(bool(gradient.any()) for gradient in gradients)
        for i, one in enumerate(apart):
            for mine, alone in zip(outputs.tasks, one(x[i : i + 1]).tasks, strict=True):
                torch.testing.assert_close(mine[i], alone[0])
