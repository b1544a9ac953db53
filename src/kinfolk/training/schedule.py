"""How long a stack trains, and its learning rate meanwhile."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """How long a stack trains, counted in updates.

    Attributes
    ----------
    updates
        The most that a replica makes in a phase; most networks train in one phase.
    every
        Updates between two looks at the stop rows: an epoch.
    batch
        Rows per update.
    patience
        Updates without improvement on the stop rows after which a task's patience is spent.
    warmup
        Updates in which the learning rate rises; then it falls to 0 along a cosine. In each phase anew.
    """

    updates: int
    every: int
    batch: int
    patience: int
    warmup: int

    def factor(self, update: int) -> float:
        """The factor of the learning rate in an update of a phase."""
        if update < self.warmup:
            return (update + 1) / self.warmup
        return 0.5 * (1 + math.cos(math.pi * (update - self.warmup) / max(1, self.updates - self.warmup)))
