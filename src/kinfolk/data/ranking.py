"""Losses of scores of which only the order counts."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def pairwise(
    score: Float[Tensor, "*lead row"], label: Float[Tensor, "*lead row"], weight: Float[Tensor, "*lead row"]
) -> Float[Tensor, "*lead row"]:
    """Each row's mean logistic loss over its pairs: rows with another label in the same batch.

    A pair costs ``log(1 + exp(-(s_i - s_j)))``, ``i`` the row with the higher label. Partners count by their weight; a
    row without a pair costs nothing. Of two classes the weighted mean over rows is the mean over all pairs.

    Parameters
    ----------
    score, label
        Outputs and labels.
    weight
        0 for rows that are nobody's partner: not observed, or padding.

    References
    ----------
    C. Burges, T. Shaked, E. Renshaw, A. Lazier, M. Deeds, N. Hamilton, G. Hullender (2005). Learning to rank using
    gradient descent. ICML. Target probability 1.

    Examples
    --------
    >>> pairwise(torch.tensor([2.0, 2.0]), torch.tensor([0.0, 1.0]), torch.ones(2))
    tensor([0.6931, 0.6931])
    """
    above = (label.unsqueeze(-1) - label.unsqueeze(-2)).sign()
    share = above.abs() * weight.unsqueeze(-2)
    share = share / share.sum(-1, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)
    return (share * F.softplus(-above * (score.unsqueeze(-1) - score.unsqueeze(-2)))).sum(-1)


def rankprop(
    score: Float[Tensor, "*lead row"], label: Float[Tensor, "*lead row"], weight: Float[Tensor, "*lead row"]
) -> Float[Tensor, "*lead row"]:
    """Squared distance of scores to ranks that are estimated anew in every update.

    The rank of a row, from 0 to 1, is its place among the observed rows of the batch in the order of labels, rows of
    one label in the order of their present scores. A network is so asked for no more than an order it is near to
    already. The paper ranks all training rows once per epoch; that is what this does where a batch holds them all.

    Parameters
    ----------
    score, label
        Outputs and labels.
    weight
        0 for rows that have no rank: not observed, or padding. They cost nothing.

    References
    ----------
    R. Caruana, S. Baluja, T. Mitchell (1996). Using the future to "sort out" the present: Rankprop and multitask
    learning for medical risk evaluation. NIPS 8.

    Examples
    --------
    >>> rankprop(torch.tensor([0.4, 0.1, 0.9]), torch.tensor([0.0, 0.0, 1.0]), torch.ones(3))
    tensor([0.0100, 0.0100, 0.0100])
    """
    return (weight > 0) * (score - ranks(score, label, weight)).square()


@torch.no_grad()
def ranks(score: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """The targets of :func:`rankprop`."""
    observed = weight > 0
    by_score = score.argsort(dim=-1, stable=True)
    keys = torch.where(observed, label, torch.inf).gather(-1, by_score)  # who is not observed comes last
    order = by_score.gather(-1, keys.argsort(dim=-1, stable=True))
    places = torch.arange(score.shape[-1], device=score.device, dtype=score.dtype).expand_as(score)
    last = (observed.sum(-1, keepdim=True) - 1).clamp(min=1)
    return torch.zeros_like(score).scatter(-1, order, places / last)
