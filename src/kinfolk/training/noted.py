"""What a training notes beside its history."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kinfolk.quantities import Quantity


@dataclass(frozen=True)
class Failure:
    """A replica whose loss became NaN or infinite."""

    replica: int
    task: int
    update: int


@dataclass(frozen=True)
class Learned:
    """What replicas (by number) had learned beside weights after an update, by name."""

    updates: int
    numbers: Tensor
    quantities: dict[str, Quantity]
