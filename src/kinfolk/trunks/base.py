"""What a trunk is: an ordered list of stages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Stages:
    """The stages of one trunk and how wide each one's output is once flattened.

    Attributes
    ----------
    modules
        Each maps ``[copy, row, ...]`` to ``[copy, row, ...]``.
    sizes
        Features per row after each stage.
    """

    modules: Sequence[nn.Module]
    sizes: Sequence[int]


class Trunk(ABC):
    """A recipe for stages. Its hyper-parameters stand in its constructor."""

    @abstractmethod
    def build(self, inputs: torch.Size) -> Stages:
        """New stages for one copy, for inputs of the given shape (without copy and row)."""
