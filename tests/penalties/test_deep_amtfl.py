"""Deep-AMTFL's terms, each by itself and as a gradient."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from kinfolk import replicas
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.penalties import DeepAmtfl
from kinfolk.sharing import Hard, Soft
from kinfolk.sharing.base import Outputs, Sharing
from kinfolk.trunks import Mlp

TASKS = (Task("a", "binary", ("no", "yes")), Task("b", "multiclass", ("x", "y", "z")), Task("c", "regression"))


def build(sharing: Sharing | None = None) -> tuple[Sharing, Outputs, Tensor]:
    with replicas.own("network", 0):
        model = (sharing or Hard()).setup(Mlp(6, 2, "relu"), TASKS, torch.Size([5])).double()
    outputs = model(torch.randn(1, 7, 5, dtype=torch.float64))
    return model, outputs, torch.tensor([[0.5, 2.0, 1.0]], dtype=torch.float64)


def made(model: Sharing, penalty: DeepAmtfl) -> DeepAmtfl:
    with replicas.own("network", 0):
        return penalty.setup(model, TASKS).double()


def number(value: Tensor) -> float:
    return float(value.detach())


def test_without_alpha_and_gamma_heads_and_trunk_are_held_down() -> None:
    model, outputs, losses = build()
    found = number(made(model, DeepAmtfl(0, 0, 0.3, 0.2))(model, outputs, losses))
    heads = sum(
        float(p.detach().abs().sum())
        for name, p in model.named_parameters()
        if name.endswith("weight") and "heads" in name
    )
    trunk = sum(float(p.detach().square().sum()) for name, p in model.named_parameters() if "trunk" in name)
    assert found == pytest.approx(0.3 * heads + 0.1 * trunk)


def test_with_all_strengths_0_nothing_is_added() -> None:
    model, outputs, losses = build()
    assert number(made(model, DeepAmtfl(0, 0, 0, 0))(model, outputs, losses)) == 0


def test_without_feedback_features_are_held_down() -> None:
    model, outputs, losses = build()
    penalty = made(model, DeepAmtfl(0.1, 0.01, 0, 0, feedback=False))
    expected = 0.01 * number(outputs.features[0].square().sum((0, 2)).mean())
    assert number(penalty(model, outputs, losses)) == pytest.approx(expected)
    assert not any(p.requires_grad for p in penalty.parameters())


def test_the_reconstruction_by_hand() -> None:
    model, outputs, losses = build()
    penalty = made(model, DeepAmtfl(0, 2, 0, 0))
    a, h = penalty.matrix.detach()[0], outputs.features[0].detach()[0]
    assert a.shape == (5, 6)
    apart = h - (torch.cat([o.detach()[0] for o in outputs.tasks], 1) @ a).relu()
    assert number(penalty(model, outputs, losses)) == pytest.approx(2 * float(apart.square().sum(1).mean()))


def test_a_task_pays_by_its_loss_for_what_it_gives() -> None:
    model, outputs, losses = build()
    penalty = made(model, DeepAmtfl(0.1, 0, 0, 0, 0.001))
    penalty.rarity.copy_(torch.tensor([1.0, 2.0, 0.5]))
    gradient, moved = torch.autograd.grad(penalty(model, outputs, losses.requires_grad_()), [penalty.matrix, losses])
    price = torch.tensor([0.501, *[2.002] * 3, 1.0005], dtype=torch.float64)
    torch.testing.assert_close(gradient[0], 0.1 * penalty.matrix.detach()[0].sign() * price.unsqueeze(1))
    given = penalty.learned()["outgoing transfer"].values[0, :, 0]
    torch.testing.assert_close(moved[0], 0.1 * given)  # tasks that give much are to be learned well


def test_the_gradient_is_that_of_differences() -> None:
    model, outputs, losses = build()
    penalty = made(model, DeepAmtfl())

    def value(matrix: Tensor, offset: Tensor) -> Tensor:
        return torch.func.functional_call(penalty, {"matrix": matrix, "offset": offset}, (model, outputs, losses))

    start = [penalty.matrix.detach().sign() * (penalty.matrix.detach().abs() + 0.01), penalty.offset.detach() + 0.1]
    fixed = Outputs([o.detach() for o in outputs.tasks], [h.detach() for h in outputs.features])
    outputs = fixed
    assert torch.autograd.gradcheck(value, [one.requires_grad_() for one in start])


def test_features_heads_and_feedback_all_learn_from_the_reconstruction() -> None:
    model, outputs, losses = build()
    penalty = made(model, DeepAmtfl(0, 1, 0, 0))
    penalty.offset.data += 1  # no unit rests
    penalty(model, outputs, losses).sum().backward()
    for parameter in (*model.parameters(), *penalty.parameters()):
        assert parameter.grad is not None
        assert bool(parameter.grad.any())


def test_rare_tasks_are_counted_by_their_examples() -> None:
    labels = torch.zeros(12, 3).double()
    labels[:2, 0] = 1  # of a binary task the second class, where it is observed
    labels[2:6, 1] = torch.nan
    labels[6:, 2] = torch.nan
    problem = Problem.from_arrays(torch.randn(12, 5), labels.numpy(), TASKS)
    model = build()[0]
    penalty = made(model, DeepAmtfl())
    penalty.at_start(problem, torch.arange(1, 12), (0, 1, 2))
    counts = torch.tensor([1.0, 7.0, 5.0])
    torch.testing.assert_close(penalty.rarity.float(), (counts / counts.mean()).rsqrt())


def test_the_authors_constants_for_imbalanced_digits() -> None:
    tasks = [Task(str(k), "binary", ("other", str(k))) for k in range(10)]
    classes = torch.repeat_interleave(torch.arange(10), 20 * torch.arange(10, 0, -1))
    labels = (classes[:, None] == torch.arange(10)).double().numpy()
    problem = Problem.from_arrays(torch.randn(1100, 5), labels, tasks)
    model = Hard().setup(Mlp(6), tasks, torch.Size([5]))
    penalty = DeepAmtfl().setup(model, tasks)
    penalty.at_start(problem, torch.arange(1100), range(10))
    expected = [0.742, 0.782, 0.829, 0.886, 0.957, 1.049, 1.173, 1.354, 1.658, 2.345]
    torch.testing.assert_close(penalty.rarity, torch.tensor(expected), atol=6e-4, rtol=0)


@pytest.mark.parametrize("name", ["alpha", "gamma", "mu", "decay", "proxy"])
def test_numbers_are_not_negative(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must not be negative. Got -1."):
        DeepAmtfl(**cast(Any, {name: -1}))


def test_all_heads_read_the_same_features() -> None:
    with pytest.raises(ValueError, match=r"`deep_amtfl` needs .* hard. Got Soft."):
        made(build(Soft())[0], DeepAmtfl())
    with pytest.raises(ValueError, match=r"Got Hard with tasks that branch off."):
        made(build(Hard(branch={"a": 1}))[0], DeepAmtfl())
    with pytest.raises(ValueError, match=r"Got Hard with tasks that branch off."):
        made(build(Hard(split=1))[0], DeepAmtfl())
