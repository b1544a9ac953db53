"""PCGrad: gradient surgery."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kinfolk import replicas
from kinfolk.balancing.gramian import Gramian
from kinfolk.data.tasks import Task


class PCGrad(Gramian):
    """Takes out of each task's gradient what conflicts with another task's, one after the other in random order.

    Parameters
    ----------
    at
        Where gradients are taken: at the shared parameters, or (cheaper) at the features that the heads read.
    every
        Updates between two projections; the weights stay in between.
    reduction
        What reaches the optimiser: native (the sum of the projected gradients), sum or mean.
    memory
        MiB that the tasks' gradients may take at once.

    References
    ----------
    T. Yu, S. Kumar, A. Gupta, S. Levine, K. Hausman, C. Finn (2020). Gradient surgery for multi-task learning.
    NeurIPS. Algorithm 1.

    Notes
    -----
    Every projected gradient is a combination of the gradients, so the coefficients are projected instead, with the
    inner products of the Gramian. From three tasks on the result depends on the order and may still conflict.
    """

    native = "sum"

    def __init__(
        self, at: str = "parameters", every: int = 1, reduction: str = "native", memory: float = 512.0
    ) -> None:
        super().__init__(at, every, reduction, memory)

    def setup(self, tasks: Sequence[Task]) -> PCGrad:
        """A source of random orders."""
        super().setup(tasks)
        self.random = replicas.Random()
        return self

    def weights(
        self, gramian: Float[Tensor, "replica task task"], present: Bool[Tensor, "replica task"]
    ) -> Float[Tensor, "replica task"]:
        """The sum of the projected coefficients."""
        tasks = present.shape[-1]
        order = self.random.uniform(tasks, tasks).argsort(-1)
        both = present.unsqueeze(-1) & present.unsqueeze(-2)
        return torch.where(present, project(torch.where(both, gramian, 0), order), 0)


def project(
    gramian: Float[Tensor, "replica task task"], order: Int[Tensor, "replica task task"]
) -> Float[Tensor, "replica task"]:
    """Weights of the task gradients in the sum of the projected ones.

    Row i of ``order`` is the sequence of tasks that i is projected against; all i make their k-th projection at once.
    Computed on the CPU, as the matrices are small and the steps many.
    """
    g, order = gramian.cpu(), order.cpu()
    tasks = torch.arange(g.shape[-1]).unsqueeze(-1)
    square = g.diagonal(dim1=-2, dim2=-1)
    coefficients = torch.diag_embed(torch.ones_like(square))
    inner = g.clone()  # of each projected gradient with every original one
    for other in order.unbind(-1):
        at = other.unsqueeze(-1)
        along = inner.gather(-1, at)
        conflict = (along < 0) & (at != tasks)
        excess = torch.where(conflict, along / square.gather(-1, other).unsqueeze(-1), 0)
        coefficients.scatter_add_(-1, at, -excess)
        inner -= excess * g.gather(-2, at.expand_as(g))
    return coefficients.sum(-2).to(gramian)
