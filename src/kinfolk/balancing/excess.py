"""Excess risks: tasks that are far from the best that they can reach weigh more."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kinfolk.balancing.gramian import Jacobian
from kinfolk.data.tasks import Task

REDUCTIONS = ("native", "sum", "mean")
SMALL = 1e-7  # as published


class Excess(Jacobian):
    """Weighs tasks by how far each is from the best that it can reach, which noisy labels do not raise.

    The excess risk of task t with gradient g_t is taken as ``E_t = sum_p g_tp^2 / sqrt(S_tp + 1e-7)``, S the sum of
    squared gradients of all updates so far (a diagonal Hessian as AdaGrad has it), relative to the task's first one.
    Then ``w_t <- w_t exp(rate E_t)``, and the weights are scaled to sum to the number of tasks present.

    S is as large as the tasks' gradients, and is held beside them. It starts anew where another number of parameters
    is shared.

    Parameters
    ----------
    rate
        Of the weights, positive. 0.01 as in the authors' code; their example takes 1.
    warmup
        Updates of a task in which its weight stays, not negative; E is then relative to its mean over them. The
        authors' code has none, their appendix takes three epochs.
    reduction
        "native", which is "sum": the weights sum to the number of tasks present. "mean": to 1.

    Raises
    ------
    ValueError
        For a number out of its range.

    References
    ----------
    Y. He, S. Zhou, G. Zhang, H. Yun, Y. Xu, B. Zeng, T. Chilimbi, H. Zhao (2024). Robust multi-task learning with
    excess risks. ICML. Equations 6, 7 and 9. There parameters of single tasks get the weighted gradient too.

    Examples
    --------
    >>> shared = torch.nn.Parameter(torch.ones(2))
    >>> method = Excess().setup([Task("price", "regression"), Task("rooms", "regression")])
    >>> method.backward(shared**2, shared=[shared])  # in the first update all are equal
    tensor([1., 1.])
    """

    def __init__(self, rate: float = 0.01, warmup: int = 0, reduction: str = "native") -> None:
        super().__init__()
        self.rate, self.warmup, self.reduction = float(rate), warmup, reduction
        if not self.rate > 0 or warmup < 0:
            raise ValueError(f"`rate` must be positive and `warmup` not negative. Got {rate}, {warmup}.")
        if reduction not in REDUCTIONS:
            raise ValueError(f"`reduction` must be one of {', '.join(REDUCTIONS)}. Got {reduction!r}.")

    def setup(self, tasks: Sequence[Task]) -> Excess:
        """Equal weights; nothing is known of gradients."""
        super().setup(tasks)
        self.logits: Tensor
        self.first: Tensor
        self.count: Tensor
        self.squares: Tensor
        for name in ("logits", "first", "count", "squares"):
            self.register_buffer(name, torch.zeros(len(tasks)))
        return self

    def combine(
        self, jacobian: Float[Tensor, "replica task param"], present: Bool[Tensor, "replica task"]
    ) -> Float[Tensor, "replica param"]:
        """The weighted sum of the tasks' gradients."""
        self._learn(self._risk(jacobian), present)
        logits = self.logits.view_as(present).masked_fill(~present, -torch.inf)
        weights = logits.softmax(-1).nan_to_num(0).to(jacobian)
        if self.reduction != "mean":
            weights = weights * present.sum(-1, keepdim=True)
        return (weights.unsqueeze(1) @ jacobian).squeeze(1)

    def _risk(self, jacobian: Tensor) -> Float[Tensor, "replica task"]:
        """E of all tasks, from squares to which these gradients are added."""
        if len(self.squares) != jacobian.numel():  # flat, so that a checkpoint of any size can be loaded
            self.squares = jacobian.new_zeros(jacobian.numel())
        square = jacobian.square()
        whole = self.squares.view_as(square).add_(square)
        return (square / (whole + SMALL).sqrt()).sum(-1)

    def _learn(self, risk: Tensor, present: Tensor) -> None:
        """Moves the weights of the present tasks."""
        logits, first, count = (x.view_as(present) for x in (self.logits, self.first, self.count))
        count.add_(present)
        start = present & (count <= max(1, self.warmup))
        first.add_(torch.where(start, risk / max(1, self.warmup), 0))
        moves = present & (count > self.warmup)
        logits.add_(torch.where(moves, self.rate * risk / (first + SMALL), 0))

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *others: object) -> None:
        """As usual; the squares have the size that they have in the state."""
        if f"{prefix}squares" in state:
            self.squares = torch.zeros_like(state[f"{prefix}squares"], device=self.squares.device)
        super()._load_from_state_dict(state, prefix, *others)
