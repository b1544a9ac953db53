"""What a method learned beside weights, as tables that the history keeps and the report draws."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Quantity:
    """A table of numbers for each replica, such as a stitch matrix, gates or a covariance of tasks.

    Attributes
    ----------
    values
        ``[replica, line, column]``.
    lines, columns
        What stands at them, usually names of tasks.
    """

    values: Float[Tensor, "replica line column"]
    lines: tuple[str, ...]
    columns: tuple[str, ...]
