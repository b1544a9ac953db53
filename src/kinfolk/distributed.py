"""Sums and means over processes.

Sums over rows go through :func:`total`; after that every process computes the same, and gradients are
averaged by :func:`mean`. In one process both hand their argument through.
"""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def total(part: Tensor) -> Tensor:
    """The sum of ``part`` over processes.

    Backward multiplies by the number of processes, so that the *averaged* gradients are those of the sum.
    """
    n = processes()
    if n == 1:
        return part
    whole = part.detach().clone()
    dist.all_reduce(whole)
    scaled = part * n
    return scaled + (whole - scaled.detach())


def mean(part: Tensor) -> Tensor:
    """The mean of ``part`` over processes, without a gradient."""
    n = processes()
    if n == 1:
        return part
    whole = part.detach().contiguous().clone()  # gloo reduces the wrong memory of a view that is not contiguous
    dist.all_reduce(whole)
    return whole / n
