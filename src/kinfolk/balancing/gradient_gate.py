"""A gate for the gradients of auxiliary tasks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kinfolk.balancing.gramian import Gramian
from kinfolk.data.tasks import Task


class GradientGate(Gramian):
    """Shared parameters follow an auxiliary task only while its gradient does not oppose that of the main tasks.

    The main gradient is the sum of the main tasks' ones. An auxiliary gradient is added where its cosine with that
    is not negative, or (``soft``) weighs as much as the cosine if that is positive. Heads of auxiliary tasks always
    learn. Without auxiliary tasks it is the plain sum; in a batch without a label of a main task there is nothing to
    oppose, and auxiliary gradients count in full.

    Parameters
    ----------
    soft
        Whether an auxiliary gradient is weighed by its cosine, instead of taken or left.
    at
        Whose gradients: those of the shared "parameters" or of the "features".
    every
        The weights are found anew in each so many updates and kept between them.
    reduction
        "native" and "sum" add gradients, "mean" divides the sum by the number of tasks.
    memory
        MiB that the tasks' gradients may take at once.

    References
    ----------
    Y. Du, W. M. Czarnecki, S. M. Jayakumar, M. Farajtabar, R. Pascanu, B. Lakshminarayanan (2018). Adapting auxiliary
    losses using gradient similarity. arXiv 1812.02224. There with one main and one auxiliary task.

    Examples
    --------
    >>> tasks = [Task("a", "regression"), Task("b", "regression", main=False)]
    >>> method = GradientGate().setup(tasks)
    >>> method.weights(torch.tensor([[[1.0, -0.1], [-0.1, 1.0]]]), torch.ones(1, 2, dtype=torch.bool))
    tensor([[1., 0.]])
    """

    def __init__(
        self,
        soft: bool = False,
        at: str = "parameters",
        every: int = 1,
        reduction: str = "native",
        memory: float = 512.0,
    ) -> None:
        super().__init__(at, every, reduction, memory)
        self.soft = soft

    def setup(self, tasks: Sequence[Task]) -> GradientGate:
        """Which tasks are main ones."""
        super().setup(tasks)
        self.main: Tensor
        self.register_buffer("main", torch.tensor([task.main for task in tasks]))
        return self

    def weights(
        self, gramian: Float[Tensor, "replica task task"], present: Bool[Tensor, "replica task"]
    ) -> Float[Tensor, "replica task"]:
        """1 for main tasks, open or closed (or the cosine) for auxiliary ones."""
        main = self.main.view_as(present)
        lead = (main & present).to(gramian.dtype).unsqueeze(-1)
        along = (gramian @ lead).squeeze(-1)  # inner products with the main gradient
        length = (lead.mT @ gramian @ lead).squeeze(-1).clamp(min=0).sqrt()
        if not self.soft:
            return torch.where(main, 1.0, (along >= 0).to(gramian.dtype))
        sizes = gramian.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt() * length
        cosine = torch.where(sizes > 0, along / sizes, 1.0)  # nothing to oppose where there is no main gradient
        return torch.where(main, 1.0, cosine.clamp(0, 1))
