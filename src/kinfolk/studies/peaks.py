"""Peaks functions: networks discover which tasks are related."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import permutations
from typing import TYPE_CHECKING, cast

import numpy as np
from torch import Tensor

from kinfolk.data.tasks import Task
from kinfolk.studies.base import Finding
from kinfolk.studies.mechanism import Backprop, Experiment, Rows, Sample, Setting, best, row, values
from kinfolk.training.loop import Training

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

VARIABLES, INPUTS, HIDDEN = 6, 10, 64
FUNCTIONS = tuple(permutations(range(VARIABLES), 3))
"""IF the first variable > 1/2 THEN the second ELSE the third: 120 functions."""
ANY = (-0.03, 0.03, 0.11, 0.19)
SAME_TEST = (None, 0.12, 0.22, 0.48)


def draw(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes of six variables in [0, 1] ``[row, 60]``, and all functions of them ``[row, 120]``."""
    variables = np.random.default_rng([16, seed]).random((rows, VARIABLES))
    test, then, otherwise = (variables[:, list(column)] for column in zip(*FUNCTIONS, strict=True))
    return code(variables), np.where(test > 0.5, then, otherwise)


def code(variables: np.ndarray) -> np.ndarray:
    """Each variable by ten inputs, tents over [0, 1] of which two neighbours share it: ``[row, 10 variables]``."""
    places = np.linspace(0, 1, INPUTS)
    tents = np.maximum(0, 1 - np.abs(variables[:, :, None] - places) * (INPUTS - 1))
    return tents.reshape(len(variables), -1)


@cache
def pairs() -> dict[tuple[bool, int], tuple[np.ndarray, np.ndarray]]:
    """Pairs of functions by whether the test variable is the same, and how many variables they share."""
    found: dict[tuple[bool, int], list[tuple[int, int]]] = {}
    for one, other in _each_pair():
        a, b = FUNCTIONS[one], FUNCTIONS[other]
        found.setdefault((a[0] == b[0], len({*a} & {*b})), []).append((one, other))
    return {key: cast(tuple[np.ndarray, np.ndarray], tuple(np.array(both).T)) for key, both in found.items()}


def _each_pair() -> Iterator[tuple[int, int]]:
    return ((one, other) for one in range(len(FUNCTIONS)) for other in range(one))


def rank_correlations(sensitivity: np.ndarray) -> np.ndarray:
    """Spearman's correlation of what each two outputs ask of hidden units: from ``[output, unit]``."""
    from scipy.stats import rankdata

    return np.corrcoef(rankdata(sensitivity, axis=1))


class Peaks(Experiment):
    """One network learns all functions; outputs that share variables come to share hidden units.

    An output's sensitivity to a hidden unit is the size of its weight: a factor of the output's own sigmoid changes no
    rank.

    Parameters
    ----------
    backprop
        How networks learn.
    rows
        Training rows, which the sources do not tell.
    """

    name = "peaks functions"

    def __init__(self, backprop: Backprop, rows: int = 1000) -> None:
        self.backprop, self.rows = backprop, rows

    def trainings(self, setting: Setting) -> dict[str, Callable[[], Training]]:
        """One stack of networks."""
        return {"all functions": partial(self._training, setting)}

    def _training(self, setting: Setting) -> Training:
        train, halt = (100, 50) if setting["quick"] else (self.rows, 500)
        samples = [Sample(*draw(seed, train + halt), train) for seed in range(setting["seeds"])]
        tasks = [Task("".join("ABCDEF"[i] for i in f), "binary", (0, 1), loss="squared") for f in FUNCTIONS]
        return self.backprop.training(samples, tasks, HIDDEN)

    def measure(self, setting: Setting, arm: str, training: Training) -> Rows:
        """Mean rank correlations by what two functions share."""
        model = best(training)
        weights = cast(Tensor, model.heads.layers[0].weight).detach().unflatten(0, (setting["seeds"], -1))
        found = []
        for seed, one in enumerate(weights.flatten(2).abs().numpy()):
            correlation = rank_correlations(one)
            means = {key: correlation[both] for key, both in pairs().items()}
            for shared in range(4):
                both = [means[key] for key in means if key[1] == shared]
                found.append(row(arm, seed, f"any, {shared}", np.concatenate(both).mean()))
                if (True, shared) in means:
                    found.append(row(arm, seed, f"same test, {shared}", means[True, shared].mean()))
        return found

    def findings(self, rows: pandas.DataFrame) -> list[Finding]:
        """The seven correlations of the paper's figure, and that they rise."""
        source = "Caruana 1997, figure of section 4.6, read off"
        lines = []
        for kind, published in (("any", ANY), ("same test", SAME_TEST)):
            for shared, number in enumerate(published):
                if number is not None:
                    what = f"rank correlation, {kind} variable, {shared} shared"
                    lines.append(Finding(what, number, tuple(values(rows, measure=f"{kind}, {shared}")), source=source))
            first, last = (values(rows, measure=f"{kind}, {i}") for i in (int(published[0] is None), 3))
            what = f"rank correlation, {kind} variable: 3 shared - {int(published[0] is None)} shared"
            lines.append(Finding(what, None, tuple(last - first), "", "positive", source))
        return lines

    def draw(self, rows: pandas.DataFrame, axes: Axes) -> None:
        """Correlations against shared variables, beside the paper's."""
        for kind, published, mark in (("any", ANY, "o"), ("same test", SAME_TEST, "s")):
            shared = [i for i, number in enumerate(published) if number is not None]
            theirs = [number for number in published if number is not None]
            ours = [values(rows, measure=f"{kind}, {i}").mean() for i in shared]
            (line,) = axes.plot(shared, ours, f"{mark}-", label=f"{kind} variable")
            axes.plot(shared, theirs, f"{mark}:", color=line.get_color(), alpha=0.6)
        axes.set(title="Peaks (dotted: published)", xlabel="shared variables", ylabel="rank correlation")
        axes.legend(fontsize=6)
