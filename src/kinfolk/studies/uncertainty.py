"""Learned weights against a grid of fixed ones, where the scales of the tasks differ."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from kinfolk.balancing import Fixed, Uncertainty
from kinfolk.balancing.base import Balancing
from kinfolk.drawing import BLUE, GREEN, GREY, INK, RED, style
from kinfolk.runs import Folder
from kinfolk.sharing import Hard
from kinfolk.studies.base import Finding, Study, Trial, at_least, finite, positive, train
from kinfolk.studies.weightings import TASKS, Array, Errors, places, problem, relative
from kinfolk.training.loop import Training
from kinfolk.training.network import Parts, Replica
from kinfolk.training.optim import AdamW, Sgd
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import Mlp

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure
    import pandas

GRID, LEARNED, PLAIN, SINGLE = "grid", "learned", "learned, plain form", "single-task"
STARTS = {"learned, from v = -3": -3.0, "learned, from v = 3": 3.0}
GRIDS = {  # log10 of the weights of the regressions over that of the classes
    2: [[float(far)] for far in np.arange(-5, 1.5, 0.5)],
    3: [[float(far), float(near)] for far, near in product(range(-4, 1), range(6))],
}
QUICK_GRIDS = {2: [[-2.0], [0.0]], 3: [[-2.0, 3.0], [0.0, 0.0]]}
RATES = {"sgd": [0.1, 0.03, 0.01, 0.003, 0.001], "adam": [0.03, 0.01, 0.003, 0.001, 0.0003]}
OPTIMIZERS = {"sgd": partial(Sgd, momentum=0.9, nesterov=True), "adam": AdamW}
WIDTH, BATCH = 32, 100
ROWS, QUICK_ROWS = [5000, 1000, 2000], [100, 50, 50]  # to train, to choose by, to test
QUICK_UPDATES = 10
COLOURS = {"far": BLUE, "near": GREEN, "class": RED}
TABLE, SHOWN, STARTING = (f"Kendall et al. 2018, {place}" for place in ("table 1", "figure 2", "section 4"))


class UncertaintyWeights(Study):
    """Learned weights against a grid of fixed ones, for two and for three tasks of different scale.

    Inputs are 20 normal numbers, and all tasks are functions of the same 12 hidden features ``tanh(Wx)``. "far" and
    "near" are regressions on scales and with noise of their own, "class" has five classes, drawn from a softmax. A
    trunk is shared, with a head per task. The grid of weights is trained as replicas of one stack: each seed with each
    weighting and learning rate, from the same first weights and on the same batches as the arms that learn theirs.

    An error is the loss on test rows in percent of that of a constant prediction (mean, or shares of classes), and the
    mean over tasks is what weightings are judged by. The learning rate of every arm and the best point of the grid are
    chosen for each seed on rows that are neither trained nor tested on; a single-task network has a rate of its own,
    and learned weights have one for the log variances too.

    Parameters
    ----------
    far, near
        Scales of the regressions.
    optimizer
        "sgd", with a Nesterov momentum of 0.9, or "adam". Learning rates fall to 0 along a cosine.
    speeds
        Learning rates of the log variances v as multiples of the network's; the best for each seed is chosen with it.
        One that is given twice counts once.
    updates
        Of each training.

    References
    ----------
    A. Kendall, Y. Gal, R. Cipolla (2018). Multi-task learning using uncertainty to weigh losses for scene geometry and
    semantics. CVPR.
    """

    title: ClassVar[str] = "Learned weights of losses against a grid of fixed ones"
    paper: ClassVar[str] = (
        "A. Kendall, Y. Gal, R. Cipolla (2018). Multi-task learning using uncertainty to weigh losses for scene "
        "geometry and semantics. CVPR."
    )

    def __init__(
        self,
        far: float | int = 20,
        near: float | int = 0.1,
        optimizer: str = "sgd",
        speeds: Sequence[float | int] = (1, 10, 100),
        updates: int = 2000,
    ) -> None:
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"`optimizer` must be one of {', '.join(OPTIMIZERS)}. Got {optimizer!r}.")
        if not speeds:
            raise ValueError("`speeds` must have one at least. Got none.")
        positive(far=far, near=near, speeds=speeds)
        at_least(1, updates=updates)
        self.far, self.near, self.optimizer, self.updates = far, near, optimizer, updates
        self.speeds = tuple(dict.fromkeys(float(speed) for speed in speeds))

    def trials(self, seeds: int, quick: bool) -> list[Trial]:
        """An arm with all its seeds and learning rates side by side; the whole grid is one, and so is each speed."""
        same = {
            "seeds": seeds,
            "updates": min(QUICK_UPDATES, self.updates) if quick else self.updates,
            "rows": QUICK_ROWS if quick else ROWS,
            "rates": RATES[self.optimizer][1:3] if quick else RATES[self.optimizer],
        }
        made = []
        for tasks, arm in product(TASKS, (GRID, LEARNED, PLAIN, *STARTS, SINGLE)):
            grid = (QUICK_GRIDS if quick else GRIDS)[tasks] if arm == GRID else [[]]
            asked = {"tasks": tasks, "arm": arm, "grid": grid, **same}
            if arm in (GRID, SINGLE):
                made.append(Trial(f"{tasks} tasks, {arm}", asked))
            else:
                made += [
                    Trial(f"{tasks} tasks, {arm}, speed {v:g}", {**asked, "speed": v})
                    for v in self.speeds[: 2 if quick else None]
                ]
        return made

    def run(self, trial: Trial, folder: Folder) -> list[dict[str, Any]]:
        """Trains all networks of an arm, and takes their errors."""
        found = []
        for name, columns in _networks(trial.arguments).items():
            training = self._training(trial.arguments, columns)
            train(training, folder, name)
            found += _measured(training, trial.arguments, columns)
        return found

    def seconds(self, trial: Trial) -> float:
        """From a few updates."""
        whole, few = 0.0, {"updates": 20, "rows": [BATCH, 10, 10]}
        for columns in _networks(trial.arguments).values():
            training = self._training({**trial.arguments, **few}, columns)
            training.run(until=2)
            start = time.perf_counter()
            training.run(until=8)
            whole += (time.perf_counter() - start) / 6 * trial.arguments["updates"]
        return whole

    def _training(self, asked: Mapping[str, Any], columns: tuple[int, ...]) -> Training:
        """All networks of an arm that learn the tasks in these columns."""
        drawn = problem(asked["tasks"], asked["seeds"], sum(asked["rows"]), float(self.far), float(self.near))
        members = []
        for seed, _, rate in _settings(asked):
            learned, chosen, _ = places(seed, asked["rows"])
            members.append(Replica(learned, chosen, columns, seed, rate, 0.0))
        updates, balancing = asked["updates"], self._balancing(asked, [point for _, point, _ in _settings(asked)])
        schedule = Schedule(updates, max(1, updates // 10), BATCH, updates + 1, 0)
        optimizer = OPTIMIZERS[self.optimizer]
        make = lambda: Parts(Mlp(WIDTH, 2), Hard(), balancing(), (), optimizer)  # noqa: E731
        return Training(drawn, make, members, schedule)

    def _balancing(self, asked: Mapping[str, Any], points: Sequence[Sequence[float]]) -> Callable[[], Balancing]:
        """Makes the balancing of one replica after the other."""
        if asked["arm"] in (GRID, SINGLE):
            names = [task.name for task in TASKS[asked["tasks"]]]
            left = iter(points)
            return lambda: Fixed(_shares(names, next(left)))
        form = "plain" if asked["arm"] == PLAIN else "kendall"
        return lambda: Uncertainty(STARTS.get(asked["arm"], 0.0), form, asked["speed"])

    def findings(self, rows: pandas.DataFrame) -> list[Finding]:
        """What the paper says, for two and for three tasks; then the errors."""
        return [finding for tasks in TASKS for finding in _findings(Errors(rows, tasks), tasks)]

    @style()
    def figure(self, rows: pandas.DataFrame) -> matplotlib.figure.Figure:
        """The paper's: test errors against weights, with the weights that were learned."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.8, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_two(left, Errors(rows, 2))
        _draw_three(right, Errors(rows, 3))
        return figure

    def remarks(self, rows: pandas.DataFrame) -> list[str]:
        """What was chosen."""
        return [
            "Errors are losses on test rows in percent of the loss of a constant prediction; the mean is over tasks.",
            f"Scales are {self.far:g} (far) and {self.near:g} (near). Optimiser: {self.optimizer}; the learning rate "
            "of every arm, the best weights of the grid and the speed of the log variances "
            f"({', '.join(f'{speed:g}' for speed in self.speeds)}) are chosen on rows of their own.",
            "Reaching the grid's best is judged with a margin: a tenth of what equal weights lose against it.",
            "The published numbers are of images of Cityscapes with a ResNet-101 encoder, which is not trained here.",
        ]


def _networks(asked: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tasks of each network that an arm trains, by a name for its checkpoint."""
    tasks = TASKS[asked["tasks"]]
    if asked["arm"] == SINGLE:
        return {task.name: (t,) for t, task in enumerate(tasks)}
    return {"all": tuple(range(len(tasks)))}


def _settings(asked: Mapping[str, Any]) -> list[tuple[int, list[float], float]]:
    """Seed, point of the grid and learning rate of each replica; those of one rate are moved in one piece."""
    return [(s, point, rate) for rate, s, point in product(asked["rates"], range(asked["seeds"]), asked["grid"])]


def _shares(names: Sequence[str], point: Sequence[float]) -> dict[str, float]:
    """Weights that sum to 1, from log10 of those over the last task's."""
    weights = 10 ** np.array([*point, 0.0]) if point else np.ones(len(names))
    return {name: float(weight) for name, weight in zip(names, weights / weights.sum(), strict=True)}


def _measured(training: Training, asked: Mapping[str, Any], columns: tuple[int, ...]) -> list[dict[str, Any]]:
    """Errors and last weights of every network, by task; NaN where it failed."""
    numbers, settings = training.network.number.tolist(), _settings(asked)
    measured = dict.fromkeys(("weight", "validation", "test"), torch.empty(0))
    if numbers:
        where = [places(settings[number][0], asked["rows"]) for number in numbers]
        learned, chosen, judged = (torch.stack([place[i] for place in where]) for i in range(3))
        _, seen, _, _, weight = training.history[-1]
        measured["weight"] = weight[torch.isin(seen, training.network.number)]
        measured["validation"] = relative(training, learned, chosen, columns)
        measured["test"] = relative(training, learned, judged, columns)
    found = []
    for number, (seed, point, rate) in enumerate(settings):
        at = asked["grid"].index(point)
        told = {"tasks": asked["tasks"], "arm": asked["arm"], "seed": seed, "rate": rate, "point": at}
        told["speed"] = asked.get("speed", 1.0)
        told |= {f"log10 weight of {TASKS[asked['tasks']][j].name}": power for j, power in enumerate(point)}
        for (name, values), (t, task) in product(measured.items(), enumerate(training.tasks)):
            value = float(values[numbers.index(number), t]) if number in numbers else float("nan")
            found.append({**told, "task": task.name, "measure": name, "value": value})
    return found


def _findings(errors: Errors, tasks: int) -> list[Finding]:
    whole = errors.of(GRID)
    arms = {arm: errors.of(arm)[0] for arm in (LEARNED, PLAIN, *STARTS)} | {SINGLE: errors.alone(SINGLE)[0]}
    arms["equal weights"] = whole[[not any(point) for point in errors.grid(GRID)].index(True)]
    arms["the grid's best"] = errors.chosen(GRID)
    mean = {arm: of.mean(-1) for arm, of in arms.items()}
    learned, best, equal = mean[LEARNED], mean["the grid's best"], mean["equal weights"]
    margin = (equal - best) / 10
    starts = np.ptp([mean[arm] for arm in (LEARNED, *STARTS)], axis=0)
    found = [
        ("learned minus equal weights", learned - equal, "negative", TABLE),
        ("learned minus the grid's best", learned - best, "negative", TABLE),
        ("the same, less a tenth of what equal weights lose", learned - best - margin, "negative", TABLE),
        ("learned minus single-task", learned - mean[SINGLE], "negative", TABLE),
        ("the grid's worst minus its best", np.nanmax(whole.mean(-1), 0) - best, "positive", SHOWN),
        ("range over starts of v, less a tenth of what equal weights lose", starts - margin, "negative", STARTING),
        ("plain form minus kendall's", mean[PLAIN] - learned, "", ""),
    ]
    told = [arm for arm in arms if arm not in (PLAIN, *STARTS)]
    shown = [(f"{name} of {arm}", arms[arm][:, t]) for arm in told for t, name in enumerate(errors.names)]
    return [
        *(Finding(f"{tasks} tasks, mean error: {w}", None, finite(v), "points", c, s) for w, v, c, s in found),
        *(Finding(f"{tasks} tasks, error: {w}", None, finite(v), "%") for w, v in shown),
    ]


def _learned(errors: Errors) -> Array:
    """Log10 of the learned weights of the regressions over that of the classes, mean over seeds."""
    weights = np.log10(np.maximum(errors.of(LEARNED, "weight")[0], 1e-30))
    return np.nanmean(weights[:, :-1] - weights[:, -1:], axis=0)


def _draw_two(axes: matplotlib.axes.Axes, errors: Errors) -> None:
    powers, (at,) = [point[0] for point in errors.grid(GRID)], _learned(errors)
    curves, learned = np.nanmean(errors.of(GRID), axis=1), np.nanmean(errors.of(LEARNED)[0], axis=0)
    for t, name in enumerate(errors.names):
        axes.plot(powers, curves[:, t], color=COLOURS[name], label=name, lw=0.8)
        axes.plot(at, learned[t], "o", color=COLOURS[name], ms=4)
    axes.plot(powers, curves.mean(1), color=INK, label="mean")
    axes.plot(at, learned.mean(), "o", color=INK, ms=5, label="learned weights")
    axes.axvline(at, color=GREY, lw=0.6, ls=":")
    axes.set_xlabel("log10 of the weight of far over that of class")
    axes.set_ylabel("test error, % of a constant's")
    axes.set_title("2 tasks", fontsize=8)
    axes.legend()


def _draw_three(axes: matplotlib.axes.Axes, errors: Errors) -> None:
    """The mean error in each cell of the grid."""
    values = np.nanmean(errors.of(GRID).mean(-1), axis=1)
    low, high = np.nanmin(values), np.nanmax(values)
    for (far, near), value in zip(errors.grid(GRID), values, strict=True):
        share = float((value - low) / (high - low or 1.0))
        axes.plot(far, near, "s", ms=26, color=BLUE, alpha=0.1 + 0.7 * share, mew=0)
        axes.text(far, near, f"{value:.0f}", ha="center", va="center", fontsize=7)
    axes.plot(*_learned(errors), "o", color=RED, ms=8, mfc="none", mew=1.5, label="learned weights")
    axes.margins(0.12)
    axes.set_xlabel("log10 of the weight of far over that of class")
    axes.set_ylabel("the same of near")
    axes.set_title("3 tasks: mean test error, % of a constant's", fontsize=8)
    axes.legend(loc="upper left")
