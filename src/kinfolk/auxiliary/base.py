"""What an auxiliary task is that needs no label, and how a sharing is trained with some."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kinfolk.data.problem import Batch, Problem
from kinfolk.data.tasks import Task
from kinfolk.quantities import Quantity
from kinfolk.replicas import own
from kinfolk.sharing.base import Outputs, Sharing
from kinfolk.trunks.base import Trunk


class Auxiliary(nn.Module):
    """A task of its own making: it is seen on every row, and its output is its loss.

    Hyper-parameters stand in the constructor, sizes come with :meth:`setup`.
    """

    name: str = ""
    """The task's name: that of the method. Others than methods of the catalogue have one of their own."""

    @property
    def task(self) -> Task:
        """The task that it adds to a problem."""
        return Task(self.name, "loss", main=False)

    reads_outputs: bool = False
    """Whether it reads what the network says about the rows: then this is computed for it."""

    through_features: bool = False
    """Whether its loss depends on the network through the features that heads read, and on nothing else of it."""

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        if "name" not in vars(cls):
            cls.name = cls.__module__.rpartition(".")[2]

    @abstractmethod
    def setup(self, network: Sharing, trunk: Trunk, inputs: torch.Size) -> Auxiliary:
        """Makes its layers for a network that is set up, for rows of the given shape.

        Raises
        ------
        ValueError
            If it cannot work with such a network.
        """

    def check(self, inputs: Tensor) -> None:
        """Refuses inputs ``[row, ...]`` that it cannot work with."""

    @abstractmethod
    def forward(self, network: Sharing, inputs: Tensor, outputs: Outputs | None) -> Float[Tensor, "replica row"]:
        """The loss of each row.

        Parameters
        ----------
        network
            The one that it was set up for.
        inputs
            ``[replica, row, ...]``.
        outputs
            What the network says about them; None where nobody asked, see :attr:`reads_outputs`.
        """


def tasks_of(auxiliary: Sequence[Auxiliary]) -> tuple[Task, ...]:
    """The tasks that these add."""
    return tuple(one.task for one in auxiliary)


def with_tasks(problem: Problem, added: Sequence[Task]) -> Problem:
    """A problem with tasks that are seen on every row."""
    if not added:
        return problem
    none = torch.zeros_like(problem.weight)
    seen = problem.observed.new_ones(len(problem.observed), len(added))
    return replace(
        problem,
        targets=[*problem.targets, *[none] * len(added)],
        observed=torch.cat([problem.observed, seen], 1),
        tasks=(*problem.tasks, *added),
    )


class WithAuxiliary(Sharing):
    """A network that trains with auxiliary tasks of its own making. What is handed over is the network without them.

    Its tasks are those of the network, then one per auxiliary.

    Parameters
    ----------
    inner
        The network.
    auxiliary
        What helps it to train.
    """

    skips = True

    def __init__(self, inner: Sharing, auxiliary: Sequence[Auxiliary]) -> None:
        super().__init__()
        self.inner = inner
        self.auxiliary = nn.ModuleList(auxiliary)
        self.penalty = inner.penalty

    def _added(self) -> list[Auxiliary]:
        return [cast(Auxiliary, one) for one in self.auxiliary]

    def problems(self, tasks: Sequence[Task]) -> list[tuple[int, ...]]:
        """Those of the network, each with all auxiliary tasks."""
        asked = len(tasks) - len(self.auxiliary)
        return [(*columns, *range(asked, len(tasks))) for columns in self.inner.problems(tasks[:asked])]

    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> WithAuxiliary:
        """The network, then what each auxiliary task adds to it."""
        asked = len(tasks) - len(self.auxiliary)
        if asked < 1 or tuple(tasks[asked:]) != tasks_of(self._added()):
            names = ", ".join(task.name for task in tasks)
            raise ValueError(
                f"The last tasks must be {', '.join(t.name for t in tasks_of(self._added()))}. Got {names}."
            )
        self.inner.setup(trunk, tasks[:asked], inputs)
        for one in self._added():
            with own(f"auxiliary {one.name}"):
                one.setup(self.inner, trunk, inputs)
        self.phases, self.spare = self.inner.phases, self.inner.spare
        self.through_features = all(one.through_features for one in self._added())
        self._sizes = [task.size for task in tasks[:asked]]
        return self

    def at_start(self, problem: Problem, train: Tensor, columns: Sequence[int]) -> None:
        """Lets the auxiliary tasks look at the inputs, and the network at its own tasks."""
        self.inner.at_start(problem, train, columns[: len(self._sizes)])
        for one in self._added():
            one.check(problem.inputs[train.to(problem.inputs.device)])

    def forward(
        self, inputs: Tensor, preference: Tensor | None = None, tasks: Bool[Tensor, " task"] | None = None
    ) -> Outputs:
        """The outputs of the tasks, and the losses of the auxiliary ones; 0 for tasks that nobody asks for."""
        asked, added = len(self._sizes), self._added()
        wanted = [True] * (asked + len(added)) if tasks is None else tasks.tolist()
        read = any(one.reads_outputs for one, want in zip(added, wanted[asked:], strict=True) if want)
        said = None
        if read or any(wanted[:asked]):
            said = self.inner(inputs, None if preference is None else preference[..., :asked])
        none = inputs.new_zeros(1, 1, 1).expand(*inputs.shape[:2], 1)
        given = [none.expand(-1, -1, size) for size in self._sizes] if said is None else list(said.tasks)
        losses = [
            one(self.inner, inputs, said).unsqueeze(-1) if want else none
            for one, want in zip(added, wanted[asked:], strict=True)
        ]
        features = () if said is None else (*said.features, *[said.features[0]] * len(added))
        return Outputs([*given, *losses], features)

    @property
    def handed_over(self) -> Sharing:
        """The network alone."""
        return self.inner

    def rates(self, phase: int) -> Mapping[str, float]:
        """Those of the network."""
        return {f"inner.{prefix}": factor for prefix, factor in self.inner.rates(phase).items()}

    def at_phase(self, phase: int, outputs: Outputs, batch: Batch) -> None:
        """The network's."""
        self.inner.at_phase(phase, outputs.first(len(self._sizes)), batch.first(len(self._sizes)))

    def at_epoch(self, epoch: int, losses: Tensor | None, errors: Tensor | None) -> None:
        """The network's, with what its own tasks say."""
        own_tasks = [None if told is None else told[..., : len(self._sizes)] for told in (losses, errors)]
        self.inner.at_epoch(epoch, *own_tasks)

    def learned(self) -> Mapping[str, Quantity]:
        """What the network learned."""
        return self.inner.learned()

    def last_shared(self) -> list[nn.Parameter]:
        """The network's."""
        return self.inner.last_shared()
