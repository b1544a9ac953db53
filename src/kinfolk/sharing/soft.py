"""Soft sharing: a trunk for each task, held together by a penalty."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kinfolk.data.tasks import Task
from kinfolk.sharing.base import Outputs, Sharing
from kinfolk.sharing.copies import Copies
from kinfolk.sharing.heads import Heads
from kinfolk.trunks.base import Trunk


class Soft(Sharing):
    """Each task has a trunk of its own, and a penalty pulls these towards each other.

    The penalty is ``soft_sharing`` unless the arm names another: ``soft + soft_sharing(strength=0.1)``. With strength
    0 the tasks learn apart, though on common rows and with one stop: ``independent`` does without both. All trunks
    read all rows.

    Parameters
    ----------
    alike
        All trunks start from the same weights. Else hidden units of two trunks have nothing in common but their
        number, and pulling their weights together means nothing.

    References
    ----------
    L. Duong, T. Cohn, S. Bird, P. Cook (2015). Low resource dependency parsing: cross-lingual parameter sharing in a
    neural network parser. ACL, 845-850.

    T. Evgeniou, M. Pontil (2004). Regularized multi-task learning. KDD, 109-117.
    """

    penalty = "soft_sharing"

    def __init__(self, alike: bool = True) -> None:
        super().__init__()
        self.alike = alike

    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> Soft:
        """A trunk and a head per task."""
        self.trunks = Copies(trunk, inputs, ["" if self.alike else task.name for task in tasks])
        self.heads = Heads(tasks, self.trunks.shapes[-1].numel())
        return self

    def forward(self, inputs: Tensor, preference: Tensor | None = None) -> Outputs:
        """One output per task, each from its own trunk."""
        return self.heads(self.trunks(inputs).unbind(1))
