"""GradNorm's toy: the same function for all tasks, on scales that differ."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinfolk.balancing import Fixed, GradNorm, Uncertainty
from kinfolk.balancing.base import Balancing
from kinfolk.data.losses import row_losses
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.drawing import BLUE, GREY, RED, style
from kinfolk.runs import Folder
from kinfolk.sharing import Hard
from kinfolk.studies.base import Finding, Study, Trial, at_least, finite, positive, train
from kinfolk.training.loop import Training
from kinfolk.training.network import Parts, Replica
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import Mlp

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure
    import pandas

Array = NDArray[Any]
EQUAL, UNCERTAINTY, GRADNORM = "equal weights", "uncertainty", "gradnorm"
COLOURS = {EQUAL: GREY, UNCERTAINTY: RED, GRADNORM: BLUE}
LAWS = {"inputs": ("unit", "cube"), "spread": ("deviation", "variance"), "scales": ("normal", "logarithmic")}
INPUTS, OUTPUTS, LAYERS, UNITS = 250, 100, 4, 100
BATCH, LOOKS = 200, 50
UPDATES, ROWS, TEST = {2: 4000, 10: 2000}, 10_000, 1000
QUICK_UPDATES, QUICK_ROWS, QUICK_TEST = 10, 250, 50
SOURCE = "Chen et al. 2018, figure 2"


class Toy(NamedTuple):
    """The tasks of one seed: inputs ``[row, 250]``, targets ``[task, row, 100]``, s of each task."""

    inputs: Array
    targets: Array
    scales: Array


class GradnormToy(Study):
    """Tasks that are one function on different scales: equal weights, uncertainty weighting, GradNorm.

    Task i is ``f_i(x) = s_i tanh((B + e_i) x)`` with 250 inputs and 100 outputs; B is common to all tasks, with entries
    N(0, 10), and e_i is its own, N(0, 3.5). Two tasks have s = 1 and 100, ten have s from a wide normal law. The
    network is a trunk of 4 layers of 100 ReLU units with an affine head per task; losses are squared errors. All arms
    have the same data, first weights and batches. What is measured on rows of their own is the sum over tasks of the
    loss relative to that before training.

    The paper leaves open the law of x, whether 10 and 3.5 are variances, the law of s for ten tasks, optimiser,
    learning rates, batch, rows and length.

    Parameters
    ----------
    inputs
        "unit": uniform in ±1, scaled to length 1. "cube": uniform in (0, 1), which puts nearly all targets to ±s.
    spread
        What 10 and 3.5 are: "deviation", as in public implementations, or "variance".
    scales
        The law of s for ten tasks: "normal", the absolute value of a normal number of deviation 50, or "logarithmic",
        evenly from 1 to 100 on a logarithmic scale.
    alpha
        Of GradNorm; 0.12 in the paper.
    rate
        Learning rate of Adam. Public implementations have 1e-4, with which little is learned in this many updates.
    weight_rate
        Learning rate of GradNorm's weights and of uncertainty's log variances; the paper has 0.025 on images.
    updates
        Of the trainings with two tasks, at least 4; those with ten make half as many.

    References
    ----------
    Z. Chen, V. Badrinarayanan, C.-Y. Lee, A. Rabinovich (2018). GradNorm: gradient normalization for adaptive loss
    balancing in deep multitask networks. ICML. Section 4.
    """

    title: ClassVar[str] = "GradNorm on toy tasks of different scale"
    paper: ClassVar[str] = "Z. Chen et al. (2018). GradNorm: gradient normalization for adaptive loss balancing. ICML."

    def __init__(
        self,
        inputs: str = "unit",
        spread: str = "deviation",
        scales: str = "normal",
        alpha: float | int = 0.12,
        rate: float | int = 1e-3,
        weight_rate: float | int = 0.025,
        updates: int = UPDATES[2],
    ) -> None:
        for name, value in (("inputs", inputs), ("spread", spread), ("scales", scales)):
            if value not in LAWS[name]:
                raise ValueError(f"`{name}` must be one of {', '.join(LAWS[name])}. Got {value!r}.")
        at_least(0, alpha=alpha)
        positive(rate=rate, weight_rate=weight_rate)
        at_least(4, updates=updates)  # a way of weights needs two, and ten tasks make half as many
        self.inputs, self.spread, self.scales = inputs, spread, scales
        self.alpha, self.rate, self.weight_rate, self.updates = alpha, rate, weight_rate, updates

    def trials(self, seeds: int, quick: bool) -> list[Trial]:
        """An arm with all its seeds side by side."""
        rows = {"rows": QUICK_ROWS, "test": QUICK_TEST} if quick else {"rows": ROWS, "test": TEST}
        made = []
        for tasks, share in ((2, 1), (10, 2)):
            same = {
                "tasks": tasks,
                "seeds": seeds,
                "updates": QUICK_UPDATES if quick else self.updates // share,
                **rows,
            }
            made += [Trial(f"{tasks} tasks, {arm}", {"arm": arm, **same}) for arm in COLOURS]
        return made

    def run(self, trial: Trial, folder: Folder) -> list[dict[str, Any]]:
        """Trains all seeds of an arm; losses relative to those before training, and weights, at every look."""
        asked = trial.arguments
        training, toys = self._training(asked)
        stop = [_places(seed, asked["rows"], asked["test"])[1] for seed in range(asked["seeds"])]
        first = _test_loss(training, torch.stack(stop))
        train(training, folder, "training")
        told = {"tasks": asked["tasks"], "arm": asked["arm"]}
        before = {**told, "update": 0, "measure": "normalised loss", "value": float(asked["tasks"])}
        found = [{**before, "seed": seed} for seed in range(len(toys))]
        for update, number, _, loss, weight in training.history:
            for i, seed in enumerate(number.tolist()):
                ratio, at = loss[i] / first[seed], {**told, "seed": seed, "update": int(update[0])}
                found.append({**at, "measure": "normalised loss", "value": float(ratio.sum())})
                found += [
                    {**at, "measure": name, "task": t, "scale": float(scale), "value": float(values[t])}
                    for t, scale in enumerate(toys[seed].scales)
                    for name, values in (("normalised loss of a task", ratio), ("weight", weight[i]))
                ]
        return found

    def seconds(self, trial: Trial) -> float:
        """From a few updates on few rows."""
        training, _ = self._training({**trial.arguments, "rows": BATCH, "test": 20, "updates": 6})
        training.run(until=2)
        start = time.perf_counter()
        training.run(until=6)
        return (time.perf_counter() - start) / 4 * trial.arguments["updates"]

    def toy(self, tasks: int, rows: int, seed: int) -> Toy:
        """The tasks of a seed."""
        law = np.random.default_rng((seed, tasks))
        common, own = (10.0, 3.5) if self.spread == "deviation" else (10**0.5, 3.5**0.5)
        base = law.normal(0, common, (INPUTS, OUTPUTS))
        if tasks == 2:
            scales = np.array([1.0, 100.0])
        else:
            scales = np.abs(law.normal(0, 50, tasks)) if self.scales == "normal" else np.geomspace(1, 100, tasks)
        maps = [base + law.normal(0, own, base.shape) for _ in range(tasks)]
        x = law.uniform(-1 if self.inputs == "unit" else 0, 1, (rows, INPUTS))
        if self.inputs == "unit":
            x /= np.linalg.norm(x, axis=1, keepdims=True)
        targets = np.stack([s * np.tanh(x @ one) for s, one in zip(scales, maps, strict=True)])
        return Toy(x.astype(np.float32), targets.astype(np.float32), scales)

    def _balancing(self, arm: str) -> Callable[[], Balancing]:
        return {
            EQUAL: Fixed,
            UNCERTAINTY: lambda: Uncertainty(speed=self.weight_rate / self.rate),
            GRADNORM: lambda: GradNorm(alpha=self.alpha, rate=self.weight_rate),
        }[arm]

    def _training(self, asked: Mapping[str, Any]) -> tuple[Training, list[Toy]]:
        """All seeds of an arm, each on its own rows; the last of them are for tests and train nothing."""
        tasks, rows, each = asked["tasks"], asked["rows"], asked["rows"] + asked["test"]
        toys = [self.toy(tasks, each, seed) for seed in range(asked["seeds"])]
        targets = torch.as_tensor(np.concatenate([toy.targets for toy in toys], 1))
        problem = Problem(
            inputs=torch.as_tensor(np.concatenate([toy.inputs for toy in toys])),
            targets=list(targets.unbind()),
            observed=torch.ones(targets.shape[1], tasks, dtype=torch.bool),
            weight=torch.ones(targets.shape[1]),
            tasks=tuple(Task(f"task {t}", "regression", outputs=OUTPUTS) for t in range(tasks)),
        )
        members = [
            Replica(*_places(seed, rows, asked["test"]), tuple(range(tasks)), seed, float(self.rate), 0.0)
            for seed in range(len(toys))
        ]
        updates, balancing = asked["updates"], self._balancing(asked["arm"])
        schedule = Schedule(updates, max(1, updates // LOOKS), BATCH, updates + 1, 0, "constant")
        return Training(
            problem, lambda: Parts(Mlp(UNITS, LAYERS, "relu"), Hard(), balancing()), members, schedule
        ), toys

    def findings(self, rows: pandas.DataFrame) -> list[Finding]:
        """What the paper says of its figure, for two and for ten tasks."""
        return [finding for tasks in (2, 10) for finding in _findings(rows, tasks)]

    @style()
    def figure(self, rows: pandas.DataFrame) -> matplotlib.figure.Figure:
        """The paper's: GradNorm's weights of the first seed, and the normalised losses on test rows, over updates."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, 5.2), layout="constrained")
        panels = figure.subplots(2, 2, squeeze=False)
        for (left, right), tasks in zip(panels, (2, 10), strict=True):
            weights, scales = _weights(rows, tasks)
            _draw_weights(left, _curve(rows, tasks, GRADNORM)[0][1:], weights[0], scales[0])
            _draw_losses(right, rows, tasks)
            left.set_title(f"{tasks} tasks: weights of gradnorm, by s", fontsize=8)
            right.set_title(f"{tasks} tasks: sum of normalised test losses", fontsize=8)
        return figure

    def remarks(self, rows: pandas.DataFrame) -> list[str]:
        """What was chosen."""
        law = "uniform in ±1, scaled to length 1" if self.inputs == "unit" else "uniform in (0, 1)"
        longest = {tasks: int(rows.loc[rows["tasks"] == tasks, "update"].max()) for tasks in (2, 10)}
        return [
            f"Inputs are {law}; 10 and 3.5 are taken as {self.spread}s; the network's learning rate is {self.rate:g} "
            f"(Adam, batch {BATCH}), that of the weights and of the log variances {self.weight_rate:g}.",
            f"{longest[2]} updates with two tasks and {longest[10]} with ten, so that a rerun takes minutes; the paper "
            "does not say how many it made.",
            "The end is the mean over the last tenth of the updates, the start over the first tenth.",
        ]


def _places(seed: int, rows: int, test: int) -> tuple[Tensor, Tensor]:
    """Where a seed's rows stand in the problem of all seeds: those that train it, those that test it."""
    first = seed * (rows + test)
    return torch.arange(first, first + rows), torch.arange(first + rows, first + rows + test)


def _test_loss(training: Training, rows: Tensor) -> Tensor:
    """The losses on rows ``[replica, row]``, ``[replica, task]``."""
    problem = training.problem
    with torch.no_grad():
        outputs = training.network.model(problem.inputs[rows])
    return row_losses(problem.tasks, outputs.tasks, problem.batch(rows).targets).mean(1)


def _curve(rows: pandas.DataFrame, tasks: int, arm: str) -> tuple[Array, Array]:
    """Updates, and the sums of normalised losses ``[look, seed]``."""
    mine: Any = rows[(rows["tasks"] == tasks) & (rows["arm"] == arm) & (rows["measure"] == "normalised loss")]
    table = mine.pivot(index="update", columns="seed", values="value")
    return table.index.to_numpy(), table.to_numpy()


def _weights(rows: pandas.DataFrame, tasks: int) -> tuple[Array, Array]:
    """GradNorm's weights ``[seed, look, task]``, and the scales ``[seed, task]``."""
    mine: Any = rows[(rows["tasks"] == tasks) & (rows["arm"] == GRADNORM) & (rows["measure"] == "weight")]
    each = [part for _, part in mine.groupby("seed")]
    tables = [part.pivot(index="update", columns="task", values="value").to_numpy() for part in each]
    looks = max(len(table) for table in tables)
    kept = [i for i, table in enumerate(tables) if len(table) == looks]  # a training may have failed
    scales = [each[i].groupby("task")["scale"].first().to_numpy() for i in kept]
    return np.stack([tables[i] for i in kept]), np.stack(scales)


def _findings(rows: pandas.DataFrame, tasks: int) -> list[Finding]:
    curves = {arm: _curve(rows, tasks, arm)[1] for arm in COLOURS}
    tenth = max(1, len(curves[EQUAL]) // 10)
    start = {arm: curve[1 : 1 + tenth].mean(0) for arm, curve in curves.items()}
    end = {arm: curve[-tenth:].mean(0) for arm, curve in curves.items()}
    rise = {arm: end[arm] - curve.min(0) for arm, curve in curves.items()}
    weights, scales = _weights(rows, tasks)
    found = [
        ("sum of normalised losses at the end, gradnorm minus equal weights", end[GRADNORM] - end[EQUAL], "negative"),
        ("the same, gradnorm minus uncertainty", end[GRADNORM] - end[UNCERTAINTY], "negative"),
        ("the same at the start, uncertainty minus equal weights", start[UNCERTAINTY] - start[EQUAL], "negative"),
        ("rise from the lowest to the end, uncertainty minus gradnorm", rise[UNCERTAINTY] - rise[GRADNORM], "positive"),
        ("rank correlation of gradnorm's weights at the end with s", _orders(weights, scales), "negative"),
        ("way of gradnorm's weights in the last fifth minus in the first", _movements(weights), "negative"),
    ]
    if tasks == 2:
        small, large = np.log10(weights[:, -tenth:].mean(1)).T
        found[4] = ("log10 of gradnorm's weight for s = 100 minus that for s = 1", large - small, "negative")
    found += [(f"sum of normalised losses at the end, {arm}", end[arm], "") for arm in COLOURS]
    return [
        Finding(f"{tasks} tasks: {w}", None, finite(v), "", claim, SOURCE if claim else "") for w, v, claim in found
    ]


def _orders(weights: Array, scales: Array) -> Array:
    """How weights at the end go with scales: below 0 where small scales weigh more."""
    ranks = [[np.argsort(np.argsort(one)) for one in part] for part in (weights[:, -1], scales)]
    return np.array([np.corrcoef(of_weights, of_scales)[0, 1] for of_weights, of_scales in zip(*ranks, strict=True)])


def _movements(weights: Array) -> Array:
    """How far weights go in the last fifth of the updates, minus how far in the first, from 1; the mean over tasks."""
    fifth = max(1, weights.shape[1] // 5)
    late, early = weights[:, -1] - weights[:, -1 - fifth], weights[:, fifth - 1] - 1
    return (np.abs(late) - np.abs(early)).mean(1)


def _draw_weights(axes: matplotlib.axes.Axes, updates: Array, weights: Array, scales: Array) -> None:
    order = np.argsort(scales)
    for at, alpha in zip(order, np.linspace(1, 0.4, len(order)), strict=True):
        axes.plot(updates, weights[:, at], color=BLUE, alpha=float(alpha))
        axes.text(updates[-1], weights[-1, at], f" {scales[at]:.3g}", fontsize=6, va="center")
    axes.set_yscale("log")
    axes.set_xlabel("updates")


def _draw_losses(axes: matplotlib.axes.Axes, rows: pandas.DataFrame, tasks: int) -> None:
    for arm, colour in COLOURS.items():
        updates, curve = _curve(rows, tasks, arm)
        axes.plot(updates, curve.mean(1), color=colour, label=arm)
        axes.fill_between(updates, curve.min(1), curve.max(1), color=colour, alpha=0.2, lw=0)
    axes.set_xlabel("updates")
    axes.legend()
