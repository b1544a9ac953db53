"""DSelect-k: the step, the codes, the gates, and the penalty that belongs to them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from kinfolk import replicas
from kinfolk.data.tasks import Task
from kinfolk.penalties import GateEntropy
from kinfolk.sharing import DSelectK, Hard
from kinfolk.sharing.base import reach
from kinfolk.sharing.dselect_k import Selectors, smooth_step
from kinfolk.terms import parse
from kinfolk.trunks import Mlp

TASKS = (Task("a", "regression"), Task("b", "multiclass", ("x", "y", "z")), Task("c", "regression"))
INPUTS = torch.Size([5])


def built(**given) -> Any:
    return DSelectK(**given).setup(Mlp(6), TASKS, INPUTS)


def decide(model: DSelectK, logits: list[float]) -> None:
    """Sets the codes' logits of all selectors of all tasks."""
    model.gates.bias.data[..., : -model.k] = torch.tensor(logits)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 4.0])
def test_the_step(gamma: float) -> None:
    z = torch.linspace(-gamma, gamma, 41, dtype=torch.float64)
    cubic = -2 * z**3 / gamma**3 + 3 * z / (2 * gamma) + 0.5
    expected = torch.where(z <= -gamma / 2, 0.0, torch.where(z >= gamma / 2, 1.0, cubic))
    torch.testing.assert_close(smooth_step(z, gamma), expected)
    assert float(smooth_step(torch.zeros(()), gamma)) == 0.5
    ends = torch.tensor([-9 * gamma, -gamma / 2, gamma / 2, 9 * gamma], requires_grad=True)
    assert smooth_step(ends, gamma).tolist() == [0, 0, 1, 1]
    assert torch.autograd.grad(smooth_step(ends, gamma).sum(), ends)[0].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("gamma", [0.5, 1.0, 4.0])
def test_its_derivative(gamma: float) -> None:
    z = torch.tensor([0.0, 0.2 * gamma, -0.3 * gamma], dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(smooth_step(z, gamma).sum(), z)[0]
    torch.testing.assert_close(slope, 1.5 / gamma - 6 * z.detach() ** 2 / gamma**3)
    assert torch.autograd.gradcheck(lambda at: smooth_step(at, gamma), z)


@pytest.mark.parametrize("experts", [1, 2, 5, 8])
def test_codes(experts: int) -> None:
    """A selector's weight of expert 5 = 101 is S(z0) (1 - S(z1)) S(z2); over all codes they sum to 1."""
    gate = Selectors(experts, 1, 1.0, 0)
    gate.bias.data[..., :-1].mul_(40)
    weights = gate(torch.zeros(1, 4, 5))[0].flatten().tolist()
    steps = smooth_step(gate.bias[0, 0, :-1]).tolist()
    for i in range(experts):
        digits = [int(d) for d in f"{i:0{len(steps)}b}"][: len(steps)]
        expected = math.prod((s if d else 1 - s for s, d in zip(steps, digits, strict=True)), start=1.0)
        assert weights[i] == pytest.approx(expected, rel=1e-5)
    assert (sum(weights) == pytest.approx(1.0)) == (experts != 5)


def test_gates_mix_selectors_that_decided() -> None:
    model = built(experts=4, k=2)
    decide(model, [1.0, -1.0, -1.0, 1.0])  # experts 2 = 10 and 1 = 01
    x = torch.randn(1, 7, 5)
    outputs, trunks = model(x), model.trunks(x)
    mixture = model.gates.bias[:, 0, -2:].softmax(-1)
    for t in range(3):
        expected = mixture[t, 0] * trunks[:, 2] + mixture[t, 1] * trunks[:, 1]
        torch.testing.assert_close(outputs.features[t], expected)
        assert model.learned()["gates"].values[0, t, [0, 3]].tolist() == [0, 0]
    torch.cat([o.flatten() for o in outputs.tasks]).sum().backward()
    assert not model.gates.bias.grad[..., :-2].any()  # what is picked stays picked
    assert model.gates.bias.grad[..., -2:].any()


def test_a_code_at_rest_still_serves_its_task() -> None:
    model = built()
    decide(model, [3.0] * 4)
    found = reach(model, torch.randn(1, 3, 5))
    assert found["gates.bias"].tolist() == torch.eye(3, dtype=torch.bool).tolist()


def test_gates_per_example() -> None:
    model = replicas.stack([built(experts=3, k=2, per_example=True) for _ in range(2)])
    model.gates.weight.data.mul_(40)
    x = torch.randn(2, 7, 5)
    outputs, trunks = model(x), model.trunks(x)
    assert model.selectors.shape == (2, 3, 7, 2, 3)
    for r in range(2):
        for t in range(3):
            logits = x[r] @ model.gates.weight[3 * r + t] + model.gates.bias[3 * r + t]
            s, mixture = smooth_step(logits[:, :4]).view(7, 2, 2), logits[:, 4:].softmax(-1)
            codes = [(1 - s[..., 0]) * (1 - s[..., 1]), (1 - s[..., 0]) * s[..., 1], s[..., 0] * (1 - s[..., 1])]
            gates = (torch.stack(codes, -1) * mixture.unsqueeze(-1)).sum(1)
            expected = sum(gates[:, i, None] * trunks[r, i] for i in range(3))
            torch.testing.assert_close(outputs.features[t][r], expected)


def test_per_example_without_weights_is_one_for_all_rows() -> None:
    model, same = built(), built(per_example=True)
    same.gates.weight.data.zero_()
    same.load_state_dict({**same.state_dict(), **model.state_dict()})
    x = torch.randn(1, 7, 5)
    for one, other in zip(model(x).tasks, same(x).tasks, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("per_example", [False, True])
def test_one_expert_is_hard_sharing(per_example: bool) -> None:
    hard, model = Hard().setup(Mlp(6), TASKS, INPUTS), built(experts=1, k=1, per_example=per_example)
    named = {name.replace("trunk.", "trunks.stages."): t for name, t in hard.state_dict().items()}
    model.load_state_dict({**model.state_dict(), **named})
    x = torch.randn(1, 4, 5)
    for mine, theirs in zip(model(x).tasks, hard(x).tasks, strict=True):
        torch.testing.assert_close(mine, theirs)


def penalty_of(model: DSelectK, **given) -> torch.Tensor:
    penalty = GateEntropy(**given).setup(model, TASKS)
    outputs = model(torch.randn(len(model.gates.bias) // len(TASKS), 7, 5))
    return penalty(model, outputs, torch.zeros(len(outputs.tasks[0]), len(TASKS)))


@pytest.mark.parametrize("per_example", [False, True])
def test_entropy(per_example: bool) -> None:
    model = built(experts=4, k=2, per_example=per_example)
    if model.gates.weight is not None:
        model.gates.weight.data.zero_()
    decide(model, [0.0] * 4)  # every selector is uniform over 4
    value = penalty_of(model, strength=0.5)
    torch.testing.assert_close(value, torch.tensor([0.5 * 3 * 2 * math.log(4)]), rtol=1e-4, atol=0)
    decide(model, [1.0] * 4)
    assert float(penalty_of(model, strength=0.5).detach().abs()) < 1e-5


def test_codes_without_an_expert() -> None:
    model = built(experts=3, k=1)
    assert parse(model.penalty)[0].name == "gate_entropy"
    assert built(experts=4).penalty == ""
    decide(model, [0.0, 0.0])  # a quarter lies on the fourth code
    torch.testing.assert_close(penalty_of(model, strength=0.0), torch.tensor([3 * (4 / 3 - 1)]), rtol=1e-5, atol=0)
    penalty_of(model, strength=0.0).sum().backward()
    assert bool((model.gates.bias.grad[..., :2] > 0).all())  # going down leaves that code
    decide(model, [1.0, -1.0])
    assert float(penalty_of(model, strength=0.0).detach().abs()) < 1e-5
    assert not penalty_of(built(experts=4), strength=0.0).any()


def test_each_replica_has_its_own_penalty() -> None:
    apart = [built(experts=3) for _ in range(2)]
    expected = torch.cat([penalty_of(model, strength=0.1) for model in apart])
    torch.testing.assert_close(penalty_of(replicas.stack(apart), strength=0.1), expected)


def test_values_outside_their_range() -> None:
    with pytest.raises(ValueError, match=r"`experts` must be at least 1\. Got 0"):
        DSelectK(experts=0)
    for k in (0, 5):
        with pytest.raises(ValueError, match=rf"`k` must be in 1\.\.4, the number of experts\. Got {k}"):
            DSelectK(experts=4, k=k)
    with pytest.raises(ValueError, match=r"`gamma` must be positive\. Got 0"):
        DSelectK(gamma=0.0)
    with pytest.raises(ValueError, match="must be at least 0"):
        GateEntropy(strength=-1.0)
    hard = Hard().setup(Mlp(6), TASKS, INPUTS)
    with pytest.raises(ValueError, match=r"belongs to the sharing `dselect_k`\. Got hard"):
        GateEntropy().setup(hard, TASKS)
    model = built().eval()
    model(torch.randn(1, 2, 5))
    with pytest.raises(ValueError, match="kept while training"):
        _ = model.selectors
