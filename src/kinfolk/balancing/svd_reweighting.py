"""Weights by how much of a task's relation to the inputs lies in what the tasks have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from kinfolk.balancing.base import Balancing, Losses
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task


def svd_weights(
    features: Float[Tensor, "row feature"], targets: Sequence[Float[Tensor, "row _"]], rank: int
) -> Float[Tensor, " task"]:
    """Algorithm 2 of the paper: ``|theta_t' U|``, U the first left singular vectors of all ``theta_t = X' y_t``.

    For loops of one's own: ``Fixed(weights)`` takes them, by name.

    Parameters
    ----------
    features
        X, the same rows for all tasks: the inputs, or what a network that was trained before makes of them.
    targets
        y of each task, ``[row, size]``: one column, or one per class.
    rank
        How many singular vectors, at least 1: what the shared part has room for. From the number of columns on the
        weight of a task is the length of its theta.

    Raises
    ------
    ValueError
        For a rank below 1.

    Examples
    --------
    >>> x = torch.eye(3)
    >>> y = torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 2.0]])
    >>> svd_weights(x, [column.unsqueeze(1) for column in y], 1)
    tensor([3., 0.])
    """
    if rank < 1:
        raise ValueError(f"`rank` must be at least 1. Got {rank}.")
    thetas = [features.mT @ y for y in targets]
    common = torch.linalg.svd(torch.cat(thetas, 1), full_matrices=False).U[:, :rank]
    return torch.stack([(common.mT @ theta).norm() for theta in thetas])


class SvdReweighting(Balancing):
    """Weighs a task by the part of its relation to the inputs that a low-rank model of all tasks can hold.

    The relation is ``theta = X' y`` over the training rows, and the weight the length of its projection to the first
    singular vectors of all tasks' thetas. It is computed once, before training, from the inputs of the network.
    In loops of one's own, which do not tell the data, tasks weigh 1: take :func:`svd_weights` there.

    The paper has complete rows and numbers as targets. Here each theta is a mean over the task's own labelled rows,
    labels are taken as deviations from their mean (classes as columns of 0 and 1), as else the mean of the inputs
    would be what tasks have in common, and weights are scaled to sum to the number of tasks.

    Parameters
    ----------
    rank
        How many singular vectors, at least 1; None: half of the number of outputs, rounded up. With as many as
        outputs the weight is the length of theta.

    Raises
    ------
    ValueError
        For a rank below 1.

    References
    ----------
    S. Wu, H. R. Zhang, C. Ré (2020). Understanding and improving information transfer in multi-task learning. ICLR.
    Algorithm 2.
    """

    def __init__(self, rank: int | None = None) -> None:
        super().__init__()
        if rank is not None and rank < 1:
            raise ValueError(f"`rank` must be at least 1. Got {rank}.")
        self.rank = rank

    def setup(self, tasks: Sequence[Task]) -> SvdReweighting:
        """Weights of 1."""
        super().setup(tasks)
        self.factor: Tensor
        self.register_buffer("factor", torch.ones(len(tasks)))
        return self

    def at_start(self, problem: Problem, train: Tensor, columns: Sequence[int]) -> None:
        """Computes the weights."""
        device = problem.inputs.device
        batch = problem.batch(train.to(device).unsqueeze(0), torch.tensor([columns], device=device))
        labels = [
            _centred(problem.tasks[c], y[0], w)
            for c, y, w in zip(columns, batch.targets, batch.weight[0].unbind(-1), strict=True)
        ]
        rank = self.rank or (sum(y.shape[1] for y in labels) + 1) // 2
        found = svd_weights(batch.inputs[0].flatten(1), labels, rank)
        if float(found.sum()) > 0:  # inputs or labels that do not vary tell nothing
            self.factor.copy_(found * (len(found) / found.sum()))

    def total(self, losses: Losses) -> Tensor:
        """The weighted sum over tasks."""
        return (self.factor.view_as(losses.value) * losses.value).sum(-1)


def _centred(task: Task, target: Tensor, weight: Tensor) -> Tensor:
    """Deviations from the mean label, ``[row, size]``, times weights of rows that sum to 1."""
    classes = task.kind == "multiclass"
    marks = torch.eye(task.size).to(target)[target.long()] if classes else target.view(len(target), -1)
    weight = weight.unsqueeze(1)
    return weight * (marks - (weight * marks).sum(0))
