"""How a task is judged: errors (lower is better) and the scores shown beside them.

Every measure takes weights ``[..., row]`` and returns one number per weight vector, so that a bootstrap over
thousands of resamples judges by the very formulas that judge once; scikit-learn, which takes one weight
vector at a time, is the reference in the tests. Predictions of classes are probabilities.

A measure that is undefined (no row, one class only, a constant target) is NaN, never a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kinfolk.data.concordance import concordance, mean_of_lowest
from kinfolk.data.tasks import Task
from kinfolk.exceptions import InputError, unknown

Array = NDArray[np.float64]
Numbers = Array | np.float64  # one number per weight vector; NumPy makes a scalar of a single one
# A probability of zero for what happened costs -log(this) = 15.9. It is the spacing of float32, because
# predictions are stored in float32 and a verdict made again from them must be the same.
LEAST_PROBABILITY = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class ErrorMeasure:
    """One error: the kinds of task that it serves, its formula and what it says.

    ``formula(target [row], prediction [row, size], weight [..., row], baseline) -> [...]``
    """

    kinds: tuple[str, ...]
    formula: Callable[[Array, Array, Array, float | None], Numbers]
    says: str


def auc(positive: ArrayLike, score: ArrayLike, weight: ArrayLike) -> Numbers:
    """Area under the ROC curve, ties counted half, for one or many weight vectors.

    Parameters
    ----------
    positive
        ``[row]``, true for the rows of the positive class.
    score
        ``[row]``, higher for rows that are taken to be positive.
    weight
        ``[..., row]``, not negative.

    Returns
    -------
    ``[...]``; NaN where a class has no weight.

    Examples
    --------
    >>> float(auc([False, True, False, True], [0.1, 0.4, 0.4, 0.8], [1, 1, 1, 1]))
    0.875
    """
    score = np.asarray(score, np.float64)
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])  # where each run of equal scores begins
    weight = np.asarray(weight, np.float64)[..., order]
    positive_weight = weight * np.asarray(positive, bool)[order]
    negative_weight = weight - positive_weight
    if len(first) < len(ordered):
        positive_weight = np.add.reduceat(positive_weight, first, axis=-1)
        negative_weight = np.add.reduceat(negative_weight, first, axis=-1)
    below = np.cumsum(negative_weight, axis=-1) - negative_weight / 2
    pairs = positive_weight.sum(-1) * negative_weight.sum(-1)
    return _ratio((positive_weight * below).sum(-1), pairs)


def _ratio(above: ArrayLike, below: ArrayLike) -> Numbers:
    """Divide; NaN where there is nothing to divide by."""
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def _mean(weight: Array, loss: Array) -> Numbers:
    return _ratio(weight @ loss, weight.sum(-1))


def _squared(target: Array, prediction: Array) -> Array:
    return (target - prediction[:, 0]) ** 2


def _mse(target: Array, prediction: Array, weight: Array, baseline: float | None) -> Numbers:
    return _mean(weight, _squared(target, prediction))


def _rmse(target: Array, prediction: Array, weight: Array, baseline: float | None) -> Numbers:
    return np.sqrt(_mse(target, prediction, weight, baseline))


def _mae(target: Array, prediction: Array, weight: Array, baseline: float | None) -> Numbers:
    return _mean(weight, np.abs(target - prediction[:, 0]))


def _rrse(target: Array, prediction: Array, weight: Array, baseline: float | None) -> Numbers:
    if baseline is None or not np.isfinite(baseline):
        raise ValueError(f"`baseline` must be the mean of the training rows' labels for rrse. Got {baseline}.")
    return np.sqrt(_ratio(weight @ _squared(target, prediction), weight @ (target - baseline) ** 2))


def _one_minus_r2(target: Array, prediction: Array, weight: Array, baseline: float | None) -> Numbers:
    # Around the median first: a constant target is then exactly zero, and large offsets cost no digits.
    centred = target - np.median(target) if len(target) else target
    second = weight @ centred**2
    spread = second - _ratio((weight @ centred) ** 2, weight.sum(-1))
    return _ratio(weight @ _squared(target, prediction), np.where(spread > 1e-12 * second, spread, 0.0))


def _one_minus_auc(target: Array, prediction: Array, weight: Array, baseline: float | None) -> Numbers:
    if prediction.shape[1] == 1:
        return 1 - auc(target > 0, prediction[:, 0], weight)
    # One class against the rest; the mean over the classes that are there (and not alone).
    each = np.stack([auc(target == c, prediction[:, c], weight) for c in range(prediction.shape[1])])
    there = np.isfinite(each)
    return 1 - _ratio(np.where(there, each, 0.0).sum(0), there.sum(0))


def _log_loss(target: Array, prediction: Array, weight: Array, baseline: float | None) -> Numbers:
    if prediction.shape[1] == 1:
        happened = np.where(target > 0, prediction[:, 0], 1 - prediction[:, 0])
    else:
        happened = prediction[np.arange(len(target)), target.astype(np.intp)]
    return _mean(weight, -np.log(np.clip(happened, LEAST_PROBABILITY, 1.0)))


def _one_minus_accuracy(target: Array, prediction: Array, weight: Array, baseline: float | None) -> Numbers:
    guess = prediction[:, 0] > 0.5 if prediction.shape[1] == 1 else prediction.argmax(1)
    return _mean(weight, (guess != target).astype(np.float64))


def _one_minus_concordance(target: Array, prediction: Array, weight: Array, baseline: float | None) -> Numbers:
    return 1 - concordance(target, prediction[:, 0], weight)


def _lowest(share: float, target: Array, prediction: Array, weight: Array, baseline: float | None) -> Numbers:
    return mean_of_lowest(target, prediction[:, 0], weight, share)


_REGRESSION, _BINARY, _CLASSES = ("regression",), ("binary",), ("binary", "multiclass")
_ORDERS = ("regression", "binary", "ranking")
ERRORS: Mapping[str, ErrorMeasure] = MappingProxyType(
    {
        "rrse": ErrorMeasure(
            _REGRESSION, _rrse, "root squared error relative to predicting the mean of the training rows"
        ),
        "rmse": ErrorMeasure(_REGRESSION, _rmse, "root mean squared error, in the target's unit"),
        "mae": ErrorMeasure(_REGRESSION, _mae, "mean absolute error, in the target's unit"),
        "mse": ErrorMeasure(_REGRESSION, _mse, "mean squared error"),
        "1-r2": ErrorMeasure(_REGRESSION, _one_minus_r2, "share of the variance that is not explained"),
        "1-auc": ErrorMeasure(_CLASSES, _one_minus_auc, "1 - area under the ROC curve; many classes: mean over them"),
        "log_loss": ErrorMeasure(_CLASSES, _log_loss, "mean of -log(probability of what happened)"),
        "brier": ErrorMeasure(_BINARY, _mse, "mean squared error of the probability"),
        "1-accuracy": ErrorMeasure(_CLASSES, _one_minus_accuracy, "share of the rows given a wrong class"),
        "1-concordance": ErrorMeasure(
            _ORDERS,
            _one_minus_concordance,
            "share of pairs of rows with different labels that are put in the wrong order",
        ),
    }
    | {
        f"fop_{percent}": ErrorMeasure(
            ("binary", "ranking"),
            partial(_lowest, percent / 100),
            f"mean label (0/1: share of positive rows) of the {percent} % of rows with the lowest predictions",
        )
        for percent in (10, 20, 30, 40, 50)
    }
)
ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "r2": "1-r2",
        "auc": "1-auc",
        "logloss": "log_loss",
        "cross_entropy": "log_loss",
        "accuracy": "1-accuracy",
        "error_rate": "1-accuracy",
        "concordance": "1-concordance",
    }
)


def check_error(task_name: str, error_name: str, kind: str) -> str:
    """The canonical name of an error, if it judges tasks of this kind.

    Raises
    ------
    InputError
        If there is no such error, or it judges other kinds of task.

    Examples
    --------
    >>> check_error("passes", "AUC", "binary")
    '1-auc'
    """
    written = error_name.strip().lower()
    plain = written if written in ERRORS else written.replace("-", "_").replace(" ", "_")  # "Log-loss" -> "log_loss"
    name = ALIASES.get(plain, plain)
    fitting = [n for n, measure in ERRORS.items() if kind in measure.kinds]
    if name not in ERRORS:
        raise unknown(f"error for task '{task_name}'", error_name, [*fitting, *ALIASES])
    if name not in fitting:
        raise InputError(
            f"The error of task '{task_name}' must judge a {kind} task, and '{error_name}' does not. "
            f"Choose one of {', '.join(fitting)}."
        )
    return name


def error(
    task: Task,
    target: ArrayLike,
    prediction: ArrayLike,
    weight: ArrayLike | None = None,
    baseline: float | None = None,
) -> float:
    """The error of predictions of one task; lower is better, NaN where it is undefined.

    Parameters
    ----------
    task
        Its kind and ``task.error`` say which error.
    target
        ``[row]``: a number, or the code of a class; rows that are NaN (not observed) are left out.
    prediction
        ``[row, size]``: numbers in the target's unit, probabilities, or scores of a ranking.
    weight
        ``[row]``, not negative; ones by default.
    baseline
        Mean of the *training* rows' labels; ``rrse`` needs it.

    Raises
    ------
    ValueError
        If shapes do not fit, or a prediction of an observed row is not finite.

    Examples
    --------
    >>> error(Task("height", "regression", error="mae"), [1.0, 2.0, float("nan")], [[1.5], [2.0], [9.0]])
    0.25
    """
    weight = np.ones(len(np.asarray(target))) if weight is None else np.asarray(weight, np.float64)
    return float(resampled(task, target, prediction, weight, baseline))


def resampled(
    task: Task, target: ArrayLike, prediction: ArrayLike, weights: ArrayLike, baseline: float | None = None
) -> Numbers:
    """The error under many weight vectors ``[..., row]`` (resamples) at once -> ``[...]``; see :func:`error`."""
    rows = _observed(task, target, prediction, weights)
    return ERRORS[check_error(task.name, task.error, task.kind)].formula(*rows, baseline)


def scores(
    task: Task,
    target: ArrayLike,
    prediction: ArrayLike,
    weight: ArrayLike | None = None,
    baseline: float | None = None,
) -> dict[str, float]:
    """The scores that are shown beside the error, by the kind of task.

    Regression: ``rmse``, ``mae``, ``r2``; binary: ``accuracy``, ``auc``, ``log_loss``, ``brier``; multiclass:
    ``accuracy``, ``macro_auc``, ``log_loss``; ranking: ``concordance``. Parameters are those of :func:`error`.

    Examples
    --------
    >>> scores(Task("passes", "binary", ("no", "yes")), [0, 1], [[0.5], [0.75]])["accuracy"]
    1.0
    """
    weight = np.ones(len(np.asarray(target))) if weight is None else np.asarray(weight, np.float64)
    rows = _observed(task, target, prediction, weight)

    def value(name: str) -> float:
        return float(ERRORS[name].formula(*rows, baseline))

    if task.kind == "ranking":
        return {"concordance": 1 - value("1-concordance")}
    if task.kind == "regression":
        return {"rmse": value("rmse"), "mae": value("mae"), "r2": 1 - value("1-r2")}
    shown = {"accuracy": 1 - value("1-accuracy"), "log_loss": value("log_loss")}
    area = 1 - value("1-auc")
    if task.kind == "multiclass":
        return {**shown, "macro_auc": area}
    return {**shown, "auc": area, "brier": value("brier")}


def _observed(task: Task, target: ArrayLike, prediction: ArrayLike, weights: ArrayLike) -> tuple[Array, Array, Array]:
    """Target, prediction and weights of the rows that have a label."""
    target, prediction = np.asarray(target, np.float64), np.asarray(prediction, np.float64)
    weights = np.asarray(weights, np.float64)
    if prediction.shape != (len(target), task.size) or weights.shape[-1] != len(target):
        raise ValueError(
            f"Predictions of task {task.name!r} must be [{len(target)}, {task.size}] and weights [..., {len(target)}]. "
            f"Got {list(prediction.shape)} and {list(weights.shape)}."
        )
    if target.ndim > 1:
        raise ValueError(f"Errors judge single numbers. The labels of task {task.name!r} are vectors of {task.size}.")
    seen = np.isfinite(target)
    if not seen.all():
        target, prediction, weights = target[seen], prediction[seen], weights[..., seen]
    if not np.isfinite(prediction).all():
        raise ValueError(
            f"Predictions of task {task.name!r} must be finite. Got NaN or infinity: leave the learner out."
        )
    return target, prediction if task.numeric else np.clip(prediction, 0.0, 1.0), weights
