"""A resumed training equals the uninterrupted one bit for bit: weights, moments, history, snapshots, failures."""

from __future__ import annotations

import dataclasses

import pytest
import safetensors.torch
import torch
from small_trainings import COMBINATIONS, SCHEDULE, groups, member, mixed, parts, train
from torch import Tensor

from kinfolk.balancing import Fixed, Uncertainty
from kinfolk.sharing import Hard
from kinfolk.training.loop import Parts, Replica, Training
from kinfolk.trunks import Mlp


def assert_same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype, name
        assert tensor.shape == other[name].shape, name
        known = ~tensor.isnan() if tensor.is_floating_point() else torch.ones_like(tensor, dtype=torch.bool)
        assert torch.equal(tensor.isnan(), other[name].isnan()), name
        assert torch.equal(tensor[known], other[name][known]), name


def through_bytes(training: Training) -> dict[str, Tensor]:
    return safetensors.torch.load(safetensors.torch.save(training.state()))


@pytest.mark.parametrize(("sharing", "balancing", "trunk"), COMBINATIONS)
def test_resumed_equals_uninterrupted(sharing, balancing, trunk: str) -> None:
    problem = mixed()
    columns = groups(sharing, problem.tasks)[0]
    members = [member(problem, c, seed) for seed in range(2) for c in columns]
    whole = train(problem, parts(sharing, balancing, trunk), members)
    through = train(problem, parts(sharing, balancing, trunk), members, until=4)
    while not through.done:  # a new process after every other epoch
        state = through_bytes(through)
        through = Training(problem, parts(sharing, balancing, trunk), members, SCHEDULE)
        through.load(state)
        through.run(until=through.updates + 8)
    assert_same_bits(whole.state(), through.state())


def test_one_checkpoint_serves_twice() -> None:
    problem = mixed()
    members = [member(problem, tuple(range(5)), seed) for seed in range(3)]
    state = {n: t.clone() for n, t in train(problem, parts(Hard, Uncertainty), members, until=12).state().items()}
    ends = []
    for _ in range(2):
        training = Training(problem, parts(Hard, Uncertainty), members, SCHEDULE)
        training.load(state)
        training.run()
        ends.append(training.state())
    assert_same_bits(*ends)


@pytest.mark.parametrize("until", [0, SCHEDULE.updates])
def test_before_the_first_and_after_the_last_update(until: int) -> None:
    problem = mixed()
    members = [member(problem, tuple(range(5)), seed) for seed in range(2)]
    whole = train(problem, parts(Hard, Fixed), members)
    again = Training(problem, parts(Hard, Fixed), members, SCHEDULE)
    again.load(through_bytes(train(problem, parts(Hard, Fixed), members, until=until)))
    assert again.done == bool(until)
    again.run()
    assert_same_bits(whole.state(), again.state())


def test_failures_are_remembered() -> None:
    problem = mixed(0, weighted=False)
    problem.inputs[0] = torch.inf
    columns = tuple(range(5))
    members = [Replica(torch.arange(s, 40), torch.arange(40, 60), columns, s, 1e-2, 0.0) for s in range(2)]
    whole = train(problem, parts(Hard, Fixed), members)
    assert [failure.replica for failure in whole.failures] == [0]
    again = Training(problem, parts(Hard, Fixed), members, SCHEDULE)
    again.load(through_bytes(train(problem, parts(Hard, Fixed), members, until=24)))
    again.run()
    assert again.failures == whole.failures
    assert_same_bits(whole.state(), again.state())


def test_labels_that_are_absent_by_turns() -> None:
    """Heads may make equally many steps without having made them together: both ways to step must then agree."""
    problem = mixed(0.6, weighted=False)
    members = [Replica(torch.arange(12), torch.arange(40, 60), (0, 3), 0, 1e-2, 0.1)]
    make = lambda: Parts(Mlp(8), Hard(), Fixed())  # noqa: E731
    schedule = dataclasses.replace(SCHEDULE, updates=40, every=1, batch=2, patience=99)
    whole = train(problem, make, members, schedule)
    for at in range(2, 40, 5):
        again = Training(problem, make, members, schedule)
        again.load(through_bytes(train(problem, make, members, schedule, at)))
        again.run()
        assert_same_bits(whole.state(), again.state())


def test_checkpoints_are_offered_after_each_epoch_but_the_last() -> None:
    problem = mixed()
    seen = []
    schedule = dataclasses.replace(SCHEDULE, updates=10, every=4, patience=99)
    training = Training(problem, parts(Hard, Fixed), [member(problem, tuple(range(5)), 0)], schedule)
    training.run(checkpoint=lambda one: seen.append(one.updates))
    assert seen == [4, 8]
    assert training.updates == 10  # the last epoch is cut short, never run past the schedule


def test_a_deadline_ends_after_an_epoch() -> None:
    problem = mixed()
    training = Training(problem, parts(Hard, Fixed), [member(problem, tuple(range(5)), 0)], SCHEDULE)
    training.run(deadline=0.0)
    assert training.updates == SCHEDULE.every
    assert not training.done


def test_another_network_is_refused() -> None:
    problem = mixed()
    members = [member(problem, tuple(range(5)), 0)]
    state = train(problem, parts(Hard, Fixed), members, until=4).state()
    other = Training(problem, lambda: Parts(Mlp(9), Hard(), Fixed()), members, SCHEDULE)
    with pytest.raises(ValueError, match="does not fit this model"):
        other.load(state)
