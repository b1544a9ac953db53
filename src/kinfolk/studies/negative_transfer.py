"""When a shared body helps and when it hurts: its width, the tasks' covariances, weights under label noise."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from kinfolk.balancing import Fixed, SvdReweighting
from kinfolk.runs import Folder
from kinfolk.sharing import CovarianceAlignment, Hard
from kinfolk.sharing.base import Sharing
from kinfolk.studies import bodies
from kinfolk.studies.base import Finding, Study, Trial, train
from kinfolk.studies.bodies import Stack
from kinfolk.studies.planted import SOURCES, Covariances, family, labelled
from kinfolk.training.loop import Training

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas

CAPACITY, COVARIANCE, NOISE = "capacity", "covariance", "label noise"
SINGLE, SHARED, ALIGNED, FIXED = "single-task", "shared", "aligned", "aligned, fixed body"
EQUAL, REWEIGHTED = "equal weights", "reweighted"
SHARINGS: dict[str, Callable[[], Sharing]] = {
    SINGLE: Hard,
    SHARED: Hard,
    ALIGNED: CovarianceAlignment,
    FIXED: lambda: CovarianceAlignment(fixed=True),
}
TASKS, WIDTHS, ALONE = 10, (1, 2, 3, 4, 6, 10, 15, 20), {"linear": (1,), "relu": (1, 2, 3)}
FAMILY: dict[str, Any] = {"tasks": TASKS, "groups": 3, "features": 20, "noise": 0.5, "cosine": 0.98}
FAMILY_ROWS = {"linear": 40, "relu": 60}  # of each task
FEATURES, TARGET_ROWS = 30, (20, 60)
SOURCE_ROWS = {SHARED: (15, 30, 60, 120, 360, 1200), ALIGNED: (15, 60, 360), FIXED: (15, 60, 360)}
FEW, MANY = 60, 1200  # rows of a source at which signs are told
PAIRED: dict[str, Any] = {"tasks": 5, "features": 20, "rows": 100, "test": 1000, "cosine": 0.7}
EXCESS, RISK, AREA = "excess error", "excess error of task 1", "area under the ROC curve"
PAPER = "Wu, Zhang, Ré 2020"


class NegativeTransfer(Study):
    """Three things that decide whether tasks help each other: capacity, covariances of inputs, weights.

    *Capacity.* Ten tasks in three groups of near copies share a body of width r, each with rows of its own. A linear
    body with r at least the number of tasks can be the single-task solution of all, so that nothing is transferred; a
    narrower one must share; one that is too narrow cannot hold the tasks.

    *Covariance.* Task 1 and a source share a linear body of width 1. The sources have one theta, whose cosine with that
    of task 1 is 0.96, and differ in the covariance of their inputs alone, see
    :class:`~kinfolk.studies.planted.Covariances`. What is measured is the excess error of task 1 for rows of its own
    law, against the number of rows of the source, with and without covariance alignment.

    *Label noise.* Pairs of binary tasks on the same rows and a body of width 1; of one task 20 % of the labels are
    random. What is measured is the area under the ROC curve on clean labels, with weights from the singular value
    decomposition against equal weights.

    It leaves open how many rows the target has, how much noise, how many features and how one trains. Here are 30
    features, and task 1 has fewer rows than that (20) or more (60).

    Parameters
    ----------
    kappa, cosine
        Of the construction: 100 and about 0.96 in the paper.
    noise
        Deviation of the labels' noise in the covariance part, relative to that of the labels without it.
    weighing
        "rows": the loss of a task is summed over its rows. "tasks": it is a mean over them.
    random_labels
        Share of the labels of a task that are random, in [0, 1].
    updates
        Of AdamW without weight decay, all rows in each.

    References
    ----------
    S. Wu, H. R. Zhang, C. Ré (2020). Understanding and improving information transfer in multi-task learning. ICLR.
    """

    title: ClassVar[str] = "When sharing hurts: capacity, covariances and label noise"
    paper: ClassVar[str] = (
        "S. Wu, H. R. Zhang, C. Ré (2020). Understanding and improving information transfer in multi-task learning. "
        "ICLR."
    )
    seeds: ClassVar[int] = 8

    def __init__(
        self,
        kappa: float | int = 100,
        cosine: float | int = 0.96,
        noise: float | int = 0.3,
        weighing: str = "rows",
        random_labels: float | int = 0.2,
        updates: int = 2000,
    ) -> None:
        if weighing not in ("rows", "tasks"):
            raise ValueError(f"`weighing` must be 'rows' or 'tasks'. Got {weighing!r}.")
        for name, value in (("cosine", cosine), ("random_labels", random_labels)):
            if not 0 <= value <= 1:
                raise ValueError(f"`{name}` must be in [0, 1]. Got {value}.")
        if not kappa > 0 or not noise >= 0 or updates < 1:
            said = f"{kappa}, {noise} and {updates}"
            raise ValueError(f"`kappa` must be positive, `noise` at least 0 and `updates` at least 1. Got {said}.")
        self.kappa, self.cosine, self.noise = kappa, cosine, noise
        self.weighing, self.random_labels, self.updates = weighing, random_labels, updates

    def trials(self, seeds: int, quick: bool) -> list[Trial]:
        """A width, or a number of rows, with all its seeds side by side."""
        asked: list[dict[str, Any]] = []
        for body, alone in ALONE.items():
            for arm, widths in ((SINGLE, alone), (SHARED, WIDTHS)):
                asked += [{"part": CAPACITY, "body": body, "arm": arm, "width": width} for width in _few(widths, quick)]
        for target in TARGET_ROWS:
            asked.append({"part": COVARIANCE, "arm": SINGLE, "target rows": target, "rows": 0})
            for arm, counts in SOURCE_ROWS.items():
                more = [{"part": COVARIANCE, "arm": arm, "target rows": target, "rows": count} for count in counts]
                asked += [one for one in more if not quick or one["rows"] == FEW]
        asked += [{"part": NOISE, "arm": arm} for arm in (SINGLE, EQUAL, REWEIGHTED)]
        same = {"seeds": seeds, "updates": min(self.updates, 60) if quick else self.updates}
        return [Trial(", ".join(_words(one)), one | same) for one in asked]

    def run(self, trial: Trial, folder: Folder) -> list[dict[str, Any]]:
        """Trains all seeds of a setting, and measures them by what was planted."""
        asked = trial.arguments
        parts = {CAPACITY: self._capacity, COVARIANCE: self._covariance, NOISE: self._label_noise}
        stack, measured = parts[asked["part"]](asked)
        training = stack.training(asked["updates"])
        train(training, folder, "training")
        told = {key: value for key, value in asked.items() if key not in ("seeds", "updates")}
        return [told | row for row in measured(training)]

    def seconds(self, trial: Trial) -> float:
        """From a few updates."""
        parts = {CAPACITY: self._capacity, COVARIANCE: self._covariance, NOISE: self._label_noise}
        training = parts[trial.arguments["part"]](trial.arguments)[0].training(16)
        training.run(until=4)
        start = time.perf_counter()
        training.run(until=12)
        return (time.perf_counter() - start) / 8 * trial.arguments["updates"]

    def _capacity(self, asked: Mapping[str, Any]) -> tuple[Stack, _Measured]:
        body = asked["body"]
        families = [family(seed, body, rows=FAMILY_ROWS[body], **FAMILY) for seed in range(asked["seeds"])]
        stack = bodies.family_stack(families, asked["arm"] == SHARED, asked["width"], body)

        def measured(training: Training) -> list[dict[str, Any]]:
            found = bodies.family_excess(training, families, stack)
            return [{"seed": seed, "measure": EXCESS, "value": value} for seed, value in found.items()]

        return stack, measured

    def _covariance(self, asked: Mapping[str, Any]) -> tuple[Stack, _Measured]:
        sources = SOURCES if asked["rows"] else ("none",)
        laws = [Covariances(seed, FEATURES, self.kappa, self.cosine, self.noise) for seed in range(asked["seeds"])]
        about = [(law, source) for law in laws for source in sources]
        settings = [bodies.covariance_parts(law, s, asked["target rows"], asked["rows"]) for law, s in about]
        seeds = [law.seed for law, _ in about]
        stack = bodies.covariance_stack(settings, seeds, SHARINGS[asked["arm"]], self.weighing == "rows")

        def measured(training: Training) -> list[dict[str, Any]]:
            found = [(*about[n], theta) for n, theta in bodies.target_thetas(training, settings).items()]
            return [
                {"source": source, "seed": law.seed, "measure": RISK, "value": law.risk(theta)}
                for law, source, theta in found
            ]

        return stack, measured

    def _label_noise(self, asked: Mapping[str, Any]) -> tuple[Stack, _Measured]:
        given = {"random_labels": self.random_labels, **PAIRED}
        data = [labelled(seed, **given) for seed in range(asked["seeds"])]
        make = (lambda: SvdReweighting(1)) if asked["arm"] == REWEIGHTED else Fixed
        stack = bodies.pair_stack(data, asked["arm"] == SINGLE, make)

        def measured(training: Training) -> list[dict[str, Any]]:
            found: dict[tuple[int, str], list[float]] = {}
            for seed, column, area in bodies.areas(training, data, stack):
                found.setdefault((seed, "noisy" if column >= PAIRED["tasks"] else "clean"), []).append(area)
            told = {key: 100 * float(np.mean(each)) for key, each in found.items()}
            return [{"seed": s, "task": task, "measure": AREA, "value": v} for (s, task), v in told.items()]

        return stack, measured

    def findings(self, rows: pandas.DataFrame) -> list[Finding]:
        """Signs and crossings, part by part."""
        return [*_of_capacity(rows), *_of_covariance(rows), *_of_noise(rows)]

    def figure(self, rows: pandas.DataFrame) -> matplotlib.figure.Figure:
        """The error of task 1 against the rows of a source, by rows of task 1, with and without alignment."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 6.4), layout="constrained")
        panels = [(target, arm) for target in TARGET_ROWS for arm in (SHARED, ALIGNED)]
        for axes, (target, arm) in zip(figure.subplots(2, 2, sharex=True).flat, panels, strict=True):
            for source in SOURCES:
                ratio = 10 ** _against_single(rows, target, arm, source).mean()
                axes.plot(list(ratio.index), list(ratio), marker="o", label=f"task {source}")
            axes.axhline(1, color="grey", linewidth=1)
            axes.set(xscale="log", yscale="log", title=f"{target} rows of task 1, {arm}")
            axes.set(xlabel="rows of the source", ylabel="error over single-task")
        figure.axes[0].legend(frameon=False)
        return figure

    def remarks(self, rows: pandas.DataFrame) -> list[str]:
        """What was chosen."""
        return [
            f"Covariance: {FEATURES} features, labels' noise {self.noise} of their deviation. Logarithms are to the "
            "base of 10, of the error of task 1 over that of single-task.",
            "Rows from which a source helps are those of the mean logarithm over seeds, on the grid "
            f"{', '.join(map(str, SOURCE_ROWS[SHARED]))}, if it also helps with more; twice the last means that it "
            "never does.",
            "The source that is called 4 as printed has the law of task 2: a normal matrix times a rotation is normal.",
            "Widths that are called best have the lowest mean error over seeds on fresh rows. Nothing else was chosen.",
        ]


_Measured = Callable[[Training], list[dict[str, Any]]]


def _few(widths: tuple[int, ...], quick: bool) -> tuple[int, ...]:
    return tuple(width for width in widths if width in (1, 3, TASKS)) if quick else widths


def _words(asked: Mapping[str, Any]) -> list[str]:
    return [f"{key} {value}" if isinstance(value, int) else str(value) for key, value in asked.items()]


def _values(series: Any) -> tuple[float, ...]:
    return tuple(series.dropna().astype(float).tolist())


def _of_capacity(rows: Any) -> list[Finding]:
    found = []
    for body, alone in ALONE.items():
        own = rows[(rows["part"] == CAPACITY) & (rows["body"] == body)].astype({"width": int})
        table = own.pivot(index="seed", columns=["arm", "width"], values="value").sort_index()
        single, shared = table[SINGLE], table[SHARED]
        width, best = single.mean().idxmin(), shared.loc[:, 2 : TASKS - 1].mean().idxmin()
        against = shared.sub(single[width], axis=0)
        what = f"{body} body of width {{}} against single-task, {EXCESS}".format
        found.append(Finding(what("1 (too narrow)"), None, _values(against[1]), "", "positive", f"{PAPER}, section 2"))
        found.append(
            Finding(
                what(f"{best} (best below 10)"), None, _values(against[best]), "", "negative", f"{PAPER}, section 2"
            )
        )
        for wide in [w for w in shared if w >= TASKS]:
            # Proposition 1: the same solution. Equal to four digits: training ends near it, not at it.
            told = (0.0, _values(against[wide].round(4))) if body == "linear" else (None, _values(against[wide]))
            found.append(Finding(what(wide), *told, source=f"{PAPER}, section 2" if body == "linear" else ""))
        if len(alone) > 1:
            fewer = shared.idxmin(axis=1) - TASKS * single.idxmin(axis=1)
            what = f"{body}: best shared width less the sum of best single-task widths"
            found.append(Finding(what, None, _values(fewer), "", "negative", f"{PAPER}: 100 against 1205, LSTM"))
    return found


def _against_single(rows: Any, target: int, arm: str, source: str) -> Any:
    """Logarithms of the error of task 1 over that of single-task, ``[seed, rows of the source]``."""
    own = rows[(rows["part"] == COVARIANCE) & (rows["target rows"] == target)]
    single = own[own["arm"] == SINGLE].set_index("seed")["value"]
    table = own[(own["arm"] == arm) & (own["source"] == source)].pivot(index="seed", columns="rows", values="value")
    table.columns = table.columns.astype(int)
    return np.log10(table.sort_index()).sub(np.log10(single), axis=0)


def _of_covariance(rows: Any) -> list[Finding]:
    found = []
    for target in TARGET_ROWS:
        told = f"{target} rows of task 1, {{}} of task {{}}, {{}}".format
        for source in SOURCES:
            shared = _against_single(rows, target, SHARED, source)
            few = {"2": "negative", "4 as printed": ""}.get(source, "positive")
            for count, claim in ((FEW, few), (MANY, "negative" if few else "")):
                if count in shared:
                    what = f"{told(count, source, SHARED)} against single-task, log10"
                    found.append(
                        Finding(what, None, _values(shared[count]), "", claim, f"{PAPER}, figure 3" * bool(claim))
                    )
            crossing = _crossing(shared.mean())
            found.append(Finding(f"{target} rows of task 1: task {source} helps from rows", None, (crossing,)))
        for source in ("2", "3", "4"):
            shared = _against_single(rows, target, SHARED, source)[FEW]
            for arm in (ALIGNED, FIXED):
                aligned = _against_single(rows, target, arm, source)[FEW]
                claim = ("negative", f"{PAPER}, section 3") if source != "2" else ("", "")
                what = told(FEW, source, arm)
                found.append(Finding(f"{what} against {SHARED}, log10", None, _values(aligned - shared), "", *claim))
                found.append(Finding(f"{what} against single-task, log10", None, _values(aligned)))
    return found


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
        Finding(what("both tasks"), None, _values(gain.mean(axis=1)), "points", "positive", f"{PAPER}: {more}"),
        *(Finding(what(f"{task} task"), None, _values(gain[task]), "points") for task in ("clean", "noisy")),
        Finding(
            f"label noise: {EQUAL} against single-task, both tasks, {AREA}",
            None, _values((table[EQUAL] - table[SINGLE]).mean(axis=1)), "points",
        ),
    ]  # fmt: skip
