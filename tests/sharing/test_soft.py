"""Soft sharing: trunks apart at strength 0, one trunk in the limit, and the closed form between them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kinfolk import replicas
from kinfolk.balancing import Fixed
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.penalties import SoftSharing
from kinfolk.sharing import Hard, Independent, Soft
from kinfolk.training.loop import Parts, Replica, Training
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import FromModules, Mlp

TASKS = (Task("a", "regression"), Task("b", "regression"), Task("c", "regression"))
INPUTS = torch.Size([5])


def soft(alike: bool = True, seed: int = 0) -> Soft:
    with replicas.own("network", seed):
        return Soft(alike).setup(Mlp(6), TASKS, INPUTS)


def test_copies_start_alike_or_each_by_its_name() -> None:
    for alike in (True, False):
        for parameter in soft(alike).trunks.parameters():
            assert torch.equal(parameter[0], parameter[1]) == alike


def test_with_copies_alike_it_starts_as_hard_sharing_does() -> None:
    x = torch.randn(1, 4, 5)
    with replicas.own("network", 0):
        hard = Hard().setup(Mlp(6), TASKS, INPUTS)
    for one, other in zip(soft()(x).tasks, hard(x).tasks, strict=True):
        torch.testing.assert_close(one, other)


def test_a_trunk_serves_its_task_alone() -> None:
    from kinfolk.sharing.base import reach

    for name, found in reach(soft(), torch.randn(1, 3, 5)).items():
        assert found.tolist() == torch.eye(3, dtype=torch.bool).tolist(), name


def problem() -> Problem:
    x = torch.randn(60, 5)
    labels = torch.stack([x[:, 0], x[:, 1] * x[:, 2], x[:, 3].sin()], 1) + 0.1 * torch.randn(60, 3)
    return Problem.from_arrays(x.numpy(), labels.numpy(), TASKS, None)


def test_at_strength_0_with_all_labels_it_is_independent() -> None:
    schedule, known = Schedule(updates=24, every=4, batch=8, patience=999, warmup=2), problem()
    member = lambda columns: Replica(torch.arange(40), torch.arange(40, 60), columns, 7, 1e-2, 1e-2)  # noqa: E731
    trunk = lambda: Mlp(8, dropout=0.2, norm="batch")  # noqa: E731
    together = Training(
        known, lambda: Parts(trunk(), Soft(), Fixed(), (SoftSharing(strength=0),)), [member((0, 1, 2))], schedule
    )
    apart = Training(known, lambda: Parts(trunk(), Independent(), Fixed()), [member((c,)) for c in range(3)], schedule)
    together.run()
    apart.run()
    for (_, _, *mine), (_, _, *theirs) in zip(together.history, apart.history, strict=True):
        for one, other in zip(mine[:2], theirs[:2], strict=True):
            torch.testing.assert_close(one.flatten(), other.flatten(), rtol=1e-5, atol=1e-6)


def linear(y: Tensor, w: Tensor) -> Soft:
    """A trunk per task that is one product with given weights ``[task, input]``, and heads that change nothing."""
    with replicas.own("network", 0):
        model = Soft().setup(FromModules([nn.Linear(w.shape[1], 1, bias=False)]), TASKS, w.shape[1:]).double()
    (weight,) = model.trunks.parameters()
    weight.data = w.unsqueeze(1).clone()
    for layer in model.heads.layers:
        nn.init.ones_(layer.get_parameter("weight"))
        nn.init.zeros_(layer.get_parameter("bias"))
    return model


def closed(x: Tensor, y: Tensor, strength: float) -> Tensor:
    """``(X'X + strength I) w_t - strength mean_s w_s = X' y_t`` for all tasks at once."""
    n, d = y.shape[1], x.shape[1]
    tasks, features = torch.eye(n).double(), torch.eye(d).double()
    system = torch.kron(tasks, x.T @ x) + torch.kron(strength * (tasks - 1 / n), features)
    return torch.linalg.solve(system, (x.T @ y).T.reshape(-1)).view(n, d)


@pytest.mark.parametrize("strength", [0.0, 0.3, 10.0])
def test_the_linear_case_has_its_minimum_at_the_closed_form(strength: float) -> None:
    x, y = torch.randn(20, 4).double(), torch.randn(20, 3).double()
    model = linear(y, closed(x, y, strength))
    penalty = SoftSharing(strength).setup(model, TASKS)
    outputs = model(x.unsqueeze(0))
    losses = (torch.cat(list(outputs.tasks), 2) - y).square().sum(1)
    (losses.sum() + penalty(model, outputs, losses).sum()).backward()
    (weight,) = model.trunks.parameters()
    assert weight.grad is not None
    assert float(weight.grad.abs().max()) < 1e-10


def test_the_limits_of_the_linear_case() -> None:
    x, y = torch.randn(20, 4).double(), torch.randn(20, 3).double()
    apart = torch.linalg.lstsq(x, y).solution.T
    torch.testing.assert_close(closed(x, y, 0.0), apart)
    pooled = torch.linalg.lstsq(x.repeat(3, 1), y.T.reshape(-1, 1)).solution.T
    torch.testing.assert_close(closed(x, y, 1e9), pooled.expand(3, -1), rtol=1e-6, atol=1e-6)


def test_a_large_strength_trains_one_trunk() -> None:
    known, schedule = problem(), Schedule(updates=80, every=8, batch=16, patience=999, warmup=2)
    member = Replica(torch.arange(40), torch.arange(40, 60), (0, 1, 2), 0, 1e-2, 0.0)
    spread = []
    for strength in (0.0, 1e4):
        one = Training(known, lambda s=strength: Parts(Mlp(8), Soft(), Fixed(), (SoftSharing(s),)), [member], schedule)
        one.run()
        model = one.network.model
        assert isinstance(model, Soft)
        spread.append(max(float(p.detach().std(0).max()) for p in model.trunks.parameters()))
    assert spread[1] < 0.1 * spread[0]
