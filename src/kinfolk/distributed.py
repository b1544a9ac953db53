"""Sums and means over processes.

Every process draws the rows of an update, knows all their labels, and sends its share of them through the
network. Sums over rows go through :func:`total`; after that every process computes the same, and gradients are
averaged by :func:`mean`. In one process both hand their argument through.
"""

from __future__ import annotations

import atexit
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if processes() > 1 else 0


def join(rank: int, size: int, meeting: str, device: str) -> None:
    """Meets the other processes that train together, once; nothing happens in a process on its own.

    Parameters
    ----------
    rank, size
        Which of how many.
    meeting
        The name of a file that all see; the first makes it.
    device
        Where this one's tensors are: processes speak through nccl on a GPU, and through gloo otherwise.
    """
    if size > 1 and processes() == 1:
        gpu = device.startswith("cuda")
        if gpu:
            torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
        dist.init_process_group(backend, init_method=Path(meeting).as_uri(), rank=rank, world_size=size)
        atexit.register(dist.destroy_process_group)


def agree(flag: bool, device: torch.device | str = "cpu") -> bool:
    """Whether it holds in any process: so all of them stop when the clock of one says so."""
    return flag if processes() == 1 else bool(_sum(torch.tensor(float(flag), device=device)))


def share() -> slice:
    """Which rows of an update are this process's: every n-th."""
    n = processes()
    return slice(None) if n == 1 else slice(rank(), None, n)


def total(part: Tensor) -> Tensor:
    """The sum of ``part`` over processes, the same bits in each of them.

    Backward sums over processes too. So the *averaged* gradients are those of one process that has all rows,
    whether what follows is the same everywhere (a loss) or differs (rows that a sum has normalised).
    """
    return part if processes() == 1 else _Total.apply(part)


def mean(part: Tensor) -> Tensor:
    """The mean of ``part`` over processes, without a gradient."""
    n = processes()
    return part if n == 1 else _sum(part.detach()) / n


def _sum(part: Tensor) -> Tensor:
    whole = part.clone(memory_format=torch.contiguous_format)  # gloo reduces the wrong memory of other views
    dist.all_reduce(whole)
    return whole


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        return _sum(part)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return total(gradients[0])
