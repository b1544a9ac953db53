"""A trunk made of a user's own modules."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

from kinfolk.trunks.base import Stages, Trunk
from kinfolk.trunks.looped import Looped


class FromModules(Trunk):
    """Stages from an ``nn.Sequential`` or a list of modules, one stage each.

    A module runs once per copy (see :class:`~kinfolk.trunks.looped.Looped`), so it is right for any module, and
    slower than stacked layers.

    Parameters
    ----------
    modules
        Each maps ``[row, ...]`` to ``[row, ...]``.
    fresh
        Whether initial weights are drawn anew for every copy. False keeps those that the modules have, which is right
        for a network that was trained before, and the default, as nothing learned may be lost unasked. But then all
        replicas, task trunks and experts start alike: seeds differ in rows and dropout only, and experts stay alike
        as far as their gates treat them alike. So say ``fresh=True`` for a network that has learned nothing.

        Every submodule is drawn by its own ``reset_parameters`` (or ``_reset_parameters``), parts before what they
        are part of. A submodule whose parameters are all frozen (``requires_grad=False``) keeps them.

    Raises
    ------
    ValueError
        If there is no module; if two stages share parameters; with ``fresh``, if nothing draws the parameters of a
        submodule.

    Examples
    --------
    >>> trunk = FromModules([nn.Linear(4, 3), nn.ReLU()])
    >>> trunk.build(torch.Size([4])).sizes
    [3, 3]
    """

    def __init__(self, modules: Iterable[nn.Module], fresh: bool = False) -> None:
        self.modules, self.fresh = list(modules), fresh
        if not self.modules:
            raise ValueError("A trunk needs at least one module. Got none.")
        _check_apart(self.modules)
        if fresh:
            for module in self.modules:
                _check_resets(module)

    def build(self, inputs: torch.Size) -> Stages:
        """Copies of the modules, and the shapes of their outputs, found by sending two rows through."""
        x = torch.zeros(2, *inputs)
        shapes, stages = [], []
        modules = copy.deepcopy(self.modules)
        if self.fresh:
            for part in _parts(modules):
                if (reset := _reset(part)) is not None:
                    reset()
        for module in modules:
            training = module.training
            with torch.no_grad():
                x = module.eval()(x)
            shapes.append(x.shape[1:])
            stages.append(Looped(module.train(training)))
        return Stages(stages, shapes)


def _parts(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """Every submodule that is to be drawn anew, parts before what they are part of."""
    parts = [part for module in modules for part in reversed(list(module.modules()))]
    return [part for part in parts if not _frozen(part)]


def _frozen(part: nn.Module) -> bool:
    found = [parameter.requires_grad for parameter in part.parameters()]
    return bool(found) and not any(found)


def _reset(part: nn.Module) -> Callable[[], object] | None:
    return getattr(part, "reset_parameters", getattr(part, "_reset_parameters", None))


def _check_resets(part: nn.Module, covered: bool = False) -> None:
    """Every parameter that is not frozen is drawn by its module, or by one that this is part of."""
    covered = covered or _reset(part) is not None
    own = [name for name, parameter in part.named_parameters(recurse=False) if parameter.requires_grad]
    if own and not covered:
        raise ValueError(
            f"With `fresh`, a module with parameters must have a method `reset_parameters` that draws them. "
            f"{type(part).__name__} has {', '.join(own)} and none: write one, or freeze these parameters."
        )
    for child in part.children():
        _check_resets(child, covered)


def _check_apart(modules: Sequence[nn.Module]) -> None:
    held = [{id(parameter): name for name, parameter in module.named_parameters()} for module in modules]
    for i, one in enumerate(held):
        for j, other in enumerate(held[:i]):
            if both := sorted(other[p] for p in one.keys() & other.keys()):
                raise ValueError(
                    f"Stages must have parameters of their own. Stages {j} and {i} share {', '.join(both)}: "
                    "make them one stage."
                )
