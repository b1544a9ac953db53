"""A problem: inputs, the labels of all tasks, row weights. Batches are drawn from it.

*Not observed* lives here and in ``Batch.weight`` and nowhere else: rows that belong to one task only, partly
labelled rows, row weights, unlabelled rows and padding are the same thing, a weight of 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kinfolk.data.tasks import Task


@dataclass(frozen=True)
class Batch:
    """The rows of one update, replica by replica.

    Attributes
    ----------
    inputs
        ``[replica, row, ...]``; or positions of rows, ``[replica, row]``, that :meth:`Problem.filled` looks up: inputs
        of rows that a step leaves out are then not moved.
    targets
        One ``[replica, row]`` per task, ``[replica, row, size]`` where labels are vectors; filled with 0 where not
        observed (masking after the loss would give NaN gradients).
    weight
        ``[replica, row, task]``, already divided; 0 = not observed, or padding.
    present
        Bool ``[replica, task]``: has a label that counts in this update, in any part of it.
    preference
        ``[replica, row, task]`` for networks that read one, else None.
    """

    inputs: Float[Tensor, "replica row *feature"] | Int[Tensor, "replica row"]
    targets: Sequence[Float[Tensor, "replica row ..."]]
    weight: Float[Tensor, "replica row task"]
    present: Bool[Tensor, "replica task"]
    preference: Float[Tensor, "replica row task"] | None = None

    def part(self, share: slice) -> Batch:
        """Some of the rows: those of one process, or a micro-batch. Weights and ``present`` are those of the whole."""
        return replace(
            self,
            inputs=self.inputs[:, share],
            targets=[target[:, share] for target in self.targets],
            weight=self.weight[:, share],
            preference=None if self.preference is None else self.preference[:, share],
        )

    def first(self, tasks: int) -> Batch:
        """What the first tasks know of the rows."""
        return replace(
            self,
            targets=self.targets[:tasks],
            weight=self.weight[..., :tasks],
            present=self.present[:, :tasks],
            preference=None if self.preference is None else self.preference[..., :tasks],
        )

    def only(self, tasks: Bool[Tensor, " task"]) -> Batch:
        """The rows that have a label of these tasks, the other tasks absent.

        Replicas that have fewer such rows than others are filled up with rows that weigh nothing; a batch norm sees
        these.
        """
        weight = self.weight * tasks.to(self.weight.device)
        counts = (weight > 0).any(-1)
        if bool(counts.all()):
            return replace(self, weight=weight, present=self.present & tasks.to(self.present.device))
        first = counts.int().argsort(dim=1, descending=True, stable=True)[:, : int(counts.sum(1).max())]
        take = lambda x: x.gather(1, first.view(*first.shape, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:]))  # noqa: E731
        return replace(
            self,
            inputs=take(self.inputs),
            targets=[take(target) for target in self.targets],
            weight=take(weight),
            present=self.present & tasks.to(self.present.device),
            preference=None if self.preference is None else take(self.preference),
        )


@dataclass(frozen=True)
class Problem:
    """Encoded inputs and the labels of all tasks.

    Attributes
    ----------
    inputs
        ``[row, ...]``.
    targets
        One ``[row]`` per task, ``[row, size]`` where labels are vectors (``Task.outputs``); 0 where not observed.
        Regression targets are standardised by whoever trains.
    observed
        Bool ``[row, task]``.
    weight
        ``[row]``, non-negative.
    tasks
        One per target.
    """

    inputs: Float[Tensor, "row ..."]
    targets: Sequence[Float[Tensor, "row ..."]]
    observed: Bool[Tensor, "row task"]
    weight: Float[Tensor, " row"]
    tasks: tuple[Task, ...]

    @classmethod
    def from_arrays(
        cls,
        inputs: np.ndarray | Tensor,
        labels: np.ndarray | Sequence[np.ndarray],
        tasks: Sequence[Task],
        weight: np.ndarray | None = None,
        device: str | torch.device = "cpu",
    ) -> Problem:
        """From labels in which NaN means *not observed*, in torch's default float type.

        Labels are ``[row, task]``, or one array per task: ``[row]``, or ``[row, size]`` where they are vectors.
        A vector is observed if all of it is.
        """
        dtype = torch.get_default_dtype()
        columns = list(labels.T) if isinstance(labels, np.ndarray) else list(labels)
        marks = [torch.as_tensor(np.asarray(column, dtype=np.float64)) for column in columns]
        missing = [mark.isnan().flatten(1).any(1) if mark.ndim > 1 else mark.isnan() for mark in marks]
        rows = torch.ones(len(marks[0])) if weight is None else torch.as_tensor(weight)
        return cls(
            inputs=torch.as_tensor(inputs).to(device, dtype),
            targets=[
                torch.where(none if mark.ndim == 1 else none.unsqueeze(1), 0.0, mark).to(device, dtype).contiguous()
                for mark, none in zip(marks, missing, strict=True)
            ],
            observed=~torch.stack(missing, 1).to(device),
            weight=rows.to(device, dtype),
            tasks=tuple(tasks),
        )

    @cached_property
    def complete(self) -> bool:
        """Every label is observed and all rows weigh the same: a batch then needs no weights of its own."""
        return bool(self.observed.all() and (self.weight == 1).all())

    def batch(
        self,
        rows: Int[Tensor, "replica row"],
        columns: Int[Tensor, "replica task"] | None = None,
        valid: Bool[Tensor, "replica row"] | None = None,
        per: str = "batch",
        positions: bool = False,
    ) -> Batch:
        """The given rows of each replica.

        Parameters
        ----------
        rows
            Positions ``[replica, row]``.
        columns
            Which tasks each replica learns, ``[replica, task]``; None: all, in order. Replicas that learn
            different tasks are stacked when the tasks are alike (same kind and size).
        valid
            False where a row is padding.
        per
            What a task's loss is divided by: ``"batch"``, the labels in these rows, or ``"expected"``, rows
            times the task's observed share (a rare task is then not amplified).
        positions
            Whether the batch holds the positions of its rows instead of their inputs, see :meth:`filled`.
        """
        inputs = rows if positions else self.inputs[rows]
        targets = self._targets(rows, columns)
        if self.complete and valid is None:
            weight = self.weight.new_full((1, 1, 1), 1 / rows.shape[1]).expand(*rows.shape, len(targets))
            present = torch.ones(len(rows), len(targets), dtype=torch.bool, device=rows.device)
            return Batch(inputs, targets, weight, present)
        weight = self._counts[rows] if columns is None else self._counts[rows.unsqueeze(-1), columns.unsqueeze(1)]
        if valid is not None:
            weight = weight * valid.unsqueeze(-1)
        labels = weight.sum(1, keepdim=True)
        divisor = self._divisor(labels, columns, per, rows.shape[1])
        return Batch(inputs, targets, weight / divisor, labels.squeeze(1) > 0)

    def filled(self, batch: Batch) -> Batch:
        """A batch of positions with the inputs of these rows."""
        return batch if batch.inputs.is_floating_point() else replace(batch, inputs=self.inputs[batch.inputs])

    @cached_property
    def _counts(self) -> Tensor:
        """The weight of each label, 0 where not observed."""
        return self.observed * self.weight.unsqueeze(1)

    @cached_property
    def _share(self) -> Tensor:
        """The share of the row weights that each task's labels have."""
        return self._counts.mean(0)

    def _targets(self, rows: Tensor, columns: Tensor | None) -> list[Tensor]:
        if len(self._stacked) == 1 and columns is None:
            return list(self._beside[rows].unbind(2))
        if columns is None:
            return [target[rows] for target in self.targets]
        return [self._slot(slot, rows) for slot in columns.unbind(1)]

    @cached_property
    def _beside(self) -> Tensor:
        """Labels of one shape, ``[row, task, ...]``: those of a row lie side by side, and are fetched at once."""
        return self._stacked[0][1].movedim(0, 1).contiguous()

    def _slot(self, tasks: Tensor, rows: Tensor) -> Tensor:
        """The labels of one task for each replica; these tasks are alike."""
        if len(self._stacked) == 1:
            return self._stacked[0][1][tasks.unsqueeze(1), rows]
        places, labels = next((p.to(tasks.device), t) for p, t in self._stacked if int(tasks[0]) in p)
        return labels[torch.searchsorted(places, tasks.contiguous()).unsqueeze(1), rows]

    @cached_property
    def _stacked(self) -> list[tuple[Tensor, Tensor]]:
        """Labels of one shape in one piece, ``[task, row, ...]``, and which tasks these are."""
        groups: dict[torch.Size, list[int]] = {}
        for i, target in enumerate(self.targets):
            groups.setdefault(target.shape, []).append(i)
        return [(torch.tensor(at), torch.stack([self.targets[i] for i in at])) for at in groups.values()]

    def _divisor(self, labels: Tensor, columns: Tensor | None, per: str, rows: int) -> Tensor:
        if per == "batch":
            whole = labels
        elif per == "expected":
            whole = rows * (self._share if columns is None else self._share[columns].unsqueeze(1))
        else:
            raise ValueError(f'`per` must be "batch" or "expected". Got {per!r}.')
        return torch.where(whole > 0, whole, 1.0)
