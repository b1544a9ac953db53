"""CAGrad: the mean gradient, turned towards the task that it serves worst."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kinfolk.balancing.gramian import Gramian

LONGEST = 40  # interior-point steps; about 12 are needed
STILL = 1e-4  # of the gradients' overall norm: below it, gradients cancel each other


class CAGrad(Gramian):
    """Goes where the task that gains least gains most, within a ball around the mean gradient.

    Parameters
    ----------
    c
        Radius of the ball in norms of the mean gradient, in [0, 1): 0 is the mean gradient. 0.4 in the authors'
        experiments on scenes.
    rescale
        Divides the update: 0 by nothing, 1 by ``1 + c^2`` (the authors' default), 2 by ``1 + c``.
    at
        Where gradients are taken: at the shared parameters, or (cheaper) at the features that the heads read.
    every
        Updates between two solutions; the weights stay in between.
    reduction
        What reaches the optimiser: native (near the mean gradient), sum or mean.
    memory
        MiB that the tasks' gradients may take at once.

    References
    ----------
    B. Liu, X. Liu, X. Jin, P. Stone, Q. Liu (2021). Conflict-averse gradient descent for multi-task learning.
    NeurIPS. Algorithm 1.

    Notes
    -----
    With three tasks or more the update may conflict with one of them. Where task gradients cancel each other, to
    1e-4 of their size, there is no update.
    """

    native = "mean"

    def __init__(
        self,
        c: float = 0.4,
        rescale: Literal[0, 1, 2] = 1,
        at: str = "parameters",
        every: int = 1,
        reduction: str = "native",
        memory: float = 512.0,
    ) -> None:
        super().__init__(at, every, reduction, memory)
        self.c, self.rescale = float(c), rescale
        if not 0 <= self.c < 1:
            raise ValueError(f"`c` must be in [0, 1). Got {c}.")
        if rescale not in (0, 1, 2):
            raise ValueError(f"`rescale` must be 0, 1 or 2. Got {rescale}.")

    def weights(
        self, gramian: Float[Tensor, "replica task task"], present: Bool[Tensor, "replica task"]
    ) -> Float[Tensor, "replica task"]:
        """The mean's weights and those of the worst case, rescaled."""
        return avert(gramian, present, self.c) / (1.0, 1 + self.c**2, 1 + self.c)[self.rescale]


def avert(
    gramian: Float[Tensor, "replica task task"], present: Bool[Tensor, "replica task"], c: float
) -> Float[Tensor, "replica task"]:
    """Weights of the task gradients, before rescaling; 0 for the tasks that are not present."""
    on = present.cpu().double()
    g = gramian.cpu().double() * on.unsqueeze(-1) * on.unsqueeze(-2)
    size = g.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
    g = g / torch.where(size > 0, size, 1)
    mean = on / on.sum(-1, keepdim=True).clamp(min=1)
    pull = _times(g, mean)
    radius = c * (mean * pull).sum(-1, keepdim=True).clamp(min=0).sqrt()
    worst = _least(g, pull, radius, on)
    norm = (worst * _times(g, worst)).sum(-1, keepdim=True).clamp(min=0).sqrt()
    found = mean + radius / norm.clamp(min=STILL) * worst
    return torch.where(norm < STILL, 0, found).to(gramian)


def _least(g: Tensor, pull: Tensor, radius: Tensor, on: Tensor) -> Tensor:
    """The w of the simplex over the tasks that are on where ``w' pull + radius * sqrt(w' G w)`` is least.

    A primal-dual interior point: slopes + level = z, w z = barrier, sum w = 1, on the CPU in double precision.
    """
    count = on.sum(-1, keepdim=True).clamp(min=1)
    w, z, level = torch.where(on > 0, 1 / count, 1), torch.full_like(on, 0.1), torch.zeros_like(count)
    for _ in range(LONGEST):
        toward = _times(g, w * on)
        norm = ((w * toward).sum(-1, keepdim=True) + 1e-14).sqrt()
        slope = pull + radius * toward / norm
        gap = (w * z * on).sum(-1, keepdim=True) / count
        going = (gap >= 1e-11) | (((slope + level - z) * on).abs().amax(-1, keepdim=True) >= 1e-9)
        if not bool(going.any()):
            break
        barrier = 0.05 * gap
        along = toward / norm
        curvature = (radius / norm).unsqueeze(-1) * (g - along.unsqueeze(-1) * along.unsqueeze(-2))
        factor, _ = torch.linalg.cholesky_ex(curvature + torch.diag_embed(z / w))
        sides = torch.stack([(barrier / w - slope - level) * on, on], -1)
        free, held = torch.cholesky_solve(sides, factor).unbind(-1)
        rise = free.sum(-1, keepdim=True) / (held * on).sum(-1, keepdim=True).clamp(min=1e-300)
        dw = (free - held * rise) * on
        dz = (barrier / w - z - z / w * dw) * on
        length = torch.minimum(_longest(w, dw), _longest(z, dz))
        w, z = torch.where(going, w + length * dw, w), torch.where(going, z + length * dz, z)
        level = torch.where(going, level + length * rise, level)  # a replica does not depend on others' steps
    return w * on


def _longest(x: Tensor, step: Tensor) -> Tensor:
    """How far x may go, at most 1, to stay positive."""
    return 0.99 / (-step / x).amax(-1, keepdim=True).clamp(min=0.99)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)
