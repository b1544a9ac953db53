"""Tensor-normal prior: heads of tasks have covariances over tasks, outputs and features, learned on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kinfolk.data.tasks import Task
from kinfolk.penalties.base import Penalty
from kinfolk.quantities import Quantity
from kinfolk.sharing.base import Outputs, Sharing
from kinfolk.sharing.heads import Heads
from kinfolk.trunks.stages import Linear

AUTHORS_RIDGE, AUTHORS_SMALL, AUTHORS_TRACE = 1e-5, 0.1, 3000.0  # in their code
VARIANTS = ("paper", "authors")


@dataclass(frozen=True)
class Spectrum:
    """A covariance by what it has learned: variances along some directions, and one for all others.

    It never grows beyond ``[size, rank]``: weights of few tasks say nothing about most pairs of features.

    Attributes
    ----------
    vectors
        Orthonormal directions, ``[copy, size, rank]``.
    variances
        Along them, ``[copy, rank]``.
    rest
        Along all others, ``[copy]``.
    """

    vectors: Float[Tensor, "copy size rank"]
    variances: Float[Tensor, "copy rank"]
    rest: Float[Tensor, " copy"]

    @classmethod
    def identity(cls, size: int, rank: int) -> Spectrum:
        """Of one copy."""
        return cls(torch.eye(size, rank)[None], torch.ones(1, rank), torch.ones(1))

    def to(self, like: Tensor) -> Spectrum:
        """As many equal copies as `like` has, on its device and in its precision."""
        whole = (t.to(like).expand(len(like), *t.shape[1:]) for t in (self.vectors, self.variances, self.rest))
        return Spectrum(*whole)

    @property
    def matrix(self) -> Float[Tensor, "copy size size"]:
        """The covariance itself."""
        size = self.vectors.shape[1]
        rest = self.rest.view(-1, 1, 1) * torch.eye(size, dtype=self.rest.dtype, device=self.rest.device)
        return (self.vectors * (self.variances - self.rest[:, None]).unsqueeze(1)) @ self.vectors.mT + rest

    @property
    def log_determinant(self) -> Float[Tensor, " copy"]:
        """Its logarithm."""
        size, rank = self.vectors.shape[1:]
        found = self.variances.log().sum(-1)
        return found if rank == size else found + (size - rank) * self.rest.log()

    def whiten(self, x: Float[Tensor, "copy size other"]) -> Float[Tensor, "copy size other"]:
        """The product with the inverse root of the covariance."""
        size, rank = self.vectors.shape[1:]
        along = self.vectors.mT @ x
        found = self.vectors @ (along * self.variances.rsqrt().unsqueeze(-1))
        if rank == size:
            return found
        return found + (x - self.vectors @ along) * self.rest.rsqrt().view(-1, 1, 1)


def flip_flop(
    weights: Float[Tensor, "copy task output feature"], rounds: int = 5, ridge: float | int = 1e-2
) -> list[Spectrum]:
    """Maximum likelihood of a tensor normal: each covariance given the others, in turn, from identities.

    Parameters
    ----------
    weights
        What is observed.
    rounds
        How often each covariance is estimated.
    ridge
        Added to the diagonal of each, relative to its mean variance; positive.

    Returns
    -------
    list of Spectrum
        Covariances of tasks, outputs and features. The first two have a mean variance of 1, the last has the scale.
    """
    found = [Spectrum.identity(*sizes).to(weights) for sizes in _sizes(*weights.shape[1:])]
    for mode in [0, 1, 2] * rounds:
        unfolded = _whitened(weights, found, but=mode)
        vectors, values, _ = torch.linalg.svd(unfolded, full_matrices=False)
        variances = values.square() / unfolded.shape[-1]
        mean = variances.sum(-1, keepdim=True) / unfolded.shape[1]
        scale = mean * (1 + ridge) if mode < 2 else torch.ones_like(mean)
        found[mode] = Spectrum(vectors, (variances + ridge * mean) / scale, (ridge * mean / scale).squeeze(-1))
    return found


def authors_update(weights: Float[Tensor, "copy task output feature"]) -> Spectrum:
    """The task covariance as in the authors' code: small eigenvalues are not inverted."""
    vectors, values, _ = torch.linalg.svd(weights.flatten(2), full_matrices=False)
    values = values.square() + AUTHORS_RIDGE
    precision = torch.where(values > AUTHORS_SMALL, 1 / values, values)
    others = weights.shape[1] - precision.shape[-1]
    trace = precision.sum(-1) + others * AUTHORS_RIDGE
    shrink = (AUTHORS_TRACE / trace).clamp(max=1)
    return Spectrum(vectors, 1 / (precision * shrink[:, None]), 1 / (AUTHORS_RIDGE * shrink))


def _whitened(weights: Tensor, spectra: Sequence[Spectrum], but: int | None = None) -> Tensor:
    """Weights times the inverse roots of all covariances but one, unfolded along this one (or the first)."""
    for mode, spectrum in enumerate(spectra):
        if mode != but:
            moved = weights.transpose(1, mode + 1)
            weights = spectrum.whiten(moved.flatten(2)).view_as(moved).transpose(1, mode + 1)
    return weights.transpose(1, (but or 0) + 1).flatten(2)


def _sizes(*sizes: int) -> list[tuple[int, int]]:
    """The size of each covariance, and how many directions of it weights of these sizes can show."""
    return [(size, min(size, math.prod(sizes) // size)) for size in sizes]


class _Prior(nn.Module):
    """The covariances of one group of heads, as buffers."""

    def __init__(self, names: tuple[str, ...], outputs: int, features: int) -> None:
        super().__init__()
        self._names = names  # of the first replica's tasks
        for mode, sizes in enumerate(_sizes(len(names), outputs, features)):
            for part, tensor in vars(Spectrum.identity(*sizes)).items():
                self.register_buffer(f"{part}{mode}", tensor)

    def spectra(self) -> list[Spectrum]:
        """The covariances of tasks, outputs and features."""
        return [
            Spectrum(self.get_buffer(f"vectors{m}"), self.get_buffer(f"variances{m}"), self.get_buffer(f"rest{m}"))
            for m in range(3)
        ]

    def learn(self, mode: int, spectrum: Spectrum, sound: Tensor) -> None:
        """Takes a new covariance where the replica is sound."""
        for part, new in vars(spectrum).items():
            old = self.get_buffer(f"{part}{mode}")
            old.copy_(torch.where(sound.view(-1, *[1] * (old.ndim - 1)), new, old))


class TensorNormal(Penalty):
    """Heads of one shape are taken as drawn from one normal whose covariance is that of tasks x outputs x features.

    Their weights w, ``[task, output, feature]``, cost ``strength / 2 * (w' (S_task x S_output x S_feature)^-1 w +
    sum_k D / D_k ln |S_k|)``. The covariances are identities at first, and are estimated every few epochs, by rounds
    of :func:`flip_flop`. Only their product is identified, so S_task and S_output have a mean variance of 1.

    Parameters
    ----------
    strength
        Factor of the penalty, not negative. The paper adds it to the *sum* of losses over rows, here it is added to
        their mean: one over the number of training rows is the paper's.
    every
        Epochs between two estimates, at least 1.
    eps
        Added to the diagonal of each covariance in each round, relative to its mean variance; positive. Small values
        hold heads to the directions that they have.
    rounds
        Rounds of an estimate, at least 1. They start from identities, not from the estimate before: with fewer tasks x
        outputs than features the likelihood has no single maximum, and a covariance that went on from the one before
        would drift to the identity by eps alone.
    variant
        "paper", or "authors" for what their code does: no factor 1/2, no determinants, only the task covariance is
        learned and not divided by the number of weights; its inverse keeps eigenvalues up to 0.1 as they are and has a
        trace of 3000 at most, and eps and rounds are not used. There it is estimated every 100 updates.

    Raises
    ------
    ValueError
        For a value outside its range, and in ``setup`` for a sharing in which no two tasks have heads of one shape.

    References
    ----------
    M. Long, Z. Cao, J. Wang, P. S. Yu (2017). Learning multiple tasks with multilinear relationship networks. NIPS.

    There several layers of each task have such a prior; here it is their heads, without the biases.
    """

    def __init__(
        self,
        strength: float | int = 1e-3,
        every: int = 1,
        eps: float | int = 1e-2,
        rounds: int = 5,
        variant: str = "paper",
    ) -> None:
        super().__init__()
        if not 0 <= strength < torch.inf or not 0 < eps < torch.inf:
            raise ValueError(f"`strength` must not be negative, `eps` must be positive. Got {strength} and {eps}.")
        if every < 1 or rounds < 1:
            raise ValueError(f"`every` and `rounds` must be at least 1. Got {every} and {rounds}.")
        if variant not in VARIANTS:
            raise ValueError(f"`variant` must be one of {', '.join(VARIANTS)}. Got {variant!r}.")
        self.strength, self.every, self.eps = float(strength), every, float(eps)
        self.rounds, self.variant = rounds, variant
        self._due = False

    def setup(self, model: Sharing, tasks: Sequence[Task]) -> TensorNormal:
        """Identities for every group of heads of one shape."""
        heads = getattr(model, "heads", None)
        groups = heads.groups if isinstance(heads, Heads) else ()
        self._at = [i for i, at in enumerate(groups) if len(at) > 1]
        if not self._at:
            had = f"heads for {', '.join(task.name for task in tasks)}" if groups else "no heads"
            raise ValueError(
                f"`tensor_normal` needs two tasks with heads of one shape. {type(model).__name__} has {had}."
            )
        self.priors = nn.ModuleList()
        for i in self._at:
            layer = cast(Linear, cast(Heads, heads).layers[i])
            self.priors.append(_Prior(tuple(tasks[t].name for t in groups[i]), *layer.weight.mT.shape[1:]))
        return self

    def at_epoch(self, epoch: int, losses: Tensor | None, errors: Tensor | None) -> None:
        """Marks the covariances as due; the next forward pass, which knows the network, estimates them."""
        self._due = epoch > 0 and epoch % self.every == 0

    def forward(
        self, model: Sharing, outputs: Outputs, losses: Float[Tensor, "replica task"]
    ) -> Float[Tensor, " replica"]:
        """The negative logarithm of the prior, but for a constant."""
        value = losses.new_zeros(len(losses))
        for prior, i in zip(self.priors, self._at, strict=True):
            layer = cast(Linear, cast(Heads, model.heads).layers[i])
            weights = layer.weight.unflatten(0, (len(losses), -1)).mT  # [replica, task, output, feature]
            value = value + self._value(cast(_Prior, prior), weights)
        self._due = False
        return self.strength * value

    def _value(self, prior: _Prior, weights: Tensor) -> Tensor:
        if self._due:
            self._estimate(prior, weights.detach())
        spectra = prior.spectra()
        if self.variant == "authors":
            return _whitened(weights, spectra[:1]).square().sum((1, 2))
        total = weights[0].numel()
        normal = sum(s.log_determinant * (total // s.vectors.shape[1]) for s in spectra)
        return (_whitened(weights, spectra).square().sum((1, 2)) + normal) / 2

    def _estimate(self, prior: _Prior, weights: Tensor) -> None:
        flat = weights.flatten(1)
        sound = flat.isfinite().all(1) & (flat != 0).any(1)  # a replica that failed must not stop the others
        weights = torch.where(sound.view(-1, 1, 1, 1), weights, 1)
        if self.variant == "authors":
            prior.learn(0, authors_update(weights), sound)
            return
        for mode, spectrum in enumerate(flip_flop(weights, self.rounds, self.eps)):
            prior.learn(mode, spectrum, sound)

    def learned(self) -> Mapping[str, Quantity]:
        """Covariance and correlation of tasks, for each group of heads of one shape."""
        found = {}
        for number, prior in enumerate(cast("Sequence[_Prior]", self.priors), 1):
            matrix = prior.spectra()[0].matrix
            root = matrix.diagonal(dim1=1, dim2=2).rsqrt()
            which = f" {number}" if len(self.priors) > 1 else ""
            for kind, table in (("covariance", matrix), ("correlation", matrix * root[:, :, None] * root[:, None, :])):
                found[f"task {kind}{which}"] = Quantity(table, prior._names, prior._names)
        return found
