"""The replica axis: many trainings as one stacked computation.

Everything is built for ONE replica. Every parameter and buffer with at least one axis leads with a *copy*
axis: replica x slices (task trunks, experts, heads), replica first. A tensor without axes (a counter) is
common to all replicas. :func:`stack` makes one replica many, :func:`select` keeps some of them, and the
number of replicas appears in no method. This is the only file that knows the rule.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType
from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)
PLAIN = (bool, int, float, str, tuple, type(None))
FUNCTIONS = (FunctionType, BuiltinFunctionType)


def tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer that has a copy axis, by name."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.ndim:
            yield name, tensor


def stack(modules: Sequence[Module]) -> Module:
    """Joins modules that were built alike, one replica (or task, expert, head) each, into the first of them.

    Parameters
    ----------
    modules
        At least one module; all of one structure, with equal hyper-parameters. What differs between
        replicas must stand in ``[1]`` buffers.

    Returns
    -------
    Module
        The first module, now holding the copies of all; the others must not be used any more.

    Raises
    ------
    ValueError
        If the modules differ in structure, in the shape of a tensor, or in a hyper-parameter.
    """
    first, *others = modules
    for other in others:
        _require_alike(first, other)
    for (_, kept), *more in zip(*(tensors(m) for m in modules), strict=True):
        kept.data = torch.cat([kept.data, *(tensor.data for _, tensor in more)])
    return first


def _require_alike(one: nn.Module, other: nn.Module) -> None:
    shape, other_shape = ([(name, type(part).__name__) for name, part in m.named_modules()] for m in (one, other))
    if shape != other_shape:
        strange = sorted(set(shape) ^ set(other_shape))
        raise ValueError(f"Stacked modules must be built alike. Not in both: {strange[:3]}.")
    for (name, a), b in zip(one.named_modules(), other.modules(), strict=True):
        mine, theirs = _settings(a), _settings(b)
        if mine != theirs:
            where = f"{name or type(a).__name__}"
            raise ValueError(f"Stacked modules must have equal hyper-parameters; in {where}: {mine} against {theirs}.")
    mine, theirs = _named(one), _named(other)
    if mine.keys() != theirs.keys():
        raise ValueError(
            f"Stacked modules must have equal tensors. Not in both: {sorted(mine.keys() ^ theirs.keys())}."
        )
    for name, a in mine.items():
        b = theirs[name]
        if a.shape[1:] != b.shape[1:] or a.ndim != b.ndim or a.dtype != b.dtype:
            said = f"{tuple(a.shape)} {a.dtype} and {tuple(b.shape)} {b.dtype}"
            raise ValueError(f"Stacked tensors must have one shape and type. {name} is {said}.")
        if not a.ndim and not torch.equal(a, b):
            raise ValueError(f"A tensor without axes is common to all replicas. {name} is {a.item()} and {b.item()}.")


def _named(module: nn.Module) -> dict[str, Tensor]:
    return dict([*module.named_parameters(), *module.named_buffers()])


def _settings(module: nn.Module) -> dict[str, object]:
    public = {k: v for k, v in vars(module).items() if not k.startswith("_") and k != "training"}
    named = {k: v.__qualname__ if isinstance(v, FUNCTIONS) else v for k, v in public.items()}
    return {k: v for k, v in named.items() if isinstance(v, PLAIN)}


def select(module: nn.Module, keep: Tensor) -> None:
    """Keeps the replicas where ``keep`` (Bool ``[replica]``) holds, in place, and drops their gradients.

    Whoever holds a parameter still holds it, so optimisers and lists of parameters stay valid.
    """
    for _, tensor in tensors(module):
        kept = tensor.data.unflatten(0, (len(keep), -1))[keep.to(tensor.device)]
        tensor.data, tensor.grad = kept.flatten(0, 1), None


def load(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """As ``load_state_dict``, for whatever number of replicas ``state`` holds.

    Raises
    ------
    ValueError
        If a tensor is missing or has another shape behind its copy axis.
    """
    for name, tensor in _named(module).items():
        if name not in state or state[name].shape[1:] != tensor.shape[1:] or state[name].ndim != tensor.ndim:
            raise ValueError(f"The stored state does not fit this model: {name} must be {tuple(tensor.shape)}.")
    for name, tensor in _named(module).items():
        tensor.data, tensor.grad = state[name].to(tensor.device, tensor.dtype).clone(), None


def per_replica(parts: Iterable[Tensor], *lead: int) -> Tensor:
    """Tensors ``[copy, ...]`` side by side, a row per replica: ``[*lead, param]`` (no lead without replicas)."""
    return torch.cat([part.reshape(*lead, -1) for part in parts], -1)


def key(*parts: int) -> int:
    """A seed in [0, 2**63) that mixes several integers: near inputs give unrelated streams."""
    mixed = 0
    for part in parts:
        mixed = (mixed * 6364136223846793005 + int(part) * 2862933555777941757 + 3037000493) % 2**63
        mixed ^= mixed >> 29
    return mixed


@contextmanager
def own(name: str, seed: int | None = None) -> Iterator[None]:
    """Draws inside depend on the seed around it and on ``name`` alone, never on what was drawn before."""
    seed = torch.initial_seed() if seed is None else seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, zlib.crc32(name.encode())))
        yield


class Random(nn.Module):
    """A source of random numbers for each copy, a function of (seed of the copy, update).

    All forward passes of one update draw alike, and there is nothing to checkpoint but the seed and the
    number of updates. :func:`tick` moves every source inside a module to its next update.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seed: Tensor
        self.update: Tensor
        self.register_buffer("seed", torch.randint(2**62, (1,)))
        self.register_buffer("update", torch.zeros((), dtype=torch.int64))

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1): ``[copy, *shape]``."""
        drawn = torch.empty(len(self.seed), *shape, device=self.seed.device)
        for generator, copy in zip(self._generators(), drawn, strict=True):
            torch.rand(shape, generator=generator, out=copy)
        return drawn

    def chance(self, share: float, *shape: int) -> Tensor:
        """True with a probability, in steps of 1 / 65536: Bool ``[copy, *shape]``. Several times as fast as numbers."""
        size = math.prod(shape)
        drawn = torch.empty(len(self.seed), -(-size // 4), dtype=torch.int64, device=self.seed.device)
        for generator, copy in zip(self._generators(), drawn, strict=True):
            copy.random_(-(2**63), None, generator=generator)
        bits = drawn.view(torch.int16)[:, :size]
        return (bits < round(share * 65536) - 32768).view(-1, *shape)

    def _generators(self) -> Iterator[torch.Generator]:
        """One per copy, in the state of the present update; each is to be used before the next is asked for."""
        update, generator = int(self.update), torch.Generator(self.seed.device)
        for seed in self.seed.tolist():
            yield generator.manual_seed(key(seed, update))


def tick(module: nn.Module) -> None:
    """Moves every :class:`Random` inside ``module`` to its next update."""
    for part in module.modules():
        if isinstance(part, Random):
            part.update.add_(1)
