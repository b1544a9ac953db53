"""What optimisers on stacked tensors have in common: settings per replica, and slices that keep still.

torch.optim knows one learning rate per tensor and moves every parameter that has a gradient. Here the learning
rate and weight decay belong to replicas, and a slice that serves no present task does not move.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from kinfolk import distributed

PATTERNS = 64  # of present tasks that are remembered at a time


@dataclass(frozen=True)
class Tuned:
    """A parameter and how it is to be moved.

    Attributes
    ----------
    parameter
        ``[copy, ...]``.
    rate, decay
        Factors of the replica's learning rate and weight decay.
    reach
        Bool ``[copy, task]``: which slices serve which task; None: every slice serves every task.
    """

    parameter: nn.Parameter
    rate: float = 1.0
    decay: float = 1.0
    reach: Bool[Tensor, "copy task"] | None = None


@dataclass(frozen=True)
class Run:
    """Copies side by side, of replicas with one learning rate and weight decay."""

    copies: slice
    rate: float
    decay: float
    parameter: Tensor
    kept: tuple[Tensor, ...]


@dataclass
class Slices:
    """A parameter with what is kept of it; ``steps`` that every copy has made, None where copies differ."""

    tuned: Tuned
    parameter: nn.Parameter
    kept: tuple[Tensor, ...]
    reach: Tensor | None
    runs: list[Run]
    steps: int | None = None

    @classmethod
    def of(
        cls, tuned: Tuned, kept: tuple[Tensor, ...], reach: Tensor | None, settings: list[tuple[float, float]]
    ) -> Slices:
        """From what is stored; ``settings`` are the learning rate and weight decay of each replica."""
        p, slices, runs, first = tuned.parameter, len(tuned.parameter) // len(settings), [], 0
        for (rate, decay), same in groupby(settings):
            at = slice(first, first + slices * len(list(same)))
            runs.append(Run(at, rate * tuned.rate, decay * tuned.decay, p[at], tuple(t[at] for t in kept)))
            first = at.stop
        return cls(tuned, p, kept, reach, runs)

    def active(self, present: Tensor) -> Tensor | None:
        """Bool ``[copy]``: serves a present task; None when all do."""
        if self.reach is None:
            active = present.any(-1).repeat_interleave(len(self.parameter) // len(present))
        else:
            active = (present.unsqueeze(1) & self.reach.unflatten(0, (len(present), -1))).any(-1).flatten()
        return None if bool(active.all()) else active


class SliceOptimizer(nn.Module):
    """An optimiser of stacked tensors. A method overrides ``step``.

    Parameters
    ----------
    tuned
        The parameters, those of one replica.
    rate
        Learning rate of the replica, positive.
    decay
        Weight decay of the replica, not negative.

    Attributes
    ----------
    factor
        Of all learning rates, set by the schedule.
    present
        Bool ``[replica, task]``: which tasks have a label in this update; None: all.
    """

    KEPT: tuple[str, ...] = ()
    """What is kept of each parameter, in tensors of its shape."""

    def __init__(self, tuned: Sequence[Tuned], rate: float, decay: float) -> None:
        super().__init__()
        if not rate > 0 or not decay >= 0:
            raise ValueError(
                f"The learning rate must be positive and the weight decay not negative. Got {rate}, {decay}."
            )
        self._tuned = tuple(tuned)
        self.rate: Tensor
        self.decay: Tensor
        self.register_buffer("rate", torch.tensor([float(rate)], dtype=torch.float64))
        self.register_buffer("decay", torch.tensor([float(decay)], dtype=torch.float64))
        for i, one in enumerate(self._tuned):
            for name in self.KEPT:
                self.register_buffer(f"{name}{i}", torch.zeros_like(one.parameter))
            self.register_buffer(f"reach{i}", one.reach)
        self.factor = 1.0
        self.present: Tensor | None = None
        self._derived: list[Slices] | None = None
        self._active: dict[tuple[tuple[bool, ...], ...], list[Tensor | None]] = {}

    def zero_grad(self) -> None:
        """Drops all gradients."""
        for one in self._tuned:
            one.parameter.grad = None

    def reach(self, i: int) -> Tensor | None:
        """Which slices of the i-th parameter serve which task, Bool ``[copy, task]``."""
        return self._buffers[f"reach{i}"]

    def set_rates(self, rates: Sequence[float]) -> None:
        """Sets each parameter's factor of the learning rate."""
        self._tuned = tuple(replace(one, rate=rate) for one, rate in zip(self._tuned, rates, strict=True))
        self.forget()

    def restart(self, reach: Sequence[Tensor | None]) -> None:
        """Forgets all that is kept, as new, with slices that serve other tasks than before."""
        for i, found in enumerate(reach):
            for kept in self.kept(i):
                kept.zero_()
            self.register_buffer(f"reach{i}", found)
        self.forget()

    def kept(self, i: int) -> tuple[Tensor, ...]:
        """What is kept of the i-th parameter."""
        return tuple(self.get_buffer(f"{name}{i}") for name in self.KEPT)

    def forget(self) -> None:
        """Drops what was derived from tensors: after replicas were stacked, moved, selected or loaded."""
        self._derived = None
        self._active.clear()

    @abstractmethod
    def step(self) -> None:
        """Moves every active slice that has a gradient."""

    def slices(self) -> list[Slices]:
        """All parameters with what is kept of them."""
        if self._derived is None:
            settings = list(zip(self.rate.tolist(), self.decay.tolist(), strict=True))
            self._derived = [Slices.of(one, self.kept(i), self.reach(i), settings) for i, one in enumerate(self._tuned)]
        return self._derived

    def moving(self) -> Iterator[tuple[Slices, Tensor, Tensor | None]]:
        """Parameters that have a gradient, it, and which slices are to move: Bool ``[copy]``; None: all."""
        slices = self.slices()
        active = [None] * len(slices) if self.present is None else self._active_in(self.present, slices)
        alone = distributed.processes() == 1
        for one, on in zip(slices, active, strict=True):
            gradient = one.parameter.grad
            if gradient is not None:
                yield one, gradient if alone else distributed.mean(gradient), on

    def _active_in(self, present: Tensor, slices: Sequence[Slices]) -> list[Tensor | None]:
        """Which copies of each parameter are active."""
        pattern = tuple(map(tuple, present.tolist()))
        if pattern not in self._active:
            if len(self._active) >= PATTERNS:
                self._active.clear()
            everything = all(map(all, pattern))
            self._active[pattern] = [None if everything else one.active(present) for one in slices]
        return self._active[pattern]
