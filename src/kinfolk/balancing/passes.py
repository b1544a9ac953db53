"""The passes back of one update: which there are, what each gives, and what ends in ``.grad``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from kinfolk import distributed
from kinfolk.balancing.base import Losses
from kinfolk.balancing.layers import Layer, linear_heads, linear_layers
from kinfolk.balancing.nodes import graph, leaves, reads, without
from kinfolk.balancing.rows import (
    FromFeatures,
    FromHeads,
    FromLosses,
    Place,
    Seeds,
    Source,
    columns,
    empty,
    fill,
    inner,
    inner_of,
)

MIB = 2**20


class Passes:
    """What an update sends back from the losses of tasks.

    Shared parameters get a weighted sum of the tasks' gradients, all others the sum without weights, and both the
    penalty's.

    Parameters
    ----------
    losses
        ``[task]`` or ``[replica, task]``.
    names
        The tasks.

    Attributes
    ----------
    present
        Bool ``[replica, task]``.
    """

    def __init__(self, losses: Losses, names: Sequence[str]) -> None:
        self.losses, self.names = losses, names
        tasks = losses.value.shape[-1]
        self.present = losses.seen.view(-1, tasks)
        self.lead = len(self.present)
        self._held: Held | None = None
        self._there: list[bool] = self.present.any(0).tolist()
        self._shared: list[Tensor] = []
        self._own: list[Tensor] = []
        self._source: Source = FromLosses(losses.value)

    # ---- at the shared parameters

    def at_parameters(self) -> Passes:
        """The gradients of tasks are those of ``losses.shared``."""
        losses = self.losses
        self._shared = [p for p in losses.shared if p.requires_grad]
        if not self._shared:
            raise ValueError("A shared parameter must require a gradient. All that were given are frozen.")
        self._readers = graph([losses.value])
        self._own = without([*leaves(self._readers), *self._of_penalty()], self._shared)
        if losses.heads and all(x.requires_grad for x in losses.features):
            stop = {get_gradient_edge(x).node for x in losses.features}
            above = leaves(graph([losses.value], stop))
            if len(without(above, self._shared)) == len(above):
                self._source = FromHeads(losses.features, losses.outputs, losses.heads, losses.value)
        return self

    def gramian(self, memory: float) -> Tensor:
        """Inner products ``[replica, task, task]`` of the tasks' gradients.

        They are made in groups of parameters that fit ``memory`` MiB, and held where one group is all. Linear layers
        are done from the gradients at their outputs where that saves time, or memory that is lacking.
        """
        limit = memory * MIB
        layers = self._layers(limit)
        by_layer = {i for layer in layers for i in layer.parameters}
        rest = [i for i in range(len(self._shared)) if i not in by_layer]
        groups = list(self._groups([*layers, *rest], limit))
        whole = torch.zeros((), device=self.present.device)
        reached = [False] * len(self._there)
        for group in groups:
            part, depends = self._gramian_of(group, hold=len(groups) == 1)
            whole, reached = whole + part, [a or b for a, b in zip(reached, depends, strict=True)]
        self._require(reached, "the shared parameters")
        return whole

    def _layers(self, limit: float) -> list[Layer]:
        if distributed.processes() > 1:
            return []
        found = linear_layers(self._readers, self._shared, self.lead)
        scarce = self._bytes(range(len(self._shared))) > limit
        return [layer for layer in found if layer.saved(len(self._there)) > 0 or (scarce and layer.smaller)]

    def _place(self, at: Layer | int) -> Place:
        return at.place if isinstance(at, Layer) else Place.of(self._shared[at], self.lead)

    def _groups(self, places: Sequence[Layer | int], limit: float) -> Iterator[list[Layer | int]]:
        """Places in their order, as many at a time as may be held."""
        group: list[Layer | int] = []
        for place in places:
            if group and self._bytes([*group, place]) > limit:
                yield group
                group = []
            group.append(place)
        yield group

    def _bytes(self, at: Iterable[Layer | int]) -> int:
        places = map(self._place, at)
        return len(self._there) * sum(place.copies * place.size * place.dtype.itemsize for place in places)

    def _gramian_of(self, group: Sequence[Layer | int], hold: bool) -> tuple[Tensor, list[bool]]:
        """The part of some layers and parameters, by position; and whether a task's loss depends on any of them."""
        layers = [at for at in group if isinstance(at, Layer)]
        numbers = [at for at in group if not isinstance(at, Layer)]
        places = [self._place(at) for at in numbers]
        held = Held(layers, numbers, [empty([layer.place], len(self._there), self.present.device) for layer in layers])
        into = list(held.at_outputs)
        if places:
            held.jacobian = empty(places, len(self._there), self.present.device)
            into += columns(held.jacobian, places)
        reached = fill(self._source, [*(layer.place for layer in layers), *places], into, self._there)
        parts = [layer.gramian(one, self.lead) for layer, one in zip(layers, held.at_outputs, strict=True)]
        if held.jacobian is not None:
            held.jacobian = distributed.mean(held.jacobian)
            parts.append(inner(held.jacobian))
        self._held = held if hold else None
        return torch.stack(parts).sum(0), reached

    def rows(self) -> Tensor:
        """The Jacobian of the shared parameters, ``[replica, task, number]``."""
        places = [Place.of(p, self.lead) for p in self._shared]
        whole = empty(places, len(self._there), self.present.device)
        self._require(fill(self._source, places, columns(whole, places), self._there), "the shared parameters")
        return distributed.mean(whole)

    @property
    def size(self) -> float:
        """MiB that the Jacobian takes."""
        return self._bytes(range(len(self._shared))) / MIB

    # ---- at the features

    def at_features(self) -> Passes:
        """The gradients of tasks are those of the features that all heads read."""
        losses = self.losses
        x = self._x = _common(losses.features, self.names)
        edge = get_gradient_edge(x)
        above = graph([losses.value], {get_gradient_edge(f).node for f in losses.features})
        self._shared = leaves(graph([x]))
        over = leaves(above)
        self._own = without([*over, *self._of_penalty()], self._shared)
        others = any(node.next_functions[place][1] != edge.output_nr for node, place in reads(above, x))
        self._beside = others or len(without(over, self._shared)) < len(over)
        if losses.heads and not self._beside:
            self._source = FromHeads([x] * len(self._there), losses.outputs, losses.heads, losses.value)
        return self

    def gramian_of_features(self) -> Tensor:
        """Inner products ``[replica, task, task]`` of the tasks' gradients at the features.

        From the heads' weights where they are known or found to be linear; else from one pass through the heads where
        each task reads a view of its own, else from one per task.
        """
        found = self._source if isinstance(self._source, FromHeads) else self._found_heads()
        if found is not None:
            if not self._beside:
                self._source = found
            self._require([i not in found.unread for i in range(len(self._there))], "the features")
            whole = found.gramian().view(self.lead, len(self._there), -1)
        else:
            gradients = self._at_features()
            if not self._beside:
                self._source = FromFeatures([self._x] * len(gradients), gradients, self._source.own())
            whole = inner_of(gradients, self.lead)
        return distributed.mean(whole) / distributed.processes()  # each has the rows of its own, times their number

    def _found_heads(self) -> FromHeads | None:
        value = self.losses.value
        starts = [self._source.of(task)[0] for task in range(len(self._there))]
        if value.ndim > 1 or self._x.ndim != 2 or not all(starts) or starts[0][0] is value:
            return None
        found = linear_heads([one for start in starts for one in start], self._x)
        if found is None:
            return None
        outputs, weights = found
        more = leaves(graph([value], {edge.node for edge in outputs}))  # heads of several layers
        return FromHeads([self._x] * len(starts), outputs, weights, value, self._source.own() if more else None)

    def _at_features(self) -> list[Tensor]:
        """One gradient per task."""
        features, value = self.losses.features, self.losses.value
        found: list[Tensor | None]
        if len({id(x) for x in features}) == len(self._there) > 1:
            found = list(torch.autograd.grad(value, features, torch.ones_like(value), True, allow_unused=True))
        else:
            starts = [self._source.of(task) if there else ([], []) for task, there in enumerate(self._there)]
            found = [
                torch.autograd.grad(outputs, [self._x], seeds, True, allow_unused=True)[0] if outputs else None
                for outputs, seeds in starts
            ]
        self._require([one is not None for one in found], "the features")
        return [torch.zeros_like(self._x) if one is None else one for one in found]

    # ---- to .grad

    def finish(self, weights: Tensor) -> None:
        """Fills ``.grad``: ``weights`` are ``[replica, task]``."""
        if self._held is None:
            self.finish_others(self._source.weighted(weights))
            return
        for layer, at_outputs in zip(self._held.layers, self._held.at_outputs, strict=True):
            for i, gradient in layer.sums(at_outputs, weights):
                _add(self._shared[i], gradient)
        if self._held.jacobian is not None:
            self.put(sum_of(self._held.jacobian, weights), self._held.numbers)
        self._held = None
        self.finish_others()

    def put(self, update: Tensor, to: Sequence[int] | None = None) -> None:
        """Adds ``[replica, number]`` to the gradients of the shared parameters, or of those at some positions."""
        parameters = self._shared if to is None else [self._shared[i] for i in to]
        for p, part in zip(parameters, update.split([p.numel() // self.lead for p in parameters], 1), strict=True):
            _add(p, part)

    def finish_others(self, seeds: Seeds | None = None) -> None:
        """The gradients of parameters that serve single tasks, the penalty's, and what seeds send to shared ones."""
        penalty = self.losses.penalty
        more = [penalty] if penalty is not None and penalty.requires_grad else []
        self._back(([], []) if seeds is None else seeds, more, self._shared, again=bool(self._own))
        self._back(self._source.own(), more, self._own)

    def let_go(self) -> None:
        """Keeps no more than what :meth:`put` needs: the graph may go."""
        del self.losses, self._source, self._readers

    def _back(self, seeds: Seeds, more: Sequence[Tensor], to: Sequence[Tensor], again: bool = False) -> None:
        starts = [*seeds[0], *more]
        if starts and to:
            gradients = [*seeds[1], *(torch.ones_like(one) for one in more)]
            torch.autograd.backward(starts, gradients, retain_graph=again, inputs=list(to))

    def _of_penalty(self) -> list[Tensor]:
        penalty = self.losses.penalty
        return [] if penalty is None or not penalty.requires_grad else leaves(graph([penalty]))

    def _require(self, reached: Sequence[bool], what: str) -> None:
        """Raises ValueError for a task that is present and whose loss does not reach."""
        for name, one, there in zip(self.names, reached, self._there, strict=True):
            if there and not one:
                raise ValueError(
                    f"Every loss must depend on {what}. That of {name!r} does not: leave the task out, or give others."
                )


@dataclass
class Held:
    """The tasks' gradients where all of them fit: their weighted sum then needs no further pass.

    Attributes
    ----------
    layers, numbers
        Linear layers, and positions of the other parameters.
    at_outputs
        The gradients at the layers' outputs, ``[copy, task, row x output]``.
    jacobian
        Those of the other parameters, ``[replica, task, number]``.
    """

    layers: Sequence[Layer]
    numbers: Sequence[int]
    at_outputs: Sequence[Tensor]
    jacobian: Tensor | None = None


def sum_of(jacobian: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of the tasks' gradients, ``[replica, number]``."""
    return (weights.to(jacobian.dtype).unsqueeze(1) @ jacobian).squeeze(1)


def _add(parameter: Tensor, gradient: Tensor) -> None:
    gradient = gradient.reshape(parameter.shape).to(parameter.dtype)
    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)


def _common(features: Sequence[Tensor], names: Sequence[str]) -> Tensor:
    """The tensor that all tasks read, themselves or views of all of it."""
    first = features[0]
    for x, name in zip(features, names, strict=True):
        if not x.requires_grad:
            raise ValueError(
                f"Features must require a gradient. Those of {name!r} do not: is the trunk frozen, or under no_grad?"
            )
        if x.shape != first.shape or x.data_ptr() != first.data_ptr() or x.stride() != first.stride():
            raise ValueError(
                f"`at=features` needs features that all tasks read. Those of {name!r} are others: use at=parameters."
            )
    return first
