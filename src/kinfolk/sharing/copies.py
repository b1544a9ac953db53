"""Several trunks as one stacked computation: one per task, or one per expert."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kinfolk.replicas import own, stack
from kinfolk.trunks.base import Trunk


class Copies(nn.Module):
    """N trunks of one kind, side by side on the copy axis.

    Parameters
    ----------
    trunk
        The recipe.
    inputs
        Shape of one row's inputs.
    names
        One per trunk: its initial weights depend on the seed and on this name alone. Equal names start equal.
    first
        The stage that they begin with, from 0: those before it are left out.

    Attributes
    ----------
    stages
        Each maps ``[replica x N, row, ...]`` to ``[replica x N, row, ...]``.
    shapes
        What a stage gives per row.
    """

    def __init__(self, trunk: Trunk, inputs: torch.Size, names: Sequence[str], first: int = 0) -> None:
        super().__init__()
        made = []
        for name in names:
            with own(f"trunk {name}" if name else "trunk"):
                made.append(trunk.build(inputs))
        self._n = len(made)
        self._kept: list[Tensor] | None = None
        self.shapes = made[0].shapes[first:]
        same = zip(*(m.modules[first:] for m in made), strict=True)
        self.stages = nn.ModuleList([stack(list(stages)) for stages in same])

    def __len__(self) -> int:
        return self._n

    def spread(self, x: Tensor) -> Tensor:
        """The same inputs for every trunk: ``[replica, row, ...]`` -> ``[replica x N, row, ...]``."""
        return x.unsqueeze(1).expand(-1, self._n, *x.shape[1:]).flatten(0, 1)

    def apart(self, x: Tensor) -> Tensor:
        """``[replica x N, row, ...]`` -> ``[replica, N, row, ...]``."""
        return x.unflatten(0, (-1, self._n))

    def forward(self, inputs: Tensor) -> Tensor:
        """Every trunk's last output from common inputs: ``[replica, row, ...]`` -> ``[replica, N, row, feature]``."""
        x = self.spread(inputs)
        for i in range(len(self.stages)):
            x = self.run(i, x)
        return self.apart(x).flatten(3)

    def run(self, i: int, x: Tensor) -> Tensor:
        """Stage ``i`` of every trunk: ``[replica x N, row, ...]`` -> ``[replica x N, row, ...]``."""
        x = self.stages[i](x)
        if self._kept is not None and self.training:
            self._kept = [*self._kept[:i], x]
        return x

    def keep(self) -> None:
        """From now on, a forward pass in training keeps what each stage gave, for :meth:`kept`."""
        self._kept = []

    def kept(self) -> list[Tensor]:
        """What each stage gave in the last forward pass, ``[replica x N, row, ...]``; asked once, then forgotten."""
        kept, self._kept = self._kept or [], []
        return kept


class Joined(nn.Module):
    """Whether trunks are joined at once, or after a first phase in which each learned its task apart.

    Parameters
    ----------
    start
        None, or "independent" for two phases.
    """

    def __init__(self, start: str | None) -> None:
        super().__init__()
        self.start = start
        self.now: Tensor
        # Not 0-dim: it belongs to the network that was trained, and is stored with it.
        self.register_buffer("now", torch.tensor([start is None]))

    def forward(self, x: Tensor, mix: Callable[[Tensor], Tensor]) -> Tensor:
        """``mix(x)`` for the replicas whose trunks are joined, ``x`` for others. ``x`` is ``[replica x N, ...]``."""
        if self.start is None or bool(self.now.all()):
            return mix(x)
        if not bool(self.now.any()):  # not multiplied by one: a trunk must not be reached by the tasks of others
            return x
        here = self.now.repeat_interleave(len(x) // len(self.now)).view(-1, *[1] * (x.ndim - 1))
        return torch.where(here, mix(x), x)


def phases_of(start: str | None) -> int:
    """How many phases a ``start`` takes.

    Raises
    ------
    ValueError
        If it is neither None nor "independent".
    """
    if start not in (None, "independent"):
        raise ValueError(f"`start` must be None or 'independent'. Got {start!r}.")
    return 1 if start is None else 2


def shares(count: int, same: float | int, other: float | int) -> Tensor:
    """``[count, count]``: ``same`` on the diagonal, and in each line ``other`` spread evenly over the rest.

    With nobody else, one has it all.

    Examples
    --------
    >>> shares(3, 0.5, 0.5)
    tensor([[0.5000, 0.2500, 0.2500],
            [0.2500, 0.5000, 0.2500],
            [0.2500, 0.2500, 0.5000]])
    """
    if count == 1:
        return torch.full((1, 1), float(same + other))
    return torch.full((count, count), other / (count - 1)).fill_diagonal_(same)


def check_shares(**given: float | int) -> None:
    """Raises ValueError for a share outside of [0, 1]."""
    for name, value in given.items():
        if not 0 <= value <= 1:
            raise ValueError(f"`{name}` must be in [0, 1]. Got {value}.")


def chosen(stages: Sequence[int] | None, count: int) -> tuple[int, ...]:
    """Positions of the chosen stages among ``count``, in order; None chooses all, -1 is the last.

    Raises
    ------
    ValueError
        For a stage that does not exist, or none at all.
    """
    wanted = tuple(range(count)) if stages is None else tuple(stages)
    if not wanted or not all(-count <= stage < count for stage in wanted):
        raise ValueError(f"`stages` must name some of the trunk's {count} stages, 0 to {count - 1}. Got {stages}.")
    return tuple(sorted({stage % count for stage in wanted}))
