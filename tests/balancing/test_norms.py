"""Norms from the gradients at a layer's outputs equal those of the gradients themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from kinfolk import replicas
from kinfolk.balancing import Losses
from kinfolk.balancing.norms import Norms
from kinfolk.data.tasks import Task
from kinfolk.sharing import Hard, Mmoe
from kinfolk.sharing.base import Sharing
from kinfolk.trunks import Mlp

TASKS = [Task("a", "regression"), Task("b", "multiclass", ("x", "y", "z")), Task("c", "binary", (0, 1))]


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def expected(losses: Losses, lead: int) -> Tensor:
    """``[replica, task]`` by a gradient per task."""
    rows = [
        torch.autograd.grad(losses.value[..., t].sum(), losses.last, retain_graph=True)
        for t in range(losses.value.shape[-1])
    ]
    return torch.stack([replicas.per_replica(row, lead).norm(dim=1) for row in rows], 1)


def found(losses: Losses, lead: int) -> Tensor:
    norms = Norms(losses)
    every = [norms.of(t) for t in range(losses.value.shape[-1])]
    return torch.stack([one if one is not None else torch.full((lead,), torch.nan) for one in every], 1)


@pytest.mark.parametrize("rows", [1, 3, 7, 30])  # up to 7, fewer than inputs
@pytest.mark.parametrize("norm", [None, "layer", "batch"])
@pytest.mark.parametrize("kind", [Hard, Mmoe])
def test_in_a_network(kind: type[Sharing], norm: str | None, rows: int) -> None:
    torch.manual_seed(0)
    made = [kind().setup(Mlp(8, norm=norm), TASKS, torch.Size([5])) for _ in range(2)]
    model = replicas.stack(made)
    outputs = model(torch.randn(2, rows, 5))
    value = torch.stack([(y - i).square().mean((1, 2)) for i, y in enumerate(outputs.tasks)], 1)
    losses = Losses(value, None, None, (), model.last_shared(), outputs.features, outputs.tasks, outputs.heads)
    torch.testing.assert_close(found(losses, 2), expected(losses, 2))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [4, 30])
@pytest.mark.parametrize("twice", [False, True])
def test_in_a_loop_of_ones_own(bias: bool, rows: int, twice: bool) -> None:
    torch.manual_seed(0)
    below, layer, heads = nn.Linear(5, 8), nn.Linear(8, 8, bias=bias), [nn.Linear(8, 2) for _ in TASKS]
    x = layer(below(torch.randn(rows, 5)).tanh()).relu()
    x = layer(x).tanh() if twice else x  # a weight that is read twice has no one input
    losses = Losses(torch.stack([head(x).square().mean() for head in heads]), last=list(layer.parameters()))
    torch.testing.assert_close(found(losses, 1), expected(losses, 1))


def test_a_loss_apart() -> None:
    layer = nn.Linear(8, 8)
    apart = torch.ones((), requires_grad=True)
    losses = Losses(torch.stack([layer(torch.randn(3, 8)).square().mean(), apart]), last=list(layer.parameters()))
    assert Norms(losses).of(1) is None
    assert Norms(losses).of(0) is not None
