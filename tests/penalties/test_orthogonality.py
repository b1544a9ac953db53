"""Subspaces of a sluice network are kept apart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kinfolk import replicas
from kinfolk.data.tasks import Task
from kinfolk.penalties import Orthogonality
from kinfolk.sharing import Hard, Sluice
from kinfolk.sharing.base import Sharing
from kinfolk.trunks import FromModules, Mlp
from kinfolk.trunks.base import Trunk

TASKS = (Task("a", "regression"), Task("b", "regression"))
INPUTS = torch.Size([5])


def value(sharing: Sharing, trunk: Trunk, strength: float = 1.0, inputs: torch.Size = INPUTS) -> tuple[Tensor, Sharing]:
    with replicas.own("network", 0):
        model = sharing.setup(trunk, TASKS, inputs)
    penalty = Orthogonality(strength).setup(model, TASKS)
    return penalty(model, model(torch.randn(1, 3, *inputs)), torch.zeros(1, 2)), model


def test_two_subspaces_by_hand() -> None:
    found, model = value(Sluice(2), Mlp(6), 0.5)
    expected = 0.0
    for i in range(2):
        for weight in model.get_parameter(f"trunks.stages.{i}.0.weight").detach():
            expected += 0.5 * float((weight[:, :3].T @ weight[:, 3:]).square().sum())
    assert float(found.detach()) == pytest.approx(expected)


def test_users_modules_and_unequal_subspaces() -> None:
    found, model = value(Sluice(2), FromModules([nn.Linear(5, 3), nn.ReLU()]))
    weights = model.get_parameter("trunks.stages.0.weight").detach()  # torch's: [copy, output, input]
    assert float(found.detach()) == pytest.approx(sum(float((w[:2] @ w[2:].T).square().sum()) for w in weights))
    found, model = value(Sluice(2), FromModules([nn.Conv2d(2, 4, 3)]), inputs=torch.Size([2, 6, 6]))
    kernels = model.get_parameter("trunks.stages.0.weight").detach().flatten(2)
    assert float(found.detach()) == pytest.approx(sum(float((k[:2] @ k[2:].T).square().sum()) for k in kernels))


def test_orthogonal_weights_and_one_subspace_cost_nothing() -> None:
    model = value(Sluice(2), Mlp(4, depth=1))[1]
    model.get_parameter("trunks.stages.0.0.weight").data = torch.eye(5, 4).repeat(2, 1, 1)
    penalty = Orthogonality().setup(model, TASKS)
    assert not bool(penalty(model, model(torch.randn(1, 3, 5)), torch.zeros(1, 2)).any())
    found, model = value(Sluice(1), Mlp(4))
    found.sum().backward()
    assert float(found.detach()) == 0


def test_it_needs_subspaces() -> None:
    with pytest.raises(ValueError, match=r"needs a sharing with subspaces: sluice\. Got Hard"):
        value(Hard(), Mlp(4))
    with pytest.raises(ValueError, match=r"`strength` must not be negative\. Got -1"):
        Orthogonality(-1)
