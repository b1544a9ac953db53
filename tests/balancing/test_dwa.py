"""Dynamic weight average against the numbers of its formula."""

from __future__ import annotations

import math

import pytest
import torch

from kinfolk import replicas
from kinfolk.balancing import Dwa, Losses
from kinfolk.data.tasks import Task

TASKS = [Task(name, "regression") for name in "abc"]


def after(*epochs: list[float], temperature: float = 2.0) -> list[float]:
    """The weights after epochs with these mean losses."""
    method = Dwa(temperature).setup(TASKS[: len(epochs[0])])
    for epoch, losses in enumerate([None, *map(torch.tensor, epochs)]):
        method.at_epoch(epoch, losses, None)
    return method.backward(Losses(torch.ones(len(epochs[0]), requires_grad=True) * 1)).tolist()


def test_golden_numbers() -> None:
    assert after([1.0, 1.0], [1.0, 0.5]) == pytest.approx([1.124353, 0.875647], abs=1e-6)
    assert after([2.0, 2.0, 0.1], [2.0, 1.0, 0.08]) == pytest.approx([1.117885, 0.870610, 1.011505], abs=1e-6)


def test_the_first_two_epochs_weigh_one() -> None:
    assert Dwa().setup(TASKS).factor.tolist() == [1, 1, 1]
    assert after([1.0, 7.0, 0.1]) == [1, 1, 1]


def test_only_the_last_two_epochs_count() -> None:
    assert after([9.0, 0.1], [1.0, 1.0], [1.0, 0.5]) == after([1.0, 1.0], [1.0, 0.5])


def test_a_high_temperature_evens_the_weights() -> None:
    assert after([1.0, 1.0], [1.0, 0.1], temperature=1e6) == pytest.approx([1, 1], abs=1e-5)


def test_tasks_without_labels_weigh_one_and_leave_the_others_theirs() -> None:
    assert after([1.0, math.nan, 1.0], [1.0, math.nan, 0.5]) == pytest.approx([1.124353, 1, 0.875647], abs=1e-6)
    assert after([1.0, 3.0, 1.0], [1.0, math.nan, 0.5]) == pytest.approx([1.124353, 1, 0.875647], abs=1e-6)
    # The last loss that is known is compared with.
    assert after([1.0, 4.0], [1.0, math.nan], [1.0, 2.0]) == pytest.approx([1.124353, 0.875647], abs=1e-6)
    assert after([0.0, 1.0], [0.0, 1.0]) == [1, 1]


def test_an_absent_task_has_no_weight() -> None:
    losses = Losses(torch.tensor([1.0, 0.0, 1.0], requires_grad=True) * 1, torch.tensor([True, False, True]))
    assert Dwa().setup(TASKS).backward(losses).tolist() == [1, 0, 1]


def test_replicas_have_their_own() -> None:
    method = replicas.stack([Dwa().setup(TASKS[:2]) for _ in range(2)])
    for epoch, losses in enumerate([None, torch.ones(2, 2), torch.tensor([[1.0, 0.5], [0.5, 1.0]])]):
        method.at_epoch(epoch, losses, None)
    weights = method.backward(Losses(torch.ones(2, 2, requires_grad=True) * 1))
    torch.testing.assert_close(weights, torch.tensor([[1.124353, 0.875647], [0.875647, 1.124353]]))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_bad_input(temperature: float) -> None:
    with pytest.raises(ValueError, match="`temperature` must be positive"):
        Dwa(temperature)
