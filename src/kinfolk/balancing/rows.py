"""What the losses of tasks send back to shared parameters and features: rows of a Jacobian, and its Gramian."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

BLOCK = 2**14
"""Columns that are multiplied at once on a CPU: those of all tasks then stay in its cache."""

Seeds = tuple[list[Any], list[Tensor]]
"""Tensors, or places in the graph, and the gradients with which a pass back starts there."""


# ---- where the gradients of tasks start


class Source(ABC):
    """Where the gradients of tasks start on their way back: no pass goes again through what is known."""

    @abstractmethod
    def of(self, task: int) -> Seeds:
        """Those of one task, of all replicas at once."""

    @abstractmethod
    def weighted(self, weights: Tensor) -> Seeds:
        """Those of the sum over tasks, with weights ``[replica, task]``."""

    @abstractmethod
    def own(self) -> Seeds:
        """Those of the plain sum, down to the parameters of single tasks."""


class FromLosses(Source):
    """At the losses, ``[task]`` or ``[replica, task]``.

    Where they are a stack of single losses, each pass starts below the stack: in the loss of its task alone.
    """

    def __init__(self, value: Tensor) -> None:
        self._value = value
        node: Any = value.grad_fn
        self._apart = node.next_functions if value.ndim == 1 and node and node.name() == "StackBackward0" else None

    def of(self, task: int) -> Seeds:
        """Its loss."""
        if self._apart is None:
            value = self._value[..., task]
            return [value], [torch.ones_like(value)]
        node, place = self._apart[task]
        return ([], []) if node is None else ([GradientEdge(node, place)], [self._value.new_ones(())])

    def weighted(self, weights: Tensor) -> Seeds:
        """All losses."""
        return [self._value], [weights.view_as(self._value).to(self._value.dtype)]

    def own(self) -> Seeds:
        """All losses."""
        return [self._value], [torch.ones_like(self._value)]


class FromFeatures(Source):
    """At what the heads read, with the gradients there.

    Parameters
    ----------
    features
        One tensor per task, some or all of them the same.
    gradients
        One per task, alike.
    own
        Where the passes down to single tasks' parameters start.
    """

    def __init__(self, features: Sequence[Tensor], gradients: Sequence[Tensor], own: Seeds) -> None:
        self._features, self._gradients, self._own = features, gradients, own

    def of(self, task: int) -> Seeds:
        """What it reads."""
        return [self._features[task]], [self._gradients[task]]

    def weighted(self, weights: Tensor) -> Seeds:
        """All that is read."""
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for x, gradient, weight in zip(self._features, self._gradients, weights.unbind(-1), strict=True):
            part = gradient * _beside(weight, gradient)
            found[id(x)] = (x, found[id(x)][1].add_(part) if id(x) in found else part)
        return [x for x, _ in found.values()], [whole for _, whole in found.values()]

    def own(self) -> Seeds:
        """Above what is read."""
        return self._own


class FromHeads(Source):
    """At what linear heads read, from the gradients at their outputs and from their weights.

    Parameters
    ----------
    features
        One ``[..., row, feature]`` per task, some or all of them the same.
    outputs
        What the heads gave, one ``[..., row, size]`` per task, or its place in the graph.
    weights
        One ``[..., feature, size]`` per task.
    value
        The losses; each depends on the network through its own output alone.
    own
        Where the passes down to single tasks' parameters start. Default: at the outputs.
    """

    def __init__(
        self,
        features: Sequence[Tensor],
        outputs: Sequence[Any],
        weights: Sequence[Tensor],
        value: Tensor,
        own: Seeds | None = None,
    ) -> None:
        self._features, self._weights = features, [weight.detach() for weight in weights]
        found = torch.autograd.grad(value, outputs, torch.ones_like(value), retain_graph=True, allow_unused=True)
        self.unread = [i for i, one in enumerate(found) if one is None]
        self._at = [
            x.new_zeros(*x.shape[:-1], w.shape[-1]) if one is None else one
            for x, w, one in zip(features, weights, found, strict=True)
        ]
        self._own = (list(outputs), list(self._at)) if own is None else own

    def of(self, task: int) -> Seeds:
        """What it reads."""
        x = self._features[task]
        if task in self.unread:
            return [], []
        return [x], [(wide(self._at[task]) @ wide(self._weights[task]).mT).to(x.dtype)]

    def weighted(self, weights: Tensor) -> Seeds:
        """All that is read: one product for the tasks that read the same."""
        alike: dict[int, list[int]] = {}
        for i, x in enumerate(self._features):
            alike.setdefault(id(x), []).append(i)
        read = [self._features[tasks[0]] for tasks in alike.values()]
        sums = [self._sum(tasks, weights) for tasks in alike.values()]
        return read, [whole.to(x.dtype) for x, whole in zip(read, sums, strict=True)]

    def _sum(self, tasks: Sequence[int], weights: Tensor) -> Tensor:
        at = torch.cat([wide(self._at[i]) * _beside(weights[:, i], self._at[i]) for i in tasks], -1)
        if len(tasks) == len(self._at):
            return at @ self._together[1].mT
        return at @ torch.cat([wide(self._weights[i]) for i in tasks], -1).mT

    @cached_property
    def _together(self) -> tuple[Tensor, Tensor]:
        """Gradients at the outputs of all tasks side by side, and the heads' weights."""
        return torch.cat([wide(one) for one in self._at], -1), torch.cat([wide(one) for one in self._weights], -1)

    def own(self) -> Seeds:
        """All outputs, or what was given."""
        return self._own

    def gramian(self) -> Tensor:
        """Of the tasks' gradients at features that all read: ``sum((P' P) o (W' W))`` over each two tasks' outputs."""
        at, weights = self._together
        both = (at.mT @ at).mul_(weights.mT @ weights)
        sizes = [one.shape[-1] for one in self._at]
        if len(set(sizes)) == 1:
            return both.unflatten(-1, (len(sizes), -1)).sum(-1).unflatten(-2, (len(sizes), -1)).sum(-2)
        of_task = torch.eye(len(sizes), dtype=both.dtype).repeat_interleave(torch.tensor(sizes), 0).to(both.device)
        return of_task.mT @ both @ of_task


def _beside(weight: Tensor, x: Tensor) -> Tensor:
    """``[replica]`` in a shape that broadcasts over ``x``."""
    return weight.to(x.dtype).view(-1, *[1] * (x.ndim - 1))


def wide(x: Tensor) -> Tensor:
    """In single precision at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


# ---- rows and their inner products


@dataclass(frozen=True)
class Place:
    """Where rows end.

    Attributes
    ----------
    at
        A parameter, or a place in the graph.
    copies
        The first axis, of replicas or copies.
    size
        Numbers in each.
    dtype
        Of the rows.
    """

    at: Any
    copies: int
    size: int
    dtype: torch.dtype

    @classmethod
    def of(cls, parameter: Tensor, lead: int) -> Place:
        """Where a parameter is."""
        return cls(parameter, lead, parameter.numel() // lead, wide(parameter[:0]).dtype)


def empty(places: Sequence[Place], tasks: int, device: torch.device) -> Tensor:
    """``[replica, task, number]`` for rows that end in several places, side by side."""
    dtype = places[0].dtype
    for place in places[1:]:
        dtype = torch.promote_types(dtype, place.dtype)
    return torch.empty(places[0].copies, tasks, sum(p.size for p in places), dtype=dtype, device=device)


def columns(whole: Tensor, places: Sequence[Place]) -> list[Tensor]:
    """The part of each place, a view."""
    return list(whole.split([place.size for place in places], -1))


def fill(source: Source, places: Sequence[Place], into: Sequence[Tensor], present: Sequence[bool]) -> list[bool]:
    """Puts every task's gradients at the places into ``[copy, task, number]``: one pass back per task that is present.

    Returns
    -------
    list of bool
        Whether a task's loss depends on any of the places; True for absent tasks.
    """
    reached = []
    for task, there in enumerate(present):
        outputs, seeds = source.of(task) if there else ([], [])
        at = [place.at for place in places]
        found = (
            torch.autograd.grad(outputs, at, seeds, retain_graph=True, allow_unused=True)
            if outputs
            else [None] * len(at)
        )
        for whole, one in zip(into, found, strict=True):
            if one is None:
                whole[:, task] = 0
            else:
                whole[:, task] = one.reshape(len(whole), -1)
        reached.append(not there or any(one is not None for one in found))
    return reached


def inner(rows: Tensor, others: Tensor | None = None) -> Tensor:
    """Inner products of rows: ``[copy, task, number] -> [copy, task, task]``."""
    others = rows if others is None else others
    if rows.device.type != "cpu" or rows.shape[-1] <= BLOCK:
        return rows @ others.mT
    parts = zip(rows.split(BLOCK, -1), others.split(BLOCK, -1), strict=True)
    one, other = next(parts)
    whole = one @ other.mT
    for one, other in parts:
        whole.baddbmm_(one, other.mT)
    return whole


def inner_of(gradients: Sequence[Tensor], lead: int) -> Tensor:
    """Inner products of tensors, one per task, without a copy of all."""
    rows = [gradient.reshape(lead, -1) for gradient in gradients]
    size = rows[0].shape[-1]
    block = size if rows[0].device.type != "cpu" else BLOCK
    whole = torch.zeros(lead, len(rows), len(rows), dtype=wide(rows[0][:, :0]).dtype, device=rows[0].device)
    for start in range(0, size, block):
        part = wide(torch.stack([row[:, start : start + block] for row in rows], 1))
        whole.baddbmm_(part, part.mT)
    return whole
