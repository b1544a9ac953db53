"""Learning to branch: the tree of tasks is drawn, and learned by gradient descent together with the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from kinfolk.data.tasks import Task
from kinfolk.quantities import Quantity
from kinfolk.replicas import Random, own
from kinfolk.sharing.base import Outputs, Sharing
from kinfolk.sharing.copies import Copies
from kinfolk.sharing.heads import Heads
from kinfolk.trunks.base import Trunk


class Choice(Random):
    """Each child picks one parent: hard Gumbel-softmax with the gradient of the soft one.

    Parameters
    ----------
    children, parents
        Their numbers.
    """

    def __init__(self, children: int, parents: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.ones(children, parents))

    def probabilities(self) -> Tensor:
        """How likely each child picks each parent: ``[replica, child, parent]``."""
        return self._apart().softmax(-1)

    def forward(self, x: Tensor, temperature: Tensor, warm: Tensor) -> Tensor:
        """What each child reads: ``[replica, parent, row, ...]`` -> ``[replica, child, row, ...]``."""
        logits = self._apart()
        if self.training and bool(warm):
            picked = torch.full_like(logits, 1 / logits.shape[-1])
        else:
            if self.training:
                uniform = self.uniform(*logits.shape[1:]).clamp(min=torch.finfo(logits.dtype).tiny)
                logits = (logits - (-uniform.log()).log()) / temperature
            soft = logits.softmax(-1)
            # The difference is 0 and has the gradient; a product with 0 also lets reach() find every parent.
            picked = one_hot(logits.argmax(-1), logits.shape[-1]) + (soft - soft.detach())
        return (picked @ x.flatten(2)).unflatten(2, x.shape[2:])

    def _apart(self) -> Tensor:
        return self.logits.unflatten(0, (len(self.seed), -1))


class LearnedBranching(Sharing):
    """Several copies of each stage; each copy picks the copy below that it reads, and each task a copy of the last.

    While training, picks are drawn anew in every update, more decided as the temperature falls. Otherwise each child
    reads its most likely parent: a tree.

    Parameters
    ----------
    copies
        Copies of each stage, at least 1; None: as many as tasks.
    temperature
        Of the Gumbel-softmax in the first epoch, positive; in epoch e (from 0) it is divided by the root of e + 1.
        An epoch lasts until the next look at the rows that stop training.
    warmup
        Epochs at the start in which each child reads the mean of all parents, so that all of them learn; at least 0.
    rate
        Factor of the learning rate for the logits of the picks, at least 0. They must move by about 1, weights by less.

    Raises
    ------
    ValueError
        For a value outside its range.

    References
    ----------
    P. Guo, C.-Y. Lee, D. Ulbricht (2020). Learning to branch for multi-task learning. ICML.

    Notes
    -----
    Where it differs: temperature, warm-up and initial logits (all equal) are those of a popular re-implementation. It
    sums over all parents while warm, which scales features by the number of copies and drops that at once at the end
    of the warm-up: here it is their mean.
    """

    def __init__(
        self, copies: int | None = None, temperature: float | int = 5.0, warmup: int = 2, rate: float | int = 10.0
    ) -> None:
        super().__init__()
        if copies is not None and copies < 1:
            raise ValueError(f"`copies` must be at least 1, or None. Got {copies}.")
        if not temperature > 0 or not rate >= 0 or warmup < 0:
            raise ValueError(
                "`temperature` must be positive, `warmup` and `rate` must be at least 0. "
                f"Got {temperature}, {warmup} and {rate}."
            )
        self.copies, self.temperature, self.warmup, self.rate = copies, float(temperature), warmup, float(rate)

    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> LearnedBranching:
        """Copies of the trunk that start apart, and equal chances for all parents."""
        names = [f"copy {i}" for i in range(self.copies or len(tasks))]
        self.trunk = Copies(trunk, inputs, names)
        self.heads = Heads(tasks, math.prod(self.trunk.shapes[-1]))
        self.choices = nn.ModuleList()
        for stage in range(1, len(self.trunk.stages) + 1):
            with own(f"choice {stage}"):
                last = stage == len(self.trunk.stages)
                self.choices.append(Choice(len(tasks) if last else len(names), len(names)))
        self._tasks, self._copies = tuple(task.name for task in tasks), tuple(names)
        self.heat: Tensor
        self.warm: Tensor
        self.register_buffer("heat", torch.tensor(self.temperature))
        self.register_buffer("warm", torch.tensor(self.warmup > 0))
        return self

    def forward(self, inputs: Tensor, preference: Tensor | None = None) -> Outputs:
        """One output per task."""
        x = self.trunk.spread(inputs)
        for stage, choice in zip(self.trunk.stages, self.choices, strict=True):
            x = choice(self.trunk.apart(stage(x)), self.heat, self.warm).flatten(0, 1)
        x = x.unflatten(0, (len(inputs), -1)).flatten(3)
        return cast(Outputs, self.heads(x.unbind(1)))

    def rates(self, phase: int) -> Mapping[str, float]:
        """The logits of the picks have a learning rate of their own."""
        return {"choices": self.rate}

    def at_epoch(self, epoch: int, losses: Tensor | None, errors: Tensor | None) -> None:
        """The temperature falls; the warm-up ends."""
        self.heat.fill_(self.temperature / math.sqrt(epoch + 1))
        self.warm.fill_(epoch < self.warmup)

    def learned(self) -> Mapping[str, Quantity]:
        """How likely each copy (or task) picks each copy below."""
        found = {}
        for stage, module in enumerate(self.choices, 1):
            last = stage == len(self.choices)
            values = cast(Choice, module).probabilities().detach()
            name = "choices of the tasks" if last else f"choices of stage {stage}"
            found[name] = Quantity(values, self._tasks if last else self._copies, self._copies)
        return found
