"""Multi-task problems for networks with one hidden layer, in splits that train side by side, and what judges these."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from kinfolk import datasets
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.penalties import DeepAmtfl
from kinfolk.training.loop import Training

VALIDATION, TEST = "validation error", "test error"
HARD_TASKS, FORTH, BACK = "test error of hard tasks", "transfer, easy to hard", "transfer, hard to easy"
Part = tuple[np.ndarray, np.ndarray]  # inputs [row, feature] and labels [row, task] of one split


@dataclass(frozen=True)
class Fit:
    """What one network learns from, and what judges it; one of these two may be left to another fit.

    Attributes
    ----------
    seed
        The number of the split.
    train, validation, test
        Rows of the problem.
    scale
        What errors of regressions are multiplied by, to be in the unit of the labels.
    """

    seed: int
    train: Int64[Tensor, " train"]
    validation: Int64[Tensor, " validation"] | None
    test: Int64[Tensor, " test"] | None
    scale: float = 1.0


@dataclass(frozen=True)
class Shallow:
    """A problem with the rows of one split below those of another, each prepared on its own training rows.

    Attributes
    ----------
    problem, fits
        All rows, and who learns from which.
    hidden
        Units of the hidden layer.
    error
        From outputs ``[row, task]``, labels and what is observed to a number.
    unit
        Of the error.
    batch, updates
        How networks are trained.
    """

    problem: Problem
    fits: tuple[Fit, ...]
    hidden: int
    error: Callable[[Tensor, Tensor, Tensor], float]
    unit: str
    batch: int
    updates: int


def school(seeds: int, quick: bool, hidden: int) -> Shallow:
    """School: a fifth of the training rows of each standard split chooses settings, then all of them train."""
    data = datasets.school()
    schools = 6 if quick else int(data.schools.max()) + 1
    few, parts, fits = np.flatnonzero(data.schools < schools), [], []
    labels = np.full((len(data.scores), schools), np.nan)
    labels[few, data.schools[few]] = data.scores[few]
    for seed in range(seeds):
        train, test = (np.intersect1d(rows, few) for rows in datasets.school_split(seed + 1))
        mean, scale = float(data.scores[train].mean()), float(data.scores[train].std())
        parts.append((standardised(data.inputs, train)[few], (labels[few] - mean) / scale))
        chosen = np.random.default_rng(seed).random(len(few)) < 0.2
        at = len(few) * seed + np.arange(len(few))
        learns, judges = np.isin(few, train), np.isin(few, test)
        inner, held = (torch.from_numpy(at[rows]) for rows in (learns & ~chosen, learns & chosen))
        fits.append(Fit(seed, inner, held, None, scale))
        fits.append(Fit(seed, *(torch.from_numpy(at[learns]), None, torch.from_numpy(at[judges])), scale))
    problem = _joined(parts, [Task(f"school {i}", "regression") for i in range(schools)])
    return Shallow(problem, tuple(fits), hidden, rmse, "", 250, 20 if quick else 1000)


def mnist(seeds: int, quick: bool, hidden: int, components: int = 64) -> Shallow:
    """1000 training, 500 validation and 500 test rows of MNIST; components of the training rows, a task per class."""
    images = datasets.mnist()
    pixels = np.concatenate([images.inputs, images.test_inputs]).reshape(-1, 784)
    classes = np.concatenate([images.labels, images.test_labels])
    parts, fits = [], []
    for seed in range(seeds):
        chosen = np.random.default_rng(seed).choice(len(classes), 2000, replace=False)
        inputs = _components(pixels[chosen] / 255, 1000, components)
        parts.append((inputs, classes[chosen, None] == np.arange(10)))
        fits.append(_fit(seed, 2000, 1000, 500))
    return _digits(parts, fits, quick, hidden)


def kang(seeds: int, quick: bool, hidden: int) -> Shallow:
    """The one split of Kang, Grauman and Sha (2011) that is published, with other first weights for each seed."""
    data = datasets.digits_kang()
    inputs = np.concatenate([data.inputs, data.validation_inputs, data.test_inputs])
    classes = np.concatenate([data.labels, data.validation_labels, data.test_labels])
    part = standardised(inputs, np.arange(1000)), classes[:, None] == np.arange(10)
    fits = [_fit(seed, 2000, 1000, 500) for seed in range(seeds)]
    return _digits([part] * seeds, fits, quick, hidden)


def awa2(path: str, seeds: int, quick: bool, hidden: int) -> Shallow:
    """AWA2: 85 attributes of animals, 1080 training, 60 validation and 60 test rows of 500 components."""
    data = datasets.awa2(path)
    sizes = (1080, 60, 60) if len(data.labels) >= 1200 else (len(data.labels) // 2, *[len(data.labels) // 4] * 2)
    told = data.attributes.any(0) & ~data.attributes.all(0)
    parts, fits = [], []
    for seed in range(seeds):
        chosen = np.random.default_rng(seed).permutation(len(data.labels))[: sum(sizes)]
        inputs = _components(data.inputs[chosen].astype(np.float64), sizes[0], 500)
        parts.append((inputs, data.attributes[data.labels[chosen]][:, told]))
        fits.append(_fit(seed, sum(sizes), *sizes[:2]))
    tasks = [Task(data.predicates[i], "binary", ("no", "yes")) for i in np.flatnonzero(told)]
    updates, problem = 20 if quick else 1000, _joined(parts, tasks)
    return Shallow(problem, tuple(fits), hidden, wrong_sign, "%", 100, updates)


def synthetic(seeds: int, quick: bool, hidden: int) -> Shallow:
    """12 linear tasks from six bases, 30 training, 50 validation and 50 test rows each.

    Six tasks are easy (noise 1) and use two of the bases 1 to 4, six are hard (noise 2) and use two of 3 to 6.
    """
    parts, fits, rows = [], [], np.arange(12 * 130)
    task, number = np.divmod(rows, 130)
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        bases, mixed = random.standard_normal((20, 6)), np.zeros((6, 12))
        for t in range(12):
            mixed[random.choice(4, 2, replace=False) + 2 * (t >= 6), t] = random.standard_normal(2)
        inputs, noise = random.standard_normal((len(rows), 20)), np.where(task < 6, 1.0, 2.0)
        values = (inputs @ bases @ mixed)[rows, task] + noise * random.standard_normal(len(rows))
        labels = np.full((len(rows), 12), np.nan)
        scale = float(values[number < 30].std())
        labels[rows, task] = values / scale
        parts.append((inputs, labels))
        own = (number < 30, (number >= 30) & (number < 80), number >= 80)
        train, validation, test = (torch.from_numpy(rows[which] + seed * len(rows)) for which in own)
        fits.append(Fit(seed, train, validation, test, scale))
    tasks = [Task(f"{'easy' if t < 6 else 'hard'} {t % 6}", "regression") for t in range(12)]
    updates, problem = 20 if quick else 1500, _joined(parts, tasks)
    return Shallow(problem, tuple(fits), hidden, rmse, "", 120, updates)


def measured(training: Training, made: Shallow, fit: Fit, at: int, synthetic: bool) -> Iterator[tuple[str, float]]:
    """Errors of the network in a place of the stack, on the rows that judge it."""
    problem = made.problem
    for measure, rows in ((VALIDATION, fit.validation), (TEST, fit.test)):
        if rows is None:
            continue
        labels = torch.stack([target[rows] for target in problem.targets], 1)
        outputs, observed = _outputs(training, problem.inputs[rows], at), problem.observed[rows]
        yield measure, fit.scale * made.error(outputs, labels, observed)
        if synthetic and measure == TEST:
            hard = observed[:, 6:]
            yield HARD_TASKS, fit.scale * made.error(outputs[:, 6:], labels[:, 6:], hard)
    if synthetic:
        transfer = _transfer(training, at)
        yield FORTH, float(transfer[:6, 6:].mean())
        yield BACK, float(transfer[6:, :6].mean())


@torch.no_grad()
def _outputs(training: Training, inputs: Tensor, at: int) -> Float[Tensor, "row task"]:
    """Of the network in a place of the stack."""
    model = training.network.model.eval()
    many = len(training.network.number)
    found = model(inputs.unsqueeze(0).expand(many, *inputs.shape)).tasks
    model.train()
    return torch.stack([output[at, :, 0] for output in found], 1)


@torch.no_grad()
def _transfer(training: Training, at: int) -> Float[Tensor, "task task"]:
    """From each task to each: feedback to a feature times the weight of that feature, absolute."""
    penalty = cast(DeepAmtfl, next(iter(training.network.penalties)))
    feedback = penalty.matrix[at].abs()
    heads = training.network.model(training.problem.inputs[:1].expand(len(training.network.number), 1, -1)).heads
    return feedback @ torch.stack([head[at, :, 0] for head in heads], 1).abs()


def wrong_class(outputs: Float[Tensor, "row task"], labels: Tensor, observed: Tensor) -> float:
    """Per cent of the rows in which another task than the right one has the largest output."""
    return 100 * float((outputs.argmax(1) != labels.argmax(1)).double().mean())


def wrong_sign(outputs: Float[Tensor, "row task"], labels: Tensor, observed: Tensor) -> float:
    """Per cent of the labels that are not told by the sign of the output."""
    return 100 * float(((outputs > 0) != (labels > 0)).double().mean())


def rmse(
    outputs: Float[Tensor, "row task"], labels: Float[Tensor, "row task"], observed: Bool[Tensor, "row task"]
) -> float:
    """The root of the mean squared error of all labels."""
    return float((outputs - labels)[observed].double().square().mean().sqrt())


def standardised(inputs: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Mean 0 and deviation 1 in the training rows; columns that do not vary there become 0."""
    mean, spread = inputs[train].mean(0), inputs[train].std(0)
    return (inputs - mean) / np.where(spread > 0, spread, 1.0) * (spread > 0)


def _components(inputs: np.ndarray, train: int, count: int) -> np.ndarray:
    """Principal components of the first rows, scaled by the deviation of the first: later ones stay small."""
    centre = inputs[:train].mean(0)
    around = inputs[:train] - centre
    axes = np.linalg.eigh(around.T @ around)[1][:, ::-1][:, :count]
    found = (inputs - centre) @ axes
    return found / found[:train, 0].std()


def _fit(seed: int, rows: int, train: int, validation: int) -> Fit:
    """The first rows of a split train, the next validate, the others test."""
    at = torch.arange(rows) + seed * rows
    return Fit(seed, at[:train], at[train : train + validation], at[train + validation :])


def _digits(parts: Sequence[Part], fits: Sequence[Fit], quick: bool, hidden: int) -> Shallow:
    tasks = [Task(str(k), "binary", (f"not {k}", str(k))) for k in range(10)]
    updates, problem = 20 if quick else 1000, _joined(parts, tasks)
    return Shallow(problem, tuple(fits), hidden, wrong_class, "%", 100, updates)


def _joined(parts: Sequence[Part], tasks: Sequence[Task]) -> Problem:
    """Inputs and labels of all splits, one below the other."""
    inputs, labels = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    return Problem.from_arrays(inputs, labels, tasks)
