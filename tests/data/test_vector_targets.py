"""Regressions whose labels are vectors: in problems, batches, losses and training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kinfolk.balancing.fixed import Fixed
from kinfolk.balancing.uncertainty import Uncertainty
from kinfolk.data.errors import error
from kinfolk.data.losses import row_loss, row_losses
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.sharing.hard import Hard
from kinfolk.training.loop import Training
from kinfolk.training.network import Parts, Replica
from kinfolk.training.schedule import Schedule
from kinfolk.trunks.mlp import Mlp

ROWS = 12
HALF, OTHER, NUMBER = (
    Task("half", "regression", outputs=3),
    Task("other", "regression", outputs=3),
    Task("n", "binary", (0, 1)),
)


def labels(seed: int = 0) -> list[np.ndarray]:
    g = np.random.default_rng(seed)
    made = [g.normal(size=(ROWS, 3)), g.normal(size=(ROWS, 3)), (g.random(ROWS) > 0.5).astype(float)]
    made[0][2, 1] = made[2][4] = np.nan
    return made


def problem(*tasks: Task) -> Problem:
    inputs = np.random.default_rng(1).normal(size=(ROWS, 4))
    return Problem.from_arrays(inputs, labels()[: len(tasks)], tasks)


def test_a_vector_is_observed_if_all_of_it_is() -> None:
    made = problem(HALF, OTHER, NUMBER)
    assert [tuple(target.shape) for target in made.targets] == [(ROWS, 3), (ROWS, 3), (ROWS,)]
    assert made.observed.shape == (ROWS, 3)
    assert (~made.observed).nonzero().tolist() == [[2, 0], [4, 2]]
    assert all(bool(target.isfinite().all()) for target in made.targets)


@pytest.mark.parametrize("tasks", [(HALF, OTHER), (HALF, OTHER, NUMBER)])
def test_batches_hold_the_vectors_of_their_rows(tasks: tuple[Task, ...]) -> None:
    made, rows = problem(*tasks), torch.tensor([[0, 5], [7, 2]])
    for target, whole in zip(made.batch(rows).targets, made.targets, strict=True):
        assert torch.equal(target, whole[rows])
    columns = torch.tensor([[1], [0]])  # replicas that learn different tasks of one size
    batch = made.batch(rows, columns)
    assert torch.equal(batch.targets[0][0], made.targets[1][rows[0]])
    assert torch.equal(batch.targets[0][1], made.targets[0][rows[1]])
    assert batch.present.tolist() == [[True], [True]]
    assert batch.only(torch.tensor([True])).targets[0].shape == (2, 2, 3)


def test_the_loss_of_a_vector_is_the_mean_over_its_numbers() -> None:
    output, target = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    expected = torch.stack([row_loss("regression", output[..., i : i + 1], target[..., i]) for i in range(3)]).mean(0)
    torch.testing.assert_close(row_loss("regression", output, target), expected)
    number = torch.randn(2, 5, 1), torch.zeros(2, 5)
    mixed = row_losses((HALF, NUMBER, OTHER), (output, number[0], -output), (target, number[1], target))
    torch.testing.assert_close(mixed[..., 0], expected)
    torch.testing.assert_close(mixed[..., 2], row_loss("regression", -output, target))


@pytest.mark.parametrize("balancing", [Fixed, Uncertainty])
def test_a_training_learns_vectors(balancing: type[Fixed] | type[Uncertainty]) -> None:
    made, rows = problem(HALF, OTHER, NUMBER), torch.arange(ROWS)
    members = [Replica(rows, rows, (0, 1, 2), seed, 0.01, 0.0) for seed in (0, 1)]
    training = Training(made, lambda: Parts(Mlp(8, 1), Hard(), balancing()), members, Schedule(60, 10, 6, 100, 0))
    training.run()
    first, last = training.history[0][3], training.history[-1][3]
    assert bool((last < first).all())
    assert [tuple(o.shape) for o in training.network.model(made.inputs.expand(2, -1, -1)).tasks] == [
        (2, ROWS, 3), (2, ROWS, 3), (2, ROWS, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("outputs", [0, -1])
def test_outputs_are_at_least_one(outputs: int) -> None:
    with pytest.raises(ValueError, match="`outputs` must be 1"):
        Task("half", "regression", outputs=outputs)


def test_vectors_belong_to_regressions() -> None:
    with pytest.raises(ValueError, match="`outputs` must be 1"):
        Task("half", "binary", (0, 1), outputs=2)


def test_errors_judge_single_numbers() -> None:
    with pytest.raises(ValueError, match="vectors of 3"):
        error(HALF, np.zeros((4, 3)), np.zeros((4, 3)), baseline=0.0)
