"""What a sharing is: how tasks share a trunk."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from kinfolk.data.problem import Batch, Problem
from kinfolk.data.tasks import Task
from kinfolk.quantities import Quantity
from kinfolk.replicas import own
from kinfolk.trunks.base import Trunk
from kinfolk.trunks.stages import drawn_by


@dataclass(frozen=True)
class Outputs:
    """What a network says about the rows of one update.

    Attributes
    ----------
    tasks
        One ``[replica, row, size]`` per task: values, or logits.
    features
        What each task's head read, ``[replica, row, feature]``; the same tensor where it is shared.
    heads
        The weights ``[replica, feature, size]`` of each task's head, if its output is its features times these, plus
        a bias; else empty.
    """

    tasks: Sequence[Float[Tensor, "replica row _"]]
    features: Sequence[Float[Tensor, "replica row _"]]
    heads: Sequence[Float[Tensor, "replica _ _"]] = ()

    def first(self, tasks: int) -> Outputs:
        """Those of the first tasks."""
        return Outputs(self.tasks[:tasks], self.features[:tasks], self.heads[:tasks])


@dataclass(frozen=True)
class MadeFor:
    """What a network was set up for.

    Attributes
    ----------
    tasks
        Its tasks.
    inputs
        Shape of one row's inputs.
    slices
        Length of each parameter in one replica.
    """

    tasks: tuple[Task, ...]
    inputs: torch.Size
    slices: Mapping[str, int]


class Sharing(nn.Module):
    """A network in which tasks share a trunk.

    Hyper-parameters stand in the constructor, sizes come with :meth:`setup`. It is built for one replica;
    ``replicas.stack`` makes it many.
    """

    penalty: str = ""
    """The penalty that belongs to it: an arm adds it unless it names this one itself, as in
    ``soft + soft_sharing(strength=0)``."""

    phases: int = 1
    """Trainings one after the other: between them :meth:`at_phase` changes the network. May be set by ``setup``."""

    made_for: MadeFor | None = None
    """Kept by :meth:`setup`, whatever the method; None before it. A wrapper around each method's own ``setup`` sees to
    it, so that no method has to."""

    spare: bool = False
    """Some slices of its tensors serve no task yet: room for copies that a later phase brings into use."""

    skips: bool = False
    """Its ``forward`` takes a third argument, Bool ``[task]``: the tasks that are asked for. What the others say then
    does not matter."""

    through_features: bool = True
    """Every task's loss depends on the network through the features that its head reads."""

    @property
    def handed_over(self) -> Sharing:
        """The network without what only helps to train it."""
        return self

    def at_start(self, problem: Problem, train: Tensor, columns: Sequence[int]) -> None:
        """Called once before training. See :meth:`kinfolk.balancing.base.Balancing.at_start`."""

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        if "setup" in vars(cls):
            cls.setup = _kept(cls.setup)

    def rates(self, phase: int) -> Mapping[str, float]:
        """Factors of the learning rate in a phase, by prefix of a parameter's name; 0 keeps it as it is."""
        return {}

    def problems(self, tasks: Sequence[Task]) -> list[tuple[int, ...]]:
        """Which tasks make a problem of their own, trained and stopped by itself. Usually one problem: all."""
        return [tuple(range(len(tasks)))]

    @abstractmethod
    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> Sharing:
        """Makes the layers for inputs of a shape (without replica and row) and returns the network itself."""

    @abstractmethod
    def forward(self, inputs: Tensor, preference: Tensor | None = None) -> Outputs:
        """One output per task from ``[replica, row, ...]``."""

    def at_phase(self, phase: int, outputs: Outputs, batch: Batch) -> None:
        """Called before each phase but the first, on the network as it was best in the phase before.

        It may change the numbers in tensors, never their shapes.

        Parameters
        ----------
        phase
            The one that begins, from 1.
        outputs, batch
            What the network says about the rows that stop training, and these rows.
        """

    def at_epoch(self, epoch: int, losses: Tensor | None, errors: Tensor | None) -> None:
        """Called before each epoch, for temperatures and the like. See :meth:`Balancing.at_epoch`."""

    def learned(self) -> Mapping[str, Quantity]:
        """What it learned beside weights, by name: stitch matrices, gates (as in the last forward pass), branches."""
        return {}

    def last_shared(self) -> list[nn.Parameter]:
        """The parameters of the last layer that all tasks share; empty where there is none."""
        return []


def last_with_parameters(stages: Iterable[nn.Module]) -> list[nn.Parameter]:
    """The parameters of the last stage that has some."""
    found = [list(stage.parameters()) for stage in stages]
    return next((parameters for parameters in reversed(found) if parameters), [])


def _kept(setup: Callable[..., Sharing]) -> Callable[..., Sharing]:
    """A ``setup`` that also keeps what the network was made for."""

    @wraps(setup)
    def keeping(self: Sharing, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> Sharing:
        with drawn_by(trunk.above):
            made = setup(self, trunk, tasks, inputs)
        made.made_for = MadeFor(tuple(tasks), torch.Size(inputs), {n: len(p) for n, p in made.named_parameters()})
        return made

    return keeping


DRAWS = 8


def reach(model: Sharing, inputs: Tensor) -> dict[str, Tensor]:
    """Which slices of which parameter serve which task: Bool ``[copy, task]`` for each parameter.

    NaN is sent back from each task's output: unlike a gradient, it also travels where values are 0. Only a ReLU that
    rests stops it, so parameters are drawn anew: layers that start at 0 keep none of them at rest. A layer of few
    units may still rest as a whole: while a slice serves no task, one looks again with other draws.
    """
    found = _reached(model, inputs, 0)
    for draw in range(1, DRAWS):
        if model.spare or all(bool(one.any(1).all()) for one in found.values()):
            break
        again = _reached(model, inputs, draw)
        found = {name: one | again[name] for name, one in found.items()}
    return found


def _reached(model: Sharing, inputs: Tensor, draw: int) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    with own("reach", draw):
        drawn = [
            torch.empty_like(p).uniform_(-1, 1).div_(max(1, p[0].numel()) ** 0.25).requires_grad_() for p in parameters
        ]
    training = model.training
    model.eval()
    outputs = functional_call(model, dict(zip(names, drawn, strict=True)), (inputs,)).tasks
    model.train(training)
    found = {n: torch.zeros(len(p), len(outputs), dtype=torch.bool) for n, p in zip(names, parameters, strict=True)}
    for task, output in enumerate(outputs):
        nan = torch.full_like(output, torch.nan)
        gradients = torch.autograd.grad(output, drawn, nan, retain_graph=True, allow_unused=True)
        for name, gradient in zip(names, gradients, strict=True):
            if gradient is not None:
                found[name][:, task] = gradient.flatten(1).isnan().any(1).cpu()
    return found
