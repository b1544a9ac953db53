"""Sluice networks: subspaces of all tasks' features are mixed, and so are the layers that a head reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinfolk.data.tasks import Task
from kinfolk.quantities import Quantity
from kinfolk.sharing.base import Outputs, Sharing
from kinfolk.sharing.copies import Copies, check_shares, shares
from kinfolk.sharing.heads import Heads
from kinfolk.trunks.base import Trunk


class Sluice(Sharing):
    """A trunk per task, its features cut into subspaces; all subspaces of all tasks are mixed after each stage.

    After a stage, subspace (t, a) becomes ``sum_(s, b) alpha[t a, s b] x_(s, b)``. A task's head reads
    ``sum_l beta[t, l]`` of the mixed outputs of the stages. The penalty ``orthogonality`` keeps the subspaces of a
    task apart. Hard sharing, cross-stitch networks (one subspace, beta on the last stage) and supervision at lower
    layers are special alphas and betas.

    Differs from the paper: trunks are any stages instead of LSTMs, so only stages whose output has the shape of the
    last one's have a beta; with more subspaces than one the start puts ``other`` on all other subspaces, a task's own
    included (the authors' "balanced" start is ``same = 1 / n, other = 1 - 1 / n`` for n subspaces in all). Where the
    number of channels cannot be divided, the last subspace is smaller.

    Parameters
    ----------
    subspaces
        S of each task, at least 1.
    same
        What a subspace takes of itself at the start, in [0, 1].
    other
        What it takes of all others together at the start, in [0, 1].
    last
        The beta of the last stage at the start, in [0, 1]; the rest is spread over the stages before it.
    rate
        Factor of the learning rate of alphas and betas.
    alike
        All trunks start from the same weights, so that the channels that are mixed mean something alike.

    Raises
    ------
    ValueError
        For a value outside its range, and in ``setup`` for more subspaces than channels.

    References
    ----------
    S. Ruder, J. Bingel, I. Augenstein, A. Søgaard (2019). Latent multi-task architecture learning. AAAI, 4822-4829.
    """

    penalty = "orthogonality"

    def __init__(
        self,
        subspaces: int = 2,
        same: float | int = 0.9,
        other: float | int = 0.1,
        last: float | int = 0.9,
        rate: float | int = 1.0,
        alike: bool = True,
    ) -> None:
        super().__init__()
        check_shares(same=same, other=other, last=last)
        if subspaces < 1:
            raise ValueError(f"`subspaces` must be at least 1. Got {subspaces}.")
        if not rate >= 0:
            raise ValueError(f"`rate` must not be negative. Got {rate}.")
        self.same, self.other, self.last, self.rate = float(same), float(other), float(last), float(rate)
        self.subspaces, self.alike = subspaces, alike

    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> Sluice:
        """A trunk and a head per task, alphas between their subspaces and betas over stages."""
        self._names = tuple(task.name for task in tasks)
        self.trunks = Copies(trunk, inputs, ["" if self.alike else name for name in self._names])
        shapes, n = self.trunks.shapes, len(tasks)
        if few := [shape[0] for shape in shapes if shape[0] < self.subspaces]:
            raise ValueError(
                f"`subspaces` must be at most the channels of each stage, {min(few)}. Got {self.subspaces}."
            )
        alpha = shares(n * self.subspaces, self.same, self.other).unflatten(0, (n, -1))
        self.alphas = nn.ParameterList([alpha.clone() for _ in shapes])
        self._read = [i for i, shape in enumerate(shapes) if shape == shapes[-1]]
        beta = shares(len(self._read), self.last, 1 - self.last)[-1]
        self.betas = nn.Parameter(beta.repeat(n, 1))
        self.heads = Heads(tasks, shapes[-1].numel())
        return self

    def rates(self, phase: int) -> Mapping[str, float]:
        """The factor of alphas and betas."""
        return {"alphas": self.rate, "betas": self.rate}

    def forward(self, inputs: Tensor, preference: Tensor | None = None) -> Outputs:
        """One output per task."""
        x, after = self.trunks.spread(inputs), {}
        for i, alpha in enumerate(self.alphas):
            x = _mix(alpha.unflatten(0, (len(inputs), -1)), self.trunks.run(i, x))
            after[i] = x
        betas = self.betas[..., None, None].unbind(1)
        read = [beta * after[i].flatten(2) for i, beta in zip(self._read, betas, strict=True)]
        return self.heads(self.trunks.apart(torch.stack(read).sum(0)).unbind(1))

    def learned(self) -> Mapping[str, Quantity]:
        """The alphas after each stage between subspaces (task, number), and the betas of each task."""
        n, names = len(self._names), self._names
        if self.subspaces > 1:
            names = tuple(f"{name} {a + 1}" for name in names for a in range(self.subspaces))
        tables = [alpha.detach().clone().unflatten(0, (-1, n)).flatten(1, 2) for alpha in self.alphas]
        found = {f"alphas after stage {i}": Quantity(table, names, names) for i, table in enumerate(tables)}
        stages = tuple(f"stage {i}" for i in self._read)
        return found | {"betas": Quantity(self.betas.detach().clone().unflatten(0, (-1, n)), self._names, stages)}


def _mix(alpha: Tensor, x: Tensor) -> Tensor:
    """``alpha`` is ``[replica, task, subspace, task x subspace]``, ``x`` ``[replica x task, row, channel, ...]``."""
    replicas, tasks, subspaces, _ = alpha.shape
    alpha, channels = alpha.flatten(1, 2), x.shape[2]
    if subspaces == 1:
        return (alpha @ x.reshape(replicas, tasks, -1)).view(x.shape)
    wide = x.flatten(3) if x.ndim > 3 else x.unsqueeze(3)
    wide = F.pad(wide, (0, 0, 0, -channels % subspaces)).unflatten(2, (subspaces, -1)).transpose(1, 2)
    mixed = (alpha @ wide.reshape(replicas, tasks * subspaces, -1)).view(wide.shape)
    return mixed.transpose(1, 2).flatten(2, 3)[:, :, :channels].reshape(x.shape)
