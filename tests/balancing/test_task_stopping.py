"""Task-wise early stopping: its criterion, when tasks stop, and what stays of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kinfolk import replicas
from kinfolk.balancing import Losses, TaskStopping
from kinfolk.balancing.task_stopping import criterion
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.sharing import Hard
from kinfolk.training.loop import Parts, Replica, Training
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import Mlp

TASKS = [Task("a", "regression"), Task("b", "regression", main=False)]


def epochs(method: TaskStopping, train: list[float], stop: list[float], times: int, first: int = 0) -> list[bool]:
    """Whether b has stopped, before each epoch."""
    found = []
    for epoch in range(first, first + times):
        given = (None, None) if epoch == 0 else (torch.tensor(train), torch.tensor(stop))
        method.at_epoch(epoch, *given)
        found.append(bool(method.stopped[-1]))
    return found


def test_flat_errors() -> None:
    """k = 5, training errors 0.5, others 0.6: factors 5 and 0.2."""
    found = criterion(torch.full((2, 6), 0.5), torch.full((2,), 0.5), torch.tensor([0.6, 0.8]))
    assert found.tolist() == pytest.approx([1, 3], rel=1e-5)
    half = criterion(torch.full((6,), 0.5), torch.tensor(0.5), torch.tensor(0.6), 2.0)
    assert float(half) == pytest.approx(0.5, rel=1e-5)


def test_denominators_are_guarded() -> None:
    lead = torch.tensor([[0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    found = criterion(lead, torch.zeros(3), torch.ones(3))
    assert found[0] == 0  # sum = k x median
    assert bool(found.isfinite().all())


def test_stops_when_the_window_is_full() -> None:
    flat, gap = [0.5, 0.5], [0.7, 0.7]
    assert epochs(TaskStopping().setup(TASKS), flat, gap, 8) == [False] * 6 + [True] * 2
    assert epochs(TaskStopping(k=1, epsilon=0.1).setup(TASKS), flat, gap, 4) == [False] * 2 + [True] * 2
    assert not any(epochs(TaskStopping(epsilon=3.0).setup(TASKS), flat, gap, 12))
    assert not any(epochs(TaskStopping(weight=3.0).setup(TASKS), flat, gap, 12))


def test_for_good() -> None:
    method = TaskStopping().setup(TASKS)
    epochs(method, [0.5, 0.5], [0.7, 0.7], 7)
    assert all(epochs(method, [0.5, torch.nan], [0.7, 0.1], 9, first=7))
    assert method.best.tolist() == [0.5, 0.5]


def test_main_tasks_stop_only_if_told() -> None:
    for which, expected in (("auxiliary", [False, True]), ("all", [True, True])):
        method = TaskStopping(which=which).setup(TASKS)
        epochs(method, [0.5, 0.5], [0.7, 0.7], 7)
        assert method.stopped.tolist() == expected


def test_an_epoch_without_labels_changes_nothing() -> None:
    method = TaskStopping().setup(TASKS)
    epochs(method, [0.5, 0.5], [0.7, 0.7], 5)
    before = {name: state.clone() for name, state in method.named_buffers()}
    epochs(method, [torch.nan, torch.nan], [0.7, 0.7], 4, first=5)
    assert all(torch.equal(state, before[name]) for name, state in method.named_buffers())
    epochs(method, [0.5, 0.5], [torch.nan, torch.nan], 9, first=9)
    assert not method.stopped.any()  # nothing tells how it generalises


def test_what_is_left_in_a_loop_of_ones_own() -> None:
    method = TaskStopping(weight=0.5).setup(TASKS)
    losses = Losses(torch.tensor([2.0, 3.0], requires_grad=True) * 1)
    assert float(method.total(losses).detach()) == 3.5
    method.stopped[1] = True
    assert method.backward(losses).tolist() == [1, 0]


def test_replicas_stop_by_themselves() -> None:
    method = replicas.stack([TaskStopping().setup(TASKS) for _ in range(2)])
    for epoch in range(1, 8):
        method.at_epoch(epoch, torch.full((2, 2), 0.5), torch.tensor([[0.7, 0.7], [0.5, 0.5]]))
    assert method.active().view(2, 2).tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize("missing", [False, True])
def test_a_stopped_task_keeps_its_head(missing: bool) -> None:
    """Adam's moments do not move it on, with complete labels as without; the main task goes on."""
    torch.manual_seed(0)
    x = torch.randn(40, 3)
    labels = torch.stack([x[:, 0], torch.randn(40)], 1)
    if missing:
        labels[::5, 0] = torch.nan
    problem = Problem.from_arrays(x, labels.numpy(), TASKS)
    make = lambda: Parts(Mlp(8), Hard(), TaskStopping(k=1, epsilon=0.5))  # noqa: E731
    members = [Replica(torch.arange(30), torch.arange(30, 40), (0, 1), seed, 0.01, 0.01) for seed in range(2)]
    training = Training(problem, make, members, Schedule(updates=600, every=5, batch=10, patience=9999, warmup=0))
    while not _stopped(training).all():
        training.run(training.updates + 5)
    before = training.network.model.get_parameter("heads.layers.0.weight").detach().clone()
    training.run(training.updates + 20)
    after = training.network.model.get_parameter("heads.layers.0.weight").detach()
    assert (after != before).flatten(1).any(1).tolist() == [True, False] * 2
    assert bool(training.history[-1][2][:, 1].isnan().all())


def _stopped(training: Training) -> Tensor:
    active = training.network.balancing.active()
    assert active is not None
    return ~active.view(2, 2)[:, 1]


def test_refuses() -> None:
    with pytest.raises(ValueError, match=r"`k` must be at least 1. Got 0"):
        TaskStopping(k=0)
    with pytest.raises(ValueError, match=r"`which` must be one of auxiliary, all. Got 'main'"):
        TaskStopping(which="main")
    with pytest.raises(ValueError, match=r"`weight` must be positive. Got 0.0"):
        TaskStopping(weight=0.0)
