"""How long the gradients of tasks are at one layer, without these gradients where that saves time."""

from __future__ import annotations

import torch
from torch import Tensor

from kinfolk import distributed
from kinfolk.balancing.base import Losses
from kinfolk.balancing.layers import Layer, linear_layers
from kinfolk.balancing.nodes import graph
from kinfolk.balancing.rows import FromHeads, FromLosses, wide

BLOCKS = 4  # of rows


class Norms:
    """Of the gradients that tasks send to the last shared layer.

    Where there are fewer rows than inputs, no gradient of the weights is made: with inputs A, 1 for a bias beside
    them, and gradients D at the outputs its squared length is ``sum((A A') o (D D'))``.

    Parameters
    ----------
    losses
        With the parameters of that layer.
    """

    def __init__(self, losses: Losses) -> None:
        self._lead = max(1, losses.value[..., 0].numel())
        last = [p for p in losses.last if p.requires_grad]
        linear = bool(losses.heads) and all(x.requires_grad for x in losses.features)
        self._source = (
            FromHeads(losses.features, losses.outputs, losses.heads, losses.value)
            if linear
            else FromLosses(losses.value)
        )
        found = linear_layers(graph([losses.value]), last, self._lead) if distributed.processes() == 1 else []
        self._layers = [layer for layer in found if layer.inputs.shape[1] < layer.inputs.shape[2]]
        by_layer = {i for layer in self._layers for i in layer.parameters}
        self._alike = [_alike(layer) for layer in self._layers]
        self._at = [layer.place.at for layer in self._layers] + [p for i, p in enumerate(last) if i not in by_layer]

    def of(self, task: int) -> Tensor | None:
        """One for each replica; None where the loss does not depend on the layer."""
        outputs, seeds = self._source.of(task)
        if not outputs:
            return None
        found = torch.autograd.grad(outputs, self._at, seeds, retain_graph=True, allow_unused=True)
        squares = [
            _square(alike, gradient.reshape(len(alike), alike.shape[1], -1))
            for alike, gradient in zip(self._alike, found, strict=False)
            if gradient is not None
        ]
        rest = [distributed.mean(gradient) for gradient in found[len(self._layers) :] if gradient is not None]
        squares += [wide(gradient).square() for gradient in rest]
        if not squares:
            return None
        return torch.stack([one.reshape(self._lead, -1).sum(1) for one in squares]).sum(0).clamp(min=0).sqrt()


def _alike(layer: Layer) -> Tensor:
    """``A A'`` of each copy."""
    a = wide(layer.inputs)
    return a @ a.mT if layer.bias is None else a @ a.mT + 1


def _square(alike: Tensor, gradient: Tensor) -> Tensor:
    """``sum((A A') o (D D'))`` of each copy; both are symmetric, so blocks above the diagonal count twice."""
    d, whole = wide(gradient), []
    size = max(1, -(-d.shape[1] // BLOCKS))
    for start in range(0, d.shape[1], size):
        own, after = slice(start, start + size), slice(start + size, None)
        moved = alike[:, own, own] @ d[:, own]
        if start + size < d.shape[1]:
            moved = torch.baddbmm(moved, alike[:, own, after], d[:, after], alpha=2)
        whole.append((moved * d[:, own]).sum((1, 2)))
    return torch.stack(whole).sum(0)
