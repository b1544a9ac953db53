"""What a trunk is: an ordered list of stages."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Stages:
    """The stages of one trunk and the shapes of their outputs.

    Attributes
    ----------
    modules
        Each maps ``[copy, row, ...]`` to ``[copy, row, ...]``.
    shapes
        What each gives per row: ``[feature]``, or ``[channel, height, width]`` and the like. The first axis is the
        one of features or channels.
    """

    modules: Sequence[nn.Module]
    shapes: Sequence[torch.Size]

    @property
    def sizes(self) -> list[int]:
        """Features per row after each stage, once flattened."""
        return [math.prod(shape) for shape in self.shapes]


class Trunk(ABC):
    """A recipe for stages. Its hyper-parameters stand in its constructor."""

    above: str = "torch"
    """The law of the first weights of linear layers that a network puts on it, its heads: one of ``stages.LAWS``."""

    @abstractmethod
    def build(self, inputs: torch.Size) -> Stages:
        """New stages for one copy, for inputs of the given shape (without copy and row)."""
