"""Algorithm 2 on numbers that can be followed, and its weights in a training."""

from __future__ import annotations

import pytest
import torch

from kinfolk.balancing import Losses, SvdReweighting
from kinfolk.balancing.svd_reweighting import svd_weights
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task

NUMBERS = [Task(name, "regression") for name in "abc"]


def problem(labels: torch.Tensor, tasks: list[Task], inputs: torch.Tensor) -> Problem:
    return Problem.from_arrays(inputs, labels.numpy(), tasks)


def test_the_projection_to_what_is_common() -> None:
    """Thetas (3, 0), (3, 0), (0, 1): the first singular vector is the first axis."""
    x = torch.eye(2)
    targets = [torch.tensor([[3.0], [0.0]]), torch.tensor([[3.0], [0.0]]), torch.tensor([[0.0], [1.0]])]
    assert svd_weights(x, targets, 1).tolist() == pytest.approx([3, 3, 0], abs=1e-6)
    assert svd_weights(x, targets, 2).tolist() == pytest.approx([3, 3, 1])


def test_full_rank_is_the_length_of_theta() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(9, 4), [torch.randn(9, 1), torch.randn(9, 3)]
    assert svd_weights(x, y, 4).tolist() == pytest.approx([float((x.T @ one).norm()) for one in y], rel=1e-5)


def test_weights_in_a_training() -> None:
    """Two tasks that are alike outweigh a third of the same strength; the labels' means do not count."""
    torch.manual_seed(0)
    x = torch.linalg.qr(torch.randn(20, 3)).Q
    x = torch.linalg.qr(x - x.mean(0)).Q
    labels = torch.stack([x[:, 0] + 5, 0.9 * x[:, 0] + 0.1 * x[:, 1], x[:, 2] - 3], 1)
    method = SvdReweighting(rank=1).setup(NUMBERS)
    method.at_start(problem(labels, NUMBERS, x + 7), torch.arange(20), (0, 1, 2))
    assert float(method.factor.sum()) == pytest.approx(3)
    assert method.factor[2] < 1e-3
    assert method.factor[0] > method.factor[1] > 1
    assert method.total(Losses(torch.ones(1, 3))).tolist() == pytest.approx([3])


def test_labels_that_are_missing_count_for_nothing() -> None:
    torch.manual_seed(0)
    x, labels = torch.randn(30, 4), torch.randn(30, 3)
    method, fewer = SvdReweighting().setup(NUMBERS), SvdReweighting().setup(NUMBERS)
    method.at_start(problem(labels, NUMBERS, x), torch.arange(20), (0, 1, 2))
    labels[20:] = torch.nan
    fewer.at_start(problem(labels, NUMBERS, x), torch.arange(30), (0, 1, 2))
    torch.testing.assert_close(method.factor, fewer.factor)


def test_classes() -> None:
    torch.manual_seed(0)
    tasks = [Task("a", "multiclass", ("x", "y", "z")), Task("b", "binary", (0, 1))]
    labels = torch.stack([torch.arange(30) % 3, torch.arange(30) % 2], 1).float()
    method = SvdReweighting(rank=1).setup(tasks)
    method.at_start(problem(labels, tasks, torch.eye(3)[torch.arange(30) % 3]), torch.arange(30), (0, 1))
    assert method.factor.tolist() == pytest.approx([2, 0], abs=1e-4)


def test_nothing_that_varies() -> None:
    method = SvdReweighting().setup(NUMBERS)
    method.at_start(problem(torch.ones(9, 3), NUMBERS, torch.zeros(9, 2)), torch.arange(9), (0, 1, 2))
    assert method.factor.tolist() == [1, 1, 1]


def test_refuses() -> None:
    with pytest.raises(ValueError, match=r"`rank` must be at least 1. Got 0"):
        SvdReweighting(rank=0)
    with pytest.raises(ValueError, match=r"`rank` must be at least 1. Got 0"):
        svd_weights(torch.eye(2), [torch.ones(2, 1)], 0)
