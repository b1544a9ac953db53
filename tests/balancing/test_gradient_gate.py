"""The gate against its definition, and what an auxiliary task may move."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kinfolk import replicas
from kinfolk.balancing import GradientGate, Losses
from kinfolk.balancing.gramian import Gramian
from kinfolk.data.tasks import Task

TASKS = [Task("a", "regression"), Task("b", "regression"), *(Task(n, "regression", main=False) for n in "cd")]
JACOBIAN = torch.tensor([[1.0, 0.0], [1.0, 2.0], [3.0, -1.0], [1.0, -4.0]])  # main sum: (2, 2)
EVERY = torch.ones(1, 4, dtype=torch.bool)


def weights(soft: bool = False, present: Tensor = EVERY, tasks: list[Task] = TASKS) -> list[float]:
    method = GradientGate(soft=soft).setup(tasks)
    return method.weights((JACOBIAN @ JACOBIAN.T).unsqueeze(0), present).squeeze(0).tolist()


def test_hard() -> None:
    assert weights() == [1, 1, 1, 0]


def test_soft() -> None:
    """The cosine of (3, -1) and (2, 2) is 4 / sqrt(80)."""
    assert weights(soft=True) == pytest.approx([1, 1, 4 / 80**0.5, 0])


def test_the_main_gradient_is_of_the_tasks_that_are_present() -> None:
    """Without b it is (1, 0), which c and d both go along with."""
    present = torch.tensor([[True, False, True, True]])
    assert weights(present=present) == [1, 1, 1, 1]
    assert weights(True, present) == pytest.approx([1, 1, 3 / 10**0.5, 1 / 17**0.5])


@pytest.mark.parametrize("soft", [False, True])
def test_nothing_to_oppose(soft: bool) -> None:
    assert weights(soft, torch.tensor([[False, False, True, True]])) == [1, 1, 1, 1]
    main = [Task(n, "regression") for n in "abcd"]
    assert weights(soft, EVERY, main) == [1, 1, 1, 1]


@pytest.mark.parametrize("method", [GradientGate(), GradientGate(soft=True)])
def test_a_closed_gate_leaves_the_head_learning(method: Gramian) -> None:
    method.setup([TASKS[0], TASKS[2]])
    trunk, heads = nn.Parameter(torch.ones(1, 2)), nn.Parameter(torch.ones(2, 1))
    value = torch.stack([(trunk * heads[0]).sum(), -2 * (trunk * heads[1]).sum()])
    assert method.backward(Losses(value, shared=[trunk])).tolist() == [1, 0]
    assert trunk.grad is not None
    assert heads.grad is not None
    assert trunk.grad.tolist() == [[1, 1]]
    assert heads.grad.tolist() == [[2], [-4]]


def test_replicas_each_have_their_gate() -> None:
    method = replicas.stack([GradientGate().setup(TASKS[1:3]) for _ in range(2)])
    gramian = torch.tensor([[[1.0, 0.5], [0.5, 1.0]], [[1.0, -0.5], [-0.5, 1.0]]])
    assert method.weights(gramian, torch.ones(2, 2, dtype=torch.bool)).tolist() == [[1, 1], [1, 0]]
