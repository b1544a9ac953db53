"""What the estimators have in common: parameters, training, and the outputs of the trained network."""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from kinfolk.catalogue import CATALOGUES, parse
from kinfolk.data.splits import fold_numbers
from kinfolk.data.tasks import Task
from kinfolk.estimators.labels import Target, target
from kinfolk.evidence import networks
from kinfolk.evidence.arms import NetworkArm
from kinfolk.evidence.features import ENCODINGS
from kinfolk.evidence.jobs import Job, Rows, Surroundings
from kinfolk.evidence.networks import NetworkPredictor
from kinfolk.evidence.plan import plan_for

PARTS = 7
"""Into so many parts rows are cut; a network learns from all but one, and stops on that one."""


class Range(NamedTuple):
    """What a number may be."""

    kind: type
    least: float
    below: float
    open: bool = False
    optional: bool = False

    def says(self) -> str:
        """In words."""
        kind = "a whole number" if self.kind is numbers.Integral else "a number"
        least = f"above {self.least:g}" if self.open else f"of at least {self.least:g}"
        below = "" if math.isinf(self.below) else f" and below {self.below:g}"
        return f"{kind} {least}{below}{', or None' if self.optional else ''}"

    def holds(self, value: object) -> bool:
        """Whether a value is in it."""
        if value is None:
            return self.optional
        if not isinstance(value, self.kind) or isinstance(value, bool | np.bool_):
            return False
        number = float(value)  # type: ignore[arg-type]
        return (number > self.least if self.open else number >= self.least) and number < self.below


RANGES = {
    "width": Range(numbers.Integral, 1, math.inf, optional=True),
    "learning_rate": Range(numbers.Real, 0, math.inf, open=True),
    "weight_decay": Range(numbers.Real, 0, math.inf),
    "dropout": Range(numbers.Real, 0, 1),
    "epochs": Range(numbers.Integral, 1, math.inf, optional=True),
    "updates": Range(numbers.Integral, 0, math.inf, optional=True),
    "batch_size": Range(numbers.Integral, 1, math.inf, optional=True),
    "patience": Range(numbers.Real, 0, math.inf, open=True, optional=True),
    "members": Range(numbers.Integral, 1, math.inf),
}
METHODS = {
    "trunk": "trunks",
    "sharing": "sharing",
    "auxiliary": "auxiliary",
    "balancing": "balancing",
    "penalty": "penalties",
}
OPTIONAL = ("auxiliary", "penalty")


@dataclass(eq=False, repr=False, kw_only=True)
class MultiTaskBase(BaseEstimator):
    """Parameters and training of the estimators; see :class:`MultiTaskRegressor` for the parameters.

    A dataclass, because scikit-learn reads the parameters from the constructor's signature: estimators with more of
    them are dataclasses too.
    """

    __no_type_check__ = True  # scikit-learn's contract: a constructor takes anything, `fit` checks it

    sharing: str = "hard"
    balancing: str = "fixed"
    penalty: str | None = None
    auxiliary: str | None = None
    trunk: str = "mlp"
    width: int | None = None
    encoding: str = "piecewise"
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    dropout: float = 0.0
    epochs: int | None = None
    updates: int | None = None
    batch_size: int | None = None
    patience: float | None = None
    members: int = 1
    random_state: Any = None
    device: str = "cpu"

    def __sklearn_tags__(self) -> Tags:
        """What scikit-learn may expect: several outputs, and gaps in X, which become indicators."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags

    def _learned(self, X: Any, y: Any, sample_weight: Any) -> tuple[np.ndarray, Target, np.ndarray]:
        """Inputs, labels and weights of the rows that count. A row that weighs nothing is as no row."""
        given = target(y)
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", ensure_min_samples=2)
        check_consistent_length(X, given.columns[0])
        weight = row_weights(sample_weight, len(X))
        counts = weight > 0
        if not counts.any():
            raise ValueError("`sample_weight` must have a weight above zero. All are 0.")
        return X[counts], given.rows(counts), weight[counts]

    def _train(self, X: np.ndarray, labels: np.ndarray, tasks: tuple[Task, ...], weight: np.ndarray) -> None:
        """Trains the networks and keeps them as one."""
        check_labels(labels, tasks)
        self._check()
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        labelled = ~np.isnan(labels).all(1)
        rows = Rows(X[labelled], labels[labelled], weight[labelled], tasks, X[~labelled], weight[~labelled])
        arm = self._arm(len(rows.labels))
        arm.check_names(tasks)
        fits = arm.fit(rows, self._jobs(rows, seed), Surroundings(device=self.device))
        usable = [p for p in fits.predictors if isinstance(p, NetworkPredictor) and _complete(p)]
        if len(usable) < self.members:
            self._say_failed(fits.failed, len(usable))
        self.predictor_ = _doubled(networks.mean(usable))
        self.tasks_ = tasks
        self.n_outputs_ = len(tasks)
        self.history_, self.learned_ = fits.history, fits.learned

    def _outputs(self, X: Any) -> list[np.ndarray]:
        """One ``[row, size]`` per task: values, or probabilities."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        found = self.predictor_.predict(X)
        return [np.asarray(p, np.float64) for p in found if p is not None]  # none is None: all tasks are learned

    def _probabilities(self, X: Any) -> list[np.ndarray]:
        """As :meth:`_outputs`, with a column for each of the two classes of binary tasks."""
        found = zip(self._outputs(X), self.tasks_, strict=True)
        return [np.hstack([1 - p, p]) if task.kind == "binary" else p for p, task in found]

    def _judged(self, y: Any, rows: int, sample_weight: Any) -> tuple[Target, np.ndarray]:
        """The labels of as many rows and tasks as were predicted, and the weights of the rows."""
        given = target(y)
        if (len(given.columns[0]), len(given.columns)) != (rows, self.n_outputs_):
            raise ValueError(
                f"`y` must have a row for each of {rows} in `X` and a column for each of {self.n_outputs_} tasks. "
                f"Got {len(given.columns[0])} rows and {len(given.columns)} columns."
            )
        return given, row_weights(sample_weight, rows)

    def _check(self) -> None:
        for name, allowed in RANGES.items():
            if not allowed.holds(value := getattr(self, name)):
                raise ValueError(f"`{name}` must be {allowed.says()}. Got {value!r}.")
        if self.encoding not in ENCODINGS:
            raise ValueError(f"`encoding` must be one of {', '.join(ENCODINGS)}. Got {self.encoding!r}.")
        for name, title in METHODS.items():
            if not (name in OPTIONAL and getattr(self, name) is None):
                _check_method(name, title, getattr(self, name))
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError, TypeError) as error:  # torch has no one error for this
            why = str(error).splitlines()[0]
            raise ValueError(f"`device` must be one that torch can use, as 'cpu'. Got {self.device!r}: {why}") from None

    def _arm(self, rows: int) -> NetworkArm:
        """The arm of these parameters; what is None follows from the number of rows, as in :func:`kinfolk.fit`."""
        plan = plan_for(rows)
        given = {"epochs": self.epochs, "updates": self.updates, "batch": self.batch_size, "patience": self.patience}
        given = {name: value for name, value in given.items() if value is not None}
        length = replace(plan.length, **given, grows=self.batch_size is None)
        text = " + ".join(getattr(self, name) for name in METHODS if getattr(self, name) is not None)
        setting = {
            "encoding": self.encoding,
            "rate": float(self.learning_rate),
            "decay": float(self.weight_decay),
            "dropout": float(self.dropout),
        }
        return NetworkArm(text, [setting], length, plan.width if self.width is None else int(self.width))

    def _jobs(self, rows: Rows, seed: int) -> list[Job]:
        """A job per member. Each stops on another part of the rows and learns from the rest."""
        every, extra = np.arange(len(rows.labels)), np.arange(0 if rows.unlabelled is None else len(rows.unlabelled))
        parts = min(max(PARTS, self.members), len(every))
        if parts < 2:
            return [Job(every, every, 0, seed + member, extra) for member in range(self.members)]
        numbers = fold_numbers(rows.labels, rows.tasks, None, parts, seed)
        return [
            Job(every[numbers != member % parts], every[numbers == member % parts], 0, seed + member, extra)
            for member in range(self.members)
        ]

    def _say_failed(self, failed: Sequence[dict[str, Any]], usable: int) -> None:
        first = failed[0] if failed else {"task": "?", "epoch": 0, "why": "it has no snapshot"}
        said = (
            f"{self.members - usable} of {self.members} networks failed, task {first['task']!r} in epoch "
            f"{first['epoch']}: {first['why']}. Choose a smaller `learning_rate`."
        )
        if not usable:
            raise ValueError(said)
        warnings.warn(said, ConvergenceWarning, stacklevel=4)


def row_weights(given: Any, rows: int) -> np.ndarray:
    """Weights of rows, float64; ones where none are given.

    Raises
    ------
    ValueError
        For weights of another number, negative, missing or infinite.
    """
    if given is None:
        return np.ones(rows)
    weight = np.asarray(given, dtype=np.float64)
    weight = np.full(rows, float(weight)) if not weight.ndim else weight
    if weight.shape != (rows,):
        raise ValueError(f"`sample_weight` must have one weight per row, shape ({rows},). Got {weight.shape}.")
    if not np.isfinite(weight).all() or (weight < 0).any():
        raise ValueError("`sample_weight` must be finite and not negative.")
    return weight


def check_labels(labels: np.ndarray, tasks: Sequence[Task]) -> None:
    """Refuse tasks that nothing can be learned of."""
    for task, column in zip(tasks, labels.T, strict=True):
        if np.isnan(column).all():
            raise ValueError(f"Each task needs labels. All of task {task.name!r} are missing; leave the task out.")


def _check_method(name: str, title: str, text: Any) -> None:
    if not isinstance(text, str):
        raise ValueError(f"`{name}` must be the text of a method, as in {CATALOGUES[title].names()}. Got {text!r}.")
    term, *others = parse(text)
    if others:
        raise ValueError(f"`{name}` must be one method. Got {text!r}.")
    CATALOGUES[title].make(term)


def _complete(predictor: NetworkPredictor) -> bool:
    predicted = {column for part in predictor.parts for column in part.columns}
    return len(predicted) == len(predictor.tasks)


def _doubled(predictor: NetworkPredictor) -> NetworkPredictor:
    """In double precision: a row's prediction then does not depend on the rows beside it, to 12 digits."""
    for part in predictor.parts:
        part.model.double()
    return predictor
