"""GradNorm against its equations: the first step, the fixed point, what it keeps for whom."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from kinfolk import replicas
from kinfolk.balancing import GradNorm, Losses
from kinfolk.data.tasks import Task

TWO = [Task("a", "regression"), Task("b", "regression")]


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def losses(values: list[float], norms: list[float], present: list[bool] | None = None) -> Losses:
    """Losses with given values and norms of their gradients at a layer."""
    layer = nn.Parameter(torch.zeros(len(values)))
    value = torch.tensor(values) + layer * torch.tensor(norms)
    return Losses(value, None if present is None else torch.tensor(present), None, last=[layer])


def test_the_first_step() -> None:
    """The summed distance to the target is 9, its gradient (-1, 10)."""
    method = GradNorm(steps="sgd").setup(TWO)
    assert method.backward(losses([3.0, 7.0], [1.0, 10.0])).tolist() == [1, 1]
    assert method.weight.tolist() == pytest.approx([1.154930, 0.845070], abs=1e-6)
    assert method.backward(losses([3.0, 7.0], [1.0, 10.0])).tolist() == pytest.approx([1.154930, 0.845070], abs=1e-6)


def test_adams_first_step_has_the_length_of_the_rate() -> None:
    method = GradNorm(rate=0.1).setup(TWO)
    method.backward(losses([3.0, 7.0], [1e-3, 1e-2]))
    assert method.weight.tolist() == pytest.approx([1.1, 0.9], abs=1e-5)


def settled(then: list[float], **given: object) -> list[float]:
    """Weights after many updates with gradient norms 1 and 10 and initial losses 1."""
    method = GradNorm(rate=0.001, **given).setup(TWO)  # type: ignore[arg-type]
    method.backward(losses([1.0, 1.0], [1.0, 10.0]))
    for _ in range(1500):
        method.backward(losses(then, [1.0, 10.0]))
    return method.weight.tolist()


@pytest.mark.parametrize("steps", ["sgd", "adam"])
def test_the_fixed_point(steps: str) -> None:
    """Proportional to r^alpha / g; an L1 distance jitters around it by a step."""
    assert settled([0.5, 0.1], alpha=0.0, steps=steps) == pytest.approx([1.818182, 0.181818], abs=0.02)
    assert settled([0.25, 0.75], alpha=1.0, steps=steps) == pytest.approx([20 / 13, 6 / 13], abs=0.02)
    found = settled([0.25, 0.75], alpha=1.5, steps=steps, attainable=True)
    assert found == pytest.approx([1.316123, 0.683877], abs=0.02)


def test_published_targets_cannot_all_be_met() -> None:
    """The mean of r^1.5 is 1.095: the second norm rests at its target, the first stays below."""
    first, second = settled([0.25, 0.75], alpha=1.5, steps="sgd")
    norms = first, 10 * second
    mean = sum(norms) / 2
    assert norms[1] == pytest.approx(mean * 1.5**1.5, rel=0.02)
    assert norms[0] < 0.5 * mean * 0.5**1.5


def test_the_sum_is_the_number_of_tasks() -> None:
    tasks = [Task(name, "regression") for name in "abc"]
    method = GradNorm(rate=1.0, steps="sgd").setup(tasks)
    for step in range(5):
        method.backward(losses([1.0, 2.0 + step, 3.0], [1.0, 20.0, 0.3]))
        assert float(method.weight.sum()) == pytest.approx(3)
        assert bool((method.weight > 0).all())  # a step of 20 would have made one negative


def test_absent_tasks_keep_their_state() -> None:
    tasks = [Task(name, "regression") for name in "abc"]
    method = GradNorm(steps="sgd").setup(tasks)
    method.backward(losses([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]))
    before = {name: state.clone() for name, state in method.named_buffers()}
    given = method.backward(losses([1.0, 0.0, 5.0], [1.0, 0.0, 2.0], [True, False, True]))
    assert given[1] == 0
    for name, state in method.named_buffers():
        if state.ndim:
            assert state[1] == before[name][1], name
    assert float(method.weight.sum()) == pytest.approx(3)
    assert method.weight[0] != before["weight"][0]


def test_a_task_that_comes_late_is_measured_then() -> None:
    method = GradNorm(steps="sgd").setup(TWO)
    method.backward(losses([2.0, 0.0], [1.0, 0.0], [True, False]))
    assert method.weight.tolist() == [1, 1]
    assert method.first.tolist() == [2, 0]
    method.backward(losses([1.0, 5.0], [1.0, 1.0]))
    assert method.first.tolist() == [2, 5]


def test_theoretical_initial_losses() -> None:
    tasks = [Task("a", "regression"), Task("b", "binary", (0, 1)), Task("c", "multiclass", ("x", "y", "z"))]
    method = GradNorm(initial="theoretical").setup(tasks)
    assert method.first.tolist() == pytest.approx([1, math.log(2), math.log(3)])
    method.backward(losses([9.0, 9.0, 9.0], [1.0, 1.0, 1.0]))
    assert method.first.tolist() == pytest.approx([1, math.log(2), math.log(3)])


def test_norms_may_be_kept_for_some_updates() -> None:
    method = GradNorm(every=3, steps="sgd").setup(TWO)
    seen = []
    for step in range(6):
        method.backward(losses([1.0, 1.0], [1.0 + step, 2.0]))
        seen.append(float(method.norm[0]))
    assert seen == [1, 1, 1, 4, 4, 4]


def test_a_penalty_has_no_part_in_the_norms() -> None:
    one = losses([1.0, 1.0], [1.0, 10.0])
    one.penalty = 100 * one.last[0].sum()
    method = GradNorm().setup(TWO)
    method.backward(one)
    assert method.norm.tolist() == [1, 10]
    assert one.last[0].grad is not None
    assert one.last[0].grad.tolist() == [101, 110]


def test_replicas_each_have_their_norms() -> None:
    method = replicas.stack([GradNorm(steps="sgd").setup(TWO) for _ in range(2)])
    layer = nn.Parameter(torch.zeros(4, 3))  # two copies for each replica
    factors = torch.tensor([[1.0, 10.0], [2.0, 5.0]])
    sums = layer.unflatten(0, (2, 2)).sum((1, 2))
    method.backward(Losses(1 + sums.unsqueeze(1) * factors, last=[layer]))
    torch.testing.assert_close(method.norm.view(2, 2), factors * math.sqrt(6))


def test_a_loss_that_is_not_a_number_hurts_its_replica_alone() -> None:
    method = replicas.stack([GradNorm().setup(TWO) for _ in range(2)])
    layer = nn.Parameter(torch.ones(2, 3))
    value = layer.sum(1, keepdim=True) * torch.tensor([[1.0, 10.0], [torch.nan, 1.0]])
    method.backward(Losses(value, last=[layer]))
    assert bool(method.weight[:2].isfinite().all())


def test_refuses() -> None:
    with pytest.raises(ValueError, match=r"`alpha` must not be negative and `rate` must be positive. Got -1.0"):
        GradNorm(alpha=-1.0)
    with pytest.raises(ValueError, match=r"`every` must be at least 1. Got 0"):
        GradNorm(every=0)
    with pytest.raises(ValueError, match=r"`initial` must be one of measured, theoretical. Got 'x'"):
        GradNorm(initial="x")
    with pytest.raises(ValueError, match=r"`steps` must be one of adam, sgd"):
        GradNorm(steps="lbfgs")
    with pytest.raises(ValueError, match=r"`gradnorm` needs last: give backward"):
        GradNorm().setup(TWO).backward(torch.ones(2, requires_grad=True) * 1)
    with pytest.raises(ValueError, match=r"must not be negative.*Got -3.0 for 'b'"):
        GradNorm().setup(TWO).backward(losses([1.0, -3.0], [1.0, 1.0]))
    apart: Tensor = torch.ones(2, requires_grad=True) * 1
    with pytest.raises(ValueError, match=r"must depend on the last shared layer. That of 'a' does not"):
        GradNorm().setup(TWO).backward(apart, last=[nn.Parameter(torch.ones(1))])
