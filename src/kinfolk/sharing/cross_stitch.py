"""Cross-stitch networks: after a stage, each task reads a learned mixture of all tasks' features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kinfolk.data.problem import Batch
from kinfolk.data.tasks import Task
from kinfolk.quantities import Quantity
from kinfolk.sharing.base import Outputs, Sharing
from kinfolk.sharing.copies import Copies, Joined, check_shares, chosen, phases_of, shares
from kinfolk.sharing.heads import Heads
from kinfolk.trunks.base import Trunk


class CrossStitch(Sharing):
    """A trunk per task; after a stage, each task's features become a learned mixture of those of all tasks.

    Task t reads ``sum_s alpha[t, s] x_s``. The alphas start convex and are free from then on.

    The paper's equation 3 prints the gradients of alpha[A, B] and alpha[B, A] in each other's place; here they are
    those of the forward rule. For more than two tasks the paper says nothing: ``other`` is spread evenly. Popular
    re-implementations are other methods: in one all alphas start at 1 (a sum of all streams, which multiplies the
    scale of activations by the number of tasks), in another there is one weight per source, so that every task reads
    the same mixture.

    Parameters
    ----------
    same
        What alpha[t, t] starts from, in [0, 1]. The paper tried 0.1 to 0.9, and 0.9 was best.
    other
        What the alphas of all other tasks start from, together, in [0, 1].
    per
        "layer": one alpha for all channels of a pair of tasks. "channel": one for each channel; the paper found this
        better for dense prediction, and unstable for detection.
    rate
        Factor of the learning rate of the alphas. The paper's best was 100 to 1000 under SGD, where the gradient of
        an alpha is small beside its size; AdamW scales every step, so that far less is right.
    start
        "independent": a first phase trains the trunks apart, and the stitches come in a second one, as in the paper.
        None: all start at once, from random weights.
    alike
        All trunks start from the same weights, as in the paper (there from ImageNet's), so that the channels that
        are mixed mean something alike.
    stages
        After which stages to stitch, from 0; None: after each. The paper stitches after pooling and fully connected
        layers only; after each convolution was worse.

    Raises
    ------
    ValueError
        For a value outside its range, and in ``setup`` for a stage that does not exist.

    References
    ----------
    I. Misra, A. Shrivastava, A. Gupta, M. Hebert (2016). Cross-stitch networks for multi-task learning. CVPR,
    3994-4003. Equations 1 to 3.
    """

    def __init__(
        self,
        same: float | int = 0.9,
        other: float | int = 0.1,
        per: str = "layer",
        rate: float | int = 1.0,
        start: str | None = None,
        alike: bool = True,
        stages: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_shares(same=same, other=other)
        if per not in ("layer", "channel"):
            raise ValueError(f"`per` must be 'layer' or 'channel'. Got {per!r}.")
        if not rate >= 0:
            raise ValueError(f"`rate` must not be negative. Got {rate}.")
        self.same, self.other, self.per, self.rate = float(same), float(other), per, float(rate)
        self.start, self.alike, self.stages = start, alike, stages
        self.phases = phases_of(start)

    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> CrossStitch:
        """A trunk and a head per task, and alphas between the trunks."""
        self._names = tuple(task.name for task in tasks)
        self.trunks = Copies(trunk, inputs, ["" if self.alike else name for name in self._names])
        self.joined = Joined(self.start)
        alpha = shares(len(tasks), self.same, self.other)
        self._at = chosen(self.stages, len(self.trunks.shapes))
        channels = [self.trunks.shapes[i][0] if self.per == "channel" else 1 for i in self._at]
        self.alphas = nn.ParameterList([alpha.unsqueeze(-1).repeat(1, 1, c) for c in channels])
        self.heads = Heads(tasks, self.trunks.shapes[-1].numel())
        return self

    def rates(self, phase: int) -> Mapping[str, float]:
        """The alphas' own factor; they rest while trunks are trained apart."""
        return {"alphas": self.rate if phase == self.phases - 1 else 0.0}

    def at_phase(self, phase: int, outputs: Outputs, batch: Batch) -> None:
        """Stitches the trained trunks."""
        self.joined.now.fill_(True)

    def forward(self, inputs: Tensor, preference: Tensor | None = None) -> Outputs:
        """One output per task, each from its own trunk with what it takes from the others."""
        x, stitches = self.trunks.spread(inputs), dict(zip(self._at, self.alphas, strict=True))
        for i in range(len(self.trunks.stages)):
            x = self.trunks.run(i, x)
            if i in stitches:
                alpha = stitches[i].unflatten(0, (len(inputs), -1))
                x = self.joined(x, lambda x, alpha=alpha: _stitch(alpha, x))
        return self.heads(self.trunks.apart(x).flatten(3).unbind(1))

    def learned(self) -> Mapping[str, Quantity]:
        """The alphas after each stage: what a task (line) reads of each task (column), the mean over channels."""
        tables = [alpha.detach().mean(-1).unflatten(0, (-1, len(self._names))) for alpha in self.alphas]
        return {
            f"alphas after stage {i}": Quantity(table, self._names, self._names)
            for i, table in zip(self._at, tables, strict=True)
        }


def _stitch(alpha: Tensor, x: Tensor) -> Tensor:
    """``alpha`` is ``[replica, task, source, channel or 1]``, ``x`` ``[replica x task, row, channel, ...]``."""
    replicas, tasks, _, channels = alpha.shape
    if channels == 1:  # one product for all rows and channels, without a copy
        return (alpha.squeeze(-1) @ x.reshape(replicas, tasks, -1)).view(x.shape)
    wide = x.reshape(replicas, tasks, len(x[0]), channels, -1)
    return torch.einsum("rtsc,rsncp->rtncp", alpha, wide).reshape(x.shape).contiguous()
