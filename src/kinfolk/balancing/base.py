"""What a balancing is: how task losses become one parameter update."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kinfolk.data.tasks import Task
from kinfolk.quantities import Quantity


@dataclass
class Losses:
    """What one forward pass yields for balancing. The leading replica axis is optional.

    Attributes
    ----------
    value
        ``[..., task]``, 0 where a task is absent.
    present
        Bool ``[..., task]``: has a label in this update. Without it all are present.
    penalty
        ``[...]``, or None.
    shared
        Parameters that serve more than one task.
    last
        Parameters of the last shared layer.
    features
        What the heads read.
    """

    value: Float[Tensor, "*replica task"]
    present: Bool[Tensor, "*replica task"] | None = None
    penalty: Float[Tensor, "*replica"] | None = None
    shared: Sequence[nn.Parameter] = ()
    last: Sequence[nn.Parameter] = ()
    features: Sequence[Tensor] = field(default=())

    @property
    def seen(self) -> Bool[Tensor, "*replica task"]:
        """``present``, all True where it was not given."""
        return torch.ones_like(self.value, dtype=torch.bool) if self.present is None else self.present


@runtime_checkable
class Optimizer(Protocol):
    """What balancing needs of an optimiser; every ``torch.optim`` one has it."""

    def zero_grad(self) -> None: ...  # noqa: D102
    def step(self) -> object: ...  # noqa: D102


class Balancing(nn.Module):
    """Turns task losses into gradients. A method overrides one of ``total``, ``backward`` and ``step``.

    Hyper-parameters stand in the constructor. State is made by :meth:`setup` for one replica, leads with the
    task axis and is read as ``state.view_as(losses.value)``: it then serves ``[task]`` and ``[replica, task]``.
    """

    needs: tuple[str, ...] = ()
    """Fields of :class:`Losses` that the method cannot do without: "last", "shared", "features"."""

    def setup(self, tasks: Sequence[Task]) -> Balancing:
        """Makes the state for these tasks, and returns the method itself."""
        return self

    def total(self, losses: Losses) -> Float[Tensor, "*replica"]:
        """One number per replica, differentiable in the losses and in the method's own parameters."""
        raise NotImplementedError(f"{type(self).__name__} overrides none of total, backward and step.")

    def backward(self, losses: Losses) -> Float[Tensor, "*replica task"]:
        """Fills ``.grad``, the penalty's in the same pass.

        Returns
        -------
        Tensor
            The weight that each task's loss had, ``[..., task]``, for the history.
        """
        losses.value.retain_grad()
        whole = self.total(losses)
        (whole if losses.penalty is None else whole + losses.penalty).sum().backward()
        weights = losses.value.grad
        return torch.zeros_like(losses.value) if weights is None else weights

    def step(self, closure: Callable[[], Losses], optimizer: Optimizer) -> tuple[Losses, Tensor]:
        """One update. ``closure`` runs the network forward and returns its losses.

        Returns
        -------
        Losses, Tensor
            The losses before the update, and the weights ``[..., task]``.
        """
        losses = closure()
        optimizer.zero_grad()
        weights = self.backward(losses)
        optimizer.step()
        return losses, weights

    def at_epoch(self, epoch: int, losses: Tensor | None, errors: Tensor | None) -> None:
        """Called before each epoch; schedules override it.

        Parameters
        ----------
        epoch
            The one that begins, from 0.
        losses, errors
            ``[..., task]``: mean losses of the epoch before, in training and on the rows that stop it; NaN for a
            task without a label there, None before the first epoch.
        """

    def learned(self) -> Mapping[str, Quantity]:
        """What it learned beside the weights of the losses, by name."""
        return {}
