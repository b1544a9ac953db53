"""Multi-gate mixture of experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kinfolk.data.tasks import Task
from kinfolk.quantities import Quantity
from kinfolk.replicas import own, stack
from kinfolk.sharing.base import Outputs, Sharing, last_with_parameters
from kinfolk.sharing.copies import Copies
from kinfolk.sharing.heads import Heads
from kinfolk.trunks.base import Trunk
from kinfolk.trunks.stages import Dropout, Linear


class Mmoe(Sharing):
    """Several trunks as experts; a gate per task mixes their features, row by row.

    The features of task t are the sum over experts i of ``softmax(W_t x + b_t)[i] f_i(x)``, where x are the raw
    inputs, flattened. One expert is hard sharing. The paper's gates have no bias, and its heads a hidden layer.

    Experts start different by their initial weights; those of a user's own modules start equal and grow apart by
    the gates alone.

    Parameters
    ----------
    experts
        How many, at least 1. The paper has 8 small ones; here each is a whole trunk.
    dropout
        While training, each gate forgets an expert with this probability, row by row, in [0, 1), and what is left
        is scaled to sum to 1. It keeps a gate from leaning on one expert (0.1 in Zhao et al. 2019).

    Raises
    ------
    ValueError
        For a value outside its range.

    References
    ----------
    J. Ma, Z. Zhao, X. Yi, J. Chen, L. Hong, E. H. Chi (2018). Modeling task relationships in multi-task learning
    with multi-gate mixture-of-experts. KDD.

    Z. Zhao et al. (2019). Recommending what video to watch next: a multitask ranking system. RecSys. (Dropout.)
    """

    def __init__(self, experts: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        if experts < 1:
            raise ValueError(f"`experts` must be at least 1. Got {experts}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1). Got {dropout}.")
        self.experts, self.dropout = experts, float(dropout)

    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> Mmoe:
        """The experts, and a gate and a head per task."""
        self._tasks = tuple(task.name for task in tasks)
        self.trunks = Copies(trunk, inputs, [f"expert {i}" for i in range(self.experts)])
        self.gates = stack([self._gate(task, inputs.numel()) for task in tasks])
        self.forget = stack([self._forget(task) for task in tasks]) if self.dropout else None
        self.heads = Heads(tasks, self.trunks.shapes[-1].numel())
        self._seen: Tensor | None = None
        return self

    def _gate(self, task: Task, size: int) -> Linear:
        with own(f"gate {task.name}"):
            return Linear(size, self.experts)

    def _forget(self, task: Task) -> Dropout:
        with own(f"gate dropout {task.name}"):
            return Dropout(self.dropout)

    def forward(self, inputs: Tensor, preference: Tensor | None = None) -> Outputs:
        """One output per task."""
        gates = self._mix(inputs)
        self._seen = gates.detach().mean(2)
        mixed = torch.einsum("rtbe,rebf->rtbf", gates, self.trunks(inputs))
        return cast(Outputs, self.heads(mixed.unbind(1)))

    def _mix(self, inputs: Tensor) -> Float[Tensor, "replica task row expert"]:
        gates = torch.stack(self.gates.fan(inputs.flatten(2)), 1).softmax(-1)
        if self.forget is None or not self.training:
            return gates
        kept = self.forget(gates.flatten(0, 1)).view_as(gates)
        total = kept.sum(-1, keepdim=True)
        return torch.where(total > 0, kept / total.clamp(min=1e-12), gates)  # a gate that forgot all forgets none

    def learned(self) -> Mapping[str, Quantity]:
        """The mean gates of the last forward pass; uniform before it."""
        replicas = len(self.gates.weight) // len(self._tasks)
        uniform = torch.full((replicas, len(self._tasks), self.experts), 1 / self.experts)
        values = uniform if self._seen is None else self._seen
        return {"gates": Quantity(values, self._tasks, tuple(f"expert {i}" for i in range(self.experts)))}

    def last_shared(self) -> list[nn.Parameter]:
        """The last stage of the experts that has parameters: every gate lets every expert through."""
        return last_with_parameters(self.trunks.stages)
