"""Linear layers, found in the graph: their part of a Gramian needs no gradient of their weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from kinfolk.balancing.nodes import graph, reads
from kinfolk.balancing.rows import Place, inner, wide

LINEAR: dict[str, tuple[str, int, int | None]] = {
    "AddmmBackward0": ("mat1", 2, 0),
    "MmBackward0": ("self", 1, None),
    "BaddbmmBackward0": ("batch1", 2, 0),
    "BmmBackward0": ("self", 1, None),
}
"""A product's name in the graph -> what it keeps its inputs as, and which of its operands are weights and bias."""

TURNED = "TBackward0"
TOGETHER = 8  # tasks
MOVED = 75.0  # operations in the time in which a number of a row is written and read again


@dataclass(frozen=True)
class Layer:
    """A linear layer whose weights serve nothing else.

    Attributes
    ----------
    node
        Its product.
    weight, bias
        Positions of its parameters.
    inputs
        ``[copy, row, input]``.
    outputs
        How many.
    turned
        The weight is kept as ``[output, input]``.
    """

    node: Node
    weight: int
    bias: int | None
    inputs: Tensor
    outputs: int
    turned: bool

    @property
    def parameters(self) -> list[int]:
        """Positions of its parameters."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    @property
    def place(self) -> Place:
        """At its outputs."""
        copies, rows, _ = self.inputs.shape
        return Place(GradientEdge(self.node, 0), copies, rows * self.outputs, wide(self.inputs[:0]).dtype)

    def saved(self, tasks: int) -> float:
        """Operations, as measured on a CPU, that are saved where no gradient of the weights is made for each task."""
        copies, rows, inputs = self.inputs.shape
        by_row = tasks * inputs * self.outputs * (2 * rows + MOVED)
        by_output = tasks * rows * self.outputs * (2.3 * rows + 4 * tasks + MOVED)
        once = 2 * rows * inputs * (rows + self.outputs)
        return copies * (by_row - by_output - once)

    @property
    def smaller(self) -> bool:
        """Fewer numbers at its outputs than weights."""
        return self.inputs.shape[1] < self.inputs.shape[2]

    def sums(self, gradients: Tensor, weights: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The parameters, by position, with the weighted sums of the tasks' gradients.

        Parameters
        ----------
        gradients
            At the outputs, ``[copy, task, row x output]``.
        weights
            ``[replica, task]``.
        """
        of_copy = weights.to(gradients.dtype).repeat_interleave(len(gradients) // len(weights), 0)
        whole = (of_copy.unsqueeze(1) @ gradients).view(len(gradients), -1, self.outputs)
        a = wide(self.inputs)
        yield self.weight, whole.mT @ a if self.turned else a.mT @ whole
        if self.bias is not None:
            yield self.bias, whole.sum(1)

    def gramian(self, gradients: Tensor, lead: int) -> Tensor:
        """Inner products ``[replica, task, task]`` of the parameters' gradients.

        With inputs A and gradients D at the outputs those of the weights are ``A' D``, and the products of two tasks'
        ``sum((A A') o (D D'))``, with ``A A' + 1`` where there is a bias.

        Parameters
        ----------
        gradients
            At the outputs, ``[copy, task, row x output]``.
        lead
            How many replicas.
        """
        copies, tasks, _ = gradients.shape
        a = wide(self.inputs)
        alike = a @ a.mT if self.bias is None else a @ a.mT + 1
        whole = gradients.new_zeros(copies, tasks, tasks)
        for start in range(0, tasks, TOGETHER):
            at = slice(start, start + TOGETHER)
            some = gradients[:, at].unflatten(-1, (-1, self.outputs))
            moved = alike @ some[0] if copies == 1 else torch.stack([alike @ one for one in some.unbind(1)], 1)
            whole[:, at, : start + TOGETHER] = inner(
                moved.view(copies, len(some[0]), -1), gradients[:, : start + TOGETHER]
            )
        whole = whole.tril() + whole.tril(-1).mT
        return whole.unflatten(0, (lead, -1)).sum(1)


def linear_layers(
    readers: Mapping[Node, Sequence[tuple[Node, int]]], shared: Sequence[Tensor], lead: int
) -> list[Layer]:
    """The linear layers of the shared parameters whose weights are read once, in the graph that :func:`graph` found.

    Parameters
    ----------
    readers
        The nodes of the graph, and which read them.
    shared
        The parameters.
    lead
        How many replicas.
    """
    read = [(_read_once(readers, p), i) for i, p in enumerate(shared)]
    at = {one[:2]: (i, one[2]) for one, i in read if one is not None}
    found = []
    for (node, place), (i, turned) in at.items():
        kept, weight_at, bias_at = LINEAR.get(node.name(), ("", -1, None))
        if place != weight_at or getattr(node, "_saved_alpha", 1) != 1 or getattr(node, "_saved_beta", 1) != 1:
            continue
        a: Tensor = getattr(node, f"_saved_{kept}").detach()
        if a.ndim == 2 and lead == 1:
            a = a.unsqueeze(0)
        if a.ndim != 3 or len(a) % lead or (len(a) != len(shared[i]) and len(a) > 1):
            continue
        outputs = shared[i].numel() // (len(a) * a.shape[-1])
        bias = None if bias_at is None else at.get((node, bias_at), (None, False))[0]
        if bias is not None and shared[bias].numel() != len(a) * outputs:
            bias = None
        found.append(Layer(node, i, bias, a, outputs, turned))
    return found


def _read_once(readers: Mapping[Node, Sequence[tuple[Node, int]]], parameter: Tensor) -> tuple[Node, int, bool] | None:
    """What reads a parameter, as which operand, and whether as its transpose, if one node alone does."""
    node, turned = get_gradient_edge(parameter).node, False
    while len(reading := readers.get(node, ())) == 1:
        node, place = reading[0]
        if node.name() != TURNED:
            return node, place, turned
        turned = not turned
    return None


def linear_heads(losses: Sequence[Any], features: Tensor) -> tuple[list[GradientEdge], list[Tensor]] | None:
    """The products by which tasks read the features, and their weights ``[feature, size]``.

    None unless each task reads them by one product that is its own.

    Parameters
    ----------
    losses
        The tasks' losses, one by one.
    features
        ``[row, feature]``.
    """
    found: list[Any] = []
    stop = (get_gradient_edge(features).node,)
    for loss in losses:
        reading = reads(graph([loss], stop), features)
        if len(reading) != 1:
            return None
        node, place = reading[0]
        linear = node.name() in ("AddmmBackward0", "MmBackward0") and place == LINEAR[node.name()][1] - 1
        if not linear or getattr(node, "_saved_alpha", 1) != 1 or node in found:
            return None
        found.append(node)
    return [GradientEdge(node, 0) for node in found], [node._saved_mat2 for node in found]
