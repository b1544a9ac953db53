"""What a study is: trials that are computed, rows that they measure, findings beside the published numbers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from kinfolk.runs import Folder
from kinfolk.training import checkpoints
from kinfolk.training.loop import Training

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas

T = TypeVar("T")
CONFIDENCE = 0.95
REPRODUCED, DIRECTION, MISSED, UNJUDGED = "reproduced", "direction only", "not reproduced", "not judged"


@dataclass(frozen=True)
class Trial:
    """One item of work: done in one process, one result file.

    Attributes
    ----------
    name
        Words and numbers, unique in the study: ``"NN1, l=100, u=10000, exp40, seeds 0-2"``.
    arguments
        What :meth:`Study.run` needs to know, in the types that JSON has.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """One line of a study's table: a published number, or what a paper says of a sign, beside ours.

    Attributes
    ----------
    what
        ``"Deep-AMTFL, test error"``.
    published
        None where the paper tells a direction only, or nothing.
    values
        Ours, one per seed; paired differences where the claim is about a difference.
    unit
        ``"%"``, ``"points"``.
    claim
        ``"negative"`` or ``"positive"``: what the paper says of the sign of a difference. Otherwise empty.
    source
        Where the paper says it: ``"Belharbi et al. 2016, table 1"``.

    Examples
    --------
    >>> found = Finding("one against the other", -2.5, (-2.0, -3.0, -2.6), "points", "negative")
    >>> round(found.ours, 2), found.verdict
    (-2.53, 'reproduced')
    """

    what: str
    published: float | None
    values: tuple[float, ...]
    unit: str = ""
    claim: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if self.claim not in ("", "negative", "positive"):
            raise ValueError(f"`claim` must be 'negative', 'positive' or empty. Got {self.claim!r}.")

    @property
    def ours(self) -> float:
        """The mean over seeds; NaN without any."""
        return float(np.mean(self.values)) if self.values else math.nan

    @property
    def low(self) -> float:
        """The lower end of the 95 % t interval of the mean over seeds; NaN with one seed."""
        return self.ours - self._half()

    @property
    def high(self) -> float:
        """The upper end."""
        return self.ours + self._half()

    @property
    def verdict(self) -> str:
        """What is concluded.

        ``reproduced``: the published number lies in our interval. ``direction only``: it does not, or there is
        none, but the sign is as claimed and the interval excludes 0. ``not reproduced``: neither. ``not judged``: one
        seed has no interval. Empty where nothing was published.
        """
        if self.published is None and not self.claim:
            return ""
        if len(self.values) < 2:
            return UNJUDGED
        if self.published is not None and self.low <= self.published <= self.high:
            return REPRODUCED
        if (self.claim == "negative" and self.high < 0) or (self.claim == "positive" and self.low > 0):
            return DIRECTION
        return MISSED

    def _half(self) -> float:
        from scipy import stats

        seeds = len(self.values)
        if seeds < 2:
            return math.nan
        error = float(np.std(self.values, ddof=1)) / math.sqrt(seeds)
        return error * float(stats.t.ppf(0.5 + CONFIDENCE / 2, seeds - 1))


class Study(ABC):
    """A published experiment that anyone can rerun.

    A study is one file, one export line in ``studies/__init__.py``, a test and a page of the documentation. What its
    paper leaves open are options with defaults: parameters of its constructor, kept as attributes of the same names.
    :mod:`kinfolk.studies.running` does the rest.
    """

    title: ClassVar[str]
    """One line, as `kinfolk list studies` shows it."""
    paper: ClassVar[str]
    """Authors (year). Title. Venue."""
    seeds: ClassVar[int] = 5
    """How many, if nobody says."""

    @abstractmethod
    def trials(self, seeds: int, quick: bool) -> list[Trial]:
        """The work, in pieces that need nothing of each other. With `quick`: little, the same code."""

    @abstractmethod
    def run(self, trial: Trial, folder: Folder) -> list[dict[str, Any]]:
        """What a trial measures.

        Parameters
        ----------
        trial
            One of :meth:`trials`.
        folder
            The trial's own, for checkpoints (:func:`train`); it is there again when the trial goes on.

        Returns
        -------
        list of dict
            Rows with ``seed`` (int), ``measure`` (text), ``value`` (a number) and what tells settings apart.
        """

    @abstractmethod
    def seconds(self, trial: Trial) -> float:
        """How long a trial will take alone in one process of one thread, from a few timed steps."""

    @abstractmethod
    def findings(self, rows: pandas.DataFrame) -> list[Finding]:
        """The table, from the rows of all trials."""

    @abstractmethod
    def figure(self, rows: pandas.DataFrame) -> matplotlib.figure.Figure:
        """The paper's figure, drawn from the rows."""

    def remarks(self, rows: pandas.DataFrame) -> list[str]:
        """Sentences under the table: what was chosen, what was not reached and what was tried."""
        return []


def finite(values: Any) -> tuple[float, ...]:
    """What a finding is made of: the numbers of a series, without those that are missing.

    >>> finite([0.5, math.nan, 2])
    (0.5, 2.0)
    """
    return tuple(float(value) for value in values if np.isfinite(value))


def at_least(least: int, **options: float | int | Sequence[float | int]) -> None:
    """Raises ValueError for an option whose number, or one of whose numbers, is below the least.

    >>> at_least(1, epochs=5, hidden=(12, 500))
    """
    for name, value in options.items():
        if not all(number >= least for number in np.atleast_1d(value)):
            raise ValueError(f"`{name}` must be at least {least}. Got {value}.")


def positive(**options: float | int | Sequence[float | int]) -> None:
    """Raises ValueError for an option whose number, or one of whose numbers, is not above 0.

    >>> positive(rate=0.1, speeds=(1, 10))
    """
    for name, value in options.items():
        if not all(number > 0 for number in np.atleast_1d(value)):
            raise ValueError(f"`{name}` must be positive. Got {value}.")


def of_each(training: Training, measured: Callable[[], Iterable[T]], failed: T) -> list[T]:
    """What each network of a finished training showed, in the order in which they began.

    Parameters
    ----------
    training
        One in which no patience ends a network: those that are gone have failed.
    measured
        Tells what those that are left show, in their order. It is not called where none is.
    failed
        What stands for a network that has failed.
    """
    found = [failed] * training.members
    if training.replicas:
        for number, one in zip(training.network.number.tolist(), measured(), strict=True):
            found[number] = one
    return found


def train(training: Training, folder: Folder, name: str) -> None:
    """Trains to the end, from the checkpoint `name` in `folder` if there is one.

    A checkpoint is kept every 30 s, and removed at the end.
    """
    file = f"{name}.safetensors"
    checkpoints.run(training, folder, file)
    folder.remove(file)
