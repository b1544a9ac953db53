"""How long a stack trains, and its learning rate meanwhile."""

from __future__ import annotations

import math
from dataclasses import dataclass

SHAPES = ("cosine", "constant")


@dataclass(frozen=True)
class Schedule:
    """How long a stack trains, counted in updates.

    Attributes
    ----------
    updates
        The most that a replica makes in a phase; most networks train in one phase.
    every
        Updates of an epoch.
    batch
        Rows per update.
    patience
        Updates without improvement on the stop rows after which a task's patience is spent.
    warmup
        Updates in which the learning rate rises; then it follows its shape. In each phase anew.
    shape
        "cosine": it falls to 0 along a cosine. "constant": it stays, but for ``tail`` and ``steps``.
    tail
        Updates at the end in which a constant learning rate falls linearly to 0.
    steps
        (update, factor): from an update on, a constant learning rate is multiplied by a factor. In order.
    look
        Epochs between two looks at the stop rows, which are also when a training may be stopped and kept. What is
        told to a method that asks for the losses of the last epoch is then what was seen last.

    Raises
    ------
    ValueError
        For an unknown shape, or a fall that a cosine does not have.
    """

    updates: int
    every: int
    batch: int
    patience: int
    warmup: int
    shape: str = "cosine"
    tail: int = 0
    steps: tuple[tuple[int, float], ...] = ()
    look: int = 1

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"`shape` must be one of {', '.join(SHAPES)}. Got {self.shape!r}.")
        if self.shape != "constant" and (self.tail or self.steps):
            raise ValueError(f'`tail` and `steps` belong to the shape "constant". Got {self.shape!r}.')
        if not 0 <= self.tail <= self.updates or self.look < 1:
            raise ValueError(
                f"`tail` must be in [0, {self.updates}], and `look` at least 1. Got {self.tail} and {self.look}."
            )

    def factor(self, update: int) -> float:
        """The factor of the learning rate in an update of a phase."""
        if update < self.warmup:
            return (update + 1) / self.warmup
        if self.shape == "cosine":
            return 0.5 * (1 + math.cos(math.pi * (update - self.warmup) / max(1, self.updates - self.warmup)))
        left = min(1.0, (self.updates - update) / self.tail) if self.tail else 1.0
        return left * next((factor for start, factor in reversed(self.steps) if update >= start), 1.0)
