"""A user's own module over the copy axis."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kinfolk.replicas import Random, key


class Looped(Random):
    """A user's own module, run once per copy with stacked parameters and buffers. Tied weights stay tied.

    Slower than the stacked layers, but right for every module: recurrent layers, data-dependent branches. Buffers
    (running statistics) change in the first forward pass of an update while training and in no other, so an update
    counts once however many passes it has. Parameters that are frozen stay frozen.

    Parameters
    ----------
    module
        Maps ``[row, ...]`` to ``[row, ...]``. It is copied; the given one is not changed.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = repr(module)  # so that only like modules are stacked
        self._template = [module]  # in a list, so that it is no submodule with parameters of its own
        self.counted: Tensor
        self.register_buffer("counted", torch.full((), -1, dtype=torch.int64))
        self._parameters_of: dict[str, str] = {}
        self._buffers_of: dict[str, str] = {}
        for name, parameter in module.named_parameters():
            self._parameters_of[name] = self._free(name)
            stacked = nn.Parameter(parameter.detach()[None].clone(), requires_grad=parameter.requires_grad)
            self.register_parameter(self._parameters_of[name], stacked)
        for name, buffer in module.named_buffers():
            self._buffers_of[name] = self._free(name)
            self.register_buffer(self._buffers_of[name], buffer.detach()[None].clone())

    def _free(self, name: str) -> str:
        """The name under which a tensor of the module is kept: no dots, and none of those of this class."""
        stored = name.replace(".", "/")
        return f"/{stored}" if hasattr(self, stored) else stored

    def forward(self, x: Tensor) -> Tensor:
        """The module's outputs, copy by copy."""
        self._template[0].train(self.training)
        counts = self.training and int(self.counted) != int(self.update)
        if counts:
            self.counted.copy_(self.update)
        return torch.stack([self._one(i, x[i], counts) for i in range(len(x))])

    def _one(self, i: int, x: Tensor, counts: bool) -> Tensor:
        parameters = {name: getattr(self, stored)[i] for name, stored in self._parameters_of.items()}
        buffers = {name: getattr(self, stored)[i].clone() for name, stored in self._buffers_of.items()}
        held = parameters | buffers
        with torch.random.fork_rng(devices=[], enabled=self.training):
            if self.training:
                torch.manual_seed(key(int(self.seed[i]), int(self.update)))
            y = functional_call(self._template[0], held, x)
        if counts:  # what the module wrote into a buffer, or put in its place, stands in `held` now
            for name, stored in self._buffers_of.items():
                getattr(self, stored)[i] = held[name].detach()
        return y
