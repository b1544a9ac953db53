"""What the study of negative transfer tells: signs and crossings beside those of the paper, and the figure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from kinfolk.studies.base import Finding, finite
from kinfolk.studies.planted import SOURCES

if TYPE_CHECKING:
    import matplotlib.figure

CAPACITY, COVARIANCE, NOISE = "capacity", "covariance", "label noise"
SINGLE, SHARED, ALIGNED, FIXED = "single-task", "shared", "aligned", "aligned, fixed body"
OPTIMUM, SINGLE_OPTIMUM = "shared, optimum", "single-task, optimum"
ALONE_OF = {OPTIMUM: SINGLE_OPTIMUM, SHARED: SINGLE, ALIGNED: SINGLE, FIXED: SINGLE}
"""What each arm of the covariance part is compared to."""
EQUAL, REWEIGHTED = "equal weights", "reweighted"
EXCESS, RISK, AREA = "excess error", "excess error of task 1", "area under the ROC curve"
TASKS = 10  # of the capacity part
ALONE = {"linear": (1,), "relu": (1, 2, 3)}  # widths of its single-task networks
TARGET_ROWS = (20, 60)
FEW, MANY = 60, 1200  # rows of a source at which signs are told
PAPER = "Wu, Zhang, Ré 2020"


def findings(rows: Any) -> list[Finding]:
    """Signs and crossings, part by part."""
    return [*_of_capacity(rows), *_of_covariance(rows), *_of_alignment(rows), *_of_noise(rows)]


def draw(rows: Any) -> matplotlib.figure.Figure:
    """The error of task 1 against the rows of a source, by rows of task 1: optimum, trained, trained with alignment."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.4), layout="constrained")
    panels = [(target, arm) for target in TARGET_ROWS for arm in (OPTIMUM, SHARED, ALIGNED)]
    for axes, (target, arm) in zip(figure.subplots(2, 3, sharex=True).flat, panels, strict=True):
        for source in SOURCES:
            ratio = 10 ** _against_single(rows, target, arm, source).mean()
            axes.plot(list(ratio.index), list(ratio), marker="o", label=f"task {source}")
        axes.axhline(1, color="grey", linewidth=1)
        axes.set(xscale="log", yscale="log", title=f"{target} rows of task 1, {arm}")
        axes.set(xlabel="rows of the source", ylabel="error over single-task")
    figure.axes[0].legend(frameon=False)
    return figure


def _of_capacity(rows: Any) -> list[Finding]:
    found = []
    for body, alone in ALONE.items():
        own = rows[(rows["part"] == CAPACITY) & (rows["body"] == body)].astype({"width": int})
        table = own.pivot(index="seed", columns=["arm", "width"], values="value").sort_index()
        single, shared = table[SINGLE], table[SHARED]
        width, best = single.mean().idxmin(), shared.loc[:, 2 : TASKS - 1].mean().idxmin()
        against = shared.sub(single[width], axis=0)
        what = f"{body} body of width {{}} against single-task, {EXCESS}".format
        found.append(Finding(what("1 (too narrow)"), None, finite(against[1]), "", "positive", f"{PAPER}, section 2"))
        found.append(
            Finding(what(f"{best} (best below 10)"), None, finite(against[best]), "", "negative", f"{PAPER}, section 2")
        )
        for wide in [w for w in shared if w >= TASKS]:
            # Proposition 1: the same solution. Equal to four digits: training ends near it, not at it.
            told = (0.0, finite(against[wide].round(4))) if body == "linear" else (None, finite(against[wide]))
            found.append(Finding(what(wide), *told, source=f"{PAPER}, section 2" if body == "linear" else ""))
        if len(alone) > 1:
            fewer = shared.idxmin(axis=1) - TASKS * single.idxmin(axis=1)
            what = f"{body}: best shared width less the sum of best single-task widths"
            found.append(Finding(what, None, finite(fewer), "", "negative", f"{PAPER}: 100 against 1205, LSTM"))
    return found


def _against_single(rows: Any, target: int, arm: str, source: str) -> Any:
    """Logarithms of the error of task 1 over that of single-task, ``[seed, rows of the source]``."""
    own = rows[(rows["part"] == COVARIANCE) & (rows["target rows"] == target)]
    single = own[own["arm"] == ALONE_OF[arm]].set_index("seed")["value"]
    table = own[(own["arm"] == arm) & (own["source"] == source)].pivot(index="seed", columns="rows", values="value")
    table.columns = table.columns.astype(int)
    return np.log10(table.sort_index()).sub(np.log10(single), axis=0)


def _of_covariance(rows: Any) -> Iterator[Finding]:
    """Whether a source helps, at the optimum and as trained."""
    for target in TARGET_ROWS:
        for arm in (OPTIMUM, SHARED):
            for source in SOURCES:
                ratios = _against_single(rows, target, arm, source)
                few = {"2": "negative", "4 as printed": ""}.get(source, "positive")
                for count, claim in ((FEW, few), (MANY, "negative" if few else "")):
                    if count in ratios:
                        what = f"{target} rows of task 1, {count} of task {source}, {arm} against single-task, log10"
                        said = f"{PAPER}, figure 3" * bool(claim)
                        yield Finding(what, None, finite(ratios[count]), "", claim, said)
                what = f"{target} rows of task 1: task {source} helps from rows, {arm}"
                yield Finding(what, None, (_crossing(ratios.mean()),))


def _of_alignment(rows: Any) -> Iterator[Finding]:
    """What alignment undoes."""
    for target in TARGET_ROWS:
        for source in ("2", "3", "4"):
            shared = _against_single(rows, target, SHARED, source)[FEW]
            for arm in (ALIGNED, FIXED):
                aligned = _against_single(rows, target, arm, source)[FEW]
                claim = ("negative", f"{PAPER}, section 3") if source != "2" else ("", "")
                what = f"{target} rows of task 1, {FEW} of task {source}, {arm}"
                yield Finding(f"{what} against {SHARED}, log10", None, finite(aligned - shared), "", *claim)
                yield Finding(f"{what} against single-task, log10", None, finite(aligned))


def _crossing(mean: Any) -> float:
    """The fewest rows from which on a source helps."""
    helps = [bool((mean.loc[count:] < 0).all()) for count in mean.index]
    return float(mean.index[helps.index(True)] if any(helps) else 2 * mean.index[-1])


def _of_noise(rows: Any) -> list[Finding]:
    own = rows[rows["part"] == NOISE]
    table = own.pivot(index="seed", columns=["arm", "task"], values="value").sort_index()
    gain = table[REWEIGHTED] - table[EQUAL]
    more = "+2.4 points, ChestX-ray14"
    what = f"label noise: {REWEIGHTED} against {EQUAL}, {{}}, {AREA}".format
    return [
        Finding(what("both tasks"), None, finite(gain.mean(axis=1)), "points", "positive", f"{PAPER}: {more}"),
        *(Finding(what(f"{task} task"), None, finite(gain[task]), "points") for task in ("clean", "noisy")),
        Finding(
            f"label noise: {EQUAL} against single-task, both tasks, {AREA}",
            None, finite((table[EQUAL] - table[SINGLE]).mean(axis=1)), "points",
        ),
    ]  # fmt: skip
