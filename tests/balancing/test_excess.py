"""Excess risks: as TorchJD computes them, and what becomes of the state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torchjd.aggregation import ExcessMTL

from kinfolk.balancing import Excess, Losses
from kinfolk.data.tasks import Task

TASKS = [Task(name, "regression") for name in "abc"]


def gradients(updates: int) -> list[torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [torch.randn(3, 5) * torch.tensor([[1.0], [0.1], [2.0]]) for _ in range(updates)]


def test_it_is_the_librarys() -> None:
    """From an equal start, relative to the first risks."""
    theirs = ExcessMTL(robust_step_size=0.5, n_warmup_steps=1)
    ours = Excess(rate=0.5, warmup=1, reduction="mean").setup(TASKS)
    present = torch.ones(1, 3, dtype=torch.bool)
    for jacobian in gradients(4):
        torch.testing.assert_close(ours.combine(jacobian[None], present)[0], theirs(jacobian))


def test_a_task_that_stays_far_from_its_best_weighs_more() -> None:
    shared = nn.Parameter(torch.tensor([1.0, 1.0]))
    method = Excess(rate=0.5).setup(TASKS[:2])
    for size in (1.0, 0.1, 0.1):
        shared.grad = None
        weights = method.backward([shared[0] * 1.0, shared[1] * size], shared=[shared])
    assert weights.sum() == pytest.approx(2)
    assert float(weights[0]) > float(weights[1])
    assert shared.grad is not None
    torch.testing.assert_close(shared.grad, weights * torch.tensor([1.0, 0.1]))


def test_an_absent_task_keeps_its_state() -> None:
    method = Excess(rate=0.5).setup(TASKS)
    everything, some = torch.ones(1, 3, dtype=torch.bool), torch.tensor([[True, False, True]])
    one, two = gradients(2)
    method.combine(one[None], everything)
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    two[1] = 0
    update = method.combine(two[None], some)
    weights = torch.linalg.lstsq(two[[0, 2]].T, update[0]).solution
    assert float(weights.sum()) == pytest.approx(2, rel=1e-4)
    for name in ("logits", "first", "count"):
        assert method.state_dict()[name][1] == before[name][1]
    assert torch.equal(method.squares.view(3, 5)[1], before["squares"].view(3, 5)[1])


def test_a_fresh_method_takes_the_state_of_one_that_was_used() -> None:
    shared = nn.Parameter(torch.randn(4))
    used = Excess().setup(TASKS)
    losses = lambda: Losses(torch.stack([shared.sum(), shared[0] ** 2, shared[1] * 3]), shared=[shared])  # noqa: E731
    used.backward(losses())
    fresh = Excess().setup(TASKS)
    fresh.load_state_dict(used.state_dict())
    assert torch.equal(used.backward(losses()), fresh.backward(losses()))


def test_bad_input() -> None:
    given: dict[str, Any]
    for given in ({"rate": 0.0}, {"warmup": -1}, {"reduction": "none"}):
        with pytest.raises(ValueError, match=f"`{next(iter(given))}`"):
            Excess(**given)
