"""AdamW on stacked tensors.

torch.optim knows one learning rate per tensor and moves every parameter that has a gradient. Here the learning
rate and weight decay belong to replicas, and a slice that serves no present task does not move: Adam's moments
would push it on without a gradient. For one replica with everything present it equals ``torch.optim.AdamW``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

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
        Bool ``[copy, task]``: which slices serve which task; None: every slice serves every task.
    """

    parameter: nn.Parameter
    rate: float = 1.0
    decay: float = 1.0
    reach: Bool[Tensor, "copy task"] | None = None


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
            raise ValueError(
                f"The learning rate must be positive and the weight decay not negative. Got {rate}, {decay}."
            )
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
            self.register_buffer(f"reach{i}", one.reach)
        self.factor = 1.0
        self.present: Tensor | None = None
        self._derived: list[_State] | None = None

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
        """Forgets all moments, as new, with slices that serve other tasks than before."""
        for i, found in enumerate(reach):
            for name in ("mean", "square", "count"):
                self.get_buffer(f"{name}{i}").zero_()
            self.register_buffer(f"reach{i}", found)
        self.forget()

    def forget(self) -> None:
        """Drops what was derived from tensors: after replicas were stacked, moved, selected or loaded."""
        self._derived = None

    @torch.no_grad()
    def step(self) -> None:
        """Moves every active slice that has a gradient.

        ``factor`` (a number, set by the schedule) multiplies all learning rates. ``present`` (Bool
        ``[replica, task]``, or None for all) tells which tasks have a label in this update.
        """
        alone = distributed.processes() == 1
        absent = None if self.present is None or bool(self.present.all()) else self.present
        fused: dict[tuple[float, float, int], list[tuple[Tensor, ...]]] = {}
        counts = []
        for state in self._states():
            if state.parameter.grad is None:
                continue
            gradient = state.parameter.grad if alone else distributed.mean(state.parameter.grad)
            active = None if absent is None else state.active(absent)
            if state.steps is None or active is not None:
                state.steps = None
                self._masked(state, gradient, active)
                continue
            state.steps += 1
            counts.append(state.count)
            for run in state.runs:
                part = gradient if len(state.runs) == 1 else gradient[run.copies]
                fused.setdefault((run.rate, run.decay, state.steps), []).append((run.parameter, part, *run.moments))
        if counts:
            torch._foreach_add_(counts, 1)  # pyright: ignore[reportPrivateImportUsage]
        for (rate, decay, steps), group in fused.items():
            self._fused(rate * self.factor, decay, steps, group)

    def _states(self) -> list[_State]:
        if self._derived is None:
            settings = list(zip(self.rate.tolist(), self.decay.tolist(), strict=True))
            self._derived = [
                _State.of(
                    one,
                    self.get_buffer(f"mean{i}"),
                    self.get_buffer(f"square{i}"),
                    self.get_buffer(f"count{i}"),
                    self.reach(i),
                    settings,
                )
                for i, one in enumerate(self._tuned)
            ]
        return self._derived

    def _fused(self, rate: float, decay: float, steps: int, group: list[tuple[Tensor, ...]]) -> None:
        """One pass over memory for parameters of one learning rate: torch's own kernel."""
        parameters, gradients, means, squares = (list(column) for column in zip(*group, strict=True))
        step = torch.tensor(float(steps), device=parameters[0].device)
        torch._fused_adamw_(  # pyright: ignore[reportPrivateImportUsage]
            parameters, gradients, means, squares, [], [step] * len(parameters), lr=rate, beta1=self.betas[0],
            beta2=self.betas[1], weight_decay=decay, eps=self.epsilon, amsgrad=False, maximize=False,
        )  # fmt: skip

    def _masked(self, state: _State, g: Tensor, active: Tensor | None) -> None:
        """The same update with a count, a learning rate and a switch for each copy."""
        p, m, v, count = state.parameter, state.mean, state.square, state.count
        on = torch.ones_like(count, dtype=torch.bool) if active is None else active
        count.add_(on)
        wide = lambda x: x.to(p.dtype).view(-1, *[1] * (p.ndim - 1))  # noqa: E731
        b1, b2 = self.betas
        m.lerp_(g, wide((1 - b1) * on))
        v.lerp_(g * g, wide((1 - b2) * on))
        copies = len(p) // len(self.rate)
        rate = self.rate.repeat_interleave(copies) * state.tuned.rate * self.factor * on
        made = count.clamp(min=1).double()
        p.mul_(wide(1 - rate * self.decay.repeat_interleave(copies) * state.tuned.decay))
        root = (v / wide(1 - b2**made)).sqrt_().add_(self.epsilon)
        p.sub_(wide(rate / (1 - b1**made)) * m / root)


@dataclass(frozen=True)
class _Run:
    """Copies side by side, of replicas with one learning rate and weight decay."""

    copies: slice
    rate: float
    decay: float
    parameter: Tensor
    moments: tuple[Tensor, Tensor]


@dataclass
class _State:
    """A parameter with its moments; ``steps`` that every copy has made, None where copies differ."""

    tuned: Tuned
    parameter: nn.Parameter
    mean: Tensor
    square: Tensor
    count: Tensor
    reach: Tensor | None
    steps: int | None
    runs: list[_Run]

    @classmethod
    def of(
        cls,
        tuned: Tuned,
        mean: Tensor,
        square: Tensor,
        count: Tensor,
        reach: Tensor | None,
        settings: list[tuple[float, float]],
    ) -> _State:
        """From what is stored; ``settings`` are the learning rate and weight decay of each replica."""
        p, slices, runs, first = tuned.parameter, len(tuned.parameter) // len(settings), [], 0
        for (rate, decay), same in groupby(settings):
            at = slice(first, first + slices * len(list(same)))
            runs.append(_Run(at, rate * tuned.rate, decay * tuned.decay, p[at], (mean[at], square[at])))
            first = at.stop
        even = bool((count == count[0]).all())
        return cls(tuned, p, mean, square, count, reach, int(count[0]) if even else None, runs)

    def active(self, present: Tensor) -> Tensor | None:
        """Bool ``[copy]``: serves a present task; None when all do."""
        if self.reach is None:
            active = present.any(-1).repeat_interleave(len(self.parameter) // len(present))
        else:
            active = (present.unsqueeze(1) & self.reach.unflatten(0, (len(present), -1))).any(-1).flatten()
        return None if bool(active.all()) else active
