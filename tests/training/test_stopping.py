"""Stopping remembers, and never influences training."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
import torch
from small_trainings import PATIENT, SCHEDULE, histories, member, mixed, parts, train
from torch import nn

from kinfolk.balancing import Fixed
from kinfolk.data.losses import row_losses
from kinfolk.sharing import Hard, Independent
from kinfolk.training.loop import Parts, Replica, Training
from kinfolk.training.stopping import Stopping
from kinfolk.trunks import Mlp


class Net(nn.Module):
    """Copies whose only number tells when they were seen."""

    def __init__(self, replicas: int, slices: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(replicas * slices, 2))
        self.register_buffer("counter", torch.zeros((), dtype=torch.int64))

    def at(self, now: float) -> Net:
        self.weight.data.fill_(now)
        return self


def look(
    stopping: Stopping, net: Net, update: int, errors: list[list[float]], numbers: list[int] | None = None
) -> list[bool]:
    known = torch.arange(len(errors)) if numbers is None else torch.tensor(numbers)
    return stopping.update(net.at(update), known, update, torch.tensor(errors)).tolist()


def test_each_task_remembers_its_best_update() -> None:
    net = Net(1, slices=2)
    stopping = Stopping(net, 1, 2, torch.tensor([True, True]), patience=10)
    for update, errors in enumerate([[3.0, 3.0], [1.0, 4.0], [2.0, 2.0], [1.0, 9.0]]):
        assert look(stopping, net, update, [errors]) == [True]
    assert stopping.best.tolist() == [[1, 2]]
    assert stopping.best_update.tolist() == [[1, 2]]
    snapshot = stopping.snapshot(0)
    assert snapshot.keys() == {"weight"}
    assert snapshot["weight"].tolist() == [[1, 1], [1, 1], [2, 2], [2, 2]]  # task x slice


def test_patience_is_latched() -> None:
    """A task whose patience is spent stays so, even if it improves again while another goes on."""
    net = Net(1)
    stopping = Stopping(net, 1, 2, torch.tensor([True, True]), patience=2)
    assert look(stopping, net, 1, [[1.0, 9.0]]) == [True]
    assert look(stopping, net, 2, [[2.0, 8.0]]) == [True]
    assert look(stopping, net, 3, [[2.0, 7.0]]) == [True]  # the first is spent, the second goes on
    assert look(stopping, net, 4, [[0.5, 9.0]]) == [True]
    assert stopping.best_update.tolist() == [[4, 3]]
    assert look(stopping, net, 5, [[0.4, 9.0]]) == [False]


def test_auxiliary_tasks_hold_nothing_up() -> None:
    net = Net(1)
    stopping = Stopping(net, 1, 2, torch.tensor([True, False]), patience=1)
    assert look(stopping, net, 1, [[1.0, 9.0]]) == [True]
    assert look(stopping, net, 2, [[1.0, 8.0]]) == [False]


def test_replicas_are_known_by_their_numbers() -> None:
    net = Net(3)
    stopping = Stopping(net, 3, 1, torch.tensor([True]), patience=2)
    assert look(stopping, net, 1, [[1.0], [1.0], [1.0]]) == [True] * 3
    fewer = Net(2)
    assert look(stopping, fewer, 3, [[0.5], [2.0]], [0, 2]) == [True, False]
    assert stopping.best_update.flatten().tolist() == [3, 1, 1]
    assert [float(stopping.snapshot(i)["weight"][0, 0]) for i in range(3)] == [3, 1, 1]


def test_nan_is_no_improvement() -> None:
    net = Net(1)
    stopping = Stopping(net, 1, 1, torch.tensor([True]), patience=2)
    look(stopping, net, 1, [[1.0]])
    assert look(stopping, net, 2, [[float("nan")]]) == [True]
    assert look(stopping, net, 3, [[float("nan")]]) == [False]
    assert stopping.best.tolist() == [[1.0]]


def test_a_stored_state_is_copied() -> None:
    net = Net(2)
    stopping = Stopping(net, 2, 1, torch.tensor([True]), patience=5)
    look(stopping, net, 1, [[1.0], [2.0]])
    stored = {name: t.clone() for name, t in stopping.state().items()}
    other = Stopping(Net(2), 2, 1, torch.tensor([True]), patience=5)
    other.load(stored)
    look(other, net, 2, [[0.5], [0.5]])
    assert stored["best"].tolist() == [[1.0], [2.0]]
    assert stored["snapshot/weight"].max() == 1


COLUMNS = tuple(range(5))


def test_patience_does_not_influence_training() -> None:
    """While it trains, an impatient replica makes the updates of a patient one, to the last bit."""
    problem = mixed()
    for seed in range(3):
        short = histories(train(problem, parts(Hard, Fixed), [member(problem, COLUMNS, seed)]))[0]
        whole = histories(train(problem, parts(Hard, Fixed), [member(problem, COLUMNS, seed)], PATIENT))[0]
        assert len(whole) == SCHEDULE.updates // SCHEDULE.every
        for update, shown in short.items():
            assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(shown, whole[update], strict=True))


def test_stop_rows_do_not_influence_training() -> None:
    problem = mixed()
    one = member(problem, COLUMNS, 0)
    other = dataclasses.replace(one, stop=one.stop[:3])
    first, second = (histories(train(problem, parts(Hard, Fixed), [r], PATIENT))[0] for r in (one, other))
    assert all(torch.equal(first[u][0].nan_to_num(), second[u][0].nan_to_num()) for u in first)


def test_a_snapshot_is_the_network_of_the_best_update() -> None:
    """Loaded into a network, it has on the stop rows the loss that was best."""
    problem = mixed(0)
    one = member(problem, COLUMNS, 0)
    training = train(problem, parts(Hard, Fixed), [one])
    for task in range(5):
        best = int(training.stopping.best_update[0, task])
        then = train(problem, parts(Hard, Fixed), [one], PATIENT, until=best).network.model.eval()
        tensors = dict(then.named_parameters()) | dict(then.named_buffers())
        for name, tensor in training.stopping.snapshot(0).items():
            kept = tensor.unflatten(0, (5, -1))[task]
            assert torch.equal(kept, tensors[name].detach()), name
        batch = problem.batch(one.stop[None])
        value = (row_losses(problem.tasks, then(batch.inputs).tasks, batch.targets) * batch.weight).sum(1)
        torch.testing.assert_close(value[0, task].detach(), training.stopping.best[0, task])


def test_a_task_without_stop_labels() -> None:
    """Its last state is its best, its history says that nothing is known, and the rest goes its way."""
    problem = mixed(0, weighted=False)
    problem.observed[40:, 0] = False
    one = Replica(torch.arange(40), torch.arange(40, 60), COLUMNS, 0, 1e-2, 0.0)
    training = train(problem, parts(Hard, Fixed), [one])
    stop = torch.stack([shown[1] for shown in histories(training)[0].values()])
    assert bool(stop[:, 0].isnan().all())
    assert bool(stop[:, 1:].isfinite().all())
    assert int(training.stopping.best_update[0, 0]) == training.updates
    assert not training.failures


def test_histories_count_updates_with_labels_only() -> None:
    """A task that was absent from some updates of an epoch: the mean is over the others; from all: not a number."""
    problem = mixed(0, weighted=False)
    problem.observed[:40, 3] = False
    problem.observed[1:40, 0] = False
    one = Replica(torch.arange(40), torch.arange(40, 60), COLUMNS, 0, 1e-9, 0.0)
    schedule = dataclasses.replace(SCHEDULE, updates=10, every=10, batch=4)  # one pass: row 0 is in one update of ten
    make = lambda: Parts(Mlp(8), Hard(), Fixed())  # noqa: E731
    training = train(problem, make, [one], schedule)
    loss, _, weight = histories(training)[0][10]
    assert bool(loss[3].isnan())
    assert bool(weight[3].isnan())
    output = Training(problem, make, [one], schedule).network.model(problem.inputs[:1][None]).tasks[0]
    assert loss[0] == pytest.approx(float((output.squeeze() - problem.targets[0][0]).detach().square()), rel=1e-6)
    assert weight[0] == 1


def poisoned(value: float) -> Training:
    """The first of three replicas trains on a row that is not finite."""
    problem = mixed(0.2)
    problem.inputs[0, 0] = value
    return train(problem, parts(Hard, Fixed), _three(), PATIENT)


def _three() -> list[Replica]:
    rows = [torch.arange(40), torch.arange(1, 40), torch.arange(2, 40)]
    return [Replica(r, torch.arange(40, 60), COLUMNS, s, 1e-2, 0.1) for s, r in enumerate(rows)]


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -float("inf")])
def test_a_replica_that_fails_is_retired_and_the_others_go_on(value: float) -> None:
    training, clean = poisoned(value), poisoned(0.5)
    assert [failure.replica for failure in training.failures] == [0]
    failure = training.failures[0]
    assert failure.task in COLUMNS
    assert failure.update <= 5 * SCHEDULE.every  # within a pass and the look that follows
    mine, theirs = histories(training), histories(clean)
    assert max(mine[0]) == failure.update
    for number in (1, 2):
        assert mine[number].keys() == theirs[number].keys()
        for update, shown in mine[number].items():
            for one, other in zip(shown, theirs[number][update], strict=True):
                torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10, equal_nan=True)
    assert all(bool(t[1:].isfinite().all()) for t in training.stopping.snapshots.values())
    assert all(bool(t[0].isfinite().all()) for t in training.stopping.snapshots.values())  # of before it failed


def test_a_huge_learning_rate_fails_alone() -> None:
    problem = mixed(0.2)
    members = [dataclasses.replace(one, rate=1e200 if i == 1 else one.rate) for i, one in enumerate(_three())]
    training = train(
        problem, parts(Independent, Fixed), [dataclasses.replace(m, columns=(0,)) for m in members], PATIENT
    )
    assert [failure.replica for failure in training.failures] == [1]
    assert training.replicas == 2
    assert training.done


def test_all_may_fail() -> None:
    problem = mixed(0)
    problem.inputs[:] = torch.nan
    training = train(problem, parts(Hard, Fixed), _three())
    assert len(training.failures) == 3
    assert training.done
    assert training.replicas == 0
    assert training.updates == SCHEDULE.every


def test_schedule() -> None:
    factors = [SCHEDULE.factor(u) for u in range(SCHEDULE.updates)]
    assert factors[:6] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1])
    assert factors[6] == 1
    assert all(a > b for a, b in pairwise(factors[6:]))
    assert 0 < factors[-1] < 0.01
    assert dataclasses.replace(SCHEDULE, warmup=0).factor(0) == 1
