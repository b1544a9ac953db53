"""The inputs as outputs: reconstruction from the features, or layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kinfolk.auxiliary.base import Auxiliary
from kinfolk.replicas import Random, own
from kinfolk.sharing.base import Outputs, Sharing
from kinfolk.trunks.base import Trunk
from kinfolk.trunks.stages import Linear

COSTS = ("squared", "cross_entropy")
REDUCTIONS = ("mean", "sum")


class Reconstruction(Auxiliary):
    """The inputs are to be found again in what the network makes of them: a task that every row has, labelled or not.

    A linear decoder reads the features that the heads read, or, layer by layer, what a stage of the trunk makes of its
    input. Each stage is then the encoder of a denoising auto-encoder of its own: it sees its input with some of the
    numbers set to 0, and its decoder is to tell what they were. The task's loss is the sum over stages.

    Parameters
    ----------
    layerwise
        An auto-encoder per stage of the trunk instead of one decoder of the features. Needs a sharing with one trunk,
        as hard.
    corruption
        Share of the inputs that are set to 0 while training, in [0, 1), drawn anew in every update; layer by layer it
        may be one number per stage. 0.3 is usual for denoising.
    tied
        Layer by layer: a decoder's weights are those of its stage, transposed; the stage must be one linear layer with
        its activation. Otherwise every decoder has weights of its own.
    cost
        "squared" error, or "cross_entropy" of numbers in [0, 1], as grey values: the decoder then gives logits.
    reduction
        What a row's loss is over its inputs: their "mean", or their "sum".
    stop_gradient
        Layer by layer: what enters a stage is a constant for its auto-encoder, so that it trains this stage alone.
        The paper of evolving weights does not say; its notation names no other parameters.

    Raises
    ------
    ValueError
        For a value outside its range, and in ``setup`` for a network that has no trunk of such stages.

    References
    ----------
    P. Vincent, H. Larochelle, I. Lajoie, Y. Bengio, P.-A. Manzagol (2010). Stacked denoising autoencoders. JMLR 11.

    S. Belharbi, R. Herault, C. Chatelain, S. Adam (2016). Deep multi-task learning with evolving weights. ESANN.

    Examples
    --------
    >>> Reconstruction(layerwise=True, corruption=[0.2, 0.01]).task.name
    'reconstruction'
    """

    def __init__(
        self,
        layerwise: bool = False,
        corruption: float | Sequence[float] = 0.0,
        tied: bool = False,
        cost: str = "squared",
        reduction: str = "mean",
        stop_gradient: bool = True,
    ) -> None:
        super().__init__()
        shares = [corruption] if isinstance(corruption, (int, float)) else list(corruption)
        if not shares or not all(0 <= share < 1 for share in shares) or (len(shares) > 1 and not layerwise):
            raise ValueError(f"`corruption` must be in [0, 1), layer by layer one per stage. Got {corruption}.")
        if cost not in COSTS:
            raise ValueError(f"`cost` must be one of {', '.join(COSTS)}. Got {cost!r}.")
        if reduction not in REDUCTIONS:
            raise ValueError(f"`reduction` must be one of {', '.join(REDUCTIONS)}. Got {reduction!r}.")
        if tied and not layerwise:
            raise ValueError("`tied` decoders belong to `layerwise=True`: features have no weights to transpose.")
        self.layerwise, self.tied, self.cost, self.reduction = layerwise, tied, cost, reduction
        self.corruption, self.stop_gradient = corruption, stop_gradient
        self._shares = shares
        self.through_features = not layerwise and not any(shares)

    @property
    def reads_outputs(self) -> bool:
        """Features of rows as they are; of corrupted rows it computes its own."""
        return not self.layerwise and not (self.training and any(self._shares))

    def setup(self, network: Sharing, trunk: Trunk, inputs: torch.Size) -> Reconstruction:
        """A decoder, or one per stage of the trunk."""
        network.eval()
        with torch.no_grad():
            rows = torch.zeros(1, 2, *inputs)
            sizes = self._stage_sizes(network, rows) if self.layerwise else self._feature_sizes(network, rows)
        network.train()
        if len(self._shares) not in (1, len(sizes)):
            raise ValueError(f"`corruption` must be one number, or {len(sizes)}, one per stage. Got {self.corruption}.")
        if self.cost == "cross_entropy" and len(sizes) > 1 and getattr(trunk, "activation", "") != "sigmoid":
            raise ValueError('`cost="cross_entropy"` of several layers needs a trunk with activation="sigmoid".')
        shares = self._shares * (len(sizes) // len(self._shares))
        self.masks = nn.ModuleList([Masking(share) for share in shares])
        self.decoders = nn.ModuleList([self._decoder(k, *size) for k, size in enumerate(sizes)])
        return self

    def _feature_sizes(self, network: Sharing, rows: Tensor) -> list[tuple[int, int]]:
        features = network(rows).features
        self._reads = [i for i, one in enumerate(features) if not any(one is other for other in features[:i])]
        return [(sum(features[i].shape[-1] for i in self._reads), math.prod(rows.shape[2:]))]

    def _stage_sizes(self, network: Sharing, rows: Tensor) -> list[tuple[int, int]]:
        """What comes out of each stage, and what goes in."""
        trunk = getattr(network, "trunk", None)
        if not isinstance(trunk, nn.ModuleList) or any(len(p) != 1 for p in trunk.parameters()):
            name = type(network).__module__.rpartition(".")[2]
            raise ValueError(
                f"`layerwise=True` needs a sharing with one trunk, as hard, and `{name}` has none. Leave it out."
            )
        sizes = []
        for number, stage in enumerate(trunk, 1):
            if self.tied and len(_linear(stage)) != 1:
                raise ValueError(f"`tied=True` needs stages of one linear layer. Stage {number} is none.")
            after = stage(rows)
            sizes.append((math.prod(after.shape[2:]), math.prod(rows.shape[2:])))
            rows = after
        return sizes

    def _decoder(self, number: int, inputs: int, outputs: int) -> nn.Module:
        with own(f"decoder {number}"):
            return Tied(outputs) if self.tied else Linear(inputs, outputs)

    def check(self, inputs: Tensor) -> None:
        """Refuses numbers outside [0, 1] where the cost is a cross-entropy."""
        if self.cost == "cross_entropy" and len(inputs) and not bool(((inputs >= 0) & (inputs <= 1)).all()):
            raise ValueError(
                '`cost="cross_entropy"` needs inputs in [0, 1]. '
                f'Got some from {float(inputs.min()):.3g} to {float(inputs.max()):.3g}; choose "squared".'
            )

    def forward(self, network: Sharing, inputs: Tensor, outputs: Outputs | None) -> Float[Tensor, "replica row"]:
        """The loss of each row."""
        if self.layerwise:
            return self._layer_by_layer(cast(nn.ModuleList, network.trunk), inputs)
        if outputs is None or not self.reads_outputs:
            outputs = cast(Outputs, network(self.masks[0](inputs)))
        features = [outputs.features[i] for i in self._reads]
        features = features[0] if len(features) == 1 else torch.cat(features, -1)
        return self._loss(self.decoders[0](features), inputs)

    def _layer_by_layer(self, trunk: nn.ModuleList, inputs: Tensor) -> Tensor:
        x, losses = inputs, []
        for number, (stage, mask, decoder) in enumerate(zip(trunk, self.masks, self.decoders, strict=True), 1):
            code = stage(mask(x))
            given = code.flatten(2)
            said = decoder(given, _linear(stage)[0].weight) if self.tied else decoder(given)
            losses.append(self._loss(said, x))
            if number < len(trunk):
                x = self._next(stage, x, None if cast(Masking, mask).masks else code)
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum(0)

    def _next(self, stage: nn.Module, x: Tensor, code: Tensor | None) -> Tensor:
        """What the stage makes of its input as it is, which goes into the next one."""
        if not self.stop_gradient:
            return stage(x) if code is None else code
        with torch.no_grad():
            return stage(x) if code is None else code.detach()

    def _loss(self, said: Tensor, inputs: Tensor) -> Tensor:
        truth = inputs.flatten(2)
        if self.cost == "squared":
            whole = (said - truth).square().sum(-1)
        else:  # the cross-entropy of logits
            whole = F.softplus(said).sum(-1) - (said * truth).sum(-1)
        return whole / truth.shape[-1] if self.reduction == "mean" else whole


class Tied(nn.Module):
    """A decoder whose weights are those of its encoder, transposed, with a bias of its own."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, 1, outputs))

    def forward(self, code: Tensor, weight: Tensor) -> Tensor:
        """What was encoded by ``weight`` ``[copy, input, code]``."""
        return torch.baddbmm(self.bias, code, weight.mT)


class Masking(Random):
    """Sets a share of the numbers to 0 while training, others in every update."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = float(share)

    @property
    def masks(self) -> bool:
        """Whether it does anything now."""
        return self.training and self.share > 0

    def forward(self, x: Tensor) -> Tensor:
        """``[copy, row, ...]``, masked."""
        return x * ~self.chance(self.share, *x.shape[1:]) if self.masks else x


def _linear(stage: nn.Module) -> list[Linear]:
    """The linear layers of a stage; none if it has other layers with weights."""
    found = [part for part in stage.modules() if isinstance(part, Linear)]
    weights = sum(len(list(part.parameters())) for part in found)
    return found if weights == len(list(stage.parameters())) else []
