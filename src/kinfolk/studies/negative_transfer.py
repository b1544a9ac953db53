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
from kinfolk.studies import bodies, transfer_table
from kinfolk.studies.base import Finding, Study, Trial, train
from kinfolk.studies.bodies import Stack
from kinfolk.studies.planted import SOURCES, Covariances, best_shared, family, labelled, least_squares
from kinfolk.studies.transfer_table import (
    ALIGNED,
    ALONE,
    AREA,
    CAPACITY,
    COVARIANCE,
    EQUAL,
    EXCESS,
    FEW,
    FIXED,
    NOISE,
    OPTIMUM,
    REWEIGHTED,
    RISK,
    SHARED,
    SINGLE,
    SINGLE_OPTIMUM,
    TARGET_ROWS,
    TASKS,
)
from kinfolk.training.loop import Training

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas

SHARINGS: dict[str, Callable[[], Sharing]] = {
    SINGLE: Hard,
    SHARED: Hard,
    ALIGNED: CovarianceAlignment,
    FIXED: lambda: CovarianceAlignment(fixed=True),
}
WIDTHS = (1, 2, 3, 4, 6, 10, 15, 20)
FAMILY: dict[str, Any] = {"tasks": TASKS, "groups": 3, "features": 20, "noise": 0.5, "cosine": 0.98}
FAMILY_ROWS = {"linear": 40, "relu": 60}  # of each task
FEATURES = 30
GRID = (15, 30, 60, 120, 360, 1200)
SOURCE_ROWS = {
    SINGLE_OPTIMUM: (0,),
    OPTIMUM: GRID,
    SINGLE: (0,),
    SHARED: GRID,
    ALIGNED: (15, 60, 360),
    FIXED: (15, 60, 360),
}
DRAWS = 10  # of the law, for each seed: an optimum is found quickly, and its errors have long tails
APART = 1000  # numbers of a seed's draws
PAIRED: dict[str, Any] = {"tasks": 5, "features": 20, "rows": 100, "test": 1000, "cosine": 0.7}


class NegativeTransfer(Study):
    """Three things that decide whether tasks help each other: capacity, covariances of inputs, weights.

    *Capacity.* Ten tasks in three groups of near copies share a body of width r, each with rows of its own. A linear
    body with r at least the number of tasks can be the single-task solution of all, so that nothing is transferred; a
    narrower one must share; one that is too narrow cannot hold the tasks.

    *Covariance.* Task 1 and a source share a linear body of width 1. The sources have one theta, whose cosine with that
    of task 1 is 0.96, and differ in the covariance of their inputs alone, see
    :class:`~kinfolk.studies.planted.Covariances`. What is measured is the excess error of task 1 for rows of its own
    law, against the number of rows of the source, with and without covariance alignment. The paper's theorem is about
    the best body and heads; gradient steps are far from them where covariances are ill-conditioned. So the optimum is
    computed as well, for ten draws of the law per seed, of which the geometric mean of the errors counts.

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
            for arm, counts in SOURCE_ROWS.items():
                same = {"part": COVARIANCE, "arm": arm, "target rows": target}
                drawn = {"draws": 2 if quick else DRAWS} if arm in (OPTIMUM, SINGLE_OPTIMUM) else {}
                asked += [same | {"rows": count} | drawn for count in counts if not quick or count in (0, FEW)]
        asked += [{"part": NOISE, "arm": arm} for arm in (SINGLE, EQUAL, REWEIGHTED)]
        same = {"seeds": seeds, "updates": min(self.updates, 60) if quick else self.updates}
        return [Trial(", ".join(_words(one)), one | same) for one in asked]

    def run(self, trial: Trial, folder: Folder) -> list[dict[str, Any]]:
        """Trains all seeds of a setting, and measures them by what was planted."""
        asked = trial.arguments
        if asked["arm"] in (OPTIMUM, SINGLE_OPTIMUM):
            return [self._optimum(asked, seed, source) for seed in range(asked["seeds"]) for source in _sources(asked)]
        parts = {CAPACITY: self._capacity, COVARIANCE: self._covariance, NOISE: self._label_noise}
        stack, measured = parts[asked["part"]](asked)
        training = stack.training(asked["updates"])
        train(training, folder, "training")
        told = {key: value for key, value in asked.items() if key not in ("seeds", "updates")}
        return [told | row for row in measured(training)]

    def seconds(self, trial: Trial) -> float:
        """From a few updates, or one optimum."""
        if trial.arguments["arm"] in (OPTIMUM, SINGLE_OPTIMUM):
            start = time.perf_counter()
            self._best(Covariances(0, FEATURES, self.kappa, self.cosine, self.noise), trial.arguments, "2")
            optima = trial.arguments["seeds"] * trial.arguments["draws"] * len(_sources(trial.arguments))
            return (time.perf_counter() - start) * optima
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
        laws = [Covariances(seed, FEATURES, self.kappa, self.cosine, self.noise) for seed in range(asked["seeds"])]
        about = [(law, source) for law in laws for source in _sources(asked)]
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

    def _optimum(self, asked: Mapping[str, Any], seed: int, source: str) -> dict[str, Any]:
        """The geometric mean of the error of task 1 over draws of the law."""
        numbers = [seed + draw * APART for draw in range(asked["draws"])]
        laws = [Covariances(number, FEATURES, self.kappa, self.cosine, self.noise) for number in numbers]
        value = float(np.exp(np.mean([np.log(law.risk(self._best(law, asked, source))) for law in laws])))
        told = {key: asked[key] for key in ("part", "arm", "target rows", "rows")}
        return told | {"source": source, "seed": seed, "measure": RISK, "value": value}

    def _best(self, law: Covariances, asked: Mapping[str, Any], source: str) -> np.ndarray:
        """Theta of task 1 at the optimum: of its own rows, or with a source and a body of width 1."""
        target = law.rows("1", asked["target rows"])
        if not asked["rows"]:
            return least_squares(*target)
        parts = [target, law.rows(source, asked["rows"])]
        if self.weighing == "tasks":
            parts = [(x / len(y) ** 0.5, y / len(y) ** 0.5) for x, y in parts]
        return best_shared(parts)[0]

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
        return transfer_table.findings(rows)

    def figure(self, rows: pandas.DataFrame) -> matplotlib.figure.Figure:
        """The error of task 1 against the rows of a source: at the optimum, trained, trained with alignment."""
        return transfer_table.draw(rows)

    def remarks(self, rows: pandas.DataFrame) -> list[str]:
        """What was chosen."""
        return [
            f"Covariance: {FEATURES} features, labels' noise {self.noise} of their deviation. Logarithms are to the "
            "base of 10, of the error of task 1 over that of single-task.",
            "Rows from which a source helps are those of the mean logarithm over seeds, on the grid "
            f"{', '.join(map(str, GRID))}, if it also helps with more; twice the last means that it "
            "never does.",
            "The source that is called 4 as printed has the law of task 2: a normal matrix times a rotation is normal.",
            f"Optimum: least squares over body and heads; each seed is {DRAWS} draws, in the quick form two. With "
            "alignment it is that of single-task.",
            "Widths that are called best have the lowest mean error over seeds on fresh rows. Nothing else was chosen.",
        ]


_Measured = Callable[[Training], list[dict[str, Any]]]


def _sources(asked: Mapping[str, Any]) -> tuple[str, ...]:
    return SOURCES if asked["rows"] else ("none",)


def _few(widths: tuple[int, ...], quick: bool) -> tuple[int, ...]:
    return tuple(width for width in widths if width in (1, 3, TASKS)) if quick else widths


def _words(asked: Mapping[str, Any]) -> list[str]:
    return [f"{key} {value}" if isinstance(value, int) else str(value) for key, value in asked.items()]
