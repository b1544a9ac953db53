"""Multi-gate mixture of experts against its limits: hard sharing and trunks apart."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kinfolk import replicas
from kinfolk.data.tasks import Task
from kinfolk.sharing import Hard, Mmoe
from kinfolk.sharing.base import Sharing
from kinfolk.sharing.copies import Copies
from kinfolk.trunks import FromModules, Mlp

TASKS = (Task("a", "regression"), Task("b", "multiclass", ("x", "y", "z")), Task("c", "regression"))
INPUTS = torch.Size([5])


def take(model: Sharing, other: nn.Module, mine: str, theirs: str) -> None:
    """Gives `model` the numbers of another network's parameters under another prefix."""
    of_model = dict(model.named_parameters())
    for name, parameter in other.named_parameters():
        if name.startswith(theirs):
            of_model[mine + name.removeprefix(theirs)].data.copy_(parameter)


def test_one_expert_is_hard_sharing() -> None:
    hard, model = Hard().setup(Mlp(6), TASKS, INPUTS), Mmoe(experts=1).setup(Mlp(6), TASKS, INPUTS)
    take(model, hard, "trunks.stages", "trunk")
    take(model, hard, "heads", "heads")
    x = torch.randn(1, 4, 5)
    for mine, theirs in zip(model(x).tasks, hard(x).tasks, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_gates_of_one_expert_each_are_trunks_apart() -> None:
    model = Mmoe(experts=3).setup(Mlp(6), TASKS, INPUTS)
    model.gates.weight.data.zero_()
    model.gates.bias.data.copy_(1e4 * torch.eye(3).unsqueeze(1))
    x = torch.randn(1, 4, 5)
    outputs, trunks = model(x), model.trunks(x)
    for t in range(3):
        assert torch.equal(outputs.features[t], trunks[:, t])
        gradients = torch.autograd.grad(outputs.tasks[t].sum(), list(model.trunks.parameters()), retain_graph=True)
        assert all(bool(g[i].any()) == (i == t) for g in gradients for i in range(3))


def test_gates_by_hand() -> None:
    model = replicas.stack([Mmoe(experts=3).setup(Mlp(6), TASKS, INPUTS) for _ in range(2)])
    x = torch.randn(2, 4, 5)
    outputs, trunks = model(x), model.trunks(x)
    weight, bias = (p.unflatten(0, (2, 3)) for p in (model.gates.weight, model.gates.bias))
    for r in range(2):
        for t in range(3):
            gates = (x[r] @ weight[r, t] + bias[r, t]).softmax(-1)
            mixed = sum(gates[:, i, None] * trunks[r, i] for i in range(3))
            torch.testing.assert_close(outputs.features[t][r], mixed)
            torch.testing.assert_close(model.learned()["gates"].values[r, t], gates.mean(0))


def test_dropout_of_gates() -> None:
    model = Mmoe(experts=4, dropout=0.5).setup(Mlp(6), TASKS, INPUTS)
    gates = model._mix(torch.randn(1, 200, 5))
    torch.testing.assert_close(gates.sum(-1), torch.ones(1, 3, 200))
    assert 0.35 < float((gates == 0).float().mean()) < 0.5  # a gate that would forget all forgets none
    assert not torch.equal(gates[0, 0] == 0, gates[0, 1] == 0)
    assert bool((model.eval()._mix(torch.randn(1, 200, 5)) > 0).all())


def test_any_stages_and_inputs() -> None:
    trunk = FromModules([nn.Conv2d(1, 2, 3), nn.ReLU()])
    model = Mmoe(experts=2).setup(trunk, TASKS, torch.Size([1, 6, 6]))
    assert model(torch.randn(1, 4, 1, 6, 6)).features[0].shape == (1, 4, 2 * 4 * 4)
    assert model.last_shared() == list(model.trunks.stages[0].parameters())


def test_learned_before_the_first_pass() -> None:
    model = Mmoe(experts=2).setup(Mlp(6), TASKS, INPUTS)
    gates = model.learned()["gates"]
    assert gates.lines == ("a", "b", "c")
    assert gates.columns == ("expert 0", "expert 1")
    assert gates.values.tolist() == [[[0.5, 0.5]] * 3]
    assert isinstance(model.trunks, Copies)


def test_values_outside_their_range() -> None:
    with pytest.raises(ValueError, match=r"`experts` must be at least 1\. Got 0"):
        Mmoe(experts=0)
    with pytest.raises(ValueError, match=r"`dropout` must be in \[0, 1\)\. Got 1"):
        Mmoe(dropout=1.0)
