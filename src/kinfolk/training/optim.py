"""AdamW on stacked tensors.

torch.optim knows one learning rate per tensor and moves every parameter that has a gradient. Here the learning
rate and weight decay belong to replicas, and a slice that serves no present task does not move: Adam's moments
would push it on without a gradient. For one replica with everything present it equals ``torch.optim.AdamW``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from kinfolk import distributed


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
        Bool ``[slice, task]``: which slices of one replica serve which task; None: every slice serves every task.
    """

    parameter: nn.Parameter
    rate: float = 1.0
    decay: float = 1.0
    reach: Bool[Tensor, "slice task"] | None = None


@dataclass(frozen=True)
class _Run:
    """Neighbouring replicas of one learning rate and weight decay."""

    first: int
    last: int
    rate: float
    decay: float


class AdamW(nn.Module):
    """Adam with decoupled weight decay.

    Parameters
    ----------
    tuned
        The parameters, those of one replica.
    rate
        Learning rate of the replica, positive.
    decay
        Weight decay of the replica, not negative.
    betas, epsilon
        As in ``torch.optim.AdamW``.

    References
    ----------
    I. Loshchilov, F. Hutter (2019). Decoupled weight decay regularization. ICLR. Algorithm 2.
    """

    def __init__(
        self,
        tuned: Sequence[Tuned],
        rate: float,
        decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__()
        if not rate > 0 or not decay >= 0:
            raise ValueError(f"The learning rate must be positive and the weight decay not negative. Got {rate}, {decay}.")
        self._tuned = tuple(tuned)
        self.betas, self.epsilon = betas, epsilon
        self.rate: Tensor
        self.decay: Tensor
        self.register_buffer("rate", torch.tensor([float(rate)], dtype=torch.float64))
        self.register_buffer("decay", torch.tensor([float(decay)], dtype=torch.float64))
        for i, one in enumerate(self._tuned):
            self.register_buffer(f"mean{i}", torch.zeros_like(one.parameter))
            self.register_buffer(f"square{i}", torch.zeros_like(one.parameter))
            self.register_buffer(f"count{i}", torch.zeros(len(one.parameter), dtype=torch.int64))
        self.factor = 1.0
        self.present: Tensor | None = None
        self._runs: list[_Run] | None = None
        self._even: dict[int, int] = {}

    def zero_grad(self) -> None:
        """Drops all gradients."""
        for one in self._tuned:
            one.parameter.grad = None

    def forget(self) -> None:
        """Drops what was derived from the replicas' settings: after replicas were stacked, selected or loaded."""
        self._runs = None
        self._even = {}

    @torch.no_grad()
    def step(self) -> None:
        """Moves every active slice that has a gradient.

        ``factor`` (a number, set by the schedule) multiplies all learning rates. ``present`` (Bool
        ``[replica, task]``, or None for all) tells which tasks have a label in this update.
        """
        everything = self.present is None or bool(self.present.all())
        fused: dict[tuple[float, float, int], list[tuple[Tensor, ...]]] = {}
        for i, one in enumerate(self._tuned):
            if one.parameter.grad is None:
                continue
            one.parameter.grad = distributed.mean(one.parameter.grad)
            steps = self._steps(i)
            active = None if everything else self._active(one)
            if steps is None or active is not None:
                self._masked(i, one, active)
                continue
            self._even[i] = steps + 1
            self._buffer("count", i).add_(1)
            for run, slices in self._slices(i, one):
                fused.setdefault((run.rate * one.rate, run.decay * one.decay, steps + 1), []).append(slices)
        for (rate, decay, steps), group in fused.items():
            self._fused(rate * self.factor, decay, steps, group)

    def _buffer(self, what: str, i: int) -> Tensor:
        return getattr(self, f"{what}{i}")

    def _steps(self, i: int) -> int | None:
        """How many steps every copy of the parameter has made; None when copies differ."""
        if i not in self._even:
            count = self._buffer("count", i)
            self._even[i] = int(count[0]) if bool((count == count[0]).all()) else -1
        return None if self._even[i] < 0 else self._even[i]

    def _active(self, one: Tuned) -> Tensor | None:
        """Bool ``[copy]``: serves a present task; None when all do."""
        assert self.present is not None
        if one.reach is None:
            active = self.present.any(-1).repeat_interleave(len(one.parameter) // len(self.present))
        else:
            active = (self.present.unsqueeze(1) & one.reach.to(self.present.device)).any(-1).flatten()
        return None if bool(active.all()) else active

    def _slices(self, i: int, one: Tuned) -> Iterator[tuple[_Run, tuple[Tensor, ...]]]:
        if self._runs is None:
            self._runs = _runs(self.rate.tolist(), self.decay.tolist())
        of = (one.parameter, one.parameter.grad, self._buffer("mean", i), self._buffer("square", i))
        if len(self._runs) == 1:
            yield self._runs[0], of
            return
        slices = len(one.parameter) // len(self.rate)
        for run in self._runs:
            yield run, tuple(t[run.first * slices : run.last * slices] for t in of if t is not None)

    def _fused(self, rate: float, decay: float, steps: int, group: list[tuple[Tensor, ...]]) -> None:
        """One pass over memory for parameters of one learning rate: torch's own kernel."""
        parameters, gradients, means, squares = (list(column) for column in zip(*group, strict=True))
        step = torch.tensor(float(steps), device=parameters[0].device)
        torch._fused_adamw_(
            parameters, gradients, means, squares, [], [step] * len(parameters), lr=rate, beta1=self.betas[0],
            beta2=self.betas[1], weight_decay=decay, eps=self.epsilon, amsgrad=False, maximize=False,
        )  # fmt: skip

    def _masked(self, i: int, one: Tuned, active: Tensor | None) -> None:
        """The same update with a count, a learning rate and a switch for each copy."""
        p, g = one.parameter, one.parameter.grad
        assert g is not None
        m, v, count = self._buffer("mean", i), self._buffer("square", i), self._buffer("count", i)
        on = torch.ones_like(count, dtype=torch.bool) if active is None else active
        if active is not None:
            self._even[i] = -1
        count.add_(on)
        wide = lambda x: x.to(p.dtype).view(-1, *[1] * (p.ndim - 1))  # noqa: E731
        b1, b2 = self.betas
        m.lerp_(g, wide((1 - b1) * on))
        v.lerp_(g * g, wide((1 - b2) * on))
        copies = len(p) // len(self.rate)
        rate = self.rate.repeat_interleave(copies) * one.rate * self.factor * on
        made = count.clamp(min=1).double()
        p.mul_(wide(1 - rate * self.decay.repeat_interleave(copies) * one.decay))
        root = (v / wide(1 - b2**made)).sqrt_().add_(self.epsilon)
        p.sub_(wide(rate / (1 - b1**made)) * m / root)


def _runs(rates: list[float], decays: list[float]) -> list[_Run]:
    runs: list[_Run] = []
    for i, (rate, decay) in enumerate(zip(rates, decays, strict=True)):
        if runs and (runs[-1].rate, runs[-1].decay) == (rate, decay):
            runs[-1] = _Run(runs[-1].first, i + 1, rate, decay)
        else:
            runs.append(_Run(i, i + 1, rate, decay))
    return runs
