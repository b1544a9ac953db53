"""How long networks train."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kinfolk.training.schedule import Schedule


@dataclass(frozen=True)
class Length:
    """How long networks train.

    Attributes
    ----------
    epochs, updates
        At least so many of each.
    batch
        Rows per update.
    patience
        Share of all updates without improvement after which a task's patience is spent.
    grows
        Whether a batch may be larger than that where rows without labels train too.
    """

    epochs: int = 100
    updates: int = 1500
    batch: int = 32
    patience: float = 0.2
    grows: bool = True

    def schedule(self, rows: int) -> Schedule:
        """For replicas of so many training rows."""
        from kinfolk.training.schedule import Schedule

        batch = max(1, min(self.batch, rows))
        every = math.ceil(rows / batch)
        epochs = max(self.epochs, math.ceil(self.updates / every))
        updates = epochs * every
        return Schedule(updates, every, batch, max(1, round(self.patience * updates)), max(1, round(0.03 * updates)))
