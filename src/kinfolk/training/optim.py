"""Optimisers of stacked tensors, equal to torch's own for one replica with everything present."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kinfolk.training.slices import SliceOptimizer, Slices
from kinfolk.training.slices import Tuned as Tuned


class AdamW(SliceOptimizer):
    """Adam with decoupled weight decay.

    Moments would push a slice on without a gradient: one that serves no present task keeps still, and counts its own
    steps.

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

    KEPT = ("mean", "square")

    def __init__(
        self,
        tuned: Sequence[Tuned],
        rate: float,
        decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(tuned, rate, decay)
        self.betas, self.epsilon = betas, epsilon
        for i, one in enumerate(self._tuned):
            self.register_buffer(f"count{i}", torch.zeros(len(one.parameter), dtype=torch.int64))

    def kept(self, i: int) -> tuple[Tensor, ...]:
        """Both moments and the number of steps of each copy."""
        return (*super().kept(i), self.get_buffer(f"count{i}"))

    def slices(self) -> list[Slices]:
        """All parameters; with the number of steps where it is one for all copies."""
        known = self._derived is not None
        found = super().slices()
        for one in () if known else found:
            count = one.kept[-1]
            one.steps = int(count[0]) if bool((count == count[0]).all()) else None
        return found

    @torch.no_grad()
    def step(self) -> None:
        """Moves every active slice that has a gradient."""
        fused: dict[tuple[float, float, int], list[tuple[Tensor, ...]]] = {}
        counts = []
        for one, gradient, active in self.moving():
            if one.steps is None or active is not None:
                one.steps = None
                self._masked(one, gradient, active)
                continue
            one.steps += 1
            counts.append(one.kept[-1])
            for run in one.runs:
                part = gradient if len(one.runs) == 1 else gradient[run.copies]
                fused.setdefault((run.rate, run.decay, one.steps), []).append((run.parameter, part, *run.kept[:2]))
        if counts:
            torch._foreach_add_(counts, 1)  # pyright: ignore[reportPrivateImportUsage]
        for (rate, decay, steps), group in fused.items():
            self._fused(rate * self.factor, decay, steps, group)

    def _fused(self, rate: float, decay: float, steps: int, group: list[tuple[Tensor, ...]]) -> None:
        """One pass over memory for parameters of one learning rate: torch's own kernel."""
        parameters, gradients, means, squares = (list(column) for column in zip(*group, strict=True))
        step = torch.tensor(float(steps), device=parameters[0].device)
        torch._fused_adamw_(  # pyright: ignore[reportPrivateImportUsage]
            parameters, gradients, means, squares, [], [step] * len(parameters), lr=rate, beta1=self.betas[0],
            beta2=self.betas[1], weight_decay=decay, eps=self.epsilon, amsgrad=False, maximize=False,
        )  # fmt: skip

    def _masked(self, one: Slices, g: Tensor, active: Tensor | None) -> None:
        """The same update with a count, a learning rate and a switch for each copy."""
        p, (m, v, count) = one.parameter, one.kept
        on = torch.ones_like(count, dtype=torch.bool) if active is None else active
        count.add_(on)
        wide = lambda x: x.to(p.dtype).view(-1, *[1] * (p.ndim - 1))  # noqa: E731
        b1, b2 = self.betas
        m.lerp_(g, wide((1 - b1) * on))
        v.lerp_(g * g, wide((1 - b2) * on))
        copies = len(p) // len(self.rate)
        rate = self.rate.repeat_interleave(copies) * one.tuned.rate * self.factor * on
        made = count.clamp(min=1).double()
        p.mul_(wide(1 - rate * self.decay.repeat_interleave(copies) * one.tuned.decay))
        root = (v / wide(1 - b2**made)).sqrt_().add_(self.epsilon)
        p.sub_(wide(rate / (1 - b1**made)) * m / root)


class Sgd(SliceOptimizer):
    """Gradient steps, plain or with momentum. The weight decay is added to the gradient.

    Parameters
    ----------
    tuned
        The parameters, those of one replica.
    rate
        Learning rate of the replica, positive.
    decay
        Weight decay of the replica, not negative.
    momentum
        Share of the last step's direction that goes into the next one, in [0, 1).
    nesterov
        Whether the gradient counts as if it had been taken one such step further.

    References
    ----------
    I. Sutskever, J. Martens, G. Dahl, G. Hinton (2013). On the importance of initialization and momentum in deep
    learning. ICML.
    """

    def __init__(
        self,
        tuned: Sequence[Tuned],
        rate: float,
        decay: float = 0.0,
        momentum: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` must be in [0, 1). Got {momentum}.")
        self.KEPT = ("velocity",) if momentum else ()
        super().__init__(tuned, rate, decay)
        self.momentum, self.nesterov = momentum, nesterov

    @torch.no_grad()
    def step(self) -> None:
        """Moves every active slice that has a gradient.

        A slice moves by the same operations whatever is beside it: alone and in a stack it is equal bit for bit.
        """
        for one, gradient, active in self.moving():
            for run in one.runs:
                g = gradient if len(one.runs) == 1 else gradient[run.copies]
                on = None if active is None else active[run.copies].view(-1, *[1] * (g.ndim - 1))
                if run.decay:
                    g = g + run.decay * run.parameter
                if run.kept:
                    g = self._pushed(run.kept[0], g, on)
                step = g * (-run.rate * self.factor)
                run.parameter.add_(step if on is None else torch.where(on, step, 0.0))

    def _pushed(self, velocity: Tensor, g: Tensor, on: Tensor | None) -> Tensor:
        """The direction of the step, from a gradient and the velocity, which changes where ``on``."""
        now = self.momentum * velocity + g
        velocity.copy_(now if on is None else torch.where(on, now, velocity))
        return g + self.momentum * now if self.nesterov else now
