"""A trunk made of a user's own modules."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import nn

from kinfolk.trunks.base import Stages, Trunk
from kinfolk.trunks.stages import Looped


class FromModules(Trunk):
    """Stages from an ``nn.Sequential`` or a list of modules, one stage each.

    A module keeps the weights that it is given with. It runs once per copy (see
    :class:`~kinfolk.trunks.stages.Looped`), so it is right for any module, and slower than stacked layers.

    Parameters
    ----------
    modules
        Each maps ``[row, ...]`` to ``[row, ...]``.

    Raises
    ------
    ValueError
        If there is no module.

    Examples
    --------
    >>> trunk = FromModules([nn.Linear(4, 3), nn.ReLU()])
    >>> trunk.build(torch.Size([4])).sizes
    [3, 3]
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.modules = list(modules)
        if not self.modules:
            raise ValueError("A trunk needs at least one module. Got none.")

    def build(self, inputs: torch.Size) -> Stages:
        """Copies of the modules, and the sizes of their outputs, found by sending two rows through."""
        x = torch.zeros(2, *inputs)
        shapes, stages = [], []
        for module in map(copy.deepcopy, self.modules):
            training = module.training
            with torch.no_grad():
                x = module.eval()(x)
            shapes.append(x.shape[1:])
            stages.append(Looped(module.train(training)))
        return Stages(stages, shapes)
