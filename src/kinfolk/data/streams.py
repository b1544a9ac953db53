"""Which rows a replica sees in each update: a function of its seed and the number of the update."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from kinfolk.replicas import Random, key

BLOCK = 16  # updates drawn at once: permuting is cheaper in one piece, and what is forgotten is drawn again


class Rows(Random):
    """Walks through a pool of rows in a fresh random order every pass.

    Parameters
    ----------
    pool
        The rows this replica may see.
    size
        Rows per update.
    longest
        The length to which pools are padded, so that replicas with pools of different length can be stacked.
    """

    def __init__(self, pool: Int[Tensor, " row"], size: int, longest: int) -> None:
        super().__init__()
        if not len(pool):
            raise ValueError("A replica needs at least one row to train on. Got none.")
        self.pool: Tensor
        self.length: Tensor
        self.register_buffer("pool", F.pad(pool, (0, longest - len(pool)))[None])
        self.register_buffer("length", torch.tensor([len(pool)]))
        self.size = size
        self._drawn: tuple[tuple[int, int], Tensor] | None = None

    def forward(self) -> Int[Tensor, "replica row"]:
        """The rows of the present update."""
        update = int(self.update)
        wanted = (update // BLOCK, len(self.seed))
        if self._drawn is None or self._drawn[0] != wanted:
            self._drawn = wanted, self._block(wanted[0] * BLOCK)
        return self._drawn[1][update % BLOCK]

    def forget(self) -> None:
        """Drops what was drawn ahead: after replicas were selected or loaded."""
        self._drawn = None

    def _block(self, update: int) -> Tensor:
        copies = zip(self.seed.tolist(), self.length.tolist(), self.pool, strict=True)
        return torch.stack([self._walk(seed, length, pool, update) for seed, length, pool in copies], 1)

    def _walk(self, seed: int, length: int, pool: Tensor, update: int) -> Tensor:
        first, last = update * self.size, (update + BLOCK) * self.size
        generator = torch.Generator()
        passes: Sequence[Tensor] = [
            torch.randperm(length, generator=generator.manual_seed(key(seed, lap)))
            for lap in range(first // length, (last - 1) // length + 1)
        ]
        at = first % length
        order = torch.cat(list(passes))[at : at + last - first]
        return pool[order.to(pool.device)].view(BLOCK, self.size)
