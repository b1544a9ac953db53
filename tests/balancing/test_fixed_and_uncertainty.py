"""Fixed weights and uncertainty weighting against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kinfolk import replicas
from kinfolk.balancing import Fixed, Losses, Uncertainty
from kinfolk.balancing.base import Balancing
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.sharing.hard import Hard
from kinfolk.training.loop import Training
from kinfolk.training.network import Parts, Replica
from kinfolk.training.schedule import Schedule
from kinfolk.trunks.mlp import Mlp

A, B = Task("a", "regression"), Task("b", "regression")
CLASSES = Task("c", "binary", (0, 1))


def value(*numbers: float) -> Tensor:
    return torch.tensor(numbers, requires_grad=True) * 1


def test_fixed_is_the_weighted_sum() -> None:
    method = Fixed({"b": 0.3}).setup([A, B])
    losses = Losses(value(2.0, 10.0))
    assert method.total(losses).item() == pytest.approx(5)
    assert method.backward(losses).tolist() == pytest.approx([1, 0.3])
    assert not list(method.parameters())


def test_fixed_weights_may_differ_between_replicas() -> None:
    method = replicas.stack([Fixed({"a": w}).setup([A, B]) for w in (0.5, 2.0)])
    assert method.total(Losses(torch.ones(2, 2))).tolist() == [1.5, 3.0]


def test_fixed_refuses() -> None:
    with pytest.raises(ValueError, match=r"must not be negative. Got -1.0 for 'a'"):
        Fixed({"a": -1.0})
    with pytest.raises(ValueError, match="must not be negative"):
        Fixed({"a": math.nan})
    with pytest.raises(ValueError, match=r"must name tasks. Got z"):
        Fixed({"z": 1.0}).setup([A, B])
    assert Fixed({"a": 3.0}).setup([B]).factor.tolist() == [1]  # a single-task problem sees one of the names


def equilibrium(tasks: list[Task], losses: tuple[float, ...]) -> tuple[Uncertainty, Tensor]:
    """Where the log variances settle for losses that do not change, and the weights there."""
    method = Uncertainty().setup(tasks)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.5)
    weights = torch.zeros(())
    for _ in range(200):
        _, weights = method.step(lambda: Losses(value(*losses)), optimizer)
    return method, weights


def test_equilibrium_of_regression() -> None:
    """exp(-v) L / 2 + v / 2 is least at v = log L; the loss then weighs 1 / (2 L)."""
    method, weights = equilibrium([A, B], (0.25, 4.0))
    assert method.log_variance.tolist() == pytest.approx([-1.386294, 1.386294], abs=1e-5)
    assert weights.tolist() == pytest.approx([2, 0.125], rel=1e-4)


def test_equilibrium_of_classification() -> None:
    """exp(-v) L + v / 2 is least at v = log 2 L; the loss then weighs 1 / (2 L) as well."""
    method, weights = equilibrium([A, CLASSES], (0.25, 4.0))
    assert method.log_variance.tolist() == pytest.approx([math.log(0.25), math.log(8)], abs=1e-5)
    assert weights.tolist() == pytest.approx([2, 0.125], rel=1e-4)


def test_the_first_step() -> None:
    method = Uncertainty().setup([A, CLASSES])
    losses = Losses(value(3.0, 5.0))
    assert method.total(losses).item() == pytest.approx(3 / 2 + 5)
    assert method.backward(losses).tolist() == [0.5, 1]
    assert method.log_variance.grad is not None
    assert method.log_variance.grad.tolist() == pytest.approx([-3 / 2 + 1 / 2, -5 + 1 / 2])


def test_where_it_starts() -> None:
    assert Uncertainty(-0.5).setup([A, B]).log_variance.tolist() == [-0.5, -0.5]


def test_the_plain_form_treats_all_tasks_alike() -> None:
    method = Uncertainty(form="plain").setup([A, CLASSES])
    losses = Losses(value(3.0, 5.0))
    assert method.total(losses).item() == pytest.approx(3 + 5)
    assert method.backward(losses).tolist() == [1, 1]
    assert method.log_variance.grad is not None
    assert method.log_variance.grad.tolist() == pytest.approx([-3 + 1 / 2, -5 + 1 / 2])
    with pytest.raises(ValueError, match=r"`form` must be one of kendall, plain. Got 'laplace'"):
        Uncertainty(form="laplace")


def test_an_absent_task_adds_no_log_term() -> None:
    method = Uncertainty(initial=2.0).setup([A, B])
    losses = Losses(value(1.0, 0.0), torch.tensor([True, False]))
    assert method.total(losses).item() == pytest.approx(math.exp(-2) / 2 + 1)
    method.backward(losses)
    assert method.log_variance.grad is not None
    assert method.log_variance.grad[1] == 0


def test_a_method_overrides_something() -> None:
    class Empty(Balancing):
        pass

    with pytest.raises(NotImplementedError, match="Empty overrides none of total, gradients and step"):
        Empty().setup([A]).backward(Losses(value(1.0)))


def way(speed: float) -> Tensor:
    """How far the log variances are from 0 after one update at a learning rate of 0.001."""
    rows = torch.arange(8)
    problem = Problem.from_arrays(torch.randn(8, 3), torch.full((8, 2), 9.0).numpy(), [A, B])
    made = [Replica(rows, rows, (0, 1), 0, 0.001, 0.0)]
    training = Training(
        problem, lambda: Parts(Mlp(4, 1), Hard(), Uncertainty(speed=speed)), made, Schedule(1, 1, 8, 9, 0, "constant")
    )
    training.run()
    return training.network.get_parameter("balancing.log_variance").detach()


def test_variances_may_move_faster_than_the_network() -> None:
    torch.testing.assert_close(way(1), torch.tensor([0.001, 0.001]), rtol=1e-3, atol=0)
    torch.testing.assert_close(way(250), torch.tensor([0.25, 0.25]), rtol=1e-3, atol=0)


def test_speed_is_positive() -> None:
    with pytest.raises(ValueError, match="`speed` must be positive"):
        Uncertainty(speed=0)
