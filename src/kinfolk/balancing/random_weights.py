"""Random loss weighting."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from kinfolk import replicas
from kinfolk.balancing.base import Balancing, Losses
from kinfolk.data.tasks import Task

DRAWS = ("normal", "dirichlet")
REDUCTIONS = ("native", "sum", "mean")


class RandomWeights(Balancing):
    """Weights drawn anew for each update: what every other method has to beat.

    In expectation all tasks weigh the same. Tasks that are absent weigh 0, and the others share what there is.
    In a loop of one's own call ``kinfolk.replicas.tick(method)`` after each update; without it the draw stays.

    Parameters
    ----------
    draw
        "normal": the softmax of standard normal numbers, as published; "dirichlet": uniform over all weights that
        sum to 1.
    reduction
        "native", which is "mean": the weights sum to 1. "sum": they sum to the number of tasks that are present,
        as with equal weights of 1.

    Raises
    ------
    ValueError
        For an unknown ``draw`` or ``reduction``.

    References
    ----------
    B. Lin, F. Ye, Y. Zhang, I. W. Tsang (2022). Reasonable effectiveness of random weighting: a litmus test for
    multi-task learning. TMLR. The loss weighting of the two (RLW).
    """

    def __init__(self, draw: str = "normal", reduction: str = "native") -> None:
        super().__init__()
        for name, given, known in (("draw", draw, DRAWS), ("reduction", reduction, REDUCTIONS)):
            if given not in known:
                raise ValueError(f"`{name}` must be one of {', '.join(known)}. Got {given!r}.")
        self.draw, self.reduction = draw, reduction

    def setup(self, tasks: Sequence[Task]) -> RandomWeights:
        """A source of random numbers."""
        super().setup(tasks)
        with replicas.own("random_weights"):
            self.random = replicas.Random()
        return self

    def total(self, losses: Losses) -> Tensor:
        """The weighted sum over tasks."""
        return (self._weights(losses) * losses.value).sum(-1)

    def _weights(self, losses: Losses) -> Float[Tensor, "*replica task"]:
        seen = losses.seen
        uniform = self.random.uniform(seen.shape[-1]).view_as(losses.value).clamp(1e-7, 1 - 1e-7)
        # Exponential numbers over their sum are Dirichlet numbers.
        drawn = torch.special.ndtri(uniform).exp() if self.draw == "normal" else -uniform.log()
        drawn = torch.where(seen, drawn, 0).to(losses.value.dtype)
        weights = drawn / drawn.sum(-1, keepdim=True).clamp(min=torch.finfo(drawn.dtype).tiny)
        return weights * seen.sum(-1, keepdim=True) if self.reduction == "sum" else weights
