"""Deep-AMTL on the heads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kinfolk import replicas
from kinfolk.data.tasks import Task
from kinfolk.penalties import DeepAmtl
from kinfolk.sharing import Hard, Soft
from kinfolk.sharing.base import Outputs, Sharing
from kinfolk.trunks import Mlp

ALIKE = tuple(Task(name, "regression") for name in "abc")
MIXED = (Task("a", "regression"), Task("b", "multiclass", ("x", "y", "z")), Task("c", "regression"))


def build(
    tasks: tuple[Task, ...], penalty: DeepAmtl, sharing: Sharing | None = None
) -> tuple[Sharing, Outputs, DeepAmtl]:
    with replicas.own("network", 0):
        model = (sharing or Hard()).setup(Mlp(4), tasks, torch.Size([5])).double()
        penalty.setup(model, tasks).double()
    penalty.giving.data.normal_(generator=torch.Generator().manual_seed(0))
    return model, model(torch.randn(1, 7, 5, dtype=torch.float64)), penalty


def given(penalty: DeepAmtl) -> Tensor:
    return penalty.learned()["transfer"].values[0]


def test_it_starts_with_a_little_from_each_to_each_other() -> None:
    penalty = DeepAmtl().setup(build(ALIKE, DeepAmtl())[0], ALIKE)
    torch.testing.assert_close(given(penalty), (1 - torch.eye(3)) / 3)


def test_transfer_is_not_negative_and_never_to_itself() -> None:
    matrix = given(build(ALIKE, DeepAmtl())[2])
    assert bool((matrix >= 0).all())
    assert not bool(matrix.diagonal().any())
    assert bool((matrix + torch.eye(3) > 0).all())


def test_heads_by_hand() -> None:
    model, outputs, penalty = build(ALIKE, DeepAmtl(0.3, 0.2))
    losses = torch.tensor([[0.5, 2.0, 1.0]], dtype=torch.float64)
    weights, b = torch.cat([w[0] for w in outputs.heads], 1), given(penalty)  # [feature, task]
    expected = 0.3 * (b.sum(1) * losses[0]).sum() + 0.2 * (weights - weights @ b).square().sum()
    assert float(penalty(model, outputs, losses).detach()) == pytest.approx(float(expected))


def test_the_gradient_of_the_weights_is_the_papers() -> None:
    model, outputs, penalty = build(ALIKE, DeepAmtl(0, 0.2))
    penalty(model, outputs, torch.ones(1, 3).double()).sum().backward()
    weights, b = torch.cat([w[0] for w in outputs.heads], 1), given(penalty)
    apart = weights - weights @ b
    gradient = model.get_parameter("heads.layers.0.weight").grad
    assert gradient is not None
    torch.testing.assert_close(gradient.squeeze(-1).T, 0.4 * (apart - apart @ b.T))


def test_only_heads_of_one_size_are_compared() -> None:
    model, outputs, penalty = build(MIXED, DeepAmtl(0, 1))
    b = given(penalty)
    assert not bool(b[1].any() or b[:, 1].any())
    first, second, third = (w[0].detach() for w in outputs.heads)
    expected = (first - b[2, 0] * third).square().sum() + (third - b[0, 2] * first).square().sum()
    expected = expected + second.square().sum()
    assert float(penalty(model, outputs, torch.ones(1, 3).double()).detach()) == pytest.approx(float(expected))


@pytest.mark.parametrize("name", ["mu", "strength"])
def test_numbers_are_not_negative(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must not be negative. Got -1."):
        DeepAmtl(**{name: -1})


def test_all_heads_read_the_same_features() -> None:
    with pytest.raises(ValueError, match=r"`deep_amtl` needs .* hard. Got Soft."):
        build(ALIKE, DeepAmtl(), Soft())
