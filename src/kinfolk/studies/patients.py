"""Risk of patients, with later laboratory results as extra outputs: a simulation in the shape of the Medis data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from kinfolk.data.concordance import mean_of_lowest
from kinfolk.data.tasks import Task
from kinfolk.studies.base import Finding
from kinfolk.studies.mechanism import Backprop, Experiment, Rows, Sample, Setting, best, outputs, row, shuffled, sigmoid
from kinfolk.studies.mechanism import values as of
from kinfolk.training.loop import Training

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

RANKINGS = ("rankprop", "pairwise")
BASIC, LABS, HEALTH = 30, 35, 6
STEEP, OFFSET = 0.6, 3.4  # of the logit of death; 10.9 % die
FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5)
STL = (0.0083, 0.0144, 0.0210, 0.0289, 0.0386)
MTL = (0.0074, 0.0127, 0.0197, 0.0269, 0.0364)
ALONE, LABORATORY, BOTH, MIXED = "risk alone", "with laboratory", "with laboratory and 0/1", "with shuffled laboratory"
WIDTHS = {ALONE: 32, LABORATORY: 64, BOTH: 64, MIXED: 64}


def draw(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Basic measurements ``[row, 30]``, laboratory results ``[row, 35]`` and deaths ``[row]``.

    Both are views of six hidden states of health, the laboratory's by far the sharper ones; risk rises with the states
    and where two are bad at once. About 10.9 % die.
    """
    laws = np.random.default_rng([19])  # one disease for all seeds
    basic, laboratory = laws.normal(size=(HEALTH, BASIC)), laws.normal(size=(HEALTH, LABS))
    slopes = np.abs(laws.normal(size=HEALTH))
    random = np.random.default_rng([20, seed])
    health = random.normal(size=(rows, HEALTH))
    bad = np.maximum(health, 0)
    risk = health @ slopes + 2 * bad[:, 0] * bad[:, 1] + 2 * bad[:, 2] * bad[:, 3]
    deaths = random.random(rows) < sigmoid(STEEP * risk - OFFSET)
    dim = health @ basic / HEALTH**0.5 + random.normal(size=(rows, BASIC))
    sharp = np.tanh(health @ laboratory / HEALTH**0.5) / 0.6 + 0.3 * random.normal(size=(rows, LABS))
    return dim / 2**0.5, sharp, deaths.astype(float)


class Patients(Experiment):
    """Patients are to be ranked by risk; laboratory results are known for the training patients alone.

    Parameters
    ----------
    backprop
        How networks learn.
    loss
        "rankprop" or "pairwise".
    laboratory
        Weight of each laboratory result beside the risk.
    train
        Training patients; as many halt.
    test
        Test patients.
    """

    name = "patients"

    def __init__(
        self,
        backprop: Backprop,
        loss: str = "rankprop",
        laboratory: float = 0.1,
        train: int = 1000,
        test: int = 30000,
    ) -> None:
        self.backprop, self.loss, self.laboratory, self.train, self.test = backprop, loss, laboratory, train, test

    def trainings(self, setting: Setting) -> dict[str, Callable[[], Training]]:
        """A stack of networks for each arm."""
        return {arm: partial(self._training, setting, arm) for arm in WIDTHS}

    def _sizes(self, setting: Setting) -> tuple[int, int]:
        return (100, 500) if setting["quick"] else (self.train, self.test)

    def _training(self, setting: Setting, arm: str) -> Training:
        train, _ = self._sizes(setting)
        samples = []
        for seed in range(setting["seeds"]):
            basic, laboratory, deaths = draw(seed, 2 * train)
            more = shuffled(laboratory, seed) if arm == MIXED else laboratory
            columns = [deaths[:, None]] + ([] if arm == ALONE else [more]) + ([deaths[:, None]] if arm == BOTH else [])
            samples.append(Sample(basic, np.concatenate(columns, 1), train))
        tasks = [Task("risk", "ranking", loss=self.loss)]
        tasks += [] if arm == ALONE else [Task(f"lab {i}", "regression", main=False) for i in range(LABS)]
        tasks += [Task("death", "binary", (0, 1), main=False, loss="squared")] if arm == BOTH else []
        weights = {task.name: self.laboratory for task in tasks if task.name.startswith("lab")}
        return self.backprop.training(samples, tasks, WIDTHS[arm], weights)

    def measure(self, setting: Setting, arm: str, training: Training) -> Rows:
        """The share of deaths among the fractions of test patients with the lowest scores."""
        _, test = self._sizes(setting)
        drawn = [draw(1000 + seed, test) for seed in range(setting["seeds"])]
        said = outputs(best(training), np.stack([basic for basic, _, _ in drawn]))[0][..., 0]
        found = []
        for seed, (_, _, deaths) in enumerate(drawn):
            ones = np.ones(test)
            errors = [float(mean_of_lowest(deaths, said[seed], ones, fraction)) for fraction in FRACTIONS]
            found += [row(arm, seed, f"FOP {f:g}", e) for f, e in zip(FRACTIONS, errors, strict=True)]
        return found

    def findings(self, rows: pandas.DataFrame) -> list[Finding]:
        """Differences per fraction in percent of the mean error alone."""
        lines, claim, source = [], "negative", "Caruana 1997, table of section 2.3 (other data: direction)"
        for fraction in FRACTIONS:
            alone, helped, both, mixed = (of(rows, arm=arm, measure=f"FOP {fraction:g}") for arm in WIDTHS)
            scale = 100 / alone.mean() if alone.mean() > 0 else np.nan
            what = f"error at FOP {fraction:g}"
            lines += [
                Finding(f"{what}, {LABORATORY} - alone", None, tuple(scale * (helped - alone)), "%", claim, source),
                Finding(f"{what}, {MIXED} - alone", None, tuple(scale * (mixed - alone)), "%"),
                Finding(f"{what}, {BOTH} - alone", None, tuple(scale * (both - alone)), "%"),
            ]
        return sorted(lines, key=lambda line: line.what.split(",")[1] != f" {LABORATORY} - alone")

    def draw(self, rows: pandas.DataFrame, axes: Axes) -> None:
        """Errors against the fraction."""
        for arm in WIDTHS:
            axes.plot(FRACTIONS, [of(rows, arm=arm, measure=f"FOP {f:g}").mean() for f in FRACTIONS], "o-", label=arm)
        axes.set(title="Patients (simulated)", xlabel="fraction of the population", ylabel="share of deaths")
        axes.legend(fontsize=6)
