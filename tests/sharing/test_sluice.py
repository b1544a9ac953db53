"""Sluice networks: the architectures that they contain, subspaces by hand, bad input."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from kinfolk import replicas
from kinfolk.data.tasks import Task
from kinfolk.sharing import CrossStitch, Hard, Sluice
from kinfolk.sharing.base import Sharing
from kinfolk.trunks import FromModules, Mlp
from kinfolk.trunks.base import Trunk

TASKS = (Task("a", "regression"), Task("b", "regression"), Task("c", "regression"))
INPUTS = torch.Size([5])


def build(
    sharing: Sharing, trunk: Trunk | None = None, tasks: Sequence[Task] = TASKS, inputs: torch.Size = INPUTS
) -> Sharing:
    with replicas.own("network", 0):
        return sharing.setup(trunk or Mlp(6, depth=3), tasks, inputs)


def test_one_subspace_read_at_the_end_is_cross_stitch() -> None:
    x = torch.randn(1, 7, 5)
    sluice, stitch = build(Sluice(1, 0.8, 0.2, last=1, alike=False)), build(CrossStitch(0.8, 0.2, alike=False))
    for one, other in zip(sluice(x).tasks, stitch(x).tasks, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("subspaces", [1, 2, 4])
def test_alike_trunks_averaged_subspace_by_subspace_are_hard_sharing(subspaces: int) -> None:
    """Also where 6 channels make no 4 equal subspaces."""
    x = torch.randn(1, 7, 5)
    sluice, hard = build(Sluice(subspaces, last=1)), build(Hard())
    shared = torch.kron(torch.full((3, 3), 1 / 3), torch.eye(subspaces)).unflatten(0, (3, subspaces))
    for alpha in sluice.get_submodule("alphas").parameters():
        alpha.data = shared.clone()
    for one, other in zip(sluice(x).tasks, hard(x).tasks, strict=True):
        torch.testing.assert_close(one, other)


def test_a_beta_on_a_lower_stage_is_supervision_there() -> None:
    x = torch.randn(1, 7, 5)
    sluice = build(Sluice(1, 1, 0, last=1))
    sluice.get_parameter("betas").data[1] = torch.tensor([0.0, 1.0, 0.0])
    lower, whole = build(Hard(), Mlp(6, depth=2)), build(Hard())
    torch.testing.assert_close(sluice(x).tasks[1], lower(x).tasks[1])
    torch.testing.assert_close(sluice(x).tasks[0], whole(x).tasks[0])


@pytest.mark.parametrize("images", [False, True])
def test_subspaces_are_mixed_as_the_equation(images: bool) -> None:
    module, inputs = (nn.Conv2d(2, 4, 3), torch.Size([2, 6, 6])) if images else (nn.Linear(5, 4), INPUTS)
    model = build(Sluice(2), FromModules([module]), TASKS[:2], inputs)
    for parameter in model.parameters():
        parameter.data.normal_()
    model.get_parameter("betas").data.fill_(1.0)
    x = torch.randn(1, 3, *inputs)
    raw = model.get_submodule("trunks.stages.0")(x.expand(2, *x.shape[1:])).unflatten(2, (2, 2))  # [task, row, s, c]
    alpha = model.get_parameter("alphas.0").detach().view(2, 2, 2, 2)  # [task, s, source, s]
    mixed = torch.einsum("tasb,snbc...->tnac...", alpha, raw)
    for t, feature in enumerate(model(x).features):
        torch.testing.assert_close(feature[0], mixed[t].flatten(1))


def test_where_it_starts() -> None:
    found = build(Sluice(2, 0.5, 0.5, last=0.8)).learned()
    assert set(found) == {"alphas after stage 0", "alphas after stage 1", "alphas after stage 2", "betas"}
    table = found["alphas after stage 0"]
    assert table.lines == ("a 1", "a 2", "b 1", "b 2", "c 1", "c 2")
    torch.testing.assert_close(table.values[0], torch.full((6, 6), 0.1).fill_diagonal_(0.5))
    betas = found["betas"]
    assert (betas.lines, betas.columns) == (("a", "b", "c"), ("stage 0", "stage 1", "stage 2"))
    torch.testing.assert_close(betas.values[0], torch.tensor([[0.1, 0.1, 0.8]]).expand(3, 3))


def test_only_stages_of_the_last_ones_shape_have_a_beta() -> None:
    model = build(Sluice(1), FromModules([nn.Linear(5, 8), nn.Linear(8, 4), nn.Tanh()]))
    assert model.learned()["betas"].columns == ("stage 1", "stage 2")
    assert build(Sluice(1), Mlp(6, depth=1), TASKS[:1]).learned()["betas"].values.tolist() == [[[1.0]]]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"subspaces": 0}, "`subspaces` must be at least 1. Got 0"),
        ({"same": 1.1}, r"`same` must be in \[0, 1\]"),
        ({"last": 2.0}, r"`last` must be in \[0, 1\]"),
        ({"rate": -1.0}, "`rate` must not be negative"),
    ],
)
def test_bad_arguments(given: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Sluice(**given)


def test_more_subspaces_than_channels() -> None:
    with pytest.raises(ValueError, match=r"`subspaces` must be at most the channels of each stage, 6\. Got 7"):
        build(Sluice(7))
