"""Sparse mixture of experts with differentiable selection."""

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


def smooth_step(z: Tensor, gamma: float = 1.0) -> Tensor:
    """0 for z <= -gamma/2, 1 for z >= gamma/2, and the cubic between that has no kink.

    Examples
    --------
    >>> smooth_step(torch.tensor([-0.5, 0.0, 0.25, 2.0]))
    tensor([0.0000, 0.5000, 0.8438, 1.0000])
    """
    u = 2 * z / gamma
    inside = u.clamp(-1, 1)
    # What is added is 0, and so is its gradient, but NaN sent back comes through: a code at rest has its place too.
    return 0.5 + inside * (0.75 - 0.25 * inside.square()) + 0 * u


class Selectors(nn.Module):
    """The k selectors of one task: the logits of their codes, and of their mixture.

    Parameters
    ----------
    experts, k, gamma
        As in :class:`DSelectK`.
    size
        Features that the gate reads; 0 for a gate that reads none.
    """

    def __init__(self, experts: int, k: int, gamma: float, size: int) -> None:
        super().__init__()
        self.experts, self.k, self.gamma, self.size = experts, k, gamma, size
        self.digits = (experts - 1).bit_length()
        bounds = torch.tensor([gamma / 100] * k * self.digits + [0.05] * k)  # near 0: no expert is out at the start
        self.weight = nn.Parameter((2 * torch.rand(1, size, len(bounds)) - 1) * bounds) if size else None
        self.bias = nn.Parameter((2 * torch.rand(1, 1, len(bounds)) - 1) * bounds)

    def forward(self, x: Float[Tensor, "replica row feature"]) -> tuple[Tensor, Tensor]:
        """Weights of experts ``[replica, task, row, selector, expert]``, and of selectors ``[..., selector]``.

        There is one row where the gate reads no features.
        """
        logits = self.bias.unflatten(0, (len(x), -1))
        if self.weight is not None:
            logits = logits + x.unsqueeze(1) @ self.weight.unflatten(0, (len(x), -1))
        steps = smooth_step(logits[..., : -self.k].unflatten(-1, (self.k, self.digits)), self.gamma)
        return self._decode(steps), logits[..., -self.k :].softmax(-1)

    def _decode(self, steps: Tensor) -> Tensor:
        """The product over binary digits of S or 1 - S, for every expert's number; the first digit counts most."""
        codes = steps.new_ones(*steps.shape[:-1], 1)
        for digit in steps.unsqueeze(-1).unbind(-2):
            codes = torch.stack([codes * (1 - digit), codes * digit], -1).flatten(-2)
        return codes[..., : self.experts]


class DSelectK(Sharing):
    """Several trunks as experts; each task learns which k of them to mix.

    A gate has k selectors. A selector picks one of n experts by its number in binary digits: each digit is a logit
    through :func:`smooth_step`, the weight of an expert is the product over digits of S or 1 - S, exactly 0 or 1
    once the logits are past ±gamma/2. There their gradients are 0: what is picked stays picked. The selectors are
    mixed by a softmax of their own.

    Where n is no power of 2, some codes belong to no expert. The penalty ``gate_entropy`` then comes with it, which
    keeps the selectors away from these; with a strength it also makes them decide sooner.

    Parameters
    ----------
    experts
        How many, at least 1.
    k
        The most experts that a task ends with, in 1..experts.
    per_example
        Gates read the raw inputs, flattened, so that each row has its own mixture; else a task has one for all.
    gamma
        Width of the step, positive: how far logits must go until they decide. Codes start within ±gamma/100 (the
        official code; mixing logits within ±0.05).

    Raises
    ------
    ValueError
        For a value outside its range.

    References
    ----------
    H. Hazimeh, Z. Zhao, A. Chowdhery, M. Sathiamoorthy, Y. Chen, R. Mazumder, L. Hong, E. H. Chi (2021). DSelect-k:
    differentiable selection in the mixture of experts with applications to multi-task learning. NeurIPS.
    """

    def __init__(self, experts: int = 4, k: int = 2, per_example: bool = False, gamma: float = 1.0) -> None:
        super().__init__()
        if experts < 1:
            raise ValueError(f"`experts` must be at least 1. Got {experts}.")
        if not 1 <= k <= experts:
            raise ValueError(f"`k` must be in 1..{experts}, the number of experts. Got {k}.")
        if not gamma > 0:
            raise ValueError(f"`gamma` must be positive. Got {gamma}.")
        self.experts, self.k, self.per_example, self.gamma = experts, k, per_example, float(gamma)
        if experts & (experts - 1):
            self.penalty = "gate_entropy(strength=0.0)"

    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> DSelectK:
        """The experts, and selectors and a head per task."""
        self._tasks = tuple(task.name for task in tasks)
        self.trunks = Copies(trunk, inputs, [f"expert {i}" for i in range(self.experts)])
        self.gates = stack([self._gate(task, inputs.numel()) for task in tasks])
        self.heads = Heads(tasks, self.trunks.shapes[-1].numel())
        self._seen: Tensor | None = None
        self._selectors: Tensor | None = None
        return self

    def _gate(self, task: Task, size: int) -> Selectors:
        with own(f"gate {task.name}"):
            return Selectors(self.experts, self.k, self.gamma, size if self.per_example else 0)

    @property
    def selectors(self) -> Float[Tensor, "replica task row selector expert"]:
        """What the selectors gave in the forward pass of this update, for penalties; one row without ``per_example``.

        Raises
        ------
        ValueError
            Unless the last forward pass was in training mode.
        """
        if self._selectors is None:
            raise ValueError("`selectors` are kept while training. Call the network in training mode first.")
        return self._selectors

    def forward(self, inputs: Tensor, preference: Tensor | None = None) -> Outputs:
        """One output per task."""
        selectors, weights = self.gates(inputs.flatten(2))
        self._selectors = selectors if self.training else None
        gates = (weights.unsqueeze(-2) @ selectors).squeeze(-2)
        self._seen = gates.detach().mean(2)
        trunks = self.trunks(inputs)
        mixed = torch.einsum("rtbe,rebf->rtbf", gates, trunks) if self.per_example else _common(gates, trunks)
        return cast(Outputs, self.heads(mixed.unbind(1)))

    def learned(self) -> Mapping[str, Quantity]:
        """The mean gates of the last forward pass; uniform before it."""
        replicas = len(self.gates.bias) // len(self._tasks)
        uniform = torch.full((replicas, len(self._tasks), self.experts), 1 / self.experts)
        values = uniform if self._seen is None else self._seen
        return {"gates": Quantity(values, self._tasks, tuple(f"expert {i}" for i in range(self.experts)))}

    def last_shared(self) -> list[nn.Parameter]:
        """The last stage of the experts that has parameters: until they decide, every task sees every expert."""
        return last_with_parameters(self.trunks.stages)


def _common(gates: Tensor, trunks: Tensor) -> Tensor:
    """The mixture where a task has one for all rows: a matrix product over experts."""
    return (gates.squeeze(2) @ trunks.flatten(2)).unflatten(-1, trunks.shape[2:])
