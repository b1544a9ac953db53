"""What every learner is asked to do, and what it gives back: the contract of network arms and opponents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from kinfolk.data.tasks import Task
from kinfolk.runs import Folder

Setting = dict[str, Any]

LEARNED = ["arm", "setting", "update", "quantity", "line", "column", "value"]
"""Columns of what was learned beside weights: a row per number of a table, as it was after an update."""


def nothing_learned() -> pd.DataFrame:
    """No rows of :data:`LEARNED`."""
    return pd.DataFrame(columns=LEARNED)


def setting_text(setting: Setting) -> str:
    """A setting in words.

    >>> setting_text({"rate": 0.003, "encoding": "standard"})
    'rate 0.003, encoding standard'
    """
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in setting.items()
    )


@dataclass(frozen=True)
class Job:
    """One fit.

    Attributes
    ----------
    train
        Row positions to learn from.
    stop
        Row positions that decide when a network or boosting stops; others may learn from them.
    setting
        Position in the learner's ``settings``.
    seed
        Of all its random draws.
    unlabelled
        Positions among :attr:`Rows.unlabelled`, for arms with a task that needs no label.
    """

    train: Int[np.ndarray, " train"]
    stop: Int[np.ndarray, " stop"]
    setting: int
    seed: int
    unlabelled: Int[np.ndarray, " unlabelled"] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


@dataclass(frozen=True)
class Rows:
    """Encoded rows that learners are fitted on.

    Attributes
    ----------
    inputs
        ``[row, feature]``; NaN where a number is missing.
    labels
        ``[row, task]``; NaN where not observed, classes as codes.
    weight
        ``[row]``.
    tasks
        One per label column.
    unlabelled, unlabelled_weight
        Inputs and weights of rows without any label, or None. They are encoded as the others, and nothing that encodes
        is fitted on them: who does not read them learns as if they were not there.
    """

    inputs: Float[np.ndarray, "row feature"]
    labels: Float[np.ndarray, "row task"]
    weight: Float[np.ndarray, " row"]
    tasks: tuple[Task, ...]
    unlabelled: Float[np.ndarray, "unlabelled feature"] | None = None
    unlabelled_weight: Float[np.ndarray, " unlabelled"] | None = None


@runtime_checkable  # the tests check types
class Predictor(Protocol):
    """A fitted learner."""

    @property
    def parameters(self) -> int | None:
        """How many numbers it learned, or None."""
        ...

    @property
    def epochs(self) -> float:
        """Passes over its rows until its best state; NaN where that means nothing."""
        ...

    def predict(self, inputs: Float[np.ndarray, "row feature"]) -> list[np.ndarray | None]:
        """One ``[row, size]`` per task: values, or probabilities. None for a task that it does not predict."""
        ...


@dataclass
class Fits:
    """What a learner gives back.

    Attributes
    ----------
    predictors
        One per job, None where nothing usable was trained: it failed, has no labels, or the deadline came too soon.
    failed
        One entry per failure: arm, setting, task, epoch, why.
    history
        Rows of learning curves (setting, task, update, stop_loss, train_loss, weight), averaged over replicas.
    learned
        What networks learned beside weights (see :data:`LEARNED`), averaged over replicas.
    cut
        The deadline ended the training before its time.
    """

    predictors: list[Predictor | None]
    failed: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    learned: pd.DataFrame = field(default_factory=nothing_learned)
    cut: bool = False


@dataclass(frozen=True)
class Surroundings:
    """What a fit may use.

    Attributes
    ----------
    folder
        Where it keeps checkpoints, or None.
    device
        Of tensors, as torch names it.
    deadline
        When it must end, on the clock of ``time.monotonic``, or None.
    together
        Each network is kept at the one epoch that is best for the mean over main tasks, instead of at each
        task's own: a single network then serves all tasks.
    """

    folder: Folder | None = None
    device: str = "cpu"
    deadline: float | None = None
    together: bool = False


@runtime_checkable
class Learner(Protocol):
    """An arm or an opponent."""

    @property
    def text(self) -> str:
        """How it is written."""
        ...

    @property
    def role(self) -> str:
        """What it is compared as: "single-task", "sharing", "opponent", "semi-supervised" or "padded baseline"."""
        ...

    @property
    def settings(self) -> Sequence[Setting]:
        """The grid it may choose from, best known first."""
        ...

    def fit(self, rows: Rows, jobs: Sequence[Job], around: Surroundings | None = None) -> Fits:
        """Fits all jobs, as many at once as pays."""
        ...
