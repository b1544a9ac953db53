"""Autograd's graph, looked at: what stands below some tensors, which leaves, and who reads what."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge


def graph(roots: Iterable[Tensor | GradientEdge], stop: Collection[Node] = ()) -> dict[Node, list[tuple[Node, int]]]:
    """Every node below the roots, with the nodes that read what it gives, and which of their inputs that is.

    Nodes in ``stop`` are not entered and not part of it.
    """
    edges = [one if isinstance(one, GradientEdge) else get_gradient_edge(one) for one in roots]
    readers: dict[Node, list[tuple[Node, int]]] = {edge.node: [] for edge in edges if edge.node not in stop}
    waiting = list(readers)
    while waiting:
        node = waiting.pop()
        for place, (below, _) in enumerate(node.next_functions):
            if below is None or below in stop:
                continue
            if below not in readers:
                readers[below] = []
                waiting.append(below)
            readers[below].append((node, place))
    return readers


def leaves(nodes: Iterable[Node]) -> list[Tensor]:
    """The leaves among them: parameters, mostly."""
    accumulating: list[Any] = [node for node in nodes if node.name() == "torch::autograd::AccumulateGrad"]
    return [node.variable for node in accumulating]


def reads(nodes: Iterable[Node], x: Tensor) -> list[tuple[Any, int]]:
    """Which of the nodes read a tensor, or another output of the operation that made it, and as which operand."""
    edge = get_gradient_edge(x)
    return [
        (node, place)
        for node in nodes
        for place, (below, _) in enumerate(node.next_functions)
        if below is not None and below == edge.node
    ]


def without(tensors: Iterable[Tensor], others: Iterable[Tensor]) -> list[Tensor]:
    """Those that are not among others."""
    left_out = {id(other) for other in others}
    return [tensor for tensor in tensors if id(tensor) not in left_out]
