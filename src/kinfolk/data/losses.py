"""How far outputs are from labels, row by row: what is minimised while training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from kinfolk.data import ranking
from kinfolk.data.tasks import Task

RANKINGS = {"pairwise": ranking.pairwise, "rankprop": ranking.rankprop}


def row_loss(kind: str, output: Tensor, target: Tensor, weight: Tensor | None = None, loss: str = "") -> Tensor:
    """The loss of each row.

    Regression: squared error of the standardised target, of a vector the mean over its numbers.
    Binary: logistic loss of the logit, or squared error of the probability. Multiclass: softmax cross-entropy.
    Ranking: a row's mean loss over its pairs, or its squared distance to a rank.

    Parameters
    ----------
    kind
        The task's kind.
    output
        ``[..., row, size]``.
    target
        ``[..., row]``; a class is its code as a number. Vectors are ``[..., row, size]``.
    weight
        ``[..., row]`` for a ranking, whose rows are compared with others: 0 = not observed. None: all weigh the same.
    loss
        Where a kind has several (:data:`kinfolk.data.tasks.LOSSES`); by default the first.

    Returns
    -------
    Tensor
        ``[..., row]``.
    """
    if kind == "regression" and target.ndim == output.ndim:
        return (output - target).square().mean(-1)
    if kind == "regression":
        return (output.squeeze(-1) - target).square()
    if kind == "ranking":
        weight = torch.ones_like(target) if weight is None else weight
        return RANKINGS[loss or "pairwise"](output.squeeze(-1), target, weight)
    if kind == "loss":
        return output.squeeze(-1)
    if loss == "squared":
        return (output.squeeze(-1).sigmoid() - target).square()
    if kind == "binary":
        return F.binary_cross_entropy_with_logits(output.squeeze(-1), target, reduction="none")
    flat = F.cross_entropy(output.flatten(0, -2), target.flatten().long(), reduction="none")
    return flat.view(target.shape)


def link(kind: str, output: Tensor) -> Tensor:
    """Outputs as predictions: a value or score, the probability of the second class, or all class probabilities."""
    if kind in ("regression", "ranking"):
        return output
    return output.sigmoid() if kind == "binary" else output.softmax(-1)


def alike(tasks: Sequence[Task]) -> list[list[int]]:
    """The positions of the tasks, grouped by (kind, loss, size): a group is computed in one piece."""
    groups: dict[tuple[str, str, int], list[int]] = {}
    for i, task in enumerate(tasks):
        groups.setdefault((task.kind, task.loss, task.size), []).append(i)
    return list(groups.values())


def row_losses(
    tasks: Sequence[Task], outputs: Sequence[Tensor], targets: Sequence[Tensor], weight: Tensor | None = None
) -> Tensor:
    """The losses of all tasks, alike ones in one piece.

    Parameters
    ----------
    tasks
        T tasks.
    outputs
        One ``[replica, row, size]`` per task.
    targets
        One ``[replica, row]`` per task, ``[replica, row, size]`` for vectors.
    weight
        ``[replica, row, task]``, 0 = not observed; only losses that compare rows read it. None: all are observed.

    Returns
    -------
    Tensor
        ``[replica, row, task]``.
    """
    if len(tasks) == 1:
        alone = None if weight is None else weight[..., 0]
        return row_loss(tasks[0].kind, outputs[0], targets[0], alone, tasks[0].loss).unsqueeze(-1)
    groups, places = _grouped(tuple(tasks))
    parts = []
    for at in groups:
        one = tasks[at[0]]
        counts = weight[..., at].transpose(1, 2) if weight is not None and one.kind == "ranking" else None
        output, target = (torch.stack([found[i] for i in at], 1) for found in (outputs, targets))
        parts.append(row_loss(one.kind, output, target, counts, one.loss))
    together = (parts[0] if len(parts) == 1 else torch.cat(parts, 1)).transpose(1, 2)  # in the order of the groups
    return together if places is None else together[..., places.to(together.device)]


@lru_cache(maxsize=64)  # asked in every update
def _grouped(tasks: tuple[Task, ...]) -> tuple[list[list[int]], Tensor | None]:
    """Tasks that are alike, and where each task stands among them; None: in its place."""
    groups = alike(tasks)
    order = [i for at in groups for i in at]
    return groups, None if order == sorted(order) else torch.tensor(order).argsort()
