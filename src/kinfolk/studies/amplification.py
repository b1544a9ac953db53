"""Data amplification, and the shuffle test: noisy tasks that share a hidden function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from kinfolk.data.tasks import Task
from kinfolk.studies.base import Finding
from kinfolk.studies.mechanism import (
    Backprop,
    Experiment,
    Rows,
    Sample,
    Setting,
    best,
    outputs,
    part,
    row,
    shuffled,
    values,
)
from kinfolk.training.loop import Training

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

INPUTS, TEST = 20, 1000
NOISES = (0.5, 1.0, 2.0)
EXTRAS = (1, 3, 7)
WIDTHS = (1, 2, 4, 16)
ARMS = {"alone": 0, **{f"{extra} related": extra for extra in EXTRAS}, "7 shuffled": EXTRAS[-1]}


def draw(seed: int, noise: float, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, F without noise (mean 0, deviation 1), and labels ``[row, 8]``: functions of F, each with its noise."""
    random = np.random.default_rng([12, seed])
    inputs = random.normal(size=(rows + TEST, INPUTS))
    unit = random.normal(size=INPUTS)
    hidden = np.tanh(2 * inputs @ unit / np.linalg.norm(unit))
    hidden = (hidden - hidden.mean()) / hidden.std()
    shapes = [hidden, np.tanh(1.5 * hidden), -hidden, -np.tanh(1.5 * hidden)]
    clean = np.stack([shapes[k % len(shapes)] for k in range(EXTRAS[-1] + 1)], 1)
    return inputs, hidden, clean + noise * random.normal(size=clean.shape)


class Amplification(Experiment):
    """Extra tasks that are other functions of the hidden F of the main task, each with a noise of its own.

    Every arm has the width of the hidden layer that is best on its halting rows: alone, the main task is not
    held back by a network that fits several tasks.
    """

    name = "amplification"

    def __init__(self, backprop: Backprop) -> None:
        self.backprop = backprop

    def settings(self, seeds: int, quick: bool) -> list[Setting]:
        """One per noise."""
        return [{"seeds": seeds, "quick": quick, "noise": noise} for noise in (NOISES[1:] if quick else NOISES)]

    def trainings(self, setting: Setting) -> dict[str, Callable[[], Training]]:
        """Every arm in several widths."""
        widths = WIDTHS[1:3] if setting["quick"] else WIDTHS
        return {
            f"{arm}, width {width}": partial(self._training, setting, arm, width) for arm in ARMS for width in widths
        }

    def _training(self, setting: Setting, arm: str, width: int) -> Training:
        train, halt = _sizes(setting)
        samples = []
        for seed in range(setting["seeds"]):
            inputs, _, labels = draw(seed, setting["noise"], train + halt)
            labels = labels[: train + halt, : 1 + ARMS[arm]]
            if "shuffled" in arm:
                labels[:, 1:] = shuffled(labels[:, 1:], seed)
            samples.append(Sample(inputs[: train + halt], labels, train))
        tasks = [Task(f"y{k}", "regression", main=not k) for k in range(1 + ARMS[arm])]
        return self.backprop.training(samples, tasks, width)

    def measure(self, setting: Setting, arm: str, training: Training) -> Rows:
        """The distance to F on test rows, and the error on halting rows."""
        drawn = [draw(seed, setting["noise"], sum(_sizes(setting))) for seed in range(setting["seeds"])]
        said = outputs(best(training), np.stack([inputs[-TEST:] for inputs, _, _ in drawn]))[0][..., 0]
        truth = np.stack([hidden[-TEST:] for _, hidden, _ in drawn])
        errors = np.sqrt(((said - truth) ** 2).mean(1))
        name, _, width = arm.partition(", width ")
        more = {"noise": setting["noise"], "width": int(width)}
        rows = [row(name, seed, "RMSE", error, **more) for seed, error in enumerate(errors)]
        halting = enumerate(training.stopping.best[:, 0].tolist())
        return rows + [row(name, seed, "halting", error, **more) for seed, error in halting]

    def findings(self, rows: pandas.DataFrame) -> list[Finding]:
        """What extra tasks change, and that shuffled ones do not."""
        of, source = partial(_errors, rows), "Caruana 1997, sections 2 and 4"
        alone, one, most, mixed = (of(arm, 1.0) for arm in ("alone", "1 related", "7 related", "7 shuffled"))
        lowest, highest = min(rows["noise"]), max(rows["noise"])
        gains = [of("alone", noise) - of("7 related", noise) for noise in (lowest, highest)]
        said = [
            ("RMSE of F, 7 related - alone", most - alone, "negative"),
            ("RMSE of F, 7 related - 7 shuffled (shuffle test)", most - mixed, "negative"),
            ("RMSE of F, 7 shuffled - alone", mixed - alone, ""),
            ("RMSE of F, 7 related - 1 related", most - one, "negative"),
            (f"gain of 7 related at noise {highest:g} - at noise {lowest:g}", gains[1] - gains[0], "positive"),
        ]
        return [Finding(what, None, tuple(found), "", claim, source if claim else "") for what, found, claim in said]

    def draw(self, rows: pandas.DataFrame, axes: Axes) -> None:
        """Errors against the noise, arm by arm."""
        noises = sorted(set(rows["noise"]))
        for arm in ARMS:
            axes.plot(noises, [_errors(rows, arm, noise).mean() for noise in noises], "o-", label=arm)
        axes.set(title="Data amplification", xlabel="noise", ylabel="RMSE of F")
        axes.legend(fontsize=6)


def _sizes(setting: Setting) -> tuple[int, int]:
    """Rows that train and halt."""
    return (40, 60) if setting["quick"] else (80, 200)


def _errors(rows: pandas.DataFrame, arm: str, noise: float) -> np.ndarray:
    """The errors of an arm in the width with the best mean error on halting rows."""
    own = part(rows, noise=noise, arm=arm)
    halting = part(own, measure="halting").groupby("width")["value"].mean()
    return values(own, width=halting.idxmin(), measure="RMSE")
