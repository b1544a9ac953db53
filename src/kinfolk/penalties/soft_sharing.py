"""Soft sharing: tasks' trunks are pulled towards each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from kinfolk import distributed
from kinfolk.data.tasks import Task
from kinfolk.penalties.base import Penalty
from kinfolk.sharing.base import Outputs, Sharing
from kinfolk.sharing.copies import Copies, chosen
from kinfolk.trunks.stages import BatchNorm

NORMS = ("l2", "l1", "trace")


class SoftSharing(Penalty):
    """Pulls the trunks of all tasks towards their mean, or what they compute.

    For weights ``W_t`` of task t: ``strength * sum_t ||W_t - mean_s W_s||``, squared for "l2". With T tasks, T times
    this is the sum over all pairs, ``sum_(s<t) ||W_s - W_t||^2``. Weights of batch norms are left out.

    Parameters
    ----------
    strength
        Not negative; 0 leaves the trunks apart, a large one makes them one trunk.
    norm
        "l2"; "l1": absolute deviations, which lets most weights be equal; "trace": the sum of the singular values of
        each layer's weights with a line per task, which lets tasks lie in few dimensions and shrinks the weights.
    stages
        Which stages to couple, from 0; None: all.
    on
        "weights", or "activations": what the stages give for the same rows, the mean over rows.

    Raises
    ------
    ValueError
        For a value outside its range, for "trace" on activations, and in ``setup`` for a network without a trunk per
        task or without such a stage.

    References
    ----------
    T. Evgeniou, M. Pontil (2004). Regularized multi-task learning. KDD, 109-117.

    L. Duong, T. Cohn, S. Bird, P. Cook (2015). Low resource dependency parsing: cross-lingual parameter sharing in a
    neural network parser. ACL, 845-850.

    Y. Yang, T. Hospedales (2017). Trace norm regularised deep multi-task learning. ICLR workshop. The "last axis
    flattening"; here smoothed where a singular value is 0.
    """

    def __init__(
        self,
        strength: float | int = 0.01,
        norm: str = "l2",
        stages: Sequence[int] | None = None,
        on: str = "weights",
    ) -> None:
        super().__init__()
        if not strength >= 0:
            raise ValueError(f"`strength` must not be negative. Got {strength}.")
        if norm not in NORMS:
            raise ValueError(f"`norm` must be one of {', '.join(NORMS)}. Got {norm!r}.")
        if on not in ("weights", "activations"):
            raise ValueError(f"`on` must be 'weights' or 'activations'. Got {on!r}.")
        if norm == "trace" and on == "activations":
            raise ValueError("`norm` must be 'l2' or 'l1' on activations. Got 'trace', which is for weights.")
        self.strength, self.norm, self.stages, self.on = float(strength), norm, stages, on

    def setup(self, model: Sharing, tasks: Sequence[Task]) -> SoftSharing:
        """Looks for the trunks."""
        trunks = getattr(model, "trunks", None)
        if not isinstance(trunks, Copies) or len(trunks) != len(tasks):
            name = type(model).__name__
            raise ValueError(
                f"`soft_sharing` needs a sharing with a trunk per task: soft, cross_stitch, nddr. Got {name}."
            )
        self._at = chosen(self.stages, len(trunks.stages))
        if self.on == "activations":
            trunks.keep()
        return self

    def forward(
        self, model: Sharing, outputs: Outputs, losses: Float[Tensor, "replica task"]
    ) -> Float[Tensor, " replica"]:
        """The deviations of each replica's trunks."""
        trunks = model.get_submodule("trunks")
        if not isinstance(trunks, Copies):
            raise TypeError(f"`trunks` must be Copies. Got {type(trunks).__name__}.")
        replicas = len(losses)
        if self.on == "weights":
            found = [p for i in self._at for p in weights(trunks.stages[i])]
            return self.strength * sum(
                (self._apart(p.view(replicas, len(trunks), -1)) for p in found), losses.new_zeros(replicas)
            )
        kept = trunks.kept()
        rows = distributed.total(losses.new_tensor(float(kept[0].shape[1])))
        wide = (kept[i].reshape(replicas, len(trunks), -1) for i in self._at)
        return self.strength * distributed.total(sum((self._apart(x) for x in wide), losses.new_zeros(replicas))) / rows

    def _apart(self, x: Float[Tensor, "replica task _"]) -> Float[Tensor, " replica"]:
        if self.norm == "l2":
            return cast(Tensor, _Deviations.apply(x))
        if self.norm == "l1":
            return (x - x.mean(1, keepdim=True)).abs().sum((1, 2))
        # Through the eigenvalues of x x': unlike that of singular values, this gradient is 0 where tasks are equal.
        return (torch.linalg.eigvalsh(x @ x.mT).clamp(min=0) + 1e-8).sqrt().sum(-1)


class _Deviations(torch.autograd.Function):
    """Squares of the deviations from the mean over tasks, ``[replica, task, param]`` -> ``[replica]``.

    The gradient is twice the deviations, whatever moves the mean: their sum is 0. Autograd finds the same in three
    times the time, and the variance along an axis that is not the last takes twelve times as long.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        apart = x - x.mean(1, keepdim=True)
        ctx.save_for_backward(apart)
        return torch.linalg.vecdot(apart.flatten(1), apart.flatten(1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (apart,) = ctx.saved_tensors
        return apart * (2 * gradient.view(-1, 1, 1))


def weights(stage: nn.Module) -> Iterator[nn.Parameter]:
    """A stage's parameters, without those of batch norms: these go with statistics of their own copy."""
    for module in stage.modules():
        if isinstance(module, BatchNorm):
            continue
        buffers = dict(module.named_buffers(recurse=False))
        for name, parameter in module.named_parameters(recurse=False):
            # In a user's own module, "1/weight" belongs to a batch norm where there is "1/running_mean".
            beside, slash, _ = name.rpartition("/")
            if f"{beside}{slash}running_mean" not in buffers:
                yield parameter
