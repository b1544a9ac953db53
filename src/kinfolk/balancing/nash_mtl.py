"""Nash-MTL: the step that tasks would agree on by bargaining."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kinfolk.balancing.gramian import Gramian

LONGEST = 60  # Newton steps; about 10 are needed unless gradients cancel each other


class NashMTL(Gramian):
    """The Nash bargaining solution: any other step costs some tasks more, in relative terms, than others gain.

    The weights a of the gradients' Gramian G solve ``G a = 1 / a``. The update's squared norm is then the number of
    tasks whatever the losses are, and multiplying a loss by a constant changes nothing but that task's head.

    Parameters
    ----------
    max_norm
        What the norm of the shared gradient is clipped to, as in the authors' code; inf for no clip. As the norm
        is the root of the number of tasks, 1 always shortens it by that root.
    at
        Where gradients are taken: at the shared parameters, or (cheaper; the authors report that it hurts) at the
        features that the heads read.
    every
        Updates between two solutions; the weights stay in between. 1 in most of the authors' experiments.
    reduction
        native alone: the rule fixes the norm of the update.
    memory
        MiB that the tasks' gradients may take at once.

    References
    ----------
    A. Navon, A. Shamsian, I. Achituve, H. Maron, K. Kawaguchi, G. Chechik, E. Fetaya (2022). Multi-task learning as
    a bargaining game. ICML. Equation 2 and Algorithm 1.

    Notes
    -----
    The authors approximate the solution by a sequence of convex problems. Here it is found exactly, as the minimum
    of the strictly convex ``a' G a / 2 - sum log a``, by damped Newton steps on the gradients' cosines. Where
    gradients cancel each other the minimum is at infinity: eigenvalues of the cosines are kept above rounding.
    """

    native = "own"

    def __init__(
        self,
        max_norm: float = 1.0,
        at: str = "parameters",
        every: int = 1,
        reduction: str = "native",
        memory: float = 512.0,
    ) -> None:
        super().__init__(at, every, reduction, memory)
        self.max_norm = float(max_norm)
        if not self.max_norm > 0:
            raise ValueError(f"`max_norm` must be positive (inf: no clip). Got {max_norm}.")

    def weights(
        self, gramian: Float[Tensor, "replica task task"], present: Bool[Tensor, "replica task"]
    ) -> Float[Tensor, "replica task"]:
        """The bargaining solution, clipped."""
        found = bargain(gramian, present)
        if math.isinf(self.max_norm):
            return found
        norm = torch.einsum("rt,rtu,ru->r", found, gramian, found).clamp(min=0).sqrt()
        return found * (self.max_norm / norm.clamp(min=self.max_norm)).unsqueeze(-1)


def bargain(
    gramian: Float[Tensor, "replica task task"], present: Bool[Tensor, "replica task"]
) -> Float[Tensor, "replica task"]:
    """The a with ``G a = 1 / a`` over the tasks that are present and have a gradient; 0 for the others.

    The function that is minimised is self-concordant: steps damped by 1 / (1 + decrement) converge from anywhere.
    They are made on the CPU in double precision, as the matrices are small and the steps many.
    """
    on = (present & (gramian.diagonal(dim1=-2, dim2=-1) > 0)).cpu()
    norm = torch.where(on, gramian.diagonal(dim1=-2, dim2=-1).cpu().double().sqrt(), 1)
    cosines = _cosines(gramian.cpu().double(), norm, on, floor=1e-10 if gramian.dtype == torch.float64 else 1e-6)
    a = torch.ones_like(norm)
    for _ in range(LONGEST):
        slope = (cosines @ a.unsqueeze(-1)).squeeze(-1) - 1 / a
        factor = torch.linalg.cholesky(cosines + torch.diag_embed(a**-2))
        step = torch.cholesky_solve(slope.unsqueeze(-1), factor).squeeze(-1)
        decrement = (slope * step).sum(-1, keepdim=True).clamp(min=0).sqrt()
        going = decrement >= 1e-8  # a replica does not depend on others' steps
        if not bool(going.any()):
            break
        a = torch.where(going, a - step / (1 + torch.where(decrement > 0.25, decrement, 0)), a)
    return torch.where(on, a / norm, 0).to(gramian)


def _cosines(gramian: Tensor, norm: Tensor, on: Tensor, floor: float) -> Tensor:
    """Of the gradients that count, positive definite; the identity for the others."""
    both = on.unsqueeze(-1) & on.unsqueeze(-2)
    eye = torch.eye(on.shape[-1], dtype=gramian.dtype)
    values, vectors = torch.linalg.eigh(torch.where(both, gramian / (norm.unsqueeze(-1) * norm.unsqueeze(-2)), eye))
    return (vectors * values.clamp(min=floor).unsqueeze(-2)) @ vectors.mT
