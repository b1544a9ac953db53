"""What a balancing is: how task losses become one parameter update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kinfolk.data.problem import Problem
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
        What the heads read, one per task (the same tensor where shared), or one tensor for all.
    outputs
        What the heads gave, one per task; empty in loops that do not tell.
    heads
        The weights ``[..., feature, size]`` of linear heads, one per task, if each output is its features times
        these, plus a bias, and each loss depends on the network through its own output alone; else empty.
    """

    value: Float[Tensor, "*replica task"]
    present: Bool[Tensor, "*replica task"] | None = None
    penalty: Float[Tensor, "*replica"] | None = None
    shared: Sequence[nn.Parameter] = ()
    last: Sequence[nn.Parameter] = ()
    features: Sequence[Tensor] = field(default=())
    outputs: Sequence[Tensor] = field(default=())
    heads: Sequence[Tensor] = field(default=())

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
    """Turns task losses into gradients. A method overrides ``total`` or ``gradients``.

    One that makes several passes or steps for an update overrides ``step`` as well.

    Hyper-parameters stand in the constructor. State is made by :meth:`setup` for one replica, leads with the
    task axis and is read as ``state.view_as(losses.value)``: it then serves ``[task]`` and ``[replica, task]``.
    """

    needs: tuple[str, ...] = ()
    """Fields of :class:`Losses` that the method cannot do without: "last", "shared", "features"."""

    partial: bool = False
    """Whether the method calls ``closure(tasks)``: steps toward some of the tasks at a time."""

    def setup(self, tasks: Sequence[Task]) -> Balancing:
        """Makes the state for these tasks, and returns the method itself. Methods with state call this one too."""
        self._names = tuple(task.name for task in tasks)
        return self

    def total(self, losses: Losses) -> Float[Tensor, "*replica"]:
        """One number per replica, differentiable in the losses and in the method's own parameters."""
        raise NotImplementedError(f"{type(self).__name__} overrides none of total, gradients and step.")

    def backward(
        self,
        losses: Losses | Tensor | Sequence[Tensor],
        *,
        shared: Iterable[nn.Parameter] = (),
        last: Iterable[nn.Parameter] = (),
        features: Tensor | Sequence[Tensor] = (),
    ) -> Float[Tensor, "*replica task"]:
        """Fills ``.grad``: the one line that changes in a loop of one's own, where ``sum(losses).backward()`` stood.

        Parameters
        ----------
        losses
            One number per task, as a list or ``[task]``; or :class:`Losses`.
        shared
            The parameters that serve several tasks, for methods whose ``needs`` name them.
        last
            The parameters of the last shared layer, likewise.
        features
            What the heads read, likewise: one tensor, or one per task.

        Returns
        -------
        Tensor
            The weight that each task's loss had, ``[..., task]``.

        Raises
        ------
        ValueError
            If the number of losses is not that of tasks, or something that the method needs is not given.
        """
        return self.gradients(self.checked(losses, shared, last, features))

    def checked(
        self,
        losses: Losses | Tensor | Sequence[Tensor],
        shared: Iterable[nn.Parameter] = (),
        last: Iterable[nn.Parameter] = (),
        features: Tensor | Sequence[Tensor] = (),
    ) -> Losses:
        """Losses with all that the method needs, from what :meth:`backward` is given."""
        if not isinstance(losses, Losses):
            value = losses if isinstance(losses, Tensor) else torch.stack(list(losses))
            read = [features] if isinstance(features, Tensor) else list(features)
            read = read * value.shape[-1] if len(read) == 1 else read
            losses = Losses(value, None, None, tuple(shared), tuple(last), read)
        tasks = getattr(self, "_names", None)
        if tasks is None:
            raise ValueError(f"{type(self).__name__} must know its tasks first: call setup(tasks).")
        if losses.value.shape[-1] != len(tasks):
            raise ValueError(
                f"There must be one loss per task ({', '.join(tasks)}). Got {losses.value.shape[-1]} for {len(tasks)}."
            )
        if lacking := [need for need in self.needs if not getattr(losses, need)]:
            name = type(self).__module__.rpartition(".")[2]
            raise ValueError(f"`{name}` needs {', '.join(lacking)}: give backward(losses, {lacking[0]}=...).")
        return losses

    def gradients(self, losses: Losses) -> Float[Tensor, "*replica task"]:
        """Fills ``.grad``, the penalty's in the same pass, and returns the weights."""
        losses.value.retain_grad()
        whole = self.total(losses)
        (whole if losses.penalty is None else whole + losses.penalty).sum().backward()
        weights = losses.value.grad
        return torch.zeros_like(losses.value) if weights is None else weights

    def step(self, closure: Callable[..., Losses], optimizer: Optimizer) -> tuple[Losses, Tensor]:
        """One update.

        Parameters
        ----------
        closure
            Runs the network forward and returns its losses; ``closure(tasks)`` with Bool ``[task]`` runs it on the
            rows that have a label of these tasks alone, and the others count as absent.
        optimizer
            Moves the parameters.

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

    def at_start(self, problem: Problem, train: Tensor, columns: Sequence[int]) -> None:
        """Called once before training, for weights that come from the data; not in loops of one's own.

        Parameters
        ----------
        problem
            Inputs and labels.
        train
            Positions of the rows that train the replica.
        columns
            Positions of its tasks in the problem.
        """

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

    def active(self) -> Bool[Tensor, " copies"] | None:
        """Which tasks still train, ``[task]`` or replicas x tasks; None: all. To the loop the others have no labels."""
        return None

    def rates(self) -> Mapping[str, float]:
        """Factor of the learning rate for parameters of its own, by their names; 1 for those that are not named."""
        return {}

    def learned(self) -> Mapping[str, Quantity]:
        """What it learned beside the weights of the losses, by name."""
        return {}
