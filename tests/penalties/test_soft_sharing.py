"""The soft sharing penalty: its forms and norms, what it couples, bad input."""

from __future__ import annotations

import copy
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from kinfolk import replicas
from kinfolk.data.tasks import Task
from kinfolk.penalties import SoftSharing
from kinfolk.sharing import CrossStitch, Hard, Nddr, Soft
from kinfolk.sharing.base import Sharing
from kinfolk.sharing.copies import Copies
from kinfolk.trunks import FromModules, Mlp
from kinfolk.trunks.base import Trunk

TASKS = (Task("a", "regression"), Task("b", "regression"), Task("c", "regression"))
INPUTS = torch.Size([5])


def build(sharing: Sharing | None = None, trunk: Trunk | None = None) -> Sharing:
    with replicas.own("network", 0):
        return (sharing or Soft(alike=False)).setup(trunk or Mlp(6, depth=3), TASKS, INPUTS)


def value(penalty: SoftSharing, model: Sharing, x: Tensor | None = None) -> Tensor:
    penalty.setup(model, TASKS)
    outputs = model(torch.randn(1, 4, 5) if x is None else x)
    return penalty(model, outputs, torch.zeros(1, 3))


def tensors(model: Sharing) -> list[Tensor]:
    return [p.detach() for p in model.get_submodule("trunks").parameters()]


def test_pairs_are_as_many_times_the_deviation_from_the_mean_as_tasks() -> None:
    model = build()
    pairs = sum((p[s] - p[t]).square().sum() for p in tensors(model) for s, t in combinations(range(3), 2))
    torch.testing.assert_close(3 * value(SoftSharing(0.5), model)[0], 0.5 * pairs)


def test_absolute_deviations() -> None:
    model = build()
    expected = sum((p - p.mean(0)).abs().sum() for p in tensors(model))
    torch.testing.assert_close(value(SoftSharing(1, "l1"), model)[0], expected)


def test_the_trace_norm_is_the_sum_of_singular_values() -> None:
    model = build()
    expected = sum(torch.linalg.matrix_norm(p.flatten(1), "nuc") for p in tensors(model))
    torch.testing.assert_close(value(SoftSharing(1, "trace"), model)[0], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("norm", ["l2", "l1", "trace"])
def test_equal_trunks_are_not_torn_apart(norm: str) -> None:
    model = build(Soft())
    value(SoftSharing(1, norm), model).sum().backward()
    for parameter in model.get_submodule("trunks").parameters():
        assert parameter.grad is not None
        apart = parameter.grad - parameter.grad.mean(0)
        assert float(apart.abs().max()) < 1e-3
        assert norm == "trace" or float(parameter.grad.abs().max()) < 1e-6


def test_chosen_stages() -> None:
    model = build()
    each = [value(SoftSharing(1, stages=[i]), model) for i in range(3)]
    torch.testing.assert_close(value(SoftSharing(1), model), sum(each))
    torch.testing.assert_close(value(SoftSharing(1, stages=[-1]), model), each[2])
    with pytest.raises(ValueError, match="`stages` must name some of the trunk's 3 stages"):
        SoftSharing(stages=[3]).setup(model, TASKS)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_activations(norm: str) -> None:
    model, x = build(), torch.randn(1, 4, 5)
    last = model.get_submodule("trunks")(x)[0]
    apart = last - last.mean(0)
    expected = (apart.square() if norm == "l2" else apart.abs()).sum() / 4
    torch.testing.assert_close(value(SoftSharing(1, norm, [-1], "activations"), model, x)[0], expected)


@pytest.mark.parametrize("kind", [Soft, CrossStitch, Nddr])
def test_activations_are_kept_only_where_asked_and_not_for_long(kind: type[Sharing]) -> None:
    model = build(kind())
    model(torch.randn(1, 4, 5))
    trunks = model.get_submodule("trunks")
    assert isinstance(trunks, Copies)
    assert trunks.kept() == []
    assert bool(value(SoftSharing(1, on="activations"), model).isfinite())
    copy.deepcopy(model)
    model.eval()(torch.randn(1, 4, 5))
    copy.deepcopy(model)


@pytest.mark.parametrize(
    "trunk",
    [
        Mlp(6, norm="batch"),
        FromModules([nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6)), nn.Linear(6, 6)]),
        FromModules([nn.Linear(5, 6), nn.BatchNorm1d(6)]),
    ],
)
def test_batch_norms_are_left_out(trunk: Trunk) -> None:
    model = build(Soft(), trunk)
    for name, parameter in model.get_submodule("trunks").named_parameters():
        if parameter.shape[1:] == (6,) and bool((parameter == 1).all()):
            parameter.data.normal_()
            assert "weight" in name
    assert float(value(SoftSharing(1), model).detach()) < 1e-9


def test_it_needs_a_trunk_per_task() -> None:
    with pytest.raises(ValueError, match=r"needs a sharing with a trunk per task: soft, cross_stitch, nddr\. Got"):
        SoftSharing().setup(build(Hard()), TASKS)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"strength": -1.0}, "`strength` must not be negative"),
        ({"norm": "l3"}, "`norm` must be one of l2, l1, trace. Got 'l3'"),
        ({"on": "gradients"}, "`on` must be 'weights' or 'activations'. Got 'gradients'"),
        ({"norm": "trace", "on": "activations"}, "`norm` must be 'l2' or 'l1' on activations"),
    ],
)
def test_bad_arguments(given: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SoftSharing(**given)
