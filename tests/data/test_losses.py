"""What is minimised while training, against torch's own losses."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from kinfolk.data.losses import alike, link, row_loss, row_losses
from kinfolk.data.tasks import Task

TASKS = (
    Task("a", "regression"),
    Task("b", "multiclass", ("x", "y", "z")),
    Task("c", "binary", (0, 1)),
    Task("d", "regression"),
    Task("e", "multiclass", ("x", "y")),
    Task("f", "multiclass", (1, 2, 3)),
)


def drawn(task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    output = torch.randn(2, 5, task.size)
    if task.kind == "regression":
        return output, torch.randn(2, 5)
    return output, torch.randint(max(2, task.size), (2, 5)).float()


def test_row_losses_are_torch_losses() -> None:
    output, target = drawn(TASKS[0])
    torch.testing.assert_close(
        row_loss("regression", output, target), F.mse_loss(output[..., 0], target, reduction="none")
    )
    output, target = drawn(TASKS[2])
    expected = F.binary_cross_entropy(output[..., 0].sigmoid(), target, reduction="none")
    torch.testing.assert_close(row_loss("binary", output, target), expected)
    output, target = drawn(TASKS[1])
    expected = -output.log_softmax(-1).gather(-1, target.long().unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(row_loss("multiclass", output, target), expected)


def test_a_binary_task_may_be_trained_by_the_squared_error_of_its_probability() -> None:
    output, target = drawn(TASKS[2])
    tasks = (TASKS[2], Task("g", "binary", (0, 1), loss="squared"))
    found = row_losses(tasks, (output, output), (target, target))
    torch.testing.assert_close(found[..., 1], (output[..., 0].sigmoid() - target).square())
    torch.testing.assert_close(found[..., 0], row_loss("binary", output, target))


def test_links_are_values_and_probabilities() -> None:
    output = torch.randn(2, 5, 3)
    assert link("regression", output) is output
    torch.testing.assert_close(link("binary", output[..., :1]), 1 / (1 + (-output[..., :1]).exp()))
    torch.testing.assert_close(link("multiclass", output).sum(-1), torch.ones(2, 5))


def test_alike_tasks_are_grouped_in_order() -> None:
    assert alike(TASKS) == [[0, 3], [1, 5], [2], [4]]


@pytest.mark.parametrize("n", range(1, len(TASKS) + 1))
def test_grouping_does_not_show(n: int) -> None:
    outputs, targets = zip(*(drawn(task) for task in TASKS[:n]), strict=True)
    together = row_losses(TASKS[:n], outputs, targets)
    assert together.shape == (2, 5, n)
    for i, task in enumerate(TASKS[:n]):
        torch.testing.assert_close(together[..., i], row_loss(task.kind, outputs[i], targets[i]))
